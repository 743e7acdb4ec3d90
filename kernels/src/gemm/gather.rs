//! im2col as a way of packing: the taps of some output pixels, for a range of the reduction, gathered into a block of A.
//!
//! ```text
//! k = (ky * kw + kx) * icg + ic        channels innermost, so that NHWC and blocked input are copied in runs
//!
//! rows     [pixels][ld]     NHWC, blocked: each pixel's taps are runs of 1 to icg contiguous channels
//! panels   [p/mr][k][mr]    NCHW: for one tap and channel, pixels of a row are `sw` apart
//! ```
//!
//! Taps outside the image become zeros.

use core::ops::Range;

use crate::layout::{BLOCK, Strides};
use crate::shape::ConvShape;
use crate::tile::{MAX_MR, pieces};

/// The patches of one image and group.
pub(super) struct Patches<'a> {
    pub(super) shape: &'a ConvShape,
    pub(super) xs: &'a Strides,
    /// One image.
    pub(super) image: &'a [f32],
    /// First input channel of the group.
    pub(super) channel: usize,
}

impl Patches<'_> {
    /// Offset in the image of output pixel `p`'s tap `t`, at channel 0; `None` outside the image.
    #[inline]
    fn tap(&self, (oy, ox): (usize, usize), (ky, kx): (usize, usize)) -> Option<usize> {
        let s = self.shape;
        let iy = (oy * s.sh + ky * s.dh).wrapping_sub(s.pad.top);
        let ix = (ox * s.sw + kx * s.dw).wrapping_sub(s.pad.left);
        (iy < s.ih && ix < s.iw).then(|| iy * self.xs.row + ix * self.xs.px)
    }

    #[inline]
    fn channel_at(&self, c: usize) -> usize {
        c / BLOCK * self.xs.block + c % BLOCK * self.xs.channel
    }

    /// The taps that the range `ks` of the reduction touches: `(ky, kx)` and the group's channels of each.
    fn taps(&self, ks: &Range<usize>) -> impl Iterator<Item = ((usize, usize), Range<usize>)> + use<> {
        let (icg, kw) = (self.shape.icg(), self.shape.kw);
        let ks = ks.clone();
        (ks.start / icg..ks.end.div_ceil(icg)).map(move |t| {
            let (first, last) = (ks.start.max(t * icg), ks.end.min((t + 1) * icg));
            ((t / kw, t % kw), first - t * icg..last - t * icg)
        })
    }

    /// Pixels `ps`, each in a row `ld` floats from the one before.
    pub(super) fn rows(&self, ps: Range<usize>, ks: &Range<usize>, ld: usize, packed: &mut [f32]) {
        assert!(ks.len() <= ld && packed.len() / ld >= ps.len());
        let (mut oy, mut ox) = (ps.start / self.shape.ow, ps.start % self.shape.ow);
        for row in packed.chunks_mut(ld).take(ps.len()) {
            let mut k = 0;
            for (tap, channels) in self.taps(ks) {
                let to = &mut row[k..k + channels.len()];
                k += channels.len();
                match self.tap((oy, ox), tap) {
                    Some(at) => self.runs(at, channels, to),
                    None => to.fill(0.0),
                }
            }
            (oy, ox) = if ox + 1 == self.shape.ow { (oy + 1, 0) } else { (oy, ox + 1) };
        }
    }

    /// The group's `channels` of one input pixel, in contiguous runs.
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
        let (mut oy, mut ox) = (ps.start / self.shape.ow, ps.start % self.shape.ow);
        for (p0, pixels) in pieces(ps.len(), mr) {
            let mut at = [(0, 0); MAX_MR];
            for slot in &mut at[..pixels] {
                *slot = (oy, ox);
                (oy, ox) = if ox + 1 == self.shape.ow { (oy + 1, 0) } else { (oy, ox + 1) };
            }
            let panel = &mut packed[p0 * ks.len()..][..pixels * ks.len()];
            self.panel(&at[..pixels], ks, panel);
        }
    }

    /// One panel `[k][pixels]`.
    fn panel(&self, pixels: &[(usize, usize)], ks: &Range<usize>, panel: &mut [f32]) {
        let n = pixels.len();
        let mut rest = panel;
        for (tap, channels) in self.taps(ks) {
            let (part, after) = rest.split_at_mut(channels.len() * n);
            rest = after;
            let mut at = [None; MAX_MR];
            for (slot, &p) in at.iter_mut().zip(pixels) {
                *slot = self.tap(p, tap);
            }
            let at = &at[..n];
            let first = at[0];
            let line = at.iter().enumerate().all(|(i, a)| a.is_some() && *a == first.map(|f| f + i));
            for (to, c) in part.chunks_exact_mut(n).zip(channels) {
                let plane = &self.image[self.channel_at(self.channel + c)..];
                if let (true, Some(first)) = (line, first) {
                    to.copy_from_slice(&plane[first..first + n]);
                } else {
                    for (to, a) in to.iter_mut().zip(at) {
                        *to = a.map_or(0.0, |a| plane[a]);
                    }
                }
            }
        }
    }
}
