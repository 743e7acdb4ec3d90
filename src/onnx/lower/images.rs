//! Operators on images: normalisations and paddings, as the layers' own operators, and sampling.

use swath_kernels::shape::Padding;

use super::{Lowered, Lowering, axis, call};
use crate::graph::ValueId;
use crate::graph::ops::{GroupNorm, LayerNorm, Pad, PadMode};
use crate::onnx::fold::{Node, Operand};
use crate::onnx::nodes::GridSample;
use crate::ops::Sampler;

impl Lowering {
    /// Of images; volumes are interpreted.
    pub(super) fn grid_sample(&mut self, node: &Node, x: ValueId) -> Lowered {
        let Ok(sampler) = Sampler::new(&call(node)) else { return Ok(None) };
        let Some(grid) = self.operand(&node.inputs[1])? else { return Ok(None) };
        let inputs = [x, grid].map(|id| self.builder.fact(id).expect("facts are known at import").clone());
        let &[_, _, h, w] = &inputs[0].dims[..] else { return Ok(None) };
        if u32::try_from(h * w).is_err() {
            return Ok(None);
        }
        let output = self.facts[node.outputs[0]].clone();
        self.push(GridSample { sampler, inputs, output }, &[x, grid]).map(Some)
    }

    /// Over the axes from `axis` on.
    pub(super) fn layer_norm(&mut self, node: &Node, x: ValueId) -> Lowered {
        let (dims, call) = (self.dims(x), call(node));
        let (Some(at), Ok(eps), Ok(1)) =
            (axis(node, dims.len(), -1), call.float("epsilon", 1e-5), call.int("stash_type", 1))
        else {
            return Ok(None);
        };
        let shape = dims[at..].to_vec();
        let mut inputs = vec![x];
        for input in node.inputs.iter().skip(1).filter(|i| !matches!(i, Operand::Absent)) {
            match self.operand(input)? {
                Some(v) if self.dims(v) == shape => inputs.push(v),
                _ => return Ok(None), // repeated
            }
        }
        self.push(LayerNorm { shape, eps: f64::from(eps) }, &inputs).map(Some)
    }

    /// Of each channel alone, or of `num_groups`, whose scales are one for each group before opset 21.
    pub(super) fn group_norm(&mut self, node: &Node, x: ValueId) -> Lowered {
        let (dims, call) = (self.dims(x), call(node));
        let Some(&c) = dims.get(1) else { return Ok(None) };
        let groups = match node.operator.name {
            "InstanceNormalization" => c,
            _ => usize::try_from(call.int("num_groups", 0).unwrap_or(0)).unwrap_or(0),
        };
        let (Ok(eps), true) = (call.float("epsilon", 1e-5), groups > 0 && c.is_multiple_of(groups)) else {
            return Ok(None);
        };
        let mut inputs = vec![x];
        for input in &node.inputs[1..] {
            let Operand::Constant(values) = input else { return Ok(None) };
            let Some(values) = values.elements::<f32>() else { return Ok(None) };
            let each = match values.len() {
                len if len == c => 1,
                len if len == groups => c / groups,
                _ => return Ok(None),
            };
            let all: Vec<f32> = values.iter().flat_map(|&v| std::iter::repeat_n(v, each)).collect();
            inputs.push(self.floats([c], &all)?);
        }
        self.push(GroupNorm::new(groups, c, f64::from(eps)), &inputs).map(Some)
    }

    /// Of the last two axes of `[n, c, h, w]`.
    pub(super) fn pad(&mut self, node: &Node, x: ValueId) -> Lowered {
        let (dims, call) = (self.dims(x), call(node));
        let constant = |i: usize| match node.inputs.get(i) {
            None | Some(Operand::Absent) => Some(None),
            Some(Operand::Constant(array)) => Some(Some(array)),
            Some(Operand::Value(_)) => None,
        };
        let (Some(pads), Some(fill), Some(None)) = (constant(1), constant(2), constant(3)) else { return Ok(None) };
        let pads: Vec<i64> = match (pads, call.ints("pads")) {
            (Some(array), _) => array.elements::<i64>().unwrap_or_default().to_vec(),
            (None, Ok(Some(pads))) => pads.to_vec(),
            _ => return Ok(None),
        };
        let (&[0, 0, top, left, 0, 0, bottom, right], 4) = (&pads[..], dims.len()) else { return Ok(None) };
        let sides = [top, left, bottom, right].map(usize::try_from);
        let [Ok(top), Ok(left), Ok(bottom), Ok(right)] = sides else { return Ok(None) };
        let value = match fill {
            Some(array) => array.elements::<f32>().and_then(|v| v.first().copied()),
            None => call.float("value", 0.0).ok(),
        };
        let mode = match (call.text("mode", "constant"), value) {
            (Ok("constant"), Some(value)) => PadMode::Constant(value),
            (Ok("reflect"), _) => PadMode::Reflect,
            (Ok("edge"), _) => PadMode::Replicate,
            (Ok("wrap"), _) => PadMode::Circular,
            _ => return Ok(None),
        };
        self.push(Pad { mode, pad: Padding { top, left, bottom, right } }, &[x]).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::onnx::lower::models::*;

    #[derive(Debug, Clone)]
    struct Sample {
        mode: &'static str,
        padding: &'static str,
        align: bool,
        /// What comes before: a convolution makes blocks, a transpose NHWC.
        before: &'static str,
        constant: bool,
        /// `[n, c, h, w]`.
        x: [usize; 4],
        output: [usize; 2],
    }

    impl Sample {
        fn inputs(&self) -> Vec<(&'static str, Array)> {
            let [n, c, h, w] = self.x;
            let x = floats(&if self.before == "Transpose" { [n, h, w, c] } else { self.x }, 1);
            let mut inputs = vec![("x", x)];
            if !self.constant {
                inputs.push(("grid", self.grid()));
            }
            inputs
        }

        /// A third of it lies outside.
        fn grid(&self) -> Array {
            let dims = [self.x[0], self.output[0], self.output[1], 2];
            let wide = floats(&dims, 2).elements::<f32>().unwrap().iter().map(|v| 1.5 * v).collect();
            Array::vector(wide).with_dims(&dims[..]).unwrap()
        }

        fn model(&self) -> Vec<u8> {
            let c = self.x[1];
            let constants = [tensor("w", &floats(&[c, c, 1, 1], 3)), tensor("grid", &self.grid())];
            let before = match self.before {
                "Conv" => Some(node("Conv", &["x", "w"], &["image"], &[])),
                "Transpose" => {
                    let perm = attribute("perm", 7, |m| m.ints(8, [0, 3, 1, 2]));
                    Some(node("Transpose", &["x"], &["image"], &[perm]))
                }
                _ => None,
            };
            let attributes = [
                attribute("mode", 3, |m| m.text(4, self.mode)),
                attribute("padding_mode", 3, |m| m.text(4, self.padding)),
                attribute("align_corners", 2, |m| m.int(3, self.align.into())),
            ];
            let image = if before.is_some() { "image" } else { "x" };
            let nodes: Vec<_> =
                before.into_iter().chain([node("GridSample", &[image, "grid"], &["y"], &attributes)]).collect();
            let constants = &constants[..1 + usize::from(self.constant)];
            let inputs: Vec<_> = self.inputs().iter().map(|(name, x)| input(name, x.dims(), 1)).collect();
            model(20, &nodes, constants, &inputs, &["y"])
        }
    }

    fn samples() -> impl Strategy<Value = Sample> {
        let mode = prop_oneof![Just("nearest"), Just("linear"), Just("cubic")];
        let padding = prop_oneof![Just("zeros"), Just("border"), Just("reflection")];
        let before = prop_oneof![Just(""), Just("Conv"), Just("Transpose")];
        let x = (1usize..3, 1usize..40, 1usize..9, 1usize..9);
        let output = (1usize..9, 1usize..9);
        (mode, padding, before, any::<[bool; 2]>(), x, output).prop_map(
            |(mode, padding, before, [align, constant], (n, c, h, w), (oh, ow))| Sample {
                mode,
                padding,
                align,
                before,
                constant,
                x: [n, c, h, w],
                output: [oh, ow],
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]
        #[test]
        fn compiled_samples_are_what_interpreted_ones_are(sample in samples()) {
            compiles_to_the_same(&sample.model(), sample.inputs())?;
        }
    }
}
