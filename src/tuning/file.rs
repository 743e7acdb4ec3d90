//! The tuning file: read without ever failing, written whole under a lock.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use super::form::{self, Parsed};
use super::table::TuningTable;
use super::warn_once;
use crate::error::{Error, Result};
use crate::file::{self, Target};
use crate::machine;

/// The environment variable that names the tuning file.
pub const FILE_VARIABLE: &str = "SWATH_TUNE_FILE";

/// Bytes of the longest tuning file: some 25,000 convolutions, which every process that plans reads in half a second.
pub const LONGEST_FILE: usize = 8 << 20;

/// A file that holds a [`TuningTable`].
///
/// Readers see the file before or after a write, never in between, since a write makes a new file and renames it.
/// Writers take turns by an advisory lock on `.NAME.lock` beside it, and merge what they have into what is there, so
/// that two of them lose nothing. A program killed at any moment leaves the last whole file.
///
/// The null device is a file without entries. Of pipes and other devices, which may be endless, nothing is read; what is
/// written goes into them, and they are neither replaced nor removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TuningFile {
    path: PathBuf,
}

/// Why a file has no table.
enum Unread {
    /// There is no file.
    Absent,
    /// The system says no.
    Io(std::io::Error),
    /// It is no tuning file of this version.
    Form(String),
    /// It is a pipe or a device.
    Stream,
}

impl TuningFile {
    /// The file of that path, which need not exist.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file that plans read: what `SWATH_TUNE_FILE` names, if it is set and not empty, else `swath/tuning/CPU.toml`
    /// in the user's configuration folder (`$XDG_CONFIG_HOME` or `~/.config`, on Windows the roaming application data).
    ///
    /// # Errors
    /// [`Error::TuningFolder`], where the variable is not set and the user has no home.
    pub fn of_user() -> Result<Self> {
        if let Some(path) = std::env::var_os(FILE_VARIABLE).filter(|v| !v.is_empty()) {
            return Ok(Self::at(path));
        }
        let folders = etcetera::choose_base_strategy().map_err(|e| Error::TuningFolder { reason: e.to_string() })?;
        let name = file_name(machine::cpu_identity());
        Ok(Self::at(folders.config_dir().join("swath").join("tuning").join(name)))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The table, and what is wrong with entries that cannot be read. An absent file is an empty table.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is not a tuning file of this version, is damaged as a
    /// whole, is longer than [`LONGEST_FILE`], or is a pipe or a device.
    pub fn load(&self) -> Result<Parsed> {
        match self.try_read() {
            Ok(parsed) => Ok(parsed),
            Err(Unread::Absent) => Ok(Parsed { table: TuningTable::new(&self.name()), skipped: Vec::new() }),
            Err(Unread::Io(error)) => Err(Error::Io { action: "read", path: self.path.clone(), error }),
            Err(Unread::Form(problem)) => Err(Error::Format { file: self.name(), problem }),
            Err(Unread::Stream) => Err(Error::Format {
                file: self.name(),
                problem: "a tuning file is a regular file, this is none".into(),
            }),
        }
    }

    /// The table as far as it can be read. Never fails: what is wrong becomes a warning in the log, once per process.
    pub fn read(&self) -> TuningTable {
        match self.load() {
            Ok(Parsed { table, skipped }) => {
                if let Some(first) = skipped.first() {
                    let more =
                        if skipped.len() > 1 { format!(" (and {} more)", skipped.len() - 1) } else { String::new() };
                    warn_once(format!("tuning file {}: {first}: ignored{more}", self.name()));
                }
                table
            }
            Err(Error::Format { problem, .. }) => {
                warn_once(format!("tuning file {} is ignored: {problem}", self.name()));
                TuningTable::new(&self.name())
            }
            Err(e) => {
                warn_once(format!("the tuning file is ignored: {e}"));
                TuningTable::new(&self.name())
            }
        }
    }

    /// Merges a table into the file, as [`TuningTable::merge`] does, and makes the file and its folder if there are
    /// none.
    ///
    /// A file that is not a tuning file of this version, or is damaged, is set aside first (`NAME.aside`, with a
    /// warning), so nothing is lost by it.
    ///
    /// # Errors
    /// [`Error::Io`], if the file or its folder cannot be written.
    pub fn merge(&self, table: &TuningTable) -> Result<()> {
        self.change(|old| old.merge(table))
    }

    /// Removes all entries, and the file with them. A file that is not a tuning file of this version, or is damaged, is
    /// set aside instead.
    ///
    /// # Errors
    /// [`Error::Io`], if the file cannot be removed.
    pub fn clear(&self) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        self.change(|old| *old = TuningTable::default())
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn try_read(&self) -> Result<Parsed, Unread> {
        match fs::metadata(&self.path) {
            Ok(found) if is_null_device(&found) => return Err(Unread::Absent),
            Ok(found) if !found.is_file() && !found.is_dir() => return Err(Unread::Stream),
            // Reading says what is wrong with folders, and with what cannot be looked at.
            _ => {}
        }
        let text = file::read_text(&self.path, LONGEST_FILE).map_err(|e| match e {
            Error::Io { error, .. } if error.kind() == ErrorKind::NotFound => Unread::Absent,
            Error::Io { error, .. } => Unread::Io(error),
            Error::Format { problem, .. } => Unread::Form(problem),
            other => Unread::Io(io::Error::other(other)),
        })?;
        form::parse(&self.name(), &text).map_err(Unread::Form)
    }

    /// Reads, changes and writes the table while holding the lock. An empty table is no file.
    fn change(&self, change: impl FnOnce(&mut TuningTable)) -> Result<()> {
        let failed = |error| Error::Io { action: "write", path: self.path.clone(), error };
        // A link to the file stays a link: what it points to is replaced.
        let target = match Target::of(&self.path).map_err(failed)? {
            Target::File(path) => Self::at(path),
            _ => return self.pour(change),
        };
        let _lock = target.lock().map_err(failed)?;
        file::remove_leftovers(&target.path).map_err(failed)?;
        let mut table = match target.try_read() {
            Ok(Parsed { table, skipped }) if skipped.is_empty() => table,
            Ok(Parsed { table, skipped }) => {
                target.set_aside(&skipped[0]).map_err(failed)?;
                table
            }
            Err(Unread::Absent | Unread::Stream) => TuningTable::default(),
            Err(Unread::Form(why)) => {
                target.set_aside(&why).map_err(failed)?;
                TuningTable::default()
            }
            Err(Unread::Io(error)) => return Err(failed(error)),
        };
        change(&mut table);
        if table.is_empty() {
            return match fs::remove_file(&target.path) {
                Err(e) if e.kind() != ErrorKind::NotFound => Err(failed(e)),
                _ => Ok(()),
            };
        }
        target.write(&table)
    }

    /// Writes what `change` makes of nothing into a pipe or a device.
    fn pour(&self, change: impl FnOnce(&mut TuningTable)) -> Result<()> {
        if fs::metadata(&self.path).is_ok_and(|found| found.is_file()) {
            let problem = "a tuning file is replaced whole, this is an open descriptor of one: name the file itself";
            return Err(Error::Format { file: self.name(), problem: problem.into() });
        }
        let mut table = TuningTable::default();
        change(&mut table);
        if table.is_empty() { Ok(()) } else { self.write(&table) }
    }

    fn write(&self, table: &TuningTable) -> Result<()> {
        let text = table.to_string();
        if text.len() > LONGEST_FILE {
            let problem = format!("its entries would take {} bytes, but at most {LONGEST_FILE} are read", text.len());
            return Err(Error::Format { file: self.name(), problem });
        }
        file::write(&self.path, |out| out.write_all(text.as_bytes()))
    }

    /// Waits for the lock. It lies beside the file, since the file itself is replaced by every write, and is not
    /// removed, since another writer may be waiting for it. The system frees it when its holder dies.
    fn lock(&self) -> std::io::Result<File> {
        let lock = file::companion(&self.path, ".lock")?;
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = File::options().create(true).truncate(false).write(true).open(lock)?;
        match file.lock() {
            // Some network file systems have no locks: one writer at a time is then up to the user.
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                warn_once(format!(
                    "tuning file {}: its file system has no locks, two writers may lose entries",
                    self.name()
                ));
                Ok(file)
            }
            locked => locked.map(|()| file),
        }
    }

    /// Keeps what is there under a new name, for the user to look at.
    fn set_aside(&self, why: &str) -> std::io::Result<()> {
        let name = file::short_name(&self.path)?;
        let names = (1..).map(|n| if n == 1 { format!("{name}.aside") } else { format!("{name}.aside-{n}") });
        let aside = names.map(|n| self.path.with_file_name(n)).find(|p| !p.exists()).expect("names do not run out");
        fs::rename(&self.path, &aside)?;
        warn_once(format!("tuning file {}: {why}: kept as {}, and begun anew", self.name(), aside.display()));
        Ok(())
    }
}

/// Whether it is the null device, under whatever name.
#[cfg(unix)]
fn is_null_device(found: &fs::Metadata) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let null = fs::metadata("/dev/null");
    found.file_type().is_char_device() && null.is_ok_and(|n| n.file_type().is_char_device() && n.rdev() == found.rdev())
}

#[cfg(not(unix))]
fn is_null_device(_: &fs::Metadata) -> bool {
    false
}

/// `authenticamd-25-17-amd-epyc.toml`
fn file_name(identity: &str) -> String {
    let letters = identity.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' });
    let words = letters.collect::<String>().split_whitespace().collect::<Vec<_>>().join("-");
    format!("{words}.toml")
}
