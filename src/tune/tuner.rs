//! The tuner: which candidates of a convolution are timed, and what becomes of their times.

use std::time::{Duration, Instant};

use swath_kernels::shape::ConvShape;

use super::race::{Rules, race};
use super::stopwatch::Bench;
use crate::algo::Accuracy;
use crate::conv::{Candidate, ConvPlan, Options};
use crate::error::{Error, Result};
use crate::tuning::{Conditions, Convolution, Entry, Figures, Measured, Tuning};

/// How hard a tuner tries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Candidates are timed that the cost model predicts to take at most so many times what the best one takes.
    /// Infinity times all that support the shape.
    pub factor: f64,
    /// Of those, so many at most, for each accuracy that a plan may ask for.
    pub candidates: usize,
    /// Time of a candidate's warm runs in a round, and about that of its cold ones; a single run may take longer.
    pub slice: Duration,
    /// Bytes of packed weights, over all candidates of a convolution, that are copied for cold runs, at most.
    pub memory: usize,
    /// When a candidate is out, when the race is over, and how warm and cold times become one.
    pub rules: Rules,
}

impl Default for Effort {
    fn default() -> Self {
        let slice = Duration::from_millis(4);
        Self { factor: 2.0, candidates: 5, slice, memory: 512 << 20, rules: Rules::default() }
    }
}

impl Effort {
    /// Times everything that supports a shape.
    pub fn all() -> Self {
        Self { factor: f64::INFINITY, candidates: usize::MAX, ..Self::default() }
    }
}

/// What a tuner measured of one convolution.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// The conditions that it holds under.
    pub conditions: Conditions,
    /// The convolution.
    pub convolution: Convolution,
    /// The candidates with their times.
    pub entry: Entry,
    /// What plans would choose without it.
    pub modelled: &'static str,
    /// Rounds that the longest-timed candidate ran.
    pub rounds: usize,
}

/// Times the leading candidates of convolutions, interleaved, with warm and with cold weights.
///
/// In every round each candidate still in the race runs for a few milliseconds with its weights in cache, and about as
/// long with copies of them that come from memory; medians over the rounds count. See [`Rules`] for who is out when.
///
/// ```
/// use swath::{Accuracy, ConvPlan, ConvShape, Options, tune::{Tuner, Tuning, TuningTable}};
/// let shape = ConvShape::builder([1, 16, 9, 9], [16, 16, 3, 3]).padding(1).build()?;
/// let options = Options { threads: Some(1), accuracy: Accuracy::Fast, ..Options::blocked() };
/// let tuned = Tuner::default().tune(&shape, &options, None)?;
/// let winner = tuned.entry.winner().algo.clone();
///
/// let mut table = TuningTable::new("measured just now");
/// table.insert(tuned.conditions, tuned.convolution, tuned.entry);
/// let plan = ConvPlan::new(&shape, &Options { tuning: Tuning::Table(table.into()), ..options })?;
/// assert_eq!(plan.algo(), winner);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tuner {
    /// How hard it tries.
    pub effort: Effort,
    /// Time for all convolutions of [`Tuner::run`] together; the last one begun still gets
    /// [`Rules::min_rounds`] rounds.
    pub budget: Option<Duration>,
    /// Whether [`Tuner::run`] measures again what the file knows.
    pub again: bool,
    /// Whether, of a candidate that the file knows already, the faster time counts. For runs minutes apart on a machine
    /// that others share, whose cores are slow for minutes.
    pub keep_fastest: bool,
}

impl Tuner {
    /// Times one convolution where plans with these options would run: on at most `options.threads` threads of
    /// where this is called ([`par`](crate::par)). Their `algo`, `tuning` and `accuracy` do not matter: the candidates of every accuracy are
    /// timed, so that the entry serves all plans. No round begins after `until`, except the first [`Rules::min_rounds`].
    ///
    /// # Errors
    /// For a level that this machine lacks.
    pub fn tune(&self, shape: &ConvShape, options: &Options, until: Option<Instant>) -> Result<Tuned> {
        let options = Options { algo: None, tuning: Tuning::Off, ..options.clone() };
        let plan = ConvPlan::new(shape, &options)?;
        let mut algos: Vec<&'static str> = Vec::new();
        let mut leagues = Vec::new();
        for (league, accuracy) in ACCURACIES.into_iter().enumerate() {
            let plan = ConvPlan::new(shape, &Options { accuracy, ..options.clone() })?;
            for algo in leading(plan.candidates(), &self.effort) {
                // Strictest first: a candidate is in the league of the first accuracy that allows it.
                if !algos.contains(&algo) {
                    algos.push(algo);
                    leagues.push(league);
                }
            }
        }
        let options = Options { accuracy: Accuracy::Fast, ..options };
        let Effort { slice, memory, ref rules, .. } = self.effort;
        let mut bench = Bench::new(shape, &options, &algos, slice, memory)?;
        let late = || until.is_some_and(|t| Instant::now() >= t);
        let tracks = race(&leagues, rules, late, |i, first| bench.sample(i, first))?;
        let measured = algos.iter().zip(&tracks).filter_map(|(algo, track)| {
            let s = track.medians();
            let figures = Figures::new(rules.score(s), s.warm, s.cold)?;
            Some(Measured { algo: algo.to_string(), figures })
        });
        let entry = Entry::new(measured.collect());
        let entry =
            entry.ok_or_else(|| Error::Algo { name: plan.algo().into(), why: "its time is infinite".into() })?;
        Ok(Tuned {
            conditions: Conditions::of(plan.level(), &options),
            convolution: Convolution::new(shape, &options),
            entry,
            modelled: plan.algo(),
            rounds: tracks.iter().map(|t| t.rounds()).max().unwrap_or(0),
        })
    }
}

/// What plans may ask for, the strictest first: each allows all that those before it allow.
pub(super) const ACCURACIES: [Accuracy; 3] = [Accuracy::Exact, Accuracy::Default, Accuracy::Fast];

/// Names of the candidates to time, the best predicted first, which is the plan's modelled choice.
fn leading(candidates: &[Candidate], effort: &Effort) -> Vec<&'static str> {
    let mut supported: Vec<(f64, &'static str)> =
        candidates.iter().filter_map(|c| Some((*c.predicted.as_ref().ok()?, c.algo))).collect();
    // Stable, so that ties stay in the order of the table, as in plans.
    supported.sort_by(|a, b| a.0.total_cmp(&b.0));
    let limit = supported.first().map_or(0.0, |(ms, _)| ms * effort.factor);
    let near = |&(at, &(ms, _)): &(usize, &(f64, &str))| at == 0 || effort.factor == f64::INFINITY || ms <= limit;
    supported.iter().enumerate().filter(near).take(effort.candidates.max(1)).map(|(_, &(_, algo))| algo).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(predicted: &[Option<f64>]) -> Vec<Candidate> {
        let names = ["a", "b", "c", "d"];
        let candidate = |(algo, ms): (_, &Option<f64>)| Candidate {
            algo,
            predicted: ms.ok_or_else(|| "no".to_string()),
            measured: None,
        };
        names.into_iter().zip(predicted).map(candidate).collect()
    }

    #[test]
    fn only_leading_candidates_are_timed() {
        let lead = |predicted: &[Option<f64>], effort: &Effort| leading(&candidates(predicted), effort);
        let default = Effort::default();
        assert_eq!(lead(&[Some(2.1), Some(1.0), None, Some(1.9)], &default), ["b", "d"]);
        assert_eq!(lead(&[Some(2.1), Some(1.0), None, Some(1.9)], &Effort::all()), ["b", "d", "a"]);
        assert_eq!(lead(&[Some(1.0); 4], &Effort { candidates: 2, ..default }), ["a", "b"], "as the table orders them");
        assert_eq!(lead(&[Some(f64::INFINITY), None], &default), ["a"], "what a plan would take is always timed");
        assert_eq!(lead(&[Some(1.0), Some(f64::INFINITY)], &default), ["a"]);
        assert_eq!(lead(&[Some(1.0), Some(f64::INFINITY)], &Effort::all()), ["a", "b"]);
    }
}
