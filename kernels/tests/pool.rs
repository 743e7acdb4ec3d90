//! Every pooling row of every level against the oracle, in every layout, for any cut of the rows.

use std::ops::Range;

use proptest::prelude::*;
use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout, reorder};
use swath_kernels::pass::Place;
use swath_kernels::pool::{self, AdaptiveShape, Divisor, NO_INDEX, Op, PoolArgs, PoolRow};
use swath_kernels::reference;
use swath_kernels::shape::{PoolShape, ShapeError};
use tries::tries;

#[path = "pages/mod.rs"]
mod pages;
#[path = "tries/mod.rs"]
mod tries;

use pages::{Pages, Side};

/// Small integers with many ties: their sums are exact.
fn integers(len: usize, seed: u32) -> Vec<f32> {
    (0..len as u32)
        .map(|i| ((i.wrapping_mul(0x9e37_79b9) ^ seed).wrapping_mul(0x85eb_ca6b) >> 24) as f32 % 17.0 - 8.0)
        .collect()
}

/// The same with a NaN, an infinity or the like now and then.
fn with_extremes(len: usize, seed: u32) -> Vec<f32> {
    let mut x = integers(len, seed);
    for (i, v) in x.iter_mut().enumerate() {
        let h = (i as u32 ^ seed).wrapping_mul(0xc2b2_ae35) >> 20;
        *v = match h % 23 {
            0 => f32::NAN,
            1 => f32::NEG_INFINITY,
            2 => f32::INFINITY,
            _ => *v,
        };
    }
    x
}

/// Integers, of every third seed with extremes.
fn values(len: usize, seed: u32) -> Vec<f32> {
    if seed % 3 == 2 { with_extremes(len, seed) } else { integers(len, seed) }
}

/// A tensor in a layout, at a protected page.
fn arranged(nchw: &[f32], layout: Layout, dims: [usize; 4], side: Side) -> Pages {
    let mut x = Pages::nan(layout.len(dims), side);
    reorder(Layout::Nchw, nchw, layout, &mut x, dims);
    x
}

/// An output filled with NaN, at a protected page.
struct Output {
    y: Pages,
}

impl Output {
    fn new(layout: Layout, dims: [usize; 4], side: Side) -> Self {
        Self { y: Pages::nan(layout.len(dims), side) }
    }

    /// Runs rows `range` through a kernel's entry.
    fn run(&mut self, row: &PoolRow, args: &PoolArgs, x: &[f32], range: Range<usize>) {
        assert!(range.end * args.output[1] * args.ch <= self.y.len());
        let args = PoolArgs { x: x.as_ptr(), y: self.y.as_mut_ptr(), first: range.start, rows: range.len(), ..*args };
        // SAFETY: the row is of an available level and supports the geometry; x is the whole input, and the range's rows are
        // inside y.
        unsafe { (row.run)(&args) }
    }

    /// NCHW values, after a look at the channels that pad the last block.
    fn check(&self, name: &str, layout: Layout, dims: [usize; 4]) -> Vec<f32> {
        if layout == Layout::Blocked && !dims[1].is_multiple_of(BLOCK) {
            let plane = dims[2] * dims[3] * BLOCK;
            for last in self.y.chunks(plane).skip(dims[1] / BLOCK).step_by(dims[1] / BLOCK + 1) {
                for pixel in last.chunks(BLOCK) {
                    assert!(pixel[dims[1] % BLOCK..].iter().all(|&v| v == 0.0), "{name}: padding channels {pixel:?}");
                }
            }
        }
        let mut values = vec![0.0; Layout::Nchw.len(dims)];
        reorder(layout, &self.y, Layout::Nchw, &mut values, dims);
        values
    }
}

/// Floats of a row of outputs.
fn row_len(layout: Layout, [_, c, _, w]: [usize; 4]) -> usize {
    w * match layout {
        Layout::Nchw => 1,
        Layout::Nhwc => c,
        Layout::Blocked => BLOCK,
    }
}

fn same(a: f32, b: f32) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

/// Every row of `op` that supports the geometry, at every level and layout, in one piece and cut at `cuts`.
fn every_row(
    op: Op,
    args: impl Fn(Layout) -> PoolArgs,
    x: &[f32],
    (input, output): ([usize; 4], [usize; 4]),
    cuts: &[usize],
    check: impl Fn(&PoolRow, Layout, &[f32]),
) {
    for (layout, side) in Layout::ALL.into_iter().flat_map(|layout| Side::BOTH.map(|side| (layout, side))) {
        let (args, x, rows) =
            (args(layout), arranged(x, layout, input, side), layout.len(output) / row_len(layout, output));
        for level in Level::available() {
            for row in pool::table(*level).iter().filter(|r| r.op == op && r.supports(&args)) {
                let mut whole = Output::new(layout, output, side);
                whole.run(row, &args, &x, 0..rows);
                check(row, layout, &whole.check(row.name, layout, output));
                let mut points: Vec<usize> = cuts.iter().map(|c| c % (rows + 1)).chain([0, rows]).collect();
                points.sort_unstable();
                let mut pieces = Output::new(layout, output, side);
                for p in points.windows(2).rev() {
                    pieces.run(row, &args, &x, p[0]..p[1]);
                }
                let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert!(bits(&whole.y) == bits(&pieces.y), "{} depends on the cut", row.name);
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Case {
    input: [usize; 4],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    pad: [usize; 4],
    ceil: bool,
    seed: u32,
    cuts: Vec<usize>,
}

impl Case {
    fn shape(&self, dilation: [usize; 2]) -> Result<PoolShape, ShapeError> {
        let pad: [usize; 4] = std::array::from_fn(|i| self.pad[i].min(self.kernel[i % 2] / 2));
        PoolShape::builder(self.input, self.kernel)
            .stride(self.stride)
            .dilation(dilation)
            .padding(pad)
            .ceil_mode(self.ceil)
            .build()
    }
}

fn input() -> impl Strategy<Value = [usize; 4]> {
    let channels = prop_oneof![1usize..40, Just(16), Just(17), Just(1)];
    // Wide rows are computed along vectors where pixels are single floats.
    (0usize..3, channels, 1usize..14, prop_oneof![1usize..14, 14usize..80]).prop_map(|(n, c, h, w)| [n, c, h, w])
}

fn case() -> impl Strategy<Value = Case> {
    let window = prop_oneof![
        (prop::array::uniform2(1usize..5), prop::array::uniform2(1usize..4), prop::array::uniform2(1usize..4)),
        prop_oneof![Just(([3, 3], [2, 2])), Just(([2, 2], [2, 2])), Just(([3, 3], [1, 1]))].prop_map(|(k, s)| (
            k,
            s,
            [1, 1]
        )),
    ];
    let cuts = prop::collection::vec(0usize..10_000, 0..4);
    (input(), window, prop::array::uniform4(0usize..3), any::<bool>(), any::<u32>(), cuts).prop_map(
        |(input, (kernel, stride, dilation), pad, ceil, seed, cuts)| Case {
            input,
            kernel,
            stride,
            dilation,
            pad,
            ceil,
            seed,
            cuts,
        },
    )
}

fn check_max(case: &Case) {
    let Ok(s) = case.shape(case.dilation) else { return };
    let x = with_extremes(Layout::Nchw.len(s.input()), case.seed);
    let (want, _) = reference::max_pool2d(&s, &x);
    let args = |layout| PoolArgs::window(&s, layout);
    every_row(Op::Max, args, &x, (s.input(), s.output()), &case.cuts, |row, layout, y| {
        for (i, (&y, &want)) in y.iter().zip(&want).enumerate() {
            assert!(same(y, want as f32), "{} {layout:?} {s:?} [{i}]: {y} for {want}", row.name);
        }
    });
}

fn check_average(case: &Case) {
    let Ok(s) = case.shape([1, 1]) else { return };
    let x = values(Layout::Nchw.len(s.input()), case.seed);
    for count_include_pad in [false, true] {
        let want = reference::avg_pool2d(&s, count_include_pad, &x);
        let divisor = if count_include_pad { Divisor::Padded } else { Divisor::Inside };
        let args = |layout| PoolArgs { divisor, ..PoolArgs::window(&s, layout) };
        every_row(Op::Average, args, &x, (s.input(), s.output()), &case.cuts, |row, layout, y| {
            for (i, (&y, &want)) in y.iter().zip(&want).enumerate() {
                let name = row.name;
                assert!(
                    same(y, want as f32),
                    "{name} {layout:?} {s:?} count {count_include_pad} [{i}]: {y} for {want}"
                );
            }
        });
    }
}

proptest! {
    #![proptest_config(tries(300))]

    #[test]
    fn max_is_exact(case in case()) {
        check_max(&case);
    }

    #[test]
    fn integer_averages_are_exact(case in case()) {
        check_average(&case);
    }

    #[test]
    fn integer_adaptive_averages_are_exact(input in input(), output in prop::array::uniform2(1usize..17), seed in any::<u32>(), cut in 0usize..10_000) {
        let s = AdaptiveShape::new(input, output).unwrap();
        let x = values(Layout::Nchw.len(input), seed);
        let want = reference::adaptive_avg_pool2d(input, output, &x);
        every_row(Op::Adaptive, |layout| PoolArgs::adaptive(&s, layout), &x, (input, s.output()), &[cut], |row, layout, y| {
            for (i, (&y, &want)) in y.iter().zip(&want).enumerate() {
                assert!(same(y, want as f32), "{} {layout:?} {s:?} [{i}]: {y} for {want}", row.name);
            }
        });
    }
}

/// Rows of more columns than sums of rows are kept of.
#[test]
fn integer_averages_of_wide_rows_are_exact() {
    let input = [1, 2, 3, 1025];
    let (s, x) = (AdaptiveShape::new(input, [2, 4]).unwrap(), integers(2 * 3 * 1025, 3));
    let want = reference::adaptive_avg_pool2d(input, [2, 4], &x);
    every_row(
        Op::Adaptive,
        |layout| PoolArgs::adaptive(&s, layout),
        &x,
        (input, s.output()),
        &[1],
        |row, layout, y| {
            for (i, (&y, &want)) in y.iter().zip(&want).enumerate() {
                assert!(same(y, want as f32), "{} {layout:?} [{i}]: {y} for {want}", row.name);
            }
        },
    );
}

/// Real-valued averages stay within the stated bound.
#[test]
fn averages_keep_their_bound() {
    let s = PoolShape::builder([2, 20, 15, 13], 3).stride(2).padding(1).build().unwrap();
    let x: Vec<f32> =
        integers(Layout::Nchw.len(s.input()), 5).iter().enumerate().map(|(i, v)| v + i as f32 * 1e-3).collect();
    let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let want = reference::avg_pool2d(&s, false, &x);
    let global = AdaptiveShape::global(s.input()).unwrap();
    let want_global = reference::adaptive_avg_pool2d(s.input(), [1, 1], &x);
    for &level in Level::available() {
        let mut y = vec![f32::NAN; want.len()];
        pool::average(&Place::inline(level), Layout::Nchw, &s, &x, y.as_mut_slice().into(), Divisor::Inside);
        let bound = |elements: usize| (elements + 1) as f64 * 2f64.powi(-24) * f64::from(largest);
        assert!(y.iter().zip(&want).all(|(&y, w)| (f64::from(y) - w).abs() <= bound(9)));
        let mut y = vec![f32::NAN; want_global.len()];
        pool::adaptive_average(&Place::inline(level), Layout::Nchw, &global, &x, y.as_mut_slice().into());
        assert!(y.iter().zip(&want_global).all(|(&y, w)| (f64::from(y) - w).abs() <= bound(15 * 13)));
    }
}

/// A dilated window that steps over the whole input: minus infinity, no index, and zeros in the padding channels.
#[test]
fn windows_without_taps() {
    let s = PoolShape::builder([1, 3, 2, 2], 2).stride(1).dilation(3).padding(1).build().unwrap();
    assert_eq!(s.output(), [1, 3, 1, 1]);
    let case = Case {
        input: s.input(),
        kernel: [2, 2],
        stride: [1, 1],
        dilation: [3, 3],
        pad: [1; 4],
        ceil: false,
        seed: 1,
        cuts: vec![],
    };
    assert_eq!(reference::max_pool2d(&s, &[1.0; 12]).1, [NO_INDEX; 3]);
    check_max(&case);
}

/// As PyTorch 2: first of equal maxima, NaN over everything, ceil mode's divisor.
#[test]
fn rules_of_pytorch() {
    let s = PoolShape::builder([1, 1, 1, 6], [1, 3]).build().unwrap();
    for &level in Level::available() {
        let (place, nchw) = (&Place::inline(level), Layout::Nchw);
        let (mut y, mut indices) = ([0.0; 2], [9; 2]);
        let x = [2.0, 5.0, 5.0, 1.0, f32::NAN, 7.0];
        pool::max(place, nchw, &s, &x, y.as_mut_slice().into(), Some(&mut indices));
        assert!(y[0] == 5.0 && y[1].is_nan() && indices == [1, 4], "{level} {y:?} {indices:?}");
        pool::max(place, nchw, &s, &x, y.as_mut_slice().into(), None);
        assert!(y[0] == 5.0 && y[1].is_nan());
        // avg_pool2d(ones(1, 1, 1, 4), (1, 3), (1, 3), ceil_mode=True): the second window has one element.
        let c = PoolShape::builder([1, 1, 1, 4], [1, 3]).ceil_mode(true).build().unwrap();
        pool::average(place, nchw, &c, &[1.0; 4], y.as_mut_slice().into(), Divisor::Padded);
        assert_eq!(y, [1.0, 1.0]);
        // With padding (0, 1) the first window counts it: 2 / 3.
        let p = PoolShape::builder([1, 1, 1, 4], [1, 3]).padding([0, 1]).ceil_mode(true).build().unwrap();
        pool::average(place, nchw, &p, &[1.0; 4], y.as_mut_slice().into(), Divisor::Padded);
        assert_eq!(y, [2.0 / 3.0, 2.0 / 3.0]);
        pool::average(place, nchw, &p, &[1.0; 4], y.as_mut_slice().into(), Divisor::Inside);
        assert_eq!(y, [1.0, 1.0]);
    }
}

/// As PyTorch 2.9: in ceil mode a window may be larger than the image, at every level and in every layout.
#[test]
fn windows_larger_than_the_image() {
    let pool = |[h, w]: [usize; 2], k: usize, s: usize| PoolShape::builder([1, 1, h, w], k).stride(s).ceil_mode(true);
    let case = |input: [usize; 2], k: usize, s: usize| Case {
        input: [1, 1, input[0], input[1]],
        kernel: [k; 2],
        stride: [s; 2],
        dilation: [1; 2],
        pad: [0; 4],
        ceil: true,
        seed: 3,
        cuts: vec![1],
    };
    let run = |[h, w]: [usize; 2], k, s, x: &[f32], max: &[f32], mean: &[f32]| {
        let shape = pool([h, w], k, s).build().unwrap();
        for (&level, layout) in Level::available().iter().flat_map(|l| Layout::ALL.map(|layout| (l, layout))) {
            let place = &Place::inline(level);
            let x = arranged(x, layout, shape.input(), Side::End);
            let pooled = |run: &dyn Fn(&mut [f32])| {
                let mut y = vec![f32::NAN; layout.len(shape.output())];
                run(&mut y);
                let mut nchw = vec![f32::NAN; max.len()];
                reorder(layout, &y, Layout::Nchw, &mut nchw, shape.output());
                nchw
            };
            assert_eq!(
                pooled(&|y| _ = pool::max(place, layout, &shape, &x, y.into(), None)),
                max,
                "{level} {layout:?}"
            );
            for divisor in [Divisor::Inside, Divisor::Padded] {
                let average = |y: &mut [f32]| _ = pool::average(place, layout, &shape, &x, y.into(), divisor);
                assert_eq!(pooled(&average), mean, "{level} {layout:?}");
            }
        }
        check_max(&case([h, w], k, s));
        check_average(&case([h, w], k, s));
    };
    run([2, 2], 3, 2, &[0.0, 1.0, 2.0, 3.0], &[3.0], &[1.5]);
    run([1, 1], 2, 2, &[7.0], &[7.0], &[7.0]);
    run([5, 1], 2, 2, &[0.0, 1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 4.0], &[0.5, 2.5, 4.0]);
    // PyTorch: the output would have no pixels.
    for (input, k, s) in [([1, 1], 3, 1), ([4, 4], 7, 3)] {
        let refused = pool(input, k, s).build().unwrap_err();
        assert_eq!(refused, ShapeError::KernelTooLarge { axis: "height", kernel: k, input: input[0] });
    }
}

/// The safe functions take the unrolled row where there is one, and every name is its operation's.
#[test]
fn tables_are_in_order() {
    for &level in Level::available() {
        let rows = pool::table(level);
        // The scalar level has a row for any window alone.
        assert_eq!(rows.len(), if level == Level::Scalar { 3 } else { 9 });
        for (i, row) in rows.iter().enumerate() {
            assert!(row.name.ends_with(&format!("_f32_{level}")) && row.level == level);
            let first_for_all = rows.iter().position(|r| r.op == row.op && r.window.is_none()).unwrap();
            assert_eq!(row.window.is_none(), i == first_for_all, "{}", row.name);
            if let Some((k, s)) = row.window {
                assert!(row.name.contains(&format!("pool_{k}x{k}s{s}_")) && i < first_for_all);
                assert!(rows[..i].iter().all(|r| (r.op, r.window) != (row.op, row.window)));
            }
        }
        assert!(rows[rows.len() - 1].name.starts_with("adaptive"));
    }
}

#[test]
#[should_panic(expected = "output length for [1, 1, 2, 2]")]
fn lengths_must_agree() {
    let s = PoolShape::builder([1, 1, 4, 4], 2).build().unwrap();
    pool::max(&Place::inline(Level::Scalar), Layout::Nchw, &s, &[0.0; 16], [0.0; 3].as_mut_slice().into(), None);
}

/// A shape's fields are public: sizes that wrap around must not pass for small ones.
#[test]
#[should_panic(expected = "changed after it was built")]
fn changed_shapes_are_refused() {
    let mut s = PoolShape::builder([1, 1, 4, 4], 2).build().unwrap();
    s.dw = usize::MAX;
    pool::max(&Place::inline(Level::Scalar), Layout::Nchw, &s, &[0.0; 16], [0.0; 4].as_mut_slice().into(), None);
}

#[test]
#[should_panic(expected = "changed after it was built")]
fn changed_batches_are_refused() {
    let mut s = AdaptiveShape::new([1, 1, 2, 2], [1, 1]).unwrap();
    s.n = 1 << 62;
    pool::adaptive_average_backward(
        &Place::inline(Level::Scalar),
        Layout::Nchw,
        &s,
        &[],
        [0.0; 0].as_mut_slice().into(),
    );
}
