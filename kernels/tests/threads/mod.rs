//! For tests: real threads, and executors that call too often or never; buffers at protected pages; data, and errors of convolutions.
#![allow(dead_code)] // not every test binary uses all of it

#[path = "../pages/mod.rs"]
pub mod pages;

use pages::{Pages, Side};
use swath_kernels::exec::Executor;
use swath_kernels::reference;
use swath_kernels::shape::ConvShape;

/// So many threads, started for each job.
pub struct Threads(pub usize);

impl Executor for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn spread(&self, job: &(dyn Fn() + Sync)) {
        // An emulator keeps memory of each thread that ever was: there, one calls as often.
        if std::env::var_os("SWATH_TEST_EMULATED").is_some() {
            return (0..self.0).for_each(|_| job());
        }
        std::thread::scope(|s| (0..self.0).for_each(|_| drop(s.spawn(job))));
    }
}

/// Claims to have some threads, and calls as often as the second number says.
pub struct Odd(pub usize, pub usize);

impl Executor for Odd {
    fn threads(&self) -> usize {
        self.0
    }

    fn spread(&self, job: &(dyn Fn() + Sync)) {
        Threads(self.1).spread(job);
    }
}

/// What stands in the gaps of an output; no kernel computes it.
pub const CANARY: f32 = -123_456.78;

/// A slice that ends at a protected page.
pub struct Guarded(Pages);

impl Guarded {
    pub fn new(inner: &[f32]) -> Self {
        Self(Pages::copy(inner, Side::End))
    }

    pub fn nan(len: usize) -> Self {
        Self(Pages::nan(len, Side::End))
    }

    pub fn slice(&mut self) -> &mut [f32] {
        &mut self.0
    }

    /// The slice, after a look at what lies beside it.
    pub fn check(self) -> Vec<f32> {
        self.0.to_vec()
    }
}

/// A copy with a NaN or an infinity now and then, in every `n`th value at most.
pub fn spoilt(x: &[f32], seed: u64, n: usize) -> Vec<f32> {
    let bad = |i: u64| [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][(i % 3) as usize];
    let hash = |i: usize| (i as u64 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    x.iter()
        .enumerate()
        .map(|(i, v)| if hash(i).is_multiple_of(n as u64) { bad(hash(i) / n as u64) } else { *v })
        .collect()
}

/// Whether two results are the same number, or both are none.
pub fn same(got: f32, want: f64) -> bool {
    f64::from(got) == want || got.is_nan() && want.is_nan()
}

/// Small integers, the same for the same seed.
pub fn integers(len: usize, seed: u64) -> Vec<f32> {
    random(len, seed).into_iter().map(|v| (v * 4.0).round()).collect()
}

/// Uniform in -1..1.
pub fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// The same with each value times a factor, of another random number; of every five values the first `zeros` are 0.
pub fn scaled(len: usize, seed: u64, zeros: usize, factor: impl Fn(f32) -> f32) -> Vec<f32> {
    let pairs = random(len, seed).into_iter().zip(random(len, seed + 7)).enumerate();
    pairs.map(|(i, (v, e))| if zeros > 0 && i % 5 < zeros { 0.0 } else { v * factor(e) }).collect()
}

/// Errors of a convolution's output in NCHW: the largest as a share of `bound`, which is given the largest input and the sum of an
/// output's weights by their absolute values; and the root mean square relative to the result's.
pub fn errors(shape: &ConvShape, got: &[f32], x: &[f32], w: &[f32], bound: impl Fn(f64, f64) -> f64) -> (f64, f64) {
    let want = reference::conv2d(shape, x, w, None);
    let max_x = x.iter().map(|v| f64::from(v.abs())).fold(0.0, f64::max);
    let plane = shape.oh * shape.ow;
    let (mut worst, mut off, mut all) = (0.0f64, 0.0, 0.0);
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        let of = &w[i / plane % shape.oc * shape.terms()..][..shape.terms()];
        let sum_w = of.iter().map(|v| f64::from(v.abs())).sum();
        let error = (f64::from(*got) - want).abs();
        worst = worst.max(error / bound(max_x, sum_w).max(f64::MIN_POSITIVE));
        off += error * error;
        all += want * want;
    }
    (worst, (off / all).sqrt())
}

/// Bits that compare, all NaNs being one: which of two NaNs a sum keeps is not promised.
pub fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|v| if v.is_nan() { f32::NAN } else { *v }.to_bits()).collect()
}
