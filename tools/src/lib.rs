//! The program `swath`: measure and explain kernels, run ONNX models, train and evaluate classifiers. A library, so that tests and
//! fuzz targets reach what it reads.

mod bench;
mod bench_model;
mod bench_train;
mod curves;
mod demo;
mod display;
mod epochs;
mod eval;
mod explain;
mod export;
mod failure;
mod files;
mod fit;
mod info;
mod inspect;
mod interrupt;
mod machine;
mod measure;
mod models;
mod network;
mod pictures;
mod plan;
mod predictions;
mod problems;
mod profile;
mod report;
mod run;
mod table;
mod terminal;
mod train;
mod training;
mod tune;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::{Failure, Outcome};

pub use report::page_of_report;

/// Fast convolutional networks on CPUs: measure and explain kernels, run ONNX models, train classifiers.
///
/// Without a subcommand: shows this machine, times a few convolutions, and lets a network learn to read, in less than a
/// minute.
#[derive(Parser)]
#[command(name = "swath", version, after_help = EXAMPLES)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  swath                                             what swath is, in less than a minute
  swath info                                        levels, caches, peak, bandwidth, kernels
  swath bench-conv ic64ih56oc64kh3ph1               time one convolution
  swath bench-conv --file benches/shapes/vgg16.txt  time the layers of a network
  swath bench-conv --model resnet18                 time the convolutions of a built-in network
  swath bench-model resnet18                        time the network as a whole
  swath bench-model model.onnx                      time an ONNX file
  swath run model.onnx --input x.npy                run it
  swath inspect model.onnx                          what it holds
  swath export resnet18 resnet18.onnx               write it for other engines
  swath explain ic64ih56oc64kh3ph1                  which algorithm, and why
  swath train                                       a CNN learns drawn digits, from nothing
  swath bench-train resnet18                        time a training step
  swath tune                                        measure which is fastest here, for plans to come
  swath report                                      every algorithm on the standard lists: report.html

Environment:
  SWATH_LEVEL      holds swath to a lower instruction-set level: scalar, neon, avx2, avx512
  SWATH_TUNE_FILE  the tuning file, in place of the one in the user's configuration folder
  RUST_LOG         what to log on stderr: warn (the default), error, off

The exit status is 0 only on success; what went wrong is one line on stderr.";

#[derive(Subcommand)]
enum Command {
    /// Show what swath is: this machine, a few convolutions, a network that learns to read.
    Demo(demo::Args),
    /// Show the CPU, its levels and caches, and measure its peak and its memory bandwidth.
    Info(info::Args),
    /// Time convolutions given in benchdnn's notation.
    BenchConv(bench::Args),
    /// Time whole networks.
    BenchModel(bench_model::Args),
    /// Run an ONNX model on inputs from files.
    Run(run::Args),
    /// Show what an ONNX file holds, and what it takes to run it.
    Inspect(inspect::Args),
    /// Write a network as an ONNX file.
    Export(export::Args),
    /// Time a training step of whole networks.
    BenchTrain(bench_train::Args),
    /// Train a classifier of pictures.
    Train(train::Args),
    /// Say how often a trained classifier is right, and what it takes for what.
    Eval(eval::Args),
    /// List the built-in networks: parameters, GFLOP, papers.
    Models(models::Args),
    /// Say which algorithm a convolution gets, and why.
    Explain(explain::Args),
    /// Time the candidates of convolutions on this machine, so that plans choose the fastest.
    Tune(tune::Args),
    /// Measure problems with every algorithm, and write a page with pictures.
    Report(report::Args),
    /// Fit the cost model's coefficients to measurements.
    FitCost(fit::Args),
}

fn run(args: Args) -> Outcome<()> {
    match args.command {
        None => demo::run(&demo::Args::default()),
        Some(Command::Demo(args)) => demo::run(&args),
        Some(Command::Info(args)) => info::run(&args),
        Some(Command::BenchConv(args)) => bench::run(&args),
        Some(Command::BenchModel(args)) => bench_model::run(&args),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Export(args)) => export::run(&args),
        Some(Command::BenchTrain(args)) => bench_train::run(&args),
        Some(Command::Train(args)) => train::run(&args),
        Some(Command::Eval(args)) => eval::run(&args),
        Some(Command::Models(args)) => models::run(&args),
        Some(Command::Explain(args)) => explain::run(&args),
        Some(Command::Tune(args)) => tune::run(&args),
        Some(Command::Report(args)) => report::run(&args),
        Some(Command::FitCost(args)) => fit::run(&args),
    }
}

/// Shows the library's warnings, such as a damaged tuning file, one line each.
fn log_to_stderr() {
    let mut logger = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"));
    logger.format(|out, r| {
        let text = r.args().to_string();
        writeln!(out, "swath: {}: {}", r.level().as_str().to_lowercase(), terminal::line(&text))
    });
    // Nobody else has set a logger.
    let _ = logger.try_init();
}

/// Prints the help that was asked for, or says in one line what is wrong with the command line and where to look: as
/// status 2, so that scripts can tell it from a failure.
fn misunderstood(e: &clap::Error) -> ExitCode {
    if !e.use_stderr() {
        // Whoever closes the pipe has read enough.
        let _ = e.print();
        return ExitCode::SUCCESS;
    }
    eprintln!("swath: {}", terminal::line(&one_line(&e.render().to_string())));
    ExitCode::from(2)
}

/// clap's message without its heading, its usage and its empty lines, and the command whose help says more.
fn one_line(message: &str) -> String {
    let (what, rest) = message.split_once("\n\nUsage: ").unwrap_or((message, ""));
    let what = what.split("\n\nFor more information").next().unwrap_or(what);
    let what = what.strip_prefix("error: ").unwrap_or(what).split_whitespace().collect::<Vec<_>>().join(" ");
    // The usage begins with the commands; what follows in brackets or capitals are arguments.
    let commands: Vec<&str> = rest.split(' ').take_while(|w| w.starts_with(|c: char| c.is_ascii_lowercase())).collect();
    let command = if commands.is_empty() { "swath".into() } else { commands.join(" ") };
    format!("{what}; `{} --help` says more", command.trim())
}

/// Runs the program with this process's arguments.
pub fn main() -> ExitCode {
    log_to_stderr();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => return misunderstood(&e),
    };
    match run(args) {
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(Failure::Message(message)) => {
            eprintln!("swath: {message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        super::Args::command().debug_assert();
    }

    #[test]
    fn mistakes_become_one_line_with_a_hint() {
        use clap::Parser;
        for (args, line) in [
            (
                &["explain", "--thread", "2", "x"][..],
                "unexpected argument '--thread' found tip: a similar argument exists: '--threads'; `swath explain --help` says more",
            ),
            (&["frob"], "unrecognized subcommand 'frob'; `swath --help` says more"),
            (
                &["bench-model"],
                "the following required arguments were not provided: <MODEL>; `swath bench-model --help` says more",
            ),
            (
                &["bench-conv", "--threads", "0"],
                "invalid value '0' for '--threads <N>': 0 is not in 1..=65535; `swath --help` says more",
            ),
        ] {
            let e = super::Args::try_parse_from([&["swath"], args].concat()).err().expect("a mistake");
            assert_eq!(super::one_line(&e.render().to_string()), line);
        }
    }
}
