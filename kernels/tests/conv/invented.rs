//! Geometries that proptest invents, and named ones that once were or could be wrong.

use std::collections::BTreeSet;

use crate::tries::{some, tries};
use proptest::prelude::*;
use swath_kernels::direct::Blocking;
use swath_kernels::gemm;
use swath_kernels::isa::Level;
use swath_kernels::isa::matrix::MatrixUnit;
use swath_kernels::layout::Layout;
use swath_kernels::planar;
use swath_kernels::shape::ConvShape;
use swath_kernels::winograd::Variant;

use crate::support::{Problem, bits};

/// Any valid geometry of moderate size.
fn shapes() -> impl Strategy<Value = ConvShape> {
    let channels = (prop_oneof![3 => Just(1usize), 1 => 2usize..5, 1 => 5usize..20], 1usize..20, 1usize..40);
    let image = (0usize..3, 1usize..19, 1usize..33);
    let window =
        ([1usize..6, 1usize..6], [1usize..4, 1usize..5], [1usize..4, 1usize..4], prop::array::uniform4(0usize..4));
    (channels, image, window).prop_filter_map(
        "kernel beyond the input",
        |((g, icg, ocg), (n, ih, iw), (k, s, d, p))| {
            let (icg, ocg) = if g > 4 { (icg % 5 + 1, ocg % 6 + 1) } else { (icg, ocg) };
            ConvShape::builder([n, g * icg, ih, iw], [g * ocg, icg, k[0], k[1]])
                .stride(s)
                .dilation(d)
                .padding(p)
                .groups(g)
                .build()
                .ok()
        },
    )
}

/// Any geometry that Winograd does, of moderate size.
fn winograd_shapes() -> impl Strategy<Value = ConvShape> {
    let image = (0usize..4, 1usize..22, 1usize..31);
    (1usize..40, prop_oneof![4 => 1usize..40, 1 => 60usize..150], image, prop::array::uniform4(0usize..4))
        .prop_filter_map("kernel beyond the input", |(ic, oc, (n, ih, iw), p)| {
            ConvShape::builder([n, ic, ih, iw], [oc, ic, 3, 3]).padding(p).build().ok()
        })
}

/// Any geometry without groups, of moderate size; every third of single taps.
fn ungrouped_shapes() -> impl Strategy<Value = ConvShape> {
    let image = (0usize..3, 1usize..7, 1usize..36);
    let kernel = prop_oneof![1 => Just([1usize, 1]), 2 => [1usize..4, 1usize..4]];
    let window = (kernel, [1usize..4, 1usize..4], [1usize..3, 1usize..3]);
    let padding = prop_oneof![Just([0; 4]), prop::array::uniform4(0usize..4)];
    (1usize..70, 1usize..50, image, window, padding).prop_filter_map(
        "kernel beyond the input",
        |(ic, oc, (n, ih, iw), (k, s, d), p)| {
            let shape = ConvShape::builder([n, ic, ih, iw], [oc, ic, k[0], k[1]]);
            shape.stride(s).dilation(d).padding(p).build().ok()
        },
    )
}

/// A problem, of which every third has inputs that are not finite.
fn problem(shape: ConvShape, seed: u64) -> Problem {
    if seed % 3 == 2 { Problem::spoilt(shape, seed) } else { Problem::new(shape, seed) }
}

fn layouts() -> impl Strategy<Value = Layout> {
    prop::sample::select(Layout::ALL.to_vec())
}

fn blockings() -> impl Strategy<Value = Option<Blocking>> {
    prop::option::of(
        (1usize..4, prop_oneof![1usize..6, Just(99)], 1usize..40, 1usize..5, 1usize..4)
            .prop_map(|(images, rows, cols, panel, chunk)| Blocking { images, rows, cols, panel, chunk }),
    )
}

fn gemm_blockings() -> impl Strategy<Value = Option<gemm::Blocking>> {
    prop::option::of((1..40usize, 1..40usize).prop_map(|(mc, kc)| gemm::Blocking { mc, kc, nc: 16 }))
}

proptest! {
    #![proptest_config(tries(96))]

    #[test]
    fn direct(shape in shapes(), input in layouts(), output in layouts(), blocking in blockings(), seed in 0u64..1000) {
        let problem = problem(shape, seed);
        for level in Level::available() {
            problem.direct(*level, input, output, blocking);
        }
    }

    #[test]
    fn gemm(shape in shapes(), input in layouts(), output in layouts(), blocking in gemm_blockings(), seed in 0u64..1000) {
        let problem = problem(shape, seed);
        for level in Level::available() {
            problem.gemm(*level, [input, output], blocking);
        }
    }

    #[test]
    fn pointwise(
        (n, ic, oc) in (0usize..4, prop_oneof![1usize..70, (1usize..5).prop_map(|blocks| blocks * 16)], 1usize..90),
        (ih, iw, stride) in (1usize..20, 1usize..20, [1usize..4, 1usize..4]),
        padding in prop_oneof![Just([0; 4]), prop::array::uniform4(0usize..3)],
        output in layouts(),
        blocking in blockings(),
        seed in 0u64..1000,
    ) {
        let shape = ConvShape::builder([n, ic, ih, iw], [oc, ic, 1, 1]).stride(stride).padding(padding).build().unwrap();
        let problem = problem(shape, seed);
        for level in Level::available() {
            problem.direct(*level, Layout::Blocked, output, blocking);
        }
    }

    #[test]
    fn depthwise(
        shape in shapes(),
        input in layouts(),
        output in layouts(),
        pixels in prop::option::of(1usize..11),
        seed in 0u64..1000,
    ) {
        let problem = problem(shape, seed);
        for level in Level::available() {
            problem.depthwise(*level, input, output, pixels);
        }
    }

    /// Planes with borders of any width, in vectors of every length, rows of 1 to several vectors.
    #[test]
    fn planar(
        (groups, icg, ocg, n) in (2usize..6, prop_oneof![3 => Just(1usize), 1 => 1usize..9], 1usize..4, 0usize..3),
        image in (1usize..24, prop_oneof![1usize..24, 24usize..70]),
        kernel in prop_oneof![Just([3usize, 3]), Just([5, 5]), Just([7, 7]), [1usize..8, 1usize..8]],
        (stride, dilation) in ([1usize..4, 1usize..3], prop_oneof![4 => Just([1usize, 1]), 1 => [1usize..4, 1usize..4]]),
        (padding, square) in (prop::array::uniform4(0usize..8), any::<bool>()),
        seed in 0u64..1000,
    ) {
        let shape = ConvShape::builder([n, groups * icg, image.0, image.1], [groups * ocg, icg, kernel[0], kernel[1]]);
        let stride = if square { [stride[1]; 2] } else { stride };
        let shape = shape.stride(stride).dilation(dilation).padding(padding).groups(groups).build();
        prop_assume!(shape.is_ok());
        let problem = problem(shape.unwrap(), seed);
        for level in Level::available() {
            assert!(problem.planar(*level, None).is_some());
            for lanes in planar::rows(*level).iter().map(|row| row.lanes).collect::<BTreeSet<_>>() {
                assert!(problem.planar(*level, Some(lanes)).is_some());
            }
        }
    }

    /// Groups of whole vectors of outputs, whose inputs begin and end anywhere in blocks.
    #[test]
    fn groups_across_blocks(
        (groups, icg, ocg) in (2usize..6, 1usize..33, prop::sample::select(vec![4usize, 8, 16, 24, 32])),
        (n, ih, iw) in (1usize..3, 1usize..9, 1usize..24),
        (kh, stride, padding) in (1usize..4, [1usize..3, 1usize..3], prop::array::uniform4(0usize..3)),
        (input, output) in (layouts(), layouts()),
        seed in 0u64..1000,
    ) {
        let shape = ConvShape::builder([n, groups * icg, ih, iw], [groups * ocg, icg, kh, 3]);
        let shape = shape.stride(stride).padding(padding).groups(groups).build();
        prop_assume!(shape.is_ok());
        let problem = problem(shape.unwrap(), seed);
        for level in Level::available() {
            let done = problem.depthwise(*level, input, output, None);
            assert!(done.is_some() || !ocg.is_multiple_of(level.lanes()), "{level} does groups of whole vectors");
        }
    }

    #[test]
    fn winograd(shape in winograd_shapes(), input in layouts(), output in layouts(), chunk in 1usize..40, seed in 0u64..1000) {
        let problem = problem(shape, seed);
        for level in Level::available() {
            for variant in Variant::ALL {
                let whole = problem.winograd(*level, variant, [input, output], None);
                assert!(!whole.is_empty() || shape.n == 0);
                // Chunks do not change a bit.
                let cut = problem.winograd(*level, variant, [input, output], Some(chunk));
                assert!(bits(&whole) == bits(&cut));
            }
        }
    }
}

proptest! {
    // Products in plain loops take long.
    #![proptest_config(tries(32))]

    #[test]
    fn bf16x6(
        shape in ungrouped_shapes(),
        nhwc in any::<bool>(),
        output in layouts(),
        most in 1usize..70,
        seed in 0u64..1000,
    ) {
        let problem = problem(shape, seed);
        let layouts = [if nhwc { Layout::Nhwc } else { Layout::Blocked }, output];
        for level in Level::available() {
            for unit in MatrixUnit::ALL.into_iter().filter(|u| u.is_available()) {
                let whole = problem.bf16x6(*level, unit, layouts, None);
                assert!(!whole.is_empty() || shape.n == 0);
                // Parts do not change a bit.
                assert!(bits(&whole) == bits(&problem.bf16x6(*level, unit, layouts, Some(most))));
            }
        }
    }
}

/// Parts of 48 and 49 pixels, the smaller of which is cut into longer tiles, and runs of pixels whose last tiles overlap.
#[test]
fn parts_of_bf16x6() {
    for (ih, iw, stride, most) in [(1, 97, 1, 49), (97, 1, 1, 49), (9, 33, 2, 33), (7, 7, 1, 48), (3, 18, 1, 19)] {
        let shape = ConvShape::builder([2, 40, ih, iw], [48, 40, 1, 1]).stride(stride).build().unwrap();
        let problem = Problem::new(shape, 1);
        for unit in MatrixUnit::ALL.into_iter().filter(|u| u.is_available()) {
            let level = *Level::available().last().unwrap();
            for layouts in [[Layout::Blocked, Layout::Blocked], [Layout::Nhwc, Layout::Nchw]] {
                let whole = problem.bf16x6(level, unit, layouts, None);
                assert_eq!(whole, problem.bf16x6(level, unit, layouts, Some(most)));
            }
        }
    }
}

/// Layers of real networks and corners of the rules.
#[test]
fn named_shapes() {
    let conv = |input, weights| ConvShape::builder(input, weights);
    let shapes = [
        conv([1, 32, 28, 28], [64, 32, 3, 3]).padding(1).build(),
        conv([1, 3, 35, 35], [20, 3, 7, 7]).stride(2).padding(3).build(),
        conv([1, 48, 9, 9], [80, 48, 1, 1]).build(),
        conv([1, 40, 15, 15], [33, 40, 1, 1]).stride(2).build(),
        conv([1, 48, 9, 9], [40, 48, 1, 1]).padding(1).build(),
        conv([1, 128, 7, 7], [64, 128, 3, 3]).padding(1).build(),
        conv([1, 16, 33, 33], [16, 16, 3, 3]).padding(12).dilation(12).build(),
        conv([1, 20, 19, 19], [35, 20, 3, 3]).padding(1).build(),
        conv([1, 3, 24, 24], [40, 3, 4, 4]).stride(4).build(),
        conv([1, 48, 13, 13], [96, 12, 3, 3]).padding(1).groups(4).build(),
        conv([1, 64, 12, 12], [64, 4, 3, 3]).padding(1).groups(16).build(),
        conv([1, 64, 8, 8], [64, 32, 3, 3]).padding(1).groups(2).build(),
        conv([1, 40, 7, 9], [16, 20, 3, 3]).padding(1).groups(2).build(),
        conv([2, 72, 6, 21], [72, 24, 3, 3]).padding(1).stride(2).groups(3).build(),
        conv([2, 21, 11, 11], [63, 1, 5, 5]).padding(2).groups(21).build(),
        conv([2, 32, 14, 14], [32, 1, 7, 7]).stride(2).padding(3).groups(32).build(),
        // Outputs that see nothing but padding, a single pixel, a window of one row.
        conv([1, 5, 3, 3], [6, 5, 2, 2]).padding(3).stride(2).build(),
        conv([1, 1, 1, 1], [1, 1, 1, 1]).build(),
        conv([3, 17, 1, 40], [18, 17, 1, 5]).padding([0, 2]).build(),
        conv([0, 17, 4, 4], [18, 17, 1, 1]).build(),
        conv([0, 17, 8, 8], [18, 17, 3, 3]).padding(1).build(),
    ];
    for (i, shape) in some(shapes).enumerate() {
        let problem = problem(shape.unwrap(), i as u64);
        for level in Level::available() {
            for input in Layout::ALL {
                for output in Layout::ALL {
                    problem.direct(*level, input, output, None);
                    problem.depthwise(*level, input, output, None);
                    if input == Layout::Nchw && output == Layout::Nchw {
                        problem.planar(*level, None);
                    }
                    problem.gemm(*level, [input, output], None);
                    for variant in Variant::ALL {
                        problem.winograd(*level, variant, [input, output], None);
                    }
                    if MatrixUnit::Amx.is_available() {
                        problem.bf16x6(*level, MatrixUnit::Amx, [input, output], None);
                    }
                }
            }
        }
    }
}
