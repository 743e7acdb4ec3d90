//! One run of a depthwise convolution: from strips of a plane down to sweeps.

use core::ops::Range;

use super::lanes::{INDEX, LaneArgs, MAX_VECTORS};
use super::table::{Runs, Source};
use super::{BAND_RUNS, Depthwise, Input};
use crate::exec::cut;
use crate::layout::{BLOCK, Layout};
use crate::region::Segment;
use crate::tile::{Finish, Output};

/// Some output planes of one run: blocks of one image.
pub(super) struct Run<'a> {
    pub d: &'a Depthwise,
    pub x: Input<'a>,
    pub w: &'a [f32],
    /// Output pixel (0, 0) of the first plane, which may lie outside of the output where a strip of it is computed in scratch.
    pub y: *mut f32,
    /// Of that pixel.
    pub finish: Finish,
    /// The first block.
    pub ocb: usize,
    /// How many; other than one only with [`Depthwise::alike`].
    pub planes: usize,
}

impl Run<'_> {
    /// Computes some rows of the planes.
    pub fn strip(&self, rows: Range<usize>) {
        let d = self.d;
        // A permutation's lane numbers take as long to make as a small plane to compute.
        let index;
        let index = if d.source == Source::Permuted {
            index = self.index();
            index.as_ptr()
        } else {
            core::ptr::null()
        };
        let mut args = self.args(index);
        if let Some(sweep) = self.x.sweep {
            self.sweep(&mut args, rows.clone(), sweep.columns.clone(), sweep.hangs, &sweep.runs);
            if sweep.columns.len() == d.shape.ow {
                return;
            }
        }
        let swept = self.x.sweep.map_or(0..0, |s| s.columns.clone());
        for x in d.x.segments(0..d.shape.ow).filter(|x| !swept.contains(&x.out.start)) {
            for y in d.y.segments(rows.clone()) {
                self.region(&mut args, &y, &x);
            }
        }
    }

    /// Whole columns, with the rows' ends and the upper and lower border, in one call; those of pixels that lie apart, of which every
    /// one takes up to two cache lines, in bands of which a kernel's rows stay in L1.
    fn sweep(&self, args: &mut LaneArgs, rows: Range<usize>, columns: Range<usize>, hangs: [bool; 2], runs: &Runs) {
        let apart = runs.row.source == Source::Apart;
        let most = (self.d.band() / runs.row.mr).max(2 * BAND_RUNS);
        let bands = if apart { runs.count.div_ceil(most) } else { 1 };
        for band in 0..bands {
            let of = cut(runs.count, bands, band);
            let hangs = [hangs[0] && band == 0, hangs[1] && band + 1 == bands];
            let end = (columns.start + of.end * runs.row.mr).min(columns.end);
            let columns = columns.start + of.start * runs.row.mr..end;
            self.band(args, rows.clone(), columns, hangs, &Runs { count: of.len(), ..*runs });
        }
    }

    /// Some columns.
    fn band(&self, args: &mut LaneArgs, rows: Range<usize>, columns: Range<usize>, hangs: [bool; 2], runs: &Runs) {
        let d = self.d;
        let s = &d.shape;
        args.x = self.first_tap(0, (columns.start * s.sw) as isize - s.pad.left as isize);
        args.w = self.weights(0);
        (args.first_line, args.end_line) = (rows.start, rows.end);
        (args.x_line, args.y_line) = (s.sh * self.x.strides.row, d.ys.row);
        (args.rows, args.above, args.height, args.step) = (s.kh, s.pad.top, s.ih, s.sh);
        (args.taps, args.px) = (s.kw, s.sw * self.x.strides.px);
        args.width = columns.len();
        (args.left, args.right) = (hangs[0], hangs[1]);
        args.out.px = d.ys.px;
        self.run(args, columns.start * d.ys.px, runs);
    }

    /// A region whose pixels have all the same taps, taken one by one.
    fn region(&self, args: &mut LaneArgs, y: &Segment, x: &Segment) {
        let d = self.d;
        let s = &d.shape;
        // Border columns are taller than wide: lines go down.
        let down = x.out.len() < y.out.len().min(4);
        let (row, column) = ((s.sh * self.x.strides.row, d.ys.row), (s.sw * self.x.strides.px, d.ys.px));
        let (line, pixel) = if down { (column, row) } else { (row, column) };
        let (lines, width) = if down { (&x.out, y.out.len()) } else { (&y.out, x.out.len()) };
        args.x = self.first_tap(
            (y.taps.start * s.dh + if down { y.out.start * s.sh } else { 0 }) as isize,
            (x.taps.start * s.dw + if down { 0 } else { x.out.start * s.sw }) as isize - s.pad.left as isize,
        );
        args.w = self.weights(y.taps.start * s.kw + x.taps.start);
        (args.first_line, args.end_line) = (lines.start, lines.end);
        (args.x_line, args.y_line) = (line.0, line.1);
        (args.rows, args.above, args.height, args.step) = (y.taps.len(), 0, y.taps.len(), 0);
        (args.taps, args.px, args.out.px) = (x.taps.len(), pixel.0, pixel.1);
        args.width = width;
        (args.left, args.right) = (false, false);
        let runs = Runs::choose(d.core, d.any.iter(), width, [false; 2]).expect("there are runs of one pixel");
        let start = if down { y.out.start } else { x.out.start };
        self.run(args, start * pixel.1, &runs);
    }

    /// Input of a tap at a row and a column relative to the first row's and the first column's, which may lie outside.
    fn first_tap(&self, row: isize, column: isize) -> *const f32 {
        let d = self.d;
        let row = row - (d.shape.pad.top + self.x.row) as isize;
        let at = (self.x.image * self.x.strides.n) as isize
            + row * self.x.strides.row as isize
            + column * self.x.strides.px as isize;
        self.x.x.as_ptr().wrapping_offset(at)
    }

    fn weights(&self, tap: usize) -> *const f32 {
        let s = &self.d.shape;
        self.w.as_ptr().wrapping_add((self.ocb * s.icg() * s.kh * s.kw + tap) * BLOCK)
    }

    /// What all sweeps of the planes have in common; the rest is set by `sweep` and `region`.
    fn args(&self, index: *const u32) -> LaneArgs {
        let d = self.d;
        let s = &d.shape;
        let first = self.ocb * BLOCK;
        // Blocked output has vectors beyond the last channel, which become zeros when a line is finished.
        let vectors = BLOCK.min(s.oc - first).div_ceil(d.core.level.lanes());
        let (mut x_vector, mut head) = ([0; MAX_VECTORS], [0; MAX_VECTORS]);
        for (v, (x, head)) in x_vector.iter_mut().zip(&mut head).enumerate().take(vectors) {
            let source = self.source(v);
            let (block, channel) = ((source / BLOCK - self.x.block) * self.x.strides.block, source % BLOCK);
            (*x, *head) = if d.source == Source::One { (block, channel) } else { (block + channel, 0) };
        }
        LaneArgs {
            x: self.x.x.as_ptr(),
            w: self.w.as_ptr(),
            groups: s.icg(),
            x_block: self.x.strides.block,
            w_group: s.kh * s.kw * BLOCK,
            index,
            first_line: 0,
            end_line: 0,
            x_line: 0,
            y_line: 0,
            rows: 0,
            x_row: s.dh * self.x.strides.row,
            w_row: s.kw * BLOCK,
            above: 0,
            height: 0,
            step: 0,
            taps: 0,
            x_tap: s.dw * self.x.strides.px,
            px: 0,
            width: 0,
            runs: 0,
            left: false,
            right: false,
            planes: self.planes,
            x_plane: self.x.strides.block,
            w_plane: s.icg() * s.kh * s.kw * BLOCK,
            vectors,
            x_vector,
            head,
            out: Output {
                y: self.y,
                px: d.ys.px,
                block: d.ys.block,
                channel: d.ys.channel,
                cols: s.oc - first,
                pad_cols: d.written() == Layout::Blocked,
                finish: Some(self.finish),
            },
        }
    }

    /// The input channel that a vector's lane numbers count from.
    fn source(&self, v: usize) -> usize {
        let d = self.d;
        let s = &d.shape;
        let lanes = d.core.level.lanes();
        let first = self.ocb * BLOCK + v * lanes;
        match d.source {
            Source::Own | Source::Apart => first,
            Source::Permuted => first.min(s.oc - 1) / s.ocg() * s.icg() / lanes * lanes,
            Source::One => first.min(s.oc - 1) / s.ocg() * s.icg(),
        }
    }

    fn index(&self) -> [u32; MAX_VECTORS * INDEX] {
        let s = &self.d.shape;
        let lanes = self.d.core.level.lanes();
        let mut index = [0; MAX_VECTORS * INDEX];
        for v in 0..BLOCK / lanes {
            let source = self.source(v);
            for lane in 0..lanes {
                let channel = (self.ocb * BLOCK + v * lanes + lane).min(s.oc - 1);
                let from = (channel / s.ocg() * s.icg() - source) as u32;
                for j in 0..s.icg() {
                    index[v * INDEX + j * BLOCK + lane] = from + j as u32;
                }
            }
        }
        index
    }

    /// Sweeps; output (0, 0) of the lines is `y` floats from the plane's start.
    fn run(&self, args: &mut LaneArgs, y: usize, runs: &Runs) {
        args.runs = runs.count;
        args.out.y = self.y.wrapping_add(y);
        args.out.finish = Some(self.finish.at(0, y));
        // SAFETY:
        // * the level is available and the tensors reach as far as their strides say (asserted in `job` and `rows`), or the scratch holds
        //   the strip's rows of a plane (asserted in `strip_in_scratch`) or of all planes (in `rows`);
        // * runs are no longer than the line (`Runs::choose`), and cover it by their count;
        // * `sweep`: lines skip the rows of taps above and below the input; its columns have all taps of a row inside, or they
        //   are the whole row, and what hangs over its ends is what the kernel leaves out there, in its first and last run
        //   alone (`Runs::choose`);
        // * planes that go together draw from blocks of the same distance, and are blocks of one image;
        // * `region`: its pixels lie in one segment of each axis, whose tap ranges keep every tap inside the input;
        // * `block_input` has copied all rows that the strip's taps meet, of all blocks that the plane draws from;
        // * the lanes of a vector draw from one vector of the input, by the check in `new`, or all from one channel;
        // * parts of a run have disjoint planes or rows, so no two threads write the same output.
        unsafe { (runs.row.run)(args) };
    }
}
