//! 2-d convolution layer.

use swath_kernels::setters;
use swath_kernels::shape::{Padding, Pair, ShapeError};

use super::{Module, PaddingMode};
use crate::error::{Error, Result};
use crate::graph::ops::{Conv, Pad};
use crate::graph::{Init, LayerId, Value};

/// How much a [`Conv2d`] pads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Conv2dPadding {
    /// These many pixels.
    Pixels(Padding),
    /// As many that the output has the input's size; for stride 1 only. Of an odd number, the one more goes to the
    /// right and to the bottom, as in PyTorch.
    Same,
    /// None.
    Valid,
}

impl<T: Into<Padding>> From<T> for Conv2dPadding {
    fn from(pixels: T) -> Self {
        Conv2dPadding::Pixels(pixels.into())
    }
}

/// 2-d convolution, with PyTorch's options and defaults. `[n, in, h, w]` to `[n, out, oh, ow]`.
///
/// Parameters: `weight` `[out, in / groups, kh, kw]` and `bias` `[out]`, initialised uniformly in
/// `+-1 / sqrt(in / groups * kh * kw)` as PyTorch does.
///
/// ```
/// use swath::nn::{Conv2d, Conv2dPadding, Module, PaddingMode};
/// let conv = Conv2d::new(16, 32, [3, 5]).padding(Conv2dPadding::Same).dilation(2).padding_mode(PaddingMode::Reflect);
/// assert_eq!(conv.build(0)?.output_dims([1, 16, 20, 30])?, [1, 32, 20, 30]);
/// let e = Conv2d::new(3, 8, 3).stride(2).padding(Conv2dPadding::Same).build(0).unwrap_err();
/// assert_eq!(e.to_string(), "the stride is 2, but padding `same` needs a stride of 1");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Conv2d {
    id: LayerId,
    channels: [usize; 2],
    kernel: [usize; 2],
    stride: Pair,
    dilation: Pair,
    padding: Conv2dPadding,
    padding_mode: PaddingMode,
    groups: usize,
    bias: bool,
    kaiming: bool,
}

impl Conv2d {
    /// With `inputs` and `outputs` channels, and a kernel of one extent or `[vertical, horizontal]`.
    pub fn new(inputs: usize, outputs: usize, kernel: impl Into<Pair>) -> Self {
        Self {
            id: LayerId::new(),
            channels: [inputs, outputs],
            kernel: kernel.into().0,
            stride: Pair::ONE,
            dilation: Pair::ONE,
            padding: Conv2dPadding::Valid,
            padding_mode: PaddingMode::Zeros,
            groups: 1,
            bias: true,
            kaiming: false,
        }
    }

    /// Initialises the weights uniformly in `+-sqrt(6 / fan_in)` instead, and the bias with 0: PyTorch's
    /// `kaiming_uniform_`, after He et al. 2015. Through ReLU, activations then keep their scale from layer to layer, where
    /// PyTorch's default shrinks them by about 2.4 a layer.
    pub fn kaiming(mut self) -> Self {
        self.kaiming = true;
        self
    }

    /// `[oc, ic / groups, kh, kw]`, checked as far as it can be without an input.
    fn weights(&self) -> Result<[usize; 4]> {
        let ([ic, oc], [kh, kw], groups) = (self.channels, self.kernel, self.groups);
        check(self.channels, self.kernel, [self.stride, self.dilation], groups)?;
        Ok([oc, ic / groups, kh, kw])
    }

    fn pixels(&self) -> Result<Padding> {
        match self.padding {
            Conv2dPadding::Pixels(p) => Ok(p),
            Conv2dPadding::Valid => Ok(Padding::default()),
            Conv2dPadding::Same => {
                if let Some(s) = self.stride.0.iter().find(|s| **s != 1) {
                    let rule = "padding `same` needs a stride of 1".into();
                    return Err(Error::Setting { what: "the stride", value: s.to_string(), rule });
                }
                let total = |axis: usize| self.dilation.0[axis].saturating_mul(self.kernel[axis] - 1);
                let (v, h) = (total(0), total(1));
                Ok(Padding { top: v / 2, left: h / 2, bottom: v - v / 2, right: h - h / 2 })
            }
        }
    }
}

setters!(Conv2d {
    /// Step between windows. Default 1.
    stride: impl Into<Pair>,
    /// One number, `[vertical, horizontal]`, `[top, left, bottom, right]`, or [`Conv2dPadding::Same`]. Default 0.
    padding: impl Into<Conv2dPadding>,
    /// Step between taps. Default 1.
    dilation: impl Into<Pair>,
    /// Number of groups; as many as input channels make it depthwise. Default 1.
    groups: usize,
    /// What the padding shows. Default zeros.
    padding_mode: PaddingMode,
    /// Whether a bias is added. Default true.
    bias: bool,
});

/// Checks the options of a layer, `[inputs, outputs]` of its channels and `[stride, dilation]`, as far as can be without an input.
pub(super) fn check(channels: [usize; 2], kernel: [usize; 2], steps: [Pair; 2], groups: usize) -> Result<()> {
    let ([inputs, outputs], [stride, dilation]) = (channels, steps.map(|pair| pair.0));
    let positive = [
        ("the number of input channels", inputs),
        ("the number of output channels", outputs),
        ("the kernel height", kernel[0]),
        ("the kernel width", kernel[1]),
        ("the vertical stride", stride[0]),
        ("the horizontal stride", stride[1]),
        ("the vertical dilation", dilation[0]),
        ("the horizontal dilation", dilation[1]),
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
    Ok(())
}

impl Module for Conv2d {
    fn call(&self, x: &Value) -> Result<Value> {
        let weights = self.weights()?;
        let mut pad = self.pixels()?;
        let fan_in = weights[1..].iter().fold(1usize, |p, &e| p.saturating_mul(e));
        let [of_weight, of_bias] = match self.kaiming {
            true => [Init::Kaiming { fan_in }, Init::Constant(0.0)],
            false => [Init::Uniform { fan_in }; 2],
        };
        let weight = x.parameter(&self.id, "weight", &weights, of_weight)?;
        let bias = if self.bias { Some(x.parameter(&self.id, "bias", &weights[..1], of_bias)?) } else { None };
        let mut x = x.clone();
        if self.padding_mode != PaddingMode::Zeros && pad != Padding::default() {
            x = x.push(Pad { mode: self.padding_mode.into(), pad }, &[&x]);
            pad = Padding::default();
        }
        let (Pair(stride), Pair(dilation), groups) = (self.stride, self.dilation, self.groups);
        let mut inputs = vec![&x, &weight];
        inputs.extend(&bias);
        Ok(x.push(Conv { weights, stride, dilation, pad, groups }, &inputs))
    }
}
