//! What operators are told, and may ask for, while a graph is differentiated.

use std::collections::HashMap;

use super::{Builder, Fact, NodeId, Operator, ValueId};
use crate::error::Result;
use crate::tensor::Tensor;

/// What an operator's [`Operator::gradient`] may ask for, and where it puts gradients.
pub struct Gradient<'a> {
    pub(super) builder: &'a mut Builder,
    pub(super) node: NodeId,
    /// Of each node, whether its results need gradients.
    pub(super) needs: &'a [bool],
    pub(super) gradients: &'a mut HashMap<ValueId, ValueId>,
}

impl Gradient<'_> {
    /// Input `i` of the operator.
    pub fn input(&self, i: usize) -> ValueId {
        self.builder.graph.nodes[self.node].inputs[i]
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.builder.graph.nodes[self.node].inputs.len()
    }

    /// Result `slot` of the operator.
    pub fn output(&self, slot: usize) -> ValueId {
        ValueId { node: self.node, slot }
    }

    /// The gradient at the first result.
    pub fn dy(&self) -> ValueId {
        self.gradients[&ValueId::of(self.node)]
    }

    /// The gradient at a result, if the loss depends on it.
    pub fn upstream(&self, slot: usize) -> Option<ValueId> {
        self.gradients.get(&self.output(slot)).copied()
    }

    /// Whether input `i` needs a gradient.
    pub fn needs(&self, i: usize) -> bool {
        self.needs[self.input(i).node]
    }

    /// Facts of a value.
    pub fn fact(&self, v: ValueId) -> &Fact {
        self.builder.fact(v).expect("facts are known when a graph is differentiated")
    }

    /// Number of the operator's node, for random numbers of its own.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Appends an operator; its results.
    ///
    /// # Errors
    /// Of its shape rule.
    pub fn push(&mut self, op: impl Operator, inputs: &[ValueId]) -> Result<Vec<ValueId>> {
        self.builder.push(op, inputs)
    }

    /// Appends a constant.
    ///
    /// # Errors
    /// None are known.
    pub fn constant(&mut self, value: Tensor) -> Result<ValueId> {
        Ok(self.builder.constant(value))
    }
}

/// A node as its operator sees it: what it reads, and the names of its results.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// What it reads.
    pub inputs: &'a [ValueId],
    pub(super) node: NodeId,
}

impl Recorded<'_> {
    /// Result `slot`.
    pub fn result(&self, slot: usize) -> ValueId {
        ValueId { node: self.node, slot }
    }
}
