//! Reads a tuning table as [`TuningTable`] writes it, and no other TOML: the tables that ship with the crate.
//!
//! The process's first plan waits for this. TOML's parser took 3 ms for the 74 KB of one table.

use core::fmt;

use swath_kernels::layout::Layout;
use swath_kernels::shape::{ConvShape, ShapeError};

use super::table::{Conditions, Convolution, Entry, Figures, Measured, TuningTable};
use crate::benchdnn::Problem;

/// The table of a text that was written by this crate; `None` for any other.
pub(super) fn read(name: &str, text: &str) -> Option<TuningTable> {
    let mut table = TuningTable::new(name);
    let mut group = Conditions { cpu: String::new(), level: String::new(), threads: 0, kernels: String::new() };
    let mut item = Item::default();
    for line in text.lines() {
        match line {
            "" | "[[tuned]]" | "[[tuned.convolution]]" | "candidates = [" | "format = 1" => (),
            "]" => {
                let Item { problem, padding, input, output, candidates } = std::mem::take(&mut item);
                let convolution = convolution(problem, padding, Layouts { input, output }).ok()?;
                table.insert(group.clone(), convolution, Entry::new(candidates)?);
            }
            _ if line.starts_with('#') => (),
            _ => match line.split_once(" = ")? {
                ("cpu", v) => group.cpu = quoted(v)?.into(),
                ("level", v) => group.level = quoted(v)?.into(),
                ("threads", v) => group.threads = v.parse().ok()?,
                ("kernels", v) => group.kernels = quoted(v)?.into(),
                ("problem", v) => item.problem = quoted(v)?,
                ("padding", v) => item.padding = Some(sides(v)?),
                ("input", v) => item.input = quoted(v)?,
                ("output", v) => item.output = quoted(v)?,
                ("    { algo", v) => item.candidates.push(candidate(v)?),
                _ => return None,
            },
        }
    }
    Some(table)
}

#[derive(Default)]
struct Item<'a> {
    problem: &'a str,
    padding: Option<[usize; 4]>,
    input: &'a str,
    output: &'a str,
    candidates: Vec<Measured>,
}

/// What stands between quotes, where nothing needs an escape.
fn quoted(v: &str) -> Option<&str> {
    v.strip_prefix('"')?.strip_suffix('"').filter(|v| !v.contains(['"', '\\']))
}

/// `[0, 1, 2, 3]`.
fn sides(v: &str) -> Option<[usize; 4]> {
    let all: Option<Vec<usize>> = v.strip_prefix('[')?.strip_suffix(']')?.split(", ").map(|v| v.parse().ok()).collect();
    all?.try_into().ok()
}

/// `"direct", ms = 2.1, warm_ms = 2.05, cold_ms = 2.15 },`
fn candidate(v: &str) -> Option<Measured> {
    let mut fields = v.strip_suffix(" },")?.split(", ");
    let algo = quoted(fields.next()?)?.into();
    let mut time = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix(" = ")?.parse().ok();
    let figures = Figures::new(time("ms")?, time("warm_ms")?, time("cold_ms")?)?;
    fields.next().is_none().then_some(Measured { algo, figures })
}

/// Names of a convolution's layouts.
pub(super) struct Layouts<'a> {
    pub input: &'a str,
    pub output: &'a str,
}

/// The convolution that problem, padding and layouts say.
pub(super) fn convolution(problem: &str, padding: Option<[usize; 4]>, of: Layouts<'_>) -> Result<Convolution, String> {
    let problem: Problem = problem.parse().map_err(line)?;
    let shape = match padding {
        None => problem.shape,
        Some(sides) => padded(&problem.shape, sides).map_err(line)?,
    };
    let layout = |name: &str| {
        Layout::ALL.into_iter().find(|l| l.name() == name).ok_or_else(|| format!("there is no layout {name:?}"))
    };
    Ok(Convolution { shape, input: layout(of.input)?, output: layout(of.output)? })
}

/// The geometry with other padding.
pub(super) fn padded(s: &ConvShape, sides: [usize; 4]) -> Result<ConvShape, ShapeError> {
    let builder = ConvShape::builder(s.input(), s.weights()).stride([s.sh, s.sw]).dilation([s.dh, s.dw]);
    builder.padding(sides).groups(s.groups).build()
}

/// One line of a message that may have many.
pub(super) fn line(e: impl fmt::Display) -> String {
    e.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(all(test, feature = "tune"))]
mod tests {
    use super::*;
    use crate::tuning::form;

    #[test]
    fn what_is_written_is_read_as_toml_reads_it() {
        let text = r#"format = 1

[[tuned]]
cpu = "a 1/2"
level = "avx2"
threads = 3
kernels = "00"

[[tuned.convolution]]
problem = "mb1ic64ih56oc64oh56kh3ph1"
padding = [0, 1, 1, 0]
input = "nchw"
output = "blocked"
candidates = [
    { algo = "direct", ms = 2.1, warm_ms = 2.05, cold_ms = 2.15 },
    { algo = "gemm", ms = 2.9, warm_ms = 1e-5, cold_ms = 2.95 },
]
"#;
        let table = read("a", text).unwrap();
        assert_eq!((table.len(), &table), (1, &form::parse("a", text).unwrap().table));
        assert_eq!(read("a", &table.to_string()).unwrap(), table);
        for (from, to) in [
            ("ms = 2.1,", "ms = 0.0,"),
            ("threads = 3", "threads = x"),
            ("[0, 1, 1, 0]", "[0, 1, 1]"),
            ("\"blocked\"", "\"b\""),
            ("ic64", "ic65g2"),
            ("level = ", "levels = "),
            ("cold_ms", "cool_ms"),
            ("2.15 }", "2.15, more = 1.0 }"),
        ] {
            assert_eq!(read("a", &text.replacen(from, to, 1)), None, "{to}");
        }
    }
}
