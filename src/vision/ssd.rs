//! Boxes relative to default boxes (SSD and its children: RetinaNet, BlazeFace, RetinaFace), and boxes as distances from points
//! (FCOS, SCRFD).
//!
//! Sources: Liu et al. 2015, arXiv:1512.02325; Bazarevsky et al. 2019, arXiv:1907.05047; Tian et al. 2019, arXiv:1904.01355.

use super::{Detection, centred, largest, length};
use crate::error::Result;
use crate::rect::Rect;

/// A default box: centre and size, in whatever unit the results shall have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prior {
    /// `[x, y]`.
    pub centre: [f32; 2],
    /// `[width, height]`.
    pub size: [f32; 2],
}

/// Default boxes of a grid of `[rows, columns]` over an input of `[height, width]`: in each cell, row by row, one of each size.
///
/// ```
/// use swath::vision::ssd::grid;
/// let priors = grid([2, 2], [64.0, 64.0], &[[16.0, 16.0], [32.0, 16.0]]);
/// assert_eq!((priors.len(), priors[3].centre, priors[3].size), (8, [48.0, 16.0], [32.0, 16.0]));
/// ```
pub fn grid([rows, columns]: [usize; 2], [height, width]: [f32; 2], sizes: &[[f32; 2]]) -> Vec<Prior> {
    let (dy, dx) = (height / rows as f32, width / columns as f32);
    let centres = (0..rows).flat_map(|y| (0..columns).map(move |x| [(x as f32 + 0.5) * dx, (y as f32 + 0.5) * dy]));
    centres.flat_map(|centre| sizes.iter().map(move |&size| Prior { centre, size })).collect()
}

/// Sizes of SSD's default boxes of one grid: a square of `scale`, one of the geometric mean with the next grid's scale, and for each ratio
/// one that is wider and one that is higher. The order is torchvision's.
///
/// ```
/// use swath::vision::ssd::sizes;
/// assert_eq!(sizes(30.0, 60.0, &[4.0]), [[30.0, 30.0], [42.426407, 42.426407], [60.0, 15.0], [15.0, 60.0]]);
/// ```
pub fn sizes(scale: f32, next: f32, ratios: &[f32]) -> Vec<[f32; 2]> {
    let mean = (scale * next).sqrt();
    let ratio = |r: &f32| [[scale * r.sqrt(), scale / r.sqrt()], [scale / r.sqrt(), scale * r.sqrt()]];
    [[scale, scale], [mean, mean]].into_iter().chain(ratios.iter().flat_map(ratio)).collect()
}

/// How locations are relative to their default box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Coding {
    /// Centre and size, `x * variance[0] * prior's width` from its centre and `exp(w * variance[1])` times its size: SSD, with the
    /// variances 0.1 and 0.2 (torchvision's weights 10 and 5).
    Centre {
        /// Of centres and of sizes.
        variance: [f32; 2],
    },
    /// Centre and size in units of the default box's size: `x / scale * prior's width` from its centre, and `w / scale` times its width:
    /// MediaPipe's BlazeFace, whose default boxes are the whole input and whose scale is the input's size.
    Linear {
        /// Units of one default box.
        scale: f32,
    },
}

/// A location, `[x, y, w, h]`, as a box.
pub fn decode(prior: &Prior, [x, y, w, h]: [f32; 4], coding: Coding) -> Rect {
    let ([cx, cy], [pw, ph]) = (prior.centre, prior.size);
    match coding {
        Coding::Centre { variance: [v, s] } => {
            centred(cx + x * v * pw, cy + y * v * ph, (w * s).exp() * pw, (h * s).exp() * ph)
        }
        Coding::Linear { scale } => centred(cx + x / scale * pw, cy + y / scale * ph, w / scale * pw, h / scale * ph),
    }
}

/// Boxes of scores above a threshold: `locations` `[boxes, 4]` and `scores` `[boxes, classes]`, which are no logits any more. Class
/// `background` is none, and the classes behind it are one less in the result.
///
/// ```
/// use swath::Rect;
/// use swath::vision::ssd::{Coding, boxes, grid};
/// let priors = grid([1, 2], [10.0, 20.0], &[[8.0, 8.0]]);
/// let found = boxes(
///     &priors, &[0.0; 8], &[0.9, 0.1, 0.2, 0.8], Some(0), Coding::Centre { variance: [0.1, 0.2] }, 0.5)?;
/// assert_eq!((found.len(), found[0].class, found[0].rect), (1, 0, Rect::new(11.0, 1.0, 19.0, 9.0)));
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// If the lengths do not fit the number of default boxes.
pub fn boxes(
    priors: &[Prior],
    locations: &[f32],
    scores: &[f32],
    background: Option<usize>,
    coding: Coding,
    threshold: f32,
) -> Result<Vec<Detection>> {
    length("locations of default boxes", locations.len(), priors.len() * 4)?;
    let classes = super::rows("scores of default boxes", scores.len(), priors.len().max(1))?;
    length("scores of default boxes", scores.len(), priors.len() * classes)?;
    let (locations, _) = locations.as_chunks::<4>();
    let one = |(index, scores): (usize, &[f32])| {
        let hidden = |class| background == Some(class);
        let all = scores.iter().enumerate().map(|(class, &s)| if hidden(class) { f32::NAN } else { s });
        let (class, score) = largest(all)?;
        let class = class - usize::from(background.is_some_and(|b| b < class));
        let rect = || decode(&priors[index], locations[index], coding);
        (score >= threshold).then(|| Detection { rect: rect(), score, class, index })
    };
    Ok(scores.chunks(classes.max(1)).enumerate().filter_map(one).collect())
}

/// A box of distances from a point to its left, upper, right and lower edge, in units of `stride`: anchor-free heads.
///
/// ```
/// use swath::Rect;
/// use swath::vision::ssd::from_distances;
/// assert_eq!(from_distances([20.0, 20.0], [1.0, 0.5, 2.0, 1.5], 8.0), Rect::new(12.0, 16.0, 36.0, 32.0));
/// ```
pub fn from_distances([x, y]: [f32; 2], [left, top, right, bottom]: [f32; 4], stride: f32) -> Rect {
    Rect::new(x - left * stride, y - top * stride, x + right * stride, y + bottom * stride)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings_are_their_formulas() {
        let prior = Prior { centre: [50.0, 40.0], size: [20.0, 10.0] };
        let r = decode(&prior, [1.0, -1.0, 0.0, 5.0 * 2f32.ln()], Coding::Centre { variance: [0.1, 0.2] });
        // Centre 52, 39; 20 wide, 20 high.
        assert!((r.left - 42.0).abs() < 1e-4 && (r.top - 29.0).abs() < 1e-4 && (r.bottom - 49.0).abs() < 1e-4, "{r:?}");
        let whole = Prior { centre: [0.25, 0.5], size: [1.0, 1.0] };
        let r = decode(&whole, [32.0, 0.0, 64.0, 128.0], Coding::Linear { scale: 256.0 });
        assert_eq!(r, Rect::new(0.25, 0.25, 0.5, 0.75));
    }

    #[test]
    fn the_background_is_no_class_wherever_it_stands() {
        let priors = grid([1, 1], [4.0, 4.0], &[[4.0, 4.0]]);
        let coding = Coding::Centre { variance: [0.1, 0.2] };
        let class = |scores: &[f32], background| {
            boxes(&priors, &[0.0; 4], scores, background, coding, 0.3).unwrap().first().map(|d| (d.class, d.score))
        };
        assert_eq!(class(&[0.9, 0.2, 0.4], Some(0)), Some((1, 0.4)));
        assert_eq!(class(&[0.2, 0.4, 0.9], Some(2)), Some((1, 0.4)));
        assert_eq!(class(&[0.9, 0.2, 0.4], None), Some((0, 0.9)));
        assert_eq!(class(&[0.9, 0.2, 0.1], Some(0)), None);
        assert_eq!(class(&[0.9], Some(0)), None);
        assert!(boxes(&priors, &[0.0; 5], &[0.9], None, coding, 0.3).is_err());
        assert!(boxes(&[], &[], &[], None, coding, 0.3).unwrap().is_empty());
    }
}
