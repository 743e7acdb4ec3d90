//! 2-d convolution layer.

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
    stride: [usize; 2],
    dilation: [usize; 2],
    padding: Conv2dPadding,
    mode: PaddingMode,
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
            stride: [1, 1],
            dilation: [1, 1],
            padding: Conv2dPadding::Valid,
            mode: PaddingMode::Zeros,
            groups: 1,
            bias: true,
            kaiming: false,
        }
    }

    /// Step between windows. Default 1.
    pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
        self.stride = stride.into().0;
        self
    }

    /// One number, `[vertical, horizontal]`, `[top, left, bottom, right]`, or [`Conv2dPadding::Same`]. Default 0.
    pub fn padding(mut self, padding: impl Into<Conv2dPadding>) -> Self {
        self.padding = padding.into();
        self
    }

    /// Step between taps. Default 1.
    pub fn dilation(mut self, dilation: impl Into<Pair>) -> Self {
        self.dilation = dilation.into().0;
        self
    }

    /// Number of groups; as many as input channels make it depthwise. Default 1.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// What the padding shows. Default zeros.
    pub fn padding_mode(mut self, mode: PaddingMode) -> Self {
        self.mode = mode;
        self
    }

    /// Whether a bias is added. Default true.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
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
        let positive = [
            ("the number of input channels", ic),
            ("the number of output channels", oc),
            ("the kernel height", kh),
            ("the kernel width", kw),
            ("the vertical stride", self.stride[0]),
            ("the horizontal stride", self.stride[1]),
            ("the vertical dilation", self.dilation[0]),
            ("the horizontal dilation", self.dilation[1]),
            ("the number of groups", groups),
        ];
        if let Some(&(what, _)) = positive.iter().find(|(_, v)| *v == 0) {
            return Err(ShapeError::Zero { what }.into());
        }
        for (what, channels) in [("input", ic), ("output", oc)] {
            if channels % groups != 0 {
                return Err(ShapeError::Groups { what, groups, channels }.into());
            }
        }
        Ok([oc, ic / groups, kh, kw])
    }

    fn pixels(&self) -> Result<Padding> {
        match self.padding {
            Conv2dPadding::Pixels(p) => Ok(p),
            Conv2dPadding::Valid => Ok(Padding::default()),
            Conv2dPadding::Same => {
                if let Some(s) = self.stride.iter().find(|s| **s != 1) {
                    let rule = "padding `same` needs a stride of 1".into();
                    return Err(Error::Setting { what: "the stride", value: s.to_string(), rule });
                }
                let total = |axis: usize| self.dilation[axis].saturating_mul(self.kernel[axis] - 1);
                let (v, h) = (total(0), total(1));
                Ok(Padding { top: v / 2, left: h / 2, bottom: v - v / 2, right: h - h / 2 })
            }
        }
    }
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
        if self.mode != PaddingMode::Zeros && pad != Padding::default() {
            x = x.push(Pad { mode: self.mode.into(), pad }, &[&x]);
            pad = Padding::default();
        }
        let (stride, dilation, groups) = (self.stride, self.dilation, self.groups);
        let mut inputs = vec![&x, &weight];
        inputs.extend(&bias);
        Ok(x.push(Conv { weights, stride, dilation, pad, groups }, &inputs))
    }
}
