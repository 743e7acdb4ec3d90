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

mod backward_bias;
mod backward_data;
mod backward_weights;
mod cache;
mod candidates;
mod choice;
mod matmul;
mod methods;
mod packed;
#[cfg(feature = "nn")]
mod separable;

use core::cell::Cell;

use core::mem::MaybeUninit;

use swath_kernels::isa::Level;
use swath_kernels::layout::{Layout, Pitches};
use swath_kernels::machine::Core;
use swath_kernels::setters;
use swath_kernels::shape::ConvShape;

use crate::algo::{Accuracy, Kernel};
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::layout::Held;
use crate::tuning::Tuning;

pub use backward_bias::ConvBackwardBias;
pub use backward_data::ConvBackwardData;
pub use backward_weights::ConvBackwardWeights;
pub use cache::PlanCache;
pub use candidates::Candidate;
use choice::Choice;
pub use choice::Explanation;
pub use matmul::MatMul;
use methods::{packing_methods, plan_methods};
pub use packed::{PackedWeights, WeightsKey};
#[cfg(feature = "nn")]
pub(crate) use separable::SeparablePlan;
pub use swath_kernels::epilogue::Epilogue;
pub use swath_kernels::finite::FiniteRange;

/// How a plan is made. The default is NCHW in and out, the machine's level, the tuned or else the modelled choice, and
/// all threads of where a run is called from ([`par`](crate::par)).
///
/// More options may come: build on the default, by methods or by `..Options::default()`.
///
/// ```
/// use swath::{Accuracy, ConvPlan, ConvShape, Layout, Options};
/// let shape = ConvShape::builder([1, 64, 14, 14], [64, 64, 3, 3]).padding(1).build()?;
/// let options = Options::default().layouts(Layout::Nchw, Layout::Blocked).accuracy(Accuracy::Exact).threads(1);
/// assert_eq!(options, Options { accuracy: Accuracy::Exact, threads: Some(1), output: Layout::Blocked, ..Options::default() });
/// assert_eq!(ConvPlan::new(&shape, &options.algo("gemm"))?.algo(), "gemm");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[must_use]
pub struct Options {
    /// Layout of the input.
    pub input: Layout,
    /// Layout of the output, and of a residual.
    pub output: Layout,
    /// How the input lies in memory, and the gradient there, if its rows, channels or images do not follow each other: a view of a larger
    /// tensor.
    pub input_pitches: Option<Pitches>,
    /// The same of the output, of a residual, and of the gradient at the output.
    pub output_pitches: Option<Pitches>,
    /// Level to take kernels from; `None` is the machine's, lowered by `SWATH_LEVEL`.
    pub level: Option<Level>,
    /// Name of the algorithm, from [`ALGOS`](crate::algo::ALGOS); `None` lets the plan choose.
    pub algo: Option<String>,
    /// How much rounding error is acceptable. A named algorithm that is less accurate is refused.
    pub accuracy: Accuracy,
    /// Most threads of a run; `None` is all of the current rayon pool's, and outside of one the process's ([`par`](crate::par)); `Some(1)`
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

    /// With these layouts of input and output.
    pub fn layouts(self, input: Layout, output: Layout) -> Self {
        Self { input, output, ..self }
    }

    /// With an input, and an output, that are parts of larger tensors: rows, channels and images lie so far apart, and so do those of
    /// the gradients there. Kernels read and write them where they lie; `bf16x6` alone does not. Slices begin at the first element and
    /// may go on behind the last one; what lies between elements of what is written stays as it is. Plans of convolution, of
    /// [`pool`](crate::pool) and of their gradients take them, others refuse.
    ///
    /// ```
    /// use swath::{ConvPlan, ConvShape, Epilogue, Options, Pitches, Scratch};
    /// // The window of 4x4 in the middle of pictures of 3 channels of 6x6, into channels 8 to 11 of 16.
    /// let shape = ConvShape::builder([2, 3, 4, 4], [4, 3, 1, 1]).build()?;
    /// let window = Pitches { image: 3 * 36, channel: 36, row: 6 };
    /// let among = Pitches { image: 16 * 16, channel: 16, row: 4 };
    /// let plan = ConvPlan::new(&shape, &Options::default().pitches(Some(window), Some(among)))?;
    /// let (x, mut y) = (vec![1.0; 2 * 3 * 36], vec![0.0; 2 * 16 * 16]);
    /// plan.forward(&x[6 + 1..], &plan.pack(&[0.5; 12])?, Epilogue::none(), &mut y[8 * 16..], &mut Scratch::new())?;
    /// assert_eq!((y[127], y[128], y[191], y[192]), (0.0, 1.5, 1.5, 0.0));
    /// # Ok::<(), swath::Error>(())
    /// ```
    pub fn pitches(self, input: Option<Pitches>, output: Option<Pitches>) -> Self {
        Self { input_pitches: input, output_pitches: output, ..self }
    }

    /// With the algorithm of this name, from [`ALGOS`](crate::algo::ALGOS).
    pub fn algo(self, name: impl Into<String>) -> Self {
        Self { algo: Some(name.into()), ..self }
    }

    /// The layouts that a model uses for this shape: blocked, but NCHW input where it has fewer channels than a block.
    pub fn inside_model(shape: &ConvShape) -> Self {
        let stem = shape.ic < swath_kernels::layout::BLOCK;
        Self { input: if stem { Layout::Nchw } else { Layout::Blocked }, ..Self::blocked() }
    }
}

setters!(Options {
    /// With kernels of this level, at most the machine's.
    level: Level,
    /// With this much rounding error.
    accuracy: Accuracy,
    /// On at most so many threads.
    threads: usize,
    /// With these measurements to choose by.
    tuning: Tuning,
});

/// The one layout of a plan of dense tensors whose input and output have the same, and the level that its options say.
pub(crate) fn one_layout(options: &Options) -> Result<(Layout, Level)> {
    Ok((same_layout(options)?, dense_level(options)?))
}

/// The one layout of a plan whose input and output have the same.
pub(crate) fn same_layout(options: &Options) -> Result<Layout> {
    if options.input != options.output {
        let rule = format!("the input's is {}, and this has one for both", options.input.name());
        return Err(Error::Setting { what: "the output's layout", value: options.output.name().into(), rule });
    }
    Ok(options.input)
}

/// How input and output of these extents lie by these options.
pub(crate) fn held([input, output]: [[usize; 4]; 2], options: &Options) -> Result<[Held; 2]> {
    Ok([
        Held::new("the input's pitch", options.input, input, options.input_pitches)?,
        Held::new("the output's pitch", options.output, output, options.output_pitches)?,
    ])
}

/// The level that options say of a plan whose tensors are dense.
pub(crate) fn dense_level(options: &Options) -> Result<Level> {
    if let Some(p) = options.input_pitches.or(options.output_pitches) {
        let rule = "this plan takes dense tensors alone, without any".into();
        return Err(Error::Setting { what: "the pitch of rows", value: p.row.to_string(), rule });
    }
    level(options)
}

/// The core that options say: this machine's, at their level.
pub(crate) fn core(options: &Options) -> Result<Core> {
    level(options).map(Core::here)
}

/// The level that options say.
pub(crate) fn level(options: &Options) -> Result<Level> {
    let cpu = crate::cpu()?;
    Ok(options.level.map_or(Ok(cpu), |level| cpu.lowered(level))?.level)
}

/// Memory that runs of any plans may use and reuse; it grows to the largest plan's need and stays.
///
/// One thread uses it at a time: whoever calls plans from several threads has one for each.
///
/// ```
/// use swath::{ConvPlan, ConvShape, Epilogue, Options, Scratch};
/// let mut scratch = Scratch::new();
/// for size in [8, 16] {
///     let shape = ConvShape::builder([1, 4, size, size], [4, 4, 3, 3]).padding(1).build()?;
///     let plan = ConvPlan::new(&shape, &Options::default())?;
///     let (x, mut y) = (vec![1.0; 4 * size * size], vec![0.0; 4 * size * size]);
///     plan.forward(&x, &plan.pack(&[0.5; 4 * 4 * 9])?, Epilogue::none(), &mut y, &mut scratch)?;
///     assert_eq!(y[size + 1], 18.0);
/// }
/// # Ok::<(), swath::Error>(())
/// ```
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

    /// Runs `f` with the calling thread's scratch, which keeps its memory for the next time: for functions that have no place to keep one.
    /// It is taken out meanwhile, since a thread of a pool may come here again while it waits.
    ///
    /// ```
    /// use swath::{ConvPlan, ConvShape, Epilogue, Options, Scratch};
    /// let plan = ConvPlan::new(&ConvShape::builder([1, 1, 2, 2], [1, 1, 1, 1]).build()?, &Options::default())?;
    /// let (weights, mut y) = (plan.pack(&[2.0])?, [0.0; 4]);
    /// Scratch::of_thread(|scratch| plan.forward(&[1.0; 4], &weights, Epilogue::none(), &mut y, scratch))?;
    /// assert_eq!(y, [2.0; 4]);
    /// # Ok::<(), swath::Error>(())
    /// ```
    pub fn of_thread<R>(f: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static SCRATCH: Cell<Scratch> = Cell::default();
        }
        let mut scratch = SCRATCH.take();
        let result = f(&mut scratch);
        SCRATCH.set(scratch);
        result
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

    /// Gives the memory of weights that were packed for one run back ([`ConvPlan::pack_once`]).
    pub fn give_back(&mut self, packed: PackedWeights) {
        self.packed = packed.data;
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&mut [f32]> {
        self.reserve(len)?;
        Ok(&mut self.floats[..len])
    }
}

/// A planned convolution.
///
/// It holds no tensor: weights are packed once by [`ConvPlan::pack`], and run any number of times, from any threads.
///
/// ```
/// use swath::{Activation, ConvPlan, ConvShape, Epilogue, Options, Scratch};
///
/// // y = silu(conv(x) + bias + residual), of two pictures.
/// let shape = ConvShape::builder([2, 16, 8, 8], [16, 16, 3, 3]).padding(1).build()?;
/// let plan = ConvPlan::new(&shape, &Options::default())?;
/// let weights = plan.pack(&vec![0.01; 16 * 16 * 9])?;
/// let (x, bias) = (vec![1.0; 2 * 16 * 64], vec![0.25; 16]);
/// let epilogue = Epilogue { residual: Some(&x), activation: Activation::Silu, ..Epilogue::bias(&bias) };
/// let mut y = vec![0.0; 2 * 16 * 64];
/// plan.forward(&x, &weights, epilogue, &mut y, &mut Scratch::new())?;
/// let sum = 1.44f32 + 0.25 + 1.0;
/// assert!((y[9] - sum / (1.0 + (-sum).exp())).abs() < 1e-4);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConvPlan(Choice<Kernel>);

plan_methods!(ConvPlan);
packing_methods!(ConvPlan);

impl ConvPlan {
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
        let y = self.0.output.outputs("the output", y)?;
        self.0.run(x, weights, epilogue, y, scratch).map(|_| ())
    }

    /// The same into memory that holds nothing yet, such as a `Vec`'s spare capacity. Returns what it then holds.
    ///
    /// # Errors
    /// As [`ConvPlan::forward`], and for a plan whose output has gaps ([`Options::pitches`]), which stay unwritten.
    ///
    /// ```
    /// use core::mem::MaybeUninit;
    /// use swath::{ConvPlan, ConvShape, Epilogue, Options, Scratch};
    /// let plan = ConvPlan::new(&ConvShape::builder([1, 2, 4, 4], [3, 2, 1, 1]).build()?, &Options::default())?;
    /// let mut y = Box::new_uninit_slice(3 * 16);
    /// let weights = plan.pack(&[0.5; 6])?;
    /// let y = plan.forward_uninit(&[1.0; 2 * 16], &weights, Epilogue::none(), &mut y, &mut Scratch::new())?;
    /// assert_eq!(y, [1.0; 3 * 16]);
    /// # Ok::<(), swath::Error>(())
    /// ```
    pub fn forward_uninit<'y>(
        &self,
        x: &[f32],
        weights: &PackedWeights,
        epilogue: Epilogue<'_>,
        y: &'y mut [MaybeUninit<f32>],
        scratch: &mut Scratch,
    ) -> Result<&'y mut [f32]> {
        let y = self.0.output.unwritten("the output", y)?;
        self.0.run(x, weights, epilogue, y, scratch)
    }
}
