//! Activations, softmax and log-softmax over slices.
//!
//! One body per activation (`act/function.rs`) and one loop around all of them, built per level: a row of [`table`] is an
//! activation at a level, with its error bound and its entry point. Convolution calls such an entry on a small tile
//! buffer, layers on whole tensors through [`apply`].
//!
//! NaN gives NaN everywhere, as in PyTorch. At minus infinity GELU, SiLU, mish and hard-swish give their limit 0, where
//! PyTorch multiplies infinity by zero.
//!
//! # Error bounds
//!
//! Of the exact function of the f32 input and parameters, as [`Bound`]: a number of ULP (of the exact result) plus an
//! absolute part. They hold on every level.
//!
//! | activation | ULP | absolute |
//! |---|---|---|
//! | identity, relu, clip | 0 | 0 |
//! | leaky_relu | 0.5 | 0 |
//! | elu | 2.1 | 0 |
//! | selu, celu | 3 | 0 |
//! | sigmoid, tanh | 2.5 | 0 |
//! | gelu | 8 | 2^-140: products of subnormal numbers |
//! | gelu_tanh | 6 | 2^-27: the tanh's argument is rounded |
//! | silu | 4 | 2^-140 |
//! | mish | 6 | 2^-140 |
//! | softplus | 3 | 2^-140; of the function of the rounded product `beta x` |
//! | hardsigmoid | 2 | 0 |
//! | hardswish | 2.5 | 0 |
//! | hardswish_affine | 3.5 | 0; in units of the larger of its product and its shift |

mod function;
mod gradient;
mod softmax;

use core::marker::PhantomData;

use function::*;

use crate::control_word::with_default;
use crate::epilogue::Activation;
use crate::isa::{self, Isa, Kernel, Level};
use crate::table::{by_level, edges};

pub use gradient::{Kept, backward, backward_inplace, bound as gradient_bound, output_suffices};
pub use softmax::{SoftmaxArgs, SoftmaxRow, log_softmax, softmax, softmax_table};

/// What an activation's entry point takes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ActArgs {
    /// Input, `len` floats.
    pub src: *const f32,
    /// Output, `len` floats; may be `src`.
    pub dst: *mut f32,
    /// Number of floats.
    pub len: usize,
    /// The activation's [`parameters`].
    pub p: [f32; 2],
}

/// How far a result may be from the exact one: `ulp * ULP(exact) + abs`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// In units of the distance between the two f32 around the exact result.
    pub ulp: f32,
    /// Absolute.
    pub abs: f32,
}

/// One activation at one level.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Family, type and level, as `relu_f32_avx512`.
    pub name: &'static str,
    /// The level it is built for.
    pub level: Level,
    /// Its error bound.
    pub bound: Bound,
    /// The kernel.
    ///
    /// # Safety
    /// The machine has the level; `src` is readable and `dst` writable for `len` floats; they are equal or do not
    /// overlap.
    pub run: isa::Entry<ActArgs>,
}

/// The loop around every activation: whole vectors, then one partial one.
struct Map<F>(PhantomData<F>);

impl<I: Isa, F: Function> Kernel<I> for Map<F> {
    type Args = ActArgs;

    /// # Safety
    /// As [`Row::run`] states.
    #[inline(always)]
    unsafe fn run(s: I, a: &ActArgs) {
        let p = a.p.map(|v| s.splat(v));
        let whole = a.len - a.len % I::LANES;
        let mut i = 0;
        while i < whole {
            // SAFETY: i + LANES <= whole <= len, the length of both buffers.
            unsafe { s.store(a.dst.add(i), F::eval(s, s.load(a.src.add(i)), p)) };
            i += I::LANES;
        }
        if i < a.len {
            let n = a.len - i;
            // SAFETY: the n < LANES floats from i on are inside both buffers.
            unsafe { s.store_partial(a.dst.add(i), F::eval(s, s.load_partial(a.src.add(i), n), p), n) };
        }
    }
}

edges!(edge);

/// The rows of one level, in the order of [`index`].
macro_rules! level_rows {
    ($level:ident, $entry:ident) => {
        level_rows! { $level, $entry,
            "identity" Identity (0.0, 0.0)
            "relu" Relu (0.0, 0.0)
            "clip" Clip (0.0, 0.0)
            "leaky_relu" LeakyRelu (0.5, 0.0)
            "elu" Elu (2.1, 0.0)
            "selu" Selu (3.0, 0.0)
            "celu" Celu (3.0, 0.0)
            "sigmoid" Sigmoid (2.5, 0.0)
            "tanh" Tanh (2.5, 0.0)
            "gelu" Gelu (8.0, TINY)
            "gelu_tanh" GeluTanh (6.0, 7.450_581e-9)
            "silu" Silu (4.0, TINY)
            "mish" Mish (6.0, TINY)
            "softplus" Softplus (3.0, TINY)
            "hardsigmoid" HardSigmoid (2.0, 0.0)
            "hardswish" HardSwish (2.5, 0.0)
            "hardswish_affine" HardSwishAffine (3.5, 0.0)
        }
    };
    ($level:ident, $entry:ident, $($name:literal $f:ident ($ulp:literal, $abs:expr))*) => {
        [$(Row {
            name: concat!($name, "_f32_", stringify!($entry)),
            level: Level::$level,
            bound: Bound { ulp: $ulp, abs: $abs },
            run: edge::$entry::run::<Map<$f>>,
        }),*]
    };
}

/// 2^-140: a few roundings of subnormal numbers.
const TINY: f32 = f32::from_bits(1 << 9);

by_level! {
    /// All rows of a level; empty for a level of another architecture.
    pub fn table() -> [Row];

    Scalar: &level_rows!(Scalar, scalar),
    Avx2: &level_rows!(Avx2, avx2),
    Avx512: &level_rows!(Avx512, avx512),
    Neon: &level_rows!(Neon, neon),
}

/// An activation's place in a level's rows.
const fn index(act: Activation) -> usize {
    match act {
        Activation::Identity => 0,
        Activation::Relu => 1,
        Activation::Clip { .. } => 2,
        Activation::LeakyRelu { .. } => 3,
        Activation::Elu { .. } => 4,
        Activation::Selu => 5,
        Activation::Celu { .. } => 6,
        Activation::Sigmoid => 7,
        Activation::Tanh => 8,
        Activation::Gelu => 9,
        Activation::GeluTanh => 10,
        Activation::Silu => 11,
        Activation::Mish => 12,
        Activation::Softplus { .. } => 13,
        Activation::HardSigmoid => 14,
        Activation::HardSwish => 15,
        Activation::HardSwishAffine { .. } => 16,
    }
}

/// The row of an activation at a level; `None` for a level of another architecture.
pub fn row(level: Level, act: Activation) -> Option<&'static Row> {
    table(level).get(index(act))
}

/// The entry point of an activation at a level; `None` for a level of another architecture. [`Row::run`] has its
/// contract, and [`parameters`] makes what it takes as `p`.
pub fn entry(level: Level, act: Activation) -> Option<isa::Entry<ActArgs>> {
    row(level, act).map(|r| r.run)
}

/// What an activation's entry point takes as [`ActArgs::p`].
pub const fn parameters(act: Activation) -> [f32; 2] {
    match act {
        Activation::Clip { lo, hi } => [lo, hi],
        Activation::LeakyRelu { slope } => [slope, 0.0],
        Activation::Elu { alpha } | Activation::Celu { alpha } => [alpha, 0.0],
        Activation::Softplus { beta, threshold } => [beta, threshold],
        Activation::HardSwishAffine { scale, shift } => [scale, shift],
        _ => [0.0; 2],
    }
}

/// The row, where the machine can run it.
fn available(level: Level, act: Activation) -> &'static Row {
    assert!(Level::available().contains(&level), "level {level} is not available on this machine");
    row(level, act).expect("an available level has rows")
}

/// `y = act(x)`, elementwise.
///
/// # Panics
/// If the lengths differ, or the machine does not have the level.
///
/// ```
/// use swath_kernels::{act, epilogue::Activation, isa::Cpu};
/// let mut y = [0.0; 3];
/// act::apply(Cpu::detect().level, Activation::Clip { lo: 0.0, hi: 6.0 }, &[-1.0, 2.5, 7.0], &mut y);
/// assert_eq!(y, [0.0, 2.5, 6.0]);
/// ```
pub fn apply(level: Level, act: Activation, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "input and output lengths");
    let args = ActArgs { src: x.as_ptr(), dst: y.as_mut_ptr(), len: x.len(), p: parameters(act) };
    // SAFETY: the level is available; both slices hold len floats, and a `&mut` slice overlaps no other.
    with_default(|| unsafe { (available(level, act).run)(&args) })
}

/// `x = act(x)`, elementwise.
///
/// # Panics
/// If the machine does not have the level.
pub fn apply_inplace(level: Level, act: Activation, x: &mut [f32]) {
    let p = x.as_mut_ptr();
    let args = ActArgs { src: p, dst: p, len: x.len(), p: parameters(act) };
    // SAFETY: the level is available; the slice holds len floats, and both pointers are the same.
    with_default(|| unsafe { (available(level, act).run)(&args) })
}
