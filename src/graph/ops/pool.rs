//! Max, average and adaptive average pooling.

use std::sync::Arc;

use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout, blocks};
use swath_kernels::pool::{self, AdaptiveShape, Divisor};
use swath_kernels::shape::{Padding, Pair, PoolShape, ShapeError, checked_elements};

use super::four;
use crate::conv::Scratch;
use crate::error::Result;
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Step, pass};
use crate::graph::{ElementType, Fact, Gradient, Group, Lower, Operator};

/// Options that both sliding windows share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    kernel: Pair,
    stride: Pair,
    pad: Padding,
    dilation: Pair,
    ceil: bool,
}

impl Window {
    fn new(kernel: Pair) -> Self {
        Self { kernel, stride: kernel, pad: Padding::default(), dilation: Pair([1, 1]), ceil: false }
    }

    pub(crate) fn shape(&self, what: &'static str, input: &[usize]) -> Result<PoolShape> {
        Ok(PoolShape::builder(four(what, input)?, self.kernel)
            .stride(self.stride)
            .padding(self.pad)
            .dilation(self.dilation)
            .ceil_mode(self.ceil)
            .build()?)
    }
}

/// The largest of every window. `[n, c, h, w]` to `[n, c, oh, ow]`.
///
/// PyTorch's options and defaults: the stride is the window's size, no padding, dilation 1, floor mode. Padding counts as
/// minus infinity, and is at most half of the window.
///
/// ```
/// use swath::nn::{MaxPool2d, Module};
/// let pool = MaxPool2d::new(3).stride(2).padding(1);
/// assert_eq!(pool.build(0)?.output_dims([1, 64, 112, 112])?, [1, 64, 56, 56]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct MaxPool2d(pub(crate) Window);

impl MaxPool2d {
    /// A window of one extent, or `[vertical, horizontal]`.
    pub fn new(kernel: impl Into<Pair>) -> Self {
        Self(Window::new(kernel.into()))
    }

    /// Step between windows. Default: the window's size.
    pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
        self.0.stride = stride.into();
        self
    }

    /// Padding: one number, `[vertical, horizontal]` or `[top, left, bottom, right]`. Default 0.
    pub fn padding(mut self, padding: impl Into<Padding>) -> Self {
        self.0.pad = padding.into();
        self
    }

    /// Step between the elements of a window. Default 1.
    pub fn dilation(mut self, dilation: impl Into<Pair>) -> Self {
        self.0.dilation = dilation.into();
        self
    }

    /// Rounds the output's size up. Default false.
    pub fn ceil_mode(mut self, ceil: bool) -> Self {
        self.0.ceil = ceil;
        self
    }
}

impl Operator for MaxPool2d {
    fn name(&self) -> &'static str {
        "MaxPool2d"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.0.shape("MaxPool2d", inputs[0])?.output().to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        lower(group, cx, |dims| Ok(Kind::Max(self.0.shape("MaxPool2d", dims)?)))
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let op = MaxPoolGradient { window: self.0, input: g.fact(g.input(0)).dims.clone() };
        let dx = g.push(op, &[g.dy(), g.output(1)])?;
        g.add(0, dx[0])
    }

    fn in_training(&self) -> Option<Arc<dyn Operator>> {
        Some(Arc::new(MaxPoolTaps(self.0)))
    }
}

/// The mean of every window. `[n, c, h, w]` to `[n, c, oh, ow]`.
///
/// PyTorch's options and defaults: the stride is the window's size, no padding, floor mode, padding is counted, and the
/// divisor is the number of elements.
///
/// ```
/// use swath::{Tensor, nn::*};
/// let pool = AvgPool2d::new(2).stride(1).padding(1).count_include_pad(false);
/// let mut session = pool.build(0)?.compile([1, 1, 1, 2])?;
/// assert_eq!(session.run(&Tensor::new([1, 1, 1, 2], &[1.0, 3.0])?)?.as_slice(), [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct AvgPool2d {
    window: Window,
    pub(crate) divisor: Divisor,
}

impl AvgPool2d {
    /// A window of one extent, or `[vertical, horizontal]`.
    pub fn new(kernel: impl Into<Pair>) -> Self {
        Self { window: Window::new(kernel.into()), divisor: Divisor::Padded }
    }

    /// Step between windows. Default: the window's size.
    pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
        self.window.stride = stride.into();
        self
    }

    /// Padding: one number, `[vertical, horizontal]` or `[top, left, bottom, right]`. Default 0.
    pub fn padding(mut self, padding: impl Into<Padding>) -> Self {
        self.window.pad = padding.into();
        self
    }

    /// Rounds the output's size up. Default false.
    pub fn ceil_mode(mut self, ceil: bool) -> Self {
        self.window.ceil = ceil;
        self
    }

    /// Whether padding counts as zeros that are part of the mean. Default true. Overrides
    /// [`AvgPool2d::divisor_override`], and the other way round.
    pub fn count_include_pad(mut self, include: bool) -> Self {
        self.divisor = if include { Divisor::Padded } else { Divisor::Inside };
        self
    }

    /// Divides by this number instead.
    pub fn divisor_override(mut self, divisor: usize) -> Self {
        self.divisor = Divisor::Fixed(divisor);
        self
    }

    pub(crate) fn shape(&self, input: &[usize]) -> Result<PoolShape> {
        if self.divisor == Divisor::Fixed(0) {
            return Err(ShapeError::Zero { what: "the divisor of AvgPool2d" }.into());
        }
        self.window.shape("AvgPool2d", input)
    }
}

impl Operator for AvgPool2d {
    fn name(&self) -> &'static str {
        "AvgPool2d"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.shape(inputs[0])?.output().to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        lower(group, cx, |dims| Ok(Kind::Avg(self.shape(dims)?, self.divisor)))
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let input = g.fact(g.input(0)).dims.clone();
        let kind = Kind::Avg(self.shape(&input)?, self.divisor);
        let dx = g.push(AverageGradient { kind, input }, &[g.dy()])?;
        g.add(0, dx[0])
    }
}

/// Means over a grid of cells, so that the output has the given size whatever the input's.
/// `[n, c, h, w]` to `[n, c, oh, ow]`; cell `i` covers `floor(i h / oh) .. ceil((i + 1) h / oh)`.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct AdaptiveAvgPool2d {
    output: Pair,
}

impl AdaptiveAvgPool2d {
    /// To an output of one extent, or `[vertical, horizontal]`; 1 is the global mean.
    pub fn new(output: impl Into<Pair>) -> Self {
        Self { output: output.into() }
    }

    fn shape(&self, input: &[usize]) -> Result<AdaptiveShape> {
        Ok(AdaptiveShape::new(four("AdaptiveAvgPool2d", input)?, self.output.0)?)
    }
}

impl Operator for AdaptiveAvgPool2d {
    fn name(&self) -> &'static str {
        "AdaptiveAvgPool2d"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let ([n, c, h, w], [oh, ow]) = (four(self.name(), inputs[0])?, self.output.0);
        let sizes = [
            ("the input height of AdaptiveAvgPool2d", h),
            ("the input width of AdaptiveAvgPool2d", w),
            ("the output height of AdaptiveAvgPool2d", oh),
            ("the output width of AdaptiveAvgPool2d", ow),
        ];
        if let Some(&(what, _)) = sizes.iter().find(|(_, v)| *v == 0) {
            return Err(ShapeError::Zero { what }.into());
        }
        checked_elements("output", &[n, c.saturating_add(BLOCK - 1), oh, ow])?;
        Ok(vec![n, c, oh, ow])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        lower(group, cx, |dims| Ok(Kind::AdaptiveAvg(self.shape(dims)?)))
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let input = g.fact(g.input(0)).dims.clone();
        let kind = Kind::AdaptiveAvg(self.shape(&input)?);
        let dx = g.push(AverageGradient { kind, input }, &[g.dy()])?;
        g.add(0, dx[0])
    }
}

/// Appends the pooling of input 0 in the layout that it has.
fn lower(group: &Group, cx: &mut Lower<'_>, kind: impl FnOnce(&[usize]) -> Result<Kind>) -> Result<()> {
    let x = cx.input(group, 0);
    let Place { buffer, layout } = cx.native(x)?;
    let step = Pooling { kind: kind(&cx.fact(x).dims)?, layout, level: cx.level() };
    cx.step(group, layout, Box::new(step), vec![buffer], 0)
}

/// Max pooling that also tells which tap of each window won, for the gradient.
#[derive(Clone, Copy, Debug)]
struct MaxPoolTaps(Window);

impl MaxPoolTaps {
    /// Taps are numbered by a byte where a window has so few, else by 16 bits.
    fn element(&self) -> ElementType {
        let [kh, kw] = self.0.kernel.0;
        if kh * kw < 255 { ElementType::U8 } else { ElementType::U16 }
    }
}

impl Operator for MaxPoolTaps {
    fn name(&self) -> &'static str {
        "MaxPool2d"
    }

    fn results(&self) -> usize {
        2
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.0.shape("MaxPool2d", inputs[0])?.output().to_vec())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        let dims = self.dims(&[&inputs[0].dims])?;
        // Room for the taps of a blocked tensor.
        let [n, c, h, w] = four("MaxPool2d", &dims)?;
        let taps = vec![n, blocks(c) * BLOCK, h, w];
        Ok(vec![Fact::f32(dims), Fact { dims: taps, element: self.element() }])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.input(group, 0);
        let Place { buffer, layout } = cx.native(x)?;
        let shape = self.0.shape("MaxPool2d", &cx.fact(x).dims)?;
        let step = TapsStep { shape, layout, level: cx.level(), wide: self.element() == ElementType::U16 };
        cx.step_all(group, &[layout, layout], Box::new(step), vec![buffer], 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        MaxPool2d(self.0).gradient(g)
    }
}

struct TapsStep {
    shape: PoolShape,
    layout: Layout,
    level: Level,
    wide: bool,
}

impl Step for TapsStep {
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], _: bool, _: &mut Scratch) {
        let [y, taps] = y else { unreachable!("values and taps") };
        let (x, len) = (x.get(0), y.len());
        pass(self.level, |place| {
            if self.wide {
                let taps: &mut [u16] = &mut bytemuck::cast_slice_mut(taps)[..len];
                pool::max_taps(place, self.layout, &self.shape, x, (&mut **y).into(), taps.into());
            } else {
                let taps: &mut [u8] = &mut bytemuck::cast_slice_mut(taps)[..len];
                pool::max_taps(place, self.layout, &self.shape, x, (&mut **y).into(), taps.into());
            }
        });
    }

    fn describe(&self) -> String {
        format!("{} with taps", Kind::Max(self.shape).describe())
    }
}

/// The gradient of max pooling from the gradient at its output and its taps.
#[derive(Clone, Debug)]
struct MaxPoolGradient {
    window: Window,
    input: Vec<usize>,
}

impl Operator for MaxPoolGradient {
    fn name(&self) -> &'static str {
        "MaxPool2dGradient"
    }

    fn dims(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.input.clone())
    }

    fn facts(&self, _: &[&Fact]) -> Result<Vec<Fact>> {
        Ok(vec![Fact::f32(self.input.clone())])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let (dy, taps) = (cx.input(group, 0), cx.input(group, 1));
        // Taps lie as the forward pass left them.
        let Place { buffer, layout } = cx.native(taps)?;
        let shape = self.window.shape("MaxPool2d", &self.input)?;
        let wide = MaxPoolTaps(self.window).element() == ElementType::U16;
        let step = MaxGradientStep(TapsStep { shape, layout, level: cx.level(), wide });
        let inputs = vec![cx.want(dy, layout)?, buffer];
        cx.step(group, layout, Box::new(step), inputs, 0)
    }
}

struct MaxGradientStep(TapsStep);

impl Step for MaxGradientStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let (s, dy, taps) = (&self.0, x.get(0), x.get(1));
        pass(s.level, |place| {
            if s.wide {
                let taps = &bytemuck::cast_slice(taps)[..dy.len()];
                pool::max_backward::<u16>(place, s.layout, &s.shape, taps, dy, y.into());
            } else {
                let taps = &bytemuck::cast_slice(taps)[..dy.len()];
                pool::max_backward::<u8>(place, s.layout, &s.shape, taps, dy, y.into());
            }
        });
    }

    fn describe(&self) -> String {
        format!("{} gradient", Kind::Max(self.0.shape).describe())
    }
}

/// The gradient of average pooling, also adaptive, from the gradient at its output.
#[derive(Clone, Debug)]
struct AverageGradient {
    kind: Kind,
    input: Vec<usize>,
}

impl Operator for AverageGradient {
    fn name(&self) -> &'static str {
        "AvgPool2dGradient"
    }

    fn dims(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.input.clone())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let dy = cx.input(group, 0);
        let Place { buffer, layout } = cx.native(dy)?;
        let step = AverageGradientStep { kind: self.kind, layout, level: cx.level() };
        cx.step(group, layout, Box::new(step), vec![buffer], 0)
    }
}

struct AverageGradientStep {
    kind: Kind,
    layout: Layout,
    level: Level,
}

impl Step for AverageGradientStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let (dy, dx) = (x.get(0), y.into());
        pass(self.level, |place| {
            match &self.kind {
                Kind::Avg(s, divisor) => pool::average_backward(place, self.layout, s, *divisor, dy, dx),
                Kind::AdaptiveAvg(s) => pool::adaptive_average_backward(place, self.layout, s, dy, dx),
                Kind::Max(_) => unreachable!("max pooling has taps"),
            };
        });
    }

    fn describe(&self) -> String {
        format!("{} gradient", self.kind.describe())
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Max(PoolShape),
    Avg(PoolShape, Divisor),
    AdaptiveAvg(AdaptiveShape),
}

impl Kind {
    fn describe(&self) -> String {
        match self {
            Kind::Max(s) => format!("MaxPool2d {}x{}/{}x{}", s.kh, s.kw, s.sh, s.sw),
            Kind::Avg(s, _) => format!("AvgPool2d {}x{}/{}x{}", s.kh, s.kw, s.sh, s.sw),
            Kind::AdaptiveAvg(s) => format!("AdaptiveAvgPool2d to {}x{}", s.oh, s.ow),
        }
    }
}

/// A pooling with its geometry; input and output have one layout.
struct Pooling {
    kind: Kind,
    layout: Layout,
    level: Level,
}

impl Step for Pooling {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let (x, y) = (x.get(0), y.into());
        pass(self.level, |place| {
            match &self.kind {
                Kind::Max(s) => pool::max(place, self.layout, s, x, y, None),
                Kind::Avg(s, divisor) => pool::average(place, self.layout, s, x, y, *divisor),
                Kind::AdaptiveAvg(s) => pool::adaptive_average(place, self.layout, s, x, y),
            };
        });
    }

    fn describe(&self) -> String {
        self.kind.describe()
    }
}
