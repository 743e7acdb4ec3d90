//! Interpolation and padding plans, forward and backward, on plain slices in any layout.
//!
//! [`Resample`] is PyTorch's `interpolate` ([`Filter`], [`Size`]) or its `pad` ([`PadMode`]); what each means exactly stands in
//! [`swath_kernels::resample`]. Both passes also write into memory that holds nothing yet (`forward_uninit`, `backward_uninit`).

use core::mem::MaybeUninit;

use swath_kernels::epilogue::Outputs;
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::pass::Place;
use swath_kernels::resample as kernels;
use swath_kernels::shape::Padding;

pub use swath_kernels::resample::{Filter, PadMode, Size};

use crate::conv::{Options, one_layout};
use crate::error::{Result, check_len};
use crate::par;

/// A planned interpolation or padding of the planes of a tensor.
///
/// ```
/// use swath::{Options, resample::{Filter, Resample, Size}};
/// let filter = Filter::Bilinear { align_corners: false };
/// let plan = Resample::resize([1, 1, 1, 3], Size::To([1, 4]), filter, &Options::default())?;
/// let (mut y, mut dx) = ([0.0; 4], [0.0; 3]);
/// plan.forward(&[0.0, 4.0, 8.0], &mut y)?;
/// assert_eq!(y, [0.0, 2.5, 5.5, 8.0]);
/// plan.backward(&[1.0; 4], &mut dx)?;
/// assert_eq!(dx, [1.375, 1.25, 1.375]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Resample {
    map: kernels::Resample,
    level: Level,
    layout: Layout,
    threads: Option<usize>,
}

impl Resample {
    /// Plans an interpolation of pictures `[n, c, h, w]`.
    ///
    /// # Errors
    /// If an extent is zero, or a tensor too large; for a level that this machine lacks, and where input and output have different
    /// layouts.
    pub fn resize(dims: [usize; 4], size: Size, filter: Filter, options: &Options) -> Result<Self> {
        let (layout, level) = one_layout(options)?;
        let map = kernels::Resample::resize(layout, dims, size, filter)?;
        Ok(Self { map, level, layout, threads: options.threads })
    }

    /// Plans a padding on the four sides of pictures `[n, c, h, w]`.
    ///
    /// # Errors
    /// As for [`Resample::resize`], and for pictures that are too small for the mode.
    pub fn pad(dims: [usize; 4], pad: impl Into<Padding>, mode: PadMode, options: &Options) -> Result<Self> {
        let (layout, level) = one_layout(options)?;
        let map = kernels::Resample::pad(layout, dims, pad, mode)?;
        Ok(Self { map, level, layout, threads: options.threads })
    }

    /// Extents `[n, c, h, w]` of the input.
    pub fn input(&self) -> [usize; 4] {
        self.map.input()
    }

    /// Extents `[n, c, h, w]` of the output.
    pub fn output(&self) -> [usize; 4] {
        self.map.output()
    }

    /// Computes the output. Channels that pad a blocked tensor are zero.
    ///
    /// # Errors
    /// For wrong lengths.
    pub fn forward(&self, x: &[f32], y: &mut [f32]) -> Result<()> {
        self.run(x, y.into()).map(|_| ())
    }

    /// The same into memory that holds nothing yet. Returns what it then holds.
    ///
    /// ```
    /// use swath::{Options, resample::{PadMode, Resample}, written};
    /// let plan = Resample::pad([1, 1, 1, 2], [0, 1], PadMode::Constant(7.0), &Options::default())?;
    /// assert_eq!(written(4, |y| plan.forward_uninit(&[1.0, 2.0], y))?, [7.0, 1.0, 2.0, 7.0]);
    /// # Ok::<(), swath::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Resample::forward`].
    pub fn forward_uninit<'y>(&self, x: &[f32], y: &'y mut [MaybeUninit<f32>]) -> Result<&'y mut [f32]> {
        self.run(x, y.into())
    }

    fn run<'y>(&self, x: &[f32], y: Outputs<'y>) -> Result<&'y mut [f32]> {
        check_len("the input", x.len(), self.layout.len(self.input()))?;
        check_len("the output", y.len(), self.layout.len(self.output()))?;
        Ok(self.map.forward(&Place::new(self.level, &*par::executor(self.threads, f64::INFINITY)), x, y))
    }

    /// Computes the gradient `dx` at the input from the gradient `dy` at the output. What `dx` held does not matter.
    ///
    /// # Errors
    /// For wrong lengths.
    pub fn backward(&self, dy: &[f32], dx: &mut [f32]) -> Result<()> {
        self.gradient(dy, dx.into()).map(|_| ())
    }

    /// The same into memory that holds nothing yet. Returns what it then holds.
    ///
    /// # Errors
    /// As for [`Resample::backward`].
    pub fn backward_uninit<'x>(&self, dy: &[f32], dx: &'x mut [MaybeUninit<f32>]) -> Result<&'x mut [f32]> {
        self.gradient(dy, dx.into())
    }

    fn gradient<'x>(&self, dy: &[f32], dx: Outputs<'x>) -> Result<&'x mut [f32]> {
        check_len("the gradient at the input", dx.len(), self.layout.len(self.input()))?;
        check_len("the gradient at the output", dy.len(), self.layout.len(self.output()))?;
        Ok(self.map.backward(&Place::new(self.level, &*par::executor(self.threads, f64::INFINITY)), dy, dx))
    }
}
