//! What a path leads to, for whoever wants to write there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where bytes for a path go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A regular file, or nothing yet: to be replaced whole. No link is left in the path's last part.
    File(PathBuf),
    /// A pipe, a device, or an open descriptor of this system: to be opened and written into.
    Stream(PathBuf),
    /// This process's standard output, whose position in a file is shared with whatever else is printed.
    Stdout,
    /// This process's standard error.
    Stderr,
}

impl Target {
    /// Follows links one by one, since the last one may lead to nothing yet, or to a descriptor, which looks like a link to
    /// the file behind it.
    pub fn of(path: &Path) -> io::Result<Self> {
        // As many as Linux follows.
        const MOST_LINKS: usize = 40;
        let mut at = path.to_path_buf();
        for _ in 0..=MOST_LINKS {
            if at.file_name().is_none() {
                // Of `/`, `..` and the empty path, only the last is no folder.
                return Err(
                    if at == Path::new("") { io::ErrorKind::NotFound } else { io::ErrorKind::IsADirectory }.into()
                );
            }
            let found = match fs::symlink_metadata(&at) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Target::File(at)),
                found => found?,
            };
            if !found.is_symlink() {
                return if found.is_dir() {
                    Err(io::ErrorKind::IsADirectory.into())
                } else if found.is_file() {
                    Ok(Target::File(at))
                } else {
                    Ok(Target::Stream(at))
                };
            }
            let folder = at.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let folder = fs::canonicalize(folder)?;
            if folder.starts_with("/proc") && folder.ends_with("fd") {
                return descriptor(&folder, &at);
            }
            at = folder.join(fs::read_link(&at)?);
        }
        Err(io::Error::other(format!("more than {MOST_LINKS} symbolic links")))
    }
}

/// A link in `/proc/*/fd`. Opening it again gives a position of its own, so this process's own output is named.
fn descriptor(folder: &Path, at: &Path) -> io::Result<Target> {
    if fs::metadata(at)?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let own = fs::canonicalize("/proc/self").is_ok_and(|own| folder.starts_with(own));
    Ok(match at.file_name().and_then(|n| n.to_str()) {
        Some("1") if own => Target::Stdout,
        Some("2") if own => Target::Stderr,
        _ => Target::Stream(at.to_path_buf()),
    })
}
