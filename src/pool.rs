//! Pooling plans: max with indices, average, adaptive; forward and backward, on plain slices in any layout.
//!
//! | plan | PyTorch | burn's `ModuleOps` |
//! |---|---|---|
//! | [`MaxPool`] | `max_pool2d`, `return_indices` too | `max_pool2d`, `max_pool2d_with_indices` and its backward |
//! | [`AvgPool`] | `avg_pool2d` | `avg_pool2d` and its backward |
//! | [`AdaptiveAvgPool`], [`AdaptiveMaxPool`] | `adaptive_avg_pool2d`, `adaptive_max_pool2d` | `adaptive_avg_pool2d` and its backward |
//!
//! Sequences `[n, c, l]` are pictures `[n, c, 1, l]`: the same slice, with a window of `[1, k]`, a stride of `[1, s]` and a padding of
//! `[0, p]`.
//!
//! A plan takes what [`Options`] say of layout, level and threads; input and output have the same layout. Both may be parts of larger
//! tensors ([`Options::pitches`]), and so may the gradients there; indices have no gaps. Results are the same bits for any number of
//! threads, and into memory that holds nothing yet (`forward_uninit`, `backward_uninit`), which takes outputs without gaps.
//!
//! ```
//! use swath::{Options, Pitches, PoolShape, pool::MaxPool};
//! // The right half of a picture that is four pixels wide.
//! let half = Pitches { image: 8, channel: 8, row: 4 };
//! let plan = MaxPool::new(&PoolShape::builder([1, 1, 2, 2], 2).build()?, &Options::default().pitches(Some(half), None))?;
//! let (picture, mut y, mut dx) = ([9.0, 9.0, 1.0, 4.0, 9.0, 9.0, 3.0, 2.0], [0.0], [7.0; 8]);
//! let mut index = [0];
//! plan.forward(&picture[2..], &mut y, Some(&mut index))?;
//! plan.backward(&index, &[5.0], &mut dx[2..])?;
//! assert_eq!((y, index, dx), ([4.0], [1], [7.0, 7.0, 0.0, 5.0, 7.0, 7.0, 0.0, 0.0]));
//! # Ok::<(), swath::Error>(())
//! ```

use core::mem::MaybeUninit;

use swath_kernels::epilogue::Outputs;
use swath_kernels::isa::Level;
use swath_kernels::layout::View;
use swath_kernels::pass::Place;
use swath_kernels::pool;

pub use swath_kernels::pool::{AdaptiveShape, Divisor, NO_INDEX};
pub use swath_kernels::shape::PoolShape;

use crate::buffer::written;
use crate::conv::{Options, held, level, same_layout};
use crate::error::{Error, Result, check_len};
use crate::layout::Held;
use crate::par;

/// What is computed, and the indices of what it is made of.
type WithIndices<'y, 'i> = (&'y mut [f32], Option<&'i mut [u32]>);

/// Where a plan runs, and on what.
#[derive(Clone, Debug)]
struct Site {
    level: Level,
    threads: Option<usize>,
    /// How input and output lie.
    x: Held,
    y: Held,
}

impl Site {
    fn new(options: &Options, dims: [[usize; 4]; 2]) -> Result<Self> {
        same_layout(options)?;
        let [x, y] = held(dims, options)?;
        Ok(Self { level: level(options)?, threads: options.threads, x, y })
    }

    fn views(&self) -> [View; 2] {
        [self.x.view(), self.y.view()]
    }

    fn input<'a>(&self, x: &'a [f32]) -> Result<&'a [f32]> {
        self.x.floats("the input", x)
    }

    fn gradient<'a>(&self, dy: &'a [f32]) -> Result<&'a [f32]> {
        self.y.floats("the gradient at the output", dy)
    }

    /// Runs `f` at the level, on the threads.
    fn run<T>(&self, f: impl FnOnce(&Place<'_>) -> T) -> T {
        f(&Place::new(self.level, &*par::executor(self.threads, f64::INFINITY)))
    }

    /// How many indices there are: one for each output, channels that pad included.
    fn indices(&self) -> usize {
        let y = self.y.view();
        y.layout().len(y.dims())
    }

    fn check_len_of_indices(&self, len: usize) -> Result<()> {
        check_len("the indices", len, self.indices())
    }

    fn check_indices(&self, indices: &[u32]) -> Result<()> {
        let [.., h, w] = self.x.view().dims();
        self.check_len_of_indices(indices.len())?;
        let beyond = |&&i: &&u32| i != NO_INDEX && i as usize >= h * w;
        match indices.iter().find(beyond) {
            Some(i) => Err(Error::Setting {
                what: "an index of max pooling",
                value: i.to_string(),
                rule: format!("a plane has {} pixels", h * w),
            }),
            None => Ok(()),
        }
    }
}

/// The names of what is written, in errors.
const OUTPUT: &str = "the output";
const GRADIENT: &str = "the gradient at the input";

/// A plane whose pixels can be numbered.
fn check_plane([_, _, h, w]: [usize; 4]) -> Result<()> {
    if h * w < NO_INDEX as usize {
        return Ok(());
    }
    let rule = format!("an index counts to {}", NO_INDEX - 1);
    Err(Error::Setting { what: "the number of pixels of a plane", value: (h * w).to_string(), rule })
}

/// The gradient of a plan that gives indices, by this kernel.
macro_rules! gradient_by_indices {
    ($plan:ident, $kernel:path) => {
        impl $plan {
            /// Computes the gradient `dx` at the input from the indices that [`Self::forward`] gave and the gradient `dy` at the output.
            /// What `dx` held does not matter.
            ///
            /// # Errors
            /// For wrong lengths, and an index beyond the plane.
            pub fn backward(&self, indices: &[u32], dy: &[f32], dx: &mut [f32]) -> Result<()> {
                self.gradient(indices, dy, self.site.x.outputs(GRADIENT, dx)?).map(|_| ())
            }

            /// The same into memory that holds nothing yet. Returns what it then holds.
            ///
            /// # Errors
            /// As for [`Self::backward`], and for a `dx` with gaps.
            pub fn backward_uninit<'x>(
                &self,
                indices: &[u32],
                dy: &[f32],
                dx: &'x mut [MaybeUninit<f32>],
            ) -> Result<&'x mut [f32]> {
                self.gradient(indices, dy, self.site.x.unwritten(GRADIENT, dx)?)
            }

            fn gradient<'x>(&self, indices: &[u32], dy: &[f32], dx: Outputs<'x>) -> Result<&'x mut [f32]> {
                let site = &self.site;
                let dy = site.gradient(dy)?;
                site.check_indices(indices)?;
                Ok(site.run(|place| $kernel(place, site.views(), &self.shape, indices, dy, dx)))
            }
        }
    };
}

/// Max pooling, planned.
///
/// ```
/// use swath::{Options, PoolShape, pool::MaxPool};
/// let plan = MaxPool::new(&PoolShape::builder([1, 1, 2, 4], 2).build()?, &Options::default())?;
/// let (mut y, mut indices, mut dx) = ([0.0; 2], [0; 2], [0.0; 8]);
/// plan.forward(&[1.0, 2.0, 5.0, 0.0, 4.0, 3.0, 5.0, 0.0], &mut y, Some(&mut indices))?;
/// assert_eq!((y, indices), ([4.0, 5.0], [4, 2]));
/// plan.backward(&indices, &[10.0, 20.0], &mut dx)?;
/// assert_eq!(dx, [0.0, 0.0, 20.0, 0.0, 10.0, 0.0, 0.0, 0.0]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MaxPool {
    shape: PoolShape,
    site: Site,
}

impl MaxPool {
    /// Plans.
    ///
    /// # Errors
    /// For a level that this machine lacks, where input and output have different layouts, and for pitches at which neighbours would
    /// overlap.
    pub fn new(shape: &PoolShape, options: &Options) -> Result<Self> {
        Ok(Self { shape: *shape, site: Site::new(options, [shape.input(), shape.output()])? })
    }

    /// The geometry.
    pub fn shape(&self) -> &PoolShape {
        &self.shape
    }

    /// Computes `y` and, if asked for, the index of each maximum: `iy * iw + ix` within its plane, in the layout of `y` without gaps, or
    /// [`NO_INDEX`] where dilation leaves a window without an element. The first of equal maxima wins, and a NaN over everything.
    ///
    /// Channels that pad a blocked `x` must be zero, and are zero in `y`.
    ///
    /// # Errors
    /// For wrong lengths, and indices of planes of 2^32 - 1 pixels and more.
    pub fn forward(&self, x: &[f32], y: &mut [f32], indices: Option<&mut [u32]>) -> Result<()> {
        self.run(x, self.site.y.outputs(OUTPUT, y)?, indices.map(Into::into)).map(|_| ())
    }

    /// The same into memory that holds nothing yet. Returns what it then holds.
    ///
    /// # Errors
    /// As for [`MaxPool::forward`], and for an output with gaps.
    pub fn forward_uninit<'y, 'i>(
        &self,
        x: &[f32],
        y: &'y mut [MaybeUninit<f32>],
        indices: Option<&'i mut [MaybeUninit<u32>]>,
    ) -> Result<WithIndices<'y, 'i>> {
        self.run(x, self.site.y.unwritten(OUTPUT, y)?, indices.map(Into::into))
    }

    /// The same, with the indices in a vector of their own: what a framework keeps of its forward pass for the backward one.
    ///
    /// ```
    /// use swath::{Options, PoolShape, pool::MaxPool, written};
    /// let plan = MaxPool::new(&PoolShape::builder([1, 1, 2, 4], 2).build()?, &Options::default())?;
    /// let mut indices = Vec::new();
    /// let y = written(2, |y| {
    ///     let (y, of_maxima) = plan.forward_with_indices(&[1.0, 2.0, 5.0, 0.0, 4.0, 3.0, 5.0, 0.0], y)?;
    ///     indices = of_maxima;
    ///     Ok(y)
    /// })?;
    /// assert_eq!((y, indices), (vec![4.0, 5.0], vec![4, 2]));
    /// # Ok::<(), swath::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`MaxPool::forward_uninit`], and [`Error::Memory`].
    pub fn forward_with_indices<'y>(
        &self,
        x: &[f32],
        y: &'y mut [MaybeUninit<f32>],
    ) -> Result<(&'y mut [f32], Vec<u32>)> {
        let mut maxima = None;
        let indices = written(self.site.indices(), |indices| {
            let (y, indices) = self.forward_uninit(x, y, Some(indices))?;
            maxima = Some(y);
            Ok(indices.expect("indices were asked for"))
        })?;
        Ok((maxima.expect("maxima lie beside their indices"), indices))
    }

    fn run<'y, 'i>(&self, x: &[f32], y: Outputs<'y>, indices: Option<Outputs<'i, u32>>) -> Result<WithIndices<'y, 'i>> {
        let (s, site) = (&self.shape, &self.site);
        let x = site.input(x)?;
        let Some(indices) = indices else {
            return Ok((site.run(|place| pool::max(place, site.views(), s, x, y, None)), None));
        };
        site.check_len_of_indices(indices.len())?;
        check_plane(s.input())?;
        let (y, indices) = site.run(|place| pool::max_indices(place, site.views(), s, x, y, indices));
        Ok((y, Some(indices)))
    }
}

gradient_by_indices!(MaxPool, pool::max_indices_backward);

/// Average pooling, planned.
///
/// ```
/// use swath::{Options, PoolShape, pool::{AvgPool, Divisor}};
/// let shape = PoolShape::builder([1, 1, 2, 4], 2).build()?;
/// let plan = AvgPool::new(&shape, Divisor::Padded, &Options::default())?;
/// let (mut y, mut dx) = ([0.0; 2], [0.0; 8]);
/// plan.forward(&[1.0, 2.0, 5.0, 0.0, 4.0, 3.0, 5.0, 0.0], &mut y)?;
/// assert_eq!(y, [2.5, 2.5]);
/// plan.backward(&[4.0, 8.0], &mut dx)?;
/// assert_eq!(dx, [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AvgPool {
    shape: PoolShape,
    divisor: Divisor,
    site: Site,
}

impl AvgPool {
    /// Plans. [`Divisor::Padded`] is PyTorch's default, [`Divisor::Inside`] its `count_include_pad=False`.
    ///
    /// # Errors
    /// As for [`MaxPool::new`], for a dilated window, and a divisor of 0.
    pub fn new(shape: &PoolShape, divisor: Divisor, options: &Options) -> Result<Self> {
        if [shape.dh, shape.dw] != [1, 1] {
            let value = format!("{}x{}", shape.dh, shape.dw);
            return Err(Error::Setting { what: "the dilation", value, rule: "average pooling has none (1x1)".into() });
        }
        if divisor == Divisor::Fixed(0) {
            return Err(Error::Setting { what: "the divisor", value: "0".into(), rule: "it is at least 1".into() });
        }
        Ok(Self { shape: *shape, divisor, site: Site::new(options, [shape.input(), shape.output()])? })
    }

    /// The geometry.
    pub fn shape(&self) -> &PoolShape {
        &self.shape
    }

    /// Computes `y`. Channels that pad a blocked `x` must be zero, and are zero in `y`.
    ///
    /// # Errors
    /// For wrong lengths.
    pub fn forward(&self, x: &[f32], y: &mut [f32]) -> Result<()> {
        self.run(x, self.site.y.outputs(OUTPUT, y)?).map(|_| ())
    }

    /// The same into memory that holds nothing yet. Returns what it then holds.
    ///
    /// # Errors
    /// As for [`AvgPool::forward`], and for an output with gaps.
    pub fn forward_uninit<'y>(&self, x: &[f32], y: &'y mut [MaybeUninit<f32>]) -> Result<&'y mut [f32]> {
        self.run(x, self.site.y.unwritten(OUTPUT, y)?)
    }

    fn run<'y>(&self, x: &[f32], y: Outputs<'y>) -> Result<&'y mut [f32]> {
        let site = &self.site;
        let x = site.input(x)?;
        Ok(site.run(|place| pool::average(place, site.views(), &self.shape, x, y, self.divisor)))
    }

    /// Computes the gradient `dx` at the input from the gradient `dy` at the output. What `dx` held does not matter.
    ///
    /// # Errors
    /// For wrong lengths.
    pub fn backward(&self, dy: &[f32], dx: &mut [f32]) -> Result<()> {
        self.gradient(dy, self.site.x.outputs(GRADIENT, dx)?).map(|_| ())
    }

    /// The same into memory that holds nothing yet. Returns what it then holds.
    ///
    /// # Errors
    /// As for [`AvgPool::backward`], and for a `dx` with gaps.
    pub fn backward_uninit<'x>(&self, dy: &[f32], dx: &'x mut [MaybeUninit<f32>]) -> Result<&'x mut [f32]> {
        self.gradient(dy, self.site.x.unwritten(GRADIENT, dx)?)
    }

    fn gradient<'x>(&self, dy: &[f32], dx: Outputs<'x>) -> Result<&'x mut [f32]> {
        let site = &self.site;
        let dy = site.gradient(dy)?;
        Ok(site.run(|place| pool::average_backward(place, site.views(), &self.shape, self.divisor, dy, dx)))
    }
}

/// Averages over a grid of cells, planned: cell `i` of an axis covers the inputs from `floor(i in / out)` to before
/// `ceil((i + 1) in / out)`.
///
/// ```
/// use swath::{Options, pool::{AdaptiveAvgPool, AdaptiveShape}};
/// let global = AdaptiveShape::new([1, 2, 1, 3], [1, 1])?;
/// let plan = AdaptiveAvgPool::new(&global, &Options::default())?;
/// let (mut y, mut dx) = ([0.0; 2], [0.0; 6]);
/// plan.forward(&[1.0, 2.0, 6.0, 0.0, 0.0, 3.0], &mut y)?;
/// assert_eq!(y, [3.0, 1.0]);
/// plan.backward(&[3.0, 6.0], &mut dx)?;
/// assert_eq!(dx, [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AdaptiveAvgPool {
    shape: AdaptiveShape,
    site: Site,
}

impl AdaptiveAvgPool {
    /// Plans.
    ///
    /// # Errors
    /// As for [`MaxPool::new`].
    pub fn new(shape: &AdaptiveShape, options: &Options) -> Result<Self> {
        Ok(Self { shape: *shape, site: Site::new(options, [shape.input(), shape.output()])? })
    }

    /// The geometry.
    pub fn shape(&self) -> &AdaptiveShape {
        &self.shape
    }

    /// Computes `y`. Channels that pad a blocked `x` must be zero, and are zero in `y`.
    ///
    /// # Errors
    /// For wrong lengths.
    pub fn forward(&self, x: &[f32], y: &mut [f32]) -> Result<()> {
        self.run(x, self.site.y.outputs(OUTPUT, y)?).map(|_| ())
    }

    /// The same into memory that holds nothing yet. Returns what it then holds.
    ///
    /// # Errors
    /// As for [`AdaptiveAvgPool::forward`], and for an output with gaps.
    pub fn forward_uninit<'y>(&self, x: &[f32], y: &'y mut [MaybeUninit<f32>]) -> Result<&'y mut [f32]> {
        self.run(x, self.site.y.unwritten(OUTPUT, y)?)
    }

    fn run<'y>(&self, x: &[f32], y: Outputs<'y>) -> Result<&'y mut [f32]> {
        let site = &self.site;
        let x = site.input(x)?;
        Ok(site.run(|place| pool::adaptive_average(place, site.views(), &self.shape, x, y)))
    }

    /// Computes the gradient `dx` at the input from the gradient `dy` at the output. What `dx` held does not matter.
    ///
    /// # Errors
    /// For wrong lengths.
    pub fn backward(&self, dy: &[f32], dx: &mut [f32]) -> Result<()> {
        self.gradient(dy, self.site.x.outputs(GRADIENT, dx)?).map(|_| ())
    }

    /// The same into memory that holds nothing yet. Returns what it then holds.
    ///
    /// # Errors
    /// As for [`AdaptiveAvgPool::backward`], and for a `dx` with gaps.
    pub fn backward_uninit<'x>(&self, dy: &[f32], dx: &'x mut [MaybeUninit<f32>]) -> Result<&'x mut [f32]> {
        self.gradient(dy, self.site.x.unwritten(GRADIENT, dx)?)
    }

    fn gradient<'x>(&self, dy: &[f32], dx: Outputs<'x>) -> Result<&'x mut [f32]> {
        let site = &self.site;
        let dy = site.gradient(dy)?;
        Ok(site.run(|place| pool::adaptive_average_backward(place, site.views(), &self.shape, dy, dx)))
    }
}

/// Maxima over the cells of [`AdaptiveAvgPool`], planned.
///
/// ```
/// use swath::{Options, pool::{AdaptiveMaxPool, AdaptiveShape}};
/// let plan = AdaptiveMaxPool::new(&AdaptiveShape::new([1, 1, 1, 4], [1, 2])?, &Options::default())?;
/// let (mut y, mut indices, mut dx) = ([0.0; 2], [0; 2], [0.0; 4]);
/// plan.forward(&[1.0, 2.0, 6.0, 0.0], &mut y, &mut indices)?;
/// assert_eq!((y, indices), ([2.0, 6.0], [1, 2]));
/// plan.backward(&indices, &[3.0, 5.0], &mut dx)?;
/// assert_eq!(dx, [0.0, 3.0, 5.0, 0.0]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AdaptiveMaxPool {
    shape: AdaptiveShape,
    site: Site,
}

impl AdaptiveMaxPool {
    /// Plans.
    ///
    /// # Errors
    /// As for [`MaxPool::new`], and for planes of 2^32 - 1 pixels and more.
    pub fn new(shape: &AdaptiveShape, options: &Options) -> Result<Self> {
        check_plane(shape.input())?;
        Ok(Self { shape: *shape, site: Site::new(options, [shape.input(), shape.output()])? })
    }

    /// The geometry.
    pub fn shape(&self) -> &AdaptiveShape {
        &self.shape
    }

    /// Computes `y` and the indices of the maxima, as [`MaxPool::forward`].
    ///
    /// # Errors
    /// For wrong lengths.
    pub fn forward(&self, x: &[f32], y: &mut [f32], indices: &mut [u32]) -> Result<()> {
        self.run(x, self.site.y.outputs(OUTPUT, y)?, indices.into()).map(|_| ())
    }

    /// The same into memory that holds nothing yet. Returns what it then holds.
    ///
    /// # Errors
    /// As for [`AdaptiveMaxPool::forward`], and for an output with gaps.
    pub fn forward_uninit<'y, 'i>(
        &self,
        x: &[f32],
        y: &'y mut [MaybeUninit<f32>],
        indices: &'i mut [MaybeUninit<u32>],
    ) -> Result<(&'y mut [f32], &'i mut [u32])> {
        self.run(x, self.site.y.unwritten(OUTPUT, y)?, indices.into())
    }

    fn run<'y, 'i>(
        &self,
        x: &[f32],
        y: Outputs<'y>,
        indices: Outputs<'i, u32>,
    ) -> Result<(&'y mut [f32], &'i mut [u32])> {
        let site = &self.site;
        let x = site.input(x)?;
        site.check_len_of_indices(indices.len())?;
        Ok(site.run(|place| pool::adaptive_max(place, site.views(), &self.shape, x, y, indices)))
    }
}

gradient_by_indices!(AdaptiveMaxPool, pool::adaptive_max_backward);
