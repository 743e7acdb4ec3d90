//! What a data set is, and data sets made of others.

use std::sync::Arc;

use super::sample::Sample;
use crate::error::{Error, Result};
use crate::random::Random;

/// Pictures by number, with what is known about them.
pub trait Dataset: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the classes, which are counted from 0.
    fn classes(&self) -> &[String];

    /// Makes `sample` the one of number `index`, whatever it held. Every random choice follows from `random`, which a
    /// loader starts anew for each seed, epoch and index.
    ///
    /// # Errors
    /// If there is no such sample, or its file cannot be read.
    fn get(&self, index: usize, random: &mut Random, sample: &mut Sample) -> Result<()>;
}

macro_rules! pointers {
    ($($pointer:ident)*) => {$(
        impl<D: Dataset + ?Sized> Dataset for $pointer<D> {
            fn len(&self) -> usize {
                (**self).len()
            }

            fn classes(&self) -> &[String] {
                (**self).classes()
            }

            fn get(&self, index: usize, random: &mut Random, sample: &mut Sample) -> Result<()> {
                (**self).get(index, random, sample)
            }
        }
    )*};
}

pointers!(Arc Box);

/// `Ok` if a data set has such a sample.
pub(crate) fn check_index(index: usize, len: usize) -> Result<()> {
    if index < len {
        return Ok(());
    }
    let rule = format!("there are {len}, counted from 0");
    Err(Error::Setting { what: "the number of a sample", value: index.to_string(), rule })
}

/// Names for classes that have none: their numbers.
pub(crate) fn numbered(classes: usize) -> Vec<String> {
    (0..classes).map(|c| c.to_string()).collect()
}

/// Some samples of a data set.
#[derive(Clone, Debug)]
pub struct Subset<D> {
    dataset: D,
    indices: Vec<usize>,
}

impl<D: Dataset> Subset<D> {
    /// The samples of these numbers, in this order.
    ///
    /// # Errors
    /// If there is no sample of a number.
    pub fn new(dataset: D, indices: Vec<usize>) -> Result<Self> {
        indices.iter().try_for_each(|&i| check_index(i, dataset.len()))?;
        Ok(Self { dataset, indices })
    }
}

impl<D: Dataset> Dataset for Subset<D> {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn classes(&self) -> &[String] {
        self.dataset.classes()
    }

    fn get(&self, index: usize, random: &mut Random, sample: &mut Sample) -> Result<()> {
        check_index(index, self.len())?;
        self.dataset.get(self.indices[index], random, sample)
    }
}

/// Cuts a data set in two at random, for training and for validation: `share` of the samples, rounded down, are the
/// second part. The cut follows from the seed and the number of samples alone; both parts keep the order.
///
/// ```
/// use swath::data::{Dataset, Glyphs, split};
/// let [train, validation] = split(Glyphs::new(100, 1), 0.2, 7)?;
/// assert_eq!((train.len(), validation.len()), (80, 20));
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// If the share is not from 0 to 1.
pub fn split<D: Dataset>(dataset: D, share: f64, seed: u64) -> Result<[Subset<Arc<D>>; 2]> {
    if !(0.0..=1.0).contains(&share) {
        let rule = "it is from 0 to 1".into();
        return Err(Error::Setting { what: "the share for validation", value: share.to_string(), rule });
    }
    let n = dataset.len();
    let mut order = Random::new(&[seed, n as u64, SPLIT]).permutation(n);
    let mut second = order.split_off(n - (n as f64 * share) as usize);
    order.sort_unstable();
    second.sort_unstable();
    let dataset = Arc::new(dataset);
    Ok([Subset { dataset: dataset.clone(), indices: order }, Subset { dataset, indices: second }])
}

/// Tells the random numbers of a split from those of samples and of orders.
const SPLIT: u64 = 0x0073_706c_6974;

#[cfg(test)]
mod tests {
    use super::super::test::Numbers;
    use super::*;

    fn labels(d: &impl Dataset) -> Vec<usize> {
        let mut s = Sample::default();
        (0..d.len())
            .map(|i| {
                d.get(i, &mut Random::new(&[]), &mut s).unwrap();
                s.label().unwrap()
            })
            .collect()
    }

    #[test]
    fn parts_have_every_sample_once() {
        let [a, b] = split(Numbers(50), 0.3, 1).unwrap();
        let mut all = [labels(&a), labels(&b)].concat();
        assert_eq!((a.len(), b.len()), (35, 15));
        assert_ne!(labels(&b), (35..50).collect::<Vec<_>>());
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
        assert_eq!(labels(&split(Numbers(50), 0.3, 1).unwrap()[1]), labels(&b));
        assert_ne!(labels(&split(Numbers(50), 0.3, 2).unwrap()[1]), labels(&b));
        assert!(split(Numbers(5), 1.5, 1).is_err());
        assert_eq!(split(Numbers(0), 0.5, 1).unwrap()[0].len(), 0);
    }

    #[test]
    fn numbers_that_do_not_exist_are_refused() {
        let e = Subset::new(Numbers(3), vec![0, 3]).unwrap_err().to_string();
        assert_eq!(e, "the number of a sample is 3, but there are 3, counted from 0");
        let s = Subset::new(Numbers(3), vec![2]).unwrap();
        assert_eq!(labels(&s), [2]);
        assert!(s.get(1, &mut Random::new(&[]), &mut Sample::default()).is_err());
    }
}
