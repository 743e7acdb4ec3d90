//! The layers of `benches/shapes`, forward, blocked activations in and out, weights packed beforehand.
//!
//! ```text
//! cargo bench -p swath-bench --bench conv                     every layer of every list
//! cargo bench -p swath-bench --bench conv -- resnet50         the layers of one network
//! SWATH_LEVEL=avx2 cargo bench -p swath-bench --bench conv    at a lower level
//! ```
//!
//! An element of the throughput is a floating-point operation: `Gelem/s` are GFLOP/s.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use swath::benchdnn::{Problem, STANDARD_SETS};
use swath::{ConvPlan, Epilogue, Layout, Options, Scratch};

fn layers(c: &mut Criterion) {
    let cpu = swath::cpu().unwrap_or_else(|e| panic!("{e}"));
    for (list, text) in STANDARD_SETS {
        let problems = Problem::list(text).unwrap_or_else(|e| panic!("{list}: {e}"));
        let mut group = c.benchmark_group(format!("{list}/{}", cpu.level));
        // A hundred layers have to be bearable: about a second each, where a run takes milliseconds.
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(600));
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        for p in problems {
            let mut options = Options::blocked();
            options.level = Some(cpu.level);
            if p.shape.ic < 16 {
                options.input = Layout::Nchw;
            }
            let input = options.input.len(p.shape.input());
            let plan = ConvPlan::new(&p.shape, &options).expect("the lists hold valid shapes");
            let w: Vec<f32> = (0..p.shape.weights().iter().product()).map(|i| (i % 13) as f32 - 6.0).collect();
            let weights = plan.pack(&w).expect("the length is the shape's");
            let x: Vec<f32> = (0..input).map(|i| (i % 7) as f32 - 3.0).collect();
            let mut y = vec![0.0; Layout::Blocked.len(p.shape.output())];
            let mut scratch = Scratch::default();
            group.throughput(Throughput::Elements(p.flop()));
            group.bench_function(BenchmarkId::from_parameter(&p.name), |b| {
                b.iter(|| plan.forward(black_box(&x), &weights, Epilogue::default(), &mut y, &mut scratch))
            });
        }
        group.finish();
    }
}

criterion_group!(benches, layers);
criterion_main!(benches);
