//! Several samples as tensors.

use super::sample::{LabelledBox, Sample};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Several samples as a network wants them. What the data set does not have stays empty.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The pictures, `[n, channels, height, width]`.
    pub input: Tensor,
    /// Numbers of the samples in the data set.
    pub indices: Vec<usize>,
    /// The class of each picture; of the larger weight if it has two.
    pub labels: Vec<usize>,
    /// Weights of all classes for each picture, `[n, classes]`; empty unless a picture has two classes, as after
    /// [`Mixup`](super::Mixup).
    pub weights: Vec<f32>,
    /// Boxes, picture by picture.
    pub boxes: Vec<Vec<LabelledBox>>,
    /// The class of each pixel, `[n, height, width]`.
    pub masks: Vec<u8>,
}

impl Batch {
    /// A batch of no samples.
    ///
    /// # Errors
    /// None that can happen: an empty tensor exists.
    pub fn new() -> Result<Self> {
        let input = Tensor::zeros([0, 0, 0, 0])?;
        let (indices, labels, weights, boxes, masks) = Default::default();
        Ok(Self { input, indices, labels, weights, boxes, masks })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Leaves it empty. The memory is used again.
    pub(crate) fn clear(&mut self) {
        self.indices.clear();
        self.labels.clear();
        self.weights.clear();
        self.boxes.clear();
        self.masks.clear();
    }

    /// Adds a sample to what will be a batch of `n` pictures of a data set with so many classes.
    ///
    /// # Errors
    /// If it has another size than the first one, or has or lacks a class or a mask other than that.
    pub(crate) fn push(&mut self, index: usize, sample: &Sample, n: usize, classes: usize) -> Result<()> {
        let at = self.len();
        let [c, h, w] = sample.picture.size;
        if at == 0 && self.input.dims() != [n, c, h, w] {
            self.input = Tensor::zeros([n, c, h, w])?;
        }
        sample.check_mask()?;
        if self.input.dims()[1..] != [c, h, w] {
            let (left, right) = (self.input.dims()[1..].to_vec(), vec![c, h, w]);
            return Err(Error::Shapes { what: "pictures of one batch", left, right });
        }
        let whole = c * h * w;
        self.input.as_mut_slice()[at * whole..(at + 1) * whole].copy_from_slice(&sample.picture.values);
        self.indices.push(index);
        self.labels.extend(sample.label());
        self.boxes.push(sample.boxes.clone());
        self.masks.extend_from_slice(&sample.mask);
        let same = [("classes", self.labels.len(), at + 1), ("masks", self.masks.len(), (at + 1) * h * w)];
        if let Some((what, have, all)) = same.into_iter().find(|&(_, have, all)| have != 0 && have != all) {
            let rule = format!("all samples of a batch have them or none has: there are {have} of {all}");
            return Err(Error::Setting { what, value: format!("missing in sample {index} or before it"), rule });
        }
        self.push_weights(sample, classes)
    }

    /// Adds the weights of the sample's classes, if it or one before has several.
    fn push_weights(&mut self, sample: &Sample, classes: usize) -> Result<()> {
        let rows = self.len();
        for &(class, _) in &sample.labels {
            if class >= classes {
                let rule = format!("there are {classes} classes, counted from 0");
                return Err(Error::Setting { what: "a label", value: class.to_string(), rule });
            }
        }
        if self.weights.is_empty() && sample.labels.len() < 2 {
            return Ok(());
        }
        if self.weights.is_empty() {
            // Those before were of one class each.
            self.weights.resize(rows * classes, 0.0);
            for (row, &label) in self.labels.iter().enumerate().take(rows - 1) {
                self.weights[row * classes + label] = 1.0;
            }
        }
        self.weights.resize(rows * classes, 0.0);
        let row = &mut self.weights[(rows - 1) * classes..];
        sample.labels.iter().for_each(|&(class, weight)| row[class] += weight);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Picture;
    use super::*;

    fn sample(value: f32, labels: &[(usize, f32)]) -> Sample {
        Sample { picture: Picture::filled([1, 2, 2], value), labels: labels.to_vec(), ..Sample::default() }
    }

    #[test]
    fn samples_side_by_side() {
        let mut b = Batch::new().unwrap();
        b.push(7, &sample(1.0, &[(2, 1.0)]), 3, 4).unwrap();
        assert!(b.weights.is_empty());
        b.push(9, &sample(2.0, &[(1, 0.25), (3, 0.75)]), 3, 4).unwrap();
        b.push(5, &sample(3.0, &[(0, 1.0)]), 3, 4).unwrap();
        assert_eq!(b.input.dims(), [3, 1, 2, 2]);
        assert_eq!(b.input.as_slice(), [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0]);
        assert_eq!((&b.indices[..], &b.labels[..]), (&[7, 9, 5][..], &[2, 3, 0][..]));
        assert_eq!(b.weights, [0.0, 0.0, 1.0, 0.0, 0.0, 0.25, 0.0, 0.75, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn samples_that_do_not_go_together_are_refused() {
        let mut b = Batch::new().unwrap();
        b.push(0, &sample(1.0, &[(2, 1.0)]), 2, 4).unwrap();
        let larger = Sample { picture: Picture::filled([1, 2, 3], 0.0), ..sample(1.0, &[(2, 1.0)]) };
        assert!(b.clone().push(1, &larger, 2, 4).unwrap_err().to_string().contains("[1, 2, 2] and [1, 2, 3]"));
        assert!(b.clone().push(1, &sample(1.0, &[]), 2, 4).unwrap_err().to_string().contains("1 of 2"));
        assert!(b.clone().push(1, &sample(1.0, &[(4, 1.0)]), 2, 4).unwrap_err().to_string().contains("a label is 4"));
        let masked = Sample { mask: vec![0; 4], ..sample(1.0, &[(2, 1.0)]) };
        assert!(b.push(1, &masked, 2, 4).unwrap_err().to_string().contains("4 of 8"));
    }
}
