//! Softmax and log-softmax over the channels (dimension 1).

use swath_kernels::act;
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;

use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::step::{Operands, Step};
use crate::graph::{Group, Lower, Operator};

/// Softmax over dimension 1 of `[n, c]` or `[n, c, h, w]`.
#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    /// The logarithm of it.
    pub log: bool,
    /// The dimension asked for; -1 is the last.
    pub dim: isize,
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

    /// Rows of contiguous channels: `[n, c]` is, and so is NHWC.
    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.input(group, 0);
        let [n, cols, h, w] = cx.extents(x);
        let layout = if cx.fact(x).dims.len() == 4 { Layout::Nhwc } else { Layout::Nchw };
        let inputs = vec![cx.want(x, layout)?];
        let step = SoftmaxRows { op: *self, rows: n * h * w, cols, level: cx.level() };
        cx.step(group, layout, Box::new(step), inputs, 0)
    }
}

/// Softmax of contiguous rows: of `[n, c]`, or of `[n, c, h, w]` in NHWC.
struct SoftmaxRows {
    op: Softmax,
    rows: usize,
    cols: usize,
    level: Level,
}

impl Step for SoftmaxRows {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let softmax = if self.op.log { act::log_softmax } else { act::softmax };
        softmax(self.level, self.rows, self.cols, x.get(0), y);
    }

    fn describe(&self) -> String {
        self.op.name().into()
    }
}
