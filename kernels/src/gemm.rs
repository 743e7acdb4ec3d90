//! Packed, cache-blocked matrix product; im2col as a way of packing.
//!
//! ```text
//! C = activation(alpha * op(A) * op(B) + beta * C + bias + residual)      op(A) m x k, op(B) k x n, all row-major
//! ```
//!
//! | argument | meaning |
//! |---|---|
//! | `beta = 0` | `C` is only written: what it held, NaN included, does not matter |
//! | `beta = 1` | each sum starts from what `C` holds |
//! | other `beta` | each sum starts from `beta * C`, rounded |
//! | `alpha = 0` or `k = 0` | the sum has no terms; `A` and `B` are not read |
//! | `alpha` other than 0 and 1 | the terms are `(alpha * a) * b`, with `alpha * a` rounded |
//! | `m = 0` or `n = 0` | nothing happens |
//!
//! ```text
//! for each part of C (threads):                            a rectangle of whole tiles
//!   for each nc columns:
//!     for each kc of the reduction:                        pack kc x nc of B, unless it came packed
//!       for each mc rows:                                  pack mc x kc of A, or read it where it lies
//!         for each 1..4 blocks of 16 columns, 1..14 rows:  register tile, Access::Packed or Access::Strided
//! ```
//!
//! A block of B is `[nc/16][kc][16]`. A row-major A is copied in its own order, rows `kc` apart, and read by the tiles
//! with a row stride; where each of its elements is read only once or twice (a few rows, as in a linear layer on one
//! image, or a few columns) it is not copied at all. A transposed A is packed into panels `[kc][mr]`, which its rows
//! lie ready for. So nothing is ever shuffled element by element, except a transposed B; weights are best packed
//! beforehand ([`pack_b`]). A product with one row is bound by the memory that B streams from, at 4 bytes per
//! multiply-add, whatever the tile: packed weights stream at four times the speed of packing them on the way, and for one
//! tile of rows a row-major B is read as it lies.
//!
//! Register budget: the tile's, see [`crate::tile`]. On AVX-512 strided tiles are at most 6x64, packed ones 14x32; both
//! reach the FMA peak.
//!
//! Order: each sum runs over `k = 0, 1, 2 ...` in one chain. Chunks of `kc` continue it through `C`, which keeps f32 partial
//! sums exactly, so blocking, packing and threads never change a bit. Error: as for the tile, with `k + 1` terms.
//!
//! Reference: K. Goto and R. van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34(3), 2008;
//! [`crate::reference::gemm`].

mod block;
mod gather;
mod im2col;
mod pack;

use core::ops::Range;

pub use im2col::Im2col;
pub use pack::{pack_b, packed_len};

use crate::epilogue::Epilogue;
use crate::exec::{Executor, Shared, cut, for_each_part_with, parts_wanted};
use crate::isa::Level;
use crate::layout::{BLOCK, blocks};
use crate::machine::Core;
use crate::tile::{Access, Finish, pieces};
use block::{Block, Left, Tiles, Weights};

/// Cache blocking. Any values give the same bits; [`Gemm::new`] and [`Im2col::new`] choose good ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocking {
    /// Rows of a packed block of A.
    pub mc: usize,
    /// Depth of packed blocks.
    pub kc: usize,
    /// Columns of a block of B that is packed on the way, rounded up to blocks of 16; without meaning where B came packed.
    pub nc: usize,
}

/// Longest chunk of the reduction. A tile's C is loaded and stored once per chunk, about 84 cycles for 14x32 against the
/// 14 * 512 of its multiply-adds; and `512 x 64` weights are 128 KiB, which stay in L2 while the rows pass.
const KC: usize = 512;
/// Floats of a packed block of A: 256 KiB, half of the 512 KiB of L2 that every current core has for one thread. B's
/// columns that are in use take at most half of the rest.
const A_FLOATS: usize = 64 << 10;
/// Floats of a block of B that is packed on the way: 1.25 MiB, read from L3 once per block of A, at less than one byte per
/// cycle. With A's block the scratch stays below 2 MiB for any size.
const B_FLOATS: usize = 320 << 10;
/// Slack that lets scratch start on a cache line, in floats.
const ALIGN: usize = 16;

/// A row-major matrix with a leading dimension, or the transpose of one.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Elements.
    pub data: &'a [f32],
    /// From row to row as stored, at least the length of a row.
    pub ld: usize,
    /// Whether `op` is the transpose: the matrix is stored with its rows and columns exchanged.
    pub transposed: bool,
}

impl<'a> Matrix<'a> {
    /// `op(X) = X`.
    pub fn new(data: &'a [f32], ld: usize) -> Self {
        Self { data, ld, transposed: false }
    }

    /// `op(X)` is the transpose of the row-major `data`.
    pub fn transposed(data: &'a [f32], ld: usize) -> Self {
        Self { data, ld, transposed: true }
    }

    /// Asserts that `op(X)` has `rows` x `cols` elements.
    fn check(&self, name: &str, rows: usize, cols: usize) {
        let (r, c) = if self.transposed { (cols, rows) } else { (rows, cols) };
        check_extent(name, self.data.len(), self.ld, r, c);
    }
}

/// Asserts that `rows` of `cols` floats, `ld` apart, lie within `len`.
fn check_extent(name: &str, len: usize, ld: usize, rows: usize, cols: usize) {
    if rows == 0 || cols == 0 {
        return;
    }
    assert!(ld >= cols, "{name}: leading dimension {ld} is shorter than a row of {cols}");
    let needed = (rows - 1).checked_mul(ld).and_then(|v| v.checked_add(cols));
    assert!(
        needed.is_some_and(|v| v <= len),
        "{name}: {rows} rows of {cols} floats, {ld} apart, need more than {len} floats"
    );
}

/// The right operand.
#[derive(Clone, Copy, Debug)]
pub enum Right<'a> {
    /// As it lies; packed on the way, once per part of `C`.
    Matrix(Matrix<'a>),
    /// What [`pack_b`] made of it.
    Packed(&'a [f32]),
}

/// What [`Gemm::run`] multiplies.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    /// Factor of the product.
    pub alpha: f32,
    /// Left operand.
    pub a: Matrix<'a>,
    /// Right operand.
    pub b: Right<'a>,
    /// Factor of what `C` holds.
    pub beta: f32,
    /// What follows: a bias per column, a residual with `C`'s extents and leading dimension, an activation.
    pub epilogue: Epilogue<'a>,
}

/// A matrix product, planned: extents, tiles and blocking. Holds no matrix.
///
/// ```
/// use swath_kernels::epilogue::Epilogue;
/// use swath_kernels::exec::Inline;
/// use swath_kernels::gemm::{Gemm, Matrix, Operands, Right};
/// use swath_kernels::isa::Level;
/// use swath_kernels::machine::Core;
/// let gemm = Gemm::new(Core::here(Level::Scalar), [1, 2, 3]);
/// let (a, weights) = ([1.0, 2.0, 3.0], [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]); // weights [out, in], as in PyTorch
/// let operands = Operands {
///     alpha: 1.0,
///     a: Matrix::new(&a, 3),
///     b: Right::Matrix(Matrix::transposed(&weights, 3)),
///     beta: 0.0,
///     epilogue: Epilogue::bias(&[0.5, -0.5]),
/// };
/// let (mut c, mut scratch) = ([f32::NAN; 2], vec![0.0; gemm.scratch_len()]);
/// gemm.run(&operands, &mut c, 2, &mut scratch, &Inline);
/// assert_eq!(c, [4.5, 1.5]);
/// ```
#[derive(Clone, Debug)]
pub struct Gemm {
    core: Core,
    m: usize,
    n: usize,
    k: usize,
    rows: Tiles,
    panels: Tiles,
    blocking: Blocking,
}

impl Gemm {
    /// Plans `[m, n, k]` with the default blocking.
    pub fn new(core: Core, extents: [usize; 3]) -> Self {
        Self::with_blocking(core, extents, None)
    }

    /// Plans with the given blocking, clamped to what the extents allow.
    pub fn with_blocking(core: Core, [m, n, k]: [usize; 3], blocking: Option<Blocking>) -> Self {
        let rows = Tiles::new(core, Access::Strided, m, blocks(n));
        let panels = Tiles::new(core, Access::Packed, m, blocks(n));
        let b = blocking.unwrap_or_else(|| {
            let kc = pieces(k, KC).next().map_or(1, |(_, n)| n);
            let mc = (A_FLOATS / row_len(kc)).max(panels.mr);
            let nc = B_FLOATS / kc / BLOCK * BLOCK;
            // Equal pieces, of whole tiles.
            let mc = pieces(m, mc).next().map_or(1, |(_, n)| n).next_multiple_of(panels.mr).min(mc);
            Blocking { mc, kc, nc }
        });
        let nc = b.nc.clamp(1, n.max(1)).checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX / BLOCK * BLOCK);
        let blocking = Blocking { mc: b.mc.clamp(1, m.max(1)), kc: b.kc.clamp(1, k.max(1)), nc };
        Self { core, m, n, k, rows, panels, blocking }
    }

    /// The blocking in use.
    pub fn blocking(&self) -> Blocking {
        self.blocking
    }

    /// The instruction-set level whose tiles run.
    pub fn level(&self) -> Level {
        self.core.level
    }

    /// Name of the tile that does most of the work, for an untransposed A: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        self.rows.name(self.m)
    }

    /// Floats of scratch for one thread, whatever the operands; with the default blocking at most 2 MiB.
    pub fn scratch_len(&self) -> usize {
        self.scratch_len_packed().saturating_add(self.blocking.kc.saturating_mul(self.blocking.nc))
    }

    /// Floats of scratch for one thread where B came packed.
    pub fn scratch_len_packed(&self) -> usize {
        self.blocking.mc.saturating_mul(row_len(self.blocking.kc)).saturating_add(ALIGN)
    }

    /// Multiplies, on the executor's threads. `scratch` holds [`Gemm::scratch_len`] floats (or
    /// [`Gemm::scratch_len_packed`]) for each thread that is to take part, at least for one.
    ///
    /// # Panics
    /// If a slice is shorter than the extents and leading dimensions say, packed weights or the bias have
    /// another length than they say, or scratch is too short for one thread.
    pub fn run(&self, o: &Operands<'_>, c: &mut [f32], ldc: usize, scratch: &mut [f32], executor: &dyn Executor) {
        let (m, n, k) = (self.m, self.n, self.k);
        o.a.check("A", m, k);
        let scratch_len = match &o.b {
            Right::Matrix(b) => {
                b.check("B", k, n);
                self.scratch_len()
            }
            Right::Packed(b) => {
                assert_eq!(b.len(), packed_len(k, n), "length of packed B, {k} x {n}");
                self.scratch_len_packed()
            }
        };
        check_extent("C", c.len(), ldc, m, n);
        assert!(o.epilogue.bias.is_none_or(|b| b.len() == n), "bias length");
        if let Some(r) = o.epilogue.residual {
            check_extent("residual", r.len(), ldc, m, n);
        }
        assert!(self.core.level.is_available());
        if m == 0 || n == 0 {
            return;
        }
        let k = if o.alpha == 0.0 { 0 } else { k };
        let run = Run { g: self, o, k, c: Shared::new(c), ldc };
        let tiles = if o.a.transposed { &self.panels } else { &self.rows };
        let grid = Grid::new(self, tiles, matches!(o.b, Right::Packed(_)), executor.threads());
        for_each_part_with(executor, grid.rows * grid.cols, scratch, scratch_len, |i, scratch| {
            let (rows, cols) = grid.part(self, tiles, i);
            run.part(rows, cols, aligned(scratch));
        });
    }
}

/// From row to row of a block of A that is copied row by row: whole cache lines, and one more, so that rows do not fall
/// into the same sets of the L1 cache where `kc` is a power of two.
const fn row_len(kc: usize) -> usize {
    match kc.checked_next_multiple_of(BLOCK) {
        Some(len) => len.saturating_add(BLOCK),
        None => usize::MAX,
    }
}

/// The slice from its first cache line on.
fn aligned(scratch: &mut [f32]) -> &mut [f32] {
    let skip = scratch.as_ptr().align_offset(64).min(ALIGN);
    &mut scratch[skip..]
}

/// How C is cut for threads.
#[derive(Clone, Copy, Debug)]
struct Grid {
    rows: usize,
    cols: usize,
}

impl Grid {
    /// A few parts per thread, each worth its start, cut so that threads pack as little twice as possible.
    fn new(g: &Gemm, tiles: &Tiles, packed: bool, threads: usize) -> Self {
        let macs = (g.m as u64).saturating_mul(g.n as u64).saturating_mul(g.k as u64);
        let wanted = parts_wanted(threads).min((macs / 200_000) as usize).max(1);
        if threads == 1 || wanted == 1 {
            return Self { rows: 1, cols: 1 };
        }
        let (most_rows, most_cols) = (g.m.div_ceil(tiles.mr), blocks(g.n).div_ceil(tiles.width));
        // A is packed once per cut of the columns, B once per cut of the rows; packed B is still read from L3 or memory.
        let product = |factors: [usize; 3]| factors.into_iter().fold(1, usize::saturating_mul);
        let cost =
            |(rows, cols)| product([4, cols, g.m]).saturating_add(product([rows, g.n, if packed { 1 } else { 4 }]));
        let (rows, cols) = (1..=wanted.min(most_cols))
            .map(|cols| (wanted.div_ceil(cols).min(most_rows), cols))
            .min_by_key(|&(rows, cols)| (wanted.saturating_sub(rows * cols), cost((rows, cols))))
            .unwrap_or((1, 1));
        Self { rows, cols }
    }

    /// Rows and columns of part `i`: whole tiles.
    fn part(&self, g: &Gemm, tiles: &Tiles, i: usize) -> (Range<usize>, Range<usize>) {
        let cut = |total: usize, unit: usize, pieces: usize, i: usize| {
            let units = cut(total.div_ceil(unit), pieces, i);
            (units.start * unit).min(total)..(units.end * unit).min(total)
        };
        let (row, col) = (i / self.cols, i % self.cols);
        (cut(g.m, tiles.mr, self.rows, row), cut(g.n, BLOCK * tiles.width, self.cols, col))
    }
}

/// One run: the plan and its operands.
struct Run<'a> {
    g: &'a Gemm,
    o: &'a Operands<'a>,
    /// Zero if `alpha` is.
    k: usize,
    c: Shared<'a>,
    ldc: usize,
}

impl Run<'_> {
    fn part(&self, rows: Range<usize>, cols: Range<usize>, scratch: &mut [f32]) {
        if rows.is_empty() || cols.is_empty() {
            return;
        }
        let Blocking { mc, kc, nc } = self.g.blocking;
        if self.o.beta != 0.0 && self.o.beta != 1.0 {
            self.scale(&rows, &cols);
        }
        let (a_scratch, b_scratch) = scratch.split_at_mut(mc * row_len(kc));
        // One tile of rows: a row-major B is read once, as it lies (twice the speed of packing; from 16 rows on packing
        // wins again). Only its last columns are packed, where they do not fill a block.
        let tiles = if self.o.a.transposed { &self.g.panels } else { &self.g.rows };
        let direct = match &self.o.b {
            Right::Matrix(b) if !b.transposed && rows.len() <= tiles.mr => cols.len() / BLOCK * BLOCK,
            _ => 0,
        };
        let (nc, mut n0) = (if matches!(self.o.b, Right::Packed(_)) { cols.len() } else { nc }, cols.start);
        while n0 < cols.end {
            let (n1, direct) = match direct {
                0 => ((n0 + nc).min(cols.end), false),
                _ if n0 == cols.start => (n0 + direct, true),
                _ => (cols.end, false),
            };
            let ns = n0..n1;
            n0 = n1;
            // One chunk without terms where the sum has none: it stores what the epilogue makes of C.
            for k0 in (0..self.k.max(1)).step_by(kc) {
                let ks = k0..(k0 + kc).min(self.k);
                let weights = match &self.o.b {
                    _ if ks.is_empty() => Weights { start: b_scratch.as_ptr(), block: 0, step: BLOCK },
                    Right::Packed(b) => {
                        let start = b[ns.start * self.g.k + ks.start * BLOCK..].as_ptr();
                        Weights { start, block: self.g.k * BLOCK, step: BLOCK }
                    }
                    Right::Matrix(b) if direct => {
                        let start = b.data[ks.start * b.ld + ns.start..].as_ptr();
                        Weights { start, block: BLOCK, step: b.ld }
                    }
                    Right::Matrix(b) => {
                        pack::pack_b_block(b, ks.clone(), ns.clone(), b_scratch);
                        Weights { start: b_scratch.as_ptr(), block: ks.len() * BLOCK, step: BLOCK }
                    }
                };
                for i0 in rows.clone().step_by(mc) {
                    let is = i0..(i0 + mc).min(rows.end);
                    self.block(is, &ns, &ks, weights, a_scratch);
                }
            }
        }
    }

    /// One block of A times one block of B.
    fn block(&self, is: Range<usize>, ns: &Range<usize>, ks: &Range<usize>, weights: Weights, scratch: &mut [f32]) {
        let (a, alpha) = (&self.o.a, self.o.alpha);
        let tiles = if a.transposed { &self.g.panels } else { &self.g.rows };
        let ld = row_len(ks.len());
        // A tile reads every element of A once per `width` blocks of columns, and B's block once per `mr` rows.
        let once = ns.len() <= tiles.width * BLOCK || is.len() <= tiles.mr;
        let left = if ks.is_empty() {
            Left::whole(scratch.as_ptr(), Some(0), 0)
        } else if a.transposed {
            pack::pack_a_panels(a, alpha, is.clone(), ks.clone(), tiles.mr, scratch);
            Left::whole(scratch.as_ptr(), None, ks.len())
        } else if alpha == 1.0 && once {
            Left::whole(a.data[is.start * a.ld + ks.start..].as_ptr(), Some(a.ld), ks.len())
        } else {
            pack::pack_a_rows(a, alpha, is.clone(), ks.clone(), ld, scratch);
            Left::whole(scratch.as_ptr(), Some(ld), ks.len())
        };
        let c_at = is.start * self.ldc + ns.start;
        let finish = (ks.end == self.k).then(|| Finish::new(&self.o.epilogue, self.g.core.level).at(ns.start, c_at));
        let block = Block {
            tiles,
            left,
            rows: is.len(),
            depth: ks.len(),
            weights,
            blocks: blocks(ns.len()),
            y: self.c.at(c_at),
            y_px: self.ldc,
            y_block: BLOCK,
            y_channel: 1,
            cols: ns.len(),
            pad_cols: false,
            accumulate: ks.start > 0 || self.o.beta != 0.0,
            finish,
        };
        // SAFETY:
        // * A's rows are those of the operand (extents asserted in `run`) or were packed just now with this depth;
        // * B's blocks likewise: `blocks(ns.len())` blocks from column `ns.start`, which is a multiple of 16, on, packed
        //   or, where they are whole blocks only, as they lie;
        // * C and residual hold the rows and columns (asserted), the bias has `n` floats; parts of a run have disjoint
        //   rows or columns, so no two threads write the same output;
        // * the level is available (asserted).
        unsafe { block.multiply() };
    }

    /// `C = beta * C` for a rectangle.
    fn scale(&self, rows: &Range<usize>, cols: &Range<usize>) {
        for i in rows.clone() {
            // SAFETY: the columns of the row lie in C (asserted in `run`), and this part alone uses them.
            let row = unsafe { core::slice::from_raw_parts_mut(self.c.at(i * self.ldc + cols.start), cols.len()) };
            row.iter_mut().for_each(|v| *v *= self.o.beta);
        }
    }
}
