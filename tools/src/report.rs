//! `swath report`

mod charts;
mod collect;
mod compare;
mod data;
mod figures;
mod page;
mod peers;
mod readme;
#[cfg(test)]
mod samples;

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use collect::Job;
use compare::Comparison;
use data::Report;
use peers::{PeerCommand, PeerFile};

use crate::failure::{Failure, Outcome};
use crate::files::write_text;
use crate::plan::{self, Precision};
use crate::problems::Problems;
use crate::table::{Align, Table};
use crate::terminal;

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath report                                             the standard lists: report.html
  swath report --brief ic64ih56oc64kh3ph1                  a first impression of one layer
  swath report --json new.json --compare old.json          what got slower or faster since
  swath report --from new.json --out new.html              the page again, without measuring
  swath report --from new.json --readme README.md          README's table of results
  swath report --json r.json --peer-command \\
    'oneDNN=taskset -c {cores} onednn_conv'

Times are the smallest mean of seven rounds of about 0.6 GFLOP; all algorithms of a layer take turns round by round. With a
peer's command, peer and swath take turns over each list, twice, and each layer's smallest times count on both sides.

Peers' csv is NAME,PROBLEM,fwd,implementation,milliseconds,GFLOP/s; other lines are passed over. In a command, {cores} stands
for a list of as many cores as there are threads, {threads} for their number; a shell runs it with the problems as arguments.")]
pub struct Args {
    /// Numbers of threads [default: 1, 2, 4 ... and all cores]
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    threads: Vec<u16>,
    /// Where the page goes [default: report.html, unless --readme is given]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where the measurements go
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// An older report's JSON: mark what got slower or faster
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Per cent by which a layer's time must change to be marked
    #[arg(long, value_name = "PERCENT", default_value_t = 7.0, requires = "compare", value_parser = percent)]
    threshold: f64,
    /// Fail if a layer got slower by more than the threshold
    #[arg(long, requires = "compare")]
    fail_on_regression: bool,
    /// Take the measurements from a report's JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = ["threads", "accuracy", "brief", "cold", "peer_command", "passes"])]
    from: Option<PathBuf>,
    /// Another library's times, for the first number of threads or the one given; may be repeated
    #[arg(long, value_name = "NAME[@N]=FILE")]
    peer: Vec<PeerFile>,
    /// A command that times another library; may be repeated
    #[arg(long, value_name = "NAME=COMMAND")]
    peer_command: Vec<PeerCommand>,
    /// How often each list is measured [default: 2 with --peer-command, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    passes: Option<u16>,
    /// Rewrite the block between `<!-- results -->` and `<!-- /results -->` of this file; `<!-- results avx2 -->`, where there
    /// is such a one, takes only reports of that level
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
    /// How much rounding error is acceptable: which algorithms race [default: default]
    #[arg(long, value_enum, value_name = "ACCURACY")]
    accuracy: Option<Precision>,
    /// Fewer and shorter rounds: a first impression
    #[arg(long)]
    brief: bool,
    /// Read other weights in every run, so that they come from memory, as in a large network
    #[arg(long)]
    cold: bool,
    #[command(flatten)]
    problems: Option<Problems>,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(v) if f64::is_finite(v) && v > 0.0 => Ok(v),
        _ => Err("expected a positive number of per cent".into()),
    }
}

/// Runs `swath report`.
pub fn run(args: &Args) -> Outcome<()> {
    // What can fail quickly comes before the measurements.
    let old = args.compare.as_deref().map(Report::read).transpose()?;
    let mut report = match &args.from {
        Some(_) if args.problems.is_some() => {
            return Err(Failure::new("--from takes its problems from the report: name no others"));
        }
        Some(path) => Report::read(path)?,
        None => collect::collect(&job(args)?)?,
    };
    for peer in &args.peer {
        peer.add_to(&mut report)?;
    }
    let comparison = old.map(|old| Comparison::new(&old, &report, args.threshold / 100.0));
    let mut written = Vec::new();
    // The measurements first: they took the time.
    if let Some(path) = &args.json {
        write_text(path, &report.to_json()?)?;
        written.push(path.as_path());
    }
    let default = args.readme.is_none().then(|| Path::new("report.html"));
    if let Some(path) = args.out.as_deref().or(default) {
        write_text(path, &page::render(&report, comparison.as_ref())?)?;
        written.push(path);
    }
    let mut out = stdout().lock();
    write!(out, "{}", terminal::lines(&table(&report)))?;
    if let Some(c) = &comparison {
        write!(out, "{}", terminal::lines(&c.text()))?;
    }
    if let Some(path) = &args.readme {
        readme::update(path, &report)?;
        written.push(path);
    }
    let names: Vec<String> = written.iter().map(|p| p.display().to_string()).collect();
    writeln!(out, "\nwritten: {}", terminal::line(&names.join(", ")))?;
    let slower = comparison.map_or(0, |c| c.slower().count());
    if args.fail_on_regression && slower > 0 {
        return Err(Failure::new(format_args!("{slower} measurements are slower by more than {} %", args.threshold)));
    }
    Ok(())
}

/// The page that `swath report --from` makes of a report's JSON, or what is wrong with that, in one line.
pub fn page_of_report(json: &str) -> Result<String, String> {
    let page = Report::parse(json).map(|report| page::render(&report, None))?;
    page.map_err(|failure| match failure {
        Failure::Message(why) => why,
        Failure::Closed => "the output was closed".into(),
    })
}

/// What the command line asks to measure.
fn job(args: &Args) -> Outcome<Job> {
    let sets = match &args.problems {
        Some(problems) => collect::grouped(problems.read()?)?,
        None => collect::standard_sets()?,
    };
    if let Some(p) = sets.iter().flat_map(|(_, list)| list).find(|p| p.flop() == 0) {
        return Err(Failure::new(format_args!("{}: nothing to time, it has no operations", p.text)));
    }
    let mut threads: Vec<usize> = args.threads.iter().map(|&t| t.into()).collect();
    if threads.is_empty() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        threads.extend(std::iter::successors(Some(1), |t| Some(t * 2)).take_while(|t| *t < cores));
        threads.push(cores);
    }
    threads.sort_unstable();
    threads.dedup();
    // Too many fail before the hours of measuring on few.
    plan::with_threads(threads[threads.len() - 1], || Ok(()))?;
    let passes = args.passes.unwrap_or(if args.peer_command.is_empty() { 1 } else { 2 });
    Ok(Job {
        sets,
        threads,
        accuracy: args.accuracy.unwrap_or_default(),
        brief: args.brief,
        cold: args.cold,
        passes: passes.into(),
        peers: args.peer_command.clone(),
        command: command_line(std::env::args().skip(1)),
    })
}

/// The command as one would type it in a shell.
fn command_line(args: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./,:=@%+".contains(c);
    let quoted =
        args.map(|a| if !a.is_empty() && a.chars().all(plain) { a } else { format!("'{}'", a.replace('\'', "'\\''")) });
    std::iter::once("swath".to_string()).chain(quoted).collect::<Vec<_>>().join(" ")
}

/// The summary, for a terminal.
fn table(report: &Report) -> String {
    let peers = report.peers();
    let mut columns = vec![
        ("set", Align::Left),
        ("threads", Align::Right),
        ("layers", Align::Right),
        ("GFLOP/s", Align::Right),
        ("total ms", Align::Right),
    ];
    for _ in &peers {
        columns.extend([
            ("against", Align::Left),
            ("mean", Align::Right),
            ("total", Align::Right),
            ("slowest", Align::Right),
        ]);
    }
    let mut t = Table::new(&columns);
    for set in &report.sets {
        for (at, n) in report.threads.iter().enumerate() {
            let Some(f) = figures::figures(report, set, at) else { continue };
            let mut row = vec![
                set.name.clone(),
                n.to_string(),
                set.layers.len().to_string(),
                format!("{:.1}", f.gflops),
                format!("{:.3}", f.total_ms),
            ];
            for peer in &peers {
                match figures::versus(set, at, peer) {
                    Some(v) => row.extend([
                        peer.clone(),
                        format!("{:.2}", v.mean),
                        format!("{:.2}", v.total),
                        format!("{:.2}", v.slowest.1),
                    ]),
                    None => row.extend(vec![String::new(); 4]),
                }
            }
            t.row(row);
        }
    }
    let m = &report.machine;
    let verdicts: String = figures::verdicts(report).iter().map(|v| format!("{v}\n")).collect();
    format!(
        "{}\n{verdicts}\n{}, level {}, peak {:.1} GFLOP/s a core, {}\n",
        t.render(""),
        m.cpu.as_deref().unwrap_or("unknown CPU"),
        m.level,
        m.peak,
        report.date
    )
}

#[cfg(test)]
mod tests;
