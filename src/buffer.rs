//! Memory for tensors and packed weights: floats that start at a cache line.
//!
//! Whatever grows with a model's or a picture's size comes from here: where the system has no memory, the caller gets
//! [`Error::Memory`], and the process lives on.

use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
#[cfg(feature = "onnx")]
use core::panic::RefUnwindSafe;
#[cfg(feature = "onnx")]
use std::sync::Arc;

#[cfg(target_os = "linux")]
use swath_kernels::pages::LARGE;

use crate::error::{Error, Result};

/// A vector of `len` elements that `write` writes, such as a plan's method for memory that holds nothing yet, so that nobody fills it with
/// zeros first: of a large tensor that takes as long as a light operation.
///
/// # Errors
/// Those of `write`, and [`Error::Memory`].
///
/// # Panics
/// If `write` returns other memory than it got.
///
/// ```
/// use swath::{ConvPlan, ConvShape, Epilogue, Options, Scratch, written};
/// let plan = ConvPlan::new(&ConvShape::builder([1, 2, 4, 4], [3, 2, 1, 1]).build()?, &Options::default())?;
/// let (weights, mut scratch) = (plan.pack(&[0.5; 6])?, Scratch::new());
/// let y = written(3 * 16, |y| plan.forward_uninit(&[1.0; 2 * 16], &weights, Epilogue::none(), y, &mut scratch))?;
/// assert_eq!(y, [1.0; 3 * 16]);
/// # Ok::<(), swath::Error>(())
/// ```
pub fn written<T>(
    len: usize,
    write: impl for<'y> FnOnce(&'y mut [MaybeUninit<T>]) -> Result<&'y mut [T]>,
) -> Result<Vec<T>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(len).map_err(|_| Error::Memory { bytes: len.saturating_mul(size_of::<T>()) })?;
    swath_kernels::epilogue::written(memory, len, write)
}

/// Alignment in floats: one cache line, one AVX-512 register.
const LINE: usize = 16;

/// A fixed number of floats that start on a 64-byte boundary.
///
/// A `Vec<f32>` with up to 15 floats of slack and the offset of the first aligned one: the only way to get aligned
/// floats out of the allocator without `unsafe` (a `Vec` of aligned lines cannot be viewed as floats in safe code).
/// The offset belongs to the allocation, so a clone computes its own.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    data: Data,
    start: usize,
    len: usize,
}

/// Where floats are.
#[derive(Debug)]
enum Data {
    Heap(Vec<f32>),
    /// Others own them, too: constants of imported models, which nobody changes. Whoever did would have a copy.
    #[cfg(feature = "onnx")]
    Shared(Arc<dyn Floats>),
    #[cfg(target_os = "linux")]
    Pages(memmap2::MmapMut),
}

/// Floats that several own.
#[cfg(feature = "onnx")]
pub(crate) trait Floats: Send + Sync + RefUnwindSafe + core::fmt::Debug {
    /// The same ones at each call.
    fn floats(&self) -> &[f32];
}

impl Default for Data {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Data {
    fn floats(&self) -> &[f32] {
        match self {
            Self::Heap(data) => data,
            #[cfg(feature = "onnx")]
            Self::Shared(data) => data.floats(),
            #[cfg(target_os = "linux")]
            Self::Pages(pages) => bytemuck::cast_slice(pages),
        }
    }

    fn floats_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Heap(data) => data,
            #[cfg(feature = "onnx")]
            Self::Shared(data) => {
                *self = Self::Heap(data.floats().to_vec());
                self.floats_mut()
            }
            #[cfg(target_os = "linux")]
            Self::Pages(pages) => bytemuck::cast_slice_mut(pages),
        }
    }
}

impl Buffer {
    pub(crate) fn zeros(len: usize) -> Result<Self> {
        if len == 0 {
            return Ok(Self::default());
        }
        let data = floats(len.saturating_add(LINE - 1))?;
        // `align_offset` may decline to answer; then the data is merely not aligned, which costs speed alone.
        let start = match data.as_ptr().align_offset(LINE * size_of::<f32>()) {
            offset if offset < LINE => offset,
            _ => 0,
        };
        Ok(Self { data: Data::Heap(data), start, len })
    }

    /// What others own, too. It begins where it does, which costs speed alone.
    #[cfg(feature = "onnx")]
    pub(crate) fn shared(floats: Arc<dyn Floats>) -> Self {
        let len = floats.floats().len();
        Self { data: Data::Shared(floats), start: 0, len }
    }

    /// As [`Buffer::zeros`], of what lives as long as a session: activations and packed weights. Where there is much of it, Linux is
    /// asked for pages of 2 MiB instead of 4 KiB, so that a pass over memory waits for fewer entries of the page table.
    pub(crate) fn lasting(len: usize) -> Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(bytes) = len.checked_mul(size_of::<f32>()).filter(|&bytes| bytes >= LARGE) {
            let pages = memmap2::MmapMut::map_anon(bytes).map_err(|_| Error::Memory { bytes })?;
            // A kernel without large pages refuses, and goes on with small ones.
            let _ = pages.advise(memmap2::Advice::HugePage);
            return Ok(Self { data: Data::Pages(pages), start: 0, len });
        }
        Self::zeros(len)
    }

    /// The same memory with so many floats, if it has room for them; else new zeros. What the floats hold is not said.
    pub(crate) fn with_len(self, len: usize) -> Result<Self> {
        match self.start.checked_add(len) {
            Some(end) if end <= self.data.floats().len() => Ok(Self { len, ..self }),
            _ => {
                // The old one goes first: both together may be more than there is.
                drop(self);
                Self::zeros(len)
            }
        }
    }

    /// A copy, whose offset is its own.
    pub(crate) fn copied(&self) -> Result<Self> {
        let mut copy = Self::zeros(self.len)?;
        copy.copy_from_slice(self);
        Ok(copy)
    }
}

/// So many zeros, without the alignment. They come from the system as such, so that no page is touched before it is used: packed weights
/// are written once, and activations belong to the first run.
pub(crate) fn floats(len: usize) -> Result<Vec<f32>> {
    bytemuck::allocation::try_zeroed_vec(len)
        .map_err(|()| Error::Memory { bytes: len.saturating_mul(size_of::<f32>()) })
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data.floats()[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data.floats_mut()[self.start..self.start + self.len]
    }
}

/// # Panics
/// If there is no memory: what may be large has a way of being copied that says so.
impl Clone for Buffer {
    fn clone(&self) -> Self {
        self.copied().unwrap_or_else(|e| panic!("{e}"))
    }
}
