//! Quantised operators: integers with a scale and a zero point.

use super::call::axis;
use super::conv::Problem;
use super::doubles::{doubles, rounded};
use super::error::{OpResult, refuse};
use super::matrix::matmul;
use super::view::around;
use super::window::{spatial, windows};
use super::{Array, Call, ElementType, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("QuantizeLinear", quantize),
    Operator::new("DequantizeLinear", dequantize),
    Operator::new("DynamicQuantizeLinear", dynamic),
    Operator::new("ConvInteger", conv_integer),
    Operator::new("QLinearConv", qlinear_conv),
    Operator::new("MatMulInteger", matmul_integer),
    Operator::new("QLinearMatMul", qlinear_matmul),
];

/// For each element of `x`: which scale is its own. One scale is for all; a vector goes along an axis; blocks of an axis have
/// scales of their own.
fn which(call: &Call<'_>, x: &Array, scale: &Array) -> OpResult<Vec<usize>> {
    if scale.len() == 1 {
        return Ok(vec![0; x.len()]);
    }
    let at = axis(call.int("axis", 1)?, x.rank())?;
    let [_, len, inner] = around(x.dims(), at);
    let block = call.int("block_size", 0)?;
    if block == 0 {
        if scale.dims() != [len] {
            refuse!("scales {:?} for axis {at} of {:?}", scale.dims(), x.dims());
        }
        return Ok((0..x.len()).map(|p| p / inner % len).collect());
    }
    let block = usize::try_from(block).unwrap_or(usize::MAX);
    let mut dims = x.dims().to_vec();
    dims[at] = len.div_ceil(block);
    if scale.dims() != dims {
        refuse!("scales {:?}, but {dims:?} are needed", scale.dims());
    }
    let blocks = dims[at];
    Ok((0..x.len()).map(|p| (p / (len * inner) * blocks + p / inner % len / block) * inner + p % inner).collect())
}

fn range(element: ElementType) -> OpResult<[f64; 2]> {
    Ok(match element {
        ElementType::U8 => [0.0, 255.0],
        ElementType::I8 => [-128.0, 127.0],
        ElementType::U16 => [0.0, 65535.0],
        ElementType::I16 => [-32768.0, 32767.0],
        ElementType::I32 => [f64::from(i32::MIN), f64::from(i32::MAX)],
        other => refuse!("elements of type {other} are not quantised"),
    })
}

/// Zero points, as many as there are scales.
fn zeros(zero: Option<&Array>, scales: usize) -> OpResult<Vec<f64>> {
    match zero.map(doubles).transpose()? {
        None => Ok(vec![0.0; scales]),
        Some(zero) if zero.len() == scales => Ok(zero),
        Some(zero) if zero.len() == 1 => Ok(vec![zero[0]; scales]),
        Some(zero) => refuse!("{} zero points for {scales} scales", zero.len()),
    }
}

fn quantize(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, scale, zero) = (call.input(0)?, call.input(1)?, call.optional(2));
    let element = match (zero, call.int("output_dtype", 0)?) {
        (Some(zero), _) => zero.element(),
        (None, 0) => ElementType::U8,
        (None, code) => match ElementType::from_code(code) {
            Some(element) => element,
            None => refuse!("elements of type number {code}, which this crate lacks"),
        },
    };
    let which = which(call, x, scale)?;
    let (scales, zeros) = (doubles(scale)?, zeros(zero, scale.len())?);
    let [low, high] = range(element)?;
    // The quotient rounds to the type of the scale first, as everywhere where this operator is computed in floats.
    let v = doubles(x)?;
    let quotients = v.iter().zip(&which).map(|(v, &i)| v / scales[i]).collect();
    let quotients = doubles(&rounded(x.dims(), quotients, scale.element())?)?;
    let y = quotients.iter().zip(&which).map(|(q, &i)| (q.round_ties_even() + zeros[i]).clamp(low, high));
    Ok(vec![rounded(x.dims(), y.collect(), element)?])
}

fn dequantize(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let which = which(call, x, scale)?;
    let (scales, zeros) = (doubles(scale)?, zeros(call.optional(2), scale.len())?);
    let element = match call.int("output_dtype", 0)? {
        0 => scale.element(),
        code => match ElementType::from_code(code) {
            Some(element) => element,
            None => refuse!("elements of type number {code}, which this crate lacks"),
        },
    };
    let v = doubles(x)?;
    let y = v.iter().zip(&which).map(|(v, &i)| (v - zeros[i]) * scales[i]);
    Ok(vec![rounded(x.dims(), y.collect(), element)?])
}

/// Scale and zero point of the range that the elements have.
fn dynamic(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let Some(v) = x.elements::<f32>() else { refuse!("elements of type {}, but floats are needed", x.element()) };
    let high = v.iter().copied().fold(0.0, f32::max);
    let low = v.iter().copied().fold(0.0, f32::min);
    let scale = if high == low { 1.0 } else { (high - low) / 255.0 };
    let zero = (-low / scale).round_ties_even().clamp(0.0, 255.0);
    let y = v.iter().map(|v| ((v / scale).round_ties_even() + zero).clamp(0.0, 255.0) as u8).collect();
    Ok(vec![Array::of(x.dims(), y), Array::scalar(scale), Array::scalar(zero as u8)])
}

/// Elements without their zero point: one for all, or one for each element of the axis.
fn centred(x: &Array, zero: Option<&Array>, at: usize) -> OpResult<Vec<f64>> {
    let mut v = doubles(x)?;
    let Some(zero) = zero else { return Ok(v) };
    let zeros = doubles(zero)?;
    let [_, len, inner] = if x.rank() == 0 { [1, 1, 1] } else { around(x.dims(), at) };
    match zeros[..] {
        [zero] => v.iter_mut().for_each(|v| *v -= zero),
        _ if zeros.len() == len => v.iter_mut().enumerate().for_each(|(p, v)| *v -= zeros[p / inner % len]),
        _ => refuse!("{} zero points for {:?}", zeros.len(), x.dims()),
    }
    Ok(v)
}

/// The exact sums of a convolution of integers without their zero points.
fn conv_sums(call: &Call<'_>, [x, w]: [&Array; 2], zeros: [Option<&Array>; 2]) -> OpResult<(Vec<usize>, Vec<f64>)> {
    let kernel = w.dims().get(2..).unwrap_or_default();
    let axes = windows(call, spatial(x)?, kernel, false)?;
    let problem = Problem::new(call, x, w, &axes)?;
    let sums = problem.run(&centred(x, zeros[0], 1)?, &centred(w, zeros[1], 0)?)?;
    Ok((problem.output_dims(), sums))
}

fn conv_integer(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let zeros = [call.optional(2), call.optional(3)];
    let (dims, sums) = conv_sums(call, [call.input(0)?, call.input(1)?], zeros)?;
    Ok(vec![rounded(dims, sums, ElementType::I32)?])
}

fn single(x: &Array) -> OpResult<f64> {
    match doubles(x)?[..] {
        [value] => Ok(value),
        ref more => refuse!("{} elements, but one is needed", more.len()),
    }
}

fn qlinear_conv(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, w, zero) = (call.input(0)?, call.input(3)?, call.input(7)?);
    let (dims, mut sums) = conv_sums(call, [x, w], [call.optional(2), call.optional(5)])?;
    let size = dims[2..].iter().product::<usize>().max(1);
    if let Some(bias) = call.optional(8) {
        let bias = doubles(bias)?;
        if bias.len() != dims[1] {
            refuse!("{} biases for {} channels", bias.len(), dims[1]);
        }
        sums.iter_mut().enumerate().for_each(|(p, v)| *v += bias[p / size % dims[1]]);
    }
    let (x_scale, y_scale, w_scale) = (single(call.input(1)?)?, single(call.input(6)?)?, doubles(call.input(4)?)?);
    if w_scale.len() != 1 && w_scale.len() != dims[1] {
        refuse!("{} scales for {} channels", w_scale.len(), dims[1]);
    }
    let (zero_point, [low, high]) = (single(zero)?, range(zero.element())?);
    let y = sums.iter().enumerate().map(|(p, v)| {
        let w_scale = if w_scale.len() == 1 { w_scale[0] } else { w_scale[p / size % dims[1]] };
        ((v * x_scale * w_scale / y_scale).round_ties_even() + zero_point).clamp(low, high)
    });
    let y = y.collect();
    Ok(vec![rounded(dims, y, zero.element())?])
}

/// Zero points of rows of the left matrix, or of columns of the right one.
fn product(a: &Array, b: &Array, a_zero: Option<&Array>, b_zero: Option<&Array>) -> OpResult<Array> {
    let flat = |zero: Option<&Array>| zero.map(|z| z.clone().with_dims([z.len()]).expect("the same number"));
    let a = Array::of(a.dims(), centred(a, flat(a_zero).as_ref(), a.rank().saturating_sub(2))?);
    let b = Array::of(b.dims(), centred(b, flat(b_zero).as_ref(), b.rank().saturating_sub(1))?);
    matmul(&a, &b)
}

fn matmul_integer(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let sums = product(call.input(0)?, call.input(1)?, call.optional(2), call.optional(3))?;
    Ok(vec![super::cast(&sums, ElementType::I32)?])
}

fn qlinear_matmul(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (a, b, zero) = (call.input(0)?, call.input(3)?, call.input(7)?);
    let sums = product(a, b, call.optional(2), call.optional(5))?;
    let scale = single(call.input(1)?)? * single(call.input(4)?)? / single(call.input(6)?)?;
    let (zero_point, [low, high]) = (single(zero)?, range(zero.element())?);
    let y = doubles(&sums)?.iter().map(|v| ((v * scale).round_ties_even() + zero_point).clamp(low, high)).collect();
    Ok(vec![rounded(sums.dims(), y, zero.element())?])
}
