//! Memory for tensors and packed weights: floats that start at a cache line.

use core::ops::{Deref, DerefMut};

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
    pub(crate) fn zeros(len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        let data = vec![0.0f32; len + LINE - 1];
        // `align_offset` may decline to answer; then the data is merely not aligned, which costs speed alone.
        let start = match data.as_ptr().align_offset(LINE * size_of::<f32>()) {
            offset if offset < LINE => offset,
            _ => 0,
        };
        Self { data, start, len }
    }
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

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.len);
        copy.copy_from_slice(self);
        copy
    }
}
