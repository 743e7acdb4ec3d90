//! Tuning: measured choices in place of modelled ones.
//!
//! A [`Tuner`] times the candidates of the cost model on this machine; a [`TuningTable`] holds what it measured, and a
//! [`TuningFile`] keeps that from run to run. Plans read tables and never time anything.
//!
//! A plan takes, in this order, what [`Options::algo`](crate::Options) asks for; the fastest candidate of its entry in
//! a table ([`Options::tuning`](crate::Options)): the user's file, then the table that ships with this crate; the cost
//! model's choice. An entry counts only for the same CPU, level, number of threads, set of kernels ([`kernel_set`]),
//! geometry and layouts, and only if it has measured what the cost model would choose: then the tuned choice was the
//! faster one when they met.
//!
//! One plan gives the same bits on any number of threads. Since tables are keyed by threads, two plans for different
//! numbers of threads may get different algorithms from one, and so different roundings; [`Tuning::Off`] or a name in
//! [`Options::algo`](crate::Options) rules that out.

mod kept;
mod shipped;
mod table;
mod written;

#[cfg(feature = "tune")]
mod campaign;
#[cfg(feature = "tune")]
mod file;
#[cfg(feature = "tune")]
mod form;
#[cfg(feature = "tune")]
mod race;
#[cfg(feature = "tune")]
mod stopwatch;
#[cfg(feature = "tune")]
mod tuner;
#[cfg(feature = "tune")]
mod user;

/// Nobody reads the user's file.
#[cfg(not(feature = "tune"))]
mod user {
    use super::{Arc, TuningTable};

    pub(super) fn table() -> Arc<TuningTable> {
        Arc::default()
    }

    pub(super) fn reloads() -> usize {
        0
    }
}

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use swath_kernels::isa::Level;
use swath_kernels::shape::ConvShape;

use crate::conv::{Candidate, Options};
use crate::par;

pub use kept::KeptChoices;
pub use shipped::shipped;
pub use table::{Census, Conditions, Convolution, Entry, Figures, Measured, TuningTable, kernel_set};
#[cfg(feature = "tune")]
pub use {
    campaign::{Event, Job, Outcome, Summary},
    file::{FILE_VARIABLE, LONGEST_FILE, TuningFile},
    form::Parsed,
    race::Rules,
    tuner::{Effort, Tuned, Tuner},
    user::reload,
};

/// Which measurements a plan may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tuning {
    /// The user's file ([`TuningFile::of_user`]), then the table that ships with this crate. The file is read once per
    /// process; [`reload`] reads it again. Without the feature `tune` there is no file.
    #[default]
    Auto,
    /// None: the cost model alone decides.
    Off,
    /// This table and no other, such as `TuningFile::at(path).read()`.
    Table(Arc<TuningTable>),
    /// What was chosen before, and what another tuning says where nothing was.
    Kept(Arc<KeptChoices>),
}

impl Tuning {
    /// The tables to ask, in this order.
    fn tables(&self) -> Vec<Arc<TuningTable>> {
        match self {
            Tuning::Auto => vec![user::table(), shipped()],
            Tuning::Off => Vec::new(),
            Tuning::Table(table) => vec![table.clone()],
            Tuning::Kept(kept) => kept.tuning().tables(),
        }
    }
}

/// By its kind alone: tables are compared, not hashed.
impl Hash for Tuning {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
    }
}

/// What a choice by these options depends on beside them: the threads of where it is made, if there is a table to ask, how often
/// tables were read, and how often choices that are kept were changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ground {
    threads: Option<usize>,
    reloads: usize,
    changes: usize,
}

/// The ground that a plan with these options stands on now.
pub(crate) fn ground(options: &Options) -> Ground {
    // As in `consult`: without a table there is no need to know the threads.
    let asks = options.tuning.tables().iter().any(|t| !t.is_empty());
    let threads = asks.then(|| par::width(options.threads));
    let changes = if let Tuning::Kept(kept) = &options.tuning { kept.changes() } else { 0 };
    Ground { threads, reloads: user::reloads(), changes }
}

/// Logs a warning, unless this process has logged the same one before.
fn warn_once(message: String) {
    static SEEN: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.get_or_insert_default().insert(message.clone()) {
        log::warn!("{message}");
    }
}

/// Asks the tables of a plan's options: notes in `candidates` what was measured of them, and returns the index of the
/// fastest one that the plan supports, and why it is taken. `modelled` is the index of the cost model's choice.
pub(crate) fn consult(
    shape: &ConvShape,
    level: Level,
    options: &Options,
    candidates: &mut [Candidate],
    modelled: usize,
) -> Option<(usize, String)> {
    let tables = options.tuning.tables();
    // Without a table there is no need to know the threads, which would start rayon's pool.
    if tables.iter().all(|t| t.is_empty()) {
        return None;
    }
    let conditions = Conditions::of(level, options);
    let convolution = Convolution::new(shape, options);
    for table in tables {
        let Some(entry) = table.get(&conditions, &convolution) else { continue };
        for m in entry.candidates() {
            if !candidates.iter().any(|c| c.algo == m.algo) {
                warn_once(format!("tuning table {}: there is no algorithm {:?}: ignored", table.source(), m.algo));
            }
        }
        for c in candidates.iter_mut() {
            c.measured = entry.figures(c.algo);
        }
        // Without the modelled choice among the measured, nothing says that the others are faster than it.
        if candidates[modelled].measured.is_none() {
            continue;
        }
        let supported = candidates.iter().enumerate().filter(|(_, c)| c.predicted.is_ok());
        let measured = supported.filter_map(|(i, c)| Some((i, c.measured?.ms())));
        let (best, ms) = measured.min_by(|a, b| a.1.total_cmp(&b.1))?;
        let threads =
            if conditions.threads == 1 { "1 thread".into() } else { format!("{} threads", conditions.threads) };
        return Some((best, format!("it measured fastest, {ms:.4} ms on {threads} (tuned: {})", table.source())));
    }
    None
}
