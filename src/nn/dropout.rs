//! Dropout as layers.

use super::Module;
use crate::error::Result;
use crate::graph::{Value, ops};

/// Sets elements to zero with probability `p` in training. In inference it is its input, and costs nothing.
///
/// ```
/// use swath::nn::{Dropout, Module};
/// let mut session = Dropout::default().build(0)?.compile([1, 2])?;
/// assert_eq!(session.run(&[1.0, 2.0])?.as_slice(), [1.0, 2.0]);
/// assert!(Dropout::new(1.5).build(0)?.compile([1, 2]).is_err());
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    p: f32,
}

impl Dropout {
    /// With this probability of a zero.
    pub fn new(p: f32) -> Self {
        Self { p }
    }
}

/// PyTorch's probability, 0.5.
impl Default for Dropout {
    fn default() -> Self {
        Self::new(0.5)
    }
}

impl Module for Dropout {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(ops::Dropout { p: self.p, channels: false }, &[x]))
    }
}

/// Sets whole channels of images to zero with probability `p` in training. In inference it is its input, and costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Dropout2d {
    p: f32,
}

impl Dropout2d {
    /// With this probability of a zero.
    pub fn new(p: f32) -> Self {
        Self { p }
    }
}

/// PyTorch's probability, 0.5.
impl Default for Dropout2d {
    fn default() -> Self {
        Self::new(0.5)
    }
}

impl Module for Dropout2d {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(ops::Dropout { p: self.p, channels: true }, &[x]))
    }
}
