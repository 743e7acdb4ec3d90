//! Files: read up to a limit, and written whole or not at all.
//!
//! A path that a user names may be anything: a link, a pipe, `/dev/null`, `/dev/stdout`, an endless device. What is no
//! regular file is never replaced, renamed or removed; bytes go into it.

mod target;

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use swath_kernels::pages::prefer_large;

use crate::error::{Error, Result};

pub(crate) use target::Target;

/// Bytes that are gathered before the system is asked to write them.
const WRITTEN_AT_ONCE: usize = 1 << 18;

/// Ends the names of files that are being written.
const BEING_WRITTEN: &str = ".tmp";

/// Writes a file, whole or not at all.
///
/// `content` writes into a new file beside `path`, which takes the place of the old one when the disk has it: whoever
/// reads sees the old content or the new one, also when the program dies in between. The new file has the old one's
/// permissions and, where the system allows it, owner; not its other hard links and extended attributes. A symbolic
/// link stays, and what it points to is written; a dangling one creates its target.
///
/// A pipe, a device, or a link to an open descriptor such as `/dev/stdout` stays what it is and gets the bytes.
///
/// ```
/// use std::io::Write;
/// let path = std::env::temp_dir().join(format!("swath-doc-{}.txt", std::process::id()));
/// swath::file::write(&path, |out| writeln!(out, "whole"))?;
/// assert_eq!(swath::file::read_text(&path, 100)?, "whole\n");
/// assert!(swath::file::read_text(&path, 5).unwrap_err().to_string().contains("6 bytes, but at most 5 are read"));
/// std::fs::remove_file(&path).unwrap();
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`]; an old file is unchanged then.
pub fn write(path: impl AsRef<Path>, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let path = path.as_ref();
    let written = Target::of(path).and_then(|target| match target {
        Target::File(path) => replace(&path, content),
        Target::Stream(path) => pour(File::options().append(true).open(path)?, content),
        Target::Stdout => pour(io::stdout().lock(), content),
        Target::Stderr => pour(io::stderr().lock(), content),
    });
    written.map_err(|error| Error::Io { action: "write", path: path.into(), error })
}

fn pour(out: impl Write, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(WRITTEN_AT_ONCE, out);
    content(&mut out)?;
    out.flush()
}

/// Writes a file beside `path`, which is a regular file or nothing yet, and renames it to `path`.
fn replace(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    let old = fs::metadata(path).ok();
    // Beside the target: a rename is atomic within one file system only.
    let beside = companion(path, &format!(".{}.{unique}{BEING_WRITTEN}", std::process::id()))?;
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if old.is_some() {
        // Nobody else reads it before it has the old one's permissions.
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    let file = options.open(&beside)?;
    let written = (|| {
        pour(&file, content)?;
        if let Some(old) = old {
            keep_owner(&file, &old);
            file.set_permissions(old.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Gives a file the owner and group of the one it replaces. Only root may give files away; who may not keeps it.
#[cfg(unix)]
fn keep_owner(file: &File, old: &fs::Metadata) {
    use std::os::unix::fs::{MetadataExt, fchown};
    if file.metadata().is_ok_and(|new| (new.uid(), new.gid()) != (old.uid(), old.gid())) {
        let _ = fchown(file, Some(old.uid()), Some(old.gid()));
    }
}

#[cfg(not(unix))]
fn keep_owner(_: &File, _: &fs::Metadata) {}

/// Removes what killed writers of `path` left beside it. Only for whoever knows that nobody writes it now.
pub(crate) fn remove_leftovers(path: &Path) -> io::Result<()> {
    let prefix = format!("{}.", hidden_name(path)?);
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

/// A hidden file beside `path`, such as `.NAME.lock`.
pub(crate) fn companion(path: &Path, ending: &str) -> io::Result<PathBuf> {
    Ok(path.with_file_name(hidden_name(path)? + ending))
}

fn hidden_name(path: &Path) -> io::Result<String> {
    Ok(format!(".{}", short_name(path)?))
}

/// A file's name, cut and with a hash of the whole where it leaves no room for an ending: systems allow 255 bytes, some
/// encrypted ones 143.
pub(crate) fn short_name(path: &Path) -> io::Result<String> {
    const LONGEST: usize = 100;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    match name.to_str() {
        Some(name) if name.len() <= LONGEST => Ok(name.into()),
        _ => {
            // FNV-1a, which is the same in every version of the program: two writers look for one lock.
            let hash = name
                .as_encoded_bytes()
                .iter()
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            let name = name.to_string_lossy();
            let cut = (0..=LONGEST - 17).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
            Ok(format!("{}~{hash:016x}", &name[..cut]))
        }
    }
}

/// The bytes of a file of at most `limit` bytes. Endless devices and files that grow stop there.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a longer file; [`Error::Memory`].
pub fn read(path: impl AsRef<Path>, limit: usize) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let failed = |error| Error::Io { action: "read", path: path.into(), error };
    let file = File::open(path).map_err(failed)?;
    let described = file.metadata().map_err(failed)?;
    let too_long = |has: &dyn std::fmt::Display| {
        let problem = format!("it has {has} bytes, but at most {limit} are read");
        Error::Format { file: path.display().to_string(), problem }
    };
    if described.is_file() && described.len() > limit as u64 {
        return Err(too_long(&described.len()));
    }
    let mut bytes = Vec::new();
    if described.is_file() {
        // One byte more, which a file that grew would fill.
        let len = usize::try_from(described.len()).unwrap_or(usize::MAX).saturating_add(1);
        bytes.try_reserve_exact(len).map_err(|_| Error::Memory { bytes: len })?;
        prefer_large(bytes.spare_capacity_mut());
    }
    match file.take((limit as u64).saturating_add(1)).read_to_end(&mut bytes) {
        Ok(n) if n > limit => Err(too_long(&"more")),
        Ok(_) => Ok(bytes),
        Err(e) if e.kind() == io::ErrorKind::OutOfMemory => Err(Error::Memory { bytes: 2 * bytes.len() }),
        Err(e) => Err(failed(e)),
    }
}

/// The text of a file of at most `limit` bytes, without the byte order mark that some editors put at its start.
///
/// # Errors
/// Those of [`read`], and [`Error::Format`] for what is not UTF-8.
pub fn read_text(path: impl AsRef<Path>, limit: usize) -> Result<String> {
    let path = path.as_ref();
    match String::from_utf8(read(path, limit)?) {
        Ok(text) => Ok(without_mark(text)),
        Err(e) => {
            let problem = format!("it is not text: byte {} is not UTF-8", e.utf8_error().valid_up_to());
            Err(Error::Format { file: path.display().to_string(), problem })
        }
    }
}

/// A text without the byte order mark at its start.
fn without_mark(mut text: String) -> String {
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    text
}

#[cfg(test)]
mod tests;
