//! Resizing and sampling: every element is a weighted sum of elements along each axis.

use super::array::moves;
use super::call::{axes, axis, dims as checked_dims};
use super::doubles::{doubles, rounded};
use super::error::{OpResult, refuse};
use super::room::{checked_count, filled, room};
use super::view::{around, take};
use super::{Array, Attribute, Attributes, Call, ElementType, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("Resize", resize),
    Operator::new("Upsample", upsample),
    Operator::new("GridSample", grid_sample),
    Operator::new("AffineGrid", affine_grid),
];

/// How the coordinates of a result become coordinates of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    CropAndResize,
}

/// The elements that a coordinate is computed from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Filter {
    /// One: the bool says whether a half rounds down, the other whether it rounds at all.
    Nearest(Rounding),
    Linear,
    Cubic(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

/// Along one axis: what to compute.
struct Along {
    input: usize,
    output: usize,
    scale: f64,
    /// The part of the input for `CropAndResize`, as fractions of it.
    crop: [f64; 2],
}

#[derive(Debug, Clone, Copy)]
struct Method {
    coordinates: Coordinates,
    filter: Filter,
    antialias: bool,
    exclude_outside: bool,
    extrapolation: f64,
}

/// An element along an axis: indices with their weights, or none for a coordinate outside a crop.
type Sum = Option<Vec<(usize, f64)>>;

impl Method {
    /// Whether elements are taken as they are, so that they may be of any type.
    fn moves(&self) -> bool {
        matches!(self.filter, Filter::Nearest(_)) && self.coordinates != Coordinates::CropAndResize
    }

    /// Whether anything happens along an axis.
    fn changes(&self, along: &Along) -> bool {
        along.output != along.input || along.scale != 1.0 || self.coordinates == Coordinates::CropAndResize
    }

    fn coordinate(&self, along: &Along, o: usize) -> f64 {
        let (o, input, output) = (o as f64, along.input as f64, along.output as f64);
        let half = (o + 0.5) / along.scale - 0.5;
        match self.coordinates {
            Coordinates::HalfPixel => half,
            Coordinates::HalfPixelSymmetric => {
                let adjustment = output / (along.scale * input);
                input / 2.0 * (1.0 - adjustment) + half
            }
            Coordinates::PytorchHalfPixel if along.output == 1 => 0.0,
            Coordinates::PytorchHalfPixel => half,
            Coordinates::AlignCorners if along.output == 1 => 0.0,
            // The length before it was rounded down.
            Coordinates::AlignCorners => o * (input - 1.0) / (along.scale * input - 1.0),
            Coordinates::Asymmetric => o / along.scale,
            Coordinates::CropAndResize => {
                let [start, end] = along.crop;
                if along.output == 1 {
                    0.5 * (start + end) * (input - 1.0)
                } else {
                    start * (input - 1.0) + o * (end - start) * (input - 1.0) / (output - 1.0)
                }
            }
        }
    }

    fn sum(&self, along: &Along, o: usize) -> Sum {
        let x = self.coordinate(along, o);
        let last = along.input as f64 - 1.0;
        if self.coordinates == Coordinates::CropAndResize && !(0.0..=last).contains(&x) {
            return None;
        }
        let inside = |i: f64| i.clamp(0.0, last) as usize;
        if let Filter::Nearest(rounding) = self.filter {
            return Some(vec![(inside(rounding.of(x)), 1.0)]);
        }
        // The element on the left is at a distance in (0, 1].
        let left = x.ceil() - 1.0;
        let ratio = x - left;
        let scale = if self.antialias { along.scale.min(1.0) } else { 1.0 };
        let reach = match self.filter {
            Filter::Cubic(_) => (-2.0 / scale).floor() + 1.0,
            _ => (-1.0 / scale).floor() + 1.0,
        };
        let mut weights = Vec::new();
        let mut i = reach;
        while i <= 1.0 - reach {
            let distance = ((i - ratio) * scale).abs();
            let weight = match self.filter {
                Filter::Cubic(a) => cubic(distance, a),
                _ => (1.0 - distance).max(0.0),
            };
            let outside = !(0.0..=last).contains(&(left + i));
            weights.push((inside(left + i), if outside && self.exclude_outside { 0.0 } else { weight }));
            i += 1.0;
        }
        if self.antialias || self.exclude_outside {
            let total: f64 = weights.iter().map(|w| w.1).sum();
            weights.iter_mut().for_each(|w| w.1 /= total);
        }
        Some(weights)
    }
}

impl Rounding {
    fn of(self, x: f64) -> f64 {
        match self {
            Self::PreferFloor => (x - 0.5).ceil(),
            Self::PreferCeil => (x + 0.5).floor(),
            Self::Floor => x.floor(),
            Self::Ceil => x.ceil(),
        }
    }
}

/// The kernel of cubic convolution.
///
/// Source: Keys, "Cubic convolution interpolation for digital image processing", 1981.
fn cubic(distance: f64, a: f64) -> f64 {
    let d = distance;
    match d {
        _ if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
        _ if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
        _ => 0.0,
    }
}

fn method(call: &Call<'_>) -> OpResult<Method> {
    // Opset 10 had no modes of coordinates.
    let old = call.opset < 11;
    let coordinates =
        match call.text("coordinate_transformation_mode", if old { "asymmetric" } else { "half_pixel" })? {
            "half_pixel" => Coordinates::HalfPixel,
            "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
            "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
            "align_corners" => Coordinates::AlignCorners,
            "asymmetric" => Coordinates::Asymmetric,
            "tf_crop_and_resize" => Coordinates::CropAndResize,
            other => refuse!("coordinate_transformation_mode is {other:?}"),
        };
    let filter = match call.text("mode", "nearest")? {
        "nearest" => {
            Filter::Nearest(match call.text("nearest_mode", if old { "floor" } else { "round_prefer_floor" })? {
                "round_prefer_floor" => Rounding::PreferFloor,
                "round_prefer_ceil" => Rounding::PreferCeil,
                "floor" => Rounding::Floor,
                "ceil" => Rounding::Ceil,
                other => refuse!("nearest_mode is {other:?}"),
            })
        }
        "linear" | "bilinear" => Filter::Linear,
        "cubic" => Filter::Cubic(call.float("cubic_coeff_a", -0.75)?.into()),
        other => refuse!("mode is {other:?}, but it can be nearest, linear or cubic"),
    };
    Ok(Method {
        coordinates,
        filter,
        antialias: call.flag("antialias", false)?,
        exclude_outside: call.flag("exclude_outside", false)?,
        extrapolation: call.float("extrapolation_value", 0.0)?.into(),
    })
}

/// Extents and scales of the named axes, from scales or from sizes.
fn extents(
    call: &Call<'_>,
    x: &[usize],
    named: &[usize],
    scales: &[f64],
    sizes: &[i64],
) -> OpResult<Vec<(usize, f64)>> {
    let input: Vec<f64> = named.iter().map(|&i| x[i] as f64).collect();
    if !scales.is_empty() {
        if scales.len() != named.len() || scales.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
            refuse!("scales {scales:?} for {} axes", named.len());
        }
        // In floats, as onnxruntime does: 10 elements and a scale of 0.7f make 7.
        return Ok(scales.iter().zip(input).map(|(&s, i)| ((s as f32 * i as f32).floor() as usize, s)).collect());
    }
    let sizes = checked_dims(sizes)?;
    if sizes.len() != named.len() {
        refuse!("sizes {sizes:?} for {} axes", named.len());
    }
    let ratios: Vec<f64> = sizes.iter().zip(&input).map(|(&s, &i)| s as f64 / i).collect();
    let scale = match call.text("keep_aspect_ratio_policy", "stretch")? {
        "stretch" => return Ok(sizes.into_iter().zip(ratios).collect()),
        "not_larger" => ratios.iter().copied().fold(f64::INFINITY, f64::min),
        "not_smaller" => ratios.iter().copied().fold(0.0, f64::max),
        other => refuse!("keep_aspect_ratio_policy is {other:?}"),
    };
    Ok(input.iter().map(|i| ((scale * i + 0.5).floor() as usize, scale)).collect())
}

/// How a call resizes: the method, and the axes with their extents.
type Plan = (Method, Vec<(usize, Along)>);

fn resize(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let (method, all) = resize_plan(call, x.dims())?;
    Ok(vec![resized(x, &method, &all)?])
}

fn upsample(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let (method, all) = upsample_plan(call, x.dims())?;
    Ok(vec![resized(x, &method, &all)?])
}

/// How `Upsample`, or else `Resize`, resizes an input of the dimensions `x`.
fn plan(name: &str, call: &Call<'_>, x: &[usize]) -> OpResult<Plan> {
    if name == "Upsample" { upsample_plan(call, x) } else { resize_plan(call, x) }
}

/// Dimensions of what `Upsample`, or else `Resize`, makes of elements of a type.
pub(super) fn resized_dims(name: &str, call: &Call<'_>, x: &[usize], element: ElementType) -> OpResult<Vec<usize>> {
    let (method, all) = plan(name, call, x)?;
    if !method.moves() && !element.is_float() && !element.is_integer() {
        refuse!("elements of type {element}, but numbers are needed");
    }
    dims_of(x, &all)
}

fn dims_of(x: &[usize], all: &[(usize, Along)]) -> OpResult<Vec<usize>> {
    let mut dims = x.to_vec();
    all.iter().for_each(|(at, along)| dims[*at] = along.output);
    checked_count(&dims)?;
    if x.contains(&0) && !dims.contains(&0) {
        refuse!("{x:?} has no elements to make {dims:?} from");
    }
    Ok(dims)
}

/// For each axis that changes: the sum that each of its elements is. `None` where elements lie outside of the input.
#[cfg(feature = "onnx")]
pub(crate) fn resize_sums(name: &str, call: &Call<'_>, x: &[usize]) -> OpResult<Option<Vec<AxisSums>>> {
    let (method, all) = plan(name, call, x)?;
    let changes = all.iter().filter(|(_, along)| method.changes(along));
    let sums = |(at, along): &(usize, Along)| {
        let sums: Option<Vec<_>> = (0..along.output).map(|o| method.sum(along, o)).collect();
        Some((*at, sums?))
    };
    Ok(changes.map(sums).collect())
}

/// An axis, and the sum that each element along it is.
#[cfg(feature = "onnx")]
pub(crate) type AxisSums = (usize, Vec<Vec<(usize, f64)>>);

fn resize_plan(call: &Call<'_>, x: &[usize]) -> OpResult<Plan> {
    let method = method(call)?;
    let list = |index: usize| call.optional(index).map(doubles).transpose().map(Option::unwrap_or_default);
    // Opset 10 has scales as the second input, later ones have the crop there.
    let (crop, scales) = if call.opset < 11 { (Vec::new(), list(1)?) } else { (list(1)?, list(2)?) };
    let sizes = if call.opset < 11 { Vec::new() } else { call.integers(3)?.unwrap_or_default() };
    let named = match call.ints("axes")? {
        Some(named) if axes(named, x.len())?.len() < named.len() => refuse!("axes {named:?} name one twice"),
        Some(named) => named.iter().map(|&a| axis(a, x.len())).collect::<OpResult<Vec<_>>>()?,
        None => (0..x.len()).collect(),
    };
    if method.coordinates == Coordinates::CropAndResize && crop.len() != 2 * named.len() {
        refuse!("a crop of {} numbers for {} axes", crop.len(), named.len());
    }
    let extents = extents(call, x, &named, &scales, &sizes)?;
    let mut all = Vec::new();
    for (i, (&at, (output, scale))) in named.iter().zip(extents).enumerate() {
        let crop = [crop.get(i), crop.get(named.len() + i)].map(|c| c.copied().unwrap_or(0.0));
        all.push((at, Along { input: x[at], output, scale, crop }));
    }
    if x.contains(&0) && all.iter().any(|(_, along)| along.input == 0 && along.output > 0) {
        refuse!("{x:?} has no elements to resize");
    }
    Ok((method, all))
}

/// Scales were an attribute before opset 9.
fn upsample_plan(call: &Call<'_>, x: &[usize]) -> OpResult<Plan> {
    let scales = match (call.optional(1), call.floats("scales")?) {
        (Some(scales), _) => doubles(scales)?,
        (None, Some(scales)) => scales.iter().map(|&s| s.into()).collect(),
        // The first version had one number for each of two dimensions.
        _ => vec![1.0, 1.0, call.float("height_scale", 1.0)?.into(), call.float("width_scale", 1.0)?.into()],
    };
    let mode = Attributes::new().with("mode", Attribute::Text(call.text("mode", "nearest")?.into()));
    let method = method(&Call { opset: 10, attributes: &mode, ..*call })?;
    let named: Vec<usize> = (0..x.len()).collect();
    let extents = extents(call, x, &named, &scales, &[])?;
    let along =
        |(at, (output, scale)): (usize, (usize, f64))| (at, Along { input: x[at], output, scale, crop: [0.0, 1.0] });
    Ok((method, named.into_iter().zip(extents).map(along).collect()))
}

fn resized(x: &Array, method: &Method, all: &[(usize, Along)]) -> OpResult<Array> {
    let dims = dims_of(x.dims(), all)?;
    if dims.contains(&0) {
        // The other extents may be of any size, as nothing is computed for them.
        return super::array::zeros(&dims, x.element());
    }
    let changes: Vec<&(usize, Along)> = all.iter().filter(|(_, along)| method.changes(along)).collect();
    if method.moves() {
        let mut y = x.clone();
        for (at, along) in changes {
            let index = |o: usize| method.sum(along, o).map_or(0, |sum| sum[0].0);
            let indices: Vec<usize> = (0..along.output).map(index).collect();
            let mut dims = y.dims().to_vec();
            dims[*at] = along.output;
            checked_count(&dims)?;
            y = moves!(y.data(), v => (dims, take(v, around(y.dims(), *at), &indices)?));
        }
        return Ok(y);
    }
    let (mut v, mut from) = (doubles(x)?, x.dims().to_vec());
    let mut outside = Vec::new();
    for (at, along) in changes {
        let sums: Vec<Sum> = (0..along.output).map(|o| method.sum(along, o)).collect();
        let [outer, len, inner] = around(&from, *at);
        from[*at] = along.output;
        let mut to = filled(0.0, checked_count(&from)?)?;
        for o in 0..outer {
            for (j, sum) in sums.iter().enumerate() {
                let to = &mut to[(o * along.output + j) * inner..][..inner];
                for &(i, weight) in sum.iter().flatten() {
                    let v = &v[(o * len + i) * inner..][..inner];
                    to.iter_mut().zip(v).for_each(|(to, v)| *to += weight * v);
                }
            }
        }
        v = to;
        outside.push((*at, sums.iter().map(Option::is_none).collect::<Vec<_>>()));
    }
    if method.coordinates == Coordinates::CropAndResize {
        for (at, outside) in outside {
            let [_, len, inner] = around(&dims, at);
            let fill = |(p, v): (usize, &mut f64)| {
                if outside[p / inner % len] {
                    *v = method.extrapolation;
                }
            };
            v.iter_mut().enumerate().for_each(fill);
        }
    }
    rounded(dims, v, x.element())
}

/// What lies outside the input of [`grid_sample`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outside {
    Zeros,
    Border,
    Reflection,
}

impl Outside {
    /// A coordinate mirrored at the edges, which lie at the pixels' centres or half a pixel beyond.
    fn reflect(x: f64, len: usize, align: bool) -> f64 {
        let (low, high) = if align { (0.0, len as f64 - 1.0) } else { (-0.5, len as f64 - 0.5) };
        let span = high - low;
        if span == 0.0 {
            return 0.0;
        }
        let distance = (x - low).abs() % (2.0 * span);
        low + if distance > span { 2.0 * span - distance } else { distance }
    }

    /// The coordinate that is read.
    fn moved(self, x: f64, len: usize, align: bool) -> f64 {
        let last = len as f64 - 1.0;
        match self {
            Self::Zeros => x,
            Self::Border => x.clamp(0.0, last),
            Self::Reflection => Self::reflect(x, len, align).clamp(0.0, last),
        }
    }
}

/// How [`grid_sample`] reads its input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sampler {
    /// Elements along each axis that an output is computed from, at most: 1, 2 or 4.
    pub(crate) reach: usize,
    outside: Outside,
    align: bool,
}

/// Indices along an axis with their weights.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    all: [(usize, f64); 4],
    len: usize,
}

impl core::ops::Deref for Taps {
    type Target = [(usize, f64)];

    fn deref(&self) -> &Self::Target {
        &self.all[..self.len]
    }
}

impl Sampler {
    pub(crate) fn new(call: &Call<'_>) -> OpResult<Self> {
        let outside = match call.text("padding_mode", "zeros")? {
            "zeros" => Outside::Zeros,
            "border" => Outside::Border,
            "reflection" => Outside::Reflection,
            other => refuse!("padding_mode is {other:?}"),
        };
        let reach = match call.text("mode", "linear")? {
            "nearest" => 1,
            "linear" | "bilinear" => 2,
            "cubic" | "bicubic" => 4,
            mode => refuse!("mode is {mode:?}, but it can be linear, nearest or cubic"),
        };
        Ok(Self { reach, outside, align: call.flag("align_corners", false)? })
    }

    /// Dimensions of the output.
    pub(crate) fn dims(x: &[usize], grid: &[usize]) -> OpResult<Vec<usize>> {
        let ([n, c, input @ ..], [n_too, output @ .., rank]) = (x, grid) else {
            refuse!("an input {x:?} and a grid {grid:?}");
        };
        if n != n_too || *rank != input.len() || output.len() != input.len() || input.contains(&0) {
            refuse!("an input {x:?} and a grid {grid:?}");
        }
        Ok([&[*n, *c][..], output].concat())
    }

    /// What a coordinate of -1 to 1 is computed from, along an axis of `len` elements.
    pub(crate) fn taps(&self, at: f64, len: usize) -> Taps {
        let &Self { reach, outside, align } = self;
        let x = if align { (at + 1.0) / 2.0 * (len as f64 - 1.0) } else { ((at + 1.0) * len as f64 - 1.0) / 2.0 };
        let mut taps = Taps::default();
        let mut keep = |i: f64, weight: f64| {
            if (0.0..len as f64).contains(&i) {
                taps.all[taps.len] = (i as usize, weight);
                taps.len += 1;
            }
        };
        match reach {
            1 => keep(outside.moved(x, len, align).round_ties_even(), 1.0),
            2 => {
                let x = outside.moved(x, len, align);
                let left = x.floor();
                keep(left, 1.0 - (x - left));
                keep(left + 1.0, x - left);
            }
            _ => {
                let left = x.floor();
                for i in -1..=2 {
                    let i = left + f64::from(i);
                    keep(outside.moved(i, len, align), cubic((x - i).abs(), -0.75));
                }
            }
        }
        taps
    }
}

fn grid_sample(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, grid, sampler) = (call.input(0)?, call.input(1)?, Sampler::new(call)?);
    let dims = Sampler::dims(x.dims(), grid.dims())?;
    let (n, c, input, output) = (dims[0], dims[1], &x.dims()[2..], &dims[2..]);
    let rank = input.len();
    let mut y = filled(0.0, checked_count(&dims)?)?;
    let (v, g) = (doubles(x)?, doubles(grid)?);
    let (size, points) = (input.iter().product::<usize>(), output.iter().product::<usize>());
    for image in 0..n {
        for p in 0..points {
            // The grid has the last dimension first.
            let at = &g[(image * points + p) * rank..][..rank];
            let mut sum = vec![(0usize, 1.0f64)];
            for (i, &len) in input.iter().enumerate() {
                let taps = sampler.taps(at[rank - 1 - i], len);
                let both = |&(base, weight): &(usize, f64)| {
                    taps.iter().map(move |&(i, w)| (base * len + i, weight * w)).collect::<Vec<_>>()
                };
                sum = sum.iter().flat_map(both).collect();
            }
            for channel in 0..c {
                let plane = &v[(image * c + channel) * size..][..size];
                y[(image * c + channel) * points + p] = sum.iter().map(|&(i, weight)| plane[i] * weight).sum();
            }
        }
    }
    Ok(vec![rounded(dims, y, x.element())?])
}

fn affine_grid(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (theta, size) = (call.input(0)?, checked_dims(&call.integers(1)?.unwrap_or_default())?);
    let align = call.flag("align_corners", false)?;
    let [n, _, output @ ..] = &size[..] else { refuse!("size is {size:?}") };
    let rank = output.len();
    if theta.dims() != [*n, rank, rank + 1] {
        refuse!("matrices {:?}, but [{n}, {rank}, {}] are needed", theta.dims(), rank + 1);
    }
    let v = doubles(theta)?;
    let coordinate = |i: usize, len: usize| match align {
        true if len == 1 => 0.0,
        true => -1.0 + 2.0 * i as f64 / (len as f64 - 1.0),
        false => (2.0 * i as f64 + 1.0) / len as f64 - 1.0,
    };
    let dims = [&[*n][..], output, &[rank]].concat();
    let mut y = room(checked_count(&dims)?)?;
    for matrix in v.chunks((rank * (rank + 1)).max(1)) {
        for place in super::window::places(output) {
            // The last dimension comes first.
            let point: Vec<f64> = place.iter().zip(output).rev().map(|(&i, &len)| coordinate(i, len)).collect();
            for row in matrix.chunks(rank + 1) {
                y.push(row[..rank].iter().zip(&point).map(|(a, b)| a * b).sum::<f64>() + row[rank]);
            }
        }
    }
    Ok(vec![rounded(dims, y, theta.element())?])
}
