//! The data gradient of a stride across of 2 over planes of NCHW, for depthwise convolutions and small groups: a vector lies along a row.
//!
//! ```text
//! for each plane of dx, row, two vectors of adjacent columns:
//!   for each row of taps that meets the row:
//!     for each two taps:                   load dy; even columns += dy * w[k]; odd columns += dy * w[k + 1], or the other way round
//!   put even and odd columns together, bias, residual, clamp, store
//! ```
//!
//! The phases of the stride across are computed side by side, so that `dx` is written whole: written phase by phase, each line goes through
//! the cache twice, a float at a time (Granite Rapids, depthwise 3x3 of 96 channels at 112x112: 1.50 ms by phases, 0.59 in blocks).
//!
//! Columns that do not exist are zeros that are multiplied: they change a result only where a weight that meets one is infinite or NaN.
//! Order of each sum: outputs of the group, rows of taps, taps, each in its order. Error: as for the register tile.
//! Magnitudes: [`FiniteRange::PLAIN`](crate::finite::FiniteRange::PLAIN).

use crate::epilogue::{Epilogue, Lengths, Outputs};
use crate::exec::{Executor, Shared, for_each_part_with, parts_wanted};
use crate::isa::{Entry, Isa, Kernel, Level};
use crate::layout::{Layout, Strides, View};
use crate::machine::Core;
use crate::planar::{MAX_ICG, activate, range};
use crate::shape::ConvShape;
use crate::table::{by_level, edges};
use crate::tile::{Finish, SyncFinish};

/// What a call works on. Lengths and steps in floats.
#[derive(Clone, Copy)]
struct TwinArgs {
    /// Pixel (0, 0) of the group's first plane of `dy`; extents of a plane, and from row to row and plane to plane.
    dy: *const f32,
    height: usize,
    width: usize,
    dy_row: usize,
    dy_plane: usize,
    /// Planes of a group.
    outputs: usize,
    /// Weights of the group's first output for this input, and from output to output.
    w: *const f32,
    w_output: usize,
    taps: [usize; 2],
    stride: usize,
    /// From a row of taps to the next, and row 0 of `dx` at the first of them.
    tap: Strided,
    top: Strided,
    /// Column of `dy` that the first tap meets, at column 0 of `dx` or at column 1.
    first: usize,
    /// Pairs of vectors of which all columns of `dx` and `dy` exist.
    inner: [usize; 2],
    /// The plane of `dx`: rows, columns, from row to row, and the residual there, null for none.
    rows: usize,
    columns: usize,
    y_row: usize,
    y: *mut f32,
    residual: *const f32,
    bias: f32,
    /// Clamps.
    lo: f32,
    hi: f32,
}

/// A number of rows by the stride: where nothing is left, `whole` is the row of `dy`, modulo 2^64.
#[derive(Clone, Copy)]
struct Strided {
    whole: usize,
    rest: usize,
}

impl Strided {
    fn new(rows: usize, stride: usize) -> Self {
        Self { whole: rows / stride, rest: rows % stride }
    }

    #[inline(always)]
    fn next(self, stride: usize) -> Self {
        if self.rest + 1 < stride {
            Self { rest: self.rest + 1, ..self }
        } else {
            Self { whole: self.whole + 1, rest: 0 }
        }
    }

    #[inline(always)]
    fn minus(self, by: Self, stride: usize) -> Self {
        let whole = self.whole.wrapping_sub(by.whole);
        if self.rest >= by.rest {
            Self { whole, rest: self.rest - by.rest }
        } else {
            Self { whole: whole.wrapping_sub(1), rest: self.rest + stride - by.rest }
        }
    }
}

/// The rows of taps that meet a row of `dx`: where the row of `dy` lies that the first of them meets, and its first weight; from one to the
/// next; and how many there are. They are equally far from each other, since every so many rows of taps meet a row.
#[derive(Clone, Copy, Default)]
struct Lines {
    dy: usize,
    w: usize,
    dy_step: usize,
    w_step: usize,
    n: usize,
}

impl Lines {
    /// Those of the row at `place`, where `tap` leads from a row of taps to the next.
    #[inline(always)]
    fn of(a: &TwinArgs, mut place: Strided, tap: Strided) -> Self {
        let mut these = Self::default();
        for ky in 0..a.taps[0] {
            if place.rest == 0 && place.whole < a.height {
                let (dy, w) = (place.whole * a.dy_row, ky * a.taps[1]);
                match these.n {
                    0 => (these.dy, these.w) = (dy, w),
                    1 => (these.dy_step, these.w_step) = (dy.wrapping_sub(these.dy), w - these.w),
                    _ => {}
                }
                these.n += 1;
            }
            place = place.minus(tap, a.stride);
        }
        these
    }
}

/// Even and odd columns at once: the kernel for `KW` taps to the row, any number if that is 0, and `ODD` or even columns that the first
/// tap meets.
struct Twin<const KW: usize, const ODD: bool>;

/// Most columns of `dy` that a row of so many taps meets at two adjacent columns of `dx`.
const fn most_columns(kw: usize, odd: bool) -> usize {
    if odd { kw / 2 + 1 } else { kw.div_ceil(2) }
}

/// Columns of `dy` whose ranges are kept.
const KEPT: usize = 3;

impl<const KW: usize, const ODD: bool> Twin<KW, ODD> {
    /// Two vectors of adjacent columns of a row, number `v` of these pairs.
    ///
    /// # Safety
    /// As for the kernel; `lines` are the rows of taps that meet the row. All columns exist but at an `EDGE`.
    #[inline(always)]
    unsafe fn pair<I: Isa, const EDGE: bool>(s: I, a: &TwinArgs, lines: &Lines, row: usize, v: usize) {
        let first = a.first.wrapping_add(v * I::LANES);
        let within = |i: usize| {
            let [lo, hi] = range::<I>(first.wrapping_sub(i), a.width);
            s.range(lo, hi)
        };
        let kw = if KW == 0 { a.taps[1] } else { KW };
        let kept = [0, 1, 2].map(within);
        let (mut these, mut others) = (s.zero(), s.zero());
        for o in 0..a.outputs {
            let mut dy = a.dy.wrapping_add(o * a.dy_plane + lines.dy);
            let mut w = a.w.wrapping_add(o * a.w_output + lines.w);
            for _ in 0..lines.n {
                let mut tap = |i: usize, range: I::Range| {
                    let at = dy.wrapping_add(first.wrapping_sub(i));
                    // SAFETY: the columns that exist, of a row that does.
                    let g = unsafe { if EDGE { s.load_range(at, range) } else { s.load(at) } };
                    // The tap that meets the first of its columns, and the one before or behind it.
                    let (k, other) = (2 * i, if ODD { (2 * i).wrapping_sub(1) } else { 2 * i + 1 });
                    // SAFETY: taps of the row.
                    unsafe {
                        if k < kw {
                            these = s.fma(g, s.load_splat(w.wrapping_add(k)), these);
                        }
                        if other < kw {
                            others = s.fma(g, s.load_splat(w.wrapping_add(other)), others);
                        }
                    }
                };
                if const { KW > 0 } {
                    for i in 0..const { most_columns(KW, ODD) } {
                        tap(i, kept[i]);
                    }
                } else {
                    for i in 0..most_columns(kw, ODD) {
                        tap(i, within(i));
                    }
                }
                (dy, w) = (dy.wrapping_add(lines.dy_step), w.wrapping_add(lines.w_step));
            }
        }
        let acc = if ODD { [others, these] } else { [these, others] };
        let first = 2 * v * I::LANES;
        let (bias, lo, hi) = (s.splat(a.bias), s.splat(a.lo), s.splat(a.hi));
        for (half, v) in s.zip(acc[0], acc[1]).into_iter().enumerate() {
            let column = first + half * I::LANES;
            let n = if EDGE { a.columns.saturating_sub(column).min(I::LANES) } else { I::LANES };
            let at = row * a.y_row + column;
            let mut v = s.add(v, bias);
            // SAFETY: the columns that exist, of `dx` and of the residual.
            unsafe {
                if !a.residual.is_null() {
                    let residual = a.residual.wrapping_add(at);
                    v = s.add(v, if EDGE { s.load_partial(residual, n) } else { s.load(residual) });
                }
                // A limit is the first operand, so that a NaN in the sum stays one.
                v = s.min(hi, s.max(lo, v));
                let y = a.y.wrapping_add(at);
                if EDGE { s.store_partial(y, v, n) } else { s.store(y, v) }
            }
        }
    }
}

impl<I: Isa, const KW: usize, const ODD: bool> Kernel<I> for Twin<KW, ODD> {
    type Args = TwinArgs;

    /// # Safety
    /// * `dy` is readable for the planes of a group's outputs, `w` for their weights;
    /// * `y` is writable for a plane, and so is the residual readable unless it is null;
    /// * rows of taps are of `KW` taps unless that is 0, and `inner` is as it says.
    #[inline(always)]
    unsafe fn run(s: I, a: &TwinArgs) {
        const { assert!(KW == 0 || most_columns(KW, ODD) <= KEPT) };
        let mut place = a.top;
        for row in 0..a.rows {
            let lines = &Lines::of(a, place, a.tap);
            place = place.next(a.stride);
            let [inner, end] = a.inner;
            // SAFETY: pairs of vectors of this row; those between `inner` and `end` are whole.
            unsafe {
                for v in 0..inner {
                    Self::pair::<I, true>(s, a, lines, row, v);
                }
                for v in inner..end {
                    Self::pair::<I, false>(s, a, lines, row, v);
                }
                for v in end..a.columns.div_ceil(2 * I::LANES) {
                    Self::pair::<I, true>(s, a, lines, row, v);
                }
            }
        }
    }
}

/// A kernel of this family: a row of [`planar_rows`].
#[derive(Clone, Copy, Debug)]
pub struct PlanarRow {
    /// `plane3_bwd_d_f32_s2_odd_avx512`: taps to the row, the stride across, and whether columns are odd that the first tap meets.
    pub name: &'static str,
    /// Level.
    pub level: Level,
    /// Taps to the row; 0 for any number.
    pub taps: usize,
    /// Whether columns are odd that the first tap meets.
    pub odd: bool,
    run: Entry<TwinArgs>,
}

edges!(edge);

macro_rules! twins {
    (@row $level:ident $module:ident $name:literal $taps:literal $kw:literal $parity:literal $odd:literal) => {
        PlanarRow {
            name: concat!("plane", $taps, "_bwd_d_f32_s2_", $parity, "_", $name),
            level: Level::$level,
            taps: $kw,
            odd: $odd,
            run: edge::$module::run::<Twin<$kw, $odd>>,
        }
    };
    ($level:ident $module:ident $name:literal: $($taps:literal $kw:literal $parity:literal $odd:literal,)*) => {
        &[$(twins!(@row $level $module $name $taps $kw $parity $odd)),*]
    };
    ($level:ident $module:ident $name:literal) => {
        twins! { $level $module $name:
            "3" 3 "odd" true,
            "3" 3 "even" false,
            "5" 5 "even" false,
            "any" 0 "odd" true,
            "any" 0 "even" false,
        }
    };
}

by_level! {
    /// The kernels of these gradients at a level; none for a level of another architecture.
    pub fn planar_rows() -> [PlanarRow];

    Scalar: twins!(Scalar scalar "scalar": "any" 0 "odd" true, "any" 0 "even" false,),
    Avx2: twins!(Avx2 avx2 "avx2"),
    Avx512: twins!(Avx512 avx512 "avx512"),
    Neon: twins!(Neon neon "neon"),
}

/// The data gradient of a stride across of 2 over planes, planned. Holds no tensor.
///
/// ```
/// use swath_kernels::{backward_data::PlanarData, epilogue::Epilogue, exec::Inline, isa::Level, shape::ConvShape};
/// use swath_kernels::machine::Core;
/// let shape = ConvShape::builder([1, 2, 1, 4], [2, 1, 1, 2]).stride([1, 2]).groups(2).build()?;
/// let plan = PlanarData::new(&shape, Core::here(Level::Scalar))?;
/// let mut dx = [f32::NAN; 8];
/// plan.run(&[1.0, 10.0, 2.0, 20.0], &[1.0, 2.0, 1.0, -1.0], &Epilogue::none(), dx.as_mut_slice().into(), &Inline);
/// assert_eq!(dx, [1.0, 2.0, 10.0, 20.0, 2.0, -2.0, 20.0, -20.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct PlanarData {
    shape: ConvShape,
    row: &'static PlanarRow,
    inner: [usize; 2],
    ds: Strides,
    xs: Strides,
}

impl PlanarData {
    /// Plans the data gradient of the convolution `shape`, for `dy` and `dx` in NCHW, or says why the shape is not for this algorithm.
    ///
    /// # Errors
    /// A reason: one group, more than 8 outputs of a group, another horizontal stride than 2, taps of a row that are not adjacent.
    pub fn new(shape: &ConvShape, core: Core) -> Result<Self, &'static str> {
        shape.assert_consistent();
        let s = *shape;
        if s.groups == 1 {
            return Err("one group");
        }
        // What is the output of a group is the input of this one.
        if s.ocg() > MAX_ICG {
            return Err("more than 8 output channels a group");
        }
        if (s.sw, s.dw) != (2, 1) {
            return Err("a horizontal stride other than 2, or a dilation");
        }
        let odd = !s.pad.left.is_multiple_of(2);
        let fits = |r: &&PlanarRow| r.odd == odd && (r.taps == s.kw || r.taps == 0);
        let row = planar_rows(core.level).iter().find(fits).ok_or("no kernels at this level")?;
        // The least and the largest column of `dy` that the first pair's first lane meets.
        let most = s.pad.left.div_ceil(2) as isize;
        let least = most - (most_columns(s.kw, odd) as isize - 1);
        let lanes = core.level.lanes();
        let first = (-least).max(0).unsigned_abs().div_ceil(lanes);
        let room = s.ow as isize - most - lanes as isize;
        let end = if room < 0 { 0 } else { room.unsigned_abs() / lanes + 1 }.min(s.iw / (2 * lanes));
        let first = first.min(s.iw.div_ceil(2 * lanes));
        let [ds, xs] = [s.output(), s.input()].map(|dims| Layout::Nchw.strides(dims));
        Ok(Self { shape: s, row, inner: [first, end.max(first)], ds, xs })
    }

    /// The same for a `dy` and a `dx` that are parts of larger tensors.
    ///
    /// # Errors
    /// As for [`PlanarData::new`].
    ///
    /// # Panics
    /// If a view has other extents than the shape's, or another layout than NCHW.
    pub fn of_views(shape: &ConvShape, core: Core, [dy, dx]: [View; 2]) -> Result<Self, &'static str> {
        assert!([dy, dx].iter().all(|view| view.layout() == Layout::Nchw), "a view in NCHW");
        let [ds, xs] = [dy.strides_of(shape.output()), dx.strides_of(shape.input())];
        Ok(Self { ds, xs, ..Self::new(shape, core)? })
    }

    /// The convolution whose gradient this is.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// Name of the kernel: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        self.row.name
    }

    /// Computes `dx = activation(transposed convolution of dy + bias + residual)` on the executor's threads, from the convolution's
    /// weights as they are, `[oc, ic / groups, kh, kw]`. The bias has one float per input channel of the convolution, the residual lies as
    /// `dx` does.
    ///
    /// The outputs may lie in memory that holds nothing yet; what they then are is returned.
    ///
    /// # Panics
    /// If a slice's length is not what the shape says. Where outputs with gaps between them lie in memory that holds nothing.
    pub fn run<'x>(
        &self,
        dy: &[f32],
        w: &[f32],
        epilogue: &Epilogue<'_>,
        mut dx: Outputs<'x>,
        executor: &dyn Executor,
    ) -> &'x mut [f32] {
        let s = &self.shape;
        Lengths::backward(s, s.weights().iter().product(), [(Layout::Nchw, self.ds), (Layout::Nchw, self.xs)])
            .assert(dy, w, epilogue, &dx);
        assert!(self.row.level.is_available());
        let finish = SyncFinish(Finish::new(epilogue, self.row.level));
        let (shared, planes) = (dx.shared(), s.n * s.ic);
        let parts = parts_wanted(executor.threads()).min(planes);
        for_each_part_with(executor, parts, &mut [], 0, |part, _| {
            for plane in crate::exec::cut(planes, parts, part) {
                self.plane(dy, w, &finish, &shared, [plane / s.ic, plane % s.ic]);
            }
        });
        // SAFETY: parts of a run write all planes whole; what holds nothing has no gaps (asserted).
        unsafe { dx.written() }
    }

    /// A plane of `dx`.
    fn plane(&self, dy: &[f32], w: &[f32], finish: &SyncFinish, dx: &Shared<'_>, [n, c]: [usize; 2]) {
        let (s, ds, xs) = (&self.shape, &self.ds, &self.xs);
        let (group, taps) = (c / s.icg(), s.kh * s.kw);
        let at = n * xs.n + c * xs.channel;
        let finish = finish.0.at(c, at);
        let y = dx.at(at);
        let args = TwinArgs {
            dy: dy[n * ds.n + group * s.ocg() * ds.channel..].as_ptr(),
            height: s.oh,
            width: s.ow,
            dy_row: ds.row,
            dy_plane: ds.channel,
            outputs: s.ocg(),
            w: w[(group * s.ocg() * s.icg() + c % s.icg()) * taps..].as_ptr(),
            w_output: s.icg() * taps,
            taps: [s.kh, s.kw],
            stride: s.sh,
            tap: Strided::new(s.dh, s.sh),
            top: Strided::new(s.pad.top, s.sh),
            first: s.pad.left.div_ceil(2),
            inner: self.inner,
            rows: s.ih,
            columns: s.iw,
            y_row: xs.row,
            y,
            residual: finish.residual,
            // SAFETY: there is a bias for each channel.
            bias: if finish.bias.is_null() { 0.0 } else { unsafe { finish.bias.read() } },
            lo: finish.lo,
            hi: finish.hi,
        };
        // SAFETY:
        // * the level is available, and all slices are as long as shape and strides say (asserted in `run`), so that the planes of this
        //   group and its weights lie inside;
        // * pairs of vectors are whole where their last column is in the row, and the least and the largest column of `dy` that their
        //   lanes meet exist (`new`);
        // * parts of a run have disjoint planes, so no two threads write the same one.
        unsafe { (self.row.run)(&args) };
        // SAFETY: this plane is this part's alone, and the level is available.
        unsafe { activate(&finish, y, [s.ih, s.iw], xs.row) };
    }
}
