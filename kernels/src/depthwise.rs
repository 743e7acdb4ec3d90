//! Depthwise and small-group convolution, where one vector of output channels holds whole groups.
//!
//! ```text
//! y[oy][ox][o] = sum over (j, ky, kx)  x[oy * sh + ky * dh][ox * sw + kx * dw][source(o, j)] * w[j][ky][kx][o]
//! source(o, j) = o / ocg * icg + j          j = 0..icg
//!
//! for each image and output block, many of them in one call:
//!   for each row, for each run of MR pixels, for each vector of the block:
//!     for j: for ky: load KW weights; for each of the (MR - 1) * S + KW inputs: load, permute, up to KW multiply-adds
//! ```
//!
//! Depthwise convolution with multiplier 1 is `icg = ocg = 1`, where no permutation is needed. In the other cases the
//! lanes of an output vector draw from one input vector by a fixed permutation, for example `icg = ocg = 4`, `j = 1`:
//! `1 1 1 1 5 5 5 5 9 9 9 9 13 13 13 13`, or all from one channel, which a load broadcasts. An input that is loaded (and
//! permuted) once serves up to `KW` pixels.
//!
//! **One call a plane.** A plane of 7x7 pixels is 361 multiply-adds of vectors, and setting up a call took 100 cycles a row:
//! so the kernel itself walks along runs and rows, and has the borders in it. Rows of taps above and below the input are
//! skipped by the loop bounds. At the ends of a row, where windows hang over by half their width (`L`, `R`), pixels sit out
//! taps by constants: the body exists for an inner run, a first, a last and an only one.
//!
//! **Runs of one length** cover a row; where it does not divide the row, the last run overlaps the one before and computes
//! its outputs again, to the same bits.
//!
//! Register budget: `MR` sums, `KW` weights, one input, one permutation. Bound: with MR = 7 and a 3x3 kernel, 12
//! loads and 21 multiply-adds a row of taps, so the FMA unit is the limit as long as the data is in L1.
//!
//! Whole blocks of NHWC are read where they lie by depthwise kernels whose pixels lie any number of floats apart, in bands of columns
//! whose rows stay in L1. Other input in NCHW or NHWC is blocked in scratch memory, and output in NCHW comes from there: strip by strip of rows, so that
//! what is copied is still in L2. Strips of a row of blocks follow each other, since NHWC's blocks share cache lines.
//! Where a vector lies inside one group, that group's channels may begin in the middle of a block and fill several.
//!
//! Columns with other overhangs, and all of a dilated convolution, are cut into regions as in [`direct`](crate::direct), and
//! take their taps one by one. Order of the sum: `(j, ky, kx)`. Error: as for the register tile.
//! Magnitudes: [`FiniteRange::PLAIN`](crate::finite::FiniteRange::PLAIN).

mod lanes;
mod run;
mod table;

pub use lanes::LaneArgs;
pub use table::{Row, Source, rows};

use core::ops::Range;

use run::Run;
use table::Runs;

use crate::epilogue::{Epilogue, Lengths, Outputs};
use crate::exec::{Executor, Shared, cut, for_each_part_with, parts_wanted};
use crate::isa::Level;
use crate::layout::{BLOCK, Layout, Strides, View, blocks};
use crate::machine::Core;
use crate::region::Axis;
use crate::reorder::{Pixels, copy_block};
use crate::shape::ConvShape;
use crate::tile::{Finish, SyncFinish};
use crate::weights::Weights;

/// Most input channels of a group: beyond, the register tile wastes less than the permutations cost.
const MAX_ICG: usize = 8;

/// The same where a vector lies inside one group and three taps share an input's broadcast.
const MAX_ICG_ONE: usize = 32;

/// Most floats of scratch for the input of a strip.
const MOST: usize = 1 << 18;

/// Floats of it where strips may be as short as one likes: 128 KiB stay in L2 beside what is copied.
const STRIP: usize = 1 << 15;

/// Pixels of NHWC in a band of columns and its rows of taps: 20 KiB.
const BAND: usize = 160;

/// Runs of a band at least.
const BAND_RUNS: usize = 2;

/// Floats of the input rows of a strip in NHWC: 512 KiB stay in L2.
const ROWS: usize = 1 << 17;

/// A depthwise or small-group convolution, planned. Holds no tensor.
#[derive(Clone, Debug)]
pub struct Depthwise {
    shape: ConvShape,
    core: Core,
    y: Axis,
    x: Axis,
    /// Strides of the input as it is given, and as the kernels see it: where it lies, or copied to scratch.
    from: Strides,
    xs: Strides,
    /// Strides of the output as it is wanted, and as the kernels see it.
    to: Strides,
    ys: Strides,
    input: Layout,
    output: Layout,
    source: Source,
    /// Multiply-adds of the run that it is, or is a phase of: what its number of parts depends on.
    work: u64,
    /// Output rows of a strip: all, or as many as have their input in scratch.
    strip: usize,
    /// Most input blocks that an output block draws from, where they are copied to scratch; else 0.
    depth: usize,
    /// Whether outputs are computed in scratch, and copied from there.
    copies_out: bool,
    /// For whole rows, or their pixels with all taps, where the level has kernels for them.
    sweep: Option<Sweep>,
    /// The same for whole blocks of NHWC, which are read where they lie.
    apart: Option<Sweep>,
    /// Kernels for everything else, one for each number of pixels.
    any: &'static [Row],
}

/// Columns that one kernel covers.
#[derive(Clone, Debug)]
struct Sweep {
    runs: Runs,
    columns: Range<usize>,
    /// Whether windows hang over the start and the end of a row.
    hangs: [bool; 2],
}

impl Sweep {
    /// All columns where their overhang is a kernel's, else those with all taps.
    fn choose(s: &ConvShape, x: &Axis, core: Core, source: Source, pixels: Option<usize>) -> Option<Self> {
        if s.dw != 1 || s.dh != 1 || s.kw == 1 {
            return None;
        }
        let right = ((s.ow - 1) * s.sw + s.kw).saturating_sub(s.pad.left + s.iw);
        let rows = move || {
            let like = move |r: &&Row| (r.kw, r.stride, r.source) == (s.kw, s.sw, source);
            rows(core.level).iter().filter(like).filter(move |r| pixels.is_none_or(|p| r.mr == p))
        };
        let hangs = [s.pad.left > 0, right > 0];
        let fits = |overhang: usize, of: usize| overhang == 0 || overhang == of;
        let whole = rows().filter(|r| fits(s.pad.left, r.overhang[0]) && fits(right, r.overhang[1]));
        if let Some(runs) = Runs::choose(core, whole, s.ow, hangs) {
            return Some(Self { runs, columns: 0..s.ow, hangs });
        }
        let columns = x.interior();
        let runs = Runs::choose(core, rows(), columns.len(), [false; 2])?;
        Some(Self { runs, columns, hangs: [false; 2] })
    }
}

impl Depthwise {
    /// Plans, or says why the shape is not for this algorithm.
    ///
    /// # Errors
    /// A reason, when some output vector's lanes would draw from more than one input vector.
    pub fn new(shape: &ConvShape, core: Core, input: Layout, output: Layout) -> Result<Self, &'static str> {
        Self::with_pixels(shape, core, input, output, None)
    }

    /// The same with runs of so many pixels, where the level has such a kernel and the rows are long enough.
    ///
    /// # Errors
    /// As for [`Depthwise::new`].
    pub fn with_pixels(
        shape: &ConvShape,
        core: Core,
        input: Layout,
        output: Layout,
        pixels: Option<usize>,
    ) -> Result<Self, &'static str> {
        let strides = [input.strides(shape.input()), output.strides(shape.output())];
        Self::within(shape, core, [input, output], strides, pixels)
    }

    /// Plans for tensors that are parts of larger ones.
    ///
    /// # Errors
    /// As for [`Depthwise::new`].
    ///
    /// # Panics
    /// If a view has other extents than the shape's.
    pub fn of_views(shape: &ConvShape, core: Core, [x, y]: [View; 2]) -> Result<Self, &'static str> {
        let strides = [x.strides_of(shape.input()), y.strides_of(shape.output())];
        Self::within(shape, core, [x.layout(), y.layout()], strides, None)
    }

    /// The same with these distances between their elements, which the caller vouches for.
    ///
    /// # Errors
    /// As for [`Depthwise::new`].
    pub(crate) fn within(
        shape: &ConvShape,
        core: Core,
        [input, output]: [Layout; 2],
        [xs, ys]: [Strides; 2],
        pixels: Option<usize>,
    ) -> Result<Self, &'static str> {
        shape.assert_consistent();
        let s = *shape;
        if s.groups == 1 {
            return Err("one group");
        }
        let source = match (s.icg(), s.ocg()) {
            (1, 1) => Source::Own,
            (_, ocg) if ocg.is_multiple_of(core.level.lanes()) => Source::One,
            _ => Source::Permuted,
        };
        let three = s.kw == 3 && s.sw <= 2 && s.dw == 1 && s.dh == 1;
        if s.icg() > MAX_ICG && (source != Source::One || !three || s.icg() > MAX_ICG_ONE) {
            return Err(
                "more than 8 input channels a group, or 32 where a vector lies in one and there are three taps",
            );
        }
        if source == Source::Permuted && straddles(&s, core.level.lanes()) {
            return Err("groups straddle vectors");
        }
        let x = Axis::x(&s);
        let mut any = rows(core.level).chunk_by(|a, b| (a.kw, a.source) == (b.kw, b.source));
        // Of a lattice, pixels are stored one by one.
        let copies_out = output == Layout::Nchw && ys.px == 1;
        let mut this = Self {
            shape: s,
            core,
            y: Axis::y(&s),
            from: xs,
            xs: if input == Layout::Blocked { xs } else { Layout::Blocked.strides(s.input()) },
            to: ys,
            ys: if copies_out { Layout::Blocked.strides(s.output()) } else { ys },
            input,
            output,
            source,
            work: s.macs(),
            strip: s.oh,
            depth: 0,
            copies_out,
            sweep: Sweep::choose(&s, &x, core, source, pixels),
            apart: Sweep::choose(&s, &x, core, Source::Apart, pixels),
            any: any.find(|r| r[0].kw == 1 && r[0].source == source).ok_or("no kernels at this level")?,
            x,
        };
        if copies_out {
            this.strip = (STRIP / s.ow / BLOCK).clamp(1, s.oh);
        }
        if input != Layout::Blocked {
            this.depth = this.most_input_blocks();
            // Output rows whose input fits: those of the scratch, less the halo of a strip.
            let halo = (s.kh - 1) * s.dh + 1;
            let rows = |floats: usize| Some((floats / (s.iw * BLOCK * this.depth)).checked_sub(halo)? / s.sh + 1);
            if rows(MOST).is_none() {
                return Err("the input of one row of outputs exceeds the scratch");
            }
            this.strip = rows(STRIP).unwrap_or(1).min(this.strip);
            if input == Layout::Nhwc {
                // Rows of all channels, which the blocks of a strip read one after the other.
                this.strip = (ROWS / (s.iw * s.ic).saturating_mul(s.sh)).clamp(this.strip.min(4), this.strip);
            }
            this.xs.block = this.input_rows(this.strip) * s.iw * BLOCK;
        }
        Ok(this)
    }

    /// The input blocks that output block `ocb` draws from.
    fn input_blocks(&self, ocb: usize) -> Range<usize> {
        let s = &self.shape;
        let last = ((ocb + 1) * BLOCK).min(s.oc) - 1;
        ocb * BLOCK / s.ocg() * s.icg() / BLOCK..blocks((last / s.ocg() + 1) * s.icg())
    }

    /// Most input blocks that an output block draws from.
    fn most_input_blocks(&self) -> usize {
        self.shape.blocks_near_starts().map(|b| self.input_blocks(b).len()).max().unwrap_or(1)
    }

    /// Name of the kernel that covers inner pixels: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        let any = || Runs::choose(self.core, self.any.iter(), self.x.interior().len().max(1), [false; 2]);
        let sweep = if self.reads_in_place(0) { &self.apart } else { &self.sweep };
        sweep.as_ref().map(|s| s.runs).or_else(any).map_or("none", |r| r.row.name)
    }

    /// Floats of packed weights: `[ocb][j][kh][kw][16]`.
    pub fn packed_len(&self) -> usize {
        let s = &self.shape;
        blocks(s.oc) * s.icg() * s.kh * s.kw * BLOCK
    }

    /// Packs weights `[oc, ic / groups, kh, kw]`.
    ///
    /// # Panics
    /// If a slice's length is not what the shape and [`Depthwise::packed_len`] say.
    pub fn pack(&self, w: &[f32], packed: &mut [f32]) {
        self.pack_from(&Weights::forward(&self.shape, w), packed);
    }

    /// The same from any order of the weights.
    ///
    /// # Panics
    /// If `packed` is not [`Depthwise::packed_len`] long.
    pub fn pack_from(&self, w: &Weights<'_>, packed: &mut [f32]) {
        let s = &self.shape;
        let per_channel = s.icg() * s.kh * s.kw;
        assert_eq!(packed.len(), self.packed_len());
        packed.fill(0.0);
        let taps = s.kh * s.kw;
        for o in 0..s.oc {
            for at in 0..per_channel {
                let (j, tap) = (at / taps, at % taps);
                packed[(o / BLOCK * per_channel + at) * BLOCK + o % BLOCK] = w.at(o, j, tap / s.kw, tap % s.kw);
            }
        }
    }

    /// Floats of scratch for one thread: the input of a strip, its outputs, and what is added to them.
    pub fn scratch_len(&self) -> usize {
        self.depth * self.xs.block + 2 * self.out_len()
    }

    /// Whether input and output go through scratch.
    pub fn copies(&self) -> [bool; 2] {
        [self.depth > 0 && !self.reads_in_place(0), self.copies_out]
    }

    /// Whether the input of a block of outputs is read where it lies in NHWC: of a depthwise convolution, if the block is whole, and the
    /// pixels that a few runs read do not fall on the same few sets of L1 (512 channels at 14x14 then took 7.6 times as long as
    /// blocks, by copies 2.2 times).
    fn reads_in_place(&self, ocb: usize) -> bool {
        let s = &self.shape;
        let near = self.band() >= s.ow.min(BAND_RUNS * self.apart.as_ref().map_or(1, |sweep| sweep.runs.row.mr));
        near && self.input == Layout::Nhwc && self.source == Source::Own && (ocb + 1) * BLOCK <= s.oc
    }

    /// Columns of outputs whose rows of taps stay in an L1 of 64 sets of 8 lines, where each pixel of NHWC takes up to two lines and pixels
    /// lie all channels apart.
    fn band(&self) -> usize {
        let s = &self.shape;
        // Sets on which pixels fall, as many as 64 has no factor in common with the lines between them.
        let lines = s.ic / BLOCK;
        let sets = if s.ic.is_multiple_of(BLOCK) { 64 >> lines.trailing_zeros().min(6) } else { 64 };
        let pixels = (8 * sets).min(BAND);
        pixels / s.kh.saturating_mul(s.sw)
    }

    /// Floats of a strip's outputs, where they are computed in scratch.
    fn out_len(&self) -> usize {
        if self.copies_out { self.strip * self.shape.ow * BLOCK } else { 0 }
    }

    /// The layout that the kernels write.
    fn written(&self) -> Layout {
        if self.copies_out { Layout::Blocked } else { self.output }
    }

    /// Input rows that a strip of `rows` output rows can meet.
    fn input_rows(&self, rows: usize) -> usize {
        let s = &self.shape;
        ((rows - 1) * s.sh + (s.kh - 1) * s.dh + 1).min(s.ih)
    }

    /// Runs the convolution on the executor's threads. `scratch` holds [`Depthwise::scratch_len`] floats for each thread
    /// that is to take part, at least for one.
    ///
    /// The outputs may lie in memory that holds nothing yet; what they then are is returned.
    ///
    /// # Panics
    /// If a slice's length is not what the shape, the layouts and [`Depthwise::packed_len`] say. Where outputs with
    /// gaps between them lie in memory that holds nothing.
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
        Lengths::new(s, self.packed_len(), [(self.input, self.from), (self.output, self.to)])
            .assert(x, packed, epilogue, &y);
        let finish = SyncFinish(Finish::new(epilogue, self.core.level));
        let job = self.job(x, packed, finish, (y.shared(), 0), executor.threads());
        for_each_part_with(executor, job.parts(), scratch, self.scratch_len(), |i, scratch| job.part(i, scratch));
        // SAFETY: parts of a run write all outputs, channels that pad included; what holds nothing has no gaps (asserted).
        unsafe { y.written() }
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The same as a phase of a run of so many multiply-adds. Phases of as many rows are cut alike: what a thread writes by all of them is
    /// adjacent.
    pub(crate) fn phase_of(self, work: u64) -> Self {
        Self { work, ..self }
    }

    /// A run whose parts may be computed in any order, from `x` on and to `y` from a place in it on.
    ///
    /// # Panics
    /// If a tensor is shorter than the shape and the strides say, or the packed weights have another length.
    pub(crate) fn job<'a>(
        &'a self,
        x: &'a [f32],
        packed: &'a [f32],
        finish: SyncFinish,
        (y, y_first): (Shared<'a>, usize),
        threads: usize,
    ) -> Job<'a> {
        let s = &self.shape;
        assert!(self.from.reach(self.input, s.input()) <= x.len(), "input length");
        assert!(y_first + self.to.reach(self.output, s.output()) <= y.len(), "output length");
        assert_eq!(packed.len(), self.packed_len(), "packed weights' length");
        assert!(self.core.level.is_available());
        let (strips, together) = self.cuts(threads);
        Job { d: self, x, w: packed, finish, y, y_first, strips, together }
    }

    /// Computes some rows of all planes of image `n`, in blocks, into a strip that begins with these rows, and whose planes are as far apart
    /// as the output's strides say.
    ///
    /// # Panics
    /// If a tensor is shorter than that, the packed weights have another length, something is to be added, or the plan is of other layouts.
    pub(crate) fn rows(
        &self,
        x: &[f32],
        packed: &[f32],
        finish: &SyncFinish,
        n: usize,
        rows: Range<usize>,
        strip: &mut [f32],
    ) {
        let s = &self.shape;
        let (planes, finish) = (blocks(s.oc), &finish.0);
        assert!((self.input, self.output) == (Layout::Blocked, Layout::Blocked) && self.core.level.is_available());
        assert!(n < s.n && self.from.reach(self.input, s.input()) <= x.len(), "input length");
        assert_eq!(packed.len(), self.packed_len(), "packed weights' length");
        assert!(rows.end <= s.oh && rows.len() * self.ys.row <= self.ys.block, "a strip's planes lie apart");
        assert!(planes * self.ys.block <= strip.len(), "the strip holds these rows");
        assert!(finish.residual.is_null(), "nothing is added");
        // Where row 0 would lie.
        let y = strip.as_mut_ptr().wrapping_sub(rows.start * self.ys.row);
        let together = if self.alike() { planes } else { 1 };
        for ocb in (0..planes).step_by(together) {
            let (x, finish) = (self.block_input(x, &mut [], n, ocb, &rows), finish.at(ocb * BLOCK, 0));
            let y = y.wrapping_add(ocb * self.ys.block);
            Run { d: self, x, w: packed, y, finish, ocb, planes: together }.strip(rows.clone());
        }
    }

    /// The instruction-set level whose kernels run.
    pub fn level(&self) -> Level {
        self.core.level
    }

    /// How many parts a run on so many threads has.
    pub(crate) fn parts(&self, threads: usize) -> usize {
        let (strips, together) = self.cuts(threads);
        self.shape.n * blocks(self.shape.oc).div_ceil(together) * strips
    }

    /// Strips of a plane, and planes that go together. Planes are the natural parts; few of them are cut into strips of rows, many
    /// of them go together.
    fn cuts(&self, threads: usize) -> (usize, usize) {
        let s = &self.shape;
        let ocb = blocks(s.oc);
        let wanted = parts_wanted(threads).min((self.work / 50_000) as usize).max(1);
        let strips = if threads == 1 { 1 } else { wanted.div_ceil((s.n * ocb).max(1)).min(s.oh) };
        let strips = strips.max(s.oh.div_ceil(self.strip));
        let together = if strips == 1 && self.alike() { (s.n * ocb / wanted).clamp(1, ocb) } else { 1 };
        (strips, together)
    }

    /// Whether all planes draw their lanes from input blocks of their own number in the same way.
    fn alike(&self) -> bool {
        let s = &self.shape;
        let own = s.icg() == s.ocg() && BLOCK.is_multiple_of(s.ocg());
        own && self.input == Layout::Blocked && self.output == Layout::Blocked
    }

    /// The blocked input that output rows of one plane read: the whole tensor, or their rows copied to scratch.
    fn block_input<'a>(
        &'a self,
        x: &'a [f32],
        scratch: &'a mut [f32],
        n: usize,
        ocb: usize,
        rows: &Range<usize>,
    ) -> Input<'a> {
        let s = &self.shape;
        if self.input == Layout::Blocked {
            return Input { x, image: n, row: 0, block: 0, strides: self.xs, sweep: self.sweep.as_ref() };
        }
        if self.reads_in_place(ocb) {
            return Input { x, image: n, row: 0, block: 0, strides: self.from, sweep: self.apart.as_ref() };
        }
        let sources = self.input_blocks(ocb);
        let first = (rows.start * s.sh).saturating_sub(s.pad.top).min(s.ih);
        let last = (rows.end * s.sh + (s.kh - 1) * s.dh).saturating_sub(s.pad.top + s.sh - 1).clamp(first, s.ih);
        let from = self.from;
        assert!((last - first) * s.iw * BLOCK <= self.xs.block && sources.len() <= self.depth, "scratch holds a strip");
        let rows = last - first;
        for (copy, block) in scratch.chunks_exact_mut(self.xs.block).zip(sources.clone()).filter(|_| rows > 0) {
            let channels = BLOCK.min(s.ic - block * BLOCK);
            let at = n * from.n + block * from.block + first * from.row;
            let from = Pixels::new(x[at..].as_ptr(), &from);
            let to = Pixels::new(copy.as_mut_ptr(), &self.xs);
            // SAFETY: the level is available and `x` reaches as far as its strides say (asserted in `job`), so that these rows
            // lie inside, and the scratch holds them (asserted above); channels or pixels are adjacent in NCHW and NHWC.
            unsafe { copy_block(self.core.level, from, to, [rows, s.iw], [channels, BLOCK]) };
        }
        let (strides, sweep) = (self.xs, self.sweep.as_ref());
        Input { x: scratch, image: 0, row: first, block: sources.start, strides, sweep }
    }
}

/// A run of a depthwise convolution, in parts that write disjoint outputs.
pub(crate) struct Job<'a> {
    d: &'a Depthwise,
    x: &'a [f32],
    w: &'a [f32],
    finish: SyncFinish,
    y: Shared<'a>,
    /// Where output pixel (0, 0) of image 0 lies in `y`.
    y_first: usize,
    strips: usize,
    together: usize,
}

impl Job<'_> {
    /// How many parts.
    pub(crate) fn parts(&self) -> usize {
        self.d.shape.n * blocks(self.d.shape.oc).div_ceil(self.together) * self.strips
    }

    /// Computes part `i`, with [`Depthwise::scratch_len`] floats of scratch.
    pub(crate) fn part(&self, i: usize, scratch: &mut [f32]) {
        let d = self.d;
        let (ocb, oh) = (blocks(d.shape.oc), d.shape.oh);
        let batches = ocb.div_ceil(self.together);
        // Copied strips: block after block, whose lines NHWC shares.
        let (n, strip, batch) = if d.input == Layout::Blocked {
            (i / self.strips / batches, i % self.strips, i / self.strips % batches)
        } else {
            (i / batches / self.strips, i / batches % self.strips, i % batches)
        };
        let first = batch * self.together;
        let planes = self.together.min(ocb - first);
        let rows = cut(oh, self.strips, strip);
        let (copy, out) = scratch.split_at_mut(d.depth * d.xs.block);
        let x = d.block_input(self.x, copy, n, first, &rows);
        let at = self.y_first + n * d.to.n + first * d.to.block;
        let y = self.y.at(at);
        let finish = self.finish.0.at(first * BLOCK, at);
        let run = |y, finish| Run { d, x, w: self.w, y, finish, ocb: first, planes }.strip(rows.clone());
        if !d.copies_out {
            return run(y, finish);
        }
        let [sums, residual] = self.strip_in_scratch(out, &rows);
        let (size, channels) = ([rows.len(), d.shape.ow], BLOCK.min(d.shape.oc - first * BLOCK));
        let first_row = rows.start * d.to.row;
        // The scratch is the strip's part of a plane.
        let plane = |strip: *mut f32| strip.wrapping_sub(rows.start * d.ys.row);
        let mut moved = finish;
        // SAFETY: the level is available, and output and residual reach as far as their strides say (asserted in `job` and by
        // whoever calls it), so that these rows lie inside; the scratch holds them (asserted in `strip_in_scratch`); no other
        // part has them.
        unsafe {
            if !finish.residual.is_null() {
                let from = Pixels::new(finish.residual.wrapping_add(first_row), &d.to);
                copy_block(d.core.level, from, Pixels::new(residual, &d.ys), size, [channels, BLOCK]);
                moved.residual = plane(residual);
            }
            run(plane(sums), moved);
            let to = Pixels::new(y.wrapping_add(first_row), &d.to);
            copy_block(d.core.level, Pixels::new(sums.cast_const(), &d.ys), to, size, [channels; 2]);
        }
    }

    /// Scratch for the outputs of some rows, and for what is added to them.
    fn strip_in_scratch(&self, out: &mut [f32], rows: &Range<usize>) -> [*mut f32; 2] {
        let len = self.d.out_len();
        assert!(rows.len() * self.d.ys.row <= len && 2 * len <= out.len(), "scratch holds a strip");
        let (sums, residual) = out.split_at_mut(len);
        [sums.as_mut_ptr(), residual.as_mut_ptr()]
    }
}

/// Whether some vector's groups do not lie in one vector of the input.
fn straddles(s: &ConvShape, lanes: usize) -> bool {
    let (icg, ocg) = (s.icg(), s.ocg());
    // Where groups start in vectors of inputs and outputs repeats after a vector of them.
    (0..s.groups.min(lanes)).any(|g| {
        let (first, end) = (g * icg, (g + 1) * icg);
        let last = if g + 1 < s.groups && !((g + 1) * ocg).is_multiple_of(lanes) { end + icg } else { end } - 1;
        first / lanes != last / lanes
    })
}

/// Blocked input: which image, row and channel block its start stands for.
struct Input<'a> {
    x: &'a [f32],
    /// Number of images before the wanted one.
    image: usize,
    /// First row.
    row: usize,
    /// First block.
    block: usize,
    strides: Strides,
    /// As of the plan, for input that lies so.
    sweep: Option<&'a Sweep>,
}
