//! Selecting boxes.

use super::doubles::doubles;
use super::error::{OpResult, refuse};
use super::{Array, Call, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[Operator::new("NonMaxSuppression", non_max_suppression)];

/// Corners `[y1, x1, y2, x2]` with the smaller ones first.
fn corners(b: &[f64], from_centre: bool) -> [f64; 4] {
    if from_centre {
        let [x, y, w, h] = [b[0], b[1], b[2] / 2.0, b[3] / 2.0];
        [y - h, x - w, y + h, x + w]
    } else {
        [b[0].min(b[2]), b[1].min(b[3]), b[0].max(b[2]), b[1].max(b[3])]
    }
}

fn area(b: &[f64; 4]) -> f64 {
    (b[2] - b[0]) * (b[3] - b[1])
}

/// Intersection over union.
fn overlap(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let height = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let width = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let both = height * width;
    if both == 0.0 { 0.0 } else { both / (area(a) + area(b) - both) }
}

fn non_max_suppression(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (boxes, scores) = (call.input(0)?, call.input(1)?);
    let ([n, count, 4], [n_too, classes, count_too]) = (boxes.dims(), scores.dims()) else {
        refuse!(
            "boxes {:?} and scores {:?}, but [n, boxes, 4] and [n, classes, boxes] are needed",
            boxes.dims(),
            scores.dims()
        );
    };
    if (n, count) != (n_too, count_too) {
        refuse!("boxes {:?} and scores {:?} do not agree", boxes.dims(), scores.dims());
    }
    let first = |index: usize| -> OpResult<Option<f64>> {
        Ok(call.optional(index).map(doubles).transpose()?.and_then(|v| v.first().copied()))
    };
    let most = call.integers(2)?.and_then(|v| v.first().copied()).unwrap_or(0).max(0) as usize;
    let (threshold, least) = (first(3)?.unwrap_or(0.0), first(4)?.unwrap_or(f64::NEG_INFINITY));
    let from_centre = call.flag("center_point_box", false)?;
    let (b, s) = (doubles(boxes)?, doubles(scores)?);
    let mut selected = Vec::new();
    for image in 0..*n {
        let corners: Vec<[f64; 4]> =
            b[image * count * 4..][..count * 4].chunks(4).map(|b| corners(b, from_centre)).collect();
        for class in 0..*classes {
            let scores = &s[(image * classes + class) * count..][..*count];
            let mut order: Vec<usize> = (0..*count).filter(|&i| scores[i] > least).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let mut kept: Vec<usize> = Vec::new();
            for i in order {
                if kept.len() == most {
                    break;
                }
                if kept.iter().all(|&k| overlap(&corners[i], &corners[k]) <= threshold) {
                    kept.push(i);
                    selected.extend([image as i64, class as i64, i as i64]);
                }
            }
        }
    }
    Ok(vec![Array::of([selected.len() / 3, 3], selected)])
}
