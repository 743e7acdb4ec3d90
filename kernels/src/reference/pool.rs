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
