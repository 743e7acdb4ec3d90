//! Batch, group and instance normalisation, forward and backward, in every layout; layer normalisation over rows.
//!
//! ```text
//! a set of values shares a mean m and a variance v: a channel of the batch, or some channels of an image
//! forward    y = (x - m) / sqrt(v + eps) w + b,   then a residual is added, then ReLU or clip
//! backward   g = dy where the clip let y pass,    xhat = (x - m) s,   s = 1 / sqrt(v + eps)
//!            db = sum g,   dw = sum g xhat
//!            dx = s (w g - mean(w g) - xhat mean(w g xhat))          with means over the set
//!            dx = s w g                                              where statistics are given, not computed
//! ```
//!
//! # Order of sums and precision
//!
//! The tensor is cut into slices of at most 1024 pixels (16,384 in a plane of NCHW), which the shape alone fixes. For each slice and channel
//! the mean comes first, then sums of `x - mean` and of its square while the slice is in L2: memory is read once,
//! and a mean of 1000 standard deviations loses nothing. Slices are combined in f64 in their order (Chan, Golub and LeVeque
//! 1983). What is kept are m and s in f32; the forward pass also subtracts what rounding m lost.
//!
//! Results are the same bits for any number of threads, and at every level.
//!
//! # Passes and caches
//!
//! A set is read twice: for its sums, then to be normalised. Sets whose tensors exceed the caches together are processed in
//! blocks of at most 1 MiB, or one unit of channels, so that the second visit finds in a cache what the first has read.

mod layer;

use core::ops::Range;

use crate::control_word::with_default;
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::layout::Layout;
use crate::pass::{Map, MapOver, Place, Sum, Vector};
use crate::shape::{ShapeError, checked_elements};
use crate::slices::{Part, Slices};

pub use layer::{LayerBackward, LayerNorm};

/// Floats of a block of sets: two threads' L2 caches keep three such tensors, and an L3 cache does where a single unit is larger.
const BLOCK_FLOATS: usize = 1 << 18;

/// Which values share a mean and a variance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sets {
    /// A channel, over all images: batch normalisation.
    Batch,
    /// So many groups of neighbouring channels of each image: group normalisation; with as many as there are channels, instance
    /// normalisation.
    Groups(usize),
}

/// A normalisation of a tensor in a layout: checked extents, and how the work is cut.
///
/// ```
/// use swath_kernels::norm::{Forward, Norm, Normalised, Sets};
/// use swath_kernels::{isa::Cpu, layout::Layout, pass::Place};
/// let norm = Norm::new(Layout::Nchw, [2, 1, 1, 2], Sets::Batch)?;
/// let (mut y, mut mean, mut inv) = ([0.0; 4], [0.0], [0.0]);
/// let mut scratch = vec![0.0; norm.scratch()];
/// let place = Place::inline(Cpu::detect().level);
/// let forward = Forward { x: &[1000.0, 1002.0, 1004.0, 1006.0], eps: 0.0, ..Forward::default() };
/// let out = Normalised { y: &mut y, mean: &mut mean, inv: &mut inv, running: None, affine: None };
/// norm.forward(&place, &forward, out, &mut scratch);
/// assert_eq!(mean, [1003.0]);
/// assert!((y[3] - 3.0 / 5f32.sqrt()).abs() < 1e-6);
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Norm {
    slices: Slices,
    sets: Sets,
}

/// What a forward pass reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forward<'a> {
    /// The input.
    pub x: &'a [f32],
    /// Scale of each channel; 1 where there is none.
    pub w: Option<&'a [f32]>,
    /// Shift of each channel; 0 where there is none.
    pub b: Option<&'a [f32]>,
    /// Added to the variance.
    pub eps: f32,
    /// Added to the result, before the activation: a tensor of the same extents and layout.
    pub residual: Option<&'a [f32]>,
    /// Identity, ReLU, or a clip around zero.
    pub activation: Activation,
}

/// Running statistics of batch normalisation: `running = (1 - momentum) running + momentum batch`, of which the variance is
/// the unbiased one (over `n - 1`).
#[derive(Debug)]
pub struct Running<'a> {
    /// Means of each channel.
    pub mean: &'a mut [f32],
    /// Variances of each channel.
    pub var: &'a mut [f32],
    /// PyTorch's momentum; for its cumulative mean 1 over the number of batches, this one included.
    pub momentum: f32,
}

/// What a forward pass writes: the output, and for the backward pass mean and `1 / sqrt(variance + eps)` of each set, of
/// which there are [`Norm::sets`].
#[derive(Debug)]
pub struct Normalised<'a> {
    /// The output.
    pub y: &'a mut [f32],
    /// Means.
    pub mean: &'a mut [f32],
    /// `1 / sqrt(variance + eps)`
    pub inv: &'a mut [f32],
    /// Running statistics to update, of batch normalisation.
    pub running: Option<Running<'a>>,
    /// Takes scale and shift of each channel as the output was computed with, of batch normalisation: [`Norm::evaluate`] with these, and
    /// `inv` of ones, gives the same bits.
    pub affine: Option<(&'a mut [f32], &'a mut [f32])>,
}

/// What a backward pass reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backward<'a> {
    /// The input of the forward pass.
    pub x: &'a [f32],
    /// The gradient at the output.
    pub dy: &'a [f32],
    /// The forward pass's activation: gradients pass where its result is inside the limits. Identity behind a residual, where `dy` is
    /// that of the sum.
    pub activation: Activation,
    /// Scale and shift of [`Normalised::affine`], where the activation is not identity: they say what its result was.
    pub affine: Option<(&'a [f32], &'a [f32])>,
    /// Scale of each channel; 1 where there is none.
    pub w: Option<&'a [f32]>,
    /// Means, as the forward pass left them, or running ones.
    pub mean: &'a [f32],
    /// `1 / sqrt(variance + eps)`, as the forward pass left them, or of running variances (see [`inverse`]).
    pub inv: &'a [f32],
    /// Whether mean and variance were given, not computed from `x`, so that no gradient goes through them.
    pub frozen: bool,
}

/// Gradients that a backward pass writes; none is computed that is not wanted.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// Of the input.
    pub dx: Option<&'a mut [f32]>,
    /// Of the scale.
    pub dw: Option<&'a mut [f32]>,
    /// Of the shift.
    pub db: Option<&'a mut [f32]>,
}

/// Whether a normalisation applies an activation as it stores its result: identity, ReLU, and a clip around zero.
pub fn fuses(activation: Activation) -> bool {
    fused(activation).is_some()
}

/// Limits of the activations that are fused here.
fn fused(activation: Activation) -> Option<[f32; 2]> {
    let limits = match activation {
        Activation::Identity => [f32::NEG_INFINITY, f32::INFINITY],
        Activation::Relu => [0.0, f32::INFINITY],
        Activation::Clip { lo, hi } => [lo, hi],
        _ => return None,
    };
    (limits[0] <= 0.0 && limits[1] >= 0.0).then_some(limits)
}

fn limits(activation: Activation) -> [f32; 2] {
    fused(activation).unwrap_or_else(|| panic!("{activation:?} is not fused with a normalisation"))
}

/// `1 / sqrt(var + eps)` of each channel: [`Backward::inv`] of running variances.
pub fn inverse(var: &[f32], eps: f32, inv: &mut [f32]) {
    with_default(|| {
        for (inv, &var) in inv.iter_mut().zip(var) {
            *inv = inverse_of(f64::from(var), eps) as f32;
        }
    });
}

fn inverse_of(var: f64, eps: f32) -> f64 {
    let var = if var < 0.0 { 0.0 } else { var }; // a rounding below zero; NaN stays
    1.0 / (var + f64::from(eps)).sqrt()
}

/// `dy` where `y`, clipped or not, is inside the limits or NaN, else 0.
#[inline(always)]
fn pass<I: Isa>(dy: Vector<I>, y: Vector<I>, [lo, hi]: [f32; 2]) -> Vector<I> {
    let zero = dy.all(0.0);
    // `y <= lo`, `y >= hi`
    let dy = y.where_less(y.all(lo.next_up()), zero, dy);
    y.all(hi.next_down()).where_less(y, zero, dy)
}

#[derive(Clone, Copy)]
struct Plain;

impl Sum<1, 0, 1> for Plain {
    #[inline(always)]
    fn terms<I: Isa>(self, v: [Vector<I>; 1], _: [Vector<I>; 0]) -> [Vector<I>; 1] {
        v
    }
}

/// Deviations from a mean, and their squares.
#[derive(Clone, Copy)]
struct Centred;

impl Sum<1, 1, 2> for Centred {
    #[inline(always)]
    fn terms<I: Isa>(self, [x]: [Vector<I>; 1], [m]: [Vector<I>; 1]) -> [Vector<I>; 2] {
        let d = x - m;
        [d, d * d]
    }
}

/// Products of gradients and deviations, with the activation's limits.
#[derive(Clone, Copy)]
struct Limits([f32; 2]);

impl Sum<2, 1, 2> for Limits {
    #[inline(always)]
    fn terms<I: Isa>(self, [x, dy]: [Vector<I>; 2], [m]: [Vector<I>; 1]) -> [Vector<I>; 2] {
        [dy, dy * (x - m)]
    }
}

impl Sum<2, 3, 2> for Limits {
    #[inline(always)]
    fn terms<I: Isa>(self, [x, dy]: [Vector<I>; 2], [m, a, b]: [Vector<I>; 3]) -> [Vector<I>; 2] {
        let d = x - m;
        let g = pass(dy, d * a + b, self.0);
        [g, g * d]
    }
}

/// Forward, without and with a residual.
impl Map<1, 3, 1> for Limits {
    #[inline(always)]
    fn value<I: Isa>(self, [x]: [Vector<I>; 1], [m, a, b]: [Vector<I>; 3]) -> [Vector<I>; 1] {
        [((x - m) * a + b).clip(self.0)]
    }
}

impl Map<2, 3, 1> for Limits {
    #[inline(always)]
    fn value<I: Isa>(self, [x, r]: [Vector<I>; 2], [m, a, b]: [Vector<I>; 3]) -> [Vector<I>; 1] {
        [((x - m) * a + b + r).clip(self.0)]
    }
}

/// Backward, without and with an activation.
impl Map<2, 4, 1> for Limits {
    #[inline(always)]
    fn value<I: Isa>(self, [x, dy]: [Vector<I>; 2], [m, ka, kb, kc]: [Vector<I>; 4]) -> [Vector<I>; 1] {
        [dy * ka + ((x - m) * kb + kc)]
    }
}

impl Map<2, 6, 1> for Limits {
    #[inline(always)]
    fn value<I: Isa>(self, [x, dy]: [Vector<I>; 2], [m, ka, kb, kc, a, b]: [Vector<I>; 6]) -> [Vector<I>; 1] {
        let d = x - m;
        [pass(dy, d * a + b, self.0) * ka + (d * kb + kc)]
    }
}

impl Norm {
    /// Of a tensor of the logical extents `dims = [n, c, h, w]`.
    ///
    /// # Errors
    /// If there are no groups, or they do not divide the channels, or the tensor is too large.
    pub fn new(layout: Layout, dims: [usize; 4], sets: Sets) -> Result<Self, ShapeError> {
        let [n, c, h, w] = dims;
        checked_elements("input", &[n, c.checked_next_multiple_of(16).unwrap_or(usize::MAX), h, w])?;
        if let Sets::Groups(groups) = sets
            && (groups == 0 || !c.is_multiple_of(groups))
        {
            return Err(ShapeError::Groups { what: "normalised", groups, channels: c });
        }
        let slices = if sets == Sets::Batch { Slices::of_batch(layout, dims) } else { Slices::new(layout, dims) };
        Ok(Self { slices, sets })
    }

    /// Means and variances that there are: one for each channel, or for each image and group.
    pub fn sets(&self) -> usize {
        match self.sets {
            Sets::Batch => self.slices.c,
            Sets::Groups(g) => self.slices.images * g,
        }
    }

    /// Values that share a mean. Batch normalisation in training wants at least two (PyTorch's rule).
    pub fn set_len(&self) -> usize {
        let (images, channels) = self.members(0);
        images.len() * channels.len() * self.slices.pixels
    }

    /// Floats of scratch that either pass needs.
    pub fn scratch(&self) -> usize {
        3 * self.slices.sums() + 6 * self.coefficients()
    }

    /// Channels with coefficients of their own: those of one image, or of all.
    fn coefficients(&self) -> usize {
        let images = if self.sets == Sets::Batch { 1 } else { self.slices.images };
        images * self.slices.channels()
    }

    /// All sets in blocks, with the slices that hold them.
    fn blocks(&self) -> impl Iterator<Item = (Range<usize>, Part)> + use<> {
        let (norm, s) = (*self, self.slices);
        let (units, floats, sets) = match self.sets {
            Sets::Batch => (s.units, s.of_units(0..1).floats, s.ch),
            Sets::Groups(g) => (s.images, s.of_images(0..1).floats, g),
        };
        let per_block = (BLOCK_FLOATS / floats.max(1)).max(1);
        (0..units).step_by(per_block).map(move |start| {
            let units = start..(start + per_block).min(units);
            let part = if norm.sets == Sets::Batch { s.of_units(units.clone()) } else { s.of_images(units.clone()) };
            (units.start * sets..(units.end * sets).min(norm.sets()), part)
        })
    }

    /// Images and channels of a set.
    fn members(&self, set: usize) -> (Range<usize>, Range<usize>) {
        match self.sets {
            Sets::Batch => (0..self.slices.images, set..set + 1),
            Sets::Groups(g) => {
                let (image, group, per) = (set / g, set % g, self.slices.c / g);
                (image..image + 1, group * per..(group + 1) * per)
            }
        }
    }

    /// Where the coefficients of a channel of a set lie.
    fn coefficient(&self, set: usize, channel: usize) -> usize {
        let image = match self.sets {
            Sets::Batch => 0,
            Sets::Groups(g) => set / g,
        };
        image * self.slices.channels() + channel
    }

    /// Mean and variance (biased) of a set, from sums of its slices: mean, deviations, squares.
    fn statistics(&self, set: usize, [means, sums, squares]: [&[f32]; 3]) -> (f64, f64) {
        let (images, channels) = self.members(set);
        let slices = |f: &mut dyn FnMut(usize, f64)| {
            for image in images.clone() {
                for channel in channels.clone() {
                    for (s, i) in self.slices.of_channel(image, channel).enumerate() {
                        f(i, self.slices.slice_pixels(s) as f64);
                    }
                }
            }
        };
        let count = self.set_len() as f64;
        let mut mean = 0.0;
        slices(&mut |i, n| mean += n * f64::from(means[i]) + f64::from(sums[i]));
        mean /= count;
        let mut square = 0.0;
        // Of deviations d from a slice's mean m: sum of (d + m - mean)^2.
        slices(&mut |i, n| {
            let shift = f64::from(means[i]) - mean;
            square += f64::from(squares[i]) + shift * (2.0 * f64::from(sums[i]) + n * shift);
        });
        (mean, square / count)
    }

    /// Checks the tensors' lengths, and those of parameters.
    fn check(&self, tensors: &[Option<&[f32]>], parameters: &[Option<&[f32]>], scratch: &[f32]) {
        for t in tensors.iter().flatten() {
            assert_eq!(t.len(), self.slices.len(), "length of a tensor");
        }
        for p in parameters.iter().flatten() {
            assert_eq!(p.len(), self.slices.c, "one parameter for each channel");
        }
        assert!(scratch.len() >= self.scratch(), "{} floats of scratch, {} needed", scratch.len(), self.scratch());
    }

    /// Normalises by the statistics of `x`.
    ///
    /// # Panics
    /// If a length is not what the extents say, `running` is given where sets are not channels, or the activation is
    /// another one than [`Forward::activation`] allows.
    pub fn forward(&self, place: &Place<'_>, f: &Forward<'_>, out: Normalised<'_>, scratch: &mut [f32]) {
        with_default(|| self.train(place, f, out, scratch));
    }

    fn train(&self, place: &Place<'_>, f: &Forward<'_>, out: Normalised<'_>, scratch: &mut [f32]) {
        let Normalised { y, mean, inv, mut running, affine } = out;
        self.check(&[Some(f.x), f.residual, Some(y)], &[f.w, f.b], scratch);
        assert!(mean.len() == self.sets() && inv.len() == self.sets(), "as many means as sets, {}", self.sets());
        assert!(running.is_none() || self.sets == Sets::Batch, "only batch normalisation has running statistics");
        assert!(affine.is_none() || self.sets == Sets::Batch, "only batch normalisation has a scale for each channel");
        let (sums, coefficients) = scratch[..self.scratch()].split_at_mut(3 * self.slices.sums());
        let [means, sums, squares] = equal(sums);
        let [m, a, b, _, _, _] = equal(coefficients);
        [&mut *m, &mut *a, &mut *b].into_iter().for_each(|v| v.fill(0.0));
        for (sets, part) in self.blocks() {
            self.sum_slices(place, part, f.x, [&mut *means, &mut *sums, &mut *squares]);
            for set in sets {
                let (centre, var) = self.statistics(set, [means, sums, squares]);
                let s = inverse_of(var, f.eps);
                (mean[set], inv[set]) = (centre as f32, s as f32);
                // What the rounding of the mean lost goes into the shift.
                let lost = centre - f64::from(mean[set]);
                for channel in self.members(set).1 {
                    let scale = s * f.w.map_or(1.0, |w| f64::from(w[channel]));
                    let i = self.coefficient(set, channel);
                    (m[i], a[i]) = (mean[set], scale as f32);
                    b[i] = (f.b.map_or(0.0, |b| f64::from(b[channel])) - lost * scale) as f32;
                }
                if let Some(r) = &mut running {
                    let (n, k) = (self.set_len() as f64, f64::from(r.momentum));
                    let step = |old: f32, new: f64| ((1.0 - k) * f64::from(old) + k * new) as f32;
                    r.mean[set] = step(r.mean[set], centre);
                    r.var[set] = step(r.var[set], var * n / (n - 1.0));
                }
            }
            self.apply(place, part, f, [&*m, &*a, &*b], y);
        }
        if let Some((scale, shift)) = affine {
            scale.copy_from_slice(&a[..self.slices.c]);
            shift.copy_from_slice(&b[..self.slices.c]);
        }
    }

    /// Normalises by given means and `inv = 1 / sqrt(variance + eps)` (see [`inverse`]): evaluation mode. `f.eps` is not used.
    ///
    /// # Panics
    /// As [`Norm::forward`].
    pub fn evaluate(
        &self,
        place: &Place<'_>,
        f: &Forward<'_>,
        mean: &[f32],
        inv: &[f32],
        y: &mut [f32],
        scratch: &mut [f32],
    ) {
        self.check(&[Some(f.x), f.residual, Some(y)], &[f.w, f.b], scratch);
        assert!(mean.len() == self.sets() && inv.len() == self.sets(), "as many means as sets, {}", self.sets());
        let [m, a, b] = equal(&mut scratch[..3 * self.coefficients()]);
        [&mut *m, &mut *a, &mut *b].into_iter().for_each(|v| v.fill(0.0));
        with_default(|| {
            for set in 0..self.sets() {
                for channel in self.members(set).1 {
                    let i = self.coefficient(set, channel);
                    (m[i], a[i]) = (mean[set], inv[set] * f.w.map_or(1.0, |w| w[channel]));
                    b[i] = f.b.map_or(0.0, |b| b[channel]);
                }
            }
        });
        self.apply(place, self.slices.all(), f, [m, a, b], y);
    }

    /// Mean, deviations and squares of each channel and each of some slices, in one visit.
    fn sum_slices(&self, place: &Place<'_>, part: Part, x: &[f32], out: [&mut [f32]; 3]) {
        use crate::pass::{Chunks, SumOver};
        let ch = self.slices.ch;
        let cuts = out.map(|out| Chunks::new(out, ch));
        place.each_of(part.floats, part.runs, cuts, |i, [mean, sum, square]| {
            let x = [&x[self.slices.slice(i).2]];
            place.at(SumOver { f: Plain, ch, x, p: [], out: [&mut *mean] });
            let pixels = (x[0].len() / ch) as f32;
            mean.iter_mut().for_each(|m| *m /= pixels);
            place.at(SumOver { f: Centred, ch, x, p: [mean], out: [sum, square] });
        });
    }

    /// `clip((x - m) a + b + residual)`
    fn apply(&self, place: &Place<'_>, part: Part, f: &Forward<'_>, p: [&[f32]; 3], y: &mut [f32]) {
        let (limits, ch) = (Limits(limits(f.activation)), self.slices.ch);
        place.each_of(2 * part.floats, part.runs, self.slices.cuts(y), |i, y| {
            let (image, unit, range) = self.slices.slice(i);
            let (x, p) = (&f.x[range.clone()], p.map(|p| self.slices.parameters(p, image, unit)));
            match f.residual {
                None => place.at(MapOver { f: limits, ch, x: [x], p, y: [y] }),
                Some(r) => place.at(MapOver { f: limits, ch, x: [x, &r[range]], p, y: [y] }),
            }
        });
    }

    /// The gradients that are wanted.
    ///
    /// # Panics
    /// If a length is not what the extents say, or there is an activation and no scale and shift.
    pub fn backward(&self, place: &Place<'_>, b: &Backward<'_>, out: Gradients<'_>, scratch: &mut [f32]) {
        with_default(|| self.differentiate(place, b, out, scratch));
    }

    fn differentiate(&self, place: &Place<'_>, b: &Backward<'_>, out: Gradients<'_>, scratch: &mut [f32]) {
        self.check(
            &[Some(b.x), Some(b.dy), out.dx.as_deref()],
            &[b.w, out.dw.as_deref(), out.db.as_deref(), b.affine.map(|a| a.0), b.affine.map(|a| a.1)],
            scratch,
        );
        assert!(b.mean.len() == self.sets() && b.inv.len() == self.sets(), "as many means as sets, {}", self.sets());
        let limits = Limits(limits(b.activation));
        let (sums, coefficients) = scratch[..self.scratch()].split_at_mut(3 * self.slices.sums());
        let [s1, s2, _] = equal(sums);
        coefficients.fill(0.0);
        let [m, ka, kb, kc, scale, shift] = equal(coefficients);
        let clipped = b.activation != Activation::Identity;
        if clipped {
            let (a, b) = b.affine.expect("scale and shift, to know what the activation did");
            assert_eq!(self.sets, Sets::Batch, "only batch normalisation has a scale for each channel");
            scale[..a.len()].copy_from_slice(a);
            shift[..b.len()].copy_from_slice(b);
        }
        for set in 0..self.sets() {
            for channel in self.members(set).1 {
                m[self.coefficient(set, channel)] = b.mean[set];
            }
        }
        let Gradients { mut dx, dw, db } = out;
        let summed = !b.frozen || dw.is_some() || db.is_some();
        for (sets, part) in self.blocks() {
            if summed {
                let (x, into) = ([b.x, b.dy], [&mut *s1, &mut *s2]);
                match clipped {
                    false => self.slices.sum(place, part, limits, x, [&*m], into),
                    true => self.slices.sum(place, part, limits, x, [&*m, &*scale, &*shift], into),
                }
            }
            let Some(dx) = dx.as_deref_mut() else { continue };
            self.input_coefficients(b, sets, [&*s1, &*s2], [&mut *ka, &mut *kb, &mut *kc]);
            let (p, ch): ([&[f32]; 6], _) = ([m, ka, kb, kc, scale, shift], self.slices.ch);
            place.each_of(3 * part.floats, part.runs, self.slices.cuts(dx), |i, dx| {
                let (image, unit, range) = self.slices.slice(i);
                let x = [&b.x[range.clone()], &b.dy[range]];
                let p = p.map(|p| self.slices.parameters(p, image, unit));
                match (clipped, p) {
                    (false, [m, ka, kb, kc, ..]) => place.at(MapOver { f: limits, ch, x, p: [m, ka, kb, kc], y: [dx] }),
                    (true, p) => place.at(MapOver { f: limits, ch, x, p, y: [dx] }),
                }
            });
        }
        self.parameter_gradients(b, [s1, s2], dw, db);
    }

    /// `dw` and `db`, from sums of `g` and of `g (x - m)`.
    fn parameter_gradients(
        &self,
        b: &Backward<'_>,
        [s1, s2]: [&[f32]; 2],
        mut dw: Option<&mut [f32]>,
        mut db: Option<&mut [f32]>,
    ) {
        if dw.is_none() && db.is_none() {
            return;
        }
        for channel in 0..self.slices.c {
            let (mut w, mut sum) = (0.0, 0.0);
            for image in 0..self.slices.images {
                let set = match self.sets {
                    Sets::Batch => channel,
                    Sets::Groups(g) => image * g + channel / (self.slices.c / g),
                };
                sum += self.slices.total(s1, image, channel);
                w += f64::from(b.inv[set]) * self.slices.total(s2, image, channel);
            }
            if let Some(dw) = &mut dw {
                dw[channel] = w as f32;
            }
            if let Some(db) = &mut db {
                db[channel] = sum as f32;
            }
        }
    }

    /// `dx = a g + b (x - m) + c`: the coefficients of some sets.
    fn input_coefficients(
        &self,
        bw: &Backward<'_>,
        sets: Range<usize>,
        [s1, s2]: [&[f32]; 2],
        [a, b, c]: [&mut [f32]; 3],
    ) {
        let w = |channel: usize| bw.w.map_or(1.0, |w| f64::from(w[channel]));
        for set in sets {
            let (images, channels) = self.members(set);
            let (mut sum, mut products) = (0.0, 0.0);
            if !bw.frozen {
                for image in images {
                    for channel in channels.clone() {
                        sum += w(channel) * self.slices.total(s1, image, channel);
                        products += w(channel) * self.slices.total(s2, image, channel);
                    }
                }
            }
            let (s, n) = (f64::from(bw.inv[set]), self.set_len() as f64);
            for channel in channels {
                let i = self.coefficient(set, channel);
                a[i] = (s * w(channel)) as f32;
                b[i] = (-s * s * s * products / n) as f32;
                c[i] = (-s * sum / n) as f32;
            }
        }
    }
}

/// A slice in `N` equal parts.
fn equal<const N: usize>(v: &mut [f32]) -> [&mut [f32]; N] {
    let (part, mut rest) = (v.len() / N, v);
    core::array::from_fn(|_| rest.split_off_mut(..part).expect("`N` parts of that length"))
}
