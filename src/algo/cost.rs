//! The cost model: time as a sum of what an algorithm does, with coefficients fitted to measurements.
//!
//! ```text
//! milliseconds = multiply-adds * c0 + input floats * c1 + output floats * c2 + weights * c3 + c4
//! ```
//!
//! with non-negative coefficients per algorithm and level, for one thread. `swath fit-cost` makes them: it reads the
//! csv of `swath bench-conv --algo all`, minimises the squared relative error by coordinate descent, and prints the
//! table below.

use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, blocks};
use swath_kernels::shape::ConvShape;

/// Names of the model's terms.
pub const FEATURES: [&str; 5] = ["multiply-adds", "input floats", "output floats", "weights", "run"];

/// What an algorithm would do, in the order of [`FEATURES`], in units of a million (the run: 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work(pub [f64; FEATURES.len()]);

impl Work {
    /// Work of a shape for an algorithm that does `waste` multiply-adds for each that counts.
    pub fn new(shape: &ConvShape, waste: f64) -> Self {
        let s = shape;
        let million = |v: usize| v as f64 / 1e6;
        let macs = s.macs_inside() as f64 * waste / 1e6;
        let channels = |c: usize| blocks(c) * BLOCK;
        Self([
            macs,
            million(s.n * s.ic * s.ih * s.iw),
            million(s.n * channels(s.oc) * s.oh * s.ow),
            million(channels(s.oc) * s.icg() * s.kh * s.kw),
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
    "depthwise" Avx512 [0.018529, 0.041360, 0.066034, 0.650080, 0.000000];
    "direct"    Avx512 [0.018358, 0.008241, 0.080133, 0.000000, 0.000000];
    "stem"      Avx512 [0.017257, 0.000000, 0.137616, 0.000000, 0.000000];
    "winograd2" Avx512 [0.018500, 0.250000, 0.200000, 0.0, 0.0];
    "winograd4" Avx512 [0.018500, 0.250000, 0.200000, 0.0, 0.0];
    "winograd6" Avx512 [0.018500, 0.250000, 0.200000, 0.0, 0.0];
    "gemm"      Avx512 [0.019569, 0.198773, 0.331578, 0.000000, 0.000000];
    "depthwise" Avx2   [0.035139, 0.012863, 0.209816, 0.904548, 0.006945];
    "direct"    Avx2   [0.021806, 0.000000, 0.065363, 0.051446, 0.000000];
    "stem"      Avx2   [0.016349, 0.000000, 0.344244, 0.000000, 0.000000];
    "winograd2" Avx2 [0.020350, 0.275000, 0.220000, 0.0, 0.0];
    "winograd4" Avx2 [0.020350, 0.275000, 0.220000, 0.0, 0.0];
    "winograd6" Avx2 [0.020350, 0.275000, 0.220000, 0.0, 0.0];
    "gemm"      Avx2   [0.022757, 0.118425, 0.304419, 0.000000, 0.000000];
    "depthwise" Neon   [0.035139, 0.012863, 0.209816, 0.904548, 0.006945];
    "direct"    Neon   [0.021806, 0.000000, 0.065363, 0.051446, 0.000000];
    "stem"      Neon   [0.016349, 0.000000, 0.344244, 0.000000, 0.000000];
    "winograd2" Neon [0.020350, 0.275000, 0.220000, 0.0, 0.0];
    "winograd4" Neon [0.020350, 0.275000, 0.220000, 0.0, 0.0];
    "winograd6" Neon [0.020350, 0.275000, 0.220000, 0.0, 0.0];
    "gemm"      Neon   [0.022757, 0.118425, 0.304419, 0.000000, 0.000000];
    "depthwise" Scalar [0.050946, 0.039964, 1.888334, 4.876103, 0.000000];
    "direct"    Scalar [0.057665, 0.144850, 0.381640, 0.581089, 0.000000];
    "stem"      Scalar [0.041621, 0.000000, 0.846243, 0.000000, 0.000000];
    "winograd2" Scalar [0.055500, 0.750000, 0.600000, 0.0, 0.0];
    "winograd4" Scalar [0.055500, 0.750000, 0.600000, 0.0, 0.0];
    "winograd6" Scalar [0.055500, 0.750000, 0.600000, 0.0, 0.0];
    "gemm"      Scalar [0.060458, 0.158836, 0.790821, 0.104439, 0.000000];
};
