//! swath
#![forbid(unsafe_code)]

pub mod algo;
pub mod benchdnn;
mod buffer;
pub mod conv;
mod cpu;
pub mod data;
mod error;
pub mod graph;
pub mod infer;
mod model;
pub mod nn;
pub mod par;
mod tensor;
mod weights;

pub use conv::{ConvPlan, Epilogue, Options, PackedWeights, Scratch};
pub use cpu::{LEVEL_VARIABLE, cpu};
pub use error::{Error, Result};
pub use graph::{Graph, Value};
pub use infer::{Session, SessionOptions};
pub use model::{Model, Strictness};
pub use swath_kernels::epilogue::Activation;
pub use swath_kernels::isa::{Cpu, Level};
pub use swath_kernels::layout::Layout;
pub use swath_kernels::shape::{ConvShape, Padding, Pair, PoolShape, ShapeError};
pub use tensor::Tensor;
pub use weights::WeightsFile;

/// The examples of README.md compile and run as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
