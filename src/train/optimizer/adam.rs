//! Adam (Kingma and Ba 2015), and AdamW, which decays weights apart from the gradient (Loshchilov and Hutter 2019).

use super::{Now, Optimizer, Piece, Rates, check_not_negative, check_range, lerp};
use crate::error::Result;

/// The options that Adam and AdamW share.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Options {
    lr: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    amsgrad: bool,
    /// Whether the decay acts on the weight itself (AdamW) instead of on the gradient.
    decoupled: bool,
}

impl Options {
    const fn new(lr: f64, weight_decay: f64, decoupled: bool) -> Self {
        Self { lr, betas: (0.9, 0.999), eps: 1e-8, weight_decay, amsgrad: false, decoupled }
    }

    fn check(&self) -> Result<()> {
        check_not_negative("lr", self.lr)?;
        check_not_negative("eps", self.eps)?;
        check_not_negative("weight_decay", self.weight_decay)?;
        check_range("the first beta", self.betas.0, 1.0, true)?;
        check_range("the second beta", self.betas.1, 1.0, true)
    }

    fn slots(&self) -> &'static [&'static str] {
        if self.amsgrad { &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"] } else { &["exp_avg", "exp_avg_sq"] }
    }

    fn update(&self, now: Now, piece: Piece<'_>) {
        let (beta1, beta2) = (now.rates.momentum.unwrap_or(self.betas.0), self.betas.1);
        let t = now.count as f64;
        let lr = now.rates.lr;
        let decay = self.weight_decay;
        let step = Step {
            now,
            kept: if self.decoupled { (1.0 - lr * decay) as f32 } else { 1.0 },
            added: if self.decoupled { 0.0 } else { decay as f32 },
            weight1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            weight2: (1.0 - beta2) as f32,
            size: (lr / (1.0 - beta1.powf(t))) as f32,
            correction2: (1.0 - beta2.powf(t)).sqrt() as f32,
            eps: self.eps as f32,
        };
        let [m, v, largest] = piece.slots;
        if self.amsgrad {
            step.amsgrad(piece.values, piece.gradient, m, v, largest);
        } else {
            step.plain(piece.values, piece.gradient, m, v);
        }
    }
}

/// The numbers of an update, rounded once.
struct Step {
    now: Now,
    kept: f32,
    added: f32,
    weight1: f32,
    beta2: f32,
    weight2: f32,
    size: f32,
    correction2: f32,
    eps: f32,
}

impl Step {
    /// Decays `p`, and adds the gradient to both averages.
    #[inline(always)]
    fn moments(&self, p: &mut f32, g: f32, m: &mut f32, v: &mut f32) {
        let g = self.now.adjust.apply(g) + self.added * *p;
        *p *= self.kept;
        *m = lerp(*m, g, self.weight1);
        *v = *v * self.beta2 + self.weight2 * g * g;
    }

    /// Steps along `m` by the scale of `v`: `eps` comes after the correction.
    #[inline(always)]
    fn step(&self, p: &mut f32, m: f32, v: f32) {
        *p -= self.size * m / (v.sqrt() / self.correction2 + self.eps);
    }

    fn plain(&self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            self.moments(p, g, m, v);
            self.step(p, *m, *v);
        }
    }

    fn amsgrad(&self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], largest: &mut [f32]) {
        for ((((p, &g), m), v), largest) in p.iter_mut().zip(g).zip(m).zip(v).zip(largest) {
            self.moments(p, g, m, v);
            // A NaN stays, as in PyTorch's `maximum`.
            *largest = if *v > *largest || v.is_nan() { *v } else { *largest };
            self.step(p, *m, *largest);
        }
    }
}

macro_rules! adam {
    ($(#[$doc:meta])* $type:ident, $name:literal, $decay:literal, $decoupled:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $type(Options);

        impl $type {
            /// The rule with a learning rate and PyTorch's defaults.
            pub fn new(lr: f64) -> Self {
                Self(Options::new(lr, $decay, $decoupled))
            }

            /// How much of the averages of gradients and of their squares stays, 0.9 and 0.999 by default.
            pub fn betas(mut self, first: f64, second: f64) -> Self {
                self.0.betas = (first, second);
                self
            }

            /// What is added to the denominator, 1e-8 by default.
            pub fn eps(mut self, eps: f64) -> Self {
                self.0.eps = eps;
                self
            }

            #[doc = $what]
            pub fn weight_decay(mut self, weight_decay: f64) -> Self {
                self.0.weight_decay = weight_decay;
                self
            }

            /// Whether to divide by the largest average of squares so far (Reddi et al. 2018), `false` by default.
            pub fn amsgrad(mut self, amsgrad: bool) -> Self {
                self.0.amsgrad = amsgrad;
                self
            }
        }

        impl Default for $type {
            /// PyTorch's: a learning rate of 0.001.
            fn default() -> Self {
                Self::new(1e-3)
            }
        }

        impl Optimizer for $type {
            fn name(&self) -> &'static str {
                $name
            }

            fn rates(&self) -> Rates {
                Rates { lr: self.0.lr, momentum: Some(self.0.betas.0) }
            }

            fn slots(&self) -> &'static [&'static str] {
                self.0.slots()
            }

            fn check(&self) -> Result<()> {
                self.0.check()
            }

            fn update(&self, now: Now, piece: Piece<'_>) {
                self.0.update(now, piece);
            }
        }
    };
}

adam!(
    /// PyTorch's `Adam`: `g += weight_decay p`; `m += (1 - beta1) (g - m)`; `v = beta2 v + (1 - beta2) g^2`;
    /// `p -= lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)`.
    ///
    /// ```
    /// use swath::train::{Adam, Optimizer};
    /// let rule = Adam::new(1e-3).betas(0.9, 0.99).amsgrad(true);
    /// assert_eq!(rule.slots(), ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]);
    /// ```
    Adam,
    "Adam",
    0.0,
    false,
    "What is added to the gradient for each unit of the parameter, 0 by default."
);

adam!(
    /// PyTorch's `AdamW`: `p *= 1 - lr weight_decay`, then [`Adam`] without decay.
    ///
    /// ```
    /// use swath::train::{AdamW, Optimizer};
    /// assert_eq!(AdamW::new(1e-3).weight_decay(0.05).name(), "AdamW");
    /// ```
    AdamW,
    "AdamW",
    0.01,
    true,
    "The share of the parameter, times the learning rate, that it loses at each update, 0.01 by default."
);
