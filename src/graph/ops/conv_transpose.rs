//! 2-d transposed convolution: input `[n, ic, h, w]`, weight `[ic, oc / groups, kh, kw]`, and a bias `[oc]` if there is one.
//!
//! It is the data gradient of a convolution, so its own data gradient is that convolution.

use std::sync::Arc;

use swath_kernels::epilogue::Activation;
use swath_kernels::layout::{BLOCK, Layout, blocks};
use swath_kernels::shape::{ConvShape, ConvTransposeShape, Padding};

use super::conv::{ConvWeightGradient, ready};
use super::{Conv, PixelShuffle, Reduce, four};
use crate::conv::{ConvBackwardData, Epilogue, Options, Scratch};
use crate::error::Result;
use crate::graph::packed::Ready;
use crate::graph::step::{Operands, Step};
use crate::graph::{Absorbs, Fact, Gradient, Group, Lower, Operator, Work};
use crate::par;

/// A transposed convolution, with PyTorch's options.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvTranspose {
    /// `[ic, oc / groups, kh, kw]`
    pub weights: [usize; 4],
    /// Vertical, horizontal.
    pub stride: [usize; 2],
    /// Vertical, horizontal.
    pub dilation: [usize; 2],
    /// What is cut off the output.
    pub pad: Padding,
    /// What is added to the output at the bottom and at the right.
    pub output_padding: [usize; 2],
    /// Groups of channels.
    pub groups: usize,
}

impl ConvTranspose {
    fn shape(&self, input: &[usize]) -> Result<ConvTransposeShape> {
        Ok(ConvTransposeShape::builder(four("ConvTranspose2d", input)?, self.weights)
            .stride(self.stride)
            .dilation(self.dilation)
            .padding(self.pad)
            .output_padding(self.output_padding)
            .groups(self.groups)
            .build()?)
    }

    /// Where windows are squares that do not overlap, and outputs fill no block: the transposed convolution of one pixel each that this
    /// is before its outputs are shuffled to pixels. Its outputs are those of one tap after the other, so that a product computes no more
    /// than what there is; a transposed convolution computes a block of outputs for every tap.
    fn before_shuffle(&self) -> Option<Self> {
        let [ic, oc, kh, kw] = self.weights;
        let apart = Self {
            stride: [kh, kh],
            dilation: [1; 2],
            pad: Padding::default(),
            output_padding: [0; 2],
            groups: 1,
            ..*self
        };
        if *self != apart || kh != kw || kw == 1 || oc >= BLOCK {
            return None;
        }
        let outputs = oc.checked_mul(kh.checked_mul(kw)?)?;
        Some(Self { weights: [ic, outputs, 1, 1], stride: [1; 2], ..*self })
    }
}

impl Operator for ConvTranspose {
    fn name(&self) -> &'static str {
        "ConvTranspose2d"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        super::expect("the weight of ConvTranspose2d", inputs[1], &self.weights)?;
        if let Some(bias) = inputs.get(2) {
            super::expect("the bias of ConvTranspose2d", bias, &[self.weights[1] * self.groups])?;
        }
        let [_, c, _, _] = four(self.name(), inputs[0])?;
        if c != self.weights[0] {
            return Err(crate::Error::Channels { what: self.name(), takes: self.weights[0], gets: c });
        }
        let output = self.shape(inputs[0])?.output();
        let [n, oc, oh, ow] = output;
        swath_kernels::shape::checked_elements("output", &[n, oc.saturating_add(BLOCK - 1), oh, ow])?;
        Ok(output.to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let constant = operands[1..].iter().all(|&v| cx.constant(v).is_some());
        let shuffled = if constant { self.before_shuffle() } else { None };
        let (op, to) = shuffled.map_or((*self, Layout::Blocked), |op| (op, Layout::Nchw));
        let transposed = op.shape(&cx.fact(operands[0]).dims)?;
        let shape = transposed.convolution();
        let native = cx.native(operands[0])?.layout;
        let from = if shape.oc < BLOCK { native } else { Layout::Blocked };
        // The plan is of the convolution, whose input is the output here.
        let options = Options { input: to, output: from, ..cx.conv.clone() };
        let plan = ConvBackwardData::new(shape, &options)?;
        let mut inputs = vec![cx.want(operands[0], from)?];
        let (fused, weight) = (cx.fused(group), cx.constant(operands[1]));
        let bias = operands.get(2).map(|b| cx.constant(*b));
        let weights = if let (Some(weight), None | Some(Some(_))) = (weight, bias) {
            let (weight, bias) = (weight.as_slice(), bias.flatten().map(|b| b.as_slice()));
            let taps = self.weights[2] * self.weights[3];
            let outputs_of_one = op.weights[1] / self.weights[1];
            Weights::Fixed(cx.ready(group, None, plan.weights_key(), || {
                let ready = ready(weight, bias, fused.affine.as_ref(), taps, |w| plan.pack(w))?;
                let each =
                    |bias: Vec<f32>| bias.into_iter().flat_map(|b| std::iter::repeat_n(b, outputs_of_one)).collect();
                Ok(Ready { bias: ready.bias.map(each), ..ready })
            })?)
        } else {
            for operand in &operands[1..] {
                inputs.push(cx.want(*operand, Layout::Nchw)?);
            }
            Weights::Dynamic(operands.len() > 2)
        };
        let scratch = plan.scratch_len(par::width(None));
        let step = Box::new(TransposeStep { plan, weights, activation: fused.activation });
        if shuffled.is_none() {
            return cx.step(group, to, step, inputs, scratch);
        }
        let dims = transposed.output();
        let buffer = cx.work_ahead(group, &dims, to, step, inputs, scratch)?;
        let shuffle = PixelShuffle { factor: self.stride[0], inverse: false };
        let step = shuffle.step(to, dims, cx.level())?;
        cx.rest(group, to, Box::new(step), vec![buffer])
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let shape = *self.shape(&g.fact(g.input(0)).dims)?.convolution();
        if g.needs(0) {
            let conv = Conv {
                weights: shape.weights(),
                stride: [shape.sh, shape.sw],
                dilation: [shape.dh, shape.dw],
                pad: shape.pad,
                groups: shape.groups,
            };
            let dx = g.push(conv, &[g.dy(), g.input(1)])?;
            g.add(0, dx[0])?;
        }
        if g.needs(1) {
            let dw = g.push(ConvWeightGradient { shape, bias: false }, &[g.dy(), g.input(0)])?;
            g.add(1, dw[0])?;
        }
        if g.inputs() > 2 && g.needs(2) {
            let db = g.push(Reduce::sum(&[0, 2, 3], false), &[g.dy()])?;
            g.add(2, db[0])?;
        }
        Ok(())
    }

    fn absorbs(&self) -> Absorbs {
        Absorbs { affine: self.groups == 1, residual: false, activation: true }
    }

    /// As the product that it is where windows do not overlap, else as the convolution that it is the gradient of.
    fn work(&self, inputs: &[&Fact]) -> Work {
        let Ok(shape) = self.shape(&inputs[0].dims) else { return Work::default() };
        let s = shape.convolution();
        let [n, _, h, w] = shape.input();
        let product = [n, h, w].into_iter().chain(self.weights).map(|v| v as u64);
        let macs = product.fold(1, u64::saturating_mul);
        let apart = [s.kh, s.kw] == [s.sh, s.sw] && s.groups == 1 && s.pad == Padding::default();
        let in_blocks = blocks(self.weights[1]) * BLOCK * s.kh * s.kw;
        let outputs = self.before_shuffle().map_or(in_blocks, |op| op.weights[1]);
        let convolution = ConvShape::builder(shape.input(), [outputs, self.weights[0], 1, 1]).build().ok();
        Work { macs, convolution: convolution.filter(|_| apart) }
    }
}

/// Where the weights and the bias come from.
enum Weights {
    /// Packed when the graph was compiled, for this session or for another one.
    Fixed(Arc<Ready>),
    /// Operands behind the input, packed in each run; whether there is a bias.
    Dynamic(bool),
}

struct TransposeStep {
    plan: ConvBackwardData,
    weights: Weights,
    activation: Activation,
}

impl Step for TransposeStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, scratch: &mut Scratch) {
        let epilogue = Epilogue { bias: None, residual: None, activation: self.activation };
        let done = match &self.weights {
            Weights::Fixed(ready) => {
                let epilogue = Epilogue { bias: ready.bias.as_deref(), ..epilogue };
                self.plan.transposed(x.get(0), &ready.weights, epilogue, y, scratch)
            }
            Weights::Dynamic(bias) => {
                let epilogue = Epilogue { bias: bias.then(|| x.get(2)), ..epilogue };
                self.plan.pack_once(x.get(1), scratch).and_then(|packed| {
                    let done = self.plan.transposed(x.get(0), &packed, epilogue, y, scratch);
                    scratch.give_back(packed);
                    done
                })
            }
        };
        done.expect("the graph was compiled for these lengths");
    }

    fn describe(&self) -> String {
        let s = self.plan.shape();
        let bias = match &self.weights {
            Weights::Fixed(ready) => ready.bias.is_some(),
            Weights::Dynamic(bias) => *bias,
        };
        let mut text = format!("ConvTranspose2d {}x{} {}", s.kh, s.kw, self.plan.algo());
        text.push_str(if bias { " + bias" } else { "" });
        if self.activation != Activation::Identity {
            text = text + " + " + super::activation::name(self.activation);
        }
        text
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
