//! Where channels live: NCHW and NHWC at the edges of a model, channel blocks of 16 inside.
//!
//! ```text
//! Nchw     [n][c][h][w]
//! Nhwc     [n][h][w][c]
//! Blocked  [n][ceil(c/16)][h][w][16]     channels beyond c are zero
//! ```
//!
//! Sixteen floats are one cache line, one AVX-512 register, two of AVX2, four of NEON: a pixel of a block is one
//! aligned load, and the pixels of a row are contiguous.

use core::ops::Range;

use thiserror::Error;

/// Channels in a block, on every machine.
pub const BLOCK: usize = 16;

/// Number of blocks that `c` channels fill.
#[inline]
pub const fn blocks(c: usize) -> usize {
    c.div_ceil(BLOCK)
}

/// How the elements of a 4-d activation tensor are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[n][c][h][w]`, PyTorch's contiguous format.
    #[default]
    Nchw,
    /// `[n][h][w][c]`, PyTorch's channels-last format.
    Nhwc,
    /// `[n][c/16][h][w][16]`, the layout inside a model.
    Blocked,
}

/// Distances in floats between neighbours along each axis of an activation tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// From image to image.
    pub n: usize,
    /// From channel block to channel block.
    pub block: usize,
    /// From channel to channel within a block.
    pub channel: usize,
    /// From row to row.
    pub row: usize,
    /// From pixel to pixel within a row.
    pub px: usize,
}

impl Strides {
    /// Floats from the first element to behind the last one of a tensor of the logical extents `[n, c, h, w]`.
    pub(crate) fn reach(&self, layout: Layout, [n, c, h, w]: [usize; 4]) -> usize {
        if n * c * h * w == 0 {
            return 0;
        }
        let last = if layout == Layout::Blocked { BLOCK - 1 } else { (c - 1) % BLOCK };
        let block = (blocks(c) - 1) * self.block + last * self.channel;
        (n - 1) * self.n + block + (h - 1) * self.row + (w - 1) * self.px + 1
    }
}

/// Distances in floats between the rows, channels and images of a tensor that is a part of a larger one, as a framework's strides
/// say. Neighbours within a row are adjacent: pixels in NCHW, channels and then pixels in NHWC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pitches {
    /// From image to image.
    pub image: usize,
    /// From channel to channel; 1 in NHWC.
    pub channel: usize,
    /// From row to row.
    pub row: usize,
}

/// Why a tensor cannot lie so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PitchError {
    /// Neighbours would overlap.
    #[error("{axis} are {pitch} floats apart, but each takes {least}")]
    Overlap {
        /// Rows, channels or images.
        axis: &'static str,
        /// How far they lie apart.
        pitch: usize,
        /// How many floats one takes.
        least: usize,
    },
    /// More than an address space holds.
    #[error("{count} {axis} that are {pitch} floats apart are more than memory can hold")]
    TooLarge {
        /// Rows, channels or images.
        axis: &'static str,
        /// How many there are.
        count: usize,
        /// How far they lie apart.
        pitch: usize,
    },
    /// A layout whose tensors are dense.
    #[error("{layout} tensors are dense: they take no pitches")]
    Dense {
        /// The layout.
        layout: &'static str,
    },
    /// Channels that are not adjacent in NHWC.
    #[error("channels are {pitch} floats apart, but 1 in nhwc")]
    Interleaved {
        /// How far they lie apart.
        pitch: usize,
    },
}

/// How a tensor lies in a slice, from its first float on: dense, or a part of a larger one. No two of its elements are at one place.
///
/// ```
/// use swath_kernels::layout::{Layout, Pitches, View};
/// // A window of 4x5 in images of 3 channels of 10x10.
/// let dims = [2, 3, 4, 5];
/// let view = View::pitched(Layout::Nchw, dims, Pitches { image: 300, channel: 100, row: 10 })?;
/// assert_eq!((view.len(), View::dense(Layout::Nchw, dims).len()), (300 + 200 + 30 + 5, 120));
/// let e = View::pitched(Layout::Nchw, dims, Pitches { image: 300, channel: 100, row: 4 }).unwrap_err();
/// assert_eq!(e.to_string(), "rows are 4 floats apart, but each takes 5");
/// # Ok::<(), swath_kernels::layout::PitchError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    layout: Layout,
    dims: [usize; 4],
    strides: Strides,
}

impl View {
    /// A tensor without gaps, of the logical extents `[n, c, h, w]`.
    pub fn dense(layout: Layout, dims: [usize; 4]) -> Self {
        Self { layout, dims, strides: layout.strides(dims) }
    }

    /// A tensor whose rows, channels and images lie apart. Of an axis of one element the pitch does not matter.
    ///
    /// # Errors
    /// Where neighbours would overlap, and in blocks of channels.
    pub fn pitched(layout: Layout, dims: [usize; 4], p: Pitches) -> Result<Self, PitchError> {
        let [n, c, h, w] = dims;
        let dense = Self::dense(layout, dims);
        if layout == Layout::Blocked {
            return Err(PitchError::Dense { layout: layout.name() });
        }
        if layout == Layout::Nhwc && c > 1 && p.channel != 1 {
            return Err(PitchError::Interleaved { pitch: p.channel });
        }
        if n * c * h * w == 0 {
            return Ok(dense);
        }
        let channels = if layout == Layout::Nchw { c } else { 1 };
        let line = if layout == Layout::Nchw { w } else { w * c };
        let mut strides = dense.strides;
        let mut len = line;
        for (axis, count, pitch) in [("rows", h, p.row), ("channels", channels, p.channel), ("images", n, p.image)] {
            // Of a single one the pitch is any, and of the dense tensor it stays.
            if count == 1 {
                continue;
            }
            if pitch < len {
                return Err(PitchError::Overlap { axis, pitch, least: len });
            }
            len = (count - 1)
                .checked_mul(pitch)
                .and_then(|all| all.checked_add(len))
                .filter(|&len| len <= isize::MAX as usize / (2 * BLOCK * size_of::<f32>()))
                .ok_or(PitchError::TooLarge { axis, count, pitch })?;
            match axis {
                "rows" => strides.row = pitch,
                "channels" => (strides.channel, strides.block) = (pitch, BLOCK * pitch),
                _ => strides.n = pitch,
            }
        }
        Ok(Self { layout, dims, strides })
    }

    /// Floats from the first element to behind the last one.
    pub fn len(&self) -> usize {
        self.strides.reach(self.layout, self.dims)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is nothing between its elements.
    pub fn is_dense(&self) -> bool {
        self.len() == self.layout.len(self.dims)
    }

    /// Its logical extents `[n, c, h, w]`.
    pub fn dims(&self) -> [usize; 4] {
        self.dims
    }

    /// The order of its elements.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Floats `range` of the tensor without its gaps: where they lie in `x`, if they follow each other there, else a copy.
    pub(crate) fn floats<'a>(&self, x: &'a [f32], range: Range<usize>, copy: &'a mut [f32]) -> &'a [f32] {
        let [_, c, h, w] = self.dims;
        // What has no gaps: rows in NCHW, of all channels in NHWC, everything in blocks.
        let (line, channels) = match self.layout {
            Layout::Nchw => (w, c),
            Layout::Nhwc => (w * c, 1),
            Layout::Blocked => return &x[range],
        };
        if range.is_empty() {
            return &[];
        }
        let place = |at: usize| {
            let (row, s) = (at / line, &self.strides);
            row / h / channels * s.n + row / h % channels * s.channel + row % h * s.row + at % line
        };
        let (first, last) = (place(range.start), place(range.end - 1));
        if last - first == range.len() - 1 {
            return &x[first..=last];
        }
        let mut at = range.start;
        while at < range.end {
            let len = (line - at % line).min(range.end - at);
            copy[at - range.start..][..len].copy_from_slice(&x[place(at)..][..len]);
            at += len;
        }
        &copy[..range.len()]
    }

    /// Its distances, if it has these extents.
    ///
    /// # Panics
    /// If it has others.
    #[track_caller]
    pub(crate) fn strides_of(&self, dims: [usize; 4]) -> Strides {
        assert_eq!(self.dims, dims, "extents of a view");
        self.strides
    }
}

impl Layout {
    /// All layouts.
    pub const ALL: [Layout; 3] = [Layout::Nchw, Layout::Nhwc, Layout::Blocked];

    /// Floats in a tensor of the logical extents `[n, c, h, w]`.
    pub fn len(self, [n, c, h, w]: [usize; 4]) -> usize {
        let c = if self == Layout::Blocked { blocks(c) * BLOCK } else { c };
        n * c * h * w
    }

    /// Distances between neighbours in a tensor of the logical extents `[n, c, h, w]`.
    pub fn strides(self, dims: [usize; 4]) -> Strides {
        let [_, c, h, w] = dims;
        let n = self.len([1, c, h, w]);
        match self {
            Layout::Nchw => Strides { n, block: BLOCK * h * w, channel: h * w, row: w, px: 1 },
            Layout::Nhwc => Strides { n, block: BLOCK, channel: 1, row: w * c, px: c },
            Layout::Blocked => Strides { n, block: BLOCK * h * w, channel: 1, row: BLOCK * w, px: BLOCK },
        }
    }

    /// The name that the program prints.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::Nchw => "nchw",
            Layout::Nhwc => "nhwc",
            Layout::Blocked => "blocked",
        }
    }
}

/// Copies `x` in layout `from` to `y` in layout `to`; channels that pad the last block become zero.
///
/// In plain loops, as tests want it. [`reorder::reorder`](crate::reorder::reorder) does the same, vectorised and on threads.
///
/// # Panics
/// If a slice's length is not what the layout and `dims = [n, c, h, w]` say.
///
/// ```
/// use swath_kernels::layout::{Layout, reorder};
/// let dims = [1, 2, 1, 3];
/// let mut nhwc = [0.0; 6];
/// reorder(Layout::Nchw, &[1.0, 2.0, 3.0, 10.0, 20.0, 30.0], Layout::Nhwc, &mut nhwc, dims);
/// assert_eq!(nhwc, [1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
/// ```
pub fn reorder(from: Layout, x: &[f32], to: Layout, y: &mut [f32], dims: [usize; 4]) {
    assert_eq!(x.len(), from.len(dims), "source length for {dims:?}");
    assert_eq!(y.len(), to.len(dims), "destination length for {dims:?}");
    if from == to {
        return y.copy_from_slice(x);
    }
    let [n, c, h, w] = dims;
    let (s, d) = (from.strides(dims), to.strides(dims));
    if to == Layout::Blocked && !c.is_multiple_of(BLOCK) {
        y.fill(0.0);
    }
    for i in 0..n {
        for b in 0..blocks(c) {
            let channels = BLOCK.min(c - b * BLOCK);
            for r in 0..h {
                let (src, dst) = (i * s.n + b * s.block + r * s.row, i * d.n + b * d.block + r * d.row);
                for p in 0..w {
                    for k in 0..channels {
                        y[dst + p * d.px + k * d.channel] = x[src + p * s.px + k * s.channel];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reorder_round_trips() {
        let dims = [2, 19, 3, 5];
        let x: Vec<f32> = (0..Layout::Nchw.len(dims)).map(|i| i as f32).collect();
        for a in Layout::ALL {
            let mut ya = vec![f32::NAN; a.len(dims)];
            reorder(Layout::Nchw, &x, a, &mut ya, dims);
            for b in Layout::ALL {
                let (mut yb, mut back) = (vec![f32::NAN; b.len(dims)], vec![f32::NAN; x.len()]);
                reorder(a, &ya, b, &mut yb, dims);
                reorder(b, &yb, Layout::Nchw, &mut back, dims);
                assert_eq!(back, x, "{a:?} to {b:?}");
            }
        }
    }
}
