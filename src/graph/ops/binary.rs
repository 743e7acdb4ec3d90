//! Sum, difference, product, quotient, minimum and maximum of two values; extents of 1 are repeated.

use swath_kernels::arith::Op;
use swath_kernels::layout::{BLOCK, Layout, blocks};

use super::arith::Repeated;
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Step, clear_padding};
use crate::graph::{Gradient, Group, Lower, Operator, ValueId};
use crate::par;

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

/// The extents that two values are repeated to.
pub(crate) fn broadcast(what: &'static str, a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |d: &[usize], i: usize| if i + d.len() >= rank { d[i + d.len() - rank] } else { 1 };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(Error::Shapes { what, left: a.to_vec(), right: b.to_vec() }),
        })
        .collect()
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
        let mut views = Vec::new();
        let mut inputs = Vec::new();
        for v in [a, b] {
            let of = cx.fact(v).dims.clone();
            // A single element lies at the start, whatever the layout.
            let Place { buffer, .. } =
                if cx.fact(v).len() == 1 { cx.native(v)? } else { Place { buffer: cx.want(v, layout)?, layout } };
            inputs.push(buffer);
            views.push(strides(&of, &dims, layout));
        }
        let extents = physical(&dims, layout);
        let same = cx.fact(a).dims == dims && cx.fact(b).dims == dims;
        let step = BinaryStep { op: *self, extents, views: [views.remove(0), views.remove(0)], same, dims, layout };
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

/// Extents of a tensor as it lies: of a blocked one `[n, c / 16, h, w, 16]`.
fn physical(dims: &[usize], layout: Layout) -> Vec<usize> {
    match (layout, dims) {
        (Layout::Blocked, &[n, c, h, w]) => vec![n, blocks(c), h, w, BLOCK],
        (Layout::Nhwc, &[n, c, h, w]) => vec![n, h, w, c],
        _ => dims.to_vec(),
    }
}

/// Distances in floats along the [`physical`] extents of the result, in an operand of extents `of`: 0 where it is repeated.
fn strides(of: &[usize], dims: &[usize], layout: Layout) -> Vec<usize> {
    let mut padded = vec![1; dims.len() - of.len()];
    padded.extend(of);
    let extents = physical(&padded, layout);
    let mut strides = vec![0; extents.len()];
    let mut step = 1;
    for (i, &e) in extents.iter().enumerate().rev() {
        // A single channel lies in the first lane of its block.
        let repeated = e == 1 || layout == Layout::Blocked && matches!(i, 1 | 4) && padded[1] == 1;
        strides[i] = if repeated { 0 } else { step };
        step *= e;
    }
    strides
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
    /// Extents of the result as it lies.
    extents: Vec<usize>,
    /// Strides of the operands along them.
    views: [Vec<usize>; 2],
    /// Whether neither operand is repeated.
    same: bool,
    dims: Vec<usize>,
    layout: Layout,
}

impl BinaryStep {
    /// Computes rows of the innermost extent, from row `first` on.
    fn rows(&self, first: usize, a: &[f32], b: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32 + Copy) {
        let rank = self.extents.len();
        let row = self.extents.last().copied().unwrap_or(1);
        let inner = [self.views[0].last().copied().unwrap_or(0), self.views[1].last().copied().unwrap_or(0)];
        for (i, y) in y.chunks_mut(row).enumerate() {
            let mut rest = first + i;
            let mut at = [0; 2];
            for axis in (0..rank.saturating_sub(1)).rev() {
                let k = rest % self.extents[axis];
                rest /= self.extents[axis];
                (0..2).for_each(|o| at[o] += k * self.views[o][axis]);
            }
            let (a, b) = (&a[at[0]..], &b[at[1]..]);
            match inner {
                [0, 0] => y.fill(f(a[0], b[0])),
                [0, _] => y.iter_mut().zip(b).for_each(|(y, b)| *y = f(a[0], *b)),
                [_, 0] => y.iter_mut().zip(a).for_each(|(y, a)| *y = f(*a, b[0])),
                _ => y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| *y = f(*a, *b)),
            }
        }
    }

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
        let (a, row) = (x.get(0), self.extents.last().copied().unwrap_or(1));
        if row > 0 {
            par::for_each_piece(y, row, 1, |rows, y| self.rows(rows.start, a, b, y, f));
        }
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

/// The repetition of a value in row-major order.
pub(super) struct ExpandStep(BinaryStep);

impl ExpandStep {
    pub(super) fn new(of: &[usize], dims: &[usize]) -> Self {
        let layout = Layout::Nchw;
        let view = strides(of, dims, layout);
        let views = [view.clone(), view];
        Self(BinaryStep { op: Binary::add(), extents: dims.to_vec(), views, same: false, dims: dims.to_vec(), layout })
    }
}

impl Step for ExpandStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let (x, row) = (x.get(0), self.0.extents.last().copied().unwrap_or(1));
        if row > 0 {
            par::for_each_piece(y, row, 1, |rows, y| self.0.rows(rows.start, x, x, y, |a, _| a));
        }
    }

    fn describe(&self) -> String {
        "Expand".into()
    }
}
