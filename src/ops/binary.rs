//! Functions of two or more arrays, element by element, with NumPy's broadcasting.

use super::array::{Bits, Moved, moves};
use super::error::{OpResult, refuse};
use super::number::Arithmetic;
use super::view::{View, broadcast_all, expand};
use super::wide::{Binary, Domain, Wide, binary, zip};
use super::{Array, Call, Data, ElementType, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("Add", |call| arithmetic(call, &ADD)),
    Operator::new("Sub", |call| arithmetic(call, &SUB)),
    Operator::new("Mul", |call| arithmetic(call, &MUL)),
    Operator::new("Div", div),
    Operator::new("Mod", modulo),
    Operator::new("Pow", pow),
    Operator::new("PRelu", prelu),
    Operator::new("Max", |call| variadic(call, &MAX)),
    Operator::new("Min", |call| variadic(call, &MIN)),
    Operator::new("Sum", |call| variadic(call, &ADD)),
    Operator::new("Mean", mean),
    Operator::new("Equal", equal),
    Operator::new("Less", |call| compare(call, &LESS)),
    Operator::new("LessOrEqual", |call| compare(call, &LESS_OR_EQUAL)),
    Operator::new("Greater", |call| compare(call, &GREATER)),
    Operator::new("GreaterOrEqual", |call| compare(call, &GREATER_OR_EQUAL)),
    Operator::new("And", |call| logic(call, &|a, b| a & b)),
    Operator::new("Or", |call| logic(call, &|a, b| a | b)),
    Operator::new("Xor", |call| logic(call, &|a, b| a ^ b)),
    Operator::new("BitwiseAnd", |call| bits(call, &|a, b| a & b)),
    Operator::new("BitwiseOr", |call| bits(call, &|a, b| a | b)),
    Operator::new("BitwiseXor", |call| bits(call, &|a, b| a ^ b)),
    Operator::new("BitShift", bit_shift),
    Operator::new("Where", select),
];

const ADD: Binary = binary!(|a, b| a.add(b));
const SUB: Binary = binary!(|a, b| a.sub(b));
const MUL: Binary = binary!(|a, b| a.mul(b));
const DIV: Binary = binary!(|a, b| a.div(b));
const MODULO: Binary = binary!(|a, b| a.modulo(b));
const REMAINDER: Binary = binary!(|a, b| a.remainder(b));
const MAX: Binary = binary!(|a, b| a.larger(b));
const MIN: Binary = binary!(|a, b| a.smaller(b));
const EQUAL: Binary = binary!(|a, b| Arithmetic::truth(a == b));
const LESS: Binary = binary!(|a, b| Arithmetic::truth(a < b));
const LESS_OR_EQUAL: Binary = binary!(|a, b| Arithmetic::truth(a <= b));
const GREATER: Binary = binary!(|a, b| Arithmetic::truth(a > b));
const GREATER_OR_EQUAL: Binary = binary!(|a, b| Arithmetic::truth(a >= b));
const PRELU: Binary = binary!(|x, slope| if x < Arithmetic::ZERO { x.mul(slope) } else { x });

/// Elements of the same type as those of the first array.
fn same(element: ElementType, b: &Array) -> OpResult<()> {
    if b.element() != element {
        refuse!("elements of the types {element} and {}, but they should be the same", b.element());
    }
    Ok(())
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

/// A function of numbers of one type, as elements of that type or another one.
fn both(a: &Array, b: &Array, to: Option<ElementType>, f: &Binary) -> OpResult<Array> {
    let domain = Domain::of(a.element())?;
    same(a.element(), b)?;
    zip(a, b, domain, to.unwrap_or(a.element()), &|a, b| f.run(a, b))
}

fn arithmetic(call: &Call<'_>, f: &Binary) -> OpResult<Vec<Array>> {
    let (a, b) = operands(call)?;
    Ok(vec![both(a, &b, None, f)?])
}

fn div(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (a, b) = operands(call)?;
    refuse_zero(&b)?;
    Ok(vec![both(a, &b, None, &DIV)?])
}

fn refuse_zero(b: &Array) -> OpResult<()> {
    if b.element().is_integer() && super::call::integers(b)?.contains(&0) {
        refuse!("an integer is divided by zero");
    }
    Ok(())
}

fn modulo(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (a, b) = operands(call)?;
    refuse_zero(&b)?;
    let f = if call.flag("fmod", false)? { &REMAINDER } else { &MODULO };
    Ok(vec![both(a, &b, None, f)?])
}

/// The exponent may be of another type than the base, whose type the result has.
fn pow(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (a, b) = operands(call)?;
    Domain::of(a.element())?;
    if !a.element().is_integer() || !b.element().is_integer() {
        Domain::of(b.element())?;
        let powers = |x: &mut Wide, y: &Wide| {
            if let Wide::F64(y) = y {
                x.doubles().iter_mut().zip(y).for_each(|(x, &y)| *x = x.powf(y));
            }
        };
        return Ok(vec![zip(a, &b, Domain::F64, a.element(), &powers)?]);
    }
    let inverse = inverse_power(a.element());
    let powers = |x: &mut Wide, y: &Wide| {
        if let Wide::I64(y) = y {
            x.integers().iter_mut().zip(y).for_each(|(x, &y)| *x = if y < 0 { inverse(*x, y) } else { power(*x, y) });
        }
    };
    Ok(vec![zip(a, &b, Domain::I64, a.element(), &powers)?])
}

/// A power of an integer, which wraps.
fn power(x: i64, exponent: i64) -> i64 {
    let (mut result, mut base, mut exponent) = (1i64, x, exponent);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        exponent >>= 1;
    }
    result
}

/// The power of an integer of this type to a negative exponent. That of zero is the largest integer.
fn inverse_power(element: ElementType) -> fn(i64, i64) -> i64 {
    macro_rules! of {
        ($($name:ident $t:ty),*) => {
            match element {
                $(ElementType::$name => |x, exponent| (x as $t as f64).powf(exponent as f64) as $t as i64,)*
                _ => |x, _| x,
            }
        };
    }
    of!(I8 i8, I16 i16, I32 i32, I64 i64, U8 u8, U16 u16, U32 u32, U64 u64)
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
    Ok(vec![both(x, &slope, None, &PRELU)?])
}

fn given<'a>(call: &Call<'a>) -> OpResult<Vec<&'a Array>> {
    (0..call.inputs.len()).map(|i| call.input(i)).collect()
}

fn variadic(call: &Call<'_>, f: &Binary) -> OpResult<Vec<Array>> {
    let all = given(call)?;
    let Some((first, rest)) = all.split_first() else { refuse!("input 0 is missing") };
    let mut result = (*first).clone();
    for next in rest {
        result = both(&result, next, None, f)?;
    }
    Ok(vec![result])
}

fn mean(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let sum = variadic(call, &ADD)?.remove(0);
    let n = call.inputs.len() as f64;
    Ok(vec![super::unary::map(&sum, |v| v / n)?])
}

fn compare(call: &Call<'_>, f: &Binary) -> OpResult<Vec<Array>> {
    let (a, b) = operands(call)?;
    Ok(vec![both(a, &b, Some(ElementType::Bool), f)?])
}

fn equal(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (a, b) = operands(call)?;
    match (a.data(), a.element()) {
        (Data::Str(v), element) => {
            same(element, &b)?;
            let dims = broadcast_all([a, &*b])?;
            let b = expand(&b, &dims)?;
            let (v, other) =
                (View::of(a.dims()).broadcast(&dims)?.copy(v)?, b.elements::<String>().unwrap_or_default());
            Ok(vec![Array::of(dims, v.iter().zip(other).map(|(a, b)| a == b).collect())])
        }
        (Data::Bool(_), element) => {
            same(element, &b)?;
            Ok(vec![zip(a, &b, Domain::I64, element, &|a, b| EQUAL.run(a, b))?])
        }
        _ => compare(call, &EQUAL),
    }
}

fn logic(call: &Call<'_>, f: &dyn Fn(i64, i64) -> i64) -> OpResult<Vec<Array>> {
    let (a, b) = operands(call)?;
    call.elements::<bool>(0)?;
    Ok(vec![of_bits(a, &b, f)?])
}

/// Bits of any integer, as those of a 64-bit one.
fn bits(call: &Call<'_>, f: &dyn Fn(i64, i64) -> i64) -> OpResult<Vec<Array>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    if !a.element().is_integer() {
        refuse!("elements of type {}, but integers are needed", a.element());
    }
    Ok(vec![of_bits(a, b, f)?])
}

fn of_bits(a: &Array, b: &Array, f: &dyn Fn(i64, i64) -> i64) -> OpResult<Array> {
    same(a.element(), b)?;
    zip(a, b, Domain::I64, a.element(), &|a, b| {
        if let Wide::I64(b) = b {
            a.integers().iter_mut().zip(b).for_each(|(a, &b)| *a = f(*a, b));
        }
    })
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
    bits(call, &shift)
}

/// `condition ? x : y`
fn select(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (condition, x, y) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let dims = broadcast_all([condition, x, y])?;
    let chosen = View::of(condition.dims()).broadcast(&dims)?.copy(call.elements::<bool>(0)?)?;
    let (x, y) = (expand(x, &dims)?, expand(y, &dims)?);
    same(x.element(), &y)?;
    fn of<T: Moved>(x: &[T], y: Bits<'_>, chosen: &[bool]) -> Vec<T> {
        let pairs = x.iter().zip(T::of(y).unwrap_or_default());
        chosen.iter().zip(pairs).map(|(&c, (x, y))| if c { x.clone() } else { y.clone() }).collect()
    }
    Ok(vec![moves!(x.data(), v => (dims, of(v, y.data().bits(), &chosen)))])
}
