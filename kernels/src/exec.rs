//! How a kernel's work reaches threads, without this crate starting any.
//!
//! A caller implements [`Executor`] over its thread pool; [`for_each_part`] hands out numbered parts of the work. Each
//! part is claimed from a counter, so it runs exactly once however often and from however many threads the executor
//! calls: that is what makes writing disjoint parts of one output sound.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Runs one job on several threads at once.
pub trait Executor: Sync {
    /// How many threads there are to spread over; at least 1.
    fn threads(&self) -> usize;

    /// Calls `job` from up to [`Executor::threads`] threads, at least once, and returns when all calls have.
    fn spread(&self, job: &(dyn Fn() + Sync));
}

/// The calling thread alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inline;

impl Executor for Inline {
    fn threads(&self) -> usize {
        1
    }

    fn spread(&self, job: &(dyn Fn() + Sync)) {
        job();
    }
}

/// Calls `f` once for every part `0..parts`, on the executor's threads.
pub fn for_each_part(executor: &dyn Executor, parts: usize, f: impl Fn(usize) + Sync) {
    if parts == 1 || executor.threads() == 1 {
        return (0..parts).for_each(f);
    }
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            // Relaxed: the counter publishes nothing; the executor's return orders all parts before what follows.
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return;
            }
            f(part);
        }
    };
    executor.spread(&work);
    work(); // what an executor that called too seldom has left
}

/// Calls `f` once for every part `0..parts`, on the executor's threads, each call with `per_thread` floats of scratch that
/// no other running call has. At most `scratch.len() / per_thread` threads take part.
///
/// # Panics
/// If `scratch` holds less than `per_thread` floats.
///
/// ```
/// use core::sync::atomic::{AtomicUsize, Ordering};
/// use swath_kernels::exec::{Inline, for_each_part_with};
/// let (sum, mut scratch) = (AtomicUsize::new(0), [0.0; 8]);
/// for_each_part_with(&Inline, 3, &mut scratch, 4, |part, scratch| {
///     assert_eq!(scratch.len(), 4);
///     sum.fetch_add(part, Ordering::Relaxed);
/// });
/// assert_eq!(sum.into_inner(), 3);
/// ```
pub fn for_each_part_with(
    executor: &dyn Executor,
    parts: usize,
    scratch: &mut [f32],
    per_thread: usize,
    f: impl Fn(usize, &mut [f32]) + Sync,
) {
    assert!(scratch.len() >= per_thread, "scratch holds {} floats, one thread needs {per_thread}", scratch.len());
    if parts <= 1 || executor.threads() == 1 {
        return (0..parts).for_each(|part| f(part, &mut scratch[..per_thread]));
    }
    let slots = scratch.len().checked_div(per_thread).unwrap_or(usize::MAX);
    let shared = Shared::new(scratch);
    let (next, slot) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        // Relaxed, as in `for_each_part`: numbers are handed out, nothing is published.
        let mine = slot.fetch_add(1, Ordering::Relaxed);
        if mine >= slots {
            return; // an executor that calls too often
        }
        // SAFETY: slots lie inside the slice and are disjoint; the counter gives each to one call, and the slice
        // stays borrowed until after `spread`.
        let scratch = unsafe { core::slice::from_raw_parts_mut(shared.at(mine * per_thread), per_thread) };
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return;
            }
            f(part, scratch);
        }
    };
    executor.spread(&work);
    // What an executor that called too seldom has left. `spread` has returned, and `work` was only lent to it, so that
    // no call runs any more and the first slot is free again.
    slot.store(0, Ordering::Relaxed);
    work();
}

/// A mutable slice that parts of the work write disjoint elements of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a pointer and a length; whoever writes through it answers for disjointness.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// Floats.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Pointer to element `at`.
    ///
    /// # Panics
    /// If `at` is beyond the end.
    pub(crate) fn at(&self, at: usize) -> *mut f32 {
        assert!(at <= self.len);
        self.start.wrapping_add(at)
    }
}
