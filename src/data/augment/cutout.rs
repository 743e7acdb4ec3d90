//! Squares that are left out (DeVries and Taylor 2017).

use swath_kernels::setters;

use super::{Error, Random, Result, Sample, Transform, check_pixels};

/// Fills a square around a random pixel, cut at the picture's edges. Boxes and masks stay: what is hidden is still there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cutout {
    size: usize,
    probability: f32,
    fill: f32,
}

impl Cutout {
    /// Squares of `size` pixels, always, of zeros.
    pub fn new(size: usize) -> Self {
        Self { size, probability: 1.0, fill: 0.0 }
    }
}

setters!(Cutout {
    /// How probable one is, 1 by default.
    probability: f32,
    /// The value in it, 0 by default.
    fill: f32,
});

impl Transform for Cutout {
    fn apply(&self, sample: &mut Sample, random: &mut Random) -> Result<()> {
        check_pixels("Cutout", sample)?;
        if self.size == 0 {
            let rule = "it must be at least 1".into();
            return Err(Error::Setting { what: "the size of a cutout", value: "0".into(), rule });
        }
        if !random.chance(self.probability) {
            return Ok(());
        }
        let [_, h, w] = sample.picture.size;
        let mut stretch = |n: usize| {
            let first = random.below(n) as isize - (self.size.min(2 * n) / 2) as isize;
            let end = first + self.size.min(4 * n) as isize;
            (first.max(0) as usize, (end.max(0) as usize).min(n))
        };
        let ((top, bottom), (left, right)) = (stretch(h), stretch(w));
        for plane in sample.picture.planes_mut() {
            plane[top * w..bottom * w].chunks_mut(w).for_each(|row| row[left..right].fill(self.fill));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test::{applied, counted};
    use super::*;
    use crate::rect::Rect;

    #[test]
    fn a_square_around_a_pixel_is_filled() {
        let s = counted(6, 7, Rect::new(0.0, 0.0, 6.0, 6.0));
        let mut sizes = std::collections::HashSet::new();
        for c in applied(&Cutout::new(3).fill(-1.0), &s, 200) {
            let filled: Vec<usize> = (0..42).filter(|&i| c.picture.values[i] == -1.0).collect();
            let (rows, columns) =
                (filled[filled.len() - 1] / 7 - filled[0] / 7 + 1, filled[filled.len() - 1] % 7 - filled[0] % 7 + 1);
            assert_eq!(rows * columns, filled.len());
            assert!(filled.iter().all(|&i| c.picture.values[42 + i] == -1.0));
            sizes.insert([rows, columns]);
            assert_eq!((&c.mask, &c.boxes), (&s.mask, &s.boxes));
        }
        assert_eq!(sizes, std::collections::HashSet::from([[3, 3], [2, 3], [3, 2], [2, 2]]));
        assert!(applied(&Cutout::new(3).probability(0.0), &s, 20).iter().all(|c| *c == s));
        assert!(applied(&Cutout::new(usize::MAX), &s, 1)[0].picture.values.iter().all(|&v| v == 0.0));
    }
}
