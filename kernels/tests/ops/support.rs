//! Runs an operator at every level, in every layout, on several numbers of threads.

use swath_kernels::exec::Executor;
use swath_kernels::isa::Level;
use swath_kernels::layout::{Layout, reorder};
use swath_kernels::pass::Place;

use crate::threads::{Odd, Threads, bits};

/// Executors of 1, 2, 3 and 8 threads, and one that calls less often than it says.
fn executors() -> Vec<Box<dyn Executor>> {
    vec![Box::new(Threads(1)), Box::new(Threads(2)), Box::new(Threads(3)), Box::new(Threads(8)), Box::new(Odd(4, 1))]
}

/// `f`'s results at each level, the same bits on any number of threads.
pub fn at_levels(mut f: impl FnMut(&Place<'_>) -> Vec<Vec<f32>>) -> Vec<(Level, Vec<Vec<f32>>)> {
    let mut results = Vec::new();
    for &level in Level::available() {
        let mut first: Option<Vec<Vec<f32>>> = None;
        for executor in executors() {
            let got = f(&Place::new(level, &*executor));
            match &first {
                None => first = Some(got),
                Some(first) => {
                    for (a, b) in first.iter().zip(&got) {
                        assert_eq!(bits(a), bits(b), "{level} on {} threads", executor.threads());
                    }
                }
            }
        }
        results.push((level, first.unwrap()));
    }
    results
}

/// An NCHW tensor in a layout.
pub fn to(layout: Layout, dims: [usize; 4], x: &[f32]) -> Vec<f32> {
    let mut y = vec![f32::NAN; layout.len(dims)];
    reorder(Layout::Nchw, x, layout, &mut y, dims);
    y
}

/// The same, back in NCHW; channels that pad the last block must be zero.
pub fn back(layout: Layout, dims: [usize; 4], x: &[f32]) -> Vec<f32> {
    let mut y = vec![f32::NAN; Layout::Nchw.len(dims)];
    reorder(layout, x, Layout::Nchw, &mut y, dims);
    assert_eq!(bits(&zero_signs(&to(layout, dims, &y))), bits(&zero_signs(x)), "padding channels of {dims:?} are zero");
    y
}

/// Without minus zeros.
fn zero_signs(x: &[f32]) -> Vec<f32> {
    x.iter().map(|v| v + 0.0).collect()
}

/// The values as f64.
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

/// Fails unless `abs(got - want) <= tolerance * scale` for all elements; both NaN is fine.
#[track_caller]
pub fn close(what: &str, got: &[f32], want: &[f64], tolerance: f64, scale: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let same = (f64::from(got) - want).abs() <= tolerance * scale || got.is_nan() && want.is_nan();
        assert!(same, "{what} [{i}]: {got} for {want}");
    }
}

/// The largest absolute value, at least `least`.
pub fn largest(x: &[f64], least: f64) -> f64 {
    x.iter().fold(least, |m, v| m.max(v.abs()))
}

/// Elements of any type from a layout to NCHW.
pub fn back_of<T: Copy>(layout: Layout, dims: [usize; 4], x: &[T]) -> Vec<T> {
    let [n, c, h, w] = dims;
    let s = layout.strides(dims);
    let mut y = Vec::with_capacity(n * c * h * w);
    for (i, k) in (0..n).flat_map(|i| (0..c).map(move |k| (i, k))) {
        for (r, p) in (0..h).flat_map(|r| (0..w).map(move |p| (r, p))) {
            let channel = if layout == Layout::Nchw { k * s.channel } else { k / 16 * s.block + k % 16 };
            y.push(x[i * s.n + channel + r * s.row + p * s.px]);
        }
    }
    y
}
