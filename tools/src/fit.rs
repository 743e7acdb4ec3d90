//! `swath fit-cost`: makes the coefficients of the cost model from measurements.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::path::PathBuf;

use swath::algo::{self, ALGOS, Cores, FEATURES, Work};
use swath::benchdnn::Problem;
use swath::{Accuracy, Core, Options, Random};

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
the table in src/algo/cost.rs: the non-negative milliseconds per unit of work that minimise the squared relative error, moved
from there so that less time is lost by the choices that follow. How well they fit, and how good the choices are, goes to
stderr. A problem's times by one algorithm are averaged, such as those of warm weights and of --cold: let all files hold the
same algorithms. Layouts are the model's, and passes forward.")]
pub struct Args {
    /// Measurements; standard input if there is none
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Coefficients of an algorithm, or what it does, a number for each of [`FEATURES`].
type Terms = [f64; FEATURES.len()];

/// One measured run.
struct Measured {
    problem: String,
    algo: &'static str,
    /// Whether it is among those that plans choose from by default.
    by_default: bool,
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
    let measured = averaged(parse(&text, core)?);
    let rows = |name: &str| -> Vec<(Terms, f64)> {
        measured.iter().filter(|m| m.algo == name).map(|m| (m.work.0, m.ms)).collect()
    };
    let of_algo = ALGOS.iter().map(|algo| (algo.name, rows(algo.name))).filter(|(_, rows)| !rows.is_empty());
    let fitted: BTreeMap<&str, Terms> = of_algo.map(|(name, rows)| (name, fit(&rows))).collect();
    let problems = by_problem(&measured);
    eprintln!("fitted: {}", verdict(&problems, &fitted));
    let coefficients = refine(&problems, fitted);
    for algo in ALGOS {
        let (Some(c), rows) = (coefficients.get(algo.name), rows(algo.name)) else { continue };
        let mut errors: Vec<f64> = rows.iter().map(|(w, ms)| (predict(c, w) / ms - 1.0).abs()).collect();
        errors.sort_by(f64::total_cmp);
        let at = |share: f64| 100.0 * errors[((errors.len() - 1) as f64 * share) as usize];
        eprintln!("{:<10} {:3} runs, error {:.0} % median, {:.0} % at 90", algo.name, rows.len(), at(0.5), at(0.9));
        let numbers = c.map(|c| format!("{c:.6}")).join(", ");
        let (name, cores) = (format!("{:?}", algo.name), format!("{:?}", Cores::of(core)));
        writeln!(stdout(), "    {name:<11} {cores:<10} [{numbers}];")?;
    }
    eprintln!("refined: {}", verdict(&problems, &coefficients));
    Ok(())
}

/// The mean of each problem's times by one algorithm.
fn averaged(measured: Vec<Measured>) -> Vec<Measured> {
    let mut all: BTreeMap<(String, &str), (Measured, f64)> = BTreeMap::new();
    for m in measured {
        let ms = m.ms;
        let (sum, runs) = all.entry((m.problem.clone(), m.algo)).or_insert_with(|| (Measured { ms: 0.0, ..m }, 0.0));
        sum.ms += ms;
        *runs += 1.0;
    }
    all.into_values().map(|(sum, runs)| Measured { ms: sum.ms / runs, ..sum }).collect()
}

/// All algorithms' runs of each problem.
fn by_problem(measured: &[Measured]) -> BTreeMap<&str, Vec<&Measured>> {
    let mut problems: BTreeMap<&str, Vec<&Measured>> = BTreeMap::new();
    for m in measured {
        problems.entry(&m.problem).or_default().push(m);
    }
    problems
}

/// Rows of `NAME,PROBLEM,direction,algorithm,milliseconds,GFLOP/s`.
fn parse(text: &str, core: Core) -> Outcome<Vec<Measured>> {
    let mut measured = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let wrong = |what: &str| Failure::new(format_args!("line {}: {what}: {line}", i + 1));
        // Counted from the right: whatever a name holds, the last four fields are numbers and words without commas.
        let fields: Vec<&str> = line.rsplitn(5, ',').collect();
        let [_, ms, algo, direction, head] = fields[..] else {
            return Err(wrong("six fields are needed, as bench-conv --format csv prints"));
        };
        if direction != "fwd" {
            return Err(wrong("only forward passes are fitted"));
        }
        let text = head.rsplit(',').next().unwrap_or(head);
        let problem: Problem = text.parse().map_err(|e| wrong(&format!("{e}")))?;
        let row = algo::find(algo).ok_or_else(|| wrong("unknown algorithm"))?;
        let ms = ms.parse().ok().filter(|ms| TIMES.contains(ms));
        let ms = ms.ok_or_else(|| wrong(&format!("milliseconds must lie in {TIMES:?}")))?;
        let Options { input, output, .. } = Options::inside_model(&problem.shape);
        let plan = |accuracy| (row.plan)(&algo::Request::dense(&problem.shape, core, [input, output], accuracy));
        let work = plan(Accuracy::Fast).map_err(|why| wrong(&why))?.work(core, &problem.shape);
        let by_default = plan(Accuracy::Default).is_ok();
        measured.push(Measured { problem: problem.text, algo: row.name, by_default, work, ms });
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

/// Steps of [`refine`].
const STEPS: usize = 40_000;

/// How far apart, relatively, two predictions are where the choice between them counts as made: it makes the time that choices lose a
/// smooth function of the coefficients.
const DECIDED: f64 = 0.03;

/// What a squared relative error of 1 weighs, in shares of the best time that a choice loses.
const ERROR: f64 = 0.06;

/// Moves coefficients, from those that [`fit`] found, so that choices lose less time: a random search, the same each time. Algorithms of
/// [`Accuracy::Fast`] alone are also left out, as they are by default.
fn refine<'a>(
    problems: &BTreeMap<&str, Vec<&Measured>>,
    mut best: BTreeMap<&'a str, Terms>,
) -> BTreeMap<&'a str, Terms> {
    let choices: Vec<Vec<&Measured>> = problems
        .values()
        .flat_map(|runs| [runs.clone(), runs.iter().filter(|m| m.by_default).copied().collect()])
        .filter(|runs: &Vec<_>| !runs.is_empty())
        .collect();
    let mut least = lost(&choices, &best);
    let (names, mut random) = (best.keys().copied().collect::<Vec<_>>(), Random::new(&[0]));
    for _ in 0..STEPS {
        let mut tried = best.clone();
        for _ in 0..1 + random.below(3) {
            let terms = tried.get_mut(names[random.below(names.len())]).expect("it has coefficients");
            let term = &mut terms[random.below(FEATURES.len())];
            // A term that counts for nothing may come to count, and the other way round.
            *term = if *term > 0.0 {
                if random.chance(0.02) { 0.0 } else { *term * f64::from(random.range(-0.35, 0.35)).exp() }
            } else if random.chance(0.3) {
                f64::from(random.range(0.0, 0.01))
            } else {
                0.0
            };
        }
        let loss = lost(&choices, &tried);
        if loss < least {
            (best, least) = (tried, loss);
        }
    }
    best
}

/// What [`refine`] makes smaller: the mean share of the best time that choices lose, and some of the error.
fn lost(choices: &[Vec<&Measured>], coefficients: &BTreeMap<&str, Terms>) -> f64 {
    let of = |runs: &Vec<&Measured>| {
        let predicted: Vec<f64> = runs.iter().map(|m| predict(&coefficients[m.algo], &m.work.0).max(1e-9)).collect();
        let least = predicted.iter().copied().fold(f64::INFINITY, f64::min);
        let best = runs.iter().map(|m| m.ms).fold(f64::INFINITY, f64::min);
        let (mut time, mut weight, mut error) = (0.0, 0.0, 0.0);
        for (m, p) in runs.iter().zip(&predicted) {
            let share = (-(p / least).ln() / DECIDED).exp();
            (time, weight) = (time + share * m.ms, weight + share);
            // An outlier counts as half wrong, no more.
            error += (p / m.ms).ln().powi(2).min(0.25);
        }
        time / weight / best - 1.0 + ERROR * error / runs.len() as f64
    };
    choices.iter().map(of).sum::<f64>() / choices.len().max(1) as f64
}

/// Problems that are listed whose choice is the furthest from the best.
const WORST: usize = 12;

/// How often the model chooses an algorithm close to the best that was measured.
fn verdict(problems: &BTreeMap<&str, Vec<&Measured>>, coefficients: &BTreeMap<&str, Terms>) -> String {
    let mut loss: Vec<(f64, String)> = problems
        .iter()
        .filter_map(|(problem, runs)| {
            let predicted = |m: &&&Measured| coefficients.get(m.algo).map_or(f64::INFINITY, |c| predict(c, &m.work.0));
            let chosen = runs.iter().min_by(|a, b| predicted(a).total_cmp(&predicted(b)))?;
            let best = runs.iter().min_by(|a, b| a.ms.total_cmp(&b.ms))?;
            let ratio = chosen.ms / best.ms;
            Some((ratio, format!("\n  {ratio:.2}  {} for {}  {problem}", chosen.algo, best.algo)))
        })
        .collect();
    loss.sort_by(|a, b| b.0.total_cmp(&a.0));
    let within = |limit: f64| 100.0 * loss.iter().filter(|l| l.0 <= limit).count() as f64 / loss.len() as f64;
    let (n, two, seven) = (loss.len(), within(1.02), within(1.07));
    let worst: String = loss.iter().take_while(|l| l.0 > 1.07).take(WORST).map(|l| l.1.as_str()).collect();
    format!("choice within 2 % of the best on {two:.0} %, within 7 % on {seven:.0} % of {n} problems{worst}")
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

    /// Two algorithms of one term each. Two times in eight `gemm` takes three times as long, so that it is slower in the mean; relative errors
    /// count that for less than the six times when it is the faster one.
    #[test]
    fn the_search_prefers_right_choices_to_small_errors() {
        let run = |problem: usize, algo, ms| {
            let mut terms = [0.0; FEATURES.len()];
            terms[0] = 10.0;
            Measured { problem: problem.to_string(), algo, by_default: true, work: Work(terms), ms }
        };
        let times = |i| [("direct", 1.0), ("gemm", if i < 2 { 3.0 } else { 0.8 })];
        let measured: Vec<_> = (0..8).flat_map(|i| times(i).map(|(algo, ms)| run(i, algo, ms))).collect();
        let problems = by_problem(&measured);
        let rows = |name| measured.iter().filter(|m| m.algo == name).map(|m| (m.work.0, m.ms)).collect::<Vec<_>>();
        let fitted: BTreeMap<&str, Terms> = ["direct", "gemm"].map(|name| (name, fit(&rows(name)))).into();
        let chosen = |c: &BTreeMap<&str, Terms>| if c["gemm"][0] < c["direct"][0] { "gemm" } else { "direct" };
        assert_eq!((chosen(&fitted), chosen(&refine(&problems, fitted.clone()))), ("gemm", "direct"));
    }

    #[test]
    fn times_of_one_problem_by_one_algorithm_are_averaged() {
        let line = |algo, ms| format!("x,mb1_ic16ih8oc16oh8kh3ph1nx,fwd,{algo},{ms},1.0\n");
        let csv = line("direct", 0.5) + &line("gemm", 3.0) + &line("direct", 1.5);
        let measured = averaged(parse(&csv, Core::here(Level::Scalar)).unwrap());
        let times: Vec<_> = measured.iter().map(|m| (m.algo, m.ms)).collect();
        assert_eq!(times, [("direct", 1.0), ("gemm", 3.0)]);
        assert!(parse(&csv.replace("fwd", "bwd_d"), Core::here(Level::Scalar)).is_err());
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
