//! Training as the program's users meet it: the demonstration, runs, what they leave behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn swath(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swath"));
    // A tuning file of the user's would change what is chosen.
    command.args(args).env("SWATH_TUNE_FILE", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-tuning.toml"));
    command.output().expect("the program starts")
}

/// Standard output of a success, which says nothing on stderr and nothing for terminals.
fn good(args: &[&str]) -> String {
    let out = swath(args);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && stderr.is_empty(), "{args:?}: {}, {stderr}", out.status);
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    assert!(!text.contains(['\u{1b}', '\r']), "{text:?}");
    text
}

/// A folder of its own in this package's temporary directory, empty.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("train-{name}"));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("the temporary directory is writable");
    path
}

#[test]
fn the_demonstration_shows_machine_convolutions_and_a_network_that_learns() {
    let picture = folder("demo").join("digits.png");
    let path = picture.to_str().unwrap();
    let text = good(&["demo", "--pictures", "1280", "--epochs", "1", "--out", path]);
    for word in [
        "CPU",
        "caches",
        "of peak",
        "stem 7x7",
        "depthwise",
        "25290 random weights",
        "1280 drawn digits",
        "epoch 1: loss",
        path,
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    // Chance is 10 %.
    let share = text.split("never seen are right: ").nth(1).and_then(|t| t.split(' ').next()).unwrap();
    assert!(share.parse::<f64>().unwrap() > 20.0, "{share}");
    let bytes = fs::read(&picture).unwrap();
    assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 5000, "{} bytes", bytes.len());
    let help = good(&["demo", "--help"]);
    assert!(help.contains("--epochs") && help.contains("Examples:"), "{help}");
}
