//! 2-d transposed convolution layer.

use swath_kernels::setters;
use swath_kernels::shape::{Padding, Pair, checked_elements};

use super::Module;
use super::conv::check;
use crate::error::Result;
use crate::graph::ops::ConvTranspose;
use crate::graph::{Init, LayerId, Value};

/// 2-d transposed convolution, with PyTorch's names, options and defaults.
/// `[n, in, h, w]` to `[n, out, (h - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1, ..]`.
///
/// Parameters: `weight` `[in, out / groups, kh, kw]` and `bias` `[out]`, initialised uniformly in
/// `+-1 / sqrt(out / groups * kh * kw)` as PyTorch does.
///
/// ```
/// use swath::nn::{ConvTranspose2d, Module};
/// let up = ConvTranspose2d::new(64, 32, 2).stride(2);
/// assert_eq!(up.build(0)?.output_dims([1, 64, 28, 28])?, [1, 32, 56, 56]);
/// let up = ConvTranspose2d::new(64, 32, 3).stride(2).padding(1).output_padding(1);
/// assert_eq!(up.build(0)?.output_dims([1, 64, 28, 28])?, [1, 32, 56, 56]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ConvTranspose2d {
    id: LayerId,
    channels: [usize; 2],
    kernel: [usize; 2],
    stride: Pair,
    dilation: Pair,
    padding: Padding,
    output_padding: Pair,
    groups: usize,
    bias: bool,
}

impl ConvTranspose2d {
    /// With `inputs` and `outputs` channels, and a kernel of one extent or `[vertical, horizontal]`.
    pub fn new(inputs: usize, outputs: usize, kernel: impl Into<Pair>) -> Self {
        Self {
            id: LayerId::new(),
            channels: [inputs, outputs],
            kernel: kernel.into().0,
            stride: Pair::ONE,
            dilation: Pair::ONE,
            padding: Padding::default(),
            output_padding: Pair([0, 0]),
            groups: 1,
            bias: true,
        }
    }
}

setters!(ConvTranspose2d {
    /// Step between windows in the output. Default 1.
    stride: impl Into<Pair>,
    /// Step between the taps of a window. Default 1.
    dilation: impl Into<Pair>,
    /// What is cut off the output: one number, `[vertical, horizontal]` or `[top, left, bottom, right]`. Default 0.
    padding: impl Into<Padding>,
    /// What is added to the output at the bottom and at the right. Default 0.
    output_padding: impl Into<Pair>,
    /// Groups of channels. Default 1.
    groups: usize,
    /// Whether a bias is added. Default true.
    bias: bool,
});

impl Module for ConvTranspose2d {
    fn call(&self, x: &Value) -> Result<Value> {
        let ([inputs, outputs], kernel, groups) = (self.channels, self.kernel, self.groups);
        check(self.channels, kernel, [self.stride, self.dilation], groups)?;
        let weights = [inputs, outputs / groups, kernel[0], kernel[1]];
        checked_elements("weights", &weights)?;
        let init = Init::Uniform { fan_in: weights[1..].iter().product() };
        let weight = x.parameter(&self.id, "weight", &weights, init)?;
        let bias = if self.bias { Some(x.parameter(&self.id, "bias", &[outputs], init)?) } else { None };
        let mut operands = vec![x, &weight];
        operands.extend(&bias);
        let ([stride, dilation, output_padding], pad) =
            ([self.stride, self.dilation, self.output_padding].map(|pair| pair.0), self.padding);
        Ok(x.push(ConvTranspose { weights, stride, dilation, pad, output_padding, groups }, &operands))
    }
}
