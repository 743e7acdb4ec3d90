//! Algorithms of the two gradients: what the rows' columns for them hold.

use swath_kernels::backward_data::{self, BackwardData, PlanarData};
use swath_kernels::backward_weights::{BackwardWeights, DepthwiseWeights, PlanarWeights, StemWeights};
use swath_kernels::epilogue::{Epilogue, Outputs};
use swath_kernels::exec::Executor;
use swath_kernels::layout::{BLOCK, Layout};
use swath_kernels::machine::Core;
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::{Taps, Weights};
use swath_kernels::winograd::WinogradWeights;

use super::{
    Accuracy, Algo, COPY, InBlocks, Kernel, Packs, Pass, Planned, Request, Runs, Sums, Work, copied, in_blocks,
    predict, scattered,
};
use swath_kernels::isa::Level;

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
    /// One of the others, on copies in blocks.
    Blocks(Box<InBlocks<DataKernel>>),
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
    data_without_planes(r, r.planes_to_copy(1), |r| {
        if r.layouts()[1] == Layout::Nchw {
            return Err(
                "reads blocked or nhwc gradients, or nchw of 16 channels and more, without gaps and with groups of whole blocks".into()
            );
        }
        phases_of_any(r)
    })
}

/// A kernel that takes planes as blocks, where they lie without gaps and weights serve for both; `copied` says of which of the two tensors.
fn data_without_planes(
    r: &Request<'_>,
    copied: [bool; 2],
    plan: impl Fn(&Request<'_>) -> Result<DataKernel, String>,
) -> Result<DataKernel, String> {
    if copied == [false; 2] || !r.is_dense() || !r.blocks_hold_groups() {
        return plan(r);
    }
    Ok(DataKernel(Data::Blocks(Box::new(in_blocks(r, copied, plan)?))))
}

fn phases_of_any(r: &Request<'_>) -> Result<DataKernel, String> {
    let [x, y] = r.views;
    let plan = BackwardData::of_views(r.shape, r.core, [y, x]).map_err(|e| e.to_string())?;
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
    // Its weights lie the same for all layouts.
    let plan = |r: &Request<'_>| {
        let [x, y] = r.views;
        Ok(DataKernel(Data::Phases(Box::new(BackwardData::depthwise(r.shape, r.core, [y, x])?))))
    };
    if r.planes() == [false; 2] || !r.is_dense() {
        return plan(r);
    }
    Ok(DataKernel(Data::Blocks(Box::new(in_blocks(r, r.planes(), plan)?))))
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
    Ok(DataKernel(Data::Planar(Box::new(PlanarData::of_views(r.shape, r.core, [y, x])?))))
}

/// The same from NCHW.
pub(super) fn phases_from_nchw(r: &Request<'_>) -> Result<DataKernel, String> {
    let [_, output] = r.layouts();
    if output != Layout::Nchw {
        return Err(format!("reads nchw gradients, not {}", output.name()));
    }
    let [input, _] = r.planes();
    data_without_planes(r, [input, false], phases_of_any)
}

impl Planned for DataKernel {
    const PASS: Pass = Pass::BackwardData;

    fn plan(algo: &Algo, request: &Request<'_>) -> Result<Self, String> {
        algo.data(request)
    }

    /// By the coefficients of the same algorithm forward.
    fn predict(&self, algo: &'static str, core: Core, shape: &ConvShape) -> f64 {
        let work = match &self.0 {
            Data::Turned { turned, kernel, .. } => return kernel.predict(algo, core, turned),
            Data::Blocks(k) => return k.predict(algo, core, shape),
            Data::Phases(k) => {
                let tensors = [shape.output(), shape.input()].map(|dims| Layout::Blocked.len(dims));
                // Both copies as what is read: for some cores, what a depthwise convolution writes counts for nothing.
                let [x, y] = copied(tensors, k.copied());
                let moved = [x.saturating_add(y - tensors[1]), tensors[1]];
                let macs = shape.macs_inside() as f64 * k.waste() * scattered(algo, shape, shape.ocg());
                Work::of(core, macs, moved, tensors, k.packed_len())
            }
            Data::Planar(_) => {
                let tensors = [shape.output(), shape.input()].map(|dims| Layout::Nchw.len(dims));
                // With fewer lanes the phases are put side by side by more instructions (Zen 3: 0.3 ms for 144 channels at 56x56).
                let wide = core.level == Level::Avx512;
                let moved = [tensors[0], if wide { tensors[1] } else { tensors[1].saturating_mul(COPY) }];
                Work::of(core, shape.macs() as f64, moved, tensors, DataKernel::packed_len(self))
            }
        };
        predict(algo, core, &work)
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
            Data::Blocks(k) => k.kernel().pack_weights(&k.shape(shape), w, packed, executor),
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
            Data::Blocks(k) => k.kernel().name(),
        }
    }

    /// Floats of packed weights.
    pub fn packed_len(&self) -> usize {
        match &self.0 {
            Data::Turned { kernel, .. } => kernel.packed_len(),
            Data::Phases(k) => k.packed_len(),
            Data::Planar(k) => k.shape().weights().iter().product(),
            Data::Blocks(k) => k.kernel().packed_len(),
        }
    }

    /// Floats of scratch for a number of threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        match &self.0 {
            Data::Turned { kernel, .. } => kernel.scratch_len(threads),
            Data::Phases(k) => k.scratch_len().saturating_mul(threads),
            Data::Planar(_) => 0,
            Data::Blocks(k) => k.scratch_len(threads),
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
            Data::Blocks(k) => k.run(dy, packed, epilogue, dx, scratch, executor),
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
    /// One of the others, on copies in blocks.
    Blocks(Box<InBlocks<WeightKernel>>),
}

/// A kernel that takes a tensor as blocks, where it lies otherwise and without gaps; `copied` says which of the two.
fn sums_in_blocks(
    r: &Request<'_>,
    copied: [bool; 2],
    plan: impl Fn(&Request<'_>) -> Result<WeightKernel, String>,
) -> Result<WeightKernel, String> {
    if copied == [false; 2] {
        return plan(r);
    }
    if !r.is_dense() {
        return plan(r).map_err(|why| format!("{why}, or what lies without gaps"));
    }
    Ok(WeightKernel(Sum::Blocks(Box::new(in_blocks(r, copied, plan)?))))
}

/// Which of the two tensors lie otherwise, and fill blocks: of fewer channels a block is mostly padding.
fn to_copy(r: &Request<'_>) -> [bool; 2] {
    let [x, dy] = r.layouts().map(|layout| layout != Layout::Blocked);
    [x && r.shape.ic >= BLOCK, dy && r.shape.oc >= BLOCK]
}

/// The weight gradient by sums over pixels: every geometry and layout.
pub(super) fn pixel_sums(r: &Request<'_>) -> Result<WeightKernel, String> {
    sums_in_blocks(r, to_copy(r), |r| {
        Ok(WeightKernel(Sum::Pixels(Box::new(BackwardWeights::of_views(r.shape, r.core, r.views)))))
    })
}

/// Floats of an image's input and gradient that are copied to blocks before they are summed lane by lane.
const MOST_LANES: usize = 1 << 20;

/// The same lane by lane: depthwise.
pub(super) fn lanes(r: &Request<'_>) -> Result<WeightKernel, String> {
    // Copies of more leave L2: for 96 channels at 112x112 they took 1.5 times as long as what the kernel copies by itself.
    let floats: usize = [r.shape.input(), r.shape.output()].iter().map(|&[_, c, h, w]| c * h * w).sum();
    let channels_last = r.layouts().map(|layout| layout == Layout::Nhwc && floats <= MOST_LANES);
    sums_in_blocks(r, channels_last, |r| {
        Ok(WeightKernel(Sum::Lanes(Box::new(DepthwiseWeights::of_views(r.shape, r.core, r.views)?))))
    })
}

/// The same along rows of NCHW: depthwise 3x3.
pub(super) fn planar_weights(r: &Request<'_>) -> Result<WeightKernel, String> {
    Ok(WeightKernel(Sum::Planar(Box::new(PlanarWeights::of_views(r.shape, r.core, r.views)?))))
}

/// The same for few input channels.
pub(super) fn stem_weights(r: &Request<'_>) -> Result<WeightKernel, String> {
    let [_, dy] = r.layouts().map(|layout| layout != Layout::Blocked);
    sums_in_blocks(r, [false, dy], |r| {
        Ok(WeightKernel(Sum::Stem(Box::new(StemWeights::of_views(r.shape, r.core, r.views)?))))
    })
}

/// The weight gradient by Winograd's transforms.
pub(super) fn winograd_weights(r: &Request<'_>) -> Result<WeightKernel, String> {
    if r.accuracy == Accuracy::Exact {
        return Err("the accuracy asked for is `Exact`".into());
    }
    sums_in_blocks(r, r.layouts().map(|layout| layout != Layout::Blocked), |r| {
        Ok(WeightKernel(Sum::Winograd(Box::new(WinogradWeights::of_views(r.shape, r.core, r.views)?))))
    })
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
    fn predict(&self, algo: &'static str, core: Core, s: &ConvShape) -> f64 {
        let tensors = [s.input(), s.output()].map(|dims| Layout::Blocked.len(dims));
        let (macs, transformed) = match &self.0 {
            Sum::Pixels(k) => (s.macs_inside() as f64 * k.waste(), tensors),
            Sum::Lanes(k) => (s.macs() as f64, copied(tensors, k.copied())),
            Sum::Planar(k) => (s.macs() as f64 * k.waste(), [s.input(), s.output()].map(|dims| Layout::Nchw.len(dims))),
            Sum::Stem(_) => (s.macs() as f64, tensors),
            Sum::Winograd(k) => (k.macs() as f64 * k.waste(), k.transformed()),
            Sum::Blocks(k) => return k.predict(algo, core, s),
        };
        let dw = s.weights().iter().product();
        predict(algo, core, &Work::of(core, macs, transformed, tensors, dw))
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
            Sum::Blocks(k) => k.kernel().name(),
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
            Sum::Blocks(k) => k.sum_scratch_len(threads),
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
            Sum::Blocks(k) => k.sum([x, dy], dw, db, scratch, executor),
        }
    }
}

impl Runs for DataKernel {
    const READS: usize = 1;

    fn scratch_len(&self, threads: usize) -> usize {
        DataKernel::scratch_len(self, threads)
    }

    fn run<'y>(
        &self,
        x: &[f32],
        packed: &[f32],
        epilogue: &Epilogue<'_>,
        y: Outputs<'y>,
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) -> &'y mut [f32] {
        DataKernel::run(self, x, packed, epilogue, y, scratch, executor)
    }
}

impl Sums for WeightKernel {
    fn scratch_len(&self, threads: usize) -> usize {
        WeightKernel::scratch_len(self, threads)
    }

    fn sum<'w>(
        &self,
        [x, dy]: [&[f32]; 2],
        dw: Outputs<'w>,
        db: Option<&mut [f32]>,
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) -> &'w mut [f32] {
        self.run(x, dy, dw, db, scratch, executor)
    }
}
