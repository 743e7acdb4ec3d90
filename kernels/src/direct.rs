//! Direct convolution: regions, blocking and loops around the register tile.
//!
//! ```text
//! for each image, block of rows (or pixels), panel of output channels, chunk of input channels:
//!   for each region of output pixels that share their valid taps:
//!     for each tile of the region: sum over (icb, ky, kx, 16 channels) in registers, one store
//! ```
//!
//! **Borders are peeled.** Along each axis the outputs whose windows hang over the same edge taps form a segment (for a 3x3
//! kernel with padding 1: the first, all inner ones, the last). A region is the product of two segments; inside it
//! every tile has the same tap range, so taps that fall into the padding are never computed and nothing is copied. A region that is
//! narrower than it is tall is covered by tiles that run down its columns, so that border columns run at full speed too.
//! Where only one pixel on each side lacks taps, as in most 3x3 layers, rows are not cut: edge tiles let their first and
//! last pixel sit out the taps that those lack, which saves the small tiles of corners and columns.
//!
//! **1x1 convolutions are GEMMs without a copy:** with stride 1 and no padding, the pixels of an image are one long row.
//!
//! **Stem.** From NCHW, pixels of a row are adjacent floats and the inner loop runs over `kx` instead of channels. It works
//! for any number of input channels; for more than a block of them, blocked input is faster.
//!
//! **Groups** whose channels do not fill blocks read the union of their input ranges, with zero weights where they do
//! not belong; [`Direct::waste`] says how much of the work that is.
//!
//! The order of each sum is `(ic/16, ky, kx, ic%16)` from blocked and NHWC input, `(ic, ky, kx)` from NCHW. Chunks of
//! input channels continue it through the output tensor, which keeps f32 partial sums exactly, so blocking and threads
//! never change a bit.

use core::ops::Range;

use crate::epilogue::Epilogue;
use crate::exec::{Executor, Shared, for_each_part};
use crate::isa::Level;
use crate::layout::{BLOCK, Layout, Strides, blocks};
use crate::region::{Axis, Segment};
use crate::shape::ConvShape;
use crate::tile::{Access, Finish, Loop, Output, SyncFinish, Taps, TileArgs, TileSet, pieces};

/// Cache blocking. Any values give the same bits; [`Direct::new`] chooses good ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocking {
    /// Output rows that go through all panels before the next rows.
    pub rows: usize,
    /// Output columns likewise; less than a row only where an image is one long row.
    pub cols: usize,
    /// Output-channel blocks of a panel, 1 to 4.
    pub panel: usize,
    /// Input-channel blocks (NCHW: channels) that are summed before the next panel or rows.
    pub chunk: usize,
}

/// Bytes of level-2 cache that blocking assumes it can keep for itself: half of the 1 MiB of Zen 4; other current
/// cores have between 512 KiB and 2 MiB.
const L2: usize = 512 << 10;

/// A direct convolution, planned: geometry, tiles and blocking. Small and `Copy`; holds no tensor.
#[derive(Clone, Debug)]
pub struct Direct {
    shape: ConvShape,
    level: Level,
    /// NCHW input: the inner loop runs over `kx`.
    plain: bool,
    xs: Strides,
    ys: Strides,
    output: Layout,
    /// The axes as the loops see them: `1 x oh*ow` outputs where an image is one long row.
    y: Axis,
    x: Axis,
    rows: TileSet,
    columns: TileSet,
    /// Tiles whose first and last pixel may lack taps, where the level has them for this stride.
    edges: Option<TileSet>,
    blocking: Blocking,
    /// Input-channel blocks (NCHW: channels) of a packed panel.
    span: usize,
}

impl Direct {
    /// Plans with the default blocking.
    pub fn new(shape: &ConvShape, level: Level, input: Layout, output: Layout) -> Self {
        Self::with_blocking(shape, level, input, output, None)
    }

    /// Plans with the given blocking, clamped to what the shape allows.
    pub fn with_blocking(
        shape: &ConvShape,
        level: Level,
        input: Layout,
        output: Layout,
        blocking: Option<Blocking>,
    ) -> Self {
        shape.assert_consistent();
        let s = *shape;
        let plain = input == Layout::Nchw;
        let flat = (s.kh, s.kw, s.sh, s.sw) == (1, 1, 1, 1) && s.pad == Default::default();
        let (y, x) = if flat { (Axis::pixels(1), Axis::pixels(s.oh * s.ow)) } else { (Axis::y(&s), Axis::x(&s)) };
        let edge_access = match (input, s.sw) {
            (Layout::Blocked, 1) => Some(Access::Blocked1Edge),
            (Layout::Blocked, 2) => Some(Access::Blocked2Edge),
            _ => None,
        };
        // All inner outputs have all taps, and at most one on each side has fewer.
        let inner = x.interior();
        let single = inner.len() > 1 && inner.start <= 1 && inner.end + 1 >= x.output && inner.len() < x.output;
        let access = match (input, s.sw) {
            (Layout::Blocked, 1) => Access::Blocked1,
            (Layout::Blocked, 2) => Access::Blocked2,
            (Layout::Nchw, 1) => Access::Plain1,
            (Layout::Nchw, 2) => Access::Plain2,
            (Layout::Nchw, 4) => Access::Plain4,
            _ => Access::Strided,
        };
        let mut this = Self {
            shape: s,
            level,
            plain,
            xs: input.strides(s.input()),
            ys: output.strides(s.output()),
            output,
            y,
            x,
            rows: TileSet::new(level, access),
            columns: TileSet::new(level, Access::Strided),
            edges: edge_access.filter(|_| single).map(|a| TileSet::new(level, a)),
            blocking: Blocking { rows: y.output, cols: x.output, panel: 1, chunk: usize::MAX },
            span: 0,
        };
        this.blocking.panel = this.widest_panel();
        this.span = (0..blocks(s.oc))
            .step_by(this.blocking.panel)
            .map(|b| this.steps(&this.channels(b)).len())
            .max()
            .unwrap_or(1);
        this.blocking = this.default_blocking(flat);
        if let Some(b) = blocking {
            let panel = b.panel.clamp(1, this.blocking.panel);
            let cols = if flat { b.cols.max(1) } else { x.output };
            this.blocking = Blocking { rows: b.rows.max(1), cols, panel, chunk: b.chunk.max(1) };
        }
        if output == Layout::Nchw {
            this.blocking.chunk = this.span; // partial sums cannot be continued through scattered channels
        }
        this
    }

    /// Most output-channel blocks that a panel may have: up to 4, and all of one group unless groups are unaligned.
    fn widest_panel(&self) -> usize {
        let s = &self.shape;
        let ocb = blocks(s.oc);
        if s.groups == 1 {
            return pieces(ocb, 4).next().map_or(1, |(_, n)| n);
        }
        if s.ocg().is_multiple_of(BLOCK) {
            return (1..=4).rev().find(|p| (s.ocg() / BLOCK).is_multiple_of(*p)).unwrap_or(1);
        }
        1
    }

    /// Input channels that the panel starting at output block `ocb` reads.
    fn channels(&self, ocb: usize) -> Range<usize> {
        let s = &self.shape;
        let last = ((ocb + self.blocking.panel) * BLOCK).min(s.oc) - 1;
        ocb * BLOCK / s.ocg() * s.icg()..(last / s.ocg() + 1) * s.icg()
    }

    /// The same as steps of the outermost reduction loop: blocks, or single channels from NCHW.
    fn steps(&self, channels: &Range<usize>) -> Range<usize> {
        if self.plain { channels.clone() } else { channels.start / BLOCK..channels.end.div_ceil(BLOCK) }
    }

    /// Floats of packed weights per step of the outermost reduction loop, for one output-channel block.
    fn step_len(&self) -> usize {
        self.shape.kh * self.shape.kw * BLOCK * if self.plain { 1 } else { BLOCK }
    }

    fn default_blocking(&self, flat: bool) -> Blocking {
        let s = &self.shape;
        let panel = self.blocking.panel;
        // A panel's weights should stay in L2 with room for the input: at most 3/4 of the budget.
        let panel_bytes = self.step_len() * 4 * panel;
        let chunk = pieces(self.span, (L2 * 3 / 4 / panel_bytes).max(1)).next().map_or(1, |(_, n)| n);
        // Rows of input that one block of output rows needs should stay in L2 while the panels pass over them.
        let channels = self.channels(0).len().next_multiple_of(if self.plain { 1 } else { BLOCK });
        let row_bytes = s.iw * channels * 4;
        let halo = (s.kh - 1) * s.dh;
        let all_weights = panel_bytes * self.span * blocks(s.oc).div_ceil(panel);
        // Weights that do not stay in L2 either are streamed again for every block of rows: make it tall.
        let budget = if all_weights > L2 { L2 * 3 / 2 } else { L2 / 2 };
        if flat {
            let px_bytes = channels * 4;
            let tile = self.rows.max_mr(self.rows.max_blocks.min(2));
            let cols = (budget / px_bytes / tile).max(4) * tile;
            return Blocking { rows: 1, cols: pieces(self.x.output, cols).next().map_or(1, |(_, n)| n), panel, chunk };
        }
        let fit = (budget / row_bytes.max(1)).saturating_sub(halo) / s.sh;
        let rows = pieces(self.y.output, fit.max(1)).next().map_or(1, |(_, n)| n);
        Blocking { rows, cols: self.x.output, panel, chunk }
    }

    /// The blocking in use.
    pub fn blocking(&self) -> Blocking {
        self.blocking
    }

    /// The instruction-set level whose tiles run.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Name of the tile that covers the inner region: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        let inner = self.x.interior().len().max(1);
        let blocks = self.rows.best_width(inner.min(64), self.blocking.panel);
        let mr = pieces(inner, self.rows.max_mr(blocks)).next().map_or(1, |(_, n)| n);
        self.rows.get(mr, blocks).name
    }

    /// Multiply-adds done per multiply-add that counts: 1 except where groups are unaligned with blocks.
    pub fn waste(&self) -> f64 {
        let s = &self.shape;
        let done: usize = (0..blocks(s.oc))
            .step_by(self.blocking.panel)
            .map(|b| self.channels(b).len() * self.blocking.panel.min(blocks(s.oc) - b) * BLOCK)
            .sum();
        done as f64 / (s.oc * s.icg()) as f64
    }

    /// Floats of packed weights: `[panel][block][step][kh][kw][16 ic (blocked) or 1][16 oc]`.
    pub fn packed_len(&self) -> usize {
        blocks(self.shape.oc) * self.span * self.step_len()
    }

    /// Packs weights `[oc, ic / groups, kh, kw]`.
    ///
    /// # Panics
    /// If a slice's length is not what the shape and [`Direct::packed_len`] say.
    pub fn pack(&self, w: &[f32], packed: &mut [f32]) {
        let s = &self.shape;
        assert_eq!(w.len(), s.weights().iter().product::<usize>());
        assert_eq!(packed.len(), self.packed_len());
        packed.fill(0.0);
        let (icg, ocg, taps) = (s.icg(), s.ocg(), s.kh * s.kw);
        let depth = if self.plain { 1 } else { BLOCK };
        for o in 0..s.oc {
            let ocb = o / BLOCK;
            let first = self.steps(&self.channels(ocb / self.blocking.panel * self.blocking.panel)).start;
            for c in 0..icg {
                let ic = o / ocg * icg + c;
                let step = ic / depth - first;
                for t in 0..taps {
                    let at = (((ocb * self.span + step) * taps + t) * depth + ic % depth) * BLOCK + o % BLOCK;
                    packed[at] = w[(o * icg + c) * taps + t];
                }
            }
        }
    }

    /// Runs the convolution on the executor's threads.
    ///
    /// # Panics
    /// If a slice's length is not what the shape, the layouts and [`Direct::packed_len`] say.
    pub fn forward(&self, x: &[f32], packed: &[f32], epilogue: &Epilogue<'_>, y: &mut [f32], executor: &dyn Executor) {
        let s = &self.shape;
        let y_len = self.output.len(s.output());
        assert_eq!(x.len(), s.n * self.xs.n, "input length");
        assert_eq!(packed.len(), self.packed_len(), "packed weights' length");
        assert_eq!(y.len(), y_len, "output length");
        assert!(epilogue.bias.is_none_or(|b| b.len() == s.oc), "bias length");
        assert!(epilogue.residual.is_none_or(|r| r.len() == y_len), "residual length");
        assert!(self.level.is_available());
        let run =
            Run { d: self, x, w: packed, y: Shared::new(y), finish: SyncFinish(Finish::new(epilogue, self.level)) };
        let grid = self.grid(executor.threads());
        for_each_part(executor, grid.len(), |i| run.part(&grid.part(self, i)));
    }

    /// How the work is cut for a number of threads.
    fn grid(&self, threads: usize) -> Grid {
        let s = &self.shape;
        let panels = blocks(s.oc).div_ceil(self.blocking.panel);
        if threads == 1 {
            return Grid { n: s.n, strips: 1, panels: 1 };
        }
        // A few parts for each thread even out what the machine does besides, but each should be worth its start.
        let wanted = (threads * 4).min((s.macs() / 200_000) as usize).max(1);
        let per_image = wanted.div_ceil(s.n.max(1));
        let tile = self.rows.max_mr(self.rows.max_blocks.min(2));
        let strips = if self.y.output == 1 { self.x.output.div_ceil(2 * tile) } else { self.y.output.div_ceil(3) };
        let weights = self.packed_len() * 4;
        // Threads that share the weights' panels instead of the rows read each weight once between them.
        let (strips, panels) = if weights > L2 && panels >= per_image.min(threads) {
            let p = panels.min(per_image);
            (strips.min(per_image / p).max(1), p)
        } else {
            let r = strips.min(per_image).max(1);
            (r, panels.min(per_image / r).max(1))
        };
        Grid { n: s.n, strips, panels }
    }
}

/// Number of pieces along each axis that is cut for threads.
struct Grid {
    n: usize,
    strips: usize,
    panels: usize,
}

/// What one part computes.
struct Part {
    n: usize,
    y: Range<usize>,
    x: Range<usize>,
    panels: Range<usize>,
}

impl Grid {
    fn len(&self) -> usize {
        self.n * self.strips * self.panels
    }

    fn part(&self, d: &Direct, i: usize) -> Part {
        let cut = |total: usize, pieces: usize, i: usize| total * i / pieces..total * (i + 1) / pieces;
        let (panel, strip, n) = (i % self.panels, i / self.panels % self.strips, i / self.panels / self.strips);
        let panels = cut(blocks(d.shape.oc).div_ceil(d.blocking.panel), self.panels, panel);
        let (y, x) = if d.y.output == 1 {
            (0..1, cut(d.x.output, self.strips, strip))
        } else {
            (cut(d.y.output, self.strips, strip), 0..d.x.output)
        };
        Part { n, y, x, panels }
    }
}

/// One run: the plan and its tensors.
struct Run<'a> {
    d: &'a Direct,
    x: &'a [f32],
    w: &'a [f32],
    y: Shared<'a>,
    finish: SyncFinish,
}

/// A region of one panel and chunk: what its tiles have in common.
struct Region {
    y: Segment,
    x: Segment,
    n: usize,
    ocb: usize,
    blocks: usize,
    /// Steps of the outermost reduction loop, relative to the panel's first.
    steps: Range<usize>,
    channels: Range<usize>,
}

impl Run<'_> {
    fn part(&self, part: &Part) {
        let (d, b) = (self.d, self.d.blocking);
        let ocb = blocks(d.shape.oc);
        for y0 in part.y.clone().step_by(b.rows) {
            for x0 in part.x.clone().step_by(b.cols) {
                let (ys, xs) = (y0..(y0 + b.rows).min(part.y.end), x0..(x0 + b.cols).min(part.x.end));
                for panel in part.panels.clone() {
                    let first = panel * b.panel;
                    let channels = d.channels(first);
                    let total = d.steps(&channels).len();
                    for s0 in (0..total).step_by(b.chunk.min(total)) {
                        let steps = s0..(s0 + b.chunk).min(total);
                        // With edge tiles a row is one segment: its border pixels sit out the taps that they lack.
                        let whole = d.edges.is_some().then(|| Segment { out: xs.clone(), taps: 0..d.shape.kw });
                        for y in d.y.segments(ys.clone()) {
                            let region = |x| Region {
                                y: y.clone(),
                                x,
                                n: part.n,
                                ocb: first,
                                blocks: b.panel.min(ocb - first),
                                steps: steps.clone(),
                                channels: channels.clone(),
                            };
                            match &whole {
                                Some(row) => self.region(&region(row.clone())),
                                None => d.x.segments(xs.clone()).for_each(|x| self.region(&region(x))),
                            }
                        }
                    }
                }
            }
        }
    }

    fn region(&self, r: &Region) {
        let d = self.d;
        let (w, h) = (r.x.out.len(), r.y.out.len());
        let rows_width = d.rows.best_width(w.min(64), r.blocks);
        let inner = d.x.interior();
        // Down the columns where that fills tiles better: border columns of a few pixels.
        let by_column = d.edges.is_none() && w < d.rows.max_mr(rows_width).min(4) && h > w;
        if by_column {
            let width = d.columns.best_width(h.min(64), r.blocks);
            for (b0, nb) in pieces(r.blocks, width) {
                for x in r.x.out.clone() {
                    for (y0, mr) in pieces(h, d.columns.max_mr(nb)) {
                        self.tile(r, &d.columns, (b0, nb), (r.y.out.start + y0, x), mr, true);
                    }
                }
            }
        } else {
            for (b0, nb) in pieces(r.blocks, rows_width) {
                for y in r.y.out.clone() {
                    for (x0, mr) in pieces(w, d.rows.max_mr(nb)) {
                        let x = r.x.out.start + x0;
                        let set = match &d.edges {
                            Some(edges) if !(inner.contains(&x) && inner.contains(&(x + mr - 1))) => edges,
                            _ => &d.rows,
                        };
                        self.tile(r, set, (b0, nb), (y, x), mr, false);
                    }
                }
            }
        }
    }

    #[inline]
    fn tile(
        &self,
        r: &Region,
        set: &TileSet,
        (b0, nb): (usize, usize),
        (oy, ox): (usize, usize),
        mr: usize,
        down: bool,
    ) {
        let d = self.d;
        let s = &d.shape;
        let (ky, kx) = (&r.y.taps, &r.x.taps);
        let oc = (r.ocb + b0) * BLOCK;
        // First input pixel: row and column of the first valid tap of the first output.
        let iy = d.y.first_input(oy, ky);
        let (ix, edge) = if d.edges.is_some() {
            // The first tap's column may lie outside: a pixel that meets it there sits out that tap.
            let ix = (ox * d.x.stride) as isize - d.x.before as isize;
            (ix, [d.x.taps(ox), d.x.taps(ox + mr - 1)].map(|t| Taps { start: t.start, end: t.end }))
        } else {
            (d.x.first_input(ox, kx) as isize, [Taps::ALL; 2])
        };
        let first = d.steps(&r.channels).start + r.steps.start;
        let total = d.steps(&r.channels).len();
        let step = d.step_len();
        let (loops, depth, head, tail, x_step, x_first);
        if d.plain {
            x_step = d.xs.channel;
            x_first = first * d.xs.channel;
            let taps_x = if s.dw == 1 { Loop::ONCE } else { Loop { n: kx.len(), x: s.dw, w: BLOCK } };
            depth = if s.dw == 1 { kx.len() } else { 1 };
            loops = [
                Loop { n: r.steps.len(), x: x_step, w: step },
                Loop { n: ky.len(), x: s.dh * d.xs.row, w: s.kw * BLOCK },
                taps_x,
            ];
            (head, tail) = (0, depth);
        } else {
            x_first = first * d.xs.block;
            depth = BLOCK;
            loops = [
                Loop { n: r.steps.len(), x: d.xs.block, w: step },
                Loop { n: ky.len(), x: s.dh * d.xs.row, w: s.kw * BLOCK * BLOCK },
                Loop { n: kx.len(), x: s.dw * d.xs.px, w: BLOCK * BLOCK },
            ];
            head = if r.steps.start == 0 { r.channels.start % BLOCK } else { 0 };
            tail = if r.steps.end == total { (r.channels.end - 1) % BLOCK + 1 } else { BLOCK };
        }
        let tap_len = BLOCK * if d.plain { 1 } else { BLOCK };
        let w_at = ((r.ocb + b0) * d.span + r.steps.start) * step + (ky.start * s.kw + kx.start) * tap_len;
        let y_at = r.n * d.ys.n + (r.ocb + b0) * d.ys.block + oy * d.ys.row + ox * d.ys.px;
        let args = TileArgs {
            x: self
                .x
                .as_ptr()
                .wrapping_add(r.n * d.xs.n + x_first + iy * d.xs.row)
                .wrapping_offset(ix * d.xs.px as isize),
            w: self.w.as_ptr().wrapping_add(w_at),
            loops,
            depth,
            head,
            tail,
            px: if down { s.sh * d.xs.row } else { s.sw * d.xs.px },
            w_block: d.span * step,
            accumulate: r.steps.start > 0,
            edge,
            out: Output {
                y: self.y.at(y_at),
                px: if down { d.ys.row } else { d.ys.px },
                block: d.ys.block,
                channel: d.ys.channel,
                cols: s.oc - oc,
                pad_cols: d.output == Layout::Blocked,
                finish: (r.steps.end == total).then(|| self.finish.0.at(oc, y_at)),
            },
        };
        // SAFETY:
        // * the level is available, and slices have the lengths of their layouts (asserted in `forward`);
        // * the tile's pixels lie in one segment of each axis, whose tap ranges keep every tap inside the input (edge tiles:
        //   inner pixels have all taps, and the first and the last sit out those that they lack), and
        //   channels stay below the input's (blocked: below its whole blocks);
        // * the weights' offset stays inside `packed_len`: block, step and tap are below their extents;
        // * outputs are `mr` pixels of the image and `nb` blocks of which `cols` channels exist; parts of a run have
        //   disjoint images, rows, columns or panels, so no two threads write the same one.
        unsafe { (set.get(mr, nb).run)(&args) };
    }
}
