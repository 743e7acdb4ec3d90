//! The weight transform: `G g G^T` of sixteen output channels, computed in f64 and rounded once.
//!
//! Plain loops over lanes, which the compiler turns into vectors of the level. None of its roundings differs between
//! levels.

use super::transform::Transform;
use crate::isa::{Isa, Kernel};
use crate::layout::BLOCK;

/// What the transform of a line of weights works on. Steps in floats.
#[derive(Clone, Copy, Debug)]
pub struct WeightArgs {
    /// Weights of nine taps.
    pub taps: *const [[f32; BLOCK]; 9],
    /// The line at the first point.
    pub u: *mut f32,
    /// From point to point.
    pub u_point: usize,
}

/// The body for `P` points an axis.
pub struct WeightTile<T, const M: usize, const P: usize>(T);

impl<I: Isa, T: Transform<M, P>, const M: usize, const P: usize> Kernel<I> for WeightTile<T, M, P> {
    type Args = WeightArgs;

    /// # Safety
    /// * `taps` is readable;
    /// * `u` is writable for a block at each of `P * P` points.
    #[inline(always)]
    unsafe fn run(_: I, a: &WeightArgs) {
        // SAFETY: the same contract.
        let taps = unsafe { &*a.taps };
        let mut half = [[[0.0f64; BLOCK]; 3]; P];
        for (p, row) in half.iter_mut().enumerate() {
            let [g0, g1, g2] = T::G[p];
            for (x, lanes) in row.iter_mut().enumerate() {
                for lane in 0..BLOCK {
                    let tap = |y: usize| f64::from(taps[y * 3 + x][lane]);
                    lanes[lane] = g0 * tap(0) + g1 * tap(1) + g2 * tap(2);
                }
            }
        }
        for (p, row) in half.iter().enumerate() {
            for q in 0..P {
                let [g0, g1, g2] = T::G[q];
                let mut line = [0.0f32; BLOCK];
                for lane in 0..BLOCK {
                    line[lane] = (row[0][lane] * g0 + row[1][lane] * g1 + row[2][lane] * g2) as f32;
                }
                // SAFETY: point (p, q).
                unsafe { a.u.wrapping_add((p * P + q) * a.u_point).cast::<[f32; BLOCK]>().write_unaligned(line) };
            }
        }
    }
}
