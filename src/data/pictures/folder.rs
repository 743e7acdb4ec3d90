//! Pictures in a folder for each class.

use std::path::Path;

use super::{Files, entries, fault, is_picture};
use crate::data::dataset::Dataset;
use crate::data::sample::Sample;
use crate::error::Result;
use crate::random::Random;

/// torchvision's `ImageFolder`: `root/cat/1.jpg`, `root/dog/x.png`. Classes and files are in the order of their names; files
/// that are neither JPEG nor PNG by name are left out. Pictures are of three channels, and may differ in size:
/// [`Resize`](crate::data::augment::Resize) and crops make them equal.
///
/// ```no_run
/// use swath::data::{Dataset, ImageFolder};
/// let train = ImageFolder::open("cifar10_jpeg/train")?.keep(true);
/// println!("{} pictures of {:?}", train.len(), train.classes());
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Debug)]
pub struct ImageFolder {
    files: Files,
    labels: Vec<usize>,
    classes: Vec<String>,
}

impl ImageFolder {
    /// Lists the folder. Pictures are read when they are asked for.
    ///
    /// # Errors
    /// If the folder cannot be read, or has no folder of a class, or a class has no picture.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let (mut paths, mut labels, mut classes) = (Vec::new(), Vec::new(), Vec::new());
        for folder in entries(root, Path::is_dir)? {
            let pictures = entries(&folder, is_picture)?;
            if pictures.is_empty() {
                return Err(fault(&folder, "the folder of a class has no JPEG or PNG file"));
            }
            labels.resize(labels.len() + pictures.len(), classes.len());
            classes.extend(folder.file_name().map(|n| n.to_string_lossy().into_owned()));
            paths.extend(pictures);
        }
        if classes.is_empty() {
            return Err(fault(root, "has no folders, of which each would be a class"));
        }
        Ok(Self { files: Files::new(paths), labels, classes })
    }

    /// Whether pictures are grey, of one channel; `false` by default.
    pub fn grey(mut self, grey: bool) -> Self {
        self.files.grey(grey);
        self
    }

    /// Whether pictures stay in memory once they were read, a byte a value; `false` by default.
    pub fn keep(mut self, keep: bool) -> Self {
        self.files.keep(keep);
        self
    }
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn get(&self, index: usize, _: &mut Random, sample: &mut Sample) -> Result<()> {
        self.files.read(index, sample)?;
        sample.labels.push((self.labels[index], 1.0));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, ImageFormat, Luma};

    use super::*;
    use crate::data::test::Folder;

    fn png(value: u8) -> Vec<u8> {
        let mut out = std::io::Cursor::new(Vec::new());
        GrayImage::from_pixel(3, 2, Luma([value])).write_to(&mut out, ImageFormat::Png).unwrap();
        out.into_inner()
    }

    #[test]
    fn folders_are_classes() {
        let folder = Folder::new("folder");
        for (name, value) in [("b/2.png", 51), ("b/10.PNG", 102), ("a/x.png", 255)] {
            folder.write(name, &png(value));
        }
        folder.write("a/notes.txt", b"no picture");
        folder.write("a/.hidden.png", b"no picture");
        for keep in [false, true] {
            let d = ImageFolder::open(folder.path()).unwrap().grey(true).keep(keep);
            assert_eq!(d.classes(), ["a", "b"]);
            let mut s = Sample::default();
            // Twice: the second time from memory.
            for _ in 0..2 {
                let mut got = Vec::new();
                for i in 0..d.len() {
                    d.get(i, &mut Random::new(&[]), &mut s).unwrap();
                    got.push((s.label().unwrap(), s.picture.values[5]));
                }
                assert_eq!(got, [(0, 1.0), (1, 0.4), (1, 0.2)]);
            }
        }
        let d = ImageFolder::open(folder.path()).unwrap();
        let mut s = Sample::default();
        d.get(0, &mut Random::new(&[]), &mut s).unwrap();
        assert_eq!(s.picture.size, [3, 2, 3]);
    }

    #[test]
    fn folders_without_pictures_and_damaged_pictures_are_named() {
        let folder = Folder::new("folder-empty");
        let text = |sub: &str| ImageFolder::open(folder.path().join(sub)).unwrap_err().to_string();
        folder.write("one/x.png", &png(1)[..30]);
        folder.write("two/none/readme", b"");
        assert!(text("missing").starts_with("cannot read"));
        assert!(text("one").contains("has no folders"));
        assert!(text("two").contains("none: the folder of a class has no JPEG"));
        folder.write("three/c/x.png", &png(1)[..30]);
        let d = ImageFolder::open(folder.path().join("three")).unwrap().keep(true);
        let e = d.get(0, &mut Random::new(&[]), &mut Sample::default()).unwrap_err().to_string();
        assert!(e.contains("x.png: damaged"), "{e}");
    }
}
