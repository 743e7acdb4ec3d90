//! Averages over regions that divide the input evenly: adaptive and global average pooling.
//!
//! A region is added row by row: rows are chains of their own, so that they hide each other's latency of addition. In NCHW planes of up to
//! 1024 columns rows are added up by vectors, then the columns of a region.

use super::PoolArgs;
use crate::isa::{Isa, Kernel};
use crate::layout::BLOCK;
use crate::shape::{ShapeError, checked_elements};

/// The geometry of adaptive average pooling, checked. Input `[n, c, ih, iw]`, output `[n, c, oh, ow]`; the batch may be
/// empty, everything else is at least 1. The output may be larger than the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AdaptiveShape {
    /// Images.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Input height.
    pub ih: usize,
    /// Input width.
    pub iw: usize,
    /// Output height.
    pub oh: usize,
    /// Output width.
    pub ow: usize,
}

impl AdaptiveShape {
    /// From the input's `[n, c, ih, iw]` to the output's `[oh, ow]`.
    ///
    /// # Errors
    /// [`ShapeError`], for zero sizes and sizes that overflow.
    pub fn new(input: [usize; 4], output: [usize; 2]) -> Result<Self, ShapeError> {
        let ([n, c, ih, iw], [oh, ow]) = (input, output);
        let sizes = [
            ("the number of channels", c),
            ("the input height", ih),
            ("the input width", iw),
            ("the output height", oh),
            ("the output width", ow),
        ];
        if let Some(&(what, _)) = sizes.iter().find(|(_, v)| *v == 0) {
            return Err(ShapeError::Zero { what });
        }
        let block = c.checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX);
        checked_elements("input", &[n, block, ih, iw])?;
        checked_elements("output", &[n, block, oh, ow])?;
        // Regions are found with products of an input and an output extent.
        checked_elements("product of input and output height", &[ih, oh + 1])?;
        checked_elements("product of input and output width", &[iw, ow + 1])?;
        Ok(Self { n, c, ih, iw, oh, ow })
    }

    /// Global average pooling: one output per channel.
    ///
    /// # Errors
    /// As [`AdaptiveShape::new`].
    pub fn global(input: [usize; 4]) -> Result<Self, ShapeError> {
        Self::new(input, [1, 1])
    }

    /// `[n, c, ih, iw]`.
    pub fn input(&self) -> [usize; 4] {
        [self.n, self.c, self.ih, self.iw]
    }

    /// `[n, c, oh, ow]`.
    pub fn output(&self) -> [usize; 4] {
        [self.n, self.c, self.oh, self.ow]
    }
}

/// First input and number of inputs of output `o`.
#[inline(always)]
fn region(o: usize, input: usize, output: usize) -> (usize, usize) {
    let first = o * input / output;
    (first, ((o + 1) * input).div_ceil(output) - first)
}

/// Pixels of a row whose sums over rows are kept, at most.
const WIDE: usize = 1024;

/// Sums of `height` rows that are `apart` from each other.
///
/// # Safety
/// Each row is readable for as many floats as there are sums.
#[inline(always)]
unsafe fn add_rows<I: Isa>(s: I, x: *const f32, apart: usize, height: usize, sums: &mut [f32]) {
    for (k, sums) in sums.chunks_mut(I::LANES).enumerate() {
        let (x, n) = (x.wrapping_add(k * I::LANES), sums.len());
        // SAFETY: the caller vouches for these floats of each row, and n are those of the chunk.
        unsafe {
            let mut sum = s.load_partial(x, n);
            for i in 1..height {
                sum = s.add(sum, s.load_partial(x.add(i * apart), n));
            }
            s.store_partial(sums.as_mut_ptr(), sum, n);
        }
    }
}

pub(super) struct Adaptive;

impl<I: Isa> Kernel<I> for Adaptive {
    type Args = PoolArgs;

    /// # Safety
    /// As [`super::PoolRow::run`] states.
    #[inline(always)]
    unsafe fn run(s: I, a: &PoolArgs) {
        let ([ih, iw], [oh, ow]) = (a.input, a.output);
        // Of planes, where a pixel is one float: rows are added up by vectors, then their pixels.
        let mut sums = [0.0; WIDE];
        for r in 0..a.rows {
            let (unit, oy) = ((a.first + r) / oh, (a.first + r) % oh);
            let (iy, height) = region(oy, ih, oh);
            let from = a.x_apart.start(a.units, unit) + iy * a.x_apart.row;
            let to = a.y_apart.start(a.units, unit) + oy * a.y_apart.row;
            if let (1, Some(sums)) = (a.ch, sums.get_mut(..iw)) {
                // SAFETY: `height` rows from `iy` on are inside the unit, and the unit inside the buffer by the contract.
                unsafe { add_rows(s, a.x.add(from), a.x_apart.row, height, sums) };
                for ox in 0..ow {
                    let (ix, width) = region(ox, iw, ow);
                    let sum: f32 = sums[ix..ix + width].iter().sum();
                    // SAFETY: pixel ox of the row is inside the buffer by the contract.
                    unsafe { a.y.add(to + ox).write(sum / (height * width) as f32) };
                }
                continue;
            }
            for ox in 0..ow {
                let (ix, width) = region(ox, iw, ow);
                let count = s.splat((height * width) as f32);
                let mut channel = 0;
                while channel < a.ch {
                    let lanes = I::LANES.min(a.ch - channel);
                    // SAFETY: the region is inside the unit (its end is at most `input`), and unit and row inside the
                    // buffers by the contract; `lanes` channels from `channel` on are inside the pixel.
                    unsafe {
                        let x = a.x.add(from + ix * a.ch + channel);
                        let sum = if lanes == I::LANES {
                            add::<I, true>(s, x, lanes, [height, width], [a.x_apart.row, a.ch])
                        } else {
                            add::<I, false>(s, x, lanes, [height, width], [a.x_apart.row, a.ch])
                        };
                        s.store_partial(a.y.add(to + ox * a.ch + channel), s.div(sum, count), lanes);
                    }
                    channel += lanes;
                }
            }
        }
    }
}

/// The first `lanes` floats at `p`; `WHOLE` where they are a whole vector.
///
/// # Safety
/// `p` is readable for as many floats.
#[inline(always)]
unsafe fn load<I: Isa, const WHOLE: bool>(s: I, p: *const f32, lanes: usize) -> I::V {
    // SAFETY: the caller vouches for the lanes, which are LANES if WHOLE.
    unsafe { if WHOLE { s.load(p) } else { s.load_partial(p, lanes) } }
}

/// Sum of the vectors at `x + i * pitch[0] + j * pitch[1]`, `i < extent[0]`, `j < extent[1]`: rows first.
///
/// # Safety
/// All of these are readable for `lanes` floats, and the extents are at least 1.
#[inline(always)]
unsafe fn add<I: Isa, const WHOLE: bool>(
    s: I,
    x: *const f32,
    lanes: usize,
    extent: [usize; 2],
    pitch: [usize; 2],
) -> I::V {
    let mut sum = s.zero();
    for i in 0..extent[0] {
        // SAFETY: i and j are below the extents.
        unsafe {
            let row = x.add(i * pitch[0]);
            let mut part = load::<I, WHOLE>(s, row, lanes);
            for j in 1..extent[1] {
                part = s.add(part, load::<I, WHOLE>(s, row.add(j * pitch[1]), lanes));
            }
            sum = if i == 0 { part } else { s.add(sum, part) };
        }
    }
    sum
}
