//! One run: from parts down to tiles, and from sums to weights.

use core::ops::Range;
use core::ptr;

use super::{BackwardWeights, Unit, WIDEST};
use crate::exec::{Executor, Shared, cut, for_each_part_with, parts_wanted};
use crate::isa::{Isa, Level};
use crate::layout::{BLOCK, Layout, Strides, blocks};
use crate::machine::Core;
use crate::pass::{Body, Place};
use crate::reorder::interleave;
use crate::shape::ConvShape;
use crate::tile::{Edge, Finish, Loop, Output, Row, Soon, Steps, Sweep, TileArgs, runs};

/// What the bias's gradient multiplies.
static ONE: f32 = 1.0;

/// The plan and its tensors, `x` and `dy` in blocks.
pub(super) struct Run<'a> {
    pub d: &'a BackwardWeights,
    pub x: &'a [f32],
    pub dy: &'a [f32],
    pub dw: Shared<'a>,
    pub db: Option<Shared<'a>>,
}

/// The output pixels of a tap in a segment.
#[derive(Clone)]
struct Pixels {
    images: Range<usize>,
    rows: Range<usize>,
    columns: Range<usize>,
}

/// Where sums go: those of a block of output channels, from its first row on.
#[derive(Clone, Copy)]
struct Sums {
    y: *mut f32,
    /// From output channel to output channel.
    row: usize,
    /// From block to block of output channels.
    block: usize,
    /// From block to block of input channels.
    across: usize,
    /// Input channels that exist, if not all are stored.
    cols: usize,
    /// Whether to add to what is there.
    add: bool,
}

impl Run<'_> {
    /// Single taps: the weights of whole blocks of output channels hold the sums.
    pub fn in_place(&self, executor: &dyn Executor) {
        let d = self.d;
        let s = &d.compact;
        let (of, icbs) = (d.first(), blocks(s.ic));
        if of == 0 {
            return;
        }
        // Threads share out the longer side, of which inputs go several blocks at a time, so that each reads a part of that tensor alone.
        let widths = icbs.div_ceil(d.wide);
        let parts = if executor.threads() == 1 { 1 } else { parts_wanted(executor.threads()).min(of.max(widths)) };
        for_each_part_with(executor, parts, &mut [], 0, |part, _| {
            let (ocbs, ics) =
                if of > widths { (cut(of, parts, part), 0..icbs) } else { (0..of, cut(icbs, parts, part)) };
            for segment in 0..d.segments.len() {
                let add = segment > 0;
                for icbs in d.widths(ics.clone()) {
                    let first = icbs.start * BLOCK;
                    let y = self.dw.at(ocbs.start * BLOCK * s.ic + first);
                    let sums = Sums { y, row: s.ic, block: BLOCK * s.ic, across: BLOCK, cols: s.ic - first, add };
                    self.tap(&Unit { icbs, ocbs: ocbs.clone() }, [0, 0], &self.pixels(segment, [0, 0]), sums);
                }
                if let Some(db) = self.db.filter(|_| ics.start == 0) {
                    let sums = Sums { y: db.at(ocbs.start * BLOCK), row: 0, block: BLOCK, across: 0, cols: BLOCK, add };
                    self.bias(&ocbs, segment, sums);
                }
            }
        });
    }

    /// One segment: a unit's sums are written to the weights as soon as they are complete.
    pub fn at_once(&self, sums: &mut [f32], executor: &dyn Executor) {
        let d = self.d;
        for_each_part_with(executor, d.units(), sums, d.unit_len(), |i, sums| {
            if let Some(unit) = d.unit(i) {
                self.sum(&unit, 0, false, &Shared::new(sums));
                self.store(&unit, sums);
            }
        });
    }

    /// Several segments: all sums of a slice go on from one to the next.
    pub fn in_segments(&self, sums: &mut [f32], executor: &dyn Executor) {
        let d = self.d;
        let (units, len) = (d.units(), d.unit_len());
        if units == 0 {
            return;
        }
        // A few parts for each thread, unless there are as many slices.
        let threads = executor.threads();
        let chunks = if threads == 1 { 1 } else { parts_wanted(threads).div_ceil(d.slices).min(units) };
        let shared = Shared::new(sums);
        // SAFETY (of whoever dereferences): unit `i` of a slice lies in the scratch.
        let unit_sums = |slice: usize, i: usize| shared.at((slice * units + i) * len);
        for_each_part_with(executor, d.slices * chunks, &mut [], 0, |part, _| {
            let (slice, chunk) = (part / chunks, part % chunks);
            let segments = cut(d.segments.len(), d.slices, slice);
            for segment in segments.clone() {
                for i in cut(units, chunks, chunk) {
                    let Some(unit) = d.unit(i) else { continue };
                    // SAFETY: the unit's sums of this slice belong to this part alone.
                    let sums = unsafe { core::slice::from_raw_parts_mut(unit_sums(slice, i), len) };
                    self.sum(&unit, segment, segment > segments.start, &Shared::new(sums));
                }
            }
        });
        for_each_part_with(executor, units, &mut [], 0, |i, _| {
            let Some(unit) = d.unit(i) else { return };
            // SAFETY: the unit's sums of all slices belong to this part alone.
            let sums = unsafe { core::slice::from_raw_parts_mut(unit_sums(0, i), len) };
            for slice in 1..d.slices {
                // SAFETY: as above.
                let more = unsafe { core::slice::from_raw_parts(unit_sums(slice, i), len) };
                // Sums of blocks that the unit lacks were never written; nor those of channels that do not exist, which are not stored.
                for at in (0..unit.ocbs.len()).flat_map(|o| (0..unit.icbs.len()).map(move |i| o * d.wide + i)) {
                    let pair = at * d.pair_len()..(at + 1) * d.pair_len();
                    sums[pair.clone()].iter_mut().zip(&more[pair]).for_each(|(sum, more)| *sum += more);
                }
            }
            self.store(&unit, sums);
        });
    }

    /// The sums of a unit over a segment; added to what is there, or in place of it.
    fn sum(&self, unit: &Unit, segment: usize, add: bool, sums: &Shared<'_>) {
        let d = self.d;
        let s = &d.compact;
        let to = |at: usize, row: usize| {
            let [block, across] = [d.wide * d.pair_len(), d.pair_len()];
            Sums { y: sums.at(at), row, block, across, cols: WIDEST * BLOCK, add }
        };
        for tap in 0..d.taps() {
            let tap_at = [tap / s.kw, tap % s.kw];
            self.tap(unit, tap_at, &self.pixels(segment, tap_at), to(tap * BLOCK * BLOCK, BLOCK));
        }
        if self.db.is_some() && d.inputs(unit.ocbs.start).start == unit.icbs.start {
            self.bias(&unit.ocbs, segment, to(d.taps() * BLOCK * BLOCK, 0));
        }
    }

    /// The pixels of a segment for which a tap lies inside the input.
    fn pixels(&self, segment: usize, [ky, kx]: [usize; 2]) -> Pixels {
        let d = self.d;
        let (images, rows) = d.segments.at(&d.compact, segment);
        let valid = d.y.outputs(ky);
        let rows = valid.start.max(rows.start)..valid.end.min(rows.end);
        Pixels { images, rows, columns: d.x.outputs(kx) }
    }

    /// The sums of a tap over its pixels, for all blocks of a unit.
    fn tap(&self, unit: &Unit, [ky, kx]: [usize; 2], pixels: &Pixels, sums: Sums) {
        let d = self.d;
        let s = &d.compact;
        let (xs, ds) = self.strides();
        // The first pixel that the tap reads, if there is one.
        let iy = (pixels.rows.start * s.sh + ky * s.dh).wrapping_sub(s.pad.top);
        let ix = (pixels.columns.start * s.sw + kx * s.dw).wrapping_sub(s.pad.left);
        let x_at = (pixels.images.start * xs.n + unit.icbs.start * xs.block)
            .wrapping_add(iy.wrapping_mul(xs.row))
            .wrapping_add(ix.wrapping_mul(xs.px));
        let x = (self.x.as_ptr().wrapping_add(x_at), [xs.n, s.sh * xs.row, s.sw * xs.px]);
        let wide = unit.icbs.len();
        for (o, mr, n) in runs(d.rows(unit), d.most(wide)) {
            let dy = (self.dy.as_ptr().wrapping_add(self.dy_at(&ds, &unit.ocbs, pixels) + o), [ds.n, ds.row, ds.px]);
            let sums = Sums { y: sums.y.wrapping_add(o * sums.row), ..sums };
            // Equal pieces of a block follow each other, which read the same lines.
            let tiles = Steps { n, x: mr, y: mr * sums.row };
            let args = args(s.ow, pixels, dy, x, (wide, xs.block), (tiles, unit.ocbs.len(), ds.block), sums);
            // SAFETY:
            // * the level is available, and tensors have the lengths of their layouts (asserted in `run`);
            // * the pixels are those outputs for which the tap lies inside the input, in each axis; blocks are below
            //   the tensors', and have all of their channels;
            // * the sums hold the tile's rows of each block of the unit: in scratch by their position in a pair's, in
            //   the weights because all of these output channels exist, and `cols` says which input channels do.
            unsafe { (d.tile(wide, mr).run)(&args) };
        }
    }

    /// The sums of `dy` itself over a segment: a tile of one row whose input is one everywhere, block by block.
    fn bias(&self, ocbs: &Range<usize>, segment: usize, sums: Sums) {
        let s = &self.d.compact;
        let (images, rows) = self.d.segments.at(s, segment);
        let pixels = Pixels { images, rows, columns: 0..s.ow };
        let (_, ds) = self.strides();
        for (i, ocb) in ocbs.clone().enumerate() {
            let at = self.dy_at(&ds, &(ocb..ocb + 1), &pixels);
            let dy = (self.dy.as_ptr().wrapping_add(at), [ds.n, ds.row, ds.px]);
            let sums = Sums { y: sums.y.wrapping_add(i * sums.block), ..sums };
            let tiles = Sweep::ONE.tiles;
            let args = args(s.ow, &pixels, (&ONE, [0; 3]), dy, (1, 0), (tiles, 1, 0), sums);
            // SAFETY: as in `tap`; all steps of the one are zero.
            unsafe { (self.d.tile(1, 1).run)(&args) };
        }
    }

    /// Where the first of some pixels lies in the first of some blocks of `dy`.
    fn dy_at(&self, ds: &Strides, ocbs: &Range<usize>, pixels: &Pixels) -> usize {
        let (row, column) = (pixels.rows.start * ds.row, pixels.columns.start * ds.px);
        pixels.images.start * ds.n + ocbs.start * ds.block + row + column
    }

    /// The strides of `x` and `dy`.
    fn strides(&self) -> (Strides, Strides) {
        let s = &self.d.compact;
        (Layout::Blocked.strides(s.input()), Layout::Blocked.strides(s.output()))
    }

    /// Stores a unit's sums.
    fn store(&self, unit: &Unit, sums: &[f32]) {
        let d = self.d;
        for (i, ocb) in unit.ocbs.clone().enumerate() {
            let sums = &sums[i * d.wide * d.pair_len()..];
            let icbs = unit.icbs.clone();
            let pairs = Pairs { shape: &d.compact, dw: self.dw, ocb, icbs, sums, len: d.pair_len() };
            // SAFETY: units have disjoint pairs, and each is stored once.
            unsafe { pairs.store(d.core.level) };
            if let Some(db) = self.db.filter(|_| d.inputs(ocb).start == unit.icbs.start) {
                let of_bias = &sums[d.taps() * BLOCK * BLOCK..];
                let channels = ocb * BLOCK..((ocb + 1) * BLOCK).min(d.compact.oc);
                // SAFETY: the channels exist, and only the first unit of their block stores them.
                let to = unsafe { core::slice::from_raw_parts_mut(db.at(channels.start), channels.len()) };
                to.copy_from_slice(&of_bias[..channels.len()]);
            }
        }
    }
}

/// The arguments of tiles, for outputs `ow` pixels wide, of `wide` blocks, `across` floats apart, of what gives the lanes, for these
/// tiles of each of `blocks` blocks, `block` floats apart, of what gives the rows. Both operands move by their steps from image to image, output row to output row, and pixel to pixel.
fn args(
    ow: usize,
    pixels: &Pixels,
    (rows, row_steps): (*const f32, [usize; 3]),
    (lanes, lane_steps): (*const f32, [usize; 3]),
    (wide, across): (usize, usize),
    (tiles, blocks, block): (Steps, usize, usize),
    sums: Sums,
) -> TileArgs {
    let none = pixels.images.is_empty() || pixels.rows.is_empty() || pixels.columns.is_empty();
    // Whole rows that follow each other without a gap are one.
    let adjacent = |[_, row, px]: [usize; 3]| row == ow * px;
    let (lines, depth) = if pixels.columns.len() == ow && adjacent(row_steps) && adjacent(lane_steps) {
        (1, pixels.rows.len() * ow)
    } else {
        (pixels.rows.len(), pixels.columns.len())
    };
    let images = if none { 0 } else { pixels.images.len() };
    let added = Finish {
        bias: ptr::null(),
        residual: sums.y,
        lo: f32::NEG_INFINITY,
        hi: f32::INFINITY,
        act: None,
        act_params: [0.0; 2],
    };
    TileArgs {
        x: rows,
        w: lanes,
        loops: [
            Loop { n: images, x: row_steps[0], w: lane_steps[0] },
            Loop { n: lines, x: row_steps[1], w: lane_steps[1] },
            Loop::ONCE,
        ],
        depth,
        head: 0,
        tail: depth,
        px: row_steps[2],
        ahead: 0,
        w_block: across,
        w_step: lane_steps[2],
        accumulate: false,
        fetch_output: true,
        edge: Edge::NONE,
        out: Output {
            y: sums.y,
            px: sums.row,
            block: sums.across,
            channel: 1,
            cols: sums.cols.min(wide * BLOCK),
            pad_cols: false,
            finish: sums.add.then_some(added),
        },
        sweep: Sweep { tiles, rows: Steps { n: blocks, x: block, y: sums.block } },
        soon: Soon::NONE,
    }
}

/// The gradient at the bias alone, from blocked gradients.
///
/// # Panics
/// If a slice is shorter than the shape says.
pub(crate) fn biases(s: &ConvShape, core: Core, dy: &[f32], db: &mut [f32], executor: &dyn Executor) {
    let d = BackwardWeights::new(s, core, Layout::Blocked, Layout::Blocked);
    assert_eq!(dy.len(), Layout::Blocked.len(s.output()));
    assert_eq!(db.len(), s.oc);
    let db = Shared::new(db);
    let run = Run { d: &d, x: &[], dy, dw: Shared::new(&mut []), db: None };
    for_each_part_with(executor, blocks(s.oc), &mut [], 0, |ocb, _| {
        for segment in 0..d.segments.len() {
            let (y, cols) = (db.at(ocb * BLOCK), s.oc - ocb * BLOCK);
            run.bias(&(ocb..ocb + 1), segment, Sums { y, row: 0, block: 0, across: 0, cols, add: segment > 0 });
        }
    });
}

/// The sums `[tap][16 oc][16 ic]` of a block of output channels and some of inputs, to be stored to weights
/// `[oc, ic / groups, kh, kw]`: of those channels that exist and lie in one group.
pub(crate) struct Pairs<'a> {
    pub shape: &'a ConvShape,
    pub dw: Shared<'a>,
    pub ocb: usize,
    pub icbs: Range<usize>,
    /// Those of the first pair, and how far it is from pair to pair.
    pub sums: &'a [f32],
    pub len: usize,
}

impl Pairs<'_> {
    /// Stores them, with the instructions of an available level.
    ///
    /// # Safety
    /// Nobody else stores the weights of these pairs at the same time.
    pub unsafe fn store(self, level: Level) {
        Place::inline(level).at(self);
    }
}

impl Body for Pairs<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { shape: s, dw, ocb, icbs, sums, len } = self;
        let (taps, icg, ocg) = (s.kh * s.kw, s.icg(), s.ocg());
        // An output channel's weights follow each other, those of the next one lie in another page: they are asked for meanwhile.
        for o in ocb * BLOCK..((ocb + 1) * BLOCK).min(s.oc) {
            let first = o / ocg * icg;
            for (i, icb) in icbs.clone().enumerate() {
                let ics = first.max(icb * BLOCK)..(first + icg).min((icb + 1) * BLOCK);
                if ics.is_empty() {
                    continue;
                }
                let (at, lane) = ((o * icg + ics.start - first) * taps, ics.start % BLOCK);
                let weights = ics.len() * taps;
                for line in (0..weights).step_by(BLOCK) {
                    isa.prefetch_write(dw.at(at).wrapping_add(icg * taps + line));
                }
                // SAFETY: no other pair has these weights.
                let to = unsafe { dw.part(at, weights) };
                // Weights of an input channel are adjacent.
                interleave(isa, &sums[i * len + o % BLOCK * BLOCK + lane..], BLOCK * BLOCK, taps, to.into());
            }
        }
    }
}

impl BackwardWeights {
    /// Output channels of the largest tile of so many blocks of input.
    fn most(&self, wide: usize) -> usize {
        self.tiles[wide - 1].iter().rposition(Option::is_some).expect("units are as wide as there are tiles")
    }

    /// Output channels of each of a unit's blocks that tiles compute: of a last block by itself no more than make whole tiles.
    fn rows(&self, unit: &Unit) -> usize {
        let exist = if unit.ocbs.len() == 1 { BLOCK.min(self.compact.oc - unit.ocbs.start * BLOCK) } else { BLOCK };
        let (tiles, most) = (&self.tiles[unit.icbs.len() - 1], self.most(unit.icbs.len()));
        let whole = |rows: &usize| runs(*rows, most).all(|(_, mr, _)| tiles[mr].is_some());
        (exist..BLOCK).find(whole).unwrap_or(BLOCK)
    }

    fn tile(&self, wide: usize, mr: usize) -> &'static Row {
        self.tiles[wide - 1][mr].expect("the pieces of a block have tiles")
    }
}
