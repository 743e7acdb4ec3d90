//! Average precision of detected boxes, by the rules of Pascal VOC and of COCO.

use core::cmp::Ordering;

use super::check_class;
use crate::error::Result;
use crate::rect::Rect;

/// A box that a model found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Its class, counted from 0.
    pub class: usize,
    /// How sure the model is; only the order matters. NaN comes last.
    pub score: f32,
    /// Where it is.
    pub rect: Rect,
}

/// A box that is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truth {
    /// Its class, counted from 0.
    pub class: usize,
    /// Where it is.
    pub rect: Rect,
    /// Whether it neither must nor must not be found: VOC's `difficult`, COCO's `iscrowd`.
    pub ignored: bool,
}

/// Whose rules to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evaluation {
    /// Pascal VOC 2007: the mean precision at the recalls 0, 0.1 .. 1. A detection is matched with the box that it
    /// overlaps most, once.
    Voc2007,
    /// Pascal VOC since 2010: the area under the curve, whose precision never rises with recall.
    Voc,
    /// COCO: the mean precision at the recalls 0, 0.01 .. 1. A detection is matched with the free box that it overlaps
    /// most, and of a picture the 100 surest of each class count.
    Coco,
}

/// Detections and truths of many pictures, and the precision that follows from them.
///
/// ```
/// use swath::Rect;
/// use swath::metrics::{AveragePrecision, Detection, Evaluation, Truth};
/// let rect = Rect::new(10.0, 10.0, 20.0, 20.0);
/// let mut ap = AveragePrecision::new(1);
/// ap.add(&[Detection { class: 0, score: 0.9, rect }], &[Truth { class: 0, rect, ignored: false }])?;
/// assert_eq!(ap.mean(0.5, Evaluation::Voc), 1.0);
/// assert_eq!(ap.coco(), 1.0);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AveragePrecision {
    classes: usize,
    pictures: Vec<(Vec<Detection>, Vec<Truth>)>,
}

/// What a detection turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    Wrong,
    Ignored,
}

impl AveragePrecision {
    /// No pictures yet, for that many classes.
    pub fn new(classes: usize) -> Self {
        Self { classes, pictures: Vec::new() }
    }

    /// Takes the detections and truths of one picture.
    ///
    /// # Errors
    /// If one has a class that does not exist.
    pub fn add(&mut self, found: &[Detection], truths: &[Truth]) -> Result<()> {
        found.iter().try_for_each(|d| check_class("a detection's class", d.class, self.classes))?;
        truths.iter().try_for_each(|t| check_class("a truth's class", t.class, self.classes))?;
        self.pictures.push((found.to_vec(), truths.to_vec()));
        Ok(())
    }

    /// The average precision of a class, where boxes match that overlap by an IoU of at least `iou`. `None`: there is no
    /// box of the class.
    pub fn of_class(&self, class: usize, iou: f32, rules: Evaluation) -> Option<f64> {
        let mut verdicts: Vec<(f32, Verdict)> = Vec::new();
        let mut boxes = 0;
        for (found, truths) in &self.pictures {
            let truths: Vec<&Truth> = truths.iter().filter(|t| t.class == class).collect();
            let mut found: Vec<&Detection> = found.iter().filter(|d| d.class == class).collect();
            found.sort_by(|a, b| surest_first(a.score, b.score));
            if rules == Evaluation::Coco {
                found.truncate(100);
            }
            boxes += truths.iter().filter(|t| !t.ignored).count();
            verdicts.extend(judge(&found, &truths, iou, rules));
        }
        verdicts.sort_by(|a, b| surest_first(a.0, b.0)); // stable: equal scores in the order of pictures
        (boxes > 0).then(|| area(&curve(&verdicts, boxes), rules))
    }

    /// The mean of [`AveragePrecision::of_class`] over the classes that have boxes, 0 if none has.
    pub fn mean(&self, iou: f32, rules: Evaluation) -> f64 {
        let values: Vec<f64> = (0..self.classes).filter_map(|c| self.of_class(c, iou, rules)).collect();
        if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
    }

    /// COCO's main figure: the mean over the IoUs 0.5, 0.55 .. 0.95.
    pub fn coco(&self) -> f64 {
        let ious = (0..10).map(|i| 0.5 + 0.05 * f64::from(i));
        ious.map(|iou| self.mean(iou as f32, Evaluation::Coco)).sum::<f64>() / 10.0
    }
}

/// Descending; NaN last.
fn surest_first(a: f32, b: f32) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Says of each detection of a picture, the surest first, what it is.
fn judge(found: &[&Detection], truths: &[&Truth], iou: f32, rules: Evaluation) -> Vec<(f32, Verdict)> {
    let mut taken = vec![false; truths.len()];
    let mut verdict = |d: &Detection| {
        let free = |i: usize| rules != Evaluation::Coco || !taken[i] || truths[i].ignored;
        // COCO prefers a box that counts to an ignored one, however they overlap; VOC looks at the overlap alone.
        let rank = |i: usize| (rules != Evaluation::Coco || !truths[i].ignored, truths[i].rect.iou(&d.rect));
        let best = (0..truths.len()).filter(|&i| free(i) && rank(i).1 >= iou).reduce(|best, i| {
            let (a, b) = (rank(best), rank(i));
            // COCO's last of equals wins, VOC's first.
            let later = b.1 > a.1 || (b.1 == a.1 && rules == Evaluation::Coco);
            if if a.0 == b.0 { later } else { b.0 } { i } else { best }
        });
        match best {
            None => Verdict::Wrong,
            Some(i) if truths[i].ignored => Verdict::Ignored,
            Some(i) if core::mem::replace(&mut taken[i], true) => Verdict::Wrong,
            Some(_) => Verdict::Right,
        }
    };
    found.iter().map(|d| (d.score, verdict(d))).collect()
}

/// Recall and precision after each detection that counts; precision as the largest at this recall or beyond.
fn curve(verdicts: &[(f32, Verdict)], boxes: usize) -> Vec<(f64, f64)> {
    let (mut right, mut wrong) = (0, 0);
    let mut points = Vec::new();
    for (_, verdict) in verdicts {
        match verdict {
            Verdict::Ignored => continue,
            Verdict::Right => right += 1,
            Verdict::Wrong => wrong += 1,
        }
        points.push((f64::from(right) / boxes as f64, f64::from(right) / f64::from(right + wrong)));
    }
    let mut largest = 0.0;
    for (_, precision) in points.iter_mut().rev() {
        largest = f64::max(largest, *precision);
        *precision = largest;
    }
    points
}

fn area(curve: &[(f64, f64)], rules: Evaluation) -> f64 {
    let at = |recall: f64| curve.iter().find(|p| p.0 >= recall).map_or(0.0, |p| p.1);
    let mean_at =
        |parts: u32| (0..=parts).map(|i| at(f64::from(i) / f64::from(parts))).sum::<f64>() / f64::from(parts + 1);
    match rules {
        Evaluation::Voc2007 => mean_at(10),
        Evaluation::Coco => mean_at(100),
        Evaluation::Voc => {
            let mut before = 0.0;
            let step =
                |&(recall, precision): &(f64, f64)| (recall - core::mem::replace(&mut before, recall)) * precision;
            curve.iter().map(step).sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(x: f32) -> Rect {
        Rect::new(x, 0.0, x + 10.0, 10.0)
    }

    fn found(score: f32, x: f32) -> Detection {
        Detection { class: 0, score, rect: rect(x) }
    }

    fn truth(x: f32, ignored: bool) -> Truth {
        Truth { class: 0, rect: rect(x), ignored }
    }

    /// Two boxes; found in the order right, wrong, right.
    fn example() -> AveragePrecision {
        let mut ap = AveragePrecision::new(2);
        ap.add(&[found(0.9, 0.0), found(0.8, 50.0), found(0.7, 100.0)], &[truth(0.0, false), truth(100.0, false)])
            .unwrap();
        ap
    }

    #[test]
    fn areas_by_hand() {
        let ap = example();
        // Precision 1 up to recall 0.5, then 2/3.
        assert!((ap.mean(0.5, Evaluation::Voc) - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-12);
        assert!((ap.mean(0.5, Evaluation::Voc2007) - (6.0 + 5.0 * 2.0 / 3.0) / 11.0).abs() < 1e-12);
        assert!((ap.mean(0.5, Evaluation::Coco) - (51.0 + 50.0 * 2.0 / 3.0) / 101.0).abs() < 1e-12);
        assert!((ap.coco() - ap.mean(0.5, Evaluation::Coco)).abs() < 1e-12);
        assert_eq!(ap.of_class(1, 0.5, Evaluation::Voc), None);
        assert_eq!(AveragePrecision::new(3).mean(0.5, Evaluation::Voc), 0.0);
    }

    #[test]
    fn a_box_counts_once() {
        let mut ap = AveragePrecision::new(1);
        ap.add(&[found(0.9, 0.0), found(0.8, 1.0)], &[truth(0.0, false), truth(60.0, false)]).unwrap();
        assert!((ap.mean(0.5, Evaluation::Voc) - 0.5).abs() < 1e-12);
        // COCO lets the second one have the next box that it overlaps enough; VOC does not.
        let mut ap = AveragePrecision::new(1);
        ap.add(&[found(0.9, 0.0), found(0.8, 0.0)], &[truth(0.0, false), truth(3.0, false)]).unwrap();
        assert!((ap.mean(0.5, Evaluation::Coco) - 1.0).abs() < 1e-12);
        assert!((ap.mean(0.5, Evaluation::Voc) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn ignored_boxes_neither_help_nor_harm() {
        for rules in [Evaluation::Voc, Evaluation::Voc2007, Evaluation::Coco] {
            let mut ap = AveragePrecision::new(1);
            let both = [truth(0.0, false), truth(50.0, true)];
            ap.add(&[found(0.9, 50.0), found(0.8, 50.0), found(0.7, 0.0)], &both).unwrap();
            assert!((ap.mean(0.5, rules) - 1.0).abs() < 1e-12, "{rules:?}");
            let mut only = AveragePrecision::new(1);
            only.add(&[found(0.9, 50.0)], &[truth(50.0, true)]).unwrap();
            assert_eq!(only.of_class(0, 0.5, rules), None);
        }
    }

    #[test]
    fn scores_order_detections_over_all_pictures() {
        let mut ap = AveragePrecision::new(1);
        ap.add(&[found(f32::NAN, 0.0), found(0.1, 70.0)], &[truth(0.0, false)]).unwrap();
        ap.add(&[found(0.9, 0.0)], &[truth(0.0, false)]).unwrap();
        // Right, wrong, right (NaN last).
        assert!((ap.mean(0.5, Evaluation::Voc) - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-12);
        assert!(ap.add(&[Detection { class: 1, score: 0.5, rect: rect(0.0) }], &[]).is_err());
    }
}
