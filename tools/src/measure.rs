//! Stopwatches: the FMA peak, the bandwidth of reads, and the time of a repeated run.

use std::hint::black_box;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};
use swath::{Level, Tensor};
use swath_kernels::probe;

use crate::failure::{Failure, Outcome};
use crate::machine::{self, Cache};

/// Milliseconds, and also GFLOP/s and GB/s, that a machine may reach: from a millionth of a picosecond to thirty years. Of
/// others, such as the smallest and the largest floats, ratios would overflow.
pub const TIMES: std::ops::RangeInclusive<f64> = 1e-9..=1e12;

/// Time that one round of a machine measurement takes.
const ROUND: Duration = Duration::from_millis(8);
/// Rounds of a machine measurement; the fastest counts.
const ROUNDS: usize = 8;

/// Work per second of `work(amount)`, which returns the work done: the best of [`ROUNDS`] rounds of [`ROUND`] each.
fn best_rate(mut work: impl FnMut(u64) -> Outcome<u64>) -> Outcome<f64> {
    // Doubling finds the amount, and wakes the clock and the wide units meanwhile.
    let mut amount = 1u64;
    loop {
        let start = Instant::now();
        work(amount)?;
        if start.elapsed() >= ROUND || amount > u64::MAX / 4 {
            break;
        }
        amount *= 2;
    }
    let mut best = 0.0f64;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let done = work(amount)?;
        best = best.max(done as f64 / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// GFLOP/s of multiply-adds on registers at a level, on one core.
pub fn peak(level: Level) -> Outcome<f64> {
    best_rate(|n| probe::fma_flops(level, n.saturating_mul(1 << 10)).map_err(Failure::new)).map(|v| v / 1e9)
}

/// How fast one core reads a working set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bandwidth {
    /// `L1`, `L2`, `L3` or `memory`.
    pub from: String,
    /// The working set.
    pub bytes: usize,
    /// 10^9 bytes per second.
    pub gb_per_s: f64,
}

/// Read bandwidth of every cache and of memory, on one core. Half of a cache is read, so that other data and a
/// neighbour's share do not matter, at most sixteen times the cache above it: the last one may serve a whole socket, of which one
/// core's share and its address translation reach less. Of memory, four times the last cache, at most 512 MiB.
pub fn bandwidths(level: Level, caches: &[Cache]) -> Outcome<Vec<Bandwidth>> {
    let above = std::iter::once(usize::MAX).chain(caches.iter().map(|c| c.bytes.saturating_mul(16)));
    let mut sets: Vec<(String, usize)> =
        caches.iter().zip(above).map(|(c, most)| (format!("L{}", c.level), (c.bytes / 2).min(most))).collect();
    let last = caches.last().map_or(machine::last_cache(), |c| c.bytes);
    sets.push(("memory".into(), (last.saturating_mul(4)).min(512 << 20)));
    sets.into_iter()
        .map(|(from, bytes)| {
            // Aligned to cache lines: a load that straddles two counts as two. Filled, so that it has pages of its own.
            let mut data = Tensor::zeros([bytes / size_of::<f32>()]).map_err(Failure::new)?;
            data.as_mut_slice().fill(1.0);
            let rate = best_rate(|n| probe::read_bytes(level, black_box(data.as_slice()), n).map_err(Failure::new))?;
            Ok(Bandwidth { from, bytes, gb_per_s: rate / 1e9 })
        })
        .collect()
}

/// How long something is timed.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Rounds; the one with the smallest mean counts.
    pub rounds: usize,
    /// Floating-point operations of a round, roughly.
    pub flop: f64,
    /// No further round once this time is over.
    pub limit: Option<Duration>,
}

impl Timing {
    /// What `peers/onednn_conv.cpp` does: the smallest mean of seven rounds of about 0.6 GFLOP each.
    pub const FULL: Timing = Timing { rounds: 7, flop: 6e8, limit: None };
    /// For a first impression: at most a second and a half.
    pub const BRIEF: Timing = Timing { rounds: 5, flop: 2e8, limit: Some(Duration::from_millis(1500)) };

    /// Seconds of one `run` of `flop` operations, after one that warms up.
    pub fn seconds(&self, flop: u64, mut run: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
        let begin = Instant::now();
        run()?;
        // An empty batch has no operations; the upper limit keeps its rounds finite.
        let n = ((self.flop / flop as f64) as u64).clamp(1, 10_000_000);
        let mut best = f64::INFINITY;
        for round in 0..self.rounds {
            if round > 0 && self.limit.is_some_and(|limit| begin.elapsed() >= limit) {
                break;
            }
            let start = Instant::now();
            for _ in 0..n {
                run()?;
            }
            best = best.min(start.elapsed().as_secs_f64() / n as f64);
        }
        Ok(best)
    }

    /// Seconds of one run in every round, for several that do the same `flop` operations. They take turns round by
    /// round, so that a burst of noise hits all alike; before its round, each runs once untimed, since the others
    /// have taken its place in the caches. One that is [`HOPELESS`] sits out the rounds after the second.
    pub fn interleaved(&self, flop: u64, mut runs: Vec<impl FnMut() -> Outcome<()>>) -> Outcome<Vec<Vec<f64>>> {
        let begin = Instant::now();
        let n = ((self.flop / flop as f64) as u64).clamp(1, 10_000_000);
        let mut seconds = vec![Vec::new(); runs.len()];
        let mut best = vec![f64::INFINITY; runs.len()];
        for round in 0..self.rounds {
            if round > 0 && self.limit.is_some_and(|limit| begin.elapsed() >= limit) {
                break;
            }
            let fastest = best.iter().copied().fold(f64::INFINITY, f64::min);
            for (i, run) in runs.iter_mut().enumerate() {
                if round >= 2 && best[i] > HOPELESS * fastest {
                    continue;
                }
                run()?;
                let start = Instant::now();
                for _ in 0..n {
                    run()?;
                }
                let mean = start.elapsed().as_secs_f64() / n as f64;
                best[i] = best[i].min(mean);
                seconds[i].push(mean);
            }
        }
        Ok(seconds)
    }
}

/// So many times slower than the fastest, two rounds say all that anyone wants to know.
pub const HOPELESS: f64 = 2.0;

/// Seconds of each of several runs, after one that warms up: as many as `limit` has time for, and three at least.
pub fn repeat(limit: Duration, mut run: impl FnMut() -> Outcome<()>) -> Outcome<Vec<f64>> {
    run()?;
    let (begin, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || begin.elapsed() < limit {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(times)
}

/// A bar on stderr, if that is a terminal, which shows itself only after a second.
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
}

impl Progress {
    /// A bar of `len` steps.
    pub fn new(len: usize) -> Self {
        let style =
            ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)").expect("the template is right");
        let bar = ProgressBar::with_draw_target(Some(len as u64), ProgressDrawTarget::hidden()).with_style(style);
        Progress { bar, start: Instant::now() }
    }

    /// Begins the step `what`.
    pub fn at(&self, what: &str) {
        if self.bar.is_hidden() && self.start.elapsed() >= Duration::from_secs(1) {
            // indicatif draws nothing where stderr is no terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_message(what.to_string());
    }

    /// Ends a step.
    pub fn step(&self) {
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_hold_the_operations_asked_for() {
        let mut runs = 0;
        let count = |flop: u64, timing: Timing, runs: &mut u64| {
            timing.seconds(flop, || {
                *runs += 1;
                Ok(())
            })
        };
        assert!(count(100_000_000, Timing::FULL, &mut runs).unwrap() < 1.0);
        assert_eq!(runs, 1 + 7 * 6);
        runs = 0;
        count(u64::MAX, Timing { limit: Some(Duration::ZERO), ..Timing::FULL }, &mut runs).unwrap();
        assert_eq!(runs, 2, "one to warm up, one round of one");
    }

    #[test]
    fn interleaved_runs_take_turns_and_hopeless_ones_sit_out() {
        let order = std::cell::RefCell::new(Vec::new());
        let run = |name: char, millis: u64| {
            let order = &order;
            move || {
                order.borrow_mut().push(name);
                std::thread::sleep(Duration::from_millis(millis));
                Ok(())
            }
        };
        let timing = Timing { rounds: 3, flop: 1.0, limit: None };
        let seconds = timing.interleaved(1, vec![run('a', 1), run('b', 60)]).unwrap();
        assert_eq!(order.borrow().iter().collect::<String>(), "aabbaabbaa");
        assert_eq!(seconds.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2]);
        assert!(seconds[1].iter().all(|&s| s >= 0.06));
    }
}
