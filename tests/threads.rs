//! Threads never change a result, wherever the run is called from.
//!
//! That is a promise of every algorithm. Tuning tables may choose different ones for different numbers of threads, so
//! they are off here.
#![cfg(feature = "nn")]

use rayon::prelude::*;
use swath::nn::*;
use swath::par::with_threads;
use swath::{ConvPlan, ConvShape, Epilogue, Options, Scratch, SessionOptions, Tensor, Tuning};

fn image(dims: [usize; 4]) -> Tensor {
    let len: usize = dims.iter().product();
    let data: Vec<f32> = (0..len).map(|i| ((i * 2654435761) % 1000) as f32 / 500.0 - 1.0).collect();
    Tensor::new(dims, &data).unwrap()
}

fn network() -> swath::Model {
    Sequential::new((
        Conv2d::new(3, 40, 3).padding(1),
        ReLU,
        MaxPool2d::new(2),
        Conv2d::new(40, 40, 3).padding(1).groups(40),
        Sigmoid,
        Conv2d::new(40, 96, 1),
        SiLU,
        AdaptiveAvgPool2d::new(3),
        Flatten,
        Linear::new(96 * 9, 17),
        Softmax::new(1),
    ))
    .build(3)
    .unwrap()
}

#[test]
fn sessions_give_the_same_bits_for_any_number_of_threads() {
    let (model, x) = (network(), image([3, 3, 64, 64]));
    let run = |threads| {
        let options = SessionOptions { threads, tuning: Tuning::Off, ..SessionOptions::default() };
        model.compile_with([3, 3, 64, 64], &options).unwrap().run(&x).unwrap().clone()
    };
    let one = run(Some(1));
    for threads in [None, Some(2), Some(3), Some(8)] {
        assert_eq!(run(threads), one, "{threads:?} threads");
    }
}

/// Every step that is cut into pieces for threads, on images that are large enough for it.
#[test]
fn steps_between_convolutions_give_the_same_bits_for_any_number_of_threads() {
    let net = |x: &swath::Value| {
        let x = BatchNorm2d::new(16).named("bn").call(&Conv2d::new(3, 16, 1).named("a").call(x)?.sigmoid())?;
        let x = Upsample::new(2).call(&(x.concat(&[&x, &x]) + x.concat(&[&x, &x])))?;
        let x = Crop::new([1, 2, 3, 4]).call(&x)?;
        let x = BatchNorm2d::new(48).named("again").call(&x)?.silu();
        ConvTranspose2d::new(48, 3, 2).stride(2).named("up").call(&x)
    };
    let (model, x) = (net.build(3).unwrap(), image([2, 3, 96, 96]));
    let run = |threads| {
        let options = SessionOptions { threads: Some(threads), ..SessionOptions::default() };
        model.compile_with([2, 3, 96, 96], &options).unwrap().run(&x).unwrap().clone()
    };
    let one = run(1);
    for threads in [2, 3, 8] {
        assert_eq!(run(threads), one, "{threads} threads");
    }
}

#[test]
fn plans_honour_the_callers_pool_and_nest_in_its_loops() {
    let shape = ConvShape::builder([1, 64, 40, 40], [96, 64, 3, 3]).padding(1).build().unwrap();
    let x = image(shape.input());
    let w: Vec<f32> = (0..96 * 64 * 9).map(|i| (i % 13) as f32 / 13.0 - 0.5).collect();
    let run = |threads| {
        let plan = ConvPlan::new(&shape, &Options { threads, tuning: Tuning::Off, ..Options::default() }).unwrap();
        let (weights, mut y) = (plan.pack(&w).unwrap(), vec![f32::NAN; 96 * 40 * 40]);
        plan.forward(x.as_slice(), &weights, Epilogue::none().relu(), &mut y, &mut Scratch::new()).unwrap();
        y
    };
    let one = run(Some(1));
    assert_eq!(run(None), one, "the global pool");
    assert_eq!(with_threads(3, || run(None)).unwrap(), one, "a pool of the caller's");
    assert_eq!(with_threads(4, || run(Some(2))).unwrap(), one, "two threads of a larger pool");
    // Eight runs in a parallel loop on two threads: no deadlock, and every run is right.
    let all = with_threads(2, || (0..8).into_par_iter().map(|_| run(None)).collect::<Vec<_>>()).unwrap();
    assert!(all.iter().all(|y| *y == one), "inside a parallel loop");
}
