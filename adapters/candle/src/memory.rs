//! candle's memory as plain slices, and swath's scratch.

use std::borrow::Cow;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Device, Error, Layout, Result, Storage, StorageRef, Tensor};
use swath::Scratch;

/// A tensor's floats in order: as they lie, where they lie so, else copied.
pub fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Cow<'a, [f32]>> {
    let CpuStorage::F32(data) = storage else {
        candle_core::bail!("swath takes tensors of f32, this one is of {:?}", storage.dtype())
    };
    if let Some((start, end)) = layout.contiguous_offsets() {
        return Ok(Cow::Borrowed(&data[start..end]));
    }
    let mut copy = CpuStorage::F32(vec![0.0; layout.shape().elem_count()]);
    storage.copy_strided_src(&mut copy, 0, layout)?;
    match copy {
        CpuStorage::F32(copy) => Ok(Cow::Owned(copy)),
        _ => unreachable!("it was made as f32"),
    }
}

/// The floats of a tensor `[n, c, h, w]`, and how they lie: channels last is taken as it is, all else is NCHW or made so.
pub fn images<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<(Cow<'a, [f32]>, swath::Layout)> {
    let channels_last = layout.permute(&[0, 2, 3, 1])?;
    if !layout.is_contiguous() && channels_last.is_contiguous() {
        return Ok((floats(storage, &channels_last)?, swath::Layout::Nhwc));
    }
    Ok((floats(storage, layout)?, swath::Layout::Nchw))
}

/// A tensor `[n, c, h, w]` of floats that lie so.
pub fn tensor(floats: Vec<f32>, [n, c, h, w]: [usize; 4], layout: swath::Layout) -> Result<Tensor> {
    match layout {
        swath::Layout::Nhwc => Tensor::from_vec(floats, (n, h, w, c), &Device::Cpu)?.permute((0, 3, 1, 2)),
        _ => Tensor::from_vec(floats, (n, c, h, w), &Device::Cpu),
    }
}

/// A tensor whose memory is being read.
pub struct Held<'a>(StorageRef<'a>, &'a Layout);

impl<'a> Held<'a> {
    pub fn of(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self(storage, layout)
    }

    fn storage(&self) -> Result<&CpuStorage> {
        match &*self.0 {
            Storage::Cpu(storage) => Ok(storage),
            other => {
                candle_core::bail!("swath takes tensors of the CPU, this one is on {:?}", other.device().location())
            }
        }
    }

    pub fn floats(&self) -> Result<Cow<'_, [f32]>> {
        floats(self.storage()?, self.1)
    }

    pub fn images(&self) -> Result<(Cow<'_, [f32]>, swath::Layout)> {
        images(self.storage()?, self.1)
    }
}

/// Runs `f` with the thread's scratch.
pub fn with_scratch<T>(f: impl FnOnce(&mut Scratch) -> swath::Result<T>) -> Result<T> {
    Scratch::of_thread(f).map_err(Error::wrap)
}
