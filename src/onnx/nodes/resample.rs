//! Resizing by weighted sums along two axes.

use swath_kernels::layout::Layout;

use super::fixed;
use crate::conv::Scratch;
use crate::error::Result;
use crate::graph::{Fact, Group, Lower, Operands, Operator, Step};
use crate::par;

/// For each position along an axis of the result: positions in the input with their weights.
pub(crate) type Rate = Vec<Vec<(usize, f32)>>;

/// `[planes, h, w]` to `[planes, oh, ow]`, by sums along both axes.
#[derive(Clone, Debug)]
pub(crate) struct Resample {
    pub input: Fact,
    pub output: Fact,
    /// Height and width of the input.
    pub from: [usize; 2],
    /// Vertical and horizontal.
    pub rates: [Rate; 2],
}

impl Operator for Resample {
    fn name(&self) -> &'static str {
        "Resize"
    }

    fn dims(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.output.dims.clone())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        fixed("Resize", std::slice::from_ref(&self.input), inputs, std::slice::from_ref(&self.output))
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.inputs(group)[0];
        let buffer = cx.want(x, Layout::Nchw)?;
        let step = ResampleStep { from: self.from, rates: self.rates.clone() };
        cx.step(group, Layout::Nchw, Box::new(step), vec![buffer], 0)
    }
}

struct ResampleStep {
    from: [usize; 2],
    rates: [Rate; 2],
}

impl Step for ResampleStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let ([h, w], [down, across]) = (self.from, &self.rates);
        let (x, ow) = (x.get(0), across.len());
        if ow == 0 || w == 0 {
            return;
        }
        let work = 2 * down.iter().map(Vec::len).max().unwrap_or(1);
        par::for_each_piece(y, ow, work, |rows, y| {
            // One row of the input's width, summed down, then across.
            let mut summed = vec![0.0f32; w];
            for (row, y) in rows.zip(y.chunks_exact_mut(ow)) {
                let (plane, at) = (&x[row / down.len() * h * w..][..h * w], row % down.len());
                summed.fill(0.0);
                for &(i, weight) in &down[at] {
                    summed.iter_mut().zip(&plane[i * w..][..w]).for_each(|(s, x)| *s += weight * x);
                }
                for (y, taps) in y.iter_mut().zip(across) {
                    *y = taps.iter().map(|&(i, weight)| weight * summed[i]).sum();
                }
            }
        });
    }

    fn describe(&self) -> String {
        format!("Resize {:?} to {}x{}", self.from, self.rates[0].len(), self.rates[1].len())
    }
}
