//! Nearest-neighbour upsampling: every pixel becomes a rectangle of itself.

use swath_kernels::layout::{BLOCK, Layout};
use swath_kernels::shape::{Pair, ShapeError, checked_elements};

use super::four;
use crate::conv::Scratch;
use crate::error::Result;
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Planes, Step};
use crate::graph::{Group, Lower, Operator};
use crate::par;

/// Repeats every pixel: PyTorch's `Upsample(scale_factor=n)` with its default mode `nearest`, for whole factors.
/// `[n, c, h, w]` to `[n, c, h * vertical, w * horizontal]`.
///
/// ```
/// use swath::nn::{Module, Upsample};
/// let mut session = Upsample::new([1, 2]).build(0)?.compile([1, 1, 1, 2])?;
/// assert_eq!(session.run(&[3.0, 7.0])?.as_slice(), [3.0, 3.0, 7.0, 7.0]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Upsample {
    scale: [usize; 2],
}

impl Upsample {
    /// By one factor, or `[vertical, horizontal]`.
    pub fn new(scale: impl Into<Pair>) -> Self {
        Self { scale: scale.into().0 }
    }

    fn forward(&self, input: [usize; 4], layout: Layout) -> Repeat {
        Repeat { scale: self.scale, layout, input }
    }
}

impl Operator for Upsample {
    fn name(&self) -> &'static str {
        "Upsample"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let ([n, c, h, w], [sv, sh]) = (four(self.name(), inputs[0])?, self.scale);
        for (what, s) in [("the vertical factor of Upsample", sv), ("the horizontal factor of Upsample", sh)] {
            if s == 0 {
                return Err(ShapeError::Zero { what }.into());
            }
        }
        let (oh, ow) = (h.saturating_mul(sv), w.saturating_mul(sh));
        checked_elements("upsampled image", &[n, c.saturating_add(BLOCK - 1), oh, ow])?;
        Ok(vec![n, c, oh, ow])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.input(group, 0);
        let (Place { buffer, layout }, dims) = (cx.native(x)?, cx.extents(x));
        let step = self.forward(dims, layout);
        cx.step(group, layout, Box::new(step), vec![buffer], 0)
    }
}

/// An upsampling for given extents; input and output have one layout.
struct Repeat {
    scale: [usize; 2],
    layout: Layout,
    input: [usize; 4],
}

impl Step for Repeat {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let (x, from, [sv, sh]) = (x.get(0), Planes::new(self.layout, self.input), self.scale);
        let from_row = from.w * from.inner;
        let row = from_row * sh;
        par::for_each_piece(y, row, 1, |rows, y| {
            for (r, y) in rows.zip(y.chunks_exact_mut(row)) {
                // Rows of all planes are numbered through, and every one occurs `sv` times.
                let source = &x[r / sv * from_row..][..from_row];
                for (px, y) in source.chunks_exact(from.inner).zip(y.chunks_exact_mut(from.inner * sh)) {
                    y.chunks_exact_mut(from.inner).for_each(|y| y.copy_from_slice(px));
                }
            }
        });
    }

    fn describe(&self) -> String {
        format!("Upsample {}x{}", self.scale[0], self.scale[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::step::tests::run;
    use swath_kernels::layout::reorder;

    #[test]
    fn every_layout_repeats_the_same_pixels() {
        let (dims, up) = ([2, 18, 2, 3], Upsample::new([3, 2]));
        let x: Vec<f32> = (0..2 * 18 * 6).map(|i| i as f32).collect();
        let out = [2, 18, 6, 6];
        let nchw: Vec<f32> = (0..2 * 18 * 36).map(|i| x[i / 36 * 6 + i % 36 / 6 / 3 * 3 + i % 6 / 2]).collect();
        assert_eq!(up.dims(&[&dims]).unwrap(), out);
        for layout in Layout::ALL {
            let (mut xl, mut expected) = (vec![0.0; layout.len(dims)], vec![0.0; layout.len(out)]);
            reorder(Layout::Nchw, &x, layout, &mut xl, dims);
            reorder(Layout::Nchw, &nchw, layout, &mut expected, out);
            assert_eq!(run(&up.forward(dims, layout), &[&xl], layout.len(out)), expected, "{layout:?}");
        }
    }

    #[test]
    fn impossible_factors_are_refused() {
        let text = |up: Upsample| up.dims(&[&[1, 2, 4, 4]]).unwrap_err().to_string();
        assert!(text(Upsample::new([2, 0])).contains("the horizontal factor of Upsample is zero"));
        assert!(text(Upsample::new(usize::MAX)).contains("more than"));
    }
}
