//! Interpolation.

use burn::tensor::Tensor;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use swath::resample::{Filter, Resample, Size};
use swath::{Error, Options, Result};

use crate::operation::{Any, Plain, apply};

/// As [`burn::tensor::module::interpolate`]; its gradient exists for every mode but Lanczos, which swath lacks.
///
/// # Errors
/// For tensors that are not of `f32` on Flex, extents of zero, and Lanczos.
pub fn interpolate(x: Tensor<4>, options: &InterpolateOptions) -> Result<Tensor<4>> {
    let align_corners = options.align_corners;
    let filter = match options.mode {
        InterpolateMode::Nearest => Filter::Nearest,
        InterpolateMode::NearestExact => Filter::NearestExact,
        InterpolateMode::Bilinear => Filter::Bilinear { align_corners },
        InterpolateMode::Bicubic => Filter::Bicubic { align_corners },
        InterpolateMode::Lanczos3 => return Err(missing("the mode", "Lanczos3", "swath has no such filter")),
    };
    let [_, _, h, w] = x.dims();
    let size = match (options.output_size, options.scale_factor) {
        (Some(size), _) => size,
        (None, Some([v, u])) => [(h as f64 * f64::from(v)) as usize, (w as f64 * f64::from(u)) as usize],
        (None, None) => return Err(missing("the size", "missing", "interpolate takes a size or a factor")),
    };
    let plan = Resample::resize(x.dims(), Size::To(size), filter, &Options::default())?;
    let output = plan.output();
    apply(Plain(plan, output), [Any::Four(x)])
}

fn missing(what: &'static str, value: &str, rule: &str) -> Error {
    Error::Setting { what, value: value.into(), rule: rule.into() }
}
