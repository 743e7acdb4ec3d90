//! Where a tile's sums go: bias, residual and activation in registers, then one store.

use core::mem::MaybeUninit;
use core::ops::Range;

use crate::act::{self, ActArgs};
use crate::epilogue::{Activation, Epilogue};
use crate::exec::Shared;
use crate::isa::{Entry, Isa, Kernel, Level};
use crate::layout::{BLOCK, Layout, Strides};

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
        let act = if clamp { None } else { act::entry(level, e.activation) };
        let act_params = act::parameters(e.activation);
        Self { bias: start(e.bias), residual: start(e.residual), lo, hi, act, act_params }
    }

    /// The same for a tile whose first output channel is `oc` and whose first output is `y` floats from the start.
    #[inline(always)]
    pub(crate) fn at(&self, oc: usize, y: usize) -> Self {
        let shift = |p: *const f32, by: usize| if p.is_null() { p } else { p.wrapping_add(by) };
        Self { bias: shift(self.bias, oc), residual: shift(self.residual, y), ..*self }
    }
}

/// [`Finish`] that crosses threads.
#[derive(Clone, Copy)]
pub(crate) struct SyncFinish(pub(crate) Finish);

// SAFETY: its pointers are only read through, and the slices behind them are borrowed for the whole run.
unsafe impl Sync for SyncFinish {}

/// Where a tile's sums go. Steps in floats.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// First pixel and channel.
    pub y: *mut f32,
    /// From pixel to pixel.
    pub px: usize,
    /// From output-channel block to output-channel block.
    pub block: usize,
    /// From output channel to output channel within a block; other than 1 (NCHW), tiles go through a buffer.
    pub channel: usize,
    /// Output channels from the first on that exist.
    pub cols: usize,
    /// Whether channels beyond `cols` are stored as zeros (blocked output) or not at all.
    pub pad_cols: bool,
    /// Set on the last chunk of a reduction.
    pub finish: Option<Finish>,
}

/// Lanes with all bits set.
pub(super) static ALL: [f32; BLOCK] = [f32::from_bits(!0); BLOCK];

/// Longest tile that goes through a buffer, in floats: 14 x 32; 9 x 48 and 6 x 64 are shorter.
pub(super) const BUFFER: usize = 448;

impl Output {
    /// Of a tensor with these strides: those `channels`, which begin a block, `at` floats from its start.
    pub(crate) fn new(
        y: &Shared<'_>,
        at: usize,
        strides: &Strides,
        layout: Layout,
        channels: Range<usize>,
        finish: &SyncFinish,
    ) -> Self {
        Self {
            y: y.at(at),
            px: strides.px,
            block: strides.block,
            channel: strides.channel,
            cols: channels.len(),
            pad_cols: layout == Layout::Blocked,
            finish: Some(finish.0.at(channels.start, at)),
        }
    }

    /// Moves on by `y` floats, in the output and in the residual.
    #[inline(always)]
    pub(crate) fn advance(&mut self, y: usize) {
        self.y = self.y.wrapping_add(y);
        if let Some(f) = &mut self.finish
            && !f.residual.is_null()
        {
            f.residual = f.residual.wrapping_add(y);
        }
    }

    /// Moves on to the next block of output channels.
    #[inline(always)]
    pub(crate) fn next_block(&mut self) {
        self.advance(self.block);
        self.cols = self.cols.saturating_sub(BLOCK);
        if let Some(f) = &mut self.finish
            && !f.bias.is_null()
        {
            f.bias = f.bias.wrapping_add(BLOCK);
        }
    }

    /// Whether the next `cols` channels all exist, are adjacent, and end in a clamp at most: then they are stored from registers.
    #[inline(always)]
    pub(crate) fn is_simple(&self, cols: usize) -> bool {
        self.cols >= cols && self.channel == 1 && self.finish.as_ref().is_none_or(|f| f.act.is_none())
    }

    /// The same of a tile with `cols` columns, whose last channels need not exist where the output has whole blocks.
    #[inline(always)]
    pub(super) fn takes_tiles(&self, cols: usize) -> bool {
        self.is_simple(if self.pad_cols { cols.min(self.cols) } else { cols })
    }

    /// Offset of vector `v` from the first.
    #[inline(always)]
    fn at<I: Isa>(&self, v: usize) -> usize {
        v * I::LANES / BLOCK * self.block + v * I::LANES % BLOCK * self.channel
    }

    /// Channels of vector `v` that exist.
    #[inline(always)]
    pub(super) fn valid<I: Isa>(&self, v: usize) -> usize {
        self.cols.saturating_sub(v * I::LANES).min(I::LANES)
    }

    /// The vectors of the tile `at` floats further on, in the output.
    #[inline(always)]
    fn vectors(&self, at: usize) -> Vectors {
        Vectors { start: self.y.wrapping_add(at), px: self.px, block: self.block }
    }

    /// The partial sums that the output holds, `at` floats further on.
    ///
    /// # Safety
    /// `y`, `at` floats further on, is readable for `MR` pixels of `min(cols, NV * LANES)` channels (of whole blocks with `pad_cols`).
    #[inline(always)]
    pub(crate) unsafe fn load<I: Isa, const MR: usize, const NV: usize>(&self, s: I, at: usize) -> [[I::V; NV]; MR] {
        const { assert!(MR * NV * I::LANES <= BUFFER) };
        let mut acc = [[s.zero(); NV]; MR];
        let mut buffer = MaybeUninit::<[f32; BUFFER]>::uninit();
        let mut from = self.vectors(at);
        if self.channel != 1 || self.cols < NV * I::LANES && !self.pad_cols {
            let fill = BufferArgs { out: self, at, buffer: buffer.as_mut_ptr().cast(), mr: MR, nv: NV };
            // SAFETY: the buffer holds MR * NV vectors, the reference outlives the call; the rest is the same contract.
            unsafe { s.call::<Fill>(&fill) };
            from = Vectors::in_buffer(fill.buffer, NV * I::LANES);
        }
        // SAFETY: all channels of the tile exist, or all of its blocks, or they are in the buffer.
        from.each(s, 0..MR, NV, |i, v, p| acc[i][v] = unsafe { s.load(p) });
        acc
    }

    /// Asks for the lines of the tile `at` floats further on early, so that its stores do not wait for them to come from L3.
    #[inline(always)]
    pub(crate) fn prefetch<I: Isa, const MR: usize, const NV: usize>(&self, s: I, at: usize) {
        for v in (0..NV).step_by(BLOCK / I::LANES) {
            self.vectors(at).walk(s, v, 0..MR, |_, p| s.prefetch_write(p));
        }
    }

    /// Applies bias, residual and clamp, if this is the last chunk, to some pixels of the tile `at` floats further on.
    /// Channels that do not exist become zeros.
    ///
    /// # Safety
    /// * the output [takes](Output::takes_tiles) the tile;
    /// * `finish.residual`, if not null, is valid `at` floats further on for these pixels and channels (of whole blocks with
    ///   `pad_cols`), and `finish.bias`, if not null, for the channels that exist.
    #[inline(always)]
    unsafe fn apply<I: Isa, const MR: usize, const NV: usize>(
        &self,
        s: I,
        at: usize,
        pixels: Range<usize>,
        acc: &mut [[I::V; NV]; MR],
    ) {
        let partial = self.cols < NV * I::LANES;
        // SAFETY: the same contract.
        unsafe {
            if let Some(f) = &self.finish {
                if !f.bias.is_null() {
                    for v in 0..NV {
                        let bias = f.bias.wrapping_add(v * I::LANES);
                        let bias = if partial { s.load_partial(bias, self.valid::<I>(v)) } else { s.load(bias) };
                        for i in pixels.clone() {
                            acc[i][v] = s.add(acc[i][v], bias);
                        }
                    }
                }
                if !f.residual.is_null() {
                    let start = f.residual.wrapping_add(at).cast_mut();
                    let residual = Vectors { start, ..self.vectors(at) };
                    residual.each(s, pixels.clone(), NV, |i, v, p| acc[i][v] = s.add(acc[i][v], s.load(p)));
                }
                // A limit is the first operand, so that a NaN in the sum stays one.
                if f.lo > f32::NEG_INFINITY || f.hi < f32::INFINITY {
                    let lo = s.splat(f.lo);
                    for i in pixels.clone() {
                        for v in 0..NV {
                            acc[i][v] = s.max(lo, acc[i][v]);
                        }
                    }
                    if f.hi < f32::INFINITY {
                        let hi = s.splat(f.hi);
                        for i in pixels.clone() {
                            for v in 0..NV {
                                acc[i][v] = s.min(hi, acc[i][v]);
                            }
                        }
                    }
                }
            }
            if partial {
                for v in 0..NV {
                    let exist = s.load_partial(ALL.as_ptr(), self.valid::<I>(v));
                    for i in pixels.clone() {
                        acc[i][v] = s.and(acc[i][v], exist);
                    }
                }
            }
        }
    }

    /// Applies bias, residual and clamp, if this is the last chunk, and stores some pixels of the tile `at` floats further on.
    /// Channels that do not exist become zeros.
    ///
    /// # Safety
    /// * the output [takes](Output::takes_tiles) the tile;
    /// * as for [`Output::store`], of these pixels.
    #[inline(always)]
    pub(crate) unsafe fn store_pixels<I: Isa, const MR: usize, const NV: usize>(
        &self,
        s: I,
        at: usize,
        pixels: Range<usize>,
        acc: &mut [[I::V; NV]; MR],
    ) {
        // SAFETY: the same contract.
        unsafe {
            self.apply(s, at, pixels.clone(), acc);
            self.vectors(at).each(s, pixels, NV, |i, v, p| s.store(p, acc[i][v]));
        }
    }

    /// Applies bias, residual and activation, if this is the last chunk, and stores the tile `at` floats further on: from registers, or
    /// by way of a buffer if the output does not [take](Output::takes_tiles) it, for activations beyond a clamp, for channels that are
    /// not adjacent, and for tiles with fewer channels than columns where the output has no whole blocks.
    ///
    /// # Safety
    /// * `y`, `at` floats further on, and `finish.residual` if not null, are valid for `MR` pixels of `cols` channels (of whole
    ///   blocks with `pad_cols`), and `finish.bias`, if not null, for `cols` floats;
    /// * `finish.act` is of an available level.
    #[inline(always)]
    pub(crate) unsafe fn store<I: Isa, const MR: usize, const NV: usize>(
        &self,
        s: I,
        at: usize,
        acc: &mut [[I::V; NV]; MR],
    ) {
        const { assert!(MR * NV * I::LANES <= BUFFER) };
        let mut buffer = MaybeUninit::<[f32; BUFFER]>::uninit();
        let direct = self.takes_tiles(NV * I::LANES);
        let mut to = Vectors::in_buffer(buffer.as_mut_ptr().cast(), NV * I::LANES);
        if direct {
            // SAFETY: the same contract.
            unsafe { self.apply(s, at, 0..MR, acc) };
            to = self.vectors(at);
        }
        // SAFETY: BUFFER holds the tile, by the assertion above; else the same contract.
        to.each(s, 0..MR, NV, |i, v, p| unsafe { s.store(p, acc[i][v]) });
        if !direct {
            // SAFETY: the buffer holds MR * NV vectors; the rest is the same contract.
            unsafe { self.drain(s, at, buffer.as_mut_ptr().cast(), MR, NV) };
        }
    }

    /// Pads what `NV` vectors leave of their last block with zeros, where the output has whole blocks, for the tile `at` floats
    /// further on.
    ///
    /// # Safety
    /// As for [`Output::store`].
    #[inline(always)]
    pub(crate) unsafe fn pad<I: Isa, const MR: usize, const NV: usize>(&self, s: I, at: usize) {
        if (NV * I::LANES).is_multiple_of(BLOCK) || !self.pad_cols {
            return;
        }
        for v in NV..NV.next_multiple_of(BLOCK / I::LANES) {
            // SAFETY: blocked output has whole blocks.
            self.vectors(at).walk(s, v, 0..MR, |_, p| unsafe { s.store(p, s.zero()) });
        }
    }

    /// Applies bias, residual and activation to `mr` pixels of `nv` vectors in a buffer, and stores them `at` floats further on.
    ///
    /// # Safety
    /// As for [`Output::store`]; `buffer` holds `mr * nv` vectors.
    #[inline(always)]
    pub(crate) unsafe fn drain<I: Isa>(&self, s: I, at: usize, buffer: *mut f32, mr: usize, nv: usize) {
        let drain = BufferArgs { out: self, at, buffer, mr, nv };
        // SAFETY: the reference outlives the call; the rest is the same contract.
        unsafe { s.call::<Drain>(&drain) };
    }
}

/// Where the vectors of a tile lie. Steps in floats.
#[derive(Clone, Copy)]
struct Vectors {
    start: *mut f32,
    /// From pixel to pixel.
    px: usize,
    /// From one block of channels to the next.
    block: usize,
}

impl Vectors {
    /// Pixels of `cols` floats, one after the other.
    #[inline(always)]
    fn in_buffer(start: *mut f32, cols: usize) -> Self {
        Self { start, px: cols, block: BLOCK }
    }

    /// Vector `v` of the first pixel.
    #[inline(always)]
    fn vector<I: Isa>(&self, v: usize) -> *mut f32 {
        self.start.wrapping_add(v * I::LANES / BLOCK * self.block + v * I::LANES % BLOCK)
    }

    /// Calls `f` with each of some pixels and `nv` vectors, and the vector's address.
    #[inline(always)]
    fn each<I: Isa>(&self, s: I, pixels: Range<usize>, nv: usize, mut f: impl FnMut(usize, usize, *mut f32)) {
        for v in 0..nv {
            self.walk(s, v, pixels.clone(), |i, p| f(i, v, p));
        }
    }

    /// The same for vector `v` alone. The compiler is kept from an address of its own for each pixel: one that walks on takes one
    /// register and a short instruction, whether the step is known or not.
    #[inline(always)]
    fn walk<I: Isa>(&self, s: I, v: usize, pixels: Range<usize>, mut f: impl FnMut(usize, *mut f32)) {
        let mut p = self.vector::<I>(v).wrapping_add(pixels.start * self.px);
        for i in pixels.clone() {
            f(i, p);
            if i + 1 < pixels.end {
                p = s.opaque(p.wrapping_add(self.px)).cast_mut();
            }
        }
    }
}

/// What [`Fill`] and [`Drain`] work on.
struct BufferArgs {
    out: *const Output,
    at: usize,
    buffer: *mut f32,
    mr: usize,
    nv: usize,
}

/// The first half of [`Output::load`] where it is not simple, with run-time extents as [`Drain`].
struct Fill;

impl<I: Isa> Kernel<I> for Fill {
    type Args = BufferArgs;

    /// # Safety
    /// As for [`Output::load`]; `buffer` holds `mr * nv` vectors.
    #[inline(always)]
    unsafe fn run(s: I, d: &BufferArgs) {
        // SAFETY: load hands in a live reference.
        let out = unsafe { &*d.out };
        for i in 0..d.mr {
            for v in 0..d.nv {
                // A pointer to channels that do not exist may lie outside the output; nothing is read through it.
                let y = out.y.wrapping_add(d.at + i * out.px + out.at::<I>(v));
                // SAFETY: only channels that exist are read; the buffer holds the tile.
                unsafe {
                    let sum = load_channels(s, y, out.channel, out.valid::<I>(v));
                    s.store(d.buffer.add((i * d.nv + v) * I::LANES), sum);
                }
            }
        }
    }
}

/// What [`Output::drain`] calls, with run-time extents, so that all tiles of a level share its code.
struct Drain;

impl Drain {
    /// The same of a tile whose channels all exist and are adjacent, as those are that end in an activation. Where a block's pixels
    /// are adjacent too, they go to the output first and are activated there.
    ///
    /// # Safety
    /// As for [`Output::drain`], of such a tile with a `finish`.
    #[inline(always)]
    unsafe fn whole<I: Isa>(s: I, out: &Output, f: &Finish, d: &BufferArgs) {
        let in_place = out.px == BLOCK && (d.nv * I::LANES).is_multiple_of(BLOCK);
        let tile = out.vectors(d.at);
        let buffer = Vectors::in_buffer(d.buffer, d.nv * I::LANES);
        let to = if in_place { tile } else { buffer };
        let residual = Vectors { start: f.residual.wrapping_add(d.at).cast_mut(), ..tile };
        let (lo, hi) = (s.splat(f.lo), s.splat(f.hi));
        // SAFETY: the buffer holds the tile; output, bias and residual are valid for all its pixels and channels; the activation is of
        // an available level.
        unsafe {
            for v in 0..d.nv {
                let bias = if f.bias.is_null() { None } else { Some(s.load(f.bias.add(v * I::LANES))) };
                let mut at = [buffer, residual, to].map(|place| place.vector::<I>(v));
                for _ in 0..d.mr {
                    let mut sum = s.load(at[0]);
                    if let Some(bias) = bias {
                        sum = s.add(sum, bias);
                    }
                    if !f.residual.is_null() {
                        sum = s.add(sum, s.load(at[1]));
                    }
                    s.store(at[2], s.min(hi, s.max(lo, sum)));
                    at = [at[0].wrapping_add(buffer.px), at[1].wrapping_add(tile.px), at[2].wrapping_add(to.px)];
                }
            }
            if let Some(act) = f.act {
                let blocks = if in_place { d.nv * I::LANES / BLOCK } else { 1 };
                for b in 0..blocks {
                    let y = to.start.wrapping_add(b * to.block);
                    act(&ActArgs { src: y, dst: y, len: d.mr * d.nv * I::LANES / blocks, p: f.act_params });
                }
            }
            if !in_place {
                buffer.each(s, 0..d.mr, d.nv, |i, v, p| {
                    s.store(tile.vector::<I>(v).wrapping_add(i * tile.px), s.load(p));
                });
            }
        }
    }
}

impl<I: Isa> Kernel<I> for Drain {
    type Args = BufferArgs;

    /// # Safety
    /// As for [`Output::store`]; `buffer` holds `mr * nv` vectors.
    #[inline(always)]
    unsafe fn run(s: I, d: &BufferArgs) {
        // SAFETY: drain hands in a live reference.
        let out = unsafe { &*d.out };
        let slot = |i: usize, v: usize| d.buffer.wrapping_add((i * d.nv + v) * I::LANES);
        let tile = (0..d.mr).flat_map(|i| (0..d.nv).map(move |v| (i, v)));
        if let Some(f) = &out.finish {
            if out.channel == 1 && out.cols >= d.nv * I::LANES {
                // SAFETY: the same contract, of such a tile.
                return unsafe { Self::whole(s, out, f, d) };
            }
            let (lo, hi) = (s.splat(f.lo), s.splat(f.hi));
            for (i, v) in tile.clone() {
                let n = out.valid::<I>(v);
                // SAFETY: the buffer holds the tile; bias and residual are read where they are valid.
                unsafe {
                    let mut sum = s.load(slot(i, v));
                    if !f.bias.is_null() {
                        sum = s.add(sum, s.load_partial(f.bias.wrapping_add(v * I::LANES), n));
                    }
                    if !f.residual.is_null() {
                        let r = f.residual.wrapping_add(d.at + i * out.px + out.at::<I>(v));
                        sum = s.add(sum, load_channels(s, r, out.channel, n));
                    }
                    s.store(slot(i, v), s.min(hi, s.max(lo, sum)));
                }
            }
            if let Some(act) = f.act {
                let args = ActArgs { src: d.buffer, dst: d.buffer, len: d.mr * d.nv * I::LANES, p: f.act_params };
                // SAFETY: the buffer holds that many floats, and the level is available by the contract.
                unsafe { act(&args) };
            }
        }
        for (i, v) in tile {
            let n = out.valid::<I>(v);
            // SAFETY: load_partial makes lanes beyond the channels zero; whole vectors are stored only where the output
            // has whole blocks.
            unsafe {
                let y = out.y.wrapping_add(d.at + i * out.px + out.at::<I>(v));
                let sum = s.load_partial(slot(i, v), n);
                if out.channel != 1 {
                    for c in 0..n {
                        y.add(c * out.channel).write(slot(i, v).add(c).read());
                    }
                } else if n == I::LANES || out.pad_cols {
                    s.store(y, sum);
                } else {
                    s.store_partial(y, sum, n);
                }
            }
        }
    }
}

/// `n` channels that lie `channel` floats apart; the other lanes are zero.
///
/// # Safety
/// `p` is readable for `n <= LANES` channels.
#[inline(always)]
pub(crate) unsafe fn load_channels<I: Isa>(s: I, p: *const f32, channel: usize, n: usize) -> I::V {
    if channel == 1 {
        // SAFETY: the caller vouches for n floats.
        return unsafe { s.load_partial(p, n) };
    }
    let mut lanes = [0.0f32; BLOCK];
    for (c, lane) in lanes.iter_mut().enumerate().take(n) {
        // SAFETY: the caller vouches for n channels.
        *lane = unsafe { p.add(c * channel).read() };
    }
    // SAFETY: a block is at least a vector long.
    unsafe { s.load(lanes.as_ptr()) }
}
