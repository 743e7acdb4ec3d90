//! One run of a convolution on a matrix unit: from chunks down to its three kernels.

use core::ops::Range;

use super::{Bf16x6, Image, PanelArgs, Places, SUMS, SplitArgs, pairs, tile_rows, tile_start};
use crate::exec::{self, Executor, Shared, for_each_part_with, parts_wanted};
use crate::isa::matrix::{LINE, MAX_TILES, PARTS, TILE, TileProduct, Tiles};
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

/// Some units of an image, and their split inputs.
struct Chunk {
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
        // Threads share out the output channels of a single chunk whose weights are longer than its inputs, which each of them splits.
        let by_channels = images * cuts < threads && d.packed_len() > d.image_len(units);
        let groups = if by_channels { threads.min(pairs(blocks(d.shape.oc)).count()) } else { 1 };
        // Else as many chunks for each thread, if there are not many.
        if !by_channels && images * cuts < parts_wanted(threads) {
            while cuts < units && !(images * cuts).is_multiple_of(threads) {
                cuts += 1;
            }
        }
        for_each_part_with(executor, images * cuts * groups, scratch, d.scratch_len(), |i, scratch| {
            let (n, cut, group) = (i / groups / cuts, i / groups % cuts, i % groups);
            let chunk = self.chunk(n, exec::cut(units, cuts, cut));
            let (image, sums) = scratch.split_at_mut(scratch.len() - SUMS);
            self.split(&chunk, image);
            let pairs = pairs(blocks(d.shape.oc));
            let all = pairs.clone().count();
            let some = exec::cut(all, groups, group);
            d.unit.with_tiles(tile_rows(chunk.length), |tiles| {
                pairs.take(some.end).skip(some.start).for_each(|pair| self.multiply(&chunk, image, pair, tiles, sums));
            });
        });
    }

    fn chunk(&self, n: usize, units: Range<usize>) -> Chunk {
        let (lines, length) = self.d.lines(units.len());
        Chunk { n, image: self.d.image(units.len()), units, lines, length }
    }

    /// Splits a chunk's inputs.
    fn split(&self, chunk: &Chunk, to: &mut [f32]) {
        if self.d.shape.is_pointwise() { self.split_pixels(chunk, to) } else { self.split_rows(chunk, to) }
    }

    /// Those of pixels one by one, of which two tiles make a row.
    fn split_pixels(&self, chunk: &Chunk, to: &mut [f32]) {
        let d = self.d;
        let s = &d.shape;
        let Image { rows, width, every } = chunk.image;
        let tile = tile_rows(chunk.length);
        // Input rows without gaps between them are one.
        let gapless = (every, d.xs.row) == ([1, 1], s.iw * d.xs.px);
        for row in 0..rows {
            let start = tile_start(row * MAX_TILES, tile, chunk.length);
            let (mut at, end) = (start, (row * width + width).min(chunk.length));
            while at < end {
                let pixel = chunk.units.start + at;
                let (y, x) = (pixel / s.ow, pixel % s.ow);
                let pixels = if gapless { end - at } else { (s.ow - x).min(end - at) };
                self.pixels(chunk, [y * every[0], x * every[1]], pixels, row, at - start, to);
                at += pixels;
            }
        }
    }

    /// Those of rows, with the padding around them.
    fn split_rows(&self, chunk: &Chunk, to: &mut [f32]) {
        let d = self.d;
        let s = &d.shape;
        let Image { rows, width, every } = chunk.image;
        // Columns that lie in the image: the others are padding.
        let first = s.pad.left.div_ceil(every[1]).min(width);
        let end = (s.iw + s.pad.left).div_ceil(every[1]).clamp(first, width);
        for row in 0..rows {
            let y = (chunk.units.start * s.sh + row * every[0]).wrapping_sub(s.pad.top);
            let inside = if y < s.ih && first < end { first..end } else { 0..0 };
            let row_len = d.depths() * chunk.image.channels();
            for line in to[row * row_len..][..row_len].chunks_exact_mut(chunk.image.part()) {
                line[..inside.start * LINE].fill(0.0);
                line[inside.end * LINE..].fill(0.0);
            }
            if !inside.is_empty() {
                let x = inside.start * every[1] - s.pad.left;
                self.pixels(chunk, [y, x], inside.len(), row, inside.start, to);
            }
        }
    }

    /// Splits some pixels of an input row from `[y, x]` on, to some row and column of the split inputs.
    fn pixels(&self, chunk: &Chunk, [y, x]: [usize; 2], pixels: usize, row: usize, column: usize, to: &mut [f32]) {
        let d = self.d;
        let image = &chunk.image;
        // Blocked input has whole blocks.
        let exist = if d.input == Layout::Blocked { blocks(d.shape.ic) * BLOCK } else { d.shape.ic };
        let channels = |block: usize| exist.saturating_sub(block * BLOCK).min(BLOCK);
        for depth in 0..d.depths() {
            let to = &mut to[(row * d.depths() + depth) * image.channels()..][..image.channels()];
            let first = chunk.n * d.xs.n + 2 * depth * d.xs.block + y * d.xs.row + x * d.xs.px;
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

    /// One or two blocks of output channels of a chunk.
    fn multiply(&self, chunk: &Chunk, image: &[f32], (first, blocks): (usize, usize), tiles: &Tiles, sums: &mut [f32]) {
        let d = self.d;
        let s = &d.shape;
        let Image { every, .. } = chunk.image;
        let row = chunk.image.channels() * d.depths();
        // In the split inputs, which lack the rows and columns that no output takes.
        let [line, pixel] = [s.sh / every[0] * row, s.sw / every[1] * LINE];
        // The dilation of a single tap means nothing, and may be any number.
        let [tap_y, tap_x] = [if s.kh > 1 { s.dh * row } else { 0 }, if s.kw > 1 { s.dw * LINE } else { 0 }];
        let bytes = |floats: usize| floats * size_of::<f32>();
        let product = TileProduct {
            pixels: image.as_ptr(),
            second: 0,
            pixel: bytes(pixel),
            part: bytes(chunk.image.part()),
            channels: bytes(chunk.image.channels()),
            next_column: bytes(tap_x) as isize - bytes(row) as isize,
            next_row: bytes(tap_y) as isize - bytes(s.kw * tap_x) as isize,
            counts: [d.depths(), s.kw, s.kh],
            weights: self.w[first * s.kh * s.kw * d.depths() * PARTS * TILE..].as_ptr(),
            sums: sums.as_mut_ptr(),
        };
        let rows = tile_rows(chunk.length);
        let group = s.is_pointwise().then_some(row);
        let y_at = chunk.n * d.ys.n + first * d.ys.block + chunk.units.start * d.unit_pixels() * d.ys.px;
        let args = PanelArgs {
            tiles,
            product,
            places: Places { lines: chunk.lines, length: chunk.length, rows, line, pixel, group },
            blocks,
            out: Output::new(&self.y, y_at, &d.ys, d.output, first * BLOCK..s.oc, &self.finish),
        };
        // SAFETY: the level is available; the windows of a chunk's pixels lie in its split inputs; weights are packed for all taps and
        // channels of each block; there are sums for two tiles by two; the pixels are in the output, and no other chunk or group has
        // these blocks of them.
        unsafe { (d.row.panel)(&args) };
    }
}
