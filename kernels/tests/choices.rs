//! What is planned for cores that this machine need not have. What direct convolution, Winograd and pairs of
//! convolutions choose by numbers alone is tested beside them, for all known cores; here are those that choose among
//! kernels, where these are compiled in.

use swath_kernels::backward_data::{BackwardData, PlanarData};
use swath_kernels::backward_weights::BackwardWeights;
use swath_kernels::bf16x6::Bf16x6;
use swath_kernels::depthwise::{self, Depthwise};
use swath_kernels::direct::Direct;
use swath_kernels::gemm::{Gemm, Im2col};
use swath_kernels::isa::matrix::MatrixUnit;
use swath_kernels::layout::Layout;
use swath_kernels::machine::Core;
use swath_kernels::planar::Planar;
use swath_kernels::shape::ConvShape;
use swath_kernels::winograd::{Variant, Winograd};

const KNOWN: [Core; 6] = [Core::ZEN3, Core::ZEN4, Core::ZEN5, Core::GRANITE_RAPIDS, Core::NEOVERSE_V2, Core::APPLE_M1];

const BLOCKED: Layout = Layout::Blocked;

fn square(channels: usize, size: usize) -> ConvShape {
    ConvShape::builder([1, channels, size, size], [channels, channels, 3, 3]).padding(1).build().unwrap()
}

fn grouped(channels: usize, per_group: usize, size: usize, stride: usize) -> ConvShape {
    let shape = ConvShape::builder([1, channels, size, size], [channels, per_group, 3, 3]).padding(1).stride(stride);
    shape.groups(channels / per_group).build().unwrap()
}

#[test]
fn known_cores_are_planned_for_on_any_machine() {
    let (dense, grouped) = (square(64, 14), grouped(64, 1, 14, 2));
    for core in KNOWN {
        let compiled_in = !depthwise::rows(core.level).is_empty();
        let named = |name: &str| assert_eq!(compiled_in, name != "none", "{name} for {core:?}");
        named(Direct::new(&dense, core, BLOCKED, BLOCKED).kernel());
        named(Im2col::new(&dense, core, Layout::Nchw, BLOCKED).kernel());
        named(Gemm::new(core, [100, 100, 100]).kernel());
        named(BackwardData::new(&dense, core, BLOCKED, BLOCKED).unwrap().kernel());
        named(BackwardWeights::new(&dense, core, BLOCKED, BLOCKED).kernel());
        let no_kernels = [
            Depthwise::new(&grouped, core, BLOCKED, BLOCKED).err(),
            Planar::new(&grouped, core).err(),
            PlanarData::new(&grouped, core).err(),
            Winograd::new(&dense, core, Variant::F4, BLOCKED, BLOCKED).err(),
            Bf16x6::new(&dense, core, MatrixUnit::Portable, BLOCKED, BLOCKED).err(),
        ];
        assert_eq!(no_kernels, [(!compiled_in).then_some("no kernels at this level"); 5], "{core:?}");
    }
}

#[test]
fn a_matrix_unit_is_planned_for_where_the_core_has_it() {
    let shape = square(64, 14);
    for core in KNOWN.into_iter().filter(|core| !depthwise::rows(core.level).is_empty()) {
        let plan = Bf16x6::new(&shape, core, MatrixUnit::Amx, BLOCKED, BLOCKED);
        assert_eq!(plan.is_ok(), core.matrix_unit.is_some(), "{core:?}");
    }
}

#[cfg(all(target_arch = "x86_64", feature = "avx2", feature = "avx512"))]
#[test]
fn kernels_of_known_x86_cores() {
    let of = |core| {
        [
            Depthwise::new(&grouped(96, 1, 112, 1), core, BLOCKED, BLOCKED).unwrap().kernel(),
            Depthwise::new(&grouped(96, 1, 56, 2), core, BLOCKED, BLOCKED).unwrap().kernel(),
            Depthwise::new(&grouped(128, 4, 56, 1), core, BLOCKED, BLOCKED).unwrap().kernel(),
            // Where twice as many multiply-adds are under way, runs of 5 pixels wait for each other.
            Depthwise::new(&grouped(96, 16, 15, 1), core, BLOCKED, BLOCKED).unwrap().kernel(),
            Planar::new(&grouped(96, 1, 112, 1), core).unwrap().kernel(),
            Planar::new(&grouped(96, 1, 7, 1), core).unwrap().kernel(),
            Winograd::new(&square(64, 56), core, Variant::F4, BLOCKED, BLOCKED).unwrap().kernel(),
            Winograd::new(&square(256, 14), core, Variant::F4, BLOCKED, BLOCKED).unwrap().kernel(),
            Im2col::new(&square(64, 56), core, Layout::Nchw, BLOCKED).kernel(),
            Gemm::new(core, [7, 512, 512]).kernel(),
        ]
    };
    let zen3 = [
        "dw3s1_f32_8x8_avx2",
        "dw3s2even_f32_7x8_avx2",
        "group3s1_f32_8x8_avx2",
        "splat3s1_f32_8x8_avx2",
        "plane3s1_f32_7x8_avx2",
        "plane3s1_f32_7x8_avx2",
        "winograd_f32_6x16_avx2",
        "winograd_f32_6x16_avx2",
        "gemm_f32_6x16_avx2",
        "conv_any_f32_4x16_avx2",
    ];
    let wide = [
        "dw3s1_f32_8x16_avx512",
        "dw3s2even_f32_7x16_avx512",
        "group3s1_f32_8x16_avx512",
        "splat3s1_f32_5x16_avx512",
        "plane3s1_f32_7x16_avx512",
        "plane3s1_f32_7x16_avx512",
        "winograd_f32_14x32_avx512",
        "winograd_f32_16x16_avx512",
        "gemm_f32_14x32_avx512",
        "conv_any_f32_4x64_avx512",
    ];
    // Half registers suffice for rows of 7.
    let mut zen4 = wide;
    zen4[5] = "plane3s1_f32_7x8_avx512";
    assert_eq!(of(Core::ZEN3), zen3);
    assert_eq!(of(Core::ZEN4), zen4);
    assert_eq!(of(Core::ZEN5), wide);
    assert_eq!(of(Core::GRANITE_RAPIDS), wide);
}
