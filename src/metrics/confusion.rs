//! Which classes are taken for which.

use core::fmt;

use super::check_class;
use crate::error::{Error, Result, check_len};

/// Counts of target and predicted class, of pictures or of pixels, and what follows from them.
///
/// Shares of nothing (the precision of a class that nobody predicted) are `None`, and means leave them out.
///
/// ```
/// use swath::metrics::Confusion;
/// let mut c = Confusion::new(2)?;
/// for (target, predicted) in [(0, 0), (0, 1), (1, 1), (1, 1)] {
///     c.add(target, predicted)?;
/// }
/// assert_eq!((c.accuracy(), c.recall(0), c.precision(0)), (0.75, Some(0.5), Some(1.0)));
/// assert_eq!(c.iou(1), Some(2.0 / 3.0));
/// println!("{c}");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// Row by row: targets, and in each the predictions.
    counts: Vec<u64>,
}

impl Confusion {
    /// No counts yet, for that many classes.
    ///
    /// # Errors
    /// For no class, and for more than 4096.
    pub fn new(classes: usize) -> Result<Self> {
        const MOST: usize = 4096;
        if !(1..=MOST).contains(&classes) {
            let rule = format!("a confusion matrix has 1 to {MOST}");
            return Err(Error::Setting { what: "the number of classes", value: classes.to_string(), rule });
        }
        Ok(Self { classes, counts: vec![0; classes * classes] })
    }

    /// Counts one more.
    ///
    /// # Errors
    /// If there is no such class.
    pub fn add(&mut self, target: usize, predicted: usize) -> Result<()> {
        check_class("a target", target, self.classes)?;
        check_class("a prediction", predicted, self.classes)?;
        self.counts[target * self.classes + predicted] += 1;
        Ok(())
    }

    /// Counts the largest logit of every pixel of a picture: `logits` are `[classes, pixels]`, and targets that are
    /// `ignored` do not count.
    ///
    /// # Errors
    /// For a wrong number of logits, or a target that is no class.
    pub fn add_pixels(&mut self, logits: &[f32], targets: &[usize], ignored: Option<usize>) -> Result<()> {
        let pixels = targets.len();
        check_len("the logits", logits.len(), self.classes * pixels)?;
        for (i, &target) in targets.iter().enumerate().filter(|(_, t)| Some(**t) != ignored) {
            let mut best = 0;
            for class in 1..self.classes {
                let (v, largest) = (logits[class * pixels + i], logits[best * pixels + i]);
                if v > largest || (v.is_nan() && !largest.is_nan()) {
                    best = class;
                }
            }
            self.add(target, best)?;
        }
        Ok(())
    }

    /// Adds another one's counts.
    ///
    /// # Errors
    /// If it has another number of classes.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        check_len("the other matrix", other.counts.len(), self.counts.len())?;
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        Ok(())
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How often `predicted` was said where `target` was right; 0 for a class that does not exist.
    pub fn count(&self, target: usize, predicted: usize) -> u64 {
        let inside = target < self.classes && predicted < self.classes;
        if inside { self.counts[target * self.classes + predicted] } else { 0 }
    }

    /// All counts together.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The share that is right; 0 of nothing.
    pub fn accuracy(&self) -> f64 {
        let right: u64 = (0..self.classes).map(|c| self.count(c, c)).sum();
        share(right, self.total()).unwrap_or(0.0)
    }

    /// Of those predicted as `class`, the share that is.
    pub fn precision(&self, class: usize) -> Option<f64> {
        share(self.count(class, class), self.predicted(class))
    }

    /// Of those that are `class`, the share that is predicted so.
    pub fn recall(&self, class: usize) -> Option<f64> {
        share(self.count(class, class), self.targets(class))
    }

    /// The harmonic mean of precision and recall (Dice coefficient).
    pub fn f1(&self, class: usize) -> Option<f64> {
        share(2 * self.count(class, class), self.predicted(class) + self.targets(class))
    }

    /// Those that are `class` and predicted so, as a share of those that are either (Jaccard index).
    pub fn iou(&self, class: usize) -> Option<f64> {
        let both = self.count(class, class);
        share(both, self.predicted(class) + self.targets(class) - both)
    }

    /// The mean of [`Confusion::iou`] over the classes that occur; 0 if none does.
    pub fn mean_iou(&self) -> f64 {
        self.mean(Self::iou)
    }

    /// The mean of one of the shares over the classes for which it exists; 0 if it does for none.
    pub fn mean(&self, of: impl Fn(&Self, usize) -> Option<f64>) -> f64 {
        let values: Vec<f64> = (0..self.classes).filter_map(|c| of(self, c)).collect();
        if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
    }

    fn targets(&self, class: usize) -> u64 {
        (0..self.classes).map(|p| self.count(class, p)).sum()
    }

    fn predicted(&self, class: usize) -> u64 {
        (0..self.classes).map(|t| self.count(t, class)).sum()
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl fmt::Display for Confusion {
    /// A table: a row for each target, a column for each prediction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = self.counts.iter().max().copied().unwrap_or(0);
        let width = largest.to_string().len().max(self.classes.to_string().len()) + 1;
        write!(f, "{:>width$} |", "")?;
        (0..self.classes).try_for_each(|p| write!(f, "{p:>width$}"))?;
        writeln!(f, "  recall")?;
        for t in 0..self.classes {
            write!(f, "{t:>width$} |")?;
            (0..self.classes).try_for_each(|p| write!(f, "{:>width$}", self.count(t, p)))?;
            match self.recall(t) {
                Some(r) => writeln!(f, "  {:5.1} %", r * 100.0)?,
                None => writeln!(f, "       -")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_means() {
        // The example of scikit-learn's documentation of `confusion_matrix`.
        let mut c = Confusion::new(4).unwrap();
        for (t, p) in [2, 0, 2, 2, 0, 1].into_iter().zip([0, 0, 2, 2, 0, 2]) {
            c.add(t, p).unwrap();
        }
        let rows: Vec<Vec<u64>> = (0..3).map(|t| (0..3).map(|p| c.count(t, p)).collect()).collect();
        assert_eq!(rows, [[2, 0, 0], [0, 0, 1], [1, 0, 2]]);
        assert_eq!((c.precision(0), c.precision(1), c.recall(2)), (Some(2.0 / 3.0), None, Some(2.0 / 3.0)));
        assert_eq!((c.recall(3), c.iou(3), c.iou(1)), (None, None, Some(0.0)));
        assert!((c.accuracy() - 4.0 / 6.0).abs() < 1e-12);
        assert!((c.mean_iou() - (2.0 / 3.0 + 0.0 + 0.5) / 3.0).abs() < 1e-12);
        assert_eq!(c.f1(2), Some(2.0 / 3.0));
        assert!(c.add(4, 0).is_err() && c.add(0, 4).is_err() && Confusion::new(0).is_err());
        let table = c.to_string();
        assert!(table.lines().count() == 5 && table.contains("66.7 %"), "{table}");
        let mut twice = c.clone();
        twice.merge(&c).unwrap();
        assert_eq!((twice.total(), twice.accuracy()), (12, c.accuracy()));
    }

    #[test]
    fn pixels_count_but_ignored_ones() {
        let mut c = Confusion::new(2).unwrap();
        c.add_pixels(&[0.9, 0.1, 0.5, 0.1, 0.9, 0.7], &[0, 0, 255], Some(255)).unwrap();
        assert_eq!((c.count(0, 0), c.count(0, 1), c.total()), (1, 1, 2));
        assert!(c.add_pixels(&[0.0; 5], &[0, 0, 0], None).is_err());
        assert!(c.add_pixels(&[0.0; 2], &[255], None).is_err());
    }
}
