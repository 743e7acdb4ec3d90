//! Tables that ship with the crate, for CPUs that its makers had at hand.
//!
//! Made by this command on such a CPU, which should do nothing else. Where it has AVX-512, once more with `SWATH_LEVEL=avx2`
//! before it and the same file:
//!
//! ```text
//! SWATH_TUNE_FILE=target/zen3.toml cargo run --release -- tune --again --passes 5 --export src/tuning/shipped/zen3.toml
//! ```
//!
//! (`granite_rapids`: three passes, at AVX-512 alone.)
//!
//! They are stale as soon as the set of kernels changes ([`kernel_set`](super::kernel_set)), and then ignored without a
//! warning, since users can do nothing about it; `swath info` says so, and so does the output of this module's test.

use std::sync::{Arc, LazyLock};

use super::table::{Census, TuningTable};
use super::written;
use crate::machine;

/// Name and text of each table.
static TEXTS: &[(&str, &str)] = &[
    ("shipped with swath: zen3", include_str!("shipped/zen3.toml")),
    ("shipped with swath: granite_rapids", include_str!("shipped/granite_rapids.toml")),
];

/// The shipped entries of the files that name this CPU, in one table; those of other kernels too, which count as stale. Files of other CPUs
/// are not read: the process's first plan waits for this.
pub fn shipped() -> Arc<TuningTable> {
    static SHIPPED: LazyLock<Arc<TuningTable>> = LazyLock::new(|| {
        let mut all = TuningTable::new("shipped with swath");
        let here = format!("cpu = {:?}", machine::cpu_identity());
        for (name, text) in TEXTS.iter().filter(|(_, text)| text.contains(&here)) {
            // A test holds that they can be read.
            if let Some(table) = written::read(name, text) {
                all.merge(&table);
            }
        }
        let Census { current, stale, foreign } = all.census();
        log::debug!("shipped tuning tables: {current} entries can be used here, {stale} are stale, {foreign} foreign");
        Arc::new(all)
    });
    SHIPPED.clone()
}

#[cfg(all(test, feature = "tune"))]
mod tests {
    use super::super::{form, kernel_set};
    use super::*;

    #[test]
    fn shipped_tables_can_be_read_whole() {
        for (name, text) in TEXTS {
            let parsed = form::parse(name, text).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(parsed.skipped, Vec::<String>::new(), "{name}");
            assert_eq!(written::read(name, text).as_ref(), Some(&parsed.table), "{name}");
            let stale = parsed.table.filtered(|c| c.kernels != kernel_set()).len();
            if stale > 0 {
                eprintln!(
                    "{name}: {stale} of {} entries are STALE (this build's kernels: {}); src/tuning/shipped.rs says how \
                     to make it anew",
                    parsed.table.len(),
                    kernel_set()
                );
            }
        }
    }
}
