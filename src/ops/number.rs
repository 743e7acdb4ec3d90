//! Arithmetic of the element types.
//!
//! Twelve types of numbers are computed in four: code for each of the twelve only reads and writes elements, so that there is a
//! third of it to compile.

use half::{bf16, f16};

use super::array::Element;

/// A type of numbers.
pub(crate) trait Number: Element + Copy + PartialOrd {
    /// What its arithmetic is done in, rounded after each operation. Integers wrap there and here, so what wraps twice wraps right.
    type Wide: Arithmetic;
    fn wide(self) -> Self::Wide;
    fn narrow(value: Self::Wide) -> Self;
    /// As a double; integers beyond 2^53 round.
    fn f64(self) -> f64;
    /// From a double: floats round, integers are cut and saturate, NaN is zero.
    fn from_f64(value: f64) -> Self;
    /// From an integer: integers wrap, floats round.
    fn from_i64(value: i64) -> Self;
}

/// A type of numbers that is computed in.
pub(crate) trait Arithmetic: Number<Wide = Self> {
    const ZERO: Self;
    const ONE: Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// Integers are cut towards zero; what division by zero gives them is zero.
    fn div(self, other: Self) -> Self;
    /// The remainder with the sign of the divisor, as Python's `%`.
    fn modulo(self, other: Self) -> Self;
    /// The remainder with the sign of the dividend, as C's `fmod`.
    fn remainder(self, other: Self) -> Self;
    fn neg(self) -> Self;
    fn abs(self) -> Self;
    fn is_nan(self) -> bool;
    /// The larger one; NaN if either is.
    fn larger(self, other: Self) -> Self {
        if self.is_nan() || self > other { self } else { other }
    }
    /// The smaller one; NaN if either is.
    fn smaller(self, other: Self) -> Self {
        if self.is_nan() || self < other { self } else { other }
    }
    /// 1 and 0.
    fn truth(value: bool) -> Self {
        if value { Self::ONE } else { Self::ZERO }
    }
}

macro_rules! integer {
    ($($t:ty, $wide:ty;)*) => {
        $(impl Number for $t {
            type Wide = $wide;
            fn wide(self) -> $wide { self as $wide }
            fn narrow(value: $wide) -> Self { value as Self }
            fn f64(self) -> f64 { self as f64 }
            fn from_f64(value: f64) -> Self { value as Self }
            fn from_i64(value: i64) -> Self { value as Self }
        })*
    };
}

integer! {
    i8, i64;
    i16, i64;
    i32, i64;
    i64, i64;
    u8, i64;
    u16, i64;
    u32, i64;
    u64, u64;
}

macro_rules! integer_arithmetic {
    ($($t:ty, $neg:expr, $abs:expr;)*) => {
        $(impl Arithmetic for $t {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            fn add(self, other: Self) -> Self { self.wrapping_add(other) }
            fn sub(self, other: Self) -> Self { self.wrapping_sub(other) }
            fn mul(self, other: Self) -> Self { self.wrapping_mul(other) }
            fn div(self, other: Self) -> Self { if other == 0 { 0 } else { self.wrapping_div(other) } }
            fn modulo(self, other: Self) -> Self {
                let rest = self.remainder(other);
                #[allow(unused_comparisons)]
                if rest != 0 && ((rest < 0) != (other < 0)) { rest.wrapping_add(other) } else { rest }
            }
            fn remainder(self, other: Self) -> Self { if other == 0 { 0 } else { self.wrapping_rem(other) } }
            fn neg(self) -> Self { $neg(self) }
            fn abs(self) -> Self { $abs(self) }
            fn is_nan(self) -> bool { false }
        })*
    };
}

integer_arithmetic! {
    i64, i64::wrapping_neg, i64::wrapping_abs;
    u64, u64::wrapping_neg, std::convert::identity;
}

macro_rules! float {
    ($($t:ty, $wide:ty, $to:expr, $from:expr, $from_f64:expr;)*) => {
        $(impl Number for $t {
            type Wide = $wide;
            fn wide(self) -> $wide { $to(self) }
            fn narrow(value: $wide) -> Self { $from(value) }
            fn f64(self) -> f64 { f64::from(self) }
            fn from_f64(value: f64) -> Self { $from_f64(value) }
            fn from_i64(value: i64) -> Self { $from_f64(value as f64) }
        })*
    };
}

float! {
    f32, f32, std::convert::identity, std::convert::identity, |v: f64| v as f32;
    f64, f64, std::convert::identity, std::convert::identity, std::convert::identity;
    f16, f32, f16::to_f32, f16::from_f32, f16::from_f64;
    bf16, f32, bf16::to_f32, bf16::from_f32, bf16::from_f64;
}

macro_rules! float_arithmetic {
    ($($t:ident)*) => {
        $(impl Arithmetic for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            fn add(self, other: Self) -> Self { self + other }
            fn sub(self, other: Self) -> Self { self - other }
            fn mul(self, other: Self) -> Self { self * other }
            fn div(self, other: Self) -> Self { self / other }
            fn modulo(self, other: Self) -> Self {
                let rest = self % other;
                if rest != 0.0 && ((rest < 0.0) != (other < 0.0)) { rest + other } else { rest }
            }
            fn remainder(self, other: Self) -> Self { self % other }
            fn neg(self) -> Self { -self }
            fn abs(self) -> Self { $t::abs(self) }
            fn is_nan(self) -> bool { $t::is_nan(self) }
        })*
    };
}

float_arithmetic! { f32 f64 }

/// Runs the same code on these types' arrays, and other code on those of an `other` type.
macro_rules! of_types {
    ([$($type:ident)*] $data:expr, $v:ident => $body:expr, $other:ident => $no:expr) => {{
        let data = $data;
        match data {
            $($crate::ops::Data::$type($v) => $body,)*
            _ => {
                let $other = data.element();
                $no
            }
        }
    }};
}
pub(crate) use of_types;

/// Runs the same code on numbers of any type: `numbers!(data, v => .., other => ..)`, where `other` is the type that has none.
macro_rules! numbers {
    ($($code:tt)*) => {
        $crate::ops::number::of_types!([F32 F64 F16 Bf16 I8 I16 I32 I64 U8 U16 U32 U64] $($code)*)
    };
}
pub(crate) use numbers;

/// Runs the same code on floats of any type.
macro_rules! floats {
    ($($code:tt)*) => {
        $crate::ops::number::of_types!([F32 F64 F16 Bf16] $($code)*)
    };
}
pub(crate) use floats;
