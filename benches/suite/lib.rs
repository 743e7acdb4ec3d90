//! Benchmarks only: `cargo bench -p swath-bench`. Layers are in `conv.rs`, kernels in `kernels.rs`, instruction counts in
//! `instructions.rs`, and lists of layers in `../shapes/`.
