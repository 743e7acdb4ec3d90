//! `swath bench-conv`, and what the program does without a subcommand.

use std::io::{Write, stdout};

use serde::Serialize;
use swath::algo::Pass;
use swath::benchdnn::Problem;

use crate::failure::{Failure, Outcome};
use crate::machine;
use crate::measure::{self, Progress, Timing};
use crate::plan::{self, Activations, Conv, Precision, Request};
use crate::problems::Problems;
use crate::table::{Align, Table};
use crate::terminal;

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath bench-conv ic64ih56oc64kh3ph1
  swath bench-conv --threads 2 --file benches/shapes/resnet50.txt
  swath bench-conv --model mobilenet_v1 --batch 4
  swath bench-conv --set standard --format json
  swath bench-conv --algo all g32mb1_ic128ih56oc128oh56kh3ph1nresnext
  swath bench-conv --dir bwd mb8_ic64ih56oc64kh3ph1
  swath bench-conv --layout nhwc g96ic96ih112oc96kh3ph1
  swath bench-conv --cold --format csv ic512ih7oc512kh3ph1nlate

What is timed: the pass alone, with weights packed beforehand and activations as --layout says (in a model, blocks of
16 channels, or NCHW where there are fewer input channels), everything warm; the smallest mean of seven rounds of about
0.6 GFLOP each. GFLOP count every tap, also those in the padding.

Formats:
  table  for people: also the share of the measured FMA peak, and the network's total, every layer as often as it occurs
  csv    NAME,PROBLEM,direction,algorithm,milliseconds,GFLOP/s without a heading; PROBLEM is the argument as given
  json   an array of objects")]
pub struct Args {
    /// Threads to run on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Direction: the forward pass, or the two backward passes
    #[arg(long, value_enum, default_value_t = Dir::Fwd)]
    dir: Dir,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Time this algorithm instead of the plan's choice; `all` times every one that supports the problem
    #[arg(long, value_name = "NAME|all")]
    algo: Option<String>,
    /// How input and output lie
    #[arg(long, value_enum, default_value_t)]
    layout: Activations,
    /// How much rounding error is acceptable
    #[arg(long, value_enum, default_value_t)]
    accuracy: Precision,
    /// Read other weights in every run, so that they come from memory, as in a large network
    #[arg(long)]
    cold: bool,
    /// Fewer and shorter rounds, at most about a second and a half for each problem: a first impression
    #[arg(long)]
    brief: bool,
    #[command(flatten)]
    problems: Problems,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Dir {
    /// Forward
    Fwd,
    /// Backward, to the data and to the weights
    Bwd,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// NAME,PROBLEM,direction,algorithm,milliseconds,GFLOP/s
    Csv,
    /// An array of objects
    Json,
}

/// One measurement.
#[derive(Serialize)]
struct Row {
    name: String,
    problem: String,
    direction: &'static str,
    algorithm: String,
    milliseconds: f64,
    gflops: f64,
    threads: usize,
    level: &'static str,
    weights: &'static str,
    times: usize,
    #[serde(skip)]
    chosen: bool,
}

impl Row {
    fn csv(&self) -> String {
        format!(
            "{},{},{},{},{:.6},{:.2}",
            self.name, self.problem, self.direction, self.algorithm, self.milliseconds, self.gflops
        )
    }
}

/// Times one problem with one algorithm.
fn time(problem: &Problem, request: &Request, timing: Timing, cold: bool) -> Outcome<Row> {
    // Twice the last cache: when the turn comes back to a copy, other copies have taken its place.
    let mut conv = Conv::new(problem, request, cold.then(|| 2 * machine::last_cache()))?;
    let seconds = timing.seconds(problem.flop(), || conv.run())?;
    Ok(Row {
        name: problem.name.clone(),
        problem: problem.text.clone(),
        direction: request.pass.name(),
        algorithm: conv.algo(),
        milliseconds: seconds * 1e3,
        gflops: problem.flop() as f64 / seconds / 1e9,
        threads: request.threads,
        level: request.level.name(),
        weights: if cold { "cold" } else { "warm" },
        times: problem.times,
        chosen: true,
    })
}

/// Runs `swath bench-conv`.
pub fn run(args: &Args) -> Outcome<()> {
    let problems = args.problems.read()?;
    let level = swath::cpu()?.level;
    let timing = if args.brief { Timing::BRIEF } else { Timing::FULL };
    let all = args.algo.as_deref() == Some("all");
    let algo = args.algo.clone().filter(|_| !all);
    let request = Request {
        pass: Pass::Forward,
        level,
        layout: args.layout,
        algo,
        accuracy: args.accuracy,
        threads: args.threads.into(),
    };
    let passes: &[Pass] = match args.dir {
        Dir::Fwd => &[Pass::Forward],
        Dir::Bwd => &[Pass::BackwardData, Pass::BackwardWeights],
    };
    let rows = plan::with_threads(request.threads, || {
        let progress = Progress::new(problems.len() * passes.len());
        let mut rows = Vec::new();
        for (p, pass) in problems.iter().flat_map(|p| passes.iter().map(move |&pass| (p, pass))) {
            progress.at(if p.name.is_empty() { &p.text } else { &p.name });
            let request = Request { pass, ..request.clone() };
            let mut algos = vec![request.algo.clone()];
            if all {
                algos.extend(plan::algos(&p.shape, &request).into_iter().map(Some));
            }
            let mut timed: Vec<Row> = Vec::new();
            for algo in algos {
                // With --algo all, the plan's own choice comes first and is not timed again.
                if algo.is_some() && timed.first().is_some_and(|r| Some(&r.algorithm) == algo.as_ref()) {
                    continue;
                }
                let chosen = timed.is_empty();
                let row = Row { chosen, ..time(p, &Request { algo, ..request.clone() }, timing, args.cold)? };
                if args.format == Format::Csv {
                    // At once, for whoever reads along.
                    writeln!(stdout(), "{}", terminal::line(&row.csv()))?;
                }
                timed.push(row);
            }
            rows.extend(timed);
            progress.step();
        }
        Ok(rows)
    })?;
    match args.format {
        Format::Csv => Ok(()),
        Format::Json => {
            let text = serde_json::to_string_pretty(&rows).map_err(Failure::new)?;
            Ok(writeln!(stdout(), "{text}")?)
        }
        Format::Table => table(&rows, &request),
    }
}

/// Prints rows for people.
fn table(rows: &[Row], request: &Request) -> Outcome<()> {
    let peak = measure::peak(request.level)? * request.threads as f64;
    let mut t = Table::new(&[
        ("layer", Align::Left),
        ("problem", Align::Left),
        ("pass", Align::Left),
        ("algorithm", Align::Left),
        ("times", Align::Right),
        ("ms", Align::Right),
        ("GFLOP/s", Align::Right),
        ("of peak", Align::Right),
    ]);
    for r in rows {
        // The name stands in a column of its own.
        let problem = r.problem.strip_suffix(&format!("n{}", r.name)).unwrap_or(&r.problem);
        t.row(vec![
            if r.chosen { r.name.clone() } else { String::new() },
            if r.chosen { problem.trim_end_matches('_').into() } else { String::new() },
            r.direction.into(),
            r.algorithm.clone(),
            if r.times > 1 { format!("x{}", r.times) } else { String::new() },
            format!("{:.4}", r.milliseconds),
            format!("{:.1}", r.gflops),
            format!("{:.0} %", 100.0 * r.gflops / peak),
        ]);
    }
    let mut out = stdout().lock();
    write!(out, "{}", t.render(""))?;
    let chosen: Vec<&Row> = rows.iter().filter(|r| r.chosen).collect();
    let total: f64 = chosen.iter().map(|r| r.milliseconds * r.times as f64).sum();
    let mean = (chosen.iter().map(|r| r.gflops.ln()).sum::<f64>() / chosen.len() as f64).exp();
    let threads = if request.threads == 1 { "1 thread".into() } else { format!("{} threads", request.threads) };
    let weights = rows.first().map_or("warm", |r| r.weights);
    writeln!(
        out,
        "\ntotal {total:.3} ms, geometric mean {mean:.1} GFLOP/s; {threads}, level {}, peak {peak:.1} GFLOP/s, weights {weights}",
        request.level
    )?;
    Ok(())
}

/// Layers of every kind that networks are made of.
const SHOWCASE: &[&str] = &[
    "mb1_ic3ih224oc64oh112kh7sh2ph3nstem 7x7",
    "mb1_ic64ih56oc64oh56kh3ph1n3x3 early",
    "mb1_ic256ih14oc256oh14kh3ph1n3x3 middle",
    "mb1_ic512ih7oc512oh7kh3ph1n3x3 late",
    "mb1_ic256ih28oc256oh14kh3sh2ph1n3x3 stride 2",
    "mb1_ic256ih56oc64oh56kh1ph0n1x1 narrowing",
    "mb1_ic256ih14oc1024oh14kh1ph0n1x1 widening",
    "g384mb1_ic384ih14oc384oh14kh3ph1ndepthwise",
    "g32mb1_ic128ih56oc128oh56kh3ph1n32 groups",
    "mb1_ic256ih28oc256oh28kh3ph2dh1ndilated",
];

/// Times a few representative layers, and shows their speed as a bar.
pub fn showcase() -> Outcome<()> {
    let level = swath::cpu()?.level;
    let request = Request {
        pass: Pass::Forward,
        level,
        layout: Activations::Model,
        algo: None,
        accuracy: Precision::Default,
        threads: 1,
    };
    let progress = Progress::new(SHOWCASE.len());
    let mut rows = Vec::new();
    for text in SHOWCASE {
        let problem: Problem = text.parse()?;
        progress.at(&problem.name);
        rows.push(time(&problem, &request, Timing::BRIEF, false)?);
        progress.step();
    }
    drop(progress);
    let peak = measure::peak(level)?;
    let mut t = Table::new(&[
        ("convolution", Align::Left),
        ("algorithm", Align::Left),
        ("ms", Align::Right),
        ("GFLOP/s", Align::Right),
        ("of peak", Align::Right),
        ("", Align::Left),
    ]);
    for r in &rows {
        let share = r.gflops / peak;
        t.row(vec![
            r.name.clone(),
            r.algorithm.clone(),
            format!("{:.3}", r.milliseconds),
            format!("{:.0}", r.gflops),
            format!("{:.0} %", 100.0 * share),
            "=".repeat((10.0 * share).round().clamp(0.0, 40.0) as usize),
        ]);
    }
    let mut out = stdout().lock();
    writeln!(out, "\nForward convolutions, batch 1, on one core, whose peak is {peak:.0} GFLOP/s")?;
    write!(out, "{}", t.render(""))?;
    writeln!(out, "Winograd does the work of more multiply-adds than it makes.")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_showcase_parses() {
        for text in SHOWCASE {
            let p: Problem = text.parse().unwrap_or_else(|e| panic!("{e}"));
            assert!(p.flop() > 0);
        }
    }
}
