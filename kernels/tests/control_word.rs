//! A caller's floating-point control word changes no result, and is afterwards what it was.
#![cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]

mod threads;

use std::arch::asm;

use swath_kernels::act;
use swath_kernels::bf16x6::Bf16x6;
use swath_kernels::control_word::with_default;
use swath_kernels::depthwise::Depthwise;
use swath_kernels::direct::Direct;
use swath_kernels::epilogue::{Activation, Epilogue};
use swath_kernels::exec::{Executor, Inline};
use swath_kernels::gemm::{Gemm, Im2col, Matrix, Operands, Right};
use swath_kernels::isa::Level;
use swath_kernels::isa::matrix::MatrixUnit;
use swath_kernels::layout::{Layout, reorder};
use swath_kernels::machine::Core;
use swath_kernels::pass::Place;
use swath_kernels::pool::{self, Divisor};
use swath_kernels::shape::{ConvShape, PoolShape};
use swath_kernels::winograd::{Variant, Winograd};
use threads::{bits, integers};

/// Subnormal numbers become zero as operands and as results; sums are rounded up.
#[cfg(target_arch = "x86_64")]
const WORDS: [u64; 2] = [0x9fc0, 0x5f80];
#[cfg(target_arch = "aarch64")]
const WORDS: [u64; 2] = [1 << 24, 1 << 22];

/// Sets the control word, and returns the one before it.
fn swap(word: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        let (mut before, word) = (0u32, word as u32);
        // SAFETY: four bytes are stored and loaded; no reserved bit is set.
        unsafe { asm!("stmxcsr [{}]", "ldmxcsr [{}]", in(reg) &raw mut before, in(reg) &raw const word) };
        u64::from(before & 0xffc0)
    }
    #[cfg(target_arch = "aarch64")]
    {
        let before: u64;
        // SAFETY: no reserved bit is set.
        unsafe { asm!("mrs {}, fpcr", "msr fpcr, {}", out(reg) before, in(reg) word) };
        before
    }
}

/// The calling thread, and one beside it that has the default control word, as a pool's threads have.
struct Beside;

impl Executor for Beside {
    fn threads(&self) -> usize {
        2
    }

    fn spread(&self, job: &(dyn Fn() + Sync)) {
        std::thread::scope(|s| {
            s.spawn(|| {
                #[cfg(target_arch = "x86_64")]
                swap(0x1f80);
                #[cfg(target_arch = "aarch64")]
                swap(0);
                job();
            });
            job();
        });
    }
}

/// Small integers times a factor, whatever the control word is.
fn small(len: usize, seed: u64, factor: f32) -> Vec<f32> {
    with_default(|| integers(len, seed).iter().map(|v| v * factor).collect())
}

/// `run` gives the same bits, some of subnormal numbers, whatever the calling thread's control word is.
fn check(what: &str, run: impl Fn(&dyn Executor) -> Vec<f32>) {
    let want = run(&Inline);
    assert!(want.iter().any(|v| v.is_subnormal()), "{what}: nothing to flush");
    for word in WORDS {
        let default = swap(word);
        let (alone, beside) = (run(&Inline), run(&Beside));
        assert_eq!(swap(default), word, "{what}: the control word is not restored");
        assert!(bits(&alone) == bits(&want), "{what}: control word {word:#x}, one thread");
        assert!(bits(&beside) == bits(&want), "{what}: control word {word:#x}, two threads");
    }
}

/// A family's plan, packed and run; the input is in its layout.
macro_rules! convolution {
    ($what:expr, $conv:expr, $shape:expr, [$input:expr, $output:expr]) => {
        check(&$what, |executor| {
            let (conv, s) = ($conv, &$shape);
            let x = small(Layout::Nchw.len(s.input()), 1, 1e-40);
            let w = integers(s.weights().iter().product(), 2);
            let mut packed = vec![f32::NAN; conv.packed_len()];
            conv.pack(&w, &mut packed);
            let mut input = vec![f32::NAN; $input.len(s.input())];
            reorder(Layout::Nchw, &x, $input, &mut input, s.input());
            let mut y = vec![f32::NAN; $output.len(s.output())];
            let mut scratch = vec![f32::NAN; conv.scratch_len() * 2];
            conv.forward(&input, &packed, &Epilogue::none(), y.as_mut_slice().into(), &mut scratch, executor);
            y
        });
    };
}

#[test]
fn convolutions() {
    let shape = ConvShape::builder([1, 32, 24, 24], [32, 32, 3, 3]).padding(1).build().unwrap();
    let depthwise = ConvShape::builder([1, 32, 50, 50], [32, 1, 3, 3]).padding(1).groups(32).build().unwrap();
    for &level in Level::available() {
        for (input, output) in [(Layout::Blocked, Layout::Blocked), (Layout::Nchw, Layout::Nchw)] {
            let layouts = [input, output];
            let what = |family: &str| format!("{family} {level} {layouts:?}");
            convolution!(what("direct"), Direct::new(&shape, Core::here(level), input, output), shape, [input, output]);
            convolution!(what("gemm"), Im2col::new(&shape, Core::here(level), input, output), shape, [input, output]);
            let dw = Depthwise::new(&depthwise, Core::here(level), input, output).unwrap();
            convolution!(what("depthwise"), &dw, depthwise, [input, output]);
            for variant in Variant::ALL {
                let conv = Winograd::new(&shape, Core::here(level), variant, input, output).unwrap();
                convolution!(what("winograd"), &conv, shape, [input, output]);
            }
        }
    }
}

/// Its unit takes subnormal numbers for zeros, but not those of the other parts of its work.
#[test]
fn matrix_units() {
    let shape = ConvShape::builder([1, 32, 24, 24], [32, 32, 3, 3]).padding(1).build().unwrap();
    for &level in Level::available() {
        for unit in MatrixUnit::ALL.into_iter().filter(|u| u.is_available()) {
            check(&format!("{unit:?} {level}"), |executor| {
                let conv = Bf16x6::new(&shape, Core::here(level), unit, Layout::Nhwc, Layout::Nhwc).unwrap();
                let mut packed = vec![f32::NAN; conv.packed_len()];
                conv.pack(&integers(32 * 32 * 9, 2), &mut packed);
                let mut y = vec![f32::NAN; 32 * 24 * 24];
                let mut scratch = vec![f32::NAN; conv.scratch_len() * 2];
                let x = small(y.len(), 1, 2f32.powi(-100));
                let residual = small(y.len(), 3, 1e-40);
                let e = Epilogue { residual: Some(&residual), ..Epilogue::none() };
                conv.forward(&x, &packed, &e, y.as_mut_slice().into(), &mut scratch, executor);
                // Sums drown the residual, except where they are zero.
                y
            });
        }
    }
}

#[test]
fn products() {
    for &level in Level::available() {
        check(&format!("gemm {level}"), |executor| {
            let [m, n, k] = [90, 100, 70];
            let gemm = Gemm::new(Core::here(level), [m, n, k]);
            let a = small(m * k, 1, 1e-40);
            let b = integers(k * n, 2);
            let operands = Operands {
                alpha: 0.25,
                a: Matrix::new(&a, k),
                b: Right::Matrix(Matrix::new(&b, n)),
                beta: 0.5,
                epilogue: Epilogue::none(),
            };
            let mut c = small(m * n, 3, 1e-41);
            gemm.run(&operands, &mut c, n, &mut vec![f32::NAN; 2 * gemm.scratch_len()], executor);
            c
        });
    }
}

#[test]
fn activations_softmax_and_pooling() {
    let tiny = small(3 * 100, 1, 1e-40);
    let shape = PoolShape::builder([1, 3, 10, 10], 3).stride(2).build().unwrap();
    for &level in Level::available() {
        for act in [Activation::LeakyRelu { slope: 0.1 }, Activation::Tanh, Activation::Gelu, Activation::Silu] {
            check(&format!("{act:?} {level}"), |_| {
                let mut y = tiny.clone();
                act::apply_inplace(level, act, &mut y);
                let mut z = vec![f32::NAN; y.len()];
                act::apply(level, act, &tiny, &mut z);
                y.extend(z);
                y
            });
        }
        check(&format!("softmax {level}"), |_| {
            let mut y = vec![f32::NAN; 40];
            act::softmax(level, 2, 20, &(0..40).map(|i| i as f32 * -5.0).collect::<Vec<_>>(), &mut y);
            y
        });
        for layout in Layout::ALL {
            check(&format!("pooling {level} {layout:?}"), |_| {
                let mut x = vec![f32::NAN; layout.len(shape.input())];
                reorder(Layout::Nchw, &tiny, layout, &mut x, shape.input());
                let mut max = vec![f32::NAN; layout.len(shape.output())];
                let mut mean = max.clone();
                let place = Place::inline(level);
                pool::max(&place, layout, &shape, &x, max.as_mut_slice().into(), None);
                pool::average(&place, layout, &shape, &x, mean.as_mut_slice().into(), Divisor::Inside);
                [max, mean].concat()
            });
        }
    }
}
