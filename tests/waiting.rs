//! A session that waits for its threads takes up no other work: it may stand behind a lock or in a cell and be run from a
//! parallel loop, of any rayon pool.
#![cfg(feature = "nn")]

use core::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rayon::prelude::*;
use swath::nn::*;
use swath::{Model, Session, SessionOptions, Tensor, Tuning};

const DIMS: [usize; 4] = [1, 3, 24, 24];

/// Ends the process if `f` takes more than two minutes: a test that hangs would tell nothing.
fn watched<R>(what: &str, f: impl FnOnce() -> R) -> R {
    let (done, waits) = channel::<()>();
    let name = what.to_string();
    std::thread::spawn(move || {
        if waits.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{name}: no progress");
            std::process::abort();
        }
    });
    let result = f();
    drop(done);
    result
}

fn network() -> Model {
    let net = Sequential::new((
        Conv2d::new(3, 32, 3).padding(1),
        ReLU,
        Conv2d::new(32, 48, 3).padding(1),
        MaxPool2d::new(2),
        Sigmoid,
        Flatten,
        Linear::new(48 * 12 * 12, 7),
    ));
    net.build(5).unwrap()
}

fn image() -> Tensor {
    let len: usize = DIMS.iter().product();
    let data: Vec<f32> = (0..len).map(|i| ((i * 2654435761) % 1000) as f32 / 500.0 - 1.0).collect();
    Tensor::new(DIMS, &data).unwrap()
}

fn session(model: &Model, threads: Option<usize>, spin: Option<Duration>) -> Session {
    let options = SessionOptions { threads, spin, tuning: Tuning::Off, ..SessionOptions::default() };
    model.compile_with(DIMS, &options).unwrap()
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

const SPINS: [Option<Duration>; 2] = [None, Some(Duration::ZERO)];

#[test]
fn a_session_in_a_mutex_runs_in_a_parallel_loop() {
    let (model, x) = (network(), image());
    let expected = session(&model, Some(1), None).run(&x).unwrap().clone();
    for (threads, spin) in [1, 2, 3].into_iter().flat_map(|n| SPINS.map(|spin| (n, spin))) {
        let session = Mutex::new(session(&model, Some(threads), spin));
        let all = || {
            (0..40).into_par_iter().for_each(|_| assert_eq!(*session.lock().unwrap().run(&x).unwrap(), expected));
        };
        watched(&format!("{threads} threads, the global pool"), all);
        watched(&format!("{threads} threads, a pool of four"), || pool(4).install(all));
    }
}

#[test]
fn a_session_in_a_thread_local_cell_runs_in_a_parallel_loop() {
    thread_local!(static MINE: RefCell<Option<Session>> = const { RefCell::new(None) });
    let (model, x) = (network(), image());
    let expected = session(&model, Some(1), None).run(&x).unwrap().clone();
    for (threads, spin) in [1, 2, 3].into_iter().flat_map(|n| SPINS.map(|spin| (n, spin))) {
        let compiled = Arc::new(Mutex::new(session(&model, Some(threads), spin)));
        let all = || {
            (0..40).into_par_iter().for_each(|_| {
                MINE.with_borrow_mut(|mine| {
                    let mine = mine.get_or_insert_with(|| compiled.lock().unwrap().clone());
                    assert_eq!(*mine.run(&x).unwrap(), expected);
                });
            });
        };
        // A pool for each, so that its threads have no session of the last.
        watched(&format!("{threads} threads"), || pool(4).install(all));
    }
}

/// Outside of rayon's pools that holds without a number of threads as well.
#[test]
fn a_session_in_a_mutex_of_plain_threads_runs_beside_a_parallel_loop() {
    let (model, x) = (network(), image());
    let expected = session(&model, Some(1), None).run(&x).unwrap().clone();
    let shared = Mutex::new(session(&model, None, None));
    watched("plain threads", || {
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| (0..20).for_each(|_| assert_eq!(*shared.lock().unwrap().run(&x).unwrap(), expected)));
            }
            // Tasks of the global pool that want the same lock: a run that took one up would never end.
            (0..200).into_par_iter().for_each(|_| drop(shared.lock().unwrap()));
        });
    });
}

#[test]
fn clones_share_threads_and_run_at_once() {
    let (model, x) = (network(), image());
    let expected = session(&model, Some(1), None).run(&x).unwrap().clone();
    for spin in SPINS {
        let first = session(&model, Some(3), spin);
        watched("clones", || {
            std::thread::scope(|s| {
                for mut clone in (0..4).map(|_| first.clone()) {
                    let (x, expected) = (&x, &expected);
                    s.spawn(move || (0..20).for_each(|_| assert_eq!(clone.run(x).unwrap(), expected)));
                }
            });
        });
    }
}

#[test]
fn numbers_of_threads_that_cannot_be_are_refused() {
    let model = network();
    for threads in [0, 1_000_000, usize::MAX] {
        let options = SessionOptions { threads: Some(threads), ..SessionOptions::default() };
        let error = model.compile_with(DIMS, &options).unwrap_err().to_string();
        assert_eq!(error, format!("the number of threads is {threads}, but it must be from 1 to 1024"));
    }
}

#[test]
fn one_file_names_rayon() {
    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else if std::fs::read_to_string(&path).is_ok_and(|text| text.contains("rayon::")) {
                found.push(path);
            }
        }
    }
    let (src, mut found) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), Vec::new());
    files(&src, &mut found);
    assert_eq!(found, [src.join("par/guest.rs")]);
}
