//! Images in f64 and NCHW, and what operators do to them, as plainly as can be.

use swath::{ConvShape, Tensor};

/// An NCHW image in f64.
#[derive(Clone, Debug)]
pub struct Image {
    pub dims: [usize; 4],
    pub data: Vec<f64>,
}

impl Image {
    pub fn conv(&self, w: &Tensor, bias: Option<&Tensor>, stride: usize, groups: usize) -> Image {
        let weights: [usize; 4] = w.dims().try_into().unwrap();
        let shape = ConvShape::builder(self.dims, weights).stride(stride).padding(weights[2] / 2).groups(groups);
        let shape = shape.build().unwrap();
        // Rounding the input to f32 once per layer is far below the tolerance.
        let x: Vec<f32> = self.data.iter().map(|&v| v as f32).collect();
        let data = swath_kernels::reference::conv2d(&shape, &x, w.as_slice(), bias.map(|b| b.as_slice()));
        Image { dims: shape.output(), data }
    }

    pub fn map(mut self, f: impl Fn(f64) -> f64) -> Image {
        self.data.iter_mut().for_each(|v| *v = f(*v));
        self
    }

    pub fn add(&self, other: &Image) -> Image {
        Image { dims: self.dims, data: self.data.iter().zip(&other.data).map(|(a, b)| a + b).collect() }
    }

    pub fn concat(parts: &[&Image]) -> Image {
        let [n, _, h, w] = parts[0].dims;
        let c = parts.iter().map(|p| p.dims[1]).sum();
        let image = |p: &Image, i: usize| p.data[i * p.dims[1] * h * w..][..p.dims[1] * h * w].to_vec();
        let data = (0..n).flat_map(|i| parts.iter().flat_map(move |p| image(p, i))).collect();
        Image { dims: [n, c, h, w], data }
    }

    pub fn pool(&self, k: usize, s: usize, pad: usize, f: impl Fn(&[f64]) -> f64) -> Image {
        let [n, c, h, w] = self.dims;
        let (oh, ow) = ((h + 2 * pad - k) / s + 1, (w + 2 * pad - k) / s + 1);
        let mut data = Vec::new();
        for plane in self.data.chunks(h * w).take(n * c) {
            for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
                let inside = |o: usize, size: usize| (o * s..o * s + k).filter(move |p| (pad..pad + size).contains(p));
                let window: Vec<f64> =
                    inside(oy, h).flat_map(|y| inside(ox, w).map(move |x| plane[(y - pad) * w + x - pad])).collect();
                data.push(f(&window));
            }
        }
        Image { dims: [n, c, oh, ow], data }
    }

    /// The image whose element at a place is this one's at `from(place)`.
    pub fn pick(&self, dims: [usize; 4], from: impl Fn([usize; 4]) -> [usize; 4]) -> Image {
        let at = |[i, c, y, x]: [usize; 4], [_, cs, h, w]: [usize; 4]| ((i * cs + c) * h + y) * w + x;
        let place = |p: usize| [3, 2, 1, 0].map(|axis| p / dims[axis + 1..].iter().product::<usize>() % dims[axis]);
        let reversed = |[x, y, c, i]: [usize; 4]| [i, c, y, x];
        let data = (0..dims.iter().product()).map(|p| self.data[at(from(reversed(place(p))), self.dims)]).collect();
        Image { dims, data }
    }

    /// Batch normalisation from weight, bias, mean and variance.
    pub fn normalise(&self, [weight, bias, mean, var]: [&[f32]; 4]) -> Image {
        let [_, c, h, w] = self.dims;
        let one = |(i, v): (usize, &f64)| {
            let k = i / (h * w) % c;
            let [weight, bias, mean, var] = [weight[k], bias[k], mean[k], var[k]].map(f64::from);
            (v - mean) / (var + 1e-5).sqrt() * weight + bias
        };
        Image { dims: self.dims, data: self.data.iter().enumerate().map(one).collect() }
    }

    /// Transposed convolution with a stride of the kernel's size: every input pixel scatters into the output.
    pub fn transpose(&self, weights: &[f32], bias: Option<&[f32]>, oc: usize, [kh, kw]: [usize; 2]) -> Image {
        let [n, ic, h, w] = self.dims;
        let mut image = Image { dims: [n, oc, h * kh, w * kw], data: vec![0.0; n * oc * h * kh * w * kw] };
        for (p, v) in self.data.iter().enumerate() {
            let (x, y, c, i) = (p % w, p / w % h, p / (w * h) % ic, p / (w * h * ic));
            for (k, o) in (0..kh * kw).flat_map(|k| (0..oc).map(move |o| (k, o))) {
                let (oy, ox) = (y * kh + k / kw, x * kw + k % kw);
                let weight = f64::from(weights[(c * oc + o) * kh * kw + k]);
                image.data[((i * oc + o) * h * kh + oy) * w * kw + ox] += v * weight;
            }
        }
        let plane = h * kh * w * kw;
        for (i, v) in image.data.iter_mut().enumerate() {
            *v += bias.map_or(0.0, |b| f64::from(b[i / plane % oc]));
        }
        image
    }
}
