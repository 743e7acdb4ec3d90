//! Max pooling with taps, adaptive max pooling, and gradients of all pooling.

use crate::tries::tries;
use proptest::prelude::*;
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::pass::Place;
use swath_kernels::pool::{self, AdaptiveShape, Divisor, Tap};
use swath_kernels::reference as naive;
use swath_kernels::shape::PoolShape;

use crate::support::{at_levels, back, back_of, close, largest, to, wide};
use crate::threads::{Guarded, integers, random};

fn shapes() -> impl Strategy<Value = PoolShape> {
    let pair = |lo: usize, hi: usize| [lo..hi, lo..hi];
    // Wide rows are computed side by side where pixels are single floats.
    let wide = (1usize..3, 1usize..5, [1usize..14, 14usize..80]);
    let size = prop_oneof![(1usize..3, 1usize..40, pair(1, 14)), wide];
    (size, pair(1, 5), pair(1, 4), pair(0, 3), pair(1, 3), any::<bool>()).prop_filter_map(
        "a window that fits",
        |((n, c, [h, w]), k, s, p, d, ceil)| {
            let builder = PoolShape::builder([n, c, h, w], k).stride(s).padding(p).dilation(d).ceil_mode(ceil);
            builder.build().ok()
        },
    )
}

/// Whole numbers with ties, and now and then a NaN or an infinity.
fn extremes(len: usize, seed: u64) -> Vec<f32> {
    let mut x = integers(len, seed);
    for (v, r) in x.iter_mut().zip(random(len, seed + 9)) {
        *v = match r {
            r if r > 0.95 => f32::NAN,
            r if r < -0.9 => f32::NEG_INFINITY,
            _ => *v,
        };
    }
    x
}

/// The index that a tap of output `o` names.
fn index<T: Tap>(s: &PoolShape, tap: T, o: usize) -> u32 {
    if tap == T::NONE {
        return u32::MAX;
    }
    let (oy, ox) = (o / s.ow % s.oh, o % s.ow);
    let (iy, ix) = (oy * s.sh + tap.get() / s.kw * s.dh - s.pad.top, ox * s.sw + tap.get() % s.kw * s.dw - s.pad.left);
    (iy * s.iw + ix) as u32
}

fn check_max<T: Tap>(s: &PoolShape, x: &[f32], dy: &[f32]) {
    let (want, indices) = naive::max_pool2d(s, x);
    let want_dx = naive::max_pool2d_gradient(s.n * s.c, s.ih * s.iw, &indices, &wide(dy));
    for layout in Layout::ALL {
        let (xl, dyl) = (to(layout, s.input(), x), to(layout, s.output(), dy));
        for (level, got) in at_levels(|place| {
            let (mut y, mut dx, mut taps) =
                (Guarded::nan(dyl.len()), Guarded::nan(xl.len()), vec![T::new(77); dyl.len()]);
            pool::max_taps(place, layout, s, &xl, y.slice().into(), taps.as_mut_slice().into());
            for (o, tap) in back_of(layout, s.output(), &taps).into_iter().enumerate() {
                assert_eq!(index(s, tap, o), indices[o], "{layout:?} {s:?} tap of output {o}");
            }
            pool::max_backward(place, layout, s, &taps, &dyl, dx.slice().into());
            vec![back(layout, s.output(), &y.check()), back(layout, s.input(), &dx.check())]
        }) {
            let what = format!("{level} {layout:?} {s:?}");
            for (got, want) in got[0].iter().zip(&want) {
                assert!(f64::from(*got) == *want || got.is_nan() && want.is_nan(), "{what}: {got} for {want}");
            }
            // Whole numbers add up exactly.
            close(&format!("{what} dx"), &got[1], &want_dx, 0.0, 1.0);
        }
    }
}

fn check_average(s: &PoolShape, divisor: Divisor, dy: &[f32]) {
    let want = match divisor {
        Divisor::Fixed(d) => {
            // The padded average counts the taps in the padding too, so it undoes to sums where no window hangs over.
            let sums: Vec<f64> = wide(dy).iter().map(|v| v * (s.kh * s.kw) as f64 / d as f64).collect();
            naive::avg_pool2d_gradient(s, true, &sums)
        }
        d => naive::avg_pool2d_gradient(s, d == Divisor::Padded, &wide(dy)),
    };
    for layout in Layout::ALL {
        let dyl = to(layout, s.output(), dy);
        for (level, got) in at_levels(|place| {
            let mut dx = Guarded::nan(layout.len(s.input()));
            pool::average_backward(place, layout, s, divisor, &dyl, dx.slice().into());
            vec![back(layout, s.input(), &dx.check())]
        }) {
            close(&format!("{level} {layout:?} {divisor:?} {s:?}"), &got[0], &want, 2e-7, largest(&want, 1.0));
        }
    }
}

proptest! {
    #![proptest_config(tries(32))]

    #[test]
    fn any_window(s in shapes(), seed in 0u64..1000) {
        let len = |d: [usize; 4]| Layout::Nchw.len(d);
        let dy = integers(len(s.output()), seed + 1);
        check_max::<u8>(&s, &extremes(len(s.input()), seed), &dy);
        check_max::<u16>(&s, &extremes(len(s.input()), seed), &dy);
        if [s.dh, s.dw] == [1, 1] {
            check_average(&s, Divisor::Inside, &dy);
            check_average(&s, Divisor::Padded, &dy);
            let hangs = (s.oh - 1) * s.sh + s.kh > s.ih + s.pad.top + s.pad.bottom || (s.ow - 1) * s.sw + s.kw > s.iw + s.pad.left + s.pad.right;
            if !hangs {
                check_average(&s, Divisor::Fixed(7), &dy);
            }
        }
    }

    #[test]
    fn any_region(n in 1usize..3, c in 1usize..40, [h, w] in [1usize..12, 1usize..12], [oh, ow] in [1usize..9, 1usize..9], seed in 0u64..1000) {
        let s = AdaptiveShape::new([n, c, h, w], [oh, ow]).unwrap();
        let (x, dy) = (extremes(n * c * h * w, seed), integers(n * c * oh * ow, seed + 1));
        let (want, indices) = naive::adaptive_max_pool2d(s.input(), [oh, ow], &x);
        let want_dx = naive::max_pool2d_gradient(n * c, h * w, &indices, &wide(&dy));
        let average = naive::adaptive_avg_pool2d_gradient(s.input(), [oh, ow], &wide(&dy));
        for layout in Layout::ALL {
            let (xl, dyl) = (to(layout, s.input(), &x), to(layout, s.output(), &dy));
            for (level, got) in at_levels(|place| {
                let (mut y, mut at) = (Guarded::nan(dyl.len()), vec![7; dyl.len()]);
                let (mut dx, mut da) = (Guarded::nan(xl.len()), Guarded::nan(xl.len()));
                pool::adaptive_max(place, layout, &s, &xl, y.slice().into(), at.as_mut_slice().into());
                assert_eq!(back_of(layout, s.output(), &at), indices, "{layout:?}");
                pool::adaptive_max_backward(place, layout, &s, &at, &dyl, dx.slice().into());
                pool::adaptive_average_backward(place, layout, &s, &dyl, da.slice().into());
                vec![back(layout, s.output(), &y.check()), back(layout, s.input(), &dx.check()), back(layout, s.input(), &da.check())]
            }) {
                let what = format!("{level} {layout:?} {s:?}");
                for (got, want) in got[0].iter().zip(&want) {
                    prop_assert!(f64::from(*got) == *want || got.is_nan() && want.is_nan(), "{}: {} for {}", what, got, want);
                }
                close(&what, &got[1], &want_dx, 0.0, 1.0);
                close(&what, &got[2], &average, 3e-7, largest(&average, 1.0));
            }
        }
    }
}

/// More rows than a part holds, and planes that several threads share.
#[test]
fn large_planes() {
    for dims in [[1, 20, 70, 61], [2, 3, 130, 40]] {
        let s = PoolShape::builder(dims, 3).stride(2).padding(1).build().unwrap();
        let (x, dy) = (integers(Layout::Nchw.len(dims), 3), integers(Layout::Nchw.len(s.output()), 4));
        check_max::<u8>(&s, &x, &dy);
        check_average(&s, Divisor::Inside, &dy);
    }
}

#[test]
fn large_windows_want_more_than_a_byte() {
    let s = PoolShape::builder([1, 17, 20, 20], 17).stride(1).build().unwrap();
    check_max::<u16>(&s, &extremes(17 * 400, 5), &integers(17 * 16, 6));
    let refused = std::panic::catch_unwind(|| {
        let place = Place::inline(Level::Scalar);
        let (mut y, mut taps) = (vec![0.0; 17 * 16], vec![0u8; 17 * 16]);
        pool::max_taps(
            &place,
            Layout::Nchw,
            &s,
            &vec![0.0; 17 * 400],
            y.as_mut_slice().into(),
            taps.as_mut_slice().into(),
        );
    });
    assert_eq!(*refused.unwrap_err().downcast_ref::<String>().unwrap(), "289 taps of a window, 255 can be told apart");
}
