//! The kernels: planes of one row of output channels after the other, borders and all, in one call.

use core::ops::Range;
use core::ptr;

use crate::isa::{Entry, Isa, Kernel, Level};
use crate::table::{by_level, edges};
use crate::unrolled::unrolled;

/// What a call works on. Lengths and steps in floats.
#[derive(Clone, Copy, Debug)]
pub struct PlaneArgs {
    /// Pixel (0, 0) of the first input channel of the group in which the output channels begin.
    pub(super) x: *const f32,
    /// Extents of an input plane, and from row to row and from plane to plane.
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) x_row: usize,
    pub(super) x_plane: usize,
    /// From an output's input row to that of the one below, where rows of taps are taken one by one; else from row to row.
    pub(super) down: usize,
    /// Input channels and output channels of a group.
    pub(super) icg: usize,
    pub(super) ocg: usize,
    /// Weights `[oc][icg][kw][kh]` of the first output channel.
    pub(super) w: *const f32,
    /// Taps, stride down, dilation, and padding above and to the left.
    pub(super) taps: [usize; 2],
    pub(super) stride: usize,
    pub(super) dilation: [usize; 2],
    pub(super) pad: [usize; 2],
    /// Output channels, and the number of the first one within its group.
    pub(super) channels: usize,
    pub(super) within: usize,
    /// Output rows of each, the width of an output row, and from row to row.
    pub(super) first: usize,
    pub(super) end: usize,
    pub(super) columns: usize,
    pub(super) y_row: usize,
    /// Output pixel (0, 0) of the first channel, the residual there, and that channel's bias; null for none. From plane to plane.
    pub(super) y: *mut f32,
    pub(super) residual: *const f32,
    pub(super) bias: *const f32,
    pub(super) plane: usize,
    /// Clamps.
    pub(super) lo: f32,
    pub(super) hi: f32,
}

/// The body for `R` rows of outputs at once, `KH` taps down at once and strides `SY` and `SX`. With `KH = 1` the rows of taps are
/// taken one by one, for kernels of any height, dilation and stride down.
struct Plane<const R: usize, const KH: usize, const SY: usize, const SX: usize>;

/// A plane of outputs.
#[derive(Clone, Copy)]
struct Channel {
    x: *const f32,
    w: *const f32,
    y: *mut f32,
    residual: *const f32,
    bias: f32,
}

impl<const R: usize, const KH: usize, const SY: usize, const SX: usize> Plane<R, KH, SY, SX> {
    /// Input rows that outputs of adjacent rows of taps share.
    const READ: usize = if KH == 1 { R } else { (R - 1) * SY + KH };

    /// The row of outputs whose tap `t` is input row `i`; `R` if there is none.
    const fn row(i: usize, t: usize) -> usize {
        let step = if KH == 1 { 1 } else { SY };
        if t < KH && i >= t && (i - t).is_multiple_of(step) && (i - t) / step < R { (i - t) / step } else { R }
    }

    /// Whether two columns of taps fit the registers: at a stride of 2 they share their loads. Five taps down spill on vectors of 256 bits,
    /// and three on those of 128.
    const fn pairs(registers: usize, lanes: usize) -> bool {
        SX == 2 && KH > 1 && R + 2 * KH + 4 <= registers && (KH == 3 && lanes >= 8 || lanes == 16)
    }

    /// Floats of a row from which a vector's inputs are taken.
    const fn reach(lanes: usize) -> usize {
        SX * lanes
    }

    /// The inputs of a vector of outputs: those of a column of taps, and with stride 2 those of the next one. At an `EDGE`, columns
    /// that do not exist, which are not in the ranges, are zeros.
    ///
    /// # Safety
    /// `p` is readable for the columns that exist; all do but at an `EDGE`.
    #[inline(always)]
    unsafe fn load<I: Isa, const EDGE: bool>(s: I, p: *const f32, ranges: [I::Range; 2]) -> [I::V; 2] {
        // SAFETY: the same contract.
        let load = |p, range| unsafe { if EDGE { s.load_range(p, range) } else { s.load(p) } };
        let v = load(p, ranges[0]);
        if SX == 1 { [v; 2] } else { s.unzip(v, load(p.wrapping_add(I::LANES), ranges[1])) }
    }

    /// Adds a column of taps of `R` rows of outputs, or a pair of columns: `x` is the input of the first output's first tap, in that row
    /// and column, and `w` are the weights of these columns.
    ///
    /// # Safety
    /// The inputs of those taps that exist are readable; all do but at an `EDGE`.
    #[allow(clippy::too_many_arguments, reason = "inlined")]
    #[inline(always)]
    unsafe fn column<I: Isa, const EDGE: bool, const PAIR: bool>(
        s: I,
        a: &PlaneArgs,
        x: *const f32,
        [row, column]: [usize; 2],
        w: [*const f32; 2],
        acc: &mut [I::V; R],
    ) {
        let mut wv = [[s.zero(); KH]; 2];
        for (k, w) in w.into_iter().enumerate().take(1 + usize::from(PAIR)) {
            for t in 0..KH {
                // SAFETY: a column has `KH` taps.
                wv[k][t] = unsafe { s.load_splat(w.wrapping_add(t)) };
            }
        }
        let ranges = [column, column.wrapping_add(I::LANES)].map(|column| {
            let [lo, hi] = range::<I>(column, a.width);
            s.range(lo, hi)
        });
        let mut p = x;
        // The row as a pointer to nothing, for `opaque`.
        let mut row = if EDGE { s.opaque(ptr::without_provenance::<f32>(row)) } else { ptr::null() };
        let step = if KH == 1 { a.stride } else { 1 };
        unrolled!(i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 {
            if const { i < Self::READ } {
                if !EDGE || row.addr() < a.height {
                    // SAFETY: the row exists.
                    let v = unsafe { Self::load::<I, EDGE>(s, p, ranges) };
                    unrolled!(t in 0 1 2 3 4 5 6 {
                        if const { Self::row(i, t) < R } {
                            let r = const { Self::row(i, t) };
                            acc[r] = s.fma(v[0], wv[0][t], acc[r]);
                            if const { PAIR } {
                                acc[r] = s.fma(v[1], wv[1][t], acc[r]);
                            }
                        }
                    });
                }
                // A fence: else where rows lie would be prepared for all columns, and inputs be loaded long before they are used.
                p = s.opaque(p.wrapping_add(a.down));
                if EDGE {
                    row = row.wrapping_byte_add(step);
                }
            }
        });
    }

    /// The sums of a vector of outputs from `(oy, ox)` on, of `R` rows.
    ///
    /// # Safety
    /// The channel's inputs and weights are readable; but at an `EDGE`, all taps of these outputs lie inside, and so does what
    /// [`Plane::reach`] adds to the last one.
    #[inline(always)]
    unsafe fn sums<I: Isa, const EDGE: bool>(s: I, a: &PlaneArgs, c: &Channel, [oy, ox]: [usize; 2]) -> [I::V; R] {
        let mut acc = [s.zero(); R];
        let mut a = a;
        // Rows and columns above and to the left of the plane wrap around.
        let left = (ox * SX).wrapping_sub(a.pad[1]);
        for j in 0..a.icg {
            for ky in 0..if KH == 1 { a.taps[0] } else { 1 } {
                let row = (oy * if KH == 1 { a.stride } else { SY } + ky * a.dilation[0]).wrapping_sub(a.pad[0]);
                // The column as a pointer to nothing, for `opaque`: made from `kx`, it would take one more register.
                let (mut kx, mut column) = (0, ptr::without_provenance::<f32>(left));
                let first = (j * a.x_plane).wrapping_add(row.wrapping_mul(a.x_row)).wrapping_add(left);
                let (mut x, mut w) = (c.x.wrapping_add(first), c.w.wrapping_add(j * a.taps[0] * a.taps[1] + ky));
                if const { Self::pairs(I::REGISTERS, I::LANES) } {
                    while kx + 2 <= a.taps[1] {
                        a = fresh(s, a);
                        let both = [w, w.wrapping_add(a.taps[0])];
                        // SAFETY: the same contract.
                        unsafe { Self::column::<I, EDGE, true>(s, a, x, [row, column.addr()], both, &mut acc) };
                        (kx, w) = (kx + 2, w.wrapping_add(2 * a.taps[0]));
                        (column, x) = (s.opaque(column.wrapping_byte_add(2)), x.wrapping_add(2));
                    }
                }
                while kx < a.taps[1] {
                    a = fresh(s, a);
                    // SAFETY: the same contract.
                    unsafe { Self::column::<I, EDGE, false>(s, a, x, [row, column.addr()], [w; 2], &mut acc) };
                    (kx, w) = (kx + 1, w.wrapping_add(a.taps[0]));
                    (column, x) = (s.opaque(column.wrapping_byte_add(a.dilation[1])), x.wrapping_add(a.dilation[1]));
                }
            }
        }
        acc
    }

    /// Adds bias and residual, clamps, and stores `n` columns of `R` rows from `(oy, ox)` on.
    ///
    /// # Safety
    /// The channel's outputs and residual are valid for them.
    #[inline(always)]
    unsafe fn store<I: Isa>(s: I, a: &PlaneArgs, c: &Channel, [oy, ox]: [usize; 2], n: usize, acc: [I::V; R]) {
        let (bias, lo, hi) = (s.splat(c.bias), s.splat(a.lo), s.splat(a.hi));
        for r in 0..R {
            let at = (oy + r) * a.y_row + ox;
            let mut v = acc[r];
            // SAFETY: the same contract.
            unsafe {
                if !a.bias.is_null() {
                    v = s.add(v, bias);
                }
                if !c.residual.is_null() {
                    let residual = c.residual.wrapping_add(at);
                    v = s.add(v, if n < I::LANES { s.load_partial(residual, n) } else { s.load(residual) });
                }
                // A limit is the first operand, so that a NaN in the sum stays one.
                v = s.min(hi, s.max(lo, v));
                if n < I::LANES {
                    s.store_partial(c.y.wrapping_add(at), v, n);
                } else {
                    s.store(c.y.wrapping_add(at), v);
                }
            }
        }
    }

    /// All outputs of a channel.
    ///
    /// # Safety
    /// As for the kernel, for this channel.
    #[inline(always)]
    unsafe fn channel<I: Isa>(s: I, a: &PlaneArgs, c: &Channel) {
        let rows = inner(a.pad[0], if KH == 1 { a.stride } else { SY }, (a.taps[0] - 1) * a.dilation[0] + 1, a.height);
        let columns = inner(a.pad[1], SX, (a.taps[1] - 1) * a.dilation[1] + Self::reach(I::LANES), a.width);
        let mut oy = a.first;
        while oy < a.end {
            // The last rows, and columns, overlap the ones before: the same sums, stored once more.
            oy = oy.min(a.end - R);
            let whole = rows.contains(&oy) && rows.contains(&(oy + R - 1));
            let mut ox = 0;
            while ox < a.columns {
                let n = I::LANES.min(a.columns);
                ox = ox.min(a.columns - n);
                // SAFETY: the same contract; inner rows and columns have all taps, and what a vector reads beyond them.
                unsafe {
                    let acc = if whole && columns.contains(&ox) {
                        Self::sums::<I, false>(s, a, c, [oy, ox])
                    } else {
                        Self::sums::<I, true>(s, a, c, [oy, ox])
                    };
                    Self::store(s, a, c, [oy, ox], n, acc);
                }
                ox += n;
            }
            oy += R;
        }
    }
}

/// The same arguments, of which the compiler knows nothing: in the innermost loop they are read where they lie, since kept in registers
/// they would be kept on the stack.
#[inline(always)]
fn fresh<I: Isa>(s: I, a: &PlaneArgs) -> &PlaneArgs {
    // SAFETY: the same pointer.
    unsafe { &*s.opaque(ptr::from_ref(a)) }
}

/// The lanes of a vector that begins in `column` whose columns lie inside a row of so many. Columns to the left of it wrap around.
#[inline(always)]
pub(crate) fn range<I: Isa>(column: usize, width: usize) -> [usize; 2] {
    let column = column as isize;
    let lane = |end: isize| end.clamp(0, I::LANES as isize) as usize;
    let hi = lane(width as isize - column);
    [lane(-column).min(hi), hi]
}

/// Outputs along an axis whose windows of `span` inputs, or a vector's, lie inside.
#[inline(always)]
fn inner(pad: usize, stride: usize, span: usize, input: usize) -> Range<usize> {
    pad.div_ceil(stride)..(pad + input).checked_sub(span).map_or(0, |last| last / stride + 1)
}

impl<I: Isa, const R: usize, const KH: usize, const SY: usize, const SX: usize> Kernel<I> for Plane<R, KH, SY, SX> {
    type Args = PlaneArgs;

    /// # Safety
    /// * inputs, weights, outputs, bias and residual are valid for all channels; the latter two may be null;
    /// * `first + R <= end`, which is at most the outputs' height;
    /// * `KH`, where it is not 1, is the number of taps down; then there is no dilation, and the stride down is `SY`;
    /// * the stride across is `SX`.
    #[inline(always)]
    unsafe fn run(s: I, a: &PlaneArgs) {
        const { assert!(R + KH + 3 <= I::REGISTERS && SX <= 2 && Self::READ <= 19) };
        let (mut x, mut within) = (a.x, a.within);
        for c in 0..a.channels {
            let bias = a.bias.wrapping_add(c);
            let shift = |p: *const f32| if p.is_null() { p } else { p.wrapping_add(c * a.plane) };
            let channel = Channel {
                x,
                w: a.w.wrapping_add(c * a.icg * a.taps[0] * a.taps[1]),
                y: a.y.wrapping_add(c * a.plane),
                residual: shift(a.residual),
                // SAFETY: there is a bias for each channel.
                bias: if a.bias.is_null() { 0.0 } else { unsafe { bias.read() } },
            };
            // SAFETY: the contract covers every channel.
            unsafe { Self::channel(s, a, &channel) };
            within += 1;
            if within == a.ocg {
                (x, within) = (x.wrapping_add(a.icg * a.x_plane), 0);
            }
        }
    }
}

/// A kernel of this family: a row of [`rows`].
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// `plane3s1_f32_7x16_avx512`: taps down and stride (`any` where they are taken one by one), rows x vector, level.
    pub name: &'static str,
    /// Level.
    pub level: Level,
    /// Rows of outputs at once.
    pub rows: usize,
    /// Taps down at once.
    pub kh: usize,
    /// Strides down (where taps are taken at once) and across.
    pub strides: [usize; 2],
    /// Floats of a vector.
    pub lanes: usize,
    /// The kernel; see `Plane` for its contract.
    pub(super) run: Entry<PlaneArgs>,
}

edges!(edge);

/// Seven rows divide 7, 14, 28, 56, 112 and 224, and leave registers for a column of weights on every level.
macro_rules! rows {
    (@row $level:ident $entry:ident $lanes:literal $name:literal; $taps:literal $r:literal $kh:literal $sy:literal $sx:literal) => {
        Row {
            name: concat!("plane", $taps, "_f32_", $r, "x", $lanes, "_", $name),
            level: Level::$level,
            rows: $r,
            kh: $kh,
            strides: [$sy, $sx],
            lanes: $lanes,
            run: edge::$entry::run::<Plane<{ $r }, { $kh }, { $sy }, { $sx }>>,
        }
    };
    (any $level:ident $name:literal $entry:ident $lanes:literal) => {
        &[
            rows!(@row $level $entry $lanes $name; "any" 7 1 1 1),
            rows!(@row $level $entry $lanes $name; "any" 1 1 1 1),
            rows!(@row $level $entry $lanes $name; "anys2" 7 1 1 2),
            rows!(@row $level $entry $lanes $name; "anys2" 1 1 1 2),
        ]
    };
    ($level:ident $name:literal; $($entry:ident $lanes:literal)*; $($five:tt)*) => {
        &[rows!(@row $level $($five)* 5 2 2), $(
            rows!(@row $level $entry $lanes $name; "3s1" 7 3 1 1),
            rows!(@row $level $entry $lanes $name; "3s2" 7 3 2 2),
            rows!(@row $level $entry $lanes $name; "5s1" 7 5 1 1),
            rows!(@row $level $entry $lanes $name; "any" 7 1 1 1),
            rows!(@row $level $entry $lanes $name; "any" 1 1 1 1),
            rows!(@row $level $entry $lanes $name; "anys2" 7 1 1 2),
            rows!(@row $level $entry $lanes $name; "anys2" 1 1 1 2),
        )*]
    };
}

by_level! {
    /// All kernels of this family at a level; none for a level of another architecture.
    pub fn rows() -> [Row];

    Scalar: rows!(any Scalar "scalar" scalar 4),
    // 16 registers: seven rows of five taps at a stride of 2 spill.
    Avx2: rows!(Avx2 "avx2"; avx2 8; avx2 8 "avx2"; "5s2" 4),
    // Half vectors do five taps at a stride of 2 one by one.
    Avx512: rows!(Avx512 "avx512"; avx512 16 avx512_half 8; avx512 16 "avx512"; "5s2" 7),
    Neon: rows!(Neon "neon"; neon 4; neon 4 "neon"; "5s2" 7),
}
