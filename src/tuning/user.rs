//! The user's tuning file, read once in a process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::{Census, TuningFile, TuningTable, kernel_set, warn_once};
use crate::machine;

static RELOADS: AtomicUsize = AtomicUsize::new(0);

static USER: RwLock<Option<Arc<TuningTable>>> = RwLock::new(None);

/// The user's table, read when it is first asked for.
pub(super) fn table() -> Arc<TuningTable> {
    if let Some(table) = &*USER.read().unwrap_or_else(PoisonError::into_inner) {
        return table.clone();
    }
    // Whoever comes first reads; the others wait here, so that the file is read once.
    let mut user = USER.write().unwrap_or_else(PoisonError::into_inner);
    user.get_or_insert_with(|| Arc::new(read_user())).clone()
}

/// How often [`reload`] was called.
pub(super) fn reloads() -> usize {
    RELOADS.load(Ordering::Acquire)
}

/// Reads the user's file again: plans made from now on use what it holds now.
pub fn reload() {
    let table = Arc::new(read_user());
    *USER.write().unwrap_or_else(PoisonError::into_inner) = Some(table);
    // After the table: whoever sees the count sees it.
    RELOADS.fetch_add(1, Ordering::Release);
}

fn read_user() -> TuningTable {
    // Whoever has no home has no file, and is not to be bothered.
    let table = TuningFile::of_user().map_or_else(|_| TuningTable::default(), |file| file.read());
    if let Some(why) = useless(&table) {
        warn_once(format!("tuning file {} is ignored: {why}; `swath tune` measures anew", table.source()));
    }
    table
}

/// Why no entry of a table can ever apply here.
fn useless(table: &TuningTable) -> Option<String> {
    let Census { current, stale, foreign } = table.census();
    match (current, stale, foreign) {
        (0, 0, 0) | (1.., ..) => None,
        (0, 0, n) => Some(format!("its entries ({n}) are of another CPU than {}", machine::cpu_identity())),
        (0, n, _) => Some(format!("its entries ({n}) are stale: measured with other kernels than {}", kernel_set())),
    }
}
