//! From pictures to a network's input, and from its outputs to what they mean: classes, boxes, masks, keypoints, text.
//!
//! Everything here works on slices of floats, whatever ran the network, and on [`Picture`]s of values from 0 to 1. Reading and writing
//! files is the feature `image`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`prepare`] | resizing, letterbox, centre crop, normalisation; and the way back |
//! | [`classes`] | softmax, the largest scores, names |
//! | [`yolo`] | boxes of YOLO v5 to v8 and YOLOX, from exported outputs and from raw heads |
//! | [`ssd`] | default boxes, and boxes relative to them; boxes as distances from points |
//! | [`nms`] | non-maximum suppression, for each class or across them |
//! | [`masks`] | masks from prototypes, classes of pixels, alpha |
//! | [`keypoints`] | keypoints beside boxes, and from heat maps |
//! | [`text`] | lines of text from a map, characters from a sequence |
//! | [`draw`] | boxes, masks, points and labels onto a picture |
//! | `files` | PNG and JPEG (feature `image`) |
//!
//! ```
//! use swath::Rect;
//! use swath::data::Picture;
//! use swath::vision::{draw, nms, prepare::Preparation, yolo};
//!
//! let picture = Picture::filled([3, 32, 64], 0.5);
//! let (input, placed) = Preparation::new([64, 64]).letterbox(114.0 / 255.0).apply(&picture)?;
//! assert_eq!(input.size, [3, 64, 64]);
//!
//! // A network would say: two boxes `[x, y, w, h, score]` of one class, each number for all boxes.
//! let output = [32.0, 33.0, 32.0, 32.0, 20.0, 20.0, 10.0, 10.0, 0.9, 0.8];
//! let found = nms::suppress(yolo::v8(&output, 1, 0.25)?, &nms::Options::default());
//! assert_eq!(found.len(), 1);
//! let found = found[0].moved(&placed);
//! assert_eq!(found.rect, Rect::new(22.0, 11.0, 42.0, 21.0));
//!
//! let mut picture = picture;
//! draw::rectangle(&mut picture, found.rect, [1.0, 0.0, 0.0], 2);
//! # Ok::<(), swath::Error>(())
//! ```

pub mod classes;
pub mod draw;
#[cfg(feature = "image")]
pub mod files;
mod font;
pub mod keypoints;
pub mod masks;
pub mod nms;
pub mod prepare;
pub mod ssd;
pub mod text;
pub mod yolo;

use crate::data::Picture;
use crate::error::{Error, Result, check_len as length};
use crate::rect::Rect;
use prepare::Placed;

/// A box with its class and how sure the network is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Where it is, in pixels of the network's input until it is [moved](Detection::moved).
    pub rect: Rect,
    /// From 0 to 1.
    pub score: f32,
    /// The class, counted from 0.
    pub class: usize,
    /// Which of the network's boxes it was, to find its mask or keypoints by.
    pub index: usize,
}

impl Detection {
    /// In pixels of the picture that was prepared, cut at its edges.
    pub fn moved(self, placed: &Placed) -> Self {
        Self { rect: placed.rect(self.rect), ..self }
    }
}

/// A box from its centre and its size.
fn centred(x: f32, y: f32, w: f32, h: f32) -> Rect {
    Rect::new(x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The largest of some scores and its number; NaN counts for nothing. `None` if there is none.
fn largest(scores: impl IntoIterator<Item = f32>) -> Option<(usize, f32)> {
    let all = scores.into_iter().enumerate().filter(|(_, s)| !s.is_nan());
    all.fold(None, |best, (i, s)| match best {
        Some((_, b)) if b >= s => best,
        _ => Some((i, s)),
    })
}

/// `Ok` with the number of rows, if so many floats are rows of that length.
fn rows(what: &'static str, len: usize, row: usize) -> Result<usize> {
    if row > 0 && len.is_multiple_of(row) {
        return Ok(len / row);
    }
    Err(Error::Setting { what, value: len.to_string(), rule: format!("a multiple of {row} is needed") })
}

/// Height and width of a picture that has pixels.
fn pixels(what: &'static str, picture: &Picture) -> Result<[usize; 2]> {
    let [c, h, w] = picture.size;
    if c * h * w == 0 || picture.values.len() != c * h * w {
        let takes = "[channels, height, width] of at least one pixel";
        return Err(Error::Rank { what, takes, gets: picture.size.to_vec() });
    }
    Ok([h, w])
}
