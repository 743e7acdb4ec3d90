//! Convolutional networks on CPUs: hand-written SIMD kernels, plans that pick and explain them, and PyTorch-shaped
//! layers.
//!
//! There are two ways in. [`ConvPlan`] is for whoever has slices and wants a convolution: plan once, run often.
//! [`nn`] is for whoever has a network: layers make a [`Model`], which compiles to a [`Session`] for one input shape.
//!
//! # A convolution
//!
//! ```
//! use swath::{ConvPlan, ConvShape, Epilogue, Options, Scratch};
//!
//! let shape = ConvShape::builder([1, 3, 32, 32], [16, 3, 3, 3]).padding(1).build()?;
//! let plan = ConvPlan::new(&shape, &Options::default())?;
//! let weights = plan.pack(&vec![0.1; 16 * 3 * 3 * 3])?;
//!
//! let (x, bias) = (vec![1.0; 3 * 32 * 32], vec![-1.0; 16]);
//! let mut y = vec![0.0; 16 * 32 * 32];
//! plan.forward(&x, &weights, Epilogue::bias(&bias).relu(), &mut y, &mut Scratch::default())?;
//! assert!((y[33] - 1.7).abs() < 1e-5); // 27 taps of 0.1, minus 1
//! println!("{}", plan.explain());
//! # Ok::<(), swath::Error>(())
//! ```
//!
//! # A network
//!
//! ```
//! use swath::{Tensor, nn::*};
//!
//! let model = Sequential::new((
//!     Conv2d::new(3, 16, 3).padding(1), ReLU, MaxPool2d::new(2),
//!     Flatten, Linear::new(16 * 4 * 4, 10),
//! )).build(7)?;
//! let mut session = model.compile([1, 3, 8, 8])?;
//! let logits = session.run(&Tensor::zeros([1, 3, 8, 8])?)?;
//! assert_eq!(logits.dims(), [1, 10]);
//! # Ok::<(), swath::Error>(())
//! ```
//!
//! # Map, imports point to the same floor or to lower ones
//!
//! | floor | module | what it holds |
//! |---|---|---|
//! | 0-4 | [`swath_kernels`] | the crate with all `unsafe` code: shapes, layouts, levels, kernels |
//! | 5 | [`Error`], [`Tensor`] | the one error enum; owned, 64-byte aligned floats with their layout |
//! | 5 | [`cpu()`] | the CPU, held to the level that `SWATH_LEVEL` names |
//! | 5 | [`benchdnn`] | convolution problems in benchdnn's notation |
//! | 5 | [`file`](mod@file) | files: read up to a limit, written whole or not at all |
//! | 5 | [`layout`] | changes of layout |
//! | 5 | [`machine`] | the CPU's identity and its caches |
//! | 5 | [`par`] | threads: crews of our own, and the caller's rayon pool |
//! | 5 | [`ops`] | operators on arrays of any element type |
//! | 6 | [`algo`] | [`ALGOS`](algo::ALGOS), the ordered table of algorithms, and the cost model |
//! | 6 | [`conv`] | [`ConvPlan`], [`ConvBackwardData`], [`ConvBackwardWeights`]: shape, pass, algorithm, packed weights |
//! | 6 | [`norm`], [`pool`], [`resample`], [`softmax`] | plans of normalisation, pooling, interpolation and padding, softmax |
//! | 6 | `tuning` | tuning tables that plans choose by, their file: what [`tune`] has beside the tuner |
//! | 6 | [`tune`] | the tuner that measures tuning tables |
//! | 7 | [`graph`] | the one form of a model: typed operators in SSA order |
//! | 8 | [`compile`] | [`Session`]: fusion, layouts, memory plan |
//! | 8 | [`Model`], [`WeightsFile`] | a graph and its parameters; safetensors files |
//! | 9 | [`nn`] | PyTorch-shaped layers |
//! | 5 | [`Random`], [`Rect`] | random numbers by key; boxes |
//! | 9 | [`data`] | data sets, augmentation, batches |
//! | 9 | `onnx` | ONNX files (feature `onnx`) |
//! | 9 | [`train`] | optimizers, schedules, clipping, averages |
//! | 9 | [`metrics`] | accuracy, confusion, IoU, average precision |
//! | 9 | [`vision`] | pictures to inputs; boxes, masks, keypoints, text from outputs; drawing |
//! | 10 | [`zoo`] | well-known networks as layer code |
//!
//! # Features
//!
//! Plans need none: without default features there is convolution, pooling, normalisation, interpolation, layouts, threads
//! and the cost model, at the scalar level.
//!
//! | feature | what it adds | brings |
//! |---|---|---|
//! | `avx2`, `avx512`, `neon` | kernels of these levels | |
//! | `tune` | the tuner and the user's tuning file: [`tune`], [`file`](mod@file) | |
//! | `nn` | graph, compiler, layers, training, data, vision, networks | `tune` |
//! | `onnx` | ONNX files | `nn` |
//! | `image` | data sets of JPEG and PNG files | `nn` |
//!
//! All but `onnx` and `image` are on by default.
//!
//! # What holds everywhere
//!
//! * Bad input is an [`Error`] at construction, with both numbers that disagree. A valid plan or session refuses only
//!   arguments of the wrong length, shape or layout, and weights that were packed for another plan.
//! * Results are the same bits for any number of threads. Levels may differ in their last bits.
//! * Lengths are in `f32` elements, extents are `[n, c, h, w]` whatever the layout, and PyTorch's names mean what they mean
//!   there.
#![forbid(unsafe_code)]
// Some of the lower floors serves the upper ones alone.
#![cfg_attr(not(feature = "nn"), allow(dead_code))]

pub mod algo;
pub mod benchdnn;
mod buffer;
pub mod conv;
mod cpu;
mod error;
pub mod layout;
pub mod machine;
pub mod norm;
pub mod par;
pub mod pool;
pub mod resample;
pub mod softmax;
mod tensor;
pub mod tune;
mod tuning;

#[cfg(feature = "tune")]
pub mod file;

#[cfg(feature = "nn")]
pub mod compile;
#[cfg(feature = "nn")]
pub mod data;
#[cfg(feature = "nn")]
pub mod graph;
#[cfg(feature = "nn")]
mod gzip;
#[cfg(feature = "nn")]
pub mod metrics;
#[cfg(feature = "nn")]
mod model;
#[cfg(feature = "nn")]
pub mod nn;
#[cfg(feature = "nn")]
pub mod ops;
#[cfg(feature = "nn")]
mod random;
#[cfg(feature = "nn")]
mod rect;
#[cfg(feature = "nn")]
pub mod train;
#[cfg(feature = "nn")]
pub mod vision;
#[cfg(feature = "nn")]
mod weights;
#[cfg(feature = "nn")]
pub mod zoo;

#[cfg(feature = "onnx")]
pub mod onnx;

pub use algo::Accuracy;
pub use buffer::written;
pub use conv::{
    ConvBackwardBias, ConvBackwardData, ConvBackwardWeights, ConvPlan, Epilogue, FiniteRange, MatMul, Options,
    PackedWeights, PlanCache, Scratch, WeightsKey,
};
pub use cpu::{LEVEL_VARIABLE, cpu};
pub use error::{Error, Result};
pub use swath_kernels::epilogue::Activation;
pub use swath_kernels::isa::{Cpu, Level};
pub use swath_kernels::layout::{Layout, Pitches};
pub use swath_kernels::machine::Core;
pub use swath_kernels::shape::{ConvShape, ConvTransposeShape, Padding, Pair, PoolShape, ShapeError};
pub use tensor::Tensor;
pub use tune::Tuning;
#[cfg(feature = "nn")]
pub use {
    compile::{Session, SessionOptions, StepProfile},
    graph::{Graph, Value},
    model::{Loaded, Model, Strictness},
    random::Random,
    rect::Rect,
    weights::WeightsFile,
};

/// The examples of README.md compile and run as doctests.
#[cfg(all(doctest, feature = "nn"))]
#[doc = include_str!("../README.md")]
struct Readme;
