//! What runs a compiled graph: steps, weights and memory plan, with memory of its own.

use core::mem;
use core::ops::DerefMut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use swath_kernels::layout::Layout;

use super::SessionOptions;
use super::lower::{Lowered, Output, lower};
use super::memory::{self, Memory, Place};
use super::profile::StepProfile;
use crate::buffer::Buffer;
use crate::conv::Scratch;
use crate::error::Result;
use crate::graph::lower::{BufferId, Origin, Planned};
use crate::graph::packed::ReadyWeights;
use crate::graph::{ElementType, Fact, Graph, Operands, Parameters};
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
    /// Activations, and gradients at them.
    arena: Buffer,
    /// Words of each output.
    pub(crate) outputs: Vec<Buffer>,
    scratch: Scratch,
    team: Team,
}

impl Runner {
    pub(crate) fn compile(
        graph: Graph,
        parameters: &Parameters,
        inputs: &[Fact],
        options: &SessionOptions,
        ready: &ReadyWeights,
    ) -> Result<Self> {
        let team = Team::new(options.threads, options.spin)?;
        // Among the threads that will run it, whose number tuning tables are keyed by.
        let mut lowered = team.run(|| lower(graph, parameters, inputs, options, ready))?;
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
        let arena = Buffer::lasting(program.memory.words)?;
        let outputs = program.outputs.iter().map(|o| Buffer::lasting(program.lens[o.buffer])).collect::<Result<_>>()?;
        let mut scratch = Scratch::default();
        scratch.reserve(program.scratch_len())?;
        scratch.reserve_packed(program.packed_len())?;
        Ok(Self { program, arena, outputs, scratch, team })
    }

    /// Buffers that a run took out and did not put back, since a step panicked, are made anew.
    pub(crate) fn restore(&mut self) -> Result<()> {
        let p = &self.program;
        let lens = p.outputs.iter().map(|o| p.lens[o.buffer]);
        for (buffer, len) in self.outputs.iter_mut().zip(lens) {
            if buffer.len() != len {
                *buffer = Buffer::lasting(len)?;
            }
        }
        Ok(())
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
        self.run_first(self.program.steps.len(), input, &mut |_, _, _| ());
    }

    /// Runs the steps up to the one that writes output `output`.
    pub(crate) fn run_until<'i>(&mut self, output: usize, input: &(dyn Fn(usize) -> &'i [f32] + Sync)) {
        let writes = |s: &Planned| s.outputs.contains(&self.program.outputs[output].buffer);
        let steps = self.program.steps.iter().rposition(writes).map_or(0, |last| last + 1);
        self.run_first(steps, input, &mut |_, _, _| ());
    }

    /// Runs the first `steps` steps.
    fn run_first<'i>(&mut self, steps: usize, input: &(dyn Fn(usize) -> &'i [f32] + Sync), observe: &mut Observer<'_>) {
        let Self { program, arena, outputs, scratch, team } = self;
        // One region around all steps: threads are called here, once.
        team.run(|| program.execute(steps, input, arena, outputs, scratch, observe));
    }

    /// Runs all steps; results go to `outputs`, whose words are as many as [`Runner::output_len`] says.
    pub(crate) fn run_into<'i>(&mut self, input: &(dyn Fn(usize) -> &'i [f32] + Sync), outputs: &mut [&mut [f32]]) {
        let Self { program, arena, scratch, team, .. } = self;
        team.run(|| program.execute(program.steps.len(), input, arena, outputs, scratch, &mut |_, _, _| ()));
    }

    /// Runs all steps, and says how long each took.
    pub(crate) fn profile<'i>(&mut self, input: &(dyn Fn(usize) -> &'i [f32] + Sync)) -> Vec<StepProfile> {
        let mut times = vec![Duration::ZERO; self.program.steps.len()];
        self.run_first(times.len(), input, &mut |i, start, _| times[i] = start.elapsed());
        let p = &self.program;
        let bytes = |s: &Planned| {
            let words: usize = s.inputs.iter().chain(&s.outputs).map(|&b| p.lens[b]).sum();
            words * size_of::<f32>() + s.step.bytes()
        };
        let profile = |(s, time): (&Planned, Duration)| {
            let (layer, what, flop) = (s.layer.clone(), s.step.describe(), s.flop);
            StepProfile { layer, what, time, flop, bytes: bytes(s) }
        };
        p.steps.iter().zip(times).map(profile).collect()
    }

    /// Runs all steps, and names the first whose result is not finite: its layer, and what ran.
    pub(crate) fn first_not_finite<'i>(
        &mut self,
        input: &(dyn Fn(usize) -> &'i [f32] + Sync),
    ) -> Option<(String, String)> {
        let program = self.program.clone();
        let mut first = None;
        let mut look = |i: usize, _: Instant, results: &[&mut [f32]]| {
            // Words of other types, such as which tap was the largest, may look like anything.
            let floats = results.iter().zip(&program.steps[i].elements).filter(|(_, e)| **e == ElementType::F32);
            if first.is_none() && floats.into_iter().any(|(r, _)| r.iter().any(|v| !v.is_finite())) {
                first = Some(i);
            }
        };
        self.run_first(program.steps.len(), input, &mut look);
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
        let words = p.memory.words + outputs;
        let scratch = p.scratch_len() + p.packed_len();
        [words * size_of::<f32>(), constants + self.packed_bytes(), scratch * size_of::<f32>()]
    }

    /// Bytes of packed weights, which others may share.
    pub(crate) fn packed_bytes(&self) -> usize {
        self.program.steps.iter().map(|s| s.step.bytes()).sum()
    }
}

/// Told after each step: its number, when it began, and its results.
type Observer<'a> = dyn FnMut(usize, Instant, &[&mut [f32]]) + 'a;

impl Program {
    /// Floats of scratch that the greediest step takes, on the threads that the program was compiled for.
    pub(super) fn scratch_len(&self) -> usize {
        self.steps.iter().map(|s| s.scratch).max().unwrap_or(0)
    }

    /// Floats of the most weights that a step packs in each run.
    pub(super) fn packed_len(&self) -> usize {
        self.steps.iter().map(|s| s.step.packed_len()).max().unwrap_or(0)
    }

    /// Runs the first `steps` steps. Outputs are a session's own, or the caller's.
    fn execute<'i, B: DerefMut<Target = [f32]> + Default + Sync>(
        &self,
        steps: usize,
        input: &(dyn Fn(usize) -> &'i [f32] + Sync),
        arena: &mut [f32],
        outputs: &mut [B],
        scratch: &mut Scratch,
        observe: &mut Observer<'_>,
    ) {
        for (i, (step, &in_place)) in self.steps[..steps].iter().zip(&self.memory.in_place).enumerate() {
            let start = Instant::now();
            // Outputs are taken out while they are written, so that others can be read; empty ones take their places.
            let mut taken: [B; MAX_RESULTS] = Default::default();
            for (buffer, taken) in step.outputs.iter().zip(&mut taken) {
                if let Place::Output(k) = self.memory.places[*buffer] {
                    *taken = mem::take(&mut outputs[k]);
                }
            }
            {
                let (mut results, rest) = self.divide(&step.outputs, arena, &mut taken);
                let outputs = &*outputs;
                let operand = |i: usize| {
                    let buffer = step.inputs[i];
                    let len = self.lens[buffer];
                    match self.memory.places[buffer] {
                        Place::Input(k) => &input(k)[..len],
                        Place::Constant(k) => &self.constants[k].as_slice()[..len],
                        Place::Arena(at) => rest.get(at, len),
                        Place::Output(k) => &outputs[k][..len],
                    }
                };
                let results = &mut results[..step.outputs.len()];
                if cfg!(debug_assertions) && !in_place {
                    // Whatever a step leaves unwritten shows.
                    results.iter_mut().for_each(|r| r.fill(f32::NAN));
                }
                step.step.run_all(&Operands { operand: &operand, len: step.inputs.len() }, results, in_place, scratch);
                observe(i, start, results);
            }
            for (buffer, taken) in step.outputs.iter().zip(&mut taken) {
                if let Place::Output(k) = self.memory.places[*buffer] {
                    outputs[k] = mem::take(taken);
                }
            }
        }
    }

    /// What a step writes, in the arena or in the outputs that were taken out, and the rest of the arena.
    fn divide<'a, B: DerefMut<Target = [f32]>>(
        &self,
        written: &[BufferId],
        arena: &'a mut [f32],
        taken: &'a mut [B; MAX_RESULTS],
    ) -> ([&'a mut [f32]; MAX_RESULTS], Rest<'a>) {
        let mut results: [&mut [f32]; MAX_RESULTS] = Default::default();
        // Where in the arena, how much, and the number of the result; from front to back.
        let mut parts = [(0, 0, 0); MAX_RESULTS];
        let mut count = 0;
        for ((k, &buffer), taken) in written.iter().enumerate().zip(taken) {
            let len = self.lens[buffer];
            match self.memory.places[buffer] {
                Place::Arena(at) if len > 0 => {
                    parts[count] = (at, len, k);
                    count += 1;
                }
                _ => results[k] = &mut taken[..len],
            }
        }
        parts[..count].sort_unstable();
        let mut rest = Rest { gaps: [(0, &[]); MAX_RESULTS + 1] };
        let (mut behind, mut from) = (arena, 0);
        for (gap, &(at, len, k)) in rest.gaps.iter_mut().zip(&parts[..count]) {
            let (before, own) = mem::take(&mut behind).split_at_mut(at - from);
            *gap = (from, before);
            (results[k], behind) = own.split_at_mut(len);
            from = at + len;
        }
        rest.gaps[count] = (from, behind);
        (results, rest)
    }
}

/// The arena without what a step writes: pieces, and where they begin.
struct Rest<'a> {
    gaps: [(usize, &'a [f32]); MAX_RESULTS + 1],
}

impl<'a> Rest<'a> {
    /// So many words from a place on, all in one piece: what a step reads lies apart from what it writes.
    fn get(&self, at: usize, len: usize) -> &'a [f32] {
        let holds = |&(from, piece): &(usize, &'a [f32])| {
            at.checked_sub(from).and_then(|skip| piece.get(skip..skip.checked_add(len)?))
        };
        self.gaps.iter().find_map(holds).expect("a step does not write what it reads, but for operand 0 in place")
    }
}
