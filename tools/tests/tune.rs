//! `swath tune` as its users meet it, also when it is killed, and when others tune at the same time.
//!
//! Every test has a tuning file of its own, in the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use swath::nn::{Conv2d, Conv2dPadding, Flatten, Linear, Sequential};
use swath::tune::{Conditions, Convolution, Entry, Figures, Measured, TuningFile, TuningTable};
use swath::{ConvShape, Options};

const LAYER: &str = "mb1ic16ih9oc16oh9kh3ph1";

/// An empty folder for a test, and the tuning file in it.
fn place(name: &str) -> (PathBuf, TuningFile) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tune-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let file = TuningFile::at(folder.join("tuning.toml"));
    (folder, file)
}

fn command(file: &TuningFile, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swath"));
    command.args(args).env("SWATH_TUNE_FILE", file.path()).env_remove("RUST_LOG");
    command
}

/// Standard output and standard error of a success.
fn success(file: &TuningFile, args: &[&str]) -> (String, String) {
    let Output { status, stdout, stderr } = command(file, args).output().expect("the program starts");
    let [stdout, stderr] = [stdout, stderr].map(|b| String::from_utf8(b).expect("UTF-8"));
    assert!(status.success(), "{args:?}: {status}, {stderr}");
    (stdout, stderr)
}

/// Standard output of a success that says nothing on stderr.
fn good(file: &TuningFile, args: &[&str]) -> String {
    let (stdout, stderr) = success(file, args);
    assert_eq!(stderr, "", "{args:?}");
    stdout
}

/// The one line on stderr of a failure.
fn refusal(file: &TuningFile, args: &[&str]) -> String {
    let out = command(file, args).output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && stderr.lines().count() == 1 && stderr.starts_with("swath: "), "{stderr}");
    stderr
}

fn start(file: &TuningFile, args: &[&str]) -> Child {
    command(file, args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

/// Small problems, each another one, as arguments of `swath tune`.
fn problems(widths: std::ops::Range<usize>) -> Vec<String> {
    let mut args = vec!["tune".to_string(), "--threads".into(), "1".into()];
    args.extend(widths.map(|w| format!("mb1ic16ih6iw{w}oc16kh3ph1")));
    args
}

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Entries of a file that must be whole.
fn entries(file: &TuningFile) -> usize {
    let parsed = file.load().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(parsed.skipped, Vec::<String>::new());
    parsed.table.len()
}

/// Measurements by which everything but gemm is slow.
fn gemm_fastest() -> Entry {
    let measured =
        |&(algo, ms): &(&str, f64)| Measured { algo: algo.into(), figures: Figures::new(ms, ms, ms).unwrap() };
    let candidates = swath::algo::ALGOS.iter().map(|a| (a.name, if a.name == "gemm" { 0.125 } else { 0.5 }));
    Entry::new(candidates.map(|c| measured(&c)).collect()).unwrap()
}

/// A table that says of [`LAYER`] on one thread that the untuned choice is the slower one.
fn preferring_gemm() -> TuningTable {
    let shape = ConvShape::builder([1, 16, 9, 9], [16, 16, 3, 3]).padding(1).build().unwrap();
    let options = Options::inside_model(&shape);
    let mut table = TuningTable::new("a test");
    table.insert(Conditions::here(swath::cpu().unwrap().level, 1), Convolution::new(&shape, &options), gemm_fastest());
    table
}

fn put(file: &TuningFile, table: &TuningTable) {
    fs::write(file.path(), table.to_string()).unwrap();
}

#[test]
fn killed_at_any_moment_it_leaves_a_readable_file_with_what_it_measured() {
    let (folder, file) = place("killed");
    let args = problems(5..13);
    // As soon as there is one entry more than before; each run goes on where the last one was killed.
    for wanted in [1, 2, 3] {
        let mut child = start(&file, &strs(&args));
        loop {
            let ended = child.try_wait().unwrap();
            if entries(&file) >= wanted {
                break;
            }
            assert!(ended.is_none(), "ended without having measured {wanted}");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(entries(&file) >= wanted, "what was measured is kept");
    }
    // At moments that have nothing to do with its progress.
    let mut before = entries(&file);
    for k in 0..20u64 {
        let mut child = start(&file, &[&strs(&args)[..], &["--again"]].concat());
        std::thread::sleep(Duration::from_micros(k * 3700));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(entries(&file) >= before, "nothing that was there is lost");
        before = entries(&file);
    }
    good(&file, &strs(&args));
    assert_eq!(entries(&file), 8);
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".tuning.toml.lock", "tuning.toml"], "the dead left nothing");
}

#[test]
fn two_at_once_lose_nothing() {
    let (_, file) = place("two");
    let mut children: Vec<Child> = [5..11, 8..14].into_iter().map(|w| start(&file, &strs(&problems(w)))).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(entries(&file), 9);
}

#[test]
fn an_onnx_file_gives_its_convolutions() {
    let (folder, file) = place("onnx");
    let conv = || Conv2d::new(16, 16, 3).padding(1);
    // The notation lacks the second one's padding; the third is the first once more.
    let layers =
        (conv(), Conv2d::new(16, 16, 2).padding(Conv2dPadding::Same), conv(), Flatten, Linear::new(16 * 64, 2));
    let model = Sequential::new(layers).build(1).unwrap();
    let path = folder.join("small.onnx");
    swath::onnx::save(&model, [1, 16, 8, 8], &path).unwrap();
    let path = path.to_str().unwrap();
    let text = good(&file, &["tune", "--threads", "1", path, "--shape", "input=1x16x8x8"]);
    assert!(text.contains("small:1") && text.contains("measured 2 in"), "{text}");
    assert_eq!(entries(&file), 2);
    let text = good(&file, &["tune", "--threads", "1", "--model", path]);
    assert!(text.contains("knew 2"), "{text}");
    // Its entries are those that the compiled model asks for.
    let mut table = TuningTable::new("a test");
    file.read().iter().for_each(|(c, v, _)| table.insert(c.clone(), *v, gemm_fastest()));
    put(&file, &table);
    let steps = good(&file, &["bench-model", path, "--explain"]);
    assert_eq!(steps.lines().filter(|l| l.contains("Conv") && l.contains("gemm")).count(), 3, "{steps}");
    let e = refusal(&file, &["tune", path, "--shape", "x=1x16x8x8"]);
    assert!(e.contains("--shape x=..: the model has no such input; it has input"), "{e}");
}

#[test]
fn plans_use_the_file_and_say_so() {
    let (_, file) = place("used");
    let untuned = good(&file, &["explain", LAYER]);
    assert!(untuned.contains("the cost model predicts") && !untuned.contains("measured"), "{untuned}");
    put(&file, &preferring_gemm());
    let tuned = good(&file, &["explain", LAYER]);
    let path = file.path().display().to_string();
    for words in ["chosen: gemm", "measured fastest, 0.1250 ms on 1 thread", &path, "measured    0.5000 ms"] {
        assert!(tuned.contains(words), "{words} in {tuned}");
    }
    assert!(good(&file, &["explain", "--threads", "2", LAYER]).contains("the cost model predicts"));
    assert!(!good(&file, &["explain", "--algo", "direct", LAYER]).contains("chosen: gemm"));
    assert!(good(&file, &["bench-conv", "--brief", "--format", "csv", LAYER]).contains(",gemm,"));
    assert!(good(&file, &["info", "--no-measure"]).contains(&format!("{path}: 1 entries, 1 for this CPU")));
}

#[test]
fn a_useless_file_is_a_warning_and_no_failure() {
    let (folder, file) = place("useless");
    let whole = preferring_gemm().to_string();
    let cpu = swath::machine::cpu_identity();
    // In the middle of a string, wherever the file's middle would be.
    let cut = &whole[..whole.find("problem").expect("a convolution") + 12];
    for (text, why) in [
        (cut, "cut off"),
        ("[package]\nname = \"other\"\n", "not a tuning file"),
        (&whole.replace("format = 1", "format = 99"), "it has format 99"),
        (&whole.replace(cpu, "another one"), "another CPU"),
        (&whole.replace(swath::tune::kernel_set(), "0123456789abcdef"), "stale"),
        (&whole.replace("ph1", "ph1zz"), "expected one of the fields"),
    ] {
        fs::write(file.path(), text).unwrap();
        let (stdout, stderr) = success(&file, &["explain", LAYER, LAYER]);
        assert!(stdout.contains("the cost model predicts"), "{why}: {stdout}");
        assert!(stderr.lines().count() == 1 && stderr.starts_with("swath: warn: ") && stderr.contains(why), "{stderr}");
    }
    let nowhere = TuningFile::at(folder.join("tuning.toml/below/a/file.toml"));
    let (_, stderr) = success(&nowhere, &["explain", LAYER]);
    assert!(stderr.contains("is ignored"), "{stderr}");
    assert!(refusal(&nowhere, &["tune", LAYER]).contains("cannot write"), "before it measures anything");
    // Tuning sets the damaged file aside and goes on.
    fs::write(file.path(), cut).unwrap();
    let (_, stderr) = success(&file, &["tune", "--threads", "1", LAYER]);
    assert!(stderr.contains("tuning.toml.aside"), "{stderr}");
    assert_eq!(entries(&file), 1);
    assert_eq!(fs::read_to_string(folder.join("tuning.toml.aside")).unwrap(), cut);
}

#[test]
fn show_export_import_and_clear() {
    let (folder, file) = place("moved");
    let exported = folder.join("exported.toml");
    let path = exported.to_str().unwrap();
    assert!(good(&file, &["tune", "--show"]).contains("not there"));
    assert!(refusal(&file, &["tune", "--export", path]).contains("nothing to export"));
    let list = folder.join("list.txt");
    fs::write(&list, format!("{LAYER}na*3\nmb1ic3ih9oc16kh3nb\n{LAYER}nagain\n")).unwrap();
    let args = ["tune", "--threads", "1,2", "--file", list.to_str().unwrap(), "--format", "json"];
    let rows: serde_json::Value = serde_json::from_str(&good(&file, &args)).expect("JSON");
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 4, "two problems on two numbers of threads; what occurs twice is measured once");
    assert_eq!((&rows[0]["name"], &rows[0]["threads"], &rows[3]["threads"]), (&"a".into(), &1.into(), &2.into()));
    assert_eq!((&rows[0]["from"], &rows[1]["input"]), (&"measured".into(), &"nchw".into()));
    let times: Vec<f64> =
        rows[0]["candidates"].as_array().unwrap().iter().map(|c| c["milliseconds"].as_f64().unwrap()).collect();
    assert!(times.is_sorted() && times[0] > 0.0, "{times:?}");

    // Passes keep of each candidate the fastest time, and are told of once.
    let args = [&args[..], &["--again", "--passes", "2"]].concat();
    let twice: serde_json::Value = serde_json::from_str(&good(&file, &args)).expect("JSON");
    let twice = twice.as_array().unwrap();
    assert_eq!(twice.len(), 4);
    assert!((0..4).all(|i| twice[i]["problem"] == rows[i]["problem"] && twice[i]["threads"] == rows[i]["threads"]));

    let shown = good(&file, &["tune", "--show"]);
    assert!(shown.contains("mb1ic3ih9oc16oh7kh3ph0") && shown.contains("4 entries that this machine"), "{shown}");
    assert!(good(&file, &["tune", "--export", path]).contains("exported 4 entries"));
    assert!(good(&file, &["tune", "--clear"]).contains("cleared"));
    assert!(!file.path().exists());
    assert!(good(&file, &["tune", "--import", path]).contains("imported 4 entries"));
    assert_eq!(entries(&file), 4);
    let again = good(&file, &["tune", "--threads", "1,2", "--file", list.to_str().unwrap()]);
    assert!(again.contains("measured 0 in") && again.contains("knew 4, left out 0"), "{again}");

    fs::write(&exported, "format = 1\n[[tuned]]\n").unwrap();
    assert!(refusal(&file, &["tune", "--import", path]).contains("missing field"));
    fs::write(&exported, "format = 2\n").unwrap();
    assert!(refusal(&file, &["tune", "--import", path]).contains("format 2"));
    assert!(refusal(&file, &["tune", "--import", "/nowhere/x.toml"]).contains("cannot read /nowhere/x.toml"));
    assert!(refusal(&file, &["tune", "--export", "/nowhere/x.toml"]).contains("cannot write /nowhere/x.toml"));
    assert_eq!(entries(&file), 4, "what cannot be imported changes nothing");
}

#[test]
fn a_budget_leaves_out_what_it_does_not_reach() {
    let (_, file) = place("budget");
    let out = good(&file, &["tune", "--threads", "1", "--budget", "0", LAYER]);
    assert!(
        out.contains("measured 0 in") && out.contains("left out 1") && out.contains("goes on with the rest"),
        "{out}"
    );
    assert!(!file.path().exists());
    for wrong in ["-1", "soon", "inf"] {
        let out = command(&file, &["tune", &format!("--budget={wrong}"), LAYER]).output().unwrap();
        assert!(!out.status.success() && out.stdout.is_empty(), "{wrong}");
    }
}

#[test]
fn its_help_is_complete() {
    let help = good(&TuningFile::at(Path::new("none.toml")), &["tune", "--help"]);
    let options = [
        "--threads",
        "--budget",
        "--all",
        "--again",
        "--format",
        "--clear",
        "--import",
        "--export",
        "--show",
        "--file",
    ];
    for word in options.iter().chain(&["PROBLEM", "Examples:", "SWATH_TUNE_FILE", "configuration folder"]) {
        assert!(help.contains(word), "{word} in {help}");
    }
}
