//! How the loops of a direct convolution are cut: for caches, and for threads.

use core::ops::Range;

use super::{Direct, SCRATCH};
use crate::exec::{cut, parts_wanted};
use crate::layout::{BLOCK, blocks};
use crate::tile::MAX_MR;

/// Cache blocking. Any values give the same bits; [`Direct::new`] chooses good ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocking {
    /// Images that go through a panel's chunk before the next chunk; more than one only with whole images.
    pub images: usize,
    /// Output rows that go through all panels before the next rows.
    pub rows: usize,
    /// Output columns likewise; less than a row only where an image is one long row.
    pub cols: usize,
    /// Output-channel blocks of a panel, 1 to 4.
    pub panel: usize,
    /// Input-channel blocks (NCHW: channels) that are summed before the next rows of a panel.
    pub chunk: usize,
}

/// What starting a chunk of a panel costs, as bytes that move into the cache in that time.
const START: usize = 8 << 10;

/// Streams that the hardware's prefetchers follow.
const STREAMS: f64 = 8.0;

/// What waiting for memory costs, in bytes that move into the cache in the time that one byte is waited for.
const WAITS: f64 = 13.0;

/// What bringing an input in again for another sweep costs, of what other bytes cost: tiles fetch it ahead.
const SWEEP: f64 = 0.25;

/// Bytes of L3 that other data leave to an input.
const L3: usize = 8 << 20;

/// Bytes of packed weights from which on threads share out panels instead of rows.
const HEAVY_WEIGHTS: usize = 512 << 10;

impl Blocking {
    /// Four of the longest tiles: columns are not cut finer.
    pub(super) const MIN_COLS: usize = 4 * MAX_MR;

    /// The blocking that moves the fewest bytes, by a model of a level-2 cache of `l2` bytes:
    ///
    /// * weights come in once for each block of pixels, unless all of them stay;
    /// * the input of a block comes in once, again for each panel unless it stays beside a panel's chunk, and again for
    ///   each sweep of tiles over a panel unless a chunk of it stays, which costs [`SWEEP`];
    /// * partial sums are read and written once for each chunk but one. They count in full even where they stay: what a
    ///   tile waits for them is as long;
    /// * weights of a sweep that do not stay come in for every tile;
    /// * [`START`] for each chunk of a panel;
    /// * input from memory, for 1x1: the hardware follows some eight streams, so of a chunk with more channel blocks each
    ///   line is waited for. 512 -> 128 channels at 28x28, 16 images: 32 blocks take 1.24 times as long as 8, 16 blocks 1.06.
    ///
    /// Of what is as large as half of a cache all stays, of what is one and a half times as large nothing does: other data
    /// and the placing of pages make the limit soft. On Zen 3, 38 layers with up to 96 blockings each, the choice takes 1.6 %
    /// more time than the fastest that was measured, of which noise is about 1 %.
    pub(super) fn choose(d: &Direct, flat: bool, l2: usize) -> Self {
        let s = &d.shape;
        let widest = d.blocking.panel;
        let channel_step = if d.plain() { 1 } else { BLOCK };
        let weights = 4 * d.packed_len();
        let tile = d.tiles.rows.longest();
        let whole = Self { images: 1, rows: d.y.output, cols: d.x.output, panel: widest, chunk: d.span };
        // Planes of less than a page follow each other in one stream.
        let streams = (s.kh, s.kw) == (1, 1) && !d.plain() && !d.compact && s.ih * s.iw * BLOCK * 4 > 4096;
        let beyond = |bytes: usize, cache: usize| (bytes as f64 / cache as f64 - 0.5).clamp(0.0, 1.0);
        let lost = |bytes: usize| beyond(bytes, l2);
        let from_memory = if streams { WAITS * beyond(4 * d.input.len(s.input()), L3) } else { 0.0 };
        let traffic = |b: &Self| -> f64 {
            let (panel, panels) = (b.panel, d.pieces.total().div_ceil(b.panel));
            let sweeps = panel.div_ceil(d.tiles.rows.best_width(b.cols, panel));
            // Rows that a stride steps over do not count. Columns do: what is read lies in every other line, so that it
            // has only every other set of the cache.
            let pixels_in = b.images * if flat { b.cols } else { d.y.read(b.rows) * s.iw };
            let channels =
                |steps: usize| (steps * channel_step).min(d.channels(0).len().next_multiple_of(channel_step));
            let input = |steps: usize| 4 * pixels_in * channels(steps);
            let output = 64 * panel * b.images * b.rows * b.cols;
            let chunk = 4 * d.step_len() * panel * b.chunk;
            let chunks = d.span.div_ceil(b.chunk);
            let n = s.n.max(1).div_ceil(b.images) * d.y.output.div_ceil(b.rows) * d.x.output.div_ceil(b.cols);
            // Products of these numbers need not fit.
            let product = |factors: &[usize]| factors.iter().map(|&v| v as f64).product::<f64>();
            let weights_again = (n - 1) as f64 * lost(input(d.span) + weights + output);
            let input_again = (panels - 1) as f64 * lost(input(d.span) + chunk + output)
                + SWEEP * product(&[panels, sweeps - 1]) * lost(input(b.chunk) + (chunk + output) / sweeps);
            let waits = from_memory * ((b.chunk as f64 - STREAMS) / (3.0 * STREAMS)).clamp(0.0, 1.0);
            let sums = 2.0 * product(&[output, panels, chunks - 1]);
            let tiles = b.images * b.rows * b.cols.div_ceil(tile);
            let spill = product(&[chunk, panels, chunks, tiles - 1]) * lost(chunk / sweeps);
            weights as f64 * (1.0 + weights_again)
                + n as f64
                    * (input(d.span) as f64 * (1.0 + input_again + waits)
                        + sums
                        + product(&[START, panels, chunks])
                        + spill)
        };
        let mut best = (f64::INFINITY, whole);
        let mut consider = |b: Self| {
            if d.compact && b.images * b.cols * blocks(s.ic) * BLOCK > SCRATCH {
                return;
            }
            let t = traffic(&b);
            // Among equals the first, whose pieces are the largest.
            if t < best.0 {
                best = (t, b);
            }
        };
        // Half a panel, where its weights stay in cache for all input channels: 512 channels, 3x3 at 7x7, 132 -> 139
        // GFLOP/s. It is wide enough for the best tiles.
        let narrow = (s.groups == 1 && widest == 4).then_some(2);
        for panel in core::iter::once(widest).chain(narrow) {
            for chunk in halvings(d.span) {
                let whole = Self { panel, chunk, ..whole };
                if flat {
                    for cols in halvings(d.x.output) {
                        let cols = cols.next_multiple_of(tile).max(4 * tile).min(d.x.output);
                        consider(Self { cols, ..whole });
                        if cols <= 4 * tile {
                            break; // none are shorter
                        }
                    }
                } else {
                    halvings(d.y.output).for_each(|rows| consider(Self { rows, ..whole }));
                }
                halvings(s.n.max(1)).for_each(|images| consider(Self { images, ..whole }));
            }
        }
        best.1
    }
}

/// `n`, and `n` cut into 2, 3, 4, 6, 8, 12, ... pieces that are as equal as possible.
fn halvings(n: usize) -> impl Iterator<Item = usize> {
    let cuts = (0..).flat_map(|i| [2 << i, 3 << i]).take_while(move |&c| c <= n);
    core::iter::once(n).chain(cuts.map(move |c| n.div_ceil(c)))
}

/// Number of pieces along each axis that is cut for threads.
pub(super) struct Grid {
    images: usize,
    strips: usize,
    panels: usize,
}

/// What one part computes.
pub(super) struct Part {
    pub n: Range<usize>,
    pub y: Range<usize>,
    pub x: Range<usize>,
    pub panels: Range<usize>,
}

impl Grid {
    /// How the work of `d` is cut for a number of threads.
    pub fn new(d: &Direct, threads: usize) -> Self {
        let s = &d.shape;
        if threads <= 1 || s.n == 0 {
            return Self { images: s.n.min(1), strips: 1, panels: 1 };
        }
        let panels = d.pieces.total().div_ceil(d.blocking.panel);
        // A few parts for each thread even out what the machine does besides, but each should be worth its start.
        // Parts that share pixels would each copy them: one for each thread.
        let wanted = if d.compact { threads } else { parts_wanted(threads) };
        let wanted = wanted.min((s.macs() / 200_000) as usize).max(1);
        // As many parts for each thread: 3 equal parts would keep two threads busy for the time of 4.
        let wanted = if wanted > threads { wanted - wanted % threads } else { wanted };
        let tile = d.tiles.rows.longest();
        let strips = if d.y.output == 1 { d.x.output.div_ceil(2 * tile) } else { d.y.output.div_ceil(3) };
        let take = |available: usize, wanted: usize| available.min(wanted).max(1);
        // Threads that share out the panels instead of the pixels read each weight once between them.
        let by_panels = if 4 * d.packed_len() > HEAVY_WEIGHTS { take(panels, wanted) } else { 1 };
        // Strips of rows would stream a panel's weights once each, and their inputs overlap (dilated: nearly all of it).
        let wanted = if by_panels.is_multiple_of(threads) { by_panels } else { wanted };
        // Images before strips, also of those that one pass takes together: a strip of few rows has a border in each image.
        let images = take(s.n, wanted.div_ceil(by_panels));
        let strips = take(strips, wanted.div_ceil(by_panels * images));
        // As many for each thread here too.
        let strips = if strips > threads { strips - strips % threads } else { strips };
        let panels = take(panels, wanted.div_ceil(images * strips));
        Self { images, strips, panels }
    }

    /// Number of parts.
    pub fn len(&self) -> usize {
        self.images * self.strips * self.panels
    }

    /// Part `i`. Parts with the same panels follow each other, so that a thread keeps its weights.
    pub fn part(&self, d: &Direct, i: usize) -> Part {
        let (strip, image, panel) = (i % self.strips, i / self.strips % self.images, i / self.strips / self.images);
        let panels = cut(d.pieces.total().div_ceil(d.blocking.panel), self.panels, panel);
        let n = cut(d.shape.n, self.images, image);
        let (y, x) = if d.y.output == 1 {
            (0..1, cut(d.x.output, self.strips, strip))
        } else {
            (cut(d.y.output, self.strips, strip), 0..d.x.output)
        };
        Part { n, y, x, panels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Level;
    use crate::layout::Layout;
    use crate::machine::Core;
    use crate::shape::ConvShape;

    fn plan(n: usize, ic: usize, size: usize, oc: usize, k: usize) -> Direct {
        let shape = ConvShape::builder([n, ic, size, size], [oc, ic, k, k]).padding(k / 2).build().unwrap();
        Direct::new(&shape, Core::here(Level::Scalar), Layout::Blocked, Layout::Blocked)
    }

    #[test]
    fn small_layers_stay_whole_and_large_ones_are_cut() {
        let blocking = |n, ic, size, oc, k| Blocking::choose(&plan(n, ic, size, oc, k), false, 1 << 20);
        let b = blocking(1, 64, 14, 64, 3);
        assert_eq!((b.rows, b.chunk), (14, 4));
        let b = blocking(1, 64, 224, 64, 3);
        assert!(b.rows < 60, "{b:?}: the input of all rows would leave L2 between sweeps");
        let b = blocking(1, 512, 7, 512, 3);
        assert_eq!((b.panel, b.chunk), (2, 32), "no partial sums where a sweep's weights stay");
        let b = blocking(16, 512, 7, 512, 3);
        assert!(b.images > 1 && b.chunk < 32, "{b:?}: the weights would be streamed for every image");
        let chunk_1x1 = |n| Blocking::choose(&plan(n, 512, 28, 128, 1), true, 512 << 10).chunk;
        assert!(chunk_1x1(16) <= 11 && chunk_1x1(1) > 11, "few streams from memory, few partial sums from L3");
        let b = blocking(1, 2048, 33, 256, 3);
        assert!(
            (2..64).contains(&b.chunk),
            "{b:?}: sums that pass through the output often, or weights for every tile"
        );
    }

    #[test]
    fn parts_cover_everything_once() {
        for (threads, d) in [(2, plan(3, 20, 9, 70, 3)), (8, plan(1, 16, 30, 16, 1)), (3, plan(2, 512, 5, 300, 3))] {
            let grid = Grid::new(&d, threads);
            let mut seen = std::collections::HashSet::new();
            for i in 0..grid.len() {
                let p = grid.part(&d, i);
                for n in p.n {
                    for (y, x) in p.y.clone().flat_map(|y| p.x.clone().map(move |x| (y, x))) {
                        assert!(p.panels.clone().all(|panel| seen.insert((n, y, x, panel))));
                    }
                }
            }
            let panels = d.pieces.total().div_ceil(d.blocking.panel);
            assert_eq!(seen.len(), d.shape.n * d.y.output * d.x.output * panels);
        }
    }

    #[test]
    fn halvings_are_sorted() {
        assert_eq!(halvings(14).collect::<Vec<_>>(), [14, 7, 5, 4, 3, 2, 2]);
        assert_eq!(halvings(1).collect::<Vec<_>>(), [1]);
    }
}
