//! What an operator is called with.

use super::error::{OpResult, refuse};
use super::room::checked_count;
use super::{Array, Data, Element};

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Attribute {
    /// A float.
    Float(f32),
    /// An integer.
    Int(i64),
    /// Text.
    Text(String),
    /// An array.
    Array(Array),
    /// Floats.
    Floats(Vec<f32>),
    /// Integers.
    Ints(Vec<i64>),
    /// Texts.
    Texts(Vec<String>),
}

/// Attributes by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attributes(Vec<(String, Attribute)>);

impl Attributes {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one attribute more.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: Attribute) -> Self {
        self.0.push((name.into(), value));
        self
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&Attribute> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// Names and values, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attribute)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

/// An operator's call: its inputs and attributes, in the meaning of a version of ONNX's operators.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The version of the operators ("opset").
    pub opset: i64,
    /// Attributes.
    pub attributes: &'a Attributes,
    /// Inputs; `None` where an optional one is left out.
    pub inputs: &'a [Option<&'a Array>],
    /// How many outputs are wanted.
    pub outputs: usize,
}

impl<'a> Call<'a> {
    /// The input at this place.
    ///
    /// # Errors
    ///
    /// If it is left out.
    pub fn input(&self, index: usize) -> OpResult<&'a Array> {
        match self.optional(index) {
            Some(array) => Ok(array),
            None => refuse!("input {index} is missing"),
        }
    }

    /// The input at this place, unless it is left out.
    pub fn optional(&self, index: usize) -> Option<&'a Array> {
        self.inputs.get(index).copied().flatten()
    }

    /// The elements of an input that must be of the type `T`.
    ///
    /// # Errors
    ///
    /// If it is left out, or of another type.
    pub fn elements<T: Element>(&self, index: usize) -> OpResult<&'a [T]> {
        let array = self.input(index)?;
        match array.elements() {
            Some(elements) => Ok(elements),
            None => refuse!("input {index} has elements of type {}, but {} are needed", array.element(), T::TYPE),
        }
    }

    /// An input of integers, whatever their type: a shape, axes, or indices.
    ///
    /// # Errors
    ///
    /// If its elements are no integers.
    pub fn integers(&self, index: usize) -> OpResult<Option<Vec<i64>>> {
        self.optional(index).map(integers).transpose()
    }

    /// An attribute that is an integer.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn int(&self, name: &str, default: i64) -> OpResult<i64> {
        Ok(self.optional_int(name)?.unwrap_or(default))
    }

    /// An attribute that is an integer, or is left out.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn optional_int(&self, name: &str) -> OpResult<Option<i64>> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Int(value)) => Ok(Some(*value)),
            Some(_) => refuse!("attribute `{name}` is no integer"),
        }
    }

    /// An attribute that is a truth value.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn flag(&self, name: &str, default: bool) -> OpResult<bool> {
        Ok(self.int(name, i64::from(default))? != 0)
    }

    /// An attribute that is a float.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn float(&self, name: &str, default: f32) -> OpResult<f32> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(Attribute::Float(value)) => Ok(*value),
            Some(Attribute::Int(value)) => Ok(*value as f32),
            Some(_) => refuse!("attribute `{name}` is no float"),
        }
    }

    /// An attribute that is text.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn text(&self, name: &str, default: &'static str) -> OpResult<&'a str> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(Attribute::Text(value)) => Ok(value),
            Some(_) => refuse!("attribute `{name}` is no text"),
        }
    }

    /// An attribute that is a list of integers.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn ints(&self, name: &str) -> OpResult<Option<&'a [i64]>> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Ints(values)) => Ok(Some(values)),
            Some(_) => refuse!("attribute `{name}` is no list of integers"),
        }
    }

    /// An attribute that is a list of floats.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn floats(&self, name: &str) -> OpResult<Option<&'a [f32]>> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Floats(values)) => Ok(Some(values)),
            Some(_) => refuse!("attribute `{name}` is no list of floats"),
        }
    }

    /// An attribute that is a list of texts.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn texts(&self, name: &str) -> OpResult<Option<&'a [String]>> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Texts(values)) => Ok(Some(values)),
            Some(_) => refuse!("attribute `{name}` is no list of texts"),
        }
    }

    /// Integers that newer operators take as an input and older ones as an attribute.
    ///
    /// # Errors
    ///
    /// If they are something else.
    pub fn input_or_ints(&self, index: usize, name: &str) -> OpResult<Option<Vec<i64>>> {
        match self.integers(index)? {
            Some(values) => Ok(Some(values)),
            None => Ok(self.ints(name)?.map(<[i64]>::to_vec)),
        }
    }
}

/// The elements of an array of integers or truth values.
pub(crate) fn integers(array: &Array) -> OpResult<Vec<i64>> {
    Ok(match array.data() {
        Data::I64(v) => v.clone(),
        Data::I32(v) => v.iter().map(|&v| v.into()).collect(),
        Data::I16(v) => v.iter().map(|&v| v.into()).collect(),
        Data::I8(v) => v.iter().map(|&v| v.into()).collect(),
        Data::U64(v) => v.iter().map(|&v| v as i64).collect(),
        Data::U32(v) => v.iter().map(|&v| v.into()).collect(),
        Data::U16(v) => v.iter().map(|&v| v.into()).collect(),
        Data::U8(v) => v.iter().map(|&v| v.into()).collect(),
        Data::Bool(v) => v.iter().map(|&v| v.into()).collect(),
        _ => refuse!("integers are needed, but these are of type {}", array.element()),
    })
}

/// An axis counted from the front: negative ones count from the back.
pub(crate) fn axis(axis: i64, rank: usize) -> OpResult<usize> {
    let from_front = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    match usize::try_from(from_front) {
        Ok(found) if found < rank => Ok(found),
        _ => refuse!("axis {axis}, but there are {rank} dimensions"),
    }
}

/// Different axes, counted from the front, in order.
pub(crate) fn axes(all: &[i64], rank: usize) -> OpResult<Vec<usize>> {
    let mut found = all.iter().map(|&a| axis(a, rank)).collect::<OpResult<Vec<_>>>()?;
    found.sort_unstable();
    if found.windows(2).any(|pair| pair[0] == pair[1]) {
        refuse!("axes {all:?} name one of {rank} dimensions twice");
    }
    Ok(found)
}

/// Dimensions that a shape tensor names.
pub(crate) fn dims(shape: &[i64]) -> OpResult<Vec<usize>> {
    let dims = shape.iter().map(|&d| match usize::try_from(d) {
        Ok(d) => Ok(d),
        Err(_) => refuse!("dimension {d} of {shape:?} is negative"),
    });
    let dims = dims.collect::<OpResult<Vec<_>>>()?;
    checked_count(&dims)?;
    Ok(dims)
}
