//! Data gradients that serve several rows: a convolution with turned weights, and the phases of a stride.

use std::sync::Arc;

use swath_kernels::backward_data::{self, BackwardData};
use swath_kernels::epilogue::Outputs;
use swath_kernels::exec::Executor;
use swath_kernels::machine::Core;
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::{Taps, Weights};

use super::cost::{Work, blocks_of, copied, predict, scattered};
use super::kernel::{Convolution, Planning, Run, convolution_methods};
use super::request::Request;

/// What a row does forward, on the gradient at the output.
#[derive(Debug)]
struct Turned {
    /// The convolution of the gradient.
    shape: ConvShape,
    kernel: Arc<dyn Convolution>,
}

/// The data gradient by what an algorithm does forward.
pub(super) fn turned(
    r: &Request<'_>,
    forward: impl Fn(&Request<'_>) -> Planning<dyn Convolution>,
) -> Planning<dyn Convolution> {
    let Some(shape) = backward_data::turned(r.shape) else {
        return Err("the stride is not 1, or the padding reaches beyond the kernel".into());
    };
    let [x, y] = r.views;
    let kernel = forward(&Request { shape: &shape, views: [y, x], ..*r })?;
    Ok(Arc::new(Turned { shape, kernel }))
}

impl Convolution for Turned {
    fn name(&self) -> &'static str {
        self.kernel.name()
    }

    fn packed_len(&self) -> usize {
        self.kernel.packed_len()
    }

    fn scratch_len(&self, threads: usize) -> usize {
        self.kernel.scratch_len(threads)
    }

    fn pack(&self, w: &Weights<'_>, packed: &mut [f32], executor: &dyn Executor) {
        let all = [Taps::all(self.shape.kh), Taps::all(self.shape.kw)];
        self.kernel.pack(&w.turn(all), packed, executor);
    }

    fn run<'y>(&self, run: Run<'_>, y: Outputs<'y>) -> &'y mut [f32] {
        self.kernel.run(run, y)
    }

    fn work(&self, core: Core, _: &ConvShape) -> Work {
        self.kernel.work(core, &self.shape)
    }

    fn predict(&self, algo: &'static str, core: Core, _: &ConvShape) -> f64 {
        self.kernel.predict(algo, core, &self.shape)
    }
}

/// The data gradient by phases of its strides, each by register tiles.
pub(super) fn phases(r: &Request<'_>) -> Planning<dyn Convolution> {
    let [x, y] = r.views;
    Ok(Arc::new(BackwardData::of_views(r.shape, r.core, [y, x]).map_err(|e| e.to_string())?))
}

impl Convolution for BackwardData {
    convolution_methods!(run, pack_from, executor);

    fn work(&self, core: Core, shape: &ConvShape) -> Work {
        let [dx, dy] = blocks_of(shape);
        // Both copies as what is read: for some cores, what a depthwise convolution writes counts for nothing.
        let [read, written] = copied([dy, dx], self.copied());
        let moved = [read.saturating_add(written - dx), dx];
        Work::of(core, shape.macs_inside() as f64 * self.waste(), moved, [dy, dx], self.packed_len())
    }

    fn predict(&self, algo: &'static str, core: Core, shape: &ConvShape) -> f64 {
        let Work([macs, moved @ ..]) = self.work(core, shape);
        let [a, b, c, d, e, f] = moved;
        predict(algo, core, &Work([macs * scattered(algo, core, shape, shape.ocg()), a, b, c, d, e, f]))
    }
}
