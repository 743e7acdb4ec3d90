//! Natural logarithms.
//!
//! `x = 2^k (1 + f)` with `sqrt(1/2) < 1 + f <= sqrt(2)`, and
//! `log(1 + f) = f - f^2 / 2 + f^3 P(f)`, P of degree 8.
//!
//! References: S. L. Moshier, Cephes Mathematical Library, `single/logf.c` (polynomial); fdlibm `s_log1p.c`
//! (correction of the rounding of `1 + x`).

use super::{LN2_HI, LN2_LO, horner, with_sign_of};
use crate::isa::Isa;

/// `(k, f)` of a positive normal number.
#[inline(always)]
fn split<I: Isa>(s: I, x: I::V) -> (I::V, I::V) {
    let (one, root2) = (s.splat(1.0), s.splat(core::f32::consts::SQRT_2));
    let k = s.exponent(x);
    let m = s.or(s.and(x, s.splat(f32::from_bits(0x007f_ffff))), one); // in [1, 2)
    let f = s.select_lt(root2, m, s.fma(m, s.splat(0.5), s.splat(-1.0)), s.sub(m, one)); // exact
    (s.select_lt(root2, m, s.add(k, one), k), f)
}

/// `k ln 2 + log(1 + f) + c`, with a correction `c` of the size of a rounding error.
#[inline(always)]
fn join<I: Isa>(s: I, k: I::V, f: I::V, c: I::V) -> I::V {
    let p = horner(
        s,
        f,
        [
            3.333_333e-1,
            -2.499_999_4e-1,
            2.000_071_5e-1,
            -1.666_805_8e-1,
            1.424_932_3e-1,
            -1.242_014e-1,
            1.167_699_9e-1,
            -1.151_461e-1,
            7.037_683_6e-2,
        ],
    );
    let f2 = s.mul(f, f);
    let y = s.fma(s.mul(f, f2), p, s.fma(k, s.splat(LN2_LO), c));
    let y = s.fma(f2, s.splat(-0.5), y);
    s.fma(k, s.splat(LN2_HI), s.add(f, y))
}

/// `y` where `0 < x < inf`, else log's values: -inf at zero, NaN below, `x` itself for infinity and NaN.
#[inline(always)]
fn limits<I: Isa>(s: I, x: I::V, y: I::V, keep: I::V) -> I::V {
    let y = s.select_lt(s.zero(), x, y, s.splat(f32::NEG_INFINITY));
    let y = s.select_lt(x, s.zero(), s.splat(f32::NAN), y);
    s.select_lt(x, s.splat(f32::INFINITY), y, keep)
}

/// Natural logarithm, within 0.9 ULP: -inf at zero, NaN below.
#[inline(always)]
pub fn log<I: Isa>(s: I, x: I::V) -> I::V {
    // Subnormal numbers are brought into the normal range first.
    let tiny = s.splat(f32::MIN_POSITIVE);
    let normal = s.select_lt(x, tiny, s.mul(x, s.splat(16_777_216.0)), x);
    let (k, f) = split(s, normal);
    let k = s.select_lt(x, tiny, s.sub(k, s.splat(24.0)), k);
    limits(s, x, join(s, k, f, s.zero()), x)
}

/// `log(1 + x)`, within 0.9 ULP also where `x` is small: -inf at -1, NaN below. Keeps the sign of zero.
#[inline(always)]
pub fn log1p<I: Isa>(s: I, x: I::V) -> I::V {
    let one = s.splat(1.0);
    let u = s.add(one, x);
    let (k, f) = split(s, u);
    // What the rounding of 1 + x lost, relative to u: log(u + lost) = log(u) + lost / u.
    let lost = s.select_lt(one, x, s.sub(one, s.sub(u, x)), s.sub(x, s.sub(u, one)));
    let c = s.div(lost, u);
    // Where k is 0, f = x needs no correction.
    let far = s.mul(k, k);
    let half = s.splat(0.5);
    let (f, c) = (s.select_lt(half, far, f, x), s.select_lt(half, far, c, s.zero()));
    with_sign_of(s, limits(s, u, join(s, k, f, c), x), x)
}
