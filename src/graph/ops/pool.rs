//! Max, average and adaptive average pooling.

use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout};
use swath_kernels::pool::{self, AdaptiveShape, Divisor, Part};
use swath_kernels::shape::{Padding, Pair, PoolShape, ShapeError, checked_elements};

use super::Operator;
use super::conv::four;
use super::forward::{Forward, Operands};
use crate::conv::Scratch;
use crate::error::Result;
use crate::par;

/// Options that both sliding windows share.
#[derive(Clone, Copy, Debug)]
struct Window {
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

    fn shape(&self, what: &'static str, input: &[usize]) -> Result<PoolShape> {
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
pub struct MaxPool2d(Window);

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

    pub(crate) fn forward(&self, input: &[usize], layout: Layout, level: Level) -> Result<Pooling> {
        Ok(Pooling { kind: Kind::Max(self.0.shape("MaxPool2d", input)?), layout, level })
    }
}

impl Operator for MaxPool2d {
    fn name(&self) -> &'static str {
        "MaxPool2d"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.0.shape("MaxPool2d", inputs[0])?.output().to_vec())
    }
}

/// The mean of every window. `[n, c, h, w]` to `[n, c, oh, ow]`.
///
/// PyTorch's options and defaults: the stride is the window's size, no padding, floor mode, padding is counted, and the
/// divisor is the number of elements.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct AvgPool2d {
    window: Window,
    divisor: Divisor,
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

    fn shape(&self, input: &[usize]) -> Result<PoolShape> {
        if self.divisor == Divisor::Fixed(0) {
            return Err(ShapeError::Zero { what: "the divisor of AvgPool2d" }.into());
        }
        self.window.shape("AvgPool2d", input)
    }

    pub(crate) fn forward(&self, input: &[usize], layout: Layout, level: Level) -> Result<Pooling> {
        Ok(Pooling { kind: Kind::Avg(self.shape(input)?, self.divisor), layout, level })
    }
}

impl Operator for AvgPool2d {
    fn name(&self) -> &'static str {
        "AvgPool2d"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.shape(inputs[0])?.output().to_vec())
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

    pub(crate) fn forward(&self, input: &[usize], layout: Layout, level: Level) -> Result<Pooling> {
        let shape = AdaptiveShape::new(four(self.name(), input)?, self.output.0)?;
        Ok(Pooling { kind: Kind::AdaptiveAvg(shape), layout, level })
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
}

enum Kind {
    Max(PoolShape),
    Avg(PoolShape, Divisor),
    AdaptiveAvg(AdaptiveShape),
}

/// A pooling with its geometry; input and output have one layout.
pub(crate) struct Pooling {
    kind: Kind,
    layout: Layout,
    level: Level,
}

impl Forward for Pooling {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let (output, taps) = match &self.kind {
            Kind::Max(s) | Kind::Avg(s, _) => (s.output(), s.kh * s.kw),
            Kind::AdaptiveAvg(s) => (s.output(), (s.ih * s.iw).div_ceil(s.oh * s.ow)),
        };
        let x = x.get(0);
        // Rows of the output are contiguous, so pieces of it are whole rows.
        let row = pool::row_len(self.layout, output);
        par::for_each_piece(y, row, taps, |rows, y| {
            let part = Part { level: self.level, layout: self.layout, rows };
            match &self.kind {
                Kind::Max(s) => pool::max(&part, s, x, y, None),
                Kind::Avg(s, divisor) => pool::average(&part, s, x, y, *divisor),
                Kind::AdaptiveAvg(s) => pool::adaptive_average(&part, s, x, y),
            }
        });
    }

    fn describe(&self) -> String {
        match &self.kind {
            Kind::Max(s) => format!("MaxPool2d {}x{}/{}x{}", s.kh, s.kw, s.sh, s.sw),
            Kind::Avg(s, _) => format!("AvgPool2d {}x{}/{}x{}", s.kh, s.kw, s.sh, s.sw),
            Kind::AdaptiveAvg(s) => format!("AdaptiveAvgPool2d to {}x{}", s.oh, s.ow),
        }
    }
}
