//! One run of a direct convolution: from parts down to tiles.

use core::ops::Range;

use super::Direct;
use super::blocking::Part;
use crate::exec::Shared;
use crate::layout::{BLOCK, Layout, blocks};
use crate::region::Segment;
use crate::tile::{Loop, Output, SyncFinish, Taps, TileArgs, TileSet, pieces};

/// One run: the plan and its tensors.
pub(super) struct Run<'a> {
    pub d: &'a Direct,
    pub x: &'a [f32],
    pub w: &'a [f32],
    pub y: Shared<'a>,
    pub finish: SyncFinish,
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
    /// Computes one part of the output.
    pub fn part(&self, part: &Part) {
        let b = self.d.blocking;
        let cut = |r: &Range<usize>, step: usize| {
            let end = r.end;
            r.clone().step_by(step).map(move |at| at..(at + step).min(end))
        };
        for n in cut(&part.n, b.images) {
            for y in cut(&part.y, b.rows) {
                for x in cut(&part.x, b.cols) {
                    for panel in part.panels.clone() {
                        self.panel(panel * b.panel, &n, &y, &x);
                    }
                }
            }
        }
    }

    /// One panel of output channels of a block of images or rows, chunk by chunk.
    fn panel(&self, ocb: usize, n: &Range<usize>, ys: &Range<usize>, xs: &Range<usize>) {
        let (d, b) = (self.d, self.d.blocking);
        let channels = d.channels(ocb);
        let total = d.steps(&channels).len();
        // With edge tiles a row is one segment: its border pixels sit out the taps that they lack.
        let whole = d.edges.is_some().then(|| Segment { out: xs.clone(), taps: 0..d.shape.kw });
        for s0 in (0..total).step_by(b.chunk.min(total)) {
            let steps = s0..(s0 + b.chunk).min(total);
            for n in n.clone() {
                for y in d.y.segments(ys.clone()) {
                    let region = |x| Region {
                        y: y.clone(),
                        x,
                        n,
                        ocb,
                        blocks: b.panel.min(blocks(d.shape.oc) - ocb),
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
