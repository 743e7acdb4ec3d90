//! Problems with their data, runs of every algorithm between protected pages, and an executor with real threads.

use swath_kernels::bf16x6::Bf16x6;
use swath_kernels::depthwise::Depthwise;
use swath_kernels::direct::{Blocking, Direct};
use swath_kernels::epilogue::{Activation, Epilogue};
use swath_kernels::exec::{Executor, Inline};
use swath_kernels::gemm::{self, Im2col};
use swath_kernels::isa::Level;
use swath_kernels::isa::matrix::MatrixUnit;
use swath_kernels::layout::{Layout, reorder};
use swath_kernels::machine::Core;
use swath_kernels::planar::Planar;
use swath_kernels::reference;
use swath_kernels::shape::ConvShape;
use swath_kernels::winograd::{Variant, Winograd};

use crate::threads::pages::{Pages, Side};

pub use crate::threads::{Threads, bits};

/// Small integers: their sums are exact in f32, so results compare bit for bit.
pub fn integers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % 7) as f32 - 3.0
        })
        .collect()
}

/// Runs `f` on a NaN-filled output at a protected page, and returns the output.
pub fn guarded(len: usize, f: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut y = Pages::nan(len, Side::End);
    f(&mut y);
    y.to_vec()
}

/// What the convolutions of all families have in common.
pub trait Convolution {
    fn packed_len(&self) -> usize;
    fn scratch_len(&self) -> usize;
    fn pack(&self, w: &[f32], packed: &mut [f32]);
    fn forward(
        &self,
        x: &[f32],
        packed: &[f32],
        epilogue: &Epilogue<'_>,
        y: &mut [f32],
        scratch: &mut [f32],
        executor: &dyn Executor,
    );
}

macro_rules! convolutions {
    ($($family:ty)*) => {$(
        impl Convolution for $family {
            fn packed_len(&self) -> usize {
                self.packed_len()
            }
            fn scratch_len(&self) -> usize {
                self.scratch_len()
            }
            fn pack(&self, w: &[f32], packed: &mut [f32]) {
                self.pack(w, packed);
            }
            fn forward(
                &self,
                x: &[f32],
                packed: &[f32],
                epilogue: &Epilogue<'_>,
                y: &mut [f32],
                scratch: &mut [f32],
                executor: &dyn Executor,
            ) {
                self.forward(x, packed, epilogue, y.into(), scratch, executor);
            }
        }
    )*};
}

convolutions! { Direct Depthwise Winograd Bf16x6 Im2col }

impl Convolution for Planar {
    fn packed_len(&self) -> usize {
        self.packed_len()
    }
    fn scratch_len(&self) -> usize {
        0
    }
    fn pack(&self, w: &[f32], packed: &mut [f32]) {
        self.pack(w, packed);
    }
    fn forward(
        &self,
        x: &[f32],
        packed: &[f32],
        epilogue: &Epilogue<'_>,
        y: &mut [f32],
        _: &mut [f32],
        executor: &dyn Executor,
    ) {
        self.forward(x, packed, epilogue, y.into(), executor);
    }
}

/// What an algorithm promises.
#[derive(Clone)]
struct Promise {
    /// How far a finite result may be off.
    bound: f64,
    /// Outputs, in NCHW, that an input which is not finite may make NaN, whatever the defining sum is; none if empty.
    spoilt: Vec<bool>,
}

/// The defining sum.
const EXACT: Promise = Promise { bound: 0.0, spoilt: Vec::new() };

/// A problem with its data in NCHW, and its exact result.
pub struct Problem {
    pub shape: ConvShape,
    pub x: Vec<f32>,
    pub w: Vec<f32>,
    pub bias: Vec<f32>,
    pub residual: Vec<f32>,
    pub want: Vec<f64>,
}

impl Problem {
    pub fn new(shape: ConvShape, seed: u64) -> Self {
        Self::of(shape, seed, integers(Layout::Nchw.len(shape.input()), seed))
    }

    /// With a NaN or an infinity in a few inputs, or all over a channel.
    pub fn spoilt(shape: ConvShape, seed: u64) -> Self {
        let mut x = integers(Layout::Nchw.len(shape.input()), seed);
        if !x.is_empty() {
            let value = |i: u64| [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][(seed / 7 + i) as usize % 3];
            let at = |i: u64| (seed + i).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize % x.len();
            let places: Vec<_> = (0..1 + seed % 4).map(|i| (at(i), value(i))).collect();
            let plane = shape.ih * shape.iw;
            if seed % 5 == 1 {
                let (at, value) = places[0];
                x[at / plane * plane..][..plane].fill(value);
            }
            places.into_iter().for_each(|(at, value)| x[at] = value);
        }
        Self::of(shape, seed, x)
    }

    /// Of ones alone.
    pub fn ones(shape: ConvShape) -> Self {
        let mut problem = Self::new(shape, 0);
        problem.x.fill(1.0);
        problem.w.fill(1.0);
        problem.want = reference::conv2d(&shape, &problem.x, &problem.w, None);
        problem
    }

    /// The same with `value` all over an input channel of every image.
    pub fn set_channel(&mut self, channel: usize, value: f32) {
        let plane = self.shape.ih * self.shape.iw;
        for (_, plane) in self.x.chunks_mut(plane).enumerate().filter(|(i, _)| i % self.shape.ic == channel) {
            plane.fill(value);
        }
        self.want = reference::conv2d(&self.shape, &self.x, &self.w, None);
    }

    fn of(shape: ConvShape, seed: u64, x: Vec<f32>) -> Self {
        let w = integers(shape.weights().iter().product(), seed + 1);
        let bias = integers(shape.oc, seed + 2);
        let residual = integers(Layout::Nchw.len(shape.output()), seed + 3);
        let want = reference::conv2d(&shape, &x, &w, None);
        Self { shape, x, w, bias, residual, want }
    }

    fn input(&self, layout: Layout) -> Vec<f32> {
        let mut x = vec![f32::NAN; layout.len(self.shape.input())];
        reorder(Layout::Nchw, &self.x, layout, &mut x, self.shape.input());
        x
    }

    /// Bias, residual and activation together, so that all of an epilogue is seen.
    fn finished(&self, activation: impl Fn(f64) -> f64) -> Vec<f64> {
        let plane = self.shape.oh * self.shape.ow;
        self.want
            .iter()
            .enumerate()
            .map(|(i, v)| v + f64::from(self.bias[i / plane % self.shape.oc]) + f64::from(self.residual[i]))
            .map(activation)
            .collect()
    }

    /// Outputs of which the tile of `tile` outputs, whose windows have all taps, meets an input that is not finite.
    fn spoilt_outputs(&self, tile: [usize; 2]) -> Vec<bool> {
        let s = &self.shape;
        let meets = |first, tile, kernel, stride, dilation, before, input: usize| {
            let (reach, start): (usize, usize) = ((tile - 1) * stride + (kernel - 1) * dilation + 1, first * stride);
            start.saturating_sub(before).min(input)..(start + reach).saturating_sub(before).min(input)
        };
        let spoilt = |n: usize, oy: usize, ox: usize| {
            let ys = meets(oy / tile[0] * tile[0], tile[0], s.kh, s.sh, s.dh, s.pad.top, s.ih);
            let xs = meets(ox / tile[1] * tile[1], tile[1], s.kw, s.sw, s.dw, s.pad.left, s.iw);
            (n * s.ic..(n + 1) * s.ic)
                .any(|plane| ys.clone().any(|y| xs.clone().any(|x| !self.x[(plane * s.ih + y) * s.iw + x].is_finite())))
        };
        let pixel = |i: usize| spoilt(i / (s.oc * s.oh * s.ow), i / s.ow % s.oh, i % s.ow);
        (0..self.want.len()).map(pixel).collect()
    }

    /// The most that a Winograd result may be off: 0 for F(2), whose factors are powers of two.
    fn winograd_bound(&self, variant: Variant) -> f64 {
        let size = |v: &f32| f64::from(v.abs());
        let sum_w = self.w.chunks(self.shape.ic * 9).map(|w| w.iter().map(size).sum()).fold(0.0, f64::max);
        let max_x = self.x.iter().filter(|v| v.is_finite()).map(size).fold(0.0, f64::max);
        // Adding a bias and a residual of at most 3 each rounds the sum twice more.
        let rounds = 2f64.powi(-23) * (max_x * sum_w + 6.0);
        if variant == Variant::F2 { 0.0 } else { variant.bound(self.shape.ic, max_x, sum_w) + rounds }
    }

    /// Compares an output in `layout` with the wanted values, and its padding channels with zero.
    fn check(&self, got: &[f32], layout: Layout, want: &[f64], promise: &Promise, what: &str) {
        let dims = self.shape.output();
        let mut nchw = vec![f32::NAN; Layout::Nchw.len(dims)];
        reorder(layout, got, Layout::Nchw, &mut nchw, dims);
        for (i, (g, w)) in nchw.iter().zip(want).enumerate() {
            let (g, w) = (f64::from(*g), *w);
            let right = g == w || (g - w).abs() <= promise.bound || g.is_nan() && w.is_nan();
            let right = right || g.is_nan() && promise.spoilt.get(i) == Some(&true);
            assert!(right, "{what}: element {i} of {dims:?} is {g}, not {w}; {:?}", self.shape);
        }
        if layout == Layout::Blocked {
            let mut back = vec![f32::NAN; got.len()];
            reorder(Layout::Nchw, &nchw, Layout::Blocked, &mut back, dims);
            assert!(bits(got) == bits(&back), "{what}: channels that pad the last block are not zero");
        }
    }

    /// Direct convolution, plain and with the whole epilogue, on 1 and on several threads.
    pub fn direct(&self, level: Level, input: Layout, output: Layout, blocking: Option<Blocking>) -> Direct {
        let d = Direct::with_blocking(&self.shape, Core::here(level), input, output, blocking);
        let what = format!("direct {level} {input:?} to {output:?}, {:?}", d.blocking());
        self.run(&d, [input, output], &what, &EXACT);
        d
    }

    /// Depthwise convolution likewise, where it supports the shape.
    pub fn depthwise(&self, level: Level, input: Layout, output: Layout, pixels: Option<usize>) -> Option<Depthwise> {
        let d = Depthwise::with_pixels(&self.shape, Core::here(level), input, output, pixels).ok()?;
        self.run(&d, [input, output], &format!("depthwise {level} {input:?} to {output:?}, {}", d.kernel()), &EXACT);
        Some(d)
    }

    /// Planar convolution likewise, where it supports the shape, by vectors of so many floats.
    pub fn planar(&self, level: Level, lanes: Option<usize>) -> Option<Planar> {
        let p = Planar::with_lanes(&self.shape, Core::here(level), lanes).ok()?;
        self.run(&p, [Layout::Nchw; 2], &format!("planar {level}, {}", p.kernel()), &EXACT);
        Some(p)
    }

    /// im2col convolution likewise.
    pub fn gemm(&self, level: Level, layouts: [Layout; 2], blocking: Option<gemm::Blocking>) {
        let d = Im2col::with_blocking(&self.shape, Core::here(level), layouts[0], layouts[1], blocking);
        self.run(&d, layouts, &format!("gemm {level} {layouts:?}, {:?}", d.blocking()), &EXACT);
    }

    /// Winograd convolution likewise, where it supports the shape, in chunks of so many tiles.
    pub fn winograd(&self, level: Level, variant: Variant, layouts: [Layout; 2], chunk: Option<usize>) -> Vec<f32> {
        let [input, output] = layouts;
        let Ok(d) = Winograd::with_chunk(&self.shape, Core::here(level), variant, input, output, chunk) else {
            return Vec::new();
        };
        let what = format!("{variant:?} {level} {input:?} to {output:?}, chunks of {}", d.chunk());
        let spoilt = self.spoilt_outputs([variant.tile(); 2]);
        self.run(&d, layouts, &what, &Promise { bound: self.winograd_bound(variant), spoilt })
    }

    /// Convolution on a matrix unit likewise, where it supports the shape, in parts of at most so many rows or pixels.
    pub fn bf16x6(&self, level: Level, unit: MatrixUnit, layouts: [Layout; 2], most: Option<usize>) -> Vec<f32> {
        let [input, output] = layouts;
        let Ok(d) = Bf16x6::with_most(&self.shape, Core::here(level), unit, input, output, most) else {
            return Vec::new();
        };
        // Small integers have no other part than the high one, and their sums are exact.
        let promise = Promise { bound: 0.0, spoilt: self.spoilt_outputs([1, 1]) };
        self.run(&d, layouts, &format!("{} {level} {input:?} to {output:?}", d.kernel()), &promise)
    }

    /// Runs with a bias, on an executor with scratch for so many threads.
    pub fn forward(
        &self,
        conv: &dyn Convolution,
        [input, output]: [Layout; 2],
        executor: &dyn Executor,
        slots: usize,
    ) -> Vec<f32> {
        let mut packed = Pages::nan(conv.packed_len(), Side::End);
        conv.pack(&self.w, &mut packed);
        let x = Pages::copy(&self.input(input), Side::End);
        let mut scratch = Pages::nan(conv.scratch_len() * slots, Side::End);
        let e = Epilogue::bias(&self.bias);
        guarded(output.len(self.shape.output()), |y| conv.forward(&x, &packed, &e, y, &mut scratch, executor))
    }

    /// Runs without and with an epilogue, with every buffer before and behind a protected page; the result of the latter.
    fn run(&self, conv: &dyn Convolution, [input, output]: [Layout; 2], what: &str, promise: &Promise) -> Vec<f32> {
        let len = output.len(self.shape.output());
        let mut residual = vec![f32::NAN; len];
        reorder(Layout::Nchw, &self.residual, output, &mut residual, self.shape.output());
        let mut results = Side::BOTH.map(|side| {
            let at_page = |v: &[f32]| Pages::copy(v, side);
            let (x, w) = (at_page(&self.input(input)), at_page(&self.w));
            let (bias, residual) = (at_page(&self.bias), at_page(&residual));
            let mut packed = Pages::nan(conv.packed_len(), side);
            conv.pack(&w, &mut packed);
            let forward = |e: &Epilogue<'_>, executor: &dyn Executor| {
                let mut y = Pages::nan(len, side);
                // Of more threads than there is scratch for, some stand by.
                let mut scratch = Pages::nan(conv.scratch_len() * executor.threads().min(3), side);
                conv.forward(&x, &packed, e, &mut y, &mut scratch, executor);
                y.to_vec()
            };
            self.check(&forward(&Epilogue::none(), &Inline), output, &self.want, promise, what);
            let e = Epilogue::bias(&bias).residual(&residual).activation(Activation::Clip { lo: 0.0, hi: 6.0 });
            let whole = forward(&e, &Inline);
            self.check(&whole, output, &self.finished(|v| v.clamp(0.0, 6.0)), promise, what);
            // Those of which zeros are no fixed point, so that channels that pad show them; a clamp, and one that is not.
            let y = forward(&e.activation(Activation::Clip { lo: 0.5, hi: 2.0 }), &Inline);
            self.check(&y, output, &self.finished(|v| v.clamp(0.5, 2.0)), promise, what);
            let y = forward(&e.activation(Activation::HardSigmoid), &Inline);
            let rounded = Promise { bound: promise.bound + 1e-6, ..promise.clone() };
            self.check(&y, output, &self.finished(|v| (v / 6.0 + 0.5).clamp(0.0, 1.0)), &rounded, what);
            for threads in if side == Side::End { &[2, 3, 8][..] } else { &[] } {
                let y = forward(&e, &Threads(*threads));
                assert!(bits(&y) == bits(&whole), "{what}: {threads} threads");
            }
            whole
        });
        assert!(bits(&results[0]) == bits(&results[1]), "{what}: bits depend on where buffers lie");
        core::mem::take(&mut results[0])
    }
}
