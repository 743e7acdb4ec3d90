//! Sums and means over axes, and the repetition that is their gradient.

use swath_kernels::arith::{Arith, Operand};
use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout};

use super::arith::summed;
use super::broadcast::{Pairs, broadcast};
use crate::conv::Scratch;
use crate::error::Result;
use crate::graph::step::{Operands, Step, pass};
use crate::graph::{Gradient, Group, Lower, Operator, ValueId};
use crate::par;

/// The sum or the mean over some axes, PyTorch's `sum(dim)` and `mean(dim)`. Sums are in f64, in row-major order; those of images over
/// pixels, or over images and pixels, in f32 within 64 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduce {
    pub(crate) axes: Vec<isize>,
    pub(crate) keep: bool,
    pub(crate) mean: bool,
}

impl Reduce {
    /// The sum over axes, of which -1 is the last; over all where there are none. The axes remain, with extent 1, if `keep`.
    pub fn sum(axes: &[isize], keep: bool) -> Self {
        Self { axes: axes.to_vec(), keep, mean: false }
    }

    /// The mean.
    pub fn mean(axes: &[isize], keep: bool) -> Self {
        Self { axes: axes.to_vec(), keep, mean: true }
    }

    /// Sums of an image over its pixels, or over images and pixels.
    fn lower_image(&self, group: &Group, cx: &mut Lower<'_>, operand: Operand) -> Result<()> {
        let x = cx.input(group, 0);
        let dims = cx.extents(x);
        let [n, c, h, w] = dims;
        let (mut layout, pixels) = (cx.native(x)?.layout, operand == Operand::Pixels);
        if pixels && !self.keep && !c.is_multiple_of(BLOCK) && layout == Layout::Blocked {
            layout = Layout::Nchw; // the result has no channels that pad
        }
        let inputs = vec![cx.want(x, layout)?];
        let arith = Arith::new(layout, dims, operand)?;
        let count = if pixels { h * w } else { n * h * w };
        let scale = if self.mean { (1.0 / count as f64) as f32 } else { 1.0 };
        let step = ImageStep { name: self.name(), arith, scale, level: cx.level() };
        let of_result = if pixels && self.keep { layout } else { Layout::Nchw };
        cx.step(group, of_result, Box::new(step), inputs, arith.scratch())
    }

    /// Which of `rank` axes are reduced.
    fn mask(&self, rank: usize) -> Result<Vec<bool>> {
        let mut mask = vec![self.axes.is_empty(); rank];
        for &axis in &self.axes {
            mask[super::axis("the axis of a reduction", axis, rank)?] = true;
        }
        Ok(mask)
    }
}

impl Operator for Reduce {
    fn name(&self) -> &'static str {
        if self.mean { "Mean" } else { "Sum" }
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let mask = self.mask(inputs[0].len())?;
        let kept = inputs[0].iter().zip(&mask).filter(|(_, reduced)| !**reduced || self.keep);
        Ok(kept.map(|(&e, &reduced)| if reduced { 1 } else { e }).collect())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.input(group, 0);
        let dims = cx.fact(x).dims.clone();
        if let Some(operand) = summed(&dims, &self.mask(dims.len())?) {
            return self.lower_image(group, cx, operand);
        }
        let step = ReduceStep::new(&dims, &self.mask(dims.len())?, self.mean);
        let inputs = vec![cx.want(x, Layout::Nchw)?];
        cx.step(group, Layout::Nchw, Box::new(step), inputs, 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let dims = g.fact(g.input(0)).dims.clone();
        let mask = self.mask(dims.len())?;
        let kept: Vec<usize> = dims.iter().zip(&mask).map(|(&e, &reduced)| if reduced { 1 } else { e }).collect();
        let dy = g.push(super::Reshape::to(&kept), &[g.dy()])?[0];
        let count: usize = dims.iter().zip(&mask).filter(|(_, reduced)| **reduced).map(|(e, _)| e).product();
        let dx = g.push(Expand { dims }, &[dy])?[0];
        let dx = if self.mean { g.scaled(dx, 1.0 / count.max(1) as f32)? } else { dx };
        g.add(0, dx)
    }
}

/// Sums a gradient over the axes along which a value of extents `dims` was repeated.
pub(super) fn sum_to(g: &mut Gradient<'_>, d: ValueId, dims: &[usize]) -> Result<ValueId> {
    let from = g.fact(d).dims.clone();
    if from == dims {
        return Ok(d);
    }
    let outer = from.len() - dims.len();
    let repeated = |i: &usize| *i < outer || dims[i - outer] == 1 && from[*i] != 1;
    let axes: Vec<isize> = (0..from.len()).filter(repeated).map(|i| i as isize).collect();
    let sum = if axes.is_empty() { d } else { g.push(Reduce::sum(&axes, true), &[d])?[0] };
    Ok(g.push(super::Reshape::to(dims), &[sum])?[0])
}

/// Extents and strides of the axes that are reduced, and of those that stay.
struct ReduceStep {
    name: &'static str,
    kept: Vec<[usize; 2]>,
    reduced: Vec<[usize; 2]>,
    /// What sums are multiplied by.
    scale: f64,
}

impl ReduceStep {
    fn new(dims: &[usize], mask: &[bool], mean: bool) -> Self {
        let (mut kept, mut reduced, mut stride) = (Vec::new(), Vec::new(), 1);
        for (&extent, &is_reduced) in dims.iter().zip(mask).rev() {
            if is_reduced { &mut reduced } else { &mut kept }.insert(0, [extent, stride]);
            stride *= extent;
        }
        let count: usize = reduced.iter().map(|[extent, _]| extent).product();
        let (name, scale) = if mean { ("Mean", 1.0 / count as f64) } else { ("Sum", 1.0) };
        Self { name, kept, reduced, scale }
    }
}

struct ImageStep {
    name: &'static str,
    arith: Arith,
    /// What sums are multiplied by.
    scale: f32,
    level: Level,
}

impl Step for ImageStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, scratch: &mut Scratch) {
        let scratch = scratch.take(self.arith.scratch()).expect("it was reserved");
        pass(self.level, |place| self.arith.sum(place, x.get(0), self.scale, y, scratch));
    }

    fn describe(&self) -> String {
        self.name.into()
    }
}

/// The offset of element `i` of some axes.
fn offset(axes: &[[usize; 2]], mut i: usize) -> usize {
    let mut at = 0;
    for [extent, stride] in axes.iter().rev() {
        at += i % extent * stride;
        i /= extent;
    }
    at
}

impl Step for ReduceStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let x = x.get(0);
        let ([outer @ .., inner], work) = (&self.reduced[..], self.reduced.iter().map(|[e, _]| e).product()) else {
            return y.copy_from_slice(x);
        };
        let rows: usize = outer.iter().map(|[extent, _]| extent).product();
        par::for_each_piece(y, 1, work, |places, y| {
            for (i, y) in places.zip(y) {
                let start = offset(&self.kept, i);
                let row = |r: usize| x[start + offset(outer, r)..].iter().step_by(inner[1]).take(inner[0]);
                let sum: f64 = (0..rows).map(|r| row(r).map(|&v| f64::from(v)).sum::<f64>()).sum();
                *y = (sum * self.scale) as f32;
            }
        });
    }

    fn describe(&self) -> String {
        self.name.into()
    }
}

/// Repeats a value along its extents of 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expand {
    /// The extents to repeat to; missing outer ones count as 1.
    pub dims: Vec<usize>,
}

impl Operator for Expand {
    fn name(&self) -> &'static str {
        "Expand"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        broadcast("Expand", inputs[0], &self.dims)
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.input(group, 0);
        let of = &cx.fact(x).dims[..];
        let step = ExpandStep(Pairs::new([of; 2], &cx.result(group).dims, Layout::Nchw));
        let inputs = vec![cx.want(x, Layout::Nchw)?];
        cx.step(group, Layout::Nchw, Box::new(step), inputs, 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let dims = g.fact(g.input(0)).dims.clone();
        let dx = sum_to(g, g.dy(), &dims)?;
        g.add(0, dx)
    }
}

/// The repetition of a value in row-major order.
struct ExpandStep(Pairs);

impl Step for ExpandStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let x = x.get(0);
        self.0.apply(x, x, y, |a, _| a);
    }

    fn describe(&self) -> String {
        "Expand".into()
    }
}
