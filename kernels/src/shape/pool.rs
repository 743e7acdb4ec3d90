use super::{Axis, Padding, Pair, ShapeError, checked_elements, positive};
use crate::layout::BLOCK;
use crate::setters;

/// The geometry of a 2-d pooling window, checked. Input `[n, c, ih, iw]`, output `[n, c, oh, ow]`.
///
/// ```
/// use swath_kernels::shape::PoolShape;
/// let s = PoolShape::builder([1, 64, 112, 112], 3).stride(2).padding(1).build()?;
/// assert_eq!(s.output(), [1, 64, 56, 56]);
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PoolShape {
    /// Images.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Input height.
    pub ih: usize,
    /// Input width.
    pub iw: usize,
    /// Output height.
    pub oh: usize,
    /// Output width.
    pub ow: usize,
    /// Window height.
    pub kh: usize,
    /// Window width.
    pub kw: usize,
    /// Vertical stride.
    pub sh: usize,
    /// Horizontal stride.
    pub sw: usize,
    /// Vertical dilation (max pooling only; average pooling has 1).
    pub dh: usize,
    /// Horizontal dilation.
    pub dw: usize,
    /// Padding of the four sides: minus infinity for max pooling, zero for average pooling.
    pub pad: Padding,
}

/// Collects a pooling window's options; see [`PoolShape::builder`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct PoolShapeBuilder {
    input: [usize; 4],
    kernel: Pair,
    stride: Pair,
    dilation: Pair,
    padding: Padding,
    ceil_mode: bool,
}

impl PoolShape {
    /// Starts from the input's `[n, c, ih, iw]` and the window, with the stride equal to the window (PyTorch's
    /// default), no padding, dilation 1 and floor mode.
    pub fn builder(input: [usize; 4], kernel: impl Into<Pair>) -> PoolShapeBuilder {
        let (kernel, dilation, padding) = (kernel.into(), Pair::ONE, Padding::default());
        PoolShapeBuilder { input, kernel, stride: kernel, dilation, padding, ceil_mode: false }
    }

    /// `[n, c, ih, iw]`.
    pub fn input(&self) -> [usize; 4] {
        [self.n, self.c, self.ih, self.iw]
    }

    /// `[n, c, oh, ow]`.
    pub fn output(&self) -> [usize; 4] {
        [self.n, self.c, self.oh, self.ow]
    }

    /// Panics if fields were changed so that they no longer describe one window; see [`ConvShape`](super::ConvShape).
    pub(crate) fn assert_consistent(&self) {
        let rebuilt = |ceil| {
            let b = Self::builder(self.input(), [self.kh, self.kw]).stride([self.sh, self.sw]);
            b.dilation([self.dh, self.dw]).padding(self.pad).ceil_mode(ceil).build()
        };
        assert!([false, true].map(rebuilt).contains(&Ok(*self)), "the shape's fields were changed after it was built");
    }
}

setters!(PoolShapeBuilder {
    /// Step between windows. Default: the window's size.
    stride: impl Into<Pair>,
    /// Step between taps. Default 1.
    dilation: impl Into<Pair>,
    /// Padding, at most half of the window on each side. Default 0.
    padding: impl Into<Padding>,
    /// Rounds the output's size up instead of down (PyTorch's `ceil_mode`): a last window may hang over the padded
    /// input by less than a stride, and be larger than all of it, but none starts beyond the input and its leading
    /// padding. Default false.
    ceil_mode: bool,
});

impl PoolShapeBuilder {
    /// Checks everything and computes the output's size.
    ///
    /// # Errors
    /// [`ShapeError`], for zero sizes, padding beyond half of the window, a window larger than the padded input (in
    /// ceil mode: by a stride or more), and sizes that overflow.
    pub fn build(self) -> Result<PoolShape, ShapeError> {
        let Self { input: [n, c, ih, iw], kernel: Pair([kh, kw]), stride, dilation, padding: pad, ceil_mode } = self;
        positive(&[("the number of channels", c)])?;
        let window = [("the window height", kh), ("the window width", kw)];
        let [vertical, horizontal] = Axis::both([ih, iw], window, stride, dilation, pad)?;
        for (axis, padding, kernel) in [("height", pad.top.max(pad.bottom), kh), ("width", pad.left.max(pad.right), kw)]
        {
            if padding > kernel / 2 {
                return Err(ShapeError::PoolPadding { axis, padding, kernel });
            }
        }
        let (oh, ow) = (vertical.output(ceil_mode)?, horizontal.output(ceil_mode)?);
        let block = c.checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX);
        checked_elements("input", &[n, block, ih, iw])?;
        checked_elements("output", &[n, block, oh, ow])?;
        let (Pair([sh, sw]), Pair([dh, dw])) = (stride, dilation);
        Ok(PoolShape { n, c, ih, iw, oh, ow, kh, kw, sh, sw, dh, dw, pad })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every small window: PyTorch's formula in signed numbers, and an error exactly where it gives less than 1.
    #[test]
    fn pooled_sizes_are_pytorchs_wherever_it_gives_one() {
        let pytorch = |input: i64, k: i64, stride: i64, dilation: i64, pad: i64, ceil: bool| {
            let numerator = input + 2 * pad - dilation * (k - 1) - 1 + if ceil { stride - 1 } else { 0 };
            let out = numerator.div_euclid(stride) + 1;
            if ceil && (out - 1) * stride >= input + pad { out - 1 } else { out }
        };
        let mut refused = 0;
        for (input, k, stride) in (1..8).flat_map(|i| (1..9).flat_map(move |k| (1..6).map(move |s| (i, k, s)))) {
            for (dilation, pad) in (1..4).flat_map(|d| (0..=k / 2).map(move |p| (d, p))) {
                for ceil in [false, true] {
                    let [i, k, s, d, p] = [input, k, stride, dilation, pad].map(|v| v as usize);
                    let shape =
                        PoolShape::builder([1, 1, i, 7], [k, 1]).stride([s, 1]).dilation([d, 1]).padding([p, 0]);
                    let ours = shape.ceil_mode(ceil).build();
                    let theirs = pytorch(input, k as i64, stride, dilation, pad, ceil);
                    match ours {
                        Ok(shape) => assert_eq!(shape.oh as i64, theirs, "{i} k{k} s{s} d{d} p{p} {ceil}"),
                        Err(ShapeError::KernelTooLarge { .. }) => {
                            assert!(theirs < 1, "{i} k{k} s{s} d{d} p{p} {ceil}");
                            refused += 1;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        }
        assert!(refused > 100);
    }
}
