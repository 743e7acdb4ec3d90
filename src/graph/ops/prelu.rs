//! PReLU: `max(x, 0) + slope * min(x, 0)`, with one slope, or one for each channel, that is trained.

use std::array;

use swath_kernels::layout::{BLOCK, Layout, blocks};

use super::four;
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Planes, Step};
use crate::graph::{Gradient, Group, Lower, Operator};
use crate::par;

/// Parametric ReLU of images; input 1 is the slopes, `[1]` or `[c]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PRelu;

fn check(name: &'static str, x: &[usize], slopes: &[usize]) -> Result<()> {
    let [_, c, _, _] = four(name, x)?;
    match *slopes {
        [n] if n == 1 || n == c => Ok(()),
        _ => Err(Error::Channels { what: "PReLU", takes: slopes.iter().product(), gets: c }),
    }
}

impl Operator for PRelu {
    fn name(&self) -> &'static str {
        "PReLU"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        check("PReLU", inputs[0], inputs[1])?;
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let (x, slopes) = (cx.input(group, 0), cx.input(group, 1));
        let Place { buffer, layout } = cx.native(x)?;
        let inputs = vec![buffer, cx.want(slopes, Layout::Nchw)?];
        cx.step(group, layout, Box::new(PReluStep { layout, dims: cx.extents(x) }), inputs, 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let d = g.push(PReluGradient, &[g.input(0), g.input(1), g.dy()])?;
        g.add(0, d[0])?;
        let dims = g.fact(g.input(1)).dims.clone();
        if g.needs(1) {
            // Of each element; their sums are the slopes'.
            let axes: &[isize] = if dims == [1] { &[] } else { &[0, 2, 3] };
            let sum = g.push(super::Reduce::sum(axes, false), &[d[1]])?[0];
            let sum = g.push(super::Reshape::to(&dims), &[sum])?[0];
            g.add(1, sum)?;
        }
        Ok(())
    }
}

/// Calls `f` with rows of the output, and the slopes of a pixel's channels: one for all, or one for each.
fn rows(layout: Layout, dims: [usize; 4], slopes: &[f32], y: &mut [f32], f: impl Fn(usize, &mut [f32], &[f32]) + Sync) {
    let planes = Planes::new(layout, dims);
    let row = planes.w * planes.inner;
    let [_, c, h, _] = dims;
    par::for_each_piece(y, row, 2, |places, y| {
        for (r, y) in places.zip(y.chunks_exact_mut(row)) {
            match (slopes, layout) {
                ([_], _) | (_, Layout::Nhwc) => f(r * row, y, slopes),
                (_, Layout::Nchw) => f(r * row, y, &slopes[r / h % c..][..1]),
                (_, Layout::Blocked) => {
                    let first = r / h % blocks(c) * BLOCK;
                    let lanes: [f32; BLOCK] = array::from_fn(|lane| slopes.get(first + lane).copied().unwrap_or(0.0));
                    f(r * row, y, &lanes);
                }
            }
        }
    });
}

/// Calls `f` with each number of a row, its place, and the slope of its channel.
fn each(y: &mut [f32], slopes: &[f32], f: impl Fn(usize, &mut f32, f32)) {
    if let [slope] = *slopes {
        y.iter_mut().enumerate().for_each(|(i, v)| f(i, v, slope));
    } else if let Ok(slopes) = <&[f32; BLOCK]>::try_from(slopes) {
        // Of a known length, so that the compiler uses vectors.
        for (px, y) in y.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            y.iter_mut().zip(slopes).enumerate().for_each(|(lane, (v, slope))| f(px * BLOCK + lane, v, *slope));
        }
    } else {
        for (px, y) in y.chunks_exact_mut(slopes.len()).enumerate() {
            y.iter_mut().zip(slopes).enumerate().for_each(|(c, (v, slope))| f(px * slopes.len() + c, v, *slope));
        }
    }
}

struct PReluStep {
    layout: Layout,
    dims: [usize; 4],
}

impl Step for PReluStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], in_place: bool, _: &mut Scratch) {
        let source = if in_place { &[] } else { x.get(0) };
        rows(self.layout, self.dims, x.get(1), y, |at, y, slopes| {
            // NaN stays.
            let prelu = |v: f32, slope: f32| if v < 0.0 { v * slope } else { v };
            if in_place {
                each(y, slopes, |_, v, slope| *v = prelu(*v, slope));
            } else {
                let source = &source[at..][..y.len()];
                each(y, slopes, |i, v, slope| *v = prelu(source[i], slope));
            }
        });
    }

    fn in_place(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        "PReLU".into()
    }
}

/// Gradients at the input, and at the slope that each element has; from input, slopes and the gradient at the output.
#[derive(Clone, Copy, Debug)]
struct PReluGradient;

impl Operator for PReluGradient {
    fn name(&self) -> &'static str {
        "PReLUGradient"
    }

    fn results(&self) -> usize {
        2
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn facts(&self, inputs: &[&crate::graph::Fact]) -> Result<Vec<crate::graph::Fact>> {
        Ok(vec![inputs[0].clone(), inputs[0].clone()])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let Place { buffer, layout } = cx.native(operands[0])?;
        let inputs = vec![buffer, cx.want(operands[1], Layout::Nchw)?, cx.want(operands[2], layout)?];
        let step = PReluGradientStep { layout, dims: cx.extents(operands[0]) };
        cx.step_all(group, &[layout; 2], Box::new(step), inputs, 0)
    }
}

struct PReluGradientStep {
    layout: Layout,
    dims: [usize; 4],
}

impl Step for PReluGradientStep {
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], _: bool, _: &mut Scratch) {
        let [dx, ds] = y else { unreachable!("two gradients") };
        let (source, slopes, dy) = (x.get(0), x.get(1), x.get(2));
        rows(self.layout, self.dims, slopes, dx, |at, dx, slopes| {
            let (source, dy) = (&source[at..][..dx.len()], &dy[at..][..dx.len()]);
            each(dx, slopes, |i, v, slope| *v = if source[i] > 0.0 { dy[i] } else { dy[i] * slope });
        });
        rows(self.layout, self.dims, slopes, ds, |at, ds, slopes| {
            let (source, dy) = (&source[at..][..ds.len()], &dy[at..][..ds.len()]);
            each(ds, slopes, |i, v, _| *v = if source[i] > 0.0 { 0.0 } else { dy[i] * source[i] });
        });
    }

    fn describe(&self) -> String {
        "PReLU gradient".into()
    }
}
