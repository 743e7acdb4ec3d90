//! PReLU: `max(x, 0) + slope * min(x, 0)`, with one slope, or one for each channel, that is trained.

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

/// Calls `f` with rows of the output, and the slopes of their pixels.
fn rows(
    layout: Layout,
    dims: [usize; 4],
    slopes: &[f32],
    y: &mut [f32],
    f: impl Fn(usize, &mut [f32], &dyn Fn(usize) -> f32) + Sync,
) {
    let planes = Planes::new(layout, dims);
    let row = planes.w * planes.inner;
    let [_, c, h, _] = dims;
    par::for_each_piece(y, row, 2, |places, y| {
        for (r, y) in places.zip(y.chunks_exact_mut(row)) {
            let first = match layout {
                Layout::Nchw => r / h % c,
                Layout::Nhwc => 0,
                Layout::Blocked => r / h % blocks(c) * BLOCK,
            };
            let slope = |lane: usize| match slopes {
                [one] => *one,
                all => all.get(first + lane).copied().unwrap_or(0.0),
            };
            f(r * row, y, &slope);
        }
    });
}

struct PReluStep {
    layout: Layout,
    dims: [usize; 4],
}

impl Step for PReluStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], in_place: bool, _: &mut Scratch) {
        let source = if in_place { &[] } else { x.get(0) };
        let inner = Planes::new(self.layout, self.dims).inner;
        let each = |at: usize, y: &mut [f32], slope: &dyn Fn(usize) -> f32| {
            if !in_place {
                y.copy_from_slice(&source[at..at + y.len()]);
            }
            for px in y.chunks_exact_mut(inner) {
                for (lane, v) in px.iter_mut().enumerate() {
                    // NaN stays.
                    *v = if *v < 0.0 { *v * slope(lane) } else { *v };
                }
            }
        };
        rows(self.layout, self.dims, x.get(1), y, each);
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
        let inner = Planes::new(self.layout, self.dims).inner;
        let of_input = |at: usize, y: &mut [f32], slope: &dyn Fn(usize) -> f32| {
            for (i, v) in y.iter_mut().enumerate() {
                *v = if source[at + i] > 0.0 { dy[at + i] } else { dy[at + i] * slope(i % inner) };
            }
        };
        rows(self.layout, self.dims, slopes, dx, of_input);
        let of_slope = |at: usize, y: &mut [f32], _: &dyn Fn(usize) -> f32| {
            for (i, v) in y.iter_mut().enumerate() {
                *v = if source[at + i] > 0.0 { 0.0 } else { dy[at + i] * source[at + i] };
            }
        };
        rows(self.layout, self.dims, slopes, ds, of_slope);
    }

    fn describe(&self) -> String {
        "PReLU gradient".into()
    }
}
