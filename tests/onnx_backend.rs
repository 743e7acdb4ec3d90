//! ONNX's own tests: each a model with inputs and the outputs that it must have.
//!
//! `SWATH_ONNX_TESTS` names the folder `onnx/backend/test/data` of the Python package `onnx` (1.22.0). Unset, nothing is tested,
//! and the test says so. What is out of scope is listed by operator or type, with the reason.
#![cfg(feature = "onnx")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use swath::onnx::{Dimension, External, Interpreter, ModelProto, Network, TensorProto, ValueType};
use swath::ops::{Array, Data, ElementType, cast};

/// Operators that are out of scope, by the reason.
const OUT_OF_SCOPE: &[(&str, &[&str])] = &[
    (
        "its result is random",
        &["Bernoulli", "RandomUniformLike", "RandomNormalLike", "RandomNormal", "RandomUniform", "Multinomial"],
    ),
    ("it works on text", &["StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "TfIdfVectorizer"]),
    (
        "it works on sequences, which no convolutional network holds",
        &[
            "SequenceAt",
            "SequenceConstruct",
            "SequenceEmpty",
            "SequenceErase",
            "SequenceInsert",
            "SequenceLength",
            "SequenceMap",
            "ConcatFromSequence",
            "SplitToSequence",
        ],
    ),
    ("it works on optional values", &["Optional", "OptionalHasElement", "OptionalGetElement"]),
    ("it decodes pictures, which the feature `image` does", &["ImageDecoder"]),
    (
        "it is a step of training",
        &[
            "ai.onnx.preview.training.Adagrad",
            "ai.onnx.preview.training.Adam",
            "ai.onnx.preview.training.Gradient",
            "ai.onnx.preview.training.Momentum",
        ],
    ),
    (
        "it is of classical machine learning",
        &[
            "ai.onnx.ml.ArrayFeatureExtractor",
            "ai.onnx.ml.Binarizer",
            "ai.onnx.ml.LabelEncoder",
            "ai.onnx.ml.TreeEnsemble",
        ],
    ),
    ("it is for sound", &["DFT", "STFT", "MelWeightMatrix", "HannWindow", "HammingWindow", "BlackmanWindow"]),
    (
        "it is for language models",
        &["ai.onnx.preview.FlexAttention", "LinearAttention", "CausalConvWithState", "Attention"],
    ),
];

/// Tests that are out of scope by themselves.
const TESTS_OUT_OF_SCOPE: &[(&str, &str)] = &[
    ("test_scan_sum", "Scan of opset 8, which no converter writes any more"),
    ("test_training_dropout", "dropout in training is random"),
    ("test_training_dropout_default", "dropout in training is random"),
    ("test_training_dropout_default_mask", "dropout in training is random"),
    ("test_training_dropout_mask", "dropout in training is random"),
];

/// What errors of compiling say where a model is for the interpreter alone.
const NOT_COMPILED: &[&str] = &[
    "only known when it runs",
    "text, which is not compiled",
    "Scan is not compiled",
    // Inputs without elements, but for batches of none.
    "of which only n may be 0",
    // Weights of many millions of elements that a file of a few bytes asks for: no file is trusted so far.
    "is computed from",
];

#[derive(Debug)]
enum Outcome {
    /// And whether it also passed compiled; if not, why it is not compiled.
    Passed(Option<String>),
    Skipped(String),
    Failed(String),
}

/// The tensor of a file; a skip for element types that this crate lacks.
fn read_tensor(path: &Path) -> Result<Array, Outcome> {
    let bytes = std::fs::read(path).unwrap();
    let tensor = TensorProto::read(&bytes).map_err(|_| Outcome::Skipped("values that are no tensors".into()))?;
    match tensor.element() {
        Some(_) => tensor.array(&External::Refused).map_err(|e| Outcome::Failed(format!("{}: {e}", path.display()))),
        None => Err(Outcome::Skipped("element types of 8 bits or fewer, or complex ones".into())),
    }
}

/// Files `input_0.pb`, `input_1.pb` and so on.
fn numbered(folder: &Path, name: &str) -> Vec<PathBuf> {
    (0..).map(|i| folder.join(format!("{name}_{i}.pb"))).take_while(|p| p.exists()).collect()
}

fn close(actual: f64, expected: f64, relative: f64, absolute: f64) -> bool {
    actual == expected
        || (actual.is_nan() && expected.is_nan())
        || (actual - expected).abs() <= absolute + relative * expected.abs()
}

fn compare(actual: &Array, expected: &Array, relative: f64) -> Result<(), String> {
    compare_within(actual, expected, relative, 1e-7)
}

fn compare_within(actual: &Array, expected: &Array, relative: f64, absolute: f64) -> Result<(), String> {
    if actual.dims() != expected.dims() || actual.element() != expected.element() {
        let (a, e) = (actual, expected);
        return Err(format!("{:?} {} instead of {:?} {}", a.dims(), a.element(), e.dims(), e.element()));
    }
    let floats = |array: &Array| -> Option<Vec<f64>> {
        Some(match array.data() {
            Data::F32(v) => v.iter().map(|&v| v.into()).collect(),
            Data::F64(v) => v.clone(),
            Data::F16(v) => v.iter().map(|&v| v.into()).collect(),
            Data::Bf16(v) => v.iter().map(|&v| v.into()).collect(),
            _ => return None,
        })
    };
    // Types of few bits round where the test's own arithmetic rounds otherwise.
    let relative = match expected.element() {
        ElementType::F16 => relative.max(2e-3),
        ElementType::Bf16 => relative.max(1e-2),
        _ => relative,
    };
    match (floats(actual), floats(expected)) {
        (Some(a), Some(e)) => match (0..a.len()).find(|&i| !close(a[i], e[i], relative, absolute)) {
            None => Ok(()),
            Some(i) => Err(format!("element {i} of {:?} is {} instead of {}", actual.dims(), a[i], e[i])),
        },
        _ if actual == expected => Ok(()),
        _ => Err(format!("{:?} instead of {:?}", actual.data(), expected.data()).chars().take(200).collect()),
    }
}

fn out_of_scope(model: &ModelProto<'_>) -> Option<String> {
    for node in &model.graph.nodes {
        let name =
            if node.domain.is_empty() { node.op_type.to_string() } else { format!("{}.{}", node.domain, node.op_type) };
        for (reason, operators) in OUT_OF_SCOPE {
            if operators.contains(&name.as_str()) {
                return Some(format!("{name}: {reason}"));
            }
        }
    }
    let infos = model.graph.inputs.iter().chain(&model.graph.outputs);
    infos.into_iter().find_map(|info| match &info.ty {
        ValueType::Other(kind) => Some(format!("a value that is a {kind}")),
        ValueType::Tensor { element: None, .. } => Some("element types of 8 bits or fewer, or complex ones".into()),
        _ => None,
    })
}

fn run(folder: &Path) -> Outcome {
    let name = folder.file_name().unwrap().to_string_lossy();
    if let Some((_, reason)) = TESTS_OUT_OF_SCOPE.iter().find(|(test, _)| *test == name) {
        return Outcome::Skipped((*reason).into());
    }
    let bytes = std::fs::read(folder.join("model.onnx")).unwrap();
    let model = match ModelProto::read(&bytes) {
        Ok(model) => model,
        Err(e) => return Outcome::Failed(e.to_string()),
    };
    if let Some(reason) = out_of_scope(&model) {
        return Outcome::Skipped(reason);
    }
    let interpreter = match Interpreter::new(model, External::beside(&folder.join("model.onnx"))) {
        Ok(interpreter) => interpreter,
        Err(e) => return Outcome::Failed(e.to_string()),
    };
    let graph = &interpreter.model().graph;
    let mut sets = 0;
    let mut not_compiled = None;
    for set in (0..).map(|i| folder.join(format!("test_data_set_{i}"))).take_while(|p| p.exists()) {
        sets += 1;
        let mut inputs = Vec::new();
        for (path, info) in numbered(&set, "input").iter().zip(&graph.inputs) {
            match read_tensor(path) {
                Ok(array) => inputs.push((info.name, array)),
                Err(outcome) => return outcome,
            }
        }
        let given = inputs.clone();
        let outputs = match interpreter.run(inputs) {
            Ok(outputs) => outputs,
            Err(e) => return Outcome::Failed(e.to_string()),
        };
        for (path, (name, actual)) in numbered(&set, "output").iter().zip(&outputs) {
            let expected = match read_tensor(path) {
                Ok(array) => array,
                Err(outcome) => return outcome,
            };
            if let Err(e) = compare(actual, &expected, 1e-3) {
                return Outcome::Failed(format!("output `{name}`: {e}"));
            }
        }
        match compiled(&bytes, &given, &outputs) {
            Ok(None) => {}
            Ok(reason) => not_compiled = reason,
            Err(e) => return Outcome::Failed(format!("compiled: {e}")),
        }
    }
    if sets == 0 { Outcome::Failed("there is no test data".into()) } else { Outcome::Passed(not_compiled) }
}

/// Compiles the model for its inputs, and compares with what the interpreter made of them. `Some` is a reason why it is not
/// compiled.
fn compiled(bytes: &[u8], inputs: &[(&str, Array)], outputs: &[(&str, Array)]) -> Result<Option<String>, String> {
    let network = Network::from_bytes(bytes.to_vec()).map_err(|e| e.to_string())?;
    let dims: Vec<(&str, &[usize])> = inputs.iter().map(|(name, array)| (*name, array.dims())).collect();
    let mut session = match network.compile(&dims, &Default::default()) {
        Ok(session) => session,
        Err(e) if NOT_COMPILED.iter().any(|reason| e.to_string().contains(reason)) => {
            return Ok(Some(e.to_string()));
        }
        Err(e) => return Err(e.to_string()),
    };
    let arrays: Vec<Array> = inputs.iter().map(|(_, array)| array.clone()).collect();
    let results = session.run(&arrays).map_err(|e| e.to_string())?;
    for ((name, expected), actual) in outputs.iter().zip(&results) {
        // Half floats are computed as floats.
        let actual = cast(actual, expected.element()).map_err(|e| e.to_string())?;
        compare_within(&actual, expected, 1e-3, 1e-5).map_err(|e| format!("output `{name}`: {e}"))?;
    }
    Ok(None)
}

/// Runs all tests of a kind; at least `least` must pass, and none may fail.
fn kind(kind: &str, least: usize) {
    let Some(folder) = std::env::var_os("SWATH_ONNX_TESTS") else {
        println!("skipped: SWATH_ONNX_TESTS names no folder (onnx/backend/test/data of the Python package)");
        return;
    };
    let mut tests: Vec<PathBuf> = std::fs::read_dir(Path::new(&folder).join(kind))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("model.onnx").exists())
        .collect();
    tests.sort();
    let (mut passed, mut failed, mut interpreted) = (0, Vec::new(), Vec::new());
    let mut skipped: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for test in &tests {
        let name = test.file_name().unwrap().to_string_lossy().into_owned();
        match run(test) {
            Outcome::Passed(None) => passed += 1,
            Outcome::Passed(Some(reason)) => {
                passed += 1;
                interpreted.push(format!("{name}: {reason}"));
            }
            Outcome::Skipped(reason) => skipped.entry(reason).or_default().push(name),
            Outcome::Failed(why) => failed.push(format!("{name}: {why}")),
        }
    }
    for (reason, names) in &skipped {
        println!("out of scope ({reason}): {}", names.join(" "));
    }
    interpreted.iter().for_each(|i| println!("not compiled {i}"));
    failed.iter().for_each(|f| println!("FAILED {f}"));
    let out: usize = skipped.values().map(Vec::len).sum();
    println!(
        "{kind}: {passed} of {} passed, all but {} of them also compiled, {out} are out of scope, {} failed",
        tests.len(),
        interpreted.len(),
        failed.len()
    );
    assert!(failed.is_empty(), "{} tests failed", failed.len());
    assert!(passed >= least, "{passed} tests passed, but {least} should");
}

#[test]
fn node_tests_pass() {
    kind("node", 1384);
}

#[test]
fn converted_pytorch_models_pass() {
    kind("pytorch-converted", 82);
}

/// The models of `light` have no input beside them: it is `0/n, 1/n, ..`, and their weights are constants of one number.
#[test]
fn light_models_pass() {
    let Some(folder) = std::env::var_os("SWATH_ONNX_TESTS") else {
        println!("skipped: SWATH_ONNX_TESTS names no folder (onnx/backend/test/data of the Python package)");
        return;
    };
    let mut models: Vec<PathBuf> = std::fs::read_dir(Path::new(&folder).join("light"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    models.sort();
    let mut not_compiled = Vec::new();
    for path in &models {
        let bytes = std::fs::read(path).unwrap();
        let expected = read_tensor(&PathBuf::from(path.to_str().unwrap().replace(".onnx", "_output_0.pb"))).unwrap();
        let interpreter = Interpreter::new(ModelProto::read(&bytes).unwrap(), External::Refused).unwrap();
        let graph = &interpreter.model().graph;
        let input = graph.free_inputs().next().unwrap();
        let ValueType::Tensor { dims: Some(dims), .. } = &input.ty else { panic!("{}: no shape", path.display()) };
        let dims: Vec<usize> = dims.iter().map(|d| if let Dimension::Fixed(d) = d { *d } else { 1 }).collect();
        let n: usize = dims.iter().product();
        let x = Array::vector((0..n).map(|i| (i as f64 / n as f64) as f32).collect()).with_dims(dims).unwrap();
        let outputs = interpreter.run(vec![(input.name, x.clone())]).unwrap();
        compare(&outputs[0].1, &expected, 1e-3).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        match compiled(&bytes, &[(input.name, x)], &outputs) {
            Ok(reason) => not_compiled.extend(reason),
            Err(e) => panic!("{}: compiled: {e}", path.display()),
        }
    }
    not_compiled.iter().for_each(|reason| println!("not compiled: {reason}"));
    assert_eq!(models.len(), 9, "models of the folder `light`");
    let n = models.len();
    println!("light: {n} of {n} passed, all but {} of them also compiled", not_compiled.len());
}

#[test]
fn pytorch_operators_pass() {
    kind("pytorch-operator", 35);
}
