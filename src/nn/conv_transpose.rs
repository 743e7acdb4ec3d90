//! 2-d transposed convolution layer.

use swath_kernels::shape::{Pair, ShapeError, checked_elements};

use super::Module;
use crate::error::{Error, Result};
use crate::graph::conv_transpose::ConvTransposeOp;
use crate::graph::{Init, LayerId, Op, Value};

/// 2-d transposed convolution, with PyTorch's names and defaults, for strides that are as large as the kernel: windows
/// meet and do not overlap. `[n, in, h, w]` to `[n, out, h * kh, w * kw]`.
///
/// That is the up-convolution of U-Net (2x2, stride 2). Overlapping windows, padding, groups and dilation are not there
/// yet; [`super::Upsample`] before a [`super::Conv2d`] is the other way up.
///
/// Parameters: `weight` `[in, out, kh, kw]` and `bias` `[out]`, initialised uniformly in `+-1 / sqrt(out * kh * kw)` as
/// PyTorch does.
///
/// ```
/// use swath::nn::{ConvTranspose2d, Module};
/// let up = ConvTranspose2d::new(64, 32, 2).stride(2);
/// assert_eq!(up.build(0)?.output_dims([1, 64, 28, 28])?, [1, 32, 56, 56]);
/// let e = ConvTranspose2d::new(64, 32, 3).stride(2).build(0).unwrap_err();
/// assert_eq!(e.to_string(), "the stride of ConvTranspose2d is [2, 2], but it has to be the kernel's size, [3, 3]");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ConvTranspose2d {
    id: LayerId,
    channels: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    bias: bool,
}

impl ConvTranspose2d {
    /// With `inputs` and `outputs` channels, and a kernel of one extent or `[vertical, horizontal]`.
    pub fn new(inputs: usize, outputs: usize, kernel: impl Into<Pair>) -> Self {
        let kernel = kernel.into().0;
        Self { id: LayerId::new(), channels: [inputs, outputs], kernel, stride: [1, 1], bias: true }
    }

    /// Step between windows in the output. Default 1.
    pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
        self.stride = stride.into().0;
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
        let ([inputs, outputs], kernel) = (self.channels, self.kernel);
        let positive = [
            ("the number of input channels", inputs),
            ("the number of output channels", outputs),
            ("the kernel height", kernel[0]),
            ("the kernel width", kernel[1]),
        ];
        if let Some(&(what, _)) = positive.iter().find(|(_, v)| *v == 0) {
            return Err(ShapeError::Zero { what }.into());
        }
        if self.stride != kernel {
            let (what, value) = ("the stride of ConvTranspose2d", format!("{:?}", self.stride));
            return Err(Error::Setting { what, value, rule: format!("it has to be the kernel's size, {kernel:?}") });
        }
        let dims = [inputs, outputs, kernel[0], kernel[1]];
        checked_elements("weights", &dims)?;
        let init = Init::Uniform { fan_in: dims[1..].iter().product() };
        let weight = x.parameter(&self.id, "weight", &dims, init)?;
        let bias = if self.bias { Some(x.parameter(&self.id, "bias", &[outputs], init)?) } else { None };
        Ok(x.push(Op::ConvTranspose2d(ConvTransposeOp { weight, bias, inputs, outputs, kernel }), &[x]))
    }
}
