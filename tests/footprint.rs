//! What a training step takes of memory: nothing after the first, and no more than was planned.
#![cfg(feature = "nn")]

use std::sync::Mutex;

use swath::nn::*;
use swath::train::loss::CrossEntropyLoss;
use swath::train::{Adam, Clip, Optimization, Sgd, Trainer, TrainerOptions};
use swath::{Model, Random, Result, SessionOptions, Value};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// One test at a time: what is counted is of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// A residual network with every common layer, of about 1.5 MB of activations at batch 8.
fn network() -> Result<Model> {
    let (c1, bn) = (Conv2d::new(3, 16, 3).padding(1).named("c1"), BatchNorm2d::new(16).named("bn"));
    let (c2, dw) =
        (Conv2d::new(16, 16, 3).padding(1).named("c2"), Conv2d::new(16, 16, 3).padding(1).groups(16).named("dw"));
    let (c3, pool) = (Conv2d::new(16, 32, 3).stride(2).padding(1).named("c3"), MaxPool2d::new(2));
    let (drop, fc) = (Dropout::new(0.2), Linear::new(32 * 8 * 8, 10).named("fc"));
    let net = move |x: &Value| {
        let h = bn.call(&c1.call(x)?)?.relu();
        let h = (&h + &c2.call(&h)?).relu();
        let h = dw.call(&h)?.sigmoid();
        let h = pool.call(&c3.call(&h)?.relu())?;
        fc.call(&drop.call(&h.flatten())?)
    };
    net.build(0)
}

const DIMS: [usize; 4] = [8, 3, 32, 32];

fn batch() -> (Vec<f32>, Vec<f32>) {
    let mut random = Random::new(&[1]);
    let x = (0..DIMS.iter().product()).map(|_| random.normal()).collect();
    (x, (0..DIMS[0]).map(|i| (i % 10) as f32).collect())
}

fn options(threads: usize, clip: Clip) -> TrainerOptions {
    let session = SessionOptions { threads: Some(threads), ..SessionOptions::default() };
    TrainerOptions { session, clip, average: Some(0.9), ..TrainerOptions::default() }
}

#[test]
fn a_step_after_the_first_allocates_nothing() {
    let _alone = ALONE.lock();
    let (x, targets) = batch();
    for threads in [1, 2] {
        for (optimization, clip) in [
            (Optimization::new(Sgd::new(0.01).momentum(0.9)), Clip::None),
            (Optimization::new(Adam::new(1e-3)), Clip::Norm(1.0)),
        ] {
            let mut trainer = Trainer::new(
                network().unwrap(),
                CrossEntropyLoss::new(),
                optimization.unwrap(),
                &options(threads, clip),
            )
            .unwrap();
            trainer.step(&DIMS, &x, &targets).unwrap();
            let mut allocated = || {
                let profiler = dhat::Profiler::builder().testing().build();
                for _ in 0..3 {
                    trainer.step(&DIMS, &x, &targets).unwrap();
                }
                let stats = dhat::HeapStats::get();
                drop(profiler);
                (stats.total_blocks, stats.total_bytes)
            };
            // A thread that starts late allocates what it needs, once, beside the first steps.
            let first = allocated();
            let others: Vec<_> = (0..4).map(|_| allocated()).collect();
            assert!(
                first.0 <= 8 * threads as u64 && others.contains(&(0, 0)),
                "{threads} threads: {first:?}, {others:?}"
            );
        }
    }
}

#[test]
fn the_planned_peak_is_the_measured_one() {
    let _alone = ALONE.lock();
    let (x, targets) = batch();
    for accumulate in [1, 2] {
        let profiler = dhat::Profiler::builder().testing().build();
        let optimization = Optimization::new(Adam::new(1e-3)).unwrap();
        let options = TrainerOptions { accumulate, ..options(2, Clip::None) };
        let mut trainer = Trainer::new(network().unwrap(), CrossEntropyLoss::new(), optimization, &options).unwrap();
        let planned = trainer.footprint(&DIMS).unwrap().total();
        for _ in 0..4 {
            trainer.step(&DIMS, &x, &targets).unwrap();
        }
        let peak = dhat::HeapStats::get().max_bytes;
        drop(profiler);
        let ratio = peak as f64 / planned as f64;
        assert!((ratio - 1.0).abs() < 0.05, "{accumulate}: planned {planned} bytes, measured {peak}: {ratio:.3}");
    }
}
