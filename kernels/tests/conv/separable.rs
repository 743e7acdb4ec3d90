//! Depthwise separable convolution: the same bits as its two parts one after the other, whatever the strips.

use proptest::prelude::*;
use swath_kernels::depthwise::Depthwise;
use swath_kernels::direct::Direct;
use swath_kernels::epilogue::{Activation, Epilogue};
use swath_kernels::exec::Inline;
use swath_kernels::isa::Level;
use swath_kernels::layout::{Layout, reorder};
use swath_kernels::machine::Core;
use swath_kernels::separable::Separable;
use swath_kernels::shape::ConvShape;

use crate::support::{bits, guarded, integers};
use crate::threads::Threads;

fn blocked(dims: [usize; 4], seed: u64) -> Vec<f32> {
    let mut x = vec![0.0; Layout::Blocked.len(dims)];
    reorder(Layout::Nchw, &integers(dims.iter().product(), seed), Layout::Blocked, &mut x, dims);
    x
}

/// Sums of what follows are not exact in f32, so that another order would show.
fn fractions(len: usize, seed: u64) -> Vec<f32> {
    integers(len, seed).iter().map(|v| v * 0.3 + 0.1).collect()
}

/// Two shapes that follow each other.
fn shapes() -> impl Strategy<Value = [ConvShape; 2]> {
    let size = (1..4usize, 1..70usize, 1..3usize, 1..70usize, 1..40usize, 1..30usize);
    let window = (1..6usize, 1..6usize, 1..3usize, 0..3usize, 1..3usize);
    (size, window).prop_filter_map("a window larger than the image", |((n, c, of, oc, h, w), (kh, kw, s, pad, d))| {
        let groups = c.max(1);
        let first = ConvShape::builder([n, c, h, w], [c * of, 1, kh, kw]).stride(s).padding(pad).dilation(d);
        let first = first.groups(groups).build().ok()?;
        let second = ConvShape::builder(first.output(), [oc, c * of, 1, 1]).build().ok()?;
        Some([first, second])
    })
}

fn same_bits(shapes: [ConvShape; 2], rows: usize, residual: bool, activations: [Activation; 2]) {
    let [first, second] = shapes;
    let x = blocked(first.input(), 1);
    let added = blocked(second.output(), 2);
    let biases = [first, second].map(|s| fractions(s.oc, 3));
    let weights = [first, second].map(|s| fractions(s.weights().iter().product(), 4));
    let [a, b] = [0, 1].map(|i| Epilogue { activation: activations[i], ..Epilogue::bias(&biases[i]) });
    let b = Epilogue { residual: residual.then_some(&added[..]), ..b };
    for &level in Level::available() {
        // What the depthwise kernels do not take is no pair.
        let Ok(depthwise) = Depthwise::new(&first, Core::here(level), Layout::Blocked, Layout::Blocked) else {
            assert!(Separable::with_rows([&first, &second], Core::here(level), rows).is_err());
            continue;
        };
        let direct = Direct::new(&second, Core::here(level), Layout::Blocked, Layout::Blocked);
        let plan = Separable::with_rows([&first, &second], Core::here(level), rows).unwrap();
        let mut packed = plan.packed_len().map(|len| vec![f32::NAN; len]);
        depthwise.pack(&weights[0], &mut packed[0]);
        direct.pack(&weights[1], &mut packed[1]);
        let mut between = vec![f32::NAN; Layout::Blocked.len(first.output())];
        let mut want = vec![f32::NAN; Layout::Blocked.len(second.output())];
        depthwise.forward(&x, &packed[0], &a, (&mut between[..]).into(), &mut [], &Inline);
        direct.forward(&between, &packed[1], &b, (&mut want[..]).into(), &mut [], &Inline);
        for threads in [1, 3] {
            let got = guarded(want.len(), |y| {
                let mut scratch = vec![f32::NAN; threads * plan.scratch_len()];
                plan.forward(&x, [&packed[0], &packed[1]], [a, b], y.into(), &mut scratch, &Threads(threads));
            });
            assert_eq!(bits(&got), bits(&want), "{level}, strips of {}, {shapes:?}", plan.rows());
        }
    }
}

proptest! {
    #[test]
    fn strips_of_any_height_give_the_same_bits(
        shapes in shapes(),
        rows in 1..50usize,
        residual in any::<bool>(),
        activations in prop::sample::select(vec![
            [Activation::Relu, Activation::Identity],
            [Activation::Identity, Activation::Relu],
            [Activation::HardSwish, Activation::Silu],
            [Activation::Sigmoid, Activation::Sigmoid],
        ]),
    ) {
        same_bits(shapes, rows, residual, activations);
    }
}

#[test]
fn what_is_no_such_pair_is_refused() {
    let shape = |input, weights: [usize; 4], groups| ConvShape::builder(input, weights).groups(groups).build().unwrap();
    let first = shape([1, 16, 9, 9], [16, 1, 3, 3], 16);
    let second = shape([1, 16, 7, 7], [8, 16, 1, 1], 1);
    let refused = |first: &ConvShape, second: &ConvShape| {
        Separable::with_rows([first, second], Core::here(Level::Scalar), 4).err().unwrap_or("nothing")
    };
    assert_eq!(refused(&first, &second), "nothing");
    assert_eq!(refused(&first, &shape([1, 16, 7, 8], [8, 16, 1, 1], 1)), "the second convolution reads something else");
    let not_pointwise = "the second convolution is not 1x1 of stride 1";
    assert_eq!(refused(&first, &shape([1, 16, 7, 7], [8, 16, 2, 2], 1)), not_pointwise);
    assert_eq!(refused(&first, &shape([1, 16, 7, 7], [8, 8, 1, 1], 2)), not_pointwise);
    let strided = ConvShape::builder([1, 16, 7, 7], [8, 16, 1, 1]).stride(2).build().unwrap();
    assert_eq!(refused(&first, &strided), not_pointwise);
    assert_eq!(refused(&shape([1, 16, 9, 9], [16, 16, 3, 3], 1), &second), "one group");
}
