//! Pixel shuffle and unshuffle: channels to pixels and back.

use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::shape::{ShapeError, checked_elements};
use swath_kernels::shuffle::Shuffle;

use super::four;
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Step, pass};
use crate::graph::{Gradient, Group, Lower, Operator};

/// PyTorch's `pixel_shuffle`, `[n, c r r, h, w]` to `[n, c, h r, w r]`, or its inverse, `pixel_unshuffle`. Each is the other's gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelShuffle {
    /// `r`
    pub factor: usize,
    /// From pixels to channels.
    pub inverse: bool,
}

impl PixelShuffle {
    /// The extents with many channels, of an input.
    fn deep(&self, input: &[usize]) -> Result<[usize; 4]> {
        let ([n, c, h, w], r) = (four(self.name(), input)?, self.factor);
        if r == 0 {
            return Err(ShapeError::Zero { what: "the factor of a pixel shuffle" }.into());
        }
        let square = checked_elements("square of the factor", &[r, r])?;
        let whole = |what, value: usize, divisor: usize| match value.is_multiple_of(divisor) {
            true => Ok(value / divisor),
            false => {
                let rule = format!("{} takes a multiple of {divisor}", self.name());
                Err(Error::Setting { what, value: value.to_string(), rule })
            }
        };
        if self.inverse {
            let (h, w) = (whole("the height", h, r)?, whole("the width", w, r)?);
            return Ok([n, c.saturating_mul(square), h, w]);
        }
        whole("the number of channels", c, square)?;
        Ok([n, c, h, w])
    }

    /// The step for a tensor with many channels of extents `deep`.
    pub(super) fn step(&self, layout: Layout, deep: [usize; 4], level: Level) -> Result<ShuffleStep> {
        Ok(ShuffleStep { op: *self, shuffle: Shuffle::new(layout, deep, self.factor)?, level })
    }
}

impl Operator for PixelShuffle {
    fn name(&self) -> &'static str {
        if self.inverse { "PixelUnshuffle" } else { "PixelShuffle" }
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let shuffle = Shuffle::new(Layout::Blocked, self.deep(inputs[0])?, self.factor)?;
        Ok(if self.inverse { shuffle.deep() } else { shuffle.wide() }.to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.input(group, 0);
        let Place { buffer, layout } = cx.native(x)?;
        let step = self.step(layout, self.deep(&cx.fact(x).dims)?, cx.level())?;
        cx.step(group, layout, Box::new(step), vec![buffer], 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let dx = g.push(Self { inverse: !self.inverse, ..*self }, &[g.dy()])?;
        g.add(0, dx[0])
    }
}

pub(super) struct ShuffleStep {
    op: PixelShuffle,
    shuffle: Shuffle,
    level: Level,
}

impl Step for ShuffleStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        pass(self.level, |place| match self.op.inverse {
            false => self.shuffle.to_pixels(place, x.get(0), y),
            true => self.shuffle.to_channels(place, x.get(0), y),
        });
    }

    fn describe(&self) -> String {
        format!("{} by {}", self.op.name(), self.op.factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_divide_is_refused() {
        let text =
            |factor, inverse, dims: &[usize]| PixelShuffle { factor, inverse }.dims(&[dims]).unwrap_err().to_string();
        let shuffled = text(2, false, &[1, 6, 3, 3]);
        assert_eq!(shuffled, "the number of channels is 6, but PixelShuffle takes a multiple of 4");
        assert_eq!(text(2, true, &[1, 6, 4, 3]), "the width is 3, but PixelUnshuffle takes a multiple of 2");
        assert!(text(0, true, &[1, 6, 4, 3]).contains("the factor of a pixel shuffle is zero"));
        assert!(text(usize::MAX, false, &[1, 6, 4, 3]).contains("more than"));
        assert_eq!(PixelShuffle { factor: 3, inverse: true }.dims(&[&[2, 5, 6, 9]]).unwrap(), [2, 45, 2, 3]);
    }
}
