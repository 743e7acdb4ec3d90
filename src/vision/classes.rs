//! What a classifier says: softmax, the largest scores, and their names.

use std::path::Path;

use crate::error::Result;
use crate::file;

/// Bytes of a file of names that are read: 16 MiB.
const LARGEST_FILE: usize = 1 << 24;

/// Scores that add to 1: `exp(x)` over their sum, computed without overflow.
///
/// ```
/// use swath::vision::classes::softmax;
/// assert_eq!(softmax(&[1000.0, 1000.0]), [0.5, 0.5]);
/// ```
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|v| f64::from(v - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|v| (v / sum) as f32).collect()
}

/// Numbers and scores of the `k` largest scores, the largest first; equal ones in their order. NaN is no score.
///
/// ```
/// use swath::vision::classes::top;
/// assert_eq!(top(&[0.1, 0.7, f32::NAN, 0.7], 2), [(1, 0.7), (3, 0.7)]);
/// ```
pub fn top(scores: &[f32], k: usize) -> Vec<(usize, f32)> {
    let mut all: Vec<(usize, f32)> = scores.iter().copied().enumerate().filter(|(_, s)| !s.is_nan()).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.truncate(k);
    all
}

/// Names of classes, one a line; line breaks of Windows and empty lines at the end do not count.
///
/// ```
/// use swath::vision::classes::names;
/// assert_eq!(names("cat\r\ndog\n\n"), ["cat", "dog"]);
/// ```
pub fn names(text: &str) -> Vec<String> {
    text.trim_end().lines().map(|line| line.trim_end_matches('\r').to_string()).collect()
}

/// [`names`] of a file.
///
/// # Errors
/// If it cannot be read, or is no text.
pub fn read_names(path: impl AsRef<Path>) -> Result<Vec<String>> {
    let text = file::read_text(path, LARGEST_FILE)?;
    Ok(names(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_adds_to_one_whatever_the_scale() {
        for logits in [vec![0.0; 7], vec![-1e30, 3.0, 2.0], vec![88.0, 89.0, -500.0]] {
            let p = softmax(&logits);
            assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{p:?}");
        }
        // numpy: exp([1, 2, 3]) / sum
        let p = softmax(&[1.0, 2.0, 3.0]);
        let expected = [0.090_030_57, 0.244_728_48, 0.665_240_94];
        assert!(p.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-7), "{p:?}");
        assert!(softmax(&[]).is_empty());
    }

    #[test]
    fn top_of_few() {
        assert_eq!(top(&[1.0, 3.0, 2.0], 9), [(1, 3.0), (2, 2.0), (0, 1.0)]);
        assert!(top(&[1.0], 0).is_empty() && top(&[f32::NAN], 3).is_empty());
    }
}
