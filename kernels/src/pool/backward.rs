//! Gradients of pooling, and max pooling that keeps what its gradient needs.
//!
//! ```text
//! for each row of dx                      a part is some rows of one unit
//!   zero it                               it stays in L1
//!   for oy that covers it, for ox         in order: the same bits however rows are shared out
//!     for kx: dx[ix] += dy[oy, ox]        if its tap is (ky, kx); divided by the window's count
//! ```
//!
//! Max pooling keeps for each output which tap won: a byte for windows of up to 255 taps, two for larger ones. In NCHW planes, where a
//! pixel is one float, each output adds to the one input that it names instead.

use core::ops::Range;

use super::geometry::{Geometry, Span};
use super::{AdaptiveShape, Divisor, assert_indexable};
use crate::isa::Isa;
use crate::layout::{BLOCK, Layout};
use crate::pass::{Body, Chunks, Place};
use crate::shape::PoolShape;

/// The number of a tap, `ky * kw + kx`, as max pooling keeps it: `u8` for windows of up to 255 taps, `u16` for up to 65,535, `u32`
/// for any.
pub trait Tap: Copy + PartialEq + Send + Sync + core::fmt::Debug + 'static {
    /// Of a window that has no tap inside the input.
    const NONE: Self;
    /// The tap of a number below that of [`Tap::NONE`].
    fn new(tap: usize) -> Self;
    /// Its number.
    fn get(self) -> usize;
    /// The largest window.
    fn most() -> usize {
        Self::NONE.get()
    }
}

macro_rules! taps {
    ($($t:ty),*) => {$(
        impl Tap for $t {
            const NONE: Self = <$t>::MAX;
            #[inline(always)]
            fn new(tap: usize) -> Self {
                tap as $t
            }
            #[inline(always)]
            fn get(self) -> usize {
                self as usize
            }
        }
    )*};
}

taps!(u8, u16, u32);

/// Floats of a part.
const FLOATS: usize = 8 << 10;

/// Rows of a part.
fn rows_of(row: usize) -> usize {
    (FLOATS / row.max(1)).max(1)
}

/// Up to 16 lanes of the pixel at `at`, from channel `c` on.
#[inline(always)]
fn pixel<T>(v: &[T], at: usize, lanes: usize) -> &[T] {
    &v[at..at + lanes]
}

/// Some rows of maxima with their taps.
struct MaxRows<'a, T> {
    g: &'a Geometry,
    /// The unit's input.
    x: &'a [f32],
    /// Channels that exist.
    existing: usize,
    /// First output row.
    first: usize,
    y: &'a mut [f32],
    taps: &'a mut [T],
    /// Numbers of taps count from the input's first pixel, not the window's.
    absolute: bool,
}

impl<T: Tap> MaxRows<'_, T> {
    /// `N` lanes of an output.
    #[inline(always)]
    fn lanes<const N: usize>(&mut self, (v, h): (&Span, &Span), at: usize, c: usize) {
        let (g, ch) = (self.g, self.g.ch);
        let (mut best, mut tap) = ([f32::NEG_INFINITY; N], [T::NONE.get() as u32; N]);
        for (i, ky) in v.taps.clone().enumerate() {
            for (j, kx) in h.taps.clone().enumerate() {
                let (iy, ix) = (v.start + i * v.step, h.start + j * h.step);
                let p: &[f32; N] = pixel(self.x, (iy * g.h.input + ix) * ch + c, N).try_into().expect("N lanes");
                let number = if self.absolute { iy * g.h.input + ix } else { ky * g.kw + kx } as u32;
                let first = i + j == 0;
                for k in 0..N {
                    // The first of equals, the last NaN; the first tap in any case: all may be minus infinity.
                    #[allow(clippy::eq_op)] // is it NaN
                    let better = (p[k] > best[k]) | (p[k] != p[k]) | first;
                    best[k] = if better { p[k] } else { best[k] };
                    tap[k] = if better { number } else { tap[k] };
                }
            }
        }
        if v.taps.is_empty() || h.taps.is_empty() {
            for k in self.existing.saturating_sub(c).min(N)..N {
                best[k] = 0.0; // channels that pad the block
            }
        }
        self.y[at + c..at + c + N].copy_from_slice(&best);
        for (t, k) in self.taps[at + c..at + c + N].iter_mut().zip(tap) {
            *t = T::new(k as usize);
        }
    }
}

impl<T: Tap> Body for MaxRows<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, _: I) {
        let (ow, ch) = (self.g.h.output, self.g.ch);
        for row in 0..self.y.len() / (ow * ch) {
            let v = self.g.v.span(self.first + row);
            for ox in 0..ow {
                let (h, at) = (self.g.h.span(ox), (row * ow + ox) * ch);
                let whole = ch - ch % BLOCK;
                for c in (0..whole).step_by(BLOCK) {
                    self.lanes::<BLOCK>((&v, &h), at, c);
                }
                for c in whole..ch {
                    self.lanes::<1>((&v, &h), at, c);
                }
            }
        }
    }
}

/// `f(k)` for each of `n` lanes; 16 at once where there are so many.
#[inline(always)]
fn add_lanes(d: &mut [f32], g: &[f32], f: impl Fn(usize, f32) -> f32) {
    if let (Ok(d), Ok(g)) = (<&mut [f32; BLOCK]>::try_from(&mut *d), <&[f32; BLOCK]>::try_from(g)) {
        for k in 0..BLOCK {
            d[k] += f(k, g[k]);
        }
        return;
    }
    for (k, (d, g)) in d.iter_mut().zip(g).enumerate() {
        *d += f(k, *g);
    }
}

/// Some rows of the gradient of max pooling.
struct MaxGradient<'a, T> {
    g: &'a Geometry,
    /// The unit's.
    taps: &'a [T],
    dy: &'a [f32],
    first: usize,
    dx: &'a mut [f32],
}

impl<T: Tap> Body for MaxGradient<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (g, ch) = (self.g, self.g.ch);
        for (row, dx) in self.dx.chunks_exact_mut(g.h.input * ch).enumerate() {
            dx.fill(0.0);
            let iy = self.first + row;
            for oy in g.v.covering(iy) {
                let Some(ky) = g.v.tap(oy, iy) else { continue };
                for ox in 0..g.h.output {
                    let (h, at) = (g.h.span(ox), (oy * g.h.output + ox) * ch);
                    let (dy, taps) = (pixel(self.dy, at, ch), pixel(self.taps, at, ch));
                    for (j, kx) in h.taps.enumerate() {
                        let (ix, tap) = (h.start + j * h.step, T::new(ky * g.kw + kx));
                        let d = &mut dx[ix * ch..(ix + 1) * ch];
                        if let Ok(taps) = <&[T; BLOCK]>::try_from(taps) {
                            add_lanes(d, dy, |k, dy| if taps[k] == tap { dy } else { 0.0 });
                        } else {
                            add_lanes(d, dy, |k, dy| if taps[k] == tap { dy } else { 0.0 });
                        }
                    }
                }
            }
        }
    }
}

/// The gradient of max pooling of one unit, output by output. Numbers are taps, or count from the unit's first pixel.
fn scatter<T: Tap>(g: &Geometry, absolute: bool, taps: &[T], dy: &[f32], dx: &mut [f32]) {
    let ch = g.ch;
    dx.fill(0.0);
    for (oy, ox) in (0..g.v.output).flat_map(|oy| (0..g.h.output).map(move |ox| (oy, ox))) {
        let (v, h, at) = (g.v.span(oy), g.h.span(ox), (oy * g.h.output + ox) * ch);
        for c in 0..ch {
            let tap = taps[at + c];
            if tap == T::NONE {
                continue;
            }
            let pixel = if absolute {
                tap.get()
            } else {
                let (ky, kx) = (tap.get() / g.kw, tap.get() % g.kw);
                let inside = v.taps.contains(&ky) && h.taps.contains(&kx);
                assert!(inside, "tap {} of the window at {oy}, {ox} is outside the input", tap.get());
                (v.start + (ky - v.taps.start) * v.step) * g.h.input + h.start + (kx - h.taps.start) * h.step
            };
            dx[pixel * ch + c] += dy[at + c];
        }
    }
}

/// Some rows of the gradient of averages.
struct AverageGradient<'a> {
    g: &'a Geometry,
    /// The unit's.
    dy: &'a [f32],
    first: usize,
    dx: &'a mut [f32],
}

impl Body for AverageGradient<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (g, ch) = (self.g, self.g.ch);
        for (row, dx) in self.dx.chunks_exact_mut(g.h.input * ch).enumerate() {
            dx.fill(0.0);
            let iy = self.first + row;
            for oy in g.v.covering(iy) {
                if g.v.tap(oy, iy).is_none() {
                    continue;
                }
                let rows = g.v.span(oy).taps.len();
                for ox in 0..g.h.output {
                    let h = g.h.span(ox);
                    let dy = pixel(self.dy, (oy * g.h.output + ox) * ch, ch);
                    let count = g.count((oy, rows), (ox, h.taps.len()));
                    for j in 0..h.taps.len() {
                        let ix = h.start + j * h.step;
                        add_lanes(&mut dx[ix * ch..(ix + 1) * ch], dy, |_, dy| dy / count);
                    }
                }
            }
        }
    }
}

/// Checks the lengths of a tensor at the input and of those at the output.
fn check(layout: Layout, [input, output]: [[usize; 4]; 2], x: usize, y: &[usize]) {
    assert_eq!(x, layout.len(input), "input length for {input:?} {}", layout.name());
    for &y in y {
        assert_eq!(y, layout.len(output), "output length for {output:?} {}", layout.name());
    }
}

/// Panics unless the taps of a window can be told apart.
#[track_caller]
fn check_taps<T: Tap>(shape: &PoolShape) {
    let taps = shape.kh * shape.kw;
    assert!(taps <= T::most(), "{taps} taps of a window, {} can be told apart", T::most());
}

fn max<T: Tap>(place: &Place<'_>, g: &Geometry, absolute: bool, x: &[f32], y: &mut [f32], taps: &mut [T]) {
    let ([input, output], [_, row]) = (g.unit_lens(), g.row_lens());
    let rows = rows_of(row);
    let per_unit = g.v.output.div_ceil(rows);
    let cut = (Chunks::of_units(y, output, rows * row), Chunks::of_units(taps, output, rows * row));
    place.each(x.len() + 2 * output, cut, |i, (y, taps)| {
        let (unit, first) = (i / per_unit, i % per_unit * rows);
        let x = &x[unit * input..(unit + 1) * input];
        place.at(MaxRows { g, x, existing: g.existing(unit), first, y, taps, absolute });
    });
}

fn max_gradient<T: Tap>(place: &Place<'_>, g: &Geometry, absolute: bool, taps: &[T], dy: &[f32], dx: &mut [f32]) {
    let [input, output] = g.unit_lens();
    let floats = dx.len() + 2 * dy.len();
    if absolute || g.ch == 1 {
        return place.each(floats, Chunks::of_units(dx, input, input), |unit, dx| {
            let range = unit * output..(unit + 1) * output;
            scatter(g, absolute, &taps[range.clone()], &dy[range], dx);
        });
    }
    by_rows(place, g, floats, dx, |range, first, dx| {
        place.at(MaxGradient { g, taps: &taps[range.clone()], dy: &dy[range], first, dx });
    });
}

fn average_gradient(place: &Place<'_>, g: &Geometry, dy: &[f32], dx: &mut [f32]) {
    by_rows(place, g, dx.len() + dy.len(), dx, |range, first, dx| {
        place.at(AverageGradient { g, dy: &dy[range], first, dx });
    });
}

/// `f` of some rows of the input's gradient, with the elements of their unit in tensors of outputs, and the first row's number.
fn by_rows(
    place: &Place<'_>,
    g: &Geometry,
    floats: usize,
    dx: &mut [f32],
    f: impl Fn(Range<usize>, usize, &mut [f32]) + Sync,
) {
    let ([input, output], [row, _]) = (g.unit_lens(), g.row_lens());
    let rows = rows_of(row);
    let per_unit = g.v.input.div_ceil(rows);
    place.each(floats, Chunks::of_units(dx, input, rows * row), |i, dx| {
        let (unit, first) = (i / per_unit, i % per_unit * rows);
        f(unit * output..(unit + 1) * output, first, dx);
    });
}

/// Max pooling that keeps which tap of each window won: `y` and `taps`, in the layout of `y`, for [`max_backward`].
///
/// As in PyTorch the first of equal maxima wins, and a NaN wins over everything, the last one over the others. A window without a tap
/// inside the input gives minus infinity and [`Tap::NONE`]. Channels that pad the last block must be zero, and are zero in `y`.
///
/// # Panics
/// If a window has more taps than `T` counts, or a length is not what shape and layout say.
///
/// ```
/// use swath_kernels::{isa::Cpu, layout::Layout, pass::Place, pool, shape::PoolShape};
/// let s = PoolShape::builder([1, 1, 2, 4], 2).build()?;
/// let (mut y, mut taps, mut dx) = ([0.0; 2], [0u8; 2], [0.0; 8]);
/// let place = Place::inline(Cpu::detect().level);
/// pool::max_taps(&place, Layout::Nchw, &s, &[1.0, 2.0, 5.0, 0.0, 4.0, 3.0, 5.0, 0.0], &mut y, &mut taps);
/// assert_eq!((y, taps), ([4.0, 5.0], [2, 0]));
/// pool::max_backward(&place, Layout::Nchw, &s, &taps, &[10.0, 20.0], &mut dx);
/// assert_eq!(dx, [0.0, 0.0, 20.0, 0.0, 10.0, 0.0, 0.0, 0.0]);
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
pub fn max_taps<T: Tap>(
    place: &Place<'_>,
    layout: Layout,
    shape: &PoolShape,
    x: &[f32],
    y: &mut [f32],
    taps: &mut [T],
) {
    check_taps::<T>(shape);
    check(layout, [shape.input(), shape.output()], x.len(), &[y.len(), taps.len()]);
    max(place, &Geometry::window(shape, layout, Divisor::Inside), false, x, y, taps);
}

/// The gradient of max pooling at the input: each `dy` goes to its window's tap, and where windows overlap gradients add, in the
/// order of the outputs.
///
/// # Panics
/// If a length is not what shape and layout say, or a tap is not one of its window's inside the input (where pixels are single floats).
pub fn max_backward<T: Tap>(
    place: &Place<'_>,
    layout: Layout,
    shape: &PoolShape,
    taps: &[T],
    dy: &[f32],
    dx: &mut [f32],
) {
    check_taps::<T>(shape);
    check(layout, [shape.input(), shape.output()], dx.len(), &[dy.len(), taps.len()]);
    max_gradient(place, &Geometry::window(shape, layout, Divisor::Inside), false, taps, dy, dx);
}

/// Max pooling that keeps the index of each maximum, `iy * iw + ix` within the plane, as PyTorch's, in the layout of `y`; ties and NaN as
/// in [`max_taps`], and [`NO_INDEX`](super::NO_INDEX) where a window has no tap inside the input.
///
/// # Panics
/// If a plane has 2^32 - 1 pixels or more, or a length is not what shape and layout say.
pub fn max_indices(
    place: &Place<'_>,
    layout: Layout,
    shape: &PoolShape,
    x: &[f32],
    y: &mut [f32],
    indices: &mut [u32],
) {
    shape.assert_consistent();
    assert_indexable(shape.ih * shape.iw);
    check(layout, [shape.input(), shape.output()], x.len(), &[y.len(), indices.len()]);
    max(place, &Geometry::window(shape, layout, Divisor::Inside), true, x, y, indices);
}

/// The gradient of [`max_indices`] at the input. Each `dy` goes to the pixel that its index names; where windows overlap, gradients add
/// in the order of the outputs.
///
/// # Panics
/// If a length is not what shape and layout say, or an index is beyond the plane.
pub fn max_indices_backward(
    place: &Place<'_>,
    layout: Layout,
    shape: &PoolShape,
    indices: &[u32],
    dy: &[f32],
    dx: &mut [f32],
) {
    shape.assert_consistent();
    check(layout, [shape.input(), shape.output()], dx.len(), &[dy.len(), indices.len()]);
    max_gradient(place, &Geometry::window(shape, layout, Divisor::Inside), true, indices, dy, dx);
}

/// The gradient of average pooling at the input.
///
/// # Panics
/// If the shape is dilated, the divisor is zero, or a length is not what shape and layout say.
pub fn average_backward(
    place: &Place<'_>,
    layout: Layout,
    shape: &PoolShape,
    divisor: Divisor,
    dy: &[f32],
    dx: &mut [f32],
) {
    assert_eq!([shape.dh, shape.dw], [1, 1], "average pooling has no dilation");
    check(layout, [shape.input(), shape.output()], dx.len(), &[dy.len()]);
    average_gradient(place, &Geometry::window(shape, layout, divisor), dy, dx);
}

/// The gradient of adaptive and global average pooling at the input.
///
/// # Panics
/// If a length is not what shape and layout say.
pub fn adaptive_average_backward(place: &Place<'_>, layout: Layout, shape: &AdaptiveShape, dy: &[f32], dx: &mut [f32]) {
    check(layout, [shape.input(), shape.output()], dx.len(), &[dy.len()]);
    average_gradient(place, &Geometry::adaptive(shape, layout), dy, dx);
}

/// Adaptive max pooling: output `o` of an axis is the maximum from `floor(o * in / out)` to before `ceil((o + 1) * in / out)`. Indices
/// are `iy * iw + ix` within the plane, as PyTorch's, in the layout of `y`; ties and NaN as in [`max_taps`].
///
/// # Panics
/// If a plane has 2^32 - 1 pixels or more, or a length is not what shape and layout say.
pub fn adaptive_max(
    place: &Place<'_>,
    layout: Layout,
    shape: &AdaptiveShape,
    x: &[f32],
    y: &mut [f32],
    indices: &mut [u32],
) {
    assert_indexable(shape.ih * shape.iw);
    check(layout, [shape.input(), shape.output()], x.len(), &[y.len(), indices.len()]);
    max(place, &Geometry::adaptive(shape, layout), true, x, y, indices);
}

/// The gradient of adaptive max pooling at the input.
///
/// # Panics
/// If an index is outside the plane, or a length is not what shape and layout say.
pub fn adaptive_max_backward(
    place: &Place<'_>,
    layout: Layout,
    shape: &AdaptiveShape,
    indices: &[u32],
    dy: &[f32],
    dx: &mut [f32],
) {
    check(layout, [shape.input(), shape.output()], dx.len(), &[dy.len(), indices.len()]);
    max_gradient(place, &Geometry::adaptive(shape, layout), true, indices, dy, dx);
}
