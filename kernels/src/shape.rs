//! Checked geometry of convolutions and pooling: the one place that computes output sizes.
//!
//! Per axis, with PyTorch's meanings,
//!
//! ```text
//! out = floor((in + pad_before + pad_after - dilation * (kernel - 1) - 1) / stride) + 1
//! ```
//!
//! Every constructor checks sizes, divisibility and overflow, and every error carries the offending numbers.

mod pool;
mod transposed;

use thiserror::Error;

use crate::layout::{BLOCK, blocks};
use crate::setters;

pub use pool::{PoolShape, PoolShapeBuilder};
pub use transposed::{ConvTransposeShape, ConvTransposeShapeBuilder};

/// Largest number of elements a tensor may have: 2^48, a pebibyte of floats, where pointers have 64 bits. Every product of extents
/// is checked against it, so that what kernels make of them (packed weights, scratch) does not overflow while they are planned.
pub const MAX_ELEMENTS: usize = if usize::BITS < 64 { isize::MAX as usize / 8 } else { 1 << 48 };

/// What is wrong with a geometry, with both numbers that disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// A size that must be positive is zero.
    #[error("{what} is zero; it must be at least 1")]
    Zero {
        /// Which size.
        what: &'static str,
    },
    /// Input channels disagree with the weights' channels times the groups.
    #[error(
        "the input has {input} channels, but the weights expect {expected} ({per_group} per group times {groups} groups)"
    )]
    Channels {
        /// Channels of the input.
        input: usize,
        /// Channels that the weights imply.
        expected: usize,
        /// Second extent of the weights.
        per_group: usize,
        /// Number of groups.
        groups: usize,
    },
    /// The groups do not divide the channels.
    #[error("{groups} groups do not divide {channels} {what} channels")]
    Groups {
        /// `input` or `output`.
        what: &'static str,
        /// Number of groups.
        groups: usize,
        /// Number of channels.
        channels: usize,
    },
    /// The dilated kernel is larger than the padded input.
    #[error("along the {axis} the dilated kernel spans {kernel}, but the padded input only {input}")]
    KernelTooLarge {
        /// `height` or `width`.
        axis: &'static str,
        /// Extent of the dilated kernel.
        kernel: usize,
        /// Extent of the padded input.
        input: usize,
    },
    /// Pooling padding beyond half of the kernel, where windows would hold nothing but padding.
    #[error("along the {axis} the padding is {padding}, but a window of {kernel} allows at most {}", kernel / 2)]
    PoolPadding {
        /// `height` or `width`.
        axis: &'static str,
        /// The larger padding of the two sides.
        padding: usize,
        /// Kernel extent.
        kernel: usize,
    },
    /// A transposed convolution's output padding of a stride and a dilation or more.
    #[error("along the {axis} the output padding is {padding}, but must be less than {limit}")]
    OutputPadding {
        /// `height` or `width`.
        axis: &'static str,
        /// The output padding.
        padding: usize,
        /// What it must be less than.
        limit: usize,
    },
    /// A transposed convolution whose padding cuts off everything.
    #[error("along the {axis} padding of {padding} leaves nothing of the {full} outputs of a transposed convolution")]
    NoOutput {
        /// `height` or `width`.
        axis: &'static str,
        /// Padding of both sides.
        padding: usize,
        /// Outputs without padding.
        full: usize,
    },
    /// Padding by a mode that has not so many pixels to take.
    #[error("along the {axis} the padding is {padding}, but an image of {input} allows at most {most} in this mode")]
    PadTooLarge {
        /// `height` or `width`.
        axis: &'static str,
        /// The larger padding of the two sides.
        padding: usize,
        /// Extent of the image.
        input: usize,
        /// The most that is allowed.
        most: usize,
    },
    /// A product of extents is beyond what memory can hold.
    #[error("the {what} would have more than {limit} elements")]
    Overflow {
        /// Which tensor or size.
        what: &'static str,
        /// The limit: [`MAX_ELEMENTS`], or what there are tables for.
        limit: usize,
    },
}

/// Padding of the four sides, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Columns to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the right.
    pub right: usize,
}

impl From<usize> for Padding {
    fn from(p: usize) -> Self {
        Self { top: p, left: p, bottom: p, right: p }
    }
}

/// `[vertical, horizontal]`, applied to both sides.
impl From<[usize; 2]> for Padding {
    fn from([v, h]: [usize; 2]) -> Self {
        Self { top: v, left: h, bottom: v, right: h }
    }
}

/// `[top, left, bottom, right]`.
impl From<[usize; 4]> for Padding {
    fn from([top, left, bottom, right]: [usize; 4]) -> Self {
        Self { top, left, bottom, right }
    }
}

/// One extent for both axes, or `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair(pub [usize; 2]);

impl Pair {
    /// 1 for both.
    pub const ONE: Self = Self([1; 2]);
}

impl From<usize> for Pair {
    fn from(v: usize) -> Self {
        Self([v, v])
    }
}

impl From<[usize; 2]> for Pair {
    fn from(v: [usize; 2]) -> Self {
        Self(v)
    }
}

impl From<(usize, usize)> for Pair {
    fn from((v, h): (usize, usize)) -> Self {
        Self([v, h])
    }
}

/// Product of extents, or [`ShapeError::Overflow`].
pub fn checked_elements(what: &'static str, extents: &[usize]) -> Result<usize, ShapeError> {
    // Extents multiply to at most MAX_ELEMENTS even where another extent is zero, so that strides cannot overflow.
    let mut full = 1usize;
    for &e in extents {
        full = full
            .checked_mul(e.max(1))
            .filter(|&v| v <= MAX_ELEMENTS)
            .ok_or(ShapeError::Overflow { what, limit: MAX_ELEMENTS })?;
    }
    Ok(if extents.contains(&0) { 0 } else { full })
}

/// One axis of a sliding window.
struct Axis {
    name: &'static str,
    input: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    after: usize,
}

impl Axis {
    /// Height and width, if no size is zero. The kernel's two come with their names.
    fn both(
        [ih, iw]: [usize; 2],
        [v, h]: [(&'static str, usize); 2],
        Pair([sh, sw]): Pair,
        Pair([dh, dw]): Pair,
        pad: Padding,
    ) -> Result<[Self; 2], ShapeError> {
        positive(&[
            ("the input height", ih),
            ("the input width", iw),
            v,
            h,
            ("the vertical stride", sh),
            ("the horizontal stride", sw),
            ("the vertical dilation", dh),
            ("the horizontal dilation", dw),
        ])?;
        let axis = |name, input, (_, kernel), stride, dilation, before, after| Self {
            name,
            input,
            kernel,
            stride,
            dilation,
            before,
            after,
        };
        Ok([axis("height", ih, v, sh, dh, pad.top, pad.bottom), axis("width", iw, h, sw, dw, pad.left, pad.right)])
    }

    /// Number of window positions, PyTorch's way: with `ceil` the division rounds up, less one where the last window would
    /// start in the trailing padding, so that a window larger than the padded input may still have one position.
    fn output(&self, ceil: bool) -> Result<usize, ShapeError> {
        let overflow = ShapeError::Overflow { what: "padded input", limit: MAX_ELEMENTS };
        let bounded = |v: Option<usize>| v.filter(|&v| v <= MAX_ELEMENTS).ok_or(overflow);
        let span = bounded(self.dilation.checked_mul(self.kernel - 1).and_then(|v| v.checked_add(1)))?;
        let padded = bounded(self.input.checked_add(self.before).and_then(|v| v.checked_add(self.after)))?;
        let stride = bounded(Some(self.stride))?;
        let slack = if ceil { stride - 1 } else { 0 };
        let Some(steps) = (padded + slack).checked_sub(span) else {
            return Err(ShapeError::KernelTooLarge { axis: self.name, kernel: span, input: padded });
        };
        let last = steps / stride;
        let in_trailing_padding = ceil && last * stride >= self.input + self.before;
        Ok(last + usize::from(!in_trailing_padding))
    }
}

fn positive(pairs: &[(&'static str, usize)]) -> Result<(), ShapeError> {
    match pairs.iter().find(|(_, v)| *v == 0) {
        Some(&(what, _)) => Err(ShapeError::Zero { what }),
        None => Ok(()),
    }
}

/// The geometry of a 2-d convolution, checked.
///
/// Input `[n, ic, ih, iw]`, weights `[oc, ic / groups, kh, kw]`, output `[n, oc, oh, ow]`. The batch may be empty;
/// everything else is at least 1.
///
/// ```
/// use swath_kernels::shape::ConvShape;
/// let s = ConvShape::builder([1, 64, 56, 56], [128, 64, 3, 3]).stride(2).padding(1).build()?;
/// assert_eq!(s.output(), [1, 128, 28, 28]);
/// let wrong = ConvShape::builder([1, 63, 56, 56], [128, 64, 3, 3]).build().unwrap_err();
/// assert_eq!(wrong.to_string(), "the input has 63 channels, but the weights expect 64 (64 per group times 1 groups)");
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ConvShape {
    /// Images.
    pub n: usize,
    /// Input channels.
    pub ic: usize,
    /// Input height.
    pub ih: usize,
    /// Input width.
    pub iw: usize,
    /// Output channels.
    pub oc: usize,
    /// Output height.
    pub oh: usize,
    /// Output width.
    pub ow: usize,
    /// Kernel height.
    pub kh: usize,
    /// Kernel width.
    pub kw: usize,
    /// Vertical stride.
    pub sh: usize,
    /// Horizontal stride.
    pub sw: usize,
    /// Vertical dilation; 1 means adjacent taps.
    pub dh: usize,
    /// Horizontal dilation.
    pub dw: usize,
    /// Zero padding of the four sides.
    pub pad: Padding,
    /// Number of groups.
    pub groups: usize,
}

/// Collects a convolution's options; see [`ConvShape::builder`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct ConvShapeBuilder {
    input: [usize; 4],
    weights: [usize; 4],
    stride: Pair,
    dilation: Pair,
    padding: Padding,
    groups: usize,
}

impl ConvShape {
    /// Starts from the input's `[n, ic, ih, iw]` and the weights' `[oc, ic / groups, kh, kw]`, with stride 1, no
    /// padding, dilation 1 and one group.
    pub fn builder(input: [usize; 4], weights: [usize; 4]) -> ConvShapeBuilder {
        let (stride, dilation, padding) = (Pair::ONE, Pair::ONE, Padding::default());
        ConvShapeBuilder { input, weights, stride, dilation, padding, groups: 1 }
    }

    /// `[n, ic, ih, iw]`.
    pub fn input(&self) -> [usize; 4] {
        [self.n, self.ic, self.ih, self.iw]
    }

    /// `[oc, ic / groups, kh, kw]`.
    pub fn weights(&self) -> [usize; 4] {
        [self.oc, self.ic / self.groups, self.kh, self.kw]
    }

    /// `[n, oc, oh, ow]`.
    pub fn output(&self) -> [usize; 4] {
        [self.n, self.oc, self.oh, self.ow]
    }

    /// Input channels of one group.
    pub fn icg(&self) -> usize {
        self.ic / self.groups
    }

    /// Output channels of one group.
    pub fn ocg(&self) -> usize {
        self.oc / self.groups
    }

    /// Terms of the sum that an output is: taps times input channels of a group.
    pub fn terms(&self) -> usize {
        self.icg() * self.kh * self.kw
    }

    /// Multiply-adds, counting every tap, also those that fall in the padding (as benchdnn and papers do).
    pub fn macs(&self) -> u64 {
        [self.oc, self.oh, self.ow, self.icg(), self.kh, self.kw]
            .iter()
            .fold(self.n as u64, |p, &e| p.saturating_mul(e as u64))
    }

    /// Multiply-adds whose tap lies inside the image: what kernels that skip padding do.
    pub fn macs_inside(&self) -> u64 {
        // Pairs of an output and a tap that reach beyond the leading padding, less those that reach beyond the input.
        let axis = |out, stride, kernel, dilation, before: usize, input: usize| {
            let below = |limit| pairs_below(limit, [out, kernel], [stride, dilation]);
            below(before + input) - below(before)
        };
        let y = axis(self.oh, self.sh, self.kh, self.dh, self.pad.top, self.ih);
        let x = axis(self.ow, self.sw, self.kw, self.dw, self.pad.left, self.iw);
        [self.oc as u128, self.icg() as u128, y, x]
            .iter()
            .fold(self.n as u128, |p, &e| p.saturating_mul(e))
            .try_into()
            .unwrap_or(u64::MAX)
    }

    /// The same geometry for another number of images.
    pub fn with_batch(self, n: usize) -> Result<Self, ShapeError> {
        ConvShape { n, ..self }.check()
    }

    /// Blocks of output channels in which one of the first groups starts, and those behind them, which lie inside a group where that is so
    /// long. They stand for all: where groups start in blocks repeats after a block of them.
    pub(crate) fn blocks_near_starts(&self) -> impl Iterator<Item = usize> {
        let (ocg, end) = (self.ocg(), blocks(self.oc));
        let starts = (0..self.groups.min(BLOCK)).map(move |g| g * ocg / BLOCK);
        starts.flat_map(|b| [b, b + 1]).filter(move |&b| b < end)
    }

    /// Whether every group has one input channel (depthwise, with any multiplier).
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.icg() == 1
    }

    /// Whether each output takes one pixel, so that rows need not be told apart: a kernel of 1x1 without padding, at any stride.
    pub fn is_pointwise(&self) -> bool {
        (self.kh, self.kw) == (1, 1) && self.pad == Padding::default()
    }

    /// Panics if fields were changed so that they no longer describe one convolution. Kernels call it when they are
    /// planned: their memory safety rests on a shape that the builder would make.
    pub(crate) fn assert_consistent(&self) {
        let rebuilt = Self::builder(self.input(), self.weights())
            .stride([self.sh, self.sw])
            .dilation([self.dh, self.dw])
            .padding(self.pad)
            .groups(self.groups);
        assert_eq!(rebuilt.build(), Ok(*self), "the shape's fields were changed after it was built");
    }

    fn check(self) -> Result<Self, ShapeError> {
        // Blocked tensors round channels up to the block, so overflow is checked on the rounded sizes.
        let block = |c: usize| c.checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX);
        checked_elements("input", &[self.n, block(self.ic), self.ih, self.iw])?;
        checked_elements("weights", &[block(self.oc), block(self.icg()), self.kh, self.kw])?;
        checked_elements("output", &[self.n, block(self.oc), self.oh, self.ow])?;
        Ok(self)
    }
}

setters!(ConvShapeBuilder {
    /// Step between windows: one number, or `[vertical, horizontal]`. Default 1.
    stride: impl Into<Pair>,
    /// Step between taps: one number, or `[vertical, horizontal]`. Default 1, adjacent taps.
    dilation: impl Into<Pair>,
    /// Zero padding: one number, `[vertical, horizontal]`, or `[top, left, bottom, right]`. Default 0.
    padding: impl Into<Padding>,
    /// Number of groups; `ic` groups make it depthwise. Default 1.
    groups: usize,
});

impl ConvShapeBuilder {
    /// Checks everything and computes the output's size.
    ///
    /// # Errors
    /// [`ShapeError`], for zero sizes, channels that disagree, groups that do not divide, a kernel larger than the
    /// padded input, and sizes that overflow.
    pub fn build(self) -> Result<ConvShape, ShapeError> {
        let ([n, ic, ih, iw], [oc, icg, kh, kw]) = (self.input, self.weights);
        let Self { stride, dilation, padding: pad, groups, .. } = self;
        positive(&[
            ("the number of input channels", ic),
            ("the number of output channels", oc),
            ("the weights' number of input channels", icg),
            ("the number of groups", groups),
        ])?;
        let kernel = [("the kernel height", kh), ("the kernel width", kw)];
        let [vertical, horizontal] = Axis::both([ih, iw], kernel, stride, dilation, pad)?;
        for (what, channels) in [("input", ic), ("output", oc)] {
            if channels % groups != 0 {
                return Err(ShapeError::Groups { what, groups, channels });
            }
        }
        let expected = icg.saturating_mul(groups);
        if expected != ic {
            return Err(ShapeError::Channels { input: ic, expected, per_group: icg, groups });
        }
        let (oh, ow) = (vertical.output(false)?, horizontal.output(false)?);
        let (Pair([sh, sw]), Pair([dh, dw])) = (stride, dilation);
        ConvShape { n, ic, ih, iw, oc, oh, ow, kh, kw, sh, sw, dh, dw, pad, groups }.check()
    }
}

/// How many pairs of `i` below the first and `j` below the second extent have `i * steps[0] + j * steps[1] < limit`. In logarithmic
/// time: extents may be as large as tensors.
fn pairs_below(limit: usize, [first, second]: [usize; 2], steps: [usize; 2]) -> u128 {
    let [limit, first, second, a, b] = [limit, first, second, steps[0], steps[1]].map(|v| v as u128);
    // For the first `whole` numbers `j` every `i` is a pair, for those from `some` on none.
    let some = limit.div_ceil(b).min(second);
    let whole = limit.saturating_sub((first - 1) * a).div_ceil(b).min(some);
    let rest = some - whole;
    if rest == 0 {
        return whole * first;
    }
    // Of the others as many as ceil((limit - j * b) / a), added from the last one on.
    let last = limit - (some - 1) * b;
    whole * first + sum_of_floors(rest, a, b, last + a - 1)
}

/// The sum of floor((a * i + b) / m) over `i` below `n`, by Euclid's algorithm.
fn sum_of_floors(mut n: u128, mut m: u128, mut a: u128, mut b: u128) -> u128 {
    let mut sum = 0;
    loop {
        sum += n * (n - 1) / 2 * (a / m) + n * (b / m);
        (a, b) = (a % m, b % m);
        let top = a * n + b;
        if top < m {
            return sum;
        }
        // Points below a line, counted from the other axis.
        (n, b, m, a) = (top / m, top % m, a, m);
    }
}

/// For window position `o` on one axis, the range of taps that fall inside the input: taps `k` with
/// `0 <= o * stride + k * dilation - before < input`.
#[inline]
pub fn taps_inside(
    o: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    kernel: usize,
    input: usize,
) -> core::ops::Range<usize> {
    let start = o * stride;
    let lo = if start >= before { 0 } else { (before - start).div_ceil(dilation) };
    let hi = if start >= before + input { 0 } else { (before + input - start).div_ceil(dilation) };
    let hi = hi.min(kernel);
    lo.min(hi)..hi
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_sizes_follow_pytorch() {
        let s = ConvShape::builder([2, 3, 224, 224], [64, 3, 7, 7]).stride(2).padding(3).build().unwrap();
        assert_eq!(s.output(), [2, 64, 112, 112]);
        let s =
            ConvShape::builder([1, 8, 20, 18], [12, 8, 3, 3]).padding([4, 0, 1, 3]).dilation([3, 2]).build().unwrap();
        assert_eq!(s.output(), [1, 12, 19, 17]);
        assert_eq!(s.macs(), 12 * 19 * 17 * 8 * 9);
        let p = PoolShape::builder([1, 16, 7, 7], 3).stride(2).ceil_mode(true).build().unwrap();
        assert_eq!(p.output(), [1, 16, 3, 3]);
        let p = PoolShape::builder([1, 4, 10, 10], 5).stride(3).padding(2).ceil_mode(true).build().unwrap();
        assert_eq!(p.output(), [1, 4, 4, 4]);
    }

    #[test]
    fn refusals_carry_both_numbers() {
        let conv = |input, weights| ConvShape::builder(input, weights);
        let text = |r: Result<ConvShape, ShapeError>| r.unwrap_err().to_string();
        assert!(text(conv([1, 6, 5, 5], [4, 3, 3, 3]).groups(4).build()).contains("4 groups do not divide 6 input"));
        assert!(text(conv([1, 4, 5, 5], [6, 1, 3, 3]).groups(4).build()).contains("4 groups do not divide 6 output"));
        assert!(
            text(conv([1, 4, 2, 9], [6, 4, 3, 3]).build())
                .contains("height the dilated kernel spans 3, but the padded input only 2")
        );
        assert!(text(conv([1, 0, 2, 9], [6, 4, 3, 3]).build()).contains("input channels is zero"));
        assert!(text(conv([usize::MAX, 4, 5, 5], [6, 4, 3, 3]).build()).contains("more than"));
        assert!(text(conv([1, 4, 5, 5], [6, 4, 3, 3]).padding(usize::MAX / 2).build()).contains("more than"));
        assert!(text(conv([1, 4, 5, 5], [6, 4, 3, 3]).dilation(usize::MAX).build()).contains("more than"));
        assert!(conv([0, 4, 5, 5], [6, 4, 3, 3]).build().is_ok(), "an empty batch is no error");
    }

    #[test]
    fn multiply_adds_are_counted_without_counting() {
        for (input, kernel, stride, dilation) in
            (1..9).flat_map(|i| (1..6).flat_map(move |k| (1..5).flat_map(move |s| (1..4).map(move |d| (i, k, s, d)))))
        {
            for (before, after) in [(0, 0), (1, 1), (0, 3), (4, 2), (7, 9)] {
                let shape = ConvShape::builder([1, 1, input, 1], [1, 1, kernel, 1]).stride(stride).dilation(dilation);
                let Ok(s) = shape.padding([before, 0, after, 0]).build() else { continue };
                let taps = |o| taps_inside(o, stride, dilation, before, kernel, input).len() as u64;
                assert_eq!(s.macs_inside(), (0..s.oh).map(taps).sum::<u64>(), "{s:?}");
            }
        }
        let far = ConvShape::builder([1, 16, 1, 1], [16, 16, 1, 1]).padding([1 << 40, 0]).build().unwrap();
        assert_eq!((far.oh, far.macs_inside()), ((1 << 41) + 1, 256));
        let wide = ConvShape::builder([1, 1, 1 << 40, 1], [1, 1, 1 << 39, 1]).stride(3).padding([1 << 38, 0]);
        assert!(wide.build().unwrap().macs_inside() > 1 << 60);
    }

    #[test]
    fn taps_inside_matches_its_definition() {
        for (stride, dilation, before, kernel, input) in
            [(1, 1, 1, 3, 5), (2, 3, 4, 3, 7), (3, 2, 2, 5, 4), (1, 12, 12, 3, 33), (1, 1, 2, 3, 1)]
        {
            for o in 0..40 {
                let inside: Vec<usize> =
                    (0..kernel).filter(|k| (before..before + input).contains(&(o * stride + k * dilation))).collect();
                let r = taps_inside(o, stride, dilation, before, kernel, input);
                assert_eq!(r.collect::<Vec<_>>(), inside, "o {o}");
            }
        }
    }
}
