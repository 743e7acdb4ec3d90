//! The cost model: time as a sum of what an algorithm does, with coefficients fitted to measurements.
//!
//! ```text
//! milliseconds = multiply-adds * c0 + inputs * c1 + outputs * c2 + weights * c3 + weights beyond L3 * c4 + floats beyond L2 * c5 + c6
//! ```
//!
//! with non-negative coefficients per algorithm and kind of [`Cores`], for one thread. Inputs and outputs are the tensors, or what
//! Winograd makes of them; weights are the packed ones. `swath fit-cost` makes the coefficients: it reads the
//! csv of `swath bench-conv --algo all`, minimises the squared relative error by coordinate descent, moves the result so that choices lose less
//! time, and prints the table below.

use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout, blocks};
use swath_kernels::machine::Core;
use swath_kernels::shape::ConvShape;

/// Names of the model's terms.
pub const FEATURES: [&str; 7] =
    ["multiply-adds", "inputs", "outputs", "weights", "weights beyond L3", "floats beyond L2", "run"];

/// Floats of packed weights that stay in L3 between runs: three quarters of 32 MiB.
const L3: usize = 6 << 20;

/// What an algorithm would do, in the order of [`FEATURES`], in units of a million (the run: 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work(pub [f64; FEATURES.len()]);

impl Work {
    /// So many multiply-adds on tensors of so many floats, as they are or as they become, and on so many packed
    /// weights. What of the tensors is as large as the core's L2 stays there.
    pub(super) fn of(core: Core, macs: f64, [inputs, outputs]: [usize; 2], [x, y]: [usize; 2], packed: usize) -> Self {
        let million = |v: usize| v as f64 / 1e6;
        Self([
            macs / 1e6,
            million(inputs),
            million(outputs),
            million(packed),
            million(packed.saturating_sub(L3)),
            million((x + y).saturating_sub(core.l2_bytes / size_of::<f32>())),
            1.0,
        ])
    }

    /// So many multiply-adds that sum over pixels of both tensors, of so many floats as they become.
    pub(super) fn of_sums(core: Core, shape: &ConvShape, macs: f64, moved: [usize; 2]) -> Self {
        Self::of(core, macs, moved, blocks_of(shape), shape.weights().iter().product())
    }

    /// Both.
    pub(super) fn plus(self, other: Self) -> Self {
        Self(core::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    /// All of it so many times.
    pub(super) fn times(self, n: f64) -> Self {
        Self(self.0.map(|work| work * n))
    }
}

/// Floats of a convolution's input, and of its output in blocks.
pub(super) fn tensors(s: &ConvShape) -> [usize; 2] {
    [s.n * s.ic * s.ih * s.iw, s.n * blocks(s.oc) * BLOCK * s.oh * s.ow]
}

/// Floats of its input and output, both in blocks.
pub(super) fn blocks_of(s: &ConvShape) -> [usize; 2] {
    [s.input(), s.output()].map(|dims| Layout::Blocked.len(dims))
}

/// A float that a depthwise convolution copies to or from blocks takes as long as so many that it only reads or writes (Zen 4, 96
/// channels at 112x112: 0.2 ms without copies, 0.5 with copies of the input, 0.8 with both).
pub(super) const COPY: usize = 5;

/// Floats of two tensors as they count, where those that are copied weigh more.
pub(super) fn copied(tensors: [usize; 2], copies: [bool; 2]) -> [usize; 2] {
    core::array::from_fn(|i| if copies[i] { tensors[i].saturating_mul(COPY) } else { tensors[i] })
}

/// How much longer register tiles take that read so many channels of a group from planes, row `stem`: those of a pixel lie a plane apart,
/// which the taps of a row do not. On a Zen 3 a 1x1 convolution of 256 channels takes 2.4 times as long as from blocks, 3x3 ones up to 1.3
/// times, and the data gradient of a first layer 1.4 times; on a Zen 5 all of them take 1.0 to 1.3 times as long, for which 1.22 stands.
pub(super) fn scattered(algo: &str, core: Core, shape: &ConvShape, channels: usize) -> f64 {
    if algo != "stem" || channels < BLOCK {
        return 1.0;
    }
    match Cores::of(core) {
        Cores::Avx512Wide => 1.22,
        Cores::Scalar | Cores::Neon | Cores::Avx2 | Cores::Avx512 | Cores::Avx512Amx => {
            1.0 + (1.4 / (shape.kh * shape.kw) as f64).max(0.3)
        }
    }
}

/// What coefficients are measured on: a level, and what else tells cores apart at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cores {
    /// Level `scalar`.
    Scalar,
    /// Level `neon`.
    Neon,
    /// Level `avx2`.
    Avx2,
    /// Level `avx512` on cores that start one 512-bit multiply-add a cycle.
    Avx512,
    /// Level `avx512` on cores that start two of them.
    Avx512Wide,
    /// The same on cores with matrix units.
    Avx512Amx,
}

impl Cores {
    /// Whose coefficients predict for a core.
    pub fn of(core: Core) -> Self {
        match core.level {
            Level::Scalar => Cores::Scalar,
            Level::Neon => Cores::Neon,
            Level::Avx2 => Cores::Avx2,
            Level::Avx512 if core.matrix_unit.is_some() => Cores::Avx512Amx,
            Level::Avx512 if !core.halves_gain => Cores::Avx512Wide,
            Level::Avx512 => Cores::Avx512,
        }
    }
}

/// Fitted milliseconds per unit of [`Work`].
#[derive(Clone, Copy, Debug)]
pub struct Coefficients {
    /// Algorithm, a name of [`ALGOS`](super::ALGOS).
    pub algo: &'static str,
    /// Cores.
    pub cores: Cores,
    /// In the order of [`FEATURES`].
    pub ms: [f64; FEATURES.len()],
}

impl Coefficients {
    /// Predicted milliseconds on one thread.
    pub fn predict(&self, work: &Work) -> f64 {
        self.ms.iter().zip(&work.0).map(|(c, w)| c * w).sum()
    }
}

/// Predicted milliseconds of an algorithm on one thread of a core.
pub(super) fn predict(algo: &str, core: Core, work: &Work) -> f64 {
    let cores = Cores::of(core);
    let row = COEFFICIENTS.iter().find(|c| c.algo == algo && c.cores == cores);
    row.map_or(f64::INFINITY, |c| c.predict(work))
}

macro_rules! table {
    ($($algo:literal $cores:ident [$($c:literal),*];)*) => {
        &[$(Coefficients { algo: $algo, cores: Cores::$cores, ms: [$($c),*] },)*]
    };
}

/// Coefficients of every algorithm at every level, fitted to the layers of ResNet-50, VGG-16, MobileNet v2, SqueezeNet 1.1 and
/// assorted others at batch 1 and 8 to 64:
///
/// | cores | measured on | problems | choices within 7 % of the best |
/// |---|---|---|---|
/// | `Avx512` | Zen 4 | 86 | 98 % |
/// | `Avx512Wide` | Zen 5, the mean of warm weights and of ones from memory | 192 | 99 % |
/// | `Avx512Amx` | Granite Rapids, the fastest of 3 runs, and the same mean | 99 | 96 % |
/// | `Avx2`, `Scalar` | Zen 3 | 99 | 96 %, 98 % |
///
/// AVX2's are from a virtual machine among busy ones, the fastest of 7 runs, with 17 to 29 GB/s from L3 (44 when that is quiet): what
/// Winograd moves weighs more there. The Zen 5's alone were also moved so that choices lose less time; before, it was 92 %.
///
/// Set by hand are the rows of `planar`, at AVX-512 from twelve layers on a Zen 4 and fourteen on a Zen 5, at AVX2 and scalar roughly, from runs
/// while builds ran, others guessed from `depthwise`; the stem's term for weights but for the Zen 5's, zero, since the six stems that were
/// measured cannot tell it from the output's; of the Zen 5 `gemm`, one and a half times its fit, and what `depthwise` writes, by what both
/// take in NCHW (90 layers, of which choices lose 3.3 % of the best time in the mean). NEON was not measured on hardware, and has those that
/// AVX2 had on a quiet Zen 3.
pub static COEFFICIENTS: &[Coefficients] = table! {
    "depthwise" Avx512 [0.018529, 0.041360, 0.066034, 0.650080, 0.0, 0.0, 0.000000];
    "planar"    Avx512 [0.018000, 0.070000, 0.050000, 0.000000, 0.0, 0.0, 0.000000];
    "direct"    Avx512 [0.018358, 0.008241, 0.080133, 0.000000, 0.0, 0.0, 0.000000];
    "stem"      Avx512 [0.017257, 0.000000, 0.137616, 0.000000, 0.0, 0.0, 0.000000];
    "winograd2" Avx512 [0.015486, 0.240997, 0.235816, 0.069010, 0.000000, 0.705435, 0.000000];
    "winograd4" Avx512 [0.017453, 0.210320, 0.212337, 0.000000, 0.322483, 0.392045, 0.000000];
    "winograd6" Avx512 [0.017441, 0.117553, 0.277680, 0.000000, 0.171479, 0.299200, 0.000000];
    "gemm"      Avx512 [0.019569, 0.198773, 0.331578, 0.000000, 0.0, 0.0, 0.000000];
    "depthwise" Avx512Wide [0.008714, 0.020444, 0.030000, 0.110145, 0.011071, 0.004411, 0.000000];
    "planar"    Avx512Wide [0.014875, 0.059500, 0.035000, 0.000000, 0.000000, 0.007719, 0.000000];
    "direct"    Avx512Wide [0.007377, 0.023711, 0.021470, 0.035554, 0.006359, 0.024439, 0.000549];
    "stem"      Avx512Wide [0.007155, 0.064926, 0.030838, 0.000650, 0.006048, 0.007237, 0.000000];
    "winograd2" Avx512Wide [0.006198, 0.111010, 0.097835, 0.115393, 0.000776, 1.037172, 0.000083];
    "winograd4" Avx512Wide [0.007599, 0.033119, 0.121685, 0.147037, 0.238800, 0.173995, 0.000000];
    "winograd6" Avx512Wide [0.005199, 0.039006, 0.150805, 0.082324, 0.089447, 0.314929, 0.002564];
    "gemm"      Avx512Wide [0.013676, 0.139470, 0.206400, 0.070236, 0.001650, 0.097617, 0.000000];
    "depthwise" Avx512Amx [0.009552, 0.027215, 0.024804, 0.134242, 0.000000, 0.146294, 0.000000];
    "planar"    Avx512Amx [0.010500, 0.046000, 0.020000, 0.000000, 0.0, 0.146294, 0.000000];
    "direct"    Avx512Amx [0.011586, 0.031040, 0.000000, 0.101076, 0.000000, 0.054089, 0.000000];
    "stem"      Avx512Amx [0.010440, 0.000000, 0.037273, 0.000000, 0.000000, 0.063540, 0.000000];
    "winograd2" Avx512Amx [0.011490, 0.194833, 0.165989, 0.151649, 0.000000, 0.635538, 0.000000];
    "winograd4" Avx512Amx [0.013453, 0.050575, 0.161272, 0.106446, 0.171046, 0.503326, 0.000000];
    "winograd6" Avx512Amx [0.015459, 0.154285, 0.139644, 0.003853, 0.145180, 0.406212, 0.000000];
    "bf16x6"    Avx512Amx [0.006293, 0.265942, 0.064549, 0.118780, 0.000000, 0.101491, 0.000000];
    "gemm"      Avx512Amx [0.015839, 0.177110, 0.141515, 0.050257, 0.000000, 0.314173, 0.000000];
    "depthwise" Avx2   [0.023347, 0.060784, 0.0, 0.216487, 0.0, 0.0, 0.000032];
    "planar"    Avx2   [0.026000, 0.110000, 0.060000, 0.0, 0.0, 0.0, 0.0];
    "direct"    Avx2   [0.021981, 0.0, 0.043995, 0.144819, 0.0, 0.0, 0.0];
    "stem"      Avx2   [0.019061, 0.0, 0.226628, 0.0, 0.0, 0.0, 0.0];
    "winograd2" Avx2   [0.021319, 0.143682, 0.360792, 0.338961, 0.0, 1.555570, 0.007310];
    "winograd4" Avx2   [0.022938, 0.105919, 0.204747, 0.075816, 0.869024, 1.253933, 0.012338];
    "winograd6" Avx2   [0.025182, 0.278552, 0.248782, 0.038091, 0.565065, 0.977699, 0.005344];
    "gemm"      Avx2   [0.025299, 0.0, 0.300484, 0.015213, 0.0, 0.329297, 0.0];
    "depthwise" Neon   [0.023057, 0.057350, 0.0, 0.148445, 0.0, 0.0, 0.0];
    "planar"    Neon   [0.026000, 0.110000, 0.060000, 0.0, 0.0, 0.0, 0.0];
    "direct"    Neon   [0.020973, 0.0, 0.036400, 0.146472, 0.0, 0.016878, 0.0];
    "stem"      Neon   [0.018736, 0.0, 0.259911, 0.0, 0.0, 0.0, 0.0];
    "winograd2" Neon   [0.019646, 0.225908, 0.507615, 0.078665, 0.0, 0.500719, 0.0];
    "winograd4" Neon   [0.020876, 0.225986, 0.436509, 0.0, 0.585831, 0.263691, 0.002869];
    "winograd6" Neon   [0.021351, 0.346995, 0.425466, 0.013349, 0.341203, 0.287988, 0.0];
    "gemm"      Neon   [0.022862, 0.050274, 0.325081, 0.0, 0.0, 0.253196, 0.0];
    "depthwise" Scalar [0.079620, 0.0, 0.188456, 2.034118, 0.0, 0.029172, 0.0];
    "planar"    Scalar [0.150000, 0.300000, 0.300000, 0.0, 0.0, 0.0, 0.0];
    "direct"    Scalar [0.065041, 0.076203, 0.105995, 0.250560, 0.0, 0.0, 0.0];
    "stem"      Scalar [0.061027, 0.0, 0.018151, 0.0, 0.0, 0.307399, 0.0];
    "winograd2" Scalar [0.059268, 0.543438, 0.460553, 0.317001, 0.0, 1.237067, 0.0];
    "winograd4" Scalar [0.062629, 0.693169, 0.734393, 0.012955, 0.750573, 0.340592, 0.0];
    "winograd6" Scalar [0.064892, 1.325616, 0.580318, 0.065619, 0.333847, 0.713238, 0.0];
    "gemm"      Scalar [0.071467, 0.0, 0.720128, 0.0, 0.0, 0.422581, 0.0];
};

#[cfg(test)]
mod tests {
    use swath_kernels::layout::Layout;
    use swath_kernels::registry::FAMILIES;

    use super::super::{ALGOS, Accuracy, Planned, Request};
    use super::*;

    /// Layers of ResNet-50, VGG-16, MobileNet v2 and others: groups, input channels, output channels, size, kernel and
    /// stride.
    const LAYERS: [[usize; 6]; 12] = [
        [1, 3, 64, 224, 7, 2],
        [1, 64, 64, 56, 3, 1],
        [1, 128, 128, 28, 3, 1],
        [1, 512, 512, 7, 3, 1],
        [1, 64, 64, 224, 3, 1],
        [1, 512, 512, 28, 3, 1],
        [1, 256, 64, 56, 1, 1],
        [1, 256, 512, 56, 1, 2],
        [1, 2048, 512, 7, 1, 1],
        [1, 48, 64, 35, 5, 1],
        [96, 96, 96, 112, 3, 1],
        [32, 128, 128, 56, 3, 1],
    ];

    /// The algorithm that the cost model predicts to be the fastest on a core, among those that plan for another one.
    fn fastest(core: Core, planned: Core, layer: [usize; 6], layouts: [Layout; 2], accuracy: Accuracy) -> &'static str {
        let [groups, ic, oc, size, k, stride] = layer;
        let shape = ConvShape::builder([1, ic, size, size], [oc, ic / groups, k, k]).padding(k / 2);
        let shape = shape.stride(stride).groups(groups).build().unwrap();
        let request = Request::dense(&shape, planned, layouts, accuracy);
        let kernels = ALGOS.iter().filter_map(|algo| Some((algo.name, (algo.plan)(&request).ok()?)));
        let costs = kernels.map(|(name, kernel)| (name, kernel.predict(name, core, &shape)));
        costs.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0
    }

    /// From blocks to blocks, as inside a model, or from NCHW to NCHW. What kernels do is what the portable ones do but
    /// for `bf16x6`, so that levels that are not compiled in predict by these.
    fn chosen(core: Core, layout: Layout, accuracy: Accuracy) -> [&'static str; LAYERS.len()] {
        let mut portable = core;
        portable.level = Level::Scalar;
        LAYERS.map(|layer| {
            let layouts = [if layer[1] < BLOCK { Layout::Nchw } else { layout }, layout];
            let by_portable = fastest(core, portable, layer, layouts, accuracy);
            if !is_compiled_in(core.level) {
                return by_portable;
            }
            let own = fastest(core, core, layer, layouts, accuracy);
            assert!(own == by_portable || own == "bf16x6", "{layer:?}: {own}, {by_portable} by portable kernels");
            own
        })
    }

    fn is_compiled_in(level: Level) -> bool {
        FAMILIES.iter().any(|family| !(family.names)(level).is_empty())
    }

    #[test]
    fn algorithms_on_known_cores() {
        let [w2, w4, w6] = ["winograd2", "winograd4", "winograd6"];
        let [di, st, ge, bf, dw, pl] = ["direct", "stem", "gemm", "bf16x6", "depthwise", "planar"];
        let blocked = [
            (Core::ZEN3, Accuracy::Default, [st, w4, w4, di, w4, w4, di, di, di, di, dw, dw]),
            (Core::ZEN3, Accuracy::Fast, [st, w6, w4, di, w6, w4, di, di, di, di, dw, dw]),
            (Core::ZEN4, Accuracy::Default, [st, w4, w4, w2, w4, w4, di, di, di, di, dw, dw]),
            (Core::ZEN4, Accuracy::Fast, [st, w6, w6, w2, w6, w6, di, di, di, di, dw, dw]),
            (Core::ZEN5, Accuracy::Default, [st, w4, w4, di, w4, w4, di, di, di, di, dw, dw]),
            (Core::ZEN5, Accuracy::Fast, [st, w6, w6, di, w6, w6, di, di, di, di, dw, dw]),
            (Core::GRANITE_RAPIDS, Accuracy::Exact, [st, di, di, di, di, di, di, di, di, di, dw, dw]),
            (Core::GRANITE_RAPIDS, Accuracy::Default, [st, w4, w4, di, w4, w4, bf, bf, bf, bf, dw, dw]),
            (Core::GRANITE_RAPIDS, Accuracy::Fast, [st, w4, w6, di, w6, w4, bf, bf, bf, bf, dw, dw]),
            (Core::NEOVERSE_V2, Accuracy::Exact, [st, di, di, ge, di, di, di, di, ge, di, dw, dw]),
            (Core::NEOVERSE_V2, Accuracy::Default, [st, w4, w4, w2, w4, w4, di, di, ge, di, dw, dw]),
            (Core::APPLE_M1, Accuracy::Default, [st, w4, w4, w2, w4, w4, di, di, ge, di, dw, dw]),
            (Core::APPLE_M1, Accuracy::Fast, [st, w6, w6, w2, w6, w4, di, di, ge, di, dw, dw]),
        ];
        let has_unit = |core: Core, accuracy| core.matrix_unit.is_some() && accuracy != Accuracy::Exact;
        for (core, accuracy, wanted) in blocked {
            // What the unit does is known by its own kernels alone.
            if is_compiled_in(core.level) || !has_unit(core, accuracy) {
                assert_eq!(chosen(core, Layout::Blocked, accuracy), wanted, "{accuracy:?}, {core:?}");
            }
        }
        let nchw = [
            (Core::ZEN3, [st, w4, w4, st, w4, w4, di, di, di, di, pl, pl]),
            (Core::ZEN4, [st, w4, w4, w2, w4, w4, di, di, di, di, pl, pl]),
            (Core::ZEN5, [st, w4, w4, di, w4, w4, di, di, di, di, pl, dw]),
            (Core::GRANITE_RAPIDS, [st, w4, w4, st, w4, w4, di, di, di, di, pl, pl]),
            (Core::APPLE_M1, [st, w4, w4, w2, w4, w4, di, di, ge, di, pl, pl]),
        ];
        let found = nchw.map(|(core, _)| (core, chosen(core, Layout::Nchw, Accuracy::Default)));
        assert_eq!(found, nchw);
    }

    #[test]
    fn what_exceeds_the_cache_of_a_core_costs() {
        let beyond = |core| Work::of(core, 0.0, [0, 0], [1 << 17, 1 << 17], 0).0[5];
        assert_eq!([Core::ZEN3, Core::ZEN4, Core::GRANITE_RAPIDS].map(beyond), [0.131072, 0.0, 0.0]);
    }
}
