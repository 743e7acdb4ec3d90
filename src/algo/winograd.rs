//! Rows `winograd2`, `winograd4` and `winograd6`: 3x3 of stride 1 on transformed tiles.

use std::sync::Arc;

use swath_kernels::epilogue::Outputs;
use swath_kernels::exec::Executor;
use swath_kernels::finite::FiniteRange;
use swath_kernels::machine::Core;
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::Weights;
use swath_kernels::winograd::{Variant, Winograd, WinogradWeights};

use super::blocks;
use super::cost::{Work, tensors};
use super::kernel::{Convolution, Planning, Run, Sum, WeightGradient, convolution_methods, weight_gradient_methods};
use super::request::{Accuracy, Request};

/// Two and four outputs a side by default, six if accuracy is `Fast`.
pub(super) fn forward(r: &Request<'_>, variant: Variant) -> Planning<dyn Convolution> {
    r.refuse_exact()?;
    if variant == Variant::F6 && r.accuracy != Accuracy::Fast {
        return Err("the accuracy asked for is not `Fast`".into());
    }
    blocks::forward(r, r.planes_to_copy(0), |r| Ok(Arc::new(Winograd::of_views(r.shape, r.core, variant, r.views)?)))
}

impl Convolution for Winograd {
    convolution_methods!(forward, pack_from, executor);

    fn work(&self, core: Core, shape: &ConvShape) -> Work {
        Work::of(core, self.macs() as f64, self.transformed(), tensors(shape), self.packed_len())
    }

    fn finite_range(&self) -> FiniteRange {
        self.variant().finite_range()
    }
}

/// F(3x3, 4x4).
pub(super) fn weights(r: &Request<'_>) -> Planning<dyn WeightGradient> {
    r.refuse_exact()?;
    blocks::weights(r, r.not_in_blocks(), |r| Ok(Arc::new(WinogradWeights::of_views(r.shape, r.core, r.views)?)))
}

impl WeightGradient for WinogradWeights {
    weight_gradient_methods!(scratch_len(threads));

    fn work(&self, core: Core, shape: &ConvShape) -> Work {
        Work::of_sums(core, shape, self.macs() as f64 * self.waste(), self.transformed())
    }
}
