//! One run of a convolution on a matrix unit: from parts of the work down to its three kernels.

use core::ops::Range;

use super::{Bf16x6, Image, PanelArgs, Places, SUMS, SplitArgs, pairs, tile_rows};
use crate::exec::{Executor, Shared, for_each_part_with};
use crate::isa::matrix::{LINE, PARTS, TILE, TileProduct, Tiles};
use crate::layout::{BLOCK, Layout, blocks};
use crate::tile::{Output, SyncFinish};

/// One run: the plan and its tensors.
pub(super) struct Run<'a> {
    pub d: &'a Bf16x6,
    pub x: &'a [f32],
    pub w: &'a [f32],
    pub y: Shared<'a>,
    pub finish: SyncFinish,
}

/// Some rows of an image's output, or pixels where it is pointwise, and their split inputs.
struct Part {
    n: usize,
    units: Range<usize>,
    image: Image,
    /// Runs of adjacent output pixels, and how long each is.
    lines: usize,
    length: usize,
}

impl Run<'_> {
    /// Computes everything, with scratch of at least [`Bf16x6::scratch_len`] floats.
    pub fn all(&self, scratch: &mut [f32], executor: &dyn Executor) {
        let (d, threads) = (self.d, executor.threads());
        let (units, images) = (d.units(), d.shape.n);
        let mut cuts = units.div_ceil(d.most).max(1);
        // Threads share out the output channels of a single part whose weights are longer than its inputs, which each of them splits.
        let by_channels = images * cuts < threads && d.packed_len() > d.image_len(units);
        let groups = if by_channels { threads.min(pairs(blocks(d.shape.oc)).count()) } else { 1 };
        // Else as many parts for each thread, if there are not many.
        if !by_channels && images * cuts < 4 * threads {
            while cuts < units && !(images * cuts).is_multiple_of(threads) {
                cuts += 1;
            }
        }
        for_each_part_with(executor, images * cuts * groups, scratch, d.scratch_len(), |i, scratch| {
            let (n, cut, group) = (i / groups / cuts, i / groups % cuts, i % groups);
            let part = self.part(n, units * cut / cuts..units * (cut + 1) / cuts);
            let (image, sums) = scratch.split_at_mut(scratch.len() - SUMS);
            self.split(&part, image);
            let pairs = pairs(blocks(d.shape.oc));
            let all = pairs.clone().count();
            let (first, end) = (all * group / groups, all * (group + 1) / groups);
            d.unit.with_tiles(tile_rows(part.length), |tiles| {
                pairs.take(end).skip(first).for_each(|pair| self.multiply(&part, image, pair, tiles, sums));
            });
        });
    }

    fn part(&self, n: usize, units: Range<usize>) -> Part {
        let (image, count) = (self.d.image(units.len()), units.len());
        let (lines, length) = if self.d.is_pointwise() { (1, count) } else { (count, self.d.shape.ow) };
        Part { n, units, image, lines, length }
    }

    /// Splits a part's inputs.
    fn split(&self, part: &Part, to: &mut [f32]) {
        let d = self.d;
        let s = &d.shape;
        let Image { rows, width, every } = part.image;
        if d.is_pointwise() {
            let count = part.units.len();
            let rows_of_tile = tile_rows(count);
            for row in 0..rows {
                let start = (row * width).min(count - rows_of_tile);
                let (mut at, end) = (start, (row * width + width).min(count));
                while at < end {
                    let pixel = part.units.start + at;
                    let (y, x) = (pixel / s.ow, pixel % s.ow);
                    // Rows without gaps between them are one.
                    let whole = if (every, d.xs.row) == ([1, 1], s.iw * d.xs.px) { end - at } else { s.ow - x };
                    let pixels = whole.min(end - at);
                    self.pixels(part, [y * every[0], x * every[1]], pixels, row, at - start, to);
                    at += pixels;
                }
            }
            return;
        }
        // Columns that lie in the image: the others are padding.
        let first = s.pad.left.div_ceil(every[1]).min(width);
        let end = (s.iw + s.pad.left).div_ceil(every[1]).clamp(first, width);
        for row in 0..rows {
            let y = (part.units.start * s.sh + row * every[0]).wrapping_sub(s.pad.top);
            let inside = if y < s.ih && first < end { first..end } else { 0..0 };
            let row_len = d.depths() * part.image.channels();
            for line in to[row * row_len..][..row_len].chunks_exact_mut(part.image.part()) {
                line[..inside.start * LINE].fill(0.0);
                line[inside.end * LINE..].fill(0.0);
            }
            if !inside.is_empty() {
                let x = inside.start * every[1] - s.pad.left;
                self.pixels(part, [y, x], inside.len(), row, inside.start, to);
            }
        }
    }

    /// Splits some pixels of an input row from `[y, x]` on, to some row and column of the split inputs.
    fn pixels(&self, part: &Part, [y, x]: [usize; 2], pixels: usize, row: usize, column: usize, to: &mut [f32]) {
        let d = self.d;
        let image = &part.image;
        let channels = |block: usize| match d.xs.block == BLOCK {
            true => d.shape.ic.saturating_sub(block * BLOCK).min(BLOCK),
            // Blocked input has whole blocks.
            false if block < blocks(d.shape.ic) => BLOCK,
            false => 0,
        };
        for depth in 0..d.depths() {
            let to = &mut to[(row * d.depths() + depth) * image.channels()..][..image.channels()];
            let first = part.n * d.xs.n + 2 * depth * d.xs.block + y * d.xs.row + x * d.xs.px;
            let args = SplitArgs {
                x: self.x[first..].as_ptr(),
                block: d.xs.block,
                channels: [channels(2 * depth), channels(2 * depth + 1)],
                pixels,
                px: image.every[1] * d.xs.px,
                to: to[column * LINE..].as_mut_ptr(),
                part: image.part(),
            };
            debug_assert!((PARTS - 1) * image.part() + (column + pixels) * LINE <= to.len());
            // SAFETY: the level is available; the pixels lie inside the image, whose length `forward` has asserted, and inside their
            // row of the split inputs.
            unsafe { (d.row.split)(&args) };
        }
    }

    /// One or two blocks of output channels of a part.
    fn multiply(&self, part: &Part, image: &[f32], (first, blocks): (usize, usize), tiles: &Tiles, sums: &mut [f32]) {
        let d = self.d;
        let s = &d.shape;
        let row = part.image.channels() * d.depths();
        // Of a single row or column of taps, only the inputs that it meets are there.
        let [line, tap_y] = if s.kh > 1 { [s.sh * row, s.dh * row] } else { [row, 0] };
        let [pixel, tap_x] = if s.kw > 1 { [s.sw * LINE, s.dw * LINE] } else { [LINE, 0] };
        let bytes = |floats: usize| floats * size_of::<f32>();
        let product = TileProduct {
            pixels: image.as_ptr(),
            second: 0,
            pixel: bytes(pixel),
            part: bytes(part.image.part()),
            channels: bytes(part.image.channels()),
            next_column: bytes(tap_x) as isize - bytes(row) as isize,
            next_row: bytes(tap_y) as isize - bytes(s.kw * tap_x) as isize,
            counts: [d.depths(), s.kw, s.kh],
            weights: self.w[first * s.kh * s.kw * d.depths() * PARTS * TILE..].as_ptr(),
            sums: sums.as_mut_ptr(),
        };
        let rows = tile_rows(part.length);
        let group = d.is_pointwise().then_some(row);
        let start = part.units.start * if d.is_pointwise() { 1 } else { s.ow };
        let y_at = part.n * d.ys.n + first * d.ys.block + start * d.ys.px;
        let args = PanelArgs {
            tiles,
            product,
            places: Places { lines: part.lines, length: part.length, rows, line, pixel, group },
            blocks,
            out: Output {
                y: self.y.at(y_at),
                px: d.ys.px,
                block: d.ys.block,
                channel: d.ys.channel,
                cols: s.oc - first * BLOCK,
                pad_cols: d.output == Layout::Blocked,
                finish: Some(self.finish.0.at(first * BLOCK, y_at)),
            },
        };
        // SAFETY: the level is available; the windows of a part's pixels lie in its split inputs; weights are packed for all taps and
        // channels of each block; there are sums for two tiles by two; the pixels are in the output, and no other part has these
        // blocks of them.
        unsafe { (d.row.panel)(&args) };
    }
}
