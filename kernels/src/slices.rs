//! Activation tensors as slices of pixels, for sums over them and for parameters of each channel.
//!
//! A tensor is `images * units` units of `pixels * ch` floats (see [`crate::pool`]); a unit is cut into `per_unit` slices of
//! `chunk` pixels, of which the last may be shorter. The shape alone fixes the cuts. Sums over a slice are in f32, sums
//! over slices in f64 and in their order.

use core::ops::Range;

use crate::layout::{BLOCK, Layout, blocks};
use crate::pass::{Chunks, Place, Runs, Sum, SumOver};

/// Floats of a slice: 64 KiB, so that three streams of one stay in an L2 cache.
const FLOATS: usize = 16 << 10;

/// Pixels of a slice at most, where channels interleave: no f32 adds up more terms than that.
const PIXELS: usize = 1 << 10;

/// How a tensor is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slices {
    pub images: usize,
    /// Units of an image.
    pub units: usize,
    /// Interleaved channels.
    pub ch: usize,
    /// Channels that exist; those beyond pad the last block.
    pub c: usize,
    /// Pixels of a unit.
    pub pixels: usize,
    /// Pixels of a slice.
    pub chunk: usize,
    /// Slices of a unit.
    pub per_unit: usize,
}

/// Some slices of a tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Their numbers.
    pub runs: Runs,
    /// Floats of all of them.
    pub floats: usize,
}

impl Slices {
    /// Of a tensor of the logical extents `dims`.
    pub fn new(layout: Layout, [n, c, h, w]: [usize; 4]) -> Self {
        let (units, ch) = match layout {
            Layout::Nchw => (c, 1),
            Layout::Nhwc => (1, c),
            Layout::Blocked => (blocks(c), BLOCK),
        };
        Self::cut(n, units, ch, c, h * w)
    }

    /// Of the same tensor, where images need not be told apart: with channels last, or with one pixel an image, the whole batch is one
    /// image.
    pub fn of_batch(layout: Layout, dims: [usize; 4]) -> Self {
        let [n, c, h, w] = dims;
        match layout {
            Layout::Nhwc => Self::cut(1, 1, c, c, n * h * w),
            _ if h * w == 1 => Self::cut(1, 1, layout.len([1, c, 1, 1]), c, n),
            _ => Self::new(layout, dims),
        }
    }

    fn cut(images: usize, units: usize, ch: usize, c: usize, pixels: usize) -> Self {
        let most = if ch == 1 { FLOATS } else { PIXELS };
        let chunk = (FLOATS / ch.max(1)).clamp(1, most);
        Self { images, units, ch, c, pixels, chunk, per_unit: pixels.div_ceil(chunk) }
    }

    /// Floats of the tensor.
    pub fn len(&self) -> usize {
        self.images * self.units * self.unit_len()
    }

    /// Channels with those that pad.
    pub fn channels(&self) -> usize {
        self.units * self.ch
    }

    fn unit_len(&self) -> usize {
        self.pixels * self.ch
    }

    /// Sums of each kind: one for each slice and channel in it.
    pub fn sums(&self) -> usize {
        self.images * self.channels() * self.per_unit
    }

    /// The tensor, cut into slices.
    pub fn cuts<'a, T>(&self, tensor: &'a mut [T]) -> Chunks<'a, T> {
        Chunks::of_units(tensor, self.unit_len(), self.chunk * self.ch)
    }

    /// Floats of the longest slice.
    pub fn longest(&self) -> usize {
        self.chunk * self.ch
    }

    /// Image, unit and floats of slice `i`.
    pub fn slice(&self, i: usize) -> (usize, usize, Range<usize>) {
        let (unit, s) = (i / self.per_unit, i % self.per_unit);
        let start = unit * self.unit_len() + s * self.chunk * self.ch;
        let end = ((s + 1) * self.chunk).min(self.pixels) * self.ch + unit * self.unit_len();
        (unit / self.units, unit % self.units, start..end)
    }

    /// All slices.
    pub fn all(&self) -> Part {
        self.of_images(0..self.images)
    }

    /// Slices of some units of all images.
    pub fn of_units(&self, units: Range<usize>) -> Part {
        let len = units.len() * self.per_unit;
        let runs = Runs::new(units.start * self.per_unit, len, self.units * self.per_unit, self.images);
        Part { runs, floats: self.images * units.len() * self.unit_len() }
    }

    /// Slices of some images.
    pub fn of_images(&self, images: Range<usize>) -> Part {
        let per_image = self.units * self.per_unit;
        let runs = Runs::new(images.start * per_image, images.len() * per_image, self.images * per_image, 1);
        Part { runs, floats: images.len() * self.units * self.unit_len() }
    }

    /// Pixels of slice `s` of a unit.
    pub fn slice_pixels(&self, s: usize) -> usize {
        self.chunk.min(self.pixels - s * self.chunk)
    }

    /// Where sums of a channel of an image lie: one for each slice.
    pub fn of_channel(&self, image: usize, channel: usize) -> impl Iterator<Item = usize> + use<> {
        let (unit, lane) = (channel / self.ch, channel % self.ch);
        let (ch, first) = (self.ch, (image * self.units + unit) * self.per_unit);
        (0..self.per_unit).map(move |s| (first + s) * ch + lane)
    }

    /// A sum over the pixels of an image's channel, in f64 over slices.
    pub fn total(&self, sums: &[f32], image: usize, channel: usize) -> f64 {
        self.of_channel(image, channel).map(|i| f64::from(sums[i])).sum()
    }

    /// Sums of terms for each channel and each of some slices: `out` holds [`Slices::sums`] floats for each kind, `p` parameters of
    /// each channel (with those that pad), of each image where it is so long.
    pub fn sum<F, const M: usize, const P: usize, const N: usize>(
        &self,
        place: &Place<'_>,
        part: Part,
        f: F,
        x: [&[f32]; M],
        p: [&[f32]; P],
        out: [&mut [f32]; N],
    ) where
        F: Sum<M, P, N> + Sync,
    {
        let ch = self.ch;
        let cuts = out.map(|out| Chunks::new(out, ch));
        place.each_of(M * part.floats, part.runs, cuts, |i, out| {
            let (image, unit, range) = self.slice(i);
            let x = x.map(|x| &x[range.clone()]);
            place.at(SumOver { f, ch, x, p: p.map(|p| self.parameters(p, image, unit)), out });
        });
    }

    /// The parameters of a unit's channels: of each image where `p` is so long.
    pub fn parameters<'a>(&self, p: &'a [f32], image: usize, unit: usize) -> &'a [f32] {
        let image = if p.len() > self.channels() { image } else { 0 };
        &p[image * self.channels() + unit * self.ch..][..self.ch]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_a_tensor_in_order() {
        for layout in Layout::ALL {
            for dims in [[2, 19, 33, 40], [3, 5, 1, 1], [1, 1, 200, 200], [2, 40, 7, 7], [0, 3, 4, 4]] {
                for s in [Slices::new(layout, dims), Slices::of_batch(layout, dims)] {
                    assert_eq!(s.len(), layout.len(dims));
                    let mut end = 0;
                    for i in 0..s.images * s.units * s.per_unit {
                        let (image, unit, range) = s.slice(i);
                        assert!(image < s.images && unit < s.units && range.start == end && range.len() % s.ch == 0);
                        assert_eq!(range.len() / s.ch, s.slice_pixels(i % s.per_unit));
                        end = range.end;
                    }
                    assert_eq!(end, s.len());
                }
            }
        }
    }
}
