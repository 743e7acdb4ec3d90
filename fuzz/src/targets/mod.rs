//! The targets of the library. `tests/fuzz_corpus.rs` replays their corpora in every test run.

pub mod idx;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod plan;
pub mod problems;
pub mod safetensors;
pub mod tuning;

/// What takes the bytes of an input.
type Target = fn(&[u8]);

/// Each target's name, which is its corpus's too, and what it does with bytes.
#[allow(dead_code, reason = "for whoever replays")]
pub const TARGETS: &[(&str, Target)] = &[
    ("idx", idx::run),
    #[cfg(feature = "onnx")]
    ("onnx", onnx::run),
    ("plan", plan::run),
    ("problems", problems::run),
    ("safetensors", safetensors::run),
    ("tuning", tuning::run),
];
