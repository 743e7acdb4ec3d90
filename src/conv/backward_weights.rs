//! Plans of weight gradients.

use core::mem::MaybeUninit;

use swath_kernels::epilogue::Outputs;
use swath_kernels::isa::Level;
use swath_kernels::shape::ConvShape;

use super::{Candidate, Choice, Explanation, Options, Scratch, plan_methods};
use crate::algo::{Sum, WeightKernel};
use crate::error::{Result, check_len};
use crate::par;

/// Planned gradients at a convolution's weights and bias.
///
/// Shape and options are those of the convolution: `x` has the layout of its input, `dy` that of its output. Every
/// geometry has a plan.
///
/// ```
/// use swath::{ConvBackwardWeights, ConvShape, Options, Scratch};
///
/// let shape = ConvShape::builder([2, 3, 32, 32], [16, 3, 3, 3]).padding(1).build()?;
/// let plan = ConvBackwardWeights::new(&shape, &Options::default())?;
/// let (x, dy) = (vec![1.0; 2 * 3 * 32 * 32], vec![0.5; 2 * 16 * 32 * 32]);
/// let (mut dw, mut db) = (vec![0.0; 16 * 3 * 3 * 3], vec![0.0; 16]);
/// plan.run(&x, &dy, &mut dw, Some(&mut db), &mut Scratch::default())?;
/// assert_eq!((dw[0], dw[4], db[0]), (961.0, 1024.0, 1024.0)); // a corner's tap misses a row and a column
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConvBackwardWeights(Choice<WeightKernel>);

plan_methods!(ConvBackwardWeights);

impl ConvBackwardWeights {
    /// Computes the gradient `dw` `[oc, ic / groups, kh, kw]` (PyTorch's order) at the weights and, if asked for, `db`
    /// `[oc]` at the bias, from the input `x` and the gradient `dy` at the output. What `dw` and `db` held does not
    /// matter.
    ///
    /// The result is the same bits for any number of threads. `x` and `dy` may be parts of larger tensors ([`Options::pitches`]).
    ///
    /// # Errors
    /// For wrong lengths, and [`Error::Memory`](crate::Error::Memory) where the scratch has to grow and cannot.
    pub fn run(
        &self,
        x: &[f32],
        dy: &[f32],
        dw: &mut [f32],
        db: Option<&mut [f32]>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.run_to(x, dy, dw.into(), db, scratch).map(|_| ())
    }

    /// The same with `dw` in memory that holds nothing yet. Returns what it then holds.
    ///
    /// # Errors
    /// As for [`ConvBackwardWeights::run`].
    ///
    /// ```
    /// use swath::{ConvBackwardWeights, ConvShape, Options, Scratch};
    /// let shape = ConvShape::builder([1, 2, 4, 4], [3, 2, 1, 1]).build()?;
    /// let plan = ConvBackwardWeights::new(&shape, &Options::default())?;
    /// let mut dw = Box::new_uninit_slice(3 * 2);
    /// let dw = plan.run_uninit(&[1.0; 2 * 16], &[0.5; 3 * 16], &mut dw, None, &mut Scratch::new())?;
    /// assert_eq!(dw, [8.0; 3 * 2]);
    /// # Ok::<(), swath::Error>(())
    /// ```
    pub fn run_uninit<'w>(
        &self,
        x: &[f32],
        dy: &[f32],
        dw: &'w mut [MaybeUninit<f32>],
        db: Option<&mut [f32]>,
        scratch: &mut Scratch,
    ) -> Result<&'w mut [f32]> {
        self.run_to(x, dy, dw.into(), db, scratch)
    }

    fn run_to<'w>(
        &self,
        x: &[f32],
        dy: &[f32],
        dw: Outputs<'w>,
        db: Option<&mut [f32]>,
        scratch: &mut Scratch,
    ) -> Result<&'w mut [f32]> {
        let Choice { shape: s, input, output, kernel, .. } = &self.0;
        let x = input.floats("the input", x)?;
        let dy = output.floats("the gradient at the output", dy)?;
        check_len("the gradient at the weights", dw.len(), s.weights().iter().product())?;
        check_len("the gradient at the bias", db.as_ref().map_or(s.oc, |db| db.len()), s.oc)?;
        let executor = par::executor(self.0.options.threads, self.0.predicted);
        let scratch = scratch.take(kernel.scratch_len(executor.threads()))?;
        Ok(kernel.run(Sum { tensors: [x, dy], db, scratch, executor: &*executor }, dw))
    }
}
