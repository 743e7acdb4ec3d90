//! Row `depthwise`: whole groups in a vector's lanes.

use std::sync::Arc;

use swath_kernels::backward_data::{self, BackwardData};
use swath_kernels::backward_weights::DepthwiseWeights;
use swath_kernels::depthwise::Depthwise;
use swath_kernels::epilogue::Outputs;
use swath_kernels::exec::Executor;
use swath_kernels::layout::Layout;
use swath_kernels::machine::Core;
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::Weights;

use super::backward_data::turned;
use super::blocks;
use super::cost::{Work, blocks_of, copied, tensors};
use super::kernel::{Convolution, Planning, Run, Sum, WeightGradient, convolution_methods, weight_gradient_methods};
use super::request::Request;

pub(super) fn forward(r: &Request<'_>) -> Planning<dyn Convolution> {
    Ok(Arc::new(Depthwise::of_views(r.shape, r.core, r.views)?))
}

impl Convolution for Depthwise {
    convolution_methods!(forward, pack_from);

    fn work(&self, core: Core, shape: &ConvShape) -> Work {
        let tensors = tensors(shape);
        Work::of(core, shape.macs_inside() as f64, copied(tensors, self.copies()), tensors, self.packed_len())
    }
}

/// Of a stride of 1 as forward.
pub(super) fn data(r: &Request<'_>) -> Planning<dyn Convolution> {
    if backward_data::turned(r.shape).is_some() {
        return turned(r, forward);
    }
    // Its weights lie the same for all layouts.
    blocks::data(r, r.planes(), |r| {
        let [x, y] = r.views;
        Ok(Arc::new(BackwardData::depthwise(r.shape, r.core, [y, x])?))
    })
}

/// Floats of an image's input and gradient that are copied to blocks before they are summed lane by lane.
const MOST: usize = 1 << 20;

pub(super) fn weights(r: &Request<'_>) -> Planning<dyn WeightGradient> {
    // Copies of more leave L2: for 96 channels at 112x112 they took 1.5 times as long as what the kernel copies by itself.
    let floats: usize = [r.shape.input(), r.shape.output()].iter().map(|&[_, c, h, w]| c * h * w).sum();
    let channels_last = r.layouts().map(|layout| layout == Layout::Nhwc && floats <= MOST);
    blocks::weights(r, channels_last, |r| Ok(Arc::new(DepthwiseWeights::of_views(r.shape, r.core, r.views)?)))
}

impl WeightGradient for DepthwiseWeights {
    weight_gradient_methods!(scratch_len(threads));

    fn work(&self, core: Core, shape: &ConvShape) -> Work {
        Work::of_sums(core, shape, shape.macs() as f64, copied(blocks_of(shape), self.copied()))
    }
}
