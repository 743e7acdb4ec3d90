use super::{Axis, ConvShape, MAX_ELEMENTS, Padding, Pair, ShapeError, positive};
use crate::setters;

/// The geometry of a 2-d transposed convolution, checked, with PyTorch's meanings.
///
/// Input `[n, ic, ih, iw]`, weights `[ic, oc / groups, kh, kw]`, output `[n, oc, oh, ow]`, with
///
/// ```text
/// oh = (ih - 1) * stride - padding before - padding after + dilation * (kh - 1) + output padding + 1
/// ```
///
/// It is the data gradient of a convolution, [`ConvTransposeShape::convolution`], from its output to its input. So its
/// own data gradient is that convolution, and its weight gradient that of the convolution with input and gradient
/// exchanged.
///
/// ```
/// use swath_kernels::shape::ConvTransposeShape;
/// let s = ConvTransposeShape::builder([1, 64, 7, 7], [64, 32, 3, 3]).stride(2).padding(1).output_padding(1).build()?;
/// assert_eq!(s.output(), [1, 32, 14, 14]);
/// assert_eq!((s.convolution().input(), s.convolution().output()), (s.output(), s.input()));
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvTransposeShape(ConvShape);

/// Collects a transposed convolution's options; see [`ConvTransposeShape::builder`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct ConvTransposeShapeBuilder {
    input: [usize; 4],
    weights: [usize; 4],
    stride: Pair,
    dilation: Pair,
    padding: Padding,
    output_padding: Pair,
    groups: usize,
}

impl Axis {
    /// Extent of the output, of which `extra` were added, and the padding after it with which the convolution back gives the input's
    /// extent.
    fn transposed(&self, extra: usize) -> Result<(usize, usize), ShapeError> {
        let limit = self.stride.max(self.dilation);
        if extra >= limit {
            return Err(ShapeError::OutputPadding { axis: self.name, padding: extra, limit });
        }
        let overflow = ShapeError::Overflow { what: "padded output", limit: MAX_ELEMENTS };
        let full = || {
            let steps = (self.input - 1).checked_mul(self.stride)?;
            let reach = self.dilation.checked_mul(self.kernel - 1)?;
            steps.checked_add(reach)?.checked_add(extra)?.checked_add(1).filter(|&v| v <= MAX_ELEMENTS)
        };
        let full = full().ok_or(overflow)?;
        let padding = self.before.checked_add(self.after).filter(|&v| v <= MAX_ELEMENTS).ok_or(overflow)?;
        let Some(output) = full.checked_sub(padding).filter(|&v| v > 0) else {
            return Err(ShapeError::NoOutput { axis: self.name, padding, full });
        };
        // The convolution has as many outputs as long as less than a stride is left over behind its last window.
        let after = if extra < self.stride { self.after } else { self.after.saturating_sub(extra) };
        if extra - (self.after - after) >= self.stride {
            let limit = self.stride + self.after;
            return Err(ShapeError::OutputPadding { axis: self.name, padding: extra, limit });
        }
        Ok((output, after))
    }
}

impl ConvTransposeShape {
    /// Starts from the input's `[n, ic, ih, iw]` and the weights' `[ic, oc / groups, kh, kw]`, with stride 1, no
    /// padding, dilation 1 and one group.
    pub fn builder(input: [usize; 4], weights: [usize; 4]) -> ConvTransposeShapeBuilder {
        let (stride, dilation, padding, output_padding) = (Pair::ONE, Pair::ONE, Padding::default(), Pair([0; 2]));
        ConvTransposeShapeBuilder { input, weights, stride, dilation, padding, output_padding, groups: 1 }
    }

    /// `[n, ic, ih, iw]`.
    pub fn input(&self) -> [usize; 4] {
        self.0.output()
    }

    /// `[ic, oc / groups, kh, kw]`.
    pub fn weights(&self) -> [usize; 4] {
        self.0.weights()
    }

    /// `[n, oc, oh, ow]`.
    pub fn output(&self) -> [usize; 4] {
        self.0.input()
    }

    /// The convolution whose data gradient this is: from this one's output to its input, with the same weights.
    pub fn convolution(&self) -> &ConvShape {
        &self.0
    }
}

setters!(ConvTransposeShapeBuilder {
    /// Step between the windows that inputs write: one number, or `[vertical, horizontal]`. Default 1.
    stride: impl Into<Pair>,
    /// Step between taps: one number, or `[vertical, horizontal]`. Default 1, adjacent taps.
    dilation: impl Into<Pair>,
    /// What is cut off the output: one number, `[vertical, horizontal]`, or `[top, left, bottom, right]`. Default 0.
    padding: impl Into<Padding>,
    /// What is added to the output at the bottom and at the right: less than the stride or the dilation. Default 0.
    output_padding: impl Into<Pair>,
    /// Number of groups. Default 1.
    groups: usize,
});

impl ConvTransposeShapeBuilder {
    /// Checks everything and computes the output's size.
    ///
    /// # Errors
    /// [`ShapeError`], for zero sizes, channels that disagree, groups that do not divide, output padding of a stride or
    /// more, padding that leaves no output, and sizes that overflow.
    pub fn build(self) -> Result<ConvTransposeShape, ShapeError> {
        let ([n, ic, ih, iw], [wic, ocg, kh, kw]) = (self.input, self.weights);
        let Self { stride, dilation, padding: pad, groups, output_padding: Pair([below, beside]), .. } = self;
        positive(&[("the weights' number of output channels", ocg), ("the number of groups", groups)])?;
        let kernel = [("the kernel height", kh), ("the kernel width", kw)];
        let [vertical, horizontal] = Axis::both([ih, iw], kernel, stride, dilation, pad)?;
        if wic != ic {
            return Err(ShapeError::Channels { input: ic, expected: wic, per_group: wic / groups, groups });
        }
        let ((oh, bottom), (ow, right)) = (vertical.transposed(below)?, horizontal.transposed(beside)?);
        let conv = ConvShape::builder([n, ocg.saturating_mul(groups), oh, ow], [ic, ocg, kh, kw])
            .stride(stride)
            .dilation(dilation)
            .padding(Padding { bottom, right, ..pad })
            .groups(groups)
            .build()?;
        debug_assert_eq!(conv.output(), self.input);
        Ok(ConvTransposeShape(conv))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_follow_pytorch_and_convolve_back() {
        let t = |size: usize, k: usize| ConvTransposeShape::builder([1, 4, size, size], [4, 6, k, k]);
        for (shape, size) in [
            (t(7, 2).stride(2), 14),
            (t(5, 3).stride(2).padding(1).output_padding(1), 10),
            (t(4, 4).stride(2).padding(1), 8),
            (t(6, 3).padding(1).dilation(2), 8),
            (t(5, 3).stride(3).output_padding(2), 17),
            (t(3, 3).stride(2).dilation(5).padding(2).output_padding(3), 14),
            (t(3, 3).dilation(3).padding([1, 1, 4, 4]).output_padding(2), 6),
        ] {
            let shape = shape.build().unwrap();
            assert_eq!(shape.output(), [1, 6, size, size], "{shape:?}");
            assert_eq!(shape.convolution().output(), shape.input(), "{shape:?}");
        }
    }

    #[test]
    fn refusals_carry_both_numbers() {
        let t = || ConvTransposeShape::builder([1, 4, 3, 3], [4, 6, 3, 3]);
        let text = |r: ConvTransposeShapeBuilder| r.build().unwrap_err().to_string();
        assert!(text(t().stride(2).output_padding(2)).contains("output padding is 2, but must be less than 2"));
        assert!(text(t().padding(3)).contains("padding of 6 leaves nothing of the 5 outputs"));
        assert!(text(t().groups(3)).contains("3 groups do not divide 4"));
        assert!(text(t().stride(usize::MAX / 2)).contains("more than"));
        // Behind the last window a whole stride would be left over: no convolution leads back.
        assert!(text(t().dilation(4).output_padding(3)).contains("output padding is 3, but must be less than 1"));
    }
}
