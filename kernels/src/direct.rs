//! Direct convolution: regions, blocking and loops around the register tile.
//!
//! ```text
//! for each block of images or rows (or pixels), panel of output channels, chunk of input channels, group of output-channel blocks:
//!   for each image and each region of output pixels that share their valid taps:
//!     for each tile of the region: sum over (icb, ky, kx, 16 channels) in registers, one store
//! ```
//!
//! **Borders are peeled.** Along each axis the outputs whose windows hang over the same edge taps form a segment (for a 3x3
//! kernel with padding 1: the first, all inner ones, the last). A region is the product of two segments; inside it
//! every tile has the same tap range, so taps that fall into the padding are never computed and nothing is copied. A region that is
//! narrower than it is tall is covered by tiles that run down its columns.
//! Where only one pixel on each side lacks taps, as in most 3x3 layers, or with AVX-512 up to three of a long row, rows are not cut: edge
//! tiles let their first and last pixels sit out the taps that those lack, which saves the small tiles of corners and columns.
//!
//! **1x1 convolutions are GEMMs:** with stride 1 and no padding, the pixels of an image are one long row. With a larger stride
//! they become one when the pixels that the stride meets are copied to scratch, block by block of pixels. That costs a
//! read of what is read anyway, while in place these pixels lie in every other cache line, so that they have half of each
//! cache's sets, and rows of 7 fill tiles badly (1024 to 2048 channels, 7x7: AVX2 49 GFLOP/s in place).
//!
//! **Stem.** From NCHW, pixels of a row are adjacent floats and the inner loop runs over `kx` instead of channels. It works
//! for any number of input channels; for more than a block of them, blocked input is faster.
//!
//! **Groups** whose output channels do not fill blocks have blocks of packed weights of their own, with zero weights for the
//! channels that these lack; [`Direct::waste`] says how much of the work that is. From blocked input a group takes its own
//! channels of the first and the last block alone.
//!
//! The order of each sum is `(ic/16, ky, kx, ic%16)` from blocked and NHWC input, `(ic, ky, kx)` from NCHW. Chunks of
//! input channels continue it through the output tensor, which keeps f32 partial sums exactly, so blocking and threads
//! never change a bit. Magnitudes: [`FiniteRange::PLAIN`](crate::finite::FiniteRange::PLAIN).

mod blocking;
#[cfg(test)]
mod choices;
mod run;

pub use blocking::Blocking;

use core::ops::Range;

use blocking::Grid;
use run::Run;

use crate::epilogue::{Epilogue, Lengths, Outputs};
use crate::exec::{Executor, Inline, Shared, for_each_chunk, for_each_part_with};
use crate::groups::Pieces;
use crate::isa::Level;
use crate::layout::{BLOCK, Layout, Strides, View, blocks};
use crate::machine::Core;
use crate::region::Axis;
use crate::reorder::interleave_at;
use crate::shape::ConvShape;
use crate::tile::{self, Access, Finish, MAX_MR, SyncFinish, TileSet, pieces};
use crate::weights::Weights;

/// Most floats of scratch for one thread.
const SCRATCH: usize = 1 << 18;

/// A direct convolution, planned: geometry, tiles and blocking. Holds no tensor.
#[derive(Clone, Debug)]
pub struct Direct {
    shape: ConvShape,
    core: Core,
    /// 1x1 with a stride, to rows that follow each other: the pixels that it meets are copied to scratch, and `xs` are the strides there.
    compact: bool,
    xs: Strides,
    ys: Strides,
    input: Layout,
    output: Layout,
    /// The axes as the loops see them: `1 x oh*ow` outputs where an image is one long row.
    y: Axis,
    x: Axis,
    tiles: Tiling,
    /// What the output channels are cut into: blocks of packed weights.
    pieces: Pieces,
    /// Tiles for pieces that fill at most a half of their block.
    half: Option<Tiling>,
    blocking: Blocking,
    /// Input-channel blocks (NCHW: channels) of a packed panel.
    span: usize,
}

/// The tiles for every place of an output.
#[derive(Clone, Debug)]
struct Tiling {
    /// Along rows.
    rows: &'static TileSet,
    /// Down columns; none for tiles that end in half a block.
    columns: Option<&'static TileSet>,
    /// Whether the first and last pixels of rows lack taps, which their tiles sit out.
    edges: bool,
    /// Whether they end in half a block, so that one tile must cover all of its blocks.
    half: bool,
}

impl Tiling {
    /// How wide tiles of `set` should be that cover `blocks` blocks and runs of `pixels` pixels.
    fn width(&self, set: &TileSet, pixels: usize, blocks: usize) -> usize {
        if self.half { blocks } else { set.best_width(pixels, blocks) }
    }
}

impl Direct {
    /// Plans with the default blocking.
    pub fn new(shape: &ConvShape, core: Core, input: Layout, output: Layout) -> Self {
        Self::with_blocking(shape, core, input, output, None)
    }

    /// Plans with the given blocking, clamped to what the shape allows.
    pub fn with_blocking(
        shape: &ConvShape,
        core: Core,
        input: Layout,
        output: Layout,
        blocking: Option<Blocking>,
    ) -> Self {
        let strides = [input.strides(shape.input()), output.strides(shape.output())];
        Self::within(shape, core, [input, output], strides, blocking)
    }

    /// Plans for tensors that are parts of larger ones.
    ///
    /// # Panics
    /// If a view has other extents than the shape's.
    pub fn of_views(shape: &ConvShape, core: Core, [x, y]: [View; 2]) -> Self {
        let strides = [x.strides_of(shape.input()), y.strides_of(shape.output())];
        Self::within(shape, core, [x.layout(), y.layout()], strides, None)
    }

    /// The same with these distances between their elements, which the caller vouches for.
    pub(crate) fn within(
        shape: &ConvShape,
        core: Core,
        [input, output]: [Layout; 2],
        [xs, ys]: [Strides; 2],
        blocking: Option<Blocking>,
    ) -> Self {
        shape.assert_consistent();
        let s = *shape;
        // Whether rows of outputs follow each other, so that an image may be one long row.
        let long = ys.row == s.ow * ys.px;
        let compact = s.is_pointwise()
            && (s.sh, s.sw) != (1, 1)
            && s.groups == 1
            && input == Layout::Blocked
            && long
            && Blocking::MIN_COLS * blocks(s.ic) * BLOCK <= SCRATCH;
        let flat = s.is_pointwise() && (s.sh, s.sw) == (1, 1) && long && xs.row == s.iw * xs.px || compact;
        let (y, x) = if flat { (Axis::pixels(1), Axis::pixels(s.oh * s.ow)) } else { (Axis::y(&s), Axis::x(&s)) };
        // All inner outputs have all taps, and at most so few on each side have fewer that edge tiles take them: one, or more where a row
        // is several long tiles.
        let inner = x.interior();
        let most = if x.output > MAX_MR { tile::overhang(core.level, x.stride, MAX_MR) } else { 1 };
        let few = inner.len() > 1 && inner.start <= most && inner.end + most >= x.output && inner.len() < x.output;
        let access = match (input, x.stride) {
            (Layout::Blocked, 1) => Access::Blocked1,
            (Layout::Blocked, 2) => Access::Blocked2,
            (Layout::Nchw, 1) => Access::Plain1,
            (Layout::Nchw, 2) => Access::Plain2,
            (Layout::Nchw, 4) => Access::Plain4,
            _ => Access::Strided,
        };
        let edges = few && matches!(access, Access::Blocked1 | Access::Blocked2);
        let terms = s.terms();
        let tiles = Tiling {
            rows: TileSet::new(core, access, terms),
            columns: Some(TileSet::new(core, Access::Strided, terms)),
            edges,
            half: false,
        };
        // Where no column of outputs needs tiles of its own.
        let half = || {
            let rows = TileSet::half(core, access, terms)?;
            (edges || inner.len() == x.output).then_some(Tiling { rows, columns: None, edges, half: true })
        };
        let pieces = Pieces::new(&s, output);
        // Ragged pieces are of any length; others end in a half where their groups do.
        let halves = pieces.ragged() || (s.ocg() - 1) % BLOCK < BLOCK / 2;
        let mut this = Self {
            shape: s,
            core,
            compact,
            xs,
            ys,
            input,
            output,
            y,
            x,
            tiles,
            pieces,
            half: if halves && core.halves_gain { half() } else { None },
            blocking: Blocking { images: 1, rows: y.output, cols: x.output, panel: 1, chunk: usize::MAX },
            span: 0,
        };
        let widest = this.widest_panel();
        this.blocking.panel = widest;
        // Where groups start in a block repeats after at most a block of them.
        this.span = (0..s.groups.min(BLOCK)).map(|g| this.steps(&this.group_channels(g)).len()).max().unwrap_or(1);
        this.blocking = Blocking::choose(&this, flat, core.l2_bytes);
        if let Some(b) = blocking {
            let panel = this.panel_of_one_group(b.panel.clamp(1, widest));
            let cols = if flat { b.cols.clamp(1, x.output) } else { x.output };
            let rows = b.rows.clamp(1, y.output);
            let images = if (rows, cols) == (y.output, x.output) { b.images.clamp(1, s.n.max(1)) } else { 1 };
            this.blocking = Blocking { images, rows, cols, panel, chunk: b.chunk.clamp(1, this.span) };
        }
        if compact {
            let most = SCRATCH / (blocks(s.ic) * BLOCK);
            let cols = this.blocking.cols.min(x.output).min(most);
            let images = this.blocking.images.min(s.n.max(1)).min(most / cols);
            this.blocking = Blocking { images, cols, ..this.blocking };
            let block = cols * BLOCK;
            this.xs = Strides { n: blocks(s.ic) * block, block, px: BLOCK, ..this.xs };
        }
        if output == Layout::Nchw {
            this.blocking.chunk = this.span; // partial sums cannot be continued through scattered channels
        }
        this
    }

    /// Most output-channel blocks that a panel may have: up to 4, all of one group; one less where that suits the tiles of a row
    /// better.
    fn widest_panel(&self) -> usize {
        let blocks = self.pieces.per_group();
        if self.shape.groups > 1 {
            return if self.pieces.ragged() { 1 } else { self.panel_of_one_group(4) };
        }
        let widest = pieces(blocks, 4).next().map_or(1, |(_, n)| n);
        let cycles = |panel: usize| {
            let of = |panel| self.tiles.rows.cycles(self.x.output, panel);
            blocks / panel * of(panel) + if blocks.is_multiple_of(panel) { 0 } else { of(blocks % panel) }
        };
        // Rows of 7: three vectors, 21 sums at once, instead of 14.
        let narrower = widest == 4 && cycles(3) * 50 < cycles(4) * 49;
        if narrower { 3 } else { widest }
    }

    /// The widest panel of at most so many blocks, such that every panel is of one group.
    fn panel_of_one_group(&self, most: usize) -> usize {
        let divides = |panel: &usize| self.shape.groups == 1 || self.pieces.per_group().is_multiple_of(*panel);
        (1..=most).rev().find(divides).unwrap_or(1)
    }

    /// NCHW input: the inner loop runs over `kx`.
    fn plain(&self) -> bool {
        self.input == Layout::Nchw
    }

    /// Input channels of a group.
    fn group_channels(&self, g: usize) -> Range<usize> {
        let icg = self.shape.icg();
        g * icg..(g + 1) * icg
    }

    /// Input channels that the panel starting at output block `ocb` reads: its group's.
    fn channels(&self, ocb: usize) -> Range<usize> {
        self.group_channels(self.pieces.group(ocb))
    }

    /// Output channels from block `ocb` on that its tiles may store: the rest of its group, or of its piece where others lie
    /// between.
    fn outputs(&self, ocb: usize) -> Range<usize> {
        let piece = self.pieces.channels(ocb);
        let end = if self.pieces.ragged() { piece.end } else { (self.pieces.group(ocb) + 1) * self.shape.ocg() };
        piece.start..end
    }

    /// The same as steps of the outermost reduction loop: blocks, or single channels from NCHW.
    fn steps(&self, channels: &Range<usize>) -> Range<usize> {
        if self.plain() { channels.clone() } else { channels.start / BLOCK..channels.end.div_ceil(BLOCK) }
    }

    /// Floats of packed weights per step of the outermost reduction loop, for one output-channel block.
    fn step_len(&self) -> usize {
        self.shape.kh * self.shape.kw * BLOCK * if self.plain() { 1 } else { BLOCK }
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// How many parts a run on so many threads has.
    pub(crate) fn parts(&self, threads: usize) -> usize {
        Grid::new(self, threads).len()
    }

    /// The blocking in use.
    pub fn blocking(&self) -> Blocking {
        self.blocking
    }

    /// The instruction-set level whose tiles run.
    pub fn level(&self) -> Level {
        self.core.level
    }

    /// Name of the tile that covers the inner region: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        let inner = self.x.interior().len().max(1);
        let (_, blocks, tiles) = self.covers(0).next().expect("a panel has blocks");
        let width = tiles.width(tiles.rows, inner, blocks);
        let mr = pieces(inner, tiles.rows.max_mr(width)).next().map_or(1, |(_, n)| n);
        tiles.rows.name(mr, width)
    }

    /// The blocks of the panel that starts at output block `ocb`, as (first, number, tiles): whole ones, then up to two that end
    /// in a half.
    fn covers(&self, ocb: usize) -> impl Iterator<Item = (usize, usize, &Tiling)> {
        let panel = self.blocking.panel.min(self.pieces.total() - ocb);
        let last = self.pieces.channels(ocb + panel - 1).len();
        let half = self.half.as_ref().filter(|_| last <= BLOCK / 2).map(|t| (panel.min(t.rows.max_blocks), t));
        let whole = panel - half.map_or(0, |(n, _)| n);
        let first = (whole > 0).then_some((0, whole, &self.tiles));
        first.into_iter().chain(half.map(|(n, t)| (whole, n, t)))
    }

    /// Multiply-adds done per multiply-add that counts: more than 1 where a group's channels do not fill blocks.
    pub fn waste(&self) -> f64 {
        self.pieces.waste()
    }

    /// Floats of packed weights: `[panel][block][step][kh][kw][16 ic (blocked) or 1][16 oc]`.
    pub fn packed_len(&self) -> usize {
        self.pieces.total() * self.span * self.step_len()
    }

    /// Packs weights `[oc, ic / groups, kh, kw]`.
    ///
    /// # Panics
    /// If a slice's length is not what the shape and [`Direct::packed_len`] say.
    pub fn pack(&self, w: &[f32], packed: &mut [f32]) {
        self.pack_from(&Weights::forward(&self.shape, w), packed, &Inline);
    }

    /// The same from any order of the weights, on the executor's threads.
    ///
    /// # Panics
    /// If `packed` is not [`Direct::packed_len`] long.
    pub fn pack_from(&self, w: &Weights<'_>, packed: &mut [f32], executor: &dyn Executor) {
        assert_eq!(packed.len(), self.packed_len());
        for_each_chunk(executor, packed, self.span * self.step_len(), |ocb, block| self.pack_block(w, ocb, block));
    }

    /// Packs one block of output channels.
    fn pack_block(&self, w: &Weights<'_>, ocb: usize, block: &mut [f32]) {
        let s = &self.shape;
        let taps = s.kh * s.kw;
        let depth = if self.plain() { 1 } else { BLOCK };
        let outputs = self.pieces.channels(ocb);
        if outputs.is_empty() {
            return block.fill(0.0);
        }
        let inputs = self.channels(ocb);
        let (first, aligned) = (self.steps(&inputs).start, inputs.start.is_multiple_of(depth));
        if !(outputs.len() == BLOCK && aligned && inputs.len() == self.span * depth) {
            block.fill(0.0);
        }
        // Rows of a power of two lie in few cache sets: sixteen of them are turned a line each at a time.
        if let Some((rows, pitch)) = w.rows(outputs.start, taps)
            && outputs.len() == BLOCK
            && taps == 1
        {
            let at = (inputs.start - first * depth) * BLOCK;
            let to = &mut block[at..at + inputs.len() * BLOCK];
            return interleave_at(self.core.level, rows, pitch, BLOCK, to.into());
        }
        for (c, ic) in inputs.enumerate() {
            for (ky, kx) in (0..s.kh).flat_map(|ky| (0..s.kw).map(move |kx| (ky, kx))) {
                let at = (((ic / depth - first) * taps + ky * s.kw + kx) * depth + ic % depth) * BLOCK;
                // A piece's output channels are of one group.
                w.lanes(outputs.start, c, ky, kx, &mut block[at..at + outputs.len()]);
            }
        }
    }

    /// The input's strides as it is given.
    fn from(&self) -> Strides {
        if self.compact { self.input.strides(self.shape.input()) } else { self.xs }
    }

    /// Floats of scratch for one thread.
    pub fn scratch_len(&self) -> usize {
        if self.compact { self.blocking.images * self.xs.n } else { 0 }
    }

    /// Runs the convolution on the executor's threads. `scratch` holds [`Direct::scratch_len`] floats for each thread that is
    /// to take part, at least for one.
    ///
    /// The outputs may lie in memory that holds nothing yet; what they then are is returned.
    ///
    /// # Panics
    /// If a slice's length is not what the shape, the layouts and [`Direct::packed_len`] say. Where outputs with gaps
    /// between them lie in memory that holds nothing.
    pub fn forward<'y>(
        &self,
        x: &[f32],
        packed: &[f32],
        epilogue: &Epilogue<'_>,
        mut y: Outputs<'y>,
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) -> &'y mut [f32] {
        let s = &self.shape;
        Lengths::new(s, self.packed_len(), [(self.input, self.from()), (self.output, self.ys)])
            .assert(x, packed, epilogue, &y);
        assert!(self.core.level.is_available());
        let finish = SyncFinish(Finish::new(epilogue, self.core.level));
        let job = self.job(x, packed, finish, (y.shared(), 0), executor.threads());
        for_each_part_with(executor, job.parts(), scratch, self.scratch_len(), |i, scratch| job.part(i, scratch));
        // SAFETY: parts of a run write all outputs, channels that pad included; what holds nothing has no gaps (asserted).
        unsafe { y.written() }
    }

    /// A run whose parts may be computed in any order, from `x` on and to `y` from a place in it on.
    ///
    /// # Panics
    /// If a tensor is shorter than the shape and the strides say, or the packed weights have another length.
    pub(crate) fn job<'a>(
        &'a self,
        x: &'a [f32],
        packed: &'a [f32],
        finish: SyncFinish,
        (y, y_first): (Shared<'a>, usize),
        threads: usize,
    ) -> Job<'a> {
        let s = &self.shape;
        assert!(self.from().reach(self.input, s.input()) <= x.len(), "input length");
        assert!(y_first + self.ys.reach(self.output, s.output()) <= y.len(), "output length");
        assert_eq!(packed.len(), self.packed_len(), "packed weights' length");
        assert!(self.core.level.is_available());
        let fetch_output = tile::fetches_output(self.core, s.terms(), 4 * y.len() / threads.max(1));
        let run = Run { d: self, x, w: packed, y, y_first, finish, fetch_output };
        Job { run, grid: Grid::new(self, threads) }
    }
}

/// A run of a direct convolution, in parts that write disjoint outputs.
pub(crate) struct Job<'a> {
    run: Run<'a>,
    grid: Grid,
}

impl Job<'_> {
    /// How many parts.
    pub(crate) fn parts(&self) -> usize {
        self.grid.len()
    }

    /// Computes part `i`, with [`Direct::scratch_len`] floats of scratch.
    pub(crate) fn part(&self, i: usize, scratch: &mut [f32]) {
        self.run.part(&self.grid.part(self.run.d, i), scratch);
    }
}
