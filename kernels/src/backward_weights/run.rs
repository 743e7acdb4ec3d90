//! One run: from parts down to tiles, and from sums to weights.

use core::ops::Range;
use core::ptr;

use super::{BackwardWeights, cut};
use crate::exec::{Executor, Shared, for_each_part_with};
use crate::layout::{BLOCK, Layout, Strides};
use crate::tile::{Edge, Finish, Loop, Output, Row, Soon, Sweep, TileArgs, pieces};

/// What the bias's gradient multiplies.
static ONE: f32 = 1.0;

/// The plan and its tensors, `x` and `dy` in blocks.
pub(super) struct Run<'a> {
    pub d: &'a BackwardWeights,
    pub x: &'a [f32],
    pub dy: &'a [f32],
    pub dw: Shared<'a>,
    pub db: Option<Shared<'a>>,
}

/// The output pixels of a tap in a segment.
struct Pixels {
    images: Range<usize>,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Run<'_> {
    /// One segment: a pair's sums are written to the weights as soon as they are complete.
    pub fn at_once(&self, sums: &mut [f32], executor: &dyn Executor) {
        let d = self.d;
        for_each_part_with(executor, d.pairs(), sums, d.pair_len(), |i, sums| {
            if let Some(pair) = d.pair(i) {
                self.sum(pair, 0, false, Shared::new(sums));
                self.store(pair, [&*sums].into_iter());
            }
        });
    }

    /// Several segments: all sums of a slice go on from one to the next.
    pub fn in_segments(&self, sums: &mut [f32], executor: &dyn Executor) {
        let d = self.d;
        let (pairs, len) = (d.pairs(), d.pair_len());
        // A few parts for each thread, unless there are as many slices.
        let threads = executor.threads();
        let chunks = if threads == 1 { 1 } else { (4 * threads).div_ceil(d.slices).min(pairs) };
        let shared = Shared::new(sums);
        for_each_part_with(executor, d.slices * chunks, &mut [], 0, |part, _| {
            let (slice, chunk) = (part / chunks, part % chunks);
            let segments = cut(d.segments.len(), d.slices, slice);
            for segment in segments.clone() {
                for i in cut(pairs, chunks, chunk) {
                    let Some(pair) = d.pair(i) else { continue };
                    // SAFETY: pair `i` of this slice lies in the scratch, and belongs to this part alone.
                    let sums = unsafe { core::slice::from_raw_parts_mut(shared.at((slice * pairs + i) * len), len) };
                    self.sum(pair, segment, segment > segments.start, Shared::new(sums));
                }
            }
        });
        let sums = &*sums;
        for_each_part_with(executor, pairs, &mut [], 0, |i, _| {
            if let Some(pair) = d.pair(i) {
                self.store(pair, (0..d.slices).map(|slice| &sums[(slice * pairs + i) * len..][..len]));
            }
        });
    }

    /// The sums of a pair over a segment; added to what is there, or in place of it.
    fn sum(&self, (ocb, icb): (usize, usize), segment: usize, add: bool, sums: Shared<'_>) {
        let d = self.d;
        let s = &d.shape;
        let (images, rows) = d.segments.at(s, segment);
        for ky in 0..s.kh {
            let valid = d.y.outputs(ky);
            let rows = valid.start.max(rows.start)..valid.end.min(rows.end);
            for kx in 0..s.kw {
                let pixels = Pixels { images: images.clone(), rows: rows.clone(), columns: d.x.outputs(kx) };
                let tap = Tap { ocb, icb, ky, kx };
                for (c, mr) in pieces(BLOCK, d.most()) {
                    let to = ((ky * s.kw + kx) * BLOCK + c) * BLOCK;
                    self.tile(d.tile(mr), &tap, c, &pixels, (sums.at(to), add));
                }
            }
        }
        if self.db.is_some() && d.inputs(ocb).start == icb {
            let pixels = Pixels { images, rows, columns: 0..s.ow };
            self.bias(ocb, &pixels, (sums.at(d.taps() * BLOCK * BLOCK), add));
        }
    }

    /// A tile's sums over the pixels of a tap, from input channel `c` of the block on.
    fn tile(&self, row: &Row, tap: &Tap, c: usize, pixels: &Pixels, to: (*mut f32, bool)) {
        let d = self.d;
        let s = &d.shape;
        let (xs, ds) = self.strides();
        // The first pixel that the tap reads, if there is one.
        let (iy, ix) = (
            (pixels.rows.start * s.sh + tap.ky * s.dh).wrapping_sub(s.pad.top),
            (pixels.columns.start * s.sw + tap.kx * s.dw).wrapping_sub(s.pad.left),
        );
        let x_at = (pixels.images.start * xs.n + tap.icb * xs.block)
            .wrapping_add(iy.wrapping_mul(xs.row))
            .wrapping_add(ix.wrapping_mul(xs.px))
            .wrapping_add(c);
        let x = self.x.as_ptr().wrapping_add(x_at);
        let args = self.args(pixels, x, [xs.n, s.sh * xs.row, s.sw * xs.px], (tap.ocb, &ds), to);
        // SAFETY:
        // * the level is available, and tensors have the lengths of their layouts (asserted in `run`);
        // * the pixels are those outputs for which the tap lies inside the input, in each axis; blocks are below the
        //   tensors', and have all of their channels;
        // * the sums hold the tile's rows of a block, by their position in the pair's.
        unsafe { (row.run)(&args) };
    }

    /// The sums of `dy` itself: a tile of one row, whose input is one everywhere.
    fn bias(&self, ocb: usize, pixels: &Pixels, to: (*mut f32, bool)) {
        let (_, ds) = self.strides();
        let args = self.args(pixels, &ONE, [0; 3], (ocb, &ds), to);
        // SAFETY: as in `tile`; all steps of the input are zero.
        unsafe { (self.d.tile(1).run)(&args) };
    }

    /// The strides of `x` and `dy`.
    fn strides(&self) -> (Strides, Strides) {
        let s = &self.d.shape;
        (Layout::Blocked.strides(s.input()), Layout::Blocked.strides(s.output()))
    }

    /// A tile's arguments, where the input moves by `step` floats from image to image, output row to output row, and pixel to pixel.
    fn args(
        &self,
        pixels: &Pixels,
        x: *const f32,
        [image, row, px]: [usize; 3],
        (ocb, ds): (usize, &Strides),
        (y, add): (*mut f32, bool),
    ) -> TileArgs {
        let ow = self.d.shape.ow;
        let Pixels { images, rows, columns } = pixels;
        let none = images.is_empty() || rows.is_empty() || columns.is_empty();
        let dy_at = images.start * ds.n + ocb * ds.block + rows.start * ds.row + columns.start * ds.px;
        // Whole rows that follow each other without a gap are one.
        let adjacent = columns.len() == ow && row == ow * px;
        let (lines, depth) = if adjacent { (1, rows.len() * ow) } else { (rows.len(), columns.len()) };
        let loops = [
            Loop { n: if none { 0 } else { images.len() }, x: image, w: ds.n },
            Loop { n: lines, x: row, w: ds.row },
            Loop::ONCE,
        ];
        let added = Finish {
            bias: ptr::null(),
            residual: y,
            lo: f32::NEG_INFINITY,
            hi: f32::INFINITY,
            act: None,
            act_params: [0.0; 2],
        };
        TileArgs {
            x,
            w: self.dy.as_ptr().wrapping_add(dy_at),
            loops,
            depth,
            head: 0,
            tail: depth,
            px,
            ahead: 0,
            w_block: 0,
            accumulate: false,
            fetch_output: true,
            edge: Edge::NONE,
            out: Output {
                y,
                px: BLOCK,
                block: 0,
                channel: 1,
                cols: BLOCK,
                pad_cols: true,
                finish: add.then_some(added),
            },
            sweep: Sweep::ONE,
            soon: Soon::NONE,
        }
    }

    /// Adds up a pair's sums of all slices, and stores those of its channels that exist and lie in one group.
    fn store<'s>(&self, (ocb, icb): (usize, usize), slices: impl Iterator<Item = &'s [f32]> + Clone) {
        let d = self.d;
        let s = &d.shape;
        let (taps, icg, ocg) = (d.taps(), s.icg(), s.ocg());
        for o in ocb * BLOCK..((ocb + 1) * BLOCK).min(s.oc) {
            let first = o / ocg * icg;
            for ic in first.max(icb * BLOCK)..(first + icg).min((icb + 1) * BLOCK) {
                let at = (o * icg + ic - first) * taps;
                for tap in 0..taps {
                    let from = (tap * BLOCK + ic % BLOCK) * BLOCK + o % BLOCK;
                    let sum = slices.clone().map(|sums| sums[from]).reduce(|a, b| a + b).unwrap_or(0.0);
                    // SAFETY: the weight lies in `dw`, whose length is asserted; no other pair has it.
                    unsafe { self.dw.at(at + tap).write(sum) };
                }
            }
            if let Some(db) = self.db.filter(|_| d.inputs(ocb).start == icb) {
                let from = taps * BLOCK * BLOCK + o % BLOCK;
                let sum = slices.clone().map(|sums| sums[from]).reduce(|a, b| a + b).unwrap_or(0.0);
                // SAFETY: the channel exists, and only the first pair of its block stores it.
                unsafe { db.at(o).write(sum) };
            }
        }
    }
}

/// A tap of a pair of blocks.
struct Tap {
    ocb: usize,
    icb: usize,
    ky: usize,
    kx: usize,
}

impl BackwardWeights {
    /// Input channels of the largest tile.
    fn most(&self) -> usize {
        self.tiles.iter().rposition(Option::is_some).expect("every level has these tiles")
    }

    fn tile(&self, mr: usize) -> &'static Row {
        self.tiles[mr].expect("the pieces of a block have tiles")
    }
}
