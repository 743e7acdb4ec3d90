//! Models from files, compiled and run.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::error::OnnxError;
use super::external::External;
use super::fold::{Folded, Operand};
use super::lower::lower;
use super::nodes::{read_words, to_words};
use super::proto::ModelProto;
use super::simplify::simplify;
use crate::error::{Error, Result};
use crate::graph::packed::ReadyWeights;
use crate::graph::{Fact, Graph, Parameters};
use crate::ops::{Array, Data, ElementType};
use crate::{ConvShape, Session, SessionOptions, StepProfile, buffer, file};

/// Protobuf's limit of a file; what is larger has its weights beside it.
const MOST_BYTES: usize = i32::MAX as usize;

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
#[derive(Clone)]
pub struct Network {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    external: External,
    name: String,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network of {} bytes from {}", (*self.bytes).as_ref().len(), self.name)
    }
}

impl Network {
    /// Reads a file. External data is read from its folder.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is no ONNX model.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = file::read(path, MOST_BYTES)?;
        let this = Self { bytes: Arc::new(bytes), external: External::beside(path), name: path.display().to_string() };
        this.model()?;
        Ok(this)
    }

    /// A model from memory, which has no external data: a `Vec`, `include_bytes!`, a memory map. The bytes are not copied.
    ///
    /// # Errors
    ///
    /// If the bytes are no ONNX model.
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        let this = Self { bytes: Arc::new(bytes), external: External::Refused, name: "the model".into() };
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
        ModelProto::read((*self.bytes).as_ref()).map_err(|e| self.failed(&e))
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
        self.compile_sharing(inputs, options, &ReadyWeights::default())
    }

    /// As [`Network::compile`], with weights that were packed for other sessions.
    pub(super) fn compile_sharing(
        &self,
        inputs: &[(&str, &[usize])],
        options: &SessionOptions,
        ready: &ReadyWeights,
    ) -> Result<NetworkSession> {
        self.session(self.folded(inputs)?, options, ready)
    }

    /// As [`Network::compile`], of a model that serves for nothing else: its bytes are freed before the weights are packed.
    ///
    /// # Errors
    ///
    /// As [`Network::compile`].
    pub fn into_session(mut self, inputs: &[(&str, &[usize])], options: &SessionOptions) -> Result<NetworkSession> {
        let folded = self.folded(inputs)?;
        self.bytes = Arc::new([]);
        self.session(folded, options, &ReadyWeights::default())
    }

    fn session(&self, folded: Folded, options: &SessionOptions, ready: &ReadyWeights) -> Result<NetworkSession> {
        let takes = takes(&folded);
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
            return NetworkSession::new(None, takes, outputs, 0);
        }
        let graph = lower(folded).map_err(|e| self.failed(&e))?;
        let facts: Vec<Fact> = takes.iter().map(|(_, fact)| fact.clone()).collect();
        let flop = graph.flop_for(&facts)?;
        // An imported graph has constants in place of parameters.
        let session = Session::compile(graph, &Parameters::new(), &facts, options, ready)?;
        NetworkSession::new(Some(session), takes, outputs, flop)
    }

    /// The convolutions that a run for inputs of these dimensions does, in order, equal ones once with how often they occur. They are what
    /// a tuner has to know of a model.
    ///
    /// # Errors
    ///
    /// As [`Network::compile`].
    pub fn convolutions(&self, inputs: &[(&str, &[usize])]) -> Result<Vec<(ConvShape, usize)>> {
        let folded = self.folded(inputs)?;
        let facts: Vec<Fact> = takes(&folded).into_iter().map(|(_, fact)| fact).collect();
        let graph = lower(folded).map_err(|e| self.failed(&e))?;
        Ok(graph.convolutions_for(&facts)?.into_iter().map(|(_, shape, times)| (shape, times)).collect())
    }

    /// The graph for inputs of these dimensions, without constant outputs.
    ///
    /// # Errors
    ///
    /// As [`Network::compile`].
    pub fn graph(&self, inputs: &[(&str, &[usize])]) -> Result<Graph> {
        lower(self.folded(inputs)?).map_err(|e| self.failed(&e))
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
    /// Inputs that are no floats, as the session takes them; empty for those that are.
    words: Vec<Vec<f32>>,
    outputs: Vec<(String, Place)>,
    /// The outputs of the last run.
    results: Vec<Array>,
    flop: u64,
}

impl NetworkSession {
    fn new(
        session: Option<Session>,
        inputs: Vec<(String, Fact)>,
        outputs: Vec<(String, Place)>,
        flop: u64,
    ) -> Result<Self> {
        let mut results = Vec::with_capacity(outputs.len());
        for (_, place) in &outputs {
            results.push(match (place, &session) {
                (Place::Constant(array), _) => (**array).clone(),
                (Place::Computed(i), Some(session)) => {
                    let (_, fact) = session.outputs().nth(*i).expect("as many outputs as there were");
                    zeros(fact)?
                }
                (Place::Computed(_), None) => unreachable!("what is computed has a session"),
            });
        }
        let words = vec![Vec::new(); inputs.len()];
        Ok(Self { session, inputs, words, outputs, results, flop })
    }

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
        Ok(self.run_in_place(inputs)?.to_vec())
    }

    /// As [`NetworkSession::run`], with outputs that are the session's and are overwritten by the next run. After the first run nothing
    /// is allocated, but by operators that are interpreted ([`Session::explain`] names them).
    ///
    /// # Errors
    ///
    /// As [`NetworkSession::run`].
    pub fn run_in_place(&mut self, inputs: &[Array]) -> Result<&[Array]> {
        self.take(inputs)?;
        if let Some(session) = &mut self.session {
            let words = &self.words;
            session.run_each(&|i| floats(&inputs[i], &words[i]))?;
            for ((_, place), result) in self.outputs.iter().zip(&mut self.results) {
                if let Place::Computed(i) = place {
                    read_words(session.words(*i), result.data_mut());
                }
            }
        }
        Ok(&self.results)
    }

    /// Runs the model, and tells what each step did and how long it took.
    ///
    /// # Errors
    ///
    /// As [`NetworkSession::run`].
    pub fn profile(&mut self, inputs: &[Array]) -> Result<Vec<StepProfile>> {
        self.take(inputs)?;
        let words: Vec<&[f32]> = inputs.iter().zip(&self.words).map(|(array, words)| floats(array, words)).collect();
        match &mut self.session {
            Some(session) => session.profile(&words),
            None => Ok(Vec::new()),
        }
    }

    /// Floating-point operations of a run's convolutions and matrix products: two for each multiply-add, those in the padding
    /// included.
    pub fn flop(&self) -> u64 {
        self.flop
    }

    /// Bytes of activations and outputs, of packed weights and constants, and of scratch for each thread.
    pub fn memory(&self) -> [usize; 3] {
        self.session.as_ref().map_or([0; 3], Session::memory)
    }

    /// Checks the inputs, and puts those that are no floats into words.
    fn take(&mut self, inputs: &[Array]) -> Result<()> {
        if inputs.len() != self.inputs.len() {
            return Err(Error::Inputs { takes: self.inputs.len(), gets: inputs.len() });
        }
        for ((array, (_, fact)), words) in inputs.iter().zip(&self.inputs).zip(&mut self.words) {
            if array.dims() != fact.dims {
                let (left, right) = (array.dims().to_vec(), fact.dims.clone());
                return Err(Error::Shapes { what: "the input, and what the session was compiled for", left, right });
            }
            match (array.data(), fact.element) {
                (Data::F32(_), ElementType::F32) => {}
                // The session takes half floats as floats.
                (Data::F16(v), ElementType::F32) => {
                    refill(words, v.len())?.iter_mut().zip(v).for_each(|(to, v)| *to = v.to_f32());
                }
                (Data::Bf16(v), ElementType::F32) => {
                    refill(words, v.len())?.iter_mut().zip(v).for_each(|(to, v)| *to = v.to_f32());
                }
                (data, element) if data.element() == element => {
                    to_words(array, refill(words, (fact.len() * element.bytes()).div_ceil(4))?);
                }
                (data, _) => {
                    let rule = format!("the session was compiled for {}", fact.element);
                    let value = data.element().to_string();
                    return Err(Error::Setting { what: "the input's elements", value, rule });
                }
            }
        }
        Ok(())
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

/// Names of a folded model's inputs, and what they are.
fn takes(folded: &Folded) -> Vec<(String, Fact)> {
    folded.inputs.iter().map(|(name, v)| (name.clone(), folded.facts[*v].clone())).collect()
}

/// Zeros.
fn zeros(fact: &Fact) -> Result<Array> {
    let bytes = fact.len().saturating_mul(fact.element.bytes());
    let data = Data::zeros(fact.element, fact.len()).map_err(|_| Error::Memory { bytes })?;
    Ok(Array::new(fact.dims.clone(), data).expect("as many elements as the dimensions make"))
}

/// So many words, which are allocated once.
fn refill(words: &mut Vec<f32>, len: usize) -> Result<&mut [f32]> {
    if words.len() != len {
        *words = buffer::floats(len)?;
    }
    Ok(words)
}

/// An input as the session takes it.
fn floats<'a>(array: &'a Array, words: &'a [f32]) -> &'a [f32] {
    // Floats have no words; those without elements are the same either way.
    array.elements::<f32>().unwrap_or(words)
}
