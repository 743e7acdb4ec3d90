//! Where problems come from: arguments, files that list them, standard sets, and the networks of the zoo.

use std::path::PathBuf;

use swath::benchdnn::{Problem, STANDARD_SETS};
use swath::zoo;

use crate::failure::{Failure, Outcome};
use crate::files;
use crate::network::{self, NamedShape, convolutions, is_file};

/// The part of a command line that names problems.
#[derive(clap::Args)]
pub struct Problems {
    /// Convolutions in benchdnn's notation: g (groups) mb (batch) ic ih iw oc oh ow kh kw sh sw (stride)
    /// ph pw (padding) dh dw (holes between taps), then n and a name; widths follow heights. Or an ONNX file, whose convolutions they are
    #[arg(value_name = "PROBLEM")]
    problems: Vec<String>,
    /// A file with a problem a line, `*3` behind one that occurs three times, and comments after `#`; may be repeated
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// A built-in list: assorted, mobilenet_v2, resnet50, squeezenet or vgg16, or `standard` for all; may be repeated
    #[arg(long, value_name = "NAME")]
    set: Vec<String>,
    /// The convolutions of a network of `swath models`, such as resnet18, or of an ONNX file; may be repeated
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Images in a batch of the networks that --model names
    #[arg(long, value_name = "N", default_value_t = 1, requires = "model", value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    // Not a flattened `Shapes`: whoever takes problems where they may be left out could not tell that they are.
    /// Dimensions of an input of an ONNX file, such as x=1x3x224x224; without, they are the file's, whose open ones are 1
    #[arg(long = "shape", value_name = "NAME=DIMS", value_parser = network::shape)]
    shapes: Vec<NamedShape>,
}

impl Problems {
    /// All problems: those of sets, networks, files, and then those of the command line.
    pub fn read(&self) -> Outcome<Vec<Problem>> {
        let mut all = Vec::new();
        for name in &self.set {
            for (_, text) in sets(name)? {
                all.extend(Problem::list(text)?);
            }
        }
        for name in &self.model {
            match is_file(name) {
                true => all.extend(convolutions(name, &self.shapes)?),
                false => all.extend(zoo::find(name)?.convolutions(self.batch as usize)?),
            }
        }
        for path in &self.file {
            all.extend(
                Problem::list(&files::read_text(path)?)
                    .map_err(|e| Failure::new(format_args!("{}: {e}", path.display())))?,
            );
        }
        for text in &self.problems {
            match is_file(text) {
                true => all.extend(convolutions(text, &self.shapes)?),
                false => all.push(text.parse()?),
            }
        }
        if all.is_empty() {
            return Err(Failure::new(
                "no problem given: name one, such as ic64ih56oc64kh3ph1, or several with --file, --set or --model",
            ));
        }
        Ok(all)
    }
}

/// The standard sets of that name: one, or all of them.
fn sets(name: &str) -> Outcome<Vec<(&'static str, &'static str)>> {
    let chosen: Vec<_> = STANDARD_SETS.iter().copied().filter(|(set, _)| name == "standard" || name == *set).collect();
    if chosen.is_empty() {
        let known: Vec<&str> = STANDARD_SETS.iter().map(|(set, _)| *set).collect();
        return Err(Failure::new(format_args!("there is no set {name:?}; there are standard, {}", known.join(", "))));
    }
    Ok(chosen)
}
