//! How a kernel's work reaches threads, without this crate starting any.
//!
//! A caller implements [`Executor`] over its thread pool; [`for_each_part_with`] hands out numbered parts of the work. Each
//! part is claimed from a counter, so it runs exactly once however often and from however many threads the executor
//! calls: that is what makes writing disjoint parts of one output sound.
//!
//! Every thread has a share of the parts that is its own, adjacent and the same in every run, and takes others' parts only when
//! its own have been claimed. So a thread finds in its cache what it read and wrote before, in this layer or the one
//! before it: on two cores that is worth 5 to 10 % of a 1x1 layer.

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

mod slot;

pub use slot::JobSlot;

use crate::control_word;

/// Runs one job on several threads at once.
pub trait Executor: Sync {
    /// How many threads there are to spread over; at least 1.
    fn threads(&self) -> usize;

    /// Calls `job` from up to [`Executor::threads`] threads, at least once, and returns when all calls have.
    fn spread(&self, job: &(dyn Fn() + Sync));

    /// A number of the calling thread that stays the same from run to run: whose share of the parts it begins with. A
    /// hint; any number is right.
    fn seat(&self) -> usize {
        0
    }
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

/// Calls `f` once for every part `0..parts`, on the executor's threads, each call with `per_thread` floats of scratch that
/// no other running call has, under the default [control word](control_word). At most `scratch.len() / per_thread` threads
/// take part.
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
    for_each_part(executor, parts, scratch, per_thread, &f);
}

/// [`for_each_part_with`], compiled once for all passes: there are some 200, a kilobyte of code each.
fn for_each_part(
    executor: &dyn Executor,
    parts: usize,
    scratch: &mut [f32],
    per_thread: usize,
    f: &(dyn Fn(usize, &mut [f32]) + Sync),
) {
    assert!(scratch.len() >= per_thread, "scratch holds {} floats, one thread needs {per_thread}", scratch.len());
    if parts <= 1 || executor.threads() == 1 {
        return control_word::with_default(|| (0..parts).for_each(|part| f(part, &mut scratch[..per_thread])));
    }
    let slots = scratch.len().checked_div(per_thread).unwrap_or(usize::MAX);
    let shared = Shared::new(scratch);
    let (claims, slot) = (Claims::new(parts, executor.threads()), AtomicUsize::new(0));
    let work = || {
        // Relaxed, as in `Claims`: numbers are handed out, nothing is published.
        let mine = slot.fetch_add(1, Ordering::Relaxed);
        if mine >= slots {
            return; // an executor that calls too often
        }
        // SAFETY: slots lie inside the slice and are disjoint; the counter gives each to one call, and the slice
        // stays borrowed until after `spread`.
        let scratch = unsafe { core::slice::from_raw_parts_mut(shared.at(mine * per_thread), per_thread) };
        control_word::with_default(|| claims.of(executor.seat()).for_each(|part| f(part, scratch)));
    };
    executor.spread(&work);
    // What an executor that called too seldom has left. `spread` has returned, and `work` was only lent to it, so that
    // no call runs any more and the first slot is free again.
    slot.store(0, Ordering::Relaxed);
    work();
}

/// Cuts `y` into pieces of `len` floats, the last of which may be shorter, and calls `f` once with each piece's position
/// in `y` and the piece, on the executor's threads.
///
/// # Panics
/// If `len` is 0.
///
/// ```
/// use swath_kernels::exec::{Inline, for_each_piece_with};
/// let mut y = [0.0; 5];
/// for_each_piece_with(&Inline, &mut y, 2, |at, piece| piece.fill(at.start as f32));
/// assert_eq!(y, [0.0, 0.0, 2.0, 2.0, 4.0]);
/// ```
pub fn for_each_piece_with(
    executor: &dyn Executor,
    y: &mut [f32],
    len: usize,
    f: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    for_each_piece_and_scratch(executor, y, len, &mut [], 0, |at, piece, _| f(at, piece));
}

/// As [`for_each_piece_with`], with `per_thread` floats of scratch that no other call has at the same time, as [`for_each_part_with`].
///
/// # Panics
/// If `len` is 0, and if `scratch` does not hold one thread's floats.
///
/// ```
/// use swath_kernels::exec::{Inline, for_each_piece_and_scratch};
/// let mut y = [0.0; 4];
/// for_each_piece_and_scratch(&Inline, &mut y, 2, &mut [0.0; 3], 3, |at, piece, scratch| {
///     scratch.fill(at.start as f32);
///     piece.copy_from_slice(&scratch[..2]);
/// });
/// assert_eq!(y, [0.0, 0.0, 2.0, 2.0]);
/// ```
pub fn for_each_piece_and_scratch(
    executor: &dyn Executor,
    y: &mut [f32],
    len: usize,
    scratch: &mut [f32],
    per_thread: usize,
    f: impl Fn(Range<usize>, &mut [f32], &mut [f32]) + Sync,
) {
    let (end, pieces) = (y.len(), y.len().div_ceil(len));
    let y = Shared::new(y);
    for_each_part_with(executor, pieces, scratch, per_thread, |piece, scratch| {
        let at = piece * len..end.min((piece + 1).saturating_mul(len));
        // SAFETY: `at` lies inside the slice, which stays borrowed until all parts have run; pieces are disjoint, and each
        // runs once.
        let floats = unsafe { core::slice::from_raw_parts_mut(y.at(at.start), at.len()) };
        f(at, floats, scratch);
    });
}

/// Piece `i` of `total` things that are cut into `pieces` as equal ones as possible.
pub(crate) fn cut(total: usize, pieces: usize, i: usize) -> Range<usize> {
    // `total * i / pieces`, which might overflow.
    let start = |i: usize| total / pieces * i + total % pieces * i / pieces;
    start(i)..start(i + 1)
}

/// Parts that work is cut into for so many threads, if there are enough: a few for each, to even out what the machine does besides.
pub(crate) fn parts_wanted(threads: usize) -> usize {
    threads.min(MAX_THREADS) * 4
}

/// More threads than this are not counted, lest sums of parts overflow.
const MAX_THREADS: usize = 1 << 16;

/// Calls `f` once for every chunk of `len` floats of a slice, with its number, on the executor's threads.
pub(crate) fn for_each_chunk(
    executor: &dyn Executor,
    all: &mut [f32],
    len: usize,
    f: impl Fn(usize, &mut [f32]) + Sync,
) {
    let chunks = all.len().checked_div(len).unwrap_or(0);
    let shared = Shared::new(all);
    for_each_part_with(executor, chunks, &mut [], 0, |i, _| {
        // SAFETY: whole chunks lie inside the slice and are disjoint; each is one part's, and the slice stays borrowed.
        f(i, unsafe { core::slice::from_raw_parts_mut(shared.at(i * len), len) });
    });
}

/// Shares of the parts: more threads than this begin with each other's.
const SHARES: usize = 16;

/// A counter on a cache line of its own, so that threads which claim from different shares do not wait for each other.
#[derive(Default)]
#[repr(align(64))]
struct Counter(AtomicUsize);

/// Which parts have been claimed: for each share, how many.
struct Claims {
    claimed: [Counter; SHARES],
    shares: usize,
    parts: usize,
}

impl Claims {
    fn new(parts: usize, threads: usize) -> Self {
        Self { claimed: Default::default(), shares: threads.clamp(1, SHARES), parts }
    }

    /// Parts that nobody has claimed yet, each claimed as it is returned: those of the seat's own share, then others'.
    fn of(&self, seat: usize) -> impl Iterator<Item = usize> + '_ {
        let own = seat % self.shares;
        (own..own + self.shares).flat_map(move |share| {
            let share = share % self.shares;
            let parts = cut(self.parts, self.shares, share);
            core::iter::from_fn(move || {
                // Relaxed: the counter publishes nothing; the executor's return orders all parts before what follows.
                let i = self.claimed[share].0.fetch_add(1, Ordering::Relaxed);
                (i < parts.len()).then_some(parts.start + i)
            })
        })
    }
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

    /// Of floats that hold nothing yet.
    pub(crate) fn unwritten(slice: &'a mut [MaybeUninit<f32>]) -> Self {
        Self { start: slice.as_mut_ptr().cast(), len: slice.len(), slice: PhantomData }
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

    /// Elements from `at` on, which may hold nothing yet.
    ///
    /// # Safety
    /// Nobody else uses them while they are borrowed.
    ///
    /// # Panics
    /// If they reach beyond the end.
    pub(crate) unsafe fn part(&self, at: usize, len: usize) -> &'a mut [MaybeUninit<f32>] {
        assert!(at <= self.len && len <= self.len - at, "elements {at} and {len} on of {}", self.len);
        // SAFETY: they lie inside the slice (asserted), which is borrowed for so long, and are this caller's alone.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(at).cast(), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_equal_and_cover_once() {
        for (total, pieces) in [(0usize, 1usize), (7, 2), (7, 9), (100, 7), (usize::MAX, 3), (usize::MAX - 1, 1 << 18)]
        {
            let exact = |i: usize| (total as u128 * i as u128 / pieces as u128) as usize;
            for i in (0..pieces).step_by(pieces.div_ceil(50)).chain([pieces - 1]) {
                assert_eq!(cut(total, pieces, i), exact(i)..exact(i + 1), "{total} into {pieces}, {i}");
            }
        }
    }

    #[test]
    fn every_part_is_claimed_once_and_shares_are_adjacent() {
        for (parts, threads) in [(0, 2), (1, 2), (7, 2), (8, 3), (100, 40), (5, 8)] {
            let claims = Claims::new(parts, threads);
            let mut seen = Vec::new();
            // Every seat takes its first part, then one of them the rest.
            for seat in 0..threads.min(SHARES) {
                let first = claims.of(seat).next();
                if parts >= threads {
                    assert_eq!(first, Some(parts * seat / threads.min(SHARES)));
                }
                seen.extend(first);
            }
            seen.extend(claims.of(threads + 1));
            seen.sort_unstable();
            assert_eq!(seen, (0..parts).collect::<Vec<_>>(), "{parts} parts, {threads} threads");
            assert_eq!(claims.of(0).next(), None);
        }
    }
}
