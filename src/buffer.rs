//! Memory for tensors and packed weights: floats that start at a cache line.
//!
//! Whatever grows with a model's or a picture's size comes from here: where the system has no memory, the caller gets
//! [`Error::Memory`], and the process lives on.

use core::ops::{Deref, DerefMut};

use crate::error::{Error, Result};

/// Alignment in floats: one cache line, one AVX-512 register.
const LINE: usize = 16;

/// A fixed number of floats that start on a 64-byte boundary.
///
/// A `Vec<f32>` with up to 15 floats of slack and the offset of the first aligned one: the only way to get aligned
/// floats out of the allocator without `unsafe` (a `Vec` of aligned lines cannot be viewed as floats in safe code).
/// The offset belongs to the allocation, so a clone computes its own.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    data: Vec<f32>,
    start: usize,
    len: usize,
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
        Ok(Self { data, start, len })
    }

    /// The same memory with so many floats, if it has room for them; else new zeros. What the floats hold is not said.
    pub(crate) fn with_len(self, len: usize) -> Result<Self> {
        match self.start.checked_add(len) {
            Some(end) if end <= self.data.len() => Ok(Self { len, ..self }),
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
        &self.data[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.start..self.start + self.len]
    }
}

/// # Panics
/// If there is no memory: what may be large has a way of being copied that says so.
impl Clone for Buffer {
    fn clone(&self) -> Self {
        self.copied().unwrap_or_else(|e| panic!("{e}"))
    }
}
