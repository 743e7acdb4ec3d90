//! Rows of floats side by side: `to[i][j] = rows[j][i]`.

/// Rows and columns that are turned at once: what the compiler makes vector shuffles of.
const SIDE: usize = 4;

/// Writes `to[i * rows + j] = row(j)[i]` for all of `to`, whose length is a multiple of `rows`.
///
/// # Panics
/// If a row is shorter than that.
pub(crate) fn interleave<'a>(rows: usize, row: impl Fn(usize) -> &'a [f32], to: &mut [f32]) {
    if rows == 0 {
        return;
    }
    let len = to.len() / rows;
    for first in (0..rows).step_by(SIDE) {
        if first + SIDE <= rows {
            squares(core::array::from_fn(|j| &row(first + j)[..len]), rows, first, to);
        } else {
            for j in first..rows {
                to.chunks_exact_mut(rows).zip(&row(j)[..len]).for_each(|(to, v)| to[j] = *v);
            }
        }
    }
}

/// The same for a few rows, from `first` on.
fn squares(from: [&[f32]; SIDE], rows: usize, first: usize, to: &mut [f32]) {
    let len = from[0].len();
    let whole = len / SIDE * SIDE;
    for i in (0..whole).step_by(SIDE) {
        let square: [[f32; SIDE]; SIDE] = from.map(|row| *row[i..].first_chunk().expect("a square's columns"));
        for k in 0..SIDE {
            let at = (i + k) * rows + first;
            to[at..at + SIDE].copy_from_slice(&square.map(|row| row[k]));
        }
    }
    for i in whole..len {
        from.iter().enumerate().for_each(|(j, row)| to[i * rows + first + j] = row[i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_any_number_of_rows() {
        for rows in 1..14 {
            for len in 0..11 {
                let from: Vec<f32> = (0..rows * len).map(|v| v as f32).collect();
                let mut to = vec![f32::NAN; rows * len];
                interleave(rows, |j| &from[j * len..][..len], &mut to);
                for (at, v) in to.iter().enumerate() {
                    assert_eq!(*v, from[at % rows * len + at / rows], "{rows} rows of {len}, [{at}]");
                }
            }
        }
    }
}
