//! Functions of one array, element by element.

use super::doubles::cast;
use super::error::{OpResult, refuse};
use super::number::Arithmetic;
use super::wide::{self, Binary, Domain, Wide, binary, wide};
use super::{Array, Call, Data, ElementType, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("Abs", |call| number(call, &|row| wide!(row, v => each(v, Arithmetic::abs)))),
    Operator::new("Neg", |call| number(call, &|row| wide!(row, v => each(v, Arithmetic::neg)))),
    Operator::new("Sign", |call| number(call, &|row| wide!(row, v => each(v, sign)))),
    Operator::new("Relu", |call| number(call, &|row| wide!(row, v => each(v, relu)))),
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
        if !x.element().is_integer() {
            refuse!("elements of type {}, but integers are needed", x.element());
        }
        Ok(vec![wide::map(x, Domain::I64, x.element(), &|row| row.integers().iter_mut().for_each(|v| *v = !*v))?])
    }),
    Operator::new("Cast", |call| match ElementType::from_code(call.int("to", 0)?) {
        Some(to) => Ok(vec![cast(call.input(0)?, to)?]),
        None => refuse!("elements of type number {}, which this crate lacks", call.int("to", 0)?),
    }),
    Operator::new("BitCast", bit_cast),
    Operator::new("CastLike", |call| Ok(vec![cast(call.input(0)?, call.input(1)?.element())?])),
];

fn each<W: Copy>(row: &mut [W], f: impl Fn(W) -> W) {
    row.iter_mut().for_each(|v| *v = f(*v));
}

fn sign<W: Arithmetic>(x: W) -> W {
    match x {
        _ if x > W::ZERO => W::ONE,
        _ if x < W::ZERO => W::ONE.neg(),
        _ => x,
    }
}

fn relu<W: Arithmetic>(x: W) -> W {
    x.larger(W::ZERO)
}

/// A function that every type of numbers has.
fn number(call: &Call<'_>, f: &dyn Fn(&mut Wide)) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    Ok(vec![wide::map(x, Domain::of(x.element())?, x.element(), f)?])
}

/// A function of floats, computed in double precision.
fn float(call: &Call<'_>, f: impl Fn(f64) -> f64) -> OpResult<Vec<Array>> {
    Ok(vec![map(call.input(0)?, f)?])
}

/// `f` of every element, computed in double precision.
pub(super) fn map(x: &Array, f: impl Fn(f64) -> f64) -> OpResult<Array> {
    floats(x, x.element(), &|row| each(row.doubles(), &f))
}

/// `f` of rows of floats, computed in double precision.
fn floats(x: &Array, to: ElementType, f: &dyn Fn(&mut Wide)) -> OpResult<Array> {
    if !x.element().is_float() {
        refuse!("elements of type {}, but floats are needed", x.element());
    }
    wide::map(x, Domain::F64, to, f)
}

fn test(call: &Call<'_>, f: impl Fn(f64) -> bool) -> OpResult<Vec<Array>> {
    let of = |row: &mut Wide| each(row.doubles(), |v| f64::from(f(v)));
    Ok(vec![floats(call.input(0)?, ElementType::Bool, &of)?])
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
    Domain::of(x.element())?;
    Ok(vec![wide::map(x, Domain::F64, x.element(), &|row| each(row.doubles(), f))?])
}

const AT_LEAST: Binary = binary!(|v, low| if v < low { low } else { v });
const AT_MOST: Binary = binary!(|v, high| if v > high { high } else { v });

/// Bounds are inputs since opset 11, and attributes before.
fn clip(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let (element, domain) = (x.element(), Domain::of(x.element())?);
    let bound = |index: usize, name: &str| -> OpResult<Option<Array>> {
        if let Some(bound) = call.optional(index) {
            if bound.element() != element {
                refuse!("input {index} has elements of type {}, but {element} are needed", bound.element());
            }
            return match bound.clone().with_dims([]) {
                Some(bound) => Ok(Some(bound)),
                None => refuse!("a bound of {} elements, but one is needed", bound.len()),
            };
        }
        match call.attributes.get(name) {
            Some(_) => Ok(Some(cast(&Array::scalar(f64::from(call.float(name, 0.0)?)), element)?)),
            None => Ok(None),
        }
    };
    let (low, high) = (bound(1, "min")?, bound(2, "max")?);
    let mut y = x.clone();
    for (bound, by) in [(low, AT_LEAST), (high, AT_MOST)] {
        if let Some(bound) = bound {
            y = wide::zip(&y, &bound, domain, element, &|v, bound| by.run(v, bound))?;
        }
    }
    Ok(vec![y])
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
