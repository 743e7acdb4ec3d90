//! Files that are there whole or not at all.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Ends the names of files that are being written.
const BEING_WRITTEN: &str = ".tmp";

/// Writes a file beside `path`, waits until the disk has it, and renames it to `path`: whoever reads sees the old
/// content or the new one, also when the program dies in between.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    // Beside the target: a rename is atomic within one file system only.
    let beside = path.with_file_name(format!("{}{}.{unique}{BEING_WRITTEN}", prefix(path)?, std::process::id()));
    let written = (|| {
        let mut file = fs::File::create_new(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Removes what killed writers of `path` left beside it. Only for whoever knows that nobody writes it now.
pub(crate) fn remove_leftovers(path: &Path) -> std::io::Result<()> {
    let prefix = prefix(path)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let middle = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(BEING_WRITTEN));
        if middle.is_some_and(|m| !m.is_empty() && m.chars().all(|c| c.is_ascii_digit() || c == '.')) {
            let _ = fs::remove_file(folder.join(&*name));
        }
    }
    Ok(())
}

fn prefix(path: &Path) -> std::io::Result<String> {
    let name = path.file_name().ok_or(std::io::ErrorKind::InvalidFilename)?;
    Ok(format!(".{}.", name.to_string_lossy()))
}
