//! Losses of classification, as a model can hold them.

use super::doubles::{doubles, rounded};
use super::error::{OpResult, refuse};
use super::reduce::log_softmax_of;
use super::{Array, Call, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("NegativeLogLikelihoodLoss", |call| {
        let x = call.input(0)?;
        Ok(vec![likelihood(call, x, &doubles(x)?)?])
    }),
    Operator::new("SoftmaxCrossEntropyLoss", |call| {
        let x = call.input(0)?;
        let [n, c, size] = sizes(x)?;
        let v = doubles(x)?;
        let mut log = vec![0.0; v.len()];
        for (image, pixel) in (0..n * size).map(|p| (p / size, p % size)) {
            let place = |i: usize| (image * c + i) * size + pixel;
            let row: Vec<f64> = (0..c).map(|i| v[place(i)]).collect();
            log_softmax_of(&row).into_iter().enumerate().for_each(|(i, v)| log[place(i)] = v);
        }
        Ok(vec![likelihood(call, x, &log)?, rounded(x.dims(), log, x.element())?])
    }),
];

fn sizes(x: &Array) -> OpResult<[usize; 3]> {
    match x.dims() {
        [n, c, rest @ ..] => Ok([*n, *c, rest.iter().product()]),
        dims => refuse!("dimensions {dims:?}, but [n, classes, ..] is needed"),
    }
}

/// The loss from logarithms of probabilities.
fn likelihood(call: &Call<'_>, x: &Array, log: &[f64]) -> OpResult<Array> {
    let [n, c, size] = sizes(x)?;
    let classes = call.integers(1)?.unwrap_or_default();
    let weights = call.optional(2).map(doubles).transpose()?.unwrap_or_else(|| vec![1.0; c]);
    if classes.len() != n * size || weights.len() != c {
        refuse!("{} classes and {} weights for {:?}", classes.len(), weights.len(), x.dims());
    }
    let ignored = call.optional_int("ignore_index")?;
    let (mut losses, mut total) = (Vec::with_capacity(classes.len()), 0.0);
    for (p, &class) in classes.iter().enumerate() {
        if ignored == Some(class) {
            losses.push(0.0);
            continue;
        }
        let Some(class) = usize::try_from(class).ok().filter(|&i| i < c) else {
            refuse!("class {class}, but there are {c}");
        };
        losses.push(-log[(p / size * c + class) * size + p % size] * weights[class]);
        total += weights[class];
    }
    match call.text("reduction", "mean")? {
        "none" => rounded([&x.dims()[..1], &x.dims()[2..]].concat(), losses, x.element()),
        "sum" => rounded([], vec![losses.iter().sum()], x.element()),
        "mean" => rounded([], vec![losses.iter().sum::<f64>() / total], x.element()),
        other => refuse!("reduction is {other:?}, but it can be none, sum or mean"),
    }
}
