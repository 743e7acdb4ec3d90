//! Sizes that memory cannot hold are errors, and the process lives on: under a limit of address space, in a process of its
//! own for each test.
#![cfg(all(target_os = "linux", feature = "nn"))]

use std::env;
use std::process::Command;

use swath::nn::*;
use swath::{ConvPlan, ConvShape, Epilogue, Error, Layout, Options, Scratch, Tensor, Tuning};

/// Set in the process that has the limit.
const LIMITED: &str = "SWATH_TEST_LIMITED";

/// Kibibytes of address space: 2 GiB.
const LIMIT: usize = 2 << 20;

/// Set where an emulator runs this program (`.ci/aarch64`): it cannot start itself, and a limit would be the emulator's.
const EMULATED: &str = "SWATH_TEST_EMULATED";

/// Runs the test of that name once more, with a limit, and `body` there.
fn limited(test: &str, body: impl FnOnce()) {
    if env::var_os(LIMITED).is_some() {
        return body();
    }
    if env::var_os(EMULATED).is_some() {
        return eprintln!("{test}: not run in an emulator");
    }
    let output = Command::new("sh")
        .args(["-c", &format!("ulimit -v {LIMIT}; exec \"$0\" \"$@\"")])
        .arg(env::current_exe().unwrap())
        // Each thread takes address space.
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(LIMITED, "1")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
}

/// Asserts that it is this error, of that many bytes at least, and that there is memory for other things.
fn refused<T>(result: Result<T, Error>, least: usize) {
    let mut error = result.err().expect("more than there is");
    while let Error::Layer { error: inner, .. } = error {
        error = *inner;
    }
    let Error::Memory { bytes } = error else { panic!("{error}") };
    assert!(bytes >= least, "{bytes} bytes, not {least}");
    assert_eq!(error.to_string(), format!("no memory for {bytes} bytes"));
    assert_eq!(Tensor::zeros([1 << 20]).unwrap().as_slice().len(), 1 << 20);
}

#[test]
fn tensors() {
    limited("tensors", || {
        refused(Tensor::zeros([1 << 44]), 1 << 46);
        refused(Tensor::zeros([1 << 29]), 1 << 31);
        refused(Tensor::zeros_in([1, 1, 1 << 14, 1 << 12], Layout::Blocked), 1 << 32);
        let half = Tensor::zeros([1, 1, 1 << 14, 1 << 14]).unwrap();
        refused(half.try_clone(), 1 << 30);
        refused(half.to_layout(Layout::Nchw), 1 << 30);
        refused(half.to_layout(Layout::Blocked), 1 << 34);
        refused(Tensor::new([1 << 28], half.as_slice()), 1 << 30);
        // A copy that cannot fail otherwise panics, and does not end the process.
        assert!(std::panic::catch_unwind(|| half.clone()).is_err());
    });
}

#[test]
fn plans() {
    limited("plans", || {
        let plan =
            |shape: &ConvShape, options| ConvPlan::new(shape, &Options { tuning: Tuning::Off, ..options }).unwrap();
        // Weights of 1 GiB fit, their packed form beside them does not.
        let shape = ConvShape::builder([1, 1 << 14, 1, 1], [1 << 14, 1 << 14, 1, 1]).build().unwrap();
        let weights = Tensor::zeros(shape.weights()).unwrap();
        refused(plan(&shape, Options::default()).pack(weights.as_slice()), 1 << 30);
        drop(weights);
        // Scratch grows with a run.
        let shape = ConvShape::builder([1, 8, 1, 1], [8, 8, 1, 1]).build().unwrap();
        let small = plan(&shape, Options::default());
        let packed = small.pack(&[1.0; 64]).unwrap();
        let mut y = [0.0; 8];
        small.forward(&[1.0; 8], &packed, Epilogue::none(), &mut y, &mut Scratch::new()).unwrap();
        assert_eq!(y, [8.0; 8]);
    });
}

#[test]
fn models() {
    limited("models", || {
        refused(Linear::new(10_000_000, 10_000_000).build(0), 400_000_000_000_000);
        let model = Conv2d::new(3, 8, 3).build(0).unwrap();
        refused(model.compile([1, 3, 1_000_000, 1_000_000]), 1_000_000_000_000);
        refused(model.compile([1000, 3, 300, 300]), 1 << 31);
        let upsample = Upsample::new(100_000).build(0).unwrap();
        refused(upsample.compile([1, 1, 28, 28]), 28 * 28 * 40_000_000_000);
        // One session fits, its clone does not.
        let big = Sequential::new((Conv2d::new(16, 16, 1), ReLU)).build(0).unwrap();
        let mut session = big.compile([1, 16, 2048, 2048]).unwrap();
        refused(session.try_clone().and_then(|a| Ok((a.try_clone()?, a))), 1 << 28);
        assert_eq!(session.run(&Tensor::zeros([1, 16, 2048, 2048]).unwrap()).unwrap().dims(), [1, 16, 2048, 2048]);
    });
}

#[test]
fn weights_files() {
    limited("weights_files", || {
        let folder = env::temp_dir().join(format!("swath-memory-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("large.safetensors");
        let header = r#"{"x":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4294967296]}}"#;
        std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
        // A hole in place of the floats.
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(8 + header.len() as u64 + (1 << 32)).unwrap();
        refused(swath::WeightsFile::open(&path), 1 << 32);
        // Halves fit, as floats they do not.
        let header = r#"{"x":{"dtype":"F16","shape":[419430400],"data_offsets":[0,838860800]}}"#;
        std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(8 + header.len() as u64 + 838_860_800).unwrap();
        refused(swath::WeightsFile::open(&path).unwrap().tensor("x"), 1_600_000_000);
        std::fs::remove_dir_all(&folder).unwrap();
    });
}
