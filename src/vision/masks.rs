//! Masks: which pixels belong to what.

use super::{largest, length, sigmoid};
use crate::data::Picture;
use crate::data::augment::{Filter, Resize};
use crate::error::{Error, Result};
use crate::rect::Rect;
use crate::vision::prepare::Placed;

/// How much of each pixel belongs to something, from 0 to 1: `[height, width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    /// `[height, width]`.
    pub size: [usize; 2],
    /// As many values as the extents multiply to.
    pub values: Vec<f32>,
}

impl Mask {
    /// From a network's values.
    ///
    /// # Errors
    /// If there are not `height * width` values, or none.
    pub fn new(size: [usize; 2], values: Vec<f32>) -> Result<Self> {
        let pixels = size[0].saturating_mul(size[1]);
        length("a mask", values.len(), pixels)?;
        if pixels == 0 {
            return Err(Error::Rank {
                what: "a mask",
                takes: "[height, width] of at least one pixel",
                gets: size.to_vec(),
            });
        }
        Ok(Self { size, values })
    }

    /// A mask of a network's input as a mask of the picture that was prepared: the part that shows it, enlarged bilinearly. The mask may be
    /// smaller than the input by any factor.
    ///
    /// # Errors
    /// If the picture is too large to be one.
    pub fn moved(&self, placed: &Placed) -> Result<Self> {
        let [h, w] = self.size;
        let part = placed.input_rect();
        let (sy, sx) = (h as f32 / placed.input()[0] as f32, w as f32 / placed.input()[1] as f32);
        let span = |from: f32, to: f32, scale: f32, all: usize| {
            let first = ((from * scale).round().max(0.0) as usize).min(all - 1);
            first..((to * scale).round().max(0.0) as usize).clamp(first + 1, all)
        };
        let (rows, columns) = (span(part.top, part.bottom, sy, h), span(part.left, part.right, sx, w));
        let size = [1, rows.len(), columns.len()];
        let values = rows.flat_map(|y| self.values[y * w..][columns.clone()].iter().copied()).collect();
        let resized = Resize::of(placed.picture()).filter(Filter::Bilinear).of_picture(&Picture { size, values })?;
        Ok(Self { size: placed.picture(), values: resized.values })
    }

    /// The number of pixels above a threshold.
    pub fn area(&self, threshold: f32) -> usize {
        self.values.iter().filter(|v| **v > threshold).count()
    }
}

/// The mask of one box of YOLO's segmentation: the sum of `prototypes` `[coefficients, h, w]` by the box's coefficients, through a sigmoid,
/// and 0 outside of the box. `rect` is in pixels of the network's input of `[height, width]`.
///
/// ```
/// use swath::Rect;
/// use swath::vision::masks::from_prototypes;
/// let mask = from_prototypes(&[0.0, 9.0, 9.0, 0.0], [2, 2], &[2.0], Rect::new(4.0, 0.0, 8.0, 8.0), [8, 8])?;
/// assert_eq!((mask.values[0], mask.values[2], mask.values[3]), (0.0, 0.0, 0.5));
/// assert!(mask.values[1] > 0.99);
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// If there are not as many prototypes as coefficients.
pub fn from_prototypes(
    prototypes: &[f32],
    size: [usize; 2],
    coefficients: &[f32],
    rect: Rect,
    input: [usize; 2],
) -> Result<Mask> {
    let [h, w] = size;
    length("prototypes of masks", prototypes.len(), coefficients.len() * h * w)?;
    let (sy, sx) = (h as f32 / input[0].max(1) as f32, w as f32 / input[1].max(1) as f32);
    let inside = |y: usize, x: usize| {
        let (y, x) = ((y as f32 + 0.5) / sy, (x as f32 + 0.5) / sx);
        rect.left <= x && x < rect.right && rect.top <= y && y < rect.bottom
    };
    let value = |i: usize| {
        let sum: f32 = coefficients.iter().enumerate().map(|(k, c)| c * prototypes[k * h * w + i]).sum();
        if inside(i / w, i % w) { sigmoid(sum) } else { 0.0 }
    };
    Mask::new(size, (0..h * w).map(value).collect())
}

/// The class of each pixel: `scores` `[classes, h, w]` to `[h, w]`, the largest's number. A pixel of NaN alone is of class 0.
///
/// ```
/// use swath::vision::masks::classes;
/// assert_eq!(classes(&[0.1, 0.9, /* */ 0.8, 0.2], 2, [1, 2])?, [1, 0]);
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// If the length does not fit.
pub fn classes(scores: &[f32], classes: usize, [h, w]: [usize; 2]) -> Result<Vec<usize>> {
    length("scores of pixels", scores.len(), classes * h * w)?;
    let best = |i: usize| largest((0..classes).map(|c| scores[c * h * w + i])).map_or(0, |(class, _)| class);
    Ok((0..h * w).map(best).collect())
}

#[cfg(test)]
mod tests {
    use super::super::prepare::Preparation;
    use super::*;

    #[test]
    fn a_mask_goes_back_to_its_picture() {
        // 4x8 pixels in a letterbox of 16x16: rows 4 to 12.
        let picture = Picture::filled([3, 4, 8], 0.5);
        let (_, placed) = Preparation::new([16, 16]).letterbox(0.0).apply(&picture).unwrap();
        // A mask of half the input's size: the left half of the picture's rows.
        let values = (0..64).map(|i| if (2..6).contains(&(i / 8)) && i % 8 < 4 { 1.0 } else { 0.0 }).collect();
        let mask = Mask::new([8, 8], values).unwrap().moved(&placed).unwrap();
        assert_eq!(mask.size, [4, 8]);
        assert!(mask.values.chunks(8).all(|row| row == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]), "{mask:?}");
        assert_eq!(mask.area(0.5), 16);
        assert!(Mask::new([2, 2], vec![0.0; 3]).is_err() && Mask::new([0, 2], vec![]).is_err());
    }

    #[test]
    fn prototypes_and_coefficients_are_as_many() {
        let rect = Rect::new(0.0, 0.0, 1.0, 1.0);
        assert!(from_prototypes(&[0.0; 8], [2, 2], &[1.0], rect, [2, 2]).is_err());
        let e = classes(&[0.0; 7], 2, [2, 2]).unwrap_err().to_string();
        assert_eq!(e, "scores of pixels has 7 elements, but 8 are needed");
    }
}
