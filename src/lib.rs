//! swath
pub mod algo;
pub mod benchdnn;
mod buffer;
pub mod conv;
mod cpu;
mod error;
pub mod par;

pub use conv::{ConvPlan, Epilogue, Options, PackedWeights, Scratch};
pub use cpu::{LEVEL_VARIABLE, cpu};
pub use error::{Error, Result};
pub use swath_kernels::epilogue::Activation;
pub use swath_kernels::isa::{Cpu, Level};
pub use swath_kernels::layout::Layout;
pub use swath_kernels::shape::{ConvShape, Padding, Pair, PoolShape, ShapeError};

/// The examples of README.md compile and run as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
