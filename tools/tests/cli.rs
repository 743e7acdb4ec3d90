//! The program as its users meet it: what it prints, where, and with which exit status.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

const LAYER: &str = "mb1_ic16ih9oc16oh9kh3ph1nsmall:1";

fn swath_at(level: Option<&str>, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swath"));
    // A tuning file of the user's would change what is chosen.
    command.args(args).env("SWATH_TUNE_FILE", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-tuning.toml"));
    if let Some(level) = level {
        command.env("SWATH_LEVEL", level);
    }
    command.output().expect("the program starts")
}

fn swath(args: &[&str]) -> Output {
    swath_at(None, args)
}

/// Standard output of a success, which says nothing on stderr.
fn good(args: &[&str]) -> String {
    let out = swath(args);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && stderr.is_empty(), "{args:?}: {}, {stderr}", out.status);
    String::from_utf8(out.stdout).expect("UTF-8")
}

/// The one line on stderr of a failure, which says nothing on stdout.
fn refusal(out: &Output) -> String {
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success(), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(out.stdout.is_empty() && stderr.starts_with("swath: "), "{stderr}");
    stderr
}

/// A file in this package's temporary directory.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).expect("the temporary directory is writable");
    path
}

#[test]
fn every_help_is_complete() {
    let top = good(&["--help"]);
    for word in [
        "info",
        "bench-conv",
        "bench-model",
        "models",
        "explain",
        "tune",
        "report",
        "SWATH_LEVEL",
        "SWATH_TUNE_FILE",
        "Examples:",
        "exit status",
    ] {
        assert!(top.contains(word), "{word} in {top}");
    }
    for (command, options) in [
        ("info", &["--format", "--no-measure", "json"][..]),
        (
            "bench-conv",
            &[
                "--threads",
                "--dir",
                "--format",
                "--algo",
                "--cold",
                "--brief",
                "--file",
                "PROBLEM",
                "csv",
                "bwd",
                "--set",
                "--model",
                "--batch",
            ],
        ),
        ("bench-model", &["MODEL", "--batch", "--threads", "--accuracy", "--format", "--seconds", "--explain", "json"]),
        ("models", &["--format", "GFLOP"]),
        ("explain", &["--threads", "--pass", "--algo", "--file", "PROBLEM", "--set", "--model", "--batch"]),
        (
            "report",
            &[
                "--out",
                "--json",
                "--compare",
                "--peer-command",
                "--readme",
                "--accuracy",
                "--file",
                "PROBLEM",
                "{cores}",
            ],
        ),
    ] {
        let help = good(&[command, "--help"]);
        for word in options.iter().chain(&["Examples:", "Usage:"]) {
            assert!(help.contains(word), "{word} in the help of {command}: {help}");
        }
    }
    assert!(good(&["--version"]).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn both_gradients_are_timed() {
    let csv = good(&["bench-conv", "--dir", "bwd", "--format", "csv", "--brief", LAYER, "ic3ih9oc8kh3sh2nb"]);
    let head: Vec<Vec<&str>> = csv.lines().map(|l| l.split(',').take(3).collect()).collect();
    let want = [["small:1", LAYER, "bwd_d"], ["small:1", LAYER, "bwd_w"], ["b", "ic3ih9oc8kh3sh2nb", "bwd_d"]];
    assert_eq!(head[..3], want, "{csv}");
    assert_eq!(head[3][2], "bwd_w", "{csv}");
    let explained = good(&["explain", "--pass", "bwd_d", LAYER]);
    assert!(explained.contains("data gradient of convolution"), "{explained}");
}

#[test]
fn csv_is_what_the_peers_scripts_read() {
    let text =
        good(&["bench-conv", "--threads", "1", "--dir", "fwd", "--format", "csv", "--brief", LAYER, "g2ic4_ih5oc6kh3"]);
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split(',').collect()).collect();
    assert_eq!(rows.len(), 2, "{text}");
    for (row, (name, problem)) in rows.iter().zip([("small:1", LAYER), ("", "g2ic4_ih5oc6kh3")]) {
        assert_eq!(row.len(), 6, "{text}");
        assert_eq!((row[0], row[1], row[2]), (name, problem, "fwd"));
        assert!(!row[3].is_empty());
        assert!(row[4].parse::<f64>().unwrap() > 0.0 && row[5].parse::<f64>().unwrap() > 0.0, "{text}");
    }
}

#[test]
fn lists_tables_and_json() {
    let list = file("list.txt", "# two layers\nic16ih5oc16kh3na*3\nic3ih9oc8kh3nb\n");
    let list = list.to_str().unwrap();
    let table = good(&["bench-conv", "--brief", "--file", list, LAYER]);
    for word in ["GFLOP/s", "of peak", "x3", "small:1", "total", "warm"] {
        assert!(table.contains(word), "{word} in {table}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&good(&["bench-conv", "--brief", "--cold", "--format", "json", "--file", list]))
            .expect("JSON");
    assert_eq!((&json[0]["name"], &json[0]["problem"]), (&"a".into(), &"ic16ih5oc16kh3na".into()));
    assert_eq!((&json[0]["times"], &json[1]["weights"]), (&3.into(), &"cold".into()));
    let explained = good(&["explain", "--file", list]);
    for word in ["ic3ih9oc8kh3nb", "1x3x9x9 * 8x3x3x3 -> 1x8x7x7", "chosen: "] {
        assert!(explained.contains(word), "{word} in {explained}");
    }
}

#[test]
fn sets_and_networks_are_sources_of_problems() {
    let problems = |args: &[&str]| -> Vec<String> {
        let text = good(&[&["explain"], args].concat());
        text.split("\n\n").map(|p| p.lines().next().unwrap_or_default().to_string()).collect()
    };
    let all = problems(&["--model", "squeezenet", "--batch", "2", "--set", "vgg16", LAYER]);
    assert_eq!(all.len(), 9 + 18 + 1);
    assert_eq!((all[0].as_str(), all[27].as_str()), ("mb1_ic3ih224oc64oh224kh3ph1nvgg16:1", LAYER));
    assert_eq!(all[9], "mb2ic3ih224oc64oh111kh3sh2ph0nsqueezenet:1");
    assert_eq!(problems(&["--set", "standard"]).len(), 99);
    assert_eq!(problems(&["--model", "resnet18", "--model", "unet"]).len(), 11 + 23);
    for (args, words) in [
        (["--set", "resnet51"], "there is no set \"resnet51\"; there are standard, assorted,"),
        (["--model", "resnet51"], "there is no network \"resnet51\"; there are resnet18,"),
    ] {
        for command in ["bench-conv", "explain"] {
            let line = refusal(&swath(&[&[command], &args[..]].concat()));
            assert!(line.contains(words), "{line}");
        }
    }
}

#[test]
fn networks_are_listed() {
    let text = good(&["models"]);
    for word in ["resnet34", "25,557,032", "8.18", "23 of 53", "1x1x572x572", "arXiv:1704.04861"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let json: serde_json::Value = serde_json::from_str(&good(&["models", "--format", "json"])).expect("JSON");
    let unet = json.as_array().unwrap().last().unwrap();
    assert_eq!((&unet["name"], &unet["convolutions"]), (&"unet".into(), &23.into()));
    assert_eq!((&unet["parameters"], &unet["input"]), (&31_030_658.into(), &serde_json::json!([1, 1, 572, 572])));
}

#[test]
fn whole_networks_are_timed_as_the_peers_scripts_ask() {
    let json: serde_json::Value = serde_json::from_str(&good(&[
        "bench-model",
        "squeezenet",
        "--threads",
        "2",
        "--format",
        "json",
        "--seconds",
        "0",
    ]))
    .expect("JSON");
    let number = |key: &str| json[key].as_f64().unwrap_or_else(|| panic!("{key} in {json}"));
    assert!(number("min_ms") > 0.0 && number("median_ms") >= number("min_ms"), "{json}");
    assert_eq!((number("runs"), number("threads"), number("batch")), (3.0, 2.0, 1.0));
    let text = good(&["bench-model", "mobilenet_v2", "--seconds", "0"]);
    for word in ["3,504,872 parameters", "1 image, 0.60 GFLOP", "median", "of 3 runs", "1 thread, level"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let steps = good(&["bench-model", "mobilenet_v1", "--batch", "2", "--explain"]);
    assert!(steps.contains("input [2, 3, 224, 224] nchw") && steps.contains("+ bias + ReLU6"), "{steps}");
    let exact = good(&["bench-model", "resnet18", "--accuracy", "exact", "--explain"]);
    assert!(exact.contains("layer4.1.conv2") && !exact.contains("winograd"), "{exact}");
    for (model, words) in [
        ("some/where/resnet50_b1.onnx", "cannot read some/where/resnet50_b1.onnx"),
        ("resnet51", "there is no network \"resnet51\"; there are resnet18"),
    ] {
        let line = refusal(&swath(&["bench-model", model]));
        assert!(line.contains(words), "{line}");
    }
}

#[test]
fn measurements_can_be_fitted() {
    let measured = good(&["bench-conv", "--brief", "--algo", "all", "--format", "csv", LAYER, "ic16ih9oc32kh3nb"]);
    let csv = file("measured.csv", &measured);
    let fitted = swath(&["fit-cost", csv.to_str().unwrap()]);
    let (rows, report) = (String::from_utf8_lossy(&fitted.stdout), String::from_utf8_lossy(&fitted.stderr));
    assert!(fitted.status.success(), "{report}");
    assert!(rows.contains("\"direct\"") && rows.contains("\"gemm\"") && rows.contains("];"), "{rows}");
    assert!(report.contains("within 7 %"), "{report}");
    let malformed = file("malformed.csv", "no,measurement\n");
    assert!(refusal(&swath(&["fit-cost", malformed.to_str().unwrap()])).contains("line 1"));
}

#[test]
fn reports_are_measured_read_and_compared() {
    let at = |name: &str| file(name, "").to_str().unwrap().to_string();
    let (page, json, again, readme) = (at("r.html"), at("r.json"), at("again.html"), at("r.md"));
    fs::write(&readme, "kept\n<!-- results --><!-- /results -->\nkept too\n").unwrap();
    let peer = r#"peer=f() { for p; do echo "${p#*n},$p,fwd,jit,{threads}000,1"; done; }; f"#;
    let problems = ["g2ic4_ih5oc6kh3na", "ic16ih9oc16kh3ph1nb"];
    let measure = ["report", "--brief", "--threads", "1,2", "--accuracy", "fast", "--out", &page, "--json", &json];
    let text = good(&[&measure[..], &["--peer-command", peer, "--readme", &readme], &problems].concat());
    for word in ["untuned choice within 7 % of the best on", "of 2 problems", "against", "written: "] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(fs::read_to_string(&readme).unwrap().contains("| layers of | 1 thread: geometric mean |"));
    let (first, report) = (fs::read_to_string(&page).unwrap(), fs::read_to_string(&json).unwrap());
    for word in ["<svg", "FMA peak", "winograd6", "ic16ih9oc16kh3ph1nb", "accuracy"] {
        assert!(first.contains(word), "{word}");
    }
    good(&["report", "--from", &json, "--out", &again]);
    assert_eq!(fs::read_to_string(&again).unwrap(), first, "the same page without measuring");

    // What took a thousand times longer is marked, and fails where that is asked for.
    let mut slow: serde_json::Value = serde_json::from_str(&report).unwrap();
    for time in slow["sets"][0]["layers"][0]["runs"][0]["algorithms"].as_array_mut().unwrap() {
        time["ms"] = (time["ms"].as_f64().unwrap() * 1e3).into();
    }
    let slow = file("slow.json", &slow.to_string());
    let compare = ["report", "--from", slow.to_str().unwrap(), "--compare", &json, "--out", &again];
    assert!(good(&compare).contains("1 are slower"), "marked");
    assert!(fs::read_to_string(&again).unwrap().contains(">slower<"));
    let failed = swath(&[&compare[..], &["--fail-on-regression"]].concat());
    assert!(!failed.status.success() && String::from_utf8_lossy(&failed.stderr).contains("slower by more than 7 %"));
}

#[test]
fn what_reports_cannot_use_is_refused() {
    let damaged = file("damaged.json", "{\"format\": 9}");
    let damaged = damaged.to_str().unwrap();
    for (args, words) in [
        (&["--from", damaged][..], "format 9"),
        (&["--compare", damaged], "format 9"),
        (&["--from", "/nowhere/r.json"], "cannot read /nowhere/r.json"),
        (&["--from", damaged, LAYER], "name no others"),
        (&["ic64_zz3"], "expected one of the fields"),
        (&["mb0ic16ih5oc16kh3"], "nothing to time"),
    ] {
        let line = refusal(&swath(&[&["report"], args].concat()));
        assert!(line.contains(words), "{words} in {line}");
    }
}

#[test]
fn every_algorithm_can_be_asked_for() {
    let all = good(&["bench-conv", "--brief", "--algo", "all", "--format", "csv", LAYER]);
    for line in all.lines() {
        let algo = line.split(',').nth(3).unwrap();
        let one = good(&["bench-conv", "--brief", "--algo", algo, "--format", "csv", LAYER]);
        assert_eq!(one.split(',').nth(3), Some(algo));
    }
}

#[test]
fn info_for_people_and_programs() {
    let text = good(&["info", "--no-measure"]);
    for word in ["CPU", "level", "scalar", "caches", "features"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&good(&["info", "--no-measure", "--format", "json"])).expect("JSON");
    assert_eq!(json["levels"][0], "scalar");
    assert_eq!(json["architecture"], std::env::consts::ARCH);
}

#[test]
fn info_measures_every_level() {
    let json: serde_json::Value = serde_json::from_str(&good(&["info", "--format", "json"])).expect("JSON");
    let peaks = json["peaks"].as_array().unwrap();
    assert_eq!(peaks.len(), json["levels"].as_array().unwrap().len());
    assert!(peaks.iter().all(|p| p["gflops"].as_f64().unwrap() > 0.0));
    let memory = json["bandwidths"].as_array().unwrap().last().unwrap();
    assert!(memory["from"] == "memory" && memory["gb_per_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_level_is_lowered_by_the_variable() {
    let out = swath_at(Some("scalar"), &["info", "--no-measure", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(json["level"], "scalar");
    for args in [&["info", "--no-measure"][..], &["bench-conv", LAYER], &["explain", LAYER], &[]] {
        let line = refusal(&swath_at(Some("sse9"), args));
        for word in ["SWATH_LEVEL", "\"sse9\" is unknown", "this machine can run: scalar"] {
            assert!(line.contains(word), "{line}");
        }
    }
}

#[test]
fn mistakes_get_one_line() {
    for command in ["bench-conv", "explain"] {
        for (problem, words) in [
            ("ic64ihoc64", "expected a number at character 7, found \"oc64\""),
            ("ic64_zz3", "expected one of the fields"),
            ("ic64ih56oc64oh55kh3ph1", "oh is 55, but the other fields make it 56"),
            ("g3ic64ih56oc64kh3", "3 groups do not divide 64"),
            ("nothing", "ic (input channels) is missing"),
        ] {
            let line = refusal(&swath(&[command, problem]));
            assert!(line.contains(words) && line.contains(problem), "{line}");
        }
        let line = refusal(&swath(&[command, "--file", "/nowhere/list.txt"]));
        assert!(line.contains("cannot read /nowhere/list.txt"), "{line}");
        let list = file(&format!("wrong-{command}.txt"), "ic16ih5oc16kh3\nic16\n");
        let line = refusal(&swath(&[command, "--file", list.to_str().unwrap()]));
        assert!(line.contains("line 2:") && line.contains(list.to_str().unwrap()), "{line}");
        assert!(refusal(&swath(&[command])).contains("no problem given"));
    }
}

#[test]
fn wrong_usage_is_refused() {
    for args in [
        &["bench-conv", "--threads", "0", LAYER][..],
        &["bench-conv", "--format", "xml", LAYER],
        &["no-such-command"],
        &["explain", "--batch", "2", LAYER],
        &["bench-model", "unet", "--batch", "0"],
        &["bench-model", "unet", "--seconds", "nan"],
        &["bench-model"],
    ] {
        let out = swath(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        // One line, and where to look.
        let line = refusal(&out);
        assert!(line.ends_with("--help` says more\n"), "{line}");
    }
}

#[test]
fn more_than_a_machine_has_is_refused_with_both_numbers() {
    let most = ["65535", "from 1 to 1024"];
    for (args, words) in [
        (&["bench-conv", "--threads", "65535", LAYER][..], most),
        (&["explain", "--threads", "65535", LAYER], most),
        (&["bench-model", "squeezenet", "--threads", "65535"], most),
        (&["report", "--threads", "1,65535", "--brief", LAYER], most),
        (&["tune", "--threads", "1,65535", LAYER], most),
        (&["tune", "--budget", "1e19", LAYER], ["10000000000000000000 seconds", "between 0 and 315360000"]),
        (&["tune", "--budget=-1", LAYER], ["-1", "between 0 and"]),
        (&["tune", "--budget=nan", LAYER], ["NaN", "between 0 and"]),
    ] {
        let line = refusal(&swath(args));
        assert!(words.iter().all(|w| line.contains(w)), "{args:?}: {line}");
    }
}

#[test]
fn names_with_escape_sequences_are_shown_as_such() {
    let name = format!("{LAYER}\u{1b}]0;title\u{7}\u{9b}2J\u{202e}");
    for args in [
        &["bench-conv", "--brief", &name][..],
        &["bench-conv", "--brief", "--format", "csv", &name],
        &["explain", &name],
        &["explain", "--file", &format!("/nowhere/{name}")],
        &["explain", &format!("x{name}")],
    ] {
        let out = swath(args);
        let text = [out.stdout, out.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
        assert!(text.contains("\\u{1b}]0;title\\u{7}\\u{9b}2J\\u{202e}") || text.contains("\\\\u"), "{text:?}");
        assert!(!text.contains(|c: char| c != '\n' && c.is_control()) && !text.contains('\u{202e}'), "{text:?}");
    }
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let list = file("mark.txt", &format!("\u{feff}{LAYER}\n"));
    assert!(good(&["explain", "--file", list.to_str().unwrap()]).starts_with(LAYER));
    let measured = good(&["bench-conv", "--brief", "--algo", "all", "--format", "csv", LAYER, "ic16ih9oc32kh3nb"]);
    let csv = file("mark.csv", &format!("\u{feff}{measured}"));
    assert!(swath(&["fit-cost", csv.to_str().unwrap()]).status.success());
    let csv = file("infinite.csv", "x,ic16ih9oc32kh3nx,fwd,direct,inf,1\n");
    assert!(refusal(&swath(&["fit-cost", csv.to_str().unwrap()])).contains("line 1: milliseconds must lie in"));
}

/// A report to read, of the fuzz target's corpus.
const REPORT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/report/good");

#[cfg(unix)]
#[test]
fn reports_go_into_pipes_and_devices() {
    use std::os::unix::fs::FileTypeExt;
    let page = file("plain.html", "");
    good(&["report", "--from", REPORT, "--out", page.to_str().unwrap()]);
    let page = fs::read_to_string(page).unwrap();
    // Standard output, a pipe here, gets the page and then the table.
    let text = good(&["report", "--from", REPORT, "--out", "/dev/stdout"]);
    assert!(text.starts_with(&page) && text.ends_with("written: /dev/stdout\n"), "{text}");
    let pipe = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("report-pipe");
    let _ = fs::remove_file(&pipe);
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe).unwrap()
    });
    good(&["report", "--from", REPORT, "--out", pipe.to_str().unwrap()]);
    assert_eq!(reader.join().unwrap(), page);
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    // What is endless is not read to its end.
    for args in [
        &["report", "--from", "/dev/zero"][..],
        &["explain", "--file", "/dev/zero"],
        &["fit-cost", "/dev/zero"],
        &["report", "--from", REPORT, "--peer", "x=/dev/zero"],
        &["tune", "--import", "/dev/zero"],
    ] {
        let line = refusal(&swath(args));
        assert!(line.contains("/dev/zero"), "{line}");
    }
    // A peak of the smallest float is no peak.
    let tiny = fs::read_to_string(REPORT).unwrap().replace("120.0", "5e-324");
    let line = refusal(&swath(&["report", "--from", file("tiny.json", &tiny).to_str().unwrap()]));
    assert!(line.contains("the peak must lie in"), "{line}");
}
