//! The cost model: time as a sum of what an algorithm does, with coefficients fitted to measurements.
//!
//! ```text
//! milliseconds = multiply-adds * c0 + inputs * c1 + outputs * c2 + weights * c3 + weights beyond L3 * c4 + floats beyond L2 * c5 + c6
//! ```
//!
//! with non-negative coefficients per algorithm and level, for one thread. Inputs and outputs are the tensors, or what
//! Winograd makes of them; weights are the packed ones. `swath fit-cost` makes the coefficients: it reads the
//! csv of `swath bench-conv --algo all`, minimises the squared relative error by coordinate descent, and prints the
//! table below.

use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, blocks};
use swath_kernels::shape::ConvShape;

use super::Kernel;

/// Names of the model's terms.
pub const FEATURES: [&str; 7] =
    ["multiply-adds", "inputs", "outputs", "weights", "weights beyond L3", "floats beyond L2", "run"];

/// Floats of packed weights that stay in L3 between runs: three quarters of 32 MiB.
const L3: usize = 6 << 20;

/// Floats of input and output that stay in L2: all of 1 MiB.
const L2: usize = 1 << 18;

/// What an algorithm would do, in the order of [`FEATURES`], in units of a million (the run: 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work(pub [f64; FEATURES.len()]);

impl Work {
    /// What a kernel does with the shape that it was planned for.
    pub fn new(shape: &ConvShape, kernel: &Kernel) -> Self {
        let s = shape;
        let million = |v: usize| v as f64 / 1e6;
        let x = s.n * s.ic * s.ih * s.iw;
        let y = s.n * blocks(s.oc) * BLOCK * s.oh * s.ow;
        let [inputs, outputs] = match kernel {
            Kernel::Winograd(k) => k.transformed(),
            _ => [x, y],
        };
        let packed = kernel.packed_len();
        Self([
            s.macs_inside() as f64 * kernel.waste(s) / 1e6,
            million(inputs),
            million(outputs),
            million(packed),
            million(packed.saturating_sub(L3)),
            million((x + y).saturating_sub(L2)),
            1.0,
        ])
    }
}

/// Fitted milliseconds per unit of [`Work`].
#[derive(Clone, Copy, Debug)]
pub struct Coefficients {
    /// Algorithm, a name of [`ALGOS`](super::ALGOS).
    pub algo: &'static str,
    /// Level.
    pub level: Level,
    /// In the order of [`FEATURES`].
    pub ms: [f64; FEATURES.len()],
}

impl Coefficients {
    /// Predicted milliseconds on one thread.
    pub fn predict(&self, work: &Work) -> f64 {
        self.ms.iter().zip(&work.0).map(|(c, w)| c * w).sum()
    }
}

/// Predicted milliseconds of an algorithm at a level on one thread.
pub(crate) fn predict(algo: &str, level: Level, work: &Work) -> f64 {
    let row = COEFFICIENTS.iter().find(|c| c.algo == algo && c.level == level);
    row.map_or(f64::INFINITY, |c| c.predict(work))
}

macro_rules! table {
    ($($algo:literal $level:ident [$($c:literal),*];)*) => {
        &[$(Coefficients { algo: $algo, level: Level::$level, ms: [$($c),*] },)*]
    };
}

/// Coefficients of every algorithm at every level, fitted on a Zen 4 core to the layers of ResNet-50, MobileNet v2,
/// SqueezeNet 1.1 and assorted others at batch 1 and 8 to 64 (86 problems). The choices that follow are within 7 % of the best algorithm on
/// 98 % (AVX-512), 85 % (AVX2) and 77 % (scalar) of them.
///
/// Two things are set by hand: the stem's term for weights is zero, since the six stems that were measured cannot tell it
/// from the output's, and NEON, which was not measured on hardware, has the figures of AVX2.
pub static COEFFICIENTS: &[Coefficients] = table! {
    "depthwise" Avx512 [0.018529, 0.041360, 0.066034, 0.650080, 0.0, 0.0, 0.000000];
    "direct"    Avx512 [0.018358, 0.008241, 0.080133, 0.000000, 0.0, 0.0, 0.000000];
    "stem"      Avx512 [0.017257, 0.000000, 0.137616, 0.000000, 0.0, 0.0, 0.000000];
    "winograd2" Avx512 [0.015486, 0.240997, 0.235816, 0.069010, 0.000000, 0.705435, 0.000000];
    "winograd4" Avx512 [0.017453, 0.210320, 0.212337, 0.000000, 0.322483, 0.392045, 0.000000];
    "winograd6" Avx512 [0.017441, 0.117553, 0.277680, 0.000000, 0.171479, 0.299200, 0.000000];
    "gemm"      Avx512 [0.019569, 0.198773, 0.331578, 0.000000, 0.0, 0.0, 0.000000];
    "depthwise" Avx2   [0.035139, 0.012863, 0.209816, 0.904548, 0.0, 0.0, 0.006945];
    "direct"    Avx2   [0.021806, 0.000000, 0.065363, 0.051446, 0.0, 0.0, 0.000000];
    "stem"      Avx2   [0.016349, 0.000000, 0.344244, 0.000000, 0.0, 0.0, 0.000000];
    "winograd2" Avx2   [0.016522, 0.182688, 0.336487, 0.090033, 0.000000, 0.460639, 0.000000];
    "winograd4" Avx2   [0.018096, 0.137433, 0.341714, 0.010059, 0.515885, 0.270117, 0.000000];
    "winograd6" Avx2   [0.017815, 0.262047, 0.317926, 0.041645, 0.253596, 0.421933, 0.000000];
    "gemm"      Avx2   [0.022757, 0.118425, 0.304419, 0.000000, 0.0, 0.0, 0.000000];
    "depthwise" Neon   [0.035139, 0.012863, 0.209816, 0.904548, 0.0, 0.0, 0.006945];
    "direct"    Neon   [0.021806, 0.000000, 0.065363, 0.051446, 0.0, 0.0, 0.000000];
    "stem"      Neon   [0.016349, 0.000000, 0.344244, 0.000000, 0.0, 0.0, 0.000000];
    "winograd2" Neon   [0.016522, 0.182688, 0.336487, 0.090033, 0.000000, 0.460639, 0.000000];
    "winograd4" Neon   [0.018096, 0.137433, 0.341714, 0.010059, 0.515885, 0.270117, 0.000000];
    "winograd6" Neon   [0.017815, 0.262047, 0.317926, 0.041645, 0.253596, 0.421933, 0.000000];
    "gemm"      Neon   [0.022757, 0.118425, 0.304419, 0.000000, 0.0, 0.0, 0.000000];
    "depthwise" Scalar [0.050946, 0.039964, 1.888334, 4.876103, 0.0, 0.0, 0.000000];
    "direct"    Scalar [0.057665, 0.144850, 0.381640, 0.581089, 0.0, 0.0, 0.000000];
    "stem"      Scalar [0.041621, 0.000000, 0.846243, 0.000000, 0.0, 0.0, 0.000000];
    "winograd2" Scalar [0.037469, 0.559023, 0.484810, 0.428691, 0.000000, 6.054635, 0.000000];
    "winograd4" Scalar [0.041649, 0.635685, 0.596393, 0.146055, 0.000000, 2.317433, 0.000000];
    "winograd6" Scalar [0.043323, 1.493065, 0.481340, 0.106676, 0.073915, 2.547753, 0.000000];
    "gemm"      Scalar [0.060458, 0.158836, 0.790821, 0.104439, 0.0, 0.0, 0.000000];
};
