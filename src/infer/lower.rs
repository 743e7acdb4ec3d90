//! Lowering: groups of operators become steps on buffers, with a layout for each.
//!
//! Convolutions write blocked activations, and whatever follows keeps the layout it gets, so a model stays blocked from
//! its first convolution to its last. A reorder is inserted only where an operator needs another layout: before Flatten
//! (NCHW is PyTorch's order of features; Linear takes reordered weights instead, if the channels fill their blocks),
//! before softmax over the channels of images (NHWC), before convolutions
//! of many channels that would read NCHW, for the second operand of a sum, and at the output.

use std::borrow::Cow;

use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout};

use super::SessionOptions;
use super::fuse::{Group, fuse, without_dropout};
use crate::conv::Options;
use crate::error::{Error, Result};
use crate::graph::batch_norm::{BatchNormOp, Normalize};
use crate::graph::conv::{ConvForward, ConvOp, Fused, four};
use crate::graph::conv_transpose::ConvTransposeOp;
use crate::graph::forward::{Forward, Reorder, level};
use crate::graph::linear::LinearOp;
use crate::graph::{Activate, AddInto, ConcatChannels, Graph, NodeId, Op, ParameterId, Parameters, SoftmaxRows};
use crate::tensor::{extents4, stored_len};

/// Index of a buffer; buffer 0 is the input.
pub(crate) type BufferId = usize;

/// One step: what runs, on which buffers, and what the user should know of it.
pub(crate) struct Step {
    pub(crate) forward: Box<dyn Forward>,
    pub(crate) inputs: Vec<BufferId>,
    pub(crate) output: BufferId,
    pub(crate) scratch: usize,
    pub(crate) layer: String,
    pub(crate) dims: Vec<usize>,
    pub(crate) layout: Layout,
}

/// A graph as steps. Buffers are not yet places in memory.
pub(crate) struct Lowered {
    pub(crate) steps: Vec<Step>,
    /// Floats in each buffer.
    pub(crate) lens: Vec<usize>,
    /// The buffer that is the result; never the input.
    pub(crate) output: BufferId,
    pub(crate) output_dims: Vec<usize>,
    pub(crate) output_layout: Layout,
}

/// Where a value lies, in one layout.
#[derive(Clone, Copy)]
struct Place {
    buffer: BufferId,
    layout: Layout,
}

struct Lowering<'a> {
    graph: &'a Graph,
    parameters: &'a Parameters,
    level: Level,
    conv: Options,
    /// Extents of every value.
    dims: Vec<Vec<usize>>,
    /// Places of every value; the first is where it was computed.
    places: Vec<Vec<Place>>,
    steps: Vec<Step>,
    lens: Vec<usize>,
}

/// Lowers a graph for an input of the given extents.
pub(crate) fn lower(
    graph: &Graph,
    parameters: &Parameters,
    input: &[usize],
    options: &SessionOptions,
) -> Result<Lowered> {
    let input_len = stored_len(input, options.input)?;
    if input.len() < 2 || input[1..].contains(&0) {
        let takes = "[n, c, h, w] or [n, features], of which only n may be 0";
        return Err(Error::Rank { what: "a model", takes, gets: input.to_vec() });
    }
    let graph = &without_dropout(graph);
    let mut l = Lowering {
        graph,
        parameters,
        level: level(options.level)?,
        conv: Options {
            level: options.level,
            accuracy: options.accuracy,
            tuning: options.tuning.clone(),
            ..Options::blocked()
        },
        dims: graph.infer(input)?,
        places: vec![Vec::new(); graph.nodes.len()],
        steps: Vec::new(),
        lens: vec![input_len],
    };
    l.places[0].push(Place { buffer: 0, layout: options.input });
    for group in fuse(graph) {
        l.group(&group).map_err(|e| e.in_layer(&graph.nodes[group.node].layer))?;
    }
    let output_dims = l.dims[graph.output].clone();
    let output_layout = if output_dims.len() == 4 { options.output } else { Layout::Nchw };
    let output = l.output(output_layout)?;
    Ok(Lowered { steps: l.steps, lens: l.lens, output, output_dims, output_layout })
}

impl Lowering<'_> {
    fn extents(&self, value: NodeId) -> [usize; 4] {
        extents4(&self.dims[value])
    }

    /// Where a value was computed. Flatten is a view, of NCHW, that is made here when something asks for it.
    fn native(&mut self, value: NodeId) -> Result<Place> {
        if let (Op::Flatten(_), []) = (&self.graph.nodes[value].op, &self.places[value][..]) {
            let buffer = self.want(self.graph.nodes[value].inputs[0], Layout::Nchw)?;
            self.places[value].push(Place { buffer, layout: Layout::Nchw });
        }
        Ok(self.places[value][0])
    }

    /// The buffer that has a value in a layout; inserts a reorder if there is none yet.
    fn want(&mut self, value: NodeId, layout: Layout) -> Result<BufferId> {
        let from = self.native(value)?;
        let extents = self.extents(value);
        if let Some(p) = self.places[value].iter().find(|p| same_order(p.layout, layout, extents)) {
            return Ok(p.buffer);
        }
        let reorder = Reorder { from: from.layout, to: layout, dims: extents };
        self.step(value, value, layout, Box::new(reorder), vec![from.buffer], 0)
    }

    /// Appends a step that computes `value` in `layout`, on behalf of `node`.
    fn step(
        &mut self,
        node: NodeId,
        value: NodeId,
        layout: Layout,
        forward: Box<dyn Forward>,
        inputs: Vec<BufferId>,
        scratch: usize,
    ) -> Result<BufferId> {
        let output = self.anonymous(node, self.dims[value].clone(), layout, forward, inputs, scratch)?;
        self.places[value].push(Place { buffer: output, layout });
        Ok(output)
    }

    /// Appends a step whose result is no value of the graph.
    fn anonymous(
        &mut self,
        node: NodeId,
        dims: Vec<usize>,
        layout: Layout,
        forward: Box<dyn Forward>,
        inputs: Vec<BufferId>,
        scratch: usize,
    ) -> Result<BufferId> {
        let output = self.lens.len();
        self.lens.push(stored_len(&dims, layout)?);
        let layer = self.graph.nodes[node].layer.clone();
        self.steps.push(Step { forward, inputs, output, scratch, layer, dims, layout });
        Ok(output)
    }

    /// Lowers one group of fused operators.
    fn group(&mut self, group: &Group) -> Result<()> {
        let node = &self.graph.nodes[group.node];
        let x = node.inputs[0];
        match &node.op {
            Op::Conv2d(op) => self.conv(group, op, x),
            Op::ConvTranspose2d(op) => self.conv_transpose(group, op, x),
            Op::Linear(op) => self.linear(group, op, x),
            Op::BatchNorm2d(op) => self.batch_norm(group, op, x),
            Op::Add(_) => self.add(group, x, node.inputs[1]),
            Op::Concat(_) => self.concat(group, &node.inputs),
            Op::Softmax(op) => self.softmax(group, *op, x),
            // A view, made when it is asked for.
            Op::Input | Op::Flatten(_) => Ok(()),
            op => self.simple(group, op, x),
        }
    }

    /// Operators that keep whatever layout they get.
    fn simple(&mut self, group: &Group, op: &Op, x: NodeId) -> Result<()> {
        let Place { buffer, layout } = self.native(x)?;
        let dims = &self.dims[x];
        let forward: Box<dyn Forward> = match op {
            Op::MaxPool2d(op) => Box::new(op.forward(dims, layout, self.level)?),
            Op::AvgPool2d(op) => Box::new(op.forward(dims, layout, self.level)?),
            Op::AdaptiveAvgPool2d(op) => Box::new(op.forward(dims, layout, self.level)?),
            Op::Pad(op) => Box::new(op.forward(four("Pad", dims)?, layout)),
            Op::Crop(op) => Box::new(op.forward(four("Crop", dims)?, layout)?),
            Op::Upsample(op) => Box::new(op.forward(four("Upsample", dims)?, layout)),
            Op::Activation(activation) => {
                Box::new(Activate { activation: *activation, layout, dims: extents4(dims), level: self.level })
            }
            _ => unreachable!("{} has a lowering of its own", op.name()),
        };
        self.step(group.node, group.value, layout, forward, vec![buffer], 0)?;
        Ok(())
    }

    /// Input layouts: as it comes if it has few channels (the stem reads NCHW), else blocked.
    fn conv(&mut self, group: &Group, op: &ConvOp, x: NodeId) -> Result<()> {
        let shape = op.shape(&self.dims[x])?;
        let native = self.native(x)?.layout;
        let input = if shape.ic < BLOCK { native } else { Layout::Blocked };
        let mut inputs = vec![self.want(x, input)?];
        if let Some(r) = group.residual {
            inputs.push(self.want(r, Layout::Blocked)?);
        }
        let options = Options { input, ..self.conv.clone() };
        let (weights, bias) = self.folded(group, op.weight, op.bias, op.weights[1..].iter().product());
        let forward = ConvForward::new(&shape, &options, &weights, fused(bias.as_deref(), group))?;
        let scratch = forward.scratch_len();
        self.step(group.node, group.value, Layout::Blocked, Box::new(forward), inputs, scratch)?;
        Ok(())
    }

    /// A 1x1 convolution and a copy; see [`crate::graph::conv_transpose`].
    fn conv_transpose(&mut self, group: &Group, op: &ConvTransposeOp, x: NodeId) -> Result<()> {
        let shape = op.shape(&self.dims[x])?;
        let native = self.native(x)?.layout;
        let input = if shape.ic < BLOCK { native } else { Layout::Blocked };
        let inputs = vec![self.want(x, input)?];
        let options = Options { input, ..self.conv.clone() };
        let (weights, bias) = self.folded(group, op.weight, op.bias, op.kernel.iter().product());
        let (weights, bias) = op.pointwise(&weights, bias.as_deref());
        let forward = ConvForward::new(&shape, &options, &weights, fused(bias.as_deref(), group))?;
        let scratch = forward.scratch_len();
        let dims = shape.output().to_vec();
        let pixels = self.anonymous(group.node, dims, Layout::Blocked, Box::new(forward), inputs, scratch)?;
        let spread = op.spread(self.extents(x), self.extents(group.node));
        self.step(group.node, group.value, Layout::Blocked, Box::new(spread), vec![pixels], 0)?;
        Ok(())
    }

    /// A batch normalisation that no convolution took along.
    fn batch_norm(&mut self, group: &Group, op: &BatchNormOp, x: NodeId) -> Result<()> {
        let Place { buffer, layout } = self.native(x)?;
        let affine = op.affine(self.parameters);
        let step = Normalize::new(&affine, group.activation, layout, self.extents(x), self.level);
        self.step(group.node, group.value, layout, Box::new(step), vec![buffer], 0)?;
        Ok(())
    }

    /// Weights and bias of a convolution, with the batch normalisation behind it folded in. Element `i` of the weights
    /// belongs to output channel `i / taps` modulo their number.
    fn folded(
        &self,
        group: &Group,
        weight: ParameterId,
        bias: Option<ParameterId>,
        taps: usize,
    ) -> (Cow<'_, [f32]>, Option<Cow<'_, [f32]>>) {
        let weights = self.parameters[weight].as_slice();
        let bias = bias.map(|b| self.parameters[b].as_slice());
        match group.norm.map(|norm| &self.graph.nodes[norm].op) {
            Some(Op::BatchNorm2d(norm)) => {
                let (weights, bias) = norm.affine(self.parameters).fold(weights, bias, taps);
                (weights.into(), Some(bias.into()))
            }
            _ => (weights.into(), bias.map(Cow::from)),
        }
    }

    fn linear(&mut self, group: &Group, op: &LinearOp, x: NodeId) -> Result<()> {
        let mut weights = Cow::from(self.parameters[op.weight].as_slice());
        let image = self.flattened(x)?;
        let mut inputs = vec![match image {
            Some((image, place)) => {
                weights = op.weights_for(place.layout, self.extents(image), &weights).into();
                place.buffer
            }
            None => self.want(x, Layout::Nchw)?,
        }];
        if let Some(r) = group.residual {
            inputs.push(self.want(r, Layout::Nchw)?);
        }
        let bias = op.bias.map(|b| self.parameters[b].as_slice());
        let forward = op.forward(self.dims[x][0], &self.conv, &weights, fused(bias, group))?;
        let scratch = forward.scratch_len();
        self.step(group.node, group.value, Layout::Nchw, Box::new(forward), inputs, scratch)?;
        Ok(())
    }

    /// The image that a value is the flattened form of, and where it lies, if it lies without padding in another order
    /// than NCHW.
    fn flattened(&mut self, value: NodeId) -> Result<Option<(NodeId, Place)>> {
        let node = &self.graph.nodes[value];
        if !matches!(node.op, Op::Flatten(_)) || !self.places[value].is_empty() {
            return Ok(None);
        }
        let image = node.inputs[0];
        let (place, extents) = (self.native(image)?, self.extents(image));
        let padded = place.layout == Layout::Blocked && !extents[1].is_multiple_of(BLOCK);
        let four = self.dims[image].len() == 4;
        Ok((four && !padded && !same_order(place.layout, Layout::Nchw, extents)).then_some((image, place)))
    }

    /// Both operands in one layout, blocked if either is.
    fn add(&mut self, group: &Group, a: NodeId, b: NodeId) -> Result<()> {
        let (la, lb) = (self.native(a)?.layout, self.native(b)?.layout);
        let layout = if la == Layout::Blocked { la } else { lb };
        let inputs = vec![self.want(a, layout)?, self.want(b, layout)?];
        self.step(group.node, group.value, layout, Box::new(AddInto), inputs, 0)?;
        Ok(())
    }

    /// Parts are read as they lie; the result is blocked if any of them is.
    fn concat(&mut self, group: &Group, values: &[NodeId]) -> Result<()> {
        let places = values.iter().map(|&v| self.native(v)).collect::<Result<Vec<Place>>>()?;
        let parts: Vec<_> = places.iter().zip(values).map(|(p, &v)| (p.layout, self.extents(v))).collect();
        let blocked = places.iter().any(|p| p.layout == Layout::Blocked);
        let layout = if blocked { Layout::Blocked } else { places[0].layout };
        let inputs = places.iter().map(|p| p.buffer).collect();
        self.step(group.node, group.value, layout, Box::new(ConcatChannels::new(&parts, layout)), inputs, 0)?;
        Ok(())
    }

    /// Rows of contiguous channels: `[n, c]` is, and so is NHWC.
    fn softmax(&mut self, group: &Group, op: crate::graph::Softmax, x: NodeId) -> Result<()> {
        let [n, cols, h, w] = self.extents(x);
        let layout = if self.dims[x].len() == 4 { Layout::Nhwc } else { Layout::Nchw };
        let inputs = vec![self.want(x, layout)?];
        let forward = SoftmaxRows { op, rows: n * h * w, cols, level: self.level };
        self.step(group.node, group.value, layout, Box::new(forward), inputs, 0)?;
        Ok(())
    }

    /// The buffer of the result, which must not be the caller's input.
    fn output(&mut self, layout: Layout) -> Result<BufferId> {
        let value = self.graph.output;
        let buffer = self.want(value, layout)?;
        if buffer != 0 {
            return Ok(buffer);
        }
        let copy = Reorder { from: layout, to: layout, dims: self.extents(value) };
        self.step(value, value, layout, Box::new(copy), vec![0], 0)
    }
}

/// What a group applies to its convolution's output.
fn fused<'a>(bias: Option<&'a [f32]>, group: &Group) -> Fused<'a> {
    Fused { bias, residual: group.residual.is_some(), activation: group.activation }
}

/// Whether two layouts put the elements of a tensor into the same places.
fn same_order(a: Layout, b: Layout, [_, c, h, w]: [usize; 4]) -> bool {
    let one_pixel = h * w == 1;
    match (a, b) {
        _ if a == b => true,
        (Layout::Blocked, Layout::Nchw) | (Layout::Nchw, Layout::Blocked) => one_pixel && c.is_multiple_of(BLOCK),
        (Layout::Blocked, _) | (_, Layout::Blocked) => c == BLOCK || one_pixel && c.is_multiple_of(BLOCK),
        _ => one_pixel || c == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swath_kernels::layout::reorder;

    #[test]
    fn layouts_of_the_same_order_are_told_by_moving_data() {
        for dims in [[2, 16, 1, 1], [2, 17, 1, 1], [2, 32, 1, 1], [2, 1, 3, 2], [2, 16, 3, 2], [2, 5, 3, 2]] {
            let x: Vec<f32> = (0..Layout::Nchw.len(dims)).map(|i| i as f32 + 1.0).collect();
            let all = Layout::ALL.map(|l| {
                let mut y = vec![0.0; l.len(dims)];
                reorder(Layout::Nchw, &x, l, &mut y, dims);
                y
            });
            for (i, a) in Layout::ALL.into_iter().enumerate() {
                for (j, b) in Layout::ALL.into_iter().enumerate() {
                    assert_eq!(same_order(a, b, dims), all[i] == all[j], "{a:?} {b:?} {dims:?}");
                }
            }
        }
    }
}
