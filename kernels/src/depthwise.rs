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
    out: Output,
}

/// The body for `MR` pixels, `KW` taps at once, stride `S`; `PERM` permutes lanes.
///
/// With `KW = 1` it takes the taps of a row one by one, for kernels of any width, stride and dilation, for pixels at the
/// border that lack some taps, and for runs down a column.
pub struct Lanes<const MR: usize, const KW: usize, const S: usize, const PERM: bool>;

impl<I: Isa, const MR: usize, const KW: usize, const S: usize, const PERM: bool> Kernel<I> for Lanes<MR, KW, S, PERM> {
    type Args = LaneArgs;

    /// # Safety
    /// * the inputs and weights of the sum are readable, and with `PERM` 16 lane numbers per step of `j`;
    /// * `out` is as [`Output::store`] asks for `MR` pixels of one vector.
    #[inline(always)]
    unsafe fn run(s: I, a: &LaneArgs) {
        const { assert!(MR + KW + 2 <= I::REGISTERS) };
        // SAFETY: all pointers stay inside what the contract above grants.
        unsafe {
            let mut acc = [[s.zero(); 1]; MR];
            for j in 0..a.groups {
                let index = if PERM { Some(s.load_index(a.index.add(j * BLOCK))) } else { None };
                for ky in 0..a.rows {
                    for kx in 0..if KW == 1 { a.taps } else { 1 } {
                        let x = a.x.add(ky * a.x_row + kx * a.x_tap);
                        let w = a.w.add(j * a.w_group + ky * a.w_row + kx * BLOCK);
                        let mut wv = [s.zero(); KW];
                        for t in 0..KW {
                            wv[t] = s.load(w.add(t * BLOCK));
                        }
                        // An input that serves several pixels is written as several loads of one address, which the
                        // compiler makes one: in this form it unrolls the loops and keeps the sums in registers.
                        for i in 0..MR {
                            for t in 0..KW {
                                let at = if KW == 1 { i * a.px } else { (i * S + t) * BLOCK };
                                let mut v = s.load(x.add(at));
                                if let Some(index) = index {
                                    v = s.permute(v, index);
                                }
                                acc[i][0] = s.fma(wv[t], v, acc[i][0]);
                            }
                        }
                    }
                }
            }
            a.out.store(s, acc);
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
    /// The kernel; see [`Lanes`] for its contract.
    pub run: Entry<LaneArgs>,
}

/// Rows of one level: for each number of taps and stride, the numbers of pixels.
macro_rules! rows {
    ($level:ident, $entry:ident, $lanes:literal, $name:literal;
     $($taps:literal = $kw:literal $s:literal: [$($mr:literal)*];)*) => {
        &[$($(
            rows!(@row $level, $entry, $lanes, $name, $taps, $kw, $s, $mr, "dw", false),
            rows!(@row $level, $entry, $lanes, $name, $taps, $kw, $s, $mr, "group", true),
        )*)*]
    };
    (@row $level:ident, $entry:ident, $lanes:literal, $name:literal, $taps:literal, $kw:literal, $s:literal,
     $mr:literal, $family:literal, $permute:literal) => {
        Row {
            name: concat!($family, $taps, "_f32_", $mr, "x", $lanes, "_", $name),
            level: Level::$level,
            mr: $mr,
            kw: $kw,
            stride: $s,
            permute: $permute,
            run: isa::entry::$entry::<Lanes<{ $mr }, { $kw }, { $s }, { $permute }>>,
        }
    };
}

static SCALAR: &[Row] = rows! {
    Scalar, scalar, 4, "scalar";
    "3s1" = 3 1: [1 2 3 4];
    "3s2" = 3 2: [1 2 3 4];
    "any" = 1 1: [1 2 3 4];
};

/// 16 registers.
#[cfg(target_arch = "x86_64")]
static AVX2: &[Row] = rows! {
    Avx2, avx2, 8, "avx2";
    "3s1" = 3 1: [1 2 3 4 5 6 7];
    "3s2" = 3 2: [1 2 3 4 5 6 7];
    "5s1" = 5 1: [1 2 3 4 5 6 7];
    "5s2" = 5 2: [1 2 3 4 5 6 7];
    "7s1" = 7 1: [1 2 3 4];
    "7s2" = 7 2: [1 2 3 4];
    "any" = 1 1: [1 2 3 4 5 6 7];
};

/// 32 registers; fourteen divides 14, 28, 56, 112 and 224. Beyond 12 x 7 multiply-adds the compiler stops unrolling.
#[cfg(target_arch = "x86_64")]
static AVX512: &[Row] = rows! {
    Avx512, avx512, 16, "avx512";
    "3s1" = 3 1: [1 2 3 4 5 6 7 8 9 10 11 12 13 14];
    "3s2" = 3 2: [1 2 3 4 5 6 7 8 9 10 11 12 13 14];
    "5s1" = 5 1: [1 2 3 4 5 6 7 8 9 10 11 12 13 14];
    "5s2" = 5 2: [1 2 3 4 5 6 7 8 9 10 11 12 13 14];
    "7s1" = 7 1: [1 2 3 4 5 6 7 8 9 10 11 12];
    "7s2" = 7 2: [1 2 3 4 5 6 7 8 9 10 11 12];
    "any" = 1 1: [1 2 3 4 5 6 7];
};

/// 32 registers.
#[cfg(target_arch = "aarch64")]
static NEON: &[Row] = rows! {
    Neon, neon, 4, "neon";
    "3s1" = 3 1: [1 2 3 4 5 6 7 8];
    "3s2" = 3 2: [1 2 3 4 5 6 7 8];
    "5s1" = 5 1: [1 2 3 4 5 6 7 8];
    "5s2" = 5 2: [1 2 3 4 5 6 7 8];
    "any" = 1 1: [1 2 3 4 5 6 7];
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
    fn new(level: Level, kw: usize, stride: usize, permute: bool) -> Self {
        let mut runs = Self { rows: [None; MAX_MR + 1], max: 0 };
        for row in rows(level).iter().filter(|r| (r.kw, r.stride, r.permute) == (kw, stride, permute)) {
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
        let unrolled = Some(Runs::new(level, s.kw, s.sw, permute)).filter(|r| s.dw == 1 && s.kw > 1 && r.max > 0);
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
            any: Runs::new(level, 1, 1, permute),
        })
    }

    /// Name of the kernel that covers inner pixels: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        let runs = self.unrolled.unwrap_or(self.any);
        runs.get(pieces(self.x.interior().len().max(1), runs.max).next().map_or(1, |(_, mr)| mr)).name
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
                    for oy in y.out.clone() {
                        for (ox, mr) in pieces(x.out.len(), runs.max) {
                            pixels.run(self, runs.get(mr), (oy, x.out.start + ox));
                        }
                    }
                }
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
