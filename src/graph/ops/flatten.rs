//! `[n, c, h, w]` to `[n, c * h * w]`. A view where the memory is NCHW; it has no forward of its own.

use swath_kernels::shape::checked_elements;

use super::Operator;
use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Flatten;

impl Operator for Flatten {
    fn name(&self) -> &'static str {
        "Flatten"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        match inputs[0] {
            [n, rest @ ..] if !rest.is_empty() => Ok(vec![*n, checked_elements("flattened tensor", rest)?]),
            other => Err(Error::Rank { what: "Flatten", takes: "[n, ..]", gets: other.to_vec() }),
        }
    }
}
