//! Depthwise convolution: sums over pixels, lane by lane.
//!
//! ```text
//! dw[o][ky][kx] = sum over (n, oy, ox)  dy[n][o][oy][ox]
//!                                       * x[n][o / multiplier][oy * sh + ky * dh - top][ox * sw + kx * dw - left]
//!
//! for each slice of the pixels, block of channels:    threads
//!   for each segment of the slice, image:             copy the rows of x that it reads, padding included
//!     for each row, pixel:                            load dy; for each tap: sums[tap] += x * dy, in registers
//! then for each block:                                dw = sum over slices
//! ```
//!
//! With the padding in the copy, no pixel lacks a tap: a kernel is two loops. All nine taps of a 3x3 kernel are summed
//! at once, 3, 5 and 7 adjacent taps of a row likewise, others one by one. The copy's zeros make NaN of an infinite
//! gradient at a border, in a tap that does not see it. Order of each sum: `(oy, ox)` within an image's part of a
//! segment; those in their order. Error: as for [`BackwardWeights`](super::BackwardWeights).

use core::ops::Range;

use super::{LONGEST, PARTS, Segments};
use crate::control_word::with_default;
use crate::exec::{Executor, Shared, cut, for_each_part_with};
use crate::isa::{Entry, Isa, Kernel, Level};
use crate::layout::{BLOCK, Layout, Strides, blocks};
use crate::registry::{by_level, edges};
use crate::shape::ConvShape;

/// Most floats of a copy: 4 MiB.
const MOST: usize = 1 << 20;

/// What a sum works on. Lengths and steps in floats.
#[derive(Clone, Copy)]
struct LaneSumArgs {
    /// Input of the first pixel's first tap.
    x: *const f32,
    /// From row to row and pixel to pixel of the outputs, and from row to row of the taps. The taps of a row are
    /// adjacent.
    x_row: usize,
    x_px: usize,
    tap_row: usize,
    /// Gradient at the first pixel, and from row to row.
    dy: *const f32,
    dy_row: usize,
    rows: usize,
    width: usize,
    /// Sums `[tap row][tap column][16]`, and from tap row to tap row.
    sums: *mut f32,
    sums_row: usize,
    /// Sums of the gradient itself; null for none.
    bias: *mut f32,
    /// Whether to add to what is there.
    add: bool,
}

/// Sums for `KH` x `KW` taps.
struct LaneSums<const KH: usize, const KW: usize>;

impl<I: Isa, const KH: usize, const KW: usize> Kernel<I> for LaneSums<KH, KW> {
    type Args = LaneSumArgs;

    /// # Safety
    /// * `x` is readable for all taps of all pixels, `dy` for all pixels, each a block;
    /// * `sums`, for all taps, and `bias` if it is not null are readable and writable for a block.
    #[inline(always)]
    unsafe fn run(s: I, a: &LaneSumArgs) {
        const { assert!(KH * KW + 2 < I::REGISTERS) };
        for part in (0..BLOCK).step_by(I::LANES) {
            let mut acc = [[s.zero(); KW]; KH];
            let mut bias = s.zero();
            for row in 0..a.rows {
                let mut x = a.x.wrapping_add(row * a.x_row + part);
                let mut dy = a.dy.wrapping_add(row * a.dy_row + part);
                for _ in 0..a.width {
                    // SAFETY: a pixel of the gradient, and its taps.
                    unsafe {
                        let g = s.load(dy);
                        bias = s.add(bias, g);
                        for ky in 0..KH {
                            for kx in 0..KW {
                                let tap = s.load(x.add(ky * a.tap_row + kx * BLOCK));
                                acc[ky][kx] = s.fma(tap, g, acc[ky][kx]);
                            }
                        }
                    }
                    (x, dy) = (x.wrapping_add(a.x_px), dy.wrapping_add(BLOCK));
                }
            }
            let store = |to: *mut f32, v: I::V| {
                // SAFETY: the caller vouches for a block.
                unsafe { s.store(to, if a.add { s.add(s.load(to), v) } else { v }) };
            };
            for ky in 0..KH {
                for kx in 0..KW {
                    store(a.sums.wrapping_add(ky * a.sums_row + kx * BLOCK + part), acc[ky][kx]);
                }
            }
            if !a.bias.is_null() {
                store(a.bias.wrapping_add(part), bias);
            }
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
    row: &'static LaneRow,
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
        let row_fits = |r: &&LaneRow| s.dw == 1 && s.kw == r.taps[1] && s.kh.is_multiple_of(r.taps[0]);
        let fits = |r: &&LaneRow| row_fits(r) || r.taps == [1, 1];
        let row = lane_rows(level).iter().find(fits).ok_or("no kernels at this level")?;
        let segments = Segments::new(&s, LONGEST);
        let slices = (2 * PARTS).div_ceil(blocks(s.oc)).min(segments.len());
        let padded = (s.pad.top, s.pad.left, s.pad.bottom, s.pad.right) != (0, 0, 0, 0);
        let ready = !padded && input == Layout::Blocked && s.ocg() == 1;
        let this = Self { shape: s, level, input, row, segments, slices, ready };
        if this.copy_len().is_none_or(|len| len > MOST) {
            return Err("the input of a few rows of outputs exceeds the scratch");
        }
        Ok(this)
    }

    /// Input rows and columns, those of the padding included, that so many output rows read.
    fn extent(&self, rows: usize) -> [usize; 2] {
        let s = &self.shape;
        let reach =
            |outputs: usize, stride, kernel: usize, dilation| (outputs - 1) * stride + (kernel - 1) * dilation + 1;
        [reach(rows.max(1), s.sh, s.kh, s.dh), reach(s.ow, s.sw, s.kw, s.dw)]
    }

    /// Floats of the copy of a segment's input; None if that overflows.
    fn copy_len(&self) -> Option<usize> {
        if self.ready {
            return Some(0);
        }
        let [rows, columns] = self.extent(self.shape.oh.div_ceil(self.segments.bands));
        rows.checked_mul(columns)?.checked_mul(BLOCK)
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

    /// The sums of all slices.
    fn add_slices(&self, sums: &[f32], dw: &mut [f32], mut db: Option<&mut [f32]>) {
        let (of, len) = (blocks(self.shape.oc), self.block_len());
        for (o, dw) in dw.chunks_exact_mut(self.taps()).enumerate() {
            let sum = |at: usize| {
                let of_slice = |slice: usize| sums[(slice * of + o / BLOCK) * len + at * BLOCK + o % BLOCK];
                (0..self.slices).map(of_slice).reduce(|a, b| a + b).unwrap_or(0.0)
            };
            dw.iter_mut().enumerate().for_each(|(tap, dw)| *dw = sum(tap));
            if let Some(db) = &mut db {
                db[o] = sum(self.taps());
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
        let xs = Layout::Blocked.strides(s.input());
        let (from, row) = if self.ready {
            (&x[n * xs.n + ocb * xs.block + rows.start * s.sh * xs.row..], xs.row)
        } else {
            self.copy(x, ocb, n, rows, copy);
            (&*copy, self.extent(1)[1] * BLOCK)
        };
        let [last_row, last_column] = self.extent(rows.len()).map(|v| v - 1);
        assert!(last_row * row + (last_column + 1) * BLOCK <= from.len(), "the input holds all taps");
        let ds = Layout::Blocked.strides(s.output());
        let dy = &dy[n * ds.n + ocb * ds.block + rows.start * ds.row..][..rows.len() * ds.row];
        let (taps, bias) = sums.split_at_mut(self.taps() * BLOCK);
        let [kh, kw] = self.row.taps;
        for (ky, kx) in (0..s.kh).step_by(kh).flat_map(|ky| (0..s.kw).step_by(kw).map(move |kx| (ky, kx))) {
            let args = LaneSumArgs {
                x: from.as_ptr().wrapping_add(ky * s.dh * row + kx * s.dw * BLOCK),
                x_row: s.sh * row,
                x_px: s.sw * BLOCK,
                tap_row: s.dh * row,
                dy: dy.as_ptr(),
                dy_row: ds.row,
                rows: rows.len(),
                width: s.ow,
                sums: taps.as_mut_ptr().wrapping_add((ky * s.kw + kx) * BLOCK),
                sums_row: s.kw * BLOCK,
                bias: if (ky, kx) == (0, 0) { bias.as_mut_ptr() } else { core::ptr::null_mut() },
                add: true,
            };
            // SAFETY: the level is available (asserted in `run`); the input holds all taps of all pixels, by the
            // assertion above, of which these are some; the gradient's slice is that of the pixels; the sums hold a
            // block of each tap.
            unsafe { (self.row.run)(&args) };
        }
    }

    /// Copies what some output rows of an image read to scratch, with zeros for the padding: for each lane its own
    /// channel.
    fn copy(&self, x: &[f32], ocb: usize, n: usize, rows: &Range<usize>, copy: &mut [f32]) {
        let s = &self.shape;
        let xs = self.input.strides(s.input());
        let [height, width] = self.extent(rows.len());
        let channels: [Option<usize>; BLOCK] = core::array::from_fn(|lane| {
            let o = ocb * BLOCK + lane;
            (o < s.oc).then(|| o / s.ocg())
        });
        let plain = self.input == Layout::Blocked && s.ocg() == 1;
        let image = &x[n * xs.n..][..xs.n];
        let inside = s.pad.left.min(width)..(s.pad.left + s.iw).min(width);
        for (r, to) in copy.chunks_exact_mut(width * BLOCK).take(height).enumerate() {
            let Some(iy) = (rows.start * s.sh + r).checked_sub(s.pad.top).filter(|&iy| iy < s.ih) else {
                to.fill(0.0);
                continue;
            };
            to[..inside.start * BLOCK].fill(0.0);
            to[inside.end * BLOCK..].fill(0.0);
            let to = &mut to[inside.start * BLOCK..inside.end * BLOCK];
            if plain {
                to.copy_from_slice(&image[ocb * xs.block + iy * xs.row..][..to.len()]);
            } else {
                gather(image, &xs, iy, &channels, to);
            }
        }
    }
}

/// Copies the first pixels of a row, with these channels in their lanes.
fn gather(image: &[f32], xs: &Strides, row: usize, channels: &[Option<usize>; BLOCK], to: &mut [f32]) {
    let at = channels.map(|c| c.map(|c| c / BLOCK * xs.block + c % BLOCK * xs.channel + row * xs.row));
    for (px, to) in to.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        *to = at.map(|at| at.map_or(0.0, |at| image[at + px * xs.px]));
    }
}
