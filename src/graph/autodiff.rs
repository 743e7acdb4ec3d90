//! Differentiation: from a graph to a graph that also computes gradients.
//!
//! The result is a graph like any other, which the same compiler compiles: its inputs are those of the model, then the values of all
//! parameters; its outputs are those of the model, then the gradients, then the next running statistics. Operators that behave
//! otherwise in training are replaced ([`Operator::in_training`]), and each appends the operators of its gradient
//! ([`Operator::gradient`]), from the last node to the first.

mod fuse;
mod recompute;

use std::collections::HashMap;

use super::{Builder, Fact, Gradient, Graph, NodeId, ParameterId, Source, ValueId};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A differentiated graph, and what its inputs and outputs are.
#[derive(Clone, Debug)]
pub struct Differentiated {
    /// The graph.
    pub(crate) graph: Graph,
    /// Facts of its inputs.
    pub(crate) inputs: Vec<Fact>,
    /// Number of the first parameter among the inputs; parameters follow in the model's order.
    pub(crate) first_parameter: usize,
    /// Number of the input that takes the seed of random numbers, if there is one.
    pub(crate) seed: Option<usize>,
    /// Parameters with gradients, and the numbers of these among the outputs.
    pub(crate) gradients: Vec<(ParameterId, usize)>,
    /// Inputs with gradients, and the numbers of these among the outputs.
    pub(crate) input_gradients: Vec<(usize, usize)>,
    /// Running statistics, and the numbers of their next values among the outputs.
    pub(crate) updates: Vec<(ParameterId, usize)>,
}

/// What is differentiated with respect to what.
pub(crate) struct Wanted<'a> {
    /// Number of the output that is the loss: a single float.
    pub(crate) loss: usize,
    /// Whether a parameter is trained.
    pub(crate) trained: &'a dyn Fn(&str) -> bool,
    /// Whether layers of this name stay in evaluation mode: frozen batch normalisation, no dropout.
    pub(crate) frozen: &'a dyn Fn(&str) -> bool,
    /// Inputs whose gradients are wanted.
    pub(crate) inputs: &'a [usize],
    /// Whether activations that are cheap to compute are computed again in the backward pass.
    pub(crate) recompute: bool,
}

impl Graph {
    /// Differentiates for inputs of these facts.
    pub(crate) fn differentiate(&self, inputs: &[Fact], wanted: &Wanted<'_>) -> Result<Differentiated> {
        let mut d = self.training(inputs, wanted)?;
        let facts = d.graph.infer(&d.inputs)?;
        fuse::fuse(&mut d.graph, &facts);
        // Of the graph in training, whose nodes a seed has moved.
        let loss = match self.outputs.len() {
            outputs if wanted.loss < outputs => d.graph.outputs[wanted.loss].1,
            outputs => return Err(Error::NoOutput { asked: wanted.loss, outputs }),
        };
        let loss_fact = &facts[loss.node][loss.slot];
        if loss_fact.len() != 1 {
            return Err(Error::Rank { what: "a loss", takes: "a single number", gets: loss_fact.dims.clone() });
        }
        let one = Tensor::new(&loss_fact.dims, &[1.0])?;
        let needs = d.needs(wanted);
        let nodes = d.graph.nodes.len();
        let mut builder = Builder::resume(d.graph, facts);
        let mut gradients = HashMap::new();
        gradients.insert(loss, builder.constant(one));
        for node in (0..nodes).rev() {
            let Some(op) = builder.graph.nodes[node].operator().cloned() else { continue };
            let reached = (0..op.results()).any(|slot| gradients.contains_key(&ValueId { node, slot }));
            if !reached || !needs[node] {
                continue;
            }
            let layer = builder.graph.nodes[node].layer.clone();
            builder.set_layer(layer.clone());
            let mut g = Gradient { builder: &mut builder, node, needs: &needs, gradients: &mut gradients };
            op.gradient(&mut g).map_err(|e| e.in_layer(&layer))?;
        }
        d.graph = builder.graph;
        d.collect(wanted, &gradients)?;
        if wanted.recompute {
            recompute::recompute(&mut d.graph, nodes);
        }
        Ok(d)
    }

    /// The graph as it runs in training, with parameters as inputs.
    fn training(&self, inputs: &[Fact], wanted: &Wanted<'_>) -> Result<Differentiated> {
        let mut graph = self.clone();
        let first_parameter = graph.inputs.len();
        let mut facts = inputs.to_vec();
        let mut nodes: Vec<NodeId> = vec![NodeId::MAX; graph.parameters.len()];
        let mut updates = Vec::new();
        let mut seeded = Vec::new();
        for (id, node) in graph.nodes.iter_mut().enumerate() {
            match &node.source {
                Source::Parameter(p) => {
                    nodes[*p] = id;
                    node.source = Source::Input;
                }
                Source::Operator(op) => {
                    let trained = op.in_training().filter(|_| !(op.freezes() && (wanted.frozen)(&node.layer)));
                    let op = trained.unwrap_or_else(|| op.clone());
                    updates.extend(
                        op.updates().iter().map(|&(input, slot)| (node.inputs[input], ValueId { node: id, slot })),
                    );
                    if op.takes_seed() {
                        seeded.push(id);
                    }
                    node.source = Source::Operator(op);
                }
                Source::Input | Source::Constant(_) => {}
            }
        }
        for (spec, node) in self.parameters.iter().zip(&nodes) {
            graph.inputs.push((spec.name.clone(), *node));
            facts.push(Fact::f32(spec.dims.clone()));
        }
        graph.parameters.clear();
        let mut d = Differentiated {
            graph,
            inputs: facts,
            first_parameter,
            seed: None,
            gradients: Vec::new(),
            input_gradients: Vec::new(),
            updates: Vec::new(),
        };
        if !seeded.is_empty() {
            d.insert_seed(&seeded);
        }
        let shift = usize::from(d.seed.is_some());
        for (parameter, next) in updates {
            let Some(p) = nodes.iter().position(|&n| n == parameter.node) else { continue };
            d.updates.push((p, d.graph.outputs.len()));
            let next = ValueId { node: next.node + shift, slot: next.slot };
            d.graph.outputs.push((format!("next {}", self.parameters[p].name), next));
        }
        Ok(d)
    }
}

impl Differentiated {
    /// Puts the input of the seed before all nodes, and gives it to those that take it.
    fn insert_seed(&mut self, seeded: &[NodeId]) {
        let shifted = |v: &mut ValueId| v.node += 1;
        for node in &mut self.graph.nodes {
            node.inputs.iter_mut().for_each(shifted);
        }
        seeded.iter().for_each(|&id| self.graph.nodes[id].inputs.push(ValueId::of(0)));
        let seed = super::Node { source: Source::Input, inputs: Vec::new(), layer: String::new() };
        self.graph.nodes.insert(0, seed);
        self.graph.inputs.iter_mut().for_each(|(_, node)| *node += 1);
        self.graph.outputs.iter_mut().for_each(|(_, v)| shifted(v));
        self.seed = Some(self.graph.inputs.len());
        self.graph.inputs.push(("seed".into(), 0));
        self.inputs.push(Fact::f32([4]));
    }

    /// For each node, whether its results depend on anything whose gradient is wanted.
    fn needs(&self, wanted: &Wanted<'_>) -> Vec<bool> {
        let mut needs = vec![false; self.graph.nodes.len()];
        for (i, (name, node)) in self.graph.inputs.iter().enumerate() {
            let is_parameter = i >= self.first_parameter && Some(i) != self.seed;
            let statistic = self.updates.iter().any(|(p, _)| self.first_parameter + p == i);
            needs[*node] = match is_parameter {
                true => !statistic && (wanted.trained)(name),
                false => wanted.inputs.contains(&i),
            };
        }
        for (id, node) in self.graph.nodes.iter().enumerate() {
            needs[id] |= node.inputs.iter().any(|v| needs[v.node]);
        }
        needs
    }

    /// Appends the gradients to the outputs.
    fn collect(&mut self, wanted: &Wanted<'_>, gradients: &HashMap<ValueId, ValueId>) -> Result<()> {
        for i in 0..self.graph.inputs.len() {
            let (name, node) = self.graph.inputs[i].clone();
            let Some(&gradient) = gradients.get(&ValueId::of(node)) else { continue };
            let output = self.graph.outputs.len();
            if i >= self.first_parameter {
                self.gradients.push((i - self.first_parameter, output));
            } else if wanted.inputs.contains(&i) {
                self.input_gradients.push((i, output));
            } else {
                continue;
            }
            self.graph.outputs.push((format!("gradient {name}"), gradient));
        }
        Ok(())
    }
}
