#![doc = include_str!("../README.md")]

mod adamw;
mod batch_norm;
mod conv;
mod layers;
mod memory;
mod packs;
mod pool;
mod upsample;

pub use adamw::AdamW;
pub use batch_norm::{BatchNorm, batch_norm};
pub use conv::{conv_transpose1d, conv_transpose2d, conv1d, conv2d, linear};
pub use layers::{Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d, Linear};
pub use pool::{avg_pool2d, max_pool2d, max_pool2d_as_candle};
pub use upsample::{upsample_bilinear2d, upsample_nearest1d, upsample_nearest2d};
