//! One run of a direct convolution: from parts down to tiles.

use core::array;
use core::ops::Range;

use super::blocking::Part;
use super::{Direct, Tiling};
use crate::exec::Shared;
use crate::layout::{BLOCK, Layout};
use crate::region::Segment;
use crate::tile::{Edge, Loop, Output, Row, Soon, Steps, Sweep, SyncFinish, TileArgs, pieces, runs};

/// Taps of a tile, over all channel blocks, from which on it fetches inputs ahead.
const AHEAD_TAPS: usize = 8;

/// One run: the plan and its tensors.
pub(super) struct Run<'a> {
    pub d: &'a Direct,
    pub x: &'a [f32],
    pub w: &'a [f32],
    pub y: Shared<'a>,
    /// Where output pixel (0, 0) of image 0 lies in `y`.
    pub y_first: usize,
    pub finish: SyncFinish,
    /// [`TileArgs::fetch_output`].
    pub fetch_output: bool,
}

/// The outputs of one pass over the panels, by cache blocking: whole images, or rows or columns of one.
struct Pass {
    /// Where pixel (0, 0) of image 0 would lie.
    input: *const f32,
    n: Range<usize>,
    y: Range<usize>,
    x: Range<usize>,
}

/// A group of output-channel blocks that the same tiles compute, and a chunk of the reduction.
struct Group<'a> {
    tiling: &'a Tiling,
    /// The first block, and how many.
    ocb: usize,
    blocks: usize,
    /// Steps of the outermost reduction loop, relative to the panel's first, and how many the panel has.
    steps: Range<usize>,
    total: usize,
    /// Input channels of the panel.
    channels: Range<usize>,
}

/// Outputs of one image that share their valid taps.
struct Region {
    /// Where pixel (0, 0) of image 0 would lie.
    input: *const f32,
    n: usize,
    y: Segment,
    x: Segment,
}

/// The weights that come after those at hand, block by block.
struct Following {
    /// Of the next block, and the number of blocks.
    w: *const f32,
    blocks: usize,
    /// Floats of a block that are wanted, of those that it has.
    len: usize,
    stride: usize,
    /// How much of the next block is on its way.
    done: usize,
}

impl Following {
    /// What the next tiles can fetch, which take so many floats of it in all.
    fn take(&mut self, floats: usize) -> Soon {
        if self.blocks == 0 {
            return Soon::NONE;
        }
        let from = self.w.wrapping_add(self.done);
        let end = self.w.wrapping_add(self.len);
        self.done += floats;
        if self.done >= self.len {
            *self = Self { w: self.w.wrapping_add(self.stride), blocks: self.blocks - 1, done: 0, ..*self };
        }
        Soon { from, end }
    }
}

impl Run<'_> {
    /// Computes one part of the output.
    pub fn part(&self, part: &Part, scratch: &mut [f32]) {
        let b = self.d.blocking;
        let cut = |r: &Range<usize>, step: usize| {
            let end = r.end;
            r.clone().step_by(step).map(move |at| at..at.saturating_add(step).min(end))
        };
        for n in cut(&part.n, b.images) {
            for y in cut(&part.y, b.rows) {
                for x in cut(&part.x, b.cols) {
                    let input = if self.d.compact { self.compact(scratch, &n, &x) } else { self.x.as_ptr() };
                    let pass = Pass { input, n: n.clone(), y: y.clone(), x };
                    for panel in part.panels.clone() {
                        self.panel(&pass, panel * b.panel);
                    }
                }
            }
        }
    }

    /// Copies the input pixels behind the outputs `xs` of the images `n` to scratch. Returns where output pixel 0 of image 0
    /// would lie there.
    fn compact(&self, scratch: &mut [f32], n: &Range<usize>, xs: &Range<usize>) -> *const f32 {
        let (d, s) = (self.d, &self.d.shape);
        let from = d.from();
        for (image, n) in scratch.chunks_exact_mut(d.xs.n).zip(n.clone()) {
            for (icb, pixels) in image.chunks_exact_mut(d.xs.block).enumerate() {
                for (to, at) in pixels.chunks_exact_mut(BLOCK).zip(xs.clone()) {
                    let (oy, ox) = (at / s.ow, at % s.ow);
                    let at = n * from.n + icb * from.block + oy * s.sh * from.row + ox * s.sw * from.px;
                    to.copy_from_slice(&self.x[at..at + BLOCK]);
                }
            }
        }
        scratch.as_ptr().wrapping_sub(n.start * d.xs.n + xs.start * d.xs.px)
    }

    /// The panel of output channels that starts at block `ocb`, chunk by chunk, group by group.
    fn panel(&self, pass: &Pass, ocb: usize) {
        let d = self.d;
        let outputs = d.pieces.channels(ocb);
        if outputs.is_empty() {
            return; // a group that touches fewer output blocks than others
        }
        let channels = d.channels(ocb);
        let total = d.steps(&channels).len();
        let chunk = d.blocking.chunk.min(total);
        // With edge tiles a row is one segment.
        let inner = if d.tiles.edges { usize::MAX } else { d.x.interior().len().max(1) };
        for start in (0..total).step_by(chunk) {
            let steps = start..(start + chunk).min(total);
            for (first, blocks, tiling) in d.covers(ocb) {
                for (b0, nb) in pieces(blocks, tiling.width(tiling.rows, inner.min(pass.x.len()), blocks)) {
                    let (steps, channels) = (steps.clone(), channels.clone());
                    let group = Group { tiling, ocb: ocb + first + b0, blocks: nb, steps, total, channels };
                    self.group(pass, &group);
                }
            }
        }
        if d.pieces.ragged() && outputs.end == d.shape.oc {
            self.zero_padding(pass);
        }
    }

    /// Zeros for the channels that pad the last output block, which no piece stores.
    fn zero_padding(&self, pass: &Pass) {
        let (oc, ys) = (self.d.shape.oc, &self.d.ys);
        let rows = pass.n.clone().flat_map(|n| pass.y.clone().map(move |y| self.y_first + n * ys.n + y * ys.row));
        for pixel in rows.flat_map(|row| pass.x.clone().map(move |x| row + x * ys.px)) {
            for c in oc..oc.next_multiple_of(BLOCK) {
                // SAFETY: ragged output is blocked and has whole blocks, and this part alone has these pixels of the last piece.
                unsafe { self.y.at(pixel + c / BLOCK * ys.block + c % BLOCK).write(0.0) };
            }
        }
    }

    /// A group of blocks: its weights serve all images and regions before the next group's.
    fn group(&self, pass: &Pass, g: &Group<'_>) {
        let d = self.d;
        let mut following = self.following(g);
        for n in pass.n.clone() {
            for y in d.y.segments(pass.y.clone()) {
                let mut region = |x| self.region(&Region { input: pass.input, n, y: y.clone(), x }, g, &mut following);
                if d.tiles.edges {
                    // Border pixels sit out the taps that they lack.
                    region(Segment { out: pass.x.clone(), taps: 0..d.shape.kw });
                } else {
                    d.x.segments(pass.x.clone()).for_each(region);
                }
            }
        }
    }

    /// The weights after a group's: of the next blocks of the panel, else of its next chunk, else of the next panel.
    fn following(&self, g: &Group<'_>) -> Following {
        let d = self.d;
        let (all, panel) = (d.pieces.total(), d.blocking.panel);
        let first = g.ocb / panel * panel;
        let end = (first + panel).min(all);
        let (ocb, start) = match (g.ocb + g.blocks < end, g.steps.end < g.total) {
            (true, _) => (g.ocb + g.blocks, g.steps.start),
            (false, true) => (first, g.steps.end),
            (false, false) => (end, 0),
        };
        let len = g.steps.len().min(g.total - start) * d.step_len();
        let stride = d.span * d.step_len();
        let w = self.w.as_ptr().wrapping_add(ocb * stride + start * d.step_len());
        Following { w, blocks: g.blocks.min(all - ocb), len, stride, done: 0 }
    }

    fn region(&self, r: &Region, g: &Group<'_>, following: &mut Following) {
        let t = g.tiling;
        let (w, h) = (r.x.out.len(), r.y.out.len());
        // Down the columns where that fills tiles better: border columns of a few pixels.
        let columns = t.columns.filter(|_| !t.edges);
        if let Some(columns) = columns
            && w < t.rows.max_mr(t.width(t.rows, w, g.blocks)).min(4)
            && h > w
        {
            for (b0, nb) in pieces(g.blocks, t.width(columns, h, g.blocks)) {
                let mut tiles = self.tiles(r, g, b0, true);
                for (y0, mr, n) in runs(h, columns.max_mr(nb)) {
                    let first = (r.y.out.start + y0, r.x.out.start);
                    tiles.run(self, columns.get(mr, nb), first, [n, w], following);
                }
            }
            return;
        }
        for (b0, nb) in pieces(g.blocks, t.width(t.rows, w, g.blocks)) {
            let mut tiles = self.tiles(r, g, b0, false);
            for (x0, mr, n) in runs(w, t.rows.max_mr(nb)) {
                let first = (r.y.out.start, r.x.out.start + x0);
                self.rows(&mut tiles, t.rows.get(mr, nb), first, [n, h], following);
            }
        }
    }

    /// Rows of `n` tiles, of which the first and the last may lack taps.
    fn rows(
        &self,
        tiles: &mut Tiles,
        row: &Row,
        (y, x): (usize, usize),
        [n, rows]: [usize; 2],
        following: &mut Following,
    ) {
        let d = self.d;
        if !d.tiles.edges {
            return tiles.run(self, row, (y, x), [n, rows], following);
        }
        let (inner, mr) = (d.x.interior(), row.mr);
        let first = usize::from(x < inner.start);
        let last = usize::from(x + n * mr > inner.end).min(n - first);
        let mut at_edge = |x: usize| {
            // A tile that has fewer pixels counts its last one again.
            tiles.args.edge = Edge {
                starts: array::from_fn(|i| d.x.taps(x + i.min(mr - 1)).start),
                ends: array::from_fn(|i| d.x.taps(x + (mr - 1).saturating_sub(i)).end),
            };
            tiles.run(self, row, (y, x), [1, rows], following);
        };
        if first == 1 {
            at_edge(x);
        }
        if last == 1 {
            at_edge(x + (n - 1) * mr);
        }
        tiles.args.edge = Edge::NONE;
        if n > first + last {
            tiles.run(self, row, (y, x + first * mr), [n - first - last, rows], following);
        }
    }

    /// What the tiles of a region that start at block `b0` of a group have in common.
    fn tiles(&self, r: &Region, g: &Group<'_>, b0: usize, down: bool) -> Tiles {
        let d = self.d;
        let s = &d.shape;
        let (ky, kx) = (&r.y.taps, &r.x.taps);
        let ocb = g.ocb + b0;
        let all = d.steps(&g.channels);
        let last = g.steps.end == g.total;
        let step = d.step_len();
        let steps = |x: usize| Loop { n: g.steps.len(), x, w: step };
        let (first, loops, depth, head, tail) = if d.plain() {
            // The inner loop runs over adjacent columns.
            let columns = if s.dw == 1 { Loop::ONCE } else { Loop { n: kx.len(), x: s.dw, w: BLOCK } };
            let depth = if s.dw == 1 { kx.len() } else { 1 };
            let rows = Loop { n: ky.len(), x: s.dh * d.xs.row, w: s.kw * BLOCK };
            (d.xs.channel, [steps(d.xs.channel), rows, columns], depth, 0, depth)
        } else {
            let rows = Loop { n: ky.len(), x: s.dh * d.xs.row, w: s.kw * BLOCK * BLOCK };
            let columns = Loop { n: kx.len(), x: s.dw * d.xs.px, w: BLOCK * BLOCK };
            let head = if g.steps.start == 0 { g.channels.start % BLOCK } else { 0 };
            let tail = if last { (g.channels.end - 1) % BLOCK + 1 } else { BLOCK };
            // The innermost loop is the cheapest: with a single tap it takes the blocks, if these are whole. Edge tiles count
            // on it for the columns (1x1 with padding).
            let single = (rows.n, columns.n, head, tail) == (1, 1, 0, BLOCK) && !d.tiles.edges;
            let loops =
                if single { [Loop::ONCE, Loop::ONCE, steps(d.xs.block)] } else { [steps(d.xs.block), rows, columns] };
            (d.xs.block, loops, BLOCK, head, tail)
        };
        // The next channel block of the same pixels, which may come from L3, or the one after it where a block is a single tap;
        // the next row where there is no other block and the input does come from L3; not where so few taps follow each other
        // that it costs as much as it gives.
        let taps = ky.len() * kx.len();
        let ahead = match (g.steps.len(), taps) {
            (blocks, taps) if d.plain() || blocks * taps < AHEAD_TAPS => 0,
            (1, _) if size_of_val(self.x) > d.core.l2_bytes => d.y.stride * d.xs.row,
            (1, _) => 0,
            (_, 1) => 2 * d.xs.block,
            _ => d.xs.block,
        };
        let tap_len = if d.plain() { BLOCK } else { BLOCK * BLOCK };
        let w_at = (ocb * d.span + g.steps.start) * step + (ky.start * s.kw + kx.start) * tap_len;
        // The first tap of output (0, 0), which may lie outside of the input.
        let x_at = (r.n * d.xs.n + (all.start + g.steps.start) * first) as isize
            + ((ky.start * s.dh) as isize - d.y.before as isize) * d.xs.row as isize
            + ((kx.start * s.dw) as isize - d.x.before as isize) * d.xs.px as isize;
        let outputs = d.outputs(ocb);
        let first_output = outputs.start / BLOCK * d.ys.block + outputs.start % BLOCK * d.ys.channel;
        let out = Output::new(&self.y, 0, &d.ys, d.output, outputs, &self.finish);
        let args = TileArgs {
            x: r.input.wrapping_offset(x_at),
            w: self.w.as_ptr().wrapping_add(w_at),
            loops,
            depth,
            head,
            tail,
            px: if down { d.y.stride * d.xs.row } else { d.x.stride * d.xs.px },
            ahead,
            w_block: d.span * step,
            w_step: 0,
            accumulate: g.steps.start > 0,
            fetch_output: self.fetch_output,
            edge: Edge::NONE,
            out: Output {
                px: if down { d.ys.row } else { d.ys.px },
                pad_cols: d.output == Layout::Blocked && !d.pieces.ragged(),
                finish: out.finish.filter(|_| last),
                ..out
            },
            sweep: Sweep::ONE,
            soon: Soon::NONE,
        };
        let right = (d.x.stride * d.xs.px, d.ys.px);
        let below = (d.y.stride * d.xs.row, d.ys.row);
        let (pixel, row) = if down { (below, right) } else { (right, below) };
        Tiles { args, first: args, y_at: self.y_first + r.n * d.ys.n + first_output, pixel, row }
    }
}

/// Tiles that differ in their output position alone. Setting one up costs about as much as a hundred multiply-adds, so
/// only what differs is set from tile to tile.
struct Tiles {
    args: TileArgs,
    /// The arguments for output (0, 0), but for the output itself, which is `y_at` floats from the tensor's start.
    first: TileArgs,
    y_at: usize,
    /// From a tile's pixel to the next one, in the input and in the output.
    pixel: (usize, usize),
    /// From a row of tiles to the next one, likewise.
    row: (usize, usize),
}

impl Tiles {
    /// Computes rows of `n` tiles of a kind, from output (`oy`, `ox`) on.
    #[inline]
    fn run(
        &mut self,
        run: &Run<'_>,
        kind: &Row,
        (oy, ox): (usize, usize),
        [n, rows]: [usize; 2],
        following: &mut Following,
    ) {
        let d = run.d;
        let steps: usize = self.args.loops.iter().map(|l| l.n).product();
        let x = self.first.x.wrapping_add(oy * d.y.stride * d.xs.row + ox * d.x.stride * d.xs.px);
        let y = self.y_at + oy * d.ys.row + ox * d.ys.px;
        let tiles = Steps { n, x: kind.mr * self.pixel.0, y: kind.mr * self.pixel.1 };
        // A call fetches weights of one block: as many calls as there are blocks to fetch.
        for (row, rows) in pieces(rows, rows.div_ceil(following.blocks.max(1)).max(1)) {
            self.args.soon = following.take(n * rows * steps * Soon::step(kind.mr * kind.cols));
            self.args.sweep = Sweep { tiles, rows: Steps { n: rows, x: self.row.0, y: self.row.1 } };
            self.args.x = x.wrapping_add(row * self.row.0);
            let y = y + row * self.row.1;
            self.args.out.y = run.y.at(y);
            if let (Some(f), Some(first)) = (&mut self.args.out.finish, &self.first.out.finish)
                && !first.residual.is_null()
            {
                f.residual = first.residual.wrapping_add(y);
            }
            // SAFETY:
            // * the level is available, and the tensors reach as far as their strides say (asserted in `job`);
            // * the tiles' pixels lie in one segment of each axis, whose tap ranges keep every tap inside the input (edge
            //   tiles: inner pixels have all taps, and the first and the last sit out those that they lack), and channels
            //   stay below the input's (blocked: below its whole blocks); of a compact input, the block's pixels are in scratch;
            // * the weights' offset stays inside `packed_len`: block, step and tap are below their extents;
            // * outputs are the row's pixels of the image and its blocks, of which `cols` channels exist and are the group's; parts of a
            //   run have disjoint images, rows, columns or panels, so no two threads write the same one.
            unsafe { (kind.run)(&self.args) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn following_weights_are_taken_once_and_in_order() {
        let w = [0.0f32; 400];
        let mut following = Following { w: w.as_ptr(), blocks: 2, len: 100, stride: 300, done: 0 };
        let mut take = |floats| {
            let soon = following.take(floats);
            [soon.from, soon.end].map(|p| (p as usize).wrapping_sub(w.as_ptr() as usize) / 4)
        };
        assert_eq!(take(64), [0, 100]);
        assert_eq!(take(64), [64, 100]);
        assert_eq!(take(1000), [300, 400]);
        let none = following.take(64);
        assert!(none.from.is_null() && none.end.is_null());
    }
}
