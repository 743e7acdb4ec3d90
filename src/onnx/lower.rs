//! A folded model becomes a graph: operators with kernels where there are some, interpreted ones elsewhere.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use swath_kernels::epilogue::Activation;
use swath_kernels::resample::{Filter, Size};
use swath_kernels::shape::Padding;

use super::error::OnnxError;
use super::fold::{Folded, Node, Operand};
use super::nodes::{Interpreted, Map, MatMul, Rate, Resample, Slot, Strided, ToNchw, ToNhwc};
use super::simplify::bounds;
use crate::buffer::{self, Floats};
use crate::error::Result;
use crate::graph::ops::{self as graph_ops, Activate, Binary, Conv, Linear};
use crate::graph::{Builder, Graph, Operator, ValueId};
use crate::ops::{Array, Attribute, Call, ElementType, Fact, View, window_axes};
use crate::tensor::Tensor;

mod images;
#[cfg(test)]
mod models;
mod recurrent;

/// The graph of a folded model, whose outputs that are values are the graph's outputs. Weights that an operator takes as they are
/// belong to both; others are copied, and the model's are freed node by node.
pub(crate) fn lower(folded: Folded) -> Result<Graph, OnnxError> {
    let Folded { facts, inputs, nodes, outputs } = folded;
    let mut lowering = Lowering { facts, builder: Builder::new(), values: HashMap::new(), constants: HashMap::new() };
    for (name, value) in &inputs {
        let id = lowering.builder.input(name, Some(lowering.facts[*value].clone()));
        lowering.values.insert(*value, id);
    }
    for node in nodes {
        let fail = |e: crate::Error| OnnxError::new(node.offset, e.to_string()).within(|| node.place.clone());
        lowering.builder.set_layer(&node.place);
        lowering.node(&node).map_err(fail)?;
    }
    let outputs: Vec<(&str, ValueId)> = outputs
        .iter()
        .filter_map(|(name, output)| match output {
            Operand::Value(value) => Some((name.as_str(), lowering.values[value])),
            _ => None,
        })
        .collect();
    lowering.builder.finish(&outputs).map_err(|e| OnnxError::new(0, e.to_string()))
}

impl Floats for Array {
    fn floats(&self) -> &[f32] {
        self.elements().unwrap_or_default()
    }
}

struct Lowering {
    /// The form of each value of the folded model.
    facts: Vec<Fact>,
    builder: Builder,
    values: HashMap<usize, ValueId>,
    /// Constants of several nodes that are values of the graph already, by their address.
    constants: HashMap<*const Array, (Arc<Array>, ValueId)>,
}

/// What a rule makes of a node: its one result, or nothing.
type Lowered = Result<Option<ValueId>>;

impl Lowering {
    fn node(&mut self, node: &Node) -> Result<()> {
        let floats =
            node.inputs.iter().chain(&node.outputs.iter().map(|&o| Operand::Value(o)).collect::<Vec<_>>()).all(|o| {
                match o {
                    Operand::Value(v) => self.facts[*v].element == ElementType::F32,
                    _ => true,
                }
            });
        if let [output] = node.outputs[..] {
            let expected = self.facts[output].clone();
            let empty = |o: &Operand| matches!(o, Operand::Value(v) if self.facts[*v].is_empty());
            let elements = !expected.is_empty() && !node.inputs.iter().any(empty);
            // A kernel may have rules that the operator does not: then it is interpreted.
            if floats
                && elements
                && let Ok(Some(id)) = self.fast(node)
                && self.builder.fact(id) == Some(&expected)
            {
                self.values.insert(output, id);
                return Ok(());
            }
        }
        if let Ok(Some(results)) = self.several(node, floats) {
            self.values.extend(node.outputs.iter().copied().zip(results));
            return Ok(());
        }
        self.interpreted(node)
    }

    /// The results of an operator of several that has a kernel; whether all its operands are `floats`, as lengths of sequences are not.
    fn several(&mut self, node: &Node, floats: bool) -> Result<Option<Vec<ValueId>>> {
        match node.operator.name {
            "LSTM" | "GRU" | "RNN" => self.recurrent(node),
            "Split" if floats => self.split(node),
            _ => Ok(None),
        }
    }

    fn interpreted(&mut self, node: &Node) -> Result<()> {
        let (mut slots, mut inputs, mut facts) = (Vec::new(), Vec::new(), Vec::new());
        for input in &node.inputs {
            slots.push(match input {
                Operand::Absent => Slot::Absent,
                Operand::Constant(array) => Slot::Constant(array.clone()),
                Operand::Value(value) => {
                    inputs.push(self.values[value]);
                    facts.push(self.facts[*value].clone());
                    Slot::Input
                }
            });
        }
        let op = Interpreted {
            operator: node.operator,
            opset: node.opset,
            attributes: Arc::new(node.attributes.clone()),
            slots,
            inputs: facts,
            outputs: node.outputs.iter().map(|&o| self.facts[o].clone()).collect(),
        };
        let ids = self.builder.push(op, &inputs)?;
        self.values.extend(node.outputs.iter().copied().zip(ids));
        Ok(())
    }

    fn push(&mut self, op: impl Operator, inputs: &[ValueId]) -> Result<ValueId> {
        Ok(self.builder.push(op, inputs)?[0])
    }

    /// An operand of floats as a value of the graph.
    fn operand(&mut self, operand: &Operand) -> Lowered {
        match operand {
            Operand::Absent => Ok(None),
            Operand::Value(value) => Ok(Some(self.values[value])),
            Operand::Constant(array) => {
                if array.element() != ElementType::F32 {
                    return Ok(None);
                }
                if let Some((_, id)) = self.constants.get(&Arc::as_ptr(array)) {
                    return Ok(Some(*id));
                }
                let several = Arc::strong_count(array) > 1;
                let id = self.builder.constant(Tensor::shared(array.dims(), array.clone())?);
                if several {
                    self.constants.insert(Arc::as_ptr(array), (array.clone(), id));
                }
                Ok(Some(id))
            }
        }
    }

    fn floats(&mut self, dims: impl Into<Vec<usize>>, elements: &[f32]) -> Result<ValueId> {
        Ok(self.builder.constant(Tensor::new(dims.into(), elements)?))
    }

    fn dims(&self, id: ValueId) -> Vec<usize> {
        self.builder.fact(id).map(|f| f.dims.clone()).unwrap_or_default()
    }

    fn reshape(&mut self, x: ValueId, dims: impl Into<Vec<usize>>) -> Result<ValueId> {
        let dims = dims.into();
        if self.dims(x) == dims {
            return Ok(x);
        }
        self.push(graph_ops::Reshape::to(&dims), &[x])
    }

    /// The operator with a kernel.
    fn fast(&mut self, node: &Node) -> Lowered {
        let Some(first) = node.inputs.first() else { return Ok(None) };
        let name = node.operator.name;
        match name {
            "Conv" | "com.microsoft.FusedConv" => return self.conv(node),
            "ConvTranspose" => return self.conv_transpose(node),
            "Gemm" => return self.gemm(node),
            "MatMul" => return self.matmul(node),
            "Concat" => return self.concat(node),
            _ => {}
        }
        let binary = match name {
            "Add" => Some(Binary::add()),
            "Sub" => Some(Binary::sub()),
            "Mul" => Some(Binary::mul()),
            "Div" => Some(Binary::div()),
            "Min" => Some(Binary::min()),
            "Max" => Some(Binary::max()),
            _ => None,
        };
        if let (Some(op), [a, b]) = (binary, &node.inputs[..]) {
            // Before opset 7, the second one was aligned otherwise.
            if node.opset < 7 && node.attributes.get("axis").is_some() {
                return Ok(None);
            }
            let (Some(a), Some(b)) = (self.operand(a)?, self.operand(b)?) else { return Ok(None) };
            return self.push(op, &[a, b]).map(Some);
        }
        let Operand::Value(value) = first else { return Ok(None) };
        let x = self.values[value];
        if let Some(activation) = activation(node) {
            return self.push(Activate(activation), &[x]).map(Some);
        }
        if let Some(map) = Map::named(name) {
            return self.push(map, &[x]).map(Some);
        }
        match name {
            "BatchNormalization" => self.batch_norm(node, x),
            "LayerNormalization" => self.layer_norm(node, x),
            "GroupNormalization" | "InstanceNormalization" => self.group_norm(node, x),
            "Pad" => self.pad(node, x),
            "HardSigmoid" => self.hard_sigmoid(node, x),
            "Pow" => match &node.inputs[1] {
                Operand::Constant(two) if two.elements::<f32>() == Some(&[2.0]) => {
                    self.push(Binary::mul(), &[x, x]).map(Some)
                }
                Operand::Constant(half) if half.elements::<f32>() == Some(&[0.5]) => {
                    self.push(Map::named("Sqrt").expect("there is one"), &[x]).map(Some)
                }
                _ => Ok(None),
            },
            "PRelu" => self.prelu(node, x),
            "MaxPool" | "AveragePool" => self.pool(node, x),
            "GlobalAveragePool" if self.dims(x).len() == 4 => {
                self.push(graph_ops::pool::AdaptiveAvgPool2d::new(1), &[x]).map(Some)
            }
            "GlobalMaxPool" if self.dims(x).len() == 4 => {
                self.push(graph_ops::pool::MaxPool2d::new([self.dims(x)[2], self.dims(x)[3]]), &[x]).map(Some)
            }
            "ReduceMean" | "ReduceSum" => self.reduce(node, x),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
                let dims = self.facts[node.outputs[0]].dims.clone();
                self.reshape(x, dims).map(Some)
            }
            "Transpose" => self.transpose(node, x),
            "Slice" | "Expand" | "Tile" | "DepthToSpace" | "SpaceToDepth" => self.moved(node, x),
            "Gather" => self.gather(node, x),
            "Softmax" | "LogSoftmax" => self.softmax(node, x),
            "Resize" | "Upsample" => self.resize(node, x),
            "GridSample" => self.grid_sample(node, x),
            _ => Ok(None),
        }
    }

    fn conv(&mut self, node: &Node) -> Lowered {
        let (Some(mut x), Some(mut w)) = (self.operand(&node.inputs[0])?, self.operand(&node.inputs[1])?) else {
            return Ok(None);
        };
        let (input, weights) = (self.dims(x), self.dims(w));
        let Ok(mut axes) = window_axes(&call(node), &input, &weights) else { return Ok(None) };
        let output = self.facts[node.outputs[0]].dims.clone();
        if axes.len() == 1 {
            // One dimension is an image of one row.
            let image = |d: &[usize]| vec![d[0], d[1], 1, d[2]];
            x = self.reshape(x, image(&input))?;
            w = match &node.inputs[1] {
                Operand::Constant(array) => match array.elements::<f32>() {
                    Some(elements) => self.floats(image(&weights), elements)?,
                    None => return Ok(None),
                },
                _ => self.reshape(w, image(&weights))?,
            };
            axes.insert(0, crate::ops::Axis { input: 1, kernel: 1, stride: 1, dilation: 1, pads: [0, 0], output: 1 });
        }
        let [v, h] = axes[..] else { return Ok(None) };
        let groups = match node.attributes.get("group") {
            Some(&Attribute::Int(groups)) => usize::try_from(groups).unwrap_or(0),
            _ => 1,
        };
        let op = Conv {
            weights: [weights[0], weights[1], v.kernel, h.kernel],
            stride: [v.stride, h.stride],
            dilation: [v.dilation, h.dilation],
            pad: padding(&v, &h),
            groups,
        };
        let mut inputs = vec![x, w];
        if let Some(bias) = node.inputs.get(2) {
            inputs.extend(self.operand(bias)?);
        }
        let mut y = self.push(op, &inputs)?;
        if let Some(z) = node.inputs.get(3)
            && let Some(z) = self.operand(z)?
        {
            y = self.push(Binary::add(), &[y, z])?;
        }
        if node.operator.name == "com.microsoft.FusedConv" {
            match fused_activation(node) {
                Some(Activation::Identity) => {}
                Some(activation) => y = self.push(Activate(activation), &[y])?,
                None => return Ok(None),
            }
        }
        self.reshape(y, output).map(Some)
    }

    fn conv_transpose(&mut self, node: &Node) -> Lowered {
        let (Some(x), Some(w)) = (self.operand(&node.inputs[0])?, self.operand(&node.inputs[1])?) else {
            return Ok(None);
        };
        let (input, weights, call) = (self.dims(x), self.dims(w), call(node));
        let output = &self.facts[node.outputs[0]].dims;
        let Ok(axes) = crate::ops::transposed_axes(&call, &input, &weights) else { return Ok(None) };
        let ([v, h], Ok(groups)) = (&axes[..], call.int("group", 1)) else { return Ok(None) };
        // What the padding leaves, and what is added behind to make the output.
        let more = |axis: &crate::ops::Axis, output: usize| {
            let full = (axis.input - 1) * axis.stride + axis.span();
            output.checked_sub(full.checked_sub(axis.pads[0] + axis.pads[1])?)
        };
        let (Some(below), Some(right)) = (more(v, output[2]), more(h, output[3])) else { return Ok(None) };
        let op = graph_ops::ConvTranspose {
            weights: [weights[0], weights[1], v.kernel, h.kernel],
            stride: [v.stride, h.stride],
            dilation: [v.dilation, h.dilation],
            pad: padding(v, h),
            output_padding: [below, right],
            groups: usize::try_from(groups).unwrap_or(0),
        };
        let mut inputs = vec![x, w];
        if let Some(bias) = node.inputs.get(2) {
            inputs.extend(self.operand(bias)?);
        }
        self.push(op, &inputs).map(Some)
    }

    /// `[.., k]` times a constant matrix, whose columns are the `n` rows of `weights`, and a bias.
    fn linear(&mut self, x: ValueId, weights: &[f32], [k, n]: [usize; 2], bias: Option<&[f32]>) -> Result<ValueId> {
        let dims = self.dims(x);
        let rows = dims.iter().product::<usize>() / k;
        let mut inputs = vec![self.reshape(x, [rows, k])?, self.floats([n, k], weights)?];
        if let Some(bias) = bias {
            inputs.push(self.floats([n], bias)?);
        }
        let y = self.push(Linear { inputs: k, outputs: n }, &inputs)?;
        let mut output = dims;
        *output.last_mut().expect("there are columns") = n;
        self.reshape(y, output)
    }

    fn gemm(&mut self, node: &Node) -> Lowered {
        let call = call(node);
        let numbers =
            (call.float("alpha", 1.0), call.float("beta", 1.0), call.flag("transA", false), call.flag("transB", false));
        let (Ok(alpha), Ok(beta), Ok(false), Ok(transposed)) = numbers else { return Ok(None) };
        let (Operand::Value(x), Operand::Constant(b)) = (&node.inputs[0], &node.inputs[1]) else { return Ok(None) };
        let (Some(elements), &[rows, cols]) = (b.elements::<f32>(), b.dims()) else { return Ok(None) };
        let [k, n] = if transposed { [cols, rows] } else { [rows, cols] };
        let bias = match node.inputs.get(2) {
            None | Some(Operand::Absent) => None,
            Some(Operand::Constant(c)) => match (c.elements::<f32>(), c.dims()) {
                (Some(c), [_] | [1, _] | []) if c.len() == n => Some(c.iter().map(|v| v * beta).collect::<Vec<_>>()),
                (Some(&[one]), _) => Some(vec![one * beta; n]),
                _ => return Ok(None),
            },
            Some(Operand::Value(_)) => return Ok(None),
        };
        let mut weights = if transposed { Cow::from(elements) } else { turned(elements, [k, n])?.into() };
        if alpha != 1.0 {
            weights.to_mut().iter_mut().for_each(|v| *v *= alpha);
        }
        self.linear(self.values[x], &weights, [k, n], bias.as_deref()).map(Some)
    }

    fn matmul(&mut self, node: &Node) -> Lowered {
        let [a, b] = &node.inputs[..] else { return Ok(None) };
        if let (Operand::Value(x), Operand::Constant(b)) = (a, b)
            && let (Some(matrix), &[k, n]) = (b.elements::<f32>(), b.dims())
            && self.facts[*x].dims.len() > 1
        {
            return self.linear(self.values[x], &turned(matrix, [k, n])?, [k, n], None).map(Some);
        }
        let (Some(a), Some(b)) = (self.operand(a)?, self.operand(b)?) else { return Ok(None) };
        let inputs = [a, b].map(|v| self.builder.fact(v).expect("facts are known at import").clone());
        if inputs.iter().any(|fact| fact.dims.len() < 2) {
            return Ok(None);
        }
        let output = self.facts[node.outputs[0]].clone();
        self.push(MatMul { inputs, output }, &[a, b]).map(Some)
    }

    fn concat(&mut self, node: &Node) -> Lowered {
        let output = self.facts[node.outputs[0]].dims.clone();
        let Some(at) = axis(node, output.len(), 1) else { return Ok(None) };
        let mut parts = Vec::with_capacity(node.inputs.len());
        for input in &node.inputs {
            let Some(part) = self.operand(input)? else { return Ok(None) };
            // Parts without elements add nothing, and no kernel takes them.
            if self.dims(part)[at] > 0 {
                parts.push(part);
            }
        }
        if let [one] = parts[..] {
            return Ok(Some(one));
        }
        if at == 1 && output.len() == 4 {
            return self.push(graph_ops::Concat, &parts).map(Some);
        }
        // Along any axis: images of `[outer, axis, inner, 1]`.
        let (outer, inner) = (output[..at].iter().product::<usize>(), output[at + 1..].iter().product::<usize>());
        for part in &mut parts {
            let len = self.dims(*part)[at];
            *part = self.reshape(*part, [outer, len, inner, 1])?;
        }
        let y = self.push(graph_ops::Concat, &parts)?;
        self.reshape(y, output).map(Some)
    }

    /// The parts of a split: slices, which keep the layout of blocked channels where they begin one.
    fn split(&mut self, node: &Node) -> Result<Option<Vec<ValueId>>> {
        let Some(Operand::Value(x)) = node.inputs.first() else { return Ok(None) };
        let Some(at) = axis(node, self.facts[*x].dims.len(), 0) else { return Ok(None) };
        let lens: Vec<usize> = node.outputs.iter().map(|&o| self.facts[o].dims[at]).collect();
        if self.facts[*x].is_empty() || lens.contains(&0) {
            return Ok(None);
        }
        let (x, mut start) = (self.values[x], 0);
        let mut parts = Vec::with_capacity(lens.len());
        for len in lens {
            parts.push(self.push(graph_ops::Slice { dim: at as isize, start, len }, &[x])?);
            start += len;
        }
        Ok(Some(parts))
    }

    fn batch_norm(&mut self, node: &Node, x: ValueId) -> Lowered {
        let dims = self.dims(x);
        let Some(&channels) = dims.get(1) else { return Ok(None) };
        let mut all = Vec::new();
        for i in 1..5 {
            match node.inputs.get(i) {
                Some(Operand::Constant(c)) if c.len() == channels => match c.elements::<f32>() {
                    Some(v) => all.push(v),
                    None => return Ok(None),
                },
                _ => return Ok(None),
            }
        }
        if call(node).flag("training_mode", false).unwrap_or(true) {
            return Ok(None);
        }
        let epsilon = f64::from(call(node).float("epsilon", 1e-5).unwrap_or(1e-5));
        let op = graph_ops::BatchNorm { channels, eps: epsilon, momentum: None };
        // Mean, variance, scale, shift.
        let mut inputs = vec![x];
        for i in [2, 3, 0, 1] {
            inputs.push(self.floats([channels], all[i])?);
        }
        self.push(op, &inputs).map(Some)
    }

    /// `clip(alpha x + beta, 0, 1)`
    fn hard_sigmoid(&mut self, node: &Node, x: ValueId) -> Lowered {
        let (Ok(alpha), Ok(beta)) = (call(node).float("alpha", 0.2), call(node).float("beta", 0.5)) else {
            return Ok(None);
        };
        let (alpha, beta) = (self.floats([1], &[alpha])?, self.floats([1], &[beta])?);
        let y = self.push(Binary::mul(), &[x, alpha])?;
        let y = self.push(Binary::add(), &[y, beta])?;
        self.push(Activate(Activation::Clip { lo: 0.0, hi: 1.0 }), &[y]).map(Some)
    }

    fn prelu(&mut self, node: &Node, x: ValueId) -> Lowered {
        let (Operand::Constant(slope), dims) = (&node.inputs[1], self.dims(x)) else { return Ok(None) };
        let Some(elements) = slope.elements::<f32>() else { return Ok(None) };
        let &[_, channels, _, _] = &dims[..] else { return Ok(None) };
        let per_channel = match slope.dims() {
            [_, 1, 1] | [1, _, 1, 1] => elements.len() == channels,
            [_] => node.opset < 7 && elements.len() == channels,
            _ => false,
        };
        if !(per_channel || elements.len() == 1) {
            return Ok(None);
        }
        let slope = self.floats([elements.len()], elements)?;
        self.push(graph_ops::PRelu, &[x, slope]).map(Some)
    }

    fn pool(&mut self, node: &Node, x: ValueId) -> Lowered {
        let call = call(node);
        let input = self.dims(x);
        let Ok(Some(kernel)) = call.ints("kernel_shape") else { return Ok(None) };
        let kernel: Vec<usize> = kernel.iter().map(|&k| k as usize).collect();
        let Ok(ceil) = call.flag("ceil_mode", false) else { return Ok(None) };
        let Ok(axes) = crate::ops::pool_axes(&call, &input, &kernel, ceil) else { return Ok(None) };
        let [v, h] = axes[..] else { return Ok(None) };
        let (kernel, stride, pad) = ([v.kernel, h.kernel], [v.stride, h.stride], padding(&v, &h));
        if node.operator.name == "MaxPool" {
            let op =
                graph_ops::pool::MaxPool2d::new(kernel).stride(stride).padding(pad).dilation([v.dilation, h.dilation]);
            return self.push(op.ceil_mode(ceil), &[x]).map(Some);
        }
        if v.dilation != 1 || h.dilation != 1 {
            return Ok(None);
        }
        let Ok(counted) = call.flag("count_include_pad", false) else { return Ok(None) };
        let op = graph_ops::pool::AvgPool2d::new(kernel).stride(stride).padding(pad).ceil_mode(ceil);
        self.push(op.count_include_pad(counted), &[x]).map(Some)
    }

    fn reduce(&mut self, node: &Node, x: ValueId) -> Lowered {
        let dims = self.dims(x);
        let call = call(node);
        let named: Vec<i64> = match (node.inputs.get(1), call.ints("axes")) {
            (Some(Operand::Constant(axes)), _) => match axes.elements::<i64>() {
                Some(axes) => axes.to_vec(),
                None => return Ok(None),
            },
            (None | Some(Operand::Absent), Ok(Some(axes))) => axes.to_vec(),
            (None | Some(Operand::Absent), Ok(None)) => Vec::new(),
            _ => return Ok(None),
        };
        let (Ok(keep), Ok(false)) = (call.flag("keepdims", true), call.flag("noop_with_empty_axes", false)) else {
            return Ok(None);
        };
        let mut axes: Vec<isize> =
            named.iter().map(|&a| if a < 0 { a + dims.len() as i64 } else { a } as isize).collect();
        axes.sort_unstable();
        let mean = node.operator.name == "ReduceMean";
        if mean && axes == [2, 3] && dims.len() == 4 {
            let y = self.push(graph_ops::pool::AdaptiveAvgPool2d::new(1), &[x])?;
            let output = self.facts[node.outputs[0]].dims.clone();
            return self.reshape(y, output).map(Some);
        }
        let op = if mean { graph_ops::Reduce::mean(&axes, keep) } else { graph_ops::Reduce::sum(&axes, keep) };
        self.push(op, &[x]).map(Some)
    }

    fn transpose(&mut self, node: &Node, x: ValueId) -> Lowered {
        let dims = self.dims(x);
        let order: Vec<usize> = match node.attributes.get("perm") {
            Some(Attribute::Ints(perm)) => {
                perm.iter().map(|&i| if i < 0 { i + dims.len() as i64 } else { i } as usize).collect()
            }
            _ => (0..dims.len()).rev().collect(),
        };
        // Dimensions of 1 may go anywhere.
        let moved = |dims: &[usize]| (0..dims.len()).filter(|&i| dims[i] != 1).collect::<Vec<_>>();
        let after: Vec<usize> = order.iter().copied().filter(|&i| dims[i] != 1).collect();
        if after == moved(&dims) {
            let dims = self.facts[node.outputs[0]].dims.clone();
            return self.reshape(x, dims).map(Some);
        }
        match order[..] {
            [0, 2, 3, 1] => self.push(ToNhwc, &[x]).map(Some),
            [0, 3, 1, 2] => self.push(ToNchw, &[x]).map(Some),
            _ => self.permuted(x, &order).map(Some),
        }
    }

    fn permuted(&mut self, x: ValueId, order: &[usize]) -> Result<ValueId> {
        let input = self.builder.fact(x).expect("facts are known at import").clone();
        let view = View::of(&input.dims).permute(order);
        let output = Fact { dims: view.dims.clone(), ..input };
        self.push(Strided { name: "Transpose", input, view, output }, &[x])
    }

    fn strided(&mut self, name: &'static str, node: &Node, x: ValueId, view: View) -> Result<ValueId> {
        let input = self.builder.fact(x).expect("facts are known at import").clone();
        let output = self.facts[node.outputs[0]].clone();
        self.push(Strided { name, input, view, output }, &[x])
    }

    /// Operators that only move elements.
    fn moved(&mut self, node: &Node, x: ValueId) -> Lowered {
        let Some(mut inputs) = constants_behind(node) else { return Ok(None) };
        inputs.insert(0, None);
        let call = Call { opset: node.opset, attributes: &node.attributes, inputs: &inputs, outputs: 1 };
        let moves = node.operator.mover().and_then(|mover| mover(&call, &self.dims(x)).ok());
        match moves.into_iter().flatten().next() {
            Some(first) => self.strided(node.operator.name, node, x, first.view).map(Some),
            None => Ok(None),
        }
    }

    /// Where each element comes from, it tells by gathering the elements' numbers.
    fn gather(&mut self, node: &Node, x: ValueId) -> Lowered {
        let dims = self.dims(x);
        let len: usize = dims.iter().product();
        let (Ok(end), Ok(mut numbers)) = (i32::try_from(len), crate::ops::room(len)) else { return Ok(None) };
        numbers.extend(0..end);
        let numbers = Array::of(dims, numbers);
        let Some(mut inputs) = constants_behind(node) else { return Ok(None) };
        inputs.insert(0, Some(&numbers));
        let call = Call { opset: node.opset, attributes: &node.attributes, inputs: &inputs, outputs: 1 };
        let Ok(moved) = node.operator.run(&call) else { return Ok(None) };
        let Some(places) = moved[0].elements::<i32>() else { return Ok(None) };
        match View::through(moved[0].dims(), places) {
            Some(view) => self.strided(node.operator.name, node, x, view).map(Some),
            None => Ok(None),
        }
    }

    /// Over one axis, or over all from an axis on.
    fn softmax(&mut self, node: &Node, x: ValueId) -> Lowered {
        let dims = self.dims(x);
        let one = node.opset >= 13;
        let Some(at) = axis(node, dims.len(), if one { -1 } else { 1 }) else { return Ok(None) };
        let end = if one { at + 1 } else { dims.len() };
        let log = node.operator.name == "LogSoftmax";
        if end == at + 1 {
            return self.push(graph_ops::Softmax { log, dim: at as isize }, &[x]).map(Some);
        }
        let product = |d: &[usize]| d.iter().product::<usize>();
        let rows = self.reshape(x, [product(&dims[..at]), product(&dims[at..])])?;
        let y = self.push(graph_ops::Softmax { log, dim: 1 }, &[rows])?;
        self.reshape(y, dims).map(Some)
    }

    fn resize(&mut self, node: &Node, x: ValueId) -> Lowered {
        let (input, output) = (self.dims(x), self.facts[node.outputs[0]].clone());
        let Some(mut inputs) = constants_behind(node) else { return Ok(None) };
        inputs.insert(0, None);
        let call = Call { opset: node.opset, attributes: &node.attributes, inputs: &inputs, outputs: 1 };
        let Ok(Some(sums)) = crate::ops::resize_sums(node.operator.name, &call, &input) else { return Ok(None) };
        let [planes @ .., h, w] = &input[..] else { return Ok(None) };
        if sums.iter().any(|(at, _)| *at < planes.len()) {
            return Ok(None);
        }
        let rate = |at: usize, len: usize| -> Rate {
            match sums.iter().find(|(i, _)| *i == at) {
                Some((_, sums)) => {
                    let narrow = |sum: &Vec<(usize, f64)>| {
                        sum.iter().filter(|(_, w)| *w != 0.0).map(|&(i, w)| (i, w as f32)).collect()
                    };
                    sums.iter().map(narrow).collect()
                }
                None => (0..len).map(|i| vec![(i, 1.0)]).collect(),
            }
        };
        let rates = [rate(planes.len(), *h), rate(planes.len() + 1, *w)];
        // Whole factors of the nearest element.
        if let (4, Some(v), Some(u)) = (input.len(), whole(&rates[0], *h), whole(&rates[1], *w)) {
            return self.push(graph_ops::Interpolate::nearest([v, u]), &[x]).map(Some);
        }
        // PyTorch's bilinear sums, in whatever words they were asked for.
        let size = [rates[0].len(), rates[1].len()];
        let is_bilinear = |align: bool| is_bilinear(&rates[0], *h, align) && is_bilinear(&rates[1], *w, align);
        if let (4, Some(align_corners)) = (input.len(), [false, true].into_iter().find(|&align| is_bilinear(align))) {
            let filter = Filter::Bilinear { align_corners };
            return self.push(graph_ops::Interpolate { size: Size::To(size), filter }, &[x]).map(Some);
        }
        let from = [*h, *w];
        let input = self.builder.fact(x).expect("facts are known at import").clone();
        self.push(Resample { input, output, from, rates }, &[x]).map(Some)
    }
}

/// The factor, if each element is repeated so often.
fn whole(rate: &Rate, len: usize) -> Option<usize> {
    if len == 0 || !rate.len().is_multiple_of(len) {
        return None;
    }
    let factor = rate.len() / len;
    rate.iter().enumerate().all(|(o, taps)| taps[..] == [(o / factor, 1.0)]).then_some(factor)
}

/// Whether each element lies between its two neighbours among `len`, as PyTorch places it.
fn is_bilinear(rate: &Rate, len: usize, align_corners: bool) -> bool {
    let (last, end) = ((len - 1) as f64, (rate.len() - 1) as f64);
    let place = |o: usize| match align_corners {
        true if end == 0.0 => 0.0,
        true => o as f64 * last / end,
        false => ((o as f64 + 0.5) * len as f64 / rate.len() as f64 - 0.5).clamp(0.0, last),
    };
    rate.iter().enumerate().all(|(o, taps)| {
        let sum: f64 = taps.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let center: f64 = taps.iter().map(|&(i, weight)| i as f64 * f64::from(weight)).sum();
        let near = taps.iter().all(|&(i, _)| (i as f64 - place(o)).abs() < 1.0 + 1e-6);
        near && taps.len() <= 2 && (sum - 1.0).abs() < 1e-6 && (center - place(o)).abs() < 1e-6 * (1.0 + last)
    })
}

/// The rows of a matrix `[k, n]` as columns.
fn turned(matrix: &[f32], [k, n]: [usize; 2]) -> Result<Vec<f32>> {
    let mut turned = buffer::floats(matrix.len())?;
    for (i, row) in matrix.chunks_exact(n).enumerate() {
        row.iter().enumerate().for_each(|(j, v)| turned[j * k + i] = *v);
    }
    Ok(turned)
}

fn call(node: &Node) -> Call<'_> {
    Call { opset: node.opset, attributes: &node.attributes, inputs: &[], outputs: 1 }
}

fn axis(node: &Node, rank: usize, default: i64) -> Option<usize> {
    let at = call(node).int("axis", default).ok()?;
    usize::try_from(if at < 0 { at + rank as i64 } else { at }).ok().filter(|&at| at < rank)
}

/// The inputs behind the first, if all of them are constants.
fn constants_behind(node: &Node) -> Option<Vec<Option<&Array>>> {
    fn constant(operand: &Operand) -> Option<Option<&Array>> {
        match operand {
            Operand::Absent => Some(None),
            Operand::Constant(array) => Some(Some(array)),
            Operand::Value(_) => None,
        }
    }
    node.inputs[1..].iter().map(constant).collect()
}

fn padding(v: &crate::ops::Axis, h: &crate::ops::Axis) -> Padding {
    Padding { top: v.pads[0], left: h.pads[0], bottom: v.pads[1], right: h.pads[1] }
}

/// The activation that an operator is.
fn activation(node: &Node) -> Option<Activation> {
    let call = call(node);
    let float = |name: &str, default: f32| call.float(name, default).ok();
    let close = |a: f32, b: f32| (a - b).abs() < 1e-6;
    Some(match node.operator.name {
        "Relu" => Activation::Relu,
        "Sigmoid" => Activation::Sigmoid,
        "Tanh" => Activation::Tanh,
        "HardSwish" => Activation::HardSwish,
        "swath.HardSwishAffine" => {
            Activation::HardSwishAffine { scale: float("scale", 1.0)?, shift: float("shift", 0.0)? }
        }
        "Mish" => Activation::Mish,
        "Softplus" => Activation::Softplus { beta: 1.0, threshold: 20.0 },
        "LeakyRelu" => Activation::LeakyRelu { slope: float("alpha", 0.01)? },
        "Elu" => Activation::Elu { alpha: float("alpha", 1.0)? },
        "Celu" => Activation::Celu { alpha: float("alpha", 1.0)? },
        "Swish" if float("alpha", 1.0)? == 1.0 => Activation::Silu,
        "Gelu" => match call.text("approximate", "none").ok()? {
            "none" => Activation::Gelu,
            _ => Activation::GeluTanh,
        },
        "Selu" if close(float("alpha", 1.673_263_2)?, 1.673_263_2) && close(float("gamma", 1.050_701)?, 1.050_701) => {
            Activation::Selu
        }
        "HardSigmoid" if close(float("alpha", 0.2)?, 1.0 / 6.0) && float("beta", 0.5)? == 0.5 => {
            Activation::HardSigmoid
        }
        "Clip" => {
            let [lo, hi] = bounds(node)?;
            Activation::Clip { lo, hi }
        }
        _ => return None,
    })
}

/// The activation in a FusedConv.
fn fused_activation(node: &Node) -> Option<Activation> {
    let call = call(node);
    let values = call.floats("activation_params").ok()?.unwrap_or_default();
    Some(match call.text("activation", "").ok()? {
        "" => Activation::Identity,
        "Relu" => Activation::Relu,
        "Tanh" => Activation::Tanh,
        "Sigmoid" => Activation::Sigmoid,
        "LeakyRelu" => Activation::LeakyRelu { slope: values.first().copied().unwrap_or(0.01) },
        "Clip" => Activation::Clip { lo: *values.first()?, hi: *values.get(1)? },
        _ => return None,
    })
}
