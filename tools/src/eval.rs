//! `swath eval`: how often a trained network is right, and what it takes for what.

use std::io::{Write, stdout};
use std::path::PathBuf;

use swath::nn::Module;
use swath::train::evaluate;
use swath::{SessionOptions, Strictness, WeightsFile};

use crate::failure::Outcome;
use crate::predictions::{self, Section};
use crate::terminal;
use crate::training::{Data, network};

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath eval --weights swath-run/best.safetensors
  swath eval --data mnist --weights swath-run/checkpoint.safetensors --threads 2

  swath eval --weights swath-run/best.safetensors --picture mistakes.png

--data and --model as in `swath train`; --weights is what that wrote, or any file with the network's parameters.")]
pub struct Args {
    /// What to look at: the pictures for testing
    #[arg(long, value_name = "NAME|DIR", default_value = "glyphs")]
    data: String,
    /// The network
    #[arg(long, value_name = "NETWORK", default_value = "cnn")]
    model: String,
    /// Its weights
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Draw what is taken for something else, at most 100 of them, as a PNG file
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Threads to run on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
}

/// Pictures of mistakes at most.
const MISTAKES: usize = 100;

/// Runs the command.
pub fn run(args: &Args) -> Outcome<()> {
    let data = Data::open(&args.data)?;
    let classes = data.test.classes();
    let mut model = network(&args.model, data.size, classes.len())?.build(0)?;
    // A checkpoint has the optimizer's state too.
    model.load_weights(&WeightsFile::open(&args.weights)?, Strictness::IgnoreUnexpected)?;
    let options = SessionOptions { threads: Some(args.threads.into()), ..SessionOptions::default() };
    let loader = data.validation(500.min(data.test.len().max(1)), 1)?;
    let confusion = evaluate(&model, &loader, &options)?;
    let mut out = stdout().lock();
    let right: u64 = (0..confusion.classes()).map(|c| confusion.count(c, c)).sum();
    writeln!(out, "{right} of {} right: {:.2} %", confusion.total(), 100.0 * confusion.accuracy())?;
    writeln!(out, "\nrows: what it is, columns: what it was taken for\n{confusion}")?;
    for (c, name) in classes.iter().enumerate() {
        let percent = |v: Option<f64>| v.map_or("-".into(), |v| format!("{:.1} %", 100.0 * v));
        let (p, r, f) = (percent(confusion.precision(c)), percent(confusion.recall(c)), percent(confusion.f1(c)));
        let name = terminal::line(name);
        writeln!(out, "{c:3} {name:12} precision {p:>7}, recall {r:>7}, F1 {f:>7}")?;
    }
    let n = confusion.classes();
    let pairs = (0..n * n).map(|i| (i / n, i % n)).filter(|(truth, guess)| truth != guess);
    let worst = pairs.max_by_key(|&(truth, guess)| (confusion.count(truth, guess), std::cmp::Reverse((truth, guess))));
    if let Some((truth, guess)) = worst.filter(|&(truth, guess)| confusion.count(truth, guess) > 0) {
        let (a, b) = (terminal::line(&classes[truth]), terminal::line(&classes[guess]));
        writeln!(out, "\nmost often confused: {a}, taken for {b} {} times", confusion.count(truth, guess))?;
    }
    if let Some(path) = &args.picture {
        let mut wrong = predictions::of(&model, &data)?;
        wrong.retain(|p| p.guess != p.truth);
        let title = format!("Taken for something else: {} of {}", wrong.len(), data.test.len());
        wrong.truncate(MISTAKES);
        predictions::write(path, &predictions::draw(&[Section { title, predictions: wrong }])?)?;
        writeln!(out, "\nwritten: {}", path.display())?;
    }
    Ok(())
}
