//! MNIST and its relatives, such as Fashion-MNIST, as data sets.

use std::path::Path;

use super::LabelledImages;
use super::dataset::{Dataset, check_index, numbered};
use super::sample::Sample;
use crate::error::{Error, Result};
use crate::random::Random;

/// Grey pictures of ten classes from a folder of IDX files, compressed or not, under their usual names, such as
/// `train-images-idx3-ubyte.gz` and `t10k-labels-idx1-ubyte`. MNIST and Fashion-MNIST differ in content alone.
///
/// ```no_run
/// use swath::data::{Dataset, Mnist};
/// let train = Mnist::open("mnist", true)?;
/// assert_eq!(train.len(), 60_000);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mnist {
    images: LabelledImages,
    classes: Vec<String>,
}

impl Mnist {
    /// Reads the pictures for training, or those for testing.
    ///
    /// # Errors
    /// If a file is missing or damaged, or has a label that is no class.
    pub fn open(folder: impl AsRef<Path>, train: bool) -> Result<Self> {
        let part = if train { "train" } else { "t10k" };
        let find = |rest: &str| find(folder.as_ref(), &format!("{part}-{rest}-ubyte"));
        let labels = find("labels-idx1")?;
        let images = LabelledImages::open(find("images-idx3")?, &labels)?;
        let classes = numbered(10);
        match images.labels().iter().position(|&l| usize::from(l) >= classes.len()) {
            None => Ok(Self { images, classes }),
            Some(at) => {
                let problem = format!("label {at} is {}, but there are {} classes", images.labels()[at], classes.len());
                Err(Error::Format { file: labels.display().to_string(), problem })
            }
        }
    }

    /// The pictures' bytes, labels and size.
    pub fn images(&self) -> &LabelledImages {
        &self.images
    }
}

/// A file of that name in a folder, or its compressed form.
fn find(folder: &Path, name: &str) -> Result<std::path::PathBuf> {
    let plain = folder.join(name);
    let compressed = folder.join(format!("{name}.gz"));
    match (plain.exists(), compressed.exists()) {
        (true, _) => Ok(plain),
        (_, true) => Ok(compressed),
        _ => {
            let problem = format!("has neither `{name}` nor `{name}.gz`");
            Err(Error::Format { file: folder.display().to_string(), problem })
        }
    }
}

impl Dataset for Mnist {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn get(&self, index: usize, _: &mut Random, sample: &mut Sample) -> Result<()> {
        check_index(index, self.len())?;
        let [h, w] = self.images.size();
        sample.clear();
        sample.picture.set_planes([1, h, w], self.images.pixels(index));
        sample.labels.push((self.images.labels()[index].into(), 1.0));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test::Folder;
    use super::*;

    #[test]
    fn pictures_come_with_their_labels() {
        let folder = Folder::new("mnist");
        folder.write(
            "train-images-idx3-ubyte",
            &[&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2][..], &[0, 51, 102, 255]].concat(),
        );
        folder.write("train-labels-idx1-ubyte", &[0, 0, 8, 1, 0, 0, 0, 2, 7, 9]);
        let d = Mnist::open(folder.path(), true).unwrap();
        let mut s = Sample::default();
        d.get(1, &mut Random::new(&[]), &mut s).unwrap();
        assert_eq!((d.len(), s.label(), s.picture.size), (2, Some(9), [1, 1, 2]));
        assert_eq!(s.picture.values, [0.4, 1.0]);
        assert!(d.get(2, &mut Random::new(&[]), &mut s).is_err());
        let e = Mnist::open(folder.path(), false).unwrap_err().to_string();
        assert!(e.contains("t10k-labels-idx1-ubyte.gz"), "{e}");
        folder.write("train-labels-idx1-ubyte", &[0, 0, 8, 1, 0, 0, 0, 2, 7, 10]);
        let e = Mnist::open(folder.path(), true).unwrap_err().to_string();
        assert!(e.contains("label 1 is 10") && e.contains("train-labels"), "{e}");
    }
}
