//! LSTM and GRU: a product for all steps at once, then a small one and the gates for each step.
//!
//! ```text
//! LSTM   i, o, f = sigmoid(x W + h R + b)   g = tanh(x W + h R + b)   c = f c + i g   h = o tanh(c)
//! GRU    z, r    = sigmoid(x W + h R + b)   n = tanh(x W + b + (r h) R + b')          h = (1 - z) n + z h
//!        linear before reset                n = tanh(x W + b + r (h R + b'))
//! ```

use std::sync::Arc;

use swath_kernels::act::{apply, apply_inplace};
use swath_kernels::epilogue::Activation;
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::shape::ConvShape;

use super::fixed;
use crate::conv::{ConvPlan, Epilogue, Options, PackedWeights, Scratch};
use crate::error::Result;
use crate::graph::{Fact, Group, Lower, Operands, Operator, Step, Work};
use crate::ops::Array;

/// What a step does with its gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Gates input, output, forget, cell.
    Lstm,
    /// Gates update, reset, hidden.
    Gru {
        /// Whether the reset gate multiplies the product with the hidden state, not the state.
        linear_before_reset: bool,
    },
}

impl Cell {
    pub(crate) fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru { .. } => 3,
        }
    }

    /// The gates that are one product each: the first, and the one behind the last.
    fn parts(self) -> &'static [[usize; 2]] {
        match self {
            Self::Lstm => &[[0, 4]],
            Self::Gru { .. } => &[[0, 2], [2, 3]],
        }
    }
}

/// A layer in one direction or both: `x [steps, batch, inputs]`, then the first hidden state `[directions, batch, hidden]` and an LSTM's
/// first cell state, where they are inputs. Results: all hidden states `[steps, directions, batch, hidden]`, the last ones, an LSTM's
/// last cell states; and room for a run, which nobody reads.
#[derive(Clone, Debug)]
pub(crate) struct Recurrent {
    pub cell: Cell,
    /// For each direction, whether it begins with the last step.
    pub backwards: Vec<bool>,
    /// `[directions, gates * hidden, inputs]`, and `[directions, gates * hidden, hidden]`.
    pub weights: [Arc<Array>; 2],
    /// `[directions, 2 * gates * hidden]`: for the input, and for the hidden state.
    pub bias: Option<Arc<Array>>,
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

    fn name_of(&self) -> &'static str {
        if self.cell == Cell::Lstm { "LSTM" } else { "GRU" }
    }
}

impl Operator for Recurrent {
    fn name(&self) -> &'static str {
        self.name_of()
    }

    fn results(&self) -> usize {
        self.outputs.len() + 1
    }

    fn dims(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.outputs[0].dims.clone())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        let results: Vec<Fact> = self.outputs.iter().cloned().chain([Fact::f32([self.room()])]).collect();
        fixed(self.name_of(), &self.inputs, inputs, &results)
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for v in cx.inputs(group) {
            inputs.push(cx.want(v, Layout::Nchw)?);
        }
        let options = Options { input: Layout::Nhwc, output: Layout::Nhwc, ..cx.conv.clone() };
        let directions =
            (0..self.backwards.len()).map(|d| Direction::new(self, d, &options)).collect::<Result<Vec<_>>>()?;
        let scratch = directions.iter().map(Direction::scratch_len).max().unwrap_or(0);
        let step = RecurrentStep {
            cell: self.cell,
            extents: self.extents(),
            states: self.states,
            directions,
            level: cx.level(),
        };
        cx.step_all(group, &vec![Layout::Nchw; self.results()], Box::new(step), inputs, scratch)
    }

    fn work(&self, _: &[&Fact]) -> Work {
        let Extents { steps, batch, inputs, hidden } = self.extents();
        let sizes = [self.backwards.len(), steps, batch, self.cell.gates() * hidden, inputs + hidden];
        Work { macs: sizes.iter().map(|&v| v as u64).fold(1, u64::saturating_mul), convolution: None }
    }
}

/// A product with a packed matrix, and its bias.
struct Product {
    plan: ConvPlan,
    packed: PackedWeights,
    bias: Option<Vec<f32>>,
}

impl Product {
    /// Of `rows` rows by the transpose of a matrix with so many columns.
    fn new(rows: usize, matrix: &[f32], columns: usize, bias: Option<Vec<f32>>, options: &Options) -> Result<Self> {
        let shape = ConvShape::builder([1, columns, 1, rows], [matrix.len() / columns, columns, 1, 1]).build()?;
        let plan = ConvPlan::new(&shape, options)?;
        Ok(Self { packed: plan.pack(matrix)?, plan, bias })
    }

    fn run(&self, x: &[f32], plus: Option<&[f32]>, y: &mut [f32], scratch: &mut Scratch) {
        let epilogue = Epilogue { bias: self.bias.as_deref(), residual: plus, ..Epilogue::none() };
        let done = self.plan.forward(x, &self.packed, epilogue, y, scratch);
        done.expect("the graph was compiled for these lengths");
    }
}

/// A layer's weights in one direction.
struct Direction {
    backwards: bool,
    /// For each part of the gates: of the input in all steps, of the hidden state in one.
    parts: Vec<[Product; 2]>,
}

impl Direction {
    fn new(layer: &Recurrent, d: usize, options: &Options) -> Result<Self> {
        let Extents { steps, batch, inputs, hidden } = layer.extents();
        let (gates, linear) = (layer.cell.gates(), layer.cell == Cell::Gru { linear_before_reset: true });
        let floats = |array: &'_ Arc<Array>, len: usize| -> Vec<f32> {
            array.elements::<f32>().map_or(Vec::new(), |all| all[d * len..][..len].to_vec())
        };
        let [w, r] = [0, 1].map(|i| floats(&layer.weights[i], gates * hidden * [inputs, hidden][i]));
        let bias = layer.bias.as_ref().map(|bias| floats(bias, 2 * gates * hidden));
        let mut parts = Vec::new();
        for &[first, end] in layer.cell.parts() {
            let rows = first * hidden..end * hidden;
            let of = |bias: &[f32], side: usize| bias[side * gates * hidden..][rows.clone()].to_vec();
            // The hidden state's bias is added to the input's, but where the reset gate multiplies it.
            let alone = linear && first == 2;
            let [mut b, rb] = [0, 1].map(|side| bias.as_ref().map(|bias| of(bias, side)));
            if let (false, Some(b), Some(rb)) = (alone, &mut b, &rb) {
                b.iter_mut().zip(rb).for_each(|(b, rb)| *b += rb);
            }
            let matrix = |all: &[f32], columns: usize| all[rows.start * columns..rows.end * columns].to_vec();
            parts.push([
                Product::new(steps * batch, &matrix(&w, inputs), inputs, b, options)?,
                Product::new(batch, &matrix(&r, hidden), hidden, rb.filter(|_| alone), options)?,
            ]);
        }
        Ok(Self { backwards: layer.backwards[d], parts })
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

    /// The gates and the states of one step, whose inputs' products are `all`.
    fn step(&self, parts: &[[Product; 2]], all: [&[f32]; 2], m: &mut Memory<'_>, scratch: &mut Scratch) {
        let (n, act) = (self.extents.hidden, |a, x: &mut [f32]| apply_inplace(self.level, a, x));
        let [sums, last] = &mut m.sums;
        parts[0][1].run(m.h, Some(all[0]), sums, scratch);
        match self.cell {
            Cell::Lstm => {
                for ((gates, c), h) in
                    sums.chunks_exact_mut(4 * n).zip(m.c.chunks_exact_mut(n)).zip(m.h.chunks_exact_mut(n))
                {
                    let (sigmoids, g) = gates.split_at_mut(3 * n);
                    act(Activation::Sigmoid, sigmoids);
                    act(Activation::Tanh, g);
                    let (i, f) = (&sigmoids[..n], &sigmoids[2 * n..]);
                    for (((c, f), i), g) in c.iter_mut().zip(f).zip(i).zip(&*g) {
                        *c = f * *c + i * g;
                    }
                    apply(self.level, Activation::Tanh, c, h);
                    h.iter_mut().zip(&sigmoids[n..2 * n]).for_each(|(h, o)| *h *= o);
                }
            }
            Cell::Gru { linear_before_reset } => {
                act(Activation::Sigmoid, sums);
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
                act(Activation::Tanh, last);
                for (row, (h, last)) in m.h.chunks_exact_mut(n).zip(last.chunks_exact(n)).enumerate() {
                    h.iter_mut().zip(gates(row).0).zip(last).for_each(|((h, z), new)| *h = (1.0 - z) * new + z * *h);
                }
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
        for (d, direction) in self.directions.iter().enumerate() {
            begin(m.h, self.states[0].then_some(1), d);
            begin(m.c, self.states[1].then_some(1 + usize::from(self.states[0])), d);
            for ([of_input, _], all) in direction.parts.iter().zip(&mut m.all) {
                of_input.run(x.get(0), None, all, scratch);
            }
            let all = core::mem::take(&mut m.all);
            for i in 0..steps {
                let t = if direction.backwards { steps - 1 - i } else { i };
                let at = |part: usize| {
                    let len = all[part].len() / steps;
                    &all[part][t * len..][..len]
                };
                self.step(&direction.parts, [at(0), at(1)], &mut m, scratch);
                outputs[0][(t * count + d) * state..][..state].copy_from_slice(m.h);
            }
            m.all = all;
            for (output, last) in outputs[1..].iter_mut().zip([&*m.h, &*m.c]) {
                output[d * state..][..state].copy_from_slice(last);
            }
        }
    }

    fn describe(&self) -> String {
        let Extents { inputs, hidden, .. } = self.extents;
        let name = if self.cell == Cell::Lstm { "LSTM" } else { "GRU" };
        let both = if self.directions.len() > 1 { " in both directions" } else { "" };
        format!("{name} {inputs} to {hidden}{both} {}", self.directions[0].parts[0][1].plan.algo())
    }

    fn bytes(&self) -> usize {
        self.directions.iter().flat_map(|d| d.parts.iter().flatten()).map(|p| p.packed.bytes()).sum()
    }
}
