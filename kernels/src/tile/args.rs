//! What a tile is given: where its inputs, weights and outputs lie, how its loops run, which taps its outermost pixels
//! lack.

use super::store::Output;
use crate::isa::Level;
use crate::layout::BLOCK;

/// One loop of the reduction: how often, and how far `x` and `w` move, in floats.
#[derive(Clone, Copy, Debug)]
pub struct Loop {
    /// Number of iterations.
    pub n: usize,
    /// Step of `x`.
    pub x: usize,
    /// Step of `w`.
    pub w: usize,
}

impl Loop {
    /// A loop that runs once.
    pub const ONCE: Loop = Loop { n: 1, x: 0, w: 0 };
}

/// What a tile works on. Lengths and steps in floats.
#[derive(Clone, Copy, Debug)]
pub struct TileArgs {
    /// Input of the first pixel, at the first tap and the first channel block.
    pub x: *const f32,
    /// Weights of the first output-channel block at the same place, `[16 k][16 oc]` per step of the outer loops.
    pub w: *const f32,
    /// The outer loops, outermost first.
    pub loops: [Loop; 3],
    /// Elements that the inner loop takes per step of the outer loops.
    pub depth: usize,
    /// Where the inner loop starts in the first step of the outermost loop.
    pub head: usize,
    /// Where the inner loop ends in the last step of the outermost loop.
    pub tail: usize,
    /// Pixel stride of the input, for [`Access::Strided`] and `Plain1` to `Plain4`; step of the reduction's elements,
    /// for [`Access::PixelSum`].
    pub px: usize,
    /// Distance from a tap's inputs to those that it prefetches into L1; 0: none. Stems do not use it.
    pub ahead: usize,
    /// From one output-channel block's weights to the next one's; of [`Access::PixelSum`], from block to block of `w`.
    pub w_block: usize,
    /// Step of the reduction's elements in `w`, for [`Access::PixelSum`].
    pub w_step: usize,
    /// Whether the sum continues what the output holds.
    pub accumulate: bool,
    /// Whether the output's lines are asked for before a new sum, as [`fetches_output`](super::fetches_output) says.
    pub fetch_output: bool,
    /// For blocked input: which pixels lack which iterations of the innermost loop.
    pub edge: Edge,
    /// Where the sums go.
    pub out: Output,
    /// The equal tiles that one call computes.
    pub sweep: Sweep,
    /// Weights of the next block, to be prefetched into L2.
    pub soon: Soon,
}

/// Weights of the next block. While a tile computes, it prefetches them into L2, [`step`](Soon::step) floats with each
/// tap, so that a pass over 48 pixels fetches as many weights as it uses. Weights from memory then cost about what
/// weights from L3 do.
#[derive(Clone, Copy, Debug)]
pub struct Soon {
    /// The first line.
    pub from: *const f32,
    /// Their end; where `from` is not before it, there are none.
    pub end: *const f32,
}

impl Soon {
    /// No weights.
    pub const NONE: Soon = Soon { from: core::ptr::null(), end: core::ptr::null() };

    /// Floats, in whole lines, that a tile of so many sums fetches with each step of its outer loops.
    pub const fn step(sums: usize) -> usize {
        sums.div_ceil(48) * BLOCK
    }
}

/// Tiles that one call computes: rows of equal tiles. A call costs about as much as a hundred multiply-adds on vectors,
/// a third of a tile over 16 channels.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// From a tile to the next one of its row, and how many there are.
    pub tiles: Steps,
    /// From a row of tiles to the next one, and how many there are.
    pub rows: Steps,
}

/// A number of places, and how far the input and the output move from one to the next, in floats.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// Number of places.
    pub n: usize,
    /// Step of `x`.
    pub x: usize,
    /// Step of `out.y`, and of the residual.
    pub y: usize,
}

impl Sweep {
    /// A single tile.
    pub const ONE: Sweep = {
        let once = Steps { n: 1, x: 0, y: 0 };
        Sweep { tiles: once, rows: once }
    };
}

/// Where a tile of a [`Sweep`] lies, from its first one.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub x: usize,
    pub y: usize,
    /// Tiles of its row that follow.
    left: usize,
}

impl Place {
    #[inline(always)]
    pub fn first(sweep: &Sweep) -> Self {
        Self { x: 0, y: 0, left: sweep.tiles.n.wrapping_sub(1) }
    }

    /// The next tile's.
    #[inline(always)]
    pub fn next(self, Sweep { tiles, rows }: &Sweep) -> Self {
        if self.left > 0 {
            return Self { x: self.x.wrapping_add(tiles.x), y: self.y.wrapping_add(tiles.y), left: self.left - 1 };
        }
        // Back to the first tile of this row, and on to the next one's.
        let turn =
            |at: usize, row: usize, tile: usize| at.wrapping_add(row).wrapping_sub((tiles.n - 1).wrapping_mul(tile));
        Self { x: turn(self.x, rows.x, tiles.x), y: turn(self.y, rows.y, tiles.y), left: tiles.n - 1 }
    }
}

/// Most pixels at each end of an edge tile that may lack taps, on any level.
pub const OVERHANG: usize = 3;

/// Pixels at each end of an edge tile of `mr` pixels that may lack taps at a level, for a convolution of that stride.
/// Each number of them is a loop of its own; at stride 2 more than one pixel would take a kernel of 7 taps.
pub const fn overhang(level: Level, stride: usize, mr: usize) -> usize {
    match level {
        Level::Avx512 if stride == 1 && mr >= LONG => OVERHANG,
        _ => 1,
    }
}

/// Pixels of a tile from which on its loops are worth the code.
pub(super) const LONG: usize = 4;

/// Which taps of a row the outermost pixels of an edge tile compute; [`overhang`] says how many pixels at each end.
///
/// ```text
///          pixel:  0   1   2  ...  8   9
/// kx = 0           .   x   x  ...  x   x      starts[0] = 1: the first pixel computes taps 1..
/// kx = 1           x   x   x  ...  x   x
/// kx = 2           x   x   x  ...  x   .      ends[0] = 2: the last pixel computes taps ..2
/// ```
///
/// Pixel `i` from the left computes taps `starts[i]..`, pixel `i` from the right taps `..ends[i]`, inner pixels all.
/// The further inside a pixel, the more taps it computes. If more than one pixel of one end lacks a tap, no pixel of
/// the other end lacks it.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// The first iteration of the first pixels.
    pub starts: [usize; OVERHANG],
    /// One beyond the last iteration of the last pixels, from the last one on.
    pub ends: [usize; OVERHANG],
}

impl Edge {
    /// All pixels take part in all iterations.
    pub const NONE: Edge = Edge { starts: [0; OVERHANG], ends: [usize::MAX; OVERHANG] };

    /// Whether any pixel lacks any.
    #[inline(always)]
    pub(crate) fn lacks(&self) -> bool {
        self.starts[0] > 0 || self.ends[0] < usize::MAX
    }

    /// Pixels at each end, at most `overhang`, that lack iteration `i`.
    #[inline(always)]
    pub(super) fn lacking(&self, overhang: usize, i: usize) -> [usize; 2] {
        let mut lacking = [0; 2];
        for pixel in 0..overhang {
            lacking[0] += usize::from(i < self.starts[pixel]);
            lacking[1] += usize::from(i >= self.ends[pixel]);
        }
        lacking
    }
}

/// Where the pixels and the reduction's elements of a tile lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Blocked input, adjacent pixels, of which the first and the last ones may lack taps.
    Blocked1,
    /// Blocked input, every other pixel, likewise.
    Blocked2,
    /// Any pixel stride, given at run time.
    Strided,
    /// Pixels are adjacent floats.
    Plain1,
    /// Pixels are every other float.
    Plain2,
    /// Pixels are every fourth float.
    Plain4,
    /// A packed panel `[k][MR]`.
    Packed,
    /// Adjacent floats are channels, and the reduction runs over pixels, whose steps in both operands are given at run
    /// time.
    PixelSum,
}

impl Access {
    /// How many there are.
    pub(super) const COUNT: usize = Access::PixelSum as usize + 1;
}
