//! LSTM, GRU and RNN: a product for all steps at once, then a small one and the gates for each step.
//!
//! ```text
//! LSTM   i, o, f = sigmoid(x W + h R + b)   g = tanh(x W + h R + b)   c = f c + i g   h = o tanh(c)
//!        peepholes                          i and f: + p c before the step, o: + p c behind it
//! GRU    z, r    = sigmoid(x W + h R + b)   n = tanh(x W + b + (r h) R + b')          h = (1 - z) n + z h
//!        linear before reset                n = tanh(x W + b + r (h R + b'))
//! RNN    h = tanh(x W + h R + b)
//! ```
//!
//! A sequence that is shorter than the others keeps its states in the steps that it lacks, whose outputs are zeros: so it ends where it
//! ends forwards, and begins there backwards.

use std::sync::Arc;

use swath_kernels::act::{apply, apply_inplace};
use swath_kernels::epilogue::Activation;
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::shape::ConvShape;

use super::fixed;
use crate::conv::{ConvPlan, Epilogue, Options, Scratch};
use crate::error::Result;
use crate::graph::packed::Ready;
use crate::graph::{Fact, Group, Lower, Operands, Operator, Step, Work};
use crate::ops::Array;

/// What a step does with its gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Gates input, output, forget, cell.
    Lstm {
        /// Whether the forget gate is one less the input gate.
        coupled: bool,
    },
    /// Gates update, reset, hidden.
    Gru {
        /// Whether the reset gate multiplies the product with the hidden state, not the state.
        linear_before_reset: bool,
    },
    /// The new state.
    Rnn,
}

impl Cell {
    pub(crate) fn gates(self) -> usize {
        match self {
            Self::Lstm { .. } => 4,
            Self::Gru { .. } => 3,
            Self::Rnn => 1,
        }
    }

    /// The gates that are one product each: the first, and the one behind the last.
    fn parts(self) -> &'static [[usize; 2]] {
        match self {
            Self::Lstm { .. } => &[[0, 4]],
            Self::Gru { .. } => &[[0, 2], [2, 3]],
            Self::Rnn => &[[0, 1]],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Lstm { .. } => "LSTM",
            Self::Gru { .. } => "GRU",
            Self::Rnn => "RNN",
        }
    }
}

/// One direction of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// Whether it begins with the last step.
    pub backwards: bool,
    /// ONNX's `f`, `g` and `h`, as many as the cell has.
    pub activations: Vec<Activation>,
}

/// How many steps the sequences of a batch have.
#[derive(Clone, Debug)]
pub(crate) enum Lengths {
    /// All.
    Full,
    /// These.
    Known(Vec<i32>),
    /// As the last input says. Fewer than none are none, more than all are all.
    Given,
}

/// A layer in one direction or both: `x [steps, batch, inputs]`, then the first hidden state `[directions, batch, hidden]` and an LSTM's
/// first cell state and the lengths, where they are inputs. Results: all hidden states `[steps, directions, batch, hidden]`, the last
/// ones, an LSTM's last cell states; and room for a run, which nobody reads.
#[derive(Clone, Debug)]
pub(crate) struct Recurrent {
    pub cell: Cell,
    pub ways: Vec<Way>,
    /// `[directions, gates * hidden, inputs]`, and `[directions, gates * hidden, hidden]`.
    pub weights: [Arc<Array>; 2],
    /// `[directions, 2 * gates * hidden]`: for the input, and for the hidden state.
    pub bias: Option<Arc<Array>>,
    /// `[directions, 3 * hidden]`: factors of an LSTM's cell state in the input, output and forget gate.
    pub peepholes: Option<Arc<Array>>,
    /// The largest magnitude that an activation is applied to.
    pub clip: Option<f32>,
    pub lengths: Lengths,
    /// Whether the first hidden and cell states are inputs.
    pub states: [bool; 2],
    pub inputs: Vec<Fact>,
    pub outputs: Vec<Fact>,
}

/// Extents of a layer.
#[derive(Clone, Copy, Debug)]
struct Extents {
    steps: usize,
    batch: usize,
    inputs: usize,
    hidden: usize,
}

impl Recurrent {
    fn extents(&self) -> Extents {
        let x = &self.inputs[0].dims;
        Extents { steps: x[0], batch: x[1], inputs: x[2], hidden: self.weights[1].dims()[2] }
    }

    /// Floats for a run: products of all steps and of one, a hidden state, a cell state, and what one of them is multiplied into.
    fn room(&self) -> usize {
        let Extents { steps, batch, hidden, .. } = self.extents();
        batch * hidden * ((steps + 1) * self.cell.gates() + 3)
    }
}

impl Operator for Recurrent {
    fn name(&self) -> &'static str {
        self.cell.name()
    }

    fn results(&self) -> usize {
        self.outputs.len() + 1
    }

    fn dims(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.outputs[0].dims.clone())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        let results: Vec<Fact> = self.outputs.iter().cloned().chain([Fact::f32([self.room()])]).collect();
        fixed(self.cell.name(), &self.inputs, inputs, &results)
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for v in cx.inputs(group) {
            inputs.push(cx.want(v, Layout::Nchw)?);
        }
        let options = Options { input: Layout::Nhwc, output: Layout::Nhwc, ..cx.conv.clone() };
        let directions = (0..self.ways.len())
            .map(|d| {
                Direction::new(self, d, &options, |number, matrix, plan| cx.ready_part(group, number, matrix, plan))
            })
            .collect::<Result<Vec<_>>>()?;
        let scratch = directions.iter().map(Direction::scratch_len).max().unwrap_or(0);
        let step = RecurrentStep {
            cell: self.cell,
            extents: self.extents(),
            states: self.states,
            clip: self.clip.map(|most| Activation::Clip { lo: -most, hi: most }),
            lengths: self.lengths.clone(),
            directions,
            level: cx.level(),
        };
        cx.step_all(group, &vec![Layout::Nchw; self.results()], Box::new(step), inputs, scratch)
    }

    fn work(&self, _: &[&Fact]) -> Work {
        let Extents { steps, batch, inputs, hidden } = self.extents();
        let sizes = [self.ways.len(), steps, batch, self.cell.gates() * hidden, inputs + hidden];
        Work { macs: sizes.iter().map(|&v| v as u64).fold(1, u64::saturating_mul), convolution: None }
    }
}

/// A product with a packed matrix, and its bias.
struct Product {
    plan: ConvPlan,
    packed: Arc<Ready>,
    bias: Option<Vec<f32>>,
}

impl Product {
    /// Of `rows` rows by the transpose of a matrix with so many columns, which `pack` packs.
    fn new(
        rows: usize,
        [outputs, inputs]: [usize; 2],
        bias: Option<Vec<f32>>,
        options: &Options,
        pack: impl FnOnce(&ConvPlan) -> Result<Arc<Ready>>,
    ) -> Result<Self> {
        let plan = ConvPlan::new(&ConvShape::builder([1, inputs, 1, rows], [outputs, inputs, 1, 1]).build()?, options)?;
        Ok(Self { packed: pack(&plan)?, plan, bias })
    }

    fn run(&self, x: &[f32], plus: Option<&[f32]>, y: &mut [f32], scratch: &mut Scratch) {
        let epilogue = Epilogue { bias: self.bias.as_deref(), residual: plus, ..Epilogue::none() };
        let done = self.plan.forward(x, &self.packed.weights, epilogue, y, scratch);
        done.expect("the graph was compiled for these lengths");
    }
}

/// A layer's weights in one direction.
struct Direction {
    way: Way,
    /// For each part of the gates: of the input in all steps, of the hidden state in one.
    parts: Vec<[Product; 2]>,
    peepholes: Option<Vec<f32>>,
}

impl Direction {
    /// `pack` packs a matrix, which has a number, for a plan.
    fn new(
        layer: &Recurrent,
        d: usize,
        options: &Options,
        pack: impl Fn(usize, &[f32], &ConvPlan) -> Result<Arc<Ready>>,
    ) -> Result<Self> {
        fn floats(array: &Array, d: usize, len: usize) -> &[f32] {
            &array.elements::<f32>().expect("weights are floats")[d * len..][..len]
        }

        let Extents { steps, batch, inputs, hidden } = layer.extents();
        let (gates, linear) = (layer.cell.gates(), layer.cell == Cell::Gru { linear_before_reset: true });
        let columns = [inputs, hidden];
        let all = [0, 1].map(|side| floats(&layer.weights[side], d, gates * hidden * columns[side]));
        let bias = layer.bias.as_ref().map(|bias| floats(bias, d, 2 * gates * hidden));
        let mut parts = Vec::new();
        for &[first, end] in layer.cell.parts() {
            let rows = first * hidden..end * hidden;
            let of = |bias: &[f32], side: usize| bias[side * gates * hidden..][rows.clone()].to_vec();
            // The hidden state's bias is added to the input's, but where the reset gate multiplies it.
            let alone = linear && first == 2;
            let [mut b, rb] = [0, 1].map(|side| bias.map(|bias| of(bias, side)));
            if let (false, Some(b), Some(rb)) = (alone, &mut b, &rb) {
                b.iter_mut().zip(rb).for_each(|(b, rb)| *b += rb);
            }
            let product = |side: usize, count: usize, bias: Option<Vec<f32>>| {
                let matrix = &all[side][rows.start * columns[side]..rows.end * columns[side]];
                let number = (2 * d + usize::from(first > 0)) * 2 + side;
                Product::new(count, [rows.len(), columns[side]], bias, options, |plan| pack(number, matrix, plan))
            };
            parts.push([product(0, steps * batch, b)?, product(1, batch, rb.filter(|_| alone))?]);
        }
        let peepholes = layer.peepholes.as_ref().map(|p| floats(p, d, 3 * hidden).to_vec());
        Ok(Self { way: layer.ways[d].clone(), parts, peepholes })
    }

    /// Floats of scratch.
    fn scratch_len(&self) -> usize {
        let threads = crate::par::width(None);
        self.parts.iter().flatten().map(|p| p.plan.scratch_len(threads)).max().unwrap_or(0)
    }
}

struct RecurrentStep {
    cell: Cell,
    extents: Extents,
    states: [bool; 2],
    /// What comes before an activation.
    clip: Option<Activation>,
    lengths: Lengths,
    directions: Vec<Direction>,
    level: Level,
}

/// What a direction computes in.
struct Memory<'a> {
    /// Products of the input in all steps, of each part.
    all: [&'a mut [f32]; 2],
    /// Sums of one step, of each part.
    sums: [&'a mut [f32]; 2],
    h: &'a mut [f32],
    c: &'a mut [f32],
    /// As long as the hidden state.
    product: &'a mut [f32],
}

impl RecurrentStep {
    fn memory<'a>(&self, room: &'a mut [f32]) -> Memory<'a> {
        let Extents { steps, batch, hidden, .. } = self.extents;
        let mut rest = room;
        let mut next = |len: usize| {
            let (first, behind) = core::mem::take(&mut rest).split_at_mut(len);
            rest = behind;
            first
        };
        let gates = |part: usize| self.cell.parts().get(part).map_or(0, |[first, end]| (end - first) * batch * hidden);
        Memory {
            all: [next(steps * gates(0)), next(steps * gates(1))],
            sums: [next(gates(0)), next(gates(1))],
            h: next(batch * hidden),
            c: next(batch * hidden),
            product: next(batch * hidden),
        }
    }

    /// The gates and the states of one step, whose inputs' products are `all`, of the sequences that have it.
    fn step(
        &self,
        direction: &Direction,
        all: [&[f32]; 2],
        has: impl Fn(usize) -> bool,
        m: &mut Memory<'_>,
        scratch: &mut Scratch,
    ) {
        let (n, parts, f) = (self.extents.hidden, &direction.parts, &direction.way.activations);
        let act = |activation: Activation, x: &mut [f32]| {
            self.clip.into_iter().for_each(|clip| apply_inplace(self.level, clip, x));
            apply_inplace(self.level, activation, x);
        };
        let [sums, last] = &mut m.sums;
        parts[0][1].run(m.h, Some(all[0]), sums, scratch);
        match self.cell {
            Cell::Lstm { coupled } => {
                let rows = sums.chunks_exact_mut(4 * n).zip(m.c.chunks_exact_mut(n)).zip(m.h.chunks_exact_mut(n));
                for (_, ((gates, c), h)) in rows.enumerate().filter(|(row, _)| has(*row)) {
                    let peep = |which: usize, gate: &mut [f32], c: &[f32]| {
                        let Some(factors) = &direction.peepholes else { return };
                        let factors = &factors[which * n..][..n];
                        gate.iter_mut().zip(factors).zip(c).for_each(|((gate, p), c)| *gate += p * c);
                    };
                    let (sigmoids, g) = gates.split_at_mut(3 * n);
                    act(f[1], g);
                    let (i, rest) = sigmoids.split_at_mut(n);
                    let (o, forget) = rest.split_at_mut(n);
                    peep(0, i, c);
                    act(f[0], i);
                    if coupled {
                        forget.iter_mut().zip(&*i).for_each(|(f, i)| *f = 1.0 - i);
                    } else {
                        peep(2, forget, c);
                        act(f[0], forget);
                    }
                    for (((c, f), i), g) in c.iter_mut().zip(&*forget).zip(&*i).zip(&*g) {
                        *c = f * *c + i * g;
                    }
                    peep(1, o, c);
                    act(f[0], o);
                    apply(self.level, f[2], c, h);
                    h.iter_mut().zip(&*o).for_each(|(h, o)| *h *= o);
                }
            }
            Cell::Gru { linear_before_reset } => {
                act(f[0], sums);
                let gates = |row: usize| sums[row * 2 * n..][..2 * n].split_at(n);
                if linear_before_reset {
                    parts[1][1].run(m.h, None, last, scratch);
                    for (row, (last, all)) in last.chunks_exact_mut(n).zip(all[1].chunks_exact(n)).enumerate() {
                        last.iter_mut().zip(gates(row).1).zip(all).for_each(|((l, r), all)| *l = r * *l + all);
                    }
                } else {
                    for (row, (kept, h)) in m.product.chunks_exact_mut(n).zip(m.h.chunks_exact(n)).enumerate() {
                        kept.iter_mut().zip(gates(row).1).zip(h).for_each(|((kept, r), h)| *kept = r * h);
                    }
                    parts[1][1].run(m.product, Some(all[1]), last, scratch);
                }
                act(f[1], last);
                let rows = m.h.chunks_exact_mut(n).zip(last.chunks_exact(n));
                for (row, (h, last)) in rows.enumerate().filter(|(row, _)| has(*row)) {
                    h.iter_mut().zip(gates(row).0).zip(last).for_each(|((h, z), new)| *h = (1.0 - z) * new + z * *h);
                }
            }
            Cell::Rnn => {
                act(f[0], sums);
                let rows = m.h.chunks_exact_mut(n).zip(sums.chunks_exact(n)).enumerate();
                rows.filter(|(row, _)| has(*row)).for_each(|(_, (h, new))| h.copy_from_slice(new));
            }
        }
    }
}

impl Step for RecurrentStep {
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], _: bool, scratch: &mut Scratch) {
        let Extents { steps, batch, hidden, .. } = self.extents;
        let (state, count) = (batch * hidden, self.directions.len());
        let [outputs @ .., room] = y else { unreachable!("there is room for a run") };
        let mut m = self.memory(room);
        let begin = |to: &mut [f32], given: Option<usize>, d: usize| match given {
            Some(operand) => to.copy_from_slice(&x.get(operand)[d * state..][..state]),
            None => to.fill(0.0),
        };
        let lengths: Option<&[i32]> = match &self.lengths {
            Lengths::Full => None,
            Lengths::Known(lengths) => Some(lengths),
            Lengths::Given => Some(bytemuck::cast_slice(x.get(x.len() - 1))),
        };
        for (d, direction) in self.directions.iter().enumerate() {
            begin(m.h, self.states[0].then_some(1), d);
            begin(m.c, self.states[1].then_some(1 + usize::from(self.states[0])), d);
            for ([of_input, _], all) in direction.parts.iter().zip(&mut m.all) {
                of_input.run(x.get(0), None, all, scratch);
            }
            let all = core::mem::take(&mut m.all);
            for i in 0..steps {
                let t = if direction.way.backwards { steps - 1 - i } else { i };
                let has = |row: usize| lengths.is_none_or(|lengths| (t as i64) < lengths[row].into());
                let at = |part: usize| {
                    let len = all[part].len() / steps;
                    &all[part][t * len..][..len]
                };
                self.step(direction, [at(0), at(1)], has, &mut m, scratch);
                let now = &mut outputs[0][(t * count + d) * state..][..state];
                for (row, (y, h)) in now.chunks_exact_mut(hidden).zip(m.h.chunks_exact(hidden)).enumerate() {
                    if has(row) { y.copy_from_slice(h) } else { y.fill(0.0) }
                }
            }
            m.all = all;
            for (output, last) in outputs[1..].iter_mut().zip([&*m.h, &*m.c]) {
                output[d * state..][..state].copy_from_slice(last);
            }
        }
    }

    fn describe(&self) -> String {
        let Extents { inputs, hidden, .. } = self.extents;
        let both = if self.directions.len() > 1 { " in both directions" } else { "" };
        format!("{} {inputs} to {hidden}{both} {}", self.cell.name(), self.directions[0].parts[0][1].plan.algo())
    }

    fn bytes(&self) -> usize {
        self.directions.iter().flat_map(|d| d.parts.iter().flatten()).map(|p| p.packed.weights.bytes()).sum()
    }
}
