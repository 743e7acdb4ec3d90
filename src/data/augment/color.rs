//! Random changes of brightness, contrast, saturation and hue.

use super::{Random, Result, Sample, Transform, check_interval, check_pixels};

/// torchvision's `ColorJitter`, for values from 0 to 1: each property that is given changes by a random factor (hue by a
/// random angle), in random order. Pictures that are not of three channels keep their saturation and hue.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ColorJitter {
    brightness: Option<[f32; 2]>,
    contrast: Option<[f32; 2]>,
    saturation: Option<[f32; 2]>,
    hue: Option<[f32; 2]>,
}

impl ColorJitter {
    /// That changes nothing so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Times a factor of `1 - amount` (at least 0) to `1 + amount`.
    pub fn brightness(mut self, amount: f32) -> Self {
        self.brightness = Some(around(amount));
        self
    }

    /// Away from or towards the mean grey, by a factor of `1 - amount` (at least 0) to `1 + amount`.
    pub fn contrast(mut self, amount: f32) -> Self {
        self.contrast = Some(around(amount));
        self
    }

    /// Away from or towards the pixel's grey, by a factor of `1 - amount` (at least 0) to `1 + amount`.
    pub fn saturation(mut self, amount: f32) -> Self {
        self.saturation = Some(around(amount));
        self
    }

    /// Around the colour wheel by `-amount` to `amount` of a turn, at most 0.5.
    pub fn hue(mut self, amount: f32) -> Self {
        self.hue = Some([-amount, amount]);
        self
    }
}

fn around(amount: f32) -> [f32; 2] {
    [(1.0 - amount).max(0.0), 1.0 + amount]
}

impl Transform for ColorJitter {
    fn apply(&self, sample: &mut Sample, random: &mut Random) -> Result<()> {
        check_pixels("ColorJitter", sample)?;
        check_interval("brightness", self.brightness.unwrap_or_default(), 0.0)?;
        check_interval("contrast", self.contrast.unwrap_or_default(), 0.0)?;
        check_interval("saturation", self.saturation.unwrap_or_default(), 0.0)?;
        check_interval("hue", self.hue.unwrap_or_default(), -0.5)?;
        for change in random.permutation(4) {
            let range = [self.brightness, self.contrast, self.saturation, self.hue][change];
            let Some([low, high]) = range else { continue };
            let by = random.range(low, high);
            match change {
                0 => blend(&mut sample.picture.values, by, |_| 0.0),
                1 => {
                    let mean = mean_grey(sample);
                    blend(&mut sample.picture.values, by, |_| mean);
                }
                2 => saturate(sample, by),
                _ => turn(sample, by),
            }
        }
        Ok(())
    }
}

/// `by` of the value, and `1 - by` of another one, within 0 to 1.
fn blend(values: &mut [f32], by: f32, other: impl Fn(usize) -> f32) {
    for (i, v) in values.iter_mut().enumerate() {
        *v = (by * *v + (1.0 - by) * other(i)).clamp(0.0, 1.0);
    }
}

/// The three planes of a picture in colour.
fn planes(sample: &mut Sample) -> Option<[&mut [f32]; 3]> {
    let [channels, h, w] = sample.picture.size;
    if channels != 3 {
        return None;
    }
    let (red, rest) = sample.picture.values.split_at_mut(h * w);
    let (green, blue) = rest.split_at_mut(h * w);
    Some([red, green, blue])
}

/// Luma by the weights of ITU-R 601, as in torchvision.
fn grey(red: f32, green: f32, blue: f32) -> f32 {
    0.2989 * red + 0.587 * green + 0.114 * blue
}

fn mean_grey(sample: &mut Sample) -> f32 {
    let mean = |values: &mut dyn ExactSizeIterator<Item = f32>| {
        let n = values.len() as f64;
        (values.map(f64::from).sum::<f64>() / n) as f32
    };
    match planes(sample) {
        Some([r, g, b]) => mean(&mut (0..r.len()).map(|i| grey(r[i], g[i], b[i]))),
        None => mean(&mut sample.picture.values.iter().copied()),
    }
}

fn saturate(sample: &mut Sample, by: f32) {
    let Some([red, green, blue]) = planes(sample) else { return };
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        let grey = grey(*r, *g, *b);
        for v in [r, g, b] {
            *v = (by * *v + (1.0 - by) * grey).clamp(0.0, 1.0);
        }
    }
}

/// Turns the hue of each pixel by a part of the colour wheel, through HSV.
fn turn(sample: &mut Sample, by: f32) {
    let Some([red, green, blue]) = planes(sample) else { return };
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        let [h, s, v] = to_hsv([*r, *g, *b]);
        [*r, *g, *b] = to_rgb([(h + by).rem_euclid(1.0), s, v]);
    }
}

fn to_hsv([r, g, b]: [f32; 3]) -> [f32; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    let span = most - least;
    if span <= 0.0 {
        return [0.0, 0.0, most];
    }
    let sixth = match most {
        m if m == r => (g - b) / span,
        m if m == g => 2.0 + (b - r) / span,
        _ => 4.0 + (r - g) / span,
    };
    [(sixth / 6.0).rem_euclid(1.0), span / most, most]
}

fn to_rgb([h, s, v]: [f32; 3]) -> [f32; 3] {
    let sixth = h * 6.0;
    let part = sixth.fract();
    let (p, q, t) = (v * (1.0 - s), v * (1.0 - s * part), v * (1.0 - s * (1.0 - part)));
    match sixth as u32 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}

#[cfg(test)]
mod tests {
    use super::super::test::applied;
    use super::*;
    use crate::data::Picture;

    fn picture() -> Sample {
        let values = vec![0.1, 0.5, 0.9, 0.3, 0.4, 0.2, 0.7, 0.1, 0.8, 0.6, 0.0, 1.0];
        Sample { picture: Picture { size: [3, 2, 2], values }, ..Sample::default() }
    }

    fn close(a: &[f32], b: &[f32]) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
    }

    #[test]
    fn hue_goes_around_and_colours_survive() {
        for rgb in [[0.1, 0.5, 0.9], [0.9, 0.1, 0.1], [0.3, 0.3, 0.3], [0.0, 0.0, 0.0], [0.2, 0.9, 0.4]] {
            assert!(close(&to_rgb(to_hsv(rgb)), &rgb), "{rgb:?}");
        }
        let mut s = Sample { picture: Picture { size: [3, 1, 1], values: vec![1.0, 0.0, 0.0] }, ..Sample::default() };
        turn(&mut s, 1.0 / 3.0);
        assert!(close(&s.picture.values, &[0.0, 1.0, 0.0]));
    }

    #[test]
    fn each_property_changes_as_it_says() {
        let s = picture();
        for c in applied(&ColorJitter::new().brightness(0.5), &s, 50) {
            let by = c.picture.values[0] / s.picture.values[0];
            assert!((0.5..=1.5).contains(&by));
            let want: Vec<f32> = s.picture.values.iter().map(|v| (v * by).min(1.0)).collect();
            assert!(close(&c.picture.values, &want));
        }
        // Without saturation all channels are the grey.
        let mut c = s.clone();
        saturate(&mut c, 0.0);
        assert!(close(&c.picture.values[..4], &c.picture.values[8..]));
        assert!((c.picture.values[0] - grey(0.1, 0.4, 0.8)).abs() < 1e-6);
        // Contrast keeps the mean grey where nothing is cut off.
        let mean = mean_grey(&mut c.clone());
        let mut flat = c.clone();
        blend(&mut flat.picture.values, 0.5, |_| mean);
        assert!((mean_grey(&mut flat) - mean).abs() < 1e-3);
    }

    #[test]
    fn values_stay_within_0_and_1_and_grey_pictures_work() {
        let all = ColorJitter::new().brightness(0.9).contrast(0.9).saturation(0.9).hue(0.5);
        let changed = applied(&all, &picture(), 100);
        assert!(changed.iter().flat_map(|c| &c.picture.values).all(|v| (-1e-6..=1.0 + 1e-6).contains(v)));
        assert!(changed[0] != changed[1]);
        let mut grey = Sample { picture: Picture::filled([1, 2, 2], 0.5), ..Sample::default() };
        all.apply(&mut grey, &mut Random::new(&[1])).unwrap();
        assert!(ColorJitter::new().hue(0.7).apply(&mut grey, &mut Random::new(&[1])).is_err());
        assert!(applied(&ColorJitter::new(), &picture(), 3).iter().all(|c| *c == picture()));
    }
}
