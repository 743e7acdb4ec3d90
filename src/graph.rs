//! The one form of a model: operators in SSA order.
//!
//! A [`Graph`] is recorded by calling functions on [`Value`]s, or built with a [`Builder`]. Every operator is one file below
//! `graph/ops/` that holds its shape rule, its lowering to steps and its gradient ([`Operator`]); layers ([`crate::nn`]) and importers
//! only append operators, and the compiler ([`crate::compile`]) takes a copy of the graph, which shares the constants. Weights are values like any other: a convolution takes
//! its input, its weight and its bias.
//!
//! Shapes are inferred as the graph is built where the inputs' shapes are known, and again for every shape that it is
//! compiled for. A model of layers is recorded once, without a shape:
//!
//! ```
//! use swath::graph::Graph;
//! use swath::nn::{Conv2d, Module};
//! let conv = Conv2d::new(8, 8, 3).padding(1).named("conv");
//! let graph = Graph::record(|x| Ok((conv.call(x)? + x).relu()))?;
//! assert_eq!(graph.output_dims(&[2, 8, 5, 7])?, [2, 8, 5, 7]);
//! assert!(graph.output_dims(&[2, 9, 5, 7]).unwrap_err().to_string().contains("9 channels"));
//! # Ok::<(), swath::Error>(())
//! ```

use core::any::Any;
use core::fmt;
use std::sync::Arc;

use swath_kernels::epilogue::Activation;

use crate::error::{Error, Result};
use crate::tensor::Tensor;

mod affine;
pub(crate) mod autodiff;
mod builder;
mod gradient;
pub(crate) mod lower;
pub mod ops;
pub(crate) mod packed;
mod parameters;
pub(crate) mod step;
mod value;
mod work;

use affine::Affine;
pub use autodiff::Differentiated;
pub use builder::Builder;
pub use gradient::{Gradient, Recorded};
pub use lower::{Absorbs, Fused, Group, Lower};
pub use parameters::Init;
pub(crate) use parameters::{ParameterSpec, Parameters};
pub use step::{Operands, Step};
pub(crate) use value::LayerId;
pub use value::Value;
pub use work::Work;

pub use crate::ops::{ElementType, Fact};

/// Index of a node.
pub(crate) type NodeId = usize;
/// Index of a parameter.
pub(crate) type ParameterId = usize;

/// A value: a result of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId {
    /// The node that computes it.
    pub(crate) node: NodeId,
    /// Which of its results it is.
    pub(crate) slot: usize,
}

impl ValueId {
    /// The only, or first, result of a node.
    pub(crate) fn of(node: NodeId) -> Self {
        Self { node, slot: 0 }
    }
}

/// What an operator knows about itself: its shape rule, how it runs, its gradient, and what it can be merged with.
///
/// An operator of one's own implements at least `name`, `dims` and `lower`, and is appended by [`Value::push`] or [`Builder::push`].
pub trait Operator: fmt::Debug + Send + Sync + Any {
    /// Its name, as PyTorch has it.
    fn name(&self) -> &'static str;

    /// Number of results.
    fn results(&self) -> usize {
        1
    }

    /// The shape rule of an operator that takes floats and gives one result of floats: the output's extents from the inputs'.
    ///
    /// # Errors
    /// For extents that do not fit, with both numbers.
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>>;

    /// The shape rule: extents and element types of the results.
    ///
    /// # Errors
    /// For extents or element types that do not fit.
    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        if let Some(other) = inputs.iter().find(|f| f.element != ElementType::F32) {
            let rule = "it takes f32".to_string();
            return Err(Error::Setting { what: self.name(), value: other.element.to_string(), rule });
        }
        let dims: Vec<&[usize]> = inputs.iter().map(|f| f.dims.as_slice()).collect();
        Ok(vec![Fact::f32(self.dims(&dims)?)])
    }

    /// Becomes steps on buffers, in a layout of its choice.
    ///
    /// # Errors
    /// Where no kernel does what is asked, or memory does not suffice.
    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()>;

    /// Appends the operators that compute the gradients of the inputs that [need](Gradient::needs) one.
    ///
    /// # Errors
    /// By default that there is none.
    fn gradient(&self, _: &mut Gradient<'_>) -> Result<()> {
        Err(Error::NoGradient { operator: self.name() })
    }

    /// Results that are the next values of inputs, as (input, result): running statistics.
    fn updates(&self) -> &'static [(usize, usize)] {
        &[]
    }

    /// Whether, in training, it takes the step's random seed as one more input: `[4]`, parts of 16 bits.
    fn takes_seed(&self) -> bool {
        false
    }

    /// What it does in training, where that differs.
    fn in_training(&self) -> Option<Arc<dyn Operator>> {
        None
    }

    /// Whether it has a gradient as it is in inference, and may stay so while others are trained.
    fn freezes(&self) -> bool {
        false
    }

    /// What may be merged into it.
    fn absorbs(&self) -> Absorbs {
        Absorbs::NONE
    }

    /// As a scale and a shift of each channel of input 0, which a convolution before it may absorb, where its other inputs are
    /// constants.
    fn as_affine(&self, _inputs: &[Option<&Tensor>]) -> Option<Affine> {
        None
    }

    /// The operator in training that also adds a residual, as its last input, and applies an activation, if there is one.
    fn in_training_with(&self, _residual: bool, _activation: Activation) -> Option<Arc<dyn Operator>> {
        None
    }

    /// How the backward pass may compute the first result once more, to the bit, instead of keeping it from the forward pass until
    /// then, where that is cheap: an operator, and its operands among the node's inputs and further results.
    fn again(&self, _node: &Recorded<'_>) -> Option<(Arc<dyn Operator>, Vec<ValueId>)> {
        None
    }

    /// Whether it is the sum of its two inputs of equal extents, of which one may be a residual.
    fn is_sum(&self) -> bool {
        false
    }

    /// The activation that it is.
    fn as_activation(&self) -> Option<Activation> {
        None
    }

    /// Whether it only passes on its input in inference.
    fn is_identity(&self) -> bool {
        false
    }

    /// Whether a change of its input's layout may be left out before it: Flatten, whose Linear takes its features in any order.
    fn is_flatten(&self) -> bool {
        false
    }

    /// The arithmetic that it does for inputs of these facts, which fit.
    fn work(&self, _inputs: &[&Fact]) -> Work {
        Work::default()
    }
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// What a run is given.
    Input,
    /// A parameter or running statistic.
    Parameter(ParameterId),
    /// A value that is known when the graph is built.
    Constant(Arc<Tensor>),
    /// An operator on values of earlier nodes.
    Operator(Arc<dyn Operator>),
}

/// One operator, the values it takes, and the layer that it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) source: Source,
    pub(crate) inputs: Vec<ValueId>,
    /// Dotted name of the layer, empty at the root.
    pub(crate) layer: String,
}

impl Node {
    /// The operator, if the node is one.
    pub(crate) fn operator(&self) -> Option<&Arc<dyn Operator>> {
        match &self.source {
            Source::Operator(op) => Some(op),
            _ => None,
        }
    }

    pub(crate) fn results(&self) -> usize {
        self.operator().map_or(1, |op| op.results())
    }
}

/// Operators in SSA order: every node takes values of earlier nodes only.
#[derive(Clone, Debug)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) parameters: Vec<ParameterSpec>,
    /// Names and nodes of the inputs.
    pub(crate) inputs: Vec<(String, NodeId)>,
    /// Names and values of the outputs.
    pub(crate) outputs: Vec<(String, ValueId)>,
}

impl Graph {
    /// Lets go of the value of a constant that nobody asks for any more.
    pub(crate) fn forget_constant(&mut self, node: NodeId) {
        if let Source::Constant(value) = &mut self.nodes[node].source {
            *value = Arc::new(Tensor::empty());
        }
    }

    /// Records what `f` does to its argument, for an input of any shape.
    ///
    /// # Errors
    /// Those of `f`, and the first error among the operators it applied: values of two different graphs combined,
    /// or two layers that declare the same parameter.
    pub fn record(f: impl FnOnce(&Value) -> Result<Value>) -> Result<Self> {
        value::record(None, f)
    }

    /// Records as [`Graph::record`], for an input of known extents: shapes are inferred as the graph is built, and
    /// [`Value::dims`] tells them.
    ///
    /// # Errors
    /// As [`Graph::record`], and whatever an operator's shape rule refuses.
    pub fn record_for(dims: impl AsRef<[usize]>, f: impl FnOnce(&Value) -> Result<Value>) -> Result<Self> {
        value::record(Some(dims.as_ref().to_vec()), f)
    }

    /// Records a function of several values with several results, which get these names.
    ///
    /// ```
    /// use swath::graph::Graph;
    /// let graph = Graph::record_many(&["a", "b"], &["sum", "relu"], |x| Ok(vec![&x[0] + &x[1], x[1].relu()]))?;
    /// assert_eq!(graph.output_names().collect::<Vec<_>>(), ["sum", "relu"]);
    /// # Ok::<(), swath::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Graph::record`], and for another number of results than of names.
    pub fn record_many(
        inputs: &[&str],
        outputs: &[&str],
        f: impl FnOnce(&[Value]) -> Result<Vec<Value>>,
    ) -> Result<Self> {
        value::record_many(inputs, outputs, f)
    }

    /// The same graph with more inputs and outputs: `f` gets the values of the outputs and those of the new inputs. A loss is appended so,
    /// with the targets as new inputs.
    ///
    /// ```
    /// use swath::graph::{Graph, ops::Reduce};
    /// let model = Graph::record(|x| Ok(x.relu()))?;
    /// let graph = model.extend(&["target"], &["loss"], |outputs, inputs| {
    ///     let error = &outputs[0] - &inputs[0];
    ///     Ok(vec![(&error * &error).push(Reduce::mean(&[], false), &[&(&error * &error)])])
    /// })?;
    /// assert_eq!(graph.output_names().collect::<Vec<_>>(), ["output", "loss"]);
    /// # Ok::<(), swath::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Graph::record_many`].
    pub fn extend(
        &self,
        inputs: &[&str],
        outputs: &[&str],
        f: impl FnOnce(&[Value], &[Value]) -> Result<Vec<Value>>,
    ) -> Result<Self> {
        value::extend(self, inputs, outputs, f)
    }

    /// Names of the inputs.
    pub fn input_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.inputs.iter().map(|(name, _)| name.as_str())
    }

    /// Names of the outputs.
    pub fn output_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.outputs.iter().map(|(name, _)| name.as_str())
    }

    /// Extents of the first output for an input of extents `input`.
    ///
    /// # Errors
    /// Of the first operator whose shape rule refuses, under its layer's name.
    pub fn output_dims(&self, input: &[usize]) -> Result<Vec<usize>> {
        let facts = self.infer(&[Fact::f32(input)])?;
        let (_, output) = &self.outputs[0];
        Ok(facts[output.node][output.slot].dims.clone())
    }

    /// Facts of every result of every node, for inputs of these facts.
    pub(crate) fn infer(&self, inputs: &[Fact]) -> Result<Vec<Vec<Fact>>> {
        if inputs.len() != self.inputs.len() {
            return Err(Error::Inputs { takes: self.inputs.len(), gets: inputs.len() });
        }
        let mut facts: Vec<Vec<Fact>> = Vec::with_capacity(self.nodes.len());
        for (id, node) in self.nodes.iter().enumerate() {
            let of_node = match &node.source {
                Source::Input => {
                    let at = self.inputs.iter().position(|(_, n)| *n == id).expect("inputs are listed");
                    vec![inputs[at].clone()]
                }
                Source::Parameter(p) => vec![Fact::f32(self.parameters[*p].dims.clone())],
                Source::Constant(t) => vec![Fact::f32(t.dims())],
                Source::Operator(op) => {
                    let inputs: Vec<&Fact> = node.inputs.iter().map(|v| &facts[v.node][v.slot]).collect();
                    op.facts(&inputs).map_err(|e| e.in_layer(&node.layer))?
                }
            };
            facts.push(of_node);
        }
        Ok(facts)
    }

    /// Name of a value, for people.
    pub(crate) fn name(&self, v: ValueId) -> String {
        match &self.nodes[v.node].source {
            Source::Parameter(p) => self.parameters[*p].name.clone(),
            _ if self.nodes[v.node].results() > 1 => format!("%{}.{}", v.node, v.slot),
            _ => format!("%{}", v.node),
        }
    }
}

/// One line per node: `%3 = Conv2d(%0, layer1.conv2.weight) layer1.conv2`. Parameters have their names and no line.
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, node) in self.nodes.iter().enumerate() {
            let name = match &node.source {
                Source::Parameter(_) => continue,
                Source::Input => "Input",
                Source::Constant(_) => "Constant",
                Source::Operator(op) => op.name(),
            };
            let inputs = node.inputs.iter().map(|v| self.name(*v)).collect::<Vec<_>>().join(", ");
            writeln!(f, "{}", format!("%{i} = {name}({inputs}) {}", node.layer).trim_end())?;
        }
        let outputs = self.outputs.iter().map(|(_, v)| self.name(*v)).collect::<Vec<_>>().join(", ");
        writeln!(f, "output {outputs}")
    }
}
