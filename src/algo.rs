//! The algorithms: an ordered table, and the cost model that chooses from it.
//!
//! Each row says whether it supports a shape, or why not. A supported one becomes a [`Kernel`], which knows its packed
//! weights, its scratch and what it would do, and the cost model turns that into predicted time. Adding an algorithm is
//! one family module in `swath-kernels`, one variant of [`Kernel`] and one row of [`ALGOS`].

mod cost;

use swath_kernels::depthwise::Depthwise;
use swath_kernels::direct::Direct;
use swath_kernels::epilogue::Epilogue;
use swath_kernels::exec::Executor;
use swath_kernels::gemm::Im2col;
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::shape::ConvShape;

pub(crate) use cost::predict;
pub use cost::{COEFFICIENTS, Coefficients, FEATURES, Work};

/// What an algorithm is asked to plan.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The geometry.
    pub shape: &'a ConvShape,
    /// The instruction-set level.
    pub level: Level,
    /// Layout of the input.
    pub input: Layout,
    /// Layout of the output.
    pub output: Layout,
}

/// One row of [`ALGOS`].
#[derive(Debug)]
pub struct Algo {
    /// The name that options, reports and tuning files use.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// The planned kernel, or why this algorithm does not do the shape.
    pub plan: fn(&Request<'_>) -> Result<Kernel, String>,
}

/// All algorithms. The order breaks ties of the cost model and carries no other meaning.
pub static ALGOS: &[Algo] = &[
    Algo {
        name: "depthwise",
        summary: "whole groups in a vector's lanes: depthwise and small groups",
        plan: depthwise,
    },
    Algo { name: "direct", summary: "register tiles over channel blocks, no copy of the input", plan: direct },
    Algo { name: "stem", summary: "register tiles straight from NCHW: few input channels", plan: stem },
    Algo {
        name: "gemm",
        summary: "packed matrix product, im2col as its packing: every geometry and layout",
        plan: gemm,
    },
];

/// The row of that name.
pub fn find(name: &str) -> Option<&'static Algo> {
    ALGOS.iter().find(|a| a.name == name)
}

fn depthwise(r: &Request<'_>) -> Result<Kernel, String> {
    Ok(Kernel::Depthwise(Box::new(Depthwise::new(r.shape, r.level, r.input, r.output)?)))
}

fn direct(r: &Request<'_>) -> Result<Kernel, String> {
    if r.input == Layout::Nchw {
        return Err("reads blocked or nhwc input, not nchw".into());
    }
    Ok(Kernel::Direct(Box::new(Direct::new(r.shape, r.level, r.input, r.output))))
}

fn stem(r: &Request<'_>) -> Result<Kernel, String> {
    if r.input != Layout::Nchw {
        return Err(format!("reads nchw input, not {}", r.input.name()));
    }
    Ok(Kernel::Direct(Box::new(Direct::new(r.shape, r.level, r.input, r.output))))
}

fn gemm(r: &Request<'_>) -> Result<Kernel, String> {
    Ok(Kernel::Gemm(Box::new(Im2col::new(r.shape, r.level, r.input, r.output))))
}

/// A planned algorithm.
#[derive(Clone, Debug)]
pub enum Kernel {
    /// Rows `direct` and `stem`.
    Direct(Box<Direct>),
    /// Row `depthwise`.
    Depthwise(Box<Depthwise>),
    /// Row `gemm`.
    Gemm(Box<Im2col>),
}

impl Kernel {
    /// Name of the microkernel that does most of the work.
    pub fn name(&self) -> &'static str {
        match self {
            Kernel::Direct(k) => k.kernel(),
            Kernel::Depthwise(k) => k.kernel(),
            Kernel::Gemm(k) => k.kernel(),
        }
    }

    /// Floats of packed weights.
    pub fn packed_len(&self) -> usize {
        match self {
            Kernel::Direct(k) => k.packed_len(),
            Kernel::Depthwise(k) => k.packed_len(),
            Kernel::Gemm(k) => k.packed_len(),
        }
    }

    /// Floats of scratch for a number of threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        let per_thread = match self {
            Kernel::Direct(_) => 0,
            Kernel::Depthwise(k) => k.scratch_len(),
            Kernel::Gemm(k) => k.scratch_len(),
        };
        per_thread * threads
    }

    /// Multiply-adds done per multiply-add of the shape that has its tap inside the image.
    pub fn waste(&self) -> f64 {
        match self {
            Kernel::Direct(k) => k.waste(),
            Kernel::Depthwise(_) => 1.0,
            Kernel::Gemm(k) => k.waste(),
        }
    }

    pub(crate) fn pack(&self, w: &[f32], packed: &mut [f32]) {
        match self {
            Kernel::Direct(k) => k.pack(w, packed),
            Kernel::Depthwise(k) => k.pack(w, packed),
            Kernel::Gemm(k) => k.pack(w, packed),
        }
    }

    pub(crate) fn forward(
        &self,
        x: &[f32],
        packed: &[f32],
        epilogue: &Epilogue<'_>,
        y: &mut [f32],
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) {
        match self {
            Kernel::Direct(k) => k.forward(x, packed, epilogue, y, executor),
            Kernel::Depthwise(k) => k.forward(x, packed, epilogue, y, scratch, executor),
            Kernel::Gemm(k) => k.forward(x, packed, epilogue, y, scratch, executor),
        }
    }
}
