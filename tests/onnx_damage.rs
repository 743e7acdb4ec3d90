//! Damaged models: an error or a result, never a panic.
//!
//! `SWATH_ONNX_MODELS` names a folder with a folder for each real model, whose `model.onnx` is damaged likewise. Unset, a small model
//! alone is.
#![cfg(feature = "onnx")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use swath::nn::*;
use swath::onnx::{Network, export};
use swath::ops::{Array, Data};
use swath::{Random, SessionOptions};

/// The most elements of an input that is run: damage may ask for any number.
const MOST: usize = 1 << 22;

/// Reads, compiles and, where it is small, runs the bytes.
fn run(bytes: &[u8], run: bool) -> Result<(), String> {
    let network = Network::from_bytes(bytes.to_vec()).map_err(|e| e.to_string())?;
    let mut session =
        network.compile(&[], &SessionOptions { threads: Some(1), ..Default::default() }).map_err(|e| e.to_string())?;
    if !run || session.inputs().any(|(_, fact)| fact.len() > MOST) {
        return Ok(());
    }
    let zeros =
        session.inputs().map(|(_, f)| Array::new(f.dims.clone(), Data::zeros(f.element, f.len()).unwrap()).unwrap());
    let inputs: Vec<Array> = zeros.collect();
    session.run(&inputs).map(|_| ()).map_err(|e| e.to_string())
}

/// How many of the damaged files were errors; what panicked is told by its damage.
fn damaged(name: &str, bytes: &[u8], flips: usize, runs: bool) -> (usize, usize) {
    let (mut errors, mut results, mut panics) = (0, 0, Vec::new());
    let mut try_one = |what: String, bytes: &[u8]| match catch_unwind(AssertUnwindSafe(|| run(bytes, runs))) {
        Ok(Ok(())) => results += 1,
        Ok(Err(e)) => {
            assert!(!e.contains('\n'), "{name}, {what}: {e}");
            errors += 1;
        }
        Err(_) => panics.push(what),
    };
    for percent in 0..100 {
        try_one(format!("cut at {percent} %"), &bytes[..bytes.len() * percent / 100]);
    }
    let mut random = Random::new(&[bytes.len() as u64]);
    let mut copy = bytes.to_vec();
    for i in 0..flips {
        // Half of them within the first bytes, where names, shapes and attributes are.
        let at = random.below(if i % 2 == 0 { bytes.len() } else { bytes.len().min(1 << 14) });
        let old = copy[at];
        copy[at] ^= 1 << random.below(8);
        try_one(format!("byte {at} flipped from {old} to {}", copy[at]), &copy);
        copy[at] = old;
    }
    assert!(panics.is_empty(), "{name}: {} panics: {panics:?}", panics.len());
    (errors, results)
}

#[test]
fn damage_of_a_small_model_is_an_error_or_a_result() {
    let model = Sequential::new((
        Conv2d::new(2, 4, 3).padding(1).groups(2),
        BatchNorm2d::new(4),
        GELU::new(),
        MaxPool2d::new(2).ceil_mode(true),
        ConvTranspose2d::new(4, 3, 2).stride(2),
        Hardswish,
        AdaptiveAvgPool2d::new([2, 3]),
        Upsample::new(2),
        Flatten,
        Linear::new(72, 4),
        Softmax::new(1),
        // Holds the batch, so that the file's dimensions are all known.
        |x: &swath::Value| Ok(x.push(swath::graph::ops::Reshape::new(&[1, 4]), &[x])),
    ))
    .build(1)
    .unwrap();
    let bytes = export(&model, [1, 2, 7, 5]).unwrap();
    run(&bytes, true).unwrap();
    let (errors, results) = damaged("small", &bytes, 2000, true);
    assert!(errors > 200 && results > 200, "{errors} errors, {results} results");
}

#[test]
fn damage_of_real_models_is_an_error_or_a_result() {
    let Some(folder) = std::env::var_os("SWATH_ONNX_MODELS") else {
        println!("skipped: SWATH_ONNX_MODELS names no folder");
        return;
    };
    let only = std::env::var("SWATH_ONNX_ONLY").ok();
    let flips = std::env::var("SWATH_ONNX_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path().join("model.onnx");
        let name = path.display().to_string();
        if !path.exists() || only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let (errors, results) = damaged(&name, &std::fs::read(&path).unwrap(), flips, false);
        println!("{name}: {errors} errors, {results} results");
    }
}
