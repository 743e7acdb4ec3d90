//! Small made-up reports for tests.

use super::data::*;
use crate::machine::Cache;
use crate::measure::Bandwidth;

/// A layer that takes `ms` on one thread with the chosen algorithm, 0.6 of it on two, and 1.5 as much with another.
pub fn layer(name: &str, problem: &str, ms: f64) -> Layer {
    let time = |algorithm: &str, ms: f64| Time { algorithm: algorithm.into(), ms, median_ms: ms * 1.01 };
    let run = |threads: usize, ms: f64| Run {
        threads,
        choices: vec![Choice { by: MODEL.into(), algorithm: "direct".into() }],
        algorithms: vec![time("direct", ms), time("gemm", ms * 1.5)],
        peers: vec![PeerTime { peer: "oneDNN".into(), implementation: "jit".into(), ms: ms * 1.25 }],
    };
    Layer {
        name: name.into(),
        problem: problem.into(),
        times: 1,
        flop: 200_000_000,
        bytes: 4_000_000,
        runs: vec![run(1, ms), run(2, ms * 0.6)],
    }
}

/// Two sets; the names hold what XML wants escaped.
pub fn report() -> Report {
    let bandwidth = |from: &str, gb_per_s: f64| Bandwidth { from: from.into(), bytes: 1 << 20, gb_per_s };
    Report {
        format: FORMAT,
        swath: "0.1.0".into(),
        date: "2026-11-25T04:00:00Z".into(),
        command: "swath report --threads 1,2".into(),
        machine: Machine {
            cpu: Some("A <CPU> & \"more\"".into()),
            architecture: "x86_64".into(),
            cores: 2,
            level: "avx512".into(),
            caches: vec![Cache { level: 2, bytes: 1 << 20, line: 64, shared_by: 1 }],
            peak: 120.0,
            bandwidths: vec![bandwidth("L2", 100.0), bandwidth("L3", 80.0), bandwidth("memory", 20.0)],
        },
        timing: Method { rounds: 7, passes: 1, brief: false, cold: false, accuracy: "default".into() },
        threads: vec![1, 2],
        sets: vec![
            Set {
                name: "resnet50".into(),
                layers: vec![
                    Layer { times: 3, ..layer("resnet50:1", "ic64ih56oc64kh3ph1nresnet50:1", 2.0) },
                    layer("resnet50:2", "ic64ih56oc256kh1nresnet50:2", 4.0),
                ],
            },
            Set { name: "a <set> & \"more\"".into(), layers: vec![layer("<&\"'", "ic16ih9oc16kh3n<&\"'", 3.0)] },
        ],
    }
}

/// The layers of [`report`] that `keep` keeps, and no empty sets.
pub fn filtered(keep: impl Fn(&Layer) -> bool) -> Report {
    let mut report = report();
    for set in &mut report.sets {
        set.layers.retain(&keep);
    }
    report.sets.retain(|s| !s.layers.is_empty());
    report
}
