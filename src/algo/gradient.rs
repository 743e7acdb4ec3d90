//! Algorithms of the two gradients: what the rows' columns for them hold.

use swath_kernels::backward_data::{self, BackwardData, PlanarData};
use swath_kernels::backward_weights::{BackwardWeights, DepthwiseWeights, PlanarWeights, StemWeights};
use swath_kernels::epilogue::{Epilogue, Outputs};
use swath_kernels::exec::Executor;
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::{Taps, Weights};
use swath_kernels::winograd::WinogradWeights;

use super::{Accuracy, Algo, Kernel, Packs, Pass, Planned, Request, Work, copied, predict};

/// A planned data gradient. As a kernel it is a convolution's: a tensor in, packed weights, a tensor out.
#[derive(Clone, Debug)]
pub struct DataKernel(Data);

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // a plan holds one
enum Data {
    /// A convolution of the gradient at the output with turned weights.
    Turned {
        /// The convolution of the gradient.
        turned: ConvShape,
        /// What does it.
        kernel: Kernel,
    },
    /// The phases of a stride, each by register tiles.
    Phases(Box<BackwardData>),
    /// Both phases of a stride across of 2 side by side, over planes.
    Planar(Box<PlanarData>),
}

/// The data gradient by what an algorithm does forward.
pub(super) fn turned(
    r: &Request<'_>,
    plan: impl Fn(&Request<'_>) -> Result<Kernel, String>,
) -> Result<DataKernel, String> {
    let Some(turned) = backward_data::turned(r.shape) else {
        return Err("the stride is not 1, or the padding reaches beyond the kernel".into());
    };
    let [x, y] = r.views;
    let kernel = plan(&Request { shape: &turned, views: [y, x], ..*r })?;
    Ok(DataKernel(Data::Turned { turned, kernel }))
}

/// The data gradient by phases, from blocked or NHWC gradients.
pub(super) fn phases(r: &Request<'_>) -> Result<DataKernel, String> {
    if r.layouts()[1] == Layout::Nchw {
        return Err("reads blocked or nhwc gradients, not nchw".into());
    }
    phases_of_any(r)
}

fn phases_of_any(r: &Request<'_>) -> Result<DataKernel, String> {
    let [x, y] = r.views;
    let plan = BackwardData::of_views(r.shape, r.level, [y, x]).map_err(|e| e.to_string())?;
    Ok(DataKernel(Data::Phases(Box::new(plan))))
}

/// The same by depthwise kernels; of stride 1 as forward.
pub(super) fn depthwise(
    r: &Request<'_>,
    plan: impl Fn(&Request<'_>) -> Result<Kernel, String>,
) -> Result<DataKernel, String> {
    if backward_data::turned(r.shape).is_some() {
        return turned(r, plan);
    }
    let [x, y] = r.views;
    Ok(DataKernel(Data::Phases(Box::new(BackwardData::depthwise(r.shape, r.level, [y, x])?))))
}

/// The same along rows of NCHW; of a stride across of 1 as forward.
pub(super) fn planar(
    r: &Request<'_>,
    plan: impl Fn(&Request<'_>) -> Result<Kernel, String>,
) -> Result<DataKernel, String> {
    if r.shape.sw == 1 {
        return turned(r, plan);
    }
    if r.layouts() != [Layout::Nchw; 2] {
        return Err("reads and writes nchw".into());
    }
    let [x, y] = r.views;
    Ok(DataKernel(Data::Planar(Box::new(PlanarData::of_views(r.shape, r.level, [y, x])?))))
}

/// The same from NCHW.
pub(super) fn phases_from_nchw(r: &Request<'_>) -> Result<DataKernel, String> {
    let [_, output] = r.layouts();
    if output != Layout::Nchw {
        return Err(format!("reads nchw gradients, not {}", output.name()));
    }
    phases_of_any(r)
}

impl Planned for DataKernel {
    const PASS: Pass = Pass::BackwardData;

    fn plan(algo: &Algo, request: &Request<'_>) -> Result<Self, String> {
        algo.data(request)
    }

    /// By the coefficients of the same algorithm forward.
    fn predict(&self, algo: &'static str, level: Level, shape: &ConvShape) -> f64 {
        let work = match &self.0 {
            Data::Turned { turned, kernel, .. } => Work::new(turned, kernel),
            Data::Phases(k) => {
                let tensors = [shape.output(), shape.input()].map(|dims| Layout::Blocked.len(dims));
                // Both copies as what is read: for some cores, what a depthwise convolution writes counts for nothing.
                let [x, y] = copied(tensors, k.copied());
                let moved = [x.saturating_add(y - tensors[1]), tensors[1]];
                Work::of(shape.macs_inside() as f64 * k.waste(), moved, tensors, k.packed_len())
            }
            Data::Planar(_) => {
                let tensors = [shape.output(), shape.input()].map(|dims| Layout::Nchw.len(dims));
                Work::of(shape.macs() as f64, tensors, tensors, DataKernel::packed_len(self))
            }
        };
        predict(algo, level, &work)
    }

    fn packed_len(&self) -> usize {
        DataKernel::packed_len(self)
    }
}

impl Packs for DataKernel {
    fn pack_weights(&self, shape: &ConvShape, w: &[f32], packed: &mut [f32], executor: &dyn Executor) {
        match &self.0 {
            Data::Turned { kernel, .. } => {
                let all = [Taps::all(shape.kh), Taps::all(shape.kw)];
                kernel.pack(&Weights::turned(shape, w, all), packed, executor);
            }
            Data::Phases(k) => k.pack_on(w, packed, executor),
            Data::Planar(_) => packed.copy_from_slice(w),
        }
    }
}

impl DataKernel {
    /// Name of the microkernel that does most of the work.
    pub fn name(&self) -> &'static str {
        match &self.0 {
            Data::Turned { kernel, .. } => kernel.name(),
            Data::Phases(k) => k.kernel(),
            Data::Planar(k) => k.kernel(),
        }
    }

    /// Floats of packed weights.
    pub fn packed_len(&self) -> usize {
        match &self.0 {
            Data::Turned { kernel, .. } => kernel.packed_len(),
            Data::Phases(k) => k.packed_len(),
            Data::Planar(k) => k.shape().weights().iter().product(),
        }
    }

    /// Floats of scratch for a number of threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        match &self.0 {
            Data::Turned { kernel, .. } => kernel.scratch_len(threads),
            Data::Phases(k) => k.scratch_len().saturating_mul(threads),
            Data::Planar(_) => 0,
        }
    }

    pub(crate) fn run<'x>(
        &self,
        dy: &[f32],
        packed: &[f32],
        epilogue: &Epilogue<'_>,
        dx: Outputs<'x>,
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) -> &'x mut [f32] {
        match &self.0 {
            Data::Turned { kernel, .. } => kernel.forward(dy, packed, epilogue, dx, scratch, executor),
            Data::Phases(k) => k.run(dy, packed, epilogue, dx, scratch, executor),
            Data::Planar(k) => k.run(dy, packed, epilogue, dx, executor),
        }
    }
}

/// A planned weight gradient.
#[derive(Clone, Debug)]
pub struct WeightKernel(Sum);

#[derive(Clone, Debug)]
enum Sum {
    /// Sums over pixels, by register tiles.
    Pixels(Box<BackwardWeights>),
    /// Sums over pixels, lane by lane.
    Lanes(Box<DepthwiseWeights>),
    /// Sums along rows of planes.
    Planar(Box<PlanarWeights>),
    /// Sums over pixels, for few input channels.
    Stem(Box<StemWeights>),
    /// Winograd F(3x3, 4x4).
    Winograd(Box<WinogradWeights>),
}

/// The weight gradient by sums over pixels: every geometry and layout.
pub(super) fn pixel_sums(r: &Request<'_>) -> Result<WeightKernel, String> {
    Ok(WeightKernel(Sum::Pixels(Box::new(BackwardWeights::of_views(r.shape, r.level, r.views)))))
}

/// The same lane by lane: depthwise.
pub(super) fn lanes(r: &Request<'_>) -> Result<WeightKernel, String> {
    Ok(WeightKernel(Sum::Lanes(Box::new(DepthwiseWeights::of_views(r.shape, r.level, r.views)?))))
}

/// The same along rows of NCHW: depthwise 3x3.
pub(super) fn planar_weights(r: &Request<'_>) -> Result<WeightKernel, String> {
    Ok(WeightKernel(Sum::Planar(Box::new(PlanarWeights::of_views(r.shape, r.level, r.views)?))))
}

/// The same for few input channels.
pub(super) fn stem_weights(r: &Request<'_>) -> Result<WeightKernel, String> {
    Ok(WeightKernel(Sum::Stem(Box::new(StemWeights::of_views(r.shape, r.level, r.views)?))))
}

/// The weight gradient by Winograd's transforms.
pub(super) fn winograd_weights(r: &Request<'_>) -> Result<WeightKernel, String> {
    if r.accuracy == Accuracy::Exact {
        return Err("the accuracy asked for is `Exact`".into());
    }
    Ok(WeightKernel(Sum::Winograd(Box::new(WinogradWeights::of_views(r.shape, r.level, r.views)?))))
}

/// For algorithms without weight gradients.
pub(super) fn no_weights(_: &Request<'_>) -> Result<WeightKernel, String> {
    Err("does no weight gradients".into())
}

impl Planned for WeightKernel {
    const PASS: Pass = Pass::BackwardWeights;

    fn plan(algo: &Algo, request: &Request<'_>) -> Result<Self, String> {
        algo.weights(request)
    }

    /// By the coefficients of the same algorithm forward.
    fn predict(&self, algo: &'static str, level: Level, s: &ConvShape) -> f64 {
        let tensors = [s.input(), s.output()].map(|dims| Layout::Blocked.len(dims));
        let (macs, transformed) = match &self.0 {
            Sum::Pixels(k) => (s.macs_inside() as f64 * k.waste(), tensors),
            Sum::Lanes(k) => (s.macs() as f64, copied(tensors, k.copied())),
            Sum::Planar(k) => (s.macs() as f64 * k.waste(), [s.input(), s.output()].map(|dims| Layout::Nchw.len(dims))),
            Sum::Stem(_) => (s.macs() as f64, tensors),
            Sum::Winograd(k) => (k.macs() as f64 * k.waste(), k.transformed()),
        };
        let dw = s.weights().iter().product();
        predict(algo, level, &Work::of(macs, transformed, tensors, dw))
    }

    /// It reads no weights.
    fn packed_len(&self) -> usize {
        0
    }
}

impl WeightKernel {
    /// Name of the microkernel that does most of the work.
    pub fn name(&self) -> &'static str {
        match &self.0 {
            Sum::Pixels(k) => k.kernel(),
            Sum::Lanes(k) => k.kernel(),
            Sum::Planar(k) => k.kernel(),
            Sum::Stem(k) => k.kernel(),
            Sum::Winograd(k) => k.kernel(),
        }
    }

    /// Floats of scratch for a number of threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        match &self.0 {
            Sum::Pixels(k) => k.scratch_len(threads),
            Sum::Lanes(k) => k.scratch_len(threads),
            Sum::Planar(k) => k.scratch_len(),
            Sum::Stem(k) => k.scratch_len(threads),
            Sum::Winograd(k) => k.scratch_len(threads),
        }
    }

    pub(crate) fn run<'w>(
        &self,
        x: &[f32],
        dy: &[f32],
        dw: Outputs<'w>,
        db: Option<&mut [f32]>,
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) -> &'w mut [f32] {
        match &self.0 {
            Sum::Pixels(k) => k.run(x, dy, dw, db, scratch, executor),
            Sum::Lanes(k) => k.run(x, dy, dw, db, scratch, executor),
            Sum::Planar(k) => k.run(x, dy, dw, db, scratch, executor),
            Sum::Stem(k) => k.run(x, dy, dw, db, scratch, executor),
            Sum::Winograd(k) => k.run(x, dy, dw, db, scratch, executor),
        }
    }
}
