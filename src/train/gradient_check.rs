//! A check of gradients by differences, for modules and operators of one's own.

use swath_kernels::layout::Layout;

use crate::compile::SessionOptions;
use crate::compile::runner::Runner;
use crate::error::Result;
use crate::graph::autodiff::Wanted;
use crate::graph::ops::{Binary, Reduce};
use crate::graph::{Fact, Graph, Parameters};
use crate::nn::Module;
use crate::tensor::Tensor;

/// How far gradients are from differences.
#[derive(Clone, Debug)]
pub struct GradientCheck {
    /// For the input and each parameter: its name, and the largest distance between a gradient and the difference, relative to the largest
    /// gradient of it.
    pub errors: Vec<(String, f64)>,
}

impl GradientCheck {
    /// The largest error.
    pub fn worst(&self) -> f64 {
        self.errors.iter().map(|(_, e)| *e).fold(0.0, f64::max)
    }
}

/// A number in `-1..1` that follows from two others.
fn noise(seed: u64, i: u64) -> f32 {
    let z = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i.wrapping_mul(0xd6e8_feb8_6659_fd93)).wrapping_add(i << 17);
    let z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    ((z >> 40) as f32 / (1u64 << 23) as f32) - 1.0
}

/// Compares the gradients of a module, at its input and at its parameters, with differences over `2 * step`, where the loss is the sum of
/// the outputs with random weights. Batch normalisation runs in training mode on both sides.
///
/// Differences in f32 are good to about 1 %: steps of 0.01 suit most.
///
/// ```
/// use swath::nn::{Conv2d, Sequential, Tanh};
/// use swath::train::check_gradients;
/// let net = Sequential::new((Conv2d::new(2, 3, 3), Tanh));
/// assert!(check_gradients(&net, [2, 2, 5, 5], 0.01, 7)?.worst() < 0.02);
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// Of the module, and [`Error::NoGradient`](crate::Error::NoGradient) under the layer's name.
pub fn check_gradients(module: &dyn Module, input: impl AsRef<[usize]>, step: f32, seed: u64) -> Result<GradientCheck> {
    let input = input.as_ref();
    let model = Graph::record(|x| module.call(x))?;
    let dims = model.output_dims(input)?;
    let len: usize = dims.iter().product();
    let weights: Vec<f32> = (0..len as u64).map(|i| noise(seed ^ 1, i)).collect();
    let weights = Tensor::new(&dims, &weights)?;
    let graph = model.extend(&[], &["loss"], |outputs, _| {
        let weighted = outputs[0].push(Binary::mul(), &[&outputs[0], &outputs[0].constant(weights)]);
        Ok(vec![weighted.push(Reduce::sum(&[], false), &[&weighted])])
    })?;
    let x: Vec<f32> = (0..input.iter().product::<usize>() as u64).map(|i| noise(seed, i)).collect();
    let mut parameters: Parameters = graph.parameters.iter().map(|p| p.initial(seed)).collect::<Result<_>>()?;
    for (p, values) in parameters.iter_mut().enumerate().filter(|(p, _)| graph.parameters[*p].trained) {
        // Not the ones and zeros that some layers begin with.
        let of = |i: usize| noise(seed ^ (p as u64 + 2), i as u64) * 0.2;
        values.as_mut_slice().iter_mut().enumerate().for_each(|(i, v)| *v += of(i));
    }
    let wanted = Wanted { loss: 1, trained: &|_| true, frozen: &|_| false, inputs: &[0], recompute: false };
    let d = graph.differentiate(&[Fact::f32(input)], &wanted)?;
    let options = SessionOptions { output: Layout::Nchw, ..SessionOptions::default() };
    let mut runner = Runner::compile(d.graph.clone(), &Vec::new(), &d.inputs, &options, &Default::default())?;
    let seed_parts = [0.0, 0.0, 0.0, seed as u16 as f32];
    let mut run = |x: &[f32], parameters: &Parameters| {
        let input = |i: usize| match i {
            0 => x,
            _ if Some(i) == d.seed => &seed_parts,
            _ => parameters[i - d.first_parameter].as_slice(),
        };
        runner.run(&input);
        (runner.outputs[1][0], runner.outputs.iter().map(|b| b.to_vec()).collect::<Vec<_>>())
    };
    let (_, outputs) = run(&x, &parameters);
    let mut errors = Vec::new();
    for &(_, output) in &d.input_gradients {
        let differences = differences(x.len(), step, |i, by| {
            let mut moved = x.clone();
            moved[i] += by;
            run(&moved, &parameters).0
        });
        errors.push(("input".to_string(), distance(&outputs[output], &differences)));
    }
    for &(p, output) in &d.gradients {
        let differences = differences(parameters[p].as_slice().len(), step, |i, by| {
            let before = parameters[p].as_slice()[i];
            parameters[p].as_mut_slice()[i] += by;
            let loss = run(&x, &parameters).0;
            parameters[p].as_mut_slice()[i] = before;
            loss
        });
        errors.push((graph.parameters[p].name.clone(), distance(&outputs[output], &differences)));
    }
    Ok(GradientCheck { errors })
}

/// Central differences of at most 200 elements, which are spread evenly.
fn differences(len: usize, step: f32, mut loss: impl FnMut(usize, f32) -> f32) -> Vec<(usize, f64)> {
    let every = len.div_ceil(200).max(1);
    let difference = |i: usize| {
        let (up, down) = (loss(i, step), loss(i, -step));
        (i, (f64::from(up) - f64::from(down)) / (2.0 * f64::from(step)))
    };
    (0..len).step_by(every).map(difference).collect()
}

fn distance(gradient: &[f32], differences: &[(usize, f64)]) -> f64 {
    let largest = gradient.iter().fold(0.0f64, |m, g| m.max(f64::from(g.abs()))).max(1e-3);
    differences.iter().map(|(i, d)| (f64::from(gradient[*i]) - d).abs() / largest).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Value;
    use crate::nn::*;

    fn worst(module: &dyn Module, input: &[usize]) -> f64 {
        let check = check_gradients(module, input, 0.01, 3).unwrap_or_else(|e| panic!("{e}"));
        eprintln!("{:?}", check.errors);
        check.worst()
    }

    #[test]
    fn convolutions_and_linear() {
        for (conv, input) in [
            (Conv2d::new(3, 5, 3).padding(1), [2, 3, 6, 7]),
            (Conv2d::new(17, 18, 3).padding(1).stride(2), [2, 17, 7, 6]),
            (Conv2d::new(16, 32, 3).padding(1), [1, 16, 8, 8]),
            (Conv2d::new(8, 8, 3).padding(2).dilation(2).groups(4), [2, 8, 7, 7]),
            (Conv2d::new(16, 16, 3).padding(1).groups(16), [2, 16, 6, 6]),
            (Conv2d::new(4, 6, [1, 3]).stride([2, 1]).padding_mode(PaddingMode::Zeros), [3, 4, 5, 6]),
        ] {
            assert!(worst(&conv, &input) < 0.02, "{conv:?}");
        }
        assert!(worst(&Linear::new(7, 5), &[4, 7]) < 0.02);
        assert!(worst(&Linear::new(7, 5).bias(false), &[4, 7]) < 0.02);
    }

    #[test]
    fn transposed_convolutions() {
        for (conv, input) in [
            (ConvTranspose2d::new(4, 3, 2).stride(2), [2, 4, 3, 4]),
            (ConvTranspose2d::new(6, 4, 3).stride(2).padding(1).output_padding(1).groups(2), [1, 6, 4, 3]),
            (ConvTranspose2d::new(17, 16, 4).stride(2).padding(1), [1, 17, 4, 4]),
        ] {
            assert!(worst(&conv, &input) < 0.02, "{conv:?}");
        }
    }

    #[test]
    fn normalisation_pools_and_branches() {
        let net = Sequential::new((
            Conv2d::new(3, 18, 3).padding(1).named("a"),
            BatchNorm2d::new(18).named("n"),
            Tanh,
            AvgPool2d::new(2),
            Conv2d::new(18, 4, 1).named("b"),
            AdaptiveAvgPool2d::new(2),
            Flatten,
            Linear::new(16, 3).named("fc"),
        ));
        assert!(worst(&net, &[3, 3, 6, 6]) < 0.05);
        let (a, b) = (Conv2d::new(4, 4, 3).padding(1).named("a"), Conv2d::new(8, 4, 1).named("b"));
        let branches = move |x: &Value| {
            let y = a.call(x)?.sigmoid();
            let z = b.call(&y.concat(&[x]))?;
            Ok(&(&z * &y) / &(x * x + x.constant(Tensor::new([1], &[2.0])?)) - x)
        };
        assert!(worst(&branches, &[2, 4, 5, 5]) < 0.05);
        let max = Sequential::new((Conv2d::new(2, 3, 3), MaxPool2d::new(2)));
        assert!(check_gradients(&max, [1, 2, 8, 8], 1e-3, 5).unwrap().worst() < 0.1);
    }
}
