//! The table of results in README.md, made from a report.

use std::path::Path;

use super::data::Report;
use super::figures::{self, Versus};
use crate::failure::{Failure, Outcome};
use crate::files;

/// What follows `<!--` and precedes `-->` where the block begins and ends; a level may stand behind it.
const BEGIN: &str = "results";
const END: &str = "/results";

/// Titles of the standard sets; others go by their names.
const TITLES: &[(&str, &str)] = &[
    ("assorted", "assorted (groups, dilation, batches, odd sizes)"),
    ("mobilenet_v2", "MobileNet v2"),
    ("resnet50", "ResNet-50"),
    ("squeezenet", "SqueezeNet 1.1"),
    ("vgg16", "VGG-16"),
];

/// Rewrites the block between the markers of a file: those of the report's level, `<!-- results avx2 -->`, if it has such, so
/// that tables of several levels stand side by side, else `<!-- results -->`.
pub fn update(path: &Path, report: &Report) -> Outcome<()> {
    let failed = |why: String| Failure::new(format_args!("{}: {why}", path.display()));
    let text = files::read_text(path)?;
    let block = block(report).map_err(failed)?;
    let of_level = format!(" {}", report.machine.level);
    let suffix = if text.contains(&marker(BEGIN, &of_level)) { &of_level } else { "" };
    files::write_text(path, &replaced(&text, suffix, &block).map_err(failed)?)
}

fn marker(word: &str, suffix: &str) -> String {
    format!("<!-- {word}{suffix} -->")
}

/// The text with another block between the markers of this suffix, and nothing else changed.
fn replaced(text: &str, suffix: &str, block: &str) -> Result<String, String> {
    let [first, last] = [BEGIN, END].map(|word| marker(word, suffix));
    let place = |marker: &str| {
        let mut places = text.match_indices(marker);
        match (places.next(), places.next()) {
            (Some((at, _)), None) => Ok(at),
            (None, _) => Err(format!("it has no {marker}")),
            (Some(_), Some(_)) => Err(format!("it has more than one {marker}")),
        }
    };
    let (begin, end) = (place(&first)? + first.len(), place(&last)?);
    if end < begin {
        return Err(format!("{last} stands before {first}"));
    }
    Ok(format!("{}\n\n{}\n\n{}", &text[..begin], block.trim(), &text[end..]))
}

/// What stands between the markers.
fn block(report: &Report) -> Result<String, String> {
    let Some(peer) = report.peers().into_iter().next() else {
        return Err(
            "the table is against another library, and the report has none: see --peer-command and --peer".into()
        );
    };
    let m = &report.machine;
    let mut out = format!(
        "Convolutions alone, f32, against {peer} in the same run on the same cores: {}, {}, level {}, FMA peak {:.1} GFLOP/s a \
         core, {}.\nAlgorithms as {}, accuracy {}; weights packed beforehand and {}, each side with activations in its own blocked layout{}. Ratios above 1 \
         mean that swath is faster.\n\n",
        m.cpu.as_deref().unwrap_or("unknown CPU"),
        m.architecture,
        m.level,
        m.peak,
        report.date.split('T').next().unwrap_or(&report.date),
        if report.is_tuned() { "a tuning table says" } else { "the cost model chooses" },
        report.timing.accuracy,
        if report.timing.cold { "read from memory" } else { "warm" },
        if report.timing.brief { "; a brief run, which gives an impression only" } else { "" },
    );
    let mut head = String::from("| layers of |");
    for &t in &report.threads {
        head += &format!(" {}: geometric mean | network total | slowest layer |", figures::threads(t));
    }
    out += &format!("{head}\n|---|{}\n", "---|".repeat(3 * report.threads.len()));
    for set in &report.sets {
        let all: Vec<Option<Versus>> = (0..report.threads.len()).map(|t| figures::versus(set, t, &peer)).collect();
        if all.iter().all(Option::is_none) {
            continue;
        }
        let title = TITLES.iter().find(|(name, _)| *name == set.name).map_or(set.name.as_str(), |(_, title)| title);
        out += &format!("| {} |", title.replace('|', "\\|"));
        for v in all {
            out += &v.map_or(" | | |".into(), |v| format!(" {:.2} | {:.2} | {:.2} |", v.mean, v.total, v.slowest.1));
        }
        out.push('\n');
    }
    let tune = if report.is_tuned() { "swath tune\n" } else { "" };
    out += &format!("\nTo repeat it:\n\n```sh\n{tune}{}\n```", report.command);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn only_the_block_is_replaced() {
        for suffix in ["", " avx2"] {
            let [begin, end] = [BEGIN, END].map(|word| marker(word, suffix));
            let (before, after) =
                ("# Title\n\n\ttext\r\n", "\nmore <!-- x --> <!-- results neon --><!-- /results neon -->\n");
            let old = format!("{before}{begin}\nold\n{end}{after}");
            let new = replaced(&old, suffix, "new\n").unwrap();
            assert_eq!(new, format!("{before}{begin}\n\nnew\n\n{end}{after}"));
            assert_eq!(replaced(&new, suffix, "new").unwrap(), new, "twice is once");
            for (text, words) in [
                ("", "has no <!-- results"),
                (&begin, "has no <!-- /results"),
                (&format!("{end}{begin}"), "before"),
                (&format!("{old}{end}"), "more than one"),
            ] {
                assert!(replaced(text, suffix, "x").unwrap_err().contains(words), "{words}");
            }
        }
    }

    #[test]
    fn the_block_has_a_row_for_each_set() {
        let mut report = samples::report();
        let text = block(&report).unwrap();
        for words in [
            "against oneDNN",
            "2026-11-25",
            "| layers of | 1 thread: geometric mean | network total | slowest layer | 2 threads: geometric mean |",
            "|---|---|---|---|---|---|---|\n",
            "| ResNet-50 | 1.25 | 1.25 | 1.25 | 1.25 | 1.25 | 1.25 |",
            "swath report --threads 1,2",
        ] {
            assert!(text.contains(words), "{words} in {text}");
        }
        for run in report.sets.iter_mut().flat_map(|s| &mut s.layers).flat_map(|l| &mut l.runs) {
            run.peers.clear();
        }
        assert!(block(&report).unwrap_err().contains("--peer-command"));
    }
}
