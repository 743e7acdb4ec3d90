//! Direct and depthwise convolution against the naive oracle: every kernel row, every level, invented shapes.

mod gradients;
mod groups;
mod invented;
mod knobs;
mod magnitudes;
mod rows;
mod separable;
mod support;
#[path = "../threads/mod.rs"]
mod threads;
#[path = "../tries/mod.rs"]
mod tries;
