//! Threads: who runs the parts of a kernel's work.
//!
//! Kernels ask an [`Executor`] for threads. There are three kinds. A session or [`with_threads`] that names a number has
//! a crew: the calling thread, and helpers that sleep between runs. Work that is called from a rayon pool, inside
//! `ThreadPool::install` or a parallel loop, is that pool's (`guest`). All other work is of a crew that the process has,
//! with as many threads as rayon's global pool.
//!
//! # Locks, borrows and `fork`
//!
//! A thread that waits for its crew takes up no other work. So a session may stand in a `Mutex` or a thread-local
//! `RefCell` and be run from a parallel loop, as long as it has threads of its own ([`SessionOptions::threads`]) or is
//! called from outside rayon's pools. A thread of a rayon pool that waits for others of its pool takes up what they left:
//! there, with no number of threads, the next iteration of the loop may begin on the same stack, and meet the lock or the
//! borrow that this one holds.
//!
//! A child process made by `fork` has none of its parent's threads. Runs there start helpers anew, or work alone.
//!
//! [`SessionOptions::threads`]: crate::SessionOptions::threads

use core::ops::{Deref, Range};
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use swath_kernels::exec::{Executor, Inline, for_each_part_with, for_each_piece_with};

use crate::error::Result;

mod crew;
mod guest;
mod spin;

use crew::{Crew, Member, Spread};
use guest::Guest;

/// Work below this runs on the calling thread, as handing it over costs more than another thread saves.
struct Least {
    /// For convolutions: predicted milliseconds.
    ms: f64,
    /// For elementwise work: multiply-adds.
    macs: usize,
}

/// Where helpers stay awake between jobs: handing over costs 1 to 2 microseconds. On a Zen 4 two threads take 1.02
/// microseconds where one takes 0.79 (4096 floats), 2.7 where it takes 4.1 (32,768) and 4.7 where it takes 8.1.
const AWAKE: Least = Least { ms: 0.012, macs: 1 << 15 };

/// Where they sleep, so that they must be woken: 31 microseconds where one takes 16 (131,072 floats), 27 where it takes 32.
const ASLEEP: Least = Least { ms: 0.04, macs: 1 << 18 };

/// What pays where this is called. A rayon pool's threads sleep as rayon lets them.
fn least() -> Least {
    if Member::current().map_or(!guest::inside(), |m| m.stays_awake()) { AWAKE } else { ASLEEP }
}

/// Threads that a run under that limit uses here, at most `limit`.
pub(crate) fn width(limit: Option<usize>) -> usize {
    // A single thread needs no pool, and asking for the size of rayon's would start the global one.
    if limit == Some(1) {
        return 1;
    }
    let threads = Member::current().map_or_else(guest::threads, |m| m.threads());
    limit.unwrap_or(usize::MAX).min(threads).max(1)
}

/// The executor of one piece of work: a value, so that asking for one allocates nothing.
pub(crate) enum Workers {
    /// The calling thread.
    Caller(Inline),
    /// A crew.
    Crew(Spread),
    /// The rayon pool that the calling thread is of.
    Guest(Guest),
}

impl Deref for Workers {
    type Target = dyn Executor;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Caller(inline) => inline,
            Self::Crew(spread) => spread,
            Self::Guest(guest) => guest,
        }
    }
}

/// The executor for work of that many milliseconds on one thread, on at most `limit` threads.
pub(crate) fn executor(limit: Option<usize>, ms: f64) -> Workers {
    let threads = width(limit);
    if threads <= 1 || ms < least().ms { Workers::Caller(Inline) } else { parallel(threads) }
}

/// The executor of all threads, for work that decides by itself whether it is worth them.
pub(crate) fn everyone() -> Workers {
    executor(None, f64::INFINITY)
}

fn parallel(threads: usize) -> Workers {
    if let Some(member) = Member::current() {
        return Workers::Crew(member.executor(threads));
    }
    if guest::inside() {
        return Workers::Guest(Guest { threads });
    }
    match of_the_process() {
        Some(crew) => Workers::Crew(crew.member(spin::SPIN).executor(threads)),
        None => Workers::Caller(Inline),
    }
}

/// The crew of the process, for work that is called from outside rayon's pools; none where there is one thread, and where
/// threads cannot be started.
fn of_the_process() -> Option<&'static Crew> {
    static CREW: OnceLock<Option<Arc<Crew>>> = OnceLock::new();
    let start = || {
        let crew = (guest::threads() > 1).then(|| Crew::start(guest::threads()));
        crew?.inspect_err(|e| log::warn!("runs will use the calling thread alone: {e}")).ok()
    };
    CREW.get_or_init(start).as_deref()
}

/// Cuts `y` into pieces of whole units (such as rows) and calls `f` with the units' numbers and each piece. `work` is
/// roughly what one float of it costs, in multiply-adds. Every element must depend on its position alone, not on the cut.
pub(crate) fn for_each_piece(y: &mut [f32], unit: usize, work: usize, f: impl Fn(Range<usize>, &mut [f32]) + Sync) {
    for_each_piece_on(None, y, unit, work, f);
}

/// The same on at most `limit` threads.
pub(crate) fn for_each_piece_on(
    limit: Option<usize>,
    y: &mut [f32],
    unit: usize,
    work: usize,
    f: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    let units = y.len().checked_div(unit).unwrap_or(0);
    let threads = width(limit);
    if threads == 1 || y.len().saturating_mul(work) < least().macs || units == 0 {
        // A last piece shorter than a unit belongs to the last unit.
        return f(0..units, y);
    }
    // A few pieces for each thread even out what the machine does besides.
    let per_piece = units.div_ceil(threads * 4);
    for_each_piece_with(&*parallel(threads), y, per_piece * unit, |at, piece| {
        let first = at.start / unit;
        f(first..first + piece.len() / unit, piece);
    });
}

/// Elementwise work on several slices at once, that can be cut in two anywhere.
pub(crate) trait Divide: Sized + Send {
    /// Elements.
    fn len(&self) -> usize;

    /// The elements before `at`, and those from it on.
    fn divide(self, at: usize) -> (Self, Self);
}

/// Parts that elementwise work is cut into at most.
const MOST_PARTS: usize = 64;

/// Elements that are not cut any further: 16 KiB of floats.
const LEAF: usize = 4096;

/// Runs `f` on parts of the work, on several threads where `work` multiply-adds an element pay for them. Every element
/// must depend on its position alone, not on the cuts.
pub(crate) fn for_each_part<T: Divide>(all: T, work: usize, f: impl Fn(T) + Sync) {
    let (n, threads) = (all.len(), width(None));
    if threads == 1 || n.saturating_mul(work) < least().macs {
        return f(all);
    }
    // A few parts for each thread even out what the machine does besides. Cuts are between cache lines.
    let parts = (threads * 4).min(MOST_PARTS).min(n.div_ceil(LEAF));
    let len = n.div_ceil(parts).next_multiple_of(16);
    let mut rest = Some(all);
    let parts: [Mutex<Option<T>>; MOST_PARTS] = core::array::from_fn(|_| {
        let part = rest.take().map(|all| match all.len() > len {
            true => {
                let (part, after) = all.divide(len);
                rest = Some(after);
                part
            }
            false => all,
        });
        Mutex::new(part)
    });
    for_each_part_with(&*parallel(threads), n.div_ceil(len), &mut [], 0, |i, _| {
        if let Some(part) = parts[i].lock().unwrap_or_else(PoisonError::into_inner).take() {
            f(part);
        }
    });
}

/// The sum of `f` over pieces of at most [`LEAF`] elements, in an order that follows from the length alone: the same bits
/// for any number of threads.
pub(crate) fn sum(values: &[f32], f: impl Fn(&[f32]) -> f64 + Sync) -> f64 {
    sum_of(values.len(), |range| f(&values[range]))
}

/// As [`sum`], of ranges of `0..n`.
pub(crate) fn sum_of(n: usize, f: impl Fn(Range<usize>) -> f64 + Sync) -> f64 {
    let in_order = |start: usize, end: usize| (start..end).step_by(LEAF).map(|at| f(at..end.min(at + LEAF))).sum();
    let len = n.div_ceil(MOST_PARTS).next_multiple_of(LEAF).max(LEAF);
    let parts = n.div_ceil(len);
    let sums: [AtomicU64; MOST_PARTS] = core::array::from_fn(|_| AtomicU64::new(0));
    let part = |i: usize| {
        let sum: f64 = in_order(i * len, n.min((i + 1) * len));
        // Relaxed: the executor's return orders all parts before what follows.
        sums[i].store(sum.to_bits(), Ordering::Relaxed);
    };
    let threads = width(None);
    if threads == 1 || n < least().macs {
        (0..parts).for_each(part);
    } else {
        for_each_part_with(&*parallel(threads), parts, &mut [], 0, |i, _| part(i));
    }
    sums[..parts].iter().map(|s| f64::from_bits(s.load(Ordering::Relaxed))).sum()
}

/// Who runs a session: threads of its own, or those of where it is called.
#[derive(Clone, Debug)]
pub(crate) struct Team {
    crew: Option<Arc<Crew>>,
    spin: Duration,
}

impl Team {
    /// A crew of `threads` threads, the calling one included; `None` is the caller's. `spin` is for how long helpers stay
    /// awake without work; `None` is 200 microseconds.
    ///
    /// # Errors
    /// For 0 threads and for too many, and if they cannot be started.
    pub(crate) fn new(threads: Option<usize>, spin: Option<Duration>) -> Result<Self> {
        Ok(Self { crew: threads.map(Crew::start).transpose()?, spin: spin.unwrap_or(spin::SPIN) })
    }

    /// Runs `f` on the calling thread; the parallel work inside is the team's, and need not be handed over step by step.
    pub(crate) fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        let crew = match &self.crew {
            Some(crew) => Some(&**crew),
            None if Member::current().is_some() || guest::inside() => None,
            None => of_the_process(),
        };
        match crew {
            Some(crew) => crew.run(self.spin, f),
            None => f(),
        }
    }
}

/// Runs `f`, whose plans and sessions use `threads` threads, the calling one included: for programs and tests that fix the
/// number. What `f` does with rayon itself stays rayon's.
///
/// # Errors
/// For 0 threads and for more than 1024, and if the threads cannot be started.
///
/// ```
/// assert_eq!(swath::par::with_threads(2, || 6 * 7)?, 42);
/// # Ok::<(), swath::Error>(())
/// ```
pub fn with_threads<R>(threads: usize, f: impl FnOnce() -> R) -> Result<R> {
    Ok(Team::new(Some(threads), None)?.run(f))
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn work_is_of_the_crew_then_of_the_pool_then_of_the_process() {
        assert_eq!(with_threads(3, || width(None)).unwrap(), 3);
        assert_eq!(with_threads(3, || width(Some(2))).unwrap(), 2);
        assert_eq!(with_threads(3, || executor(None, 0.0).threads()).unwrap(), 1, "too little to hand over");
        let nested = || with_threads(2, || executor(None, 1.0).threads()).unwrap();
        assert_eq!(with_threads(3, || (nested(), executor(None, 1.0).threads())).unwrap(), (2, 3));
        assert_eq!(guest::pool(5, || (width(None), nested())), (5, 2));
        assert_eq!(width(None), guest::threads());
    }

    #[test]
    fn every_kind_of_executor_runs_all_parts() {
        let sums = || {
            let mut y = vec![0.0; 1 << 19];
            for_each_piece(&mut y, 1 << 10, 1, |rows, y| {
                for (row, y) in rows.zip(y.chunks_mut(1 << 10)) {
                    y.iter_mut().for_each(|y| *y += row as f32);
                }
            });
            y.iter().map(|&y| y as f64).sum::<f64>()
        };
        let all = (0..512).map(f64::from).sum::<f64>() * 1024.0;
        assert_eq!(sums(), all, "of the process");
        assert_eq!(with_threads(3, sums).unwrap(), all, "a crew");
        assert_eq!(guest::pool(3, sums), all, "rayon's");
        let calls = AtomicUsize::new(0);
        guest::pool(3, || {
            parallel(3).spread(&|| {
                calls.fetch_add(1, Ordering::Relaxed);
            })
        });
        assert_eq!(calls.into_inner(), 3);
    }
}
