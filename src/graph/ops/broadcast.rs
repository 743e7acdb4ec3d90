//! Values that are repeated to the extents of others: along extents of 1, and along missing outer ones, as in NumPy.

use swath_kernels::layout::{BLOCK, Layout, blocks};

use crate::error::{Error, Result};
use crate::par;

/// The extents that two values are repeated to.
pub(crate) fn broadcast(what: &'static str, a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |d: &[usize], i: usize| if i + d.len() >= rank { d[i + d.len() - rank] } else { 1 };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(Error::Shapes { what, left: a.to_vec(), right: b.to_vec() }),
        })
        .collect()
}

/// Extents of a tensor as it lies: of a blocked one `[n, c / 16, h, w, 16]`.
fn physical(dims: &[usize], layout: Layout) -> Vec<usize> {
    match (layout, dims) {
        (Layout::Blocked, &[n, c, h, w]) => vec![n, blocks(c), h, w, BLOCK],
        (Layout::Nhwc, &[n, c, h, w]) => vec![n, h, w, c],
        _ => dims.to_vec(),
    }
}

/// Distances in floats along the [`physical`] extents of the result, in an operand of extents `of`: 0 where it is repeated.
fn strides(of: &[usize], dims: &[usize], layout: Layout) -> Vec<usize> {
    let mut padded = vec![1; dims.len() - of.len()];
    padded.extend(of);
    let extents = physical(&padded, layout);
    let mut strides = vec![0; extents.len()];
    let mut step = 1;
    for (i, &e) in extents.iter().enumerate().rev() {
        // A single channel lies in the first lane of its block.
        let repeated = e == 1 || layout == Layout::Blocked && matches!(i, 1 | 4) && padded[1] == 1;
        strides[i] = if repeated { 0 } else { step };
        step *= e;
    }
    strides
}

/// The elements of two values, each repeated to the extents of a result.
pub(super) struct Pairs {
    /// Extents of the result as it lies.
    extents: Vec<usize>,
    /// Strides of the values along them.
    views: [Vec<usize>; 2],
}

impl Pairs {
    /// Of values of the extents `of`, in a layout.
    pub fn new(of: [&[usize]; 2], dims: &[usize], layout: Layout) -> Self {
        Self { extents: physical(dims, layout), views: of.map(|of| strides(of, dims, layout)) }
    }

    /// `y = f(a, b)`.
    pub fn apply(&self, a: &[f32], b: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32 + Copy + Sync) {
        let row = self.extents.last().copied().unwrap_or(1);
        if row > 0 {
            par::for_each_piece(y, row, 1, |rows, y| self.rows(rows.start, a, b, y, f));
        }
    }

    /// Computes rows of the innermost extent, from row `first` on.
    fn rows(&self, first: usize, a: &[f32], b: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32 + Copy) {
        let rank = self.extents.len();
        let row = self.extents.last().copied().unwrap_or(1);
        let inner = [self.views[0].last().copied().unwrap_or(0), self.views[1].last().copied().unwrap_or(0)];
        for (i, y) in y.chunks_mut(row).enumerate() {
            let mut rest = first + i;
            let mut at = [0; 2];
            for axis in (0..rank.saturating_sub(1)).rev() {
                let k = rest % self.extents[axis];
                rest /= self.extents[axis];
                (0..2).for_each(|o| at[o] += k * self.views[o][axis]);
            }
            let (a, b) = (&a[at[0]..], &b[at[1]..]);
            match inner {
                [0, 0] => y.fill(f(a[0], b[0])),
                [0, _] => y.iter_mut().zip(b).for_each(|(y, b)| *y = f(a[0], *b)),
                [_, 0] => y.iter_mut().zip(a).for_each(|(y, a)| *y = f(*a, b[0])),
                _ => y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| *y = f(*a, *b)),
            }
        }
    }
}
