//! Operators that read or write elements by index.

use std::cmp::Ordering;

use super::array::{Bits, Moved, moves};
use super::call::{axis, dims, integers};
use super::error::{OpResult, refuse};
use super::number::{Arithmetic, Number, numbers};
use super::room::{checked_count, filled, room};
use super::view::{View, around, contiguous, take};
use super::wide::{Domain, Wide, wide};
use super::{Array, Call, Data, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("Gather", gather),
    Operator::new("GatherElements", gather_elements),
    Operator::new("GatherND", gather_nd),
    Operator::new("Scatter", scatter_elements),
    Operator::new("ScatterElements", scatter_elements),
    Operator::new("ScatterND", scatter_nd),
    Operator::new("OneHot", one_hot),
    Operator::new("NonZero", non_zero),
    Operator::new("Compress", compress),
    Operator::new("TopK", top_k),
    Operator::new("Unique", unique),
    Operator::new("TensorScatter", tensor_scatter),
];

/// An index counted from the front: negative ones count from the back.
fn index(i: i64, len: usize) -> OpResult<usize> {
    let from_front = if i < 0 { i.saturating_add(len as i64) } else { i };
    match usize::try_from(from_front) {
        Ok(found) if found < len => Ok(found),
        _ => refuse!("index {i}, but there are {len} elements"),
    }
}

fn gather(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, i) = (call.input(0)?, call.input(1)?);
    let at = axis(call.int("axis", 0)?, x.rank())?;
    let len = x.dims()[at];
    let indices = integers(i)?.into_iter().map(|i| index(i, len)).collect::<OpResult<Vec<_>>>()?;
    let dims = [&x.dims()[..at], i.dims(), &x.dims()[at + 1..]].concat();
    checked_count(&dims)?;
    Ok(vec![moves!(x.data(), v => (dims, take(v, around(x.dims(), at), &indices)?))])
}

/// For each element of `indices`: its place there with the index along the axis, as a place in `dims`.
fn places(dims: &[usize], indices: &Array, at: usize) -> OpResult<Vec<usize>> {
    let fits = indices.rank() == dims.len()
        && dims.iter().zip(indices.dims()).enumerate().all(|(i, (&d, &n))| i == at || n <= d);
    if !fits {
        refuse!("indices of {:?} for {dims:?} along axis {at}", indices.dims());
    }
    let strides = contiguous(dims);
    let mut view = View { offset: 0, dims: indices.dims().to_vec(), strides: strides.clone() };
    view.strides[at] = 0;
    let mut bases = Vec::with_capacity(indices.len());
    view.rows(&mut |start, stride, len| bases.extend((0..len as isize).map(|i| start + i * stride)));
    let along = integers(indices)?;
    let all = bases.iter().zip(along);
    all.map(|(&base, i)| Ok((base + index(i, dims[at])? as isize * strides[at]) as usize)).collect()
}

fn gather_elements(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, i) = (call.input(0)?, call.input(1)?);
    let places = places(x.dims(), i, axis(call.int("axis", 0)?, x.rank())?)?;
    Ok(vec![moves!(x.data(), v => (i.dims().to_vec(), take(v, [1, v.len(), 1], &places)?))])
}

/// For each index tuple of `indices` behind `batch` dimensions: where its elements start, and their number.
fn tuples(dims: &[usize], indices: &Array, batch: usize) -> OpResult<(Vec<usize>, usize)> {
    let Some((&k, lead)) = indices.dims().split_last() else { refuse!("indices without dimensions") };
    if batch > lead.len() || batch + k > dims.len() || lead[..batch] != dims[..batch] {
        refuse!("indices of {:?} for {dims:?} with {batch} batch dimensions", indices.dims());
    }
    let strides = contiguous(dims);
    let size: usize = dims[batch + k..].iter().product();
    let per_batch: usize = lead[batch..].iter().product();
    let batch_size: usize = dims[batch..].iter().product();
    let all = integers(indices)?;
    let tuples = lead.iter().product::<usize>();
    let mut starts = Vec::with_capacity(tuples);
    for t in 0..tuples {
        let mut start = t.checked_div(per_batch).unwrap_or(0) * batch_size;
        for (j, &i) in all[t * k..][..k].iter().enumerate() {
            start += index(i, dims[batch + j])? * strides[batch + j] as usize;
        }
        starts.push(start);
    }
    Ok((starts, size))
}

fn gather_nd(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, i) = (call.input(0)?, call.input(1)?);
    let batch = usize::try_from(call.int("batch_dims", 0)?).unwrap_or(usize::MAX);
    let (starts, size) = tuples(x.dims(), i, batch)?;
    let k = i.dims()[i.rank() - 1];
    let dims = [&i.dims()[..i.rank() - 1], &x.dims()[batch + k..]].concat();
    checked_count(&dims)?;
    // Starts are multiples of the size.
    let indices: Vec<usize> = starts.iter().map(|start| start.checked_div(size).unwrap_or(0)).collect();
    Ok(vec![moves!(x.data(), v => (dims, take(v, [1, v.len().checked_div(size).unwrap_or(1), size], &indices)?))])
}

/// How an update goes into an element.
fn reduction<W: Arithmetic>(name: &str) -> OpResult<fn(W, W) -> W> {
    Ok(match name {
        "none" => |_, update| update,
        "add" => W::add,
        "mul" => W::mul,
        "max" => W::larger,
        "min" => W::smaller,
        other => refuse!("reduction is {other:?}, but it can be none, add, mul, max or min"),
    })
}

/// Writes updates into a copy: `places` has one place for each.
fn scattered(x: &Array, updates: &Array, places: &[usize], how: &str) -> OpResult<Array> {
    fn replaced<T: Moved>(v: &[T], updates: Bits<'_>, places: &[usize]) -> Vec<T> {
        let mut to = v.to_vec();
        places.iter().zip(T::of(updates).unwrap_or_default()).for_each(|(&p, u)| to[p] = u.clone());
        to
    }
    fn reduced<T: Number>(v: &[T], updates: &Array, places: &[usize], f: fn(T::Wide, T::Wide) -> T::Wide) -> Vec<T> {
        let mut to = v.to_vec();
        let updates = updates.elements::<T>().unwrap_or_default();
        places.iter().zip(updates).for_each(|(&p, u)| to[p] = T::narrow(f(to[p].wide(), u.wide())));
        to
    }
    let same = updates.element() == x.element();
    let different =
        || super::OpError::new(format!("updates of type {}, but elements of type {}", updates.element(), x.element()));
    if how == "none" {
        same.then_some(()).ok_or_else(different)?;
        return Ok(moves!(x.data(), v => (x.dims().to_vec(), replaced(v, updates.data().bits(), places))));
    }
    Ok(numbers!(x.data(), v => {
        let f = reduction(how)?;
        same.then_some(()).ok_or_else(different)?;
        Array::of(x.dims(), reduced(v, updates, places, f))
    }, other => refuse!("elements of type {other}, but numbers are needed")))
}

fn scatter_elements(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, i, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    if updates.dims() != i.dims() {
        refuse!("updates of {:?}, but indices of {:?}", updates.dims(), i.dims());
    }
    let places = places(x.dims(), i, axis(call.int("axis", 0)?, x.rank())?)?;
    Ok(vec![scattered(x, updates, &places, call.text("reduction", "none")?)?])
}

fn scatter_nd(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, i, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (starts, size) = tuples(x.dims(), i, 0)?;
    if updates.len() != starts.len() * size {
        refuse!("{} updates, but {} are needed", updates.len(), starts.len() * size);
    }
    let places: Vec<usize> = starts.iter().flat_map(|&start| start..start + size).collect();
    Ok(vec![scattered(x, updates, &places, call.text("reduction", "none")?)?])
}

fn one_hot(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (i, values) = (call.input(0)?, call.input(2)?);
    let whole = super::cast(i, super::ElementType::I64)?;
    let depth = super::cast(call.input(1)?, super::ElementType::I64)?;
    let depth = dims(&integers(&depth)?)?.first().copied().unwrap_or(0);
    if values.len() != 2 {
        refuse!("{} values, but off and on are needed", values.len());
    }
    let at = axis(call.int("axis", -1)?, i.rank() + 1)?;
    let (before, behind) = i.dims().split_at(at);
    let to = [before, &[depth], behind].concat();
    checked_count(&to)?;
    let inner: usize = behind.iter().product();
    let indices = integers(&whole)?;
    let on = |p: usize| {
        let (outer, d, inside) = (p / (depth * inner), p / inner % depth, p % inner);
        let i = indices[outer * inner + inside];
        (if i < 0 { i + depth as i64 } else { i }) == d as i64
    };
    let which: Vec<usize> = (0..checked_count(&to)?).map(|p| usize::from(on(p))).collect();
    Ok(vec![moves!(values.data(), v => (to, take(v, [1, 2, 1], &which)?))])
}

fn non_zero(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let truth = super::cast(x, super::ElementType::Bool)?;
    let Data::Bool(truth) = truth.data() else { refuse!("elements of type {}", x.element()) };
    let found: Vec<usize> = (0..truth.len()).filter(|&i| truth[i]).collect();
    let strides = contiguous(x.dims());
    let rows = (0..x.rank()).flat_map(|axis| {
        let (stride, dim) = (strides[axis] as usize, x.dims()[axis]);
        found.iter().map(move |&p| (p / stride % dim) as i64)
    });
    Ok(vec![Array::of([x.rank(), found.len()], rows.collect())])
}

fn compress(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let keep = call.elements::<bool>(1)?;
    let (dims, at) = match call.optional_int("axis")? {
        Some(at) => (x.dims().to_vec(), axis(at, x.rank())?),
        None => (vec![x.len()], 0),
    };
    let indices: Vec<usize> = (0..dims[at].min(keep.len())).filter(|&i| keep[i]).collect();
    let mut to = dims.clone();
    to[at] = indices.len();
    Ok(vec![moves!(x.data(), v => (to, take(v, around(&dims, at), &indices)?))])
}

fn top_k(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let at = axis(call.int("axis", -1)?, x.rank())?;
    let Some(k) =
        call.input_or_ints(1, "k").ok().flatten().and_then(|k| k.first().copied()).or(call.optional_int("k")?)
    else {
        refuse!("no k is given");
    };
    let [outer, len, inner] = around(x.dims(), at);
    let k = match usize::try_from(k) {
        Ok(k) if k <= len => k,
        _ => refuse!("k is {k}, but axis {at} has {len} elements"),
    };
    let largest = call.flag("largest", true)?;
    // The order of a column's elements; NaN counts as the largest, and equal ones stay in order.
    let numbers = if outer * inner == 0 { Wide::F32(Vec::new()) } else { Wide::of(x, Domain::of(x.element())?)? };
    let compare = |a: usize, b: usize| {
        let order = wide!(&numbers, v => {
            v[a].partial_cmp(&v[b]).unwrap_or(Arithmetic::is_nan(v[a]).cmp(&Arithmetic::is_nan(v[b])))
        });
        if largest { order.reverse() } else { order }
    };
    let order = |o: usize, i: usize| {
        let at = |j: usize| (o * len + j) * inner + i;
        order_by(len, &|a, b| compare(at(a), at(b)))
    };
    let mut indices = filled(0, outer * k * inner)?;
    let mut places = filled(0, outer * k * inner)?;
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        for (j, from) in order(o, i)?.into_iter().take(k).enumerate() {
            let to = (o * k + j) * inner + i;
            (indices[to], places[to]) = (from as i64, (o * len + from) * inner + i);
        }
    }
    let mut to = x.dims().to_vec();
    to[at] = k;
    let values = moves!(x.data(), v => (to.clone(), take(v, [1, x.len(), 1], &places)?));
    Ok(vec![values, Array::of(to, indices)])
}

/// The numbers below `len`, in an order; equal ones stay as they are. One sort for all types of elements.
fn order_by(len: usize, order: &dyn Fn(usize, usize) -> Ordering) -> OpResult<Vec<usize>> {
    let mut all = room(len)?;
    all.extend(0..len);
    all.sort_by(|&a, &b| order(a, b));
    Ok(all)
}

/// Slices along an axis, or elements, without repetition; with their first places, the slice of each input, and counts.
fn unique(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let (dims, at) = match call.optional_int("axis")? {
        Some(at) => (x.dims().to_vec(), axis(at, x.rank())?),
        None => (vec![x.len()], 0),
    };
    let from = around(&dims, at);
    let sorted = call.flag("sorted", true)?;
    let len = from[1];
    let numbers = Wide::of(x, Domain::of(x.element())?)?;
    let order = |a: usize, b: usize| {
        let [outer, len, inner] = from;
        let slice = |i: usize| (0..outer * inner).map(move |p| (p / inner * len + i) * inner + p % inner);
        let mut orders = slice(a).zip(slice(b)).map(|(a, b)| wide!(&numbers, v => v[a].partial_cmp(&v[b])));
        orders.find(|order| *order != Some(Ordering::Equal)).flatten().unwrap_or(Ordering::Equal)
    };
    let mut runs: Vec<Vec<usize>> = Vec::new();
    for i in order_by(len, &order)? {
        match runs.last_mut() {
            Some(run) if order(run[0], i).is_eq() => run.push(i),
            _ => runs.push(vec![i]),
        }
    }
    if !sorted {
        runs.sort_by_key(|run| run[0]);
    }
    let mut inverse = filled(0, len)?;
    for (g, run) in runs.iter().enumerate() {
        run.iter().for_each(|&i| inverse[i] = g as i64);
    }
    let first: Vec<usize> = runs.iter().map(|run| run[0]).collect();
    let counts: Vec<i64> = runs.iter().map(|run| run.len() as i64).collect();
    let mut to = dims;
    to[at] = first.len();
    let values = moves!(x.data(), v => (to, take(v, from, &first)?));
    let first = Array::vector(first.iter().map(|&i| i as i64).collect());
    Ok(vec![values, first, Array::vector(inverse), Array::vector(counts)])
}

/// Writes new elements of a sequence into a cache.
fn tensor_scatter(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, update) = (call.input(0)?, call.input(1)?);
    let at = axis(call.int("axis", -2)?, x.rank())?;
    let circular = call.text("mode", "linear")? == "circular";
    let mut dims = x.dims().to_vec();
    let (len, new) = (dims[at], update.dims().get(at).copied().unwrap_or(0));
    dims[at] = new;
    if update.dims() != dims || at == 0 || new > len {
        refuse!("an update of {:?} for {:?} along axis {at}", update.dims(), x.dims());
    }
    let starts = super::call::dims(&call.integers(2)?.unwrap_or_else(|| vec![0; dims[0]]))?;
    if starts.len() != dims[0] || (!circular && starts.iter().any(|&s| s + new > len)) {
        refuse!("write indices {starts:?} for {} sequences of {len} elements", dims[0]);
    }
    let [outer, _, inner] = around(x.dims(), at);
    let per_batch = outer / dims[0].max(1);
    let place = |p: usize| {
        let (o, t, i) = (p / (new * inner), p / inner % new, p % inner);
        let to = (starts[o / per_batch] + t) % len;
        (o * len + to) * inner + i
    };
    let places: Vec<usize> = (0..outer * new * inner).map(place).collect();
    Ok(vec![scattered(x, update, &places, "none")?])
}
