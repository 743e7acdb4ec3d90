//! Matrix units: products of tiles of bf16 pairs, whose operands are floats cut into three parts.
//!
//! A float is the sum of three bf16 numbers exactly, its high, middle and low [`parts`]. Of the nine products of two floats' parts
//! the six largest are summed, in f32; those that are left out are at most 2^-23 of the product together. That makes as good
//! a product as f32's own, from units that are many times as fast.
//!
//! [`MatrixUnit::Portable`] computes the same bits without such a unit, slowly: for tests of what is built on it.

#[cfg(target_arch = "x86_64")]
mod amx;

use super::Level;

/// Most rows of a tile: pixels, or pairs of input channels.
pub(crate) const ROWS: usize = 16;

/// Floats of a tile's row: so many sums, or so many pairs of bf16.
pub(crate) const LINE: usize = 16;

/// Input channels of a step: a line of pairs.
pub(crate) const DEPTH: usize = 2 * LINE;

/// Parts of a float.
pub const PARTS: usize = 3;

/// Floats of a tile of all rows.
pub(crate) const TILE: usize = ROWS * LINE;

/// Most tiles of pixels, and most of output channels, of one product.
pub(crate) const MAX_TILES: usize = 2;

/// High, middle and low part of a float, in bf16: they add up to it exactly where it is 0, or between 2^-102 and 3.38e38; below, up to
/// 2^-133 may be cut off, and above, there is no such sum.
///
/// ```
/// use swath_kernels::isa::matrix::parts;
/// let sum = |x| parts(x).iter().map(|p| f32::from_bits(u32::from(*p) << 16)).sum::<f32>();
/// assert_eq!(sum(0.1), 0.1);
/// assert!(sum(f32::NAN).is_nan() && sum(f32::INFINITY).is_nan());
/// ```
pub fn parts(x: f32) -> [u16; PARTS] {
    let nearest = |x: f32| (x.to_bits().wrapping_add(0x8000) >> 16) as u16;
    let value = |part: u16| f32::from_bits(u32::from(part) << 16);
    let high = nearest(x);
    let rest = x - value(high);
    let middle = nearest(rest);
    // What is left has eight bits at most. It is cut, not rounded, so that it stays NaN where it is.
    let low = ((rest - value(middle)).to_bits() >> 16) as u16;
    [high, middle, low]
}

/// Two bf16 numbers where a float was: the first in the lower half.
pub fn pair(first: u16, second: u16) -> f32 {
    f32::from_bits(u32::from(first) | u32::from(second) << 16)
}

/// What multiplies tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatrixUnit {
    /// x86-64's AMX with bf16, where CPU and operating system have it.
    Amx,
    /// Plain loops.
    Portable,
}

/// What a product works on. Steps in bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct TileProduct {
    /// The first tile of pixels, high parts, first channels, first tap: a row for each pixel.
    pub pixels: *const f32,
    /// From it to the second tile of pixels.
    pub second: isize,
    /// From pixel to pixel.
    pub pixel: usize,
    /// From the high parts to the middle ones, and from those to the low ones.
    pub part: usize,
    /// From channels to the next 32 of them.
    pub channels: usize,
    /// From the last channels of a tap to the first ones of the next in its row.
    pub next_column: isize,
    /// From behind the last tap of a row to the first of the next row.
    pub next_row: isize,
    /// How many times 32 channels, taps in a row, rows of taps; at least one each.
    pub counts: [usize; 3],
    /// Weights in the order that they are needed in.
    pub weights: *const f32,
    /// Where the sums go: a tile of 16 rows for each pair of tiles of pixels and of output channels.
    pub sums: *mut f32,
}

impl MatrixUnit {
    /// All of them.
    pub const ALL: [MatrixUnit; 2] = [MatrixUnit::Amx, MatrixUnit::Portable];

    /// The unit that this process can use beside the vectors of a level.
    pub fn beside(level: Level) -> Option<Self> {
        (level == Level::Avx512 && MatrixUnit::Amx.is_available()).then_some(MatrixUnit::Amx)
    }

    /// Whether this process can use it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            MatrixUnit::Amx => amx::available(),
            #[cfg(not(target_arch = "x86_64"))]
            MatrixUnit::Amx => false,
            MatrixUnit::Portable => true,
        }
    }

    /// Name of the kernel that multiplies up to 32 pixels with 32 output channels.
    pub const fn kernel(self) -> &'static str {
        match self {
            MatrixUnit::Amx => "bf16x6_32x32_amx",
            MatrixUnit::Portable => "bf16x6_32x32_portable",
        }
    }

    /// Calls `f` with this thread's tile registers shaped for tiles of `rows` pixels. `f` must not call this again.
    ///
    /// # Panics
    /// If the unit is not available, or if there are no rows, or more than [`ROWS`].
    pub(crate) fn with_tiles(self, rows: usize, f: impl FnOnce(&Tiles)) {
        assert!(self.is_available() && (1..=ROWS).contains(&rows), "{self:?}, {rows} rows");
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the unit is available and so many rows are allowed, as asserted; `f` does not call this again.
            MatrixUnit::Amx => f(&Tiles { rows, registers: Some(unsafe { amx::Registers::new(rows) }) }),
            _ => f(&Tiles {
                rows,
                #[cfg(target_arch = "x86_64")]
                registers: None,
            }),
        }
    }
}

/// A thread's tile registers, or what stands for them.
#[derive(Debug)]
pub(crate) struct Tiles {
    rows: usize,
    #[cfg(target_arch = "x86_64")]
    registers: Option<amx::Registers>,
}

impl Tiles {
    /// Computes the sums of `[1 or 2 tiles of pixels, 1 or 2 tiles of output channels]`.
    ///
    /// # Safety
    /// * `args.pixels` is readable for as many pixels as the tiles have rows, in all parts, channels and taps, and
    ///   from `args.second` on likewise if there is a second tile;
    /// * `args.weights` is readable for a tile for each output tile, part, 32 channels and tap;
    /// * `args.sums` is writable for a [`TILE`] for each pair of tiles.
    ///
    /// # Panics
    /// For other numbers of tiles.
    pub unsafe fn multiply(&self, args: &TileProduct, tiles: [usize; 2]) {
        assert!(tiles.iter().all(|n| (1..=MAX_TILES).contains(n)), "no product of {tiles:?} tiles");
        #[cfg(target_arch = "x86_64")]
        if let Some(registers) = &self.registers {
            // SAFETY: the same contract.
            return unsafe { registers.multiply(args, tiles) };
        }
        // SAFETY: the same contract.
        unsafe { portable(args, tiles, self.rows) }
    }
}

/// Which parts of pixels and of weights are multiplied.
const PRODUCTS: [[usize; 2]; 6] = [[0, 0], [0, 1], [0, 2], [1, 1], [1, 0], [2, 0]];

/// [`Tiles::multiply`] in plain loops, in AMX's order: of the products of two tiles, those of the pairs' first numbers are summed, and those of
/// the second ones; then the sum of both is added to what there was.
///
/// # Safety
/// As stated there.
unsafe fn portable(a: &TileProduct, [m, n]: [usize; 2], rows: usize) {
    let halves = |p: f32| [p.to_bits() << 16, p.to_bits() & 0xffff_0000].map(f32::from_bits);
    for (tile, row) in (0..m).flat_map(|tile| (0..rows).map(move |row| (tile, row))) {
        for (o, lane) in (0..n).flat_map(|o| (0..LINE).map(move |lane| (o, lane))) {
            let mut pixel = a.pixels.wrapping_byte_offset(tile as isize * a.second).wrapping_byte_add(row * a.pixel);
            let (mut weights, mut sum) = (a.weights, 0.0f32);
            for _ in 0..a.counts[2] {
                for _ in 0..a.counts[1] {
                    for _ in 0..a.counts[0] {
                        for [p, w] in PRODUCTS {
                            let mut sums = [0.0f32; 2];
                            for i in 0..LINE {
                                // SAFETY: the caller vouches for all tiles, parts, channels and taps.
                                let (x, w) = unsafe {
                                    let x = pixel.wrapping_byte_add(p * a.part).wrapping_add(i).read();
                                    (x, weights.wrapping_add((w * n + o) * TILE + i * LINE + lane).read())
                                };
                                // Products of bf16 are exact in f32.
                                let (x, w) = (halves(x), halves(w));
                                sums = [sums[0] + x[0] * w[0], sums[1] + x[1] * w[1]];
                            }
                            sum += sums[0] + sums[1];
                        }
                        pixel = pixel.wrapping_byte_add(a.channels);
                        weights = weights.wrapping_add(PARTS * n * TILE);
                    }
                    pixel = pixel.wrapping_byte_offset(a.next_column);
                }
                pixel = pixel.wrapping_byte_offset(a.next_row);
            }
            // SAFETY: the caller vouches for the sums of all pairs of tiles.
            unsafe { a.sums.add((tile * n + o) * TILE + row * LINE + lane).write(sum) };
        }
    }
}
