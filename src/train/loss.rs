//! Losses: functions of a network's output and a target, recorded as operators of the graph that is differentiated.
//!
//! Names, defaults and meanings are PyTorch's. A loss of one's own is a function on graph values that ends in one number:
//!
//! ```
//! use swath::graph::ops::Reduce;
//! use swath::train::loss::custom;
//! // The mean of the fourth power of the difference.
//! let loss = custom(|y, t| {
//!     let d = y - t;
//!     let power = (&d * &d) * (&d * &d);
//!     Ok(power.push(Reduce::mean(&[], false), &[&power]))
//! });
//! # let _ = loss;
//! ```

use core::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::graph::Value;
pub use crate::graph::ops::Reduction;
use crate::graph::ops::{CrossEntropy, Difference, DifferenceLoss, Reduce};
use crate::tensor::Tensor;

/// A function of a network's output and a target, which ends in a single number.
pub trait Loss: fmt::Debug + Send + Sync {
    /// Extents of the target for an output of extents.
    fn target_dims(&self, output: &[usize]) -> Vec<usize> {
        output.to_vec()
    }

    /// Appends the operators that compute it.
    ///
    /// # Errors
    /// If an option is out of range.
    fn record(&self, output: &Value, target: &Value) -> Result<Value>;

    /// Whether targets exist for an output of extents: a step of a graph cannot refuse them.
    ///
    /// # Errors
    /// Which one does not, and why.
    fn check_targets(&self, _output: &[usize], _targets: &[f32]) -> Result<()> {
        Ok(())
    }
}

/// PyTorch's `CrossEntropyLoss` on logits `[n, classes]` or, per pixel, `[n, classes, h, w]`. Targets are classes as floats,
/// `[n]` or `[n, h, w]`, or with [`CrossEntropyLoss::soft`] probabilities in the logits' extents.
///
/// ```
/// use swath::train::loss::{CrossEntropyLoss, Loss};
/// let loss = CrossEntropyLoss::new().label_smoothing(0.1);
/// assert_eq!(loss.target_dims(&[8, 10]), [8]);
/// assert!(loss.check_targets(&[2, 10], &[3.0, 10.0]).unwrap_err().to_string().contains("10 classes"));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropyLoss(CrossEntropy);

impl CrossEntropyLoss {
    /// The mean, of classes, without weights and smoothing; -100 is ignored.
    pub fn new() -> Self {
        let reduction = Reduction::Mean;
        Self(CrossEntropy { weights: None, smoothing: 0.0, ignore: -100, soft: false, reduction })
    }

    /// A weight for each class.
    pub fn weight(mut self, weights: impl Into<Arc<[f32]>>) -> Self {
        self.0.weights = Some(weights.into());
        self
    }

    /// How much of each target goes to all classes alike, 0 by default.
    pub fn label_smoothing(mut self, smoothing: f32) -> Self {
        self.0.smoothing = smoothing;
        self
    }

    /// The class that counts neither in the loss nor in the mean, -100 by default.
    pub fn ignore_index(mut self, class: i64) -> Self {
        self.0.ignore = class;
        self
    }

    /// Whether targets are probabilities, as after [`Mixup`](crate::data::Mixup); `false` by default.
    pub fn soft(mut self, soft: bool) -> Self {
        self.0.soft = soft;
        self
    }

    /// Mean or sum.
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.0.reduction = reduction;
        self
    }
}

impl Default for CrossEntropyLoss {
    fn default() -> Self {
        Self::new()
    }
}

impl Loss for CrossEntropyLoss {
    fn target_dims(&self, output: &[usize]) -> Vec<usize> {
        self.0.target_dims(output)
    }

    fn record(&self, output: &Value, target: &Value) -> Result<Value> {
        Ok(output.push(self.0.clone(), &[output, target]))
    }

    fn check_targets(&self, output: &[usize], targets: &[f32]) -> Result<()> {
        let classes = output.get(1).copied().unwrap_or(0);
        let fits = |t: f32| t as f64 == self.0.ignore as f64 || t.fract() == 0.0 && t >= 0.0 && (t as usize) < classes;
        match targets.iter().position(|&t| !self.0.soft && !fits(t)) {
            None => Ok(()),
            Some(at) => {
                let rule = format!("there are {classes} classes, counted from 0, and {} is ignored", self.0.ignore);
                Err(Error::Setting { what: "a target", value: format!("{} at position {at}", targets[at]), rule })
            }
        }
    }
}

macro_rules! difference {
    ($(#[$doc:meta])* $name:ident, $of:expr, ($($option:ident)?), $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name(DifferenceLoss);

        impl $name {
            #[doc = $what]
            #[allow(clippy::new_without_default)] // those with an option have no default here
            pub fn new($($option: f32)?) -> Self {
                Self(DifferenceLoss { of: $of, reduction: Reduction::Mean })
            }

            /// Mean over all elements, or sum.
            pub fn reduction(mut self, reduction: Reduction) -> Self {
                self.0.reduction = reduction;
                self
            }
        }

        impl Loss for $name {
            fn record(&self, output: &Value, target: &Value) -> Result<Value> {
                Ok(output.push(self.0.clone(), &[output, target]))
            }
        }
    };
}

difference!(
    /// PyTorch's `MSELoss`: the mean of squared differences. The target has the output's extents.
    MseLoss,
    Difference::Squared,
    (),
    "The mean."
);

difference!(
    /// PyTorch's `L1Loss`: the mean of absolute differences. The target has the output's extents.
    L1Loss,
    Difference::Absolute,
    (),
    "The mean."
);

difference!(
    /// PyTorch's `SmoothL1Loss`: squared differences below `beta`, absolute ones above.
    SmoothL1Loss,
    Difference::SmoothAbsolute { beta },
    (beta),
    "The mean, with its `beta`, above 0; PyTorch's default is 1."
);

difference!(
    /// PyTorch's `HuberLoss`: [`SmoothL1Loss`] times `delta`.
    HuberLoss,
    Difference::Huber { delta },
    (delta),
    "The mean, with its `delta`, above 0; PyTorch's default is 1."
);

difference!(
    /// PyTorch's `BCEWithLogitsLoss`: binary cross-entropy of the sigmoid. The target has the output's extents, from 0 to 1.
    BceWithLogitsLoss,
    Difference::BinaryEntropy { positive: None },
    (),
    "The mean, without weights."
);

impl BceWithLogitsLoss {
    /// A weight of the positive part for each channel (dimension 1).
    pub fn pos_weight(mut self, weights: impl Into<Arc<[f32]>>) -> Self {
        self.0.of = Difference::BinaryEntropy { positive: Some(weights.into()) };
        self
    }
}

/// The Dice loss of sigmoids `p` of logits `[n, c, h, w]` and masks `t` of the same extents, from 0 to 1: the mean over pictures
/// and channels of `1 - (2 sum p t + smooth) / (sum p + sum t + smooth)`, after Milletari et al. 2016.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiceLoss {
    smooth: f32,
}

impl DiceLoss {
    /// With what is added above and below, above 0; 1 is usual.
    pub fn new(smooth: f32) -> Self {
        Self { smooth }
    }
}

impl Loss for DiceLoss {
    fn record(&self, output: &Value, target: &Value) -> Result<Value> {
        if !(self.smooth.is_finite() && self.smooth > 0.0) {
            let rule = "it must be a finite number above 0".into();
            return Err(Error::Setting { what: "smooth of DiceLoss", value: self.smooth.to_string(), rule });
        }
        let number = |v: f32| Ok::<_, Error>(output.constant(Tensor::new([1], &[v])?));
        let pixels = |v: &Value| v.push(Reduce::sum(&[2, 3], false), &[v]);
        let (one, two, smooth) = (number(1.0)?, number(2.0)?, number(self.smooth)?);
        let p = output.sigmoid();
        let above = pixels(&(&p * target)) * &two + &smooth;
        let below = pixels(&p) + pixels(target) + &smooth;
        let loss = &one - &(above / below);
        Ok(loss.push(Reduce::mean(&[], false), &[&loss]))
    }
}

/// A loss from a function on graph values: of output and target, whose extents are equal, to a single number.
pub fn custom(f: impl Fn(&Value, &Value) -> Result<Value> + Send + Sync + 'static) -> Custom {
    Custom(Box::new(f))
}

/// The function of [`custom`].
type Function = dyn Fn(&Value, &Value) -> Result<Value> + Send + Sync;

/// A loss of one's own; see [`custom`].
pub struct Custom(Box<Function>);

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Custom")
    }
}

impl Loss for Custom {
    fn record(&self, output: &Value, target: &Value) -> Result<Value> {
        (self.0)(output, target)
    }
}

#[cfg(test)]
mod tests {
    use safetensors::{Dtype, SafeTensors};
    use swath_kernels::layout::Layout;

    use super::*;
    use crate::compile::SessionOptions;
    use crate::compile::runner::Runner;
    use crate::graph::autodiff::Wanted;
    use crate::graph::{Fact, Graph};

    /// A tensor of `gradients2.safetensors`, PyTorch's results in float64: extents, and values as floats.
    fn fixture(name: &str) -> (Vec<usize>, Vec<f32>) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/gradients2.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let values = match view.dtype() {
            Dtype::F32 => view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::I64 => view.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(),
            other => panic!("{name}: {other}"),
        };
        (view.shape().to_vec(), values)
    }

    /// The loss and its gradient at the prediction.
    fn run(loss: &dyn Loss, dims: &[usize], x: &[f32], t: &[f32]) -> (f32, Vec<f32>) {
        let graph = Graph::record(|x| Ok(x.clone())).unwrap();
        let record = |o: &[Value], t: &[Value]| Ok(vec![loss.record(&o[0], &t[0])?]);
        let graph = graph.extend(&["target"], &["loss"], record).unwrap();
        let facts = [Fact::f32(dims), Fact::f32(loss.target_dims(dims))];
        let wanted = Wanted { loss: 1, trained: &|_| false, frozen: &|_| false, inputs: &[0], recompute: false };
        let d = graph.differentiate(&facts, &wanted).unwrap();
        let options = SessionOptions { input: Layout::Nchw, ..SessionOptions::default() };
        let mut runner =
            Runner::compile(d.graph.clone(), &Vec::new(), &d.inputs, &options, &Default::default()).unwrap();
        runner.run(&|i| if i == 0 { x } else { t });
        (runner.outputs[1][0], runner.outputs[d.input_gradients[0].1].to_vec())
    }

    fn check(case: &str, loss: &dyn Loss) {
        let ((dims, x), t) = (fixture(&format!("{case}.x")), fixture(&format!("{case}.target")).1);
        let (y, gx) = run(loss, &dims, &x, &t);
        let (want_y, want_gx) = (fixture(&format!("{case}.y")).1[0], fixture(&format!("{case}.gx")).1);
        assert!((y - want_y).abs() <= 1e-5 * (1.0 + want_y.abs()), "{case}: {y} for {want_y}");
        assert_eq!(gx.len(), want_gx.len());
        for (i, (g, want)) in gx.iter().zip(&want_gx).enumerate() {
            assert!((g - want).abs() <= 1e-5 * (1.0 + want.abs()), "{case} [{i}]: {g} for {want}");
        }
    }

    #[test]
    fn cross_entropy_is_pytorchs() {
        for (reduction, name) in [(Reduction::Mean, "mean"), (Reduction::Sum, "sum")] {
            for (smoothing, s) in [(0.0, "0.0"), (0.1, "0.1")] {
                let loss = CrossEntropyLoss::new().reduction(reduction).label_smoothing(smoothing);
                check(&format!("cross_entropy_{name}_ls{s}_plain"), &loss);
                let case = format!("cross_entropy_{name}_ls{s}_weighted");
                check(&case, &loss.weight(fixture(&format!("{case}.weight")).1));
            }
        }
        check("cross_entropy_pixels", &CrossEntropyLoss::new().ignore_index(255));
        check("cross_entropy_soft_ls0.0", &CrossEntropyLoss::new().soft(true));
        check("cross_entropy_soft_ls0.1", &CrossEntropyLoss::new().soft(true).label_smoothing(0.1));
    }

    #[test]
    fn losses_of_differences_are_pytorchs() {
        check("huber_2", &HuberLoss::new(2.0));
        check("smooth_l1_half", &SmoothL1Loss::new(0.5));
        check("l1", &L1Loss::new());
        check("mse_sum", &MseLoss::new().reduction(Reduction::Sum));
        let weights = fixture("bce_pos_weight.pos_weight").1;
        check("bce_pos_weight", &BceWithLogitsLoss::new().pos_weight(weights));
    }

    #[test]
    fn all_targets_ignored_is_nan_and_bad_targets_are_named() {
        let (y, _) = run(&CrossEntropyLoss::new(), &[2, 3], &[0.0; 6], &[-100.0; 2]);
        assert!(y.is_nan());
        let sum = CrossEntropyLoss::new().reduction(Reduction::Sum);
        assert_eq!(run(&sum, &[2, 3], &[0.0; 6], &[-100.0; 2]).0, 0.0);
        // What a step cannot refuse is NaN; the trainer asks first.
        assert!(run(&sum, &[2, 3], &[0.0; 6], &[3.0, 0.0]).0.is_nan());
        let refused = [[3.0, 0.0], [-1.0, 0.0], [0.5, 0.0], [f32::NAN, 0.0]];
        assert!(refused.iter().all(|t| sum.check_targets(&[2, 3], t).is_err()));
        assert!(sum.check_targets(&[2, 3], &[-100.0, 2.0]).is_ok());
    }

    #[test]
    fn dice_by_hand_and_by_differences() {
        let loss = DiceLoss::new(1.0);
        let (dims, x) = ([2, 1, 2, 2], [0.5, -1.0, 2.0, 0.3, -0.7, 1.1, 0.0, -2.0]);
        let t = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0];
        let value = |x: &[f32]| {
            let p: Vec<f64> = x.iter().map(|x| 1.0 / (1.0 + f64::from(-x).exp())).collect();
            let one = |at: usize| {
                let both: f64 = (at..at + 4).map(|i| p[i] * f64::from(t[i])).sum();
                let all: f64 = (at..at + 4).map(|i| p[i] + f64::from(t[i])).sum();
                1.0 - (2.0 * both + 1.0) / (all + 1.0)
            };
            (one(0) + one(4)) / 2.0
        };
        let (y, gx) = run(&loss, &dims, &x, &t);
        assert!((f64::from(y) - value(&x)).abs() < 1e-6);
        for i in 0..8 {
            let moved = |d: f32| {
                let mut x = x;
                x[i] += d;
                value(&x)
            };
            let slope = (moved(1e-3) - moved(-1e-3)) / 2e-3;
            assert!((f64::from(gx[i]) - slope).abs() < 1e-4, "{i}: {} for {slope}", gx[i]);
        }
    }
}
