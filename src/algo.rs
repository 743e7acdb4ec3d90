//! The algorithms: an ordered table, and the cost model that chooses from it.
//!
//! Each row says whether it supports a shape, or why not. A supported one becomes a [`Kernel`], which knows its packed
//! weights, its scratch and what it would do, and the cost model turns that into predicted time. Adding an algorithm is
//! one family module in `swath-kernels`, one variant of `Family` and one row of [`ALGOS`].
//!
//! A row has a column for each [`Pass`]: the convolution, its data gradient and its weight gradient. A data gradient of stride 1 is a
//! convolution of its own, on turned weights, so that most rows do it by what they do forward.

mod blocks;
mod cost;
mod gradient;

use swath_kernels::bf16x6::Bf16x6;
use swath_kernels::depthwise::Depthwise;
use swath_kernels::direct::Direct;
use swath_kernels::epilogue::{Epilogue, Outputs};
use swath_kernels::exec::Executor;
use swath_kernels::finite::FiniteRange;
use swath_kernels::gemm::Im2col;
use swath_kernels::isa::Level;
use swath_kernels::isa::matrix::MatrixUnit;
use swath_kernels::layout::{BLOCK, Layout, View};
use swath_kernels::machine::Core;
use swath_kernels::planar::Planar;
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::Weights;
use swath_kernels::winograd::{Variant, Winograd};

use blocks::{InBlocks, Runs, Sums, in_blocks};
pub(crate) use cost::predict;
pub use cost::{COEFFICIENTS, Coefficients, Cores, FEATURES, Work};
pub use gradient::{DataKernel, WeightKernel};

/// What is computed of a convolution `y = conv(x, w)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pass {
    /// `y` of `x` and `w`.
    #[default]
    Forward,
    /// The gradient at `x` of the one at `y` and `w`; also transposed convolution.
    BackwardData,
    /// The gradients at `w` and the bias of `x` and the gradient at `y`.
    BackwardWeights,
}

impl Pass {
    /// All passes.
    pub const ALL: [Pass; 3] = [Pass::Forward, Pass::BackwardData, Pass::BackwardWeights];

    /// benchdnn's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Pass::Forward => "fwd",
            Pass::BackwardData => "bwd_d",
            Pass::BackwardWeights => "bwd_w",
        }
    }
}

/// What an algorithm is asked to plan.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The geometry of the convolution, whatever the pass.
    pub(crate) shape: &'a ConvShape,
    /// What will run it: all that is asked of the machine.
    pub(crate) core: Core,
    /// How its input and its output lie, and the gradients there.
    pub(crate) views: [View; 2],
    pub(crate) accuracy: Accuracy,
}

impl<'a> Request<'a> {
    /// For dense tensors. Shape, and layouts of input and output, are those of the convolution, whatever the pass.
    ///
    /// ```
    /// use swath::algo::{self, Request};
    /// use swath::{Accuracy, ConvShape, Core, Layout};
    /// let shape = ConvShape::builder([1, 64, 14, 14], [64, 64, 3, 3]).build()?;
    /// let request = Request::dense(&shape, Core::here(swath::cpu()?.level), [Layout::Nchw; 2], Accuracy::Exact);
    /// assert!((algo::find("gemm").unwrap().plan)(&request).is_ok());
    /// assert_eq!((algo::find("winograd4").unwrap().plan)(&request).unwrap_err(), "the accuracy asked for is `Exact`");
    /// # Ok::<(), swath::Error>(())
    /// ```
    pub fn dense(shape: &'a ConvShape, core: Core, [input, output]: [Layout; 2], accuracy: Accuracy) -> Self {
        let views = [View::dense(input, shape.input()), View::dense(output, shape.output())];
        Self { shape, core, views, accuracy }
    }

    fn layouts(&self) -> [Layout; 2] {
        self.views.map(|view| view.layout())
    }

    /// Which of the two lie in planes.
    fn planes(&self) -> [bool; 2] {
        self.layouts().map(|layout| layout == Layout::Nchw)
    }

    /// Which of the two lie in planes and are worth a copy: what is read only where its channels fill a block, since few are faster to read
    /// as they lie (row `stem`; 3 to 64 channels at 224x224 3.2 ms, by copies 4.3).
    fn planes_to_copy(&self, reads: usize) -> [bool; 2] {
        let mut planes = self.planes();
        planes[reads] &= [self.shape.ic, self.shape.oc][reads] >= BLOCK;
        planes
    }

    /// Whether groups are whole blocks: where not, the order of packed weights depends on layouts.
    fn blocks_hold_groups(&self) -> bool {
        let s = self.shape;
        s.groups == 1 || s.icg().is_multiple_of(BLOCK) && s.ocg().is_multiple_of(BLOCK)
    }

    /// Whether both lie without gaps.
    fn is_dense(&self) -> bool {
        self.views.iter().all(View::is_dense)
    }
}

/// How much rounding error a plan accepts, beyond that of the sum that defines a convolution, and for which magnitudes.
///
/// For data without structure, errors relative to the result's root mean square are about 6e-7 for a plain sum in f32 over 256 input
/// channels; [`Variant::typical`](swath_kernels::winograd::Variant::typical) and
/// [`Variant::bound`](swath_kernels::winograd::Variant::bound) state those of Winograd's variants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Accuracy {
    /// Sums of products in f32, as defined: no Winograd, no parts of floats. A result is finite wherever the partial sums of the
    /// defining sum are, for inputs and weights of any magnitude, and infinite or NaN where an input makes the defining sum so.
    Exact,
    /// Also `bf16x6`, whose errors are below those of a plain sum, and Winograd with tiles of 2x2 and 4x4 outputs: errors about as
    /// large as those of a plain sum, to three times as large. Results are finite wherever the defining sum is if inputs are at
    /// most 1.2e37, and the largest input times the sum of an output channel's weights at most 1e36, by their absolute values
    /// ([`ConvPlan::finite_range`](crate::ConvPlan::finite_range) has the limits of a plan). Larger values, infinities and NaN make NaN of
    /// their outputs, by Winograd also of others in the same tile.
    #[default]
    Default,
    /// All algorithms: Winograd with tiles of 6x6 outputs, too, whose errors are about ten times those of a plain sum. Results are finite
    /// for inputs of at most 1.5e36, and products with sums of weights of at most 1e35.
    Fast,
}

/// One row of [`ALGOS`].
#[derive(Debug)]
pub struct Algo {
    /// The name that options, reports and tuning files use.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Whether this machine has what it takes, at its highest level.
    pub is_available: fn() -> bool,
    /// The planned kernel, or why this algorithm does not do the shape.
    pub plan: fn(&Request<'_>) -> Result<Kernel, String>,
    /// Its number in [`ALGOS`].
    row: usize,
}

impl Algo {
    /// [`Algo::plan`] for the data gradient.
    pub fn data(&self, request: &Request<'_>) -> Result<DataKernel, String> {
        DATA[self.row](request)
    }

    /// The same for the weight gradient.
    pub fn weights(&self, request: &Request<'_>) -> Result<WeightKernel, String> {
        WEIGHTS[self.row](request)
    }
}

/// [`ALGOS`] of its rows. The passes stand in tables of their own, so that a program of one pass does not carry the kernels of all.
macro_rules! algos {
    ($(Algo {
        name: $name:literal,
        summary: $summary:literal,
        is_available: $available:expr,
        plan: $plan:expr,
        data: $data:expr,
        weights: $weights:expr,
    },)*) => {
        /// All algorithms. The order breaks ties of the cost model and carries no other meaning.
        pub static ALGOS: &[Algo] = &numbered([$(Algo {
            name: $name,
            summary: $summary,
            is_available: $available,
            plan: $plan,
            row: 0,
        }),*]);

        static DATA: &[fn(&Request<'_>) -> Result<DataKernel, String>] = &[$($data),*];
        static WEIGHTS: &[fn(&Request<'_>) -> Result<WeightKernel, String>] = &[$($weights),*];
    };
}

const fn numbered<const N: usize>(mut rows: [Algo; N]) -> [Algo; N] {
    let mut i = 0;
    while i < N {
        rows[i].row = i;
        i += 1;
    }
    rows
}

algos! {
    Algo {
        name: "depthwise",
        summary: "whole groups in a vector's lanes: depthwise and small groups",
        is_available: everywhere,
        plan: depthwise,
        data: |r| gradient::depthwise(r, depthwise),
        weights: gradient::lanes,
    },
    Algo {
        name: "planar",
        summary: "a vector along a row of NCHW: depthwise and small groups, nothing copied",
        is_available: everywhere,
        plan: planar,
        data: |r| gradient::planar(r, planar),
        weights: gradient::planar_weights,
    },
    Algo {
        name: "direct",
        summary: "register tiles over channel blocks, straight from the input",
        is_available: everywhere,
        plan: direct,
        data: gradient::phases,
        weights: gradient::pixel_sums,
    },
    Algo {
        name: "stem",
        summary: "register tiles straight from NCHW: few input channels",
        is_available: everywhere,
        plan: stem,
        data: gradient::phases_from_nchw,
        weights: gradient::stem_weights,
    },
    Algo {
        name: "winograd2",
        summary: "3x3 of stride 1 on tiles of 2x2 outputs: 2.25 times fewer multiplications",
        is_available: everywhere,
        plan: |r| winograd(r, Variant::F2),
        data: |r| gradient::turned(r, |r| winograd(r, Variant::F2)),
        weights: gradient::no_weights,
    },
    Algo {
        name: "winograd4",
        summary: "3x3 of stride 1 on tiles of 4x4 outputs: 4 times fewer multiplications",
        is_available: everywhere,
        plan: |r| winograd(r, Variant::F4),
        data: |r| gradient::turned(r, |r| winograd(r, Variant::F4)),
        weights: gradient::winograd_weights,
    },
    Algo {
        name: "winograd6",
        summary: "3x3 of stride 1 on tiles of 6x6 outputs: 5 times fewer multiplications; only if accuracy is `Fast`",
        is_available: everywhere,
        plan: |r| winograd(r, Variant::F6),
        data: |r| gradient::turned(r, |r| winograd(r, Variant::F6)),
        weights: gradient::no_weights,
    },
    Algo {
        name: "bf16x6",
        summary: "matrix units (AMX): floats as three bf16 parts, six products for one; not if accuracy is `Exact`",
        is_available: || MatrixUnit::Amx.is_available(),
        plan: bf16x6,
        data: |r| gradient::turned(r, bf16x6),
        weights: gradient::no_weights,
    },
    Algo {
        name: "gemm",
        summary: "packed matrix product, im2col as its packing: every geometry and layout",
        is_available: everywhere,
        plan: gemm,
        data: |r| gradient::turned(r, gemm),
        weights: gradient::no_weights,
    },
}

fn everywhere() -> bool {
    true
}

/// The row of that name.
pub fn find(name: &str) -> Option<&'static Algo> {
    ALGOS.iter().find(|a| a.name == name)
}

fn depthwise(r: &Request<'_>) -> Result<Kernel, String> {
    Ok(Kernel(Family::Depthwise(Box::new(Depthwise::of_views(r.shape, r.core, r.views)?))))
}

fn planar(r: &Request<'_>) -> Result<Kernel, String> {
    if r.layouts() != [Layout::Nchw; 2] {
        let [input, output] = r.layouts().map(Layout::name);
        return Err(format!("from nchw to nchw, not from {input} to {output}"));
    }
    Ok(Kernel(Family::Planar(Box::new(Planar::of_views(r.shape, r.core, r.views)?))))
}

fn direct(r: &Request<'_>) -> Result<Kernel, String> {
    without_planes(r, r.planes_to_copy(0), |r| {
        if r.layouts()[0] == Layout::Nchw {
            return Err("reads blocked or nhwc input, or nchw of 16 channels and more, without gaps and with groups of whole blocks".into());
        }
        Ok(Kernel(Family::Direct(Box::new(Direct::of_views(r.shape, r.core, r.views)))))
    })
}

/// A kernel that takes planes as blocks, where they lie without gaps and weights serve for both; `copied` says of which of the two tensors.
fn without_planes(
    r: &Request<'_>,
    copied: [bool; 2],
    plan: impl Fn(&Request<'_>) -> Result<Kernel, String>,
) -> Result<Kernel, String> {
    if copied == [false; 2] || !r.is_dense() || !r.blocks_hold_groups() {
        return plan(r);
    }
    Ok(Kernel(Family::Blocks(Box::new(in_blocks(r, copied, plan)?))))
}

fn stem(r: &Request<'_>) -> Result<Kernel, String> {
    let [input, _] = r.layouts();
    if input != Layout::Nchw {
        return Err(format!("reads nchw input, not {}", input.name()));
    }
    let [_, output] = r.planes();
    without_planes(r, [false, output], |r| {
        Ok(Kernel(Family::Direct(Box::new(Direct::of_views(r.shape, r.core, r.views)))))
    })
}

fn winograd(r: &Request<'_>, variant: Variant) -> Result<Kernel, String> {
    if r.accuracy == Accuracy::Exact {
        return Err("the accuracy asked for is `Exact`".into());
    }
    if variant == Variant::F6 && r.accuracy != Accuracy::Fast {
        return Err("the accuracy asked for is not `Fast`".into());
    }
    without_planes(r, r.planes_to_copy(0), |r| {
        Ok(Kernel(Family::Winograd(Box::new(Winograd::of_views(r.shape, r.core, variant, r.views)?))))
    })
}

fn bf16x6(r: &Request<'_>) -> Result<Kernel, String> {
    if r.accuracy == Accuracy::Exact {
        return Err("the accuracy asked for is `Exact`".into());
    }
    if !r.is_dense() {
        return Err("rows, channels or images lie apart".into());
    }
    if r.core.level != Level::Avx512 {
        return Err(format!("takes level avx512, not {}", r.core.level));
    }
    let [input, output] = r.layouts();
    Ok(Kernel(Family::Bf16x6(Box::new(Bf16x6::new(r.shape, r.core, MatrixUnit::Amx, input, output)?))))
}

fn gemm(r: &Request<'_>) -> Result<Kernel, String> {
    Ok(Kernel(Family::Gemm(Box::new(Im2col::of_views(r.shape, r.core, r.views)))))
}

/// A kernel that is planned for one pass of a convolution: what a plan holds.
pub(crate) trait Planned: Sized {
    /// The pass.
    const PASS: Pass;

    /// The kernel of an algorithm, or why it does not do the shape.
    fn plan(algo: &Algo, request: &Request<'_>) -> Result<Self, String>;

    /// Predicted milliseconds on one thread of a core.
    fn predict(&self, algo: &'static str, core: Core, shape: &ConvShape) -> f64;

    /// Floats of packed weights.
    fn packed_len(&self) -> usize;

    /// For which magnitudes results are finite, if that is stated.
    fn stated_range(&self) -> Option<FiniteRange> {
        None
    }
}

/// A kernel that reads packed weights.
pub(crate) trait Packs: Planned {
    /// Packs the weights of this shape, in PyTorch's order.
    fn pack_weights(&self, shape: &ConvShape, w: &[f32], packed: &mut [f32], executor: &dyn Executor);
}

impl Planned for Kernel {
    const PASS: Pass = Pass::Forward;

    fn plan(algo: &Algo, request: &Request<'_>) -> Result<Self, String> {
        (algo.plan)(request)
    }

    fn predict(&self, algo: &'static str, core: Core, shape: &ConvShape) -> f64 {
        match &self.0 {
            Family::Blocks(k) => k.predict(algo, core, shape),
            _ => predict(algo, core, &Work::new(core, shape, self)) * scattered(algo, shape, shape.icg()),
        }
    }

    fn packed_len(&self) -> usize {
        Kernel::packed_len(self)
    }

    fn stated_range(&self) -> Option<FiniteRange> {
        Some(self.finite_range())
    }
}

impl Packs for Kernel {
    fn pack_weights(&self, shape: &ConvShape, w: &[f32], packed: &mut [f32], executor: &dyn Executor) {
        self.pack(&Weights::forward(shape, w), packed, executor);
    }
}

/// How much longer register tiles take that read so many channels of a group from planes, row `stem`: those of a pixel lie a plane apart,
/// which the taps of a row do not. On a Zen 3 a 1x1 convolution of 256 channels takes 2.4 times as long as from blocks, 3x3 ones up to 1.3
/// times, and the data gradient of a first layer 1.4 times.
fn scattered(algo: &str, shape: &ConvShape, channels: usize) -> f64 {
    if algo == "stem" && channels >= BLOCK { 1.0 + (1.4 / (shape.kh * shape.kw) as f64).max(0.3) } else { 1.0 }
}

/// A float that a depthwise convolution copies to or from blocks takes as long as so many that it only reads or writes (Zen 4, 96
/// channels at 112x112: 0.2 ms without copies, 0.5 with copies of the input, 0.8 with both).
const COPY: usize = 5;

/// Floats of two tensors as they count, where those that are copied weigh more.
fn copied(tensors: [usize; 2], copies: [bool; 2]) -> [usize; 2] {
    core::array::from_fn(|i| if copies[i] { tensors[i].saturating_mul(COPY) } else { tensors[i] })
}

/// A planned algorithm.
#[derive(Clone, Debug)]
pub struct Kernel(Family);

/// Whose kernels it runs.
#[derive(Clone, Debug)]
enum Family {
    /// Rows `direct` and `stem`.
    Direct(Box<Direct>),
    /// Row `depthwise`.
    Depthwise(Box<Depthwise>),
    /// Row `planar`.
    Planar(Box<Planar>),
    /// Rows `winograd2`, `winograd4` and `winograd6`.
    Winograd(Box<Winograd>),
    /// Row `bf16x6`.
    Bf16x6(Box<Bf16x6>),
    /// Row `gemm`.
    Gemm(Box<Im2col>),
    /// Another family's, on copies in blocks.
    Blocks(Box<InBlocks<Kernel>>),
}

impl Kernel {
    /// Name of the microkernel that does most of the work.
    pub fn name(&self) -> &'static str {
        match &self.0 {
            Family::Direct(k) => k.kernel(),
            Family::Depthwise(k) => k.kernel(),
            Family::Planar(k) => k.kernel(),
            Family::Winograd(k) => k.kernel(),
            Family::Bf16x6(k) => k.kernel(),
            Family::Gemm(k) => k.kernel(),
            Family::Blocks(k) => k.kernel().name(),
        }
    }

    /// Floats of packed weights.
    pub fn packed_len(&self) -> usize {
        match &self.0 {
            Family::Direct(k) => k.packed_len(),
            Family::Depthwise(k) => k.packed_len(),
            Family::Planar(k) => k.packed_len(),
            Family::Winograd(k) => k.packed_len(),
            Family::Bf16x6(k) => k.packed_len(),
            Family::Gemm(k) => k.packed_len(),
            Family::Blocks(k) => k.kernel().packed_len(),
        }
    }

    /// Floats of scratch for a number of threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        let per_thread = match &self.0 {
            Family::Direct(k) => k.scratch_len(),
            Family::Depthwise(k) => k.scratch_len(),
            Family::Planar(_) => 0,
            Family::Winograd(k) => k.scratch_len(),
            Family::Bf16x6(k) => k.scratch_len(),
            Family::Gemm(k) => k.scratch_len(),
            Family::Blocks(k) => return k.scratch_len(threads),
        };
        per_thread.saturating_mul(threads)
    }

    /// Inputs and outputs as they count: in floats that Winograd makes of them, or of these, each as often as a copy weighs.
    pub(crate) fn transformed(&self, tensors: [usize; 2]) -> [usize; 2] {
        match &self.0 {
            Family::Winograd(k) => k.transformed(),
            Family::Depthwise(k) => copied(tensors, k.copies()),
            Family::Blocks(k) => k.kernel().transformed(tensors),
            _ => tensors,
        }
    }

    /// Multiply-adds done per multiply-add of the shape that has its tap inside the image; less than 1 for Winograd.
    pub fn waste(&self, shape: &ConvShape) -> f64 {
        match &self.0 {
            Family::Direct(k) => k.waste(),
            Family::Depthwise(_) => 1.0,
            Family::Planar(k) => k.waste(),
            Family::Winograd(k) => k.macs() as f64 / shape.macs_inside().max(1) as f64,
            Family::Bf16x6(k) => k.macs() as f64 / shape.macs_inside().max(1) as f64,
            Family::Gemm(k) => k.waste(),
            Family::Blocks(k) => k.kernel().waste(&k.shape(shape)),
        }
    }

    /// For which magnitudes results are finite wherever the defining sum is.
    pub fn finite_range(&self) -> FiniteRange {
        match &self.0 {
            Family::Direct(_) | Family::Depthwise(_) | Family::Planar(_) | Family::Gemm(_) => FiniteRange::PLAIN,
            Family::Winograd(k) => k.variant().finite_range(),
            Family::Bf16x6(_) => swath_kernels::bf16x6::finite_range(),
            Family::Blocks(k) => k.kernel().finite_range(),
        }
    }

    pub(crate) fn pack(&self, w: &Weights<'_>, packed: &mut [f32], executor: &dyn Executor) {
        match &self.0 {
            Family::Direct(k) => k.pack_from(w, packed, executor),
            Family::Depthwise(k) => k.pack_from(w, packed),
            Family::Planar(k) => k.pack_from(w, packed),
            Family::Winograd(k) => k.pack_from(w, packed, executor),
            Family::Bf16x6(k) => k.pack_from(w, packed, executor),
            Family::Gemm(k) => k.pack_from(w, packed),
            Family::Blocks(k) => k.kernel().pack(w, packed, executor),
        }
    }

    pub(crate) fn forward<'y>(
        &self,
        x: &[f32],
        packed: &[f32],
        epilogue: &Epilogue<'_>,
        y: Outputs<'y>,
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) -> &'y mut [f32] {
        match &self.0 {
            Family::Direct(k) => k.forward(x, packed, epilogue, y, scratch, executor),
            Family::Depthwise(k) => k.forward(x, packed, epilogue, y, scratch, executor),
            Family::Planar(k) => k.forward(x, packed, epilogue, y, executor),
            Family::Winograd(k) => k.forward(x, packed, epilogue, y, scratch, executor),
            Family::Bf16x6(k) => k.forward(x, packed, epilogue, y, scratch, executor),
            Family::Gemm(k) => k.forward(x, packed, epilogue, y, scratch, executor),
            Family::Blocks(k) => k.run(x, packed, epilogue, y, scratch, executor),
        }
    }
}

impl Runs for Kernel {
    const READS: usize = 0;

    fn scratch_len(&self, threads: usize) -> usize {
        Kernel::scratch_len(self, threads)
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
        self.forward(x, packed, epilogue, y, scratch, executor)
    }
}
