//! Operators that move elements, and those that make shapes and constants.

use super::array::{Bits, Moved, moves};
use super::call::{Attribute, axes, axis, dims};
use super::doubles::doubles;
use super::error::{OpResult, refuse};
use super::number::{Arithmetic, Number, floats};
use super::room::{checked_count, count, filled, room};
use super::view::{Move, View, around, broadcast_dims, take};
use super::wide::{Domain, Wide};
use super::{Array, Call, Data, ElementType, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("Identity", |call| Ok(vec![call.input(0)?.clone()])),
    Operator::new("Shape", shape),
    Operator::new("Size", |call| Ok(vec![Array::scalar(call.input(0)?.len() as i64)])),
    Operator::moving("Reshape", reshape),
    Operator::moving("Flatten", flatten),
    Operator::moving("Squeeze", squeeze),
    Operator::moving("Unsqueeze", unsqueeze),
    Operator::moving("Transpose", transpose),
    Operator::moving("Expand", expand),
    Operator::moving("Tile", tile),
    Operator::moving("Split", split),
    Operator::moving("Slice", slice),
    Operator::moving("DepthToSpace", depth_to_space),
    Operator::moving("SpaceToDepth", space_to_depth),
    Operator::new("Concat", concat),
    Operator::new("Pad", pad),
    Operator::new("CenterCropPad", center_crop_pad),
    Operator::new("Constant", constant),
    Operator::new("ConstantOfShape", constant_of_shape),
    Operator::new("Range", range),
    Operator::new("EyeLike", eye_like),
    Operator::new("Trilu", trilu),
    Operator::new("ReverseSequence", reverse_sequence),
    Operator::new("Dropout", dropout),
];

fn shape(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let dims = call.input(0)?.dims();
    let rank = dims.len() as i64;
    let bound = |at: i64| if at < 0 { at.saturating_add(rank) } else { at }.clamp(0, rank) as usize;
    let (start, end) = (bound(call.int("start", 0)?), bound(call.int("end", rank)?));
    let part = dims.get(start..end).unwrap_or_default();
    Ok(vec![Array::vector(part.iter().map(|&d| d as i64).collect())])
}

/// Before opset 5, the shape was an attribute.
fn reshape(call: &Call<'_>, x: &[usize]) -> OpResult<Vec<Move>> {
    let Some(shape) = call.input_or_ints(1, "shape")? else { refuse!("no shape is given") };
    Ok(vec![Move::none(x, reshaped(x, &shape, call.flag("allowzero", false)?)?)])
}

/// The dimensions that a shape with `0` ("as before") and `-1` ("what is left") stands for.
pub(crate) fn reshaped(from: &[usize], shape: &[i64], allow_zero: bool) -> OpResult<Vec<usize>> {
    let len = count(from).unwrap_or(0);
    let (mut to, mut open) = (Vec::with_capacity(shape.len()), None);
    for (i, &dim) in shape.iter().enumerate() {
        to.push(match dim {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 if !allow_zero => match from.get(i) {
                Some(&dim) => dim,
                None => refuse!("dimension {i} of {shape:?} is that of the input, which has only {}", from.len()),
            },
            dim => match usize::try_from(dim) {
                Ok(dim) => dim,
                Err(_) => refuse!("dimension {i} of {shape:?} is {dim}"),
            },
        });
    }
    let known = count(&to);
    if let (Some(open), Some(known)) = (open, known) {
        if known == 0 || !len.is_multiple_of(known) {
            refuse!("{from:?} has {len} elements, no multiple of what {shape:?} makes");
        }
        to[open] = len / known;
    }
    if count(&to) != Some(len) {
        refuse!("{from:?} has {len} elements, which do not fit {shape:?}");
    }
    Ok(to)
}

fn flatten(call: &Call<'_>, x: &[usize]) -> OpResult<Vec<Move>> {
    let at = call.int("axis", 1)?;
    let (outer, inner) = x.split_at(if at == x.len() as i64 { x.len() } else { axis(at, x.len())? });
    Ok(vec![Move::none(x, [outer.iter().product(), inner.iter().product()])])
}

fn squeeze(call: &Call<'_>, x: &[usize]) -> OpResult<Vec<Move>> {
    let gone = match call.input_or_ints(1, "axes")? {
        Some(named) => axes(&named, x.len())?,
        None => (0..x.len()).filter(|&i| x[i] == 1).collect(),
    };
    if let Some(&i) = gone.iter().find(|&&i| x[i] != 1) {
        refuse!("axis {i} of {x:?} has {} elements, but only 1 can be left out", x[i]);
    }
    let dims: Vec<usize> = (0..x.len()).filter(|i| !gone.contains(i)).map(|i| x[i]).collect();
    Ok(vec![Move::none(x, dims)])
}

fn unsqueeze(call: &Call<'_>, x: &[usize]) -> OpResult<Vec<Move>> {
    let Some(named) = call.input_or_ints(1, "axes")? else { refuse!("no axes are given") };
    let rank = x.len() + named.len();
    let new = axes(&named, rank)?;
    let mut old = x.iter();
    let dims: Vec<usize> =
        (0..rank).map(|i| if new.contains(&i) { 1 } else { *old.next().expect("the ranks add up") }).collect();
    Ok(vec![Move::none(x, dims)])
}

fn transpose(call: &Call<'_>, x: &[usize]) -> OpResult<Vec<Move>> {
    let order: Vec<usize> = match call.ints("perm")? {
        Some(perm) => {
            let order = perm.iter().map(|&i| axis(i, x.len())).collect::<OpResult<Vec<_>>>()?;
            if axes(perm, x.len())?.len() != x.len() {
                refuse!("perm {perm:?} names {} of {} dimensions", perm.len(), x.len());
            }
            order
        }
        None => (0..x.len()).rev().collect(),
    };
    Ok(vec![View::of(x).permute(&order).into()])
}

fn expand(call: &Call<'_>, x: &[usize]) -> OpResult<Vec<Move>> {
    let dims = broadcast_dims(x, &dims(&call.integers(1)?.unwrap_or_default())?)?;
    Ok(vec![View::of(x).broadcast(&dims)?.into()])
}

/// Before opset 6, one axis was tiled.
fn tile(call: &Call<'_>, x: &[usize]) -> OpResult<Vec<Move>> {
    let repeats = call.integers(1)?.unwrap_or_default();
    let repeats = match call.integers(2)? {
        Some(at) if call.opset < 6 => {
            let at = axis(at.first().copied().unwrap_or(0), x.len())?;
            (0..x.len()).map(|i| if i == at { repeats.first().copied().unwrap_or(1) } else { 1 }).collect()
        }
        _ => repeats,
    };
    if repeats.len() != x.len() {
        refuse!("{} repeats, but there are {} dimensions", repeats.len(), x.len());
    }
    let repeats = dims(&repeats)?;
    let [mut apart, mut repeated, mut joined] = [vec![], vec![], vec![]];
    for (&dim, &times) in x.iter().zip(&repeats) {
        apart.extend([1, dim]);
        repeated.extend([times, dim]);
        joined.push(dim.saturating_mul(times));
    }
    checked_count(&joined)?;
    Ok(vec![Move { view: View::of(&apart).broadcast(&repeated)?, dims: joined }])
}

fn concat(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let all = (0..call.inputs.len()).map(|i| call.input(i)).collect::<OpResult<Vec<_>>>()?;
    let dims: Vec<&[usize]> = all.iter().map(|x| x.dims()).collect();
    let (at, dims) = concat_dims(call, &dims)?;
    Ok(vec![joined(&all, at, dims)?])
}

/// The axis and the dimensions of inputs one after the other. Before opset 4, the axis was 1 by default.
pub(super) fn concat_dims(call: &Call<'_>, all: &[&[usize]]) -> OpResult<(usize, Vec<usize>)> {
    let Some(first) = all.first() else { refuse!("input 0 is missing") };
    let at = axis(call.int("axis", 1)?, first.len())?;
    let mut dims = first.to_vec();
    dims[at] = 0;
    for next in all {
        let agree = next.len() == dims.len() && (0..dims.len()).all(|i| i == at || next[i] == dims[i]);
        if !agree {
            refuse!("{first:?} and {next:?} do not agree beside axis {at}");
        }
        dims[at] = dims[at].saturating_add(next[at]);
    }
    Ok((at, dims))
}

/// Arrays one after the other along an axis.
fn joined(all: &[&Array], at: usize, dims: Vec<usize>) -> OpResult<Array> {
    let first = all[0];
    let [outer, _, _] = around(&dims, at);
    for next in all {
        if next.element() != first.element() {
            refuse!("elements of the types {} and {}", first.element(), next.element());
        }
    }
    let parts: Vec<Bits<'_>> = all.iter().map(|next| next.data().bits()).collect();
    fn of<T: Moved>(_: &[T], parts: &[Bits<'_>], outer: usize, dims: &[usize]) -> OpResult<Vec<T>> {
        let mut to = room(checked_count(dims)?)?;
        for o in 0..outer {
            for part in parts.iter().filter_map(|&part| T::of(part)) {
                let row = part.len() / outer;
                to.extend_from_slice(&part[o * row..][..row]);
            }
        }
        Ok(to)
    }
    Ok(moves!(first.data(), v => (dims.clone(), of(v, &parts, outer, &dims)?)))
}

fn split(call: &Call<'_>, x: &[usize]) -> OpResult<Vec<Move>> {
    let at = axis(call.int("axis", 0)?, x.len())?;
    let len = x[at];
    let sizes: Vec<usize> = match call.input_or_ints(1, "split")? {
        Some(sizes) => dims(&sizes)?,
        None => {
            let parts = match call.optional_int("num_outputs")? {
                Some(parts) if parts > 0 => parts as usize,
                _ => call.outputs.max(1),
            };
            // The last part is the smaller one.
            let each = len.div_ceil(parts);
            (0..parts.min(len.max(call.outputs))).map(|i| each.min(len.saturating_sub(i * each))).collect()
        }
    };
    if sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size)) != Some(len) {
        refuse!("parts of {sizes:?}, but axis {at} has {len} elements");
    }
    let mut start = 0;
    let mut parts = Vec::with_capacity(sizes.len());
    for size in sizes {
        let mut view = View::of(x);
        view.slice(at, start, 1, size);
        parts.push(view.into());
        start += size;
    }
    Ok(parts)
}

/// Before opset 10, starts and ends were attributes.
fn slice(call: &Call<'_>, x: &[usize]) -> OpResult<Vec<Move>> {
    let (Some(starts), Some(ends)) = (call.input_or_ints(1, "starts")?, call.input_or_ints(2, "ends")?) else {
        refuse!("no starts or ends are given");
    };
    let named = call.input_or_ints(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = call.integers(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || named.len() != starts.len() || steps.len() != starts.len() {
        let lens = [starts.len(), ends.len(), named.len(), steps.len()];
        refuse!("starts, ends, axes and steps have {lens:?} elements, but should have the same number");
    }
    axes(&named, x.len())?;
    let mut view = View::of(x);
    for i in 0..starts.len() {
        let at = axis(named[i], x.len())?;
        let (start, count) = span(x[at], starts[i], ends[i], steps[i])?;
        view.slice(at, start, steps[i] as isize, count);
    }
    Ok(vec![view.into()])
}

/// The first element and the number of elements of `start..end` with a step, by Python's rule.
pub(crate) fn span(len: usize, start: i64, end: i64, step: i64) -> OpResult<(usize, usize)> {
    let n = len as i64;
    let from_front = |at: i64| if at < 0 { at.saturating_add(n) } else { at };
    Ok(match step {
        0 => refuse!("a step of 0"),
        1.. => {
            let (start, end) = (from_front(start).clamp(0, n), from_front(end).clamp(0, n));
            (start as usize, ((end - start).max(0) as u64).div_ceil(step as u64) as usize)
        }
        _ => {
            let (start, end) = (from_front(start).clamp(-1, n - 1), from_front(end).clamp(-1, n - 1));
            (start.max(0) as usize, ((start - end).max(0) as u64).div_ceil(step.unsigned_abs()) as usize)
        }
    })
}

/// Where the elements of a longer axis come from; `None` is the constant.
fn pad_axis(len: usize, before: i64, after: i64, mode: &str) -> OpResult<Vec<Option<usize>>> {
    let (n, to) = (len as i64, padded_len(len, before, after, mode)?);
    let mut indices = room(to)?;
    indices.extend((0..to as i64).map(|i| i - before).map(|i| match mode {
        _ if (0..n).contains(&i) => Some(i as usize),
        "constant" => None,
        "edge" => Some(i.clamp(0, n - 1) as usize),
        "wrap" => Some(i.rem_euclid(n) as usize),
        _ if n == 1 => Some(0),
        _ => {
            let i = i.rem_euclid(2 * (n - 1));
            Some(i.min(2 * (n - 1) - i) as usize)
        }
    }));
    Ok(indices)
}

/// How many there are.
fn padded_len(len: usize, before: i64, after: i64, mode: &str) -> OpResult<usize> {
    const FAR: u64 = i64::MAX as u64 / 4;
    let near = before.unsigned_abs() < FAR && after.unsigned_abs() < FAR;
    let to = match (len as i64).checked_add(before).and_then(|to| to.checked_add(after)) {
        Some(to) if to >= 0 && near => to as usize,
        _ => refuse!("padding of {before} and {after} leaves nothing of {len} elements, or too much"),
    };
    checked_count(&[to])?;
    if !matches!(mode, "constant" | "edge" | "reflect" | "wrap") {
        refuse!("mode is {mode:?}, but it can be constant, edge, reflect or wrap");
    }
    if len == 0 && mode != "constant" && to > 0 {
        refuse!("there is nothing to pad with: the axis has no elements");
    }
    Ok(to)
}

/// Elements by index along an axis, or `fill` where there is no index.
fn take_or<T: Clone>(
    from: &[T],
    [outer, len, inner]: [usize; 3],
    indices: &[Option<usize>],
    fill: &T,
) -> OpResult<Vec<T>> {
    let mut to = room(outer * indices.len() * inner)?;
    for o in 0..outer {
        for index in indices {
            match index {
                Some(i) => to.extend_from_slice(&from[(o * len + i) * inner..][..inner]),
                None => to.extend(std::iter::repeat_n(fill.clone(), inner)),
            }
        }
    }
    Ok(to)
}

fn padded(x: &Array, pads: &[(i64, i64)], mode: &str, fill: Option<&Array>) -> OpResult<Array> {
    if let Some(fill) = fill
        && (fill.element() != x.element() || fill.is_empty())
    {
        refuse!("the padding is not one element of type {}", x.element());
    }
    let mut changes = Vec::new();
    let mut dims = x.dims().to_vec();
    for (at, &(before, after)) in pads.iter().enumerate() {
        if (before, after) == (0, 0) {
            continue;
        }
        let indices = pad_axis(dims[at], before, after, mode)?;
        let from = around(&dims, at);
        dims[at] = indices.len();
        checked_count(&dims)?;
        changes.push((from, indices));
    }
    type Change = ([usize; 3], Vec<Option<usize>>);
    fn of<T: Moved>(v: &[T], changes: &[Change], fill: Option<Bits<'_>>) -> OpResult<Vec<T>> {
        let fill = fill.and_then(T::of).and_then(<[T]>::first).cloned().unwrap_or_default();
        let mut elements = v.to_vec();
        for (from, indices) in changes {
            elements = take_or(&elements, *from, indices, &fill)?;
        }
        Ok(elements)
    }
    let fill = fill.map(|fill| fill.data().bits());
    Ok(moves!(x.data(), v => (dims, of(v, &changes, fill)?)))
}

/// How much each axis grows at its start and its end, and with what. Before opset 11, pads and value were attributes; before opset 2,
/// `paddings`.
fn pads<'c>(call: &Call<'c>, x: &[usize]) -> OpResult<(Vec<(i64, i64)>, &'c str)> {
    let old = if call.opset < 2 { "paddings" } else { "pads" };
    let Some(pads) = call.input_or_ints(1, old)? else { refuse!("no pads are given") };
    let named = call.integers(3)?.unwrap_or_else(|| (0..x.len() as i64).collect());
    if pads.len() != 2 * named.len() {
        refuse!("{} pads, but {} axes need {}", pads.len(), named.len(), 2 * named.len());
    }
    axes(&named, x.len())?;
    let mut all = vec![(0, 0); x.len()];
    for (i, &at) in named.iter().enumerate() {
        all[axis(at, x.len())?] = (pads[i], pads[named.len() + i]);
    }
    Ok((all, call.text("mode", "constant")?))
}

/// The same of a crop or a padding at the centre.
fn center_pads<'c>(call: &Call<'c>, x: &[usize]) -> OpResult<(Vec<(i64, i64)>, &'c str)> {
    let shape = dims(&call.integers(1)?.unwrap_or_default())?;
    let named = call.ints("axes")?.map_or_else(|| (0..x.len() as i64).collect(), <[i64]>::to_vec);
    if shape.len() != named.len() {
        refuse!("{} dimensions, but {} axes", shape.len(), named.len());
    }
    let mut pads = vec![(0, 0); x.len()];
    for (&at, &to) in named.iter().zip(&shape) {
        let at = axis(at, x.len())?;
        let more = to as i64 - x[at] as i64;
        // The odd pixel is padded, or cut, behind.
        let before = if more < 0 { -(-more / 2) } else { more / 2 };
        pads[at] = (before, more - before);
    }
    Ok((pads, "constant"))
}

/// Dimensions of what `Pad`, or else `CenterCropPad`, makes.
pub(super) fn padded_dims(name: &str, call: &Call<'_>, x: &[usize], element: ElementType) -> OpResult<Vec<usize>> {
    let (pads, mode) = if name == "Pad" { pads(call, x)? } else { center_pads(call, x)? };
    if let Some(fill) = call.optional(2).filter(|fill| name == "Pad" && fill.element() != element) {
        refuse!("the padding is of type {}, not {element}", fill.element());
    }
    let axis = |(&len, &(before, after)): (&usize, &(i64, i64))| match (before, after) {
        (0, 0) => Ok(len),
        _ => padded_len(len, before, after, mode),
    };
    x.iter().zip(&pads).map(axis).collect()
}

fn pad(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let (pads, mode) = pads(call, x.dims())?;
    let attribute;
    let fill = match call.optional(2) {
        Some(fill) => Some(fill),
        None if call.attributes.get("value").is_some() => {
            attribute = super::cast(&Array::scalar(call.float("value", 0.0)?), x.element())?;
            Some(&attribute)
        }
        None => None,
    };
    Ok(vec![padded(x, &pads, mode, fill)?])
}

fn center_crop_pad(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let (pads, mode) = center_pads(call, x.dims())?;
    Ok(vec![padded(x, &pads, mode, None)?])
}

fn four(x: &[usize]) -> OpResult<[usize; 4]> {
    match x.try_into() {
        Ok(dims) => Ok(dims),
        Err(_) => refuse!("dimensions {x:?}, but [n, c, h, w] is needed"),
    }
}

fn block(call: &Call<'_>) -> OpResult<usize> {
    match call.int("blocksize", 0)? {
        block @ 1..=0xffff => Ok(block as usize),
        other => refuse!("blocksize is {other}"),
    }
}

fn depth_to_space(call: &Call<'_>, x: &[usize]) -> OpResult<Vec<Move>> {
    let b = block(call)?;
    let [n, c, h, w] = four(x)?;
    if !c.is_multiple_of(b * b) {
        refuse!("{c} channels, no multiple of {}", b * b);
    }
    let to = c / (b * b);
    let view = match call.text("mode", "DCR")? {
        "DCR" => View::of(&[n, b, b, to, h, w]).permute(&[0, 3, 4, 1, 5, 2]),
        "CRD" => View::of(&[n, to, b, b, h, w]).permute(&[0, 1, 4, 2, 5, 3]),
        other => refuse!("mode is {other:?}, but it can be DCR or CRD"),
    };
    Ok(vec![Move { view, dims: vec![n, to, h.saturating_mul(b), w.saturating_mul(b)] }])
}

fn space_to_depth(call: &Call<'_>, x: &[usize]) -> OpResult<Vec<Move>> {
    let b = block(call)?;
    let [n, c, h, w] = four(x)?;
    if !h.is_multiple_of(b) || !w.is_multiple_of(b) {
        refuse!("{h}x{w} pixels, no multiple of {b}x{b}");
    }
    let view = View::of(&[n, c, h / b, b, w / b, b]).permute(&[0, 3, 5, 1, 2, 4]);
    Ok(vec![Move { view, dims: vec![n, c.saturating_mul(b * b), h / b, w / b] }])
}

fn constant(call: &Call<'_>) -> OpResult<Vec<Array>> {
    for (name, value) in call.attributes.iter() {
        return Ok(vec![match (name, value) {
            ("value", Attribute::Array(array)) => array.clone(),
            ("value_float", Attribute::Float(value)) => Array::scalar(*value),
            ("value_floats", Attribute::Floats(values)) => Array::vector(values.clone()),
            ("value_int", Attribute::Int(value)) => Array::scalar(*value),
            ("value_ints", Attribute::Ints(values)) => Array::vector(values.clone()),
            ("value_string", Attribute::Text(value)) => Array::scalar(value.clone()),
            ("value_strings", Attribute::Texts(values)) => Array::vector(values.clone()),
            _ => continue,
        }]);
    }
    refuse!("there is no value of a form that this crate reads");
}

fn constant_of_shape(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let dims = dims(&call.integers(0)?.unwrap_or_default())?;
    let zero = Array::vector(vec![0f32]);
    let value = match call.attributes.get("value") {
        None => &zero,
        Some(Attribute::Array(value)) if value.len() == 1 => value,
        Some(_) => refuse!("the value is not one element"),
    };
    let len = checked_count(&dims)?;
    Ok(vec![moves!(value.data(), v => (dims, filled(v[0].clone(), len)?))])
}

fn range(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let start = call.input(0)?;
    let element = start.element();
    Domain::of(element)?;
    let operand = |i: usize| match call.input(i)? {
        x if x.element() == element => Ok(x),
        x => refuse!("input {i} has elements of type {}, but {element} are needed", x.element()),
    };
    let (limit, delta) = (operand(1)?, operand(2)?);
    if [start, limit, delta].iter().any(|x| x.len() != 1) {
        refuse!("start, limit and delta should be one element each");
    }
    let [from, to, step] = [start, limit, delta].map(|x| doubles(x).map(|v| v[0]));
    let (from, to, step) = (from?, to?, step?);
    if step == 0.0 {
        refuse!("a step of 0");
    }
    let count_of = |len: i128| checked_count(&[usize::try_from(len).unwrap_or(usize::MAX)]);
    if element.is_integer() {
        let [from, to, step] = [start, limit, delta].map(|x| super::call::integers(x).map(|v| v[0]));
        let (start, to, step) = (from?, to?, step?);
        let (from, to, each) = (start as i128, to as i128, step as i128);
        let (distance, each) = if each < 0 { (from - to, -each) } else { (to - from, each) };
        let len = count_of((distance.max(0) + each - 1) / each)?;
        let all = (0..len as i64).map(|i| start.wrapping_add(step.wrapping_mul(i))).collect();
        return Ok(vec![Wide::I64(all).array([len], element)?]);
    }
    let len = count_of(((to - from) / step).ceil().max(0.0) as i128)? as i64;
    fn of<T: Number>(start: T, delta: &Array, len: i64) -> Array {
        let delta = delta.elements::<T>().map_or(start, |delta| delta[0]);
        let at = |i: i64| {
            let far = T::narrow(delta.wide().mul(T::from_i64(i).wide()));
            T::narrow(start.wide().add(far.wide()))
        };
        Array::vector((0..len).map(at).collect())
    }
    Ok(vec![
        floats!(start.data(), v => of(v[0], delta, len), other => refuse!("elements of type {other}, but numbers are needed")),
    ])
}

fn eye_like(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let [rows, cols] = match x.dims().try_into() {
        Ok(dims) => dims,
        Err(_) => refuse!("dimensions {:?}, but two are needed", x.dims()),
    };
    let element = match call.optional_int("dtype")? {
        None => x.element(),
        Some(code) => match ElementType::from_code(code) {
            Some(element) => element,
            None => refuse!("elements of type number {code}, which this crate lacks"),
        },
    };
    let k = call.int("k", 0)?;
    let on = |i: usize| (i % cols) as i64 == ((i / cols) as i64).saturating_add(k);
    let ones = Array::of([rows, cols], (0..rows * cols).map(|i| i64::from(on(i))).collect());
    Ok(vec![super::cast(&ones, element)?])
}

fn trilu(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let [.., rows, cols] = *x.dims() else { refuse!("dimensions {:?}, but two are needed", x.dims()) };
    let k = call.integers(1)?.and_then(|k| k.first().copied()).unwrap_or(0);
    let upper = call.flag("upper", true)?;
    let keeps = |i: usize| {
        let (row, col) = ((i / cols % rows) as i64, (i % cols) as i64);
        let diagonal = row.saturating_add(k);
        if upper { col >= diagonal } else { col <= diagonal }
    };
    let indices: Vec<Option<usize>> = (0..x.len()).map(|i| keeps(i).then_some(i)).collect();
    Ok(vec![moves!(x.data(), v => {
        (x.dims().to_vec(), take_or(v, [1, v.len(), 1], &indices, &Default::default())?)
    })])
}

fn reverse_sequence(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let lens = dims(&call.integers(1)?.unwrap_or_default())?;
    let (batch, time) = (call.int("batch_axis", 1)?, call.int("time_axis", 0)?);
    if !matches!((batch, time), (0, 1) | (1, 0)) || x.rank() < 2 {
        refuse!("batch_axis {batch} and time_axis {time}, but they are 0 and 1, of two dimensions or more");
    }
    let [d0, d1] = [x.dims()[0], x.dims()[1]];
    let (batches, times) = if batch == 0 { (d0, d1) } else { (d1, d0) };
    if lens.len() != batches || lens.iter().any(|&l| l > times) {
        refuse!("lengths {lens:?} for {batches} sequences of {times} elements");
    }
    if x.is_empty() {
        return Ok(vec![x.clone()]);
    }
    let inner = x.dims()[2..].iter().product::<usize>();
    let source = |i: usize, j: usize| {
        let (b, t) = if batch == 0 { (i, j) } else { (j, i) };
        let t = if t < lens[b] { lens[b] - 1 - t } else { t };
        if batch == 0 { b * d1 + t } else { t * d1 + b }
    };
    let sources: Vec<usize> = (0..d0 * d1).map(|p| source(p / d1, p % d1)).collect();
    Ok(vec![moves!(x.data(), v => (x.dims().to_vec(), take(v, [1, d0 * d1, inner], &sources)?))])
}

/// What inference makes of it: nothing.
fn dropout(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let ratio = match call.optional(1) {
        Some(ratio) => super::cast(ratio, ElementType::F32)?.elements::<f32>().and_then(|r| r.first().copied()),
        None => Some(call.float("ratio", 0.5)?),
    };
    let training = matches!(call.optional(2).map(Array::data), Some(Data::Bool(v)) if v.first() == Some(&true));
    if training && ratio != Some(0.0) {
        refuse!("dropout in training is random");
    }
    Ok(vec![x.clone(), Array::of(x.dims(), vec![true; x.len()])])
}
