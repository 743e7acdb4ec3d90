//! Row `bf16x6`: floats as three bf16 parts, on matrix units.

use std::sync::Arc;

use swath_kernels::bf16x6::{self, Bf16x6};
use swath_kernels::epilogue::Outputs;
use swath_kernels::exec::Executor;
use swath_kernels::finite::FiniteRange;
use swath_kernels::isa::Level;
use swath_kernels::isa::matrix::MatrixUnit;
use swath_kernels::machine::Core;
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::Weights;

use super::cost::{Work, tensors};
use super::kernel::{Convolution, Planning, Run, convolution_methods};
use super::request::Request;

pub(super) fn is_available() -> bool {
    MatrixUnit::Amx.is_available()
}

pub(super) fn forward(r: &Request<'_>) -> Planning<dyn Convolution> {
    r.refuse_exact()?;
    if !r.is_dense() {
        return Err("rows, channels or images lie apart".into());
    }
    if r.core.level != Level::Avx512 {
        return Err(format!("takes level avx512, not {}", r.core.level));
    }
    let [input, output] = r.layouts();
    Ok(Arc::new(Bf16x6::new(r.shape, r.core, MatrixUnit::Amx, input, output)?))
}

impl Convolution for Bf16x6 {
    convolution_methods!(forward, pack_from, executor);

    fn work(&self, core: Core, shape: &ConvShape) -> Work {
        let tensors = tensors(shape);
        Work::of(core, self.macs() as f64, tensors, tensors, self.packed_len())
    }

    fn finite_range(&self) -> FiniteRange {
        bf16x6::finite_range()
    }
}
