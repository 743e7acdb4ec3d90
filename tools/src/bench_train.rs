//! `swath bench-train`: a training step of whole networks.

use std::io::{Write, stdout};
use std::time::Instant;

use serde::Serialize;
use swath::nn::Module;
use swath::train::loss::CrossEntropyLoss;
use swath::train::{Optimization, Sgd, Trainer, TrainerOptions};
use swath::{Random, SessionOptions, zoo};

use crate::failure::{Failure, Outcome};
use crate::profile;
use crate::training::two_convolutions;

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath bench-train mnist_cnn --threads 2
  swath bench-train resnet18 --threads 2 --profile
  swath bench-train mobilenet_v2 --format json

What is timed: a step from a batch in NCHW to changed weights: forward, cross-entropy, backward, SGD with momentum; random
pictures and classes, statistics of the batch. Two steps warm up.

Networks: mnist_cnn (batch 64 of 1x28x28), two_conv_112 (32 of 3x112x112), resnet18_cifar (64 of 3x32x32), resnet18 and
mobilenet_v2 (8 of 3x224x224). The json is one object; median_ms and min_ms are of a step.")]
pub struct Args {
    /// One of the networks below
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Threads to run on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Steps to time
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Show milliseconds and algorithm of each part of a step as well
    #[arg(long)]
    profile: bool,
    /// Compute outputs of batch normalisation once more in the backward pass instead of keeping them
    #[arg(long)]
    recompute: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs: one object
    Json,
}

/// One measurement.
#[derive(Serialize)]
struct Row {
    network: String,
    batch: usize,
    threads: usize,
    median_ms: f64,
    min_ms: f64,
    steps: usize,
    memory_mb: f64,
}

fn network(name: &str) -> Outcome<(Box<dyn Module>, [usize; 4], usize)> {
    Ok(match name {
        "mnist_cnn" => (two_convolutions(1, [28, 28], 10).boxed(), [64, 1, 28, 28], 10),
        "two_conv_112" => (two_convolutions(3, [112, 112], 10).boxed(), [32, 3, 112, 112], 10),
        "resnet18_cifar" => (zoo::resnet18_cifar(10).boxed(), [64, 3, 32, 32], 10),
        "resnet18" => (zoo::resnet18(1000).boxed(), [8, 3, 224, 224], 1000),
        "mobilenet_v2" => (zoo::mobilenet_v2(1000).boxed(), [8, 3, 224, 224], 1000),
        _ => {
            let known = "mnist_cnn, two_conv_112, resnet18_cifar, resnet18, mobilenet_v2";
            return Err(Failure::new(format_args!("there is no network {name:?}; there are {known}")));
        }
    })
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome<()> {
    let (network, dims, classes) = network(&args.network)?;
    let threads = usize::from(args.threads);
    let session = SessionOptions { threads: Some(threads), ..SessionOptions::default() };
    let options = TrainerOptions { session, recompute: args.recompute, ..TrainerOptions::default() };
    let optimization = Optimization::new(Sgd::new(0.01).momentum(0.9))?;
    let mut trainer = Trainer::new(network.build(1)?, CrossEntropyLoss::new(), optimization, &options)?;
    let mut random = Random::new(&[1]);
    let input: Vec<f32> = (0..dims.iter().product()).map(|_| random.normal()).collect();
    let targets: Vec<f32> = (0..dims[0]).map(|_| random.below(classes) as f32).collect();
    let footprint = trainer.footprint(&dims)?;
    let mut times = Vec::new();
    for step in 0..usize::from(args.steps) + 2 {
        let start = Instant::now();
        trainer.step(&dims, &input, &targets)?;
        if step >= 2 {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    let row = Row {
        network: args.network.clone(),
        batch: dims[0],
        threads,
        median_ms: times[times.len() / 2],
        min_ms: times[0],
        steps: times.len(),
        memory_mb: footprint.total() as f64 / 1e6,
    };
    let mut out = stdout().lock();
    match args.format {
        Format::Json => {
            let text = serde_json::to_string(&row).map_err(Failure::new)?;
            writeln!(out, "{text}")?;
        }
        Format::Table => writeln!(
            out,
            "{}, batch {}, {} threads: {:.2} ms a step (median of {}), {:.2} at best; {footprint}",
            row.network, row.batch, row.threads, row.median_ms, row.steps, row.min_ms
        )?,
    }
    if args.profile {
        write!(out, "{}", profile::table(trainer.profile(&dims, &input, &targets)?).render(""))?;
    }
    Ok(())
}
