//! Softmax and log-softmax over rows.
//!
//! ```text
//! m = max x_j,   t = sum exp(x_j - m)      LANES partial sums, added in order
//! softmax:       y_i = exp(x_i - m) / t
//! log_softmax:   y_i = (x_i - m) - ln t
//! ```
//!
//! Nothing overflows. A row with a NaN or plus infinity, or of minus infinities only, gives NaN, as in PyTorch.
//!
//! Bounds, for rows of `c` elements: a term is within `abs(x_i - m)` halves of 2^-23 relative because the difference is
//! rounded, and the sum adds `c / LANES + LANES` roundings. So softmax is within
//! `(6 + abs(x_i - m) / 2 + c / 8) 2^-23` relative, plus 2^-140, and log-softmax within `(4 + c / 8) 2^-23` of
//! `1 + abs(y)`.

use crate::control_word::with_default;
use crate::isa::{self, Isa, Kernel, Level};
use crate::table::{by_level, edges};
use crate::vecmath::{exp, log};

/// What softmax's entry point takes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SoftmaxArgs {
    /// Input, `rows * cols` floats.
    pub src: *const f32,
    /// Output, `rows * cols` floats; may be `src`.
    pub dst: *mut f32,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
}

/// Softmax or log-softmax at one level.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxRow {
    /// Family, type and level, as `softmax_f32_avx512`.
    pub name: &'static str,
    /// The level it is built for.
    pub level: Level,
    /// Whether the result is the logarithm.
    pub log: bool,
    /// The kernel.
    ///
    /// # Safety
    /// The machine has the level; `src` is readable and `dst` writable for `rows * cols` floats; they are equal or do
    /// not overlap.
    pub run: isa::Entry<SoftmaxArgs>,
}

/// A window into it, added to a partly loaded vector, leaves the first lanes and makes the others minus infinity, which
/// neither a maximum nor a sum of exponentials notices.
static TAIL: [f32; 32] = {
    let mut t = [0.0; 32];
    let mut i = 16;
    while i < 32 {
        t[i] = f32::NEG_INFINITY;
        i += 1;
    }
    t
};

/// The vector at `x + i` of a row of `cols`, and its lanes inside the row; the others are minus infinity.
///
/// # Safety
/// `x` is readable for `cols` floats, and `i < cols`.
#[inline(always)]
unsafe fn load<I: Isa>(s: I, x: *const f32, i: usize, cols: usize) -> (I::V, usize) {
    let n = I::LANES.min(cols - i);
    // SAFETY: the n floats from i on are inside the row; the window starts at 16 - n and ends at 32 at most.
    unsafe {
        let p = x.add(i);
        let v = if n == I::LANES { s.load(p) } else { s.add(s.load_partial(p, n), s.load(TAIL.as_ptr().add(16 - n))) };
        (v, n)
    }
}

/// The lanes of a vector, in order.
#[inline(always)]
fn lanes<I: Isa>(s: I, v: I::V) -> impl Iterator<Item = f32> {
    let mut lanes = [0.0f32; 16];
    // SAFETY: LANES is at most 16.
    unsafe { s.store(lanes.as_mut_ptr(), v) };
    lanes.into_iter().take(I::LANES)
}

struct Softmax<const LOG: bool>;

impl<I: Isa, const LOG: bool> Kernel<I> for Softmax<LOG> {
    type Args = SoftmaxArgs;

    /// # Safety
    /// As [`SoftmaxRow::run`] states.
    #[inline(always)]
    unsafe fn run(s: I, a: &SoftmaxArgs) {
        let cols = a.cols;
        for row in 0..a.rows {
            // SAFETY: row < rows, so the row's cols floats are inside both buffers, and i < cols; a vector is read before
            // its place is written, so the buffers may be the same.
            unsafe {
                let (x, y) = (a.src.add(row * cols), a.dst.add(row * cols));
                let mut max = s.splat(f32::NEG_INFINITY);
                for i in (0..cols).step_by(I::LANES) {
                    max = s.max(max, load(s, x, i, cols).0);
                }
                // A NaN that the maximum drops comes back in the sum.
                let max = s.splat(lanes(s, max).fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b }));
                let mut sum = s.zero();
                for i in (0..cols).step_by(I::LANES) {
                    let (v, n) = load(s, x, i, cols);
                    let e = exp(s, s.sub(v, max));
                    sum = s.add(sum, e);
                    if !LOG {
                        s.store_partial(y.add(i), e, n);
                    }
                }
                let sum = s.splat(lanes(s, sum).fold(0.0, |a, b| a + b));
                let (scale, log_sum) = (s.div(s.splat(1.0), sum), log(s, sum));
                for i in (0..cols).step_by(I::LANES) {
                    let (v, n) = load(s, if LOG { x } else { y }, i, cols);
                    let v = if LOG { s.sub(s.sub(v, max), log_sum) } else { s.mul(v, scale) };
                    s.store_partial(y.add(i), v, n);
                }
            }
        }
    }
}

edges!(edge);

macro_rules! level_rows {
    ($level:ident, $entry:ident) => {
        [
            SoftmaxRow {
                name: concat!("softmax_f32_", stringify!($entry)),
                level: Level::$level,
                log: false,
                run: edge::$entry::run::<Softmax<false>>,
            },
            SoftmaxRow {
                name: concat!("log_softmax_f32_", stringify!($entry)),
                level: Level::$level,
                log: true,
                run: edge::$entry::run::<Softmax<true>>,
            },
        ]
    };
}

by_level! {
    /// Softmax and log-softmax of a level; empty for a level of another architecture.
    pub fn softmax_table() -> [SoftmaxRow];

    Scalar: &level_rows!(Scalar, scalar),
    Avx2: &level_rows!(Avx2, avx2),
    Avx512: &level_rows!(Avx512, avx512),
    Neon: &level_rows!(Neon, neon),
}

fn run(level: Level, log: bool, rows: usize, cols: usize, x: &[f32], y: &mut [f32]) {
    assert!(Level::available().contains(&level), "level {level} is not available on this machine");
    let len = rows.checked_mul(cols).expect("rows * cols overflows");
    assert_eq!(x.len(), len, "input length for {rows} rows of {cols}");
    assert_eq!(y.len(), len, "output length for {rows} rows of {cols}");
    let args = SoftmaxArgs { src: x.as_ptr(), dst: y.as_mut_ptr(), rows, cols };
    let row = &softmax_table(level)[usize::from(log)];
    // SAFETY: the level is available; both slices hold rows * cols floats, and a `&mut` slice overlaps no other.
    with_default(|| unsafe { (row.run)(&args) })
}

/// `y[r][i] = exp(x[r][i]) / sum_j exp(x[r][j])` for `rows` rows of `cols` contiguous elements.
///
/// # Panics
/// If a length is not `rows * cols`, or the machine does not have the level.
///
/// ```
/// use swath_kernels::{act, isa::Cpu};
/// let mut y = [0.0; 4];
/// act::softmax(Cpu::detect().level, 2, 2, &[1.0, 1.0, 1000.0, -1000.0], &mut y);
/// assert_eq!(y, [0.5, 0.5, 1.0, 0.0]);
/// ```
pub fn softmax(level: Level, rows: usize, cols: usize, x: &[f32], y: &mut [f32]) {
    run(level, false, rows, cols, x, y);
}

/// `y[r][i] = x[r][i] - ln sum_j exp(x[r][j])` for `rows` rows of `cols` contiguous elements.
///
/// # Panics
/// If a length is not `rows * cols`, or the machine does not have the level.
pub fn log_softmax(level: Level, rows: usize, cols: usize, x: &[f32], y: &mut [f32]) {
    run(level, true, rows, cols, x, y);
}
