//! Streams of floats under functions with a few parameters for each channel.
//!
//! A stream holds pixels of `ch` interleaved channels: 16 where the layout is blocked, all of them in NHWC, one in an NCHW
//! plane. Parameters are slices of `ch` floats.
//!
//! Functions are written on vectors ([`Vector`]): of loops over arrays of 16 floats, the compiler makes vector instructions of some and
//! not of others, by no rule that a reader could see.

use super::{Body, Vector};
use crate::isa::Isa;
use crate::layout::BLOCK;

/// `M` inputs and `P` parameters to `N` outputs, element by element.
pub(crate) trait Map<const M: usize, const P: usize, const N: usize>: Copy {
    fn value<I: Isa>(self, v: [Vector<I>; M], p: [Vector<I>; P]) -> [Vector<I>; N];
}

/// [`Map`] over whole slices of equal length.
pub(crate) struct MapOver<'a, F, const M: usize, const P: usize, const N: usize> {
    pub f: F,
    /// Interleaved channels.
    pub ch: usize,
    pub x: [&'a [f32]; M],
    pub p: [&'a [f32]; P],
    pub y: [&'a mut [f32]; N],
}

impl<F: Map<M, P, N>, const M: usize, const P: usize, const N: usize> Body for MapOver<'_, F, M, P, N> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, s: I) {
        let (ch, len) = (self.ch, self.y[0].len());
        let (x, p) = (first(self.x, len), first(self.p, ch));
        assert!(self.y.iter().all(|y| y.len() >= len), "outputs of one length");
        let mut over = Over { s, f: self.f, x, y: self.y };
        match ch {
            1 => over.flat(splats(s, p), len),
            // SAFETY: parameters are `ch` floats.
            _ if ch == I::LANES => over.flat(unsafe { vectors(s, p, 0, ch) }, len),
            _ => over.pixels(p, ch, len),
        }
    }
}

// Loops over arrays, not `map`: its closures are functions of their own, which lack the level's instructions where they are not
// inlined, and some hundred of them were not.

/// The first `len` floats of each.
#[inline(always)]
fn first<const M: usize>(mut all: [&[f32]; M], len: usize) -> [&[f32]; M] {
    for one in &mut all {
        *one = &one[..len];
    }
    all
}

/// The first float of each, in all lanes.
#[inline(always)]
fn splats<I: Isa, const M: usize>(s: I, all: [&[f32]; M]) -> [Vector<I>; M] {
    let mut v = [Vector::splat(s, 0.0); M];
    for m in 0..M {
        v[m] = Vector::splat(s, all[m][0]);
    }
    v
}

/// Floats `i` to `i + n` of each.
///
/// # Safety
/// Slices are at least that long, and `n <= LANES`.
#[inline(always)]
unsafe fn vectors<I: Isa, const M: usize>(s: I, all: [&[f32]; M], i: usize, n: usize) -> [Vector<I>; M] {
    let mut v = [Vector::splat(s, 0.0); M];
    for m in 0..M {
        // SAFETY: the caller vouches for the lengths.
        v[m] = unsafe { Vector::load(s, all[m].as_ptr().add(i), n) };
    }
    v
}

/// Slices of equal length under a function.
struct Over<'a, I, F, const M: usize, const N: usize> {
    s: I,
    f: F,
    x: [&'a [f32]; M],
    y: [&'a mut [f32]; N],
}

impl<I: Isa, F, const M: usize, const N: usize> Over<'_, I, F, M, N> {
    /// Under parameters that are the same for each vector.
    #[inline(always)]
    fn flat<const P: usize>(&mut self, p: [Vector<I>; P], len: usize)
    where
        F: Map<M, P, N>,
    {
        let whole = len - len % I::LANES;
        for i in (0..whole).step_by(I::LANES) {
            // SAFETY: slices are `len` floats.
            unsafe { self.vector(p, i, I::LANES) };
        }
        if whole < len {
            // SAFETY: as above.
            unsafe { self.vector(p, whole, len - whole) };
        }
    }

    /// Pixel by pixel.
    #[inline(always)]
    fn pixels<const P: usize>(&mut self, p: [&[f32]; P], ch: usize, len: usize)
    where
        F: Map<M, P, N>,
    {
        for start in (0..len).step_by(ch.max(1)) {
            for k in (0..ch).step_by(I::LANES) {
                let n = I::LANES.min(ch - k);
                // SAFETY: parameters are `ch` floats, and slices whole pixels of as many.
                unsafe { self.vector(vectors(self.s, p, k, n), start + k, n) };
            }
        }
    }

    /// Floats `i` to `i + n`.
    ///
    /// # Safety
    /// Slices are at least that long, and `n <= LANES`.
    #[inline(always)]
    unsafe fn vector<const P: usize>(&mut self, p: [Vector<I>; P], i: usize, n: usize)
    where
        F: Map<M, P, N>,
    {
        // SAFETY: the caller vouches for the lengths.
        unsafe {
            let r = self.f.value(vectors(self.s, self.x, i, n), p);
            for k in 0..N {
                r[k].store(self.y[k].as_mut_ptr().add(i), n);
            }
        }
    }
}

/// `N` terms of `M` inputs and `P` parameters, to be summed over pixels.
pub(crate) trait Sum<const M: usize, const P: usize, const N: usize>: Copy {
    fn terms<I: Isa>(self, v: [Vector<I>; M], p: [Vector<I>; P]) -> [Vector<I>; N];
}

/// [`Sum`] over the pixels of whole slices of equal length; `out` takes the sums of each channel.
///
/// 32 partial sums for 1 or 16 channels, which are added pairwise in the end; one for each channel otherwise.
pub(crate) struct SumOver<'a, F, const M: usize, const P: usize, const N: usize> {
    pub f: F,
    /// Interleaved channels.
    pub ch: usize,
    pub x: [&'a [f32]; M],
    pub p: [&'a [f32]; P],
    pub out: [&'a mut [f32]; N],
}

/// Partial sums: two for each lane of a block.
const PARTIAL: usize = 2 * BLOCK;

impl<F: Sum<M, P, N>, const M: usize, const P: usize, const N: usize> Body for SumOver<'_, F, M, P, N> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, s: I) {
        let (ch, len) = (self.ch, self.x[0].len());
        let terms = Terms { s, f: self.f, x: first(self.x, len), p: first(self.p, ch), ch };
        if ch != 1 && ch != BLOCK {
            return terms.interleaved(self.out, len);
        }
        let mut sums = [[0.0f32; BLOCK]; N];
        terms.partial_sums(&mut sums, len);
        for (out, mut sum) in self.out.into_iter().zip(sums) {
            if ch == BLOCK {
                out.copy_from_slice(&sum);
                continue;
            }
            for half in [8, 4, 2, 1] {
                for k in 0..half {
                    sum[k] += sum[k + half];
                }
            }
            out[0] = sum[0];
        }
    }
}

/// What terms are computed from: slices of equal length, and `ch` parameters each.
struct Terms<'a, I, F, const M: usize, const P: usize> {
    s: I,
    f: F,
    x: [&'a [f32]; M],
    p: [&'a [f32]; P],
    ch: usize,
}

impl<I: Isa, F, const M: usize, const P: usize> Terms<'_, I, F, M, P> {
    /// Parameters of `n` channels from channel `k` on.
    #[inline(always)]
    fn parameters(&self, k: usize, n: usize) -> [Vector<I>; P] {
        match self.ch {
            1 => splats(self.s, self.p),
            // SAFETY: parameters are `ch` floats.
            ch => unsafe { vectors(self.s, self.p, k, n.min(ch - k)) },
        }
    }

    /// Terms of floats `i` to `i + n`.
    ///
    /// # Safety
    /// Slices are at least that long, and `n <= LANES`.
    #[inline(always)]
    unsafe fn at<const N: usize>(&self, p: [Vector<I>; P], i: usize, n: usize) -> [Vector<I>; N]
    where
        F: Sum<M, P, N>,
    {
        // SAFETY: the caller vouches for the lengths.
        self.f.terms(unsafe { vectors(self.s, self.x, i, n) }, p)
    }

    /// For each lane of a block, the sum of every second of its terms plus that of the others.
    #[inline(always)]
    fn partial_sums<const N: usize>(&self, sums: &mut [[f32; BLOCK]; N], len: usize)
    where
        F: Sum<M, P, N>,
    {
        const { assert!(BLOCK.is_multiple_of(I::LANES)) };
        let whole = len - len % PARTIAL;
        // A vector of lanes at a time, which the other levels' registers hold.
        for lane in (0..BLOCK).step_by(I::LANES) {
            let p = self.parameters(lane, I::LANES);
            let mut acc = [[Vector::splat(self.s, 0.0); 2]; N];
            for i in (0..whole).step_by(PARTIAL) {
                for j in 0..2 {
                    // SAFETY: slices are `len` floats.
                    let t: [_; N] = unsafe { self.at(p, i + j * BLOCK + lane, I::LANES) };
                    (0..N).for_each(|n| acc[n][j] = acc[n][j] + t[n]);
                }
            }
            let mut last = [[[0.0f32; BLOCK]; 2]; N];
            for (j, start) in [whole + lane, whole + BLOCK + lane].into_iter().enumerate() {
                let lanes = len.saturating_sub(start).min(I::LANES);
                // SAFETY: slices are `len` floats, and the arrays hold a vector.
                unsafe {
                    let t: [_; N] = self.at(p, start.min(len), lanes);
                    (0..N).for_each(|n| acc[n][j].store(last[n][j].as_mut_ptr(), I::LANES));
                    let mut terms = [0.0f32; BLOCK];
                    for n in 0..N {
                        t[n].store(terms.as_mut_ptr(), I::LANES);
                        (0..lanes).for_each(|k| last[n][j][k] += terms[k]);
                    }
                }
            }
            for n in 0..N {
                (0..I::LANES).for_each(|k| sums[n][lane + k] = last[n][0][k] + last[n][1][k]);
            }
        }
    }

    /// Any number of channels, in the order of pixels.
    #[inline(always)]
    fn interleaved<const N: usize>(&self, out: [&mut [f32]; N], len: usize)
    where
        F: Sum<M, P, N>,
    {
        let ch = self.ch;
        let out = out.map(|out| &mut out[..ch]);
        for k in (0..ch).step_by(I::LANES) {
            let n = I::LANES.min(ch - k);
            let (p, mut acc) = (self.parameters(k, n), [Vector::splat(self.s, 0.0); N]);
            for start in (0..len).step_by(ch) {
                // SAFETY: slices are `len` floats, whole pixels of `ch`.
                let t: [_; N] = unsafe { self.at(p, start + k, n) };
                for i in 0..N {
                    acc[i] = acc[i] + t[i];
                }
            }
            for i in 0..N {
                // SAFETY: `out` has `ch` floats.
                unsafe { acc[i].store(out[i].as_mut_ptr().add(k), n) };
            }
        }
    }
}
