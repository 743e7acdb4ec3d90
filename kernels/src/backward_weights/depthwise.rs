//! Depthwise convolution: each lane sums its own channel.
//!
//! ```text
//! dw[o][ky][kx] = sum over (n, oy, ox)  dy[n][o][oy][ox]
//!                                       * x[n][o / multiplier][oy * sh + ky * dh - top][ox * sw + kx * dw - left]
//!
//! for each slice of the pixels, block of channels:    threads
//!   for each segment of the slice, image:             sums[tap] += x * dy
//! then for each block:                                dw = sum over slices
//! ```
//!
//! Nothing of a blocked tensor is copied: a copy with its padding took longer than the sums. Other layouts are transposed
//! to blocks, a few rows at a time; of channels last, all blocks of some rows follow each other, since they share cache
//! lines. Order of each sum: that of the pixels of an image's part of a segment; those in their order. Error: as for [`BackwardWeights`](super::BackwardWeights).

use core::ops::Range;

use super::sum::{Part, Source, Taps, finish};
use super::{LONGEST, PARTS, Segments, assert_run};
use crate::control_word::with_default;
use crate::epilogue::Outputs;
use crate::exec::{Executor, Shared, cut, for_each_part_with};
use crate::isa::Level;
use crate::layout::{BLOCK, Layout, Strides, View, blocks};
use crate::machine::Core;
use crate::reorder::{Pixels, copy_block};
use crate::shape::ConvShape;

/// Most floats of a copy: 4 MiB.
const MOST: usize = 1 << 20;

/// Floats of some rows of tensors with channels last, of which all blocks are summed one after the other: half of an L2 of 1 MiB.
const STRIP: usize = 1 << 17;

/// The weight gradient of a depthwise convolution, planned. Holds no tensor.
///
/// ```
/// use swath_kernels::{backward_weights::DepthwiseWeights, exec::Inline, isa::Level, layout::Layout};
/// use swath_kernels::{machine::Core, shape::ConvShape};
/// let shape = ConvShape::builder([1, 2, 1, 3], [2, 1, 1, 2]).groups(2).build()?;
/// let plan = DepthwiseWeights::new(&shape, Core::here(Level::Scalar), Layout::Nchw, Layout::Blocked)?;
/// let (x, mut dy) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0; 32]);
/// (dy[0], dy[16], dy[1], dy[17]) = (1.0, 10.0, 1.0, 1.0); // two pixels of two channels
/// let (mut dw, mut scratch) = ([f32::NAN; 4], vec![0.0; plan.scratch_len(1)]);
/// plan.run(&x, &dy, dw.as_mut_slice().into(), None, &mut scratch, &Inline);
/// assert_eq!(dw, [21.0, 32.0, 9.0, 11.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DepthwiseWeights {
    shape: ConvShape,
    core: Core,
    /// How `x` and `dy` lie.
    input: Layout,
    gradient: Layout,
    xs: Strides,
    ds: Strides,
    kernels: Taps,
    segments: Segments,
    /// Segments are cut into so many slices.
    slices: usize,
    /// Blocks of a part.
    together: usize,
    /// Whether `x` is read where it lies.
    ready: bool,
}

impl DepthwiseWeights {
    /// Plans, for `x` in layout `input` and `dy` in layout `gradient`, or says why the shape is not for this algorithm.
    ///
    /// # Errors
    /// A reason: more than one input channel a group, thousands of taps, rows that the scratch does not hold.
    pub fn new(shape: &ConvShape, core: Core, input: Layout, gradient: Layout) -> Result<Self, &'static str> {
        shape.assert_consistent();
        let s = *shape;
        if !s.is_depthwise() {
            return Err("not one input channel a group");
        }
        let kernels = Taps::new(&s, core.level, Source::Own)?;
        let of = blocks(s.oc);
        let few = (2 * PARTS).div_ceil(of);
        let (segments, slices, together) = if [input, gradient].contains(&Layout::Nhwc) {
            let pixels = s.sh.saturating_mul(s.sw);
            let longest = STRIP / s.ic.saturating_mul(pixels).saturating_add(s.oc);
            let segments = Segments::new(&s, longest.clamp(1, LONGEST));
            // Each slice has sums of all blocks.
            let room = MOST / (of * (s.kh * s.kw + 1) * BLOCK);
            let slices = (2 * PARTS).min(room.max(few)).min(segments.len());
            (segments, slices, of.div_ceil(PARTS.div_ceil(slices)))
        } else {
            let segments = Segments::new(&s, LONGEST);
            (segments, few.min(segments.len()), 1)
        };
        let ready = input == Layout::Blocked && s.ocg() == 1;
        let (xs, ds) = (input.strides(s.input()), gradient.strides(s.output()));
        let this = Self { shape: s, core, input, gradient, xs, ds, kernels, segments, slices, together, ready };
        if this.copy_len().is_none_or(|[x, dy]| x.saturating_add(dy) > MOST) {
            return Err("the input of a few rows of outputs exceeds the scratch");
        }
        Ok(this)
    }

    /// The same for an `x` and a `dy` that are parts of larger tensors.
    ///
    /// # Errors
    /// As for [`DepthwiseWeights::new`].
    ///
    /// # Panics
    /// If a view has other extents than the shape's.
    pub fn of_views(shape: &ConvShape, core: Core, [x, dy]: [View; 2]) -> Result<Self, &'static str> {
        let (xs, ds) = (x.strides_of(shape.input()), dy.strides_of(shape.output()));
        Ok(Self { xs, ds, ..Self::new(shape, core, x.layout(), dy.layout())? })
    }

    /// Floats of the copies of a segment's input and gradient; None if that overflows.
    fn copy_len(&self) -> Option<[usize; 2]> {
        let s = &self.shape;
        let rows = s.oh.div_ceil(self.segments.bands);
        let floats = |rows: usize, width: usize| rows.checked_mul(width)?.checked_mul(BLOCK);
        let x = if self.ready { 0 } else { floats(self.kernels.height(rows)?, s.iw)? };
        let dy = if self.gradient == Layout::Blocked { 0 } else { floats(rows, s.ow)? };
        Some([x, dy])
    }

    /// The same, which `new` has found to exist.
    fn copies(&self) -> [usize; 2] {
        self.copy_len().unwrap_or([0, 0])
    }

    /// Whether input and gradient are copied.
    pub fn copied(&self) -> [bool; 2] {
        self.copies().map(|len| len > 0)
    }

    fn taps(&self) -> usize {
        self.shape.kh * self.shape.kw
    }

    /// Floats of a block's sums: of each tap, and of the gradient.
    fn block_len(&self) -> usize {
        (self.taps() + 1) * BLOCK
    }

    /// Floats of all sums.
    fn sums_len(&self) -> usize {
        self.slices * blocks(self.shape.oc) * self.block_len()
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The instruction-set level whose kernels run.
    pub fn level(&self) -> Level {
        self.core.level
    }

    /// Name of the kernel: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        self.kernels.kernel()
    }

    /// Floats of scratch for a run on so many threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        self.sums_len().saturating_add(threads.max(1).saturating_mul(self.copies().iter().sum()))
    }

    /// Computes `dw` `[oc, 1, kh, kw]` and, if asked for, `db` `[oc]`, on the executor's threads. `scratch` holds
    /// [`DepthwiseWeights::scratch_len`] floats for as many threads as are to take part, at least for one.
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
        let (sums, copies) = scratch.split_at_mut(self.sums_len());
        let (of, len) = (blocks(s.oc), self.block_len());
        let copy_len = self.copies().iter().sum();
        let parts = of.div_ceil(self.together);
        let shared = Shared::new(sums);
        for_each_part_with(executor, self.slices * parts, copies, copy_len, |part, copy| {
            let (slice, part) = (part / parts, part % parts);
            let ocbs = part * self.together..((part + 1) * self.together).min(of);
            // SAFETY: these sums lie in the scratch, and belong to this part alone.
            let sums = unsafe {
                core::slice::from_raw_parts_mut(shared.at((slice * of + ocbs.start) * len), ocbs.len() * len)
            };
            sums.fill(0.0);
            for segment in cut(self.segments.len(), self.slices, slice) {
                let (images, rows) = self.segments.at(s, segment);
                for (ocb, sums) in ocbs.clone().zip(sums.chunks_exact_mut(len)) {
                    images.clone().for_each(|n| self.image(x, dy, ocb, n, &rows, copy, sums));
                }
            }
        });
        with_default(|| finish(self.core.level, sums, of * len, self.taps(), &dw.shared(), db));
        // SAFETY: `finish` writes all.
        unsafe { dw.written() }
    }

    /// Adds an image's part of a segment to the sums of a block.
    #[allow(clippy::too_many_arguments)] // a run's tensors and a place in them
    fn image(
        &self,
        x: &[f32],
        dy: &[f32],
        ocb: usize,
        n: usize,
        rows: &Range<usize>,
        copy: &mut [f32],
        sums: &mut [f32],
    ) {
        if rows.is_empty() {
            return;
        }
        let s = &self.shape;
        let (xs, ds) = (Layout::Blocked.strides(s.input()), Layout::Blocked.strides(s.output()));
        let (copy, dy_copy) = copy.split_at_mut(self.copies()[0]);
        let (from, first) = if self.ready {
            (&x[n * xs.n + ocb * xs.block..][..s.ih * xs.row], 0)
        } else {
            let reach = self.kernels.reach(rows);
            let from = &mut copy[..reach.len() * xs.row];
            if s.ocg() == 1 {
                self.transpose((x, &self.xs), s.input(), [n, ocb], &reach, from);
            } else {
                self.copy(x, ocb, n, reach.clone(), from);
            }
            (&*from, reach.start)
        };
        let (dy, first_dy) = if self.gradient == Layout::Blocked {
            (&dy[n * ds.n + ocb * ds.block..][..s.oh * ds.row], 0)
        } else {
            let to = &mut dy_copy[..rows.len() * ds.row];
            self.transpose((dy, &self.ds), s.output(), [n, ocb], rows, to);
            (&*to, rows.start)
        };
        let (block, bias) = (sums.len(), Some(self.taps() * BLOCK));
        self.kernels.add(Part { from, first, row: xs.row, dy, dy_block: 0, first_dy, sums, block, tap: 0, bias }, rows);
    }

    /// Copies some rows of a block of an image to scratch.
    fn transpose(
        &self,
        (x, xs): (&[f32], &Strides),
        dims: [usize; 4],
        [n, block]: [usize; 2],
        rows: &Range<usize>,
        to: &mut [f32],
    ) {
        let [_, c, _, width] = dims;
        if rows.is_empty() {
            return;
        }
        let ys = Layout::Blocked.strides(dims);
        assert!(to.len() == rows.len() * ys.row, "rows of a block");
        let from = Pixels::new(x[n * xs.n + block * xs.block + rows.start * xs.row..].as_ptr(), xs);
        let (to, channels) = (Pixels::new(to.as_mut_ptr(), &ys), BLOCK.min(c - block * BLOCK));
        // SAFETY: the level is available, and `x` reaches as far as its strides say (asserted by `run`), so that these rows of a block
        // lie inside, and `to` holds them (asserted); channels or pixels are adjacent in every layout.
        unsafe { copy_block(self.core.level, from, to, [rows.len(), width], [channels, BLOCK]) };
    }

    /// Copies some rows of an image to scratch, in blocks: for each lane its own channel.
    fn copy(&self, x: &[f32], ocb: usize, n: usize, rows: Range<usize>, copy: &mut [f32]) {
        let (s, xs) = (&self.shape, &self.xs);
        let channels: [Option<usize>; BLOCK] = core::array::from_fn(|lane| {
            let o = ocb * BLOCK + lane;
            (o < s.oc).then(|| o / s.ocg())
        });
        let image = &x[n * xs.n..];
        for (row, to) in rows.zip(copy.chunks_exact_mut(s.iw * BLOCK)) {
            gather(image, xs, row, &channels, to);
        }
    }
}

/// Copies the first pixels of a row, with these channels in their lanes.
fn gather(image: &[f32], xs: &Strides, row: usize, channels: &[Option<usize>; BLOCK], to: &mut [f32]) {
    let at = channels.map(|c| c.map(|c| c / BLOCK * xs.block + c % BLOCK * xs.channel + row * xs.row));
    for (px, to) in to.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        *to = at.map(|at| at.map_or(0.0, |at| image[at + px * xs.px]));
    }
}
