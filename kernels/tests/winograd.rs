//! How exact Winograd convolution is: every variant at every level against the f64 oracle, over random and worst-case data.

use proptest::prelude::*;
use swath_kernels::epilogue::Epilogue;
use swath_kernels::exec::Inline;
use swath_kernels::isa::Level;
use swath_kernels::layout::{Layout, reorder};
use swath_kernels::machine::Core;
use swath_kernels::shape::ConvShape;
use swath_kernels::winograd::{Variant, Winograd};
use tries::tries;

mod threads;
mod tries;

use threads::{random, scaled};

/// Errors of one convolution: the largest as a share of the stated bound, and the root mean square relative to the result's.
fn errors(shape: &ConvShape, level: Level, variant: Variant, x: &[f32], w: &[f32]) -> (f64, f64) {
    let conv = Winograd::new(shape, Core::here(level), variant, Layout::Blocked, Layout::Nchw).unwrap();
    let (mut packed, mut scratch) = (vec![f32::NAN; conv.packed_len()], vec![f32::NAN; conv.scratch_len()]);
    conv.pack(w, &mut packed);
    let mut blocked = vec![f32::NAN; Layout::Blocked.len(shape.input())];
    reorder(Layout::Nchw, x, Layout::Blocked, &mut blocked, shape.input());
    let mut y = vec![f32::NAN; shape.output().iter().product()];
    conv.forward(&blocked, &packed, &Epilogue::none(), y.as_mut_slice().into(), &mut scratch, &Inline);
    threads::errors(shape, &y, x, w, |max_x, sum_w| variant.bound(shape.ic, max_x, sum_w))
}

fn shape(ic: usize, size: usize) -> ConvShape {
    ConvShape::builder([1, ic, size, size], [16, ic, 3, 3]).padding(1).build().unwrap()
}

/// Random data from 16 to 512 channels: the typical error, and far below the bound.
#[test]
fn random_data_is_as_exact_as_stated() {
    for ic in [16, 64, 256, 512] {
        let s = shape(ic, 13);
        let (x, w) = (random(ic * 169, ic as u64), random(16 * ic * 9, 1 + ic as u64));
        for level in Level::available() {
            for variant in Variant::ALL {
                let (worst, typical) = errors(&s, *level, variant, &x, &w);
                println!("{variant:?} {level} ic {ic}: {typical:.2e} of the result, {worst:.2e} of the bound");
                assert!(typical <= variant.typical(), "{variant:?} {level} ic {ic}: {typical:e}");
                assert!(worst <= 1.0, "{variant:?} {level} ic {ic}: {worst} of the bound");
                assert!(typical > 1e-8, "{variant:?} {level}: is this the oracle?");
            }
        }
    }
}

/// The sign of a weight, by its position.
type Sign = fn(usize) -> f32;

/// An input, of its position and a random number.
type Pattern = fn(usize, f32) -> f32;

const SIGNS: [(&str, Sign); 2] =
    [("alternating", |i| if i.is_multiple_of(2) { 1.0 } else { -1.0 }), ("equal", |_| 1.0)];

/// Values that make transforms grow: all of one sign, alternating signs, a large mean with small differences, magnitudes that
/// differ by a million.
#[test]
fn worst_cases_stay_within_the_bound() {
    let patterns: [(&str, Pattern); 5] = [
        ("one sign", |_, r| 0.75 + 0.25 * r),
        ("mean", |_, r| 1000.0 + r),
        ("cancelling", |i, r| if i.is_multiple_of(2) { 1.0 + 1e-3 * r } else { -1.0 }),
        ("magnitudes", |i, r| r * [1.0, 1e-6, 1e3][i % 3]),
        ("few", |i, r| if i % 29 == 0 { 1e4 * r } else { 0.0 }),
    ];
    for ic in [16, 128, 512] {
        let s = shape(ic, 12);
        for (name, f) in patterns {
            for (signs, g) in SIGNS {
                let x: Vec<f32> = random(ic * 144, 3).iter().enumerate().map(|(i, r)| f(i, *r)).collect();
                let w: Vec<f32> =
                    random(16 * ic * 9, 4).iter().enumerate().map(|(i, r)| g(i) * (0.9 + 0.1 * r)).collect();
                for level in Level::available() {
                    for variant in Variant::ALL {
                        let (worst, _) = errors(&s, *level, variant, &x, &w);
                        assert!(worst <= 1.0, "{name}, {signs} weights, {variant:?} {level} ic {ic}: {worst}");
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(tries(48))]

    /// The bound for anything finite: data over twelve orders of magnitude, sparse or not.
    #[test]
    fn the_bound_holds(
        ic in 1usize..50,
        size in (1usize..15, 1usize..15),
        scale in prop::array::uniform2(-6i32..7),
        zeros in 0usize..5,
        seed in 0u64..1000,
    ) {
        let s = ConvShape::builder([1, ic, size.0, size.1], [5, ic, 3, 3]).padding(1).build().unwrap();
        let of = |len, scale: i32, seed| scaled(len, seed, zeros, |e| (10f32.powi(scale) * e).exp2().min(1e6));
        let (x, w) = (of(ic * size.0 * size.1, scale[0].min(1), seed), of(5 * ic * 9, scale[1].min(1), seed + 1));
        for level in Level::available() {
            for variant in Variant::ALL {
                let (worst, _) = errors(&s, *level, variant, &x, &w);
                prop_assert!(worst <= 1.0 || worst.is_nan(), "{variant:?} {level}: {worst}");
            }
        }
    }
}

#[test]
fn what_winograd_does_not_do_is_refused() {
    let refused = |shape: swath_kernels::shape::ConvShape| {
        Winograd::new(&shape, Core::here(Level::Scalar), Variant::F4, Layout::Blocked, Layout::Blocked).unwrap_err()
    };
    let conv = |k: usize| ConvShape::builder([1, 32, 20, 20], [32, 32, k, k]);
    assert_eq!(refused(conv(5).build().unwrap()), "the kernel is not 3x3");
    assert_eq!(refused(conv(3).stride(2).build().unwrap()), "the stride is not 1");
    assert_eq!(refused(conv(3).dilation(2).build().unwrap()), "the kernel is dilated");
    let grouped = ConvShape::builder([1, 32, 20, 20], [32, 16, 3, 3]).groups(2).build().unwrap();
    assert_eq!(refused(grouped), "there are groups");
    let deep = ConvShape::builder([1, 100_000, 3, 3], [1, 100_000, 3, 3]).build().unwrap();
    assert_eq!(refused(deep), "so many channels that not even one tile fits the scratch");
}
