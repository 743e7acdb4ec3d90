//! candle's convolutions and pooling on swath's kernels, with their gradients.
//!
//! Tensors are candle's, of `f32` on the CPU, contiguous or strided. Plans come from [`swath::PlanCache`], and each function is a
//! custom operator of candle with a backward pass, so that [`candle_core::Tensor::backward`] goes through it.
//!
//! ```
//! use candle_core::{Device, Module, Tensor};
//! # fn main() -> candle_core::Result<()> {
//! let device = Device::Cpu;
//! let (w, b) = (Tensor::randn(0f32, 1.0, (8, 3, 3, 3), &device)?, Tensor::zeros(8, candle_core::DType::F32, &device)?);
//! // In place of `candle_nn::Conv2d::new`:
//! let conv = swath_candle::Conv2d::new(w, Some(b), candle_nn::Conv2dConfig { padding: 1, ..Default::default() });
//! let y = conv.forward(&Tensor::randn(0f32, 1.0, (2, 3, 16, 16), &device)?)?;
//! let y = swath_candle::max_pool2d(&y.relu()?, 2, 2)?;
//! assert_eq!(y.dims(), [2, 8, 8, 8]);
//! # Ok(())
//! # }
//! ```

mod conv;
mod conv_transpose;
mod memory;
mod pool;

pub use conv::{Conv2d, conv2d};
pub use conv_transpose::conv_transpose2d;
pub use pool::{avg_pool2d, max_pool2d};
