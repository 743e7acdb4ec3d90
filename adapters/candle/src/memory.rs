//! candle's memory as plain slices, and swath's scratch.

use std::borrow::Cow;
use std::cell::Cell;

use candle_core::{CpuStorage, Error, Layout, Result};
use swath::Scratch;

/// A tensor's floats in order: as they lie, where they lie so, else copied.
pub fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Cow<'a, [f32]>> {
    let CpuStorage::F32(data) = storage else { candle_core::bail!("swath takes tensors of f32") };
    Ok(match layout.contiguous_offsets() {
        Some((start, end)) => Cow::Borrowed(&data[start..end]),
        None => Cow::Owned(layout.strided_index().map(|i| data[i]).collect()),
    })
}

/// Runs `f` with the thread's scratch. It is taken out meanwhile: a thread of a rayon pool may come here again while it waits.
pub fn with_scratch<T>(f: impl FnOnce(&mut Scratch) -> swath::Result<T>) -> Result<T> {
    thread_local! {
        static SCRATCH: Cell<Scratch> = Cell::default();
    }
    let mut scratch = SCRATCH.take();
    let result = f(&mut scratch);
    SCRATCH.set(scratch);
    result.map_err(Error::wrap)
}
