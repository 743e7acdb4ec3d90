//! Random rotation, shift, scale and shear.

use super::{Error, Random, Rect, Result, Sample, Transform, UNLABELLED, check_interval, check_pixels, move_boxes};

/// torchvision's `RandomAffine`: a turn, a shift, a scale and a shear at random around the middle of the picture, values in
/// between by bilinear interpolation. Masks take the nearest pixel; boxes become the least ones around their corners.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomAffine {
    degrees: f32,
    translate: [f32; 2],
    scale: [f32; 2],
    shear: f32,
    fill: f32,
}

impl RandomAffine {
    /// Turns by `-degrees` to `degrees`, clockwise.
    pub fn new(degrees: f32) -> Self {
        Self { degrees, translate: [0.0; 2], scale: [1.0; 2], shear: 0.0, fill: 0.0 }
    }

    /// Shifts across and down by at most these shares of width and height, in both directions; 0 by default.
    pub fn translate(mut self, across: f32, down: f32) -> Self {
        self.translate = [across, down];
        self
    }

    /// Sizes of `low` to `high` times the original, 1 by default.
    pub fn scale(mut self, low: f32, high: f32) -> Self {
        self.scale = [low, high];
        self
    }

    /// Slants lines by `-degrees` to `degrees`, 0 by default.
    pub fn shear(mut self, degrees: f32) -> Self {
        self.shear = degrees;
        self
    }

    /// The value around the picture, 0 by default. Masks are unlabelled there.
    pub fn fill(mut self, fill: f32) -> Self {
        self.fill = fill;
        self
    }

    fn check(&self) -> Result<()> {
        check_interval("degrees", [0.0, self.degrees], 0.0)?;
        check_interval("translate across", [0.0, self.translate[0]], 0.0)?;
        check_interval("translate down", [0.0, self.translate[1]], 0.0)?;
        check_interval("scale", self.scale, f32::MIN_POSITIVE)?;
        if (0.0..90.0).contains(&self.shear) {
            return Ok(());
        }
        let rule = "it must be at least 0 and below 90 degrees".into();
        Err(Error::Setting { what: "shear", value: self.shear.to_string(), rule })
    }
}

/// `x' = a x + b y + c`, `y' = d x + e y + f`.
#[derive(Clone, Copy, Debug)]
struct Map([f32; 6]);

impl Map {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        let [a, b, c, d, e, f] = self.0;
        (a * x + b * y + c, d * x + e * y + f)
    }

    fn inverse(&self) -> Self {
        let [a, b, c, d, e, f] = self.0.map(f64::from);
        let det = a * e - b * d;
        let [p, q, r, s] = [e / det, -b / det, -d / det, a / det];
        Self([p, q, -(p * c + q * f), r, s, -(r * c + s * f)].map(|v| v as f32))
    }
}

impl Transform for RandomAffine {
    fn apply(&self, sample: &mut Sample, random: &mut Random) -> Result<()> {
        self.check()?;
        check_pixels("RandomAffine", sample)?;
        let [_, h, w] = sample.picture.size;
        let (sin, cos) = random.range(-self.degrees, self.degrees).to_radians().sin_cos();
        let [across, down] = self.translate.map(|t| random.range(-t, t));
        let scale = random.range(self.scale[0], self.scale[1]);
        let slant = random.range(-self.shear, self.shear).to_radians().tan();
        // Slant, scale and turn around the middle, then shift. The axis y points down, so this turns clockwise.
        let (a, b, d, e) = (scale * cos, scale * (cos * slant - sin), scale * sin, scale * (sin * slant + cos));
        let (mx, my) = (w as f32 / 2.0, h as f32 / 2.0);
        let c = mx - a * mx - b * my + (across * w as f32).round();
        let f = my - d * mx - e * my + (down * h as f32).round();
        let map = Map([a, b, c, d, e, f]);
        warp(sample, map.inverse(), self.fill);
        move_boxes(sample, |r| around(map, r));
        Ok(())
    }
}

/// Makes each pixel what lies at its place in the old picture.
fn warp(sample: &mut Sample, back: Map, fill: f32) {
    let [_, h, w] = sample.picture.size;
    let place = |i: usize| back.at((i % w) as f32 + 0.5, (i / w) as f32 + 0.5);
    let mut out = core::mem::take(&mut sample.scratch);
    out.clear();
    for plane in sample.picture.planes() {
        let pixel = |x: f32, y: f32| {
            let inside = x >= 0.0 && y >= 0.0 && x < w as f32 && y < h as f32;
            if inside { plane[y as usize * w + x as usize] } else { fill }
        };
        out.extend((0..h * w).map(|i| {
            let (x, y) = place(i);
            let (left, top) = ((x - 0.5).floor(), (y - 0.5).floor());
            let (right_share, lower_share) = (x - 0.5 - left, y - 0.5 - top);
            let row = |y| (1.0 - right_share) * pixel(left, y) + right_share * pixel(left + 1.0, y);
            (1.0 - lower_share) * row(top) + lower_share * row(top + 1.0)
        }));
    }
    if !sample.mask.is_empty() {
        let mask = core::mem::take(&mut sample.mask);
        let nearest = |i: usize| {
            let (x, y) = place(i);
            let inside = x >= 0.0 && y >= 0.0 && x < w as f32 && y < h as f32;
            if inside { mask[y as usize * w + x as usize] } else { UNLABELLED }
        };
        sample.mask = (0..h * w).map(nearest).collect();
    }
    sample.scratch = core::mem::replace(&mut sample.picture.values, out);
}

/// The least rectangle around a mapped one.
fn around(map: Map, r: Rect) -> Rect {
    let corners =
        [(r.left, r.top), (r.right, r.top), (r.left, r.bottom), (r.right, r.bottom)].map(|(x, y)| map.at(x, y));
    let of = |f: fn(f32, f32) -> f32, axis: fn(&(f32, f32)) -> f32| corners.iter().map(axis).reduce(f).unwrap_or(0.0);
    Rect::new(of(f32::min, |c| c.0), of(f32::min, |c| c.1), of(f32::max, |c| c.0), of(f32::max, |c| c.1))
}

#[cfg(test)]
mod tests {
    use super::super::test::{applied, assert_together, counted};
    use super::*;

    #[test]
    fn nothing_changes_nothing() {
        let s = counted(4, 5, Rect::new(1.0, 1.0, 3.0, 2.0));
        let same = &applied(&RandomAffine::new(0.0), &s, 1)[0];
        assert_together(same);
        assert_eq!(same, &s);
    }

    #[test]
    fn shifts_are_whole_pixels() {
        let s = counted(6, 6, Rect::new(0.0, 0.0, 6.0, 6.0));
        let mut places = std::collections::HashSet::new();
        for t in applied(&RandomAffine::new(0.0).translate(0.34, 0.34), &s, 300) {
            assert_together(&t);
            let at = t.mask.iter().position(|&m| m == 14).unwrap();
            places.insert((at % 6, at / 6));
            // The picture's pixel 14 is (2, 2): the box that was the whole has moved as much.
            let b = t.boxes[0].rect;
            assert_eq!(b.left, (at % 6).saturating_sub(2) as f32);
            assert_eq!(b.bottom, (at / 6 + 4).min(6) as f32);
        }
        assert_eq!(places.len(), 25);
    }

    #[test]
    fn a_quarter_turn_by_hand() {
        // (0, 1, -1, 0): what was on the left is on top; 4x4 around (2, 2).
        let mut s = counted(4, 4, Rect::new(0.0, 0.0, 1.0, 4.0));
        let map = Map([0.0, -1.0, 4.0, 1.0, 0.0, 0.0]);
        warp(&mut s, map.inverse(), 0.0);
        move_boxes(&mut s, |r| around(map, r));
        assert_eq!(s.mask[..4], [12, 8, 4, 0]);
        assert_together(&s);
        assert_eq!(s.boxes[0].rect, Rect::new(0.0, 0.0, 4.0, 1.0));
    }

    #[test]
    fn inverses_undo() {
        let map = Map([1.2, -0.3, 4.0, 0.5, 0.9, -2.0]);
        let (x, y) = map.at(3.0, 7.0);
        let (x, y) = map.inverse().at(x, y);
        assert!((x - 3.0).abs() < 1e-4 && (y - 7.0).abs() < 1e-4);
    }

    #[test]
    fn what_a_box_holds_stays_in_it() {
        // One bright pixel, and the box around it.
        let mut s = counted(21, 21, Rect::new(12.0, 7.0, 13.0, 8.0));
        s.picture.values.fill(0.0);
        s.picture.values[7 * 21 + 12] = 1.0;
        let turn = RandomAffine::new(180.0).scale(0.8, 1.5).shear(20.0);
        for t in applied(&turn, &s, 100) {
            let brightest = crate::metrics::argmax(&t.picture.values[..441]).unwrap();
            let (x, y) = ((brightest % 21) as f32 + 0.5, (brightest / 21) as f32 + 0.5);
            let b = t.boxes[0].rect;
            assert!(
                b.left - 0.5 <= x && x <= b.right + 0.5 && b.top - 0.5 <= y && y <= b.bottom + 0.5,
                "{b:?} {x} {y}"
            );
        }
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let mut s = counted(2, 2, Rect::default());
        let refused = [
            RandomAffine::new(-1.0),
            RandomAffine::new(f32::NAN),
            RandomAffine::new(1.0).scale(0.0, 1.0),
            RandomAffine::new(0.0).shear(90.0),
        ];
        assert!(refused.iter().all(|t| t.apply(&mut s, &mut Random::new(&[])).is_err()));
    }
}
