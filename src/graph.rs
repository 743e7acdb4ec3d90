//! The one form of a model: typed operators in SSA order.
//!
//! A [`Graph`] is recorded by calling functions on [`Value`]s. Every operator lives in one file below `graph/` that
//! holds its shape rule and its forward; layers ([`crate::nn`]) and importers only append operators, and the
//! executors ([`crate::infer`]) only read them.
//!
//! Shapes are inferred as the graph is built where the input's shape is known, and again for every shape that it is
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

use core::fmt;

use swath_kernels::epilogue::Activation;

use crate::error::Result;

mod activation;
mod add;
pub(crate) mod batch_norm;
mod concat;
pub(crate) mod conv;
pub(crate) mod conv_transpose;
pub(crate) mod crop;
pub(crate) mod dropout;
mod flatten;
pub(crate) mod forward;
pub(crate) mod linear;
pub(crate) mod pad;
mod parameters;
pub(crate) mod pool;
mod softmax;
pub(crate) mod upsample;
mod value;
mod work;

pub(crate) use activation::Activate;
pub(crate) use add::AddInto;
pub(crate) use concat::ConcatChannels;
pub(crate) use parameters::{Init, ParameterSpec, Parameters};
pub(crate) use softmax::{Softmax, SoftmaxRows};
pub(crate) use value::LayerId;
pub use value::Value;

/// Index of a node, which is also the name of the value that it computes.
pub(crate) type NodeId = usize;
/// Index of a parameter.
pub(crate) type ParameterId = usize;

/// What every operator knows about itself.
pub(crate) trait Operator {
    /// Its name, as PyTorch has it.
    fn name(&self) -> &'static str;

    /// The shape rule: the output's extents from the inputs'.
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>>;
}

/// A typed operator.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// What a run is given.
    Input,
    Conv2d(conv::ConvOp),
    ConvTranspose2d(conv_transpose::ConvTransposeOp),
    Linear(linear::LinearOp),
    BatchNorm2d(batch_norm::BatchNormOp),
    MaxPool2d(pool::MaxPool2d),
    AvgPool2d(pool::AvgPool2d),
    AdaptiveAvgPool2d(pool::AdaptiveAvgPool2d),
    Activation(Activation),
    Softmax(Softmax),
    Add(add::Add),
    Concat(concat::Concat),
    Flatten(flatten::Flatten),
    Pad(pad::Pad),
    Crop(crop::Cut),
    Upsample(upsample::Upsample),
    Dropout(dropout::DropoutOp),
}

impl Op {
    pub(crate) fn operator(&self) -> Option<&dyn Operator> {
        Some(match self {
            Op::Input => return None,
            Op::Conv2d(op) => op,
            Op::ConvTranspose2d(op) => op,
            Op::Linear(op) => op,
            Op::BatchNorm2d(op) => op,
            Op::MaxPool2d(op) => op,
            Op::AvgPool2d(op) => op,
            Op::AdaptiveAvgPool2d(op) => op,
            Op::Activation(op) => op,
            Op::Softmax(op) => op,
            Op::Add(op) => op,
            Op::Concat(op) => op,
            Op::Flatten(op) => op,
            Op::Pad(op) => op,
            Op::Crop(op) => op,
            Op::Upsample(op) => op,
            Op::Dropout(op) => op,
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.operator().map_or("Input", |op| op.name())
    }
}

/// One operator, the values it takes, and the layer that it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) op: Op,
    pub(crate) inputs: Vec<NodeId>,
    /// Dotted name of the layer, empty at the root.
    pub(crate) layer: String,
}

/// Operators in SSA order: every node takes values of earlier nodes only. Node 0 is the input.
#[derive(Clone, Debug)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) parameters: Vec<ParameterSpec>,
    pub(crate) output: NodeId,
}

impl Graph {
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

    /// Extents of the output for an input of extents `input`.
    ///
    /// # Errors
    /// Of the first operator whose shape rule refuses, under its layer's name.
    pub fn output_dims(&self, input: &[usize]) -> Result<Vec<usize>> {
        Ok(self.infer(input)?.swap_remove(self.output))
    }

    /// Extents of every value for an input of extents `input`.
    pub(crate) fn infer(&self, input: &[usize]) -> Result<Vec<Vec<usize>>> {
        let mut dims: Vec<Vec<usize>> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let of_node = match node.op.operator() {
                None => input.to_vec(),
                Some(op) => {
                    let inputs: Vec<&[usize]> = node.inputs.iter().map(|&i| dims[i].as_slice()).collect();
                    op.dims(&inputs).map_err(|e| e.in_layer(&node.layer))?
                }
            };
            dims.push(of_node);
        }
        Ok(dims)
    }
}

/// One line per node: `%3 = Conv2d(%1) layer1.conv2`.
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, node) in self.nodes.iter().enumerate() {
            let inputs = node.inputs.iter().map(|i| format!("%{i}")).collect::<Vec<_>>().join(", ");
            writeln!(f, "{}", format!("%{i} = {}({inputs}) {}", node.op.name(), node.layer).trim_end())?;
        }
        writeln!(f, "output %{}", self.output)
    }
}
