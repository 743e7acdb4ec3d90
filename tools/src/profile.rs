//! The steps of a run as a table, the slowest first.

use std::cmp::Reverse;

use swath::StepProfile;

use crate::table::{Align, Table};

/// Time, share of the whole, arithmetic and memory rate, what ran, and where. Steps without arithmetic have no GFLOP/s.
pub(crate) fn table(mut steps: Vec<StepProfile>) -> Table {
    let total: f64 = steps.iter().map(|s| s.time.as_secs_f64()).sum();
    steps.sort_by_key(|s| Reverse(s.time));
    let heads = [("ms", Align::Right), ("%", Align::Right), ("GFLOP/s", Align::Right), ("GB/s", Align::Right)];
    let mut table = Table::new(&[&heads[..], &[("step", Align::Left), ("node", Align::Left)]].concat());
    for step in steps {
        let seconds = step.time.as_secs_f64();
        let gflops = if step.flop > 0 { format!("{:.1}", step.gflops()) } else { String::new() };
        table.row(vec![
            format!("{:.3}", seconds * 1e3),
            format!("{:.1}", 100.0 * seconds / total),
            gflops,
            format!("{:.1}", step.gbytes()),
            step.what,
            step.layer,
        ]);
    }
    table
}
