//! Other libraries' times: files of csv, and commands that print it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::str::FromStr;

use swath::benchdnn::Problem;

use super::data::{Layer, PeerTime, Report};
use crate::failure::{Failure, Outcome};
use crate::measure::TIMES;

/// `NAME=FILE` or `NAME@THREADS=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFile {
    name: String,
    threads: Option<usize>,
    path: PathBuf,
}

impl FromStr for PeerFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = name_and_rest(text, "FILE")?;
        let (name, threads) = match name.split_once('@') {
            None => (name, None),
            Some((name, n)) => (name, Some(n.parse().map_err(|_| format!("{n:?} is no number of threads"))?)),
        };
        Ok(PeerFile { name: name.into(), threads, path: path.into() })
    }
}

/// `NAME=COMMAND`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCommand {
    /// Name of the library.
    pub name: String,
    command: String,
}

impl FromStr for PeerCommand {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = name_and_rest(text, "COMMAND")?;
        Ok(PeerCommand { name: name.into(), command: command.into() })
    }
}

fn name_and_rest<'a>(text: &'a str, rest: &str) -> Result<(&'a str, &'a str), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name, value)),
        _ => Err(format!("expected NAME={rest}")),
    }
}

/// One line of csv.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    problem: Problem,
    implementation: String,
    ms: f64,
}

/// Forward times in `NAME,PROBLEM,direction,implementation,milliseconds,GFLOP/s`; other lines are passed over.
fn parse(text: &str) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (i, line) in text.lines().enumerate() {
        // From the right: a name may hold commas, the last four fields do not.
        let fields: Vec<&str> = line.rsplitn(5, ',').collect();
        let [_, ms, implementation, "fwd", head] = fields[..] else { continue };
        let at = |why: String| format!("line {}: {why}", i + 1);
        // `NAME,PROBLEM`, where PROBLEM ends with NAME: so the problem is what is left of one comma and one name.
        let problem = head.match_indices(',').find_map(|(comma, _)| {
            let problem: Problem = head[comma + 1..].parse().ok()?;
            (problem.name == head[..comma]).then_some(problem)
        });
        let problem = problem.ok_or_else(|| at(format!("no NAME,PROBLEM: {head}")))?;
        let ms = ms.parse().ok().filter(|ms| TIMES.contains(ms));
        let ms = ms.ok_or_else(|| at(format!("milliseconds must lie in {TIMES:?}: {line}")))?;
        lines.push(Line { problem, implementation: implementation.into(), ms });
    }
    if lines.is_empty() {
        return Err("no line of NAME,PROBLEM,fwd,implementation,milliseconds,GFLOP/s".into());
    }
    Ok(lines)
}

/// Gives layers the times of the same geometry; returns how many got one.
fn assign(name: &str, lines: &[Line], threads: usize, layers: &mut [Layer]) -> usize {
    let mut count = 0;
    for layer in layers {
        let Ok(problem) = layer.problem.parse::<Problem>() else { continue };
        let times = lines.iter().filter(|l| l.problem.shape == problem.shape);
        let Some(best) = times.min_by(|a, b| a.ms.total_cmp(&b.ms)) else { continue };
        let implementation = best.implementation.clone();
        layer.run_mut(threads).keep(PeerTime { peer: name.into(), implementation, ms: best.ms });
        count += 1;
    }
    count
}

impl PeerFile {
    /// Reads the file into the report, for its smallest number of threads unless the argument says another.
    pub fn add_to(&self, report: &mut Report) -> Outcome<()> {
        let failed = |why: String| Failure::new(format_args!("{}: {why}", self.path.display()));
        let text = crate::files::read_text(&self.path)?;
        let lines = parse(&text).map_err(failed)?;
        let threads = self.threads.unwrap_or(report.threads[0]);
        if !report.threads.contains(&threads) {
            return Err(failed(format!("times on {threads} threads, but the report has {:?}", report.threads)));
        }
        let mut count = 0;
        for set in &mut report.sets {
            count += assign(&self.name, &lines, threads, &mut set.layers);
        }
        if count == 0 {
            return Err(failed("none of its problems is a layer of the report".into()));
        }
        Ok(())
    }
}

impl PeerCommand {
    /// Runs the command with the problems as arguments, and keeps each layer's smallest time. In the command,
    /// `{threads}` stands for their number, and `{cores}` for a list of as many cores, as taskset takes it.
    pub fn run(&self, problems: &[Problem], threads: usize, layers: &mut [Layer]) -> Outcome<()> {
        let failed = |why: String| Failure::new(format_args!("{} ({}): {why}", self.name, self.command));
        let command = self.command.replace("{threads}", &threads.to_string()).replace("{cores}", &cores(threads));
        let output = Command::new("sh")
            .args(["-c", &format!("{command} \"$@\""), "sh"])
            .args(problems.iter().map(|p| &p.text))
            .stdin(Stdio::null())
            .output()
            .map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let last = stderr.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("it says nothing on stderr");
            return Err(failed(format!("{}: {last}", output.status)));
        }
        let lines = parse(&String::from_utf8_lossy(&output.stdout)).map_err(failed)?;
        assign(&self.name, &lines, threads, layers);
        Ok(())
    }
}

/// The first cores that this process may run on, separated by commas.
fn cores(threads: usize) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap_or("").trim();
    let allowed = list.split(',').filter_map(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse::<usize>().ok()?..=to.parse::<usize>().ok()?)
    });
    let mut cores: Vec<usize> = allowed.flatten().take(threads).collect();
    if cores.is_empty() {
        cores.extend(0..threads);
    }
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn csv_gives_layers_their_best_time() {
        let text = "noise\nx,ic64ih56oc64kh3ph1nx,fwd,jit:avx512,1.5,10\n,ic64ih56oc64kh3ph1,fwd,ref,0.5,10\n\
                    a,b,ic64ih56oc256kh1na,b,fwd,jit,1,1\nx,ic64ih56oc64kh3ph1nx,bwd_d,jit,0.1,10\n";
        let mut report = samples::report();
        for layer in &mut report.sets[0].layers {
            layer.runs[1].peers.clear();
        }
        let lines = parse(text).unwrap();
        assert_eq!(assign("peer", &lines, 2, &mut report.sets[0].layers), 2);
        let times: Vec<_> = report.sets[0].layers.iter().map(|l| l.runs[1].peer("peer")).collect();
        assert_eq!(times, [Some(0.5), Some(1.0)]);
        for bad in [
            "",
            "x,mb1,fwd,jit,1,1",
            "x,ic64ih56oc64kh3ph1nx,fwd,jit,0,1",
            "x,ic64ih56oc64kh3ph1nx,fwd,jit,NaN,1",
            "x,ic64ih56oc64kh3ph1nx,fwd,jit,inf,1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn arguments() {
        let file = |name: &str, threads| Ok(PeerFile { name: name.into(), threads, path: "a=b.csv".into() });
        assert_eq!("oneDNN=a=b.csv".parse(), file("oneDNN", None));
        assert_eq!("oneDNN@2=a=b.csv".parse(), file("oneDNN", Some(2)));
        for bad in ["oneDNN", "=x", "x=", "x@two=y"] {
            assert!(bad.parse::<PeerFile>().is_err(), "{bad}");
        }
        assert_eq!(cores(1).split(',').count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn commands_run_with_the_problems_as_arguments() {
        let mut report = samples::report();
        let layers = &mut report.sets[0].layers;
        let problems: Vec<Problem> = layers.iter().map(|l| l.problem.parse().unwrap()).collect();
        let run = |command: &str, layers: &mut Vec<Layer>| {
            format!("p={command}").parse::<PeerCommand>().unwrap().run(&problems, 2, layers)
        };
        let print = "f() { for p; do echo \"${p#*n},$p,fwd,t{threads},1,1\"; done; }; f";
        run(print, layers).unwrap();
        assert!(layers.iter().all(|l| l.runs[1].peer("p") == Some(1.0) && l.runs[0].peer("p").is_none()));
        assert_eq!(layers[0].runs[1].peers[1].implementation, "t2");
        let Err(Failure::Message(why)) = run("f() { echo broken >&2; exit 3; }; f", layers) else { panic!() };
        assert!(why.contains("broken") && why.contains('3'), "{why}");
        assert!(run("true", layers).is_err(), "no output");
    }
}
