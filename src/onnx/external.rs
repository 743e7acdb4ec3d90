//! Elements in files beside the model.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// Where a model's external data may lie.
///
/// A model can name any file; only regular files inside the model's own folder are read. Absolute paths, `..`, and links
/// that lead out of the folder are refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum External {
    /// Nowhere: a model from memory has no folder.
    #[default]
    Refused,
    /// In this folder or below.
    Folder(PathBuf),
}

/// A range of another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExternalPlace<'a> {
    /// The file, relative to the model's folder.
    pub location: &'a str,
    /// Bytes before the range.
    pub offset: u64,
    /// Bytes of the range; `None` takes what the dimensions ask for.
    pub length: Option<u64>,
}

impl External {
    /// The folder of a model's file.
    pub fn beside(model: &Path) -> Self {
        match model.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => Self::Folder(folder.to_path_buf()),
            _ => Self::Folder(PathBuf::from(".")),
        }
    }

    /// A range of a file, `needed` bytes long.
    pub(crate) fn bytes(&self, place: &ExternalPlace<'_>, needed: Option<usize>) -> Result<Vec<u8>, String> {
        let Self::Folder(folder) = self else {
            return Err("the model comes from memory, and has no folder for external data".into());
        };
        let needed = needed.ok_or("more bytes than this machine can address")?;
        let length = place.length.unwrap_or(needed as u64);
        if length != needed as u64 {
            return Err(format!("its length is {length}, but the dimensions make {needed} bytes"));
        }
        let location = Path::new(place.location);
        if !location.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err("only relative paths inside the model's folder are read".into());
        }
        let io = |e: std::io::Error| e.to_string();
        let inside = folder.canonicalize().map_err(io)?;
        let path = inside.join(location).canonicalize().map_err(io)?;
        if !path.starts_with(&inside) {
            return Err("it is a link that leads out of the model's folder".into());
        }
        // A pipe or a device would block, or never end.
        let metadata = std::fs::metadata(&path).map_err(io)?;
        if !metadata.is_file() {
            return Err("it is no regular file".into());
        }
        let end = place.offset.checked_add(length).ok_or("offset and length overflow")?;
        if end > metadata.len() {
            return Err(format!("it has {} bytes, but bytes {} to {end} are asked for", metadata.len(), place.offset));
        }
        let mut file = File::open(&path).map_err(io)?;
        file.seek(SeekFrom::Start(place.offset)).map_err(io)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(needed).map_err(|_| format!("no memory for {needed} bytes"))?;
        bytes.resize(needed, 0);
        file.read_exact(&mut bytes).map_err(io)?;
        Ok(bytes)
    }
}
