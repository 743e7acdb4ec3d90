//! Convolution on matrix units: floats are cut into three bf16 parts, and six products of parts stand for one of floats.
//!
//! A matrix unit multiplies bf16 so fast that six such products take less time than one of f32: on Granite Rapids 513 GFLOP/s of f32's
//! work if operands are zeros and 390 if they are not, where its vector units reach 185. XLA calls the scheme `BF16_BF16_F32_X6`; it
//! is the one of Henry, Tang and Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations"
//! (2019). [`isa::matrix`](crate::isa::matrix) holds the unit and the parts.
//!
//! ```text
//! a chunk: some rows of one image's output, or some pixels where the kernel is 1x1; all or some output channels
//!   split its inputs into scratch: [row][32 channels][part][pixel][16 pairs], padding included
//!     (where the kernel is 1x1, a row is what goes through together: two tiles of pixels)
//!   for each 32 output channels:                    their weights stay in L2
//!     for each two tiles of up to 16 pixels:        multiply, for all taps and input channels, in tile registers
//!       bias, residual, activation, store
//! ```
//!
//! # Error
//!
//! Tile registers sum 16 products before they add them to what there was, so that fewer roundings meet a long sum: for data without
//! structure, errors relative to the result's root mean square are 1.4e-7 for 256 terms and 5.2e-7 for 4608, a third of those of a plain
//! sum in f32. [`bound`] states what no data exceeds.
//!
//! Exceptions to f32's rules: an input or a weight that is infinite, or beyond [`finite_range`], makes NaN of every output it takes part
//! in, and of no other one; parts below 2^-126 count as zero.

mod pack;
mod panel;
mod run;
mod split;

use crate::epilogue::{Epilogue, Lengths, Outputs};
use crate::exec::{Executor, Inline, Shared, for_each_part_with};
use crate::finite::FiniteRange;
use crate::isa::matrix::{DEPTH, LINE, MAX_TILES, MatrixUnit, PARTS, ROWS, TILE};
use crate::isa::{Entry, Level};
use crate::layout::{BLOCK, Layout, Strides, blocks};
use crate::machine::Core;
use crate::pass::Place;
use crate::shape::ConvShape;
use crate::table::{by_level, edges};
use crate::tile::{Finish, SyncFinish};
use crate::weights::Weights;

use pack::Pack;
use panel::{Panel, PanelArgs, Places};
use run::Run;
use split::{Split, SplitArgs};

/// The vector kernels around the matrix unit, at one level.
#[derive(Clone, Copy, Debug)]
struct Row {
    level: Level,
    split: Entry<SplitArgs>,
    panel: Entry<PanelArgs>,
}

edges!(edge);

macro_rules! row {
    ($level:ident $entry:ident) => {
        &[Row { level: Level::$level, split: edge::$entry::run::<Split>, panel: edge::$entry::run::<Panel> }]
    };
}

by_level! {
    unnamed fn rows() -> [Row];

    Scalar: row!(Scalar scalar),
    Avx2: row!(Avx2 avx2),
    Avx512: row!(Avx512 avx512),
    Neon: row!(Neon neon),
}

/// The most that an output may be off, for sums of so many terms, inputs of at most `max_x` and weights of an output whose absolute
/// values sum to `sum_w`; all finite, and below 1e38.
///
/// Each of the six products of a term is exact, and rounded when it is added; their absolute values sum to at most
/// (1 + 2^-7)^2 of the term's. What is left out is at most 2^-23 of it. Last, what is below 2^-126 counts as zero.
///
/// ```
/// assert!(swath_kernels::bf16x6::bound(64, 1.0, 64.0) < 0.002);
/// ```
pub fn bound(terms: usize, max_x: f64, sum_w: f64) -> f64 {
    let terms = terms as f64;
    let (round, smallest) = (2f64.powi(-24), f64::from(f32::MIN_POSITIVE));
    (6.1 * terms + 2.0) * round * max_x * sum_w + smallest * (4.0 * sum_w + terms * (4.0 * max_x + 8.0))
}

/// What inputs, weights and sums may be at most for outputs to be finite wherever the defining sum is: parts round up to the largest
/// bf16 number, 3.39e38, and the absolute values of a term's six products sum to at most (1 + 2^-7)^2 of it.
pub fn finite_range() -> FiniteRange {
    let largest = f32::from_bits(0x7f7f_0000);
    let growth = (1.0 + 2f64.powi(-7)).powi(2);
    FiniteRange { input: largest, weight: largest, ..FiniteRange::with_growth(1.0, 1.0, growth) }
}

/// The most scratch of a thread, in floats (2 MiB).
const MAX_SCRATCH: usize = 1 << 19;

/// Floats of sums: two tiles of pixels by two of output channels.
const SUMS: usize = 4 * TILE;

/// A convolution on a matrix unit, planned. Holds no tensor.
///
/// ```
/// use swath_kernels::{epilogue::Epilogue, exec::Inline, isa::Level, layout::Layout, shape::ConvShape};
/// use swath_kernels::{bf16x6::Bf16x6, isa::matrix::MatrixUnit, machine::Core};
/// let shape = ConvShape::builder([1, 16, 2, 2], [16, 16, 1, 1]).build()?;
/// let conv = Bf16x6::new(&shape, Core::here(Level::Scalar), MatrixUnit::Portable, Layout::Blocked, Layout::Blocked)?;
/// let (mut packed, mut scratch) = (vec![0.0; conv.packed_len()], vec![0.0; conv.scratch_len()]);
/// conv.pack(&[0.1; 256], &mut packed);
/// let mut y = [f32::NAN; 64];
/// conv.forward(&[1.0; 64], &packed, &Epilogue::none(), y.as_mut_slice().into(), &mut scratch, &Inline);
/// assert!(y.iter().all(|v| (v - 1.6).abs() < 1e-6));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Bf16x6 {
    shape: ConvShape,
    unit: MatrixUnit,
    row: &'static Row,
    xs: Strides,
    ys: Strides,
    input: Layout,
    output: Layout,
    /// The largest part of an image that is split at once, in [units](Bf16x6::units).
    most: usize,
}

/// The split inputs of a chunk.
#[derive(Clone, Copy, Debug)]
struct Image {
    rows: usize,
    /// Pixels of a row.
    width: usize,
    /// From input row to input row, and from column to column, of those that are kept.
    every: [usize; 2],
}

impl Image {
    /// From part to part.
    fn part(&self) -> usize {
        self.width * LINE
    }

    /// From 32 channels to the next.
    fn channels(&self) -> usize {
        PARTS * self.part()
    }
}

impl Bf16x6 {
    /// Plans, or says why the shape is not for this algorithm.
    ///
    /// # Errors
    /// A reason: a core without the unit, groups, channels of the input that are not adjacent, a row of outputs whose
    /// inputs exceed the scratch.
    pub fn new(
        shape: &ConvShape,
        core: Core,
        unit: MatrixUnit,
        input: Layout,
        output: Layout,
    ) -> Result<Self, &'static str> {
        Self::with_most(shape, core, unit, input, output, None)
    }

    /// Plans with chunks of at most so many rows of the output, or of pixels where the kernel is 1x1 without padding; at least one. Any
    /// number gives the same bits.
    ///
    /// # Errors
    /// As for [`Bf16x6::new`].
    pub fn with_most(
        shape: &ConvShape,
        core: Core,
        unit: MatrixUnit,
        input: Layout,
        output: Layout,
        most: Option<usize>,
    ) -> Result<Self, &'static str> {
        shape.assert_consistent();
        if unit != MatrixUnit::Portable && core.matrix_unit != Some(unit) {
            return Err("no matrix unit for bf16 (x86-64's AMX on Linux)");
        }
        if shape.groups != 1 {
            return Err("there are groups");
        }
        if input == Layout::Nchw {
            return Err("reads blocked or nhwc input, not nchw");
        }
        let row = rows(core.level).first().ok_or("no kernels at this level")?;
        let (xs, ys) = (input.strides(shape.input()), output.strides(shape.output()));
        let mut this = Self { shape: *shape, unit, row, xs, ys, input, output, most: 1 };
        if this.scratch_len() > MAX_SCRATCH {
            return Err("not even one row of outputs fits the scratch");
        }
        let budget = this.budget(core);
        let fits = |most: usize| this.image_len(most) <= budget;
        let (mut low, mut high) = (1, this.units().max(1));
        while low < high {
            let middle = (low + high).div_ceil(2);
            if fits(middle) { low = middle } else { high = middle - 1 }
        }
        this.most = most.map_or(low, |most| most.clamp(1, low));
        Ok(this)
    }

    /// Floats of split inputs that a chunk aims at: a quarter of L2, which then holds the weights and outputs of some
    /// blocks, too; half of it where each chunk reads the weights from beyond L2 once more (Granite Rapids: 1x1, 512->128 at
    /// 28x28 193 -> 230 GFLOP/s by the former, 3x3 of 512 at 14x14, stride 2, 116 -> 142 by the latter).
    fn budget(&self, core: Core) -> usize {
        let l2 = core.l2_bytes / size_of::<f32>();
        let share = if self.packed_len() > l2 / 2 { l2 / 2 } else { l2 / 4 };
        share.min(MAX_SCRATCH - SUMS)
    }

    /// Output pixels of a unit, which chunks are made of: of a row, or one where the pixels of an image are one long row.
    fn unit_pixels(&self) -> usize {
        if self.shape.is_pointwise() { 1 } else { self.shape.ow }
    }

    /// Units of an image.
    fn units(&self) -> usize {
        self.shape.oh * self.shape.ow / self.unit_pixels()
    }

    /// Runs of adjacent output pixels that so many units are, and the length of each.
    fn lines(&self, units: usize) -> (usize, usize) {
        if self.shape.is_pointwise() { (1, units) } else { (units, self.shape.ow) }
    }

    /// The split inputs of so many units.
    fn image(&self, units: usize) -> Image {
        let s = &self.shape;
        if s.is_pointwise() {
            let width = (MAX_TILES * tile_rows(units)).min(units);
            return Image { rows: units.div_ceil(width.max(1)), width, every: [s.sh, s.sw] };
        }
        // Of a single row or column of taps, only the inputs that it meets.
        let axis = |outputs: usize, stride: usize, taps: usize, dilation: usize| match taps {
            1 => (outputs, stride),
            _ => ((outputs - 1) * stride + (taps - 1) * dilation + 1, 1),
        };
        let ((rows, y), (width, x)) = (axis(units, s.sh, s.kh, s.dh), axis(s.ow, s.sw, s.kw, s.dw));
        Image { rows, width, every: [y, x] }
    }

    /// Room for the split inputs of so many units, in floats: no less for more of them.
    fn image_len(&self, units: usize) -> usize {
        let image = self.image(units);
        // Rows of two tiles are shorter for some numbers of pixels than for smaller ones.
        let pixels = if self.shape.is_pointwise() {
            units.next_multiple_of(MAX_TILES * ROWS)
        } else {
            image.rows.saturating_mul(image.width) // padding has no limit of its own
        };
        pixels.saturating_mul(self.depths() * PARTS * LINE)
    }

    /// How many times 32 input channels.
    fn depths(&self) -> usize {
        self.shape.ic.div_ceil(DEPTH)
    }

    /// The instruction-set level whose kernels split and store.
    pub fn level(&self) -> Level {
        self.row.level
    }

    /// Name of the kernel that multiplies: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        self.unit.kernel()
    }

    /// Multiply-adds of the products, those of padded channels, of padding and of what fills up tiles included.
    pub fn macs(&self) -> u64 {
        let s = &self.shape;
        let (lines, length) = self.lines(self.units());
        // A tile of few rows takes as long as one of about ten.
        let rows = lines * length.div_ceil(ROWS) * tile_rows(length).max(10);
        [rows, s.kh, s.kw, self.depths() * DEPTH, blocks(s.oc) * BLOCK]
            .iter()
            .fold(s.n as u64, |macs, &e| macs.saturating_mul(e as u64))
    }

    /// Floats of packed weights, three parts of each in one and a half.
    pub fn packed_len(&self) -> usize {
        let s = &self.shape;
        blocks(s.oc) * s.kh * s.kw * self.depths() * PARTS * TILE
    }

    /// Floats of scratch for each thread.
    pub fn scratch_len(&self) -> usize {
        self.image_len(self.most).saturating_add(SUMS)
    }

    /// Splits and packs weights `[oc, ic, kh, kw]`.
    ///
    /// # Panics
    /// If a slice's length is not what the shape and [`Bf16x6::packed_len`] say, or the machine lacks the level.
    pub fn pack(&self, w: &[f32], packed: &mut [f32]) {
        self.pack_from(&Weights::forward(&self.shape, w), packed, &Inline);
    }

    /// The same from any order of the weights, on the executor's threads.
    ///
    /// # Panics
    /// If `packed` is not [`Bf16x6::packed_len`] long, or the machine lacks the level.
    pub fn pack_from(&self, w: &Weights<'_>, packed: &mut [f32], executor: &dyn Executor) {
        assert_eq!(packed.len(), self.packed_len());
        assert!(self.row.level.is_available());
        let pairs = pairs(blocks(self.shape.oc));
        let len = self.packed_len() / blocks(self.shape.oc).max(1);
        let packed = Shared::new(packed);
        for_each_part_with(executor, pairs.clone().count(), &mut [], 0, |part, _| {
            let (first, n) = pairs.clone().nth(part).expect("as many parts as pairs");
            // SAFETY: so many floats for each block lie in the slice, and each part has blocks of its own.
            let to = unsafe { core::slice::from_raw_parts_mut(packed.at(first * len), n * len) };
            Place::inline(self.row.level).at(Pack { d: self, w, first, n, to });
        });
    }

    /// Runs the convolution on the executor's threads, of which at most `scratch.len() / scratch_len()` take part.
    ///
    /// The outputs may lie in memory that holds nothing yet; what they then are is returned.
    ///
    /// # Panics
    /// If a slice's length is not what the shape, the layouts and [`Bf16x6::packed_len`] say, or the scratch is shorter
    /// than [`Bf16x6::scratch_len`]. Where outputs with gaps between them lie in memory that holds nothing.
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
        assert!(self.row.level.is_available());
        let finish = SyncFinish(Finish::new(epilogue, self.row.level));
        Run { d: self, x, w: packed, y: y.shared(), finish }.all(scratch, executor);
        // SAFETY: parts of a run write all outputs, channels that pad included; what holds nothing has no gaps (asserted).
        unsafe { y.written() }
    }
}

/// Blocks of output channels that are multiplied together: `(first, number)`.
fn pairs(blocks: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    (0..blocks).step_by(2).map(move |first| (first, (blocks - first).min(2)))
}

/// The first pixel of a tile of `rows`, of those that so many adjacent pixels are cut into: the last tile ends with them.
fn tile_start(tile: usize, rows: usize, pixels: usize) -> usize {
    (tile * rows).min(pixels - rows)
}

/// Rows of the tiles that so many adjacent pixels are cut into; the last tile overlaps the one before it.
fn tile_rows(pixels: usize) -> usize {
    pixels.div_ceil(pixels.div_ceil(ROWS).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output rows (pixels, if 1x1) that are split together, for L2 caches of 512 KiB to 2 MiB.
    #[test]
    fn parts_follow_the_cache() {
        let most = |l2_bytes, [ic, oc, size, k]: [usize; 4]| {
            let shape = ConvShape::builder([1, ic, size, size], [oc, ic, k, k]).padding(k / 2).build().unwrap();
            let core = Core { level: Level::Scalar, l2_bytes, ..Core::GRANITE_RAPIDS };
            let plan = Bf16x6::new(&shape, core, MatrixUnit::Amx, Layout::Blocked, Layout::Blocked);
            plan.unwrap().most
        };
        let caches = [512 << 10, 1 << 20, 2 << 20];
        let of_caches = |layer| caches.map(|l2| most(l2, layer));
        assert_eq!(of_caches([64, 64, 56, 3]), [3, 9, 21]);
        assert_eq!(
            of_caches([512, 128, 28, 1]),
            [64, 64, 160],
            "weights beyond half of the smallest cache are read less often"
        );
        assert_eq!(of_caches([512, 512, 14, 3]), [3, 8, 14]);
    }
}
