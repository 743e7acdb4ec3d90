//! Operators along axes: reductions, running sums, softmax.

use super::call::{axes, axis};
use super::doubles::{doubles, rounded};
use super::error::{OpResult, refuse};
use super::number::{Arithmetic, Number, floats};
use super::view::{View, around};
use super::wide::{Domain, Wide, wide};
use super::{Array, Call, Data, ElementType, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("ReduceSum", |call| reduce(call, Kind::Sum)),
    Operator::new("ReduceMean", |call| reduce(call, Kind::Mean)),
    Operator::new("ReduceProd", |call| reduce(call, Kind::Prod)),
    Operator::new("ReduceMax", |call| reduce(call, Kind::Max)),
    Operator::new("ReduceMin", |call| reduce(call, Kind::Min)),
    Operator::new("ReduceL1", |call| reduce(call, Kind::L1)),
    Operator::new("ReduceL2", |call| reduce(call, Kind::L2)),
    Operator::new("ReduceSumSquare", |call| reduce(call, Kind::SumSquare)),
    Operator::new("ReduceLogSum", |call| reduce(call, Kind::LogSum)),
    Operator::new("ReduceLogSumExp", |call| reduce(call, Kind::LogSumExp)),
    Operator::new("ArgMax", |call| arg(call, true)),
    Operator::new("ArgMin", |call| arg(call, false)),
    Operator::new("CumSum", |call| cumulate(call, Cumulate { sum: true })),
    Operator::new("CumProd", |call| cumulate(call, Cumulate { sum: false })),
    Operator::new("Softmax", |call| softmax(call, softmax_of)),
    Operator::new("LogSoftmax", |call| softmax(call, log_softmax_of)),
    Operator::new("Hardmax", |call| softmax(call, hardmax_of)),
    Operator::new("LpNormalization", lp_normalization),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sum,
    Mean,
    Prod,
    Max,
    Min,
    L1,
    L2,
    SumSquare,
    LogSum,
    LogSumExp,
}

/// The elements with the axes that are reduced last, the dimensions that stay, and the number of elements of each result.
struct Rows {
    view: View,
    kept: Vec<usize>,
    len: usize,
}

/// All axes are reduced where none are named.
fn rows(call: &Call<'_>, x: &[usize]) -> OpResult<Option<Rows>> {
    let named = call.input_or_ints(1, "axes")?.unwrap_or_default();
    if named.is_empty() && call.flag("noop_with_empty_axes", false)? {
        return Ok(None);
    }
    let all: Vec<usize> = if named.is_empty() { (0..x.len()).collect() } else { axes(&named, x.len())? };
    let stay: Vec<usize> = (0..x.len()).filter(|i| !all.contains(i)).collect();
    let keep = call.flag("keepdims", true)?;
    let dims = x.iter().enumerate();
    let kept = dims.filter_map(|(i, &d)| if all.contains(&i) { keep.then_some(1) } else { Some(d) }).collect();
    let len = all.iter().map(|&i| x[i]).product();
    let view = View::of(x).permute(&[stay, all].concat());
    Ok(Some(Rows { view, kept, len }))
}

/// Dimensions of what a reduction makes of elements of a type.
pub(super) fn reduced_dims(name: &str, call: &Call<'_>, x: &[usize], element: ElementType) -> OpResult<Vec<usize>> {
    let Some(rows) = rows(call, x)? else { return Ok(x.to_vec()) };
    if element != ElementType::Bool || !matches!(name, "ReduceMax" | "ReduceMin") {
        Domain::of(element)?;
    }
    Ok(rows.kept)
}

fn reduce(call: &Call<'_>, kind: Kind) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let Some(rows) = rows(call, x.dims())? else { return Ok(vec![each_alone(x, kind)?]) };
    let count: usize = rows.kept.iter().product();
    if let Data::Bool(v) = x.data() {
        let v = rows.view.copy(v)?;
        let row = |i: usize| v[i * rows.len..][..rows.len].iter();
        let of = |i: usize| match kind {
            Kind::Max => row(i).any(|&v| v),
            _ => row(i).all(|&v| v),
        };
        return match kind {
            Kind::Max | Kind::Min => Ok(vec![Array::of(rows.kept.clone(), (0..count).map(of).collect())]),
            _ => refuse!("truth values have no sum"),
        };
    }
    Domain::of(x.element())?;
    Ok(vec![reduced(&rows.view.array(x)?, rows.len, rows.kept, kind)?])
}

/// No axes at all: each element is a result.
fn each_alone(x: &Array, kind: Kind) -> OpResult<Array> {
    if Domain::of(x.element()).is_err() {
        return Ok(x.clone());
    }
    reduced(x, 1, x.dims().to_vec(), kind)
}

/// Rows of so many elements to one each: integers exactly where the result is a sum, a product or one of them, else in double
/// precision.
fn reduced(x: &Array, len: usize, dims: Vec<usize>, kind: Kind) -> OpResult<Array> {
    fn each<W: Copy>(v: &[W], len: usize, dims: &[usize], of: impl Fn(&[W]) -> W) -> Vec<W> {
        (0..dims.iter().product()).map(|i| of(&v[i * len..][..len])).collect()
    }
    let exact = match kind {
        Kind::Sum | Kind::Prod | Kind::L1 | Kind::SumSquare => true,
        // Of nothing, the largest or smallest value is what infinity saturates to.
        Kind::Max | Kind::Min => len > 0,
        _ => false,
    };
    let domain = if x.element().is_integer() && exact { Domain::of(x.element())? } else { Domain::F64 };
    let results = match Wide::of(x, domain)? {
        Wide::I64(v) => Wide::I64(each(&v, len, &dims, |row| whole(row, kind))),
        Wide::U64(v) => Wide::U64(each(&v, len, &dims, |row| whole(row, kind))),
        Wide::F64(v) => Wide::F64(each(&v, len, &dims, |row| one(row, kind))),
        Wide::F32(_) => unreachable!("floats are reduced in double precision"),
    };
    results.array(dims, x.element())
}

/// Integers to one, exactly.
fn whole<W: Arithmetic>(v: &[W], kind: Kind) -> W {
    match kind {
        Kind::Prod => v.iter().fold(W::ONE, |a, &b| a.mul(b)),
        Kind::L1 => v.iter().fold(W::ZERO, |a, &b| a.add(b.abs())),
        Kind::SumSquare => v.iter().fold(W::ZERO, |a, &b| a.add(b.mul(b))),
        Kind::Max => v.iter().copied().reduce(W::larger).unwrap_or(W::ZERO),
        Kind::Min => v.iter().copied().reduce(W::smaller).unwrap_or(W::ZERO),
        _ => v.iter().fold(W::ZERO, |a, &b| a.add(b)),
    }
}

/// Doubles to one. Of nothing, the largest or smallest is the value that every other one replaces.
fn one(v: &[f64], kind: Kind) -> f64 {
    let sum = |f: fn(f64) -> f64| v.iter().map(|&v| f(v)).sum::<f64>();
    match kind {
        Kind::Max => v.iter().copied().reduce(Arithmetic::larger).unwrap_or(f64::NEG_INFINITY),
        Kind::Min => v.iter().copied().reduce(Arithmetic::smaller).unwrap_or(f64::INFINITY),
        Kind::Sum => sum(|v| v),
        Kind::Mean => sum(|v| v) / v.len() as f64,
        Kind::Prod => v.iter().product(),
        Kind::L1 => sum(f64::abs),
        Kind::L2 => sum(|v| v * v).sqrt(),
        Kind::SumSquare => sum(|v| v * v),
        Kind::LogSum => sum(|v| v).ln(),
        Kind::LogSumExp => {
            let most = v.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if most.is_infinite() { most } else { most + v.iter().map(|&v| (v - most).exp()).sum::<f64>().ln() }
        }
    }
}

fn arg(call: &Call<'_>, largest: bool) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let at = axis(call.int("axis", 0)?, x.rank())?;
    let last = call.flag("select_last_index", false)?;
    let [outer, len, inner] = around(x.dims(), at);
    if len == 0 {
        refuse!("axis {at} of {:?} has no elements", x.dims());
    }
    fn of<W: Arithmetic>(v: impl Iterator<Item = W>, largest: bool, last: bool) -> i64 {
        let mut best: Option<(usize, W)> = None;
        for (i, v) in v.enumerate() {
            let better = match best {
                None => true,
                Some((_, b)) => {
                    (if largest { v > b } else { v < b }) || (last && v == b) || (v.is_nan() && !b.is_nan())
                }
            };
            if better {
                best = Some((i, v));
            }
        }
        best.map_or(0, |(i, _)| i as i64)
    }
    let mut dims = x.dims().to_vec();
    if call.flag("keepdims", true)? {
        dims[at] = 1;
    } else {
        dims.remove(at);
    }
    let numbers = Wide::of(x, Domain::of(x.element())?)?;
    let found = |p: usize| {
        let (o, i) = (p / inner, p % inner);
        let places = (0..len).map(|j| (o * len + j) * inner + i);
        wide!(&numbers, v => of(places.map(|place| v[place]), largest, last))
    };
    let found = (0..outer * inner).map(found).collect();
    Ok(vec![Array::of(dims, found)])
}

struct Cumulate {
    sum: bool,
}

fn cumulate(call: &Call<'_>, how: Cumulate) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let Some([at]) = call.integers(1)?.as_deref().map(<[i64; 1]>::try_from).and_then(Result::ok) else {
        refuse!("the axis is not one integer");
    };
    let from = around(x.dims(), axis(at, x.rank())?);
    let (exclusive, reverse) = (call.flag("exclusive", false)?, call.flag("reverse", false)?);
    // Floats round after each step, in their own type.
    fn of<T: Number>(v: &[T], [outer, len, inner]: [usize; 3], sum: bool, exclusive: bool, reverse: bool) -> Vec<T> {
        let mut to = v.to_vec();
        for p in 0..outer * inner {
            let (o, i) = (p / inner, p % inner);
            let mut total = if sum { T::Wide::ZERO } else { T::Wide::ONE };
            for j in 0..len {
                let j = if reverse { len - 1 - j } else { j };
                let place = (o * len + j) * inner + i;
                let element = v[place].wide();
                let next = T::narrow(if sum { total.add(element) } else { total.mul(element) });
                to[place] = if exclusive { T::narrow(total) } else { next };
                total = next.wide();
            }
        }
        to
    }
    if x.element().is_integer() {
        let Wide::I64(v) = Wide::of(x, Domain::I64)? else { unreachable!("integers are asked for") };
        return Ok(vec![Wide::I64(of(&v, from, how.sum, exclusive, reverse)).array(x.dims(), x.element())?]);
    }
    Ok(vec![floats!(x.data(), v => Array::of(x.dims(), of(v, from, how.sum, exclusive, reverse)),
        other => refuse!("elements of type {other}, but numbers are needed"))])
}

/// Along one axis since opset 13; before, over all dimensions from the axis on.
fn softmax(call: &Call<'_>, f: fn(&[f64]) -> Vec<f64>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let one_axis = call.opset >= 13;
    let at = call.int("axis", if one_axis { -1 } else { 1 })?;
    let [outer, len, inner] = if one_axis {
        around(x.dims(), axis(at, x.rank())?)
    } else {
        let at = if at == x.rank() as i64 { x.rank() } else { axis(at, x.rank())? };
        [x.dims()[..at].iter().product(), x.dims()[at..].iter().product(), 1]
    };
    let v = doubles(x)?;
    let mut to = vec![0.0; v.len()];
    for p in 0..outer * inner {
        let place = |j: usize| (p / inner * len + j) * inner + p % inner;
        let row: Vec<f64> = (0..len).map(|j| v[place(j)]).collect();
        f(&row).into_iter().enumerate().for_each(|(j, v)| to[place(j)] = v);
    }
    Ok(vec![rounded(x.dims(), to, x.element())?])
}

pub(super) fn softmax_of(row: &[f64]) -> Vec<f64> {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exp: Vec<f64> = row.iter().map(|v| (v - most).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|v| v / sum).collect()
}

pub(super) fn log_softmax_of(row: &[f64]) -> Vec<f64> {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = most + row.iter().map(|v| (v - most).exp()).sum::<f64>().ln();
    row.iter().map(|v| v - log_sum).collect()
}

fn hardmax_of(row: &[f64]) -> Vec<f64> {
    let best = (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
    (0..row.len()).map(|i| f64::from(u8::from(i == best))).collect()
}

fn lp_normalization(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let [outer, len, inner] = around(x.dims(), axis(call.int("axis", -1)?, x.rank())?);
    let p = call.int("p", 2)?;
    if !(1..=2).contains(&p) {
        refuse!("p is {p}, but it can be 1 or 2");
    }
    let mut v = doubles(x)?;
    for q in 0..outer * inner {
        let place = |j: usize| (q / inner * len + j) * inner + q % inner;
        let sum: f64 = (0..len).map(|j| v[place(j)]).map(|v| if p == 1 { v.abs() } else { v * v }).sum();
        let norm = if p == 1 { sum } else { sum.sqrt() };
        (0..len).for_each(|j| v[place(j)] = if norm == 0.0 { 0.0 } else { v[place(j)] / norm });
    }
    Ok(vec![rounded(x.dims(), v, x.element())?])
}
