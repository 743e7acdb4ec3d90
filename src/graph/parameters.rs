//! Parameters: dotted names, extents, initialisation, values.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use crate::error::Result;
use crate::tensor::Tensor;

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Init {
    /// Uniform in `+-1 / sqrt(fan_in)`: PyTorch's `kaiming_uniform_(a=sqrt(5))`, and its rule for biases.
    Uniform {
        /// Inputs that each output is a sum over.
        fan_in: usize,
    },
    /// Uniform in `+-sqrt(6 / fan_in)`: PyTorch's `kaiming_uniform_`, after He et al. 2015, which keeps the scale of
    /// activations from layer to layer through ReLU.
    Kaiming {
        /// Inputs that each output is a sum over.
        fan_in: usize,
    },
    /// This value everywhere.
    Constant(f32),
}

/// A parameter that a graph needs.
#[derive(Clone, Debug)]
pub(crate) struct ParameterSpec {
    /// PyTorch's dotted name, such as `layer1.0.conv1.weight`.
    pub(crate) name: String,
    pub(crate) dims: Vec<usize>,
    pub(crate) init: Init,
    /// Whether training changes it by its gradient. Running statistics, PyTorch's buffers, are not trained.
    pub(crate) trained: bool,
}

/// The values of a graph's parameters, in its order.
pub(crate) type Parameters = Vec<Tensor>;

impl ParameterSpec {
    /// The initial value for a seed. It depends on the seed, the name and the extents only, so a layer keeps its
    /// values when others are added before it.
    pub(crate) fn initial(&self, seed: u64) -> Result<Tensor> {
        let mut t = Tensor::zeros(&self.dims)?;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed ^ fnv1a(self.name.as_bytes()));
        let bound = match self.init {
            Init::Uniform { fan_in } => 1.0 / (fan_in.max(1) as f32).sqrt(),
            Init::Kaiming { fan_in } => (6.0 / fan_in.max(1) as f32).sqrt(),
            Init::Constant(value) => {
                t.as_mut_slice().fill(value);
                return Ok(t);
            }
        };
        t.as_mut_slice().iter_mut().for_each(|v| *v = (2.0 * unit(&mut rng) - 1.0) * bound);
        Ok(t)
    }
}

/// Uniform in `0..1`, 24 bits of it; spelled out, so that a seed means the same whatever `rand` does.
fn unit(rng: &mut impl Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32
}

/// 64-bit FNV-1a, <http://www.isthe.com/chongo/tech/comp/fnv/>.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
