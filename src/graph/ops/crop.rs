//! Cropping: a rectangle out of every image.

use swath_kernels::layout::Layout;
use swath_kernels::resample::PadMode;
use swath_kernels::shape::{Padding, Pair};

use super::{Pad, four};
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Planes, Step};
use crate::graph::{Gradient, Group, Lower, Operator};
use crate::par;

/// Takes margins off: `x[:, :, top:-bottom, left:-right]`, which PyTorch also spells as a negative `ZeroPad2d`.
/// `[n, c, h, w]` to `[n, c, h - top - bottom, w - left - right]`; at least one pixel must be left.
///
/// ```
/// use swath::nn::{Crop, Module};
/// let crop = Crop::new([0, 1, 0, 2]).build(0)?;
/// assert_eq!(crop.compile([1, 1, 1, 4])?.run(&[1.0, 2.0, 3.0, 4.0])?.as_slice(), [2.0]);
/// let e = crop.compile([1, 1, 1, 3]).unwrap_err();
/// assert_eq!(e.to_string(), "the margin along the width is 1 + 2, but an image of 3 has to keep a pixel");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Crop(Cut);

/// Takes the middle, of a given size: torchvision's `CenterCrop`, except that a smaller image is an error and not padded.
/// `[n, c, h, w]` to `[n, c, height, width]`. Where what is left over is odd, the first margin is half of it rounded to
/// the even number, as in torchvision.
///
/// ```
/// use swath::nn::{CenterCrop, Module};
/// let mut session = CenterCrop::new([1, 2]).build(0)?.compile([1, 1, 1, 4])?;
/// assert_eq!(session.run(&[1.0, 2.0, 3.0, 4.0])?.as_slice(), [2.0, 3.0]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct CenterCrop(Cut);

/// What is cut away.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// So many pixels from each side.
    Margins(Padding),
    /// All but a rectangle of this height and width in the middle.
    Centre([usize; 2]),
}

impl Crop {
    /// Margins: one number for all sides, `[vertical, horizontal]` or `[top, left, bottom, right]`.
    pub fn new(margins: impl Into<Padding>) -> Self {
        Self(Cut::Margins(margins.into()))
    }

    pub(crate) fn op(self) -> Cut {
        self.0
    }
}

impl CenterCrop {
    /// To one extent, or `[height, width]`.
    pub fn new(size: impl Into<Pair>) -> Self {
        Self(Cut::Centre(size.into().0))
    }

    pub(crate) fn op(self) -> Cut {
        self.0
    }
}

impl Cut {
    /// First pixel and number of pixels along an axis (0 is the height) of `size`.
    pub(crate) fn span(self, axis: usize, size: usize) -> Result<[usize; 2]> {
        match self {
            Cut::Margins(p) => {
                let (before, after) = [(p.top, p.bottom), (p.left, p.right)][axis];
                let left = size.checked_sub(before).and_then(|v| v.checked_sub(after)).filter(|&v| v > 0);
                left.map(|v| [before, v]).ok_or_else(|| Error::Setting {
                    what: ["the margin along the height", "the margin along the width"][axis],
                    value: format!("{before} + {after}"),
                    rule: format!("an image of {size} has to keep a pixel"),
                })
            }
            Cut::Centre(to) => match size.checked_sub(to[axis]) {
                Some(rest) if to[axis] > 0 => Ok([(rest / 2 + usize::from(rest % 4 == 3)), to[axis]]),
                _ => Err(Error::Setting {
                    what: ["the height of CenterCrop", "the width of CenterCrop"][axis],
                    value: to[axis].to_string(),
                    rule: format!("the image has {size}, and it has to be between 1 and that"),
                }),
            },
        }
    }

    fn forward(self, input: [usize; 4], layout: Layout) -> Result<Rectangle> {
        let [n, c, h, w] = input;
        let ([top, oh], [left, ow]) = (self.span(0, h)?, self.span(1, w)?);
        let to = Planes::new(layout, [n, c, oh, ow]);
        Ok(Rectangle { from: Planes::new(layout, input), to, top, left })
    }
}

impl Operator for Cut {
    fn name(&self) -> &'static str {
        match self {
            Cut::Margins(_) => "Crop",
            Cut::Centre(_) => "CenterCrop",
        }
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let [n, c, h, w] = four(self.name(), inputs[0])?;
        Ok(vec![n, c, self.span(0, h)?[1], self.span(1, w)?[1]])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.input(group, 0);
        let (Place { buffer, layout }, dims) = (cx.native(x)?, cx.extents(x));
        let step = (*self).forward(dims, layout)?;
        cx.step(group, layout, Box::new(step), vec![buffer], 0)
    }

    /// Zeros where the margins were.
    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let [_, _, h, w] = four(self.name(), &g.fact(g.input(0)).dims)?;
        let ([top, oh], [left, ow]) = (self.span(0, h)?, self.span(1, w)?);
        let pad = Padding { top, left, bottom: h - top - oh, right: w - left - ow };
        let dx = g.push(Pad { mode: PadMode::Constant(0.0), pad }, &[g.dy()])?;
        g.add(0, dx[0])
    }
}

/// A crop for given extents; input and output have one layout.
struct Rectangle {
    from: Planes,
    to: Planes,
    top: usize,
    left: usize,
}

impl Step for Rectangle {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let (x, from, to) = (x.get(0), self.from, self.to);
        let row = to.w * to.inner;
        par::for_each_piece(y, row, 1, |rows, y| {
            for (r, y) in rows.zip(y.chunks_exact_mut(row)) {
                let (plane, r) = (r / to.h, r % to.h);
                let at = ((plane * from.h + self.top + r) * from.w + self.left) * from.inner;
                y.copy_from_slice(&x[at..at + row]);
            }
        });
    }

    fn describe(&self) -> String {
        format!("Crop to {}x{} at {},{}", self.to.h, self.to.w, self.top, self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::step::tests::run;
    use swath_kernels::layout::reorder;

    #[test]
    fn every_layout_keeps_the_same_pixels() {
        let (dims, out) = ([2, 18, 5, 4], [2, 18, 2, 3]);
        let x: Vec<f32> = (0..2 * 18 * 20).map(|i| i as f32).collect();
        let nchw: Vec<f32> = (0..2 * 18 * 6).map(|i| x[i / 6 * 20 + (i % 6 / 3 + 2) * 4 + i % 3 + 1]).collect();
        let cut = Crop::new([2, 1, 1, 0]).op();
        assert_eq!(cut.dims(&[&dims]).unwrap(), out);
        for layout in Layout::ALL {
            let (mut xl, mut expected) = (vec![0.0; layout.len(dims)], vec![0.0; layout.len(out)]);
            reorder(Layout::Nchw, &x, layout, &mut xl, dims);
            reorder(Layout::Nchw, &nchw, layout, &mut expected, out);
            let step = cut.forward(dims, layout).unwrap();
            assert_eq!(run(&step, &[&xl], layout.len(out)), expected, "{layout:?}");
        }
    }

    #[test]
    fn the_centre_is_torchvisions() {
        // int(round((size - crop) / 2)), where Python rounds halves to even: 0, 0, 1, 2, 2, 2, 3, 4.
        let first: Vec<usize> = (3..11).map(|size| CenterCrop::new(3).op().span(0, size).unwrap()[0]).collect();
        assert_eq!(first, [0, 0, 1, 2, 2, 2, 3, 4]);
        let text = |crop: CenterCrop| crop.op().dims(&[&[1, 2, 4, 5]]).unwrap_err().to_string();
        assert!(text(CenterCrop::new([5, 1])).contains("the height of CenterCrop is 5, but the image has 4"));
        assert!(text(CenterCrop::new([4, 0])).contains("the width of CenterCrop is 0"));
    }

    #[test]
    fn margins_that_leave_nothing_are_refused() {
        let text = |m: [usize; 4]| Crop::new(m).op().dims(&[&[1, 2, 4, 5]]).unwrap_err().to_string();
        assert!(text([2, 0, 2, 0]).contains("along the height is 2 + 2, but an image of 4"));
        assert!(text([0, usize::MAX, 0, 1]).contains("an image of 5"));
    }
}
