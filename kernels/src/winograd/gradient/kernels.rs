//! The kernels of Winograd's weight gradient: the transform of a tile of the gradient, the products at a point, the
//! transform of these to weights.

use core::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

use super::{M, P};
use crate::isa::{Entry, Isa, Kernel, Level};
use crate::layout::BLOCK;
use crate::table::by_level;

/// `A dy`: what four gradients become.
#[inline(always)]
fn spread<I: Isa>(s: I, [y0, y1, y2, y3]: [I::V; M]) -> [I::V; P] {
    let c = |v: f64| s.splat(v as f32);
    let near = s.fma(c(0.5), y2, y0);
    let near_odd = s.fma(c(FRAC_1_SQRT_2 / 2.0), y3, s.mul(c(FRAC_1_SQRT_2), y1));
    let far = s.fma(c(2.0), y2, y0);
    let far_odd = s.fma(c(2.0 * SQRT_2), y3, s.mul(c(SQRT_2), y1));
    [y0, s.add(near, near_odd), s.sub(near, near_odd), s.add(far, far_odd), s.sub(far, far_odd), y3]
}

/// `G^T m`: the weights of six products.
#[inline(always)]
fn gather<I: Isa>(s: I, [m0, m1, m2, m3, m4, m5]: [I::V; P]) -> [I::V; 3] {
    let c = |v: f64| s.splat(v as f32);
    let (near, near_odd) = (s.add(m1, m2), s.sub(m1, m2));
    let (far, far_odd) = (s.add(m3, m4), s.sub(m3, m4));
    [
        s.fma(c(1.0 / 6.0), far, s.fma(c(-2.0 / 3.0), near, m0)),
        s.fma(c(SQRT_2 / 6.0), far_odd, s.mul(c(-2.0 / 3.0 * FRAC_1_SQRT_2), near_odd)),
        s.fma(c(1.0 / 3.0), s.sub(far, near), m5),
    ]
}

/// What the transform of a tile of the gradient works on. Steps in floats.
pub(super) struct SpreadArgs {
    /// The tile's first pixel, in blocks.
    pub dy: *const f32,
    pub row: usize,
    /// From block to block, and how many.
    pub block: usize,
    pub blocks: usize,
    /// Rows and columns of the tile that lie inside.
    pub valid: [usize; 2],
    /// The tile at the first point and block.
    pub u: *mut f32,
    pub u_point: usize,
    pub u_block: usize,
}

/// `A dy A^T` of one tile, for all its blocks.
struct Spread;

impl<I: Isa> Kernel<I> for Spread {
    type Args = SpreadArgs;

    /// # Safety
    /// * `dy` is readable for the valid pixels of all blocks;
    /// * `u` is writable for all points of all blocks.
    #[inline(always)]
    unsafe fn run(s: I, a: &SpreadArgs) {
        for (b, part) in (0..a.blocks).flat_map(|b| (0..BLOCK).step_by(I::LANES).map(move |part| (b, part))) {
            let dy = a.dy.wrapping_add(b * a.block + part);
            let mut rows = [[s.zero(); M]; P];
            // Constant bounds, so that everything stays in registers.
            for x in 0..M {
                let mut column = [s.zero(); M];
                for y in 0..M {
                    if y < a.valid[0] && x < a.valid[1] {
                        // SAFETY: a valid pixel.
                        column[y] = unsafe { s.load(dy.add(y * a.row + x * BLOCK)) };
                    }
                }
                let column = spread(s, column);
                for (row, v) in rows.iter_mut().zip(column) {
                    row[x] = v;
                }
            }
            for (y, row) in rows.into_iter().enumerate() {
                for (x, v) in spread(s, row).into_iter().enumerate() {
                    // SAFETY: point (y, x) of the block.
                    unsafe { s.store(a.u.wrapping_add((y * P + x) * a.u_point + b * a.u_block + part), v) };
                }
            }
        }
    }
}

/// What the products of some output channels work on, at some points. Steps in floats.
pub(super) struct OuterArgs {
    pub points: usize,
    /// Transformed gradients of the first tile, of the first channel of the rows, and from point to point.
    pub u: *const f32,
    pub u_point: usize,
    /// Transformed inputs of the first tile and block, from point to point, and from block to block.
    pub v: *const f32,
    pub v_point: usize,
    pub v_block: usize,
    pub tiles: usize,
    /// Products `[point][16][16]` of the first block, at the first row, and from block to block.
    pub m: *mut f32,
    pub m_block: usize,
}

/// Sums over tiles of the outer products of `MR` output channels and `WIDE` blocks of input channels, of `NV` vectors
/// each.
struct Outer<const MR: usize, const WIDE: usize, const NV: usize>;

impl<I: Isa, const MR: usize, const WIDE: usize, const NV: usize> Kernel<I> for Outer<MR, WIDE, NV> {
    type Args = OuterArgs;

    /// # Safety
    /// * `u` is readable for `MR` channels of all tiles and points, `v` for all blocks;
    /// * `m` is writable for `MR` rows of each block at every point.
    #[inline(always)]
    unsafe fn run(s: I, a: &OuterArgs) {
        const { assert!((MR + 1) * WIDE * NV < I::REGISTERS && NV * I::LANES == BLOCK) };
        for point in 0..a.points {
            let (mut u, mut v) = (a.u.wrapping_add(point * a.u_point), a.v.wrapping_add(point * a.v_point));
            let mut acc = [[[s.zero(); NV]; WIDE]; MR];
            for _ in 0..a.tiles {
                let mut lanes = [[s.zero(); NV]; WIDE];
                for (b, block) in lanes.iter_mut().enumerate() {
                    let v = v.wrapping_add(b * a.v_block);
                    s.prefetch(v.wrapping_add(BLOCK * BLOCK));
                    for (n, lane) in block.iter_mut().enumerate() {
                        // SAFETY: the tile's block of inputs.
                        *lane = unsafe { s.load(v.add(n * I::LANES)) };
                    }
                }
                for i in 0..MR {
                    // SAFETY: channel `i` of the tile's gradients.
                    let row = unsafe { s.load_splat(u.add(i)) };
                    for b in 0..WIDE {
                        for n in 0..NV {
                            acc[i][b][n] = s.fma(lanes[b][n], row, acc[i][b][n]);
                        }
                    }
                }
                (u, v) = (u.wrapping_add(BLOCK), v.wrapping_add(BLOCK));
            }
            let m = a.m.wrapping_add(point * BLOCK * BLOCK);
            for i in 0..MR {
                for b in 0..WIDE {
                    for n in 0..NV {
                        // SAFETY: row `i` of the block's products at this point.
                        unsafe { s.store(m.add(b * a.m_block + i * BLOCK + n * I::LANES), acc[i][b][n]) };
                    }
                }
            }
        }
    }
}

/// What the transform of a pair's products works on.
pub(super) struct GatherArgs {
    /// Products `[point][16][16]`.
    pub m: *const f32,
    /// Sums `[tap][16][16]`.
    pub sums: *mut f32,
    /// Whether to add to what is there.
    pub add: bool,
}

/// `G^T m G` of one pair.
struct Gather;

impl<I: Isa> Kernel<I> for Gather {
    type Args = GatherArgs;

    /// # Safety
    /// `m` is readable for all points, `sums` readable and writable for nine taps.
    #[inline(always)]
    unsafe fn run(s: I, a: &GatherArgs) {
        for at in (0..BLOCK * BLOCK).step_by(I::LANES) {
            let mut rows = [[s.zero(); P]; 3];
            for x in 0..P {
                let mut column = [s.zero(); P];
                for (y, v) in column.iter_mut().enumerate() {
                    // SAFETY: point (y, x).
                    *v = unsafe { s.load(a.m.add((y * P + x) * BLOCK * BLOCK + at)) };
                }
                let column = gather(s, column);
                for (row, v) in rows.iter_mut().zip(column) {
                    row[x] = v;
                }
            }
            for (y, row) in rows.into_iter().enumerate() {
                for (x, v) in gather(s, row).into_iter().enumerate() {
                    // SAFETY: tap (y, x).
                    unsafe {
                        let to = a.sums.add((y * 3 + x) * BLOCK * BLOCK + at);
                        s.store(to, if a.add { s.add(s.load(to), v) } else { v });
                    }
                }
            }
        }
    }
}

/// The kernels of one level: a row of [`gradients`].
#[derive(Clone, Copy, Debug)]
pub struct GradientRow {
    /// `winograd4_bwd_w_f32_avx512`: of products of any size.
    pub name: &'static str,
    /// Level.
    pub level: Level,
    pub(super) spread: Entry<SpreadArgs>,
    pub(super) gather: Entry<GatherArgs>,
    /// Products of so many output channels and blocks of input channels; fewer blocks first.
    pub(super) outer: &'static [(usize, usize, Entry<OuterArgs>)],
}

mod edge {
    use crate::table::edges;

    edges!(pub(super) transform);
    edges!(pub(super) outer);
}

macro_rules! gradient_row {
    ($level:ident, $module:ident, $lanes:literal, $name:literal, [$($mr:literal x $wide:literal),*]) => {
        &[GradientRow {
            name: concat!("winograd4_bwd_w_f32_", $name),
            level: Level::$level,
            spread: edge::transform::$module::run::<Spread>,
            gather: edge::transform::$module::run::<Gather>,
            outer: &[$(($mr, $wide, edge::outer::$module::run::<Outer<$mr, $wide, { BLOCK / $lanes }>>)),*],
        }]
    };
}

by_level! {
    /// The kernels of Winograd's weight gradient at a level, one row; none for a level of another architecture.
    pub fn gradients() -> [GradientRow];

    Scalar: gradient_row!(Scalar, scalar, 4, "scalar", [2 x 1]),
    // Sixteen channels are six, five and five.
    Avx2: gradient_row!(Avx2, avx2, 8, "avx2", [5 x 1, 6 x 1]),
    Avx512: gradient_row!(Avx512, avx512, 16, "avx512", [16 x 1, 8 x 2]),
    Neon: gradient_row!(Neon, neon, 4, "neon", [4 x 1]),
}

#[cfg(test)]
mod tests {
    use super::super::super::transform::{F4, Transform};
    use super::*;
    use crate::isa::Scalar;

    fn first(v: <Scalar as Isa>::V) -> f32 {
        let mut lanes = [0.0f32; 16];
        // SAFETY: 16 floats hold a vector of any level.
        unsafe { Scalar.store(lanes.as_mut_ptr(), v) };
        lanes[0]
    }

    #[test]
    fn transforms_are_transposes_of_the_forward_ones() {
        let unit = |i: usize, j: usize| Scalar.splat(if i == j { 1.0 } else { 0.0 });
        for j in 0..M {
            let column = spread(Scalar, core::array::from_fn(|i| unit(i, j)));
            for (p, v) in column.into_iter().enumerate() {
                let row = <F4 as Transform<M, P>>::output(Scalar, core::array::from_fn(|i| unit(i, p)));
                assert!((first(v) - first(row[j])).abs() < 1e-6, "point {p}, output {j}");
            }
        }
        for p in 0..P {
            let weights = gather(Scalar, core::array::from_fn(|i| unit(i, p)));
            for (k, v) in weights.into_iter().enumerate() {
                assert!((f64::from(first(v)) - F4::G[p][k]).abs() < 1e-6, "point {p}, weight {k}");
            }
        }
    }
}
