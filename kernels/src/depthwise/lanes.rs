//! The kernel body: it sweeps over a plane, borders and all, in one call.

use core::hint::black_box;

use crate::isa::{Isa, Kernel};
use crate::layout::BLOCK;
use crate::tile::Output;

use super::MAX_ICG;

/// Vectors of a block on the level with the shortest.
pub(super) const MAX_VECTORS: usize = 4;

/// Lane numbers of one vector: 16 for each step of `j`.
pub(super) const INDEX: usize = MAX_ICG * BLOCK;

/// Every output lane draws from its own input lane: depthwise.
pub(super) const OWN: usize = 0;
/// Output lanes draw from one input vector by a permutation.
pub(super) const PERMUTED: usize = 1;
/// All output lanes draw from one input channel: a vector lies inside one group.
pub(super) const ONE: usize = 2;

/// What a sweep works on. Lengths and steps in floats.
#[derive(Clone, Copy, Debug)]
pub struct LaneArgs {
    /// Input of tap (0, 0) of pixel 0 of line 0, which may lie outside of the input.
    pub(super) x: *const f32,
    /// Weights of that tap, `j = 0`.
    pub(super) w: *const f32,
    /// Steps of `j`, and from `j` to `j` in the input (other than 0 where all lanes draw from one) and in the weights.
    pub(super) groups: usize,
    pub(super) x_group: usize,
    pub(super) w_group: usize,
    /// Lane numbers, [`INDEX`] for each vector; unused without permutation.
    pub(super) index: *const u32,
    /// Lines, and from line to line in the input and in the output.
    pub(super) first_line: usize,
    pub(super) end_line: usize,
    pub(super) x_line: usize,
    pub(super) y_line: usize,
    /// Rows of taps, and from one to the next in the input and in the weights. Line `l` has the rows `r` with
    /// `above <= l * step + r < above + height`.
    pub(super) rows: usize,
    pub(super) x_row: usize,
    pub(super) w_row: usize,
    pub(super) above: usize,
    pub(super) height: usize,
    pub(super) step: usize,
    /// For the body that takes taps one by one: their number, and the steps of taps and pixels in the input.
    pub(super) taps: usize,
    pub(super) x_tap: usize,
    pub(super) px: usize,
    /// Pixels of a line, at least as many as a run has, and the runs that cover them; the last one overlaps.
    pub(super) width: usize,
    pub(super) runs: usize,
    /// Whether the first (last) pixels of a line lack taps.
    pub(super) left: bool,
    pub(super) right: bool,
    /// Planes, and from plane to plane in the input, the weights and the output.
    pub(super) planes: usize,
    pub(super) x_plane: usize,
    pub(super) w_plane: usize,
    /// Vectors of output channels, and where each draws from.
    pub(super) vectors: usize,
    pub(super) x_vector: [usize; MAX_VECTORS],
    /// Of pixel 0 of line 0 and vector 0 of plane 0.
    pub(super) out: Output,
}

/// The body for runs of `MR` pixels, `KW` taps at once, stride `S`; lanes draw from [`OWN`], [`PERMUTED`] or [`ONE`].
///
/// Windows may hang over the ends of a line by `L` and `R` taps; pixels leave out the taps that lie outside. With `KW = 1`
/// the taps of a row are taken one by one: for kernels of any width, stride and dilation, for pixels that lack other
/// taps, and for lines that run down a column.
pub struct Lanes<const MR: usize, const KW: usize, const S: usize, const FROM: usize, const L: usize, const R: usize>;

/// The sum of one run, which starts (`LEFT`) and ends (`RIGHT`) with the line.
///
/// # Safety
/// As for [`Lanes`]: the inputs and weights of `rows` rows of taps are readable.
#[inline(always)]
unsafe fn sum<I: Isa, const MR: usize, const KW: usize, const S: usize, const FROM: usize, const L: usize, const R: usize>(
    s: I,
    a: &LaneArgs,
    (x, w, index): (*const f32, *const f32, *const u32),
    rows: usize,
) -> [[I::V; 1]; MR] {
    let mut acc = [[s.zero(); 1]; MR];
    for j in 0..if FROM == OWN { 1 } else { a.groups } {
        // SAFETY: with a permutation there are lane numbers for each j.
        let index = if FROM == PERMUTED { Some(unsafe { s.load_index(index.wrapping_add(j * BLOCK)) }) } else { None };
        for ky in 0..rows {
            for kx in 0..if KW == 1 { a.taps } else { 1 } {
                // Taps that edge pixels leave out may lie outside of the input: wrapping arithmetic.
                let x = x.wrapping_add(j * a.x_group + ky * a.x_row + kx * a.x_tap);
                let mut wv = [s.zero(); KW];
                for t in 0..KW {
                    // SAFETY: weights of all taps are readable.
                    wv[t] = unsafe { s.load(w.wrapping_add(j * a.w_group + ky * a.w_row + (kx + t) * BLOCK)) };
                }
                // An input that serves several pixels is written as several loads of one address, which the
                // compiler makes one: in this form it unrolls the loops and keeps the sums in registers.
                for i in 0..MR {
                    for t in 0..KW {
                        if i * S + t < L || (MR - 1 - i) * S + (KW - 1 - t) < R {
                            continue;
                        }
                        let at = x.wrapping_add(if KW == 1 { i * a.px } else { (i * S + t) * BLOCK });
                        // SAFETY: this tap of this pixel is inside the input.
                        let mut v = unsafe { if FROM == ONE { s.load_splat(at) } else { s.load(at) } };
                        if let Some(index) = index {
                            v = s.permute(v, index);
                        }
                        acc[i][0] = s.fma(wv[t], v, acc[i][0]);
                    }
                }
            }
        }
    }
    acc
}

impl<I: Isa, const MR: usize, const KW: usize, const S: usize, const FROM: usize, const L: usize, const R: usize>
    Kernel<I> for Lanes<MR, KW, S, FROM, L, R>
{
    type Args = LaneArgs;

    /// # Safety
    /// * `width >= MR`, and `runs` runs of `MR` pixels cover it; `vectors <= MAX_VECTORS`;
    /// * for every plane and line, its rows of taps, its pixels and vectors, the input of every tap is readable, save those that hang over
    ///   the line's ends: with `left`, `L` taps of pixel 0, with `right`, `R` of the last one, and correspondingly less of
    ///   their neighbours in the first and last run;
    /// * the weights of all those taps are readable, and with a permutation [`INDEX`] lane numbers for each vector;
    /// * `out` is as `Output::store` asks for, at every pixel of every line of every plane and vector; planes are blocks of it.
    #[inline(always)]
    unsafe fn run(s: I, a: &LaneArgs) {
        const { assert!(MR + 4 <= I::REGISTERS) };
        for plane in 0..a.planes {
            for line in a.first_line..a.end_line {
                let top = line * a.step;
                let end = (a.above + a.height).saturating_sub(top).min(a.rows);
                let first = a.above.saturating_sub(top).min(end);
                let x_line = a.x.wrapping_add(plane * a.x_plane + line * a.x_line + first * a.x_row);
                let w_line = a.w.wrapping_add(plane * a.w_plane + first * a.w_row);
                // Known here by their values alone: else the four bodies below each have their addresses worked out anew
                // in every line, 100 instructions of it.
                let (x_line, w_line, rows) = black_box((x_line, w_line, end - first));
                for run in 0..a.runs {
                    let px = (run * MR).min(a.width - MR);
                    let x_run = x_line.wrapping_add(px * if KW == 1 { a.px } else { S * BLOCK });
                    let (left, right) = (a.left && run == 0, a.right && run + 1 == a.runs);
                    let y = line * a.y_line + px * a.out.px;
                    // The vectors of a pixel share its cache line, so that they come one after the other.
                    for v in 0..a.vectors {
                        let x = x_run.wrapping_add(a.x_vector[v & (MAX_VECTORS - 1)]);
                        let from = (x, w_line.wrapping_add(v * I::LANES), a.index.wrapping_add(v * INDEX));
                        // SAFETY: the contract covers every plane, line, run and vector.
                        unsafe {
                            let acc = match (left && L > 0, right && R > 0) {
                                (false, false) => sum::<I, MR, KW, S, FROM, 0, 0>(s, a, from, rows),
                                (true, false) => sum::<I, MR, KW, S, FROM, L, 0>(s, a, from, rows),
                                (false, true) => sum::<I, MR, KW, S, FROM, 0, R>(s, a, from, rows),
                                (true, true) => sum::<I, MR, KW, S, FROM, L, R>(s, a, from, rows),
                            };
                            a.out.store_vector(s, plane, v, y, acc);
                        }
                    }
                }
            }
        }
    }
}
