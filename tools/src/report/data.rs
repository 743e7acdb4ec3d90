//! What a report holds: everything that its page shows, as JSON of a stated version.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use swath::benchdnn::Problem;

use crate::failure::{Failure, Outcome};
use crate::machine::Cache;
use crate::measure::{Bandwidth, TIMES};

/// The version of the JSON that this program writes and reads.
pub const FORMAT: u32 = 1;

/// [`Choice::by`] of the cost model, without any measurement.
pub const MODEL: &str = "cost model";
/// [`Choice::by`] of the tuning tables.
pub const TUNED: &str = "tuned";

/// The measurements of one run of `swath report`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of swath.
    pub swath: String,
    /// RFC 3339, in UTC.
    pub date: String,
    /// The command line that repeats it.
    pub command: String,
    /// Where it ran.
    pub machine: Machine,
    /// How it was timed.
    pub timing: Method,
    /// Numbers of threads, ascending; every layer has a run for each.
    pub threads: Vec<usize>,
    /// Problems by set.
    pub sets: Vec<Set>,
}

/// The machine as measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Name, where the system tells.
    pub cpu: Option<String>,
    /// `x86_64`
    pub architecture: String,
    /// Cores that the program may use.
    pub cores: usize,
    /// Instruction-set level that kernels were taken from.
    pub level: String,
    /// Data caches of a core, smallest first.
    pub caches: Vec<Cache>,
    /// GFLOP/s of multiply-adds on one core's registers.
    pub peak: f64,
    /// What one core reads, nearest first.
    pub bandwidths: Vec<Bandwidth>,
}

/// How the times were taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    /// Rounds of a pass; each times all algorithms of a layer, one after the other.
    pub rounds: usize,
    /// Passes over a set; with a peer's command, peer and swath take turns.
    pub passes: usize,
    /// Rounds were few and short.
    pub brief: bool,
    /// Weights came from memory.
    pub cold: bool,
    /// Rounding error that was acceptable: `exact`, `default` or `fast`.
    pub accuracy: String,
}

/// Layers that belong together: a network, or a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Set {
    /// `resnet50`
    pub name: String,
    /// In the list's order.
    pub layers: Vec<Layer>,
}

/// One convolution.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Layer {
    /// What follows the `n` of its problem; may be empty.
    pub name: String,
    /// In benchdnn's notation, as it was given.
    pub problem: String,
    /// How often the network has it.
    pub times: usize,
    /// Operations, counting every tap, also those in the padding.
    pub flop: u64,
    /// Input, weights and output, each moved once.
    pub bytes: u64,
    /// One for each of [`Report::threads`], in that order.
    pub runs: Vec<Run>,
}

/// A layer on a number of threads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The number.
    pub threads: usize,
    /// What each way of choosing chose; the last is what a plan does by default.
    pub choices: Vec<Choice>,
    /// Every algorithm that supports the layer.
    pub algorithms: Vec<Time>,
    /// Other libraries.
    pub peers: Vec<PeerTime>,
}

/// The choice of an algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Who chose: [`MODEL`] or [`TUNED`].
    pub by: String,
    /// What: a name in [`Run::algorithms`].
    pub algorithm: String,
}

/// What an algorithm takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Time {
    /// A name of `ALGOS`.
    pub algorithm: String,
    /// Milliseconds: the smallest mean of all rounds.
    pub ms: f64,
    /// The median mean of the rounds of one pass, which shows how noisy the machine was.
    pub median_ms: f64,
}

/// What another library takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerTime {
    /// Name of the library.
    pub peer: String,
    /// What it calls its implementation.
    pub implementation: String,
    /// Milliseconds: the smallest of all its runs.
    pub ms: f64,
}

impl Run {
    /// Milliseconds of an algorithm.
    pub fn ms(&self, algorithm: &str) -> Option<f64> {
        self.algorithms.iter().find(|a| a.algorithm == algorithm).map(|a| a.ms)
    }

    /// The algorithm that one way of choosing chose, if it had a say.
    pub fn choice(&self, by: &str) -> Option<&str> {
        self.choices.iter().find(|c| c.by == by).map(|c| c.algorithm.as_str())
    }

    /// Time of that choice over the fastest algorithm's: 1 is the best.
    pub fn loss(&self, by: &str) -> Option<f64> {
        Some(self.ms(self.choice(by)?)? / self.best().ms)
    }

    /// The algorithm that a plan takes by default.
    pub fn chosen(&self) -> &Time {
        let name = self.choices.last().map_or("", |c| &c.algorithm);
        let found = self.algorithms.iter().find(|a| a.algorithm == name);
        found.expect("checked when the report was made or read")
    }

    /// The fastest algorithm.
    pub fn best(&self) -> &Time {
        let best = self.algorithms.iter().min_by(|a, b| a.ms.total_cmp(&b.ms));
        best.expect("checked when the report was made or read")
    }

    /// Milliseconds of a peer.
    pub fn peer(&self, name: &str) -> Option<f64> {
        self.peers.iter().find(|p| p.peer == name).map(|p| p.ms)
    }

    /// Keeps a peer's time if it is the first or the smallest.
    pub fn keep(&mut self, time: PeerTime) {
        match self.peers.iter_mut().find(|p| p.peer == time.peer) {
            Some(known) if known.ms <= time.ms => {}
            Some(known) => *known = time,
            None => self.peers.push(time),
        }
    }
}

impl Layer {
    /// Adds a run, keeping the smaller times where there is one for its threads.
    pub fn keep_fastest(&mut self, new: Run) {
        let known = self.run_mut(new.threads);
        if known.algorithms.is_empty() {
            (known.choices, known.algorithms) = (new.choices, new.algorithms);
            return;
        }
        for (known, new) in known.algorithms.iter_mut().zip(new.algorithms) {
            known.ms = known.ms.min(new.ms);
            known.median_ms = known.median_ms.min(new.median_ms);
        }
    }

    /// The run for a number of threads, made if there is none: a peer's times come first.
    pub fn run_mut(&mut self, threads: usize) -> &mut Run {
        let at = match self.runs.iter().position(|r| r.threads == threads) {
            Some(at) => at,
            None => {
                self.runs.push(Run { threads, choices: Vec::new(), algorithms: Vec::new(), peers: Vec::new() });
                self.runs.len() - 1
            }
        };
        &mut self.runs[at]
    }

    /// GFLOP/s at so many milliseconds.
    pub fn gflops(&self, ms: f64) -> f64 {
        self.flop as f64 / ms / 1e6
    }

    /// Operations per byte that has to move.
    pub fn intensity(&self) -> f64 {
        self.flop as f64 / self.bytes as f64
    }

    /// The name without its set's, or nothing: `3` of `resnet50:3`.
    pub fn short_name(&self, set: &str) -> String {
        let name = self.name.strip_prefix(set).and_then(|n| n.strip_prefix(':')).unwrap_or(&self.name);
        name.into()
    }

    /// Its geometry for people: `3x3 64-128, 28x28 /2`.
    pub fn geometry(&self) -> String {
        let Ok(problem) = self.problem.parse::<Problem>() else { return self.problem.clone() };
        let s = &problem.shape;
        let pair = |a: usize, b: usize| if a == b { a.to_string() } else { format!("{a}x{b}") };
        let mut text = format!("{}x{} {}\u{2192}{}, {}x{}", s.kh, s.kw, s.ic, s.oc, s.ih, s.iw);
        if (s.sh, s.sw) != (1, 1) {
            text += &format!(" /{}", pair(s.sh, s.sw));
        }
        if (s.dh, s.dw) != (1, 1) {
            text += &format!(" dil {}", pair(s.dh, s.dw));
        }
        if s.is_depthwise() {
            text += " dw";
        } else if s.groups > 1 {
            text += &format!(" g{}", s.groups);
        }
        if s.n > 1 {
            text += &format!(" n{}", s.n);
        }
        text
    }

    /// Its label, and how often it occurs.
    pub fn label_and_times(&self, set: &str) -> String {
        let times = if self.times > 1 { format!("  \u{d7}{}", self.times) } else { String::new() };
        self.label(set) + &times
    }

    /// Name and geometry.
    pub fn label(&self, set: &str) -> String {
        let name = self.short_name(set);
        if name.is_empty() { self.geometry() } else { format!("{name}  {}", self.geometry()) }
    }
}

impl Report {
    /// All layers, each with the name of its set.
    pub fn layers(&self) -> impl Iterator<Item = (&str, &Layer)> {
        self.sets.iter().flat_map(|s| s.layers.iter().map(|l| (s.name.as_str(), l)))
    }

    /// Names of the algorithms that occur, in the order in which they first do.
    pub fn algorithms(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for time in self.layers().flat_map(|(_, l)| &l.runs).flat_map(|r| &r.algorithms) {
            if !names.contains(&time.algorithm) {
                names.push(time.algorithm.clone());
            }
        }
        names
    }

    /// Names of the peers that occur.
    pub fn peers(&self) -> Vec<String> {
        let names = self.layers().flat_map(|(_, l)| &l.runs).flat_map(|r| &r.peers).map(|p| p.peer.clone());
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Who chooses, in the order of [`Run::choices`].
    pub fn choosers(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for choice in self.layers().flat_map(|(_, l)| &l.runs).flat_map(|r| &r.choices) {
            if !names.contains(&choice.by) {
                names.push(choice.by.clone());
            }
        }
        names
    }

    /// Whether a tuning table had a say.
    pub fn is_tuned(&self) -> bool {
        self.choosers().iter().any(|by| by == TUNED)
    }

    /// Reads a report.
    pub fn read(path: &Path) -> Outcome<Self> {
        let text = crate::files::read_text(path)?;
        Self::parse(&text).map_err(|why| Failure::new(format_args!("{}: {why}", path.display())))
    }

    /// Parses a report, and checks what the other files of this module rely on.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| format!("no JSON: {e}"))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            None => return Err("no report of `swath report --json`: it has no \"format\"".into()),
            Some(f) if f == u64::from(FORMAT) => {}
            Some(f) => return Err(format!("format {f}; this version of swath reads format {FORMAT}")),
        }
        let report: Report = serde_json::from_value(value).map_err(|e| format!("no report: {e}"))?;
        report.check()?;
        Ok(report)
    }

    fn check(&self) -> Result<(), String> {
        if self.threads.first().is_none_or(|&t| t == 0) || !self.threads.is_sorted_by(|a, b| a < b) {
            return Err(format!("threads must be positive and ascending, not {:?}", self.threads));
        }
        let positive = |what: &str, v: f64| {
            if TIMES.contains(&v) { Ok(()) } else { Err(format!("{what} must lie in {TIMES:?}, not {v}")) }
        };
        positive("the peak", self.machine.peak)?;
        for b in &self.machine.bandwidths {
            positive(&format!("the bandwidth of {}", b.from), b.gb_per_s)?;
        }
        for (set, layer) in self.layers() {
            let at = |why: String| format!("{set}, {}: {why}", layer.problem);
            if layer.flop == 0 || layer.bytes == 0 {
                return Err(at(format!("flop and bytes must be positive, not {} and {}", layer.flop, layer.bytes)));
            }
            let threads: Vec<usize> = layer.runs.iter().map(|r| r.threads).collect();
            if threads != self.threads {
                return Err(at(format!("runs on {threads:?} threads, the report on {:?}", self.threads)));
            }
            for run in &layer.runs {
                for t in &run.algorithms {
                    positive(&t.algorithm, t.ms).and(positive(&t.algorithm, t.median_ms)).map_err(at)?;
                }
                for p in &run.peers {
                    positive(&p.peer, p.ms).map_err(at)?;
                }
                if run.choices.is_empty() {
                    return Err(at("no algorithm was chosen".into()));
                }
                if let Some(c) = run.choices.iter().find(|c| run.ms(&c.algorithm).is_none()) {
                    return Err(at(format!("the {} chose {}, which was not timed", c.by, c.algorithm)));
                }
            }
        }
        Ok(())
    }

    /// As JSON.
    pub fn to_json(&self) -> Outcome<String> {
        serde_json::to_string_pretty(self).map(|t| t + "\n").map_err(Failure::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn a_report_survives_its_json() {
        let report = samples::report();
        let text = report.to_json().unwrap();
        assert_eq!(Report::parse(&text).unwrap().to_json().unwrap(), text);
    }

    #[test]
    fn what_is_no_report_is_refused_in_one_line() {
        let good = samples::report().to_json().unwrap();
        for (text, words) in [
            ("", "no JSON"),
            ("[1]", "it has no \"format\""),
            ("{\"format\": 2}", "format 2; this version of swath reads format 1"),
            ("{\"format\": 1}", "missing field"),
            (&good.replace("\"threads\": 2", "\"threads\": 3"), "the report on [1, 2]"),
            (&good.replacen("\"ms\": 2.0", "\"ms\": -1.0", 1), "must lie in 1e-9..=1000000000000.0, not -1"),
            (&good.replacen("\"ms\": 2.0", "\"ms\": 1e300", 1), "must lie in"),
            (&good.replacen("\"peak\": 120.0", "\"peak\": 5e-324", 1), "the peak must lie in"),
            (&good.replacen("\"flop\": ", "\"flop\": 0, \"not\": ", 1), "must be positive, not 0"),
            (&good.replacen("\"algorithm\": \"direct\"", "\"algorithm\": \"magic\"", 1), "which was not timed"),
        ] {
            let why = Report::parse(text).unwrap_err();
            assert!(why.contains(words) && !why.contains('\n'), "{words} in {why}");
        }
    }

    #[test]
    fn labels_are_for_people() {
        let layer = |name: &str, problem: &str| Layer {
            name: name.into(),
            problem: problem.into(),
            ..samples::layer("x", "ic1ih1oc1kh1", 1.0)
        };
        let long = layer("net:3", "g2mb4ic64ih28iw14oc128kh3kw5sh2sw1ph2dh1");
        assert_eq!(long.label("net"), "3  3x5 64\u{2192}128, 28x14 /2x1 dil 2 g2 n4");
        assert_eq!(layer("", "g16ic16ih7oc16kh3").label("net"), "3x3 16\u{2192}16, 7x7 dw");
        assert_eq!(layer("other:1", "nonsense").label("net"), "other:1  nonsense");
    }
}
