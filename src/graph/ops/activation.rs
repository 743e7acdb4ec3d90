//! Elementwise activations.

use swath_kernels::act::{self, Kept, backward, backward_inplace, output_suffices};
use swath_kernels::epilogue::Activation;
use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout};
use swath_kernels::pass::Place;

use crate::conv::Scratch;
use crate::error::Result;
use crate::graph::step::{Operands, Step, clear_padding};
use crate::graph::{Gradient, Group, Lower, Operator};
use crate::par;

/// An elementwise activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activate(pub Activation);

impl Operator for Activate {
    fn name(&self) -> &'static str {
        name(self.0)
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.input(group, 0);
        let place = cx.native(x)?;
        let (layout, dims, level) = (place.layout, cx.extents(x), cx.level());
        let step = ActivationStep { activation: self.0, layout, dims, level };
        cx.step(group, layout, Box::new(step), vec![place.buffer], 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        // The output tells the slope of most; where it does, nothing else keeps the input alive.
        let kept = if output_suffices(self.0) { g.output(0) } else { g.input(0) };
        let dx = g.push(ActivationGradient(self.0), &[kept, g.dy()])?;
        g.add(0, dx[0])
    }

    fn as_activation(&self) -> Option<Activation> {
        Some(self.0)
    }
}

/// The name that PyTorch has for an activation.
pub(crate) fn name(activation: Activation) -> &'static str {
    match activation {
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
        Activation::HardSwishAffine { .. } => "Hardswish, scaled",
        _ => "Activation",
    }
}

/// The gradient of an activation, from what it kept (its output where that suffices, else its input) and the gradient at its output.
#[derive(Clone, Copy, Debug)]
pub(super) struct ActivationGradient(pub(super) Activation);

impl Operator for ActivationGradient {
    fn name(&self) -> &'static str {
        "ActivationGradient"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let (kept, dy) = (cx.input(group, 0), cx.input(group, 1));
        let place = cx.native(kept)?;
        let inputs = vec![cx.want(dy, place.layout)?, place.buffer];
        let (layout, dims, level) = (place.layout, cx.extents(kept), cx.level());
        cx.step(group, layout, Box::new(GradientStep { activation: self.0, layout, dims, level }), inputs, 0)
    }
}

/// The slope times the gradient at the output. Operand 0 is that gradient, operand 1 what was kept.
struct GradientStep {
    activation: Activation,
    layout: Layout,
    dims: [usize; 4],
    level: Level,
}

impl Step for GradientStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], in_place: bool, _: &mut Scratch) {
        let executor = par::everyone();
        let place = Place::new(self.level, &*executor);
        let kept = if output_suffices(self.activation) { Kept::Output(x.get(1)) } else { Kept::Input(x.get(1)) };
        if in_place {
            backward_inplace(&place, self.activation, kept, y);
        } else {
            backward(&place, self.activation, kept, x.get(0), y);
        }
        // Gradients of padding channels are zero, and a slope times zero is.
        clear_padding(self.layout, self.dims, y);
    }

    fn in_place(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        format!("{} gradient", name(self.activation))
    }
}

/// An activation that no convolution could take along.
struct ActivationStep {
    activation: Activation,
    layout: Layout,
    dims: [usize; 4],
    level: Level,
}

impl ActivationStep {
    /// Whether zero stays zero, so that the channels that pad the last block do.
    fn keeps_zero(&self) -> bool {
        match self.activation {
            Activation::Sigmoid | Activation::Softplus { .. } | Activation::HardSigmoid => false,
            Activation::Clip { lo, hi } => lo <= 0.0 && hi >= 0.0,
            _ => true,
        }
    }
}

impl Step for ActivationStep {
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
        name(self.activation).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::step::level;
    use crate::graph::step::tests::{counting, run};

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
            let y = run(&ActivationStep { activation, layout, dims, level }, &[&counting(layout, 18, 2)], 64);
            for px in y[32..].chunks(16) {
                assert_eq!(px[2..], [0.0; 14], "{}", name(activation));
                assert_ne!(px[..2], [0.0; 2], "{}", name(activation));
            }
        }
    }
}
