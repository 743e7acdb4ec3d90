//! Sum, difference, product, quotient, minimum and maximum of two values; extents of 1 are repeated.

use swath_kernels::arith::Op;
use swath_kernels::layout::{BLOCK, Layout};

use super::arith::Repeated;
use super::broadcast::{Pairs, broadcast};
use super::view::Reshape;
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Step, clear_padding};
use crate::graph::{Gradient, Group, Lower, Operator, ValueId};
use crate::par;
use crate::tensor::Tensor;

/// What is computed of each pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    /// How much of the maximum's gradient is the first operand's: 0 where it is less, half where both are equal, else 1. Of the
    /// minimum's it is the second one's.
    NotLess,
}

/// Arithmetic on two values, element by element. Extents of 1, and missing outer ones, are repeated, as in NumPy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binary(Kind);

impl Binary {
    /// `a + b`
    pub fn add() -> Self {
        Self(Kind::Add)
    }

    /// `a - b`
    pub fn sub() -> Self {
        Self(Kind::Sub)
    }

    /// `a * b`
    pub fn mul() -> Self {
        Self(Kind::Mul)
    }

    /// `a / b`
    pub fn div() -> Self {
        Self(Kind::Div)
    }

    /// The smaller one; NaN if either is.
    pub fn min() -> Self {
        Self(Kind::Min)
    }

    /// The larger one; NaN if either is.
    pub fn max() -> Self {
        Self(Kind::Max)
    }

    /// Whether `0 op 0` is 0, so that padding channels stay zero.
    fn keeps_zero(self) -> bool {
        !matches!(self.0, Kind::Div | Kind::NotLess)
    }

    /// As an operation of an image with what is repeated to its extents.
    fn repeated(self, a: &[usize], b: &[usize]) -> Option<Repeated> {
        let ops = match self.0 {
            Kind::Add => [Op::Add; 2],
            Kind::Sub => [Op::Sub, Op::SubFrom],
            Kind::Mul => [Op::Mul; 2],
            Kind::Div => [Op::Div, Op::DivInto],
            _ => return None,
        };
        Repeated::of(ops, [a, b])
    }
}

// Here, and not with the rest of `Gradient`: products and sums are operators of this file.
impl Gradient<'_> {
    /// A value times a number.
    ///
    /// # Errors
    /// If memory does not suffice.
    pub fn scaled(&mut self, v: ValueId, factor: f32) -> Result<ValueId> {
        let factor = self.builder.constant(Tensor::new([1], &[factor])?);
        let rank = self.fact(v).dims.len();
        let product = self.push(Binary::mul(), &[v, factor])?[0];
        match rank {
            0 => Ok(self.push(Reshape::to(&[]), &[product])?[0]),
            _ => Ok(product),
        }
    }

    /// Adds to the gradient of input `i`, if it needs one.
    ///
    /// # Errors
    /// If the extents are not the input's.
    pub fn add(&mut self, i: usize, d: ValueId) -> Result<()> {
        if !self.needs(i) {
            return Ok(());
        }
        let input = self.input(i);
        let sum = match self.gradients.get(&input) {
            Some(&other) => self.push(Binary::add(), &[other, d])?[0],
            None => d,
        };
        self.gradients.insert(input, sum);
        Ok(())
    }
}

impl Operator for Binary {
    fn name(&self) -> &'static str {
        match self.0 {
            Kind::Add => "Add",
            Kind::Sub => "Sub",
            Kind::Mul => "Mul",
            Kind::Div => "Div",
            Kind::Min => "Min",
            Kind::Max => "Max",
            Kind::NotLess => "Share",
        }
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let dims = broadcast(self.name(), inputs[0], inputs[1])?;
        swath_kernels::shape::checked_elements("result", &dims)?;
        Ok(dims)
    }

    /// Images in the layout of the operand that is not repeated, blocked if either is; others in row-major order.
    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let [a, b] = [cx.input(group, 0), cx.input(group, 1)];
        let dims = cx.result(group).dims.clone();
        if let Some(repeated) = self.repeated(&cx.fact(a).dims, &cx.fact(b).dims) {
            return repeated.lower(group, cx, self.name());
        }
        let whole = |cx: &Lower<'_>, v: ValueId| cx.fact(v).dims == dims;
        let four = |cx: &Lower<'_>, v: ValueId| cx.fact(v).dims.len() == 4 || cx.fact(v).len() == 1;
        let mut layout = Layout::Nchw;
        if dims.len() == 4 && four(cx, a) && four(cx, b) {
            let mut native = Vec::new();
            for v in [a, b] {
                if whole(cx, v) {
                    native.push(cx.native(v)?.layout);
                }
            }
            layout = match native[..] {
                [x, y] if x == Layout::Blocked || y == Layout::Blocked => Layout::Blocked,
                [x, ..] => x,
                [] => Layout::Nchw,
            };
        }
        let mut inputs = Vec::new();
        for v in [a, b] {
            // A single element lies at the start, whatever the layout.
            let Place { buffer, .. } =
                if cx.fact(v).len() == 1 { cx.native(v)? } else { Place { buffer: cx.want(v, layout)?, layout } };
            inputs.push(buffer);
        }
        let pairs = Pairs::new([&cx.fact(a).dims, &cx.fact(b).dims], &dims, layout);
        let same = cx.fact(a).dims == dims && cx.fact(b).dims == dims;
        let step = BinaryStep { op: *self, pairs, same, dims, layout };
        cx.step(group, layout, Box::new(step), inputs, 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let (a, b, dy) = (g.input(0), g.input(1), g.dy());
        if let (Kind::Mul | Kind::Div, Some(repeated)) = (self.0, self.repeated(&g.fact(a).dims, &g.fact(b).dims)) {
            return repeated.gradient(g);
        }
        let [da, db] = match self.0 {
            Kind::Add => [Some(dy), Some(dy)],
            Kind::Sub => {
                let negative = g.needs(1).then(|| g.scaled(dy, -1.0)).transpose()?;
                [Some(dy), negative]
            }
            Kind::Mul => {
                let da = g.needs(0).then(|| g.push(Binary::mul(), &[dy, b])).transpose()?.map(|v| v[0]);
                [da, g.needs(1).then(|| g.push(Binary::mul(), &[dy, a])).transpose()?.map(|v| v[0])]
            }
            Kind::Div => {
                let da = g.push(Binary::div(), &[dy, b])?[0];
                let db = if g.needs(1) {
                    let y = g.output(0);
                    let product = g.push(Binary::mul(), &[da, y])?[0];
                    Some(g.scaled(product, -1.0)?)
                } else {
                    None
                };
                [Some(da), db]
            }
            Kind::Min | Kind::Max => {
                let of = |g: &mut Gradient<'_>, i: usize| -> Result<Option<ValueId>> {
                    if !g.needs(i) {
                        return Ok(None);
                    }
                    let pair = if (i == 0) == (self.0 == Kind::Max) { [a, b] } else { [b, a] };
                    let share = g.push(Binary(Kind::NotLess), &pair)?[0];
                    Ok(Some(g.push(Binary::mul(), &[dy, share])?[0]))
                };
                [of(g, 0)?, of(g, 1)?]
            }
            Kind::NotLess => return Err(Error::NoGradient { operator: self.name() }),
        };
        for (i, d) in [da, db].into_iter().enumerate() {
            if let Some(d) = d
                && g.needs(i)
            {
                let dims = g.fact(g.input(i)).dims.clone();
                let reduced = super::reduce::sum_to(g, d, &dims)?;
                g.add(i, reduced)?;
            }
        }
        Ok(())
    }

    fn is_sum(&self) -> bool {
        self.0 == Kind::Add
    }
}

/// PyTorch's share of a gradient: of NaN, whole.
fn share(none: bool, half: bool) -> f32 {
    match (none, half) {
        (true, _) => 0.0,
        (_, true) => 0.5,
        _ => 1.0,
    }
}

struct BinaryStep {
    op: Binary,
    pairs: Pairs,
    /// Whether neither operand is repeated.
    same: bool,
    dims: Vec<usize>,
    layout: Layout,
}

impl BinaryStep {
    fn apply(&self, x: &Operands<'_>, y: &mut [f32], in_place: bool, f: impl Fn(f32, f32) -> f32 + Copy + Sync) {
        let b = x.get(1);
        if self.same {
            let a = if in_place { &[] } else { x.get(0) };
            // A line of floats as the unit, of which the last piece may hold a part.
            return par::for_each_piece(y, BLOCK.min(y.len().max(1)), 1, |lines, y| {
                let here = lines.start * BLOCK..lines.start * BLOCK + y.len();
                if in_place {
                    y.iter_mut().zip(&b[here]).for_each(|(y, b)| *y = f(*y, *b));
                } else {
                    y.iter_mut().zip(a[here.clone()].iter().zip(&b[here])).for_each(|(y, (a, b))| *y = f(*a, *b));
                }
            });
        }
        self.pairs.apply(x.get(0), b, y, f);
    }
}

impl Step for BinaryStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], in_place: bool, _: &mut Scratch) {
        match self.op.0 {
            Kind::Add => self.apply(x, y, in_place, |a, b| a + b),
            Kind::Sub => self.apply(x, y, in_place, |a, b| a - b),
            Kind::Mul => self.apply(x, y, in_place, |a, b| a * b),
            Kind::Div => self.apply(x, y, in_place, |a, b| a / b),
            Kind::Min => self.apply(x, y, in_place, |a, b| if a < b || a.is_nan() { a } else { b }),
            Kind::Max => self.apply(x, y, in_place, |a, b| if a > b || a.is_nan() { a } else { b }),
            Kind::NotLess => self.apply(x, y, in_place, |a, b| share(a < b, a == b)),
        }
        // What is repeated reaches the padding channels, too.
        if let (Layout::Blocked, &[n, c, h, w]) = (self.layout, &self.dims[..])
            && !(self.same && self.op.keeps_zero())
        {
            clear_padding(self.layout, [n, c, h, w], y);
        }
    }

    fn in_place(&self) -> bool {
        self.same
    }

    fn commutes(&self) -> bool {
        matches!(self.op.0, Kind::Add | Kind::Mul)
    }

    fn describe(&self) -> String {
        self.op.name().into()
    }
}
