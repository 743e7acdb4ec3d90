//! A crew: the thread that has work, and helpers that sleep while there is none.
//!
//! The thread that calls runs its work itself, and lends each kernel's job to the helpers for as long as it lasts. It
//! takes up no other work while it waits for them, so that locks and borrows which it holds are safe, and it never waits
//! for a helper that has not begun. Where two threads want the same helpers, one gets them and the other works alone.

use core::cell::{Cell, RefCell};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use swath_kernels::exec::{Executor, JobSlot};

use super::spin;
use crate::error::{Error, Result};

/// Most threads of a crew.
const MOST: usize = 1024;

/// Most sleepers that one thread wakes; those wake the others. Waking one takes 1.6 microseconds: with 63 helpers asleep the
/// caller begins its own share after 16 microseconds, and after 106 if it wakes all.
const FAN_OUT: usize = 4;

/// Helpers, and with them the right to end them.
#[derive(Debug)]
pub(super) struct Crew {
    shared: Arc<Shared>,
    /// The process that started the helpers. A child made by `fork` has none of its parent's threads.
    process: u32,
    /// The crew that takes this one's place in a child process; none if it could not be started.
    heir: OnceLock<Option<Arc<Crew>>>,
}

impl Crew {
    /// Starts one helper fewer than `threads`; none for 1, and then nothing here costs anything.
    pub(super) fn start(threads: usize) -> Result<Arc<Self>> {
        if !(1..=MOST).contains(&threads) {
            let rule = format!("it must be from 1 to {MOST}");
            return Err(Error::Setting { what: "the number of threads", value: threads.to_string(), rule });
        }
        let helpers = (1..threads).map(|_| Helper::default()).collect();
        let shared = Arc::new(Shared { helpers, ..Shared::default() });
        let crew = Self { shared, process: process::id(), heir: OnceLock::new() };
        for helper in 1..threads {
            let shared = crew.shared.clone();
            thread::Builder::new()
                .name(format!("swath {helper}"))
                .spawn(move || shared.help(helper))
                .map_err(|e| Error::Threads { reason: format!("{e} at number {helper} of {threads}") })?;
        }
        Ok(Arc::new(crew))
    }

    /// Threads, the caller included.
    pub(super) fn threads(&self) -> usize {
        self.shared.helpers.len() + 1
    }

    /// The crew to use in this process: in a child process one that is started there. Should that fail, this one: it has
    /// no helpers there, and nothing waits for a helper that does not come.
    fn here(&self) -> &Self {
        if self.threads() == 1 || self.process == process::id() {
            return self;
        }
        let start = || {
            Self::start(self.threads())
                .inspect_err(|e| log::warn!("runs in this child process will use the calling thread alone: {e}"))
                .ok()
        };
        self.heir.get_or_init(start).as_ref().map_or(self, |heir| heir.here())
    }

    /// Membership for one job outside of [`Crew::run`].
    pub(super) fn member(&self, spin: Duration) -> Member {
        Member { shared: self.here().shared.clone(), spin }
    }

    /// Runs `f` on the calling thread, whose parallel work meanwhile is this crew's. Helpers without work, and the caller
    /// where it waits for them, stay awake for `spin`.
    pub(super) fn run<R>(&self, spin: Duration, f: impl FnOnce() -> R) -> R {
        let _membership = Membership::begin(self.member(spin));
        f()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // Not joined: the helpers end on their own, and a child process has none that could be waited for.
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake(0..self.shared.helpers.len(), usize::MAX);
    }
}

/// Whose work a thread's parallel work is.
#[derive(Clone, Debug)]
pub(super) struct Member {
    shared: Arc<Shared>,
    spin: Duration,
}

thread_local! {
    static MEMBER: RefCell<Option<Member>> = const { RefCell::new(None) };
    /// The number of a helper; 0 for all other threads.
    static SEAT: Cell<usize> = const { Cell::new(0) };
}

impl Member {
    /// The crew that the calling thread works for, inside [`Crew::run`] and in what helpers run.
    pub(super) fn current() -> Option<Self> {
        MEMBER.with_borrow(Clone::clone)
    }

    /// Threads, the caller included.
    pub(super) fn threads(&self) -> usize {
        self.shared.helpers.len() + 1
    }

    /// Whether helpers wait awake for the next job, for a while at least.
    pub(super) fn stays_awake(&self) -> bool {
        !self.spin.is_zero()
    }

    /// An executor over at most so many of the crew's threads.
    pub(super) fn executor(self, threads: usize) -> Spread {
        Spread { threads: threads.min(self.threads()), member: self }
    }
}

/// While it lives, the calling thread works for a crew.
struct Membership {
    before: Option<Member>,
    /// The crew, if this call is what made the thread work for it.
    joined: Option<Arc<Shared>>,
}

impl Membership {
    fn begin(member: Member) -> Self {
        let Member { shared, spin } = member.clone();
        let before = MEMBER.replace(Some(member));
        let joined = before.as_ref().is_none_or(|b| !Arc::ptr_eq(&b.shared, &shared)).then_some(shared);
        if let Some(shared) = &joined {
            shared.runs.fetch_add(1, Ordering::Relaxed);
            // Awake by the time that the first job is there, if runs have jobs.
            if !spin.is_zero() && shared.called.swap(false, Ordering::Relaxed) {
                shared.stay_awake(spin);
                shared.call(shared.helpers.len());
            }
        }
        Self { before, joined }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        MEMBER.set(self.before.take());
        if let Some(shared) = &self.joined {
            shared.runs.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The executor of a crew.
pub(crate) struct Spread {
    member: Member,
    threads: usize,
}

impl Executor for Spread {
    fn threads(&self) -> usize {
        self.threads
    }

    fn spread(&self, job: &(dyn Fn() + Sync)) {
        self.member.shared.spread(self.threads - 1, self.member.spin, job);
    }

    fn seat(&self) -> usize {
        SEAT.get()
    }
}

/// What a crew's threads share.
#[derive(Debug, Default)]
struct Shared {
    slot: JobSlot,
    helpers: Box<[Helper]>,
    /// Runs that are under way, each on a thread of its own.
    runs: AtomicUsize,
    /// For how many nanoseconds a helper without work stays awake.
    spin: AtomicU64,
    /// How many helpers were called last.
    wanted: AtomicUsize,
    /// Whether a job was lent since the last run began.
    called: AtomicBool,
    stop: AtomicBool,
    /// Set while a lender sleeps until all helpers have left its job.
    waits: AtomicBool,
    gate: Mutex<()>,
    left: Condvar,
}

/// One helper's sleep, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Helper {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Shared {
    /// Calls `job` here and on up to `helpers` helpers.
    fn spread(&self, helpers: usize, spin: Duration, job: &(dyn Fn() + Sync)) {
        // Other runs have threads of their own: together they are no more than the crew's, as far as that is possible.
        let others = self.runs.load(Ordering::Relaxed).saturating_sub(1);
        let helpers = helpers.min(self.helpers.len().saturating_sub(others));
        if helpers == 0 {
            return job();
        }
        self.stay_awake(spin);
        if !self.called.load(Ordering::Relaxed) {
            self.called.store(true, Ordering::Relaxed);
        }
        let panic = Mutex::new(None);
        let helped = || {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(job)) {
                *panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
            }
        };
        let here = || {
            self.call(helpers);
            job();
        };
        if !self.slot.lend(helpers, &helped, here, |all_left| self.wait(spin, all_left)) {
            return job();
        }
        if let Some(payload) = panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
    }

    /// Tells helpers how long to stay awake without work. Written only where it changes: they look at what lies beside it.
    fn stay_awake(&self, spin: Duration) {
        let nanos = spin.as_nanos().try_into().unwrap_or(u64::MAX);
        if self.spin.load(Ordering::Relaxed) != nanos {
            self.spin.store(nanos, Ordering::Relaxed);
        }
    }

    /// Has the first `helpers` helpers awake: wakes some of those that sleep, which wake the others.
    fn call(&self, helpers: usize) {
        if self.wanted.load(Ordering::Relaxed) != helpers {
            self.wanted.store(helpers, Ordering::Relaxed);
        }
        self.wake(0..helpers, FAN_OUT);
    }

    /// Wakes the first `most` of those helpers that sleep.
    fn wake(&self, helpers: Range<usize>, most: usize) {
        let sleeps = |h: &&Helper| h.asleep.load(Ordering::SeqCst) && h.asleep.swap(false, Ordering::SeqCst);
        for helper in self.helpers[helpers].iter().filter(sleeps).take(most) {
            helper.thread.get().expect("set before the helper first sleeps").unpark();
        }
    }

    /// Waits as a lender, awake at first.
    fn wait(&self, spin: Duration, all_left: &dyn Fn() -> bool) {
        if spin::until(spin, all_left) {
            return;
        }
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        // SeqCst, and so is leaving: either this thread sees that all have left, or the last to leave sees that it waits.
        self.waits.store(true, Ordering::SeqCst);
        while !all_left() {
            gate = self.left.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
        self.waits.store(false, Ordering::SeqCst);
    }

    /// A helper's life.
    fn help(self: Arc<Self>, number: usize) {
        self.helpers[number - 1].thread.set(thread::current()).expect("each helper has its place");
        SEAT.set(number);
        // What a job does in parallel is for its own thread: the slot is taken while it runs.
        MEMBER.set(Some(Member { shared: self.clone(), spin: Duration::ZERO }));
        let mut seen = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let entered = self.slot.enter(number, &mut seen, |job| job());
            if entered && self.waits.load(Ordering::SeqCst) {
                // Behind the lock, so that the lender is not between its look and its sleep.
                drop(self.gate.lock().unwrap_or_else(PoisonError::into_inner));
                self.left.notify_one();
            }
            let spin = Duration::from_nanos(self.spin.load(Ordering::Relaxed));
            if !spin::until(spin, || self.slot.calls(number, seen) || self.stop.load(Ordering::Relaxed)) {
                self.sleep(number, seen);
            }
        }
    }

    /// Sleeps until woken.
    fn sleep(&self, number: usize, seen: u64) {
        let asleep = &self.helpers[number - 1].asleep;
        asleep.store(true, Ordering::SeqCst);
        // SeqCst: either this sees the job, or its lender sees that this sleeps.
        if self.slot.calls(number, seen) || self.stop.load(Ordering::SeqCst) {
            asleep.store(false, Ordering::SeqCst);
            return;
        }
        while asleep.load(Ordering::SeqCst) {
            thread::park();
        }
        // Those behind this one alone: two that woke each other would never sleep. Nobody is left out, as whoever is woken last
        // before a sleeper finds it among the next.
        let wanted = self.wanted.load(Ordering::Relaxed);
        self.wake(number.min(wanted)..wanted, FAN_OUT);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::time::Instant;

    use super::*;

    const SPINS: [Duration; 2] = [Duration::ZERO, spin::SPIN];

    #[test]
    fn threads_meet_in_a_job_asleep_or_awake() {
        for spin in SPINS {
            for threads in [2, 3, 5, 12] {
                let (crew, calls) = (Crew::start(threads).unwrap(), AtomicUsize::new(0));
                crew.run(spin, || {
                    let executor = Member::current().unwrap().executor(usize::MAX);
                    for _ in 0..20 {
                        let all = Barrier::new(threads);
                        executor.spread(&|| {
                            all.wait();
                            calls.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
                assert!(Member::current().is_none());
                assert_eq!(calls.into_inner(), 20 * threads, "{threads} threads, {spin:?}");
            }
        }
    }

    #[test]
    fn helpers_that_were_woken_sleep_again() {
        for spin in SPINS {
            let crew = Crew::start(12).unwrap();
            for _ in 0..3 {
                crew.run(spin, || Member::current().unwrap().executor(12).spread(&|| ()));
                let asleep = || crew.shared.helpers.iter().all(|h| h.asleep.load(Ordering::SeqCst));
                // All of them at once, a thousand times in a row: none wakes another.
                let (mut looks, start) = (0, Instant::now());
                while looks < 1000 {
                    assert!(start.elapsed() < Duration::from_secs(60), "some stay awake");
                    looks = if asleep() { looks + 1 } else { 0 };
                    thread::yield_now();
                }
            }
        }
    }

    #[test]
    fn a_job_inside_a_job_is_its_own_threads() {
        let crew = Crew::start(3).unwrap();
        crew.run(spin::SPIN, || {
            let executor = || Member::current().unwrap().executor(3);
            let all = Barrier::new(3);
            executor().spread(&|| {
                all.wait();
                let outer = thread::current().id();
                executor().spread(&|| assert_eq!(thread::current().id(), outer));
            });
        });
    }

    #[test]
    fn callers_that_share_a_crew_each_get_their_work_done() {
        for spin in SPINS {
            let crew = Crew::start(3).unwrap();
            thread::scope(|s| {
                for _ in 0..4 {
                    s.spawn(|| {
                        for _ in 0..50 {
                            let calls = AtomicUsize::new(0);
                            crew.run(spin, || {
                                Member::current().unwrap().executor(3).spread(&|| {
                                    calls.fetch_add(1, Ordering::Relaxed);
                                });
                            });
                            assert!((1..=3).contains(&calls.into_inner()));
                        }
                    });
                }
            });
            assert_eq!(crew.shared.runs.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_panic_of_any_thread_reaches_the_caller_and_leaves_the_crew_usable() {
        let crew = Crew::start(2).unwrap();
        for of_helper in [true, false] {
            let both = Barrier::new(2);
            let run = || {
                crew.run(spin::SPIN, || {
                    Member::current().unwrap().executor(2).spread(&|| {
                        both.wait();
                        assert!((SEAT.get() == 1) != of_helper, "{}", SEAT.get());
                    });
                });
            };
            let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(*payload.downcast::<String>().unwrap(), if of_helper { "1" } else { "0" });
            assert!(Member::current().is_none());
            assert_eq!(crew.shared.runs.load(Ordering::Relaxed), 0);
        }
        let both = Barrier::new(2);
        crew.member(spin::SPIN).executor(2).spread(&|| {
            both.wait();
        });
    }

    #[test]
    fn helpers_end_with_their_crew() {
        for spin in SPINS {
            let crew = Crew::start(4).unwrap();
            crew.run(spin, || Member::current().unwrap().executor(4).spread(&|| ()));
            let shared = Arc::downgrade(&crew.shared);
            drop(crew);
            while shared.strong_count() > 0 {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn numbers_that_make_no_crew_are_refused() {
        for threads in [0, MOST + 1, 65_535, usize::MAX] {
            let error = Crew::start(threads).unwrap_err().to_string();
            assert_eq!(error, format!("the number of threads is {threads}, but it must be from 1 to 1024"));
        }
        assert_eq!(Crew::start(1).unwrap().threads(), 1);
    }
}
