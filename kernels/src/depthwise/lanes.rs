//! The kernel body: it sweeps over a plane, borders and all, in one call.

use core::ops::Range;

use crate::isa::{Isa, Kernel};
use crate::layout::BLOCK;
use crate::tile::{Output, Strand};
use crate::unrolled::unrolled;

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
/// As [`OWN`], where the pixels of a row lie any number of floats apart: NHWC.
pub(super) const APART: usize = 3;

/// What a sweep works on. Lengths and steps in floats.
#[derive(Clone, Copy, Debug)]
pub struct LaneArgs {
    /// Input of tap (0, 0) of pixel 0 of line 0, which may lie outside of the input.
    pub(super) x: *const f32,
    /// Weights of that tap, `j = 0`.
    pub(super) w: *const f32,
    /// Steps of `j`, and from block to block in the input (where all lanes draw from one channel, `j` steps through channels)
    /// and from `j` to `j` in the weights.
    pub(super) groups: usize,
    pub(super) x_block: usize,
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
    /// For the body that takes taps one by one, their number; there and where pixels lie [`APART`], the steps of taps and pixels in the
    /// input.
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
    /// Vectors of output channels, where each draws from, and for [`ONE`] the channel of that block with which `j` starts.
    pub(super) vectors: usize,
    pub(super) x_vector: [usize; MAX_VECTORS],
    pub(super) head: [usize; MAX_VECTORS],
    /// Of pixel 0 of line 0 and vector 0 of plane 0.
    pub(super) out: Output,
}

impl LaneArgs {
    /// The lines, among those to compute, that have all rows of taps.
    fn whole_lines(&self) -> Range<usize> {
        let (first, end) = (self.first_line, self.end_line);
        let below = self.above + self.height;
        if self.step == 0 || below < self.rows {
            return first..first;
        }
        let start = self.above.div_ceil(self.step).clamp(first, end);
        start..((below - self.rows) / self.step + 1).clamp(start, end)
    }
}

/// The body for runs of `MR` pixels, `KW` taps at once, stride `S`; lanes draw from [`OWN`], [`APART`], [`PERMUTED`] or [`ONE`].
///
/// Windows may hang over the ends of a line by `L` and `R` taps; pixels leave out the taps that lie outside. With `KW = 1`
/// the taps of a row are taken one by one: for kernels of any width, stride and dilation, for pixels that lack other
/// taps, and for lines that run down a column.
pub struct Lanes<const MR: usize, const KW: usize, const S: usize, const FROM: usize, const L: usize, const R: usize>;

/// One line: where its taps lie and how many rows of them.
#[derive(Clone, Copy)]
struct Source {
    x: *const f32,
    w: *const f32,
    index: *const u32,
    rows: usize,
    /// Channel of the block at `x` that `j = 0` draws from, for [`ONE`].
    head: usize,
}

impl<const MR: usize, const KW: usize, const S: usize, const FROM: usize, const L: usize, const R: usize>
    Lanes<MR, KW, S, FROM, L, R>
{
    /// The weights of `KW` taps.
    ///
    /// # Safety
    /// They are readable.
    #[inline(always)]
    unsafe fn weights<I: Isa>(s: I, w: *const f32) -> [I::V; KW] {
        let mut wv = [s.zero(); KW];
        for t in 0..KW {
            // SAFETY: the same contract.
            wv[t] = unsafe { s.load(w.wrapping_add(t * BLOCK)) };
        }
        wv
    }

    /// Inputs from the first pixel's first tap to the last pixel's last one.
    const WIDTH: usize = (MR - 1) * S + KW;

    /// Whether any tap takes input `p`: a question for `if const`, whose other branch rustc does not generate. What [`Lanes::taps`] writes
    /// out for all numbers was five of the six million lines that this crate gave to LLVM.
    const fn reads(p: usize) -> bool {
        L <= p && p + R < Self::WIDTH
    }

    /// The pixel whose tap `t` is input `p`; `MR` if there is none.
    const fn pixel(p: usize, t: usize) -> usize {
        if t < KW && p >= t && (p - t).is_multiple_of(S) && (p - t) / S < MR { (p - t) / S } else { MR }
    }

    /// Adds `KW` taps of a run: `x` is the first one's input for the run's first pixel, `wv` are their weights.
    ///
    /// # Safety
    /// The inputs of all taps but those that hang over are readable.
    #[inline(always)]
    unsafe fn taps<I: Isa>(
        s: I,
        a: &LaneArgs,
        x: *const f32,
        wv: &[I::V; KW],
        index: Option<I::Index>,
        acc: &mut [I::V; MR],
    ) {
        // Input by input: the multiply-adds of one are independent, those of one sum lie apart. Pixels that lie apart are reached step by
        // step: pointers to all would be more than there are registers.
        let mut next = if FROM == APART { s.opaque(x) } else { x };
        unrolled!(p in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 {
            if const { Self::reads(p) } {
                let at = if FROM == APART { next } else { x.wrapping_add(if KW == 1 { p / S * a.px } else { p * BLOCK }) };
                // SAFETY: this input is inside.
                let mut v = unsafe { if FROM == ONE { s.load_splat(at) } else { s.load(at) } };
                if let Some(index) = index {
                    v = s.permute(v, index);
                }
                unrolled!(t in 0 1 2 3 4 5 6 {
                    if const { Self::pixel(p, t) < MR } {
                        let pixel = const { Self::pixel(p, t) };
                        acc[pixel] = s.fma(wv[t], v, acc[pixel]);
                    }
                });
            }
            if const { FROM == APART && p < Self::WIDTH } {
                next = next.wrapping_add(a.x_tap);
            }
        });
    }

    /// The sum of the run from `pixel` on, whose windows hang over the start and the end of the line by `L` and `R` taps.
    ///
    /// # Safety
    /// The inputs and weights of all other taps are readable.
    #[inline(always)]
    unsafe fn sum<I: Isa>(s: I, a: &LaneArgs, from: Source, pixel: usize) -> [I::V; MR] {
        let run = from.x.wrapping_add(pixel * if KW == 1 || FROM == APART { a.px } else { S * BLOCK });
        let mut acc = [s.zero(); MR];
        for j in 0..if FROM == OWN || FROM == APART { 1 } else { a.groups } {
            let lane_numbers = from.index.wrapping_add(j * BLOCK);
            // SAFETY: with a permutation there are lane numbers for each j.
            let index = if FROM == PERMUTED { Some(unsafe { s.load_index(lane_numbers) }) } else { None };
            // Taps that edge pixels leave out may lie outside of the input: wrapping arithmetic.
            let channel = from.head + j;
            let (mut x, mut w) = (
                run.wrapping_add(if FROM == ONE { channel / BLOCK * a.x_block + channel % BLOCK } else { 0 }),
                from.w.wrapping_add(j * a.w_group),
            );
            // Loops end by their pointers: a counter less, and a number of iterations that the compiler cannot know, so that
            // it does not unroll the smallest bodies into more pointers than there are registers.
            let end = w.wrapping_add(from.rows * a.w_row);
            while w != end {
                // SAFETY: the caller's, for the taps of this row.
                unsafe {
                    if KW == 1 {
                        let (mut x, mut w, end) = (x, w, x.wrapping_add(a.taps * a.x_tap));
                        while x != end {
                            Self::taps(s, a, x, &Self::weights(s, w), index, &mut acc);
                            x = x.wrapping_add(a.x_tap);
                            w = w.wrapping_add(BLOCK);
                        }
                    } else {
                        Self::taps(s, a, x, &Self::weights(s, w), index, &mut acc);
                    }
                }
                x = x.wrapping_add(a.x_row);
                w = w.wrapping_add(a.w_row);
            }
        }
        acc
    }
}

impl<const MR: usize, const KW: usize, const S: usize, const FROM: usize, const L: usize, const R: usize>
    Lanes<MR, KW, S, FROM, L, R>
{
    /// One run, whose windows hang over the start and the end of the line or do not: the vectors of a pixel share its cache line, so that
    /// they come one after the other. Sums have a body for either case.
    ///
    /// # Safety
    /// As for the kernel, for this run.
    #[inline(always)]
    unsafe fn run<I: Isa>(
        s: I,
        a: &LaneArgs,
        from: Source,
        to: &Strand,
        (pixel, y): (usize, usize),
        overhang: [bool; 2],
    ) {
        for v in 0..if I::LANES == BLOCK { 1 } else { a.vectors } {
            let vector = Source {
                x: from.x.wrapping_add(a.x_vector[v & (MAX_VECTORS - 1)]),
                w: from.w.wrapping_add(v * I::LANES),
                index: from.index.wrapping_add(v * INDEX),
                head: a.head[v & (MAX_VECTORS - 1)],
                ..from
            };
            // SAFETY: the kernel's contract covers every vector.
            unsafe {
                let [left, right] = overhang;
                let sum = if !left && !right {
                    Lanes::<MR, KW, S, FROM, 0, 0>::sum(s, a, vector, pixel)
                } else if !right {
                    Lanes::<MR, KW, S, FROM, L, 0>::sum(s, a, vector, pixel)
                } else if !left {
                    Lanes::<MR, KW, S, FROM, 0, R>::sum(s, a, vector, pixel)
                } else {
                    Self::sum(s, a, vector, pixel)
                };
                to.store(s, v, y + pixel * a.out.px, sum);
            }
        }
    }

    /// Whether each case of overhang has stores of its own. For 3x3 depthwise layers: to choose the case for each run costs 3 % at 14x14 and
    /// 10 % at 7x7 (Zen 4, AVX2). Where the compiler would mix up the loops of several cases. The longer sums of the others share their
    /// stores, which is half of the code.
    const OWN_STORES: bool = FROM == OWN && KW == 3 || FROM == APART || MR == 1;

    /// All runs of a line.
    ///
    /// # Safety
    /// As for the kernel, for this line.
    #[inline(always)]
    unsafe fn line<I: Isa>(s: I, a: &LaneArgs, from: Source, to: &Strand, y: usize) {
        let (left, right, last) = (a.left && L > 0, a.right && R > 0, a.width - MR);
        if Self::OWN_STORES {
            // SAFETY: the kernel's contract covers every run.
            unsafe {
                if left && right && a.runs == 1 {
                    return Self::run(s, a, from, to, (0, y), [true, true]);
                }
                if left {
                    Self::run(s, a, from, to, (0, y), [true, false]);
                }
                for run in usize::from(left)..a.runs - usize::from(right) {
                    Self::run(s, a, from, to, ((run * MR).min(last), y), [false, false]);
                }
                if right {
                    Self::run(s, a, from, to, (last, y), [false, true]);
                }
            }
            return;
        }
        for run in 0..a.runs {
            let overhang = [left && run == 0, right && run + 1 == a.runs];
            // SAFETY: the kernel's contract covers every run.
            unsafe { Self::run(s, a, from, to, ((run * MR).min(last), y), overhang) };
        }
    }
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
    /// * `w_row` and `x_tap` are not 0;
    /// * the weights of all those taps are readable, and with a permutation [`INDEX`] lane numbers for each vector;
    /// * `out` is as `Output::store` asks for, at every pixel of every line of every plane and vector; planes are blocks of it.
    #[inline(always)]
    unsafe fn run(s: I, a: &LaneArgs) {
        const { assert!(MR + 4 <= I::REGISTERS) };
        if a.first_line >= a.end_line || a.runs == 0 {
            return; // else there would be loops of their own over nothing
        }
        let keeps = const { keeps_weights(FROM, KW, I::LANES, I::REGISTERS) };
        let whole = if keeps && a.rows == KW && a.out.px == BLOCK { a.whole_lines() } else { a.end_line..a.end_line };
        for plane in 0..a.planes {
            let (x, w) = (a.x.wrapping_add(plane * a.x_plane), a.w.wrapping_add(plane * a.w_plane));
            let mut padded = [0.0; BLOCK];
            // SAFETY: the output's contract covers the bias of every plane.
            let to = unsafe { a.out.strand_of_lines(plane, &mut padded) };
            // Only then are there weights of `KW` rows.
            let together = keeps && !whole.is_empty() && to.is_simple();
            if const { keeps_weights(FROM, KW, I::LANES, I::REGISTERS) } && together {
                let lines = WholeArgs { lanes: a, x: x.wrapping_add(a.x_vector[0]), w, to, lines: whole.clone() };
                // SAFETY: the contract covers every plane and line.
                unsafe { s.call::<WholeLines<MR, KW, S, L, R>>(&lines) };
                if a.out.is_open(plane) {
                    // SAFETY: these lines have been stored.
                    whole.clone().for_each(|line| unsafe { a.out.finish(s, plane, line * a.y_line, a.width) });
                }
            }
            let mut line = a.first_line;
            loop {
                if together && line == whole.start {
                    line = whole.end;
                }
                if line >= a.end_line {
                    break;
                }
                let top = line * a.step;
                let end = (a.above + a.height).saturating_sub(top).min(a.rows);
                let first = a.above.saturating_sub(top).min(end);
                let from = Source {
                    x: x.wrapping_add(line * a.x_line + first * a.x_row),
                    w: w.wrapping_add(first * a.w_row),
                    index: a.index,
                    rows: end - first,
                    head: 0,
                };
                // SAFETY: the contract covers every plane and line.
                unsafe {
                    Self::line(s, a, from, &to, line * a.y_line);
                    if a.out.is_open(plane) {
                        a.out.finish(s, plane, line * a.y_line, a.width);
                    }
                }
                line += 1;
            }
        }
    }
}

/// Whether there are registers for the weights of all taps beside the sums: those of lines with all rows of taps stay there.
const fn keeps_weights(from: usize, kw: usize, lanes: usize, registers: usize) -> bool {
    from == OWN && kw == 3 && lanes == BLOCK && registers > 16
}

/// Lines of one plane that have all rows of taps, in blocked output: the weights are loaded once, and no line works out which rows it
/// has. A kernel of its own, so that all it needs stays in registers. Granite Rapids, GFLOP/s before -> with it: 3x3 at 28x28 118 -> 143,
/// at 14x14 115 -> 133, at 7x7 106 -> 127, stride 2 at 28x28 88 -> 93.
struct WholeLines<const MR: usize, const KW: usize, const S: usize, const L: usize, const R: usize>;

/// What [`WholeLines`] works on.
struct WholeArgs {
    lanes: *const LaneArgs,
    /// Input and weights of the first tap of line 0.
    x: *const f32,
    w: *const f32,
    to: Strand,
    lines: Range<usize>,
}

impl<const MR: usize, const KW: usize, const S: usize, const L: usize, const R: usize> WholeLines<MR, KW, S, L, R> {
    /// One run, whose first tap's input is at `x`, and which is stored `y` floats from the first output on. Every body has stores of its own
    /// here: to choose one for each run costs 3 % of 3x3 at 7x7 (Zen 4).
    ///
    /// # Safety
    /// As for the kernel, for this run.
    #[inline(always)]
    unsafe fn run<I: Isa>(s: I, a: &LaneArgs, x: *const f32, weights: &[[I::V; KW]; KW], to: &Strand, y: usize) {
        let mut acc = [s.zero(); MR];
        // SAFETY: the same contract.
        unsafe {
            unrolled!(row in 0 1 2 {
                if const { row < KW } {
                    let x = x.wrapping_add(row * a.x_row);
                    Lanes::<MR, KW, S, OWN, L, R>::taps(s, a, x, &weights[row], None, &mut acc);
                }
            });
            to.store_simple(s, 0, y, BLOCK, acc);
        }
    }
}

impl<I: Isa, const MR: usize, const KW: usize, const S: usize, const L: usize, const R: usize> Kernel<I>
    for WholeLines<MR, KW, S, L, R>
{
    type Args = WholeArgs;

    /// # Safety
    /// As for [`Lanes`], which these lines are of; the output is blocked, and simple.
    #[inline(always)]
    unsafe fn run(s: I, p: &WholeArgs) {
        // SAFETY: the sweep hands in its own arguments, which outlive the call.
        let (a, to) = (unsafe { &*p.lanes }, p.to);
        let (left, right, last) = (a.left && L > 0, a.right && R > 0, a.width - MR);
        // SAFETY: the contract covers every run.
        unsafe {
            let mut weights = [[s.zero(); KW]; KW];
            for row in 0..KW {
                weights[row] = Lanes::<MR, KW, S, OWN, L, R>::weights(s, p.w.wrapping_add(row * a.w_row));
            }
            for line in p.lines.clone() {
                let (x, y) = (p.x.wrapping_add(line * a.x_line), line * a.y_line);
                if left && right && a.runs == 1 {
                    Self::run(s, a, x, &weights, &to, y);
                    continue;
                }
                if left {
                    WholeLines::<MR, KW, S, L, 0>::run(s, a, x, &weights, &to, y);
                }
                let first = usize::from(left);
                for run in first..a.runs - 1 {
                    let (x, y) = (x.wrapping_add(run * MR * S * BLOCK), y + run * MR * BLOCK);
                    WholeLines::<MR, KW, S, 0, 0>::run(s, a, x, &weights, &to, y);
                }
                // The last run, which may overlap.
                let (x, y) = (x.wrapping_add(last * S * BLOCK), y + last * BLOCK);
                if right {
                    WholeLines::<MR, KW, S, 0, R>::run(s, a, x, &weights, &to, y);
                } else if a.runs > first {
                    WholeLines::<MR, KW, S, 0, 0>::run(s, a, x, &weights, &to, y);
                }
            }
        }
    }
}
