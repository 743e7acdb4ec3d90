//! Rates that fall along half a cosine (Loshchilov and Hutter 2017).

use swath_kernels::setters;

use core::f64::consts::PI;

use super::{Rates, Schedule, check_least, check_length, with_lr};
use crate::error::Result;

/// The share of the way from the base to the minimum that is left after `part` of it, from 1 to 0.
fn left(part: f64) -> f64 {
    (1.0 + (PI * part).cos()) / 2.0
}

/// PyTorch's `CosineAnnealingLR`: from the base to `eta_min` in `t_max` steps, and then up again, as there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineAnnealingLr {
    t_max: u64,
    eta_min: f64,
}

impl CosineAnnealingLr {
    /// Down in `t_max` steps.
    pub fn new(t_max: u64) -> Self {
        Self { t_max, eta_min: 0.0 }
    }

    /// The least rate, 0 by default.
    pub fn eta_min(mut self, eta_min: f64) -> Self {
        self.eta_min = eta_min;
        self
    }
}

impl Schedule for CosineAnnealingLr {
    fn name(&self) -> &'static str {
        "CosineAnnealingLR"
    }

    fn check(&self) -> Result<()> {
        check_length("t_max", self.t_max)?;
        check_least("eta_min", self.eta_min, 0.0)
    }

    fn rates(&self, step: u64, base: Rates) -> Rates {
        let part = step as f64 / self.t_max as f64;
        with_lr(base, self.eta_min + (base.lr - self.eta_min) * left(part))
    }
}

/// PyTorch's `CosineAnnealingWarmRestarts`: down in `t_0` steps, then from the base again in `t_0 * t_mult`, and so on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineAnnealingWarmRestarts {
    t_0: u64,
    t_mult: u64,
    eta_min: f64,
}

impl CosineAnnealingWarmRestarts {
    /// A first period of `t_0` steps.
    pub fn new(t_0: u64) -> Self {
        Self { t_0, t_mult: 1, eta_min: 0.0 }
    }
}

setters!(CosineAnnealingWarmRestarts {
    /// How many times longer each period is than the one before, 1 by default.
    t_mult: u64,
    /// The least rate, 0 by default.
    eta_min: f64,
});

impl Schedule for CosineAnnealingWarmRestarts {
    fn name(&self) -> &'static str {
        "CosineAnnealingWarmRestarts"
    }

    fn check(&self) -> Result<()> {
        check_length("t_0", self.t_0)?;
        check_length("t_mult", self.t_mult)?;
        check_least("eta_min", self.eta_min, 0.0)
    }

    fn rates(&self, step: u64, base: Rates) -> Rates {
        let (mut period, mut at) = (self.t_0, step);
        if self.t_mult == 1 {
            at %= period;
        }
        while at >= period {
            at -= period;
            period = period.saturating_mul(self.t_mult);
        }
        with_lr(base, self.eta_min + (base.lr - self.eta_min) * left(at as f64 / period as f64))
    }
}
