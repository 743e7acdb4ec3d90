//! Gradients of pooling, and max pooling that keeps what its gradient needs.
//!
//! ```text
//! for each row of dx                      a part is some rows of one unit
//!   zero it                               it stays in L1
//!   for oy that covers it, for ox         in order: the same bits however rows are shared out
//!     for kx: dx[ix] += dy[oy, ox]        if its tap is (ky, kx); divided by the window's count
//! ```
//!
//! In NCHW planes maxima with taps are made eight outputs side by side, and average pooling adds the shares of all windows that lie inside
//! column by column, then those at the borders.
//!
//! Max pooling keeps for each output which tap won: a byte for windows of up to 255 taps, two for larger ones. In NCHW planes, where a
//! pixel is one float, each output adds to the one input that it names instead.

use core::mem::MaybeUninit;
use core::ops::Range;

use super::geometry::{Geometry, Span, Whole};
use super::spans::Spans;
use super::{AdaptiveShape, Divisor, Lies, assert_indexable, assert_lengths};
use crate::epilogue::Outputs;
use crate::isa::Isa;
use crate::layout::BLOCK;
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

/// Row `row` of a piece, of `len` floats that are `apart` from the next one's, all zero.
#[inline(always)]
fn zeroed(dx: &mut [MaybeUninit<f32>], row: usize, apart: usize, len: usize) -> &mut [f32] {
    Outputs::Unwritten(&mut dx[row * apart..][..len]).filled(0.0)
}

/// Some rows of maxima with their taps.
struct MaxRows<'a, T> {
    g: &'a Geometry,
    /// From the unit's input on.
    x: &'a [f32],
    /// Channels that exist.
    existing: usize,
    /// First output row.
    first: usize,
    y: &'a mut [MaybeUninit<f32>],
    /// Those of the same rows, without gaps.
    taps: &'a mut [MaybeUninit<T>],
    /// Numbers of taps count from the input's first pixel, not the window's.
    absolute: bool,
}

/// Keeps the larger of what there is and of `next(k)`, a value and its number, in each lane.
#[inline(always)]
fn keep_larger<const N: usize>(
    best: &mut [f32; N],
    number: &mut [u32; N],
    first: bool,
    next: impl Fn(usize) -> (f32, u32),
) {
    for k in 0..N {
        let (v, i) = next(k);
        // The first of equals, the last NaN; the first tap in any case: all may be minus infinity.
        #[allow(clippy::eq_op)] // is it NaN
        let better = (v > best[k]) | (v != v) | first;
        best[k] = if better { v } else { best[k] };
        number[k] = if better { i } else { number[k] };
    }
}

/// Outputs of a plane that are made side by side.
const SIDE: usize = 8;

impl<T: Tap> MaxRows<'_, T> {
    /// Output row `row` of a plane: the outputs whose windows have all their columns, [`SIDE`] at a time; the last ones overlap. None where
    /// these are too few, or more than two inputs apart.
    #[inline(always)]
    fn side_by_side(&mut self, row: usize, v: &Span) -> Option<Range<usize>> {
        let whole = self.g.h.whole().filter(|w| w.outputs.len() >= SIDE && !v.taps.is_empty())?;
        let outputs = whole.outputs.clone();
        for first in outputs.clone().step_by(SIDE) {
            let ox = first.min(outputs.end - SIDE);
            match whole.stride {
                1 => self.eight::<1>(row, v, &whole, ox),
                2 => self.eight::<2>(row, v, &whole, ox),
                _ => return None,
            }
        }
        Some(outputs)
    }

    /// [`SIDE`] outputs of a plane from `ox` on, whose windows are `S` inputs apart.
    #[inline(always)]
    fn eight<const S: usize>(&mut self, row: usize, v: &Span, whole: &Whole, ox: usize) {
        let (g, start) = (self.g, whole.start + (ox - whole.outputs.start) * S);
        let (mut best, mut tap) = ([f32::NEG_INFINITY; SIDE], [T::NONE.get() as u32; SIDE]);
        for (i, ky) in v.taps.clone().enumerate() {
            let iy = v.start + i * v.step;
            for kx in 0..whole.columns {
                let ix = start + kx * whole.step;
                let p = &self.x[iy * g.x.row + ix..][..(SIDE - 1) * S + 1];
                let first = i + kx == 0;
                let number = |k| if self.absolute { iy * g.h.input + ix + k * S } else { ky * g.kw + kx };
                keep_larger(&mut best, &mut tap, first, |k| (p[k * S], number(k) as u32));
            }
        }
        self.y[row * g.y.row + ox..][..SIDE].copy_from_slice(&best.map(MaybeUninit::new));
        for (t, k) in self.taps[row * g.h.output + ox..][..SIDE].iter_mut().zip(tap) {
            t.write(T::new(k as usize));
        }
    }

    /// `N` lanes of the output at these places of `y` and `taps`.
    #[inline(always)]
    fn lanes<const N: usize>(&mut self, (v, h): (&Span, &Span), [at, tap_at]: [usize; 2], c: usize) {
        let (g, ch) = (self.g, self.g.ch);
        let (mut best, mut tap) = ([f32::NEG_INFINITY; N], [T::NONE.get() as u32; N]);
        for (i, ky) in v.taps.clone().enumerate() {
            for (j, kx) in h.taps.clone().enumerate() {
                let (iy, ix) = (v.start + i * v.step, h.start + j * h.step);
                let p: &[f32; N] = pixel(self.x, iy * g.x.row + ix * ch + c, N).try_into().expect("N lanes");
                let number = if self.absolute { iy * g.h.input + ix } else { ky * g.kw + kx } as u32;
                keep_larger(&mut best, &mut tap, i + j == 0, |k| (p[k], number));
            }
        }
        if v.taps.is_empty() || h.taps.is_empty() {
            for k in self.existing.saturating_sub(c).min(N)..N {
                best[k] = 0.0; // channels that pad the block
            }
        }
        self.y[at + c..at + c + N].copy_from_slice(&best.map(MaybeUninit::new));
        for (t, k) in self.taps[tap_at + c..tap_at + c + N].iter_mut().zip(tap) {
            t.write(T::new(k as usize));
        }
    }
}

impl<T: Tap> Body for MaxRows<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, _: I) {
        let (ow, ch) = (self.g.h.output, self.g.ch);
        for row in 0..self.taps.len() / (ow * ch) {
            let v = self.g.v.span(self.first + row);
            let done = if ch == 1 { self.side_by_side(row, &v) } else { None }.unwrap_or(0..0);
            for ox in (0..ow).filter(|ox| !done.contains(ox)) {
                let (h, at) = (self.g.h.span(ox), [row * self.g.y.row + ox * ch, (row * ow + ox) * ch]);
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
    /// The unit's taps, without gaps, and its gradient and what follows.
    taps: &'a [T],
    dy: &'a [f32],
    first: usize,
    rows: usize,
    dx: &'a mut [MaybeUninit<f32>],
}

impl<T: Tap> Body for MaxGradient<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (g, ch) = (self.g, self.g.ch);
        for row in 0..self.rows {
            let dx = zeroed(self.dx, row, g.x.row, g.h.input * ch);
            let iy = self.first + row;
            for oy in g.v.covering(iy) {
                let Some(ky) = g.v.tap(oy, iy) else { continue };
                for ox in 0..g.h.output {
                    let (h, at) = (g.h.span(ox), (oy * g.h.output + ox) * ch);
                    let (dy, taps) = (pixel(self.dy, oy * g.y.row + ox * ch, ch), pixel(self.taps, at, ch));
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
fn scatter<T: Tap>(g: &Geometry, absolute: bool, taps: &[T], dy: &[f32], dx: &mut [MaybeUninit<f32>]) {
    let (ch, pixels) = (g.ch, g.v.input * g.h.input);
    for row in 0..g.v.input {
        zeroed(dx, row, g.x.row, g.h.input * ch);
    }
    // Where rows follow each other, pixels need not be told apart by them.
    let long = g.x.row == g.h.input * ch;
    if absolute && long && ch == 1 {
        for (taps, dy) in taps.chunks_exact(g.h.output).zip(dy.chunks(g.y.row)) {
            for (tap, dy) in taps.iter().zip(dy).filter(|(tap, _)| **tap != T::NONE) {
                assert!(tap.get() < pixels, "pixel {} of a plane of {pixels}", tap.get());
                // SAFETY: a pixel of the plane, all of which were zeroed above.
                let sum = unsafe { dx[tap.get()].assume_init() } + dy;
                dx[tap.get()].write(sum);
            }
        }
        return;
    }
    for (oy, ox) in (0..g.v.output).flat_map(|oy| (0..g.h.output).map(move |ox| (oy, ox))) {
        let (v, h, at) = (g.v.span(oy), g.h.span(ox), (oy * g.h.output + ox) * ch);
        let dy_at = oy * g.y.row + ox * ch;
        for c in 0..ch {
            let tap = taps[at + c];
            if tap == T::NONE {
                continue;
            }
            let at_pixel = if absolute {
                let pixel = tap.get();
                assert!(pixel < pixels, "pixel {pixel} of a plane of {pixels}");
                if long { pixel * ch } else { pixel / g.h.input * g.x.row + pixel % g.h.input * ch }
            } else {
                let (ky, kx) = (tap.get() / g.kw, tap.get() % g.kw);
                let inside = v.taps.contains(&ky) && h.taps.contains(&kx);
                assert!(inside, "tap {} of the window at {oy}, {ox} is outside the input", tap.get());
                let (iy, ix) = (v.start + (ky - v.taps.start) * v.step, h.start + (kx - h.taps.start) * h.step);
                iy * g.x.row + ix * ch
            };
            let d = &mut dx[at_pixel + c];
            // SAFETY: a channel of a pixel, all of which were zeroed above.
            let sum = unsafe { d.assume_init() } + dy[dy_at + c];
            d.write(sum);
        }
    }
}

/// Some rows of the gradient of averages.
struct AverageGradient<'a> {
    g: &'a Geometry,
    /// The unit's and what follows.
    dy: &'a [f32],
    first: usize,
    rows: usize,
    dx: &'a mut [MaybeUninit<f32>],
}

/// Outputs whose shares are computed at once.
const SHARES: usize = 256;

/// Adds the shares of a plane's output row `oy`, of windows of so many rows and all their columns, column by column.
#[inline(always)]
fn add_shares(g: &Geometry, dy: &[f32], (oy, rows): (usize, usize), dx: &mut [f32]) -> Option<Range<usize>> {
    let whole = g.h.whole().filter(|w| !w.outputs.is_empty())?;
    let count = g.count((oy, rows), (whole.outputs.start, whole.columns));
    let dy = &dy[oy * g.y.row..][whole.outputs.clone()];
    let mut shares = [0.0; SHARES];
    for (i, dy) in dy.chunks(SHARES).enumerate() {
        let shares = &mut shares[..dy.len()];
        shares.iter_mut().zip(dy).for_each(|(share, dy)| *share = dy / count);
        let dx = &mut dx[whole.start + i * SHARES * whole.stride..];
        match (whole.stride, whole.columns, whole.step) {
            (2, 2, 1) => {
                for (dx, share) in dx.chunks_exact_mut(2).zip(&*shares) {
                    dx[0] += share;
                    dx[1] += share;
                }
            }
            (stride, columns, 1) if stride == columns => {
                for (dx, share) in dx.chunks_exact_mut(stride).zip(&*shares) {
                    dx.iter_mut().for_each(|dx| *dx += share);
                }
            }
            (1, ..) => {
                for column in 0..whole.columns {
                    dx[column * whole.step..].iter_mut().zip(&*shares).for_each(|(dx, share)| *dx += share);
                }
            }
            _ => {
                for column in 0..whole.columns {
                    let dx = dx[column * whole.step..].iter_mut().step_by(whole.stride);
                    dx.zip(&*shares).for_each(|(dx, share)| *dx += share);
                }
            }
        }
    }
    Some(whole.outputs)
}

impl Body for AverageGradient<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (g, ch) = (self.g, self.g.ch);
        for row in 0..self.rows {
            let dx = zeroed(self.dx, row, g.x.row, g.h.input * ch);
            let iy = self.first + row;
            for oy in g.v.covering(iy) {
                if g.v.tap(oy, iy).is_none() {
                    continue;
                }
                let rows = g.v.span(oy).taps.len();
                let done = if ch == 1 { add_shares(g, self.dy, (oy, rows), dx) } else { None }.unwrap_or(0..0);
                for ox in (0..g.h.output).filter(|ox| !done.contains(ox)) {
                    let h = g.h.span(ox);
                    let dy = pixel(self.dy, oy * g.y.row + ox * ch, ch);
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

/// Panics unless the taps of a window can be told apart.
#[track_caller]
fn check_taps<T: Tap>(shape: &PoolShape) {
    let taps = shape.kh * shape.kw;
    assert!(taps <= T::most(), "{taps} taps of a window, {} can be told apart", T::most());
}

fn max<'y, 'i, T: Tap>(
    place: &Place<'_>,
    g: &Geometry,
    absolute: bool,
    x: &[f32],
    mut y: Outputs<'y>,
    mut taps: Outputs<'i, T>,
) -> (&'y mut [f32], &'i mut [T]) {
    assert_lengths(g.views, x.len(), &y);
    let (output, [_, row]) = (g.outputs(), g.row_lens());
    assert_eq!(taps.len(), g.n * g.units * output, "as many taps as outputs");
    let rows = rows_of(row);
    // SAFETY: floats and taps are written to them.
    let (floats, cells) = unsafe { (y.memory(), taps.memory()) };
    let cut = (Spans::new(floats, g, g.y, [g.v.output, row], rows), Chunks::of_units(cells, output, rows * row));
    place.each(x.len() + 2 * g.n * g.units * output, cut, |_, (([unit, first], y), taps)| {
        let x = &x[g.x.start(g.units, unit)..];
        place.at(MaxRows { g, x, existing: g.existing(unit), first, y, taps, absolute });
    });
    // SAFETY: all rows of all units are written, and what holds nothing has no gaps (asserted).
    unsafe { (y.written(), taps.written()) }
}

fn max_gradient<'x, T: Tap>(
    place: &Place<'_>,
    g: &Geometry,
    absolute: bool,
    taps: &[T],
    dy: &[f32],
    dx: Outputs<'x>,
) -> &'x mut [f32] {
    let output = g.outputs();
    assert_eq!(taps.len(), g.n * g.units * output, "as many taps as outputs");
    let of = |unit: usize| &taps[unit * output..(unit + 1) * output];
    let rows = if absolute || g.ch == 1 { g.v.input } else { rows_of(g.row_lens()[0]) };
    by_rows(place, g, rows, dx, dy, taps.len(), |unit, rows, dy, dx| {
        let taps = of(unit);
        if absolute || g.ch == 1 {
            return scatter(g, absolute, taps, dy, dx);
        }
        place.at(MaxGradient { g, taps, dy, first: rows.start, rows: rows.len(), dx });
    })
}

fn average_gradient<'x>(place: &Place<'_>, g: &Geometry, dy: &[f32], dx: Outputs<'x>) -> &'x mut [f32] {
    by_rows(place, g, rows_of(g.row_lens()[0]), dx, dy, 0, |_, rows, dy, dx| {
        place.at(AverageGradient { g, dy, first: rows.start, rows: rows.len(), dx });
    })
}

/// `f` of each unit and some rows of the input's gradient, which it writes, with the output's gradient from the unit on. `more` is what it
/// reads besides.
fn by_rows<'x>(
    place: &Place<'_>,
    g: &Geometry,
    rows: usize,
    mut dx: Outputs<'x>,
    dy: &[f32],
    more: usize,
    f: impl Fn(usize, Range<usize>, &[f32], &mut [MaybeUninit<f32>]) + Sync,
) -> &'x mut [f32] {
    let [x, y] = g.views;
    assert_lengths([y, x], dy.len(), &dx);
    let (height, floats) = (g.v.input, dx.len() + dy.len() + more);
    // SAFETY: floats are written to it.
    let memory = unsafe { dx.memory() };
    let cut = Spans::new(memory, g, g.x, [height, g.row_lens()[0]], rows);
    place.each(floats, cut, |_, ([unit, first], dx)| {
        f(unit, first..(first + rows).min(height), &dy[g.y.start(g.units, unit)..], dx);
    });
    // SAFETY: all rows of all units are written, and what holds nothing has no gaps (asserted).
    unsafe { dx.written() }
}

/// Max pooling that keeps which tap of each window won: `y` and `taps`, in the layout of `y`, for [`max_backward`].
///
/// As in PyTorch the first of equal maxima wins, and a NaN wins over everything, the last one over the others. A window without a tap
/// inside the input gives minus infinity and [`Tap::NONE`]. Channels that pad the last block must be zero, and are zero in `y`.
///
/// # Panics
/// If a window has more taps than `T` counts, or a length is not what the shape says.
///
/// ```
/// use swath_kernels::{isa::Cpu, layout::Layout, pass::Place, pool, shape::PoolShape};
/// let s = PoolShape::builder([1, 1, 2, 4], 2).build()?;
/// let (mut y, mut taps, mut dx) = ([0.0; 2], [0u8; 2], [0.0; 8]);
/// let place = Place::inline(Cpu::detect().level);
/// let x = [1.0, 2.0, 5.0, 0.0, 4.0, 3.0, 5.0, 0.0];
/// pool::max_taps(&place, Layout::Nchw, &s, &x, y.as_mut_slice().into(), taps.as_mut_slice().into());
/// assert_eq!((y, taps), ([4.0, 5.0], [2, 0]));
/// pool::max_backward(&place, Layout::Nchw, &s, &taps, &[10.0, 20.0], dx.as_mut_slice().into());
/// assert_eq!(dx, [0.0, 0.0, 20.0, 0.0, 10.0, 0.0, 0.0, 0.0]);
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
pub fn max_taps<'y, 'i, T: Tap>(
    place: &Place<'_>,
    lies: impl Into<Lies>,
    shape: &PoolShape,
    x: &[f32],
    y: Outputs<'y>,
    taps: Outputs<'i, T>,
) -> (&'y mut [f32], &'i mut [T]) {
    check_taps::<T>(shape);
    max(place, &Geometry::window(shape, lies.into(), Divisor::Inside), false, x, y, taps)
}

/// The gradient of max pooling at the input: each `dy` goes to its window's tap, and where windows overlap gradients add, in the
/// order of the outputs.
///
/// # Panics
/// If a length is not what the shape says, or a tap is not one of its window's inside the input (where pixels are single floats).
pub fn max_backward<'x, T: Tap>(
    place: &Place<'_>,
    lies: impl Into<Lies>,
    shape: &PoolShape,
    taps: &[T],
    dy: &[f32],
    dx: Outputs<'x>,
) -> &'x mut [f32] {
    check_taps::<T>(shape);
    max_gradient(place, &Geometry::window(shape, lies.into(), Divisor::Inside), false, taps, dy, dx)
}

/// Max pooling that keeps the index of each maximum, `iy * iw + ix` within the plane, as PyTorch's, in the layout of `y`; ties and NaN as
/// in [`max_taps`], and [`NO_INDEX`](super::NO_INDEX) where a window has no tap inside the input.
///
/// # Panics
/// If a plane has 2^32 - 1 pixels or more, or a length is not what the shape says.
pub fn max_indices<'y, 'i>(
    place: &Place<'_>,
    lies: impl Into<Lies>,
    shape: &PoolShape,
    x: &[f32],
    y: Outputs<'y>,
    indices: Outputs<'i, u32>,
) -> (&'y mut [f32], &'i mut [u32]) {
    shape.assert_consistent();
    assert_indexable(shape.ih * shape.iw);
    max(place, &Geometry::window(shape, lies.into(), Divisor::Inside), true, x, y, indices)
}

/// The gradient of [`max_indices`] at the input. Each `dy` goes to the pixel that its index names; where windows overlap, gradients add
/// in the order of the outputs.
///
/// # Panics
/// If a length is not what the shape says, or an index is beyond the plane.
pub fn max_indices_backward<'x>(
    place: &Place<'_>,
    lies: impl Into<Lies>,
    shape: &PoolShape,
    indices: &[u32],
    dy: &[f32],
    dx: Outputs<'x>,
) -> &'x mut [f32] {
    shape.assert_consistent();
    max_gradient(place, &Geometry::window(shape, lies.into(), Divisor::Inside), true, indices, dy, dx)
}

/// The gradient of average pooling at the input.
///
/// # Panics
/// If the shape is dilated, or a length is not what the shape says.
pub fn average_backward<'x>(
    place: &Place<'_>,
    lies: impl Into<Lies>,
    shape: &PoolShape,
    divisor: Divisor,
    dy: &[f32],
    dx: Outputs<'x>,
) -> &'x mut [f32] {
    assert_eq!([shape.dh, shape.dw], [1, 1], "average pooling has no dilation");
    average_gradient(place, &Geometry::window(shape, lies.into(), divisor), dy, dx)
}

/// The gradient of adaptive and global average pooling at the input.
///
/// # Panics
/// If a length is not what the shape says.
pub fn adaptive_average_backward<'x>(
    place: &Place<'_>,
    lies: impl Into<Lies>,
    shape: &AdaptiveShape,
    dy: &[f32],
    dx: Outputs<'x>,
) -> &'x mut [f32] {
    average_gradient(place, &Geometry::adaptive(shape, lies.into()), dy, dx)
}

/// Adaptive max pooling: output `o` of an axis is the maximum from `floor(o * in / out)` to before `ceil((o + 1) * in / out)`. Indices
/// are `iy * iw + ix` within the plane, as PyTorch's, in the layout of `y`; ties and NaN as in [`max_taps`].
///
/// # Panics
/// If a plane has 2^32 - 1 pixels or more, or a length is not what the shape says.
pub fn adaptive_max<'y, 'i>(
    place: &Place<'_>,
    lies: impl Into<Lies>,
    shape: &AdaptiveShape,
    x: &[f32],
    y: Outputs<'y>,
    indices: Outputs<'i, u32>,
) -> (&'y mut [f32], &'i mut [u32]) {
    assert_indexable(shape.ih * shape.iw);
    max(place, &Geometry::adaptive(shape, lies.into()), true, x, y, indices)
}

/// The gradient of adaptive max pooling at the input.
///
/// # Panics
/// If an index is outside the plane, or a length is not what the shape says.
pub fn adaptive_max_backward<'x>(
    place: &Place<'_>,
    lies: impl Into<Lies>,
    shape: &AdaptiveShape,
    indices: &[u32],
    dy: &[f32],
    dx: Outputs<'x>,
) -> &'x mut [f32] {
    max_gradient(place, &Geometry::adaptive(shape, lies.into()), true, indices, dy, dx)
}
