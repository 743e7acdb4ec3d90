//! Batch normalisation as a layer.

use swath_kernels::shape::ShapeError;

use super::Module;
use crate::error::{Error, Result};
use crate::graph::{Init, LayerId, Value, ops};

/// Batch normalisation over the channels of `[n, c, h, w]`, with PyTorch's options and defaults.
///
/// In inference, `(x - running_mean) / sqrt(running_var + eps) * weight + bias` per channel. Directly behind a
/// convolution it costs nothing: compiling folds it into the convolution's weights.
///
/// Parameters: `weight` `[c]`, 1 at first, and `bias` `[c]`, 0 at first. Running statistics: `running_mean` `[c]`, 0 at
/// first, and `running_var` `[c]`, 1 at first.
///
/// ```
/// use swath::{Tensor, nn::{BatchNorm2d, Module}};
/// let mut model = BatchNorm2d::new(1).build(0)?;
/// model.set_parameter("running_mean", &Tensor::new([1], &[2.0])?)?;
/// model.set_parameter("running_var", &Tensor::new([1], &[4.0])?)?;
/// let y = model.compile([1, 1, 1, 2])?.run(&[2.0, 6.0])?.clone();
/// assert!(y.as_slice()[0] == 0.0 && (y.as_slice()[1] - 2.0).abs() < 1e-5);
/// assert_eq!(model.parameter_count(), 2);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct BatchNorm2d {
    id: LayerId,
    channels: usize,
    eps: f64,
    momentum: Option<f64>,
    affine: bool,
}

impl BatchNorm2d {
    /// For images of these many channels.
    pub fn new(channels: usize) -> Self {
        Self { id: LayerId::new(), channels, eps: 1e-5, momentum: Some(0.1), affine: true }
    }

    /// Added to the variance, so that nothing is divided by zero. Default 1e-5.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// How far a step of training moves the running statistics towards the batch's; `None` leaves them as they are. Default 0.1.
    pub fn momentum(mut self, momentum: impl Into<Option<f64>>) -> Self {
        self.momentum = momentum.into();
        self
    }

    /// Whether it has a weight and a bias. Default true.
    pub fn affine(mut self, affine: bool) -> Self {
        self.affine = affine;
        self
    }
}

impl Module for BatchNorm2d {
    fn call(&self, x: &Value) -> Result<Value> {
        let (id, channels, eps) = (&self.id, self.channels, self.eps);
        if channels == 0 {
            return Err(ShapeError::Zero { what: "the number of channels of BatchNorm2d" }.into());
        }
        if !(eps >= 0.0 && eps.is_finite()) {
            let rule = "it is added to a variance, so it is at least 0".into();
            return Err(Error::Setting { what: "eps of BatchNorm2d", value: eps.to_string(), rule });
        }
        let mut affine = Vec::new();
        if self.affine {
            affine.push(x.parameter(id, "weight", &[channels], Init::Constant(1.0))?);
            affine.push(x.parameter(id, "bias", &[channels], Init::Constant(0.0))?);
        }
        let mean = x.statistic(id, "running_mean", &[channels], Init::Constant(0.0))?;
        let var = x.statistic(id, "running_var", &[channels], Init::Constant(1.0))?;
        let mut operands = vec![x, &mean, &var];
        operands.extend(&affine);
        Ok(x.push(ops::BatchNorm { channels, eps, momentum: self.momentum }, &operands))
    }
}
