//! Replays the corpus of the fuzz target of reports, `fuzz/corpus/report`.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/report.rs"]
mod report;

#[test]
fn every_report_of_the_corpus_is_survived() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/report");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "a corpus has more than {} files", files.len());
    for file in files {
        eprintln!("{}", file.display());
        report::run(&fs::read(&file).unwrap());
    }
}
