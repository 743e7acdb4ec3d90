//! Pixel shuffle and unshuffle: channels to pixels and back, in every layout. Each is the other's gradient.
//!
//! ```text
//! deep  [n, c r r, h, w]     wide  [n, c, h r, w r]
//! wide[k][y r + i][x r + j] = deep[(k r + i) r + j][y][x]
//! ```
//!
//! Channels that pad the last block are zero.

use crate::isa::Isa;
use crate::layout::{BLOCK, Layout, blocks};
use crate::pass::{Body, Chunks, Place};
use crate::shape::{ShapeError, checked_elements};

/// A shuffle between `[n, c r r, h, w]` and `[n, c, h r, w r]`.
///
/// ```
/// use swath_kernels::{isa::Cpu, layout::Layout, pass::Place, shuffle::Shuffle};
/// let shuffle = Shuffle::new(Layout::Nchw, [1, 4, 1, 2], 2)?;
/// assert_eq!(shuffle.wide(), [1, 1, 2, 4]);
/// let (place, mut y, mut x) = (Place::inline(Cpu::detect().level), [0.0; 8], [0.0; 8]);
/// shuffle.to_pixels(&place, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], &mut y);
/// assert_eq!(y, [1.0, 3.0, 2.0, 4.0, 5.0, 7.0, 6.0, 8.0]);
/// shuffle.to_channels(&place, &y, &mut x);
/// assert_eq!(x, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shuffle {
    layout: Layout,
    deep: [usize; 4],
    r: usize,
}

/// Rows of an output, whose pixels are gathered channel by channel from fixed offsets.
struct Rows<'a> {
    shuffle: Shuffle,
    /// To pixels; else to channels.
    widen: bool,
    src: &'a [f32],
    image: usize,
    /// First channel of the unit, interleaved channels, and those of them that exist.
    channels: [usize; 3],
    /// First output row.
    first: usize,
    dst: &'a mut [f32],
}

impl Rows<'_> {
    /// Where in the source channel `k` of output pixel `(y, 0)` and its like lie, and how far it is to the next of them: every pixel to channels, every
    /// `r`th to pixels, of which there are then `r` kinds.
    #[inline(always)]
    fn source(&self, k: usize, y: usize, kind: usize) -> (usize, usize) {
        let Shuffle { layout, deep, r } = self.shuffle;
        let (dims, channel, row, column, step) = if self.widen {
            (deep, (k * r + y % r) * r + kind, y / r, 0, 1)
        } else {
            (self.shuffle.wide(), k / (r * r), y * r + k / r % r, k % r, r)
        };
        let s = layout.strides(dims);
        let channel = match layout {
            Layout::Nchw => channel * s.channel,
            _ => channel / BLOCK * s.block + channel % BLOCK,
        };
        (self.image * s.n + channel + row * s.row + column * s.px, step * s.px)
    }
}

impl Body for Rows<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let [first_channel, ch, existing] = self.channels;
        let (kinds, width) =
            if self.widen { (self.shuffle.r, self.shuffle.wide()[3]) } else { (1, self.shuffle.deep[3]) };
        let rows = self.dst.len() / (width * ch);
        for (row, kind) in (0..rows).flat_map(|row| (0..kinds).map(move |kind| (row, kind))) {
            for c in (0..ch).step_by(BLOCK) {
                let lanes = BLOCK.min(ch - c);
                let sources: [(usize, usize); BLOCK] = core::array::from_fn(|k| {
                    let k = (c + k).min(existing - 1);
                    self.source(first_channel + k, self.first + row, kind)
                });
                let step = sources[0].1;
                for (i, x) in (kind..width).step_by(kinds).enumerate() {
                    let at = (row * width + x) * ch + c;
                    let to = &mut self.dst[at..at + lanes];
                    for (k, to) in to.iter_mut().enumerate() {
                        *to = if c + k < existing { self.src[sources[k].0 + i * step] } else { 0.0 };
                    }
                }
            }
        }
    }
}

impl Shuffle {
    /// Of `deep = [n, c r r, h, w]` by a factor `r`.
    ///
    /// # Errors
    /// If the factor is zero or its square does not divide the channels, or the tensor is too large.
    pub fn new(layout: Layout, deep: [usize; 4], r: usize) -> Result<Self, ShapeError> {
        let [n, c, h, w] = deep;
        if r == 0 || c == 0 {
            return Err(ShapeError::Zero { what: if r == 0 { "the factor" } else { "the number of channels" } });
        }
        let square = checked_elements("factor", &[r, r])?;
        if !c.is_multiple_of(square) {
            return Err(ShapeError::Groups { what: "shuffled", groups: square, channels: c });
        }
        let block = |c: usize| c.checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX);
        checked_elements("input", &[n, block(c), h, w])?;
        checked_elements("output", &[n, block(c / square), h, w, square])?;
        Ok(Self { layout, deep, r })
    }

    /// Extents with many channels.
    pub fn deep(&self) -> [usize; 4] {
        self.deep
    }

    /// Extents with many pixels.
    pub fn wide(&self) -> [usize; 4] {
        let [n, c, h, w] = self.deep;
        [n, c / (self.r * self.r), h * self.r, w * self.r]
    }

    fn run(&self, place: &Place<'_>, widen: bool, src: &[f32], dst: &mut [f32]) {
        let (from, to) = if widen { (self.deep, self.wide()) } else { (self.wide(), self.deep) };
        assert_eq!(src.len(), self.layout.len(from), "input length for {from:?} {}", self.layout.name());
        assert_eq!(dst.len(), self.layout.len(to), "output length for {to:?} {}", self.layout.name());
        let [_, c, h, w] = to;
        let (units, ch) = match self.layout {
            Layout::Nchw => (c, 1),
            Layout::Nhwc => (1, c),
            Layout::Blocked => (blocks(c), BLOCK),
        };
        let rows = (8192 / (w * ch).max(1)).max(1);
        let per_unit = h.div_ceil(rows);
        place.each(2 * src.len(), Chunks::of_units(dst, h * w * ch, rows * w * ch), |i, dst| {
            let (unit, first) = (i / per_unit, i % per_unit * rows);
            let (image, channel) = (unit / units, unit % units * ch);
            let channels = [channel, ch, ch.min(c - channel)];
            place.at(Rows { shuffle: *self, widen, src, image, channels, first, dst });
        });
    }

    /// PyTorch's `pixel_shuffle`, and the gradient of [`Shuffle::to_channels`].
    ///
    /// # Panics
    /// If a length is not what the extents say.
    pub fn to_pixels(&self, place: &Place<'_>, deep: &[f32], wide: &mut [f32]) {
        self.run(place, true, deep, wide);
    }

    /// PyTorch's `pixel_unshuffle`, and the gradient of [`Shuffle::to_pixels`].
    ///
    /// # Panics
    /// If a length is not what the extents say.
    pub fn to_channels(&self, place: &Place<'_>, wide: &[f32], deep: &mut [f32]) {
        self.run(place, false, wide, deep);
    }
}
