//! Operators that move elements, or do nothing at all.

use swath_kernels::layout::Layout;

use super::fixed;
use crate::conv::Scratch;
use crate::error::Result;
use crate::graph::{Fact, Group, Lower, Operands, Operator, Step};
use crate::ops::View;
use crate::par;

/// `[n, c, h, w]` transposed to `[n, h, w, c]`: the image in NHWC, seen as a plain array.
#[derive(Clone, Debug)]
pub(crate) struct ToNhwc;

impl Operator for ToNhwc {
    fn name(&self) -> &'static str {
        "Transpose"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let [n, c, h, w] = crate::graph::ops::four("Transpose", inputs[0])?;
        Ok(vec![n, h, w, c])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.inputs(group)[0];
        let buffer = cx.want(x, Layout::Nhwc)?;
        cx.alias(group.value, buffer, Layout::Nchw);
        Ok(())
    }
}

/// `[n, h, w, c]` transposed to `[n, c, h, w]`: a plain array, seen as an image in NHWC.
#[derive(Clone, Debug)]
pub(crate) struct ToNchw;

impl Operator for ToNchw {
    fn name(&self) -> &'static str {
        "Transpose"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let [n, h, w, c] = crate::graph::ops::four("Transpose", inputs[0])?;
        Ok(vec![n, c, h, w])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.inputs(group)[0];
        let buffer = cx.want(x, Layout::Nchw)?;
        cx.alias(group.value, buffer, Layout::Nhwc);
        Ok(())
    }
}

/// Floats in another order, or some of them, or some of them repeatedly: transposes, slices, expansions.
#[derive(Clone, Debug)]
pub(crate) struct Strided {
    pub name: &'static str,
    pub input: Fact,
    /// Where each element of the result lies in the input.
    pub view: View,
    /// The result's dimensions, as many elements as the view has.
    pub output: Fact,
}

impl Operator for Strided {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dims(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.output.dims.clone())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        fixed(self.name, std::slice::from_ref(&self.input), inputs, std::slice::from_ref(&self.output))
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.inputs(group)[0];
        let buffer = cx.want(x, Layout::Nchw)?;
        let step = StridedStep { name: self.name, view: self.view.merged() };
        cx.step(group, Layout::Nchw, Box::new(step), vec![buffer], 0)
    }
}

struct StridedStep {
    name: &'static str,
    view: View,
}

impl Step for StridedStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let (x, view) = (x.get(0), &self.view);
        let row = view.dims.last().copied().unwrap_or(1).max(1);
        let stride = view.strides.last().copied().unwrap_or(1);
        par::for_each_piece(y, row, 1, |rows, y| {
            for (r, y) in rows.zip(y.chunks_exact_mut(row)) {
                let start = view.row_start(r);
                match stride {
                    1 => y.copy_from_slice(&x[start as usize..][..row]),
                    0 => y.fill(x[start as usize]),
                    _ => y.iter_mut().zip(0..).for_each(|(y, i)| *y = x[(start + i * stride) as usize]),
                }
            }
        });
    }

    fn describe(&self) -> String {
        format!("{} {:?}", self.name, self.view.dims)
    }
}
