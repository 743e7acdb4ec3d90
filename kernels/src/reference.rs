//! Naive loops that accumulate in f64: the only oracle. Everything is NCHW, nothing is fast.

mod conv;
mod gemm;

pub use conv::conv2d;
pub use gemm::gemm;
