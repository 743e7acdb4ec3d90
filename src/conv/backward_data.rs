//! Plans of data gradients and transposed convolution.

use swath_kernels::isa::Level;
use swath_kernels::shape::ConvShape;

use super::{Candidate, Choice, Epilogue, Explanation, Options, PackedWeights, Scratch, WeightsKey, packing_ms};
use crate::algo::DataKernel;
use crate::error::{Result, check_len};
use crate::par;

/// A planned gradient at a convolution's input.
///
/// Shape and options are those of the convolution: `dy` has the layout of its output, `dx` that of its input. Every
/// geometry has a plan.
///
/// ```
/// use swath::{ConvBackwardData, ConvShape, Options, Scratch};
///
/// let shape = ConvShape::builder([1, 3, 32, 32], [16, 3, 3, 3]).padding(1).stride(2).build()?;
/// let plan = ConvBackwardData::new(&shape, &Options::default())?;
/// let weights = plan.pack(&vec![0.1; 16 * 3 * 3 * 3])?;
///
/// let (dy, mut dx) = (vec![1.0; 16 * 16 * 16], vec![0.0; 3 * 32 * 32]);
/// plan.run(&dy, &weights, &mut dx, &mut Scratch::default())?;
/// assert!((dx[0] - 1.6).abs() < 1e-5); // one tap of 0.1 from each of 16 channels
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConvBackwardData(Choice<DataKernel>);

impl ConvBackwardData {
    /// Plans. Never times anything.
    ///
    /// # Errors
    /// For a level that this machine lacks, and an algorithm that is unknown or does not support the shape.
    pub fn new(shape: &ConvShape, options: &Options) -> Result<Self> {
        Choice::new(shape, options).map(Self)
    }

    /// The same gradient of `n` images, by the same algorithm, as [`ConvPlan::with_batch`](crate::ConvPlan::with_batch).
    ///
    /// # Errors
    /// As there.
    pub fn with_batch(&self, n: usize) -> Result<Self> {
        self.0.with_batch(n).map(Self)
    }

    /// What packed weights must have been packed for to serve this plan.
    pub fn weights_key(&self) -> WeightsKey {
        WeightsKey::new(&self.0)
    }

    /// The geometry of the convolution.
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
    }

    /// Floats of scratch that [`ConvBackwardData::run`] takes from its [`Scratch`] when run on `threads` threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        self.0.kernel.scratch_len(threads)
    }

    /// Packs the convolution's weights `[oc, ic / groups, kh, kw]` (PyTorch's order) for this plan.
    ///
    /// # Errors
    /// For a wrong length, and [`Error::Memory`](crate::Error::Memory).
    pub fn pack(&self, w: &[f32]) -> Result<PackedWeights> {
        let mut packed = PackedWeights::zeros(self.weights_key())?;
        self.repack(w, &mut packed)?;
        Ok(packed)
    }

    /// Packs other weights in place of what [`ConvBackwardData::pack`] made, without asking for memory: weights that
    /// are trained change every step.
    ///
    /// # Errors
    /// For a wrong length, and weights that were packed for something else.
    pub fn repack(&self, w: &[f32], packed: &mut PackedWeights) -> Result<()> {
        check_len("the weights", w.len(), self.0.shape.weights().iter().product())?;
        packed.check(self.weights_key())?;
        let executor = par::executor(self.0.options.threads, packing_ms(packed.data.len()));
        self.0.kernel.pack(w, &mut packed.data, &*executor);
        Ok(())
    }

    /// Packs weights for one run, in memory that the scratch lends until [`Scratch::give_back`], as
    /// [`ConvPlan::pack_once`](crate::ConvPlan::pack_once).
    ///
    /// # Errors
    /// As [`ConvBackwardData::pack`].
    pub fn pack_once(&self, w: &[f32], scratch: &mut Scratch) -> Result<PackedWeights> {
        let mut packed = PackedWeights::lent(self.weights_key(), scratch)?;
        self.repack(w, &mut packed)?;
        Ok(packed)
    }

    /// Floats of packed weights.
    pub(crate) fn packed_len(&self) -> usize {
        self.0.kernel.packed_len()
    }

    /// Computes the gradient `dx` at the input from the gradient `dy` at the output.
    ///
    /// Channels that pad a blocked `dx` become zero. The result is the same bits for any number of threads.
    ///
    /// # Errors
    /// For wrong lengths, and weights that were packed for something else; never otherwise.
    pub fn run(&self, dy: &[f32], weights: &PackedWeights, dx: &mut [f32], scratch: &mut Scratch) -> Result<()> {
        self.transposed(dy, weights, Epilogue::none(), dx, scratch)
    }

    /// Computes the transposed convolution `y = activation(x * weights + bias + residual)`, where `x` is what the
    /// convolution would put out, and `y` what it would take in: the bias has one float for each of its input channels.
    ///
    /// # Errors
    /// As for [`ConvBackwardData::run`].
    pub fn transposed(
        &self,
        x: &[f32],
        weights: &PackedWeights,
        epilogue: Epilogue<'_>,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Choice { shape: s, options: o, kernel, .. } = &self.0;
        let y_len = o.input.len(s.input());
        check_len("the gradient at the output", x.len(), o.output.len(s.output()))?;
        check_len("the gradient at the input", y.len(), y_len)?;
        check_len("the bias", epilogue.bias.map_or(s.ic, <[f32]>::len), s.ic)?;
        check_len("the residual", epilogue.residual.map_or(y_len, <[f32]>::len), y_len)?;
        weights.check(self.weights_key())?;
        let executor = par::executor(o.threads, self.0.predicted);
        let scratch = scratch.take(kernel.scratch_len(executor.threads()))?;
        kernel.run(x, &weights.data, &epilogue, y, scratch, &*executor);
        Ok(())
    }
}
