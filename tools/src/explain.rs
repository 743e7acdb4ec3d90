//! `swath explain`

use std::io::{Write, stdout};

use crate::failure::Outcome;
use crate::plan::{self, Activations, Direction, Precision, Request};
use crate::problems::Problems;
use crate::terminal;

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath explain ic64ih56oc64kh3ph1
  swath explain --threads 2 g32mb1_ic128ih56oc128oh56kh3ph1nresnext
  swath explain --file benches/shapes/resnet50.txt
  swath explain --pass bwd_w mb8_ic64ih56oc64kh3ph1
  swath explain --model unet

Nothing is timed: this is what a plan decides, with the level that SWATH_LEVEL allows.")]
pub struct Args {
    /// Threads that the plan is for
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Which pass of the convolution
    #[arg(long, value_enum, default_value_t)]
    pass: Direction,
    /// Ask for this algorithm instead of leaving the choice to the plan
    #[arg(long, value_name = "NAME")]
    algo: Option<String>,
    /// How input and output lie
    #[arg(long, value_enum, default_value_t)]
    layout: Activations,
    /// How much rounding error is acceptable
    #[arg(long, value_enum, default_value_t)]
    accuracy: Precision,
    #[command(flatten)]
    problems: Problems,
}

/// Runs `swath explain`.
pub fn run(args: &Args) -> Outcome<()> {
    let problems = args.problems.read()?;
    let request = Request {
        pass: args.pass.into(),
        level: swath::cpu()?.level,
        layout: args.layout,
        algo: args.algo.clone(),
        accuracy: args.accuracy,
        threads: args.threads.into(),
    };
    plan::with_threads(request.threads, || {
        let mut out = stdout().lock();
        for (i, p) in problems.iter().enumerate() {
            let s = &p.shape;
            if i > 0 {
                writeln!(out)?;
            }
            writeln!(out, "{}", terminal::line(&p.text))?;
            let dims = |d: [usize; 4]| d.map(|v| v.to_string()).join("x");
            writeln!(
                out,
                "geometry    {} * {} -> {}, {:.1} MFLOP",
                dims(s.input()),
                dims(s.weights()),
                dims(s.output()),
                p.flop() as f64 / 1e6
            )?;
            writeln!(out, "{}", terminal::lines(plan::explain(p, &request)?.trim_end()))?;
        }
        Ok(())
    })
}
