//! What the author of a framework pays besides the arithmetic: plans, changes of layout, and depthwise convolution in its own layouts.
//!
//! ```text
//! cargo bench -p swath-bench --bench backend
//! ```
//!
//! The process's first plan, which reads the tuning tables, is timed once, before all else, and printed. An element of a
//! layout's throughput is a byte that is read: compare with the copy beside it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use swath::{
    ConvBackwardData, ConvBackwardWeights, ConvPlan, ConvShape, Epilogue, Layout, Options, PlanCache, Scratch, layout,
};

/// A layer of a kind each: 3x3, 1x1, depthwise, stem, strided.
fn shapes() -> [(&'static str, ConvShape); 5] {
    let shape = |x, w, stride, pad, groups| {
        let built = ConvShape::builder(x, w).stride(stride).padding(pad).groups(groups).build();
        built.expect("the shapes are valid")
    };
    [
        ("3x3", shape([1, 64, 56, 56], [64, 64, 3, 3], 1, 1, 1)),
        ("1x1", shape([1, 256, 14, 14], [512, 256, 1, 1], 1, 0, 1)),
        ("depthwise", shape([1, 96, 112, 112], [96, 1, 3, 3], 1, 1, 96)),
        ("stem", shape([1, 3, 224, 224], [64, 3, 7, 7], 2, 3, 1)),
        ("strided", shape([1, 64, 56, 56], [128, 64, 3, 3], 2, 1, 1)),
    ]
}

fn plans(c: &mut Criterion) {
    let shapes = shapes();
    let start = Instant::now();
    ConvPlan::new(&shapes[0].1, &Options::default()).expect("every shape has a plan");
    println!("the process's first plan: {:?}", start.elapsed());
    for (layout, options) in [("nchw", Options::default()), ("blocked", Options::blocked())] {
        let mut group = c.benchmark_group(format!("plan/{layout}"));
        group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300)).sample_size(10);
        for (name, shape) in &shapes {
            group.bench_function(format!("{name}/forward"), |b| b.iter(|| ConvPlan::new(black_box(shape), &options)));
            let data = |b: &mut criterion::Bencher| b.iter(|| ConvBackwardData::new(black_box(shape), &options));
            group.bench_function(format!("{name}/data"), data);
            let weights = |b: &mut criterion::Bencher| b.iter(|| ConvBackwardWeights::new(black_box(shape), &options));
            group.bench_function(format!("{name}/weights"), weights);
        }
        group.finish();
    }
}

fn cache(c: &mut Criterion) {
    let (cache, options) = (PlanCache::new(256), Options::default());
    // As many as a large network has.
    let shapes: Vec<ConvShape> = (1..=200)
        .map(|n| ConvShape::builder([n, 64, 14, 14], [64, 64, 3, 3]).padding(1).build().expect("a valid shape"))
        .collect();
    let mut group = c.benchmark_group("plan cache");
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(500)).sample_size(10);
    let mut next = shapes.iter().cycle();
    group.bench_function("hit", |b| b.iter(|| cache.forward(next.next().expect("it cycles"), &options)));
    group.finish();
}

fn layouts(c: &mut Criterion) {
    for dims in [[1, 64, 56, 56], [1, 512, 7, 7], [1, 3, 224, 224], [8, 256, 56, 56]] {
        let mut group = c.benchmark_group(format!("layout/{dims:?}"));
        group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300)).sample_size(10);
        for (from, to) in Layout::ALL.into_iter().flat_map(|from| Layout::ALL.map(|to| (from, to))) {
            let x: Vec<f32> = (0..from.len(dims)).map(|i| i as f32).collect();
            let mut y = vec![0.0; to.len(dims)];
            group.throughput(Throughput::Bytes(4 * x.len() as u64));
            let name = if from == to { "copy".into() } else { format!("to {}", to.name()) };
            group.bench_function(BenchmarkId::new(from.name(), name), |b| {
                b.iter(|| layout::reorder(from, black_box(&x), to, &mut y, dims))
            });
        }
        group.finish();
    }
}

/// Depthwise convolution and its gradients on tensors as frameworks hold them, and in blocks.
fn depthwise(c: &mut Criterion) {
    for (n, channels, side, stride) in
        [(1, 96, 112, 1), (8, 96, 112, 1), (1, 192, 28, 1), (1, 384, 14, 1), (1, 96, 112, 2)]
    {
        let built = ConvShape::builder([n, channels, side, side], [channels, 1, 3, 3]).stride(stride).padding(1);
        let shape = built.groups(channels).build().expect("the shapes are valid");
        let mut group = c.benchmark_group(format!("depthwise/{n}x{channels}x{side}x{side} stride {stride}"));
        group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300)).sample_size(10);
        for layout in Layout::ALL {
            let options = Options { input: layout, output: layout, threads: Some(1), ..Options::default() };
            let (mut scratch, w) = (Scratch::new(), vec![0.5; channels * 9]);
            let (mut x, mut y) = (vec![1.0; layout.len(shape.input())], vec![1.0; layout.len(shape.output())]);
            let plan = ConvPlan::new(&shape, &options).expect("every shape has a plan");
            let packed = plan.pack(&w).expect("memory");
            group.bench_function(format!("{}/forward", layout.name()), |b| {
                b.iter(|| {
                    plan.forward(black_box(&x), &packed, Epilogue::none(), &mut y, &mut scratch).expect("it runs")
                })
            });
            let plan = ConvBackwardWeights::new(&shape, &options).expect("every shape has a plan");
            let mut dw = vec![0.0; w.len()];
            group.bench_function(format!("{}/weights", layout.name()), |b| {
                b.iter(|| plan.run(black_box(&x), &y, &mut dw, None, &mut scratch).expect("it runs"))
            });
            let plan = ConvBackwardData::new(&shape, &options).expect("every shape has a plan");
            let packed = plan.pack(&w).expect("memory");
            group.bench_function(format!("{}/data", layout.name()), |b| {
                b.iter(|| plan.run(black_box(&y), &packed, &mut x, &mut scratch).expect("it runs"))
            });
        }
        group.finish();
    }
}

criterion_group!(benches, plans, cache, layouts, depthwise);
criterion_main!(benches);
