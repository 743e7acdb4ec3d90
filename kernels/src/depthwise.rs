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
//! Columns outside the image read a block of zeros instead (tiles that touch the border only); rows outside are
//! skipped. Order of the sum: `(j, ky, kx)`. Error: as for the register tile.

use crate::epilogue::Epilogue;
use crate::exec::{Executor, Shared, for_each_part};
use crate::isa::{self, Entry, Isa, Kernel, Level};
use crate::layout::{BLOCK, Layout, Strides, blocks};
use crate::shape::{ConvShape, taps_inside};
use crate::tile::{Finish, Output, SyncFinish};

/// What a run of pixels works on. Lengths and steps in floats.
#[derive(Clone, Copy, Debug)]
pub struct LaneArgs {
    /// Input at the first pixel's first column, which may lie outside the image, in the first valid row.
    x: *const f32,
    /// Weights of the first valid row of taps, `j = 0`.
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
    /// For the body that takes taps one by one: their number, and the steps of taps and pixels in columns.
    taps: usize,
    tap_columns: usize,
    px_columns: usize,
    /// Input columns `lo..hi`, counted from the first pixel's first, lie inside the image.
    lo: isize,
    hi: isize,
    out: Output,
}

/// A block of zeros that columns outside of the image read.
#[repr(align(64))]
struct Zeros([f32; BLOCK]);
static ZEROS: Zeros = Zeros([0.0; BLOCK]);

/// The body for `MR` pixels, `KW` taps at once, stride `S`; `PERM` permutes lanes, `EDGE` checks columns.
///
/// With `KW = 1` it takes the taps of a row one by one, for kernels of any width, stride and dilation; `S` is 1 then.
pub struct Lanes<const MR: usize, const KW: usize, const S: usize, const PERM: bool, const EDGE: bool>;

impl<I: Isa, const MR: usize, const KW: usize, const S: usize, const PERM: bool, const EDGE: bool> Kernel<I>
    for Lanes<MR, KW, S, PERM, EDGE>
{
    type Args = LaneArgs;

    /// # Safety
    /// * the inputs of the sum are readable, for columns inside `lo..hi` (without `EDGE`: for all columns);
    /// * so are the weights, and with `PERM` 16 lane numbers per step of `j`;
    /// * `out` is as [`Output::store`] asks for `MR` pixels of one vector.
    #[inline(always)]
    unsafe fn run(s: I, a: &LaneArgs) {
        const { assert!(MR + KW + 2 <= I::REGISTERS) };
        // SAFETY: all pointers stay inside what the contract above grants; pointers outside are formed with
        // wrapping arithmetic and replaced by the zeros before they are read.
        unsafe {
            let mut acc = [[s.zero(); 1]; MR];
            for j in 0..a.groups {
                let index = if PERM { Some(s.load_index(a.index.add(j * BLOCK))) } else { None };
                for ky in 0..a.rows {
                    for kx in 0..if KW == 1 { a.taps } else { 1 } {
                        let w = a.w.add(j * a.w_group + ky * a.w_row + kx * BLOCK);
                        let mut wv = [s.zero(); KW];
                        for t in 0..KW {
                            wv[t] = s.load(w.add(t * BLOCK));
                        }
                        let x = a.x.wrapping_add(ky * a.x_row);
                        for c in 0..(MR - 1) * S + KW {
                            if (0..KW).all(|t| !serves(c, t, S, MR)) {
                                continue; // a column between windows
                            }
                            let column = if KW == 1 { kx * a.tap_columns + c * a.px_columns } else { c };
                            let mut p = x.wrapping_add(column * BLOCK);
                            if EDGE && !(a.lo..a.hi).contains(&(column as isize)) {
                                p = ZEROS.0.as_ptr();
                            }
                            let mut v = s.load(p);
                            if let Some(index) = index {
                                v = s.permute(v, index);
                            }
                            for t in 0..KW {
                                if serves(c, t, S, MR) {
                                    acc[(c - t) / S][0] = s.fma(wv[t], v, acc[(c - t) / S][0]);
                                }
                            }
                        }
                    }
                }
            }
            a.out.store(s, acc);
        }
    }
}

/// Whether input column `c` meets tap `t` of one of `mr` pixels at stride `s`.
#[inline(always)]
const fn serves(c: usize, t: usize, s: usize, mr: usize) -> bool {
    c >= t && (c - t).is_multiple_of(s) && (c - t) / s < mr
}

/// A kernel of this family: a row of [`rows`].
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// `dw3s1_f32_14x16_avx512`: family (`dw`, or `group` with permutation), taps at once (`any` for one by one), stride,
    /// pixels x vector, level; `_edge` for tiles that touch the border.
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
    /// Whether columns are checked.
    pub edge: bool,
    /// The kernel; see [`Lanes`] for its contract.
    pub run: Entry<LaneArgs>,
}

/// Rows of one level: for each number of taps and stride, the numbers of pixels.
macro_rules! rows {
    ($level:ident, $entry:ident, $lanes:literal, $name:literal; $($kw:literal $s:literal: [$($mr:literal)*];)*) => {
        &[$($(
            rows!(@row $level, $entry, $lanes, $name, $kw, $s, $mr, "dw", false, "", false),
            rows!(@row $level, $entry, $lanes, $name, $kw, $s, $mr, "dw", false, "_edge", true),
            rows!(@row $level, $entry, $lanes, $name, $kw, $s, $mr, "group", true, "", false),
            rows!(@row $level, $entry, $lanes, $name, $kw, $s, $mr, "group", true, "_edge", true),
        )*)*]
    };
    (@row $level:ident, $entry:ident, $lanes:literal, $name:literal, $kw:literal, $s:literal, $mr:literal,
     $family:literal, $permute:literal, $suffix:literal, $edge:literal) => {
        Row {
            name: concat!($family, $kw, "s", $s, "_f32_", $mr, "x", $lanes, $suffix, "_", $name),
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
    3 1: [1 2 4]; 3 2: [1 2 4]; 1 1: [1 2 4];
};

#[cfg(target_arch = "x86_64")]
static AVX2: &[Row] = rows! {
    Avx2, avx2, 8, "avx2";
    3 1: [1 2 4 7]; 3 2: [1 2 4 7]; 5 1: [1 2 4 7]; 5 2: [1 2 4 7]; 7 1: [1 2 4]; 7 2: [1 2 4]; 1 1: [1 2 4 7];
};

/// Fourteen divides 14, 28, 56, 112 and 224; what is left of other widths is cut into 7, 4, 2 and 1.
#[cfg(target_arch = "x86_64")]
static AVX512: &[Row] = rows! {
    Avx512, avx512, 16, "avx512";
    3 1: [1 2 4 7 14]; 3 2: [1 2 4 7 14]; 5 1: [1 2 4 7 14]; 5 2: [1 2 4 7 14];
    7 1: [1 2 4 7 14]; 7 2: [1 2 4 7 14]; 1 1: [1 2 4 7 14];
};

#[cfg(target_arch = "aarch64")]
static NEON: &[Row] = rows! {
    Neon, neon, 4, "neon";
    3 1: [1 2 4 7 14]; 3 2: [1 2 4 7 14]; 5 1: [1 2 4 7 14]; 5 2: [1 2 4 7 14]; 1 1: [1 2 4 7 14];
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

/// Sizes of a run of pixels that the tables have, longest first.
const RUNS: [usize; 5] = [14, 7, 4, 2, 1];

/// A depthwise or small-group convolution on blocked input, planned. Holds no tensor.
#[derive(Clone, Debug)]
pub struct Depthwise {
    shape: ConvShape,
    level: Level,
    xs: Strides,
    ys: Strides,
    output: Layout,
    /// Kernels by position in [`RUNS`], inner and at the border.
    kernels: [[Option<&'static Row>; 2]; RUNS.len()],
}

impl Depthwise {
    /// Plans, or says why the shape is not for this algorithm.
    ///
    /// # Errors
    /// A reason, when some output vector's lanes would draw from more than one input vector.
    pub fn new(shape: &ConvShape, level: Level, output: Layout) -> Result<Self, &'static str> {
        shape.assert_consistent();
        let s = *shape;
        if s.groups == 1 {
            return Err("one group");
        }
        if s.icg() > 8 {
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
        let unrolled = s.dw == 1 && s.sw <= 2 && rows(level).iter().any(|r| r.kw == s.kw && r.kw > 1);
        let (kw, stride) = if unrolled { (s.kw, s.sw) } else { (1, 1) };
        let permute = (s.icg(), s.ocg()) != (1, 1);
        let find = |mr, edge| {
            rows(level).iter().find(|r| (r.mr, r.kw, r.stride, r.permute, r.edge) == (mr, kw, stride, permute, edge))
        };
        Ok(Self {
            shape: s,
            level,
            xs: Layout::Blocked.strides(s.input()),
            ys: output.strides(s.output()),
            output,
            kernels: RUNS.map(|mr| [find(mr, false), find(mr, true)]),
        })
    }

    /// Name of the kernel that covers inner pixels: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        let run = self.runs(self.shape.ow).next().map_or(1, |(_, mr)| mr);
        self.row(run, false).name
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

    fn row(&self, mr: usize, edge: bool) -> &'static Row {
        let i = RUNS.iter().position(|&r| r == mr).expect("runs are taken from RUNS");
        self.kernels[i][usize::from(edge)].expect("runs are taken from the sizes that the level has")
    }

    /// Cuts a row into runs: `(start, length)`, the longest that fit first.
    fn runs(&self, width: usize) -> impl Iterator<Item = (usize, usize)> {
        let mut at = 0;
        core::iter::from_fn(move || {
            let left = width - at;
            let (&mr, _) = RUNS.iter().zip(&self.kernels).find(|(mr, k)| **mr <= left && k[0].is_some())?;
            at += mr;
            Some((at - mr, mr))
        })
    }

    /// Runs the convolution on the executor's threads. `x` is blocked, `y` in the layout given to [`Depthwise::new`].
    ///
    /// # Panics
    /// If a slice's length is not what the shape, the layouts and [`Depthwise::packed_len`] say.
    pub fn forward(&self, x: &[f32], packed: &[f32], epilogue: &Epilogue<'_>, y: &mut [f32], executor: &dyn Executor) {
        let s = &self.shape;
        let y_len = self.output.len(s.output());
        assert_eq!(x.len(), Layout::Blocked.len(s.input()), "input length");
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
        for_each_part(executor, planes * strips, |part| {
            let (plane, strip) = (part / strips, part % strips);
            let (n, ocb) = (plane / blocks(s.oc), plane % blocks(s.oc));
            for oy in s.oh * strip / strips..s.oh * (strip + 1) / strips {
                self.output_row(x, packed, &finish, &y, (n, ocb, oy));
            }
        });
    }

    fn output_row(
        &self,
        x: &[f32],
        packed: &[f32],
        finish: &SyncFinish,
        y: &Shared<'_>,
        (n, ocb, oy): (usize, usize, usize),
    ) {
        let s = &self.shape;
        let lanes = self.level.lanes();
        let ky = taps_inside(oy, s.sh, s.dh, s.pad.top, s.kh, s.ih);
        let iy = if ky.is_empty() { 0 } else { oy * s.sh + ky.start * s.dh - s.pad.top };
        let per_block = s.icg() * s.kh * s.kw * BLOCK;
        let span = (s.kw - 1) * s.dw + 1;
        // Blocked output has vectors beyond the last channel, which are stored as zeros.
        let end = (ocb + 1) * BLOCK;
        let end = if self.output == Layout::Blocked { end } else { end.min(s.oc) };
        for first in (ocb * BLOCK..end).step_by(lanes) {
            let source = first.min(s.oc - 1) / s.ocg() * s.icg() / lanes * lanes;
            let mut index = [0u32; 8 * BLOCK];
            for j in 0..s.icg() {
                for lane in 0..lanes {
                    let o = (first + lane).min(s.oc - 1);
                    index[j * BLOCK + lane] = (o / s.ocg() * s.icg() + j - source) as u32;
                }
            }
            for (ox, mr) in self.runs(s.ow) {
                // Column of the run's first tap, from the image's left edge.
                let column = (ox * s.sw) as isize - s.pad.left as isize;
                let reach = column + ((mr - 1) * s.sw + span) as isize;
                let edge = column < 0 || reach > s.iw as isize;
                let x_at = n * self.xs.n + source / BLOCK * self.xs.block + source % BLOCK + iy * self.xs.row;
                let y_at = n * self.ys.n
                    + ocb * self.ys.block
                    + first % BLOCK * self.ys.channel
                    + oy * self.ys.row
                    + ox * self.ys.px;
                let args = LaneArgs {
                    x: x.as_ptr().wrapping_add(x_at).wrapping_offset(column * BLOCK as isize),
                    w: packed.as_ptr().wrapping_add(ocb * per_block + ky.start * s.kw * BLOCK + first % BLOCK),
                    groups: s.icg(),
                    index: index.as_ptr(),
                    w_group: s.kh * s.kw * BLOCK,
                    rows: ky.len(),
                    x_row: s.dh * self.xs.row,
                    w_row: s.kw * BLOCK,
                    taps: s.kw,
                    tap_columns: s.dw,
                    px_columns: s.sw,
                    lo: -column,
                    hi: s.iw as isize - column,
                    out: Output {
                        y: y.at(y_at),
                        px: self.ys.px,
                        block: self.ys.block,
                        channel: self.ys.channel,
                        cols: s.oc.saturating_sub(first),
                        pad_cols: self.output == Layout::Blocked,
                        finish: Some(finish.0.at(first, y_at)),
                    },
                };
                // SAFETY:
                // * the level is available and slices have the lengths of their layouts (asserted in `forward`);
                // * rows are valid by `taps_inside`; columns are inside the image, or checked by the edge kernel;
                // * `source + lane` stays inside one vector of the input, by the check in `new`;
                // * parts of a run have disjoint planes or rows, so no two threads write the same output.
                unsafe { (self.row(mr, edge).run)(&args) };
            }
        }
    }
}
