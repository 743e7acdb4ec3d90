//! Weight gradients of few input channels, as of a network's first layer.
//!
//! ```text
//! for each slice of the pixels:                  threads
//!   for each segment of the slice, image, one or two blocks of dy, input channel:
//!                                                sums[slice][dy block][ic][tap][16 oc] += x * dy
//! then                                           dw = sum over slices, in PyTorch's order
//! ```
//!
//! A block of input channels would be mostly empty. So a kernel reads planes, as they lie in NCHW: one float for all
//! output channels of a block, or of two. Rows of other layouts are copied to planes first. Order of each sum and error: as
//! for [`BackwardWeights`](super::BackwardWeights).

use core::ops::Range;

use super::sum::{MOST_TAPS, Part, Source, TOO_MANY_TAPS, Taps, finish};
use super::{PARTS, Segments, assert_run};
use crate::control_word::with_default;
use crate::epilogue::Outputs;
use crate::exec::{Executor, Shared, cut, for_each_part_with};
use crate::isa::Level;
use crate::layout::{BLOCK, Layout, Strides, View, blocks};
use crate::machine::Core;
use crate::shape::ConvShape;

/// Most pixels of a segment, but for rows that are longer: a block of the gradient stays in L1 for all taps, and two of them where L1 has
/// 48 KiB. Half as many were 8 % slower on such a core, by the calls.
const SEGMENT: usize = 256;

/// Most floats of a copy: 2 MiB.
const MOST: usize = 1 << 19;

/// The weight gradient for few input channels, planned. Holds no tensor.
///
/// ```
/// use swath_kernels::{backward_weights::StemWeights, exec::Inline, isa::Level, layout::Layout};
/// use swath_kernels::{machine::Core, shape::ConvShape};
/// let shape = ConvShape::builder([1, 1, 3, 3], [1, 1, 2, 2]).build()?;
/// let plan = StemWeights::new(&shape, Core::here(Level::Scalar), Layout::Nchw, Layout::Blocked)?;
/// let (x, mut dy) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], [0.0; 64]);
/// (dy[0], dy[48]) = (1.0, 10.0); // the first and the last pixel
/// let (mut dw, mut scratch) = ([f32::NAN; 4], vec![0.0; plan.scratch_len(1)]);
/// plan.run(&x, &dy, dw.as_mut_slice().into(), None, &mut scratch, &Inline);
/// assert_eq!(dw, [51.0, 62.0, 84.0, 95.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct StemWeights {
    shape: ConvShape,
    core: Core,
    /// How `x` lies.
    input: Layout,
    xs: Strides,
    kernels: Taps,
    segments: Segments,
    slices: usize,
}

impl StemWeights {
    /// Plans, for `x` in layout `input` and `dy` in layout `gradient`, or says why the shape is not for this algorithm.
    ///
    /// # Errors
    /// A reason: a block of input channels or more, groups, dilated rows of taps, thousands of taps, gradients that are
    /// not blocked, rows that the scratch does not hold.
    pub fn new(shape: &ConvShape, core: Core, input: Layout, gradient: Layout) -> Result<Self, &'static str> {
        shape.assert_consistent();
        let s = *shape;
        if s.ic >= BLOCK {
            return Err("16 input channels or more");
        }
        if s.groups != 1 {
            return Err("there are groups");
        }
        if s.dw != 1 {
            return Err("the rows of taps are dilated");
        }
        if s.terms() > MOST_TAPS {
            return Err(TOO_MANY_TAPS);
        }
        if gradient != Layout::Blocked {
            return Err("reads blocked gradients");
        }
        let kernels = Taps::new(&s, core.level, Source::One)?;
        let segments = Segments::new(&s, SEGMENT);
        let slices = (2 * PARTS).min(segments.len());
        let this = Self { shape: s, core, input, xs: input.strides(s.input()), kernels, segments, slices };
        if this.copy_len().is_none_or(|len| len > MOST) {
            return Err("the input of a few rows of outputs exceeds the scratch");
        }
        Ok(this)
    }

    /// The same for an `x` that is a part of a larger tensor.
    ///
    /// # Errors
    /// As for [`StemWeights::new`].
    ///
    /// # Panics
    /// If a view has other extents than the shape's.
    pub fn of_views(shape: &ConvShape, core: Core, [x, dy]: [View; 2]) -> Result<Self, &'static str> {
        Ok(Self { xs: x.strides_of(shape.input()), ..Self::new(shape, core, x.layout(), dy.layout())? })
    }

    /// Floats of the copy of a segment's input; None if that overflows.
    fn copy_len(&self) -> Option<usize> {
        if self.input == Layout::Nchw {
            return Some(0);
        }
        let rows = self.kernels.height(self.shape.oh.div_ceil(self.segments.bands))?;
        rows.checked_mul(self.shape.iw)?.checked_mul(self.shape.ic)
    }

    /// Taps of all input channels.
    fn terms(&self) -> usize {
        self.shape.terms()
    }

    /// Floats of a block's sums: of each tap, and of the gradient.
    fn block_len(&self) -> usize {
        (self.terms() + 1) * BLOCK
    }

    /// Floats of a slice's sums.
    fn slice_len(&self) -> usize {
        blocks(self.shape.oc) * self.block_len()
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The instruction-set level whose kernels run.
    pub fn level(&self) -> Level {
        self.core.level
    }

    /// Name of the kernel that does most of the work: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        self.kernels.kernel()
    }

    /// Floats of scratch for a run on so many threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        let copies = threads.max(1).saturating_mul(self.copy_len().unwrap_or(0));
        (self.slices * self.slice_len()).saturating_add(copies)
    }

    /// Computes `dw` `[oc, ic, kh, kw]` and, if asked for, `db` `[oc]`, on the executor's threads. `scratch` holds
    /// [`StemWeights::scratch_len`] floats for as many threads as are to take part, at least for one.
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
        let blocked = Layout::Blocked;
        let of = (s, self.core.level, [(self.input, self.xs), (blocked, blocked.strides(s.output()))]);
        assert_run(of, [x, dy], &dw, db.as_deref(), [scratch.len(), self.scratch_len(1)]);
        let (sums, copies) = scratch.split_at_mut(self.slices * self.slice_len());
        let (len, copy_len) = (self.slice_len(), self.copy_len().unwrap_or(0));
        let (shared, biased) = (Shared::new(sums), db.is_some());
        for_each_part_with(executor, self.slices, copies, copy_len, |slice, copy| {
            // SAFETY: the slice's sums lie in the scratch, and belong to this part alone.
            let sums = unsafe { core::slice::from_raw_parts_mut(shared.at(slice * len), len) };
            sums.fill(0.0);
            for segment in cut(self.segments.len(), self.slices, slice) {
                let (images, rows) = self.segments.at(s, segment);
                for n in images.filter(|_| !rows.is_empty()) {
                    self.image(x, dy, n, &rows, copy, sums, biased);
                }
            }
        });
        with_default(|| finish(self.core.level, sums, self.slice_len(), self.terms(), &dw.shared(), db));
        // SAFETY: `finish` writes all.
        unsafe { dw.written() }
    }

    /// Adds an image's part of a segment to the sums.
    #[allow(clippy::too_many_arguments)] // a run's tensors and a place in them
    fn image(
        &self,
        x: &[f32],
        dy: &[f32],
        n: usize,
        rows: &Range<usize>,
        copy: &mut [f32],
        sums: &mut [f32],
        biased: bool,
    ) {
        let (s, xs) = (&self.shape, &self.xs);
        let ds = Layout::Blocked.strides(s.output());
        let (reach, image) = (self.kernels.reach(rows), &x[n * xs.n..]);
        let (planes, plane, row, first) = if self.input == Layout::Nchw {
            (image, xs.channel, xs.row, 0)
        } else {
            self.copy(image, reach.clone(), copy);
            (&*copy, reach.len() * s.iw, s.iw, reach.start)
        };
        let (block, dy) = (self.block_len(), &dy[n * ds.n..][..ds.n]);
        // All channels of two blocks, whose gradients are in L1 then.
        for (pair, sums) in sums.chunks_mut(2 * block).enumerate() {
            let dy = &dy[pair * 2 * ds.block..];
            for c in 0..s.ic {
                self.kernels.add(
                    Part {
                        from: &planes[c * plane..],
                        first,
                        row,
                        dy,
                        dy_block: ds.block,
                        first_dy: 0,
                        sums,
                        block,
                        tap: c * s.kh * s.kw * BLOCK,
                        bias: (biased && c == 0).then_some(self.terms() * BLOCK),
                    },
                    rows,
                );
            }
        }
    }

    /// Copies some rows of an image to planes.
    fn copy(&self, image: &[f32], rows: Range<usize>, copy: &mut [f32]) {
        let (s, xs) = (&self.shape, &self.xs);
        let from = (0..s.ic).flat_map(|c| rows.clone().map(move |row| c * xs.channel + row * xs.row));
        for (from, to) in from.zip(copy.chunks_exact_mut(s.iw)) {
            to.iter_mut().enumerate().for_each(|(column, to)| *to = image[from + column * xs.px]);
        }
    }
}
