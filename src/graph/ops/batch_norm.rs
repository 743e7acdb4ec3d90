//! Batch normalisation in inference: `y = (x - mean) / sqrt(var + eps) * weight + bias`, with the running statistics.
//!
//! Per channel that is a scale and a shift ([`Affine`]). Behind a convolution that nothing else reads, both go into
//! its weights and bias when the graph is compiled, and nothing is left to run; elsewhere it is a step of its own.

use std::sync::Arc;

use swath_kernels::act;
use swath_kernels::epilogue::Activation;
use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout, blocks};
use swath_kernels::norm::{self, Norm, Sets};

use super::activation::ActivationGradient;
use super::four;
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::affine::Affine;
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Planes, Step, clear_padding, pass};
use crate::graph::{Absorbs, Fact, Gradient, Group, Lower, Operator, Recorded, ValueId};
use crate::par;
use crate::tensor::Tensor;

/// Batch normalisation of images. Inputs: the image, running mean and variance, and scale and shift if they are trained; each of
/// them `[c]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    /// Channels.
    pub channels: usize,
    /// Added to the variance.
    pub eps: f64,
    /// How far a step moves the running statistics; `None` keeps them.
    pub momentum: Option<f64>,
}

impl BatchNorm {
    fn check(&self, inputs: &[&[usize]]) -> Result<()> {
        let [_, c, _, _] = four("BatchNorm2d", inputs[0])?;
        if c != self.channels {
            return Err(Error::Channels { what: "BatchNorm2d", takes: self.channels, gets: c });
        }
        inputs[1..].iter().try_for_each(|v| super::expect("a value for each channel of BatchNorm2d", v, &[c]))
    }

    /// The scale and shift that mean, variance, weight and bias amount to.
    fn affine(&self, values: &[&[f32]]) -> Affine {
        let channel = |c: usize| {
            let value = |i: usize, missing: f64| values.get(i).map_or(missing, |v| f64::from(v[c]));
            let scale = value(2, 1.0) / (value(1, 1.0) + self.eps).sqrt();
            (scale, value(3, 0.0) - value(0, 0.0) * scale)
        };
        let (scale, shift) = (0..self.channels).map(channel).unzip();
        Affine { scale, shift }
    }
}

impl Operator for BatchNorm {
    fn name(&self) -> &'static str {
        "BatchNorm2d"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        self.check(inputs)?;
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let Place { buffer, layout } = cx.native(operands[0])?;
        let extents = cx.extents(operands[0]);
        let constants: Option<Vec<&[f32]>> =
            operands[1..].iter().map(|v| cx.constant(*v).map(|t| t.as_slice())).collect();
        if let Some(constants) = constants {
            let affine = self.affine(&constants);
            let step = Normalize::new(&affine, group.activation, layout, extents, cx.level());
            return cx.step(group, layout, Box::new(step), vec![buffer], 0);
        }
        // Frozen while other layers are trained.
        let mut inputs = vec![buffer];
        for v in &operands[1..] {
            inputs.push(cx.want(*v, Layout::Nchw)?);
        }
        let norm = Norm::new(layout, extents, Sets::Batch)?;
        let scratch = norm.scratch() + norm.sets();
        let (activation, level) = (group.activation, cx.level());
        let step = Frozen { op: *self, activation, norm, layout, dims: extents, level };
        cx.step(group, layout, Box::new(step), inputs, scratch)
    }

    /// Of frozen statistics.
    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let (affine, dy) = (g.inputs() > 3, g.dy());
        let activation = Activation::Identity;
        gradient(g, BatchNormGradient { op: *self, frozen: true, affine, activation }, dy)
    }

    fn in_training(&self) -> Option<Arc<dyn Operator>> {
        Some(Arc::new(TrainingBatchNorm { op: *self, residual: false, activation: Activation::Identity }))
    }

    fn freezes(&self) -> bool {
        true
    }

    fn absorbs(&self) -> Absorbs {
        Absorbs::ACTIVATION
    }

    fn as_affine(&self, inputs: &[Option<&Tensor>]) -> Option<Affine> {
        let values: Option<Vec<&[f32]>> = inputs[1..].iter().map(|t| t.map(|t| t.as_slice())).collect();
        Some(self.affine(&values?))
    }
}

/// Batch normalisation by the statistics of the batch, then the sum with a residual, the last input, and an activation. Results: the
/// image, mean and `1 / sqrt(variance + eps)` for the gradient, the next running mean and variance, and the scale and shift that
/// the image was computed with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrainingBatchNorm {
    op: BatchNorm,
    residual: bool,
    activation: Activation,
}

impl TrainingBatchNorm {
    /// Numbers of the results that the gradient reads: mean, inverse deviation, scale and shift.
    const MEAN: usize = 1;
    const INVERSE: usize = 2;
    const SCALE: usize = 5;
    const SHIFT: usize = 6;

    /// The inputs that [`BatchNorm`] has too.
    fn plain(&self, inputs: usize) -> usize {
        inputs - usize::from(self.residual)
    }
}

impl Operator for TrainingBatchNorm {
    fn name(&self) -> &'static str {
        "BatchNorm2d"
    }

    fn results(&self) -> usize {
        7
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let plain = self.plain(inputs.len());
        self.op.check(&inputs[..plain])?;
        inputs[plain..].iter().try_for_each(|r| super::expect("what is added to BatchNorm2d", r, inputs[0]))?;
        Ok(inputs[0].to_vec())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        let dims: Vec<&[usize]> = inputs.iter().map(|f| f.dims.as_slice()).collect();
        let [n, c, h, w] = four("BatchNorm2d", &self.dims(&dims)?)?;
        if n * h * w < 2 {
            let rule = "BatchNorm2d in training needs at least 2".into();
            return Err(Error::Setting {
                what: "the number of values per channel",
                value: (n * h * w).to_string(),
                rule,
            });
        }
        let channels = Fact::f32([c]);
        let mut facts = vec![channels; self.results()];
        facts[0] = Fact::f32([n, c, h, w]);
        Ok(facts)
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let Place { buffer, layout } = cx.native(operands[0])?;
        let norm = Norm::new(layout, cx.extents(operands[0]), Sets::Batch)?;
        let mut inputs = vec![buffer];
        for (i, v) in operands.iter().enumerate().skip(1) {
            inputs.push(cx.want(*v, if i < self.plain(operands.len()) { Layout::Nchw } else { layout })?);
        }
        let scratch = norm.scratch();
        let step = TrainingStep { op: *self, norm, level: cx.level() };
        let mut layouts = [Layout::Nchw; 7];
        layouts[0] = layout;
        cx.step_all(group, &layouts, Box::new(step), inputs, scratch)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let (mut dy, mut activation) = (g.dy(), self.activation);
        if self.residual {
            // The residual's gradient is the activation's, which is computed once for both.
            if activation != Activation::Identity {
                dy = g.push(ActivationGradient(activation), &[g.output(0), dy])?[0];
                activation = Activation::Identity;
            }
            g.add(g.inputs() - 1, dy)?;
        }
        let affine = self.plain(g.inputs()) > 3;
        gradient(g, BatchNormGradient { op: self.op, frozen: false, affine, activation }, dy)
    }

    fn in_training_with(&self, residual: bool, activation: Activation) -> Option<Arc<dyn Operator>> {
        let free = !self.residual && self.activation == Activation::Identity;
        (free && norm::fuses(activation)).then(|| Arc::new(Self { residual, activation, ..*self }) as Arc<dyn Operator>)
    }

    fn updates(&self) -> &'static [(usize, usize)] {
        &[(1, 3), (2, 4)]
    }

    /// One pass over the image, which the gradient reads anyway. A residual would have to be kept in the place of the result.
    fn again(&self, node: &Recorded<'_>) -> Option<(Arc<dyn Operator>, Vec<ValueId>)> {
        let [mean, scale, shift] = [Self::MEAN, Self::SCALE, Self::SHIFT].map(|slot| node.result(slot));
        let operands = vec![node.inputs[0], mean, scale, shift];
        (!self.residual).then(|| (Arc::new(Again(self.activation)) as Arc<dyn Operator>, operands))
    }
}

struct TrainingStep {
    op: TrainingBatchNorm,
    norm: Norm,
    level: Level,
}

impl Step for TrainingStep {
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], _: bool, scratch: &mut Scratch) {
        let [y, mean, inv, next_mean, next_var, scale, shift] = y else { unreachable!("seven results") };
        next_mean.copy_from_slice(x.get(1));
        next_var.copy_from_slice(x.get(2));
        let (TrainingBatchNorm { op, residual, activation }, plain) = (self.op, self.op.plain(x.len()));
        let affine = self.norm.sets() > 0 && plain > 3;
        let forward = norm::Forward {
            x: x.get(0),
            w: affine.then(|| x.get(3)),
            b: affine.then(|| x.get(4)),
            eps: op.eps as f32,
            residual: residual.then(|| x.get(plain)),
            activation,
        };
        let running =
            op.momentum.map(|momentum| norm::Running { mean: next_mean, var: next_var, momentum: momentum as f32 });
        let out = norm::Normalised { y, mean, inv, running, affine: Some((scale, shift)) };
        let scratch = scratch.take(self.norm.scratch()).expect("it was reserved");
        pass(self.level, |place| self.norm.forward(place, &forward, out, scratch));
    }

    fn describe(&self) -> String {
        let sum = if self.op.residual { " + residual" } else { "" };
        match self.op.activation {
            Activation::Identity => format!("BatchNorm2d of the batch{sum}"),
            activation => format!("BatchNorm2d of the batch{sum} + {}", super::activation::name(activation)),
        }
    }
}

/// What a [`TrainingBatchNorm`] computed, once more, to the bit. Inputs: the image, and mean, scale and shift of each channel.
#[derive(Clone, Copy, Debug)]
struct Again(Activation);

impl Operator for Again {
    fn name(&self) -> &'static str {
        "BatchNorm2dAgain"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let Place { buffer, layout } = cx.native(operands[0])?;
        let norm = Norm::new(layout, cx.extents(operands[0]), Sets::Batch)?;
        let mut inputs = vec![buffer];
        for v in &operands[1..] {
            inputs.push(cx.want(*v, Layout::Nchw)?);
        }
        let step = AgainStep { activation: self.0, ones: vec![1.0; norm.sets()], norm, level: cx.level() };
        cx.step(group, layout, Box::new(step), inputs, norm.scratch())
    }
}

struct AgainStep {
    activation: Activation,
    /// In place of inverse deviations, which are in the scale.
    ones: Vec<f32>,
    norm: Norm,
    level: Level,
}

impl Step for AgainStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, scratch: &mut Scratch) {
        let scratch = scratch.take(self.norm.scratch()).expect("it was reserved");
        let (w, b, activation) = (Some(x.get(2)), Some(x.get(3)), self.activation);
        let forward = norm::Forward { x: x.get(0), w, b, activation, ..norm::Forward::default() };
        pass(self.level, |place| self.norm.evaluate(place, &forward, x.get(1), &self.ones, y, scratch));
    }

    fn describe(&self) -> String {
        match self.activation {
            Activation::Identity => "BatchNorm2d once more".into(),
            activation => format!("BatchNorm2d + {} once more", super::activation::name(activation)),
        }
    }
}

/// Appends the gradients of a normalisation, from the gradient at its output.
fn gradient(g: &mut Gradient<'_>, op: BatchNormGradient, dy: ValueId) -> Result<()> {
    let statistics = if op.frozen {
        [g.input(1), g.input(2)]
    } else {
        [TrainingBatchNorm::MEAN, TrainingBatchNorm::INVERSE].map(|slot| g.output(slot))
    };
    let mut inputs = vec![g.input(0), dy, statistics[0], statistics[1]];
    if op.affine {
        inputs.push(g.input(3));
    }
    if op.activation != Activation::Identity {
        inputs.extend([TrainingBatchNorm::SCALE, TrainingBatchNorm::SHIFT].map(|slot| g.output(slot)));
    }
    let wanted = g.needs(0) || op.affine && (g.needs(3) || g.needs(4));
    if wanted {
        let d = g.push(op, &inputs)?;
        g.add(0, d[0])?;
        if op.affine {
            g.add(3, d[1])?;
            g.add(4, d[2])?;
        }
    }
    Ok(())
}

/// Gradients at image, scale and shift. Inputs: the image, the gradient at the output, the mean, `1 / sqrt(variance + eps)` (the
/// variance where it is frozen), the scale if there is one, and, if there is an activation, scale and shift that the forward pass
/// computed with.
#[derive(Clone, Copy, Debug)]
struct BatchNormGradient {
    op: BatchNorm,
    frozen: bool,
    /// Whether there are scale and shift.
    affine: bool,
    activation: Activation,
}

impl Operator for BatchNormGradient {
    fn name(&self) -> &'static str {
        "BatchNorm2dGradient"
    }

    fn results(&self) -> usize {
        3
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        let channels = Fact::f32([self.op.channels]);
        Ok(vec![inputs[0].clone(), channels.clone(), channels])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let Place { buffer, layout } = cx.native(operands[0])?;
        let norm = Norm::new(layout, cx.extents(operands[0]), Sets::Batch)?;
        let mut inputs = vec![buffer];
        for (i, v) in operands.iter().enumerate().skip(1) {
            inputs.push(cx.want(*v, if i == 1 { layout } else { Layout::Nchw })?);
        }
        let scratch = norm.scratch() + self.op.channels;
        let variance = self.frozen.then_some(self.op.eps as f32);
        let activation = self.activation;
        let step = NormGradientStep { name: "BatchNorm2d", variance, activation, norm, level: cx.level() };
        cx.step_all(group, &[layout, Layout::Nchw, Layout::Nchw], Box::new(step), inputs, scratch)
    }
}

/// Gradients at the image, and at scale and shift where they are asked for. Operands: the image, the gradient at the output, means, inverse
/// deviations, the scale if there is one, and the forward pass's scale and shift if there is an activation.
pub(super) struct NormGradientStep {
    pub(super) name: &'static str,
    /// Of statistics that are given: operand 3 is the variance, to which this is added.
    pub(super) variance: Option<f32>,
    pub(super) activation: Activation,
    pub(super) norm: Norm,
    pub(super) level: Level,
}

impl Step for NormGradientStep {
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], _: bool, scratch: &mut Scratch) {
        let (inv, scratch) = with_inverse(&self.norm, scratch, self.variance.map(|eps| (x.get(3), eps)));
        let affine = (self.activation != Activation::Identity).then(|| (x.get(x.len() - 2), x.get(x.len() - 1)));
        let backward = norm::Backward {
            x: x.get(0),
            dy: x.get(1),
            activation: self.activation,
            affine,
            w: (x.len() - if affine.is_some() { 2 } else { 0 } > 4).then(|| x.get(4)),
            mean: x.get(2),
            inv: if self.variance.is_some() { inv } else { x.get(3) },
            frozen: self.variance.is_some(),
        };
        let out = match y {
            [dx] => norm::Gradients { dx: Some(dx), ..norm::Gradients::default() },
            [dx, dw, db] => norm::Gradients { dx: Some(dx), dw: Some(dw), db: Some(db) },
            _ => unreachable!("the image's gradient, and those of scale and shift"),
        };
        pass(self.level, |place| self.norm.backward(place, &backward, out, scratch));
    }

    fn describe(&self) -> String {
        match self.activation {
            Activation::Identity => format!("{} gradient", self.name),
            activation => format!("{} + {} gradient", self.name, super::activation::name(activation)),
        }
    }
}

/// `1 / sqrt(variance + eps)` where a variance is given, and the normalisation's own scratch memory.
fn with_inverse<'s>(
    norm: &Norm,
    scratch: &'s mut Scratch,
    variance: Option<(&[f32], f32)>,
) -> (&'s [f32], &'s mut [f32]) {
    let sets = if variance.is_some() { norm.sets() } else { 0 };
    let (inv, rest) = scratch.take(norm.scratch() + sets).expect("it was reserved").split_at_mut(sets);
    if let Some((variance, eps)) = variance {
        norm::inverse(variance, eps, inv);
    }
    (inv, rest)
}

/// A normalisation whose running statistics come with each run: operands 1 and 2, before scale and shift.
struct Frozen {
    op: BatchNorm,
    activation: Activation,
    norm: Norm,
    layout: Layout,
    dims: [usize; 4],
    level: Level,
}

impl Step for Frozen {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, scratch: &mut Scratch) {
        let (inv, scratch) = with_inverse(&self.norm, scratch, Some((x.get(2), self.op.eps as f32)));
        let affine = x.len() > 3;
        let (w, b) = (affine.then(|| x.get(3)), affine.then(|| x.get(4)));
        // The normalisation's pass clips, where zero stays zero; other activations are a pass of their own.
        let clips = norm::fuses(self.activation);
        let activation = if clips { self.activation } else { Activation::Identity };
        let forward = norm::Forward { x: x.get(0), w, b, activation, ..norm::Forward::default() };
        pass(self.level, |place| self.norm.evaluate(place, &forward, x.get(1), inv, y, scratch));
        if !clips {
            par::for_each_piece(y, BLOCK, 4, |_, y| act::apply_inplace(self.level, self.activation, y));
            clear_padding(self.layout, self.dims, y);
        }
    }

    fn describe(&self) -> String {
        "BatchNorm2d, frozen".into()
    }
}

/// A normalisation that no convolution could take along, and the activation behind it.
struct Normalize {
    scale: Vec<f32>,
    shift: Vec<f32>,
    activation: Activation,
    layout: Layout,
    dims: [usize; 4],
    level: Level,
}

impl Normalize {
    /// For images of extents `dims` in `layout`.
    pub(crate) fn new(affine: &Affine, activation: Activation, layout: Layout, dims: [usize; 4], level: Level) -> Self {
        // Channels that pad the last block are scaled by zero.
        let padded = |values: &[f64]| {
            let mut v: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            v.resize(blocks(v.len()) * BLOCK, 0.0);
            v
        };
        Self { scale: padded(&affine.scale), shift: padded(&affine.shift), activation, layout, dims, level }
    }

    /// Number of the first channel in row `r` of the planes.
    fn channel(&self, r: usize) -> usize {
        let [_, c, h, _] = self.dims;
        match self.layout {
            Layout::Nchw => r / h % c,
            Layout::Nhwc => 0,
            Layout::Blocked => r / h % blocks(c) * BLOCK,
        }
    }
}

impl Step for Normalize {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], in_place: bool, _: &mut Scratch) {
        let planes = Planes::new(self.layout, self.dims);
        let row = planes.w * planes.inner;
        let source = if in_place { &[] } else { x.get(0) };
        let work = if self.activation == Activation::Identity { 2 } else { 4 };
        par::for_each_piece(y, row, work, |rows, y| {
            for (r, y) in rows.zip(y.chunks_exact_mut(row)) {
                if !in_place {
                    y.copy_from_slice(&source[r * row..][..row]);
                }
                let c = self.channel(r);
                affine(y, &self.scale[c..c + planes.inner], &self.shift[c..c + planes.inner]);
            }
            act::apply_inplace(self.level, self.activation, y);
        });
        clear_padding(self.layout, self.dims, y);
    }

    fn in_place(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        match self.activation {
            Activation::Identity => "BatchNorm2d".into(),
            activation => format!("BatchNorm2d + {}", super::activation::name(activation)),
        }
    }
}

/// `y = y * scale + shift`, pixel by pixel. It rounds twice at every level, so levels agree.
fn affine(y: &mut [f32], scale: &[f32], shift: &[f32]) {
    match (<&[f32; BLOCK]>::try_from(scale), <&[f32; BLOCK]>::try_from(shift)) {
        // Known at compile time, so that the compiler makes vectors of it.
        (Ok(scale), Ok(shift)) => {
            for px in y.as_chunks_mut::<BLOCK>().0 {
                (0..BLOCK).for_each(|k| px[k] = px[k] * scale[k] + shift[k]);
            }
        }
        _ if scale.len() == 1 => y.iter_mut().for_each(|y| *y = *y * scale[0] + shift[0]),
        _ => {
            for px in y.chunks_exact_mut(scale.len()) {
                px.iter_mut().zip(scale.iter().zip(shift)).for_each(|(y, (s, t))| *y = *y * s + t);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::step::level;
    use crate::graph::step::tests::{counting, run};

    #[test]
    fn folded_weights_belong_to_their_channel_in_both_orders() {
        let affine = Affine { scale: vec![2.0, 10.0], shift: vec![0.5, -1.0] };
        // [oc = 2, taps = 3]
        let (w, b) = affine.fold(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], Some(&[1.0, 2.0]), 3).unwrap();
        assert_eq!((w, b), (vec![2.0, 4.0, 6.0, 40.0, 50.0, 60.0], vec![2.5, 19.0]));
        // [ic = 2, oc = 2, taps = 1], no bias
        let (w, b) = affine.fold(&[1.0, 2.0, 3.0, 4.0], None, 1).unwrap();
        assert_eq!((w, b), (vec![2.0, 20.0, 6.0, 40.0], vec![0.5, -1.0]));
    }

    #[test]
    fn every_layout_scales_the_right_channels() {
        for c in [1, 5, 16, 18] {
            let dims = [1, c, 1, 3];
            let channel = |k: usize| (k as f64 + 1.0, 0.5 * k as f64 + 1.0);
            let (scale, shift) = (0..c).map(channel).unzip();
            let affine = Affine { scale, shift };
            for layout in Layout::ALL {
                let step = Normalize::new(&affine, Activation::Sigmoid, layout, dims, level(None).unwrap());
                let got = run(&step, &[&counting(layout, c, 3)], layout.len(dims));
                let mut nchw = counting(Layout::Nchw, c, 3);
                for (i, v) in nchw.iter_mut().enumerate() {
                    let (scale, shift) = channel(i / 3);
                    *v = *v * scale as f32 + shift as f32;
                }
                act::apply_inplace(level(None).unwrap(), Activation::Sigmoid, &mut nchw);
                let mut expected = vec![0.0; got.len()];
                swath_kernels::layout::reorder(Layout::Nchw, &nchw, layout, &mut expected, dims);
                assert_eq!(got, expected, "{c} channels, {layout:?}");
            }
        }
    }
}
