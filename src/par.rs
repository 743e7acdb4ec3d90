//! Threads: the only file that names rayon.
//!
//! Kernels ask an [`Executor`] for threads. `Pool` is one over rayon, and honours wherever it is called from: inside
//! `ThreadPool::install` or a parallel loop it uses that pool, elsewhere rayon's global one. Nested parallelism is
//! work-stealing within one pool, so it neither deadlocks nor starts more threads than the pool has.

use core::ops::Range;
use std::sync::Arc;

use rayon::ThreadPool;
use rayon::prelude::*;
use swath_kernels::exec::{Executor, Inline};

use crate::error::{Error, Result};

/// Convolutions predicted to take less than this many milliseconds run on the calling thread: handing work over costs
/// several microseconds.
const INLINE_MS: f64 = 0.012;

/// Elementwise work below this many multiply-adds runs on the calling thread.
const INLINE_MACS: u64 = 1 << 18;

/// An executor over the current rayon pool, using at most a given number of its threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    threads: usize,
}

impl Executor for Pool {
    fn threads(&self) -> usize {
        self.threads
    }

    fn spread(&self, job: &(dyn Fn() + Sync)) {
        // Halves by `join`: unlike a scope's, its jobs lie on the stack.
        fn run(calls: usize, job: &(dyn Fn() + Sync)) {
            match calls {
                1 => job(),
                _ => drop(rayon::join(|| run(calls - calls / 2, job), || run(calls / 2, job))),
            }
        }
        run(self.threads, job);
    }

    fn seat(&self) -> usize {
        rayon::current_thread_index().unwrap_or(0)
    }
}

/// Threads that a run under that limit uses here: those of the current pool, at most `limit`.
pub(crate) fn width(limit: Option<usize>) -> usize {
    // A single thread needs no pool, and asking for its size would start the global one.
    if limit == Some(1) { 1 } else { limit.unwrap_or(usize::MAX).min(rayon::current_num_threads()).max(1) }
}

/// The executor for work of that many milliseconds on one thread, on at most `limit` threads.
pub(crate) fn executor(limit: Option<usize>, ms: f64) -> Box<dyn Executor> {
    let threads = width(limit);
    if threads <= 1 || ms < INLINE_MS { Box::new(Inline) } else { Box::new(Pool { threads }) }
}

/// Cuts `y` into pieces of whole units (such as rows) and calls `f` with the units' numbers and each piece. `work` is
/// roughly what one float of it costs, in multiply-adds. Every element must depend on its position alone, not on the cut.
pub(crate) fn for_each_piece(y: &mut [f32], unit: usize, work: usize, f: impl Fn(Range<usize>, &mut [f32]) + Sync) {
    let units = y.len().checked_div(unit).unwrap_or(0);
    let threads = rayon::current_num_threads();
    if threads == 1 || ((y.len() * work) as u64) < INLINE_MACS {
        // A last piece shorter than a unit belongs to the last unit.
        return f(0..units, y);
    }
    // A few pieces for each thread even out what the machine does besides.
    let per_piece = units.div_ceil(threads * 4).max(1);
    y.par_chunks_mut(per_piece * unit).enumerate().for_each(|(i, piece)| {
        let first = i * per_piece;
        f(first..first + piece.len() / unit, piece);
    });
}

/// Who runs a session: a pool of its own, or whatever pool it is called from.
#[derive(Clone, Debug)]
pub(crate) struct Team(Option<Arc<ThreadPool>>);

impl Team {
    /// A pool of `threads` threads; `None` is the caller's.
    pub(crate) fn new(threads: Option<usize>) -> Result<Self> {
        Ok(Self(threads.map(pool).transpose()?.map(Arc::new)))
    }

    /// Runs `f` on a thread of the pool, so that the parallel work inside need not be handed over step by step.
    pub(crate) fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match &self.0 {
            Some(pool) => pool.install(f),
            None if rayon::current_num_threads() == 1 || rayon::current_thread_index().is_some() => f(),
            None => rayon::scope(|_| f()),
        }
    }
}

fn pool(threads: usize) -> Result<ThreadPool> {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1));
    builder.build().map_err(|e| Error::Threads { reason: e.to_string() })
}

/// Runs `f` in a pool of its own with `threads` threads: for programs and tests that fix the number.
///
/// # Errors
/// If the threads cannot be started.
///
/// ```
/// assert_eq!(swath::par::with_threads(2, || 6 * 7)?, 42);
/// # Ok::<(), swath::Error>(())
/// ```
pub fn with_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> Result<R> {
    Ok(pool(threads)?.install(f))
}
