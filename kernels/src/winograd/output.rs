//! The output transform: `A^T m A` of one tile with bias, residual and activation, for some blocks of output channels.
//!
//! As many rows of the result are computed at a time as registers hold: with 32, all four rows of F(4) (24 vectors), and even
//! and odd rows of F(6), which need only the sums or only the differences of opposite points.
//!
//! A tile that hangs over the border of the output, has fewer channels than a block, or ends in another activation than a
//! clamp, goes through a buffer.

use super::transform::Transform;
use crate::isa::{Isa, Kernel};
use crate::layout::BLOCK;
use crate::tile::Output;

/// What a tile's transform works on. Steps in floats.
#[derive(Clone, Copy, Debug)]
pub struct OutputArgs {
    /// Products of the tile at the first point and the first block.
    pub m: *const f32,
    /// From point to point.
    pub m_point: usize,
    /// From block to block.
    pub m_block: usize,
    /// Blocks of output channels.
    pub blocks: usize,
    /// Rows and columns of the tile that lie inside the output.
    pub valid: [usize; 2],
    /// From row to row in the output.
    pub row: usize,
    /// Whether to fetch the lines of the tile to the right meanwhile.
    pub ahead: bool,
    /// The tile's first pixel and channel, and what happens to it.
    pub out: Output,
}

/// Floats of the largest tile, 6 x 6 pixels of a block.
const TILE: usize = 36 * BLOCK;

/// The body for tiles of `M` x `M` pixels.
pub struct OutputTile<T, const M: usize, const P: usize>(T);

impl<I: Isa, T: Transform<M, P>, const M: usize, const P: usize> Kernel<I> for OutputTile<T, M, P> {
    type Args = OutputArgs;

    /// # Safety
    /// * `m` is readable for `P * P` points of `blocks` blocks;
    /// * `out` is as `Output::store` asks for the valid pixels of each row and `blocks` blocks, and has a `finish`.
    #[inline(always)]
    unsafe fn run(s: I, a: &OutputArgs) {
        const { assert!(M * M * BLOCK <= TILE) };
        let mut out = a.out;
        let mut tile = [0.0f32; TILE];
        for b in 0..a.blocks {
            let m = a.m.wrapping_add(b * a.m_block);
            let simple = out.is_simple(BLOCK) && a.valid == [M, M];
            if simple && a.ahead {
                // The next tile is the right-hand neighbour, as a rule.
                for y in 0..M {
                    for x in M..2 * M {
                        s.prefetch_write(out.y.wrapping_add(y * a.row + x * out.px));
                    }
                }
            }
            for part in (0..BLOCK).step_by(I::LANES) {
                // SAFETY: the products are readable; the output has all pixels and channels if simple, else the buffer does.
                unsafe {
                    if simple {
                        let store = Finished { out: &out, row: a.row, part };
                        transform::<I, T, M, P>(s, m.wrapping_add(part), a.m_point, &store);
                    } else {
                        let store = Raw { tile: tile.as_mut_ptr().wrapping_add(part), row: M * BLOCK };
                        transform::<I, T, M, P>(s, m.wrapping_add(part), a.m_point, &store);
                    }
                }
            }
            if !simple {
                let mut line = out;
                for y in 0..a.valid[0] {
                    // SAFETY: the buffer holds M pixels of a block in each row; the contract covers the valid ones.
                    unsafe {
                        let from = tile.as_mut_ptr().add(y * M * BLOCK);
                        line.drain(s, 0, from, a.valid[1], BLOCK / I::LANES);
                    }
                    line.advance(a.row);
                }
            }
            out.next_block();
        }
    }
}

/// Where the transform's vectors go.
trait Store<I: Isa> {
    /// What all pixels share.
    type Shared: Copy;
    /// # Safety
    /// As the implementor states.
    unsafe fn shared(&self, s: I) -> Self::Shared;
    /// # Safety
    /// As the implementor states.
    unsafe fn store(&self, s: I, y: usize, x: usize, shared: Self::Shared, v: I::V);
}

/// Into a buffer.
struct Raw {
    tile: *mut f32,
    row: usize,
}

impl<I: Isa> Store<I> for Raw {
    type Shared = ();

    #[inline(always)]
    unsafe fn shared(&self, _: I) {}

    /// # Safety
    /// The buffer holds pixel (y, x).
    #[inline(always)]
    unsafe fn store(&self, s: I, y: usize, x: usize, (): (), v: I::V) {
        // SAFETY: the caller vouches for the pixel.
        unsafe { s.store(self.tile.add(y * self.row + x * BLOCK), v) };
    }
}

/// Into the output, with bias, residual and clamp.
struct Finished<'a> {
    out: &'a Output,
    row: usize,
    part: usize,
}

impl<I: Isa> Store<I> for Finished<'_> {
    /// Bias and limits.
    type Shared = (I::V, I::V, I::V);

    /// # Safety
    /// The bias, if any, holds a block.
    #[inline(always)]
    unsafe fn shared(&self, s: I) -> Self::Shared {
        let Some(f) = &self.out.finish else { return (s.zero(), s.splat(f32::NEG_INFINITY), s.splat(f32::INFINITY)) };
        // SAFETY: the caller vouches for a block.
        let bias = if f.bias.is_null() { s.zero() } else { unsafe { s.load(f.bias.add(self.part)) } };
        (bias, s.splat(f.lo), s.splat(f.hi))
    }

    /// # Safety
    /// Pixel (y, x) of a whole block is in the output, and in the residual if there is one.
    #[inline(always)]
    unsafe fn store(&self, s: I, y: usize, x: usize, (bias, lo, hi): Self::Shared, v: I::V) {
        let at = y * self.row + x * self.out.px + self.part;
        let mut v = s.add(v, bias);
        // SAFETY: the caller vouches for the pixel.
        unsafe {
            if let Some(f) = &self.out.finish
                && !f.residual.is_null()
            {
                v = s.add(v, s.load(f.residual.add(at)));
            }
            // The clamp is the first operand, so that a NaN in the sum stays one.
            s.store(self.out.y.add(at), s.min(hi, s.max(lo, v)));
        }
    }
}

/// All pixels of a tile, for one vector of channels.
///
/// # Safety
/// `m` is readable for all points, and `to` takes all `M * M` pixels.
#[inline(always)]
unsafe fn transform<I: Isa, T: Transform<M, P>, const M: usize, const P: usize>(
    s: I,
    m: *const f32,
    m_point: usize,
    to: &impl Store<I>,
) {
    // SAFETY: the same contract.
    unsafe {
        match (M, I::REGISTERS >= 32) {
            (2, _) => rows::<I, T, M, P, 2>(s, m, m_point, to, [0, 1]),
            (4, true) => rows::<I, T, M, P, 4>(s, m, m_point, to, [0, 1, 2, 3]),
            (4, false) => {
                rows::<I, T, M, P, 2>(s, m, m_point, to, [0, 2]);
                rows::<I, T, M, P, 2>(s, m, m_point, to, [1, 3]);
            }
            (_, true) => {
                rows::<I, T, M, P, 3>(s, m, m_point, to, [0, 2, 4]);
                rows::<I, T, M, P, 3>(s, m, m_point, to, [1, 3, 5]);
            }
            (_, false) => {
                rows::<I, T, M, P, 1>(s, m, m_point, to, [0]);
                rows::<I, T, M, P, 1>(s, m, m_point, to, [1]);
                rows::<I, T, M, P, 2>(s, m, m_point, to, [2, 4]);
                rows::<I, T, M, P, 2>(s, m, m_point, to, [3, 5]);
            }
        }
    }
}

/// The rows `which` of a tile: down the columns of the points first, then along the rows.
///
/// # Safety
/// As for [`transform`].
#[inline(always)]
unsafe fn rows<I: Isa, T: Transform<M, P>, const M: usize, const P: usize, const N: usize>(
    s: I,
    m: *const f32,
    m_point: usize,
    to: &impl Store<I>,
    which: [usize; N],
) {
    let mut t = [[s.zero(); P]; N];
    for x in 0..P {
        let mut column = [s.zero(); P];
        for y in 0..P {
            // SAFETY: point (y, x).
            column[y] = unsafe { s.load(m.add((y * P + x) * m_point)) };
        }
        let o = T::output(s, column);
        for i in 0..N {
            t[i][x] = o[which[i]];
        }
    }
    // SAFETY: the caller vouches for all pixels.
    unsafe {
        let shared = to.shared(s);
        for i in 0..N {
            let o = T::output(s, t[i]);
            for x in 0..M {
                to.store(s, which[i], x, shared, o[x]);
            }
        }
    }
}
