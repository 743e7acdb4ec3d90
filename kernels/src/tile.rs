//! The register tile: the one multiply-accumulate body under direct, stem and 1x1 convolution and GEMM.
//!
//! ```text
//! acc[i][o] = sum over (b, ky, kx, k)  x[b, ky, kx][i * PS + k * KS] * w[b, ky, kx][k][o]
//! y[i][o]   = activation(acc[i][o] + bias[o] + residual[i][o])
//! ```
//!
//! for `MR` pixels `i` and `NV` vectors of output channels `o`, all held in registers. The loop nest is
//! `b, ky, kx` (three outer loops with run-time counts and steps), then `k` over contiguous elements; per step of `k` it loads
//! `NV` vectors of weights, broadcasts `MR` inputs, and does `MR * NV` multiply-adds.
//!
//! What differs between the users is only where the inputs lie, [`Access`]:
//!
//! | access | pixel stride `PS` | step `KS` | user |
//! |---|---|---|---|
//! | `Blocked1`, `Blocked2` | 16, 32 | 1 | direct convolution of stride 1 and 2, 1x1 over flattened pixels; `k` runs over a block's channels; the first and last pixels may lack taps ([`Edge`]) |
//! | `Strided` | run time | 1 | any other stride, tiles that run down a column, NHWC, row-major matrices |
//! | `Plain1`, `Plain2`, `Plain4` | 1, 2, 4; small tiles run time | 1 | the stem, straight from NCHW; `k` runs over `kx` |
//! | `Packed` | 1 | `MR` | GEMM on packed panels |
//! | `PixelSum` | 1 | run time | weight gradients: `i` are output channels of the gradient, `k` pixels, and `w` is the input |
//!
//! `docs/kernels.md` of the repository teaches this with pictures, and follows one convolution from its shape to its stores.
//!
//! Register budget: `MR * NV` accumulators, `NV` weights, one broadcast; rows below stay within it on every level, and
//! `.ci/disassembly` proves that no tile loop touches the stack. Any tile with two or more weight vectors and eight or
//! more accumulators reaches the FMA peak (AVX-512: 97-100 % measured), so tiles are chosen for edge waste: the sizes
//! are contiguous, and a row of any length is cut into nearly equal pieces.
//!
//! Error: a plain sum in the order above, fused where the level fuses: `|err| <= (n + 2) * 2^-24 * sum |x * w|` for `n` terms.

mod store;
mod strand;

pub use store::{Finish, Output};
pub(crate) use store::{SyncFinish, load_channels};
pub(crate) use strand::Strand;

use core::ops::Range;
use core::ptr;
use core::sync::atomic::{Ordering, compiler_fence};
use std::sync::OnceLock;

use crate::isa::{Cpu, Entry, Isa, Kernel, Level};
use crate::layout::BLOCK;
use crate::probe;
use crate::table::by_level;

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
    /// Pixel stride of the input, for [`Access::Strided`] and `Plain1` to `Plain4`; step of the reduction's elements, for
    /// [`Access::PixelSum`].
    pub px: usize,
    /// Distance from a tap's inputs to those that it prefetches into L1; 0: none. Stems do not use it.
    pub ahead: usize,
    /// From one output-channel block's weights to the next one's; of [`Access::PixelSum`], from block to block of `w`.
    pub w_block: usize,
    /// Step of the reduction's elements in `w`, for [`Access::PixelSum`].
    pub w_step: usize,
    /// Whether the sum continues what the output holds.
    pub accumulate: bool,
    /// Whether the output's lines are asked for before a new sum, as [`fetches_output`] says.
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

/// Weights of the next block. While a tile computes, it prefetches them into L2, [`step`](Soon::step) floats with each tap, so that
/// a pass over 48 pixels fetches as many weights as it uses. Weights from memory then cost about what weights from L3 do.
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

/// Tiles that one call computes: rows of equal tiles. A call costs about as much as a hundred multiply-adds on vectors, a third
/// of a tile over 16 channels.
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
struct Place {
    x: usize,
    y: usize,
    /// Tiles of its row that follow.
    left: usize,
}

impl Place {
    #[inline(always)]
    fn first(sweep: &Sweep) -> Self {
        Self { x: 0, y: 0, left: sweep.tiles.n.wrapping_sub(1) }
    }

    /// The next tile's.
    #[inline(always)]
    fn next(self, Sweep { tiles, rows }: &Sweep) -> Self {
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

/// Pixels at each end of an edge tile of `mr` pixels that may lack taps at a level, for a convolution of that stride. Each number of
/// them is a loop of its own; at stride 2 more than one pixel would take a kernel of 7 taps.
pub const fn overhang(level: Level, stride: usize, mr: usize) -> usize {
    match level {
        Level::Avx512 if stride == 1 && mr >= LONG => OVERHANG,
        _ => 1,
    }
}

/// The pixel stride of [`Tile`] that stands for those of NCHW, at run time: what the small tiles of `Plain1`, `Plain2` and `Plain4` share.
/// They are at the ends of a row, or at rows of a few pixels; a copy for each stride was 0.1 MB of every program. Not the scalar level's,
/// which has no others: stems are 17 % slower with it.
const PLAIN: usize = 3;

/// Pixels of a tile from which on its loops are worth the code.
const LONG: usize = 4;

/// Which taps of a row the outermost pixels of an edge tile compute; [`overhang`] says how many pixels at each end.
///
/// ```text
///          pixel:  0   1   2  ...  8   9
/// kx = 0           .   x   x  ...  x   x      starts[0] = 1: the first pixel computes taps 1..
/// kx = 1           x   x   x  ...  x   x
/// kx = 2           x   x   x  ...  x   .      ends[0] = 2: the last pixel computes taps ..2
/// ```
///
/// Pixel `i` from the left computes taps `starts[i]..`, pixel `i` from the right taps `..ends[i]`, inner pixels all. The further inside a
/// pixel, the more taps it computes. If more than one pixel of one end lacks a tap, no pixel of the other end lacks it.
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
    fn lacking(&self, overhang: usize, i: usize) -> [usize; 2] {
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
    /// Adjacent floats are channels, and the reduction runs over pixels, whose steps in both operands are given at run time.
    PixelSum,
}

impl Access {
    /// How many there are.
    const COUNT: usize = Access::PixelSum as usize + 1;
}

/// The body for `MR` pixels, `NV` vectors, pixel stride `PS` and element step `KS` (0, and 3 for `PS`: run time). Of blocked input, the first and
/// the last pixels sit out the iterations of the innermost loop that they lack.
pub struct Tile<const MR: usize, const NV: usize, const PS: usize, const KS: usize>;

/// What a step needs of [`TileArgs`], in registers: the fences between steps would have it read from memory each time.
#[derive(Clone, Copy)]
struct Strides {
    px: usize,
    w_block: usize,
    w_step: usize,
}

impl Strides {
    #[inline(always)]
    fn of(a: &TileArgs) -> Self {
        Self { px: a.px, w_block: a.w_block, w_step: a.w_step }
    }
}

/// Elements at the end of a short sum, a single tap's or a stem's, that are taken for a few pixels at a time, which are then
/// stored. Stores wait for their sums, and more than about six of them hold up what comes after: on Zen 3, twelve in a row cost
/// 25 cycles, where 16 channels take 96.
const LATE: usize = 4;

/// The numbers of taps to the row whose stems are written out, by pixel stride: calls a macro with each.
macro_rules! stems {
    ($stem:ident $args:tt) => {
        $stem!($args 1: [3 5] 2: [3 7] 4: [4])
    };
}

/// Returns from the kernel by [`Tile::stem`], if the stem is written out, and stored in groups.
macro_rules! stem_in_groups {
    (($s:ident, $a:ident) $($ps:literal: [$($k:literal)*])*) => {
        $($(
            if const { PS == $ps && Self::writes_out(I::REGISTERS) && Self::in_groups(I::LEVEL) } && Self::is_stem($a, $k)
                && $a.out.takes_tiles(NV * I::LANES)
            {
                // SAFETY: the kernel's contract.
                return unsafe { Self::stem::<I, $k>($s, $a) };
            }
        )*)*
    };
}

/// Adds up a tile by [`Tile::stem_sums`], if the stem is written out, else by [`Tile::sums`].
macro_rules! sums_of_stem_or_any {
    (($s:ident, $own:ident, $x:expr, $soon:expr, $acc:expr) $($ps:literal: [$($k:literal)*])*) => {
        $($(
            if const { PS == $ps && Self::writes_out(I::REGISTERS) && !Self::in_groups(I::LEVEL) } && Self::is_stem($own, $k) {
                Self::stem_sums::<I, $k>($s, $own, $x, $acc);
            } else
        )*)*
        {
            Self::sums($s, $own, $x, $soon, $acc);
        }
    };
}

/// Calls [`Tile::finish`] for all groups of pixels, each number a constant: a loop around their loops is not unrolled.
macro_rules! finish_groups {
    ($args:tt; $($g:literal)*) => {
        $(if const { $g * Self::group(I::REGISTERS) < MR } {
            Self::finish::<I, $g> $args;
        })*
    };
}

/// Calls [`Tile::steps`] for the pixels that do not lack the tap, with their numbers as constants. `$most` pixels at an end may lack it.
/// rustc generates no code for the branches of an `if const` that are not taken; LLVM would have to remove four times as much.
macro_rules! edge_steps {
    ($lacking:expr, $most:expr, $args:tt) => {
        if const { $most == 0 } {
            Self::steps::<I, 0, 0> $args
        } else if const { $most == 1 } {
            match $lacking {
                [0, 0] => Self::steps::<I, 0, 0> $args,
                [1, 0] => Self::steps::<I, 1, 0> $args,
                [0, 1] => Self::steps::<I, 0, 1> $args,
                _ => Self::steps::<I, 1, 1> $args,
            }
        } else {
            match $lacking {
                [0, 0] => Self::steps::<I, 0, 0> $args,
                [1, 0] => Self::steps::<I, 1, 0> $args,
                [0, 1] => Self::steps::<I, 0, 1> $args,
                [2, _] => Self::steps::<I, 2, 0> $args,
                [3, _] => Self::steps::<I, 3, 0> $args,
                [_, 2] => Self::steps::<I, 0, 2> $args,
                [_, 3] => Self::steps::<I, 0, 3> $args,
                _ => Self::steps::<I, 1, 1> $args,
            }
        }
    };
}

impl<const MR: usize, const NV: usize, const PS: usize, const KS: usize> Tile<MR, NV, PS, KS> {
    /// Pixels that are stored together: about four vectors with 16 registers, all with more. On a core with two multiply-adds a
    /// cycle, to load the weights again for each group costs more than the stores do (Granite Rapids, 16 channels: 149 -> 167).
    const fn group(registers: usize) -> usize {
        match NV {
            _ if registers > 16 => MR,
            1..4 => 4 / NV,
            _ => 1,
        }
    }

    /// Whether the first and the last pixels may lack taps.
    const EDGE: bool = KS == 1 && PS >= BLOCK;

    /// Pixels at each end that may lack taps.
    const fn edge_pixels(level: Level) -> usize {
        if Self::EDGE { overhang(level, PS / BLOCK, MR) } else { 0 }
    }

    /// Whether short sums, a single tap's or a stem's, are stored in [groups](Tile::group) while the others are still added to. AVX-512's
    /// tiles have one group: copies of their loops and stores for it were a third of their code, and gained nothing on a Zen 4.
    const fn in_groups(level: Level) -> bool {
        !matches!(level, Level::Avx512)
    }

    /// Steps that [`Tile::steps`] of all pixels but `lacking` at the start and the end takes together: four with AVX-512's tiles and the
    /// large ones of AVX2, so that the loop itself costs few instructions, which are what is short where another thread shares the core
    /// (Zen 3), or where a tap has few cycles (Granite Rapids: 7x1 taps 165 -> 172). Pixels at a run-time stride would spill pointers.
    /// Taps that a pixel lacks are some, those that more than one lacks are rare.
    const fn unroll(level: Level, lacking: [usize; 2]) -> usize {
        let lacking = lacking[0] + lacking[1];
        let steps = match level {
            Level::Avx512 if lacking == 0 => 4,
            Level::Avx512 if lacking == 1 => 2,
            Level::Avx2 if NV == 2 && lacking == 0 => 4,
            _ => 1,
        };
        if MR >= LONG && KS == 1 && PS >= BLOCK { steps } else { 1 }
    }

    /// Whether weights are fetched ahead in each step. Those follow each other, so that the hardware does it too, and in small tiles
    /// a load more is what is short. Zen 3, AVX2's large tiles, 24 layers: 1 % faster without, 3 to 8 % beside another thread. Granite
    /// Rapids, weights in L2 | beyond: 7x32 150 -> 155 | 110 -> 102, 14x32 168 -> 169 | 154 -> 140.
    const fn fetches_weights(level: Level) -> bool {
        Self::FETCHES && (Self::unroll(level, [0, 0]) == 1 || matches!(level, Level::Avx512) && MR >= 9)
    }

    /// Whether a step loads inputs that another pixel had in the step before. The compiler would keep them, in registers that the
    /// sums need, so that it may not see that.
    const OVERLAPS: bool = KS == 1 && PS > 0 && PS < BLOCK;

    /// Whether anything is fetched ahead. A stem's weights stay in L1, and its inner loops are too short to hide what that costs.
    const FETCHES: bool = KS != 1 || PS == 0 || PS >= BLOCK;

    /// Whether the rows of stems of the usual widths are written out: loops over so few taps cost half as much again. Only where the sums
    /// fill at least half of the registers, since smaller tiles are met by rows of a few pixels alone; and with 16 registers, tiles of
    /// one vector or four would spill.
    const fn writes_out(registers: usize) -> bool {
        KS == 1 && 2 * MR * NV >= registers && (registers > 16 || NV == 2 || NV == 3)
    }

    /// From pixel to pixel of the input.
    #[inline(always)]
    fn px(a: Strides) -> usize {
        if PS == 0 || PS == PLAIN { a.px } else { PS }
    }

    /// From element to element of the reduction, in the input.
    #[inline(always)]
    fn ks(a: Strides) -> usize {
        if KS == 0 { a.px } else { KS }
    }

    /// The same in the weights.
    #[inline(always)]
    fn ws(a: Strides) -> usize {
        if KS == 0 { a.w_step } else { BLOCK }
    }

    /// The sums that the tile with its outputs at `y` begins with, and a request for the outputs that are needed next: its own, or
    /// the next tile's.
    ///
    /// # Safety
    /// As for the kernel.
    #[inline(always)]
    unsafe fn begin<I: Isa>(s: I, a: &TileArgs, y: usize, next: usize) -> [[I::V; NV]; MR] {
        if !a.accumulate {
            // Only at AVX-512 it depends: sums of 9 terms at AVX2 lose 3 % by the question alone.
            if !matches!(I::LEVEL, Level::Avx512) || a.fetch_output {
                a.out.prefetch::<I, MR, NV>(s, y);
            }
            return [[s.zero(); NV]; MR];
        }
        // SAFETY: the same contract.
        let acc = unsafe { a.out.load(s, y) };
        // The next tile's sums, which it needs at once.
        a.out.prefetch::<I, MR, NV>(s, next);
        acc
    }

    /// Asks for the inputs of all pixels that lie [`TileArgs::ahead`] of `x`.
    #[inline(always)]
    fn prefetch_ahead<I: Isa>(s: I, a: &TileArgs, x: *const f32) {
        if a.ahead != 0 {
            for i in 0..MR {
                s.prefetch(x.wrapping_add(i * Self::px(Strides::of(a)) + a.ahead));
            }
        }
    }

    /// Offset of vector `v`'s weights from the first one's.
    #[inline(always)]
    fn w_at<I: Isa>(a: Strides, v: usize) -> usize {
        v * I::LANES / BLOCK * a.w_block + v * I::LANES % BLOCK
    }

    /// Asks for the weights at `w` of all vectors.
    #[inline(always)]
    fn prefetch_weights<I: Isa>(s: I, a: Strides, w: *const f32) {
        for line in (0..NV).step_by(BLOCK / I::LANES) {
            s.prefetch(w.wrapping_add(Self::w_at::<I>(a, line)));
        }
    }

    /// Asks for the next of the weights that other tiles need soon.
    #[inline(always)]
    fn prefetch_soon<I: Isa>(s: I, a: &TileArgs, soon: &mut *const f32) {
        if *soon < a.soon.end {
            let step = const { Soon::step(MR * NV * I::LANES) };
            for line in (0..step).step_by(BLOCK) {
                s.prefetch_l2(soon.wrapping_add(line));
            }
            *soon = soon.wrapping_add(step);
        }
    }

    /// Adds the products of one element, whose input of the first pixel and weights are at `x` and `w`, to the sums of some pixels.
    ///
    /// # Safety
    /// The inputs of the pixels that take part and the weights of all vectors are readable.
    #[inline(always)]
    unsafe fn step<I: Isa>(
        s: I,
        a: Strides,
        (x, w): (*const f32, *const f32),
        pixels: Range<usize>,
        acc: &mut [[I::V; NV]; MR],
    ) {
        let px = Self::px(a);
        if Self::OVERLAPS {
            compiler_fence(Ordering::SeqCst);
        }
        // SAFETY: the same contract.
        unsafe {
            let mut wv = [s.zero(); NV];
            for v in 0..NV {
                wv[v] = s.load(w.add(Self::w_at::<I>(a, v)));
            }
            for i in pixels {
                let xv = s.load_splat(x.wrapping_add(i * px));
                for v in 0..NV {
                    acc[i][v] = s.fma(wv[v], xv, acc[i][v]);
                }
            }
        }
    }

    /// [`Tile::step`] of all pixels but the first `L` and the last `R` for a range of elements, while the same elements' weights from
    /// `next` on are asked for.
    ///
    /// # Safety
    /// As for [`Tile::step`], of each element.
    #[inline(always)]
    unsafe fn steps<I: Isa, const L: usize, const R: usize>(
        s: I,
        a: Strides,
        (x, w): (*const f32, *const f32),
        next: Option<*const f32>,
        elements: Range<usize>,
        acc: &mut [[I::V; NV]; MR],
    ) {
        let Range { start: mut k, end } = elements;
        let unroll = const { Self::unroll(I::LEVEL, [L, R]) };
        // SAFETY: the same contract.
        unsafe {
            if unroll > 1 && k + unroll <= end {
                s.align();
            }
            while unroll > 1 && k + unroll <= end {
                // Not over `k..k + unroll`, whose bounds would be compared: the sum might overflow.
                for i in 0..unroll {
                    if I::REGISTERS > 16 {
                        // Loads of the next step would take registers that the sums need.
                        compiler_fence(Ordering::SeqCst);
                    }
                    Self::element::<I, L, R>(s, a, (x, w), next, k + i, acc);
                }
                k += unroll;
            }
            while k < end {
                Self::element::<I, L, R>(s, a, (x, w), next, k, acc);
                k += 1;
            }
        }
    }

    /// Element `k` of [`Tile::steps`].
    ///
    /// # Safety
    /// As for [`Tile::step`].
    #[inline(always)]
    unsafe fn element<I: Isa, const L: usize, const R: usize>(
        s: I,
        a: Strides,
        (x, w): (*const f32, *const f32),
        next: Option<*const f32>,
        k: usize,
        acc: &mut [[I::V; NV]; MR],
    ) {
        if let Some(next) = next {
            Self::prefetch_weights(s, a, next.wrapping_add(k * Self::ws(a)));
        }
        let pixels = L..MR.saturating_sub(R);
        // SAFETY: the same contract.
        unsafe { Self::step(s, a, (x.wrapping_add(k * Self::ks(a)), w.wrapping_add(k * Self::ws(a))), pixels, acc) };
    }

    /// Adds the sum of a tile whose first input is at `x`, and asks for the weights that are needed soon.
    ///
    /// # Safety
    /// As for the kernel.
    #[inline(always)]
    unsafe fn sums<I: Isa>(s: I, a: &TileArgs, mut x: *const f32, soon: &mut *const f32, acc: &mut [[I::V; NV]; MR]) {
        let [lb, ly, lx] = &a.loops;
        // How far it is from the last step of an inner loop to the next step of the one around it: for `x` from behind that step, for `w`
        // from the step itself.
        let back = |outer: usize, n: usize, inner: usize| outer.wrapping_sub(n.wrapping_mul(inner));
        let overhang = const { Self::edge_pixels(I::LEVEL) };
        let strides = Strides::of(a);
        let mut w = a.w;
        for b in 0..lb.n {
            for ky in 0..ly.n {
                for kx in 0..lx.n {
                    let k0 = if b == 0 { a.head } else { 0 };
                    let k1 = if b + 1 == lb.n { a.tail } else { a.depth };
                    // A fence: else there would be loops of their own for taps without elements, unrolled to 1 kB of each kernel.
                    let k1 = s.opaque(ptr::without_provenance::<f32>(k1)).addr();
                    if Self::FETCHES {
                        Self::prefetch_soon(s, a, soon);
                    }
                    if Self::FETCHES && KS == 1 {
                        Self::prefetch_ahead(s, a, x);
                    }
                    // The next tap; after the last one the next tile starts with these weights again.
                    let next = if kx + 1 < lx.n {
                        w.wrapping_add(lx.w)
                    } else {
                        let row = back(ly.w, lx.n.wrapping_sub(1), lx.w);
                        if ky + 1 < ly.n {
                            w.wrapping_add(row)
                        } else if b + 1 < lb.n {
                            w.wrapping_add(row).wrapping_add(back(lb.w, ly.n, ly.w))
                        } else {
                            a.w
                        }
                    };
                    // The same step of the next tap, about 16 * MR * NV cycles ahead: far enough for L3. A packed panel just goes on.
                    let ahead = if KS == 1 { next } else { w.wrapping_add(BLOCK * Self::ws(strides)) };
                    let fetched = const { Self::fetches_weights(I::LEVEL) }.then_some(ahead);
                    let lacking = if overhang > 0 && a.edge.lacks() { a.edge.lacking(overhang, kx) } else { [0, 0] };
                    // SAFETY: all pointers stay inside what the contract grants.
                    unsafe {
                        edge_steps!(lacking, Self::edge_pixels(I::LEVEL), (s, strides, (x, w), fetched, k0..k1, acc))
                    };
                    (x, w) = (x.wrapping_add(lx.x), next);
                }
                x = x.wrapping_add(back(ly.x, lx.n, lx.x));
            }
            x = x.wrapping_add(back(lb.x, ly.n, ly.x));
        }
    }

    /// The loop over the input blocks of a single tap, if [`Tile::pointwise`] is to take it: blocks that are whole but for the last
    /// one, to be stored from registers.
    #[inline(always)]
    fn single_tap<I: Isa>(a: &TileArgs) -> Option<Loop> {
        if const { PS != BLOCK || KS != 1 || !Self::in_groups(I::LEVEL) } {
            return None;
        }
        if (a.depth, a.head) != (BLOCK, 0) || a.edge.lacks() || !a.out.takes_tiles(NV * I::LANES) {
            return None;
        }
        match a.loops {
            [blocks, Loop { n: 1, .. }, Loop { n: 1, .. }] if blocks.n > 0 && a.tail >= LATE => Some(blocks),
            [Loop { n: 1, .. }, Loop { n: 1, .. }, blocks] if blocks.n > 0 && a.tail == BLOCK => Some(blocks),
            _ => None,
        }
    }

    /// The kernel for 1x1 convolutions, whose sums are so short that each cycle around them counts.
    ///
    /// # Safety
    /// As for the kernel; `blocks` is its [`Tile::single_tap`].
    #[inline(always)]
    unsafe fn pointwise<I: Isa>(s: I, a: &TileArgs, blocks: Loop) {
        let tail = a.tail - LATE;
        let mut soon = a.soon.from;
        // SAFETY: all pointers stay inside what the contract grants.
        unsafe {
            let mut coming = Place::first(&a.sweep);
            for _ in 0..a.sweep.tiles.n * a.sweep.rows.n {
                let at = coming;
                coming = at.next(&a.sweep);
                let (mut x, mut w, y) = (a.x.wrapping_add(at.x), a.w, at.y);
                let mut acc = Self::begin(s, a, y, coming.y);
                let mut left = blocks.n;
                loop {
                    left -= 1;
                    Self::prefetch_soon(s, a, &mut soon);
                    Self::prefetch_ahead(s, a, x);
                    let (next, end) = if left > 0 { (w.wrapping_add(blocks.w), BLOCK) } else { (a.w, tail) };
                    let fetched = const { Self::fetches_weights(I::LEVEL) }.then_some(next);
                    Self::steps::<I, 0, 0>(s, Strides::of(a), (x, w), fetched, 0..end, &mut acc);
                    if left == 0 {
                        break;
                    }
                    (x, w) = (x.wrapping_add(blocks.x), next);
                }
                let end = (x.add(tail), w.add(tail * BLOCK), LATE);
                finish_groups!((s, a, end, y, &mut acc); 0 1 2 3 4 5 6 7 8 9 10 11 12 13);
                a.out.pad::<I, MR, NV>(s, y);
            }
        }
    }

    /// Whether a sum is a stem's of so many taps to the row: all of each row.
    #[inline(always)]
    fn is_stem(a: &TileArgs, taps: usize) -> bool {
        let [channels, rows, columns] = a.loops;
        (a.head, a.depth, a.tail) == (0, taps, taps) && channels.n > 0 && rows.n > 0 && columns.n == 1
    }

    /// Adds the sum of a [stem](Tile::is_stem) of `K` taps to the row, whose first input is at `x`: loops over so few taps cost half as
    /// much again.
    ///
    /// # Safety
    /// As for the kernel.
    #[inline(always)]
    unsafe fn stem_sums<I: Isa, const K: usize>(s: I, a: &TileArgs, mut x: *const f32, acc: &mut [[I::V; NV]; MR]) {
        let [channels, rows, _] = a.loops;
        let strides = Strides::of(a);
        let mut w = a.w;
        for _ in 0..channels.n {
            let (mut row_x, mut row_w) = (x, w);
            for _ in 0..rows.n {
                for k in 0..K {
                    // SAFETY: all pointers stay inside what the contract grants.
                    unsafe { Self::step(s, strides, (row_x.add(k), row_w.add(k * BLOCK)), 0..MR, acc) };
                }
                (row_x, row_w) = (row_x.wrapping_add(rows.x), row_w.wrapping_add(rows.w));
            }
            (x, w) = (x.wrapping_add(channels.x), w.wrapping_add(channels.w));
        }
    }

    /// The kernel for stems of the usual widths, `K` taps to the row.
    ///
    /// # Safety
    /// As for the kernel; it is a [stem](Tile::is_stem) of `K` taps to the row.
    #[inline(always)]
    unsafe fn stem<I: Isa, const K: usize>(s: I, a: &TileArgs) {
        let [channels, rows, _] = a.loops;
        // From behind a channel's last row to the next channel.
        let back = |outer: usize, inner: usize| outer.wrapping_sub(rows.n.wrapping_mul(inner));
        let (back_x, back_w) = (back(channels.x, rows.x), back(channels.w, rows.w));
        // SAFETY: all pointers stay inside what the contract grants.
        unsafe {
            let mut coming = Place::first(&a.sweep);
            for _ in 0..a.sweep.tiles.n * a.sweep.rows.n {
                let at = coming;
                coming = at.next(&a.sweep);
                let mut acc = Self::begin(s, a, at.y, coming.y);
                let (mut x, mut w) = (a.x.wrapping_add(at.x), a.w);
                let mut left = channels.n;
                loop {
                    left -= 1;
                    for _ in 0..rows.n - usize::from(left == 0) {
                        for k in 0..K {
                            Self::step(s, Strides::of(a), (x.add(k), w.add(k * BLOCK)), 0..MR, &mut acc);
                        }
                        (x, w) = (x.wrapping_add(rows.x), w.wrapping_add(rows.w));
                    }
                    if left == 0 {
                        break;
                    }
                    (x, w) = (x.wrapping_add(back_x), w.wrapping_add(back_w));
                }
                let early = K.saturating_sub(LATE);
                for k in 0..early {
                    Self::step(s, Strides::of(a), (x.add(k), w.add(k * BLOCK)), 0..MR, &mut acc);
                }
                let end = (x.add(early), w.add(early * BLOCK), K - early);
                finish_groups!((s, a, end, at.y, &mut acc); 0 1 2 3 4 5 6 7 8 9 10 11 12 13);
                a.out.pad::<I, MR, NV>(s, at.y);
            }
        }
    }

    /// Adds the last `n` elements, of which the first are at `x` and `w`, to the sums of group `G` of the pixels, and stores these.
    ///
    /// # Safety
    /// As for [`Tile::pointwise`] and [`Tile::stem`].
    #[inline(always)]
    unsafe fn finish<I: Isa, const G: usize>(
        s: I,
        a: &TileArgs,
        (x, w, n): (*const f32, *const f32, usize),
        y: usize,
        acc: &mut [[I::V; NV]; MR],
    ) {
        let group = const { Self::group(I::REGISTERS) };
        let pixels = G * group..MR.min((G + 1) * group);
        // SAFETY: the same contract.
        unsafe {
            for k in 0..n {
                Self::step(s, Strides::of(a), (x.add(k), w.add(k * BLOCK)), pixels.clone(), acc);
            }
            a.out.store_pixels(s, y, pixels, acc);
        }
    }
}

impl<I: Isa, const MR: usize, const NV: usize, const PS: usize, const KS: usize> Kernel<I> for Tile<MR, NV, PS, KS> {
    type Args = TileArgs;

    /// # Safety
    /// * every `x[..]` of the sum above is readable, for all tiles, loops, `head..depth..tail` elements and `MR` pixels (of blocked
    ///   input, where the pixel takes part);
    /// * the weights of `NV * LANES / 16` blocks are readable likewise, 16 columns wide;
    /// * `out` is as `Output::store` asks for `MR` pixels and `NV` vectors of every tile.
    #[inline(always)]
    unsafe fn run(s: I, a: &TileArgs) {
        const { assert!(MR * NV + NV < I::REGISTERS && BLOCK.is_multiple_of(I::LANES)) };
        if let Some(blocks) = Self::single_tap::<I>(a) {
            // SAFETY: the same contract.
            return unsafe { Self::pointwise(s, a, blocks) };
        }
        stems!(stem_in_groups(s, a));
        // SAFETY: all pointers stay inside what the contract above grants.
        unsafe {
            let mut soon = a.soon.from;
            let mut coming = Place::first(&a.sweep);
            for _ in 0..a.sweep.tiles.n * a.sweep.rows.n {
                let at = coming;
                coming = at.next(&a.sweep);
                let mut acc = Self::begin(s, a, at.y, coming.y);
                // An edge pixel that sits out may lie outside of the input, so pointers are formed with wrapping arithmetic.
                stems!(sums_of_stem_or_any(s, a, a.x.wrapping_add(at.x), &mut soon, &mut acc));
                a.out.store(s, at.y, &mut acc);
                a.out.pad::<I, MR, NV>(s, at.y);
            }
        }
    }
}

/// Whether tiles of a level should ask for their output's lines before a new sum of so many terms, where a thread writes so many bytes
/// of output. Always, so that the stores do not wait for them, but on a core with 512-bit units (told by those from Zen, for which it was
/// made): a Granite Rapids mostly sees the stores coming. With | without, one thread, GFLOP/s:
///
/// * 1x1 16->96, output of 4.8 MB 149 | 158, 9.8 MB 129 | 123, 77 MB 87 | 72;
/// * stems 3->32, 1.6 MB 161 | 169, 6.4 MB 132 | 131, 3->64, 12.6 MB 147 | 138; of 9 terms 1->32, 1.6 MB 114 | 110, 6.4 MB 95 | 85;
/// * in L2 1x1 layers are 0.5 to 1 % faster without.
pub fn fetches_output(level: Level, terms: usize, bytes: usize) -> bool {
    halves_gain(level) || terms < BLOCK || bytes > 3 * Cpu::l2_bytes()
}

/// Whether this machine gains by a level's [half tiles](TileSet::half): AVX-512's are of half registers. Granite Rapids, 96 and 144 -> 24
/// channels at 56x56: 110 GFLOP/s by half tiles, 128 by whole ones.
pub fn halves_gain(level: Level) -> bool {
    level != Level::Avx512 || probe::half_registers_gain()
}

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

/// The outermost edges, a module for each access: rustc generates the code of a module's functions together, and several modules'
/// at the same time.
mod edge {
    use crate::table::edges;

    edges!(pub(super) blocked1);
    edges!(pub(super) blocked2);
    edges!(pub(super) plain);
    edges!(pub(super) strided);
    edges!(pub(super) packed);
    edges!(pub(super) pixel_sum);
}

/// Rows of one level: for each width of output channels, the numbers of pixels for `Blocked1`, and the lists of the other accesses:
/// `Blocked2` (`s2`), `Plain1` to `Plain4` (`stem`: sizes that share a kernel; others), `Strided`, `Packed` and `PixelSum` (`sums`). `narrow` widths, which end in half a block, have kernels for adjacent blocked pixels only: with kernels for
/// every access they were a third of all of AVX-512's code, for layers that end in 8 or 24 channels. A group shares an entry and its
/// lanes.
macro_rules! rows {
    ($level:ident, $name:literal;
     $($entry:ident $lanes:literal {
        $($cols:literal: [$($mr:literal)*] s2 [$($s2mr:literal)*] stem [$($fmr:literal)* ; $($tmr:literal)*] strided [$($smr:literal)*] packed [$($pmr:literal)*] narrow [$($nmr:literal)*]
         sums [$($amr:literal)*];)*
     })*) => {
        &[$($(
            $(
                rows!(@row $level, $entry, $lanes, $name, $cols, $mr, blocked1 Blocked1, "conv", 16, 1),
            )*
            $(
                rows!(@row $level, $entry, $lanes, $name, $cols, $s2mr, blocked2 Blocked2, "conv_s2", 32, 1),
            )*
            $(
                rows!(@row $level, $entry, $lanes, $name, $cols, $fmr, plain Plain1, "stem_s1", PLAIN, 1),
                rows!(@row $level, $entry, $lanes, $name, $cols, $fmr, plain Plain2, "stem_s2", PLAIN, 1),
                rows!(@row $level, $entry, $lanes, $name, $cols, $fmr, plain Plain4, "stem_s4", PLAIN, 1),
            )*
            $(
                rows!(@row $level, $entry, $lanes, $name, $cols, $tmr, plain Plain1, "stem_s1", 1, 1),
                rows!(@row $level, $entry, $lanes, $name, $cols, $tmr, plain Plain2, "stem_s2", 2, 1),
                rows!(@row $level, $entry, $lanes, $name, $cols, $tmr, plain Plain4, "stem_s4", 4, 1),
            )*
            $(
                rows!(@row $level, $entry, $lanes, $name, $cols, $nmr, blocked1 Blocked1, "conv", 16, 1),
            )*
            $(
                rows!(@row $level, $entry, $lanes, $name, $cols, $smr, strided Strided, "conv_any", 0, 1),
            )*
            $(
                rows!(@row $level, $entry, $lanes, $name, $cols, $pmr, packed Packed, "gemm", 1, $pmr),
            )*
            $(
                rows!(@row $level, $entry, $lanes, $name, $cols, $amr, pixel_sum PixelSum, "bwd_w", 1, 0),
            )*
        )*)*]
    };
    (@row $level:ident, $entry:ident, $lanes:literal, $name:literal, $cols:literal, $mr:literal,
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

by_level! {
    /// All tile kernels of a level; none for a level of another architecture.
    pub fn rows() -> [Row];

    // 16 registers and no memory operand for multiply-add; 4 floats to the register.
    Scalar: rows! {
        Scalar, "scalar";
        scalar 4 {
            16: [1 2] s2 [1 2] stem [; 1 2] strided [1 2] packed [1 2] narrow [] sums [1 2];
        }
    },
    // 16 registers: 6x16 takes 15 of them; 4x24 would fill all and spill. 12x8 spills as an edge tile.
    Avx2: rows! {
        Avx2, "avx2";
        avx2 8 {
            8: [] s2 [] stem [;] strided [] packed [] narrow [1 2 3 4 5 6 7 8 9 10] sums [];
            16: [1 2 3 4 5 6] s2 [1 2 3 4 5 6] stem [1 2 3; 4 5 6] strided [1 2 3 4 5 6] packed [1 2 3 4 5 6] narrow [] sums [1 5 6];
            24: [] s2 [] stem [;] strided [] packed [] narrow [1 2 3] sums [];
            32: [1 2] s2 [] stem [;] strided [1 2] packed [1 2] narrow [] sums [];
        }
    },
    // 32 registers: 14x32, 9x48 and 6x64 take 31, 31 and 29 of them. Fourteen divides 14, 28, 56, 112 and 224. Where the last
    // block is at most half full, tiles of half as wide vectors save a half of its time.
    // Matrix products cut rows for the widest tile, so that its sizes must be there in every width.
    Avx512: rows! {
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
    },
    // 32 registers: 5x16 takes 25 of them. Inputs are broadcast by their load; keeping four of each pixel for FMA by lane made
    // the compiler spill.
    Neon: rows! {
        Neon, "neon";
        neon 4 {
            16: [1 2 3 4 5] s2 [1 2 3 4 5] stem [1 2 3; 4 5] strided [1 2 3 4 5] packed [1 2 3 4 5] narrow [] sums [1 4];
            32: [1 2] s2 [1 2] stem [1; 2] strided [1 2] packed [1 2] narrow [] sums [];
        }
    },
}

/// Most blocks of output channels in a tile, on any level.
pub const MAX_BLOCKS: usize = 4;
/// Most pixels in a tile, on any level.
pub const MAX_MR: usize = 14;

/// Runs of more pixels than this are cut like runs of this many: edge waste no longer depends on the length.
const MANY: usize = 56;

/// The tiles of one level and access, by size.
#[derive(Clone, Copy, Debug)]
pub struct TileSet {
    rows: [[Option<&'static Row>; MAX_MR + 1]; MAX_BLOCKS + 1],
    max_mr: [usize; MAX_BLOCKS + 1],
    /// Widest tile, in blocks of output channels.
    pub max_blocks: usize,
    /// The best width for each number of blocks and pixels, and its cycles.
    widths: [[u8; MANY + 1]; MAX_BLOCKS + 1],
    cycles: [[u16; MANY + 1]; MAX_BLOCKS + 1],
}

/// The sets that were asked for, by level, access, whether their last block is a half, and whether sums are short. A plan asks for
/// a dozen, and working out the best widths of one takes 10 microseconds.
/// Each in a box: 190 kB of programs were sets yet to come.
static SETS: [OnceLock<Box<TileSet>>; Level::ALL.len() * Access::COUNT * 4] =
    [const { OnceLock::new() }; Level::ALL.len() * Access::COUNT * 4];

impl TileSet {
    /// The tiles of whole blocks that `level` has for `access`, for sums of so many terms.
    pub fn new(level: Level, access: Access, terms: usize) -> &'static Self {
        Self::known(level, access, false, terms)
    }

    /// The tiles whose last block is a half, if `level` has such: as many blocks wide as [`TileSet::max_blocks`] says, or fewer.
    pub fn half(level: Level, access: Access, terms: usize) -> Option<&'static Self> {
        let set = Self::known(level, access, true, terms);
        (set.max_blocks > 0).then_some(set)
    }

    fn known(level: Level, access: Access, half: bool, terms: usize) -> &'static Self {
        let overhead = Overhead::new(level, access, terms);
        let number = (level as usize * Access::COUNT + access as usize) * 4;
        let set = &SETS[number + 2 * usize::from(half) + usize::from(overhead.short)];
        set.get_or_init(|| Box::new(Self::of(level, access, if half { BLOCK / 2 } else { 0 }, overhead)))
    }

    /// The tiles that are `missing` channels short of whole blocks.
    fn of(level: Level, access: Access, missing: usize, overhead: Overhead) -> Self {
        let mut set = Self {
            rows: [[None; MAX_MR + 1]; MAX_BLOCKS + 1],
            max_mr: [0; MAX_BLOCKS + 1],
            max_blocks: 0,
            widths: [[1; MANY + 1]; MAX_BLOCKS + 1],
            cycles: [[0; MANY + 1]; MAX_BLOCKS + 1],
        };
        for row in rows(level).iter().filter(|r| r.access == access && r.cols + missing == r.blocks * BLOCK) {
            set.rows[row.blocks][row.mr] = Some(row);
            set.max_mr[row.blocks] = set.max_mr[row.blocks].max(row.mr);
            set.max_blocks = set.max_blocks.max(row.blocks);
        }
        for blocks in 1..=MAX_BLOCKS {
            for pixels in 1..=MANY {
                let (width, cycles) = best_width(level, &set.max_mr, overhead, pixels, blocks);
                (set.widths[blocks][pixels], set.cycles[blocks][pixels]) = (width as u8, cycles as u16);
            }
        }
        set
    }

    /// Most pixels of a tile that is `blocks` wide.
    pub fn max_mr(&self, blocks: usize) -> usize {
        self.max_mr[blocks]
    }

    /// Most pixels of any tile.
    pub fn longest(&self) -> usize {
        self.max_mr.into_iter().max().unwrap_or(1)
    }

    /// The tile of `mr` pixels and `blocks` blocks, which must not exceed `max_mr(blocks)`.
    #[inline]
    pub fn get(&self, mr: usize, blocks: usize) -> &'static Row {
        self.rows[blocks][mr].expect("tile sizes are contiguous up to the largest")
    }

    /// How wide tiles should be that cover `blocks` output-channel blocks, at most [`MAX_BLOCKS`], and runs of `pixels`
    /// pixels: the width with the fewest cycles per step of the reduction, counting a tile's multiply-adds against its
    /// loads and latency; between equals, the one that streams fewer weights, then the one with fewer loads, for short sums the other
    /// way round.
    #[inline]
    pub fn best_width(&self, pixels: usize, blocks: usize) -> usize {
        self.widths[blocks][pixels.min(MANY)].into()
    }

    /// Cycles that these tiles take for a step of the reduction, in multiply-adds; of long runs, those of the first pixels.
    pub fn cycles(&self, pixels: usize, blocks: usize) -> usize {
        self.cycles[blocks][pixels.min(MANY)].into()
    }
}

/// What tiles cost beside their multiply-adds.
#[derive(Clone, Copy)]
pub(crate) struct Overhead {
    /// Cycles that a small tile loses with each step.
    small: usize,
    /// Whether sums are so short that what counts is how fast tiles follow each other. Wide ones of few pixels load least, and the
    /// weights of such sums are near.
    short: bool,
}

impl Overhead {
    /// None.
    pub(crate) const NONE: Overhead = Overhead { small: 0, short: false };

    /// Of the tiles of `level`, for sums of so many terms. Measured where AVX-512 has two multiply-adds and two loads a cycle, on a
    /// Granite Rapids:
    ///
    /// * a small tile loses about half a cycle: of what 12x32 and larger ones, 6x48 and 5x64 reach, 7x32 to 11x32 reach 93 to 96 %,
    ///   5x48 93 %, 4x64 91 %;
    /// * each tile of 14x32 takes some 30 cycles more than its multiply-adds, 6x64 5 to 10. 1x1 layers of 16 to 384 input channels
    ///   are 2 to 8 % faster by the latter, those of 512 and more as fast or 3 % slower; 3x3 of stride 2 with 128 channels still
    ///   4 % faster, with 192 1 % slower.
    fn new(level: Level, access: Access, terms: usize) -> Self {
        let wide = level == Level::Avx512;
        let short = if access == Access::Blocked2 { 1152 } else { 384 };
        Self { small: usize::from(wide), short: wide && terms <= short }
    }
}

/// The width with the lowest cost, as [`TileSet::best_width`] states it, of tiles of `level` that have at most
/// `max_mr[width]` pixels, and its cycles.
pub(crate) fn best_width(
    level: Level,
    max_mr: &[usize; MAX_BLOCKS + 1],
    overhead: Overhead,
    pixels: usize,
    blocks: usize,
) -> (usize, usize) {
    let cost = |width: usize| {
        let (mut cycles, mut weights, mut loads) = (0, 0, 0);
        for (_, nb) in pieces(blocks, width) {
            for (_, mr) in pieces(pixels, max_mr[nb]) {
                let nv = nb * BLOCK / level.lanes();
                // AVX-512: one multiply-add and one load per cycle; else two and two.
                cycles += (mr * nv).max(mr + nv).max(level.in_flight());
                if mr * nv < 18 || nv == 2 && mr < 12 {
                    cycles += overhead.small;
                }
                weights += nv;
                loads += mr + nv;
            }
        }
        if overhead.short { (cycles, loads, weights) } else { (cycles, weights, loads) }
    };
    let widths = (1..=MAX_BLOCKS.min(blocks)).filter(|&w| max_mr[w] > 0);
    widths.map(|w| (w, cost(w))).min_by_key(|&(_, cost)| cost).map_or((1, 0), |(w, (cycles, ..))| (w, cycles))
}

/// Cuts `total` into the fewest pieces of at most `max`, as equal as possible: `(start, length)`, longer ones first.
#[inline]
pub fn pieces(total: usize, max: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let n = total.div_ceil(max);
    let (base, longer) = (total.checked_div(n).unwrap_or(0), total.checked_rem(n).unwrap_or(0));
    (0..n).map(move |i| (i * base + i.min(longer), base + usize::from(i < longer)))
}

/// The same as at most two runs of equal pieces: `(start, length, number)`.
#[inline]
pub fn runs(total: usize, max: usize) -> impl Iterator<Item = (usize, usize, usize)> + Clone {
    let n = total.div_ceil(max);
    let (base, longer) = (total.checked_div(n).unwrap_or(0), total.checked_rem(n).unwrap_or(0));
    let all = [(0, base + 1, longer), (longer * (base + 1), base, n - longer)];
    all.into_iter().filter(|&(_, _, n)| n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_once() {
        for (total, max) in [(56, 14), (49, 14), (1, 14), (0, 3), (5, 5), (29, 14)] {
            let mut end = 0;
            for (start, len) in pieces(total, max) {
                assert_eq!(start, end);
                assert!((1..=max).contains(&len));
                end += len;
            }
            assert_eq!(end, total);
            let one_by_one = runs(total, max).flat_map(|(start, len, n)| (0..n).map(move |i| (start + i * len, len)));
            assert!(one_by_one.eq(pieces(total, max)));
        }
    }
}
