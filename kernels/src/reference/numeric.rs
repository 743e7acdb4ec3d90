/// `sum_j dy_j df_j(x) / dx_i` for each `i`, by central differences: what a gradient of `f` is held against.
pub fn numeric_gradient(x: &[f64], dy: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let mut at = x.to_vec();
    (0..x.len())
        .map(|i| {
            let step = 1e-5 * x[i].abs().max(1.0);
            let mut side = |to: f64| {
                at[i] = to;
                let y = f(&at);
                assert_eq!(y.len(), dy.len(), "as many outputs as gradients");
                at[i] = x[i];
                y
            };
            let (up, down) = (side(x[i] + step), side(x[i] - step));
            up.iter().zip(down).zip(dy).map(|((u, d), dy)| (u - d) / (2.0 * step) * dy).sum()
        })
        .collect()
}

/// Fails where `dx` is not the gradient of `f` at `x`.
///
/// # Panics
/// Then.
pub fn assert_gradient(x: &[f64], dy: &[f64], dx: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) {
    assert_eq!(dx.len(), x.len(), "as many gradients as inputs");
    let want = numeric_gradient(x, dy, f);
    let scale = want.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (got, want)) in dx.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= 1e-7 * scale, "gradient {i}: {got}, but {want} by differences");
    }
}

/// `len` values in -1..1 that look random, the same for the same seed.
pub fn values(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..len).map(|_| next()).collect()
}
