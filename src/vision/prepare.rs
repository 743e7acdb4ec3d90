//! From a picture to a network's input, and back from places in the input to places in the picture.

use super::pixels;
use crate::data::Picture;
use crate::data::augment::{Filter, Resize};
use crate::error::{Error, Result};
use crate::ops::Array;
use crate::rect::Rect;

/// The longest side of an input.
const LARGEST: usize = 1 << 16;

/// How a picture of any size becomes one of a network's.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fit {
    /// Each side by its own factor.
    Stretch,
    /// Whole, with a border of one value around it.
    Letterbox(f32),
    /// Scaled so that its shorter side is this long, and the middle of it.
    Crop([usize; 2]),
}

/// Order of the values of a network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Planes,
    Interleaved,
}

/// What is done to pictures before a network sees them: size, colours, range, order.
///
/// By default they are stretched to the size bilinearly with antialiasing, and their values stay red, green, blue from 0 to 1, in planes.
///
/// ```
/// use swath::data::Picture;
/// use swath::vision::prepare::Preparation;
/// // torchvision's for ImageNet: shorter side 256, the middle 224x224.
/// let imagenet = Preparation::new([224, 224])
///     .centre_crop(256)
///     .normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
/// let (x, placed) = imagenet.input(&Picture::filled([3, 512, 640], 0.485))?;
/// assert_eq!(x.dims(), [1, 3, 224, 224]);
/// assert!(x.elements::<f32>().expect("floats")[0].abs() < 1e-5);
/// // The picture was halved, to 256x320; of that, 16 rows and 48 columns were cut off on each side.
/// assert_eq!(placed.point([0.0, 0.0]), [96.0, 32.0]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Preparation {
    size: [usize; 2],
    fit: Fit,
    filter: Filter,
    reversed: bool,
    scale: f32,
    mean: [f32; 3],
    std: [f32; 3],
    order: Order,
}

impl Preparation {
    /// To `[height, width]`.
    pub fn new(size: [usize; 2]) -> Self {
        let (fit, filter) = (Fit::Stretch, Filter::Bilinear);
        Self { size, fit, filter, reversed: false, scale: 1.0, mean: [0.0; 3], std: [1.0; 3], order: Order::Planes }
    }

    /// Keeps the picture's form: scaled to fit, in the middle, with `fill` around it (YOLO: 114 / 255).
    pub fn letterbox(mut self, fill: f32) -> Self {
        self.fit = Fit::Letterbox(fill);
        self
    }

    /// Keeps the picture's form: the shorter side is scaled to `shorter` pixels, and the middle is cut out. Not less than the size.
    pub fn centre_crop(mut self, shorter: usize) -> Self {
        self.fit = Fit::Crop([shorter, shorter]);
        self
    }

    /// Resizes by another filter.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// Blue, green, red.
    pub fn bgr(mut self) -> Self {
        self.reversed = true;
        self
    }

    /// Values from 0 to this, instead of 1, before the mean is taken off: 255 for networks that take bytes as they are.
    pub fn range(mut self, largest: f32) -> Self {
        self.scale = largest;
        self
    }

    /// `(value - mean) / std` for each channel, in the order that the network has them.
    pub fn normalize(mut self, mean: [f32; 3], std: [f32; 3]) -> Self {
        (self.mean, self.std) = (mean, std);
        self
    }

    /// Channels side by side: `[n, h, w, c]`.
    pub fn interleaved(mut self) -> Self {
        self.order = Order::Interleaved;
        self
    }

    /// The picture as the network sees it, in planes, and where it is there.
    ///
    /// # Errors
    /// If the picture has no pixels, or a setting is none: a size of 0, a deviation of 0, a crop of a smaller picture.
    pub fn apply(&self, picture: &Picture) -> Result<(Picture, Placed)> {
        let [h, w] = pixels("Preparation", picture)?;
        let ([oh, ow], channels) = (self.size, picture.size[0]);
        if channels > 3 {
            return Err(Error::Channels { what: "Preparation", takes: 3, gets: channels });
        }
        if let Some(std) = self.std.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            let rule = "it must be a finite number above 0".into();
            return Err(Error::Setting { what: "a deviation", value: std.to_string(), rule });
        }
        if !self.size.iter().all(|side| (1..=LARGEST).contains(side)) {
            let rule = format!("a height and a width are 1 to {LARGEST}");
            return Err(Error::Setting { what: "the size", value: format!("{oh}x{ow}"), rule });
        }
        let scaled = self.scaled([h, w])?;
        let resized = Resize::of(scaled).filter(self.filter).of_picture(picture)?;
        // Where the scaled picture begins in the input; before it where it is cut.
        let begin = |all: usize, part: usize| (all as isize - part as isize).div_euclid(2);
        let (top, left) = (begin(oh, scaled[0]), begin(ow, scaled[1]));
        let fill = if let Fit::Letterbox(fill) = self.fit { fill } else { 0.0 };
        let mut input = Picture::default();
        input.reset([channels, oh, ow]);
        for (c, plane) in input.values.chunks_mut(oh * ow).enumerate() {
            let from = if self.reversed { channels - 1 - c } else { c };
            let source = &resized.values[from * scaled[0] * scaled[1]..][..scaled[0] * scaled[1]];
            for (i, v) in plane.iter_mut().enumerate() {
                let (y, x) = ((i / ow) as isize - top, (i % ow) as isize - left);
                let inside = (0..scaled[0] as isize).contains(&y) && (0..scaled[1] as isize).contains(&x);
                let value = if inside { source[y as usize * scaled[1] + x as usize] } else { fill };
                *v = (value * self.scale - self.mean[c]) / self.std[c];
            }
        }
        let scale = [scaled[1] as f32 / w as f32, scaled[0] as f32 / h as f32];
        let placed = Placed { picture: [h, w], input: [oh, ow], scale, offset: [left as f32, top as f32] };
        Ok((input, placed))
    }

    /// As [`Preparation::apply`], as an array of one image: `[1, c, h, w]`, or `[1, h, w, c]` if it is interleaved.
    ///
    /// # Errors
    /// As [`Preparation::apply`].
    pub fn input(&self, picture: &Picture) -> Result<(Array, Placed)> {
        let (picture, placed) = self.apply(picture)?;
        let [c, h, w] = picture.size;
        let (dims, values) = match self.order {
            Order::Planes => ([1, c, h, w], picture.values),
            Order::Interleaved => {
                let side_by_side = (0..c * h * w).map(|i| picture.values[i % c * h * w + i / c]).collect();
                ([1, h, w, c], side_by_side)
            }
        };
        Ok((Array::of(dims, values), placed))
    }

    /// Height and width of the scaled picture.
    fn scaled(&self, [h, w]: [usize; 2]) -> Result<[usize; 2]> {
        let ([oh, ow], by) = (self.size, |side: usize, to: usize, of: usize| {
            // Rounded as Python does for what is exactly between: these sizes are never negative.
            ((side as f64 * to as f64 / of as f64).round_ties_even() as usize).max(1)
        });
        match self.fit {
            Fit::Stretch => Ok([oh, ow]),
            Fit::Letterbox(_) if oh as u128 * w as u128 <= ow as u128 * h as u128 => {
                Ok([oh, by(w, oh, h).min(ow.max(1))])
            }
            Fit::Letterbox(_) => Ok([by(h, ow, w).min(oh.max(1)), ow]),
            Fit::Crop([shorter, _]) if shorter < oh || shorter < ow => {
                let rule = format!("the middle of {oh}x{ow} is cut out");
                Err(Error::Setting { what: "the shorter side", value: shorter.to_string(), rule })
            }
            // torchvision cuts the longer side to a whole number.
            Fit::Crop([shorter, _]) if h <= w => Ok([shorter, (shorter as u128 * w as u128 / h as u128) as usize]),
            Fit::Crop([shorter, _]) => Ok([(shorter as u128 * h as u128 / w as u128) as usize, shorter]),
        }
    }
}

/// A part of a picture: all pixels that the box touches.
///
/// ```
/// use swath::Rect;
/// use swath::data::Picture;
/// let part = swath::vision::prepare::crop(&Picture::filled([3, 8, 9], 1.0), Rect::new(6.5, -2.0, 99.0, 2.0))?;
/// assert_eq!(part.size, [3, 2, 3]);
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// If there are none.
pub fn crop(picture: &Picture, rect: Rect) -> Result<Picture> {
    let [h, w] = pixels("crop", picture)?;
    let span = |from: f32, to: f32, all: usize| from.floor().max(0.0) as usize..(to.ceil().max(0.0) as usize).min(all);
    let (rows, columns) = (span(rect.top, rect.bottom, h), span(rect.left, rect.right, w));
    if rows.is_empty() || columns.is_empty() {
        let rule = format!("the picture has {h}x{w} pixels");
        return Err(Error::Setting { what: "the part of a picture", value: format!("{rect:?}"), rule });
    }
    let size = [picture.size[0], rows.len(), columns.len()];
    let lines = picture.planes().flat_map(|plane| rows.clone().map(move |y| &plane[y * w..][..w]));
    let values = lines.flat_map(|line| line[columns.clone()].iter().copied()).collect();
    Ok(Picture { size, values })
}

/// Where a picture is in a network's input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    picture: [usize; 2],
    input: [usize; 2],
    /// Pixels of the input for one of the picture: horizontally, vertically.
    scale: [f32; 2],
    /// Of the picture's corner in the input: from the left, from the top.
    offset: [f32; 2],
}

impl Placed {
    /// Height and width of the picture.
    pub fn picture(&self) -> [usize; 2] {
        self.picture
    }

    /// Height and width of the input.
    pub fn input(&self) -> [usize; 2] {
        self.input
    }

    /// A point `[x, y]` of the input in the picture, which may lie outside.
    pub fn point(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [(x - self.offset[0]) / self.scale[0], (y - self.offset[1]) / self.scale[1]]
    }

    /// A box of the input in the picture, cut at its edges.
    pub fn rect(&self, rect: Rect) -> Rect {
        let ([left, top], [right, bottom]) = (self.point([rect.left, rect.top]), self.point([rect.right, rect.bottom]));
        let [h, w] = self.picture.map(|e| e as f32);
        let (x, y) = (|v: f32| v.clamp(0.0, w), |v: f32| v.clamp(0.0, h));
        Rect::new(x(left), y(top), x(right), y(bottom))
    }

    /// The part of the input that shows the picture.
    pub fn input_rect(&self) -> Rect {
        let [h, w] = self.picture.map(|e| e as f32);
        let place = |v: f32, axis: usize, all: usize| (v * self.scale[axis] + self.offset[axis]).clamp(0.0, all as f32);
        let ([ih, iw], zero) = (self.input, 0.0);
        Rect::new(place(zero, 0, iw), place(zero, 1, ih), place(w, 0, iw), place(h, 1, ih))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(h: usize, w: usize) -> Picture {
        Picture { size: [3, h, w], values: (0..3 * h * w).map(|i| (i / (h * w)) as f32 * 0.25 + 0.25).collect() }
    }

    #[test]
    fn letterboxes_keep_the_form() {
        for (h, w, top, left) in
            [(100, 200, 16.0, 0.0), (200, 100, 0.0, 16.0), (64, 64, 0.0, 0.0), (3, 1000, 31.0, 0.0)]
        {
            let (x, placed) = Preparation::new([64, 64]).letterbox(1.0).apply(&ramp(h, w)).unwrap();
            assert_eq!((x.size, placed.offset), ([3, 64, 64], [left, top]), "{h}x{w}");
            let r = placed.input_rect();
            // The border has the value, the picture's corner its own.
            assert!((x.values[r.top as usize * 64 + r.left as usize] - 0.25).abs() < 1e-6);
            assert_eq!(x.values.iter().filter(|v| **v == 1.0).count(), 3 * (4096 - r.area() as usize));
            let back = placed.rect(r);
            assert!((back.right - w as f32).abs() < 1e-3 && (back.bottom - h as f32).abs() < 1e-3 && back.left == 0.0);
        }
        let (_, placed) = Preparation::new([64, 64]).letterbox(1.0).apply(&ramp(100, 200)).unwrap();
        assert_eq!(placed.rect(Rect::new(16.0, 24.0, 999.0, 40.0)), Rect::new(50.0, 25.0, 200.0, 75.0));
    }

    #[test]
    fn colours_ranges_and_orders() {
        let prep = Preparation::new([1, 2]).bgr().range(255.0).normalize([255.0 * 0.75, 0.0, 0.0], [1.0, 127.5, 1.0]);
        let check = |prep: Preparation, dims: [usize; 4], values: [f32; 6]| {
            let (x, _) = prep.input(&ramp(2, 4)).unwrap();
            let close = x.elements::<f32>().unwrap().iter().zip(values).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(x.dims() == dims && close, "{x:?}");
        };
        check(prep.clone(), [1, 3, 1, 2], [0.0, 0.0, 1.0, 1.0, 63.75, 63.75]);
        check(prep.interleaved(), [1, 1, 2, 3], [0.0, 1.0, 63.75, 0.0, 1.0, 63.75]);
    }

    #[test]
    fn crops_are_the_middle() {
        // Columns of the picture by their number.
        let picture = Picture { size: [1, 4, 8], values: (0..32).map(|i| (i % 8) as f32).collect() };
        let (x, placed) = Preparation::new([2, 2]).centre_crop(4).apply(&picture).unwrap();
        assert_eq!(x.values, [3.0, 4.0, 3.0, 4.0]);
        assert_eq!(placed.rect(Rect::new(0.0, 0.0, 2.0, 2.0)), Rect::new(3.0, 1.0, 5.0, 3.0));
        assert_eq!(placed.input_rect(), Rect::new(0.0, 0.0, 2.0, 2.0));
    }

    #[test]
    fn what_is_none_is_refused() {
        let text = |prep: Preparation, picture: &Picture| prep.input(picture).unwrap_err().to_string();
        assert!(text(Preparation::new([0, 4]), &ramp(2, 2)).contains("the size is 0x4"));
        assert!(text(Preparation::new([0, 4]).letterbox(0.0), &ramp(2, 2)).contains("the size is 0x"));
        assert!(text(Preparation::new([8, 4]).centre_crop(6), &ramp(2, 2)).contains("the shorter side is 6"));
        assert!(text(Preparation::new([4, 4]).normalize([0.0; 3], [1.0, 0.0, 1.0]), &ramp(2, 2)).contains("deviation"));
        assert!(text(Preparation::new([4, 4]), &Picture::default()).contains("at least one pixel"));
        assert!(text(Preparation::new([4, 4]), &Picture::filled([4, 2, 2], 0.0)).contains("4"));
        assert!(text(Preparation::new([usize::MAX, 4]).letterbox(0.0), &ramp(2, 2)).contains("the size"));
    }
}
