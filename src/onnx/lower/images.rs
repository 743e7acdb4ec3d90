//! Normalisations and paddings of images, as the layers' own operators.

use swath_kernels::shape::Padding;

use super::{Lowered, Lowering, axis, call};
use crate::graph::ValueId;
use crate::graph::ops::{GroupNorm, LayerNorm, Pad, PadMode};
use crate::onnx::fold::{Node, Operand};

impl Lowering {
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
