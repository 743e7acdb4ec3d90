//! Winograd convolution: 3x3 kernels of stride 1 with 2.25, 4 or 5.06 times fewer multiplications.
//!
//! ```text
//! Y = A^T [ sum over ic of (G g G^T) * (B^T d B) ] A          for each tile of m x m outputs, p = m + 2
//!
//! for each chunk of tiles, from all images:
//!   for each tile and input block:      v[p * p][ic/16][tile][16] = B^T d B
//!   for each piece of the output channels:
//!     for each of the p * p points:     m[oc/16][tile][16] = v[point] * u[point]     (product.rs)
//!     for each tile and output block:   y = activation(A^T m A + bias + residual)
//! ```
//!
//! **Fused.** A chunk of tiles is transformed, multiplied and transformed back while it is in L2. The transformed tensor of
//! a whole layer never exists; the weights `u` are transformed once, while packing, and stream through once per chunk.
//!
//! **Tiles are pooled** over images and positions, so that small images fill the products' tiles too. What hangs over the
//! border of the output is computed and dropped: at 14x14, F(4) does 16/12.25 of the multiplications that count, and still a
//! third of what direct convolution does. Covering the rest with smaller variants would need their weights as well, and products of
//! a few tiles each.
//!
//! **Threads** take chunks of tiles. Where there are too few tiles for that, they share one chunk: first its tiles, then the
//! pieces.
//!
//! Packed weights: `[oc/16][point][ic][16]`.
//!
//! # Error
//!
//! Every output is within `(ic + 24) * 2^-24 * amplification * max|x| * sum |w|` of the exact result before bias and residual, where the
//! maximum is over the tile's window, the sum over the weights of that output, and the amplification is
//! [`Variant::amplification`]: the product of what the absolute values of the three transforms do (Barabasz et al. 2020). Rounding
//! errors rarely conspire like that. For data without structure, the root mean square of the error relative to that of the result is
//! below [`Variant::typical`].
//!
//! An infinity or a NaN makes NaN of any outputs of its tile, also of those up to `m - 1` pixels from where the defining sum has it;
//! the others are what the defining sum is, and other tiles are not touched. So does a finite input or sum beyond
//! [`Variant::finite_range`]. Order of the sum: `ic`, in each point.
//!
//! Reference: A. Lavin, S. Gray, "Fast algorithms for convolutional neural networks", 2016;
//! [`crate::reference::conv2d`].

mod gradient;
mod input;
mod output;
mod product;
mod run;
mod transform;
mod weights;

pub use gradient::{GradientRow, WinogradWeights, gradients};
pub use input::InputArgs;
pub use output::OutputArgs;
use product::MAX_TILES;
use product::most_tiles;
pub use product::{ProductArgs, Row, rows};

use input::InputTile;
use output::OutputTile;
use run::{Piece, Run};
use transform::{F2, F4, F6};
pub use weights::WeightArgs;
use weights::WeightTile;

use crate::epilogue::{Epilogue, Lengths, Outputs};
use crate::exec::{Executor, Inline, for_each_chunk};
use crate::finite::FiniteRange;
use crate::isa::{Entry, Level};
use crate::layout::{BLOCK, Layout, Strides, View, blocks};
use crate::machine::Core;
use crate::shape::ConvShape;
use crate::table::{by_level, edges};
use crate::tile::{Finish, MAX_BLOCKS, Overhead, SyncFinish, best_width, pieces};
use crate::weights::Weights;

/// The size of the tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// F(2x2, 3x3): 2.25 times fewer multiplications.
    F2,
    /// F(4x4, 3x3): 4 times fewer.
    F4,
    /// F(6x6, 3x3): 5.06 times fewer.
    F6,
}

impl Variant {
    /// All variants.
    pub const ALL: [Variant; 3] = [Variant::F2, Variant::F4, Variant::F6];

    /// Outputs of a tile along an axis.
    pub const fn tile(self) -> usize {
        match self {
            Variant::F2 => 2,
            Variant::F4 => 4,
            Variant::F6 => 6,
        }
    }

    /// Inputs of a tile, and points, along an axis.
    const fn window(self) -> usize {
        self.tile() + 2
    }

    /// Tiles of an image, down and across.
    fn tiles(self, s: &ConvShape) -> [usize; 2] {
        [s.oh, s.ow].map(|outputs| outputs.div_ceil(self.tile()))
    }

    /// Products of a tile for each pair of channels.
    pub const fn points(self) -> usize {
        self.window() * self.window()
    }

    /// What the transforms make of rounding errors at most: see the error bound of the [module](self).
    pub const fn amplification(self) -> f64 {
        match self {
            Variant::F2 => 16.0,
            Variant::F4 => 157.2,
            Variant::F6 => 1565.0,
        }
    }

    /// The most that an output may be off, for `ic` input channels, inputs of at most `max_x` and weights of an output
    /// whose absolute values sum to `sum_w`.
    ///
    /// ```
    /// use swath_kernels::winograd::Variant;
    /// assert!(Variant::F2.bound(64, 1.0, 100.0) < 0.01);
    /// ```
    pub fn bound(self, ic: usize, max_x: f64, sum_w: f64) -> f64 {
        (ic + 24) as f64 * 2f64.powi(-24) * self.amplification() * max_x * sum_w
    }

    /// What inputs, weights and sums may be at most for outputs to be finite wherever the defining sum is: the transforms make inputs
    /// up to 4, 26.3 and 225 times as large, weights up to 2.25, 2.17 and 1.55 times, and what is added of their products up to
    /// [`Variant::amplification`] times.
    pub fn finite_range(self) -> FiniteRange {
        let (input, weight) = match self {
            Variant::F2 => (4.0, 2.25),
            Variant::F4 => (26.3, 2.17),
            Variant::F6 => (225.0, 1.55),
        };
        FiniteRange::with_growth(input, weight, self.amplification())
    }

    /// The most that errors are in their root mean square, relative to that of the results, for random data and 16 to 512
    /// input channels.
    pub const fn typical(self) -> f64 {
        match self {
            Variant::F2 => 1e-6,
            Variant::F4 => 3e-6,
            Variant::F6 => 1.2e-5,
        }
    }
}

/// The transforms of one variant at one level: a row of [`transforms`].
#[derive(Clone, Copy, Debug)]
pub struct TransformRow {
    /// `winograd4_f32_avx512`: outputs of a tile along an axis, level.
    pub name: &'static str,
    /// Level.
    pub level: Level,
    /// Variant.
    pub variant: Variant,
    /// The input transform of a tile; see [`InputTile`] for its contract.
    pub(crate) input: Entry<InputArgs>,
    /// The output transform of a tile; see [`OutputTile`] for its contract.
    pub(crate) output: Entry<OutputArgs>,
    /// The weight transform of a line; see [`WeightTile`] for its contract.
    pub(crate) weights: Entry<WeightArgs>,
}

edges!(edge);

macro_rules! transform_rows {
    ($level:ident, $entry:ident, $name:literal) => {
        &[
            transform_rows!(@row $level, $entry, $name, F2, 2, 4),
            transform_rows!(@row $level, $entry, $name, F4, 4, 6),
            transform_rows!(@row $level, $entry, $name, F6, 6, 8),
        ]
    };
    (@row $level:ident, $entry:ident, $name:literal, $variant:ident, $m:literal, $p:literal) => {
        TransformRow {
            name: concat!("winograd", $m, "_f32_", $name),
            level: Level::$level,
            variant: Variant::$variant,
            input: edge::$entry::run::<InputTile<$variant, $m, $p>>,
            output: edge::$entry::run::<OutputTile<$variant, $m, $p>>,
            weights: edge::$entry::run::<WeightTile<$variant, $m, $p>>,
        }
    };
}

by_level! {
    /// The transforms of a level, one row a variant; none for a level of another architecture.
    pub fn transforms() -> [TransformRow];

    Scalar: transform_rows!(Scalar, scalar, "scalar"),
    Avx2: transform_rows!(Avx2, avx2, "avx2"),
    Avx512: transform_rows!(Avx512, avx512, "avx512"),
    Neon: transform_rows!(Neon, neon, "neon"),
}

/// Tiles of a slice from which on one block of output channels keeps the multiply-adds busy.
const ONE_SLICE: usize = 12;

/// The most scratch of a thread, in floats (4 MiB), beyond which layers of very many channels are refused.
const MAX_SCRATCH: usize = 1 << 20;

/// A Winograd convolution, planned: geometry, variant, kernels, chunk. Holds no tensor.
///
/// ```
/// use swath_kernels::{epilogue::Epilogue, exec::Inline, isa::Level, layout::Layout, machine::Core, shape::ConvShape};
/// use swath_kernels::winograd::{Variant, Winograd};
/// let shape = ConvShape::builder([1, 1, 5, 5], [1, 1, 3, 3]).padding(1).build()?;
/// let conv = Winograd::new(&shape, Core::here(Level::Scalar), Variant::F4, Layout::Nchw, Layout::Nchw)?;
/// let (mut packed, mut scratch) = (vec![0.0; conv.packed_len()], vec![0.0; conv.scratch_len()]);
/// conv.pack(&[1.0; 9], &mut packed);
/// let mut y = [f32::NAN; 25];
/// conv.forward(&[1.0; 25], &packed, &Epilogue::none(), y.as_mut_slice().into(), &mut scratch, &Inline);
/// assert!((y[0] - 4.0).abs() < 1e-5 && (y[12] - 9.0).abs() < 1e-5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Winograd {
    shape: ConvShape,
    core: Core,
    variant: Variant,
    xs: Strides,
    ys: Strides,
    input: Layout,
    output: Layout,
    transform: &'static TransformRow,
    products: [[Option<&'static Row>; MAX_TILES + 1]; MAX_BLOCKS + 1],
    max_mr: [usize; MAX_BLOCKS + 1],
    /// Tiles of an image, down and across.
    tiles: [usize; 2],
    /// Tiles that go through together.
    chunk: usize,
}

/// Why the transforms do not do a shape, if they do not.
fn check(s: &ConvShape) -> Result<(), &'static str> {
    if (s.kh, s.kw) != (3, 3) {
        return Err("the kernel is not 3x3");
    }
    if (s.sh, s.sw) != (1, 1) {
        return Err("the stride is not 1");
    }
    if (s.dh, s.dw) != (1, 1) {
        return Err("the kernel is dilated");
    }
    if s.groups != 1 {
        return Err("there are groups");
    }
    Ok(())
}

/// Widest piece of the output channels, in blocks.
fn widest(s: &ConvShape) -> usize {
    blocks(s.oc).min(MAX_BLOCKS)
}

/// As many tiles as fit five eighths of L2 with their products, beside the weights of a point, in equal chunks; but
/// enough to load each weight from L3 only once in a while: 28 tiles need 64 / 28 bytes a cycle.
fn choose_chunk(core: Core, s: &ConvShape, variant: Variant) -> usize {
    let [down, across] = variant.tiles(s);
    let total = (s.n * down * across).max(1);
    let floats = variant.points() * BLOCK * (blocks(s.ic) + widest(s).min(2));
    let most = (core.l2_bytes / 8 * 5 / (4 * floats)).max(28).min(total);
    pieces(total, most).next().map_or(1, |(_, n)| n)
}

/// How wide products are for so many bytes of weights and so many tiles, in so many blocks of output channels, where
/// slices of a width have at most `max_mr[width]` tiles.
///
/// A single block where all tiles are one slice and the weights come from beyond L2: then each weight is read once, in
/// one stream as even as the hardware's prefetchers can follow, instead of at once for the first of several slices
/// (Granite Rapids: 256 channels at 14x14 334 -> 374 GFLOP/s, 512 at 7x7 192 -> 224).
fn choose_width(core: Core, max_mr: &[usize; MAX_BLOCKS + 1], weights: usize, tiles: usize, blocks: usize) -> usize {
    let one_slice = core.level == Level::Avx512 && (ONE_SLICE..=max_mr[1]).contains(&tiles);
    if one_slice && weights > core.l2_bytes {
        return 1;
    }
    best_width(core, max_mr, Overhead::NONE, tiles, blocks).0
}

impl Winograd {
    /// Plans, or says why the shape is not for this algorithm.
    ///
    /// # Errors
    /// A reason: other kernels than 3x3, strides, dilation, groups, more input channels than the scratch holds tiles of.
    pub fn new(
        shape: &ConvShape,
        core: Core,
        variant: Variant,
        input: Layout,
        output: Layout,
    ) -> Result<Self, &'static str> {
        Self::with_chunk(shape, core, variant, input, output, None)
    }

    /// Plans for tensors that are parts of larger ones.
    ///
    /// # Errors
    /// As for [`Winograd::new`].
    ///
    /// # Panics
    /// If a view has other extents than the shape's.
    pub fn of_views(shape: &ConvShape, core: Core, variant: Variant, [x, y]: [View; 2]) -> Result<Self, &'static str> {
        let [xs, ys] = [x.strides_of(shape.input()), y.strides_of(shape.output())];
        Ok(Self { xs, ys, ..Self::new(shape, core, variant, x.layout(), y.layout())? })
    }

    /// Plans with chunks of so many tiles, at least one; any number gives the same bits.
    ///
    /// # Errors
    /// As for [`Winograd::new`].
    pub fn with_chunk(
        shape: &ConvShape,
        core: Core,
        variant: Variant,
        input: Layout,
        output: Layout,
        chunk: Option<usize>,
    ) -> Result<Self, &'static str> {
        shape.assert_consistent();
        let s = *shape;
        check(&s)?;
        let transform =
            transforms(core.level).iter().find(|t| t.variant == variant).ok_or("no kernels at this level")?;
        let mut products = [[None; MAX_TILES + 1]; MAX_BLOCKS + 1];
        for row in rows(core.level) {
            products[row.blocks][row.mr] = Some(row);
        }
        let mut this = Self {
            shape: s,
            core,
            variant,
            xs: input.strides(s.input()),
            ys: output.strides(s.output()),
            input,
            output,
            transform,
            products,
            max_mr: most_tiles(core.level),
            tiles: variant.tiles(&s),
            chunk: 1,
        };
        if this.scratch_len() > MAX_SCRATCH {
            return Err("so many channels that not even one tile fits the scratch");
        }
        let most = this.total().clamp(1, MAX_SCRATCH);
        this.chunk = chunk.unwrap_or_else(|| choose_chunk(core, &s, variant)).clamp(1, most);
        while this.chunk > 1 && this.scratch_len() > MAX_SCRATCH {
            this.chunk /= 2;
        }
        Ok(this)
    }

    /// Tiles of all images.
    fn total(&self) -> usize {
        self.shape.n * self.tiles[0] * self.tiles[1]
    }

    /// Widest piece, in blocks.
    fn widest(&self) -> usize {
        widest(&self.shape)
    }

    /// How wide products are for so many tiles, in so many blocks of output channels.
    fn width(&self, tiles: usize, blocks: usize) -> usize {
        choose_width(self.core, &self.max_mr, 4 * self.packed_len(), tiles, blocks)
    }

    /// What the output channels are cut into for so many tiles.
    fn pieces(&self, tiles: usize) -> impl Iterator<Item = Piece> + '_ {
        pieces(blocks(self.shape.oc), MAX_BLOCKS).flat_map(move |(b0, nb)| {
            pieces(nb, self.width(tiles, nb)).map(move |(w0, blocks)| Piece { first: b0 + w0, blocks })
        })
    }

    /// From channel block to channel block of the transformed inputs and products of a chunk.
    fn block_step(&self) -> usize {
        self.chunk * BLOCK
    }

    /// From point to point of the transformed inputs: a line more than needed, lest all points of a tile meet in a few cache
    /// sets.
    fn v_point(&self) -> usize {
        (blocks(self.shape.ic) * self.chunk + 1) * BLOCK
    }

    /// From point to point of the products.
    fn m_point(&self) -> usize {
        (self.widest() * self.chunk + 1) * BLOCK
    }

    fn v_len(&self) -> usize {
        self.variant.points() * self.v_point()
    }

    fn m_len(&self) -> usize {
        self.variant.points() * self.m_point()
    }

    /// The instruction-set level whose kernels run.
    pub fn level(&self) -> Level {
        self.core.level
    }

    /// The size of the tiles.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// Tiles that go through together.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Name of the product kernel that does most of the work: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        let width = self.width(self.chunk, self.widest());
        let mr = pieces(self.chunk, self.max_mr[width]).next().map_or(1, |(_, n)| n);
        self.product(mr, width).name
    }

    fn product(&self, mr: usize, blocks: usize) -> &'static Row {
        self.products[blocks][mr].expect("sizes of products are contiguous up to the largest")
    }

    /// Multiplications of the products, those of padded channels and tiles included.
    pub fn macs(&self) -> u64 {
        let s = &self.shape;
        let factors = [self.variant.points(), s.ic, blocks(s.oc) * BLOCK];
        factors.iter().fold(self.total() as u64, |macs, &e| macs.saturating_mul(e as u64))
    }

    /// Floats of all transformed inputs and of all products, of which a chunk's exist at a time.
    pub fn transformed(&self) -> [usize; 2] {
        let points = self.total() * self.variant.points();
        [self.shape.ic, self.shape.oc].map(|c| points.saturating_mul(blocks(c) * BLOCK))
    }

    /// Floats of packed weights.
    pub fn packed_len(&self) -> usize {
        self.variant.points() * self.shape.ic * blocks(self.shape.oc) * BLOCK
    }

    /// Floats of scratch for each thread.
    pub fn scratch_len(&self) -> usize {
        self.v_len() + self.m_len()
    }

    /// Transforms and packs weights `[oc, ic, 3, 3]`. The transform is computed in f64 and rounded once.
    ///
    /// # Panics
    /// If a slice's length is not what the shape and [`Winograd::packed_len`] say.
    pub fn pack(&self, w: &[f32], packed: &mut [f32]) {
        self.pack_from(&Weights::forward(&self.shape, w), packed, &Inline);
    }

    /// The same from any order of the weights, on the executor's threads.
    ///
    /// # Panics
    /// If `packed` is not [`Winograd::packed_len`] long.
    pub fn pack_from(&self, w: &Weights<'_>, packed: &mut [f32], executor: &dyn Executor) {
        assert_eq!(packed.len(), self.packed_len());
        assert!(self.core.level.is_available());
        let (ic, oc) = (self.shape.ic, self.shape.oc);
        for_each_chunk(executor, packed, self.variant.points() * ic * BLOCK, |b, block| {
            let mut taps = [[0.0; BLOCK]; 9];
            let lanes = BLOCK.min(oc - b * BLOCK);
            for c in 0..ic {
                for (tap, to) in taps.iter_mut().enumerate() {
                    w.lanes(b * BLOCK, c, tap / 3, tap % 3, &mut to[..lanes]);
                }
                let args = WeightArgs { taps: &taps, u: block[c * BLOCK..].as_mut_ptr(), u_point: ic * BLOCK };
                // SAFETY: the level is available (asserted), and the block has a line of channel `c` at each point.
                unsafe { (self.transform.weights)(&args) };
            }
        });
    }

    /// Runs the convolution on the executor's threads, of which at most `scratch.len() / scratch_len()` take part.
    ///
    /// The outputs may lie in memory that holds nothing yet; what they then are is returned.
    ///
    /// # Panics
    /// If a slice's length is not what the shape, the layouts and [`Winograd::packed_len`] say, or the scratch is
    /// shorter than [`Winograd::scratch_len`]. Where outputs with gaps between them lie in memory that holds nothing.
    pub fn forward<'y>(
        &self,
        x: &[f32],
        packed: &[f32],
        epilogue: &Epilogue<'_>,
        mut y: Outputs<'y>,
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) -> &'y mut [f32] {
        let s = &self.shape;
        Lengths::new(s, self.packed_len(), [(self.input, self.xs), (self.output, self.ys)])
            .assert(x, packed, epilogue, &y);
        assert!(self.core.level.is_available());
        let finish = SyncFinish(Finish::new(epilogue, self.core.level));
        Run { d: self, x, u: packed, y: y.shared(), finish }.all(scratch, executor);
        // SAFETY: parts of a run write all outputs, channels that pad included; what holds nothing has no gaps (asserted).
        unsafe { y.written() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of known layers on known cores, on any machine: tiles that go through together by F(4x4), and the width of their
    /// products in blocks of output channels.
    #[test]
    fn chunks_and_widths_of_known_cores() {
        let chosen = |core: Core, [n, channels, size]: [usize; 3]| {
            let shape =
                ConvShape::builder([n, channels, size, size], [channels, channels, 3, 3]).padding(1).build().unwrap();
            let chunk = choose_chunk(core, &shape, Variant::F4);
            let weights = 4 * Variant::F4.points() * channels * channels;
            [chunk, choose_width(core, &most_tiles(core.level), weights, chunk, widest(&shape))]
        };
        let layers = [[1, 64, 56], [1, 128, 28], [1, 256, 14], [1, 512, 7], [1, 512, 28], [8, 256, 14], [1, 64, 224]];
        let zen4 = [[40, 2], [25, 2], [16, 1], [4, 4], [25, 2], [26, 2], [47, 2]];
        for (core, wanted) in [
            (Core::ZEN3, [[28, 1], [25, 1], [16, 1], [4, 1], [25, 1], [26, 1], [28, 1]]),
            (Core::ZEN4, zen4),
            (Core::ZEN5, zen4),
            (Core::GRANITE_RAPIDS, [[66, 2], [49, 2], [16, 1], [4, 4], [25, 2], [26, 2], [93, 2]]),
            (Core::NEOVERSE_V2, [[66, 1], [49, 1], [16, 1], [4, 1], [25, 1], [26, 1], [93, 1]]),
            (Core::APPLE_M1, [[98, 1], [49, 1], [16, 1], [4, 1], [25, 1], [43, 1], [137, 1]]),
        ] {
            assert_eq!(layers.map(|layer| chosen(core, layer)), wanted, "{core:?}");
        }
        // One slice is as wide as it gets while all weights stay in L2.
        let width =
            |l2_bytes| choose_width(Core { l2_bytes, ..Core::ZEN4 }, &most_tiles(Level::Avx512), 3 << 20, 14, 2);
        assert_eq!([2 << 20, 4 << 20].map(width), [1, 2]);
    }
}
