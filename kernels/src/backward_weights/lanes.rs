//! Depthwise convolution: sums over pixels, lane by lane.
//!
//! ```text
//! dw[o][ky][kx] = sum over (n, oy, ox)  dy[n][o][oy][ox]
//!                                       * x[n][o / multiplier][oy * sh + ky * dh - top][ox * sw + kx * dw - left]
//!
//! for each slice of the pixels, block of channels:    threads
//!   for each segment of the slice, image:
//!     for each row, pixel:                            load dy; for each tap: sums[tap] += x * dy, in registers
//! then for each block:                                dw = sum over slices
//! ```
//!
//! All nine taps of a 3x3 kernel are summed at once, 3, 5 and 7 adjacent taps of a row likewise, others one by one.
//! Nothing of a blocked input is copied: a copy with its padding took longer than the sums. Rows at the borders, which
//! lack taps, are summed tap row by tap row, over those pixels whose taps lie inside. Columns at the borders are asked
//! tap by tap. Other layouts are copied to blocks, a few rows at a time. Order of each sum: that of the pixels of an
//! image's part of a segment, inner rows first; those in their order. Error: as for
//! [`BackwardWeights`](super::BackwardWeights).

use core::ops::Range;

use super::{LONGEST, PARTS, Segments};
use crate::control_word::with_default;
use crate::exec::{Executor, Shared, cut, for_each_part_with};
use crate::interleave::interleave;
use crate::isa::{Entry, Isa, Kernel, Level};
use crate::layout::{BLOCK, Layout, Strides, blocks};
use crate::region::Axis;
use crate::registry::{by_level, edges};
use crate::shape::ConvShape;

/// Most floats of a copy: 4 MiB.
const MOST: usize = 1 << 20;

/// What a sum works on. Lengths and steps in floats.
#[derive(Clone, Copy)]
struct LaneSumArgs {
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
    /// Gradient at the first pixel, and from row to row.
    dy: *const f32,
    dy_row: usize,
    rows: usize,
    width: usize,
    /// Pixels of a row that have all taps: the first, and the end.
    inner: [usize; 2],
    /// Sums `[tap row][tap column][16]`, and from tap row to tap row.
    sums: *mut f32,
    sums_row: usize,
    /// Sums of the gradient itself.
    bias: *mut f32,
}

/// Sums for `KH` x `KW` taps.
struct LaneSums<const KH: usize, const KW: usize>;

impl<I: Isa, const KH: usize, const KW: usize> Kernel<I> for LaneSums<KH, KW> {
    type Args = LaneSumArgs;

    /// # Safety
    /// * `x` is readable for those taps of all pixels whose columns exist, `dy` for all pixels, each a block;
    /// * the columns of all taps of the `inner` pixels exist;
    /// * `sums`, for all taps, and `bias` are readable and writable for a block.
    #[inline(always)]
    unsafe fn run(s: I, a: &LaneSumArgs) {
        const { assert!(KH * KW + 2 < I::REGISTERS) };
        for part in (0..BLOCK).step_by(I::LANES) {
            let mut acc = [[s.zero(); KW]; KH];
            let mut bias = s.zero();
            for row in 0..a.rows {
                let mut x = a.x.wrapping_add(row * a.x_row + part);
                let mut dy = a.dy.wrapping_add(row * a.dy_row + part);
                let mut column = a.column;
                // Pixels at the border, inner ones, and those at the other border.
                for (border, pixels) in
                    [(true, a.inner[0]), (false, a.inner[1] - a.inner[0]), (true, a.width - a.inner[1])]
                {
                    for _ in 0..pixels {
                        // SAFETY: a pixel of the gradient, and those of its taps that exist.
                        unsafe {
                            let g = s.load(dy);
                            bias = s.add(bias, g);
                            for kx in 0..KW {
                                if border && column.wrapping_add(kx) >= a.columns {
                                    continue;
                                }
                                for ky in 0..KH {
                                    let tap = s.load(x.wrapping_add(ky * a.tap_row + kx * BLOCK));
                                    acc[ky][kx] = s.fma(tap, g, acc[ky][kx]);
                                }
                            }
                        }
                        (x, dy) = (x.wrapping_add(a.x_px), dy.wrapping_add(BLOCK));
                        column = column.wrapping_add(a.step);
                    }
                }
            }
            let store = |to: *mut f32, v: I::V| {
                // SAFETY: the caller vouches for a block.
                unsafe { s.store(to, s.add(s.load(to), v)) };
            };
            for ky in 0..KH {
                for kx in 0..KW {
                    store(a.sums.wrapping_add(ky * a.sums_row + kx * BLOCK + part), acc[ky][kx]);
                }
            }
            store(a.bias.wrapping_add(part), bias);
        }
    }
}

/// A kernel of this family: a row of [`lane_rows`].
#[derive(Clone, Copy, Debug)]
pub struct LaneRow {
    /// `dw_bwd_w_f32_3x3_avx512`: taps at once.
    pub name: &'static str,
    /// Level.
    pub level: Level,
    /// Rows and columns of taps at once.
    pub taps: [usize; 2],
    run: Entry<LaneSumArgs>,
}

edges!(edge);

macro_rules! lane_table {
    ($level:ident, $module:ident, $name:literal; $($kh:literal $kw:literal)*) => {
        &[$(LaneRow {
            name: concat!("dw_bwd_w_f32_", $kh, "x", $kw, "_", $name),
            level: Level::$level,
            taps: [$kh, $kw],
            run: edge::$module::run::<LaneSums<$kh, $kw>>,
        }),*]
    };
}

by_level! {
    /// The kernels of depthwise weight gradients at a level, those of more taps first; none for a level of another
    /// architecture.
    pub fn lane_rows() -> [LaneRow];

    Scalar: lane_table!(Scalar, scalar, "scalar"; 3 3 1 7 1 5 1 3 1 1),
    Avx2: lane_table!(Avx2, avx2, "avx2"; 3 3 1 7 1 5 1 3 1 1),
    Avx512: lane_table!(Avx512, avx512, "avx512"; 3 3 1 7 1 5 1 3 1 1),
    Neon: lane_table!(Neon, neon, "neon"; 3 3 1 7 1 5 1 3 1 1),
}

/// The weight gradient of a depthwise convolution, planned. Holds no tensor.
///
/// ```
/// use swath_kernels::{backward_weights::DepthwiseWeights, exec::Inline, isa::Level, layout::Layout, shape::ConvShape};
/// let shape = ConvShape::builder([1, 2, 1, 3], [2, 1, 1, 2]).groups(2).build()?;
/// let plan = DepthwiseWeights::new(&shape, Level::Scalar, Layout::Nchw, Layout::Blocked)?;
/// let (x, mut dy) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0; 32]);
/// (dy[0], dy[16], dy[1], dy[17]) = (1.0, 10.0, 1.0, 1.0); // two pixels of two channels
/// let (mut dw, mut scratch) = ([f32::NAN; 4], vec![0.0; plan.scratch_len(1)]);
/// plan.run(&x, &dy, &mut dw, None, &mut scratch, &Inline);
/// assert_eq!(dw, [21.0, 32.0, 9.0, 11.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DepthwiseWeights {
    shape: ConvShape,
    level: Level,
    input: Layout,
    y: Axis,
    x: Axis,
    /// The kernel of all rows of taps, or of one; and one of one row, of as many columns.
    row: &'static LaneRow,
    line: &'static LaneRow,
    segments: Segments,
    /// Segments are cut into so many slices.
    slices: usize,
    /// Whether `x` is read where it lies.
    ready: bool,
}

impl DepthwiseWeights {
    /// Plans, for `x` in layout `input` and `dy` in layout `gradient`, or says why the shape is not for this algorithm.
    ///
    /// # Errors
    /// A reason: more than one input channel a group, gradients that are not blocked, rows that the scratch does not
    /// hold.
    pub fn new(shape: &ConvShape, level: Level, input: Layout, gradient: Layout) -> Result<Self, &'static str> {
        shape.assert_consistent();
        let s = *shape;
        if !s.is_depthwise() {
            return Err("not one input channel a group");
        }
        if gradient != Layout::Blocked {
            return Err("reads blocked gradients");
        }
        let columns = |r: &LaneRow| r.taps[1] == 1 || s.dw == 1 && r.taps[1] == s.kw;
        let find = |rows| lane_rows(level).iter().find(|r| r.taps[0] == rows && columns(r));
        let line = find(1).ok_or("no kernels at this level")?;
        let row = find(s.kh).filter(|r| r.taps[1] == line.taps[1]).unwrap_or(line);
        let segments = Segments::new(&s, LONGEST);
        let slices = (2 * PARTS).div_ceil(blocks(s.oc)).min(segments.len());
        let ready = input == Layout::Blocked && s.ocg() == 1;
        let (y, x) = (Axis::y(&s), Axis::x(&s));
        let this = Self { shape: s, level, input, y, x, row, line, segments, slices, ready };
        if this.copy_len().is_none_or(|len| len > MOST) {
            return Err("the input of a few rows of outputs exceeds the scratch");
        }
        Ok(this)
    }

    /// The input rows that some output rows read.
    fn reach(&self, rows: &Range<usize>) -> Range<usize> {
        let s = &self.shape;
        let inside = |row: usize| row.saturating_sub(s.pad.top).min(s.ih);
        inside(rows.start * s.sh)..inside((rows.end.max(1) - 1) * s.sh + (s.kh - 1) * s.dh + 1)
    }

    /// Floats of the copy of a segment's input; None if that overflows.
    fn copy_len(&self) -> Option<usize> {
        if self.ready {
            return Some(0);
        }
        let s = &self.shape;
        let rows = (s.oh.div_ceil(self.segments.bands) - 1) * s.sh + (s.kh - 1) * s.dh + 1;
        rows.min(s.ih).checked_mul(s.iw)?.checked_mul(BLOCK)
    }

    fn taps(&self) -> usize {
        self.shape.kh * self.shape.kw
    }

    /// Floats of a block's sums: of each tap, and of the gradient.
    fn block_len(&self) -> usize {
        (self.taps() + 1) * BLOCK
    }

    /// Floats of all sums.
    fn sums_len(&self) -> usize {
        self.slices * blocks(self.shape.oc) * self.block_len()
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The instruction-set level whose kernels run.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Name of the kernel: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        self.row.name
    }

    /// Floats of scratch for a run on so many threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        self.sums_len().saturating_add(threads.max(1).saturating_mul(self.copy_len().unwrap_or(0)))
    }

    /// Computes `dw` `[oc, 1, kh, kw]` and, if asked for, `db` `[oc]`, on the executor's threads. `scratch` holds
    /// [`DepthwiseWeights::scratch_len`] floats for as many threads as are to take part, at least for one.
    ///
    /// # Panics
    /// If a slice's length is not what the shape and the layouts say, or the scratch is too short.
    pub fn run(
        &self,
        x: &[f32],
        dy: &[f32],
        dw: &mut [f32],
        db: Option<&mut [f32]>,
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) {
        let s = &self.shape;
        assert_eq!(x.len(), self.input.len(s.input()), "input length");
        assert_eq!(dy.len(), Layout::Blocked.len(s.output()), "gradient's length");
        assert_eq!(dw.len(), s.weights().iter().product::<usize>(), "length of the weights' gradient");
        assert!(db.as_ref().is_none_or(|db| db.len() == s.oc), "length of the bias's gradient");
        assert!(scratch.len() >= self.scratch_len(1), "scratch holds {}, not {}", scratch.len(), self.scratch_len(1));
        assert!(self.level.is_available());
        let (sums, copies) = scratch.split_at_mut(self.sums_len());
        let (of, len) = (blocks(s.oc), self.block_len());
        let copy_len = self.copy_len().unwrap_or(0);
        let shared = Shared::new(sums);
        for_each_part_with(executor, self.slices * of, copies, copy_len, |part, copy| {
            let (slice, ocb) = (part / of, part % of);
            // SAFETY: these sums lie in the scratch, and belong to this part alone.
            let sums = unsafe { core::slice::from_raw_parts_mut(shared.at(part * len), len) };
            sums.fill(0.0);
            for segment in cut(self.segments.len(), self.slices, slice) {
                let (images, rows) = self.segments.at(s, segment);
                images.for_each(|n| self.image(x, dy, ocb, n, &rows, copy, sums));
            }
        });
        with_default(|| self.add_slices(sums, dw, db));
    }

    /// Adds the slices' sums, and stores them in PyTorch's order.
    fn add_slices(&self, sums: &mut [f32], dw: &mut [f32], mut db: Option<&mut [f32]>) {
        let (len, taps) = (self.block_len(), self.taps());
        let (sum, others) = sums.split_at_mut(blocks(self.shape.oc) * len);
        for other in others.chunks_exact(sum.len()) {
            sum.iter_mut().zip(other).for_each(|(sum, v)| *sum += v);
        }
        for (i, (sum, dw)) in sum.chunks_exact(len).zip(dw.chunks_mut(BLOCK * taps)).enumerate() {
            interleave(taps, |tap| &sum[tap * BLOCK..][..BLOCK], dw);
            if let Some(db) = &mut db {
                let db = db[i * BLOCK..].iter_mut();
                db.zip(&sum[taps * BLOCK..]).for_each(|(db, v)| *db = *v);
            }
        }
    }

    /// Adds an image's part of a segment to the sums of a block.
    #[allow(clippy::too_many_arguments)] // a run's tensors and a place in them
    fn image(
        &self,
        x: &[f32],
        dy: &[f32],
        ocb: usize,
        n: usize,
        rows: &Range<usize>,
        copy: &mut [f32],
        sums: &mut [f32],
    ) {
        if rows.is_empty() {
            return;
        }
        let s = &self.shape;
        let (xs, ds) = (Layout::Blocked.strides(s.input()), Layout::Blocked.strides(s.output()));
        let (from, first) = if self.ready {
            (&x[n * xs.n + ocb * xs.block..][..s.ih * xs.row], 0)
        } else {
            let reach = self.reach(rows);
            let from = &mut copy[..reach.len() * xs.row];
            self.copy(x, ocb, n, reach.clone(), from);
            (&*from, reach.start)
        };
        let (taps, bias) = sums.split_at_mut(self.taps() * BLOCK);
        let part = Part { from, first, dy: &dy[n * ds.n + ocb * ds.block..][..s.oh * ds.row], taps, bias };
        self.rows(part, rows);
    }

    /// Adds some rows of outputs: those that have all rows of taps at once, then others tap row by tap row.
    fn rows(&self, mut part: Part<'_>, rows: &Range<usize>) {
        let s = &self.shape;
        let nothing = rows.start..rows.start;
        let within = |r: Range<usize>| {
            let r = r.start.max(rows.start)..r.end.min(rows.end);
            if r.is_empty() { nothing.clone() } else { r }
        };
        let all = if self.row.taps[0] == s.kh { within(self.y.interior()) } else { nothing.clone() };
        for kx in (0..s.kw).step_by(self.row.taps[1]).filter(|_| !all.is_empty()) {
            self.call(self.row, &mut part, all.clone(), Some([0, kx]), kx == 0);
        }
        // The row of taps that most pixels have counts the gradient itself.
        let valid = |ky: usize| within(self.y.outputs(ky));
        let counts = (0..s.kh).max_by_key(|&ky| valid(ky).len()).unwrap_or(0);
        for ky in 0..s.kh {
            let valid = valid(ky);
            for rows in [valid.start..valid.end.min(all.start), valid.start.max(all.end)..valid.end] {
                for kx in (0..s.kw).step_by(self.line.taps[1]).filter(|_| !rows.is_empty()) {
                    self.call(self.line, &mut part, rows.clone(), Some([ky, kx]), ky == counts && kx == 0);
                }
            }
        }
        let counted = valid(counts);
        for rows in [rows.start..counted.start, counted.end..rows.end].into_iter().filter(|r| !r.is_empty()) {
            self.call(self.line, &mut part, rows, None, true);
        }
    }

    /// Adds some rows of outputs to the sums of as many taps as the kernel has, from this one on, or of none; and to
    /// those of the bias, if they are to be counted. These rows have these rows of taps.
    fn call(&self, kernel: &LaneRow, part: &mut Part<'_>, rows: Range<usize>, tap: Option<[usize; 2]>, count: bool) {
        let s = &self.shape;
        let row = s.iw * BLOCK;
        let [ky, kx] = tap.unwrap_or([0, 0]);
        let top = (rows.start * s.sh + ky * s.dh).wrapping_sub(s.pad.top + part.first);
        let column = (kx * s.dw).wrapping_sub(s.pad.left);
        let last = [ky + kernel.taps[0] - 1, kx + kernel.taps[1] - 1];
        let columns = if tap.is_some() { s.iw } else { 0 };
        let start = self.x.outputs(kx).start.min(s.ow);
        let inner = if tap.is_some() { [start, self.x.outputs(last[1]).end.clamp(start, s.ow)] } else { [0, 0] };
        if tap.is_some() {
            let end = (rows.end - 1) * s.sh + last[0] * s.dh - s.pad.top - part.first;
            assert!((end + 1) * row <= part.from.len() && top <= end, "the input holds these rows of taps");
        }
        let dy = &part.dy[rows.start * s.ow * BLOCK..rows.end * s.ow * BLOCK];
        let mut none = [0.0; BLOCK];
        let args = LaneSumArgs {
            x: part.from.as_ptr().wrapping_add(top.wrapping_mul(row)).wrapping_add(column.wrapping_mul(BLOCK)),
            x_row: s.sh * row,
            x_px: s.sw * BLOCK,
            tap_row: s.dh * row,
            column,
            step: s.sw,
            columns,
            dy: dy.as_ptr(),
            dy_row: s.ow * BLOCK,
            rows: rows.len(),
            width: s.ow,
            inner,
            sums: part.taps[(ky * s.kw + kx) * BLOCK..].as_mut_ptr(),
            sums_row: s.kw * BLOCK,
            bias: if count { part.bias.as_mut_ptr() } else { none.as_mut_ptr() },
        };
        // SAFETY:
        // * the level is available (asserted in `run`), and `dy` holds these rows;
        // * the input holds these rows of taps (asserted), and the kernel reads those columns that exist;
        // * inner pixels are those whose first tap and whose last lie inside, so that all do;
        // * the sums hold a block of each of the kernel's taps, which are taps of the shape's, and `bias` is one.
        unsafe { (kernel.run)(&args) };
    }

    /// Copies some rows of an image to scratch, in blocks: for each lane its own channel.
    fn copy(&self, x: &[f32], ocb: usize, n: usize, rows: Range<usize>, copy: &mut [f32]) {
        let s = &self.shape;
        let xs = self.input.strides(s.input());
        let channels: [Option<usize>; BLOCK] = core::array::from_fn(|lane| {
            let o = ocb * BLOCK + lane;
            (o < s.oc).then(|| o / s.ocg())
        });
        let image = &x[n * xs.n..][..xs.n];
        for (row, to) in rows.zip(copy.chunks_exact_mut(s.iw * BLOCK)) {
            gather(image, &xs, row, &channels, to);
        }
    }
}

/// What is added to what: an image's part of a segment.
struct Part<'a> {
    /// Rows of the input, in blocks, and which is the first.
    from: &'a [f32],
    first: usize,
    /// The image's gradient.
    dy: &'a [f32],
    /// Sums of a block.
    taps: &'a mut [f32],
    bias: &'a mut [f32],
}

/// Copies the first pixels of a row, with these channels in their lanes.
fn gather(image: &[f32], xs: &Strides, row: usize, channels: &[Option<usize>; BLOCK], to: &mut [f32]) {
    let at = channels.map(|c| c.map(|c| c / BLOCK * xs.block + c % BLOCK * xs.channel + row * xs.row));
    for (px, to) in to.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        *to = at.map(|at| at.map_or(0.0, |at| image[at + px * xs.px]));
    }
}
