//! Softmax and log-softmax plans: over any axis, forward and backward, on plain slices.
//!
//! What is computed, and in which order, stands in [`swath_kernels::softmax`].

use swath_kernels::isa::Level;
use swath_kernels::pass::Place;
use swath_kernels::softmax::Axis;

use crate::conv::{Options, dense_level};
use crate::error::{Error, Result, check_len};
use crate::par;

/// A planned softmax, or its logarithm.
///
/// ```
/// use swath::{Options, softmax::Softmax};
/// // Over the channels of two pixels.
/// let plan = Softmax::new(&[1, 2, 1, 2], 1, &Options::default())?;
/// let (mut y, mut dx) = ([0.0; 4], [0.0; 4]);
/// plan.forward(&[1.0, 5.0, 1.0, 1005.0], &mut y)?;
/// assert_eq!(y, [0.5, 0.0, 0.5, 1.0]);
/// plan.backward(&y, &[1.0, 1.0, 3.0, 1.0], &mut dx)?;
/// assert_eq!(dx, [-0.5, 0.0, 0.5, 0.0]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Softmax {
    axis: Axis,
    log: bool,
    len: usize,
    level: Level,
    threads: Option<usize>,
}

impl Softmax {
    /// Plans `y_i = exp(x_i) / sum exp(x_j)` over an axis of a contiguous tensor of any number of axes. Channels of NHWC are the last one.
    ///
    /// # Errors
    /// For an axis that there is not, an empty one, a tensor too large, and a level that this machine lacks.
    pub fn new(extents: &[usize], axis: usize, options: &Options) -> Result<Self> {
        if axis >= extents.len() {
            let rule = format!("the tensor has {} axes, counted from 0", extents.len());
            return Err(Error::Setting { what: "the axis of softmax", value: axis.to_string(), rule });
        }
        let (axis, len) = (Axis::of(extents, axis)?, extents.iter().product());
        Ok(Self { axis, log: false, len, level: dense_level(options)?, threads: options.threads })
    }

    /// Plans its logarithm, `y_i = x_i - ln sum exp(x_j)`.
    ///
    /// # Errors
    /// As [`Softmax::new`].
    pub fn log(extents: &[usize], axis: usize, options: &Options) -> Result<Self> {
        Self::new(extents, axis, options).map(|plan| Self { log: true, ..plan })
    }

    /// Computes `y`. What it held does not matter.
    ///
    /// # Errors
    /// For wrong lengths.
    pub fn forward(&self, x: &[f32], y: &mut [f32]) -> Result<()> {
        check_len("the input", x.len(), self.len)?;
        check_len("the output", y.len(), self.len)?;
        let executor = par::executor(self.threads, f64::INFINITY);
        let place = Place::new(self.level, &*executor);
        if self.log {
            self.axis.log_softmax(&place, x, y)
        } else {
            self.axis.softmax(&place, x, y)
        }
        Ok(())
    }

    /// Computes the gradient `dx` at the input from the output `y` and the gradient `dy` there. What `dx` held does not matter.
    ///
    /// # Errors
    /// For wrong lengths.
    pub fn backward(&self, y: &[f32], dy: &[f32], dx: &mut [f32]) -> Result<()> {
        check_len("the output", y.len(), self.len)?;
        check_len("the gradient at the output", dy.len(), self.len)?;
        check_len("the gradient at the input", dx.len(), self.len)?;
        let executor = par::executor(self.threads, f64::INFINITY);
        let place = Place::new(self.level, &*executor);
        if self.log {
            self.axis.log_softmax_backward(&place, y, dy, dx);
        } else {
            self.axis.softmax_backward(&place, y, dy, dx);
        }
        Ok(())
    }
}
