//! Elementary functions on vectors, with stated error bounds.
//!
//! Every function takes an [`Isa`] token and a vector, has no branch, and runs the same algorithm on
//! every level. The bounds hold with fused multiply-adds and without (the scalar level rounds twice), so results of
//! two levels may differ in their last bits. They are tested against f64 over the whole range of f32 in
//! `tests/vecmath.rs`; NaN gives NaN, infinities give the limits, and subnormal numbers are neither flushed nor wrong.
//!
//! | function | bound, ULP | from |
//! |---|---|---|
//! | [`exp`] | 1.02 | Cephes `expf` |
//! | [`expm1`] | 1.6 | the same polynomial, `(p + 1 - 2^-k) 2^k` |
//! | [`tanh`] | 2.5 | `t / (t + 2)`, `t = expm1(2x)` |
//! | [`sigmoid`] | 2.4 | `1 / (1 + e)` or `e / (1 + e)`, `e = exp(-abs(x))` |
//! | [`log`] | 0.9 | Cephes `logf` |
//! | [`log1p`] | 0.9 | the same, with the rounding of `1 + x` put back as in fdlibm |
//! | [`erf`] | 1.4 | own fit, `kernels/fit/erf.py` |
//! | [`erfcx`] | 6 | own fit of `(t + 3) erfcx(t)` after Shepherd and Laframboise 1981 |
//!
//! One ULP is the distance between the two f32 around the exact result, so a correctly rounded result is within 0.5.
//!
//! ```
//! use swath_kernels::isa::{Isa, Kernel, entry};
//! use swath_kernels::vecmath;
//!
//! struct Exp;
//! impl<I: Isa> Kernel<I> for Exp {
//!     type Args = [f32; 16];
//!     #[inline(always)]
//!     unsafe fn run(s: I, x: &[f32; 16]) {
//!         // SAFETY: x holds 16 floats, at least LANES.
//!         let _y: I::V = vecmath::exp(s, unsafe { s.load(x.as_ptr()) });
//!     }
//! }
//! // SAFETY: the scalar level is always there, and the kernel asks for nothing else.
//! unsafe { entry::scalar::<Exp>(&[1.0; 16]) };
//! ```

mod erf;
mod exp;
mod log;

pub use erf::{erf, erfcx};
pub use exp::{exp, exp_sum, expm1, sigmoid, tanh};
pub use log::{log, log1p};

use crate::isa::Isa;

const SIGN: f32 = -0.0;

/// High part of ln 2: ten bits, so that its product with an exponent is exact even without FMA.
const LN2_HI: f32 = 0.693_359_4;
/// ln 2 - `LN2_HI`.
const LN2_LO: f32 = -2.121_944_4e-4;

/// `abs(x)`, exact.
#[inline(always)]
pub fn abs<I: Isa>(s: I, x: I::V) -> I::V {
    s.and(x, s.splat(f32::from_bits(0x7fff_ffff)))
}

/// `-x`, exact.
#[inline(always)]
pub fn neg<I: Isa>(s: I, x: I::V) -> I::V {
    s.xor(x, s.splat(SIGN))
}

/// `y` with its sign bit set where that of `x` is: restores the sign of zero in functions that keep signs.
#[inline(always)]
fn with_sign_of<I: Isa>(s: I, y: I::V, x: I::V) -> I::V {
    s.or(y, s.and(x, s.splat(SIGN)))
}

/// `c[0] + x (c[1] + x (c[2] + ...))`
#[inline(always)]
fn horner<I: Isa, const N: usize>(s: I, x: I::V, c: [f32; N]) -> I::V {
    let mut y = s.splat(c[N - 1]);
    for i in (0..N - 1).rev() {
        y = s.fma(y, x, s.splat(c[i]));
    }
    y
}
