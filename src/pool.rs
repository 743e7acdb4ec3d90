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
//! A plan takes what [`Options`] say of layout, level and threads; input and output have the same layout. Results are the same bits
//! for any number of threads.

use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::pass::Place;
use swath_kernels::pool::{self, Part};

pub use swath_kernels::pool::{AdaptiveShape, Divisor, NO_INDEX};
pub use swath_kernels::shape::PoolShape;

use crate::conv::{Options, one_layout};
use crate::error::{Error, Result, check_len};
use crate::par;

/// Where a plan runs, and on what.
#[derive(Clone, Debug)]
struct Site {
    level: Level,
    layout: Layout,
    threads: Option<usize>,
    /// Extents of input and output.
    dims: [[usize; 4]; 2],
}

impl Site {
    fn new(options: &Options, dims: [[usize; 4]; 2]) -> Result<Self> {
        let (layout, level) = one_layout(options)?;
        Ok(Self { level, layout, threads: options.threads, dims })
    }

    fn check(&self, x: (&'static str, usize), y: (&'static str, usize)) -> Result<()> {
        let [input, output] = self.dims.map(|dims| self.layout.len(dims));
        check_len(x.0, x.1, input)?;
        check_len(y.0, y.1, output)
    }

    /// Runs `f` at the level, on the threads.
    fn run(&self, f: impl FnOnce(&Place<'_>)) {
        f(&Place::new(self.level, &*par::executor(self.threads, f64::INFINITY)));
    }

    /// Runs `f` on rows of the output; `work` is what one float of it costs.
    fn rows(&self, y: &mut [f32], work: usize, f: impl Fn(&Part, &mut [f32]) + Sync) {
        let row = pool::row_len(self.layout, self.dims[1]);
        par::for_each_piece_on(self.threads, y, row, work, |rows, y| {
            f(&Part { level: self.level, layout: self.layout, rows }, y);
        });
    }

    fn check_indices(&self, indices: &[u32]) -> Result<()> {
        let [[.., h, w], output] = self.dims;
        check_len("the indices", indices.len(), self.layout.len(output))?;
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

/// A plane whose pixels can be numbered.
fn check_plane([_, _, h, w]: [usize; 4]) -> Result<()> {
    if h * w < NO_INDEX as usize {
        return Ok(());
    }
    let rule = format!("an index counts to {}", NO_INDEX - 1);
    Err(Error::Setting { what: "the number of pixels of a plane", value: (h * w).to_string(), rule })
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
    /// For a level that this machine lacks, and where input and output have different layouts.
    pub fn new(shape: &PoolShape, options: &Options) -> Result<Self> {
        Ok(Self { shape: *shape, site: Site::new(options, [shape.input(), shape.output()])? })
    }

    /// The geometry.
    pub fn shape(&self) -> &PoolShape {
        &self.shape
    }

    /// Computes `y` and, if asked for, the index of each maximum: `iy * iw + ix` within its plane, in the layout of `y`, or
    /// [`NO_INDEX`] where dilation leaves a window without an element. The first of equal maxima wins, and a NaN over everything.
    ///
    /// Channels that pad a blocked `x` must be zero, and are zero in `y`.
    ///
    /// # Errors
    /// For wrong lengths, and indices of planes of 2^32 - 1 pixels and more.
    pub fn forward(&self, x: &[f32], y: &mut [f32], indices: Option<&mut [u32]>) -> Result<()> {
        let (s, site) = (&self.shape, &self.site);
        site.check(("the input", x.len()), ("the output", y.len()))?;
        match indices {
            None => site.rows(y, s.kh * s.kw, |part, y| pool::max(part, s, x, y, None)),
            Some(indices) => {
                check_len("the indices", indices.len(), y.len())?;
                check_plane(s.input())?;
                site.run(|place| pool::max_indices(place, site.layout, s, x, y, indices));
            }
        }
        Ok(())
    }

    /// Computes the gradient `dx` at the input from the indices that [`MaxPool::forward`] gave and the gradient `dy` at the output.
    /// What `dx` held does not matter.
    ///
    /// # Errors
    /// For wrong lengths, and an index beyond the plane.
    pub fn backward(&self, indices: &[u32], dy: &[f32], dx: &mut [f32]) -> Result<()> {
        let (s, site) = (&self.shape, &self.site);
        site.check(("the gradient at the input", dx.len()), ("the gradient at the output", dy.len()))?;
        site.check_indices(indices)?;
        site.run(|place| pool::max_indices_backward(place, site.layout, s, indices, dy, dx));
        Ok(())
    }
}

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
        let (s, site) = (&self.shape, &self.site);
        site.check(("the input", x.len()), ("the output", y.len()))?;
        site.rows(y, s.kh * s.kw, |part, y| pool::average(part, s, x, y, self.divisor));
        Ok(())
    }

    /// Computes the gradient `dx` at the input from the gradient `dy` at the output. What `dx` held does not matter.
    ///
    /// # Errors
    /// For wrong lengths.
    pub fn backward(&self, dy: &[f32], dx: &mut [f32]) -> Result<()> {
        let site = &self.site;
        site.check(("the gradient at the input", dx.len()), ("the gradient at the output", dy.len()))?;
        site.run(|place| pool::average_backward(place, site.layout, &self.shape, self.divisor, dy, dx));
        Ok(())
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
        let (s, site) = (&self.shape, &self.site);
        site.check(("the input", x.len()), ("the output", y.len()))?;
        let cell = (s.ih * s.iw).div_ceil(s.oh * s.ow);
        site.rows(y, cell, |part, y| pool::adaptive_average(part, s, x, y));
        Ok(())
    }

    /// Computes the gradient `dx` at the input from the gradient `dy` at the output. What `dx` held does not matter.
    ///
    /// # Errors
    /// For wrong lengths.
    pub fn backward(&self, dy: &[f32], dx: &mut [f32]) -> Result<()> {
        let site = &self.site;
        site.check(("the gradient at the input", dx.len()), ("the gradient at the output", dy.len()))?;
        site.run(|place| pool::adaptive_average_backward(place, site.layout, &self.shape, dy, dx));
        Ok(())
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
        let site = &self.site;
        site.check(("the input", x.len()), ("the output", y.len()))?;
        check_len("the indices", indices.len(), y.len())?;
        site.run(|place| pool::adaptive_max(place, site.layout, &self.shape, x, y, indices));
        Ok(())
    }

    /// Computes the gradient `dx` at the input, as [`MaxPool::backward`].
    ///
    /// # Errors
    /// For wrong lengths, and an index beyond the plane.
    pub fn backward(&self, indices: &[u32], dy: &[f32], dx: &mut [f32]) -> Result<()> {
        let site = &self.site;
        site.check(("the gradient at the input", dx.len()), ("the gradient at the output", dy.len()))?;
        site.check_indices(indices)?;
        site.run(|place| pool::adaptive_max_backward(place, site.layout, &self.shape, indices, dy, dx));
        Ok(())
    }
}
