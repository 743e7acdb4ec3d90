//! Weights files in the safetensors format: reading any of their tensors, and writing atomically.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use safetensors::{SafeTensorError, SafeTensors};

use crate::error::{Error, Result};
use crate::file;
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

/// Floats that are turned into bytes together.
const WRITTEN_AT_ONCE: usize = 1024;

/// Bytes of the longest header, by the format's definition.
const LONGEST_HEADER: u64 = 100_000_000;

impl WeightsFile {
    /// Reads a file, and no more of it than its header says that there is: an endless one is refused.
    ///
    /// # Errors
    /// If it cannot be read, is truncated, or is not in the format; [`Error::Memory`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = read(path)?;
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

    /// A copy of a tensor, in F32. F16 and BF16 are exact in it; F64 is rounded to the nearest, beyond 3.4e38 to infinity.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`]; [`Error::ElementType`] for anything but F16, BF16, F32 and F64; [`Error::Memory`].
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let info = self.info(name)?;
        let bytes = &self.bytes[self.data..][info.data_offsets.0..info.data_offsets.1];
        let mut t = Tensor::zeros(&info.shape)?;
        let floats = t.as_mut_slice();
        match info.dtype {
            Dtype::F32 => convert(bytes, floats, f32::from_le_bytes),
            Dtype::F16 => convert(bytes, floats, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => convert(bytes, floats, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F64 => convert(bytes, floats, |b| f64::from_le_bytes(b) as f32),
            other => {
                let (file, dtype) = (self.source.clone(), other.to_string());
                return Err(Error::ElementType { file, name: name.into(), dtype });
            }
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

/// Elements of `N` bytes as floats.
fn convert<const N: usize>(bytes: &[u8], floats: &mut [f32], element: impl Fn([u8; N]) -> f32) {
    for (v, b) in floats.iter_mut().zip(bytes.as_chunks().0) {
        *v = element(*b);
    }
}

/// As much of a file as its header says that there is, and one byte more, which tells a file that is too long. Where
/// something is missing, what there is.
fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error| Error::Io { action: "read", path: path.into(), error };
    let mut file = File::open(path).map_err(failed)?;
    // What a damaged header promises is not reserved before it is there.
    let whole = file.metadata().ok().filter(|m| m.is_file()).map_or(0, |m| m.len());
    let mut bytes = Vec::new();
    let mut more = |bytes: &mut Vec<u8>, len: u64| {
        let reserved = len.min(whole.saturating_sub(bytes.len() as u64)) as usize;
        let memory = Error::Memory { bytes: bytes.len().saturating_add(reserved) };
        if bytes.try_reserve_exact(reserved).is_err() {
            return Err(memory);
        }
        match (&mut file).take(len).read_to_end(bytes) {
            Err(e) if e.kind() == io::ErrorKind::OutOfMemory => Err(Error::Memory { bytes: 2 * bytes.len() }),
            read => read.map(|_| ()).map_err(failed),
        }
    };
    more(&mut bytes, PREFIX as u64)?;
    let Some(prefix) = bytes.first_chunk::<PREFIX>() else { return Ok(bytes) };
    let header = u64::from_le_bytes(*prefix);
    if header > LONGEST_HEADER {
        return Ok(bytes);
    }
    more(&mut bytes, header)?;
    if let Ok(metadata) = serde_json::from_slice::<Metadata>(&bytes[PREFIX..]) {
        more(&mut bytes, (metadata.data_len() as u64).saturating_add(1))?;
    }
    Ok(bytes)
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

/// Writes tensors as a safetensors file, one after the other, by name, so that no second copy of them is in memory.
pub(crate) fn save<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
    metadata: &HashMap<String, String>,
) -> Result<()> {
    let mut tensors: Vec<(&str, &Tensor)> = tensors.collect();
    tensors.sort_unstable_by_key(|(name, _)| *name);
    let header =
        header(&tensors, metadata).map_err(|problem| Error::Format { file: path.display().to_string(), problem })?;
    file::write(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for (_, tensor) in &tensors {
            for floats in tensor.as_slice().chunks(WRITTEN_AT_ONCE) {
                let mut bytes = [[0; 4]; WRITTEN_AT_ONCE];
                for (b, v) in bytes.iter_mut().zip(floats) {
                    *b = v.to_le_bytes();
                }
                out.write_all(bytes[..floats.len()].as_flattened())?;
            }
        }
        Ok(())
    })
}

/// The header in JSON, filled up with blanks, so that the data is aligned.
fn header(tensors: &[(&str, &Tensor)], metadata: &HashMap<String, String>) -> Result<Vec<u8>, String> {
    let mut end = 0;
    let infos = tensors.iter().map(|(name, tensor)| {
        let start = end;
        end += size_of_val(tensor.as_slice());
        (name.to_string(), TensorInfo { dtype: Dtype::F32, shape: tensor.dims().to_vec(), data_offsets: (start, end) })
    });
    let entries = || metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let metadata = Metadata::new((!metadata.is_empty()).then(entries), infos.collect());
    // By way of a value, whose names are in order: the same content gives the same bytes.
    let value = serde_json::to_value(metadata.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let mut header = serde_json::to_vec(&value).map_err(|e| e.to_string())?;
    header.resize(header.len().next_multiple_of(PREFIX), b' ');
    match header.len() as u64 {
        n if n <= LONGEST_HEADER => Ok(header),
        n => Err(format!("names and metadata take {n} bytes, but a header has at most {LONGEST_HEADER}")),
    }
}
