//! Replays the corpora of the fuzz targets, `fuzz/corpus`: what once was found stays mended.
#![cfg(feature = "onnx")]

use std::fs;
use std::path::Path;

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

#[test]
fn every_file_of_every_corpus_is_survived() {
    for (name, run) in targets::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 8, "{name}: a corpus has more than {} files", files.len());
        for file in files {
            // The name first: a panic below does not say whose it is.
            eprintln!("{}", file.display());
            run(&fs::read(&file).unwrap());
        }
    }
}
