//! PReLU as a layer.

use swath_kernels::shape::ShapeError;

use super::Module;
use crate::error::{Error, Result};
use crate::graph::{Init, LayerId, Value, ops};

/// `max(x, 0) + weight * min(x, 0)` of images `[n, c, h, w]`, with one trained slope, or one for each channel.
///
/// Parameter: `weight` `[1]` or `[c]`, 0.25 at first.
///
/// ```
/// use swath::nn::{Module, PReLU};
/// let model = PReLU::new().build(0)?;
/// assert_eq!(model.compile([1, 1, 1, 2])?.run(&[8.0, -8.0])?.as_slice(), [8.0, -2.0]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct PReLU {
    id: LayerId,
    parameters: usize,
    init: f32,
}

impl PReLU {
    /// One slope for all channels.
    pub fn new() -> Self {
        Self { id: LayerId::new(), parameters: 1, init: 0.25 }
    }

    /// PyTorch's `num_parameters`: a slope for each of as many channels. Default 1.
    pub fn num_parameters(mut self, channels: usize) -> Self {
        self.parameters = channels;
        self
    }

    /// The slope at first. Default 0.25.
    pub fn init(mut self, init: f32) -> Self {
        self.init = init;
        self
    }
}

impl Default for PReLU {
    fn default() -> Self {
        Self::new()
    }
}

impl Module for PReLU {
    fn call(&self, x: &Value) -> Result<Value> {
        if self.parameters == 0 {
            return Err(ShapeError::Zero { what: "the number of slopes of PReLU" }.into());
        }
        if !self.init.is_finite() {
            let rule = "a slope is a finite number".into();
            return Err(Error::Setting { what: "init of PReLU", value: self.init.to_string(), rule });
        }
        let weight = x.parameter(&self.id, "weight", &[self.parameters], Init::Constant(self.init))?;
        Ok(x.push(ops::PRelu, &[x, &weight]))
    }
}
