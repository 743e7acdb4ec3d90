//! Other sizes.

use super::{Error, Random, Rect, Result, Sample, Transform, check_pixels, move_boxes};

/// torchvision's `Resize` with antialiasing: bilinear, and where it shrinks a mean over all pixels that fall into one,
/// weighted by a triangle. Masks take the nearest pixel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resize([usize; 2]);

impl Resize {
    /// Squares of `size` pixels.
    pub fn new(size: usize) -> Self {
        Self([size, size])
    }

    /// This height and width.
    pub fn of(size: [usize; 2]) -> Self {
        Self(size)
    }
}

impl Transform for Resize {
    fn apply(&self, sample: &mut Sample, _: &mut Random) -> Result<()> {
        check_pixels("Resize", sample)?;
        let ([channels, h, w], [oh, ow]) = (sample.picture.size, self.0);
        const LARGEST: usize = 1 << 16;
        if !(1..=LARGEST).contains(&oh) || !(1..=LARGEST).contains(&ow) {
            let rule = format!("a height and a width are 1 to {LARGEST}");
            return Err(Error::Setting { what: "the size", value: format!("{oh}x{ow}"), rule });
        }
        if [oh, ow] == [h, w] {
            return Ok(());
        }
        let (rows, columns) = (Weights::new(h, oh), Weights::new(w, ow));
        let mut out = core::mem::take(&mut sample.scratch);
        out.clear();
        let mut lines = vec![0.0; h * ow];
        for plane in sample.picture.planes() {
            for (line, to) in plane.chunks(w).zip(lines.chunks_mut(ow)) {
                to.iter_mut().zip(columns.iter()).for_each(|(to, (first, weights))| {
                    *to = weights.iter().zip(&line[first..]).map(|(w, v)| w * v).sum();
                });
            }
            for (first, weights) in rows.iter() {
                let at = out.len();
                out.resize(at + ow, 0.0);
                for (weight, line) in weights.iter().zip(lines[first * ow..].chunks(ow)) {
                    out[at..].iter_mut().zip(line).for_each(|(to, v)| *to += weight * v);
                }
            }
        }
        if !sample.mask.is_empty() {
            let nearest = |to: usize, from: usize, all: usize| ((2 * to + 1) * from / (2 * all)).min(from - 1);
            let mask = core::mem::take(&mut sample.mask);
            let pixels = (0..oh * ow).map(|i| mask[nearest(i / ow, h, oh) * w + nearest(i % ow, w, ow)]);
            sample.mask = pixels.collect();
        }
        sample.picture.size = [channels, oh, ow];
        sample.scratch = core::mem::replace(&mut sample.picture.values, out);
        let (x, y) = (ow as f32 / w as f32, oh as f32 / h as f32);
        move_boxes(sample, |b| Rect::new(b.left * x, b.top * y, b.right * x, b.bottom * y));
        Ok(())
    }
}

/// For each output pixel of a line the first input pixel that counts, and the weights from there on, which add to 1.
struct Weights {
    first: Vec<usize>,
    /// As many for each as any has, zeros at the end.
    weights: Vec<f32>,
    taps: usize,
}

impl Weights {
    fn new(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        // Half the base of the triangle: a pixel of the input where it grows, one of the output where it shrinks.
        let support = scale.max(1.0);
        let taps = (2.0 * support).ceil() as usize + 1;
        let mut all = Self { first: Vec::with_capacity(to), weights: Vec::with_capacity(to * taps), taps };
        for i in 0..to {
            let centre = (i as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).floor().max(0.0) as usize;
            let end = ((centre + support + 0.5).floor() as usize).clamp(first + 1, from.max(first + 1));
            let weight = |j: usize| (1.0 - ((j as f64 + 0.5 - centre) / support).abs()).max(0.0);
            let sum: f64 = (first..end).map(weight).sum();
            all.first.push(first.min(from - 1));
            all.weights.extend((first..first + taps).map(|j| if j < end { (weight(j) / sum) as f32 } else { 0.0 }));
        }
        all
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.first.iter().copied().zip(self.weights.chunks(self.taps))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test::{applied, assert_together, counted};
    use super::*;
    use crate::data::Picture;

    fn resized(size: [usize; 3], values: &[f32], to: [usize; 2]) -> Vec<f32> {
        let s = Sample { picture: Picture { size, values: values.to_vec() }, ..Sample::default() };
        applied(&Resize::of(to), &s, 1)[0].picture.values.clone()
    }

    fn assert_close(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len());
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-5), "{got:?} for {want:?}");
    }

    #[test]
    fn growing_is_bilinear_and_shrinking_takes_all_pixels() {
        // PyTorch: interpolate(mode="bilinear", antialias=True, align_corners=False).
        assert_close(&resized([1, 1, 2], &[0.0, 1.0], [1, 4]), &[0.0, 0.25, 0.75, 1.0]);
        assert_close(&resized([1, 1, 4], &[0.0, 1.0, 2.0, 3.0], [1, 2]), &[5.0 / 7.0, 16.0 / 7.0]);
        assert_close(&resized([1, 2, 2], &[1.0, 2.0, 3.0, 4.0], [1, 1]), &[2.5]);
        assert_close(&resized([2, 1, 1], &[0.3, 0.7], [2, 2]), &[0.3, 0.3, 0.3, 0.3, 0.7, 0.7, 0.7, 0.7]);
    }

    #[test]
    fn a_flat_picture_stays_flat_at_any_size() {
        for (h, w, oh, ow) in [(3, 7, 11, 2), (50, 1, 7, 3), (5, 5, 4, 6), (1, 1, 3, 3), (100, 33, 1, 1)] {
            let values = resized([1, h, w], &vec![0.25; h * w], [oh, ow]);
            assert_close(&values, &vec![0.25; oh * ow]);
        }
    }

    #[test]
    fn masks_and_boxes_follow() {
        let s = counted(2, 3, Rect::new(1.0, 0.0, 3.0, 1.0));
        let r = &applied(&Resize::of([4, 6]), &s, 1)[0];
        assert_eq!(r.mask[..12], [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]);
        assert_eq!(r.boxes[0].rect, Rect::new(2.0, 0.0, 6.0, 2.0));
        let same = &applied(&Resize::of([2, 3]), &s, 1)[0];
        assert_together(same);
        let mut s = s;
        assert!(Resize::new(0).apply(&mut s, &mut Random::new(&[])).is_err());
    }
}
