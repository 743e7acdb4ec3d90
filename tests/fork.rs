//! Sessions that were compiled before `fork` run in the child. One test, in a process of its own: forking copies whatever
//! other tests' threads were at.
#![cfg(all(unix, feature = "nn"))]

use core::sync::atomic::{AtomicBool, Ordering};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use swath::nn::*;
use swath::{Model, Session, SessionOptions, Tensor, Tuning};

const DIMS: [usize; 4] = [1, 3, 24, 24];

fn network() -> Model {
    let net = Sequential::new((Conv2d::new(3, 32, 3).padding(1), ReLU, Conv2d::new(32, 48, 3).padding(1), Sigmoid));
    net.build(5).unwrap()
}

fn session(model: &Model, threads: Option<usize>) -> Session {
    let options = SessionOptions { threads, tuning: Tuning::Off, ..SessionOptions::default() };
    model.compile_with(DIMS, &options).unwrap()
}

/// Whether `f` returns without a panic in a child process, within a minute.
fn in_child(f: impl FnOnce()) -> Result<(), String> {
    // SAFETY: the child runs `f` and ends without coming back to this test's harness. That `f` allocates and starts
    // threads is more than POSIX allows a child of several threads; it is what users' children do, and what is tested.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let failed = catch_unwind(AssertUnwindSafe(f)).is_err();
        // SAFETY: ends the process, without destructors.
        unsafe { libc::_exit(failed.into()) }
    }
    assert!(child > 0, "fork: {}", std::io::Error::last_os_error());
    let (start, mut status) = (Instant::now(), 0);
    loop {
        // SAFETY: the child is this process's and has not been waited for; the status is written to a live place.
        match unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } {
            0 if start.elapsed() < Duration::from_secs(60) => std::thread::sleep(Duration::from_millis(5)),
            0 => {
                // SAFETY: as above: no other process can have the number.
                unsafe { libc::kill(child, libc::SIGKILL) };
                return Err("hangs".into());
            }
            _ if status == 0 => return Ok(()),
            _ => return Err(format!("ends with status {status:#x}")),
        }
    }
}

#[test]
fn a_child_runs_sessions_that_its_parent_compiled() {
    let model = network();
    let data: Vec<f32> = (0..DIMS.iter().product()).map(|i: usize| (i % 23) as f32 / 11.0 - 1.0).collect();
    let x = Tensor::new(DIMS, &data).unwrap();
    let expected = session(&model, Some(1)).run(&x).unwrap().clone();
    let kinds = [Some(1), Some(2), Some(3), None];
    let mut sessions = kinds.map(|threads| session(&model, threads));
    let mut fresh = kinds.map(|threads| session(&model, threads));
    for session in &mut sessions {
        assert_eq!(*session.run(&x).unwrap(), expected);
    }
    let mut busy = session(&model, Some(2));
    let (mut clone, stop) = (busy.clone(), AtomicBool::new(false));
    std::thread::scope(|s| {
        // Its helper may be inside a job at the moment of the fork, and is not there afterwards.
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                busy.run(&x).unwrap();
            }
        });
        let outcomes = (0..8).map(|_| {
            in_child(|| {
                for session in sessions.iter_mut().chain(&mut fresh).chain([&mut clone]) {
                    assert_eq!(*session.run(&x).unwrap(), expected);
                    assert_eq!(*session.clone().run(&x).unwrap(), expected);
                }
                // A child's child.
                in_child(|| sessions.iter_mut().for_each(|s| assert_eq!(*s.run(&x).unwrap(), expected))).unwrap();
                assert_eq!(*session(&model, Some(2)).run(&x).unwrap(), expected);
            })
        });
        let outcomes: Vec<_> = outcomes.collect();
        stop.store(true, Ordering::Relaxed);
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    });
    for session in sessions.iter_mut().chain(&mut fresh) {
        assert_eq!(*session.run(&x).unwrap(), expected, "in the parent, afterwards");
    }
}
