//! 2-d convolution.

use swath_kernels::epilogue::Activation;
use swath_kernels::shape::{ConvShape, Padding};

use super::forward::{Forward, Operands};
use super::{Operator, ParameterId};
use crate::conv::{ConvPlan, Epilogue, Options, PackedWeights, Scratch};
use crate::error::{Error, Result};
use crate::par;

/// A convolution with zero padding; other paddings are a [`super::pad::Pad`] before it.
#[derive(Clone, Debug)]
pub(crate) struct ConvOp {
    pub(crate) weight: ParameterId,
    pub(crate) bias: Option<ParameterId>,
    /// `[oc, ic / groups, kh, kw]`
    pub(crate) weights: [usize; 4],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    pub(crate) pad: Padding,
    pub(crate) groups: usize,
}

impl ConvOp {
    /// The checked geometry for an input.
    pub(crate) fn shape(&self, input: &[usize]) -> Result<ConvShape> {
        let input = four("Conv2d", input)?;
        Ok(ConvShape::builder(input, self.weights)
            .stride(self.stride)
            .dilation(self.dilation)
            .padding(self.pad)
            .groups(self.groups)
            .build()?)
    }
}

/// `[n, c, h, w]`, or an error that names the operator.
pub(crate) fn four(what: &'static str, dims: &[usize]) -> Result<[usize; 4]> {
    dims.try_into().map_err(|_| Error::Rank { what, takes: "[n, c, h, w]", gets: dims.to_vec() })
}

impl Operator for ConvOp {
    fn name(&self) -> &'static str {
        "Conv2d"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.shape(inputs[0])?.output().to_vec())
    }
}

/// A planned convolution with packed weights. Operand 0 is the input, operand 1 the residual if there is one.
pub(crate) struct ConvForward {
    shape: ConvShape,
    plan: ConvPlan,
    weights: PackedWeights,
    bias: Option<Vec<f32>>,
    residual: bool,
    activation: Activation,
}

/// What is applied to a convolution's output before it is stored.
pub(crate) struct Fused<'a> {
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) residual: bool,
    pub(crate) activation: Activation,
}

impl ConvForward {
    /// Plans, and packs the weights once.
    pub(crate) fn new(shape: &ConvShape, options: &Options, weights: &[f32], fused: Fused<'_>) -> Result<Self> {
        let plan = ConvPlan::new(shape, options)?;
        let weights = plan.pack(weights)?;
        let Fused { bias, residual, activation } = fused;
        Ok(Self { shape: *shape, plan, weights, bias: bias.map(<[f32]>::to_vec), residual, activation })
    }

    /// Floats of scratch.
    pub(crate) fn scratch_len(&self) -> usize {
        self.plan.scratch_len(par::width(None))
    }

    /// `3x3/2 + bias + residual + ReLU`, and the algorithm.
    pub(crate) fn describe_as(&self, name: &str) -> String {
        let mut s = name.to_string();
        s = s + " " + self.plan.algo();
        for (part, on) in [(" + bias", self.bias.is_some()), (" + residual", self.residual)] {
            s.push_str(if on { part } else { "" });
        }
        if self.activation != Activation::Identity {
            s = s + " + " + self.activation.name();
        }
        s
    }
}

impl Forward for ConvForward {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, scratch: &mut Scratch) {
        let epilogue = Epilogue {
            bias: self.bias.as_deref(),
            residual: self.residual.then(|| x.get(1)),
            activation: self.activation,
        };
        self.plan
            .forward(x.get(0), &self.weights, epilogue, y, scratch)
            .expect("the graph was compiled for these lengths");
    }

    fn describe(&self) -> String {
        let s = &self.shape;
        let stride = match (s.sh, s.sw) {
            (1, 1) => String::new(),
            (v, h) if v == h => format!("/{v}"),
            (v, h) => format!("/{v}x{h}"),
        };
        let groups = if s.groups > 1 { format!(" in {} groups", s.groups) } else { String::new() };
        self.describe_as(&format!("Conv2d {}x{}{stride}{groups}", s.kh, s.kw))
    }
}
