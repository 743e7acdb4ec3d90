//! One run of a Winograd convolution: from chunks of tiles down to its three kernels.

use core::ops::Range;

use super::{InputArgs, OutputArgs, ProductArgs, Winograd};
use crate::exec::{Executor, Shared, for_each_part, for_each_part_with};
use crate::layout::{BLOCK, Layout, blocks};
use crate::tile::{Output, SyncFinish, pieces};

/// One run: the plan and its tensors.
pub(super) struct Run<'a> {
    pub d: &'a Winograd,
    pub x: &'a [f32],
    pub u: &'a [f32],
    pub y: Shared<'a>,
    pub finish: SyncFinish,
}

/// Chunks of fewer tiles than this are shared by threads rather than cut for them: a product of 7 tiles reads twice as many
/// weights for each multiply-add as one of 14.
const SHARED_BELOW: usize = 14;

impl Run<'_> {
    /// Computes everything, with scratch of at least [`Winograd::scratch_len`] floats.
    pub fn all(&self, scratch: &mut [f32], executor: &dyn Executor) {
        let (d, threads) = (self.d, executor.threads());
        let each = d.scratch_len();
        assert!(scratch.len() >= each, "scratch holds {} floats, one thread needs {each}", scratch.len());
        let total = d.total();
        let chunks = total.div_ceil(d.chunk);
        if threads > 1 && total < threads * SHARED_BELOW {
            return self.shared(scratch, executor);
        }
        // As many chunks for each thread, if there are not many.
        let chunks = if chunks < 4 * threads { chunks.next_multiple_of(threads).min(total) } else { chunks };
        for_each_part_with(executor, chunks, scratch, each, |i, scratch| {
            let tiles = total * i / chunks..total * (i + 1) / chunks;
            let (v, m) = scratch.split_at_mut(d.v_len());
            let (v, m) = (Shared::new(v), Shared::new(m));
            tiles.clone().enumerate().for_each(|(at, tile)| self.input(tile, &v, at, 0..blocks(d.shape.ic)));
            for panel in d.panels() {
                self.panel(&tiles, panel, &v, &m);
            }
        });
    }

    /// The threads share each chunk: its tiles and input blocks first, then its panels.
    fn shared(&self, scratch: &mut [f32], executor: &dyn Executor) {
        let d = self.d;
        let (v, m) = scratch.split_at_mut(d.v_len());
        let v = Shared::new(v);
        let total = d.total();
        let icb = blocks(d.shape.ic);
        for start in (0..total).step_by(d.chunk) {
            let tiles = start..(start + d.chunk).min(total);
            let pieces_of_blocks = icb.min(executor.threads());
            for_each_part(executor, tiles.len() * pieces_of_blocks, |i| {
                let (at, piece) = (i / pieces_of_blocks, i % pieces_of_blocks);
                let cut = |i: usize| icb * i / pieces_of_blocks;
                self.input(tiles.start + at, &v, at, cut(piece)..cut(piece + 1));
            });
            for_each_part_with(executor, d.panels().count(), m, d.m_len(), |i, m| {
                let panel = d.panels().nth(i).expect("there are as many parts as panels");
                self.panel(&tiles, panel, &v, &Shared::new(m));
            });
        }
    }

    /// Image, row and column of a tile.
    fn place(&self, tile: usize) -> [usize; 3] {
        let [down, across] = self.d.tiles;
        [tile / (down * across), tile / across % down, tile % across]
    }

    /// Transforms input blocks `icb` of a tile, which becomes tile `at` of the chunk.
    fn input(&self, tile: usize, v: &Shared<'_>, at: usize, icb: Range<usize>) {
        let d = self.d;
        let s = &d.shape;
        let [n, ty, tx] = self.place(tile);
        let m = d.variant.tile();
        let args = InputArgs {
            x: self.x.as_ptr().wrapping_add(n * d.xs.n + icb.start * d.xs.block),
            strides: d.xs,
            ic: (icb.end * BLOCK).min(s.ic) - icb.start * BLOCK,
            extent: [s.ih, s.iw],
            first: [(ty * m) as isize - s.pad.top as isize, (tx * m) as isize - s.pad.left as isize],
            v: v.at(icb.start * d.block_step() + at * BLOCK),
            v_point: d.v_point(),
            v_block: d.block_step(),
        };
        // SAFETY: the level is available; the input has the length of its layout (asserted in `forward`); tile `at` of the
        // chunk lies in each point and block of `v`, which belongs to this call alone.
        unsafe { (d.transform.input)(&args) };
    }

    /// Products and output transforms of one panel (first block, blocks) for a chunk of tiles.
    fn panel(&self, tiles: &Range<usize>, (b0, nb): (usize, usize), v: &Shared<'_>, m: &Shared<'_>) {
        let d = self.d;
        let points = d.variant.points();
        let cols = nb * BLOCK;
        for (w0, width) in pieces(nb, d.width(tiles.len(), nb)) {
            for point in 0..points {
                let u_at = (b0 * points + point * nb) * BLOCK * d.shape.ic + w0 * BLOCK;
                let mut at = 0;
                // Equal slices go together: at most two lengths.
                for (mr, slices) in runs(tiles.len(), d.max_mr[width]) {
                    let args = ProductArgs {
                        v: v.at(point * d.v_point() + at * BLOCK),
                        v_block: d.block_step(),
                        ic: d.shape.ic,
                        u: self.u.as_ptr().wrapping_add(u_at),
                        u_row: cols,
                        m: m.at(point * d.m_point() + w0 * d.block_step() + at * BLOCK),
                        m_block: d.block_step(),
                        slices,
                    };
                    // SAFETY: the level is available; tiles `at..at + mr * slices` are in the chunk; the panel's weights
                    // start at `b0` blocks of all points; `m` has room for the widest panel.
                    unsafe { (d.product(mr, width).run)(&args) };
                    at += mr * slices;
                }
            }
        }
        for (at, tile) in tiles.clone().enumerate() {
            self.output(tile, at, (b0, nb), m);
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
            out: Output {
                y: self.y.at(y_at),
                px: d.ys.px,
                block: d.ys.block,
                channel: d.ys.channel,
                cols: s.oc - b0 * BLOCK,
                pad_cols: d.output == Layout::Blocked,
                finish: Some(self.finish.0.at(b0 * BLOCK, y_at)),
            },
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
