//! Interpolation: images of another size.

use swath_kernels::layout::BLOCK;
use swath_kernels::resample::{Filter, Size};
use swath_kernels::shape::{ShapeError, checked_elements};

use super::four;
use super::resample::Map;
use crate::error::{Error, Result};
use crate::graph::{Gradient, Group, Lower, Operator};

/// PyTorch's `interpolate` of images, with all of its modes but `area`, which is adaptive average pooling.
/// `[n, c, h, w]` to the given size, or to `floor(h * factor)` and `floor(w * factor)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interpolate {
    /// The size, or factors of the input's.
    pub size: Size,
    /// How values between pixels are found.
    pub filter: Filter,
}

impl Interpolate {
    /// Every pixel becomes a rectangle of itself.
    pub fn nearest([vertical, horizontal]: [usize; 2]) -> Self {
        Self { size: Size::By([vertical as f64, horizontal as f64]), filter: Filter::Nearest }
    }

    fn output(&self, input: [usize; 2]) -> Result<[usize; 2]> {
        let axis = |i: usize| match self.size {
            Size::To(to) if to[i] == 0 => {
                Err(ShapeError::Zero { what: ["the height of Upsample", "the width of Upsample"][i] }.into())
            }
            Size::To(to) => Ok(to[i]),
            Size::By(by) => {
                let (what, by) = (["the vertical factor of Upsample", "the horizontal factor of Upsample"][i], by[i]);
                let setting = |rule: String| Error::Setting { what, value: by.to_string(), rule };
                if !(by.is_finite() && by > 0.0) {
                    return Err(setting("it must be a finite number above 0".into()));
                }
                match (input[i] as f64 * by).floor() as usize {
                    0 if input[i] > 0 => Err(setting(format!("nothing would be left of {} pixels", input[i]))),
                    pixels => Ok(pixels),
                }
            }
        };
        Ok([axis(0)?, axis(1)?])
    }
}

impl Operator for Interpolate {
    fn name(&self) -> &'static str {
        "Upsample"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let [n, c, h, w] = four(self.name(), inputs[0])?;
        if let Some(i) = [h, w].iter().position(|&e| e == 0) {
            return Err(
                ShapeError::Zero { what: ["the input height of Upsample", "the input width of Upsample"][i] }.into()
            );
        }
        let [oh, ow] = self.output([h, w])?;
        checked_elements("upsampled image", &[n, c.saturating_add(BLOCK - 1), oh, ow])?;
        Ok(vec![n, c, oh, ow])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let mode = match self.filter {
            Filter::Nearest => "nearest",
            Filter::NearestExact => "nearest-exact",
            Filter::Bilinear { .. } => "bilinear",
            Filter::Bicubic { .. } => "bicubic",
        };
        let [.., h, w] = cx.extents(group.value);
        Map::Resize(self.size, self.filter).lower(group, cx, format!("Upsample to {h}x{w}, {mode}"))
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        Map::Resize(self.size, self.filter).gradient(g)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_sizes_are_refused() {
        let text =
            |size: Size| Interpolate { size, filter: Filter::Nearest }.dims(&[&[1, 2, 4, 4]]).unwrap_err().to_string();
        assert_eq!(
            text(Size::By([2.0, 0.0])),
            "the horizontal factor of Upsample is 0, but it must be a finite number above 0"
        );
        assert!(text(Size::By([0.2, 1.0])).contains("nothing would be left of 4 pixels"));
        assert!(text(Size::By([f64::NAN, 1.0])).contains("the vertical factor of Upsample is NaN"));
        assert!(text(Size::By([1e18, 1e18])).contains("more than"));
        assert!(text(Size::To([3, 0])).contains("the width of Upsample is zero"));
        assert!(text(Size::To([usize::MAX, 1])).contains("more than"));
    }
}
