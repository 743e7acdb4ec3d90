//! Rates along a line (warm-up) and along a power.

use swath_kernels::setters;

use super::{Rates, Schedule, check_least, check_length, with_lr};
use crate::error::Result;

/// PyTorch's `LinearLR`: from `start_factor` to `end_factor` times the base in `total_iters` steps. The usual warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearLr {
    total_iters: u64,
    start_factor: f64,
    end_factor: f64,
}

impl LinearLr {
    /// In `total_iters` steps from a third to the whole.
    pub fn new(total_iters: u64) -> Self {
        Self { total_iters, start_factor: 1.0 / 3.0, end_factor: 1.0 }
    }
}

setters!(LinearLr {
    /// The factor at the start, above 0 and at most 1; a third by default.
    start_factor: f64,
    /// The factor at the end and ever after, 1 by default.
    end_factor: f64,
});

impl Schedule for LinearLr {
    fn name(&self) -> &'static str {
        "LinearLR"
    }

    fn check(&self) -> Result<()> {
        check_length("total_iters", self.total_iters)?;
        check_least("start_factor", self.start_factor, f64::MIN_POSITIVE)?;
        check_least("end_factor", self.end_factor, 0.0)
    }

    fn rates(&self, step: u64, base: Rates) -> Rates {
        let part = step.min(self.total_iters) as f64 / self.total_iters as f64;
        with_lr(base, base.lr * (self.start_factor + (self.end_factor - self.start_factor) * part))
    }
}

/// PyTorch's `PolynomialLR`: `base (1 - step / total_iters) ^ power`, and 0 ever after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolynomialLr {
    total_iters: u64,
    power: f64,
}

impl PolynomialLr {
    /// To 0 in `total_iters` steps, along a line.
    pub fn new(total_iters: u64) -> Self {
        Self { total_iters, power: 1.0 }
    }

    /// The power, 1 by default.
    pub fn power(mut self, power: f64) -> Self {
        self.power = power;
        self
    }
}

impl Schedule for PolynomialLr {
    fn name(&self) -> &'static str {
        "PolynomialLR"
    }

    fn check(&self) -> Result<()> {
        check_length("total_iters", self.total_iters)?;
        check_least("power", self.power, 0.0)
    }

    fn rates(&self, step: u64, base: Rates) -> Rates {
        let part = step.min(self.total_iters) as f64 / self.total_iters as f64;
        with_lr(base, base.lr * (1.0 - part).powf(self.power))
    }
}
