//! The error function.
//!
//! `erf(x) = x + x P(x^2)` up to 1, and `1 - exp(-x^2) erfcx(x)` beyond, where
//! `erfcx(t) = exp(t^2) erfc(t) = W(w) / (t + 3)`, `w = (t - 3) / (t + 3)`: the factor `t + 3` leaves a function that is
//! smooth and almost constant over the whole half line.
//!
//! Reference: M. M. Shepherd and J. G. Laframboise, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc(x)", Math. Comp.
//! 36 (1981). The coefficients are from `kernels/fit/erf.py`: P's relative error is 1.5e-9, W's 7.7e-9.

use super::{abs, exp, horner, neg, with_sign_of};
use crate::isa::Isa;

/// The error function, within 1.4 ULP. Keeps the sign of zero.
#[inline(always)]
pub fn erf<I: Isa>(s: I, x: I::V) -> I::V {
    let p = horner(
        s,
        s.mul(x, x),
        [1.283_791_7e-1, -3.761_262_6e-1, 1.128_357_9e-1, -2.685_334_7e-2, 5.187_162e-3, -7.997_853e-4, 7.806_903e-5],
    );
    let near = s.fma(x, p, x);
    // erf(3.92) rounds to 1.
    let a = s.min(s.splat(4.0), abs(s, x));
    let far = s.sub(s.splat(1.0), s.mul(exp(s, neg(s, s.mul(a, a))), erfcx(s, a)));
    s.select_lt(a, s.splat(1.0), near, with_sign_of(s, far, x))
}

/// The scaled complementary error function `exp(t^2) erfc(t)` for `0 <= t <= 10.5`, within 6 ULP. Beyond 10.5,
/// where `erfc` is no longer an f32, and below 0 the value is unspecified; NaN gives NaN.
#[inline(always)]
pub fn erfcx<I: Isa>(s: I, t: I::V) -> I::V {
    let r = s.div(s.splat(1.0), s.add(t, s.splat(3.0)));
    let w = s.mul(s.sub(t, s.splat(3.0)), r);
    let p = horner(
        s,
        w,
        [
            1.074_006_9,
            -8.833_945e-1,
            5.902_278_4e-1,
            -3.104_662_3e-1,
            1.195_335_2e-1,
            -2.683_756_3e-2,
            -1.240_684_7e-3,
            3.071_318_1e-3,
            -4.685_829_3e-4,
            -3.140_101_3e-4,
        ],
    );
    s.mul(r, p)
}
