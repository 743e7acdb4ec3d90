//! Changes of layout: tiles are transposed in registers, parts go to threads.
//!
//! ```text
//! pixels adjacent in x, channels in y (nchw -> nhwc, nchw -> blocked): transpose 16 channels x pixels
//! channels adjacent in x, pixels in y (nhwc -> nchw, blocked -> nchw): transpose pixels x 16 channels
//! channels adjacent in both           (nhwc <-> blocked):              copy 16 channels of each pixel
//! 2 to 4 channels between nchw and nhwc, as pictures have them:        pixel by pixel
//! ```
//!
//! A tile of `LANES` x `LANES` floats is transposed by `log2(LANES)` rounds of [`Isa::zip`]: taking row `i` and row `i +
//! LANES / 2` apart into their lanes in turn rotates the bits of (row, lane) by one, and as many rounds as a lane has bits
//! exchange the two. Every element is copied as it is, whatever its bits.

use core::ops::Range;

use crate::epilogue::Outputs;
use crate::exec::Shared;
use crate::isa::{Isa, Level};
use crate::layout::{BLOCK, Layout, Strides, blocks};
use crate::pass::{Body, Cut, Place};

/// Floats of a part: 128 KiB of `x` and as much of `y` share an L2 with what comes next.
const PART: usize = 1 << 15;

/// Most vectors in a tile's side.
const MOST: usize = 16;

/// Copies `x` in layout `from` to `y` in layout `to`; channels that pad the last block become zero.
///
/// # Panics
/// If a slice's length is not what the layout and `dims = [n, c, h, w]` say.
///
/// ```
/// use swath_kernels::{isa::Cpu, layout::Layout, pass::Place, reorder::reorder};
/// let here = Place::inline(Cpu::detect().level);
/// let mut nhwc = [0.0; 6];
/// reorder(&here, Layout::Nchw, &[1.0, 2.0, 3.0, 10.0, 20.0, 30.0], Layout::Nhwc, &mut nhwc, [1, 2, 1, 3]);
/// assert_eq!(nhwc, [1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
/// ```
pub fn reorder(place: &Place<'_>, from: Layout, x: &[f32], to: Layout, y: &mut [f32], dims: [usize; 4]) {
    reorder_to(place, from, x, to, y.into(), dims);
}

/// The same to memory that may hold nothing yet, which it returns.
///
/// # Panics
/// As [`reorder`].
pub fn reorder_to<'y>(
    place: &Place<'_>,
    from: Layout,
    x: &[f32],
    to: Layout,
    mut y: Outputs<'y>,
    dims: [usize; 4],
) -> &'y mut [f32] {
    assert_eq!(x.len(), from.len(dims), "source length for {dims:?}");
    assert_eq!(y.len(), to.len(dims), "destination length for {dims:?}");
    let [n, c, h, w] = dims;
    let pixels = h * w;
    if n * c * pixels == 0 {
        return y.filled(0.0);
    }
    let floats = x.len() + y.len();
    // A picture of one channel is the same in both.
    if from == to || c == 1 && from != Layout::Blocked && to != Layout::Blocked {
        let y = if let Outputs::Floats(y) = y { y } else { y.filled(0.0) };
        place.each(floats, crate::pass::Chunks::new(y, PART), |i, y| y.copy_from_slice(&x[i * PART..][..y.len()]));
        return y;
    }
    // Where channels of more than a block are adjacent, a part has all of them, since neighbours share cache lines.
    let together = if from == Layout::Nhwc || to == Layout::Nhwc { blocks(c) } else { 1 };
    let strip = (PART / (together * BLOCK)).next_multiple_of(BLOCK);
    let parts = Parts { images: n, blocks: blocks(c), together, pixels, strip };
    let task = Task { from, to, c, xs: from.strides(dims), ys: to.strides(dims), x, y: y.shared() };
    place.each(floats, parts, |_, part| place.at(Run { task: &task, part }));
    // SAFETY: the parts cover `y`, channels that pad a block included, in layouts without gaps.
    unsafe { y.written() }
}

/// What is to be copied.
struct Task<'a> {
    from: Layout,
    to: Layout,
    c: usize,
    xs: Strides,
    ys: Strides,
    x: &'a [f32],
    y: Shared<'a>,
}

/// The parts of a task: some channel blocks and some pixels of an image each.
struct Parts {
    images: usize,
    blocks: usize,
    /// Blocks of a part.
    together: usize,
    pixels: usize,
    /// Pixels of a part.
    strip: usize,
}

/// One of them.
struct Part {
    image: usize,
    blocks: Range<usize>,
    pixels: Range<usize>,
}

impl Cut for Parts {
    type Piece = Part;

    fn pieces(&self) -> usize {
        self.images * self.blocks.div_ceil(self.together) * self.pixels.div_ceil(self.strip)
    }

    unsafe fn piece(&self, i: usize) -> Part {
        let (strips, groups) = (self.pixels.div_ceil(self.strip), self.blocks.div_ceil(self.together));
        let (strip, group, image) = (i % strips * self.strip, i / strips % groups * self.together, i / strips / groups);
        let blocks = group..(group + self.together).min(self.blocks);
        Part { image, blocks, pixels: strip..(strip + self.strip).min(self.pixels) }
    }
}

/// A part of a task, at a level.
struct Run<'a, 'b> {
    task: &'b Task<'a>,
    part: Part,
}

impl Body for Run<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, s: I) {
        let (t, part) = (self.task, &self.part);
        let n = part.pixels.len();
        for b in part.blocks.clone() {
            let channels = BLOCK.min(t.c - b * BLOCK);
            let x = t.x[part.image * t.xs.n + b * t.xs.block + part.pixels.start * t.xs.px..].as_ptr();
            let y = t.y.at(part.image * t.ys.n + b * t.ys.block + part.pixels.start * t.ys.px);
            // What is written of a block: also the channels that pad it.
            let padded = if t.to == Layout::Blocked { BLOCK } else { channels };
            // SAFETY: image, block and pixels lie inside both tensors, whose lengths `reorder` asserts, so that `channels`
            // channels (`padded` ones of a blocked `y`) of `n` pixels do, at these strides. No other part has this block at
            // these pixels, and each part runs once.
            unsafe {
                match (t.from, t.to) {
                    (Layout::Nchw, Layout::Nhwc) if t.c <= 4 => few(s, x, [t.xs.channel, 1], y, [1, t.c], n, t.c),
                    (Layout::Nhwc, Layout::Nchw) if t.c <= 4 => few(s, x, [1, t.c], y, [t.ys.channel, 1], n, t.c),
                    (Layout::Nchw, _) => {
                        let rows = Rows { n: channels, written: padded, x: t.xs.channel, y: t.ys.px };
                        transpose(s, x, y, rows, n);
                    }
                    (_, Layout::Nchw) => {
                        let rows = Rows { n, written: n, x: t.xs.px, y: t.ys.channel };
                        transpose(s, x, y, rows, channels);
                    }
                    _ => copy(s, x, t.xs.px, y, t.ys.px, n, [channels, padded]),
                }
            }
        }
    }
}

/// Where the pixels of a block of channels lie: the first one's first channel, and steps in floats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pixels<P> {
    pub first: P,
    pub channel: usize,
    pub row: usize,
    pub px: usize,
}

impl<P> Pixels<P> {
    /// In a tensor with these strides.
    pub fn new(first: P, strides: &Strides) -> Self {
        Self { first, channel: strides.channel, row: strides.row, px: strides.px }
    }
}

/// Copies `rows` rows of `width` pixels of a block, `channels` channels of them, and zeros up to `padded`.
///
/// # Safety
/// * the level is available;
/// * on each side, channels or pixels are adjacent;
/// * `x` is readable for that many channels of all pixels, and `y` writable for `padded` ones, which no other thread uses;
/// * `channels <= padded <= BLOCK`.
pub(crate) unsafe fn copy_block(
    level: Level,
    x: Pixels<*const f32>,
    y: Pixels<*mut f32>,
    [rows, width]: [usize; 2],
    [channels, padded]: [usize; 2],
) {
    debug_assert!((x.channel == 1 || x.px == 1) && (y.channel == 1 || y.px == 1));
    // Rows that follow each other in both are one.
    let [rows, width] = if x.row == width * x.px && y.row == width * y.px { [1, rows * width] } else { [rows, width] };
    Place::inline(level).at(CopyBlock { x, y, rows, width, channels, padded });
}

/// [`copy_block`], whose contract it has.
struct CopyBlock {
    x: Pixels<*const f32>,
    y: Pixels<*mut f32>,
    rows: usize,
    width: usize,
    channels: usize,
    padded: usize,
}

impl Body for CopyBlock {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, s: I) {
        let Self { x, y, width, channels, padded, .. } = self;
        for row in 0..self.rows {
            let (from, to) = (x.first.wrapping_add(row * x.row), y.first.wrapping_add(row * y.row));
            // SAFETY: `copy_block`'s, for this row.
            unsafe {
                if x.channel != 1 {
                    let rows = Rows { n: channels, written: padded, x: x.channel, y: y.px };
                    transpose(s, from, to, rows, width);
                } else if y.channel != 1 {
                    let rows = Rows { n: width, written: width, x: x.px, y: y.channel };
                    transpose(s, from, to, rows, channels);
                } else {
                    copy(s, from, x.px, to, y.px, width, [channels, padded]);
                }
            }
        }
    }
}

/// Writes `to[i * rows + j] = from[j * pitch + i]` for all of `to`, whose length is a multiple of `rows`: rows side by side.
///
/// # Panics
/// If `from` ends before that.
#[inline(always)]
pub(crate) fn interleave<I: Isa>(s: I, from: &[f32], pitch: usize, rows: usize, mut to: Outputs<'_>) {
    if rows == 0 || to.len() < rows {
        return;
    }
    let len = to.len() / rows;
    assert!((rows - 1) * pitch + len <= from.len(), "{rows} rows of {len} floats, {pitch} apart");
    let rows = Rows { n: rows, written: rows, x: pitch, y: rows };
    // SAFETY: `from` holds that many rows of `len` floats (asserted), and `to` as many columns, borrowed here.
    unsafe { transpose(s, from.as_ptr(), to.shared().at(0), rows, len) }
}

/// [`interleave`] with the instructions of an available level.
pub(crate) fn interleave_at(level: Level, from: &[f32], pitch: usize, rows: usize, to: Outputs<'_>) {
    Place::inline(level).at(Interleave { from, pitch, rows, to });
}

struct Interleave<'a> {
    from: &'a [f32],
    pitch: usize,
    rows: usize,
    to: Outputs<'a>,
}

impl Body for Interleave<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, s: I) {
        interleave(s, self.from, self.pitch, self.rows, self.to);
    }
}

/// Rows that become columns.
#[derive(Clone, Copy)]
struct Rows {
    /// How many there are.
    n: usize,
    /// How many are written; those that do not exist are zeros.
    written: usize,
    /// From row to row of `x`.
    x: usize,
    /// From column to column, which are rows of `y`.
    y: usize,
}

/// `y[col * rows.y + row] = x[row * rows.x + col]`.
///
/// # Safety
/// `x` is readable for `rows.n` rows of `cols` floats, and `y` writable for `cols` rows of `rows.written` ones, which no
/// other thread uses.
#[inline(always)]
unsafe fn transpose<I: Isa>(s: I, x: *const f32, y: *mut f32, rows: Rows, cols: usize) {
    // Along `y`, whose rows are short or its only stream; the sixteen streams of `x` move on together.
    for c0 in (0..cols).step_by(I::LANES) {
        for r0 in (0..rows.written).step_by(I::LANES) {
            let (nc, nr) = (I::LANES.min(cols - c0), I::LANES.min(rows.n.saturating_sub(r0)));
            let to = I::LANES.min(rows.written - r0);
            let (x, y) = (x.wrapping_add(r0 * rows.x + c0), y.wrapping_add(c0 * rows.y + r0));
            let mut tile = [s.zero(); MOST];
            // SAFETY: from `x` on, `nr` rows have `nc` floats, and from `y` on, `nc` rows have `to` floats.
            unsafe {
                if (nr, nc, to) == (I::LANES, I::LANES, I::LANES) {
                    for i in 0..I::LANES {
                        tile[i] = s.load(x.add(i * rows.x));
                    }
                    tile = transposed(s, tile);
                    for i in 0..I::LANES {
                        s.store(y.add(i * rows.y), tile[i]);
                    }
                } else if (nr, to) == (1, 1) {
                    // Such as the ninth tap, for vectors of eight lanes.
                    for i in 0..nc {
                        y.add(i * rows.y).write(x.add(i).read());
                    }
                } else {
                    for i in 0..nr {
                        tile[i] = s.load_partial(x.add(i * rows.x), nc);
                    }
                    tile = transposed(s, tile);
                    for i in 0..nc {
                        s.store_partial(y.add(i * rows.y), tile[i], to);
                    }
                }
            }
        }
    }
}

/// The first `LANES` vectors, with lanes for rows.
#[inline(always)]
fn transposed<I: Isa>(s: I, mut tile: [I::V; MOST]) -> [I::V; MOST] {
    for _ in 0..I::LANES.ilog2() {
        let mut next = tile;
        for i in 0..I::LANES / 2 {
            let [low, high] = s.zip(tile[i], tile[i + I::LANES / 2]);
            (next[2 * i], next[2 * i + 1]) = (low, high);
        }
        tile = next;
    }
    tile
}

/// Copies `channels` floats of each of `pixels` pixels, and zeros up to `padded`.
///
/// # Safety
/// `x` is readable for `pixels` pixels of `channels` floats, `x_px` apart, and `y` writable for as many of `padded` ones,
/// `y_px` apart, which no other thread uses; both numbers are at most [`BLOCK`].
#[inline(always)]
unsafe fn copy<I: Isa>(
    s: I,
    x: *const f32,
    x_px: usize,
    y: *mut f32,
    y_px: usize,
    pixels: usize,
    [channels, padded]: [usize; 2],
) {
    for p in 0..pixels {
        for v in (0..padded).step_by(I::LANES) {
            let (n, to) = (I::LANES.min(channels.saturating_sub(v)), I::LANES.min(padded - v));
            // SAFETY: channels `v..v + n` of the pixel of `x`, and `v..v + to` of that of `y`.
            unsafe {
                let (x, y) = (x.wrapping_add(p * x_px + v), y.add(p * y_px + v));
                if (n, to) == (I::LANES, I::LANES) {
                    s.store(y, s.load(x));
                } else {
                    s.store_partial(y, s.load_partial(x, n), to);
                }
            }
        }
    }
}

/// Copies 2 to 4 channels of each pixel; both tensors have steps from channel to channel and from pixel to pixel.
///
/// # Safety
/// `x` is readable for `n` pixels of `c` channels at its steps, and `y` writable, which no other thread uses.
#[inline(always)]
unsafe fn few<I: Isa>(_: I, x: *const f32, xs: [usize; 2], y: *mut f32, ys: [usize; 2], n: usize, c: usize) {
    // SAFETY: the same contract; `c` is what the constant says.
    unsafe {
        match c {
            2 => planes::<2>(x, xs, y, ys, n),
            3 => planes::<3>(x, xs, y, ys, n),
            _ => planes::<4>(x, xs, y, ys, n),
        }
    }
}

/// As [`few`], for a number of channels that the compiler knows, so that it makes vectors of the steps.
///
/// # Safety
/// As for [`few`].
#[inline(always)]
unsafe fn planes<const C: usize>(x: *const f32, xs: [usize; 2], y: *mut f32, ys: [usize; 2], n: usize) {
    // SAFETY: pixels and channels inside both.
    unsafe {
        if xs[1] == 1 {
            for p in 0..n {
                for k in 0..C {
                    y.add(p * C + k).write(x.add(k * xs[0] + p).read());
                }
            }
        } else {
            for p in 0..n {
                for k in 0..C {
                    y.add(k * ys[0] + p).write(x.add(p * C + k).read());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaves_any_number_of_rows() {
        for &level in Level::available() {
            for (rows, len) in (0..19).flat_map(|rows| (0..19).map(move |len| (rows, len))) {
                let pitch = len + 3;
                let from: Vec<f32> = (0..rows * pitch).map(|v| v as f32).collect();
                let mut to = vec![f32::NAN; rows * len];
                interleave_at(level, &from, pitch, rows, to.as_mut_slice().into());
                for (at, v) in to.iter().enumerate() {
                    assert_eq!(*v, from[at % rows * pitch + at / rows], "{level:?}, {rows} rows of {len}, [{at}]");
                }
            }
        }
    }
}
