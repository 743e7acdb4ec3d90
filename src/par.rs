//! Threads: the only file that names rayon.
//!
//! Kernels ask an [`Executor`] for threads. `Pool` is one over rayon, and honours wherever it is called from: inside
//! `ThreadPool::install` or a parallel loop it uses that pool, elsewhere rayon's global one. Nested parallelism is
//! work-stealing within one pool, so it neither deadlocks nor starts more threads than the pool has.

use core::cell::Cell;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use rayon::{FnContext, ThreadPool, Yield};
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
            if calls == 1 {
                return job();
            }
            let other = Half::default();
            let here = |_: FnContext| {
                run(calls - calls / 2, job);
                other.wait();
            };
            let there = |context: FnContext| {
                other.started.store(true, Ordering::Relaxed);
                run(calls / 2, job);
                if context.migrated() {
                    linger();
                }
                other.done.store(true, Ordering::Relaxed);
            };
            rayon::join_context(here, there);
        }
        run(self.threads, job);
    }

    fn seat(&self) -> usize {
        rayon::current_thread_index().unwrap_or(0)
    }
}

/// How long a thread looks out for work before it sleeps, and how long one waits for another's half awake. Rayon's
/// threads fall asleep after some 30 microseconds, as between two layers, and waking one takes 50 to 200 where the
/// machine is a virtual one.
const LINGER: Duration = Duration::from_micros(200);

/// The half of a job that another thread may take over. These are hints for waiting: rayon's own latch is what orders
/// memory, so that relaxed loads and stores do.
#[derive(Default)]
struct Half {
    started: AtomicBool,
    done: AtomicBool,
}

impl Half {
    /// Waits awake for a half that another thread is at.
    fn wait(&self) {
        let start = Instant::now();
        let mut round = 0;
        while self.started.load(Ordering::Relaxed) && !self.done.load(Ordering::Relaxed) && start.elapsed() < LINGER {
            pause(&mut round);
        }
    }
}

/// Lets the calling thread, one of the pool's, look out for more work for a while once its job has ended.
fn linger() {
    thread_local!(static LINGERS: Cell<bool> = const { Cell::new(false) });
    if LINGERS.get() {
        return; // its loop called this job
    }
    let thread = rayon::current_thread_index();
    rayon::spawn(move || {
        // Taken by another thread? Nobody asked that one.
        if rayon::current_thread_index() != thread {
            return;
        }
        LINGERS.set(true);
        let (mut idle, mut round) = (Instant::now(), 0);
        while idle.elapsed() < LINGER {
            match rayon::yield_now() {
                Some(Yield::Executed) => idle = Instant::now(),
                _ => pause(&mut round),
            }
        }
        LINGERS.set(false);
    });
}

/// A moment of waiting; now and then it lets other threads of this core go first.
fn pause(round: &mut u32) {
    *round += 1;
    if round.is_multiple_of(16) {
        std::thread::yield_now();
    } else {
        (0..8).for_each(|_| core::hint::spin_loop());
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

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicUsize;
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn a_thread_that_lingers_takes_other_work_and_lets_its_pool_end() {
        let sum = AtomicUsize::new(0);
        with_threads(2, || {
            for _ in 0..3 {
                // Both threads meet in the job, so that the other one lingers afterwards.
                let both = Barrier::new(2);
                Pool { threads: 2 }.spread(&|| {
                    both.wait();
                    sum.fetch_add(1, Ordering::Relaxed);
                });
                rayon::broadcast(|_| sum.fetch_add(10, Ordering::Relaxed));
                (0..100).into_par_iter().for_each(|_| {
                    Pool { threads: 2 }.spread(&|| {
                        sum.fetch_add(100, Ordering::Relaxed);
                    });
                });
            }
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 3 * (2 + 20 + 100 * 200));
    }
}
