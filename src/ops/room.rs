//! How many elements an operator makes, and the memory for them.

use std::cell::Cell;

use swath_kernels::pages::prefer_large;

use super::error::{OpResult, refuse};

/// The most elements that an operator makes: 2^28. A damaged model could ask for any number.
const MAX_ELEMENTS: usize = 1 << 28;

thread_local! {
    /// The most that an operator makes on this thread now.
    static MOST: Cell<usize> = const { Cell::new(MAX_ELEMENTS) };
}

/// Runs `f`, in which operators make at most so many elements.
#[cfg(feature = "onnx")]
pub(crate) fn limited<R>(most: usize, f: impl FnOnce() -> R) -> R {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            MOST.set(self.0);
        }
    }
    let _restore = Restore(MOST.replace(most.min(MAX_ELEMENTS)));
    f()
}

/// The number of elements that dimensions make; `None` if it does not fit. As in NumPy, zeros make no room for others that do not fit:
/// the product of any of the dimensions does.
pub(crate) fn count(dims: &[usize]) -> Option<usize> {
    let others = dims.iter().filter(|&&d| d != 0).try_fold(1usize, |n, &d| n.checked_mul(d))?;
    Some(if dims.contains(&0) { 0 } else { others })
}

/// The number of elements of a result.
pub(crate) fn checked_count(dims: &[usize]) -> OpResult<usize> {
    let most = MOST.get();
    match count(dims) {
        Some(n) if n <= most => Ok(n),
        Some(n) if n <= MAX_ELEMENTS => {
            refuse!("a constant of the dimensions {dims:?} is computed from few elements: at most {most} are made")
        }
        _ => refuse!("a result of the dimensions {dims:?}, but at most {MAX_ELEMENTS} elements are made"),
    }
}

/// Room for so many elements. What a model asks for may be more than there is memory.
pub(crate) fn room<T>(len: usize) -> OpResult<Vec<T>> {
    let mut elements = Vec::new();
    match elements.try_reserve_exact(len) {
        Ok(()) => {
            prefer_large(elements.spare_capacity_mut());
            Ok(elements)
        }
        Err(_) => refuse!("no memory for {len} elements of {} bytes", size_of::<T>()),
    }
}

/// So many elements of one value.
pub(crate) fn filled<T: Clone>(value: T, len: usize) -> OpResult<Vec<T>> {
    let mut elements = room(len)?;
    elements.resize(len, value);
    Ok(elements)
}
