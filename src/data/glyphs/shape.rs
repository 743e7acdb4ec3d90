//! The glyphs as strokes of a pen in a box of height 2 around the origin, y down.

use crate::random::Random;
use crate::rect::Rect;

/// A glyph: its name, and how it is drawn.
pub(super) struct Shape {
    pub(super) name: &'static str,
    draw: fn(&mut Pen),
}

/// All glyphs in the order of their classes. One more is one more line.
pub(super) const SHAPES: [Shape; 16] = [
    Shape { name: "0", draw: |p| p.arc([0.0, 0.0], [0.58, 0.9], 0.0, 360.0) },
    Shape { name: "1", draw: |p| p.line(&[[-0.35, -0.5], [0.1, -0.9], [0.1, 0.9]]) },
    Shape {
        name: "2",
        draw: |p| {
            p.arc([0.0, -0.38], [0.55, 0.52], 180.0, 385.0);
            p.on(&[[-0.58, 0.9], [0.6, 0.9]]);
        },
    },
    Shape {
        name: "3",
        draw: |p| {
            p.arc([-0.05, -0.46], [0.52, 0.44], 200.0, 450.0);
            p.arc([-0.05, 0.44], [0.6, 0.46], 270.0, 520.0);
        },
    },
    Shape { name: "4", draw: |p| p.line(&[[0.3, 0.9], [0.3, -0.9], [-0.6, 0.35], [0.65, 0.35]]) },
    Shape {
        name: "5",
        draw: |p| {
            p.line(&[[0.5, -0.9], [-0.42, -0.9], [-0.5, -0.12]]);
            p.arc([-0.02, 0.34], [0.58, 0.56], 215.0, 510.0);
        },
    },
    Shape {
        name: "6",
        draw: |p| {
            p.line(&[[0.32, -0.9], [-0.2, -0.4]]);
            p.arc([0.0, 0.38], [0.56, 0.52], 180.0, 540.0);
            p.line(&[[-0.2, -0.4], [-0.47, 0.05], [-0.56, 0.38]]);
        },
    },
    Shape { name: "7", draw: |p| p.line(&[[-0.55, -0.9], [0.55, -0.9], [-0.15, 0.9]]) },
    Shape {
        name: "8",
        draw: |p| {
            p.arc([0.0, -0.46], [0.45, 0.44], 0.0, 360.0);
            p.arc([0.0, 0.44], [0.56, 0.46], 0.0, 360.0);
        },
    },
    Shape {
        name: "9",
        draw: |p| {
            p.arc([0.0, -0.38], [0.54, 0.52], 0.0, 360.0);
            p.line(&[[0.54, -0.38], [0.45, 0.3], [0.15, 0.9]]);
        },
    },
    Shape { name: "triangle", draw: |p| p.line(&[[0.0, -0.85], [0.9, 0.75], [-0.9, 0.75], [0.0, -0.85]]) },
    Shape { name: "square", draw: |p| p.line(&[[-0.8, -0.8], [0.8, -0.8], [0.8, 0.8], [-0.8, 0.8], [-0.8, -0.8]]) },
    Shape {
        name: "star",
        draw: |p| {
            let tip = |i: i32| {
                let (sin, cos) = (-90.0 + 144.0 * i as f32).to_radians().sin_cos();
                [0.95 * cos, 0.95 * sin]
            };
            p.line(&[0, 1, 2, 3, 4, 0].map(tip));
        },
    },
    Shape {
        name: "arrow",
        draw: |p| {
            p.line(&[[-0.9, 0.0], [0.9, 0.0]]);
            p.line(&[[0.25, -0.6], [0.9, 0.0], [0.25, 0.6]]);
        },
    },
    Shape {
        name: "house",
        draw: |p| p.line(&[[-0.7, 0.9], [-0.7, -0.1], [0.0, -0.9], [0.7, -0.1], [0.7, 0.9], [-0.7, 0.9]]),
    },
    Shape {
        name: "wave",
        draw: |p| {
            p.arc([-0.45, 0.0], [0.45, 0.6], 180.0, 360.0);
            p.arc([0.45, 0.0], [0.45, 0.6], 180.0, 0.0);
        },
    },
];

/// Collects the segments of a glyph.
#[derive(Default)]
struct Pen {
    at: [f32; 2],
    segments: Vec<[[f32; 2]; 2]>,
}

impl Pen {
    /// From point to point.
    fn line(&mut self, points: &[[f32; 2]]) {
        if let Some((first, rest)) = points.split_first() {
            self.at = *first;
            self.on(rest);
        }
    }

    /// From where the pen is, from point to point.
    fn on(&mut self, points: &[[f32; 2]]) {
        for &to in points {
            self.segments.push([core::mem::replace(&mut self.at, to), to]);
        }
    }

    /// Along an ellipse, in degrees from the right, clockwise.
    fn arc(&mut self, centre: [f32; 2], radii: [f32; 2], from: f32, to: f32) {
        let point = |degrees: f32| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            [centre[0] + radii[0] * cos, centre[1] + radii[1] * sin]
        };
        let steps = ((to - from).abs() / 20.0).ceil().max(1.0);
        self.at = point(from);
        for i in 1..=steps as usize {
            self.on(&[point(from + (to - from) * i as f32 / steps)]);
        }
    }
}

/// A glyph in pixels around the origin: its segments, and the radius of the pen.
pub(super) struct Stroke {
    pub(super) segments: Vec<[[f32; 2]; 2]>,
    pub(super) radius: f32,
}

impl Stroke {
    /// A glyph of that height, leaning by that much, with the pen's width, the glyph's own width, a slant and a little
    /// unsteadiness at random.
    pub(super) fn new(shape: &Shape, height: f32, degrees: f32, random: &mut Random) -> Self {
        let mut pen = Pen::default();
        (shape.draw)(&mut pen);
        let (sin, cos) = degrees.to_radians().sin_cos();
        let radius = (height * random.range(0.04, 0.08)).max(0.6);
        let half = height / 2.0 - radius;
        let (width, slant) = (random.range(0.75, 1.1), random.range(-0.2, 0.2));
        // A smooth bend: the same point is moved alike in every segment.
        let bend = [random.range(-0.06, 0.06), random.range(-0.06, 0.06)];
        let place = |[x, y]: [f32; 2]| {
            let (x, y) = (width * x - slant * y + bend[0] * (3.0 * y).sin(), y + bend[1] * (3.0 * x).sin());
            [half * (cos * x - sin * y), half * (sin * x + cos * y)]
        };
        Self { segments: pen.segments.into_iter().map(|s| s.map(place)).collect(), radius }
    }

    /// The least rectangle around the ink.
    pub(super) fn extent(&self) -> Rect {
        let points = self.segments.iter().flatten();
        let start = Rect::new(f32::INFINITY, f32::INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY);
        points.fold(start, |r, &[x, y]| {
            Rect::new(
                r.left.min(x - self.radius),
                r.top.min(y - self.radius),
                r.right.max(x + self.radius),
                r.bottom.max(y + self.radius),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_glyph_fills_its_box() {
        for shape in &SHAPES {
            let mut pen = Pen::default();
            (shape.draw)(&mut pen);
            let points: Vec<[f32; 2]> = pen.segments.into_iter().flatten().collect();
            assert!(points.iter().flatten().all(|v| v.abs() <= 0.96), "{}", shape.name);
            let span = |axis: usize| {
                let values = points.iter().map(|p| p[axis]);
                values.clone().fold(f32::MIN, f32::max) - values.fold(f32::MAX, f32::min)
            };
            assert!(span(0).max(span(1)) >= 1.6, "{}: {} x {}", shape.name, span(0), span(1));
        }
    }
}
