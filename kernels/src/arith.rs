//! Sum, difference, product and quotient of two tensors, one of which may be broadcast over pixels, channels or everything; sums over
//! those axes; PReLU. Forward and backward, in every layout.
//!
//! ```text
//! a [n, c, h, w], b of the same extents, [n, c, 1, 1], [1, c, 1, 1] or one value; g = dy
//! a + b   da = g      db = sum g            a - b   da = g      db = -sum g          b - a   da = -g           db = sum g
//! a b     da = g b    db = sum g a          a / b   da = g / b  db = -sum g a / b^2  b / a   da = -g b / a^2   db = sum g / a
//! ```
//!
//! Sums run over slices as [`crate::norm`]'s do: f32 within 64 KiB, f64 and in order between them; the same bits for any number of
//! threads. In blocked tensors channels that pad the last block are zero in every result, whatever `b` is.

mod prelu;

use crate::control_word::with_default;
use crate::isa::Isa;
use crate::layout::{BLOCK, Layout, View};
use crate::pass::{Chunks, Map, MapOver, Place, Sum, SumOver, Vector};
use crate::shape::{ShapeError, checked_elements};
use crate::slices::Slices;

pub use prelu::PRelu;

/// What is computed of `a` and `b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a b`
    Mul,
    /// `a / b`
    Div,
    /// `b - a`
    SubFrom,
    /// `b / a`
    DivInto,
}

impl Op {
    /// All of them.
    pub const ALL: [Op; 6] = [Op::Add, Op::Sub, Op::Mul, Op::Div, Op::SubFrom, Op::DivInto];
}

/// The extents of `b`, where `a` has `[n, c, h, w]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// `[n, c, h, w]`
    Same,
    /// `[n, c, 1, 1]`, in the layout of `a`.
    Pixels,
    /// `[1, c, 1, 1]`: `c` floats, or as many as the layout pads them to.
    Channels,
    /// One float.
    Scalar,
}

/// Arithmetic of a tensor with another one.
///
/// ```
/// use swath_kernels::arith::{Arith, Op, Operand};
/// use swath_kernels::{isa::Cpu, layout::Layout, pass::Place};
/// let scale = Arith::new(Layout::Nchw, [1, 2, 1, 2], Operand::Pixels)?;
/// let (mut y, mut db) = ([0.0; 4], [0.0; 2]);
/// let (place, mut scratch) = (Place::inline(Cpu::detect().level), vec![0.0; scale.scratch()]);
/// let (a, b) = ([1.0, 2.0, 3.0, 4.0], [10.0, 100.0]);
/// scale.forward(&place, Op::Mul, &a, &b, &mut y, &mut scratch);
/// assert_eq!(y, [10.0, 20.0, 300.0, 400.0]);
/// scale.backward(&place, Op::Mul, [&a, &b, &[1.0; 4]], None, Some(&mut db), &mut scratch);
/// assert_eq!(db, [3.0, 7.0]);
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arith {
    view: View,
    operand: Operand,
    slices: Slices,
}

/// Floats of a part of two tensors of the same extents.
const FLOATS: usize = 8 << 10;

/// `x p + q`, which is exact where `p` is 1 or -1, or `q` is minus zero.
#[derive(Clone, Copy)]
struct Affine;
/// The operation itself.
#[derive(Clone, Copy)]
struct Add;
#[derive(Clone, Copy)]
struct Subtract;
#[derive(Clone, Copy)]
struct Multiply;
#[derive(Clone, Copy)]
struct Divide;
/// `p / x`
#[derive(Clone, Copy)]
struct Into;
/// `-g p / x^2`
#[derive(Clone, Copy)]
struct IntoGradient;

impl Map<1, 2, 1> for Affine {
    #[inline(always)]
    fn value<I: Isa>(self, [x]: [Vector<I>; 1], [p, q]: [Vector<I>; 2]) -> [Vector<I>; 1] {
        [x * p + q]
    }
}

macro_rules! pairs {
    ($($name:ident |$a:ident, $b:ident| $f:expr;)*) => {$(
        impl Map<2, 0, 1> for $name {
            #[inline(always)]
            fn value<I: Isa>(self, [$a, $b]: [Vector<I>; 2], _: [Vector<I>; 0]) -> [Vector<I>; 1] {
                [$f]
            }
        }
    )*};
}

pairs! { Add |a, b| a + b; Subtract |a, b| a - b; Multiply |a, b| a * b; Divide |a, b| a / b; }

impl Map<1, 1, 1> for Divide {
    #[inline(always)]
    fn value<I: Isa>(self, [x]: [Vector<I>; 1], [p]: [Vector<I>; 1]) -> [Vector<I>; 1] {
        [x / p]
    }
}

impl Map<1, 1, 1> for Into {
    #[inline(always)]
    fn value<I: Isa>(self, [x]: [Vector<I>; 1], [p]: [Vector<I>; 1]) -> [Vector<I>; 1] {
        [p / x]
    }
}

impl Map<2, 1, 1> for IntoGradient {
    #[inline(always)]
    fn value<I: Isa>(self, [x, g]: [Vector<I>; 2], [p]: [Vector<I>; 1]) -> [Vector<I>; 1] {
        [-(g * p / x) / x]
    }
}

impl Map<3, 0, 1> for IntoGradient {
    #[inline(always)]
    fn value<I: Isa>(self, [x, g, p]: [Vector<I>; 3], _: [Vector<I>; 0]) -> [Vector<I>; 1] {
        [-(g * p / x) / x]
    }
}

/// Terms of sums: the gradient alone, times `a`, or divided by it.
impl Sum<1, 0, 1> for Affine {
    #[inline(always)]
    fn terms<I: Isa>(self, v: [Vector<I>; 1], _: [Vector<I>; 0]) -> [Vector<I>; 1] {
        v
    }
}

impl Sum<2, 0, 1> for Multiply {
    #[inline(always)]
    fn terms<I: Isa>(self, [g, a]: [Vector<I>; 2], _: [Vector<I>; 0]) -> [Vector<I>; 1] {
        [g * a]
    }
}

impl Sum<2, 0, 1> for Divide {
    #[inline(always)]
    fn terms<I: Isa>(self, [g, a]: [Vector<I>; 2], _: [Vector<I>; 0]) -> [Vector<I>; 1] {
        [g / a]
    }
}

/// Element by element.
fn elements<F, const M: usize>(place: &Place<'_>, f: F, x: [&[f32]; M], y: &mut [f32])
where
    F: Map<M, 0, 1> + Sync,
{
    let floats = (M + 1) * y.len();
    place.each(floats, Chunks::new(y, FLOATS), |i, y| {
        let x = x.map(|x| &x[i * FLOATS..][..y.len()]);
        place.at(MapOver { f, ch: 1, x, p: [], y: [y] });
    });
}

/// A vector of what an operand's channels are multiplied by and so on, in the order of [`Slices::parameters`].
struct Spread {
    images: usize,
    /// From image to image in the operand; 0 where it is the same for all.
    image: usize,
    /// 0 where it is one value.
    channel: usize,
}

/// Whether there are not too many elements.
fn check_extents([n, c, h, w]: [usize; 4]) -> Result<(), ShapeError> {
    let padded = c.checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX);
    checked_elements("input", &[n, padded, h, w]).map(|_| ())
}

impl Arith {
    /// Of a tensor of the logical extents `dims` with an operand.
    ///
    /// # Errors
    /// If there are too many elements.
    pub fn new(layout: Layout, dims: [usize; 4], operand: Operand) -> Result<Self, ShapeError> {
        check_extents(dims)?;
        Self::of_view(View::dense(layout, dims), operand)
    }

    /// Of a tensor that is a part of a larger one, which [`Arith::sum`] alone takes.
    ///
    /// # Errors
    /// As for [`Arith::new`].
    pub fn of_view(view: View, operand: Operand) -> Result<Self, ShapeError> {
        let (layout, dims) = (view.layout(), view.dims());
        check_extents(dims)?;
        let slices = match operand {
            Operand::Pixels => Slices::new(layout, dims),
            _ => Slices::of_batch(layout, dims),
        };
        Ok(Self { view, operand, slices })
    }

    /// Floats of the other operand, as results have them.
    pub fn operand_len(&self) -> usize {
        let (layout, [n, c, ..]) = (self.view.layout(), self.view.dims());
        match self.operand {
            Operand::Same => self.slices.len(),
            Operand::Pixels => layout.len([n, c, 1, 1]),
            Operand::Channels => layout.len([1, c, 1, 1]),
            Operand::Scalar => 1,
        }
    }

    /// Floats of scratch that either pass needs.
    pub fn scratch(&self) -> usize {
        self.slices.sums() + 2 * self.spread().images * self.slices.channels()
    }

    /// Floats of scratch of each thread beside these: for what [`Arith::sum`] copies of a part of a larger tensor.
    pub fn copy_len(&self) -> usize {
        if self.view.is_dense() { 0 } else { self.slices.longest() }
    }

    fn spread(&self) -> Spread {
        let per_image = self.slices.channels();
        match self.operand {
            Operand::Pixels => Spread { images: self.slices.images, image: per_image, channel: 1 },
            Operand::Scalar => Spread { images: 1, image: 0, channel: 0 },
            _ => Spread { images: 1, image: 0, channel: 1 },
        }
    }

    fn check(&self, tensors: &[&[f32]], b: &[f32], scratch: &[f32]) {
        for t in tensors {
            assert_eq!(t.len(), self.slices.len(), "length of a tensor");
        }
        self.check_small(b, scratch);
    }

    fn check_small(&self, b: &[f32], scratch: &[f32]) {
        let plain = self.operand == Operand::Channels && b.len() == self.slices.c;
        assert!(plain || b.len() == self.operand_len(), "{} floats of {:?}", b.len(), self.operand);
        assert!(scratch.len() >= self.scratch(), "{} floats of scratch, {} needed", scratch.len(), self.scratch());
    }

    /// `f(b)` of each channel; `pad` of those that pad.
    fn parameters<'s>(&self, b: &[f32], pad: f32, f: impl Fn(f32) -> f32, out: &'s mut [f32]) -> &'s [f32] {
        let (s, channels) = (self.spread(), self.slices.channels());
        for image in 0..s.images {
            for k in 0..channels {
                let value = if k < self.slices.c { f(b[image * s.image + k * s.channel]) } else { pad };
                out[image * channels + k] = value;
            }
        }
        &out[..s.images * channels]
    }

    /// A function of tensors and of each channel's parameters.
    fn map<F, const M: usize, const P: usize>(
        &self,
        place: &Place<'_>,
        f: F,
        x: [&[f32]; M],
        p: [&[f32]; P],
        y: &mut [f32],
    ) where
        F: Map<M, P, 1> + Sync,
    {
        let ch = self.slices.ch;
        place.each((M + 1) * self.slices.len(), self.slices.cuts(y), |i, y| {
            let (image, unit, range) = self.slices.slice(i);
            let x = x.map(|x| &x[range.clone()]);
            let p = p.map(|p| self.slices.parameters(p, image, unit));
            place.at(MapOver { f, ch, x, p, y: [y] });
        });
    }

    /// Zeroes the channels that pad the last block.
    fn clear_padding(&self, y: &mut [f32]) {
        let [_, c, h, w] = self.view.dims();
        if self.view.layout() == Layout::Blocked && !c.is_multiple_of(BLOCK) {
            let unit = h * w * BLOCK;
            let blocks = crate::layout::blocks(c);
            for unit in y.chunks_exact_mut(unit).skip(blocks - 1).step_by(blocks) {
                unit.chunks_exact_mut(BLOCK).for_each(|pixel| pixel[c % BLOCK..].fill(0.0));
            }
        }
    }

    /// `y = a op b`
    ///
    /// # Panics
    /// If a length is not what the extents say.
    pub fn forward(&self, place: &Place<'_>, op: Op, a: &[f32], b: &[f32], y: &mut [f32], scratch: &mut [f32]) {
        self.check(&[a, y], b, scratch);
        if self.operand == Operand::Same {
            match op {
                Op::Add => elements(place, Add, [a, b], y),
                Op::Sub => elements(place, Subtract, [a, b], y),
                Op::SubFrom => elements(place, Subtract, [b, a], y),
                Op::Mul => elements(place, Multiply, [a, b], y),
                Op::Div => elements(place, Divide, [a, b], y),
                Op::DivInto => elements(place, Divide, [b, a], y),
            }
        } else {
            let (p, q) = scratch[..self.scratch() - self.slices.sums()]
                .split_at_mut(self.spread().images * self.slices.channels());
            let set = |v: &mut [f32], pad: f32, f: &dyn Fn(f32) -> f32| {
                self.parameters(b, pad, f, v);
            };
            let (one, minus, none) = (|_: f32| 1.0, |_: f32| -1.0, |_: f32| -0.0);
            match op {
                Op::Add => (set(p, 0.0, &one), set(q, 0.0, &|b| b)),
                Op::Sub => (set(p, 0.0, &one), set(q, 0.0, &|b| -b)),
                Op::SubFrom => (set(p, 0.0, &minus), set(q, 0.0, &|b| b)),
                Op::Mul => (set(p, 0.0, &|b| b), set(q, 0.0, &none)),
                Op::Div | Op::DivInto => (set(p, 1.0, &|b| b), ()),
            };
            match op {
                Op::Div => self.map(place, Divide, [a], [p], y),
                Op::DivInto => self.map(place, Into, [a], [p], y),
                _ => self.map(place, Affine, [a], [p, q], y),
            }
        }
        if matches!(op, Op::DivInto) || op == Op::Div && self.operand == Operand::Same {
            self.clear_padding(y);
        }
    }

    /// Gradients at `a` and `b`, those that are wanted, from `[a, b, dy]`; of the operand `b` as [`Arith::operand_len`] floats, or `c` of channels.
    ///
    /// # Panics
    /// If a length is not what the extents say.
    pub fn backward(
        &self,
        place: &Place<'_>,
        op: Op,
        [a, b, dy]: [&[f32]; 3],
        da: Option<&mut [f32]>,
        db: Option<&mut [f32]>,
        scratch: &mut [f32],
    ) {
        self.check(&[a, dy], b, scratch);
        if let Some(da) = da {
            self.check(&[da], b, scratch);
            self.first_gradient(place, op, [a, b, dy], da, scratch);
            if matches!(op, Op::DivInto) || op == Op::Div && self.operand == Operand::Same {
                self.clear_padding(da);
            }
        }
        let Some(db) = db else { return };
        self.check(&[], db, scratch);
        if self.operand != Operand::Same {
            let sums = &mut scratch[..self.slices.sums()];
            match op {
                Op::Add | Op::Sub | Op::SubFrom => {
                    self.slices.sum(place, self.slices.all(), Affine, [dy], [], [&mut *sums])
                }
                Op::Mul | Op::Div => self.slices.sum(place, self.slices.all(), Multiply, [dy, a], [], [&mut *sums]),
                Op::DivInto => self.slices.sum(place, self.slices.all(), Divide, [dy, a], [], [&mut *sums]),
            }
            return self.totals(sums, db, |total, k| match op {
                Op::Sub => -total,
                Op::Div => -total / (f64::from(b[k]) * f64::from(b[k])),
                _ => total,
            });
        }
        match op {
            Op::Add | Op::SubFrom => db.copy_from_slice(dy),
            Op::Sub => self.map(place, Affine, [dy], self.constants([-1.0, -0.0], scratch), db),
            Op::Mul => elements(place, Multiply, [dy, a], db),
            Op::Div => elements(place, IntoGradient, [b, dy, a], db),
            Op::DivInto => elements(place, Divide, [dy, a], db),
        }
        if matches!(op, Op::Div | Op::DivInto) {
            self.clear_padding(db);
        }
    }

    /// Two parameters that are the same for all channels, but 0 for those that pad.
    fn constants<'s>(&self, [p, q]: [f32; 2], scratch: &'s mut [f32]) -> [&'s [f32]; 2] {
        let channels = self.slices.channels();
        let (first, second) = scratch[..2 * channels].split_at_mut(channels);
        first.fill(p);
        second.fill(q);
        [first, second]
    }

    /// The gradient at `a`.
    fn first_gradient(&self, place: &Place<'_>, op: Op, [a, b, dy]: [&[f32]; 3], da: &mut [f32], scratch: &mut [f32]) {
        match op {
            Op::Add | Op::Sub => return da.copy_from_slice(dy),
            Op::SubFrom => return self.map(place, Affine, [dy], self.constants([-1.0, -0.0], scratch), da),
            _ => (),
        }
        if self.operand == Operand::Same {
            match op {
                Op::Mul => elements(place, Multiply, [dy, b], da),
                Op::Div => elements(place, Divide, [dy, b], da),
                _ => elements(place, IntoGradient, [a, dy, b], da),
            }
            return;
        }
        let (p, q) =
            scratch[..self.scratch() - self.slices.sums()].split_at_mut(self.spread().images * self.slices.channels());
        let p = self.parameters(b, if op == Op::Mul { 0.0 } else { 1.0 }, |b| b, p);
        match op {
            Op::Mul => {
                let q = self.parameters(b, 0.0, |_| -0.0, q);
                self.map(place, Affine, [dy], [p, q], da);
            }
            Op::Div => self.map(place, Divide, [dy], [p], da),
            _ => self.map(place, IntoGradient, [a, dy], [p], da),
        }
    }

    /// Sums over the axes that the operand lacks, each through `f(sum, where it lies)`; 0 for channels that pad.
    fn totals(&self, sums: &[f32], out: &mut [f32], f: impl Fn(f64, usize) -> f64) {
        with_default(|| self.add_slices(sums, out, f));
    }

    fn add_slices(&self, sums: &[f32], out: &mut [f32], f: impl Fn(f64, usize) -> f64) {
        let (s, channels) = (self.slices, self.slices.channels());
        let over_images = |k: usize| (0..s.images).map(|i| s.total(sums, i, k)).sum::<f64>();
        out.fill(0.0);
        match self.operand {
            Operand::Scalar => out[0] = f((0..s.c).map(over_images).sum(), 0) as f32,
            Operand::Channels => (0..s.c).for_each(|k| out[k] = f(over_images(k), k) as f32),
            _ => {
                for image in 0..s.images {
                    for k in 0..s.c {
                        let at = image * channels + k;
                        out[at] = f(s.total(sums, image, k), at) as f32;
                    }
                }
            }
        }
    }

    /// The sum of `x` over the axes that the operand lacks, times `scale`: the gradient of a bias, or with `scale` 1 over the number of pixels a mean.
    ///
    /// `scratch` holds [`Arith::scratch`] floats, and [`Arith::copy_len`] for each thread that is to take part, at least for one.
    ///
    /// # Panics
    /// If a length is not what the extents say, or the operand lacks no axis.
    pub fn sum(&self, place: &Place<'_>, x: &[f32], scale: f32, y: &mut [f32], scratch: &mut [f32]) {
        assert_eq!(x.len(), self.view.len(), "length of a tensor");
        self.check_small(y, scratch);
        assert_ne!(self.operand, Operand::Same, "nothing to sum over");
        let (s, copy_len) = (&self.slices, self.copy_len());
        let (scratch, copies) = scratch.split_at_mut(self.scratch());
        let sums = &mut scratch[..s.sums()];
        place.each_with(x.len(), Chunks::new(sums, s.ch), (copies, copy_len), |i, out, copy| {
            let (.., range) = s.slice(i);
            let x = if copy_len == 0 { &x[range] } else { self.view.floats(x, range, copy) };
            place.at(SumOver { f: Affine, ch: s.ch, x: [x], p: [], out: [out] });
        });
        self.totals(sums, y, |total, _| total * f64::from(scale));
    }
}
