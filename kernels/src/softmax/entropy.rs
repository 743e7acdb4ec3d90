//! Cross-entropy on logits: log-softmax, negative log-likelihood, class weights, label smoothing, ignored and soft targets.
//!
//! ```text
//! loss of a position   -sum_c a_c lp_c,   lp = log_softmax(x)
//!   class t            a_c = s / C w_c, and for c = t also (1 - s) w_t
//!   probabilities p    a_c = w_c (p_c (1 - s) + s / C)
//! gradient             dx_c = (exp(lp_c) sum a - a_c) g
//! ```
//!
//! PyTorch's mean divides by the sum of the targets' weights, with probabilities by the number of positions; ignored targets count in
//! neither, and where all are ignored it is 0 / 0 = NaN.

use thiserror::Error;

use super::{Axis, FLOATS};
use crate::control_word::with_default;
use crate::isa::Isa;
use crate::pass::{Body, Chunks, Place, Strip, Strips, get, put};
use crate::vecmath::exp;

/// What the classes should be.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// A class for each position, in `[outer][inner]` order.
    Classes(&'a [i64]),
    /// A probability for each element.
    Probabilities(&'a [f32]),
}

/// A target that is no class and is not ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("target {class} at position {position} is none of the {classes} classes")]
pub struct TargetError {
    /// Where it is.
    pub position: usize,
    /// What it is.
    pub class: i64,
    /// Classes that there are.
    pub classes: usize,
}

/// Cross-entropy along an axis of logits.
///
/// ```
/// use swath_kernels::softmax::{Axis, CrossEntropy, Targets};
/// use swath_kernels::{isa::Cpu, pass::Place};
/// let loss = CrossEntropy::new(Axis::new(2, 2, 1)?);
/// let (mut lp, mut losses, mut dx) = ([0.0; 4], [0.0; 2], [0.0; 4]);
/// let (place, targets) = (Place::inline(Cpu::detect().level), Targets::Classes(&[1, -100]));
/// let l = loss.forward(&place, &[0.0, 0.0, 5.0, 7.0], targets, &mut lp, &mut losses)?;
/// assert!((l.mean() - 2f64.ln()).abs() < 1e-6);
/// loss.backward(&place, targets, &lp, &[1.0 / l.weight as f32; 2], &mut dx);
/// assert_eq!(dx, [0.5, -0.5, 0.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a> {
    /// The axis of classes.
    pub axis: Axis,
    /// A weight for each class; 1 where there are none.
    pub weights: Option<&'a [f32]>,
    /// How much of each target goes to all classes alike, 0 to 1.
    pub smoothing: f32,
    /// The class that is ignored; PyTorch's default is -100.
    pub ignore: i64,
}

/// What a forward pass has summed up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// The sum of the positions' losses.
    pub sum: f64,
    /// What the mean divides by.
    pub weight: f64,
}

impl Loss {
    /// PyTorch's `reduction="mean"`.
    pub fn mean(&self) -> f64 {
        self.sum / self.weight
    }
}

/// Columns of a strip of the gradient, and rows of a part.
const WIDTH: usize = 128;

/// The gradient on a strip: of all positions `p` in it `dx_c = exp(lp_c) scale_p - even_c g_p - p_c soft_c g_p`.
struct Gradient<'a> {
    axis: Axis,
    /// Log-probabilities from the strip's first column on.
    lp: &'a [f32],
    /// Target probabilities from there on.
    p: Option<&'a [f32]>,
    /// `g` times the sum of a position's `a`.
    scale: &'a [f32],
    g: &'a [f32],
    /// `s / C w_c` and `(1 - s) w_c`
    coefficients: &'a dyn Fn(usize) -> [f32; 2],
    dx: Strip<'a, f32>,
}

impl Body for Gradient<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, s: I) {
        let (inner, width) = (self.axis.inner, self.dx.width());
        for c in 0..self.axis.len {
            let [even, own] = (self.coefficients)(c).map(|v| s.splat(v));
            let row = c * inner..c * inner + width;
            for i in (0..width).step_by(I::LANES) {
                let mut a = even;
                if let Some(p) = self.p {
                    a = s.fma(own, get(s, &p[row.clone()], i), a);
                }
                let e = exp(s, get(s, &self.lp[row.clone()], i));
                let d = s.sub(s.mul(e, get(s, self.scale, i)), s.mul(a, get(s, self.g, i)));
                put(s, self.dx.row(c), i, d);
            }
        }
    }
}

/// The same on a row, whose position is one.
struct GradientRow<'a> {
    lp: &'a [f32],
    p: Option<&'a [f32]>,
    scale: f32,
    g: f32,
    weights: Option<&'a [f32]>,
    /// `s / C` and `1 - s`
    shares: [f32; 2],
    dx: &'a mut [f32],
}

impl Body for GradientRow<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, s: I) {
        let [even, own, scale, g] = [self.shares[0], self.shares[1], self.scale, self.g].map(|v| s.splat(v));
        for i in (0..self.dx.len()).step_by(I::LANES) {
            let mut a = even;
            if let Some(p) = self.p {
                a = s.fma(own, get(s, p, i), a);
            }
            if let Some(w) = self.weights {
                a = s.mul(a, get(s, w, i));
            }
            let e = exp(s, get(s, self.lp, i));
            put(s, self.dx, i, s.sub(s.mul(e, scale), s.mul(a, g)));
        }
    }
}

impl<'a> CrossEntropy<'a> {
    /// Without weights and smoothing, ignoring -100.
    pub fn new(axis: Axis) -> Self {
        Self { axis, weights: None, smoothing: 0.0, ignore: -100 }
    }

    fn weight(&self, class: usize) -> f32 {
        self.weights.map_or(1.0, |w| w[class])
    }

    /// The class of a position, if it is not ignored.
    fn class(&self, targets: &[i64], position: usize) -> Option<usize> {
        let class = targets[position];
        (class != self.ignore).then_some(class as usize)
    }

    fn check(&self, targets: Targets<'_>, lp: &[f32], positions: &[f32]) {
        assert_eq!(lp.len(), self.axis.elements(), "length of the log-probabilities");
        assert_eq!(positions.len(), self.axis.positions(), "one loss for each position");
        assert!(self.weights.is_none_or(|w| w.len() == self.axis.len), "one weight for each class");
        match targets {
            Targets::Classes(t) => assert_eq!(t.len(), self.axis.positions(), "one target for each position"),
            Targets::Probabilities(p) => assert_eq!(p.len(), self.axis.elements(), "one probability for each element"),
        }
    }

    /// Log-probabilities, which [`CrossEntropy::backward`] takes, and the loss of each position; 0 where it is ignored.
    ///
    /// # Errors
    /// If a target is no class and is not ignored.
    ///
    /// # Panics
    /// If a length is not what the axis says.
    pub fn forward(
        &self,
        place: &Place<'_>,
        x: &[f32],
        targets: Targets<'_>,
        lp: &mut [f32],
        losses: &mut [f32],
    ) -> Result<Loss, TargetError> {
        self.check(targets, lp, losses);
        let classes = self.axis.len;
        if let Targets::Classes(t) = targets {
            let bad = t.iter().position(|&t| t != self.ignore && usize::try_from(t).map_or(true, |t| t >= classes));
            if let Some(position) = bad {
                return Err(TargetError { position, class: t[position], classes });
            }
        }
        self.axis.log_softmax(place, x, lp);
        let (lp, per) = (&*lp, (FLOATS / classes).max(1));
        place.each(lp.len(), Chunks::new(losses, per), |i, losses| {
            for (k, loss) in losses.iter_mut().enumerate() {
                *loss = self.loss(lp, targets, i * per + k) as f32;
            }
        });
        Ok(with_default(|| {
            let sum = losses.iter().map(|&l| f64::from(l)).sum();
            let weight = match targets {
                Targets::Probabilities(_) => losses.len() as f64,
                Targets::Classes(t) => {
                    (0..t.len()).filter_map(|p| self.class(t, p)).map(|t| f64::from(self.weight(t))).sum()
                }
            };
            Loss { sum, weight }
        }))
    }

    /// First element of a position.
    fn first(&self, position: usize) -> usize {
        let (o, i) = (position / self.axis.inner, position % self.axis.inner);
        o * self.axis.len * self.axis.inner + i
    }

    fn loss(&self, lp: &[f32], targets: Targets<'_>, position: usize) -> f64 {
        let (first, inner, classes) = (self.first(position), self.axis.inner, self.axis.len);
        let (s, even) = (f64::from(self.smoothing), f64::from(self.smoothing) / classes as f64);
        let lp = |c: usize| f64::from(lp[first + c * inner]);
        let w = |c: usize| f64::from(self.weight(c));
        match targets {
            Targets::Classes(t) => {
                let Some(t) = self.class(t, position) else { return 0.0 };
                let smooth = if s == 0.0 { 0.0 } else { even * (0..classes).map(|c| w(c) * lp(c)).sum::<f64>() };
                -((1.0 - s) * w(t) * lp(t) + smooth)
            }
            Targets::Probabilities(p) => {
                let a = |c: usize| w(c) * (f64::from(p[first + c * inner]) * (1.0 - s) + even);
                // 0 times minus infinity is 0 where a class has no share.
                -(0..classes).map(|c| if a(c) == 0.0 { 0.0 } else { a(c) * lp(c) }).sum::<f64>()
            }
        }
    }

    /// The sum of a position's `a`.
    fn total(&self, targets: Targets<'_>, position: usize, weights: f64) -> f64 {
        let s = f64::from(self.smoothing);
        match targets {
            Targets::Classes(t) => {
                let Some(t) = self.class(t, position) else { return 0.0 };
                (1.0 - s) * f64::from(self.weight(t)) + s / self.axis.len as f64 * weights
            }
            Targets::Probabilities(p) => {
                let (first, even) = (self.first(position), s / self.axis.len as f64);
                let p = |c: usize| f64::from(p[first + c * self.axis.inner]) * (1.0 - s) + even;
                (0..self.axis.len).map(|c| f64::from(self.weight(c)) * p(c)).sum()
            }
        }
    }

    /// The gradient at the logits, from the log-probabilities of [`CrossEntropy::forward`] and the gradient `g` of each position's loss: of a
    /// mean that is 1 over [`Loss::weight`], of a sum 1. Ignored positions get 0.
    ///
    /// # Panics
    /// If a length is not what the axis says, or a target is no class.
    pub fn backward(&self, place: &Place<'_>, targets: Targets<'_>, lp: &[f32], g: &[f32], dx: &mut [f32]) {
        self.check(targets, lp, g);
        assert_eq!(dx.len(), lp.len(), "length of the gradient");
        let Axis { len, inner, .. } = self.axis;
        let weights: f64 = with_default(|| (0..len).map(|c| f64::from(self.weight(c))).sum());
        let shares = [(f64::from(self.smoothing) / len as f64) as f32, 1.0 - self.smoothing];
        let p = |from: usize| match targets {
            Targets::Probabilities(p) => Some(&p[from..]),
            Targets::Classes(_) => None,
        };
        let kept = |position: usize| match targets {
            Targets::Classes(t) if self.class(t, position).is_none() => 0.0,
            _ => g[position],
        };
        // The class itself has one more share; `at` is where it lies.
        let own = |position: usize| match targets {
            Targets::Classes(t) => {
                let t = self.class(t, position)?;
                assert!(t < len, "target {t} of {len} classes");
                Some((t, shares[1] * self.weight(t) * g[position]))
            }
            Targets::Probabilities(_) => None,
        };
        if inner == 1 {
            let rows = self.axis.rows();
            return place.each(8 * lp.len(), Chunks::new(dx, rows * len), |i, dx| {
                for (k, dx) in dx.chunks_exact_mut(len).enumerate() {
                    let position = i * rows + k;
                    let (at, g) = (position * len, kept(position));
                    let scale = g * self.total(targets, position, weights) as f32;
                    let (lp, p) = (&lp[at..at + len], p(at).map(|p| &p[..len]));
                    place.at(GradientRow { lp, p, scale, g, weights: self.weights, shares, dx: &mut *dx });
                    if let Some((t, share)) = own(position) {
                        dx[t] -= share;
                    }
                }
            });
        }
        let per = inner.div_ceil(WIDTH);
        let coefficients = |c: usize| shares.map(|v| v * self.weight(c));
        place.each(8 * lp.len(), Strips::new(dx, len, inner, WIDTH), |i, dx| {
            let (first, width) = (i / per * len * inner + i % per * WIDTH, dx.width());
            let position = i / per * inner + i % per * WIDTH;
            let (mut scale, mut g) = ([0.0; WIDTH], [0.0; WIDTH]);
            for k in 0..width {
                g[k] = kept(position + k);
                scale[k] = g[k] * self.total(targets, position + k, weights) as f32;
            }
            let (scale, g) = (&scale[..width], &g[..width]);
            let (lp, p, axis) = (&lp[first..], p(first), self.axis);
            let mut dx = dx;
            let strip = dx.reborrow();
            place.at(Gradient { axis, lp, p, scale, g, coefficients: &coefficients, dx: strip });
            for k in 0..width {
                if let Some((t, share)) = own(position + k) {
                    dx.row(t)[k] -= share;
                }
            }
        });
    }
}
