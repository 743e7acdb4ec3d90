//! The products of a chunk with one or two blocks of output channels, and their way to the output with bias, residual and
//! activation.

use core::ops::Range;

use super::tile_start;
use crate::isa::matrix::{LINE, MAX_TILES, TILE, TileProduct, Tiles};
use crate::isa::{Isa, Kernel};
use crate::layout::BLOCK;
use crate::tile::{Output, Strand};

/// Runs of adjacent output pixels, cut into tiles; the last tile of a run overlaps the one before it. Steps in floats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    /// Runs.
    pub lines: usize,
    /// Pixels of a run.
    pub length: usize,
    /// Pixels of a tile.
    pub rows: usize,
    /// From run to run in the split inputs.
    pub line: usize,
    /// From pixel to pixel there.
    pub pixel: usize,
    /// From so many tiles to the next in the split inputs, where they are rows of their own.
    pub group: Option<usize>,
}

/// A tile of pixels.
#[derive(Clone, Copy)]
struct Place {
    /// Its first pixel, in floats of the split inputs.
    split: usize,
    /// Pixels at its start that the tile before it stores.
    skip: usize,
    /// Its first pixel, in pixels of the output.
    pixel: usize,
}

impl Places {
    /// Tiles of a run.
    fn across(&self) -> usize {
        self.length.div_ceil(self.rows)
    }

    #[inline(always)]
    fn place(&self, line: usize, i: usize) -> Place {
        let start = |tile: usize| tile_start(tile, self.rows, self.length);
        let x = start(i);
        let split = match self.group {
            None => line * self.line + x * self.pixel,
            Some(group) => {
                let row = i / MAX_TILES;
                row * group + (x - start(row * MAX_TILES)) * self.pixel
            }
        };
        Place { split, skip: i * self.rows - x, pixel: line * self.length + x }
    }
}

/// What [`Panel`] works on.
#[derive(Clone, Copy, Debug)]
pub(super) struct PanelArgs {
    /// The tile registers.
    pub tiles: *const Tiles,
    /// The product of the first tile; `second` is not looked at.
    pub product: TileProduct,
    /// All tiles.
    pub places: Places,
    /// Blocks of output channels.
    pub blocks: usize,
    /// The first pixel and channel.
    pub out: Output,
}

/// The body.
pub(super) struct Panel;

/// Pixels that are stored together.
const GROUP: usize = 4;

impl<I: Isa> Kernel<I> for Panel {
    type Args = PanelArgs;

    /// # Safety
    /// * `tiles` is alive, and shaped for tiles of `places`;
    /// * `product` is as [`Tiles::multiply`] asks for each pair of tiles that follow each other in `places`;
    /// * `out` is as `Output::store` asks for all pixels of `places` and these blocks.
    #[inline(always)]
    unsafe fn run(s: I, a: &PanelArgs) {
        let strands = [a.out.strand(0), a.out.strand(a.blocks - 1)];
        let (across, all) = (a.places.across(), a.places.lines * a.places.across());
        let mut next = [0, 0];
        let mut place = || {
            let place = a.places.place(next[0], next[1]);
            next = if next[1] + 1 == across { [next[0] + 1, 0] } else { [next[0], next[1] + 1] };
            place
        };
        for tile in (0..all).step_by(MAX_TILES) {
            let count = (all - tile).min(MAX_TILES);
            let first = place();
            let second = if count > 1 { place() } else { first };
            let product = TileProduct {
                pixels: a.product.pixels.wrapping_add(first.split),
                second: (second.split as isize - first.split as isize) * size_of::<f32>() as isize,
                ..a.product
            };
            // SAFETY: the same contract.
            unsafe {
                (*a.tiles).multiply(&product, [count, a.blocks]);
                for (i, place) in [first, second].into_iter().enumerate().take(count) {
                    for (b, strand) in strands.iter().enumerate().take(a.blocks) {
                        let sums = product.sums.wrapping_add((i * a.blocks + b) * TILE);
                        store(s, strand, sums, place.skip..a.places.rows, place.pixel * a.out.px, a.out.px);
                    }
                }
            }
        }
    }
}

/// Stores some pixels of a tile of sums, the first of which goes `y` floats from the strand's start.
///
/// # Safety
/// As for [`Strand::store`], for these pixels; `sums` is readable for them.
#[inline(always)]
unsafe fn store<I: Isa>(s: I, strand: &Strand, sums: *const f32, pixels: Range<usize>, y: usize, px: usize) {
    for v in 0..BLOCK / I::LANES {
        let sums = sums.wrapping_add(v * I::LANES);
        // SAFETY: the same contract.
        unsafe {
            if pixels.len() < GROUP {
                for i in pixels.clone() {
                    group::<I, 1>(s, strand, v, sums, i, y, px);
                }
            } else {
                // The last group overlaps the one before it.
                for i in pixels.clone().step_by(GROUP) {
                    group::<I, GROUP>(s, strand, v, sums, i.min(pixels.end - GROUP), y, px);
                }
            }
        }
    }
}

/// # Safety
/// As for [`store`], for `N` pixels from `first` on.
#[inline(always)]
unsafe fn group<I: Isa, const N: usize>(
    s: I,
    strand: &Strand,
    v: usize,
    sums: *const f32,
    first: usize,
    y: usize,
    px: usize,
) {
    let mut acc = [s.zero(); N];
    // SAFETY: the same contract.
    unsafe {
        for i in 0..N {
            acc[i] = s.load(sums.add((first + i) * LINE));
        }
        strand.store::<I, N>(s, v, y + first * px, acc);
    }
}
