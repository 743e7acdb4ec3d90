//! Convolution plans: a shape, a pass, an algorithm, packed weights.
//!
//! [`ConvPlan`] computes a convolution, [`ConvBackwardData`] the gradient at its input (and transposed convolution),
//! [`ConvBackwardWeights`] the gradients at its weights and bias. The same shape and options do for all three.
//!
//! Plan once, run often. A plan picks an algorithm from [`ALGOS`](crate::algo::ALGOS): the one that the
//! caller asks for, else the one that a tuning table measured as the fastest ([`tune`](crate::tune)), else the one that the cost
//! model predicts to be fastest. It never times anything.
//!
//! ```
//! use swath::{Activation, ConvPlan, ConvShape, Epilogue, Options, Scratch};
//!
//! let shape = ConvShape::builder([1, 3, 32, 32], [16, 3, 3, 3]).padding(1).build()?;
//! let plan = ConvPlan::new(&shape, &Options::default())?;
//! let weights = plan.pack(&vec![0.1; 16 * 3 * 3 * 3])?;
//!
//! let (x, bias) = (vec![1.0; 3 * 32 * 32], vec![-1.0; 16]);
//! let mut y = vec![0.0; 16 * 32 * 32];
//! plan.forward(&x, &weights, Epilogue::bias(&bias).relu(), &mut y, &mut Scratch::default())?;
//! assert!((y[33] - 1.7).abs() < 1e-5); // 27 taps of 0.1, minus 1
//! println!("{}", plan.explain());
//! # Ok::<(), swath::Error>(())
//! ```

mod backward_data;
mod backward_weights;
mod choice;

use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::Weights;

use crate::algo::{self, Accuracy, Kernel, Pass, Work};
use crate::buffer::Buffer;
use crate::error::{Error, Result, check_len};
use crate::par;
use crate::tune::Tuning;

pub use backward_data::ConvBackwardData;
pub use backward_weights::ConvBackwardWeights;
use choice::Choice;
pub use choice::{Candidate, Explanation};
pub use swath_kernels::epilogue::Epilogue;
pub use swath_kernels::finite::FiniteRange;

/// How a plan is made. The default is NCHW in and out, the machine's level, the tuned or else the modelled choice, and
/// all threads of where a run is called from ([`par`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Layout of the input.
    pub input: Layout,
    /// Layout of the output, and of a residual.
    pub output: Layout,
    /// Level to take kernels from; `None` is the machine's, lowered by `SWATH_LEVEL`.
    pub level: Option<Level>,
    /// Name of the algorithm, from [`ALGOS`](crate::algo::ALGOS); `None` lets the plan choose.
    pub algo: Option<String>,
    /// How much rounding error is acceptable. A named algorithm that is less accurate is refused.
    pub accuracy: Accuracy,
    /// Most threads of a run; `None` is all of the current rayon pool's, and outside of one the process's ([`par`]); `Some(1)`
    /// is the calling thread alone.
    pub threads: Option<usize>,
    /// Measurements to choose by; the default is the user's tuning file, then the table that ships with this crate.
    pub tuning: Tuning,
}

impl Options {
    /// Blocked activations in and out, as inside a model.
    pub fn blocked() -> Self {
        Self { input: Layout::Blocked, output: Layout::Blocked, ..Self::default() }
    }

    /// The layouts that a model uses for this shape: blocked, but NCHW input where it has fewer channels than a block.
    pub fn inside_model(shape: &ConvShape) -> Self {
        let stem = shape.ic < swath_kernels::layout::BLOCK;
        Self { input: if stem { Layout::Nchw } else { Layout::Blocked }, ..Self::blocked() }
    }
}

/// About how many milliseconds it takes one thread to pack so many floats: a nanosecond each.
fn packing_ms(floats: usize) -> f64 {
    floats as f64 / 1e6
}

/// Memory that runs of any plans may use and reuse; it grows to the largest plan's need and stays.
#[derive(Debug, Default)]
pub struct Scratch {
    floats: Buffer,
    /// For weights that are packed for one run.
    packed: Buffer,
}

impl Scratch {
    /// No memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for `len` floats, so that [`Scratch::take`] cannot fail for as many.
    pub(crate) fn reserve(&mut self, len: usize) -> Result<()> {
        if self.floats.len() < len {
            self.floats = core::mem::take(&mut self.floats).with_len(len)?;
        }
        Ok(())
    }

    /// Makes room for so many floats of packed weights, so that [`ConvPlan::pack_once`] and the like need no more memory.
    pub(crate) fn reserve_packed(&mut self, len: usize) -> Result<()> {
        let packed = core::mem::take(&mut self.packed);
        self.packed = if packed.len() < len { packed.with_len(len)? } else { packed };
        Ok(())
    }

    /// Gives the memory of weights that were packed for one run back.
    pub(crate) fn give_back(&mut self, packed: PackedWeights) {
        self.packed = packed.data;
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&mut [f32]> {
        self.reserve(len)?;
        Ok(&mut self.floats[..len])
    }
}

/// Weights in the order that one plan's kernels read them. Made by [`ConvPlan::pack`]; any plan of the same weight
/// extents, groups, pass, algorithm, level and layouts can use them; of data gradients, of the same geometry.
#[derive(Clone, Debug)]
pub struct PackedWeights {
    data: Buffer,
    key: PackKey,
}

impl PackedWeights {
    fn new<K>(choice: &Choice<K>, len: usize) -> Result<Self> {
        Ok(Self { data: Buffer::zeros(len)?, key: PackKey::new(choice, len) })
    }

    /// In memory that a scratch lends.
    fn lent<K>(choice: &Choice<K>, len: usize, scratch: &mut Scratch) -> Result<Self> {
        let mut data = core::mem::take(&mut scratch.packed).with_len(len)?;
        if cfg!(debug_assertions) {
            // Whatever packing leaves unwritten shows.
            data.fill(f32::NAN);
        }
        Ok(Self { data, key: PackKey::new(choice, len) })
    }

    /// A copy.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { data: self.data.copied()?, key: self.key })
    }

    /// # Errors
    /// If they were packed for something else than this plan.
    fn check<K>(&self, choice: &Choice<K>, len: usize) -> Result<()> {
        let key = PackKey::new(choice, len);
        if self.key == key {
            return Ok(());
        }
        Err(Error::Weights { packed: format!("{:?}", self.key), expected: format!("{key:?}") })
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }
}

/// What the order of packed weights depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct PackKey {
    pass: Pass,
    algo: &'static str,
    weights: [usize; 4],
    groups: usize,
    /// Of a data gradient: what its phases depend on.
    phases: Option<([usize; 4], [usize; 4], [usize; 4])>,
    level: Level,
    layouts: [Layout; 2],
    len: usize,
}

impl PackKey {
    fn new<K>(choice: &Choice<K>, len: usize) -> Self {
        let Choice { pass, shape: s, options, level, algo, .. } = choice;
        let phases = || ([s.sh, s.sw, s.dh, s.dw], [s.pad.top, s.pad.left, s.ih, s.iw], s.output());
        Self {
            pass: *pass,
            algo,
            weights: s.weights(),
            groups: s.groups,
            phases: (*pass == Pass::BackwardData).then(phases),
            level: *level,
            layouts: [options.input, options.output],
            len,
        }
    }
}

/// A planned convolution.
#[derive(Clone, Debug)]
pub struct ConvPlan(Choice<Kernel>);

impl ConvPlan {
    /// Plans. Never times anything.
    ///
    /// # Errors
    /// For a level that this machine lacks, and an algorithm that is unknown or does not support the shape.
    pub fn new(shape: &ConvShape, options: &Options) -> Result<Self> {
        let predict = |algo, level, kernel: &Kernel| algo::predict(algo, level, &Work::new(shape, kernel));
        Ok(Self(Choice::new(Pass::Forward, shape, options, |algo, request| (algo.plan)(request), predict)?))
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.0.shape
    }

    /// The options that the plan was made with.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// The instruction-set level.
    pub fn level(&self) -> Level {
        self.0.level
    }

    /// Name of the chosen algorithm, from [`ALGOS`](crate::algo::ALGOS).
    pub fn algo(&self) -> &'static str {
        self.0.algo
    }

    /// Name of the microkernel that does most of the work.
    pub fn kernel(&self) -> &'static str {
        self.0.kernel.name()
    }

    /// Every algorithm, with its prediction or why it does not support the shape.
    pub fn candidates(&self) -> &[Candidate] {
        &self.0.candidates
    }

    /// What was chosen, from which candidates, and why.
    pub fn explain(&self) -> Explanation<'_> {
        let kernel = &self.0.kernel;
        Explanation::new(&self.0, kernel.name(), [kernel.packed_len(), kernel.scratch_len(1)])
            .within(self.finite_range())
    }

    /// Floats of scratch that [`ConvPlan::forward`] takes from its [`Scratch`] when run on `threads` threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        self.0.kernel.scratch_len(threads)
    }

    /// For which magnitudes of inputs and weights the result is finite wherever the sum that defines it is. With [`Accuracy::Exact`]
    /// that is all of them.
    ///
    /// ```
    /// use swath::{Accuracy, ConvPlan, ConvShape, Options};
    /// let shape = ConvShape::builder([1, 64, 56, 56], [64, 64, 3, 3]).padding(1).build()?;
    /// let plan = ConvPlan::new(&shape, &Options { accuracy: Accuracy::Exact, ..Options::blocked() })?;
    /// assert_eq!(plan.finite_range().input, f32::MAX);
    /// # Ok::<(), swath::Error>(())
    /// ```
    pub fn finite_range(&self) -> FiniteRange {
        self.0.kernel.finite_range()
    }

    /// Packs weights `[oc, ic / groups, kh, kw]` (PyTorch's order) for this plan.
    ///
    /// # Errors
    /// For a wrong length, and [`Error::Memory`].
    pub fn pack(&self, w: &[f32]) -> Result<PackedWeights> {
        let mut packed = PackedWeights::new(&self.0, self.0.kernel.packed_len())?;
        self.repack(w, &mut packed)?;
        Ok(packed)
    }

    /// Packs other weights in place of what [`ConvPlan::pack`] made, without asking for memory: weights that are trained change
    /// every step.
    ///
    /// # Errors
    /// For a wrong length, and weights that were packed for something else.
    pub fn repack(&self, w: &[f32], packed: &mut PackedWeights) -> Result<()> {
        check_len("the weights", w.len(), self.0.shape.weights().iter().product())?;
        packed.check(&self.0, self.0.kernel.packed_len())?;
        let executor = par::executor(self.0.options.threads, packing_ms(packed.data.len()));
        self.0.kernel.pack(&Weights::forward(&self.0.shape, w), &mut packed.data, &*executor);
        Ok(())
    }

    /// Packs weights for one run, in memory that the scratch lends until [`Scratch::give_back`]: weights that are trained
    /// change every step, and Winograd's take four times as much memory as they do.
    pub(crate) fn pack_once(&self, w: &[f32], scratch: &mut Scratch) -> Result<PackedWeights> {
        let mut packed = PackedWeights::lent(&self.0, self.packed_len(), scratch)?;
        self.repack(w, &mut packed)?;
        Ok(packed)
    }

    /// Floats of packed weights.
    pub(crate) fn packed_len(&self) -> usize {
        self.0.kernel.packed_len()
    }

    /// Runs the convolution: `y = activation(conv(x, weights) + bias + residual)`.
    ///
    /// `x` and `y` are in the layouts of the plan's options; channels that pad a blocked output become zero. The
    /// result is the same bits for any number of threads.
    ///
    /// # Errors
    /// For wrong lengths, for weights that were packed for something else, and [`Error::Memory`] where the scratch has to
    /// grow and cannot; never otherwise.
    pub fn forward(
        &self,
        x: &[f32],
        weights: &PackedWeights,
        epilogue: Epilogue<'_>,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Choice { shape: s, options: o, kernel, .. } = &self.0;
        let y_len = o.output.len(s.output());
        check_len("the input", x.len(), o.input.len(s.input()))?;
        check_len("the output", y.len(), y_len)?;
        check_len("the bias", epilogue.bias.map_or(s.oc, <[f32]>::len), s.oc)?;
        check_len("the residual", epilogue.residual.map_or(y_len, <[f32]>::len), y_len)?;
        weights.check(&self.0, kernel.packed_len())?;
        let executor = par::executor(o.threads, self.0.predicted);
        let scratch = scratch.take(kernel.scratch_len(executor.threads()))?;
        kernel.forward(x, &weights.data, &epilogue, y, scratch, &*executor);
        Ok(())
    }
}
