//! Floats of the input, cut into their three bf16 parts.

use crate::isa::matrix::{LINE, PARTS};
use crate::isa::{Isa, Kernel};
use crate::layout::BLOCK;

/// Some pixels of a row, at 32 channels. Steps in floats.
#[derive(Clone, Copy, Debug)]
pub(super) struct SplitArgs {
    /// The first pixel's first block of channels.
    pub x: *const f32,
    /// From it to the second block.
    pub block: usize,
    /// Channels of the two blocks that exist.
    pub channels: [usize; 2],
    /// Pixels.
    pub pixels: usize,
    /// From pixel to pixel.
    pub px: usize,
    /// The first pixel's high parts; those of the next pixel follow.
    pub to: *mut f32,
    /// From the high parts to the middle ones, and from those to the low ones.
    pub part: usize,
}

/// The body.
pub(super) struct Split;

impl<I: Isa> Kernel<I> for Split {
    type Args = SplitArgs;

    /// # Safety
    /// * `x` is readable for the channels that exist of so many pixels;
    /// * `to` is writable for a line of each pixel in each part.
    #[inline(always)]
    unsafe fn run(s: I, a: &SplitArgs) {
        // SAFETY: the same contract.
        unsafe {
            if a.channels == [BLOCK; 2] {
                pixels::<I, true>(s, a);
            } else {
                pixels::<I, false>(s, a);
            }
        }
    }
}

/// # Safety
/// As for [`Split`]; `WHOLE` if both blocks exist whole.
#[inline(always)]
unsafe fn pixels<I: Isa, const WHOLE: bool>(s: I, a: &SplitArgs) {
    for v in (0..BLOCK).step_by(I::LANES) {
        let [first, second] = a.channels.map(|n| n.saturating_sub(v).min(I::LANES));
        for i in 0..a.pixels {
            let x = a.x.wrapping_add(i * a.px + v);
            let y = x.wrapping_add(a.block);
            // SAFETY: the caller vouches for the channels that exist, and for the pixel's lines.
            unsafe {
                let (x, y) =
                    if WHOLE { (s.load(x), s.load(y)) } else { (s.load_partial(x, first), s.load_partial(y, second)) };
                let parts = s.bf16_pairs(x, y);
                for part in 0..PARTS {
                    s.store(a.to.add(part * a.part + i * LINE + v), parts[part]);
                }
            }
        }
    }
}
