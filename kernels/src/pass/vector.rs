//! A vector as a number, so that formulas of passes read like formulas.

use core::ops::{Add, Div, Mul, Neg, Sub};

use crate::isa::Isa;

/// Floats of a level's vector, under the operations of one. Nothing is fused, so every level rounds alike.
#[derive(Clone, Copy)]
pub(crate) struct Vector<I: Isa> {
    s: I,
    v: I::V,
}

impl<I: Isa> Vector<I> {
    /// All lanes `v`.
    #[inline(always)]
    pub(crate) fn splat(s: I, v: f32) -> Self {
        Self { s, v: s.splat(v) }
    }

    /// The first `n` lanes from memory, the others zero.
    ///
    /// # Safety
    /// `p` is valid for reading `n` floats, and `n <= LANES`.
    #[inline(always)]
    pub(crate) unsafe fn load(s: I, p: *const f32, n: usize) -> Self {
        // SAFETY: the caller vouches for both.
        let v = unsafe { if n == I::LANES { s.load(p) } else { s.load_partial(p, n) } };
        Self { s, v }
    }

    /// The first `n` lanes to memory.
    ///
    /// # Safety
    /// `p` is valid for writing `n` floats, and `n <= LANES`.
    #[inline(always)]
    pub(crate) unsafe fn store(self, p: *mut f32, n: usize) {
        // SAFETY: the caller vouches for both.
        unsafe { if n == I::LANES { self.s.store(p, self.v) } else { self.s.store_partial(p, self.v, n) } }
    }

    /// Lanes that are all `v`, beside this vector.
    #[inline(always)]
    pub(crate) fn all(self, v: f32) -> Self {
        Self::splat(self.s, v)
    }

    /// `if self < limit { then } else { otherwise }`; the latter where either is NaN.
    #[inline(always)]
    pub(crate) fn where_less(self, limit: Self, then: Self, otherwise: Self) -> Self {
        Self { v: self.s.select_lt(self.v, limit.v, then.v, otherwise.v), ..self }
    }

    /// Inside limits; NaN stays.
    #[inline(always)]
    pub(crate) fn clip(self, [lo, hi]: [f32; 2]) -> Self {
        let s = self.s;
        Self { v: s.min(s.splat(hi), s.max(s.splat(lo), self.v)), s }
    }
}

macro_rules! operators {
    ($($operator:ident $name:ident $op:ident)*) => {$(
        impl<I: Isa> $operator for Vector<I> {
            type Output = Self;

            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                Self { v: self.s.$op(self.v, other.v), ..self }
            }
        }
    )*};
}

operators! { Add add add Sub sub sub Mul mul mul Div div div }

impl<I: Isa> Neg for Vector<I> {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        Self { v: self.s.xor(self.v, self.s.splat(-0.0)), ..self }
    }
}
