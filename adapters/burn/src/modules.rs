//! burn's modules, run on swath.

use burn::module::RunningState;
use burn::nn::conv::{Conv2d, ConvTranspose2d};
use burn::nn::pool::{AdaptiveAvgPool2d, AvgPool2d, MaxPool2d};
use burn::nn::{BatchNorm, PaddingConfig2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, ConvTransposeOptions, MaxPoolOptions};
use burn::tensor::{Tensor, TensorData};
use swath::{Error, Result};

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

impl OnSwath for BatchNorm {
    fn on_swath(&self, x: Tensor<4>) -> Result<Tensor<4>> {
        let affine = [self.gamma.val(), self.beta.val()];
        if !(x.device().is_autodiff() && self.training.is_enabled()) {
            let [mean, variance] = [&self.running_mean, &self.running_var].map(|state| numbers(&state.value()));
            return crate::batch_norm(x, affine, [&mean?, &variance?], self.epsilon);
        }
        let (y, statistics) = crate::batch_norm_train(x, affine, self.epsilon)?;
        for (state, now) in [&self.running_mean, &self.running_var].into_iter().zip(statistics) {
            moved(state, now, self.momentum)?;
        }
        Ok(y)
    }
}

fn numbers(t: &Tensor<1>) -> Result<Vec<f32>> {
    t.to_data().try_to_vec().map_err(|e| {
        let rule = "swath takes F32".into();
        Error::Setting { what: "running statistics", value: format!("{e:?}"), rule }
    })
}

/// Moves running statistics towards those of a batch.
fn moved(state: &RunningState<Tensor<1>>, now: Vec<f32>, momentum: f64) -> Result<()> {
    let old = state.value_sync();
    let step = |(old, new): (f32, f32)| ((1.0 - momentum) * f64::from(old) + momentum * f64::from(new)) as f32;
    let next: Vec<f32> = numbers(&old)?.into_iter().zip(now).map(step).collect();
    let len = next.len();
    state.update(Tensor::from_data(TensorData::new(next, [len]), &old.device()));
    Ok(())
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
