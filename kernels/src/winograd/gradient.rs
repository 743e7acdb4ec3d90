//! Weight gradients of 3x3 kernels of stride 1 with 4 times fewer multiplications: F(3x3, 4x4), the transpose of F(4x4,
//! 3x3).
//!
//! ```text
//! y  = A^T [(G g) * (B^T d)]                forward, along one axis
//! dg = G^T [(A dy) * (B^T d)]               its derivative by g, with the same matrices
//!
//! for each slice of the tiles of all images, chunk of the slice:
//!   for each tile and block:      v[p * p][ic/16][tile][16] = B^T d B        u[p * p][oc/16][tile][16] = A dy A^T
//!   for each group of pairs:      m[p * p][16 oc][16 ic]    = sum over tiles  u (outer) v, point by point
//!                                 sums[slice][3 * 3][16 oc][16 ic] += G^T m G
//! then for each pair:             dw = sum over slices, in PyTorch's order
//! ```
//!
//! **Threads share out slices**, where there are few pairs: what a core transforms, it multiplies, and it stays in the core's own cache.
//! Where sums of several slices would be too many, there is one. Its tiles, and then its groups of pairs, threads share out, and so do many
//! threads with those of few slices, one after the other: then most of a chunk comes from another core's cache. What hangs over the border of the output counts as a gradient of zero.
//!
//! Order of each sum: tiles within a chunk, at each point; chunks in their order within a slice, and slices in theirs, all of which the
//! shape alone fixes. Error:
//! as forward, with tiles in place of input channels: within `(t + 24) * 2^-24 * amplification * max|x| * sum |dy|` for
//! `t` tiles, with the amplification of [`Variant::F4`]. A tile with an infinity or a NaN gives NaN in all nine taps.

use core::f64::consts::{FRAC_1_SQRT_2, SQRT_2};
use core::ops::Range;

use super::input::InputArgs;
use super::{TransformRow, Variant, check, transforms};
use crate::backward_weights::{PAIR_OF_NINE, Pairs, assert_run, biases};
use crate::epilogue::Outputs;
use crate::exec::{Executor, Shared, cut, for_each_part_with};
use crate::isa::{Entry, Isa, Kernel, Level};
use crate::layout::{BLOCK, Layout, Strides, View, blocks};
use crate::shape::ConvShape;
use crate::table::by_level;
use crate::tile::pieces;

/// Outputs of a tile along an axis, and its points.
const M: usize = 4;
const P: usize = 6;

/// Floats of a pair's products.
const PRODUCTS: usize = P * P * BLOCK * BLOCK;

/// Blocks of output and of input channels whose products one part makes, point by point: transformed blocks that several pairs
/// take come once from the shared cache. Where threads outnumber the parts, or tiles are few, smaller ones.
const GROUPS: [[usize; 2]; 3] = [[2, 2], [1, 2], [1, 1]];

/// Tiles of a chunk below which a part is one pair, and a call takes all its points: so few hardly pay for a call, and are found in
/// caches anyway.
const FEW: usize = 24;

/// Tiles whose products take as long as it takes to store and gather those of a chunk.
const GATHER: usize = 12;

/// Most slices; and both transformed tensors have at least so many times as many floats as the sums of all slices, so that these cost little.
const SLICES: usize = 16;
const PER_SUM: usize = 3;

/// Floats of both transformed tensors that a slice's chunk aims at: 1 MiB, which stays in a core's own cache; the fewest tiles of one, and
/// the floats that they may have.
const OWN_CHUNK: usize = 1 << 18;
const OWN_TILES: usize = 48;
const OWN_MOST: usize = 1 << 19;

/// Floats of both that a chunk aims at which all cores share: 2 MiB, of which most stay in their own caches.
const CHUNK: usize = 1 << 19;

/// Tiles of such a chunk at least, for whose products what a chunk's sums cost is little; but for the next limit.
const TILES: usize = 128;

/// Floats of both that such a chunk may have: 12 MiB, which stay in the last cache.
const MOST: usize = 3 << 20;

/// `A dy`: what four gradients become.
#[inline(always)]
fn spread<I: Isa>(s: I, [y0, y1, y2, y3]: [I::V; M]) -> [I::V; P] {
    let c = |v: f64| s.splat(v as f32);
    let near = s.fma(c(0.5), y2, y0);
    let near_odd = s.fma(c(FRAC_1_SQRT_2 / 2.0), y3, s.mul(c(FRAC_1_SQRT_2), y1));
    let far = s.fma(c(2.0), y2, y0);
    let far_odd = s.fma(c(2.0 * SQRT_2), y3, s.mul(c(SQRT_2), y1));
    [y0, s.add(near, near_odd), s.sub(near, near_odd), s.add(far, far_odd), s.sub(far, far_odd), y3]
}

/// `G^T m`: the weights of six products.
#[inline(always)]
fn gather<I: Isa>(s: I, [m0, m1, m2, m3, m4, m5]: [I::V; P]) -> [I::V; 3] {
    let c = |v: f64| s.splat(v as f32);
    let (near, near_odd) = (s.add(m1, m2), s.sub(m1, m2));
    let (far, far_odd) = (s.add(m3, m4), s.sub(m3, m4));
    [
        s.fma(c(1.0 / 6.0), far, s.fma(c(-2.0 / 3.0), near, m0)),
        s.fma(c(SQRT_2 / 6.0), far_odd, s.mul(c(-2.0 / 3.0 * FRAC_1_SQRT_2), near_odd)),
        s.fma(c(1.0 / 3.0), s.sub(far, near), m5),
    ]
}

/// What the transform of a tile of the gradient works on. Steps in floats.
struct SpreadArgs {
    /// The tile's first pixel, in blocks.
    dy: *const f32,
    row: usize,
    /// From block to block, and how many.
    block: usize,
    blocks: usize,
    /// Rows and columns of the tile that lie inside.
    valid: [usize; 2],
    /// The tile at the first point and block.
    u: *mut f32,
    u_point: usize,
    u_block: usize,
}

/// `A dy A^T` of one tile, for all its blocks.
struct Spread;

impl<I: Isa> Kernel<I> for Spread {
    type Args = SpreadArgs;

    /// # Safety
    /// * `dy` is readable for the valid pixels of all blocks;
    /// * `u` is writable for all points of all blocks.
    #[inline(always)]
    unsafe fn run(s: I, a: &SpreadArgs) {
        for (b, part) in (0..a.blocks).flat_map(|b| (0..BLOCK).step_by(I::LANES).map(move |part| (b, part))) {
            let dy = a.dy.wrapping_add(b * a.block + part);
            let mut rows = [[s.zero(); M]; P];
            // Constant bounds, so that everything stays in registers.
            for x in 0..M {
                let mut column = [s.zero(); M];
                for y in 0..M {
                    if y < a.valid[0] && x < a.valid[1] {
                        // SAFETY: a valid pixel.
                        column[y] = unsafe { s.load(dy.add(y * a.row + x * BLOCK)) };
                    }
                }
                let column = spread(s, column);
                for (row, v) in rows.iter_mut().zip(column) {
                    row[x] = v;
                }
            }
            for (y, row) in rows.into_iter().enumerate() {
                for (x, v) in spread(s, row).into_iter().enumerate() {
                    // SAFETY: point (y, x) of the block.
                    unsafe { s.store(a.u.wrapping_add((y * P + x) * a.u_point + b * a.u_block + part), v) };
                }
            }
        }
    }
}

/// What the products of some output channels work on, at some points. Steps in floats.
struct OuterArgs {
    points: usize,
    /// Transformed gradients of the first tile, of the first channel of the rows, and from point to point.
    u: *const f32,
    u_point: usize,
    /// Transformed inputs of the first tile and block, from point to point, and from block to block.
    v: *const f32,
    v_point: usize,
    v_block: usize,
    tiles: usize,
    /// Products `[point][16][16]` of the first block, at the first row, and from block to block.
    m: *mut f32,
    m_block: usize,
}

/// Sums over tiles of the outer products of `MR` output channels and `WIDE` blocks of input channels, of `NV` vectors each.
struct Outer<const MR: usize, const WIDE: usize, const NV: usize>;

impl<I: Isa, const MR: usize, const WIDE: usize, const NV: usize> Kernel<I> for Outer<MR, WIDE, NV> {
    type Args = OuterArgs;

    /// # Safety
    /// * `u` is readable for `MR` channels of all tiles and points, `v` for all blocks;
    /// * `m` is writable for `MR` rows of each block at every point.
    #[inline(always)]
    unsafe fn run(s: I, a: &OuterArgs) {
        const { assert!((MR + 1) * WIDE * NV < I::REGISTERS && NV * I::LANES == BLOCK) };
        for point in 0..a.points {
            let (mut u, mut v) = (a.u.wrapping_add(point * a.u_point), a.v.wrapping_add(point * a.v_point));
            let mut acc = [[[s.zero(); NV]; WIDE]; MR];
            for _ in 0..a.tiles {
                let mut lanes = [[s.zero(); NV]; WIDE];
                for (b, block) in lanes.iter_mut().enumerate() {
                    let v = v.wrapping_add(b * a.v_block);
                    s.prefetch(v.wrapping_add(BLOCK * BLOCK));
                    for (n, lane) in block.iter_mut().enumerate() {
                        // SAFETY: the tile's block of inputs.
                        *lane = unsafe { s.load(v.add(n * I::LANES)) };
                    }
                }
                for i in 0..MR {
                    // SAFETY: channel `i` of the tile's gradients.
                    let row = unsafe { s.load_splat(u.add(i)) };
                    for b in 0..WIDE {
                        for n in 0..NV {
                            acc[i][b][n] = s.fma(lanes[b][n], row, acc[i][b][n]);
                        }
                    }
                }
                (u, v) = (u.wrapping_add(BLOCK), v.wrapping_add(BLOCK));
            }
            let m = a.m.wrapping_add(point * BLOCK * BLOCK);
            for i in 0..MR {
                for b in 0..WIDE {
                    for n in 0..NV {
                        // SAFETY: row `i` of the block's products at this point.
                        unsafe { s.store(m.add(b * a.m_block + i * BLOCK + n * I::LANES), acc[i][b][n]) };
                    }
                }
            }
        }
    }
}

/// What the transform of a pair's products works on.
struct GatherArgs {
    /// Products `[point][16][16]`.
    m: *const f32,
    /// Sums `[tap][16][16]`.
    sums: *mut f32,
    /// Whether to add to what is there.
    add: bool,
}

/// `G^T m G` of one pair.
struct Gather;

impl<I: Isa> Kernel<I> for Gather {
    type Args = GatherArgs;

    /// # Safety
    /// `m` is readable for all points, `sums` readable and writable for nine taps.
    #[inline(always)]
    unsafe fn run(s: I, a: &GatherArgs) {
        for at in (0..BLOCK * BLOCK).step_by(I::LANES) {
            let mut rows = [[s.zero(); P]; 3];
            for x in 0..P {
                let mut column = [s.zero(); P];
                for (y, v) in column.iter_mut().enumerate() {
                    // SAFETY: point (y, x).
                    *v = unsafe { s.load(a.m.add((y * P + x) * BLOCK * BLOCK + at)) };
                }
                let column = gather(s, column);
                for (row, v) in rows.iter_mut().zip(column) {
                    row[x] = v;
                }
            }
            for (y, row) in rows.into_iter().enumerate() {
                for (x, v) in gather(s, row).into_iter().enumerate() {
                    // SAFETY: tap (y, x).
                    unsafe {
                        let to = a.sums.add((y * 3 + x) * BLOCK * BLOCK + at);
                        s.store(to, if a.add { s.add(s.load(to), v) } else { v });
                    }
                }
            }
        }
    }
}

/// The kernels of one level: a row of [`gradients`].
#[derive(Clone, Copy, Debug)]
pub struct GradientRow {
    /// `winograd4_bwd_w_f32_avx512`: of products of any size.
    pub name: &'static str,
    /// Level.
    pub level: Level,
    spread: Entry<SpreadArgs>,
    gather: Entry<GatherArgs>,
    /// Products of so many output channels and blocks of input channels; fewer blocks first.
    outer: &'static [(usize, usize, Entry<OuterArgs>)],
}

mod edge {
    use crate::table::edges;

    edges!(pub(super) transform);
    edges!(pub(super) outer);
}

macro_rules! gradient_row {
    ($level:ident, $module:ident, $lanes:literal, $name:literal, [$($mr:literal x $wide:literal),*]) => {
        &[GradientRow {
            name: concat!("winograd4_bwd_w_f32_", $name),
            level: Level::$level,
            spread: edge::transform::$module::run::<Spread>,
            gather: edge::transform::$module::run::<Gather>,
            outer: &[$(($mr, $wide, edge::outer::$module::run::<Outer<$mr, $wide, { BLOCK / $lanes }>>)),*],
        }]
    };
}

by_level! {
    /// The kernels of Winograd's weight gradient at a level, one row; none for a level of another architecture.
    pub fn gradients() -> [GradientRow];

    Scalar: gradient_row!(Scalar, scalar, 4, "scalar", [2 x 1]),
    // Sixteen channels are six, five and five.
    Avx2: gradient_row!(Avx2, avx2, 8, "avx2", [5 x 1, 6 x 1]),
    Avx512: gradient_row!(Avx512, avx512, 16, "avx512", [16 x 1, 8 x 2]),
    Neon: gradient_row!(Neon, neon, 4, "neon", [4 x 1]),
}

/// Winograd's weight gradient, planned. Holds no tensor.
#[derive(Clone, Debug)]
pub struct WinogradWeights {
    shape: ConvShape,
    level: Level,
    xs: Strides,
    input: Layout,
    transform: &'static TransformRow,
    row: &'static GradientRow,
    /// Tiles of an image, down and across.
    tiles: [usize; 2],
    /// Chunks that all tiles are cut into, and slices of about equally many chunks.
    chunks: usize,
    slices: usize,
}

impl WinogradWeights {
    /// Plans, for `x` in layout `input` and `dy` in layout `gradient`, or says why the shape is not for this algorithm.
    ///
    /// # Errors
    /// A reason: other kernels than 3x3, strides, dilation, groups, gradients that are not blocked.
    pub fn new(shape: &ConvShape, level: Level, input: Layout, gradient: Layout) -> Result<Self, &'static str> {
        Self::with_chunk(shape, level, input, gradient, None)
    }

    /// Plans with chunks of so many tiles at most. Unlike forward, where chunks only share out outputs, they are part
    /// of each sum.
    ///
    /// # Errors
    /// As for [`WinogradWeights::new`].
    pub fn with_chunk(
        shape: &ConvShape,
        level: Level,
        input: Layout,
        gradient: Layout,
        chunk: Option<usize>,
    ) -> Result<Self, &'static str> {
        shape.assert_consistent();
        let s = *shape;
        check(&s)?;
        if gradient != Layout::Blocked {
            return Err("reads blocked gradients");
        }
        let no_kernels = "no kernels at this level";
        let transform = transforms(level).iter().find(|t| t.variant == Variant::F4).ok_or(no_kernels)?;
        let row = gradients(level).first().ok_or(no_kernels)?;
        let tiles = [s.oh.div_ceil(M), s.ow.div_ceil(M)];
        let (total, each) = (s.n * tiles[0] * tiles[1], P * P * BLOCK * (blocks(s.ic) + blocks(s.oc)));
        let sums = blocks(s.ic).saturating_mul(blocks(s.oc)).saturating_mul(PER_SUM * PAIR_OF_NINE);
        let few = each <= OWN_MOST / OWN_TILES;
        let most = if few { (total.saturating_mul(each) / sums).clamp(1, SLICES) } else { 1 };
        let of_size = || match most {
            1 => (CHUNK / each).max(TILES.min(MOST / each)).max(2 * BLOCK),
            _ => (OWN_CHUNK / each).min(total / SLICES).max(OWN_TILES),
        };
        let chunks = total.div_ceil(chunk.unwrap_or_else(of_size).max(1)).max(1);
        let slices = chunks.div_ceil(chunks.div_ceil(most));
        Ok(Self { shape: s, level, xs: input.strides(s.input()), input, transform, row, tiles, chunks, slices })
    }

    /// The same for an `x` that is a part of a larger tensor.
    ///
    /// # Errors
    /// As for [`WinogradWeights::new`].
    ///
    /// # Panics
    /// If a view has other extents than the shape's.
    pub fn of_views(shape: &ConvShape, level: Level, [x, dy]: [View; 2]) -> Result<Self, &'static str> {
        Ok(Self { xs: x.strides_of(shape.input()), ..Self::new(shape, level, x.layout(), dy.layout())? })
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The instruction-set level whose kernels run.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Name of the product kernel: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        self.row.name
    }

    /// Multiplications of the products, those of padded channels and tiles included.
    pub fn macs(&self) -> u64 {
        let factors = [P * P, self.pairs(), BLOCK * BLOCK];
        factors.iter().fold(self.total() as u64, |macs, &e| macs.saturating_mul(e as u64))
    }

    /// Time in that of as many multiplications, over that of [`WinogradWeights::macs`]: a chunk's products are stored and gathered.
    pub fn waste(&self) -> f64 {
        1.0 + GATHER as f64 / self.longest().max(1) as f64
    }

    /// Floats of all transformed inputs and gradients, of which those of a chunk, or one for each thread, exist at a time.
    pub fn transformed(&self) -> [usize; 2] {
        [self.shape.ic, self.shape.oc].map(|c| (self.total() * P * P).saturating_mul(blocks(c) * BLOCK))
    }

    /// Tiles of all images.
    fn total(&self) -> usize {
        self.shape.n * self.tiles[0] * self.tiles[1]
    }

    /// Tiles of the longest chunk.
    fn longest(&self) -> usize {
        self.total().div_ceil(self.chunks)
    }

    fn pairs(&self) -> usize {
        blocks(self.shape.ic) * blocks(self.shape.oc)
    }

    /// From point to point of a transformed tensor: a line more than needed, lest all points of a tile meet in a few
    /// cache sets.
    fn point(&self, channels: usize) -> usize {
        (blocks(channels) * self.longest() + 1) * BLOCK
    }

    /// The tiles of a chunk.
    fn chunk(&self, i: usize) -> Range<usize> {
        cut(self.total(), self.chunks, i)
    }

    /// Floats of the transformed input and of the transformed gradient of a chunk.
    fn transforms(&self) -> [usize; 2] {
        [self.shape.ic, self.shape.oc].map(|channels| P * P * self.point(channels))
    }

    /// Floats of sums of all slices that go on from chunk to chunk, or meet in the end.
    fn sums(&self) -> usize {
        if self.chunks > 1 { self.slices.saturating_mul(self.pairs() * PAIR_OF_NINE) } else { 0 }
    }

    /// Floats of a group's products and, where all tiles are one chunk, the sums of one of its rows.
    fn products(&self) -> usize {
        let [ocbs, icbs] = GROUPS[0];
        icbs * (ocbs * PRODUCTS + if self.chunks > 1 { 0 } else { PAIR_OF_NINE })
    }

    /// Floats of scratch for a run on so many threads: sums, and for all threads or each of them a chunk's transformed tensors; for each
    /// a group's products.
    pub fn scratch_len(&self, threads: usize) -> usize {
        let threads = threads.max(1);
        let [chunk, chunks] = [self.transforms().iter().sum(), threads.min(self.slices)];
        let products = threads.saturating_mul(self.products());
        self.sums().saturating_add(chunks.saturating_mul(chunk)).saturating_add(products)
    }

    /// Computes `dw` `[oc, ic, 3, 3]` and, if asked for, `db` `[oc]`, on the executor's threads. `scratch` holds
    /// [`WinogradWeights::scratch_len`] floats for as many threads as are to take part, at least for one.
    ///
    /// The weights' gradient may lie in memory that holds nothing yet; what it then is is returned.
    ///
    /// # Panics
    /// If a slice's length is not what the shape and the layouts say, or the scratch is too short.
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
        let blocked = Layout::Blocked;
        let of = (s, self.level, [(self.input, self.xs), (blocked, blocked.strides(s.output()))]);
        assert_run(of, [x, dy], &dw, db.as_deref(), [scratch.len(), self.scratch_len(1)]);
        if let Some(db) = db {
            biases(s, self.level, dy, db, executor);
        }
        if s.n == 0 {
            return dw.filled(0.0);
        }
        let (sums, scratch) = scratch.split_at_mut(self.sums());
        let run = Run { d: self, x, dy, dw: dw.shared(), sums: Shared::new(sums) };
        if self.slices > 1 && executor.threads() < 2 * self.slices {
            run.in_slices(scratch, executor);
        } else {
            run.together(scratch, executor);
        }
        if self.slices > 1 {
            run.add_slices(executor);
        }
        // SAFETY: each weight is of a pair, and those who have complete sums store all pairs.
        unsafe { dw.written() }
    }
}

/// Groups of blocks of output and of input channels, that all are cut into.
#[derive(Clone, Copy)]
struct Groups {
    group: [usize; 2],
    blocks: [usize; 2],
}

impl Groups {
    fn len(&self) -> usize {
        self.blocks[0].div_ceil(self.group[0]) * self.blocks[1].div_ceil(self.group[1])
    }

    /// The blocks of output and of input channels of group `i`.
    fn at(&self, i: usize) -> [Range<usize>; 2] {
        let across = self.blocks[1].div_ceil(self.group[1]);
        let range = |axis: usize, i: usize| i * self.group[axis]..((i + 1) * self.group[axis]).min(self.blocks[axis]);
        [range(0, i / across), range(1, i % across)]
    }
}

/// One run: the plan, its tensors, and the sums.
struct Run<'a> {
    d: &'a WinogradWeights,
    x: &'a [f32],
    dy: &'a [f32],
    dw: Shared<'a>,
    sums: Shared<'a>,
}

/// A chunk's transformed tensors.
struct Chunk<'a> {
    v: Shared<'a>,
    u: Shared<'a>,
}

impl<'a> Chunk<'a> {
    /// In scratch memory, of which the rest is given back.
    fn new(d: &WinogradWeights, scratch: &'a mut [f32]) -> (Self, &'a mut [f32]) {
        let [v, u] = d.transforms();
        let (v, scratch) = scratch.split_at_mut(v);
        let (u, scratch) = scratch.split_at_mut(u);
        (Self { v: Shared::new(v), u: Shared::new(u) }, scratch)
    }
}

impl Run<'_> {
    /// The groups of so many pairs.
    fn groups(&self, group: [usize; 2]) -> Groups {
        Groups { group, blocks: [self.d.shape.oc, self.d.shape.ic].map(blocks) }
    }

    /// Slice after slice: threads share out a chunk's tiles, and then its groups of pairs.
    fn together(&self, scratch: &mut [f32], executor: &dyn Executor) {
        let d = self.d;
        let (to, own) = Chunk::new(d, scratch);
        let many = d.longest() >= FEW;
        let enough = |group: &[usize; 2]| many && self.groups(*group).len() >= 2 * executor.threads();
        let groups = self.groups(GROUPS.into_iter().find(enough).unwrap_or(GROUPS[GROUPS.len() - 1]));
        for (slice, chunks) in (0..d.slices).map(|slice| (slice, cut(d.chunks, d.slices, slice))) {
            for chunk in chunks.clone() {
                let tiles = d.chunk(chunk);
                for_each_part_with(executor, tiles.len(), &mut [], 0, |i, _| self.transform(tiles.start + i, i, &to));
                for_each_part_with(executor, groups.len(), own, d.products(), |i, own| {
                    let group = groups.at(i);
                    self.products(&group, &to, tiles.len(), own);
                    let complete = d.slices == 1 && chunk + 1 == chunks.end;
                    self.gather(&group, (slice, chunk > chunks.start), own, complete);
                });
            }
        }
    }

    /// Threads share out slices.
    fn in_slices(&self, scratch: &mut [f32], executor: &dyn Executor) {
        let d = self.d;
        let own = d.transforms().iter().sum::<usize>() + d.products();
        let groups = self.groups(GROUPS[if d.longest() >= FEW { 0 } else { GROUPS.len() - 1 }]);
        for_each_part_with(executor, d.slices, scratch, own, |slice, own| {
            let (to, own) = Chunk::new(d, own);
            let chunks = cut(d.chunks, d.slices, slice);
            for chunk in chunks.clone() {
                let tiles = d.chunk(chunk);
                tiles.clone().for_each(|tile| self.transform(tile, tile - tiles.start, &to));
                for group in (0..groups.len()).map(|i| groups.at(i)) {
                    self.products(&group, &to, tiles.len(), own);
                    self.gather(&group, (slice, chunk > chunks.start), own, false);
                }
            }
        });
    }

    /// Adds the sums of all slices, and stores them.
    fn add_slices(&self, executor: &dyn Executor) {
        let d = self.d;
        let rows = self.groups(GROUPS[1]);
        for_each_part_with(executor, rows.len(), &mut [], 0, |i, _| {
            let [ocbs, icbs] = rows.at(i);
            for ocb in ocbs {
                // SAFETY: all slices are summed, and these pairs belong to this part alone.
                let sums = unsafe { self.pairs(0, ocb, &icbs) };
                for slice in 1..d.slices {
                    // SAFETY: as above.
                    let more = unsafe { self.pairs(slice, ocb, &icbs) };
                    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += *more);
                }
                self.store(ocb, &icbs, sums);
            }
        });
    }

    /// The sums of a slice's pairs, in scratch.
    ///
    /// # Safety
    /// Nobody else has them meanwhile.
    #[allow(clippy::mut_from_ref)] // of memory that `Shared` hands out
    unsafe fn pairs(&self, slice: usize, ocb: usize, icbs: &Range<usize>) -> &mut [f32] {
        let [of, across] = [self.d.shape.oc, self.d.shape.ic].map(blocks);
        let at = ((slice * of + ocb) * across + icbs.start) * PAIR_OF_NINE;
        assert!(at + icbs.len() * PAIR_OF_NINE <= self.sums.len(), "the sums of all pairs");
        // SAFETY: they lie in the scratch (asserted), and the caller alone has them.
        unsafe { core::slice::from_raw_parts_mut(self.sums.at(at), icbs.len() * PAIR_OF_NINE) }
    }

    /// Stores the sums of pairs to the weights.
    fn store(&self, ocb: usize, icbs: &Range<usize>, sums: &[f32]) {
        let (shape, level) = (&self.d.shape, self.d.level);
        let pairs = Pairs { shape, dw: self.dw, ocb, icbs: icbs.clone(), sums, len: PAIR_OF_NINE };
        // SAFETY: one part stores the weights of these pairs.
        unsafe { pairs.store(level) };
    }

    /// Transforms the input and the gradient of a tile, which becomes tile `at` of the chunk.
    fn transform(&self, tile: usize, at: usize, to: &Chunk<'_>) {
        let d = self.d;
        let s = &d.shape;
        let [down, across] = d.tiles;
        let (n, ty, tx) = (tile / (down * across), tile / across % down, tile % across);
        let input = InputArgs {
            x: self.x.as_ptr().wrapping_add(n * d.xs.n),
            strides: d.xs,
            ic: s.ic,
            extent: [s.ih, s.iw],
            first: [(ty * M) as isize - s.pad.top as isize, (tx * M) as isize - s.pad.left as isize],
            next: core::ptr::null(),
            v: to.v.at(at * BLOCK),
            v_point: d.point(s.ic),
            v_block: d.longest() * BLOCK,
        };
        let ds = Layout::Blocked.strides(s.output());
        let gradient = SpreadArgs {
            dy: self.dy.as_ptr().wrapping_add(n * ds.n + ty * M * ds.row + tx * M * ds.px),
            row: ds.row,
            block: ds.block,
            blocks: blocks(s.oc),
            valid: [(s.oh - ty * M).min(M), (s.ow - tx * M).min(M)],
            u: to.u.at(at * BLOCK),
            u_point: d.point(s.oc),
            u_block: d.longest() * BLOCK,
        };
        // SAFETY: the level is available, and tensors reach as far as their strides say (asserted in `run`); tile `at`
        // lies in each point and block of `v` and `u`, and belongs to this part alone.
        unsafe {
            (d.transform.input)(&input);
            (d.row.spread)(&gradient);
        }
    }

    /// The products of a group of pairs over a chunk of tiles: `[pair][point][16 oc][16 ic]`.
    fn products(&self, [ocbs, icbs]: &[Range<usize>; 2], of: &Chunk<'_>, tiles: usize, m: &mut [f32]) {
        let (d, s) = (self.d, &self.d.shape);
        let block = d.longest() * BLOCK;
        assert!(m.len() >= ocbs.len() * icbs.len() * PRODUCTS, "the products of a group");
        // Kernels of as many blocks of input at once as there are.
        let widest = |left: usize| d.row.outer.iter().rev().find(|&&(_, wide, _)| wide <= left).map_or(1, |k| k.1);
        let points = if d.longest() < FEW { P * P } else { 1 };
        for point in (0..P * P).step_by(points) {
            let mut icb = icbs.start;
            while icb < icbs.end {
                let wide = widest(icbs.end - icb);
                let kernels = || d.row.outer.iter().filter(move |&&(_, w, _)| w == wide);
                let most = kernels().map(|&(mr, ..)| mr).max().unwrap_or(1);
                for (ocb, (o, mr)) in ocbs.clone().flat_map(|ocb| pieces(BLOCK, most).map(move |piece| (ocb, piece))) {
                    let pair = (ocb - ocbs.start) * icbs.len() + icb - icbs.start;
                    let args = OuterArgs {
                        points,
                        u: of.u.at(point * d.point(s.oc) + ocb * block + o),
                        u_point: d.point(s.oc),
                        v: of.v.at(point * d.point(s.ic) + icb * block),
                        v_point: d.point(s.ic),
                        v_block: block,
                        tiles,
                        m: m.as_mut_ptr().wrapping_add(pair * PRODUCTS + (point * BLOCK + o) * BLOCK),
                        m_block: PRODUCTS,
                    };
                    let outer = kernels().find(|&&(rows, ..)| rows == mr).expect("pieces of a block have kernels").2;
                    // SAFETY: the level is available; the chunk's tiles of these blocks were transformed before; `m` holds a block of rows of each pair at every point (asserted).
                    unsafe { outer(&args) };
                }
                icb += wide;
            }
        }
    }

    /// What a group's products add to the sums of a slice, or put in their place; if those are complete, the weights.
    fn gather(&self, [ocbs, icbs]: &[Range<usize>; 2], (slice, add): (usize, bool), own: &mut [f32], complete: bool) {
        let d = self.d;
        let (m, own) = own.split_at_mut(GROUPS[0].iter().product::<usize>() * PRODUCTS);
        for (ocb, m) in ocbs.clone().zip(m.chunks_exact(icbs.len() * PRODUCTS)) {
            let sums = if d.chunks > 1 {
                // SAFETY: the pairs' sums of this slice belong to this part alone.
                unsafe { self.pairs(slice, ocb, icbs) }
            } else {
                &mut own[..icbs.len() * PAIR_OF_NINE]
            };
            for (m, sums) in m.chunks_exact(PRODUCTS).zip(sums.chunks_exact_mut(PAIR_OF_NINE)) {
                let args = GatherArgs { m: m.as_ptr(), sums: sums.as_mut_ptr(), add };
                // SAFETY: the level is available; products and sums have those lengths.
                unsafe { (d.row.gather)(&args) };
            }
            if complete {
                self.store(ocb, icbs, sums);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::transform::{F4, Transform};
    use super::*;
    use crate::isa::Scalar;

    fn first(v: <Scalar as Isa>::V) -> f32 {
        let mut lanes = [0.0f32; 16];
        // SAFETY: 16 floats hold a vector of any level.
        unsafe { Scalar.store(lanes.as_mut_ptr(), v) };
        lanes[0]
    }

    #[test]
    fn transforms_are_transposes_of_the_forward_ones() {
        let unit = |i: usize, j: usize| Scalar.splat(if i == j { 1.0 } else { 0.0 });
        for j in 0..M {
            let column = spread(Scalar, core::array::from_fn(|i| unit(i, j)));
            for (p, v) in column.into_iter().enumerate() {
                let row = <F4 as Transform<M, P>>::output(Scalar, core::array::from_fn(|i| unit(i, p)));
                assert!((first(v) - first(row[j])).abs() < 1e-6, "point {p}, output {j}");
            }
        }
        for p in 0..P {
            let weights = gather(Scalar, core::array::from_fn(|i| unit(i, p)));
            for (k, v) in weights.into_iter().enumerate() {
                assert!((f64::from(first(v)) - F4::G[p][k]).abs() < 1e-6, "point {p}, weight {k}");
            }
        }
    }
}
