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
//! | `Blocked1`, `Blocked2` | 16, 32 | 1 | direct convolution of stride 1 and 2, 1x1 over flattened pixels; `k` runs over a block's channels |
//! | `Strided` | run time | 1 | any other stride, tiles that run down a column, NHWC, row-major matrices |
//! | `Plain1`, `Plain2`, `Plain4` | 1, 2, 4 | 1 | the stem, straight from NCHW; `k` runs over `kx` |
//! | `Packed` | 1 | `MR` | GEMM on packed panels |
//!
//! Register budget: `MR * NV` accumulators, `NV` weights, one broadcast; rows below stay within it on every level, and
//! `.ci/disassembly` proves that no tile loop touches the stack. Any tile with two or more weight vectors and eight or
//! more accumulators reaches the FMA peak (AVX-512: 97-100 % measured), so tiles are chosen for edge waste: the sizes
//! are contiguous, and a row of any length is cut into nearly equal pieces.
//!
//! Error: a plain sum in the order above, fused where the level fuses: `|err| <= (n + 2) * 2^-24 * sum |x * w|` for `n` terms.

use crate::act::{self, ActArgs};
use crate::epilogue::{Activation, Epilogue};
use crate::isa::{self, Entry, Isa, Kernel, Level};
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

/// What happens to a finished sum before its store. Null pointers stand for what is absent.
#[derive(Clone, Copy, Debug)]
pub struct Finish {
    /// Bias of the tile's first output channel.
    pub bias: *const f32,
    /// Residual at the tile's first output, with the output's strides.
    pub residual: *const f32,
    /// Lower clamp; minus infinity for none.
    pub lo: f32,
    /// Upper clamp; infinity for none.
    pub hi: f32,
    /// An activation beyond a clamp, run on the tile in a buffer.
    pub act: Option<Entry<ActArgs>>,
    /// Parameters of that activation.
    pub act_params: [f32; 2],
}

impl Finish {
    /// Pointers at the starts of the epilogue's tensors, and its activation as a clamp or as a kernel of `level`.
    pub(crate) fn new(e: &Epilogue<'_>, level: Level) -> Self {
        let start = |s: Option<&[f32]>| s.map_or(core::ptr::null(), <[f32]>::as_ptr);
        let (lo, hi) = match e.activation {
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Clip { lo, hi } => (lo, hi),
            _ => (f32::NEG_INFINITY, f32::INFINITY),
        };
        let clamp = matches!(e.activation, Activation::Identity | Activation::Relu | Activation::Clip { .. });
        let (act, act_params) = if clamp { (None, [0.0; 2]) } else { act::entry(level, e.activation) };
        Self { bias: start(e.bias), residual: start(e.residual), lo, hi, act, act_params }
    }

    /// The same for a tile whose first output channel is `oc` and whose first output is `y` floats from the start.
    #[inline]
    pub(crate) fn at(&self, oc: usize, y: usize) -> Self {
        let shift = |p: *const f32, by: usize| if p.is_null() { p } else { p.wrapping_add(by) };
        Self { bias: shift(self.bias, oc), residual: shift(self.residual, y), ..*self }
    }
}

/// What a tile works on. Lengths and steps in floats.
#[derive(Clone, Copy, Debug)]
pub struct TileArgs {
    /// Input of the first pixel, at the first tap and the first channel block.
    pub x: *const f32,
    /// Weights of the first output-channel block at the same place, `[16 k][16 oc]` per step of the outer loops.
    pub w: *const f32,
    /// Output of the first pixel and channel.
    pub y: *mut f32,
    /// The outer loops, outermost first.
    pub loops: [Loop; 3],
    /// Elements that the inner loop takes per step of the outer loops.
    pub depth: usize,
    /// Where the inner loop starts in the first step of the outermost loop.
    pub head: usize,
    /// Where the inner loop ends in the last step of the outermost loop.
    pub tail: usize,
    /// Pixel stride of the input, for [`Access::Strided`].
    pub px: usize,
    /// From one output-channel block's weights to the next one's.
    pub w_block: usize,
    /// From output pixel to output pixel.
    pub y_px: usize,
    /// From output-channel block to output-channel block.
    pub y_block: usize,
    /// From output channel to output channel within a block; other than 1 (NCHW), tiles go through a buffer.
    pub y_channel: usize,
    /// Output channels of this tile that exist.
    pub cols: usize,
    /// Whether channels beyond `cols` are stored as zeros (blocked output) or not at all.
    pub pad_cols: bool,
    /// Whether the sum continues what `y` holds.
    pub accumulate: bool,
    /// Set on the last chunk of a reduction.
    pub finish: Option<Finish>,
}

/// Where the pixels and the reduction's elements of a tile lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Blocked input, adjacent pixels.
    Blocked1,
    /// Blocked input, every other pixel.
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
}

/// The body for `MR` pixels, `NV` vectors, pixel stride `PS` (0: run time) and element step `KS`.
pub struct Tile<const MR: usize, const NV: usize, const PS: usize, const KS: usize>;

/// Longest tile that goes through a buffer, in floats: 28 x 16, 14 x 32, 9 x 48, 6 x 64.
const BUFFER: usize = 448;

impl<I: Isa, const MR: usize, const NV: usize, const PS: usize, const KS: usize> Kernel<I> for Tile<MR, NV, PS, KS> {
    type Args = TileArgs;

    /// # Safety
    /// * every `x[..]` of the sum above is readable, for all loops, `head..depth..tail` elements and `MR` pixels;
    /// * the weights of `NV * LANES / 16` blocks are readable likewise, 16 columns wide;
    /// * `y`, and `finish.residual` if not null, are valid for `MR` pixels of `cols` channels (of whole blocks with
    ///   `pad_cols`), and `finish.bias`, if not null, for `cols` floats;
    /// * `finish.act` is of an available level.
    #[inline(always)]
    unsafe fn run(s: I, a: &TileArgs) {
        const { assert!(MR * NV + NV < I::REGISTERS && MR * NV * I::LANES <= BUFFER && BLOCK % I::LANES == 0) };
        let full = a.cols >= NV * I::LANES && a.y_channel == 1;
        // Offset of vector v from its tile's first, given the distance of blocks.
        let at = |v: usize, block: usize| v * I::LANES / BLOCK * block + v * I::LANES % BLOCK;
        // SAFETY: all pointers stay inside what the contract above grants; see each line.
        unsafe {
            let mut acc = [[s.zero(); NV]; MR];
            if a.accumulate {
                if full {
                    for i in 0..MR {
                        for v in 0..NV {
                            acc[i][v] = s.load(a.y.add(i * a.y_px + at(v, a.y_block)));
                        }
                    }
                } else {
                    let mut buffer = [0.0f32; BUFFER];
                    for i in 0..MR {
                        for v in 0..NV {
                            let n = a.cols.saturating_sub(v * I::LANES).min(I::LANES);
                            let channel = v * I::LANES / BLOCK * a.y_block + v * I::LANES % BLOCK * a.y_channel;
                            let y = a.y.wrapping_add(i * a.y_px + channel);
                            let slot = buffer.as_mut_ptr().add((i * NV + v) * I::LANES);
                            if a.y_channel == 1 {
                                s.store(slot, s.load_partial(y, n));
                            } else {
                                for c in 0..n {
                                    slot.add(c).write(y.add(c * a.y_channel).read());
                                }
                            }
                        }
                    }
                    for i in 0..MR {
                        for v in 0..NV {
                            acc[i][v] = s.load(buffer.as_ptr().add((i * NV + v) * I::LANES));
                        }
                    }
                }
            }

            let px = if PS == 0 { a.px } else { PS };
            let [lb, ly, lx] = a.loops;
            for b in 0..lb.n {
                let k0 = if b == 0 { a.head } else { 0 };
                let k1 = if b + 1 == lb.n { a.tail } else { a.depth };
                for ky in 0..ly.n {
                    for kx in 0..lx.n {
                        let x = a.x.add(b * lb.x + ky * ly.x + kx * lx.x);
                        let w = a.w.add(b * lb.w + ky * ly.w + kx * lx.w);
                        let mut k = k0;
                        // With lane FMA, A_LANES elements of each pixel come in with one load.
                        if I::A_LANES > 1 && KS == 1 {
                            while k + I::A_LANES <= k1 {
                                let mut source = [s.load_a(x.add(k)); MR];
                                for i in 1..MR {
                                    source[i] = s.load_a(x.add(i * px + k));
                                }
                                for lane in 0..I::A_LANES {
                                    let mut wv = [s.zero(); NV];
                                    for v in 0..NV {
                                        wv[v] = s.load(w.add((k + lane) * BLOCK + at(v, a.w_block)));
                                    }
                                    for i in 0..MR {
                                        for v in 0..NV {
                                            acc[i][v] = s.fma_a(acc[i][v], wv[v], source[i], lane);
                                        }
                                    }
                                }
                                k += I::A_LANES;
                            }
                        }
                        while k < k1 {
                            let mut wv = [s.zero(); NV];
                            for v in 0..NV {
                                wv[v] = s.load(w.add(k * BLOCK + at(v, a.w_block)));
                            }
                            for i in 0..MR {
                                let xv = s.load_splat(x.add(i * px + k * KS));
                                for v in 0..NV {
                                    acc[i][v] = s.fma(wv[v], xv, acc[i][v]);
                                }
                            }
                            k += 1;
                        }
                    }
                }
            }

            let Some(f) = &a.finish else {
                if full {
                    store_registers(s, a, &acc);
                } else {
                    store_buffer(s, a, &acc, false);
                }
                return;
            };
            if full && f.act.is_none() {
                if !f.bias.is_null() {
                    for v in 0..NV {
                        let bias = s.load(f.bias.add(v * I::LANES));
                        for i in 0..MR {
                            acc[i][v] = s.add(acc[i][v], bias);
                        }
                    }
                }
                if !f.residual.is_null() {
                    for i in 0..MR {
                        for v in 0..NV {
                            acc[i][v] = s.add(acc[i][v], s.load(f.residual.add(i * a.y_px + at(v, a.y_block))));
                        }
                    }
                }
                let (lo, hi) = (s.splat(f.lo), s.splat(f.hi));
                for i in 0..MR {
                    for v in 0..NV {
                        // The clamp is the first operand, so that a NaN in the sum stays one.
                        acc[i][v] = s.min(hi, s.max(lo, acc[i][v]));
                    }
                }
                store_registers(s, a, &acc);
            } else {
                store_buffer(s, a, &acc, true);
            }
        }
    }
}

/// Stores a whole tile.
/// # Safety
/// As for [`Tile`].
#[inline(always)]
unsafe fn store_registers<I: Isa, const MR: usize, const NV: usize>(s: I, a: &TileArgs, acc: &[[I::V; NV]; MR]) {
    for i in 0..MR {
        for v in 0..NV {
            let at = v * I::LANES / BLOCK * a.y_block + v * I::LANES % BLOCK;
            // SAFETY: the tile's contract covers MR pixels of NV vectors.
            unsafe { s.store(a.y.add(i * a.y_px + at), acc[i][v]) };
        }
    }
}

/// Stores a tile by way of a buffer: for activations beyond a clamp, and for tiles with fewer channels than columns.
/// # Safety
/// As for [`Tile`].
#[inline(always)]
unsafe fn store_buffer<I: Isa, const MR: usize, const NV: usize>(
    s: I,
    a: &TileArgs,
    acc: &[[I::V; NV]; MR],
    finish: bool,
) {
    let mut buffer = [0.0f32; BUFFER];
    for i in 0..MR {
        for v in 0..NV {
            // SAFETY: BUFFER holds the tile, by the assertion in `run`.
            unsafe { s.store(buffer.as_mut_ptr().add((i * NV + v) * I::LANES), acc[i][v]) };
        }
    }
    let drain = DrainArgs { tile: a, buffer: buffer.as_mut_ptr(), mr: MR, nv: NV, finish };
    // SAFETY: the buffer holds MR * NV vectors, the reference outlives the call; the rest is the tile's contract.
    unsafe { s.call::<Drain>(&drain) };
}

/// What [`Drain`] works on.
struct DrainArgs {
    tile: *const TileArgs,
    buffer: *mut f32,
    mr: usize,
    nv: usize,
    finish: bool,
}

/// The second half of [`store_buffer`], with run-time extents, so that all tiles of a level share its code.
struct Drain;

impl<I: Isa> Kernel<I> for Drain {
    type Args = DrainArgs;

    /// # Safety
    /// As for [`Tile`]; `buffer` holds `mr * nv` vectors.
    #[inline(always)]
    unsafe fn run(s: I, d: &DrainArgs) {
        // SAFETY: store_buffer hands in a live reference.
        let a = unsafe { &*d.tile };
        let valid = |v: usize| a.cols.saturating_sub(v * I::LANES).min(I::LANES);
        let at = |v: usize| v * I::LANES / BLOCK * a.y_block + v * I::LANES % BLOCK * a.y_channel;
        // A vector of channels that lie `y_channel` apart, through a small array.
        let gather = |p: *const f32, n: usize| {
            let mut lanes = [0.0f32; BLOCK];
            for (c, lane) in lanes.iter_mut().enumerate().take(n) {
                // SAFETY: the caller of the closure passes the number of readable channels.
                *lane = unsafe { p.add(c * a.y_channel).read() };
            }
            // SAFETY: a block is at least a vector long.
            unsafe { s.load(lanes.as_ptr()) }
        };
        if let (true, Some(f)) = (d.finish, &a.finish) {
            let (lo, hi) = (s.splat(f.lo), s.splat(f.hi));
            for i in 0..d.mr {
                for v in 0..d.nv {
                    // SAFETY: the buffer holds the tile; bias and residual are read where they are valid.
                    unsafe {
                        let slot = d.buffer.add((i * d.nv + v) * I::LANES);
                        let mut sum = s.load(slot);
                        if !f.bias.is_null() {
                            sum = s.add(sum, s.load_partial(f.bias.wrapping_add(v * I::LANES), valid(v)));
                        }
                        if !f.residual.is_null() {
                            let r = f.residual.wrapping_add(i * a.y_px + at(v));
                            let r = if a.y_channel == 1 { s.load_partial(r, valid(v)) } else { gather(r, valid(v)) };
                            sum = s.add(sum, r);
                        }
                        s.store(slot, s.min(hi, s.max(lo, sum)));
                    }
                }
            }
            if let Some(act) = f.act {
                let args = ActArgs { src: d.buffer, dst: d.buffer, len: d.mr * d.nv * I::LANES, p: f.act_params };
                // SAFETY: the buffer holds that many floats, and the level is available by the tile's contract.
                unsafe { act(&args) };
            }
        }
        for i in 0..d.mr {
            for v in 0..d.nv {
                // SAFETY: load_partial makes lanes beyond the channels zero; whole vectors are stored only where the
                // output has whole blocks.
                unsafe {
                    let n = valid(v);
                    let sum = d.buffer.add((i * d.nv + v) * I::LANES);
                    let out = s.load_partial(sum, n);
                    let y = a.y.wrapping_add(i * a.y_px + at(v));
                    if a.y_channel != 1 {
                        for c in 0..n {
                            y.add(c * a.y_channel).write(sum.add(c).read());
                        }
                    } else if n == I::LANES || a.pad_cols {
                        s.store(y, out);
                    } else {
                        s.store_partial(y, out, n);
                    }
                }
            }
        }
    }
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
    /// Blocks of 16 output channels.
    pub blocks: usize,
    /// The kernel; see [`Tile`] for its contract.
    pub run: Entry<TileArgs>,
}

/// Rows of one level: for each width of output channels, the numbers of pixels, for every access.
macro_rules! rows {
    ($level:ident, $entry:ident, $lanes:literal, $name:literal;
     $($blocks:literal $cols:literal: [$($mr:literal)*] strided [$($smr:literal)*];)*) => {
        &[$(
            $(
                rows!(@row $level, $entry, $lanes, $name, $blocks, $cols, $mr, Blocked1, "conv", 16, 1),
                rows!(@row $level, $entry, $lanes, $name, $blocks, $cols, $mr, Blocked2, "conv_s2", 32, 1),
                rows!(@row $level, $entry, $lanes, $name, $blocks, $cols, $mr, Plain1, "stem_s1", 1, 1),
                rows!(@row $level, $entry, $lanes, $name, $blocks, $cols, $mr, Plain2, "stem_s2", 2, 1),
                rows!(@row $level, $entry, $lanes, $name, $blocks, $cols, $mr, Plain4, "stem_s4", 4, 1),
                rows!(@row $level, $entry, $lanes, $name, $blocks, $cols, $mr, Packed, "gemm", 1, $mr),
            )*
            $(
                rows!(@row $level, $entry, $lanes, $name, $blocks, $cols, $smr, Strided, "conv_any", 0, 1),
            )*
        )*]
    };
    (@row $level:ident, $entry:ident, $lanes:literal, $name:literal, $blocks:literal, $cols:literal, $mr:literal,
     $access:ident, $prefix:literal, $ps:expr, $ks:expr) => {
        Row {
            name: concat!($prefix, "_f32_", $mr, "x", $cols, "_", $name),
            level: Level::$level,
            access: Access::$access,
            mr: $mr,
            blocks: $blocks,
            run: isa::entry::$entry::<Tile<{ $mr }, { $blocks * BLOCK / $lanes }, { $ps }, { $ks }>>,
        }
    };
}

/// 16 registers and no memory operand for multiply-add; 4 floats to the register.
static SCALAR: &[Row] = rows! {
    Scalar, scalar, 4, "scalar";
    1 "16": [1 2] strided [1 2];
};

/// 16 registers: 6x16 takes 15 of them; 4x24 would fill all and spill.
#[cfg(target_arch = "x86_64")]
static AVX2: &[Row] = rows! {
    Avx2, avx2, 8, "avx2";
    1 "16": [1 2 3 4 5 6] strided [1 2 3 4 5 6];
    2 "32": [1 2] strided [1 2];
};

/// 32 registers: 14x32, 9x48 and 6x64 take 31, 31 and 29 of them. Fourteen divides 14, 28, 56, 112 and 224.
#[cfg(target_arch = "x86_64")]
static AVX512: &[Row] = rows! {
    Avx512, avx512, 16, "avx512";
    1 "16": [1 2 3 4 5 6 7 8 9 10 11 12 13 14] strided [1 2 3 4 5 6];
    2 "32": [1 2 3 4 5 6 7 8 9 10 11 12 13 14] strided [1 2 3 4 5 6];
    3 "48": [1 2 3 4 5 6 7 8 9] strided [1 2 3 4 5 6];
    4 "64": [1 2 3 4 5 6] strided [1 2 3 4 5 6];
};

/// 32 registers, lane FMA: 5x16 takes 29 of them; 6x16 would spill.
#[cfg(target_arch = "aarch64")]
static NEON: &[Row] = rows! {
    Neon, neon, 4, "neon";
    1 "16": [1 2 3 4 5] strided [1 2 3 4 5];
    2 "32": [1 2] strided [1 2];
};

/// All tile kernels of a level; none for a level of another architecture.
pub fn rows(level: Level) -> &'static [Row] {
    match level {
        Level::Scalar => SCALAR,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => AVX2,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => AVX512,
        #[cfg(target_arch = "aarch64")]
        Level::Neon => NEON,
        #[allow(unreachable_patterns)]
        _ => &[],
    }
}

/// Most blocks of output channels in a tile, on any level.
pub const MAX_BLOCKS: usize = 4;
/// Most pixels in a tile, on any level.
pub const MAX_MR: usize = 14;

/// The tiles of one level and access, by size.
#[derive(Clone, Copy, Debug)]
pub struct TileSet {
    rows: [[Option<&'static Row>; MAX_MR + 1]; MAX_BLOCKS + 1],
    max_mr: [usize; MAX_BLOCKS + 1],
    /// Widest tile, in blocks of output channels.
    pub max_blocks: usize,
    level: Level,
}

impl TileSet {
    /// The tiles that `level` has for `access`.
    pub fn new(level: Level, access: Access) -> Self {
        let mut set =
            Self { rows: [[None; MAX_MR + 1]; MAX_BLOCKS + 1], max_mr: [0; MAX_BLOCKS + 1], max_blocks: 0, level };
        for row in rows(level).iter().filter(|r| r.access == access) {
            set.rows[row.blocks][row.mr] = Some(row);
            set.max_mr[row.blocks] = set.max_mr[row.blocks].max(row.mr);
            set.max_blocks = set.max_blocks.max(row.blocks);
        }
        set
    }

    /// Most pixels of a tile that is `blocks` wide.
    pub fn max_mr(&self, blocks: usize) -> usize {
        self.max_mr[blocks]
    }

    /// The tile of `mr` pixels and `blocks` blocks, which must not exceed `max_mr(blocks)`.
    #[inline]
    pub fn get(&self, mr: usize, blocks: usize) -> &'static Row {
        self.rows[blocks][mr].expect("tile sizes are contiguous up to the largest")
    }

    /// How wide tiles should be that cover `blocks` output-channel blocks and runs of `pixels` pixels: the width with
    /// the fewest cycles per step of the reduction, counting a tile's multiply-adds against its loads and latency;
    /// between equals, the one that streams fewer weights, then the one with fewer loads.
    pub fn best_width(&self, pixels: usize, blocks: usize) -> usize {
        let cost = |width: usize| {
            let (mut cycles, mut weights, mut loads) = (0, 0, 0);
            for (_, nb) in pieces(blocks, width) {
                for (_, mr) in pieces(pixels, self.max_mr[nb]) {
                    let nv = nb * BLOCK / self.level.lanes();
                    // AVX-512: one multiply-add and one load per cycle; else two and two; latency 4 on both.
                    cycles += (mr * nv).max(mr + nv).max(if self.level == Level::Avx512 { 4 } else { 8 });
                    weights += nv;
                    loads += mr + nv;
                }
            }
            (cycles, weights, loads)
        };
        (1..=self.max_blocks.min(blocks)).min_by_key(|&w| cost(w)).unwrap_or(1)
    }
}

/// Cuts `total` into the fewest pieces of at most `max`, as equal as possible: `(start, length)`, longer ones first.
#[inline]
pub fn pieces(total: usize, max: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let n = total.div_ceil(max);
    let (base, longer) = (total.checked_div(n).unwrap_or(0), total.checked_rem(n).unwrap_or(0));
    (0..n).map(move |i| (i * base + i.min(longer), base + usize::from(i < longer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_sizes_contiguous() {
        for level in Level::ALL {
            let mut names: Vec<_> = rows(level).iter().map(|r| r.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), rows(level).len());
            for access in [Access::Blocked1, Access::Strided, Access::Plain4, Access::Packed] {
                let set = TileSet::new(level, access);
                for blocks in 1..=set.max_blocks {
                    assert!((1..=set.max_mr(blocks)).all(|mr| set.get(mr, blocks).mr == mr));
                }
            }
        }
    }

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
        }
    }
}
