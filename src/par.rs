//! Threads: the only file that names rayon.
//!
//! Kernels ask an [`Executor`] for threads. [`Pool`] is one over rayon, and honours wherever it is called from: inside
//! `ThreadPool::install` or a parallel loop it uses that pool, elsewhere rayon's global one. Nested parallelism is
//! work-stealing within one pool, so it neither deadlocks nor starts more threads than the pool has.

use swath_kernels::exec::{Executor, Inline};

/// Work below this many multiply-adds runs on the calling thread: waking another one costs about as much.
pub(crate) const INLINE_MACS: u64 = 1 << 20;

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
        rayon::scope(|scope| {
            for _ in 1..self.threads {
                scope.spawn(|_| job());
            }
            job();
        });
    }
}

/// The executor for `macs` multiply-adds on at most `limit` threads.
pub(crate) fn executor(limit: Option<usize>, macs: u64) -> Box<dyn Executor> {
    let threads = limit.unwrap_or(usize::MAX).min(if limit == Some(1) { 1 } else { rayon::current_num_threads() });
    if threads <= 1 || macs < INLINE_MACS { Box::new(Inline) } else { Box::new(Pool { threads }) }
}

/// Runs `f` in a pool of its own with `threads` threads: for programs and tests that fix the number.
///
/// # Errors
/// If the threads cannot be started.
pub fn with_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> crate::Result<R> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| crate::Error::Threads { reason: e.to_string() })?;
    Ok(pool.install(f))
}
