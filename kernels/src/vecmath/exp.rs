//! The exponential and what is made of it.
//!
//! `x = k ln 2 + r` with integral `k` and `abs(r) <= ln 2 / 2`, so `exp(x) = 2^k (1 + p)` with
//! `p = r + r^2 Q(r) = expm1(r)`, Q of degree 5.
//!
//! Reference: S. L. Moshier, Cephes Mathematical Library, `single/expf.c` (reduction and polynomial).

use super::{LN2_HI, LN2_LO, SIGN, abs, horner, neg, with_sign_of};
use crate::isa::Isa;

/// Below this, `exp` rounds to zero (ln 2^-150 is -103.97); keeps exponents in the reach of [`ldexp`].
const LOWEST: f32 = -104.0;
/// Above this, `exp` overflows (the largest finite result is at 88.7228).
const HIGHEST: f32 = 89.0;

/// Nearest integer of `abs(x) < 2^22`, ties to even: adding 1.5 * 2^23 leaves no bits below the point. Two additions
/// on every level, where `Isa::round` is a libm call per lane on baseline x86-64.
#[inline(always)]
fn nearest<I: Isa>(s: I, x: I::V) -> I::V {
    let magic = s.splat(12_582_912.0);
    s.sub(s.add(x, magic), magic)
}

/// `(k, p)` with `exp(hi + lo) = 2^k (1 + p)`, for `hi + lo` in -104..=89 and `lo` of the size of a rounding error.
#[inline(always)]
fn reduce<I: Isa>(s: I, hi: I::V, lo: Option<I::V>) -> (I::V, I::V) {
    let sum = lo.map_or(hi, |lo| s.add(hi, lo));
    let k = nearest(s, s.mul(sum, s.splat(core::f32::consts::LOG2_E)));
    let mut r = s.fma(k, s.splat(-LN2_HI), hi); // exact
    if let Some(lo) = lo {
        r = s.add(r, s.fma(k, s.splat(-LN2_LO), lo));
    } else {
        r = s.fma(k, s.splat(-LN2_LO), r);
    }
    let q = horner(s, r, [0.5, 1.666_666_5e-1, 4.166_579_6e-2, 8.333_452e-3, 1.398_199_9e-3, 1.987_569_1e-4]);
    (k, s.fma(s.mul(r, r), q, r))
}

/// `x * 2^k` for integral `k` in -252..=254, rounded once: two factors, since `2^k` alone need not be a normal number.
#[inline(always)]
fn ldexp<I: Isa>(s: I, x: I::V, k: I::V) -> I::V {
    let half = nearest(s, s.mul(k, s.splat(0.5)));
    s.mul(s.mul(x, s.exp2i(half)), s.exp2i(s.sub(k, half)))
}

/// `e^x`, within 1.02 ULP, subnormal results included.
#[inline(always)]
pub fn exp<I: Isa>(s: I, x: I::V) -> I::V {
    let x = s.min(s.splat(HIGHEST), s.max(s.splat(LOWEST), x));
    let (k, p) = reduce(s, x, None);
    ldexp(s, s.add(p, s.splat(1.0)), k)
}

/// `e^(hi + lo)` for a sum that one float cannot hold, within 1.1 ULP of the exact sum's exponential. `lo` may be up to
/// a thousandth of `hi`, `hi + lo` up to 88; sums below -104 give zero.
#[inline(always)]
pub fn exp_sum<I: Isa>(s: I, hi: I::V, lo: I::V) -> I::V {
    let inside = s.add(hi, lo);
    let hi = s.select_lt(inside, s.splat(LOWEST), s.splat(LOWEST), hi);
    let lo = s.select_lt(inside, s.splat(LOWEST), s.zero(), lo);
    let (k, p) = reduce(s, hi, Some(lo));
    ldexp(s, s.add(p, s.splat(1.0)), k)
}

/// `e^x - 1`, within 1.6 ULP also where `e^x` is close to 1. Keeps the sign of zero.
#[inline(always)]
pub fn expm1<I: Isa>(s: I, x: I::V) -> I::V {
    // From -18 down the result is -1. 2^-k is at least 2^-126 for exp2i; below 2^-25 it is lost in 1 - 2^-k anyway.
    let (k, p) = reduce(s, s.min(s.splat(HIGHEST), s.max(s.splat(-18.0), x)), None);
    let inverse = s.exp2i(s.max(s.splat(-126.0), neg(s, k)));
    let y = ldexp(s, s.add(p, s.sub(s.splat(1.0), inverse)), k);
    with_sign_of(s, y, x)
}

/// Hyperbolic tangent, within 2.5 ULP. Keeps the sign of zero.
#[inline(always)]
pub fn tanh<I: Isa>(s: I, x: I::V) -> I::V {
    // t / (t + 2) with t = expm1(2 |x|), no cancellation anywhere; from 9.02 on the result is 1.
    let a = s.min(s.splat(9.1), abs(s, x));
    let (k, p) = reduce(s, s.add(a, a), None);
    let t = s.mul(s.add(p, s.sub(s.splat(1.0), s.exp2i(neg(s, k)))), s.exp2i(k));
    with_sign_of(s, s.div(t, s.add(t, s.splat(2.0))), x)
}

/// `1 / (1 + e^-x)`, within 2.4 ULP; relative precision is kept down to the subnormal results of `x` near -100.
#[inline(always)]
pub fn sigmoid<I: Isa>(s: I, x: I::V) -> I::V {
    let e = exp(s, s.or(x, s.splat(SIGN)));
    let one = s.splat(1.0);
    s.div(s.select_lt(x, s.zero(), e, one), s.add(one, e))
}
