//! The program `swath`: inspect, explain and measure convolution kernels on this machine.

mod bench;
mod bench_model;
mod explain;
mod failure;
mod fit;
mod info;
mod machine;
mod measure;
mod models;
mod plan;
mod problems;
mod report;
mod table;
mod tune;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::{Failure, Outcome};

/// Fast convolutional networks on CPUs: inspect, explain and measure the kernels on this machine.
///
/// Without a subcommand: shows this machine briefly and times a few representative convolutions.
#[derive(Parser)]
#[command(name = "swath", version, after_help = EXAMPLES)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  swath                                             this machine, and a few convolutions
  swath info                                        levels, caches, peak, bandwidth, kernels
  swath bench-conv ic64ih56oc64kh3ph1               time one convolution
  swath bench-conv --file benches/shapes/vgg16.txt  time the layers of a network
  swath bench-conv --model resnet18                 time the convolutions of a built-in network
  swath bench-model resnet18                        time the network as a whole
  swath explain ic64ih56oc64kh3ph1                  which algorithm, and why
  swath tune                                        measure which is fastest here, for plans to come
  swath report                                      every algorithm on the standard lists: report.html

Environment:
  SWATH_LEVEL      holds swath to a lower instruction-set level: scalar, neon, avx2, avx512
  SWATH_TUNE_FILE  the tuning file, in place of the one in the user's configuration folder
  RUST_LOG         what to log on stderr: warn (the default), error, off

The exit status is 0 only on success; what went wrong is one line on stderr.";

#[derive(Subcommand)]
enum Command {
    /// Show the CPU, its levels and caches, and measure its peak and its memory bandwidth.
    Info(info::Args),
    /// Time convolutions given in benchdnn's notation.
    BenchConv(bench::Args),
    /// Time whole networks.
    BenchModel(bench_model::Args),
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
        None => {
            info::brief()?;
            bench::showcase()
        }
        Some(Command::Info(args)) => info::run(&args),
        Some(Command::BenchConv(args)) => bench::run(&args),
        Some(Command::BenchModel(args)) => bench_model::run(&args),
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
    logger.format(|out, r| writeln!(out, "swath: {}: {}", r.level().as_str().to_lowercase(), r.args()));
    // Nobody else has set a logger.
    let _ = logger.try_init();
}

fn main() -> ExitCode {
    log_to_stderr();
    match run(Args::parse()) {
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
}
