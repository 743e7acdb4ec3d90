//! Pooling.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Error, Layout, Result, Shape, Tensor};
use swath::pool::{AvgPool, Divisor, MaxPool};
use swath::{Options, PoolShape};

use crate::memory::floats;

/// The largest of every window, as [`Tensor::max_pool2d_with_stride`]. Of equal ones the first gets the gradient, as in PyTorch.
pub fn max_pool2d(x: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    x.apply_op1(Pool { shape: shape(x, kernel, stride)?, max: true })
}

/// The mean of every window, as [`Tensor::avg_pool2d_with_stride`].
pub fn avg_pool2d(x: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    x.apply_op1(Pool { shape: shape(x, kernel, stride)?, max: false })
}

fn shape(x: &Tensor, kernel: usize, stride: usize) -> Result<PoolShape> {
    let (n, c, h, w) = x.dims4()?;
    PoolShape::builder([n, c, h, w], kernel).stride(stride).build().map_err(Error::wrap)
}

/// Pooling of a shape.
#[derive(Clone, Copy)]
struct Pool {
    shape: PoolShape,
    max: bool,
}

impl Pool {
    fn forward(&self, x: &[f32], y: &mut [f32]) -> swath::Result<()> {
        let options = Options::default();
        match self.max {
            true => MaxPool::new(&self.shape, &options)?.forward(x, y, None),
            false => AvgPool::new(&self.shape, Divisor::Inside, &options)?.forward(x, y),
        }
    }

    /// candle keeps no indices from the forward pass: they are found again.
    fn backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) -> swath::Result<()> {
        let options = Options::default();
        if !self.max {
            return AvgPool::new(&self.shape, Divisor::Inside, &options)?.backward(dy, dx);
        }
        let plan = MaxPool::new(&self.shape, &options)?;
        let (mut y, mut indices) = (vec![0.0; dy.len()], vec![0; dy.len()]);
        plan.forward(x, &mut y, Some(&mut indices))?;
        plan.backward(&indices, dy, dx)
    }
}

impl CustomOp1 for Pool {
    fn name(&self) -> &'static str {
        "swath-pool2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut y = vec![0.0; self.shape.output().iter().product()];
        self.forward(&floats(x, xl)?, &mut y).map_err(Error::wrap)?;
        Ok((CpuStorage::F32(y), self.shape.output().to_vec().into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        x.apply_op2_no_bwd(dy, &Gradient(*self)).map(Some)
    }
}

/// The gradient of pooling, of the input and the gradient at the output.
struct Gradient(Pool);

impl CustomOp2 for Gradient {
    fn name(&self) -> &'static str {
        "swath-pool2d-gradient"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, dy: &CpuStorage, dyl: &Layout) -> Result<(CpuStorage, Shape)> {
        let input = self.0.shape.input();
        let mut dx = vec![0.0; input.iter().product()];
        self.0.backward(&floats(x, xl)?, &floats(dy, dyl)?, &mut dx).map_err(Error::wrap)?;
        Ok((CpuStorage::F32(dx), input.to_vec().into()))
    }
}
