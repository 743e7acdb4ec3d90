//! Group and instance normalisation: each image's groups of channels by their own mean and variance.

use swath_kernels::epilogue::Activation;
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::norm::{self, Norm, Sets};

use super::batch_norm::NormGradientStep;
use super::four;
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Step, pass};
use crate::graph::{Fact, Gradient, Group, Lower, Operator};

/// Normalises groups of neighbouring channels of each image. Inputs: the image, and a scale and a shift `[c]` if there are any. Results: the
/// image, and for the gradient the mean and `1 / sqrt(variance + eps)` of each image's groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNorm {
    /// PyTorch's name.
    name: &'static str,
    groups: usize,
    channels: usize,
    eps: f64,
}

impl GroupNorm {
    /// Groups of `[n, channels, ..]`; `eps` is added to the variances.
    pub fn new(groups: usize, channels: usize, eps: f64) -> Self {
        Self { name: "GroupNorm", groups, channels, eps }
    }

    /// Each channel of `[n, channels, h, w]` alone: instance normalisation.
    pub fn instance(channels: usize, eps: f64) -> Self {
        Self { name: "InstanceNorm2d", groups: channels, channels, eps }
    }

    /// Groups of each image.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// What is added to the variances.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    fn is_instance(&self) -> bool {
        self.name == "InstanceNorm2d"
    }

    /// The kernel's geometry, of a value in a layout.
    fn kernel(&self, cx: &Lower<'_>, v: crate::graph::ValueId, layout: Layout) -> Result<Norm> {
        Ok(Norm::new(layout, cx.extents(v), Sets::Groups(self.groups))?)
    }
}

impl Operator for GroupNorm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn results(&self) -> usize {
        3
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        if self.is_instance() {
            four(self.name, inputs[0])?;
        }
        let &[n, c, ref rest @ ..] = inputs[0] else {
            return Err(Error::Rank { what: self.name, takes: "[n, c, ..]", gets: inputs[0].to_vec() });
        };
        if c != self.channels {
            return Err(Error::Channels { what: self.name, takes: self.channels, gets: c });
        }
        inputs[1..].iter().try_for_each(|v| super::expect("a value for each channel of a normalisation", v, &[c]))?;
        // PyTorch's rule: a lone value has no variance.
        let pixels = swath_kernels::shape::checked_elements("image", rest)?;
        let values =
            if self.is_instance() { pixels } else { n.saturating_mul(c / self.groups.max(1)).saturating_mul(pixels) };
        if values == 1 {
            let rule = format!("{} needs more than one", self.name);
            return Err(Error::Setting { what: "the number of values to normalise", value: "1".into(), rule });
        }
        Norm::new(Layout::Nchw, [n, c, pixels, 1], Sets::Groups(self.groups))?;
        Ok(inputs[0].to_vec())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        let dims: Vec<&[usize]> = inputs.iter().map(|f| f.dims.as_slice()).collect();
        let dims = self.dims(&dims)?;
        let sets = Fact::f32([dims[0] * self.groups]);
        Ok(vec![Fact::f32(dims), sets.clone(), sets])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let Place { buffer, layout } = cx.native(operands[0])?;
        let norm = self.kernel(cx, operands[0], layout)?;
        let mut inputs = vec![buffer];
        for v in &operands[1..] {
            inputs.push(cx.want(*v, Layout::Nchw)?);
        }
        let step = NormStep { name: self.name, eps: self.eps as f32, norm, level: cx.level() };
        cx.step_all(group, &[layout, Layout::Nchw, Layout::Nchw], Box::new(step), inputs, norm.scratch())
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let affine = g.inputs() > 1;
        let mut inputs = vec![g.input(0), g.dy(), g.output(1), g.output(2)];
        if affine {
            inputs.push(g.input(1));
        }
        let d = g.push(GroupNormGradient { op: *self, affine }, &inputs)?;
        (0..d.len()).try_for_each(|i| g.add(i, d[i]))
    }
}

struct NormStep {
    name: &'static str,
    eps: f32,
    norm: Norm,
    level: Level,
}

impl Step for NormStep {
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], _: bool, scratch: &mut Scratch) {
        let [y, mean, inv] = y else { unreachable!("image, means, inverse deviations") };
        let affine = x.len() > 1;
        let (w, b) = (affine.then(|| x.get(1)), affine.then(|| x.get(2)));
        let forward = norm::Forward { x: x.get(0), w, b, eps: self.eps, ..norm::Forward::default() };
        let out = norm::Normalised { y, mean, inv, running: None, affine: None };
        let scratch = scratch.take(self.norm.scratch()).expect("it was reserved");
        pass(self.level, |place| self.norm.forward(place, &forward, out, scratch));
    }

    fn describe(&self) -> String {
        self.name.into()
    }
}

/// Gradients at image, scale and shift, from the image, the gradient at the output, means, inverse deviations, and the scale if there is
/// one.
#[derive(Clone, Copy, Debug)]
struct GroupNormGradient {
    op: GroupNorm,
    affine: bool,
}

impl Operator for GroupNormGradient {
    fn name(&self) -> &'static str {
        if self.op.is_instance() { "InstanceNorm2dGradient" } else { "GroupNormGradient" }
    }

    fn results(&self) -> usize {
        if self.affine { 3 } else { 1 }
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        let channels = Fact::f32([self.op.channels]);
        let mut facts = vec![inputs[0].clone(), channels.clone(), channels];
        facts.truncate(self.results());
        Ok(facts)
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let Place { buffer, layout } = cx.native(operands[0])?;
        let norm = self.op.kernel(cx, operands[0], layout)?;
        let mut inputs = vec![buffer, cx.want(operands[1], layout)?];
        for v in &operands[2..] {
            inputs.push(cx.want(*v, Layout::Nchw)?);
        }
        let activation = Activation::Identity;
        let step = NormGradientStep { name: self.op.name, variance: None, activation, norm, level: cx.level() };
        let layouts = [layout, Layout::Nchw, Layout::Nchw];
        cx.step_all(group, &layouts[..self.results()], Box::new(step), inputs, norm.scratch())
    }
}
