//! `swath bench-model`: whole networks.

use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use serde::Serialize;
use swath::SessionOptions;
use swath::onnx::Network;
use swath::zoo;

use crate::failure::{Failure, Outcome};
use crate::measure::{self, Progress};
use crate::models::thousands;
use crate::network::{self, Inputs};
use crate::plan::{self, Precision};
use crate::terminal;

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath bench-model resnet50
  swath bench-model mobilenet_v2 --threads 2 --batch 16
  swath bench-model unet --format json
  swath bench-model resnet18 --accuracy exact --explain
  swath bench-model model.onnx --input x.npy --format json

What is timed: a run of the compiled network from a batch of images in NCHW to its output in NCHW, with random weights;
not building and compiling it. After one run that warms up, it is run for --seconds, three times at least.

An ONNX file is read and compiled for the dimensions of its inputs, from --input, --shape or the file; inputs without a file are made up.
How long reading and compiling take is told apart, and the largest memory over that of the idle program.

`swath models` lists the networks. The json is one object; median_ms and min_ms are of a run of the whole batch.")]
pub struct Args {
    /// A network of `swath models`, or an ONNX file
    #[arg(value_name = "MODEL")]
    model: String,
    #[command(flatten)]
    inputs: Inputs,
    /// Images in a batch of a built-in network
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Threads to run on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// How much rounding error is acceptable
    #[arg(long, value_enum, default_value_t)]
    accuracy: Precision,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// How long to run it
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Show the steps of a run with layouts and algorithms, and time nothing
    #[arg(long)]
    explain: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs: one object
    Json,
}

fn seconds(text: &str) -> Result<f64, String> {
    let v: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if (0.0..=3600.0).contains(&v) { Ok(v) } else { Err("between 0 and 3600".into()) }
}

/// One measurement.
#[derive(Serialize)]
struct Row {
    model: &'static str,
    batch: usize,
    threads: usize,
    level: &'static str,
    median_ms: f64,
    min_ms: f64,
    runs: usize,
    gflop: f64,
    gflops: f64,
    parameters: usize,
}

/// What is told of an ONNX file.
#[derive(Serialize)]
struct FileRow<'a> {
    model: &'a str,
    threads: usize,
    level: &'static str,
    median_ms: f64,
    min_ms: f64,
    runs: usize,
    gflop: f64,
    gflops: f64,
    /// Reading and compiling.
    load_ms: f64,
    /// The largest resident memory over that of the idle process, where the system tells.
    peak_mb: Option<f64>,
}

/// A line of `/proc/self/status`, in MiB.
fn resident(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(key))?;
    let kib: f64 = line.trim_start_matches(':').split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

fn run_file(args: &Args) -> Outcome<()> {
    let threads = usize::from(args.threads);
    let options =
        SessionOptions { threads: Some(threads), accuracy: args.accuracy.into(), ..SessionOptions::default() };
    let level = swath::cpu()?.level;
    let (idle, start) = (resident("VmRSS"), Instant::now());
    let network = Network::open(&args.model)?;
    let (mut session, inputs) = args.inputs.compile(network, &options)?;
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    if args.explain {
        let text = session.session().map_or_else(String::new, swath::Session::explain);
        return Ok(write!(stdout(), "{}", terminal::lines(&text))?);
    }
    let mut times = measure::repeat(Duration::from_secs_f64(args.seconds), || {
        session.run(&inputs)?;
        Ok(())
    })?;
    times.sort_by(f64::total_cmp);
    let (min, median, flop) = (times[0], median(&times), session.flop() as f64);
    let row = FileRow {
        model: &args.model,
        threads,
        level: level.name(),
        median_ms: median * 1e3,
        min_ms: min * 1e3,
        runs: times.len(),
        gflop: flop / 1e9,
        gflops: flop / median / 1e9,
        load_ms,
        peak_mb: resident("VmHWM").zip(idle).map(|(peak, idle)| peak - idle),
    };
    match args.format {
        Format::Json => {
            let text = serde_json::to_string_pretty(&row).map_err(Failure::new)?;
            Ok(writeln!(stdout(), "{text}")?)
        }
        Format::Table => Ok(write!(stdout(), "{}", row.text())?),
    }
}

/// Runs `swath bench-model`.
pub fn run(args: &Args) -> Outcome<()> {
    if network::is_file(&args.model) {
        return run_file(args);
    }
    let network = zoo::find(&args.model)?;
    let (batch, threads) = (args.batch as usize, usize::from(args.threads));
    let level = swath::cpu()?.level;
    let dims = network.input(batch);
    let graph = network.graph()?;
    let flop = graph.flop(&dims)?;
    let options =
        SessionOptions { threads: Some(threads), accuracy: args.accuracy.into(), ..SessionOptions::default() };
    let progress = Progress::new(3);
    progress.at("building");
    let model = network.build(1)?;
    progress.step();
    progress.at("compiling");
    let mut session = model.compile_with(dims, &options)?;
    // The session has packed weights of its own; VGG-16's are 553 MB.
    drop(model);
    progress.step();
    if args.explain {
        return Ok(write!(stdout(), "{}", terminal::lines(&session.explain()))?);
    }
    let x = plan::random(dims)?;
    progress.at("running");
    let mut times = measure::repeat(Duration::from_secs_f64(args.seconds), || {
        session.run(&x)?;
        Ok(())
    })?;
    drop(progress);
    times.sort_by(f64::total_cmp);
    let (min, median) = (times[0], median(&times));
    let row = Row {
        model: network.name,
        batch,
        threads,
        level: level.name(),
        median_ms: median * 1e3,
        min_ms: min * 1e3,
        runs: times.len(),
        gflop: flop as f64 / 1e9,
        gflops: flop as f64 / median / 1e9,
        parameters: graph.parameter_count(),
    };
    match args.format {
        Format::Json => {
            let text = serde_json::to_string_pretty(&row).map_err(Failure::new)?;
            Ok(writeln!(stdout(), "{text}")?)
        }
        Format::Table => Ok(write!(stdout(), "{}", row.text())?),
    }
}

/// Of sorted times.
fn median(times: &[f64]) -> f64 {
    let n = times.len();
    (times[(n - 1) / 2] + times[n / 2]) / 2.0
}

fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

impl FileRow<'_> {
    fn text(&self) -> String {
        let peak = self.peak_mb.map_or(String::new(), |mb| format!(", at the peak {mb:.0} MiB"));
        format!(
            "{}, {:.2} GFLOP\n\
             median {:.3} ms, fastest {:.3} ms of {}; {:.1} GFLOP/s; {}, level {}\n\
             read and compiled in {:.0} ms{peak}\n",
            terminal::line(self.model),
            self.gflop,
            self.median_ms,
            self.min_ms,
            plural(self.runs, "run"),
            self.gflops,
            plural(self.threads, "thread"),
            self.level,
            self.load_ms,
        )
    }
}

impl Row {
    fn text(&self) -> String {
        format!(
            "{}, {} parameters; {}, {:.2} GFLOP\n\
             median {:.3} ms, fastest {:.3} ms of {}; {:.1} GFLOP/s, {:.1} images/s; {}, level {}\n",
            self.model,
            thousands(self.parameters),
            plural(self.batch, "image"),
            self.gflop,
            self.median_ms,
            self.min_ms,
            plural(self.runs, "run"),
            self.gflops,
            self.batch as f64 / self.median_ms * 1e3,
            plural(self.threads, "thread"),
            self.level
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_even_and_odd_numbers() {
        assert_eq!((median(&[1.0, 2.0, 9.0]), median(&[1.0, 2.0, 4.0, 9.0]), median(&[5.0])), (2.0, 3.0, 5.0));
    }
}
