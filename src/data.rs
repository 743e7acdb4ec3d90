//! Data sets, what is done to their pictures, and batches of them.
//!
//! A [`Dataset`] gives samples by number: [`Mnist`], [`Cifar`], [`Glyphs`], which are always there, and with the feature
//! `image` folders of pictures by class, boxes of Pascal VOC, and pictures with masks. [`Transformed`] and [`Mixup`] change
//! them on the way ([`augment`]), and a [`Loader`] makes batches on threads of its own.
//!
//! Every order and every random choice follows from seed, epoch and index alone: the same batches for any number of
//! threads, and from the middle of an epoch on.
//!
//! ```
//! use swath::data::augment::{Normalize, RandomCrop};
//! use swath::data::{Glyphs, Loader, Transformed};
//! let data = Transformed::new(Glyphs::new(64, 1)).with(RandomCrop::new(32).padding(2)).with(Normalize::new([0.5], [0.5]));
//! let loader = Loader::new(data, 16)?.shuffle(true).seed(7).threads(2);
//! for epoch in 0..2 {
//!     for batch in loader.epoch(epoch) {
//!         let batch = batch?;
//!         assert_eq!(batch.input.dims(), [16, 1, 32, 32]);
//!         assert_eq!(batch.labels.len(), 16);
//!     }
//! }
//! # Ok::<(), swath::Error>(())
//! ```

pub mod augment;
mod batch;
mod cifar;
mod dataset;
mod glyphs;
mod loader;
mod mnist;
#[cfg(feature = "image")]
mod pictures;
mod sample;
#[cfg(test)]
mod test;

use core::ops::Range;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use swath_kernels::shape::checked_elements;

use crate::error::{Error, Result};
use crate::gzip::Members;
use crate::tensor::Tensor;

pub use augment::{Mixup, Transform, Transformed};
pub use batch::Batch;
pub use cifar::{Cifar, CifarKind};
pub use dataset::{Dataset, Subset, split};
pub use glyphs::Glyphs;
pub use loader::{Batches, Loader};
pub use mnist::Mnist;
#[cfg(feature = "image")]
pub(crate) use pictures::read_picture;
#[cfg(feature = "image")]
pub use pictures::{ImageFolder, MaskRule, Masked, Voc};
pub use sample::{LabelledBox, Picture, Sample, UNLABELLED};

/// An array of bytes from an IDX file, <https://yann.lecun.org/exdb/mnist/>: extents, and elements in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    dims: Vec<usize>,
    bytes: Vec<u8>,
}

/// The element type of IDX files that are read: unsigned bytes.
const UNSIGNED_BYTE: u8 = 0x08;

impl Idx {
    /// Reads a file, which may be compressed with gzip.
    ///
    /// # Errors
    /// If the file cannot be read, is not IDX, has elements other than unsigned bytes, or is truncated or too long.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let io = |error| Error::Io { action: "read", path: path.into(), error };
        let file = BufReader::new(File::open(path).map_err(io)?);
        Self::read_either(file).map_err(|problem| Error::Format { file: path.display().to_string(), problem })
    }

    /// Takes the content of a file, which may be compressed with gzip.
    ///
    /// # Errors
    /// As [`Idx::open`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::read_either(bytes).map_err(|problem| Error::Format { file: "the IDX data".into(), problem })
    }

    fn read_either(mut source: impl BufRead) -> Result<Self, String> {
        let start = source.fill_buf().map_err(|e| format!("cannot be read: {e}"))?;
        if start.starts_with(&[0x1f, 0x8b]) { Self::read(Members::new(source)) } else { Self::read(source) }
    }

    fn read(mut source: impl Read) -> Result<Self, String> {
        let mut word = |what: &str| {
            let mut bytes = [0u8; 4];
            source.read_exact(&mut bytes).map_err(|e| format!("truncated or damaged in {what}: {e}"))?;
            Ok::<_, String>(bytes)
        };
        let magic = word("its magic number")?;
        let [0, 0, UNSIGNED_BYTE, rank @ 1..=8] = magic else {
            let magic = u32::from_be_bytes(magic);
            return Err(format!("not an IDX file of bytes: its magic number is {magic:#010x}, not 0x0000080n"));
        };
        let dims: Vec<usize> =
            (0..rank).map(|_| Ok(u32::from_be_bytes(word("its extents")?) as usize)).collect::<Result<_, String>>()?;
        let expected = checked_elements("IDX array", &dims).map_err(|e| e.to_string())?;
        // One byte more than there should be tells a file that is too long. Memory grows with what is read, so a
        // wrong header cannot ask for more than the file has.
        let mut bytes = Vec::new();
        let read = source.take(expected as u64 + 1).read_to_end(&mut bytes);
        if let Err(e) = read {
            return Err(format!("damaged after {} of {expected} bytes: {e}", bytes.len()));
        }
        match bytes.len() {
            n if n == expected => Ok(Self { dims, bytes }),
            n if n < expected => Err(format!("truncated: extents {dims:?} take {expected} bytes, there are {n}")),
            _ => Err(format!("longer than its extents {dims:?}, which take {expected} bytes")),
        }
    }

    /// The extents.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The elements in row-major order.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Grey images of one size with their labels, as in MNIST.
#[derive(Clone, Debug)]
pub struct LabelledImages {
    size: [usize; 2],
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl LabelledImages {
    /// Reads the IDX files of images `[n, h, w]` and of labels `[n]`.
    ///
    /// # Errors
    /// Those of [`Idx::open`], for other ranks, and if the numbers of images and labels differ.
    pub fn open(images: impl AsRef<Path>, labels: impl AsRef<Path>) -> Result<Self> {
        let (images_file, labels_file) = (images.as_ref(), labels.as_ref());
        let (images, labels) = (Idx::open(images_file)?, Idx::open(labels_file)?);
        let &[n, h, w] = images.dims() else {
            let problem = format!("images have extents [n, h, w], this file has {:?}", images.dims);
            return Err(Error::Format { file: images_file.display().to_string(), problem });
        };
        if labels.dims() != [n] {
            let problem = format!(
                "labels of the shape {:?} do not go with the {n} images of {}",
                labels.dims,
                images_file.display()
            );
            return Err(Error::Format { file: labels_file.display().to_string(), problem });
        }
        Ok(Self { size: [h, w], pixels: images.bytes, labels: labels.bytes })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Height and width in pixels.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Bytes of image `index`, row by row.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn pixels(&self, index: usize) -> &[u8] {
        let [h, w] = self.size;
        &self.pixels[index * h * w..(index + 1) * h * w]
    }

    /// The labels.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// Images `range` as `[n, 1, h, w]`, a pixel of 0..=255 as `(pixel / 255 - mean) / std`.
    ///
    /// # Errors
    /// If the range goes beyond the last image.
    pub fn images(&self, range: Range<usize>, mean: f32, std: f32) -> Result<Tensor> {
        let [h, w] = self.size;
        if range.start > range.end || range.end > self.len() {
            let rule = format!("there are {} images", self.len());
            return Err(Error::Setting { what: "the range of images", value: format!("{range:?}"), rule });
        }
        let mut t = Tensor::zeros([range.len(), 1, h, w])?;
        let pixels = &self.pixels[range.start * h * w..range.end * h * w];
        for (v, &p) in t.as_mut_slice().iter_mut().zip(pixels) {
            *v = (f32::from(p) / 255.0 - mean) / std;
        }
        Ok(t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        Idx::read(bytes).unwrap_err()
    }

    #[test]
    fn reads_and_refuses() {
        let good = [0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6];
        let idx = Idx::read(&good[..]).unwrap();
        assert_eq!((idx.dims(), idx.bytes()), (&[2, 3][..], &[1, 2, 3, 4, 5, 6][..]));
        assert!(text(&good[..16]).contains("[2, 3] take 6 bytes, there are 4"));
        assert!(text(&good[..9]).contains("in its extents"));
        assert!(text(&[good.as_slice(), &[7]].concat()).contains("longer than"));
        assert!(text(&[0, 0, 13, 1, 0, 0, 0, 0]).contains("0x00000d01"));
        assert!(text(&[0, 0]).contains("magic"));
        assert!(text(&[[0, 0, 8, 8].as_slice(), &[255; 32]].concat()).contains("more than"));
        // A header that promises four gigabytes costs nothing.
        assert!(text(&[0, 0, 8, 1, 255, 255, 255, 255, 1]).contains("there are 1"));
    }

    #[test]
    fn missing_files_are_named() {
        let e = Idx::open("/nonexistent/images.gz").unwrap_err().to_string();
        assert!(e.starts_with("cannot read /nonexistent/images.gz: "), "{e}");
    }
}
