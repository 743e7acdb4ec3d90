//! GEMM against the oracle: every level, transposes, factors, blockings, leading dimensions, threads.

mod threads;
mod tries;

use proptest::prelude::*;
use swath_kernels::epilogue::Epilogue;
use swath_kernels::exec::{Executor, Inline};
use swath_kernels::gemm::{Blocking, Gemm, Matrix, Operands, Right, pack_b, packed_len};
use swath_kernels::isa::Level;
use swath_kernels::machine::Core;
use swath_kernels::reference;
use threads::pages::{Pages, Side};
use threads::{CANARY, Odd, Threads, bits, integers, random, same, spoilt};
use tries::tries;

/// `[rows, cols]` dense as stored with a leading dimension, transposed or not; gaps are NaN and must not be read.
struct Stored {
    data: Pages,
    ld: usize,
    transposed: bool,
}

impl Stored {
    fn new(x: &[f32], [rows, cols]: [usize; 2], transposed: bool, gap: usize, side: Side) -> Self {
        let (r, c) = if transposed { (cols, rows) } else { (rows, cols) };
        let ld = c + gap;
        let mut data = Pages::nan(if r == 0 { 0 } else { (r - 1) * ld + c }, side);
        for i in 0..r {
            for j in 0..c {
                data[i * ld + j] = if transposed { x[j * cols + i] } else { x[i * cols + j] };
            }
        }
        Self { data, ld, transposed }
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix { data: &self.data, ld: self.ld, transposed: self.transposed }
    }
}

#[derive(Clone, Debug)]
struct Case {
    extents: [usize; 3],
    transposed: [bool; 2],
    packed: bool,
    alpha: f32,
    beta: f32,
    gaps: [usize; 3],
    blocking: Option<Blocking>,
    bias: bool,
    residual: bool,
    relu: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let blocking = (1..20usize, 1..20usize, 1..70usize).prop_map(|(mc, kc, nc)| Blocking { mc, kc, nc });
    (
        [0..45usize, 0..150usize, 0..40usize],
        any::<[bool; 2]>(),
        any::<bool>(),
        prop::sample::select(vec![1.0f32, 1.0, -2.0, 0.0]),
        prop::sample::select(vec![0.0f32, 0.0, 1.0, 3.0]),
        [0..3usize, 0..3usize, 0..3usize],
        prop::option::weighted(0.7, blocking),
        any::<[bool; 3]>(),
    )
        .prop_map(|(extents, transposed, packed, alpha, beta, gaps, blocking, [bias, residual, relu])| Case {
            extents,
            transposed,
            packed,
            alpha,
            beta,
            gaps,
            blocking,
            bias,
            residual,
            relu,
        })
}

/// Runs a case and returns C without its gaps.
#[allow(clippy::too_many_arguments)] // the operands of one product, in order
fn run(
    level: Level,
    case: &Case,
    a: &[f32],
    b: &[f32],
    c: &[f32],
    bias: &[f32],
    residual: &[f32],
    executor: &dyn Executor,
    slots: usize,
) -> Vec<f32> {
    let [before, behind] = Side::BOTH.map(|side| run_at(side, level, case, a, b, c, bias, residual, executor, slots));
    assert!(bits(&before) == bits(&behind), "bits depend on where operands lie");
    behind
}

/// The same with every operand before or behind a protected page.
#[allow(clippy::too_many_arguments)]
fn run_at(
    side: Side,
    level: Level,
    case: &Case,
    a: &[f32],
    b: &[f32],
    c: &[f32],
    bias: &[f32],
    residual: &[f32],
    executor: &dyn Executor,
    slots: usize,
) -> Vec<f32> {
    let [m, n, k] = case.extents;
    let gemm = Gemm::with_blocking(Core::here(level), [m, n, k], case.blocking);
    let sa = Stored::new(a, [m, k], case.transposed[0], case.gaps[0], side);
    let sb = Stored::new(b, [k, n], case.transposed[1], case.gaps[1], side);
    let ldc = n + case.gaps[2];
    let spread = |x: &[f32], gap: f32| {
        let mut v = vec![gap; if m == 0 || n == 0 { 0 } else { (m - 1) * ldc + n }];
        for i in 0..if n == 0 { 0 } else { m } {
            v[i * ldc..][..n].copy_from_slice(&x[i * n..][..n]);
        }
        v
    };
    let mut packed = Pages::nan(packed_len(k, n), side);
    if case.packed {
        pack_b(&sb.matrix(), [k, n], &mut packed);
    }
    let residual = Pages::copy(&if case.residual { spread(residual, f32::NAN) } else { Vec::new() }, side);
    let bias = Pages::copy(bias, side);
    let nan = vec![f32::NAN; m * n];
    let mut output = Pages::copy(&spread(if case.beta == 0.0 { &nan } else { c }, CANARY), side);
    let operands = Operands {
        alpha: case.alpha,
        a: sa.matrix(),
        b: if case.packed { Right::Packed(&packed) } else { Right::Matrix(sb.matrix()) },
        beta: case.beta,
        epilogue: Epilogue {
            bias: case.bias.then_some(&bias),
            residual: case.residual.then_some(&residual),
            ..if case.relu { Epilogue::none().relu() } else { Epilogue::none() }
        },
    };
    let len = if case.packed { gemm.scratch_len_packed() } else { gemm.scratch_len() };
    gemm.run(&operands, &mut output, ldc, &mut Pages::nan(len * slots, side), executor);
    let c = output.to_vec();
    let mut y = Vec::new();
    for i in 0..if n == 0 { 0 } else { m } {
        y.extend_from_slice(&c[i * ldc..][..n]);
        assert!(c[i * ldc + n..((i + 1) * ldc).min(c.len())].iter().all(|&v| v == CANARY), "write into a gap");
    }
    y
}

fn expected(case: &Case, a: &[f32], b: &[f32], c: &[f32], bias: &[f32], residual: &[f32]) -> Vec<f64> {
    let n = case.extents[1];
    let mut y = reference::gemm(case.extents, case.alpha, a, b, case.beta, c);
    for (i, y) in y.iter_mut().enumerate() {
        *y += if case.bias { f64::from(bias[i % n]) } else { 0.0 };
        *y += if case.residual { f64::from(residual[i]) } else { 0.0 };
        if case.relu && *y < 0.0 {
            *y = 0.0;
        }
    }
    y
}

proptest! {
    #![proptest_config(tries(300))]

    #[test]
    fn integers_are_exact_at_every_level(case in case(), seed in any::<u64>()) {
        let [m, n, k] = case.extents;
        let data = |len, i| integers(len, seed.wrapping_add(i));
        let (a, b, c, bias, residual) = (data(m * k, 1), data(k * n, 2), data(m * n, 3), data(n, 4), data(m * n, 5));
        // Of every third product some terms are not finite, in few rows and columns.
        let spoil = |x: Vec<f32>, i| if seed % 3 == 2 { spoilt(&x, seed.wrapping_add(i), 200) } else { x };
        let (a, b, c) = (spoil(a, 6), spoil(b, 7), spoil(c, 8));
        let want = expected(&case, &a, &b, &c, &bias, &residual);
        for &level in Level::available() {
            let got = run(level, &case, &a, &b, &c, &bias, &residual, &Inline, 1);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                prop_assert!(same(*got, *want), "{level} [{i}]: {got} for {want}");
            }
        }
    }
}

/// Large enough to be cut for threads: 1.3 million multiply-adds in many rows, and in one tile of them.
const LARGE: [[usize; 3]; 2] = [[131, 147, 70], [2, 1501, 450]];

fn large(extents: [usize; 3], packed: bool, transposed: bool) -> Case {
    Case {
        extents,
        transposed: [transposed; 2],
        packed,
        alpha: 0.5,
        beta: 1.0,
        gaps: [1, 2, 3],
        blocking: None,
        bias: true,
        residual: true,
        relu: true,
    }
}

#[test]
fn threads_blocking_and_packing_never_change_a_bit() {
    LARGE.into_iter().for_each(never_change_a_bit);
}

fn never_change_a_bit(extents: [usize; 3]) {
    let [m, n, k] = extents;
    let (a, b, c) = (random(m * k, 1), random(k * n, 2), random(m * n, 3));
    let (bias, residual) = (random(n, 4), random(m * n, 5));
    for &level in Level::available() {
        let mut first: Option<Vec<u32>> = None;
        let mut same = |y: Vec<f32>, what: &str| {
            let y = bits(&y);
            assert!(first.get_or_insert_with(|| y.clone()) == &y, "{level}, {what}");
        };
        for (packed, transposed) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut case = large(extents, packed, transposed);
            for threads in [1, 2, 3, 8] {
                let y = run(level, &case, &a, &b, &c, &bias, &residual, &Threads(threads), threads);
                same(y, &format!("{threads} threads, packed {packed}, transposed {transposed}"));
            }
            // Calls beyond the scratch, beyond the threads, and none at all.
            for (executor, slots) in [(Odd(8, 8), 2), (Odd(2, 9), 2), (Odd(4, 0), 4), (Odd(3, 1), 1)] {
                same(run(level, &case, &a, &b, &c, &bias, &residual, &executor, slots), "an odd executor");
            }
            for blocking in [(1, 1, 1), (7, 9, 17), (64, 70, 33), (131, 3, 147)] {
                let (mc, kc, nc) = blocking;
                case.blocking = Some(Blocking { mc, kc, nc });
                same(run(level, &case, &a, &b, &c, &bias, &residual, &Threads(3), 3), &format!("{blocking:?}"));
            }
        }
    }
}

#[test]
fn random_data_stay_within_the_bound() {
    for extents in [[1, 300, 1500], [33, 40, 1100]] {
        let [m, n, k] = extents;
        let (a, b) = (random(m * k, 1), random(k * n, 2));
        let abs = |v: &[f32]| v.iter().map(|x| x.abs()).collect::<Vec<_>>();
        let want = reference::gemm(extents, 1.0, &a, &b, 0.0, &[]);
        let sums = reference::gemm(extents, 1.0, &abs(&a), &abs(&b), 0.0, &[]);
        let case = Case {
            extents,
            alpha: 1.0,
            beta: 0.0,
            bias: false,
            residual: false,
            relu: false,
            ..large(extents, false, true)
        };
        for &level in Level::available() {
            let got = run(level, &case, &a, &b, &[], &[], &[], &Inline, 1);
            for ((got, want), sum) in got.iter().zip(&want).zip(&sums) {
                let bound = (k as f64 + 2.0) * f64::from(f32::EPSILON) / 2.0 * sum;
                assert!((f64::from(*got) - want).abs() <= bound, "{level}: {got} for {want}");
            }
        }
    }
}

#[test]
fn scratch_stays_below_two_mebibytes() {
    for &level in Level::available() {
        for m in [1, 13, 1000, 1 << 20] {
            for n in [1, 1000, 1 << 20] {
                for k in [0, 1, 27, 511, 513, 1 << 20] {
                    let gemm = Gemm::new(Core::here(level), [m, n, k]);
                    assert!(gemm.scratch_len() * 4 <= 2 << 20, "{m} {n} {k}: {:?}", gemm.blocking());
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "B: 3 rows of 4 floats, 4 apart, need more than 11 floats")]
fn a_short_operand_is_refused() {
    let gemm = Gemm::new(Core::here(Level::Scalar), [2, 4, 3]);
    let operands = Operands {
        alpha: 1.0,
        a: Matrix::new(&[0.0; 6], 3),
        b: Right::Matrix(Matrix::new(&[0.0; 11], 4)),
        beta: 0.0,
        epilogue: Epilogue::none(),
    };
    gemm.run(&operands, &mut [0.0; 8], 4, &mut vec![0.0; gemm.scratch_len()], &Inline);
}

/// A matrix without elements may be an empty slice, whatever its other extent.
#[test]
fn operands_without_elements_may_be_empty_slices() {
    for extents in [[0, 0, 0], [0, 0, 5], [0, 5, 0], [5, 0, 0], [0, 5, 5], [5, 0, 5], [5, 5, 0]] {
        let [m, n, k] = extents;
        for transposed in [false, true] {
            let filled = |rows: usize, cols: usize| vec![1.0; rows * cols];
            let (a, b, mut c) = (filled(m, k), filled(k, n), filled(m, n));
            let matrix =
                |data, [rows, cols]: [usize; 2]| Matrix { data, ld: if transposed { rows } else { cols }, transposed };
            let mut packed = vec![f32::NAN; packed_len(k, n)];
            pack_b(&matrix(&b, [k, n]), [k, n], &mut packed);
            assert!(packed.iter().all(|v| *v == 0.0 || *v == 1.0));
            for &level in Level::available() {
                let gemm = Gemm::new(Core::here(level), extents);
                for b in [Right::Packed(&packed), Right::Matrix(matrix(&b, [k, n]))] {
                    let a = matrix(&a, [m, k]);
                    let operands = Operands { alpha: 1.0, a, b, beta: 0.0, epilogue: Epilogue::none() };
                    gemm.run(&operands, &mut c, n, &mut vec![0.0; gemm.scratch_len()], &Inline);
                    assert!(c.iter().all(|v| *v == 0.0), "{extents:?}: sums of nothing");
                }
            }
        }
    }
}
