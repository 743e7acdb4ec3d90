//! Every row of the kernel tables, on data in the first-level cache.
//!
//! ```text
//! cargo bench --bench kernels                  every row
//! cargo bench --bench kernels -- avx2          those of one level
//! ```
//!
//! A row is benched under its own name, the one that tests, logs and tuning files use. So far there are the two probes
//! of the machine, whose figures are what the others are held against; TODO(lead): the rows of the tables of tiles,
//! pooling and activations go to [`rows`].

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use swath_kernels::isa::Level;
use swath_kernels::probe;

/// A kernel and how much one run of it does.
struct Row {
    /// The kernel's name.
    name: String,
    /// Floating-point operations, or bytes.
    throughput: Throughput,
    /// Runs it once.
    run: Box<dyn FnMut()>,
}

/// Iterations of the FMA probe in one run.
const ITERATIONS: u64 = 1 << 12;

fn rows(level: Level) -> Vec<Row> {
    let flop = probe::fma_flops(level, ITERATIONS).expect("the level is available");
    let data = vec![1.0f32; 4096];
    let bytes = probe::read_bytes(level, &data, 1).expect("the level is available");
    vec![
        Row {
            name: format!("probe_fma_{level}"),
            throughput: Throughput::Elements(flop),
            run: Box::new(move || {
                black_box(probe::fma_flops(level, ITERATIONS).expect("the level is available"));
            }),
        },
        Row {
            name: format!("probe_read_{level}"),
            throughput: Throughput::Bytes(bytes),
            run: Box::new(move || {
                black_box(probe::read_bytes(level, black_box(&data), 1).expect("the level is available"));
            }),
        },
    ]
}

fn kernels(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels");
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300)).sample_size(10);
    for &level in Level::available() {
        for mut row in rows(level) {
            group.throughput(row.throughput.clone());
            group.bench_function(&row.name, |b| b.iter(&mut row.run));
        }
    }
    group.finish();
}

criterion_group!(benches, kernels);
criterion_main!(benches);
