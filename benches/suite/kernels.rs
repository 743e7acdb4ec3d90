//! The rows of the kernel tables, on data in the first- and second-level cache; pooling by window.
//!
//! ```text
//! cargo bench -p swath-bench --bench kernels                  every row
//! cargo bench -p swath-bench --bench kernels -- avx2          those of one level
//! ```
//!
//! A row is benched under its own name, the one that tests and logs use. The two probes of the machine come first: their
//! figures are what the others are held against. Throughput is in floating-point operations for probes, tiles, lanes and
//! Winograd's products, in bytes read for its transforms, activations and pooling.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use swath_kernels::act::{self, ActArgs};
use swath_kernels::bf16x6::Bf16x6;
use swath_kernels::depthwise::{self, Depthwise};
use swath_kernels::epilogue::Epilogue;
use swath_kernels::exec::Inline;
use swath_kernels::isa::Level;
use swath_kernels::isa::matrix::MatrixUnit;
use swath_kernels::layout::{BLOCK, Layout};
use swath_kernels::machine::Core;
use swath_kernels::pass::Place;
use swath_kernels::pool;
use swath_kernels::probe;
use swath_kernels::shape::{ConvShape, PoolShape};
use swath_kernels::tile::{self, Access, Edge, Loop, Output, Soon, Sweep, TileArgs};
use swath_kernels::winograd::{self, ProductArgs, TransformRow, Winograd};

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
    let mut rows = probes(level);
    // Those of weight gradients are timed with whole layers: `swath bench-conv --dir bwd`.
    rows.extend(tile::rows(level).iter().filter(|r| r.access != Access::PixelSum).map(tile_row));
    rows.extend(depthwise::rows(level).iter().map(lane_row));
    rows.extend(winograd::rows(level).iter().map(product_row));
    rows.extend(winograd::transforms(level).iter().map(transform_row));
    rows.extend(MatrixUnit::beside(level).map(|unit| matrix_row(level, unit)));
    rows.extend(act::table(level).iter().map(act_row));
    rows.extend(pools(level));
    rows
}

fn probes(level: Level) -> Vec<Row> {
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

/// A tile over a reduction of 16 blocks of 16, as a 1x1 convolution of 256 channels or a packed panel has it.
fn tile_row(row: &'static tile::Row) -> Row {
    const STEPS: usize = 16;
    let (px, step) = match row.access {
        Access::Blocked1 => (16, 1),
        Access::Blocked2 => (32, 1),
        Access::Strided => (48, 1),
        Access::Plain1 => (1, 1),
        Access::Plain2 => (2, 1),
        Access::Plain4 => (4, 1),
        Access::Packed => (1, row.mr),
        Access::PixelSum => unreachable!("left out above"),
    };
    let packed = row.access == Access::Packed;
    let block = row.mr * px + BLOCK * step;
    let w_block = STEPS * BLOCK * BLOCK;
    let x = vec![0.5f32; STEPS * block + row.mr * STEPS * BLOCK];
    let w = vec![0.5f32; row.blocks * w_block];
    let mut y = vec![0.0f32; row.mr * row.blocks * BLOCK];
    let depth = if packed { STEPS * BLOCK } else { BLOCK };
    let steps = Loop { n: if packed { 1 } else { STEPS }, x: block, w: BLOCK * BLOCK };
    let run = move || {
        let args = TileArgs {
            x: x.as_ptr(),
            w: w.as_ptr(),
            loops: [steps, Loop::ONCE, Loop::ONCE],
            depth,
            head: 0,
            tail: depth,
            px,
            ahead: 0,
            w_block,
            w_step: 0,
            accumulate: false,
            fetch_output: tile::fetches_output(Core::here(row.level), STEPS * BLOCK, 0),
            edge: Edge::NONE,
            sweep: Sweep::ONE,
            soon: Soon::NONE,
            out: Output {
                y: y.as_mut_ptr(),
                px: row.blocks * BLOCK,
                block: BLOCK,
                channel: 1,
                cols: row.cols,
                pad_cols: false,
                finish: None,
            },
        };
        // SAFETY: the level is one of `available`; x, w and y cover the loops: each step reads (mr - 1) * px + 16 floats
        // of its block (a panel: 256 * mr in all), 256 * 16 weights a block, and writes mr rows of the blocks.
        unsafe { (row.run)(&args) };
        black_box(&mut y);
    };
    let flop = 2 * STEPS * BLOCK * row.mr * row.cols;
    Row { name: row.name.into(), throughput: Throughput::Elements(flop as u64), run: Box::new(run) }
}

/// A depthwise (or grouped) convolution of 16 lines, which the kernel covers with one run each.
fn lane_row(row: &'static depthwise::Row) -> Row {
    let (k, dilation) = if row.kw == 1 { (3, 2) } else { (row.kw, 1) };
    let [left, right] = row.overhang;
    let reach = (k - 1) * dilation + 1;
    let (groups, icg, ocg) = match row.source {
        depthwise::Source::Own | depthwise::Source::Apart => (16, 1, 1),
        depthwise::Source::Permuted => (8, 2, 2),
        depthwise::Source::One => (2, 4, row.level.lanes()),
    };
    let width = (row.mr - 1) * row.stride + reach - left - right;
    let shape = ConvShape::builder([1, groups * icg, reach + 15, width], [groups * ocg, icg, k, k])
        .stride([1, row.stride])
        .dilation(dilation)
        .padding([0, left, 0, right])
        .groups(groups)
        .build()
        .expect("a valid shape");
    let input = if row.source == depthwise::Source::Apart { Layout::Nhwc } else { Layout::Blocked };
    let plan =
        Depthwise::new(&shape, Core::here(row.level), input, Layout::Blocked).expect("such groups are supported");
    let x = vec![0.5; input.len(shape.input())];
    let mut packed = vec![0.0; plan.packed_len()];
    plan.pack(&vec![0.5; shape.weights().iter().product()], &mut packed);
    let (mut y, mut scratch) = (vec![0.0; Layout::Blocked.len(shape.output())], vec![0.0; plan.scratch_len()]);
    debug_assert_eq!(plan.kernel(), row.name, "the shape is meant for this row");
    let flop = 2 * shape.macs_inside();
    let run = move || {
        plan.forward(black_box(&x), &packed, &Epilogue::none(), y.as_mut_slice().into(), &mut scratch, &Inline);
    };
    Row { name: row.name.into(), throughput: Throughput::Elements(flop), run: Box::new(run) }
}

/// A point's product: four slices of tiles, 256 channels.
fn product_row(row: &'static winograd::Row) -> Row {
    const CHANNELS: usize = 256;
    const SLICES: usize = 4;
    let tiles = SLICES * row.mr;
    let v = vec![0.5f32; tiles * CHANNELS];
    let u = vec![0.5f32; row.blocks * CHANNELS * BLOCK];
    let mut m = vec![0.0f32; row.blocks * tiles * BLOCK];
    let run = move || {
        let args = ProductArgs {
            v: v.as_ptr(),
            v_block: tiles * BLOCK,
            ic: CHANNELS,
            u: u.as_ptr(),
            u_block: CHANNELS * BLOCK,
            m: m.as_mut_ptr(),
            m_block: tiles * BLOCK,
            slices: SLICES,
            ahead: 0,
        };
        // SAFETY: the level is one of `available`; v holds all tiles and channels, u and m all blocks.
        unsafe { (row.run)(&args) };
        black_box(&mut m);
    };
    let flop = 2 * tiles * CHANNELS * row.blocks * BLOCK;
    Row { name: row.name.into(), throughput: Throughput::Elements(flop as u64), run: Box::new(run) }
}

/// A whole convolution of so few channels that it is mostly the two transforms; in bytes of input.
fn transform_row(row: &'static TransformRow) -> Row {
    let shape = ConvShape::builder([1, 16, 24, 24], [16, 16, 3, 3]).padding(1).build().expect("a valid shape");
    let plan = Winograd::new(&shape, Core::here(row.level), row.variant, Layout::Blocked, Layout::Blocked)
        .expect("3x3, stride 1");
    let x = vec![0.5f32; Layout::Blocked.len(shape.input())];
    let mut packed = vec![0.0; plan.packed_len()];
    plan.pack(&vec![0.5; shape.weights().iter().product()], &mut packed);
    let mut y = vec![0.0; Layout::Blocked.len(shape.output())];
    let mut scratch = vec![0.0; plan.scratch_len()];
    let bytes = size_of_val(&x[..]) as u64;
    let run = move || {
        plan.forward(black_box(&x), &packed, &Epilogue::none(), y.as_mut_slice().into(), &mut scratch, &Inline);
    };
    Row { name: row.name.into(), throughput: Throughput::Bytes(bytes), run: Box::new(run) }
}

/// A 1x1 convolution of 512 pixels on a matrix unit, splitting of its inputs included. The data are random: with equal ones the unit
/// clocks higher than any layer lets it.
fn matrix_row(level: Level, unit: MatrixUnit) -> Row {
    let shape = ConvShape::builder([1, 128, 16, 32], [128, 128, 1, 1]).build().expect("a valid shape");
    let plan =
        Bf16x6::new(&shape, Core::here(level), unit, Layout::Blocked, Layout::Blocked).expect("the unit is available");
    let random = |i: usize| (i as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5;
    let x: Vec<f32> = (0..Layout::Blocked.len(shape.input())).map(random).collect();
    let w: Vec<f32> = (0..shape.weights().iter().product()).map(random).collect();
    let (mut packed, mut scratch) = (vec![0.0; plan.packed_len()], vec![0.0; plan.scratch_len()]);
    plan.pack(&w, &mut packed);
    let mut y = vec![0.0; Layout::Blocked.len(shape.output())];
    let throughput = Throughput::Elements(2 * shape.macs());
    let run = move || {
        plan.forward(black_box(&x), &packed, &Epilogue::none(), y.as_mut_slice().into(), &mut scratch, &Inline);
    };
    Row { name: unit.kernel().into(), throughput, run: Box::new(run) }
}

fn act_row(row: &'static act::Row) -> Row {
    let x: Vec<f32> = (0..1024).map(|i| i as f32 / 128.0 - 4.0).collect();
    let mut y = vec![0.0f32; x.len()];
    let bytes = size_of_val(&x[..]) as u64;
    let run = move || {
        let args = ActArgs { src: x.as_ptr(), dst: y.as_mut_ptr(), len: x.len(), p: [0.5, 20.0] };
        // SAFETY: the level is one of `available`; both slices hold `len` floats.
        unsafe { (row.run)(&args) };
        black_box(&mut y);
    };
    Row { name: row.name.into(), throughput: Throughput::Bytes(bytes), run: Box::new(run) }
}

/// Pooling chooses its row by the window, so windows are benched: one for each unrolled kernel and one for the rest.
fn pools(level: Level) -> Vec<Row> {
    [(2, 2), (3, 2), (5, 1)]
        .into_iter()
        .flat_map(|(k, stride)| {
            let shape = PoolShape::builder([1, 16, 20, 20], k).stride(stride).build().expect("a valid window");
            let x = vec![0.5f32; Layout::Blocked.len(shape.input())];
            let y = vec![0.0f32; Layout::Blocked.len(shape.output())];
            let throughput = Throughput::Bytes(size_of_val(&x[..]) as u64);
            let (x2, mut y2) = (x.clone(), y.clone());
            let mut y = y;
            [
                Row {
                    name: format!("maxpool_{k}x{k}s{stride}_{level}"),
                    throughput: throughput.clone(),
                    run: Box::new(move || {
                        let y = y.as_mut_slice().into();
                        pool::max(&Place::inline(level), Layout::Blocked, &shape, black_box(&x), y, None);
                    }),
                },
                Row {
                    name: format!("avgpool_{k}x{k}s{stride}_{level}"),
                    throughput,
                    run: Box::new(move || {
                        let (x, y) = (black_box(&x2), y2.as_mut_slice().into());
                        pool::average(&Place::inline(level), Layout::Blocked, &shape, x, y, pool::Divisor::Inside);
                    }),
                },
            ]
        })
        .collect()
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
