//! The rules by which a gradient changes a parameter. One rule is one file; its options have PyTorch's names and
//! defaults, and its operations have PyTorch's order, so that results agree to the last bits of `f32`.

mod adam;
mod rmsprop;
mod sgd;

use core::fmt;

pub use adam::{Adam, AdamW};
pub use rmsprop::RmsProp;
pub use sgd::Sgd;

use crate::error::{Error, Result};
use crate::par::Divide;

/// State tensors of a parameter that any rule has at most.
pub const MAX_SLOTS: usize = 3;

/// A rule by which a gradient changes a parameter: its options, not its state. [`Optimization`](super::Optimization)
/// keeps the state.
pub trait Optimizer: fmt::Debug + Send + Sync {
    /// PyTorch's name of the rule, such as `SGD`.
    fn name(&self) -> &'static str;

    /// The rates that the options ask for: what a schedule starts from.
    fn rates(&self) -> Rates;

    /// Names of the state tensors that a parameter has under these options, PyTorch's, at most [`MAX_SLOTS`]. Each has
    /// the parameter's extents and starts as zeros.
    fn slots(&self) -> &'static [&'static str];

    /// Whether the options exist.
    ///
    /// # Errors
    /// If one is out of range, or two exclude each other.
    fn check(&self) -> Result<()>;

    /// Changes a piece of a parameter. Every element depends on its own gradient and state alone.
    fn update(&self, now: Now, piece: Piece<'_>);
}

/// What a schedule changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The learning rate.
    pub lr: f64,
    /// Momentum, or Adam's first beta. `None`: the rule has none.
    pub momentum: Option<f64>,
}

/// What happens to gradients on their way into the rule, without a pass over memory of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adjust {
    /// A factor: `1 / k` for gradients summed over `k` micro-batches, times the coefficient that clips the norm.
    pub scale: f32,
    /// The largest absolute value, after the factor; infinity for none.
    pub limit: f32,
}

impl Adjust {
    /// Gradients as they are.
    pub const NONE: Self = Self { scale: 1.0, limit: f32::INFINITY };

    /// The gradient that the rule sees. NaN stays NaN.
    #[inline(always)]
    pub(crate) fn apply(self, gradient: f32) -> f32 {
        let g = gradient * self.scale;
        // Not `clamp`, which panics for a limit that is NaN.
        if g > self.limit {
            self.limit
        } else if g < -self.limit {
            -self.limit
        } else {
            g
        }
    }
}

/// The moment of an update.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Updates of this parameter, this one included: 1 at the first.
    pub count: u64,
    /// The rates of its group.
    pub rates: Rates,
    /// What happens to its gradient first.
    pub adjust: Adjust,
}

/// A stretch of a parameter with its gradient and its state. All slices have one length, but unused slots are empty.
#[derive(Debug)]
pub struct Piece<'a> {
    /// The parameter.
    pub values: &'a mut [f32],
    /// The loss's gradient with respect to it.
    pub gradient: &'a [f32],
    /// Its state, in the order of [`Optimizer::slots`].
    pub slots: [&'a mut [f32]; MAX_SLOTS],
}

impl Divide for Piece<'_> {
    fn len(&self) -> usize {
        self.values.len()
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let (values, values_after) = self.values.split_at_mut(at);
        let (gradient, gradient_after) = self.gradient.split_at(at);
        let mut after: [&mut [f32]; MAX_SLOTS] = Default::default();
        let mut slots = self.slots;
        for (slot, after) in slots.iter_mut().zip(&mut after) {
            let whole = core::mem::take(slot);
            let cut = at.min(whole.len());
            (*slot, *after) = whole.split_at_mut(cut);
        }
        (Self { values, gradient, slots }, Self { values: values_after, gradient: gradient_after, slots: after })
    }
}

/// `a + w (b - a)`, by PyTorch's `lerp`: exact at the nearer end.
#[inline(always)]
pub(super) fn lerp(a: f32, b: f32, w: f32) -> f32 {
    if w.abs() < 0.5 { a + w * (b - a) } else { b - (b - a) * (1.0 - w) }
}

/// `Ok` if `value` is within `range`, of which the end is excluded where `open`.
pub(super) fn check_range(what: &'static str, value: f64, end: f64, open: bool) -> Result<()> {
    if value >= 0.0 && (value < end || (!open && value == end)) && value.is_finite() {
        return Ok(());
    }
    let rule = match (end.is_finite(), open) {
        (false, _) => "it must be a finite number of at least 0".to_string(),
        (true, true) => format!("it must be at least 0 and below {end}"),
        (true, false) => format!("it must be from 0 to {end}"),
    };
    Err(Error::Setting { what, value: value.to_string(), rule })
}

/// `Ok` for a finite number that is not negative.
pub(super) fn check_not_negative(what: &'static str, value: f64) -> Result<()> {
    check_range(what, value, f64::INFINITY, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Optimization;

    /// Values after each of `steps` updates with a constant gradient of 0.5, from 1.
    fn run(optimizer: impl Optimizer + 'static, steps: usize) -> Vec<f32> {
        let mut o = Optimization::new(optimizer).unwrap();
        let id = o.register("p", &[1]).unwrap();
        let mut p = [1.0];
        let mut step = || {
            o.update(id, &mut p, &[0.5], Adjust::NONE).unwrap();
            p[0]
        };
        (0..steps).map(|_| step()).collect()
    }

    #[test]
    fn three_steps_as_pytorch_computes_them() {
        let cases: [(Vec<f32>, [f64; 3]); 4] = [
            (run(Sgd::new(0.1).momentum(0.9).dampening(0.5).weight_decay(0.1), 3), [0.94, 0.8563, 0.7516885]),
            (run(Adam::new(0.1).weight_decay(0.1), 3), [0.9000000017, 0.8000473405, 0.7001745748]),
            (run(AdamW::new(0.1), 3), [0.899000002, 0.798101004, 0.697302905]),
            (run(RmsProp::new(0.1).centered(true).momentum(0.9), 3), [-0.00503761, -1.62561298, -3.67319365]),
        ];
        for (got, want) in cases {
            for (g, w) in got.iter().zip(want) {
                assert!((f64::from(*g) - w).abs() < 2e-6 * (1.0 + w.abs()), "{got:?} for {want:?}");
            }
        }
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let text = |r: Result<()>| r.unwrap_err().to_string();
        assert_eq!(text(Sgd::new(-1.0).check()), "lr is -1, but it must be a finite number of at least 0");
        assert_eq!(
            text(Adam::new(0.1).betas(0.9, 1.0).check()),
            "the second beta is 1, but it must be at least 0 and below 1"
        );
        assert!(text(Sgd::new(0.1).nesterov(true).check()).contains("momentum"));
        assert!(text(Sgd::new(0.1).nesterov(true).momentum(0.9).dampening(0.1).check()).contains("dampening"));
        assert!(AdamW::new(0.1).eps(f64::NAN).check().is_err());
        assert!(RmsProp::new(0.1).alpha(-0.1).check().is_err());
    }

    #[test]
    fn a_centered_average_that_rounds_below_zero_is_zero() {
        let p = run(RmsProp::new(0.001).alpha(0.5).centered(true).eps(1.0), 200);
        assert!(p.iter().all(|p| p.is_finite()), "{p:?}");
    }

    #[test]
    fn lerp_is_exact_at_both_ends() {
        assert_eq!((lerp(0.1, 0.7, 0.0), lerp(0.1, 0.7, 1.0)), (0.1, 0.7));
    }

    #[test]
    fn gradients_are_scaled_then_limited() {
        let a = Adjust { scale: 0.5, limit: 1.0 };
        assert_eq!([1.0, 3.0, -9.0].map(|g| a.apply(g)), [0.5, 1.0, -1.0]);
        assert!(a.apply(f32::NAN).is_nan());
    }
}
