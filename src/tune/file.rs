//! The tuning file: read without ever failing, written whole under a lock.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use super::form::{self, Parsed};
use super::table::TuningTable;
use super::warn_once;
use crate::atomic_file::{remove_leftovers, write_atomically};
use crate::error::{Error, Result};
use crate::machine;

/// The environment variable that names the tuning file.
pub const FILE_VARIABLE: &str = "SWATH_TUNE_FILE";

/// A file that holds a [`TuningTable`].
///
/// Readers see the file before or after a write, never in between, since a write makes a new file and renames it.
/// Writers take turns by an advisory lock on `.NAME.lock` beside it, and merge what they have into what is there, so
/// that two of them lose nothing. A program killed at any moment leaves the last whole file.
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
    /// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is not a tuning file of this version, or is
    /// damaged as a whole.
    pub fn load(&self) -> Result<Parsed> {
        match self.try_read() {
            Ok(parsed) => Ok(parsed),
            Err(Unread::Absent) => Ok(Parsed { table: TuningTable::new(&self.name()), skipped: Vec::new() }),
            Err(Unread::Io(error)) => Err(Error::Io { action: "read", path: self.path.clone(), error }),
            Err(Unread::Form(problem)) => Err(Error::Format { file: self.name(), problem }),
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
        let bytes = fs::read(&self.path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Unread::Absent,
            _ => Unread::Io(e),
        })?;
        let text = String::from_utf8(bytes).map_err(|_| Unread::Form("not TOML: it is not UTF-8".into()))?;
        form::parse(&self.name(), &text).map_err(Unread::Form)
    }

    /// Reads, changes and writes the table while holding the lock. An empty table is no file.
    fn change(&self, change: impl FnOnce(&mut TuningTable)) -> Result<()> {
        let failed = |error| Error::Io { action: "write", path: self.path.clone(), error };
        // A link to the file stays a link: what it points to is replaced.
        let target = Self::at(fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone()));
        let _lock = target.lock().map_err(failed)?;
        remove_leftovers(&target.path).map_err(failed)?;
        let mut table = match target.try_read() {
            Ok(Parsed { table, skipped }) if skipped.is_empty() => table,
            Ok(Parsed { table, skipped }) => {
                target.set_aside(&skipped[0]).map_err(failed)?;
                table
            }
            Err(Unread::Absent) => TuningTable::default(),
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
        write_atomically(&target.path, table.to_string().as_bytes()).map_err(failed)
    }

    /// Waits for the lock. It lies beside the file, since the file itself is replaced by every write, and is not
    /// removed, since another writer may be waiting for it. The system frees it when its holder dies.
    fn lock(&self) -> std::io::Result<File> {
        let name = self.path.file_name().ok_or(ErrorKind::InvalidFilename)?.to_string_lossy();
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let lock = self.path.with_file_name(format!(".{name}.lock"));
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
        let name = self.path.file_name().ok_or(ErrorKind::InvalidFilename)?.to_string_lossy();
        let names = (1..).map(|n| if n == 1 { format!("{name}.aside") } else { format!("{name}.aside-{n}") });
        let aside = names.map(|n| self.path.with_file_name(n)).find(|p| !p.exists()).expect("names do not run out");
        fs::rename(&self.path, &aside)?;
        warn_once(format!("tuning file {}: {why}: kept as {}, and begun anew", self.name(), aside.display()));
        Ok(())
    }
}

/// `authenticamd-25-17-amd-epyc.toml`
fn file_name(identity: &str) -> String {
    let letters = identity.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' });
    let words = letters.collect::<String>().split_whitespace().collect::<Vec<_>>().join("-");
    format!("{words}.toml")
}
