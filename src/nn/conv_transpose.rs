//! 2-d transposed convolution layer.

use swath_kernels::shape::{Padding, Pair, ShapeError, checked_elements};

use super::Module;
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
    stride: [usize; 2],
    dilation: [usize; 2],
    pad: Padding,
    output_padding: [usize; 2],
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
            stride: [1, 1],
            dilation: [1, 1],
            pad: Padding::default(),
            output_padding: [0, 0],
            groups: 1,
            bias: true,
        }
    }

    /// Step between windows in the output. Default 1.
    pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
        self.stride = stride.into().0;
        self
    }

    /// Step between the taps of a window. Default 1.
    pub fn dilation(mut self, dilation: impl Into<Pair>) -> Self {
        self.dilation = dilation.into().0;
        self
    }

    /// What is cut off the output: one number, `[vertical, horizontal]` or `[top, left, bottom, right]`. Default 0.
    pub fn padding(mut self, padding: impl Into<Padding>) -> Self {
        self.pad = padding.into();
        self
    }

    /// What is added to the output at the bottom and at the right. Default 0.
    pub fn output_padding(mut self, padding: impl Into<Pair>) -> Self {
        self.output_padding = padding.into().0;
        self
    }

    /// Groups of channels. Default 1.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// Whether a bias is added. Default true.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }
}

impl Module for ConvTranspose2d {
    fn call(&self, x: &Value) -> Result<Value> {
        let ([inputs, outputs], kernel, groups) = (self.channels, self.kernel, self.groups);
        let positive = [
            ("the number of input channels", inputs),
            ("the number of output channels", outputs),
            ("the kernel height", kernel[0]),
            ("the kernel width", kernel[1]),
            ("the number of groups", groups),
        ];
        if let Some(&(what, _)) = positive.iter().find(|(_, v)| *v == 0) {
            return Err(ShapeError::Zero { what }.into());
        }
        for (what, channels) in [("input", inputs), ("output", outputs)] {
            if channels % groups != 0 {
                return Err(ShapeError::Groups { what, groups, channels }.into());
            }
        }
        let weights = [inputs, outputs / groups, kernel[0], kernel[1]];
        checked_elements("weights", &weights)?;
        let init = Init::Uniform { fan_in: weights[1..].iter().product() };
        let weight = x.parameter(&self.id, "weight", &weights, init)?;
        let bias = if self.bias { Some(x.parameter(&self.id, "bias", &[outputs], init)?) } else { None };
        let mut operands = vec![x, &weight];
        operands.extend(&bias);
        let (stride, dilation, pad, output_padding) = (self.stride, self.dilation, self.pad, self.output_padding);
        Ok(x.push(ConvTranspose { weights, stride, dilation, pad, output_padding, groups }, &operands))
    }
}
