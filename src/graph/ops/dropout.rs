//! Dropout. In inference it is its input, and compiling leaves it out.

use super::Operator;
use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug)]
pub(crate) struct DropoutOp {
    /// Probability of a zero.
    pub(crate) p: f32,
}

impl Operator for DropoutOp {
    fn name(&self) -> &'static str {
        "Dropout"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        if !(0.0..=1.0).contains(&self.p) {
            let rule = "a probability is between 0 and 1".into();
            return Err(Error::Setting { what: "p of Dropout", value: self.p.to_string(), rule });
        }
        Ok(inputs[0].to_vec())
    }
}
