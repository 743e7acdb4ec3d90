//! PReLU: `y = x` where positive, else `w x` with a slope for each channel, or one.

use super::{Arith, Operand};
use crate::isa::Isa;
use crate::layout::Layout;
use crate::pass::{Map, Place, Sum, Vector};
use crate::shape::ShapeError;

/// PReLU of a tensor, forward and backward. At 0 the gradient is the slope's, as PyTorch's.
///
/// ```
/// use swath_kernels::{arith::PRelu, isa::Cpu, layout::Layout, pass::Place};
/// let prelu = PRelu::new(Layout::Nchw, [1, 2, 1, 2], 2)?;
/// let (place, mut scratch) = (Place::inline(Cpu::detect().level), vec![0.0; prelu.scratch()]);
/// let (x, w) = ([1.0, -2.0, -3.0, 4.0], [0.5, 0.1]);
/// let (mut y, mut dx, mut dw) = ([0.0; 4], [0.0; 4], [0.0; 2]);
/// prelu.forward(&place, &x, &w, &mut y, &mut scratch);
/// assert_eq!(y, [1.0, -1.0, -0.3, 4.0]);
/// prelu.backward(&place, [&x, &w, &[1.0; 4]], Some(&mut dx), Some(&mut dw), &mut scratch);
/// assert_eq!((dx, dw), ([1.0, 0.5, 0.1, 1.0], [-2.0, -3.0]));
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PRelu {
    arith: Arith,
}

#[derive(Clone, Copy)]
struct Slope;

impl Map<1, 1, 1> for Slope {
    #[inline(always)]
    fn value<I: Isa>(self, [x]: [Vector<I>; 1], [w]: [Vector<I>; 1]) -> [Vector<I>; 1] {
        [x.all(0.0).where_less(x, x, w * x)]
    }
}

impl Map<2, 1, 1> for Slope {
    #[inline(always)]
    fn value<I: Isa>(self, [x, dy]: [Vector<I>; 2], [w]: [Vector<I>; 1]) -> [Vector<I>; 1] {
        [x.all(0.0).where_less(x, dy, w * dy)]
    }
}

impl Sum<2, 0, 1> for Slope {
    #[inline(always)]
    fn terms<I: Isa>(self, [x, dy]: [Vector<I>; 2], _: [Vector<I>; 0]) -> [Vector<I>; 1] {
        [x.all(0.0).where_less(x, x.all(0.0), dy * x)]
    }
}

impl PRelu {
    /// Of a tensor of the logical extents `dims`, with so many slopes: as many as channels, or 1.
    ///
    /// # Errors
    /// If the number of slopes is neither, or there are too many elements.
    pub fn new(layout: Layout, dims: [usize; 4], slopes: usize) -> Result<Self, ShapeError> {
        if slopes != 1 && slopes != dims[1] {
            return Err(ShapeError::Channels { input: dims[1], expected: slopes, per_group: slopes, groups: 1 });
        }
        let operand = if slopes == dims[1] { Operand::Channels } else { Operand::Scalar };
        Ok(Self { arith: Arith::new(layout, dims, operand)? })
    }

    /// Floats of scratch that either pass needs.
    pub fn scratch(&self) -> usize {
        self.arith.scratch()
    }

    /// `y = x` where positive, else `w x`.
    ///
    /// # Panics
    /// If a length is not what the extents say.
    pub fn forward(&self, place: &Place<'_>, x: &[f32], w: &[f32], y: &mut [f32], scratch: &mut [f32]) {
        self.arith.check(&[x, y], w, scratch);
        let w = self.arith.parameters(w, 0.0, |w| w, scratch);
        self.arith.map(place, Slope, [x], [w], y);
    }

    /// Gradients at `x` and `w`, those that are wanted, from `[x, w, dy]`.
    ///
    /// # Panics
    /// If a length is not what the extents say.
    pub fn backward(
        &self,
        place: &Place<'_>,
        [x, w, dy]: [&[f32]; 3],
        dx: Option<&mut [f32]>,
        dw: Option<&mut [f32]>,
        scratch: &mut [f32],
    ) {
        self.arith.check(&[x, dy], w, scratch);
        if let Some(dx) = dx {
            self.arith.check(&[dx], w, scratch);
            let w = self.arith.parameters(w, 0.0, |w| w, scratch);
            self.arith.map(place, Slope, [x, dy], [w], dx);
        }
        if let Some(dw) = dw {
            self.arith.check(&[], dw, scratch);
            let sums = &mut scratch[..self.arith.slices.sums()];
            self.arith.slices.sum(place, self.arith.slices.all(), Slope, [x, dy], [], [&mut *sums]);
            self.arith.totals(sums, dw, |total, _| total);
        }
    }
}
