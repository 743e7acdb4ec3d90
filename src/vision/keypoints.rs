//! Keypoints: places of a body, a face, a corner.

use super::{largest, length};
use crate::error::Result;

/// A place, and how sure the network is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keypoint {
    /// In pixels from the left.
    pub x: f32,
    /// In pixels from the top.
    pub y: f32,
    /// From 0 to 1, or whatever the network says.
    pub score: f32,
}

/// The values behind a box as keypoints, `[x, y, score]` for each: YOLO's poses.
///
/// ```
/// use swath::vision::keypoints::{Keypoint, beside_box};
/// let points = beside_box(&[1.0, 2.0, 0.9, 3.0, 4.0, 0.1])?;
/// assert_eq!(points[1], Keypoint { x: 3.0, y: 4.0, score: 0.1 });
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// If the length is no multiple of 3.
pub fn beside_box(values: &[f32]) -> Result<Vec<Keypoint>> {
    super::rows("the values of keypoints", values.len(), 3)?;
    Ok(values.chunks_exact(3).map(|v| Keypoint { x: v[0], y: v[1], score: v[2] }).collect())
}

/// The place of each map's largest value: `maps` `[points, h, w]`, each cell `stride` pixels of the input. The place is moved by a
/// quarter of a cell to the larger neighbour, as Xiao et al. 2018 (arXiv:1804.06208) do, since maps are coarser than pixels.
///
/// ```
/// use swath::vision::keypoints::from_heat_maps;
/// let point = from_heat_maps(&[0.0, 0.2, 0.9, 0.5], 1, [1, 4], 4.0)?[0];
/// assert_eq!((point.x, point.y, point.score), ((2.5 + 0.25) * 4.0, 0.5 * 4.0, 0.9));
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// If the length does not fit.
pub fn from_heat_maps(maps: &[f32], points: usize, [h, w]: [usize; 2], stride: f32) -> Result<Vec<Keypoint>> {
    length("heat maps", maps.len(), points * h * w)?;
    let place = |map: &[f32]| {
        let (i, score) = largest(map.iter().copied()).unwrap_or((0, 0.0));
        let (x, y) = (i % w, i / w);
        // Towards the neighbour that is larger, where there are two.
        let nudge = |before: Option<usize>, after: Option<usize>| match (before, after) {
            (Some(b), Some(a)) if map[a] > map[b] => 0.25,
            (Some(b), Some(a)) if map[a] < map[b] => -0.25,
            _ => 0.0,
        };
        let dx = nudge((x > 0).then(|| i - 1), (x + 1 < w).then_some(i + 1));
        let dy = nudge((y > 0).then(|| i - w), (y + 1 < h).then_some(i + w));
        Keypoint { x: (x as f32 + 0.5 + dx) * stride, y: (y as f32 + 0.5 + dy) * stride, score }
    };
    Ok(maps.chunks((h * w).max(1)).map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_and_ties_are_not_nudged() {
        let maps =
            [9.0, 8.0, 0.0, 0.0, /* */ 0.0, 1.0, 0.0, 0.0, /* */ f32::NAN, f32::NAN, f32::NAN, f32::NAN];
        let points = from_heat_maps(&maps, 3, [2, 2], 1.0).unwrap();
        assert_eq!(points[0], Keypoint { x: 0.5, y: 0.5, score: 9.0 });
        assert_eq!(points[1], Keypoint { x: 1.5, y: 0.5, score: 1.0 });
        assert_eq!(points[2].score, 0.0);
        // Three rows: up is larger than down.
        let point = from_heat_maps(&[0.5, 0.9, 0.1], 1, [3, 1], 2.0).unwrap()[0];
        assert_eq!((point.x, point.y), (1.0, (1.5 - 0.25) * 2.0));
        assert!(from_heat_maps(&maps, 2, [2, 2], 1.0).is_err());
        assert!(beside_box(&[0.0; 4]).is_err() && beside_box(&[]).unwrap().is_empty());
    }
}
