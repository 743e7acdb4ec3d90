//! Rates that fall by a factor: every so many steps, at given steps, or at each.

use super::{Rates, Schedule, check_least, check_length, with_lr};
use crate::error::Result;

/// The rates as they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConstantLr;

impl Schedule for ConstantLr {
    fn name(&self) -> &'static str {
        "constant"
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn rates(&self, _step: u64, base: Rates) -> Rates {
        base
    }
}

/// PyTorch's `StepLR`: times `gamma` every `step_size` steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepLr {
    step_size: u64,
    gamma: f64,
}

impl StepLr {
    /// Every `step_size` steps.
    pub fn new(step_size: u64) -> Self {
        Self { step_size, gamma: 0.1 }
    }

    /// The factor, 0.1 by default.
    pub fn gamma(mut self, gamma: f64) -> Self {
        self.gamma = gamma;
        self
    }
}

impl Schedule for StepLr {
    fn name(&self) -> &'static str {
        "StepLR"
    }

    fn check(&self) -> Result<()> {
        check_length("step_size", self.step_size)?;
        check_least("gamma", self.gamma, 0.0)
    }

    fn rates(&self, step: u64, base: Rates) -> Rates {
        with_lr(base, base.lr * self.gamma.powf((step / self.step_size) as f64))
    }
}

/// PyTorch's `MultiStepLR`: times `gamma` at each milestone.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiStepLr {
    milestones: Vec<u64>,
    gamma: f64,
}

impl MultiStepLr {
    /// At these steps, in any order; one named twice counts twice.
    pub fn new(milestones: impl Into<Vec<u64>>) -> Self {
        Self { milestones: milestones.into(), gamma: 0.1 }
    }

    /// The factor, 0.1 by default.
    pub fn gamma(mut self, gamma: f64) -> Self {
        self.gamma = gamma;
        self
    }
}

impl Schedule for MultiStepLr {
    fn name(&self) -> &'static str {
        "MultiStepLR"
    }

    fn check(&self) -> Result<()> {
        check_least("gamma", self.gamma, 0.0)
    }

    fn rates(&self, step: u64, base: Rates) -> Rates {
        let passed = self.milestones.iter().filter(|&&m| m <= step).count();
        with_lr(base, base.lr * self.gamma.powf(passed as f64))
    }
}

/// PyTorch's `ExponentialLR`: times `gamma` at each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExponentialLr {
    gamma: f64,
}

impl ExponentialLr {
    /// By this factor.
    pub fn new(gamma: f64) -> Self {
        Self { gamma }
    }
}

impl Schedule for ExponentialLr {
    fn name(&self) -> &'static str {
        "ExponentialLR"
    }

    fn check(&self) -> Result<()> {
        check_least("gamma", self.gamma, 0.0)
    }

    fn rates(&self, step: u64, base: Rates) -> Rates {
        with_lr(base, base.lr * self.gamma.powf(step as f64))
    }
}
