//! One rise and one long fall (Smith and Topin 2017).

use swath_kernels::setters;

use core::f64::consts::PI;

use super::{Rates, Schedule, check_least, check_length};
use crate::error::{Error, Result};

/// The way from one rate to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anneal {
    /// Half a cosine.
    #[default]
    Cos,
    /// A straight line.
    Linear,
}

impl Anneal {
    fn between(self, start: f64, end: f64, part: f64) -> f64 {
        match self {
            Self::Cos => end + (start - end) / 2.0 * (1.0 + (PI * part).cos()),
            Self::Linear => start + (end - start) * part,
        }
    }
}

/// PyTorch's `OneCycleLR`: a rise from `max_lr / div_factor` to `max_lr` in the first `pct_start` of the steps, then a
/// fall to `max_lr / div_factor / final_div_factor`. Momentum, where the optimizer has some, moves the other way.
///
/// The rates of the optimizer's own are not used, and a step past the last is an error. A step is a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneCycleLr {
    max_lr: f64,
    total_steps: u64,
    pct_start: f64,
    anneal: Anneal,
    div_factor: f64,
    final_div_factor: f64,
    three_phase: bool,
    momentum: Option<(f64, f64)>,
}

impl OneCycleLr {
    /// One cycle of that many steps up to `max_lr`.
    pub fn new(max_lr: f64, total_steps: u64) -> Self {
        Self {
            max_lr,
            total_steps,
            pct_start: 0.3,
            anneal: Anneal::Cos,
            div_factor: 25.0,
            final_div_factor: 1e4,
            three_phase: false,
            momentum: Some((0.85, 0.95)),
        }
    }

    /// Whether momentum moves at all, `true` by default.
    pub fn cycle_momentum(mut self, cycle_momentum: bool) -> Self {
        self.momentum = cycle_momentum.then_some((0.85, 0.95));
        self
    }

    /// The least and the largest momentum, 0.85 and 0.95 by default.
    pub fn momentum(mut self, base: f64, max: f64) -> Self {
        self.momentum = Some((base, max));
        self
    }
}

setters!(OneCycleLr {
    /// The share of the steps that rise, 0.3 by default.
    pct_start: f64,
    /// The form of rise and fall, a cosine by default.
    anneal: Anneal,
    /// How many times smaller the first rate is than the largest, 25 by default.
    div_factor: f64,
    /// How many times smaller the last rate is than the first, 10,000 by default.
    final_div_factor: f64,
    /// Whether the fall stops at the first rate for as long as the rise took, and then goes on; `false` by default.
    three_phase: bool,
});

impl Schedule for OneCycleLr {
    fn name(&self) -> &'static str {
        "OneCycleLR"
    }

    fn check(&self) -> Result<()> {
        check_length("total_steps", self.total_steps)?;
        check_least("max_lr", self.max_lr, 0.0)?;
        check_least("div_factor", self.div_factor, f64::MIN_POSITIVE)?;
        check_least("final_div_factor", self.final_div_factor, f64::MIN_POSITIVE)?;
        let (base, max) = self.momentum.unwrap_or_default();
        check_least("base_momentum", base, 0.0)?;
        check_least("max_momentum", max, base)?;
        if (0.0..=1.0).contains(&self.pct_start) {
            return Ok(());
        }
        let rule = "it is a share, from 0 to 1".into();
        Err(Error::Setting { what: "pct_start", value: self.pct_start.to_string(), rule })
    }

    fn end(&self) -> Option<u64> {
        Some(self.total_steps)
    }

    fn rates(&self, step: u64, base: Rates) -> Rates {
        let first = self.max_lr / self.div_factor;
        let last = first / self.final_div_factor;
        let (low, high) = self.momentum.unwrap_or_default();
        let total = self.total_steps as f64;
        let rise = self.pct_start * total - 1.0;
        // Where a phase ends, its rates, and its momentum.
        let two = [(rise, (first, self.max_lr), (high, low)), (total - 1.0, (self.max_lr, last), (low, high))];
        let three = [
            two[0],
            (2.0 * self.pct_start * total - 2.0, (self.max_lr, first), (low, high)),
            (total - 1.0, (first, last), (high, high)),
        ];
        let phases: &[_] = if self.three_phase { &three } else { &two };
        let step = step as f64;
        let at = phases.iter().position(|p| step <= p.0).unwrap_or(phases.len() - 1);
        let start = if at == 0 { 0.0 } else { phases[at - 1].0 };
        let (end, lr, momentum) = phases[at];
        // A phase of no length is over at once.
        let part = if end > start { (step - start) / (end - start) } else { 1.0 };
        let along = |(from, to)| self.anneal.between(from, to, part);
        let momentum = base.momentum.map(|own| if self.momentum.is_some() { along(momentum) } else { own });
        Rates { lr: along(lr), momentum }
    }
}
