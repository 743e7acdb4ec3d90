//! Which tiles there are: the list of their sizes at each level, and the kernels, a row of the table each.

use super::args::{Access, TileArgs};
use super::body::Tile;
use crate::isa::{Entry, Level};
use crate::layout::BLOCK;
use crate::table::by_level;

/// A tile kernel at one level: a row of [`rows`].
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// `conv_f32_14x32_avx512` = access, type, pixels x output channels, level.
    pub name: &'static str,
    /// Level.
    pub level: Level,
    /// Where its inputs lie.
    pub access: Access,
    /// Pixels.
    pub mr: usize,
    /// Output channels.
    pub cols: usize,
    /// Blocks of 16 output channels; half of the last one, where that is what `cols` says.
    pub blocks: usize,
    /// The kernel; see [`Tile`] for its contract.
    pub run: Entry<TileArgs>,
}

/// The outermost edges, a module for each access: rustc generates the code of a module's functions together, and
/// several modules' at the same time.
mod edge {
    use crate::table::edges;

    edges!(pub(super) blocked1);
    edges!(pub(super) blocked2);
    edges!(pub(super) plain);
    edges!(pub(super) strided);
    edges!(pub(super) packed);
    edges!(pub(super) pixel_sum);
}

/// Rows of one level: for each width of output channels, the numbers of pixels for `Blocked1`, and the lists of the
/// other accesses: `Blocked2` (`s2`), `Plain1` to `Plain4` (`stem`: sizes that share a kernel; others), `Strided`,
/// `Packed` and `PixelSum` (`sums`). `narrow` widths, which end in half a block, have kernels for adjacent blocked
/// pixels only: with kernels for every access they were a third of all of AVX-512's code, for layers that end in 8 or
/// 24 channels. A group shares an entry and its lanes. `$make` is what is made of each: `row` or `size`.
macro_rules! rows {
    ($make:ident $level:ident, $name:literal;
     $($entry:ident $lanes:literal {
        $($cols:literal: [$($mr:literal)*] s2 [$($s2mr:literal)*] stem [$($fmr:literal)* ; $($tmr:literal)*]
         strided [$($smr:literal)*] packed [$($pmr:literal)*] narrow [$($nmr:literal)*] sums [$($amr:literal)*];)*
     })*) => {
        &[$($(
            $(
                $make!($level, $entry, $lanes, $name, $cols, $mr, blocked1 Blocked1, "conv", 16, 1),
            )*
            $(
                $make!($level, $entry, $lanes, $name, $cols, $s2mr, blocked2 Blocked2, "conv_s2", 32, 1),
            )*
            $(
                $make!($level, $entry, $lanes, $name, $cols, $fmr, plain Plain1, "stem_s1", super::body::PLAIN, 1),
                $make!($level, $entry, $lanes, $name, $cols, $fmr, plain Plain2, "stem_s2", super::body::PLAIN, 1),
                $make!($level, $entry, $lanes, $name, $cols, $fmr, plain Plain4, "stem_s4", super::body::PLAIN, 1),
            )*
            $(
                $make!($level, $entry, $lanes, $name, $cols, $tmr, plain Plain1, "stem_s1", 1, 1),
                $make!($level, $entry, $lanes, $name, $cols, $tmr, plain Plain2, "stem_s2", 2, 1),
                $make!($level, $entry, $lanes, $name, $cols, $tmr, plain Plain4, "stem_s4", 4, 1),
            )*
            $(
                $make!($level, $entry, $lanes, $name, $cols, $nmr, blocked1 Blocked1, "conv", 16, 1),
            )*
            $(
                $make!($level, $entry, $lanes, $name, $cols, $smr, strided Strided, "conv_any", 0, 1),
            )*
            $(
                $make!($level, $entry, $lanes, $name, $cols, $pmr, packed Packed, "gemm", 1, $pmr),
            )*
            $(
                $make!($level, $entry, $lanes, $name, $cols, $amr, pixel_sum PixelSum, "bwd_w", 1, 0),
            )*
        )*)*]
    };
}

/// The [`Row`] of a tile.
macro_rules! row {
    ($level:ident, $entry:ident, $lanes:literal, $name:literal, $cols:literal, $mr:literal,
     $module:ident $access:ident, $prefix:literal, $ps:expr, $ks:expr) => {
        Row {
            name: concat!($prefix, "_f32_", $mr, "x", $cols, "_", $name),
            level: Level::$level,
            access: Access::$access,
            mr: $mr,
            cols: $cols,
            blocks: usize::div_ceil($cols, BLOCK),
            run: edge::$module::$entry::run::<Tile<{ $mr }, { $cols / $lanes }, { $ps }, { $ks }>>,
        }
    };
}

/// The [`Size`] of a tile.
macro_rules! size {
    ($level:ident, $entry:ident, $lanes:literal, $name:literal, $cols:literal, $mr:literal,
     $module:ident $access:ident, $prefix:literal, $ps:expr, $ks:expr) => {
        Size { access: Access::$access, mr: $mr, cols: $cols }
    };
}

/// The tiles of a level, each made a `$make` of: the one list of them.
macro_rules! tiles {
    // 16 registers and no memory operand for multiply-add; 4 floats to the register.
    (Scalar $make:ident) => {
        rows! { $make
            Scalar, "scalar";
            scalar 4 {
                16: [1 2] s2 [1 2] stem [1 2;] strided [1 2] packed [1 2] narrow [] sums [1 2];
            }
        }
    };
    // 16 registers: 6x16 takes 15 of them; 4x24 would fill all and spill. 12x8 spills as an edge tile.
    (Avx2 $make:ident) => {
        rows! { $make
            Avx2, "avx2";
            avx2 8 {
                8: [] s2 [] stem [;] strided [] packed [] narrow [1 2 3 4 5 6 7 8 9 10] sums [];
                16: [1 2 3 4 5 6] s2 [1 2 3 4 5 6] stem [1 2 3; 4 5 6] strided [1 2 3 4 5 6] packed [1 2 3 4 5 6]
                    narrow [] sums [1 5 6];
                24: [] s2 [] stem [;] strided [] packed [] narrow [1 2 3] sums [];
                32: [1 2] s2 [] stem [;] strided [1 2] packed [1 2] narrow [] sums [];
            }
        }
    };
    // 32 registers: 14x32, 9x48 and 6x64 take 31, 31 and 29 of them. Fourteen divides 14, 28, 56, 112 and 224. Where
    // the last block is at most half full, tiles of half as wide vectors save a half of its time. Matrix products cut
    // rows for the widest tile, so that its sizes must be there in every width.
    (Avx512 $make:ident) => {
        rows! { $make
            Avx512, "avx512";
            avx512 16 {
                16: [1 2 3 4 5 6 7 8] s2 [1 2 3 4 5 6 7 8] stem [1 2 3 4 5 6; 7 8] strided [1 2 3 4 5 6]
                    packed [1 2 3 4 5 6 7 8 9 10 11 12 13 14] narrow [] sums [1 16];
                32: [1 2 3 4 5 6 7 8 9 10 11 12 13 14] s2 [1 2 3 4 5 6 7 8 9 10 11 12 13 14]
                    stem [1 2 3 4 5 6; 7 8 9 10 11 12 13 14] strided [1 2 3 4 5 6]
                    packed [1 2 3 4 5 6 7 8 9 10 11 12 13 14] narrow [] sums [8];
                48: [1 2 3 4 5 6 7 8 9] s2 [] stem [;] strided [1 2 3 4 5 6] packed [] narrow [] sums [8];
                64: [1 2 3 4 5 6] s2 [] stem [;] strided [1 2 3 4] packed [] narrow [] sums [];
            }
            avx512_half 8 {
                8: [] s2 [] stem [;] strided [] packed [] narrow [1 2 3 4 5 6 7 8 9 10 11 12 13 14] sums [];
                24: [] s2 [] stem [;] strided [] packed [] narrow [1 2 3 4 5 6 7 8 9] sums [];
            }
        }
    };
    // 32 registers: 5x16 takes 25 of them. Inputs are broadcast by their load; keeping four of each pixel for FMA by
    // lane made the compiler spill.
    (Neon $make:ident) => {
        rows! { $make
            Neon, "neon";
            neon 4 {
                16: [1 2 3 4 5] s2 [1 2 3 4 5] stem [1 2 3; 4 5] strided [1 2 3 4 5] packed [1 2 3 4 5]
                    narrow [] sums [1 4];
                32: [1 2] s2 [1 2] stem [1; 2] strided [1 2] packed [1 2] narrow [] sums [];
            }
        }
    };
}

by_level! {
    /// All tile kernels of a level; none for a level that is not compiled in.
    pub fn rows() -> [Row];

    Scalar: tiles!(Scalar row),
    Avx2: tiles!(Avx2 row),
    Avx512: tiles!(Avx512 row),
    Neon: tiles!(Neon row),
}

/// The size of a tile: what choices are made by, which takes no kernel.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub access: Access,
    /// Pixels.
    pub mr: u8,
    /// Output channels.
    pub cols: u8,
}

/// The sizes of all tiles of a level, also of one that is not compiled in.
pub(super) fn sizes(level: Level) -> &'static [Size] {
    match level {
        Level::Scalar => tiles!(Scalar size),
        Level::Avx2 => tiles!(Avx2 size),
        Level::Avx512 => tiles!(Avx512 size),
        Level::Neon => tiles!(Neon size),
    }
}

/// Most blocks of output channels in a tile, on any level.
pub const MAX_BLOCKS: usize = 4;
/// Most pixels in a tile, on any level.
pub const MAX_MR: usize = 14;
