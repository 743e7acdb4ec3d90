//! 2-d convolution: input `[n, ic, h, w]`, weight `[oc, ic / groups, kh, kw]`, and a bias `[oc]` if there is one.

use core::any::Any;
use std::sync::Arc;

use swath_kernels::epilogue::Activation;
use swath_kernels::layout::{BLOCK, Layout};
use swath_kernels::shape::{ConvShape, Padding};

use super::four;
use crate::conv::{
    ConvBackwardData, ConvBackwardWeights, ConvPlan, Epilogue, Options, PackedWeights, Scratch, SeparablePlan,
};
use crate::error::Result;
use crate::graph::affine::Affine;
use crate::graph::packed::Ready;
use crate::graph::step::{Operands, Step};
use crate::graph::{Absorbs, Fact, Fused, Gradient, Group, Lower, Operator, Work};
use crate::par;

/// A convolution with zero padding; other paddings are a [`Pad`](super::Pad) before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv {
    /// `[oc, ic / groups, kh, kw]`
    pub weights: [usize; 4],
    /// Vertical, horizontal.
    pub stride: [usize; 2],
    /// Vertical, horizontal.
    pub dilation: [usize; 2],
    /// Zeros around the image.
    pub pad: Padding,
    /// Groups of channels.
    pub groups: usize,
}

impl Conv {
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

impl Operator for Conv {
    fn name(&self) -> &'static str {
        "Conv2d"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        super::expect("the weight of Conv2d", inputs[1], &self.weights)?;
        if let Some(bias) = inputs.get(2) {
            super::expect("the bias of Conv2d", bias, &self.weights[..1])?;
        }
        Ok(self.shape(inputs[0])?.output().to_vec())
    }

    /// Input layouts: as it comes if it has few channels (the stem reads NCHW), else blocked.
    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let shape = self.shape(&cx.fact(operands[0]).dims)?;
        let native = cx.native(operands[0])?.layout;
        let input = if shape.ic < BLOCK { native } else { Layout::Blocked };
        let mut inputs = vec![cx.want(operands[0], input)?];
        if let Some(r) = group.residual {
            inputs.push(cx.want(r, Layout::Blocked)?);
        }
        let options = Options { input, ..cx.conv.clone() };
        let taps = self.weights[1..].iter().product();
        let step = convolution(cx, group, &shape, &options, taps, &mut inputs)?;
        let scratch = step.scratch_len();
        cx.step(group, Layout::Blocked, Box::new(step), inputs, scratch)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let input = g.fact(g.input(0)).dims.clone();
        let shape = self.shape(&input)?;
        if g.needs(0) {
            let dx = g.push(ConvDataGradient { shape }, &[g.dy(), g.input(1)])?;
            g.add(0, dx[0])?;
        }
        let bias = g.inputs() > 2;
        if g.needs(1) || bias && g.needs(2) {
            let d = g.push(ConvWeightGradient { shape, bias }, &[g.input(0), g.dy()])?;
            g.add(1, d[0])?;
            if bias {
                g.add(2, d[1])?;
            }
        }
        Ok(())
    }

    fn absorbs(&self) -> Absorbs {
        Absorbs { affine: true, residual: true, activation: true }
    }

    fn work(&self, inputs: &[&Fact]) -> Work {
        self.shape(&inputs[0].dims).map_or(Work::default(), |s| Work { macs: s.macs(), convolution: Some(s) })
    }
}

/// Plans the convolution of a group, whose weight is its operator's operand 1 and whose bias is operand 2, with what it absorbs.
/// Weights that are known now are packed now; others become operands, and are packed in each run.
pub(super) fn convolution(
    cx: &mut Lower<'_>,
    group: &Group,
    shape: &ConvShape,
    options: &Options,
    taps: usize,
    inputs: &mut Vec<usize>,
) -> Result<ConvStep> {
    let (operands, fused) = (cx.inputs(group), cx.fused(group));
    let weight = cx.constant(operands[1]);
    let bias = operands.get(2).map(|b| cx.constant(*b));
    if let (Some(weight), None | Some(Some(_))) = (weight, bias) {
        let bias = bias.flatten().map(|b| b.as_slice());
        return ConvStep::fixed(shape, options, &fused, |plan| {
            cx.ready(group, None, plan.weights_key(), || {
                ready(weight.as_slice(), bias, fused.affine.as_ref(), taps, |w| plan.pack(w))
            })
        });
    }
    for operand in &operands[1..] {
        inputs.push(cx.want(*operand, Layout::Nchw)?);
    }
    ConvStep::dynamic(shape, options, operands.len() > 2, &fused)
}

/// Packs weights and takes a bias along, with what is applied to the result.
pub(super) fn ready(
    weights: &[f32],
    bias: Option<&[f32]>,
    affine: Option<&Affine>,
    taps: usize,
    pack: impl FnOnce(&[f32]) -> Result<PackedWeights>,
) -> Result<Ready> {
    match affine {
        Some(affine) => {
            let (weights, bias) = affine.fold(weights, bias, taps)?;
            Ok(Ready { weights: pack(&weights)?, bias: Some(bias) })
        }
        None => Ok(Ready { weights: pack(weights)?, bias: bias.map(<[f32]>::to_vec) }),
    }
}

/// Where the weights and the bias come from.
enum Weights {
    /// Packed when the graph was compiled, for this session or for another one.
    Fixed(Arc<Ready>),
    /// Operands behind the residual, packed in each run; whether there is a bias.
    Dynamic(bool),
}

/// A planned convolution. Operand 0 is the input, operand 1 the residual if there is one.
pub(crate) struct ConvStep {
    shape: ConvShape,
    plan: ConvPlan,
    weights: Weights,
    residual: bool,
    activation: Activation,
}

impl ConvStep {
    /// Plans for weights that are known: `ready` has them packed for the plan.
    pub(super) fn fixed(
        shape: &ConvShape,
        options: &Options,
        fused: &Fused,
        ready: impl FnOnce(&ConvPlan) -> Result<Arc<Ready>>,
    ) -> Result<Self> {
        let plan = ConvPlan::new(shape, options)?;
        let weights = Weights::Fixed(ready(&plan)?);
        Ok(Self { shape: *shape, plan, weights, residual: fused.residual, activation: fused.activation })
    }

    /// Plans for weights that come with each run.
    pub(super) fn dynamic(shape: &ConvShape, options: &Options, bias: bool, fused: &Fused) -> Result<Self> {
        let plan = ConvPlan::new(shape, options)?;
        let weights = Weights::Dynamic(bias);
        Ok(Self { shape: *shape, plan, weights, residual: fused.residual, activation: fused.activation })
    }

    /// Floats of scratch.
    pub(super) fn scratch_len(&self) -> usize {
        self.plan.scratch_len(par::width(None))
    }

    /// `3x3/2 + bias + residual + ReLU`, and the algorithm.
    pub(super) fn describe_as(&self, name: &str) -> String {
        let mut s = format!("{name} {}", self.plan.algo());
        let bias = match &self.weights {
            Weights::Fixed(ready) => ready.bias.is_some(),
            Weights::Dynamic(bias) => *bias,
        };
        for (part, on) in [(" + bias", bias), (" + residual", self.residual)] {
            s.push_str(if on { part } else { "" });
        }
        if self.activation != Activation::Identity {
            s = s + " + " + super::activation::name(self.activation);
        }
        s
    }
}

impl Step for ConvStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, scratch: &mut Scratch) {
        let behind = 1 + usize::from(self.residual);
        let epilogue = Epilogue { bias: None, residual: self.residual.then(|| x.get(1)), activation: self.activation };
        let done = match &self.weights {
            Weights::Fixed(ready) => {
                let epilogue = Epilogue { bias: ready.bias.as_deref(), ..epilogue };
                self.plan.forward(x.get(0), &ready.weights, epilogue, y, scratch)
            }
            Weights::Dynamic(bias) => {
                let epilogue = Epilogue { bias: bias.then(|| x.get(behind + 1)), ..epilogue };
                self.plan.pack_once(x.get(behind), scratch).and_then(|packed| {
                    let done = self.plan.forward(x.get(0), &packed, epilogue, y, scratch);
                    scratch.give_back(packed);
                    done
                })
            }
        };
        done.expect("the graph was compiled for these lengths");
    }

    fn describe(&self) -> String {
        self.describe_as(&format!("Conv2d {}", geometry(&self.shape)))
    }

    fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Fixed(ready) => ready.weights.bytes(),
            Weights::Dynamic(_) => 0,
        }
    }

    fn packed_len(&self) -> usize {
        match &self.weights {
            Weights::Fixed(_) => 0,
            Weights::Dynamic(_) => self.plan.packed_len(),
        }
    }
}

/// Two convolutions with weights that are known, in one step: a depthwise one, and a 1x1 convolution of its result. Operand 0 is the
/// input of the first, operand 1 the residual of the second if there is one.
pub(crate) struct SeparableStep {
    plan: SeparablePlan,
    ready: [Arc<Ready>; 2],
    residual: bool,
    activations: [Activation; 2],
    text: String,
}

impl SeparableStep {
    /// Of two steps, the second of which alone reads what the first one computes; if they are such, and faster together.
    pub(crate) fn new([first, second]: [&dyn Step; 2]) -> Option<Self> {
        let [first, second] = [first, second].map(|step| (step as &dyn Any).downcast_ref::<ConvStep>());
        let (first, second) = (first?, second?);
        let (Weights::Fixed(a), Weights::Fixed(b), false) = (&first.weights, &second.weights, first.residual) else {
            return None;
        };
        let plan = SeparablePlan::new(&first.plan, &second.plan)?;
        Some(Self {
            plan,
            ready: [a.clone(), b.clone()],
            residual: second.residual,
            activations: [first.activation, second.activation],
            text: format!("{}, then {}, by strips", first.describe(), second.describe()),
        })
    }

    /// Floats of scratch.
    pub(crate) fn scratch_len(&self) -> usize {
        self.plan.scratch_len(par::width(None))
    }
}

impl Step for SeparableStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, scratch: &mut Scratch) {
        let [a, b] = &self.ready;
        let epilogue = |i: usize, residual| {
            let ready: &Ready = &self.ready[i];
            Epilogue { bias: ready.bias.as_deref(), residual, activation: self.activations[i] }
        };
        let epilogues = [epilogue(0, None), epilogue(1, self.residual.then(|| x.get(1)))];
        let done = self.plan.forward(x.get(0), [&a.weights, &b.weights], epilogues, y, scratch);
        done.expect("the graph was compiled for these lengths");
    }

    fn describe(&self) -> String {
        self.text.clone()
    }

    fn bytes(&self) -> usize {
        self.ready.iter().map(|ready| ready.weights.bytes()).sum()
    }
}

/// `3x3/2 in 4 groups`
fn geometry(s: &ConvShape) -> String {
    let stride = match (s.sh, s.sw) {
        (1, 1) => String::new(),
        (v, h) if v == h => format!("/{v}"),
        (v, h) => format!("/{v}x{h}"),
    };
    let groups = if s.groups > 1 { format!(" in {} groups", s.groups) } else { String::new() };
    format!("{}x{}{stride}{groups}", s.kh, s.kw)
}

/// The layouts of both sides of a convolution's gradients: those that its forward pass has inside a model.
fn gradient_options(cx: &mut Lower<'_>, shape: &ConvShape) -> Options {
    let Options { input, output, .. } = Options::inside_model(shape);
    Options { input, output, ..cx.conv.clone() }
}

/// The gradient of a convolution at its input, from the gradient at its output and the weight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvDataGradient {
    pub(crate) shape: ConvShape,
}

impl Operator for ConvDataGradient {
    fn name(&self) -> &'static str {
        "Conv2dDataGradient"
    }

    fn dims(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.shape.input().to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let options = gradient_options(cx, &self.shape);
        let (dy, w) = (cx.input(group, 0), cx.input(group, 1));
        let inputs = vec![cx.want(dy, options.output)?, cx.want(w, Layout::Nchw)?];
        let step = DataStep::new(format!("Conv2d {}", geometry(&self.shape)), &self.shape, &options)?;
        let scratch = step.scratch_len();
        cx.step(group, options.input, Box::new(step), inputs, scratch)
    }

    fn work(&self, _: &[&Fact]) -> Work {
        Work { macs: self.shape.macs(), convolution: None }
    }
}

/// The gradient at the input of a convolution, or of Linear, from that at the output (operand 0) and the weight, which is packed in
/// each run.
pub(super) struct DataStep {
    name: String,
    plan: ConvBackwardData,
}

impl DataStep {
    pub(super) fn new(name: String, shape: &ConvShape, options: &Options) -> Result<Self> {
        let plan = ConvBackwardData::new(shape, options)?;
        Ok(Self { name, plan })
    }

    /// Floats of scratch.
    pub(super) fn scratch_len(&self) -> usize {
        self.plan.scratch_len(par::width(None))
    }
}

impl Step for DataStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, scratch: &mut Scratch) {
        let done = self.plan.pack_once(x.get(1), scratch).and_then(|packed| {
            let done = self.plan.run(x.get(0), &packed, y, scratch);
            scratch.give_back(packed);
            done
        });
        done.expect("the graph was compiled for these lengths");
    }

    fn describe(&self) -> String {
        format!("{} gradient of the input {}", self.name, self.plan.algo())
    }

    fn packed_len(&self) -> usize {
        self.plan.packed_len()
    }
}

/// The gradients of a convolution at its weight and bias, from its input and the gradient at its output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvWeightGradient {
    pub(crate) shape: ConvShape,
    pub(crate) bias: bool,
}

impl Operator for ConvWeightGradient {
    fn name(&self) -> &'static str {
        "Conv2dWeightGradient"
    }

    fn results(&self) -> usize {
        1 + usize::from(self.bias)
    }

    fn dims(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.shape.weights().to_vec())
    }

    fn facts(&self, _: &[&Fact]) -> Result<Vec<Fact>> {
        let mut facts = vec![Fact::f32(self.shape.weights())];
        if self.bias {
            facts.push(Fact::f32([self.shape.oc]));
        }
        Ok(facts)
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let mut options = gradient_options(cx, &self.shape);
        let (x, dy) = (cx.input(group, 0), cx.input(group, 1));
        if self.shape.ic < BLOCK {
            options.input = cx.native(x)?.layout;
        }
        let inputs = vec![cx.want(x, options.input)?, cx.want(dy, options.output)?];
        let step = WeightStep::new(format!("Conv2d {}", geometry(&self.shape)), &self.shape, &options)?;
        let scratch = step.scratch_len();
        cx.step_all(group, &[Layout::Nchw; 2][..self.results()], Box::new(step), inputs, scratch)
    }

    fn work(&self, _: &[&Fact]) -> Work {
        Work { macs: self.shape.macs(), convolution: None }
    }
}

/// The gradients at the weight, and at the bias if a second result asks for it, of a convolution, or of Linear; from its input and the
/// gradient at its output.
pub(super) struct WeightStep {
    name: String,
    plan: ConvBackwardWeights,
}

impl WeightStep {
    pub(super) fn new(name: String, shape: &ConvShape, options: &Options) -> Result<Self> {
        Ok(Self { name, plan: ConvBackwardWeights::new(shape, options)? })
    }

    /// Floats of scratch.
    pub(super) fn scratch_len(&self) -> usize {
        self.plan.scratch_len(par::width(None))
    }
}

impl Step for WeightStep {
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], _: bool, scratch: &mut Scratch) {
        let (dw, db) = y.split_at_mut(1);
        let db = db.first_mut().map(|db| &mut **db);
        let done = self.plan.run(x.get(0), x.get(1), dw[0], db, scratch);
        done.expect("the graph was compiled for these lengths");
    }

    fn describe(&self) -> String {
        format!("{} gradient of the weight {}", self.name, self.plan.algo())
    }
}
