//! How exact convolution on matrix units is: against the f64 oracle, over random and worst-case data; and what it does with values
//! that bf16 parts cannot hold.

use proptest::prelude::*;
use swath_kernels::backward_data::turned;
use swath_kernels::bf16x6::{Bf16x6, bound};
use swath_kernels::direct::Direct;
use swath_kernels::epilogue::Epilogue;
use swath_kernels::exec::Inline;
use swath_kernels::isa::Level;
use swath_kernels::isa::matrix::{MatrixUnit, PARTS, parts};
use swath_kernels::layout::{Layout, reorder};
use swath_kernels::machine::Core;
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::{Taps, Weights};
use tries::tries;

mod threads;
mod tries;

use threads::{bits, random, scaled};

// A tile has 16 lines of 16 pairs: of 16 outputs and 32 inputs.
const LINE: usize = 16;
const ROWS: usize = 16;
const TILE: usize = ROWS * LINE;
const DEPTH: usize = 2 * LINE;

fn units() -> impl Iterator<Item = MatrixUnit> {
    MatrixUnit::ALL.into_iter().filter(|u| u.is_available())
}

/// The output in NCHW.
fn run(shape: &ConvShape, unit: MatrixUnit, x: &[f32], w: &[f32]) -> Vec<f32> {
    let level = *Level::available().last().unwrap();
    let conv = Bf16x6::new(shape, Core::here(level), unit, Layout::Blocked, Layout::Nchw).unwrap();
    let (mut packed, mut scratch) = (vec![f32::NAN; conv.packed_len()], vec![f32::NAN; conv.scratch_len()]);
    conv.pack(w, &mut packed);
    let mut blocked = vec![f32::NAN; Layout::Blocked.len(shape.input())];
    reorder(Layout::Nchw, x, Layout::Blocked, &mut blocked, shape.input());
    let mut y = vec![f32::NAN; shape.output().iter().product()];
    conv.forward(&blocked, &packed, &Epilogue::none(), y.as_mut_slice().into(), &mut scratch, &Inline);
    y
}

/// The same by a plain sum in f32.
fn run_direct(shape: &ConvShape, x: &[f32], w: &[f32]) -> Vec<f32> {
    let conv = Direct::new(shape, Core::here(Level::Scalar), Layout::Nchw, Layout::Nchw);
    let (mut packed, mut scratch) = (vec![f32::NAN; conv.packed_len()], vec![f32::NAN; conv.scratch_len()]);
    conv.pack(w, &mut packed);
    let mut y = vec![f32::NAN; shape.output().iter().product()];
    conv.forward(x, &packed, &Epilogue::none(), y.as_mut_slice().into(), &mut scratch, &Inline);
    y
}

/// Errors of an output, as a share of the stated bound and relative to the result.
fn errors(shape: &ConvShape, got: &[f32], x: &[f32], w: &[f32]) -> (f64, f64) {
    // Nothing that these tests sum is infinite, and comparisons with a bound do not see a NaN.
    assert!(got.iter().all(|y| y.is_finite()), "{shape:?}");
    threads::errors(shape, got, x, w, |max_x, sum_w| bound(shape.terms(), max_x, sum_w))
}

/// Weights are where a product reads them, at every level, in PyTorch's order and turned for a data gradient.
#[test]
fn weights_are_packed_in_parts() {
    for (ic, oc, k) in [(16, 16, 1), (40, 50, 1), (35, 20, 3), (64, 33, 3), (33, 17, 5)] {
        let s = ConvShape::builder([1, ic, 8, 8], [oc, ic, k, k]).padding(k / 2).build().unwrap();
        let turned = turned(&s).unwrap();
        let w = random(oc * ic * k * k, 7);
        let all = [Taps::all(k); 2];
        for (shape, w) in [(s, Weights::forward(&s, &w)), (turned, Weights::turned(&s, &w, all))] {
            for &level in Level::available() {
                let (input, output) = (Layout::Blocked, Layout::Blocked);
                let conv = Bf16x6::new(&shape, Core::here(level), MatrixUnit::Portable, input, output).unwrap();
                let mut packed = vec![f32::NAN; conv.packed_len()];
                conv.pack_from(&w, &mut packed, &threads::Threads(2));
                let depths = shape.ic.div_ceil(DEPTH);
                let blocks = shape.oc.div_ceil(LINE);
                for (o, c, tap) in (0..blocks * LINE)
                    .flat_map(|o| (0..depths * DEPTH).flat_map(move |c| (0..k * k).map(move |tap| (o, c, tap))))
                {
                    let exists = o < shape.oc && c < shape.ic;
                    let want = parts(if exists { w.at(o, c, tap / k, tap % k) } else { 0.0 });
                    // Two blocks of outputs are a panel; of 32 inputs the first half is the lower half of a float.
                    let (block, lane, step) = (o / LINE, o % LINE, tap * depths + c / DEPTH);
                    let n = (blocks - block / 2 * 2).min(2);
                    let panel = block / 2 * 2 * depths * k * k * PARTS * TILE;
                    for part in 0..PARTS {
                        let tile = ((step * PARTS + part) * n + block % 2) * TILE;
                        let float = packed[panel + tile + c % DEPTH % ROWS * LINE + lane].to_bits();
                        let got = if c % DEPTH < ROWS { float as u16 } else { (float >> 16) as u16 };
                        assert_eq!(got, want[part], "{level} {shape:?}: {part} of ({o}, {c}, {tap})");
                    }
                }
            }
        }
    }
}

/// Random data: closer to the truth than a plain sum in f32, and far below the bound.
#[test]
fn random_data_is_more_exact_than_a_plain_sum() {
    for (ic, k) in [(16, 1), (64, 1), (512, 1), (256, 3), (512, 3)] {
        let s = ConvShape::builder([1, ic, 6, 6], [16, ic, k, k]).padding(k / 2).build().unwrap();
        let (x, w) = (random(ic * 36, ic as u64), random(16 * s.terms(), 1 + ic as u64));
        let (_, plain) = errors(&s, &run_direct(&s, &x, &w), &x, &w);
        for unit in units() {
            let (worst, typical) = errors(&s, &run(&s, unit, &x, &w), &x, &w);
            println!(
                "{unit:?} {} terms: {typical:.2e} of the result, plain sum {plain:.2e}; {worst:.2e} of the bound",
                s.terms()
            );
            assert!(typical <= plain, "{unit:?}, {} terms: {typical:e}, plain sum {plain:e}", s.terms());
            assert!(worst <= 0.1, "{unit:?}, {} terms: {worst} of the bound", s.terms());
            assert!(typical > 1e-8, "{unit:?}: is this the oracle?");
        }
    }
}

/// The unit and the plain loops that stand for it agree on every bit.
#[test]
fn every_unit_computes_the_same_bits() {
    for (ic, oc, k, stride, ih, iw) in
        [(16, 16, 1, 1, 5, 5), (72, 40, 1, 1, 9, 13), (40, 70, 3, 2, 9, 33), (96, 33, 3, 1, 4, 17)]
    {
        let shape = ConvShape::builder([1, ic, ih, iw], [oc, ic, k, k]).stride(stride).padding(k / 2);
        let s = shape.build().unwrap();
        let (x, w) = (random(ic * ih * iw, 3), random(oc * s.terms(), 4));
        let want = bits(&run(&s, MatrixUnit::Portable, &x, &w));
        for unit in units() {
            assert_eq!(bits(&run(&s, unit, &x, &w)), want, "{unit:?}, {s:?}");
        }
    }
}

/// Parts of a NaN or an infinity make NaN, in the outputs that they take part in alone.
#[test]
fn what_is_not_finite_becomes_nan() {
    let s = ConvShape::builder([1, 20, 1, 40], [3, 20, 1, 1]).build().unwrap();
    let w = random(60, 1);
    for bad in
        [f32::NAN, f32::from_bits(u32::MAX), f32::from_bits(0x7f80_0001), f32::INFINITY, f32::NEG_INFINITY, f32::MAX]
    {
        let mut x = random(800, 2);
        x[17 * 40 + 5] = bad;
        for unit in units() {
            for (i, y) in run(&s, unit, &x, &w).iter().enumerate() {
                assert_eq!(y.is_nan(), i % 40 == 5, "{unit:?}, input {bad}, pixel {}", i % 40);
            }
        }
    }
}

#[test]
fn what_it_does_not_do_is_refused() {
    let refused = |shape: Result<ConvShape, _>, input| {
        Bf16x6::new(&shape.unwrap(), Core::here(Level::Scalar), MatrixUnit::Portable, input, Layout::Blocked)
            .unwrap_err()
    };
    let conv =
        |ic: usize, groups: usize| ConvShape::builder([1, ic, 4, 4], [32, ic / groups, 1, 1]).groups(groups).build();
    assert_eq!(refused(conv(32, 2), Layout::Blocked), "there are groups");
    assert_eq!(refused(conv(32, 1), Layout::Nchw), "reads blocked or nhwc input, not nchw");
    let wide = ConvShape::builder([1, 2048, 3, 1000], [16, 2048, 3, 3]).build();
    assert_eq!(refused(wide, Layout::Blocked), "not even one row of outputs fits the scratch");
    let padded = ConvShape::builder([1, 1, 1, 1], [1, 1, 2, 2]).padding(1 << 30).dilation(1 << 31).build();
    assert_eq!(refused(padded, Layout::Blocked), "not even one row of outputs fits the scratch");
    if !MatrixUnit::Amx.is_available() {
        let why = Bf16x6::new(
            &conv(32, 1).unwrap(),
            Core::here(Level::Scalar),
            MatrixUnit::Amx,
            Layout::Blocked,
            Layout::Blocked,
        );
        assert_eq!(why.unwrap_err(), "no matrix unit for bf16 (x86-64's AMX on Linux)");
    }
}

proptest! {
    #[test]
    fn parts_add_up(x in any::<f32>()) {
        let sum: f64 = parts(x).iter().map(|p| f64::from(f32::from_bits(u32::from(*p) << 16))).sum();
        if x == 0.0 || (2f32.powi(-102)..3.38e38).contains(&x.abs()) {
            prop_assert_eq!(sum, f64::from(x));
        } else if !x.is_finite() {
            prop_assert!(sum.is_nan());
        }
    }
}

proptest! {
    #![proptest_config(tries(48))]

    /// The bound for anything finite: data over the whole range of magnitudes, of one sign or both, sparse or not.
    #[test]
    fn the_bound_holds(
        ic in 1usize..80,
        (ih, iw, k) in (1usize..5, 1usize..24, 1usize..4),
        scale in prop::array::uniform2(-60i32..8),
        spread in 0i32..48,
        positive in any::<bool>(),
        zeros in 0usize..5,
        seed in 0u64..1000,
    ) {
        let s = ConvShape::builder([1, ic, ih, iw], [5, ic, k, k]).padding(k / 2).build();
        prop_assume!(s.is_ok());
        let s = s.unwrap();
        let of = |len, scale: i32, seed| -> Vec<f32> {
            let values = scaled(len, seed, zeros, |e| (scale as f32 + spread as f32 * e).exp2());
            values.into_iter().map(|v| if positive { v.abs() } else { v }).collect()
        };
        let (x, w) = (of(ic * ih * iw, scale[0], seed), of(5 * s.terms(), scale[1], seed + 1));
        for unit in units() {
            let (worst, _) = errors(&s, &run(&s, unit, &x, &w), &x, &w);
            prop_assert!(worst <= 1.0, "{unit:?}: {worst} of the bound");
        }
    }
}
