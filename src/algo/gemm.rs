//! Row `gemm`: a packed matrix product, im2col as its packing.

use std::sync::Arc;

use swath_kernels::epilogue::Outputs;
use swath_kernels::exec::Executor;
use swath_kernels::gemm::Im2col;
use swath_kernels::machine::Core;
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::Weights;

use super::cost::{Work, tensors};
use super::kernel::{Convolution, Planning, Run, convolution_methods};
use super::request::Request;

/// Every geometry and layout.
pub(super) fn forward(r: &Request<'_>) -> Planning<dyn Convolution> {
    Ok(Arc::new(Im2col::of_views(r.shape, r.core, r.views)))
}

impl Convolution for Im2col {
    convolution_methods!(forward, pack_from);

    fn work(&self, core: Core, shape: &ConvShape) -> Work {
        let (macs, tensors) = (shape.macs_inside() as f64 * self.waste(), tensors(shape));
        Work::of(core, macs, tensors, tensors, self.packed_len())
    }
}
