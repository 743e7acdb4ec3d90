//! The products between the transforms: for one point, tiles times input channels by input channels times output channels.
//!
//! ```text
//! m[o][t] = sum over c of  v[c / 16][t][c % 16] * u[o / 16][c][o % 16]
//!
//! for each slice of MR tiles:  for each c:  NV vectors of u, MR broadcasts of v, MR * NV multiply-adds
//! ```
//!
//! It is the register tile's loop without its outer loops, taps and epilogue: one call covers all slices of a point, so
//! that setting it up does not count even where there are 16 input channels. Order of the sum: `c`. Register budget: as for
//! [`tile`](crate::tile).

use crate::isa::{Entry, Isa, Kernel, Level};
use crate::layout::BLOCK;
use crate::table::{by_level, edges};
use crate::tile::MAX_BLOCKS;

/// What one point's product works on. Steps in floats.
#[derive(Clone, Copy, Debug)]
pub struct ProductArgs {
    /// Transformed inputs of the first tile, `[block][tile][16]`.
    pub v: *const f32,
    /// From input-channel block to input-channel block.
    pub v_block: usize,
    /// Input channels.
    pub ic: usize,
    /// Transformed weights `[block][ic][16]`.
    pub u: *const f32,
    /// From output-channel block to output-channel block in the weights.
    pub u_block: usize,
    /// Products of the first tile, `[block][tile][16]`.
    pub m: *mut f32,
    /// From output-channel block to output-channel block.
    pub m_block: usize,
    /// Slices of `MR` tiles.
    pub slices: usize,
    /// For each block of input channels, the rows of the next point's weights (behind this one's) to fetch into L2.
    pub ahead: usize,
}

/// The body for slices of `MR` tiles and `NV` vectors of output channels.
pub struct Product<const MR: usize, const NV: usize>;

impl<I: Isa, const MR: usize, const NV: usize> Kernel<I> for Product<MR, NV> {
    type Args = ProductArgs;

    /// # Safety
    /// * `v` is readable for `slices * MR` tiles of `ic` channels (in whole blocks `v_block` apart);
    /// * `u` is readable for `ic` rows of the blocks that `NV` vectors fill;
    /// * `m` is writable for `slices * MR` tiles of `NV` vectors.
    #[inline(always)]
    unsafe fn run(s: I, a: &ProductArgs) {
        const { assert!(MR * NV + NV < I::REGISTERS && BLOCK.is_multiple_of(I::LANES)) };
        // Offset of vector o's weights from the first one's.
        let u_at = |o: usize| o * I::LANES / BLOCK * a.u_block + o * I::LANES % BLOCK;
        for slice in 0..a.slices {
            let at = slice * MR * BLOCK;
            let mut acc = [[s.zero(); NV]; MR];
            let (mut v, mut u) = (a.v.wrapping_add(at), a.u);
            let mut left = a.ic;
            // The rows of the next point's weights follow: each slice asks for its share of them, block by block.
            let mut next = a.u.wrapping_add((a.ic + slice * a.ahead) * BLOCK);
            while left > 0 {
                let depth = left.min(BLOCK);
                if a.ahead > 0 {
                    for i in 0..MR {
                        s.prefetch(v.wrapping_add(a.v_block + i * BLOCK));
                    }
                    for row in 0..a.ahead {
                        for line in (0..NV).step_by(BLOCK / I::LANES) {
                            s.prefetch_l2(next.wrapping_add(row * BLOCK + u_at(line)));
                        }
                    }
                }
                next = next.wrapping_add(BLOCK * BLOCK);
                for k in 0..depth {
                    // A block of channels ahead, 16 * MR * NV cycles: far enough for L3. Behind the last channel lie
                    // the weights of the next point.
                    for line in (0..NV).step_by(BLOCK / I::LANES) {
                        s.prefetch(u.wrapping_add(BLOCK * BLOCK + u_at(line)));
                    }
                    let mut uv = [s.zero(); NV];
                    for o in 0..NV {
                        // SAFETY: channel c is below ic.
                        uv[o] = unsafe { s.load(u.add(u_at(o))) };
                    }
                    for i in 0..MR {
                        // SAFETY: tile i of the slice, channel k of the block.
                        let x = unsafe { s.load_splat(v.add(i * BLOCK + k)) };
                        for o in 0..NV {
                            acc[i][o] = s.fma(uv[o], x, acc[i][o]);
                        }
                    }
                    u = u.wrapping_add(BLOCK);
                }
                v = v.wrapping_add(a.v_block);
                left -= depth;
            }
            let m = a.m.wrapping_add(at);
            for i in 0..MR {
                for o in 0..NV {
                    let to = o * I::LANES / BLOCK * a.m_block + i * BLOCK + o * I::LANES % BLOCK;
                    // SAFETY: tile i of the slice, vector o.
                    unsafe { s.store(m.add(to), acc[i][o]) };
                }
            }
        }
    }
}

/// A product kernel at one level: a row of [`rows`].
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// `winograd_f32_14x32_avx512`: tiles x output channels.
    pub name: &'static str,
    /// Level.
    pub level: Level,
    /// Tiles of a slice.
    pub mr: usize,
    /// Blocks of 16 output channels.
    pub blocks: usize,
    /// The kernel: `v` is readable for `slices * mr` tiles of `ic` channels, `u` for `ic` rows of all blocks, `m` writable for
    /// the tiles of all blocks.
    pub run: Entry<ProductArgs>,
}

edges!(edge);

/// The [`Row`]s of one level: for each width of output channels, the numbers of tiles.
macro_rules! rows {
    ($level:ident, $entry:ident, $lanes:literal, $name:literal; $($blocks:literal $cols:literal: [$($mr:literal)*];)*) => {
        &[$($(
            Row {
                name: concat!("winograd_f32_", $mr, "x", $cols, "_", $name),
                level: Level::$level,
                mr: $mr,
                blocks: $blocks,
                run: edge::$entry::run::<Product<{ $mr }, { $blocks * BLOCK / $lanes }>>,
            },
        )*)*]
    };
}

/// Most tiles of a slice of each width.
macro_rules! most {
    ($level:ident, $entry:ident, $lanes:literal, $name:literal; $($blocks:literal $cols:literal: [$($mr:literal)*];)*) => {{
        let mut most = [0; MAX_BLOCKS + 1];
        $(most[$blocks] = [$($mr),*].len();)*
        most
    }};
}

/// The products of a level, which a macro makes something of: the one list of them. Sizes are contiguous from 1.
macro_rules! products {
    (Scalar $make:ident) => {
        $make! {
            Scalar, scalar, 4, "scalar";
            1 "16": [1 2];
        }
    };
    (Avx2 $make:ident) => {
        $make! {
            Avx2, avx2, 8, "avx2";
            1 "16": [1 2 3 4 5 6];
            2 "32": [1 2];
        }
    };
    (Avx512 $make:ident) => {
        $make! {
            Avx512, avx512, 16, "avx512";
            1 "16": [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16];
            2 "32": [1 2 3 4 5 6 7 8 9 10 11 12 13 14];
            3 "48": [1 2 3 4 5 6 7 8 9];
            4 "64": [1 2 3 4 5 6];
        }
    };
    (Neon $make:ident) => {
        $make! {
            Neon, neon, 4, "neon";
            1 "16": [1 2 3 4 5];
            2 "32": [1 2];
        }
    };
}

/// Most tiles of a slice, on any level.
pub(super) const MAX_TILES: usize = 16;

by_level! {
    /// All product kernels of a level; none for a level that is not compiled in. Sizes are contiguous from 1.
    pub fn rows() -> [Row];

    Scalar: products!(Scalar rows),
    Avx2: products!(Avx2 rows),
    Avx512: products!(Avx512 rows),
    Neon: products!(Neon rows),
}

/// Most tiles of a slice of each width, also of a level that is not compiled in.
pub(super) const fn most_tiles(level: Level) -> [usize; MAX_BLOCKS + 1] {
    match level {
        Level::Scalar => products!(Scalar most),
        Level::Avx2 => products!(Avx2 most),
        Level::Avx512 => products!(Avx512 most),
        Level::Neon => products!(Neon most),
    }
}
