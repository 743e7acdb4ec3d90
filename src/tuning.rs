//! What tuning has measured, and where it is kept: tables, their file, choices that a run goes on with.
//!
//! These are records. Plans read them ([`conv`](crate::conv)), and the tuner, which times plans, makes them ([`tune`](crate::tune)). The
//! paths of all of it begin with `tune`.

mod kept;
mod shipped;
mod table;
mod written;

#[cfg(feature = "tune")]
mod file;
#[cfg(feature = "tune")]
mod form;
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

use crate::par;

pub use kept::KeptChoices;
pub use shipped::shipped;
pub use table::{Census, Conditions, Convolution, Entry, Figures, Measured, TuningTable, kernel_set};
#[cfg(feature = "tune")]
pub use {
    file::{FILE_VARIABLE, LONGEST_FILE, TuningFile},
    form::Parsed,
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
    pub(crate) fn tables(&self) -> Vec<Arc<TuningTable>> {
        match self {
            Tuning::Auto => vec![user::table(), shipped()],
            Tuning::Off => Vec::new(),
            Tuning::Table(table) => vec![table.clone()],
            Tuning::Kept(kept) => kept.tuning().tables(),
        }
    }

    /// The ground that a choice stands on now, of a plan for at most so many threads.
    pub(crate) fn ground(&self, most: Option<usize>) -> Ground {
        // As plans do: without a table there is no need to know the threads.
        let asks = self.tables().iter().any(|t| !t.is_empty());
        let threads = asks.then(|| par::width(most));
        let changes = if let Tuning::Kept(kept) = self { kept.changes() } else { 0 };
        Ground { threads, reloads: user::reloads(), changes }
    }
}

/// By its kind alone: tables are compared, not hashed.
impl Hash for Tuning {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
    }
}

/// What a choice by tables depends on beside the options of its plan: the threads of where it is made, if there is a table to ask, how often
/// tables were read, and how often choices that are kept were changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ground {
    threads: Option<usize>,
    reloads: usize,
    changes: usize,
}

/// Logs a warning, unless this process has logged the same one before.
pub(crate) fn warn_once(message: String) {
    static SEEN: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.get_or_insert_default().insert(message.clone()) {
        log::warn!("{message}");
    }
}
