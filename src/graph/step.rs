//! What an operator becomes when shapes, layouts and weights are fixed: something that can only run.

use core::any::Any;

use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout, blocks};
use swath_kernels::pass::Place;

use crate::conv::Scratch;
use crate::error::Result;
use crate::layout::reorder_checked;
use crate::par;

/// The inputs of one step, looked up by number.
pub struct Operands<'a> {
    pub(crate) operand: &'a (dyn Fn(usize) -> &'a [f32] + Sync),
    pub(crate) len: usize,
}

impl<'a> Operands<'a> {
    /// Input `i`: its floats in the layout that the step was made for. Other elements lie in the same bytes.
    pub fn get(&self, i: usize) -> &'a [f32] {
        (self.operand)(i)
    }

    /// Number of inputs.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// One step of a compiled graph. Slices have the lengths that it was made for, so it cannot fail.
///
/// A step with one result implements [`Step::run`], one with several [`Step::run_all`].
pub trait Step: Any + Send + Sync {
    /// Computes the whole of `y`, the zeros that pad the last channel block included. If it runs in place, operand
    /// 0 is in `y`.
    fn run(&self, _x: &Operands<'_>, _y: &mut [f32], _in_place: bool, _scratch: &mut Scratch) {
        unreachable!("{} has several results", self.describe())
    }

    /// Computes all results.
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], in_place: bool, scratch: &mut Scratch) {
        let [y] = y else { unreachable!("{} has one result", self.describe()) };
        self.run(x, y, in_place, scratch);
    }

    /// Whether it can run in place.
    fn in_place(&self) -> bool {
        false
    }

    /// Whether its two operands may be exchanged.
    fn commutes(&self) -> bool {
        false
    }

    /// What it does, with the chosen algorithm.
    fn describe(&self) -> String;

    /// Bytes of memory that it keeps for itself, such as packed weights.
    fn bytes(&self) -> usize {
        0
    }

    /// Floats of weights that it packs in each run, in memory that the scratch lends.
    fn packed_len(&self) -> usize {
        0
    }
}

/// An activation tensor seen as `[planes][h][w][inner]`, which every layout is: `inner` is 1 in NCHW, the block when
/// blocked, all channels in NHWC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes {
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) inner: usize,
}

impl Planes {
    pub(crate) fn new(layout: Layout, [_, c, h, w]: [usize; 4]) -> Self {
        let inner = match layout {
            Layout::Nchw => 1,
            Layout::Nhwc => c,
            Layout::Blocked => BLOCK,
        };
        Self { h, w, inner }
    }
}

/// Sets the channels that pad the last block of a blocked tensor to zero.
pub(crate) fn clear_padding(layout: Layout, dims: [usize; 4], y: &mut [f32]) {
    let [n, c, h, w] = dims;
    let used = c % BLOCK;
    if layout != Layout::Blocked || used == 0 {
        return;
    }
    let (image, last) = (layout.len([1, c, h, w]), (blocks(c) - 1) * h * w * BLOCK);
    for i in 0..n {
        for px in y[i * image + last..(i + 1) * image].chunks_exact_mut(BLOCK) {
            px[used..].fill(0.0);
        }
    }
}

/// The level that steps without a plan of their own take their kernels from.
pub(crate) fn level(asked: Option<Level>) -> Result<Level> {
    let cpu = crate::cpu()?;
    Ok(asked.map_or(Ok(cpu), |l| cpu.lowered(l))?.level)
}

/// Runs a pass of the kernels at a level, on the run's threads.
pub(crate) fn pass<T>(level: Level, f: impl FnOnce(&Place<'_>) -> T) -> T {
    f(&Place::new(level, &*par::everyone()))
}

/// A change of layout, or a plain copy.
pub(crate) struct Reorder {
    pub(crate) from: Layout,
    pub(crate) to: Layout,
    pub(crate) dims: [usize; 4],
}

impl Step for Reorder {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        reorder_checked(self.from, x.get(0), self.to, y, self.dims);
    }

    fn describe(&self) -> String {
        match self.from == self.to {
            true => "copy".into(),
            false => format!("reorder {} to {}", self.from.name(), self.to.name()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use swath_kernels::layout::reorder;

    /// Runs a step on operands into memory full of NaN.
    pub(crate) fn run(forward: &dyn Step, operands: &[&[f32]], len: usize) -> Vec<f32> {
        let mut y = vec![f32::NAN; len];
        forward.run(
            &Operands { operand: &|i| operands[i], len: operands.len() },
            &mut y,
            false,
            &mut Scratch::default(),
        );
        y
    }

    /// `[1, c, 1, w]` in a layout, with elements 1, 2, 3 and so on.
    pub(crate) fn counting(layout: Layout, c: usize, w: usize) -> Vec<f32> {
        let x: Vec<f32> = (0..c * w).map(|i| i as f32 + 1.0).collect();
        let mut y = vec![f32::NAN; layout.len([1, c, 1, w])];
        reorder(Layout::Nchw, &x, layout, &mut y, [1, c, 1, w]);
        y
    }

    #[test]
    fn a_reorder_can_be_a_copy() {
        let x = counting(Layout::Blocked, 5, 3);
        let copy = Reorder { from: Layout::Blocked, to: Layout::Blocked, dims: [1, 5, 1, 3] };
        assert_eq!((run(&copy, &[&x], x.len()), copy.describe()), (x, "copy".into()));
    }

    #[test]
    fn padding_of_every_image_is_cleared() {
        let mut y = vec![1.0; Layout::Blocked.len([2, 17, 1, 2])];
        clear_padding(Layout::Blocked, [2, 17, 1, 2], &mut y);
        assert_eq!(y.iter().sum::<f32>(), (2 * 17 * 2) as f32);
        assert_eq!(y[..32], [1.0; 32]);
    }
}
