//! `swath train`: a classifier from pictures.

use std::fs;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use swath::SessionOptions;
use swath::nn::Module;
use swath::train::loss::CrossEntropyLoss;
use swath::train::schedule::{ConstantLr, CosineAnnealingLr, OneCycleLr, Schedule, StepLr};
use swath::train::{
    Adam, AdamW, Checkpoint, EpochReport, Event, Fit, Optimization, Progress, RmsProp, Sgd, Trainer, TrainerOptions,
    fit,
};

use crate::curves;
use crate::failure::{Failure, Outcome};
use crate::training::{Augment, Data, network};

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath train                                         a small CNN that learns drawn digits, from nothing
  swath train --data mnist --epochs 4 --schedule one-cycle --lr 5e-3
  swath train --data cifar10 --model resnet18_cifar --optimizer sgd --lr 0.1 --schedule cosine --augment crop-flip
  swath train --data mnist --resume                   goes on where a run stopped or was killed

--data is `glyphs`, or a folder of MNIST's files, of CIFAR's binary files, or of train/CLASS/*.jpg and test/CLASS/*.jpg.

The run is kept in --out: checkpoint.safetensors (to resume), best.safetensors (the best weights), log.json and curves.svg.
The same command gives the same bits for any number of threads; Ctrl-C saves and stops.")]
pub struct Args {
    /// What to learn from
    #[arg(long, value_name = "NAME|DIR", default_value = "glyphs")]
    data: String,
    /// cnn, resnet18_cifar, or a network of `swath models`
    #[arg(long, value_name = "NETWORK", default_value = "cnn")]
    model: String,
    /// Passes over the data
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Pictures in a batch
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// The rule that changes weights
    #[arg(long, value_enum, default_value_t = Rule::Adam)]
    optimizer: Rule,
    /// Learning rate; the largest of a one-cycle schedule
    #[arg(long, value_name = "RATE", default_value_t = 1e-3)]
    lr: f64,
    /// Weight decay
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    weight_decay: f64,
    /// The learning rate over time
    #[arg(long, value_enum, default_value_t = Plan::Constant)]
    schedule: Plan,
    /// How pictures are changed at random
    #[arg(long, value_enum, default_value_t = Augment::None)]
    augment: Augment,
    /// How much of each target goes to all classes alike
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    label_smoothing: f32,
    /// Threads to train on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Seed of weights, order and augmentation
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Where the run is kept
    #[arg(long, value_name = "DIR", default_value = "swath-run")]
    out: PathBuf,
    /// Batches between checkpoints within an epoch; 0 for none
    #[arg(long, value_name = "N", default_value_t = 0)]
    checkpoint_every: u64,
    /// Go on with the run that is kept in --out
    #[arg(long)]
    resume: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Rule {
    /// With momentum 0.9
    Sgd,
    Adam,
    Adamw,
    Rmsprop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Plan {
    Constant,
    /// Along half a cosine to 0
    Cosine,
    /// A rise over 30 % of the steps, then a fall
    OneCycle,
    /// A tenth after each third of the epochs
    Step,
}

/// One epoch in log.json.
#[derive(Clone, Debug, Serialize)]
pub struct Logged {
    pub epoch: u64,
    pub loss: f64,
    pub accuracy: Option<f64>,
    pub validation: Option<f64>,
    pub lr: f64,
    pub seconds: f64,
    pub images_per_second: f64,
}

impl From<&EpochReport> for Logged {
    fn from(r: &EpochReport) -> Self {
        let seconds = r.training.as_secs_f64();
        Self {
            epoch: r.epoch,
            loss: r.loss,
            accuracy: r.accuracy,
            validation: r.validation,
            lr: r.lr,
            seconds: seconds + r.validating.as_secs_f64(),
            images_per_second: r.samples as f64 / seconds.max(1e-9),
        }
    }
}

impl Args {
    fn optimization(&self) -> Outcome<Optimization> {
        let (lr, decay) = (self.lr, self.weight_decay);
        Ok(match self.optimizer {
            Rule::Sgd => Optimization::new(Sgd::new(lr).momentum(0.9).weight_decay(decay)),
            Rule::Adam => Optimization::new(Adam::new(lr).weight_decay(decay)),
            Rule::Adamw => Optimization::new(AdamW::new(lr).weight_decay(decay)),
            Rule::Rmsprop => Optimization::new(RmsProp::new(lr).weight_decay(decay)),
        }?)
    }

    fn schedule(&self, batches: u64) -> Box<dyn Schedule> {
        let steps = batches * u64::from(self.epochs);
        match self.schedule {
            Plan::Constant => Box::new(ConstantLr),
            Plan::Cosine => Box::new(CosineAnnealingLr::new(steps)),
            Plan::OneCycle => Box::new(OneCycleLr::new(self.lr, steps)),
            Plan::Step => Box::new(StepLr::new(steps.div_ceil(3).max(1))),
        }
    }

    /// What a resumed run must have in common with the one before.
    fn notes(&self) -> [(String, String); 7] {
        [
            ("data", self.data.clone()),
            ("model", self.model.clone()),
            ("epochs", self.epochs.to_string()),
            ("batch", self.batch.to_string()),
            ("schedule", format!("{:?}", self.schedule)),
            ("augment", format!("{:?}", self.augment)),
            ("label smoothing", self.label_smoothing.to_string()),
        ]
        .map(|(k, v)| (k.to_string(), v))
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome<()> {
    let data = Data::open(&args.data)?;
    let threads = usize::from(args.threads);
    let train = data.training(args.batch as usize, args.seed, 1, args.augment)?;
    let validation = data.validation(500.min(data.test.len().max(1)), 1)?;
    if train.batches() == 0 {
        let (n, batch) = (data.train.len(), args.batch);
        return Err(Failure::new(format_args!("{}: {n} pictures are less than one batch of {batch}", args.data)));
    }
    let model = network(&args.model, data.size, data.train.classes().len())?.build(args.seed)?;
    let session = SessionOptions { threads: Some(threads), ..SessionOptions::default() };
    let options = TrainerOptions { session, seed: args.seed, ..TrainerOptions::default() };
    let loss = CrossEntropyLoss::new().label_smoothing(args.label_smoothing);
    let mut trainer = Trainer::new(model, loss, args.optimization()?, &options)?;

    fs::create_dir_all(&args.out)
        .map_err(|e| Failure::new(format_args!("cannot create {}: {e}", args.out.display())))?;
    let checkpoint = args.out.join("checkpoint.safetensors");
    let mut plan = Fit::new(args.epochs.into());
    plan.schedule = args.schedule(train.batches() as u64);
    plan.schedule_by_batch = true;
    plan.checkpoint_every = args.checkpoint_every;
    plan.progress = Progress { seed: args.seed, notes: args.notes().into(), ..Progress::default() };
    if args.resume {
        resume(&checkpoint, &mut trainer, &mut plan)?;
    }
    plan.checkpoint = Some(checkpoint);
    plan.best = Some(args.out.join("best.safetensors"));
    plan.stop = stop_on_interrupt();

    let [channels, height, width] = data.size;
    let mut out = stdout().lock();
    writeln!(
        out,
        "{}: {} pictures of {channels}x{height}x{width} in {} classes, {} for validation; {}: {} parameters; {} threads",
        args.data,
        data.train.len(),
        data.train.classes().len(),
        data.test.len(),
        args.model,
        trainer.model().parameter_count(),
        threads
    )?;
    let mut display = Display::new(train.batches() as u64, args.out.clone());
    let stop = plan.stop.clone();
    fit(&mut trainer, &train, Some(&validation), plan, &mut |event| display.hear(event))?;
    display.bar.finish_and_clear();
    if let Some(failure) = display.failure {
        return Err(failure);
    }
    if stop.load(Ordering::Relaxed) {
        writeln!(out, "stopped; `--resume` goes on from {}", args.out.display())?;
    } else if !display.log.is_empty() {
        writeln!(out, "{} has checkpoint.safetensors, best.safetensors, log.json and curves.svg", args.out.display())?;
    }
    Ok(())
}

/// Goes on with the run of a checkpoint, if it was started alike.
fn resume(path: &std::path::Path, trainer: &mut Trainer, plan: &mut Fit) -> Outcome<()> {
    let read = Checkpoint::open(path)?;
    let (there, here) = (read.progress(), &plan.progress);
    for (name, value) in &here.notes {
        let other = there.notes.get(name).map_or("none", String::as_str);
        if other != value {
            let path = path.display();
            return Err(Failure::new(format_args!(
                "{path}: the run was started with {name} {other}, this one has {value}"
            )));
        }
    }
    if there.seed != here.seed {
        let (path, a, b) = (path.display(), there.seed, here.seed);
        return Err(Failure::new(format_args!("{path}: the run was started with the seed {a}, this one has {b}")));
    }
    trainer.restore(&read, &mut *plan.schedule)?;
    plan.progress = read.progress().clone();
    Ok(())
}

/// Becomes true when the user presses Ctrl-C; a second time ends the program.
fn stop_on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    let handler = move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    };
    // Without it Ctrl-C ends the program at once, and the last checkpoint is there all the same.
    if let Err(e) = ctrlc::set_handler(handler) {
        eprintln!("swath: Ctrl-C will not save: {e}");
    }
    stop
}

/// Shows the run as it goes, and writes its log and picture.
struct Display {
    bar: ProgressBar,
    batches: u64,
    out: PathBuf,
    loss: f64,
    log: Vec<Logged>,
    failure: Option<Failure>,
}

impl Display {
    fn new(batches: u64, out: PathBuf) -> Self {
        let bar = ProgressBar::new(batches);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {eta} left") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, batches, out, loss: f64::NAN, log: Vec::new(), failure: None }
    }

    fn hear(&mut self, event: Event<'_>) {
        match event {
            Event::Batch { epoch, batch, loss, .. } => {
                // Smoothed, so that it can be read.
                let loss = f64::from(loss);
                self.loss = if self.loss.is_nan() || batch == 1 { loss } else { 0.98 * self.loss + 0.02 * loss };
                self.bar.set_message(format!("epoch {} loss {:.4}", epoch + 1, self.loss));
                self.bar.set_position(batch.min(self.batches));
            }
            Event::Epoch(report) => {
                let logged = Logged::from(report);
                self.bar.reset();
                self.bar.suspend(|| {
                    let percent = |v: Option<f64>| v.map_or("-".into(), |v| format!("{:.2} %", 100.0 * v));
                    println!(
                        "epoch {}: loss {:.4}, right {} in training, {} in validation; {:.1} s, {:.0} pictures/s",
                        logged.epoch + 1,
                        logged.loss,
                        percent(logged.accuracy),
                        percent(logged.validation),
                        logged.seconds,
                        logged.images_per_second
                    );
                });
                self.log.push(logged);
                if let Err(failure) = self.write() {
                    self.failure.get_or_insert(failure);
                }
            }
        }
    }

    fn write(&self) -> Outcome<()> {
        let json = serde_json::to_string_pretty(&self.log).map_err(Failure::new)?;
        swath::file::write(self.out.join("log.json"), |out| writeln!(out, "{json}"))?;
        let svg = curves::draw(&self.log)?;
        Ok(swath::file::write(self.out.join("curves.svg"), |out| out.write_all(svg.as_bytes()))?)
    }
}
