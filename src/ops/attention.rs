//! Attention and what goes with it.

use super::doubles::{doubles, rounded};
use super::error::{OpResult, refuse};
use super::{Array, Call, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[Operator::new("RotaryEmbedding", rotary)];

/// Turns pairs of elements by angles that depend on the position.
fn rotary(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (x, cos, sin) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let heads = usize::try_from(call.int("num_heads", 0)?).unwrap_or(0);
    // `[batch, heads, steps, size]`, or `[batch, steps, heads * size]`.
    let (batch, heads, steps, size, head_first) = match *x.dims() {
        [b, h, s, d] => (b, h, s, d, true),
        [b, s, all] if heads > 0 && all.is_multiple_of(heads) => (b, heads, s, all / heads, false),
        _ => refuse!("dimensions {:?} with {heads} heads", x.dims()),
    };
    let turned = match call.int("rotary_embedding_dim", 0)? {
        0 => size,
        d => usize::try_from(d).unwrap_or(usize::MAX),
    };
    if turned > size || turned % 2 != 0 {
        refuse!("rotary_embedding_dim is {turned}, but heads have {size} elements");
    }
    let half = turned / 2;
    let (cos_v, sin_v) = (doubles(cos)?, doubles(sin)?);
    let positions = call.integers(3)?;
    let row = |b: usize, s: usize| match &positions {
        Some(p) => p.get(b * steps + s).map(|&p| p as usize),
        None => Some(b * steps + s),
    };
    let interleaved = call.flag("interleaved", false)?;
    let v = doubles(x)?;
    let mut y = v.clone();
    for (b, h, s) in (0..batch * heads * steps).map(|p| (p / (heads * steps), p / steps % heads, p % steps)) {
        let base = if head_first { ((b * heads + h) * steps + s) * size } else { ((b * steps + s) * heads + h) * size };
        let Some(start) = row(b, s).map(|r| r * half).filter(|start| start + half <= cos_v.len().min(sin_v.len()))
        else {
            refuse!("caches {:?} and {:?} have no row for step {s}", cos.dims(), sin.dims());
        };
        for i in 0..half {
            let (first, second) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
            let (c, n) = (cos_v[start + i], sin_v[start + i]);
            let (a, b) = (v[base + first], v[base + second]);
            y[base + first] = c * a - n * b;
            y[base + second] = n * a + c * b;
        }
    }
    Ok(vec![rounded(x.dims(), y, x.element())?])
}
