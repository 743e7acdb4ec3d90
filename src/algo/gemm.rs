//! Row `gemm`: a packed matrix product, im2col as its packing.

use std::sync::Arc;

use swath_kernels::epilogue::Outputs;
use swath_kernels::exec::Executor;
use swath_kernels::gemm::Im2col;
use swath_kernels::machine::Core;
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::Weights;

use super::cost::{Work, tensors};
use super::kernel::{Convolution, Planning, Run};
use super::request::Request;

/// Every geometry and layout.
pub(super) fn forward(r: &Request<'_>) -> Planning<dyn Convolution> {
    Ok(Arc::new(Im2col::of_views(r.shape, r.core, r.views)))
}

impl Convolution for Im2col {
    fn name(&self) -> &'static str {
        self.kernel()
    }

    fn packed_len(&self) -> usize {
        self.packed_len()
    }

    fn scratch_len(&self, threads: usize) -> usize {
        self.scratch_len().saturating_mul(threads)
    }

    fn pack(&self, w: &Weights<'_>, packed: &mut [f32], _: &dyn Executor) {
        self.pack_from(w, packed);
    }

    fn run<'y>(&self, run: Run<'_>, y: Outputs<'y>) -> &'y mut [f32] {
        self.forward(run.x, run.packed, run.epilogue, y, run.scratch, run.executor)
    }

    fn work(&self, core: Core, shape: &ConvShape) -> Work {
        let (macs, tensors) = (shape.macs_inside() as f64 * self.waste(), tensors(shape));
        Work::of(core, macs, tensors, tensors, self.packed_len())
    }
}
