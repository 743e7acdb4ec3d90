//! Tuning tables: which choice a plan makes of them, and that their file survives whatever happens to it.
//!
//! No test here reads the user's file: tables are given by argument, files lie in the target folder.
#![cfg(feature = "nn")]

#[path = "../kernels/tests/tries/mod.rs"]
mod tries;

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once};

use proptest::prelude::*;
use swath::algo::ALGOS;
use swath::tune::{
    Conditions, Convolution, Entry, Event, Figures, Job, Measured, Outcome, Summary, Tuned, Tuner, TuningFile,
    TuningTable, kernel_set,
};
use swath::{Accuracy, ConvPlan, ConvShape, Epilogue, Error, Layout, Options, Scratch, SessionOptions, Tensor, Tuning};
use tries::tries;

fn shape() -> ConvShape {
    ConvShape::builder([1, 64, 14, 14], [64, 64, 3, 3]).padding(1).build().unwrap()
}

/// Blocked, on one thread, without Winograd.
fn options() -> Options {
    Options { threads: Some(1), accuracy: Accuracy::Exact, ..Options::blocked() }
}

fn here() -> Conditions {
    Conditions::here(swath::cpu().unwrap().level, 1)
}

/// An entry whose warm and cold times equal the given ones.
fn entry(candidates: &[(&str, f64)]) -> Entry {
    let measured =
        |&(algo, ms): &(&str, f64)| Measured { algo: algo.into(), figures: Figures::new(ms, ms, ms).unwrap() };
    Entry::new(candidates.iter().map(measured).collect()).unwrap()
}

fn table(conditions: Conditions, candidates: &[(&str, f64)]) -> TuningTable {
    let mut table = TuningTable::new("this test");
    table.insert(conditions, Convolution::new(&shape(), &options()), entry(candidates));
    table
}

fn plan(table: TuningTable, options: Options) -> ConvPlan {
    ConvPlan::new(&shape(), &Options { tuning: Tuning::Table(Arc::new(table)), ..options }).unwrap()
}

/// A folder of a test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tune-{name}"));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        if record.level() == log::Level::Warn {
            LOG.lock().unwrap().push(record.args().to_string());
        }
    }
    fn flush(&self) {}
}

/// Warnings that name `what` so far. Only those after the first call are seen.
fn warnings(what: &str) -> Vec<String> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Logger).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
    LOG.lock().unwrap().iter().filter(|m| m.contains(what)).cloned().collect()
}

#[test]
fn the_caller_wins_over_the_table_and_the_table_over_the_model() {
    let tuned = table(here(), &[("gemm", 0.1), ("direct", 0.2)]);
    let off = ConvPlan::new(&shape(), &Options { tuning: Tuning::Off, ..options() }).unwrap();
    assert_eq!(off.algo(), "direct", "the model's choice, against which the table speaks");
    assert_eq!(plan(tuned.clone(), options()).algo(), "gemm");
    let asked = plan(tuned.clone(), Options { algo: Some("direct".into()), ..options() });
    assert_eq!(asked.algo(), "direct");
    assert_eq!(plan(TuningTable::new("empty"), options()).algo(), "direct");

    let explained = plan(tuned, options()).explain().to_string();
    for words in ["chosen: gemm", "measured fastest, 0.1000 ms on 1 thread (tuned: this test)", "measured    0.2000 ms"]
    {
        assert!(explained.contains(words), "{words} in {explained}");
    }
    let explained = asked.explain().to_string();
    assert!(explained.contains("asked for") && explained.contains("measured    0.1000 ms"), "{explained}");
    assert!(!off.explain().to_string().contains("measured"));
}

#[test]
fn a_tuned_plan_computes_what_the_algorithm_computes() {
    let run = |plan: ConvPlan| {
        let (w, x) = (vec![0.25; 64 * 64 * 9], vec![1.0; 64 * 14 * 14]);
        let mut y = vec![f32::NAN; 64 * 14 * 14];
        let weights = plan.pack(&w).unwrap();
        plan.forward(&x, &weights, Epilogue::none(), &mut y, &mut Scratch::new()).unwrap();
        y
    };
    let tuned = run(plan(table(here(), &[("gemm", 0.1), ("direct", 0.2)]), options()));
    let asked = ConvPlan::new(&shape(), &Options { algo: Some("gemm".into()), ..options() }).unwrap();
    assert_eq!(tuned, run(asked));
}

#[test]
fn tuned_plans_give_the_same_bits_for_any_number_of_threads() {
    let w: Vec<f32> = (0..64 * 64 * 9).map(|i| (i * 37 % 101) as f32 / 101.0 - 0.5).collect();
    let x: Vec<f32> = (0..64 * 14 * 14).map(|i| (i * 53 % 97) as f32 / 97.0 - 0.5).collect();
    // What a plan with a table that prefers `algo` computes in a pool of so many threads.
    let run = |algo: &str, threads| {
        swath::par::with_threads(threads, || {
            let times: Vec<(&str, f64)> =
                ALGOS.iter().map(|a| (a.name, if a.name == algo { 0.1 } else { 0.2 })).collect();
            let options = Options { threads: None, accuracy: Accuracy::Fast, ..options() };
            let plan = plan(table(Conditions { threads, ..here() }, &times), options);
            let (weights, mut y) = (plan.pack(&w).unwrap(), vec![f32::NAN; x.len()]);
            plan.forward(&x, &weights, Epilogue::none(), &mut y, &mut Scratch::new()).unwrap();
            (plan.algo(), y)
        })
        .unwrap()
    };
    for algo in ["direct", "gemm", "winograd2", "winograd4", "winograd6"] {
        let one = run(algo, 1);
        assert_eq!(one.0, algo);
        for threads in [2, 3, 8] {
            assert_eq!(run(algo, threads), one, "{algo} on {threads} threads");
        }
    }
}

#[test]
fn only_an_exact_match_counts() {
    let candidates = [("gemm", 0.1), ("direct", 0.2)];
    let other = [
        ("CPU", Conditions { cpu: "GenuineIntel 6/143 Xeon".into(), ..here() }),
        ("level", Conditions { level: "sse9".into(), ..here() }),
        ("threads", Conditions { threads: 2, ..here() }),
        ("kernels", Conditions { kernels: "0123456789abcdef".into(), ..here() }),
    ];
    for (what, conditions) in other {
        assert_eq!(plan(table(conditions, &candidates), options()).algo(), "direct", "another {what}");
    }
    let tuned = table(here(), &candidates);
    for layouts in [(Layout::Nhwc, Layout::Blocked), (Layout::Blocked, Layout::Nchw)] {
        let options = Options { input: layouts.0, output: layouts.1, ..options() };
        assert_eq!(plan(tuned.clone(), options).algo(), "direct", "{layouts:?}");
    }
    let two = Options { threads: None, ..options() };
    let algo = |n| swath::par::with_threads(n, || plan(tuned.clone(), two.clone()).algo()).unwrap();
    assert_eq!((algo(1), algo(2)), ("gemm", "direct"), "a pool of one thread is one thread");
    let wider = ConvShape::builder([1, 64, 14, 15], [64, 64, 3, 3]).padding(1).build().unwrap();
    let options = Options { tuning: Tuning::Table(tuned.into()), ..options() };
    assert_eq!(ConvPlan::new(&wider, &options).unwrap().algo(), "direct", "another geometry");
}

#[test]
fn identifiers_that_do_not_fit_fall_through_to_the_next() {
    assert!(warnings("magic").is_empty());
    // Neither an unknown algorithm nor one that does not support the shape can be taken.
    for _ in 0..2 {
        let tuned = table(here(), &[("magic", 0.01), ("depthwise", 0.02), ("gemm", 0.1), ("direct", 0.2)]);
        assert_eq!(plan(tuned, options()).algo(), "gemm");
    }
    assert_eq!(warnings("\"magic\"").len(), 1, "warned, and once");
    assert_eq!(plan(table(here(), &[("magic", 0.01)]), options()).algo(), "direct");
    // Nothing says that gemm is faster than the modelled choice, which was not measured.
    assert_eq!(plan(table(here(), &[("gemm", 0.1)]), options()).algo(), "direct");
}

#[test]
fn an_accuracy_that_forbids_the_fastest_gets_the_next() {
    let times = [("winograd6", 0.1), ("winograd4", 0.2), ("gemm", 0.25), ("winograd2", 0.3), ("direct", 0.4)];
    let algo = |accuracy| plan(table(here(), &times), Options { accuracy, ..options() }).algo();
    let algos = [Accuracy::Fast, Accuracy::Default, Accuracy::Exact].map(algo);
    assert_eq!(algos, ["winograd6", "winograd4", "gemm"]);
}

#[test]
fn sessions_tune_on_their_own_number_of_threads() {
    use swath::nn::*;
    let model = Sequential::new((Conv2d::new(64, 64, 3).padding(1),)).build(1).unwrap();
    // Sessions allow Winograd, so the model's choice may be any of these.
    const EVERY: [(&str, f64); 5] =
        [("gemm", 0.1), ("direct", 0.2), ("winograd2", 0.2), ("winograd4", 0.2), ("winograd6", 0.2)];
    let compiled = |threads, tuned: &TuningTable| {
        let tuning = Tuning::Table(Arc::new(tuned.clone()));
        let options = SessionOptions { threads: Some(threads), tuning, ..SessionOptions::default() };
        let mut session = model.compile_with([1, 64, 14, 14], &options).unwrap();
        session.run(&Tensor::zeros([1, 64, 14, 14]).unwrap()).unwrap();
        session.explain()
    };
    let three = table(Conditions { threads: 3, ..here() }, &EVERY);
    assert!(compiled(3, &three).contains("gemm"), "{}", compiled(3, &three));
    assert!(!compiled(1, &three).contains("gemm"), "{}", compiled(1, &three));
}

#[test]
fn files_give_back_what_they_were_given_and_keep_what_others_wrote() {
    let file = TuningFile::at(folder("merge").join("new/folder/tuning.toml"));
    assert!(file.read().is_empty());
    let foreign = Conditions { cpu: "another \"CPU\"\nof two lines".into(), level: "sse9".into(), ..here() };
    file.merge(&table(foreign.clone(), &[("direct", 1.0)])).unwrap();
    file.merge(&table(here(), &[("direct", 0.2), ("gemm", 0.3)])).unwrap();
    let stale = Conditions { kernels: "0123456789abcdef".into(), threads: 7, ..here() };
    file.merge(&table(stale.clone(), &[("old", 3.0)])).unwrap();
    let read = file.read();
    let convolution = Convolution::new(&shape(), &options());
    assert_eq!(read.len(), 3);
    assert_eq!(read.get(&foreign, &convolution), Some(&entry(&[("direct", 1.0)])));
    assert_eq!(read.get(&here(), &convolution).unwrap().winner().algo, "direct");
    let census = read.census();
    assert_eq!((census.current, census.stale, census.foreign), (1, 1, 1));
    // Measured anew, an entry displaces its own stale one, and no other.
    file.merge(&table(Conditions { threads: 7, ..here() }, &[("direct", 0.5)])).unwrap();
    assert_eq!((file.read().get(&stale, &convolution), file.read().len()), (None, 3));
    assert!(fs::read_to_string(file.path()).unwrap().contains("problem = \"mb1ic64ih14oc64oh14kh3ph1\""));
    file.clear().unwrap();
    assert!(!file.path().exists() && file.read().is_empty());
    file.clear().unwrap();
}

#[cfg(unix)]
#[test]
fn a_link_to_a_file_stays_one() {
    let folder = folder("link");
    fs::create_dir(folder.join("real")).unwrap();
    let (real, link) = (TuningFile::at(folder.join("real/tuning.toml")), TuningFile::at(folder.join("link.toml")));
    real.merge(&table(here(), &[("direct", 1.0)])).unwrap();
    std::os::unix::fs::symlink(real.path(), link.path()).unwrap();
    link.merge(&table(Conditions { threads: 2, ..here() }, &[("direct", 1.0)])).unwrap();
    assert!(link.path().is_symlink());
    assert_eq!(real.read().len(), 2);
}

#[test]
fn two_writers_lose_nothing() {
    let file = TuningFile::at(folder("writers").join("tuning.toml"));
    const EACH: usize = 25;
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let file = file.clone();
            scope.spawn(move || {
                for i in 0..EACH {
                    let threads = 1 + writer * EACH + i;
                    file.merge(&table(Conditions { threads, ..here() }, &[("direct", 1.0)])).unwrap();
                    assert!(file.load().unwrap().skipped.is_empty(), "a reader sees whole files only");
                }
            });
        }
    });
    assert_eq!(file.read().len(), 4 * EACH);
    let left: Vec<_> = fs::read_dir(file.path().parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the file and its lock: {left:?}");
}

#[test]
fn what_killed_writers_left_is_swept_away() {
    let folder = folder("leftovers");
    let file = TuningFile::at(folder.join("tuning.toml"));
    for (name, stays) in [(".tuning.toml.123.4.tmp", false), (".tuning.toml.mine.tmp", true), ("other.tmp", true)] {
        fs::write(folder.join(name), "format = 1\n[[tu").unwrap();
        file.merge(&table(here(), &[("direct", 1.0)])).unwrap();
        assert_eq!(folder.join(name).exists(), stays, "{name}");
    }
}

/// Writes `text`, and returns the file, what it reads as, and the warnings about it.
fn survive(name: &str, text: &[u8]) -> (TuningFile, TuningTable, Vec<String>) {
    let file = TuningFile::at(folder(name).join("tuning.toml"));
    fs::write(file.path(), text).unwrap();
    warnings("");
    let read = file.read();
    let path = file.path().display().to_string();
    (file, read, warnings(&path))
}

#[test]
fn damaged_and_foreign_files_are_survived_with_a_warning_and_set_aside() {
    let whole = table(here(), &[("gemm", 0.1), ("direct", 0.2)]).to_string();
    let cases: [(&str, String, &str); 6] = [
        ("truncated", whole[..whole.len() - 20].into(), "not TOML, or cut off"),
        ("not-toml", "<html>\n".into(), "not TOML"),
        ("not-ours", "[package]\nname = \"x\"\n".into(), "not a tuning file"),
        ("version", whole.replace("format = 1", "format = 2"), "it has format 2, this version of swath reads 1"),
        ("empty", String::new(), "not a tuning file"),
        ("type", whole.replace("[[tuned]]", "[tuned]"), "is ignored"),
    ];
    for (name, text, why) in cases {
        let (file, read, warned) = survive(name, text.as_bytes());
        assert!(read.is_empty(), "{name}");
        assert!(warned.len() == 1 && warned[0].contains(why) && !warned[0].contains('\n'), "{name}: {warned:?}");
        assert!(file.load().is_err(), "{name}");
        // Writers go on, and what was there is kept.
        file.merge(&table(here(), &[("direct", 1.0)])).unwrap();
        assert_eq!(file.read().len(), 1, "{name}");
        let aside = file.path().with_file_name("tuning.toml.aside");
        assert_eq!(fs::read_to_string(&aside).unwrap(), text, "{name}");
        assert!(warnings(&aside.display().to_string()).len() == 1, "{name}");
    }
    let (_, read, warned) = survive("bytes", &[0xff, 0xfe, 0]);
    assert!(read.is_empty() && warned[0].contains("UTF-8"), "{warned:?}");
}

#[test]
fn an_entry_broken_by_hand_costs_only_itself() {
    let mut two = table(here(), &[("gemm", 0.1), ("direct", 0.2)]);
    let wide = ConvShape::builder([1, 64, 14, 99], [64, 64, 3, 3]).padding(1).build().unwrap();
    two.insert(here(), Convolution::new(&wide, &options()), entry(&[("direct", 1.5)]));
    let text = two.to_string();
    for (name, from, to, why) in [
        ("problem", "iw99", "iw99zz", "expected one of the fields"),
        ("layout", "input = \"blocked\"", "input = \"diagonal\"", "no layout \"diagonal\""),
        ("times", "warm_ms = 1.5", "warm_ms = -1.5", "not positive"),
        ("nan", "warm_ms = 1.5", "warm_ms = nan", "not positive"),
        ("missing", "warm_ms = 1.5, ", "", "missing field `warm_ms`"),
        ("type", "ms = 1.5,", "ms = \"fast\",", "invalid type"),
        ("none", "{ algo = \"direct\", ms = 1.5, warm_ms = 1.5, cold_ms = 1.5 },", "", "no candidate"),
    ] {
        // The last occurrence is in the entry of the wide one, except for layouts.
        let at = if name == "layout" { text.find(from) } else { text.rfind(from) }.unwrap();
        let broken = format!("{}{to}{}", &text[..at], &text[at + from.len()..]);
        let (file, read, warned) = survive(&format!("entry-{name}"), broken.as_bytes());
        assert_eq!(read.len(), 1, "{name}");
        assert!(warned.len() == 1 && warned[0].contains(why) && !warned[0].contains('\n'), "{name}: {warned:?}");
        file.merge(&table(Conditions { threads: 5, ..here() }, &[("direct", 1.0)])).unwrap();
        assert_eq!(file.read().len(), 2, "{name}");
        assert_eq!(fs::read_to_string(file.path().with_file_name("tuning.toml.aside")).unwrap(), broken, "{name}");
    }
}

#[test]
fn folders_that_cannot_be_used_are_survived_by_readers_and_told_by_writers() {
    let folder = folder("unreadable");
    fs::write(folder.join("file"), "").unwrap();
    fs::create_dir(folder.join("tuning.toml")).unwrap();
    for path in [folder.join("file/tuning.toml"), folder.join("tuning.toml")] {
        warnings("");
        let file = TuningFile::at(&path);
        assert!(file.read().is_empty());
        assert_eq!(warnings(&path.display().to_string()).len(), 1, "{path:?}");
        let error = file.merge(&table(here(), &[("direct", 1.0)])).unwrap_err();
        assert!(matches!(&error, Error::Io { .. }) && error.to_string().contains(&*path.to_string_lossy()), "{error}");
    }
}

#[test]
fn the_tuner_measures_what_plans_then_take() {
    let folder = folder("tuner");
    let file = TuningFile::at(folder.join("tuning.toml"));
    let small = |w| ConvShape::builder([1, 16, 6, w], [16, 16, 3, 3]).padding(1).build().unwrap();
    let job = |w: usize| Job { name: w.to_string(), shape: small(w), options: options() };
    let jobs = [job(5), job(6), job(5)];
    let tuner = Tuner::default();
    let (mut tuned, mut known) = (Vec::<Tuned>::new(), 0);
    let summary = tuner.run(&jobs, &file, |event| match event {
        Event::Begins(_) => {}
        Event::Ends(job, Outcome::Tuned(t)) => {
            let saved = file.load().unwrap().table;
            assert_eq!(saved.get(&t.conditions, &t.convolution), Some(&t.entry), "{}: saved when it is told", job.name);
            tuned.push(t.clone());
        }
        Event::Ends(_, Outcome::Known(_)) => known += 1,
        Event::Ends(_, Outcome::Skipped) => panic!("there is no budget"),
    });
    assert_eq!(summary.unwrap(), Summary { tuned: 2, known: 1, skipped: 0 });
    assert_eq!((tuned.len(), known, file.read().len()), (2, 1, 2));
    let table: Arc<TuningTable> = file.read().into();
    for t in &tuned {
        assert!(t.entry.figures(t.modelled).is_some(), "the modelled choice is always measured");
        let tuning = Tuning::Table(table.clone());
        let options = Options { tuning, accuracy: Accuracy::Fast, ..options() };
        let plan = ConvPlan::new(&t.convolution.shape, &options).unwrap();
        assert_eq!(plan.algo(), t.entry.winner().algo);
        assert!(plan.explain().to_string().contains(&*file.path().to_string_lossy()));
    }
    // A second run has nothing to do, one that is told to does it again, and without time nothing is begun.
    let run = |tuner: Tuner| tuner.run(&jobs, &file, |_| {}).unwrap();
    assert_eq!(run(tuner), Summary { tuned: 0, known: 3, skipped: 0 });
    assert_eq!(run(Tuner { again: true, ..tuner }), Summary { tuned: 2, known: 1, skipped: 0 });
    // Told to keep the fastest, it leaves a time that nothing beats.
    let (t, fastest) = (&tuned[0], Figures::new(1e-6, 1e-6, 1e-6).unwrap());
    let algo = t.entry.winner().algo.clone();
    let mut table = TuningTable::default();
    let entry = Entry::new(vec![Measured { algo: algo.clone(), figures: fastest }]).unwrap();
    table.insert(t.conditions.clone(), t.convolution, entry);
    file.merge(&table).unwrap();
    let now = || file.read().get(&t.conditions, &t.convolution).unwrap().clone();
    run(Tuner { again: true, keep_fastest: true, ..tuner });
    assert_eq!(now().figures(&algo), Some(fastest));
    assert_eq!(now().candidates().len(), t.entry.candidates().len(), "the others are measured");
    run(Tuner { again: true, ..tuner });
    assert_ne!(now().figures(&algo), Some(fastest));
    let none = Some(std::time::Duration::ZERO);
    assert_eq!(run(Tuner { again: true, budget: none, ..tuner }), Summary { tuned: 0, known: 0, skipped: 3 });
}

#[test]
fn convolutions_without_work_can_be_tuned() {
    let empty = ConvShape::builder([0, 16, 6, 6], [16, 16, 3, 3]).build().unwrap();
    let tuned = Tuner::default().tune(&empty, &options(), None).unwrap();
    assert!(tuned.entry.winner().figures.ms() > 0.0);
}

prop_compose! {
    fn any_convolution()(
        n in 0usize..3, groups in 1usize..4, icg in 1usize..5, ocg in 1usize..5, ih in 1usize..20, iw in 1usize..20,
        kernel in [1usize..4, 1usize..4], stride in [1usize..3, 1usize..3], dilation in [1usize..3, 1usize..3],
        pad in [0usize..4, 0usize..4, 0usize..4, 0usize..4], layouts in [0usize..3, 0usize..3],
    ) -> Option<Convolution> {
        let weights = [groups * ocg, icg, kernel[0], kernel[1]];
        let builder = ConvShape::builder([n, groups * icg, ih, iw], weights).groups(groups).stride(stride);
        let shape = builder.dilation(dilation).padding(pad).build().ok()?;
        Some(Convolution { shape, input: Layout::ALL[layouts[0]], output: Layout::ALL[layouts[1]] })
    }
}

prop_compose! {
    fn any_table()(
        items in prop::collection::vec(
            ("\\PC{0,12}|[\\x00-\\x7f]{0,6}", "[a-z]{1,6}", 1usize..5, any_convolution(),
             prop::collection::btree_map("\\PC{0,8}", (1e-6f64..1e6, 1e-6f64..1e6), 1..4)),
            0..12),
    ) -> TuningTable {
        let mut table = TuningTable::new("anything");
        for (cpu, level, threads, convolution, times) in items {
            let measured = |(algo, (warm, cold))| {
                Measured { algo, figures: Figures::new((warm + cold) / 2.0, warm, cold).unwrap() }
            };
            let entry = Entry::new(times.into_iter().map(measured).collect()).unwrap();
            let conditions = Conditions { cpu, level, threads, kernels: kernel_set().into() };
            if let Some(convolution) = convolution {
                table.insert(conditions, convolution, entry);
            }
        }
        table
    }
}

proptest! {
    #![proptest_config(tries(64))]

    #[test]
    fn what_is_written_reads_back(table in any_table()) {
        let file = TuningFile::at(folder("round-trip").join("tuning.toml"));
        file.merge(&table).unwrap();
        let read = file.load().unwrap();
        prop_assert_eq!(&read.skipped, &Vec::<String>::new());
        prop_assert_eq!(&read.table, &table);
        prop_assert_eq!(read.table.to_string(), table.to_string(), "equal tables are equal files");
    }

    #[test]
    fn no_cut_and_no_changed_byte_is_a_failure(cut in 0usize..2000, at in 0usize..2000, byte in any::<u8>()) {
        let mut bytes = table(here(), &[("gemm", 0.1), ("direct", 0.2)]).to_string().into_bytes();
        let (at, cut) = (at % bytes.len(), cut % bytes.len());
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut);
        let file = TuningFile::at(folder("any-damage").join("tuning.toml"));
        fs::write(file.path(), &bytes).unwrap();
        let read = file.read();
        prop_assert!(read.len() <= 1);
        // Whatever a plan makes of it, it is made.
        plan(read, options());
        file.merge(&table(Conditions { threads: 9, ..here() }, &[("direct", 1.0)])).unwrap();
        prop_assert!(!file.load().unwrap().table.is_empty());
    }
}
