//! The activations on one vector.
//!
//! `max(lo, x)` and `min(hi, x)` with the constant first keep a NaN in `x` (see [`Isa`]). Negative tails whose exact
//! value rounds to zero are cut off before `x` multiplies a zero, so that minus infinity gives the limit.

use crate::isa::Isa;
use crate::vecmath::{abs, erfcx, exp, exp_sum, expm1, log1p, neg, sigmoid, tanh};

/// An elementwise function with up to two parameters, the same in all lanes.
pub(super) trait Function {
    fn eval<I: Isa>(s: I, x: I::V, p: [I::V; 2]) -> I::V;
}

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident($s:ident, $x:ident, $p:pat) $body:block)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl Function for $name {
            #[inline(always)]
            fn eval<I: Isa>($s: I, $x: I::V, $p: [I::V; 2]) -> I::V $body
        }
    )*};
}

/// `x` where positive, else `f`; NaN takes `f`, which must be NaN there.
#[inline(always)]
fn positive_or<I: Isa>(s: I, x: I::V, f: I::V) -> I::V {
    s.select_lt(s.zero(), x, x, f)
}

/// `min(max(x + 3, 0), 6) / 6`
#[inline(always)]
fn hard_gate<I: Isa>(s: I, x: I::V) -> I::V {
    let t = s.min(s.splat(6.0), s.max(s.zero(), s.add(x, s.splat(3.0))));
    s.mul(t, s.splat(1.0 / 6.0))
}

functions! {
    Identity(_s, x, _) { x }
    Relu(s, x, _) { s.max(s.zero(), x) }
    Clip(s, x, [lo, hi]) { s.min(hi, s.max(lo, x)) }
    LeakyRelu(s, x, [slope, _]) { positive_or(s, x, s.mul(slope, x)) }
    Elu(s, x, [alpha, _]) { positive_or(s, x, s.mul(alpha, expm1(s, x))) }
    Selu(s, x, _) {
        const SCALE: f64 = 1.050_700_987_355_480_5;
        const ALPHA: f64 = 1.673_263_242_354_377_2;
        let negative = s.mul(s.splat((SCALE * ALPHA) as f32), expm1(s, x));
        s.select_lt(s.zero(), x, s.mul(s.splat(SCALE as f32), x), negative)
    }
    Celu(s, x, [alpha, _]) { positive_or(s, x, s.mul(alpha, expm1(s, s.div(x, alpha)))) }
    Sigmoid(s, x, _) { sigmoid(s, x) }
    Tanh(s, x, _) { tanh(s, x) }
    /// `x Phi(x)`, where the normal tail `Phi(-t) = exp(-t^2 / 2) erfcx(t / sqrt 2) / 2` has no cancellation. The square
    /// is exact: `x = h + l` with 12 bits in `h`, and `x^2 = h^2 + (x + h) l`.
    Gelu(s, x, _) {
        let x = s.max(s.splat(-15.0), x); // Phi(-14.5) is below the smallest f32
        let t = s.min(s.splat(15.0), abs(s, x));
        let h = s.and(t, s.splat(f32::from_bits(0xffff_f000)));
        let half = s.splat(-0.5);
        let e = exp_sum(s, s.mul(half, s.mul(h, h)), s.mul(half, s.mul(s.add(t, h), s.sub(t, h))));
        let tail = s.mul(s.mul(s.splat(0.5), e), erfcx(s, s.mul(t, s.splat(core::f32::consts::FRAC_1_SQRT_2))));
        s.mul(x, s.select_lt(x, s.zero(), tail, s.sub(s.splat(1.0), tail)))
    }
    /// `(1 + tanh u) / 2 = sigmoid(2u)`, `2u = sqrt(8 / pi) (x + 0.044715 x^3)`.
    GeluTanh(s, x, _) {
        let x = s.max(s.splat(-11.0), x); // 2u is below -104 there
        let root: f64 = 2.0 * core::f64::consts::FRAC_2_SQRT_PI * core::f64::consts::FRAC_1_SQRT_2;
        let slope = s.fma(s.mul(x, x), s.splat((root * 0.044715) as f32), s.splat(root as f32));
        s.mul(x, sigmoid(s, s.mul(x, slope)))
    }
    Silu(s, x, _) {
        let x = s.max(s.splat(-110.0), x); // 110 exp(-110) rounds to zero
        s.mul(x, sigmoid(s, x))
    }
    /// With `n = exp(x)`, `tanh(ln(1 + n)) = w / (w + 2)`, `w = n (n + 2)`: no cancellation.
    Mish(s, x, _) {
        let x = s.max(s.splat(-110.0), x);
        let n = exp(s, s.min(s.splat(20.0), x)); // the quotient is 1 from 9 on
        let two = s.splat(2.0);
        let w = s.mul(n, s.add(n, two));
        s.mul(x, s.div(w, s.add(w, two)))
    }
    Softplus(s, x, [beta, threshold]) {
        let z = s.mul(beta, x);
        let y = s.add(s.max(s.zero(), z), log1p(s, exp(s, neg(s, abs(s, z)))));
        s.select_lt(threshold, z, x, s.div(y, beta))
    }
    HardSigmoid(s, x, _) { hard_gate(s, x) }
    HardSwish(s, x, _) { s.mul(s.max(s.splat(-3.0), x), hard_gate(s, x)) }
    HardSwishAffine(s, x, [scale, shift]) { s.fma(HardSwish::eval(s, x, [scale, shift]), scale, shift) }
}
