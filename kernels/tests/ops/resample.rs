//! Interpolation, padding, pixel shuffle and dropout.

use crate::tries::tries;
use proptest::prelude::*;
use swath_kernels::dropout::{Drop, Dropout, DropoutError};
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::pass::Place;
use swath_kernels::reference::{self as naive, Taps};
use swath_kernels::resample::{Filter, PadMode, Resample, Size};
use swath_kernels::shape::ShapeError;
use swath_kernels::shuffle::Shuffle;

use crate::support::{at_levels, back, close, largest, to, wide};
use crate::threads::{Guarded, bits, integers, random};

fn filters() -> impl Strategy<Value = Filter> {
    (0usize..4, any::<bool>()).prop_map(|(kind, align_corners)| match kind {
        0 => Filter::Nearest,
        1 => Filter::NearestExact,
        2 => Filter::Bilinear { align_corners },
        _ => Filter::Bicubic { align_corners },
    })
}

/// A map forward and backward in every layout against both axes' taps.
fn check(what: &str, make: impl Fn(Layout) -> Resample, [v, h]: [&Taps; 2], fill: f32, seed: u64) {
    let [n, c, ih, iw] = make(Layout::Nchw).input();
    let output = [n, c, v.len(), h.len()];
    assert_eq!(make(Layout::Nchw).output(), output, "{what}");
    let (x, dy) = (random(n * c * ih * iw, seed), random(n * c * v.len() * h.len(), seed + 1));
    let y = naive::resample(n * c, [ih, iw], [v, h], f64::from(fill), &wide(&x));
    let dx = naive::resample_gradient(n * c, [ih, iw], [v, h], &wide(&dy));
    for layout in Layout::ALL {
        let map = make(layout);
        let (xl, dyl) = (to(layout, map.input(), &x), to(layout, output, &dy));
        for (level, got) in at_levels(|place| {
            let (mut y, mut dx) = (Guarded::nan(dyl.len()), Guarded::nan(xl.len()));
            map.forward(place, &xl, y.slice().into());
            map.backward(place, &dyl, dx.slice().into());
            vec![back(layout, output, &y.check()), back(layout, map.input(), &dx.check())]
        }) {
            let what = format!("{what} {level} {layout:?} {:?} to {output:?}", map.input());
            close(&what, &got[0], &y, 5e-7, largest(&y, 1.0));
            // A gradient is a sum over all outputs that see it.
            close(&format!("{what} dx"), &got[1], &dx, 3e-6, largest(&dx, 1.0));
        }
    }
}

proptest! {
    #![proptest_config(tries(40))]

    #[test]
    fn any_interpolation(
        [n, c, h, w] in [1usize..3, 1usize..40, 1usize..12, 1usize..12],
        size in [1usize..25, 1usize..25],
        factors in [0.3f64..4.0, 0.3f64..4.0],
        by: bool,
        filter in filters(),
        seed in 0u64..1000,
    ) {
        let out = [h, w].into_iter().zip(factors).map(|(i, f)| (i as f64 * f) as usize).collect::<Vec<_>>();
        prop_assume!(!by || out.iter().all(|&o| o > 0));
        let size = if by { Size::By(factors) } else { Size::To(size) };
        let axis = |i: usize, input: usize| {
            let (output, scale) = match size {
                Size::By(f) => (out[i], 1.0 / f[i]),
                Size::To(s) => (s[i], input as f64 / s[i] as f64),
            };
            // Where products of f32 decide which pixel is nearest, the oracle follows them.
            let f32_scale = f64::from(scale as f32);
            let (same, double) = (output == input, output == 2 * input);
            match filter {
                Filter::Nearest if same => naive::resize_taps(input, output, 1.0, filter),
                Filter::Nearest if double => naive::resize_taps(input, output, 0.5, filter),
                Filter::Nearest | Filter::NearestExact => naive::resize_taps(input, output, f32_scale, filter),
                _ => naive::resize_taps(input, output, scale, filter),
            }
        };
        let (v, hs) = (axis(0, h), axis(1, w));
        check(&format!("{filter:?} {size:?}"), |layout| Resample::resize(layout, [n, c, h, w], size, filter).unwrap(), [&v, &hs], 0.0, seed);
    }

    #[test]
    fn any_padding([n, c, h, w] in [1usize..3, 1usize..40, 2usize..12, 2usize..12], pad in [0usize..5, 0usize..5, 0usize..5, 0usize..5], mode in 0usize..4, seed in 0u64..1000) {
        let mode = [PadMode::Constant(-2.5), PadMode::Reflect, PadMode::Replicate, PadMode::Circular][mode];
        let most = |input: usize| match mode {
            PadMode::Reflect => input - 1,
            PadMode::Circular => input,
            _ => 9,
        };
        let [top, left, bottom, right] = [pad[0].min(most(h)), pad[1].min(most(w)), pad[2].min(most(h)), pad[3].min(most(w))];
        let (v, hs) = (naive::pad_taps(h, [top, bottom], mode), naive::pad_taps(w, [left, right], mode));
        let make = |layout| Resample::pad(layout, [n, c, h, w], [top, left, bottom, right], mode).unwrap();
        check(&format!("{mode:?}"), make, [&v, &hs], -2.5, seed);
    }

    #[test]
    fn any_shuffle(n in 1usize..3, c in 1usize..20, r in 1usize..4, [h, w] in [1usize..9, 1usize..9], seed in 0u64..1000) {
        let deep = [n, c * r * r, h, w];
        let x = integers(n * c * r * r * h * w, seed);
        let mut y = vec![f32::NAN; x.len()];
        for (i, v) in x.iter().enumerate() {
            let (px, py, channel, image) = (i % w, i / w % h, i / (h * w) % deep[1], i / (h * w) / deep[1]);
            let (k, dy, dx) = (channel / (r * r), channel / r % r, channel % r);
            y[((image * c + k) * h * r + py * r + dy) * w * r + px * r + dx] = *v;
        }
        for layout in Layout::ALL {
            let shuffle = Shuffle::new(layout, deep, r).unwrap();
            let xl = to(layout, deep, &x);
            for (level, got) in at_levels(|place| {
                let (mut wide, mut deep_again) = (Guarded::nan(layout.len(shuffle.wide())), Guarded::nan(xl.len()));
                shuffle.to_pixels(place, &xl, wide.slice());
                shuffle.to_channels(place, wide.slice(), deep_again.slice());
                vec![back(layout, shuffle.wide(), &wide.check()), back(layout, deep, &deep_again.check())]
            }) {
                prop_assert_eq!(&got[0], &y, "{} {:?} {:?} by {}", level, layout, deep, r);
                prop_assert_eq!(&got[1], &x, "{} {:?} {:?} by {}", level, layout, deep, r);
            }
        }
    }

    /// Masks do not depend on the layout, the level or the number of threads; other steps have others.
    #[test]
    fn any_dropout([n, c, h, w] in [1usize..4, 1usize..40, 1usize..30, 1usize..30], p in 0.05f32..0.95, channels: bool, seed: u64, step: u64) {
        let dims = [n, c, h, w];
        let what = if channels { Drop::Channels } else { Drop::Elements };
        let x = vec![1.0; n * c * h * w];
        let mut first: Option<Vec<f32>> = None;
        for layout in Layout::ALL {
            let dropout = Dropout::new(layout, dims, p, what).unwrap();
            let xl = to(layout, dims, &x);
            for (_, got) in at_levels(|place| {
                let mut y = Guarded::nan(xl.len());
                dropout.apply(place, [seed, step], &xl, y.slice());
                vec![back(layout, dims, &y.check())]
            }) {
                let first = first.get_or_insert_with(|| got[0].clone());
                prop_assert_eq!(bits(first), bits(&got[0]), "{:?}", layout);
            }
        }
        let y = first.unwrap();
        prop_assert!(y.iter().all(|&v| v == 0.0 || v == 1.0 / (1.0 - p)));
        if channels {
            prop_assert!(y.chunks(h * w).all(|plane| plane.iter().all(|v| *v == plane[0])));
        }
    }
}

fn filters_of_large_planes() -> [Filter; 3] {
    [Filter::NearestExact, Filter::Bilinear { align_corners: false }, Filter::Bicubic { align_corners: false }]
}

/// More rows than a part holds, and columns than a span.
#[test]
fn large_planes() {
    // Rows of planes that are made in several spans, and pixels that too many outputs see for one.
    for (input, output) in [(1500, 3000), (3100, 1501), (2, 2500)] {
        for filter in filters_of_large_planes() {
            let scale = input as f64 / output as f64;
            let (v, h) = (naive::resize_taps(2, 4, 0.5, filter), naive::resize_taps(input, output, scale, filter));
            let resize = |layout| Resample::resize(layout, [1, 2, 2, input], Size::To([4, output]), filter).unwrap();
            check("wide", resize, [&v, &h], 0.0, 3);
        }
    }
    let filter = Filter::Bilinear { align_corners: false };
    let (v, h) = (naive::resize_taps(50, 130, 50.0 / 130.0, filter), naive::resize_taps(40, 90, 40.0 / 90.0, filter));
    check(
        "large",
        |layout| Resample::resize(layout, [2, 20, 50, 40], Size::To([130, 90]), filter).unwrap(),
        [&v, &h],
        0.0,
        1,
    );
    let (v, h) = (naive::resize_taps(60, 120, 0.5, Filter::Nearest), naive::resize_taps(61, 122, 0.5, Filter::Nearest));
    check(
        "double",
        |layout| Resample::resize(layout, [1, 17, 60, 61], Size::By([2.0; 2]), Filter::Nearest).unwrap(),
        [&v, &h],
        0.0,
        2,
    );
}

/// As many are dropped as the probability says, neighbours independently, and steps differ.
#[test]
fn dropout_is_fair() {
    let dims = [1, 16, 250, 250];
    let len = 1_000_000usize;
    let (x, place) = (vec![1.0; len], Place::inline(*Level::available().last().unwrap()));
    let mask = |step: u64, p: f32| {
        let mut y = vec![0.0; len];
        Dropout::new(Layout::Nchw, dims, p, Drop::Elements).unwrap().apply(&place, [42, step], &x, &mut y);
        y.into_iter().map(|v| v == 0.0).collect::<Vec<_>>()
    };
    for p in [0.1f32, 0.5, 0.9] {
        let (a, b) = (mask(0, p), mask(1, p));
        let p = f64::from(p);
        // Five standard deviations of a sum of a million.
        let near =
            |count: usize, p: f64| (count as f64 - len as f64 * p).abs() < 5.0 * (len as f64 * p * (1.0 - p)).sqrt();
        assert!(near(a.iter().filter(|d| **d).count(), p), "dropped at {p}");
        for lag in [1usize, 2, 16, 250, 62_500] {
            let both = (0..len).filter(|&i| a[i] && a[(i + lag) % len]).count();
            assert!(near(both, p * p), "neighbours {lag} apart at {p}: {both}");
        }
        assert!(near((0..len).filter(|&i| a[i] && b[i]).count(), p * p), "steps at {p}");
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    let text = |r: Result<Resample, ShapeError>| r.unwrap_err().to_string();
    let pad = |p: usize, mode| Resample::pad(Layout::Nchw, [1, 1, 4, 4], p, mode);
    assert!(text(pad(4, PadMode::Reflect)).contains("the padding is 4, but an image of 4 allows at most 3"));
    assert!(
        pad(4, PadMode::Circular).is_ok() && pad(5, PadMode::Circular).is_err() && pad(9, PadMode::Replicate).is_ok()
    );
    assert!(Resample::resize(Layout::Nchw, [1, 1, 4, 4], Size::By([0.1, 1.0]), Filter::Nearest).is_err());
    assert!(Resample::resize(Layout::Nchw, [1, 1, 4, 4], Size::By([1e30, 1.0]), Filter::Nearest).is_err());
    assert!(Shuffle::new(Layout::Nchw, [1, 6, 2, 2], 2).unwrap_err().to_string().contains("4 groups do not divide 6"));
    let p = Dropout::new(Layout::Nchw, [1, 1, 1, 1], 1.5, Drop::Elements);
    assert_eq!(p, Err(DropoutError::Probability(1.5)));
    assert!(Dropout::new(Layout::Nchw, [1, 1, 1, 1], f32::NAN, Drop::Elements).is_err());
    let mut y = [1.0; 2];
    let all = Dropout::new(Layout::Nchw, [1, 1, 1, 2], 1.0, Drop::Elements).unwrap();
    all.apply(&Place::inline(Level::Scalar), [0, 0], &[f32::INFINITY; 2], &mut y);
    assert_eq!(y, [0.0; 2]);
}
