//! Where problems come from: arguments, or files that list them.

use std::fs;
use std::path::PathBuf;

use swath::benchdnn::Problem;

use crate::failure::{Failure, Outcome};

/// The part of a command line that names problems.
#[derive(clap::Args)]
pub struct Problems {
    /// Convolutions in benchdnn's notation: g (groups) mb (batch) ic ih iw oc oh ow kh kw sh sw (stride)
    /// ph pw (padding) dh dw (holes between taps), then n and a name; widths follow heights
    #[arg(value_name = "PROBLEM")]
    problems: Vec<String>,
    /// A file with a problem a line, `*3` behind one that occurs three times, and comments after `#`; may be repeated
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
}

impl Problems {
    /// All problems: those of the files, then those of the command line.
    pub fn read(&self) -> Outcome<Vec<Problem>> {
        let mut all = Vec::new();
        for path in &self.file {
            let text = fs::read_to_string(path)
                .map_err(|e| Failure::new(format_args!("cannot read {}: {e}", path.display())))?;
            all.extend(Problem::list(&text).map_err(|e| Failure::new(format_args!("{}: {e}", path.display())))?);
        }
        for text in &self.problems {
            all.push(text.parse()?);
        }
        if all.is_empty() {
            return Err(Failure::new("no problem given: name one, such as ic64ih56oc64kh3ph1, or a list with --file"));
        }
        Ok(all)
    }
}
