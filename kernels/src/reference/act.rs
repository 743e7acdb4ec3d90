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
        Activation::HardSwishAffine { scale, shift } => f(scale) * activation(Activation::HardSwish, x) + f(shift),
    }
}

/// `x * f(x)` for an `f` that vanishes at both infinities faster than `1 / x`.
fn bump(x: f64, f: f64) -> f64 {
    if x.is_infinite() { 0.0 } else { x * f }
}

/// The derivative of any activation, in f64 from its definition, with PyTorch's values at kinks; limits at the infinities. NaN
/// gives NaN, but for ReLU and clip 1, leaky ReLU its slope, hard-sigmoid 0.
pub fn activation_gradient(act: Activation, x: f64) -> f64 {
    let f = f64::from;
    let inside = |lo: f64, hi: f64| !(x <= lo || x >= hi);
    match act {
        Activation::Identity => 1.0,
        Activation::Relu => f64::from(u8::from(inside(0.0, f64::INFINITY) || x == f64::INFINITY)),
        Activation::Clip { lo, hi } => f64::from(u8::from(inside(f(lo), f(hi)))),
        Activation::LeakyRelu { slope } => {
            if x > 0.0 {
                1.0
            } else {
                f(slope)
            }
        }
        Activation::HardSigmoid => {
            if x > -3.0 && x < 3.0 {
                1.0 / 6.0
            } else {
                0.0
            }
        }
        _ if x.is_nan() => x,
        Activation::Elu { alpha } => {
            if x > 0.0 {
                1.0
            } else {
                f(alpha) * x.exp()
            }
        }
        Activation::Selu => 1.050_700_987_355_480_5 * if x > 0.0 { 1.0 } else { 1.673_263_242_354_377_2 * x.exp() },
        Activation::Celu { alpha } => {
            if x > 0.0 {
                1.0
            } else {
                (x / f(alpha)).exp()
            }
        }
        Activation::Sigmoid => bell(x),
        Activation::Tanh => 4.0 * bell(2.0 * x),
        Activation::Gelu => 0.5 * erfc(-x * FRAC_1_SQRT_2) + bump(x, (-0.5 * x * x).exp() / (2.0 * PI).sqrt()),
        Activation::GeluTanh => {
            let c = 2.0 * (2.0 / PI).sqrt();
            let u = c * (x + 0.044715 * x * x * x);
            let slope = if x.is_infinite() { 0.0 } else { bell(u) * c * (1.0 + 3.0 * 0.044715 * x * x) };
            sigmoid(u) + bump(x, slope)
        }
        Activation::Silu => sigmoid(x) + bump(x, bell(x)),
        Activation::Mish if x > 40.0 => 1.0,
        // tanh(u) + x sech(u)^2 sigmoid(x), u = softplus(x), with n = exp(x)
        Activation::Mish => {
            let n = x.exp();
            let w = n * (n + 2.0);
            w / (w + 2.0) + bump(x, 4.0 * (n + 1.0).powi(2) / (w + 2.0).powi(2) * sigmoid(x))
        }
        Activation::Softplus { beta, threshold } => {
            let z = f(beta) * x;
            if z > f(threshold) { 1.0 } else { sigmoid(z) }
        }
        Activation::HardSwishAffine { scale, .. } => f(scale) * activation_gradient(Activation::HardSwish, x),
        Activation::HardSwish => {
            if x <= -3.0 {
                0.0
            } else if x < 3.0 {
                x / 3.0 + 0.5
            } else {
                1.0
            }
        }
    }
}

/// The logistic function's derivative, `e / (1 + e)^2` with `e = exp(-abs(x))`.
fn bell(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    e / (1.0 + e).powi(2)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_gradient, values};

    #[test]
    fn gradients_are_those_of_central_differences() {
        use Activation::*;
        let acts = [
            Identity,
            Relu,
            Clip { lo: -1.0, hi: 2.0 },
            LeakyRelu { slope: 0.1 },
            Elu { alpha: 0.7 },
            Selu,
            Celu { alpha: 2.5 },
            Sigmoid,
            Tanh,
            Gelu,
            GeluTanh,
            Silu,
            Mish,
            Softplus { beta: 0.5, threshold: 3.0 },
            HardSigmoid,
            HardSwish,
            HardSwishAffine { scale: -1.7, shift: 0.3 },
        ];
        let x: Vec<f64> = values(200, 5).into_iter().map(|v| 6.5 * v).collect();
        for act in acts {
            let dx: Vec<f64> = x.iter().map(|&x| activation_gradient(act, x)).collect();
            // Each output depends on its own input alone, so gradients of ones will do.
            for (x, dx) in x.iter().zip(dx) {
                assert_gradient(&[*x], &[1.0], &[dx], |x| vec![activation(act, x[0])]);
            }
        }
    }
}
