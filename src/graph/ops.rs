//! The operators: one whole operator a file, with its shape rule, its lowering to steps, and its gradient.

use crate::error::{Error, Result};

mod activation;
pub(crate) mod adaptive_max;
mod arith;
pub(crate) mod batch_norm;
mod binary;
mod broadcast;
mod concat;
mod conv;
mod conv_transpose;
pub(crate) mod crop;
mod cross_entropy;
mod difference;
mod dropout;
mod interpolate;
mod layer_norm;
mod linear;
mod norm;
pub(crate) mod pad;
pub(crate) mod pool;
mod prelu;
mod reduce;
mod resample;
mod shuffle;
mod slice;
mod softmax;
mod view;

pub use super::affine::Affine;
pub use activation::Activate;
pub use batch_norm::BatchNorm;
pub use binary::Binary;
pub use concat::Concat;
pub use conv::Conv;
pub(crate) use conv::SeparableStep;
pub use conv_transpose::ConvTranspose;
pub use crop::Cut;
pub use cross_entropy::{CrossEntropy, Reduction};
pub use difference::{Difference, DifferenceLoss};
pub use dropout::Dropout;
pub use interpolate::Interpolate;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use norm::GroupNorm;
pub use pad::Pad;
pub use prelu::PRelu;
pub use reduce::{Expand, Reduce};
pub use shuffle::PixelShuffle;
pub use slice::Slice;
pub use softmax::Softmax;
pub use swath_kernels::resample::{Filter, PadMode, Size};
pub use view::{Flatten, Reshape, Transpose};

/// `[n, c, h, w]`, or an error that names the operator.
pub(crate) fn four(what: &'static str, dims: &[usize]) -> Result<[usize; 4]> {
    dims.try_into().map_err(|_| Error::Rank { what, takes: "[n, c, h, w]", gets: dims.to_vec() })
}

/// The dimension that a number from `-rank` to `rank - 1` means.
fn axis(what: &'static str, dim: isize, rank: usize) -> Result<usize> {
    let at = if dim < 0 { dim.saturating_add_unsigned(rank) } else { dim };
    usize::try_from(at).ok().filter(|&at| at < rank).ok_or_else(|| {
        let rule = format!("there are {rank} dimensions");
        Error::Setting { what, value: dim.to_string(), rule }
    })
}

/// An error if the extents of an operand are not those that its operator was made for.
fn expect(what: &'static str, gets: &[usize], takes: &[usize]) -> Result<()> {
    if gets == takes {
        return Ok(());
    }
    Err(Error::Shapes { what, left: gets.to_vec(), right: takes.to_vec() })
}
