//! Which tiles cover a run of pixels and some blocks of output channels: functions of the core and of the tiles' sizes.

use std::sync::OnceLock;

use super::args::Access;
use super::table::{MAX_BLOCKS, MAX_MR, Row, rows, sizes};
use crate::isa::Level;
use crate::layout::BLOCK;
use crate::machine::Core;

/// Runs of more pixels than this are cut like runs of this many: edge waste no longer depends on the length.
const MANY: usize = 56;

/// The tiles of one core and access, by size. Of a level that is not compiled in it has sizes alone, by which it
/// chooses, and no kernels.
#[derive(Debug)]
pub struct TileSet {
    rows: [[Option<&'static Row>; MAX_MR + 1]; MAX_BLOCKS + 1],
    max_mr: [usize; MAX_BLOCKS + 1],
    /// Widest tile, in blocks of output channels.
    pub max_blocks: usize,
    /// The best width for each number of blocks and pixels, and its cycles.
    widths: [[u8; MANY + 1]; MAX_BLOCKS + 1],
    cycles: [[u16; MANY + 1]; MAX_BLOCKS + 1],
    /// What it was made by beside its place in [`SETS`]: [`Core::in_flight`]. The sets in that place that were made by
    /// another number follow.
    in_flight: usize,
    next: OnceLock<Box<TileSet>>,
}

/// The sets that were asked for, by level, access, whether their last block is a half, and whether sums are short. A
/// plan asks for a dozen, and working out the best widths of one takes 10 microseconds. Each in a box: 190 kB of
/// programs were sets yet to come.
static SETS: [OnceLock<Box<TileSet>>; Level::ALL.len() * Access::COUNT * 4] =
    [const { OnceLock::new() }; Level::ALL.len() * Access::COUNT * 4];

impl TileSet {
    /// The tiles of whole blocks that the core's level has for `access`, for sums of so many terms.
    pub fn new(core: Core, access: Access, terms: usize) -> &'static Self {
        Self::known(core, access, false, terms)
    }

    /// The tiles whose last block is a half, if the level has such: as many blocks wide as [`TileSet::max_blocks`]
    /// says, or fewer. Granite Rapids, 96 and 144 -> 24 channels at 56x56: 110 GFLOP/s by half tiles, 128 by whole
    /// ones; so plans ask [`Core::halves_gain`].
    pub fn half(core: Core, access: Access, terms: usize) -> Option<&'static Self> {
        let set = Self::known(core, access, true, terms);
        (set.max_blocks > 0).then_some(set)
    }

    fn known(core: Core, access: Access, half: bool, terms: usize) -> &'static Self {
        let overhead = Overhead::new(core, access, terms);
        let number = (core.level as usize * Access::COUNT + access as usize) * 4;
        let mut place = &SETS[number + 2 * usize::from(half) + usize::from(overhead.short)];
        loop {
            let set =
                place.get_or_init(|| Box::new(Self::of(core, access, if half { BLOCK / 2 } else { 0 }, overhead)));
            if set.in_flight == core.in_flight {
                return set;
            }
            place = &set.next;
        }
    }

    /// The tiles that are `missing` channels short of whole blocks.
    fn of(core: Core, access: Access, missing: usize, overhead: Overhead) -> Self {
        let fits = |of: Access, cols: usize| of == access && (cols + missing).is_multiple_of(BLOCK);
        let mut set = Self {
            rows: [[None; MAX_MR + 1]; MAX_BLOCKS + 1],
            max_mr: [0; MAX_BLOCKS + 1],
            max_blocks: 0,
            widths: [[1; MANY + 1]; MAX_BLOCKS + 1],
            cycles: [[0; MANY + 1]; MAX_BLOCKS + 1],
            in_flight: core.in_flight,
            next: OnceLock::new(),
        };
        for size in sizes(core.level).iter().filter(|s| fits(s.access, s.cols.into())) {
            let (blocks, mr) = (usize::from(size.cols).div_ceil(BLOCK), usize::from(size.mr));
            set.max_mr[blocks] = set.max_mr[blocks].max(mr);
            set.max_blocks = set.max_blocks.max(blocks);
        }
        for row in rows(core.level).iter().filter(|r| fits(r.access, r.cols)) {
            set.rows[row.blocks][row.mr] = Some(row);
        }
        for blocks in 1..=MAX_BLOCKS {
            for pixels in 1..=MANY {
                let (width, cycles) = best_width(core, &set.max_mr, overhead, pixels, blocks);
                (set.widths[blocks][pixels], set.cycles[blocks][pixels]) = (width as u8, cycles as u16);
            }
        }
        set
    }

    /// Most pixels of a tile that is `blocks` wide.
    pub fn max_mr(&self, blocks: usize) -> usize {
        self.max_mr[blocks]
    }

    /// Most pixels of any tile.
    pub fn longest(&self) -> usize {
        self.max_mr.into_iter().max().unwrap_or(1)
    }

    /// The tile of `mr` pixels and `blocks` blocks, which must not exceed `max_mr(blocks)`.
    ///
    /// # Panics
    /// If the level is not compiled in.
    #[inline]
    pub fn get(&self, mr: usize, blocks: usize) -> &'static Row {
        self.rows[blocks][mr].expect("the level is compiled in, and sizes are contiguous up to the largest")
    }

    /// Name of the tile of `mr` pixels and `blocks` blocks; `none` if the level is not compiled in.
    pub fn name(&self, mr: usize, blocks: usize) -> &'static str {
        self.rows[blocks][mr].map_or("none", |row| row.name)
    }

    /// How wide tiles should be that cover `blocks` output-channel blocks, at most [`MAX_BLOCKS`], and runs of `pixels`
    /// pixels: the width with the fewest cycles per step of the reduction, counting a tile's multiply-adds against its
    /// loads and latency; between equals, the one that streams fewer weights, then the one with fewer loads, for short
    /// sums the other way round.
    #[inline]
    pub fn best_width(&self, pixels: usize, blocks: usize) -> usize {
        self.widths[blocks][pixels.min(MANY)].into()
    }

    /// Cycles that these tiles take for a step of the reduction, in multiply-adds; of long runs, those of the first
    /// pixels.
    pub fn cycles(&self, pixels: usize, blocks: usize) -> usize {
        self.cycles[blocks][pixels.min(MANY)].into()
    }
}

/// What tiles cost beside their multiply-adds.
#[derive(Clone, Copy)]
pub(crate) struct Overhead {
    /// Cycles that a small tile loses with each step.
    small: usize,
    /// Whether sums are so short that what counts is how fast tiles follow each other. Wide ones of few pixels load
    /// least, and the weights of such sums are near.
    short: bool,
}

impl Overhead {
    /// None.
    pub(crate) const NONE: Overhead = Overhead { small: 0, short: false };

    /// Of the tiles of a core, for sums of so many terms. All cores with AVX-512 have what was measured where it has
    /// two multiply-adds and two loads a cycle, on a Granite Rapids:
    ///
    /// * a small tile loses about half a cycle: of what 12x32 and larger ones, 6x48 and 5x64 reach, 7x32 to 11x32 reach
    ///   93 to 96 %, 5x48 93 %, 4x64 91 %;
    /// * each tile of 14x32 takes some 30 cycles more than its multiply-adds, 6x64 5 to 10. 1x1 layers of 16 to 384
    ///   input channels are 2 to 8 % faster by the latter, those of 512 and more as fast or 3 % slower; 3x3 of stride 2
    ///   with 128 channels still 4 % faster, with 192 1 % slower.
    fn new(core: Core, access: Access, terms: usize) -> Self {
        let wide = core.level == Level::Avx512;
        let short = if access == Access::Blocked2 { 1152 } else { 384 };
        Self { small: usize::from(wide), short: wide && terms <= short }
    }
}

/// The width with the lowest cost, as [`TileSet::best_width`] states it, of tiles of a core that have at most
/// `max_mr[width]` pixels, and its cycles.
pub(crate) fn best_width(
    core: Core,
    max_mr: &[usize; MAX_BLOCKS + 1],
    overhead: Overhead,
    pixels: usize,
    blocks: usize,
) -> (usize, usize) {
    let cost = |width: usize| {
        let (mut cycles, mut weights, mut loads) = (0, 0, 0);
        for (_, nb) in pieces(blocks, width) {
            for (_, mr) in pieces(pixels, max_mr[nb]) {
                let nv = nb * BLOCK / core.level.lanes();
                // AVX-512: one multiply-add and one load per cycle; else two and two.
                cycles += (mr * nv).max(mr + nv).max(core.in_flight);
                if mr * nv < 18 || nv == 2 && mr < 12 {
                    cycles += overhead.small;
                }
                weights += nv;
                loads += mr + nv;
            }
        }
        if overhead.short { (cycles, loads, weights) } else { (cycles, weights, loads) }
    };
    let widths = (1..=MAX_BLOCKS.min(blocks)).filter(|&w| max_mr[w] > 0);
    widths.map(|w| (w, cost(w))).min_by_key(|&(_, cost)| cost).map_or((1, 0), |(w, (cycles, ..))| (w, cycles))
}

/// Whether tiles of a core should ask for their output's lines before a new sum of so many terms, where a thread writes
/// so many bytes of output. Always, so that the stores do not wait for them, but on a core with 512-bit units (which is
/// one where half tiles gain nothing): a Granite Rapids mostly sees the stores coming. With | without, one thread,
/// GFLOP/s:
///
/// * 1x1 16->96, output of 4.8 MB 149 | 158, 9.8 MB 129 | 123, 77 MB 87 | 72;
/// * stems 3->32, 1.6 MB 161 | 169, 6.4 MB 132 | 131, 3->64, 12.6 MB 147 | 138; of 9 terms 1->32, 1.6 MB 114 | 110, 6.4
///   MB 95 | 85;
/// * in L2 1x1 layers are 0.5 to 1 % faster without.
pub fn fetches_output(core: Core, terms: usize, bytes: usize) -> bool {
    core.halves_gain || terms < BLOCK || bytes > 3 * core.l2_bytes
}

/// Cuts `total` into the fewest pieces of at most `max`, as equal as possible: `(start, length)`, longer ones first.
#[inline]
pub fn pieces(total: usize, max: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let n = total.div_ceil(max);
    let (base, longer) = (total.checked_div(n).unwrap_or(0), total.checked_rem(n).unwrap_or(0));
    (0..n).map(move |i| (i * base + i.min(longer), base + usize::from(i < longer)))
}

/// The same as at most two runs of equal pieces: `(start, length, number)`.
#[inline]
pub fn runs(total: usize, max: usize) -> impl Iterator<Item = (usize, usize, usize)> + Clone {
    let n = total.div_ceil(max);
    let (base, longer) = (total.checked_div(n).unwrap_or(0), total.checked_rem(n).unwrap_or(0));
    let all = [(0, base + 1, longer), (longer * (base + 1), base, n - longer)];
    all.into_iter().filter(|&(_, _, n)| n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_once() {
        for (total, max) in [(56, 14), (49, 14), (1, 14), (0, 3), (5, 5), (29, 14)] {
            let mut end = 0;
            for (start, len) in pieces(total, max) {
                assert_eq!(start, end);
                assert!((1..=max).contains(&len));
                end += len;
            }
            assert_eq!(end, total);
            let one_by_one = runs(total, max).flat_map(|(start, len, n)| (0..n).map(move |i| (start + i * len, len)));
            assert!(one_by_one.eq(pieces(total, max)));
        }
    }

    /// The width of tiles in blocks of output channels, and the cycles of a step, for runs of pixels and numbers of
    /// blocks: on known cores, on any machine.
    #[test]
    fn widths_of_known_cores() {
        let runs = [(56, 4), (14, 4), (7, 4), (7, 3), (4, 2), (1, 4)];
        let (long, short) = ((Access::Blocked1, 576), (Access::Blocked1, 64));
        let avx2 = [(1, 448), (1, 112), (1, 64), (1, 48), (1, 16), (2, 16)];
        let avx512 = [(2, 224), (2, 56), (2, 30), (3, 21), (2, 9), (4, 6)];
        let avx512_short = [(4, 224), (2, 56), (4, 30), (3, 21), (2, 9), (4, 6)];
        let neon = [(1, 896), (1, 224), (1, 112), (1, 84), (1, 32), (2, 18)];
        for (core, (access, terms), wanted) in [
            (Core::ZEN3, long, avx2),
            (Core::ZEN3, short, avx2),
            (Core::ZEN3, (Access::Blocked2, 1152), [(1, 448), (1, 112), (1, 64), (1, 48), (1, 16), (1, 32)]),
            (Core::ZEN4, long, avx512),
            (Core::ZEN5, long, avx512),
            (Core::GRANITE_RAPIDS, long, avx512),
            (Core::ZEN4, short, avx512_short),
            (Core::GRANITE_RAPIDS, short, avx512_short),
            (Core::GRANITE_RAPIDS, (Access::Packed, 64), [(2, 224), (2, 56), (2, 30), (2, 24), (2, 9), (2, 10)]),
            (Core::NEOVERSE_V2, long, neon),
            (Core::APPLE_M1, short, neon),
        ] {
            let set = TileSet::new(core, access, terms);
            let got = runs.map(|(pixels, blocks)| (set.best_width(pixels, blocks), set.cycles(pixels, blocks)));
            assert_eq!(got, wanted, "{access:?}, {terms} terms, {core:?}");
        }
    }

    /// Output is asked for ahead where half tiles gain, for the shortest sums, and where more than three level-2 caches
    /// are written.
    #[test]
    fn outputs_are_fetched_on_known_cores() {
        let fetches = |core: Core, terms, mib: usize| fetches_output(core, terms, mib << 20);
        for core in [Core::ZEN3, Core::ZEN4, Core::NEOVERSE_V2, Core::APPLE_M1] {
            assert!(fetches(core, 64, 1) && fetches(core, 9, 1) && fetches(core, 64, 100));
        }
        assert!(!fetches(Core::GRANITE_RAPIDS, 64, 6) && fetches(Core::GRANITE_RAPIDS, 64, 7));
        assert!(!fetches(Core::ZEN5, 64, 3) && fetches(Core::ZEN5, 64, 4));
        assert!(fetches(Core::GRANITE_RAPIDS, 15, 1) && !fetches(Core::GRANITE_RAPIDS, 16, 1));
    }
}
