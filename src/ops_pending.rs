//! Stand-ins for kernels that are being written on other branches. Every use in the crate goes through this file, so
//! that replacing them is: delete a module here, import the kernel crate's at its users.
//!
//! * [`act`]: `swath_kernels::act`; users `graph/activation.rs`, `graph/softmax.rs`
//! * [`pool`]: `swath_kernels::pool`; user `graph/pool.rs`
//! * [`conv_fuses`]: goes away when `ConvPlan` applies every activation; user `infer/fuse.rs`
//! * [`algorithm`]: the plan's own name for it; user `graph/conv.rs`

use swath_kernels::epilogue::Activation;

use crate::conv::ConvPlan;

/// Whether `ConvPlan::forward` applies the activation already. The naive stand-in knows ReLU alone.
pub(crate) fn conv_fuses(activation: Activation) -> bool {
    matches!(activation, Activation::Identity | Activation::Relu)
}

/// Name of the plan's algorithm, with a space before it.
pub(crate) fn algorithm(_: &ConvPlan) -> String {
    String::new()
}

pub(crate) mod act {
    use swath_kernels::epilogue::Activation;
    use swath_kernels::isa::Level;

    pub(crate) fn apply(level: Level, activation: Activation, x: &[f32], y: &mut [f32]) {
        y.copy_from_slice(x);
        apply_inplace(level, activation, y);
    }

    pub(crate) fn apply_inplace(_: Level, activation: Activation, y: &mut [f32]) {
        y.iter_mut().for_each(|y| *y = scalar(activation, f64::from(*y)) as f32);
    }

    fn scalar(a: Activation, x: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let softplus = |x: f64| if x > 20.0 { x } else { x.exp().ln_1p() };
        let elu = |x: f64, alpha: f64| if x > 0.0 { x } else { alpha * x.exp_m1() };
        match a {
            Activation::Relu => x.max(0.0),
            Activation::Clip { lo, hi } => x.max(f64::from(lo)).min(f64::from(hi)),
            Activation::LeakyRelu { slope } => x * if x > 0.0 { 1.0 } else { f64::from(slope) },
            Activation::Elu { alpha } => elu(x, f64::from(alpha)),
            Activation::Selu => 1.0507009873554805 * elu(x, 1.6732632423543772),
            Activation::Celu { alpha } => x.max(0.0) + (f64::from(alpha) * (x / f64::from(alpha)).exp_m1()).min(0.0),
            Activation::Sigmoid => sigmoid(x),
            Activation::Tanh => x.tanh(),
            Activation::Gelu => x * normal_cdf(x),
            Activation::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / core::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
            }
            Activation::Silu => x * sigmoid(x),
            Activation::Mish => x * softplus(x).tanh(),
            Activation::Softplus { beta, threshold } => {
                let (b, t) = (f64::from(beta), f64::from(threshold));
                if b * x > t { x } else { (b * x).exp().ln_1p() / b }
            }
            Activation::HardSigmoid => (x + 3.0).clamp(0.0, 6.0) / 6.0,
            Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
            _ => x,
        }
    }

    /// The normal distribution function by Marsaglia's series (2004); it has long died out beyond +-9.
    fn normal_cdf(x: f64) -> f64 {
        if x.abs() > 9.0 {
            return if x > 0.0 { 1.0 } else { 0.0 };
        }
        let (mut sum, mut term, mut i) = (x, x, 1.0);
        while term.abs() > 1e-18 * sum.abs() {
            i += 2.0;
            term *= x * x / i;
            sum += term;
        }
        0.5 + sum * (-0.5 * x * x).exp() / (2.0 * core::f64::consts::PI).sqrt()
    }

    pub(crate) fn softmax(level: Level, rows: usize, cols: usize, x: &[f32], y: &mut [f32]) {
        log_softmax(level, rows, cols, x, y);
        y.iter_mut().for_each(|y| *y = y.exp());
    }

    pub(crate) fn log_softmax(_: Level, rows: usize, cols: usize, x: &[f32], y: &mut [f32]) {
        for r in 0..rows {
            let (x, y) = (&x[r * cols..][..cols], &mut y[r * cols..][..cols]);
            let max = x.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
            let sum: f64 = x.iter().map(|&v| f64::from(v - max).exp()).sum();
            y.iter_mut().zip(x).for_each(|(y, &v)| *y = (f64::from(v - max) - sum.ln()) as f32);
        }
    }
}

pub(crate) mod pool {
    use swath_kernels::layout::Layout;
    use swath_kernels::shape::{PoolShape, taps_inside};

    use crate::graph::forward::Planes;
    use crate::graph::pool::Divisor;

    /// Calls `f(output element, indices of the input elements of its window, output position)`.
    fn windows(s: &PoolShape, layout: Layout, mut f: impl FnMut(usize, &mut dyn Iterator<Item = usize>, [usize; 2])) {
        let from = Planes::new(layout, s.input());
        let mut out = 0;
        for plane in 0..from.planes {
            for oy in 0..s.oh {
                let ky = taps_inside(oy, s.sh, s.dh, s.pad.top, s.kh, s.ih);
                for ox in 0..s.ow {
                    let kx = taps_inside(ox, s.sw, s.dw, s.pad.left, s.kw, s.iw);
                    for k in 0..from.inner {
                        let mut taps = ky.clone().flat_map(|y| {
                            let row = (plane * s.ih + oy * s.sh + y * s.dh - s.pad.top) * s.iw;
                            kx.clone().map(move |x| (row + ox * s.sw + x * s.dw - s.pad.left) * from.inner + k)
                        });
                        f(out, &mut taps, [oy, ox]);
                        out += 1;
                    }
                }
            }
        }
    }

    pub(crate) fn max(s: &PoolShape, layout: Layout, x: &[f32], y: &mut [f32]) {
        windows(s, layout, |o, taps, _| {
            y[o] = taps.fold(f32::NEG_INFINITY, |m, i| if x[i] > m || x[i].is_nan() { x[i] } else { m });
        });
    }

    pub(crate) fn avg(s: &PoolShape, divisor: Divisor, layout: Layout, x: &[f32], y: &mut [f32]) {
        let padded = |o: usize, stride: usize, k: usize, all: usize| (o * stride + k).min(all) - o * stride;
        windows(s, layout, |o, taps, [oy, ox]| {
            let mut inside = 0;
            let sum: f64 = taps.inspect(|_| inside += 1).map(|i| f64::from(x[i])).sum();
            let d = match divisor {
                Divisor::Fixed(d) => d,
                Divisor::Inside => inside,
                Divisor::Padded => {
                    padded(oy, s.sh, s.kh, s.pad.top + s.ih + s.pad.bottom)
                        * padded(ox, s.sw, s.kw, s.pad.left + s.iw + s.pad.right)
                }
            };
            y[o] = (sum / d as f64) as f32;
        });
    }

    pub(crate) fn adaptive_avg(dims: [usize; 4], [oh, ow]: [usize; 2], layout: Layout, x: &[f32], y: &mut [f32]) {
        let Planes { planes, h, w, inner } = Planes::new(layout, dims);
        let cell = |i: usize, size: usize, cells: usize| i * size / cells..((i + 1) * size).div_ceil(cells);
        for (o, y) in y.iter_mut().enumerate() {
            let (k, ox, oy, plane) = (o % inner, o / inner % ow, o / inner / ow % oh, o / inner / ow / oh);
            let (rows, columns) = (cell(oy, h, oh), cell(ox, w, ow));
            let n = (rows.len() * columns.len()) as f64;
            let at = |r: usize, p: usize| f64::from(x[((plane * h + r) * w + p) * inner + k]);
            let sum: f64 = rows.map(|r| columns.clone().map(|p| at(r, p)).sum::<f64>()).sum();
            debug_assert!(plane < planes);
            *y = (sum / n) as f32;
        }
    }
}
