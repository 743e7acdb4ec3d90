//! Softmax and log-softmax over any axis, forward and backward, and cross-entropy on logits.
//!
//! ```text
//! a tensor [outer][len][inner], the axis in the middle; m = max x_j, t = sum exp(x_j - m)
//! softmax       y_i = exp(x_i - m) / t          dx_i = y_i (dy_i - sum y_j dy_j)
//! log-softmax   y_i = (x_i - m) - ln t          dx_i = dy_i - exp(y_i) sum dy_j
//! ```
//!
//! Where `inner` is 1 a row is a vector after the other ([`crate::act::softmax`]); elsewhere a vector holds neighbours of the inner
//! axes, and the axis is walked with a stride, one vector after the other, in which it stays in L1. `[n, c]` and NHWC over channels are rows, NCHW over
//! channels is `[n][c][h w]`.
//!
//! Sums run along the axis in f32. Bounds of the forward pass are those of [`crate::act::softmax`], with `c` terms in place of `c / 8`
//! where `inner` is not 1.

mod entropy;

use crate::act;
use crate::isa::Isa;
use crate::pass::{Body, Chunks, Place, Strip, Strips, add_lanes, get, put};
use crate::shape::{ShapeError, checked_elements};
use crate::vecmath::{exp, log};

pub use entropy::{CrossEntropy, Loss, TargetError, Targets};

/// The axis that softmax runs over, of a tensor `[outer][len][inner]`.
///
/// ```
/// use swath_kernels::{isa::Cpu, pass::Place, softmax::Axis};
/// let (mut y, mut dx) = ([0.0; 4], [0.0; 4]);
/// let place = Place::inline(Cpu::detect().level);
/// let columns = Axis::new(1, 2, 2)?;
/// columns.softmax(&place, &[1.0, 5.0, 1.0, 1005.0], &mut y);
/// assert_eq!(y, [0.5, 0.0, 0.5, 1.0]);
/// columns.softmax_backward(&place, &y, &[1.0, 1.0, 3.0, 1.0], &mut dx);
/// assert_eq!(dx, [-0.5, 0.0, 0.5, 0.0]);
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    outer: usize,
    len: usize,
    inner: usize,
}

/// Floats of a part.
const FLOATS: usize = 8 << 10;

/// Softmax forward on a strip.
struct Forward<'a> {
    axis: Axis,
    log: bool,
    /// The input from the strip's first column on.
    x: &'a [f32],
    y: Strip<'a, f32>,
}

impl Body for Forward<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, s: I) {
        let Axis { len, inner, .. } = self.axis;
        let width = self.y.width();
        for i in (0..width).step_by(I::LANES) {
            let x = |j: usize| get(s, &self.x[j * inner..j * inner + width], i);
            let mut max = s.splat(f32::NEG_INFINITY);
            for j in 0..len {
                max = s.max(max, x(j)); // a NaN that this drops comes back in the sum
            }
            let mut sum = s.zero();
            for j in 0..len {
                let e = exp(s, s.sub(x(j), max));
                sum = s.add(sum, e);
                if !self.log {
                    put(s, self.y.row(j), i, e);
                }
            }
            let (scale, log_sum) = (s.div(s.splat(1.0), sum), log(s, sum));
            for j in 0..len {
                let v =
                    if self.log { s.sub(s.sub(x(j), max), log_sum) } else { s.mul(get(s, self.y.row(j), i), scale) };
                put(s, self.y.row(j), i, v);
            }
        }
    }
}

/// What a gradient is made of: of softmax `y` and `y dy`, of log-softmax `exp(y)` and `dy`.
#[inline(always)]
fn term<I: Isa>(s: I, log: bool, y: I::V, dy: I::V) -> I::V {
    if log { dy } else { s.mul(y, dy) }
}

#[inline(always)]
fn gradient<I: Isa>(s: I, log: bool, y: I::V, dy: I::V, sum: I::V) -> I::V {
    if log { s.sub(dy, s.mul(exp(s, y), sum)) } else { s.mul(y, s.sub(dy, sum)) }
}

/// The gradient on a strip.
struct Backward<'a> {
    axis: Axis,
    log: bool,
    /// Output and gradient from the strip's first column on.
    y: &'a [f32],
    dy: &'a [f32],
    dx: Strip<'a, f32>,
}

impl Body for Backward<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, s: I) {
        let Axis { len, inner, .. } = self.axis;
        let width = self.dx.width();
        for i in (0..width).step_by(I::LANES) {
            let at = |v: &[f32], j: usize| get(s, &v[j * inner..j * inner + width], i);
            let mut sum = s.zero();
            for j in 0..len {
                sum = s.add(sum, term(s, self.log, at(self.y, j), at(self.dy, j)));
            }
            for j in 0..len {
                let d = gradient(s, self.log, at(self.y, j), at(self.dy, j), sum);
                put(s, self.dx.row(j), i, d);
            }
        }
    }
}

/// The gradient of some rows.
struct BackwardRows<'a> {
    len: usize,
    log: bool,
    y: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Body for BackwardRows<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, s: I) {
        for (r, dx) in self.dx.chunks_exact_mut(self.len).enumerate() {
            let row = r * self.len..(r + 1) * self.len;
            let (y, dy) = (&self.y[row.clone()], &self.dy[row]);
            let mut sum = s.zero();
            for i in (0..self.len).step_by(I::LANES) {
                // Beyond the row's end are zeros, which add nothing.
                sum = s.add(sum, term(s, self.log, get(s, y, i), get(s, dy, i)));
            }
            let sum = s.splat(add_lanes(s, sum));
            for i in (0..self.len).step_by(I::LANES) {
                put(s, dx, i, gradient(s, self.log, get(s, y, i), get(s, dy, i), sum));
            }
        }
    }
}

impl Axis {
    /// Of a tensor `[outer][len][inner]`.
    ///
    /// # Errors
    /// If the axis or the inner extents are empty, or there are too many elements.
    pub fn new(outer: usize, len: usize, inner: usize) -> Result<Self, ShapeError> {
        for (what, size) in [("the axis of softmax", len), ("an extent behind the axis of softmax", inner)] {
            if size == 0 {
                return Err(ShapeError::Zero { what });
            }
        }
        checked_elements("input", &[outer, len, inner])?;
        Ok(Self { outer, len, inner })
    }

    /// Over one axis of a contiguous tensor.
    ///
    /// # Errors
    /// As [`Axis::new`].
    ///
    /// # Panics
    /// If there is no such axis.
    pub fn of(extents: &[usize], axis: usize) -> Result<Self, ShapeError> {
        checked_elements("input", extents)?;
        let product = |extents: &[usize]| extents.iter().product();
        Self::new(product(&extents[..axis]), extents[axis], product(&extents[axis + 1..]))
    }

    /// Elements of the tensor.
    fn elements(&self) -> usize {
        self.outer * self.len * self.inner
    }

    /// Positions: elements of the tensor without the axis.
    pub fn positions(&self) -> usize {
        self.outer * self.inner
    }

    /// Rows of a part where `inner` is 1.
    fn rows(&self) -> usize {
        (FLOATS / self.len).max(1)
    }

    /// Columns of a strip: whole cache lines.
    fn width(&self) -> usize {
        (FLOATS / self.len).clamp(1, self.inner).next_multiple_of(64)
    }

    /// First element of strip `i`.
    fn strip(&self, i: usize) -> usize {
        let per = self.inner.div_ceil(self.width());
        i / per * self.len * self.inner + i % per * self.width()
    }

    fn check(&self, x: &[f32], y: &[f32]) {
        assert_eq!(x.len(), self.elements(), "input length for {self:?}");
        assert_eq!(y.len(), self.elements(), "output length for {self:?}");
    }

    fn forward(&self, place: &Place<'_>, log: bool, x: &[f32], y: &mut [f32]) {
        self.check(x, y);
        // An exponential is worth about as much as eight floats moved.
        let floats = 8 * x.len();
        if self.inner == 1 {
            let (rows, len) = (self.rows(), self.len);
            return place.each(floats, Chunks::new(y, rows * len), |i, y| {
                let (x, rows) = (&x[i * rows * len..][..y.len()], y.len() / len);
                let softmax = if log { act::log_softmax } else { act::softmax };
                softmax(place.level(), rows, len, x, y);
            });
        }
        place.each(floats, Strips::new(y, self.len, self.inner, self.width()), |i, y| {
            place.at(Forward { axis: *self, log, x: &x[self.strip(i)..], y });
        });
    }

    fn backward(&self, place: &Place<'_>, log: bool, y: &[f32], dy: &[f32], dx: &mut [f32]) {
        self.check(y, dy);
        self.check(y, dx);
        let floats = if log { 8 } else { 3 } * y.len();
        if self.inner == 1 {
            let (rows, len) = (self.rows(), self.len);
            return place.each(floats, Chunks::new(dx, rows * len), |i, dx| {
                let part = i * rows * len..i * rows * len + dx.len();
                place.at(BackwardRows { len, log, y: &y[part.clone()], dy: &dy[part], dx });
            });
        }
        place.each(floats, Strips::new(dx, self.len, self.inner, self.width()), |i, dx| {
            let first = self.strip(i);
            place.at(Backward { axis: *self, log, y: &y[first..], dy: &dy[first..], dx });
        });
    }

    /// `y_i = exp(x_i) / sum exp(x_j)`
    ///
    /// # Panics
    /// If a length is not that of the tensor.
    pub fn softmax(&self, place: &Place<'_>, x: &[f32], y: &mut [f32]) {
        self.forward(place, false, x, y);
    }

    /// `y_i = x_i - ln sum exp(x_j)`
    ///
    /// # Panics
    /// If a length is not that of the tensor.
    pub fn log_softmax(&self, place: &Place<'_>, x: &[f32], y: &mut [f32]) {
        self.forward(place, true, x, y);
    }

    /// The gradient of [`Axis::softmax`] at the input, from its output.
    ///
    /// # Panics
    /// If a length is not that of the tensor.
    pub fn softmax_backward(&self, place: &Place<'_>, y: &[f32], dy: &[f32], dx: &mut [f32]) {
        self.backward(place, false, y, dy, dx);
    }

    /// The gradient of [`Axis::log_softmax`] at the input, from its output.
    ///
    /// # Panics
    /// If a length is not that of the tensor.
    pub fn log_softmax_backward(&self, place: &Place<'_>, y: &[f32], dy: &[f32], dx: &mut [f32]) {
        self.backward(place, true, y, dy, dx);
    }
}
