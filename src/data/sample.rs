//! A picture with what is known about it.

use crate::error::{Error, Result};
use crate::rect::Rect;

/// A picture in planes: `[channels, height, width]`, row-major, values from 0 to 1 until they are normalised.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// `[channels, height, width]`.
    pub size: [usize; 3],
    /// As many values as the extents multiply to.
    pub values: Vec<f32>,
}

impl Picture {
    /// A picture of one value.
    pub fn filled(size: [usize; 3], value: f32) -> Self {
        Self { size, values: vec![value; size.iter().product()] }
    }

    /// Takes the size, and leaves all values 0. The memory is used again.
    pub fn reset(&mut self, size: [usize; 3]) {
        self.size = size;
        self.values.clear();
        self.values.resize(size.iter().product(), 0.0);
    }

    /// Takes bytes of 0..=255 in planes as values of 0 to 1.
    pub fn set_planes(&mut self, size: [usize; 3], bytes: &[u8]) {
        self.reset(size);
        self.values.iter_mut().zip(bytes).for_each(|(v, &b)| *v = f32::from(b) / 255.0);
    }

    /// Takes bytes of 0..=255, channels side by side, as values of 0 to 1.
    pub fn set_interleaved(&mut self, size: [usize; 3], bytes: &[u8]) {
        self.reset(size);
        let [channels, height, width] = size;
        for (i, pixel) in bytes.chunks_exact(channels.max(1)).enumerate().take(height * width) {
            for (c, &b) in pixel.iter().enumerate() {
                self.values[c * height * width + i] = f32::from(b) / 255.0;
            }
        }
    }

    /// The planes, one after another.
    pub fn planes(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks(self.plane())
    }

    /// The planes, one after another.
    pub fn planes_mut(&mut self) -> impl ExactSizeIterator<Item = &mut [f32]> {
        let plane = self.plane();
        self.values.chunks_mut(plane)
    }

    fn plane(&self) -> usize {
        (self.size[1] * self.size[2]).max(1)
    }
}

/// A box with its class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelledBox {
    /// The class, counted from 0.
    pub class: usize,
    /// Where it is, in pixels.
    pub rect: Rect,
    /// Whether it is marked as difficult (Pascal VOC): such a box neither must nor must not be found.
    pub difficult: bool,
}

/// The class of a mask's pixel that does not count.
pub const UNLABELLED: u8 = 255;

/// A picture with what is known about it: classes, boxes, a mask. What a data set does not have stays empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The picture.
    pub picture: Picture,
    /// Its class with weight 1; two with weights that add to 1 after mixing; empty if the data set has no classes.
    pub labels: Vec<(usize, f32)>,
    /// Boxes around what it shows.
    pub boxes: Vec<LabelledBox>,
    /// The class of every pixel, `[height, width]`, with [`UNLABELLED`] for those that do not count; empty if the data
    /// set has no masks.
    pub mask: Vec<u8>,
    /// Memory that transformations use again.
    pub(crate) scratch: Vec<f32>,
}

impl Sample {
    /// Leaves it empty, for a data set to fill. The memory is used again.
    pub fn clear(&mut self) {
        self.picture.reset([0; 3]);
        self.labels.clear();
        self.boxes.clear();
        self.mask.clear();
    }

    /// The class of the largest weight, if there is one.
    pub fn label(&self) -> Option<usize> {
        self.labels.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|l| l.0)
    }

    /// `Ok` if the mask fits the picture.
    pub(crate) fn check_mask(&self) -> Result<()> {
        let [_, h, w] = self.picture.size;
        if self.mask.is_empty() || self.mask.len() == h * w {
            return Ok(());
        }
        let (left, right) = (vec![self.mask.len()], vec![h, w]);
        Err(Error::Shapes { what: "a mask and its picture", left, right })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_bytes_become_planes() {
        let mut p = Picture::default();
        p.set_interleaved([3, 1, 2], &[0, 51, 102, 153, 204, 255]);
        assert_eq!(p.values, [0.0, 0.6, 0.2, 0.8, 0.4, 1.0]);
        let mut q = Picture::default();
        q.set_planes([3, 1, 2], &[0, 153, 51, 204, 102, 255]);
        assert_eq!(p, q);
        assert_eq!(p.planes().map(|p| p[0]).collect::<Vec<_>>(), [0.0, 0.2, 0.4]);
    }

    #[test]
    fn the_label_is_that_of_the_largest_weight() {
        let mut s = Sample { labels: vec![(3, 0.4), (5, 0.6)], ..Sample::default() };
        assert_eq!(s.label(), Some(5));
        s.clear();
        assert_eq!(s.label(), None);
        s.mask = vec![0; 3];
        assert!(s.check_mask().is_err());
    }
}
