//! What `swath` alone does: this machine, a few convolutions as a share of its peak, and a network that learns to read.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use swath::nn::Module;
use swath::train::loss::CrossEntropyLoss;
use swath::train::schedule::OneCycleLr;
use swath::train::{Adam, Event, Fit, Optimization, Trainer, TrainerOptions, fit};
use swath::tune::Tuning;
use swath::{Model, SessionOptions};

use crate::bench;
use crate::display::{Display, Extent};
use crate::failure::{Failure, Outcome};
use crate::info;
use crate::interrupt::stop_on_interrupt;
use crate::predictions::{self, Prediction, Section};
use crate::training::{Augment, Data, network};

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath                                   the same as `swath demo`
  swath demo --epochs 8                   learns for longer
  swath demo --out /tmp/digits.png        writes the picture of its predictions there

Everything is made here: the pictures are drawn from numbers, the network begins with random weights. The same command
gives the same network on any number of threads. Ctrl-C ends the learning early.")]
pub struct Args {
    /// Passes over the pictures
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    epochs: u16,
    /// Pictures to learn from
    #[arg(long, value_name = "N", default_value_t = 12_000, value_parser = clap::value_parser!(u32).range(64..=10_000_000))]
    pictures: u32,
    /// Where the picture of predictions goes
    #[arg(long, value_name = "FILE", default_value = PICTURE)]
    out: PathBuf,
}

const PICTURE: &str = "swath-demo.png";

impl Default for Args {
    fn default() -> Self {
        Self { epochs: 4, pictures: 12_000, out: PICTURE.into() }
    }
}

/// Pictures of a batch.
const BATCH: usize = 64;
/// The largest learning rate.
const RATE: f64 = 5e-3;
/// Learning ends after this: a slow machine has a demonstration of less than a minute too.
const LIMIT: Duration = Duration::from_secs(35);
/// Pictures to show: of those for testing the first, and of those that are taken for something else.
const SHOWN: [usize; 2] = [30, 10];

/// Runs the demonstration.
pub fn run(args: &Args) -> Outcome<()> {
    info::brief()?;
    bench::showcase()?;
    let data = Data::glyphs(args.pictures as usize)?;
    let (model, seconds) = learn(args, &data)?;
    let all = predictions::of(&model, &data)?;
    let wrong: Vec<&Prediction> = all.iter().filter(|p| p.guess != p.truth).collect();
    let (right, n) = (all.len() - wrong.len(), all.len());
    let share = 100.0 * right as f64 / n as f64;
    let mut out = stdout().lock();
    writeln!(out, "\n{right} of {n} pictures that it has never seen are right: {share:.1} %, after {seconds:.1} s.")?;
    let sections = [
        Section {
            title: format!("Read after {seconds:.1} s of learning, {share:.1} % right"),
            predictions: all.iter().take(SHOWN[0]).cloned().collect(),
        },
        Section {
            title: format!("Misread: {} of {n}", wrong.len()),
            predictions: wrong.into_iter().take(SHOWN[1]).cloned().collect(),
        },
    ];
    let path = write(&args.out, &predictions::draw(&sections)?)?;
    writeln!(out, "What it says of some of them, as a picture: {}", path.display())?;
    writeln!(
        out,
        "\nNext: `swath train` learns your pictures, `swath bench-model` times whole networks, `swath --help` tells the rest."
    )?;
    Ok(())
}

/// Trains the small CNN of `swath train` on all cores: the model, and how long it took.
fn learn(args: &Args, data: &Data) -> Outcome<(Model, f64)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let (train, validation) = (data.training(BATCH, 0, 1, Augment::None)?, data.validation(500, 1)?);
    let model = network("cnn", data.size, data.test.classes().len())?.build(0)?;
    let mut out = stdout().lock();
    let (n, parameters) = (data.train.len(), model.parameter_count());
    let [_, height, width] = data.size;
    let on = if threads == 1 { "1 thread".into() } else { format!("{threads} threads") };
    writeln!(
        out,
        "\nA network of {parameters} random weights learns to read: {n} drawn digits of {height}x{width}, {on}"
    )?;
    let session = SessionOptions { threads: Some(threads), tuning: Tuning::Off, ..SessionOptions::default() };
    let options = TrainerOptions { session, ..TrainerOptions::default() };
    let mut trainer = Trainer::new(model, CrossEntropyLoss::new(), Optimization::new(Adam::new(RATE))?, &options)?;
    let (epochs, batches) = (u64::from(args.epochs), train.batches() as u64);
    let stop = stop_on_interrupt();
    let mut plan = Fit::new(epochs);
    plan.schedule = Box::new(OneCycleLr::new(RATE, epochs * batches));
    plan.schedule_by_batch = true;
    plan.stop = stop.clone();
    let start = Instant::now();
    let mut display = Display::new(Extent { epochs, batches, done: 0 }, stop.clone());
    let mut hear = |event: Event<'_>| {
        display.hear(event);
        if start.elapsed() > LIMIT {
            stop.store(true, Ordering::Relaxed);
        }
    };
    fit(&mut trainer, &train, Some(&validation), plan, &mut hear)?;
    display.end()?;
    Ok((trainer.averaged_model()?, start.elapsed().as_secs_f64()))
}

/// Writes the picture where it should be, or where nobody chose a place and the current folder takes none, in the system's
/// folder for temporary files.
fn write(path: &Path, png: &[u8]) -> Outcome<PathBuf> {
    match predictions::write(path, png) {
        Err(Failure::Message(_)) if path == Path::new(PICTURE) => {
            let other = std::env::temp_dir().join(PICTURE);
            predictions::write(&other, png).map(|()| other)
        }
        written => written.map(|()| path.into()),
    }
}
