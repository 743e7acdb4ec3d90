//! `swath inspect`: what an ONNX file holds.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::path::PathBuf;

use swath::SessionOptions;
use swath::onnx::Network;

use crate::failure::Outcome;
use crate::models::thousands;
use crate::network::Inputs;
use crate::table::{Align, Table};
use crate::terminal::{line, lines};

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath inspect model.onnx
  swath inspect model.onnx --shape x=1x3x640x640
  swath inspect model.onnx --steps

Open dimensions without --shape are taken as 1. What cannot be compiled is listed, all of it.")]
pub struct Args {
    /// An ONNX file
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    #[command(flatten)]
    inputs: Inputs,
    /// Show the steps of the compiled model
    #[arg(long)]
    steps: bool,
}

/// Runs `swath inspect`.
pub fn run(args: &Args) -> Outcome<()> {
    let network = Network::open(&args.model)?;
    let model = network.model()?;
    let mut out = stdout();
    let opsets: Vec<String> = model.opsets.iter().map(|(domain, v)| format!("{domain} {v}").trim().into()).collect();
    let producer = format!("{} {}", model.producer_name, model.producer_version);
    let (opsets, producer) = (opsets.join(", "), producer.trim());
    writeln!(out, "IR version {}, opset {}, by {}", model.ir_version, line(&opsets), line(producer))?;
    for input in model.graph.free_inputs() {
        writeln!(out, "{}", line(&format!("input   {} {}", input.name, input.ty)))?;
    }
    for output in &model.graph.outputs {
        writeln!(out, "{}", line(&format!("output  {} {}", output.name, output.ty)))?;
    }
    let counts = model.graph.initializers.iter().map(|t| t.element_count());
    let parameters = counts.fold(0, usize::saturating_add);
    writeln!(
        out,
        "{} nodes, {} elements in {} initializers",
        model.graph.nodes.len(),
        thousands(parameters),
        model.graph.initializers.len()
    )?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for node in &model.graph.nodes {
        let domain = if node.domain.is_empty() { String::new() } else { format!("{}.", node.domain) };
        *counts.entry(format!("{domain}{}", node.op_type)).or_default() += 1;
    }
    let mut table = Table::new(&[("operator", Align::Left), ("nodes", Align::Right)]);
    counts.iter().for_each(|(name, n)| table.row(vec![name.clone(), n.to_string()]));
    write!(out, "{}", table.render(""))?;
    let (session, _) = args.inputs.compile(network, &SessionOptions::default())?;
    for (name, fact) in session.inputs() {
        writeln!(out, "compiled for {name} {fact}")?;
    }
    writeln!(out, "{:.3} GFLOP", session.flop() as f64 / 1e9)?;
    if let Some(session) = session.session() {
        let [activations, weights, scratch] = session.memory().map(|b| b as f64 / 1e6);
        writeln!(
            out,
            "{activations:.1} MB of activations, {weights:.1} MB of weights, {scratch:.1} MB of scratch a thread"
        )?;
        if args.steps {
            write!(out, "{}", lines(&session.explain()))?;
        }
    }
    Ok(())
}
