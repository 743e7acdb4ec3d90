//! The one-dimensional transforms of each variant, `y = A^T [(G g) * (B^T d)]`, and what they do to errors.
//!
//! A variant F(m, 3) evaluates polynomials at `m + 1` finite points and at infinity (Toom and Cook). Rows are scaled so that
//! `B^T` and `A^T`, which run for every tile, have few factors; `G`, which runs once while packing, takes the rest.
//! Where two points are opposite, their rows share an even and an odd part.
//!
//! Reference: A. Lavin, S. Gray, "Fast algorithms for convolutional neural networks", 2016; for the choice of points B. Barabasz
//! et al., "Error analysis and improving the accuracy of Winograd convolution for deep neural networks", 2020.

use core::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

use crate::isa::Isa;

/// The transforms of F(M, 3); `P = M + 2` points, ordered 0, +p, -p, +q, -q, ..., infinity.
pub trait Transform<const M: usize, const P: usize>: 'static {
    /// `G`: what three weights become.
    const G: [[f64; 3]; P];

    /// `B^T d`: what `P` inputs become.
    fn input<I: Isa>(s: I, d: [I::V; P]) -> [I::V; P];

    /// `A^T m`: the outputs of `P` products.
    fn output<I: Isa>(s: I, m: [I::V; P]) -> [I::V; M];
}

/// F(2, 3) on the points 0, +-1.
pub struct F2;

impl Transform<2, 4> for F2 {
    const G: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

    #[inline(always)]
    fn input<I: Isa>(s: I, [d0, d1, d2, d3]: [I::V; 4]) -> [I::V; 4] {
        [s.sub(d0, d2), s.add(d2, d1), s.sub(d2, d1), s.sub(d3, d1)]
    }

    #[inline(always)]
    fn output<I: Isa>(s: I, [m0, m1, m2, m3]: [I::V; 4]) -> [I::V; 2] {
        [s.add(m0, s.add(m1, m2)), s.add(s.sub(m1, m2), m3)]
    }
}

/// F(4, 3) on the points 0, +-1/sqrt 2, +-sqrt 2, whose error is about half of that of 0, +-1, +-2.
pub struct F4;

impl Transform<4, 6> for F4 {
    const G: [[f64; 3]; 6] = [
        [1.0, 0.0, 0.0],
        [-2.0 / 3.0, -2.0 / 3.0 * FRAC_1_SQRT_2, -1.0 / 3.0],
        [-2.0 / 3.0, 2.0 / 3.0 * FRAC_1_SQRT_2, -1.0 / 3.0],
        [1.0 / 6.0, SQRT_2 / 6.0, 1.0 / 3.0],
        [1.0 / 6.0, -SQRT_2 / 6.0, 1.0 / 3.0],
        [0.0, 0.0, 1.0],
    ];

    /// Eight multiply-adds and six additions, which run beside them.
    #[inline(always)]
    fn input<I: Isa>(s: I, [d0, d1, d2, d3, d4, d5]: [I::V; 6]) -> [I::V; 6] {
        let c = |v: f64| s.splat(v as f32);
        let near = s.fma(c(-2.0), d2, d4);
        let near_odd = s.fma(c(-SQRT_2), d1, s.mul(c(FRAC_1_SQRT_2), d3));
        let far = s.fma(c(-0.5), d2, d4);
        let far_odd = s.fma(c(-FRAC_1_SQRT_2), d1, s.mul(c(SQRT_2), d3));
        [
            s.fma(c(-2.5), d2, s.add(d0, d4)),
            s.add(near, near_odd),
            s.sub(near, near_odd),
            s.add(far, far_odd),
            s.sub(far, far_odd),
            s.fma(c(-2.5), d3, s.add(d1, d5)),
        ]
    }

    #[inline(always)]
    fn output<I: Isa>(s: I, [m0, m1, m2, m3, m4, m5]: [I::V; 6]) -> [I::V; 4] {
        let c = |v: f64| s.splat(v as f32);
        let (near, near_odd) = (s.add(m1, m2), s.sub(m1, m2));
        let (far, far_odd) = (s.add(m3, m4), s.sub(m3, m4));
        [
            s.add(m0, s.add(near, far)),
            s.fma(c(SQRT_2), far_odd, s.mul(c(FRAC_1_SQRT_2), near_odd)),
            s.fma(c(2.0), far, s.mul(c(0.5), near)),
            s.fma(c(2.0 * SQRT_2), far_odd, s.fma(c(FRAC_1_SQRT_2 / 2.0), near_odd, m5)),
        ]
    }
}

/// F(6, 3) on the points 0, +-1, +-1/2, +-2, whose factors are exact.
pub struct F6;

impl Transform<6, 8> for F6 {
    const G: [[f64; 3]; 8] = [
        [1.0, 0.0, 0.0],
        [-2.0 / 9.0, -2.0 / 9.0, -2.0 / 9.0],
        [-2.0 / 9.0, 2.0 / 9.0, -2.0 / 9.0],
        [32.0 / 45.0, 16.0 / 45.0, 8.0 / 45.0],
        [32.0 / 45.0, -16.0 / 45.0, 8.0 / 45.0],
        [1.0 / 90.0, 1.0 / 45.0, 2.0 / 45.0],
        [1.0 / 90.0, -1.0 / 45.0, 2.0 / 45.0],
        [0.0, 0.0, 1.0],
    ];

    #[inline(always)]
    fn input<I: Isa>(s: I, [d0, d1, d2, d3, d4, d5, d6, d7]: [I::V; 8]) -> [I::V; 8] {
        let c = |v: f64| s.splat(v as f32);
        let one = s.fma(c(-4.25), d4, s.add(d2, d6));
        let one_odd = s.fma(c(-4.25), d3, s.add(d1, d5));
        let half = s.fma(c(-5.0), d4, s.fma(c(4.0), d2, d6));
        let half_odd = s.fma(c(0.5), d5, s.fma(c(-2.5), d3, s.add(d1, d1)));
        let two = s.fma(c(-1.25), d4, s.fma(c(0.25), d2, d6));
        let two_odd = s.fma(c(0.5), d1, s.fma(c(-2.5), d3, s.add(d5, d5)));
        [
            s.fma(c(5.25), s.sub(d4, d2), s.sub(d0, d6)),
            s.add(one, one_odd),
            s.sub(one, one_odd),
            s.add(half, half_odd),
            s.sub(half, half_odd),
            s.add(two, two_odd),
            s.sub(two, two_odd),
            s.fma(c(5.25), s.sub(d3, d5), s.sub(d7, d1)),
        ]
    }

    #[inline(always)]
    fn output<I: Isa>(s: I, [m0, m1, m2, m3, m4, m5, m6, m7]: [I::V; 8]) -> [I::V; 6] {
        let c = |v: f64| s.splat(v as f32);
        let (one, one_odd) = (s.add(m1, m2), s.sub(m1, m2));
        let (half, half_odd) = (s.add(m3, m4), s.sub(m3, m4));
        let (two, two_odd) = (s.add(m5, m6), s.sub(m5, m6));
        [
            s.add(s.add(m0, one), s.add(half, two)),
            s.fma(c(2.0), two_odd, s.fma(c(0.5), half_odd, one_odd)),
            s.fma(c(4.0), two, s.fma(c(0.25), half, one)),
            s.fma(c(8.0), two_odd, s.fma(c(0.125), half_odd, one_odd)),
            s.fma(c(16.0), two, s.fma(c(0.0625), half, one)),
            s.fma(c(32.0), two_odd, s.fma(c(0.03125), half_odd, s.add(one_odd, m7))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::Variant;
    use super::*;
    use crate::isa::Scalar;

    /// The matrices `(A^T, B^T)`, column by column, from unit vectors.
    fn matrices<T: Transform<M, P>, const M: usize, const P: usize>() -> ([[f64; P]; M], [[f64; P]; P]) {
        let s = Scalar;
        let (mut at, mut bt) = ([[0.0; P]; M], [[0.0; P]; P]);
        for j in 0..P {
            let unit = core::array::from_fn(|i| s.splat(if i == j { 1.0 } else { 0.0 }));
            let first = |v| {
                let mut lanes = [0.0f32; 16];
                // SAFETY: 16 floats hold a vector of any level.
                unsafe { s.store(lanes.as_mut_ptr(), v) };
                f64::from(lanes[0])
            };
            T::output(s, unit).into_iter().enumerate().for_each(|(i, v)| at[i][j] = first(v));
            T::input(s, unit).into_iter().enumerate().for_each(|(i, v)| bt[i][j] = first(v));
        }
        (at, bt)
    }

    /// `y[i] = sum of g[k] * d[i + k]` for every pair of unit vectors, and the amplification and range that a variant states.
    fn check<T: Transform<M, P>, const M: usize, const P: usize>(variant: Variant) {
        let stated = variant.amplification();
        let (at, bt) = matrices::<T, M, P>();
        for i in 0..M {
            for k in 0..3 {
                for j in 0..P {
                    let y: f64 = (0..P).map(|p| at[i][p] * T::G[p][k] * bt[p][j]).sum();
                    let want = if j == i + k { 1.0 } else { 0.0 };
                    assert!((y - want).abs() < 1e-6, "F({M}): output {i}, weight {k}, input {j}: {y}");
                }
            }
        }
        let rows = bt.map(|row| row.iter().map(|v| v.abs()).sum::<f64>());
        let sums = |i: usize, k: usize| (0..P).map(|p| at[i][p].abs() * T::G[p][k].abs() * rows[p]).sum::<f64>();
        let one = (0..M).flat_map(|i| (0..3).map(move |k| sums(i, k))).fold(0.0, f64::max);
        assert!(one * one <= stated && stated <= 1.01 * one * one, "F({M}): amplification {}", one * one);

        // By how much inputs and weights grow, and their products before the output's transform.
        let most = |rows: [f64; P]| rows.into_iter().fold(0.0, f64::max);
        let squares = [most(rows), most(T::G.map(|row| row.iter().map(|v| v.abs()).sum()))].map(|v| v * v);
        let before: [f64; P] = core::array::from_fn(|p| rows[p] * T::G[p].iter().fold(0.0, |m, v| v.abs().max(m)));
        assert!(most(before) <= one, "F({M}): products of {} before the transform", most(before));
        let range = variant.finite_range();
        for (limit, growth) in [(range.input, squares[0]), (range.weight, squares[1])] {
            let stated = f64::from(f32::MAX) / f64::from(limit);
            assert!((growth..1.01 * growth).contains(&(stated + 1e-6)), "F({M}): growth {growth}, stated {stated}");
        }
    }

    #[test]
    fn transforms_convolve_and_amplify_as_stated() {
        check::<F2, 2, 4>(Variant::F2);
        check::<F4, 4, 6>(Variant::F4);
        check::<F6, 6, 8>(Variant::F6);
    }
}
