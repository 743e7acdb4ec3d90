//! Convolution of any geometry as a matrix product whose left operand is gathered while it is packed.
//!
//! ```text
//! y[pixel][oc] = sum over k of  patch[pixel][k] * w[k][oc]         k = (ky, kx, ic), per image and group
//!
//! for each part (threads):                                         images, groups, pixels, columns
//!   for each image, group, mc pixels:
//!     for each kc of the reduction:                                gather mc x kc
//!       for each 1..4 blocks of 16 columns, 1..14 pixels:          register tile
//! ```
//!
//! No column matrix exists; the scratch is one block of it. Any layout of input and output will do: where channels of
//! the input are contiguous the patches are gathered in rows, from NCHW in panels; see `gather.rs`.
//!
//! **Groups.** Each group is a product of its own, so that no group's infinities and NaNs reach another; only their
//! patches are gathered together, for as many groups as fit into `kc`. The columns of a
//! group are cut into blocks of 16, from its first channel on. Only in blocked output, where a group may start inside a
//! block, they are cut at the blocks of the output, and each piece is stored into its part of the block:
//!
//! ```text
//! 2 groups of 24:   | 0 0 0 0 | 0 0 1 1 | 1 1 1 1 |      output blocks (a digit is 4 channels of that group)
//! columns           | 16      | 8  | 8  | 16      |      each piece is zero-extended to 16 columns of weights
//! ```
//!
//! Packed weights: `[group][piece][kh][kw][ic / groups][16]`. Order: each sum runs over `(ky, kx, ic)`. A sum
//! includes the zeros of the padding, which change it only where a weight that meets one is infinite or NaN: then it is
//! NaN, as in any im2col. Error: as for the tile, with `k` terms.
//!
//! Reference: K. Chellapilla et al., "High performance convolutional neural networks for document processing", 2006, for
//! im2col; [`crate::reference::conv2d`].

use core::ops::Range;

use super::block::{self, Block, Left, Tiles};
use super::gather::Patches;
use super::{A_FLOATS, ALIGN, Blocking, KC, aligned, row_len};
use crate::epilogue::{Epilogue, Lengths, Outputs};
use crate::exec::{Executor, Shared, cut, for_each_part_with, parts_wanted};
use crate::groups::Pieces;
use crate::isa::Level;
use crate::layout::{BLOCK, Layout, Strides, View};
use crate::machine::Core;
use crate::shape::ConvShape;
use crate::tile::{Access, Finish, pieces};
use crate::weights::Weights;

/// Longest chunk of the reduction for NCHW output, whose partial sums are scattered, at about the price of 100 steps for
/// each load and store: 16 x 4 KiB of patches and 128 KiB of weights per block of columns stay in L2.
const KC_SCATTERED: usize = 2048;

/// An im2col convolution, planned: geometry, tiles and blocking. Holds no tensor.
///
/// ```
/// use swath_kernels::{epilogue::Epilogue, exec::Inline, gemm::Im2col, isa::Level, layout::Layout};
/// use swath_kernels::{machine::Core, shape::ConvShape};
/// let shape = ConvShape::builder([1, 2, 3, 3], [4, 1, 3, 3]).groups(2).padding(1).build()?;
/// let conv = Im2col::new(&shape, Core::here(Level::Scalar), Layout::Nchw, Layout::Nhwc);
/// let (mut packed, mut scratch) = (vec![0.0; conv.packed_len()], vec![0.0; conv.scratch_len()]);
/// conv.pack(&[1.0; 36], &mut packed);
/// let mut y = [f32::NAN; 36];
/// conv.forward(&[1.0; 18], &packed, &Epilogue::none(), y.as_mut_slice().into(), &mut scratch, &Inline);
/// assert_eq!((y[0], y[4], y[16]), (4.0, 6.0, 9.0));
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Im2col {
    shape: ConvShape,
    core: Core,
    xs: Strides,
    ys: Strides,
    input: Layout,
    output: Layout,
    /// Patches are gathered in panels instead of rows.
    panels: bool,
    /// What the columns of groups are cut into.
    columns: Pieces,
    tiles: Tiles,
    blocking: Blocking,
    /// Length of each sum.
    k: usize,
}

impl Im2col {
    /// Plans with the default blocking.
    pub fn new(shape: &ConvShape, core: Core, input: Layout, output: Layout) -> Self {
        Self::with_blocking(shape, core, input, output, None)
    }

    /// Plans with the given blocking (weights come packed, so `nc` has no meaning), clamped to what the shape allows.
    pub fn with_blocking(
        shape: &ConvShape,
        core: Core,
        input: Layout,
        output: Layout,
        blocking: Option<Blocking>,
    ) -> Self {
        shape.assert_consistent();
        let s = *shape;
        let panels = input == Layout::Nchw;
        let columns = Pieces::new(&s, output);
        let (pixels, span) = (s.oh * s.ow, columns.per_group());
        let access = if panels { Access::Packed } else { Access::Strided };
        let tiles = Tiles::new(core, access, pixels, if columns.ragged() { 1 } else { span });
        let k = s.icg() * s.kh * s.kw;
        let b = blocking.unwrap_or_else(|| {
            let longest = if output == Layout::Nchw { KC_SCATTERED } else { KC };
            // Small groups are gathered together while they fit.
            let kc = if k < KC { k * (KC / k).min(s.groups) } else { pieces(k, longest).next().map_or(1, |(_, n)| n) };
            let mc = (A_FLOATS / row_len(kc)).max(tiles.mr);
            let mc = pieces(pixels, mc).next().map_or(1, |(_, n)| n).next_multiple_of(tiles.mr).min(mc);
            Blocking { mc, kc, nc: span * BLOCK }
        });
        let blocking = Blocking { mc: b.mc.clamp(1, pixels), kc: b.kc.clamp(1, k * s.groups), nc: span * BLOCK };
        Self {
            shape: s,
            core,
            xs: input.strides(s.input()),
            ys: output.strides(s.output()),
            input,
            output,
            panels,
            columns,
            tiles,
            blocking,
            k,
        }
    }

    /// Plans for tensors that are parts of larger ones.
    ///
    /// # Panics
    /// If a view has other extents than the shape's.
    pub fn of_views(shape: &ConvShape, core: Core, [x, y]: [View; 2]) -> Self {
        let [xs, ys] = [x.strides_of(shape.input()), y.strides_of(shape.output())];
        Self { xs, ys, ..Self::new(shape, core, x.layout(), y.layout()) }
    }

    /// The blocking in use.
    pub fn blocking(&self) -> Blocking {
        self.blocking
    }

    /// The instruction-set level whose tiles run.
    pub fn level(&self) -> Level {
        self.core.level
    }

    /// Name of the tile that does most of the work: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        self.tiles.name(self.shape.oh * self.shape.ow)
    }

    /// Multiply-adds done per multiply-add that counts: more than 1 where a group's channels do not fill blocks.
    pub fn waste(&self) -> f64 {
        self.columns.waste()
    }

    /// Floats of packed weights.
    pub fn packed_len(&self) -> usize {
        self.columns.total() * BLOCK * self.k
    }

    /// Floats of scratch for one thread; with the default blocking at most 2 MiB.
    pub fn scratch_len(&self) -> usize {
        self.blocking.mc.saturating_mul(row_len(self.blocking.kc)).saturating_add(ALIGN)
    }

    /// Packs weights `[oc, ic / groups, kh, kw]`.
    ///
    /// # Panics
    /// If a slice's length is not what the shape and [`Im2col::packed_len`] say.
    pub fn pack(&self, w: &[f32], packed: &mut [f32]) {
        self.pack_from(&Weights::forward(&self.shape, w), packed);
    }

    /// The same from any order of the weights.
    ///
    /// # Panics
    /// If `packed` is not [`Im2col::packed_len`] long.
    pub fn pack_from(&self, w: &Weights<'_>, packed: &mut [f32]) {
        let s = &self.shape;
        assert_eq!(packed.len(), self.packed_len());
        packed.fill(0.0);
        let (icg, taps) = (s.icg(), s.kh * s.kw);
        for (i, block) in packed.chunks_exact_mut(self.k * BLOCK).enumerate() {
            for (lane, o) in self.columns.channels(i).enumerate() {
                for (c, t) in (0..icg).flat_map(|c| (0..taps).map(move |t| (c, t))) {
                    block[(t * icg + c) * BLOCK + lane] = w.at(o, c, t / s.kw, t % s.kw);
                }
            }
        }
    }

    /// Runs the convolution on the executor's threads. `scratch` holds [`Im2col::scratch_len`] floats for each
    /// thread that is to take part, at least for one.
    ///
    /// The outputs may lie in memory that holds nothing yet; what they then are is returned.
    ///
    /// # Panics
    /// If a slice's length is not what the shape, the layouts and [`Im2col::packed_len`] say, or scratch is too short.
    /// Where outputs with gaps between them lie in memory that holds nothing.
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
        let run = Run { d: self, x, w: packed, y: y.shared(), epilogue };
        let grid = self.grid(executor.threads());
        for_each_part_with(executor, grid.len(s.n), scratch, self.scratch_len(), |i, scratch| {
            run.part(&grid.part(self, i), aligned(scratch));
        });
        // SAFETY: parts of a run write all outputs, channels that pad included; what holds nothing has no gaps (asserted).
        unsafe { y.written() }
    }

    /// Pixels that are gathered together: as many as a block has, of one row where rows of outputs lie apart.
    fn runs(&self, pixels: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let (ow, mc) = (self.shape.ow, self.blocking.mc);
        let apart = self.ys.row != ow * self.ys.px;
        let mut start = pixels.start;
        core::iter::from_fn(move || {
            let end = if apart { (start / ow + 1) * ow } else { usize::MAX };
            let run = start..end.min(start.saturating_add(mc)).min(pixels.end);
            start = run.end;
            (!run.is_empty()).then_some(run)
        })
    }

    /// How the work is cut for a number of threads: images, then groups, then pixels, and columns, which are gathered
    /// for again, only where pixels are few.
    fn grid(&self, threads: usize) -> Grid {
        let s = &self.shape;
        if threads == 1 {
            return Grid { groups: 1, strips: 1, columns: 1 };
        }
        let wanted = parts_wanted(threads).min((s.macs() / 200_000) as usize).max(1);
        let per_image = wanted.div_ceil(s.n.max(1));
        let groups = s.groups.min(per_image);
        let strips = (s.oh * s.ow).div_ceil(2 * self.tiles.mr).min(per_image.div_ceil(groups));
        let columns = self.columns.per_group().div_ceil(self.tiles.width).min(per_image.div_ceil(groups * strips));
        Grid { groups, strips, columns }
    }
}

/// Number of pieces along each axis that is cut for threads, besides images.
struct Grid {
    groups: usize,
    strips: usize,
    columns: usize,
}

/// What one part computes.
struct Part {
    n: usize,
    groups: Range<usize>,
    pixels: Range<usize>,
    /// Blocks or pieces of each group.
    columns: Range<usize>,
}

impl Grid {
    fn len(&self, n: usize) -> usize {
        n * self.groups * self.strips * self.columns
    }

    fn part(&self, d: &Im2col, i: usize) -> Part {
        let cut = |total: usize, unit: usize, pieces: usize, i: usize| {
            let units = cut(total.div_ceil(unit), pieces, i);
            (units.start * unit).min(total)..(units.end * unit).min(total)
        };
        let (i, column) = (i / self.columns, i % self.columns);
        let (i, strip) = (i / self.strips, i % self.strips);
        let (n, group) = (i / self.groups, i % self.groups);
        Part {
            n,
            groups: cut(d.shape.groups, 1, self.groups, group),
            pixels: cut(d.shape.oh * d.shape.ow, d.tiles.mr, self.strips, strip),
            columns: cut(d.columns.per_group(), d.tiles.width, self.columns, column),
        }
    }
}

/// One run: the plan and its tensors.
struct Run<'a> {
    d: &'a Im2col,
    x: &'a [f32],
    w: &'a [f32],
    y: Shared<'a>,
    epilogue: &'a Epilogue<'a>,
}

impl Run<'_> {
    fn part(&self, part: &Part, scratch: &mut [f32]) {
        let d = self.d;
        let [_, ic, ih, iw] = d.shape.input();
        let image = &self.x[part.n * d.xs.n..][..d.xs.reach(d.input, [1, ic, ih, iw])];
        let kc = d.blocking.kc;
        let (icg, together) = (d.shape.icg(), (kc / d.k).max(1));
        for g0 in part.groups.clone().step_by(together) {
            let groups = g0..(g0 + together).min(part.groups.end);
            let channels = groups.len() * icg;
            let patches = Patches { shape: &d.shape, xs: &d.xs, image, channel: g0 * icg, channels };
            for pixels in d.runs(part.pixels.clone()) {
                if groups.len() == 1 {
                    for k0 in (0..d.k).step_by(kc) {
                        let ks = k0..(k0 + kc).min(d.k);
                        let left = self.gather(&patches, &pixels, &ks, scratch);
                        self.group(left, part, &pixels, &ks, g0);
                    }
                    continue;
                }
                let all = self.gather(&patches, &pixels, &(0..groups.len() * d.k), scratch);
                for g in groups.clone() {
                    let left = Left { first: (g - g0) * icg, taps: d.shape.kh * d.shape.kw, tap: channels, ..all };
                    self.group(left, part, &pixels, &(0..d.k), g);
                }
            }
        }
    }

    /// The patches of some pixels, for a range of the reduction.
    fn gather(&self, patches: &Patches<'_>, pixels: &Range<usize>, ks: &Range<usize>, scratch: &mut [f32]) -> Left {
        if self.d.panels {
            patches.panels(pixels.clone(), ks, self.d.tiles.mr, scratch);
            Left::whole(scratch.as_ptr(), None, ks.len())
        } else {
            let ld = row_len(ks.len());
            patches.rows(pixels.clone(), ks, ld, scratch);
            Left::whole(scratch.as_ptr(), Some(ld), ks.len())
        }
    }

    /// Gathered patches times a part's columns of a group.
    fn group(&self, left: Left, part: &Part, pixels: &Range<usize>, ks: &Range<usize>, g: usize) {
        if self.d.columns.ragged() {
            for j in part.columns.clone() {
                self.block(left, part.n, pixels, ks, g, j..j + 1);
            }
        } else {
            self.block(left, part.n, pixels, ks, g, part.columns.clone());
        }
    }

    /// Gathered patches times the blocks or pieces `js` of a group's columns.
    fn block(&self, left: Left, n: usize, pixels: &Range<usize>, ks: &Range<usize>, g: usize, js: Range<usize>) {
        let d = self.d;
        if js.is_empty() {
            return;
        }
        let first = g * d.columns.per_group();
        let channels = d.columns.channels(first + js.start).start..d.columns.channels(first + js.end - 1).end;
        if channels.is_empty() {
            return; // a group that touches fewer output blocks than others
        }
        let (oc, ys) = (channels.start, &d.ys);
        // Only blocked output has channels that are not a whole number of blocks and channel steps away.
        let (row, px) = (pixels.start / d.shape.ow, pixels.start % d.shape.ow);
        let y_at = n * ys.n + row * ys.row + px * ys.px + oc / BLOCK * ys.block + oc % BLOCK * ys.channel;
        let last = ks.end == d.k;
        let block = Block {
            tiles: &d.tiles,
            left,
            rows: pixels.len(),
            depth: ks.len() / left.taps,
            weights: block::Weights {
                start: self.w[((first + js.start) * d.k + ks.start) * BLOCK..].as_ptr(),
                block: d.k * BLOCK,
                step: BLOCK,
            },
            blocks: js.len(),
            y: self.y.at(y_at),
            y_px: ys.px,
            y_block: ys.block,
            y_channel: ys.channel,
            cols: channels.len(),
            pad_cols: d.output == Layout::Blocked && !d.columns.ragged(),
            accumulate: ks.start > 0,
            finish: last.then(|| Finish::new(self.epilogue, d.core.level).at(oc, y_at)),
        };
        // SAFETY:
        // * the rows or panels at `left` were gathered just now for these pixels, and hold this part of the reduction;
        // * the weights of `js` lie in `packed` (length asserted in `forward`), from step `ks.start` on;
        // * the pixels are `ys.px` apart: rows follow each other without gaps, or the pixels are of one row (`runs`); and
        //   outputs are inside the tensor (length asserted); `pad_cols` is set only where the last block is whole;
        // * parts of a run have disjoint images, groups, pixels or columns, so no two threads write the same output;
        // * the level is available (asserted).
        unsafe { block.multiply() };
        if last && d.columns.ragged() && channels.end == d.shape.oc {
            self.zero_padding(n, pixels);
        }
    }

    /// Zeros for the channels that pad the last output block, which no piece stores.
    fn zero_padding(&self, n: usize, pixels: &Range<usize>) {
        let (oc, ys) = (self.d.shape.oc, &self.d.ys);
        for p in pixels.clone() {
            for c in oc..oc.next_multiple_of(BLOCK) {
                // SAFETY: blocked output has whole blocks, and this part alone has these pixels of the last piece.
                unsafe { self.y.at(n * ys.n + p * ys.px + c / BLOCK * ys.block + c % BLOCK).write(0.0) };
            }
        }
    }
}
