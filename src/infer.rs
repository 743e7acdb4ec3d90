//! Inference: a graph compiled for one input shape.
//!
//! Compiling infers all shapes, fuses bias, residual and activation into convolutions (`fuse`), gives every activation a
//! layout and turns operators into steps with packed weights (`lower`), and shares memory between activations that are
//! not alive together (`memory`). What is left to a run is to run the steps.

use core::{fmt, mem};
use std::sync::Arc;
use std::time::Duration;

use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;

use crate::algo::Accuracy;
use crate::buffer::Buffer;
use crate::conv::Scratch;
use crate::error::{Error, Result, check_len};
use crate::graph::forward::Operands;
use crate::graph::{Graph, Parameters};
use crate::par::Team;
use crate::tensor::Tensor;
use crate::tune::Tuning;

mod explain;
mod fuse;
mod lower;
mod memory;

use lower::{BufferId, Lowered, Step, lower};
use memory::{Memory, Place};

/// How a session is compiled. `SessionOptions::default()` takes and gives NCHW, on the machine's level.
#[derive(Clone, Debug, Default)]
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

/// Steps, weights and memory plan; shared by the clones of a session.
struct Program {
    steps: Vec<Step>,
    memory: Memory,
    /// Floats in each buffer.
    lens: Vec<usize>,
    /// The buffer of the output.
    output: BufferId,
    dims: Vec<usize>,
    layout: Layout,
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
    program: Arc<Program>,
    slots: Vec<Buffer>,
    output: Tensor,
    scratch: Scratch,
    team: Team,
}

impl Session {
    pub(crate) fn compile(
        graph: &Graph,
        parameters: &Parameters,
        input: &[usize],
        options: &SessionOptions,
    ) -> Result<Self> {
        let team = Team::new(options.threads, options.spin)?;
        // Among the threads that will run it, whose number tuning tables are keyed by.
        let mut lowered = team.run(|| lower(graph, parameters, input, options))?;
        let memory = memory::plan(&mut lowered);
        let Lowered { steps, lens, output: buffer, output_dims, output_layout } = lowered;
        let output = Tensor::zeros_in(output_dims, output_layout)?;
        let program = Program { steps, memory, lens, output: buffer, dims: input.to_vec(), layout: options.input };
        Self::with_own_memory(Arc::new(program), output, team)
    }

    /// All memory that runs take, so that they find none missing.
    fn with_own_memory(program: Arc<Program>, output: Tensor, team: Team) -> Result<Self> {
        let slots = program.memory.slots.iter().map(|&len| Buffer::zeros(len)).collect::<Result<_>>()?;
        let mut scratch = Scratch::default();
        scratch.reserve(program.steps.iter().map(|s| s.scratch).max().unwrap_or(0))?;
        Ok(Self { program, slots, output, scratch, team })
    }

    /// A session with the same weights and activations of its own.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn try_clone(&self) -> Result<Self> {
        Self::with_own_memory(self.program.clone(), self.output.try_clone()?, self.team.clone())
    }

    /// Extents of the input.
    pub fn input_dims(&self) -> &[usize] {
        &self.program.dims
    }

    /// Extents of the output.
    pub fn output_dims(&self) -> &[usize] {
        self.output.dims()
    }

    /// Runs the model. The output is the session's, and is overwritten by the next run.
    ///
    /// # Errors
    /// If the input's shape, layout or length is not the one that the session was compiled for. A run that panicked takes
    /// memory with it, which the next one asks for again, and may get [`Error::Memory`].
    pub fn run<I: Input + ?Sized>(&mut self, input: &I) -> Result<&Tensor> {
        let program = &*self.program;
        if let Some((dims, layout)) = input.form() {
            if dims != program.dims {
                let (left, right) = (dims.to_vec(), program.dims.clone());
                return Err(Error::Shapes { what: "the input, and what the session was compiled for", left, right });
            }
            if layout != program.layout {
                let rule = format!("the session was compiled for {}", program.layout.name());
                return Err(Error::Setting { what: "the input's layout", value: layout.name().into(), rule });
            }
        }
        // Asked once: an input of the caller's own may answer otherwise the second time.
        let x = input.floats();
        check_len("the input", x.len(), program.lens[0])?;
        program.restore(&mut self.slots, &mut self.output.data)?;
        // One region around all steps: threads are called here, once.
        let (slots, y, scratch) = (&mut self.slots, &mut self.output.data, &mut self.scratch);
        self.team.run(|| program.execute(x, slots, y, scratch));
        Ok(&self.output)
    }

    /// The steps of a run with layouts and algorithms, and the memory of the activations, as text.
    pub fn explain(&self) -> String {
        explain::explain(&self.program)
    }
}

impl Program {
    /// Buffers that a run took out and did not put back, since a step panicked, are made anew.
    fn restore(&self, slots: &mut [Buffer], output: &mut Buffer) -> Result<()> {
        let lens = self.memory.slots.iter().copied().chain([self.lens[self.output]]);
        for (buffer, len) in slots.iter_mut().chain([output]).zip(lens) {
            if buffer.len() != len {
                *buffer = Buffer::zeros(len)?;
            }
        }
        Ok(())
    }

    fn execute(&self, input: &[f32], slots: &mut [Buffer], output: &mut Buffer, scratch: &mut Scratch) {
        for (step, &in_place) in self.steps.iter().zip(&self.memory.in_place) {
            let place = self.memory.places[step.output];
            // Taken out while it is written, so that the others can be read; an empty buffer takes its place.
            let mut y = match place {
                Place::Slot(s) => mem::take(&mut slots[s]),
                Place::Output | Place::Input => mem::take(output),
            };
            let floats = &mut y[..self.lens[step.output]];
            if cfg!(debug_assertions) && !in_place {
                // Whatever a step leaves unwritten shows.
                floats.fill(f32::NAN);
            }
            let operand = |i: usize| {
                let buffer = step.inputs[i];
                match self.memory.places[buffer] {
                    Place::Input => input,
                    Place::Slot(s) => &slots[s][..self.lens[buffer]],
                    Place::Output => &output[..],
                }
            };
            step.forward.run(&Operands(&operand), floats, in_place, scratch);
            match place {
                Place::Slot(s) => slots[s] = y,
                Place::Output | Place::Input => *output = y,
            }
        }
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
        write!(f, "Session of {} steps, {:?} to {:?}", self.program.steps.len(), self.input_dims(), self.output_dims())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::graph::AddInto;
    use crate::graph::forward::Forward;
    use crate::nn::{Conv2d, Module, ReLU, Sequential, Sigmoid};

    /// A step that panics until it has done so once.
    struct Panics(Box<dyn Forward>, AtomicUsize);

    impl Forward for Panics {
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

    #[test]
    fn a_session_whose_run_panicked_stays_usable() {
        let conv = || Conv2d::new(16, 16, 3).padding(1);
        let model = Sequential::new((conv(), ReLU, conv(), Sigmoid, conv(), ReLU)).build(1).unwrap();
        let x = [0.5; 16 * 6 * 6];
        let expected = model.compile([1, 16, 6, 6]).unwrap().run(&x).unwrap().clone();
        let steps = model.compile([1, 16, 6, 6]).unwrap().program.steps.len();
        for broken in 0..steps {
            for threads in [Some(1), Some(2), None] {
                let options = SessionOptions { threads, ..SessionOptions::default() };
                let mut session = model.compile_with([1, 16, 6, 6], &options).unwrap();
                let program = Arc::get_mut(&mut session.program).unwrap();
                let forward = mem::replace(&mut program.steps[broken].forward, Box::new(AddInto));
                program.steps[broken].forward = Box::new(Panics(forward, AtomicUsize::new(0)));
                let panicked = catch_unwind(AssertUnwindSafe(|| session.run(&x).map(|_| ())));
                assert!(panicked.is_err(), "step {broken}");
                assert_eq!(*session.run(&x).unwrap(), expected, "step {broken}");
                assert_eq!(*session.clone().run(&x).unwrap(), expected, "step {broken}");
            }
        }
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
