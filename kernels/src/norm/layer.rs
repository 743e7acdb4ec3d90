//! Layer normalisation: rows of contiguous floats, each by its own mean and variance, with a scale and shift for each column.
//!
//! Columns are PyTorch's `normalized_shape`, rows everything before it. Gradients of scale and shift add 64 rows in f32, then in
//! f64, in order.

use super::{Centred, Plain, inverse_of};
use crate::isa::Isa;
use crate::pass::{Body, Chunks, Map, MapOver, Place, Sum, SumOver, Vector};
use crate::shape::{ShapeError, checked_elements};

/// A layer normalisation of `rows` rows of `cols` columns.
///
/// ```
/// use swath_kernels::{isa::Cpu, norm::LayerNorm, pass::Place};
/// let norm = LayerNorm::new(2, 2)?;
/// let (mut y, mut mean, mut inv) = ([0.0; 4], [0.0; 2], [0.0; 2]);
/// let place = Place::inline(Cpu::detect().level);
/// norm.forward(&place, &[1.0, 3.0, 10.0, 30.0], None, 0.0, &mut y, [&mut mean, &mut inv]);
/// assert_eq!((y, mean), ([-1.0, 1.0, -1.0, 1.0], [2.0, 20.0]));
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerNorm {
    rows: usize,
    cols: usize,
}

/// What the backward pass of a layer normalisation reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct LayerBackward<'a> {
    /// The input of the forward pass.
    pub x: &'a [f32],
    /// The gradient at the output.
    pub dy: &'a [f32],
    /// Scale of each column; 1 where there is none.
    pub w: Option<&'a [f32]>,
    /// Means of the rows, as the forward pass left them.
    pub mean: &'a [f32],
    /// `1 / sqrt(variance + eps)` of the rows, as the forward pass left them.
    pub inv: &'a [f32],
}

/// Floats of a part, in whole rows.
const FLOATS: usize = 16 << 10;
/// Columns of a part of the parameters' gradients.
const COLUMNS: usize = 256;
/// Rows that are added in f32.
const ROWS: usize = 64;

/// Deviations from a mean, and their squares.
#[derive(Clone, Copy)]
struct Row;

/// `(x - m) s`, and with a scale and shift of the column.
impl Map<1, 2, 1> for Row {
    #[inline(always)]
    fn value<I: Isa>(self, [x]: [Vector<I>; 1], [m, s]: [Vector<I>; 2]) -> [Vector<I>; 1] {
        [(x - m) * s]
    }
}

impl Map<3, 2, 1> for Row {
    #[inline(always)]
    fn value<I: Isa>(self, [x, w, b]: [Vector<I>; 3], [m, s]: [Vector<I>; 2]) -> [Vector<I>; 1] {
        [(x - m) * s * w + b]
    }
}

/// Sums of `g` and `g (x - m)`, `g = dy` or `dy w`.
impl Sum<2, 1, 2> for Row {
    #[inline(always)]
    fn terms<I: Isa>(self, [x, dy]: [Vector<I>; 2], [m]: [Vector<I>; 1]) -> [Vector<I>; 2] {
        [dy, dy * (x - m)]
    }
}

impl Sum<3, 1, 2> for Row {
    #[inline(always)]
    fn terms<I: Isa>(self, [x, dy, w]: [Vector<I>; 3], [m]: [Vector<I>; 1]) -> [Vector<I>; 2] {
        let g = dy * w;
        [g, g * (x - m)]
    }
}

/// `dx = a g + b (x - m) + c`
impl Map<2, 4, 1> for Row {
    #[inline(always)]
    fn value<I: Isa>(self, [x, dy]: [Vector<I>; 2], [m, a, b, c]: [Vector<I>; 4]) -> [Vector<I>; 1] {
        [dy * a + ((x - m) * b + c)]
    }
}

impl Map<3, 4, 1> for Row {
    #[inline(always)]
    fn value<I: Isa>(self, [x, dy, w]: [Vector<I>; 3], [m, a, b, c]: [Vector<I>; 4]) -> [Vector<I>; 1] {
        [dy * w * a + ((x - m) * b + c)]
    }
}

/// Some rows forward.
struct ForwardRows<'a> {
    cols: usize,
    x: &'a [f32],
    affine: Option<[&'a [f32]; 2]>,
    eps: f32,
    y: &'a mut [f32],
    mean: &'a mut [f32],
    inv: &'a mut [f32],
}

impl Body for ForwardRows<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, s: I) {
        let n = self.cols as f64;
        for (r, y) in self.y.chunks_exact_mut(self.cols).enumerate() {
            let x = &self.x[r * self.cols..][..self.cols];
            let (mut sum, mut square) = ([0.0], [0.0]);
            SumOver { f: Plain, ch: 1, x: [x], p: [], out: [&mut sum] }.run(s);
            let m = [(f64::from(sum[0]) / n) as f32];
            SumOver { f: Centred, ch: 1, x: [x], p: [&m], out: [&mut sum, &mut square] }.run(s);
            // The mean's own error is the mean of the deviations.
            let off = f64::from(sum[0]) / n;
            let mean = f64::from(m[0]) + off;
            let inv = inverse_of(f64::from(square[0]) / n - off * off, self.eps);
            let (centre, scale) = ([mean as f32], [inv as f32]);
            (self.mean[r], self.inv[r]) = (centre[0], scale[0]);
            let p: [&[f32]; 2] = [&centre, &scale];
            match self.affine {
                None => MapOver { f: Row, ch: 1, x: [x], p, y: [y] }.run(s),
                Some([w, b]) => MapOver { f: Row, ch: 1, x: [x, w, b], p, y: [y] }.run(s),
            }
        }
    }
}

/// Some rows backward.
struct BackwardRows<'a> {
    cols: usize,
    x: &'a [f32],
    dy: &'a [f32],
    w: Option<&'a [f32]>,
    mean: &'a [f32],
    inv: &'a [f32],
    dx: &'a mut [f32],
}

impl Body for BackwardRows<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, s: I) {
        let n = self.cols as f64;
        for (r, dx) in self.dx.chunks_exact_mut(self.cols).enumerate() {
            let row = r * self.cols..(r + 1) * self.cols;
            let (x, dy, m) = (&self.x[row.clone()], &self.dy[row], [self.mean[r]]);
            let (mut sum, mut product) = ([0.0], [0.0]);
            let out = [&mut sum[..], &mut product[..]];
            match self.w {
                None => SumOver { f: Row, ch: 1, x: [x, dy], p: [&m], out }.run(s),
                Some(w) => SumOver { f: Row, ch: 1, x: [x, dy, w], p: [&m], out }.run(s),
            }
            let inv = f64::from(self.inv[r]);
            let b = [(-inv * inv * inv * f64::from(product[0]) / n) as f32];
            let (a, c) = ([self.inv[r]], [(-inv * f64::from(sum[0]) / n) as f32]);
            let p: [&[f32]; 4] = [&m, &a, &b, &c];
            match self.w {
                None => MapOver { f: Row, ch: 1, x: [x, dy], p, y: [dx] }.run(s),
                Some(w) => MapOver { f: Row, ch: 1, x: [x, dy, w], p, y: [dx] }.run(s),
            }
        }
    }
}

/// Gradients of scale and shift of some columns.
struct ColumnSums<'a> {
    b: &'a LayerBackward<'a>,
    cols: usize,
    first: usize,
    dw: &'a mut [f32],
    db: &'a mut [f32],
}

impl Body for ColumnSums<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (n, rows) = (self.dw.len(), self.b.mean.len());
        let (mut w, mut b) = ([0.0f64; COLUMNS], [0.0f64; COLUMNS]);
        for first in (0..rows).step_by(ROWS) {
            let (mut pw, mut pb) = ([0.0f32; COLUMNS], [0.0f32; COLUMNS]);
            for r in first..(first + ROWS).min(rows) {
                let (m, s, at) = (self.b.mean[r], self.b.inv[r], r * self.cols + self.first);
                let (x, dy) = (&self.b.x[at..at + n], &self.b.dy[at..at + n]);
                for ((x, dy), (pw, pb)) in x.iter().zip(dy).zip(pw.iter_mut().zip(&mut pb)) {
                    *pw += dy * ((x - m) * s);
                    *pb += dy;
                }
            }
            for k in 0..n {
                w[k] += f64::from(pw[k]);
                b[k] += f64::from(pb[k]);
            }
        }
        for k in 0..n {
            (self.dw[k], self.db[k]) = (w[k] as f32, b[k] as f32);
        }
    }
}

impl LayerNorm {
    /// Of `rows` rows of `cols` columns.
    ///
    /// # Errors
    /// If there are no columns, or too many elements.
    pub fn new(rows: usize, cols: usize) -> Result<Self, ShapeError> {
        if cols == 0 {
            return Err(ShapeError::Zero { what: "the number of normalised elements" });
        }
        checked_elements("input", &[rows, cols])?;
        Ok(Self { rows, cols })
    }

    fn rows_of_a_part(&self) -> usize {
        (FLOATS / self.cols).max(1)
    }

    /// `y = (x - mean) inv w + b`, with `[mean, inv]` of each row kept. `affine` is scale and shift of each column.
    ///
    /// # Panics
    /// If a length is not what rows and columns say.
    pub fn forward(
        &self,
        place: &Place<'_>,
        x: &[f32],
        affine: Option<[&[f32]; 2]>,
        eps: f32,
        y: &mut [f32],
        [mean, inv]: [&mut [f32]; 2],
    ) {
        let (len, cols, rows) = (self.rows * self.cols, self.cols, self.rows_of_a_part());
        assert!(x.len() == len && y.len() == len, "lengths of input and output");
        assert!(mean.len() == self.rows && inv.len() == self.rows, "a mean for each row");
        assert!(affine.is_none_or(|a| a.iter().all(|v| v.len() == cols)), "one parameter for each column");
        let cut = (Chunks::new(y, rows * cols), Chunks::new(mean, rows), Chunks::new(inv, rows));
        place.each(2 * len, cut, |i, (y, mean, inv)| {
            let x = &x[i * rows * cols..][..y.len()];
            place.at(ForwardRows { cols, x, affine, eps, y, mean, inv });
        });
    }

    /// `dx`, where it is wanted, and `[dw, db]`.
    ///
    /// # Panics
    /// If a length is not what rows and columns say.
    pub fn backward(
        &self,
        place: &Place<'_>,
        b: &LayerBackward<'_>,
        dx: Option<&mut [f32]>,
        parameters: Option<[&mut [f32]; 2]>,
    ) {
        let (len, cols, rows) = (self.rows * self.cols, self.cols, self.rows_of_a_part());
        assert!(b.x.len() == len && b.dy.len() == len, "lengths of input and gradient");
        assert!(b.mean.len() == self.rows && b.inv.len() == self.rows, "a mean for each row");
        assert!(b.w.is_none_or(|w| w.len() == cols), "one scale for each column");
        if let Some(dx) = dx {
            assert_eq!(dx.len(), len, "length of the input's gradient");
            place.each(3 * len, Chunks::new(dx, rows * cols), |i, dx| {
                let (part, set) = (i * rows * cols..i * rows * cols + dx.len(), i * rows..i * rows + dx.len() / cols);
                let (x, dy, mean, inv) = (&b.x[part.clone()], &b.dy[part], &b.mean[set.clone()], &b.inv[set]);
                place.at(BackwardRows { cols, x, dy, w: b.w, mean, inv, dx });
            });
        }
        if let Some([dw, db]) = parameters {
            assert!(dw.len() == cols && db.len() == cols, "one gradient for each column");
            place.each(2 * len, [Chunks::new(dw, COLUMNS), Chunks::new(db, COLUMNS)], |i, [dw, db]| {
                place.at(ColumnSums { b, cols, first: i * COLUMNS, dw, db });
            });
        }
    }
}
