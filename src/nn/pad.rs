//! Padding as layers.

use swath_kernels::resample::PadMode;
use swath_kernels::shape::Padding;

use super::Module;
use crate::error::Result;
use crate::graph::{Value, ops};

/// What lies beyond the image of a convolution, with PyTorch's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PaddingMode {
    /// Zeros: `0 0 | a b c | 0 0`
    #[default]
    Zeros,
    /// The image mirrored at its outermost pixels: `c b | a b c | b a`; less padding than pixels.
    Reflect,
    /// The outermost pixels: `a a | a b c | c c`
    Replicate,
    /// The other side of the image: `b c | a b c | a b`; at most as much padding as pixels.
    Circular,
}

impl From<PaddingMode> for PadMode {
    fn from(mode: PaddingMode) -> Self {
        match mode {
            PaddingMode::Zeros => PadMode::Constant(0.0),
            PaddingMode::Reflect => PadMode::Reflect,
            PaddingMode::Replicate => PadMode::Replicate,
            PaddingMode::Circular => PadMode::Circular,
        }
    }
}

/// Layers of one mode.
macro_rules! pads {
    ($($(#[$doc:meta])* $name:ident = $mode:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        #[must_use]
        pub struct $name(Padding);

        impl $name {
            /// One number for all sides, `[vertical, horizontal]` or `[top, left, bottom, right]`.
            pub fn new(padding: impl Into<Padding>) -> Self {
                Self(padding.into())
            }
        }

        impl Module for $name {
            fn call(&self, x: &Value) -> Result<Value> {
                Ok(x.push(ops::Pad { mode: $mode, pad: self.0 }, &[x]))
            }
        }
    )*};
}

pads! {
    /// Zeros around images. `[n, c, h, w]` to `[n, c, top + h + bottom, left + w + right]`.
    ZeroPad2d = PadMode::Constant(0.0);
    /// Images mirrored at their outermost pixels, which are not repeated: less padding than pixels.
    ///
    /// ```
    /// use swath::nn::{Module, ReflectionPad2d};
    /// let pad = ReflectionPad2d::new([0, 2, 0, 1]).build(0)?;
    /// let mut session = pad.compile([1, 1, 1, 3])?;
    /// assert_eq!(session.run(&[1.0, 2.0, 3.0])?.as_slice(), [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
    /// let e = pad.compile([1, 1, 1, 2]).unwrap_err();
    /// assert_eq!(e.to_string(), "the padding is 2, but mode reflect allows at most 1 along a width of 2");
    /// # Ok::<(), swath::Error>(())
    /// ```
    ReflectionPad2d = PadMode::Reflect;
    /// The outermost pixels of images, repeated.
    ReplicationPad2d = PadMode::Replicate;
    /// The other side of images: at most as much padding as pixels.
    CircularPad2d = PadMode::Circular;
}

/// A value around images.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct ConstantPad2d {
    pad: Padding,
    value: f32,
}

impl ConstantPad2d {
    /// One number for all sides, `[vertical, horizontal]` or `[top, left, bottom, right]`; and the value.
    pub fn new(padding: impl Into<Padding>, value: f32) -> Self {
        Self { pad: padding.into(), value }
    }
}

impl Module for ConstantPad2d {
    fn call(&self, x: &Value) -> Result<Value> {
        Ok(x.push(ops::Pad { mode: PadMode::Constant(self.value), pad: self.pad }, &[x]))
    }
}
