//! Functions of one array, element by element.

use half::slice::HalfFloatSliceExt;

use super::call::{OpResult, refuse};
use super::number::{Number, floats, integers, numbers};
use super::{Array, Call, Data, ElementType, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("Abs", |call| one(call, Abs)),
    Operator::new("Neg", |call| one(call, Neg)),
    Operator::new("Sign", |call| one(call, Sign)),
    Operator::new("Relu", |call| one(call, Relu)),
    Operator::new("Floor", |call| float(call, f64::floor)),
    Operator::new("Ceil", |call| float(call, f64::ceil)),
    Operator::new("Round", |call| float(call, f64::round_ties_even)),
    Operator::new("Sqrt", |call| float(call, f64::sqrt)),
    Operator::new("Reciprocal", |call| float(call, f64::recip)),
    Operator::new("Exp", |call| float(call, f64::exp)),
    Operator::new("Log", |call| float(call, f64::ln)),
    Operator::new("Sin", |call| float(call, f64::sin)),
    Operator::new("Cos", |call| float(call, f64::cos)),
    Operator::new("Tan", |call| float(call, f64::tan)),
    Operator::new("Asin", |call| float(call, f64::asin)),
    Operator::new("Acos", |call| float(call, f64::acos)),
    Operator::new("Atan", |call| float(call, f64::atan)),
    Operator::new("Sinh", |call| float(call, f64::sinh)),
    Operator::new("Cosh", |call| float(call, f64::cosh)),
    Operator::new("Tanh", |call| float(call, f64::tanh)),
    Operator::new("Asinh", |call| float(call, f64::asinh)),
    Operator::new("Acosh", |call| float(call, f64::acosh)),
    Operator::new("Atanh", |call| float(call, f64::atanh)),
    Operator::new("Erf", |call| float(call, erf)),
    Operator::new("Sigmoid", |call| float(call, sigmoid)),
    Operator::new("Softplus", |call| float(call, softplus)),
    Operator::new("Softsign", |call| float(call, |x| x / (1.0 + x.abs()))),
    Operator::new("HardSwish", |call| float(call, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0))),
    // What `scale * HardSwish(x) + shift` is simplified to.
    Operator::new("swath.HardSwishAffine", |call| {
        let (scale, shift) = (f64::from(call.float("scale", 1.0)?), f64::from(call.float("shift", 0.0)?));
        float(call, move |x| scale * x * (x / 6.0 + 0.5).clamp(0.0, 1.0) + shift)
    }),
    Operator::new("Mish", |call| float(call, |x| x * softplus(x).tanh())),
    Operator::new("LeakyRelu", |call| {
        let alpha = f64::from(call.float("alpha", 0.01)?);
        float(call, move |x| if x < 0.0 { alpha * x } else { x })
    }),
    Operator::new("Elu", |call| {
        let alpha = f64::from(call.float("alpha", 1.0)?);
        float(call, move |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
    }),
    Operator::new("Celu", |call| {
        let alpha = f64::from(call.float("alpha", 1.0)?);
        float(call, move |x| if x < 0.0 { alpha * (x / alpha).exp_m1() } else { x })
    }),
    Operator::new("Selu", |call| {
        let alpha = f64::from(call.float("alpha", 1.673_263_2)?);
        let gamma = f64::from(call.float("gamma", 1.050_701)?);
        float(call, move |x| gamma * if x <= 0.0 { alpha * x.exp_m1() } else { x })
    }),
    Operator::new("ThresholdedRelu", |call| {
        let alpha = f64::from(call.float("alpha", 1.0)?);
        float(call, move |x| if x > alpha { x } else { 0.0 })
    }),
    Operator::new("HardSigmoid", |call| {
        let (alpha, beta) = (f64::from(call.float("alpha", 0.2)?), f64::from(call.float("beta", 0.5)?));
        float(call, move |x| (alpha * x + beta).clamp(0.0, 1.0))
    }),
    Operator::new("Swish", |call| {
        let alpha = f64::from(call.float("alpha", 1.0)?);
        float(call, move |x| x * sigmoid(alpha * x))
    }),
    Operator::new("Gelu", gelu),
    Operator::new("Shrink", shrink),
    Operator::new("Clip", clip),
    Operator::new("IsNaN", |call| test(call, f64::is_nan)),
    Operator::new("IsInf", |call| {
        let (negative, positive) = (call.flag("detect_negative", true)?, call.flag("detect_positive", true)?);
        test(call, move |x| x.is_infinite() && if x < 0.0 { negative } else { positive })
    }),
    Operator::new("Not", |call| {
        let x = call.elements::<bool>(0)?;
        Ok(vec![Array::of(call.input(0)?.dims(), x.iter().map(|&v| !v).collect())])
    }),
    Operator::new("BitwiseNot", |call| {
        let x = call.input(0)?;
        let dims = x.dims();
        Ok(vec![integers!(x.data(), v => Array::of(dims, v.iter().map(|&v| !v).collect()),
            other => refuse!("elements of type {other}, but integers are needed"))])
    }),
    Operator::new("Cast", |call| match ElementType::from_code(call.int("to", 0)?) {
        Some(to) => Ok(vec![cast(call.input(0)?, to)?]),
        None => refuse!("elements of type number {}, which this crate lacks", call.int("to", 0)?),
    }),
    Operator::new("BitCast", bit_cast),
    Operator::new("CastLike", |call| Ok(vec![cast(call.input(0)?, call.input(1)?.element())?])),
];

/// A function that every type of numbers has.
trait Function {
    fn of<T: Number>(x: T) -> T;
}

struct Abs;
struct Neg;
struct Sign;
struct Relu;

impl Function for Abs {
    fn of<T: Number>(x: T) -> T {
        x.abs()
    }
}

impl Function for Neg {
    fn of<T: Number>(x: T) -> T {
        x.neg()
    }
}

impl Function for Sign {
    fn of<T: Number>(x: T) -> T {
        match x {
            _ if x > T::ZERO => T::from_i64(1),
            _ if x < T::ZERO => T::from_i64(-1),
            _ => x,
        }
    }
}

impl Function for Relu {
    fn of<T: Number>(x: T) -> T {
        x.larger(T::ZERO)
    }
}

fn one<F: Function>(call: &Call<'_>, _: F) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    Ok(vec![numbers!(x.data(), v => Array::of(x.dims(), v.iter().map(|&v| F::of(v)).collect()),
        other => refuse!("elements of type {other}, but numbers are needed"))])
}

/// A function of floats, computed in double precision.
fn float(call: &Call<'_>, f: impl Fn(f64) -> f64) -> OpResult<Vec<Array>> {
    Ok(vec![map(call.input(0)?, f)?])
}

fn mapped<T: Number>(dims: &[usize], v: &[T], f: &impl Fn(f64) -> f64) -> Array {
    Array::of(dims, v.iter().map(|&v| T::from_f64(f(v.f64()))).collect())
}

/// `f` of every element, computed in double precision.
pub(super) fn map(x: &Array, f: impl Fn(f64) -> f64) -> OpResult<Array> {
    Ok(floats!(x.data(), v => mapped(x.dims(), v, &f),
        other => refuse!("elements of type {other}, but floats are needed")))
}

fn test(call: &Call<'_>, f: impl Fn(f64) -> bool) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    Ok(vec![floats!(x.data(), v => Array::of(x.dims(), v.iter().map(|&v| f(v.f64())).collect()),
        other => refuse!("elements of type {other}, but floats are needed"))])
}

fn gelu(call: &Call<'_>) -> OpResult<Vec<Array>> {
    match call.text("approximate", "none")? {
        "none" => float(call, |x| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))),
        "tanh" => float(call, |x| {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }),
        other => refuse!("approximate is {other:?}, but it can be none or tanh"),
    }
}

fn shrink(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (bias, lambda) = (f64::from(call.float("bias", 0.0)?), f64::from(call.float("lambd", 0.5)?));
    let f = |x: f64| match x {
        _ if x < -lambda => x + bias,
        _ if x > lambda => x - bias,
        _ => 0.0,
    };
    let x = call.input(0)?;
    Ok(vec![numbers!(x.data(), v => mapped(x.dims(), v, &f),
        other => refuse!("elements of type {other}, but numbers are needed"))])
}

/// Bounds are inputs since opset 11, and attributes before.
fn clip(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    fn bounded<T: Number>(call: &Call<'_>, v: &[T]) -> OpResult<Vec<T>> {
        let bound = |index: usize, name: &str| -> OpResult<Option<T>> {
            if call.optional(index).is_some() {
                return match call.elements::<T>(index)? {
                    [bound] => Ok(Some(*bound)),
                    more => refuse!("a bound of {} elements, but one is needed", more.len()),
                };
            }
            match call.attributes.get(name) {
                Some(_) => Ok(Some(T::from_f64(call.float(name, 0.0)?.into()))),
                None => Ok(None),
            }
        };
        let (low, high) = (bound(1, "min")?, bound(2, "max")?);
        let above = |v: T| low.map_or(v, |low| if v < low { low } else { v });
        let below = |v: T| high.map_or(v, |high| if v > high { high } else { v });
        Ok(v.iter().map(|&v| below(above(v))).collect())
    }
    Ok(vec![numbers!(x.data(), v => Array::of(x.dims(), bounded(call, v)?),
        other => refuse!("elements of type {other}, but numbers are needed"))])
}

/// The same bits as elements of another type of the same width.
fn bit_cast(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, code) = (call.input(0)?, call.int("to", 0)?);
    match ElementType::from_code(code) {
        Some(to) if to.bytes() == x.element().bytes() && x.element() != ElementType::Str => {
            let data = Data::from_le_bytes(to, &x.data().to_le_bytes())?;
            Ok(vec![Array::new(x.dims(), data).expect("as many elements as before")])
        }
        _ => refuse!("the bits of {} elements as elements of type number {code}", x.element()),
    }
}

/// The elements in another type. Floats are cut towards zero and saturate where they become integers.
pub fn cast(x: &Array, to: ElementType) -> OpResult<Array> {
    if x.element() == to {
        return Ok(x.clone());
    }
    fn floats<T: Number>(x: &Data) -> OpResult<Data> {
        Ok(T::wrap(match x {
            Data::Bool(v) => v.iter().map(|&v| T::from_i64(v.into())).collect(),
            Data::Str(v) => {
                let parse = |v: &String| match v.trim().parse::<f64>() {
                    Ok(v) => Ok(T::from_f64(v)),
                    Err(_) => refuse!("{v:?} is no number"),
                };
                v.iter().map(parse).collect::<OpResult<_>>()?
            }
            _ => numbers!(x, v => v.iter().map(|&v| T::from_f64(v.f64())).collect(),
                other => refuse!("elements of type {other} do not become numbers")),
        }))
    }
    fn integers<T: Number>(x: &Data) -> OpResult<Data> {
        integers!(x, v => Ok(T::wrap(v.iter().map(|&v| T::from_i64(v.i64())).collect())), _other => floats::<T>(x))
    }
    fn truths<T: Number>(v: &[T]) -> Vec<bool> {
        v.iter().map(|v| *v != T::ZERO).collect()
    }
    let data = x.data();
    let data = match to {
        // Weights of half size, millions of them: many at a time.
        ElementType::F32 if let Data::F16(v) = data => Data::F32(v.to_f32_vec()),
        ElementType::F32 => floats::<f32>(data)?,
        ElementType::F64 => floats::<f64>(data)?,
        ElementType::F16 => floats::<half::f16>(data)?,
        ElementType::Bf16 => floats::<half::bf16>(data)?,
        ElementType::I8 => integers::<i8>(data)?,
        ElementType::I16 => integers::<i16>(data)?,
        ElementType::I32 => integers::<i32>(data)?,
        ElementType::I64 => integers::<i64>(data)?,
        ElementType::U8 => integers::<u8>(data)?,
        ElementType::U16 => integers::<u16>(data)?,
        ElementType::U32 => integers::<u32>(data)?,
        ElementType::U64 => integers::<u64>(data)?,
        ElementType::Bool => numbers!(data, v => Data::Bool(truths(v)),
            other => refuse!("elements of type {other} do not become truth values")),
        ElementType::Str => refuse!("numbers are not written as text"),
    };
    Ok(Array::new(x.dims(), data).expect("as many elements as before"))
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `ln(1 + exp(x))` without overflow.
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The error function to double precision.
///
/// Source: the series `erf(x) = 2/sqrt(pi) exp(-x^2) sum(2^n x^(2n+1) / (2n+1)!!)`, all of whose terms are positive; beyond 6 the
/// result is 1 to double precision.
pub(crate) fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() || a > 6.0 {
        return if a.is_nan() { x } else { x.signum() };
    }
    let (mut term, mut sum, mut n) = (a, a, 0.0);
    while term > sum * 1e-17 {
        n += 1.0;
        term *= 2.0 * a * a / (2.0 * n + 1.0);
        sum += term;
    }
    (std::f64::consts::FRAC_2_SQRT_PI * (-a * a).exp() * sum).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::erf;

    #[test]
    fn the_error_function_has_its_known_values() {
        // Abramowitz and Stegun, table 7.1.
        for (x, expected) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (-2.0, -0.995_322_265_018_952_7),
        ] {
            assert!((erf(x) - expected).abs() < 1e-15, "erf({x}) = {}", erf(x));
        }
        assert_eq!((erf(7.0), erf(f64::NEG_INFINITY)), (1.0, -1.0));
        assert!(erf(f64::NAN).is_nan());
    }
}
