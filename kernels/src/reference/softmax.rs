/// Softmax along the middle axis of `[outer][len][inner]`.
pub fn softmax_axis([outer, len, inner]: [usize; 3], x: &[f64]) -> Vec<f64> {
    log_softmax_axis([outer, len, inner], x).into_iter().map(f64::exp).collect()
}

/// Log-softmax along the middle axis of `[outer][len][inner]`.
pub fn log_softmax_axis([outer, len, inner]: [usize; 3], x: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let at = |j: usize| (o * len + j) * inner + i;
        let max = (0..len).fold(f64::NEG_INFINITY, |m, j| m.max(x[at(j)]));
        let sum: f64 = (0..len).map(|j| (x[at(j)] - max).exp()).sum();
        for j in 0..len {
            y[at(j)] = x[at(j)] - max - sum.ln();
        }
    }
    y
}

/// Gradient of [`softmax_axis`] (or its logarithm) at the input.
pub fn softmax_axis_gradient([outer, len, inner]: [usize; 3], log: bool, x: &[f64], dy: &[f64]) -> Vec<f64> {
    let y = softmax_axis([outer, len, inner], x);
    let mut dx = vec![0.0; x.len()];
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let at = |j: usize| (o * len + j) * inner + i;
        let sum: f64 = (0..len).map(|j| if log { dy[at(j)] } else { y[at(j)] * dy[at(j)] }).sum();
        for j in 0..len {
            dx[at(j)] = if log { dy[at(j)] - y[at(j)] * sum } else { y[at(j)] * (dy[at(j)] - sum) };
        }
    }
    dx
}

/// Cross-entropy along the middle axis of `[outer][len][inner]`: the loss of each position, and what the mean divides by. Targets are
/// probabilities for each element, of class targets one (none where the target is ignored); `soft` says which the mean counts.
pub fn cross_entropy(
    extents: [usize; 3],
    x: &[f64],
    p: &[f64],
    weights: &[f64],
    smoothing: f64,
    soft: bool,
) -> (Vec<f64>, f64) {
    let [outer, len, inner] = extents;
    let lp = log_softmax_axis(extents, x);
    let (mut losses, mut total) = (Vec::new(), 0.0);
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let at = |c: usize| (o * len + c) * inner + i;
        let kept = soft || (0..len).any(|c| p[at(c)] > 0.0);
        let share = |c: usize| weights[c] * smoothing / len as f64;
        let loss: f64 = (0..len)
            .map(|c| -(weights[c] * p[at(c)] * (1.0 - smoothing) + if kept { share(c) } else { 0.0 }) * lp[at(c)])
            .sum();
        losses.push(loss);
        total += if soft { 1.0 } else { (0..len).map(|c| weights[c] * p[at(c)]).sum() };
    }
    (losses, total)
}

/// Gradient of [`cross_entropy`]'s losses, each times its `g`, at the logits: `sum_c a_c (softmax_k - [c = k])`.
pub fn cross_entropy_gradient(
    extents: [usize; 3],
    x: &[f64],
    p: &[f64],
    weights: &[f64],
    (smoothing, soft): (f64, bool),
    g: &[f64],
) -> Vec<f64> {
    let [outer, len, inner] = extents;
    let y = softmax_axis(extents, x);
    let mut dx = vec![0.0; x.len()];
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let at = |c: usize| (o * len + c) * inner + i;
        let kept = soft || (0..len).any(|c| p[at(c)] > 0.0);
        for c in (0..len).filter(|_| kept) {
            let a = weights[c] * (p[at(c)] * (1.0 - smoothing) + smoothing / len as f64) * g[o * inner + i];
            for k in 0..len {
                dx[at(k)] += a * (y[at(k)] - f64::from(u8::from(c == k)));
            }
        }
    }
    dx
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_gradient, values};

    #[test]
    fn gradients_are_those_of_central_differences() {
        let e = [2, 4, 3];
        let (x, dy) = (values(24, 1), values(24, 2));
        assert_gradient(&x, &dy, &softmax_axis_gradient(e, false, &x, &dy), |x| softmax_axis(e, x));
        assert_gradient(&x, &dy, &softmax_axis_gradient(e, true, &x, &dy), |x| log_softmax_axis(e, x));
        let weights: Vec<f64> = values(4, 3).iter().map(|v| v.abs() + 0.5).collect();
        let hard: Vec<f64> = (0..24).map(|i| f64::from(u8::from(i / 3 % 4 == i % 3 && i < 12))).collect();
        let soft = softmax_axis(e, &values(24, 4));
        for (p, is_soft) in [(hard, false), (soft, true)] {
            let g = values(6, 5);
            let dx = cross_entropy_gradient(e, &x, &p, &weights, (0.1, is_soft), &g);
            assert_gradient(&x, &g, &dx, |x| cross_entropy(e, x, &p, &weights, 0.1, is_soft).0);
        }
    }
}
