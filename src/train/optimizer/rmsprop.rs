//! RMSprop (Hinton's lecture 6e), with its centred form (Graves 2013).

use swath_kernels::setters;

use super::{Now, Optimizer, Piece, Rates, check_not_negative, check_range, lerp};
use crate::error::Result;

/// PyTorch's `RMSprop`: `g += weight_decay p`; `v = alpha v + (1 - alpha) g^2`; `p -= lr g / (sqrt(v) + eps)`. Centred:
/// `sqrt(v - mean(g)^2)`; with momentum: `buf = momentum buf + g / ..`, `p -= lr buf`.
///
/// One thing differs: where `v - mean(g)^2` rounds below zero it is zero, while PyTorch's root is NaN.
///
/// ```
/// use swath::train::{Optimizer, RmsProp};
/// assert_eq!(RmsProp::new(0.01).momentum(0.9).slots(), ["square_avg", "momentum_buffer"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsProp {
    lr: f64,
    alpha: f64,
    eps: f64,
    weight_decay: f64,
    momentum: f64,
    centered: bool,
}

impl RmsProp {
    /// The rule with a learning rate and PyTorch's defaults.
    pub fn new(lr: f64) -> Self {
        Self { lr, alpha: 0.99, eps: 1e-8, weight_decay: 0.0, momentum: 0.0, centered: false }
    }
}

setters!(RmsProp {
    /// How much of the average of squares stays, 0.99 by default.
    alpha: f64,
    /// What is added to the root, 1e-8 by default.
    eps: f64,
    /// What is added to the gradient for each unit of the parameter, 0 by default.
    weight_decay: f64,
    /// How much of the former direction stays, 0 by default.
    momentum: f64,
    /// Whether to divide by an estimate of the deviation instead of the size, `false` by default.
    centered: bool,
});

impl Default for RmsProp {
    /// PyTorch's: a learning rate of 0.01.
    fn default() -> Self {
        Self::new(1e-2)
    }
}

impl Optimizer for RmsProp {
    fn name(&self) -> &'static str {
        "RMSprop"
    }

    fn rates(&self) -> Rates {
        Rates { lr: self.lr, momentum: (self.momentum != 0.0).then_some(self.momentum) }
    }

    fn slots(&self) -> &'static [&'static str] {
        match (self.momentum != 0.0, self.centered) {
            (false, false) => &["square_avg"],
            (true, false) => &["square_avg", "momentum_buffer"],
            (false, true) => &["square_avg", "grad_avg"],
            (true, true) => &["square_avg", "grad_avg", "momentum_buffer"],
        }
    }

    fn check(&self) -> Result<()> {
        check_not_negative("lr", self.lr)?;
        check_not_negative("eps", self.eps)?;
        check_not_negative("weight_decay", self.weight_decay)?;
        check_not_negative("momentum", self.momentum)?;
        check_range("alpha", self.alpha, 1.0, false)
    }

    fn update(&self, now: Now, piece: Piece<'_>) {
        let step = Step {
            now,
            lr: now.rates.lr as f32,
            alpha: self.alpha as f32,
            weight: (1.0 - self.alpha) as f32,
            eps: self.eps as f32,
            decay: self.weight_decay as f32,
            momentum: now.rates.momentum.unwrap_or(self.momentum) as f32,
        };
        let (p, g, [v, second, third]) = (piece.values, piece.gradient, piece.slots);
        match (self.momentum != 0.0, self.centered) {
            (false, false) => step.plain(p, g, v),
            (true, false) => step.with_momentum(p, g, v, second),
            (false, true) => step.centered(p, g, v, second),
            (true, true) => step.centered_with_momentum(p, g, v, second, third),
        }
    }
}

/// The numbers of an update, rounded once.
struct Step {
    now: Now,
    lr: f32,
    alpha: f32,
    weight: f32,
    eps: f32,
    decay: f32,
    momentum: f32,
}

impl Step {
    /// The gradient with decay, once the average of squares has it.
    #[inline(always)]
    fn squared(&self, p: f32, g: f32, v: &mut f32) -> f32 {
        let g = self.now.adjust.apply(g) + self.decay * p;
        *v = *v * self.alpha + self.weight * g * g;
        g
    }

    /// The deviation: the root of the average square less the squared average.
    #[inline(always)]
    fn deviation(&self, g: f32, v: f32, mean: &mut f32) -> f32 {
        *mean = lerp(*mean, g, self.weight);
        let variance = v - *mean * *mean;
        // Not `max`, which would hide a NaN.
        (if variance < 0.0 { 0.0 } else { variance }).sqrt() + self.eps
    }

    fn plain(&self, p: &mut [f32], g: &[f32], v: &mut [f32]) {
        for ((p, &g), v) in p.iter_mut().zip(g).zip(v) {
            let g = self.squared(*p, g, v);
            *p -= self.lr * g / (v.sqrt() + self.eps);
        }
    }

    fn with_momentum(&self, p: &mut [f32], g: &[f32], v: &mut [f32], buffer: &mut [f32]) {
        for (((p, &g), v), buf) in p.iter_mut().zip(g).zip(v).zip(buffer) {
            let g = self.squared(*p, g, v);
            *buf = *buf * self.momentum + g / (v.sqrt() + self.eps);
            *p -= self.lr * *buf;
        }
    }

    fn centered(&self, p: &mut [f32], g: &[f32], v: &mut [f32], mean: &mut [f32]) {
        for (((p, &g), v), mean) in p.iter_mut().zip(g).zip(v).zip(mean) {
            let g = self.squared(*p, g, v);
            *p -= self.lr * g / self.deviation(g, *v, mean);
        }
    }

    fn centered_with_momentum(&self, p: &mut [f32], g: &[f32], v: &mut [f32], mean: &mut [f32], buffer: &mut [f32]) {
        for ((((p, &g), v), mean), buf) in p.iter_mut().zip(g).zip(v).zip(mean).zip(buffer) {
            let g = self.squared(*p, g, v);
            *buf = *buf * self.momentum + g / self.deviation(g, *v, mean);
            *p -= self.lr * *buf;
        }
    }
}
