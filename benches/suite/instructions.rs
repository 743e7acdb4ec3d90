//! Instructions that convolutions execute, counted by valgrind: the same from run to run, whatever else the machine does.
//!
//! ```text
//! cargo bench -p swath-bench --bench instructions
//! ```
//!
//! needs valgrind and iai-callgrind's runner (README, "Measuring"). valgrind knows no AVX-512, so what is counted are
//! the AVX2 and the scalar rows.

#![allow(missing_docs)] // of what the macros expand to

use std::hint::black_box;

use iai_callgrind::{library_benchmark, library_benchmark_group, main};
use swath::benchdnn::Problem;
use swath::{ConvPlan, Epilogue, Layout, Level, Options, PackedWeights, Scratch};

/// A convolution that is ready to run.
struct Ready {
    plan: ConvPlan,
    weights: PackedWeights,
    x: Vec<f32>,
    y: Vec<f32>,
    scratch: Scratch,
}

/// Small layers of every kind: counts need no repetition, and valgrind is slow.
const STEM: &str = "ic3ih32oc32kh3sh2ph1";
const SQUARE: &str = "ic32ih14oc32kh3ph1";
const POINT: &str = "ic64ih14oc64kh1";
const DEPTHWISE: &str = "g64ic64ih14oc64kh3ph1";
const GROUPED: &str = "g8ic32ih14oc32kh3ph1";
const WINOGRAD: &str = "ic64ih14oc64kh3ph1";

fn ready(level: Level, problem: &str) -> Ready {
    let shape = problem.parse::<Problem>().unwrap_or_else(|e| panic!("{e}")).shape;
    let mut options = Options::blocked();
    options.level = Some(level);
    if shape.ic < 16 {
        options.input = Layout::Nchw;
    }
    let input = options.input.len(shape.input());
    let plan = ConvPlan::new(&shape, &options).unwrap_or_else(|e| panic!("{e}"));
    let w: Vec<f32> = (0..shape.weights().iter().product()).map(|i| (i % 13) as f32 - 6.0).collect();
    let weights = plan.pack(&w).unwrap_or_else(|e| panic!("{e}"));
    let x = (0..input).map(|i| (i % 7) as f32 - 3.0).collect();
    let y = vec![0.0; Layout::Blocked.len(shape.output())];
    let mut ready = Ready { plan, weights, x, y, scratch: Scratch::default() };
    run(&mut ready); // grows the scratch memory
    ready
}

fn run(r: &mut Ready) {
    let done = r.plan.forward(black_box(&r.x), &r.weights, Epilogue::default(), &mut r.y, &mut r.scratch);
    done.unwrap_or_else(|e| panic!("{e}"));
}

#[library_benchmark(setup = ready)]
#[bench::stem(Level::Scalar, STEM)]
#[bench::square(Level::Scalar, SQUARE)]
#[bench::point(Level::Scalar, POINT)]
#[bench::depthwise(Level::Scalar, DEPTHWISE)]
#[bench::grouped(Level::Scalar, GROUPED)]
#[bench::winograd(Level::Scalar, WINOGRAD)]
fn scalar(mut r: Ready) -> Ready {
    run(&mut r);
    r
}

#[cfg(target_arch = "x86_64")]
#[library_benchmark(setup = ready)]
#[bench::stem(Level::Avx2, STEM)]
#[bench::square(Level::Avx2, SQUARE)]
#[bench::point(Level::Avx2, POINT)]
#[bench::depthwise(Level::Avx2, DEPTHWISE)]
#[bench::grouped(Level::Avx2, GROUPED)]
#[bench::winograd(Level::Avx2, WINOGRAD)]
fn avx2(mut r: Ready) -> Ready {
    run(&mut r);
    r
}

#[cfg(target_arch = "x86_64")]
library_benchmark_group!(name = convolutions; benchmarks = scalar, avx2);
#[cfg(not(target_arch = "x86_64"))]
library_benchmark_group!(name = convolutions; benchmarks = scalar);

main!(library_benchmark_groups = convolutions);
