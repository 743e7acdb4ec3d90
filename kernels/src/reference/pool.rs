use crate::shape::PoolShape;

/// Rows or columns of the input under one window: taps `o * stride + k * dilation - before` that are inside.
fn inside(o: usize, stride: usize, dilation: usize, before: usize, kernel: usize, input: usize) -> Vec<usize> {
    (0..kernel).filter_map(|k| (o * stride + k * dilation).checked_sub(before)).filter(|&i| i < input).collect()
}

/// Max pooling of `x` `[n, c, ih, iw]`: values and flat indices `iy * iw + ix` of the maxima, `[n, c, oh, ow]`.
///
/// As PyTorch: the first of equal maxima wins, a NaN wins over everything, the last NaN over the others. A window
/// without a tap inside (possible with dilation) gives minus infinity and the index `u32::MAX`.
///
/// # Panics
/// If `x` is shorter than the shape says.
pub fn max_pool2d(s: &PoolShape, x: &[f32]) -> (Vec<f64>, Vec<u32>) {
    let (mut y, mut indices) = (Vec::new(), Vec::new());
    for plane in 0..s.n * s.c {
        for (oy, ox) in (0..s.oh).flat_map(|oy| (0..s.ow).map(move |ox| (oy, ox))) {
            let (mut best, mut index) = (f64::NEG_INFINITY, u32::MAX);
            for iy in inside(oy, s.sh, s.dh, s.pad.top, s.kh, s.ih) {
                for ix in inside(ox, s.sw, s.dw, s.pad.left, s.kw, s.iw) {
                    let v = f64::from(x[(plane * s.ih + iy) * s.iw + ix]);
                    if v > best || v.is_nan() || index == u32::MAX {
                        (best, index) = (v, (iy * s.iw + ix) as u32);
                    }
                }
            }
            y.push(best);
            indices.push(index);
        }
    }
    (y, indices)
}

/// Average pooling of `x` `[n, c, ih, iw]`, `[n, c, oh, ow]`.
///
/// As PyTorch: the divisor counts the window's elements inside the input, and with `count_include_pad` those in
/// the padding too, but never those that ceil mode lets hang over the padding's edge. A window of padding alone gives 0.
///
/// # Panics
/// If `x` is shorter than the shape says.
pub fn avg_pool2d(s: &PoolShape, count_include_pad: bool, x: &[f32]) -> Vec<f64> {
    let mut y = Vec::new();
    for plane in 0..s.n * s.c {
        for (oy, ox) in (0..s.oh).flat_map(|oy| (0..s.ow).map(move |ox| (oy, ox))) {
            let iys = inside(oy, s.sh, 1, s.pad.top, s.kh, s.ih);
            let ixs = inside(ox, s.sw, 1, s.pad.left, s.kw, s.iw);
            let sum: f64 =
                iys.iter().flat_map(|iy| ixs.iter().map(move |ix| f64::from(x[(plane * s.ih + iy) * s.iw + ix]))).sum();
            let padded_h = (oy * s.sh + s.kh).min(s.ih + s.pad.top + s.pad.bottom) - oy * s.sh;
            let padded_w = (ox * s.sw + s.kw).min(s.iw + s.pad.left + s.pad.right) - ox * s.sw;
            let count = if count_include_pad { padded_h * padded_w } else { iys.len() * ixs.len() };
            y.push(if iys.is_empty() || ixs.is_empty() { 0.0 } else { sum / count as f64 });
        }
    }
    y
}

/// Adaptive average pooling of `x` `[n, c, ih, iw]` to `[n, c, oh, ow]`: output `o` averages the inputs from
/// `floor(o * in / out)` to before `ceil((o + 1) * in / out)`.
///
/// # Panics
/// If `x` is shorter than the extents say.
pub fn adaptive_avg_pool2d([n, c, ih, iw]: [usize; 4], [oh, ow]: [usize; 2], x: &[f32]) -> Vec<f64> {
    let range = |o: usize, input: usize, output: usize| o * input / output..((o + 1) * input).div_ceil(output);
    let mut y = Vec::new();
    for plane in 0..n * c {
        for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
            let (iys, ixs) = (range(oy, ih, oh), range(ox, iw, ow));
            let count = iys.len() * ixs.len();
            let sum: f64 =
                iys.flat_map(|iy| ixs.clone().map(move |ix| f64::from(x[(plane * ih + iy) * iw + ix]))).sum();
            y.push(sum / count as f64);
        }
    }
    y
}

/// Gradient of max pooling at the input, from the indices that [`max_pool2d`] gives: `outputs` elements of each plane of `pixels`.
pub fn max_pool2d_gradient(planes: usize, pixels: usize, indices: &[u32], dy: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.0; planes * pixels];
    let outputs = dy.len().checked_div(planes).unwrap_or(0);
    for (i, (&index, dy)) in indices.iter().zip(dy).enumerate() {
        if index != u32::MAX {
            dx[i / outputs * pixels + index as usize] += dy;
        }
    }
    dx
}

/// Gradient of average pooling at the input: each output's `dy`, divided as the output was, to each element of its window.
///
/// # Panics
/// If `dy` is shorter than the shape says.
pub fn avg_pool2d_gradient(s: &PoolShape, count_include_pad: bool, dy: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.0; s.n * s.c * s.ih * s.iw];
    for plane in 0..s.n * s.c {
        for (oy, ox) in (0..s.oh).flat_map(|oy| (0..s.ow).map(move |ox| (oy, ox))) {
            let iys = inside(oy, s.sh, 1, s.pad.top, s.kh, s.ih);
            let ixs = inside(ox, s.sw, 1, s.pad.left, s.kw, s.iw);
            let padded_h = (oy * s.sh + s.kh).min(s.ih + s.pad.top + s.pad.bottom) - oy * s.sh;
            let padded_w = (ox * s.sw + s.kw).min(s.iw + s.pad.left + s.pad.right) - ox * s.sw;
            let count = if count_include_pad { padded_h * padded_w } else { iys.len() * ixs.len() };
            for iy in &iys {
                for ix in &ixs {
                    dx[(plane * s.ih + iy) * s.iw + ix] += dy[(plane * s.oh + oy) * s.ow + ox] / count as f64;
                }
            }
        }
    }
    dx
}

/// Gradient of adaptive average pooling at the input.
///
/// # Panics
/// If `dy` is shorter than the extents say.
pub fn adaptive_avg_pool2d_gradient([n, c, ih, iw]: [usize; 4], [oh, ow]: [usize; 2], dy: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.0; n * c * ih * iw];
    for plane in 0..n * c {
        for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
            let (iys, ixs) = (region(oy, ih, oh), region(ox, iw, ow));
            let count = (iys.len() * ixs.len()) as f64;
            for iy in iys {
                for ix in ixs.clone() {
                    dx[(plane * ih + iy) * iw + ix] += dy[(plane * oh + oy) * ow + ox] / count;
                }
            }
        }
    }
    dx
}

fn region(o: usize, input: usize, output: usize) -> core::ops::Range<usize> {
    o * input / output..((o + 1) * input).div_ceil(output)
}

/// Adaptive max pooling of `x` `[n, c, ih, iw]`: values and indices as [`max_pool2d`]'s.
///
/// # Panics
/// If `x` is shorter than the extents say.
pub fn adaptive_max_pool2d([n, c, ih, iw]: [usize; 4], [oh, ow]: [usize; 2], x: &[f32]) -> (Vec<f64>, Vec<u32>) {
    let (mut y, mut indices) = (Vec::new(), Vec::new());
    for plane in 0..n * c {
        for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
            let (mut best, mut index) = (f64::NEG_INFINITY, u32::MAX);
            for iy in region(oy, ih, oh) {
                for ix in region(ox, iw, ow) {
                    let v = f64::from(x[(plane * ih + iy) * iw + ix]);
                    if v > best || v.is_nan() || index == u32::MAX {
                        (best, index) = (v, (iy * iw + ix) as u32);
                    }
                }
            }
            y.push(best);
            indices.push(index);
        }
    }
    (y, indices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::values;

    fn narrow(x: &[f64]) -> Vec<f32> {
        x.iter().map(|&v| v as f32).collect()
    }

    /// Averages are linear, so a step of any size will do, and f32 inputs of whole numbers are exact.
    fn linear(dx: &[f64], dy: &[f64], f: impl Fn(&[f32]) -> Vec<f64>) {
        for i in 0..dx.len() {
            let mut x = vec![0.0; dx.len()];
            x[i] = 1.0;
            let want: f64 = f(&x).iter().zip(dy).map(|(y, dy)| y * dy).sum();
            assert!((dx[i] - want).abs() < 1e-12, "{i}");
        }
    }

    #[test]
    fn gradients_of_averages_are_their_transposes() {
        let s =
            PoolShape::builder([2, 1, 7, 6], [3, 2]).stride([2, 1]).padding([1, 1]).ceil_mode(true).build().unwrap();
        for pad in [false, true] {
            let dy = values(2 * s.oh * s.ow, 1);
            linear(&avg_pool2d_gradient(&s, pad, &dy), &dy, |x| avg_pool2d(&s, pad, x));
        }
        for out in [[1, 1], [3, 5], [9, 4]] {
            let dy = values(2 * out[0] * out[1], 2);
            let dx = adaptive_avg_pool2d_gradient([1, 2, 7, 5], out, &dy);
            linear(&dx, &dy, |x| adaptive_avg_pool2d([1, 2, 7, 5], out, x));
        }
    }

    #[test]
    fn gradients_of_maxima_are_those_of_differences() {
        let s = PoolShape::builder([1, 2, 7, 6], 3).stride(2).padding(1).build().unwrap();
        // Far apart, so that no step changes a maximum.
        let x: Vec<f64> = (0..84).map(|i| f64::from(i * 37 % 84)).collect();
        let (y, indices) = max_pool2d(&s, &narrow(&x));
        let dy = values(y.len(), 3);
        let dx = max_pool2d_gradient(2, 42, &indices, &dy);
        for i in 0..x.len() {
            // Steps of a quarter, which f32 holds.
            let side = |step: f64| {
                let mut x = narrow(&x);
                x[i] += step as f32;
                max_pool2d(&s, &x).0
            };
            let want: f64 = side(0.25).iter().zip(side(-0.25)).zip(&dy).map(|((u, d), dy)| (u - d) / 0.5 * dy).sum();
            assert!((dx[i] - want).abs() < 1e-12, "{i}: {} for {want}", dx[i]);
        }
        let (y, indices) = adaptive_max_pool2d([1, 2, 7, 6], [7, 6], &narrow(&x));
        assert!(y == x && indices.iter().enumerate().all(|(i, &at)| at as usize == i % 42));
    }
}
