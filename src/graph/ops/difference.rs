//! Losses of one prediction and one target each: squared, absolute and Huber's differences, and binary cross-entropy.

use core::ops::Range;
use std::sync::Arc;

use swath_kernels::layout::Layout;

use super::cross_entropy::Reduction;
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::step::{Operands, Step};
use crate::graph::{Gradient, Group, Lower, Operator};
use crate::par;

/// What is summed over all elements, of a prediction `x` and a target `t`, with `d = x - t`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Difference {
    /// `d^2`
    Squared,
    /// `|d|`, whose gradient at 0 is 0.
    Absolute,
    /// `d^2 / (2 beta)` where `|d| < beta`, else `|d| - beta / 2`.
    SmoothAbsolute {
        /// Where it becomes straight; above 0.
        beta: f32,
    },
    /// `d^2 / 2` where `|d| <= delta`, else `delta (|d| - delta / 2)`.
    Huber {
        /// Where it becomes straight; above 0.
        delta: f32,
    },
    /// `-(w t ln s(x) + (1 - t) ln(1 - s(x)))` of the sigmoid `s`.
    BinaryEntropy {
        /// The weight `w` of each channel's (dimension 1) positive part; 1 where there are none.
        positive: Option<Arc<[f32]>>,
    },
}

impl Difference {
    fn check(&self, dims: &[usize]) -> Result<()> {
        match self {
            Self::SmoothAbsolute { beta: v } | Self::Huber { delta: v } if !(v.is_finite() && *v > 0.0) => {
                let (what, rule) = ("where a loss becomes straight", "it must be a finite number above 0".into());
                Err(Error::Setting { what, value: v.to_string(), rule })
            }
            Self::BinaryEntropy { positive: Some(w) } if dims.get(1) != Some(&w.len()) => {
                let expected = dims.get(1).copied().unwrap_or(0);
                Err(Error::Length { what: "the weights of positive targets", actual: w.len(), expected })
            }
            _ => Ok(()),
        }
    }

    /// The value and its slope along `x`; `w` is the weight of the positive part.
    #[inline(always)]
    fn at(&self, x: f32, t: f32, w: f32) -> (f32, f32) {
        let d = x - t;
        let sign = if d == 0.0 { 0.0 } else { d.signum() };
        match *self {
            Self::Squared => (d * d, 2.0 * d),
            Self::Absolute => (d.abs(), sign),
            Self::SmoothAbsolute { beta } if d.abs() < beta => (0.5 * d * d / beta, d / beta),
            Self::SmoothAbsolute { beta } => (d.abs() - 0.5 * beta, sign),
            Self::Huber { delta } if d.abs() <= delta => (0.5 * d * d, d),
            Self::Huber { delta } => (delta * (d.abs() - 0.5 * delta), delta * sign),
            Self::BinaryEntropy { .. } => {
                let share = 1.0 + (w - 1.0) * t;
                // ln(1 + exp(-x)) without overflow, and 1 / (1 + exp(x)).
                let e = (-x.abs()).exp();
                let (soft, rest) = (e.ln_1p() + (-x).max(0.0), if x >= 0.0 { e } else { 1.0 } / (1.0 + e));
                ((1.0 - t) * x + share * soft, (1.0 - t) - share * rest)
            }
        }
    }
}

/// A loss over elements: prediction and target have the same extents, the result is `[1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct DifferenceLoss {
    /// What is summed.
    pub of: Difference,
    /// Mean over elements, or sum.
    pub reduction: Reduction,
}

impl Operator for DifferenceLoss {
    fn name(&self) -> &'static str {
        match self.of {
            Difference::Squared => "MSELoss",
            Difference::Absolute => "L1Loss",
            Difference::SmoothAbsolute { .. } => "SmoothL1Loss",
            Difference::Huber { .. } => "HuberLoss",
            Difference::BinaryEntropy { .. } => "BCEWithLogitsLoss",
        }
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        super::expect("prediction and target of a loss", inputs[0], inputs[1])?;
        self.of.check(inputs[0])?;
        Ok(vec![1])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let inputs = operands.iter().map(|v| cx.want(*v, Layout::Nchw)).collect::<Result<_>>()?;
        let step = LossStep { loss: self.clone(), channels: Channels::of(&cx.fact(operands[0]).dims) };
        cx.step(group, Layout::Nchw, Box::new(step), inputs, 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let dx = g.push(DifferenceGradient(self.clone()), &[g.input(0), g.input(1), g.dy()])?[0];
        if g.needs(1) {
            if let Difference::BinaryEntropy { .. } = self.of {
                return Err(Error::NoGradient { operator: "the targets of BCEWithLogitsLoss" });
            }
            // All others depend on the difference alone.
            let dt = g.scaled(dx, -1.0)?;
            g.add(1, dt)?;
        }
        g.add(0, dx)
    }
}

/// The gradient at the prediction, from prediction, target and the loss's gradient.
#[derive(Clone, Debug, PartialEq)]
struct DifferenceGradient(DifferenceLoss);

impl Operator for DifferenceGradient {
    fn name(&self) -> &'static str {
        "LossGradient"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let inputs = operands.iter().map(|v| cx.want(*v, Layout::Nchw)).collect::<Result<_>>()?;
        let step = GradientStep { loss: self.0.clone(), channels: Channels::of(&cx.fact(operands[0]).dims) };
        cx.step(group, Layout::Nchw, Box::new(step), inputs, 0)
    }
}

/// Which channel an element is of.
#[derive(Clone, Copy, Debug)]
struct Channels {
    channels: usize,
    inner: usize,
}

impl Channels {
    fn of(dims: &[usize]) -> Self {
        let inner: usize = dims.iter().skip(2).product();
        Self { channels: dims.get(1).copied().unwrap_or(1).max(1), inner: inner.max(1) }
    }

    fn weight(&self, loss: &Difference, i: usize) -> f32 {
        match loss {
            Difference::BinaryEntropy { positive: Some(w) } => w[i / self.inner % self.channels],
            _ => 1.0,
        }
    }
}

/// What an element costs, in multiply-adds.
const WORK: usize = 8;

struct LossStep {
    loss: DifferenceLoss,
    channels: Channels,
}

impl Step for LossStep {
    fn run(&self, operands: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let (x, t, of) = (operands.get(0), operands.get(1), &self.loss.of);
        let part = |range: Range<usize>| {
            range.map(|i| f64::from(of.at(x[i], t[i], self.channels.weight(of, i)).0)).sum::<f64>()
        };
        let sum = par::sum_of(x.len(), part);
        let mean = self.loss.reduction == Reduction::Mean;
        y[0] = if mean { sum / x.len() as f64 } else { sum } as f32;
    }

    fn describe(&self) -> String {
        self.loss.name().into()
    }
}

struct GradientStep {
    loss: DifferenceLoss,
    channels: Channels,
}

impl Step for GradientStep {
    fn run(&self, operands: &Operands<'_>, dx: &mut [f32], _: bool, _: &mut Scratch) {
        let (x, t, dy, of) = (operands.get(0), operands.get(1), operands.get(2)[0], &self.loss.of);
        let scale = if self.loss.reduction == Reduction::Mean { dy / x.len() as f32 } else { dy };
        par::for_each_piece(dx, 1, WORK, |at, dx| {
            for (i, dx) in at.zip(dx) {
                *dx = scale * of.at(x[i], t[i], self.channels.weight(of, i)).1;
            }
        });
    }

    fn describe(&self) -> String {
        format!("gradient of {}", self.loss.name())
    }
}
