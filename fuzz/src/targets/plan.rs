//! Plans: any geometry, algorithm, level, layout and number of threads, against the oracle.
//!
//! Bytes choose everything, so that libFuzzer can learn what leads where. Weights and inputs are small integers, of which
//! algorithms that only add and multiply make exact sums; Winograd, whose transforms round, is held to its stated bound.

use swath::algo::ALGOS;
use swath::{Accuracy, Activation, ConvPlan, ConvShape, Epilogue, Layout, Level, Options, Scratch, Tuning, par};
use swath_kernels::layout::reorder;
use swath_kernels::reference;
use swath_kernels::winograd::Variant;

/// Multiply-adds of the largest problem: the oracle takes a millisecond or two for them.
const MOST_MACS: usize = 2_000_000;

/// Takes numbers from bytes, zeros behind the end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first.into()
    }

    /// From `low` to `high`.
    fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.byte() % (high - low + 1)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.byte() % all.len()]
    }
}

fn shape(bytes: &mut Bytes<'_>) -> Option<ConvShape> {
    let groups = match bytes.byte() {
        n @ 0..64 => n % 40 + 1,
        _ => 1,
    };
    let (n, icg, ocg) = (bytes.within(0, 3), bytes.within(1, 70), bytes.within(1, 70));
    let (ih, iw) = (bytes.within(1, 40), bytes.within(1, 40));
    let mut pair = |low, high| [bytes.within(low, high), bytes.within(low, high)];
    let (kernel, stride, dilation, before, after) = (pair(1, 7), pair(1, 4), pair(1, 4), pair(0, 5), pair(0, 5));
    ConvShape::builder([n, groups * icg, ih, iw], [groups * ocg, icg, kernel[0], kernel[1]])
        .groups(groups)
        .stride(stride)
        .dilation(dilation)
        .padding([before[0], before[1], after[0], after[1]])
        .build()
        .ok()
}

/// Integers of -3 to 3 that depend on a seed.
fn integers(len: usize, seed: usize) -> Vec<f32> {
    let mut state = seed as u64 * 2 + 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f32 % 7.0 - 3.0
        })
        .collect()
}

/// The most that an element may differ from the oracle's: nothing where sums of integers are exact, else the stated bound
/// of Winograd's variant for these weights.
fn bound(algo: &str, s: &ConvShape, w: &[f32]) -> f64 {
    let variant = match algo {
        "winograd2" => Variant::F2,
        "winograd4" => Variant::F4,
        "winograd6" => Variant::F6,
        _ => return 0.0,
    };
    let sums = w.chunks(s.icg() * s.kh * s.kw).map(|w| w.iter().map(|v| f64::from(v.abs())).sum());
    // Bias and residual, of 3 at most, are added to what was rounded.
    variant.bound(s.ic, 3.0, sums.fold(0.0, f64::max)) + 1e-5
}

/// Plans and runs what the bytes say.
pub fn run(bytes: &[u8]) {
    let bytes = &mut Bytes(bytes);
    let Some(s) = shape(bytes) else { return };
    let macs = s.n * s.oc * s.oh * s.ow * s.icg() * s.kh * s.kw;
    if macs > MOST_MACS || s.n * s.ic * s.ih * s.iw > MOST_MACS {
        return;
    }
    let levels = Level::available();
    // A few bytes more than there are algorithms: the plan's own choice.
    let algo = ALGOS.get(bytes.byte() % (ALGOS.len() + 2)).map(|row| row.name.to_string());
    let options = Options {
        level: Some(bytes.of(levels)),
        input: bytes.of(&Layout::ALL),
        output: bytes.of(&Layout::ALL),
        accuracy: bytes.of(&[Accuracy::Exact, Accuracy::Default, Accuracy::Fast]),
        threads: Some(bytes.within(1, 3)),
        tuning: Tuning::Off,
        algo,
        ..Options::default()
    };
    // What an algorithm does not support it says.
    let Ok(plan) = ConvPlan::new(&s, &options) else { return };
    let seed = bytes.byte();
    let x = integers(s.n * s.ic * s.ih * s.iw, seed);
    let w = integers(s.oc * s.icg() * s.kh * s.kw, seed + 1);
    let bias = bytes.of(&[false, true]).then(|| integers(s.oc, seed + 2));
    let residual = bytes.of(&[false, true]).then(|| integers(s.n * s.oc * s.oh * s.ow, seed + 3));
    let activation = bytes.of(&[Activation::Identity, Activation::Relu]);

    let mut stored = vec![0.0; options.input.len(s.input())];
    reorder(Layout::Nchw, &x, options.input, &mut stored, s.input());
    let in_output_layout = |nchw: &[f32]| {
        let mut y = vec![0.0; options.output.len(s.output())];
        reorder(Layout::Nchw, nchw, options.output, &mut y, s.output());
        y
    };
    let residual_stored = residual.as_deref().map(in_output_layout);
    let epilogue = Epilogue { bias: bias.as_deref(), residual: residual_stored.as_deref(), activation };
    let weights = plan.pack(&w).expect("weights of the plan's shape");
    let mut y = vec![f32::NAN; options.output.len(s.output())];
    let threads = options.threads.unwrap_or(1);
    par::with_threads(threads, || plan.forward(&stored, &weights, epilogue, &mut y, &mut Scratch::new()))
        .expect("threads")
        .expect("lengths of the plan's shape");

    let mut nchw = vec![f32::NAN; s.n * s.oc * s.oh * s.ow];
    reorder(options.output, &y, Layout::Nchw, &mut nchw, s.output());
    let padding = y.iter().filter(|v| **v == 0.0).count();
    assert!(padding >= y.len() - nchw.len(), "channels that pad a block are zero");
    let expected = reference::conv2d(&s, &x, &w, bias.as_deref());
    let most = bound(plan.algo(), &s, &w);
    for (i, (got, mut want)) in nchw.iter().zip(expected).enumerate() {
        want += residual.as_ref().map_or(0.0, |r| f64::from(r[i]));
        if activation == Activation::Relu {
            want = want.max(0.0);
        }
        let off = (f64::from(*got) - want).abs();
        // Also false of NaN.
        assert!(off <= most, "element {i} of {s:?} by {} with {options:?}: {got}, not {want}", plan.algo());
    }
}
