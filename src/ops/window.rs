//! Windows that move over the spatial dimensions: the geometry of convolution and pooling, in any number of dimensions.

use super::error::{OpResult, refuse};
use super::room::checked_count;
use super::{Array, Call};

/// A window along one spatial dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Axis {
    pub input: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    /// Padding before and behind.
    pub pads: [usize; 2],
    pub output: usize,
}

impl Axis {
    /// Elements that the window spans.
    pub fn span(&self) -> usize {
        (self.kernel.saturating_sub(1)).saturating_mul(self.dilation).saturating_add(1)
    }

    /// The input element under tap `k` of the window at `o`; `None` in the padding.
    pub fn input_at(&self, o: usize, k: usize) -> Option<usize> {
        (o * self.stride + k * self.dilation).checked_sub(self.pads[0]).filter(|&i| i < self.input)
    }
}

fn small(value: i64, what: &str, least: usize) -> OpResult<usize> {
    match usize::try_from(value) {
        Ok(value) if value >= least && value <= 1 << 24 => Ok(value),
        _ => refuse!("{what} is {value}"),
    }
}

/// An attribute of one number for each spatial dimension.
pub(crate) fn per_axis(call: &Call<'_>, name: &str, rank: usize, default: i64) -> OpResult<Vec<i64>> {
    match call.ints(name)? {
        None => Ok(vec![default; rank]),
        Some(values) if values.len() == rank => Ok(values.to_vec()),
        Some(values) => refuse!("{name} has {} numbers for {rank} dimensions", values.len()),
    }
}

/// How padding is found.
pub(crate) fn auto_pad<'a>(call: &Call<'a>) -> OpResult<&'a str> {
    match call.text("auto_pad", "NOTSET")? {
        "" => Ok("NOTSET"),
        known @ ("NOTSET" | "VALID" | "SAME_UPPER" | "SAME_LOWER") => Ok(known),
        other => refuse!("auto_pad is {other:?}, but it can be NOTSET, VALID, SAME_UPPER or SAME_LOWER"),
    }
}

/// The spatial dimensions of `[n, c, ..]`.
pub(crate) fn spatial(x: &Array) -> OpResult<&[usize]> {
    spatial_of(x.dims())
}

/// The spatial dimensions among `[n, c, ..]`.
pub(crate) fn spatial_of(dims: &[usize]) -> OpResult<&[usize]> {
    match dims {
        [_, _, spatial @ ..] => Ok(spatial),
        dims => refuse!("dimensions {dims:?}, but [n, c, ..] is needed"),
    }
}

/// Stride, dilation and kernel of each dimension, before padding is known.
pub(crate) fn unpadded(call: &Call<'_>, input: &[usize], kernel: &[usize]) -> OpResult<Vec<Axis>> {
    let strides = per_axis(call, "strides", input.len(), 1)?;
    let dilations = per_axis(call, "dilations", input.len(), 1)?;
    if kernel.len() != input.len() {
        refuse!("a kernel of {kernel:?} for {} dimensions", input.len());
    }
    let axes = (0..input.len()).map(|i| {
        Ok(Axis {
            input: input[i],
            kernel: small(kernel[i] as i64, "an extent of the kernel", 1)?,
            stride: small(strides[i], "a stride", 1)?,
            dilation: small(dilations[i], "a dilation", 1)?,
            pads: [0, 0],
            output: 0,
        })
    });
    axes.collect()
}

/// Padding as the attribute `pads` has it: all before, then all behind.
pub(crate) fn pads(call: &Call<'_>, rank: usize) -> OpResult<Vec<[usize; 2]>> {
    let pads = per_axis(call, "pads", 2 * rank, 0)?;
    (0..rank).map(|i| Ok([small(pads[i], "a padding", 0)?, small(pads[rank + i], "a padding", 0)?])).collect()
}

/// The windows of a convolution or pooling. `ceil` rounds the number of places up, but no window starts behind the input.
pub(crate) fn windows(call: &Call<'_>, input: &[usize], kernel: &[usize], ceil: bool) -> OpResult<Vec<Axis>> {
    let auto = auto_pad(call)?;
    let pads = pads(call, input.len())?;
    let mut axes = unpadded(call, input, kernel)?;
    for (axis, pads) in axes.iter_mut().zip(pads) {
        match auto {
            "SAME_UPPER" | "SAME_LOWER" => {
                axis.output = axis.input.div_ceil(axis.stride);
                let needed = (axis.output.saturating_sub(1)) * axis.stride + axis.span();
                let total = needed.saturating_sub(axis.input);
                let (less, more) = (total / 2, total - total / 2);
                axis.pads = if auto == "SAME_UPPER" { [less, more] } else { [more, less] };
            }
            _ => {
                axis.pads = if auto == "VALID" { [0, 0] } else { pads };
                let padded = axis.input + axis.pads[0] + axis.pads[1];
                let Some(room) = padded.checked_sub(axis.span()) else {
                    refuse!("a window of {} elements on {padded}, padding included", axis.span());
                };
                axis.output = if ceil { room.div_ceil(axis.stride) } else { room / axis.stride } + 1;
                if ceil && (axis.output - 1) * axis.stride >= axis.input + axis.pads[0] {
                    axis.output -= 1;
                }
            }
        }
    }
    checked_count(&axes.iter().map(|a| a.output).collect::<Vec<_>>())?;
    Ok(axes)
}

/// The windows of a convolution of an input by weights, both `[.., .., spatial]`.
#[cfg(feature = "onnx")]
pub(crate) fn window_axes(call: &Call<'_>, input: &[usize], weights: &[usize]) -> OpResult<Vec<Axis>> {
    windows(call, spatial_of(input)?, weights.get(2..).unwrap_or_default(), false)
}

/// The windows of a pooling of an input.
#[cfg(feature = "onnx")]
pub(crate) fn pool_axes(call: &Call<'_>, input: &[usize], kernel: &[usize], ceil: bool) -> OpResult<Vec<Axis>> {
    windows(call, spatial_of(input)?, kernel, ceil)
}

/// Every place of a grid, in order.
pub(crate) fn places(extents: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    let count = if extents.contains(&0) { 0 } else { extents.iter().product() };
    (0..count).map(move |mut p: usize| {
        let mut place = vec![0; extents.len()];
        for (at, &extent) in place.iter_mut().zip(extents).rev() {
            *at = p % extent;
            p /= extent;
        }
        place
    })
}
