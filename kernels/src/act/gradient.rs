//! Gradients of activations: `dx = dy f'(x)`, from the input or, where it tells enough, from the output.
//!
//! At kinks the values are PyTorch's: ReLU 0 -> 0, ReLU6 and hard-tanh 0 at both limits, leaky ReLU 0 -> slope, ELU 0 ->
//! alpha, hard-sigmoid 0 at both ends, hard-swish -3 -> 0 and 3 -> 1. Where the gradient is cut off it is 0 whatever `dy` is, NaN
//! included; where `x` is NaN, ReLU and clip pass `dy` on (PyTorch tests `x <= limit`), leaky ReLU passes `slope dy`,
//! hard-sigmoid gives 0 and all others give NaN. At the infinities the limits hold.
//!
//! Bounds, of the exact derivative of the f32 input: `dy f'(x)` is within [`bound`], in units of the derivative. From
//! outputs, ELU, SELU and CELU are within `2^-23` of their scale, absolute: `y + alpha` has lost what `y` rounded off.

use core::marker::PhantomData;

use super::{Bound, parameters};
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::pass::{Body, Chunks, Place};
use crate::vecmath::{abs, erfcx, exp, exp_sum, neg, sigmoid};

/// What the forward pass has kept for the gradient of an activation.
#[derive(Clone, Copy, Debug)]
pub enum Kept<'a> {
    /// `x`: serves every activation.
    Input(&'a [f32]),
    /// `y = act(x)`: serves those of which [`output_suffices`] says so.
    Output(&'a [f32]),
}

/// Whether the gradient can be computed from the output: identity, ReLU, clip, leaky ReLU (of a slope that is not negative), ELU
/// and CELU (of a positive alpha), SELU, sigmoid and tanh.
pub fn output_suffices(act: Activation) -> bool {
    match act {
        Activation::Identity | Activation::Relu | Activation::Clip { .. } | Activation::Selu => true,
        Activation::Sigmoid | Activation::Tanh => true,
        Activation::LeakyRelu { slope } => slope >= 0.0,
        Activation::Elu { alpha } | Activation::Celu { alpha } => alpha > 0.0,
        _ => false,
    }
}

/// How far a derivative computed from the input may be from the exact one.
pub fn bound(act: Activation) -> Bound {
    let (ulp, abs) = match act {
        Activation::Identity | Activation::Relu | Activation::Clip { .. } => (0.0, 0.0),
        Activation::LeakyRelu { .. } => (0.5, 0.0),
        Activation::Elu { .. } | Activation::Selu => (2.0, TINY),
        Activation::Celu { .. } => (4.0, 3e-8), // the quotient x / alpha is rounded
        Activation::Sigmoid | Activation::Tanh => (5.0, TINY),
        Activation::Gelu | Activation::Silu | Activation::Mish => (2.0, 4e-7),
        Activation::GeluTanh => (2.0, 6e-7),
        Activation::Softplus { .. } => (3.0, TINY),
        Activation::HardSigmoid => (1.0, 0.0),
        Activation::HardSwish | Activation::HardSwishAffine { .. } => (2.0, 1e-7),
    };
    Bound { ulp, abs }
}

/// 2^-140: a few roundings of subnormal numbers.
const TINY: f32 = f32::from_bits(1 << 9);

/// A derivative times `dy`, on one vector.
trait Gradient {
    fn eval<I: Isa>(s: I, v: I::V, dy: I::V, p: [I::V; 2]) -> I::V;
}

macro_rules! gradients {
    ($($(#[$doc:meta])* $name:ident($s:ident, $v:ident, $dy:ident, $p:pat) $body:block)*) => {$(
        $(#[$doc])*
        struct $name;

        impl Gradient for $name {
            #[inline(always)]
            fn eval<I: Isa>($s: I, $v: I::V, $dy: I::V, $p: [I::V; 2]) -> I::V $body
        }
    )*};
}

/// `dy` where `v` is positive, else `dy f`.
#[inline(always)]
fn positive_or<I: Isa>(s: I, v: I::V, dy: I::V, f: I::V) -> I::V {
    s.select_lt(s.zero(), v, dy, s.mul(dy, f))
}

/// `v` within `limit` of zero; NaN stays.
#[inline(always)]
fn within<I: Isa>(s: I, limit: f32, v: I::V) -> I::V {
    s.min(s.splat(limit), s.max(s.splat(-limit), v))
}

/// `sigmoid'(x) = e / (1 + e)^2`, `e = exp(-abs(x))`: no cancellation.
#[inline(always)]
fn bell<I: Isa>(s: I, x: I::V) -> I::V {
    let e = exp(s, neg(s, abs(s, x)));
    let one = s.add(s.splat(1.0), e);
    s.div(s.div(e, one), one)
}

/// SELU's scale, and it times its alpha.
const SELU: [f64; 2] = [1.050_700_987_355_480_5, 1.050_700_987_355_480_5 * 1.673_263_242_354_377_2];

gradients! {
    Identity(_s, _v, dy, _) { dy }
    Relu(s, v, dy, _) { s.select_nan(v, dy, s.select_lt(s.zero(), v, dy, s.zero())) }
    Clip(s, v, dy, [lo, hi]) {
        let inside = s.select_lt(lo, v, s.select_lt(v, hi, dy, s.zero()), s.zero());
        s.select_nan(v, dy, inside)
    }
    LeakyRelu(s, v, dy, [slope, _]) { positive_or(s, v, dy, slope) }
    Elu(s, v, dy, [alpha, _]) { positive_or(s, v, dy, s.mul(alpha, exp(s, v))) }
    EluOutput(s, v, dy, [alpha, _]) { positive_or(s, v, dy, s.add(v, alpha)) }
    Selu(s, v, dy, _) {
        let negative = s.mul(s.splat(SELU[1] as f32), exp(s, v));
        s.mul(dy, s.select_lt(s.zero(), v, s.splat(SELU[0] as f32), negative))
    }
    SeluOutput(s, v, dy, _) {
        let negative = s.add(v, s.splat(SELU[1] as f32));
        s.mul(dy, s.select_lt(s.zero(), v, s.splat(SELU[0] as f32), negative))
    }
    Celu(s, v, dy, [alpha, _]) { positive_or(s, v, dy, exp(s, s.div(v, alpha))) }
    CeluOutput(s, v, dy, [alpha, _]) { positive_or(s, v, dy, s.add(s.div(v, alpha), s.splat(1.0))) }
    Sigmoid(s, v, dy, _) { s.mul(dy, bell(s, v)) }
    SigmoidOutput(s, v, dy, _) { s.mul(s.mul(dy, s.sub(s.splat(1.0), v)), v) }
    /// `4 sigmoid'(2x)`
    Tanh(s, v, dy, _) { s.mul(dy, s.mul(s.splat(4.0), bell(s, s.add(v, v)))) }
    TanhOutput(s, v, dy, _) { s.mul(dy, s.mul(s.sub(s.splat(1.0), v), s.add(s.splat(1.0), v))) }
    /// `Phi(x) + x phi(x)`. With `t = abs(x)` and `e = exp(-t^2 / 2)` it is `g = e (erfcx(t / sqrt 2) / 2 - t / sqrt(2 pi))`
    /// below zero and `1 - g` above; see the activation.
    Gelu(s, v, dy, _) {
        let t = s.min(s.splat(15.0), abs(s, v));
        let h = s.and(t, s.splat(f32::from_bits(0xffff_f000)));
        let half = s.splat(-0.5);
        let e = exp_sum(s, s.mul(half, s.mul(h, h)), s.mul(half, s.mul(s.add(t, h), s.sub(t, h))));
        let tail = erfcx(s, s.mul(t, s.splat(core::f32::consts::FRAC_1_SQRT_2)));
        let density = s.mul(t, s.splat((0.5 * core::f64::consts::FRAC_2_SQRT_PI * core::f64::consts::FRAC_1_SQRT_2) as f32));
        let g = s.mul(e, s.sub(s.mul(s.splat(0.5), tail), density));
        s.mul(dy, s.select_lt(v, s.zero(), g, s.sub(s.splat(1.0), g)))
    }
    /// `sigmoid(u) + x sigmoid'(u) u'`, `u = sqrt(8 / pi) (x + 0.044715 x^3)`.
    GeluTanh(s, v, dy, _) {
        let x = within(s, 11.0, v); // sigmoid(u) is 0 or 1 from there on
        let root: f64 = 2.0 * core::f64::consts::FRAC_2_SQRT_PI * core::f64::consts::FRAC_1_SQRT_2;
        let (x2, linear) = (s.mul(x, x), s.splat(root as f32));
        let u = s.mul(x, s.fma(x2, s.splat((root * 0.044715) as f32), linear));
        let slope = s.fma(x2, s.splat((3.0 * root * 0.044715) as f32), linear);
        s.mul(dy, s.fma(s.mul(x, bell(s, u)), slope, sigmoid(s, u)))
    }
    /// `sigmoid(x) + x sigmoid'(x)`
    Silu(s, v, dy, _) {
        let x = within(s, 110.0, v); // 110 exp(-110) rounds to zero
        s.mul(dy, s.fma(x, bell(s, x), sigmoid(s, x)))
    }
    /// With `n = exp(x)` and `w = n (n + 2)`: `w / (w + 2) + 4 x n (n + 1) / (w + 2)^2`.
    Mish(s, v, dy, _) {
        let x = s.min(s.splat(20.0), s.max(s.splat(-110.0), v)); // 1 from 20 on
        let n = exp(s, x);
        let w = s.mul(n, s.add(n, s.splat(2.0)));
        let r = s.div(s.splat(1.0), s.add(w, s.splat(2.0)));
        let product = s.mul(s.mul(s.mul(s.splat(4.0), x), n), s.add(n, s.splat(1.0)));
        s.mul(dy, s.fma(s.mul(product, r), r, s.mul(w, r)))
    }
    Softplus(s, v, dy, [beta, threshold]) {
        let z = s.mul(beta, v);
        s.select_lt(threshold, z, dy, s.mul(dy, sigmoid(s, z)))
    }
    HardSigmoid(s, v, dy, _) {
        let inside = s.mul(dy, s.splat(1.0 / 6.0));
        s.select_lt(s.splat(-3.0), v, s.select_lt(v, s.splat(3.0), inside, s.zero()), s.zero())
    }
    HardSwish(s, v, dy, _) {
        let middle = s.mul(dy, s.fma(v, s.splat(1.0 / 3.0), s.splat(0.5)));
        let above = s.select_lt(v, s.splat(3.0), middle, s.select_nan(v, middle, dy));
        s.select_lt(s.splat(-3.0), v, above, s.select_nan(v, middle, s.zero()))
    }
    HardSwishAffine(s, v, dy, [scale, shift]) { HardSwish::eval(s, v, s.mul(dy, scale), [scale, shift]) }
}

/// The loop around every gradient: whole vectors, then one partial one.
struct Over<'a, G> {
    v: &'a [f32],
    /// `dx` itself where there is none.
    dy: Option<&'a [f32]>,
    dx: &'a mut [f32],
    p: [f32; 2],
    g: PhantomData<G>,
}

impl<G: Gradient> Body for Over<'_, G> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, s: I) {
        let len = self.dx.len();
        assert!(self.v.len() == len && self.dy.is_none_or(|dy| dy.len() == len));
        let (v, dx, p) = (self.v.as_ptr(), self.dx.as_mut_ptr(), self.p.map(|p| s.splat(p)));
        let dy = self.dy.map_or(dx.cast_const(), <[f32]>::as_ptr);
        let whole = len - len % I::LANES;
        for i in (0..whole).step_by(I::LANES) {
            // SAFETY: i + LANES <= whole <= len, the length of all buffers.
            unsafe { s.store(dx.add(i), G::eval(s, s.load(v.add(i)), s.load(dy.add(i)), p)) };
        }
        let n = len - whole;
        if n > 0 {
            // SAFETY: the n < LANES floats from `whole` on are inside all buffers.
            unsafe {
                let d = G::eval(s, s.load_partial(v.add(whole), n), s.load_partial(dy.add(whole), n), p);
                s.store_partial(dx.add(whole), d, n);
            }
        }
    }
}

/// Floats of a part: with its inputs a tenth of an L2 cache.
const CHUNK: usize = 8 << 10;

fn run<G: Gradient>(place: &Place<'_>, p: [f32; 2], v: &[f32], dy: Option<&[f32]>, dx: &mut [f32]) {
    let floats = 3 * dx.len();
    place.each(floats, Chunks::new(dx, CHUNK), |i, dx| {
        let range = i * CHUNK..i * CHUNK + dx.len();
        let (v, dy) = (&v[range.clone()], dy.map(|dy| &dy[range]));
        place.at(Over { v, dy, dx, p, g: PhantomData::<G> });
    });
}

fn dispatch(place: &Place<'_>, act: Activation, kept: Kept<'_>, dy: Option<&[f32]>, dx: &mut [f32]) {
    let (v, output) = match kept {
        Kept::Input(x) => (x, false),
        Kept::Output(y) => (y, true),
    };
    assert!(!output || output_suffices(act), "the gradient of {act:?} needs the input");
    assert_eq!(v.len(), dx.len(), "lengths of what was kept and of the gradient");
    assert!(dy.is_none_or(|dy| dy.len() == dx.len()), "lengths of both gradients");
    let run = match (act, output) {
        (Activation::Identity, _) => run::<Identity>,
        (Activation::Relu, _) => run::<Relu>,
        (Activation::Clip { .. }, _) => run::<Clip>,
        (Activation::LeakyRelu { .. }, _) => run::<LeakyRelu>,
        (Activation::Elu { .. }, false) => run::<Elu>,
        (Activation::Elu { .. }, true) => run::<EluOutput>,
        (Activation::Selu, false) => run::<Selu>,
        (Activation::Selu, true) => run::<SeluOutput>,
        (Activation::Celu { .. }, false) => run::<Celu>,
        (Activation::Celu { .. }, true) => run::<CeluOutput>,
        (Activation::Sigmoid, false) => run::<Sigmoid>,
        (Activation::Sigmoid, true) => run::<SigmoidOutput>,
        (Activation::Tanh, false) => run::<Tanh>,
        (Activation::Tanh, true) => run::<TanhOutput>,
        (Activation::Gelu, _) => run::<Gelu>,
        (Activation::GeluTanh, _) => run::<GeluTanh>,
        (Activation::Silu, _) => run::<Silu>,
        (Activation::Mish, _) => run::<Mish>,
        (Activation::Softplus { .. }, _) => run::<Softplus>,
        (Activation::HardSigmoid, _) => run::<HardSigmoid>,
        (Activation::HardSwish, _) => run::<HardSwish>,
        (Activation::HardSwishAffine { .. }, _) => run::<HardSwishAffine>,
    };
    run(place, parameters(act), v, dy, dx);
}

/// `dx = dy act'(x)`, elementwise, in any layout; zero where `dy` is, so that padding channels stay zero.
///
/// # Panics
/// If the lengths differ, or the output is given where [`output_suffices`] says no.
///
/// ```
/// use swath_kernels::act::{self, Kept};
/// use swath_kernels::{epilogue::Activation, isa::Cpu, pass::Place};
/// let place = Place::inline(Cpu::detect().level);
/// let mut dx = [0.0; 3];
/// act::backward(&place, Activation::Relu, Kept::Output(&[0.0, 2.5, 7.0]), &[1.0, 2.0, 3.0], &mut dx);
/// assert_eq!(dx, [0.0, 2.0, 3.0]);
/// ```
pub fn backward(place: &Place<'_>, act: Activation, kept: Kept<'_>, dy: &[f32], dx: &mut [f32]) {
    dispatch(place, act, kept, Some(dy), dx);
}

/// `d = d act'(x)`: [`backward`] in place.
///
/// # Panics
/// As [`backward`].
pub fn backward_inplace(place: &Place<'_>, act: Activation, kept: Kept<'_>, d: &mut [f32]) {
    dispatch(place, act, kept, None, d);
}
