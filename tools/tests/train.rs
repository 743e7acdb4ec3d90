//! Training as the program's users meet it: the demonstration, runs, what they leave behind.

use std::fs;
use std::io::{BufRead, BufReader};
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

/// A run of two epochs of 10 batches, kept in a folder. Validation is on 2000 pictures, so most of the time is there.
fn small<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let run = ["train", "--limit", "320", "--batch", "32", "--epochs", "2", "--schedule", "one-cycle", "--lr", "5e-3"];
    [&run[..], &["--checkpoint-every", "1", "--out", out], more].concat()
}

fn checkpoint(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("checkpoint.safetensors")).expect("a checkpoint")
}

/// log.json without what depends on time.
fn log(folder: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(folder.join("log.json")).expect("a log");
    let mut log: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    for epoch in &mut log {
        let epoch = epoch.as_object_mut().expect("an object");
        assert!(epoch.remove("seconds").is_some() && epoch.remove("images_per_second").is_some());
    }
    log
}

#[test]
fn killed_at_any_moment_a_run_resumes_to_the_same_bits() {
    let (whole, killed) = (folder("whole"), folder("killed"));
    let (whole_path, killed_path) = (whole.to_str().unwrap(), killed.to_str().unwrap());
    let text = good(&small(whole_path, &["--threads", "2"]));
    for word in ["memory: ", "of activations", "epoch 2: loss", "log.json"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    // Whenever it dies, what it goes on with is a checkpoint: the outcome does not depend on the moments.
    let mut moment = 30;
    for attempt in 0.. {
        let resumable = killed.join("checkpoint.safetensors").exists();
        let args = small(killed_path, if resumable { &["--resume"] } else { &[] });
        let mut child = Command::new(env!("CARGO_BIN_EXE_swath"))
            .args(&args)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("the program starts");
        if attempt < 6 {
            std::thread::sleep(std::time::Duration::from_millis(moment));
            child.kill().expect("it can be killed");
            moment = moment * 5 / 3;
        }
        if child.wait().expect("it ends").success() {
            break;
        }
        assert!(attempt < 6, "the last attempt is not killed");
    }
    assert!(checkpoint(&whole) == checkpoint(&killed), "other bits");
    assert_eq!(log(&whole), log(&killed));
    assert_eq!(fs::read(whole.join("best.safetensors")).unwrap(), fs::read(killed.join("best.safetensors")).unwrap());
    // A run that is over has nothing to go on with; one that was started otherwise is another.
    good(&small(killed_path, &["--resume"]));
    let line = refusal(&small(killed_path, &["--resume", "--augment", "crop"]));
    assert!(line.contains("started with augment None, this one has Crop"), "{line}");
    // What was trained is right more often than chance.
    let best = killed.join("best.safetensors");
    let picture = killed.join("mistakes.png");
    let text = good(&["eval", "--weights", best.to_str().unwrap(), "--picture", picture.to_str().unwrap()]);
    for word in ["of 2000 right", "precision", "most often confused: ", "written: "] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
}

/// The one line on stderr of a failure.
fn refusal(args: &[&str]) -> String {
    let out = swath(args);
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && stderr.lines().count() == 1 && stderr.starts_with("swath: "), "{stderr}");
    stderr
}

#[test]
fn damaged_and_foreign_checkpoints_and_bad_losses_are_one_line() {
    let run = folder("damaged");
    let (path, file) = (run.to_str().unwrap(), run.join("checkpoint.safetensors"));
    let one = |more: &[&str]| -> Vec<String> {
        let run = ["train", "--limit", "64", "--out", path];
        run.iter().chain(more).map(|s| s.to_string()).collect()
    };
    let refused = |more: &[&str]| refusal(&one(more).iter().map(String::as_str).collect::<Vec<_>>());
    assert!(refused(&["--resume"]).contains("cannot read"), "there is none yet");
    let line = refused(&["--lr", "1e38", "--optimizer", "sgd"]);
    assert!(line.contains("the loss is") && line.contains("the first that is not finite is the result of"), "{line}");
    good(&one(&[]).iter().map(String::as_str).collect::<Vec<_>>());
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(refused(&["--resume"]).contains("truncated"));
    fs::copy(run.join("best.safetensors"), &file).unwrap();
    assert!(refused(&["--resume"]).contains("no checkpoint"));
    fs::write(&file, b"\x89PNG\r\n").unwrap();
    assert!(refused(&["--resume"]).contains(file.to_str().unwrap()));
    for (args, words) in [
        (&["--freeze", "stem.*"][..], "no parameter has such a name; there are conv1.weight, conv1.bias"),
        (&["--freeze", "*"], "nothing is left to train"),
        (&["--weights", "/nowhere/w.safetensors"], "/nowhere/w.safetensors"),
        (&["--data", "/nowhere"], "/nowhere: no data set"),
        (&["--model", "resnet99"], "there is no network"),
        (&["--model", "resnet18"], "takes pictures of 3 channels, the data has 1"),
        (&["--batch", "65"], "64 pictures are less than one batch of 65"),
    ] {
        let line = refused(args);
        assert!(line.contains(words), "{line}");
    }
}

#[test]
fn weights_are_taken_by_name_and_frozen_ones_stay() {
    let (first, second) = (folder("first"), folder("second"));
    let run = |out: &Path, more: &[&str]| {
        let common = ["train", "--limit", "64", "--batch", "64", "--epochs", "1", "--out", out.to_str().unwrap()];
        good(&[&common[..], more].concat())
    };
    run(&first, &["--seed", "5"]);
    let best = first.join("best.safetensors");
    let text = run(&second, &["--weights", best.to_str().unwrap(), "--freeze", "conv*"]);
    assert!(text.contains("6 tensors loaded\n"), "{text}");
    let open = |folder: &Path| swath::WeightsFile::open(folder.join("best.safetensors")).unwrap();
    let (a, b) = (open(&first), open(&second));
    for (name, same) in [("conv1.weight", true), ("conv2.bias", true), ("fc.weight", false)] {
        assert_eq!(a.tensor(name).unwrap() == b.tensor(name).unwrap(), same, "{name}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_is_saved() {
    let run = folder("interrupted");
    let path = run.to_str().unwrap();
    let args = ["train", "--limit", "6400", "--epochs", "1000", "--out", path];
    let mut command = Command::new(env!("CARGO_BIN_EXE_swath"));
    let mut child = command.args(args).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Whoever says what it takes has a handler.
    assert!(lines.any(|line| line.starts_with("memory: ")));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert!(lines.any(|line| line.starts_with("stopped; `--resume` goes on from")));
    assert!(child.wait().unwrap().success());
    assert!(!checkpoint(&run).is_empty());
}
