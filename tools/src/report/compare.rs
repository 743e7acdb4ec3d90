//! A report against an older one.

use super::data::{Layer, Report, Run};
use super::figures;
use crate::table::{Align, Table};

/// What became of a layer on a number of threads.
pub struct Change {
    /// Set and layer.
    pub label: String,
    /// Number of threads.
    pub threads: usize,
    /// Milliseconds then, and now.
    pub ms: [f64; 2],
    /// Chosen algorithm then, and now.
    pub algorithm: [String; 2],
}

impl Change {
    /// Time now over time then: above 1 is slower.
    pub fn ratio(&self) -> f64 {
        self.ms[1] / self.ms[0]
    }

    /// `direct`, or `direct -> gemm` where the choice changed.
    pub fn algorithms(&self) -> String {
        let [old, new] = &self.algorithm;
        if old == new { new.clone() } else { format!("{old} \u{2192} {new}") }
    }
}

/// The comparison of two reports.
pub struct Comparison {
    /// When the older one was measured, and by which version of swath.
    pub old: String,
    /// Relative change beyond which a layer counts as changed: 0.07 is 7 %.
    pub threshold: f64,
    /// What makes the times hard to compare.
    pub warnings: Vec<String>,
    /// All layers that both have, most slowed down first.
    pub changes: Vec<Change>,
    /// Layers, counted for each number of threads, that only the older or only the newer one has.
    pub only: [usize; 2],
}

impl Comparison {
    /// Compares; `threshold` is relative.
    pub fn new(old: &Report, new: &Report, threshold: f64) -> Self {
        let mut changes = Vec::new();
        let mut only_new = 0;
        // Problems may stand in a list twice: each counterpart is taken once.
        let mut left: Vec<Option<(&str, &Layer, &Run)>> =
            old.layers().flat_map(|(s, l)| l.runs.iter().map(move |r| Some((s, l, r)))).collect();
        for (set, layer) in new.layers() {
            for run in &layer.runs {
                let same = |o: &Option<(&str, &Layer, &Run)>| {
                    o.is_some_and(|(s, l, r)| s == set && l.problem == layer.problem && r.threads == run.threads)
                };
                let Some((_, _, before)) = left.iter_mut().find(|o| same(o)).and_then(Option::take) else {
                    only_new += 1;
                    continue;
                };
                let (before, now) = (before.chosen(), run.chosen());
                changes.push(Change {
                    label: format!("{set} {}", layer.label(set)),
                    threads: run.threads,
                    ms: [before.ms, now.ms],
                    algorithm: [before.algorithm.clone(), now.algorithm.clone()],
                });
            }
        }
        changes.sort_by(|a, b| b.ratio().total_cmp(&a.ratio()));
        Comparison {
            old: format!("{}, swath {}", old.date, old.swath),
            threshold,
            warnings: warnings(old, new),
            changes,
            only: [left.iter().flatten().count(), only_new],
        }
    }

    /// Layers that take more than the threshold longer, the worst first.
    pub fn slower(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|c| c.ratio() > 1.0 + self.threshold)
    }

    /// Layers that are faster by more than the threshold (old time over new), the most first.
    pub fn faster(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().rev().filter(|c| 1.0 / c.ratio() > 1.0 + self.threshold)
    }

    /// Geometric mean of old time over new: above 1, the newer one is faster.
    pub fn speedup(&self) -> Option<f64> {
        figures::geometric_mean(self.changes.iter().map(|c| 1.0 / c.ratio()))
    }

    /// The outcome in one sentence.
    pub fn verdict(&self) -> String {
        let percent = 100.0 * self.threshold;
        let Some(speedup) = self.speedup() else { return "No layer is in both reports.".into() };
        let [gone, new] = self.only;
        let mut text = format!(
            "Of {} measurements in both reports, {} are slower and {} faster by more than {percent:.0} %; speed changed by a \
             factor of {speedup:.3} (geometric mean).",
            self.changes.len(),
            self.slower().count(),
            self.faster().count(),
        );
        if gone + new > 0 {
            text += &format!(" {gone} are in the older report only, {new} in the newer one only.");
        }
        text
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut out = format!("\nCompared with {}\n", self.old);
        for w in &self.warnings {
            out += &format!("warning: {w}\n");
        }
        out += &self.verdict();
        out.push('\n');
        let mut t = Table::new(&[
            ("", Align::Left),
            ("layer", Align::Left),
            ("threads", Align::Right),
            ("ms before", Align::Right),
            ("ms now", Align::Right),
            ("speed", Align::Right),
            ("algorithm", Align::Left),
        ]);
        let marked = self.slower().map(|c| ("slower", c)).chain(self.faster().map(|c| ("faster", c)));
        let mut empty = true;
        for (mark, c) in marked {
            empty = false;
            t.row(vec![
                mark.into(),
                c.label.clone(),
                c.threads.to_string(),
                format!("{:.4}", c.ms[0]),
                format!("{:.4}", c.ms[1]),
                format!("x{:.2}", 1.0 / c.ratio()),
                c.algorithms(),
            ]);
        }
        if !empty {
            out += &t.render("");
        }
        out
    }
}

/// Why the times of two reports are hard to compare.
fn warnings(old: &Report, new: &Report) -> Vec<String> {
    let (a, b) = (&old.machine, &new.machine);
    let cpu = |m: &super::data::Machine| format!("{}, {}", m.cpu.as_deref().unwrap_or("unknown CPU"), m.architecture);
    let weights = |r: &Report| if r.timing.cold { "cold" } else { "warm" };
    let mut list = Vec::new();
    let mut differ = |what: &str, old: String, new: String| {
        if old != new {
            list.push(format!("{what} differs: {old} then, {new} now; times are not comparable"));
        }
    };
    differ("the machine", cpu(a), cpu(b));
    differ("the level", a.level.clone(), b.level.clone());
    differ("the number of cores", a.cores.to_string(), b.cores.to_string());
    differ("the state of the weights", weights(old).into(), weights(new).into());
    differ("the accuracy", old.timing.accuracy.clone(), new.timing.accuracy.clone());
    if (a.peak / b.peak - 1.0).abs() > 0.03 {
        list.push(format!(
            "the FMA peak differs: {:.1} GFLOP/s then, {:.1} now; the clock alone explains as much of the changes",
            a.peak, b.peak
        ));
    }
    if old.timing.brief || new.timing.brief {
        list.push("measured with --brief: single layers may be off by more than the threshold".into());
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn changes_beyond_the_threshold_are_marked() {
        let old = samples::report();
        let mut new = samples::report();
        assert_eq!(Comparison::new(&old, &new, 0.07).slower().count(), 0);
        let layers = &mut new.sets[0].layers;
        layers[0].runs[0].algorithms[0].ms = 2.0 * 1.08; // slower
        layers[0].runs[1].algorithms[0].ms = 1.2 * 1.06; // noise
        layers[1].runs[0].algorithms[0].ms = 3.0; // faster
        layers[1].runs[1].choices[0].algorithm = "gemm".into(); // slower, by its choice
        let c = Comparison::new(&old, &new, 0.07);
        let slower: Vec<(usize, String)> = c.slower().map(|c| (c.threads, c.algorithms())).collect();
        assert_eq!(slower, [(2, "direct \u{2192} gemm".into()), (1, "direct".into())]);
        assert_eq!(c.faster().map(|c| c.ms).collect::<Vec<_>>(), [[4.0, 3.0]]);
        assert!(c.warnings.is_empty() && c.only == [0, 0]);
        let text = c.text();
        for words in ["2 are slower and 1 faster by more than 7 %", "x1.33", "x0.67", "Of 6"] {
            assert!(text.contains(words), "{words} in {text}");
        }
    }

    #[test]
    fn twins_and_strangers() {
        let mut old = samples::report();
        let twin = old.sets[0].layers[0].clone();
        old.sets[0].layers.push(twin);
        let mut new = old.clone();
        assert_eq!(Comparison::new(&old, &new, 0.07).only, [0, 0]);
        new.sets[0].layers.remove(0);
        new.sets[1].name = "renamed".into();
        let c = Comparison::new(&old, &new, 0.07);
        assert_eq!((c.only, c.changes.len()), ([4, 2], 4));
        new.sets.clear();
        assert_eq!(Comparison::new(&old, &new, 0.07).verdict(), "No layer is in both reports.");
    }

    #[test]
    fn another_machine_is_a_warning() {
        let (old, mut new) = (samples::report(), samples::report());
        new.machine.cpu = Some("another".into());
        new.machine.level = "avx2".into();
        new.machine.peak = 100.0;
        new.timing.cold = true;
        new.timing.brief = true;
        let text = Comparison::new(&old, &new, 0.07).text();
        for words in
            ["the machine differs", "the level differs: avx512 then, avx2 now", "FMA peak", "cold now", "--brief"]
        {
            assert!(text.contains(&format!("warning: {words}")) || text.contains(words), "{words} in {text}");
        }
    }
}
