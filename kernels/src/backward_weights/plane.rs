//! Depthwise sums over planes of NCHW: a vector lies along a row, and nothing is transposed.
//!
//! ```text
//! for each channel, row of taps:  for each image, row, vector of columns:  load dy; for each tap of the row: sums[tap] += x * dy
//!                                 then each of the sums' vectors is added up
//! ```
//!
//! Kernels are for three taps to the row. All taps of a 3x3 kernel at once would load a sixth less, but their sums and addresses do not fit
//! the registers of AVX2. At a stride of 2 two vectors are taken apart into their even and their odd columns, which two taps share. At borders,
//! lanes of columns that do not exist are zeros in both tensors, and rows that do not exist are left out.
//!
//! Order of each sum: a lane's pixels, image after image, row after row, within bands of rows; then lanes in pairs; then bands.

use core::ops::Range;

use crate::isa::{Entry, Isa, Kernel, Level};
use crate::layout::BLOCK;
use crate::region::Axis;
use crate::registry::{by_level, edges};
use crate::shape::ConvShape;
use crate::unrolled::unrolled;

/// Floats of a band of rows of both tensors, which the rows of taps pass over one after the other: two thirds of an L1 of 48 KiB.
const BAND: usize = 1 << 13;

/// What a call works on. Lengths and steps in floats.
#[derive(Clone, Copy)]
struct RowSumArgs {
    /// Input of the first tap of the first row's first pixel, maybe left of the plane; from row to row, and from image to image.
    x: *const f32,
    x_row: usize,
    x_image: usize,
    /// The first row of the gradient, its columns, and the same.
    dy: *const f32,
    columns: usize,
    dy_row: usize,
    dy_image: usize,
    images: usize,
    rows: usize,
    /// From tap to tap.
    across: usize,
    /// Vectors whose columns exist for all taps, also those that are only loaded.
    inner: [usize; 2],
    /// Of each vector.
    lanes: *const Lanes,
    /// Sums of the taps, [`BLOCK`] apart.
    sums: *mut f32,
}

/// Most taps of a row.
const MOST_ACROSS: usize = 3;

/// The lanes of a vector of the gradient that take part, first and end.
#[derive(Clone, Copy, Debug, Default)]
struct Lanes {
    /// Columns of the gradient.
    columns: u8,
    /// For each tap, those whose input column exists.
    met: [[u8; 2]; MOST_ACROSS],
    /// At a stride of 2, of each vector of inputs that is loaded, those that exist and that some output meets: two for each two taps.
    read: [[u8; 2]; MOST_ACROSS + 1],
}

impl Lanes {
    /// Those of a vector of `n` columns from `ox` on, of vectors of so many lanes.
    fn new(s: &ConvShape, ox: usize, n: usize, lanes: usize) -> Self {
        // Columns fit: extents and their padding are of one tensor.
        let column = |kx: usize| (ox * s.sw + kx * s.dw) as isize - s.pad.left as isize;
        // Those whose column, a `step` each from `first` on, is from 0 to an end.
        let within = |first: isize, step: usize, end: isize, n: usize| {
            let lane = |column: isize| column.max(0).unsigned_abs().div_ceil(step).min(n);
            let hi = lane(end - first);
            [lane(-first).min(hi) as u8, hi as u8]
        };
        let width = s.iw as isize;
        let met = core::array::from_fn(|kx| within(column(kx), s.sw, width, n));
        let read = core::array::from_fn(|i| {
            let (kx, half) = (i / 2 * 2, i % 2);
            let end = (column(kx) + (n * s.sw) as isize).min(width);
            within(column(kx) + (half * lanes) as isize, 1, end, lanes)
        });
        Self { columns: n as u8, met, read }
    }
}

/// Sums for a row of `KW` taps at a stride across of `SX`; without taps, of the gradient itself.
struct RowSum<const KW: usize, const SX: usize>;

impl<const KW: usize, const SX: usize> RowSum<KW, SX> {
    /// Sums of a call.
    const SUMS: usize = if KW == 0 { 1 } else { KW };

    /// Adds a vector of a row of the gradient. At an `EDGE`, pixels whose column does not exist for a tap are zeros in both tensors, so
    /// that nothing infinite meets a zero.
    ///
    /// # Safety
    /// As for the kernel, for the vector at `dy`, whose first tap is at `x`, and whose lanes these are. All columns exist but at an `EDGE`.
    #[inline(always)]
    unsafe fn vector<I: Isa, const EDGE: bool>(
        s: I,
        a: &RowSumArgs,
        (x, dy, lanes): (*const f32, *const f32, *const Lanes),
        acc: &mut [I::V; MOST_ACROSS],
    ) {
        // SAFETY: there are lanes of each vector.
        let lanes = unsafe { &*lanes };
        let range = |[lo, hi]: [u8; 2]| s.range(lo.into(), hi.into());
        // SAFETY: these columns exist, or those of the range.
        let load = |p, range| unsafe { if EDGE { s.load_range(p, range) } else { s.load(p) } };
        if KW == 0 {
            acc[0] = s.add(acc[0], load(dy, range([0, lanes.columns])));
        }
        unrolled!(kx in 0 1 2 {
            if const { kx < KW && kx.is_multiple_of(SX) } {
                if SX == 1 {
                    // Lanes of the input that are read are those that the tap meets.
                    let range = range(lanes.met[kx]);
                    // A fence: else each tap would have a pointer of its own.
                    let x = s.opaque(x.wrapping_add(kx * a.across));
                    acc[kx] = s.fma(load(x, range), load(dy, range), acc[kx]);
                } else {
                    let x = s.opaque(x);
                    let next = load(x.wrapping_add(kx + I::LANES), range(lanes.read[kx + 1]));
                    let [even, odd] = s.unzip(load(x.wrapping_add(kx), range(lanes.read[kx])), next);
                    acc[kx] = s.fma(even, load(dy, range(lanes.met[kx])), acc[kx]);
                    if const { kx + 1 < KW } {
                        let odd_tap = const { if kx + 1 < KW { kx + 1 } else { kx } };
                        acc[odd_tap] = s.fma(odd, load(dy, range(lanes.met[odd_tap])), acc[odd_tap]);
                    }
                }
            }
        });
    }
}

impl<I: Isa, const KW: usize, const SX: usize> Kernel<I> for RowSum<KW, SX> {
    type Args = RowSumArgs;

    /// # Safety
    /// * `x` and `dy` are readable for these rows of all images, `x` for the columns that exist, which `lanes` says of each vector of a row;
    /// * the stride across is `SX`; `across` is 1 unless that is 1;
    /// * `inner` vectors are whole, and so are the columns of all of their taps, and what a stride of 2 loads beyond them;
    /// * the sums are readable and writable.
    #[inline(always)]
    unsafe fn run(s: I, a: &RowSumArgs) {
        const { assert!(KW <= MOST_ACROSS && (SX == 1 || SX == 2)) };
        let mut acc = [s.zero(); MOST_ACROSS];
        for image in 0..a.images {
            for row in 0..a.rows {
                // What a row needs is read for each: kept over all of them, it would be kept on the stack.
                // SAFETY: the same pointer.
                let a = unsafe { &*s.opaque(core::ptr::from_ref(a)) };
                let mut x = a.x.wrapping_add(image * a.x_image + row * a.x_row);
                let mut dy = a.dy.wrapping_add(image * a.dy_image + row * a.dy_row);
                let mut lanes = a.lanes;
                let mut next = || {
                    let this = (x, dy, lanes);
                    x = x.wrapping_add(SX * I::LANES);
                    (dy, lanes) = (dy.wrapping_add(I::LANES), lanes.wrapping_add(1));
                    this
                };
                let [inner, end] = a.inner;
                // SAFETY: vectors of this row; those between `inner` and `end` are whole.
                unsafe {
                    for _ in 0..inner {
                        Self::vector::<I, true>(s, a, next(), &mut acc);
                    }
                    for _ in inner..end {
                        Self::vector::<I, false>(s, a, next(), &mut acc);
                    }
                    for _ in end..a.columns.div_ceil(I::LANES) {
                        Self::vector::<I, true>(s, a, next(), &mut acc);
                    }
                }
            }
        }
        for first in (0..Self::SUMS).step_by(I::LANES) {
            let mut totals = [0.0; MOST];
            // SAFETY: there is room for a vector.
            unsafe { s.store(totals.as_mut_ptr(), add_up(s, &acc[first..])) };
            for (tap, total) in totals.iter().enumerate().take(I::LANES.min(Self::SUMS - first)) {
                // SAFETY: the caller vouches for the sums.
                unsafe { *a.sums.wrapping_add((first + tap) * BLOCK) += total };
            }
        }
    }
}

/// Most lanes.
const MOST: usize = 16;

/// The total of each of these vectors, of the first `LANES` of them, in a lane of its own: each round adds two vectors' halves, so that half
/// as many are left, and turns a vector's number into a lane's.
#[inline(always)]
fn add_up<I: Isa>(s: I, all: &[I::V]) -> I::V {
    let mut these = [s.zero(); MOST];
    for i in 0..I::LANES.min(all.len()) {
        these[i] = all[i];
    }
    let mut n = I::LANES;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            let [low, high] = s.zip(these[i], these[i + n]);
            these[i] = s.add(low, high);
        }
    }
    these[0]
}

/// A kernel of this family: a row of [`plane_rows`].
#[derive(Clone, Copy, Debug)]
pub struct PlaneRow {
    /// `row3_bwd_w_f32_s1_avx512`: taps of a row, and the stride across.
    pub name: &'static str,
    /// Level.
    pub level: Level,
    /// Taps of a row; without any, it sums the gradient itself.
    pub taps: usize,
    /// Stride across.
    pub stride: usize,
    run: Entry<RowSumArgs>,
}

edges!(edge);

macro_rules! plane_table {
    (@row $level:ident $module:ident $name:literal $kw:literal $s:literal) => {
        PlaneRow {
            name: concat!("row", $kw, "_bwd_w_f32_s", $s, "_", $name),
            level: Level::$level,
            taps: $kw,
            stride: $s,
            run: edge::$module::run::<RowSum<$kw, $s>>,
        }
    };
    ($level:ident $module:ident $name:literal) => {
        &[
            plane_table!(@row $level $module $name 3 1),
            plane_table!(@row $level $module $name 3 2),
            plane_table!(@row $level $module $name 0 1),
        ]
    };
}

by_level! {
    /// The kernels of these sums at a level; none for a level of another architecture.
    pub fn plane_rows() -> [PlaneRow];

    Scalar: plane_table!(Scalar scalar "scalar"),
    Avx2: plane_table!(Avx2 avx2 "avx2"),
    Avx512: plane_table!(Avx512 avx512 "avx512"),
    Neon: plane_table!(Neon neon "neon"),
}

/// The kernels of a window, and how they are called.
#[derive(Clone, Debug)]
pub(super) struct Planes {
    shape: ConvShape,
    y: Axis,
    /// Of a row of taps, and of the gradient itself.
    taps: &'static PlaneRow,
    itself: &'static PlaneRow,
    lanes: Vec<Lanes>,
}

impl Planes {
    /// The kernels for a window, if there are any: for so many taps to the row and this stride across, at a stride of 2 for adjacent taps.
    pub fn new(s: &ConvShape, level: Level) -> Option<Self> {
        let find = |taps, stride| plane_rows(level).iter().find(|r| (r.taps, r.stride) == (taps, stride));
        let taps = find(s.kw, s.sw).filter(|_| s.kw > 0 && (s.sw == 1 || s.dw == 1))?;
        let across = level.lanes();
        let lanes = (0..s.ow).step_by(across).map(|ox| Lanes::new(s, ox, across.min(s.ow - ox), across)).collect();
        Some(Self { shape: *s, y: Axis::y(s), taps, itself: find(0, 1)?, lanes })
    }

    /// Name of the kernel: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        self.taps.name
    }

    /// Vectors of a row that are whole, and all of whose taps exist, and what a stride of 2 loads beyond them.
    fn inner(&self) -> [usize; 2] {
        let (s, lanes) = (&self.shape, self.taps.level.lanes());
        let vectors = s.ow.div_ceil(lanes);
        let first = s.pad.left.div_ceil(s.sw * lanes).min(vectors);
        let reach = (s.kw - 1) * s.dw + s.sw * lanes;
        let end = (s.iw + s.pad.left).checked_sub(reach).map_or(0, |room| room / (s.sw * lanes) + 1);
        [first, end.min(s.ow / lanes).max(first)]
    }

    /// Adds some rows of some images of a channel, whose planes these slices begin with, to its sums: those of its taps, [`BLOCK`]
    /// apart, and behind them that of the gradient.
    pub fn add(&self, [x, dy]: [&[f32]; 2], images: usize, rows: &Range<usize>, sums: &mut [f32]) {
        let s = &self.shape;
        if images == 0 || rows.is_empty() {
            return;
        }
        let [x_image, dy_image] = [s.ic * s.ih * s.iw, s.oc * s.oh * s.ow];
        assert!((images - 1) * x_image + s.ih * s.iw <= x.len(), "the planes of a channel");
        assert!((images - 1) * dy_image + s.oh * s.ow <= dy.len() && rows.end <= s.oh, "the planes of a gradient");
        assert!(s.kh * s.kw * BLOCK < sums.len(), "the sums of all taps, and of the gradient");
        let to = sums.as_mut_ptr();
        let whole = s.ow / self.taps.level.lanes();
        // What a row of taps, or none, adds to sums that begin with this one.
        let args = |x: *const f32, rows: &Range<usize>, inner, sum: usize| RowSumArgs {
            x,
            x_row: s.sh.wrapping_mul(s.iw),
            x_image,
            dy: dy[rows.start * s.ow..].as_ptr(),
            columns: s.ow,
            dy_row: s.ow,
            dy_image,
            images,
            rows: rows.len(),
            across: s.dw,
            inner,
            lanes: self.lanes.as_ptr(),
            sums: to.wrapping_add(sum * BLOCK),
        };
        let height = (BAND / (s.sh.saturating_mul(s.iw).saturating_add(s.ow)).max(1) / images).max(1);
        let mut first = rows.start;
        while first < rows.end {
            let band = first..rows.end.min(first.saturating_add(height));
            for ky in 0..s.kh {
                let valid = self.y.outputs(ky);
                let these = valid.start.max(band.start)..valid.end.min(band.end);
                if these.is_empty() {
                    continue;
                }
                let iy = these.start * s.sh + ky * s.dh - s.pad.top;
                let x = x[iy * s.iw..].as_ptr().wrapping_sub(s.pad.left);
                // SAFETY:
                // * the level is available (asserted by whoever runs), and both slices hold the planes of all images (asserted), of which
                //   these rows of the gradient meet rows of the input at this row of taps;
                // * the kernel is one for these taps and this stride, and taps are adjacent where that is 2 (`new`);
                // * inner vectors end within the gradient's row, the first one's taps do not begin before column 0, and the last one's
                //   loads end within the input's row (`inner`); of others, lanes say what exists;
                // * the sums hold all taps (asserted).
                unsafe { (self.taps.run)(&args(x, &these, self.inner(), ky * s.kw)) };
            }
            // SAFETY: as above; it reads the gradient alone, and the sums hold that of the gradient behind the taps (asserted).
            unsafe { (self.itself.run)(&args(dy.as_ptr(), &band, [0, whole], s.kh * s.kw)) };
            first = band.end;
        }
    }
}
