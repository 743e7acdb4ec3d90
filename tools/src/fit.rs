//! `swath fit-cost`: makes the coefficients of the cost model from measurements.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::path::PathBuf;

use swath::algo::{self, ALGOS, Cores, FEATURES, Work};
use swath::benchdnn::Problem;
use swath::{Accuracy, Core, Options};

use crate::failure::{Failure, Outcome};
use crate::files;
use crate::measure::TIMES;

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath bench-conv --algo all --format csv --file benches/shapes/resnet50.txt | swath fit-cost
  SWATH_LEVEL=avx2 swath fit-cost measured.csv more.csv

Reads what `swath bench-conv --algo all --format csv` printed for one level and one thread, and prints that level's rows of
the table in src/algo/cost.rs: the non-negative milliseconds per unit of work that minimise the squared relative error.
How well they fit, and how good the choices are that follow from them, goes to stderr.")]
pub struct Args {
    /// Measurements; standard input if there is none
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// One measured run.
struct Measured {
    problem: String,
    algo: &'static str,
    work: Work,
    ms: f64,
}

/// Runs `swath fit-cost`.
pub fn run(args: &Args) -> Outcome<()> {
    let core = Core::here(swath::cpu()?.level);
    let mut text = String::new();
    for path in &args.files {
        text += &files::read_text(path)?;
        text.push('\n'); // a file may end without one
    }
    if args.files.is_empty() {
        text = files::read_stdin()?;
    }
    let measured = parse(&text, core)?;
    let mut coefficients = BTreeMap::new();
    for algo in ALGOS {
        let runs: Vec<&Measured> = measured.iter().filter(|m| m.algo == algo.name).collect();
        if runs.is_empty() {
            continue;
        }
        let rows: Vec<([f64; FEATURES.len()], f64)> = runs.iter().map(|m| (m.work.0, m.ms)).collect();
        let c = fit(&rows);
        let mut errors: Vec<f64> = rows.iter().map(|(w, ms)| (predict(&c, w) / ms - 1.0).abs()).collect();
        errors.sort_by(f64::total_cmp);
        let at = |share: f64| 100.0 * errors[((errors.len() - 1) as f64 * share) as usize];
        eprintln!("{:<10} {:3} runs, error {:.0} % median, {:.0} % at 90", algo.name, runs.len(), at(0.5), at(0.9));
        let numbers = c.map(|c| format!("{c:.6}")).join(", ");
        let (name, cores) = (format!("{:?}", algo.name), format!("{:?}", Cores::of(core)));
        writeln!(stdout(), "    {name:<11} {cores:<9} [{numbers}];")?;
        coefficients.insert(algo.name, c);
    }
    eprintln!("{}", verdict(&measured, &coefficients));
    Ok(())
}

/// Rows of `NAME,PROBLEM,direction,algorithm,milliseconds,GFLOP/s`.
fn parse(text: &str, core: Core) -> Outcome<Vec<Measured>> {
    let mut measured = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let wrong = |what: &str| Failure::new(format_args!("line {}: {what}: {line}", i + 1));
        // Counted from the right: whatever a name holds, the last four fields are numbers and words without commas.
        let fields: Vec<&str> = line.rsplitn(5, ',').collect();
        let [_, ms, algo, _, head] = fields[..] else {
            return Err(wrong("six fields are needed, as bench-conv --format csv prints"));
        };
        let text = head.rsplit(',').next().unwrap_or(head);
        let problem: Problem = text.parse().map_err(|e| wrong(&format!("{e}")))?;
        let row = algo::find(algo).ok_or_else(|| wrong("unknown algorithm"))?;
        let ms = ms.parse().ok().filter(|ms| TIMES.contains(ms));
        let ms = ms.ok_or_else(|| wrong(&format!("milliseconds must lie in {TIMES:?}")))?;
        let Options { input, output, .. } = Options::inside_model(&problem.shape);
        let request = algo::Request::dense(&problem.shape, core, [input, output], Accuracy::Fast);
        let kernel = (row.plan)(&request).map_err(|why| wrong(&why))?;
        let work = kernel.work(core, &problem.shape);
        measured.push(Measured { problem: problem.text, algo: row.name, work, ms });
    }
    if measured.is_empty() {
        return Err(Failure::new("no measurements to fit"));
    }
    Ok(measured)
}

fn predict(c: &[f64], work: &[f64]) -> f64 {
    c.iter().zip(work).map(|(c, w)| c * w).sum()
}

/// Non-negative coefficients that minimise the squared relative error, by coordinate descent from zero: each step
/// solves one coefficient exactly, which cannot raise the error.
fn fit<const N: usize>(rows: &[([f64; N], f64)]) -> [f64; N] {
    // Divided by the measured time, the error is relative and the target is 1.
    let rows: Vec<[f64; N]> = rows.iter().map(|(w, ms)| w.map(|w| w / ms)).collect();
    let mut c = [0.0; N];
    for _ in 0..20_000 {
        for j in 0..N {
            let (mut up, mut down) = (0.0, 0.0);
            for r in &rows {
                up += r[j] * (1.0 - predict(&c, r) + c[j] * r[j]);
                down += r[j] * r[j];
            }
            c[j] = if down > 0.0 { (up / down).max(0.0) } else { 0.0 };
        }
    }
    c
}

/// How often the fitted model chooses an algorithm close to the best that was measured.
fn verdict(measured: &[Measured], coefficients: &BTreeMap<&str, [f64; FEATURES.len()]>) -> String {
    let mut problems: BTreeMap<&str, Vec<&Measured>> = BTreeMap::new();
    for m in measured {
        problems.entry(&m.problem).or_default().push(m);
    }
    let loss: Vec<f64> = problems
        .values()
        .map(|runs| {
            let predicted = |m: &Measured| coefficients.get(m.algo).map_or(f64::INFINITY, |c| predict(c, &m.work.0));
            let chosen = runs.iter().min_by(|a, b| predicted(a).total_cmp(&predicted(b))).map_or(f64::NAN, |m| m.ms);
            chosen / runs.iter().map(|m| m.ms).fold(f64::INFINITY, f64::min)
        })
        .collect();
    let within = |limit: f64| 100.0 * loss.iter().filter(|l| **l <= limit).count() as f64 / loss.len() as f64;
    let (n, two, seven) = (loss.len(), within(1.02), within(1.07));
    format!("choice within 2 % of the best on {two:.0} %, within 7 % on {seven:.0} % of {n} problems")
}

#[cfg(test)]
mod tests {
    use swath::Level;

    use super::*;

    #[test]
    fn the_solver_finds_known_coefficients_and_clamps_negative_ones() {
        let mut rows = Vec::new();
        for i in 1..40 {
            let w = [f64::from(i % 7), f64::from(i % 5), 1.0];
            rows.push((w, 0.3 * w[0] + 0.02 * w[1] + 0.5));
        }
        let c = fit(&rows);
        for (got, want) in c.iter().zip([0.3, 0.02, 0.5]) {
            assert!((got - want).abs() < 1e-6, "{c:?}");
        }
        let falling: Vec<_> = (1..20).map(|i| ([f64::from(i), 1.0], 100.0 - f64::from(i))).collect();
        assert_eq!(fit(&falling)[0], 0.0);
    }

    #[test]
    fn measurements_parse_and_malformed_ones_are_errors() {
        let csv = "x,mb1_ic16ih8oc16oh8kh3ph1nx,fwd,direct,0.5,1.0\n\n";
        assert_eq!(parse(csv, Core::here(Level::Scalar)).unwrap()[0].ms, 0.5);
        for bad in ["", "1,2,3", "x,mb1,fwd,direct,0.5,1", "x,mb1_ic16ih8oc16oh8kh3ph1nx,fwd,magic,0.5,1"] {
            assert!(parse(bad, Core::here(Level::Scalar)).is_err(), "{bad}");
        }
        for ms in ["inf", "-inf", "NaN", "0", "-1", "5e-324", "1e300", ""] {
            let Err(Failure::Message(why)) = parse(&csv.replace("0.5", ms), Core::here(Level::Scalar)) else {
                panic!("{ms}")
            };
            assert!(why.contains("line 1: milliseconds must lie in 1e-9..=1000000000000.0"), "{why}");
        }
    }
}
