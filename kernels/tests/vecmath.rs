//! Elementary functions against f64 over the whole range of f32, at every level.

use std::marker::PhantomData;

use swath_kernels::isa::{Isa, Kernel, Level, entry};
use swath_kernels::{reference, vecmath};

/// A function of one vector, for [`Map`].
trait Function {
    fn eval<I: Isa>(s: I, x: I::V) -> I::V;
}

/// Applies a function to 16 floats.
struct Map<F>(PhantomData<F>);

impl<I: Isa, F: Function> Kernel<I> for Map<F> {
    type Args = ([f32; 16], std::cell::Cell<[f32; 16]>);

    #[inline(always)]
    unsafe fn run(s: I, (x, out): &Self::Args) {
        let mut y = [f32::NAN; 16];
        for i in (0..16).step_by(I::LANES) {
            // SAFETY: LANES divides 16, so i + LANES is inside both arrays.
            unsafe { s.store(y.as_mut_ptr().add(i), F::eval(s, s.load(x.as_ptr().add(i)))) };
        }
        out.set(y);
    }
}

fn run<F: Function>(level: Level, x: [f32; 16]) -> [f32; 16] {
    assert!(level.is_available());
    let args = (x, std::cell::Cell::new([0.0; 16]));
    // SAFETY: the level is available, and the kernel asks for nothing else.
    unsafe {
        match level {
            Level::Scalar => entry::scalar::<Map<F>>(&args),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => entry::avx2::<Map<F>>(&args),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => entry::avx512::<Map<F>>(&args),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => entry::neon::<Map<F>>(&args),
            #[allow(unreachable_patterns)]
            other => unreachable!("{other} is not of this architecture"),
        }
    }
    args.1.get()
}

/// Distance between the two f32 around `v`.
fn ulp(v: f64) -> f64 {
    let v = v.abs().clamp(f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX));
    2f64.powi(((v.to_bits() >> 52) as i32) - 1023 - 23)
}

/// Error of `y` in ULP; 0 where both are NaN, and where `want` rounds to an infinity that `y` is.
fn error(y: f32, want: f64) -> f64 {
    if y.is_nan() || want.is_nan() {
        return if y.is_nan() == want.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if y.is_infinite() {
        return if want as f32 == y { 0.0 } else { f64::INFINITY };
    }
    if want.is_infinite() { f64::INFINITY } else { (f64::from(y) - want).abs() / ulp(want) }
}

/// Every `stride`th bit pattern, and what is special in f32.
fn patterns(stride: u32) -> impl Iterator<Item = [f32; 16]> {
    let specials = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        -f32::NAN,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        -f32::MIN_POSITIVE,
        f32::from_bits(1),
        f32::from_bits(0x8000_0001),
        1.0,
        -1.0,
        88.722_84,
        -103.972_08,
    ];
    let blocks = (u64::from(u32::MAX) + 1) / (16 * u64::from(stride));
    std::iter::once(specials)
        .chain((0..blocks).map(move |b| std::array::from_fn(|i| f32::from_bits((b * 16 + i as u64) as u32 * stride))))
}

fn worst<F: Function>(stride: u32, oracle: fn(f64) -> f64, domain: fn(f32) -> bool) -> Vec<(Level, f64, f32)> {
    let mut worst: Vec<_> = Level::available().iter().map(|&l| (l, 0.0, 0.0)).collect();
    for x in patterns(stride) {
        let want = x.map(|v| oracle(f64::from(v)));
        for (level, most, at) in &mut worst {
            let y = run::<F>(*level, x);
            for i in (0..16).filter(|&i| domain(x[i])) {
                let e = error(y[i], want[i]);
                if e > *most {
                    (*most, *at) = (e, x[i]);
                }
                // Zero results of functions that keep signs.
                if x[i] == 0.0 && want[i] == 0.0 {
                    assert_eq!(y[i].to_bits(), x[i].to_bits(), "sign of zero at {level}");
                }
            }
        }
    }
    worst
}

/// A prime: about 2.1 million patterns, all exponents and all low bits. A thirtieth of that where the tests run in an
/// emulator.
const STRIDE: u32 = if cfg!(target_arch = "x86_64") { 2039 } else { 61_001 };

macro_rules! functions {
    ($($name:ident $ty:ident($s:ident, $x:ident) $bound:literal: $eval:expr; $oracle:expr; $domain:expr;)*) => {
        $(
            struct $ty;
            impl Function for $ty {
                #[inline(always)]
                fn eval<I: Isa>($s: I, $x: I::V) -> I::V {
                    $eval
                }
            }

            #[test]
            fn $name() {
                for (level, most, at) in worst::<$ty>(STRIDE, $oracle, $domain) {
                    assert!(most <= $bound, "{level}: {most} ULP at {at:e}, stated {}", $bound);
                }
            }
        )*

        /// The bounds that the documentation states come from here: `cargo test --release -p swath-kernels --test
        /// vecmath -- --ignored --nocapture`. Minutes.
        #[test]
        #[ignore = "minutes: prints the worst errors over 330 million patterns"]
        fn measure() {
            $(for (level, most, at) in worst::<$ty>(13, $oracle, $domain) {
                println!("{:8} {level:8} {most:.4} ULP at {at:e}", stringify!($name));
            })*
        }
    };
}

fn all(_: f32) -> bool {
    true
}

functions! {
    exp Exp(s, x) 1.02: vecmath::exp(s, x); f64::exp; all;
    exp_sum ExpSum(s, x) 1.1: vecmath::exp_sum(s, x, s.mul(x, s.splat(0.0009765625))); |x| (x * 1.0009765625).exp(); |x| x < 88.0;
    expm1 Expm1(s, x) 1.6: vecmath::expm1(s, x); f64::exp_m1; all;
    tanh Tanh(s, x) 2.5: vecmath::tanh(s, x); f64::tanh; all;
    sigmoid Sigmoid(s, x) 2.4: vecmath::sigmoid(s, x); |x| reference::activation(swath_kernels::epilogue::Activation::Sigmoid, x); all;
    log Log(s, x) 0.9: vecmath::log(s, x); f64::ln; all;
    log1p Log1p(s, x) 0.9: vecmath::log1p(s, x); f64::ln_1p; all;
    erf Erf(s, x) 1.4: vecmath::erf(s, x); reference::erf; all;
    erfcx Erfcx(s, x) 6.0: vecmath::erfcx(s, x); |x| (x * x).exp() * reference::erfc(x); |x| x.is_nan() || (0.0..=10.5).contains(&x);
}

#[test]
fn the_oracle_knows_the_error_function() {
    // Digits from Abramowitz and Stegun, table 7.1, and DLMF 7.
    for (x, want) in [(0.5, 0.520_499_877_813_046_5), (1.0, 0.842_700_792_949_714_9), (2.0, 0.995_322_265_018_952_7)] {
        assert!((reference::erf(x) - want).abs() < 1e-15 && (reference::erf(-x) + want).abs() < 1e-15);
    }
    for (x, want) in
        [(3.0, 2.209_049_699_858_544e-5), (5.0, 1.537_459_794_428_035e-12), (10.0, 2.088_487_583_762_545e-45)]
    {
        assert!((reference::erfc(x) / want - 1.0).abs() < 1e-12, "erfc({x})");
    }
    let (below, above) = (reference::erfc(2.5 - 1e-12), reference::erfc(2.5 + 1e-12));
    assert!((below / above - 1.0).abs() < 1e-10, "the two branches meet");
}
