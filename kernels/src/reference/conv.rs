use crate::shape::ConvShape;

/// Forward convolution of `x` `[n, ic, ih, iw]` with `w` `[oc, ic / groups, kh, kw]`, `[n, oc, oh, ow]` in f64.
///
/// # Panics
/// If a slice is shorter than the shape says.
pub fn conv2d(s: &ConvShape, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f64> {
    let (icg, ocg) = (s.icg(), s.ocg());
    let mut y = Vec::with_capacity(s.n * s.oc * s.oh * s.ow);
    for n in 0..s.n {
        for o in 0..s.oc {
            for oy in 0..s.oh {
                for ox in 0..s.ow {
                    let mut sum = bias.map_or(0.0, |b| f64::from(b[o]));
                    for c in 0..icg {
                        for ky in 0..s.kh {
                            for kx in 0..s.kw {
                                let (iy, ix) = (oy * s.sh + ky * s.dh, ox * s.sw + kx * s.dw);
                                let (Some(iy), Some(ix)) = (iy.checked_sub(s.pad.top), ix.checked_sub(s.pad.left))
                                else {
                                    continue;
                                };
                                if iy < s.ih && ix < s.iw {
                                    let xi = ((n * s.ic + o / ocg * icg + c) * s.ih + iy) * s.iw + ix;
                                    let wi = ((o * icg + c) * s.kh + ky) * s.kw + kx;
                                    sum += f64::from(x[xi]) * f64::from(w[wi]);
                                }
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
    }
    y
}
