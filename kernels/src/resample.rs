//! Interpolation and padding: linear maps of one axis after the other, from tables, forward and backward, in every layout.
//!
//! ```text
//! y[oy][ox] = sum over taps (iy, a) of oy and (ix, b) of ox:  a b x[iy][ix]
//!             one tap: nearest, nearest-exact, padding (none where a constant goes); two: bilinear; four: bicubic
//! dx row iy:  zero it; for each (oy, a) that sees it, for ox, for its taps (ix, b):  dx[ix] += a b dy[oy][ox]
//! ```
//!
//! In planes, where a pixel is one float, sums over rows are vectors', and those over the pixels of a row follow, from memory in L1: also
//! those of the gradient, which then has no row of zeros to add to.
//!
//! The gradient's row stays in L1, and its sums have the order of the outputs, in planes rows first: the same bits however rows are shared out.
//!
//! # PyTorch's rules
//!
//! * The scale is input / output where a size is given, and 1 / factor where a factor is (the size is then `floor(input * factor)`).
//! * With corners aligned the source of output `o` is `o (in - 1) / (out - 1)`, otherwise `(o + 1/2) scale - 1/2`, for bilinear at least 0.
//! * nearest takes `floor(o scale)` and nearest-exact `floor((o + 1/2) scale)`, with the scale in f32, as PyTorch has it.
//! * bicubic is Keys' convolution with a = -3/4; taps beyond an edge repeat it.

mod axis;

use crate::epilogue::Outputs;
use crate::isa::Isa;
use crate::layout::{BLOCK, Layout, blocks};
use crate::pass::{Body, Place};
use crate::shape::{Padding, ShapeError, checked_elements};

use axis::{Axis, Span, Tap};

/// How values between pixels are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// The pixel at `floor(o scale)`.
    Nearest,
    /// The pixel at `floor((o + 1/2) scale)`.
    NearestExact,
    /// Between the two neighbours of each axis.
    Bilinear {
        /// Whether the corners' pixels have the same centres in both images.
        align_corners: bool,
    },
    /// From the four neighbours of each axis.
    Bicubic {
        /// As for bilinear.
        align_corners: bool,
    },
}

/// What the output's size is given by, for height and width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// The size.
    To([usize; 2]),
    /// Factors of the input's.
    By([f64; 2]),
}

/// What lies outside of the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// A value.
    Constant(f32),
    /// The image mirrored at its outermost pixels, which are not repeated; less than the image's extent.
    Reflect,
    /// The outermost pixels, repeated.
    Replicate,
    /// The image again; at most the image's extent.
    Circular,
}

/// A map from tensors `[n, c, ih, iw]` to `[n, c, oh, ow]`, the same for each plane. Its tables are made once; runs allocate nothing.
///
/// ```
/// use swath_kernels::resample::{Filter, PadMode, Resample, Size};
/// use swath_kernels::{isa::Cpu, layout::Layout, pass::Place};
/// let place = Place::inline(Cpu::detect().level);
/// let filter = Filter::Bilinear { align_corners: false };
/// let wider = Resample::resize(Layout::Nchw, [1, 1, 1, 3], Size::To([1, 4]), filter)?;
/// let mut dx = [0.0; 3];
/// wider.backward(&place, &[1.0; 4], (&mut dx[..]).into());
/// assert_eq!(dx, [1.375, 1.25, 1.375]);
///
/// let mirror = Resample::pad(Layout::Nchw, [1, 1, 1, 3], [0, 2, 0, 1], PadMode::Reflect)?;
/// let mut y = [0.0; 6];
/// mirror.forward(&place, &[1.0, 2.0, 3.0], (&mut y[..]).into());
/// assert_eq!(y, [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Resample {
    layout: Layout,
    n: usize,
    c: usize,
    v: Axis,
    h: Axis,
    /// Where an output has no tap.
    fill: f32,
}

/// Floats of a part.
const FLOATS: usize = 8 << 10;

impl Resample {
    /// Interpolation.
    ///
    /// # Errors
    /// If an extent is zero, or a tensor too large.
    pub fn resize(layout: Layout, dims: [usize; 4], size: Size, filter: Filter) -> Result<Self, ShapeError> {
        let axis = |i: usize| {
            let input = dims[2 + i];
            let (output, factor) = match size {
                Size::To(size) => (size[i], None),
                Size::By(factors) => ((input as f64 * factors[i]).floor() as usize, Some(factors[i])),
            };
            Axis::resize(input, output, factor, filter)
        };
        Self::new(layout, dims, [&axis, &axis], 0.0)
    }

    /// Padding on the four sides.
    ///
    /// # Errors
    /// If an extent is zero, the image is too small for the mode, or a tensor too large.
    pub fn pad(
        layout: Layout,
        dims: [usize; 4],
        pad: impl core::convert::Into<Padding>,
        mode: PadMode,
    ) -> Result<Self, ShapeError> {
        let pad = pad.into();
        let fill = if let PadMode::Constant(value) = mode { value } else { 0.0 };
        let vertical = |_| Axis::pad("height", dims[2], [pad.top, pad.bottom], mode);
        let horizontal = |_| Axis::pad("width", dims[3], [pad.left, pad.right], mode);
        Self::new(layout, dims, [&vertical, &horizontal], fill)
    }

    fn new(
        layout: Layout,
        [n, c, h, w]: [usize; 4],
        axes: [&dyn Fn(usize) -> Result<Axis, ShapeError>; 2],
        fill: f32,
    ) -> Result<Self, ShapeError> {
        if c == 0 {
            return Err(ShapeError::Zero { what: "the number of channels" });
        }
        let block = c.checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX);
        checked_elements("input", &[n, block, h, w])?;
        let (v, h) = (axes[0](0)?, axes[1](1)?);
        let h = if layout == Layout::Nchw { h.with_spans() } else { h };
        checked_elements("output", &[n, block, v.output(), h.output()])?;
        Ok(Self { layout, n, c, v, h, fill })
    }

    /// Extents of the input.
    pub fn input(&self) -> [usize; 4] {
        [self.n, self.c, self.v.input(), self.h.input()]
    }

    /// Extents of the output.
    pub fn output(&self) -> [usize; 4] {
        [self.n, self.c, self.v.output(), self.h.output()]
    }

    /// Units of an image, and the channels that they interleave.
    fn units(&self) -> (usize, usize) {
        match self.layout {
            Layout::Nchw => (self.c, 1),
            Layout::Nhwc => (1, self.c),
            Layout::Blocked => (blocks(self.c), BLOCK),
        }
    }

    fn check(&self, input: usize, output: usize) {
        let (i, o) = (self.input(), self.output());
        assert_eq!(input, self.layout.len(i), "input length for {i:?} {}", self.layout.name());
        assert_eq!(output, self.layout.len(o), "output length for {o:?} {}", self.layout.name());
    }

    /// The output, which may lie in memory that holds nothing yet; what it then holds is returned.
    ///
    /// # Panics
    /// If a length is not what the extents say.
    pub fn forward<'y>(&self, place: &Place<'_>, x: &[f32], y: Outputs<'y>) -> &'y mut [f32] {
        self.check(x.len(), y.len());
        let (units, ch) = self.units();
        let (input, row) = (self.v.input() * self.h.input() * ch, self.h.output() * ch);
        let rows = (FLOATS / row).max(1);
        let per_unit = self.v.output().div_ceil(rows);
        place.each_output(x.len() + y.len(), y, [self.v.output() * row, rows * row], |i, y| {
            let (unit, first) = (i / per_unit, i % per_unit * rows);
            let existing = (self.c - unit % units * ch).min(ch);
            let x = &x[unit * input..(unit + 1) * input];
            let spans = self.h.gathered().filter(|_| ch == 1 && self.v.is_complete());
            match (self.v.taps_each(), spans) {
                (1, Some(spans)) => place.at(Plane::<1> { map: self, spans, x, first, y }),
                (2, Some(spans)) => place.at(Plane::<2> { map: self, spans, x, first, y }),
                (_, Some(spans)) => place.at(Plane::<4> { map: self, spans, x, first, y }),
                (1, _) => place.at(Copies { map: self, ch, existing, x, first, y }),
                (2, _) => place.at(Rows::<2> { map: self, ch, x, first, y }),
                _ => place.at(Rows::<4> { map: self, ch, x, first, y }),
            }
        })
    }

    /// The gradient at the input, likewise.
    ///
    /// # Panics
    /// If a length is not what the extents say.
    pub fn backward<'x>(&self, place: &Place<'_>, dy: &[f32], dx: Outputs<'x>) -> &'x mut [f32] {
        self.check(dx.len(), dy.len());
        let (_, ch) = self.units();
        let (output, row) = (self.v.output() * self.h.output() * ch, self.h.input() * ch);
        let rows = (FLOATS / row).max(1);
        let per_unit = self.v.input().div_ceil(rows);
        place.each_output(dx.len() + dy.len(), dx, [self.v.input() * row, rows * row], |i, dx| {
            let (unit, first) = (i / per_unit, i % per_unit * rows);
            let dy = &dy[unit * output..(unit + 1) * output];
            if let Some(spans) = self.h.seen().filter(|_| ch == 1) {
                return place.at(PlaneGradient { map: self, spans, dy, first, dx });
            }
            match self.h.taps_each() {
                1 => place.at(Gradient::<1> { map: self, ch, dy, first, dx }),
                2 => place.at(Gradient::<2> { map: self, ch, dy, first, dx }),
                _ => place.at(Gradient::<4> { map: self, ch, dy, first, dx }),
            }
        })
    }
}

/// Some rows of outputs with one tap: pixels are copied, or filled.
struct Copies<'a> {
    map: &'a Resample,
    ch: usize,
    /// Channels that exist.
    existing: usize,
    x: &'a [f32],
    first: usize,
    y: &'a mut [f32],
}

impl Body for Copies<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (m, ch) = (self.map, self.ch);
        let fill = |pixels: &mut [f32]| {
            pixels.chunks_exact_mut(ch).for_each(|p| {
                p[..self.existing].fill(m.fill);
                p[self.existing..].fill(0.0); // channels that pad the block
            });
        };
        for (row, y) in self.y.chunks_exact_mut(m.h.output() * ch).enumerate() {
            let Some(iy) = m.v.taps(self.first + row)[0].inside() else {
                fill(y);
                continue;
            };
            let x = &self.x[iy * m.h.input() * ch..][..m.h.input() * ch];
            let mut ox = 0;
            for (start, len) in m.h.runs() {
                let to = &mut y[ox * ch..(ox + len) * ch];
                ox += len;
                let Some(start) = start else {
                    fill(to);
                    continue;
                };
                let from = &x[start * ch..(start + len) * ch];
                // Single pixels are cheaper copied here than by a call.
                if let (Ok(to), Ok(from)) = (<&mut [f32; BLOCK]>::try_from(&mut *to), <&[f32; BLOCK]>::try_from(from)) {
                    *to = *from;
                } else if len * ch < BLOCK {
                    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                } else {
                    to.copy_from_slice(from);
                }
            }
        }
    }
}

/// Some rows of outputs with `K` taps an axis.
struct Rows<'a, const K: usize> {
    map: &'a Resample,
    ch: usize,
    x: &'a [f32],
    first: usize,
    y: &'a mut [f32],
}

/// `N` channels of one output.
#[inline(always)]
fn weighted<const N: usize, const K: usize>(
    x: &[f32],
    [v, h]: [&[Tap; K]; 2],
    iw: usize,
    (ch, c): (usize, usize),
) -> [f32; N] {
    let mut acc = [0.0f32; N];
    for a in v {
        for b in h {
            let (at, w) = ((a.index() * iw + b.index()) * ch + c, a.weight * b.weight);
            let p: &[f32; N] = x[at..at + N].try_into().expect("N channels");
            for k in 0..N {
                acc[k] += w * p[k];
            }
        }
    }
    acc
}

impl<const K: usize> Body for Rows<'_, K> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (m, ch, iw) = (self.map, self.ch, self.map.h.input());
        let whole = ch - ch % BLOCK;
        for (row, y) in self.y.chunks_exact_mut(m.h.output() * ch).enumerate() {
            let v: &[Tap; K] = m.v.taps(self.first + row).try_into().expect("K taps");
            for (ox, y) in y.chunks_exact_mut(ch).enumerate() {
                let taps = [v, m.h.taps(ox).try_into().expect("K taps")];
                for c in (0..whole).step_by(BLOCK) {
                    y[c..c + BLOCK].copy_from_slice(&weighted::<BLOCK, K>(self.x, taps, iw, (ch, c)));
                }
                for c in whole..ch {
                    y[c] = weighted::<1, K>(self.x, taps, iw, (ch, c))[0];
                }
            }
        }
    }
}

/// Some rows of outputs of a plane with `K` taps an axis: rows are added up, then their pixels, so that vectors do the most of it.
struct Plane<'a, const K: usize> {
    map: &'a Resample,
    spans: &'a [Span],
    x: &'a [f32],
    first: usize,
    y: &'a mut [f32],
}

impl<const K: usize> Body for Plane<'_, K> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (m, iw, ow) = (self.map, self.map.h.input(), self.map.h.output());
        let mut sums = [0.0; Span::MOST];
        for row in 0..self.y.len() / ow {
            let taps = |row: usize| -> &[Tap; K] { m.v.taps(self.first + row).try_into().expect("K taps") };
            let v = taps(row);
            if row > 0 && taps(row - 1) == v {
                self.y.copy_within((row - 1) * ow..row * ow, row * ow);
                continue;
            }
            for span in self.spans {
                let rows = v.map(|tap| &self.x[tap.index() * iw..][span.from()]);
                let sums = &mut sums[..rows[0].len()];
                let inputs = if K == 1 { rows[0] } else { add_rows(sums, rows, v.map(|tap| tap.weight)) };
                let outputs = self.y[row * ow..][span.of()].iter_mut();
                for (y, taps) in outputs.zip(m.h.taps_of(span.of()).chunks_exact(K)) {
                    let at = |tap: &Tap| inputs[tap.index() - span.from().start];
                    *y = if K == 1 {
                        at(&taps[0])
                    } else {
                        taps.iter().fold(0.0, |sum, tap| sum + tap.weight * at(tap))
                    };
                }
            }
        }
    }
}

/// Weighted sums of rows of one length.
#[inline(always)]
fn add_rows<'s, const K: usize>(sums: &'s mut [f32], rows: [&[f32]; K], weights: [f32; K]) -> &'s [f32] {
    let rows = rows.map(|row| &row[..sums.len()]);
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = (0..K).fold(0.0, |sum, k| sum + weights[k] * rows[k][i]);
    }
    sums
}

/// Some rows of a plane's gradient: rows of the outputs are added up, then their pixels.
struct PlaneGradient<'a> {
    map: &'a Resample,
    spans: &'a [Span],
    dy: &'a [f32],
    first: usize,
    dx: &'a mut [f32],
}

impl Body for PlaneGradient<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (m, iw, ow) = (self.map, self.map.h.input(), self.map.h.output());
        let mut sums = [0.0; Span::MOST];
        for (row, dx) in self.dx.chunks_exact_mut(iw).enumerate() {
            for span in self.spans {
                let sums = &mut sums[..span.from().len()];
                sums.fill(0.0);
                for above in m.v.seen_by(self.first + row) {
                    add(sums, &self.dy[above.index() * ow..][span.from()], above.weight);
                }
                for (dx, ix) in dx[span.of()].iter_mut().zip(span.of()) {
                    let at = |tap: &Tap| tap.weight * sums[tap.index() - span.from().start];
                    *dx = m.h.seen_by(ix).iter().fold(0.0, |sum, tap| sum + at(tap));
                }
            }
        }
    }
}

/// Some rows of the gradient, of outputs with `K` horizontal taps.
struct Gradient<'a, const K: usize> {
    map: &'a Resample,
    ch: usize,
    dy: &'a [f32],
    first: usize,
    dx: &'a mut [f32],
}

impl<const K: usize> Body for Gradient<'_, K> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (m, ch, ow) = (self.map, self.ch, self.map.h.output());
        for (row, dx) in self.dx.chunks_exact_mut(m.h.input() * ch).enumerate() {
            dx.fill(0.0);
            for above in m.v.seen_by(self.first + row) {
                let dy = &self.dy[above.index() * ow * ch..][..ow * ch];
                for (ox, dy) in dy.chunks_exact(ch).enumerate() {
                    let taps: &[Tap; K] = m.h.taps(ox).try_into().expect("K taps");
                    for tap in taps {
                        let Some(ix) = tap.inside() else { continue };
                        add(&mut dx[ix * ch..(ix + 1) * ch], dy, above.weight * tap.weight);
                    }
                }
            }
        }
    }
}

/// `d += w g`
#[inline(always)]
fn add(d: &mut [f32], g: &[f32], w: f32) {
    if let (Ok(d), Ok(g)) = (<&mut [f32; BLOCK]>::try_from(&mut *d), <&[f32; BLOCK]>::try_from(g)) {
        for k in 0..BLOCK {
            d[k] += w * g[k];
        }
        return;
    }
    for (d, g) in d.iter_mut().zip(g) {
        *d += w * g;
    }
}
