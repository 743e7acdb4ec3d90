//! Where the sums of one block of channels go, vector by vector: set up once for many runs, so that runs of few multiply-adds do not
//! each work it out.

use core::mem::MaybeUninit;
use core::ptr;

use super::store::{ALL, BUFFER, Output};
use crate::act::ActArgs;
use crate::isa::{Isa, Kernel};
use crate::layout::BLOCK;

/// One block of channels of an [`Output`], at all its pixels.
#[derive(Clone, Copy)]
pub(crate) struct Strand {
    /// At the first output; the residual likewise. Null pointers stand for what is absent.
    y: *mut f32,
    residual: *const f32,
    /// From pixel to pixel.
    px: usize,
    /// Bias of the block.
    bias: *const f32,
    /// The clamps, and whether there are any.
    lo: f32,
    hi: f32,
    clamps: bool,
    /// Whether the sums are stored from registers, by [`Output::is_simple`].
    simple: bool,
    /// The output that this is a block of, by whose buffer sums go that are not simple; and the block's first channel and place in it.
    out: *const Output,
    channel: usize,
    at: usize,
}

impl Output {
    /// Block `b`.
    #[inline(always)]
    pub(crate) fn strand(&self, b: usize) -> Strand {
        let (channel, at) = (b * BLOCK, b * self.block);
        let shift = |p: *const f32, by: usize| if p.is_null() { p } else { p.wrapping_add(by) };
        let finish = self.finish.as_ref();
        let (lo, hi) = finish.map_or((f32::NEG_INFINITY, f32::INFINITY), |f| (f.lo, f.hi));
        Strand {
            y: self.y.wrapping_add(at),
            residual: finish.map_or(ptr::null(), |f| shift(f.residual, at)),
            px: self.px,
            bias: finish.map_or(ptr::null(), |f| shift(f.bias, channel)),
            lo,
            hi,
            clamps: lo > f32::NEG_INFINITY || hi < f32::INFINITY,
            simple: self.is_simple(channel + BLOCK),
            out: self,
            channel,
            at,
        }
    }
}

/// Some pixels of a block of an output, by number, from a place on.
struct LineArgs {
    out: *const Output,
    block: usize,
    y: usize,
    width: usize,
}

impl Output {
    /// Block `b`, whose lines are [finished](Output::finish) if they are [open](Output::is_open). `padded` is where its bias lies if
    /// channels are missing.
    ///
    /// # Safety
    /// `finish.bias`, if not null, is readable for the channels that exist; `padded` outlives the strand.
    #[inline(always)]
    pub(crate) unsafe fn strand_of_lines(&self, b: usize, padded: &mut [f32; BLOCK]) -> Strand {
        let mut strand = self.strand(b);
        if self.pad_cols {
            strand.simple = true;
            let cols = self.cols_of(b);
            if cols < BLOCK && !strand.bias.is_null() {
                // SAFETY: the caller vouches for these channels.
                unsafe { ptr::copy_nonoverlapping(strand.bias, padded.as_mut_ptr(), cols) };
                strand.bias = padded.as_ptr();
            }
        }
        strand
    }

    /// Channels of block `b` that exist.
    #[inline(always)]
    fn cols_of(&self, b: usize) -> usize {
        self.cols.saturating_sub(b * BLOCK).min(BLOCK)
    }

    /// Whether lines of block `b` must be finished.
    #[inline(always)]
    pub(crate) fn is_open(&self, b: usize) -> bool {
        self.pad_cols && (self.cols_of(b) < BLOCK || self.finish.as_ref().is_some_and(|f| f.act.is_some()))
    }

    /// Finishes `width` pixels of block `b`, the first of which is stored `y` floats from the first output on.
    ///
    /// # Safety
    /// Vectors with channels that exist have been stored there, blocks are whole, and the activation is of an available level.
    #[inline(always)]
    pub(crate) unsafe fn finish<I: Isa>(&self, s: I, block: usize, y: usize, width: usize) {
        // SAFETY: the same contract; the reference outlives the call.
        unsafe { s.call::<FinishLine>(&LineArgs { out: self, block, y, width }) }
    }
}

/// [`Output::finish`], not inlined.
///
/// Sums of the block were stored as if all channels existed and there were no activation beyond a clamp: to send every run of pixels
/// through a buffer took up to three times as long as its sums. What finishing takes is looked up for each line, so that nothing of it is
/// kept in registers beside the sums.
struct FinishLine;

impl FinishLine {
    /// Stores zeros to the channels of the block that do not exist.
    ///
    /// # Safety
    /// As for [`Output::finish`].
    #[inline(always)]
    unsafe fn pad<I: Isa>(s: I, a: &LineArgs, y: *mut f32) {
        // SAFETY: the output outlives the call, and these vectors were stored; the table is as long as a block.
        unsafe {
            let out = &*a.out;
            let first = a.block * (BLOCK / I::LANES);
            for v in 0..BLOCK / I::LANES {
                let valid = out.valid::<I>(first + v);
                if valid == I::LANES {
                    continue;
                }
                let exist = s.load_partial(ALL.as_ptr(), valid);
                for y in (0..a.width).map(|i| y.wrapping_add(v * I::LANES + i * out.px)) {
                    // What was not stored may hold anything, of which nothing is read.
                    let sum = if valid > 0 { s.and(s.load(y), exist) } else { s.zero() };
                    s.store(y, sum);
                }
            }
        }
    }
}

impl<I: Isa> Kernel<I> for FinishLine {
    type Args = LineArgs;

    /// # Safety
    /// As for [`Output::finish`].
    #[inline(always)]
    unsafe fn run(s: I, a: &LineArgs) {
        // SAFETY: the same contract; after `pad` every float of the pixels holds something.
        unsafe {
            let out = &*a.out;
            let (y, px) = (out.y.wrapping_add(a.block * out.block + a.y), out.px);
            Self::pad(s, a, y);
            let Some((act, p)) = out.finish.as_ref().and_then(|f| f.act.map(|act| (act, f.act_params))) else { return };
            let (calls, len) = if px == BLOCK { (1, a.width * BLOCK) } else { (a.width, BLOCK) };
            for dst in (0..calls).map(|i| y.wrapping_add(i * px)) {
                act(&ActArgs { src: dst, dst, len, p });
            }
            Self::pad(s, a, y);
        }
    }
}

impl Strand {
    /// Applies bias, residual and activation to the sums of `MR` pixels of vector `v`, and stores them `y` floats from the first output on.
    ///
    /// # Safety
    /// As for `Output::store`, for these pixels and this vector; the output that the strand is of is alive.
    #[inline(always)]
    pub(crate) unsafe fn store<I: Isa, const MR: usize>(&self, s: I, v: usize, y: usize, acc: [I::V; MR]) {
        const { assert!(MR * I::LANES <= BUFFER) };
        if !self.simple {
            let mut buffer = MaybeUninit::<[f32; BUFFER]>::uninit();
            let buffer = buffer.as_mut_ptr().cast::<f32>();
            for i in 0..MR {
                // SAFETY: the buffer holds MR vectors.
                unsafe { s.store(buffer.add(i * I::LANES), acc[i]) };
            }
            let v = v * I::LANES;
            let (out, channel) = (self.out, self.channel + v);
            // SAFETY: the output is alive.
            let y = self.at + y + v * unsafe { (*out).channel };
            // SAFETY: the same contract; the buffer outlives the call.
            return unsafe { s.call::<Rest>(&RestArgs { out, channel, y, buffer, mr: MR }) };
        }
        // SAFETY: the same contract.
        unsafe { self.store_simple(s, v, y, self.px, acc) }
    }

    /// Whether the sums are stored from registers.
    #[inline(always)]
    pub(crate) fn is_simple(&self) -> bool {
        self.simple
    }

    /// [`Strand::store`] of sums that are [simple](Strand::is_simple), `px` floats from pixel to pixel, which must be the output's.
    ///
    /// # Safety
    /// The same, and these sums are simple.
    #[inline(always)]
    pub(crate) unsafe fn store_simple<I: Isa, const MR: usize>(
        &self,
        s: I,
        v: usize,
        y: usize,
        px: usize,
        mut acc: [I::V; MR],
    ) {
        let y = y + v * I::LANES;
        // SAFETY: all channels of the block exist, in the output, the bias and the residual.
        unsafe {
            if !self.bias.is_null() {
                let bias = s.load(self.bias.add(v * I::LANES));
                for i in 0..MR {
                    acc[i] = s.add(acc[i], bias);
                }
            }
            if !self.residual.is_null() {
                let residual = self.residual.add(y);
                for i in 0..MR {
                    acc[i] = s.add(acc[i], s.load(residual.add(i * px)));
                }
            }
            if self.clamps {
                let (lo, hi) = (s.splat(self.lo), s.splat(self.hi));
                for i in 0..MR {
                    // The clamp is the first operand, so that a NaN in the sum stays one.
                    acc[i] = s.min(hi, s.max(lo, acc[i]));
                }
            }
            let y = self.y.add(y);
            for i in 0..MR {
                s.store(y.add(i * px), acc[i]);
            }
        }
    }
}

/// What [`Rest`] works on.
struct RestArgs {
    out: *const Output,
    channel: usize,
    y: usize,
    buffer: *mut f32,
    mr: usize,
}

/// Sums that are not simple, from a buffer: not inlined, so that nothing of it is prepared where it is not needed.
struct Rest;

impl<I: Isa> Kernel<I> for Rest {
    type Args = RestArgs;

    /// # Safety
    /// As for [`Strand::store`]; the buffer holds `mr` vectors.
    #[inline(always)]
    unsafe fn run(s: I, a: &RestArgs) {
        // SAFETY: the output is alive; the rest is the same contract.
        unsafe {
            let out = &*a.out;
            let vector = Output {
                y: out.y.wrapping_add(a.y),
                cols: out.cols.saturating_sub(a.channel),
                finish: out.finish.map(|f| f.at(a.channel, a.y)),
                ..*out
            };
            vector.drain(s, 0, a.buffer, a.mr, 1);
        }
    }
}
