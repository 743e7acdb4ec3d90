//! What becomes of input positions that meet no tap: the epilogue of a sum without terms.

use super::{Axis, BackwardData};
use crate::exec::{Executor, Shared, for_each_part_with};
use crate::layout::{BLOCK, blocks};
use crate::tile::{Access, Edge, Loop, Output, Soon, Steps, Sweep, SyncFinish, TileArgs, TileSet, runs};

/// One run: the plan and its output.
pub(super) struct Fill<'a> {
    pub d: &'a BackwardData,
    pub y: Shared<'a>,
    pub finish: SyncFinish,
}

/// Adjacent pixels of a row, or every few of them.
struct Line {
    /// The first, in floats from the tensor's start.
    at: usize,
    pixels: usize,
    /// From one to the next.
    px: usize,
}

impl Fill<'_> {
    /// Fills all such positions, image by image and row by row.
    pub fn all(&self, executor: &dyn Executor) {
        let s = &self.d.shape;
        let tiles = TileSet::new(self.d.core, Access::Strided, 1);
        for_each_part_with(executor, s.n * s.ih, &mut [], 0, |part, _| {
            let ys = self.d.xs;
            let (n, row) = (part / s.ih, part % s.ih);
            let at = n * ys.n + row * ys.row;
            let meets = Axis::y(s).phase(row % s.sh).window.is_some();
            for block in 0..blocks(s.ic) {
                if !meets {
                    self.line(tiles, block, &Line { at, pixels: s.iw, px: ys.px });
                    continue;
                }
                for hole in BackwardData::holes(Axis::x(s)) {
                    let line = Line { at: at + hole.first * ys.px, pixels: hole.outputs, px: s.sw * ys.px };
                    self.line(tiles, block, &line);
                }
            }
        });
    }

    /// One block of channels of a line.
    fn line(&self, tiles: &TileSet, block: usize, line: &Line) {
        let s = &self.d.shape;
        let ys = self.d.xs;
        for (first, mr, n) in runs(line.pixels, tiles.max_mr(1)) {
            let at = line.at + first * line.px + block * ys.block;
            let out = Output::new(&self.y, at, &ys, self.d.output, block * BLOCK..s.ic, &self.finish);
            let none = Loop { n: 0, x: 0, w: 0 };
            let args = TileArgs {
                x: core::ptr::null(),
                w: core::ptr::null(),
                loops: [none; 3],
                depth: 0,
                head: 0,
                tail: 0,
                px: 0,
                ahead: 0,
                w_block: 0,
                w_step: 0,
                accumulate: false,
                fetch_output: false,
                edge: Edge::NONE,
                out: Output { px: line.px, ..out },
                sweep: Sweep { tiles: Steps { n, x: 0, y: mr * line.px }, ..Sweep::ONE },
                soon: Soon::NONE,
            };
            // SAFETY: without iterations no input and no weight is read; the pixels lie in the row, by the phases'
            // numbers of positions, and the output has the length of its layout (asserted in `run`), as have bias and
            // residual; parts have rows of their own; the level is available (asserted).
            unsafe { (tiles.get(mr, 1).run)(&args) };
        }
    }
}
