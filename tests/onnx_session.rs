//! Sessions of imported models: threads change no bit, a run allocates nothing, shapes do not add up in memory.
//!
//! One test, since the allocator counts what the whole process does.
#![cfg(feature = "onnx")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use swath::nn::*;
use swath::onnx::{Network, NetworkSession, Shapes, export};
use swath::ops::{Array, Data, ElementType};
use swath::{Model, SessionOptions};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        LIVE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn model() -> Model {
    let block = |x: &swath::Value| -> swath::Result<swath::Value> {
        let y = Conv2d::new(8, 8, 3).padding(1).named("conv").call(x)?;
        Ok((y + x).relu())
    };
    Sequential::new((
        Conv2d::new(3, 8, 3).padding(1).stride(2),
        BatchNorm2d::new(8),
        SiLU,
        block.named("block"),
        MaxPool2d::new(2),
        AdaptiveAvgPool2d::new(1),
        Flatten,
        Linear::new(8, 5),
        Softmax::new(1),
    ))
    .build(1)
    .unwrap()
}

fn input([n, h, w]: [usize; 3]) -> Array {
    let x = (0..n * 3 * h * w).map(|i| (i * 7919 % 1013) as f32 / 500.0 - 1.0).collect();
    Array::vector(x).with_dims([n, 3, h, w]).unwrap()
}

fn compile(network: &Network, x: &Array, threads: usize) -> NetworkSession {
    let options = SessionOptions { threads: Some(threads), ..Default::default() };
    network.compile(&[("input", x.dims())], &options).unwrap()
}

/// The fewest allocations of a few runs behind the first: a thread that starts late allocates its name, once, beside them.
fn allocations(session: &mut NetworkSession, inputs: &[Array]) -> usize {
    session.run_in_place(inputs).unwrap();
    let mut of_five = || {
        let before = ALLOCATIONS.load(Relaxed);
        (0..5).for_each(|_| assert!(session.run_in_place(inputs).is_ok()));
        ALLOCATIONS.load(Relaxed) - before
    };
    (0..5).map(|_| of_five()).min().unwrap()
}

/// Runs over 50 shapes in turn; bytes that are alive behind some of them.
fn alive(shapes: &mut Shapes, runs: std::ops::Range<usize>) -> usize {
    for i in runs {
        let n = 1 + i * 7 % 50;
        assert_eq!(shapes.run(&[input([n, 4, 4])]).unwrap()[0].dims(), [n, 5]);
    }
    LIVE.load(Relaxed)
}

#[test]
fn runs_share_no_state_and_leave_nothing() {
    let network = Network::from_bytes(export(&model(), [1, 3, 32, 32]).unwrap()).unwrap();
    let x = input([2, 32, 32]);

    // Eight threads, a clone each, at once: the bits of one alone. They share the packed weights.
    for threads in [1, 2] {
        let mut session = compile(&network, &x, threads);
        let alone = session.run(std::slice::from_ref(&x)).unwrap();
        let sessions: Vec<NetworkSession> = (0..8).map(|_| session.clone()).collect();
        std::thread::scope(|scope| {
            for mut session in sessions {
                let (x, alone) = (&x, &alone);
                scope.spawn(move || {
                    for _ in 0..20 {
                        assert_eq!(session.run_in_place(std::slice::from_ref(x)).unwrap(), &alone[..]);
                    }
                });
            }
        });
    }

    // Floats, and halves that become floats.
    for threads in [1, 2] {
        assert_eq!(allocations(&mut compile(&network, &x, threads), std::slice::from_ref(&x)), 0, "{threads} threads");
    }
    let halves = swath::ops::cast(&x, ElementType::F16).unwrap();
    assert_eq!(allocations(&mut compile(&network, &x, 1), &[halves]), 0);

    // The file's batch is open. More shapes than are kept, so that each is compiled anew: behind the second hundred, no byte more.
    let options = SessionOptions { threads: Some(1), ..Default::default() };
    let network = Network::from_bytes(export(&model(), [1, 3, 4, 4]).unwrap()).unwrap();
    let mut shapes = Shapes::new(network.clone(), options.clone(), 4).unwrap();
    let early = alive(&mut shapes, 0..200);
    let late = alive(&mut shapes, 200..1000);
    assert_eq!((shapes.kept(), late), (4, early));
    // All of them kept: 10,000 runs compile 50 times, and allocate no byte more.
    let mut shapes = Shapes::new(network, options, 50).unwrap();
    let early = alive(&mut shapes, 0..50);
    let memory = shapes.memory();
    let late = alive(&mut shapes, 50..10_000);
    assert_eq!((shapes.kept(), shapes.memory(), late), (50, memory, early));

    let e = shapes.run(&[]).unwrap_err().to_string();
    assert_eq!(e, "the graph takes 1 inputs, but gets 0");
    let wrong = Array::new([1, 3, 4, 4], Data::I64(vec![0; 48])).unwrap();
    let e = shapes.run(&[wrong]).unwrap_err().to_string();
    assert!(e.contains("the input's elements is int64, but the session was compiled for float"), "{e}");
}
