//! What the file says of the graph's inputs and outputs.

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
