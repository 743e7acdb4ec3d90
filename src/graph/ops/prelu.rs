//! PReLU: `max(x, 0) + slope * min(x, 0)`, with one slope, or one for each channel, that is trained.

use std::array;

use swath_kernels::arith::PRelu as Kernel;
use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout, blocks};

use super::four;
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Planes, Step, pass};
use crate::graph::{Fact, Gradient, Group, Lower, Operator};
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
        g.add(1, d[1])
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

/// Gradients at the image and at the slopes; from image, slopes and the gradient at the output.
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

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        Ok(vec![inputs[0].clone(), inputs[1].clone()])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let Place { buffer, layout } = cx.native(operands[0])?;
        let inputs = vec![buffer, cx.want(operands[1], Layout::Nchw)?, cx.want(operands[2], layout)?];
        let prelu = Kernel::new(layout, cx.extents(operands[0]), cx.fact(operands[1]).len())?;
        let step = GradientStep { prelu, level: cx.level() };
        let scratch = step.prelu.scratch();
        cx.step_all(group, &[layout, Layout::Nchw], Box::new(step), inputs, scratch)
    }
}

struct GradientStep {
    prelu: Kernel,
    level: Level,
}

impl Step for GradientStep {
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], _: bool, scratch: &mut Scratch) {
        let [dx, dw] = y else { unreachable!("two gradients") };
        let prelu = &self.prelu;
        let scratch = scratch.take(prelu.scratch()).expect("it was reserved");
        let operands = [x.get(0), x.get(1), x.get(2)];
        pass(self.level, |place| prelu.backward(place, operands, Some(dx), Some(dw), scratch));
    }

    fn describe(&self) -> String {
        "PReLU gradient".into()
    }
}
