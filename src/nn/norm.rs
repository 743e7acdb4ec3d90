//! Batch, group, instance and layer normalisation as layers.

use swath_kernels::setters;
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
}

setters!(BatchNorm2d {
    /// Added to the variance, so that nothing is divided by zero. Default 1e-5.
    eps: f64,
    /// How far a step of training moves the running statistics towards the batch's; `None` leaves them as they are. Default 0.1.
    momentum: impl Into<Option<f64>>,
    /// Whether it has a weight and a bias. Default true.
    affine: bool,
});

/// An error for what cannot be added to a variance.
fn checked_eps(what: &'static str, eps: f64) -> Result<()> {
    if eps >= 0.0 && eps.is_finite() {
        return Ok(());
    }
    let rule = "it is added to a variance, so it is at least 0".into();
    Err(Error::Setting { what, value: eps.to_string(), rule })
}

/// The scale, 1 at first, and the shift, 0 at first, of these extents.
fn affine(x: &Value, id: &LayerId, dims: &[usize], [scale, shift]: [bool; 2]) -> Result<Vec<Value>> {
    let mut values = Vec::new();
    if scale {
        values.push(x.parameter(id, "weight", dims, Init::Constant(1.0))?);
    }
    if shift {
        values.push(x.parameter(id, "bias", dims, Init::Constant(0.0))?);
    }
    Ok(values)
}

/// A value with what follows it.
fn with<'a>(x: &'a Value, others: &'a [Value]) -> Vec<&'a Value> {
    std::iter::once(x).chain(others).collect()
}

impl Module for BatchNorm2d {
    fn call(&self, x: &Value) -> Result<Value> {
        let (id, channels, eps) = (&self.id, self.channels, self.eps);
        if channels == 0 {
            return Err(ShapeError::Zero { what: "the number of channels of BatchNorm2d" }.into());
        }
        checked_eps("eps of BatchNorm2d", eps)?;
        let affine = affine(x, id, &[channels], [self.affine; 2])?;
        let mean = x.statistic(id, "running_mean", &[channels], Init::Constant(0.0))?;
        let var = x.statistic(id, "running_var", &[channels], Init::Constant(1.0))?;
        let mut operands = vec![x, &mean, &var];
        operands.extend(&affine);
        Ok(x.push(ops::BatchNorm { channels, eps, momentum: self.momentum }, &operands))
    }
}

/// Group normalisation over `[n, c, ..]`, with PyTorch's options and defaults: the mean and variance (biased) of each image's groups of
/// neighbouring channels, in training and in inference.
///
/// Parameters: `weight` `[c]`, 1 at first, and `bias` `[c]`, 0 at first.
///
/// ```
/// use swath::nn::{GroupNorm, Module};
/// let model = GroupNorm::new(1, 2).eps(0.0).build(0)?;
/// assert_eq!(model.compile([1, 2, 1, 2])?.run(&[1.0, 3.0, 1.0, 3.0])?.as_slice(), [-1.0, 1.0, -1.0, 1.0]);
/// let e = GroupNorm::new(4, 6).build(0).unwrap_err();
/// assert_eq!(e.to_string(), "the number of channels of GroupNorm is 6, but 4 groups do not divide it");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct GroupNorm {
    id: LayerId,
    groups: usize,
    channels: usize,
    eps: f64,
    affine: bool,
}

impl GroupNorm {
    /// So many groups of so many channels in all.
    pub fn new(groups: usize, channels: usize) -> Self {
        Self { id: LayerId::new(), groups, channels, eps: 1e-5, affine: true }
    }
}

setters!(GroupNorm {
    /// Added to the variance. Default 1e-5.
    eps: f64,
    /// Whether it has a weight and a bias. Default true.
    affine: bool,
});

impl Module for GroupNorm {
    fn call(&self, x: &Value) -> Result<Value> {
        let (groups, channels) = (self.groups, self.channels);
        for (what, value) in [("the groups of GroupNorm", groups), ("the number of channels of GroupNorm", channels)] {
            if value == 0 {
                return Err(ShapeError::Zero { what }.into());
            }
        }
        if !channels.is_multiple_of(groups) {
            let (what, rule) = ("the number of channels of GroupNorm", format!("{groups} groups do not divide it"));
            return Err(Error::Setting { what, value: channels.to_string(), rule });
        }
        checked_eps("eps of GroupNorm", self.eps)?;
        let affine = affine(x, &self.id, &[channels], [self.affine; 2])?;
        Ok(x.push(ops::GroupNorm::new(groups, channels, self.eps), &with(x, &affine)))
    }
}

/// Instance normalisation of images `[n, c, h, w]`, with PyTorch's options and defaults: the mean and variance (biased) of each image's
/// channels, in training and in inference. There are no running statistics: PyTorch's `track_running_stats` is false.
///
/// Parameters, if it is affine: `weight` `[c]`, 1 at first, and `bias` `[c]`, 0 at first.
#[derive(Clone, Debug)]
#[must_use]
pub struct InstanceNorm2d {
    id: LayerId,
    channels: usize,
    eps: f64,
    affine: bool,
}

impl InstanceNorm2d {
    /// For images of these many channels.
    pub fn new(channels: usize) -> Self {
        Self { id: LayerId::new(), channels, eps: 1e-5, affine: false }
    }
}

setters!(InstanceNorm2d {
    /// Added to the variance. Default 1e-5.
    eps: f64,
    /// Whether it has a weight and a bias. Default false.
    affine: bool,
});

impl Module for InstanceNorm2d {
    fn call(&self, x: &Value) -> Result<Value> {
        if self.channels == 0 {
            return Err(ShapeError::Zero { what: "the number of channels of InstanceNorm2d" }.into());
        }
        checked_eps("eps of InstanceNorm2d", self.eps)?;
        let affine = affine(x, &self.id, &[self.channels], [self.affine; 2])?;
        Ok(x.push(ops::GroupNorm::instance(self.channels, self.eps), &with(x, &affine)))
    }
}

/// Layer normalisation over the last dimensions, with PyTorch's options and defaults: the mean and variance (biased) of each row.
///
/// Parameters: `weight`, 1 at first, and `bias`, 0 at first, both of the normalised extents.
///
/// ```
/// use swath::nn::{LayerNorm, Module};
/// let model = LayerNorm::new([2]).eps(0.0).build(0)?;
/// assert_eq!(model.compile([2, 2])?.run(&[1.0, 3.0, 20.0, 10.0])?.as_slice(), [-1.0, 1.0, 1.0, -1.0]);
/// let e = model.compile([2, 3]).unwrap_err();
/// assert_eq!(e.to_string(), "the last extents of LayerNorm's input, and its own: the shapes [2, 3] and [2] do not agree");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct LayerNorm {
    id: LayerId,
    shape: Vec<usize>,
    eps: f64,
    affine: bool,
    bias: bool,
}

impl LayerNorm {
    /// PyTorch's `normalized_shape`: the extents that inputs end with.
    pub fn new(shape: impl AsRef<[usize]>) -> Self {
        Self { id: LayerId::new(), shape: shape.as_ref().to_vec(), eps: 1e-5, affine: true, bias: true }
    }

    /// Whether it has a weight, and a bias unless [`LayerNorm::bias`] says otherwise. Default true.
    pub fn elementwise_affine(mut self, affine: bool) -> Self {
        self.affine = affine;
        self
    }
}

setters!(LayerNorm {
    /// Added to the variance. Default 1e-5.
    eps: f64,
    /// Whether it has a bias beside its weight. Default true.
    bias: bool,
});

impl Module for LayerNorm {
    fn call(&self, x: &Value) -> Result<Value> {
        if self.shape.is_empty() || self.shape.contains(&0) {
            return Err(ShapeError::Zero { what: "the number of elements that LayerNorm normalises" }.into());
        }
        checked_eps("eps of LayerNorm", self.eps)?;
        let affine = affine(x, &self.id, &self.shape, [self.affine, self.affine && self.bias])?;
        Ok(x.push(ops::LayerNorm { shape: self.shape.clone(), eps: self.eps }, &with(x, &affine)))
    }
}
