//! Row `planar`: a vector along a row of NCHW, nothing copied.

use std::sync::Arc;

use swath_kernels::backward_data::PlanarData;
use swath_kernels::backward_weights::PlanarWeights;
use swath_kernels::epilogue::Outputs;
use swath_kernels::exec::Executor;
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::machine::Core;
use swath_kernels::planar::Planar;
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::Weights;

use super::backward_data::turned;
use super::cost::{COPY, Work, tensors};
use super::kernel::{Convolution, Planning, Run, Sum, WeightGradient, weight_gradient_methods};
use super::request::Request;

pub(super) fn forward(r: &Request<'_>) -> Planning<dyn Convolution> {
    if r.layouts() != [Layout::Nchw; 2] {
        let [input, output] = r.layouts().map(Layout::name);
        return Err(format!("from nchw to nchw, not from {input} to {output}"));
    }
    Ok(Arc::new(Planar::of_views(r.shape, r.core, r.views)?))
}

impl Convolution for Planar {
    fn name(&self) -> &'static str {
        self.kernel()
    }

    fn packed_len(&self) -> usize {
        self.packed_len()
    }

    fn scratch_len(&self, _: usize) -> usize {
        0
    }

    fn pack(&self, w: &Weights<'_>, packed: &mut [f32], _: &dyn Executor) {
        self.pack_from(w, packed);
    }

    fn run<'y>(&self, run: Run<'_>, y: Outputs<'y>) -> &'y mut [f32] {
        self.forward(run.x, run.packed, run.epilogue, y, run.executor)
    }

    fn work(&self, core: Core, shape: &ConvShape) -> Work {
        let (macs, tensors) = (shape.macs_inside() as f64 * self.waste(), tensors(shape));
        Work::of(core, macs, tensors, tensors, self.packed_len())
    }
}

/// Of a stride across of 1 as forward.
pub(super) fn data(r: &Request<'_>) -> Planning<dyn Convolution> {
    if r.shape.sw == 1 {
        return turned(r, forward);
    }
    if r.layouts() != [Layout::Nchw; 2] {
        return Err("reads and writes nchw".into());
    }
    let [x, y] = r.views;
    Ok(Arc::new(PlanarData::of_views(r.shape, r.core, [y, x])?))
}

impl Convolution for PlanarData {
    fn name(&self) -> &'static str {
        self.kernel()
    }

    fn packed_len(&self) -> usize {
        self.shape().weights().iter().product()
    }

    fn scratch_len(&self, _: usize) -> usize {
        0
    }

    fn pack(&self, w: &Weights<'_>, packed: &mut [f32], _: &dyn Executor) {
        packed.copy_from_slice(w.data());
    }

    fn run<'y>(&self, run: Run<'_>, y: Outputs<'y>) -> &'y mut [f32] {
        self.run(run.x, run.packed, run.epilogue, y, run.executor)
    }

    fn work(&self, core: Core, shape: &ConvShape) -> Work {
        let [y, x] = [shape.output(), shape.input()].map(|dims| Layout::Nchw.len(dims));
        // With fewer lanes the phases are put side by side by more instructions (Zen 3: 0.3 ms for 144 channels at 56x56).
        let written = if core.level == Level::Avx512 { x } else { x.saturating_mul(COPY) };
        Work::of(core, shape.macs() as f64, [y, written], [y, x], Convolution::packed_len(self))
    }
}

/// Depthwise 3x3.
pub(super) fn weights(r: &Request<'_>) -> Planning<dyn WeightGradient> {
    Ok(Arc::new(PlanarWeights::of_views(r.shape, r.core, r.views)?))
}

impl WeightGradient for PlanarWeights {
    weight_gradient_methods!(scratch_len());

    fn work(&self, core: Core, shape: &ConvShape) -> Work {
        let planes = [shape.input(), shape.output()].map(|dims| Layout::Nchw.len(dims));
        Work::of_sums(core, shape, shape.macs() as f64 * self.waste(), planes)
    }
}
