//! Layer normalisation: rows over the last dimensions, each by its own mean and variance.

use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::norm::{LayerBackward, LayerNorm as Kernel};
use swath_kernels::shape::{ShapeError, checked_elements};

use crate::buffer::floats;
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::step::{Operands, Step, pass};
use crate::graph::{Fact, Gradient, Group, Lower, Operator, ValueId};

/// Normalises over the last dimensions. Inputs: the value, a scale of the extents `shape` if there is one, and a shift if there is one,
/// which a scale comes before. Results: the value, and for the gradient the mean and `1 / sqrt(variance + eps)` of each row.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    /// PyTorch's `normalized_shape`: the extents that the input ends with.
    pub shape: Vec<usize>,
    /// Added to the variances.
    pub eps: f64,
}

impl LayerNorm {
    fn kernel(&self, dims: &[usize]) -> Result<Kernel> {
        Ok(Kernel::new(self.rows(dims)?, checked_elements("normalised row", &self.shape)?)?)
    }

    fn rows(&self, dims: &[usize]) -> Result<usize> {
        Ok(checked_elements("input", &dims[..dims.len() - self.shape.len()])?)
    }
}

impl Operator for LayerNorm {
    fn name(&self) -> &'static str {
        "LayerNorm"
    }

    fn results(&self) -> usize {
        3
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        if self.shape.is_empty() || self.shape.contains(&0) {
            return Err(ShapeError::Zero { what: "the number of elements that LayerNorm normalises" }.into());
        }
        if !inputs[0].ends_with(&self.shape) {
            let (left, right) = (inputs[0].to_vec(), self.shape.clone());
            return Err(Error::Shapes { what: "the last extents of LayerNorm's input, and its own", left, right });
        }
        inputs[1..].iter().try_for_each(|v| super::expect("a value for each element of LayerNorm", v, &self.shape))?;
        self.kernel(inputs[0])?;
        Ok(inputs[0].to_vec())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        let dims: Vec<&[usize]> = inputs.iter().map(|f| f.dims.as_slice()).collect();
        let dims = self.dims(&dims)?;
        let rows = Fact::f32([self.rows(&dims)?]);
        Ok(vec![Fact::f32(dims), rows.clone(), rows])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let norm = self.kernel(&cx.fact(operands[0]).dims)?;
        let inputs = in_order(cx, &operands)?;
        // The kernel adds a shift wherever it scales.
        let zeros = if operands.len() == 2 { floats(self.shape.iter().product())? } else { Vec::new() };
        let step = LayerNormStep { norm, eps: self.eps as f32, zeros, level: cx.level() };
        cx.step_all(group, &[Layout::Nchw; 3], Box::new(step), inputs, 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let mut inputs = vec![g.input(0), g.dy(), g.output(1), g.output(2)];
        if g.inputs() > 1 {
            inputs.push(g.input(1));
        }
        let parameters = g.inputs() - 1;
        let d = g.push(LayerNormGradient { op: self.clone(), scaled: parameters > 0 }, &inputs)?;
        (0..=parameters).try_for_each(|i| g.add(i, d[i]))
    }
}

/// Operands in row-major order.
fn in_order(cx: &mut Lower<'_>, operands: &[ValueId]) -> Result<Vec<usize>> {
    operands.iter().map(|v| cx.want(*v, Layout::Nchw)).collect()
}

struct LayerNormStep {
    norm: Kernel,
    eps: f32,
    /// The shift where there is only a scale.
    zeros: Vec<f32>,
    level: Level,
}

impl Step for LayerNormStep {
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], _: bool, _: &mut Scratch) {
        let [y, mean, inv] = y else { unreachable!("value, means, inverse deviations") };
        let affine = match x.len() {
            1 => None,
            2 => Some([x.get(1), &self.zeros[..]]),
            _ => Some([x.get(1), x.get(2)]),
        };
        pass(self.level, |place| self.norm.forward(place, x.get(0), affine, self.eps, y, [mean, inv]));
    }

    fn describe(&self) -> String {
        "LayerNorm".into()
    }
}

/// Gradients at the value, and at scale and shift where there is a scale; from the value, the gradient at the output, means, inverse
/// deviations, and the scale.
#[derive(Clone, Debug)]
struct LayerNormGradient {
    op: LayerNorm,
    scaled: bool,
}

impl Operator for LayerNormGradient {
    fn name(&self) -> &'static str {
        "LayerNormGradient"
    }

    fn results(&self) -> usize {
        if self.scaled { 3 } else { 1 }
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        let columns = Fact::f32(self.op.shape.clone());
        let mut facts = vec![inputs[0].clone(), columns.clone(), columns];
        facts.truncate(self.results());
        Ok(facts)
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let norm = self.op.kernel(&cx.fact(operands[0]).dims)?;
        let inputs = in_order(cx, &operands)?;
        let step = LayerGradientStep { norm, level: cx.level() };
        cx.step_all(group, &[Layout::Nchw; 3][..self.results()], Box::new(step), inputs, 0)
    }
}

struct LayerGradientStep {
    norm: Kernel,
    level: Level,
}

impl Step for LayerGradientStep {
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], _: bool, _: &mut Scratch) {
        let w = (x.len() > 4).then(|| x.get(4));
        let backward = LayerBackward { x: x.get(0), dy: x.get(1), w, mean: x.get(2), inv: x.get(3) };
        pass(self.level, |place| match y {
            [dx] => self.norm.backward(place, &backward, Some(dx), None),
            [dx, dw, db] => self.norm.backward(place, &backward, Some(dx), Some([dw, db])),
            _ => unreachable!("the value's gradient, and those of scale and shift"),
        });
    }

    fn describe(&self) -> String {
        "LayerNorm gradient".into()
    }
}
