//! Building a graph node by node: what recorded layers, importers and gradients share.

use std::sync::Arc;

use super::{ElementType, Fact, Graph, Node, NodeId, Operator, ParameterId, ParameterSpec, Source, ValueId};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A graph under construction, whose values are named by [`ValueId`]s. For importers, and for whoever has no layers.
///
/// ```
/// use swath::graph::{Builder, ElementType, Fact, ops};
/// use swath::{Model, Tensor};
/// let mut b = Builder::new();
/// let x = b.input("x", Some(Fact::f32([1, 2])));
/// let two = b.constant(Tensor::new([1, 2], &[2.0, 3.0])?);
/// let y = b.push(ops::Binary::mul(), &[x, two])?[0];
/// assert_eq!(b.fact(y), Some(&Fact::f32([1, 2])));
/// let model = Model::new(b.finish(&[("y", y)])?, 0)?;
/// assert_eq!(model.compile([1, 2])?.run(&[5.0, 7.0])?.as_slice(), [10.0, 21.0]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    pub(super) graph: Graph,
    /// Facts of every result of every node, where known.
    pub(super) facts: Vec<Option<Vec<Fact>>>,
    /// Dotted name of the layer that nodes are appended for.
    pub(super) layer: String,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// Nothing yet.
    pub fn new() -> Self {
        let graph = Graph { nodes: Vec::new(), parameters: Vec::new(), inputs: Vec::new(), outputs: Vec::new() };
        Self { graph, facts: Vec::new(), layer: String::new() }
    }

    /// One that goes on from a graph whose facts are known.
    pub(super) fn resume(graph: Graph, facts: Vec<Vec<Fact>>) -> Self {
        Self { graph, facts: facts.into_iter().map(Some).collect(), layer: String::new() }
    }

    fn node(&mut self, source: Source, inputs: Vec<ValueId>, facts: Option<Vec<Fact>>) -> NodeId {
        self.graph.nodes.push(Node { source, inputs, layer: self.layer.clone() });
        self.facts.push(facts);
        self.graph.nodes.len() - 1
    }

    /// An input of the graph, with its facts where they are known.
    pub fn input(&mut self, name: &str, fact: Option<Fact>) -> ValueId {
        let id = self.node(Source::Input, Vec::new(), fact.map(|f| vec![f]));
        self.graph.inputs.push((name.into(), id));
        ValueId::of(id)
    }

    /// A value that is known now.
    pub fn constant(&mut self, value: impl Into<Arc<Tensor>>) -> ValueId {
        let value = value.into();
        let fact = Fact::f32(value.dims());
        ValueId::of(self.node(Source::Constant(value), Vec::new(), Some(vec![fact])))
    }

    pub(super) fn parameter(&mut self, spec: ParameterSpec) -> ValueId {
        let id: ParameterId = self.graph.parameters.len();
        let fact = Fact::f32(spec.dims.clone());
        self.graph.parameters.push(spec);
        ValueId::of(self.node(Source::Parameter(id), Vec::new(), Some(vec![fact])))
    }

    /// Appends an operator; its results.
    ///
    /// # Errors
    /// Of its shape rule, where the inputs' facts are known.
    pub fn push(&mut self, op: impl Operator, inputs: &[ValueId]) -> Result<Vec<ValueId>> {
        self.push_shared(Arc::new(op), inputs)
    }

    /// As [`Builder::push`], for an operator that is shared already.
    ///
    /// # Errors
    /// As [`Builder::push`].
    pub fn push_shared(&mut self, op: Arc<dyn Operator>, inputs: &[ValueId]) -> Result<Vec<ValueId>> {
        let known: Option<Vec<&Fact>> = inputs.iter().map(|v| self.fact(*v)).collect();
        let facts = match known {
            Some(known) => Some(op.facts(&known).map_err(|e| e.in_layer(&self.layer))?),
            None => None,
        };
        let results = op.results();
        let node = self.node(Source::Operator(op), inputs.to_vec(), facts);
        Ok((0..results).map(|slot| ValueId { node, slot }).collect())
    }

    /// What is known of a value.
    pub fn fact(&self, v: ValueId) -> Option<&Fact> {
        self.facts[v.node].as_ref().map(|facts| &facts[v.slot])
    }

    /// The constant that a value is.
    pub fn constant_of(&self, v: ValueId) -> Option<&Arc<Tensor>> {
        match &self.graph.nodes[v.node].source {
            Source::Constant(t) => Some(t),
            _ => None,
        }
    }

    /// Operators appended from now on belong to this layer: errors and profiles name it.
    pub fn set_layer(&mut self, name: impl Into<String>) {
        self.layer = name.into();
    }

    /// The graph, with these outputs.
    ///
    /// # Errors
    /// [`Error::Outputs`] if there are none.
    pub fn finish(mut self, outputs: &[(&str, ValueId)]) -> Result<Graph> {
        if outputs.is_empty() {
            return Err(Error::Outputs);
        }
        self.graph.outputs = outputs.iter().map(|(name, v)| (name.to_string(), *v)).collect();
        Ok(self.graph)
    }

    /// Whether a value is of floats, as far as is known.
    pub fn is_f32(&self, v: ValueId) -> bool {
        self.fact(v).is_none_or(|f| f.element == ElementType::F32)
    }
}
