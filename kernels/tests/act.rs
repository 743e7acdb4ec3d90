//! Every activation and softmax row against the oracle, at every level.

use proptest::prelude::*;
use swath_kernels::act::{self, ActArgs, SoftmaxArgs};
use swath_kernels::epilogue::Activation;
use swath_kernels::isa::Level;
use swath_kernels::reference;
use tries::tries;

#[path = "pages/mod.rs"]
mod pages;
#[path = "tries/mod.rs"]
mod tries;

use pages::{Pages, Side};

fn activations() -> Vec<Activation> {
    use Activation::*;
    vec![
        Identity,
        Relu,
        Clip { lo: 0.0, hi: 6.0 },
        Clip { lo: -1.0, hi: 1.0 },
        LeakyRelu { slope: 0.1 },
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
        HardSwishAffine { scale: 0.7, shift: 0.0 },
    ]
}

#[test]
fn a_shift_is_exact_to_the_larger_of_two_terms() {
    let x: Vec<f32> = (-4000..4000).map(|i| i as f32 * 1e-3).collect();
    for (scale, shift) in [(1.3f32, 0.7f32), (-2.1, 1e-3), (0.0, -3.5)] {
        for &level in Level::available() {
            let mut y = vec![f32::NAN; x.len()];
            act::apply(level, Activation::HardSwishAffine { scale, shift }, &x, &mut y);
            for (&x, &y) in x.iter().zip(&y) {
                let product = f64::from(scale) * reference::activation(Activation::HardSwish, f64::from(x));
                let off = (f64::from(y) - product - f64::from(shift)).abs();
                let most = 4.5 * ulp(product.abs().max(f64::from(shift.abs())));
                assert!(off <= most, "{level}: {scale} * hardswish({x}) + {shift} is {y}");
            }
        }
    }
}

/// Distance between the two f32 around `v`.
fn ulp(v: f64) -> f64 {
    let v = v.abs().clamp(f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX));
    2f64.powi(((v.to_bits() >> 52) as i32) - 1023 - 23)
}

/// Error beyond the absolute part of the bound, in ULP.
fn error(y: f32, want: f64, abs: f32) -> f64 {
    if y.is_nan() || want.is_nan() {
        return if y.is_nan() == want.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if y.is_infinite() || want.is_infinite() {
        return if want as f32 == y { 0.0 } else { f64::INFINITY };
    }
    ((f64::from(y) - want).abs() - f64::from(abs)).max(0.0) / ulp(want)
}

/// Every activation over every `stride`th bit pattern of f32: the worst error of each row.
fn over_all_floats(stride: u32, report: bool) {
    let specials =
        [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, f32::MAX, f32::MIN, 1e-45, -1e-45];
    for act in activations() {
        let count = (u64::from(u32::MAX) + 1) / u64::from(stride);
        let mut x = specials.to_vec();
        let mut worst = vec![(0.0, 0.0); Level::available().len()];
        for i in 0..count {
            x.push(f32::from_bits(i as u32 * stride));
            if x.len() < 4096 && i + 1 < count {
                continue;
            }
            let want: Vec<f64> = x.iter().map(|&v| reference::activation(act, f64::from(v))).collect();
            for (&level, worst) in Level::available().iter().zip(&mut worst) {
                let row = act::row(level, act).unwrap();
                let mut y = vec![f32::NAN; x.len()];
                act::apply(level, act, &x, &mut y);
                for ((&x, &y), &want) in x.iter().zip(&y).zip(&want) {
                    let e = error(y, want, row.bound.abs);
                    if e > worst.0 {
                        *worst = (e, x);
                    }
                }
            }
            x.clear();
        }
        for (&level, (most, at)) in Level::available().iter().zip(worst) {
            let row = act::row(level, act).unwrap();
            if report {
                println!("{} {act:?}: {most:.4} ULP at {at:e}", row.name);
                continue;
            }
            assert!(most <= f64::from(row.bound.ulp), "{} {act:?}: {most} ULP at {at:e}", row.name);
        }
    }
}

#[test]
fn bounds_hold_over_all_floats() {
    // A thirtieth of the patterns where the tests run in an emulator.
    over_all_floats(if cfg!(target_arch = "x86_64") { 10_007 } else { 300_007 }, false);
}

#[test]
#[ignore = "minutes: prints the worst errors over 60 million patterns"]
fn measure() {
    over_all_floats(71, true);
}

#[test]
fn rows_are_in_order() {
    for &level in Level::available() {
        assert_eq!(act::table(level).len(), 17);
        for act in activations() {
            let name = act::row(level, act).unwrap().name.replace('_', "");
            let variant = format!("{act:?}").split([' ', '{']).next().unwrap().to_lowercase();
            assert_eq!(name, format!("{variant}f32{level}"));
            assert_eq!(act::row(level, act).unwrap().level, level);
        }
    }
}

#[test]
fn relu_and_clip_keep_nan() {
    for &level in Level::available() {
        for act in activations() {
            let mut x = [f32::NAN; 19];
            act::apply_inplace(level, act, &mut x);
            assert!(x.iter().all(|v| v.is_nan()), "{level} {act:?}");
        }
    }
}

/// Values as layers see them, and now and then an extreme.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![8 => -10.0f32..10.0, 1 => -120.0f32..120.0, 1 => prop_oneof![Just(0.0), Just(-0.0), Just(f32::MAX), Just(f32::MIN)]]
}

/// The same, and values that are not finite.
fn any_value() -> impl Strategy<Value = f32> {
    prop_oneof![12 => value(), 1 => prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)]]
}

/// Runs `f` from a slice to another one or to itself, before and behind protected pages; all results are the same bits.
fn at_pages(x: &[f32], f: impl Fn(*const f32, *mut f32)) -> Vec<f32> {
    let mut results = Vec::new();
    for side in Side::BOTH {
        let mut in_place = Pages::copy(x, side);
        let p = in_place.as_mut_ptr();
        f(p, p);
        let (x, mut y) = (Pages::copy(x, side), Pages::nan(x.len(), side));
        f(x.as_ptr(), y.as_mut_ptr());
        results.extend([in_place.to_vec(), y.to_vec()]);
    }
    assert!(results.iter().all(|r| bits(r) == bits(&results[0])), "results depend on where slices lie");
    results.swap_remove(0)
}

fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|v| if v.is_nan() { f32::NAN } else { *v }.to_bits()).collect()
}

proptest! {
    #![proptest_config(tries(64))]

    /// Any length and place: what is computed does not depend on where in a vector it is, in place is the same as out
    /// of place, and nothing else is read or written.
    #[test]
    fn tails_are_exact(x in prop::collection::vec(any_value(), 0..70)) {
        for &level in Level::available() {
            for act in activations() {
                let row = act::row(level, act).unwrap();
                let mut one_by_one = vec![0.0; x.len()];
                for (x, y) in x.iter().zip(&mut one_by_one) {
                    act::apply(level, act, &[*x], std::slice::from_mut(y));
                }
                let y = at_pages(&x, |src, dst| {
                    let args = ActArgs { src, dst, len: x.len(), p: act::parameters(act) };
                    // SAFETY: the level is available; both pointers have x.len() floats, and are of one or two buffers.
                    unsafe { (row.run)(&args) };
                });
                prop_assert!(bits(&y) == bits(&one_by_one), "{}: {y:?}, alone {one_by_one:?}", row.name);
            }
        }
    }

    #[test]
    fn softmax_rows(cols in 1usize..70, rows in 0usize..4, seed in prop::collection::vec(value(), 210), scale in 0.1f32..4.0) {
        let x: Vec<f32> = seed[..rows * cols].iter().map(|v| v.clamp(-1e3, 1e3) * scale).collect();
        for &level in Level::available() {
            for row in act::softmax_table(level) {
                let want = if row.log { reference::log_softmax(cols, &x) } else { reference::softmax(cols, &x) };
                let y = at_pages(&x, |src, dst| {
                    // SAFETY: the level is available; both pointers have rows * cols floats, and are of one or two buffers.
                    unsafe { (row.run)(&SoftmaxArgs { src, dst, rows, cols }) };
                });
                for (i, (&y, &want)) in y.iter().zip(&want).enumerate() {
                    let row_max = x[i / cols * cols..][..cols].iter().fold(f32::MIN, |m, &v| m.max(v));
                    let eps = f64::from(f32::EPSILON);
                    let bound = if row.log {
                        (4.0 + cols as f64 / 8.0) * eps * (1.0 + want.abs())
                    } else {
                        (6.0 + f64::from(row_max - x[i]) / 2.0 + cols as f64 / 8.0) * eps * want + 2f64.powi(-140)
                    };
                    prop_assert!((f64::from(y) - want).abs() <= bound, "{} [{i}]: {y} for {want}", row.name);
                }
            }
        }
    }
}

#[test]
fn softmax_of_extremes() {
    for &level in Level::available() {
        let run = |x: &[f32]| {
            let (mut y, mut l) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            act::softmax(level, 1, x.len(), x, &mut y);
            act::log_softmax(level, 1, x.len(), x, &mut l);
            (y, l)
        };
        let (y, l) = run(&[f32::MAX, 0.0, f32::MIN, f32::NEG_INFINITY]);
        assert_eq!(y, [1.0, 0.0, 0.0, 0.0]);
        assert_eq!((l[0], l[3]), (0.0, f32::NEG_INFINITY));
        for bad in [f32::NAN, f32::INFINITY] {
            for at in [0, 3, 18] {
                let mut x = [0.5; 19];
                x[at] = bad;
                let (y, _) = run(&x);
                assert!(
                    y.iter().all(|v| v.is_nan() || (bad == f32::INFINITY && *v == 0.0)),
                    "{level} {bad} {at} {y:?}"
                );
                assert!(y[at].is_nan());
            }
        }
        assert!(run(&[f32::NEG_INFINITY; 5]).0.iter().all(|v| v.is_nan()));
    }
}

/// What is not finite in one row does not reach another one.
#[test]
fn softmax_rows_are_their_own() {
    for &level in Level::available() {
        for row in act::softmax_table(level) {
            for cols in [1, 3, 16, 37] {
                let clean: Vec<f32> = (0..3 * cols).map(|i| (i as f32 * 0.7).sin()).collect();
                let run = |x: &[f32]| {
                    at_pages(x, |src, dst| {
                        // SAFETY: the level is available; both pointers have 3 * cols floats, and are of one or two buffers.
                        unsafe { (row.run)(&SoftmaxArgs { src, dst, rows: 3, cols }) };
                    })
                };
                let want = run(&clean);
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut x = clean.clone();
                    x[cols..2 * cols].fill(bad);
                    let y = run(&x);
                    assert!(y[cols..2 * cols].iter().all(|v| v.is_nan()), "{} {bad}", row.name);
                    for others in [0..cols, 2 * cols..3 * cols] {
                        assert!(bits(&y[others.clone()]) == bits(&want[others]), "{} {bad}", row.name);
                    }
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "input and output lengths")]
fn lengths_must_agree() {
    act::apply(Level::Scalar, Activation::Relu, &[1.0; 4], &mut [0.0; 3]);
}

#[test]
#[should_panic(expected = "output length for 2 rows of 3")]
fn softmax_lengths_must_agree() {
    act::softmax(Level::Scalar, 2, 3, &[1.0; 6], &mut [0.0; 5]);
}

#[test]
fn a_missing_level_is_refused() {
    for level in Level::ALL.into_iter().filter(|l| !l.is_available()) {
        let refused = std::panic::catch_unwind(|| act::apply(level, Activation::Relu, &[1.0], &mut [0.0]));
        assert!(refused.is_err(), "{level}");
    }
}
