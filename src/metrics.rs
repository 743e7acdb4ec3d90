//! How good a model is: accuracy, top-k, confusion matrix with precision, recall and IoU, and mean average precision of
//! detections.
//!
//! ```
//! use swath::metrics::{Confusion, argmax, top_k};
//! // Two rows of logits for three classes; the right ones are 2 and 0.
//! let (logits, targets) = ([0.1, 0.5, 0.9, 0.3, 0.4, 0.1], [2, 0]);
//! let mut confusion = Confusion::new(3)?;
//! for (row, &target) in logits.chunks(3).zip(&targets) {
//!     confusion.add(target, argmax(row).unwrap())?;
//! }
//! assert_eq!(confusion.accuracy(), 0.5);
//! assert_eq!(top_k(&logits, &targets, 2)?, 2);
//! # Ok::<(), swath::Error>(())
//! ```

mod confusion;
mod detection;

pub use confusion::Confusion;
pub use detection::{AveragePrecision, Detection, Evaluation, Truth};

use crate::error::{Error, Result};

/// The index of the largest value, the first of several; a NaN counts as the largest, as in PyTorch. `None` for nothing.
pub fn argmax(values: &[f32]) -> Option<usize> {
    let mut best = 0;
    for (i, &v) in values.iter().enumerate() {
        if v > values[best] || (v.is_nan() && !values[best].is_nan()) {
            best = i;
        }
    }
    (!values.is_empty()).then_some(best)
}

/// In how many rows of logits the target is among the `k` largest. Of equal logits the first counts as the larger.
/// There are as many rows as targets, and `logits.len() / targets.len()` classes.
///
/// # Errors
/// If the logits are not whole rows, or a target is no class.
pub fn top_k(logits: &[f32], targets: &[usize], k: usize) -> Result<usize> {
    let classes = logits.len().checked_div(targets.len()).unwrap_or(0);
    crate::error::check_len("the logits", logits.len(), classes * targets.len())?;
    let mut right = 0;
    for (row, &target) in logits.chunks(classes.max(1)).zip(targets) {
        check_class("a target", target, classes)?;
        let own = row[target];
        let before = |(i, &v): (usize, &f32)| v > own || v.is_nan() || (v == own && i < target);
        let rank = row.iter().enumerate().filter(|&(i, v)| i != target && before((i, v))).count();
        right += usize::from(!own.is_nan() && rank < k);
    }
    Ok(right)
}

/// `Ok` if a class is one of `classes`.
fn check_class(what: &'static str, class: usize, classes: usize) -> Result<()> {
    if class < classes {
        return Ok(());
    }
    Err(Error::Setting { what, value: class.to_string(), rule: format!("there are {classes} classes, counted from 0") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_is_the_largest() {
        assert_eq!(argmax(&[]), None);
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(argmax(&[1.0, f32::NAN, 3.0, f32::NAN]), Some(1));
        assert_eq!(argmax(&[f32::NEG_INFINITY; 2]), Some(0));
    }

    #[test]
    fn top_k_counts_ranks() {
        let logits = [0.5, 0.5, 0.1, 0.9, 0.2, 0.3];
        assert_eq!(top_k(&logits, &[1, 1], 1).unwrap(), 0);
        assert_eq!(top_k(&logits, &[1, 1], 2).unwrap(), 1);
        assert_eq!(top_k(&logits, &[0, 0], 1).unwrap(), 2);
        assert_eq!(top_k(&logits, &[1, 1], 3).unwrap(), 2);
        assert_eq!(top_k(&[f32::NAN; 3], &[0], 3).unwrap(), 0);
        assert!(top_k(&logits, &[3, 0], 1).is_err());
        assert!(top_k(&logits[..5], &[0, 0], 1).is_err());
        assert_eq!(top_k(&[], &[], 1).unwrap(), 0);
    }
}
