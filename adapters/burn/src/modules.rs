//! burn's modules, run on swath.

use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, ConvTranspose2d};
use burn::nn::pool::{AdaptiveAvgPool2d, AvgPool2d, MaxPool2d};
use burn::tensor::Tensor;
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, ConvTransposeOptions, MaxPoolOptions};
use swath::Result;

/// A module of burn that runs on swath: `conv.on_swath(x)?` in place of `conv.forward(x)`. Records and optimizers see the same module.
///
/// ```
/// use burn::nn::conv::Conv2dConfig;
/// use burn::tensor::{Device, Tensor};
/// use swath_burn::OnSwath;
/// let device = Device::default();
/// let conv = Conv2dConfig::new([3, 8], [3, 3]).init(&device);
/// let y = conv.on_swath(Tensor::zeros([2, 3, 16, 16], &device))?;
/// assert_eq!(y.dims(), [2, 8, 14, 14]);
/// # Ok::<(), swath::Error>(())
/// ```
pub trait OnSwath {
    /// The module's output for `[n, c, h, w]`.
    ///
    /// # Errors
    /// For tensors that are not of `f32` on Flex, and extents that do not fit.
    fn on_swath(&self, x: Tensor<4>) -> Result<Tensor<4>>;
}

impl OnSwath for Conv2d {
    fn on_swath(&self, x: Tensor<4>) -> Result<Tensor<4>> {
        let options = ConvOptions {
            stride: self.stride,
            padding: padding(&self.padding, &x, self.kernel_size, self.stride),
            dilation: self.dilation,
            groups: self.groups,
        };
        crate::conv2d(x, self.weight.val(), self.bias.as_ref().map(|b| b.val()), &options)
    }
}

impl OnSwath for ConvTranspose2d {
    fn on_swath(&self, x: Tensor<4>) -> Result<Tensor<4>> {
        let options =
            ConvTransposeOptions::new(self.stride, self.padding, self.padding_out, self.dilation, self.groups);
        crate::conv_transpose2d(x, self.weight.val(), self.bias.as_ref().map(|b| b.val()), &options)
    }
}

impl OnSwath for MaxPool2d {
    fn on_swath(&self, x: Tensor<4>) -> Result<Tensor<4>> {
        let options = MaxPoolOptions::new(self.kernel_size)
            .with_stride(self.stride)
            .with_padding_pairs(padding(&self.padding, &x, self.kernel_size, self.stride))
            .with_dilation(self.dilation)
            .with_ceil_mode(self.ceil_mode);
        crate::max_pool2d(x, &options)
    }
}

impl OnSwath for AvgPool2d {
    fn on_swath(&self, x: Tensor<4>) -> Result<Tensor<4>> {
        let options = AvgPoolOptions::new(self.kernel_size)
            .with_stride(self.stride)
            .with_padding_pairs(padding(&self.padding, &x, self.kernel_size, self.stride))
            .with_count_include_pad(self.count_include_pad)
            .with_ceil_mode(self.ceil_mode);
        crate::avg_pool2d(x, &options)
    }
}

impl OnSwath for AdaptiveAvgPool2d {
    fn on_swath(&self, x: Tensor<4>) -> Result<Tensor<4>> {
        crate::adaptive_avg_pool2d(x, self.output_size)
    }
}

/// What burn's options come to, as pairs of before and after.
fn padding(config: &PaddingConfig2d, x: &Tensor<4>, kernel: [usize; 2], stride: [usize; 2]) -> [(usize, usize); 2] {
    let [_, _, h, w] = x.dims();
    match *config {
        PaddingConfig2d::Valid => [(0, 0), (0, 0)],
        PaddingConfig2d::Explicit(top, left, bottom, right) => [(top, bottom), (left, right)],
        PaddingConfig2d::Same => [same(kernel[0], stride[0], h), same(kernel[1], stride[1], w)],
    }
}

/// The padding with which there is an output for every stride.
fn same(kernel: usize, stride: usize, size: usize) -> (usize, usize) {
    let stride = stride.max(1);
    let whole = (size.div_ceil(stride).saturating_sub(1) * stride + kernel).saturating_sub(size);
    (whole / 2, whole - whole / 2)
}
