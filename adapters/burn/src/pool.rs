//! Pooling.

use std::sync::{Arc, OnceLock};

use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};
use burn::tensor::{Int, Tensor, TensorData};
use swath::pool::{AdaptiveAvgPool, AdaptiveShape, AvgPool, Divisor, MaxPool};
use swath::{Error, Options, PoolShape, Result, written};

use crate::operation::{Any, Operation, Plain, apply};

/// The largest of every window, as [`burn::tensor::module::max_pool2d`]; the first of equal ones gets the gradient.
///
/// # Errors
/// For tensors that are not of `f32` on Flex, and windows that do not fit.
pub fn max_pool2d(x: Tensor<4>, options: &MaxPoolOptions<2>) -> Result<Tensor<4>> {
    apply(Max::new(&x, options, false)?, [Any::Four(x)])
}

/// The largest of every window and which of its plane it is, `iy * w + ix`, as [`burn::tensor::module::max_pool2d_with_indices`].
///
/// # Errors
/// As [`max_pool2d`].
pub fn max_pool2d_with_indices(x: Tensor<4>, options: &MaxPoolOptions<2>) -> Result<(Tensor<4>, Tensor<4, Int>)> {
    let (max, device) = (Max::new(&x, options, true)?, x.device());
    let y = apply(max.clone(), [Any::Four(x)])?;
    let indices: Vec<i64> = max.kept()?.iter().map(|&i| i.into()).collect();
    Ok((y, Tensor::from_data(TensorData::new(indices, max.plan.shape().output()), &device)))
}

/// The mean of every window, as [`burn::tensor::module::avg_pool2d`].
///
/// # Errors
/// As [`max_pool2d`].
pub fn avg_pool2d(x: Tensor<4>, options: &AvgPoolOptions<2>) -> Result<Tensor<4>> {
    let [(top, bottom), (left, right)] = options.padding;
    let shape = PoolShape::builder(x.dims(), options.kernel_size)
        .stride(options.stride)
        .padding([top, left, bottom, right])
        .ceil_mode(options.ceil_mode)
        .build()?;
    let divisor = if options.count_include_pad { Divisor::Padded } else { Divisor::Inside };
    apply(Plain(AvgPool::new(&shape, divisor, &Options::default())?, shape.output()), [Any::Four(x)])
}

/// The mean of each cell of a grid, as [`burn::tensor::module::adaptive_avg_pool2d`].
///
/// # Errors
/// As [`max_pool2d`].
pub fn adaptive_avg_pool2d(x: Tensor<4>, size: [usize; 2]) -> Result<Tensor<4>> {
    let shape = AdaptiveShape::new(x.dims(), size)?;
    apply(Plain(AdaptiveAvgPool::new(&shape, &Options::default())?, shape.output()), [Any::Four(x)])
}

#[derive(Clone, Debug)]
struct Max {
    plan: MaxPool,
    /// Whether indices are asked for, also where there is no gradient.
    asked: bool,
    /// Which of each window is the largest, from the forward pass.
    indices: Arc<OnceLock<Vec<u32>>>,
}

impl Max {
    fn new(x: &Tensor<4>, options: &MaxPoolOptions<2>, asked: bool) -> Result<Self> {
        let [(top, bottom), (left, right)] = options.padding;
        let shape = PoolShape::builder(x.dims(), options.kernel_size)
            .stride(options.stride)
            .padding([top, left, bottom, right])
            .dilation(options.dilation)
            .ceil_mode(options.ceil_mode)
            .build()?;
        Ok(Self { plan: MaxPool::new(&shape, &Options::default())?, asked, indices: Arc::default() })
    }

    fn kept(&self) -> Result<&[u32]> {
        self.indices.get().map(Vec::as_slice).ok_or_else(|| {
            let rule = "the forward pass leaves them".into();
            Error::Setting { what: "the indices of max pooling", value: "missing".into(), rule }
        })
    }
}

impl Operation<1> for Max {
    fn output(&self) -> [usize; 4] {
        self.plan.shape().output()
    }

    fn forward(&self, [x]: [&[f32]; 1], tracked: bool) -> Result<Vec<f32>> {
        let len = Operation::output(self).iter().product();
        if !tracked && !self.asked {
            return written(len, |y| Ok(self.plan.forward_uninit(x, y, None)?.0));
        }
        written(len, |y| {
            let (y, indices) = self.plan.forward_with_indices(x, y)?;
            self.indices.get_or_init(|| indices);
            Ok(y)
        })
    }

    fn backward(&self, [x]: [&[f32]; 1], dy: &[f32], _: [bool; 1]) -> Result<[Option<Vec<f32>>; 1]> {
        let kept = self.kept()?;
        Ok([Some(written(x.len(), |dx| self.plan.backward_uninit(kept, dy, dx))?)])
    }
}
