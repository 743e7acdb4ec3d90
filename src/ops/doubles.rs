//! Numbers of any type as those of another: as doubles and back, which sums and windows are computed in.

use half::slice::HalfFloatSliceExt;

use super::error::{OpResult, refuse};
use super::wide::{self, Domain, Wide};
use super::{Array, Data, ElementType};

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
    cast(&doubles, element)
}

/// The elements in another type. Floats are cut towards zero and saturate where they become integers.
pub fn cast(x: &Array, to: ElementType) -> OpResult<Array> {
    if x.element() == to {
        return Ok(x.clone());
    }
    let (from, none) = (x.element(), |_: &mut Wide| {});
    match (x.data(), to) {
        (_, ElementType::Str) => refuse!("numbers are not written as text"),
        (Data::Str(_), ElementType::Bool) => refuse!("elements of type {from} do not become truth values"),
        (Data::Str(v), _) => {
            let parse = |v: &String| match v.trim().parse::<f64>() {
                Ok(v) => Ok(v),
                Err(_) => refuse!("{v:?} is no number"),
            };
            rounded(x.dims(), v.iter().map(parse).collect::<OpResult<_>>()?, to)
        }
        // Weights of half size, millions of them: many at a time.
        (Data::F16(v), ElementType::F32) => Ok(Array::of(x.dims(), v.to_f32_vec())),
        _ if from.is_integer() && to.is_integer() => wide::map(x, Domain::I64, to, &none),
        _ => wide::map(x, Domain::F64, to, &none),
    }
}
