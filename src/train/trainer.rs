//! A model, its loss and its optimizer, a step at a time.

use core::fmt;
use std::sync::Arc;

use super::average::WeightAverage;
use super::checkpoint::{Checkpoint, Progress};
use super::clip::Clip;
use super::loss::Loss;
use super::optimization::{Optimization, ParameterId, Select};
use super::optimizer::Adjust;
use super::schedule::Schedule;
use crate::buffer::Buffer;
use crate::compile::runner::Runner;
use crate::compile::{SessionOptions, StepProfile};
use crate::error::{Error, Result, check_len};
use crate::graph::Fact;
use crate::graph::autodiff::{Differentiated, Wanted};
use crate::model::Model;
use crate::random::Random;
use crate::tensor::Tensor;
use crate::tune::{KeptChoices, Tuning};

/// How a [`Trainer`] trains.
#[derive(Clone, Debug, Default)]
pub struct TrainerOptions {
    /// Level, accuracy, threads and measurements to choose algorithms by. Layouts are the graph's own.
    pub session: SessionOptions,
    /// How gradients are clipped.
    pub clip: Clip,
    /// Micro-batches whose gradients are averaged before an update; 0 and 1 are the same.
    pub accumulate: usize,
    /// Keeps an exponential moving average of the weights, with this decay.
    pub average: Option<f64>,
    /// Parameters that are not trained.
    pub frozen: Vec<Select>,
    /// Layers, by name pattern, whose batch normalisation stays as in inference.
    pub frozen_layers: Vec<String>,
    /// The seed of dropout.
    pub seed: u64,
    /// Computes outputs of batch normalisation once more in the backward pass, from what its gradient reads anyway, instead of
    /// keeping them: the same bits with less memory, in a little more time.
    pub recompute: bool,
}

/// What a step was like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The loss before the update.
    pub loss: f32,
    /// The norm of all gradients together before clipping, where they are clipped by norm.
    pub norm: Option<f32>,
}

/// What training takes of memory, in bytes.
///
/// ```
/// use swath::nn::*;
/// use swath::train::{Adam, Optimization, Trainer, loss::CrossEntropyLoss};
/// let model = Sequential::new((Conv2d::new(1, 4, 3), ReLU, Flatten, Linear::new(4 * 36, 2))).build(1)?;
/// let optimization = Optimization::new(Adam::new(1e-3))?;
/// let mut trainer = Trainer::new(model, CrossEntropyLoss::new(), optimization, &Default::default())?;
/// let footprint = trainer.footprint(&[16, 1, 8, 8])?;
/// // 36 and 4 weights and biases of the convolution, 288 and 2 of the linear layer; Adam keeps two numbers of each.
/// assert_eq!((footprint.parameters, footprint.optimizer), (330 * 4, 2 * 330 * 4));
/// println!("{footprint}");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Weights, running statistics, and averages of them.
    pub parameters: usize,
    /// What the optimizer keeps of each parameter.
    pub optimizer: usize,
    /// Gradients of the parameters, twice if they are summed over micro-batches, and the next running statistics.
    pub gradients: usize,
    /// Activations, the model's output among them, and gradients at them.
    pub activations: usize,
    /// Constants of the graph.
    pub constants: usize,
    /// What kernels take while they run, packed weights included.
    pub scratch: usize,
}

impl Footprint {
    /// All of it.
    pub fn total(&self) -> usize {
        self.parameters + self.optimizer + self.gradients + self.activations + self.constants + self.scratch
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: usize| bytes as f64 / 1e6;
        let Self { parameters, optimizer, gradients, activations, constants, scratch } = *self;
        let (state, rest) = (parameters + optimizer, constants + scratch);
        write!(
            f,
            "{:.1} MB: {:.1} of weights and optimizer, {:.1} of gradients, {:.1} of activations, {:.1} of scratch",
            mb(self.total()),
            mb(state),
            mb(gradients),
            mb(activations),
            mb(rest)
        )
    }
}

/// A model, its loss and its optimizer. [`Trainer::step`] is [`Trainer::backward`] and [`Trainer::update`], which a loop of
/// one's own may call by themselves, and [`Trainer::forward`] before them.
///
/// Forward pass, loss, backward pass and the next running statistics are one graph, which is planned as a whole: its memory
/// is one arena whose size is known before the first step ([`Trainer::footprint`]). The same bits for any number of threads.
///
/// ```
/// use swath::nn::*;
/// use swath::train::{Sgd, Optimization, Trainer, loss::CrossEntropyLoss};
/// let model = Sequential::new((Conv2d::new(1, 4, 3), ReLU, Flatten, Linear::new(4 * 9, 2))).build(1)?;
/// let optimization = Optimization::new(Sgd::new(0.1).momentum(0.9))?;
/// let mut trainer = Trainer::new(model, CrossEntropyLoss::new(), optimization, &Default::default())?;
/// // Two pictures: a bright one and a dark one.
/// let x: Vec<f32> = (0..50).map(|i| if i < 25 { 1.0 } else { -1.0 }).collect();
/// let first = trainer.step(&[2, 1, 5, 5], &x, &[0.0, 1.0])?.loss;
/// for _ in 0..20 {
///     trainer.step(&[2, 1, 5, 5], &x, &[0.0, 1.0])?;
/// }
/// assert!(trainer.step(&[2, 1, 5, 5], &x, &[0.0, 1.0])?.loss < 0.1 * first);
/// # Ok::<(), swath::Error>(())
/// ```
pub struct Trainer {
    model: Model,
    loss: Box<dyn Loss>,
    options: TrainerOptions,
    /// Algorithms of all programs so far.
    algorithms: Arc<KeptChoices>,
    optimization: Optimization,
    /// The optimizer's number of each parameter that is trained, in the model's order.
    ids: Vec<Option<ParameterId>>,
    average: Option<WeightAverage>,
    /// One for each extents of the input so far.
    programs: Vec<Compiled>,
    /// Number of the program that ran last: its outputs hold the gradients of the last micro-batch.
    last: usize,
    /// Sums of gradients over earlier micro-batches, in the model's order; empty as long as one is all.
    sums: Vec<Buffer>,
    /// Micro-batches since the last update, and how many of them are in the sums.
    gathered: usize,
    summed: usize,
    /// Updates so far.
    steps: u64,
}

/// The graph of a step, compiled for extents of the input.
struct Compiled {
    input: Vec<usize>,
    output: Vec<usize>,
    target: usize,
    graph: Differentiated,
    runner: Runner,
}

/// Numbers of the model's own output and of the loss among a program's outputs.
const OUTPUT: usize = 0;
const LOSS: usize = 1;

/// The words of each of a program's inputs: a batch, its target, the parameters, and the seed if it takes one.
fn words<'a>(
    graph: &Differentiated,
    given: [&'a [f32]; 2],
    seed: &'a [f32],
    parameters: &'a [Tensor],
) -> impl Fn(usize) -> &'a [f32] + Sync + use<'a> {
    let (first_parameter, seed_at) = (graph.first_parameter, graph.seed);
    move |i| match i {
        0 | 1 => given[i],
        i if Some(i) == seed_at => seed,
        i => parameters[i - first_parameter].as_slice(),
    }
}

impl Trainer {
    /// Takes a model of one input and one output. Programs are compiled when the first batch of a size comes.
    ///
    /// # Errors
    /// If an option is out of range, or memory does not suffice.
    pub fn new(
        model: Model,
        loss: impl Loss + 'static,
        mut optimization: Optimization,
        options: &TrainerOptions,
    ) -> Result<Self> {
        options.clip.check()?;
        let mut average = options.average.map(WeightAverage::new).transpose()?;
        let mut ids = Vec::new();
        for (spec, (name, tensor)) in model.graph().parameters.iter().zip(model.state()) {
            let frozen = options.frozen.iter().any(|s| s.fits(name, tensor.dims()));
            let trained = spec.trained && !frozen;
            ids.push(trained.then(|| optimization.register(name, tensor.dims())).transpose()?);
            if let Some(average) = &mut average {
                average.register(tensor.as_slice().len())?;
            }
        }
        let (mut options, loss) = (options.clone(), Box::new(loss));
        let algorithms = Arc::new(KeptChoices::new(core::mem::take(&mut options.session.tuning)));
        options.session.tuning = Tuning::Kept(algorithms.clone());
        // Layouts are the graph's own: what goes in and comes out is NCHW.
        (options.session.input, options.session.output) = Default::default();
        Ok(Self {
            model,
            loss,
            options,
            algorithms,
            optimization,
            ids,
            average,
            programs: Vec::new(),
            last: 0,
            sums: Vec::new(),
            gathered: 0,
            summed: 0,
            steps: 0,
        })
    }

    /// The model with its weights at this moment.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The model with the average of its weights, if one is kept and an update has been made; else as it is.
    ///
    /// # Errors
    /// If memory does not suffice.
    pub fn averaged_model(&self) -> Result<Model> {
        let mut model = self.model.clone();
        if let Some(average) = self.average.as_ref().filter(|_| self.steps > 0) {
            for (i, tensor) in model.parameters_mut().iter_mut().enumerate() {
                tensor.as_mut_slice().copy_from_slice(average.values(i));
            }
        }
        Ok(model)
    }

    /// The optimizer.
    pub fn optimization(&mut self) -> &mut Optimization {
        &mut self.optimization
    }

    /// How networks are compiled: with the algorithms of before, where there are any.
    pub fn session_options(&self) -> &SessionOptions {
        &self.options.session
    }

    /// Micro-batches since the last update.
    pub fn pending(&self) -> usize {
        self.gathered
    }

    /// Updates so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What training on inputs of these extents takes of memory: known before the first step, as a step allocates nothing.
    /// Inputs of other extents before have programs of their own, which are not counted.
    ///
    /// # Errors
    /// If there is no program for them, or not that much memory.
    pub fn footprint(&mut self, input: &[usize]) -> Result<Footprint> {
        let at = self.program(input)?;
        let runner = &self.programs[at].runner;
        let [words, constants, scratch] = runner.bytes();
        let bytes = |values: &[f32]| size_of_val(values);
        let graph = &self.programs[at].graph;
        let of = |outputs: &mut dyn Iterator<Item = usize>| outputs.map(|o| bytes(&runner.outputs[o])).sum::<usize>();
        let trained = of(&mut graph.gradients.iter().map(|&(_, output)| output));
        let statistics = of(&mut graph.updates.iter().map(|&(_, output)| output));
        let all = of(&mut (0..runner.outputs.len()));
        let parameters = self.model.state().map(|(_, t)| bytes(t.as_slice())).sum::<usize>();
        let average = if self.average.is_some() { parameters } else { 0 };
        let sums = if self.options.accumulate > 1 { trained } else { 0 };
        Ok(Footprint {
            parameters: parameters + average,
            optimizer: self.optimization.state().map(|(_, _, values)| bytes(values)).sum(),
            gradients: trained + statistics + sums,
            activations: words - all + (all - trained - statistics),
            constants,
            scratch,
        })
    }

    /// Trains on a batch: forward, backward, and after as many micro-batches as there should be an update.
    ///
    /// `input` are the pictures, of extents `dims` in NCHW, and `target` what the loss wants: classes as floats, or values.
    ///
    /// # Errors
    /// For extents that do not fit the model, a target that does not exist, and a loss that is not finite: then nothing is
    /// updated, and the first tensor that went bad is named.
    pub fn step(&mut self, dims: &[usize], input: &[f32], target: &[f32]) -> Result<StepReport> {
        let loss = self.backward(dims, input, target)?;
        let norm = if self.gathered >= self.options.accumulate { self.update()? } else { None };
        Ok(StepReport { loss, norm })
    }

    /// Computes the loss and all gradients of a batch, and adds them to those since the last update. Running statistics
    /// move with each batch.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn backward(&mut self, dims: &[usize], input: &[f32], target: &[f32]) -> Result<f32> {
        let at = self.prepare(dims, input, target)?;
        let seed = self.seed();
        let p = &mut self.programs[at];
        p.runner.restore()?;
        p.runner.run(&words(&p.graph, [input, target], &seed, self.model.values()));
        let loss = p.runner.outputs[LOSS][0];
        if !loss.is_finite() {
            return Err(self.went_bad(at, input, target, loss));
        }
        let parameters = self.model.parameters_mut();
        for &(parameter, output) in &p.graph.updates {
            parameters[parameter].as_mut_slice().copy_from_slice(&p.runner.outputs[output]);
        }
        self.last = at;
        self.gathered += 1;
        Ok(loss)
    }

    /// The output for a batch as training computes it, by the statistics of the batch and the dropout of the next
    /// [`Trainer::backward`], in NCHW. Nothing of the run changes. A loop calls it where it looks at outputs before it
    /// knows the target: `backward` computes them anyway ([`Trainer::last_output`]).
    ///
    /// # Errors
    /// For extents that do not fit the model, and if memory does not suffice.
    pub fn forward(&mut self, dims: &[usize], input: &[f32]) -> Result<&[f32]> {
        let at = self.fitting(dims, input)?;
        let seed = self.seed();
        let p = &mut self.programs[at];
        p.runner.restore()?;
        // The loss and what follows it run where the output is another value's copy.
        let target = Buffer::zeros(p.target)?;
        p.runner.run_until(OUTPUT, &words(&p.graph, [input, &target], &seed, self.model.values()));
        Ok(&p.runner.outputs[OUTPUT])
    }

    /// The program for a batch that fits it.
    fn prepare(&mut self, dims: &[usize], input: &[f32], target: &[f32]) -> Result<usize> {
        let at = self.fitting(dims, input)?;
        let p = &self.programs[at];
        check_len("the target", target.len(), p.target)?;
        self.loss.check_targets(&p.output, target)?;
        Ok(at)
    }

    /// The program for an input that fits it. What its run overwrites, the gradients of the last micro-batch, is in the
    /// sums then.
    fn fitting(&mut self, dims: &[usize], input: &[f32]) -> Result<usize> {
        let at = self.program(dims)?;
        check_len("the input", input.len(), dims.iter().product())?;
        if self.summed < self.gathered {
            self.sum()?;
        }
        Ok(at)
    }

    /// Changes the weights by the gradients since the last update, and the running statistics; the norm, if they are clipped by
    /// it. Nothing without a batch since then.
    ///
    /// # Errors
    /// If memory does not suffice.
    pub fn update(&mut self) -> Result<Option<f32>> {
        if self.gathered == 0 {
            return Ok(None);
        }
        // Of a single micro-batch the gradients are where they were computed.
        if self.gathered > 1 && self.summed < self.gathered {
            self.sum()?;
        }
        let Self { model, optimization, ids, average, programs, last, sums, gathered, summed, options, .. } = self;
        let p = &mut programs[*last];
        let (graph, runner) = (&p.graph, &p.runner);
        let parameters = model.parameters_mut();
        let norm = runner.on_team(|| -> Result<Option<f32>> {
            let sum = |k: usize, output: usize| {
                if *summed == 0 { &runner.outputs[output][..] } else { &sums[k][..] }
            };
            let gradients = || graph.gradients.iter().enumerate().map(|(k, &(_, output))| sum(k, output));
            let (adjust, norm): (Adjust, Option<f32>) = options.clip.adjust(gradients(), *gathered);
            for (&(parameter, _), gradient) in graph.gradients.iter().zip(gradients()) {
                if let Some(id) = ids[parameter] {
                    optimization.update(id, parameters[parameter].as_mut_slice(), gradient, adjust)?;
                }
            }
            if let Some(average) = average {
                for (i, tensor) in parameters.iter().enumerate() {
                    average.update(i, tensor.as_slice())?;
                }
            }
            Ok(norm)
        })?;
        self.sums.iter_mut().for_each(|s| s.fill(0.0));
        (self.gathered, self.summed) = (0, 0);
        self.steps += 1;
        Ok(norm)
    }

    /// Adds the gradients of the last micro-batch to the sums.
    fn sum(&mut self) -> Result<()> {
        let p = &self.programs[self.last];
        if self.sums.is_empty() {
            let zeros = |&(_, output): &(usize, usize)| Buffer::zeros(p.runner.outputs[output].len());
            self.sums = p.graph.gradients.iter().map(zeros).collect::<Result<_>>()?;
        }
        for (sum, &(_, output)) in self.sums.iter_mut().zip(&p.graph.gradients) {
            sum.iter_mut().zip(&p.runner.outputs[output][..]).for_each(|(s, g)| *s += g);
        }
        self.summed = self.gathered;
        Ok(())
    }

    /// The error of a loss that is not finite, with the name of the first tensor that is not.
    fn went_bad(&mut self, at: usize, input: &[f32], target: &[f32], loss: f32) -> Error {
        let bad = |values: &[f32]| values.iter().any(|v| !v.is_finite());
        let seed = self.seed();
        let named = self.model.state().find(|(_, t)| bad(t.as_slice())).map(|(name, _)| format!("parameter `{name}`"));
        let first = if bad(input) { Some("the input".to_string()) } else { named };
        let p = &mut self.programs[at];
        let words = words(&p.graph, [input, target], &seed, self.model.values());
        let first = first.or_else(|| {
            let (layer, what) = p.runner.first_not_finite(&words)?;
            Some(if layer.is_empty() {
                format!("the result of {what}")
            } else {
                format!("the result of {what} in layer `{layer}`")
            })
        });
        let step = self.steps;
        Error::NotFinite { loss, step, first: first.unwrap_or_else(|| "the loss".into()) }
    }

    /// The seed of the next step's random numbers, in parts of 16 bits.
    fn seed(&self) -> [f32; 4] {
        let bits = Random::new(&[self.options.seed, self.steps, self.gathered as u64]).bits();
        core::array::from_fn(|i| (bits >> (48 - 16 * i) & 0xffff) as f32)
    }

    /// Number of the program for an input of extents.
    fn program(&mut self, input: &[usize]) -> Result<usize> {
        if let Some(at) = self.programs.iter().position(|p| p.input == input) {
            return Ok(at);
        }
        let compiled = self.compile(input)?;
        self.programs.push(compiled);
        Ok(self.programs.len() - 1)
    }

    fn compile(&self, input: &[usize]) -> Result<Compiled> {
        let graph = self.model.graph().extend(&["target"], &["loss"], |outputs, targets| {
            let ([output], [target]) = (outputs, targets) else {
                return Err(Error::NoOutput { asked: 1, outputs: outputs.len() });
            };
            Ok(vec![output.scope("loss", |output| self.loss.record(output, target))?])
        })?;
        let output = self.model.output_dims(input)?;
        let target = self.loss.target_dims(&output);
        let elements = target.iter().product();
        let trained = |name: &str| {
            let at = self.model.graph().parameters.iter().position(|p| p.name == name);
            at.is_some_and(|at| self.ids[at].is_some())
        };
        let frozen = |layer: &str| {
            self.options.frozen_layers.iter().any(|pattern| Select::Name(pattern.clone()).fits(layer, &[]))
        };
        let facts = [Fact::f32(input), Fact::f32(target)];
        let wanted =
            Wanted { loss: LOSS, trained: &trained, frozen: &frozen, inputs: &[], recompute: self.options.recompute };
        let graph = graph.differentiate(&facts, &wanted)?;
        let options = &self.options.session;
        let runner = Runner::compile(graph.graph.clone(), &Vec::new(), &graph.inputs, options, &Default::default())?;
        Ok(Compiled { input: input.to_vec(), output, target: elements, graph, runner })
    }

    /// The output for the last batch, before the update: what an accuracy of training is counted from.
    pub fn last_output(&self) -> Option<&[f32]> {
        Some(&self.programs.get(self.last)?.runner.outputs[OUTPUT])
    }

    /// What each step of the graph does in one pass over a batch, and how long it takes. The weights stay.
    ///
    /// # Errors
    /// As [`Trainer::backward`].
    pub fn profile(&mut self, dims: &[usize], input: &[f32], target: &[f32]) -> Result<Vec<StepProfile>> {
        let at = self.prepare(dims, input, target)?;
        let seed = self.seed();
        let p = &mut self.programs[at];
        let words = words(&p.graph, [input, target], &seed, self.model.values());
        p.runner.restore()?;
        Ok(p.runner.profile(&words))
    }

    /// The run at rest: weights, optimizer, schedule, averages, and the progress that the caller knows; `step` and `algorithms`
    /// are filled in.
    ///
    /// # Errors
    /// If memory does not suffice.
    pub fn checkpoint(&self, progress: Progress, schedule: &dyn Schedule) -> Result<Checkpoint> {
        let algorithms = self.algorithms.names();
        let mut c = Checkpoint::new(Progress { step: self.steps, algorithms, ..progress });
        c.put_optimization(&self.optimization)?;
        c.put_schedule(schedule);
        for (i, (name, tensor)) in self.model.state().enumerate() {
            c.put_weight(name, tensor)?;
            if let Some(average) = &self.average {
                c.put_average(name, tensor.dims(), average, i)?;
            }
        }
        Ok(c)
    }

    /// Goes on from a run at rest, of the same model and options, with the algorithms that it had.
    ///
    /// # Errors
    /// If it is another's. An algorithm that this machine does not have is an error of the next step.
    pub fn restore(&mut self, checkpoint: &Checkpoint, schedule: &mut dyn Schedule) -> Result<()> {
        let names: Vec<String> = self.model.state().map(|(name, _)| name.into()).collect();
        for name in &names {
            checkpoint.weight(name)?;
        }
        checkpoint.restore_schedule(schedule)?;
        checkpoint.restore_optimization(&mut self.optimization)?;
        for (i, name) in names.iter().enumerate() {
            self.model.set_parameter(name, checkpoint.weight(name)?)?;
            if let Some(average) = &mut self.average {
                checkpoint.restore_average(name, average, i)?;
            }
        }
        self.algorithms.replace(checkpoint.progress().algorithms.clone());
        self.programs.clear();
        self.steps = checkpoint.progress().step;
        (self.gathered, self.summed) = (0, 0);
        self.sums.iter_mut().for_each(|s| s.fill(0.0));
        Ok(())
    }
}
