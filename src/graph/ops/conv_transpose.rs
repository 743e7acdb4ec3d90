//! Transposed convolution whose windows do not overlap: the stride is the kernel's size.
//!
//! Every input pixel then makes a rectangle of `kh x kw` output pixels of its own,
//!
//! ```text
//! y[o, r * kh + i, p * kw + j] = bias[o] + sum over c of x[c, r, p] * w[c, o, i, j]
//! ```
//!
//! which is a 1x1 convolution to `kh * kw` times the channels, one group of them for each position `(i, j)`, and a copy
//! that puts the groups where they belong. Groups start at a block of channels, so the copy moves whole blocked pixels.

use swath_kernels::layout::{BLOCK, Layout, blocks};
use swath_kernels::shape::{ConvShape, checked_elements};

use super::conv::four;
use super::forward::{Forward, Operands};
use super::{Operator, ParameterId};
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::par;

#[derive(Clone, Debug)]
pub(crate) struct ConvTransposeOp {
    pub(crate) weight: ParameterId,
    pub(crate) bias: Option<ParameterId>,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Also the stride.
    pub(crate) kernel: [usize; 2],
}

impl Operator for ConvTransposeOp {
    fn name(&self) -> &'static str {
        "ConvTranspose2d"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let ([n, c, h, w], [kh, kw]) = (four(self.name(), inputs[0])?, self.kernel);
        if c != self.inputs {
            return Err(Error::Channels { what: self.name(), takes: self.inputs, gets: c });
        }
        self.shape(inputs[0])?;
        let (oh, ow) = (h.saturating_mul(kh), w.saturating_mul(kw));
        checked_elements("output", &[n, self.outputs.saturating_add(BLOCK - 1), oh, ow])?;
        Ok(vec![n, self.outputs, oh, ow])
    }
}

impl ConvTransposeOp {
    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Output channels in whole blocks.
    fn padded(&self) -> usize {
        blocks(self.outputs) * BLOCK
    }

    /// The 1x1 convolution for an input.
    pub(crate) fn shape(&self, input: &[usize]) -> Result<ConvShape> {
        let oc = self.outputs.saturating_add(BLOCK - 1).saturating_mul(self.kernel[0]).saturating_mul(self.kernel[1]);
        checked_elements("weights", &[oc, self.inputs])?;
        let weights = [self.taps() * self.padded(), self.inputs, 1, 1];
        Ok(ConvShape::builder(four(self.name(), input)?, weights).build()?)
    }

    /// Multiply-adds that the output needs: without those for the channels that fill blocks up.
    pub(crate) fn macs(&self, input: &[usize]) -> Result<u64> {
        let [n, _, h, w] = four(self.name(), input)?;
        let product = [n, h, w, self.inputs, self.outputs, self.taps()].into_iter().map(|v| v as u64);
        Ok(product.fold(1, u64::saturating_mul))
    }

    /// Weights `[ic, oc, kh, kw]` and bias `[oc]` in the order of the 1x1 convolution: `[kh, kw, oc in whole blocks][ic]`.
    pub(crate) fn pointwise(&self, weights: &[f32], bias: Option<&[f32]>) -> (Vec<f32>, Option<Vec<f32>>) {
        let (taps, oc, ic, padded) = (self.taps(), self.outputs, self.inputs, self.padded());
        let mut w = vec![0.0; taps * padded * ic];
        for (row, w) in w.chunks_exact_mut(ic).enumerate().filter(|(row, _)| row % padded < oc) {
            let (t, o) = (row / padded, row % padded);
            w.iter_mut().enumerate().for_each(|(c, w)| *w = weights[(c * oc + o) * taps + t]);
        }
        let bias = bias.map(|b| {
            let mut one = b.to_vec();
            one.resize(padded, 0.0);
            one.repeat(taps)
        });
        (w, bias)
    }

    /// The copy behind the 1x1 convolution, for an input; blocked on both sides.
    pub(crate) fn spread(&self, [_, _, h, w]: [usize; 4], output: [usize; 4]) -> Spread {
        Spread { kernel: self.kernel, h, w, output }
    }
}

/// Puts groups of channels where their pixels belong.
pub(crate) struct Spread {
    kernel: [usize; 2],
    h: usize,
    w: usize,
    output: [usize; 4],
}

impl Forward for Spread {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let (x, [kh, kw], [_, c, oh, ow]) = (x.get(0), self.kernel, self.output);
        let (c, from_row, row) = (blocks(c), self.w * BLOCK, ow * BLOCK);
        par::for_each_piece(y, row, 1, |rows, y| {
            for (r, y) in rows.zip(y.chunks_exact_mut(row)) {
                let (image, block, r) = (r / oh / c, r / oh % c, r % oh);
                for j in 0..kw {
                    let plane = (image * kh * kw + r % kh * kw + j) * c + block;
                    let source = &x[(plane * self.h + r / kh) * from_row..][..from_row];
                    let to = y.as_chunks_mut::<BLOCK>().0.iter_mut().skip(j).step_by(kw);
                    to.zip(source.as_chunks::<BLOCK>().0).for_each(|(y, x)| *y = *x);
                }
            }
        });
        super::forward::clear_padding(Layout::Blocked, self.output, y);
    }

    fn describe(&self) -> String {
        format!("ConvTranspose2d {}x{}: pixels to their places", self.kernel[0], self.kernel[1])
    }
}
