//! Functions of two or more arrays, element by element, with NumPy's broadcasting.

use super::array::each;
use super::call::{OpResult, refuse};
use super::doubles::doubles;
use super::number::{Number, integers, numbers};
use super::view::{View, broadcast_all, expand, zip};
use super::{Array, Call, Data, Element, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("Add", |call| arithmetic(call, Add)),
    Operator::new("Sub", |call| arithmetic(call, Sub)),
    Operator::new("Mul", |call| arithmetic(call, Mul)),
    Operator::new("Div", div),
    Operator::new("Mod", modulo),
    Operator::new("Pow", pow),
    Operator::new("PRelu", prelu),
    Operator::new("Max", |call| variadic(call, Max)),
    Operator::new("Min", |call| variadic(call, Min)),
    Operator::new("Sum", |call| variadic(call, Add)),
    Operator::new("Mean", mean),
    Operator::new("Equal", equal),
    Operator::new("Less", |call| compare(call, Less)),
    Operator::new("LessOrEqual", |call| compare(call, LessOrEqual)),
    Operator::new("Greater", |call| compare(call, Greater)),
    Operator::new("GreaterOrEqual", |call| compare(call, GreaterOrEqual)),
    Operator::new("And", |call| logic(call, |a, b| a & b)),
    Operator::new("Or", |call| logic(call, |a, b| a | b)),
    Operator::new("Xor", |call| logic(call, |a, b| a ^ b)),
    Operator::new("BitwiseAnd", |call| bits(call, |a, b| a & b)),
    Operator::new("BitwiseOr", |call| bits(call, |a, b| a | b)),
    Operator::new("BitwiseXor", |call| bits(call, |a, b| a ^ b)),
    Operator::new("BitShift", bit_shift),
    Operator::new("Where", select),
];

/// A function that every type of numbers has.
trait Function {
    fn of<T: Number>(a: T, b: T) -> T;
}

/// A comparison that every type of numbers has.
trait Comparison {
    fn of<T: Number>(a: T, b: T) -> bool;
}

struct Add;
struct Sub;
struct Mul;
struct Div;
struct Modulo;
struct Remainder;
struct Max;
struct Min;
struct Less;
struct LessOrEqual;
struct Greater;
struct GreaterOrEqual;

macro_rules! function {
    ($($name:ident, $method:ident;)*) => {
        $(impl Function for $name {
            fn of<T: Number>(a: T, b: T) -> T { a.$method(b) }
        })*
    };
}

macro_rules! comparison {
    ($($name:ident, $method:ident;)*) => {
        $(impl Comparison for $name {
            fn of<T: Number>(a: T, b: T) -> bool { a.$method(&b) }
        })*
    };
}

function! {
    Add, add;
    Sub, sub;
    Mul, mul;
    Div, div;
    Modulo, modulo;
    Remainder, remainder;
    Max, larger;
    Min, smaller;
}

comparison! {
    Less, lt;
    LessOrEqual, le;
    Greater, gt;
    GreaterOrEqual, ge;
}

fn no_numbers(other: super::ElementType) -> super::OpError {
    super::OpError::new(format!("elements of type {other}, but numbers are needed"))
}

/// Elements of the same type as those of the first array.
fn same<T: Element>(b: &Array) -> OpResult<&[T]> {
    match b.elements() {
        Some(elements) => Ok(elements),
        None => refuse!("elements of the types {} and {}, but they should be the same", T::TYPE, b.element()),
    }
}

/// The two inputs. Before opset 7, the second one was aligned by the attributes `broadcast` and `axis`.
fn operands<'a>(call: &Call<'a>) -> OpResult<(&'a Array, std::borrow::Cow<'a, Array>)> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let aligned = match call.optional_int("axis")? {
        Some(axis) if call.opset < 7 && b.rank() < a.rank() => {
            let axis = super::call::axis(axis, a.rank())?;
            let Some(behind) = a.rank().checked_sub(axis + b.rank()) else {
                refuse!("{} dimensions at axis {axis} of {}", b.rank(), a.rank());
            };
            let dims = [b.dims(), &vec![1; behind]].concat();
            std::borrow::Cow::Owned(b.clone().with_dims(dims).expect("dimensions of 1 change no number"))
        }
        _ => std::borrow::Cow::Borrowed(b),
    };
    Ok((a, aligned))
}

fn both<F: Function>(a: &Array, b: &Array, _: F) -> OpResult<Array> {
    numbers!(a.data(), v => {
        let (dims, elements) = zip((v, a.dims()), (same(b)?, b.dims()), F::of)?;
        Ok(Array::of(dims, elements))
    }, other => Err(no_numbers(other)))
}

fn arithmetic<F: Function>(call: &Call<'_>, f: F) -> OpResult<Vec<Array>> {
    let (a, b) = operands(call)?;
    Ok(vec![both(a, &b, f)?])
}

fn div(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (a, b) = operands(call)?;
    refuse_zero(&b)?;
    Ok(vec![both(a, &b, Div)?])
}

fn refuse_zero(b: &Array) -> OpResult<()> {
    integers!(b.data(), v => {
        if v.contains(&Number::ZERO) {
            refuse!("an integer is divided by zero");
        }
        Ok(())
    }, _other => Ok(()))
}

fn modulo(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (a, b) = operands(call)?;
    refuse_zero(&b)?;
    Ok(vec![if call.flag("fmod", false)? { both(a, &b, Remainder)? } else { both(a, &b, Modulo)? }])
}

/// The exponent may be of another type than the base, whose type the result has.
fn pow(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (a, b) = operands(call)?;
    fn whole<T: Number>(x: T, exponent: i64) -> T {
        if exponent < 0 {
            return T::from_f64(x.f64().powf(exponent as f64));
        }
        let (mut result, mut base, mut exponent) = (T::from_i64(1), x, exponent);
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = result.mul(base);
            }
            base = base.mul(base);
            exponent >>= 1;
        }
        result
    }
    fn of<T: Number>(x: &[T], a: &Array, b: &Array) -> OpResult<Vec<Array>> {
        let (dims, elements) = if T::INTEGER && b.element().is_integer() {
            zip((x, a.dims()), (&super::call::integers(b)?, b.dims()), whole)?
        } else {
            zip((x, a.dims()), (&doubles(b)?, b.dims()), |x, y| T::from_f64(x.f64().powf(y)))?
        };
        Ok(vec![Array::of(dims, elements)])
    }
    numbers!(a.data(), x => of(x, a, &b), other => Err(no_numbers(other)))
}

/// The slope repeats over the input, but not the input over the slope.
fn prelu(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, slope) = (call.input(0)?, call.input(1)?);
    // Before opset 7, slopes were one for each channel.
    let slope = match slope.dims() {
        [channels] if call.opset < 7 && x.rank() > 1 && *channels == x.dims()[1] => {
            let dims = [&[*channels][..], &vec![1; x.rank() - 2]].concat();
            slope.clone().with_dims(dims).expect("dimensions of 1 change no number")
        }
        _ => slope.clone(),
    };
    let slope = expand(&slope, x.dims())?;
    numbers!(x.data(), v => {
        let f = |x, slope| if x < Number::ZERO { Number::mul(x, slope) } else { x };
        let (dims, elements) = zip((v, x.dims()), (same(&slope)?, slope.dims()), f)?;
        Ok(vec![Array::of(dims, elements)])
    }, other => Err(no_numbers(other)))
}

fn given<'a>(call: &Call<'a>) -> OpResult<Vec<&'a Array>> {
    (0..call.inputs.len()).map(|i| call.input(i)).collect()
}

fn variadic<F: Function>(call: &Call<'_>, _: F) -> OpResult<Vec<Array>> {
    let all = given(call)?;
    let Some((first, rest)) = all.split_first() else { refuse!("input 0 is missing") };
    let mut result = (*first).clone();
    for next in rest {
        result = numbers!(result.data(), v => {
            let (dims, elements) = zip((v, result.dims()), (same(next)?, next.dims()), F::of)?;
            Array::of(dims, elements)
        }, other => return Err(no_numbers(other)));
    }
    Ok(vec![result])
}

fn mean(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let sum = variadic(call, Add)?.remove(0);
    let n = call.inputs.len() as f64;
    Ok(vec![super::unary::map(&sum, |v| v / n)?])
}

fn compare<C: Comparison>(call: &Call<'_>, _: C) -> OpResult<Vec<Array>> {
    let (a, b) = operands(call)?;
    numbers!(a.data(), v => {
        let (dims, elements) = zip((v, a.dims()), (same(&b)?, b.dims()), C::of)?;
        Ok(vec![Array::of(dims, elements)])
    }, other => Err(no_numbers(other)))
}

fn equal(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (a, b) = operands(call)?;
    fn of<T: Element>(v: &[T], a: &Array, b: &Array) -> OpResult<Vec<Array>> {
        let (dims, elements) = zip((v, a.dims()), (same::<T>(b)?, b.dims()), |a, b| a == b)?;
        Ok(vec![Array::of(dims, elements)])
    }
    each!(a.data(), v => of(v, a, &b))
}

fn logic(call: &Call<'_>, f: impl Fn(bool, bool) -> bool) -> OpResult<Vec<Array>> {
    let (a, b) = operands(call)?;
    let (dims, elements) = zip((call.elements(0)?, a.dims()), (same(&b)?, b.dims()), f)?;
    Ok(vec![Array::of(dims, elements)])
}

/// Bits of any integer, as those of a 64-bit one.
fn bits(call: &Call<'_>, f: impl Fn(i64, i64) -> i64) -> OpResult<Vec<Array>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    fn of<T: Number>(v: &[T], a: &Array, b: &Array, f: impl Fn(i64, i64) -> i64) -> OpResult<Vec<Array>> {
        let f = |a: T, b: T| T::from_i64(f(a.i64(), b.i64()));
        let (dims, elements) = zip((v, a.dims()), (same(b)?, b.dims()), f)?;
        Ok(vec![Array::of(dims, elements)])
    }
    integers!(a.data(), v => of(v, a, b, f), other => refuse!("elements of type {other}, but integers are needed"))
}

fn bit_shift(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let left = match call.text("direction", "")? {
        "LEFT" => true,
        "RIGHT" => false,
        other => refuse!("direction is {other:?}, but it can be LEFT or RIGHT"),
    };
    let shift = |a: i64, by: i64| match u32::try_from(by) {
        Ok(by) if left => (a as u64).checked_shl(by).unwrap_or(0) as i64,
        Ok(by) => (a as u64).checked_shr(by).unwrap_or(0) as i64,
        Err(_) => 0,
    };
    if !matches!(call.input(0)?.data(), Data::U8(_) | Data::U16(_) | Data::U32(_) | Data::U64(_)) {
        refuse!("elements of type {}, but unsigned integers are needed", call.input(0)?.element());
    }
    bits(call, shift)
}

/// `condition ? x : y`
fn select(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (condition, x, y) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let dims = broadcast_all([condition, x, y])?;
    let chosen = View::of(condition.dims()).broadcast(&dims)?.copy(call.elements::<bool>(0)?)?;
    let (x, y) = (expand(x, &dims)?, expand(y, &dims)?);
    fn of<T: Element>(v: &[T], y: &Array, chosen: &[bool]) -> OpResult<Vec<Array>> {
        let pairs = v.iter().zip(same::<T>(y)?);
        let elements = chosen.iter().zip(pairs).map(|(&c, (x, y))| if c { x.clone() } else { y.clone() }).collect();
        Ok(vec![Array::of(y.dims(), elements)])
    }
    each!(x.data(), v => of(v, &y, &chosen))
}
