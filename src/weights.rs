//! Weights files in the safetensors format: reading any of their tensors, and writing atomically.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, View};
use safetensors::{SafeTensorError, SafeTensors};

use crate::atomic_file::write_atomically;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A safetensors file in memory: its tensors by name, and the metadata of its header.
///
/// ```no_run
/// use swath::WeightsFile;
/// let file = WeightsFile::open("mnist_cnn.safetensors")?;
/// println!("{:?}", file.metadata("test_correct_of_10000"));
/// for name in file.names() {
///     println!("{name} {:?}", file.dims(name)?);
/// }
/// let logits = file.tensor("logits")?;
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Debug)]
pub struct WeightsFile {
    source: String,
    bytes: Vec<u8>,
    /// Where the tensors' data starts.
    data: usize,
    metadata: Metadata,
    names: Vec<String>,
}

/// Bytes before the header: its length.
const PREFIX: usize = 8;

impl WeightsFile {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is truncated, or is not in the format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(|error| Error::Io { action: "read", path: path.into(), error })?;
        Self::parse(path.display().to_string(), bytes)
    }

    /// Takes the content of a file.
    ///
    /// # Errors
    /// If it is truncated, or is not in the format.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Self::parse("the safetensors data".into(), bytes)
    }

    fn parse(source: String, bytes: Vec<u8>) -> Result<Self> {
        let (header, metadata) = match SafeTensors::read_metadata(&bytes) {
            Ok(read) => read,
            Err(e) => return Err(Error::Format { problem: diagnose(&bytes, &e), file: source }),
        };
        // In the order of the data, so that loops over names are reproducible.
        let names = metadata.offset_keys();
        Ok(Self { source, data: PREFIX + header, bytes, metadata, names })
    }

    /// The file's path, or a word for data that came from memory.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names of all tensors, in the order of their data.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// An entry of the header's metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// Extents of a tensor.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn dims(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.info(name)?.shape)
    }

    /// A copy of a tensor.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], and [`Error::ElementType`] for anything but F32.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let info = self.info(name)?;
        if info.dtype != Dtype::F32 {
            let (file, dtype) = (self.source.clone(), info.dtype.to_string());
            return Err(Error::ElementType { file, name: name.into(), dtype });
        }
        let mut t = Tensor::zeros(&info.shape)?;
        let bytes = &self.bytes[self.data..][info.data_offsets.0..info.data_offsets.1];
        for (v, b) in t.as_mut_slice().iter_mut().zip(bytes.as_chunks().0) {
            *v = f32::from_le_bytes(*b);
        }
        Ok(t)
    }

    fn info(&self, name: &str) -> Result<&safetensors::tensor::TensorInfo> {
        self.metadata.info(name).ok_or_else(|| Error::UnknownTensor {
            place: self.source.clone(),
            name: name.into(),
            known: self.names.clone(),
        })
    }
}

/// Says what is wrong with a file, naming the first tensor that a truncated one lacks.
fn diagnose(bytes: &[u8], error: &SafeTensorError) -> String {
    let Some(prefix) = bytes.first_chunk::<PREFIX>() else {
        return format!(
            "not a safetensors file: it has {} bytes, its header's length alone takes {PREFIX}",
            bytes.len()
        );
    };
    let header = u64::from_le_bytes(*prefix);
    let have = (bytes.len() - PREFIX) as u64;
    if bytes.get(PREFIX).is_some_and(|b| *b != b'{') {
        return format!("not a safetensors file: {error}");
    }
    if header > have {
        return format!("truncated: its header should have {header} bytes, there are {have}");
    }
    let (json, data) = bytes[PREFIX..].split_at(header as usize);
    let Ok(metadata) = serde_json::from_slice::<Metadata>(json) else {
        return format!("not a safetensors file: {error}");
    };
    let cut = metadata.offset_keys().into_iter().find_map(|name| {
        let info = metadata.info(&name)?;
        (info.data_offsets.1 > data.len()).then(|| (name, info.data_offsets, info.shape.clone()))
    });
    match cut {
        Some((name, (from, to), shape)) => format!(
            "truncated: tensor `{name}` of shape {shape:?} is bytes {from}..{to} of the data, which has only {}",
            data.len()
        ),
        None => format!("not a valid safetensors file: {error}"),
    }
}

/// A tensor as the writer wants to see it.
struct Entry<'a>(&'a Tensor);

impl View for Entry<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.0.dims()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0.as_slice().iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn data_len(&self) -> usize {
        size_of_val(self.0.as_slice())
    }
}

/// Writes tensors to a file beside `path`, then renames it to `path`.
pub(crate) fn save<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
    metadata: &HashMap<String, String>,
) -> Result<()> {
    let metadata = (!metadata.is_empty()).then(|| metadata.clone());
    let bytes = safetensors::serialize(tensors.map(|(n, t)| (n, Entry(t))), metadata)
        .map_err(|e| Error::Format { file: path.display().to_string(), problem: e.to_string() })?;
    write_atomically(path, &bytes).map_err(|error| Error::Io { action: "write", path: path.into(), error })
}
