//! Every public knob: any value of it gives the same bits, also none and the largest.

use swath_kernels::bf16x6::Bf16x6;
use swath_kernels::depthwise::Depthwise;
use swath_kernels::direct::{Blocking, Direct};
use swath_kernels::exec::Executor;
use swath_kernels::gemm::{self, Im2col};
use swath_kernels::isa::Level;
use swath_kernels::isa::matrix::MatrixUnit;
use swath_kernels::layout::Layout;
use swath_kernels::machine::Core;
use swath_kernels::shape::ConvShape;
use swath_kernels::winograd::{Variant, Winograd};

use crate::support::{Convolution, Problem, Threads, bits};

const EXTREMES: [usize; 3] = [0, 1, usize::MAX];

/// Each number alone at its extremes, the others in the middle, and all of them together.
fn settings<const N: usize>(middle: [usize; N]) -> Vec<[usize; N]> {
    let alone = (0..N).flat_map(|i| {
        EXTREMES.map(|v| {
            let mut setting = middle;
            setting[i] = v;
            setting
        })
    });
    alone.chain(EXTREMES.map(|v| [v; N])).collect()
}

/// Large enough for two threads: 3x3, 1x1 of stride 1 and of stride 2, groups across blocks, depthwise.
fn problems() -> Vec<Problem> {
    let shapes = [
        ConvShape::builder([2, 20, 13, 19], [40, 20, 3, 3]).padding(1),
        ConvShape::builder([3, 36, 16, 17], [70, 36, 1, 1]),
        ConvShape::builder([2, 70, 29, 33], [40, 70, 1, 1]).stride(2),
        ConvShape::builder([2, 60, 13, 11], [60, 20, 3, 3]).padding(1).groups(3),
        ConvShape::builder([2, 40, 33, 35], [40, 1, 3, 3]).padding(1).groups(40),
    ];
    // An emulator takes minutes for each.
    let some = if std::env::var_os("SWATH_TEST_EMULATED").is_some() { 1 } else { shapes.len() };
    shapes.into_iter().take(some).enumerate().map(|(i, s)| Problem::new(s.build().unwrap(), i as u64)).collect()
}

/// Claims to have so many threads, and calls from two.
struct Claimed(usize);

impl Executor for Claimed {
    fn threads(&self) -> usize {
        self.0
    }

    fn spread(&self, job: &(dyn Fn() + Sync)) {
        Threads(2).spread(job);
    }
}

/// The same bits with every knob, on one thread, on two, and on executors that claim none and very many.
fn same_bits<C: Convolution>(problem: &Problem, layouts: [Layout; 2], default: &C, others: &[C]) {
    let want = bits(&problem.forward(default, layouts, &Threads(1), 1));
    for threads in EXTREMES {
        let got = bits(&problem.forward(default, layouts, &Claimed(threads), 2));
        assert!(got == want, "{threads} threads, {layouts:?}, {:?}", problem.shape);
    }
    for (i, conv) in others.iter().enumerate() {
        let got = bits(&problem.forward(conv, layouts, &Threads(2), 2));
        assert!(got == want, "setting {i} on two threads, {layouts:?}, {:?}", problem.shape);
    }
}

#[test]
fn any_knob_gives_the_same_bits() {
    for problem in problems() {
        let s = &problem.shape;
        for level in Level::available() {
            for layouts in [[Layout::Blocked; 2], [Layout::Nchw; 2], [Layout::Nhwc, Layout::Blocked]] {
                let [input, output] = layouts;
                let direct = |setting: Option<[usize; 5]>| {
                    let blocking =
                        |[images, rows, cols, panel, chunk]: [usize; 5]| Blocking { images, rows, cols, panel, chunk };
                    Direct::with_blocking(s, Core::here(*level), input, output, setting.map(blocking))
                };
                let all: Vec<_> = settings([2, 3, 30, 2, 2]).into_iter().map(|v| direct(Some(v))).collect();
                same_bits(&problem, layouts, &direct(None), &all);

                let im2col = |setting: Option<[usize; 3]>| {
                    let blocking = setting.map(|[mc, kc, nc]| gemm::Blocking { mc, kc, nc });
                    Im2col::with_blocking(s, Core::here(*level), input, output, blocking)
                };
                // Scratch of `mc * kc` floats is what the caller asks for.
                let small = settings([20, 20, 16]).into_iter().map(|[mc, kc, nc]| [mc.min(300), kc.min(3000), nc]);
                same_bits(&problem, layouts, &im2col(None), &small.map(|v| im2col(Some(v))).collect::<Vec<_>>());

                let depthwise = |pixels| Depthwise::with_pixels(s, Core::here(*level), input, output, pixels).ok();
                if let Some(default) = depthwise(None) {
                    same_bits(&problem, layouts, &default, &EXTREMES.map(|p| depthwise(Some(p)).unwrap()));
                }
                for variant in Variant::ALL {
                    let winograd =
                        |chunk| Winograd::with_chunk(s, Core::here(*level), variant, input, output, chunk).ok();
                    if let Some(default) = winograd(None) {
                        same_bits(&problem, layouts, &default, &EXTREMES.map(|c| winograd(Some(c)).unwrap()));
                    }
                }
                for unit in MatrixUnit::ALL.into_iter().filter(|u| u.is_available()) {
                    let bf16x6 = |most| Bf16x6::with_most(s, Core::here(*level), unit, input, output, most).ok();
                    if let Some(default) = bf16x6(None) {
                        same_bits(&problem, layouts, &default, &EXTREMES.map(|m| bf16x6(Some(m)).unwrap()));
                    }
                }
            }
        }
    }
}

/// Extents and blockings that no memory could hold are planned, and ask for more scratch than there is.
#[test]
fn any_extents_of_a_product_are_planned() {
    for level in Level::available() {
        for [m, n, k, knob] in settings([3, 5, 7, 9]) {
            let blocking = gemm::Blocking { mc: knob, kc: knob, nc: knob };
            for blocking in [None, Some(blocking)] {
                let gemm = gemm::Gemm::with_blocking(Core::here(*level), [m, n, k], blocking);
                assert!(gemm.scratch_len() > 0 && !gemm.kernel().is_empty());
            }
        }
    }
}
