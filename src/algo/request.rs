//! What an algorithm is asked to plan.

use swath_kernels::layout::{BLOCK, Layout, View};
use swath_kernels::machine::Core;
use swath_kernels::shape::ConvShape;

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

    pub(super) fn layouts(&self) -> [Layout; 2] {
        self.views.map(|view| view.layout())
    }

    /// Which of the two lie in planes.
    pub(super) fn planes(&self) -> [bool; 2] {
        self.layouts().map(|layout| layout == Layout::Nchw)
    }

    /// Which of the two lie otherwise than in blocks.
    pub(super) fn not_in_blocks(&self) -> [bool; 2] {
        self.layouts().map(|layout| layout != Layout::Blocked)
    }

    /// Which of the two lie in planes, where groups are whole blocks: where not, the order of packed weights depends on layouts.
    pub(super) fn planes_of_whole_groups(&self) -> [bool; 2] {
        let s = self.shape;
        let whole = s.groups == 1 || s.icg().is_multiple_of(BLOCK) && s.ocg().is_multiple_of(BLOCK);
        self.planes().map(|planes| planes && whole)
    }

    /// The same, but what is read only where its channels fill a block, since few are faster to read as they lie (row `stem`; 3 to 64
    /// channels at 224x224 3.2 ms, by copies 4.3).
    pub(super) fn planes_to_copy(&self, reads: usize) -> [bool; 2] {
        let mut planes = self.planes_of_whole_groups();
        planes[reads] &= [self.shape.ic, self.shape.oc][reads] >= BLOCK;
        planes
    }

    /// Whether both lie without gaps.
    pub(super) fn is_dense(&self) -> bool {
        self.views.iter().all(View::is_dense)
    }

    /// # Errors
    /// For [`Accuracy::Exact`].
    pub(super) fn refuse_exact(&self) -> Result<(), String> {
        if self.accuracy == Accuracy::Exact { Err("the accuracy asked for is `Exact`".into()) } else { Ok(()) }
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
