//! Softmax and log-softmax over any axis.

use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::softmax::Axis;

use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::step::{Operands, Step, pass};
use crate::graph::{Gradient, Group, Lower, Operator, ValueId};

/// Softmax over one dimension of a tensor of any rank.
#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    /// The logarithm of it.
    pub log: bool,
    /// The dimension; -1 is the last.
    pub dim: isize,
}

impl Softmax {
    /// The dimension among `rank`.
    fn axis(&self, rank: usize) -> Result<usize> {
        super::axis("the dimension of Softmax", self.dim, rank)
    }

    /// Where rows lie: channels of images that are not in NCHW are contiguous in NHWC.
    fn along(&self, cx: &mut Lower<'_>, v: ValueId) -> Result<(Along, Layout)> {
        let dims = cx.fact(v).dims.clone();
        let at = self.axis(dims.len())?;
        let (log, level) = (self.log, cx.level());
        if let ([n, c, h, w], 1) = (&dims[..], at)
            && cx.native(v)?.layout != Layout::Nchw
        {
            return Ok((Along { axis: Axis::new(n * h * w, *c, 1)?, log, level }, Layout::Nhwc));
        }
        Ok((Along { axis: Axis::of(&dims, at)?, log, level }, Layout::Nchw))
    }
}

impl Operator for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "LogSoftmax" } else { "Softmax" }
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let at = self.axis(inputs[0].len())?;
        if inputs[0][at..].contains(&0) {
            return Err(Error::Rank {
                what: self.name(),
                takes: "at least one element a row",
                gets: inputs[0].to_vec(),
            });
        }
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.input(group, 0);
        let (along, layout) = self.along(cx, x)?;
        let inputs = vec![cx.want(x, layout)?];
        cx.step(group, layout, Box::new(SoftmaxStep(along)), inputs, 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let dx = g.push(SoftmaxGradient(*self), &[g.output(0), g.dy()])?;
        g.add(0, dx[0])
    }
}

/// The gradient, from the output and the gradient there.
#[derive(Clone, Copy, Debug)]
struct SoftmaxGradient(Softmax);

impl Operator for SoftmaxGradient {
    fn name(&self) -> &'static str {
        "SoftmaxGradient"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let (y, dy) = (cx.input(group, 0), cx.input(group, 1));
        let (along, layout) = self.0.along(cx, y)?;
        let inputs = vec![cx.want(y, layout)?, cx.want(dy, layout)?];
        cx.step(group, layout, Box::new(GradientStep(along)), inputs, 0)
    }
}

/// The axis of a tensor as it lies.
struct Along {
    axis: Axis,
    log: bool,
    level: Level,
}

impl Along {
    fn name(&self) -> &'static str {
        if self.log { "LogSoftmax" } else { "Softmax" }
    }
}

struct SoftmaxStep(Along);

impl Step for SoftmaxStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let softmax = if self.0.log { Axis::log_softmax } else { Axis::softmax };
        pass(self.0.level, |place| softmax(&self.0.axis, place, x.get(0), y));
    }

    fn describe(&self) -> String {
        self.0.name().into()
    }
}

struct GradientStep(Along);

impl Step for GradientStep {
    fn run(&self, x: &Operands<'_>, dx: &mut [f32], _: bool, _: &mut Scratch) {
        let backward = if self.0.log { Axis::log_softmax_backward } else { Axis::softmax_backward };
        pass(self.0.level, |place| backward(&self.0.axis, place, x.get(0), x.get(1), dx));
    }

    fn describe(&self) -> String {
        format!("{} gradient", self.0.name())
    }
}
