//! Text: where lines of it are in a map, and which characters a sequence of scores spells.

use super::{Detection, largest, length, rows};
use crate::error::Result;
use crate::rect::Rect;

/// What a sequence of scores spells: `scores` `[steps, characters + 1]`, the largest of each step, equal ones in a row once, class 0 being
/// none (CTC, Graves et al. 2006). Also the mean score of the characters that are left.
///
/// ```
/// use swath::vision::text::spell;
/// let scores = [0.1, 0.9, 0.0, /* */ 0.0, 0.7, 0.3, /* */ 1.0, 0.0, 0.0, /* */ 0.0, 1.0, 0.0, /* */ 0.0, 0.2, 0.8];
/// let (text, score) = spell(&scores, &["a", "b"])?;
/// assert!(text == "aab" && (score - 0.9).abs() < 1e-6);
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// If the length is no multiple of the number of characters and one.
pub fn spell(scores: &[f32], characters: &[impl AsRef<str>]) -> Result<(String, f32)> {
    let row = characters.len() + 1;
    rows("scores of characters", scores.len(), row)?;
    let (mut text, mut sum, mut count, mut last) = (String::new(), 0.0, 0, 0);
    for step in scores.chunks_exact(row) {
        let (class, score) = largest(step.iter().copied()).unwrap_or((0, 0.0));
        if class != 0 && class != last {
            text.push_str(characters[class - 1].as_ref());
            sum += score;
            count += 1;
        }
        last = class;
    }
    Ok((text, if count == 0 { 0.0 } else { sum / count as f32 }))
}

/// Boxes around what hangs together in a map `[h, w]` above `threshold`: pixels that touch by an edge. The score is the mean of its
/// pixels. Regions of fewer than `least` pixels are left out. From top to bottom.
///
/// ```
/// use swath::Rect;
/// use swath::vision::text::regions;
/// let map = [0.0, 0.875, 0.75, /* */ 0.0, 0.0, 0.0, /* */ 0.9, 0.0, 0.0];
/// let found = regions(&map, [3, 3], 0.5, 2)?;
/// assert_eq!((found.len(), found[0].rect, found[0].score), (1, Rect::new(1.0, 0.0, 3.0, 1.0), 0.8125));
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// If the length does not fit.
pub fn regions(map: &[f32], [h, w]: [usize; 2], threshold: f32, least: usize) -> Result<Vec<Detection>> {
    length("a map of text", map.len(), h * w)?;
    let mut seen: Vec<bool> = map.iter().map(|v| v.is_nan() || *v <= threshold).collect();
    let mut found = Vec::new();
    let mut open = Vec::new();
    for start in 0..map.len() {
        if std::mem::replace(&mut seen[start], true) {
            continue;
        }
        open.push(start);
        let (mut count, mut sum, mut edges) = (0usize, 0.0, [w, h, 0, 0]);
        while let Some(i) = open.pop() {
            let (x, y) = (i % w, i / w);
            count += 1;
            sum += f64::from(map[i]);
            edges = [edges[0].min(x), edges[1].min(y), edges[2].max(x + 1), edges[3].max(y + 1)];
            let near = [
                (x > 0).then(|| i - 1),
                (x + 1 < w).then_some(i + 1),
                (y > 0).then(|| i - w),
                (y + 1 < h).then_some(i + w),
            ];
            open.extend(near.into_iter().flatten().filter(|&j| !std::mem::replace(&mut seen[j], true)));
        }
        if count >= least {
            let [left, top, right, bottom] = edges.map(|e| e as f32);
            let (rect, score) = (Rect::new(left, top, right, bottom), (sum / count as f64) as f32);
            found.push(Detection { rect, score, class: 0, index: start });
        }
    }
    Ok(found)
}

/// A box of the core of a line of text as one of the whole line: DB's maps (arXiv:1911.08947) shrink lines, and `ratio` 1.5 undoes it. Each
/// edge moves by `area * ratio / perimeter`.
///
/// ```
/// use swath::Rect;
/// use swath::vision::text::grown;
/// assert_eq!(grown(Rect::new(10.0, 10.0, 50.0, 20.0), 1.5), Rect::new(4.0, 4.0, 56.0, 26.0));
/// ```
pub fn grown(rect: Rect, ratio: f32) -> Rect {
    let perimeter = 2.0 * (rect.right - rect.left + rect.bottom - rect.top);
    let by = if perimeter > 0.0 { rect.area() * ratio / perimeter } else { 0.0 };
    Rect::new(rect.left - by, rect.top - by, rect.right + by, rect.bottom + by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_any_kind() {
        assert!(regions(&[1.0; 40], [5, 7], 0.5, 1).is_err());
        assert!(regions(&[f32::NAN; 4], [2, 2], 0.5, 1).unwrap().is_empty());
        let all = regions(&vec![1.0; 500 * 500], [500, 500], 0.5, 1).unwrap();
        assert_eq!((all.len(), all[0].rect), (1, Rect::new(0.0, 0.0, 500.0, 500.0)));
    }

    #[test]
    fn a_ring_and_its_dot() {
        #[rustfmt::skip]
        let map = [
            1.0, 1.0, 1.0, 0.0,
            1.0, 0.0, 1.0, 0.0,
            1.0, 1.0, 1.0, 0.0,
            0.0, 0.0, 0.0, 1.0,
        ];
        let found = regions(&map, [4, 4], 0.5, 1).unwrap();
        let rects: Vec<Rect> = found.iter().map(|d| d.rect).collect();
        assert_eq!(rects, [Rect::new(0.0, 0.0, 3.0, 3.0), Rect::new(3.0, 3.0, 4.0, 4.0)]);
        assert_eq!(regions(&map, [4, 4], 0.5, 2).unwrap().len(), 1);
    }

    #[test]
    fn nothing_spells_nothing() {
        assert_eq!(spell(&[1.0, 0.0, 1.0, 0.0], &["a"]).unwrap(), (String::new(), 0.0));
        assert_eq!(spell(&[], &["a"]).unwrap().0, "");
        assert!(spell(&[1.0; 5], &["a"]).is_err());
    }
}
