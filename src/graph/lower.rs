//! Lowering: operators become steps on buffers, with a layout for each value.
//!
//! [`Lower`] is what an operator's lowering may ask for: where values lie, in which layouts, what is constant, and the list of steps that it
//! appends to. Convolutions write blocked activations, and whatever follows keeps the layout it gets, so a model stays blocked from
//! its first convolution to its last. A reorder is inserted only where an operator [wants](Lower::want) another layout.

use std::sync::Arc;

use swath_kernels::epilogue::Activation;
use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout};

use super::affine::Affine;
use super::packed::{self, NameContents, Ready, ReadyKey, ReadyWeights};
use super::step::{Reorder, Step};
use super::{ElementType, Fact, Graph, NodeId, Parameters, Source, ValueId};
#[cfg(feature = "onnx")]
use crate::conv::ConvPlan;
use crate::conv::{Options, WeightsKey};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Index of a buffer.
pub(crate) type BufferId = usize;

/// What an operator takes along when it stores its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absorbs {
    /// A scale and a shift of each channel, into its weights and bias.
    pub affine: bool,
    /// The addition of another value.
    pub residual: bool,
    /// An activation.
    pub activation: bool,
}

impl Absorbs {
    /// Nothing.
    pub const NONE: Absorbs = Absorbs { affine: false, residual: false, activation: false };
    /// An activation only.
    pub const ACTIVATION: Absorbs = Absorbs { activation: true, ..Absorbs::NONE };
}

/// Nodes that run as one operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The operator.
    pub(crate) node: NodeId,
    /// The normalisation behind it that it absorbs.
    pub(crate) norm: Option<NodeId>,
    /// The value that the group computes.
    pub(crate) value: ValueId,
    pub(crate) residual: Option<ValueId>,
    pub(crate) activation: Activation,
}

impl Group {
    /// Of a node alone.
    pub(crate) fn single(node: NodeId) -> Self {
        Self { node, norm: None, value: ValueId::of(node), residual: None, activation: Activation::Identity }
    }
}

/// What is applied to a result before it is stored.
#[derive(Clone, Debug)]
pub struct Fused {
    /// The absorbed normalisation.
    pub affine: Option<Affine>,
    /// Whether the last operand is added.
    pub residual: bool,
    /// The activation.
    pub activation: Activation,
}

/// One step: what runs, on which buffers, and what the user should know of it.
pub(crate) struct Planned {
    pub(crate) step: Box<dyn Step>,
    pub(crate) inputs: Vec<BufferId>,
    pub(crate) outputs: Vec<BufferId>,
    /// What the words of each result are.
    pub(crate) elements: Vec<ElementType>,
    pub(crate) scratch: usize,
    pub(crate) layer: String,
    /// Floating-point operations of a run, where they are an operator's.
    pub(crate) flop: u64,
    pub(crate) dims: Vec<usize>,
    pub(crate) layout: Layout,
}

/// Where a buffer's contents come from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// Input of the graph, by number.
    Input(usize),
    /// Known now.
    Constant(Tensor),
    /// Computed by a step.
    Step,
}

/// Where a value lies, in one layout.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The buffer.
    pub(crate) buffer: BufferId,
    /// The layout of images, for values of four extents.
    pub layout: Layout,
}

/// A graph on its way to steps.
pub struct Lower<'a> {
    pub(crate) graph: Graph,
    pub(crate) parameters: &'a Parameters,
    pub(crate) level: Level,
    pub(crate) conv: Options,
    /// Weights that were packed for this graph and these parameters.
    ready: &'a ReadyWeights,
    /// Facts of every result of every node.
    pub(crate) facts: Vec<Vec<Fact>>,
    /// Places of every result of every node; the first is where it was computed.
    places: Vec<Vec<Vec<Place>>>,
    pub(crate) steps: Vec<Planned>,
    /// Words of four bytes in each buffer, and where they come from.
    pub(crate) buffers: Vec<(usize, Origin)>,
}

impl<'a> Lower<'a> {
    pub(crate) fn new(
        graph: Graph,
        parameters: &'a Parameters,
        facts: Vec<Vec<Fact>>,
        level: Level,
        conv: Options,
        ready: &'a ReadyWeights,
    ) -> Self {
        let places = graph.nodes.iter().map(|node| vec![Vec::new(); node.results()]).collect();
        Self { graph, parameters, level, conv, ready, facts, places, steps: Vec::new(), buffers: Vec::new() }
    }

    /// The level that kernels are taken from.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Input `i` of a group's operator.
    pub(crate) fn input(&self, group: &Group, i: usize) -> ValueId {
        self.graph.nodes[group.node].inputs[i]
    }

    /// All inputs of a group's operator.
    pub fn inputs(&self, group: &Group) -> Vec<ValueId> {
        self.graph.nodes[group.node].inputs.clone()
    }

    /// Facts of a value.
    pub fn fact(&self, v: ValueId) -> &Fact {
        &self.facts[v.node][v.slot]
    }

    /// Facts of a group's operator's result.
    pub fn result(&self, group: &Group) -> &Fact {
        self.fact(ValueId::of(group.node))
    }

    /// Extents of a value as `[n, c, h, w]`: with ones behind fewer, and those behind the second multiplied where there are more.
    pub fn extents(&self, v: ValueId) -> [usize; 4] {
        extents(&self.fact(v).dims)
    }

    /// The value of a parameter or constant, where it is fixed when the graph is compiled.
    pub fn constant(&self, v: ValueId) -> Option<&Tensor> {
        match &self.graph.nodes[v.node].source {
            Source::Parameter(p) => Some(&self.parameters[*p]),
            Source::Constant(t) => Some(t),
            _ => None,
        }
    }

    /// What a group applies to its operator's result.
    pub(crate) fn fused(&self, group: &Group) -> Fused {
        let affine = group.norm.map(|norm| {
            let node = &self.graph.nodes[norm];
            let constants: Vec<Option<&Tensor>> = node.inputs.iter().map(|&v| self.constant(v)).collect();
            let op = node.operator().expect("a normalisation is an operator");
            op.as_affine(&constants).expect("what was fused is affine")
        });
        Fused { affine, residual: group.residual.is_some(), activation: group.activation }
    }

    /// The packed weights of a group, whose operator's are constant; `image` is the order of a flattened image that they are for.
    /// They are packed now, or were for another session.
    pub(crate) fn ready(
        &self,
        group: &Group,
        image: Option<(Layout, [usize; 4])>,
        weights: WeightsKey,
        pack: impl FnOnce() -> Result<Ready>,
    ) -> Result<Arc<Ready>> {
        let source = match self.ready.by_contents {
            None => packed::Source::Node(group.node, group.norm),
            Some(name) => packed::Source::Contents(self.contents(group, name)),
        };
        self.ready.get(&ReadyKey { source, image, weights }, pack)
    }

    /// As [`Lower::ready`], for the packed form of `matrix`, which is one of several of a group's operator.
    #[cfg(feature = "onnx")]
    pub(crate) fn ready_part(
        &self,
        group: &Group,
        number: usize,
        matrix: &[f32],
        plan: &ConvPlan,
    ) -> Result<Arc<Ready>> {
        let source = match self.ready.by_contents {
            None => packed::Source::Part(group.node, number),
            Some(name) => packed::Source::Contents(name(&mut std::iter::once(bytemuck::cast_slice(matrix)))),
        };
        let key = ReadyKey { source, image: None, weights: plan.weights_key() };
        self.ready.get(&key, || Ok(Ready { weights: plan.pack(matrix)?, bias: None }))
    }

    /// A name of what a group's packed weights follow from: its operator's kind and constants, and the normalisation that it absorbs.
    fn contents(&self, group: &Group, name: NameContents) -> u128 {
        let node = &self.graph.nodes[group.node];
        let operator = node.operator().map_or("", |op| op.name());
        let constants: Vec<&Tensor> = node.inputs.iter().filter_map(|&v| self.constant(v)).collect();
        let affine = self.fused(group).affine;
        let mut pieces = std::iter::once(operator.as_bytes())
            .chain(constants.iter().flat_map(|t| [bytemuck::cast_slice(t.dims()), bytemuck::cast_slice(t.as_slice())]))
            .chain(affine.iter().flat_map(|a| a.parts().map(bytemuck::cast_slice)));
        name(&mut pieces)
    }

    /// A buffer for a value in a layout.
    fn buffer(&mut self, fact: &Fact, layout: Layout, origin: Origin) -> Result<BufferId> {
        self.buffers.push((words(fact, layout)?, origin));
        Ok(self.buffers.len() - 1)
    }

    /// Says that a value is an input of the graph, and its layout.
    pub(crate) fn bind_input(&mut self, v: ValueId, number: usize, layout: Layout) -> Result<()> {
        let buffer = self.buffer(&self.fact(v).clone(), layout, Origin::Input(number))?;
        self.places[v.node][v.slot].push(Place { buffer, layout });
        Ok(())
    }

    /// Where a value was computed. A constant gets a buffer, and Flatten is made a view of NCHW, when something asks for it.
    ///
    /// # Errors
    /// If memory does not suffice.
    pub fn native(&mut self, v: ValueId) -> Result<Place> {
        if let Some(place) = self.places[v.node][v.slot].first() {
            return Ok(*place);
        }
        let node = &self.graph.nodes[v.node];
        let place = match self.constant(v) {
            Some(constant) => {
                let buffer =
                    self.buffer(&self.fact(v).clone(), Layout::Nchw, Origin::Constant(constant.try_clone()?))?;
                Place { buffer, layout: Layout::Nchw }
            }
            None => {
                assert!(node.operator().is_some_and(|op| op.is_flatten()), "values are computed before they are used");
                Place { buffer: self.want(node.inputs[0], Layout::Nchw)?, layout: Layout::Nchw }
            }
        };
        self.places[v.node][v.slot].push(place);
        Ok(place)
    }

    /// The buffer that has a value in a layout; inserts a reorder if there is none yet.
    ///
    /// # Errors
    /// If memory does not suffice.
    pub fn want(&mut self, v: ValueId, layout: Layout) -> Result<BufferId> {
        let from = self.native(v)?;
        let extents = self.extents(v);
        if let Some(p) = self.places[v.node][v.slot].iter().find(|p| same_order(p.layout, layout, extents)) {
            return Ok(p.buffer);
        }
        let fact = self.fact(v).clone();
        if let Origin::Constant(constant) = &self.buffers[from.buffer].1
            && from.layout == Layout::Nchw
        {
            // Constants change their layout now.
            let four = constant.try_clone()?.reshape(extents)?.to_layout(layout)?;
            let buffer = self.buffer(&Fact::f32(extents), layout, Origin::Constant(four))?;
            self.places[v.node][v.slot].push(Place { buffer, layout });
            return Ok(buffer);
        }
        let reorder = Reorder { from: from.layout, to: layout, dims: extents };
        let layer = self.graph.nodes[v.node].layer.clone();
        let buffer = self.anonymous(&layer, &fact, layout, Box::new(reorder), vec![from.buffer], 0)?;
        self.places[v.node][v.slot].push(Place { buffer, layout });
        Ok(buffer)
    }

    /// Says that a value lies in a buffer that has another value already, as a view of it does.
    pub fn alias(&mut self, v: ValueId, buffer: BufferId, layout: Layout) {
        self.places[v.node][v.slot].push(Place { buffer, layout });
    }

    /// Appends the step that computes a group's value in a layout.
    ///
    /// # Errors
    /// If sizes overflow.
    pub fn step(
        &mut self,
        group: &Group,
        layout: Layout,
        step: Box<dyn Step>,
        inputs: Vec<BufferId>,
        scratch: usize,
    ) -> Result<()> {
        let dims = self.fact(group.value).dims.clone();
        let buffer = self.work_ahead(group, &dims, layout, step, inputs, scratch)?;
        self.alias(group.value, buffer, layout);
        Ok(())
    }

    /// Appends the step that does the work of a group, whose result has other extents than its value.
    ///
    /// # Errors
    /// If sizes overflow.
    pub(crate) fn work_ahead(
        &mut self,
        group: &Group,
        dims: &[usize],
        layout: Layout,
        step: Box<dyn Step>,
        inputs: Vec<BufferId>,
        scratch: usize,
    ) -> Result<BufferId> {
        let layer = self.graph.nodes[group.node].layer.clone();
        let fact = Fact { dims: dims.to_vec(), ..self.fact(group.value).clone() };
        let buffer = self.anonymous(&layer, &fact, layout, step, inputs, scratch)?;
        self.steps.last_mut().expect("the step that was just appended").flop = self.flop(group);
        Ok(buffer)
    }

    /// Appends the step that makes a group's value of the result of the [work](Lower::work_ahead).
    ///
    /// # Errors
    /// If sizes overflow.
    pub(crate) fn rest(
        &mut self,
        group: &Group,
        layout: Layout,
        step: Box<dyn Step>,
        inputs: Vec<BufferId>,
    ) -> Result<()> {
        let layer = self.graph.nodes[group.node].layer.clone();
        let fact = self.fact(group.value).clone();
        let buffer = self.anonymous(&layer, &fact, layout, step, inputs, 0)?;
        self.alias(group.value, buffer, layout);
        Ok(())
    }

    /// Floating-point operations of a group's operator.
    fn flop(&self, group: &Group) -> u64 {
        let node = &self.graph.nodes[group.node];
        let facts: Vec<&Fact> = node.inputs.iter().map(|&v| self.fact(v)).collect();
        node.operator().map_or(0, |op| op.work(&facts).macs.saturating_mul(2))
    }

    /// Appends the step that computes all results of a group's operator, each in a layout.
    ///
    /// # Errors
    /// If sizes overflow.
    pub fn step_all(
        &mut self,
        group: &Group,
        layouts: &[Layout],
        step: Box<dyn Step>,
        inputs: Vec<BufferId>,
        scratch: usize,
    ) -> Result<()> {
        let facts = self.facts[group.node].clone();
        let mut outputs = Vec::with_capacity(facts.len());
        for (slot, (fact, &layout)) in facts.iter().zip(layouts).enumerate() {
            let buffer = self.buffer(fact, layout, Origin::Step)?;
            self.places[group.node][slot].push(Place { buffer, layout });
            outputs.push(buffer);
        }
        let layer = self.graph.nodes[group.node].layer.clone();
        let elements = facts.iter().map(|fact| fact.element).collect();
        let (dims, layout, flop) = (facts[0].dims.clone(), layouts[0], self.flop(group));
        self.steps.push(Planned { step, inputs, outputs, elements, scratch, layer, flop, dims, layout });
        Ok(())
    }

    /// Appends a step whose result is no value of the graph.
    pub(crate) fn anonymous(
        &mut self,
        layer: &str,
        fact: &Fact,
        layout: Layout,
        step: Box<dyn Step>,
        inputs: Vec<BufferId>,
        scratch: usize,
    ) -> Result<BufferId> {
        let output = self.buffer(fact, layout, Origin::Step)?;
        let (layer, dims) = (layer.to_string(), fact.dims.clone());
        let (outputs, elements) = (vec![output], vec![fact.element]);
        self.steps.push(Planned { step, inputs, outputs, elements, scratch, layer, flop: 0, dims, layout });
        Ok(output)
    }

    /// The image that a value is the flattened form of, and where it lies, if it lies without padding in another order
    /// than NCHW.
    pub(crate) fn flattened(&mut self, v: ValueId) -> Result<Option<(ValueId, Place)>> {
        let node = &self.graph.nodes[v.node];
        if !node.operator().is_some_and(|op| op.is_flatten()) || !self.places[v.node][v.slot].is_empty() {
            return Ok(None);
        }
        let image = node.inputs[0];
        let (place, extents) = (self.native(image)?, self.extents(image));
        let padded = place.layout == Layout::Blocked && !extents[1].is_multiple_of(BLOCK);
        let four = self.fact(image).dims.len() == 4;
        Ok((four && !padded && !same_order(place.layout, Layout::Nchw, extents)).then_some((image, place)))
    }

    /// The buffer of a result of the graph, which must be neither an input's nor a constant's nor another result's.
    pub(crate) fn output(&mut self, v: ValueId, layout: Layout, taken: &[BufferId]) -> Result<BufferId> {
        let buffer = self.want(v, layout)?;
        if matches!(self.buffers[buffer].1, Origin::Step) && !taken.contains(&buffer) {
            return Ok(buffer);
        }
        let fact = self.fact(v).clone();
        let copy = Reorder { from: layout, to: layout, dims: self.extents(v) };
        let step: Box<dyn Step> = if fact.element == ElementType::F32 { Box::new(copy) } else { Box::new(CopyWords) };
        let layer = self.graph.nodes[v.node].layer.clone();
        self.anonymous(&layer, &fact, layout, step, vec![buffer], 0)
    }
}

/// A plain copy, of elements of any type.
struct CopyWords;

impl Step for CopyWords {
    fn run(&self, x: &super::Operands<'_>, y: &mut [f32], _: bool, _: &mut crate::conv::Scratch) {
        y.copy_from_slice(x.get(0));
    }

    fn describe(&self) -> String {
        "copy".into()
    }
}

/// Extents as `[n, c, h, w]`: with ones behind fewer, and those behind the third multiplied where there are more.
pub(crate) fn extents(dims: &[usize]) -> [usize; 4] {
    match *dims {
        [n, c, h, w] => [n, c, h, w],
        [] => [1, 1, 1, 1],
        [c] => [1, c, 1, 1],
        [n, c] => [n, c, 1, 1],
        [n, c, h] => [n, c, h, 1],
        [n, c, ref rest @ ..] => [n, c, rest.iter().product(), 1],
    }
}

/// Words of four bytes that a value of these facts takes in a layout.
pub(crate) fn words(fact: &Fact, layout: Layout) -> Result<usize> {
    match fact.element {
        ElementType::F32 => {
            crate::layout::stored_len(&fact.dims, if fact.dims.len() == 4 { layout } else { Layout::Nchw })
        }
        other => {
            let elements = swath_kernels::shape::checked_elements("value", &fact.dims).map_err(Error::from)?;
            Ok(elements.saturating_mul(other.bytes()).div_ceil(size_of::<f32>()))
        }
    }
}

/// Whether two layouts put the elements of a tensor into the same places.
pub(crate) fn same_order(a: Layout, b: Layout, [_, c, h, w]: [usize; 4]) -> bool {
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
