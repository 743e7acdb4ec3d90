//! Values of mean 0 and deviation 1.

use super::{Error, Random, Result, Sample, Transform};

/// torchvision's `Normalize`: `(value - mean) / std`, channel by channel. The last transformation, since others expect
/// values from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalize {
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl Normalize {
    /// With a mean and a deviation for each channel, or one of each for all.
    pub fn new(mean: impl Into<Vec<f32>>, std: impl Into<Vec<f32>>) -> Self {
        Self { mean: mean.into(), std: std.into() }
    }
}

impl Transform for Normalize {
    fn apply(&self, sample: &mut Sample, _: &mut Random) -> Result<()> {
        let channels = sample.picture.size[0];
        for (what, values) in [("means", &self.mean), ("deviations", &self.std)] {
            if values.len() != 1 && values.len() != channels {
                let rule = format!("the picture has {channels} channels");
                return Err(Error::Setting { what, value: format!("{values:?}"), rule });
            }
        }
        if let Some(std) = self.std.iter().find(|s| !s.is_finite() || **s <= 0.0) {
            let rule = "it must be a finite number above 0".into();
            return Err(Error::Setting { what: "a deviation", value: std.to_string(), rule });
        }
        let of = |values: &[f32], c: usize| values[c.min(values.len() - 1)];
        for (c, plane) in sample.picture.planes_mut().enumerate() {
            let (mean, std) = (of(&self.mean, c), of(&self.std, c));
            plane.iter_mut().for_each(|v| *v = (*v - mean) / std);
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
    fn channel_by_channel() {
        let s = counted(1, 2, Rect::default());
        let n = &applied(&Normalize::new([1.0, 100.0], [2.0]), &s, 1)[0];
        assert_eq!(n.picture.values, [-0.5, 0.0, 0.0, 0.5]);
        let mut s = s;
        let mut text = |n: Normalize| n.apply(&mut s, &mut Random::new(&[])).unwrap_err().to_string();
        assert!(text(Normalize::new([1.0; 3], [1.0])).contains("2 channels"));
        assert!(text(Normalize::new([], [1.0])).contains("2 channels"));
        assert!(text(Normalize::new([1.0], [0.0])).contains("above 0"));
    }
}
