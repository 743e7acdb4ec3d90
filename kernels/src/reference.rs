//! Naive loops that accumulate in f64: the only oracle. Everything is NCHW, nothing is fast.

mod conv;

pub use conv::conv2d;
