//! Normalisations.

use super::call::{axes, axis};
use super::doubles::{doubles, rounded};
use super::error::{OpResult, refuse};
use super::view::{View, expand};
use super::{Array, Call, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("BatchNormalization", batch),
    Operator::new("InstanceNormalization", instance),
    Operator::new("LayerNormalization", layer),
    Operator::new("RMSNormalization", rms),
    Operator::new("GroupNormalization", group),
    Operator::new("LRN", local_response),
    Operator::new("MeanVarianceNormalization", mean_variance),
];

/// `[n, c, the rest]`
fn channels(x: &Array) -> OpResult<[usize; 3]> {
    match x.dims() {
        [n, c, rest @ ..] => Ok([*n, *c, rest.iter().product()]),
        dims => refuse!("dimensions {dims:?}, but [n, c, ..] is needed"),
    }
}

/// One value for each of `len` channels or groups.
fn per(call: &Call<'_>, index: usize, len: usize) -> OpResult<Vec<f64>> {
    let v = doubles(call.input(index)?)?;
    if v.len() != len {
        refuse!("input {index} has {} elements, but {len} are needed", v.len());
    }
    Ok(v)
}

fn mean_and_variance(v: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = v.clone().count() as f64;
    let mean = v.clone().sum::<f64>() / n;
    (mean, v.map(|v| (v - mean) * (v - mean)).sum::<f64>() / n)
}

fn batch(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let [n, c, size] = match x.dims() {
        [c] => [1, *c, 1],
        _ => channels(x)?,
    };
    if call.opset < 9 && !call.flag("spatial", true)? {
        refuse!("spatial is 0: statistics of each pixel");
    }
    let epsilon = f64::from(call.float("epsilon", 1e-5)?);
    let [scale, bias, mean, var] = [per(call, 1, c)?, per(call, 2, c)?, per(call, 3, c)?, per(call, 4, c)?];
    let v = doubles(x)?;
    let training = call.flag("training_mode", false)?;
    let of = |i: usize| {
        let values = (0..n).flat_map(|b| &v[(b * c + i) * size..][..size]).copied();
        if training { mean_and_variance(values) } else { (mean[i], var[i]) }
    };
    let stats: Vec<(f64, f64)> = (0..c).map(of).collect();
    let y = v.iter().enumerate().map(|(p, v)| {
        let i = p / size % c;
        (v - stats[i].0) / (stats[i].1 + epsilon).sqrt() * scale[i] + bias[i]
    });
    let mut outputs = vec![rounded(x.dims(), y.collect(), x.element())?];
    if training {
        let momentum = f64::from(call.float("momentum", 0.9)?);
        let run = |old: &[f64], new: fn(&(f64, f64)) -> f64| {
            old.iter().zip(&stats).map(|(old, s)| old * momentum + new(s) * (1.0 - momentum)).collect()
        };
        outputs.push(rounded([c], run(&mean, |s| s.0), call.input(3)?.element())?);
        outputs.push(rounded([c], run(&var, |s| s.1), call.input(4)?.element())?);
    }
    Ok(outputs)
}

/// Normalises `count` groups of `len` elements that follow each other.
fn groups(v: &mut [f64], len: usize, epsilon: f64) {
    for group in v.chunks_mut(len.max(1)) {
        let (mean, var) = mean_and_variance(group.iter().copied());
        let factor = 1.0 / (var + epsilon).sqrt();
        group.iter_mut().for_each(|v| *v = (*v - mean) * factor);
    }
}

fn instance(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let [_, c, size] = channels(x)?;
    let (scale, bias) = (per(call, 1, c)?, per(call, 2, c)?);
    let mut v = doubles(x)?;
    groups(&mut v, size, call.float("epsilon", 1e-5)?.into());
    v.iter_mut().enumerate().for_each(|(p, v)| *v = *v * scale[p / size % c] + bias[p / size % c]);
    Ok(vec![rounded(x.dims(), v, x.element())?])
}

/// Scales are one for each group before opset 21, and one for each channel since.
fn group(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let [_, c, size] = channels(x)?;
    let groups_of = match usize::try_from(call.int("num_groups", 0)?) {
        Ok(groups) if groups > 0 && c.is_multiple_of(groups) => groups,
        _ => refuse!("{} groups of {c} channels", call.int("num_groups", 0)?),
    };
    let each = c / groups_of;
    let (scale, bias) = (doubles(call.input(1)?)?, doubles(call.input(2)?)?);
    let at = |v: &[f64], i: usize| match v.len() {
        len if len == c => Ok(v[i]),
        len if len == groups_of => Ok(v[i / each]),
        len => refuse!("{len} scales for {c} channels in {groups_of} groups"),
    };
    let scales = (0..c).map(|i| Ok((at(&scale, i)?, at(&bias, i)?))).collect::<OpResult<Vec<_>>>()?;
    let mut v = doubles(x)?;
    groups(&mut v, each * size, call.float("epsilon", 1e-5)?.into());
    v.iter_mut().enumerate().for_each(|(p, v)| {
        let (scale, bias) = scales[p / size % c];
        *v = *v * scale + bias;
    });
    Ok(vec![rounded(x.dims(), v, x.element())?])
}

/// Scale and bias of a normalisation over the last dimensions, repeated to all.
fn affine(call: &Call<'_>, x: &Array, v: &mut [f64]) -> OpResult<()> {
    let scale = doubles(&expand(call.input(1)?, x.dims())?)?;
    v.iter_mut().zip(scale).for_each(|(v, s)| *v *= s);
    if let Some(bias) = call.optional(2) {
        let bias = doubles(&expand(bias, x.dims())?)?;
        v.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
    }
    Ok(())
}

fn layer(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let at = axis(call.int("axis", -1)?, x.rank())?;
    let epsilon = f64::from(call.float("epsilon", 1e-5)?);
    let len: usize = x.dims()[at..].iter().product();
    let mut v = doubles(x)?;
    let stats: Vec<(f64, f64)> = v.chunks(len.max(1)).map(|row| mean_and_variance(row.iter().copied())).collect();
    groups(&mut v, len, epsilon);
    affine(call, x, &mut v)?;
    let dims = [&x.dims()[..at], &vec![1; x.rank() - at]].concat();
    let of =
        |f: &dyn Fn(&(f64, f64)) -> f64| rounded(dims.clone(), stats.iter().map(f).collect(), super::ElementType::F32);
    let stats = [of(&|s| s.0)?, of(&|s| 1.0 / (s.1 + epsilon).sqrt())?];
    let [mean, inverse] = stats;
    Ok(vec![rounded(x.dims(), v, x.element())?, mean, inverse])
}

fn rms(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let at = axis(call.int("axis", -1)?, x.rank())?;
    let epsilon = f64::from(call.float("epsilon", 1e-5)?);
    let len = x.dims()[at..].iter().product::<usize>().max(1);
    let mut v = doubles(x)?;
    for row in v.chunks_mut(len) {
        let factor = 1.0 / (row.iter().map(|v| v * v).sum::<f64>() / len as f64 + epsilon).sqrt();
        row.iter_mut().for_each(|v| *v *= factor);
    }
    affine(call, x, &mut v)?;
    Ok(vec![rounded(x.dims(), v, x.element())?])
}

fn local_response(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let [_, c, size] = channels(x)?;
    let alpha = f64::from(call.float("alpha", 1e-4)?);
    let (beta, bias) = (f64::from(call.float("beta", 0.75)?), f64::from(call.float("bias", 1.0)?));
    let window = match usize::try_from(call.int("size", 0)?) {
        Ok(window) if window > 0 => window,
        _ => refuse!("size is {}", call.int("size", 0)?),
    };
    let v = doubles(x)?;
    let y = (0..v.len()).map(|p| {
        let (i, pixel) = (p / size % c, p / (size * c) * (size * c) + p % size);
        let (first, last) = (i.saturating_sub((window - 1) / 2), (i + window / 2).min(c - 1));
        let sum: f64 = (first..=last).map(|j| v[pixel + j * size]).map(|v| v * v).sum();
        v[p] / (bias + alpha / window as f64 * sum).powf(beta)
    });
    Ok(vec![rounded(x.dims(), y.collect(), x.element())?])
}

fn mean_variance(call: &Call<'_>) -> OpResult<Vec<Array>> {
    let x = call.input(0)?;
    let over = axes(call.ints("axes")?.unwrap_or(&[0, 2, 3]), x.rank())?;
    let stay: Vec<usize> = (0..x.rank()).filter(|i| !over.contains(i)).collect();
    let order = [&stay[..], &over].concat();
    let len: usize = over.iter().map(|&i| x.dims()[i]).product();
    let view = View::of(x.dims()).permute(&order);
    let mut v = view.copy(&doubles(x)?)?;
    for group in v.chunks_mut(len.max(1)) {
        let (mean, var) = mean_and_variance(group.iter().copied());
        // The operator's definition adds 1e-9 to the deviation, not to the variance.
        group.iter_mut().for_each(|v| *v = (*v - mean) / (var.sqrt() + 1e-9));
    }
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(to, &from)| back[from] = to);
    let v = View::of(&view.dims).permute(&back).copy(&v)?;
    Ok(vec![rounded(x.dims(), v, x.element())?])
}
