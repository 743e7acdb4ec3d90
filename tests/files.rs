//! What a user may name in place of a regular file: pipes, devices, descriptors and links of each test's own.
#![cfg(all(unix, feature = "nn"))]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use swath::nn::*;
use swath::tune::{
    Conditions, Convolution, Entry, Figures, LONGEST_FILE, Measured, TuningFile, TuningTable, kernel_set,
};
use swath::{ConvShape, Error, Layout, Model, WeightsFile, file};

/// A folder of its own for every test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("swath-files-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn pipe(&self, name: &str) -> PathBuf {
        let path = self.at(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    /// A character device; nothing, with a word, where the user may not make one.
    fn device(&self, name: &str, minor: &str) -> Option<PathBuf> {
        let path = self.at(name);
        let made = Command::new("mknod").arg(&path).args(["c", "1", minor]).output().is_ok_and(|o| o.status.success());
        // Some containers let one make a device that nobody may open.
        if made && File::open(&path).is_ok() {
            return Some(path);
        }
        eprintln!("SKIPPED: this user may not make devices");
        None
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Writer = fn(&Path) -> Result<(), Error>;

/// The three writers of this crate and its program, as functions that write to a path.
const WRITERS: [(&str, Writer); 3] =
    [("weights", weights), ("tuning", tuning), ("text", |path| file::write(path, |out| writeln!(out, "text")))];

fn model() -> Model {
    Conv2d::new(1, 2, 3).named("conv").build(1).unwrap()
}

fn weights(path: &Path) -> Result<(), Error> {
    model().save_safetensors(path)
}

fn table() -> TuningTable {
    let shape = ConvShape::builder([1, 64, 14, 14], [64, 64, 3, 3]).padding(1).build().unwrap();
    let conditions =
        Conditions { cpu: "a CPU".into(), level: "scalar".into(), threads: 1, kernels: kernel_set().into() };
    let measured = Measured { algo: "direct".into(), figures: Figures::new(1.0, 1.0, 1.0).unwrap() };
    let mut table = TuningTable::default();
    let convolution = Convolution { shape, input: Layout::Blocked, output: Layout::Blocked };
    table.insert(conditions, convolution, Entry::new(vec![measured]).unwrap());
    table
}

fn tuning(path: &Path) -> Result<(), Error> {
    TuningFile::at(path).merge(&table())
}

/// What a writer writes into a plain file.
fn content(name: &str, write: Writer) -> Vec<u8> {
    let folder = Folder::new(&format!("content-{name}-{:?}", thread::current().id()));
    write(&folder.at("file")).unwrap();
    fs::read(folder.at("file")).unwrap()
}

/// Runs something that must end within two minutes, which is forever next to what it has to do.
fn soon<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || done.send(run()));
    wait.recv_timeout(Duration::from_secs(120)).unwrap_or_else(|_| panic!("{what} does not end"))
}

#[test]
fn a_device_survives_and_nothing_is_left_beside_it() {
    for (name, write) in WRITERS {
        let folder = Folder::new(&format!("device-{name}"));
        let Some(null) = folder.device("null", "3") else { return };
        symlink(&null, folder.at("link")).unwrap();
        for path in [&null, &folder.at("link")] {
            write(path).unwrap();
            assert!(fs::symlink_metadata(&null).unwrap().file_type().is_char_device(), "{name}");
            assert!(fs::symlink_metadata(folder.at("link")).unwrap().is_symlink(), "{name}");
            assert_eq!(folder.names(), ["link", "null"], "{name}");
        }
        // A device that takes nothing says so: `/dev/full`.
        let full = folder.device("full", "7").unwrap();
        let e = write(&full).unwrap_err();
        assert!(matches!(e, Error::Io { action: "write", .. }), "{name}: {e}");
        assert!(fs::symlink_metadata(&full).unwrap().file_type().is_char_device(), "{name}");
    }
}

#[test]
fn a_pipe_survives_and_gets_the_bytes() {
    for (name, write) in WRITERS {
        let folder = Folder::new(&format!("pipe-{name}"));
        let pipe = folder.pipe("pipe");
        symlink("pipe", folder.at("link")).unwrap();
        for path in [pipe.clone(), folder.at("link")] {
            let reader = thread::spawn({
                let pipe = pipe.clone();
                move || fs::read(pipe).unwrap()
            });
            soon(name, move || write(&path)).unwrap();
            assert_eq!(reader.join().unwrap(), content(name, write), "{name}");
            assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo(), "{name}");
            assert_eq!(folder.names(), ["link", "pipe"], "{name}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_descriptor_survives_and_gets_the_bytes() {
    use std::os::fd::AsRawFd;
    for (name, write) in WRITERS {
        let folder = Folder::new(&format!("descriptor-{name}"));
        // Of a pipe, as behind `> >(cat)`.
        let (mut reader, writer) = std::io::pipe().unwrap();
        let link = folder.at("link");
        symlink(format!("/proc/self/fd/{}", writer.as_raw_fd()), &link).unwrap();
        write(&link).unwrap();
        drop(writer);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert_eq!(got, content(name, write), "{name}");
        // Of a regular file, which whoever opened it goes on reading: bytes go behind those that are there.
        fs::write(folder.at("log"), "before\n").unwrap();
        let log = File::open(folder.at("log")).unwrap();
        let path = PathBuf::from(format!("/dev/fd/{}", log.as_raw_fd()));
        let inode = log.metadata().unwrap().ino();
        let written = write(&path);
        assert_eq!(fs::metadata(folder.at("log")).unwrap().ino(), inode, "{name}");
        if name == "tuning" {
            assert!(written.unwrap_err().to_string().contains("open descriptor"));
        } else {
            written.unwrap();
            assert_eq!(
                fs::read(folder.at("log")).unwrap(),
                [b"before\n", &content(name, write)[..]].concat(),
                "{name}"
            );
        }
        assert_eq!(folder.names(), ["link", "log"], "{name}");
    }
}

#[test]
fn links_stay_links_and_a_dangling_one_creates_its_target() {
    for (name, write) in WRITERS {
        let folder = Folder::new(&format!("link-{name}"));
        fs::create_dir(folder.at("real")).unwrap();
        symlink("real/file", folder.at("inner")).unwrap();
        symlink("inner", folder.at("outer")).unwrap();
        for _ in 0..2 {
            write(&folder.at("outer")).unwrap();
            assert_eq!(fs::read(folder.at("real/file")).unwrap(), content(name, write), "{name}");
            assert!(folder.at("outer").is_symlink() && folder.at("inner").is_symlink(), "{name}");
            assert!(!folder.at("real/file").is_symlink(), "{name}");
        }
        symlink("loop", folder.at("loop")).unwrap();
        symlink("real", folder.at("folder")).unwrap();
        symlink("nowhere/file", folder.at("lost")).unwrap();
        for bad in ["loop", "folder", "real"] {
            assert!(matches!(write(&folder.at(bad)), Err(Error::Io { action: "write", .. })), "{name}: {bad}");
        }
        // A tuning file makes its folder.
        assert_eq!(write(&folder.at("lost")).is_ok(), name == "tuning");
        assert!(folder.at("lost").is_symlink());
    }
}

#[test]
fn a_file_keeps_its_permissions_and_its_owner() {
    for (name, write) in WRITERS {
        let folder = Folder::new(&format!("mode-{name}"));
        let path = folder.at("file");
        write(&path).unwrap();
        let fresh = fs::metadata(&path).unwrap().permissions().mode();
        File::create(folder.at("plain")).unwrap();
        assert_eq!(fresh, fs::metadata(folder.at("plain")).unwrap().permissions().mode(), "{name}: as every new file");
        for mode in [0o600, 0o644, 0o660, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let before = fs::metadata(&path).unwrap().ino();
            write(&path).unwrap();
            let after = fs::metadata(&path).unwrap();
            assert_eq!(after.permissions().mode() & 0o7777, mode, "{name}");
            assert_ne!(after.ino(), before, "{name}: it was replaced, not overwritten");
        }
        // Only root may give files away.
        if std::os::unix::fs::chown(&path, Some(12345), Some(54321)).is_ok() {
            write(&path).unwrap();
            let after = fs::metadata(&path).unwrap();
            assert_eq!(
                (after.uid(), after.gid(), after.permissions().mode() & 0o7777),
                (12345, 54321, 0o666),
                "{name}"
            );
        }
    }
}

#[test]
fn names_of_any_length_can_be_saved() {
    for (name, write) in WRITERS {
        let folder = Folder::new(&format!("long-{name}"));
        for long in ["n".repeat(250), "n".repeat(255), "é".repeat(127), "x".repeat(100), "x".repeat(101)] {
            write(&folder.at(&long)).unwrap_or_else(|e| panic!("{name}: {} bytes: {e}", long.len()));
            assert_eq!(fs::read(folder.at(&long)).unwrap(), content(name, write), "{name}");
        }
        let others = if name == "tuning" { 5 } else { 0 };
        assert_eq!(folder.names().len(), 5 + others, "{name}: the files, and a lock beside each of a tuner");
        assert!(write(&folder.at(&"n".repeat(256))).is_err(), "{name}");
    }
}

#[test]
fn a_damaged_tuning_file_of_a_long_name_is_set_aside() {
    let folder = Folder::new("aside");
    let path = folder.at(&format!("{}.toml", "n".repeat(245)));
    for round in 1..=2 {
        fs::write(&path, "damaged").unwrap();
        tuning(&path).unwrap();
        assert_eq!(TuningFile::at(&path).load().unwrap().table.len(), 1);
        assert_eq!(folder.names().iter().filter(|n| n.contains(".aside")).count(), round);
    }
}

#[test]
fn as_a_tuning_file_a_null_device_is_none_and_pipes_and_endless_devices_are_refused_at_once() {
    let folder = Folder::new("tuning");
    let pipe = folder.pipe("pipe");
    let e = soon("a pipe that nobody writes", move || TuningFile::at(pipe).load()).unwrap_err();
    assert!(e.to_string().contains("regular file"), "{e}");
    soon("the null device", || {
        let null = TuningFile::at("/dev/null").load().unwrap();
        assert!(null.table.is_empty() && null.skipped.is_empty());
    });
    let Some(null) = folder.device("null", "3") else { return };
    let zero = folder.device("zero", "5").unwrap();
    for path in [&null, &zero] {
        let file = TuningFile::at(path);
        soon("clearing a device", {
            let file = file.clone();
            move || file.clear()
        })
        .unwrap();
        soon("merging into a device", {
            let file = file.clone();
            move || file.merge(&table())
        })
        .unwrap();
        assert!(fs::symlink_metadata(path).unwrap().file_type().is_char_device());
        assert_eq!(soon("reading a device", move || file.load()).is_ok(), path == &null);
    }
    assert_eq!(folder.names(), ["null", "pipe", "zero"], "no lock, nothing set aside");
}

#[test]
fn a_tuning_file_longer_than_any_is_refused_unread_and_set_aside() {
    let folder = Folder::new("endless");
    let path = folder.at("tuning.toml");
    // A hole of 100 GB: whoever reads it whole does not come back.
    File::create(&path).unwrap().set_len(100_000_000_000).unwrap();
    let file = TuningFile::at(&path);
    let e = soon("a file of 100 GB", {
        let file = file.clone();
        move || file.load()
    });
    let problem = format!("it has 100000000000 bytes, but at most {LONGEST_FILE} are read");
    assert!(e.unwrap_err().to_string().ends_with(&problem));
    file.merge(&table()).unwrap();
    assert_eq!(file.load().unwrap().table.len(), 1);
    assert_eq!(fs::metadata(folder.at("tuning.toml.aside")).unwrap().len(), 100_000_000_000);
    // The longest that is read is no reason to wait either: one line, and as many tables.
    for unit in ["[[tuned]]\n", "a", "[", "\"", "x = 1\n", "# \n"] {
        fs::write(&path, format!("format = 1\n{}", unit.repeat((LONGEST_FILE - 11) / unit.len()))).unwrap();
        let file = file.clone();
        soon("the longest file", move || drop(file.load()));
    }
}

#[test]
fn endless_weights_are_refused_and_a_pipe_of_weights_is_read() {
    let folder = Folder::new("weights");
    let bytes = content("weights", weights);
    let pipe = folder.pipe("pipe");
    let writer = thread::spawn({
        let (pipe, bytes) = (pipe.clone(), bytes.clone());
        move || fs::write(pipe, bytes).unwrap()
    });
    let read = soon("a pipe of weights", move || WeightsFile::open(pipe)).unwrap();
    writer.join().unwrap();
    assert_eq!(read.tensor("conv.weight").unwrap(), *model().parameter("conv.weight").unwrap());
    for endless in ["/dev/zero", "/dev/urandom"] {
        let e = soon(endless, move || WeightsFile::open(endless)).unwrap_err();
        assert!(matches!(e, Error::Format { .. }), "{e}");
    }
    // A file that goes on behind its tensors: a hole of a terabyte, of which one byte is read.
    let path = folder.at("long");
    fs::write(&path, &bytes).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    let e = soon("a terabyte", move || WeightsFile::open(path)).unwrap_err();
    assert!(matches!(e, Error::Format { .. }), "{e}");
}

#[test]
fn a_failed_write_changes_nothing() {
    let folder = Folder::new("failed");
    let path = folder.at("file");
    fs::write(&path, "old").unwrap();
    let e = file::write(&path, |out| {
        out.write_all(&[0; 1 << 20])?;
        Err(std::io::Error::other("the content fails"))
    });
    assert!(e.unwrap_err().to_string().ends_with("the content fails"));
    assert_eq!((fs::read(&path).unwrap(), folder.names().len()), (b"old".to_vec(), 1));
    // More metadata than a header may have.
    let metadata = HashMap::from([("long".to_string(), "x".repeat(100_000_000))]);
    let e = model().save_safetensors_with(&path, &metadata).unwrap_err();
    assert!(matches!(&e, Error::Format { .. }), "{e}");
    assert_eq!((fs::read(&path).unwrap(), folder.names().len()), (b"old".to_vec(), 1));
}
