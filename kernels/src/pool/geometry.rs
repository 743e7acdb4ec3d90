//! Windows of either kind, for forward passes that keep taps and for gradients: which inputs an output covers, and which
//! outputs cover an input.

use core::ops::Range;

use super::{AdaptiveShape, Apart, Divisor, Lies, units};
use crate::layout::View;
use crate::region::Axis as Sliding;
use crate::shape::{PoolShape, taps_inside};

/// Windows along one axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub input: usize,
    pub output: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Window {
        kernel: usize,
        stride: usize,
        dilation: usize,
        before: usize,
        after: usize,
    },
    /// From `floor(o * in / out)` to before `ceil((o + 1) * in / out)`.
    Adaptive,
}

/// The inputs of one output: `start + i * step` for `i` in `0..taps.len()`, which are the window's `taps`.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub start: usize,
    pub step: usize,
    pub taps: Range<usize>,
}

/// Outputs side by side; see [`Axis::whole`].
#[derive(Clone, Debug)]
pub(super) struct Whole {
    pub outputs: Range<usize>,
    pub start: usize,
    pub stride: usize,
    pub step: usize,
    pub columns: usize,
}

impl Axis {
    /// The inputs of output `o`; those outside are cut off.
    #[inline(always)]
    pub fn span(&self, o: usize) -> Span {
        match self.kind {
            Kind::Window { kernel, stride, dilation, before, .. } => {
                let taps = taps_inside(o, stride, dilation, before, kernel, self.input);
                // Where there is no tap, the start is not used.
                let start = (o * stride + taps.start * dilation).saturating_sub(before);
                Span { start, step: dilation, taps }
            }
            Kind::Adaptive => {
                let start = o * self.input / self.output;
                let end = ((o + 1) * self.input).div_ceil(self.output);
                Span { start, step: 1, taps: 0..end - start }
            }
        }
    }

    /// Outputs whose windows have all their columns inside the input, the first one's first input, and stride, step and number of columns:
    /// of windows that slide.
    pub fn whole(&self) -> Option<Whole> {
        let Kind::Window { kernel, stride, dilation, before, .. } = self.kind else { return None };
        let outputs = Sliding { output: self.output, input: self.input, kernel, stride, dilation, before }.interior();
        let start = (outputs.start * stride).saturating_sub(before);
        Some(Whole { outputs, start, stride, step: dilation, columns: kernel })
    }

    /// Outputs that may cover input `i`, in order; see [`Axis::tap`].
    pub fn covering(&self, i: usize) -> Range<usize> {
        match self.kind {
            Kind::Window { kernel, stride, dilation, before, .. } => {
                let first = (i + before).saturating_sub((kernel - 1) * dilation).div_ceil(stride);
                first..((i + before) / stride + 1).min(self.output)
            }
            Kind::Adaptive => i * self.output / self.input..((i + 1) * self.output).div_ceil(self.input),
        }
    }

    /// The tap by which output `o`, one of those [`Axis::covering`] input `i`, sees it.
    pub fn tap(&self, o: usize, i: usize) -> Option<usize> {
        match self.kind {
            Kind::Window { stride, dilation, before, .. } => {
                let distance = i + before - o * stride;
                distance.is_multiple_of(dilation).then_some(distance / dilation)
            }
            Kind::Adaptive => Some(i - o * self.input / self.output),
        }
    }

    /// Elements that the divisor counts at output `o`, of which `taps` are inside the input.
    #[inline(always)]
    fn count(&self, divisor: Divisor, o: usize, taps: usize) -> usize {
        match (divisor, self.kind) {
            (Divisor::Padded, Kind::Window { kernel, stride, before, after, .. }) => {
                let start = o * stride;
                (start + kernel).min(self.input + before + after) - start
            }
            _ => taps,
        }
    }
}

/// A tensor's windows: both axes, and how its pixels lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub v: Axis,
    pub h: Axis,
    /// How input and output lie.
    pub views: [View; 2],
    pub x: Apart,
    pub y: Apart,
    /// Images.
    pub n: usize,
    /// Taps of a window's row.
    pub kw: usize,
    /// Units of an image.
    pub units: usize,
    /// Interleaved channels.
    pub ch: usize,
    /// Channels that exist.
    pub c: usize,
    pub divisor: Divisor,
}

impl Geometry {
    /// Of sliding windows.
    pub fn window(s: &PoolShape, lies: Lies, divisor: Divisor) -> Self {
        s.assert_consistent();
        let kind = |kernel, stride, dilation, before, after| Kind::Window { kernel, stride, dilation, before, after };
        let v = Axis { input: s.ih, output: s.oh, kind: kind(s.kh, s.sh, s.dh, s.pad.top, s.pad.bottom) };
        let h = Axis { input: s.iw, output: s.ow, kind: kind(s.kw, s.sw, s.dw, s.pad.left, s.pad.right) };
        Self::new((v, h), s.kw, lies.views([s.input(), s.output()]), divisor)
    }

    /// Of adaptive windows.
    pub fn adaptive(s: &AdaptiveShape, lies: Lies) -> Self {
        // Regions of one size are windows that slide.
        let axis = |input: usize, output: usize| match output > 0 && input.is_multiple_of(output) {
            true => {
                let size = input / output;
                let kind = Kind::Window { kernel: size, stride: size, dilation: 1, before: 0, after: 0 };
                Axis { input, output, kind }
            }
            false => Axis { input, output, kind: Kind::Adaptive },
        };
        let (v, h) = (axis(s.ih, s.oh), axis(s.iw, s.ow));
        Self::new((v, h), s.iw, lies.views([s.input(), s.output()]), Divisor::Inside)
    }

    fn new((v, h): (Axis, Axis), kw: usize, views: [View; 2], divisor: Divisor) -> Self {
        let [n, c, ..] = views[0].dims();
        assert_eq!(
            views.map(|view| view.dims()),
            [[n, c, v.input, h.input], [n, c, v.output, h.output]],
            "extents of views"
        );
        let (units, ch) = units(views[0].layout(), c);
        let [x, y] = views.map(|view| Apart::new(view, view.dims()));
        Self { v, h, views, x, y, n, kw, units, ch, c, divisor }
    }

    /// What an average of output `(oy, ox)` is divided by.
    #[inline(always)]
    pub fn count(&self, (oy, rows): (usize, usize), (ox, columns): (usize, usize)) -> f32 {
        match self.divisor {
            Divisor::Fixed(d) => d as f32,
            d => (self.v.count(d, oy, rows) * self.h.count(d, ox, columns)) as f32,
        }
    }

    /// Floats of an input row, and of an output row.
    pub fn row_lens(&self) -> [usize; 2] {
        [self.h.input * self.ch, self.h.output * self.ch]
    }

    /// Elements of a unit of a tensor of outputs without gaps.
    pub fn outputs(&self) -> usize {
        self.v.output * self.h.output * self.ch
    }

    /// Interleaved channels of unit `unit` of the tensor that exist.
    pub fn existing(&self, unit: usize) -> usize {
        (self.c - unit % self.units * self.ch).min(self.ch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covering_outputs_are_those_whose_spans_hold_the_input() {
        let window = |kernel, stride, dilation, before, after| Kind::Window { kernel, stride, dilation, before, after };
        for (input, output, kind) in [
            (9, 5, window(3, 2, 1, 1, 1)),
            (10, 4, window(3, 2, 2, 1, 1)),
            (7, 3, window(2, 3, 1, 1, 1)),
            (5, 3, Kind::Adaptive),
            (3, 7, Kind::Adaptive),
            (12, 1, Kind::Adaptive),
        ] {
            let axis = Axis { input, output, kind };
            for i in 0..input {
                let covering: Vec<_> = axis.covering(i).filter_map(|o| Some((o, axis.tap(o, i)?))).collect();
                let mut want = Vec::new();
                for o in 0..output {
                    let span = axis.span(o);
                    let seen = span.taps.clone().enumerate().find(|(n, _)| span.start + n * span.step == i);
                    want.extend(seen.map(|(_, tap)| (o, tap)));
                }
                assert_eq!(covering, want, "{axis:?} input {i}");
            }
        }
    }
}
