//! Streams of floats under functions with a few parameters for each channel.
//!
//! A stream holds pixels of `ch` interleaved channels: 16 where the layout is blocked, all of them in NHWC, one in an NCHW
//! plane. Parameters are slices of `ch` floats.

use core::array::from_fn;

use super::Body;
use crate::isa::Isa;
use crate::layout::BLOCK;

/// `M` inputs and `P` parameters to `N` outputs, element by element.
pub(crate) trait Map<const M: usize, const P: usize, const N: usize>: Copy {
    fn value(self, v: [f32; M], p: [f32; P]) -> [f32; N];
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

/// Parameters of 16 lanes: of 16 channels, or of one.
#[inline(always)]
fn lanes<const P: usize>(ch: usize, p: [&[f32]; P]) -> [[f32; BLOCK]; P] {
    p.map(|p| if ch == 1 { [p[0]; BLOCK] } else { from_fn(|k| p[k]) })
}

impl<F: Map<M, P, N>, const M: usize, const P: usize, const N: usize> Body for MapOver<'_, F, M, P, N> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (f, ch, len) = (self.f, self.ch, self.y[0].len());
        if ch != 1 && ch != BLOCK {
            return self.interleaved();
        }
        let p = lanes(ch, self.p);
        let x = self.x.map(|x| x[..len].as_chunks::<BLOCK>());
        let y = self.y.map(|y| y[..len].as_chunks_mut::<BLOCK>());
        for i in 0..len / BLOCK {
            let v: [&[f32; BLOCK]; M] = from_fn(|m| &x[m].0[i]);
            let mut r = [[0.0; BLOCK]; N];
            for k in 0..BLOCK {
                let t = f.value(from_fn(|m| v[m][k]), from_fn(|q| p[q][k]));
                for n in 0..N {
                    r[n][k] = t[n];
                }
            }
            for n in 0..N {
                y[n].0[i] = r[n];
            }
        }
        for i in 0..len % BLOCK {
            let t = f.value(from_fn(|m| x[m].1[i]), from_fn(|q| p[q][i]));
            for n in 0..N {
                y[n].1[i] = t[n];
            }
        }
    }
}

impl<F: Map<M, P, N>, const M: usize, const P: usize, const N: usize> MapOver<'_, F, M, P, N> {
    /// Any number of channels, pixel by pixel.
    #[inline(always)]
    fn interleaved(self) {
        let (f, ch, len) = (self.f, self.ch, self.y[0].len());
        let p = self.p.map(|p| &p[..ch]);
        let mut y = self.y.map(|y| &mut y[..len]);
        for start in (0..len).step_by(ch.max(1)) {
            let x: [&[f32]; M] = from_fn(|m| &self.x[m][start..start + ch]);
            let y = y.each_mut().map(|y| &mut y[start..start + ch]);
            for k in 0..ch {
                let t = f.value(from_fn(|m| x[m][k]), from_fn(|q| p[q][k]));
                for n in 0..N {
                    y[n][k] = t[n];
                }
            }
        }
    }
}

/// `N` terms of `M` inputs and `P` parameters, to be summed over pixels.
pub(crate) trait Sum<const M: usize, const P: usize, const N: usize>: Copy {
    fn terms(self, v: [f32; M], p: [f32; P]) -> [f32; N];
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

/// Partial sums: two registers of AVX-512, four of AVX2, for each of up to two sums.
const PARTIAL: usize = 2 * BLOCK;

impl<F: Sum<M, P, N>, const M: usize, const P: usize, const N: usize> Body for SumOver<'_, F, M, P, N> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (f, ch, len) = (self.f, self.ch, self.x[0].len());
        if ch != 1 && ch != BLOCK {
            return self.interleaved();
        }
        let p = lanes(ch, self.p);
        let mut acc = [[[0.0f32; BLOCK]; 2]; N];
        let x = self.x.map(|x| x[..len].as_chunks::<PARTIAL>());
        for i in 0..len / PARTIAL {
            let v: [&[f32; PARTIAL]; M] = from_fn(|m| &x[m].0[i]);
            for j in 0..2 {
                for k in 0..BLOCK {
                    let t = f.terms(from_fn(|m| v[m][j * BLOCK + k]), from_fn(|q| p[q][k]));
                    for n in 0..N {
                        acc[n][j][k] += t[n];
                    }
                }
            }
        }
        for i in 0..len % PARTIAL {
            let (j, k) = (i / BLOCK, i % BLOCK);
            let t = f.terms(from_fn(|m| x[m].1[i]), from_fn(|q| p[q][k]));
            for n in 0..N {
                acc[n][j][k] += t[n];
            }
        }
        for (out, acc) in self.out.into_iter().zip(acc) {
            let mut sum: [f32; BLOCK] = from_fn(|k| acc[0][k] + acc[1][k]);
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

impl<F: Sum<M, P, N>, const M: usize, const P: usize, const N: usize> SumOver<'_, F, M, P, N> {
    /// Any number of channels, pixel by pixel.
    #[inline(always)]
    fn interleaved(self) {
        let (f, ch) = (self.f, self.ch);
        let p = self.p.map(|p| &p[..ch]);
        let out = self.out.map(|out| {
            out.fill(0.0);
            &mut out[..ch]
        });
        for start in (0..self.x[0].len()).step_by(ch.max(1)) {
            let x: [&[f32]; M] = from_fn(|m| &self.x[m][start..start + ch]);
            for k in 0..ch {
                let t = f.terms(from_fn(|m| x[m][k]), from_fn(|q| p[q][k]));
                for n in 0..N {
                    out[n][k] += t[n];
                }
            }
        }
    }
}
