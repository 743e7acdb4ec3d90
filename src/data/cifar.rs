//! CIFAR-10 and CIFAR-100 in their binary form (Krizhevsky 2009).

use std::path::Path;

use super::dataset::{Dataset, check_index, numbered};
use super::sample::Sample;
use crate::error::{Error, Result};
use crate::random::Random;

/// Which of the two, and so the form of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CifarKind {
    /// Ten classes: a byte of label, then the picture.
    Cifar10,
    /// A hundred classes: a byte of the twenty groups, a byte of the hundred classes, then the picture.
    Cifar100,
}

/// Coloured pictures of 32x32 pixels from binary files, <https://www.cs.toronto.edu/~kriz/cifar.html>.
///
/// ```no_run
/// use swath::data::{Cifar, CifarKind, Dataset};
/// let test = Cifar::open(CifarKind::Cifar10, ["cifar-10-batches-bin/test_batch.bin"])?;
/// assert_eq!(test.len(), 10_000);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cifar {
    kind: CifarKind,
    records: Vec<u8>,
    classes: Vec<String>,
}

/// Bytes of the longest file: three times CIFAR-100's.
const LONGEST_FILE: usize = 512 << 20;

/// Bytes of a picture: three planes of 32x32.
const PICTURE: usize = 3 * 32 * 32;

const NAMES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

impl CifarKind {
    /// Bytes before the picture, of which the last is the label.
    fn labels(self) -> usize {
        match self {
            Self::Cifar10 => 1,
            Self::Cifar100 => 2,
        }
    }

    fn classes(self) -> usize {
        match self {
            Self::Cifar10 => 10,
            Self::Cifar100 => 100,
        }
    }
}

impl Cifar {
    /// Reads files one after another.
    ///
    /// # Errors
    /// If a file cannot be read, is not whole records, or has a label that is no class.
    pub fn open<P: AsRef<Path>>(kind: CifarKind, files: impl IntoIterator<Item = P>) -> Result<Self> {
        let classes = match kind {
            CifarKind::Cifar10 => NAMES.map(String::from).to_vec(),
            CifarKind::Cifar100 => numbered(kind.classes()),
        };
        let mut all = Self { kind, records: Vec::new(), classes };
        files.into_iter().try_for_each(|file| all.append(file.as_ref()))?;
        Ok(all)
    }

    /// Reads the files for training, or that for testing, by their usual names in a folder: `data_batch_1.bin` to
    /// `data_batch_5.bin` and `test_batch.bin`; `train.bin` and `test.bin` for CIFAR-100.
    ///
    /// # Errors
    /// Those of [`Cifar::open`].
    pub fn open_folder(kind: CifarKind, folder: impl AsRef<Path>, train: bool) -> Result<Self> {
        let names: &[&str] = match (kind, train) {
            (CifarKind::Cifar10, true) => {
                &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"]
            }
            (CifarKind::Cifar10, false) => &["test_batch.bin"],
            (CifarKind::Cifar100, true) => &["train.bin"],
            (CifarKind::Cifar100, false) => &["test.bin"],
        };
        Self::open(kind, names.iter().map(|name| folder.as_ref().join(name)))
    }

    fn append(&mut self, file: &Path) -> Result<()> {
        let bytes = crate::file::read(file, LONGEST_FILE)?;
        let (record, classes) = (self.record(), self.classes.len());
        let fault = |problem| Err(Error::Format { file: file.display().to_string(), problem });
        if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
            let (n, rest) = (bytes.len(), bytes.len() % record);
            return fault(format!(
                "truncated or foreign: {n} bytes are not whole records of {record}, {rest} are left"
            ));
        }
        let label = |i: usize| bytes[i * record + self.kind.labels() - 1];
        if let Some(i) = (0..bytes.len() / record).find(|&i| usize::from(label(i)) >= classes) {
            return fault(format!("record {i} has the label {}, but there are {classes} classes", label(i)));
        }
        self.records.extend_from_slice(&bytes);
        Ok(())
    }

    fn record(&self) -> usize {
        self.kind.labels() + PICTURE
    }
}

impl Dataset for Cifar {
    fn len(&self) -> usize {
        self.records.len() / self.record()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn get(&self, index: usize, _: &mut Random, sample: &mut Sample) -> Result<()> {
        check_index(index, self.len())?;
        let record = &self.records[index * self.record()..][..self.record()];
        let (labels, picture) = record.split_at(self.kind.labels());
        sample.clear();
        sample.picture.set_planes([3, 32, 32], picture);
        sample.labels.extend(labels.last().map(|&l| (usize::from(l), 1.0)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test::Folder;
    use super::*;

    fn records(labels: &[&[u8]]) -> Vec<u8> {
        labels.iter().enumerate().flat_map(|(i, l)| [l, &[i as u8; PICTURE][..]].concat()).collect()
    }

    #[test]
    fn both_kinds() {
        let folder = Folder::new("cifar");
        for i in 1..=5 {
            folder.write(&format!("data_batch_{i}.bin"), &records(&[&[i], &[9]]));
        }
        folder.write("test.bin", &records(&[&[19, 99], &[0, 5]]));
        let mut s = Sample::default();
        let ten = Cifar::open_folder(CifarKind::Cifar10, folder.path(), true).unwrap();
        ten.get(3, &mut Random::new(&[]), &mut s).unwrap();
        assert_eq!((ten.len(), s.label(), s.picture.values[3071]), (10, Some(9), 1.0 / 255.0));
        assert_eq!(ten.classes()[2], "bird");
        let hundred = Cifar::open_folder(CifarKind::Cifar100, folder.path(), false).unwrap();
        hundred.get(0, &mut Random::new(&[]), &mut s).unwrap();
        assert_eq!((hundred.len(), s.label(), hundred.classes().len()), (2, Some(99), 100));
    }

    #[test]
    fn damaged_files_are_named() {
        let folder = Folder::new("cifar-damaged");
        folder.write("cut.bin", &records(&[&[1], &[2]])[..6000]);
        folder.write("label.bin", &records(&[&[1], &[10]]));
        folder.write("empty.bin", &[]);
        let text = |name| Cifar::open(CifarKind::Cifar10, [folder.path().join(name)]).unwrap_err().to_string();
        assert!(text("cut.bin").contains("cut.bin: truncated or foreign: 6000 bytes are not whole records of 3073"));
        assert!(text("label.bin").contains("record 1 has the label 10"));
        assert!(text("empty.bin").contains("0 bytes"));
        assert!(text("missing.bin").starts_with("cannot read"));
    }
}
