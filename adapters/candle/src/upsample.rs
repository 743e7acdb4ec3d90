//! Upsampling.

use candle_core::{CpuStorage, CustomOp1, Device, Error, Layout, Result, Shape, Tensor};
use swath::resample::{Filter, Resample, Size};
use swath::{Options, written};

use crate::memory::{Held, floats};

/// The nearest pixel, as [`Tensor::upsample_nearest2d`]; its gradient exists for any size.
///
/// # Errors
/// For tensors that are not of `f32` on the CPU, and extents of zero.
pub fn upsample_nearest2d(x: &Tensor, h: usize, w: usize) -> Result<Tensor> {
    resize(x, [h, w], Filter::Nearest)
}

/// The nearest value, as [`Tensor::upsample_nearest1d`]; its gradient exists for any length.
///
/// # Errors
/// As [`upsample_nearest2d`].
pub fn upsample_nearest1d(x: &Tensor, l: usize) -> Result<Tensor> {
    resize(&x.unsqueeze(2)?, [1, l], Filter::Nearest)?.squeeze(2)
}

/// Between the neighbours, as [`Tensor::upsample_bilinear2d`], which has no gradient.
///
/// # Errors
/// As [`upsample_nearest2d`].
pub fn upsample_bilinear2d(x: &Tensor, h: usize, w: usize, align_corners: bool) -> Result<Tensor> {
    resize(x, [h, w], Filter::Bilinear { align_corners })
}

fn resize(x: &Tensor, size: [usize; 2], filter: Filter) -> Result<Tensor> {
    let plan = Resample::resize(x.dims4()?.into(), Size::To(size), filter, &Options::default());
    x.apply_op1(Resized(plan.map_err(Error::wrap)?))
}

struct Resized(Resample);

impl CustomOp1 for Resized {
    fn name(&self) -> &'static str {
        "swath-upsample"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = floats(x, layout)?;
        let y = written(self.0.output().iter().product(), |y| self.0.forward_uninit(&x, y)).map_err(Error::wrap)?;
        Ok((CpuStorage::F32(y), self.0.output().to_vec().into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let held = Held::of(dy);
        let dy = held.floats()?;
        let dx = written(self.0.input().iter().product(), |dx| self.0.backward_uninit(&dy, dx)).map_err(Error::wrap)?;
        Tensor::from_vec(dx, self.0.input().to_vec(), &Device::Cpu).map(Some)
    }
}
