//! Rows `direct` and `stem`: register tiles, over blocks of channels or straight from NCHW.

use std::sync::Arc;

use swath_kernels::backward_weights::{BackwardWeights, StemWeights};
use swath_kernels::direct::Direct;
use swath_kernels::epilogue::Outputs;
use swath_kernels::exec::Executor;
use swath_kernels::layout::{BLOCK, Layout};
use swath_kernels::machine::Core;
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::Weights;

use super::backward_data::phases;
use super::blocks;
use super::cost::{Work, blocks_of, predict, scattered, tensors};
use super::kernel::{Convolution, Planning, Run, Sum, WeightGradient, convolution_methods, weight_gradient_methods};
use super::request::Request;

/// From blocks or NHWC, and from NCHW through blocks.
pub(super) fn forward(r: &Request<'_>) -> Planning<dyn Convolution> {
    blocks::forward(r, r.planes_to_copy(0), |r| {
        if r.layouts()[0] == Layout::Nchw {
            return Err("reads blocked or nhwc input, or nchw of 16 channels and more in groups of whole blocks".into());
        }
        tiles(r)
    })
}

/// From NCHW.
pub(super) fn stem(r: &Request<'_>) -> Planning<dyn Convolution> {
    let [input, _] = r.layouts();
    if input != Layout::Nchw {
        return Err(format!("reads nchw input, not {}", input.name()));
    }
    let [_, output] = r.planes_of_whole_groups();
    blocks::forward(r, [false, output], tiles)
}

fn tiles(r: &Request<'_>) -> Planning<dyn Convolution> {
    Ok(Arc::new(Direct::of_views(r.shape, r.core, r.views)))
}

impl Convolution for Direct {
    convolution_methods!(forward, pack_from, executor);

    fn work(&self, core: Core, shape: &ConvShape) -> Work {
        let (macs, tensors) = (shape.macs_inside() as f64 * self.waste(), tensors(shape));
        Work::of(core, macs, tensors, tensors, self.packed_len())
    }

    fn predict(&self, algo: &'static str, core: Core, shape: &ConvShape) -> f64 {
        predict(algo, core, &self.work(core, shape)) * scattered(algo, core, shape, shape.icg())
    }
}

/// By phases, from blocked or NHWC gradients, and from NCHW through blocks.
pub(super) fn data(r: &Request<'_>) -> Planning<dyn Convolution> {
    blocks::data(r, r.planes_to_copy(1), |r| {
        if r.layouts()[1] == Layout::Nchw {
            return Err(
                "reads blocked or nhwc gradients, or nchw of 16 channels and more in groups of whole blocks".into()
            );
        }
        phases(r)
    })
}

/// By phases from NCHW.
pub(super) fn stem_data(r: &Request<'_>) -> Planning<dyn Convolution> {
    let [_, output] = r.layouts();
    if output != Layout::Nchw {
        return Err(format!("reads nchw gradients, not {}", output.name()));
    }
    let [input, _] = r.planes_of_whole_groups();
    blocks::data(r, [input, false], phases)
}

/// By sums over pixels: every geometry and layout.
pub(super) fn weights(r: &Request<'_>) -> Planning<dyn WeightGradient> {
    // Of fewer channels a block is mostly padding.
    let [x, dy] = r.not_in_blocks();
    blocks::weights(r, [x && r.shape.ic >= BLOCK, dy && r.shape.oc >= BLOCK], |r| {
        Ok(Arc::new(BackwardWeights::of_views(r.shape, r.core, r.views)))
    })
}

impl WeightGradient for BackwardWeights {
    weight_gradient_methods!(scratch_len(threads));

    fn work(&self, core: Core, shape: &ConvShape) -> Work {
        Work::of_sums(core, shape, shape.macs_inside() as f64 * self.waste(), blocks_of(shape))
    }
}

/// By sums over pixels, for few input channels.
pub(super) fn stem_weights(r: &Request<'_>) -> Planning<dyn WeightGradient> {
    let [_, dy] = r.not_in_blocks();
    blocks::weights(r, [false, dy], |r| Ok(Arc::new(StemWeights::of_views(r.shape, r.core, r.views)?)))
}

impl WeightGradient for StemWeights {
    weight_gradient_methods!(scratch_len(threads));

    fn work(&self, core: Core, shape: &ConvShape) -> Work {
        Work::of_sums(core, shape, shape.macs() as f64, blocks_of(shape))
    }
}
