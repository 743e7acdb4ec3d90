//! Softmax, log-softmax and cross-entropy over any axis.

use crate::tries::tries;
use proptest::prelude::*;
use swath_kernels::isa::Level;
use swath_kernels::pass::Place;
use swath_kernels::reference as naive;
use swath_kernels::softmax::{Axis, CrossEntropy, Targets};

use crate::support::{at_levels, close, largest, wide};
use crate::threads::{Guarded, random};

fn extents() -> impl Strategy<Value = [usize; 3]> {
    prop_oneof![
        [0usize..5, 1usize..40, 1usize..2],
        [0usize..3, 1usize..24, 1usize..150],
        [1usize..2, 2usize..4, 1000usize..1500],
        [30usize..40, 250usize..300, 1usize..2],
    ]
}

/// Logits, some far apart.
fn logits(len: usize, seed: u64) -> Vec<f32> {
    random(len, seed)
        .into_iter()
        .zip(random(len, seed + 1))
        .map(|(v, r)| if r > 0.9 { v * 60.0 } else { v * 5.0 })
        .collect()
}

proptest! {
    #![proptest_config(tries(40))]

    #[test]
    fn any_axis(e in extents(), log: bool, seed in 0u64..1000) {
        let [outer, len, inner] = e;
        let axis = Axis::new(outer, len, inner).unwrap();
        let (x, dy) = (logits(outer * len * inner, seed), random(outer * len * inner, seed + 2));
        let y = if log { naive::log_softmax_axis(e, &wide(&x)) } else { naive::softmax_axis(e, &wide(&x)) };
        let dx = naive::softmax_axis_gradient(e, log, &wide(&x), &wide(&dy));
        for (level, got) in at_levels(|place| {
            let (mut y, mut dx) = (Guarded::nan(x.len()), Guarded::nan(x.len()));
            if log {
                axis.log_softmax(place, &x, y.slice());
                axis.log_softmax_backward(place, y.slice(), &dy, dx.slice());
            } else {
                axis.softmax(place, &x, y.slice());
                axis.softmax_backward(place, y.slice(), &dy, dx.slice());
            }
            vec![y.check(), dx.check()]
        }) {
            let slack = (8.0 + len as f64 / 4.0) * 1.2e-7;
            close(&format!("{level} y"), &got[0], &y, slack, largest(&y, 1.0));
            // exp(y) of a rounded y, times a sum of up to len terms.
            close(&format!("{level} dx"), &got[1], &dx, slack, if log { 8.0 + (len as f64).sqrt() } else { 2.0 });
        }
    }

    #[test]
    fn any_cross_entropy(e in extents(), soft: bool, weighted: bool, smooth: bool, seed in 0u64..1000) {
        let [outer, len, inner] = e;
        let (elements, positions) = (outer * len * inner, outer * inner);
        let x = logits(elements, seed);
        let weights: Vec<f32> = random(len, seed + 3).iter().map(|v| v.abs() + 0.1).collect();
        let classes: Vec<i64> =
            random(positions, seed + 4).iter().map(|r| if *r > 0.7 { -7 } else { ((r + 1.0) * 1e6) as i64 % len as i64 }).collect();
        let soft_p = naive::softmax_axis(e, &wide(&random(elements, seed + 5)));
        let soft_p: Vec<f32> = soft_p.iter().map(|&v| v as f32).collect();
        let hard_p: Vec<f64> = (0..elements)
            .map(|i| f64::from(u8::from(classes[i / (len * inner) * inner + i % inner] == (i / inner % len) as i64)))
            .collect();
        let g = random(positions, seed + 6);
        let smoothing = if smooth { 0.1 } else { 0.0 };
        let (p, targets) = if soft { (wide(&soft_p), Targets::Probabilities(&soft_p)) } else { (hard_p, Targets::Classes(&classes)) };
        let w = if weighted { wide(&weights) } else { vec![1.0; len] };
        let (losses, total) = naive::cross_entropy(e, &wide(&x), &p, &w, f64::from(smoothing), soft);
        let dx = naive::cross_entropy_gradient(e, &wide(&x), &p, &w, (f64::from(smoothing), soft), &wide(&g));
        let loss = CrossEntropy {
            axis: Axis::new(outer, len, inner).unwrap(),
            weights: weighted.then_some(&weights),
            smoothing,
            ignore: -7,
        };
        for (level, got) in at_levels(|place| {
            let (mut lp, mut losses, mut dx) = (Guarded::nan(elements), Guarded::nan(positions), Guarded::nan(elements));
            let l = loss.forward(place, &x, targets, lp.slice(), losses.slice()).unwrap();
            loss.backward(place, targets, lp.slice(), &g, dx.slice());
            lp.check();
            vec![losses.check(), dx.check(), vec![l.sum as f32, l.weight as f32]]
        }) {
            let slack = (8.0 + len as f64 / 4.0) * 1.2e-7;
            close(&format!("{level} losses"), &got[0], &losses, slack, largest(&losses, 1.0));
            close(&format!("{level} dx"), &got[1], &dx, slack, 3.0);
            let sum: f64 = losses.iter().sum();
            close(&format!("{level} sum"), &got[2], &[sum, total], slack, 100.0 + sum.abs() + total);
        }
    }
}

#[test]
fn all_ignored_is_nan_for_the_mean_and_zero_for_the_sum() {
    let loss = CrossEntropy::new(Axis::new(2, 3, 1).unwrap());
    let (mut lp, mut losses) = (vec![0.0; 6], vec![1.0; 2]);
    let place = Place::inline(Level::Scalar);
    let l = loss.forward(&place, &[1.0; 6], Targets::Classes(&[-100; 2]), &mut lp, &mut losses).unwrap();
    assert!(l.mean().is_nan() && l.sum == 0.0);
}

#[test]
fn a_target_that_is_no_class_is_refused() {
    let loss = CrossEntropy::new(Axis::new(3, 4, 1).unwrap());
    let (mut lp, mut losses) = (vec![0.0; 12], vec![0.0; 3]);
    for bad in [4, -1] {
        let targets = [0, bad, 2];
        let place = Place::inline(Level::Scalar);
        let e = loss.forward(&place, &[1.0; 12], Targets::Classes(&targets), &mut lp, &mut losses).unwrap_err();
        assert_eq!(e.to_string(), format!("target {bad} at position 1 is none of the 4 classes"));
    }
}

#[test]
fn axes_of_extents() {
    assert_eq!(Axis::of(&[2, 3, 4, 5], 1).unwrap(), Axis::new(2, 3, 20).unwrap());
    assert!(Axis::of(&[2, 0, 4], 1).is_err() && Axis::of(&[0, 3], 1).is_ok());
}
