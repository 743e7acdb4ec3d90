//! Other sizes.

use super::{Error, Random, Rect, Result, Sample, Transform, check_pixels, move_boxes};
use crate::data::Picture;

/// How values between pixels are found, and how those that become one are weighted: PIL's and PyTorch's filters with antialiasing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Filter {
    /// A triangle of two pixels.
    #[default]
    Bilinear,
    /// Cubics over four pixels (Keys 1981, a = -0.5). It overshoots at edges: values are cut to 0 to 1.
    Bicubic,
}

impl Filter {
    /// How far from its centre a pixel counts.
    fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Filter::Bilinear => (1.0 - x).max(0.0),
            Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Filter::Bicubic => 0.0,
        }
    }
}

/// torchvision's `Resize` with antialiasing: bilinear by default, and where it shrinks a mean over all pixels that fall into one, weighted
/// by the stretched filter. Masks take the nearest pixel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resize {
    size: [usize; 2],
    filter: Filter,
}

impl Resize {
    /// Squares of `size` pixels.
    pub fn new(size: usize) -> Self {
        Self::of([size, size])
    }

    /// This height and width.
    pub fn of(size: [usize; 2]) -> Self {
        Self { size, filter: Filter::default() }
    }

    /// With another filter.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// A picture of that size.
    ///
    /// # Errors
    /// If the picture has no pixels, or the size is none of a picture.
    pub fn of_picture(&self, picture: &Picture) -> Result<Picture> {
        let mut sample = Sample { picture: picture.clone(), ..Sample::default() };
        self.apply(&mut sample, &mut Random::new(&[]))?;
        Ok(sample.picture)
    }
}

impl Transform for Resize {
    fn apply(&self, sample: &mut Sample, _: &mut Random) -> Result<()> {
        check_pixels("Resize", sample)?;
        let ([channels, h, w], [oh, ow]) = (sample.picture.size, self.size);
        const LARGEST: usize = 1 << 16;
        if !(1..=LARGEST).contains(&oh) || !(1..=LARGEST).contains(&ow) {
            let rule = format!("a height and a width are 1 to {LARGEST}");
            return Err(Error::Setting { what: "the size", value: format!("{oh}x{ow}"), rule });
        }
        if [oh, ow] == [h, w] {
            return Ok(());
        }
        let (rows, columns) = (Weights::new(self.filter, h, oh), Weights::new(self.filter, w, ow));
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
        if self.filter == Filter::Bicubic {
            out.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
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
    fn new(filter: Filter, from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        // The filter's unit: a pixel of the input where it grows, one of the output where it shrinks.
        let unit = scale.max(1.0);
        let support = filter.support() * unit;
        let taps = (2.0 * support).ceil() as usize + 1;
        let mut all = Self { first: Vec::with_capacity(to), weights: Vec::with_capacity(to * taps), taps };
        for i in 0..to {
            let centre = (i as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).floor().max(0.0) as usize;
            let end = ((centre + support + 0.5).floor() as usize).clamp(first + 1, from.max(first + 1));
            let weight = |j: usize| filter.weight((j as f64 + 0.5 - centre) / unit);
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
    fn sizes_are_those_of_pil_and_pytorch() {
        // Pillow 13.0's `resize` in mode F, cut to 0..1; PyTorch 2's `interpolate` with `antialias=True` gives the same to 3e-7.
        let x: Vec<f32> =
            (0..35).map(|i| ((i / 7 * 31 + i % 7 * 17 + i / 7 * (i % 7) * 7) % 23) as f32 / 22.0).collect();
        #[rustfmt::skip]
        let expected: [(Filter, [usize; 2], &[f32]); 6] = [
            (Filter::Bilinear, [3, 4], &[0.368893, 0.469610, 0.648831, 0.603896, 0.397787, 0.419596, 0.410303, 0.638769, 0.371367, 0.323117, 0.311169, 0.388374]),
            (Filter::Bilinear, [2, 3], &[0.405992, 0.494409, 0.607586, 0.385478, 0.341031, 0.459711]),
            (Filter::Bilinear, [4, 9], &[0.090909, 0.484848, 0.595960, 0.445707, 0.295455, 0.755050, 0.779040, 0.628788, 0.500000, 0.515152, 0.343434, 0.336700, 0.475168, 0.613636, 0.413300, 0.454966, 0.593434, 0.712121, 0.329545, 0.405303, 0.416246, 0.369108, 0.321970, 0.410354, 0.401936, 0.558081, 0.924242, 0.318182, 0.409091, 0.398990, 0.301768, 0.204545, 0.310606, 0.271465, 0.261364, 0.352273]),
            (Filter::Bicubic, [3, 4], &[0.369445, 0.471648, 0.658788, 0.606655, 0.391838, 0.422128, 0.395714, 0.668654, 0.381458, 0.317284, 0.289672, 0.390947]),
            (Filter::Bicubic, [2, 3], &[0.398360, 0.508173, 0.627902, 0.383341, 0.322521, 0.450839]),
            (Filter::Bicubic, [4, 9], &[0.017830, 0.522973, 0.683044, 0.425513, 0.264550, 0.831577, 0.860040, 0.618577, 0.468546, 0.571637, 0.310129, 0.276974, 0.498011, 0.659181, 0.369040, 0.416946, 0.609009, 0.709542, 0.312317, 0.415805, 0.435482, 0.359578, 0.306063, 0.421331, 0.365472, 0.555120, 0.996332, 0.297401, 0.425619, 0.424943, 0.286692, 0.181157, 0.322256, 0.263647, 0.225019, 0.313826]),
        ];
        for (filter, to, values) in expected {
            let picture = Picture { size: [1, 5, 7], values: x.clone() };
            assert_close(&Resize::of(to).filter(filter).of_picture(&picture).unwrap().values, values);
        }
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
