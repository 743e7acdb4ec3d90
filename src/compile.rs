//! The compiler: a graph, compiled for the shapes of its inputs, that runs.
//!
//! Compiling infers all shapes, fuses bias, residual and activation into convolutions (`fuse`), gives every activation a
//! layout and turns operators into steps with packed weights (`graph/lower.rs`, driven by `lower`), and shares memory between activations that are
//! not alive together (`memory`). What is left to a run is to run the steps.

use core::fmt;
use std::time::Duration;

use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::setters;

use crate::algo::Accuracy;
use crate::buffer::Buffer;
use crate::error::{Error, Result, check_len};
use crate::graph::packed::ReadyWeights;
use crate::graph::{ElementType, Fact, Graph, Parameters};
use crate::tensor::Tensor;
use crate::tune::Tuning;

mod explain;
mod fuse;
mod lower;
mod memory;
mod profile;
pub(crate) mod runner;

use lower::Output;
pub use profile::StepProfile;
use runner::Runner;

/// How a session is compiled. `SessionOptions::default()` takes and gives NCHW, on the machine's level.
///
/// More options may come: build on the default, by methods or by `..SessionOptions::default()`.
///
/// ```
/// use swath::{Layout, SessionOptions, Tensor, nn::*};
/// let model = Sequential::new((Conv2d::new(3, 8, 3).padding(1), ReLU)).build(1)?;
/// let options = SessionOptions::default().layouts(Layout::Nhwc, Layout::Nchw).threads(1);
/// let mut session = model.compile_with([1, 3, 4, 4], &options)?;
/// let picture = Tensor::new([1, 3, 4, 4], &[0.5; 48])?.to_layout(Layout::Nhwc)?;
/// assert_eq!(session.run(&picture)?.dims(), [1, 8, 4, 4]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct SessionOptions {
    /// Layout of images that [`Session::run`] takes.
    pub input: Layout,
    /// Layout of the output, if it has four extents.
    pub output: Layout,
    /// Level to take kernels from; `None` is the machine's, lowered by `SWATH_LEVEL`.
    pub level: Option<Level>,
    /// How much rounding error convolutions may have; [`Accuracy::Exact`] forbids Winograd and bf16x6.
    pub accuracy: Accuracy,
    /// Threads of a run. `Some(1)` is the calling thread alone; `Some(n)` adds `n - 1` that the session keeps for itself and
    /// that its clones share. `None` takes those of the rayon pool that [`Session::run`] is called from, and outside of one
    /// as many of the process's own.
    ///
    /// With `None`, inside a rayon pool, a thread that waits takes up other work of that pool: a parallel loop whose
    /// iterations lock a session, or borrow it from a `RefCell`, can meet its own lock on the same stack, and hang or panic.
    /// With a number it cannot ([`par`](crate::par)).
    ///
    /// Every algorithm gives the same bits for any number; a tuning table may name others for another number, which
    /// [`Tuning::Off`] forbids.
    pub threads: Option<usize>,
    /// For how long a thread without work stays awake before it sleeps, between steps and behind a run: zero saves power
    /// and leaves the core to others, but waking a thread takes 50 to 200 microseconds a step. `None` is 200 microseconds.
    /// A rayon pool's threads follow rayon's rules.
    pub spin: Option<Duration>,
    /// Measurements to choose convolution algorithms by.
    pub tuning: Tuning,
}

impl SessionOptions {
    /// With images of these layouts, taken and given.
    pub fn layouts(self, input: Layout, output: Layout) -> Self {
        Self { input, output, ..self }
    }
}

setters!(SessionOptions {
    /// With kernels of this level, at most the machine's.
    level: Level,
    /// With this much rounding error.
    accuracy: Accuracy,
    /// On so many threads of its own.
    threads: usize,
    /// With threads that stay awake for so long without work.
    spin: Duration,
    /// With these measurements to choose by.
    tuning: Tuning,
});

/// What a run takes: a [`Tensor`], whose shape and layout are checked, or plain floats, whose number is.
pub trait Input {
    /// The floats.
    fn floats(&self) -> &[f32];

    /// Extents and layout, where known.
    fn form(&self) -> Option<(&[usize], Layout)> {
        None
    }
}

impl Input for Tensor {
    fn floats(&self) -> &[f32] {
        self.as_slice()
    }

    fn form(&self) -> Option<(&[usize], Layout)> {
        Some((self.dims(), self.layout()))
    }
}

impl Input for [f32] {
    fn floats(&self) -> &[f32] {
        self
    }
}

impl<const N: usize> Input for [f32; N] {
    fn floats(&self) -> &[f32] {
        self
    }
}

impl Input for Vec<f32> {
    fn floats(&self) -> &[f32] {
        self
    }
}

/// A model compiled for one input shape. Owns the memory of its activations, so runs do not allocate once the scratch
/// memory has grown.
///
/// A clone shares the packed weights and has activations of its own: one clone per thread serves requests in parallel.
///
/// ```
/// use swath::{Tensor, nn::*};
/// let model = Sequential::new((Conv2d::new(3, 8, 3), ReLU, AdaptiveAvgPool2d::new(1), Flatten)).build(0)?;
/// let mut session = model.compile([2, 3, 9, 9])?;
/// let x = Tensor::zeros([2, 3, 9, 9])?;
/// assert_eq!(session.run(&x)?.dims(), [2, 8]);
/// assert_eq!(session.run(x.as_slice())?.dims(), [2, 8]);
/// let e = session.run(&[0.0; 5]).unwrap_err();
/// assert_eq!(e.to_string(), "the input has 5 elements, but 486 are needed");
/// println!("{}", session.explain());
/// # Ok::<(), swath::Error>(())
/// ```
pub struct Session {
    runner: Runner,
    /// The outputs of floats as tensors, whose data is taken from the runner after a run.
    outputs: Vec<Option<Tensor>>,
}

impl Session {
    pub(crate) fn compile(
        graph: Graph,
        parameters: &Parameters,
        inputs: &[Fact],
        options: &SessionOptions,
        ready: &ReadyWeights,
    ) -> Result<Self> {
        Self::with(Runner::compile(graph, parameters, inputs, options, ready)?)
    }

    fn with(runner: Runner) -> Result<Self> {
        let tensor = |o: &Output| match o.fact.element {
            ElementType::F32 => Tensor::zeros_in(&o.fact.dims, o.layout).map(Some),
            _ => Ok(None),
        };
        let outputs: Vec<Option<Tensor>> = runner.program.outputs.iter().map(tensor).collect::<Result<_>>()?;
        let mut runner = runner;
        let owned = outputs.iter().zip(&mut runner.outputs).filter(|(tensor, _)| tensor.is_some());
        owned.for_each(|(_, buffer)| *buffer = Buffer::default());
        Ok(Self { runner, outputs })
    }

    /// A session with the same weights and activations of its own.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn try_clone(&self) -> Result<Self> {
        let mut clone = Self::with(self.runner.fork()?)?;
        for (to, from) in clone.outputs.iter_mut().zip(&self.outputs) {
            if let (Some(to), Some(from)) = (to, from) {
                to.data.copy_from_slice(from.as_slice());
            }
        }
        Ok(clone)
    }

    /// Extents of the first input.
    pub fn input_dims(&self) -> &[usize] {
        &self.runner.program.inputs[0].dims
    }

    /// Facts of all inputs, in the order of the graph's.
    pub fn inputs(&self) -> &[Fact] {
        &self.runner.program.inputs
    }

    /// Extents of the first output.
    pub fn output_dims(&self) -> &[usize] {
        &self.runner.program.outputs[0].fact.dims
    }

    /// Names and facts of all outputs.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = (&str, &Fact)> {
        self.runner.program.outputs.iter().map(|o| (o.name.as_str(), &o.fact))
    }

    /// Runs the model on its only input. The output is the session's, and is overwritten by the next run.
    ///
    /// # Errors
    /// If the model has several inputs, or the input's shape, layout or length is not the one that the session was compiled for. A run that
    /// panicked takes memory with it, which the next one asks for again, and may get [`Error::Memory`].
    pub fn run<I: Input + ?Sized>(&mut self, input: &I) -> Result<&Tensor> {
        self.check(0, input.form())?;
        if self.runner.program.inputs.len() != 1 {
            return Err(Error::Inputs { takes: self.runner.program.inputs.len(), gets: 1 });
        }
        // Asked once: an input of the caller's own may answer otherwise the second time.
        let floats = input.floats();
        check_len("the input", floats.len(), self.runner.input_len(0))?;
        self.execute(&|_| floats)?;
        self.output(0)
    }

    /// Runs the model on several inputs, in the order of the graph's; [`Session::output`] gives the results.
    ///
    /// ```
    /// use swath::graph::{Fact, Graph};
    /// use swath::Model;
    /// let graph = Graph::record_many(&["a", "b"], &["sum", "product"], |x| Ok(vec![&x[0] + &x[1], &x[0] * &x[1]]))?;
    /// let model = Model::new(graph, 0)?;
    /// let mut session = model.compile_for(&[Fact::f32([2]), Fact::f32([2])], &Default::default())?;
    /// session.run_many(&[&[1.0, 2.0], &[3.0, 4.0]])?;
    /// assert_eq!(session.output(0)?.as_slice(), [4.0, 6.0]);
    /// assert_eq!(session.output(1)?.as_slice(), [3.0, 8.0]);
    /// # Ok::<(), swath::Error>(())
    /// ```
    ///
    /// # Errors
    /// For another number of inputs, or a length that is not the one that the session was compiled for. Elements that are no floats lie in
    /// words of four bytes.
    pub fn run_many(&mut self, inputs: &[&[f32]]) -> Result<()> {
        self.check_inputs(inputs)?;
        self.execute(&|i| inputs[i])
    }

    /// As [`Session::run_many`], with results in the caller's memory, which holds anything before: nothing is copied. The session's own
    /// outputs stay those of the last run without it.
    ///
    /// ```
    /// use swath::nn::*;
    /// let mut session = Sequential::new((ReLU,)).build(0)?.compile([1, 4])?;
    /// let mut y = [f32::NAN; 4];
    /// session.run_into(&[&[1.0, -2.0, 3.0, -4.0]], &mut [&mut y])?;
    /// assert_eq!(y, [1.0, 0.0, 3.0, 0.0]);
    /// # Ok::<(), swath::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Session::run_many`], and for another number of outputs, and outputs of other lengths. Elements that are no floats lie in words
    /// of four bytes.
    pub fn run_into(&mut self, inputs: &[&[f32]], outputs: &mut [&mut [f32]]) -> Result<()> {
        self.check_inputs(inputs)?;
        let (asked, have) = (outputs.len(), self.outputs.len());
        if asked != have {
            let rule = format!("the model has {have}");
            return Err(Error::Setting { what: "the number of outputs", value: asked.to_string(), rule });
        }
        for (i, output) in outputs.iter().enumerate() {
            check_len("the output", output.len(), self.runner.output_len(i))?;
        }
        self.runner.run_into(&|i| inputs[i], outputs);
        Ok(())
    }

    fn check_inputs(&self, inputs: &[&[f32]]) -> Result<()> {
        let takes = self.runner.program.inputs.len();
        if inputs.len() != takes {
            return Err(Error::Inputs { takes, gets: inputs.len() });
        }
        for (i, input) in inputs.iter().enumerate() {
            check_len("the input", input.len(), self.runner.input_len(i))?;
        }
        Ok(())
    }

    /// As [`Session::run_many`], without a list: `input(i)` is input `i`.
    #[cfg(feature = "onnx")]
    pub(crate) fn run_each<'i>(&mut self, input: &(dyn Fn(usize) -> &'i [f32] + Sync)) -> Result<()> {
        for i in 0..self.inputs().len() {
            check_len("the input", input(i).len(), self.runner.input_len(i))?;
        }
        self.execute(input)
    }

    fn execute<'i>(&mut self, input: &(dyn Fn(usize) -> &'i [f32] + Sync)) -> Result<()> {
        self.exchange();
        self.runner.restore()?;
        self.runner.run(input);
        self.exchange();
        Ok(())
    }

    /// Lends the tensors' data to the runner, or takes it back.
    fn exchange(&mut self) {
        for (tensor, buffer) in self.outputs.iter_mut().zip(&mut self.runner.outputs) {
            if let Some(tensor) = tensor {
                core::mem::swap(&mut tensor.data, buffer);
            }
        }
    }

    /// Output `i` of the last run, if it is of floats.
    ///
    /// # Errors
    /// If there is no such output, or its elements are no floats.
    pub fn output(&self, i: usize) -> Result<&Tensor> {
        match self.outputs.get(i) {
            Some(Some(tensor)) => Ok(tensor),
            Some(None) => {
                let value = self.runner.program.outputs[i].fact.element.to_string();
                Err(Error::Setting { what: "the output's elements", value, rule: "a tensor has f32".into() })
            }
            None => Err(Error::NoOutput { asked: i, outputs: self.outputs.len() }),
        }
    }

    /// Words of four bytes that output `i` of the last run lies in, whatever its elements.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn words(&self, i: usize) -> &[f32] {
        match &self.outputs[i] {
            Some(tensor) => tensor.as_slice(),
            None => &self.runner.outputs[i],
        }
    }

    /// Runs once, and tells what each step did and how long it took.
    ///
    /// # Errors
    /// As [`Session::run_many`].
    pub fn profile(&mut self, inputs: &[&[f32]]) -> Result<Vec<StepProfile>> {
        self.run_many(inputs)?; // checks the inputs, and warms up
        self.exchange();
        let steps = self.runner.profile(&|i| inputs[i]);
        self.exchange();
        Ok(steps)
    }

    /// Bytes of activations and outputs, of packed weights and constants, and of scratch of a thread. Sessions of one model share their
    /// packed weights; each counts them.
    pub fn memory(&self) -> [usize; 3] {
        self.runner.bytes()
    }

    /// Bytes of packed weights, which other sessions may share.
    #[cfg(feature = "onnx")]
    pub(crate) fn packed_bytes(&self) -> usize {
        self.runner.packed_bytes()
    }

    fn check(&self, i: usize, form: Option<(&[usize], Layout)>) -> Result<()> {
        let program = &self.runner.program;
        let Some((dims, layout)) = form else { return Ok(()) };
        let expected = &program.inputs[i].dims;
        if dims != expected {
            let (left, right) = (dims.to_vec(), expected.clone());
            return Err(Error::Shapes { what: "the input, and what the session was compiled for", left, right });
        }
        if layout != program.layout {
            let rule = format!("the session was compiled for {}", program.layout.name());
            return Err(Error::Setting { what: "the input's layout", value: layout.name().into(), rule });
        }
        Ok(())
    }

    /// The steps of a run with layouts and algorithms, and the memory of the activations, as text.
    pub fn explain(&self) -> String {
        explain::explain(&self.runner.program)
    }
}

/// # Panics
/// If there is no memory for the activations: [`Session::try_clone`] says so instead.
impl Clone for Session {
    fn clone(&self) -> Self {
        self.try_clone().unwrap_or_else(|e| panic!("{e}"))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.runner.program.steps.len();
        write!(f, "Session of {steps} steps, {:?} to {:?}", self.input_dims(), self.output_dims())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::conv::Scratch;
    use crate::graph::ops::{Binary, Conv};
    use crate::graph::{Builder, Operands, Step, Value};
    use crate::nn::{Conv2d, Flatten, Module, ReLU, Sequential, Sigmoid};

    /// A step that panics until it has done so once.
    struct Panics(Box<dyn Step>, AtomicUsize);

    impl Step for Panics {
        fn run(&self, x: &Operands<'_>, y: &mut [f32], in_place: bool, scratch: &mut Scratch) {
            assert!(self.1.fetch_add(1, Ordering::Relaxed) > 0, "the first run panics");
            self.0.run(x, y, in_place, scratch);
        }

        fn describe(&self) -> String {
            self.0.describe()
        }

        fn in_place(&self) -> bool {
            self.0.in_place()
        }
    }

    struct Nothing;

    impl Step for Nothing {
        fn describe(&self) -> String {
            "nothing".into()
        }
    }

    #[test]
    fn a_session_whose_run_panicked_stays_usable() {
        let conv = || Conv2d::new(16, 16, 3).padding(1);
        let model = Sequential::new((conv(), ReLU, conv(), Sigmoid, conv(), ReLU)).build(1).unwrap();
        let x = [0.5; 16 * 6 * 6];
        let expected = model.compile([1, 16, 6, 6]).unwrap().run(&x).unwrap().clone();
        let steps = model.compile([1, 16, 6, 6]).unwrap().runner.program.steps.len();
        for broken in 0..steps {
            for threads in [Some(1), Some(2), None] {
                let options = SessionOptions { threads, ..SessionOptions::default() };
                let mut session = model.compile_with([1, 16, 6, 6], &options).unwrap();
                let program = Arc::get_mut(&mut session.runner.program).unwrap();
                let planned = &mut program.steps[broken];
                let nothing: Box<dyn Step> = Box::new(Nothing);
                let step = core::mem::replace(&mut planned.step, nothing);
                planned.step = Box::new(Panics(step, AtomicUsize::new(0)));
                let panicked = catch_unwind(AssertUnwindSafe(|| session.run(&x).map(|_| ())));
                assert!(panicked.is_err(), "step {broken}");
                assert_eq!(*session.run(&x).unwrap(), expected, "step {broken}");
                assert_eq!(*session.clone().run(&x).unwrap(), expected, "step {broken}");
            }
        }
    }

    #[test]
    fn constants_behind_flatten_are_there_when_they_are_asked_for() {
        let flat = |x: &Value| -> Result<Value> {
            let constant = x.constant(Tensor::new([1, 2, 1, 1], &[3.0, 4.0])?);
            Ok(Flatten.call(x)? + Flatten.call(&constant)?)
        };
        let mut session = flat.build(0).unwrap().compile([1, 2, 1, 1]).unwrap();
        assert_eq!(session.run(&[1.0, 2.0]).unwrap().as_slice(), [4.0, 6.0]);
    }

    #[test]
    fn a_constant_lives_until_its_last_operator_is_lowered_but_what_is_a_result_stays() {
        let [c, h, w] = [16, 6, 6];
        let conv = Conv { weights: [c, c, 3, 3], stride: [1; 2], dilation: [1; 2], pad: 1.into(), groups: 1 };
        let graph = |weights: Arc<Tensor>, beside: Arc<Tensor>| {
            let mut b = Builder::new();
            let x = b.input("x", Some(Fact::f32([1, c, h, w])));
            let [weights, beside] = [weights, beside].map(|t| b.constant(t));
            let between = b.push(conv, &[x, weights])?[0];
            let y = b.push(conv, &[between, weights])?[0];
            // Added behind the convolution that absorbs it, and a result by itself.
            let y = b.push(Binary::add(), &[y, beside])?[0];
            b.finish(&[("y", y), ("beside", beside)])
        };
        let weights: Vec<f32> = (0..c * c * 9).map(|i| (i * 37 % 101) as f32 / 400.0 - 0.1).collect();
        let weights = Arc::new(Tensor::new([c, c, 3, 3], &weights).unwrap());
        let beside = Arc::new(Tensor::new([1, c, h, w], &vec![2.0; c * h * w]).unwrap());
        let (facts, options) = ([Fact::f32([1, c, h, w])], SessionOptions::default());
        let compile = |graph: Graph| {
            Session::compile(graph, &Parameters::new(), &facts, &options, &ReadyWeights::default()).unwrap()
        };
        let x = vec![0.5; c * h * w];
        let run = |session: &mut Session| {
            session.run(&x).unwrap();
            session.outputs.iter().flatten().map(|t| t.as_slice().to_vec()).collect::<Vec<_>>()
        };
        // A graph that somebody keeps is not changed.
        let kept = graph(weights.clone(), beside.clone()).unwrap();
        let expected = run(&mut compile(kept.clone()));
        assert_eq!(run(&mut compile(kept)), expected);
        assert_eq!(expected[1], beside.as_slice());
        let seen = Arc::downgrade(&weights);
        let mut session = compile(graph(weights, beside).unwrap());
        assert!(seen.upgrade().is_none(), "the weights are packed, and nobody has them as they were");
        assert_eq!(run(&mut session), expected);
    }

    /// Gives the right number of floats when it is asked first, and fewer afterwards.
    struct Fickle(Vec<f32>, AtomicUsize);

    impl Input for Fickle {
        fn floats(&self) -> &[f32] {
            let asked = self.1.fetch_add(1, Ordering::Relaxed);
            &self.0[..self.0.len() - asked]
        }
    }

    #[test]
    fn an_input_is_asked_for_its_floats_once() {
        let mut session = Conv2d::new(1, 1, 3).build(0).unwrap().compile([1, 1, 5, 5]).unwrap();
        let input = Fickle(vec![1.0; 25], AtomicUsize::new(0));
        session.run(&input).unwrap();
        assert_eq!(input.1.load(Ordering::Relaxed), 1);
        let e = session.run(&input).unwrap_err();
        assert_eq!(e.to_string(), "the input has 24 elements, but 25 are needed");
    }
}
