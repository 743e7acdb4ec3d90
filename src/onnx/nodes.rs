//! Graph operators that only imported models need.

mod grid_sample;
mod interpreted;
mod map;
mod matmul;
mod recurrent;
mod resample;
mod view;

pub(crate) use grid_sample::GridSample;
pub(crate) use interpreted::{Interpreted, Slot, read_words, to_words};
pub(crate) use map::Map;
pub(crate) use matmul::MatMul;
pub(crate) use recurrent::{Cell, Lengths, Recurrent, Way};
pub(crate) use resample::{Rate, Resample};
pub(crate) use view::{Strided, ToNchw, ToNhwc};

use crate::error::{Error, Result};
use crate::graph::Fact;

/// The facts of an operator that was made for inputs of known facts.
pub(super) fn fixed(what: &'static str, made_for: &[Fact], inputs: &[&Fact], results: &[Fact]) -> Result<Vec<Fact>> {
    match made_for.iter().zip(inputs).find(|(a, b)| a != *b) {
        None if made_for.len() == inputs.len() => Ok(results.to_vec()),
        None => Err(Error::Inputs { takes: made_for.len(), gets: inputs.len() }),
        Some((a, b)) => Err(Error::Shapes { what, left: a.dims.clone(), right: b.dims.clone() }),
    }
}
