#![doc = include_str!("../README.md")]

mod conv;
mod modules;
mod operation;
mod pool;
mod resize;

pub use conv::{conv_transpose2d, conv2d};
pub use modules::OnSwath;
pub use pool::{adaptive_avg_pool2d, avg_pool2d, max_pool2d, max_pool2d_with_indices};
pub use resize::interpolate;
