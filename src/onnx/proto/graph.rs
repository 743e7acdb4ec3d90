//! Graphs, nodes and attributes.

use std::collections::HashSet;

use super::{TensorProto, ValueInfo, own_domain};
use crate::onnx::error::{OnnxError, Read};
use crate::onnx::wire::{Bytes, Field};

/// A graph: nodes in any order, joined by names.
#[derive(Debug, Clone, Default)]
pub struct GraphProto<'a> {
    /// Its name.
    pub name: &'a str,
    /// Operators. Most files have them in the order in which they can run, but not all do.
    pub nodes: Vec<NodeProto<'a>>,
    /// Constants by name.
    pub initializers: Vec<TensorProto<'a>>,
    /// Names of constants that are stored as sparse tensors, which are refused where they are used.
    pub sparse_initializers: Vec<&'a str>,
    /// Inputs. Old files repeat the initializers here; [`GraphProto::free_inputs`] has the others.
    pub inputs: Vec<ValueInfo<'a>>,
    /// Outputs.
    pub outputs: Vec<ValueInfo<'a>>,
}

/// An operator with the names of its inputs and outputs.
#[derive(Debug, Clone)]
pub struct NodeProto<'a> {
    /// Where in the file it starts, in bytes.
    pub offset: usize,
    /// Its name: often empty, not always unique.
    pub name: &'a str,
    /// What it does, such as `Conv`.
    pub op_type: &'a str,
    /// Whose operator it is; ONNX's own domain is `""`.
    pub domain: &'a str,
    /// Names of its inputs; an input that is left out is `""`.
    pub inputs: Vec<&'a str>,
    /// Names of its outputs; an output that nobody wants is `""`.
    pub outputs: Vec<&'a str>,
    /// Its attributes.
    pub attributes: Vec<AttributeProto<'a>>,
}

/// An attribute of a node.
#[derive(Debug, Clone)]
pub struct AttributeProto<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value.
    pub value: AttributeValue<'a>,
}

/// The value of an attribute.
#[derive(Debug, Clone)]
pub enum AttributeValue<'a> {
    /// A float.
    Float(f32),
    /// An integer.
    Int(i64),
    /// Text, or bytes.
    Bytes(&'a [u8]),
    /// A constant.
    Tensor(Box<TensorProto<'a>>),
    /// A graph within the node.
    Graph(Box<GraphProto<'a>>),
    /// Floats.
    Floats(Vec<f32>),
    /// Integers.
    Ints(Vec<i64>),
    /// Texts.
    Strings(Vec<&'a [u8]>),
    /// A form that is refused where it is used: `sparse tensor`, `type`, `tensors`, `graphs`, or a reference to an
    /// attribute of a local function.
    Unsupported(&'static str),
}

impl<'a> GraphProto<'a> {
    /// The inputs that have no value in the file, so that whoever runs it must give one.
    pub fn free_inputs(&self) -> impl Iterator<Item = &ValueInfo<'a>> {
        let constants: HashSet<&str> = self.initializers.iter().map(|t| t.name).collect();
        self.inputs.iter().filter(move |input| !constants.contains(input.name))
    }

    /// Reads a graph within `depth` further levels of graphs.
    pub(super) fn parse(message: Bytes<'a>, depth: usize) -> Read<Self> {
        let mut this = Self::default();
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => {
                    let index = this.nodes.len();
                    this.nodes.push(NodeProto::parse(field.bytes()?, index, depth)?);
                }
                2 => this.name = field.text()?,
                5 => this.initializers.push(TensorProto::parse(field.bytes()?)?),
                11 => this.inputs.push(ValueInfo::parse(field.bytes()?)?),
                12 => this.outputs.push(ValueInfo::parse(field.bytes()?)?),
                15 => this.sparse_initializers.push(sparse_name(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(this)
    }
}

/// The name of a sparse tensor is the name of its values.
fn sparse_name(message: Bytes<'_>) -> Read<&str> {
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            return Ok(TensorProto::parse(field.bytes()?)?.name);
        }
    }
    Ok("")
}

impl<'a> NodeProto<'a> {
    fn parse(message: Bytes<'a>, index: usize, depth: usize) -> Read<Self> {
        let mut this = Self {
            offset: message.offset,
            name: "",
            op_type: "",
            domain: "",
            inputs: Vec::new(),
            outputs: Vec::new(),
            attributes: Vec::new(),
        };
        let mut fields = message.fields();
        let read = loop {
            match fields.next() {
                Ok(Some(field)) => match this.field(field, depth) {
                    Ok(()) => {}
                    Err(e) => break Err(e),
                },
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        let read = read.and_then(|()| match this.op_type {
            "" => Err(OnnxError::new(message.offset, "it names no operator")),
            _ => Ok(()),
        });
        match read {
            Ok(()) => Ok(this),
            Err(e) => Err(e.within(|| match (this.op_type, this.name) {
                ("", "") => format!("node {index}"),
                ("", name) => format!("node {index} `{name}`"),
                (op, name) => format!("node {index} `{name}` ({op})"),
            })),
        }
    }

    fn field(&mut self, field: Field<'a>, depth: usize) -> Read<()> {
        match field.number {
            1 => self.inputs.push(field.text()?),
            2 => self.outputs.push(field.text()?),
            3 => self.name = field.text()?,
            4 => self.op_type = field.text()?,
            5 => self.attributes.push(AttributeProto::parse(field.bytes()?, depth)?),
            7 => self.domain = own_domain(field.text()?),
            _ => {}
        }
        Ok(())
    }

    /// The attribute of this name.
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue<'a>> {
        self.attributes.iter().find(|a| a.name == name).map(|a| &a.value)
    }
}

/// The fields of an attribute as the file has them, before its type is known.
#[derive(Default)]
struct Fields<'a> {
    name: &'a str,
    is_reference: bool,
    ty: i64,
    float: Option<f32>,
    int: Option<i64>,
    bytes: Option<&'a [u8]>,
    tensor: Option<Box<TensorProto<'a>>>,
    graph: Option<Box<GraphProto<'a>>>,
    floats: Vec<f32>,
    ints: Vec<i64>,
    strings: Vec<&'a [u8]>,
    other: Option<&'static str>,
}

impl<'a> AttributeProto<'a> {
    fn parse(message: Bytes<'a>, depth: usize) -> Read<Self> {
        let mut read = Fields::default();
        let mut fields = message.fields();
        let result = loop {
            match fields.next() {
                Ok(Some(field)) => match read.field(field, depth) {
                    Ok(()) => {}
                    Err(e) => break Err(e),
                },
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        let name = read.name;
        result
            .and_then(|()| read.value(message.offset))
            .map(|value| Self { name, value })
            .map_err(|e| e.within(|| format!("attribute `{name}`")))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self, field: Field<'a>, depth: usize) -> Read<()> {
        match field.number {
            1 => self.name = field.text()?,
            2 => self.float = Some(field.float()?),
            3 => self.int = Some(field.int()?),
            4 => self.bytes = Some(field.bytes()?.bytes),
            5 => self.tensor = Some(Box::new(TensorProto::parse(field.bytes()?)?)),
            6 => {
                let Some(depth) = depth.checked_sub(1) else {
                    return Err(OnnxError::new(field.offset, "graphs within graphs, too deep"));
                };
                self.graph = Some(Box::new(GraphProto::parse(field.bytes()?, depth)?));
            }
            7 => field.floats(|v| self.floats.push(v))?,
            8 => field.ints(|v| self.ints.push(v as i64))?,
            9 => self.strings.push(field.bytes()?.bytes),
            10 => self.other = Some("tensors"),
            11 => self.other = Some("graphs"),
            14 | 15 => self.other = Some("type"),
            20 => self.ty = field.int()?,
            21 => self.is_reference = !field.bytes()?.bytes.is_empty(),
            22 | 23 => self.other = Some("sparse tensor"),
            _ => {}
        }
        Ok(())
    }

    /// The value, by its type; files of IR version 1 do not name one, and then the fields tell.
    fn value(self, offset: usize) -> Read<AttributeValue<'a>> {
        use AttributeValue as Value;
        if self.is_reference {
            return Ok(Value::Unsupported("reference to an attribute of a function"));
        }
        let missing = |what: &str| OnnxError::new(offset, format!("its type says that it has {what}, but it has none"));
        Ok(match self.ty {
            0 => return self.guess(offset),
            1 => Value::Float(self.float.unwrap_or(0.0)),
            2 => Value::Int(self.int.unwrap_or(0)),
            3 => Value::Bytes(self.bytes.unwrap_or(b"")),
            4 => Value::Tensor(self.tensor.ok_or_else(|| missing("a tensor"))?),
            5 => Value::Graph(self.graph.ok_or_else(|| missing("a graph"))?),
            6 => Value::Floats(self.floats),
            7 => Value::Ints(self.ints),
            8 => Value::Strings(self.strings),
            9 => Value::Unsupported("tensors"),
            10 => Value::Unsupported("graphs"),
            11 | 12 => Value::Unsupported("sparse tensor"),
            13 | 14 => Value::Unsupported("type"),
            other => return Err(OnnxError::new(offset, format!("type {other}, but ONNX has 1 to 14"))),
        })
    }

    fn guess(self, offset: usize) -> Read<AttributeValue<'a>> {
        use AttributeValue as Value;
        let Self { float, int, bytes, tensor, graph, floats, ints, strings, other, .. } = self;
        let many = [
            (!floats.is_empty()).then_some(Value::Floats(floats)),
            (!ints.is_empty()).then_some(Value::Ints(ints)),
            (!strings.is_empty()).then_some(Value::Strings(strings)),
            other.map(Value::Unsupported),
            tensor.map(Value::Tensor),
            graph.map(Value::Graph),
            bytes.map(Value::Bytes),
            float.map(Value::Float),
            int.map(Value::Int),
        ];
        many.into_iter().flatten().next().ok_or_else(|| OnnxError::new(offset, "it has neither a type nor a value"))
    }
}
