//! Passes over slices: where they run, how their outputs are cut into parts, and bodies in safe Rust for every level.
//!
//! The operators that move more than they multiply (normalisation, pooling, arithmetic, gradients of activations) are loops
//! over arrays: a `Body` is such a loop, compiled once for each level behind its `#[target_feature]` edge. It computes with
//! vectors of the level (`Vector`), or with arrays of 16 floats that LLVM turns into vectors. Since bodies neither fuse
//! multiply-adds nor depend on the vector's width, one body gives the same bits at every level.
//!
//! A pass is cut into parts whose sizes the shape alone fixes, `Place::each` hands the parts to threads, and whatever
//! is summed over parts is added in their order: the same bits for any number of threads.

use core::cell::Cell;
use core::marker::PhantomData;

use crate::control_word::with_default;
use crate::epilogue::Outputs;
use crate::exec::{Executor, Inline, for_each_part_with};
use crate::isa::{Isa, Kernel, Level, compiled_in};
use crate::table::edges;

mod stream;
mod vector;

pub(crate) use stream::{Map, MapOver, Sum, SumOver};
pub(crate) use vector::Vector;

edges!(edge);

/// Where a pass runs: at which level, on which threads.
///
/// ```
/// use swath_kernels::{isa::Cpu, pass::Place};
/// let here = Place::inline(Cpu::detect().level); // the calling thread alone
/// assert_eq!(here.level(), Cpu::detect().level);
/// ```
#[derive(Clone, Copy)]
pub struct Place<'a> {
    level: Level,
    executor: &'a dyn Executor,
}

impl core::fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} on {} threads", self.level, self.executor.threads())
    }
}

/// A pass that touches fewer floats runs on the calling thread: handing it over costs about 12 us, in which a core
/// moves 64 thousand of them.
const INLINE_FLOATS: usize = 1 << 16;

impl<'a> Place<'a> {
    /// A level and the threads of an executor.
    ///
    /// # Panics
    /// If the machine does not have the level.
    pub fn new(level: Level, executor: &'a dyn Executor) -> Self {
        assert!(Level::available().contains(&level), "level {level} is not available on this machine");
        Self { level, executor }
    }

    /// A level and the calling thread.
    ///
    /// # Panics
    /// If the machine does not have the level.
    pub fn inline(level: Level) -> Self {
        Self::new(level, &Inline)
    }

    /// The level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Runs a body at the level, on the calling thread.
    pub(crate) fn at<B: Body>(&self, body: B) -> B::Out {
        let call = Call { body: Cell::new(Some(body)), out: Cell::new(None) };
        with_default(|| self.edge(&call));
        call.out.take().expect("the edge ran the body")
    }

    /// Runs the edge of the level.
    fn edge<B: Body>(&self, call: &Call<B>) {
        // The level is available, which `new` asserts, and edges ask for nothing else.
        compiled_in! { Avx512 => if self.level == Level::Avx512 {
            // SAFETY: as above.
            return unsafe { edge::avx512::run::<Edge<B>>(call) };
        } }
        compiled_in! { Avx2 => if self.level == Level::Avx2 {
            // SAFETY: as above.
            return unsafe { edge::avx2::run::<Edge<B>>(call) };
        } }
        compiled_in! { Neon => if self.level == Level::Neon {
            // SAFETY: as above.
            return unsafe { edge::neon::run::<Edge<B>>(call) };
        } }
        // SAFETY: as above; the scalar level is always there.
        unsafe { edge::scalar::run::<Edge<B>>(call) }
    }

    /// As [`Place::each`], of some pieces of `cut`; `f` hears their numbers in it.
    pub(crate) fn each_of<C: Cut>(&self, floats: usize, runs: Runs, cut: C, f: impl Fn(usize, C::Piece) + Sync) {
        assert!(runs.end() <= cut.pieces(), "pieces to {} of {}", runs.end(), cut.pieces());
        self.each(floats, Chosen { runs, cut }, |k, piece| f(runs.index(k), piece));
    }

    /// Calls `f` once for each piece of `cut`, on the executor's threads where `floats`, which the pass reads and writes
    /// in all, are worth it.
    pub(crate) fn each<C: Cut>(&self, floats: usize, cut: C, f: impl Fn(usize, C::Piece) + Sync) {
        self.each_with(floats, cut, (&mut [], 0), |i, piece, _| f(i, piece));
    }

    /// The same for outputs, units of `unit` floats that are cut into chunks of `chunk`. Memory that held nothing is
    /// zeroed chunk by chunk before `f`, which then mostly finds it in L1.
    pub(crate) fn each_output<'y>(
        &self,
        floats: usize,
        mut y: Outputs<'y>,
        [unit, chunk]: [usize; 2],
        f: impl Fn(usize, &mut [f32]) + Sync,
    ) -> &'y mut [f32] {
        let fresh = matches!(y, Outputs::Unwritten(_));
        // SAFETY: what is written to it is zeros, and floats by `f`.
        let cut = Chunks::of_units(unsafe { y.memory() }, unit, chunk);
        self.each(floats, cut, |i, piece| {
            if fresh {
                // SAFETY: it is the piece. A call of memset: `fill` would be a loop.
                unsafe { piece.as_mut_ptr().write_bytes(0, piece.len()) };
            }
            // SAFETY: it held floats, or has just been filled.
            f(i, unsafe { piece.assume_init_mut() })
        });
        // SAFETY: the chunks are all of it, and where it held nothing each has been filled.
        unsafe { y.written() }
    }

    /// As [`Place::each`] with so many floats of scratch for each thread.
    pub(crate) fn each_with<C: Cut>(
        &self,
        floats: usize,
        cut: C,
        (scratch, per_thread): (&mut [f32], usize),
        f: impl Fn(usize, C::Piece, &mut [f32]) + Sync,
    ) {
        let executor: &dyn Executor = if floats < INLINE_FLOATS { &Inline } else { self.executor };
        for_each_part_with(executor, cut.pieces(), scratch, per_thread, |i, scratch| {
            // SAFETY: every part is claimed once, and `i` is below the number of pieces.
            f(i, unsafe { cut.piece(i) }, scratch)
        });
    }
}

/// A loop in safe Rust that is compiled for every level. `run` must be `#[inline(always)]`.
pub(crate) trait Body {
    /// What it returns.
    type Out;
    /// The loop; `s` is there for those that call [`crate::vecmath`].
    fn run<I: Isa>(self, s: I) -> Self::Out;
}

struct Call<B: Body> {
    body: Cell<Option<B>>,
    out: Cell<Option<B::Out>>,
}

struct Edge<B>(PhantomData<B>);

impl<I: Isa, B: Body> Kernel<I> for Edge<B> {
    type Args = Call<B>;

    /// # Safety
    /// None beyond the level.
    #[inline(always)]
    unsafe fn run(s: I, call: &Call<B>) {
        if let Some(body) = call.body.take() {
            call.out.set(Some(body.run(s)));
        }
    }
}

/// What can be cut into numbered, disjoint pieces.
pub(crate) trait Cut: Sync {
    /// One of them.
    type Piece;
    /// How many there are; `usize::MAX` where any number will do.
    fn pieces(&self) -> usize;
    /// Piece `i`.
    ///
    /// # Safety
    /// `i` is below [`Cut::pieces`], and no other piece of the number is alive.
    unsafe fn piece(&self, i: usize) -> Self::Piece;
}

/// As many numbered pieces, of nothing.
pub(crate) struct Numbers(pub usize);

impl Cut for Numbers {
    type Piece = ();

    fn pieces(&self) -> usize {
        self.0
    }

    unsafe fn piece(&self, _: usize) {}
}

/// Numbers of some pieces: `runs` runs of `len` neighbours, whose starts are `stride` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Runs {
    first: usize,
    len: usize,
    stride: usize,
    runs: usize,
}

impl Runs {
    /// # Panics
    /// If runs overlap.
    pub fn new(first: usize, len: usize, stride: usize, runs: usize) -> Self {
        assert!(len <= stride || runs <= 1, "runs of {len}, {stride} apart");
        Self { first, len, stride, runs }
    }

    /// The number of the `k`th of them.
    pub fn index(&self, k: usize) -> usize {
        self.first + k / self.len * self.stride + k % self.len
    }

    /// How many there are.
    fn count(&self) -> usize {
        self.runs * self.len
    }

    /// What is above all of their numbers.
    fn end(&self) -> usize {
        self.count().checked_sub(1).map_or(0, |last| self.index(last) + 1)
    }
}

/// Some pieces of a cut.
struct Chosen<C> {
    runs: Runs,
    cut: C,
}

impl<C: Cut> Cut for Chosen<C> {
    type Piece = C::Piece;

    fn pieces(&self) -> usize {
        self.runs.count()
    }

    unsafe fn piece(&self, i: usize) -> C::Piece {
        // SAFETY: `each_of` checked that all of the numbers are below the cut's, and since runs do not overlap, no two of
        // them are equal.
        unsafe { self.cut.piece(self.runs.index(i)) }
    }
}

/// A slice of units of equal length, each cut into chunks of equal length, of which a unit's last may be shorter.
pub(crate) struct Chunks<'a, T> {
    start: *mut T,
    unit: usize,
    chunk: usize,
    per_unit: usize,
    units: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: pieces are disjoint `&mut [T]`, which may be sent where `T` may.
unsafe impl<T: Send> Sync for Chunks<'_, T> {}

impl<'a, T> Chunks<'a, T> {
    /// Chunks of `chunk` elements.
    pub fn new(slice: &'a mut [T], chunk: usize) -> Self {
        let len = slice.len();
        Self::of_units(slice, len, chunk)
    }

    /// Units of `unit` elements, in chunks of `chunk`.
    ///
    /// # Panics
    /// If the slice is not whole units.
    pub fn of_units(slice: &'a mut [T], unit: usize, chunk: usize) -> Self {
        let (units, chunk) = (slice.len().checked_div(unit).unwrap_or(0), chunk.max(1));
        assert_eq!(slice.len(), units * unit, "whole units of {unit}");
        Self { start: slice.as_mut_ptr(), unit, chunk, per_unit: unit.div_ceil(chunk), units, slice: PhantomData }
    }
}

impl<'a, T: Send> Cut for Chunks<'a, T> {
    type Piece = &'a mut [T];

    fn pieces(&self) -> usize {
        self.units * self.per_unit
    }

    unsafe fn piece(&self, i: usize) -> &'a mut [T] {
        debug_assert!(i < self.pieces());
        let (unit, chunk) = (i / self.per_unit, i % self.per_unit);
        let len = self.chunk.min(self.unit - chunk * self.chunk);
        // SAFETY: `i` is below the number of pieces, so the unit and the chunk's first element are inside the slice, and
        // `len` ends it inside the unit; pieces of other numbers are disjoint, and the caller has none of this number.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(unit * self.unit + chunk * self.chunk), len) }
    }
}

/// Matrices `[rows][cols]`, cut into strips of neighbouring columns.
pub(crate) struct Strips<'a, T> {
    start: *mut T,
    matrices: usize,
    rows: usize,
    cols: usize,
    width: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: strips hand out disjoint `&mut [T]`, which may be sent where `T` may.
unsafe impl<T: Send> Sync for Strips<'_, T> {}

impl<'a, T> Strips<'a, T> {
    /// Strips of `width` columns of each matrix.
    ///
    /// # Panics
    /// If the slice is not whole matrices.
    pub fn new(slice: &'a mut [T], rows: usize, cols: usize, width: usize) -> Self {
        let matrices = slice.len().checked_div(rows * cols).unwrap_or(0);
        assert_eq!(slice.len(), matrices * rows * cols, "whole matrices of {rows} x {cols}");
        Self { start: slice.as_mut_ptr(), matrices, rows, cols, width, slice: PhantomData }
    }
}

/// Some columns of a matrix.
pub(crate) struct Strip<'a, T> {
    start: *mut T,
    rows: usize,
    cols: usize,
    width: usize,
    slice: PhantomData<&'a mut [T]>,
}

impl<T> Strip<'_, T> {
    /// The strip's columns of a row.
    #[inline(always)]
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows);
        // SAFETY: the row's columns are inside the slice that `Strips` was made of, no other strip has them, and the borrow of
        // `self` keeps them to one row at a time.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(row * self.cols), self.width) }
    }

    /// The same strip for a while.
    pub fn reborrow(&mut self) -> Strip<'_, T> {
        Strip { start: self.start, rows: self.rows, cols: self.cols, width: self.width, slice: PhantomData }
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }
}

impl<'a, T: Send> Cut for Strips<'a, T> {
    type Piece = Strip<'a, T>;

    fn pieces(&self) -> usize {
        self.matrices * self.cols.div_ceil(self.width)
    }

    unsafe fn piece(&self, i: usize) -> Strip<'a, T> {
        let per = self.cols.div_ceil(self.width);
        let (matrix, first) = (i / per, i % per * self.width);
        let width = self.width.min(self.cols - first);
        // SAFETY: `i` is below the number of pieces, so matrix and first column are inside the slice.
        let start = unsafe { self.start.add(matrix * self.rows * self.cols + first) };
        Strip { start, rows: self.rows, cols: self.cols, width, slice: PhantomData }
    }
}

/// The vector at `i` of a slice; beyond its end zeros.
#[inline(always)]
pub(crate) fn get<I: Isa>(s: I, v: &[f32], i: usize) -> I::V {
    let v = &v[i..];
    if let Some(v) = v.get(..I::LANES) {
        // SAFETY: LANES floats, as just taken.
        unsafe { s.load(v.as_ptr()) }
    } else {
        // SAFETY: as many floats as the slice has, fewer than LANES.
        unsafe { s.load_partial(v.as_ptr(), v.len()) }
    }
}

/// The vector to `i` of a slice; what is beyond its end is dropped.
#[inline(always)]
pub(crate) fn put<I: Isa>(s: I, v: &mut [f32], i: usize, value: I::V) {
    let v = &mut v[i..];
    if let Some(v) = v.get_mut(..I::LANES) {
        // SAFETY: LANES floats, as just taken.
        unsafe { s.store(v.as_mut_ptr(), value) }
    } else {
        // SAFETY: as many floats as the slice has, fewer than LANES.
        unsafe { s.store_partial(v.as_mut_ptr(), value, v.len()) }
    }
}

/// The sum of a vector's lanes, in order.
#[inline(always)]
pub(crate) fn add_lanes<I: Isa>(s: I, v: I::V) -> f32 {
    let mut lanes = [0.0f32; 16];
    put(s, &mut lanes[..I::LANES], 0, v);
    lanes[..I::LANES].iter().sum()
}

/// Nothing to write, any number of times.
impl Cut for () {
    type Piece = ();
    fn pieces(&self) -> usize {
        usize::MAX
    }
    unsafe fn piece(&self, _: usize) {}
}

impl<C: Cut> Cut for Option<C> {
    type Piece = Option<C::Piece>;
    fn pieces(&self) -> usize {
        self.as_ref().map_or(usize::MAX, Cut::pieces)
    }
    unsafe fn piece(&self, i: usize) -> Self::Piece {
        // SAFETY: the same contract.
        self.as_ref().map(|c| unsafe { c.piece(i) })
    }
}

/// As many pieces of the same number together.
impl<C: Cut, const N: usize> Cut for [C; N] {
    type Piece = [C::Piece; N];
    fn pieces(&self) -> usize {
        self.iter().map(Cut::pieces).min().unwrap_or(usize::MAX)
    }
    unsafe fn piece(&self, i: usize) -> Self::Piece {
        // SAFETY: the same contract; the fewest pieces count.
        core::array::from_fn(|n| unsafe { self[n].piece(i) })
    }
}

macro_rules! tuples {
    ($($($c:ident $i:tt),+;)*) => {$(
        /// Pieces of the same number together.
        impl<$($c: Cut),+> Cut for ($($c,)+) {
            type Piece = ($($c::Piece,)+);
            fn pieces(&self) -> usize {
                usize::MAX$(.min(self.$i.pieces()))+
            }
            unsafe fn piece(&self, i: usize) -> Self::Piece {
                // SAFETY: the same contract; the fewest pieces count.
                unsafe { ($(self.$i.piece(i),)+) }
            }
        }
    )*};
}

tuples! { A 0, B 1; A 0, B 1, C 2; A 0, B 1, C 2, D 3; }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_cover_each_matrix_once() {
        for (matrices, rows, cols, width) in [(2, 3, 10, 4), (1, 1, 7, 100), (3, 2, 8, 4), (0, 2, 3, 1)] {
            let mut v = vec![0usize; matrices * rows * cols];
            Place::inline(Level::Scalar).each(0, Strips::new(&mut v, rows, cols, width), |i, mut strip| {
                for r in 0..rows {
                    assert_eq!(strip.row(r).len(), strip.width());
                    strip.row(r).iter_mut().for_each(|v| *v += 10 * i + r + 1);
                }
            });
            let per = cols.div_ceil(width);
            let want: Vec<usize> = (0..matrices * rows * cols)
                .map(|i| 10 * (i / cols / rows * per + i % cols / width) + i / cols % rows + 1)
                .collect();
            assert_eq!(v, want);
        }
    }

    #[test]
    fn runs_choose_pieces() {
        let (runs, mut v) = (Runs::new(1, 2, 4, 2), [0; 8]);
        let place = Place::inline(Level::Scalar);
        place.each_of(0, runs, Chunks::new(&mut v, 1), |i, piece| piece[0] = i);
        assert_eq!(v, [0, 1, 2, 0, 0, 5, 6, 0]);
        place.each_of(0, Runs::new(0, 0, 0, 1), Chunks::new(&mut v, 1), |_, _| panic!("there is none"));
        let beyond = std::panic::AssertUnwindSafe(|| {
            place.each_of(0, Runs::new(2, 2, 4, 2), Chunks::new(&mut [0; 7], 1), |_, _| ());
        });
        assert!(std::panic::catch_unwind(beyond).is_err(), "7 is beyond the last");
    }

    #[test]
    fn chunks_cover_each_unit_once() {
        for (units, unit, chunk) in [(3, 10, 4), (1, 7, 100), (2, 8, 4), (0, 5, 2), (4, 1, 1)] {
            let mut v = vec![0usize; units * unit];
            let cut = (Chunks::of_units(&mut v, unit, chunk), None::<Chunks<'_, f32>>, ());
            Place::inline(Level::Scalar).each(0, cut, |i, (piece, none, ())| {
                assert!(none.is_none() && !piece.is_empty() && piece.len() <= chunk);
                piece.iter_mut().for_each(|v| *v += i + 1);
            });
            let per = unit.div_ceil(chunk);
            let want: Vec<usize> = (0..units * unit).map(|i| i / unit * per + i % unit / chunk + 1).collect();
            assert_eq!(v, want);
        }
    }
}
