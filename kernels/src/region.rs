//! Cuts outputs into regions whose windows meet the same taps, so that no kernel computes a tap that lies in the padding.
//!
//! Along one axis, the outputs whose windows hang over the same edge taps form a [`Segment`]. For a 3-tap kernel with
//! padding 1 they are the first output, all inner ones, and the last. A region is the product of two segments.

use core::ops::Range;

use crate::shape::{ConvShape, taps_inside};

/// One axis of a sliding window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub output: usize,
    pub input: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub before: usize,
}

/// Output positions that share their valid taps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Segment {
    pub out: Range<usize>,
    pub taps: Range<usize>,
}

impl Axis {
    /// The vertical axis.
    pub fn y(s: &ConvShape) -> Self {
        Self { output: s.oh, input: s.ih, kernel: s.kh, stride: s.sh, dilation: s.dh, before: s.pad.top }
    }

    /// The horizontal axis.
    pub fn x(s: &ConvShape) -> Self {
        Self { output: s.ow, input: s.iw, kernel: s.kw, stride: s.sw, dilation: s.dw, before: s.pad.left }
    }

    /// An axis of one tap and nothing else.
    pub fn pixels(n: usize) -> Self {
        Self { output: n, input: n, kernel: 1, stride: 1, dilation: 1, before: 0 }
    }

    /// Output positions whose windows lie inside the input altogether.
    pub fn interior(&self) -> Range<usize> {
        let lo = self.before.div_ceil(self.stride);
        let reach = (self.before + self.input).checked_sub((self.kernel - 1) * self.dilation + 1);
        let hi = reach.map_or(0, |r| r / self.stride + 1).min(self.output);
        lo.min(hi)..hi
    }

    /// Input positions that the windows of `outputs` adjacent outputs read: not those that a stride steps over.
    pub fn read(&self, outputs: usize) -> usize {
        let reach = (outputs - 1) * self.stride + (self.kernel - 1) * self.dilation + 1;
        reach.min(outputs.saturating_mul(self.kernel)).min(self.input)
    }

    /// Taps of output `o` that lie inside the input.
    #[inline]
    pub fn taps(&self, o: usize) -> Range<usize> {
        taps_inside(o, self.stride, self.dilation, self.before, self.kernel, self.input)
    }

    /// Outputs whose tap `k` lies inside the input.
    pub fn outputs(&self, k: usize) -> Range<usize> {
        let tap = k * self.dilation;
        let lo = self.before.saturating_sub(tap).div_ceil(self.stride);
        let hi = (self.before + self.input).saturating_sub(tap).div_ceil(self.stride).min(self.output);
        lo.min(hi)..hi
    }

    /// Cuts `range` of the outputs into segments.
    pub fn segments(self, range: Range<usize>) -> impl Iterator<Item = Segment> + Clone {
        let inner = self.interior();
        let mut at = range.start;
        core::iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let (start, valid) = (at, self.taps(at));
            at = if inner.contains(&at) { inner.end.min(range.end) } else { at + 1 };
            while at < range.end && !inner.contains(&at) && self.taps(at) == valid {
                at += 1;
            }
            Some(Segment { out: start..at, taps: valid })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_step_over_inputs() {
        let axis = |kernel, stride| Axis { output: 7, input: 14, kernel, stride, dilation: 1, before: 0 };
        assert_eq!([1, 7].map(|n| axis(1, 2).read(n)), [1, 7]);
        assert_eq!([1, 2, 7].map(|n| axis(3, 2).read(n)), [3, 5, 14]);
        assert_eq!(axis(2, 4).read(3), 6);
    }

    #[test]
    fn segments_cover_once_and_agree_with_taps() {
        for (input, kernel, stride, dilation, before, after) in [
            (14, 3, 1, 1, 1, 1),
            (7, 7, 2, 1, 3, 3),
            (33, 3, 1, 12, 12, 12),
            (3, 3, 1, 1, 2, 2),
            (5, 2, 3, 2, 4, 0),
            (1, 1, 1, 1, 3, 2),
        ] {
            let output = (input + before + after - dilation * (kernel - 1) - 1) / stride + 1;
            let axis = Axis { output, input, kernel, stride, dilation, before };
            for k in 0..kernel {
                let meets = |o: &usize| axis.taps(*o).contains(&k);
                assert!(axis.outputs(k).eq((0..output).filter(meets)), "tap {k} of {axis:?}");
            }
            for from in 0..output {
                let mut end = from;
                for s in axis.segments(from..output) {
                    assert_eq!(s.out.start, end);
                    assert!(s.out.clone().all(|o| taps_inside(o, stride, dilation, before, kernel, input) == s.taps));
                    end = s.out.end;
                }
                assert_eq!(end, output);
            }
        }
        let inner: Vec<_> = Axis { output: 14, input: 14, kernel: 3, stride: 1, dilation: 1, before: 1 }
            .segments(0..14)
            .map(|s| s.out)
            .collect();
        assert_eq!(inner, [0..1, 1..13, 13..14]);
    }
}
