//! The written form of tuning tables: TOML, for people first.
//!
//! ```text
//! format = 1
//!
//! [[tuned]]
//! cpu = "AuthenticAMD 25/17 AMD EPYC"
//! level = "avx512"
//! threads = 1
//! kernels = "8c5d2f3e1a907b64"
//!
//! [[tuned.convolution]]
//! problem = "mb1ic64ih56oc64oh56kh3ph1"
//! input = "blocked"
//! output = "blocked"
//! candidates = [
//!     { algo = "direct", ms = 2.1, warm_ms = 2.05, cold_ms = 2.15 },
//!     { algo = "gemm", ms = 2.9, warm_ms = 2.85, cold_ms = 2.95 },
//! ]
//! ```
//!
//! Problems are in benchdnn's notation, which has one padding for opposite sides. Where they differ, `padding = [top,
//! left, bottom, right]` stands beside the problem, which then has the larger of each pair.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use swath_kernels::shape::{ConvShape, Padding};

use super::table::{Conditions, Convolution, Entry, Figures, Measured, TuningTable};
use super::written::{Layouts, convolution, line, padded};
use crate::benchdnn::Problem;
use crate::error::Error;

/// Version of the form. Others are ignored.
pub(super) const FORMAT: i64 = 1;

const HEADER: &str = "\
# What `swath tune` measured: the candidates of each convolution in milliseconds, the fastest first, for one CPU,
# instruction-set level, number of threads and set of kernels. Plans take the first candidate that they support.
# `ms` decides; it lies between `warm_ms` (weights in cache) and `cold_ms` (weights from memory).
#
# Made by a program, which keeps no comments. `swath tune --show` prints it, `swath tune --clear` removes it, and
# without it plans choose by their cost model.
";

/// What a text held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The entries that can be read.
    pub table: TuningTable,
    /// What is wrong with each of the others, in one line.
    pub skipped: Vec<String>,
}

#[derive(Deserialize)]
struct Group {
    cpu: String,
    level: String,
    threads: usize,
    kernels: String,
    #[serde(default)]
    convolution: Vec<toml::Value>,
}

#[derive(Deserialize)]
struct Item {
    problem: String,
    padding: Option<[usize; 4]>,
    input: String,
    output: String,
    candidates: Vec<Candidate>,
}

#[derive(Deserialize)]
struct Candidate {
    algo: String,
    ms: f64,
    warm_ms: f64,
    cold_ms: f64,
}

/// Reads a text in the form of a tuning file.
impl FromStr for Parsed {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let name = "the tuning table";
        parse(name, text).map_err(|problem| Error::Format { file: name.into(), problem })
    }
}

/// Reads a text; `source` is what the table will be called. What is wrong with the text as a whole is an error in one
/// line.
pub(super) fn parse(source: &str, text: &str) -> Result<Parsed, String> {
    let mut top: toml::Table =
        text.parse().map_err(|e: toml::de::Error| format!("not TOML, or cut off: {}", line(e.message())))?;
    match top.get("format").map(|f| (f, f.as_integer())) {
        Some((_, Some(FORMAT))) => {}
        Some((other, _)) => return Err(format!("it has format {other}, this version of swath reads {FORMAT}")),
        None => return Err(format!("not a tuning file: it lacks `format = {FORMAT}`")),
    }
    let mut parsed = Parsed { table: TuningTable::new(source), skipped: Vec::new() };
    let groups = match top.remove("tuned") {
        None => Vec::new(),
        Some(toml::Value::Array(groups)) => groups,
        Some(other) => return Err(format!("`tuned` is a {}, not an array of tables", other.type_str())),
    };
    for (g, group) in groups.into_iter().enumerate() {
        let Group { cpu, level, threads, kernels, convolution } = match group.try_into() {
            Ok(group) => group,
            Err(e) => {
                parsed.skipped.push(format!("[[tuned]] {}: {}", g + 1, line(e)));
                continue;
            }
        };
        let conditions = Conditions { cpu, level, threads, kernels };
        for (i, item) in convolution.into_iter().enumerate() {
            match read_item(item) {
                Ok((convolution, entry)) => parsed.table.insert(conditions.clone(), convolution, entry),
                Err(why) => parsed.skipped.push(format!("[[tuned]] {}, convolution {}: {why}", g + 1, i + 1)),
            }
        }
    }
    Ok(parsed)
}

fn read_item(item: toml::Value) -> Result<(Convolution, Entry), String> {
    let item: Item = item.try_into().map_err(line)?;
    let convolution = convolution(&item.problem, item.padding, Layouts { input: &item.input, output: &item.output })?;
    let candidates = item.candidates.into_iter().map(|c| match Figures::new(c.ms, c.warm_ms, c.cold_ms) {
        Some(figures) => Ok(Measured { algo: c.algo, figures }),
        None => Err(format!("{} has times that are not positive: {}, {}, {}", c.algo, c.ms, c.warm_ms, c.cold_ms)),
    });
    let entry = Entry::new(candidates.collect::<Result<_, _>>()?);
    let entry = entry.ok_or_else(|| format!("{} has no candidate, or one twice", item.problem))?;
    Ok((convolution, entry))
}

/// The problem in benchdnn's notation, and the padding where the notation cannot say it.
fn written(shape: &ConvShape) -> (String, Option<[usize; 4]>) {
    if let Ok(problem) = Problem::new(shape, "") {
        return (problem.text, None);
    }
    let Padding { top, left, bottom, right } = shape.pad;
    let (v, h) = (top.max(bottom), left.max(right));
    let symmetric =
        padded(shape, [v, h, v, h]).and_then(|s| Problem::new(&s, "").map_err(|_| unreachable!("symmetric")));
    // More padding than a valid shape has can fail only where sizes overflow.
    let text = symmetric.map_or_else(|e| format!("# {}", line(e)), |p| p.text);
    (text, Some([top, left, bottom, right]))
}

/// The table as TOML, sorted, so that equal tables are equal files.
impl fmt::Display for TuningTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}format = {FORMAT}")?;
        let mut items: Vec<_> = self.iter().map(|(c, v, e)| (c, written(&v.shape), v, e)).collect();
        items.sort_by_cached_key(|(c, written, v, _)| ((*c).clone(), written.clone(), v.input.name(), v.output.name()));
        let mut last = None;
        for (c, (problem, padding), v, entry) in items {
            if last != Some(c) {
                last = Some(c);
                let Conditions { cpu, level, threads, kernels } = c;
                let [cpu, level, kernels] = [cpu, level, kernels].map(|s| quoted(s));
                write!(f, "\n[[tuned]]\ncpu = {cpu}\nlevel = {level}\nthreads = {threads}\nkernels = {kernels}\n")?;
            }
            write!(f, "\n[[tuned.convolution]]\nproblem = {}\n", quoted(&problem))?;
            if let Some(sides) = padding {
                writeln!(f, "padding = {sides:?}")?;
            }
            write!(f, "input = \"{}\"\noutput = \"{}\"\ncandidates = [\n", v.input.name(), v.output.name())?;
            for Measured { algo, figures: t } in entry.candidates() {
                let (algo, ms, warm, cold) = (quoted(algo), t.ms(), t.warm_ms(), t.cold_ms());
                writeln!(f, "    {{ algo = {algo}, ms = {ms:?}, warm_ms = {warm:?}, cold_ms = {cold:?} }},")?;
            }
            f.write_str("]\n")?;
        }
        Ok(())
    }
}

/// A string of TOML.
fn quoted(s: &str) -> String {
    toml::Value::from(s).to_string()
}
