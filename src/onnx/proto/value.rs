//! What the file says of the graph's inputs and outputs.

use std::fmt;

use crate::onnx::error::Read;
use crate::onnx::wire::Bytes;
use crate::ops::ElementType;

/// A dimension of an input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension<'a> {
    /// A number of elements.
    Fixed(usize),
    /// A name that stands for a number. Names such as `floor(height/2 - 1/2)` are names too: nothing is computed.
    Named(&'a str),
    /// Any number. Some exporters write -1.
    Unknown,
}

impl fmt::Display for Dimension<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(elements) => write!(f, "{elements}"),
            Self::Named(name) => write!(f, "{}", name.escape_debug()),
            Self::Unknown => write!(f, "?"),
        }
    }
}

/// The type of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueType<'a> {
    /// A tensor.
    Tensor {
        /// The type of its elements; `None` if the file does not say, or names a type that this crate lacks.
        element: Option<ElementType>,
        /// Its dimensions; `None` if even their number is open.
        dims: Option<Vec<Dimension<'a>>>,
    },
    /// Something else: `sequence`, `map`, `optional` or `sparse tensor`.
    Other(&'static str),
    /// The file does not say.
    Unknown,
}

impl fmt::Display for ValueType<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor { element, dims } => {
                match element {
                    Some(element) => write!(f, "{element} ")?,
                    None => write!(f, "? ")?,
                }
                f.write_str(&dims.as_ref().map_or_else(|| "of open dimensions".into(), |dims| written(dims)))
            }
            Self::Other(kind) => write!(f, "{kind}"),
            Self::Unknown => write!(f, "of an unknown type"),
        }
    }
}

/// Dimensions as people write them: `[N, 3, 224, 224]`.
pub(crate) fn written(dims: &[Dimension<'_>]) -> String {
    let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// An input or output of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type.
    pub ty: ValueType<'a>,
}

impl<'a> ValueInfo<'a> {
    pub(super) fn parse(message: Bytes<'a>) -> Read<Self> {
        let (mut name, mut ty) = ("", ValueType::Unknown);
        let mut fields = message.fields();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => name = field.text()?,
                2 => ty = value_type(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(Self { name, ty })
    }
}

fn value_type(message: Bytes<'_>) -> Read<ValueType<'_>> {
    let mut ty = ValueType::Unknown;
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => ty = tensor_type(field.bytes()?)?,
            4 => ty = ValueType::Other("sequence"),
            5 => ty = ValueType::Other("map"),
            8 => ty = ValueType::Other("sparse tensor"),
            9 => ty = ValueType::Other("optional"),
            _ => {}
        }
    }
    Ok(ty)
}

fn tensor_type(message: Bytes<'_>) -> Read<ValueType<'_>> {
    let (mut element, mut dims) = (None, None);
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => element = ElementType::from_code(field.int()?),
            2 => dims = Some(shape(field.bytes()?)?),
            _ => {}
        }
    }
    Ok(ValueType::Tensor { element, dims })
}

fn shape(message: Bytes<'_>) -> Read<Vec<Dimension<'_>>> {
    let mut dims = Vec::new();
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            dims.push(dimension(field.bytes()?)?);
        }
    }
    Ok(dims)
}

fn dimension(message: Bytes<'_>) -> Read<Dimension<'_>> {
    let mut dim = Dimension::Unknown;
    let mut fields = message.fields();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => dim = usize::try_from(field.int()?).map_or(Dimension::Unknown, Dimension::Fixed),
            2 => dim = Dimension::Named(field.text()?),
            _ => {}
        }
    }
    Ok(dim)
}
