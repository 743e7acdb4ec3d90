//! Linear, Flatten and Identity.

use swath_kernels::shape::ShapeError;

use super::Module;
use crate::error::Result;
use crate::graph::{Init, LayerId, Value, ops};

/// `y = x W^T + b`. `[n, in]` to `[n, out]`.
///
/// Parameters: `weight` `[out, in]` and `bias` `[out]`, initialised uniformly in `+-1 / sqrt(in)` as PyTorch does.
///
/// ```
/// use swath::nn::{Linear, Module};
/// let model = Linear::new(7, 5).build(0)?;
/// assert_eq!(model.output_dims([3, 7])?, [3, 5]);
/// assert_eq!(model.compile([3, 8]).unwrap_err().to_string(), "Linear takes 7 features, gets 8");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Linear {
    id: LayerId,
    inputs: usize,
    outputs: usize,
    bias: bool,
}

impl Linear {
    /// With these many input and output features.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        Self { id: LayerId::new(), inputs, outputs, bias: true }
    }

    /// Whether a bias is added. Default true.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }
}

impl Module for Linear {
    fn call(&self, x: &Value) -> Result<Value> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        for (what, v) in [("the number of input features", inputs), ("the number of output features", outputs)] {
            if v == 0 {
                return Err(ShapeError::Zero { what }.into());
            }
        }
        let init = Init::Uniform { fan_in: inputs };
        let weight = x.parameter(&self.id, "weight", &[outputs, inputs], init)?;
        let bias = if self.bias { Some(x.parameter(&self.id, "bias", &[outputs], init)?) } else { None };
        let mut operands = vec![x, &weight];
        operands.extend(&bias);
        Ok(x.push(ops::Linear { inputs, outputs }, &operands))
    }
}

/// `[n, c, h, w]` to `[n, c * h * w]`, in PyTorch's order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flatten;

impl Module for Flatten {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.flatten())
    }
}

/// Its input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl Module for Identity {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.clone())
    }
}
