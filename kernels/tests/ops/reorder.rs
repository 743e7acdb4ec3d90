//! Changes of layout, against plain loops.

use crate::tries::tries;
use proptest::prelude::*;
use swath_kernels::layout::{Layout, reorder as naive};
use swath_kernels::reorder::reorder;

use crate::support::at_levels;
use crate::threads::pages::{Pages, Side};

/// Floats of any bits, NaN with payloads among them.
fn any_bits(len: usize, seed: u32) -> Vec<f32> {
    (0..len as u32).map(|i| f32::from_bits((i ^ seed).wrapping_mul(0x9e37_79b9).rotate_left(11))).collect()
}

fn check(dims: [usize; 4], seed: u32) {
    for (from, to) in Layout::ALL.into_iter().flat_map(|a| Layout::ALL.map(|b| (a, b))) {
        let mut x = vec![0.0; from.len(dims)];
        naive(Layout::Nchw, &any_bits(Layout::Nchw.len(dims), seed), from, &mut x, dims);
        let mut want = vec![f32::NAN; to.len(dims)];
        naive(from, &x, to, &mut want, dims);
        for (level, got) in at_levels(|place| {
            // Reading or writing beyond a slice ends the test.
            Side::BOTH
                .map(|side| {
                    let (x, mut y) = (Pages::copy(&x, side), Pages::nan(want.len(), side));
                    reorder(place, from, &x, to, &mut y, dims);
                    y.to_vec()
                })
                .to_vec()
        }) {
            for got in got {
                let same = got.iter().map(|v| v.to_bits()).eq(want.iter().map(|v| v.to_bits()));
                assert!(same, "{from:?} to {to:?} of {dims:?} at level {level}");
            }
        }
    }
}

proptest! {
    #![proptest_config(tries(60))]

    #[test]
    fn any_shape(n in 0usize..4, c in 1usize..70, h in 1usize..9, w in 1usize..41, seed in any::<u32>()) {
        check([n, c, h, w], seed);
    }
}

#[test]
fn pictures_and_planes_that_are_cut() {
    for dims in [[1, 3, 97, 101], [2, 1, 50, 3], [1, 4, 33, 31], [1, 2, 1, 1], [2, 33, 41, 53], [3, 16, 64, 64]] {
        check(dims, 7);
    }
}
