//! Plans: choice, refusal, and weights that fit no other plan.

#[path = "../kernels/tests/tries/mod.rs"]
mod tries;

use proptest::prelude::*;
use swath::benchdnn::Problem;
use swath::{
    Accuracy, ConvBackwardData, ConvBackwardWeights, ConvPlan, ConvShape, Epilogue, Error, Layout, Options, Scratch,
    Tuning,
};
use tries::tries;

#[test]
fn weights_packed_for_another_layout_are_refused() {
    let shape = ConvShape::builder([1, 8, 6, 6], [48, 4, 3, 3]).groups(2).build().unwrap();
    let plan = |output| {
        let options = Options { output, algo: Some("gemm".into()), ..Options::default() };
        ConvPlan::new(&shape, &options).unwrap()
    };
    let (nchw, blocked) = (plan(Layout::Nchw), plan(Layout::Blocked));
    let weights = nchw.pack(&[0.5; 48 * 4 * 9]).unwrap();
    let (x, mut y) = ([1.0; 8 * 36], vec![0.0; 48 * 16]);
    let error = blocked.forward(&x, &weights, Epilogue::none(), &mut y, &mut Scratch::new()).unwrap_err();
    assert!(matches!(error, Error::Weights { .. }), "{error}");
    nchw.forward(&x, &weights, Epilogue::none(), &mut y, &mut Scratch::new()).unwrap();
    assert!(y.iter().all(|v| *v == 18.0));
}

#[test]
fn algorithms_are_chosen_by_name_or_by_the_model() {
    let dense = ConvShape::builder([1, 64, 14, 14], [64, 64, 3, 3]).padding(1).build().unwrap();
    let depthwise = ConvShape::builder([1, 64, 14, 14], [64, 1, 3, 3]).padding(1).groups(64).build().unwrap();
    // Untuned, whatever the machine's tuning file says.
    let algo = |shape, options: &Options| {
        let options = Options { tuning: Tuning::Off, ..options.clone() };
        ConvPlan::new(shape, &options).map(|p| p.algo())
    };
    let exact = |options| Options { accuracy: Accuracy::Exact, ..options };
    assert_eq!(algo(&dense, &exact(Options::blocked())).unwrap(), "direct");
    assert_eq!(algo(&dense, &exact(Options::default())).unwrap(), "direct", "by copies to blocks");
    let first = ConvShape::builder([1, 3, 32, 32], [64, 3, 3, 3]).padding(1).build().unwrap();
    assert_eq!(algo(&first, &exact(Options::default())).unwrap(), "stem");
    assert!(algo(&dense, &Options::blocked()).unwrap().starts_with("winograd"));
    for input in Layout::ALL {
        assert_eq!(algo(&depthwise, &Options { input, ..Options::blocked() }).unwrap(), "depthwise", "{input:?}");
    }
    let asked = |name: &str| Options { algo: Some(name.into()), ..Options::blocked() };
    assert_eq!(algo(&dense, &asked("gemm")).unwrap(), "gemm");
    let unknown = algo(&dense, &asked("magic")).unwrap_err().to_string();
    assert!(unknown.contains("magic") && unknown.contains("direct"), "{unknown}");
    let refused = algo(&dense, &asked("depthwise")).unwrap_err().to_string();
    assert!(refused.contains("one group"), "{refused}");
}

/// Whatever way a depthwise convolution in NCHW is computed, the sums of small integers are the same, and so are those of its gradient.
#[test]
fn planes_and_lanes_agree() {
    let shape = ConvShape::builder([2, 20, 17, 30], [20, 1, 3, 3]).padding(1).groups(20).build().unwrap();
    let integers = |len: usize| (0..len).map(|i| (i * 7 % 11) as f32 - 5.0).collect::<Vec<f32>>();
    let (x, w) = (integers(2 * 20 * 17 * 30), integers(20 * 9));
    let results = ["planar", "depthwise", "stem"].map(|name| {
        let options = Options { algo: Some(name.into()), ..Options::default() };
        let (plan, gradient) =
            (ConvPlan::new(&shape, &options).unwrap(), ConvBackwardData::new(&shape, &options).unwrap());
        assert_eq!([plan.algo(), gradient.algo()], [name; 2]);
        let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
        plan.forward(&x, &plan.pack(&w).unwrap(), Epilogue::none(), &mut y, &mut Scratch::new()).unwrap();
        gradient.run(&x, &gradient.pack(&w).unwrap(), &mut dx, &mut Scratch::new()).unwrap();
        [y, dx]
    });
    assert!(results[0][0].iter().any(|v| *v > 9.0));
    assert!(results[0] == results[1] && results[0] == results[2]);
}

#[test]
fn wrong_lengths_are_errors_with_both_numbers() {
    let shape = ConvShape::builder([1, 3, 8, 8], [5, 3, 3, 3]).build().unwrap();
    let plan = ConvPlan::new(&shape, &Options::default()).unwrap();
    let error = plan.pack(&[0.0; 7]).unwrap_err().to_string();
    assert!(error.contains("7") && error.contains("135"), "{error}");
    let weights = plan.pack(&[0.0; 135]).unwrap();
    let run = |x: usize, bias: usize, y: usize| {
        let (x, bias, mut y) = (vec![0.0; x], vec![0.0; bias], vec![0.0; y]);
        plan.forward(&x, &weights, Epilogue::bias(&bias), &mut y, &mut Scratch::new())
    };
    assert!(run(192, 5, 180).is_ok());
    for (x, bias, y, numbers) in [(191, 5, 180, ["191", "192"]), (192, 4, 180, ["4", "5"]), (192, 5, 1, ["1", "180"])] {
        let error = run(x, bias, y).unwrap_err().to_string();
        assert!(numbers.iter().all(|n| error.contains(n)), "{error}");
    }
}

/// Plans in every pair of layouts, and prints the plans.
fn every_plan(shape: &ConvShape) {
    for (input, output) in Layout::ALL.into_iter().flat_map(|input| Layout::ALL.map(|output| (input, output))) {
        let options = Options { input, output, accuracy: Accuracy::Fast, tuning: Tuning::Off, ..Options::default() };
        let plan = ConvPlan::new(shape, &options).unwrap();
        assert!(plan.explain().to_string().contains("chosen"));
        assert!(plan.scratch_len(usize::MAX) >= plan.scratch_len(1));
        for candidate in plan.candidates() {
            let asked = Options { algo: Some(candidate.algo.into()), ..options.clone() };
            assert_eq!(ConvPlan::new(shape, &asked).is_ok(), candidate.predicted.is_ok());
        }
        // Gradients: a plan, or an error where a stride has too many phases.
        if let Ok(plan) = ConvBackwardData::new(shape, &options) {
            assert!(plan.explain().to_string().contains("chosen"));
            assert!(plan.scratch_len(usize::MAX) >= plan.scratch_len(1));
        }
        let plan = ConvBackwardWeights::new(shape, &options).unwrap();
        assert!(plan.explain().to_string().contains("chosen"));
        assert!(plan.scratch_len(usize::MAX) >= plan.scratch_len(1));
    }
}

/// Shapes that no memory could hold. Each loop over their extents would take hours.
#[test]
fn any_shape_is_planned() {
    for problem in [
        "ic16ih1iw1oc16kh1ph1000000000000pw0",
        "mb0ic16ih100000000000iw1oc16kh1",
        "mb1000000ic1000000ih3oc1000000kh3ph1",
        "g1000000000ic1000000000ih1oc1000000000kh1",
        "g1000000000ic2000000000ih1oc3000000000kh1",
        "g1000000000ic3000000000ih1oc17000000000kh1",
        "ic1ih1000000000000iw1oc1kh3kw1sh3ph1pw0",
    ] {
        let problem: Problem = problem.parse().unwrap_or_else(|e| panic!("{problem}: {e}"));
        every_plan(&problem.shape);
    }
    every_plan(&ConvShape::builder([1, 1, 1, 1], [10_000_000_000_000, 1, 1, 1]).build().unwrap());
    every_plan(&ConvShape::builder([1, 10_000_000_000_000, 1, 1], [1, 10_000_000_000_000, 1, 1]).build().unwrap());
    let far = ConvShape::builder([1, 1, 1, 1 << 40], [1, 1, 1, 1 << 39]).padding([0, 1 << 38]).stride(7).build();
    every_plan(&far.unwrap());
    let taps = ConvShape::builder([1, 16, 1, 1 << 36], [16, 1, 1, 1 << 36]).groups(16).build();
    every_plan(&taps.unwrap());
    let steps =
        ConvShape::builder([1, 3178 * 1627, 1, 1667], [1627, 3178, 1, 1]).stride([2_140_142_428, 1]).groups(1627);
    every_plan(&steps.build().unwrap());
}

/// An extent of any magnitude, mostly small ones, so that some products of them are those of a shape.
fn extent() -> impl Strategy<Value = usize> {
    let shift = prop_oneof![2 => 0u32..64, 6 => 44u32..64];
    prop_oneof![10 => 1usize..5, 10 => (shift, any::<usize>()).prop_map(|(shift, v)| v >> shift), 1 => Just(usize::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 1_000_000, ..tries(4000) })]

    /// A shape or an error, and of a shape a plan, whatever the extents.
    #[test]
    fn any_extents_are_planned_or_refused(
        (n, icg, ocg, groups) in (extent(), extent(), extent(), prop_oneof![Just(1usize), extent()]),
        (input, kernel) in (prop::array::uniform2(extent()), prop::array::uniform2(prop_oneof![0usize..6, extent()])),
        (stride, dilation) in (prop::array::uniform2(extent()), prop::array::uniform2(extent())),
        padding in prop::array::uniform4(prop_oneof![0usize..6, extent()]),
    ) {
        let shape = ConvShape::builder(
            [n, icg.saturating_mul(groups), input[0], input[1]],
            [ocg.saturating_mul(groups), icg, kernel[0], kernel[1]],
        );
        if let Ok(shape) = shape.stride(stride).dilation(dilation).padding(padding).groups(groups).build() {
            every_plan(&shape);
        }
    }
}

/// Floats that follow from a number.
fn floats(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + seed * 11) % 23) as f32 / 8.0 - 1.25).collect()
}

/// `a`'s packed weights serve `b` as `b`'s own do, if their keys are equal, as they are where `alike`.
fn shares_weights(a: &ConvShape, b: &ConvShape, options: &Options, alike: bool) {
    let w = floats(a.weights().iter().product(), 1);
    let [x, y] = [options.input.len(b.input()), options.output.len(b.output())];
    let scratch = &mut Scratch::new();
    if let (Ok(pa), Ok(pb)) = (ConvPlan::new(a, options), ConvPlan::new(b, options)) {
        let what = format!("{options:?} {a:?} {b:?}");
        assert!(pa.weights_key() == pb.weights_key() || !alike, "{what}");
        if pa.weights_key() == pb.weights_key() {
            let of = |plan: &ConvPlan, scratch: &mut Scratch| {
                let (packed, mut y) = (plan.pack(&w).unwrap(), vec![f32::NAN; y]);
                assert_eq!(packed.key(), plan.weights_key());
                pb.forward(&floats(x, 2), &packed, Epilogue::none(), &mut y, scratch).unwrap();
                y
            };
            assert_eq!(of(&pa, scratch), of(&pb, scratch), "{what}");
        }
    }
    if let (Ok(pa), Ok(pb)) = (ConvBackwardData::new(a, options), ConvBackwardData::new(b, options)) {
        let what = format!("data gradient, {options:?} {a:?} {b:?}");
        assert!(pa.weights_key() == pb.weights_key() || !alike, "{what}");
        if pa.weights_key() == pb.weights_key() {
            let of = |plan: &ConvBackwardData, scratch: &mut Scratch| {
                let (packed, mut dx) = (plan.pack(&w).unwrap(), vec![f32::NAN; x]);
                pb.run(&floats(y, 3), &packed, &mut dx, scratch).unwrap();
                dx
            };
            assert_eq!(of(&pa, scratch), of(&pb, scratch), "{what}");
        }
    }
}

#[test]
fn packed_weights_serve_every_plan_of_their_key() {
    let built = |n, size: [usize; 2], oc, [icg, groups]: [usize; 2], k, stride| {
        ConvShape::builder([n, icg * groups, size[0], size[1]], [oc, icg, k, k])
            .padding(k / 2)
            .stride(stride)
            .groups(groups)
            .build()
            .unwrap()
    };
    let layers = [
        (40, [20, 1], 3, 1),
        (24, [3, 1], 3, 2),
        (33, [17, 1], 1, 1),
        (16, [1, 16], 3, 1),
        (24, [4, 6], 3, 2),
        (16, [1, 16], 3, 2),
    ];
    for (oc, channels, k, stride) in layers {
        for algo in swath::algo::ALGOS {
            for (input, output) in
                [(Layout::Nchw, Layout::Nchw), (Layout::Blocked, Layout::Blocked), (Layout::Nhwc, Layout::Nchw)]
            {
                let options = Options {
                    input,
                    output,
                    algo: Some(algo.name.into()),
                    accuracy: Accuracy::Fast,
                    threads: Some(1),
                    ..Options::default()
                };
                let shape = |n, size| built(n, size, oc, channels, k, stride);
                for n in [2, 5, 16] {
                    shares_weights(&shape(1, [11, 9]), &shape(n, [11, 9]), &options, true);
                    shares_weights(&shape(n, [11, 9]), &shape(1, [11, 9]), &options, true);
                }
                // Of other sizes the keys say.
                for size in [[1, 1], [5, 7], [28, 28], [30, 9]] {
                    shares_weights(&shape(1, [11, 9]), &shape(3, size), &options, false);
                }
            }
        }
    }
}

#[test]
fn a_plan_of_another_batch_keeps_the_algorithm() {
    let shape =
        |n| ConvShape::builder([n, 8, 9, 7], [12, 8, 3, 3]).padding([2, 1, 0, 1]).stride([1, 2]).build().unwrap();
    for options in [Options::default(), Options::blocked()] {
        let plan = ConvPlan::new(&shape(1), &options).unwrap();
        let (weights, scratch) = (plan.pack(&floats(12 * 8 * 9, 1)).unwrap(), &mut Scratch::new());
        let [x, y] = [options.input.len(shape(1).input()), options.output.len(shape(1).output())];
        let many = plan.with_batch(3).unwrap();
        assert_eq!((many.shape(), many.algo()), (&shape(3), plan.algo()));
        assert!(many.explain().to_string().contains("another batch"));
        let (all, mut together) = (floats(3 * x, 4), vec![f32::NAN; 3 * y]);
        many.forward(&all, &weights, Epilogue::none(), &mut together, scratch).unwrap();
        let mut alone = vec![f32::NAN; 3 * y];
        for (x, y) in all.chunks_exact(x).zip(alone.chunks_exact_mut(y)) {
            plan.forward(x, &weights, Epilogue::none(), y, scratch).unwrap();
        }
        assert_eq!(together, alone);
        assert_eq!(ConvBackwardData::new(&shape(1), &options).unwrap().with_batch(4).unwrap().shape(), &shape(4));
        assert_eq!(ConvBackwardWeights::new(&shape(2), &options).unwrap().with_batch(1).unwrap().shape(), &shape(1));
        assert!(plan.with_batch(usize::MAX).is_err());
    }
}
