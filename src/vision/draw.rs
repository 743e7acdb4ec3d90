//! Drawing onto pictures. What lies outside of a picture is left out.

use super::font;
use super::keypoints::Keypoint;
use super::masks::Mask;
use crate::data::Picture;
use crate::error::{Error, Result};
use crate::rect::Rect;

/// Colours that are told apart well, one for each class and then again.
///
/// ```
/// use swath::vision::draw::color;
/// assert!(color(0) != color(1) && color(0) == color(12));
/// ```
pub fn color(class: usize) -> [f32; 3] {
    const COLORS: [[u8; 3]; 12] = [
        [230, 57, 70],
        [29, 158, 117],
        [66, 103, 210],
        [245, 166, 35],
        [155, 89, 182],
        [0, 188, 212],
        [139, 195, 74],
        [255, 112, 67],
        [236, 64, 122],
        [121, 85, 72],
        [255, 214, 0],
        [96, 125, 139],
    ];
    COLORS[class % COLORS.len()].map(|v| f32::from(v) / 255.0)
}

/// Mixes a colour into the pixels of rows and columns, `share` of it.
fn fill(picture: &mut Picture, [left, top, right, bottom]: [f32; 4], color: [f32; 3], share: f32) {
    let [_, h, w] = picture.size;
    let span = |from: f32, to: f32, all: usize| {
        let at = |v: f32| if v.is_nan() { 0 } else { (v.round().max(0.0) as usize).min(all) };
        at(from)..at(to)
    };
    let (rows, columns) = (span(top, bottom, h), span(left, right, w));
    for (plane, v) in picture.planes_mut().zip(color) {
        for row in rows.clone() {
            for pixel in plane[row * w..][..w].get_mut(columns.clone()).unwrap_or(&mut []) {
                *pixel += (v - *pixel) * share;
            }
        }
    }
}

/// The outline of a box, `thickness` pixels inwards from its edges.
///
/// ```
/// use swath::Rect;
/// use swath::data::Picture;
/// use swath::vision::draw;
/// let mut picture = Picture::filled([1, 4, 4], 0.0);
/// draw::rectangle(&mut picture, Rect::new(1.0, 1.0, 9.0, 9.0), [1.0; 3], 1);
/// assert_eq!(picture.values.iter().sum::<f32>(), 5.0);
/// ```
pub fn rectangle(picture: &mut Picture, r: Rect, color: [f32; 3], thickness: usize) {
    let t = (thickness as f32).min((r.right - r.left) / 2.0).min((r.bottom - r.top) / 2.0).max(1.0);
    let sides = [
        [r.left, r.top, r.right, r.top + t],
        [r.left, r.bottom - t, r.right, r.bottom],
        [r.left, r.top + t, r.left + t, r.bottom - t],
        [r.right - t, r.top + t, r.right, r.bottom - t],
    ];
    sides.into_iter().for_each(|side| fill(picture, side, color, 1.0));
}

/// A point as a filled circle.
pub fn point(picture: &mut Picture, [x, y]: [f32; 2], color: [f32; 3], radius: f32) {
    let lines = radius.ceil().clamp(0.0, 1e4) as i32;
    for line in -lines..=lines {
        let half = (radius * radius - (line * line) as f32).max(0.0).sqrt();
        fill(picture, [x - half, y + line as f32, x + half + 1.0, y + line as f32 + 1.0], color, 1.0);
    }
}

/// The keypoints of at least some score.
pub fn keypoints(picture: &mut Picture, points: &[Keypoint], color: [f32; 3], radius: f32, threshold: f32) {
    for p in points.iter().filter(|p| p.score >= threshold) {
        point(picture, [p.x, p.y], color, radius);
    }
}

/// Mixes a colour into the pixels of a mask: `opacity` of it where the mask is 1.
///
/// # Errors
/// If the mask is not of the picture's size.
pub fn mask(picture: &mut Picture, mask: &Mask, color: [f32; 3], opacity: f32) -> Result<()> {
    let [_, h, w] = picture.size;
    if mask.size != [h, w] {
        return Err(Error::Shapes { what: "a mask and its picture", left: mask.size.to_vec(), right: vec![h, w] });
    }
    for (plane, v) in picture.planes_mut().zip(color) {
        plane.iter_mut().zip(&mask.values).for_each(|(pixel, m)| *pixel += (v - *pixel) * m * opacity);
    }
    Ok(())
}

/// What is left of a picture in front of another background, by a mask.
///
/// # Errors
/// If the mask is not of the picture's size.
pub fn background(picture: &mut Picture, mask: &Mask, color: [f32; 3]) -> Result<()> {
    let inverse = Mask { size: mask.size, values: mask.values.iter().map(|m| 1.0 - m).collect() };
    self::mask(picture, &inverse, color, 1.0)
}

/// A line of text, white on a colour, with its lower left corner at a point; below the point where there is no room above it. Letters are
/// 6 by 8 pixels times `size`; what is not ASCII is a box.
///
/// ```
/// use swath::data::Picture;
/// use swath::vision::draw;
/// let mut picture = Picture::filled([3, 20, 40], 0.0);
/// draw::label(&mut picture, [2.0, 12.0], "cat", [1.0, 0.0, 0.0], 1);
/// // 3 letters and a border: 20 by 10 pixels, red or white.
/// assert_eq!(picture.values[..800].iter().sum::<f32>(), 200.0);
/// ```
pub fn label(picture: &mut Picture, [x, y]: [f32; 2], text: &str, color: [f32; 3], size: usize) {
    let size = size.clamp(1, 1000) as f32;
    let (w, h) = (text.chars().count() as f32 * 6.0 * size + 2.0 * size, 10.0 * size);
    let top = if y - h >= 0.0 { y - h } else { y };
    fill(picture, [x, top, x + w, top + h], color, 1.0);
    for (i, letter) in text.chars().enumerate() {
        for (column, bits) in font::columns(letter).iter().enumerate() {
            for row in (0..8).filter(|row| bits >> row & 1 == 1) {
                let at = |v: usize, from: f32| from + (v as f32 + 1.0) * size;
                let (left, upper) = (at(6 * i + column, x), at(row, top));
                fill(picture, [left, upper, left + size, upper + size], [1.0; 3], 1.0);
            }
        }
    }
}

/// A box with its name and how sure the network is.
pub fn detection(picture: &mut Picture, found: &super::Detection, name: &str) {
    let color = color(found.class);
    let size = (picture.size[1].min(picture.size[2]) / 240).clamp(1, 8);
    rectangle(picture, found.rect, color, size + 1);
    let text = format!("{name} {:.0}%", 100.0 * found.score);
    label(picture, [found.rect.left, found.rect.top], text.trim_start(), color, size);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_drawn_outside() {
        for r in [
            Rect::new(-5.0, -5.0, -1.0, -1.0),
            Rect::new(f32::NAN, 0.0, 2.0, 2.0),
            Rect::new(3.0, 3.0, 1.0, 1.0),
            Rect::new(-1e30, -1e30, 1e30, 1e30),
            Rect::new(f32::NEG_INFINITY, 0.0, f32::INFINITY, 1.0),
        ] {
            let mut p = Picture::filled([3, 4, 5], 0.0);
            rectangle(&mut p, r, [1.0; 3], 2);
            point(&mut p, [r.left, r.bottom], [1.0; 3], 3.0);
            label(&mut p, [r.right, r.top], "far away", [0.5; 3], 3);
        }
        let mut empty = Picture::default();
        rectangle(&mut empty, Rect::new(0.0, 0.0, 2.0, 2.0), [1.0; 3], 1);
        let mut p = Picture::filled([1, 3, 3], 0.0);
        rectangle(&mut p, Rect::new(-9.0, -9.0, -1.0, -1.0), [1.0; 3], 1);
        assert!(p.values.iter().all(|v| *v == 0.0));
    }

    #[test]
    fn points_are_round() {
        let mut p = Picture::filled([1, 7, 7], 0.0);
        point(&mut p, [3.0, 3.0], [1.0; 3], 2.0);
        assert_eq!((p.values[3 * 7 + 1], p.values[3 * 7 + 5], p.values[7 + 1], p.values[0]), (1.0, 1.0, 0.0, 0.0));
        let points = [Keypoint { x: 0.0, y: 0.0, score: 0.1 }, Keypoint { x: 6.0, y: 6.0, score: 0.9 }];
        let mut p = Picture::filled([1, 7, 7], 0.0);
        keypoints(&mut p, &points, [1.0; 3], 0.0, 0.5);
        assert_eq!(p.values.iter().sum::<f32>(), 1.0);
    }

    #[test]
    fn masks_mix() {
        let half = Mask::new([1, 2], vec![0.0, 0.5]).unwrap();
        let mut p = Picture::filled([3, 1, 2], 0.5);
        mask(&mut p, &half, [1.0, 0.5, 0.0], 0.5).unwrap();
        assert_eq!(p.values, [0.5, 0.625, 0.5, 0.5, 0.5, 0.375]);
        let mut p = Picture::filled([1, 1, 2], 0.5);
        background(&mut p, &half, [1.0; 3]).unwrap();
        assert_eq!(p.values, [1.0, 0.75]);
        assert!(mask(&mut Picture::filled([3, 2, 2], 0.0), &half, [1.0; 3], 1.0).is_err());
    }

    #[test]
    fn letters_differ() {
        let drawn = |text: &str| {
            let mut p = Picture::filled([1, 10, 8], 0.0);
            label(&mut p, [0.0, 10.0], text, [0.0; 3], 1);
            p.values
        };
        let all: Vec<Vec<f32>> = ('!'..='~').map(|c| drawn(&c.to_string())).collect();
        for (i, a) in all.iter().enumerate() {
            assert!(a.contains(&1.0) && !all[..i].contains(a), "letter {i}");
        }
        assert!(drawn(" ").iter().all(|v| *v == 0.0));
    }
}
