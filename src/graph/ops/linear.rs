//! Linear: `y = x W^T + b` on `[n, features]`.
//!
//! Row-major `[n, features]` is an NHWC image of one row of `n` pixels, so Linear is a 1x1 convolution on it, which is a
//! GEMM whose pixels are the batch.

use swath_kernels::layout::{Layout, reorder};
use swath_kernels::shape::ConvShape;

use super::conv::{ConvForward, Fused};
use super::forward::{Forward, Operands};
use super::{Operator, ParameterId};
use crate::conv::{Options, Scratch};
use crate::error::{Error, Result};

#[derive(Clone, Debug)]
pub(crate) struct LinearOp {
    pub(crate) weight: ParameterId,
    pub(crate) bias: Option<ParameterId>,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

impl Operator for LinearOp {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let &[n, features] = inputs[0] else {
            let takes = "[n, features] (Flatten makes it of [n, c, h, w])";
            return Err(Error::Rank { what: "Linear", takes, gets: inputs[0].to_vec() });
        };
        if features != self.inputs {
            return Err(Error::Features { takes: self.inputs, gets: features });
        }
        self.shape(n)?;
        Ok(vec![n, self.outputs])
    }
}

impl LinearOp {
    /// The 1x1 convolution for a batch.
    fn shape(&self, n: usize) -> Result<ConvShape> {
        // A convolution's width cannot be zero, its batch can.
        let input = if n == 0 { [0, self.inputs, 1, 1] } else { [1, self.inputs, 1, n] };
        Ok(ConvShape::builder(input, [self.outputs, self.inputs, 1, 1]).build()?)
    }

    /// Plans, and packs the weights once.
    pub(crate) fn forward(
        &self,
        n: usize,
        options: &Options,
        weights: &[f32],
        fused: Fused<'_>,
    ) -> Result<LinearForward> {
        let options = Options { input: Layout::Nhwc, output: Layout::Nhwc, ..options.clone() };
        let conv = ConvForward::new(&self.shape(n)?, &options, weights, fused)?;
        Ok(LinearForward { conv, inputs: self.inputs, outputs: self.outputs })
    }

    /// The weights with their features in the order that images `[c, h, w]` have in `layout`, so that Linear reads the
    /// flattened image as it lies.
    ///
    /// The layout has no padding: `c` fills its blocks.
    pub(crate) fn weights_for(&self, layout: Layout, [_, c, h, w]: [usize; 4], weights: &[f32]) -> Vec<f32> {
        let mut ordered = vec![0.0; weights.len()];
        reorder(Layout::Nchw, weights, layout, &mut ordered, [self.outputs, c, h, w]);
        ordered
    }
}

pub(crate) struct LinearForward {
    conv: ConvForward,
    inputs: usize,
    outputs: usize,
}

impl LinearForward {
    pub(crate) fn scratch_len(&self) -> usize {
        self.conv.scratch_len()
    }
}

impl Forward for LinearForward {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], in_place: bool, scratch: &mut Scratch) {
        self.conv.run(x, y, in_place, scratch);
    }

    fn describe(&self) -> String {
        self.conv.describe_as(&format!("Linear {} to {}", self.inputs, self.outputs))
    }
}
