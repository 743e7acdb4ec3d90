//! Data sets for tests.

use std::sync::Arc;

use super::dataset::{Dataset, check_index};
use super::sample::{Picture, Sample};
use crate::error::Result;
use crate::random::Random;

/// Pictures of one random pixel; the class is the number.
#[derive(Clone, Debug)]
pub(crate) struct Numbers(pub(crate) usize);

impl Dataset for Numbers {
    fn len(&self) -> usize {
        self.0
    }

    fn classes(&self) -> &[String] {
        static NAMES: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
        NAMES.get_or_init(|| super::dataset::numbered(20_000))
    }

    fn get(&self, index: usize, random: &mut Random, sample: &mut Sample) -> Result<()> {
        check_index(index, self.0)?;
        sample.clear();
        sample.picture = Picture::filled([1, 1, 1], random.unit());
        sample.labels.push((index, 1.0));
        Ok(())
    }
}

/// Another one without its sample 13.
pub(crate) struct Refusing(pub(crate) Arc<dyn Dataset>);

impl Dataset for Refusing {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn classes(&self) -> &[String] {
        self.0.classes()
    }

    fn get(&self, index: usize, random: &mut Random, sample: &mut Sample) -> Result<()> {
        check_index(index, if index == 13 { 13 } else { self.len() })?;
        self.0.get(index, random, sample)
    }
}

/// A folder of its own for a test, removed at the end.
pub(crate) struct Folder(std::path::PathBuf);

impl Folder {
    pub(crate) fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("swath-data-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }

    /// Writes a file, and the folders that it lies in.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
