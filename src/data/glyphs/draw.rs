//! Ink on a picture: smooth edges by the distance to the stroke.

use super::shape::Stroke;
use crate::data::Picture;
use crate::random::Random;

/// A picture and its mask while glyphs are drawn on it.
pub(super) struct Canvas<'a> {
    picture: &'a mut Picture,
    mask: &'a mut [u8],
    /// The squared distance of each pixel's centre to the stroke that is drawn.
    distances: &'a mut Vec<f32>,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(picture: &'a mut Picture, mask: &'a mut [u8], distances: &'a mut Vec<f32>) -> Self {
        Self { picture, mask, distances }
    }

    /// A dark ground that gets brighter in some direction.
    pub(super) fn ground(&mut self, random: &mut Random) {
        let [_, h, w] = self.picture.size;
        for plane in self.picture.planes_mut() {
            let base = random.range(0.05, 0.25);
            let [across, down] = [(); 2].map(|()| random.range(-0.1, 0.1));
            for (y, row) in plane.chunks_mut(w).enumerate() {
                let start = base + down * (y as f32 / h as f32 - 0.5) - across / 2.0;
                row.iter_mut().enumerate().for_each(|(x, v)| *v = start + across * x as f32 / w as f32);
            }
        }
    }

    /// Draws a stroke at a place. Where ink covers half of a pixel or more, the pixel is of that class.
    pub(super) fn draw(&mut self, stroke: &Stroke, place: [f32; 2], ink: [f32; 3], class: u8) {
        let [_, h, w] = self.picture.size;
        self.distances.clear();
        self.distances.resize(h * w, f32::INFINITY);
        let reach = stroke.radius + 0.5;
        for segment in &stroke.segments {
            let [a, b] = segment.map(|[x, y]| [x + place[0], y + place[1]]);
            // Pixels that the segment can reach.
            let stretch = |axis: usize, n: usize| {
                let (low, high) = (a[axis].min(b[axis]) - reach - 0.5, a[axis].max(b[axis]) + reach + 0.5);
                low.max(0.0) as usize..n.min(high.max(0.0) as usize + 1)
            };
            for y in stretch(1, h) {
                for x in stretch(0, w) {
                    let d = &mut self.distances[y * w + x];
                    *d = d.min(distance(a, b, [x as f32 + 0.5, y as f32 + 0.5]));
                }
            }
        }
        for (i, d) in self.distances.iter().enumerate().filter(|(_, d)| **d < reach * reach) {
            let cover = (reach - d.sqrt()).min(1.0);
            for (plane, ink) in self.picture.values.chunks_mut(h * w).zip(ink) {
                plane[i] += cover * (ink - plane[i]);
            }
            if cover >= 0.5 {
                self.mask[i] = class;
            }
        }
    }

    /// Adds noise of that deviation, within 0 to 1.
    pub(super) fn noise(&mut self, deviation: f32, random: &mut Random) {
        if deviation == 0.0 {
            return;
        }
        // The sum of four uniform numbers is nearly normal, and costs one step of the generator. Its variance is 4 / 12.
        let scale = deviation * 3f32.sqrt() / 65536.0;
        for v in &mut self.picture.values {
            let bits = random.bits();
            let sum: u64 = (0..4).map(|i| bits >> (16 * i) & 0xffff).sum();
            *v = (*v + scale * (sum as f32 - 131_070.0)).clamp(0.0, 1.0);
        }
    }
}

/// The squared distance of a point to a segment.
fn distance(a: [f32; 2], b: [f32; 2], p: [f32; 2]) -> f32 {
    let (along, to) = ([b[0] - a[0], b[1] - a[1]], [p[0] - a[0], p[1] - a[1]]);
    let length = along[0] * along[0] + along[1] * along[1];
    let part = if length > 0.0 { ((along[0] * to[0] + along[1] * to[1]) / length).clamp(0.0, 1.0) } else { 0.0 };
    let [x, y] = [to[0] - part * along[0], to[1] - part * along[1]];
    x * x + y * y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_by_hand() {
        let (a, b) = ([0.0, 0.0], [4.0, 0.0]);
        assert_eq!([[2.0, 3.0], [-3.0, 4.0], [5.0, 0.0]].map(|p| distance(a, b, p)), [9.0, 25.0, 1.0]);
        assert_eq!(distance(a, a, [3.0, 4.0]), 25.0);
    }

    #[test]
    fn noise_has_its_deviation() {
        let (mut picture, mut mask, mut distances) = (Picture::filled([1, 100, 100], 0.5), vec![0; 10_000], Vec::new());
        Canvas::new(&mut picture, &mut mask, &mut distances).noise(0.1, &mut Random::new(&[1]));
        let mean = picture.values.iter().sum::<f32>() / 1e4;
        let variance = picture.values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 1e4;
        assert!((mean - 0.5).abs() < 0.005 && (variance.sqrt() - 0.1).abs() < 0.005, "{mean} {variance}");
    }
}
