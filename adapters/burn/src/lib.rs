#![doc = include_str!("../README.md")]

mod conv;
mod modules;
mod norm;
mod operation;
mod pool;
mod resize;

pub use conv::{conv_transpose2d, conv2d};
pub use modules::OnSwath;
pub use norm::{batch_norm, batch_norm_train};
pub use pool::{adaptive_avg_pool2d, avg_pool2d, max_pool2d, max_pool2d_with_indices};
pub use resize::interpolate;
