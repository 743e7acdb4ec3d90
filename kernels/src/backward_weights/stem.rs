//! Weight gradients of few input channels, as of a network's first layer.
//!
//! ```text
//! for each slice of the pixels:                  threads
//!   for each segment of the slice, image:        copy the rows of x that it reads, plane by plane, padding included
//!     for each block of dy, input channel, ky:   sums[slice][dy block][ic][ky][kx][16 oc] += register tile
//! then                                           dw = sum over slices, in PyTorch's order
//! ```
//!
//! A block of input channels would be mostly empty. So a tile's rows are the taps of a row, which are adjacent floats
//! of a channel's plane, and its lanes output channels: what remains in registers over a whole segment. The copy's
//! zeros make NaN of an infinite gradient at a border, in a tap that does not see it. Order of each sum and error: as
//! for [`BackwardWeights`](super::BackwardWeights).

use core::ops::Range;

use super::run::{ONE, Pixels, Sums, args};
use super::{PARTS, Segments};
use crate::exec::{Executor, Shared, cut, for_each_part_with};
use crate::isa::Level;
use crate::layout::{BLOCK, Layout, blocks};
use crate::shape::ConvShape;
use crate::tile::{self, Access, Row};

/// Most pixels of a segment, but for rows that are longer: a block of the gradient stays in L2 for all taps.
const SEGMENT: usize = 1024;

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
    /// The tiles, by their number of taps.
    tiles: [Option<&'static Row>; BLOCK + 1],
    segments: Segments,
    slices: usize,
}

impl StemWeights {
    /// Plans, for `x` in layout `input` and `dy` in layout `gradient`, or says why the shape is not for this algorithm.
    ///
    /// # Errors
    /// A reason: a block of input channels or more, groups, dilated rows of taps, gradients that are not blocked, rows
    /// that the scratch does not hold.
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
        if gradient != Layout::Blocked {
            return Err("reads blocked gradients");
        }
        let mut tiles = [None; BLOCK + 1];
        for row in tile::rows(level).iter().filter(|r| r.access == Access::PixelSum && r.cols == BLOCK) {
            tiles[row.mr] = Some(row);
        }
        let segments = Segments::new(&s, SEGMENT);
        let this = Self { shape: s, level, input, tiles, segments, slices: (2 * PARTS).min(segments.len()) };
        if this.copy_len().is_none_or(|len| len > MOST) {
            return Err("the input of a few rows of outputs exceeds the scratch");
        }
        Ok(this)
    }

    /// Input rows and columns, those of the padding included, that so many output rows read.
    fn extent(&self, rows: usize) -> [usize; 2] {
        let s = &self.shape;
        [(rows.max(1) - 1) * s.sh + (s.kh - 1) * s.dh + 1, (s.ow - 1) * s.sw + s.kw]
    }

    /// Floats of the copy of a segment's input; None if that overflows.
    fn copy_len(&self) -> Option<usize> {
        let [rows, columns] = self.extent(self.shape.oh.div_ceil(self.segments.bands));
        rows.checked_mul(columns)?.checked_mul(self.shape.ic)
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
        self.pieces().next().map_or("none", |(_, row)| row.name)
    }

    /// The taps of a row as tiles have them: first one, and the tile.
    fn pieces(&self) -> impl Iterator<Item = (usize, &'static Row)> + '_ {
        let mut at = 0;
        core::iter::from_fn(move || {
            let left = (self.shape.kw - at).min(BLOCK);
            let row = self.tiles[..=left].iter().rev().flatten().next().filter(|_| left > 0)?;
            let first = at;
            at += row.mr;
            Some((first, *row))
        })
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
        mut db: Option<&mut [f32]>,
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
        let shared = Shared::new(sums);
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
                }
            }
        });
        for (o, dw) in dw.chunks_exact_mut(self.terms()).enumerate() {
            let sum = |at: usize| {
                let of_slice = |i: usize| sums[i * len + o / BLOCK * self.block_len() + at * BLOCK + o % BLOCK];
                (0..self.slices).map(of_slice).reduce(|a, b| a + b).unwrap_or(0.0)
            };
            dw.iter_mut().enumerate().for_each(|(at, dw)| *dw = sum(at));
            if let Some(db) = &mut db {
                db[o] = sum(self.terms());
            }
        }
    }

    /// Adds an image's part of a segment to the sums.
    fn image(&self, copy: &[f32], dy: &[f32], pixels: &Pixels, sums: &mut [f32]) {
        let s = &self.shape;
        let [height, width] = self.extent(pixels.rows.len());
        assert!(s.ic * height * width <= copy.len(), "the copy holds all taps");
        let ds = Layout::Blocked.strides(s.output());
        for (ocb, sums) in sums.chunks_exact_mut(self.block_len()).enumerate() {
            let dy_at = pixels.images.start * ds.n + ocb * ds.block + pixels.rows.start * ds.row;
            let dy = (dy.as_ptr().wrapping_add(dy_at), [ds.n, ds.row, ds.px]);
            let start = sums.as_mut_ptr();
            let to = |at: usize| {
                let y = start.wrapping_add(at * BLOCK);
                Sums { y, row: BLOCK, block: 0, cols: BLOCK, add: true }
            };
            for (c, ky) in (0..s.ic).flat_map(|c| (0..s.kh).map(move |ky| (c, ky))) {
                for (kx, row) in self.pieces() {
                    let x = copy.as_ptr().wrapping_add((c * height + ky * s.dh) * width + kx);
                    let at = (c * s.kh + ky) * s.kw + kx;
                    let args = args(s.ow, pixels, (x, [0, s.sh * width, s.sw]), dy, (1, 0), to(at));
                    // SAFETY: the level is available (asserted in `run`); the copy holds all taps of all pixels, by the
                    // assertion above, of which these are some; the pixels lie in the gradient, whose length is
                    // asserted in `run`; the block's sums hold a line for each tap, and belong to this part alone.
                    unsafe { (row.run)(&args) };
                }
            }
            let args = args(s.ow, pixels, (&ONE, [0; 3]), dy, (1, 0), to(self.terms()));
            let one = self.tiles[1].expect("every level has tiles of one row");
            // SAFETY: as above; all steps of the one are zero.
            unsafe { (one.run)(&args) };
        }
    }

    /// Copies what some output rows of an image read to scratch, plane by plane, with zeros for the padding.
    fn copy(&self, x: &[f32], n: usize, rows: &Range<usize>, copy: &mut [f32]) {
        let s = &self.shape;
        let xs = self.input.strides(s.input());
        let [height, width] = self.extent(rows.len());
        let inside = s.pad.left.min(width)..(s.pad.left + s.iw).min(width);
        for (i, to) in copy.chunks_exact_mut(width).take(s.ic * height).enumerate() {
            let (c, r) = (i / height, i % height);
            let Some(iy) = (rows.start * s.sh + r).checked_sub(s.pad.top).filter(|&iy| iy < s.ih) else {
                to.fill(0.0);
                continue;
            };
            to[..inside.start].fill(0.0);
            to[inside.end..].fill(0.0);
            let from = &x[n * xs.n + c * xs.channel + iy * xs.row..];
            let to = &mut to[inside.clone()];
            if xs.px == 1 {
                to.copy_from_slice(&from[..to.len()]);
            } else {
                to.iter_mut().enumerate().for_each(|(px, to)| *to = from[px * xs.px]);
            }
        }
    }
}
