//! Two convolutions that run as one, by strips of rows: a depthwise one, and the 1x1 convolution of its result.

use swath_kernels::layout::Layout;
use swath_kernels::separable::Separable;

use super::{ConvPlan, Epilogue, PackedWeights, Scratch, WeightsKey};
use crate::error::{Result, check_len};
use crate::par;

/// A depthwise separable convolution, planned from the plans of its two parts, whose packed weights it reads.
#[derive(Clone, Debug)]
pub(crate) struct SeparablePlan {
    kernel: Separable,
    keys: [WeightsKey; 2],
    /// Lengths of input, bias and output.
    lengths: [usize; 3],
    threads: Option<usize>,
    predicted: f64,
}

impl SeparablePlan {
    /// Where both parts run by the algorithms that go together, and what lies between them does not stay in the cache.
    pub fn new(depthwise: &ConvPlan, pointwise: &ConvPlan) -> Option<Self> {
        let [first, second] = [&depthwise.0, &pointwise.0];
        let alike = first.core == second.core && first.options.threads == second.options.threads;
        if !alike || (first.algo, second.algo) != ("depthwise", "direct") {
            return None;
        }
        let blocked = [first, second]
            .iter()
            .all(|c| [c.input, c.output].iter().all(|held| held.view().layout() == Layout::Blocked));
        let threads = par::width(second.options.threads);
        let kernel = Separable::new([&first.shape, &second.shape], first.core, threads).ok().filter(|_| blocked)?;
        let [input, output] = [first.input, second.output].map(|held| held.view().len());
        Some(Self {
            kernel,
            keys: [depthwise, pointwise].map(ConvPlan::weights_key),
            lengths: [input, second.shape.oc, output],
            threads: second.options.threads,
            predicted: first.predicted + second.predicted,
        })
    }

    /// Floats of scratch on so many threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        self.kernel.scratch_len().saturating_mul(threads)
    }

    /// Runs both: the result has the same bits as that of the two plans.
    ///
    /// # Errors
    /// As [`ConvPlan::forward`].
    pub fn forward(
        &self,
        x: &[f32],
        weights: [&PackedWeights; 2],
        epilogues: [Epilogue<'_>; 2],
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let [input, bias, output] = self.lengths;
        check_len("the input", x.len(), input)?;
        check_len("the bias", epilogues[1].bias.map_or(bias, <[f32]>::len), bias)?;
        check_len("the residual", epilogues[1].residual.map_or(output, <[f32]>::len), output)?;
        check_len("the output", y.len(), output)?;
        for (weights, key) in weights.iter().zip(self.keys) {
            weights.check(key)?;
        }
        let executor = par::executor(self.threads, self.predicted);
        let scratch = scratch.take(self.scratch_len(executor.threads()))?;
        let packed = weights.map(|w| &w.data[..]);
        self.kernel.forward(x, packed, epilogues, y.into(), scratch, &*executor);
        Ok(())
    }
}
