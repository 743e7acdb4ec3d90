//! Elementwise activations.

use swath_kernels::act;
use swath_kernels::epilogue::Activation;
use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout};

use super::Operator;
use super::forward::{Forward, Operands, clear_padding};
use crate::conv::Scratch;
use crate::error::Result;
use crate::par;

impl Operator for Activation {
    fn name(&self) -> &'static str {
        match self {
            Activation::Identity => "Identity",
            Activation::Relu => "ReLU",
            Activation::Clip { lo: 0.0, hi: 6.0 } => "ReLU6",
            Activation::Clip { .. } => "Hardtanh",
            Activation::LeakyRelu { .. } => "LeakyReLU",
            Activation::Elu { .. } => "ELU",
            Activation::Selu => "SELU",
            Activation::Celu { .. } => "CELU",
            Activation::Sigmoid => "Sigmoid",
            Activation::Tanh => "Tanh",
            Activation::Gelu => "GELU",
            Activation::GeluTanh => "GELU(tanh)",
            Activation::Silu => "SiLU",
            Activation::Mish => "Mish",
            Activation::Softplus { .. } => "Softplus",
            Activation::HardSigmoid => "Hardsigmoid",
            Activation::HardSwish => "Hardswish",
            _ => "Activation",
        }
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }
}

/// An activation that no convolution could take along.
pub(crate) struct Activate {
    pub(crate) activation: Activation,
    pub(crate) layout: Layout,
    pub(crate) dims: [usize; 4],
    pub(crate) level: Level,
}

impl Activate {
    /// Whether zero stays zero, so that the channels that pad the last block do.
    fn keeps_zero(&self) -> bool {
        match self.activation {
            Activation::Sigmoid | Activation::Softplus { .. } | Activation::HardSigmoid => false,
            Activation::Clip { lo, hi } => lo <= 0.0 && hi >= 0.0,
            _ => true,
        }
    }
}

impl Forward for Activate {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], in_place: bool, _: &mut Scratch) {
        let source = if in_place { &[] } else { x.get(0) };
        // A line of floats as the unit: where a piece ends has no influence on any element.
        let work = if self.keeps_zero() { 1 } else { 8 };
        par::for_each_piece(y, BLOCK.min(y.len().max(1)), work, |lines, y| {
            if in_place {
                act::apply_inplace(self.level, self.activation, y);
            } else {
                let start = lines.start * BLOCK;
                act::apply(self.level, self.activation, &source[start..start + y.len()], y);
            }
        });
        if !self.keeps_zero() {
            clear_padding(self.layout, self.dims, y);
        }
    }

    fn in_place(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        self.activation.name().into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::forward::level;
    use super::super::forward::tests::{counting, run};
    use super::*;

    #[test]
    fn channels_that_pad_the_last_block_stay_zero() {
        let activations = [
            Activation::Relu,
            Activation::Clip { lo: 0.5, hi: 1.0 },
            Activation::Clip { lo: -2.0, hi: -1.0 },
            Activation::LeakyRelu { slope: 0.1 },
            Activation::Elu { alpha: 1.0 },
            Activation::Selu,
            Activation::Celu { alpha: 1.0 },
            Activation::Sigmoid,
            Activation::Tanh,
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Silu,
            Activation::Mish,
            Activation::Softplus { beta: 1.0, threshold: 20.0 },
            Activation::HardSigmoid,
            Activation::HardSwish,
        ];
        let (layout, dims, level) = (Layout::Blocked, [1, 18, 1, 2], level(None).unwrap());
        for activation in activations {
            let y = run(&Activate { activation, layout, dims, level }, &[&counting(layout, 18, 2)], 64);
            for px in y[32..].chunks(16) {
                assert_eq!(px[2..], [0.0; 14], "{}", activation.name());
                assert_ne!(px[..2], [0.0; 2], "{}", activation.name());
            }
        }
    }
}
