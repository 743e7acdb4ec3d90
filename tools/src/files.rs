//! Text files as the program reads and writes them.

use std::io::{Read, stdin};
use std::path::Path;

use crate::failure::{Failure, Outcome};

/// Bytes of the longest text that is read, as a list of problems, as measurements, or as a report's JSON: a report of all
/// standard lists takes a fiftieth of it.
const LONGEST: usize = 16 << 20;

/// The text of a file, without a byte order mark.
pub fn read_text(path: &Path) -> Outcome<String> {
    Ok(swath::file::read_text(path, LONGEST)?)
}

/// What comes on standard input.
pub fn read_stdin() -> Outcome<String> {
    let failed = |why: &str| Failure::new(format_args!("cannot read stdin: {why}"));
    let mut text = String::new();
    stdin().take(LONGEST as u64 + 1).read_to_string(&mut text).map_err(|e| failed(&e.to_string()))?;
    if text.len() > LONGEST {
        return Err(failed(&format!("it has more than {LONGEST} bytes")));
    }
    Ok(text.strip_prefix('\u{feff}').map(String::from).unwrap_or(text))
}

/// Writes a file whole or not at all; pipes and devices get the bytes.
pub fn write_text(path: &Path, text: &str) -> Outcome<()> {
    Ok(swath::file::write(path, |out| out.write_all(text.as_bytes()))?)
}
