//! `swath run`: an ONNX model on inputs from files.

use std::collections::HashSet;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::time::Instant;

use swath::SessionOptions;
use swath::onnx::Network;
use swath::ops::{Array, ElementType, cast, npy};
use swath::vision::classes;

use crate::failure::{Failure, Outcome};
use crate::network::Inputs;
use crate::profile;
use crate::table::{Align, Table};
use crate::terminal;

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath run model.onnx --input x.npy --output-dir results
  swath run model.onnx --input image=cat.jpg --fit crop --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --top 5 --labels classes.txt
  swath run model.onnx --shape x=1x3x224x224 --profile

Inputs without a file are made up. Without --output-dir and --top, the outputs' names, dimensions and ranges are shown.")]
pub struct Args {
    /// An ONNX file
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    #[command(flatten)]
    inputs: Inputs,
    /// Where to write the outputs, as NAME.npy
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Show the largest elements of the first output's last dimension
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Names of those elements, one a line
    #[arg(long, value_name = "FILE", requires = "top")]
    labels: Option<PathBuf>,
    /// Show how long each step takes
    #[arg(long)]
    profile: bool,
    /// Threads to run on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
}

/// Runs `swath run`.
pub fn run(args: &Args) -> Outcome<()> {
    let network = Network::open(&args.model)?;
    let options = SessionOptions { threads: Some(args.threads.into()), ..SessionOptions::default() };
    let (mut session, inputs) = args.inputs.compile(network, &options)?;
    let start = Instant::now();
    let outputs = session.run(&inputs)?;
    let seconds = start.elapsed().as_secs_f64();
    let named: Vec<(String, Array)> = session.output_names().map(str::to_string).zip(outputs).collect();
    if let Some(folder) = &args.output_dir {
        write_all(folder, &named)?;
    }
    if let (Some(top), Some((_, first))) = (args.top, named.first()) {
        show_top(first, top, args.labels.as_deref())?;
    } else if args.output_dir.is_none() {
        show(&named)?;
    }
    if args.profile {
        show_profile(&mut session, &inputs)?;
    }
    Ok(writeln!(stdout(), "{:.3} ms", seconds * 1e3)?)
}

fn write_all(folder: &std::path::Path, named: &[(String, Array)]) -> Outcome<()> {
    let fail =
        |what: &std::path::Path, e: std::io::Error| Failure::new(format_args!("cannot write {}: {e}", what.display()));
    std::fs::create_dir_all(folder).map_err(|e| fail(folder, e))?;
    let mut written = HashSet::new();
    for (name, array) in named {
        // Names hold anything; files do not.
        let safe: String =
            name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
        let path = folder.join(format!("{safe}.npy"));
        if !written.insert(safe) {
            return Err(Failure::new(format_args!("output {name}: another output's file is {}", path.display())));
        }
        let bytes = npy::write(array).map_err(|e| Failure::new(format_args!("output {name}: {e}")))?;
        swath::file::write(&path, |out| out.write_all(&bytes))?;
    }
    Ok(())
}

fn floats(array: &Array) -> Outcome<Vec<f32>> {
    let floats = cast(array, ElementType::F32).map_err(Failure::new)?;
    Ok(floats.elements::<f32>().map(<[f32]>::to_vec).unwrap_or_default())
}

fn show(named: &[(String, Array)]) -> Outcome<()> {
    let columns = [("output", Align::Left), ("dimensions", Align::Left), ("type", Align::Left)];
    let mut table = Table::new(&[&columns[..], &[("least", Align::Right), ("largest", Align::Right)]].concat());
    for (name, array) in named {
        let v = floats(array)?;
        let (least, most) = v.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), v| (a.min(*v), b.max(*v)));
        let dims = array.dims().iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        table.row(vec![name.clone(), dims, array.element().to_string(), format!("{least:.4}"), format!("{most:.4}")]);
    }
    Ok(write!(stdout(), "{}", table.render(""))?)
}

fn show_top(array: &Array, top: usize, labels: Option<&std::path::Path>) -> Outcome<()> {
    let labels = labels.map(classes::read_names).transpose()?.unwrap_or_default();
    let v = floats(array)?;
    for row in v.chunks(array.dims().last().copied().unwrap_or(1).max(1)) {
        for (class, score) in classes::top(row, top) {
            let name = labels.get(class).map_or("", String::as_str);
            writeln!(stdout(), "{score:10.4}  {class:5}  {}", terminal::line(name))?;
        }
    }
    Ok(())
}

fn show_profile(session: &mut swath::onnx::NetworkSession, inputs: &[Array]) -> Outcome<()> {
    Ok(write!(stdout(), "{}", profile::table(session.profile(inputs)?).render(""))?)
}
