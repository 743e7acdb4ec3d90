//! Parts of pictures.

use super::{Error, Random, Result, Sample, Transform, check_pixels, window};

/// What lies around a picture that is padded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PaddingMode {
    /// This value.
    Constant(f32),
    /// The picture mirrored at the centres of its outermost pixels. Padding must be smaller than the picture.
    Reflect,
}

/// torchvision's `RandomCrop`: a part at a random place, of the picture with a border around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomCrop {
    size: [usize; 2],
    padding: usize,
    mode: PaddingMode,
}

impl RandomCrop {
    /// Squares of `size` pixels.
    pub fn new(size: usize) -> Self {
        Self::of([size, size])
    }

    /// Parts of this height and width.
    pub fn of(size: [usize; 2]) -> Self {
        Self { size, padding: 0, mode: PaddingMode::Constant(0.0) }
    }

    /// Pixels of border on each side, 0 by default.
    pub fn padding(mut self, padding: usize) -> Self {
        self.padding = padding;
        self
    }

    /// What the border is, zeros by default.
    pub fn padding_mode(mut self, mode: PaddingMode) -> Self {
        self.mode = mode;
        self
    }
}

impl Transform for RandomCrop {
    fn apply(&self, sample: &mut Sample, random: &mut Random) -> Result<()> {
        check_pixels("RandomCrop", sample)?;
        let [_, h, w] = sample.picture.size;
        let Self { size: [oh, ow], padding, mode } = *self;
        let padded = [h, w].map(|e| e.saturating_add(padding.saturating_mul(2)));
        if oh > padded[0] || ow > padded[1] || padding > isize::MAX as usize / 4 {
            let (left, right) = (vec![oh, ow], padded.to_vec());
            return Err(Error::Shapes { what: "a crop and its padded picture", left, right });
        }
        if mode == PaddingMode::Reflect && padding >= h.min(w) {
            let rule = format!("it is smaller than a picture that is reflected, here of {h}x{w}");
            return Err(Error::Setting { what: "padding", value: padding.to_string(), rule });
        }
        let top = random.below(padded[0] - oh + 1) as isize - padding as isize;
        let left = random.below(padded[1] - ow + 1) as isize - padding as isize;
        match mode {
            PaddingMode::Constant(fill) => window(sample, (top, left), self.size, fill, inside),
            PaddingMode::Reflect => window(sample, (top, left), self.size, 0.0, |i, n| Some(reflected(i, n))),
        }
        Ok(())
    }
}

/// torchvision's `CenterCrop`: the middle of a picture, with zeros around it where it is smaller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CenterCrop([usize; 2]);

impl CenterCrop {
    /// A square of `size` pixels.
    pub fn new(size: usize) -> Self {
        Self([size, size])
    }

    /// A part of this height and width.
    pub fn of(size: [usize; 2]) -> Self {
        Self(size)
    }
}

impl Transform for CenterCrop {
    fn apply(&self, sample: &mut Sample, _: &mut Random) -> Result<()> {
        check_pixels("CenterCrop", sample)?;
        let [_, h, w] = sample.picture.size;
        let middle = |whole: usize, part: usize| (whole as isize - part as isize).div_euclid(2);
        window(sample, (middle(h, self.0[0]), middle(w, self.0[1])), self.0, 0.0, inside);
        Ok(())
    }
}

fn inside(at: isize, n: usize) -> Option<usize> {
    usize::try_from(at).ok().filter(|&at| at < n)
}

fn reflected(at: isize, n: usize) -> usize {
    let at = at.unsigned_abs();
    if at < n { at } else { 2 * (n - 1) - at }
}

#[cfg(test)]
mod tests {
    use super::super::test::{applied, assert_together, counted};
    use super::*;
    use crate::data::UNLABELLED;
    use crate::rect::Rect;

    #[test]
    fn crops_are_parts_of_the_padded_picture() {
        let s = counted(4, 5, Rect::new(0.0, 0.0, 2.0, 2.0));
        let mut places = std::collections::HashSet::new();
        for c in applied(&RandomCrop::of([3, 4]).padding(2), &s, 400) {
            assert_eq!(c.picture.size, [2, 3, 4]);
            assert_together(&c);
            places.insert(c.mask.clone());
            // The box is where its pixel 0 is.
            if let Some(at) = c.mask.iter().position(|&m| m == 0) {
                let rect = c.boxes[0].rect;
                assert_eq!([rect.left, rect.top], [(at % 4) as f32, (at / 4) as f32]);
            }
        }
        assert_eq!(places.len(), 6 * 6);
    }

    #[test]
    fn borders_are_filled_or_reflected() {
        let s = counted(3, 3, Rect::new(0.0, 0.0, 3.0, 3.0));
        let whole = RandomCrop::new(7).padding(2);
        let c = &applied(&whole.padding_mode(PaddingMode::Reflect), &s, 1)[0];
        assert_together(c);
        assert_eq!(c.mask[..7], [8, 7, 6, 7, 8, 7, 6]);
        assert_eq!(c.boxes[0].rect, Rect::new(2.0, 2.0, 5.0, 5.0));
        let c = &applied(&whole.padding_mode(PaddingMode::Constant(0.5)), &s, 1)[0];
        assert!(c.picture.values[..14].iter().all(|&v| v == 0.5) && c.mask[..14].iter().all(|&m| m == UNLABELLED));
    }

    #[test]
    fn boxes_that_are_cut_off_go() {
        let s = counted(4, 4, Rect::new(3.0, 3.0, 4.0, 4.0));
        for c in applied(&RandomCrop::new(3), &s, 50) {
            assert_eq!(c.boxes.len(), usize::from(c.mask.contains(&15)));
        }
    }

    #[test]
    fn the_middle() {
        let s = counted(4, 6, Rect::new(1.0, 1.0, 5.0, 3.0));
        let c = &applied(&CenterCrop::new(2), &s, 1)[0];
        assert_eq!((c.mask.as_slice(), c.boxes[0].rect), (&[8, 9, 14, 15][..], Rect::new(0.0, 0.0, 2.0, 2.0)));
        let c = &applied(&CenterCrop::of([6, 6]), &s, 1)[0];
        assert_eq!((c.mask[5], c.mask[6], c.mask[29]), (UNLABELLED, 0, 23));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut s = counted(3, 3, Rect::default());
        let mut text = |t: RandomCrop| t.apply(&mut s, &mut Random::new(&[])).unwrap_err().to_string();
        assert!(text(RandomCrop::new(6).padding(1)).contains("[6, 6] and [5, 5]"));
        assert!(text(RandomCrop::new(3).padding(3).padding_mode(PaddingMode::Reflect)).contains("3x3"));
        assert!(text(RandomCrop::new(3).padding(usize::MAX)).contains("crop"));
    }
}
