//! `swath info`

use std::fmt::Display;
use std::io::{Write, stdout};

use serde::Serialize;
use swath::tune::{self, Census, Conditions, TuningFile, TuningTable};
use swath::{Cpu, Level};

use crate::failure::{Failure, Outcome};
use crate::machine::{self, Cache};
use crate::measure::{self, Bandwidth, Progress};
use crate::plan;
use crate::table::{Align, Table};
use crate::terminal;

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath info                      everything, in about two seconds
  swath info --no-measure         without timing anything
  swath info --format json        for programs
  SWATH_LEVEL=avx2 swath info     what a lowered level looks like

Peak and bandwidth are of one core: the peak is multiply-adds on registers, two operations each; the bandwidth is
reads of half of each cache, and of four times the last one for memory.")]
pub struct Args {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Do not measure peak and bandwidth
    #[arg(long)]
    no_measure: bool,
}

/// Output formats of `swath info`.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs: one object
    Json,
}

#[derive(Serialize)]
struct Peak {
    level: &'static str,
    gflops: f64,
}

#[derive(Serialize)]
struct Kernel {
    name: String,
    family: String,
    level: &'static str,
}

/// Everything that `swath info` tells.
#[derive(Serialize)]
struct Info {
    version: &'static str,
    cpu: Option<String>,
    architecture: &'static str,
    cores: usize,
    level: &'static str,
    levels: Vec<&'static str>,
    features: Vec<&'static str>,
    caches: Vec<Cache>,
    peaks: Vec<Peak>,
    bandwidths: Vec<Bandwidth>,
    kernels: Vec<Kernel>,
    tuning: Tuning,
}

/// The tuning tables, and how many of their entries apply: to this CPU, this level and this version, on any number of
/// threads.
#[derive(Serialize)]
struct Tuning {
    kernel_set: &'static str,
    cpu: &'static str,
    file: Option<String>,
    entries: usize,
    apply: usize,
    shipped_entries: usize,
    shipped_apply: usize,
}

impl Tuning {
    fn at(level: Level) -> Self {
        let file = TuningFile::of_user().ok();
        let table = file.as_ref().map_or_else(TuningTable::default, TuningFile::read);
        let here = Conditions::here(level, 1);
        let apply = |t: &TuningTable| t.filtered(|c| Conditions { threads: 1, ..c.clone() } == here).len();
        let shipped = tune::shipped();
        Tuning {
            kernel_set: tune::kernel_set(),
            cpu: machine::cpu_identity(),
            file: file.map(|f| f.path().display().to_string()),
            entries: table.len(),
            apply: apply(&table),
            shipped_entries: shipped.len(),
            shipped_apply: apply(&shipped),
        }
    }
}

/// `FILE: 12 entries that this machine and version can use, 3 stale, 0 of other CPUs`
pub fn tuning_file(file: &TuningFile) -> String {
    let Census { current, stale, foreign } = file.read().census();
    let path = file.path().display();
    if !file.path().exists() {
        return format!("{path}: not there; `swath tune` makes it");
    }
    format!("{path}: {current} entries that this machine and version can use, {stale} stale, {foreign} of other CPUs")
}

fn gather(cpu: Cpu, measured: bool) -> Outcome<Info> {
    let caches = machine::caches();
    let (mut peaks, mut bandwidths) = (Vec::new(), Vec::new());
    if measured {
        let progress = Progress::new(Level::available().len() + 1);
        for &level in Level::available() {
            progress.at(level.name());
            peaks.push(Peak { level: level.name(), gflops: measure::peak(level)? });
            progress.step();
        }
        progress.at("bandwidth");
        bandwidths = measure::bandwidths(cpu.level, &caches)?;
    }
    let kernel = |k: plan::KernelRow| Kernel { name: k.name, family: k.family, level: k.level.name() };
    Ok(Info {
        version: env!("CARGO_PKG_VERSION"),
        cpu: machine::cpu_name(),
        architecture: std::env::consts::ARCH,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        level: cpu.level.name(),
        levels: Level::available().iter().map(|l| l.name()).collect(),
        features: cpu.features.names(),
        caches,
        peaks,
        bandwidths,
        kernels: plan::kernels().into_iter().map(kernel).collect(),
        tuning: Tuning::at(cpu.level),
    })
}

fn line(out: &mut impl Write, label: &str, value: impl Display) -> Outcome<()> {
    Ok(writeln!(out, "{label:<12}{}", terminal::line(&value.to_string()))?)
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn head(out: &mut impl Write, info: &Info) -> Outcome<()> {
    line(out, "swath", info.version)?;
    let name = info.cpu.as_deref().unwrap_or("unknown CPU");
    let cores = if info.cores == 1 { "core" } else { "cores" };
    line(out, "CPU", format_args!("{name}, {}, {} {cores}", info.architecture, info.cores))?;
    let why = match swath_level() {
        Some(asked) => format!(", held to by {}={asked}", swath::LEVEL_VARIABLE),
        None => String::new(),
    };
    line(out, "level", format_args!("{}{why} (this machine can run: {})", info.level, info.levels.join(", ")))?;
    Ok(())
}

/// The variable that holds the level down, if it is set.
fn swath_level() -> Option<String> {
    std::env::var(swath::LEVEL_VARIABLE).ok().filter(|v| !v.trim().is_empty())
}

/// A few lines that say what machine this is.
pub fn brief() -> Outcome<()> {
    let info = gather(swath::cpu()?, false)?;
    let mut out = stdout().lock();
    head(&mut out, &info)?;
    let caches: Vec<String> = info.caches.iter().map(|c| format!("L{} {}", c.level, machine::bytes(c.bytes))).collect();
    line(&mut out, "caches", if caches.is_empty() { "unknown".into() } else { caches.join(", ") })
}

/// Runs `swath info`.
pub fn run(args: &Args) -> Outcome<()> {
    let info = gather(swath::cpu()?, !args.no_measure)?;
    let mut out = stdout().lock();
    if args.format == Format::Json {
        let text = serde_json::to_string_pretty(&info).map_err(Failure::new)?;
        return Ok(writeln!(out, "{text}")?);
    }
    head(&mut out, &info)?;
    for (i, c) in info.caches.iter().enumerate() {
        let shared = match c.shared_by {
            0 => String::new(),
            1 => ", of one core".into(),
            n => format!(", shared by {n} cores"),
        };
        line(
            &mut out,
            if i == 0 { "caches" } else { "" },
            format_args!("L{} {}, lines of {} bytes{shared}", c.level, machine::bytes(c.bytes), c.line),
        )?;
    }
    line(&mut out, "features", list(&info.features))?;
    let t = &info.tuning;
    let file = t.file.as_deref().unwrap_or("no place for a file");
    line(
        &mut out,
        "tuning",
        format_args!("{file}: {} entries, {} for this CPU, level and kernels", t.entries, t.apply),
    )?;
    line(
        &mut out,
        "",
        format_args!(
            "shipped with swath: {} entries, {} for this CPU, level and kernels",
            t.shipped_entries, t.shipped_apply
        ),
    )?;
    line(&mut out, "", format_args!("kernels {}, CPU {}", t.kernel_set, t.cpu))?;
    if !args.no_measure {
        writeln!(out, "\nFMA peak of one core")?;
        let mut t = Table::new(&[("level", Align::Left), ("GFLOP/s", Align::Right)]);
        for p in &info.peaks {
            t.row(vec![p.level.into(), format!("{:.1}", p.gflops)]);
        }
        write!(out, "{}", t.render("  "))?;
        writeln!(out, "\nRead bandwidth of one core at level {}", info.level)?;
        let mut t = Table::new(&[("from", Align::Left), ("reading", Align::Right), ("GB/s", Align::Right)]);
        for b in &info.bandwidths {
            t.row(vec![b.from.clone(), machine::bytes(b.bytes), format!("{:.1}", b.gb_per_s)]);
        }
        write!(out, "{}", t.render("  "))?;
    }
    if !info.kernels.is_empty() {
        writeln!(out, "\nKernels")?;
        let mut t = Table::new(&[("name", Align::Left), ("family", Align::Left), ("level", Align::Left)]);
        for k in &info.kernels {
            t.row(vec![k.name.clone(), k.family.clone(), k.level.into()]);
        }
        write!(out, "{}", t.render("  "))?;
    }
    Ok(())
}
