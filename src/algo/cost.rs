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

/// Coefficients of every algorithm at every level.
pub static COEFFICIENTS: &[Coefficients] = table! {
    "depthwise" Avx512 [0.0210, 0.05, 0.05, 0.0, 0.001];
    "direct"    Avx512 [0.0170, 0.05, 0.05, 0.0, 0.001];
    "gemm"      Avx512 [0.0200, 0.4, 0.05, 0.0, 0.002];
    "stem"      Avx512 [0.0180, 0.05, 0.05, 0.0, 0.001];
    "depthwise" Avx2 [0.0210, 0.05, 0.05, 0.0, 0.001];
    "direct"    Avx2 [0.0170, 0.05, 0.05, 0.0, 0.001];
    "gemm"      Avx2 [0.0200, 0.4, 0.05, 0.0, 0.002];
    "stem"      Avx2 [0.0180, 0.05, 0.05, 0.0, 0.001];
    "depthwise" Neon [0.0210, 0.05, 0.05, 0.0, 0.001];
    "direct"    Neon [0.0170, 0.05, 0.05, 0.0, 0.001];
    "gemm"      Neon [0.0200, 0.4, 0.05, 0.0, 0.002];
    "stem"      Neon [0.0180, 0.05, 0.05, 0.0, 0.001];
    "depthwise" Scalar [0.210, 0.05, 0.05, 0.0, 0.001];
    "direct"    Scalar [0.170, 0.05, 0.05, 0.0, 0.001];
    "gemm"      Scalar [0.0200, 0.4, 0.05, 0.0, 0.002];
    "stem"      Scalar [0.180, 0.05, 0.05, 0.0, 0.001];
};
