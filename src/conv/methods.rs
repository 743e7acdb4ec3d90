//! What plans of all passes have in common, so that it is written and documented once.

use swath_kernels::epilogue::{Epilogue, Outputs};
use swath_kernels::weights::Weights;

use super::{Choice, PackedWeights, Scratch, WeightsKey};
use crate::algo::{Packs, Pass, Run};
use crate::error::{Result, check_len};
use crate::par;

/// Methods of a plan that is a [`Choice`]. The names in them are those of where it is used.
macro_rules! plan_methods {
    ($plan:ident) => {
        impl $plan {
            /// Plans. Never times anything.
            ///
            /// # Errors
            /// For a level that this machine lacks, and an algorithm that is unknown or does not support the shape.
            pub fn new(shape: &ConvShape, options: &Options) -> Result<Self> {
                Choice::new(shape, options).map(Self)
            }

            /// The same of `n` images, by the same algorithm.
            ///
            /// Another batch may be served faster by another algorithm, which a new plan chooses. This takes a fraction of the time
            /// that choosing takes.
            ///
            /// # Errors
            /// For no images, for more than a tensor may hold, and where the algorithm does not do so many.
            ///
            /// ```
            #[doc = concat!("use swath::{ConvShape, Options, ", stringify!($plan), "};")]
            /// let shape = ConvShape::builder([1, 3, 8, 8], [4, 3, 3, 3]).padding(1).build()?;
            #[doc = concat!("let one = ", stringify!($plan), "::new(&shape, &Options::default())?;")]
            /// let many = one.with_batch(5)?;
            /// assert_eq!((many.algo(), many.shape().n), (one.algo(), 5));
            /// # Ok::<(), swath::Error>(())
            /// ```
            pub fn with_batch(&self, n: usize) -> Result<Self> {
                self.0.with_batch(n).map(Self)
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
                self.0.core.level
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
                Explanation::new(&self.0, self.kernel(), self.scratch_len(1))
            }

            /// Floats of scratch that a run takes from its [`Scratch`] on `threads` threads.
            pub fn scratch_len(&self, threads: usize) -> usize {
                self.0.kernel.scratch_len(threads)
            }
        }
    };
}

/// Methods of a plan that is a [`Choice`] whose kernel reads packed weights.
macro_rules! packing_methods {
    ($plan:ident) => {
        impl $plan {
            /// What packed weights must have been packed for to serve this plan. It is the same for any number of images.
            pub fn weights_key(&self) -> WeightsKey {
                WeightsKey::new(&self.0)
            }

            /// Packs the convolution's weights `[oc, ic / groups, kh, kw]` (PyTorch's order) for this plan.
            ///
            /// # Errors
            /// For a wrong length, and [`Error::Memory`](crate::Error::Memory).
            pub fn pack(&self, w: &[f32]) -> Result<PackedWeights> {
                self.0.pack(w)
            }

            /// Packs other weights in place of what [`pack`](Self::pack) made, without asking for memory: weights that are trained
            /// change every step.
            ///
            /// # Errors
            /// For a wrong length, and weights that were packed for something else.
            pub fn repack(&self, w: &[f32], packed: &mut PackedWeights) -> Result<()> {
                self.0.repack(w, packed)
            }

            /// Packs weights for one run, in memory that the scratch lends until [`Scratch::give_back`]: weights that are trained
            /// change every step, and Winograd's take four times as much memory as they do.
            ///
            /// # Errors
            /// As [`pack`](Self::pack).
            ///
            /// ```
            #[doc = concat!("use swath::{ConvShape, Options, Scratch, ", stringify!($plan), "};")]
            /// let shape = ConvShape::builder([1, 2, 4, 4], [3, 2, 1, 1]).build()?;
            #[doc = concat!("let plan = ", stringify!($plan), "::new(&shape, &Options::default())?;")]
            /// let mut scratch = Scratch::new();
            /// for step in 1..4 {
            ///     let weights = plan.pack_once(&[step as f32; 6], &mut scratch)?;
            ///     assert_eq!(weights.key(), plan.weights_key());
            ///     // Here the plan runs with them, and with the same scratch.
            ///     scratch.give_back(weights);
            /// }
            /// # Ok::<(), swath::Error>(())
            /// ```
            pub fn pack_once(&self, w: &[f32], scratch: &mut Scratch) -> Result<PackedWeights> {
                self.0.pack_once(w, scratch)
            }

            /// Floats of packed weights.
            pub(crate) fn packed_len(&self) -> usize {
                self.0.kernel.packed_len()
            }
        }
    };
}

pub(super) use {packing_methods, plan_methods};

impl<K: Packs> Choice<K> {
    /// Makes `y`, the output of a convolution, or the gradient at its input.
    pub fn run<'y>(
        &self,
        x: &[f32],
        weights: &PackedWeights,
        epilogue: Epilogue<'_>,
        y: Outputs<'y>,
        scratch: &mut Scratch,
    ) -> Result<&'y mut [f32]> {
        let Self { shape: s, input, output, kernel, .. } = self;
        let (x, epilogue) = match K::PASS {
            Pass::Forward => (input.floats("the input", x)?, output.epilogue(epilogue, s.oc)?),
            _ => (output.floats("the gradient at the output", x)?, input.epilogue(epilogue, s.ic)?),
        };
        weights.check(WeightsKey::new(self))?;
        let executor = par::executor(self.options.threads, self.predicted);
        let scratch = scratch.take(kernel.scratch_len(executor.threads()))?;
        Ok(kernel.run(Run { x, packed: &weights.data, epilogue: &epilogue, scratch, executor: &*executor }, y))
    }

    pub fn pack(&self, w: &[f32]) -> Result<PackedWeights> {
        let mut packed = PackedWeights::zeros(WeightsKey::new(self))?;
        self.repack(w, &mut packed)?;
        Ok(packed)
    }

    pub fn pack_once(&self, w: &[f32], scratch: &mut Scratch) -> Result<PackedWeights> {
        let mut packed = PackedWeights::lent(WeightsKey::new(self), scratch)?;
        self.repack(w, &mut packed)?;
        Ok(packed)
    }

    pub fn repack(&self, w: &[f32], packed: &mut PackedWeights) -> Result<()> {
        check_len("the weights", w.len(), self.shape.weights().iter().product())?;
        packed.check(WeightsKey::new(self))?;
        // About a nanosecond of one thread for each float.
        let executor = par::executor(self.options.threads, packed.data.len() as f64 / 1e6);
        self.kernel.pack(&Weights::forward(&self.shape, w), &mut packed.data, &*executor);
        Ok(())
    }
}
