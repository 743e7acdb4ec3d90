//! The sums of tiles, with bias, residual and activation, on their way to the output.

use crate::isa::matrix::{LINE, TILE};
use crate::isa::{Isa, Kernel};
use crate::layout::BLOCK;
use crate::tile::{Output, Strand};

/// One tile of pixels, at one or two blocks of output channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreArgs {
    /// Sums of the first pixel that is stored, at the first block; a tile on, those at the next block.
    pub sums: *const f32,
    /// Pixels.
    pub pixels: usize,
    /// Blocks.
    pub blocks: usize,
    /// Where they go.
    pub out: Output,
}

/// The body.
pub(super) struct StoreTile;

/// Pixels that go together.
const GROUP: usize = 4;

impl<I: Isa> Kernel<I> for StoreTile {
    type Args = StoreArgs;

    /// # Safety
    /// * `sums` is readable for the pixels and blocks;
    /// * `out` is as `Output::store_by_buffer` asks for them.
    #[inline(always)]
    unsafe fn run(s: I, a: &StoreArgs) {
        for b in 0..a.blocks {
            let strand = a.out.strand(b);
            let sums = a.sums.wrapping_add(b * TILE);
            for v in 0..BLOCK / I::LANES {
                let sums = sums.wrapping_add(v * I::LANES);
                let groups = a.pixels / GROUP;
                // SAFETY: the same contract.
                unsafe {
                    for group in 0..groups {
                        pixels::<I, GROUP>(s, &strand, v, sums, group * GROUP, a.out.px);
                    }
                    for pixel in groups * GROUP..a.pixels {
                        pixels::<I, 1>(s, &strand, v, sums, pixel, a.out.px);
                    }
                }
            }
        }
    }
}

/// # Safety
/// As for [`StoreTile`], for `N` pixels from `first` on.
#[inline(always)]
unsafe fn pixels<I: Isa, const N: usize>(s: I, strand: &Strand, v: usize, sums: *const f32, first: usize, px: usize) {
    // SAFETY: the same contract.
    unsafe {
        let mut acc = [s.zero(); N];
        for i in 0..N {
            acc[i] = s.load(sums.add((first + i) * LINE));
        }
        strand.store::<I, N>(s, v, first * px, acc);
    }
}
