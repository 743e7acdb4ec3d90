//! One run of a Winograd convolution: from chunks of tiles down to its three kernels.

use core::ops::Range;

use super::{InputArgs, OutputArgs, ProductArgs, Winograd};
use crate::exec::{Executor, Shared, cut, for_each_part_with, parts_wanted};
use crate::layout::BLOCK;
use crate::tile::{Output, SyncFinish};

/// One run: the plan and its tensors.
pub(super) struct Run<'a> {
    pub d: &'a Winograd,
    pub x: &'a [f32],
    pub u: &'a [f32],
    pub y: Shared<'a>,
    pub finish: SyncFinish,
}

/// Blocks of output channels that go through together.
pub(super) struct Piece {
    /// The first.
    pub first: usize,
    /// How many.
    pub blocks: usize,
}

/// Chunks of fewer tiles than this are not cut for threads: a product of 7 tiles reads twice as many weights for each multiply-add
/// as one of 14.
const WHOLE_BELOW: usize = 14;

/// What is longer than this, 1 MiB in floats, is not in L2 when it is needed, so that its lines are fetched ahead.
const FAR: usize = 1 << 18;

/// Rows of fewer floats than this (a page of 4 KiB) are fetched ahead by the hardware.
const PAGE: usize = 1 << 10;

impl Run<'_> {
    /// Computes everything, with scratch of at least [`Winograd::scratch_len`] floats.
    pub fn all(&self, scratch: &mut [f32], executor: &dyn Executor) {
        let (d, threads) = (self.d, executor.threads());
        let each = d.scratch_len();
        assert!(scratch.len() >= each, "scratch holds {} floats, one thread needs {each}", scratch.len());
        let total = d.total();
        let chunks = total.div_ceil(d.chunk);
        if threads > 1 && total < threads.saturating_mul(WHOLE_BELOW) {
            return self.by_channels(scratch, executor);
        }
        // As many chunks for each thread, if there are not many.
        let even = chunks < parts_wanted(threads);
        let chunks = if even { chunks.checked_next_multiple_of(threads).unwrap_or(total).min(total) } else { chunks };
        for_each_part_with(executor, chunks, scratch, each, |i, scratch| {
            let tiles = cut(total, chunks, i);
            self.chunk(tiles.clone(), d.pieces(tiles.len()), scratch);
        });
    }

    /// The threads share out the output channels, and each transforms all tiles itself: that takes less time than to fetch what another
    /// one transformed, which is two to four times as large as the input (Granite Rapids, two threads, GFLOP/s: 256 channels at 14x14
    /// 541 -> 702, 512 at 7x7 368 -> 430, 48->192 at 13x13 445 -> 575).
    fn by_channels(&self, scratch: &mut [f32], executor: &dyn Executor) {
        let d = self.d;
        let total = d.total();
        let longest = d.chunk.min(total).max(1);
        let parts = d.pieces(longest).count().min(executor.threads());
        for_each_part_with(executor, parts, scratch, d.scratch_len(), |part, scratch| {
            for start in (0..total).step_by(longest) {
                let tiles = start..(start + longest).min(total);
                let pieces = d.pieces(tiles.len()).count();
                let some = cut(pieces, parts, part);
                self.chunk(tiles.clone(), d.pieces(tiles.len()).take(some.end).skip(some.start), scratch);
            }
        });
    }

    /// The pieces' outputs of a chunk of tiles.
    fn chunk(&self, tiles: Range<usize>, pieces: impl Iterator<Item = Piece>, scratch: &mut [f32]) {
        let d = self.d;
        let (v, m) = scratch.split_at_mut(d.v_len());
        let (v, m) = (Shared::new(v), Shared::new(m));
        tiles.clone().enumerate().for_each(|(at, tile)| self.input(tile, &v, at));
        pieces.for_each(|piece| self.piece(&tiles, &piece, &v, &m));
    }

    /// Image, row and column of a tile.
    fn place(&self, tile: usize) -> [usize; 3] {
        let [down, across] = self.d.tiles;
        [tile / (down * across), tile / across % down, tile % across]
    }

    /// Transforms the input of a tile, which becomes tile `at` of the chunk.
    fn input(&self, tile: usize, v: &Shared<'_>, at: usize) {
        let d = self.d;
        let s = &d.shape;
        let [n, ty, tx] = self.place(tile);
        let m = d.variant.tile();
        let next = if self.x.len() > FAR
            && d.xs.row >= PAGE
            && tx + 1 < d.tiles[1]
            && (ty + 1) * m + 1 < s.ih
            && d.xs.px == BLOCK
            && d.xs.channel == 1
        {
            let (row, col) = ((ty * m) as isize - s.pad.top as isize, ((tx + 1) * m) as isize - s.pad.left as isize);
            let pixel = row * d.xs.row as isize + col * d.xs.px as isize;
            self.x.as_ptr().wrapping_add(n * d.xs.n).wrapping_offset(pixel)
        } else {
            std::ptr::null()
        };
        let args = InputArgs {
            x: self.x.as_ptr().wrapping_add(n * d.xs.n),
            strides: d.xs,
            ic: s.ic,
            extent: [s.ih, s.iw],
            first: [(ty * m) as isize - s.pad.top as isize, (tx * m) as isize - s.pad.left as isize],
            next,
            v: v.at(at * BLOCK),
            v_point: d.v_point(),
            v_block: d.block_step(),
        };
        // SAFETY: the level is available; the input reaches as far as its strides say (asserted in `forward`); tile `at` of the
        // chunk lies in each point and block of `v`, which belongs to this call alone.
        unsafe { (d.transform.input)(&args) };
    }

    /// Products and output transforms of one piece for a chunk of tiles.
    fn piece(&self, tiles: &Range<usize>, piece: &Piece, v: &Shared<'_>, m: &Shared<'_>) {
        let d = self.d;
        let (ic, points) = (d.shape.ic, d.variant.points());
        for point in 0..points {
            let u_at = (piece.first * points + point) * ic * BLOCK;
            let mut at = 0;
            // Equal slices go together: at most two lengths.
            for (mr, slices) in runs(tiles.len(), d.max_mr[piece.blocks]) {
                let args = ProductArgs {
                    v: v.at(point * d.v_point() + at * BLOCK),
                    v_block: d.block_step(),
                    ic,
                    u: self.u.as_ptr().wrapping_add(u_at),
                    u_block: points * ic * BLOCK,
                    m: m.at(point * d.m_point() + at * BLOCK),
                    m_block: d.block_step(),
                    slices,
                    ahead: if slices > 1 && d.packed_len() > FAR { BLOCK.div_ceil(slices) } else { 0 },
                };
                // SAFETY: the level is available; tiles `at..at + mr * slices` are in the chunk; the piece's blocks are
                // among those packed, each for all points; `m` has room for the widest piece.
                unsafe { (d.product(mr, piece.blocks).run)(&args) };
                at += mr * slices;
            }
        }
        for (at, tile) in tiles.clone().enumerate() {
            self.output(tile, at, (piece.first, piece.blocks), m);
        }
    }

    fn output(&self, tile: usize, at: usize, (b0, nb): (usize, usize), m: &Shared<'_>) {
        let d = self.d;
        let s = &d.shape;
        let [n, ty, tx] = self.place(tile);
        let size = d.variant.tile();
        let y_at = n * d.ys.n + b0 * d.ys.block + ty * size * d.ys.row + tx * size * d.ys.px;
        let args = OutputArgs {
            m: m.at(at * BLOCK),
            m_point: d.m_point(),
            m_block: d.block_step(),
            blocks: nb,
            valid: [(s.oh - ty * size).min(size), (s.ow - tx * size).min(size)],
            row: d.ys.row,
            ahead: self.y.len() > FAR && d.ys.row >= PAGE,
            out: Output::new(&self.y, y_at, &d.ys, d.output, b0 * BLOCK..s.oc, &self.finish),
        };
        // SAFETY: the level is available; the products of tile `at` are in `m`; the valid pixels of the tile are in the
        // output and belong to no other tile, and no other part has these blocks of it.
        unsafe { (d.transform.output)(&args) };
    }
}

/// Cuts `total` as [`pieces`] does, and gathers equal pieces: (length, count).
fn runs(total: usize, max: usize) -> impl Iterator<Item = (usize, usize)> {
    let n = total.div_ceil(max).max(1);
    let (base, longer) = (total / n, total % n);
    [(base + 1, longer), (base, n - longer)].into_iter().filter(|&(mr, count)| mr * count > 0)
}
