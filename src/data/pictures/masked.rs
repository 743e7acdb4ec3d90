//! Pictures with masks, for segmentation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Files, decode, entries, fault, is_picture};
use crate::data::dataset::Dataset;
use crate::data::sample::{Sample, UNLABELLED};
use crate::error::Result;
use crate::random::Random;

/// What the numbers of a mask mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskRule {
    /// The class itself; 255 does not count.
    Classes,
    /// Class 1 where the number is above this one, else class 0.
    Above(u8),
}

/// Pictures in one folder, and a PNG of the same name with the class of each pixel in another. Masks are grey or have a
/// palette, as those of CamVid and Pascal VOC.
///
/// ```no_run
/// use swath::data::{Dataset, MaskRule, Masked};
/// let isbi = Masked::open("isbi_membrane/image", "isbi_membrane/label", MaskRule::Above(127), ["membrane", "cell"])?;
/// assert_eq!(isbi.len(), 30);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Debug)]
pub struct Masked {
    files: Files,
    masks: Vec<PathBuf>,
    rule: MaskRule,
    classes: Vec<String>,
}

impl Masked {
    /// Lists both folders. Pictures and masks are read when they are asked for.
    ///
    /// # Errors
    /// If a folder cannot be read or has no pictures, or a picture has no mask.
    pub fn open<N: Into<String>>(
        pictures: impl AsRef<Path>,
        masks: impl AsRef<Path>,
        rule: MaskRule,
        classes: impl IntoIterator<Item = N>,
    ) -> Result<Self> {
        let (pictures, masks) = (pictures.as_ref(), masks.as_ref());
        let stem = |path: &PathBuf| path.file_stem().map(|s| s.to_owned());
        let by_name: BTreeMap<_, _> = entries(masks, is_picture)?.into_iter().map(|p| (stem(&p), p)).collect();
        let paths = entries(pictures, is_picture)?;
        if paths.is_empty() {
            return Err(fault(pictures, "has no JPEG or PNG file"));
        }
        let mask = |path: &PathBuf| {
            let found = by_name.get(&stem(path)).cloned();
            found.ok_or_else(|| fault(path, format!("has no mask of the same name in {}", masks.display())))
        };
        let masks = paths.iter().map(mask).collect::<Result<_>>()?;
        let classes = classes.into_iter().map(Into::into).collect();
        Ok(Self { files: Files::new(paths), masks, rule, classes })
    }

    /// Whether pictures are grey, of one channel; `false` by default.
    pub fn grey(mut self, grey: bool) -> Self {
        self.files.grey(grey);
        self
    }

    /// Whether pictures, not masks, stay in memory once they were read, a byte a value; `false` by default.
    pub fn keep(mut self, keep: bool) -> Self {
        self.files.keep(keep);
        self
    }
}

impl Dataset for Masked {
    fn len(&self) -> usize {
        self.masks.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn get(&self, index: usize, _: &mut Random, sample: &mut Sample) -> Result<()> {
        self.files.read(index, sample)?;
        let (size, mask) = decode::mask(&self.masks[index])?;
        if size != sample.picture.size[1..] {
            let [[h, w], of] = [size, [sample.picture.size[1], sample.picture.size[2]]];
            return Err(fault(&self.masks[index], format!("a mask of {h}x{w} for a picture of {}x{}", of[0], of[1])));
        }
        sample.mask = mask;
        if let MaskRule::Above(limit) = self.rule {
            sample.mask.iter_mut().for_each(|m| *m = u8::from(*m > limit));
        }
        let classes = self.classes.len();
        match sample.mask.iter().find(|m| usize::from(**m) >= classes && **m != UNLABELLED) {
            Some(m) => Err(fault(&self.masks[index], format!("has class {m}, but there are {classes}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, ImageFormat, Luma};

    use super::*;
    use crate::data::test::Folder;

    fn png(w: u32, h: u32, value: impl Fn(u32) -> u8) -> Vec<u8> {
        let mut out = std::io::Cursor::new(Vec::new());
        let image = GrayImage::from_fn(w, h, |x, y| Luma([value(y * w + x)]));
        image.write_to(&mut out, ImageFormat::Png).unwrap();
        out.into_inner()
    }

    #[test]
    fn pictures_and_masks_go_together_by_name() {
        let folder = Folder::new("masked");
        folder.write("image/1.png", &png(2, 2, |i| i as u8));
        folder.write("image/2.png", &png(2, 2, |i| i as u8));
        folder.write("label/1.png", &png(2, 2, |i| [0, 1, 255, 200][i as usize]));
        let open = |rule, classes: &[&str]| {
            Masked::open(folder.path().join("image"), folder.path().join("label"), rule, classes.iter().copied())
        };
        let e = open(MaskRule::Classes, &["a", "b"]).unwrap_err().to_string();
        assert!(e.contains("2.png: has no mask of the same name"), "{e}");
        folder.write("label/2.png", &png(2, 3, |_| 0));
        let get = |rule, index| {
            let mut s = Sample::default();
            let data = open(rule, &["a", "b"]).unwrap().grey(true).keep(true);
            data.get(index, &mut Random::new(&[]), &mut s).map(|()| s.mask)
        };
        assert_eq!(get(MaskRule::Above(127), 0).unwrap(), [0, 0, 1, 1]);
        let text = |rule, index| get(rule, index).unwrap_err().to_string();
        assert!(text(MaskRule::Classes, 0).contains("1.png: has class 200, but there are 2"));
        assert!(text(MaskRule::Classes, 1).contains("2.png: a mask of 3x2 for a picture of 2x2"));
    }
}
