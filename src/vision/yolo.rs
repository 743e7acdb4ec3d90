//! Boxes of the YOLO family, from the outputs of exported models and from the raw heads before decoding.
//!
//! All boxes are in pixels of the network's input. What is below the threshold is left out; [`super::nms`] does the rest.
//!
//! Sources: <https://github.com/ultralytics/yolov5> (v5), arXiv:2207.02696 (v7), arXiv:2209.02976 (v6), <https://docs.ultralytics.com>
//! (v8, DFL of arXiv:2006.04388), arXiv:2107.08430 (YOLOX).

use super::{Detection, centred, largest, length, rows, sigmoid};
use crate::error::{Error, Result};
use crate::rect::Rect;

/// Exported v5, v6 and v7: `[boxes, 5 + classes]`, each row centre, size, objectness and the classes' scores.
/// The score is objectness times the largest class.
///
/// ```
/// use swath::Rect;
/// use swath::vision::yolo;
/// let rows = [50.0, 40.0, 20.0, 10.0, 0.8, 0.1, 0.5, /* */ 0.0, 0.0, 9.0, 9.0, 0.1, 1.0, 0.0];
/// let found = yolo::v5(&rows, 2, 0.25)?;
/// assert_eq!((found.len(), found[0].class, found[0].score), (1, 1, 0.4));
/// assert_eq!(found[0].rect, Rect::new(40.0, 35.0, 60.0, 45.0));
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// If the length is no multiple of `5 + classes`.
pub fn v5(output: &[f32], classes: usize, threshold: f32) -> Result<Vec<Detection>> {
    rows("the output of YOLO v5", output.len(), 5 + classes)?;
    let one = |(index, row): (usize, &[f32])| {
        let (class, score) = largest(row[5..].iter().copied()).map(|(class, s)| (class, s * row[4]))?;
        (score >= threshold).then(|| Detection { rect: centred(row[0], row[1], row[2], row[3]), score, class, index })
    };
    Ok(output.chunks_exact(5 + classes).enumerate().filter_map(one).collect())
}

/// Exported v8 and later with boxes in the last dimension: `[4 + classes, boxes]`, rows of centres, sizes and the classes' scores.
///
/// # Errors
/// If the length is no multiple of `4 + classes`.
pub fn v8(output: &[f32], classes: usize, threshold: f32) -> Result<Vec<Detection>> {
    v8_with(output, classes, 0, threshold)
}

/// As [`v8`], where each box has so many more values behind its classes: coefficients of masks, or keypoints, which [`extras`] gets.
///
/// # Errors
/// If the length is no multiple of `4 + classes + more`.
pub fn v8_with(output: &[f32], classes: usize, more: usize, threshold: f32) -> Result<Vec<Detection>> {
    let boxes = rows("the output of YOLO v8", output.len(), 4 + classes + more)?;
    let at = |row: usize, i: usize| output[row * boxes + i];
    let one = |index: usize| {
        let (class, score) = largest((0..classes).map(|c| at(4 + c, index)))?;
        let rect = || centred(at(0, index), at(1, index), at(2, index), at(3, index));
        (score >= threshold).then(|| Detection { rect: rect(), score, class, index })
    };
    Ok((0..boxes).filter_map(one).collect())
}

/// The values of box `index` behind `first` rows of an output `[rows, boxes]`.
///
/// # Errors
/// If there is no such box, or the length is no multiple of the number of rows.
pub fn extras(output: &[f32], all: usize, first: usize, index: usize) -> Result<Vec<f32>> {
    let boxes = rows("the output of YOLO v8", output.len(), all)?;
    if index >= boxes {
        let rule = format!("there are {boxes}, counted from 0");
        return Err(Error::Setting { what: "the number of a box", value: index.to_string(), rule });
    }
    Ok((first..all).map(|row| output[row * boxes + index]).collect())
}

/// A raw head of v5 or v7 before decoding: `[anchors, 5 + classes, h, w]`, logits. `anchors` are widths and heights in pixels, `stride`
/// pixels of a cell.
///
/// # Errors
/// If the length does not fit.
pub fn v5_head(
    head: &[f32],
    anchors: &[[f32; 2]],
    [h, w]: [usize; 2],
    stride: f32,
    classes: usize,
    threshold: f32,
) -> Result<Vec<Detection>> {
    let cells = h * w;
    length("a head of YOLO v5", head.len(), anchors.len() * (5 + classes) * cells)?;
    let mut found = Vec::new();
    for (a, (anchor, head)) in anchors.iter().zip(head.chunks(((5 + classes) * cells).max(1))).enumerate() {
        for cell in 0..cells {
            let at = |row: usize| sigmoid(head[row * cells + cell]);
            let Some((class, score)) = largest((0..classes).map(|c| at(5 + c))) else { continue };
            let score = score * at(4);
            if score < threshold {
                continue;
            }
            let place = |row: usize, cell: usize| (at(row) * 2.0 - 0.5 + cell as f32) * stride;
            let size = |row: usize, anchor: f32| (at(row) * 2.0).powi(2) * anchor;
            let rect = centred(place(0, cell % w), place(1, cell / w), size(2, anchor[0]), size(3, anchor[1]));
            found.push(Detection { rect, score, class, index: a * cells + cell });
        }
    }
    Ok(found)
}

/// A raw head of v8: `[4 * bins + classes, h, w]`, logits. Each edge's distance from the cell's centre is the mean over `bins` cells under
/// a softmax (16 in all published models).
///
/// # Errors
/// If the length does not fit.
pub fn v8_head(
    head: &[f32],
    bins: usize,
    [h, w]: [usize; 2],
    stride: f32,
    classes: usize,
    threshold: f32,
) -> Result<Vec<Detection>> {
    let cells = h * w;
    length("a head of YOLO v8", head.len(), (4 * bins + classes) * cells)?;
    let one = |cell: usize| {
        let at = |row: usize| head[row * cells + cell];
        let (class, logit) = largest((0..classes).map(|c| at(4 * bins + c)))?;
        let score = sigmoid(logit);
        if score < threshold {
            return None;
        }
        let distance = |side: usize| {
            let p = super::classes::softmax(&(0..bins).map(|b| at(side * bins + b)).collect::<Vec<_>>());
            p.iter().enumerate().map(|(b, p)| b as f32 * p).sum::<f32>() * stride
        };
        let (x, y) = (((cell % w) as f32 + 0.5) * stride, ((cell / w) as f32 + 0.5) * stride);
        let rect = Rect::new(x - distance(0), y - distance(1), x + distance(2), y + distance(3));
        Some(Detection { rect, score, class, index: cell })
    };
    Ok((0..cells).filter_map(one).collect())
}

/// YOLOX: `[boxes, 5 + classes]`, rows as v5's, but centres and sizes relative to cells: `(x + column) * stride` and `exp(w) * stride`.
/// The boxes are those of the grids of each stride, row by row; `input` is height and width of the network's input.
///
/// # Errors
/// If the length does not fit.
pub fn x(
    output: &[f32],
    input: [usize; 2],
    strides: &[usize],
    classes: usize,
    threshold: f32,
) -> Result<Vec<Detection>> {
    let grids = strides.iter().map(|&s| (s.max(1), input[0] / s.max(1), input[1] / s.max(1)));
    let cells: Vec<[f32; 3]> = grids
        .flat_map(|(s, h, w)| (0..h * w).map(move |i| [(i % w.max(1)) as f32, (i / w.max(1)) as f32, s as f32]))
        .collect();
    length("the output of YOLOX", output.len(), cells.len() * (5 + classes))?;
    let mut found = v5(output, classes, threshold)?;
    for b in &mut found {
        let (row, [column, line, stride]) = (&output[b.index * (5 + classes)..], cells[b.index]);
        let place = |v: f32, cell: f32| (v + cell) * stride;
        b.rect = centred(place(row[0], column), place(row[1], line), row[2].exp() * stride, row[3].exp() * stride);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logit(p: f32) -> f32 {
        (p / (1.0 - p)).ln()
    }

    fn close(a: Rect, b: [f32; 4]) {
        let a = [a.left, a.top, a.right, a.bottom];
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3), "{a:?} for {b:?}");
    }

    #[test]
    fn a_head_of_v5_decodes_to_what_its_export_says() {
        // One anchor of 10x20, two cells side by side, one class, stride 8; only the second cell is sure.
        let (s, o) = (logit(0.75), logit(0.9));
        let head = [0.0, s, 0.0, s, 0.0, 0.0, 0.0, s, -9.0, o, 0.0, o];
        let found = v5_head(&head, &[[10.0, 20.0]], [1, 2], 8.0, 1, 0.25).unwrap();
        assert_eq!((found.len(), found[0].index), (1, 1));
        assert!((found[0].score - 0.81).abs() < 1e-5);
        // x: (0.75 * 2 - 0.5 + 1) * 8 = 16, y likewise without the column, 8; w: (0.5 * 2)^2 * 10; h: (0.75 * 2)^2 * 20.
        close(found[0].rect, [16.0 - 5.0, 8.0 - 22.5, 16.0 + 5.0, 8.0 + 22.5]);
        assert!(v5_head(&head[1..], &[[10.0, 20.0]], [1, 2], 8.0, 1, 0.25).is_err());
    }

    #[test]
    fn a_head_of_v8_takes_the_mean_of_bins() {
        // 3 bins, one cell of stride 16, two classes: distances 1, 0, 2 and 0.5 cells.
        let sure = |bin: usize| (0..3).map(move |b| if b == bin { 40.0 } else { 0.0 });
        let mut head: Vec<f32> = sure(1).chain(sure(0)).chain(sure(2)).collect();
        head.extend([40.0, 40.0, 0.0]);
        head.extend([logit(0.2), logit(0.7)]);
        let found = v8_head(&head, 3, [1, 1], 16.0, 2, 0.5).unwrap();
        assert_eq!(found[0].class, 1);
        close(found[0].rect, [8.0 - 16.0, 8.0, 8.0 + 32.0, 8.0 + 8.0]);
        assert!(v8_head(&head, 3, [1, 1], 16.0, 2, 0.8).unwrap().is_empty());
    }

    #[test]
    fn yolox_counts_cells_grid_by_grid() {
        // 16x16 pixels: 4 cells of stride 8, one of 16.
        let mut rows = vec![0.0; 5 * 6];
        rows[3 * 6..4 * 6].copy_from_slice(&[0.5, 0.25, 0.0, 2f32.ln(), 1.0, 0.6]);
        rows[4 * 6..].copy_from_slice(&[0.5, 0.5, 0.0, 0.0, 0.5, 1.0]);
        let found = x(&rows, [16, 16], &[8, 16], 1, 0.3).unwrap();
        close(found[0].rect, [12.0 - 4.0, 10.0 - 8.0, 12.0 + 4.0, 10.0 + 8.0]);
        close(found[1].rect, [0.0, 0.0, 16.0, 16.0]);
        assert_eq!((found[0].score, found[1].score), (0.6, 0.5));
        assert!(x(&rows, [16, 8], &[8, 16], 1, 0.3).is_err());
    }

    #[test]
    fn extras_follow_their_box() {
        // 4 + 1 rows and 2 more, 3 boxes.
        let mut output: Vec<f32> = (0..21).map(|v| v as f32).collect();
        output[12..15].copy_from_slice(&[0.1, 0.9, f32::NAN]);
        let found = v8_with(&output, 1, 2, 0.5).unwrap();
        assert_eq!((found.len(), found[0].index), (1, 1));
        assert_eq!(extras(&output, 7, 5, 1).unwrap(), [16.0, 19.0]);
        assert!(extras(&output, 7, 5, 3).is_err() && extras(&output, 8, 5, 0).is_err());
        assert!(v8(&output, 0, 0.5).is_err() && v5(&output, 3, 0.5).is_err());
        assert!(v5(&[], 80, 0.5).unwrap().is_empty());
    }
}
