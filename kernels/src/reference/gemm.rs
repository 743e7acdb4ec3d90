/// `alpha * a b + beta * c` in f64 for dense row-major `a` `[m, k]`, `b` `[k, n]` and `c` `[m, n]`; `a` and `b` do not matter where
/// `alpha` is zero, nor does `c` where `beta` is.
///
/// # Panics
/// If a slice is shorter than the extents say.
pub fn gemm([m, n, k]: [usize; 3], alpha: f32, a: &[f32], b: &[f32], beta: f32, c: &[f32]) -> Vec<f64> {
    let mut y = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            let sum: f64 = (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j])).sum();
            let start = if beta == 0.0 { 0.0 } else { f64::from(beta) * f64::from(c[i * n + j]) };
            y.push(if alpha == 0.0 { start } else { start + f64::from(alpha) * sum });
        }
    }
    y
}
