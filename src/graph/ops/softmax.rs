//! Softmax and log-softmax over the channels (dimension 1).

use swath_kernels::act;
use swath_kernels::isa::Level;

use super::Operator;
use super::forward::{Forward, Operands};
use crate::conv::Scratch;
use crate::error::{Error, Result};

/// Softmax over dimension 1 of `[n, c]` or `[n, c, h, w]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Softmax {
    /// The logarithm of it.
    pub(crate) log: bool,
    /// The dimension asked for; -1 is the last.
    pub(crate) dim: isize,
}

impl Operator for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "LogSoftmax" } else { "Softmax" }
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let dims = inputs[0];
        if !matches!(dims.len(), 2 | 4) {
            return Err(Error::Rank { what: self.name(), takes: "[n, c] or [n, c, h, w]", gets: dims.to_vec() });
        }
        if self.dim != 1 && self.dim + dims.len() as isize != 1 {
            let rule = format!("only dimension 1 of {} is supported", dims.len());
            return Err(Error::Setting { what: "the dimension of softmax", value: self.dim.to_string(), rule });
        }
        Ok(dims.to_vec())
    }
}

/// Softmax of contiguous rows: of `[n, c]`, or of `[n, c, h, w]` in NHWC.
pub(crate) struct SoftmaxRows {
    pub(crate) op: Softmax,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) level: Level,
}

impl Forward for SoftmaxRows {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let softmax = if self.op.log { act::log_softmax } else { act::softmax };
        softmax(self.level, self.rows, self.cols, x.get(0), y);
    }

    fn describe(&self) -> String {
        self.op.name().into()
    }
}
