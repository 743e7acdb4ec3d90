//! Writing files whole or not at all.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::failure::{Failure, Outcome};

/// Writes `text` to a file beside `path`, then renames it to `path`. An existing file keeps its permissions.
pub fn write(path: &Path, text: &str) -> Outcome<()> {
    let failed = |e: std::io::Error| Failure::new(format_args!("cannot write {}: {e}", path.display()));
    let Some(name) = path.file_name() else {
        return Err(Failure::new(format_args!("cannot write {}: it names no file", path.display())));
    };
    // A link stays a link: what it points to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let beside = target.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let written = fs::File::create(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        if let Ok(old) = fs::metadata(&target) {
            file.set_permissions(old.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&beside, &target)
    });
    written.map_err(|e| {
        let _ = fs::remove_file(&beside);
        failed(e)
    })
}
