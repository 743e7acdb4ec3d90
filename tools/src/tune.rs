//! `swath tune`

use std::collections::BTreeSet;
use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use swath::benchdnn::{Problem, STANDARD_SETS};
use swath::tune::{
    Conditions, Convolution, Effort, Event, Job, Measured, Outcome as Ended, Summary, Tuner, TuningFile, TuningTable,
    kernel_set,
};
use swath::{ConvPlan, ConvShape, Options, Tuning, machine};

use crate::failure::{Failure, Outcome};
use crate::files;
use crate::measure::Progress;
use crate::plan::{self, Activations};
use crate::problems::Problems;
use crate::table::{Align, Table};
use crate::terminal;

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath tune                                           the standard set, on 1 thread and on all
  swath tune --file benches/shapes/resnet50.txt        the layers of a network
  swath tune model.onnx --shape x=1x3x640x640          those of an ONNX file
  swath tune --threads 1 ic64ih56oc64kh3ph1            one convolution, on one thread
  swath tune --budget 30                               half a minute's worth, the rest another time
  swath tune --show                                    what is known of this machine
  swath tune --export zen4.toml                        the same, in a file for others to --import
  swath tune --again --passes 3 --export zen4.toml     measured anew, three times
  swath tune --clear                                   forget everything

What is timed: the leading candidates of the cost model, in turns of a few milliseconds, with weights in cache and with
weights from memory; the mean of the two medians decides. Plans then take the fastest by themselves. What the file knows
already is not timed again, unless --again says so.

The file is SWATH_TUNE_FILE, else swath/tuning/CPU.toml in the user's configuration folder. Every convolution is saved
as soon as it is measured, so an interrupted run can be continued; several programs may tune at the same time (but
disturb each other's times). Entries count for this CPU, level, number of threads and set of kernels alone, so tune
again after an update of swath that says so in a warning.")]
pub struct Args {
    /// Numbers of threads to tune for; the default is 1 and all that this machine has
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    threads: Vec<u16>,
    /// Seconds that it may take; convolutions that are not reached stay untuned
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    budget: Option<Duration>,
    /// Time every candidate that supports a problem, not only those that the cost model expects near the best; what the
    /// file knows already only with --again
    #[arg(long)]
    all: bool,
    /// Measure again what the file knows already
    #[arg(long)]
    again: bool,
    /// Go over everything that is measured so many times, and keep of each candidate the fastest time: where others share
    /// the machine, whose cores are slow for minutes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    passes: u16,
    /// Layout of activations: as inside a model (blocked, but NCHW where there are fewer than 16 input channels), or
    /// one for input and output
    #[arg(long, value_enum, default_value_t)]
    layout: Activations,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Forget all entries of the tuning file, first of all; tunes nothing unless problems or --again are given
    #[arg(long)]
    clear: bool,
    /// Merge the entries of this file into the tuning file; tunes nothing unless problems or --again are
    /// given
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
    /// Write the entries that this machine and this version can use to a file, last of all; tunes nothing unless
    /// problems or --again are given
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Print the entries that this machine and this version can use; tunes nothing unless problems or --again are
    /// given
    #[arg(long)]
    show: bool,
    #[command(flatten)]
    problems: Option<Problems>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// An array of objects
    Json,
}

/// Seconds of the longest budget: ten years. Longer ones overflow clocks.
const LONGEST_BUDGET: f64 = 10.0 * 365.0 * 86400.0;

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    if !(0.0..=LONGEST_BUDGET).contains(&seconds) {
        return Err(format!("{seconds} seconds, but a budget lies between 0 and {LONGEST_BUDGET}"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A geometry in benchdnn's notation, which knows no padding that differs from side to side.
fn text(shape: &ConvShape) -> String {
    Problem::new(shape, "").map_or_else(|_| format!("{shape:?}"), |p| p.text)
}

/// One convolution on one number of threads.
#[derive(Serialize)]
struct Row {
    name: String,
    problem: String,
    input: &'static str,
    output: &'static str,
    level: String,
    threads: usize,
    /// What plans take by default: of the candidates, the fastest that the default accuracy allows.
    chosen: String,
    /// The fastest first.
    candidates: Vec<Candidate>,
    /// What plans take without tuning, where it was found out just now.
    untuned: Option<&'static str>,
    /// `measured`, or `known` where the file has had it.
    from: &'static str,
}

#[derive(Serialize)]
struct Candidate {
    algorithm: String,
    milliseconds: f64,
    warm_milliseconds: f64,
    cold_milliseconds: f64,
}

impl Row {
    fn new(name: &str, conditions: &Conditions, convolution: &Convolution, candidates: &[Measured]) -> Self {
        let candidate = |m: &Measured| Candidate {
            algorithm: m.algo.clone(),
            milliseconds: m.figures.ms(),
            warm_milliseconds: m.figures.warm_ms(),
            cold_milliseconds: m.figures.cold_ms(),
        };
        let chosen = chosen(conditions, convolution, candidates);
        Row {
            chosen: chosen.unwrap_or(&candidates[0]).algo.clone(),
            name: name.into(),
            problem: text(&convolution.shape),
            input: convolution.input.name(),
            output: convolution.output.name(),
            level: conditions.level.clone(),
            threads: conditions.threads,
            candidates: candidates.iter().map(candidate).collect(),
            untuned: None,
            from: "known",
        }
    }

    /// Whether it stands for this job on so many threads.
    fn is_of(&self, job: &Job, threads: usize) -> bool {
        self.threads == threads && self.name == job.name && self.problem == text(&job.shape)
    }

    /// Whether its times are new.
    fn measured(&self) -> bool {
        self.from == "measured"
    }

    fn candidate(&self, algorithm: &str) -> Option<&Candidate> {
        self.candidates.iter().find(|c| c.algorithm == algorithm)
    }

    /// How much longer the untuned choice takes, where that was measured.
    fn gain(&self) -> Option<f64> {
        Some(self.candidate(self.untuned?)?.milliseconds / self.candidate(&self.chosen)?.milliseconds)
    }
}

/// The fastest candidate that a plan takes by default; none where this machine lacks the level.
fn chosen<'a>(conditions: &Conditions, convolution: &Convolution, candidates: &'a [Measured]) -> Option<&'a Measured> {
    let Convolution { shape, input, output } = *convolution;
    let level = Some(conditions.level.parse().ok()?);
    let options = Options { input, output, level, tuning: Tuning::Off, ..Options::default() };
    let plan = ConvPlan::new(&shape, &options).ok()?;
    let allowed = |m: &&Measured| plan.candidates().iter().any(|c| c.algo == m.algo && c.predicted.is_ok());
    candidates.iter().find(allowed)
}

/// Runs `swath tune`.
pub fn run(args: &Args) -> Outcome<()> {
    let file = TuningFile::of_user()?;
    if args.clear {
        file.clear()?;
        note(args, format_args!("cleared {}", file.path().display()))?;
    }
    if let Some(path) = &args.import {
        import(args, path, &file)?;
    }
    let mut rows = Vec::new();
    let other = args.clear || args.import.is_some() || args.export.is_some() || args.show;
    if args.problems.is_some() || args.again || !other {
        let problems = args.problems.as_ref().map_or_else(standard, Problems::read)?;
        rows = tune(args, &file, &problems)?;
    }
    if args.show {
        rows = show(args, &file)?;
    }
    if args.format == Format::Json {
        let text = serde_json::to_string_pretty(&rows).map_err(Failure::new)?;
        writeln!(stdout(), "{text}")?;
    }
    match &args.export {
        Some(path) => export(args, path, &file),
        None => Ok(()),
    }
}

/// A line for people; programs that read JSON get none.
fn note(args: &Args, text: std::fmt::Arguments<'_>) -> Outcome<()> {
    if args.format == Format::Table {
        writeln!(stdout(), "{}", terminal::line(&text.to_string()))?;
    }
    Ok(())
}

/// All standard lists.
fn standard() -> Outcome<Vec<Problem>> {
    let lists = STANDARD_SETS.iter().map(|(_, text)| Ok(Problem::list(text)?));
    Ok(lists.collect::<Outcome<Vec<_>>>()?.concat())
}

/// The jobs on one number of threads, each convolution once.
fn jobs(args: &Args, problems: &[Problem], threads: usize) -> Vec<Job> {
    let mut seen = BTreeSet::new();
    let distinct = problems.iter().filter(|p| seen.insert(text(&p.shape)));
    let job = |p: &Problem| {
        let options = Options { threads: Some(threads), ..args.layout.options(&p.shape) };
        Job { name: if p.name.is_empty() { p.text.clone() } else { p.name.clone() }, shape: p.shape, options }
    };
    distinct.map(job).collect()
}

/// Tunes, reports, and returns what was measured or known.
fn tune(args: &Args, file: &TuningFile, problems: &[Problem]) -> Outcome<Vec<Row>> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let threads: BTreeSet<usize> =
        if args.threads.is_empty() { [1, all].into() } else { args.threads.iter().map(|&n| n.into()).collect() };
    // Too many fail before the hours of measuring on few.
    plan::with_threads(threads.last().copied().unwrap_or(1), || Ok(()))?;
    let effort = if args.all { Effort::all() } else { Effort::default() };
    let start = std::time::Instant::now();
    let jobs: Vec<(usize, Vec<Job>)> = threads.into_iter().map(|n| (n, jobs(args, problems, n))).collect();
    let passes = usize::from(args.passes);
    let progress = Progress::new(passes * jobs.iter().map(|(_, jobs)| jobs.len()).sum::<usize>());
    let mut rows: Vec<Row> = Vec::new();
    let mut summary = Summary::default();
    let parts = (0..passes).flat_map(|pass| jobs.iter().map(move |(n, these)| (pass, *n, these)));
    for (i, (pass, n, these)) in parts.enumerate() {
        // Each pass on each number of threads gets an equal share of the time that is left.
        let share = |budget: Duration| budget.saturating_sub(start.elapsed()) / (passes * jobs.len() - i) as u32;
        let again = args.again || pass > 0;
        let tuner = Tuner { effort, budget: args.budget.map(share), again, keep_fastest: pass > 0 };
        // Passes after the first measure what that one did.
        let measured = |job: &&Job| pass == 0 || rows.iter().any(|r| r.measured() && r.is_of(job, n));
        let these: Vec<Job> = these.iter().filter(measured).cloned().collect();
        let done = plan::with_threads(n, || {
            Ok(tuner.run(&these, file, |event| match event {
                Event::Begins(job) => progress.at(&job.name),
                Event::Ends(job, ended) => {
                    if let Some(row) = row(job, n, &ended) {
                        rows.retain(|r| !r.is_of(job, n));
                        rows.push(row);
                    }
                    progress.step();
                }
            })?)
        })?;
        if pass == 0 {
            summary.tuned += done.tuned;
            summary.known += done.known;
            summary.skipped += done.skipped;
        }
    }
    drop(progress);
    if args.format == Format::Table {
        print(&rows)?;
        let Summary { tuned, known, skipped } = summary;
        let seconds = start.elapsed().as_secs_f64();
        writeln!(
            stdout(),
            "\nmeasured {tuned} in {seconds:.1} s, knew {known}, left out {skipped}; {}",
            terminal::line(&file.path().display().to_string())
        )?;
        if skipped > 0 {
            writeln!(stdout(), "the budget was too small for all; the same command goes on with the rest")?;
        }
    }
    Ok(rows)
}

/// What became of a job; nothing if the budget did not reach it.
fn row(job: &Job, threads: usize, ended: &Ended<'_>) -> Option<Row> {
    match ended {
        Ended::Tuned(t) => {
            let row = Row::new(&job.name, &t.conditions, &t.convolution, t.entry.candidates());
            Some(Row { untuned: Some(t.modelled), from: "measured", ..row })
        }
        Ended::Known(entry) => {
            let level = swath::cpu().ok()?.level;
            let convolution = Convolution::new(&job.shape, &job.options);
            Some(Row::new(&job.name, &Conditions::here(level, threads), &convolution, entry.candidates()))
        }
        Ended::Skipped => None,
    }
}

fn print(rows: &[Row]) -> Outcome<()> {
    let mut t = Table::new(&[
        ("layer", Align::Left),
        ("problem", Align::Left),
        ("in, out", Align::Left),
        ("level", Align::Left),
        ("threads", Align::Right),
        ("chosen", Align::Left),
        ("ms", Align::Right),
        ("warm", Align::Right),
        ("cold", Align::Right),
        ("untuned", Align::Left),
        ("gain", Align::Right),
        ("others, ms", Align::Left),
    ]);
    for r in rows {
        let Some(best) = r.candidate(&r.chosen) else { continue };
        let others = r
            .candidates
            .iter()
            .filter(|c| c.algorithm != r.chosen)
            .map(|c| format!("{} {:.4}", c.algorithm, c.milliseconds));
        t.row(vec![
            if r.name == r.problem { String::new() } else { r.name.clone() },
            r.problem.clone(),
            format!("{}, {}", r.input, r.output),
            r.level.clone(),
            r.threads.to_string(),
            best.algorithm.clone(),
            format!("{:.4}", best.milliseconds),
            format!("{:.4}", best.warm_milliseconds),
            format!("{:.4}", best.cold_milliseconds),
            r.untuned.unwrap_or(if r.from == "known" { "(known)" } else { "" }).into(),
            r.gain().map_or(String::new(), |g| format!("{:.1} %", 100.0 * (g - 1.0))),
            others.collect::<Vec<_>>().join(", "),
        ]);
    }
    Ok(write!(stdout(), "{}", t.render(""))?)
}

/// Entries that this machine and this version can use.
fn usable(file: &TuningFile) -> TuningTable {
    file.read().filtered(|c| c.cpu == machine::cpu_identity() && c.kernels == kernel_set())
}

fn show(args: &Args, file: &TuningFile) -> Outcome<Vec<Row>> {
    let table = usable(file);
    let mut rows: Vec<Row> = table.iter().map(|(c, v, e)| Row::new("", c, v, e.candidates())).collect();
    rows.sort_by(|a, b| (&a.level, a.threads, &a.problem, a.input).cmp(&(&b.level, b.threads, &b.problem, b.input)));
    if args.format == Format::Table {
        if !rows.is_empty() {
            print(&rows)?;
            writeln!(stdout())?;
        }
        writeln!(stdout(), "{}", terminal::line(&crate::info::tuning_file(file)))?;
    }
    Ok(rows)
}

fn import(args: &Args, path: &Path, file: &TuningFile) -> Outcome<()> {
    // A file that the user names must be there and whole, unlike the one that plans happen to find.
    fs::metadata(path).map_err(|e| Failure::new(format_args!("cannot read {}: {e}", path.display())))?;
    let parsed = TuningFile::at(path).load()?;
    if let Some(first) = parsed.skipped.first() {
        return Err(Failure::new(format_args!("{}: {first}", path.display())));
    }
    file.merge(&parsed.table)?;
    let census = parsed.table.census();
    note(
        args,
        format_args!(
            "imported {} entries into {}: {} that this machine and version can use, {} stale, {} of other CPUs",
            parsed.table.len(),
            file.path().display(),
            census.current,
            census.stale,
            census.foreign
        ),
    )
}

fn export(args: &Args, path: &Path, file: &TuningFile) -> Outcome<()> {
    let table = usable(file);
    if table.is_empty() {
        let file = file.path().display();
        return Err(Failure::new(format_args!(
            "nothing to export: {file} has no entry that this machine and version can use"
        )));
    }
    files::write_text(path, &table.to_string())?;
    note(args, format_args!("exported {} entries to {}", table.len(), path.display()))
}
