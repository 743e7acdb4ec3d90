//! Mirror images.

use super::{Random, Rect, Result, Sample, Transform, move_boxes};

/// torchvision's `RandomHorizontalFlip`: left and right change places with some probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomHorizontalFlip(f32);

impl RandomHorizontalFlip {
    /// With this probability; 0.5 is usual.
    pub fn new(p: f32) -> Self {
        Self(p)
    }
}

impl Transform for RandomHorizontalFlip {
    fn apply(&self, sample: &mut Sample, random: &mut Random) -> Result<()> {
        let width = sample.picture.size[2];
        if random.chance(self.0) && width > 0 {
            sample.picture.values.chunks_mut(width).for_each(<[f32]>::reverse);
            sample.mask.chunks_mut(width).for_each(<[u8]>::reverse);
            let w = width as f32;
            move_boxes(sample, |b| Rect::new(w - b.right, b.top, w - b.left, b.bottom));
        }
        Ok(())
    }
}

/// torchvision's `RandomVerticalFlip`: top and bottom change places with some probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomVerticalFlip(f32);

impl RandomVerticalFlip {
    /// With this probability; 0.5 is usual.
    pub fn new(p: f32) -> Self {
        Self(p)
    }
}

impl Transform for RandomVerticalFlip {
    fn apply(&self, sample: &mut Sample, random: &mut Random) -> Result<()> {
        let [_, height, width] = sample.picture.size;
        if random.chance(self.0) {
            sample.picture.planes_mut().for_each(|plane| upside_down(plane, height, width));
            if !sample.mask.is_empty() {
                upside_down(&mut sample.mask, height, width);
            }
            let h = height as f32;
            move_boxes(sample, |b| Rect::new(b.left, h - b.bottom, b.right, h - b.top));
        }
        Ok(())
    }
}

fn upside_down<T>(plane: &mut [T], height: usize, width: usize) {
    for y in 0..height / 2 {
        let (above, below) = plane.split_at_mut((height - 1 - y) * width);
        above[y * width..(y + 1) * width].swap_with_slice(&mut below[..width]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::test::{applied, assert_together, counted};
    use super::*;

    #[test]
    fn picture_mask_and_boxes_flip_together() {
        let s = counted(3, 4, Rect::new(0.0, 1.0, 2.0, 3.0));
        let across = &applied(&RandomHorizontalFlip::new(1.0), &s, 1)[0];
        assert_together(across);
        assert_eq!(across.mask[..4], [3, 2, 1, 0]);
        assert_eq!(across.boxes[0].rect, Rect::new(2.0, 1.0, 4.0, 3.0));
        let down = &applied(&RandomVerticalFlip::new(1.0), &s, 1)[0];
        assert_together(down);
        assert_eq!(down.mask, [8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3]);
        assert_eq!(down.boxes[0].rect, Rect::new(0.0, 0.0, 2.0, 2.0));
    }

    #[test]
    fn about_half_of_them() {
        let s = counted(2, 2, Rect::new(0.0, 0.0, 1.0, 1.0));
        let flipped = |t: &dyn Transform| applied(t, &s, 400).iter().filter(|f| **f != s).count();
        assert!((150..250).contains(&flipped(&RandomHorizontalFlip::new(0.5))));
        assert_eq!(flipped(&RandomVerticalFlip::new(0.0)), 0);
    }
}
