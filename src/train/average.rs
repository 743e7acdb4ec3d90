//! The exponential moving average of weights (Polyak averaging), which often tests better than the weights themselves.

use super::optimizer::{check_range, lerp};
use crate::buffer::Buffer;
use crate::error::{Result, check_len};
use crate::par::{self, Divide};

/// An average of weights: `average += (1 - decay) (weights - average)`, at first the weights themselves; PyTorch's
/// `AveragedModel` with `get_ema_multi_avg_fn(decay)`.
///
/// ```
/// let mut average = swath::train::WeightAverage::new(0.9)?;
/// let w = average.register(2)?;
/// average.update(w, &[1.0, 2.0])?;
/// average.update(w, &[2.0, 2.0])?;
/// assert!((average.values(w)[0] - 1.1).abs() < 1e-6);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Debug)]
pub struct WeightAverage {
    decay: f64,
    tensors: Vec<(Buffer, u64)>,
}

impl WeightAverage {
    /// Averages that keep `decay` of themselves at each update, such as 0.999.
    ///
    /// # Errors
    /// If the decay is not from 0 to 1.
    pub fn new(decay: f64) -> Result<Self> {
        check_range("decay", decay, 1.0, false)?;
        Ok(Self { decay, tensors: Vec::new() })
    }

    /// Takes a tensor of `len` elements in, and says its number.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory).
    pub fn register(&mut self, len: usize) -> Result<usize> {
        self.tensors.push((Buffer::zeros(len)?, 0));
        Ok(self.tensors.len() - 1)
    }

    /// Moves the average of tensor `number` towards `values`.
    ///
    /// # Errors
    /// If the length is not the registered one.
    pub fn update(&mut self, number: usize, values: &[f32]) -> Result<()> {
        let (average, count) = &mut self.tensors[number];
        check_len("the weights", values.len(), average.len())?;
        *count += 1;
        if *count == 1 {
            average.copy_from_slice(values);
            return Ok(());
        }
        let weight = (1.0 - self.decay) as f32;
        par::for_each_part(Towards { average: &mut average[..], values }, 2, |t| {
            for (a, &v) in t.average.iter_mut().zip(t.values) {
                *a = lerp(*a, v, weight);
            }
        });
        Ok(())
    }

    /// The average of tensor `number`; zeros before its first update.
    pub fn values(&self, number: usize) -> &[f32] {
        &self.tensors[number].0
    }

    /// Updates of tensor `number` so far.
    pub fn count(&self, number: usize) -> u64 {
        self.tensors[number].1
    }

    /// Sets an average and the number of its updates, from a checkpoint.
    ///
    /// # Errors
    /// If the length is not the registered one.
    pub fn restore(&mut self, number: usize, values: &[f32], count: u64) -> Result<()> {
        let (average, own_count) = &mut self.tensors[number];
        check_len("the average", values.len(), average.len())?;
        average.copy_from_slice(values);
        *own_count = count;
        Ok(())
    }
}

/// A stretch of an average, and the weights that it moves towards.
struct Towards<'a> {
    average: &'a mut [f32],
    values: &'a [f32],
}

impl Divide for Towards<'_> {
    fn len(&self) -> usize {
        self.average.len()
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let ((a, b), (v, w)) = (self.average.split_at_mut(at), self.values.split_at(at));
        (Self { average: a, values: v }, Self { average: b, values: w })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_and_refuses() {
        let mut a = WeightAverage::new(0.5).unwrap();
        let n = a.register(3).unwrap();
        assert!(a.update(n, &[0.0; 2]).is_err());
        for v in [4.0, 0.0, 0.0] {
            a.update(n, &[v; 3]).unwrap();
        }
        assert_eq!((a.values(n), a.count(n)), (&[1.0; 3][..], 3));
        let mut b = WeightAverage::new(0.5).unwrap();
        b.register(3).unwrap();
        b.restore(0, a.values(n), a.count(n)).unwrap();
        b.update(0, &[3.0; 3]).unwrap();
        assert_eq!(b.values(0), [2.0; 3]);
        assert!(WeightAverage::new(1.5).is_err());
    }

    #[test]
    fn the_same_bits_for_any_number_of_threads() {
        let wave = |k: usize| (0..200_001).map(|i| ((i * 31 + k * 17) % 101) as f32 / 7.0).collect::<Vec<f32>>();
        let by = |threads| {
            par::with_threads(threads, || {
                let mut a = WeightAverage::new(0.9).unwrap();
                let n = a.register(200_001).unwrap();
                (0..3).for_each(|k| a.update(n, &wave(k)).unwrap());
                a.values(n).to_vec()
            })
            .unwrap()
        };
        assert_eq!(by(1), by(3));
    }
}
