//! One block of A times one block of B: the tiles that cover it.

use crate::layout::BLOCK;
use crate::machine::Core;
use crate::tile::{
    Access, Edge, Finish, Loop, MAX_BLOCKS, Output, Soon, Sweep, TileArgs, TileSet, fetches_output, pieces,
};

/// Rows of A as the tile reads them.
#[derive(Clone, Copy)]
pub(super) struct Left {
    /// First row's first element.
    pub(super) start: *const f32,
    /// `None`: panels `[len][mr]`, one after another. Else rows, this many floats apart.
    pub(super) ld: Option<usize>,
    /// Elements of a row.
    pub(super) len: usize,
    /// Element that the reduction starts with.
    pub(super) first: usize,
    /// Stretches of `depth` elements each that it takes.
    pub(super) taps: usize,
    /// From one stretch to the next.
    pub(super) tap: usize,
}

impl Left {
    /// A reduction over all of each row.
    pub(super) fn whole(start: *const f32, ld: Option<usize>, len: usize) -> Self {
        Self { start, ld, len, first: 0, taps: 1, tap: 0 }
    }
}

/// Blocks of 16 columns of B as the tile reads them.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    /// First block's first row.
    pub(super) start: *const f32,
    /// From block to block.
    pub(super) block: usize,
    /// From row to row: 16 where packed. With another step the reduction runs in the tile's outer loop, which costs a
    /// few cycles per step, but saves a copy.
    pub(super) step: usize,
}

/// The tiles for one form of A.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    set: &'static TileSet,
    /// Blocks of columns in a tile.
    pub(super) width: usize,
    /// Most rows of a tile and of a panel.
    pub(super) mr: usize,
    fetch_output: bool,
}

impl Tiles {
    /// The tiles that suit `m` rows and `blocks` blocks of columns.
    pub(super) fn new(core: Core, access: Access, m: usize, blocks: usize) -> Self {
        let set = TileSet::new(core, access, usize::MAX);
        // Beyond these extents the remainders no longer matter: 12 blocks are whole tiles of every width.
        let width = set.best_width(m.max(1), blocks.clamp(1, MAX_BLOCKS));
        Self {
            set,
            width,
            mr: set.max_mr(width),
            fetch_output: fetches_output(core, usize::MAX, m.saturating_mul(blocks).saturating_mul(4 * BLOCK)),
        }
    }

    /// Name of the tile that covers most of `m` rows: what `explain` prints.
    pub(super) fn name(&self, m: usize) -> &'static str {
        let mr = pieces(m.max(1), self.mr).next().map_or(1, |(_, mr)| mr);
        self.set.name(mr, self.width)
    }
}

/// A block of A, a block of B, and where their product goes.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) tiles: &'a Tiles,
    pub(super) left: Left,
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) weights: Weights,
    pub(super) blocks: usize,
    pub(super) y: *mut f32,
    pub(super) y_px: usize,
    pub(super) y_block: usize,
    pub(super) y_channel: usize,
    pub(super) cols: usize,
    pub(super) pad_cols: bool,
    pub(super) accumulate: bool,
    /// At the block's first row and column.
    pub(super) finish: Option<Finish>,
}

impl Block<'_> {
    /// Columns outermost: a tile's weights, `depth x 16 width`, stay in L1 or L2 while the rows pass.
    ///
    /// # Safety
    /// * `left` is readable for `rows` rows of `len` elements, in panels of `pieces(rows, tiles.mr)` or `ld` apart, and all
    ///   stretches end by `len`;
    /// * `weights` are readable for `taps * depth` rows of 16 floats in each of `blocks` blocks;
    /// * `y`, and the residual if there is one, are valid for `rows` rows of `cols` columns (whole blocks with
    ///   `pad_cols`), the bias for `cols` floats, and no other thread uses these outputs;
    /// * the level of `tiles` and of `finish` is available.
    pub(super) unsafe fn multiply(&self) {
        let (left, w) = (&self.left, &self.weights);
        for (b0, nb) in pieces(self.blocks, self.tiles.width) {
            for (r0, mr) in pieces(self.rows, self.tiles.mr) {
                let y_at = b0 * self.y_block + r0 * self.y_px;
                // From element to element of a row, and from row to row.
                let (next, row) = left.ld.map_or((mr, left.len), |ld| (1, ld));
                let taps = Loop { n: left.taps, x: left.tap * next, w: self.depth * w.step };
                let (loops, depth) = if w.step == BLOCK {
                    ([Loop::ONCE, Loop::ONCE, taps], self.depth)
                } else {
                    ([Loop::ONCE, taps, Loop { n: self.depth, x: next, w: w.step }], 1)
                };
                let args = TileArgs {
                    x: left.start.wrapping_add(r0 * row + left.first * next),
                    w: w.start.wrapping_add(b0 * w.block),
                    loops,
                    depth,
                    head: 0,
                    tail: depth,
                    px: row,
                    ahead: 0,
                    w_block: w.block,
                    w_step: 0,
                    accumulate: self.accumulate,
                    fetch_output: self.tiles.fetch_output,
                    edge: Edge::NONE,
                    sweep: Sweep::ONE,
                    soon: Soon::NONE,
                    out: Output {
                        y: self.y.wrapping_add(y_at),
                        px: self.y_px,
                        block: self.y_block,
                        channel: self.y_channel,
                        cols: self.cols - b0 * BLOCK,
                        pad_cols: self.pad_cols,
                        finish: self.finish.map(|f| f.at(b0 * BLOCK, y_at)),
                    },
                };
                // SAFETY: the tile's rows and columns are a part of the block's, for which the caller answers; a
                // panel that starts with row r0 comes after r0 * len floats of earlier panels.
                unsafe { (self.tiles.set.get(mr, nb).run)(&args) };
            }
        }
    }
}
