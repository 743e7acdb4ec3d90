//! Real models: compiled, their outputs are those of onnxruntime.
//!
//! `SWATH_ONNX_MODELS` names a folder with a folder for each model: `model.onnx`, `input_N.npy` and `output_N.npy`. Unset, nothing
//! is tested, and the test says so.
#![cfg(feature = "onnx")]

use std::path::{Path, PathBuf};

use swath::onnx::Network;
use swath::ops::{Array, ElementType, cast, npy};

fn numbered(folder: &Path, name: &str) -> Vec<Array> {
    let paths = (0..).map(|i| folder.join(format!("{name}_{i}.npy"))).take_while(|p| p.exists());
    paths.map(|p| npy::read(&std::fs::read(&p).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", p.display()))).collect()
}

fn floats(array: &Array) -> Vec<f32> {
    cast(array, ElementType::F32).unwrap().elements::<f32>().unwrap().to_vec()
}

/// The largest difference, relative to the largest element.
fn difference(actual: &Array, expected: &Array) -> f32 {
    assert_eq!(actual.dims(), expected.dims());
    let (a, e) = (floats(actual), floats(expected));
    let largest = e.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let worst =
        a.iter().zip(&e).fold(0.0f32, |m, (a, e)| if (a - e).abs() > m || a.is_nan() { (a - e).abs() } else { m });
    worst / largest
}

#[test]
fn real_models_have_onnxruntimes_outputs() {
    let Some(folder) = std::env::var_os("SWATH_ONNX_MODELS") else {
        println!("skipped: SWATH_ONNX_MODELS names no folder");
        return;
    };
    let only = std::env::var("SWATH_ONNX_ONLY").ok();
    let mut models: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("model.onnx").exists())
        .filter(|p| only.as_ref().is_none_or(|only| p.ends_with(only)))
        .collect();
    models.sort();
    assert!(!models.is_empty(), "no models below {folder:?}");
    let mut failed = Vec::new();
    for folder in &models {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let inputs = numbered(folder, "input");
        let network = Network::open(folder.join("model.onnx")).unwrap();
        let names: Vec<String> = network.model().unwrap().graph.free_inputs().map(|i| i.name.to_string()).collect();
        let dims: Vec<(&str, &[usize])> =
            names.iter().map(String::as_str).zip(inputs.iter().map(Array::dims)).collect();
        let mut session = match network.compile(&dims, &Default::default()) {
            Ok(session) => session,
            Err(e) => {
                failed.push(format!("{name}: {e}"));
                continue;
            }
        };
        let outputs = session.run(&inputs).unwrap();
        let limit = if name.contains("fp16") { 1e-3 } else { 1e-4 };
        for (i, (actual, expected)) in outputs.iter().zip(numbered(folder, "output")).enumerate() {
            let difference = difference(actual, &expected);
            println!("{name}: output {i} {:?}: {difference:.2e} of the largest", expected.dims());
            if difference.is_nan() || difference > limit {
                failed.push(format!("{name}: output {i} differs by {difference:.2e}"));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
