use crate::shape::ConvShape;

/// Forward convolution of `x` `[n, ic, ih, iw]` with `w` `[oc, ic / groups, kh, kw]`, `[n, oc, oh, ow]` in f64.
///
/// # Panics
/// If a slice is shorter than the shape says.
pub fn conv2d(s: &ConvShape, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f64> {
    let plane = s.oh * s.ow;
    let mut y: Vec<f64> =
        (0..s.n * s.oc * plane).map(|i| bias.map_or(0.0, |b| f64::from(b[i / plane % s.oc]))).collect();
    for_each_product(s, |xi, wi, yi| y[yi] += f64::from(x[xi]) * f64::from(w[wi]));
    y
}

/// Gradient of [`conv2d`] at its input, `[n, ic, ih, iw]` in f64, from the gradient `dy` `[n, oc, oh, ow]` at its output:
/// the transposed convolution of `dy` with `w` `[oc, ic / groups, kh, kw]`.
///
/// # Panics
/// If a slice is shorter than the shape says.
pub fn conv2d_backward_data(s: &ConvShape, dy: &[f32], w: &[f32]) -> Vec<f64> {
    let mut dx = vec![0.0; s.n * s.ic * s.ih * s.iw];
    for_each_product(s, |xi, wi, yi| dx[xi] += f64::from(dy[yi]) * f64::from(w[wi]));
    dx
}

/// Gradient of [`conv2d`] at its weights, `[oc, ic / groups, kh, kw]` in f64, from the input `x` `[n, ic, ih, iw]` and the
/// gradient `dy` `[n, oc, oh, ow]` at the output.
///
/// # Panics
/// If a slice is shorter than the shape says.
pub fn conv2d_backward_weights(s: &ConvShape, x: &[f32], dy: &[f32]) -> Vec<f64> {
    let mut dw = vec![0.0; s.oc * s.icg() * s.kh * s.kw];
    for_each_product(s, |xi, wi, yi| dw[wi] += f64::from(x[xi]) * f64::from(dy[yi]));
    dw
}

/// Gradient of [`conv2d`] at its bias, `[oc]` in f64: the sum of `dy` `[n, oc, oh, ow]` over images and pixels.
///
/// # Panics
/// If a slice is shorter than the shape says.
pub fn conv2d_backward_bias(s: &ConvShape, dy: &[f32]) -> Vec<f64> {
    let plane = s.oh * s.ow;
    let mut db = vec![0.0; s.oc];
    dy[..s.n * s.oc * plane].iter().enumerate().for_each(|(i, v)| db[i / plane % s.oc] += f64::from(*v));
    db
}

/// Calls `f` with the positions of an input, a weight and an output for every product of the convolution, weight by weight.
/// A convolution is linear in its input and in its weights, so the same products make its gradients.
fn for_each_product(s: &ConvShape, mut f: impl FnMut(usize, usize, usize)) {
    let (icg, ocg) = (s.icg(), s.ocg());
    let rows: Vec<_> = (0..s.kh).map(|ky| inside(s.oh, s.sh, ky * s.dh, s.pad.top, s.ih)).collect();
    let columns: Vec<_> = (0..s.kw).map(|kx| inside(s.ow, s.sw, kx * s.dw, s.pad.left, s.iw)).collect();
    for n in 0..s.n {
        for o in 0..s.oc {
            for c in 0..icg {
                for (ky, rows) in rows.iter().enumerate() {
                    for (kx, columns) in columns.iter().enumerate() {
                        let wi = ((o * icg + c) * s.kh + ky) * s.kw + kx;
                        for (oy, iy) in rows {
                            let x_row = ((n * s.ic + o / ocg * icg + c) * s.ih + iy) * s.iw;
                            let y_row = ((n * s.oc + o) * s.oh + oy) * s.ow;
                            for (ox, ix) in columns {
                                f(x_row + ix, wi, y_row + ox);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Outputs along an axis, with the input that a tap lies at, where that is inside.
fn inside(outputs: usize, stride: usize, tap: usize, pad: usize, inputs: usize) -> Vec<(usize, usize)> {
    let lies = |o: usize| Some((o, (o * stride + tap).checked_sub(pad)?));
    (0..outputs).filter_map(lies).filter(|&(_, i)| i < inputs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small integers, for which every sum below is exact.
    fn integers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729 + i / 13) % 11) as f32 - 5.0).collect()
    }

    /// Central differences of the scalar `sum(dy * conv2d(x, w, b))`, one element of `at` after the other.
    fn differences(at: &[f32], loss: impl Fn(&[f32]) -> f64) -> Vec<f64> {
        let mut moved = at.to_vec();
        (0..at.len())
            .map(|i| {
                let mut at_offset = |h: f32| {
                    moved[i] = at[i] + h;
                    let value = loss(&moved);
                    moved[i] = at[i];
                    value
                };
                at_offset(0.5) - at_offset(-0.5)
            })
            .collect()
    }

    /// The loss is linear in each operand, and all numbers are halves of integers: differences equal gradients exactly.
    #[test]
    fn gradients_are_central_differences() {
        let conv = |input, weights| ConvShape::builder(input, weights);
        let shapes = [
            conv([2, 4, 5, 6], [6, 2, 3, 2]).stride([2, 1]).dilation([1, 2]).padding([1, 0, 2, 3]).groups(2).build(),
            conv([1, 3, 7, 5], [2, 3, 3, 3]).stride([2, 3]).padding(1).build(),
            conv([2, 3, 4, 4], [6, 1, 2, 2]).stride(3).dilation(2).padding([3, 2, 1, 4]).groups(3).build(),
            conv([1, 2, 2, 2], [2, 2, 2, 2]).stride(2).padding(3).build(),
        ];
        for shape in shapes {
            let s = shape.unwrap();
            let x = integers(s.n * s.ic * s.ih * s.iw, 1);
            let w = integers(s.oc * s.icg() * s.kh * s.kw, 2);
            let b = integers(s.oc, 3);
            let dy = integers(s.n * s.oc * s.oh * s.ow, 4);
            let loss = |x: &[f32], w: &[f32], b: &[f32]| -> f64 {
                conv2d(&s, x, w, Some(b)).iter().zip(&dy).map(|(y, dy)| y * f64::from(*dy)).sum()
            };
            assert_eq!(conv2d_backward_data(&s, &dy, &w), differences(&x, |x| loss(x, &w, &b)), "{s:?}");
            assert_eq!(conv2d_backward_weights(&s, &x, &dy), differences(&w, |w| loss(&x, w, &b)), "{s:?}");
            assert_eq!(conv2d_backward_bias(&s, &dy), differences(&b, |b| loss(&x, &w, b)), "{s:?}");
        }
    }
}
