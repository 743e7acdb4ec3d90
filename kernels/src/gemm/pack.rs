//! Copies of blocks of both operands, in the forms that the tile reads.
//!
//! ```text
//! B   [ceil(n/16)][k][16]             columns beyond n are zero
//! A   [m/mr][k][mr]    "panels"       from a transposed A: rows of it are copied as they lie
//!     [m][ld]          "rows"         from a row-major A: rows keep their order, only closer together
//! ```

use core::ops::Range;

use super::Matrix;
use crate::layout::{BLOCK, blocks};
use crate::tile::pieces;

/// Floats of a packed `k x n` matrix.
///
/// # Panics
/// If that is more than a `usize` holds.
pub const fn packed_len(k: usize, n: usize) -> usize {
    blocks(n).checked_mul(BLOCK).expect("columns overflow").checked_mul(k).expect("packed length overflows")
}

/// Packs all of `op(B)`, `k x n`, for [`Right::Packed`](super::Right::Packed): once, for as many products as follow.
///
/// # Panics
/// If `b` is too short or `packed` is not [`packed_len`] long.
pub fn pack_b(b: &Matrix<'_>, [k, n]: [usize; 2], packed: &mut [f32]) {
    b.check("B", k, n);
    assert_eq!(packed.len(), packed_len(k, n), "packed length of {k} x {n}");
    pack_b_block(b, 0..k, 0..n, packed);
}

/// Packs the rows `ks` and columns `ns` of `op(B)`.
pub(super) fn pack_b_block(b: &Matrix<'_>, ks: Range<usize>, ns: Range<usize>, packed: &mut [f32]) {
    if ks.is_empty() || ns.is_empty() {
        return;
    }
    assert!(packed.len() / (ks.len() * BLOCK) >= blocks(ns.len()));
    let block_len = ks.len() * BLOCK;
    if b.transposed {
        for (block, n0) in packed.chunks_exact_mut(block_len).zip(ns.clone().step_by(BLOCK)) {
            // Columns of op(B) are rows in memory: read each once, along its length.
            let column = |c: usize| &b.data[(n0 + c) * b.ld..][ks.clone()];
            let cols = BLOCK.min(ns.end - n0);
            if cols == BLOCK {
                transpose(core::array::from_fn(column), block);
                continue;
            }
            block.fill(0.0);
            for c in 0..cols {
                block[c..].iter_mut().step_by(BLOCK).zip(column(c)).for_each(|(to, from)| *to = *from);
            }
        }
        return;
    }
    // Along the rows, so that memory is read in its order; one line goes to each block in turn.
    for (i, k) in ks.enumerate() {
        let row = &b.data[k * b.ld..][ns.clone()];
        let (whole, rest) = row.as_chunks::<BLOCK>();
        for (block, from) in packed.chunks_exact_mut(block_len).zip(whole) {
            block[i * BLOCK..][..BLOCK].copy_from_slice(from);
        }
        if !rest.is_empty() {
            let to = &mut packed[whole.len() * block_len + i * BLOCK..][..BLOCK];
            to[..rest.len()].copy_from_slice(rest);
            to[rest.len()..].fill(0.0);
        }
    }
}

/// `to[k][c] = columns[c][k]`. Sixteen streams are read a quarter of a cache line at a time, and lines written whole.
fn transpose(columns: [&[f32]; BLOCK], to: &mut [f32]) {
    const STEP: usize = 4;
    let whole = to.len() / BLOCK / STEP * STEP;
    let (body, tail) = to.split_at_mut(whole * BLOCK);
    for (i, to) in body.chunks_exact_mut(STEP * BLOCK).enumerate() {
        let mut square = [[0.0; STEP]; BLOCK];
        for (row, column) in square.iter_mut().zip(columns) {
            row.copy_from_slice(&column[i * STEP..][..STEP]);
        }
        for k in 0..STEP {
            for c in 0..BLOCK {
                to[k * BLOCK + c] = square[c][k];
            }
        }
    }
    for (k, to) in tail.chunks_exact_mut(BLOCK).enumerate() {
        to.iter_mut().zip(columns).for_each(|(to, column)| *to = column[whole + k]);
    }
}

/// Panels of at most `mr` rows `is` and columns `ks` of `alpha * op(A)`, whose `A` is stored transposed.
pub(super) fn pack_a_panels(
    a: &Matrix<'_>,
    alpha: f32,
    is: Range<usize>,
    ks: Range<usize>,
    mr: usize,
    packed: &mut [f32],
) {
    for (i0, rows) in pieces(is.len(), mr) {
        let panel = &mut packed[i0 * ks.len()..][..rows * ks.len()];
        for (to, k) in panel.chunks_exact_mut(rows).zip(ks.clone()) {
            copy(alpha, &a.data[k * a.ld + is.start + i0..][..rows], to);
        }
    }
}

/// Rows `is`, columns `ks` of `alpha * A`, each `ld` floats from the one before.
pub(super) fn pack_a_rows(
    a: &Matrix<'_>,
    alpha: f32,
    is: Range<usize>,
    ks: Range<usize>,
    ld: usize,
    packed: &mut [f32],
) {
    assert!(ks.len() <= ld && packed.len() / ld >= is.len());
    for (to, i) in packed.chunks_mut(ld).zip(is) {
        copy(alpha, &a.data[i * a.ld..][ks.clone()], &mut to[..ks.len()]);
    }
}

fn copy(alpha: f32, from: &[f32], to: &mut [f32]) {
    if alpha == 1.0 {
        to.copy_from_slice(from);
    } else {
        to.iter_mut().zip(from).for_each(|(t, f)| *t = alpha * f);
    }
}
