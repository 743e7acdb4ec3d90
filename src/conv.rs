//! Convolution plans: a shape, an algorithm, packed weights.

use swath_kernels::epilogue::Activation;
use swath_kernels::isa::Level;
use swath_kernels::layout::{Layout, reorder};
use swath_kernels::reference;
use swath_kernels::shape::ConvShape;

use crate::error::{Result, check_len};

/// How a plan is made. `Options::default()` is NCHW in and out, the machine's level, the model's choice.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// Layout of the input.
    pub input: Layout,
    /// Layout of the output (and of a residual).
    pub output: Layout,
    /// Level to take kernels from; `None` is the machine's, lowered by `SWATH_LEVEL`.
    pub level: Option<Level>,
    /// Name of the algorithm; `None` lets the plan choose.
    pub algo: Option<String>,
}

impl Options {
    /// Blocked activations in and out, as inside a model.
    pub fn blocked() -> Self {
        Self { input: Layout::Blocked, output: Layout::Blocked, ..Self::default() }
    }
}

/// Bias, residual and activation, applied before the output is stored: `y = activation(conv + bias + residual)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One float per output channel.
    pub bias: Option<&'a [f32]>,
    /// A tensor like the output, in its layout.
    pub residual: Option<&'a [f32]>,
    /// The activation.
    pub activation: Activation,
}

/// Memory that runs of a plan may use and reuse; grows to what a plan needs.
#[derive(Debug, Default)]
pub struct Scratch(Vec<f32>);

/// Weights in the order that one plan's kernels read them.
#[derive(Clone, Debug)]
pub struct PackedWeights(Vec<f32>);

/// A planned convolution.
#[derive(Clone, Debug)]
pub struct ConvPlan {
    shape: ConvShape,
    options: Options,
}

impl ConvPlan {
    /// Plans. Never times anything.
    ///
    /// # Errors
    /// For a level that this machine lacks or an algorithm that is unknown or does not support the shape.
    pub fn new(shape: &ConvShape, options: &Options) -> Result<Self> {
        Ok(Self { shape: *shape, options: options.clone() })
    }

    /// Packs weights `[oc, ic / groups, kh, kw]`.
    ///
    /// # Errors
    /// For a wrong length.
    pub fn pack(&self, w: &[f32]) -> Result<PackedWeights> {
        check_len("the weights", w.len(), self.shape.weights().iter().product())?;
        Ok(PackedWeights(w.to_vec()))
    }

    /// Floats of scratch that [`ConvPlan::forward`] uses.
    pub fn scratch_len(&self) -> usize {
        0
    }

    /// Runs the convolution.
    ///
    /// # Errors
    /// For wrong lengths only.
    pub fn forward(
        &self,
        x: &[f32],
        weights: &PackedWeights,
        epilogue: Epilogue<'_>,
        y: &mut [f32],
        _scratch: &mut Scratch,
    ) -> Result<()> {
        let (s, o) = (&self.shape, &self.options);
        check_len("the input", x.len(), o.input.len(s.input()))?;
        check_len("the output", y.len(), o.output.len(s.output()))?;
        let mut nchw = vec![0.0; Layout::Nchw.len(s.input())];
        reorder(o.input, x, Layout::Nchw, &mut nchw, s.input());
        let out: Vec<f32> =
            reference::conv2d(s, &nchw, &weights.0, epilogue.bias).into_iter().map(|v| v as f32).collect();
        reorder(Layout::Nchw, &out, o.output, y, s.output());
        if let Some(r) = epilogue.residual {
            y.iter_mut().zip(r).for_each(|(y, r)| *y += r);
        }
        if epilogue.activation == Activation::Relu {
            y.iter_mut().for_each(|y| *y = y.max(0.0));
        }
        Ok(())
    }
}
