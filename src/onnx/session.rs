//! Models from files, compiled and run.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::error::OnnxError;
use super::external::External;
use super::fold::{Folded, Operand};
use super::lower::{lower, multiply_adds};
use super::nodes::{from_words, to_words};
use super::proto::ModelProto;
use super::simplify::simplify;
use crate::error::{Error, Result};
use crate::graph::{Fact, Graph};
use crate::ops::{Array, ElementType};
use crate::{Model, Session, SessionOptions};

/// An ONNX model: its bytes, and what it becomes for given shapes.
///
/// ```no_run
/// use swath::onnx::Network;
/// use swath::ops::Array;
///
/// let network = Network::open("model.onnx")?;
/// let mut session = network.compile(&[("input", &[1, 3, 224, 224])], &Default::default())?;
/// let x = Array::vector(vec![0.0f32; 3 * 224 * 224]).with_dims([1, 3, 224, 224]).expect("as many elements");
/// for y in session.run(&[x])? {
///     println!("{:?}", y.dims());
/// }
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Network {
    bytes: Arc<[u8]>,
    external: External,
    name: String,
}

impl Network {
    /// Reads a file. External data is read from its folder.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is no ONNX model.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes =
            std::fs::read(path).map_err(|error| Error::Io { action: "read", path: path.to_path_buf(), error })?;
        let this = Self { bytes: bytes.into(), external: External::beside(path), name: path.display().to_string() };
        this.model()?;
        Ok(this)
    }

    /// A model from memory, which has no external data.
    ///
    /// # Errors
    ///
    /// If the bytes are no ONNX model.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Result<Self> {
        let this = Self { bytes: bytes.into(), external: External::Refused, name: "the model".into() };
        this.model()?;
        Ok(this)
    }

    fn failed(&self, e: &OnnxError) -> Error {
        Error::Format { file: self.name.clone(), problem: e.to_string() }
    }

    /// What the file says.
    ///
    /// # Errors
    ///
    /// As [`Network::open`].
    pub fn model(&self) -> Result<ModelProto<'_>> {
        ModelProto::read(&self.bytes).map_err(|e| self.failed(&e))
    }

    fn folded(&self, inputs: &[(&str, &[usize])]) -> Result<Folded> {
        let mut folded = Folded::new(&self.model()?, &self.external, inputs).map_err(|e| self.failed(&e))?;
        simplify(&mut folded);
        Ok(folded)
    }

    /// Compiles for inputs of these dimensions; inputs that are not named have the file's. Half floats become floats.
    ///
    /// # Errors
    ///
    /// One error that lists every node that cannot be compiled: dimensions that are open, operators that this crate lacks, results
    /// whose dimensions depend on data.
    pub fn compile(&self, inputs: &[(&str, &[usize])], options: &SessionOptions) -> Result<NetworkSession> {
        let folded = self.folded(inputs)?;
        let takes = folded.inputs.iter().map(|(name, v)| (name.clone(), folded.facts[*v].clone())).collect::<Vec<_>>();
        let mut outputs = Vec::with_capacity(folded.outputs.len());
        let mut computed = 0;
        for (name, output) in &folded.outputs {
            let place = match output {
                Operand::Constant(array) => Place::Constant(array.clone()),
                _ => {
                    computed += 1;
                    Place::Computed(computed - 1)
                }
            };
            outputs.push((name.clone(), place));
        }
        if computed == 0 {
            return Ok(NetworkSession { session: None, inputs: takes, outputs, macs: 0 });
        }
        let macs = multiply_adds(&folded);
        let graph = lower(&folded).map_err(|e| self.failed(&e))?;
        drop(folded);
        let facts: Vec<Fact> = takes.iter().map(|(_, fact)| fact.clone()).collect();
        let session = Model::new(graph, 0)?.compile_for(&facts, options)?;
        Ok(NetworkSession { session: Some(session), inputs: takes, outputs, macs })
    }

    /// The graph for inputs of these dimensions, without constant outputs.
    ///
    /// # Errors
    ///
    /// As [`Network::compile`].
    pub fn graph(&self, inputs: &[(&str, &[usize])]) -> Result<Graph> {
        lower(&self.folded(inputs)?).map_err(|e| self.failed(&e))
    }
}

/// Where an output comes from.
#[derive(Debug, Clone)]
enum Place {
    /// It follows from the model and the dimensions.
    Constant(Arc<Array>),
    /// An output of the session.
    Computed(usize),
}

/// A compiled [`Network`]. Clones share the weights.
#[derive(Debug, Clone)]
pub struct NetworkSession {
    /// None where every output is a constant.
    session: Option<Session>,
    inputs: Vec<(String, Fact)>,
    outputs: Vec<(String, Place)>,
    /// Multiply-adds of a run.
    macs: u64,
}

impl NetworkSession {
    /// Names, dimensions and element types of the inputs.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = (&str, &Fact)> {
        self.inputs.iter().map(|(name, fact)| (name.as_str(), fact))
    }

    /// Names of the outputs.
    pub fn output_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.outputs.iter().map(|(name, _)| name.as_str())
    }

    /// Runs the model on inputs in the model's order; its outputs in the model's order.
    ///
    /// # Errors
    ///
    /// For another number of inputs, or other dimensions or element types than it was compiled for.
    pub fn run(&mut self, inputs: &[Array]) -> Result<Vec<Array>> {
        let words = self.words(inputs)?;
        if let Some(session) = &mut self.session {
            session.run_many(&words.iter().map(|w| &**w).collect::<Vec<_>>())?;
        }
        Ok(self.outputs.iter().map(|(_, place)| self.output(place)).collect())
    }

    /// Runs the model, and tells how long each step took: node, what ran, time.
    ///
    /// # Errors
    ///
    /// As [`NetworkSession::run`].
    pub fn profile(&mut self, inputs: &[Array]) -> Result<Vec<(String, String, Duration)>> {
        let words = self.words(inputs)?;
        match &mut self.session {
            Some(session) => session.profile(&words.iter().map(|w| &**w).collect::<Vec<_>>()),
            None => Ok(Vec::new()),
        }
    }

    /// Floating-point operations of a run's convolutions and matrix products: two for each multiply-add, those in the padding
    /// included.
    pub fn flop(&self) -> u64 {
        2 * self.macs
    }

    /// Inputs as the session takes them.
    fn words<'a>(&self, inputs: &'a [Array]) -> Result<Vec<Cow<'a, [f32]>>> {
        if inputs.len() != self.inputs.len() {
            return Err(Error::Inputs { takes: self.inputs.len(), gets: inputs.len() });
        }
        let mut words: Vec<Cow<'a, [f32]>> = Vec::with_capacity(inputs.len());
        for (array, (_, fact)) in inputs.iter().zip(&self.inputs) {
            if array.dims() != fact.dims {
                let (left, right) = (array.dims().to_vec(), fact.dims.clone());
                return Err(Error::Shapes { what: "the input, and what the session was compiled for", left, right });
            }
            words.push(match (array.elements::<f32>(), array.element()) {
                (Some(floats), _) if fact.element == ElementType::F32 => floats.into(),
                // The session takes half floats as floats.
                (None, ElementType::F16 | ElementType::Bf16) if fact.element == ElementType::F32 => {
                    let floats = crate::ops::cast(array, ElementType::F32);
                    floats.ok().and_then(|a| a.elements::<f32>().map(<[f32]>::to_vec)).unwrap_or_default().into()
                }
                (_, element) if element == fact.element => {
                    let mut words = vec![0.0; (fact.len() * element.bytes()).div_ceil(4)];
                    to_words(array, &mut words);
                    words.into()
                }
                (_, element) => {
                    let rule = format!("the session was compiled for {}", fact.element);
                    return Err(Error::Setting { what: "the input's elements", value: element.to_string(), rule });
                }
            });
        }
        Ok(words)
    }

    fn output(&self, place: &Place) -> Array {
        match (place, &self.session) {
            (Place::Computed(i), Some(session)) => {
                let (_, fact) = session.outputs().nth(*i).expect("as many outputs as there were");
                from_words(fact, session.words(*i))
            }
            (Place::Constant(array), _) => (**array).clone(),
            (Place::Computed(_), None) => unreachable!("what is computed has a session"),
        }
    }

    /// The session that runs the graph; none where every output is a constant.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// The session that runs the graph; none where every output is a constant.
    pub fn session_mut(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }
}
