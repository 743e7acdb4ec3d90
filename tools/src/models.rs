//! `swath models`: the networks of the zoo.

use std::io::{Write, stdout};

use serde::Serialize;
use swath::zoo::{Network, ZOO};

use crate::failure::{Failure, Outcome};
use crate::table::{Align, Table};

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath models                            the networks that swath brings along
  swath bench-model resnet50              time one of them
  swath bench-conv --model resnet50       time its convolutions one by one
  swath explain --model resnet50          which algorithm each of them gets, and why

GFLOP are of convolutions and Linear layers for one image of the paper's size, two for each multiply-add, those in the
padding included; `convolutions` are different ones of how many in all.")]
pub struct Args {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs: an array of objects
    Json,
}

/// What is told of a network.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    input: [usize; 4],
    parameters: usize,
    gflop: f64,
    convolutions: usize,
    different_convolutions: usize,
    paper: &'static str,
}

impl Row {
    fn new(network: &Network) -> Outcome<Self> {
        let (graph, input) = (network.graph()?, network.input(1));
        let convolutions = network.convolutions(1)?;
        Ok(Row {
            name: network.name,
            input,
            parameters: graph.parameter_count(),
            gflop: graph.flop(&input)? as f64 / 1e9,
            convolutions: convolutions.iter().map(|p| p.times).sum(),
            different_convolutions: convolutions.len(),
            paper: network.paper,
        })
    }
}

/// Runs `swath models`.
pub fn run(args: &Args) -> Outcome<()> {
    let rows = ZOO.iter().map(Row::new).collect::<Outcome<Vec<Row>>>()?;
    if args.format == Format::Json {
        let text = serde_json::to_string_pretty(&rows).map_err(Failure::new)?;
        return Ok(writeln!(stdout(), "{text}")?);
    }
    let mut t = Table::new(&[
        ("network", Align::Left),
        ("input", Align::Left),
        ("parameters", Align::Right),
        ("GFLOP", Align::Right),
        ("convolutions", Align::Right),
        ("paper", Align::Left),
    ]);
    for r in rows {
        t.row(vec![
            r.name.into(),
            r.input.map(|v| v.to_string()).join("x"),
            thousands(r.parameters),
            format!("{:.2}", r.gflop),
            format!("{} of {}", r.different_convolutions, r.convolutions),
            r.paper.into(),
        ]);
    }
    Ok(write!(stdout(), "{}", t.render(""))?)
}

/// `25,557,032`
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let all = [0, 999, 1000, 25_557_032].map(thousands);
        assert_eq!(all, ["0", "999", "1,000", "25,557,032"]);
    }
}
