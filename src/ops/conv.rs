//! Convolutions in any number of dimensions, as plain sums.

use super::call::dims as checked_dims;
use super::doubles::{doubles, rounded};
use super::error::{OpResult, refuse};
use super::room::{checked_count, filled};
use super::view::contiguous;
use super::window::{Axis, auto_pad, pads, per_axis, places, spatial, spatial_of, unpadded, windows};
use super::{Array, Call, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("Conv", |call| conv_and(call, &|v| v)),
    Operator::new("com.microsoft.FusedConv", fused),
    Operator::new("ConvTranspose", transposed),
    Operator::new("DeformConv", deformed),
    Operator::new("Col2Im", col2im),
];

/// The kernel's extents: those of the weights, which the attribute may repeat.
fn kernel(call: &Call<'_>, w: &Array) -> OpResult<Vec<usize>> {
    let extents = w.dims().get(2..).unwrap_or_default().to_vec();
    match call.ints("kernel_shape")? {
        Some(named) if named.iter().map(|&k| k as usize).ne(extents.iter().copied()) => {
            refuse!("kernel_shape is {named:?}, but the weights have {extents:?}")
        }
        _ => Ok(extents),
    }
}

pub(super) fn groups(call: &Call<'_>) -> OpResult<usize> {
    match usize::try_from(call.int("group", 1)?) {
        Ok(groups) if groups > 0 => Ok(groups),
        _ => refuse!("group is {}", call.int("group", 1)?),
    }
}

/// What a convolution sums: images, weights `[m, c / groups, ..]`, groups, and windows.
pub(super) struct Problem<'p> {
    pub n: usize,
    pub c: usize,
    pub m: usize,
    pub groups: usize,
    pub axes: &'p [Axis],
}

impl<'p> Problem<'p> {
    /// The problem of a call's input and weights.
    pub fn new(call: &Call<'_>, x: &Array, w: &Array, axes: &'p [Axis]) -> OpResult<Self> {
        let groups = groups(call)?;
        let (c, m, each) = (x.dims()[1], w.dims()[0], w.dims().get(1).copied().unwrap_or(0));
        if w.rank() != x.rank() || each * groups != c || !m.is_multiple_of(groups) {
            refuse!("weights {:?} in {groups} groups for an input {:?}", w.dims(), x.dims());
        }
        Ok(Self { n: x.dims()[0], c, m, groups, axes })
    }

    pub fn output_dims(&self) -> Vec<usize> {
        [self.n, self.m].into_iter().chain(self.axes.iter().map(|a| a.output)).collect()
    }

    /// The sums.
    pub fn run(&self, x: &[f64], w: &[f64]) -> OpResult<Vec<f64>> {
        let mut y = filled(0.0, checked_count(&self.output_dims())?)?;
        let kernel: Vec<usize> = self.axes.iter().map(|a| a.kernel).collect();
        let input: Vec<usize> = self.axes.iter().map(|a| a.input).collect();
        let output: Vec<usize> = self.axes.iter().map(|a| a.output).collect();
        let (taps, in_size, out_size) = (kernel.iter().product::<usize>(), product(&input), product(&output));
        let (each, each_m) = (self.c / self.groups, self.m / self.groups);
        let Some((last, outer)) = self.axes.split_last() else {
            refuse!("an input without spatial dimensions");
        };
        let rows: Vec<Vec<usize>> = places(&output[..outer.len()]).collect();
        let tap_places: Vec<Vec<usize>> = places(&kernel).collect();
        let strides = contiguous(&input);
        for (image, o) in (0..self.n * self.m).map(|p| (p / self.m, p % self.m)) {
            let y = &mut y[(image * self.m + o) * out_size..][..out_size];
            for i in 0..each {
                let x = &x[(image * self.c + o / each_m * each + i) * in_size..][..in_size];
                for (k, tap) in tap_places.iter().enumerate() {
                    let weight = w[(o * each + i) * taps + k];
                    let Some((first, len)) = covered(last, tap[outer.len()]) else { continue };
                    let start = first * last.stride + tap[outer.len()] * last.dilation - last.pads[0];
                    for (r, row) in rows.iter().enumerate() {
                        let at = outer.iter().zip(row).zip(tap).zip(&strides);
                        let base = at
                            .map(|(((a, &o), &k), &s)| a.input_at(o, k).map(|i| i * s as usize))
                            .sum::<Option<usize>>();
                        let Some(base) = base else { continue };
                        let y = &mut y[r * last.output + first..][..len];
                        let x = x[base + start..].iter().step_by(last.stride);
                        y.iter_mut().zip(x).for_each(|(y, x)| *y += weight * x);
                    }
                }
            }
        }
        Ok(y)
    }
}

fn product(extents: &[usize]) -> usize {
    extents.iter().product()
}

/// The outputs of a row for which tap `k` lies in the input: the first one, and their number.
fn covered(axis: &Axis, k: usize) -> Option<(usize, usize)> {
    let shift = k * axis.dilation;
    let first = axis.pads[0].saturating_sub(shift).div_ceil(axis.stride);
    let end = (axis.input + axis.pads[0]).checked_sub(shift)?.div_ceil(axis.stride).min(axis.output);
    (first < end).then(|| (first, end - first))
}

fn conv_and(call: &Call<'_>, activation: &dyn Fn(f64) -> f64) -> OpResult<Vec<Array>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let axes = windows(call, spatial(x)?, &kernel(call, w)?, false)?;
    let problem = Problem::new(call, x, w, &axes)?;
    let mut y = problem.run(&doubles(x)?, &doubles(w)?)?;
    let dims = problem.output_dims();
    add_bias(call, &mut y, &dims)?;
    // `Z` of FusedConv is added before the activation.
    if let Some(z) = call.optional(3) {
        if z.dims() != dims {
            refuse!("a summand of {:?} for {dims:?}", z.dims());
        }
        y.iter_mut().zip(doubles(z)?).for_each(|(y, z)| *y += z);
    }
    y.iter_mut().for_each(|y| *y = activation(*y));
    Ok(vec![rounded(dims, y, x.element())?])
}

fn add_bias(call: &Call<'_>, y: &mut [f64], dims: &[usize]) -> OpResult<()> {
    let Some(bias) = call.optional(2) else { return Ok(()) };
    let bias = doubles(bias)?;
    if bias.len() != dims[1] {
        refuse!("{} biases for {} channels", bias.len(), dims[1]);
    }
    let size = product(&dims[2..]).max(1);
    y.iter_mut().enumerate().for_each(|(p, y)| *y += bias[p / size % dims[1]]);
    Ok(())
}

/// What onnxruntime writes into files that it has optimised.
fn fused(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let values = call.floats("activation_params")?.unwrap_or_default();
    let value = |i: usize, default: f64| values.get(i).map_or(default, |&v| v.into());
    match call.text("activation", "")? {
        "" => conv_and(call, &|v| v),
        "Relu" => conv_and(call, &|v| v.max(0.0)),
        "Tanh" => conv_and(call, &f64::tanh),
        "Sigmoid" => conv_and(call, &super::unary::sigmoid),
        "LeakyRelu" => conv_and(call, &|v| if v < 0.0 { v * value(0, 0.01) } else { v }),
        "Clip" => conv_and(call, &|v| v.max(value(0, f64::NEG_INFINITY)).min(value(1, f64::INFINITY))),
        "HardSigmoid" => conv_and(call, &|v| (value(0, 0.2) * v + value(1, 0.5)).clamp(0.0, 1.0)),
        other => refuse!("activation is {other:?}"),
    }
}

/// The windows of a transposed convolution of an input `[n, c, ..]` by weights `[c, m / groups, ..]`, which fit it.
pub(crate) fn transposed_axes(call: &Call<'_>, input: &[usize], weights: &[usize]) -> OpResult<Vec<Axis>> {
    let groups = groups(call)?;
    let fits = weights.len() == input.len() && weights.len() > 1 && weights[0] == input[1];
    if !fits || !weights[0].is_multiple_of(groups) {
        refuse!("weights {weights:?} in {groups} groups for an input {input:?}");
    }
    let mut axes = unpadded(call, spatial_of(input)?, &weights[2..])?;
    let rank = axes.len();
    let (auto, fixed) = (auto_pad(call)?, pads(call, rank)?);
    let more = checked_dims(&per_axis(call, "output_padding", rank, 0)?)?;
    let wanted = call.ints("output_shape")?.map(checked_dims).transpose()?;
    for i in 0..rank {
        let axis = &mut axes[i];
        let full = (axis.input.saturating_sub(1)) * axis.stride + axis.span() + more[i];
        let same = auto.starts_with("SAME");
        let output = match &wanted {
            Some(wanted) if wanted.len() >= rank => Some(wanted[wanted.len() - rank + i]),
            Some(wanted) => refuse!("output_shape is {wanted:?} for {rank} dimensions"),
            None if same => Some(axis.input * axis.stride),
            None => None,
        };
        axis.pads = match output {
            Some(output) => {
                let total = full.saturating_sub(output);
                let (less, more) = (total / 2, total - total / 2);
                if auto == "SAME_UPPER" { [less, more] } else { [more, less] }
            }
            None if auto == "VALID" => [0, 0],
            None => fixed[i],
        };
        axis.output = match (output, full.checked_sub(axis.pads[0] + axis.pads[1])) {
            (Some(output), _) => output,
            (None, Some(output)) => output,
            (None, None) => refuse!("padding of {:?} leaves nothing of {full} elements", axis.pads),
        };
    }
    Ok(axes)
}

fn transposed(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    kernel(call, w)?;
    let axes = transposed_axes(call, x.dims(), w.dims())?;
    let groups = groups(call)?;
    let (n, c, each_m) = (x.dims()[0], x.dims()[1], w.dims()[1]);
    let m = each_m * groups;
    let dims: Vec<usize> = [n, m].into_iter().chain(axes.iter().map(|a| a.output)).collect();
    let mut y = filled(0.0, checked_count(&dims)?)?;
    let kernel: Vec<usize> = axes.iter().map(|a| a.kernel).collect();
    let input = &x.dims()[2..];
    let (taps, in_size, out_size) = (product(&kernel), product(input), product(&dims[2..]));
    let strides = contiguous(&dims[2..]);
    let (xs, ws) = (doubles(x)?, doubles(w)?);
    let tap_places: Vec<Vec<usize>> = places(&kernel).collect();
    // Where each input element goes through each tap.
    let targets: Vec<Vec<Option<usize>>> = places(input)
        .map(|from| {
            let to = |tap: &Vec<usize>| {
                let at = axes.iter().zip(&from).zip(tap).zip(&strides);
                at.map(|(((a, &i), &k), &s)| {
                    let o = (i * a.stride + k * a.dilation).checked_sub(a.pads[0]).filter(|&o| o < a.output)?;
                    Some(o * s as usize)
                })
                .sum::<Option<usize>>()
            };
            tap_places.iter().map(to).collect()
        })
        .collect();
    for (image, i) in (0..n * c).map(|p| (p / c, p % c)) {
        let group = i / (c / groups);
        for o in 0..each_m {
            let y = &mut y[(image * m + group * each_m + o) * out_size..][..out_size];
            let w = &ws[(i * each_m + o) * taps..][..taps];
            for (x, targets) in xs[(image * c + i) * in_size..][..in_size].iter().zip(&targets) {
                targets.iter().zip(w).for_each(|(to, w)| {
                    if let Some(to) = to {
                        y[*to] += x * w;
                    }
                });
            }
        }
    }
    add_bias(call, &mut y, &dims)?;
    Ok(vec![rounded(dims, y, x.element())?])
}

/// A convolution whose taps lie where a second input says, read by bilinear interpolation.
fn deformed(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, w, offset) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let axes = windows(call, spatial(x)?, &kernel(call, w)?, false)?;
    let problem = Problem::new(call, x, w, &axes)?;
    let Ok([ah, aw]) = <[Axis; 2]>::try_from(&axes[..]) else {
        refuse!("{} dimensions, but two are needed", axes.len())
    };
    let offset_groups = usize::try_from(call.int("offset_group", 1)?).unwrap_or(0);
    let (taps, pixels) = (ah.kernel * aw.kernel, ah.output * aw.output);
    let per_image = offset_groups * taps * pixels;
    if offset_groups == 0 || !problem.c.is_multiple_of(offset_groups) || offset.len() != problem.n * per_image * 2 {
        refuse!("offsets {:?} in {offset_groups} groups", offset.dims());
    }
    let (xs, ws, offsets) = (doubles(x)?, doubles(w)?, doubles(offset)?);
    let mask = call.optional(4).map(doubles).transpose()?;
    if mask.as_ref().is_some_and(|mask| mask.len() != problem.n * per_image) {
        refuse!("a mask that does not fit offsets {:?}", offset.dims());
    }
    let (h, wide) = (ah.input, aw.input);
    let sample = |plane: &[f64], y: f64, x: f64| {
        let (top, left) = (y.floor(), x.floor());
        let (fy, fx) = (y - top, x - left);
        let at = |y: f64, x: f64| match (0.0..h as f64).contains(&y) && (0.0..wide as f64).contains(&x) {
            true => plane[y as usize * wide + x as usize],
            false => 0.0,
        };
        (1.0 - fy) * ((1.0 - fx) * at(top, left) + fx * at(top, left + 1.0))
            + fy * ((1.0 - fx) * at(top + 1.0, left) + fx * at(top + 1.0, left + 1.0))
    };
    let dims = problem.output_dims();
    let mut out = filled(0.0, checked_count(&dims)?)?;
    let (each, each_m) = (problem.c / problem.groups, problem.m / problem.groups);
    for (p, out) in out.iter_mut().enumerate() {
        let (image, o, pixel) = (p / (problem.m * pixels), p / pixels % problem.m, p % pixels);
        let (row, col) = (pixel / aw.output, pixel % aw.output);
        for i in 0..each {
            let channel = o / each_m * each + i;
            let plane = &xs[(image * problem.c + channel) * h * wide..][..h * wide];
            let group = channel / (problem.c / offset_groups);
            for k in 0..taps {
                let tap = (image * offset_groups + group) * taps + k;
                let shift = |which: usize| offsets[(tap * 2 + which) * pixels + pixel];
                let y = (row * ah.stride + k / aw.kernel * ah.dilation) as f64 - ah.pads[0] as f64 + shift(0);
                let x = (col * aw.stride + k % aw.kernel * aw.dilation) as f64 - aw.pads[0] as f64 + shift(1);
                let scale = mask.as_ref().map_or(1.0, |mask| mask[tap * pixels + pixel]);
                *out += scale * ws[(o * each + i) * taps + k] * sample(plane, y, x);
            }
        }
    }
    if let Some(bias) = call.optional(3) {
        let bias = doubles(bias)?;
        if bias.len() != problem.m {
            refuse!("{} biases for {} channels", bias.len(), problem.m);
        }
        out.iter_mut().enumerate().for_each(|(p, y)| *y += bias[p / pixels % problem.m]);
    }
    Ok(vec![rounded(dims, out, x.element())?])
}

/// Sums columns of windows back into an image.
fn col2im(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let image = checked_dims(&call.integers(1)?.unwrap_or_default())?;
    let block = checked_dims(&call.integers(2)?.unwrap_or_default())?;
    let axes = windows(call, &image, &block, false)?;
    let (taps, windows) = (product(&block), axes.iter().map(|a| a.output).product::<usize>());
    let Ok([n, rows, l]) = <[usize; 3]>::try_from(x.dims()) else { refuse!("dimensions {:?}", x.dims()) };
    if l != windows || !rows.is_multiple_of(taps) {
        refuse!("columns {:?}, but {windows} windows of {taps} elements", x.dims());
    }
    let (c, size) = (rows / taps, product(&image));
    let dims = [&[n, c][..], &image].concat();
    let mut y = filled(0.0, checked_count(&dims)?)?;
    let v = doubles(x)?;
    let output: Vec<usize> = axes.iter().map(|a| a.output).collect();
    let strides = contiguous(&image);
    for (k, tap) in places(&block).enumerate() {
        for (o, at) in places(&output).enumerate() {
            let steps = axes.iter().zip(&at).zip(&tap).zip(&strides);
            let to = steps.map(|(((a, &o), &k), &s)| a.input_at(o, k).map(|i| i * s as usize)).sum::<Option<usize>>();
            let Some(to) = to else { continue };
            for p in 0..n * c {
                y[p * size + to] += v[(p * taps + k) * l + o];
            }
        }
    }
    Ok(vec![rounded(dims, y, x.element())?])
}
