//! What a group computes does not depend on what the other groups hold.

use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::shape::ConvShape;

use crate::support::Problem;
use crate::tries::some;

/// Runs every algorithm that does groups, at every level, in every pair of layouts.
fn every_algorithm(problem: &Problem) {
    for level in Level::available() {
        problem.planar(*level, None);
        for (input, output) in Layout::ALL.into_iter().flat_map(|input| Layout::ALL.map(|output| (input, output))) {
            problem.direct(*level, input, output, None);
            problem.depthwise(*level, input, output, None);
            problem.gemm(*level, [input, output], None);
        }
    }
}

/// A problem of ones, but for `bad` all over input channel 0; the values of output channels 0, and of those of other groups.
fn check(shape: ConvShape, bad: f32, first: f64, others: f64) {
    let mut problem = Problem::ones(shape);
    problem.set_channel(0, bad);
    let plane = shape.oh * shape.ow;
    let middle = |channel: usize| problem.want[channel * plane + plane / 2];
    assert!(middle(0) == first || middle(0).is_nan() && first.is_nan(), "the oracle gives {}", middle(0));
    assert_eq!(middle(shape.ocg()), others);
    every_algorithm(&problem);
}

#[test]
fn infinities_and_nans_stay_in_their_group() {
    let pointwise = ConvShape::builder([1, 4, 1, 1], [6, 2, 1, 1]).groups(2).build().unwrap();
    check(pointwise, f32::NAN, f64::NAN, 2.0);
    check(pointwise, f32::INFINITY, f64::INFINITY, 2.0);
    let shape = ConvShape::builder([1, 60, 7, 7], [60, 20, 3, 3]).groups(3).padding(1).build().unwrap();
    check(shape, f32::INFINITY, f64::INFINITY, 180.0);
}

/// Groups of every number of channels around a block's, of which every other one holds infinities, NaN, or both.
#[test]
fn groups_of_any_size() {
    let pairs = [(1, 3), (2, 5), (3, 8), (7, 12), (12, 7), (16, 24), (17, 33), (24, 16), (40, 40), (9, 31)];
    for (icg, ocg) in some(pairs) {
        for (i, groups) in [2, 3, 5].into_iter().enumerate() {
            let shape = ConvShape::builder([2, groups * icg, 4, 9], [groups * ocg, icg, 3, 3]).groups(groups);
            let mut problem = Problem::new(shape.padding(1).build().unwrap(), (icg + ocg) as u64);
            for c in (0..groups * icg).filter(|c| c / icg % 2 == i % 2) {
                problem.set_channel(c, [f32::INFINITY, f32::NAN, f32::NEG_INFINITY][c % 3]);
            }
            every_algorithm(&problem);
        }
    }
}
