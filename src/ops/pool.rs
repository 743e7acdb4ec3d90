//! Pooling in any number of dimensions.

use super::call::dims as checked_dims;
use super::doubles::{doubles, rounded};
use super::error::{OpResult, refuse};
use super::room::{checked_count, filled, room};
use super::view::contiguous;
use super::window::{Axis, places, spatial, windows};
use super::{Array, Call, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("MaxPool", max),
    Operator::new("AveragePool", average),
    Operator::new("LpPool", lp),
    Operator::new("GlobalMaxPool", |call| global(call, |v| v.iter().copied().fold(f64::NEG_INFINITY, f64::max))),
    Operator::new("GlobalAveragePool", |call| global(call, |v| v.iter().sum::<f64>() / v.len() as f64)),
    Operator::new("GlobalLpPool", |call| {
        let p = power(call)?;
        global(call, move |v| v.iter().map(|v| v.abs().powf(p)).sum::<f64>().powf(1.0 / p))
    }),
    Operator::new("MaxUnpool", unpool),
    Operator::new("MaxRoiPool", max_roi),
    Operator::new("RoiAlign", roi_align),
];

/// The exponent was a float before opset 2.
fn power(call: &Call<'_>) -> OpResult<f64> {
    Ok(call.float("p", 2.0)?.into())
}

fn geometry(call: &Call<'_>) -> OpResult<(Vec<Axis>, Vec<usize>)> {
    let x = call.input(0)?;
    let Some(kernel) = call.ints("kernel_shape")? else { refuse!("kernel_shape is missing") };
    let axes = windows(call, spatial(x)?, &checked_dims(kernel)?, call.flag("ceil_mode", false)?)?;
    let dims: Vec<usize> = x.dims()[..2].iter().copied().chain(axes.iter().map(|a| a.output)).collect();
    checked_count(&dims)?;
    Ok((axes, dims))
}

/// For each window: the places of its taps in a plane, without those in the padding.
fn taps(axes: &[Axis]) -> Vec<Vec<usize>> {
    let output: Vec<usize> = axes.iter().map(|a| a.output).collect();
    let kernel: Vec<usize> = axes.iter().map(|a| a.kernel).collect();
    let strides = contiguous(&axes.iter().map(|a| a.input).collect::<Vec<_>>());
    let kernel: Vec<Vec<usize>> = places(&kernel).collect();
    let inside = |at: &[usize], tap: &[usize]| {
        let steps = axes.iter().zip(at).zip(tap).zip(&strides);
        steps.map(|(((a, &o), &k), &s)| a.input_at(o, k).map(|i| i * s as usize)).sum::<Option<usize>>()
    };
    places(&output).map(|at| kernel.iter().filter_map(|tap| inside(&at, tap)).collect()).collect()
}

/// `f(plane, taps of a window, the window's number)` of every window of every plane.
fn pooled(x: &Array, axes: &[Axis], dims: Vec<usize>, f: impl Fn(&[f64], &[usize], usize) -> f64) -> OpResult<Array> {
    let v = doubles(x)?;
    let taps = taps(axes);
    let size: usize = spatial(x)?.iter().product();
    let mut y = room(checked_count(&dims)?)?;
    for plane in v.chunks(size.max(1)) {
        y.extend(taps.iter().enumerate().map(|(i, taps)| f(plane, taps, i)));
    }
    y.resize(checked_count(&dims)?, 0.0);
    rounded(dims, y, x.element())
}

fn max(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let (axes, dims) = geometry(call)?;
    let largest = |plane: &[f64], taps: &[usize]| {
        let better = |best: Option<usize>, &i: &usize| match best {
            Some(b) if plane[b] >= plane[i] || plane[b].is_nan() => Some(b),
            _ => Some(i),
        };
        taps.iter().fold(None, better)
    };
    let y =
        pooled(x, &axes, dims.clone(), |plane, taps, _| largest(plane, taps).map_or(f64::NEG_INFINITY, |i| plane[i]))?;
    if call.outputs < 2 {
        return Ok(vec![y]);
    }
    let columns = call.flag("storage_order", false)?;
    let input: Vec<usize> = axes.iter().map(|a| a.input).collect();
    let size: usize = input.iter().product();
    let (v, taps) = (doubles(x)?, taps(&axes));
    let mut indices = Vec::with_capacity(y.len());
    for (p, plane) in v.chunks(size.max(1)).enumerate() {
        for taps in &taps {
            let mut i = largest(plane, taps).unwrap_or(0);
            if columns {
                // The place with the first spatial dimension as the fastest.
                let (mut place, mut step, mut to) = (Vec::new(), 1, 0);
                for &extent in input.iter().rev() {
                    place.push(i % extent);
                    i /= extent;
                }
                for (&at, &extent) in place.iter().rev().zip(&input) {
                    to += at * step;
                    step *= extent;
                }
                i = to;
            }
            indices.push((p * size + i) as i64);
        }
    }
    Ok(vec![y, Array::of(dims, indices)])
}

fn average(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let (axes, dims) = geometry(call)?;
    let with_padding = call.flag("count_include_pad", false)?;
    // Padding counts, but not what a window rounded up reaches beyond it.
    let output: Vec<usize> = axes.iter().map(|a| a.output).collect();
    let counted = |a: &Axis, o: usize| {
        (0..a.kernel).filter(|k| o * a.stride + k * a.dilation < a.input + a.pads[0] + a.pads[1]).count()
    };
    let counts: Vec<usize> =
        places(&output).map(|at| axes.iter().zip(&at).map(|(a, &o)| counted(a, o)).product()).collect();
    let y = pooled(x, &axes, dims, |plane, taps, i| {
        let sum: f64 = taps.iter().map(|&i| plane[i]).sum();
        sum / if with_padding { counts[i] } else { taps.len() } as f64
    })?;
    Ok(vec![y])
}

fn lp(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let (axes, dims) = geometry(call)?;
    let p = power(call)?;
    let of = |plane: &[f64], taps: &[usize], _| taps.iter().map(|&i| plane[i].abs().powf(p)).sum::<f64>().powf(1.0 / p);
    Ok(vec![pooled(x, &axes, dims, of)?])
}

fn global(call: &Call<'_>, f: impl Fn(&[f64]) -> f64) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let size: usize = spatial(x)?.iter().product();
    let dims: Vec<usize> = x.dims()[..2].iter().copied().chain(vec![1; x.rank() - 2]).collect();
    if size == 0 {
        refuse!("dimensions {:?} without a pixel", x.dims());
    }
    Ok(vec![rounded(dims, doubles(x)?.chunks(size).map(f).collect(), x.element())?])
}

/// Puts maxima back where they came from, zeros elsewhere.
fn unpool(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, indices) = (call.input(0)?, call.integers(1)?.unwrap_or_default());
    let Some(kernel) = call.ints("kernel_shape")? else { refuse!("kernel_shape is missing") };
    let rank = spatial(x)?.len();
    let strides = super::window::per_axis(call, "strides", rank, 1)?;
    let pads = super::window::pads(call, rank)?;
    if kernel.len() != rank || indices.len() != x.len() {
        refuse!("{} indices for {} elements", indices.len(), x.len());
    }
    let natural = (0..rank).map(|i| {
        let pad = (pads[i][0] + pads[i][1]) as i64;
        (x.dims()[2 + i] as i64 - 1).saturating_mul(strides[i]).saturating_add(kernel[i]).saturating_sub(pad)
    });
    let natural = checked_dims(&x.dims()[..2].iter().map(|&d| d as i64).chain(natural).collect::<Vec<_>>())?;
    let dims = match call.integers(2)? {
        Some(shape) => checked_dims(&shape)?,
        None => natural.clone(),
    };
    if dims.len() != natural.len() || dims.iter().zip(&natural).any(|(to, from)| to < from) {
        refuse!("output_shape is {dims:?}, but {natural:?} are needed");
    }
    // Indices count in the natural shape, which lies in the corner of a larger one.
    let from = contiguous(&natural);
    let to = contiguous(&dims);
    let mut y = filled(0.0, checked_count(&dims)?)?;
    let len = checked_count(&natural)? as i64;
    for (v, i) in doubles(x)?.into_iter().zip(indices) {
        if !(0..len).contains(&i) {
            refuse!("index {i}, but there are {len} elements");
        }
        let place = |axis: usize| (i / from[axis] as i64) as usize % natural[axis] * to[axis] as usize;
        y[(0..dims.len()).map(place).sum::<usize>()] = v;
    }
    Ok(vec![rounded(dims, y, x.element())?])
}

fn four(x: &Array) -> OpResult<[usize; 4]> {
    match x.dims().try_into() {
        Ok(dims) => Ok(dims),
        Err(_) => refuse!("dimensions {:?}, but [n, c, h, w] is needed", x.dims()),
    }
}

fn max_roi(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, rois) = (call.input(0)?, call.input(1)?);
    let [n, c, h, w] = four(x)?;
    let Some(&[ph, pw]) = call.ints("pooled_shape")? else { refuse!("pooled_shape is not two numbers") };
    let shape = checked_dims(&[ph, pw])?;
    let scale = f64::from(call.float("spatial_scale", 1.0)?);
    let (v, boxes) = (doubles(x)?, doubles(rois)?);
    if boxes.len() % 5 != 0 {
        refuse!("regions {:?}, but [regions, 5] is needed", rois.dims());
    }
    let mut y = Vec::new();
    for roi in boxes.chunks(5) {
        let image = roi[0] as usize;
        if image >= n || roi[0] < 0.0 {
            refuse!("image {}, but there are {n}", roi[0]);
        }
        let [x1, y1, x2, y2] = [1, 2, 3, 4].map(|i| (roi[i] * scale).round());
        let (rh, rw) = ((y2 - y1 + 1.0).max(1.0), (x2 - x1 + 1.0).max(1.0));
        let range = |i: usize, start: f64, len: f64, parts: usize, most: usize| {
            let from = (i as f64 * len / parts as f64).floor() + start;
            let to = ((i + 1) as f64 * len / parts as f64).ceil() + start;
            from.clamp(0.0, most as f64) as usize..to.clamp(0.0, most as f64) as usize
        };
        for channel in 0..c {
            let plane = &v[(image * c + channel) * h * w..][..h * w];
            for (i, j) in (0..shape[0] * shape[1]).map(|p| (p / shape[1], p % shape[1])) {
                let rows = range(i, y1, rh, shape[0], h);
                let cells = rows.flat_map(|r| range(j, x1, rw, shape[1], w).map(move |q| plane[r * w + q]));
                let most = cells.fold(f64::NEG_INFINITY, f64::max);
                y.push(if most.is_finite() { most } else { 0.0 });
            }
        }
    }
    Ok(vec![rounded([boxes.len() / 5, c, shape[0], shape[1]], y, x.element())?])
}

fn roi_align(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, rois) = (call.input(0)?, doubles(call.input(1)?)?);
    let [n, c, h, w] = four(x)?;
    let images = checked_dims(&call.integers(2)?.unwrap_or_default())?;
    if rois.len() != images.len() * 4 || images.iter().any(|&i| i >= n) || h * w == 0 {
        refuse!("{} numbers for {} regions of {n} images", rois.len(), images.len());
    }
    let shape = checked_dims(&[call.int("output_height", 1)?, call.int("output_width", 1)?])?;
    let scale = f64::from(call.float("spatial_scale", 1.0)?);
    let ratio = call.int("sampling_ratio", 0)?;
    let mean = match call.text("mode", "avg")? {
        "avg" => true,
        "max" => false,
        other => refuse!("mode is {other:?}, but it can be avg or max"),
    };
    let mode =
        call.text("coordinate_transformation_mode", if call.opset < 16 { "output_half_pixel" } else { "half_pixel" })?;
    let half = mode == "half_pixel";
    let v = doubles(x)?;
    let mut out = room(checked_count(&[images.len(), c, shape[0], shape[1]])?)?;
    for (roi, &image) in rois.chunks(4).zip(&images) {
        let shift = if half { 0.5 } else { 0.0 };
        let [x1, y1, x2, y2] = [0, 1, 2, 3].map(|i| roi[i] * scale - shift);
        let least = if half { f64::NEG_INFINITY } else { 1.0 };
        let (bin_h, bin_w) = ((y2 - y1).max(least) / shape[0] as f64, (x2 - x1).max(least) / shape[1] as f64);
        let samples = |bin: f64| if ratio > 0 { ratio as usize } else { bin.ceil().clamp(1.0, 4096.0) as usize };
        let (grid_h, grid_w) = (samples(bin_h), samples(bin_w));
        for channel in 0..c {
            let plane = &v[(image * c + channel) * h * w..][..h * w];
            for (i, j) in (0..shape[0] * shape[1]).map(|p| (p / shape[1], p % shape[1])) {
                let (mut sum, mut most) = (0.0, f64::NEG_INFINITY);
                for (a, b) in (0..grid_h * grid_w).map(|p| (p / grid_w, p % grid_w)) {
                    let y = y1 + (i as f64 + (a as f64 + 0.5) / grid_h as f64) * bin_h;
                    let x = x1 + (j as f64 + (b as f64 + 0.5) / grid_w as f64) * bin_w;
                    let corners = corners(y, x, h, w);
                    sum += corners.iter().map(|&(at, weight)| plane[at] * weight).sum::<f64>();
                    most = corners.iter().map(|&(at, weight)| plane[at] * weight).fold(most, f64::max);
                }
                out.push(if mean { sum / (grid_h * grid_w) as f64 } else { most });
            }
        }
    }
    Ok(vec![rounded([images.len(), c, shape[0], shape[1]], out, x.element())?])
}

/// The four pixels around a point with their weights; nothing counts beyond a pixel outside.
fn corners(y: f64, x: f64, h: usize, w: usize) -> [(usize, f64); 4] {
    if y < -1.0 || y > h as f64 || x < -1.0 || x > w as f64 {
        return [(0, 0.0); 4];
    }
    let along = |v: f64, len: usize| {
        let v = v.max(0.0);
        let low = v as usize;
        if low >= len - 1 { (len - 1, len - 1, 0.0) } else { (low, low + 1, v - low as f64) }
    };
    let ((top, bottom, fy), (left, right, fx)) = (along(y, h), along(x, w));
    [
        (top * w + left, (1.0 - fy) * (1.0 - fx)),
        (top * w + right, (1.0 - fy) * fx),
        (bottom * w + left, fy * (1.0 - fx)),
        (bottom * w + right, fy * fx),
    ]
}
