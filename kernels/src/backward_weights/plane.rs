//! Depthwise sums over planes of NCHW: a vector lies along a row, and nothing is transposed.
//!
//! ```text
//! for each channel:  for each image, row, vector of columns:  load dy; for each tap: sums[tap] += x * dy, in registers
//!                    then each of the sums' vectors is added up
//! ```
//!
//! There are kernels for 3x3 taps, all of which are summed at once. At a stride of 2 two vectors are taken apart into
//! their even and their odd columns, which two taps share. At borders, lanes of columns that do not exist are zeros in both tensors, and
//! rows that do not exist are left out.
//!
//! Order of each sum: a lane's pixels, image after image, row after row; then lanes in pairs.

use core::ops::Range;

use crate::isa::{Entry, Isa, Kernel, Level};
use crate::layout::BLOCK;
use crate::registry::{by_level, edges};
use crate::shape::ConvShape;

/// What a call works on. Lengths and steps in floats.
#[derive(Clone, Copy)]
struct RowSumArgs {
    /// Pixel (0, 0) of the first image's plane, its rows, from row to row, and from image to image.
    x: *const f32,
    height: usize,
    x_row: usize,
    x_image: usize,
    /// The same of the gradient.
    dy: *const f32,
    columns: usize,
    dy_row: usize,
    dy_image: usize,
    images: usize,
    /// Rows of the gradient.
    first: usize,
    end: usize,
    /// Input row of the first tap of the gradient's row 0, modulo 2^64; stride down, and from row to row of taps.
    top: usize,
    stride: usize,
    down: usize,
    /// Input column of the first tap of the gradient's column 0, modulo 2^64, and from tap to tap.
    left: usize,
    across: usize,
    /// Vectors whose columns exist for all taps, also those that are only loaded.
    inner: [usize; 2],
    /// Of each vector.
    lanes: *const Lanes,
    /// Sums of the taps and of the gradient itself, [`BLOCK`] apart.
    sums: *mut f32,
}

/// Most taps of a row.
const MOST_ACROSS: usize = 3;

/// The lanes of a vector of the gradient that take part, first and end.
#[derive(Clone, Copy, Debug, Default)]
struct Lanes {
    /// For each tap, those whose input column exists.
    met: [[u8; 2]; MOST_ACROSS],
    /// Of each vector of inputs that is loaded, those that exist and that some output meets.
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
            // A vector for each tap, or two for each two taps.
            let (kx, half) = if s.sw == 1 { (i, 0) } else { (i / 2 * 2, i % 2) };
            let end = (column(kx) + (n * s.sw) as isize).min(width);
            within(column(kx) + (half * lanes) as isize, 1, end, lanes)
        });
        Self { met, read }
    }
}

/// Sums for `KH` x `KW` taps at a stride across of `SX`.
struct RowSum<const KH: usize, const KW: usize, const SX: usize>;

impl<const KH: usize, const KW: usize, const SX: usize> RowSum<KH, KW, SX> {
    /// Adds a vector of a row of the gradient. At an `EDGE`, pixels whose column does not exist for a tap are zeros in both tensors, so
    /// that nothing infinite meets a zero.
    ///
    /// # Safety
    /// As for the kernel, for vector `v` of a row that begins at `dy`; `rows` are its rows of taps, from their first column on, null for
    /// those that do not exist. All columns exist but at an `EDGE`.
    #[inline(always)]
    unsafe fn vector<I: Isa, const EDGE: bool>(
        s: I,
        a: &RowSumArgs,
        (rows, dy): (&[*const f32; KH], *const f32),
        v: usize,
        acc: &mut [[I::V; KW]; KH],
        bias: &mut I::V,
    ) {
        let ox = v * I::LANES;
        let dy = dy.wrapping_add(ox);
        let range = |[lo, hi]: [u8; 2]| s.range(lo.into(), hi.into());
        // SAFETY: there are lanes of each vector.
        let lanes = if EDGE { unsafe { *a.lanes.wrapping_add(v) } } else { Lanes::default() };
        // SAFETY: the gradient's columns from this one on exist, all of the vector's but at an `EDGE`.
        let g = unsafe { if EDGE { s.load_partial(dy, I::LANES.min(a.columns - ox)) } else { s.load(dy) } };
        *bias = s.add(*bias, g);
        // SAFETY: of those columns these.
        let met = |kx: usize| if EDGE { unsafe { s.load_range(dy, range(lanes.met[kx])) } } else { g };
        for kx in (0..KW).step_by(SX) {
            let at = ox * SX + kx * a.across;
            let ranges = [range(lanes.read[kx]), range(lanes.read[if SX == 1 { kx } else { kx + 1 }])];
            let g = [met(kx), if SX == 2 && kx + 1 < KW { met(kx + 1) } else { s.zero() }];
            for ky in 0..KH {
                if rows[ky].is_null() {
                    continue;
                }
                let x = rows[ky].wrapping_add(at);
                // SAFETY: the row exists, and these columns of it, or those of the range.
                let load = |p, range| unsafe { if EDGE { s.load_range(p, range) } else { s.load(p) } };
                let v = load(x, ranges[0]);
                if SX == 1 {
                    acc[ky][kx] = s.fma(v, g[0], acc[ky][kx]);
                } else {
                    let [even, odd] = s.unzip(v, load(x.wrapping_add(I::LANES), ranges[1]));
                    acc[ky][kx] = s.fma(even, g[0], acc[ky][kx]);
                    if kx + 1 < KW {
                        acc[ky][kx + 1] = s.fma(odd, g[1], acc[ky][kx + 1]);
                    }
                }
            }
        }
    }
}

impl<I: Isa, const KH: usize, const KW: usize, const SX: usize> Kernel<I> for RowSum<KH, KW, SX> {
    type Args = RowSumArgs;

    /// # Safety
    /// * `x` and `dy` are readable for the planes of all images, `dy` for rows `first..end`;
    /// * the stride across is `SX`; `across` is 1 unless that is 1;
    /// * there are lanes of each vector of a row, and `inner` ones are whole, and so are the columns of all of their taps, and what a stride of 2 loads beyond them;
    /// * the sums are readable and writable.
    #[inline(always)]
    unsafe fn run(s: I, a: &RowSumArgs) {
        const { assert!(KH * KW + 4 <= I::REGISTERS && KH * KW < MOST && KW <= MOST_ACROSS && (SX == 1 || SX == 2)) };
        let mut acc = [[s.zero(); KW]; KH];
        let mut bias = s.zero();
        for image in 0..a.images {
            for oy in a.first..a.end {
                // What a row needs is read for each: kept over all of them, it would be kept on the stack.
                let a = core::hint::black_box(a);
                let x = a.x.wrapping_add(image * a.x_image).wrapping_add(a.left);
                let dy = a.dy.wrapping_add(image * a.dy_image + oy * a.dy_row);
                let mut rows = [core::ptr::null(); KH];
                for ky in 0..KH {
                    let iy = a.top.wrapping_add(oy * a.stride + ky * a.down);
                    if iy < a.height {
                        rows[ky] = x.wrapping_add(iy * a.x_row);
                    }
                }
                let [inner, end] = a.inner;
                // SAFETY: vectors of this row; those between `inner` and `end` are whole.
                unsafe {
                    for v in 0..inner {
                        Self::vector::<I, true>(s, a, (&rows, dy), v, &mut acc, &mut bias);
                    }
                    for v in inner..end {
                        Self::vector::<I, false>(s, a, (&rows, dy), v, &mut acc, &mut bias);
                    }
                    for v in end..a.columns.div_ceil(I::LANES) {
                        Self::vector::<I, true>(s, a, (&rows, dy), v, &mut acc, &mut bias);
                    }
                }
            }
        }
        let mut all = [s.zero(); MOST];
        for ky in 0..KH {
            for kx in 0..KW {
                all[ky * KW + kx] = acc[ky][kx];
            }
        }
        all[KH * KW] = bias;
        let mut totals = [0.0; MOST];
        for first in (0..=KH * KW).step_by(I::LANES) {
            // SAFETY: there is room for a vector.
            unsafe { s.store(totals[first..][..I::LANES].as_mut_ptr(), add_up(s, &all, first)) };
        }
        for (tap, total) in totals.iter().enumerate().take(KH * KW + 1) {
            // SAFETY: the caller vouches for the sums.
            unsafe { *a.sums.wrapping_add(tap * BLOCK) += total };
        }
    }
}

/// Most vectors of sums.
const MOST: usize = 16;

/// The total of each of `LANES` vectors, from the first on, in a lane of its own: each round adds two vectors' halves, so that half as
/// many are left, and turns a vector's number into a lane's.
#[inline(always)]
fn add_up<I: Isa>(s: I, all: &[I::V; MOST], first: usize) -> I::V {
    let mut these = [s.zero(); MOST];
    these[..I::LANES].copy_from_slice(&all[first..first + I::LANES]);
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
    /// `plane_bwd_w_f32_3x3s1_avx512`: taps at once, and the stride across.
    pub name: &'static str,
    /// Level.
    pub level: Level,
    /// Rows and columns of taps at once.
    pub taps: [usize; 2],
    /// Stride across.
    pub stride: usize,
    run: Entry<RowSumArgs>,
}

edges!(edge);

macro_rules! plane_table {
    ($level:ident $module:ident $name:literal; $([$kh:literal $kw:literal] s $s:literal)*) => {
        &[$(PlaneRow {
            name: concat!("plane_bwd_w_f32_", $kh, "x", $kw, "s", $s, "_", $name),
            level: Level::$level,
            taps: [$kh, $kw],
            stride: $s,
            run: edge::$module::run::<RowSum<$kh, $kw, $s>>,
        },)*]
    };
}

by_level! {
    /// The kernels of these sums at a level, those of more taps first; none for a level of another architecture.
    pub fn plane_rows() -> [PlaneRow];

    Scalar: plane_table!(Scalar scalar "scalar"; [3 3] s 1 [3 3] s 2),
    Avx2: plane_table!(Avx2 avx2 "avx2"; [3 3] s 1 [3 3] s 2),
    Avx512: plane_table!(Avx512 avx512 "avx512"; [3 3] s 1 [3 3] s 2),
    Neon: plane_table!(Neon neon "neon"; [3 3] s 1 [3 3] s 2),
}

/// The kernel of a window, and how it is called.
#[derive(Clone, Debug)]
pub(super) struct Planes {
    shape: ConvShape,
    kernel: &'static PlaneRow,
    lanes: Vec<Lanes>,
}

impl Planes {
    /// The kernel for a window, if there is one: for this kernel size and stride across, at a stride of 2 for adjacent taps.
    pub fn new(s: &ConvShape, level: Level) -> Option<Self> {
        let fits = |r: &&PlaneRow| (r.taps, r.stride) == ([s.kh, s.kw], s.sw) && (s.sw == 1 || s.dw == 1);
        let kernel = plane_rows(level).iter().find(fits)?;
        let across = kernel.level.lanes();
        let lanes = (0..s.ow).step_by(across).map(|ox| Lanes::new(s, ox, across.min(s.ow - ox), across));
        Some(Self { shape: *s, kernel, lanes: lanes.collect() })
    }

    /// Name of the kernel: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        self.kernel.name
    }

    /// Vectors of a row that are whole, and all of whose taps exist, and what a stride of 2 loads beyond them.
    fn inner(&self) -> [usize; 2] {
        let (s, lanes) = (&self.shape, self.kernel.level.lanes());
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
        let args = RowSumArgs {
            x: x.as_ptr(),
            height: s.ih,
            x_row: s.iw,
            x_image,
            dy: dy.as_ptr(),
            columns: s.ow,
            dy_row: s.ow,
            dy_image,
            images,
            first: rows.start,
            end: rows.end,
            top: 0usize.wrapping_sub(s.pad.top),
            stride: s.sh,
            down: s.dh,
            left: 0usize.wrapping_sub(s.pad.left),
            across: s.dw,
            inner: self.inner(),
            lanes: self.lanes.as_ptr(),
            sums: sums.as_mut_ptr(),
        };
        // SAFETY:
        // * the level is available (asserted by whoever runs), and both slices hold the planes of all images (asserted);
        // * the kernel is one for these taps and this stride, and taps are adjacent where that is 2 (`new`);
        // * inner vectors end within the gradient's row, the first one's taps do not begin before column 0, and the last one's loads
        //   end within the input's row (`inner`);
        // * the sums hold all taps, and that of the gradient behind them (asserted).
        unsafe { (self.kernel.run)(&args) };
    }
}
