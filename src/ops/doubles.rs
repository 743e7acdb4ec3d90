//! Numbers of any type as doubles and back: what sums and windows are computed in.

use super::call::{OpResult, refuse};
use super::wide::{Domain, Wide};
use super::{Array, ElementType};

/// The elements as doubles. Integers of up to 32 bits are exact.
pub(crate) fn doubles(x: &Array) -> OpResult<Vec<f64>> {
    if let other @ (ElementType::Bool | ElementType::Str) = x.element() {
        refuse!("elements of type {other}, but numbers are needed");
    }
    match Wide::of(x, Domain::F64)? {
        Wide::F64(v) => Ok(v),
        _ => unreachable!("doubles are asked for"),
    }
}

/// Doubles as elements of a type: rounded once.
pub(crate) fn rounded(dims: impl Into<Vec<usize>>, v: Vec<f64>, element: ElementType) -> OpResult<Array> {
    let doubles = Array::of(dims, v);
    super::cast(&doubles, element)
}
