//! Depthwise and small-group convolution, where one vector of output channels holds whole groups.
//!
//! ```text
//! y[oy][ox][o] = sum over (j, ky, kx)  x[oy * sh + ky * dh][ox * sw + kx * dw][source(o, j)] * w[j][ky][kx][o]
//! source(o, j) = o / ocg * icg + j          j = 0..icg
//!
//! for each image and output block, for each row, for each vector of the block, for each run of MR pixels:
//!   for j: for ky: load KW weights; for each of the (MR - 1) * S + KW inputs: load, permute, up to KW multiply-adds
//! ```
//!
//! Depthwise convolution with multiplier 1 is `icg = ocg = 1`, where no permutation is needed. In the other cases the
//! lanes of an output vector draw from one input vector by a fixed permutation, for example `icg = ocg = 4`, `j = 1`:
//! `1 1 1 1 5 5 5 5 9 9 9 9 13 13 13 13`. An input that is loaded (and permuted) once serves up to `KW` pixels.
//!
//! Register budget: `MR` sums, `KW` weights, one input, one permutation. Bound: with MR = 14 and a 3x3 kernel, 19
//! loads and 42 multiply-adds a row of taps, so the FMA unit is the limit as long as the data is in L1.
//!
//! Input in NCHW or NHWC is blocked strip by strip in scratch memory, at most 1 MiB for each thread.
//!
//! Borders are peeled as in [`direct`](crate::direct). Order of the sum: `(j, ky, kx)`. Error: as for the register tile.

use core::ops::Range;

use crate::epilogue::Epilogue;
use crate::exec::{Executor, Shared, for_each_part_with};
use crate::isa::{self, Entry, Isa, Kernel, Level};
use crate::layout::{BLOCK, Layout, Strides, blocks};
use crate::region::{Axis, Segment};
use crate::shape::ConvShape;
use crate::tile::{Finish, Output, SyncFinish, pieces};

/// What a run of pixels works on. Lengths and steps in floats.
#[derive(Clone, Copy, Debug)]
pub struct LaneArgs {
    /// Input of the first pixel's first valid tap.
    x: *const f32,
    /// Weights of that tap, `j = 0`.
    w: *const f32,
    /// Steps of `j`.
    groups: usize,
    /// Lane numbers, 16 for each `j`; unused without permutation.
    index: *const u32,
    /// From `j` to `j` in the weights.
    w_group: usize,
    /// Number of valid rows of taps.
    rows: usize,
    /// From row of taps to row of taps, in the input and in the weights.
    x_row: usize,
    w_row: usize,
    /// For the body that takes taps one by one: their number, and the steps of taps and pixels in the input.
    taps: usize,
    x_tap: usize,
    px: usize,
    /// Number of runs below each other, and the steps of input and output between them.
    lines: usize,
    x_line: usize,
    y_line: usize,
    /// For edge kernels: whether the run starts (ends) with the row, so that its first (last) pixels lack taps.
    left: bool,
    right: bool,
    out: Output,
}

/// The body for `MR` pixels, `KW` taps at once, stride `S`; `PERM` permutes lanes.
///
/// With `KW = 1` it takes the taps of a row one by one, for kernels of any width, stride and dilation, for pixels at the
/// border that lack some taps, and for runs down a column. With `EDGE`, the windows hang over the row's ends by half of
/// their width, and pixels leave out the taps that lie outside.
pub struct Lanes<const MR: usize, const KW: usize, const S: usize, const PERM: bool, const EDGE: bool>;

impl<I: Isa, const MR: usize, const KW: usize, const S: usize, const PERM: bool, const EDGE: bool> Kernel<I>
    for Lanes<MR, KW, S, PERM, EDGE>
{
    type Args = LaneArgs;

    /// # Safety
    /// * the inputs and weights of the sum are readable, and with `PERM` 16 lane numbers per step of `j`;
    /// * `out` is as `Output::store` asks for `MR` pixels of one vector, in each line.
    #[inline(always)]
    unsafe fn run(s: I, a: &LaneArgs) {
        const { assert!(MR + KW + 2 <= I::REGISTERS) };
        let mut out = a.out;
        for line in 0..a.lines {
            let first = a.x.wrapping_add(line * a.x_line);
            let mut acc = [[s.zero(); 1]; MR];
            for j in 0..a.groups {
                // SAFETY: with PERM there are lane numbers for each j.
                let index = if PERM { Some(unsafe { s.load_index(a.index.add(j * BLOCK)) }) } else { None };
                for ky in 0..a.rows {
                    for kx in 0..if KW == 1 { a.taps } else { 1 } {
                        // Taps that edge pixels leave out may lie outside of the input: wrapping arithmetic.
                        let x = first.wrapping_add(ky * a.x_row + kx * a.x_tap);
                        let mut wv = [s.zero(); KW];
                        for t in 0..KW {
                            // SAFETY: weights of all taps are readable.
                            wv[t] = unsafe { s.load(a.w.add(j * a.w_group + ky * a.w_row + (kx + t) * BLOCK)) };
                        }
                        // An input that serves several pixels is written as several loads of one address, which the
                        // compiler makes one: in this form it unrolls the loops and keeps the sums in registers.
                        for i in 0..MR {
                            for t in 0..KW {
                                let outside_left = EDGE && i * S + t < KW / 2;
                                let outside_right = EDGE && (MR - 1 - i) * S + (KW - 1 - t) < KW / 2;
                                if (outside_left && a.left) || (outside_right && a.right) {
                                    continue;
                                }
                                let at = if KW == 1 { i * a.px } else { (i * S + t) * BLOCK };
                                // SAFETY: this tap of this pixel is inside the input.
                                let mut v = unsafe { s.load(x.wrapping_add(at)) };
                                if let Some(index) = index {
                                    v = s.permute(v, index);
                                }
                                acc[i][0] = s.fma(wv[t], v, acc[i][0]);
                            }
                        }
                    }
                }
            }
            // SAFETY: the contract covers the outputs of every line.
            unsafe { out.store(s, 0, acc) };
            out.advance(a.y_line);
        }
    }
}

/// A kernel of this family: a row of [`rows`].
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// `dw3s1_f32_14x16_avx512`: family (`dw`, or `group` with permutation), taps at once and stride (`any` where they
    /// are taken one by one), pixels x vector, level.
    pub name: &'static str,
    /// Level.
    pub level: Level,
    /// Pixels.
    pub mr: usize,
    /// Taps of a row at once.
    pub kw: usize,
    /// Horizontal stride.
    pub stride: usize,
    /// Whether lanes are permuted.
    pub permute: bool,
    /// Whether pixels at the ends of a row leave out taps.
    pub edge: bool,
    /// The kernel; see [`Lanes`] for its contract.
    pub run: Entry<LaneArgs>,
}

/// Rows of one level: for each number of taps and stride, the numbers of pixels.
macro_rules! rows {
    ($level:ident, $entry:ident, $lanes:literal, $name:literal;
     $($taps:literal = $kw:literal $s:literal: [$($mr:literal)*] edge [$($emr:literal)*];)* any: [$($amr:literal)*]) => {
        &[$(
            rows!(@row $level, $entry, $lanes, $name, "any", 1, 1, $amr, "dw", false, "", false),
            rows!(@row $level, $entry, $lanes, $name, "any", 1, 1, $amr, "group", true, "", false),
        )* $($(
            rows!(@row $level, $entry, $lanes, $name, $taps, $kw, $s, $mr, "dw", false, "", false),
            rows!(@row $level, $entry, $lanes, $name, $taps, $kw, $s, $mr, "group", true, "", false),
        )* $(
            rows!(@row $level, $entry, $lanes, $name, $taps, $kw, $s, $emr, "dw", false, "_edge", true),
            rows!(@row $level, $entry, $lanes, $name, $taps, $kw, $s, $emr, "group", true, "_edge", true),
        )*)*]
    };
    (@row $level:ident, $entry:ident, $lanes:literal, $name:literal, $taps:literal, $kw:literal, $s:literal,
     $mr:literal, $family:literal, $permute:literal, $suffix:literal, $edge:literal) => {
        Row {
            name: concat!($family, $taps, $suffix, "_f32_", $mr, "x", $lanes, "_", $name),
            level: Level::$level,
            mr: $mr,
            kw: $kw,
            stride: $s,
            permute: $permute,
            edge: $edge,
            run: isa::entry::$entry::<Lanes<{ $mr }, { $kw }, { $s }, { $permute }, { $edge }>>,
        }
    };
}

static SCALAR: &[Row] = rows! {
    Scalar, scalar, 4, "scalar";
    "3s1" = 3 1: [1 2] edge [2];
    "3s2" = 3 2: [1 2] edge [2];
    any: [1 2 3 4]
};

/// 16 registers.
#[cfg(target_arch = "x86_64")]
static AVX2: &[Row] = rows! {
    Avx2, avx2, 8, "avx2";
    "3s1" = 3 1: [1 2 3 4 5 6 7] edge [2 3 4 5 6 7];
    "3s2" = 3 2: [1 2 3 4 5 6 7] edge [2 3 4 5 6 7];
    "5s1" = 5 1: [1 2 3 4 5] edge [2 3 4 5];
    "5s2" = 5 2: [1 2 3 4 5] edge [2 3 4 5];
    "7s1" = 7 1: [1 2 3 4] edge [2 3];
    "7s2" = 7 2: [1 2 3 4] edge [2 3];
    any: [1 2 3 4 5 6 7]
};

/// 32 registers; fourteen divides 14, 28, 56, 112 and 224. Beyond these sizes the compiler stops unrolling, or spills.
#[cfg(target_arch = "x86_64")]
static AVX512: &[Row] = rows! {
    Avx512, avx512, 16, "avx512";
    "3s1" = 3 1: [1 2 3 4 5 6 7 8 9 10 11 12 13 14] edge [2 3 4 5 6 7 8 9 10];
    "3s2" = 3 2: [1 2 3 4 5 6 7 8 9 10 11 12 13 14] edge [2 3 4 5 6 7 8 9 10];
    "5s1" = 5 1: [1 2 3 4 5 6 7 8 9 10 11 12 13] edge [2 3 4 5 6 7 8 9 10];
    "5s2" = 5 2: [1 2 3 4 5 6 7 8 9 10 11 12 13 14] edge [2 3 4 5 6 7 8 9 10];
    "7s1" = 7 1: [1 2 3 4 5 6 7 8 9 10] edge [2 3 4 5 6 7 8];
    "7s2" = 7 2: [1 2 3 4 5 6 7 8 9 10] edge [2 3 4 5 6 7 8];
    any: [1 2 3 4 5 6 7]
};

/// 32 registers.
#[cfg(target_arch = "aarch64")]
static NEON: &[Row] = rows! {
    Neon, neon, 4, "neon";
    "3s1" = 3 1: [1 2 3 4 5 6 7 8] edge [2 3 4 5 6 7 8];
    "3s2" = 3 2: [1 2 3 4 5 6 7 8] edge [2 3 4 5 6 7 8];
    "5s1" = 5 1: [1 2 3 4 5 6 7 8] edge [2 3 4 5 6 7 8];
    "5s2" = 5 2: [1 2 3 4 5 6 7 8] edge [2 3 4 5 6 7 8];
    any: [1 2 3 4 5 6 7]
};

/// All kernels of this family at a level; none for a level of another architecture.
pub fn rows(level: Level) -> &'static [Row] {
    match level {
        Level::Scalar => SCALAR,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => AVX2,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => AVX512,
        #[cfg(target_arch = "aarch64")]
        Level::Neon => NEON,
        #[allow(unreachable_patterns)]
        _ => &[],
    }
}

/// Most input channels of a group: beyond, the register tile wastes less than the permutations cost.
const MAX_ICG: usize = 8;

/// Most pixels of a run, on any level.
const MAX_MR: usize = 14;

/// The kernels of one way to take taps, by number of pixels; sizes are contiguous from 1.
#[derive(Clone, Copy, Debug)]
struct Runs {
    rows: [Option<&'static Row>; MAX_MR + 1],
    max: usize,
}

impl Runs {
    fn new(level: Level, kw: usize, stride: usize, permute: bool, edge: bool) -> Self {
        let mut runs = Self { rows: [None; MAX_MR + 1], max: 0 };
        for row in rows(level).iter().filter(|r| (r.kw, r.stride, r.permute, r.edge) == (kw, stride, permute, edge)) {
            runs.rows[row.mr] = Some(row);
            runs.max = runs.max.max(row.mr);
        }
        runs
    }

    fn get(&self, mr: usize) -> &'static Row {
        self.rows[mr].expect("sizes of runs are contiguous up to the largest")
    }
}

/// Floats of scratch for the input of a strip.
const STRIP: usize = 1 << 18;

/// A depthwise or small-group convolution, planned. Holds no tensor.
#[derive(Clone, Debug)]
pub struct Depthwise {
    shape: ConvShape,
    level: Level,
    y: Axis,
    x: Axis,
    xs: Strides,
    ys: Strides,
    input: Layout,
    output: Layout,
    /// Output rows of a strip: all, or as many as have their input in scratch.
    strip: usize,
    /// For pixels with all taps of a row, where the level has kernels for them.
    unrolled: Option<Runs>,
    /// For whole rows whose ends hang over the border by half of the window.
    edges: Option<Runs>,
    any: Runs,
}

impl Depthwise {
    /// Plans, or says why the shape is not for this algorithm.
    ///
    /// # Errors
    /// A reason, when some output vector's lanes would draw from more than one input vector.
    pub fn new(shape: &ConvShape, level: Level, input: Layout, output: Layout) -> Result<Self, &'static str> {
        shape.assert_consistent();
        let s = *shape;
        if s.groups == 1 {
            return Err("one group");
        }
        if s.icg() > MAX_ICG {
            return Err("more than 8 input channels a group");
        }
        let lanes = level.lanes();
        for first in (0..s.oc).step_by(lanes) {
            let last = (first + lanes).min(s.oc) - 1;
            let (lo, hi) = (first / s.ocg() * s.icg(), last / s.ocg() * s.icg() + s.icg() - 1);
            if lo / lanes != hi / lanes {
                return Err("groups straddle vectors");
            }
        }
        // Input rows that fit scratch, less the halo of a strip.
        let halo = (s.kh - 1) * s.dh + 1;
        let strip = match (STRIP / (s.iw * BLOCK)).checked_sub(halo) {
            _ if input == Layout::Blocked => s.oh,
            Some(more) => (more / s.sh + 1).min(s.oh),
            None => return Err("the input of one row of outputs exceeds the scratch"),
        };
        let permute = (s.icg(), s.ocg()) != (1, 1);
        let runs =
            |edge| Some(Runs::new(level, s.kw, s.sw, permute, edge)).filter(|r| s.dw == 1 && s.kw > 1 && r.max > 0);
        let unrolled = runs(false);
        // What hangs over on the right. All pixels that lack taps must be in the first and the last run.
        let right = ((s.ow - 1) * s.sw + s.kw).saturating_sub(s.pad.left + s.iw);
        let halves = |overhang: usize| overhang == 0 || overhang == s.kw / 2;
        let edges = runs(true).filter(|r| {
            let ends = halves(s.pad.left) && halves(right) && s.pad.left + right > 0;
            // Longer rows of narrow kernels have so few border pixels that longer runs in between win.
            let pays = s.kw > 3 || s.ow <= r.max;
            ends && pays && pieces(s.ow, r.max).all(|(_, mr)| mr >= (s.kw / 2).max(2))
        });
        Ok(Self {
            shape: s,
            level,
            y: Axis::y(&s),
            x: Axis::x(&s),
            xs: Layout::Blocked.strides(s.input()),
            ys: output.strides(s.output()),
            input,
            output,
            strip,
            unrolled,
            edges,
            any: Runs::new(level, 1, 1, permute, false),
        })
    }

    /// Name of the kernel that covers inner pixels: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        let runs = self.edges.or(self.unrolled).unwrap_or(self.any);
        let width = if self.edges.is_some() { self.shape.ow } else { self.x.interior().len().max(1) };
        runs.get(pieces(width, runs.max).next().map_or(1, |(_, mr)| mr)).name
    }

    /// Floats of packed weights: `[ocb][j][kh][kw][16]`.
    pub fn packed_len(&self) -> usize {
        let s = &self.shape;
        blocks(s.oc) * s.icg() * s.kh * s.kw * BLOCK
    }

    /// Packs weights `[oc, ic / groups, kh, kw]`.
    ///
    /// # Panics
    /// If a slice's length is not what the shape and [`Depthwise::packed_len`] say.
    pub fn pack(&self, w: &[f32], packed: &mut [f32]) {
        let s = &self.shape;
        let per_channel = s.icg() * s.kh * s.kw;
        assert_eq!(w.len(), s.oc * per_channel);
        assert_eq!(packed.len(), self.packed_len());
        packed.fill(0.0);
        for (o, taps) in w.chunks_exact(per_channel).enumerate() {
            for (t, &v) in taps.iter().enumerate() {
                packed[(o / BLOCK * per_channel + t) * BLOCK + o % BLOCK] = v;
            }
        }
    }

    /// Floats of scratch for one thread.
    pub fn scratch_len(&self) -> usize {
        let s = &self.shape;
        if self.input == Layout::Blocked { 0 } else { self.input_rows(self.strip) * s.iw * BLOCK }
    }

    /// Input rows that a strip of `rows` output rows can meet.
    fn input_rows(&self, rows: usize) -> usize {
        let s = &self.shape;
        ((rows - 1) * s.sh + (s.kh - 1) * s.dh + 1).min(s.ih)
    }

    /// Runs the convolution on the executor's threads. `scratch` holds [`Depthwise::scratch_len`] floats for each thread
    /// that is to take part, at least for one.
    ///
    /// # Panics
    /// If a slice's length is not what the shape, the layouts and [`Depthwise::packed_len`] say.
    pub fn forward(
        &self,
        x: &[f32],
        packed: &[f32],
        epilogue: &Epilogue<'_>,
        y: &mut [f32],
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) {
        let s = &self.shape;
        let y_len = self.output.len(s.output());
        assert_eq!(x.len(), self.input.len(s.input()), "input length");
        assert_eq!(packed.len(), self.packed_len(), "packed weights' length");
        assert_eq!(y.len(), y_len, "output length");
        assert!(epilogue.bias.is_none_or(|b| b.len() == s.oc), "bias length");
        assert!(epilogue.residual.is_none_or(|r| r.len() == y_len), "residual length");
        assert!(self.level.is_available());
        let (y, finish) = (Shared::new(y), SyncFinish(Finish::new(epilogue, self.level)));
        // Planes are the natural parts; few of them are cut into strips of rows.
        let planes = s.n * blocks(s.oc);
        let wanted = (executor.threads() * 4).min((s.macs() / 50_000) as usize).max(1);
        let strips = if executor.threads() == 1 { 1 } else { wanted.div_ceil(planes.max(1)).min(s.oh) };
        let strips = strips.max(s.oh.div_ceil(self.strip));
        for_each_part_with(executor, planes * strips, scratch, self.scratch_len(), |part, scratch| {
            let (plane, strip) = (part / strips, part % strips);
            let (n, ocb) = (plane / blocks(s.oc), plane % blocks(s.oc));
            let rows = s.oh * strip / strips..s.oh * (strip + 1) / strips;
            let x = self.block_input(x, scratch, n, ocb, &rows);
            let run = Run { d: self, x, w: packed, y: &y, finish: &finish, n, ocb };
            for y in self.y.segments(rows) {
                run.strip(&y);
            }
        });
    }

    /// The blocked input that output rows of one plane read: the whole tensor, or their rows copied to scratch.
    fn block_input<'a>(
        &self,
        x: &'a [f32],
        scratch: &'a mut [f32],
        n: usize,
        ocb: usize,
        rows: &Range<usize>,
    ) -> Input<'a> {
        let s = &self.shape;
        if self.input == Layout::Blocked {
            return Input { x, image: n, row: 0, block: 0 };
        }
        let block = ocb * BLOCK / s.ocg() * s.icg() / BLOCK;
        let first = (rows.start * s.sh).saturating_sub(s.pad.top).min(s.ih);
        let last = (rows.end * s.sh + (s.kh - 1) * s.dh).saturating_sub(s.pad.top + s.sh - 1).clamp(first, s.ih);
        let from = self.input.strides(s.input());
        let channels = BLOCK.min(s.ic - block * BLOCK);
        assert!(scratch.len() >= (last - first) * s.iw * BLOCK, "scratch holds the rows of a strip");
        for (line, iy) in scratch.chunks_exact_mut(s.iw * BLOCK).zip(first..last) {
            let at = n * from.n + block * from.block + iy * from.row;
            for (px, lanes) in line.chunks_exact_mut(BLOCK).enumerate() {
                for c in 0..channels {
                    lanes[c] = x[at + px * from.px + c * from.channel];
                }
                lanes[channels..].fill(0.0);
            }
        }
        Input { x: scratch, image: 0, row: first, block }
    }
}

/// Blocked input: which image, row and channel block its start stands for.
struct Input<'a> {
    x: &'a [f32],
    /// Number of images before the wanted one.
    image: usize,
    /// First row.
    row: usize,
    /// First block.
    block: usize,
}

/// One output plane of one run.
struct Run<'a> {
    d: &'a Depthwise,
    x: Input<'a>,
    w: &'a [f32],
    y: &'a Shared<'a>,
    finish: &'a SyncFinish,
    n: usize,
    ocb: usize,
}

/// One vector of output channels: where its lanes draw from.
struct Vector {
    /// First output channel.
    first: usize,
    /// First input channel of the vector that all lanes draw from.
    source: usize,
    index: [u32; MAX_ICG * BLOCK],
}

impl Run<'_> {
    fn strip(&self, y: &Segment) {
        let d = self.d;
        let s = &d.shape;
        let lanes = d.level.lanes();
        // Blocked output has vectors beyond the last channel, which are stored as zeros.
        let end = (self.ocb + 1) * BLOCK;
        let end = if d.output == Layout::Blocked { end } else { end.min(s.oc) };
        for first in (self.ocb * BLOCK..end).step_by(lanes) {
            let channel = |lane: usize| (first + lane).min(s.oc - 1);
            let source = channel(0) / s.ocg() * s.icg() / lanes * lanes;
            let mut v = Vector { first, source, index: [0; MAX_ICG * BLOCK] };
            for j in 0..s.icg() {
                for lane in 0..lanes {
                    v.index[j * BLOCK + lane] = (channel(lane) / s.ocg() * s.icg() + j - source) as u32;
                }
            }
            if let (Some(edges), Some(inner)) = (&d.edges, &d.unrolled) {
                let x = Segment { out: 0..s.ow, taps: 0..s.kw };
                self.rows(&mut self.pixels(&v, y, &x, false), y, &x, edges.max, |ox, mr| {
                    let (left, right) = (d.x.taps(ox).start > 0, d.x.taps(ox + mr - 1).end < s.kw);
                    (if left || right { edges } else { inner }.get(mr), left, right)
                });
                continue;
            }
            for x in d.x.segments(0..s.ow) {
                let unrolled = d.unrolled.as_ref().filter(|_| x.taps.len() == s.kw);
                // Border columns are taller than wide: runs go down.
                let down = unrolled.is_none() && x.out.len() < y.out.len().min(4);
                let runs = unrolled.unwrap_or(&d.any);
                let mut pixels = self.pixels(&v, y, &x, down);
                if down {
                    for ox in x.out.clone() {
                        for (oy, mr) in pieces(y.out.len(), runs.max) {
                            pixels.run(self, runs.get(mr), (y.out.start + oy, ox));
                        }
                    }
                } else {
                    self.rows(&mut pixels, y, &x, runs.max, |_, mr| (runs.get(mr), false, false));
                }
            }
        }
    }

    /// Runs along rows, each with the kernel (and its edges) that `choose` names for a run's start and length.
    fn rows(
        &self,
        pixels: &mut Pixels,
        y: &Segment,
        x: &Segment,
        max: usize,
        choose: impl Fn(usize, usize) -> (&'static Row, bool, bool),
    ) {
        // Rows of one run each go to one call; longer rows are walked along, as memory lies.
        let lines = if x.out.len() <= max { y.out.len() } else { 1 };
        pixels.args.lines = lines;
        for oy in y.out.clone().step_by(lines) {
            for (start, mr) in pieces(x.out.len(), max) {
                let ox = x.out.start + start;
                let (row, left, right) = choose(ox, mr);
                (pixels.args.left, pixels.args.right) = (left, right);
                pixels.run(self, row, (oy, ox));
            }
        }
    }

    /// What the runs of a vector that share their taps have in common.
    fn pixels(&self, v: &Vector, y: &Segment, x: &Segment, down: bool) -> Pixels {
        let d = self.d;
        let s = &d.shape;
        let block = (v.source / BLOCK - self.x.block) * d.xs.block + v.source % BLOCK;
        let w = self.ocb * s.icg() * s.kh * s.kw + y.taps.start * s.kw + x.taps.start;
        // The first tap of output (0, 0), which may lie outside of the input.
        let x_at = (self.x.image * d.xs.n + block) as isize
            + ((y.taps.start * s.dh) as isize - (s.pad.top + self.x.row) as isize) * d.xs.row as isize
            + ((x.taps.start * s.dw) as isize - s.pad.left as isize) * d.xs.px as isize;
        let args = LaneArgs {
            x: self.x.x.as_ptr().wrapping_offset(x_at),
            w: self.w.as_ptr().wrapping_add(w * BLOCK + v.first % BLOCK),
            groups: s.icg(),
            index: v.index.as_ptr(),
            w_group: s.kh * s.kw * BLOCK,
            rows: y.taps.len(),
            x_row: s.dh * d.xs.row,
            w_row: s.kw * BLOCK,
            taps: x.taps.len(),
            x_tap: s.dw * d.xs.px,
            px: if down { s.sh * d.xs.row } else { s.sw * d.xs.px },
            lines: 1,
            x_line: s.sh * d.xs.row,
            y_line: d.ys.row,
            left: false,
            right: false,
            out: Output {
                y: self.y.at(0),
                px: if down { d.ys.row } else { d.ys.px },
                block: d.ys.block,
                channel: d.ys.channel,
                cols: s.oc.saturating_sub(v.first),
                pad_cols: d.output == Layout::Blocked,
                finish: Some(self.finish.0.at(v.first, 0)),
            },
        };
        let y_at = self.n * d.ys.n + self.ocb * d.ys.block + v.first % BLOCK * d.ys.channel;
        Pixels { args, first: args, y_at }
    }
}

/// Runs that differ in their output position alone; setting one up costs about as much as running it, so only what
/// differs is set from run to run.
struct Pixels {
    args: LaneArgs,
    /// The arguments for output (0, 0), but for the output itself, which is `y_at` floats from the tensor's start.
    first: LaneArgs,
    y_at: usize,
}

impl Pixels {
    #[inline]
    fn run(&mut self, run: &Run<'_>, row: &Row, (oy, ox): (usize, usize)) {
        let d = run.d;
        let s = &d.shape;
        let y_at = self.y_at + oy * d.ys.row + ox * d.ys.px;
        self.args.x = self.first.x.wrapping_add(oy * s.sh * d.xs.row + ox * s.sw * d.xs.px);
        self.args.out.y = run.y.at(y_at);
        if let (Some(f), Some(first)) = (&mut self.args.out.finish, &self.first.out.finish)
            && !first.residual.is_null()
        {
            f.residual = first.residual.wrapping_add(y_at);
        }
        // SAFETY:
        // * the level is available and slices have the lengths of their layouts (asserted in `forward`);
        // * the pixels lie in one segment of each axis, whose tap ranges keep every tap inside the input, and
        //   `block_input` has copied all rows that the strip's taps meet;
        // * `source + lane` stays inside one vector of the input, by the check in `new`;
        // * parts of a run have disjoint planes or rows, so no two threads write the same output.
        unsafe { (row.run)(&self.args) };
    }
}
