//! The operators that change an image's size without weights, as layers.

use swath_kernels::resample::{Filter, Size};
use swath_kernels::setters;
use swath_kernels::shape::Pair;

use super::{CenterCrop, Crop, Module};
use crate::error::{Error, Result};
use crate::graph::{Value, ops};

/// How [`Upsample`] finds values between pixels, with PyTorch's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UpsampleMode {
    /// The pixel at `floor(output * scale)`.
    #[default]
    Nearest,
    /// The pixel at `floor((output + 1/2) * scale)`, as Pillow and scikit-image have it.
    NearestExact,
    /// Between the two neighbours of each axis.
    Bilinear,
    /// From the four neighbours of each axis (Keys 1981, a = -3/4).
    Bicubic,
}

/// Images of another size, larger or smaller, without smoothing: PyTorch's `Upsample`, with its defaults.
/// `[n, c, h, w]` to a given size, or to `floor(h * factor)` and `floor(w * factor)`.
///
/// Where a factor is given, the distance of the output's pixels is one over it, also where the size was rounded.
///
/// ```
/// use swath::nn::{Module, Upsample, UpsampleMode};
/// let mut session = Upsample::new([1, 2]).build(0)?.compile([1, 1, 1, 2])?;
/// assert_eq!(session.run(&[3.0, 7.0])?.as_slice(), [3.0, 3.0, 7.0, 7.0]);
/// let wider = Upsample::size([1, 3]).mode(UpsampleMode::Bilinear).align_corners(true);
/// assert_eq!(wider.build(0)?.compile([1, 1, 1, 2])?.run(&[3.0, 7.0])?.as_slice(), [3.0, 5.0, 7.0]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Upsample {
    size: Size,
    mode: UpsampleMode,
    align_corners: bool,
}

impl Upsample {
    /// By a whole factor, or `[vertical, horizontal]`.
    pub fn new(factor: impl Into<Pair>) -> Self {
        Self::scale_factor(factor.into().0.map(|f| f as f64))
    }

    /// By factors `[vertical, horizontal]`.
    pub fn scale_factor(factors: [f64; 2]) -> Self {
        Self { size: Size::By(factors), mode: UpsampleMode::Nearest, align_corners: false }
    }

    /// To one extent, or `[height, width]`.
    pub fn size(size: impl Into<Pair>) -> Self {
        Self { size: Size::To(size.into().0), mode: UpsampleMode::Nearest, align_corners: false }
    }
}

setters!(Upsample {
    /// How values between pixels are found. Default [`UpsampleMode::Nearest`].
    mode: UpsampleMode,
    /// Whether the centres of the corners' pixels are the same in both images, else their outer edges; of bilinear and bicubic only.
    /// Default false.
    align_corners: bool,
});

impl Module for Upsample {
    fn call(&self, x: &Value) -> Result<Value> {
        let align_corners = self.align_corners;
        let filter = match self.mode {
            UpsampleMode::Nearest | UpsampleMode::NearestExact if align_corners => {
                let (what, rule) = ("align_corners of Upsample", "only bilinear and bicubic have it".into());
                return Err(Error::Setting { what, value: "true".into(), rule });
            }
            UpsampleMode::Nearest => Filter::Nearest,
            UpsampleMode::NearestExact => Filter::NearestExact,
            UpsampleMode::Bilinear => Filter::Bilinear { align_corners },
            UpsampleMode::Bicubic => Filter::Bicubic { align_corners },
        };
        Ok(x.push(ops::Interpolate { size: self.size, filter }, &[x]))
    }
}

impl Module for Crop {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(self.op(), &[x]))
    }
}

impl Module for CenterCrop {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(self.op(), &[x]))
    }
}

/// Channels to pixels: `[n, c r r, h, w]` to `[n, c, h r, w r]`, sub-pixel convolution's second half (Shi et al. 2016).
///
/// ```
/// use swath::nn::{Module, PixelShuffle};
/// let mut session = PixelShuffle::new(2).build(0)?.compile([1, 4, 1, 1])?;
/// let y = session.run(&[1.0, 2.0, 3.0, 4.0])?;
/// assert_eq!((y.dims(), y.as_slice()), (&[1, 1, 2, 2][..], &[1.0, 2.0, 3.0, 4.0][..]));
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct PixelShuffle(usize);

impl PixelShuffle {
    /// With the factor `r`.
    pub fn new(factor: usize) -> Self {
        Self(factor)
    }
}

impl Module for PixelShuffle {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(ops::PixelShuffle { factor: self.0, inverse: false }, &[x]))
    }
}

/// Pixels to channels: `[n, c, h r, w r]` to `[n, c r r, h, w]`, the inverse of [`PixelShuffle`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct PixelUnshuffle(usize);

impl PixelUnshuffle {
    /// With the factor `r`.
    pub fn new(factor: usize) -> Self {
        Self(factor)
    }
}

impl Module for PixelUnshuffle {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(ops::PixelShuffle { factor: self.0, inverse: true }, &[x]))
    }
}
