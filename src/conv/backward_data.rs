//! Plans of data gradients and transposed convolution.

use swath_kernels::isa::Level;
use swath_kernels::shape::ConvShape;

use super::{Candidate, Choice, Epilogue, Explanation, Options, PackedWeights, Scratch, WeightsKey};
use super::{packing_methods, plan_methods};
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

plan_methods!(ConvBackwardData);
packing_methods!(ConvBackwardData);

impl ConvBackwardData {
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
