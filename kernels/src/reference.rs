//! Naive loops that accumulate in f64: the only oracle. Everything is NCHW, nothing is fast.

mod act;
mod arith;
mod conv;
mod gemm;
mod norm;
mod numeric;
mod pool;
mod resample;
mod softmax;

pub use act::{activation, activation_gradient, erf, erfc, log_softmax, softmax};
pub use arith::{arith, arith_gradients, prelu, prelu_gradients};
pub use conv::{conv2d, conv2d_backward_bias, conv2d_backward_data, conv2d_backward_weights};
pub use gemm::gemm;
pub use norm::{NormIndex, moments, normalise, normalise_gradients};
pub use numeric::{assert_gradient, numeric_gradient, values};
pub use pool::{
    adaptive_avg_pool2d, adaptive_avg_pool2d_gradient, adaptive_max_pool2d, avg_pool2d, avg_pool2d_gradient,
    max_pool2d, max_pool2d_gradient,
};
pub use resample::{Taps, pad_taps, resample, resample_gradient, resize_taps};
pub use softmax::{cross_entropy, cross_entropy_gradient, log_softmax_axis, softmax_axis, softmax_axis_gradient};
