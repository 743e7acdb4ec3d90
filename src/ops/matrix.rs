//! Products of matrices.

use super::doubles::{doubles, rounded};
use super::error::{OpResult, refuse};
use super::room::{checked_count, filled};
use super::view::{View, broadcast_dims, expand};
use super::wide::Wide;
use super::{Array, Call, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("MatMul", |call| Ok(vec![matmul(call.input(0)?, call.input(1)?)?])),
    Operator::new("Gemm", gemm),
    Operator::new("Einsum", einsum),
    Operator::new("Det", det),
];

/// What sums are kept in: doubles, or integers that wrap.
pub(super) trait Sum: Copy + Default {
    fn add_product(self, a: Self, b: Self) -> Self;
}

impl Sum for f64 {
    fn add_product(self, a: f64, b: f64) -> f64 {
        self + a * b
    }
}

impl Sum for i64 {
    fn add_product(self, a: i64, b: i64) -> i64 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

/// `c += a b` for row-major matrices `[m, k]`, `[k, n]`.
pub(super) fn multiply<S: Sum>(a: &[S], b: &[S], c: &mut [S], [m, k, n]: [usize; 3]) {
    for i in 0..m {
        let row = &mut c[i * n..][..n];
        for (j, &a) in a[i * k..][..k].iter().enumerate() {
            row.iter_mut().zip(&b[j * n..][..n]).for_each(|(c, &b)| *c = c.add_product(a, b));
        }
    }
}

/// NumPy's product: the last two dimensions are matrices, the others broadcast; a vector is a row or a column.
pub(super) fn matmul(a: &Array, b: &Array) -> OpResult<Array> {
    if a.rank() == 0 || b.rank() == 0 {
        refuse!("a matrix product of {:?} and {:?}", a.dims(), b.dims());
    }
    let a_dims = if a.rank() == 1 { vec![1, a.dims()[0]] } else { a.dims().to_vec() };
    let b_dims = if b.rank() == 1 { vec![b.dims()[0], 1] } else { b.dims().to_vec() };
    let (a_lead, a_matrix) = a_dims.split_at(a_dims.len() - 2);
    let (b_lead, b_matrix) = b_dims.split_at(b_dims.len() - 2);
    let ([m, k], [k_too, n]) = (<[usize; 2]>::try_from(a_matrix).unwrap(), <[usize; 2]>::try_from(b_matrix).unwrap());
    if k != k_too {
        refuse!("a matrix product of {:?} and {:?}: {k} and {k_too} do not agree", a.dims(), b.dims());
    }
    let lead = broadcast_dims(a_lead, b_lead)?;
    let whole = |array: &Array, dims: &[usize], matrix: [usize; 2]| {
        let array = array.clone().with_dims(dims).expect("dimensions of 1 change no number");
        expand(&array, &[&lead[..], &matrix].concat())
    };
    let (wide_a, wide_b) = (whole(a, &a_dims, [m, k])?, whole(b, &b_dims, [k, n])?);
    let mut dims = lead.clone();
    if a.rank() > 1 {
        dims.push(m);
    }
    if b.rank() > 1 {
        dims.push(n);
    }
    let count: usize = lead.iter().product();
    let len = checked_count(&[count, m, n])?;
    fn products<S: Sum>(a: &[S], b: &[S], count: usize, len: usize, [m, k, n]: [usize; 3]) -> OpResult<Vec<S>> {
        let mut c = filled(S::default(), len)?;
        for i in 0..count {
            multiply(&a[i * m * k..][..m * k], &b[i * k * n..][..k * n], &mut c[i * m * n..][..m * n], [m, k, n]);
        }
        Ok(c)
    }
    if wide_a.element() != wide_b.element() {
        refuse!("elements of the types {} and {}, but they should be the same", a.element(), b.element());
    }
    if wide_a.element().is_integer() {
        let (a, b) = (super::call::integers(&wide_a)?, super::call::integers(&wide_b)?);
        let c = products(&a, &b, count, len, [m, k, n])?;
        return Wide::I64(c).array(dims, wide_a.element());
    }
    let c = products(&doubles(&wide_a)?, &doubles(&wide_b)?, count, len, [m, k, n])?;
    rounded(dims, c, a.element())
}

fn gemm(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let (alpha, beta) = (f64::from(call.float("alpha", 1.0)?), f64::from(call.float("beta", 1.0)?));
    let matrix = |x: &Array, transposed: bool| -> OpResult<([usize; 2], Vec<f64>)> {
        let Ok([rows, cols]) = <[usize; 2]>::try_from(x.dims()) else {
            refuse!("dimensions {:?}, but a matrix is needed", x.dims());
        };
        let v = doubles(x)?;
        match transposed {
            false => Ok(([rows, cols], v)),
            true => Ok(([cols, rows], View::of(x.dims()).permute(&[1, 0]).copy(&v)?)),
        }
    };
    let ([m, k], x) = matrix(a, call.flag("transA", false)?)?;
    let ([k_too, n], y) = matrix(b, call.flag("transB", false)?)?;
    if k != k_too {
        refuse!("a matrix product of {:?} and {:?}: {k} and {k_too} do not agree", a.dims(), b.dims());
    }
    let mut c = filled(0.0, checked_count(&[m, n])?)?;
    multiply(&x, &y, &mut c, [m, k, n]);
    c.iter_mut().for_each(|c| *c *= alpha);
    if let Some(bias) = call.optional(2) {
        let bias = doubles(&expand(bias, &[m, n])?)?;
        c.iter_mut().zip(bias).for_each(|(c, bias)| *c += beta * bias);
    }
    Ok(vec![rounded([m, n], c, a.element())?])
}

/// Sums over the letters that the result lacks, of products over all.
fn einsum(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let equation: String = call.text("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left.to_string(), Some(right.to_string())),
        None => (equation.clone(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != call.inputs.len() || left.matches("...").count() > terms.len() {
        refuse!("equation {equation:?} has {} terms for {} inputs", terms.len(), call.inputs.len());
    }
    let arrays = (0..terms.len()).map(|i| call.input(i)).collect::<OpResult<Vec<_>>>()?;
    // Dimensions that `...` stands for are aligned at the last, as letters that nobody can write.
    let letters = |term: &str, rank: usize| -> OpResult<Vec<char>> {
        let named = term.chars().filter(|c| *c != '.').count();
        let more = rank.checked_sub(named).filter(|&more| more == 0 || term.contains("..."));
        let Some(more) = more else { refuse!("term {term:?} for {rank} dimensions") };
        let hidden: String = (0..more).rev().filter_map(|i| char::from_digit(i as u32, 36)).collect();
        Ok(term.replace("...", &hidden).chars().collect())
    };
    let inputs: Vec<Vec<char>> =
        terms.iter().zip(&arrays).map(|(t, a)| letters(t, a.rank())).collect::<OpResult<_>>()?;
    let hidden = inputs.iter().flatten().filter(|c| c.is_ascii_digit()).count();
    let mut extents: Vec<(char, usize)> = Vec::new();
    for (letters, array) in inputs.iter().zip(&arrays) {
        for (&c, &d) in letters.iter().zip(array.dims()) {
            match extents.iter_mut().find(|(known, _)| *known == c) {
                None => extents.push((c, d)),
                Some((_, known)) if *known == d || d == 1 => {}
                Some((_, known)) if *known == 1 => *known = d,
                Some((_, known)) => refuse!("{c:?} is {known} and {d} in {equation:?}"),
            }
        }
    }
    let output: Vec<char> = match right {
        Some(right) => {
            let all: std::collections::BTreeSet<char> =
                extents.iter().map(|e| e.0).filter(char::is_ascii_digit).collect();
            let named = right.chars().filter(|c| *c != '.').count();
            letters(&right, named + if hidden > 0 { all.len() } else { 0 })?
        }
        None => {
            let once =
                |c: &char| inputs.iter().flatten().filter(|other| *other == c).count() == 1 || c.is_ascii_digit();
            let mut all: Vec<char> = extents.iter().map(|e| e.0).filter(once).collect();
            all.sort_unstable_by_key(|c| {
                (!c.is_ascii_digit(), if c.is_ascii_digit() { 255 - *c as u32 } else { *c as u32 })
            });
            all
        }
    };
    let summed: Vec<char> = extents.iter().map(|e| e.0).filter(|c| !output.contains(c)).collect();
    let order = [&output[..], &summed].concat();
    let extent = |c: char| extents.iter().find(|e| e.0 == c).map_or(1, |e| e.1);
    let dims: Vec<usize> = order.iter().map(|&c| extent(c)).collect();
    let mut total = filled(1.0, checked_count(&dims)?)?;
    for (letters, array) in inputs.iter().zip(&arrays) {
        let from = View::of(array.dims());
        let mut view = View { offset: 0, dims: dims.clone(), strides: vec![0; dims.len()] };
        for (i, &c) in order.iter().enumerate() {
            // A letter twice in a term is a diagonal; a dimension of 1 repeats.
            let strides = letters.iter().zip(&from.strides).zip(array.dims());
            view.strides[i] = strides.filter(|((l, _), d)| **l == c && **d > 1).map(|((_, s), _)| *s).sum();
        }
        let v = view.copy(&doubles(array)?)?;
        total.iter_mut().zip(v).for_each(|(t, v)| *t *= v);
    }
    let result: Vec<usize> = output.iter().map(|&c| extent(c)).collect();
    let each: usize = summed.iter().map(|&c| extent(c)).product();
    let count: usize = result.iter().product();
    let sums = (0..count).map(|i| total[i * each..][..each].iter().sum()).collect();
    Ok(vec![rounded(result, sums, arrays[0].element())?])
}

/// Determinants by elimination with the largest pivot.
fn det(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let [lead @ .., rows, n] = x.dims() else { refuse!("dimensions {:?}, but matrices are needed", x.dims()) };
    if rows != n {
        refuse!("{rows}x{n} is no square");
    }
    let n = *n;
    let mut v = doubles(x)?;
    let of = |m: &mut [f64]| {
        let mut det = 1.0;
        for i in 0..n {
            let pivot = (i..n).fold(i, |p, r| if m[r * n + i].abs() > m[p * n + i].abs() { r } else { p });
            if m[pivot * n + i] == 0.0 {
                return 0.0;
            }
            if pivot != i {
                (0..n).for_each(|c| m.swap(i * n + c, pivot * n + c));
                det = -det;
            }
            det *= m[i * n + i];
            for r in i + 1..n {
                let factor = m[r * n + i] / m[i * n + i];
                (i..n).for_each(|c| m[r * n + c] -= factor * m[i * n + c]);
            }
        }
        det
    };
    let count: usize = lead.iter().product();
    let dets = (0..count).map(|i| of(&mut v[i * n * n..][..n * n])).collect();
    Ok(vec![rounded(lead, dets, x.element())?])
}
