//! Dropout, whose mask nothing keeps: bits are a function of seed, step and place, so the backward pass makes them again.
//!
//! ```text
//! y = x m,   m = 0 with probability p, else 1 / (1 - p)
//! ```
//!
//! The place of an element is its number in NCHW order, of a channel its number among all images' channels: masks are the same in every
//! layout and for any number of threads. An element is dropped where a word of Philox 2x32 with 10 rounds is below `p 2^32` (J. Salmon,
//! M. Moraes, R. Dror and D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The place is the counter; the key and what the
//! counter's upper word is mixed with come from seed and step.

use crate::isa::Isa;
use crate::layout::{BLOCK, Layout, blocks};
use crate::pass::{Body, Chunks, Place};
use crate::shape::{ShapeError, checked_elements};

/// What is dropped as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Drop {
    /// Elements: PyTorch's `Dropout`.
    Elements,
    /// Whole channels of an image: PyTorch's `Dropout2d`.
    Channels,
}

/// Dropout of a tensor: forward and backward are the same.
///
/// ```
/// use swath_kernels::dropout::{Drop, Dropout};
/// use swath_kernels::{isa::Cpu, layout::Layout, pass::Place};
/// let dropout = Dropout::new(Layout::Nchw, [1, 1, 100, 100], 0.25, Drop::Elements)?;
/// let (place, mut y) = (Place::inline(Cpu::detect().level), vec![0.0; 10_000]);
/// dropout.apply(&place, [7, 0], &vec![3.0; 10_000], &mut y);
/// assert!(y.iter().all(|&v| v == 0.0 || v == 4.0));
/// assert!((y.iter().filter(|&&v| v == 0.0).count() as f64 - 2500.0).abs() < 200.0);
/// # Ok::<(), swath_kernels::dropout::DropoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    layout: Layout,
    dims: [usize; 4],
    p: f32,
    what: Drop,
}

/// Why there is no such dropout.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum DropoutError {
    /// A probability that is none.
    #[error("the dropout probability is {0}, it must be between 0 and 1")]
    Probability(f32),
    /// Extents that are none.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

/// The constants of Philox 2x32.
const MULTIPLIER: u64 = 0xd256_d193;
const WEYL: u32 = 0x9e37_79b9;

/// A word of Philox 2x32-10 for each of `N` counters.
#[inline(always)]
fn philox<const N: usize>(mut key: u32, mut low: [u32; N], mut high: [u32; N]) -> [u32; N] {
    for _ in 0..10 {
        for i in 0..N {
            let product = MULTIPLIER * u64::from(low[i]);
            low[i] = (product >> 32) as u32 ^ key ^ high[i];
            high[i] = product as u32;
        }
        key = key.wrapping_add(WEYL);
    }
    low
}

/// A finaliser of 64 bits (splitmix64's).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of words, one for each place.
#[derive(Clone, Copy)]
struct Words {
    key: u32,
    upper: u32,
}

impl Words {
    fn new([seed, step]: [u64; 2]) -> Self {
        let z = mix(mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ step.wrapping_mul(0xd1b5_4a32_d192_ed03));
        Self { key: z as u32, upper: (z >> 32) as u32 }
    }

    /// The words of `N` places.
    #[inline(always)]
    fn at<const N: usize>(self, places: [u64; N]) -> [u32; N] {
        philox(self.key, places.map(|p| p as u32), places.map(|p| (p >> 32) as u32 ^ self.upper))
    }
}

/// Some pixels of a unit.
struct Pixels<'a> {
    words: Words,
    threshold: u64,
    scale: f32,
    /// Place of the first pixel's first channel, and the distances from channel to channel and from pixel to pixel.
    first: u64,
    channel: u64,
    pixel: u64,
    ch: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Body for Pixels<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let Pixels { words, threshold, scale, first, channel, pixel, ch, x, y } = self;
        let factor = |word: u32| if u64::from(word) < threshold { 0.0 } else { scale };
        // 16 elements at once: neighbours in memory are a channel apart, or a pixel where pixels are single floats.
        let whole = y.len() - y.len() % BLOCK;
        if ch == 1 || ch.is_multiple_of(BLOCK) {
            for at in (0..whole).step_by(BLOCK) {
                let (p, c) = ((at / ch) as u64, (at % ch) as u64);
                let step = if ch == 1 { pixel } else { channel };
                let start = first + p * pixel + c * channel;
                let w = words.at::<BLOCK>(core::array::from_fn(|k| start + k as u64 * step));
                for k in 0..BLOCK {
                    y[at + k] = x[at + k] * factor(w[k]);
                }
            }
        }
        let rest = if ch == 1 || ch.is_multiple_of(BLOCK) { whole } else { 0 };
        for at in rest..y.len() {
            let place = first + (at / ch) as u64 * pixel + (at % ch) as u64 * channel;
            y[at] = x[at] * factor(words.at([place])[0]);
        }
    }
}

/// Pixels of a part, where a pixel is 16 floats.
const FLOATS: usize = 8 << 10;

impl Dropout {
    /// Of a tensor of the logical extents `dims`, with a probability `p` of being dropped.
    ///
    /// # Errors
    /// If `p` is not between 0 and 1, or the tensor is too large.
    pub fn new(layout: Layout, dims: [usize; 4], p: f32, what: Drop) -> Result<Self, DropoutError> {
        if !(0.0..=1.0).contains(&p) {
            return Err(DropoutError::Probability(p));
        }
        let [n, c, h, w] = dims;
        checked_elements("input", &[n, c.checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX), h, w])?;
        Ok(Self { layout, dims, p, what })
    }

    /// `y = x m`, the mask being that of `[seed, step]`: the forward pass, and with `dy` for `x` the backward pass. With `p` 1 all is zero.
    ///
    /// # Panics
    /// If a length is not what the extents say.
    pub fn apply(&self, place: &Place<'_>, key: [u64; 2], x: &[f32], y: &mut [f32]) {
        let (len, [_, c, h, w]) = (self.layout.len(self.dims), self.dims);
        assert!(x.len() == len && y.len() == len, "lengths for {:?} {}", self.dims, self.layout.name());
        if self.p == 1.0 {
            return y.fill(0.0);
        }
        let (units, ch) = match self.layout {
            Layout::Nchw => (c, 1),
            Layout::Nhwc => (1, c),
            Layout::Blocked => (blocks(c), BLOCK),
        };
        let words = Words::new(key);
        let (threshold, scale) = ((f64::from(self.p) * 2f64.powi(32)) as u64, 1.0 / (1.0 - self.p));
        let pixels = (h * w) as u64;
        let (channel, pixel) = if self.what == Drop::Channels { (1, 0) } else { (pixels, 1) };
        let chunk = (FLOATS / ch.max(1)).max(1);
        let per_unit = (h * w).div_ceil(chunk);
        // A word is worth about eight floats moved.
        place.each(8 * len, Chunks::of_units(y, h * w * ch, chunk * ch), |i, y| {
            let (unit, part) = (i / per_unit, i % per_unit);
            let at = unit * h * w * ch + part * chunk * ch;
            let number = (unit / units * c + unit % units * ch) as u64;
            let first = number * channel + (part * chunk) as u64 * pixel;
            let x = &x[at..at + y.len()];
            place.at(Pixels { words, threshold, scale, first, channel, pixel, ch, x, y });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random123's known answers of philox2x32 with 10 rounds, of which the first word is used.
    #[test]
    fn known_answers() {
        let word = |low, high, key| philox::<1>(key, [low], [high])[0];
        assert_eq!(word(0, 0, 0), 0xff1d_ae59);
        assert_eq!(word(u32::MAX, u32::MAX, u32::MAX), 0x2c3f_628b);
        assert_eq!(word(0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e), 0xdd7c_e038);
    }
}
