//! Waiting awake: bounded, and off where the bound is 0.

use std::time::{Duration, Instant};

/// How long a thread looks out for work, or waits for another's part, before it sleeps, where nobody says otherwise.
/// Waking a thread takes 50 to 200 microseconds in a virtual machine; steps of a model follow each other faster than that.
pub(super) const SPIN: Duration = Duration::from_micros(200);

/// Looks at `done` until it is true, for at most `limit`; returns whether it was. Now and then the thread lets others of
/// its core go first, as what it waits for may be one of them.
pub(super) fn until(limit: Duration, done: impl Fn() -> bool) -> bool {
    const LOOKS: usize = 32;
    if done() {
        return true;
    }
    if limit.is_zero() {
        return false;
    }
    let start = Instant::now();
    loop {
        for _ in 0..LOOKS {
            (0..4).for_each(|_| core::hint::spin_loop());
            if done() {
                return true;
            }
        }
        if start.elapsed() >= limit {
            return false;
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    #[test]
    fn waiting_ends_with_what_is_waited_for_or_with_the_limit() {
        let looks = Cell::new(0);
        let third = || {
            looks.set(looks.get() + 1);
            looks.get() == 3
        };
        assert!(until(Duration::MAX, third));
        assert_eq!(looks.get(), 3);
        assert!(!until(Duration::from_micros(50), || false));
        looks.set(0);
        assert!(!until(Duration::ZERO, third), "off: one look");
        assert_eq!(looks.get(), 1);
    }
}
