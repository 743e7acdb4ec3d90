//! The gradients at a convolution's weights and bias.
//!
//! ```text
//! dw[oc][ic][ky][kx] = sum over (n, oy, ox)  dy[n][oc][oy][ox]
//!                                            * x[n][ic][oy * sh + ky * dh - top][ox * sw + kx * dw - left]
//! db[oc]             = sum over (n, oy, ox)  dy[n][oc][oy][ox]
//!
//! for each slice of the pixels, for each unit (few blocks of x, few blocks of dy):          threads
//!   for each segment of the slice, tap, block of dy:   sums[slice][unit][dy block][x block][tap][16 oc][16 ic] += tile
//! then for each unit:                                  dw = sum over slices, in PyTorch's order
//! ```
//!
//! **An outer product for each pixel.** In blocked tensors a pixel's sixteen input channels are a line, and so are its
//! sixteen output channels: what the register tile of [`Access::PixelSum`] takes. Nothing is transposed or packed. A
//! tap is an offset of `x`, and **borders are loop bounds**: the range of pixels for which the tap lies inside the
//! input. Tensors in other layouts are copied to blocked ones in scratch memory first; so are the pixels that a 1x1 convolution
//! with a stride and without padding reads, since every second line of a row lies in half of L1; of NCHW the rows.
//!
//! **Several blocks of input.** A tile of sixteen output channels and one block of input loads 17 times for 16 multiply-adds, which is
//! more than a core with two of both a cycle has time for: 134 of 172 GFLOP/s on an Emerald Rapids, with all in L1. AVX-512's
//! tiles of eight output channels take up to three blocks of input, 11 loads for 24 multiply-adds.
//!
//! **1x1.** A tile's rows are output channels and its lanes input channels, as in PyTorch's order of the weights of
//! single taps: there the sums are the weights, and one call makes those of all output channels.
//!
//! **Same bits for any number of threads.** Pixels are cut into segments, of at most [`LONGEST`] pixels, and segments
//! into slices, by the shape alone. Threads share out slices and units. There is one slice, unless there are fewer
//! units than threads could use.
//!
//! **Groups** that do not fill blocks compute whole pairs of blocks, of which they store what belongs together.
//!
//! Order of each sum: `(n, oy, ox)` within a segment; segments in their order within a slice; slices in theirs. Error:
//! with `t` pixels in a segment, and `s` segments and slices, `|err| <= (t + s + 2) * 2^-24 * sum |x * dy|`.

mod depthwise;
mod plane;
mod run;
mod stem;
mod sum;

pub use depthwise::DepthwiseWeights;
pub use plane::{PlanarRow, PlanarWeights, planar_rows};

use core::ops::Range;

use run::Run;
pub(crate) use run::{Pairs, biases};
pub use stem::StemWeights;
pub use sum::{Source, SumRow, sum_rows};

use crate::epilogue::Outputs;
use crate::exec::{Executor, Shared, cut, for_each_part_with};
use crate::isa::Level;
use crate::layout::{BLOCK, Layout, Strides, View, blocks};
use crate::machine::Core;
use crate::region::Axis;
use crate::reorder::{Pixels, copy_block};
use crate::shape::ConvShape;
use crate::tile::{self, Access, Row};

/// Most pixels of a segment, but for rows that are longer: sums of more terms lose precision.
pub const LONGEST: usize = 2048;

/// The same for kernels of few taps and more input than the widest tile takes: 32 KiB of a block, so that operands are close by (Granite
/// Rapids, 1x1 of 64 to 256 at 56x56: AVX2 1.34 -> 1.05 ms, AVX-512 0.66 -> 0.65 ms by these instead of 2048).
const SHORT: usize = 512;

/// Taps of a kernel from which on it does not matter where its input comes from.
const MANY_TAPS: usize = 4;

/// Floats of a pair's sums for kernels of 3x3.
pub(crate) const PAIR_OF_NINE: usize = 9 * BLOCK * BLOCK;

/// Slices and units that there should be together, for threads to share out.
const PARTS: usize = 16;

/// Fewer of them than this are worse than narrower tiles.
const FEW_PARTS: usize = 8;

/// Most blocks of input channels of a tile.
const WIDEST: usize = 3;

/// Most blocks of output channels of a unit: a call for so many tiles is worth its start where a segment has few
/// pixels.
const TOGETHER: usize = 4;

/// The gradients at a convolution's weights and bias, planned. Holds no tensor.
///
/// ```
/// use swath_kernels::{exec::Inline, isa::Level, layout::Layout, shape::ConvShape};
/// use swath_kernels::{backward_weights::BackwardWeights, machine::Core};
/// let shape = ConvShape::builder([1, 1, 3, 3], [1, 1, 2, 2]).build()?;
/// let plan = BackwardWeights::new(&shape, Core::here(Level::Scalar), Layout::Nchw, Layout::Nchw);
/// let mut scratch = vec![0.0; plan.scratch_len(1)];
/// let (x, dy) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], [1.0, 0.0, 0.0, 10.0]);
/// let (mut dw, mut db) = ([f32::NAN; 4], [f32::NAN; 1]);
/// plan.run(&x, &dy, dw.as_mut_slice().into(), Some(&mut db), &mut scratch, &Inline);
/// assert_eq!((dw, db), ([51.0, 62.0, 84.0, 95.0], [11.0]));
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BackwardWeights {
    shape: ConvShape,
    /// The same over those input pixels alone that it reads, where they are copied.
    compact: ConvShape,
    core: Core,
    /// How `x` and `dy` lie.
    input: Layout,
    gradient: Layout,
    xs: Strides,
    ds: Strides,
    y: Axis,
    x: Axis,
    /// The tiles, by their blocks of input channels, from one on, and their number of output channels.
    tiles: [[Option<&'static Row>; BLOCK + 1]; WIDEST],
    segments: Segments,
    /// Segments are cut into so many slices.
    slices: usize,
    /// Most input blocks that meet a block of output channels.
    span: usize,
    /// Most blocks of output channels of a unit, and of input channels.
    together: usize,
    wide: usize,
}

/// What a part works on: blocks of input channels, and blocks of output channels.
#[derive(Clone, Debug)]
struct Unit {
    icbs: Range<usize>,
    ocbs: Range<usize>,
}

/// How the pixels are cut.
#[derive(Clone, Copy, Debug)]
struct Segments {
    /// Groups of whole images; single images, where there are several bands.
    images: usize,
    /// Bands of rows of an image.
    bands: usize,
}

impl Segments {
    /// Segments of at most `longest` pixels, or of single rows.
    fn new(s: &ConvShape, longest: usize) -> Self {
        let plane = s.oh * s.ow;
        if plane > longest {
            return Self { images: s.n.max(1), bands: s.oh.div_ceil((longest / s.ow).max(1)) };
        }
        Self { images: s.n.div_ceil(longest / plane).max(1), bands: 1 }
    }

    fn len(&self) -> usize {
        self.images * self.bands
    }

    /// Images and output rows of segment `i`.
    fn at(&self, s: &ConvShape, i: usize) -> (Range<usize>, Range<usize>) {
        (cut(s.n, self.images, i / self.bands), cut(s.oh, self.bands, i % self.bands))
    }
}

impl BackwardWeights {
    /// Plans, for `x` in layout `input` and `dy` in layout `gradient`.
    pub fn new(shape: &ConvShape, core: Core, input: Layout, gradient: Layout) -> Self {
        shape.assert_consistent();
        let s = compact(shape, input);
        let longest = if s.kh * s.kw >= MANY_TAPS || blocks(s.ic) <= WIDEST { LONGEST } else { SHORT };
        let mut tiles = [[None; BLOCK + 1]; WIDEST];
        for row in tile::rows(core.level).iter().filter(|r| r.access == Access::PixelSum) {
            tiles[row.blocks - 1][row.mr] = Some(row);
        }
        let segments = Segments::new(&s, longest);
        let mut this = Self {
            shape: *shape,
            compact: s,
            core,
            input,
            gradient,
            xs: input.strides(shape.input()),
            ds: gradient.strides(shape.output()),
            y: Axis::y(&s),
            x: Axis::x(&s),
            tiles,
            segments,
            slices: 1,
            span: 0,
            together: if s.groups == 1 { TOGETHER } else { 1 },
            wide: tiles.iter().rposition(|of| of.iter().any(Option::is_some)).map_or(1, |widest| widest + 1),
        };
        this.span = s.blocks_near_starts().map(|b| this.inputs(b).len()).max().unwrap_or(1);
        // Each block of output channels meets at least one of inputs.
        let pairs: usize = (0..blocks(s.oc).min(PARTS)).map(|b| this.inputs(b).len()).sum();
        this.slices = PARTS.div_ceil(pairs.max(1)).min(segments.len());
        while this.together > 1 && this.units() * this.slices < PARTS {
            this.together /= 2;
        }
        while this.wide > 1 && !this.in_place() && this.units() * this.slices < FEW_PARTS {
            this.wide -= 1;
        }
        this
    }

    /// The same for an `x` and a `dy` that are parts of larger tensors.
    ///
    /// # Panics
    /// If a view has other extents than the shape's.
    pub fn of_views(shape: &ConvShape, core: Core, [x, dy]: [View; 2]) -> Self {
        let (xs, ds) = (x.strides_of(shape.input()), dy.strides_of(shape.output()));
        Self { xs, ds, ..Self::new(shape, core, x.layout(), dy.layout()) }
    }

    /// The input blocks that meet block `ocb` of output channels.
    fn inputs(&self, ocb: usize) -> Range<usize> {
        let s = &self.compact;
        let last = ((ocb + 1) * BLOCK).min(s.oc) - 1;
        ocb * BLOCK / s.ocg() * s.icg() / BLOCK..blocks((last / s.ocg() + 1) * s.icg())
    }

    /// Whether the weights' gradient itself holds the sums, of all whole blocks of output channels.
    fn in_place(&self) -> bool {
        self.taps() == 1 && self.compact.groups == 1 && self.slices == 1
    }

    /// The first block of output channels whose sums are in scratch.
    fn first(&self) -> usize {
        if self.in_place() { self.compact.oc / BLOCK } else { 0 }
    }

    /// Units whose sums are in scratch; some have no input, where blocks of output channels meet fewer inputs than
    /// others.
    fn units(&self) -> usize {
        (blocks(self.compact.oc) - self.first()).div_ceil(self.together) * self.span.div_ceil(self.wide)
    }

    fn unit(&self, i: usize) -> Option<Unit> {
        let row = self.span.div_ceil(self.wide);
        let first = self.first() + i / row * self.together;
        let ocbs = first..(first + self.together).min(blocks(self.compact.oc));
        self.widths(self.inputs(first)).nth(i % row).map(|icbs| Unit { icbs, ocbs })
    }

    /// Blocks of input channels as tiles take them, about equally many at a time.
    fn widths(&self, icbs: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let parts = icbs.len().div_ceil(self.wide);
        (0..parts).map(move |part| {
            let of = cut(icbs.len(), parts, part);
            icbs.start + of.start..icbs.start + of.end
        })
    }

    fn taps(&self) -> usize {
        self.compact.kh * self.compact.kw
    }

    /// Floats of a pair's sums: of each tap, and those of `dy`.
    fn pair_len(&self) -> usize {
        self.taps() * BLOCK * BLOCK + BLOCK
    }

    /// Floats of a unit's sums.
    fn unit_len(&self) -> usize {
        self.together * self.wide * self.pair_len()
    }

    /// Whether sums go on from segment to segment, in memory that all threads see; else each unit's are finished at
    /// once.
    fn continues(&self) -> bool {
        self.segments.len() > 1
    }

    /// Floats of the copies of `x` and `dy`.
    fn copies(&self) -> [usize; 2] {
        let s = &self.compact;
        let copy = |as_it_is, dims| if as_it_is { 0 } else { Layout::Blocked.len(dims) };
        let [x, dy] = [self.input, self.gradient].map(|layout| layout == Layout::Blocked);
        [copy(x && self.every() == [1, 1], s.input()), copy(dy, s.output())]
    }

    /// Which row and column of the input is read, where those are copied that are: every so many.
    fn every(&self) -> [usize; 2] {
        [self.shape.sh / self.compact.sh, self.shape.sw / self.compact.sw]
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The instruction-set level whose tiles run.
    pub fn level(&self) -> Level {
        self.core.level
    }

    /// Name of the tile that does the work: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        self.tiles[self.wide - 1].iter().rev().flatten().next().map_or("none", |r| r.name)
    }

    /// Multiply-adds done per multiply-add that counts, at most: more than 1 where channels do not fill blocks.
    pub fn waste(&self) -> f64 {
        let s = &self.compact;
        // Where groups start in blocks repeats after a block of them.
        let groups = s.groups.min(BLOCK);
        let pairs: f64 = if s.ocg() < BLOCK {
            (0..blocks(groups * s.ocg())).map(|b| self.inputs(b).len() as f64).sum()
        } else {
            let of_group = |g: usize| {
                let (first, end) = (g * s.ocg(), (g + 1) * s.ocg());
                let inside = (end / BLOCK).saturating_sub(first.div_ceil(BLOCK));
                let inputs = blocks((g + 1) * s.icg()) - g * s.icg() / BLOCK;
                let straddling = if end.is_multiple_of(BLOCK) { 0 } else { self.inputs(end / BLOCK).len() };
                inside as f64 * inputs as f64 + straddling as f64
            };
            (0..groups).map(of_group).sum()
        };
        pairs * (BLOCK * BLOCK) as f64 / ((groups * s.ocg()) as f64 * s.icg() as f64)
    }

    /// Floats of scratch for a run on so many threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        let sums = if self.continues() { self.slices * self.units() } else { threads.max(1) };
        self.copies().iter().sum::<usize>().saturating_add(sums.saturating_mul(self.unit_len()))
    }

    /// Computes `dw` `[oc, ic / groups, kh, kw]` and, if asked for, `db` `[oc]`, on the executor's threads. `scratch`
    /// holds [`BackwardWeights::scratch_len`] floats for as many threads as are to take part, at least for one.
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
        let of = (s, self.core.level, [(self.input, self.xs), (self.gradient, self.ds)]);
        assert_run(of, [x, dy], &dw, db.as_deref(), [scratch.len(), self.scratch_len(1)]);
        let [x_copy, dy_copy] = self.copies();
        let (copy, scratch) = scratch.split_at_mut(x_copy);
        let x = self.blocked(x, (self.xs, s.input()), self.every(), copy, executor);
        let (copy, sums) = scratch.split_at_mut(dy_copy);
        let dy = self.blocked(dy, (self.ds, s.output()), [1, 1], copy, executor);
        let run = Run { d: self, x, dy, dw: dw.shared(), db: db.map(Shared::new) };
        if self.in_place() {
            run.in_place(executor);
        }
        if self.continues() {
            run.in_segments(sums, executor);
        } else {
            run.at_once(sums, executor);
        }
        // SAFETY: each weight is of a pair, and all pairs are stored.
        unsafe { dw.written() }
    }

    /// The rows and columns that are taken of a tensor, in blocks: as they lie, or copied where there is room for a copy.
    fn blocked<'a>(
        &self,
        from: &'a [f32],
        (mut xs, dims): (Strides, [usize; 4]),
        [down, across]: [usize; 2],
        copy: &'a mut [f32],
        executor: &dyn Executor,
    ) -> &'a [f32] {
        if copy.is_empty() {
            return from;
        }
        let [n, c, h, w] = dims;
        let kept = [n, c, h.div_ceil(down), w.div_ceil(across)];
        assert!(copy.len() == Layout::Blocked.len(kept));
        let (ys, of) = (Layout::Blocked.strides(kept), blocks(c));
        (xs.row, xs.px) = (xs.row.saturating_mul(down), xs.px.saturating_mul(across));
        let to = Shared::new(copy);
        for_each_part_with(executor, n * of, &mut [], 0, |part, _| {
            let (image, block) = (part / of, part % of);
            let from = Pixels::new(from[image * xs.n + block * xs.block..].as_ptr(), &xs);
            let to = Pixels::new(to.at(part * ys.block), &ys);
            let channels = BLOCK.min(c - block * BLOCK);
            // SAFETY: the level is available, and `from` reaches as far as its strides say (asserted by `run`), and the copy is as long
            // as its layout says (asserted above), so that the block's pixels lie inside, and no other part writes this block;
            // channels or pixels are adjacent in every layout, and no columns of NCHW are left out.
            unsafe { copy_block(self.core.level, from, to, [kept[2], kept[3]], [channels, BLOCK]) };
        });
        copy
    }
}

/// Panics unless the machine has the level, `x` and `dy`, which lie so, and the gradients at weights and bias are as long as the
/// shape says, and the scratch is as long as one thread needs.
#[track_caller]
pub(crate) fn assert_run(
    (s, level, [input, gradient]): (&ConvShape, Level, [(Layout, Strides); 2]),
    [x, dy]: [&[f32]; 2],
    dw: &Outputs<'_>,
    db: Option<&[f32]>,
    [scratch, needed]: [usize; 2],
) {
    assert!(level.is_available());
    assert!(scratch >= needed, "scratch holds {scratch}, not {needed}");
    assert_eq!(x.len(), input.1.reach(input.0, s.input()), "input length");
    assert_eq!(dy.len(), gradient.1.reach(gradient.0, s.output()), "gradient's length");
    assert_eq!(dw.len(), s.weights().iter().product::<usize>(), "length of the weights' gradient");
    assert!(db.is_none_or(|db| db.len() == s.oc), "length of the bias's gradient");
}

/// The shape of a convolution that reads the next pixel where this one, of single taps without padding, leaves out some. In NCHW it leaves
/// out rows alone, since columns are copied a vector at a time.
fn compact(s: &ConvShape, input: Layout) -> ConvShape {
    let padded = s.pad.top + s.pad.bottom + s.pad.left + s.pad.right > 0;
    if s.kh * s.kw > 1 || padded || [s.oh, s.ow].contains(&0) {
        return *s;
    }
    let rows = ConvShape { ih: s.oh, sh: 1, ..*s };
    if input == Layout::Nchw { rows } else { ConvShape { iw: s.ow, sw: 1, ..rows } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_all_pixels_once_and_are_short() {
        for (n, oh, ow) in [(1, 1, 1), (8, 56, 56), (9, 14, 14), (3, 7, 7), (2, 3, 5000), (1, 300, 7), (0, 4, 4)] {
            let s = ConvShape::builder([n, 1, oh, ow], [1, 1, 1, 1]).build().unwrap();
            let segments = Segments::new(&s, LONGEST);
            let mut seen = vec![0; n * oh];
            for i in 0..segments.len() {
                let (images, rows) = segments.at(&s, i);
                assert!(images.len() * rows.len() * ow <= LONGEST || images.len() * rows.len() == 1);
                assert!(rows == (0..oh) || images.len() <= 1);
                images.flat_map(|n| rows.clone().map(move |y| n * oh + y)).for_each(|i| seen[i] += 1);
            }
            assert!(seen.iter().all(|&v| v == 1), "{n} images of {oh}x{ow}");
        }
    }
}
