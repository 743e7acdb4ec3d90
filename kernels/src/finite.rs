//! For which magnitudes a convolution's result is finite wherever the sum that defines it is.

use core::fmt;

/// What an algorithm promises: with inputs of at most [`input`](FiniteRange::input), weights of at most [`weight`](FiniteRange::weight),
/// and their product, the largest input times the sum of an output channel's weights, of at most [`product`](FiniteRange::product), all
/// by their absolute values, every output is finite before bias, residual and activation. Beyond, it may be infinite or NaN though the
/// sum that defines it is not.
///
/// An input that is itself infinite or NaN gives, by plain sums, what the defining sum gives, and nothing to outputs that it is no term
/// of: those of other groups, images and windows. [`winograd`](crate::winograd) and [`bf16x6`](mod@crate::bf16x6) say what they make of it.
///
/// ```
/// use swath_kernels::finite::FiniteRange;
/// use swath_kernels::winograd::Variant;
/// assert!(FiniteRange::PLAIN.holds(3.4e38, 1e-6, 9e-6));
/// assert!(!Variant::F4.finite_range().holds(3.4e38, 1e-6, 9e-6));
/// assert!(Variant::F4.finite_range().holds(1e37, 1e-6, 9e-6));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FiniteRange {
    /// The largest input.
    pub input: f32,
    /// The largest weight.
    pub weight: f32,
    /// The largest input times the sum of the weights of an output channel.
    pub product: f32,
}

impl FiniteRange {
    /// A sum of products in f32: any input, any weight, and sums of at most a half of the largest float, which leaves room for rounding.
    pub const PLAIN: FiniteRange = FiniteRange { input: f32::MAX, weight: f32::MAX, product: f32::MAX / 2.0 };

    /// The same where inputs, weights and their products grow by so much on the way.
    pub(crate) fn with_growth(input: f64, weight: f64, product: f64) -> Self {
        let limit = |limit: f32, growth: f64| (f64::from(limit) / growth) as f32;
        let plain = Self::PLAIN;
        Self {
            input: limit(plain.input, input),
            weight: limit(plain.weight, weight),
            product: limit(plain.product, product),
        }
    }

    /// Whether it covers inputs of at most `max_x` and weights of at most `max_w`, whose sum is at most `sum_w` for every output channel.
    pub fn holds(&self, max_x: f32, max_w: f32, sum_w: f64) -> bool {
        max_x <= self.input && max_w <= self.weight && f64::from(max_x) * sum_w <= f64::from(self.product)
    }
}

/// `|x| <= 3.4e38, |w| <= 3.4e38, |x| * sum |w| <= 1.7e38`
impl fmt::Display for FiniteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "|x| <= {:.1e}, |w| <= {:.1e}, |x| * sum |w| <= {:.1e}", self.input, self.weight, self.product)
    }
}
