//! Clipping of gradients, as in `torch.nn.utils`.

use super::optimizer::Adjust;
use crate::error::{Error, Result};
use crate::par;

/// How gradients are clipped before an update.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Clip {
    /// Not at all.
    #[default]
    None,
    /// PyTorch's `clip_grad_norm_`: all gradients times `min(1, max / (norm + 1e-6))`, where the norm is that of all of
    /// them together.
    Norm(f32),
    /// PyTorch's `clip_grad_value_`: every element to at most this absolute value.
    Value(f32),
}

impl Clip {
    /// Whether the limit exists.
    ///
    /// # Errors
    /// If it is negative or NaN.
    pub fn check(&self) -> Result<()> {
        let limit = match *self {
            Self::None => 0.0,
            Self::Norm(limit) | Self::Value(limit) => limit,
        };
        if limit >= 0.0 {
            return Ok(());
        }
        let rule = "it must be at least 0".into();
        Err(Error::Setting { what: "the limit of gradients", value: limit.to_string(), rule })
    }

    /// What to do with gradients that are sums over `micro_batches`, with the norm of their mean if it was needed. The
    /// gradients are not changed: [`Optimization::update`](super::Optimization::update) does that on the way.
    ///
    /// A norm that is NaN makes all gradients NaN, as in PyTorch.
    ///
    /// ```
    /// use swath::train::Clip;
    /// let gradients: [&[f32]; 2] = [&[3.0, 0.0], &[4.0]];
    /// let (adjust, norm) = Clip::Norm(1.0).adjust(gradients, 1);
    /// assert_eq!(norm, Some(5.0));
    /// assert!((adjust.scale - 0.2).abs() < 1e-6);
    /// assert_eq!(Clip::Value(0.5).adjust(gradients, 4).0.scale, 0.25);
    /// ```
    pub fn adjust<'a>(&self, sums: impl IntoIterator<Item = &'a [f32]>, micro_batches: usize) -> (Adjust, Option<f32>) {
        let mean = 1.0 / micro_batches.max(1) as f32;
        match *self {
            Self::None => (Adjust { scale: mean, ..Adjust::NONE }, None),
            Self::Value(limit) => (Adjust { scale: mean, limit }, None),
            Self::Norm(max) => {
                let norm = norm(sums) * mean;
                let coefficient = max / (norm + 1e-6);
                // Not `min`, which would hide a NaN.
                let coefficient = if coefficient > 1.0 { 1.0 } else { coefficient };
                (Adjust { scale: mean * coefficient, ..Adjust::NONE }, Some(norm))
            }
        }
    }
}

/// The Euclidean norm of all gradients together: sums in `f64`, in an order that follows from the lengths alone.
///
/// ```
/// assert_eq!(swath::train::clip::norm([&[3.0, 0.0][..], &[4.0]]), 5.0);
/// ```
pub fn norm<'a>(gradients: impl IntoIterator<Item = &'a [f32]>) -> f32 {
    gradients.into_iter().map(|g| par::sum(g, squares)).sum::<f64>().sqrt() as f32
}

/// The sum of squares, in as many running sums as registers hold.
fn squares(values: &[f32]) -> f64 {
    const LANES: usize = 16;
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0f64; LANES];
    for c in chunks {
        for (s, &v) in sums.iter_mut().zip(c) {
            *s += f64::from(v) * f64::from(v);
        }
    }
    for (s, &v) in sums.iter_mut().zip(rest) {
        *s += f64::from(v) * f64::from(v);
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_are_exact_and_the_same_for_any_threads() {
        let g: Vec<f32> = (0..300_007u64).map(|i| ((i * 7919) % 1021) as f32 / 510.0 - 1.0).collect();
        let want = g.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let by = |threads| par::with_threads(threads, || norm([&g[..], &g[..5]])).unwrap();
        let all = (want.powi(2) + g[..5].iter().map(|&v| f64::from(v).powi(2)).sum::<f64>()).sqrt();
        assert!((f64::from(by(1)) - all).abs() < 1e-4 * all);
        assert!((2..=8).all(|t| by(t).to_bits() == by(1).to_bits()));
        assert_eq!(norm([&[1e30f32, 0.0][..]]), 1e30);
    }

    #[test]
    fn nan_is_not_hidden() {
        let (a, n) = Clip::Norm(1.0).adjust([&[f32::NAN][..]], 1);
        assert!(a.scale.is_nan() && n.unwrap().is_nan());
        assert!(Clip::Norm(f32::NAN).check().is_err() && Clip::Value(-1.0).check().is_err());
        assert!(Clip::None.check().is_ok() && Clip::Norm(1.0).check().is_ok());
    }

    #[test]
    fn a_mean_over_micro_batches_is_clipped() {
        let (a, n) = Clip::Norm(1.0).adjust([&[6.0, 8.0][..]], 2);
        assert_eq!(n, Some(5.0));
        assert!((a.scale - 0.1).abs() < 1e-6);
    }
}
