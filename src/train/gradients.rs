//! The gradients of a model for a given gradient at its output.

use swath_kernels::layout::Layout;

use crate::compile::SessionOptions;
use crate::compile::runner::Runner;
use crate::error::{Error, Result};
use crate::graph::Fact;
use crate::graph::autodiff::Wanted;
use crate::graph::ops::Reduce;
use crate::model::Model;
use crate::tensor::Tensor;

/// How [`gradients`] are computed.
#[derive(Clone, Debug, Default)]
pub struct GradientOptions {
    /// Level, accuracy, threads and measurements to choose algorithms by. Layouts are the graph's own.
    pub session: SessionOptions,
    /// Whether layers run as in inference: batch normalisation by its running statistics, no dropout.
    pub evaluation: bool,
}

/// What [`gradients`] computes.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// The model's output.
    pub output: Tensor,
    /// The gradient at the input.
    pub input: Tensor,
    /// Names and gradients of the parameters that the output depends on, in the model's order.
    pub parameters: Vec<(String, Tensor)>,
}

/// The gradients of the sum of `output_gradient` times the output, at the input and at every parameter: PyTorch's
/// `torch.autograd.grad(output, [input, ..], output_gradient)`. For losses of one's own, and for tests. Layers run in training mode
/// unless the options say otherwise; running statistics stay as they are. Everything is compiled anew: a [`Trainer`](super::Trainer) is for many steps.
///
/// ```
/// use swath::nn::{LeakyReLU, Module};
/// use swath::{Tensor, train::gradients};
/// let model = LeakyReLU::new(0.5).build(0)?;
/// let (x, dy) = (Tensor::new([1, 2], &[3.0, -3.0])?, Tensor::new([1, 2], &[1.0, 10.0])?);
/// let g = gradients(&model, &x, &dy, &Default::default())?;
/// assert_eq!((g.output.as_slice(), g.input.as_slice()), (&[3.0, -1.5][..], &[1.0, 5.0][..]));
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// [`Error::NoGradient`] under the layer's name, tensors that are not in NCHW or do not fit the model, and [`Error::Memory`].
pub fn gradients(
    model: &Model,
    input: &Tensor,
    output_gradient: &Tensor,
    options: &GradientOptions,
) -> Result<Gradients> {
    for tensor in [input, output_gradient] {
        if tensor.layout() != Layout::Nchw {
            let (value, rule) = (tensor.layout().name().into(), "gradients takes NCHW".into());
            return Err(Error::Setting { what: "the layout of a tensor", value, rule });
        }
    }
    let dims = model.output_dims(input.dims())?;
    if dims != output_gradient.dims() {
        let (left, right) = (output_gradient.dims().to_vec(), dims);
        return Err(Error::Shapes { what: "the output's gradient, and the output", left, right });
    }
    let graph = model.graph().extend(&["gradient"], &["loss"], |outputs, added| {
        let weighted = &outputs[0] * &added[0];
        Ok(vec![weighted.push(Reduce::sum(&[], false), &[&weighted])])
    })?;
    let wanted = Wanted {
        loss: graph.outputs.len() - 1,
        trained: &|_| true,
        frozen: &|_| options.evaluation,
        inputs: &[0],
        recompute: false,
    };
    let d = graph.differentiate(&[Fact::f32(input.dims()), Fact::f32(output_gradient.dims())], &wanted)?;
    let options = SessionOptions { input: Layout::Nchw, output: Layout::Nchw, ..options.session.clone() };
    let mut runner = Runner::compile(d.graph.clone(), &Vec::new(), &d.inputs, &options, &Default::default())?;
    let parameters: Vec<(&str, &Tensor)> = model.state().collect();
    runner.run(&|i| match i {
        0 => input.as_slice(),
        1 => output_gradient.as_slice(),
        i if Some(i) == d.seed => &[0.0; 4],
        i => parameters[i - d.first_parameter].1.as_slice(),
    });
    let result = |at: usize, dims: &[usize]| Tensor::new(dims, &runner.outputs[at]);
    let of_input = d.input_gradients.first().map(|&(_, at)| result(at, input.dims()));
    let of_parameter = |&(p, at): &(usize, usize)| {
        let (name, value) = parameters[p];
        Ok((name.to_string(), result(at, value.dims())?))
    };
    Ok(Gradients {
        output: result(0, &dims)?,
        // An output that does not depend on the input has no gradient there.
        input: of_input.unwrap_or_else(|| Tensor::zeros(input.dims()))?,
        parameters: d.gradients.iter().map(of_parameter).collect::<Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Linear, Module};

    #[test]
    fn what_does_not_fit_is_refused() {
        let model = Linear::new(3, 2).build(0).unwrap();
        let zeros = |dims: &[usize]| Tensor::zeros(dims).unwrap();
        let text = |x: &[usize], dy: &[usize]| {
            gradients(&model, &zeros(x), &zeros(dy), &GradientOptions::default()).unwrap_err().to_string()
        };
        assert!(text(&[1, 4], &[1, 2]).contains("takes 3 features, gets 4"));
        assert!(text(&[1, 3], &[2, 2]).contains("[2, 2] and [1, 2] do not agree"));
        let g = gradients(&model, &zeros(&[1, 3]), &zeros(&[1, 2]), &GradientOptions::default()).unwrap();
        assert_eq!(g.parameters.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["weight", "bias"]);
    }
}
