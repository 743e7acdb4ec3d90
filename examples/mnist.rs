//! A CNN with trained weights reads the 10,000 test images of MNIST.
//!
//! `cargo run --release --example mnist -- DIR`, where DIR has `mnist_cnn.safetensors` and `mnist/t10k-*.gz`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use swath::data::LabelledImages;
use swath::nn::*;
use swath::{Error, Result, Strictness, Tensor, WeightsFile};

/// Images of one run.
const BATCH: usize = 100;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: mnist DIR, a folder with mnist_cnn.safetensors and mnist/t10k-*.gz");
        return ExitCode::FAILURE;
    };
    match classify(Path::new(&dir)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("mnist: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the numbers are those that the weights file states.
fn classify(dir: &Path) -> Result<bool> {
    let mut model = Sequential::new((
        Conv2d::new(1, 16, 3).padding(1).named("conv1"),
        ReLU,
        MaxPool2d::new(2),
        Conv2d::new(16, 32, 3).padding(1).named("conv2"),
        ReLU,
        MaxPool2d::new(2),
        Flatten,
        Linear::new(32 * 7 * 7, 10).named("fc"),
    ))
    .build(0)?;
    let weights = WeightsFile::open(dir.join("mnist_cnn.safetensors"))?;
    // The file has reference logits besides the parameters.
    model.load_weights(&weights, Strictness::IgnoreUnexpected)?;
    let mnist = dir.join("mnist");
    let test = LabelledImages::open(mnist.join("t10k-images-idx3-ubyte.gz"), mnist.join("t10k-labels-idx1-ubyte.gz"))?;

    let mut session = model.compile([BATCH, 1, 28, 28])?;
    print!("{}", session.explain());
    let reference = weights.tensor("logits")?;
    let (mut correct, mut difference, mut compared, mut seconds) = (0, 0f32, 0, 0.0);
    for start in (0..test.len()).step_by(BATCH) {
        let end = test.len().min(start + BATCH);
        let images = test.images(start..end, 0.1307, 0.3081)?;
        if end - start < BATCH {
            session = model.compile([end - start, 1, 28, 28])?;
        }
        let started = Instant::now();
        let logits = session.run(&images)?;
        seconds += started.elapsed().as_secs_f64();
        correct += correct_rows(logits, &test.labels()[start..end]);
        // The reference has the logits of the first images.
        let rest = reference.as_slice().get(start * 10..).unwrap_or(&[]);
        for (a, b) in logits.as_slice().iter().zip(rest) {
            difference = difference.max((a - b).abs());
            compared += 1;
        }
    }
    println!("{correct} of {} right", test.len());
    println!("max |logit difference| over the first {} images: {difference:.2e}", compared / 10);
    println!("{:.0} images per second", test.len() as f64 / seconds);

    let key = "test_correct_of_10000";
    let stated = weights.metadata(key).and_then(|v| v.parse::<usize>().ok()).ok_or_else(|| Error::Format {
        file: weights.source().into(),
        problem: format!("its metadata has no number `{key}`"),
    })?;
    if correct != stated || difference.is_nan() || difference > 1e-4 {
        eprintln!("mnist: {correct} right and logits within {difference:.2e}, but {stated} and 1e-4 are expected");
        return Ok(false);
    }
    println!("as the weights file says: {stated}");
    Ok(true)
}

/// Rows of `[n, classes]` whose largest element is at the label.
fn correct_rows(logits: &Tensor, labels: &[u8]) -> usize {
    let classes = logits.dims()[1];
    let best = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
    let rows = logits.as_slice().chunks_exact(classes);
    rows.zip(labels).filter(|(row, label)| best(row) == Some(usize::from(**label))).count()
}
