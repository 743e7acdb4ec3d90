//! Networks that memory cannot hold: a line on stderr, under a limit of address space.
#![cfg(target_os = "linux")]

use std::process::Command;

#[test]
fn a_batch_that_memory_cannot_hold_is_refused_in_one_line() {
    for (kibibytes, args) in [
        (8 << 20, &["bench-model", "vgg16", "--batch", "1024"][..]),
        (1 << 20, &["bench-model", "vgg16"]),
        (1 << 20, &["bench-conv", "--brief", "mb1024ic64ih224oc64kh3ph1"]),
        (1 << 20, &["tune", "--budget", "1", "mb1024ic64ih224oc64kh3ph1"]),
    ] {
        let output = Command::new("sh")
            .args(["-c", &format!("ulimit -v {kibibytes}; exec \"$0\" \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_swath"))
            .args(args)
            .env("SWATH_TUNE_FILE", "/nonexistent/tuning.toml")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains("no memory for "), "{args:?}: {stderr}");
    }
}
