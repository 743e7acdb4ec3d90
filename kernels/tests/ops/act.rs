//! Gradients of activations.

use crate::tries::tries;
use proptest::prelude::*;
use swath_kernels::act::{self, Kept};
use swath_kernels::epilogue::Activation;
use swath_kernels::isa::Level;
use swath_kernels::pass::Place;
use swath_kernels::reference;

use crate::support::at_levels;
use crate::threads::{Guarded, bits, random};

pub fn activations() -> Vec<Activation> {
    use Activation::*;
    vec![
        Identity,
        Relu,
        Clip { lo: 0.0, hi: 6.0 },
        Clip { lo: -1.0, hi: 1.0 },
        LeakyRelu { slope: 0.1 },
        LeakyRelu { slope: -0.5 },
        Elu { alpha: 1.0 },
        Elu { alpha: 0.3 },
        Selu,
        Celu { alpha: 1.0 },
        Celu { alpha: 2.5 },
        Sigmoid,
        Tanh,
        Gelu,
        GeluTanh,
        Silu,
        Mish,
        Softplus { beta: 1.0, threshold: 20.0 },
        Softplus { beta: 0.5, threshold: 20.0 },
        Softplus { beta: 2.0, threshold: 5.0 },
        HardSigmoid,
        HardSwish,
        HardSwishAffine { scale: -0.7, shift: 0.4 },
    ]
}

/// Distance between the two f32 around `v`.
fn ulp(v: f64) -> f64 {
    let v = v.abs().clamp(f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX));
    2f64.powi(((v.to_bits() >> 52) as i32) - 1023 - 23)
}

/// Error of a derivative beyond the absolute part of its bound, in ULP.
fn error(got: f32, want: f64, abs: f32) -> f64 {
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() == want.is_nan() { 0.0 } else { f64::INFINITY };
    }
    ((f64::from(got) - want).abs() - f64::from(abs)).max(0.0) / ulp(want)
}

fn derivatives(level: Level, act: Activation, x: &[f32]) -> Vec<f32> {
    let (ones, mut dx) = (vec![1.0; x.len()], vec![f32::NAN; x.len()]);
    act::backward(&Place::inline(level), act, Kept::Input(x), &ones, &mut dx);
    dx
}

/// Every derivative over every `stride`th bit pattern of f32: the worst error of each.
fn over_all_floats(stride: u32, report: bool) {
    let mut x = vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN, 1e-45, 3.0, -3.0];
    x.extend((0..=u32::MAX / stride).map(|i| f32::from_bits(i * stride)));
    // Most patterns are tiny or huge; what happens near 1 counts most.
    x.extend((0..=u32::MAX / stride / 4).map(|i| (i as f32 / (u32::MAX / stride / 4) as f32 - 0.5) * 40.0));
    for act in activations() {
        let want: Vec<f64> = x.iter().map(|&v| reference::activation_gradient(act, f64::from(v))).collect();
        let bound = act::gradient_bound(act);
        for &level in Level::available() {
            let (mut most, mut at) = (0.0, 0.0);
            for ((&x, got), &want) in x.iter().zip(derivatives(level, act, &x)).zip(&want) {
                let e = error(got, want, bound.abs);
                if e > most {
                    (most, at) = (e, x);
                }
            }
            if report {
                println!("{level} {act:?}: {most:.3} ULP beyond {:e} at {at:e}", bound.abs);
            } else {
                assert!(most <= f64::from(bound.ulp), "{level} {act:?}: {most} ULP at {at:e}");
            }
        }
    }
}

#[test]
fn bounds_hold_over_all_floats() {
    over_all_floats(if cfg!(target_arch = "x86_64") { 40_009 } else { 400_009 }, false);
}

#[test]
#[ignore = "minutes: prints the worst errors"]
fn measure() {
    over_all_floats(1009, true);
}

#[test]
fn a_gradient_that_is_cut_off_is_zero_even_of_nan() {
    for &level in Level::available() {
        for (act, x) in
            [(Activation::Relu, -1.0), (Activation::Clip { lo: 0.0, hi: 6.0 }, 6.0), (Activation::HardSigmoid, 3.0)]
        {
            let mut dx = [1.0; 5];
            act::backward(&Place::inline(level), act, Kept::Input(&[x; 5]), &[f32::NAN; 5], &mut dx);
            assert_eq!(dx, [0.0; 5], "{level} {act:?}");
        }
    }
}

#[test]
#[should_panic(expected = "needs the input")]
fn outputs_do_not_serve_all() {
    let place = Place::inline(Level::Scalar);
    act::backward(&place, Activation::Gelu, Kept::Output(&[1.0]), &[1.0], &mut [0.0]);
}

#[test]
#[should_panic(expected = "lengths of both gradients")]
fn lengths_must_agree() {
    let place = Place::inline(Level::Scalar);
    act::backward(&place, Activation::Relu, Kept::Output(&[1.0]), &[1.0, 2.0], &mut [0.0]);
}

proptest! {
    #![proptest_config(tries(24))]

    /// Any length: in place is the same as out of place, nothing else is written, threads do not matter, and outputs give
    /// what inputs give.
    #[test]
    fn any_length(len in prop_oneof![0usize..70, 70_000usize..90_000], seed in 0u64..1000) {
        let x: Vec<f32> = random(len, seed).into_iter().map(|v| v * 8.0).collect();
        let dy = random(len, seed + 1);
        for act in activations() {
            at_levels(|place| {
                let mut dx = Guarded::nan(len);
                act::backward(place, act, Kept::Input(&x), &dy, dx.slice());
                let dx = dx.check();
                let mut inplace = Guarded::new(&dy);
                act::backward_inplace(place, act, Kept::Input(&x), inplace.slice());
                assert_eq!(bits(&dx), bits(&inplace.check()), "{act:?} in place");
                if act::output_suffices(act) {
                    let (mut y, mut from_y) = (vec![0.0; len], vec![f32::NAN; len]);
                    act::apply(place.level(), act, &x, &mut y);
                    act::backward(place, act, Kept::Output(&y), &dy, &mut from_y);
                    for ((a, b), dy) in from_y.iter().zip(&dx).zip(&dy) {
                        assert!((a - b).abs() <= 1e-6 * dy.abs(), "{act:?} from the output: {a} for {b}");
                    }
                }
                vec![dx]
            });
        }
    }
}
