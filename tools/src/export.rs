//! `swath export`: a network as an ONNX file.

use std::io::{Write, stdout};
use std::path::PathBuf;

use swath::nn::Module;
use swath::{Strictness, WeightsFile, file, zoo};

use crate::failure::Outcome;
use crate::models::thousands;
use crate::training::{NETWORKS, network};

/// What the command line says.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  swath export resnet18 resnet18.onnx --weights resnet18.safetensors
  swath export cnn digits.onnx --weights swath-run/best.safetensors --image 1x28x28 --classes 10

The networks are those of `swath models` and `swath train`. Without --weights they have the values that training starts from.
The batch is open.")]
pub struct Args {
    /// The network
    #[arg(value_name = "NETWORK")]
    model: String,
    /// Where to write it
    #[arg(value_name = "FILE.onnx")]
    file: PathBuf,
    /// Its weights: what `swath train` wrote, or any file with the network's parameters
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Channels, height and width of its images; those of the paper if it is not given
    #[arg(long, value_name = "CxHxW", value_parser = image)]
    image: Option<[usize; 3]>,
    /// Classes that it tells apart; those of the paper if it is not given
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
}

fn image(text: &str) -> Result<[usize; 3], String> {
    let sizes: Vec<usize> = text.split('x').map(|size| size.parse().unwrap_or(0)).collect();
    let sizes: Result<[usize; 3], _> = sizes.try_into();
    sizes.ok().filter(|s| !s.contains(&0)).ok_or_else(|| "CxHxW, such as 3x224x224".into())
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome<()> {
    let paper = zoo::ZOO.iter().find(|network| network.name == args.model);
    let image = args.image.or(paper.map(|p| p.image)).unwrap_or([1, 28, 28]);
    let classes = args.classes.or(paper.map(|p| p.classes)).unwrap_or(10);
    let trained = NETWORKS.contains(&args.model.as_str());
    let mut model = match paper {
        // The networks of the paper that `swath train` does not have.
        Some(paper) if !trained && classes == paper.classes => paper.build(0)?,
        _ => network(&args.model, image, classes)?.build(0)?,
    };
    if let Some(weights) = &args.weights {
        // A checkpoint has the optimizer's state too.
        model.load_weights(&WeightsFile::open(weights)?, Strictness::IgnoreUnexpected)?;
    }
    let [c, h, w] = image;
    let bytes = swath::onnx::export(&model, [1, c, h, w])?;
    file::write(&args.file, |out| out.write_all(&bytes))?;
    let parameters = thousands(model.parameter_count());
    writeln!(stdout(), "{}: {parameters} parameters, {} bytes", args.file.display(), thousands(bytes.len()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_three_sizes() {
        assert_eq!(image("3x224x200"), Ok([3, 224, 200]));
        for text in ["", "3x224", "3x0x5", "axbxc", "1x2x3x4", "-1x2x3"] {
            assert!(image(text).is_err(), "{text}");
        }
    }
}
