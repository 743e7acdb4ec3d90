//! Single-threaded SIMD microkernels for convolutional networks.
//!
//! This crate holds every line of `unsafe` code of [swath](https://docs.rs/swath). It does no I/O, reads no
//! environment, starts no thread and allocates nothing in a run: callers hand in slices and scratch. Most users want the
//! crate `swath`, which plans, tunes and threads these kernels; framework authors may link this one directly.
//!
//! # Map, imports point to the same floor or to lower ones
//!
//! | floor | module | what it holds |
//! |---|---|---|
//! | 0 | [`shape`] | checked geometry: the one place that computes output sizes |
//! | 0 | [`layout`] | the channel block; NCHW, NHWC and blocked |
//! | 0 | [`weights`] | weights as kernels read them while they pack: in PyTorch's order, or turned |
//! | 0 | [`isa`] | instruction-set levels, their detection, and the operations that kernels are written in |
//! | 0 | [`isa::matrix`] | matrix units, and floats as sums of three bf16 parts |
//! | 0 | [`control_word`] | rounding and subnormal numbers: the same on every thread |
//! | 0 | [`exec`] | how work reaches threads that this crate does not start |
//! | 0 | `setters` | methods of builders that set an option |
//! | 0 | `unrolled` | loops that are written out |
//! | 1 | [`pass`] | where passes over slices run, how their outputs are cut, bodies in safe Rust for every level |
//! | 1 | [`vecmath`] | exp, tanh, sigmoid, erf and friends with stated error bounds |
//! | 1 | [`epilogue`] | bias, residual and activation on a register tile, before its one store |
//! | 1 | [`finite`] | for which magnitudes results are finite |
//! | 1 | `groups` | output channels, cut into pieces of one group each |
//! | 1 | `region` | the axes of a window, cut into segments of equal taps |
//! | 1 | `table` | what families make their kernels callable with: tables by level, outermost edges |
//! | 1 | [`probe`] | kernels that measure the machine: FMA peak, read bandwidth |
//! | 1 | [`machine`] | what planning may ask of a machine: a core, as a value |
//! | 2 | [`act`] | activations, softmax and log-softmax over slices |
//! | 2 | `slices` | tensors as slices of pixels, sums over them in an order fixed by the shape |
//! | 3 | [`arith`] | arithmetic with broadcasting, sums over axes, PReLU, forward and backward |
//! | 3 | [`reorder`](mod@reorder) | changes of layout, transposed in registers |
//! | 3 | [`resample`] | interpolation and padding, forward and backward |
//! | 3 | [`shuffle`], [`dropout`] | pixel shuffle and unshuffle; dropout without a stored mask |
//! | 3 | [`softmax`] | softmax and log-softmax over any axis, cross-entropy, forward and backward |
//! | 3 | [`norm`] | batch, group, instance and layer normalisation, forward and backward |
//! | 3 | [`tile`] | the register tile: the one multiply-accumulate body under direct, stem, 1x1 and GEMM |
//! | 4 | [`direct`] | direct convolution: loops, regions and blocking around the tile |
//! | 4 | [`depthwise`] | depthwise and small-group convolution, where a vector holds whole groups |
//! | 4 | [`planar`] | depthwise and small-group convolution in NCHW, where a vector lies along a row |
//! | 4 | [`gemm`] | packed, cache-blocked matrix product; im2col as a way of packing |
//! | 4 | [`winograd`] | 3x3 convolution of stride 1 with fewer multiplications: F(2x2), F(4x4), F(6x6) |
//! | 4 | [`bf16x6`](mod@bf16x6) | convolution on matrix units |
//! | 4 | [`backward_data`] | the gradient at a convolution's input, and transposed convolution |
//! | 4 | [`backward_weights`] | the gradients at a convolution's weights and bias |
//! | 4 | [`separable`] | a depthwise convolution and the 1x1 convolution behind it, by strips of rows |
//! | 4 | [`pool`] | max, average, adaptive and global pooling |
//! | 4 | [`registry`] | the list of all kernel tables |
//! | - | [`reference`](mod@reference) | naive loops that accumulate in f64: the only oracle |
//!
//! # Glossary
//!
//! | letter | meaning |
//! |---|---|
//! | `n` | images in the batch |
//! | `ic`, `oc` | input and output channels, over all groups |
//! | `ih`, `iw`, `oh`, `ow`, `kh`, `kw` | height and width of input, output and kernel |
//! | `block` | 16 channels that lie next to each other in memory ([`layout::BLOCK`]) |
//! | `icb`, `ocb` | number of an input or output channel block |
//! | `mr`, `nv` | a register tile's pixels (rows) and vectors of output channels (columns) |
//! | `kc`, `mc`, `nc` | GEMM's cache blocks of reduction, rows and columns |
//! | F(m) | Winograd convolution with tiles of `m` x `m` outputs; its `p = m + 2` points an axis |
//! | tap | one position of the kernel's window, `(ky, kx)` |
//!
//! # Contracts that every kernel shares
//!
//! * Nothing past the end of a buffer is read or written: tails are masked, or padded while packing.
//! * Output elements are written once (or once per reduction chunk) and never read before they are written.
//! * What a group computes does not depend on the other groups' channels, NaN and infinities included.
//! * At a level, the order of a sum depends on the shape and the layouts alone, never on the tile, the blocking or the
//!   number of threads, so results are the same bits however the work is split.
//! * Whatever would break memory is an `assert!` on whole extents or a listed point of an `unsafe fn`'s contract.

pub mod act;
pub mod arith;
pub mod backward_data;
pub mod backward_weights;
pub mod bf16x6;
pub mod control_word;
pub mod depthwise;
pub mod direct;
pub mod dropout;
pub mod epilogue;
pub mod exec;
pub mod finite;
pub mod gemm;
mod groups;
pub mod isa;
pub mod layout;
pub mod machine;
pub mod norm;
pub mod pages;
pub mod pass;
pub mod planar;
pub mod pool;
pub mod probe;
pub mod reference;
mod region;
pub mod registry;
pub mod reorder;
pub mod resample;
pub mod separable;
mod setters;
pub mod shape;
pub mod shuffle;
mod slices;
pub mod softmax;
mod table;
pub mod tile;
mod unrolled;
pub mod vecmath;
pub mod weights;
pub mod winograd;

/// The examples of README.md compile and run as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
