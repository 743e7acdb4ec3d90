use core::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

use crate::epilogue::Activation;

/// The error function in f64: its power series below 2.5, all of whose terms have one sign, else by [`erfc`].
pub fn erf(x: f64) -> f64 {
    if x.is_nan() || x.abs() >= 2.5 {
        return (1.0 - erfc(x.abs())).copysign(x);
    }
    // erf(x) = 2 / sqrt(pi) exp(-x^2) sum of 2^n x^(2n+1) / (1 * 3 * ... * (2n+1))
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > sum.abs() * 1e-17 {
        n += 2.0;
        term *= 2.0 * x * x / n;
        sum += term;
    }
    FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// The complementary error function in f64, to a relative 1e-13 as far as it is a normal f64.
pub fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < 2.5 {
        return 1.0 - erf(x);
    }
    if x > 30.0 {
        return 0.0;
    }
    // The continued fraction of erfc, from its far end: exp(-x^2) / sqrt(pi) / (x + (1/2) / (x + 1 / (x + (3/2) / ...
    let fraction = (1..200).rev().fold(x, |f, k| x + f64::from(k) * 0.5 / f);
    (-x * x).exp() / PI.sqrt() / fraction
}

fn sigmoid(x: f64) -> f64 {
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

/// `x * f(x)` for an `f` that vanishes at minus infinity faster than `1 / x`: its limit there is 0, not NaN.
fn gated(x: f64, gate: f64) -> f64 {
    if x == f64::NEG_INFINITY { 0.0 } else { x * gate }
}

/// Any activation, in f64 from its definition; limits at the infinities, NaN for NaN.
pub fn activation(act: Activation, x: f64) -> f64 {
    let f = f64::from;
    if x.is_nan() {
        return x;
    }
    match act {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Clip { lo, hi } => x.max(f(lo)).min(f(hi)),
        Activation::LeakyRelu { slope } => {
            if x > 0.0 {
                x
            } else {
                x * f(slope)
            }
        }
        Activation::Elu { alpha } => {
            if x > 0.0 {
                x
            } else {
                f(alpha) * x.exp_m1()
            }
        }
        Activation::Selu => 1.050_700_987_355_480_5 * if x > 0.0 { x } else { 1.673_263_242_354_377_2 * x.exp_m1() },
        Activation::Celu { alpha } => {
            if x > 0.0 {
                x
            } else {
                f(alpha) * (x / f(alpha)).exp_m1()
            }
        }
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Gelu => gated(x, 0.5 * erfc(-x * FRAC_1_SQRT_2)),
        Activation::GeluTanh => gated(x, sigmoid(2.0 * (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x))),
        Activation::Silu => gated(x, sigmoid(x)),
        // tanh(ln(1 + n)) = (n^2 + 2n) / (n^2 + 2n + 2)
        Activation::Mish if x > 40.0 => x,
        Activation::Mish => {
            let w = x.exp() * (x.exp() + 2.0);
            gated(x, w / (w + 2.0))
        }
        Activation::Softplus { beta, threshold } => {
            let z = f(beta) * x;
            if z > f(threshold) { x } else { (z.max(0.0) + (-z.abs()).exp().ln_1p()) / f(beta) }
        }
        Activation::HardSigmoid => (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::HardSwish => gated(x, (x + 3.0).clamp(0.0, 6.0) / 6.0),
    }
}

/// `exp(x_i) / sum exp(x_j)` of each row of `cols` elements.
pub fn softmax(cols: usize, x: &[f32]) -> Vec<f64> {
    log_softmax(cols, x).into_iter().map(f64::exp).collect()
}

/// `x_i - ln sum exp(x_j)` of each row of `cols` elements.
pub fn log_softmax(cols: usize, x: &[f32]) -> Vec<f64> {
    x.chunks(cols.max(1))
        .flat_map(|row| {
            let max = row.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(f64::from(v)));
            let sum: f64 = row.iter().map(|&v| (f64::from(v) - max).exp()).sum();
            row.iter().map(move |&v| f64::from(v) - max - sum.ln())
        })
        .collect()
}
