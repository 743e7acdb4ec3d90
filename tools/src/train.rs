//! `swath train`: a classifier from pictures.

use std::fs;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use swath::nn::Module;
use swath::train::loss::CrossEntropyLoss;
use swath::train::schedule::{ConstantLr, CosineAnnealingLr, OneCycleLr, Schedule, StepLr};
use swath::train::{
    Adam, AdamW, Checkpoint, Clip, Fit, Optimization, Progress, RmsProp, Select, Sgd, Trainer, TrainerOptions, fit,
};
use swath::tune::Tuning;
use swath::{Level, Loaded, Model, SessionOptions, WeightsFile};

use crate::display::{Display, Extent};
use crate::failure::{Failure, Outcome};
use crate::interrupt::stop_on_interrupt;
use crate::terminal;
use crate::training::{Augment, Data, network};

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath train                                         a small CNN that learns drawn digits, from nothing
  swath train --data mnist --epochs 4 --schedule one-cycle --lr 5e-3
  swath train --data cifar10 --model resnet18_cifar --optimizer sgd --lr 0.1 --schedule cosine --augment crop-flip
  swath train --data mnist --resume                   goes on where a run stopped or was killed
  swath train --data flowers --weights best.safetensors --freeze 'conv*'
                                                      begins with a file's weights, and trains the rest

--data is `glyphs`, or a folder of MNIST's files, of CIFAR's binary files, or of train/CLASS/*.jpg and test/CLASS/*.jpg.

The run is kept in --out: checkpoint.safetensors (to resume), best.safetensors (the best weights), log.json and curves.svg.
The same command gives the same bits for any number of threads, stopped and resumed or not; Ctrl-C saves and stops.

--weights takes what fits by name and shape from a safetensors file and says what did not: a head for other classes begins
anew. In patterns `*` stands for any characters and `?` for one; a parameter whose name fits --freeze is not trained, and
batch normalisation in a layer whose name fits keeps its statistics.

A learning rate that is too large ends in a loss that is not finite: the run stops and names the first tensor that went bad.")]
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
    /// Learn from the first so many pictures alone
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Begin with what fits of a file's weights
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Do not train what has such a name; may be given several times
    #[arg(long, value_name = "PATTERN")]
    freeze: Vec<String>,
    /// Scale gradients down to this norm where theirs is larger
    #[arg(long, value_name = "NORM")]
    clip: Option<f32>,
    /// Stop after more than so many epochs in a row without a better validation
    #[arg(long, value_name = "EPOCHS")]
    patience: Option<u64>,
    /// How much of each target goes to all classes alike
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    label_smoothing: f32,
    /// Compute outputs of batch normalisation once more in the backward pass instead of keeping them: less memory
    #[arg(long)]
    recompute: bool,
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

    /// # Errors
    /// If a pattern fits nothing, or everything.
    fn check_patterns(&self, model: &Model) -> Outcome<()> {
        let names: Vec<&str> = model.parameters().map(|(name, _)| name).collect();
        let fits = |pattern: &str, name: &str| Select::from(pattern).fits(name, &[]);
        if let Some(p) = self.freeze.iter().find(|p| !names.iter().any(|name| fits(p, name))) {
            let known = names.join(", ");
            return Err(Failure::new(format_args!("--freeze {p}: no parameter has such a name; there are {known}")));
        }
        if names.iter().all(|name| self.freeze.iter().any(|p| fits(p, name))) {
            return Err(Failure::new(format_args!("--freeze {}: nothing is left to train", self.freeze.join(" "))));
        }
        Ok(())
    }

    /// What a resumed run must have in common with the one before.
    fn notes(&self, level: Level) -> [(String, String); 12] {
        let path = |p: &Option<PathBuf>| p.as_ref().map_or("none".into(), |p| p.display().to_string());
        [
            ("level", level.name().into()),
            ("limit", self.limit.map_or("none".into(), |n| n.to_string())),
            ("weights", path(&self.weights)),
            ("freeze", self.freeze.join(" ")),
            ("clip", format!("{:?}", self.clip)),
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

/// `best.safetensors: 4 tensors loaded; not there: a, b; of another shape: c ([10, 36] there, [3, 36] here)`
fn report(file: &str, loaded: &Loaded) -> String {
    let mut text = format!("{file}: {} tensors loaded", loaded.loaded.len());
    let reshaped = loaded.reshaped.iter().map(|(name, there, here)| format!("{name} ({there:?} there, {here:?} here)"));
    let parts = [
        ("not there", loaded.missing.clone()),
        ("of another shape", reshaped.collect()),
        // What a checkpoint has beside the weights is of another run.
        ("not taken", loaded.unexpected.iter().filter(|n| !n.contains('/')).cloned().collect()),
    ];
    for (what, names) in parts.iter().filter(|(_, names)| !names.is_empty()) {
        text.push_str(&format!("; {what}: {}", names.join(", ")));
    }
    text
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome<()> {
    let data = Data::open(&args.data)?.limited(args.limit.map(|n| n as usize))?;
    let (threads, level) = (usize::from(args.threads), swath::cpu()?.level);
    let train = data.training(args.batch as usize, args.seed, 1, args.augment)?;
    let validation = data.validation(500.min(data.test.len().max(1)), 1)?;
    if train.batches() == 0 {
        let (n, batch) = (data.train.len(), args.batch);
        return Err(Failure::new(format_args!("{}: {n} pictures are less than one batch of {batch}", args.data)));
    }
    let mut model = network(&args.model, data.size, data.train.classes().len())?.build(args.seed)?;
    let mut out = stdout().lock();
    if let Some(path) = args.weights.as_ref().filter(|_| !args.resume) {
        let loaded = model.load_fitting(&WeightsFile::open(path)?)?;
        writeln!(out, "{}", terminal::line(&report(&path.display().to_string(), &loaded)))?;
    }
    args.check_patterns(&model)?;
    // A tuning table may name other algorithms for another number of threads.
    let session = SessionOptions { threads: Some(threads), tuning: Tuning::Off, ..SessionOptions::default() };
    let options = TrainerOptions {
        session,
        seed: args.seed,
        clip: args.clip.map_or(Clip::None, Clip::Norm),
        frozen: args.freeze.iter().map(|p| Select::Name(p.clone())).collect(),
        frozen_layers: args.freeze.clone(),
        recompute: args.recompute,
        ..TrainerOptions::default()
    };
    let loss = CrossEntropyLoss::new().label_smoothing(args.label_smoothing);
    let mut trainer = Trainer::new(model, loss, args.optimization()?, &options)?;

    fs::create_dir_all(&args.out)
        .map_err(|e| Failure::new(format_args!("cannot create {}: {e}", args.out.display())))?;
    let checkpoint = args.out.join("checkpoint.safetensors");
    let mut plan = Fit::new(args.epochs.into());
    plan.schedule = args.schedule(train.batches() as u64);
    plan.schedule_by_batch = true;
    plan.checkpoint_every = args.checkpoint_every;
    plan.patience = args.patience;
    plan.progress = Progress { seed: args.seed, notes: args.notes(level).into(), ..Progress::default() };
    if args.resume {
        resume(&checkpoint, &mut trainer, &mut plan)?;
    }
    plan.checkpoint = Some(checkpoint);
    plan.best = Some(args.out.join("best.safetensors"));
    plan.stop = stop_on_interrupt();

    let [channels, height, width] = data.size;
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
    writeln!(out, "memory: {}", trainer.footprint(&[args.batch as usize, channels, height, width])?)?;
    let (epochs, batches) = (plan.epochs, train.batches() as u64);
    let extent = Extent { epochs, batches, done: plan.progress.epoch * batches + plan.progress.batch };
    let stop = plan.stop.clone();
    let mut display = Display::new(extent, stop.clone()).keep(&args.out);
    fit(&mut trainer, &train, Some(&validation), plan, &mut |event| display.hear(event))?;
    let log = display.end()?;
    if stop.load(Ordering::Relaxed) {
        writeln!(out, "stopped; `--resume` goes on from {}", args.out.display())?;
    } else if !log.is_empty() {
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
