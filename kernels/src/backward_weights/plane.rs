//! Depthwise 3x3 convolution of stride 1 over planes of NCHW: a vector lies along a row, and nothing is copied.
//!
//! ```text
//! for each slice of the pixels, channel:       threads
//!   for each segment of the slice, image:
//!     for each row of x, vector of columns:    load x under three taps; for each of three rows of dy: load dy, sums[tap] += x * dy
//!     sums[slice][channel][tap] += the sum of a vector's lanes
//! then for each channel:                       dw = sum over slices
//! ```
//!
//! By rows of `x`, not of `dy`: what lies under three taps of a row is loaded for nine multiply-adds, and rows of `dy` are loaded where
//! vectors are aligned. Of rows that lack taps each tap row is summed by itself. A vector that hangs over an edge is loaded for each tap
//! with those lanes that have it, of `x` and of `dy`, so that nothing is multiplied by padding.
//!
//! Order of each sum: lane by lane from row to row, each from left to right; lanes pair by pair; images, segments and slices in their order.
//! Error: as for [`BackwardWeights`](super::BackwardWeights).

use core::mem::MaybeUninit;
use core::ops::Range;

use super::{LONGEST, PARTS, Segments, assert_run};
use crate::control_word::with_default;
use crate::epilogue::Outputs;
use crate::exec::{Executor, Shared, cut, for_each_part_with};
use crate::isa::{Entry, Isa, Kernel, Level};
use crate::layout::{Layout, Strides, View};
use crate::machine::Core;
use crate::shape::ConvShape;
use crate::table::{by_level, edges};

/// Rows and columns of taps.
const K: usize = 3;

/// Floats of a channel's sums: of nine taps, and of the gradient itself; what is left pads.
const SUMS: usize = 16;

/// The sum of the gradient among them, and the row of taps that counts it.
const BIAS: usize = K * K;
const COUNTS: usize = 1;

/// Whole vectors that take as long as one at an edge.
const EDGE: usize = 4;

/// What a kernel works on. Lengths and steps in floats.
#[derive(Clone, Copy)]
struct PlaneArgs {
    /// The first row of `x` under the first column of taps at column 0 of `dy`; rows, and from row to row.
    x: *const f32,
    rows: usize,
    x_row: usize,
    /// Row 0 of `dy`, and from row to row.
    dy: *const f32,
    dy_row: usize,
    /// Row of `dy` that the first row of `x` meets by the first row of taps, modulo 2^64; and rows of `dy` that are summed.
    first: usize,
    segment: [usize; 2],
    /// Vectors of a row of `dy`.
    across: Across,
    /// Sums of the channel.
    sums: *mut f32,
}

/// Vectors of a row: how many, and those of which all columns have all taps. At most one lies before these, and two behind them.
#[derive(Clone, Copy, Debug, Default)]
struct Across {
    vectors: usize,
    inner: [usize; 2],
    /// The vector before, and the last two.
    edges: [Edge; 3],
}

/// A vector at an edge.
#[derive(Clone, Copy, Debug, Default)]
struct Edge {
    /// Lanes that have each column of taps.
    lanes: [[usize; 2]; K],
    /// Columns that exist.
    exist: usize,
}

impl Across {
    /// Those of a row, or why there are more.
    fn new(s: &ConvShape, lanes: usize) -> Result<Self, &'static str> {
        if s.pad.left > lanes || s.pad.right > lanes {
            return Err("padding of more than a vector on the left or the right");
        }
        let vectors = s.ow.div_ceil(lanes);
        let first = s.pad.left.div_ceil(lanes).min(vectors);
        // The last column of the last tap of a vector exists.
        let end = (s.pad.left + s.iw).saturating_sub(K - 1).min(s.ow) / lanes;
        let edge = |v: usize| {
            let (at, exist) = (v * lanes, s.ow.saturating_sub(v * lanes).min(lanes));
            let lane = |column: usize| column.saturating_sub(at).min(exist);
            let under = |kx: usize| [lane(s.pad.left.saturating_sub(kx)), lane((s.pad.left + s.iw).saturating_sub(kx))];
            Edge { lanes: core::array::from_fn(under), exist }
        };
        let edges = [0, vectors.saturating_sub(2), vectors.saturating_sub(1)].map(edge);
        Ok(Self { vectors, inner: [first, end.max(first)], edges })
    }
}

/// Nine sums at once.
struct Plane;

impl Plane {
    /// Adds a vector of columns to the sums of rows of taps from `FIRST` on, as many as there are rows of `dy`.
    ///
    /// # Safety
    /// As [`Kernel::run`] of this kernel has it: the vector's pixels exist; at an edge those that do are loaded.
    #[inline(always)]
    unsafe fn vector<I: Isa, const FIRST: usize, const N: usize>(
        s: I,
        a: &PlaneArgs,
        (x, dy, v): (*const f32, *const f32, usize),
        edge: Option<&Edge>,
        acc: &mut [[I::V; K]; K],
        bias: &mut I::V,
    ) {
        let at = v * I::LANES;
        let (x, dy) = (x.wrapping_add(at), dy.wrapping_add(at));
        // Each row of taps lies a row of `dy` higher.
        let line = |ky: usize| dy.wrapping_sub((ky - FIRST) * a.dy_row);
        // SAFETY: pixels that exist.
        unsafe {
            let Some(edge) = edge else {
                let under = [s.load(x), s.load(x.wrapping_add(1)), s.load(x.wrapping_add(2))];
                for ky in FIRST..FIRST + N {
                    let g = s.load(line(ky));
                    for kx in 0..K {
                        acc[ky][kx] = s.fma(under[kx], g, acc[ky][kx]);
                    }
                    if ky == COUNTS {
                        *bias = s.add(*bias, g);
                    }
                }
                return;
            };
            for kx in 0..K {
                let [lo, hi] = edge.lanes[kx];
                let lanes = s.range(lo, hi);
                let under = s.load_range(x.wrapping_add(kx), lanes);
                for ky in FIRST..FIRST + N {
                    acc[ky][kx] = s.fma(under, s.load_range(line(ky), lanes), acc[ky][kx]);
                }
            }
            if (FIRST..FIRST + N).contains(&COUNTS) {
                *bias = s.add(*bias, s.load_partial(line(COUNTS), edge.exist));
            }
        }
    }

    /// Adds a row to the sums of rows of taps from `FIRST` on, where the first of them meets this row of `dy`.
    ///
    /// # Safety
    /// As [`Kernel::run`] of this kernel has it.
    #[inline(always)]
    unsafe fn row<I: Isa, const FIRST: usize, const N: usize>(
        s: I,
        a: &PlaneArgs,
        (x, dy): (*const f32, *const f32),
        acc: &mut [[I::V; K]; K],
        bias: &mut I::V,
    ) {
        let Across { vectors, inner: [inner, end], edges } = &a.across;
        // SAFETY: rows that exist; vectors between `inner` and `end` are whole. The others are no loop, for which masks would be kept.
        unsafe {
            if *inner > 0 {
                Self::vector::<I, FIRST, N>(s, a, (x, dy, 0), Some(&edges[0]), acc, bias);
            }
            for v in *inner..*end {
                Self::vector::<I, FIRST, N>(s, a, (x, dy, v), None, acc, bias);
            }
            if end + 1 < *vectors {
                Self::vector::<I, FIRST, N>(s, a, (x, dy, vectors - 2), Some(&edges[1]), acc, bias);
            }
            if end < vectors {
                Self::vector::<I, FIRST, N>(s, a, (x, dy, vectors - 1), Some(&edges[2]), acc, bias);
            }
        }
    }
}

impl<I: Isa> Kernel<I> for Plane {
    type Args = PlaneArgs;

    /// # Safety
    /// * `x` is readable for all rows where columns exist, `dy` for the rows of the segment;
    /// * vectors are as `across` says;
    /// * `sums` is readable and writable for a channel.
    #[inline(always)]
    unsafe fn run(s: I, a: &PlaneArgs) {
        let mut acc = [[s.zero(); K]; K];
        let mut bias = s.zero();
        for row in 0..a.rows {
            // SAFETY: the same pointer: what a row needs is read for each, not kept on the stack.
            let a = unsafe { &*s.opaque(core::ptr::from_ref(a)) };
            let x = a.x.wrapping_add(row * a.x_row);
            let met = a.first.wrapping_add(row);
            let [first, last] = a.segment;
            let exists = |ky: usize| (first..last).contains(&met.wrapping_sub(ky));
            let line = |ky: usize| a.dy.wrapping_add(met.wrapping_sub(ky).wrapping_mul(a.dy_row));
            // SAFETY: rows of `dy` that exist.
            unsafe {
                if exists(0) && exists(K - 1) {
                    Self::row::<I, 0, K>(s, a, (x, line(0)), &mut acc, &mut bias);
                    continue;
                }
                if exists(0) {
                    Self::row::<I, 0, 1>(s, a, (x, line(0)), &mut acc, &mut bias);
                }
                if exists(1) {
                    Self::row::<I, 1, 1>(s, a, (x, line(1)), &mut acc, &mut bias);
                }
                if exists(2) {
                    Self::row::<I, 2, 1>(s, a, (x, line(2)), &mut acc, &mut bias);
                }
            }
        }
        let mut all = [s.zero(); SUMS];
        for (i, v) in acc.into_iter().flatten().chain([bias]).enumerate() {
            all[i] = v;
        }
        // Each step halves the lanes of a sum, and puts those of two into one vector.
        let mut vectors = SUMS;
        while vectors > SUMS / I::LANES {
            vectors /= 2;
            for i in 0..vectors {
                let [even, odd] = s.unzip(all[2 * i], all[2 * i + 1]);
                all[i] = s.add(even, odd);
            }
        }
        for (i, v) in all.into_iter().take(SUMS / I::LANES).enumerate() {
            let to = a.sums.wrapping_add(i * I::LANES);
            // SAFETY: the caller vouches for a channel.
            unsafe { s.store(to, s.add(s.load(to), v)) };
        }
    }
}

/// A kernel of this family: the row of [`planar_rows`].
#[derive(Clone, Copy, Debug)]
pub struct PlanarRow {
    /// `plane3x3_bwd_w_f32_avx512`.
    pub name: &'static str,
    /// Level.
    pub level: Level,
    run: Entry<PlaneArgs>,
}

edges!(edge);

macro_rules! plane {
    ($level:ident $module:ident $name:literal) => {
        &[PlanarRow {
            name: concat!("plane3x3_bwd_w_f32_", $name),
            level: Level::$level,
            run: edge::$module::run::<Plane>,
        }]
    };
}

by_level! {
    /// The kernels of these sums at a level; none for a level of another architecture.
    pub fn planar_rows() -> [PlanarRow];

    Scalar: plane!(Scalar scalar "scalar"),
    Avx2: plane!(Avx2 avx2 "avx2"),
    Avx512: plane!(Avx512 avx512 "avx512"),
    Neon: plane!(Neon neon "neon"),
}

/// The weight gradient of a depthwise 3x3 convolution over planes, planned. Holds no tensor.
///
/// ```
/// use swath_kernels::{backward_weights::PlanarWeights, exec::Inline, isa::Level, layout::{Layout, View}};
/// use swath_kernels::{machine::Core, shape::ConvShape};
/// let shape = ConvShape::builder([1, 2, 3, 3], [2, 1, 3, 3]).padding(1).groups(2).build()?;
/// let dense = [shape.input(), shape.output()].map(|dims| View::dense(Layout::Nchw, dims));
/// let (mut dy, mut dw, mut db) = ([0.0; 18], [f32::NAN; 18], [f32::NAN; 2]);
/// (dy[4], dy[9]) = (1.0, 2.0); // the middle of one channel, and the first pixel of the other
/// let x: Vec<f32> = (0..18).map(|v| v as f32).collect();
/// let plan = PlanarWeights::of_views(&shape, Core::here(Level::Scalar), dense)?;
/// plan.run(&x, &dy, dw.as_mut_slice().into(), Some(&mut db), &mut vec![0.0; plan.scratch_len()], &Inline);
/// assert_eq!(dw[..9], x[..9]);
/// assert_eq!((&dw[9..], db), (&[0.0, 0.0, 0.0, 0.0, 18.0, 20.0, 0.0, 24.0, 26.0][..], [1.0, 2.0]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct PlanarWeights {
    shape: ConvShape,
    row: &'static PlanarRow,
    xs: Strides,
    ds: Strides,
    across: Across,
    segments: Segments,
    /// Segments are cut into so many slices.
    slices: usize,
}

impl PlanarWeights {
    /// Plans, for `x` and `dy` in NCHW, or says why the shape is not for this algorithm.
    ///
    /// # Errors
    /// A reason: other layouts, more than one input channel a group, another kernel than 3x3, a stride or a dilation, padding of more than a
    /// vector on the left or the right.
    ///
    /// # Panics
    /// If a view has other extents than the shape's.
    pub fn of_views(shape: &ConvShape, core: Core, [x, dy]: [View; 2]) -> Result<Self, &'static str> {
        shape.assert_consistent();
        let s = *shape;
        if [x, dy].iter().any(|view| view.layout() != Layout::Nchw) {
            return Err("reads nchw");
        }
        if !s.is_depthwise() {
            return Err("not one input channel a group");
        }
        if [s.kh, s.kw, s.sh, s.sw, s.dh, s.dw] != [K, K, 1, 1, 1, 1] {
            return Err("not a 3x3 kernel of stride 1");
        }
        let row = planar_rows(core.level).first().ok_or("no kernels at this level")?;
        let lanes = core.level.lanes();
        let across = Across::new(&s, lanes)?;
        // Vectors of a row share its pixels' sums among their lanes.
        let segments = Segments::new(&s, LONGEST * s.ow / across.vectors);
        let slices = PARTS.div_ceil(s.oc.max(1)).min(segments.len());
        let (xs, ds) = (x.strides_of(s.input()), dy.strides_of(s.output()));
        Ok(Self { shape: s, row, xs, ds, across, segments, slices })
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The instruction-set level whose kernels run.
    pub fn level(&self) -> Level {
        self.row.level
    }

    /// Name of the kernel: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        self.row.name
    }

    /// Multiply-adds in whole vectors that take as long, over those that count.
    pub fn waste(&self) -> f64 {
        let Across { vectors, inner: [first, end], .. } = self.across;
        let edges = vectors - (end - first).min(vectors);
        ((end - first + EDGE * edges) * self.row.level.lanes()) as f64 / self.shape.ow.max(1) as f64
    }

    /// Floats of scratch for a run.
    pub fn scratch_len(&self) -> usize {
        self.slices * self.shape.oc * SUMS
    }

    /// Computes `dw` `[oc, 1, 3, 3]` and, if asked for, `db` `[oc]`, on the executor's threads. `scratch` holds
    /// [`PlanarWeights::scratch_len`] floats.
    ///
    /// The weights' gradient may lie in memory that holds nothing yet; what it then is is returned.
    ///
    /// # Panics
    /// If a slice's length is not what the shape says, or the scratch is too short.
    pub fn run<'w>(
        &self,
        x: &[f32],
        dy: &[f32],
        mut dw: Outputs<'w>,
        db: Option<&mut [f32]>,
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) -> &'w mut [f32] {
        let s = &self.shape;
        let of = (s, self.row.level, [(Layout::Nchw, self.xs), (Layout::Nchw, self.ds)]);
        assert_run(of, [x, dy], &dw, db.as_deref(), [scratch.len(), self.scratch_len()]);
        let sums = &mut scratch[..self.scratch_len()];
        let shared = Shared::new(sums);
        for_each_part_with(executor, self.slices * s.oc, &mut [], 0, |part, _| {
            let (slice, o) = (part / s.oc, part % s.oc);
            // SAFETY: the sums lie in the scratch, and belong to this part alone.
            let sums = unsafe { core::slice::from_raw_parts_mut(shared.at(part * SUMS), SUMS) };
            sums.fill(0.0);
            for segment in cut(self.segments.len(), self.slices, slice) {
                let (images, rows) = self.segments.at(s, segment);
                images.for_each(|n| self.image(x, dy, [n, o], &rows, sums));
            }
        });
        // SAFETY: numbers alone are written to it.
        let to = unsafe { dw.memory() };
        with_default(|| finish(sums, s.oc, to, db));
        // SAFETY: `finish` writes all.
        unsafe { dw.written() }
    }

    /// Adds an image's part of a segment to the sums of a channel.
    fn image(&self, x: &[f32], dy: &[f32], [n, o]: [usize; 2], rows: &Range<usize>, sums: &mut [f32]) {
        let (s, xs, ds) = (&self.shape, &self.xs, &self.ds);
        if rows.is_empty() || s.ow == 0 {
            return;
        }
        // Rows of `x` that these rows of `dy` meet.
        let inside = |row: usize| row.saturating_sub(s.pad.top).min(s.ih);
        let (first, end) = (inside(rows.start), inside(rows.end + K - 1));
        let plane = n * xs.n + o / s.ocg() * xs.channel;
        let left = 0usize.wrapping_sub(s.pad.left);
        let at = plane + first * xs.row;
        assert!(sums.len() >= SUMS && (end <= first || plane + (end - 1) * xs.row + s.iw <= x.len()));
        let dy_at = n * ds.n + o * ds.channel;
        assert!(dy_at + (rows.end - 1) * ds.row + s.ow <= dy.len());
        let dy = &dy[dy_at..];
        let args = PlaneArgs {
            x: x.as_ptr().wrapping_add(at).wrapping_add(left),
            rows: end.saturating_sub(first),
            x_row: xs.row,
            dy: dy.as_ptr(),
            dy_row: ds.row,
            first: first.wrapping_add(s.pad.top),
            segment: [rows.start, rows.end],
            across: self.across,
            sums: sums.as_mut_ptr(),
        };
        // SAFETY: the level is available and tensors hold these rows (asserted); vectors are as `Across::new` counts them; the sums are a channel's.
        unsafe { (self.row.run)(&args) };
        // The row of taps that counts the gradient misses rows that lie farther outside than it reaches.
        let met = |row: &usize| (s.pad.top..s.pad.top + s.ih).contains(&(row + COUNTS));
        for row in rows.clone().filter(|row| !met(row)) {
            sums[BIAS] += dy[row * ds.row..][..s.ow].iter().sum::<f32>();
        }
    }
}

/// Adds the sums of all slices, each `[channel][16]`, and stores those of taps and those of the gradient.
fn finish(sums: &mut [f32], channels: usize, dw: &mut [MaybeUninit<f32>], mut db: Option<&mut [f32]>) {
    let (sum, others) = sums.split_at_mut(channels * SUMS);
    for other in others.chunks_exact(channels * SUMS) {
        sum.iter_mut().zip(other).for_each(|(sum, v)| *sum += v);
    }
    for (o, (sum, dw)) in sum.chunks_exact(SUMS).zip(dw.chunks_exact_mut(K * K)).enumerate() {
        dw.iter_mut().zip(sum).for_each(|(dw, &v)| {
            dw.write(v);
        });
        if let Some(db) = &mut db {
            db[o] = sum[BIAS];
        }
    }
}
