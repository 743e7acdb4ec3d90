//! im2col as a way of packing: the taps of some output pixels, for a range of the reduction, gathered into a block of A.
//!
//! ```text
//! k = (ky * kw + kx) * ics + ic        ics channels, innermost, so that NHWC and blocked input are copied in runs
//!
//! rows     [pixels][ld]     NHWC, blocked: each pixel's taps are runs of 1 to ics contiguous channels
//! panels   [p/mr][k][mr]    NCHW: for one tap and channel, pixels of a row are `sw` apart
//! ```
//!
//! Taps outside the image become zeros.

use core::ops::Range;

use crate::layout::{BLOCK, Strides};
use crate::shape::ConvShape;
use crate::tile::{MAX_MR, pieces};

/// An offset that no slice has, for what lies outside the image.
const OUTSIDE: usize = usize::MAX;

/// The patches of one image and some neighbouring groups.
pub(super) struct Patches<'a> {
    pub(super) shape: &'a ConvShape,
    pub(super) xs: &'a Strides,
    /// One image.
    pub(super) image: &'a [f32],
    /// First input channel.
    pub(super) channel: usize,
    /// Input channels.
    pub(super) channels: usize,
}

/// Walks over output pixels and yields where their windows start, which may be before the image: both coordinates wrap.
#[derive(Clone)]
struct Origins<'a> {
    shape: &'a ConvShape,
    oy: usize,
    ox: usize,
}

impl Iterator for Origins<'_> {
    type Item = (usize, usize);

    #[inline]
    fn next(&mut self) -> Option<(usize, usize)> {
        let s = self.shape;
        let origin = ((self.oy * s.sh).wrapping_sub(s.pad.top), (self.ox * s.sw).wrapping_sub(s.pad.left));
        self.ox += 1;
        if self.ox == s.ow {
            (self.oy, self.ox) = (self.oy + 1, 0);
        }
        Some(origin)
    }
}

/// A tap and a range of the channels.
struct Step {
    /// Distance of the tap from the window's start.
    dy: usize,
    dx: usize,
    channels: Range<usize>,
}

/// The steps of a range of the reduction. A counter instead of divisions: it runs for every pixel.
#[derive(Clone)]
struct Steps<'a> {
    shape: &'a ConvShape,
    channels: usize,
    ky: usize,
    kx: usize,
    channel: usize,
    left: usize,
}

impl Iterator for Steps<'_> {
    type Item = Step;

    #[inline]
    fn next(&mut self) -> Option<Step> {
        if self.left == 0 {
            return None;
        }
        let s = self.shape;
        let end = self.channels.min(self.channel + self.left);
        let step = Step { dy: self.ky * s.dh, dx: self.kx * s.dw, channels: self.channel..end };
        self.left -= end - self.channel;
        self.channel = 0;
        self.kx += 1;
        if self.kx == s.kw {
            (self.ky, self.kx) = (self.ky + 1, 0);
        }
        Some(step)
    }
}

impl<'a> Patches<'a> {
    fn origins(&self, first: usize) -> Origins<'a> {
        Origins { shape: self.shape, oy: first / self.shape.ow, ox: first % self.shape.ow }
    }

    fn steps(&self, ks: &Range<usize>) -> Steps<'a> {
        let (tap, channel) = (ks.start / self.channels, ks.start % self.channels);
        let (ky, kx) = (tap / self.shape.kw, tap % self.shape.kw);
        Steps { shape: self.shape, channels: self.channels, ky, kx, channel, left: ks.len() }
    }

    /// Offset in the image of a tap's channel 0; `None` outside the image.
    #[inline]
    fn tap(&self, (y, x): (usize, usize), step: &Step) -> Option<usize> {
        let (iy, ix) = (y.wrapping_add(step.dy), x.wrapping_add(step.dx));
        (iy < self.shape.ih && ix < self.shape.iw).then(|| iy * self.xs.row + ix * self.xs.px)
    }

    #[inline]
    fn channel_at(&self, c: usize) -> usize {
        c / BLOCK * self.xs.block + c % BLOCK * self.xs.channel
    }

    /// Pixels `ps`, each in a row `ld` floats from the one before.
    pub(super) fn rows(&self, ps: Range<usize>, ks: &Range<usize>, ld: usize, packed: &mut [f32]) {
        assert!(ks.len() <= ld && packed.len() / ld >= ps.len());
        let steps = self.steps(ks);
        for (row, origin) in packed.chunks_mut(ld).zip(self.origins(ps.start)).take(ps.len()) {
            let mut k = 0;
            for step in steps.clone() {
                let to = &mut row[k..k + step.channels.len()];
                k += step.channels.len();
                match self.tap(origin, &step) {
                    Some(at) => self.runs(at, step.channels, to),
                    None => to.fill(0.0),
                }
            }
        }
    }

    /// The `channels` of one input pixel, in contiguous runs.
    #[inline]
    fn runs(&self, at: usize, channels: Range<usize>, to: &mut [f32]) {
        let (mut c, mut done) = (self.channel + channels.start, 0);
        let end = self.channel + channels.end;
        // NHWC: blocks lie next to each other, so the run does not end with the block.
        let whole = self.xs.block == BLOCK;
        while c < end {
            let n = if whole { end - c } else { (BLOCK - c % BLOCK).min(end - c) };
            let from = &self.image[at + self.channel_at(c)..][..n];
            let to = &mut to[done..done + n];
            if let (Ok(to), Ok(from)) = (<&mut [f32; BLOCK]>::try_from(&mut *to), <&[f32; BLOCK]>::try_from(from)) {
                *to = *from; // a whole block without a call
            } else if n < BLOCK {
                to.iter_mut().zip(from).for_each(|(t, f)| *t = *f);
            } else {
                to.copy_from_slice(from);
            }
            (c, done) = (c + n, done + n);
        }
    }

    /// Pixels `ps` in panels of at most `mr`.
    pub(super) fn panels(&self, ps: Range<usize>, ks: &Range<usize>, mr: usize, packed: &mut [f32]) {
        let mut all = self.origins(ps.start);
        for (p0, pixels) in pieces(ps.len(), mr) {
            let mut origins = [(0, 0); MAX_MR];
            origins[..pixels].iter_mut().zip(&mut all).for_each(|(slot, origin)| *slot = origin);
            let panel = &mut packed[p0 * ks.len()..][..pixels * ks.len()];
            self.panel(&origins[..pixels], ks, panel);
        }
    }

    /// One panel `[k][pixels]`.
    fn panel(&self, origins: &[(usize, usize)], ks: &Range<usize>, panel: &mut [f32]) {
        let n = origins.len();
        let mut rest = panel;
        for step in self.steps(ks) {
            let (part, after) = rest.split_at_mut(step.channels.len() * n);
            rest = after;
            let mut at = [OUTSIDE; MAX_MR];
            let mut inside = true;
            for (slot, &origin) in at.iter_mut().zip(origins) {
                *slot = self.tap(origin, &step).unwrap_or(OUTSIDE);
                inside &= *slot != OUTSIDE;
            }
            let at = &at[..n];
            let line = inside && at.windows(2).all(|w| w[0] + 1 == w[1]);
            for (to, c) in part.chunks_exact_mut(n).zip(step.channels) {
                let plane = &self.image[self.channel_at(self.channel + c)..];
                if line {
                    to.iter_mut().zip(&plane[at[0]..][..n]).for_each(|(t, f)| *t = *f);
                } else if inside {
                    to.iter_mut().zip(at).for_each(|(t, &a)| *t = plane[a]);
                } else {
                    // What is outside lies beyond the end of any slice.
                    to.iter_mut().zip(at).for_each(|(t, a)| *t = plane.get(*a).copied().unwrap_or(0.0));
                }
            }
        }
    }
}
