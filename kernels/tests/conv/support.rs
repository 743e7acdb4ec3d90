//! Data, guarded outputs, and an executor with real threads.

use swath_kernels::bf16x6::Bf16x6;
use swath_kernels::depthwise::Depthwise;
use swath_kernels::direct::{Blocking, Direct};
use swath_kernels::epilogue::{Activation, Epilogue};
use swath_kernels::exec::{Executor, Inline};
use swath_kernels::isa::Level;
use swath_kernels::isa::matrix::MatrixUnit;
use swath_kernels::layout::{Layout, reorder};
use swath_kernels::reference;
use swath_kernels::shape::ConvShape;
use swath_kernels::winograd::{Variant, Winograd};

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

/// `std::thread` behind the executor's interface.
pub struct Threads(pub usize);

impl Executor for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn spread(&self, job: &(dyn Fn() + Sync)) {
        std::thread::scope(|s| {
            for _ in 0..self.0 {
                s.spawn(job);
            }
        });
    }
}

/// What stands around an output to catch stray writes.
const CANARY: f32 = 12345.0;

/// Runs `f` on a NaN-filled output between canaries, and returns the output. NaN proves that nothing is read before it
/// is written, and that everything is written.
pub fn guarded(len: usize, f: impl FnOnce(&mut [f32])) -> Vec<f32> {
    const MARGIN: usize = 64;
    let mut all = vec![CANARY; len + 2 * MARGIN];
    all[MARGIN..MARGIN + len].fill(f32::NAN);
    f(&mut all[MARGIN..MARGIN + len]);
    assert!(all[..MARGIN].iter().chain(&all[MARGIN + len..]).all(|v| *v == CANARY), "a write outside of the output");
    all[MARGIN..MARGIN + len].to_vec()
}

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
        let x = integers(Layout::Nchw.len(shape.input()), seed);
        let w = integers(shape.weights().iter().product(), seed + 1);
        let bias = integers(shape.oc, seed + 2);
        let residual = integers(Layout::Nchw.len(shape.output()), seed + 3);
        let want = reference::conv2d(&shape, &x, &w, None);
        Self { shape, x, w, bias, residual, want }
    }

    pub fn input(&self, layout: Layout) -> Vec<f32> {
        let mut x = vec![f32::NAN; layout.len(self.shape.input())];
        reorder(Layout::Nchw, &self.x, layout, &mut x, self.shape.input());
        x
    }

    /// Bias, residual and ReLU6 together, so that all of an epilogue is seen.
    pub fn finished(&self) -> Vec<f64> {
        let plane = self.shape.oh * self.shape.ow;
        self.want
            .iter()
            .enumerate()
            .map(|(i, v)| v + f64::from(self.bias[i / plane % self.shape.oc]) + f64::from(self.residual[i]))
            .map(|v| v.clamp(0.0, 6.0))
            .collect()
    }

    /// The most that a Winograd result may be off: 0 for F(2), whose factors are powers of two.
    fn winograd_bound(&self, variant: Variant) -> f64 {
        let size = |v: &f32| f64::from(v.abs());
        let sum_w = self.w.chunks(self.shape.ic * 9).map(|w| w.iter().map(size).sum()).fold(0.0, f64::max);
        let max_x = self.x.iter().map(size).fold(0.0, f64::max);
        // Adding a bias and a residual of at most 3 each rounds the sum twice more.
        let rounds = 2f64.powi(-23) * (max_x * sum_w + 6.0);
        if variant == Variant::F2 { 0.0 } else { variant.bound(self.shape.ic, max_x, sum_w) + rounds }
    }

    /// Compares an output in `layout` with the wanted values, and its padding channels with zero.
    pub fn check(&self, got: &[f32], layout: Layout, want: &[f64], bound: f64, what: &str) {
        let dims = self.shape.output();
        let mut nchw = vec![f32::NAN; Layout::Nchw.len(dims)];
        reorder(layout, got, Layout::Nchw, &mut nchw, dims);
        for (i, (g, w)) in nchw.iter().zip(want).enumerate() {
            let off = (f64::from(*g) - w).abs();
            assert!(off <= bound, "{what}: element {i} of {dims:?} is {g}, not {w}; {:?}", self.shape);
        }
        if layout == Layout::Blocked {
            let mut back = vec![f32::NAN; got.len()];
            reorder(Layout::Nchw, &nchw, Layout::Blocked, &mut back, dims);
            assert_eq!(got, back, "{what}: channels that pad the last block are not zero");
        }
    }

    /// Direct convolution, plain and with the whole epilogue, on 1 and on several threads.
    pub fn direct(&self, level: Level, input: Layout, output: Layout, blocking: Option<Blocking>) -> Direct {
        let d = Direct::with_blocking(&self.shape, level, input, output, blocking);
        let mut packed = vec![f32::NAN; d.packed_len()];
        d.pack(&self.w, &mut packed);
        let x = self.input(input);
        self.both(output, &format!("direct {level} {input:?} to {output:?}, {:?}", d.blocking()), |e, y, threads| {
            let mut scratch = vec![f32::NAN; d.scratch_len() * threads.threads()];
            d.forward(&x, &packed, e, y, &mut scratch, threads);
        });
        d
    }

    /// Depthwise convolution likewise, where it supports the shape.
    pub fn depthwise(&self, level: Level, input: Layout, output: Layout, pixels: Option<usize>) -> Option<Depthwise> {
        let d = Depthwise::with_pixels(&self.shape, level, input, output, pixels).ok()?;
        let mut packed = vec![f32::NAN; d.packed_len()];
        d.pack(&self.w, &mut packed);
        let x = self.input(input);
        self.both(output, &format!("depthwise {level} {input:?} to {output:?}, {}", d.kernel()), |e, y, threads| {
            let mut scratch = vec![f32::NAN; d.scratch_len() * threads.threads()];
            d.forward(&x, &packed, e, y, &mut scratch, threads);
        });
        Some(d)
    }

    /// Winograd convolution likewise, where it supports the shape, in chunks of so many tiles.
    pub fn winograd(&self, level: Level, variant: Variant, layouts: [Layout; 2], chunk: Option<usize>) -> Vec<f32> {
        let [input, output] = layouts;
        let Ok(d) = Winograd::with_chunk(&self.shape, level, variant, input, output, chunk) else { return Vec::new() };
        let mut packed = vec![f32::NAN; d.packed_len()];
        d.pack(&self.w, &mut packed);
        let x = self.input(input);
        let what = format!("{variant:?} {level} {input:?} to {output:?}, chunks of {}", d.chunk());
        self.within(output, &what, self.winograd_bound(variant), |e, y, threads| {
            let mut scratch = vec![f32::NAN; d.scratch_len() * threads.threads()];
            d.forward(&x, &packed, e, y, &mut scratch, threads);
        })
    }

    /// Convolution on a matrix unit likewise, where it supports the shape, in parts of at most so many rows or pixels.
    pub fn bf16x6(&self, level: Level, unit: MatrixUnit, layouts: [Layout; 2], most: Option<usize>) -> Vec<f32> {
        let [input, output] = layouts;
        let Ok(d) = Bf16x6::with_most(&self.shape, level, unit, input, output, most) else { return Vec::new() };
        let mut packed = vec![f32::NAN; d.packed_len()];
        d.pack(&self.w, &mut packed);
        let x = self.input(input);
        // Small integers have no other part than the high one, and their sums are exact.
        self.within(output, &format!("{} {level} {input:?} to {output:?}", d.kernel()), 0.0, |e, y, threads| {
            let mut scratch = vec![f32::NAN; d.scratch_len() * threads.threads()];
            d.forward(&x, &packed, e, y, &mut scratch, threads);
        })
    }

    fn both(&self, output: Layout, what: &str, run: impl Fn(&Epilogue<'_>, &mut [f32], &dyn Executor)) {
        self.within(output, what, 0.0, run);
    }

    /// Runs without and with an epilogue; the result of the latter.
    fn within(
        &self,
        output: Layout,
        what: &str,
        bound: f64,
        run: impl Fn(&Epilogue<'_>, &mut [f32], &dyn Executor),
    ) -> Vec<f32> {
        let len = output.len(self.shape.output());
        let plain = guarded(len, |y| run(&Epilogue::none(), y, &Inline));
        self.check(&plain, output, &self.want, bound, what);
        let mut residual = vec![f32::NAN; len];
        reorder(Layout::Nchw, &self.residual, output, &mut residual, self.shape.output());
        let e = Epilogue::bias(&self.bias).residual(&residual).activation(Activation::Clip { lo: 0.0, hi: 6.0 });
        let whole = guarded(len, |y| run(&e, y, &Inline));
        self.check(&whole, output, &self.finished(), bound, what);
        for threads in [2, 3, 8] {
            let y = guarded(len, |y| run(&e, y, &Threads(threads)));
            assert_eq!(y, whole, "{what}: {threads} threads");
        }
        whole
    }
}
