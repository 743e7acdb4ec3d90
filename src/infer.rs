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

use lower::{Lowered, Step, lower};
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
        let Lowered { steps, lens, output_dims, output_layout, .. } = lowered;
        let output = Tensor::zeros_in(output_dims, output_layout)?;
        let program = Program { steps, memory, lens, dims: input.to_vec(), layout: options.input };
        Ok(Self::with_own_memory(Arc::new(program), output, team))
    }

    fn with_own_memory(program: Arc<Program>, output: Tensor, team: Team) -> Self {
        let slots = program.memory.slots.iter().map(|&len| Buffer::zeros(len)).collect();
        Self { program, slots, output, scratch: Scratch::default(), team }
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
    /// If the input's shape, layout or length is not the one that the session was compiled for.
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
        check_len("the input", input.floats().len(), program.lens[0])?;
        // One region around all steps: threads are called here, once.
        let (x, slots, y, scratch) = (input.floats(), &mut self.slots, &mut self.output.data, &mut self.scratch);
        self.team.run(|| program.execute(x, slots, y, scratch));
        Ok(&self.output)
    }

    /// The steps of a run with layouts and algorithms, and the memory of the activations, as text.
    pub fn explain(&self) -> String {
        explain::explain(&self.program)
    }
}

impl Program {
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

impl Clone for Session {
    fn clone(&self) -> Self {
        Self::with_own_memory(self.program.clone(), self.output.clone(), self.team.clone())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session of {} steps, {:?} to {:?}", self.program.steps.len(), self.input_dims(), self.output_dims())
    }
}
