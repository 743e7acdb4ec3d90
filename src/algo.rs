//! The algorithms: an ordered table, and the cost model that chooses from it.
//!
//! Each row says whether it supports a shape, or why not. For a supported one it plans a kernel, which knows its packed weights, its
//! scratch and what it would do; the cost model turns that into predicted time. Adding an algorithm is one file here, which plans
//! kernels of `swath-kernels` behind the trait `Convolution`, and one row of [`ALGOS`].
//!
//! A row has a column for each [`Pass`]: the convolution, its data gradient and its weight gradient. A data gradient of stride 1 is a
//! convolution of its own, on turned weights, so that most rows do it by what they do forward.

mod backward_data;
mod bf16x6;
mod blocks;
mod cost;
mod depthwise;
mod direct;
mod gemm;
mod kernel;
mod planar;
mod request;
mod winograd;

use swath_kernels::winograd::Variant;

use backward_data::turned;
pub use cost::{COEFFICIENTS, Coefficients, Cores, FEATURES, Work};
pub use kernel::{DataKernel, Kernel, WeightKernel};
pub(crate) use kernel::{Packs, Planned, Run, Sum};
use kernel::{Planning, WeightGradient};
pub use request::{Accuracy, Pass, Request};

/// One row of [`ALGOS`].
#[derive(Debug)]
pub struct Algo {
    /// The name that options, reports and tuning files use.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Whether this machine has what it takes, at its highest level.
    pub is_available: fn() -> bool,
    /// The planned kernel, or why this algorithm does not do the shape.
    pub plan: fn(&Request<'_>) -> Result<Kernel, String>,
    /// Its number in [`ALGOS`].
    row: usize,
}

impl Algo {
    /// [`Algo::plan`] for the data gradient.
    pub fn data(&self, request: &Request<'_>) -> Result<DataKernel, String> {
        DATA[self.row](request)
    }

    /// The same for the weight gradient.
    pub fn weights(&self, request: &Request<'_>) -> Result<WeightKernel, String> {
        WEIGHTS[self.row](request)
    }
}

/// [`ALGOS`] of its rows. The passes stand in tables of their own, so that a program of one pass does not carry the kernels of all.
macro_rules! algos {
    ($(Algo {
        name: $name:literal,
        summary: $summary:literal,
        is_available: $available:expr,
        plan: $plan:expr,
        data: $data:expr,
        weights: $weights:expr,
    },)*) => {
        /// All algorithms. The order breaks ties of the cost model and carries no other meaning.
        pub static ALGOS: &[Algo] = &numbered([$(Algo {
            name: $name,
            summary: $summary,
            is_available: $available,
            plan: |r| $plan(r).map(Kernel),
            row: 0,
        }),*]);

        static DATA: &[fn(&Request<'_>) -> Result<DataKernel, String>] = &[$(|r| $data(r).map(DataKernel)),*];
        static WEIGHTS: &[fn(&Request<'_>) -> Result<WeightKernel, String>] = &[$(|r| $weights(r).map(WeightKernel)),*];
    };
}

const fn numbered<const N: usize>(mut rows: [Algo; N]) -> [Algo; N] {
    let mut i = 0;
    while i < N {
        rows[i].row = i;
        i += 1;
    }
    rows
}

algos! {
    Algo {
        name: "depthwise",
        summary: "whole groups in a vector's lanes: depthwise and small groups",
        is_available: everywhere,
        plan: depthwise::forward,
        data: depthwise::data,
        weights: depthwise::weights,
    },
    Algo {
        name: "planar",
        summary: "a vector along a row of NCHW: depthwise and small groups, nothing copied",
        is_available: everywhere,
        plan: planar::forward,
        data: planar::data,
        weights: planar::weights,
    },
    Algo {
        name: "direct",
        summary: "register tiles over channel blocks, straight from the input",
        is_available: everywhere,
        plan: direct::forward,
        data: direct::data,
        weights: direct::weights,
    },
    Algo {
        name: "stem",
        summary: "register tiles straight from NCHW: few input channels",
        is_available: everywhere,
        plan: direct::stem,
        data: direct::stem_data,
        weights: direct::stem_weights,
    },
    Algo {
        name: "winograd2",
        summary: "3x3 of stride 1 on tiles of 2x2 outputs: 2.25 times fewer multiplications",
        is_available: everywhere,
        plan: |r| winograd::forward(r, Variant::F2),
        data: |r| turned(r, |r| winograd::forward(r, Variant::F2)),
        weights: no_weights,
    },
    Algo {
        name: "winograd4",
        summary: "3x3 of stride 1 on tiles of 4x4 outputs: 4 times fewer multiplications",
        is_available: everywhere,
        plan: |r| winograd::forward(r, Variant::F4),
        data: |r| turned(r, |r| winograd::forward(r, Variant::F4)),
        weights: winograd::weights,
    },
    Algo {
        name: "winograd6",
        summary: "3x3 of stride 1 on tiles of 6x6 outputs: 5 times fewer multiplications; only if accuracy is `Fast`",
        is_available: everywhere,
        plan: |r| winograd::forward(r, Variant::F6),
        data: |r| turned(r, |r| winograd::forward(r, Variant::F6)),
        weights: no_weights,
    },
    Algo {
        name: "bf16x6",
        summary: "matrix units (AMX): floats as three bf16 parts, six products for one; not if accuracy is `Exact`",
        is_available: bf16x6::is_available,
        plan: bf16x6::forward,
        data: |r| turned(r, bf16x6::forward),
        weights: no_weights,
    },
    Algo {
        name: "gemm",
        summary: "packed matrix product, im2col as its packing: every geometry and layout",
        is_available: everywhere,
        plan: gemm::forward,
        data: |r| turned(r, gemm::forward),
        weights: no_weights,
    },
}

fn everywhere() -> bool {
    true
}

/// The row of that name.
pub fn find(name: &str) -> Option<&'static Algo> {
    ALGOS.iter().find(|a| a.name == name)
}

fn no_weights(_: &Request<'_>) -> Planning<dyn WeightGradient> {
    Err("does no weight gradients".into())
}
