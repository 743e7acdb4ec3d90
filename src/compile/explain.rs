//! What a compiled session does, as a table.

use super::memory::{LINE, Place};
use super::runner::Program;

/// One line per step: layer, what runs, what it gives and where.
pub(super) fn explain(program: &Program) -> String {
    let mut rows = vec![["step", "layer", "runs", "gives", "layout", "memory"].map(String::from)];
    for (i, step) in program.steps.iter().enumerate() {
        let memory = match program.memory.places[step.outputs[0]] {
            Place::Arena(at) if program.memory.in_place[i] => format!("at {}, in place", at / LINE),
            Place::Arena(at) => format!("at {}", at / LINE),
            Place::Output(0) => "output".into(),
            Place::Output(k) => format!("output {k}"),
            Place::Input(_) | Place::Constant(_) => unreachable!("steps write neither"),
        };
        rows.push([
            i.to_string(),
            step.layer.clone(),
            step.step.describe(),
            format!("{:?}", step.dims),
            step.layout.name().into(),
            memory,
        ]);
    }
    let widths: Vec<usize> = (0..6).map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for fact in &program.inputs {
        text.push_str(&format!("input {fact} {}\n", program.layout.name()));
    }
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:w$}", w = *w)).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    let kib = |floats: usize| (floats * 4).div_ceil(1024);
    let separate: usize = program.steps.iter().flat_map(|s| &s.outputs).map(|&b| program.lens[b]).sum();
    let outputs: usize = program.outputs.iter().map(|o| program.lens[o.buffer]).sum();
    let shared = program.memory.words + outputs;
    let scratch = program.scratch_len() + program.packed_len();
    text.push_str(&format!(
        "activations {} KiB in the arena (places in cache lines) and the output ({} KiB without sharing), scratch {} KiB\n",
        kib(shared),
        kib(separate),
        kib(scratch)
    ));
    text
}
