//! A model: a graph and the values of its parameters.

use core::fmt;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::compile::{Session, SessionOptions};
use crate::error::{Error, Result};
use crate::graph::packed::ReadyWeights;
use crate::graph::{Fact, Graph, Parameters};
use crate::tensor::Tensor;
use crate::weights::{WeightsFile, save};

/// How a weights file has to fit a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strictness {
    /// Every parameter is in the file, and the file has nothing else.
    #[default]
    Strict,
    /// Every parameter is in the file, which may have other tensors.
    IgnoreUnexpected,
    /// What is in both is loaded, at least one tensor.
    Lenient,
}

/// What [`Model::load_weights`] and [`Model::load_fitting`] found in a file.
///
/// ```
/// use swath::{Strictness, WeightsFile, nn::*};
/// let folder = std::env::temp_dir().join(format!("swath-loaded-{}", std::process::id()));
/// std::fs::create_dir_all(&folder)?;
/// let path = folder.join("trained.safetensors");
/// Sequential::new((Conv2d::new(1, 2, 3).named("conv"), Linear::new(2, 9).named("head"))).build(0)?.save_safetensors(&path)?;
///
/// // Another head, for other classes.
/// let mut model = Sequential::new((Conv2d::new(1, 2, 3).named("conv"), Linear::new(2, 4).named("classes"))).build(1)?;
/// let loaded = model.load_weights(&WeightsFile::open(&path)?, Strictness::Lenient)?;
/// assert_eq!(loaded.loaded, ["conv.weight", "conv.bias"]);
/// assert_eq!(loaded.missing, ["classes.weight", "classes.bias"]);
/// assert_eq!(loaded.unexpected, ["head.bias", "head.weight"]);
/// # std::fs::remove_dir_all(folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// Parameters and running statistics that have the file's values now.
    pub loaded: Vec<String>,
    /// Those that the file does not have; they keep their values.
    pub missing: Vec<String>,
    /// Tensors of the file that the model does not have. PyTorch's counters `num_batches_tracked` of batch normalisations of the
    /// model or the file do not count.
    pub unexpected: Vec<String>,
    /// Those of another shape: the file's, and the model's. They keep their values.
    pub reshaped: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Loaded {
    /// The error of a file whose names do not fit.
    fn refused(self, file: &WeightsFile) -> Error {
        let Self { missing, unexpected, .. } = self;
        Error::ParameterNames { file: file.source().into(), missing, unexpected }
    }
}

/// A graph and the values of its parameters, under PyTorch's dotted names.
///
/// ```
/// use swath::{Tensor, nn::*};
/// let mut model = Sequential::new((Conv2d::new(1, 2, 3).named("conv"), ReLU)).build(1)?;
/// assert_eq!(model.parameter("conv.weight")?.dims(), [2, 1, 3, 3]);
/// model.set_parameter("conv.bias", &Tensor::new([2], &[0.5, -0.5])?)?;
/// let e = model.set_parameter("conv.bias", &Tensor::zeros([3])?).unwrap_err();
/// assert_eq!(e.to_string(), "tensor `conv.bias` has the shape [3], but the model's parameter has [2]");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone)]
pub struct Model {
    graph: Graph,
    parameters: Parameters,
    /// Shared with clones until one of them changes.
    ready: Arc<ReadyWeights>,
}

impl Model {
    /// Initialises the parameters of a graph as PyTorch does; the same seed gives the same values on every machine.
    ///
    /// # Errors
    /// If a parameter's extents overflow.
    pub fn new(graph: Graph, seed: u64) -> Result<Self> {
        let parameters = graph.parameters.iter().map(|p| p.initial(seed)).collect::<Result<_>>()?;
        Ok(Self { graph, parameters, ready: Arc::default() })
    }

    /// The operators.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Extents of the output for an input of the given extents.
    ///
    /// # Errors
    /// Of the first operator that the shape does not fit, under its layer's name.
    pub fn output_dims(&self, input: impl AsRef<[usize]>) -> Result<Vec<usize>> {
        self.graph.output_dims(input.as_ref())
    }

    /// Compiles for an input of these extents, `[n, c, h, w]` or `[n, features]`, in NCHW on both edges.
    ///
    /// # Errors
    /// Of the first operator that the shape does not fit, under its layer's name.
    pub fn compile(&self, input: impl AsRef<[usize]>) -> Result<Session> {
        self.compile_with(input, &SessionOptions::default())
    }

    /// As [`Model::compile`], with options.
    ///
    /// # Errors
    /// As [`Model::compile`], and for a level that this machine lacks.
    pub fn compile_with(&self, input: impl AsRef<[usize]>, options: &SessionOptions) -> Result<Session> {
        let input = input.as_ref();
        if input.len() < 2 {
            let takes = "[n, c, h, w] or [n, features], of which only n may be 0";
            return Err(Error::Rank { what: "a model", takes, gets: input.to_vec() });
        }
        self.compile_for(&[Fact::f32(input)], options)
    }

    /// Compiles a model of several inputs, or of inputs that are no floats.
    ///
    /// # Errors
    /// As [`Model::compile_with`], and for another number of inputs.
    pub fn compile_for(&self, inputs: &[Fact], options: &SessionOptions) -> Result<Session> {
        Session::compile(self.graph.clone(), &self.parameters, inputs, options, &self.ready)
    }

    /// Names and values of everything that is saved: parameters and running statistics, PyTorch's `state_dict`, in the
    /// order in which the layers declared them.
    pub fn state(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.graph.parameters.iter().map(|p| p.name.as_str()).zip(&self.parameters)
    }

    /// Names and values of the parameters: what training changes, without running statistics.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.graph.parameters.iter().zip(&self.parameters).filter(|(p, _)| p.trained).map(|(p, t)| (p.name.as_str(), t))
    }

    /// All values, in the order of [`Model::state`].
    pub(crate) fn values(&self) -> &Parameters {
        &self.parameters
    }

    /// All values, for training, which changes them where they are.
    pub(crate) fn parameters_mut(&mut self) -> &mut Parameters {
        self.forget_packed();
        &mut self.parameters
    }

    /// Bytes of the weights that the model keeps packed: sessions for other shapes, and those of clones, share them. At most four
    /// packings of an operator are kept.
    ///
    /// ```
    /// use swath::nn::*;
    /// let mut model = Sequential::new((Conv2d::new(16, 16, 3).padding(1), ReLU)).build(1)?;
    /// let small = model.compile([1, 16, 8, 8])?;
    /// let bytes = model.packed_bytes();
    /// let batch = model.clone().compile([4, 16, 8, 8])?;
    /// assert!(bytes > 0 && model.packed_bytes() >= bytes);
    /// model.forget_packed(); // the sessions keep theirs
    /// assert_eq!(model.packed_bytes(), 0);
    /// # Ok::<(), swath::Error>(())
    /// ```
    pub fn packed_bytes(&self) -> usize {
        self.ready.bytes()
    }

    /// Keeps packed weights no longer. Sessions and clones keep theirs; sessions that are compiled from now on share new ones.
    pub fn forget_packed(&mut self) {
        // Training does this in each step, and asks for no memory.
        if !self.ready.is_empty() {
            self.ready = Arc::default();
        }
    }

    /// Number of floats in all parameters; running statistics do not count, as in PyTorch.
    pub fn parameter_count(&self) -> usize {
        self.graph.parameter_count()
    }

    /// The value of a parameter or running statistic.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn parameter(&self, name: &str) -> Result<&Tensor> {
        Ok(&self.parameters[self.index(name)?])
    }

    /// Sets a parameter or running statistic. Sessions that were compiled before keep the old value.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`] and [`Error::ParameterShape`].
    pub fn set_parameter(&mut self, name: &str, value: &Tensor) -> Result<()> {
        let i = self.index(name)?;
        self.check(i, value.dims())?;
        self.parameters_mut()[i] = value.clone();
        Ok(())
    }

    fn index(&self, name: &str) -> Result<usize> {
        self.graph.parameters.iter().position(|p| p.name == name).ok_or_else(|| Error::UnknownTensor {
            place: "the model".into(),
            name: name.into(),
            known: self.state().map(|(n, _)| n.to_string()).collect(),
        })
    }

    /// Whether this is PyTorch's counter of a batch normalisation of this model, or of one whose statistics the file has.
    fn counts_batches(&self, file: &WeightsFile, name: &str) -> bool {
        let Some(layer) = name.strip_suffix("num_batches_tracked") else { return false };
        let mean = format!("{layer}running_mean");
        self.index(&mean).is_ok() || file.dims(&mean).is_ok()
    }

    fn check(&self, i: usize, actual: &[usize]) -> Result<()> {
        let spec = &self.graph.parameters[i];
        if actual == spec.dims {
            return Ok(());
        }
        let (name, expected) = (spec.name.clone(), spec.dims.clone());
        Err(Error::ParameterShape { name, actual: actual.to_vec(), expected })
    }

    /// Loads all parameters and running statistics from a safetensors file that holds exactly them. PyTorch's counters
    /// `num_batches_tracked`, which inference has no use for, are passed over.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, misses a parameter, has another tensor, or has one of another shape or
    /// type. The model is unchanged then.
    pub fn load_safetensors(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.load_weights(&WeightsFile::open(path)?, Strictness::Strict).map(|_| ())
    }

    /// Loads parameters from a weights file that is already open, and says which.
    ///
    /// # Errors
    /// As [`Model::load_safetensors`], to the extent that `strictness` asks for, and where nothing matches. The model is unchanged
    /// then.
    pub fn load_weights(&mut self, file: &WeightsFile, strictness: Strictness) -> Result<Loaded> {
        let found = self.look_through(file);
        let Loaded { loaded, missing, unexpected, reshaped } = &found;
        let refused = match strictness {
            Strictness::Strict => !missing.is_empty() || !unexpected.is_empty(),
            Strictness::IgnoreUnexpected => !missing.is_empty(),
            Strictness::Lenient => !missing.is_empty() && loaded.is_empty() && reshaped.is_empty(),
        };
        if refused {
            return Err(found.refused(file));
        }
        if let Some((name, dims, _)) = reshaped.first() {
            self.check(self.index(name)?, dims)?;
        }
        self.take(file, found)
    }

    /// Loads what fits by name and shape, and says what did not: the way to begin with the weights of a network for other
    /// classes, whose head has another shape and stays as it was initialised.
    ///
    /// ```
    /// use swath::nn::*;
    /// use swath::WeightsFile;
    /// let network = |classes| {
    ///     Sequential::new((Conv2d::new(1, 4, 3).named("conv"), ReLU, Flatten, Linear::new(36, classes).named("head")))
    /// };
    /// let path = std::env::temp_dir().join(format!("swath-doc-fitting-{}.safetensors", std::process::id()));
    /// network(10).build(1)?.save_safetensors(&path)?;
    /// let mut model = network(3).build(2)?;
    /// let loaded = model.load_fitting(&WeightsFile::open(&path)?)?;
    /// assert_eq!(loaded.loaded, ["conv.weight", "conv.bias"]);
    /// assert_eq!(loaded.reshaped[0], ("head.weight".into(), vec![10, 36], vec![3, 36]));
    /// assert!(loaded.missing.is_empty() && loaded.unexpected.is_empty());
    /// # std::fs::remove_file(&path).unwrap();
    /// # Ok::<(), swath::Error>(())
    /// ```
    ///
    /// # Errors
    /// If a tensor cannot be read, or nothing fits. The model is unchanged then.
    pub fn load_fitting(&mut self, file: &WeightsFile) -> Result<Loaded> {
        let found = self.look_through(file);
        if found.loaded.is_empty() {
            return Err(found.refused(file));
        }
        self.take(file, found)
    }

    /// What a file has of the model. Nothing is read yet.
    fn look_through(&self, file: &WeightsFile) -> Loaded {
        let mut found = Loaded::default();
        for spec in &self.graph.parameters {
            match file.dims(&spec.name) {
                Err(_) => found.missing.push(spec.name.clone()),
                Ok(dims) if dims != spec.dims => {
                    found.reshaped.push((spec.name.clone(), dims.to_vec(), spec.dims.clone()));
                }
                Ok(_) => found.loaded.push(spec.name.clone()),
            }
        }
        let unexpected = |n: &&str| self.index(n).is_err() && !self.counts_batches(file, n);
        found.unexpected = file.names().filter(unexpected).map(String::from).collect();
        found
    }

    /// Takes the values that were found: all, or none where one cannot be read.
    fn take(&mut self, file: &WeightsFile, found: Loaded) -> Result<Loaded> {
        let value = |name: &String| Ok((self.index(name)?, file.tensor(name)?));
        let values = found.loaded.iter().map(value).collect::<Result<Vec<_>>>()?;
        let parameters = self.parameters_mut();
        for (i, value) in values {
            parameters[i] = value;
        }
        Ok(found)
    }

    /// Writes all parameters and running statistics to a safetensors file, replacing it at once: a reader sees the old
    /// file or the new one.
    ///
    /// # Errors
    /// If the file cannot be written; an old file is unchanged then.
    pub fn save_safetensors(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_safetensors_with(path, &HashMap::new())
    }

    /// As [`Model::save_safetensors`], with metadata for the file's header.
    ///
    /// # Errors
    /// As [`Model::save_safetensors`].
    pub fn save_safetensors_with(&self, path: impl AsRef<Path>, metadata: &HashMap<String, String>) -> Result<()> {
        save(path.as_ref(), self.state(), metadata)
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Model of {} operators and {} parameters", self.graph.nodes.len(), self.parameter_count())
    }
}
