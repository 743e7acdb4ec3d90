//! Data sets of picture files, JPEG and PNG (feature `image`): folders by class, boxes in Pascal VOC's annotations, pictures
//! with masks.

mod decode;
mod folder;
mod masked;
mod voc;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use folder::ImageFolder;
pub use masked::{MaskRule, Masked};
pub use voc::Voc;

use super::dataset::check_index;
use super::sample::{Picture, Sample};
use crate::error::{Error, Result};
use decode::Decoded;

/// Picture files by number, of which what was read once may be kept.
#[derive(Debug)]
struct Files {
    paths: Vec<PathBuf>,
    channels: usize,
    kept: Option<Vec<OnceLock<Decoded>>>,
}

impl Files {
    fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, channels: 3, kept: None }
    }

    /// Reads pictures in grey, of one channel, or of three.
    fn grey(&mut self, grey: bool) {
        self.channels = if grey { 1 } else { 3 };
    }

    /// Keeps all pictures that are read, as bytes.
    fn keep(&mut self, keep: bool) {
        self.kept = keep.then(|| self.paths.iter().map(|_| OnceLock::new()).collect());
    }

    /// Makes a sample of picture `index` alone.
    fn read(&self, index: usize, sample: &mut Sample) -> Result<()> {
        check_index(index, self.paths.len())?;
        sample.clear();
        let picture = &mut sample.picture;
        let read = || decode::picture(&self.paths[index], self.channels);
        let Some(kept) = self.kept.as_ref().map(|k| &k[index]) else {
            read()?.put_into(picture);
            return Ok(());
        };
        if kept.get().is_none() {
            // Another thread may be first; it reads the same.
            let _ = kept.set(read()?);
        }
        if let Some(decoded) = kept.get() {
            decoded.put_into(picture);
        }
        Ok(())
    }
}

/// Reads a JPEG or PNG file in grey (one channel) or in colour (three).
pub(crate) fn read_picture(path: &Path, channels: usize) -> Result<Picture> {
    let mut picture = Picture::default();
    decode::picture(path, channels)?.put_into(&mut picture);
    Ok(picture)
}

/// Entries of a folder whose names fit, in the order of their names. Hidden ones are left out.
fn entries(folder: &Path, fits: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let io = |error| Error::Io { action: "read", path: folder.into(), error };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if !hidden && fits(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file's name is that of a picture.
fn is_picture(path: &Path) -> bool {
    let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    ending.is_some_and(|e| ["jpg", "jpeg", "png"].contains(&e.as_str())) && path.is_file()
}

/// What is wrong with a file.
fn fault(path: &Path, problem: impl Into<String>) -> Error {
    Error::Format { file: path.display().to_string(), problem: problem.into() }
}
