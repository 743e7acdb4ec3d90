//! ONNX files and what is fed to them.

use std::path::Path;

use swath::benchdnn::Problem;
use swath::graph::Fact;
use swath::onnx::{Dimension, Network, NetworkSession, ValueInfo, ValueType};
use swath::ops::{Array, Data, ElementType, npy};
use swath::{ConvShape, SessionOptions};

use crate::failure::{Failure, Outcome};
use crate::pictures::{Pictures, is_picture};

/// Bytes of a NumPy file that are read: 16 GiB.
const LARGEST_INPUT: usize = 1 << 34;

/// The name of an input, and its value or the extents to make one of.
type Named = (String, Result<Array, Vec<usize>>);

/// Whether the name is that of an ONNX file.
pub fn is_file(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
}

/// Inputs as the command line has them: `[NAME=]FILE`, in the model's order where they have no name.
#[derive(Clone, Debug, clap::Args)]
pub struct Inputs {
    /// A NumPy file or a picture (PNG, JPEG) for an input, in the model's order or by name
    #[arg(long = "input", value_name = "[NAME=]FILE")]
    files: Vec<String>,
    #[command(flatten)]
    pictures: Pictures,
    /// Dimensions of an input without a file, such as x=1x3x224x224; without, they are the file's, whose open ones are 1
    #[arg(long = "shape", value_name = "NAME=DIMS", value_parser = shape)]
    shapes: Vec<NamedShape>,
}

/// An input and its dimensions, as the command line has them.
pub type NamedShape = (String, Vec<usize>);

/// Dimensions of these inputs, in order.
fn dims_of(inputs: &[&ValueInfo<'_>], given: &[NamedShape]) -> Outcome<Vec<Vec<usize>>> {
    if let Some((name, _)) = given.iter().find(|(name, _)| inputs.iter().all(|i| i.name != name)) {
        let known: Vec<&str> = inputs.iter().map(|i| i.name).collect();
        let known = known.join(", ");
        return Err(Failure::new(format_args!("--shape {name}=..: the model has no such input; it has {known}")));
    }
    let dims = |input: &&ValueInfo<'_>| match (given.iter().find(|(name, _)| name == input.name), &input.ty) {
        (Some((_, dims)), _) => dims.clone(),
        (None, ValueType::Tensor { dims: Some(dims), .. }) => {
            dims.iter().map(|d| if let Dimension::Fixed(d) = d { *d } else { 1 }).collect()
        }
        _ => Vec::new(),
    };
    Ok(inputs.iter().map(dims).collect())
}

/// The convolutions of an ONNX file, with names such as `mobilenet:1`.
pub fn convolutions(path: &str, shapes: &[NamedShape]) -> Outcome<Vec<Problem>> {
    let network = Network::open(path)?;
    let model = network.model()?;
    let inputs: Vec<_> = model.graph.free_inputs().collect();
    let dims = dims_of(&inputs, shapes)?;
    let named: Vec<(&str, &[usize])> = inputs.iter().map(|i| i.name).zip(dims.iter().map(Vec::as_slice)).collect();
    let stem = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
    let problem = |(i, (shape, times)): (usize, (ConvShape, usize))| {
        let name = format!("{stem}:{}", i + 1);
        // The notation lacks padding that differs from side to side.
        let text = Problem::new(&shape, &name).map_or_else(|_| format!("{shape:?}"), |p| p.text);
        Problem { shape, text, name, times }
    };
    let all: Vec<Problem> = network.convolutions(&named)?.into_iter().enumerate().map(problem).collect();
    match all.is_empty() {
        true => Err(Failure::new(format_args!("{path}: the model has no convolution"))),
        false => Ok(all),
    }
}

/// `x=1x3x224x224`
pub fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, dims) = text.split_once('=').ok_or("NAME=DIMS, such as x=1x3x224x224")?;
    let dims: Result<Vec<usize>, _> = dims.split('x').map(str::parse).collect();
    Ok((name.into(), dims.map_err(|e| e.to_string())?))
}

/// Reads a NumPy file.
pub fn read(path: &str) -> Outcome<Array> {
    let bytes = swath::file::read(path, LARGEST_INPUT)?;
    npy::read(&bytes).map_err(|e| Failure::new(format_args!("{path}: {e}")))
}

impl Inputs {
    /// Arrays of the files by the names of the model's inputs, and dimensions of the others; open ones are 1.
    fn by_name(&self, network: &Network) -> Outcome<Vec<Named>> {
        let model = network.model()?;
        let inputs: Vec<_> = model.graph.free_inputs().collect();
        let mut files: Vec<Option<Array>> = vec![None; inputs.len()];
        for (at, file) in self.files.iter().enumerate() {
            let named = file
                .split_once('=')
                .and_then(|(name, path)| inputs.iter().position(|i| i.name == name).map(|at| (at, path)));
            let (at, path) = named.unwrap_or((at, file));
            match files.get_mut(at) {
                Some(place) if is_picture(path) => *place = Some(self.pictures.read(path, inputs[at])?),
                Some(place) => *place = Some(read(path)?),
                None => {
                    return Err(Failure::new(format_args!("{} inputs, but the model has {}", at + 1, inputs.len())));
                }
            }
        }
        let mut all = Vec::with_capacity(inputs.len());
        for ((input, file), dims) in inputs.iter().zip(files).zip(dims_of(&inputs, &self.shapes)?) {
            all.push((input.name.to_string(), file.ok_or(dims)));
        }
        Ok(all)
    }

    /// Compiles a model for the inputs, and makes up those that have no file.
    pub fn compile(&self, network: Network, options: &SessionOptions) -> Outcome<(NetworkSession, Vec<Array>)> {
        let named = self.by_name(&network)?;
        let dims: Vec<(&str, &[usize])> = named
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_ref().map_or_else(|dims| &dims[..], |array| array.dims())))
            .collect();
        let session = network.into_session(&dims, options)?;
        let facts: Vec<Fact> = session.inputs().map(|(_, fact)| fact.clone()).collect();
        let arrays = named.into_iter().zip(&facts).map(|((_, value), fact)| value.map_or_else(|_| made_up(fact), Ok));
        let arrays = arrays.collect::<Outcome<Vec<Array>>>()?;
        Ok((session, arrays))
    }
}

/// Floats between -1 and 1 that look random; zeros of other types.
fn made_up(fact: &Fact) -> Outcome<Array> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let data = match fact.element {
        ElementType::F32 => Data::F32((0..fact.len()).map(|_| next()).collect()),
        element => Data::zeros(element, fact.len()).map_err(Failure::new)?,
    };
    Array::new(fact.dims.clone(), data).ok_or_else(|| Failure::new("an input whose dimensions overflow"))
}
