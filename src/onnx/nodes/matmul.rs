//! Products of matrices neither of which is known before the model runs.

use swath_kernels::layout::Layout;

use super::fixed;
use crate::conv::{self, Scratch};
use crate::error::Result;
use crate::graph::{Fact, Group, Lower, Operands, Operator, Step, Work};
use crate::par;

/// NumPy's product: `[.., m, k]` times `[.., k, n]`, the dimensions before repeated to `[.., m, n]`'s.
#[derive(Clone, Debug)]
pub(crate) struct MatMul {
    pub inputs: [Fact; 2],
    pub output: Fact,
}

impl MatMul {
    fn extents(&self) -> [usize; 3] {
        let [a, b] = &self.inputs;
        let (m, k, n) = (a.dims[a.dims.len() - 2], a.dims[a.dims.len() - 1], b.dims[b.dims.len() - 1]);
        if self.one_right() { [a.len() / k.max(1), k, n] } else { [m, k, n] }
    }

    /// Whether all products have the same right matrix: then the left ones are one, of all their rows.
    fn one_right(&self) -> bool {
        let [a, b] = &self.inputs;
        b.len() == b.dims[b.dims.len() - 2..].iter().product::<usize>() && !a.is_empty()
    }

    /// For each product: the numbers of the left and right matrix.
    fn pairs(&self) -> Vec<[usize; 2]> {
        if self.one_right() {
            return vec![[0, 0]];
        }
        let lead = &self.output.dims[..self.output.dims.len() - 2];
        let number = |fact: &Fact, mut p: usize| {
            let own = &fact.dims[..fact.dims.len() - 2];
            let (mut number, mut step) = (0, 1);
            for (i, &dim) in lead.iter().enumerate().rev() {
                let at = p % dim;
                p /= dim;
                if let Some(i) = (i + own.len()).checked_sub(lead.len()) {
                    number += if own[i] == 1 { 0 } else { at } * step;
                    step *= own[i];
                }
            }
            number
        };
        let count = lead.iter().product();
        (0..count).map(|p| [number(&self.inputs[0], p), number(&self.inputs[1], p)]).collect()
    }
}

impl Operator for MatMul {
    fn name(&self) -> &'static str {
        "MatMul"
    }

    fn dims(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.output.dims.clone())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        fixed("MatMul", &self.inputs, inputs, std::slice::from_ref(&self.output))
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let v = cx.inputs(group);
        let inputs = vec![cx.want(v[0], Layout::Nchw)?, cx.want(v[1], Layout::Nchw)?];
        let step = MatMulStep { pairs: self.pairs(), plan: conv::MatMul::new(self.extents(), &cx.conv)? };
        let scratch = step.plan.scratch_len(step.pairs.len(), par::width(None));
        cx.step(group, Layout::Nchw, Box::new(step), inputs, scratch)
    }

    fn work(&self, _: &[&Fact]) -> Work {
        Work { macs: (self.output.len() * self.extents()[1]) as u64, convolution: None }
    }
}

struct MatMulStep {
    pairs: Vec<[usize; 2]>,
    plan: conv::MatMul,
}

impl Step for MatMulStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, scratch: &mut Scratch) {
        let done = self.plan.run_many(&self.pairs, x.get(0), x.get(1), y, scratch);
        done.expect("the graph was compiled for these lengths");
    }

    fn describe(&self) -> String {
        let [m, k, n] = self.plan.extents();
        format!("MatMul {} x {m}x{k}x{n} {}", self.pairs.len(), self.plan.algo())
    }
}
