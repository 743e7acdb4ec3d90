//! Everything that a training run needs to go on as if it had never stopped, in one safetensors file.
//!
//! Weights have their own names, so that the file is also a weights file for whoever only wants those. State of the
//! optimizer is under `optimizer/`, averages of weights under `average/`, and all numbers are in the metadata. Random state
//! is the seed and the place in the data: every random choice of a loader follows from them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use flate2::Crc;
use serde::{Deserialize, Serialize};

use super::average::WeightAverage;
use super::optimization::Optimization;
use super::schedule::Schedule;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::weights::{WeightsFile, save};

/// The metadata's entry that tells a checkpoint from other safetensors files, and its content.
const MARK: (&str, &str) = ("swath.checkpoint", "1");

/// The metadata's entry of [`Progress`] and what goes with it.
const STATE: &str = "swath.state";

/// The metadata's entry of the checksum.
const CHECKSUM: &str = "swath.crc32";

const OPTIMIZER: &str = "optimizer/";
const AVERAGE: &str = "average/";

/// How far a run is, and what it must be the same in to go on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The seed of orders, samples and whatever else is random.
    pub seed: u64,
    /// Updates so far.
    pub step: u64,
    /// The epoch that the next batch belongs to, from 0.
    pub epoch: u64,
    /// The number of the next batch in its epoch.
    pub batch: u64,
    /// The best validation so far, if there was one.
    pub best: Option<Exact>,
    /// Epochs since then.
    pub since_best: u64,
    /// What is known of the epoch so far.
    pub tally: Tally,
    /// Names of the algorithms that layers use: a resumed run takes those, whatever a tuning file says meanwhile.
    pub algorithms: BTreeMap<String, String>,
    /// Whatever the program wants to find again, such as the arguments that it was called with.
    pub notes: BTreeMap<String, String>,
}

/// What an epoch was like so far, so that a resumed run reports of all of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// The sum of the losses of its batches.
    pub loss: Exact,
    /// Its batches.
    pub batches: u64,
    /// Its pictures.
    pub samples: u64,
    /// Those of them that have a class.
    pub labelled: u64,
    /// Those of them whose class was right before the update.
    pub right: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { loss: Exact(0.0), batches: 0, samples: 0, labelled: 0, right: 0 }
    }
}

/// A number that goes through text without loss, infinity and NaN included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Exact(pub f64);

impl From<Exact> for String {
    fn from(number: Exact) -> Self {
        format!("{:?}", number.0)
    }
}

impl TryFrom<String> for Exact {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("`{text}` is no number"))
    }
}

/// What the file's metadata holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    progress: Progress,
    /// [`Optimization::describe`].
    optimizer: String,
    /// Updates of each parameter.
    counts: BTreeMap<String, u64>,
    /// The schedule's debug form without what it remembers, which changes.
    schedule: String,
    schedule_memory: Vec<Exact>,
    /// Updates of each average.
    average_counts: BTreeMap<String, u64>,
}

/// A training run at rest.
///
/// ```
/// use swath::Tensor;
/// use swath::train::{Adam, Adjust, Checkpoint, Optimization, Progress};
/// let mut optimization = Optimization::new(Adam::new(1e-3))?;
/// let id = optimization.register("fc.bias", &[2])?;
/// let mut bias = Tensor::zeros([2])?;
/// optimization.update(id, bias.as_mut_slice(), &[0.5, -0.5], Adjust::NONE)?;
///
/// let path = std::env::temp_dir().join(format!("swath-doc-{}.safetensors", std::process::id()));
/// let mut checkpoint = Checkpoint::new(Progress { step: 1, ..Progress::default() });
/// checkpoint.put_weight("fc.bias", &bias)?;
/// checkpoint.put_optimization(&optimization)?;
/// checkpoint.save(&path)?;
///
/// let read = Checkpoint::open(&path)?;
/// assert_eq!(read.progress().step, 1);
/// assert_eq!(read.weight("fc.bias")?, &bias);
/// read.restore_optimization(&mut optimization)?;
/// std::fs::remove_file(&path).unwrap();
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    source: String,
    state: State,
    tensors: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// One of a run that is so far, without tensors yet.
    pub fn new(progress: Progress) -> Self {
        let state = State { progress, ..State::default() };
        Self { source: "the checkpoint".into(), state, tensors: BTreeMap::new() }
    }

    /// How far the run is.
    pub fn progress(&self) -> &Progress {
        &self.state.progress
    }

    /// Adds a copy of a weight, or of a running statistic.
    ///
    /// # Errors
    /// If the name has a slash, which tells other tensors.
    pub fn put_weight(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        if name.contains('/') {
            let rule = "the name of a weight has no slash".into();
            return Err(Error::Setting { what: "the name of a weight", value: name.into(), rule });
        }
        self.tensors.insert(name.into(), tensor.clone());
        Ok(())
    }

    /// All weights by name.
    pub fn weights(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().filter(|(name, _)| !name.contains('/')).map(|(name, t)| (name.as_str(), t))
    }

    /// A weight.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn weight(&self, name: &str) -> Result<&Tensor> {
        let unknown = || Error::UnknownTensor {
            place: self.source.clone(),
            name: name.into(),
            known: self.weights().map(|(n, _)| n.into()).collect(),
        };
        self.tensors.get(name).ok_or_else(unknown)
    }

    /// Adds a copy of the optimizer's state.
    ///
    /// # Errors
    /// If a tensor cannot be allocated.
    pub fn put_optimization(&mut self, optimization: &Optimization) -> Result<()> {
        for (name, dims, values) in optimization.state() {
            self.tensors.insert(format!("{OPTIMIZER}{name}"), Tensor::new(dims, values)?);
        }
        self.state.counts = optimization.counts().map(|(name, count)| (name.into(), count)).collect();
        self.state.optimizer = optimization.describe();
        Ok(())
    }

    /// Puts the state into an optimizer that was made with the same options and parameters.
    ///
    /// # Errors
    /// If it was not; nothing has changed then.
    pub fn restore_optimization(&self, optimization: &mut Optimization) -> Result<()> {
        let here = optimization.describe();
        if here != self.state.optimizer {
            return Err(self.fault(format!("made with the optimizer {}, this run has {here}", self.state.optimizer)));
        }
        for (name, dims, _) in optimization.state() {
            self.of_shape(&format!("{OPTIMIZER}{name}"), dims)?;
        }
        let names: Vec<String> = optimization.counts().map(|(name, _)| name.into()).collect();
        if let Some(name) = names.iter().find(|n| !self.state.counts.contains_key(*n)) {
            return Err(self.fault(format!("has no number of updates for the parameter `{name}`")));
        }
        if let Some(name) = self.state.counts.keys().find(|n| !names.contains(n)) {
            return Err(self.fault(format!("has the parameter `{name}`, which this run does not train")));
        }
        for (name, _, values) in optimization.state_mut() {
            if let Some(tensor) = self.tensors.get(&format!("{OPTIMIZER}{name}")) {
                values.copy_from_slice(tensor.as_slice());
            }
        }
        self.state.counts.iter().try_for_each(|(name, &count)| optimization.set_count(name, count))
    }

    /// Adds what a schedule remembers, and which one it is.
    pub fn put_schedule(&mut self, schedule: &dyn Schedule) {
        self.state.schedule = schedule.name().into();
        self.state.schedule_memory = schedule.memory().into_iter().map(Exact).collect();
    }

    /// Puts back what a schedule remembers.
    ///
    /// # Errors
    /// If the run had another one.
    pub fn restore_schedule(&self, schedule: &mut dyn Schedule) -> Result<()> {
        if schedule.name() != self.state.schedule {
            let (there, here) = (&self.state.schedule, schedule.name());
            return Err(self.fault(format!("made with the schedule {there}, this run has {here}")));
        }
        let memory: Vec<f64> = self.state.schedule_memory.iter().map(|m| m.0).collect();
        schedule.remember(&memory)
    }

    /// Adds a copy of the average of a weight.
    ///
    /// # Errors
    /// If a tensor cannot be allocated.
    pub fn put_average(&mut self, name: &str, dims: &[usize], average: &WeightAverage, number: usize) -> Result<()> {
        self.tensors.insert(format!("{AVERAGE}{name}"), Tensor::new(dims, average.values(number))?);
        self.state.average_counts.insert(name.into(), average.count(number));
        Ok(())
    }

    /// Puts the average of a weight back.
    ///
    /// # Errors
    /// If there is none of that name and length.
    pub fn restore_average(&self, name: &str, average: &mut WeightAverage, number: usize) -> Result<()> {
        let tensor = self.tensors.get(&format!("{AVERAGE}{name}")).zip(self.state.average_counts.get(name));
        let Some((tensor, &count)) = tensor else {
            return Err(self.fault(format!("has no average of `{name}`")));
        };
        average.restore(number, tensor.as_slice(), count)
    }

    /// The tensor of a name, if it has those extents.
    fn of_shape(&self, name: &str, dims: &[usize]) -> Result<&Tensor> {
        let tensor = self.tensors.get(name).ok_or_else(|| self.fault(format!("has no tensor `{name}`")))?;
        if tensor.dims() == dims {
            return Ok(tensor);
        }
        Err(self.fault(format!("tensor `{name}` has the shape {:?}, this run needs {dims:?}", tensor.dims())))
    }

    fn fault(&self, problem: String) -> Error {
        Error::Format { file: self.source.clone(), problem }
    }

    /// Writes the file, whole or not at all: whoever reads sees the old one or the new one, also when the program dies in
    /// between.
    ///
    /// # Errors
    /// If it cannot be written; an old file is unchanged then.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let state = serde_json::to_string(&self.state).map_err(|e| self.fault(e.to_string()))?;
        let checksum = format!("{:08x}", checksum(&state, &self.tensors));
        let entries = [(MARK.0, MARK.1.to_string()), (STATE, state), (CHECKSUM, checksum)];
        let metadata: HashMap<String, String> = entries.map(|(k, v)| (k.to_string(), v)).into();
        save(path, self.tensors.iter().map(|(name, t)| (name.as_str(), t)), &metadata)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is truncated or changed, or is no checkpoint.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = WeightsFile::open(path)?;
        let fault = |problem: String| Error::Format { file: file.source().into(), problem };
        match file.metadata(MARK.0) {
            Some(version) if version == MARK.1 => {}
            Some(other) => {
                return Err(fault(format!("a checkpoint of version {other}, this program reads {}", MARK.1)));
            }
            None => return Err(fault(format!("no checkpoint: its metadata has no `{}`", MARK.0))),
        }
        let text = file.metadata(STATE).unwrap_or_default();
        let state = serde_json::from_str(text).map_err(|e| fault(format!("a damaged checkpoint: {e}")))?;
        let tensors = file.names().map(|n| Ok((n.into(), file.tensor(n)?))).collect::<Result<BTreeMap<_, _>>>()?;
        let (there, here) = (file.metadata(CHECKSUM).unwrap_or("none"), format!("{:08x}", checksum(text, &tensors)));
        if there != here {
            return Err(fault(format!("a damaged checkpoint: its checksum is {there}, its content's {here}")));
        }
        Ok(Self { source: file.source().into(), state, tensors })
    }
}

/// CRC-32 of the state and of all tensors in the order of their names.
fn checksum(state: &str, tensors: &BTreeMap<String, Tensor>) -> u32 {
    let mut crc = Crc::new();
    crc.update(state.as_bytes());
    for (name, tensor) in tensors {
        crc.update(name.as_bytes());
        for floats in tensor.as_slice().chunks(CHUNK) {
            let mut bytes = [[0; 4]; CHUNK];
            bytes.iter_mut().zip(floats).for_each(|(b, v)| *b = v.to_le_bytes());
            crc.update(bytes[..floats.len()].as_flattened());
        }
    }
    crc.sum()
}

/// Floats that are turned into bytes together.
const CHUNK: usize = 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::train::schedule::{ReduceLrOnPlateau, StepLr};
    use crate::train::{Adam, Adjust, Sgd};

    /// A file of its own for a test, removed at the end.
    struct File(std::path::PathBuf);

    impl File {
        fn new(test: &str) -> Self {
            Self(std::env::temp_dir().join(format!("swath-checkpoint-{test}-{}.safetensors", std::process::id())))
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    /// Some training of one parameter under a schedule, with an average.
    struct Run {
        optimization: Optimization,
        schedule: ReduceLrOnPlateau,
        average: WeightAverage,
        weight: Tensor,
        step: u64,
    }

    impl Run {
        fn new() -> Self {
            let mut optimization = Optimization::new(Adam::new(0.1)).unwrap();
            optimization.register("w", &[2, 3]).unwrap();
            let mut average = WeightAverage::new(0.5).unwrap();
            average.register(6).unwrap();
            let schedule = ReduceLrOnPlateau::new().patience(1);
            Self { optimization, schedule, average, weight: Tensor::zeros([2, 3]).unwrap(), step: 0 }
        }

        fn advance(&mut self, steps: u64) {
            for _ in 0..steps {
                self.optimization.follow(&self.schedule, self.step).unwrap();
                let gradient = core::array::from_fn::<f32, 6, _>(|i| (i as f32 - 2.5) * (1.0 + self.step as f32));
                let id = crate::train::ParameterId(0);
                self.optimization.update(id, self.weight.as_mut_slice(), &gradient, Adjust::NONE).unwrap();
                self.average.update(0, self.weight.as_slice()).unwrap();
                self.schedule.observe(1.0);
                self.step += 1;
            }
        }

        fn checkpoint(&self) -> Checkpoint {
            let mut c = Checkpoint::new(Progress { step: self.step, seed: 7, ..Progress::default() });
            c.put_weight("w", &self.weight).unwrap();
            c.put_optimization(&self.optimization).unwrap();
            c.put_schedule(&self.schedule);
            c.put_average("w", &[2, 3], &self.average, 0).unwrap();
            c
        }

        fn resumed(c: &Checkpoint) -> Self {
            let mut run = Self::new();
            c.restore_optimization(&mut run.optimization).unwrap();
            c.restore_schedule(&mut run.schedule).unwrap();
            c.restore_average("w", &mut run.average, 0).unwrap();
            run.weight = c.weight("w").unwrap().clone();
            run.step = c.progress().step;
            run
        }
    }

    #[test]
    fn a_resumed_run_has_the_bits_of_one_that_never_stopped() {
        let file = File::new("resume");
        let mut whole = Run::new();
        whole.advance(9);
        for stop in 0..9 {
            let mut first = Run::new();
            first.advance(stop);
            first.checkpoint().save(&file.0).unwrap();
            let read = Checkpoint::open(&file.0).unwrap();
            assert_eq!(read.progress(), &Progress { step: stop, seed: 7, ..Progress::default() });
            let mut second = Run::resumed(&read);
            second.advance(9 - stop);
            assert_eq!(second.checkpoint().state, whole.checkpoint().state, "{stop}");
            assert_eq!(second.checkpoint().tensors, whole.checkpoint().tensors, "{stop}");
        }
    }

    #[test]
    fn a_checkpoint_is_a_weights_file_too() {
        let file = File::new("weights");
        let run = Run::new();
        run.checkpoint().save(&file.0).unwrap();
        let weights = WeightsFile::open(&file.0).unwrap();
        assert_eq!(weights.dims("w").unwrap(), [2, 3]);
        let c = Checkpoint::open(&file.0).unwrap();
        assert_eq!(c.weights().map(|(n, _)| n).collect::<Vec<_>>(), ["w"]);
        assert!(c.weight("v").unwrap_err().to_string().contains("no tensor `v`; it has: `w`"));
        assert!(Checkpoint::new(Progress::default()).put_weight("a/b", &run.weight).is_err());
    }

    #[test]
    fn truncated_changed_and_foreign_files_are_refused_in_one_line() {
        let file = File::new("damaged");
        Run::new().checkpoint().save(&file.0).unwrap();
        let whole = fs::read(&file.0).unwrap();
        let text = |bytes: &[u8]| {
            fs::write(&file.0, bytes).unwrap();
            let text = Checkpoint::open(&file.0).unwrap_err().to_string();
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(text.contains("swath-checkpoint-damaged"), "{text}");
            text
        };
        for len in (0..whole.len()).step_by(7) {
            text(&whole[..len]);
        }
        assert!(text(&whole[..whole.len() - 1]).contains("truncated"));
        // A bit of a weight, and a digit of the state.
        let mut changed = whole.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(text(&changed).contains("its checksum is"));
        let at = whole.windows(7).position(|w| w == b"seed\\\":").unwrap() + 7;
        changed = whole.clone();
        changed[at] = b'8';
        assert!(text(&changed).contains("its checksum is"));
        let t = Tensor::zeros([1]).unwrap();
        save(&file.0, [("w", &t)].into_iter(), &HashMap::new()).unwrap();
        assert!(text(&fs::read(&file.0).unwrap()).contains("no checkpoint"));
        save(&file.0, [("w", &t)].into_iter(), &HashMap::from([(MARK.0.into(), "2".into())])).unwrap();
        assert!(text(&fs::read(&file.0).unwrap()).contains("version 2"));
    }

    #[test]
    fn another_run_is_refused_and_stays_as_it_is() {
        let mut run = Run::new();
        run.advance(2);
        let c = run.checkpoint();
        let text = |mut o: Optimization| {
            let before: Vec<Vec<f32>> = o.state().map(|(_, _, v)| v.to_vec()).collect();
            let text = c.restore_optimization(&mut o).unwrap_err().to_string();
            assert_eq!(before, o.state().map(|(_, _, v)| v.to_vec()).collect::<Vec<_>>());
            text
        };
        let adam = |rate, name: &str, dims: &[usize]| {
            let mut o = Optimization::new(Adam::new(rate)).unwrap();
            o.register(name, dims).unwrap();
            o
        };
        assert!(text(Optimization::new(Sgd::new(0.1)).unwrap()).contains("made with the optimizer"));
        assert!(text(adam(0.2, "w", &[2, 3])).contains("lr: 0.2"));
        assert!(text(adam(0.1, "w", &[3, 2])).contains("[2, 3], this run needs [3, 2]"));
        assert!(text(adam(0.1, "v", &[2, 3])).contains("no tensor `optimizer/v.exp_avg`"));
        assert!(text(Optimization::new(Adam::new(0.1)).unwrap()).contains("which this run does not train"));
        assert!(c.restore_schedule(&mut StepLr::new(1)).unwrap_err().to_string().contains("StepLR"));
        assert!(c.restore_average("v", &mut run.average, 0).unwrap_err().to_string().contains("average of `v`"));
    }

    #[test]
    fn numbers_go_through_text() {
        for v in [0.1, f64::INFINITY, -0.0, f64::MIN_POSITIVE, 1e300] {
            let text = String::from(Exact(v));
            assert_eq!(Exact::try_from(text).unwrap().0.to_bits(), v.to_bits());
        }
        assert!(Exact::try_from("NaN".to_string()).unwrap().0.is_nan());
        assert!(Exact::try_from("one".to_string()).is_err());
    }
}
