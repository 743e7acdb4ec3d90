//! The numbers that a report comes down to.

use super::data::{Layer, MODEL, Report, Run, Set, TUNED};

/// The geometric mean; `None` of nothing.
pub fn geometric_mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let logs: Vec<f64> = values.into_iter().map(f64::ln).collect();
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

/// A set on a number of threads.
pub struct Figures {
    /// Geometric mean of the layers' GFLOP/s.
    pub gflops: f64,
    /// Milliseconds of all layers, each as often as it occurs.
    pub total_ms: f64,
    /// Operations of all layers, each as often as it occurs, in GFLOP.
    pub gflop: f64,
    /// The layer with the lowest share of the FMA peak, and that share.
    pub slowest: (String, f64),
}

/// A set against a peer on a number of threads; ratios above 1 mean that swath is faster.
pub struct Versus {
    /// Geometric mean of the layers' ratios.
    pub mean: f64,
    /// Ratio of the summed times.
    pub total: f64,
    /// The layer with the lowest ratio, and that ratio.
    pub slowest: (String, f64),
    /// Layers that the peer has a time for.
    pub layers: usize,
}

/// Layers with their runs on the number of threads at this place of the report's list.
pub fn runs(set: &Set, at: usize) -> impl Iterator<Item = (&Layer, &Run)> {
    set.layers.iter().map(move |l| (l, &l.runs[at]))
}

/// Share of the FMA peak of all its cores that a run reaches; 1 is the peak.
pub fn share(report: &Report, layer: &Layer, run: &Run) -> f64 {
    layer.gflops(run.chosen().ms) / (report.machine.peak * run.threads as f64)
}

/// Figures of a set; `None` of an empty one.
pub fn figures(report: &Report, set: &Set, at: usize) -> Option<Figures> {
    let shares = runs(set, at).map(|(l, r)| (l.label(&set.name), share(report, l, r)));
    Some(Figures {
        gflops: geometric_mean(runs(set, at).map(|(l, r)| l.gflops(r.chosen().ms)))?,
        total_ms: runs(set, at).map(|(l, r)| r.chosen().ms * l.times as f64).sum(),
        gflop: set.layers.iter().map(|l| l.flop as f64 * l.times as f64).sum::<f64>() / 1e9,
        slowest: shares.min_by(|a, b| a.1.total_cmp(&b.1))?,
    })
}

/// A set against a peer; `None` where the peer has no time.
pub fn versus(set: &Set, at: usize, peer: &str) -> Option<Versus> {
    let both: Vec<(&Layer, f64, f64)> =
        runs(set, at).filter_map(|(l, r)| Some((l, r.chosen().ms, r.peer(peer)?))).collect();
    let ratios = || both.iter().map(|(_, ours, theirs)| theirs / ours);
    let slowest = both.iter().zip(ratios()).min_by(|a, b| a.1.total_cmp(&b.1))?;
    let sum = |f: fn(&(&Layer, f64, f64)) -> f64| both.iter().map(|b| f(b) * b.0.times as f64).sum::<f64>();
    Some(Versus {
        mean: geometric_mean(ratios())?,
        total: sum(|b| b.2) / sum(|b| b.1),
        slowest: (slowest.0.0.label(&set.name), slowest.1),
        layers: both.len(),
    })
}

/// How good the choices of one way of choosing are.
pub struct Quality {
    /// Who chose.
    pub by: String,
    /// [`Run::loss`] of every problem that it has a choice for.
    losses: Vec<f64>,
}

impl Quality {
    /// Share of problems whose choice takes at most `limit` times the best candidate's time.
    pub fn within(&self, limit: f64) -> f64 {
        self.losses.iter().filter(|l| **l <= limit).count() as f64 / self.losses.len() as f64
    }

    /// How much slower than the best candidate a choice of this kind may be, relative: what the choices of swath are
    /// held to. A prediction may be 7 % off, a measurement 2 %, which is this side of most machines' noise.
    pub fn limit(&self) -> f64 {
        if self.by == TUNED { 1.02 } else { 1.07 }
    }

    /// How many problems it has a choice for.
    pub fn count(&self) -> usize {
        self.losses.len()
    }

    /// `untuned` or `tuned`
    pub fn name(&self) -> &str {
        if self.by == MODEL { "untuned" } else { &self.by }
    }

    /// `untuned choice within 7 % of the best on 92 % of 99 problems`
    pub fn verdict(&self) -> String {
        format!(
            "{} choice within {:.0} % of the best on {:.0} % of {} problems",
            self.name(),
            100.0 * (self.limit() - 1.0),
            100.0 * self.within(self.limit()),
            self.count()
        )
    }
}

/// The quality of every way of choosing, at a number of threads, over all layers; empty for an empty report.
pub fn qualities(report: &Report, at: usize) -> Vec<Quality> {
    let quality = |by: String| {
        let losses = report.layers().filter_map(|(_, l)| l.runs[at].loss(&by)).collect();
        Quality { by, losses }
    };
    report.choosers().into_iter().map(quality).filter(|q| !q.losses.is_empty()).collect()
}

/// The quality of the choices on every number of threads, in a sentence each; none for an empty report.
pub fn verdicts(report: &Report) -> Vec<String> {
    let on = |(at, n): (usize, &usize)| {
        let all: Vec<String> = qualities(report, at).iter().map(Quality::verdict).collect();
        let saved = saved(report, at).map_or(String::new(), |s| {
            format!("; tuning makes a layer {:.1} % faster (geometric mean)", 100.0 * (s - 1.0))
        });
        (!all.is_empty()).then(|| format!("{}: {}{saved}", threads(*n), all.join("; ")))
    };
    report.threads.iter().enumerate().filter_map(on).collect()
}

/// Geometric mean of the untuned choice's time over the tuned one's, where there are both.
fn saved(report: &Report, at: usize) -> Option<f64> {
    let ratio = |run: &Run| Some(run.ms(run.choice(MODEL)?)? / run.ms(run.choice(TUNED)?)?);
    geometric_mean(report.layers().filter_map(|(_, l)| ratio(&l.runs[at])))
}

/// How noisy the machine was: geometric mean, over all runs of the chosen algorithms, of the median round over the
/// smallest one.
pub fn noise(report: &Report) -> Option<f64> {
    let chosen = report.layers().flat_map(|(_, l)| &l.runs).map(Run::chosen);
    geometric_mean(chosen.map(|t| t.median_ms / t.ms))
}

/// Layers, over all sets and numbers of threads, at which swath is slowest against a peer: ratio, peer, threads, label.
pub fn slowest_against(report: &Report, peer: &str, count: usize) -> Vec<(f64, usize, String)> {
    let mut all: Vec<(f64, usize, String)> = Vec::new();
    for (set, layer) in report.layers() {
        for run in &layer.runs {
            if let Some(ms) = run.peer(peer) {
                all.push((ms / run.chosen().ms, run.threads, format!("{set} {}", layer.label(set))));
            }
        }
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.truncate(count);
    all
}

/// `1 thread`, `2 threads`
pub fn threads(n: usize) -> String {
    if n == 1 { "1 thread".into() } else { format!("{n} threads") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::data::Choice;
    use crate::report::samples;

    #[test]
    fn figures_of_a_set() {
        let report = samples::report();
        let f = figures(&report, &report.sets[0], 0).unwrap();
        assert!((f.total_ms - (3.0 * 2.0 + 4.0)).abs() < 1e-9);
        assert!((f.gflops - (100.0f64 * 50.0).sqrt()).abs() < 1e-9);
        assert!((f.slowest.1 - 50.0 / 120.0).abs() < 1e-9 && f.slowest.0.starts_with("2  1x1"));
        assert!((share(&report, &report.sets[0].layers[0], &report.sets[0].layers[0].runs[1]) - 0.694).abs() < 1e-3);
        assert!(figures(&report, &Set { name: String::new(), layers: Vec::new() }, 0).is_none());
    }

    #[test]
    fn ratios_count_only_what_the_peer_has() {
        let mut report = samples::report();
        let layers = &mut report.sets[0].layers;
        layers[0].runs[0].peers[0].ms = 1.0; // half of ours, three times
        let v = versus(&report.sets[0], 0, "oneDNN").unwrap();
        assert!((v.mean - (0.5f64 * 1.25).sqrt()).abs() < 1e-9, "{}", v.mean);
        assert!((v.total - (3.0 * 1.0 + 5.0) / (3.0 * 2.0 + 4.0)).abs() < 1e-9);
        assert!(v.slowest.0.starts_with("1  ") && v.slowest.1 == 0.5 && v.layers == 2);
        report.sets[0].layers[0].runs[0].peers.clear();
        assert_eq!(versus(&report.sets[0], 0, "oneDNN").unwrap().layers, 1);
        assert!(versus(&report.sets[0], 0, "another").is_none());
        assert_eq!(slowest_against(&report, "oneDNN", 2).len(), 2);
    }

    #[test]
    fn quality_is_relative_to_the_best_candidate() {
        let mut report = samples::report();
        report.sets[0].layers[0].runs[0].algorithms[1].ms = 1.9; // the choice takes 2.0
        let q = &qualities(&report, 0)[0];
        assert_eq!((q.by.as_str(), q.losses.len()), ("cost model", 3));
        assert!((q.within(1.02) - 2.0 / 3.0).abs() < 1e-9 && q.within(1.07) == 1.0);
        assert_eq!(q.verdict(), "untuned choice within 7 % of the best on 100 % of 3 problems");
    }

    #[test]
    fn choices_in_a_sentence() {
        let mut report = samples::report();
        let run = &mut report.sets[0].layers[0].runs[0];
        run.algorithms[1].ms = 1.6; // the untuned choice takes 2.0
        run.choices.push(Choice { by: TUNED.into(), algorithm: "gemm".into() });
        assert_eq!(
            verdicts(&report),
            [
                "1 thread: untuned choice within 7 % of the best on 67 % of 3 problems; tuned choice within 2 % of the best \
                 on 100 % of 1 problems; tuning makes a layer 25.0 % faster (geometric mean)",
                "2 threads: untuned choice within 7 % of the best on 100 % of 3 problems",
            ]
        );
        report.sets.clear();
        assert!(verdicts(&report).is_empty());
    }
}
