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
