//! Dropout: the identity in inference; in training zeros at random, and the rest scaled by `1 / (1 - p)`.

use swath_kernels::layout::Layout;

use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Step};
use crate::graph::{Gradient, Group, Lower, Operator};
use crate::par;
use std::sync::Arc;

/// Zeros elements, or whole channels, with a probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of a zero.
    pub p: f32,
    /// Whether whole channels become zero: PyTorch's `Dropout2d`.
    pub channels: bool,
}

impl Operator for Dropout {
    fn name(&self) -> &'static str {
        if self.channels { "Dropout2d" } else { "Dropout" }
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        if !(0.0..=1.0).contains(&self.p) {
            let rule = "a probability is between 0 and 1".into();
            return Err(Error::Setting { what: "p of Dropout", value: self.p.to_string(), rule });
        }
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, _: &Group, _: &mut Lower<'_>) -> Result<()> {
        unreachable!("identities are left out before")
    }

    fn in_training(&self) -> Option<Arc<dyn Operator>> {
        Some(Arc::new(TrainingDropout(*self)))
    }

    fn is_identity(&self) -> bool {
        true
    }
}

/// Dropout in training. Input 1 is `[4]`: the step's seed in 16-bit parts, which are exact as floats. The same seed drops the same
/// elements, in the gradient too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrainingDropout(Dropout);

impl Operator for TrainingDropout {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        self.0.dims(inputs)
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let (x, seed) = (cx.input(group, 0), cx.input(group, 1));
        let Place { buffer, layout } = cx.native(x)?;
        let inputs = vec![buffer, cx.want(seed, Layout::Nchw)?];
        let dims = cx.extents(x);
        let step = DropoutStep { op: self.0, node: group_number(group), layout, dims };
        cx.step(group, layout, Box::new(step), inputs, 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let op = DropoutGradient { op: self.0, node: g.node() as u64 };
        let dx = g.push(op, &[g.dy(), g.input(1)])?;
        g.add(0, dx[0])
    }

    fn takes_seed(&self) -> bool {
        true
    }
}

fn group_number(group: &Group) -> u64 {
    group.node as u64
}

/// The same mask, on the gradient.
#[derive(Clone, Copy, Debug)]
struct DropoutGradient {
    op: Dropout,
    node: u64,
}

impl Operator for DropoutGradient {
    fn name(&self) -> &'static str {
        "DropoutGradient"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let (dy, seed) = (cx.input(group, 0), cx.input(group, 1));
        let Place { buffer, layout } = cx.native(dy)?;
        let inputs = vec![buffer, cx.want(seed, Layout::Nchw)?];
        let step = DropoutStep { op: self.op, node: self.node, layout, dims: cx.extents(dy) };
        cx.step(group, layout, Box::new(step), inputs, 0)
    }
}

struct DropoutStep {
    op: Dropout,
    /// The forward node's number: each has random numbers of its own.
    node: u64,
    layout: Layout,
    dims: [usize; 4],
}

/// A well-mixed function of its argument: SplitMix64, Steele, Lea and Flood 2014, <https://doi.org/10.1145/2660193.2660195>.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Step for DropoutStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], in_place: bool, _: &mut Scratch) {
        let seed = x.get(1).iter().fold(0u64, |s, &part| s << 16 | part as u64 & 0xffff);
        let key = mix(seed ^ mix(self.node));
        let p = self.op.p;
        let scale = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
        // 24 bits of each number.
        let limit = (f64::from(p) * f64::from(1u32 << 24)) as u64;
        let factor = |i: u64| if mix(key ^ i) >> 40 < limit { 0.0 } else { scale };
        let [_, c, h, w] = self.dims;
        let source = if in_place { &[] } else { x.get(0) };
        let strides = self.layout.strides(self.dims);
        // The number of an element is its place in row-major order, so that the layout changes nothing.
        let number = |at: usize| {
            let (image, rest) = (at / strides.n.max(1), at % strides.n.max(1));
            let (channel, pixel) = match self.layout {
                Layout::Nchw => (rest / (h * w), rest % (h * w)),
                Layout::Nhwc => (rest % c, rest / c),
                Layout::Blocked => (rest / (16 * h * w) * 16 + rest % 16, rest / 16 % (h * w)),
            };
            let plane = (image * c + channel) as u64;
            if self.op.channels { plane } else { plane * (h * w) as u64 + pixel as u64 }
        };
        par::for_each_piece(y, 1, 8, |places, y| {
            for (at, y) in places.zip(y) {
                let v = if in_place { *y } else { source[at] };
                *y = v * factor(number(at));
            }
        });
    }

    fn in_place(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        format!("{} of {}", self.op.name(), self.op.p)
    }
}
