//! Rates that fall when validation stops getting better.

use swath_kernels::setters;

use super::{Rates, Schedule, check_least, with_lr};
use crate::error::{Error, Result, check_len};

/// Which metrics are better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Smaller ones, such as a loss.
    #[default]
    Min,
    /// Larger ones, such as an accuracy.
    Max,
}

/// By how much a metric must be better to count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// By this share of the best one.
    Relative(f64),
    /// By this much.
    Absolute(f64),
}

/// PyTorch's `ReduceLROnPlateau`: times `factor` after more than `patience` observations in a row that were not better.
///
/// ```
/// use swath::train::{Rates, schedule::{ReduceLrOnPlateau, Schedule}};
/// let mut schedule = ReduceLrOnPlateau::new().patience(1);
/// for loss in [1.0, 0.5, 0.5, 0.5] {
///     schedule.observe(loss);
/// }
/// assert!((schedule.rates(0, Rates { lr: 1.0, momentum: None }).lr - 0.1).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReduceLrOnPlateau {
    mode: Mode,
    factor: f64,
    patience: u64,
    threshold: Threshold,
    cooldown: u64,
    min_lr: f64,
    eps: f64,
    best: f64,
    bad: u64,
    cooling: u64,
    reductions: u64,
}

impl ReduceLrOnPlateau {
    /// Smaller is better; a tenth after more than ten observations.
    pub fn new() -> Self {
        Self {
            mode: Mode::Min,
            factor: 0.1,
            patience: 10,
            threshold: Threshold::Relative(1e-4),
            cooldown: 0,
            min_lr: 0.0,
            eps: 1e-8,
            best: f64::INFINITY,
            bad: 0,
            cooling: 0,
            reductions: 0,
        }
    }

    /// Which metrics are better; the smaller by default.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self.best = match mode {
            Mode::Min => f64::INFINITY,
            Mode::Max => f64::NEG_INFINITY,
        };
        self
    }

    fn is_better(&self, metric: f64) -> bool {
        match (self.mode, self.threshold) {
            (Mode::Min, Threshold::Relative(t)) => metric < self.best * (1.0 - t),
            (Mode::Min, Threshold::Absolute(t)) => metric < self.best - t,
            (Mode::Max, Threshold::Relative(t)) => metric > self.best * (1.0 + t),
            (Mode::Max, Threshold::Absolute(t)) => metric > self.best + t,
        }
    }
}

setters!(ReduceLrOnPlateau {
    /// The factor, below 1; 0.1 by default.
    factor: f64,
    /// Observations in a row that may be no better, 10 by default.
    patience: u64,
    /// By how much a metric must be better to count, 1e-4 of the best by default.
    threshold: Threshold,
    /// Observations after a reduction that do not count, 0 by default.
    cooldown: u64,
    /// The least rate, 0 by default.
    min_lr: f64,
    /// Reductions by no more than this are left out, 1e-8 by default.
    eps: f64,
});

impl Default for ReduceLrOnPlateau {
    fn default() -> Self {
        Self::new()
    }
}

impl Schedule for ReduceLrOnPlateau {
    fn name(&self) -> &'static str {
        "ReduceLROnPlateau"
    }

    fn check(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.factor) {
            let rule = "it must be at least 0 and below 1".into();
            return Err(Error::Setting { what: "factor", value: self.factor.to_string(), rule });
        }
        check_least("min_lr", self.min_lr, 0.0)?;
        check_least("eps", self.eps, 0.0)
    }

    fn rates(&self, _step: u64, base: Rates) -> Rates {
        let mut lr = base.lr;
        // Zero after some hundred of them at most.
        for _ in 0..self.reductions.min(10_000) {
            let lower = (lr * self.factor).max(self.min_lr);
            if lr - lower <= self.eps {
                break;
            }
            lr = lower;
        }
        with_lr(base, lr)
    }

    fn observe(&mut self, metric: f64) {
        if self.is_better(metric) {
            (self.best, self.bad) = (metric, 0);
        } else {
            self.bad += 1;
        }
        if self.cooling > 0 {
            self.cooling -= 1;
            self.bad = 0;
        }
        if self.bad > self.patience {
            self.reductions += 1;
            (self.cooling, self.bad) = (self.cooldown, 0);
        }
    }

    fn memory(&self) -> Vec<f64> {
        vec![self.best, self.bad as f64, self.cooling as f64, self.reductions as f64]
    }

    fn remember(&mut self, memory: &[f64]) -> Result<()> {
        let &[best, bad, cooling, reductions] = memory else {
            return check_len("the schedule's memory", memory.len(), 4);
        };
        self.best = best;
        [self.bad, self.cooling, self.reductions] = [bad, cooling, reductions].map(|v| v as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lr(s: &ReduceLrOnPlateau) -> f64 {
        s.rates(0, Rates { lr: 1.0, momentum: None }).lr
    }

    #[test]
    fn patience_cooldown_and_the_least_rate() {
        // The rates after each observation, as PyTorch 2.13's rules give them.
        let mut s = ReduceLrOnPlateau::new().patience(1).cooldown(1).factor(0.5).min_lr(0.2);
        let observed = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5];
        let want = [1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2, 0.2];
        for (step, (metric, want)) in observed.into_iter().zip(want).enumerate() {
            s.observe(metric);
            assert!((lr(&s) - want).abs() < 1e-12, "at {step}: {} for {want}", lr(&s));
        }
    }

    #[test]
    fn a_little_better_is_not_better() {
        let mut s = ReduceLrOnPlateau::new().patience(0).mode(Mode::Max).threshold(Threshold::Absolute(0.1));
        s.observe(0.5);
        s.observe(0.7);
        assert_eq!(lr(&s), 1.0);
        s.observe(0.75);
        assert!((lr(&s) - 0.1).abs() < 1e-12);
        s.observe(f64::NAN);
        assert!((lr(&s) - 0.01).abs() < 1e-12);
    }

    #[test]
    fn what_it_remembers_goes_out_and_comes_back() {
        let mut a = ReduceLrOnPlateau::new().patience(2);
        [3.0, 2.0, 2.0].iter().for_each(|&m| a.observe(m));
        let mut b = ReduceLrOnPlateau::new().patience(2);
        b.remember(&a.memory()).unwrap();
        assert_eq!(a, b);
        assert!(b.remember(&[1.0]).unwrap_err().to_string().contains('4'));
    }
}
