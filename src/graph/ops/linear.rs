//! Linear: `y = x W^T + b` on `[n, features]`; weight `[outputs, inputs]`, and a bias `[outputs]` if there is one.
//!
//! Row-major `[n, features]` is an NHWC image of one row of `n` pixels, so Linear is a 1x1 convolution on it, which is a
//! GEMM whose pixels are the batch, and so are its gradients.

use swath_kernels::layout::{Layout, reorder};
use swath_kernels::shape::ConvShape;

use super::conv::{ConvStep, DataStep, WeightStep, ready};
use crate::buffer::floats;
use crate::conv::{Options, Scratch};
use crate::error::{Error, Result};
use crate::graph::step::{Operands, Step};
use crate::graph::{Absorbs, Fact, Gradient, Group, Lower, Operator, Work};

/// The product with a matrix, and a bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear {
    /// Features of the input.
    pub inputs: usize,
    /// Features of the output.
    pub outputs: usize,
}

impl Linear {
    /// The 1x1 convolution for a batch.
    fn shape(&self, n: usize) -> Result<ConvShape> {
        // A convolution's width cannot be zero, its batch can.
        let input = if n == 0 { [0, self.inputs, 1, 1] } else { [1, self.inputs, 1, n] };
        Ok(ConvShape::builder(input, [self.outputs, self.inputs, 1, 1]).build()?)
    }

    fn options(options: &Options) -> Options {
        Options { input: Layout::Nhwc, output: Layout::Nhwc, ..options.clone() }
    }

    /// The weights with their features in the order that images `[c, h, w]` have in `layout`, so that Linear reads the
    /// flattened image as it lies.
    ///
    /// The layout has no padding: `c` fills its blocks.
    fn weights_for(&self, layout: Layout, [_, c, h, w]: [usize; 4], weights: &[f32]) -> Result<Vec<f32>> {
        let mut ordered = floats(weights.len())?;
        reorder(Layout::Nchw, weights, layout, &mut ordered, [self.outputs, c, h, w]);
        Ok(ordered)
    }
}

impl Operator for Linear {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let &[n, features] = inputs[0] else {
            let takes = "[n, features] (Flatten makes it of [n, c, h, w])";
            return Err(Error::Rank { what: "Linear", takes, gets: inputs[0].to_vec() });
        };
        if features != self.inputs {
            return Err(Error::Features { takes: self.inputs, gets: features });
        }
        super::expect("the weight of Linear", inputs[1], &[self.outputs, self.inputs])?;
        if let Some(bias) = inputs.get(2) {
            super::expect("the bias of Linear", bias, &[self.outputs])?;
        }
        self.shape(n)?;
        Ok(vec![n, self.outputs])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let (shape, options) = (self.shape(cx.fact(operands[0]).dims[0])?, Self::options(&cx.conv));
        let fixed = operands[1..].iter().all(|&v| cx.constant(v).is_some());
        let residual = |cx: &mut Lower<'_>, inputs: &mut Vec<usize>| match group.residual {
            Some(r) => cx.want(r, Layout::Nchw).map(|r| inputs.push(r)),
            None => Ok(()),
        };
        let (mut inputs, conv);
        if fixed {
            let image = cx.flattened(operands[0])?;
            inputs = vec![match image {
                Some((_, place)) => place.buffer,
                None => cx.want(operands[0], Layout::Nchw)?,
            }];
            residual(cx, &mut inputs)?;
            // Images of a batch have the same order as one.
            let order = image.map(|(image, place)| {
                let [_, c, h, w] = cx.extents(image);
                (place.layout, [1, c, h, w])
            });
            let constant = |v| cx.constant(v).map(|t| t.as_slice());
            let (weight, bias) = (constant(operands[1]).unwrap_or(&[]), operands.get(2).and_then(|&b| constant(b)));
            conv = ConvStep::fixed(&shape, &options, &cx.fused(group), |plan| {
                cx.ready(group, order, plan.weights_key(), || {
                    let weights = match order {
                        Some((layout, image)) => self.weights_for(layout, image, weight)?.into(),
                        None => std::borrow::Cow::from(weight),
                    };
                    ready(&weights, bias, None, 1, |w| plan.pack(w))
                })
            })?;
        } else {
            inputs = vec![cx.want(operands[0], Layout::Nchw)?];
            residual(cx, &mut inputs)?;
            for operand in &operands[1..] {
                inputs.push(cx.want(*operand, Layout::Nchw)?);
            }
            conv = ConvStep::dynamic(&shape, &options, operands.len() > 2, &cx.fused(group))?;
        }
        let scratch = conv.scratch_len();
        let step = LinearStep { conv, inputs: self.inputs, outputs: self.outputs };
        cx.step(group, Layout::Nchw, Box::new(step), inputs, scratch)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let shape = self.shape(g.fact(g.input(0)).dims[0])?;
        if g.needs(0) {
            let dx = g.push(LinearDataGradient { linear: *self, shape }, &[g.dy(), g.input(1)])?;
            g.add(0, dx[0])?;
        }
        let bias = g.inputs() > 2;
        if g.needs(1) || bias && g.needs(2) {
            let d = g.push(LinearWeightGradient { linear: *self, shape, bias }, &[g.input(0), g.dy()])?;
            g.add(1, d[0])?;
            if bias {
                g.add(2, d[1])?;
            }
        }
        Ok(())
    }

    fn absorbs(&self) -> Absorbs {
        Absorbs { affine: false, residual: true, activation: true }
    }

    fn work(&self, inputs: &[&Fact]) -> Work {
        let sizes = [inputs[0].dims[0], self.inputs, self.outputs];
        Work { macs: sizes.iter().map(|&v| v as u64).fold(1, u64::saturating_mul), convolution: None }
    }
}

struct LinearStep {
    conv: ConvStep,
    inputs: usize,
    outputs: usize,
}

impl Step for LinearStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], in_place: bool, scratch: &mut Scratch) {
        self.conv.run(x, y, in_place, scratch);
    }

    fn describe(&self) -> String {
        self.conv.describe_as(&format!("Linear {} to {}", self.inputs, self.outputs))
    }

    fn bytes(&self) -> usize {
        self.conv.bytes()
    }

    fn packed_len(&self) -> usize {
        self.conv.packed_len()
    }
}

/// The gradient of Linear at its input, from the gradient at its output and the weight.
#[derive(Clone, Copy, Debug)]
struct LinearDataGradient {
    linear: Linear,
    shape: ConvShape,
}

impl Operator for LinearDataGradient {
    fn name(&self) -> &'static str {
        "LinearDataGradient"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(vec![inputs[0][0], self.linear.inputs])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let (dy, w) = (cx.input(group, 0), cx.input(group, 1));
        let inputs = vec![cx.want(dy, Layout::Nchw)?, cx.want(w, Layout::Nchw)?];
        let step = DataStep::new("Linear".into(), &self.shape, &Linear::options(&cx.conv))?;
        let scratch = step.scratch_len();
        cx.step(group, Layout::Nchw, Box::new(step), inputs, scratch)
    }
}

/// The gradients of Linear at its weight and bias, from its input and the gradient at its output.
#[derive(Clone, Copy, Debug)]
struct LinearWeightGradient {
    linear: Linear,
    shape: ConvShape,
    bias: bool,
}

impl Operator for LinearWeightGradient {
    fn name(&self) -> &'static str {
        "LinearWeightGradient"
    }

    fn results(&self) -> usize {
        1 + usize::from(self.bias)
    }

    fn dims(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(vec![self.linear.outputs, self.linear.inputs])
    }

    fn facts(&self, _: &[&Fact]) -> Result<Vec<Fact>> {
        let mut facts = vec![Fact::f32([self.linear.outputs, self.linear.inputs])];
        if self.bias {
            facts.push(Fact::f32([self.linear.outputs]));
        }
        Ok(facts)
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let (x, dy) = (cx.input(group, 0), cx.input(group, 1));
        let inputs = vec![cx.want(x, Layout::Nchw)?, cx.want(dy, Layout::Nchw)?];
        let step = WeightStep::new("Linear".into(), &self.shape, &Linear::options(&cx.conv))?;
        let scratch = step.scratch_len();
        cx.step_all(group, &[Layout::Nchw; 2][..self.results()], Box::new(step), inputs, scratch)
    }
}
