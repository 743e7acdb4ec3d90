//! What the fuzz targets do with bytes: one module each, which panics on a fault and accepts everything else.
//!
//! ```sh
//! cargo install cargo-fuzz
//! cargo +nightly fuzz run plan -- -max_total_time=600
//! cargo +nightly fuzz cmin plan        # then commit what is new in fuzz/corpus/plan
//! ```
//!
//! A new target is a module here, three lines in `fuzz_targets/`, a folder in `corpus/`, an entry of `Cargo.toml`, and a
//! line of `TARGETS`.

mod targets;

#[cfg(feature = "onnx")]
pub use targets::onnx;
pub use targets::{idx, plan, problems, safetensors, tuning};

#[path = "report.rs"]
pub mod report;
