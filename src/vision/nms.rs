//! Non-maximum suppression: of boxes that overlap, the surest stays.

use super::Detection;
use crate::rect::Rect;

/// What counts as the same thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Boxes that overlap more than this are the same thing: intersection over union, as in torchvision's `nms`.
    pub iou: f32,
    /// Boxes of a smaller score are dropped.
    pub score: f32,
    /// Whether boxes of other classes suppress, too.
    pub across_classes: bool,
    /// The most boxes that are kept.
    pub limit: usize,
}

impl Default for Options {
    /// An IoU of 0.45, any score, class by class, 300 boxes: YOLO's.
    fn default() -> Self {
        Self { iou: 0.45, score: 0.0, across_classes: false, limit: 300 }
    }
}

/// The boxes that stay, the surest first; equal ones in their order. Boxes whose score or edges are not finite are dropped.
///
/// ```
/// use swath::Rect;
/// use swath::vision::{Detection, nms};
/// let at = |left: f32, score, class| Detection { rect: Rect::new(left, 0.0, left + 10.0, 10.0), score, class, index: 0 };
/// let all = vec![at(0.0, 0.6, 1), at(1.0, 0.9, 1), at(1.0, 0.8, 2)];
/// assert_eq!(nms::suppress(all.clone(), &nms::Options::default()).len(), 2);
/// let any = nms::Options { across_classes: true, ..Default::default() };
/// assert_eq!(nms::suppress(all, &any), [at(1.0, 0.9, 1)]);
/// ```
pub fn suppress(mut boxes: Vec<Detection>, options: &Options) -> Vec<Detection> {
    let edges = |r: Rect| [r.left, r.top, r.right, r.bottom];
    boxes.retain(|b| b.score >= options.score && b.score.is_finite() && edges(b.rect).iter().all(|e| e.is_finite()));
    boxes.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for b in boxes {
        if kept.len() >= options.limit {
            break;
        }
        let same = |k: &Detection| (options.across_classes || k.class == b.class) && k.rect.iou(&b.rect) > options.iou;
        if !kept.iter().any(same) {
            kept.push(b);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(rect: [f32; 4], score: f32, class: usize) -> Detection {
        Detection { rect: Rect::new(rect[0], rect[1], rect[2], rect[3]), score, class, index: 0 }
    }

    /// As the definition has it: in the order of scores, each that nothing kept overlaps.
    fn kept(boxes: &[Detection], options: &Options) -> Vec<f32> {
        suppress(boxes.to_vec(), options).iter().map(|b| b.score).collect()
    }

    #[test]
    fn what_is_suppressed_suppresses_nothing() {
        // The second overlaps the first, the third only the second.
        let boxes = [
            at([0.0, 0.0, 10.0, 10.0], 0.9, 0),
            at([4.0, 0.0, 14.0, 10.0], 0.8, 0),
            at([8.0, 0.0, 18.0, 10.0], 0.7, 0),
        ];
        let iou = |iou| Options { iou, ..Options::default() };
        assert_eq!(kept(&boxes, &iou(0.4)), [0.9, 0.7]);
        assert_eq!(kept(&boxes, &iou(0.43)), [0.9, 0.8, 0.7]);
        assert_eq!(kept(&boxes, &iou(0.05)), [0.9]);
    }

    #[test]
    fn limits_scores_and_numbers_that_are_none() {
        let boxes = [
            at([0.0, 0.0, 1.0, 1.0], 0.5, 0),
            at([5.0, 0.0, 6.0, 1.0], f32::NAN, 0),
            at([f32::INFINITY, 0.0, 6.0, 1.0], 0.9, 0),
            at([9.0, 0.0, 10.0, 1.0], 0.4, 0),
            at([7.0, 0.0, 8.0, 1.0], 0.3, 0),
        ];
        assert_eq!(kept(&boxes, &Options { limit: 2, ..Options::default() }), [0.5, 0.4]);
        assert_eq!(kept(&boxes, &Options { score: 0.4, ..Options::default() }), [0.5, 0.4]);
        assert!(kept(&[], &Options::default()).is_empty());
    }
}
