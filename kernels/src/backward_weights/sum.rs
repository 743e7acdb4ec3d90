//! Sums over pixels, lane by lane: for weights that have few inputs.
//!
//! ```text
//! for each row, pixel:    load dy; for each tap: sums[tap][16 lanes] += x * dy, in registers
//! ```
//!
//! What `x` is to a tap is either a line, each lane its own input (depthwise), or one float for all lanes (a plane of
//! NCHW). All taps of a 3x3 kernel are summed at once, of a plane at AVX-512 also those of a 4x4 one, and up to seven adjacent
//! taps of a row. There a kernel of planes may take two blocks of the gradient, so that each float serves both. A tap of which a
//! kernel has fewer than four waits for its own multiply-adds.
//!
//! Nothing is padded. A pixel at a border asks of each tap whether it lies inside. Kernels of single tap rows are given those rows that
//! have it. Order of each sum: from row to row, each from left to right.

use core::ops::Range;

use crate::exec::Shared;
use crate::isa::{Entry, Isa, Kernel, Level};
use crate::layout::BLOCK;
use crate::region::Axis;
use crate::reorder::interleave_at;
use crate::shape::ConvShape;
use crate::table::{by_level, edges};

/// Most taps of all input channels that share a block's sums: 256 KiB.
pub(super) const MOST_TAPS: usize = 4096;

/// Why more are refused.
pub(super) const TOO_MANY_TAPS: &str = "the sums of so many taps exceed the level-2 cache";

/// What a kernel works on. Lengths and steps in floats.
#[derive(Clone, Copy)]
struct SumArgs {
    /// Input of the first pixel's first tap; outside the tensor where that tap is.
    x: *const f32,
    /// From row to row and pixel to pixel of the outputs, and from row to row of the taps. The taps of a row are
    /// adjacent.
    x_row: usize,
    x_px: usize,
    tap_row: usize,
    /// Input column of the first pixel's first tap, modulo 2^64, columns from pixel to pixel, and columns that exist.
    column: usize,
    step: usize,
    columns: usize,
    /// Gradient at the first pixel, from row to row, and from block to block.
    dy: *const f32,
    dy_row: usize,
    dy_block: usize,
    rows: usize,
    width: usize,
    /// Pixels of a row that have all taps' columns, and rows that have all their rows: the first, and the end.
    inner: [usize; 2],
    inner_rows: [usize; 2],
    /// Input row of the first row's first tap, modulo 2^64, rows from row to row and from tap to tap, and rows that exist.
    line: usize,
    line_step: usize,
    tap_line: usize,
    lines: usize,
    /// Sums `[tap row][tap column][16]`, from tap row to tap row, and from block to block.
    sums: *mut f32,
    sums_row: usize,
    sums_block: usize,
    /// Sums of the gradient itself, and from block to block.
    bias: *mut f32,
    bias_block: usize,
}

impl SumArgs {
    /// Which of the first rows of taps exist in a row of outputs: a bit for each.
    #[inline(always)]
    fn exist(&self, row: usize, taps: usize) -> u32 {
        let first = self.line.wrapping_add(row * self.line_step);
        let exists = |ky: usize| first.wrapping_add(ky * self.tap_line) < self.lines;
        (0..taps).map(|ky| u32::from(exists(ky)) << ky).sum()
    }
}

/// What a tap multiplies the gradient's lanes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Each its own input: a block of channels.
    Own,
    /// All the same: a pixel of a plane.
    One,
}

impl Source {
    /// Floats of a pixel.
    pub(super) const fn px(self) -> usize {
        match self {
            Self::Own => BLOCK,
            Self::One => 1,
        }
    }
}

/// Sums for `KH` x `KW` taps of `N` blocks of the gradient; of one float for all lanes, or of lines.
struct Sum<const KH: usize, const KW: usize, const N: usize, const ONE: bool>;

impl<const KH: usize, const KW: usize, const N: usize, const ONE: bool> Sum<KH, KW, N, ONE> {
    /// Adds a pixel, at the border only those taps that exist.
    ///
    /// # Safety
    /// As [`Kernel::run`] of this kernel has it, for one pixel; `border` is the column of its first tap and which rows of taps exist, none
    /// where all taps do.
    #[inline(always)]
    unsafe fn pixel<I: Isa>(
        s: I,
        a: &SumArgs,
        (x, dy): (*const f32, *const f32),
        border: Option<(usize, u32)>,
        acc: &mut [[[I::V; N]; KW]; KH],
        bias: &mut [I::V; N],
    ) {
        let px = if ONE { 1 } else { BLOCK };
        let mut g = [s.zero(); N];
        for b in 0..N {
            // SAFETY: the caller vouches for the pixel.
            g[b] = unsafe { s.load(dy.wrapping_add(b * a.dy_block)) };
            bias[b] = s.add(bias[b], g[b]);
        }
        for kx in 0..KW {
            if border.is_some_and(|(column, _)| column.wrapping_add(kx) >= a.columns) {
                continue;
            }
            for ky in 0..KH {
                if KH > 1 && border.is_some_and(|(_, rows)| rows >> ky & 1 == 0) {
                    continue;
                }
                let tap = x.wrapping_add(ky * a.tap_row + kx * px);
                // SAFETY: the caller vouches for taps that exist.
                let tap = unsafe { if ONE { s.load_splat(tap) } else { s.load(tap) } };
                for b in 0..N {
                    acc[ky][kx][b] = s.fma(tap, g[b], acc[ky][kx][b]);
                }
            }
        }
    }
}

impl<I: Isa, const KH: usize, const KW: usize, const N: usize, const ONE: bool> Kernel<I> for Sum<KH, KW, N, ONE> {
    type Args = SumArgs;

    /// # Safety
    /// * `x` is readable for those taps of all pixels that exist, `dy` for all pixels of `N` blocks; a tap is a block too, unless it is one
    ///   float for all lanes;
    /// * the columns of all taps of the `inner` pixels exist, and all rows of taps of the `inner_rows`;
    /// * `sums`, for all taps, and `bias` are readable and writable for `N` blocks.
    #[inline(always)]
    unsafe fn run(s: I, a: &SumArgs) {
        const { assert!((KH * KW + 2) * N < I::REGISTERS) };
        for part in (0..BLOCK).step_by(I::LANES) {
            let lanes = if ONE { 0 } else { part };
            let mut acc = [[[s.zero(); N]; KW]; KH];
            let mut bias = [s.zero(); N];
            for row in 0..a.rows {
                // What a row needs is read for each: kept over all of them, it would be kept on the stack.
                let a = core::hint::black_box(a);
                let mut x = a.x.wrapping_add(row * a.x_row + lanes);
                let mut dy = a.dy.wrapping_add(row * a.dy_row + part);
                let mut column = a.column;
                // Of a row that lacks taps, all pixels are asked.
                let whole = KH == 1 || (a.inner_rows[0]..a.inner_rows[1]).contains(&row);
                let ([inner, end], exist) = if whole { (a.inner, !0) } else { ([a.width; 2], a.exist(row, KH)) };
                for _ in 0..inner {
                    // SAFETY: a pixel of the gradient, and those of its taps that exist.
                    unsafe { Self::pixel(s, a, (x, dy), Some((column, exist)), &mut acc, &mut bias) };
                    (x, dy, column) = (x.wrapping_add(a.x_px), dy.wrapping_add(BLOCK), column.wrapping_add(a.step));
                }
                for _ in inner..end {
                    // SAFETY: a pixel of the gradient, all of whose taps exist.
                    unsafe { Self::pixel(s, a, (x, dy), None, &mut acc, &mut bias) };
                    (x, dy) = (x.wrapping_add(a.x_px), dy.wrapping_add(BLOCK));
                }
                column = a.column.wrapping_add(end.wrapping_mul(a.step));
                for _ in end..a.width {
                    // SAFETY: a pixel of the gradient, and those of its taps that exist.
                    unsafe { Self::pixel(s, a, (x, dy), Some((column, !0)), &mut acc, &mut bias) };
                    (x, dy, column) = (x.wrapping_add(a.x_px), dy.wrapping_add(BLOCK), column.wrapping_add(a.step));
                }
            }
            // SAFETY: the caller vouches for a block.
            let add = |to: *mut f32, v: I::V| unsafe { s.store(to, s.add(s.load(to), v)) };
            for b in 0..N {
                for ky in 0..KH {
                    for kx in 0..KW {
                        let at = b * a.sums_block + ky * a.sums_row + kx * BLOCK + part;
                        add(a.sums.wrapping_add(at), acc[ky][kx][b]);
                    }
                }
                add(a.bias.wrapping_add(b * a.bias_block + part), bias[b]);
            }
        }
    }
}

/// A kernel of this family: a row of [`sum_rows`].
#[derive(Clone, Copy, Debug)]
pub struct SumRow {
    /// `dw_bwd_w_f32_3x3_avx512`: taps at once. Those of a plane are `stem_bwd_w`, for two blocks `stem_pair_bwd_w`.
    pub name: &'static str,
    /// Level.
    pub level: Level,
    /// What a tap is.
    pub source: Source,
    /// Rows and columns of taps at once.
    pub taps: [usize; 2],
    /// Blocks of the gradient at once.
    pub blocks: usize,
    run: Entry<SumArgs>,
}

edges!(edge);

macro_rules! sum_table {
    ($level:ident, $module:ident, $name:literal; $($family:literal $source:ident $n:literal { $($taps:tt)* })*) => {
        &[$($(sum_table!(@row $level, $module, $name, $family, $source, $n, $taps),)*)*]
    };
    (@row $level:ident, $module:ident, $name:literal, $family:literal, $source:ident, $n:literal, [$kh:literal $kw:literal]) => {
        SumRow {
            name: concat!($family, "_bwd_w_f32_", $kh, "x", $kw, "_", $name),
            level: Level::$level,
            source: Source::$source,
            taps: [$kh, $kw],
            blocks: $n,
            run: edge::$module::run::<Sum<$kh, $kw, $n, { matches!(Source::$source, Source::One) }>>,
        }
    };
}

by_level! {
    /// The kernels of these sums at a level, those of more taps first; none for a level of another architecture.
    pub fn sum_rows() -> [SumRow];

    Scalar: sum_table!(
        Scalar, scalar, "scalar";
        "dw" Own 1 { [1 3] [1 1] }
        "stem" One 1 { [1 3] [1 1] }
    ),
    Avx2: sum_table!(
        Avx2, avx2, "avx2";
        "dw" Own 1 { [3 3] [1 7] [1 5] [1 4] [1 3] [1 2] [1 1] }
        "stem" One 1 { [3 3] [1 7] [1 5] [1 4] [1 3] [1 2] [1 1] }
    ),
    Avx512: sum_table!(
        Avx512, avx512, "avx512";
        "dw" Own 1 { [3 3] [1 7] [1 5] [1 4] [1 3] [1 2] [1 1] }
        "stem" One 1 { [4 4] [3 3] [1 7] [1 5] [1 4] [1 3] [1 2] [1 1] }
        "stem_pair" One 2 { [3 3] [1 7] [1 5] [1 4] [1 3] }
    ),
    Neon: sum_table!(
        Neon, neon, "neon";
        "dw" Own 1 { [3 3] [1 7] [1 5] [1 4] [1 3] [1 2] [1 1] }
        "stem" One 1 { [3 3] [1 7] [1 5] [1 4] [1 3] [1 2] [1 1] }
    ),
}

/// The kernels of a window's taps, and how they are called.
#[derive(Clone, Debug)]
pub(super) struct Taps {
    shape: ConvShape,
    y: Axis,
    x: Axis,
    /// The kernels of all taps of several rows, if there are any.
    all: Option<Alike>,
    /// The kernels of a row of taps, with the first of each's.
    row: Vec<(usize, Alike)>,
}

/// The kernels of some taps: of a block, and of two if there is one.
#[derive(Clone, Copy, Debug)]
struct Alike {
    one: &'static SumRow,
    two: Option<&'static SumRow>,
}

impl Alike {
    /// The first of so many taps, down and across, that pass.
    fn find(level: Level, source: Source, fits: impl Fn([usize; 2]) -> bool) -> Option<Self> {
        let mut rows = sum_rows(level).iter().filter(|r| r.source == source && fits(r.taps));
        let one = rows.clone().find(|r| r.blocks == 1)?;
        Some(Self { one, two: rows.find(|r| r.blocks == 2 && r.taps == one.taps) })
    }
}

/// What is added to what: an image's part of a segment.
pub(super) struct Part<'a> {
    /// Rows of the input, which is the first, and from row to row.
    pub from: &'a [f32],
    pub first: usize,
    pub row: usize,
    /// Rows of the image's gradient, blocks of channels so far apart, and which row is the first.
    pub dy: &'a [f32],
    pub dy_block: usize,
    pub first_dy: usize,
    /// Sums of each of these blocks, as many as fill this.
    pub sums: &'a mut [f32],
    /// Floats of a block's sums, and where they have the first tap, and the gradient itself if it is to be counted.
    pub block: usize,
    pub tap: usize,
    pub bias: Option<usize>,
}

impl Taps {
    /// The kernels for a window.
    ///
    /// # Errors
    /// A reason: too many taps, no kernels at the level.
    pub fn new(s: &ConvShape, level: Level, source: Source) -> Result<Self, &'static str> {
        if s.kh.saturating_mul(s.kw) > MOST_TAPS {
            return Err(TOO_MANY_TAPS);
        }
        let all = Alike::find(level, source, |taps| s.kh > 1 && s.dw == 1 && taps == [s.kh, s.kw]);
        let mut row = Vec::new();
        let mut kx = 0;
        while kx < s.kw {
            let most = if s.dw == 1 { s.kw - kx } else { 1 };
            let fits = |[down, across]: [usize; 2]| down == 1 && across <= most;
            let kernels = Alike::find(level, source, fits).ok_or("no kernels at this level")?;
            row.push((kx, kernels));
            kx += kernels.one.taps[1];
        }
        Ok(Self { shape: *s, y: Axis::y(s), x: Axis::x(s), all, row })
    }

    /// Name of the kernel that does most of the work.
    pub fn kernel(&self) -> &'static str {
        let most = self.all.unwrap_or(self.row[0].1);
        most.two.filter(|_| self.shape.oc > BLOCK).unwrap_or(most.one).name
    }

    /// The input rows that some output rows read.
    pub fn reach(&self, rows: &Range<usize>) -> Range<usize> {
        let s = &self.shape;
        let inside = |row: usize| row.saturating_sub(s.pad.top).min(s.ih);
        inside(rows.start * s.sh)..inside((rows.end.max(1) - 1) * s.sh + (s.kh - 1) * s.dh + 1)
    }

    /// Most input rows that so many output rows read; None if that overflows.
    pub fn height(&self, rows: usize) -> Option<usize> {
        let s = &self.shape;
        let reach = (rows.max(1) - 1).checked_mul(s.sh)?.checked_add((s.kh - 1).checked_mul(s.dh)?)?;
        Some(reach.saturating_add(1).min(s.ih))
    }

    /// Adds some rows of outputs: all taps at once, or tap row by tap row.
    pub fn add(&self, mut part: Part<'_>, rows: &Range<usize>) {
        let s = &self.shape;
        if let Some(all) = self.all {
            return self.call(all, &mut part, rows.clone(), Some([0, 0]), true);
        }
        // The row of taps that most pixels have counts the gradient itself.
        let valid = |ky: usize| {
            let valid = self.y.outputs(ky);
            let start = valid.start.clamp(rows.start, rows.end);
            start..valid.end.clamp(start, rows.end)
        };
        let counts = (0..s.kh).max_by_key(|&ky| valid(ky).len()).unwrap_or(0);
        for ky in (0..s.kh).filter(|&ky| !valid(ky).is_empty()) {
            for &(kx, kernels) in &self.row {
                self.call(kernels, &mut part, valid(ky), Some([ky, kx]), ky == counts && kx == 0);
            }
        }
        let counted = valid(counts);
        for rows in [rows.start..counted.start, counted.end..rows.end] {
            if part.bias.is_some() && !rows.is_empty() {
                self.call(self.row[0].1, &mut part, rows, None, true);
            }
        }
    }

    /// Adds some rows of outputs to the sums of as many taps as the kernels have, from this one on, or of none; and to
    /// those of the bias, if they are to be counted. Single rows of taps exist in all of these rows.
    fn call(&self, kernels: Alike, part: &mut Part<'_>, rows: Range<usize>, tap: Option<[usize; 2]>, count: bool) {
        let s = &self.shape;
        let px = kernels.one.source.px();
        let row = part.row;
        let [ky, kx] = tap.unwrap_or([0, 0]);
        let [kh, kw] = kernels.one.taps;
        // The first tap of the first row.
        let line = (rows.start * s.sh + ky * s.dh).wrapping_sub(s.pad.top);
        let column = (kx * s.dw).wrapping_sub(s.pad.left);
        let whole = self.y.interior();
        let inside = |row: usize| row.clamp(rows.start, rows.end) - rows.start;
        let inner_rows = [inside(whole.start), inside(whole.end)];
        let (columns, inner) = if tap.is_some() {
            let first = self.x.outputs(kx).start.min(s.ow);
            (s.iw, [first, self.x.outputs(kx + kw - 1).end.clamp(first, s.ow)])
        } else {
            (0, [0, 0])
        };
        if tap.is_some() {
            let first = (rows.start * s.sh + ky * s.dh).saturating_sub(s.pad.top);
            let end = (rows.end * s.sh - s.sh + (ky + kh - 1) * s.dh + 1).saturating_sub(s.pad.top).min(s.ih);
            let held = end.saturating_sub(part.first);
            let long = held == 0 || (held - 1) * row + s.iw * px <= part.from.len();
            assert!(part.first <= first && long, "the input holds these rows of taps");
        }
        let dy_row = |row: usize| (row - part.first_dy) * s.ow * BLOCK;
        let first = (ky * s.kw + kx) * BLOCK;
        let mut unused = [0.0; 2 * BLOCK];
        let blocks = part.sums.len() / part.block;
        let mut block = 0;
        while block < blocks {
            let kernel = kernels.two.filter(|_| block + 1 < blocks).unwrap_or(kernels.one);
            let last = block + kernel.blocks - 1;
            assert!(last * part.dy_block + dy_row(rows.end) <= part.dy.len(), "the gradient of these rows");
            let dy = &part.dy[block * part.dy_block + dy_row(rows.start)..];
            let sums = &mut part.sums[block * part.block..];
            let len = (kernel.blocks - 1) * part.block;
            assert!(len + part.tap + first + ((kh - 1) * s.kw + kw) * BLOCK <= sums.len(), "the sums of these taps");
            let to = sums.as_mut_ptr();
            let (bias, bias_block) = match part.bias.filter(|_| count) {
                Some(at) => {
                    assert!(len + at + BLOCK <= sums.len(), "the sums of the gradient");
                    (to.wrapping_add(at), part.block)
                }
                None => (unused.as_mut_ptr(), BLOCK),
            };
            let args = SumArgs {
                x: part
                    .from
                    .as_ptr()
                    .wrapping_add(line.wrapping_sub(part.first).wrapping_mul(row))
                    .wrapping_add(column.wrapping_mul(px)),
                x_row: s.sh * row,
                x_px: s.sw * px,
                tap_row: s.dh * row,
                column,
                step: s.sw,
                columns,
                dy: dy.as_ptr(),
                dy_row: s.ow * BLOCK,
                dy_block: part.dy_block,
                rows: rows.len(),
                width: s.ow,
                inner,
                inner_rows,
                line,
                line_step: s.sh,
                tap_line: s.dh,
                lines: s.ih,
                sums: to.wrapping_add(part.tap + first),
                sums_row: s.kw * BLOCK,
                sums_block: part.block,
                bias,
                bias_block,
            };
            // SAFETY:
            // * the level is available (asserted by whoever runs), and `dy` holds these rows of the kernel's blocks (asserted);
            // * the input holds those of these rows of taps that exist (asserted), and the kernel reads those and the columns that exist;
            // * inner pixels are those whose first tap and whose last lie inside, so that all between do, and inner rows likewise;
            // * the sums hold a block of each of the kernel's taps (asserted), and `bias` is as many, or `unused` is two.
            unsafe { (kernel.run)(&args) };
            block += kernel.blocks;
        }
    }
}

/// Adds the sums of all slices, each `[dy block][tap][16 oc]` with the gradient itself behind the taps, and stores them in
/// PyTorch's order, with the instructions of an available level: all of `dw` `[oc][tap]` and, if asked for, `db` `[oc]`.
pub(super) fn finish(
    level: Level,
    sums: &mut [f32],
    slice: usize,
    taps: usize,
    dw: &Shared<'_>,
    mut db: Option<&mut [f32]>,
) {
    let (sum, others) = sums.split_at_mut(slice);
    for other in others.chunks_exact(slice) {
        sum.iter_mut().zip(other).for_each(|(sum, v)| *sum += v);
    }
    for (i, sum) in sum.chunks_exact((taps + 1) * BLOCK).enumerate() {
        let at = i * BLOCK * taps;
        let len = (BLOCK * taps).min(dw.len() - at);
        if let Some(db) = &mut db {
            let channels = len / taps;
            db[i * BLOCK..][..channels].copy_from_slice(&sum[taps * BLOCK..][..channels]);
        }
        // SAFETY: the run's parts are done, and each block has weights of its own.
        interleave_at(level, sum, BLOCK, taps, unsafe { dw.part(at, len) }.into());
    }
}
