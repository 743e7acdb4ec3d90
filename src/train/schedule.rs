//! Learning rates over time, with PyTorch's names and numbers. A schedule is a function of the step alone, so a run
//! that resumes needs no more than its number; only [`ReduceLrOnPlateau`] also remembers what it was told.
//!
//! What a step is, is the caller's choice: an epoch for most, a batch for [`OneCycleLr`].
//!
//! ```
//! use swath::train::Rates;
//! use swath::train::schedule::{CosineAnnealingLr, LinearLr, Schedule, SequentialLr};
//! let schedule = SequentialLr::new(LinearLr::new(3).start_factor(0.25)).then(3, CosineAnnealingLr::new(5));
//! let lr = |step| schedule.rates(step, Rates { lr: 1.0, momentum: None }).lr;
//! assert_eq!((lr(0), lr(1), lr(3)), (0.25, 0.5, 1.0));
//! assert!((lr(4) - 0.9045).abs() < 1e-4 && lr(8) < 1e-9);
//! ```

mod cosine;
mod one_cycle;
mod plateau;
mod ramp;
mod sequence;
mod steps;

use core::fmt;

pub use cosine::{CosineAnnealingLr, CosineAnnealingWarmRestarts};
pub use one_cycle::{Anneal, OneCycleLr};
pub use plateau::{Mode, ReduceLrOnPlateau, Threshold};
pub use ramp::{LinearLr, PolynomialLr};
pub use sequence::SequentialLr;
pub use steps::{ConstantLr, ExponentialLr, MultiStepLr, StepLr};

use super::optimizer::Rates;
use crate::error::{Error, Result};

/// Learning rates over time.
pub trait Schedule: fmt::Debug + Send + Sync {
    /// PyTorch's name, such as `StepLR`.
    fn name(&self) -> &'static str;

    /// Whether the options exist.
    ///
    /// # Errors
    /// If one is out of range.
    fn check(&self) -> Result<()>;

    /// The rates of a step, counted from 0, from those that the optimizer was made with.
    fn rates(&self, step: u64, base: Rates) -> Rates;

    /// How many steps there are, if they end.
    fn end(&self) -> Option<u64> {
        None
    }

    /// Tells the schedule how a validation went. Most do not listen.
    fn observe(&mut self, _metric: f64) {}

    /// What the schedule remembers of [`Schedule::observe`], for a checkpoint; empty for those that do not listen.
    fn memory(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Takes back what [`Schedule::memory`] gave.
    ///
    /// # Errors
    /// If it is of another length.
    fn remember(&mut self, memory: &[f64]) -> Result<()> {
        crate::error::check_len("the schedule's memory", memory.len(), 0)
    }
}

/// The same momentum at another learning rate.
fn with_lr(base: Rates, lr: f64) -> Rates {
    Rates { lr, ..base }
}

/// `Ok` if the length of something is not 0.
fn check_length(what: &'static str, value: u64) -> Result<()> {
    if value > 0 {
        return Ok(());
    }
    Err(Error::Setting { what, value: "0".into(), rule: "it must be at least 1".into() })
}

/// `Ok` if a number is finite and at least `least`.
fn check_least(what: &'static str, value: f64, least: f64) -> Result<()> {
    if value.is_finite() && value >= least {
        return Ok(());
    }
    Err(Error::Setting {
        what,
        value: value.to_string(),
        rule: format!("it must be a finite number of at least {least}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_rates(schedule: &dyn Schedule, want: &[f64]) {
        schedule.check().unwrap();
        for (step, want) in want.iter().enumerate() {
            let got = schedule.rates(step as u64, Rates { lr: 1.0, momentum: None });
            assert!((got.lr - want).abs() < 6e-5, "{} at {step}: {} for {want}", schedule.name(), got.lr);
            assert_eq!(got.momentum, None);
        }
    }

    #[test]
    fn rates_as_pytorch_computes_them() {
        assert_rates(&CosineAnnealingLr::new(4), &[1.0, 0.853553, 0.5, 0.146447, 0.0, 0.146447]);
        assert_rates(&StepLr::new(2), &[1.0, 1.0, 0.1, 0.1]);
        assert_rates(&LinearLr::new(4), &[1.0 / 3.0, 0.5, 0.6667, 0.8333, 1.0, 1.0]);
        let one_cycle = [0.04, 0.52, 1.0, 0.950485, 0.811746, 0.611262, 0.388742, 0.188258, 0.049519, 4e-6];
        assert_rates(&OneCycleLr::new(1.0, 10), &one_cycle);
        let linear = OneCycleLr::new(1.0, 10).three_phase(true).anneal(Anneal::Linear);
        assert_rates(&linear, &[0.04, 0.52, 1.0, 0.52, 0.04, 0.032]);
        let restarts = CosineAnnealingWarmRestarts::new(2).t_mult(2);
        assert_rates(&restarts, &[1.0, 0.5, 1.0, 0.8536, 0.5, 0.1464, 1.0]);
        assert_rates(&PolynomialLr::new(4).power(2.0), &[1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]);
        let warm = SequentialLr::new(LinearLr::new(3).start_factor(0.25)).then(3, CosineAnnealingLr::new(5));
        assert_rates(&warm, &[0.25, 0.5, 0.75, 1.0, 0.9045, 0.6545, 0.3455, 0.0955, 0.0]);
        assert_rates(&ConstantLr, &[1.0, 1.0]);
    }

    #[test]
    fn one_cycle_moves_momentum_against_the_rate() {
        let s = OneCycleLr::new(1.0, 10);
        let m = |step| s.rates(step, Rates { lr: 0.1, momentum: Some(0.9) }).momentum.unwrap();
        assert!((m(0) - 0.95).abs() < 1e-12 && (m(2) - 0.85).abs() < 1e-12 && (m(9) - 0.95).abs() < 1e-12);
        assert_eq!(s.cycle_momentum(false).rates(2, Rates { lr: 0.1, momentum: Some(0.9) }).momentum, Some(0.9));
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let refused: [&dyn Schedule; 9] = [
            &StepLr::new(0),
            &CosineAnnealingLr::new(0),
            &CosineAnnealingWarmRestarts::new(2).t_mult(0),
            &OneCycleLr::new(1.0, 0),
            &OneCycleLr::new(1.0, 10).pct_start(1.5),
            &LinearLr::new(4).start_factor(0.0),
            &ExponentialLr::new(f64::NAN),
            &ReduceLrOnPlateau::new().factor(1.0),
            &SequentialLr::new(ConstantLr).then(5, StepLr::new(1)).then(5, StepLr::new(1)),
        ];
        for s in refused {
            assert!(s.check().is_err(), "{s:?}");
        }
    }

    #[test]
    fn a_step_past_the_end_is_refused() {
        let mut o = crate::train::Optimization::new(crate::train::Sgd::new(0.1)).unwrap();
        let s = OneCycleLr::new(1.0, 10);
        o.follow(&s, 9).unwrap();
        let e = o.follow(&s, 10).unwrap_err().to_string();
        assert!(e.contains("10") && e.contains("OneCycleLR"), "{e}");
    }
}
