//! Slices: some adjacent elements along a dimension.

use swath_kernels::layout::{BLOCK, Layout, blocks};

use super::axis;
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::step::{Operands, Planes, Step, clear_padding};
use crate::graph::{Gradient, Group, Lower, Operator, ValueId};
use crate::par;

/// Elements `start .. start + len` along a dimension: PyTorch's `narrow`.
///
/// ```
/// use swath::{Value, graph::ops::Slice, nn::Module};
/// let middle = |x: &Value| Ok(x.push(Slice { dim: -1, start: 1, len: 2 }, &[x]));
/// assert_eq!(middle.build(0)?.compile([1, 4])?.run(&[1.0, 2.0, 3.0, 4.0])?.as_slice(), [2.0, 3.0]);
/// let e = middle.build(0)?.compile([1, 2]).unwrap_err();
/// assert_eq!(e.to_string(), "the end of a slice is 3, but dimension 1 has 2 elements");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The dimension; -1 is the last.
    pub dim: isize,
    /// The first element.
    pub start: usize,
    /// How many; at least 1.
    pub len: usize,
}

impl Slice {
    fn axis(&self, rank: usize) -> Result<usize> {
        axis("the dimension of a slice", self.dim, rank)
    }

    /// As the dimension lies in a value of extents `dims`; the value in that order.
    fn along(&self, cx: &mut Lower<'_>, dims: &[usize], v: ValueId) -> Result<(Along, Layout, usize)> {
        let at = self.axis(dims.len())?;
        let mut layout = if dims.len() == 4 { cx.native(v)?.layout } else { Layout::Nchw };
        if at == 1 && layout == Layout::Blocked && !self.start.is_multiple_of(BLOCK) {
            // Blocks of the result would be made of parts of two.
            layout = Layout::Nchw;
        }
        Ok((Along::new(layout, dims, at, self), layout, cx.want(v, layout)?))
    }
}

impl Operator for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let mut dims = inputs[0].to_vec();
        let at = self.axis(dims.len())?;
        let end = self.start.saturating_add(self.len);
        let refused = |what, value: usize, rule| Err(Error::Setting { what, value: value.to_string(), rule });
        if end > dims[at] {
            return refused("the end of a slice", end, format!("dimension {at} has {} elements", dims[at]));
        }
        if self.len == 0 {
            return refused("the length of a slice", 0, "it must be at least 1".into());
        }
        dims[at] = self.len;
        Ok(dims)
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.input(group, 0);
        let dims = cx.fact(x).dims.clone();
        let (along, layout, buffer) = self.along(cx, &dims, x)?;
        let step = SliceStep { along, layout, dims: cx.extents(group.value) };
        cx.step(group, layout, Box::new(step), vec![buffer], 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let input = g.fact(g.input(0)).dims.clone();
        let dx = g.push(SliceGradient { slice: *self, input }, &[g.dy()])?;
        g.add(0, dx[0])
    }
}

/// Zeros, with the gradient at the output in their midst.
#[derive(Clone, Debug)]
struct SliceGradient {
    slice: Slice,
    input: Vec<usize>,
}

impl Operator for SliceGradient {
    fn name(&self) -> &'static str {
        "SliceGradient"
    }

    fn dims(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.input.clone())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let dy = cx.input(group, 0);
        let (along, layout, buffer) = self.slice.along(cx, &self.input, dy)?;
        cx.step(group, layout, Box::new(GradientStep(along)), vec![buffer], 0)
    }
}

/// A value as `[outer][extent][inner]`, the sliced dimension in the middle, of which `len` elements from `start` on are meant.
struct Along {
    extent: usize,
    inner: usize,
    start: usize,
    len: usize,
}

impl Along {
    fn new(layout: Layout, dims: &[usize], at: usize, slice: &Slice) -> Self {
        let (start, len) = (slice.start, slice.len);
        let Ok(four) = <[usize; 4]>::try_from(dims) else {
            return Self { extent: dims[at], inner: dims[at + 1..].iter().product(), start, len };
        };
        let ([n, c, h, w], planes) = (four, Planes::new(layout, four));
        let [extent, inner] = match at {
            0 => [n, layout.len([1, c, h, w])],
            1 if layout == Layout::Blocked => [blocks(c), h * w * BLOCK],
            1 => [c, if layout == Layout::Nhwc { 1 } else { h * w }],
            2 => [h, w * planes.inner],
            _ => [w, planes.inner],
        };
        if at == 1 && layout == Layout::Blocked {
            return Self { extent, inner, start: start / BLOCK, len: blocks(len) };
        }
        Self { extent, inner, start, len }
    }
}

struct SliceStep {
    along: Along,
    layout: Layout,
    /// Of the result.
    dims: [usize; 4],
}

impl Step for SliceStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let (x, Along { extent, inner, start, len }) = (x.get(0), &self.along);
        let row = len * inner;
        par::for_each_piece(y, row, 1, |rows, y| {
            for (r, y) in rows.zip(y.chunks_exact_mut(row.max(1))) {
                y.copy_from_slice(&x[(r * extent + start) * inner..][..row]);
            }
        });
        // The last block may have had more channels.
        clear_padding(self.layout, self.dims, y);
    }

    fn describe(&self) -> String {
        format!("Slice of {} from {}", self.along.len, self.along.start)
    }
}

struct GradientStep(Along);

impl Step for GradientStep {
    fn run(&self, x: &Operands<'_>, dx: &mut [f32], _: bool, _: &mut Scratch) {
        let (dy, Along { extent, inner, start, len }) = (x.get(0), &self.0);
        let (whole, first, row) = (extent * inner, start * inner, len * inner);
        par::for_each_piece(dx, whole, 1, |all, dx| {
            for (i, dx) in all.zip(dx.chunks_exact_mut(whole.max(1))) {
                dx[..first].fill(0.0);
                dx[first..first + row].copy_from_slice(&dy[i * row..][..row]);
                dx[first + row..].fill(0.0);
            }
        });
    }

    fn describe(&self) -> String {
        format!("Slice of {} from {} gradient", self.0.len, self.0.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::step::tests::run;
    use swath_kernels::layout::reorder;

    /// Every element tells where it is.
    #[test]
    fn every_dimension_in_every_layout() {
        let from = [3, 37, 4, 5];
        let x: Vec<f32> = (0..3 * 37 * 4 * 5).map(|i| i as f32 + 1.0).collect();
        for (at, start, len) in [(0, 1, 2), (1, 16, 16), (1, 16, 21), (1, 0, 3), (2, 1, 2), (3, 4, 1), (3, 0, 5)] {
            let slice = Slice { dim: at as isize, start, len };
            let to: [usize; 4] = slice.dims(&[&from]).unwrap().try_into().unwrap();
            let (outer, inner) = (from[..at].iter().product::<usize>(), from[at + 1..].iter().product::<usize>());
            let rows = (0..outer).flat_map(|o| &x[(o * from[at] + start) * inner..][..len * inner]);
            let nchw: Vec<f32> = rows.copied().collect();
            for layout in Layout::ALL {
                let laid = |values: &[f32], dims| {
                    let mut y = vec![0.0; layout.len(dims)];
                    reorder(Layout::Nchw, values, layout, &mut y, dims);
                    y
                };
                let along = || Along::new(layout, &from, at, &slice);
                let step = SliceStep { along: along(), layout, dims: to };
                let y = run(&step, &[&laid(&x, from)], layout.len(to));
                assert_eq!(y, laid(&nchw, to), "{slice:?} {layout:?}");
                // Of the gradient, what is inside comes back, and all else is zero.
                let dx = run(&GradientStep(along()), &[&y], layout.len(from));
                assert_eq!(run(&step, &[&dx], y.len()), y, "{slice:?} {layout:?}");
                assert_eq!(dx.iter().filter(|v| **v != 0.0).count(), nchw.len(), "{slice:?} {layout:?}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let text = |dim, start, len| Slice { dim, start, len }.dims(&[&[2, 3]]).unwrap_err().to_string();
        assert_eq!(text(1, 2, 2), "the end of a slice is 4, but dimension 1 has 3 elements");
        assert_eq!(text(2, 0, 1), "the dimension of a slice is 2, but there are 2 dimensions");
        assert_eq!(text(-2, 1, 0), "the length of a slice is 0, but it must be at least 1");
        assert!(text(0, usize::MAX, 2).contains("dimension 0 has 2"));
    }
}
