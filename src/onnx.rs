//! ONNX models: the file, and what it computes.
//!
//! [`ModelProto::read`] borrows everything from one slice of bytes, so that reading 88 MB of weights copies none of them.
//! The reader is this crate's own: no generated code, no dependency, no `protoc`.
//!
//! ```no_run
//! let bytes = std::fs::read("model.onnx")?;
//! let model = swath::onnx::ModelProto::read(&bytes)?;
//! for node in &model.graph.nodes {
//!     println!("{} {:?} -> {:?}", node.op_type, node.inputs, node.outputs);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `wire` | protobuf's wire format |
//! | `proto` | models, graphs, nodes, attributes, constants |
//! | `external` | constants in files beside the model |
//! | `scope` | the order in which nodes can run |
//! | `interpret` | a model run node by node, as it is written |
//! | `fold` | a model at fixed shapes, without what can be computed before it runs |
//! | `simplify` | patterns of exporters as the operators that they mean |
//! | `lower` | a folded model as a graph |
//! | `nodes` | graph operators that only imported models need |
//! | `encode` | protobuf's wire format, written |
//! | `export` | a model as an ONNX file |
//! | `session` | [`Network`], [`NetworkSession`] |
//! | `shapes` | [`Shapes`]: a session for each shape that comes |

mod encode;
mod error;
mod export;
mod external;
mod fold;
mod interpret;
mod lower;
mod nodes;
mod proto;
mod scope;
mod session;
mod shapes;
mod simplify;
mod wire;

pub use error::OnnxError;
pub use export::{export, export_for, save};
pub use external::{External, ExternalPlace};
pub use interpret::Interpreter;
pub use proto::{
    AttributeProto, AttributeValue, Dimension, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfo, ValueType,
};
pub use session::{Network, NetworkSession};
pub use shapes::Shapes;
