//! A data set that is always there: small pictures of drawn digits and signs, made from their number.
//!
//! Every picture has a class, boxes around what was drawn, and a mask. Place, size, slant, width of the pen, colours and
//! noise are random, so that there is something to learn; a digit is legible to people at any setting.

mod draw;
mod shape;

use super::dataset::{Dataset, check_index};
use super::sample::{LabelledBox, Sample};
use crate::error::{Error, Result};
use crate::random::Random;
use crate::rect::Rect;
use draw::Canvas;
use shape::{SHAPES, Stroke};

/// Pictures of drawn glyphs: the digits 0 to 9, then triangle, square, star, arrow, house and wave.
///
/// Sample `index` follows from the seed and the index alone, whatever the epoch. With one glyph a picture its class is the
/// picture's; with several there are boxes only. Masks are 0 for the ground and the class plus 1 for a glyph.
///
/// ```
/// use swath::Random;
/// use swath::data::{Dataset, Glyphs, Sample};
/// let data = Glyphs::new(1000, 7).size(64).objects(2, 5);
/// let mut sample = Sample::default();
/// data.get(0, &mut Random::new(&[]), &mut sample)?;
/// assert_eq!(sample.picture.size, [1, 64, 64]);
/// assert!((2..=5).contains(&sample.boxes.len()));
/// assert_eq!(sample.mask.len(), 64 * 64);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Glyphs {
    len: usize,
    seed: u64,
    size: usize,
    classes: Vec<String>,
    color: bool,
    objects: [usize; 2],
    degrees: f32,
    noise: f32,
}

/// Tells the random numbers of these pictures from those of loaders.
const GLYPH: u64 = 0x0067_6c79_7068;

impl Glyphs {
    /// `len` grey pictures of 32x32 pixels with one digit each.
    pub fn new(len: usize, seed: u64) -> Self {
        let classes = names(10);
        Self { len, seed, size: 32, classes, color: false, objects: [1, 1], degrees: 15.0, noise: 0.05 }
    }

    /// Height and width in pixels, 32 by default.
    pub fn size(mut self, size: usize) -> Self {
        self.size = size;
        self
    }

    /// How many of the glyphs are drawn, 1 to 16 and 10 by default: the digits.
    pub fn classes(mut self, classes: usize) -> Self {
        self.classes = names(classes);
        self
    }

    /// Whether pictures have three channels, `false` by default.
    pub fn color(mut self, color: bool) -> Self {
        self.color = color;
        self
    }

    /// The least and the largest number of glyphs in a picture, 1 by default. There are fewer where none fits any more.
    pub fn objects(mut self, least: usize, most: usize) -> Self {
        self.objects = [least, most];
        self
    }

    /// By how many degrees a glyph leans to either side at most, 15 by default.
    pub fn degrees(mut self, degrees: f32) -> Self {
        self.degrees = degrees;
        self
    }

    /// The deviation of the noise, 0.05 by default, where the brightest is 1.
    pub fn noise(mut self, noise: f32) -> Self {
        self.noise = noise;
        self
    }

    fn check(&self) -> Result<()> {
        let fault = |what, value: String, rule: &str| Err(Error::Setting { what, value, rule: rule.into() });
        if !(16..=4096).contains(&self.size) {
            return fault("the size of a picture of glyphs", self.size.to_string(), "it is 16 to 4096 pixels");
        }
        if self.classes.is_empty() || self.objects[0] > self.objects[1] || self.objects[1] == 0 || self.objects[1] > 100
        {
            let value = format!("{} to {} of {} classes", self.objects[0], self.objects[1], self.classes.len());
            return fault("the number of glyphs", value, "there are up to 100 in a picture, of 1 to 16 classes");
        }
        if !(0.0..=180.0).contains(&self.degrees) || !(0.0..=1.0).contains(&self.noise) {
            let value = format!("{} degrees, {} noise", self.degrees, self.noise);
            return fault("the variation of glyphs", value, "glyphs lean by 0 to 180 degrees, and noise is 0 to 1");
        }
        Ok(())
    }

    /// Draws one more glyph, unless there is no room for it.
    fn add(&self, canvas: &mut Canvas, random: &mut Random, sample: &mut Sample) {
        const TRIES: usize = 20;
        let (single, side) = (self.objects[1] == 1, self.size as f32);
        for _ in 0..TRIES {
            let class = random.below(self.classes.len());
            let height = side * if single { random.range(0.5, 0.85) } else { random.range(0.25, 0.45) };
            let stroke = Stroke::new(&SHAPES[class], height, random.range(-self.degrees, self.degrees), random);
            let extent = stroke.extent();
            let room = [side - (extent.right - extent.left), side - (extent.bottom - extent.top)];
            let [x, y] = room.map(|room| random.range(0.0, room));
            if room.iter().any(|room| *room < 0.0) {
                continue;
            }
            let rect = Rect::new(x, y, x + extent.right - extent.left, y + extent.bottom - extent.top);
            if sample.boxes.iter().any(|b| b.rect.intersection(&rect).area() > 0.0) {
                continue;
            }
            let ink = if self.color { [(); 3].map(|()| random.unit()) } else { [1.0; 3] };
            // The brightest of the three is 1, so that every ink stands out from the ground.
            let most = ink.into_iter().fold(0.01, f32::max);
            let bright = random.range(0.65, 1.0);
            canvas.draw(&stroke, [x - extent.left, y - extent.top], ink.map(|i| bright * i / most), class as u8 + 1);
            sample.boxes.push(LabelledBox { class, rect, difficult: false });
            return;
        }
    }
}

fn names(classes: usize) -> Vec<String> {
    SHAPES.iter().take(classes).map(|s| s.name.to_string()).collect()
}

impl Dataset for Glyphs {
    fn len(&self) -> usize {
        self.len
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn get(&self, index: usize, _: &mut Random, sample: &mut Sample) -> Result<()> {
        self.check()?;
        check_index(index, self.len)?;
        let mut random = Random::new(&[self.seed, index as u64, GLYPH]);
        sample.clear();
        sample.picture.reset([if self.color { 3 } else { 1 }, self.size, self.size]);
        sample.mask.resize(self.size * self.size, 0);
        let mut canvas = Canvas::new(&mut sample.picture, &mut sample.mask, &mut sample.scratch);
        canvas.ground(&mut random);
        // The canvas borrows the sample's memory, so boxes gather in one of their own.
        let mut drawn = Sample { boxes: core::mem::take(&mut sample.boxes), ..Sample::default() };
        let [least, most] = self.objects;
        for _ in 0..least + random.below(most - least + 1) {
            self.add(&mut canvas, &mut random, &mut drawn);
        }
        canvas.noise(self.noise, &mut random);
        sample.boxes = drawn.boxes;
        if let ([1, 1], [only]) = (self.objects, &sample.boxes[..]) {
            sample.labels.push((only.class, 1.0));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(data: &Glyphs, index: usize) -> Sample {
        let mut s = Sample::default();
        data.get(index, &mut Random::new(&[]), &mut s).unwrap();
        s.scratch.clear();
        s
    }

    #[test]
    fn pictures_follow_from_seed_and_index() {
        let data = Glyphs::new(50, 3);
        assert_eq!(get(&data, 7), get(&data, 7));
        assert_ne!(get(&data, 7), get(&data, 8));
        assert_ne!(get(&data, 7), get(&Glyphs::new(50, 4), 7));
        // Memory that held something else makes no difference.
        let mut s = get(&Glyphs::new(1, 0).color(true).size(40).objects(3, 4), 0);
        data.get(7, &mut Random::new(&[9]), &mut s).unwrap();
        s.scratch.clear();
        assert_eq!(s, get(&data, 7));
    }

    #[test]
    fn every_picture_has_a_glyph_in_its_box_and_mask() {
        let data = Glyphs::new(400, 1).classes(16);
        let mut seen = [0; 16];
        for index in 0..data.len() {
            let s = get(&data, index);
            assert_eq!(s.boxes.len(), 1, "{index}");
            let (class, rect) = (s.boxes[0].class, s.boxes[0].rect);
            assert_eq!(s.label(), Some(class));
            seen[class] += 1;
            let inked: Vec<usize> = (0..1024).filter(|&i| s.mask[i] != 0).collect();
            assert!(inked.len() > 20, "{index}: {} pixels", inked.len());
            assert!(inked.iter().all(|&i| usize::from(s.mask[i]) == class + 1));
            // The mask's extent is the box, to less than a pixel.
            let (xs, ys) = (inked.iter().map(|i| i % 32), inked.iter().map(|i| i / 32));
            let extent = [xs.clone().min(), ys.clone().min(), xs.max(), ys.max()].map(|e| e.unwrap() as f32);
            let want = [rect.left, rect.top, rect.right - 1.0, rect.bottom - 1.0];
            assert!(extent.iter().zip(want).all(|(e, w)| (e - w).abs() <= 1.0), "{index}: {extent:?} for {want:?}");
            // Ink is brighter than the ground.
            let mean = |ink: bool| {
                let of = (0..1024).filter(|&i| (s.mask[i] != 0) == ink).map(|i| s.picture.values[i]);
                of.clone().sum::<f32>() / of.count() as f32
            };
            assert!(mean(true) > mean(false) + 0.2, "{index}");
            assert!(s.picture.values.iter().all(|v| (0.0..=1.0).contains(v)));
        }
        assert!(seen.iter().all(|&n| n > 5), "{seen:?}");
    }

    #[test]
    fn several_do_not_touch() {
        let data = Glyphs::new(50, 2).size(64).objects(3, 5).color(true);
        for index in 0..50 {
            let s = get(&data, index);
            assert!((2..=5).contains(&s.boxes.len()) && s.labels.is_empty());
            for (i, a) in s.boxes.iter().enumerate() {
                assert!(s.boxes[..i].iter().all(|b| a.rect.iou(&b.rect) == 0.0));
            }
            assert_eq!(s.picture.size, [3, 64, 64]);
        }
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let all = Glyphs::new(2, 1);
        let refused =
            [all.clone().size(8), all.clone().classes(0), all.clone().objects(3, 2), all.clone().noise(f32::NAN)];
        for data in refused {
            assert!(data.get(0, &mut Random::new(&[]), &mut Sample::default()).is_err());
        }
        assert!(all.get(2, &mut Random::new(&[]), &mut Sample::default()).is_err());
    }
}
