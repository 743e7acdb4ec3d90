//! What an algorithm plans: a trait for kernels that make a tensor, another one for those that sum over pixels, and what plans hold.

use core::fmt::Debug;
use core::panic::RefUnwindSafe;
use std::sync::Arc;

use swath_kernels::epilogue::{Epilogue, Outputs};
use swath_kernels::exec::Executor;
use swath_kernels::finite::FiniteRange;
use swath_kernels::machine::Core;
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::Weights;

use super::Algo;
use super::cost::{Work, predict};
use super::request::{Pass, Request};

/// A planned kernel, or why the algorithm does not do the shape.
pub(super) type Planning<K> = Result<Arc<K>, String>;

/// A kernel that makes a tensor of a tensor and packed weights: a convolution, or its data gradient. The shape that it is told is the
/// one that it was planned for.
pub(super) trait Convolution: Debug + Send + Sync + RefUnwindSafe {
    /// Name of the microkernel that does most of the work.
    fn name(&self) -> &'static str;

    /// Floats of packed weights.
    fn packed_len(&self) -> usize;

    /// Floats of scratch for a number of threads.
    fn scratch_len(&self, threads: usize) -> usize;

    /// Packs the weights of the convolution.
    fn pack(&self, w: &Weights<'_>, packed: &mut [f32], executor: &dyn Executor);

    /// Makes `y`.
    fn run<'y>(&self, run: Run<'_>, y: Outputs<'y>) -> &'y mut [f32];

    /// What it does, in the cost model's terms.
    fn work(&self, core: Core, shape: &ConvShape) -> Work;

    /// Predicted milliseconds on one thread of a core.
    fn predict(&self, algo: &'static str, core: Core, shape: &ConvShape) -> f64 {
        predict(algo, core, &self.work(core, shape))
    }

    /// For which magnitudes results are finite wherever the defining sum is.
    fn finite_range(&self) -> FiniteRange {
        FiniteRange::PLAIN
    }
}

/// Methods of a [`Convolution`] whose kernel has them under the names that follow, where it packs on an executor's threads if one is named.
macro_rules! convolution_methods {
    ($run:ident, pack_from$(, $executor:ident)?) => {
        fn name(&self) -> &'static str {
            self.kernel()
        }

        fn packed_len(&self) -> usize {
            self.packed_len()
        }

        fn scratch_len(&self, threads: usize) -> usize {
            self.scratch_len().saturating_mul(threads)
        }

        fn pack(&self, w: &Weights<'_>, packed: &mut [f32], _executor: &dyn Executor) {
            $(let $executor = _executor;)?
            self.pack_from(w, packed$(, $executor)?);
        }

        fn run<'y>(&self, run: Run<'_>, y: Outputs<'y>) -> &'y mut [f32] {
            self.$run(run.x, run.packed, run.epilogue, y, run.scratch, run.executor)
        }
    };
}

/// What a [`Convolution`] reads, and runs on.
pub(crate) struct Run<'a> {
    /// What it reads.
    pub x: &'a [f32],
    pub packed: &'a [f32],
    pub epilogue: &'a Epilogue<'a>,
    pub scratch: &'a mut [f32],
    pub executor: &'a dyn Executor,
}

/// A kernel that sums over the pixels of an input and of the gradient at the output. The shape that it is told is the one that it was
/// planned for.
pub(super) trait WeightGradient: Debug + Send + Sync + RefUnwindSafe {
    /// Name of the microkernel that does most of the work.
    fn name(&self) -> &'static str;

    /// Floats of scratch for a number of threads.
    fn scratch_len(&self, threads: usize) -> usize;

    /// Makes the gradient at the weights, and the one at the bias where that is asked for.
    fn run<'w>(&self, sum: Sum<'_>, dw: Outputs<'w>) -> &'w mut [f32];

    /// What it does, in the cost model's terms.
    fn work(&self, core: Core, shape: &ConvShape) -> Work;

    /// Predicted milliseconds on one thread of a core, by the coefficients of the same algorithm forward.
    fn predict(&self, algo: &'static str, core: Core, shape: &ConvShape) -> f64 {
        predict(algo, core, &self.work(core, shape))
    }
}

/// Methods of a [`WeightGradient`] whose kernel has them.
macro_rules! weight_gradient_methods {
    (scratch_len($($threads:ident)?)) => {
        fn name(&self) -> &'static str {
            self.kernel()
        }

        fn scratch_len(&self, _threads: usize) -> usize {
            $(let $threads = _threads;)?
            self.scratch_len($($threads)?)
        }

        fn run<'w>(&self, sum: Sum<'_>, dw: Outputs<'w>) -> &'w mut [f32] {
            let [x, dy] = sum.tensors;
            self.run(x, dy, dw, sum.db, sum.scratch, sum.executor)
        }
    };
}

pub(super) use {convolution_methods, weight_gradient_methods};

/// What a [`WeightGradient`] reads, and runs on.
pub(crate) struct Sum<'a> {
    /// The input, and the gradient at the output.
    pub tensors: [&'a [f32]; 2],
    /// Where the gradient at the bias goes.
    pub db: Option<&'a mut [f32]>,
    pub scratch: &'a mut [f32],
    pub executor: &'a dyn Executor,
}

/// A kernel that is planned for one pass of a convolution: what a plan holds.
pub(crate) trait Planned: Sized {
    /// The pass.
    const PASS: Pass;

    /// The kernel of an algorithm, or why it does not do the shape.
    fn plan(algo: &Algo, request: &Request<'_>) -> Result<Self, String>;

    /// Predicted milliseconds on one thread of a core.
    fn predict(&self, algo: &'static str, core: Core, shape: &ConvShape) -> f64;

    /// Floats of packed weights.
    fn packed_len(&self) -> usize;

    /// Floats of scratch for a number of threads.
    fn scratch_len(&self, threads: usize) -> usize;

    /// For which magnitudes results are finite, if that is stated.
    fn stated_range(&self) -> Option<FiniteRange> {
        None
    }
}

/// A kernel that makes a tensor of a tensor and packed weights.
pub(crate) trait Packs: Planned {
    /// Packs the weights of the convolution.
    fn pack(&self, w: &Weights<'_>, packed: &mut [f32], executor: &dyn Executor);

    /// Makes `y`.
    fn run<'y>(&self, run: Run<'_>, y: Outputs<'y>) -> &'y mut [f32];
}

/// What plans hold of a pass that makes a tensor.
macro_rules! makes_a_tensor {
    ($(#[$about:meta])* $name:ident, $pass:expr, $column:expr, $stated:expr) => {
        $(#[$about])*
        #[derive(Clone, Debug)]
        pub struct $name(pub(super) Arc<dyn Convolution>);

        impl Planned for $name {
            const PASS: Pass = $pass;

            fn plan(algo: &Algo, request: &Request<'_>) -> Result<Self, String> {
                $column(algo, request)
            }

            fn predict(&self, algo: &'static str, core: Core, shape: &ConvShape) -> f64 {
                self.0.predict(algo, core, shape)
            }

            fn packed_len(&self) -> usize {
                self.0.packed_len()
            }

            fn scratch_len(&self, threads: usize) -> usize {
                self.0.scratch_len(threads)
            }

            fn stated_range(&self) -> Option<FiniteRange> {
                $stated(self)
            }
        }

        impl Packs for $name {
            fn pack(&self, w: &Weights<'_>, packed: &mut [f32], executor: &dyn Executor) {
                self.0.pack(w, packed, executor);
            }

            fn run<'y>(&self, run: Run<'_>, y: Outputs<'y>) -> &'y mut [f32] {
                self.0.run(run, y)
            }
        }

        impl $name {
            /// Name of the microkernel that does most of the work.
            pub fn name(&self) -> &'static str {
                self.0.name()
            }

            /// Floats of packed weights.
            pub fn packed_len(&self) -> usize {
                self.0.packed_len()
            }

            /// Floats of scratch for a number of threads.
            pub fn scratch_len(&self, threads: usize) -> usize {
                self.0.scratch_len(threads)
            }
        }
    };
}

makes_a_tensor! {
    /// A planned convolution.
    Kernel, Pass::Forward, |algo: &Algo, r: &Request<'_>| (algo.plan)(r), |k: &Kernel| Some(k.finite_range())
}

makes_a_tensor! {
    /// A planned data gradient. As a kernel it is a convolution's: a tensor in, packed weights, a tensor out.
    DataKernel, Pass::BackwardData, Algo::data, |_| None
}

impl Kernel {
    /// What it does with the shape that it was planned for, in the cost model's terms.
    pub fn work(&self, core: Core, shape: &ConvShape) -> Work {
        self.0.work(core, shape)
    }

    /// For which magnitudes results are finite wherever the defining sum is.
    pub fn finite_range(&self) -> FiniteRange {
        self.0.finite_range()
    }
}

/// A planned weight gradient.
#[derive(Clone, Debug)]
pub struct WeightKernel(pub(super) Arc<dyn WeightGradient>);

impl Planned for WeightKernel {
    const PASS: Pass = Pass::BackwardWeights;

    fn plan(algo: &Algo, request: &Request<'_>) -> Result<Self, String> {
        algo.weights(request)
    }

    fn predict(&self, algo: &'static str, core: Core, shape: &ConvShape) -> f64 {
        self.0.predict(algo, core, shape)
    }

    /// It reads no weights.
    fn packed_len(&self) -> usize {
        0
    }

    fn scratch_len(&self, threads: usize) -> usize {
        self.0.scratch_len(threads)
    }
}

impl WeightKernel {
    /// Name of the microkernel that does most of the work.
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    /// Floats of scratch for a number of threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        self.0.scratch_len(threads)
    }

    pub(crate) fn run<'w>(&self, sum: Sum<'_>, dw: Outputs<'w>) -> &'w mut [f32] {
        self.0.run(sum, dw)
    }
}
