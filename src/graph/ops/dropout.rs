//! Dropout: the identity in inference; in training zeros at random, and the rest scaled by `1 / (1 - p)`.

use std::sync::Arc;

use swath_kernels::dropout::{Drop, Dropout as Kernel, DropoutError};
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;

use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Step, pass};
use crate::graph::{Gradient, Group, Lower, Operator};

/// Zeros elements, or whole channels, with a probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of a zero.
    pub p: f32,
    /// Whether whole channels become zero: PyTorch's `Dropout2d`.
    pub channels: bool,
}

fn probability(p: f32) -> Error {
    let rule = "a probability is between 0 and 1".into();
    Error::Setting { what: "p of Dropout", value: p.to_string(), rule }
}

impl Operator for Dropout {
    fn name(&self) -> &'static str {
        if self.channels { "Dropout2d" } else { "Dropout" }
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        if !(0.0..=1.0).contains(&self.p) {
            return Err(probability(self.p));
        }
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, _: &Group, _: &mut Lower<'_>) -> Result<()> {
        unreachable!("identities are left out before")
    }

    fn in_training(&self) -> Option<Arc<dyn Operator>> {
        Some(Arc::new(TrainingDropout(*self)))
    }

    /// Of inference, where it is the identity.
    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        g.add(0, g.dy())
    }

    fn freezes(&self) -> bool {
        true
    }

    fn is_identity(&self) -> bool {
        true
    }
}

/// Dropout in training. Input 1 is `[4]`: the step's seed in 16-bit parts, which are exact as floats. The same seed drops the same
/// elements, in the gradient too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrainingDropout(Dropout);

impl Operator for TrainingDropout {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        self.0.dims(inputs)
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let (x, seed) = (cx.input(group, 0), cx.input(group, 1));
        let Place { buffer, layout } = cx.native(x)?;
        let inputs = vec![buffer, cx.want(seed, Layout::Nchw)?];
        let step = DropoutStep::new(self.0, group.node as u64, layout, cx.extents(x), cx.level())?;
        cx.step(group, layout, Box::new(step), inputs, 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let op = DropoutGradient { op: self.0, node: g.node() as u64 };
        let dx = g.push(op, &[g.dy(), g.input(1)])?;
        g.add(0, dx[0])
    }

    fn takes_seed(&self) -> bool {
        true
    }
}

/// The same mask, on the gradient.
#[derive(Clone, Copy, Debug)]
struct DropoutGradient {
    op: Dropout,
    node: u64,
}

impl Operator for DropoutGradient {
    fn name(&self) -> &'static str {
        "DropoutGradient"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let (dy, seed) = (cx.input(group, 0), cx.input(group, 1));
        let Place { buffer, layout } = cx.native(dy)?;
        let inputs = vec![buffer, cx.want(seed, Layout::Nchw)?];
        let step = DropoutStep::new(self.op, self.node, layout, cx.extents(dy), cx.level())?;
        cx.step(group, layout, Box::new(step), inputs, 0)
    }
}

struct DropoutStep {
    op: Dropout,
    /// The forward node's number: each has random numbers of its own.
    node: u64,
    kernel: Kernel,
    level: Level,
}

impl DropoutStep {
    /// For a value in a layout.
    fn new(op: Dropout, node: u64, layout: Layout, dims: [usize; 4], level: Level) -> Result<Self> {
        let drop = if op.channels { Drop::Channels } else { Drop::Elements };
        // Elements are numbered in row-major order, so that NCHW is one long plane.
        let dims = match (layout, drop) {
            (Layout::Nchw, Drop::Elements) => [1, 1, 1, dims.iter().product()],
            _ => dims,
        };
        let refused = |e: DropoutError| match e {
            DropoutError::Shape(e) => Error::from(e),
            DropoutError::Probability(p) => probability(p),
        };
        Ok(Self { op, node, kernel: Kernel::new(layout, dims, op.p, drop).map_err(refused)?, level })
    }
}

impl Step for DropoutStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let seed = x.get(1).iter().fold(0u64, |s, &part| s << 16 | part as u64 & 0xffff);
        pass(self.level, |place| self.kernel.apply(place, [seed, self.node], x.get(0), y));
    }

    fn describe(&self) -> String {
        format!("{} of {}", self.op.name(), self.op.p)
    }
}
