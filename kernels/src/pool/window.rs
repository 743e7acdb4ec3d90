//! Max and average pooling over sliding windows.

use core::marker::PhantomData;
use core::ops::Range;

use super::{Divisor, PoolArgs};
use crate::isa::{Isa, Kernel};
use crate::region::Axis;
use crate::shape::taps_inside;

/// How the elements of a window are folded.
pub(super) trait Fold {
    /// Whether the result is divided by the number of elements.
    const AVERAGE: bool;
    /// The value of a window without elements.
    const EMPTY: f32;
    fn step<I: Isa>(s: I, acc: I::V, v: I::V) -> I::V;
}

/// The maximum; NaN if any element is.
pub(super) struct Max;

impl Fold for Max {
    const AVERAGE: bool = false;
    const EMPTY: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn step<I: Isa>(s: I, acc: I::V, v: I::V) -> I::V {
        // Isa::max gives v where either is NaN, so only a NaN in acc has to be kept.
        s.select_nan(acc, acc, s.max(acc, v))
    }
}

/// The sum, for averages.
pub(super) struct Sum;

impl Fold for Sum {
    const AVERAGE: bool = true;
    const EMPTY: f32 = 0.0;
    #[inline(always)]
    fn step<I: Isa>(s: I, acc: I::V, v: I::V) -> I::V {
        s.add(acc, v)
    }
}

/// Windows folded by `F`, columns first. `K` and `S` are the square window and stride that the interior is unrolled for, or
/// 0 for any.
pub(super) struct Window<F, const K: usize, const S: usize>(PhantomData<F>);

/// One vector of channels of one output row.
#[derive(Clone, Copy)]
struct Line {
    /// Column 0 of the first input row under the windows.
    x: *const f32,
    /// First output pixel.
    y: *mut f32,
    /// Input rows under the windows.
    taps: usize,
    /// Rows that a divisor counts.
    height: usize,
    /// Lanes in use.
    lanes: usize,
    /// Lanes whose channels exist; the others pad the last block.
    channels: usize,
}

impl Line {
    /// Output row `r` of the range, channels from `channel` on.
    ///
    /// # Safety
    /// `a` is as [`super::PoolRow::run`] states, `r < a.rows`, `channel < a.ch`.
    #[inline(always)]
    unsafe fn new(a: &PoolArgs, r: usize, channel: usize, lanes: usize) -> Self {
        let ([ih, _], [oh, _]) = (a.input, a.output);
        let (unit, oy) = ((a.first + r) / oh, (a.first + r) % oh);
        let taps = taps_inside(oy, a.stride[0], a.dilation[0], a.pad.top, a.kernel[0], ih);
        // Where there is no tap, row 0 stands in and is not read.
        let iy = if taps.is_empty() { 0 } else { oy * a.stride[0] + taps.start * a.dilation[0] - a.pad.top };
        // Channels of this unit that exist; more than ch for all but the last.
        let exist = a.c - (unit % a.units) * a.ch;
        let lanes = lanes.min(a.ch - channel);
        let from = a.x_apart.start(a.units, unit) + iy * a.x_apart.row + channel;
        let to = a.y_apart.start(a.units, unit) + oy * a.y_apart.row + channel;
        Line {
            // SAFETY: row iy of the unit is inside x, by the contract.
            x: unsafe { a.x.add(from) },
            // SAFETY: row oy of the unit is inside y, by the contract.
            y: unsafe { a.y.add(to) },
            taps: taps.len(),
            height: divisor(a, 0, oy, taps.len(), ih + a.pad.top + a.pad.bottom),
            lanes,
            channels: exist.saturating_sub(channel).min(lanes),
        }
    }

    /// The line's lanes of the input pixel at `p`; `WHOLE` where they are a whole vector.
    ///
    /// # Safety
    /// `p` is readable for as many floats.
    #[inline(always)]
    unsafe fn load<I: Isa, const WHOLE: bool>(&self, s: I, p: *const f32) -> I::V {
        // SAFETY: the caller vouches for the lanes, which are LANES if WHOLE.
        unsafe { if WHOLE { s.load(p) } else { s.load_partial(p, self.lanes) } }
    }

    /// The line's lanes to output pixel `ox`, divided by the number of elements if `F` is an average.
    ///
    /// # Safety
    /// `ox` is below the output's width.
    #[inline(always)]
    unsafe fn finish<I: Isa, F: Fold, const WHOLE: bool>(&self, s: I, a: &PoolArgs, ox: usize, v: I::V, taps: usize) {
        let v = if F::AVERAGE {
            let padded = a.input[1] + a.pad.left + a.pad.right;
            s.div(v, s.splat((self.height * divisor(a, 1, ox, taps, padded)) as f32))
        } else {
            v
        };
        // SAFETY: pixel ox of the row is inside y, and has the line's lanes.
        unsafe {
            let y = self.y.add(ox * a.ch);
            if WHOLE { s.store(y, v) } else { s.store_partial(y, v, self.lanes) }
        }
    }

    /// Writes the value of a window without elements.
    ///
    /// # Safety
    /// `ox` is below the output's width.
    #[cold]
    unsafe fn empty(&self, a: &PoolArgs, ox: usize, value: f32) {
        for i in 0..self.lanes {
            // SAFETY: pixel ox of the row is inside y, and has the line's lanes.
            unsafe { self.y.add(ox * a.ch + i).write(if i < self.channels { value } else { 0.0 }) };
        }
    }

    /// Folds `n >= 1` vectors that are `pitch` apart.
    ///
    /// # Safety
    /// All of them are inside the input.
    #[inline(always)]
    unsafe fn column<I: Isa, F: Fold, const WHOLE: bool>(&self, s: I, x: *const f32, n: usize, pitch: usize) -> I::V {
        // SAFETY: the first of the n vectors.
        let mut acc = unsafe { self.load::<I, WHOLE>(s, x) };
        for i in 1..n {
            // SAFETY: i < n.
            acc = F::step(s, acc, unsafe { self.load::<I, WHOLE>(s, x.add(i * pitch)) });
        }
        acc
    }

    /// One window of any size, with the taps `taps` of its width.
    ///
    /// # Safety
    /// `ox` is below the output's width; the taps are inside the input's.
    #[inline(always)]
    unsafe fn window<I: Isa, F: Fold, const WHOLE: bool>(&self, s: I, a: &PoolArgs, ox: usize, taps: Range<usize>) {
        if self.taps == 0 || taps.is_empty() {
            // SAFETY: the caller vouches for ox.
            return unsafe { self.empty(a, ox, F::EMPTY) };
        }
        let ix = ox * a.stride[1] + taps.start * a.dilation[1] - a.pad.left;
        let pitch = a.dilation[0] * a.x_apart.row;
        // SAFETY: these taps are inside the input's width, and self.taps rows inside its height.
        unsafe {
            let x = self.x.add(ix * a.ch);
            let mut acc = self.column::<I, F, WHOLE>(s, x, self.taps, pitch);
            for k in 1..taps.len() {
                let column = self.column::<I, F, WHOLE>(s, x.add(k * a.dilation[1] * a.ch), self.taps, pitch);
                acc = F::step(s, acc, column);
            }
            self.finish::<I, F, WHOLE>(s, a, ox, acc, taps.len());
        }
    }

    /// The windows of the interior, unrolled; columns that two of them share are folded once.
    ///
    /// # Safety
    /// All K rows and columns of these windows are inside the input, which has window `K`, stride `S`, no dilation.
    #[inline(always)]
    unsafe fn unrolled<I: Isa, F: Fold, const K: usize, const S: usize, const WHOLE: bool>(
        &self,
        s: I,
        a: &PoolArgs,
        inside: Range<usize>,
    ) {
        let (ch, pitch) = (a.ch, a.x_apart.row);
        // SAFETY: the caller vouches for K rows and columns of every window; the pointer moves past the last window
        // without being read.
        unsafe {
            let mut x = self.x.add((inside.start * S - a.pad.left) * ch);
            let mut columns = [s.zero(); K];
            for k in 0..K - S {
                columns[k] = self.column::<I, F, WHOLE>(s, x.add(k * ch), K, pitch);
            }
            for ox in inside {
                for k in K - S..K {
                    columns[k] = self.column::<I, F, WHOLE>(s, x.add(k * ch), K, pitch);
                }
                let mut acc = columns[0];
                for k in 1..K {
                    acc = F::step(s, acc, columns[k]);
                }
                self.finish::<I, F, WHOLE>(s, a, ox, acc, K);
                for k in 0..K - S {
                    columns[k] = columns[k + S];
                }
                x = x.wrapping_add(S * ch);
            }
        }
    }

    /// Vectors of windows side by side of a plane: those of the interior, of which there is at least a vector. The last vector overlaps
    /// the one before, and computes its outputs again.
    ///
    /// # Safety
    /// A pixel is one float; all columns of these windows are inside the input; the stride is `S`, 1 or 2; there is a row of taps.
    #[inline(always)]
    unsafe fn along<I: Isa, F: Fold, const S: usize>(&self, s: I, a: &PoolArgs, inside: &Range<usize>) {
        let pitch = a.dilation[0] * a.x_apart.row;
        for first in inside.clone().step_by(I::LANES) {
            let ox = first.min(inside.end - I::LANES);
            // SAFETY: these windows are inside the interior, whose rows and columns of taps are inside the input; their pixels of the row
            // are inside y.
            unsafe {
                let x = self.x.add(ox * S - a.pad.left);
                let mut acc = column_apart::<I, F, S>(s, x, self.taps, pitch);
                for k in 1..a.kernel[1] {
                    let column = column_apart::<I, F, S>(s, x.add(k * a.dilation[1]), self.taps, pitch);
                    acc = F::step(s, acc, column);
                }
                self.finish::<I, F, true>(s, a, ox, acc, a.kernel[1]);
            }
        }
    }

    /// Left border, interior, right border.
    ///
    /// # Safety
    /// `inside` is [`interior`]; `WHOLE` says whether all lanes are in use; if `K` is not 0, the window and its stride
    /// are `K` and `S`, without dilation.
    #[inline(always)]
    unsafe fn run<I: Isa, F: Fold, const K: usize, const S: usize, const WHOLE: bool>(
        &self,
        s: I,
        a: &PoolArgs,
        inside: &Range<usize>,
    ) {
        let unroll = K > 0 && self.taps == K && !inside.is_empty();
        let side_by_side = a.ch == 1 && self.taps > 0 && a.stride[1] <= 2 && inside.len() >= I::LANES;
        let mut ox = 0;
        while ox < a.output[1] {
            let whole = inside.contains(&ox);
            if whole && side_by_side {
                // SAFETY: a plane's windows of the interior, which fill a vector, and whose rows of taps are inside the input.
                unsafe {
                    match a.stride[1] {
                        1 => self.along::<I, F, 1>(s, a, inside),
                        _ => self.along::<I, F, 2>(s, a, inside),
                    }
                }
                ox = inside.end;
                continue;
            }
            // SAFETY: ox is below the width; windows of the interior have all columns inside the input, the others those
            // that taps_inside finds; unrolled rows have all their K rows inside.
            unsafe {
                if whole && unroll {
                    self.unrolled::<I, F, K, S, WHOLE>(s, a, inside.clone());
                    ox = inside.end;
                    continue;
                }
                let taps = if whole { 0..a.kernel[1] } else { taps_of(a, ox) };
                self.window::<I, F, WHOLE>(s, a, ox, taps);
            }
            ox += 1;
        }
    }
}

/// A vector of floats that are `S` apart, 1 or 2. What follows the last of them is not read.
///
/// # Safety
/// They are readable, and what lies between.
#[inline(always)]
unsafe fn apart<I: Isa, const S: usize>(s: I, p: *const f32) -> I::V {
    // SAFETY: the caller vouches for these floats: 2 LANES - 1 of them where every second one is taken.
    unsafe {
        let first = s.load(p);
        if S == 1 { first } else { s.unzip(first, s.load_partial(p.add(I::LANES), I::LANES - 1))[0] }
    }
}

/// Folds `n >= 1` vectors of [`apart`] that are `pitch` from each other. Loops, not closures: what the compiler does not
/// inline into the kernel lacks its instructions.
///
/// # Safety
/// As [`apart`], for each of them.
#[inline(always)]
unsafe fn column_apart<I: Isa, F: Fold, const S: usize>(s: I, x: *const f32, n: usize, pitch: usize) -> I::V {
    // SAFETY: the first of the n vectors.
    let mut acc = unsafe { apart::<I, S>(s, x) };
    for i in 1..n {
        // SAFETY: i < n.
        acc = F::step(s, acc, unsafe { apart::<I, S>(s, x.add(i * pitch)) });
    }
    acc
}

/// Elements along an axis that the divisor counts at window `o`, of which `taps` are inside the input.
#[inline(always)]
fn divisor(a: &PoolArgs, axis: usize, o: usize, taps: usize, padded: usize) -> usize {
    let start = o * a.stride[axis];
    match a.divisor {
        Divisor::Inside => taps,
        Divisor::Padded => (start + a.kernel[axis]).min(padded).saturating_sub(start),
        Divisor::Fixed(d) => [d, 1][axis],
    }
}

/// Windows whose taps are all inside the input's width.
#[inline(always)]
fn interior(a: &PoolArgs) -> Range<usize> {
    let [[_, input], [_, output], [_, kernel], [_, stride], [_, dilation]] =
        [a.input, a.output, a.kernel, a.stride, a.dilation];
    Axis { output, input, kernel, stride, dilation, before: a.pad.left }.interior()
}

/// Taps of window `ox` inside the input's width.
#[inline(always)]
fn taps_of(a: &PoolArgs, ox: usize) -> Range<usize> {
    taps_inside(ox, a.stride[1], a.dilation[1], a.pad.left, a.kernel[1], a.input[1])
}

impl<I: Isa, F: Fold, const K: usize, const S: usize> Kernel<I> for Window<F, K, S> {
    type Args = PoolArgs;

    /// # Safety
    /// As [`super::PoolRow::run`] states.
    #[inline(always)]
    unsafe fn run(s: I, a: &PoolArgs) {
        let inside = interior(a);
        for r in 0..a.rows {
            for channel in (0..a.ch).step_by(I::LANES) {
                // SAFETY: r and channel are in range; the rest is what the caller vouches for.
                unsafe {
                    let line = Line::new(a, r, channel, I::LANES);
                    if line.lanes == I::LANES {
                        line.run::<I, F, K, S, true>(s, a, &inside);
                    } else {
                        line.run::<I, F, K, S, false>(s, a, &inside);
                    }
                }
            }
        }
    }
}
