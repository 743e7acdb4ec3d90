//! Pooling.

use core::mem::MaybeUninit;
use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, Device, Error, Layout, Result, Shape, Tensor, ToUsize2};
use rayon::prelude::*;
use swath::pool::{AvgPool, Divisor, MaxPool};
use swath::{Options, PoolShape, written};

use crate::memory::{Held, floats};

/// The largest of every window, as [`Tensor::max_pool2d_with_stride`]. The first of equal ones gets the gradient, as in PyTorch.
///
/// candle's gradient is another one: see [`max_pool2d_as_candle`].
///
/// # Errors
/// For tensors that are not of `f32` on the CPU, and windows that do not fit.
pub fn max_pool2d(x: &Tensor, kernel: impl ToUsize2, stride: impl ToUsize2) -> Result<Tensor> {
    let plan = MaxPool::new(&shape(x, kernel, stride)?, &Options::default()).map_err(Error::wrap)?;
    // Nobody asks for the indices where there is no gradient.
    let indices = x.track_op().then(OnceLock::new);
    x.apply_op1(Max { plan, indices })
}

/// [`max_pool2d`] with the gradient that [`Tensor::max_pool2d`] of candle 0.11 has: in a window of `k` elements, of which `m` are the
/// largest, each of these gets the gradient times `m / k`, so the one largest of a 2x2 window a quarter of it.
///
/// A training that shall repeat one of candle's own takes this.
///
/// # Errors
/// As [`max_pool2d`]. The gradient, as candle's, is an error where windows overlap or leave gaps.
pub fn max_pool2d_as_candle(x: &Tensor, kernel: impl ToUsize2, stride: impl ToUsize2) -> Result<Tensor> {
    let plan = MaxPool::new(&shape(x, kernel, stride)?, &Options::default()).map_err(Error::wrap)?;
    x.apply_op1(CandleMax(plan))
}

/// The mean of every window, as [`Tensor::avg_pool2d_with_stride`].
///
/// # Errors
/// As [`max_pool2d`].
pub fn avg_pool2d(x: &Tensor, kernel: impl ToUsize2, stride: impl ToUsize2) -> Result<Tensor> {
    let plan = AvgPool::new(&shape(x, kernel, stride)?, Divisor::Padded, &Options::default());
    x.apply_op1(Mean(plan.map_err(Error::wrap)?))
}

fn shape(x: &Tensor, kernel: impl ToUsize2, stride: impl ToUsize2) -> Result<PoolShape> {
    let builder = PoolShape::builder(x.dims4()?.into(), kernel.to_usize2()).stride(stride.to_usize2());
    builder.build().map_err(Error::wrap)
}

/// Runs `f` on the input and a new output.
fn forward(
    x: (&CpuStorage, &Layout),
    shape: &PoolShape,
    f: impl for<'y> FnOnce(&[f32], &'y mut [MaybeUninit<f32>]) -> swath::Result<&'y mut [f32]>,
) -> Result<(CpuStorage, Shape)> {
    let x = floats(x.0, x.1)?;
    let y = written(shape.output().iter().product(), |y| f(&x, y)).map_err(Error::wrap)?;
    Ok((CpuStorage::F32(y), shape.output().to_vec().into()))
}

/// The gradient at the input that `f` computes from the one at the output.
fn backward(
    dy: &Tensor,
    shape: &PoolShape,
    f: impl for<'x> FnOnce(&[f32], &'x mut [MaybeUninit<f32>]) -> swath::Result<&'x mut [f32]>,
) -> Result<Option<Tensor>> {
    let held = Held::of(dy);
    let dy = held.floats()?;
    let dx = written(shape.input().iter().product(), |dx| f(&dy, dx)).map_err(Error::wrap)?;
    Tensor::from_vec(dx, shape.input().to_vec(), &Device::Cpu).map(Some)
}

struct Max {
    plan: MaxPool,
    /// Which of each window is the largest, from the forward pass.
    indices: Option<OnceLock<Vec<u32>>>,
}

impl CustomOp1 for Max {
    fn name(&self) -> &'static str {
        "swath-max-pool2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        forward((x, layout), self.plan.shape(), |x, y| {
            let Some(kept) = &self.indices else { return Ok(self.plan.forward_uninit(x, y, None)?.0) };
            let (y, indices) = self.plan.forward_with_indices(x, y)?;
            kept.get_or_init(|| indices);
            Ok(y)
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let Some(indices) = self.indices.as_ref().and_then(OnceLock::get) else {
            return Err(Error::BackwardNotSupported { op: "max_pool2d of what is not tracked" });
        };
        backward(dy, self.plan.shape(), |dy, dx| self.plan.backward_uninit(indices, dy, dx))
    }
}

struct Mean(AvgPool);

impl CustomOp1 for Mean {
    fn name(&self) -> &'static str {
        "swath-avg-pool2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        forward((x, layout), self.0.shape(), |x, y| self.0.forward_uninit(x, y))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        backward(dy, self.0.shape(), |dy, dx| self.0.backward_uninit(dy, dx))
    }
}

struct CandleMax(MaxPool);

impl CustomOp1 for CandleMax {
    fn name(&self) -> &'static str {
        "swath-max-pool2d-as-candle"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        forward((x, layout), self.0.shape(), |x, y| Ok(self.0.forward_uninit(x, y, None)?.0))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let s = *self.0.shape();
        if [s.kh, s.kw] != [s.sh, s.sw] {
            candle_core::bail!("a gradient as candle's needs windows of {}x{} with that stride", s.kh, s.kw);
        }
        let (held_x, held_y) = (Held::of(x), Held::of(y));
        let (x, y) = (held_x.floats()?, held_y.floats()?);
        // What no window covers stays zero.
        let (held_dy, mut dx) = (Held::of(dy), vec![0.0; x.len()]);
        let dy = held_dy.floats()?;
        let planes = (dx.par_chunks_mut(s.ih * s.iw), x.par_chunks(s.ih * s.iw));
        let windows = (y.par_chunks(s.oh * s.ow), dy.par_chunks(s.oh * s.ow));
        // Windows of 2 are most: loops of a fixed length take a fifth of the time.
        let scatter = if s.kw == 2 { scatter::<2> } else { scatter::<0> };
        (planes, windows).into_par_iter().for_each(|((dx, x), (y, dy))| scatter(&s, [x, y, dy], dx));
        Tensor::from_vec(dx, s.input().to_vec(), &Device::Cpu).map(Some)
    }
}

/// Writes `dx` of one plane, zeros before. `K` is the windows' width; 0 where it is known at run time only.
fn scatter<const K: usize>(s: &PoolShape, [x, y, dy]: [&[f32]; 3], dx: &mut [f32]) {
    let kw = if K == 0 { s.kw } else { K };
    let share = 1.0 / (s.kh * kw) as f32;
    let mut counts = vec![0.0f32; s.ow];
    for (oy, (y, dy)) in y.chunks_exact(s.ow).zip(dy.chunks_exact(s.ow)).enumerate() {
        counts.fill(0.0);
        let rows = (oy * s.kh..(oy + 1) * s.kh).map(|iy| iy * s.iw..(iy + 1) * s.iw);
        for row in rows.clone() {
            for ((count, x), y) in counts.iter_mut().zip(x[row].chunks_exact(kw)).zip(y) {
                x.iter().for_each(|x| *count += if x == y { share } else { 0.0 });
            }
        }
        counts.iter_mut().zip(dy).for_each(|(count, dy)| *count *= dy);
        for row in rows {
            let windows = dx[row.clone()].chunks_exact_mut(kw).zip(x[row].chunks_exact(kw));
            for ((dx, x), (y, d)) in windows.zip(y.iter().zip(&counts)) {
                dx.iter_mut().zip(x).for_each(|(dx, x)| *dx = if x == y { *d } else { 0.0 });
            }
        }
    }
}
