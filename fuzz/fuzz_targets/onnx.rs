#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| swath_fuzz::onnx::run(data));
