/// Which set shares a mean with element `i`, and which column scales and shifts it.
#[derive(Clone, Debug)]
pub struct NormIndex {
    /// The set of each element.
    pub set: Vec<usize>,
    /// The column of each element.
    pub column: Vec<usize>,
}

impl NormIndex {
    /// Batch normalisation of `[n, c, pixels]`.
    pub fn batch(n: usize, c: usize, pixels: usize) -> Self {
        let channel: Vec<usize> = (0..n * c * pixels).map(|i| i / pixels % c).collect();
        Self { set: channel.clone(), column: channel }
    }

    /// Group normalisation of `[n, c, pixels]`.
    pub fn groups(n: usize, c: usize, pixels: usize, groups: usize) -> Self {
        let len = n * c * pixels;
        let set = (0..len).map(|i| i / (pixels * c / groups)).collect();
        Self { set, column: (0..len).map(|i| i / pixels % c).collect() }
    }

    /// Layer normalisation of `[rows, cols]`.
    pub fn layer(rows: usize, cols: usize) -> Self {
        Self { set: (0..rows * cols).map(|i| i / cols).collect(), column: (0..rows * cols).map(|i| i % cols).collect() }
    }
}

/// Means, and means of squared deviations, of each set.
pub fn moments(index: &NormIndex, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let sets = index.set.iter().max().map_or(0, |m| m + 1);
    let mean_of = |value: &dyn Fn(usize) -> f64| {
        let (mut sum, mut count) = (vec![0.0; sets], vec![0.0; sets]);
        for (i, &s) in index.set.iter().enumerate() {
            sum[s] += value(i);
            count[s] += 1.0;
        }
        sum.iter().zip(count).map(|(s, n)| s / n).collect::<Vec<_>>()
    };
    let mean = mean_of(&|i| x[i]);
    let var = mean_of(&|i| (x[i] - mean[index.set[i]]).powi(2));
    (mean, var)
}

/// `(x - mean) / sqrt(var + eps) w + b` by given means and variances of each set.
pub fn normalise(
    index: &NormIndex,
    x: &[f64],
    (mean, var): (&[f64], &[f64]),
    w: &[f64],
    b: &[f64],
    eps: f64,
) -> Vec<f64> {
    let at = |i: usize| {
        let (s, c) = (index.set[i], index.column[i]);
        (x[i] - mean[s]) / (var[s] + eps).sqrt() * w[c] + b[c]
    };
    (0..x.len()).map(at).collect()
}

/// Gradients of [`normalise`] at `x`, `w` and `b`; through mean and variance too, unless they are `frozen`.
pub fn normalise_gradients(
    index: &NormIndex,
    x: &[f64],
    dy: &[f64],
    (mean, var): (&[f64], &[f64]),
    w: &[f64],
    eps: f64,
    frozen: bool,
) -> [Vec<f64>; 3] {
    let (sets, cols) = (mean.len(), w.len());
    let xhat = |i: usize| (x[i] - mean[index.set[i]]) / (var[index.set[i]] + eps).sqrt();
    let (mut dw, mut db) = (vec![0.0; cols], vec![0.0; cols]);
    let (mut sum, mut product, mut count) = (vec![0.0; sets], vec![0.0; sets], vec![0.0; sets]);
    for i in 0..x.len() {
        let (s, c) = (index.set[i], index.column[i]);
        dw[c] += dy[i] * xhat(i);
        db[c] += dy[i];
        sum[s] += w[c] * dy[i];
        product[s] += w[c] * dy[i] * xhat(i);
        count[s] += 1.0;
    }
    let at = |i: usize| {
        let (s, c) = (index.set[i], index.column[i]);
        let through = if frozen { 0.0 } else { (sum[s] + xhat(i) * product[s]) / count[s] };
        (w[c] * dy[i] - through) / (var[s] + eps).sqrt()
    };
    [(0..x.len()).map(at).collect(), dw, db]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_gradient, values};

    #[test]
    fn gradients_are_those_of_central_differences() {
        for index in [NormIndex::batch(2, 3, 4), NormIndex::groups(2, 4, 3, 2), NormIndex::layer(3, 5)] {
            let cols = index.column.iter().max().unwrap() + 1;
            let (x, dy) = (values(index.set.len(), 1), values(index.set.len(), 2));
            let (w, b) = (values(cols, 3), values(cols, 4));
            let forward = |x: &[f64], w: &[f64], b: &[f64]| {
                let (mean, var) = moments(&index, x);
                normalise(&index, x, (&mean, &var), w, b, 1e-5)
            };
            let (mean, var) = moments(&index, &x);
            let [dx, dw, db] = normalise_gradients(&index, &x, &dy, (&mean, &var), &w, 1e-5, false);
            assert_gradient(&x, &dy, &dx, |x| forward(x, &w, &b));
            assert_gradient(&w, &dy, &dw, |w| forward(&x, w, &b));
            assert_gradient(&b, &dy, &db, |b| forward(&x, &w, b));
            let [frozen, ..] = normalise_gradients(&index, &x, &dy, (&mean, &var), &w, 1e-5, true);
            assert_gradient(&x, &dy, &frozen, |x| normalise(&index, x, (&mean, &var), &w, &b, 1e-5));
        }
    }
}
