//! Measures a report.

use std::collections::BTreeMap;
use std::time::SystemTime;

use swath::algo::Pass;
use swath::benchdnn::{Problem, STANDARD_SETS};
use swath::{ConvShape, Level};

use super::data::{Choice, FORMAT, Layer, MODEL, Machine, Method, Report, Run, Set, TUNED, Time};
use super::peers::PeerCommand;
use crate::failure::Outcome;
use crate::machine;
use crate::measure::{self, Progress, Timing};
use crate::plan::{self, Activations, Conv, Precision, Request};

/// Chooses an algorithm for a problem; `None` where it has nothing to say.
type Chooser = fn(&ConvShape, &Request) -> Outcome<Option<String>>;

/// Who chooses, in the order of their precedence, weakest first: the last that has a say is what a plan does by
/// default. One row is one more column of the tables, and one more line of the picture of choices.
const CHOOSERS: &[(&str, Chooser)] = &[(MODEL, plan::modelled), (TUNED, plan::tuned)];

/// What is measured, and how.
pub struct Job {
    /// Sets of problems.
    pub sets: Vec<(String, Vec<Problem>)>,
    /// Numbers of threads, ascending.
    pub threads: Vec<usize>,
    /// How much rounding error is acceptable.
    pub accuracy: Precision,
    /// Fewer and shorter rounds.
    pub brief: bool,
    /// Weights from memory.
    pub cold: bool,
    /// Passes over each set.
    pub passes: usize,
    /// Other libraries.
    pub peers: Vec<PeerCommand>,
    /// What to type to repeat it.
    pub command: String,
}

/// The standard lists.
pub fn standard_sets() -> Outcome<Vec<(String, Vec<Problem>)>> {
    STANDARD_SETS.iter().map(|(name, text)| Ok((name.to_string(), Problem::list(text)?))).collect()
}

/// A flat list by set: the standard list that has the problem, else what stands before the `:` of its name.
pub fn grouped(problems: Vec<Problem>) -> Outcome<Vec<(String, Vec<Problem>)>> {
    let mut standard = BTreeMap::new();
    for (set, list) in standard_sets()? {
        standard.extend(list.into_iter().map(|p| (p.text, set.clone())));
    }
    let mut sets: Vec<(String, Vec<Problem>)> = Vec::new();
    for p in problems {
        let prefix = p.name.split_once(':').map_or("", |(prefix, _)| prefix);
        let prefix = if prefix.is_empty() { "problems" } else { prefix };
        let set = standard.get(&p.text).map_or(prefix, String::as_str);
        match sets.iter_mut().find(|(name, _)| name == set) {
            Some((_, list)) => list.push(p),
            None => sets.push((set.to_string(), vec![p])),
        }
    }
    Ok(sets)
}

/// Measures everything.
pub fn collect(job: &Job) -> Outcome<Report> {
    let level = swath::cpu()?.level;
    let timing = if job.brief { Timing::BRIEF } else { Timing::FULL };
    let layers: usize = job.sets.iter().map(|(_, list)| list.len()).sum();
    let progress = Progress::new(layers * job.threads.len() * job.passes);
    progress.at("this machine");
    let mut machine = this_machine(level)?;
    let mut sets = Vec::new();
    for (name, problems) in &job.sets {
        let mut layers: Vec<Layer> = problems.iter().map(layer).collect();
        for &threads in &job.threads {
            let request = Request {
                pass: Pass::Forward,
                level,
                layout: Activations::Model,
                algo: None,
                accuracy: job.accuracy,
                threads,
            };
            for _ in 0..job.passes {
                for peer in &job.peers {
                    progress.at(&format!("{} on {name}", peer.name));
                    peer.run(problems, threads, &mut layers)?;
                }
                plan::with_threads(threads, || {
                    for (problem, layer) in problems.iter().zip(&mut layers) {
                        progress.at(&format!("{name}: {}, {threads} threads", layer.geometry()));
                        layer.keep_fastest(run(problem, &request, timing, job.cold)?);
                        progress.step();
                    }
                    Ok(())
                })?;
            }
        }
        sets.push(Set { name: name.clone(), layers });
    }
    let accuracy = job.accuracy.name().into();
    // The clock of a shared machine varies: the better of two measurements, minutes apart.
    machine.peak = machine.peak.max(measure::peak(level)?);
    Ok(Report {
        format: FORMAT,
        swath: env!("CARGO_PKG_VERSION").into(),
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        command: job.command.clone(),
        machine,
        timing: Method { rounds: timing.rounds, passes: job.passes, brief: job.brief, cold: job.cold, accuracy },
        threads: job.threads.clone(),
        sets,
    })
}

fn this_machine(level: Level) -> Outcome<Machine> {
    let caches = machine::caches();
    Ok(Machine {
        cpu: machine::cpu_name(),
        architecture: std::env::consts::ARCH.into(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        level: level.name().into(),
        peak: measure::peak(level)?,
        bandwidths: measure::bandwidths(level, &caches)?,
        caches,
    })
}

/// A layer without runs.
fn layer(p: &Problem) -> Layer {
    let elements = |d: [usize; 4]| d.iter().map(|&v| v as u64).product::<u64>();
    let bytes = 4 * (elements(p.shape.input()) + elements(p.shape.weights()) + elements(p.shape.output()));
    let (name, problem) = (p.name.clone(), p.text.clone());
    Layer { name, problem, times: p.times, flop: p.flop(), bytes, runs: Vec::new() }
}

/// Times every algorithm that supports a problem.
fn run(problem: &Problem, request: &Request, timing: Timing, cold: bool) -> Outcome<Run> {
    let mut choices: Vec<Choice> = Vec::new();
    for (by, choose) in CHOOSERS {
        if let Some(algorithm) = choose(&problem.shape, request)? {
            choices.push(Choice { by: by.to_string(), algorithm });
        }
    }
    let mut names = plan::algos(&problem.shape, request);
    for c in &choices {
        if !names.contains(&c.algorithm) {
            names.push(c.algorithm.clone());
        }
    }
    // As bench-conv does: twice the last cache.
    let evict = cold.then(|| 2 * machine::last_cache());
    let mut convs = Vec::new();
    for name in &names {
        convs.push(Conv::new(problem, &Request { algo: Some(name.clone()), ..request.clone() }, evict)?);
    }
    let runs = convs.iter_mut().map(|conv| move || conv.run()).collect();
    let seconds = timing.interleaved(problem.flop(), runs)?;
    let time = |(algorithm, mut seconds): (String, Vec<f64>)| {
        seconds.sort_by(f64::total_cmp);
        Time { algorithm, ms: seconds[0] * 1e3, median_ms: seconds[seconds.len() / 2] * 1e3 }
    };
    let algorithms = names.into_iter().zip(seconds).map(time).collect();
    Ok(Run { threads: request.threads, choices, algorithms, peers: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_grouped_by_their_set() {
        let mut list = standard_sets().unwrap().remove(0).1;
        let all = list.len();
        list.push("ic4ih5oc4kh3nnet:1".parse().unwrap());
        list.push("ic4ih5oc4kh3n:x".parse().unwrap());
        list.push("ic4ih5oc4kh3".parse().unwrap());
        list.push("ic4ih5oc8kh3nnet:2".parse().unwrap());
        let sets = grouped(list).unwrap();
        let sizes: Vec<(&str, usize)> = sets.iter().map(|(n, l)| (n.as_str(), l.len())).collect();
        assert_eq!(sizes, [("assorted", all), ("net", 2), ("problems", 2)]);
    }

    #[test]
    fn a_second_pass_keeps_the_smaller_times() {
        let p: Problem = "ic2ih3oc4kh1nx".parse().unwrap();
        let mut l = layer(&p);
        assert_eq!((l.bytes, l.flop), (4 * (2 * 9 + 8 + 4 * 9), 2 * 8 * 9));
        let run = |a: f64, b: f64| Run {
            threads: 1,
            choices: vec![Choice { by: "cost model".into(), algorithm: "a".into() }],
            algorithms: [("a", a), ("b", b)].map(|(n, ms)| Time { algorithm: n.into(), ms, median_ms: ms }).to_vec(),
            peers: Vec::new(),
        };
        l.run_mut(1);
        l.keep_fastest(run(2.0, 3.0));
        l.keep_fastest(run(4.0, 1.0));
        assert_eq!(l.runs.len(), 1);
        assert_eq!((l.runs[0].ms("a"), l.runs[0].ms("b")), (Some(2.0), Some(1.0)));
    }
}
