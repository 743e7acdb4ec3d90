//! Memory for tensors and packed weights: floats that start at a cache line.

use core::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

/// A fixed number of floats whose first one is 64-byte aligned: a slice of a slightly longer `Vec`, so that no unsafe
/// code is needed.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    data: Vec<f32>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let data = vec![0.0f32; len + LINE / size_of::<f32>()];
        // align_offset may decline in theory; an unaligned buffer is slower, not wrong.
        let start = Some(data.as_ptr().align_offset(LINE)).filter(|o| o + len <= data.len()).unwrap_or(0);
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

/// A copy is aligned anew.
impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}
