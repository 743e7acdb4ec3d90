//! Stochastic gradient descent with momentum.

use swath_kernels::setters;

use super::{Now, Optimizer, Piece, Rates, check_not_negative};
use crate::error::{Error, Result};

/// PyTorch's `SGD`: `g += weight_decay p`; `buf = momentum buf + (1 - dampening) g`, at the first update `buf = g`;
/// `p -= lr buf`, with Nesterov's `p -= lr (g + momentum buf)`.
///
/// ```
/// use swath::train::{Optimizer, Sgd};
/// let rule = Sgd::new(0.1).momentum(0.9).nesterov(true);
/// assert_eq!(rule.slots(), ["momentum_buffer"]);
/// assert!(rule.dampening(0.5).check().is_err()); // Nesterov's momentum is not dampened
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    lr: f64,
    momentum: f64,
    dampening: f64,
    weight_decay: f64,
    nesterov: bool,
}

impl Sgd {
    /// Plain descent with a learning rate.
    pub fn new(lr: f64) -> Self {
        Self { lr, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false }
    }
}

setters!(Sgd {
    /// How much of the former direction stays, 0 by default.
    momentum: f64,
    /// How much of a new gradient is left out of the direction, 0 by default; not at the first update.
    dampening: f64,
    /// What is added to the gradient for each unit of the parameter, 0 by default.
    weight_decay: f64,
    /// Whether to look ahead along the direction, `false` by default; wants momentum, and no dampening.
    nesterov: bool,
});

impl Default for Sgd {
    /// PyTorch's: a learning rate of 0.001, no momentum.
    fn default() -> Self {
        Self::new(1e-3)
    }
}

impl Optimizer for Sgd {
    fn name(&self) -> &'static str {
        "SGD"
    }

    fn rates(&self) -> Rates {
        Rates { lr: self.lr, momentum: (self.momentum != 0.0).then_some(self.momentum) }
    }

    fn slots(&self) -> &'static [&'static str] {
        if self.momentum == 0.0 { &[] } else { &["momentum_buffer"] }
    }

    fn check(&self) -> Result<()> {
        check_not_negative("lr", self.lr)?;
        check_not_negative("momentum", self.momentum)?;
        check_not_negative("weight_decay", self.weight_decay)?;
        if !self.dampening.is_finite() {
            let rule = "it must be a finite number".into();
            return Err(Error::Setting { what: "dampening", value: self.dampening.to_string(), rule });
        }
        if self.nesterov && (self.momentum <= 0.0 || self.dampening != 0.0) {
            let rule =
                format!("it takes a momentum and no dampening, here they are {} and {}", self.momentum, self.dampening);
            return Err(Error::Setting { what: "nesterov", value: "true".into(), rule });
        }
        Ok(())
    }

    fn update(&self, now: Now, piece: Piece<'_>) {
        let step = Step {
            now,
            lr: now.rates.lr as f32,
            decay: self.weight_decay as f32,
            momentum: now.rates.momentum.unwrap_or(self.momentum) as f32,
            share: (1.0 - self.dampening) as f32,
        };
        let [buffer, ..] = piece.slots;
        match (buffer.is_empty(), self.nesterov) {
            (true, _) => step.plain(piece.values, piece.gradient),
            (_, false) => step.with_momentum::<false>(piece.values, piece.gradient, buffer),
            (_, true) => step.with_momentum::<true>(piece.values, piece.gradient, buffer),
        }
    }
}

/// The numbers of an update, rounded once.
struct Step {
    now: Now,
    lr: f32,
    decay: f32,
    momentum: f32,
    share: f32,
}

impl Step {
    fn plain(&self, p: &mut [f32], g: &[f32]) {
        for (p, &g) in p.iter_mut().zip(g) {
            let g = self.now.adjust.apply(g) + self.decay * *p;
            *p -= self.lr * g;
        }
    }

    fn with_momentum<const NESTEROV: bool>(&self, p: &mut [f32], g: &[f32], buffer: &mut [f32]) {
        // The first update takes the gradient itself, undampened.
        let (momentum, share) = if self.now.count == 1 { (0.0, 1.0) } else { (self.momentum, self.share) };
        for ((p, &g), buf) in p.iter_mut().zip(g).zip(buffer) {
            let g = self.now.adjust.apply(g) + self.decay * *p;
            *buf = momentum * *buf + share * g;
            *p -= self.lr * if NESTEROV { g + self.momentum * *buf } else { *buf };
        }
    }
}
