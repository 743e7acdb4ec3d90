//! Transformations of samples: sizes, normalisation, and the random ones that make more of few pictures. Boxes and masks
//! move with their picture. Names and meanings are torchvision's.
//!
//! ```
//! use swath::data::{Dataset, Glyphs, Sample, Transformed};
//! use swath::data::augment::{Normalize, RandomCrop, RandomHorizontalFlip};
//! use swath::Random;
//! let data = Transformed::new(Glyphs::new(10, 1))
//!     .with(RandomCrop::new(32).padding(4))
//!     .with(RandomHorizontalFlip::new(0.5))
//!     .with(Normalize::new([0.5], [0.25]));
//! let mut sample = Sample::default();
//! data.get(3, &mut Random::new(&[7, 0, 3]), &mut sample)?;
//! assert_eq!(sample.picture.size, [1, 32, 32]);
//! # Ok::<(), swath::Error>(())
//! ```

mod affine;
mod color;
mod crop;
mod cutout;
mod flip;
mod mixup;
mod normalize;
mod resize;

use core::fmt;

pub use affine::RandomAffine;
pub use color::ColorJitter;
pub use crop::{CenterCrop, PaddingMode, RandomCrop};
pub use cutout::Cutout;
pub use flip::{RandomHorizontalFlip, RandomVerticalFlip};
pub use mixup::Mixup;
pub use normalize::Normalize;
pub use resize::{Filter, Resize};

use super::dataset::Dataset;
use super::sample::{Sample, UNLABELLED};
use crate::error::{Error, Result};
use crate::random::Random;
use crate::rect::Rect;

/// Something that is done to a sample.
pub trait Transform: fmt::Debug + Send + Sync {
    /// Does it. Every random choice follows from `random`.
    ///
    /// # Errors
    /// If the sample is of a size, or an option of a value, for which it does not exist.
    fn apply(&self, sample: &mut Sample, random: &mut Random) -> Result<()>;
}

/// A data set whose samples are transformed.
pub struct Transformed<D> {
    dataset: D,
    transforms: Vec<Box<dyn Transform>>,
}

impl<D: Dataset> Transformed<D> {
    /// Without a transformation so far.
    pub fn new(dataset: D) -> Self {
        Self { dataset, transforms: Vec::new() }
    }

    /// With one more, which is done last.
    pub fn with(mut self, transform: impl Transform + 'static) -> Self {
        self.transforms.push(Box::new(transform));
        self
    }

    /// With one more that was made elsewhere.
    pub fn with_boxed(mut self, transform: Box<dyn Transform>) -> Self {
        self.transforms.push(transform);
        self
    }
}

impl<D: Dataset> Dataset for Transformed<D> {
    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn classes(&self) -> &[String] {
        self.dataset.classes()
    }

    fn get(&self, index: usize, random: &mut Random, sample: &mut Sample) -> Result<()> {
        self.dataset.get(index, random, sample)?;
        sample.check_mask()?;
        self.transforms.iter().try_for_each(|t| t.apply(sample, random))
    }
}

/// The share of a box that must stay visible for it to be kept: what is cut off further cannot be recognised.
const VISIBLE: f32 = 0.1;

/// Moves boxes by `to`, cuts them at the picture's new edges, and drops those of which too little is left.
fn move_boxes(sample: &mut Sample, to: impl Fn(Rect) -> Rect) {
    let [_, h, w] = sample.picture.size;
    let frame = Rect::new(0.0, 0.0, w as f32, h as f32);
    sample.boxes.retain_mut(|b| {
        let moved = to(b.rect);
        b.rect = moved.intersection(&frame);
        b.rect.area() > VISIBLE * moved.area()
    });
}

/// Cuts the window of `size` at `(top, left)`, which may lie outside, out of picture and mask. `source` says which line
/// or column of the given number of them stands for one, or that there is none: then the picture has `fill` there and the
/// mask is unlabelled.
fn window(
    sample: &mut Sample,
    (top, left): (isize, isize),
    [oh, ow]: [usize; 2],
    fill: f32,
    source: impl Fn(isize, usize) -> Option<usize>,
) {
    let [channels, h, w] = sample.picture.size;
    let columns: Vec<Option<usize>> = (0..ow).map(|x| source(left + x as isize, w)).collect();
    let rows: Vec<Option<usize>> = (0..oh).map(|y| source(top + y as isize, h)).collect();
    let mut out = core::mem::take(&mut sample.scratch);
    out.clear();
    for plane in sample.picture.planes() {
        for row in &rows {
            let at = |column: &Option<usize>| row.zip(*column).map_or(fill, |(y, x)| plane[y * w + x]);
            out.extend(columns.iter().map(at));
        }
    }
    if !sample.mask.is_empty() {
        let mask = core::mem::take(&mut sample.mask);
        let pixels = rows.iter().flat_map(|row| columns.iter().map(move |column| row.zip(*column)));
        sample.mask = pixels.map(|p| p.map_or(UNLABELLED, |(y, x)| mask[y * w + x])).collect();
    }
    sample.picture.size = [channels, oh, ow];
    sample.scratch = core::mem::replace(&mut sample.picture.values, out);
    let moved = (left as f32, top as f32);
    move_boxes(sample, |b| Rect::new(b.left - moved.0, b.top - moved.1, b.right - moved.0, b.bottom - moved.1));
}

/// `Ok` if a range of numbers rises and is finite.
fn check_interval(what: &'static str, [low, high]: [f32; 2], least: f32) -> Result<()> {
    if low.is_finite() && high.is_finite() && least <= low && low <= high {
        return Ok(());
    }
    let rule = format!("it goes from a number of at least {least} to one that is not smaller");
    Err(Error::Setting { what, value: format!("{low} to {high}"), rule })
}

/// `Ok` if a picture has pixels.
fn check_pixels(what: &'static str, sample: &Sample) -> Result<()> {
    if sample.picture.values.is_empty() {
        let gets = sample.picture.size.to_vec();
        return Err(Error::Rank { what, takes: "[channels, height, width] of at least one pixel", gets });
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod test {
    use super::super::sample::{LabelledBox, Picture};
    use super::*;

    /// Two channels of `h` x `w` pixels, 0, 1, 2 .. and 100, 101 .., masked by number, with one box.
    pub(in super::super) fn counted(h: usize, w: usize, rect: Rect) -> Sample {
        let plane = |first: usize| (first..first + h * w).map(|v| v as f32);
        Sample {
            picture: Picture { size: [2, h, w], values: plane(0).chain(plane(100)).collect() },
            labels: vec![(1, 1.0)],
            boxes: vec![LabelledBox { class: 1, rect, difficult: false }],
            mask: (0..h * w).map(|v| v as u8).collect(),
            scratch: Vec::new(),
        }
    }

    /// A sample after a transformation under some keys.
    pub(in super::super) fn applied(t: &dyn Transform, sample: &Sample, keys: u64) -> Vec<Sample> {
        let one = |key| {
            let mut s = sample.clone();
            t.apply(&mut s, &mut Random::new(&[key])).unwrap();
            s.scratch.clear();
            s
        };
        (0..keys).map(one).collect()
    }

    /// Picture and mask tell the same of every pixel, unless it is not labelled.
    pub(in super::super) fn assert_together(s: &Sample) {
        let [_, h, w] = s.picture.size;
        assert_eq!((s.mask.len(), s.picture.values.len()), (h * w, 2 * h * w));
        for (i, &m) in s.mask.iter().enumerate().filter(|(_, m)| **m != UNLABELLED) {
            assert_eq!([s.picture.values[i], s.picture.values[h * w + i]], [f32::from(m), f32::from(m) + 100.0]);
        }
    }
}
