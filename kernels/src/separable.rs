//! Depthwise separable convolution: a depthwise convolution and the 1x1 convolution behind it, by strips of rows.
//!
//! ```text
//! for each image, strip of rows:                                            threads
//!   strip = depthwise(x), these rows of all channels                        stays in L2
//!   y     = pointwise(strip) + residual, these rows
//! ```
//!
//! Both wait for memory where their tensors exceed the caches, and the tensor between them is written and read for nobody else. By strips
//! it never leaves L2. Each of the two computes as it does alone, in the same order: the result has the same bits as that of one after
//! the other, whatever the strips.

use crate::depthwise::Depthwise;
use crate::direct::Direct;
use crate::epilogue::{Epilogue, Lengths, Outputs};
use crate::exec::{Executor, for_each_part_with, parts_wanted};
use crate::layout::{BLOCK, Layout, Strides, blocks};
use crate::machine::Core;
use crate::shape::ConvShape;
use crate::tile::{Finish, SyncFinish};

/// A depthwise convolution and a 1x1 convolution of its result, planned, in blocks. Holds no tensor.
///
/// ```
/// use swath_kernels::{epilogue::Epilogue, exec::Inline, isa::Level, machine::Core};
/// use swath_kernels::{separable::Separable, shape::ConvShape};
/// let first = ConvShape::builder([1, 16, 6, 6], [16, 1, 3, 3]).padding(1).groups(16).build()?;
/// let second = ConvShape::builder([1, 16, 6, 6], [16, 16, 1, 1]).build()?;
/// let plan = Separable::with_rows([&first, &second], Core::here(Level::Scalar), 2).unwrap();
/// let [mut first, mut second] = plan.packed_len().map(|len| vec![0.0; len]);
/// plan.pack([&[1.0; 16 * 9], &[0.5; 16 * 16]], [&mut first, &mut second]);
/// let (x, mut y, mut scratch) = (vec![1.0; 16 * 36], vec![0.0; 16 * 36], vec![0.0; plan.scratch_len()]);
/// let none = [Epilogue::none(); 2];
/// plan.forward(&x, [&first, &second], none, (&mut y[..]).into(), &mut scratch, &Inline);
/// assert_eq!((y[0], y[16 * 7]), (0.5 * 16.0 * 4.0, 0.5 * 16.0 * 9.0));
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Separable {
    /// Its output lies as the strips do.
    depthwise: Depthwise,
    /// Of a strip of `rows`, and of an image's last one, which may be shorter.
    pointwise: [Direct; 2],
    /// The second convolution as a whole.
    shape: ConvShape,
    rows: usize,
}

impl Separable {
    /// Plans for so many threads, where that is faster than one after the other.
    ///
    /// # Errors
    /// A reason, when the two are not such a pair, or what lies between them stays in L2 anyway.
    pub fn new(shapes: [&ConvShape; 2], core: Core, threads: usize) -> Result<Self, &'static str> {
        let rows = choose_rows(core, shapes[1], threads)?;
        Self::with_rows(shapes, core, rows)
    }

    /// The same with strips of so many rows, clamped to those that there are.
    ///
    /// # Errors
    /// A reason, when the two are not such a pair.
    pub fn with_rows([first, second]: [&ConvShape; 2], core: Core, rows: usize) -> Result<Self, &'static str> {
        second.assert_consistent();
        let s = *second;
        if first.output() != s.input() {
            return Err("the second convolution reads something else");
        }
        if !s.is_pointwise() || (s.sh, s.sw, s.groups) != (1, 1, 1) || s.output()[2..] != s.input()[2..] {
            return Err("the second convolution is not 1x1 of stride 1");
        }
        if s.n == 0 {
            return Err("there are no images");
        }
        let rows = rows.clamp(1, s.ih);
        let row = s.iw * BLOCK;
        let strip = Strides { n: blocks(s.ic) * rows * row, block: rows * row, row, px: BLOCK, channel: 1 };
        let layouts = [Layout::Blocked; 2];
        let depthwise = Depthwise::within(first, core, layouts, [Layout::Blocked.strides(first.input()), strip], None)?;
        let of_rows = |rows: usize| {
            let shape =
                ConvShape::builder([1, s.ic, rows, s.iw], s.weights()).build().map_err(|_| "too many pixels")?;
            Ok(Direct::within(&shape, core, layouts, [strip, Layout::Blocked.strides(s.output())], None))
        };
        let last = s.ih - (s.ih - 1) / rows * rows;
        Ok(Self { depthwise, pointwise: [of_rows(rows)?, of_rows(last)?], shape: s, rows })
    }

    /// Packs the weights `[oc, ic / groups, kh, kw]` of both convolutions, as [`Depthwise`] and [`Direct`] pack them.
    ///
    /// # Panics
    /// If a slice's length is not what the shapes and [`Separable::packed_len`] say.
    pub fn pack(&self, [first, second]: [&[f32]; 2], [depthwise, pointwise]: [&mut [f32]; 2]) {
        self.depthwise.pack(first, depthwise);
        self.pointwise[0].pack(second, pointwise);
    }

    /// Rows of a strip.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Floats of packed weights of either convolution.
    pub fn packed_len(&self) -> [usize; 2] {
        [self.depthwise.packed_len(), self.pointwise[0].packed_len()]
    }

    /// Floats of scratch for one thread: a strip.
    pub fn scratch_len(&self) -> usize {
        let s = &self.shape;
        blocks(s.ic) * BLOCK * self.rows * s.iw
    }

    /// Runs both convolutions on the executor's threads: bias and activation of the first are applied to what lies between. `scratch` holds
    /// [`Separable::scratch_len`] floats for each thread that is to take part, at least for one.
    ///
    /// The outputs may lie in memory that holds nothing yet; what they then are is returned.
    ///
    /// # Panics
    /// If a slice's length is not what the shapes and [`Separable::packed_len`] say, or something is added to the first one's result.
    pub fn forward<'y>(
        &self,
        x: &[f32],
        packed: [&[f32]; 2],
        [first, second]: [Epilogue<'_>; 2],
        mut y: Outputs<'y>,
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) -> &'y mut [f32] {
        let (s, level) = (&self.shape, self.depthwise.level());
        let strides = Layout::Blocked.strides(s.output());
        let lengths = Lengths::new(s, packed[1].len(), [s.input(), s.output()].map(dense));
        lengths.assert_outputs(&second, &y);
        assert!(first.residual.is_none(), "nothing is added to what lies between");
        assert!(first.bias.is_none_or(|b| b.len() == s.ic), "bias length");
        let finish = [&first, &second].map(|epilogue| SyncFinish(Finish::new(epilogue, level)));
        let strips = s.ih.div_ceil(self.rows);
        let shared = y.shared();
        for_each_part_with(executor, s.n * strips, scratch, self.scratch_len(), |part, strip| {
            let (n, first) = (part / strips, part % strips * self.rows);
            let rows = first..(first + self.rows).min(s.ih);
            let [before, behind] = &finish;
            self.depthwise.rows(x, packed[0], before, n, rows.clone(), strip);
            let pointwise = &self.pointwise[usize::from(rows.len() < self.rows)];
            let job = pointwise.job(strip, packed[1], *behind, (shared, n * strides.n + first * strides.row), 1);
            (0..job.parts()).for_each(|part| job.part(part, &mut []));
        });
        // SAFETY: strips cover all rows, and write all outputs of theirs, channels that pad included.
        unsafe { y.written() }
    }
}

/// Rows of a strip for so many threads, of a pair whose second convolution is `s`.
///
/// # Errors
/// A reason why one after the other is as fast.
fn choose_rows(core: Core, s: &ConvShape, threads: usize) -> Result<usize, &'static str> {
    let row = blocks(s.ic) * BLOCK * s.iw * size_of::<f32>();
    let [between, weights] = [s.n * s.ih * row, s.weights().iter().product::<usize>() * size_of::<f32>()];
    if between < core.l2_bytes / 12 {
        return Err("what lies between the two stays in the level-2 cache");
    }
    // Each strip reads all of them.
    if weights > between / 4 {
        return Err("the second convolution's weights are too many");
    }
    // Strips that stay in L2 beside rows of input and output, a few for each thread.
    let wanted = if threads == 1 { 1 } else { parts_wanted(threads).div_ceil(s.n) };
    let strips = s.ih.div_ceil((core.l2_bytes / 6 / row).max(1)).max(wanted).min(s.ih);
    Ok(s.ih.div_ceil(strips))
}

/// How a blocked tensor lies.
fn dense(dims: [usize; 4]) -> (Layout, Strides) {
    (Layout::Blocked, Layout::Blocked.strides(dims))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of MobileNet v2's pairs on known cores, on any machine, by one thread and by two; 0 where one after the other is
    /// as fast.
    #[test]
    fn rows_of_known_cores() {
        let rows = |core: Core, [channels, outputs, size]: [usize; 3]| {
            let pointwise = ConvShape::builder([1, channels, size, size], [outputs, channels, 1, 1]).build().unwrap();
            [1, 2].map(|threads| choose_rows(core, &pointwise, threads).unwrap_or(0))
        };
        let layers = [[32, 16, 112], [96, 24, 56], [144, 24, 56], [192, 32, 28], [384, 64, 14], [960, 160, 7]];
        let no = [0, 0];
        let of_1_mib = [[12, 12], [8, 7], [5, 5], [7, 4], no, no];
        let of_2_mib = [[23, 14], [14, 7], [10, 7], [14, 4], no, no];
        for (core, wanted) in [
            (Core::ZEN3, [[6, 6], [4, 4], [2, 2], [4, 4], no, no]),
            (Core::ZEN4, of_1_mib),
            (Core::ZEN5, of_1_mib),
            (Core::GRANITE_RAPIDS, of_2_mib),
            (Core::NEOVERSE_V2, of_2_mib),
            (Core::APPLE_M1, [[28, 14], [19, 7], [14, 7], [14, 4], no, no]),
        ] {
            assert_eq!(layers.map(|layer| rows(core, layer)), wanted, "{core:?}");
        }
    }
}
