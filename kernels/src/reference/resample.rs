use crate::resample::{Filter, PadMode};

/// What each output of an axis is made of: inputs and their weights.
pub type Taps = Vec<Vec<(usize, f64)>>;

/// Interpolation along one axis, straight from the kernel functions: nearest, the triangle, Keys' cubic with a = -3/4; inputs beyond an edge are the
/// edge's. `scale` is input / output or 1 / factor.
pub fn resize_taps(input: usize, output: usize, scale: f64, filter: Filter) -> Taps {
    let (align, width) = match filter {
        Filter::Bilinear { align_corners } => (align_corners, 1.0),
        Filter::Bicubic { align_corners } => (align_corners, 2.0),
        _ => (false, 0.0),
    };
    let kernel = |d: f64| {
        let d = d.abs();
        match (width as usize, d) {
            (1, d) => (1.0 - d).max(0.0),
            (_, d) if d <= 1.0 => 1.25 * d.powi(3) - 2.25 * d.powi(2) + 1.0,
            (_, d) if d < 2.0 => -0.75 * (d.powi(3) - 5.0 * d.powi(2) + 8.0 * d - 4.0),
            _ => 0.0,
        }
    };
    (0..output)
        .map(|o| {
            let half = match filter {
                // The product decides which pixel is nearest: it is one of f32, as PyTorch's is.
                Filter::Nearest => return vec![(((o as f64 * scale) as f32 as usize).min(input - 1), 1.0)],
                Filter::NearestExact => {
                    return vec![((((o as f64 + 0.5) * scale) as f32 as usize).min(input - 1), 1.0)];
                }
                _ if align && output == 1 => 0.0,
                _ if align => o as f64 * (input - 1) as f64 / (output - 1) as f64,
                _ => (o as f64 + 0.5) * scale - 0.5,
            };
            let at = if width == 1.0 { half.max(0.0) } else { half };
            let near = (at - width).floor() as isize..=(at + width).ceil() as isize;
            near.map(|i| (i.clamp(0, input as isize - 1) as usize, kernel(at - i as f64))).collect()
        })
        .collect()
}

/// Padding along one axis: PyTorch's index for each mode, and nothing where a constant goes.
pub fn pad_taps(input: usize, [before, after]: [usize; 2], mode: PadMode) -> Taps {
    (0..before + input + after)
        .map(|o| {
            let (mut i, n) = (o as isize - before as isize, input as isize);
            while !(0..n).contains(&i) {
                i = match mode {
                    PadMode::Constant(_) => return vec![],
                    PadMode::Reflect => {
                        if i < 0 {
                            -i
                        } else {
                            2 * n - 2 - i
                        }
                    }
                    PadMode::Replicate => {
                        if i < 0 {
                            0
                        } else {
                            n - 1
                        }
                    }
                    PadMode::Circular => {
                        if i < 0 {
                            i + n
                        } else {
                            i - n
                        }
                    }
                };
            }
            vec![(i as usize, 1.0)]
        })
        .collect()
}

/// `x` `[planes, ih, iw]` through both axes' taps; `fill` where an axis has none.
pub fn resample(planes: usize, [ih, iw]: [usize; 2], [v, h]: [&Taps; 2], fill: f64, x: &[f64]) -> Vec<f64> {
    let mut y = Vec::with_capacity(planes * v.len() * h.len());
    for plane in 0..planes {
        for (v, h) in v.iter().flat_map(|v| h.iter().map(move |h| (v, h))) {
            if v.is_empty() || h.is_empty() {
                y.push(fill);
                continue;
            }
            let at = |iy: usize, ix: usize| x[(plane * ih + iy) * iw + ix];
            y.push(v.iter().map(|(iy, a)| h.iter().map(|(ix, b)| a * b * at(*iy, *ix)).sum::<f64>()).sum());
        }
    }
    y
}

/// Gradient of [`resample`] at the input.
pub fn resample_gradient(planes: usize, [ih, iw]: [usize; 2], [v, h]: [&Taps; 2], dy: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.0; planes * ih * iw];
    for plane in 0..planes {
        for (oy, ox) in (0..v.len()).flat_map(|oy| (0..h.len()).map(move |ox| (oy, ox))) {
            for (iy, a) in &v[oy] {
                for (ix, b) in &h[ox] {
                    dx[(plane * ih + iy) * iw + ix] += a * b * dy[(plane * v.len() + oy) * h.len() + ox];
                }
            }
        }
    }
    dx
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_gradient, values};

    #[test]
    fn gradients_are_those_of_central_differences() {
        let (x, dy) = (values(2 * 5 * 4, 1), values(2 * 7 * 9, 2));
        for filter in
            [Filter::Nearest, Filter::Bilinear { align_corners: true }, Filter::Bicubic { align_corners: false }]
        {
            let (v, h) = (resize_taps(5, 7, 5.0 / 7.0, filter), resize_taps(4, 9, 4.0 / 9.0, filter));
            let dx = resample_gradient(2, [5, 4], [&v, &h], &dy);
            assert_gradient(&x, &dy, &dx, |x| resample(2, [5, 4], [&v, &h], 0.0, x));
        }
        for mode in [PadMode::Constant(2.0), PadMode::Reflect, PadMode::Replicate, PadMode::Circular] {
            let (v, h) = (pad_taps(5, [2, 0], mode), pad_taps(4, [3, 2], mode));
            let dx = resample_gradient(2, [5, 4], [&v, &h], &dy);
            assert_gradient(&x, &dy, &dx, |x| resample(2, [5, 4], [&v, &h], 2.0, x));
        }
    }
}
