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
//! so one body serves all three; it vectorises over `ch`, which is what the blocked layout is for (NHWC does well, too).
//! In NCHW a vector is outputs side by side, where strides are 1 or 2 and the windows that lie inside fill it; else a
//! pixel. Rows, units and images may lie apart ([`Lies`]). Work is split by output rows: row `u * oh + oy` of a tensor is
//! row `oy` of unit `u`. The shape alone fixes the cuts, and results do not depend on them.
//!
//! # Loop nest
//!
//! ```text
//! for row in rows                               oy fixed: taps outside the input are cut from the window's rows
//!   for v in 0..ch / LANES                      one vector of channels
//!     for ox in 0..ow                           left border, interior (of planes: a vector of outputs at a time), right border
//!       for kx: for ky                          a column of the window, then the columns
//! ```
//!
//! Windows of 2x2 and 3x3 have rows of their own in the table of all levels but the scalar one, unrolled, where columns that two windows share are
//! folded once: 6 instead of 9 loads for 3x3 with stride 2.
//!
//! Maxima and integer-valued averages are exact. An average is the f32 sum, columns first, divided by the count: within
//! `elements + 1` roundings, `(elements + 1) 2^-24 sum(abs(x)) / count`.

mod adaptive;
mod backward;
mod geometry;
mod spans;
mod window;

pub use adaptive::AdaptiveShape;
pub use backward::{
    Tap, adaptive_average_backward, adaptive_max, adaptive_max_backward, average_backward, max_backward, max_indices,
    max_indices_backward, max_taps,
};

use crate::epilogue::Outputs;
use crate::isa::{self, Level};
use crate::layout::{BLOCK, Layout, View, blocks};
use crate::pass::{Numbers, Place};
use crate::shape::{MAX_ELEMENTS, Padding, PoolShape, checked_elements};
use crate::table::{by_level, edges};

use adaptive::Adaptive;
use window::{Max, Sum, Window};

/// The index of a window that has no tap inside the input; see [`max`].
pub const NO_INDEX: u32 = u32::MAX;

/// What a pooling kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Maxima.
    Max,
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

/// How far images, units and rows of a tensor lie apart, in floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Apart {
    /// From image to image.
    pub image: usize,
    /// From unit to unit of an image.
    pub unit: usize,
    /// From row to row.
    pub row: usize,
}

impl Apart {
    /// # Panics
    /// If the view has other extents.
    fn new(view: View, dims: [usize; 4]) -> Self {
        let s = view.strides_of(dims);
        let unit = if view.layout() == Layout::Nchw { s.channel } else { s.block };
        Self { image: s.n, unit, row: s.row }
    }

    /// Where a unit of the tensor begins, of which an image has so many.
    #[inline(always)]
    fn start(&self, units: usize, unit: usize) -> usize {
        unit / units * self.image + unit % units * self.unit
    }
}

/// How input and output lie: dense in a layout, or as parts of larger tensors. Both have one layout.
///
/// ```
/// use swath_kernels::layout::{Layout, Pitches, View};
/// use swath_kernels::{isa::Cpu, pass::Place, pool, shape::PoolShape};
/// let s = PoolShape::builder([1, 1, 2, 2], 2).build()?;
/// let place = Place::inline(Cpu::detect().level);
/// let (mut y, mut window) = ([0.0], [0.0]);
/// pool::max(&place, Layout::Nchw, &s, &[1.0, 4.0, 3.0, 2.0], y.as_mut_slice().into(), None);
/// // The left half of a picture that is four pixels wide.
/// let half = View::pitched(Layout::Nchw, s.input(), Pitches { image: 8, channel: 8, row: 4 }).unwrap();
/// let views = [half, View::dense(Layout::Nchw, s.output())];
/// pool::max(&place, views, &s, &[1.0, 4.0, 9.0, 9.0, 3.0, 2.0], window.as_mut_slice().into(), None);
/// assert_eq!((y, window), ([4.0], [4.0]));
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Lies(Result<[View; 2], Layout>);

impl From<Layout> for Lies {
    fn from(layout: Layout) -> Self {
        Self(Err(layout))
    }
}

impl From<[View; 2]> for Lies {
    fn from(views: [View; 2]) -> Self {
        Self(Ok(views))
    }
}

impl Lies {
    /// The views of input and output of these extents.
    ///
    /// # Panics
    /// If there are views of different layouts, or extents whose product overflows: a checked shape's never does, but its fields are public.
    #[track_caller]
    fn views(self, dims: [[usize; 4]; 2]) -> [View; 2] {
        let fits = |[n, c, h, w]: [usize; 4]| {
            c.checked_next_multiple_of(BLOCK).is_some_and(|c| checked_elements("", &[n, c, h, w]).is_ok())
        };
        assert!(dims.into_iter().all(fits), "a geometry that was changed after it was built: {dims:?}");
        let views = self.0.unwrap_or_else(|layout| dims.map(|dims| View::dense(layout, dims)));
        assert_eq!(views[0].layout(), views[1].layout(), "layouts of input and output");
        views
    }
}

/// What a pooling kernel's entry point takes; [`PoolRow::run`] has its contract.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PoolArgs {
    /// First float of the whole input.
    pub x: *const f32,
    /// How the input lies.
    pub x_apart: Apart,
    /// First float of the whole output.
    pub y: *mut f32,
    /// How the output lies.
    pub y_apart: Apart,
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
    /// * `x` is readable for `input[0]` rows of `input[1] * ch` floats of each unit of the output rows, at `x_apart`.
    /// * `y` is writable for `output[1] * ch` floats of each of the output rows, at `y_apart`, and overlaps nothing.
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

    // Hardly any machine runs at this level: one row for any window is worth its code.
    Scalar: &level_rows! { Scalar, scalar,
        "maxpool" Max (None) (Window<Max, 0, 0>)
        "avgpool" Average (None) (Window<Sum, 0, 0>)
        "adaptive_avgpool" Adaptive (None) (Adaptive)
    },
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

impl PoolArgs {
    /// The geometry of an adaptive average; pointers are null and there are no rows yet.
    pub fn adaptive(s: &AdaptiveShape, layout: Layout) -> Self {
        let (units, ch) = units(layout, s.c);
        let [x_apart, y_apart] = [s.input(), s.output()].map(|dims| Apart::new(View::dense(layout, dims), dims));
        Self {
            x: core::ptr::null(),
            x_apart,
            y: core::ptr::null_mut(),
            y_apart,
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

    /// Whether no size is zero and no product or sum of sizes along an axis that kernels form overflows. A checked shape's never do, but
    /// its fields are public.
    fn fits_memory(&self) -> bool {
        let pads = [[self.pad.top, self.pad.bottom], [self.pad.left, self.pad.right]];
        let axis = |i: usize| {
            let [size, o, k, s, d] = [self.input, self.output, self.kernel, self.stride, self.dilation].map(|v| v[i]);
            let ok = |extents: &[usize]| checked_elements("", extents).is_ok();
            let sums = [size, pads[i][0], pads[i][1]].iter().all(|&v| v <= MAX_ELEMENTS);
            [size, o, k, s, d].iter().all(|&v| v > 0) && sums && ok(&[o, s]) && ok(&[k, d]) && ok(&[size, o])
        };
        axis(0) && axis(1)
    }
}

/// Arguments that all parts of a run share.
struct SyncArgs(PoolArgs);

// SAFETY: its pointers are those of a run, whose parts write disjoint rows.
unsafe impl Sync for SyncArgs {}

/// Floats of a part's input and output.
const PART: usize = 16 << 10;

/// Checks whole extents, then runs the first row of the table that supports the geometry, on the threads of `place`.
fn run<'y>(
    place: &Place<'_>,
    op: Op,
    (views, dims): ([View; 2], [[usize; 4]; 2]),
    x: &[f32],
    mut y: Outputs<'y>,
    args: PoolArgs,
) -> &'y mut [f32] {
    let [from, to] = views;
    assert!(args.fits_memory(), "a geometry that was changed after it was built: {args:?}");
    let [x_apart, y_apart] = [Apart::new(from, dims[0]), Apart::new(to, dims[1])];
    assert_lengths(views, x.len(), &y);
    let args = PoolArgs { x: x.as_ptr(), x_apart, y: y.shared().at(0), y_apart, ..args };
    let row = table(place.level()).iter().find(|r| r.op == op && r.supports(&args));
    let (row, args) = (row.expect("the last row supports everything"), SyncArgs(args));
    let rows = dims[1][0] * args.0.units * dims[1][2];
    let floats = x.len() + y.len();
    let together = rows.div_ceil((floats / PART).max(1)).max(1);
    place.each(floats, Numbers(rows.div_ceil(together)), |part, ()| {
        // All of it, which is `Sync`.
        let SyncArgs(args) = &args;
        let first = part * together;
        let args = PoolArgs { first, rows: together.min(rows - first), ..*args };
        // SAFETY: the level is available; x holds all units and y all rows at these distances, as just asserted; y is borrowed
        // mutably and overlaps nothing, and parts have rows of their own; no product of
        // the geometry overflows, so that taps found inside are inside; the row supports it.
        unsafe { (row.run)(&args) }
    });
    // SAFETY: parts of a run write all rows whole; what holds nothing has no gaps (asserted).
    unsafe { y.written() }
}

/// Panics unless a tensor at the input is as long as its view says, and what is written as the other one's; and where that has gaps
/// between its elements but holds nothing.
#[track_caller]
fn assert_lengths<T>([x, y]: [View; 2], x_len: usize, written: &Outputs<'_, T>) {
    assert_eq!(x_len, x.len(), "input length for {:?} {}", x.dims(), x.layout().name());
    assert_eq!(written.len(), y.len(), "output length for {:?} {}", y.dims(), y.layout().name());
    assert!(y.is_dense() || matches!(written, Outputs::Floats(_)), "gaps between outputs stay unwritten");
}

/// Panics unless each pixel of a plane has an index.
#[track_caller]
fn assert_indexable(pixels: usize) {
    assert!(pixels < NO_INDEX as usize, "{pixels} pixels of a plane do not fit an index");
}

/// Max pooling, with the indices of the maxima if wanted, in the layout of `y` without gaps. What `y` then is is returned.
///
/// An index is `iy * iw + ix` within the plane, as PyTorch's; u32 because it halves the memory that training keeps, and a
/// plane beyond 2^32 pixels is refused. As in PyTorch the first of equal maxima wins and a NaN wins over everything (the
/// last one gives the index). A window that dilation leaves without a tap inside the input gives minus infinity and
/// [`NO_INDEX`]. Channels that pad the last block must be zero in `x` and are zero in `y`.
///
/// # Panics
/// If a length is not what the shape says, views have other extents, indices are wanted of a plane of 2^32 - 1 pixels or more, or outputs
/// with gaps lie in memory that holds nothing.
///
/// ```
/// use swath_kernels::{isa::Cpu, layout::Layout, pass::Place, pool, shape::PoolShape};
/// let s = PoolShape::builder([1, 1, 2, 4], 2).build()?;
/// let (mut y, mut indices) = ([0.0; 2], [0; 2]);
/// let x = [1.0, 2.0, 5.0, 0.0, 4.0, 3.0, 5.0, 0.0];
/// let place = Place::inline(Cpu::detect().level);
/// pool::max(&place, Layout::Nchw, &s, &x, y.as_mut_slice().into(), Some(&mut indices));
/// assert_eq!((y, indices), ([4.0, 5.0], [4, 2]));
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
pub fn max<'y>(
    place: &Place<'_>,
    lies: impl Into<Lies>,
    shape: &PoolShape,
    x: &[f32],
    y: Outputs<'y>,
    indices: Option<&mut [u32]>,
) -> &'y mut [f32] {
    let lies = lies.into();
    if let Some(indices) = indices {
        return max_indices(place, lies, shape, x, y, indices.into()).0;
    }
    shape.assert_consistent();
    let dims = [shape.input(), shape.output()];
    let views = lies.views(dims);
    run(place, Op::Max, (views, dims), x, y, PoolArgs::window(shape, views[0].layout()))
}

/// Average pooling. Channels that pad the last block must be zero in `x` and are zero in `y`. What `y` then is is returned.
///
/// # Panics
/// If the shape is dilated, and as for [`max`].
pub fn average<'y>(
    place: &Place<'_>,
    lies: impl Into<Lies>,
    shape: &PoolShape,
    x: &[f32],
    y: Outputs<'y>,
    divisor: Divisor,
) -> &'y mut [f32] {
    shape.assert_consistent();
    assert_eq!([shape.dh, shape.dw], [1, 1], "average pooling has no dilation");
    let dims = [shape.input(), shape.output()];
    let views = lies.into().views(dims);
    let args = PoolArgs { divisor, ..PoolArgs::window(shape, views[0].layout()) };
    run(place, Op::Average, (views, dims), x, y, args)
}

/// Adaptive and global average pooling: output `o` of an axis averages
/// the inputs from `floor(o * in / out)` to before `ceil((o + 1) * in / out)`, as PyTorch's.
///
/// Channels that pad the last block must be zero in `x` and are zero in `y`. What `y` then is is returned.
///
/// # Panics
/// As for [`max`].
///
/// ```
/// use swath_kernels::{isa::Cpu, layout::Layout, pass::Place, pool};
/// let s = pool::AdaptiveShape::global([1, 2, 1, 3])?;
/// let mut y = [0.0; 2];
/// let place = Place::inline(Cpu::detect().level);
/// pool::adaptive_average(&place, Layout::Nchw, &s, &[1.0, 2.0, 6.0, 0.0, 0.0, 3.0], y.as_mut_slice().into());
/// assert_eq!(y, [3.0, 1.0]);
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
pub fn adaptive_average<'y>(
    place: &Place<'_>,
    lies: impl Into<Lies>,
    shape: &AdaptiveShape,
    x: &[f32],
    y: Outputs<'y>,
) -> &'y mut [f32] {
    let dims = [shape.input(), shape.output()];
    let views = lies.into().views(dims);
    run(place, Op::Adaptive, (views, dims), x, y, PoolArgs::adaptive(shape, views[0].layout()))
}
