//! Sessions on several threads in every way that they wait, for ThreadSanitizer. Without it this is one more test of their
//! results.
//!
//! ```text
//! RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" cargo +nightly test -p swath --no-default-features \
//!     --test races --target x86_64-unknown-linux-gnu
//! ```
//!
//! The standard library is not built for the sanitizer, which is what the second option allows. So this has no test harness,
//! passes nothing through locks or channels, and frees nothing that threads share: what the sanitizer does not see there would
//! be reported as a race. Threads are joined, which it sees.

use std::thread;
use std::time::Duration;

use swath::nn::*;
use swath::{SessionOptions, Tensor, Tuning};

fn main() {
    let net =
        Sequential::new((Conv2d::new(3, 24, 3).padding(1), ReLU, Conv2d::new(24, 33, 3), Sigmoid, MaxPool2d::new(2)));
    let model: &'static _ = Box::leak(Box::new(net.build(1).unwrap()));
    let dims = [1, 3, 20, 20];
    let data: Vec<f32> = (0..dims.iter().product()).map(|i: usize| (i % 23) as f32 / 11.0 - 1.0).collect();
    let x: &'static Tensor = Box::leak(Box::new(Tensor::new(dims, &data).unwrap()));
    let session = |threads, spin| {
        let options = SessionOptions { threads, spin, tuning: Tuning::Off, ..SessionOptions::default() };
        Box::leak(Box::new(model.compile_with(dims, &options).unwrap()))
    };
    let expected: &'static Tensor = Box::leak(Box::new(session(Some(1), None).run(x).unwrap().clone()));
    // Without a number rayon is asked for its own, and its start is reported.
    for threads in [2, 4] {
        for spin in [None, Some(Duration::ZERO), Some(Duration::from_micros(5))] {
            let first = session(Some(threads), spin);
            for _ in 0..30 {
                assert_eq!(first.run(x).unwrap(), expected);
            }
            // Clones share the threads.
            let clones = (0..3).map(|_| Box::leak(Box::new(first.clone())));
            let run = |clone: &'static mut swath::Session| {
                move || (0..10).for_each(|_| assert_eq!(clone.run(x).unwrap(), expected))
            };
            let clones: Vec<_> = clones.map(|clone| thread::spawn(run(clone))).collect();
            clones.into_iter().for_each(|clone| clone.join().unwrap());
        }
    }
    println!("every run gave the same bits");
}
