//! Adaptive max pooling: the largest of each cell of a grid.

use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout, blocks};
use swath_kernels::pool::{self, AdaptiveShape};
use swath_kernels::shape::Pair;

use super::four;
use crate::conv::Scratch;
use crate::error::Result;
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Step, pass};
use crate::graph::{ElementType, Fact, Gradient, Group, Lower, Operator};

/// The largest of each cell of a grid, so that the output has the given size whatever the input's.
/// `[n, c, h, w]` to `[n, c, oh, ow]`; cell `i` covers `floor(i h / oh) .. ceil((i + 1) h / oh)`. A second result holds the number of the pixel
/// that each came from.
///
/// ```
/// use swath::nn::{AdaptiveMaxPool2d, Module};
/// let mut session = AdaptiveMaxPool2d::new([1, 2]).build(0)?.compile([1, 1, 1, 5])?;
/// assert_eq!(session.run(&[1.0, 5.0, 2.0, 3.0, 4.0])?.as_slice(), [5.0, 4.0]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct AdaptiveMaxPool2d {
    output: Pair,
}

impl AdaptiveMaxPool2d {
    /// To an output of one extent, or `[vertical, horizontal]`; 1 is the global maximum.
    pub fn new(output: impl Into<Pair>) -> Self {
        Self { output: output.into() }
    }

    fn shape(&self, input: &[usize]) -> Result<AdaptiveShape> {
        Ok(AdaptiveShape::new(four("AdaptiveMaxPool2d", input)?, self.output.0)?)
    }
}

impl Operator for AdaptiveMaxPool2d {
    fn name(&self) -> &'static str {
        "AdaptiveMaxPool2d"
    }

    fn results(&self) -> usize {
        2
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.shape(inputs[0])?.output().to_vec())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        let shape = self.shape(&inputs[0].dims)?;
        // Pixels are numbered by 32 bits.
        swath_kernels::shape::checked_elements("image", &[shape.ih, shape.iw, 1 << 17])?;
        // Room for the numbers of a blocked tensor.
        let [n, c, h, w] = shape.output();
        let pixels = Fact { dims: vec![n, blocks(c) * BLOCK, h, w], element: ElementType::U32 };
        Ok(vec![Fact::f32([n, c, h, w]), pixels])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.input(group, 0);
        let Place { buffer, layout } = cx.native(x)?;
        let step = MaxStep { shape: self.shape(&cx.fact(x).dims)?, layout, level: cx.level() };
        cx.step_all(group, &[layout, layout], Box::new(step), vec![buffer], 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let shape = self.shape(&g.fact(g.input(0)).dims)?;
        let dx = g.push(MaxGradient { shape }, &[g.dy(), g.output(1)])?;
        g.add(0, dx[0])
    }
}

struct MaxStep {
    shape: AdaptiveShape,
    layout: Layout,
    level: Level,
}

impl MaxStep {
    fn describe(&self) -> String {
        format!("AdaptiveMaxPool2d to {}x{}", self.shape.oh, self.shape.ow)
    }
}

impl Step for MaxStep {
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], _: bool, _: &mut Scratch) {
        let [y, pixels] = y else { unreachable!("values and pixels") };
        let pixels: &mut [u32] = &mut bytemuck::cast_slice_mut(pixels)[..y.len()];
        pass(self.level, |place| {
            pool::adaptive_max(place, self.layout, &self.shape, x.get(0), (&mut **y).into(), pixels.into());
        });
    }

    fn describe(&self) -> String {
        self.describe()
    }
}

/// The gradient from that at the output, and the pixels that outputs came from.
#[derive(Clone, Copy, Debug)]
struct MaxGradient {
    shape: AdaptiveShape,
}

impl Operator for MaxGradient {
    fn name(&self) -> &'static str {
        "AdaptiveMaxPool2dGradient"
    }

    fn dims(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.shape.input().to_vec())
    }

    fn facts(&self, _: &[&Fact]) -> Result<Vec<Fact>> {
        Ok(vec![Fact::f32(self.shape.input())])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let (dy, pixels) = (cx.input(group, 0), cx.input(group, 1));
        // Pixels lie as the forward pass left them.
        let Place { buffer, layout } = cx.native(pixels)?;
        let step = MaxGradientStep(MaxStep { shape: self.shape, layout, level: cx.level() });
        let inputs = vec![cx.want(dy, layout)?, buffer];
        cx.step(group, layout, Box::new(step), inputs, 0)
    }
}

struct MaxGradientStep(MaxStep);

impl Step for MaxGradientStep {
    fn run(&self, x: &Operands<'_>, dx: &mut [f32], _: bool, _: &mut Scratch) {
        let (s, dy) = (&self.0, x.get(0));
        let pixels = &bytemuck::cast_slice(x.get(1))[..dy.len()];
        pass(s.level, |place| {
            pool::adaptive_max_backward(place, s.layout, &s.shape, pixels, dy, dx.into());
        });
    }

    fn describe(&self) -> String {
        format!("{} gradient", self.0.describe())
    }
}
