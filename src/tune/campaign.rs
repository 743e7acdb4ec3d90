//! Many convolutions, one after the other, into a file.

use std::time::{Duration, Instant};

use swath_kernels::shape::ConvShape;

use super::tuner::{ACCURACIES, Tuned, Tuner};
use crate::conv::{ConvPlan, Options};
use crate::error::Result;
use crate::tuning::{Conditions, Convolution, Entry, Tuning, TuningFile, TuningTable};

/// A convolution to tune.
#[derive(Clone, Debug)]
pub struct Job {
    /// What people call it.
    pub name: String,
    /// Its geometry.
    pub shape: ConvShape,
    /// Options of the plans that it is for.
    pub options: Options,
}

/// What [`Tuner::run`] tells while it runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// A job begins.
    Begins(&'a Job),
    /// A job is over, and what it measured is in the file.
    Ends(&'a Job, Outcome<'a>),
}

/// How a job ended.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// Measured.
    Tuned(&'a Tuned),
    /// The file has had it already.
    Known(&'a Entry),
    /// The budget was used up before it.
    Skipped,
}

/// How [`Tuner::run`] went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Jobs that were measured.
    pub tuned: usize,
    /// Jobs that the file has had already, or that equal an earlier one.
    pub known: usize,
    /// Jobs that the budget did not reach.
    pub skipped: usize,
}

impl Tuner {
    /// Tunes jobs in turn, on the threads of where this is called ([`par`](crate::par)), and merges each into the file as soon as it is
    /// measured: a program that is killed loses at most the job at hand.
    ///
    /// # Errors
    /// If the file cannot be written, which is tried before anything is measured, and for a level that this machine
    /// lacks.
    pub fn run(&self, jobs: &[Job], file: &TuningFile, mut tell: impl FnMut(Event<'_>)) -> Result<Summary> {
        let start = Instant::now();
        file.merge(&TuningTable::default())?;
        let mut known = if self.again { TuningTable::default() } else { file.read() };
        let mut summary = Summary::default();
        for (i, job) in jobs.iter().enumerate() {
            tell(Event::Begins(job));
            let (conditions, convolution, modelled) = identify(job)?;
            let entry = known.get(&conditions, &convolution);
            let entry = entry.filter(|e| modelled.iter().all(|algo| e.figures(algo).is_some()));
            if let Some(entry) = entry {
                summary.known += 1;
                tell(Event::Ends(job, Outcome::Known(entry)));
                continue;
            }
            let left = self.budget.map(|b| b.saturating_sub(start.elapsed()));
            if left == Some(Duration::ZERO) {
                summary.skipped += 1;
                tell(Event::Ends(job, Outcome::Skipped));
                continue;
            }
            // An equal share of what is left: jobs that are decided early leave theirs to the others.
            let until = left.map(|left| Instant::now() + left / (jobs.len() - i) as u32);
            let mut tuned = self.tune(&job.shape, &job.options, until)?;
            if self.keep_fastest
                && let Some(before) = file.read().get(&conditions, &convolution)
            {
                tuned.entry = before.fastest(&tuned.entry);
            }
            let mut table = TuningTable::default();
            table.insert(conditions, convolution, tuned.entry.clone());
            file.merge(&table)?;
            known.merge(&table);
            summary.tuned += 1;
            tell(Event::Ends(job, Outcome::Tuned(&tuned)));
        }
        Ok(summary)
    }
}

/// A job's key, and the algorithms that untuned plans have, one for each accuracy.
fn identify(job: &Job) -> Result<(Conditions, Convolution, [&'static str; ACCURACIES.len()])> {
    let untuned = Options { algo: None, tuning: Tuning::Off, ..job.options.clone() };
    let plan = ConvPlan::new(&job.shape, &untuned)?;
    let mut modelled = [plan.algo(); ACCURACIES.len()];
    for (algo, accuracy) in modelled.iter_mut().zip(ACCURACIES) {
        *algo = ConvPlan::new(&job.shape, &Options { accuracy, ..untuned.clone() })?.algo();
    }
    let conditions = Conditions::of(plan.level(), &job.options);
    Ok((conditions, Convolution::new(&job.shape, &job.options), modelled))
}
