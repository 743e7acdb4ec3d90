//! Arithmetic of an image with a value that is repeated over its pixels, images or channels, by kernels in every layout.

use swath_kernels::arith::{Arith, Op, Operand};
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;

use crate::conv::Scratch;
use crate::error::Result;
use crate::graph::lower::{Place, extents};
use crate::graph::step::{Operands, Step, pass};
use crate::graph::{Fact, Gradient, Group, Lower, Operator, ValueId};

/// An operation on two values, one of which is an image and the other repeated to its extents.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeated {
    pub(super) op: Op,
    operand: Operand,
    /// Which input is the image: 0 or 1.
    image: usize,
}

impl Repeated {
    /// Whether it is one: an operation by its place of the image, first or second.
    pub(super) fn of(ops: [Op; 2], inputs: [&[usize]; 2]) -> Option<Self> {
        (0..2).find_map(|image| {
            let operand = repeated(inputs[image], inputs[1 - image])?;
            Some(Self { op: ops[image], operand, image })
        })
    }

    fn arith(&self, layout: Layout, dims: &[usize]) -> Result<Arith> {
        Ok(Arith::new(layout, extents(dims), self.operand)?)
    }

    /// The buffer of what is repeated, where the image lies in `layout`.
    fn small(&self, cx: &mut Lower<'_>, v: ValueId, layout: Layout) -> Result<usize> {
        match self.operand {
            Operand::Scalar | Operand::Channels => cx.want(v, Layout::Nchw),
            _ => cx.want(v, layout),
        }
    }

    /// Appends the step.
    pub(super) fn lower(self, group: &Group, cx: &mut Lower<'_>, name: &'static str) -> Result<()> {
        let values = [cx.input(group, self.image), cx.input(group, 1 - self.image)];
        let Place { buffer, layout } = cx.native(values[0])?;
        let arith = self.arith(layout, &cx.fact(values[0]).dims)?;
        let inputs = vec![buffer, self.small(cx, values[1], layout)?];
        let step = ArithStep { op: self.op, arith, level: cx.level(), name };
        cx.step(group, layout, Box::new(step), inputs, arith.scratch())
    }

    /// Appends the gradients at both inputs, of a product or a quotient.
    pub(super) fn gradient(self, g: &mut Gradient<'_>) -> Result<()> {
        let at = [self.image, 1 - self.image];
        let wanted = at.map(|i| g.needs(i));
        let d = g.push(RepeatedGradient { of: self, wanted }, &[g.input(at[0]), g.input(at[1]), g.dy()])?;
        let mut d = d.into_iter();
        for (i, _) in at.into_iter().zip(wanted).filter(|(_, wanted)| *wanted) {
            g.add(i, d.next().expect("a gradient for each that is wanted"))?;
        }
        Ok(())
    }
}

/// How `small` is repeated to the image's extents, where the kernels have that.
fn repeated(image: &[usize], small: &[usize]) -> Option<Operand> {
    let &[n, c, _, _] = image else { return None };
    match *small {
        _ if image == small || small.len() > 4 => None,
        _ if small.iter().all(|&e| e == 1) => Some(Operand::Scalar),
        [k, 1, 1] | [1, k, 1, 1] if k == c => Some(Operand::Channels),
        [m, k, 1, 1] if m == n && k == c => Some(Operand::Pixels),
        _ => None,
    }
}

/// Over which axes a sum of an image is one of the kernels'.
pub(super) fn summed(dims: &[usize], reduced: &[bool]) -> Option<Operand> {
    match (dims.len(), reduced) {
        (4, [false, false, true, true]) => Some(Operand::Pixels),
        (4, [true, false, true, true]) => Some(Operand::Channels),
        _ => None,
    }
}

struct ArithStep {
    op: Op,
    arith: Arith,
    level: Level,
    name: &'static str,
}

impl Step for ArithStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, scratch: &mut Scratch) {
        let scratch = scratch.take(self.arith.scratch()).expect("it was reserved");
        pass(self.level, |place| self.arith.forward(place, self.op, x.get(0), x.get(1), y, scratch));
    }

    fn describe(&self) -> String {
        format!("{}, repeated", self.name)
    }
}

/// Gradients at the image and at what is repeated, those that are wanted, from both and the gradient at the result.
#[derive(Clone, Copy, Debug)]
struct RepeatedGradient {
    of: Repeated,
    wanted: [bool; 2],
}

impl Operator for RepeatedGradient {
    fn name(&self) -> &'static str {
        "RepeatedGradient"
    }

    fn results(&self) -> usize {
        self.wanted.into_iter().filter(|w| *w).count()
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[usize::from(!self.wanted[0])].to_vec())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        Ok((0..2).filter(|&i| self.wanted[i]).map(|i| inputs[i].clone()).collect())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let values = cx.inputs(group);
        let Place { buffer, layout } = cx.native(values[0])?;
        let arith = self.of.arith(layout, &cx.fact(values[0]).dims)?;
        let inputs = vec![buffer, self.of.small(cx, values[1], layout)?, cx.want(values[2], layout)?];
        let of_small = if self.of.operand == Operand::Pixels { layout } else { Layout::Nchw };
        let layouts: Vec<Layout> = (0..2).filter(|&i| self.wanted[i]).map(|i| [layout, of_small][i]).collect();
        let step = GradientStep { op: self.of.op, arith, wanted: self.wanted, level: cx.level() };
        cx.step_all(group, &layouts, Box::new(step), inputs, arith.scratch())
    }
}

struct GradientStep {
    op: Op,
    arith: Arith,
    wanted: [bool; 2],
    level: Level,
}

impl Step for GradientStep {
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], _: bool, scratch: &mut Scratch) {
        let scratch = scratch.take(self.arith.scratch()).expect("it was reserved");
        let mut results = y.iter_mut();
        let [da, db] = self.wanted.map(|wanted| if wanted { results.next().map(|y| &mut **y) } else { None });
        let operands = [x.get(0), x.get(1), x.get(2)];
        pass(self.level, |place| self.arith.backward(place, self.op, operands, da, db, scratch));
    }

    fn describe(&self) -> String {
        format!("{:?}, repeated, gradient", self.op)
    }
}
