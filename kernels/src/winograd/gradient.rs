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
//! **Threads share out slices**, where there are few pairs: what a core transforms, it multiplies, and it stays in the
//! core's own cache. Where sums of several slices would be too many, there is one. Its tiles, and then its groups of
//! pairs, threads share out, and so do many threads with those of few slices, one after the other: then most of a chunk
//! comes from another core's cache. What hangs over the border of the output counts as a gradient of zero.
//!
//! Order of each sum: tiles within a chunk, at each point; chunks in their order within a slice, and slices in theirs,
//! all of which the shape alone fixes. Error: as forward, with tiles in place of input channels: within `(t + 24) *
//! 2^-24 * amplification * max|x| * sum |dy|` for `t` tiles, with the amplification of [`Variant::F4`]. A tile with an
//! infinity or a NaN gives NaN in all nine taps.

mod kernels;
mod run;

pub use kernels::{GradientRow, gradients};

use core::ops::Range;

use run::Run;

use super::{TransformRow, Variant, check, transforms};
use crate::backward_weights::{PAIR_OF_NINE, assert_run, biases};
use crate::epilogue::Outputs;
use crate::exec::{Executor, Shared, cut};
use crate::isa::Level;
use crate::layout::{BLOCK, Layout, Strides, View, blocks};
use crate::machine::Core;
use crate::shape::ConvShape;

/// Outputs of a tile along an axis, and its points.
const M: usize = 4;
const P: usize = 6;

/// Floats of a pair's products.
const PRODUCTS: usize = P * P * BLOCK * BLOCK;

/// Blocks of output and of input channels whose products one part makes, point by point: transformed blocks that
/// several pairs take come once from the shared cache. Where threads outnumber the parts, or tiles are few, smaller
/// ones.
const GROUPS: [[usize; 2]; 3] = [[2, 2], [1, 2], [1, 1]];

/// Tiles of a chunk below which a part is one pair, and a call takes all its points: so few hardly pay for a call, and
/// are found in caches anyway.
const FEW: usize = 24;

/// Tiles whose products take as long as it takes to store and gather those of a chunk.
const GATHER: usize = 12;

/// Most slices; and both transformed tensors have at least so many times as many floats as the sums of all slices, so
/// that these cost little.
const SLICES: usize = 16;
const PER_SUM: usize = 3;

/// Floats of both transformed tensors that a slice's chunk aims at: 1 MiB, which stays in a core's own cache; the
/// fewest tiles of one, and the floats that they may have.
const OWN_CHUNK: usize = 1 << 18;
const OWN_TILES: usize = 48;
const OWN_MOST: usize = 1 << 19;

/// Floats of both that a chunk aims at which all cores share: 2 MiB, of which most stay in their own caches.
const CHUNK: usize = 1 << 19;

/// Tiles of such a chunk at least, for whose products what a chunk's sums cost is little; but for the next limit.
const TILES: usize = 128;

/// Floats of both that such a chunk may have: 12 MiB, which stay in the last cache.
const MOST: usize = 3 << 20;

/// Winograd's weight gradient, planned. Holds no tensor.
#[derive(Clone, Debug)]
pub struct WinogradWeights {
    shape: ConvShape,
    core: Core,
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
    pub fn new(shape: &ConvShape, core: Core, input: Layout, gradient: Layout) -> Result<Self, &'static str> {
        Self::with_chunk(shape, core, input, gradient, None)
    }

    /// Plans with chunks of so many tiles at most. Unlike forward, where chunks only share out outputs, they are part
    /// of each sum.
    ///
    /// # Errors
    /// As for [`WinogradWeights::new`].
    pub fn with_chunk(
        shape: &ConvShape,
        core: Core,
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
        let transform = transforms(core.level).iter().find(|t| t.variant == Variant::F4).ok_or(no_kernels)?;
        let row = gradients(core.level).first().ok_or(no_kernels)?;
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
        Ok(Self { shape: s, core, xs: input.strides(s.input()), input, transform, row, tiles, chunks, slices })
    }

    /// The same for an `x` that is a part of a larger tensor.
    ///
    /// # Errors
    /// As for [`WinogradWeights::new`].
    ///
    /// # Panics
    /// If a view has other extents than the shape's.
    pub fn of_views(shape: &ConvShape, core: Core, [x, dy]: [View; 2]) -> Result<Self, &'static str> {
        Ok(Self { xs: x.strides_of(shape.input()), ..Self::new(shape, core, x.layout(), dy.layout())? })
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The instruction-set level whose kernels run.
    pub fn level(&self) -> Level {
        self.core.level
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

    /// Time in that of as many multiplications, over that of [`WinogradWeights::macs`]: a chunk's products are stored
    /// and gathered.
    pub fn waste(&self) -> f64 {
        1.0 + GATHER as f64 / self.longest().max(1) as f64
    }

    /// Floats of all transformed inputs and gradients, of which those of a chunk, or one for each thread, exist at a
    /// time.
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

    /// Floats of scratch for a run on so many threads: sums, and for all threads or each of them a chunk's transformed
    /// tensors; for each a group's products.
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
        let of = (s, self.core.level, [(self.input, self.xs), (blocked, blocked.strides(s.output()))]);
        assert_run(of, [x, dy], &dw, db.as_deref(), [scratch.len(), self.scratch_len(1)]);
        if let Some(db) = db {
            biases(s, self.core, dy, db, executor);
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
