//! Weight gradients of few input channels, as of a network's first layer.
//!
//! ```text
//! for each slice of the pixels:                  threads
//!   for each segment of the slice, image:        copy what it reads of x to rows[oy][ix][ic][ky], padding included
//!     for each block of dy, tile of taps:        sums[slice][dy block][kx][ic][ky][16 oc] += register tile
//! then                                           dw = sum over slices, in PyTorch's order
//! ```
//!
//! A block of input channels would be mostly empty. So a tile's rows are taps, and its lanes output channels: what
//! remains in registers over a whole segment. In the copy all taps of a pixel are adjacent floats, in the order
//! `[kx][ic][ky]`, for neighbours in x share theirs: it is `kh / sh` times as large as what it copies. A tile of four
//! taps or more hides the latency of its multiply-adds, one of fewer does not, so that the three taps of a row alone
//! would reach three quarters of the peak. The copy's zeros make NaN of an infinite gradient at a border, in a tap that
//! does not see it. Order of each sum and error: as for [`BackwardWeights`](super::BackwardWeights).

use core::ops::Range;

use super::run::{Pixels, Sums, args};
use super::{PARTS, Segments};
use crate::control_word::with_default;
use crate::exec::{Executor, Shared, cut, for_each_part_with};
use crate::interleave::interleave;
use crate::isa::Level;
use crate::layout::{BLOCK, Layout, blocks};
use crate::shape::ConvShape;
use crate::tile::{self, Access, Row};

/// Most pixels of a segment, but for rows that are longer: a block of the gradient stays in L2 for all taps.
const SEGMENT: usize = 1024;

/// Most taps of all input channels: 256 KiB of sums of a block.
const TAPS: usize = 4096;

/// A row of padding, as far as columns are copied at once.
static ZEROS: [f32; 64] = [0.0; 64];

/// Fewest taps of a tile whose multiply-adds wait for nothing but each other's units: their latency in cycles.
const LATENCY: usize = 4;

/// Most floats of a copy: 2 MiB.
const MOST: usize = 1 << 19;

/// The weight gradient for few input channels, planned. Holds no tensor.
///
/// ```
/// use swath_kernels::{backward_weights::StemWeights, exec::Inline, isa::Level, layout::Layout, shape::ConvShape};
/// let shape = ConvShape::builder([1, 1, 3, 3], [1, 1, 2, 2]).build()?;
/// let plan = StemWeights::new(&shape, Level::Scalar, Layout::Nchw, Layout::Blocked)?;
/// let (x, mut dy) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], [0.0; 64]);
/// (dy[0], dy[48]) = (1.0, 10.0); // the first and the last pixel
/// let (mut dw, mut scratch) = ([f32::NAN; 4], vec![0.0; plan.scratch_len(1)]);
/// plan.run(&x, &dy, &mut dw, None, &mut scratch, &Inline);
/// assert_eq!(dw, [51.0, 62.0, 84.0, 95.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct StemWeights {
    shape: ConvShape,
    level: Level,
    input: Layout,
    /// The tiles that take all taps together, in turn.
    tiles: Vec<&'static Row>,
    segments: Segments,
    slices: usize,
}

impl StemWeights {
    /// Plans, for `x` in layout `input` and `dy` in layout `gradient`, or says why the shape is not for this algorithm.
    ///
    /// # Errors
    /// A reason: a block of input channels or more, groups, dilated rows of taps, thousands of taps, gradients that are
    /// not blocked, rows that the scratch does not hold.
    pub fn new(shape: &ConvShape, level: Level, input: Layout, gradient: Layout) -> Result<Self, &'static str> {
        shape.assert_consistent();
        let s = *shape;
        if s.ic >= BLOCK {
            return Err("16 input channels or more");
        }
        if s.groups != 1 {
            return Err("there are groups");
        }
        if s.dw != 1 {
            return Err("the rows of taps are dilated");
        }
        if s.terms() > TAPS {
            return Err("the sums of so many taps exceed the level-2 cache");
        }
        if gradient != Layout::Blocked {
            return Err("reads blocked gradients");
        }
        let sums = |r: &&Row| r.access == Access::PixelSum && r.cols == BLOCK;
        let sizes: Vec<_> = tile::rows(level).iter().filter(sums).collect();
        if sizes.is_empty() {
            return Err("no kernels at this level");
        }
        let segments = Segments::new(&s, SEGMENT);
        let slices = (2 * PARTS).min(segments.len());
        let this = Self { shape: s, level, input, tiles: cover(s.terms(), &sizes), segments, slices };
        if this.copy_len().is_none_or(|len| len > MOST) {
            return Err("the input of a few rows of outputs exceeds the scratch");
        }
        Ok(this)
    }

    /// Input columns, those of the padding included, that a row of outputs reads.
    fn width(&self) -> usize {
        (self.shape.ow - 1) * self.shape.sw + self.shape.kw
    }

    /// Floats of the copy for each column: taps that share it.
    fn depth(&self) -> usize {
        self.shape.ic * self.shape.kh
    }

    /// Floats of the copy of a segment's input; None if that overflows.
    fn copy_len(&self) -> Option<usize> {
        let rows = self.shape.oh.div_ceil(self.segments.bands);
        rows.checked_mul(self.width())?.checked_mul(self.depth())
    }

    /// Taps of all input channels.
    fn terms(&self) -> usize {
        self.shape.terms()
    }

    /// Floats of a block's sums: of each tap, and of the gradient.
    fn block_len(&self) -> usize {
        (self.terms() + 1) * BLOCK
    }

    fn slice_len(&self) -> usize {
        blocks(self.shape.oc) * self.block_len()
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The instruction-set level whose tiles run.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Name of the tile that does most of the work: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        self.tiles.first().map_or("none", |row| row.name)
    }

    /// Floats of scratch for a run on so many threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        self.slices * self.slice_len() + threads.max(1) * self.copy_len().unwrap_or(0)
    }

    /// Computes `dw` `[oc, ic, kh, kw]` and, if asked for, `db` `[oc]`, on the executor's threads. `scratch` holds
    /// [`StemWeights::scratch_len`] floats for as many threads as are to take part, at least for one.
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
        let (sums, copies) = scratch.split_at_mut(self.slices * self.slice_len());
        let (len, copy_len) = (self.slice_len(), self.copy_len().unwrap_or(0));
        let (shared, biased) = (Shared::new(sums), db.is_some());
        for_each_part_with(executor, self.slices, copies, copy_len, |slice, copy| {
            // SAFETY: the slice's sums lie in the scratch, and belong to this part alone.
            let sums = unsafe { core::slice::from_raw_parts_mut(shared.at(slice * len), len) };
            sums.fill(0.0);
            for segment in cut(self.segments.len(), self.slices, slice) {
                let (images, rows) = self.segments.at(s, segment);
                for n in images.filter(|_| !rows.is_empty()) {
                    self.copy(x, n, &rows, copy);
                    let pixels = Pixels { images: n..n + 1, rows: rows.clone(), columns: 0..s.ow };
                    self.image(copy, dy, &pixels, sums);
                    if biased {
                        self.bias(dy, &pixels, sums);
                    }
                }
            }
        });
        with_default(|| self.finish(sums, dw, db));
    }

    /// Adds the slices' sums, and stores them in PyTorch's order.
    fn finish(&self, sums: &mut [f32], dw: &mut [f32], mut db: Option<&mut [f32]>) {
        let s = &self.shape;
        let (sum, others) = sums.split_at_mut(self.slice_len());
        for other in others.chunks_exact(self.slice_len()) {
            sum.iter_mut().zip(other).for_each(|(sum, v)| *sum += v);
        }
        for (o, dw) in dw.chunks_exact_mut(self.terms()).enumerate() {
            let sums = &sum[o / BLOCK * self.block_len() + o % BLOCK..];
            for (i, row) in dw.chunks_exact_mut(s.kw).enumerate() {
                row.iter_mut().enumerate().for_each(|(kx, dw)| *dw = sums[(kx * self.depth() + i) * BLOCK]);
            }
            if let Some(db) = &mut db {
                db[o] = sums[self.terms() * BLOCK];
            }
        }
    }

    /// Adds an image's part of a segment to the sums.
    fn image(&self, copy: &[f32], dy: &[f32], pixels: &Pixels, sums: &mut [f32]) {
        let s = &self.shape;
        let (depth, row) = (self.depth(), self.width() * self.depth());
        assert!(pixels.rows.len() * row <= copy.len(), "the copy holds all taps");
        let ds = Layout::Blocked.strides(s.output());
        for (ocb, sums) in sums.chunks_exact_mut(self.block_len()).enumerate() {
            let dy_at = pixels.images.start * ds.n + ocb * ds.block + pixels.rows.start * ds.row;
            let dy = (dy.as_ptr().wrapping_add(dy_at), [ds.n, ds.row, ds.px]);
            let start = sums.as_mut_ptr();
            let to = |at: usize| {
                let y = start.wrapping_add(at * BLOCK);
                Sums { y, row: BLOCK, block: 0, cols: BLOCK, add: true }
            };
            let mut tap = 0;
            for tile in &self.tiles {
                let x = copy.as_ptr().wrapping_add(tap);
                let args = args(s.ow, pixels, (x, [0, row, s.sw * depth]), dy, (1, 0), to(tap));
                // SAFETY: the level is available (asserted in `run`); the copy holds all taps of all pixels, by the
                // assertion above, of which these are some; the pixels lie in the gradient, whose length is asserted in
                // `run`; the block's sums hold a line for each tap, and belong to this part alone.
                unsafe { (tile.run)(&args) };
                tap += tile.mr;
            }
        }
    }

    /// Adds the gradient itself, of an image's part of a segment, to the sums of the bias.
    fn bias(&self, dy: &[f32], pixels: &Pixels, sums: &mut [f32]) {
        let ds = Layout::Blocked.strides(self.shape.output());
        for (ocb, sums) in sums.chunks_exact_mut(self.block_len()).enumerate() {
            let at = pixels.images.start * ds.n + ocb * ds.block + pixels.rows.start * ds.row;
            let (pairs, last) = dy[at..at + pixels.rows.len() * ds.row].as_chunks::<{ 2 * BLOCK }>();
            // Two sums, which do not wait for each other.
            let mut sum = [0.0; 2 * BLOCK];
            pairs.iter().for_each(|px| sum.iter_mut().zip(px).for_each(|(sum, v)| *sum += v));
            sum.iter_mut().zip(last).for_each(|(sum, v)| *sum += v);
            for (lane, to) in sums[self.terms() * BLOCK..].iter_mut().enumerate() {
                *to += sum[lane] + sum[lane + BLOCK];
            }
        }
    }

    /// Copies what some output rows of an image read to scratch, taps of a column together, with zeros for the padding.
    fn copy(&self, x: &[f32], n: usize, rows: &Range<usize>, copy: &mut [f32]) {
        let s = &self.shape;
        let xs = self.input.strides(s.input());
        let (width, depth) = (self.width(), self.depth());
        let inside = s.pad.left.min(width)..(s.pad.left + s.iw).min(width);
        for (to, oy) in copy.chunks_exact_mut(width * depth).zip(rows.clone()) {
            to[..inside.start * depth].fill(0.0);
            to[inside.end * depth..].fill(0.0);
            let row = |tap: usize| {
                let iy = (oy * s.sh + tap % s.kh * s.dh).checked_sub(s.pad.top).filter(|&iy| iy < s.ih)?;
                Some(&x[n * xs.n + tap / s.kh * xs.channel + iy * xs.row..])
            };
            let to = &mut to[inside.start * depth..inside.end * depth];
            if xs.px == 1 {
                for (columns, to) in to.chunks_mut(ZEROS.len() * depth).enumerate() {
                    let (at, len) = (columns * ZEROS.len(), to.len() / depth);
                    interleave(depth, |tap| row(tap).map_or(&ZEROS[..len], |row| &row[at..at + len]), to);
                }
            } else {
                for (column, to) in to.chunks_exact_mut(depth).enumerate() {
                    let at = |tap: usize| row(tap).map_or(0.0, |row| row[column * xs.px]);
                    to.iter_mut().enumerate().for_each(|(tap, to)| *to = at(tap));
                }
            }
        }
    }
}

/// Tiles that take so many taps together, of the sizes that there are, the largest first: those that take the fewest
/// cycles.
fn cover(taps: usize, sizes: &[&'static Row]) -> Vec<&'static Row> {
    let cycles = |row: &Row| row.mr.max(LATENCY);
    // The best last tile for each number of taps, and the cycles of all.
    let mut best: Vec<(usize, Option<&'static Row>)> = vec![(0, None)];
    for n in 1..=taps {
        let fits = sizes.iter().filter(|row| row.mr <= n).map(|&row| (best[n - row.mr].0 + cycles(row), Some(row)));
        best.push(fits.min_by_key(|&(cycles, row)| (cycles, row.map(|row| usize::MAX - row.mr))).unwrap_or((0, None)));
    }
    let mut left = taps;
    let mut tiles: Vec<_> = core::iter::from_fn(|| {
        let row = best[left].1?;
        left -= row.mr;
        Some(row)
    })
    .collect();
    tiles.sort_by_key(|row| usize::MAX - row.mr);
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_all_taps() {
        for &level in Level::ALL {
            let sums = |r: &&Row| r.access == Access::PixelSum && r.cols == BLOCK;
            let sizes: Vec<_> = tile::rows(level).iter().filter(sums).collect();
            for taps in 1..200 {
                let covered: usize = cover(taps, &sizes).iter().map(|row| row.mr).sum();
                assert_eq!(covered, if sizes.is_empty() { 0 } else { taps }, "{level}");
            }
        }
    }
}
