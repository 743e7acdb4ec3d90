//! What runs a compiled graph: steps, weights and memory plan, with memory of its own.

use core::mem;
use core::ops::DerefMut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use swath_kernels::layout::Layout;

use super::SessionOptions;
use super::lower::{Lowered, Output, lower};
use super::memory::{self, Memory, Place};
use crate::buffer::Buffer;
use crate::conv::Scratch;
use crate::error::Result;
use crate::graph::lower::{Origin, Planned};
use crate::graph::{Fact, Graph, Operands, Parameters};
use crate::par::Team;
use crate::tensor::Tensor;

/// Most results of a step.
const MAX_RESULTS: usize = 8;

/// Steps, weights and memory plan; shared by the clones of a session.
pub(crate) struct Program {
    pub(crate) steps: Vec<Planned>,
    pub(super) memory: Memory,
    /// Words of four bytes in each buffer.
    pub(super) lens: Vec<usize>,
    pub(super) constants: Vec<Tensor>,
    pub(crate) inputs: Vec<Fact>,
    pub(crate) layout: Layout,
    pub(crate) outputs: Vec<Output>,
}

/// A program with the memory of its activations.
pub(crate) struct Runner {
    pub(crate) program: Arc<Program>,
    slots: Vec<Buffer>,
    /// Words of each output.
    pub(crate) outputs: Vec<Buffer>,
    scratch: Scratch,
    team: Team,
}

impl Runner {
    pub(crate) fn compile(
        graph: &Graph,
        parameters: &Parameters,
        inputs: &[Fact],
        options: &SessionOptions,
    ) -> Result<Self> {
        let team = Team::new(options.threads, options.spin)?;
        // Among the threads that will run it, whose number tuning tables are keyed by.
        let mut lowered = team.run(|| lower(graph, parameters, inputs, options))?;
        let memory = memory::plan(&mut lowered);
        let Lowered { steps, buffers, inputs, outputs } = lowered;
        let lens = buffers.iter().map(|(len, _)| *len).collect();
        let constant = |(_, origin)| match origin {
            Origin::Constant(t) => Some(t),
            _ => None,
        };
        let constants = buffers.into_iter().filter_map(constant).collect();
        let program = Program { steps, memory, lens, constants, inputs, layout: options.input, outputs };
        Self::with_own_memory(Arc::new(program), team)
    }

    fn with_own_memory(program: Arc<Program>, team: Team) -> Result<Self> {
        let slots = program.memory.slots.iter().map(|&len| Buffer::zeros(len)).collect::<Result<_>>()?;
        let outputs = program.outputs.iter().map(|o| Buffer::zeros(program.lens[o.buffer])).collect::<Result<_>>()?;
        let mut scratch = Scratch::default();
        scratch.reserve(program.steps.iter().map(|s| s.scratch).max().unwrap_or(0))?;
        Ok(Self { program, slots, outputs, scratch, team })
    }

    /// Buffers that a run took out and did not put back, since a step panicked, are made anew.
    pub(crate) fn restore(&mut self) -> Result<()> {
        let lens = self.program.outputs.iter().map(|o| self.program.lens[o.buffer]);
        restore(self.outputs.iter_mut().zip(lens))?;
        restore(self.slots.iter_mut().zip(self.program.memory.slots.iter().copied()))
    }

    /// The same program with memory of its own.
    pub(crate) fn fork(&self) -> Result<Self> {
        Self::with_own_memory(self.program.clone(), self.team.clone())
    }

    /// Words of input `i`.
    pub(crate) fn input_len(&self, i: usize) -> usize {
        let of = |p: &Place| *p == Place::Input(i);
        self.program.memory.places.iter().position(of).map_or(0, |b| self.program.lens[b])
    }

    /// Words of output `i`.
    pub(crate) fn output_len(&self, i: usize) -> usize {
        self.program.lens[self.program.outputs[i].buffer]
    }

    /// Runs all steps. `input` gives the words of each input, which are as many as [`Runner::input_len`] says.
    pub(crate) fn run<'i>(&mut self, input: &(dyn Fn(usize) -> &'i [f32] + Sync)) {
        let Self { program, slots, outputs, scratch, team } = self;
        // One region around all steps: threads are called here, once.
        team.run(|| program.execute(input, slots, outputs, scratch, &mut |_, _, _| ()));
    }

    /// Runs all steps; results go to `outputs`, whose words are as many as [`Runner::output_len`] says.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory), after a run that panicked.
    pub(crate) fn run_into<'i>(
        &mut self,
        input: &(dyn Fn(usize) -> &'i [f32] + Sync),
        outputs: &mut [&mut [f32]],
    ) -> Result<()> {
        restore(self.slots.iter_mut().zip(self.program.memory.slots.iter().copied()))?;
        let Self { program, slots, scratch, team, .. } = self;
        team.run(|| program.execute(input, slots, outputs, scratch, &mut |_, _, _| ()));
        Ok(())
    }

    /// Runs all steps, and says how long each took.
    pub(crate) fn profile<'i>(&mut self, input: &(dyn Fn(usize) -> &'i [f32] + Sync)) -> Vec<Duration> {
        let Self { program, slots, outputs, scratch, team } = self;
        let mut times = vec![Duration::ZERO; program.steps.len()];
        team.run(|| program.execute(input, slots, outputs, scratch, &mut |i, start, _| times[i] = start.elapsed()));
        times
    }

    /// Runs all steps, and names the first whose result is not finite: its layer, and what ran.
    pub(crate) fn first_not_finite<'i>(
        &mut self,
        input: &(dyn Fn(usize) -> &'i [f32] + Sync),
    ) -> Option<(String, String)> {
        let Self { program, slots, outputs, scratch, team } = self;
        let mut first = None;
        let mut look = |i: usize, _: Instant, results: &[&mut [f32]]| {
            if first.is_none() && results.iter().any(|r| r.iter().any(|v| !v.is_finite())) {
                first = Some(i);
            }
        };
        team.run(|| program.execute(input, slots, outputs, scratch, &mut look));
        first.map(|i| (program.steps[i].layer.clone(), program.steps[i].step.describe()))
    }

    /// Runs `f` with the threads that the steps have.
    pub(crate) fn on_team<R>(&self, f: impl FnOnce() -> R) -> R {
        self.team.run(f)
    }

    /// Bytes of activations and outputs, of packed weights and constants, and of scratch.
    pub(crate) fn bytes(&self) -> [usize; 3] {
        let p = &self.program;
        let outputs: usize = p.outputs.iter().map(|o| p.lens[o.buffer]).sum();
        let constants: usize = p.constants.iter().map(|t| size_of_val(t.as_slice())).sum();
        let steps: usize = p.steps.iter().map(|s| s.step.bytes()).sum();
        let scratch = p.steps.iter().map(|s| s.scratch).max().unwrap_or(0);
        let words = p.memory.slots.iter().sum::<usize>() + outputs;
        [words * size_of::<f32>(), constants + steps, scratch * size_of::<f32>()]
    }

    /// Layer and description of each step.
    pub(crate) fn steps(&self) -> impl ExactSizeIterator<Item = (&str, String)> {
        self.program.steps.iter().map(|s| (s.layer.as_str(), s.step.describe()))
    }
}

/// Makes buffers of other lengths anew.
fn restore<'a>(buffers: impl Iterator<Item = (&'a mut Buffer, usize)>) -> Result<()> {
    for (buffer, len) in buffers {
        if buffer.len() != len {
            *buffer = Buffer::zeros(len)?;
        }
    }
    Ok(())
}

/// Words that a step writes: taken out meanwhile, so that the others can be read. Those of outputs are a session's own, or the caller's.
enum Taken<B> {
    Nothing,
    Slot(Buffer),
    Output(B),
}

impl<B: DerefMut<Target = [f32]>> Taken<B> {
    fn words(&mut self) -> &mut [f32] {
        match self {
            Taken::Nothing => &mut [],
            Taken::Slot(buffer) => buffer,
            Taken::Output(words) => words,
        }
    }
}

/// Told after each step: its number, when it began, and its results.
type Observer<'a> = dyn FnMut(usize, Instant, &[&mut [f32]]) + 'a;

impl Program {
    fn execute<'i, B: DerefMut<Target = [f32]> + Default + Sync>(
        &self,
        input: &(dyn Fn(usize) -> &'i [f32] + Sync),
        slots: &mut [Buffer],
        outputs: &mut [B],
        scratch: &mut Scratch,
        observe: &mut Observer<'_>,
    ) {
        for (i, (step, &in_place)) in self.steps.iter().zip(&self.memory.in_place).enumerate() {
            let start = Instant::now();
            // Empty buffers take their places.
            let mut taken: [Taken<B>; MAX_RESULTS] = core::array::from_fn(|_| Taken::Nothing);
            for (buffer, taken) in step.outputs.iter().zip(&mut taken) {
                *taken = match self.memory.places[*buffer] {
                    Place::Slot(s) => Taken::Slot(mem::take(&mut slots[s])),
                    Place::Output(k) => Taken::Output(mem::take(&mut outputs[k])),
                    Place::Input(_) | Place::Constant(_) => unreachable!("steps write neither"),
                };
            }
            {
                let (slots, outputs) = (&*slots, &*outputs);
                let operand = |i: usize| {
                    let buffer = step.inputs[i];
                    let words: &[f32] = match self.memory.places[buffer] {
                        Place::Input(k) => input(k),
                        Place::Constant(k) => self.constants[k].as_slice(),
                        Place::Slot(s) => &slots[s],
                        Place::Output(k) => &outputs[k],
                    };
                    &words[..self.lens[buffer]]
                };
                let mut lens = [0; MAX_RESULTS];
                step.outputs.iter().zip(&mut lens).for_each(|(b, len)| *len = self.lens[*b]);
                let mut at = 0;
                let mut results = taken.each_mut().map(|taken| {
                    at += 1;
                    &mut taken.words()[..lens[at - 1]]
                });
                let results = &mut results[..step.outputs.len()];
                if cfg!(debug_assertions) && !in_place {
                    // Whatever a step leaves unwritten shows.
                    results.iter_mut().for_each(|r| r.fill(f32::NAN));
                }
                step.step.run_all(&Operands { operand: &operand, len: step.inputs.len() }, results, in_place, scratch);
                observe(i, start, results);
            }
            for (buffer, taken) in step.outputs.iter().zip(taken) {
                match (self.memory.places[*buffer], taken) {
                    (Place::Slot(s), Taken::Slot(buffer)) => slots[s] = buffer,
                    (Place::Output(k), Taken::Output(words)) => outputs[k] = words,
                    _ => unreachable!("taken from where it goes back to"),
                }
            }
        }
    }
}
