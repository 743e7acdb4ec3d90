//! Convolutions of tensors that are parts of larger ones, and into memory that holds nothing yet: the same bits as of dense
//! tensors, by every algorithm.

use core::mem::MaybeUninit;

use proptest::prelude::*;
use swath::pool::MaxPool;
use swath::{
    Accuracy, Activation, ConvBackwardData, ConvPlan, ConvShape, Epilogue, Layout, Options, Pitches, PoolShape,
    Scratch, Tuning,
};

/// What no result is: a NaN of this payload.
const POISON: u32 = 0x7fc0_beef;

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + seed * 104_729) % 2001) as f32 / 1000.0 - 1.0).collect()
}

/// Gaps in floats behind rows, channels and images.
type Gaps = [usize; 3];

fn pitches(layout: Layout, [_, c, h, w]: [usize; 4], [row, channel, image]: Gaps) -> Pitches {
    if layout == Layout::Nhwc {
        let row = w * c + row;
        return Pitches { row, channel: 1, image: h * row + image };
    }
    let row = w + row;
    let channel = h * row + channel;
    Pitches { row, channel, image: c * channel + image }
}

/// Where each element of a tensor lies, in the order of its layout.
fn places(layout: Layout, [n, c, h, w]: [usize; 4], p: Pitches) -> Vec<usize> {
    let mut all = Vec::new();
    for i in 0..n {
        let at = |k: usize, y: usize, x: usize| match layout {
            Layout::Nhwc => i * p.image + y * p.row + x * c + k,
            _ => i * p.image + k * p.channel + y * p.row + x,
        };
        match layout {
            Layout::Nhwc => (0..h).for_each(|y| (0..w).for_each(|x| (0..c).for_each(|k| all.push(at(k, y, x))))),
            _ => (0..c).for_each(|k| (0..h).for_each(|y| (0..w).for_each(|x| all.push(at(k, y, x))))),
        }
    }
    all
}

/// A dense tensor's floats at their places, in a slice that goes on behind them, with poison everywhere else.
fn spread(dense: &[f32], places: &[usize]) -> Vec<f32> {
    let mut all = vec![f32::from_bits(POISON); places.iter().max().map_or(0, |m| m + 1) + 3];
    places.iter().zip(dense).for_each(|(&at, &v)| all[at] = v);
    all
}

/// Runs every algorithm on tensors with gaps, and compares with the same one on dense tensors.
fn agree(shape: &ConvShape, layouts: [Layout; 2], gaps: [Gaps; 2], threads: usize) {
    let (x, w) = (numbers(shape.input().iter().product(), 1), numbers(shape.weights().iter().product(), 2));
    let (bias, residual) = (numbers(shape.oc, 3), numbers(shape.output().iter().product(), 4));
    let of = |layout, dims, gaps| {
        let p = pitches(layout, dims, gaps);
        (p, places(layout, dims, p))
    };
    let (from, x_at) = of(layouts[0], shape.input(), gaps[0]);
    let (to, y_at) = of(layouts[1], shape.output(), gaps[1]);
    let (x_far, residual_far) = (spread(&x, &x_at), spread(&residual, &y_at));
    let options = Options { accuracy: Accuracy::Fast, tuning: Tuning::Off, ..Options::default() };
    let options = options.layouts(layouts[0], layouts[1]).threads(threads);
    let dense = ConvPlan::new(shape, &options).unwrap();
    for algo in dense.candidates().iter().filter(|c| c.predicted.is_ok()).map(|c| c.algo) {
        let dense = ConvPlan::new(shape, &options.clone().algo(algo)).unwrap();
        let far = ConvPlan::new(shape, &options.clone().algo(algo).pitches(Some(from), Some(to)));
        // Gaps behind a single row, channel or image lie outside of the tensor.
        let apart = [&x_at, &y_at].iter().any(|at| at.iter().enumerate().any(|(i, &place)| i != place));
        if algo == "bf16x6" && apart {
            assert!(far.unwrap_err().to_string().contains("lie apart"));
            continue;
        }
        let far = far.unwrap();
        // Packed for the one, they serve the other.
        let (weights, mut scratch) = (dense.pack(&w).unwrap(), Scratch::new());
        for activation in [Activation::Relu, Activation::Silu] {
            let epilogue = Epilogue { residual: Some(&residual), activation, ..Epilogue::bias(&bias) };
            let mut y = vec![MaybeUninit::new(f32::from_bits(POISON)); residual.len()];
            let y = dense.forward_uninit(&x, &weights, epilogue, &mut y, &mut scratch).unwrap();
            assert!(y.iter().all(|v| v.to_bits() != POISON), "{algo}");
            let expected = spread(y, &y_at);
            let mut y = vec![f32::from_bits(POISON); residual_far.len()];
            let epilogue = Epilogue { residual: Some(&residual_far), ..epilogue };
            far.forward(&x_far, &weights, epilogue, &mut y, &mut scratch).unwrap();
            let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert!(bits(&y) == bits(&expected), "{algo} from {layouts:?}, {gaps:?}, {shape:?}");
        }
    }
}

fn any_shape() -> impl Strategy<Value = ConvShape> {
    let extents = (1usize..4, 1usize..20, 1usize..20, 1usize..18, 1usize..40);
    let window = (prop_oneof![Just(1usize), Just(3)], 1usize..3, 0usize..2, 0usize..3);
    (extents, window).prop_filter_map("a kernel within its input", |((n, ic, oc, ih, iw), (k, stride, pad, groups))| {
        let (ic, oc, groups) = match groups {
            0 => (ic, oc, 1),
            1 => (ic, ic, ic),
            _ => (2 * ic.min(4), 2 * oc, 2),
        };
        let shape = ConvShape::builder([n, ic, ih, iw], [oc, ic / groups, k, k]);
        shape.stride(stride).padding(pad).groups(groups).build().ok()
    })
}

fn any_gaps() -> impl Strategy<Value = Gaps> {
    let gap = || prop_oneof![Just(0usize), 1usize..20];
    [gap(), gap(), gap()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn gaps_change_nothing(
        shape in any_shape(),
        layouts in (any::<bool>(), any::<bool>()),
        gaps in [any_gaps(), any_gaps()],
        threads in 1usize..4,
    ) {
        let layout = |nhwc| if nhwc { Layout::Nhwc } else { Layout::Nchw };
        agree(&shape, [layout(layouts.0), layout(layouts.1)], gaps, threads);
    }
}

/// Rows that are a vector and more, and more threads than one, by each family.
#[test]
fn long_rows_and_many_channels() {
    for (c, groups, k) in [(48, 1, 3), (48, 1, 1), (40, 40, 3), (24, 8, 3)] {
        let shape = ConvShape::builder([2, c, 19, 37], [c, c / groups, k, k]).padding(k / 2).groups(groups).build();
        for gaps in [[[0, 0, 5], [0; 3]], [[0; 3], [0, 0, 96]], [[3, 0, 0], [1, 0, 0]], [[0, 7, 1], [5, 2, 9]]] {
            agree(shape.as_ref().unwrap(), [Layout::Nchw; 2], gaps, 2);
        }
    }
}

#[test]
fn what_cannot_lie_so_is_an_error_with_both_numbers() {
    let shape = ConvShape::builder([2, 3, 8, 9], [4, 3, 3, 3]).padding(1).build().unwrap();
    let plan = |input: Layout, pitches| {
        let options = Options { input, input_pitches: pitches, ..Options::default() };
        ConvPlan::new(&shape, &options).map(|_| ()).unwrap_err().to_string()
    };
    let far = Pitches { image: 3 * 80, channel: 80, row: 10 };
    for (layout, pitches, says) in [
        (Layout::Nchw, Pitches { row: 8, ..far }, ["rows are 8 floats", "each takes 9"]),
        (Layout::Nchw, Pitches { channel: 78, ..far }, ["channels are 78 floats", "each takes 79"]),
        (Layout::Nchw, Pitches { image: 238, ..far }, ["images are 238 floats", "each takes 239"]),
        (Layout::Nchw, Pitches { image: usize::MAX, ..far }, ["2 images", "more than memory can hold"]),
        (Layout::Nhwc, far, ["channels are 80 floats", "1 in nhwc"]),
        (Layout::Blocked, far, ["the input's pitch", "blocked tensors are dense"]),
    ] {
        let e = plan(layout, Some(pitches));
        assert!(says.iter().all(|s| e.contains(s)), "{e}");
    }
    let options = Options::default().pitches(Some(far), Some(Pitches { image: 4 * 80 + 7, ..far }));
    let (plan, mut scratch) = (ConvPlan::new(&shape, &options).unwrap(), Scratch::new());
    assert!(plan.explain().to_string().contains("input: rows 10, channels 80, images 240 floats apart"));
    let weights = plan.pack(&[1.0; 108]).unwrap();
    let mut run = |x: usize, y: usize, residual: usize| {
        let (x, mut y, residual) = (vec![0.0; x], vec![0.0; y], vec![0.0; residual]);
        let epilogue = Epilogue { residual: Some(&residual), ..Epilogue::none() };
        plan.forward(&x, &weights, epilogue, &mut y, &mut scratch).map_err(|e| e.to_string())
    };
    let (x, y) = (240 + 160 + 79, 327 + 240 + 79);
    assert_eq!([run(x, y, y), run(x + 1, y + 9, y + 2)], [Ok(()), Ok(())]);
    assert_eq!(run(x - 1, y, y), Err(format!("the input has {} elements, but {x} are needed", x - 1)));
    assert_eq!(run(x, y - 1, y), Err(format!("the output has {} elements, but {y} are needed", y - 1)));
    assert_eq!(run(x, y, y - 1), Err(format!("the residual has {} elements, but {y} are needed", y - 1)));
    let mut unwritten = vec![MaybeUninit::uninit(); y];
    let e = plan.forward_uninit(&vec![0.0; x], &weights, Epilogue::none(), &mut unwritten, &mut scratch).unwrap_err();
    assert!(e.to_string().contains("646") && e.to_string().contains("576"), "{e}");
    let e = ConvBackwardData::new(&shape, &options).unwrap_err().to_string();
    assert!(e.contains("bwd_d") && e.contains("dense"), "{e}");
    let e = MaxPool::new(&PoolShape::builder([1, 2, 4, 4], 2).build().unwrap(), &options).unwrap_err().to_string();
    assert!(e.contains("10") && e.contains("dense"), "{e}");
    // Another batch of the same pitches.
    assert!(plan.with_batch(5).is_ok() && plan.with_batch(usize::MAX / 600).is_err());
}
