//! Plans of data gradients and transposed convolution.

use core::mem::MaybeUninit;

use swath_kernels::isa::Level;
use swath_kernels::shape::ConvShape;

use super::{Candidate, Choice, Epilogue, Explanation, Options, PackedWeights, Scratch, WeightsKey};
use super::{packing_methods, plan_methods};
use crate::algo::DataKernel;
use crate::error::Result;

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
    /// Channels that pad a blocked `dx` become zero. The result is the same bits for any number of threads. Both may be parts of larger
    /// tensors ([`Options::pitches`]).
    ///
    /// # Errors
    /// For wrong lengths, for weights that were packed for something else, and [`Error::Memory`](crate::Error::Memory) where the scratch
    /// has to grow and cannot; never otherwise.
    pub fn run(&self, dy: &[f32], weights: &PackedWeights, dx: &mut [f32], scratch: &mut Scratch) -> Result<()> {
        self.transposed(dy, weights, Epilogue::none(), dx, scratch)
    }

    /// The same into memory that holds nothing yet. Returns what it then holds.
    ///
    /// # Errors
    /// As [`ConvBackwardData::run`], and for a `dx` with gaps, which stay unwritten.
    ///
    /// ```
    /// use swath::{ConvBackwardData, ConvShape, Options, Scratch};
    /// let plan = ConvBackwardData::new(&ConvShape::builder([1, 2, 4, 4], [3, 2, 1, 1]).build()?, &Options::default())?;
    /// let (weights, mut dx) = (plan.pack(&[0.5; 6])?, Box::new_uninit_slice(2 * 16));
    /// assert_eq!(plan.run_uninit(&[1.0; 3 * 16], &weights, &mut dx, &mut Scratch::new())?, [1.5; 2 * 16]);
    /// # Ok::<(), swath::Error>(())
    /// ```
    pub fn run_uninit<'x>(
        &self,
        dy: &[f32],
        weights: &PackedWeights,
        dx: &'x mut [MaybeUninit<f32>],
        scratch: &mut Scratch,
    ) -> Result<&'x mut [f32]> {
        self.transposed_uninit(dy, weights, Epilogue::none(), dx, scratch)
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
        let y = self.0.input.outputs("the gradient at the input", y)?;
        self.0.run(x, weights, epilogue, y, scratch).map(|_| ())
    }

    /// The same into memory that holds nothing yet. Returns what it then holds.
    ///
    /// # Errors
    /// As for [`ConvBackwardData::run_uninit`].
    pub fn transposed_uninit<'y>(
        &self,
        x: &[f32],
        weights: &PackedWeights,
        epilogue: Epilogue<'_>,
        y: &'y mut [MaybeUninit<f32>],
        scratch: &mut Scratch,
    ) -> Result<&'y mut [f32]> {
        let y = self.0.input.unwritten("the gradient at the input", y)?;
        self.0.run(x, weights, epilogue, y, scratch)
    }
}
