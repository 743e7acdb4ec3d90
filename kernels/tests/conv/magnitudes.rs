//! For which magnitudes results are finite wherever the defining sum is.

use swath_kernels::bf16x6::{self, Bf16x6};
use swath_kernels::depthwise::Depthwise;
use swath_kernels::direct::Direct;
use swath_kernels::exec::Inline;
use swath_kernels::finite::FiniteRange;
use swath_kernels::gemm::Im2col;
use swath_kernels::isa::Level;
use swath_kernels::isa::matrix::MatrixUnit;
use swath_kernels::layout::Layout;
use swath_kernels::machine::Core;
use swath_kernels::planar::Planar;
use swath_kernels::shape::ConvShape;
use swath_kernels::winograd::{Variant, Winograd};

use crate::support::{Convolution, Problem};

/// Calls `f` with every algorithm that does a shape, at every level, its layouts and what it promises.
fn every_algorithm(s: &ConvShape, f: impl Fn(&str, &dyn Convolution, [Layout; 2], FiniteRange)) {
    for level in Level::available() {
        for layouts in [[Layout::Nhwc, Layout::Blocked], [Layout::Nchw, Layout::Nchw]] {
            let [input, output] = layouts;
            let name = |family: &str| format!("{family} {level} {layouts:?}");
            f(&name("direct"), &Direct::new(s, Core::here(*level), input, output), layouts, FiniteRange::PLAIN);
            f(&name("gemm"), &Im2col::new(s, Core::here(*level), input, output), layouts, FiniteRange::PLAIN);
            if let Ok(conv) = Depthwise::new(s, Core::here(*level), input, output) {
                f(&name("depthwise"), &conv, layouts, FiniteRange::PLAIN);
            }
            if let Ok(conv) = Planar::new(s, Core::here(*level))
                && layouts == [Layout::Nchw; 2]
            {
                f(&name("planar"), &conv, layouts, FiniteRange::PLAIN);
            }
            for variant in Variant::ALL {
                if let Ok(conv) = Winograd::new(s, Core::here(*level), variant, input, output) {
                    f(&name(&format!("{variant:?}")), &conv, layouts, variant.finite_range());
                }
            }
            for unit in MatrixUnit::ALL {
                if let Ok(conv) = Bf16x6::new(s, Core::here(*level), unit, input, output) {
                    f(&name(&format!("bf16x6 {unit:?}")), &conv, layouts, bf16x6::finite_range());
                }
            }
        }
    }
}

fn problems() -> Vec<Problem> {
    let dense = ConvShape::builder([1, 20, 9, 11], [17, 20, 3, 3]).padding(1);
    let depthwise = ConvShape::builder([1, 20, 9, 11], [20, 1, 3, 3]).padding(1).groups(20);
    [dense, depthwise].into_iter().map(|s| Problem::new(s.build().unwrap(), 1)).collect()
}

/// Inputs and weights of one magnitude each, of both signs or of one.
fn fill(problem: &mut Problem, x: f32, w: f32, alternating: bool) {
    let of = |v: f32, sign: f32| if alternating && sign < 0.0 { -v } else { v };
    problem.x.iter_mut().for_each(|v| *v = of(x, *v));
    problem.w.iter_mut().for_each(|v| *v = of(w, *v));
}

/// Everything at the limits: the largest inputs, or the largest weights, and products to match.
#[test]
fn results_are_finite_up_to_the_stated_limits() {
    for problem in problems() {
        let terms = problem.shape.terms() as f32;
        every_algorithm(&problem.shape.clone(), |name, conv, layouts, range| {
            for alternating in [false, true] {
                for (x, w) in [
                    (range.input, range.product / range.input / terms * 0.999),
                    (range.product / range.weight / terms * 0.999, range.weight),
                    ((range.product / terms).sqrt() * 0.999, (range.product / terms).sqrt() * 0.999),
                ] {
                    let mut problem = Problem::new(problem.shape, 1);
                    fill(&mut problem, x, w, alternating);
                    problem.bias.fill(0.0);
                    assert!(range.holds(x, w, f64::from(w) * f64::from(terms)), "{name}: {x:e} {w:e}");
                    let y = problem.forward(conv, layouts, &Inline, 1);
                    assert!(y.iter().all(|v| v.is_finite()), "{name}, inputs of {x:e}, weights of {w:e}");
                }
            }
        });
    }
}

/// One huge input in zeros: nine outputs of 3.4e32 by plain sums; what has a range says that this is beyond it.
#[test]
fn one_huge_input_by_plain_sums() {
    let shape = ConvShape::builder([1, 1, 4, 4], [1, 1, 3, 3]).padding(1).build().unwrap();
    let mut problem = Problem::new(shape, 0);
    problem.x.fill(0.0);
    problem.x[5] = 3.4e38;
    problem.w.fill(1e-6);
    problem.bias.fill(0.0);
    every_algorithm(&shape, |name, conv, layouts, range| {
        let y = problem.forward(conv, layouts, &Inline, 1);
        if !range.holds(3.4e38, 1e-6, 9e-6) {
            // F(2), whose factors are 1, adds it to nothing.
            assert!(name.starts_with("F2") || y.iter().any(|v| v.is_nan()), "{name} does better than it says");
            return;
        }
        let near = |want: f32| y.iter().filter(|v| (**v - want).abs() <= want * 1e-6).count();
        let zeros = y.len() - 9; // with the channels that pad a block
        assert_eq!((near(3.4e32), near(0.0)), (9, zeros), "{name}: {y:?}");
    });
}
