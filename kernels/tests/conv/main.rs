//! Direct and depthwise convolution against the naive oracle: every kernel row, every level, invented shapes.

mod gradients;
mod invented;
mod rows;
mod support;
