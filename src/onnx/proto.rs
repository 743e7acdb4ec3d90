//! ONNX's messages, borrowed from the file.
//!
//! Reading looks at every field once, copies names and weights nowhere, and skips what it does not know: `doc_string`,
//! and the shapes that exporters claim for values inside (`value_info`), which are often wrong.
//!
//! Source: <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>, IR versions 1 to 13.

mod graph;
mod tensor;
mod value;

pub use graph::{AttributeProto, AttributeValue, GraphProto, NodeProto};
pub use tensor::TensorProto;
pub(crate) use value::written;
pub use value::{Dimension, ValueInfo, ValueType};

use super::error::{OnnxError, Read};
use super::wire::Bytes;

/// Graphs lie in attributes of nodes of graphs (`If`, `Loop`, `Scan`); this deep and no deeper.
const MAX_DEPTH: usize = 16;

/// A model as the file has it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // ir_version 8, an empty graph, opset 13
/// let bytes = [0x08, 8, 0x3a, 0, 0x42, 2, 0x10, 13];
/// let model = swath::onnx::ModelProto::read(&bytes)?;
/// assert_eq!(model.opset(""), Some(13));
/// assert!(model.graph.nodes.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ModelProto<'a> {
    /// The version of the format; 0 if the file names none.
    pub ir_version: i64,
    /// The program that wrote the file.
    pub producer_name: &'a str,
    /// Its version.
    pub producer_version: &'a str,
    /// Version of the operators of each domain. `""` and `"ai.onnx"` are both ONNX's own domain; here it is always `""`.
    pub opsets: Vec<(&'a str, i64)>,
    /// The network.
    pub graph: GraphProto<'a>,
    /// What else the file says: keys and values, such as the names of classes or characters.
    pub metadata: Vec<(&'a str, &'a str)>,
    /// Names of local functions, as `domain::name`. Their bodies are not read: whoever meets a call refuses it by name.
    pub functions: Vec<String>,
}

impl<'a> ModelProto<'a> {
    /// Reads a whole file: a memory map, a `Vec`, or `include_bytes!`.
    ///
    /// # Errors
    ///
    /// [`OnnxError`] if the bytes are damaged, or no model. Nothing that is read makes it panic or allocate more than
    /// a small multiple of the file's size.
    pub fn read(bytes: &'a [u8]) -> Result<Self, OnnxError> {
        Self::parse(bytes).map_err(|e| e.within(|| "the model".into()))
    }

    fn parse(bytes: &'a [u8]) -> Read<Self> {
        let (mut ir_version, mut producer_name, mut producer_version) = (0, "", "");
        let (mut opsets, mut graph, mut functions, mut metadata) = (Vec::new(), None, Vec::new(), Vec::new());
        let mut fields = Bytes::file(bytes).fields();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => ir_version = field.int()?,
                2 => producer_name = field.text()?,
                3 => producer_version = field.text()?,
                7 => graph = Some(GraphProto::parse(field.bytes()?, MAX_DEPTH)?),
                8 => opsets.push(opset(field.bytes()?)?),
                // What is no text is no reason to refuse a model.
                14 => metadata.extend(pair(field.bytes()?).ok()),
                25 => functions.push(function(field.bytes()?)?),
                _ => {}
            }
        }
        let Some(graph) = graph else {
            return Err(OnnxError::new(0, "there is no graph: this is no ONNX model"));
        };
        Ok(Self { ir_version, producer_name, producer_version, opsets, graph, metadata, functions })
    }

    /// The version of a domain's operators; `None` if the file does not import the domain.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        self.opsets.iter().find(|(d, _)| *d == own_domain(domain)).map(|&(_, version)| version)
    }
}

/// ONNX's own domain has two names.
pub(crate) fn own_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

fn opset<'a>(message: Bytes<'a>) -> Read<(&'a str, i64)> {
    let (mut domain, mut version) = ("", 0);
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => domain = field.text()?,
            2 => version = field.int()?,
            _ => {}
        }
    }
    Ok((own_domain(domain), version))
}

/// A key and its value.
fn pair<'a>(message: Bytes<'a>) -> Read<(&'a str, &'a str)> {
    let (mut key, mut value) = ("", "");
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => key = field.text()?,
            2 => value = field.text()?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn function(message: Bytes<'_>) -> Read<String> {
    let (mut domain, mut name) = ("", "");
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => name = field.text()?,
            10 => domain = field.text()?,
            _ => {}
        }
    }
    Ok(format!("{domain}::{name}"))
}
