//! Operators that are not convolutions, forward and backward, against the naive oracle and against PyTorch: at every level, in
//! every layout, on invented shapes, with the same bits for any number of threads.

mod act;
mod arith;
mod fixtures;
mod norm;
mod pool;
mod reorder;
mod resample;
mod softmax;
mod support;
#[path = "../threads/mod.rs"]
mod threads;
#[path = "../tries/mod.rs"]
mod tries;
