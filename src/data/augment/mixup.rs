//! Blends of two samples (Zhang et al. 2018).

use super::{Error, Random, Result, Sample};
use crate::data::Dataset;

/// A data set whose samples are blended with another random one each: `share` of the first picture and of its classes,
/// `1 - share` of the other, where the share follows Beta(alpha, alpha). The partner follows from seed, epoch and index
/// like every other choice, so it does not depend on the batch.
///
/// Pictures must be of one size. Boxes are those of both; a mask is that of the sample that weighs more.
pub struct Mixup<D> {
    dataset: D,
    alpha: f64,
}

impl<D: Dataset> Mixup<D> {
    /// With that alpha, above 0 and at most 4; 0.2 is usual.
    ///
    /// # Errors
    /// For another alpha.
    pub fn new(dataset: D, alpha: f64) -> Result<Self> {
        if alpha > 0.0 && alpha <= 4.0 {
            return Ok(Self { dataset, alpha });
        }
        Err(Error::Setting { what: "alpha", value: alpha.to_string(), rule: "it is above 0 and at most 4".into() })
    }
}

impl<D: Dataset> Dataset for Mixup<D> {
    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn classes(&self) -> &[String] {
        self.dataset.classes()
    }

    fn get(&self, index: usize, random: &mut Random, sample: &mut Sample) -> Result<()> {
        self.dataset.get(index, random, sample)?;
        let partner = random.below(self.len());
        let share = random.beta(self.alpha);
        let mut other = Sample::default();
        self.dataset.get(partner, random, &mut other)?;
        if other.picture.size != sample.picture.size {
            let (left, right) = (sample.picture.size.to_vec(), other.picture.size.to_vec());
            return Err(Error::Shapes { what: "pictures to be blended", left, right });
        }
        for (v, o) in sample.picture.values.iter_mut().zip(&other.picture.values) {
            *v = share * *v + (1.0 - share) * o;
        }
        sample.labels.iter_mut().for_each(|l| l.1 *= share);
        for (class, weight) in other.labels {
            match sample.labels.iter_mut().find(|l| l.0 == class) {
                Some(l) => l.1 += (1.0 - share) * weight,
                None => sample.labels.push((class, (1.0 - share) * weight)),
            }
        }
        sample.boxes.append(&mut other.boxes);
        if share < 0.5 {
            sample.mask = other.mask;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::test::Numbers;

    #[test]
    fn pictures_and_classes_are_blended_alike() {
        let mixed = Mixup::new(Numbers(50), 1.0).unwrap();
        let get = |index| {
            let mut s = Sample::default();
            mixed.get(index, &mut Random::new(&[9, 0, index as u64]), &mut s).unwrap();
            s
        };
        let mut shares = Vec::new();
        for index in 0..50 {
            let s = get(index);
            assert_eq!(s, get(index));
            assert!((s.labels.iter().map(|l| l.1).sum::<f32>() - 1.0).abs() < 1e-6);
            assert_eq!(s.labels[0].0, index);
            assert!((0.0..=1.0).contains(&s.picture.values[0]));
            shares.push(s.labels[0].1);
        }
        assert!(shares.iter().any(|s| *s < 0.5) && shares.iter().any(|s| *s > 0.5));
        assert!(Mixup::new(Numbers(1), 0.0).is_err() && Mixup::new(Numbers(1), f64::NAN).is_err());
        // Blended with itself a sample keeps its one class.
        let own = Mixup::new(Numbers(1), 1.0).unwrap();
        let mut s = Sample::default();
        own.get(0, &mut Random::new(&[1]), &mut s).unwrap();
        assert_eq!(s.labels.len(), 1);
    }
}
