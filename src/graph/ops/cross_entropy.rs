//! Cross-entropy on logits, from the kernel crate's `softmax` (log-softmax and negative log-likelihood in one).

use core::cell::RefCell;
use std::sync::Arc;

use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::pass::Place;
use swath_kernels::softmax::{Axis, CrossEntropy as Kernel, Targets};

use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::step::{Operands, Step};
use crate::graph::{Fact, Gradient, Group, Lower, Operator, ValueId};
use crate::par;

/// How a loss is made one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// The mean, for cross-entropy by the weights of the targets.
    #[default]
    Mean,
    /// The sum.
    Sum,
}

/// Cross-entropy of logits `[n, classes]` or `[n, classes, h, w]` and targets: classes as floats, `[n]` or `[n, h, w]`, or
/// probabilities in the logits' extents.
///
/// Results: the loss `[1]`; then what its gradient takes: log-probabilities, the loss of each position, what the mean
/// divides by `[1]`. A target that is no class and not the ignored one makes the loss NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropy {
    /// A weight for each class.
    pub weights: Option<Arc<[f32]>>,
    /// How much of each target goes to all classes alike.
    pub smoothing: f32,
    /// The class that is ignored.
    pub ignore: i64,
    /// Whether targets are probabilities.
    pub soft: bool,
    /// Mean or sum.
    pub reduction: Reduction,
}

impl CrossEntropy {
    fn axis(&self, logits: &[usize]) -> Result<Axis> {
        if logits.len() < 2 {
            let takes = "[n, classes] or [n, classes, h, w]";
            return Err(Error::Rank { what: "CrossEntropy", takes, gets: logits.to_vec() });
        }
        Ok(Axis::of(logits, 1)?)
    }

    /// Extents of the targets for logits of extents.
    pub(crate) fn target_dims(&self, logits: &[usize]) -> Vec<usize> {
        let classes = |(i, e): (usize, &usize)| (self.soft || i != 1).then_some(*e);
        logits.iter().enumerate().filter_map(classes).collect()
    }

    fn check(&self, logits: &[usize], targets: &[usize]) -> Result<()> {
        super::expect("targets of CrossEntropy", targets, &self.target_dims(logits))?;
        if !(0.0..=1.0).contains(&self.smoothing) {
            let rule = "it is from 0 to 1".into();
            return Err(Error::Setting { what: "label_smoothing", value: self.smoothing.to_string(), rule });
        }
        let classes = logits[1];
        match self.weights.as_ref().map(|w| w.len()) {
            Some(weights) if weights != classes => {
                Err(Error::Length { what: "the classes' weights", actual: weights, expected: classes })
            }
            _ => Ok(()),
        }
    }
}

impl Operator for CrossEntropy {
    fn name(&self) -> &'static str {
        "CrossEntropy"
    }

    fn results(&self) -> usize {
        4
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        self.axis(inputs[0])?;
        self.check(inputs[0], inputs[1])?;
        Ok(vec![1])
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        let logits = &inputs[0].dims;
        let loss = self.dims(&[logits, &inputs[1].dims])?;
        let positions = self.axis(logits)?.positions();
        Ok([loss, logits.clone(), vec![positions], vec![1]].map(Fact::f32).into())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let axis = self.axis(&cx.fact(operands[0]).dims)?;
        let inputs = operands.iter().map(|v| cx.want(*v, Layout::Nchw)).collect::<Result<_>>()?;
        let step = ForwardStep(EntropyStep { op: self.clone(), axis, level: cx.level() });
        cx.step_all(group, &[Layout::Nchw; 4], Box::new(step), inputs, 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let (lp, weight): (ValueId, ValueId) = (g.output(1), g.output(3));
        let dx = g.push(EntropyGradient(self.clone()), &[lp, g.input(1), weight, g.dy()])?;
        if g.needs(1) {
            return Err(Error::NoGradient { operator: "the targets of CrossEntropy" });
        }
        g.add(0, dx[0])
    }
}

/// The gradient at the logits from log-probabilities, targets, the mean's divisor, and the loss's gradient.
#[derive(Clone, Debug, PartialEq)]
struct EntropyGradient(CrossEntropy);

impl Operator for EntropyGradient {
    fn name(&self) -> &'static str {
        "CrossEntropyGradient"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let operands = cx.inputs(group);
        let axis = self.0.axis(&cx.fact(operands[0]).dims)?;
        let inputs = operands.iter().map(|v| cx.want(*v, Layout::Nchw)).collect::<Result<_>>()?;
        let step = BackwardStep(EntropyStep { op: self.0.clone(), axis, level: cx.level() });
        cx.step(group, Layout::Nchw, Box::new(step), inputs, 0)
    }
}

struct EntropyStep {
    op: CrossEntropy,
    axis: Axis,
    level: Level,
}

thread_local! {
    /// Classes as the kernel takes them, and a gradient for each position; kept, so that a step allocates nothing.
    static LISTS: RefCell<(Vec<i64>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl EntropyStep {
    fn kernel(&self) -> Kernel<'_> {
        let (weights, smoothing, ignore) = (self.op.weights.as_deref(), self.op.smoothing, self.op.ignore);
        Kernel { axis: self.axis, weights, smoothing, ignore }
    }

    /// Calls `f` with the targets and room for a number a position.
    fn with<R>(&self, targets: &[f32], f: impl FnOnce(Targets<'_>, &mut [f32]) -> R) -> R {
        let (mut classes, mut numbers) = LISTS.take();
        numbers.resize(self.axis.positions(), 0.0);
        classes.clear();
        let result = if self.op.soft {
            f(Targets::Probabilities(targets), &mut numbers)
        } else {
            // What is no whole number becomes a class that does not exist.
            let class = |&t: &f32| if t.fract() == 0.0 { t as i64 } else { i64::MIN };
            classes.extend(targets.iter().map(class));
            f(Targets::Classes(&classes), &mut numbers)
        };
        LISTS.set((classes, numbers));
        result
    }
}

struct ForwardStep(EntropyStep);

impl Step for ForwardStep {
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], _: bool, _: &mut Scratch) {
        let [loss, lp, losses, weight] = y else { unreachable!("CrossEntropy has four results") };
        let executor = par::everyone();
        let place = Place::new(self.0.level, &*executor);
        let kernel = self.0.kernel();
        match self.0.with(x.get(1), |targets, _| kernel.forward(&place, x.get(0), targets, lp, losses)) {
            Ok(l) => {
                let value = if self.0.op.reduction == Reduction::Mean { l.mean() } else { l.sum };
                (loss[0], weight[0]) = (value as f32, l.weight as f32);
            }
            Err(_) => {
                // A step cannot fail; whoever sees a NaN looks at the targets first.
                lp.fill(f32::NAN);
                losses.fill(f32::NAN);
                (loss[0], weight[0]) = (f32::NAN, 0.0);
            }
        }
    }

    fn describe(&self) -> String {
        self.0.op.name().into()
    }
}

struct BackwardStep(EntropyStep);

impl Step for BackwardStep {
    fn run(&self, x: &Operands<'_>, dx: &mut [f32], _: bool, _: &mut Scratch) {
        let [lp, targets, weight, dy] = [0, 1, 2, 3].map(|i| x.get(i));
        if lp.first().is_some_and(|v| v.is_nan()) {
            return dx.fill(f32::NAN);
        }
        let executor = par::everyone();
        let place = Place::new(self.0.level, &*executor);
        let g = if self.0.op.reduction == Reduction::Mean { dy[0] / weight[0] } else { dy[0] };
        self.0.with(targets, |targets, numbers| {
            numbers.fill(g);
            self.0.kernel().backward(&place, targets, lp, numbers, dx);
        });
    }

    fn describe(&self) -> String {
        "CrossEntropyGradient".into()
    }
}
