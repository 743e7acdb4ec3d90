//! Pooling: max (with or without indices or taps), average, adaptive and global; and its gradients.
//!
//! # Layouts, units and rows
//!
//! A tensor is a sequence of *units*, each an image `[h][w][ch]` of contiguous pixels with `ch` interleaved channels:
//!
//! | layout | units | `ch` |
//! |---|---|---|
//! | blocked | `n * ceil(c / 16)` channel blocks | 16 |
//! | NCHW | `n * c` planes | 1 |
//! | NHWC | `n` images | `c` |
//!
//! so one body serves all three; it vectorises over `ch`, which is what the blocked layout is for (NHWC does well too,
//! NCHW is correct and slow). Work is split by output rows: row `u * oh + oy` of a tensor is row `oy` of unit `u`,
//! [`row_len`] floats that are contiguous in `y`. Each function takes a range of rows in [`Part`], the whole input, and the part
//! of the output that the range covers; results do not depend on how a caller cuts the ranges. Channel block `b` of
//! image `i` is the rows `(i * blocks + b) * oh ..` and `oh` on.
//!
//! # Loop nest
//!
//! ```text
//! for row in rows                               oy fixed: taps outside the input are cut from the window's rows
//!   for v in 0..ch / LANES                      one vector of channels
//!     for ox in 0..ow                           left border, interior, right border
//!       for kx: for ky                          a column of the window, then the columns
//! ```
//!
//! Windows of 2x2 and 3x3 have rows of their own in the table, unrolled, where columns that two windows share are
//! folded once: 6 instead of 9 loads for 3x3 with stride 2.
//!
//! Maxima and integer-valued averages are exact. An average is the f32 sum, columns first, divided by the count: within
//! `elements + 1` roundings, `(elements + 1) 2^-24 sum(abs(x)) / count`.

mod adaptive;
mod backward;
mod geometry;
mod window;

use core::ops::Range;

pub use adaptive::AdaptiveShape;
pub use backward::{
    Tap, adaptive_average_backward, adaptive_max, adaptive_max_backward, average_backward, max_backward, max_indices,
    max_indices_backward, max_taps,
};

use crate::control_word::with_default;
use crate::isa::{self, Level};
use crate::layout::{BLOCK, Layout, blocks};
use crate::registry::{by_level, edges};
use crate::shape::{MAX_ELEMENTS, Padding, PoolShape, checked_elements};

use adaptive::Adaptive;
use window::{Max, MaxIndices, Sum, Window};

/// The index of a window that has no tap inside the input; see [`max`].
pub const NO_INDEX: u32 = u32::MAX;

/// What a pooling kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Maxima.
    Max,
    /// Maxima and their indices.
    MaxIndices,
    /// Averages over windows.
    Average,
    /// Averages over [`AdaptiveShape`]'s regions.
    Adaptive,
}

/// What average pooling divides a window's sum by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divisor {
    /// The window's elements inside the input.
    Inside,
    /// Also those in the padding, but not those that ceil mode lets hang over the padding's edge (PyTorch's
    /// `count_include_pad`).
    Padded,
    /// A given number, the same for all windows (PyTorch's `divisor_override`).
    Fixed(usize),
}

/// What a pooling kernel's entry point takes; [`PoolRow::run`] has its contract.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PoolArgs {
    /// First float of the whole input.
    pub x: *const f32,
    /// First float of the first output row.
    pub y: *mut f32,
    /// First index of the first output row, in the layout of `y`; used by [`Op::MaxIndices`] only.
    pub indices: *mut u32,
    /// First output row, `unit * oh + oy`.
    pub first: usize,
    /// Number of output rows.
    pub rows: usize,
    /// Interleaved channels of a pixel.
    pub ch: usize,
    /// Channels of the tensor, less than `ch` times the units of an image where the last block is padded.
    pub c: usize,
    /// Units of an image.
    pub units: usize,
    /// Input height and width.
    pub input: [usize; 2],
    /// Output height and width.
    pub output: [usize; 2],
    /// Window height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Vertical and horizontal dilation.
    pub dilation: [usize; 2],
    /// Padding of the four sides.
    pub pad: Padding,
    /// What averages divide by.
    pub divisor: Divisor,
}

/// One pooling kernel at one level.
#[derive(Clone, Copy, Debug)]
pub struct PoolRow {
    /// Family, window if fixed, type and level, as `maxpool_3x3s2_f32_avx512`.
    pub name: &'static str,
    /// The level it is built for.
    pub level: Level,
    /// What it computes.
    pub op: Op,
    /// The square window and stride that it is unrolled for, undilated; any if `None`.
    pub window: Option<(usize, usize)>,
    /// The kernel.
    ///
    /// # Safety
    /// * The machine has the level.
    /// * `x` is readable for whole units of `input[0] * input[1] * ch` floats, up to the unit of the last row.
    /// * `y`, and for [`Op::MaxIndices`] `indices`, are writable for `rows * output[1] * ch` elements, and overlap nothing.
    /// * `kernel`, `stride`, `dilation`, `pad`, `input` and `output` are those of a [`PoolShape`] (for [`Op::Adaptive`]:
    ///   `input` and `output` are at least 1), and fit the row's `window`.
    pub run: isa::Entry<PoolArgs>,
}

impl PoolRow {
    /// Whether the kernel can run a geometry.
    pub fn supports(&self, a: &PoolArgs) -> bool {
        self.window.is_none_or(|(k, s)| a.kernel == [k, k] && a.stride == [s, s] && a.dilation == [1, 1])
    }
}

edges!(edge);

/// The rows of one level: of each operation the unrolled ones first, then the one for everything.
macro_rules! level_rows {
    ($level:ident, $entry:ident) => {
        level_rows! { $level, $entry,
            "maxpool_3x3s2" Max (Some((3, 2))) (Window<Max, 3, 2>)
            "maxpool_2x2s2" Max (Some((2, 2))) (Window<Max, 2, 2>)
            "maxpool_3x3s1" Max (Some((3, 1))) (Window<Max, 3, 1>)
            "maxpool" Max (None) (Window<Max, 0, 0>)
            "maxpool_indices" MaxIndices (None) (MaxIndices)
            "avgpool_3x3s2" Average (Some((3, 2))) (Window<Sum, 3, 2>)
            "avgpool_2x2s2" Average (Some((2, 2))) (Window<Sum, 2, 2>)
            "avgpool_3x3s1" Average (Some((3, 1))) (Window<Sum, 3, 1>)
            "avgpool" Average (None) (Window<Sum, 0, 0>)
            "adaptive_avgpool" Adaptive (None) (Adaptive)
        }
    };
    ($level:ident, $entry:ident, $($name:literal $op:ident ($window:expr) ($kernel:ty))*) => {
        [$(PoolRow {
            name: concat!($name, "_f32_", stringify!($entry)),
            level: Level::$level,
            op: Op::$op,
            window: $window,
            run: edge::$entry::run::<$kernel>,
        }),*]
    };
}

by_level! {
    /// All pooling kernels of a level; empty for a level of another architecture.
    pub fn table() -> [PoolRow];

    Scalar: &level_rows!(Scalar, scalar),
    Avx2: &level_rows!(Avx2, avx2),
    Avx512: &level_rows!(Avx512, avx512),
    Neon: &level_rows!(Neon, neon),
}

/// Units of one image, and the channels that they interleave.
fn units(layout: Layout, c: usize) -> (usize, usize) {
    match layout {
        Layout::Nchw => (c, 1),
        Layout::Nhwc => (1, c),
        Layout::Blocked => (blocks(c), BLOCK),
    }
}

/// Output rows of a tensor of the logical extents `output = [n, c, oh, ow]`: what the ranges of [`max`], [`average`] and
/// [`adaptive_average`] count.
///
/// ```
/// use swath_kernels::{layout::Layout, pool};
/// assert_eq!(pool::rows(Layout::Blocked, [2, 40, 7, 9]), 2 * 3 * 7);
/// assert_eq!(pool::row_len(Layout::Blocked, [2, 40, 7, 9]), 9 * 16);
/// ```
pub fn rows(layout: Layout, output: [usize; 4]) -> usize {
    output[0] * units(layout, output[1]).0 * output[2]
}

/// Floats in one output row of a tensor of the logical extents `output = [n, c, oh, ow]`.
pub fn row_len(layout: Layout, output: [usize; 4]) -> usize {
    output[3] * units(layout, output[1]).1
}

impl PoolArgs {
    /// The geometry of an adaptive average; pointers are null and there are no rows yet.
    pub fn adaptive(s: &AdaptiveShape, layout: Layout) -> Self {
        let (units, ch) = units(layout, s.c);
        Self {
            x: core::ptr::null(),
            y: core::ptr::null_mut(),
            indices: core::ptr::null_mut(),
            first: 0,
            rows: 0,
            ch,
            c: s.c,
            units,
            input: [s.ih, s.iw],
            output: [s.oh, s.ow],
            kernel: [1; 2],
            stride: [1; 2],
            dilation: [1; 2],
            pad: Padding::default(),
            divisor: Divisor::Inside,
        }
    }

    /// The same of a window.
    pub fn window(s: &PoolShape, layout: Layout) -> Self {
        let &PoolShape { n, c, ih, iw, oh, ow, kh, kw, sh, sw, dh, dw, pad } = s;
        let extents = AdaptiveShape { n, c, ih, iw, oh, ow };
        let (kernel, stride, dilation) = ([kh, kw], [sh, sw], [dh, dw]);
        Self { kernel, stride, dilation, pad, ..Self::adaptive(&extents, layout) }
    }

    /// Whether no size is zero and no product or sum of sizes that kernels form overflows. A checked shape's never do, but
    /// its fields are public.
    fn fits_memory(&self, [input, output]: [[usize; 4]; 2]) -> bool {
        let tensor = |[n, c, h, w]: [usize; 4]| {
            c.checked_next_multiple_of(BLOCK).is_some_and(|c| checked_elements("", &[n, c, h, w]).is_ok())
        };
        let pads = [[self.pad.top, self.pad.bottom], [self.pad.left, self.pad.right]];
        let axis = |i: usize| {
            let [size, o, k, s, d] = [self.input, self.output, self.kernel, self.stride, self.dilation].map(|v| v[i]);
            let ok = |extents: &[usize]| checked_elements("", extents).is_ok();
            let sums = [size, pads[i][0], pads[i][1]].iter().all(|&v| v <= MAX_ELEMENTS);
            [size, o, k, s, d].iter().all(|&v| v > 0) && sums && ok(&[o, s]) && ok(&[k, d]) && ok(&[size, o])
        };
        tensor(input) && tensor(output) && axis(0) && axis(1)
    }
}

/// What a call computes: some output rows of a tensor in a layout, at a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The level to take the kernel from.
    pub level: Level,
    /// Layout of input and output.
    pub layout: Layout,
    /// Output rows, of [`rows`].
    pub rows: Range<usize>,
}

impl Part {
    /// All rows of a tensor of the logical extents `output = [n, c, oh, ow]`.
    pub fn whole(level: Level, layout: Layout, output: [usize; 4]) -> Self {
        Self { level, layout, rows: 0..rows(layout, output) }
    }
}

/// Checks whole extents, then runs the first row of the table that supports the geometry.
fn run(part: &Part, op: Op, dims: [[usize; 4]; 2], x: &[f32], y: &mut [f32], args: PoolArgs) {
    let (Part { level, layout, rows: range }, [input, output]) = (part, dims);
    assert!(Level::available().contains(level), "level {level} is not available on this machine");
    assert!(args.fits_memory(dims), "a geometry that was changed after it was built: {args:?}");
    let all = rows(*layout, output);
    assert!(range.start <= range.end && range.end <= all, "rows {range:?} of {all}");
    assert_eq!(x.len(), layout.len(input), "input length for {input:?} {}", layout.name());
    let expected = range.len() * row_len(*layout, output);
    assert_eq!(y.len(), expected, "output length for {} rows of {output:?} {}", range.len(), layout.name());
    let args = PoolArgs { x: x.as_ptr(), y: y.as_mut_ptr(), first: range.start, rows: range.len(), ..args };
    let row = table(*level).iter().find(|r| r.op == op && r.supports(&args)).expect("the last row supports everything");
    // SAFETY: the level is available; x holds all units and y all rows of the range, as just asserted, and `max` asserts
    // the same of the indices; `&mut` slices overlap nothing; no product of the geometry overflows, so that taps found inside
    // are inside; the row supports it.
    with_default(|| unsafe { (row.run)(&args) })
}

/// Panics unless each pixel of a plane has an index.
#[track_caller]
fn assert_indexable(pixels: usize) {
    assert!(pixels < NO_INDEX as usize, "{pixels} pixels of a plane do not fit an index");
}

/// Max pooling of the output rows of `part` (see the [module](self)), with the indices of the maxima if wanted.
///
/// `x` is the whole input, `y` (and `indices`, in the layout of `y`) the piece of the output that the part covers. An index
/// is `iy * iw + ix` within the plane, as PyTorch's; u32 because it halves the memory that training keeps, and a
/// plane beyond 2^32 pixels is refused. As in PyTorch the first of equal maxima wins and a NaN wins over everything (the
/// last one gives the index). A window that dilation leaves without a tap inside the input gives minus infinity and
/// [`NO_INDEX`]. Channels that pad the last block must be zero in `x` and are zero in `y`.
///
/// # Panics
/// If a length is not what shape and part say, the rows end beyond [`rows`], indices are wanted of a plane of 2^32 - 1
/// pixels or more, or the machine does not have the level.
///
/// ```
/// use swath_kernels::{isa::Cpu, layout::Layout, pool, shape::PoolShape};
/// let s = PoolShape::builder([1, 1, 2, 4], 2).build()?;
/// let (mut y, mut indices) = ([0.0; 2], [0; 2]);
/// let x = [1.0, 2.0, 5.0, 0.0, 4.0, 3.0, 5.0, 0.0];
/// let part = pool::Part::whole(Cpu::detect().level, Layout::Nchw, s.output());
/// pool::max(&part, &s, &x, &mut y, Some(&mut indices));
/// assert_eq!((y, indices), ([4.0, 5.0], [4, 2]));
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
pub fn max(part: &Part, shape: &PoolShape, x: &[f32], y: &mut [f32], indices: Option<&mut [u32]>) {
    shape.assert_consistent();
    let mut args = PoolArgs::window(shape, part.layout);
    let mut op = Op::Max;
    if let Some(indices) = indices {
        assert_eq!(indices.len(), y.len(), "as many indices as outputs");
        assert_indexable(shape.ih * shape.iw);
        (args.indices, op) = (indices.as_mut_ptr(), Op::MaxIndices);
    }
    run(part, op, [shape.input(), shape.output()], x, y, args);
}

/// Average pooling of the output rows of `part` (see the [module](self)).
///
/// `x` is the whole input, `y` the piece of the output that the part covers. Channels that pad the last block must be zero
/// in `x` and are zero in `y`.
///
/// # Panics
/// If the shape is dilated, a length is not what shape and part say, the rows end beyond [`rows`], or the machine does
/// not have the level.
pub fn average(part: &Part, shape: &PoolShape, x: &[f32], y: &mut [f32], divisor: Divisor) {
    shape.assert_consistent();
    assert_eq!([shape.dh, shape.dw], [1, 1], "average pooling has no dilation");
    let args = PoolArgs { divisor, ..PoolArgs::window(shape, part.layout) };
    run(part, Op::Average, [shape.input(), shape.output()], x, y, args);
}

/// Adaptive and global average pooling of the output rows of `part` (see the [module](self)): output `o` of an axis averages
/// the inputs from `floor(o * in / out)` to before `ceil((o + 1) * in / out)`, as PyTorch's.
///
/// `x` is the whole input, `y` the piece of the output that the part covers. Channels that pad the last block must be
/// zero in `x` and are zero in `y`.
///
/// # Panics
/// If a length is not what shape and part say, the rows end beyond [`rows`], or the machine does not have the level.
///
/// ```
/// use swath_kernels::{isa::Cpu, layout::Layout, pool};
/// let s = pool::AdaptiveShape::global([1, 2, 1, 3])?;
/// let mut y = [0.0; 2];
/// let part = pool::Part::whole(Cpu::detect().level, Layout::Nchw, s.output());
/// pool::adaptive_average(&part, &s, &[1.0, 2.0, 6.0, 0.0, 0.0, 3.0], &mut y);
/// assert_eq!(y, [3.0, 1.0]);
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
pub fn adaptive_average(part: &Part, shape: &AdaptiveShape, x: &[f32], y: &mut [f32]) {
    let args = PoolArgs::adaptive(shape, part.layout);
    run(part, Op::Adaptive, [shape.input(), shape.output()], x, y, args);
}
