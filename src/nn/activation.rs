//! Activation layers, with PyTorch's names and defaults. They keep the shape.

use swath_kernels::epilogue::Activation;

use super::Module;
use crate::error::{Error, Result};
use crate::graph::{Value, ops};

/// Layers without options.
macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident = $activation:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name;

        impl Module for $name {
            fn call(&self, x: &Value) -> Result<Value> {
                Ok(x.activation($activation))
            }
        }
    )*};
}

plain! {
    /// `max(x, 0)`
    ReLU = Activation::Relu;
    /// `min(max(x, 0), 6)`
    ReLU6 = Activation::Clip { lo: 0.0, hi: 6.0 };
    /// `scale * (x where positive, else alpha * (exp(x) - 1))` with the constants of Klambauer et al. 2017.
    SELU = Activation::Selu;
    /// `1 / (1 + exp(-x))`
    Sigmoid = Activation::Sigmoid;
    /// Hyperbolic tangent.
    Tanh = Activation::Tanh;
    /// `x * sigmoid(x)`
    SiLU = Activation::Silu;
    /// `x * tanh(softplus(x))`
    Mish = Activation::Mish;
    /// `min(max(x + 3, 0), 6) / 6`
    Hardsigmoid = Activation::HardSigmoid;
    /// `x * min(max(x + 3, 0), 6) / 6`
    Hardswish = Activation::HardSwish;
}

/// Layers that are one activation with options: the public fields, and `Default` as PyTorch has it.
macro_rules! with_options {
    ($($(#[$doc:meta])* $name:ident($($(#[$fdoc:meta])* $field:ident = $default:expr),*), $s:ident => $activation:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name { $($(#[$fdoc])* pub $field: f32),* }

        impl $name {
            /// With these options; [`Default`] has PyTorch's.
            pub fn new($($field: f32),*) -> Self {
                Self { $($field),* }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl Module for $name {
            fn call(&self, x: &Value) -> Result<Value> {
                let $s = self;
                Ok(x.activation($activation))
            }
        }
    )*};
}

with_options! {
    /// `x` where positive, else `negative_slope * x`.
    LeakyReLU(
        /// Factor of negative values; 0.01.
        negative_slope = 0.01
    ), s => Activation::LeakyRelu { slope: s.negative_slope };
    /// `x` where positive, else `alpha * (exp(x) - 1)`.
    ELU(
        /// Minus the limit at minus infinity; 1.
        alpha = 1.0
    ), s => Activation::Elu { alpha: s.alpha };
    /// `max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))`
    CELU(
        /// Minus the limit at minus infinity; 1.
        alpha = 1.0
    ), s => Activation::Celu { alpha: s.alpha };
    /// `ln(1 + exp(beta x)) / beta`, and `x` where `beta x > threshold`.
    Softplus(
        /// Sharpness; 1.
        beta = 1.0,
        /// From here on linear; 20.
        threshold = 20.0
    ), s => Activation::Softplus { beta: s.beta, threshold: s.threshold };
    /// `min(max(x, min_val), max_val)`; `min_val` has to be below `max_val`.
    Hardtanh(
        /// Lower limit; -1.
        min_val = -1.0,
        /// Upper limit; 1.
        max_val = 1.0
    ), s => limits(s.min_val, s.max_val)?;
}

/// The clip between two limits.
fn limits(lo: f32, hi: f32) -> Result<Activation> {
    if lo < hi {
        return Ok(Activation::Clip { lo, hi });
    }
    let rule = format!("it has to be below max_val, {hi}");
    Err(Error::Setting { what: "min_val of Hardtanh", value: lo.to_string(), rule })
}

/// `x * (1 + erf(x / sqrt 2)) / 2`, or its tanh approximation.
#[derive(Clone, Copy, Debug, Default)]
pub struct GELU {
    tanh: bool,
}

impl GELU {
    /// The exact function.
    pub fn new() -> Self {
        Self::default()
    }

    /// PyTorch's `approximate="tanh"`.
    pub fn tanh() -> Self {
        Self { tanh: true }
    }
}

impl Module for GELU {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.activation(if self.tanh { Activation::GeluTanh } else { Activation::Gelu }))
    }
}

/// `exp(x) / sum(exp(x))` over one dimension of a tensor of any rank.
#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    dim: isize,
}

/// The logarithm of [`Softmax`].
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmax {
    dim: isize,
}

impl Softmax {
    /// Over dimension `dim`; -1 is the last.
    pub fn new(dim: isize) -> Self {
        Self { dim }
    }
}

impl LogSoftmax {
    /// Over dimension `dim`; -1 is the last.
    pub fn new(dim: isize) -> Self {
        Self { dim }
    }
}

impl Module for Softmax {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(ops::Softmax { log: false, dim: self.dim }, &[x]))
    }
}

impl Module for LogSoftmax {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(ops::Softmax { log: true, dim: self.dim }, &[x]))
    }
}

/// [`Softmax`] over the channels of each pixel of images.
#[derive(Clone, Copy, Debug, Default)]
pub struct Softmax2d;

impl Module for Softmax2d {
    fn call(&self, x: &Value) -> Result<Value> {
        Softmax::new(-3).call(x)
    }
}
