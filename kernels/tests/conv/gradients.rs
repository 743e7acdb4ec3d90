//! Gradients of convolutions that proptest invents, and transposed convolution, against the oracle.

use crate::tries::{some, tries};
use proptest::prelude::*;
use swath_kernels::backward_data::{BackwardData, PlanarData};
use swath_kernels::backward_weights::{BackwardWeights, DepthwiseWeights, PlanarWeights, StemWeights};
use swath_kernels::epilogue::{Activation, Epilogue};
use swath_kernels::exec::{Executor, Inline};
use swath_kernels::isa::Level;
use swath_kernels::layout::{Layout, View, reorder};
use swath_kernels::machine::Core;
use swath_kernels::reference;
use swath_kernels::shape::ConvShape;
use swath_kernels::winograd::{Variant, WinogradWeights};

use crate::support::{Threads, guarded, integers};
use crate::threads::pages::{Pages, Side};

/// Any valid geometry of moderate size: batches to 5, padding beyond the kernel, strides beyond it.
fn shapes() -> impl Strategy<Value = ConvShape> {
    let channels = (prop_oneof![3 => Just(1usize), 1 => 2usize..5, 1 => 5usize..20], 1usize..20, 1usize..40);
    let image = (0usize..6, 1usize..15, 1usize..20);
    let window =
        ([1usize..6, 1usize..6], [1usize..5, 1usize..5], [1usize..5, 1usize..4], prop::array::uniform4(0usize..5));
    (channels, image, window).prop_filter_map(
        "kernel beyond the input",
        |((g, icg, ocg), (n, ih, iw), (k, s, d, p))| {
            let (icg, ocg) = if g > 4 { (icg % 5 + 1, ocg % 6 + 1) } else { (icg, ocg) };
            ConvShape::builder([n, g * icg, ih, iw], [g * ocg, icg, k[0], k[1]])
                .stride(s)
                .dilation(d)
                .padding(p)
                .groups(g)
                .build()
                .ok()
        },
    )
}

fn layouts() -> impl Strategy<Value = Layout> {
    prop::sample::select(Layout::ALL.to_vec())
}

/// A tensor in another layout.
fn to(layout: Layout, nchw: &[f32], dims: [usize; 4]) -> Vec<f32> {
    let mut y = vec![f32::NAN; layout.len(dims)];
    reorder(Layout::Nchw, nchw, layout, &mut y, dims);
    y
}

/// Compares a tensor in `layout` with values in NCHW, and its padding channels with zero.
fn check(got: &[f32], layout: Layout, dims: [usize; 4], want: &[f64], what: &str) {
    let mut nchw = vec![f32::NAN; Layout::Nchw.len(dims)];
    reorder(layout, got, Layout::Nchw, &mut nchw, dims);
    for (i, (g, w)) in nchw.iter().zip(want).enumerate() {
        assert!(f64::from(*g) == *w, "{what}: element {i} of {dims:?} is {g}, not {w}");
    }
    assert_eq!(got, to(layout, &nchw, dims), "{what}: channels that pad the last block are not zero");
}

/// What `run` makes of an output, on one thread and on several, which must not matter.
fn on_any_threads(len: usize, what: &str, run: impl Fn(&mut [f32], &dyn Executor)) -> Vec<f32> {
    let one = guarded(len, |y| run(y, &Inline));
    for threads in [2, 3, 8] {
        assert_eq!(guarded(len, |y| run(y, &Threads(threads))), one, "{what}: {threads} threads");
    }
    one
}

/// The data gradient at a level by every algorithm that does the shape.
fn data(s: &ConvShape, level: Level, layouts: [Layout; 2], seed: u64) {
    let [input, output] = layouts;
    let of_phases = |by: &str, plan: &BackwardData| {
        let side = Side::BOTH[seed as usize % 2];
        data_by(s, &format!("{by} {level}"), layouts, seed, &|dy, w, e, dx, threads| {
            let mut packed = Pages::nan(plan.packed_len(), side);
            plan.pack(w, &mut packed);
            plan.run(dy, &packed, e, dx.into(), &mut Pages::nan(plan.scratch_len() * threads.threads(), side), threads);
        });
    };
    of_phases("direct", &BackwardData::new(s, Core::here(level), input, output).unwrap());
    if let Ok(plan) =
        BackwardData::depthwise(s, Core::here(level), [View::dense(input, s.output()), View::dense(output, s.input())])
    {
        of_phases("depthwise", &plan);
    }
    if layouts == [Layout::Nchw; 2]
        && let Ok(plan) = PlanarData::new(s, Core::here(level))
    {
        let run: Run<'_> = &|dy, w, e, dx, threads| {
            plan.run(dy, w, e, dx.into(), threads);
        };
        data_by(s, &format!("planar {level}"), layouts, seed, run);
    }
}

/// Computes a data gradient from `dy` and weights.
type Run<'a> = &'a dyn Fn(&[f32], &[f32], &Epilogue<'_>, &mut [f32], &dyn Executor);

/// The data gradient, plain and as a transposed convolution with bias, residual and activation.
fn data_by(s: &ConvShape, by: &str, [input, output]: [Layout; 2], seed: u64, by_plan: Run<'_>) {
    let what = format!("data gradient {by} {input:?} to {output:?} of {s:?}");
    let (dy, w) = (integers(Layout::Nchw.len(s.output()), seed), integers(s.weights().iter().product(), seed + 1));
    let want = reference::conv2d_backward_data(s, &dy, &w);
    let side = Side::BOTH[seed as usize % 2];
    let (dy, w) = (Pages::copy(&to(input, &dy, s.output()), side), Pages::copy(&w, side));
    let run = |e: &Epilogue<'_>, dx: &mut [f32], threads: &dyn Executor| by_plan(&dy, &w, e, dx, threads);
    let dx = on_any_threads(output.len(s.input()), &what, |dx, threads| run(&Epilogue::none(), dx, threads));
    check(&dx, output, s.input(), &want, &what);

    let (bias, residual) = (integers(s.ic, seed + 2), integers(want.len(), seed + 3));
    let (bias, at) = (Pages::copy(&bias, side), Pages::copy(&to(output, &residual, s.input()), side));
    let e = Epilogue::bias(&bias).residual(&at).activation(Activation::Clip { lo: -1.0, hi: 6.0 });
    let y = on_any_threads(output.len(s.input()), &what, |y, threads| run(&e, y, threads));
    let plane = s.ih * s.iw;
    let finished: Vec<f64> = want
        .iter()
        .enumerate()
        .map(|(i, v)| (v + f64::from(bias[i / plane % s.ic]) + f64::from(residual[i])).clamp(-1.0, 6.0))
        .collect();
    check(&y, output, s.input(), &finished, &format!("transposed convolution, {what}"));

    // An activation beyond a clamp: one that keeps whole numbers.
    let e = Epilogue::bias(&bias).activation(Activation::LeakyRelu { slope: 2.0 });
    let y = on_any_threads(output.len(s.input()), &what, |y, threads| run(&e, y, threads));
    let leaky = |v: f64| if v < 0.0 { 2.0 * v } else { v };
    let finished = want.iter().enumerate().map(|(i, v)| leaky(v + f64::from(bias[i / plane % s.ic])));
    check(&y, output, s.input(), &finished.collect::<Vec<_>>(), &format!("leaky transposed convolution, {what}"));
}

/// A case of weight gradients: tensors in NCHW, and what they should be.
struct WeightCase {
    shape: ConvShape,
    x: Vec<f32>,
    dy: Vec<f32>,
    want: Vec<f64>,
    want_bias: Vec<f64>,
}

impl WeightCase {
    fn new(s: &ConvShape, seed: u64) -> Self {
        let (x, dy) = (integers(Layout::Nchw.len(s.input()), seed), integers(Layout::Nchw.len(s.output()), seed + 1));
        let (want, want_bias) =
            (reference::conv2d_backward_weights(s, &x, &dy), reference::conv2d_backward_bias(s, &dy));
        Self { shape: *s, x, dy, want, want_bias }
    }

    /// Runs with and without a bias, on any threads; weights may be off by what `bound` makes of the sum of `|dy|`.
    fn check(
        &self,
        [input, gradient]: [Layout; 2],
        what: &str,
        bound: impl Fn(f64) -> f64,
        run: impl Fn(&[f32], &[f32], &mut [f32], Option<&mut [f32]>, &dyn Executor),
    ) {
        let s = &self.shape;
        let what = format!("{what} {input:?} and {gradient:?} of {s:?}");
        let (x, dy) = (to(input, &self.x, s.input()), to(gradient, &self.dy, s.output()));
        let [first, last] = Side::BOTH.map(|side| [Pages::copy(&x, side), Pages::copy(&dy, side)]);
        let ([x, dy], len) = (last, self.want.len());
        let both = on_any_threads(len + s.oc, &what, |both, threads| {
            let (dw, db) = both.split_at_mut(len);
            run(&x, &dy, dw, Some(db), threads);
        });
        let [x, dy] = first;
        let alone = guarded(len, |dw| run(&x, &dy, dw, None, &Inline));
        assert_eq!(alone, both[..len], "{what}: without a bias");
        let plane = s.oh * s.ow;
        let mut sums = vec![0.0; s.oc];
        self.dy.iter().enumerate().for_each(|(i, v)| sums[i / plane % s.oc] += f64::from(v.abs()));
        for (i, (got, want)) in both.iter().zip(&self.want).enumerate() {
            let off = (f64::from(*got) - want).abs();
            assert!(off <= bound(sums[i / (len / s.oc)]), "{what}: weight {i} is {got}, not {want}");
        }
        for (o, (got, want)) in both[len..].iter().zip(&self.want_bias).enumerate() {
            assert!(f64::from(*got) == *want, "{what}: bias {o} is {got}, not {want}");
        }
    }

    /// Every algorithm that does the shape.
    fn all(&self, level: Level, layouts: [Layout; 2]) {
        let (s, [input, gradient]) = (&self.shape, layouts);
        let exact = |_| 0.0;
        let scratch = |len| Pages::nan(len, Side::End);
        let plan = BackwardWeights::new(s, Core::here(level), input, gradient);
        self.check(layouts, &format!("pixel sums {level}"), exact, |x, dy, dw, db, threads| {
            plan.run(x, dy, dw.into(), db, &mut scratch(plan.scratch_len(threads.threads())), threads);
        });
        if let Ok(plan) = DepthwiseWeights::new(s, Core::here(level), input, gradient) {
            self.check(layouts, &format!("lanes {level}"), exact, |x, dy, dw, db, threads| {
                plan.run(x, dy, dw.into(), db, &mut scratch(plan.scratch_len(threads.threads())), threads);
            });
        }
        let dense = [View::dense(input, s.input()), View::dense(gradient, s.output())];
        if let Ok(plan) = PlanarWeights::of_views(s, Core::here(level), dense) {
            self.check(layouts, &format!("planar {level}"), exact, |x, dy, dw, db, threads| {
                plan.run(x, dy, dw.into(), db, &mut scratch(plan.scratch_len()), threads);
            });
        }
        if let Ok(plan) = StemWeights::new(s, Core::here(level), input, gradient) {
            self.check(layouts, &format!("stem {level}"), exact, |x, dy, dw, db, threads| {
                plan.run(x, dy, dw.into(), db, &mut scratch(plan.scratch_len(threads.threads())), threads);
            });
        }
        for chunk in [None, Some(5), Some(24)] {
            let Ok(plan) = WinogradWeights::with_chunk(s, Core::here(level), input, gradient, chunk) else { continue };
            let tiles = s.n * s.oh.div_ceil(4) * s.ow.div_ceil(4);
            // Inputs are at most 3.
            let bound = |sum: f64| Variant::F4.bound(tiles, 3.0, sum);
            self.check(layouts, &format!("winograd {level}"), bound, |x, dy, dw, db, threads| {
                plan.run(x, dy, dw.into(), db, &mut scratch(plan.scratch_len(threads.threads())), threads);
            });
        }
    }
}

/// Any geometry that Winograd does, of moderate size.
fn winograd_shapes() -> impl Strategy<Value = ConvShape> {
    let image = (0usize..6, 1usize..22, 1usize..31);
    (1usize..40, 1usize..40, image, prop::array::uniform4(0usize..4))
        .prop_filter_map("kernel beyond the input", |(ic, oc, (n, ih, iw), p)| {
            ConvShape::builder([n, ic, ih, iw], [oc, ic, 3, 3]).padding(p).build().ok()
        })
}

/// Depthwise, with any multiplier.
fn depthwise_shapes() -> impl Strategy<Value = ConvShape> {
    let image = (0usize..6, 1usize..22, 1usize..31);
    let window =
        ([1usize..8, 1usize..8], [1usize..4, 1usize..4], [1usize..4, 1usize..3], prop::array::uniform4(0usize..5));
    (2usize..40, 1usize..3, image, window).prop_filter_map(
        "kernel beyond the input",
        |(g, m, (n, ih, iw), (k, s, d, p))| {
            let shape = ConvShape::builder([n, g, ih, iw], [g * m, 1, k[0], k[1]]);
            shape.stride(s).dilation(d).padding(p).groups(g).build().ok()
        },
    )
}

proptest! {
    #![proptest_config(tries(96))]

    #[test]
    fn data_gradients(shape in shapes(), input in layouts(), output in layouts(), seed in 0u64..1000) {
        for level in Level::available() {
            data(&shape, *level, [input, output], seed);
        }
    }

    #[test]
    fn weight_gradients(shape in shapes(), input in layouts(), gradient in layouts(), seed in 0u64..1000) {
        let case = WeightCase::new(&shape, seed);
        for level in Level::available() {
            case.all(*level, [input, gradient]);
        }
    }

    #[test]
    fn winograd_weight_gradients(shape in winograd_shapes(), input in layouts(), seed in 0u64..1000) {
        let case = WeightCase::new(&shape, seed);
        for level in Level::available() {
            assert!(WinogradWeights::new(&shape, Core::here(*level), input, Layout::Blocked).is_ok());
            case.all(*level, [input, Layout::Blocked]);
        }
    }

    #[test]
    fn depthwise_gradients(shape in depthwise_shapes(), input in layouts(), gradient in layouts(), seed in 0u64..1000) {
        let case = WeightCase::new(&shape, seed);
        for level in Level::available() {
            assert!(DepthwiseWeights::new(&shape, Core::here(*level), input, gradient).is_ok());
            case.all(*level, [input, gradient]);
            data(&shape, *level, [gradient, input], seed);
        }
    }
}

/// Depthwise convolutions and small groups in NCHW, whose data gradients go along rows: wide enough for whole vectors.
fn planar_shapes() -> impl Strategy<Value = ConvShape> {
    let groups = (2usize..6, 1usize..3, 1usize..4);
    let image = (0usize..3, 1usize..12, 1usize..90);
    let window =
        ([1usize..5, 1usize..6], [1usize..4, 1usize..3], [1usize..3, 1usize..2], prop::array::uniform4(0usize..4));
    (groups, image, window, 0..3).prop_filter_map(
        "kernel beyond the input",
        |((g, icg, ocg), (n, ih, iw), (k, s, d, p), three)| {
            // Two thirds of them depthwise 3x3, half of these of stride 1.
            let (icg, k) = if three > 0 { (1, [3, 3]) } else { (icg, k) };
            let (s, d) = if three > 1 { ([1, 1], [1, 1]) } else { (s, d) };
            let shape = ConvShape::builder([n, g * icg, ih, iw], [g * ocg, icg, k[0], k[1]]);
            shape.stride(s).dilation(d).padding(p).groups(g).build().ok()
        },
    )
}

proptest! {
    #![proptest_config(tries(128))]

    #[test]
    fn planar_gradients(shape in planar_shapes(), seed in 0u64..1000) {
        let case = WeightCase::new(&shape, seed);
        for level in Level::available() {
            assert_eq!(PlanarData::new(&shape, Core::here(*level)).is_ok(), shape.sw == 2);
            let dense = [shape.input(), shape.output()].map(|dims| View::dense(Layout::Nchw, dims));
            let three = [shape.icg(), shape.kh, shape.kw, shape.sh, shape.sw, shape.dh, shape.dw] == [1, 3, 3, 1, 1, 1, 1];
            assert_eq!(PlanarWeights::of_views(&shape, Core::here(*level), dense).is_ok(), three);
            case.all(*level, [Layout::Nchw; 2]);
            data(&shape, *level, [Layout::Nchw; 2], seed);
        }
    }
}

#[test]
fn what_gradients_along_rows_do_not_do_is_refused() {
    let refused = |input, weights, groups| {
        let shape = ConvShape::builder(input, weights).stride(2).groups(groups).build().unwrap();
        PlanarData::new(&shape, Core::here(Level::Scalar)).unwrap_err()
    };
    assert_eq!(refused([1, 2, 9, 9], [2, 2, 3, 3], 1), "one group");
    let wide = ConvShape::builder([1, 2, 3, 9], [2, 1, 3, 3]).padding([0, 0, 0, 5]).groups(2).build().unwrap();
    let dense = [wide.input(), wide.output()].map(|dims| View::dense(Layout::Nchw, dims));
    let why = PlanarWeights::of_views(&wide, Core::here(Level::Scalar), dense).unwrap_err();
    assert_eq!(why, "padding of more than a vector on the left or the right");
    assert_eq!(refused([1, 2, 9, 9], [18, 1, 3, 3], 2), "more than 8 output channels a group");
}

/// What is infinite in a gradient's border, or in input that no output reads, meets no zero of the padding.
#[test]
fn weight_gradients_have_no_nan_from_padding() {
    for (iw, stride) in [(5, 1), (40, 1), (90, 1), (6, 2), (7, 2), (40, 2), (41, 2), (92, 2), (93, 2)] {
        let shape = ConvShape::builder([1, 2, 4, iw], [2, 1, 3, 3]).padding([1, 1, 1, 0]).stride(stride);
        let shape = shape.groups(2).build().unwrap();
        let (mut x, mut dy) = (integers(2 * 4 * iw, 1), integers(2 * shape.oh * shape.ow, 2));
        dy.chunks_mut(shape.ow).for_each(|row| (row[0], *row.last_mut().unwrap()) = (f32::INFINITY, f32::INFINITY));
        x.iter_mut().for_each(|x| *x = x.abs() + 1.0);
        let read = (shape.ow - 1) * stride + 2;
        x.chunks_mut(iw).for_each(|row| row[read..].fill(f32::INFINITY));
        let want = reference::conv2d_backward_weights(&shape, &x, &dy);
        for &level in Level::available() {
            let same = |by: &str, dw: &[f32]| {
                for (i, (got, want)) in dw.iter().zip(&want).enumerate() {
                    let what = format!("{by} {level} iw {iw} stride {stride} [{i}]");
                    assert_eq!(got.is_nan(), want.is_nan(), "{what}: {got}, not {want}");
                }
            };
            let plan = DepthwiseWeights::new(&shape, Core::here(level), Layout::Nchw, Layout::Nchw).unwrap();
            let (mut dw, mut scratch) = (vec![0.0; want.len()], vec![0.0; plan.scratch_len(1)]);
            plan.run(&x, &dy, dw.as_mut_slice().into(), None, &mut scratch, &Inline);
            same("lanes", &dw);
            let dense = [shape.input(), shape.output()].map(|dims| View::dense(Layout::Nchw, dims));
            let Ok(plan) = PlanarWeights::of_views(&shape, Core::here(level), dense) else { continue };
            let (mut dw, mut scratch) = (vec![0.0; want.len()], vec![0.0; plan.scratch_len()]);
            plan.run(&x, &dy, dw.as_mut_slice().into(), None, &mut scratch, &Inline);
            same("planar", &dw);
        }
    }
}

/// Layers of real networks, and corners of the rules.
#[test]
fn named_gradients() {
    let conv = |input, weights| ConvShape::builder(input, weights);
    let shapes = [
        conv([2, 32, 28, 28], [48, 32, 3, 3]).padding(1).build(),
        conv([1, 3, 35, 35], [20, 3, 7, 7]).stride(2).padding(3).build(),
        conv([2, 40, 15, 15], [33, 40, 1, 1]).stride(2).build(),
        conv([3, 48, 9, 9], [80, 48, 1, 1]).build(),
        conv([1, 20, 14, 14], [24, 20, 3, 3]).stride(2).padding(1).build(),
        // Several segments and slices: rows of one image, and images; units of several blocks of output channels.
        conv([2, 3, 67, 71], [20, 3, 7, 7]).stride(2).padding(3).build(),
        conv([5, 20, 21, 21], [130, 20, 3, 3]).padding(1).build(),
        conv([6, 24, 24, 24], [150, 24, 1, 1]).build(),
        conv([2, 70, 6, 6], [90, 70, 1, 1]).build(),
        conv([1, 3, 61, 70], [5, 3, 3, 3]).padding(1).build(),
        // First layers, whose kernels take two blocks of outputs and the last one alone; one with all taps.
        conv([2, 3, 32, 36], [40, 3, 4, 4]).stride(4).build(),
        conv([1, 3, 19, 23], [40, 3, 5, 5]).padding(1).build(),
        conv([1, 3, 9, 20], [40, 3, 2, 4]).padding(1).build(),
        conv([1, 3, 35, 35], [40, 3, 7, 7]).stride(2).padding(3).build(),
        // Winograd: groups of an odd number of blocks, of several chunks.
        conv([1, 33, 29, 31], [35, 33, 3, 3]).padding(1).build(),
        conv([5, 17, 31, 33], [20, 17, 1, 1]).build(),
        conv([2, 48, 13, 13], [96, 12, 3, 3]).padding(1).groups(4).build(),
        conv([1, 40, 7, 9], [16, 20, 3, 3]).padding(1).groups(2).build(),
        conv([2, 21, 11, 11], [63, 1, 5, 5]).padding(2).groups(21).build(),
        // Depthwise: bands of rows, several blocks of a part, and a last part of fewer.
        conv([1, 128, 60, 60], [128, 1, 3, 3]).padding(1).groups(128).build(),
        conv([1, 20, 60, 60], [20, 1, 3, 3]).padding(1).groups(20).build(),
        conv([1, 20, 101, 120], [20, 1, 3, 3]).padding(1).stride(2).groups(20).build(),
        // The same along rows: bands of rows, images that share segments, and padding as wide as a vector of 4 and of 16.
        conv([1, 3, 190, 181], [3, 1, 3, 3]).padding(1).groups(3).build(),
        conv([40, 2, 30, 31], [4, 1, 3, 3]).padding(1).groups(2).build(),
        conv([1, 2, 5, 1], [2, 1, 3, 3]).padding([1, 4, 1, 4]).groups(2).build(),
        conv([1, 2, 3, 17], [2, 1, 3, 3]).padding([0, 16, 2, 16]).groups(2).build(),
        // More taps to the row than ranges are kept of, over rows of several vectors.
        conv([1, 6, 5, 90], [6, 1, 2, 9]).padding([0, 4, 1, 3]).stride([1, 2]).groups(6).build(),
        conv([1, 6, 5, 90], [6, 1, 3, 8]).padding([1, 3, 1, 4]).stride([3, 2]).groups(6).build(),
        // Outputs that see nothing but padding; strides beyond the kernel; dilation and stride with a common factor.
        conv([1, 5, 3, 3], [6, 5, 2, 2]).padding(3).stride(2).build(),
        conv([1, 4, 9, 9], [3, 4, 2, 2]).stride(5).build(),
        conv([1, 4, 19, 19], [3, 4, 3, 3]).stride([4, 6]).dilation([6, 4]).padding([2, 9]).build(),
        conv([1, 1, 1, 1], [1, 1, 1, 1]).build(),
        conv([0, 17, 4, 4], [18, 17, 3, 3]).padding(1).build(),
    ];
    for (i, shape) in some(shapes).enumerate() {
        let shape = shape.unwrap();
        let case = WeightCase::new(&shape, i as u64);
        for level in Level::available() {
            for layouts in Layout::ALL.into_iter().flat_map(|a| Layout::ALL.map(|b| [a, b])) {
                data(&shape, *level, layouts, i as u64);
                case.all(*level, layouts);
            }
        }
    }
}
