//! A job lent to other threads: the one place where a borrow reaches threads that outlive it.

use core::cell::UnsafeCell;
use core::mem;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

/// Calls that are running, in the state's lowest bits.
const INSIDE: u64 = 0xffff;
/// How many helpers are asked for, above it; 0 once the job is closed.
const ASKED: u64 = 0xffff << 16;
/// Set while the slot belongs to a lender.
const LENT: u64 = 1 << 32;
/// The number of the job, in the bits above.
const ROUND: u64 = !(INSIDE | ASKED | LENT);
const NEXT_ROUND: u64 = LENT << 1;

type Job = dyn Fn() + Sync;

/// Where one thread lends a job that lies on its stack to others, its helpers, which are numbered from 1.
///
/// The slot starts no thread and makes none sleep. Helpers look at it ([`JobSlot::calls`]) and enter; a lender never
/// waits for a helper that has not entered, so that one which sleeps costs it nothing. One atomic word holds the state.
///
/// ```
/// use core::sync::atomic::{AtomicUsize, Ordering};
/// use swath_kernels::exec::JobSlot;
/// let (slot, calls) = (JobSlot::new(), AtomicUsize::new(0));
/// let job = || { calls.fetch_add(1, Ordering::Relaxed); };
/// std::thread::scope(|s| {
///     s.spawn(|| while !slot.enter(1, &mut 0, |job| job()) { std::thread::yield_now() });
///     let here = || while calls.load(Ordering::Relaxed) == 0 { std::thread::yield_now() };
///     assert!(slot.lend(1, &job, here, |_all_left| {}));
/// });
/// assert_eq!(calls.into_inner(), 1);
/// ```
#[derive(Debug)]
#[repr(align(128))] // cache lines of its own, in pairs as they are fetched: helpers look at it all the time
pub struct JobSlot {
    state: AtomicU64,
    /// Written by the lender while no helper is asked for, read by helpers that have entered.
    job: UnsafeCell<Option<NonNull<Job>>>,
}

// SAFETY: the job may be called from any thread, as it is `Sync`; access to the cell follows the state (see `lend` and
// `enter`).
unsafe impl Sync for JobSlot {}
// SAFETY: a slot that is moved is not borrowed, so that nobody lends or has entered, and the job is never touched.
unsafe impl Send for JobSlot {}

impl Default for JobSlot {
    fn default() -> Self {
        Self::new()
    }
}

impl JobSlot {
    /// A slot with no job in it.
    pub const fn new() -> Self {
        Self { state: AtomicU64::new(0), job: UnsafeCell::new(None) }
    }

    /// Lends `job` to the helpers `1..=helpers` (at most 65,535) while `here` runs, and returns when all that have
    /// entered have left. Until then it calls `wait` once, with a function that says whether they have, so that the
    /// caller may sleep; what is left to wait for after that is waited for awake.
    ///
    /// Returns false, and calls nothing, if another job is being lent: so do nested calls.
    pub fn lend(
        &self,
        helpers: usize,
        job: &(dyn Fn() + Sync),
        here: impl FnOnce(),
        wait: impl FnOnce(&dyn Fn() -> bool),
    ) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        // Acquire: the lender before has left the cell.
        let free = state & LENT == 0
            && self.state.compare_exchange(state, state | LENT, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !free {
            return false;
        }
        // SAFETY: the lifetime alone changes. Helpers follow the pointer only while they are counted as inside, they enter
        // only while they are asked for, and `Open` ends that and waits for the count to become 0 before this function
        // returns or unwinds.
        let job = unsafe { mem::transmute::<NonNull<dyn Fn() + Sync + '_>, NonNull<Job>>(NonNull::from(job)) };
        // SAFETY: LENT was free and is ours, so that no other lender is here, and no helper is: none is asked for yet, and
        // the lender before waited for those that were.
        unsafe { *self.job.get() = Some(job) };
        let round = (state & ROUND).wrapping_add(NEXT_ROUND);
        let asked = (helpers as u64).min(ASKED >> 16) << 16;
        // SeqCst: whoever goes to sleep says so and looks at the state again; whoever lends looks who sleeps.
        self.state.store(round | LENT | asked, Ordering::SeqCst);
        let open = Open(self);
        here();
        open.close();
        if !self.all_left() {
            wait(&|| self.all_left());
        }
        true
    }

    fn all_left(&self) -> bool {
        self.state.load(Ordering::SeqCst) & INSIDE == 0
    }

    /// Whether a job waits for this helper that is not the one of round `seen`.
    pub fn calls(&self, helper: usize, seen: u64) -> bool {
        asks(self.state.load(Ordering::SeqCst), helper, seen)
    }

    /// Enters as helper number `helper`, if a job waits for it that is not the one of round `seen`: calls `run` with the
    /// job and sets `seen`. Returns whether it did; what the lender waits for has then happened.
    pub fn enter(&self, helper: usize, seen: &mut u64, run: impl FnOnce(&(dyn Fn() + Sync))) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            if !asks(state, helper, *seen) || state & INSIDE == INSIDE {
                return false;
            }
            // Acquire: the lender's writes before it published the job, the cell's included.
            match self.state.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        *seen = state & ROUND;
        let _inside = Inside(self);
        // SAFETY: this call was counted while helpers were asked for. So the lender is inside `lend`, wrote the cell
        // before it asked, writes it no more, and stays there until the count is 0 again, which `_inside` sees to.
        let job = unsafe { (*self.job.get()).expect("written before helpers are asked for").as_ref() };
        run(job);
        true
    }
}

fn asks(state: u64, helper: usize, seen: u64) -> bool {
    let asked = (state & ASKED) >> 16;
    asked != 0 && helper as u64 <= asked && state & ROUND != seen
}

/// A job that helpers may enter; closed, and waited for, however the lender leaves.
struct Open<'a>(&'a JobSlot);

impl Open<'_> {
    fn close(&self) {
        self.0.state.fetch_and(!ASKED, Ordering::SeqCst);
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.0.state.load(Ordering::Relaxed) & ASKED != 0 {
            self.close(); // unwinding
        }
        while !self.0.all_left() {
            core::hint::spin_loop();
            std::thread::yield_now();
        }
        // Release: the next lender finds the cell as it was left. Nobody else changes the state of a closed job.
        let round = self.0.state.load(Ordering::Relaxed) & ROUND;
        self.0.state.store(round, Ordering::Release);
    }
}

/// A helper that has entered; it leaves however its job ends.
struct Inside<'a>(&'a JobSlot);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // Release: what the job wrote, for the lender. SeqCst: as in `lend`, for a lender that sleeps.
        self.0.state.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicBool, AtomicUsize};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn helpers_enter_once_a_round_and_only_those_that_are_asked() {
        let (slot, calls, stop) = (JobSlot::new(), AtomicUsize::new(0), AtomicBool::new(false));
        let rounds = if cfg!(miri) { 10 } else { 1000 };
        std::thread::scope(|s| {
            for helper in 1..=3 {
                let (slot, stop) = (&slot, &stop);
                s.spawn(move || {
                    let mut seen = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let entered = slot.enter(helper, &mut seen, |job| job());
                        assert!(!entered || helper <= 2, "helper 3 was not asked");
                        std::thread::yield_now();
                    }
                });
            }
            for _ in 0..rounds {
                // On the stack, and gone with the round.
                let ours = AtomicUsize::new(0);
                let job = || {
                    ours.fetch_add(1, Ordering::Relaxed);
                };
                let here = || {
                    while ours.load(Ordering::Relaxed) < 2 {
                        std::thread::yield_now();
                    }
                    // Nested: refused.
                    assert!(!slot.lend(2, &job, || unreachable!(), |_| ()));
                };
                assert!(slot.lend(2, &job, here, |_| ()));
                assert_eq!(ours.load(Ordering::Relaxed), 2);
                calls.fetch_add(ours.into_inner(), Ordering::Relaxed);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(calls.into_inner(), 2 * rounds);
    }

    #[test]
    fn a_lender_that_panics_waits_for_its_helpers_and_leaves_the_slot_usable() {
        let (slot, inside) = (JobSlot::new(), Barrier::new(2));
        let done = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                let mut seen = 0;
                while !slot.enter(1, &mut seen, |job| job()) {
                    std::thread::yield_now();
                }
            });
            let job = || {
                inside.wait();
                (0..100).for_each(|_| std::thread::yield_now());
                done.store(true, Ordering::Relaxed);
            };
            let here = || {
                inside.wait();
                panic!("of the lender");
            };
            catch_unwind(AssertUnwindSafe(|| slot.lend(1, &job, here, |_| ()))).unwrap_err();
            assert!(done.load(Ordering::Relaxed));
        });
        assert!(slot.lend(1, &|| (), || (), |_| ()));
        assert!(!slot.calls(1, 0), "closed");
    }
}
