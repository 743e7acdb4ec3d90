//! What a graph has to do for an input and what it takes: its convolutions, its arithmetic, its parameters.

use swath_kernels::shape::ConvShape;

use super::{Fact, Graph, Node};
use crate::benchdnn::Problem;
use crate::error::Result;

/// The arithmetic of an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Multiply-adds, those in the padding included.
    pub macs: u64,
    /// The convolution that it runs as.
    pub convolution: Option<ConvShape>,
}

impl Graph {
    /// The convolutions that a run for an input of extents `input` does, in order, equal ones once with their number in
    /// [`Problem::times`], called `NAME:1`, `NAME:2` and so on. They are what a tuner has to know of a network.
    ///
    /// A transposed convolution runs as a 1x1 convolution and is listed as that. Linear is not listed.
    ///
    /// # Errors
    /// Of the first operator that the shape does not fit, and [`crate::benchdnn::ProblemError::Asymmetric`] for a
    /// convolution whose opposite sides have different padding, which benchdnn's notation cannot say; both under the
    /// layer's name.
    ///
    /// ```
    /// use swath::nn::{Conv2d, Module, Sequential};
    /// let conv = || Conv2d::new(16, 16, 3).padding(1);
    /// let model = Sequential::new((Conv2d::new(3, 16, 1), conv(), conv())).build(0)?;
    /// let list = model.graph().convolutions("net", &[1, 3, 8, 8])?;
    /// assert_eq!(list[1].to_string(), "mb1ic16ih8oc16oh8kh3ph1nnet:2");
    /// assert_eq!((list.len(), list[0].times, list[1].times), (2, 1, 2));
    /// # Ok::<(), swath::Error>(())
    /// ```
    pub fn convolutions(&self, name: &str, input: &[usize]) -> Result<Vec<Problem>> {
        let mut list = Vec::new();
        for (layer, shape, times) in self.convolutions_for(&[Fact::f32(input)])? {
            let problem = Problem::new(&shape, &format!("{name}:{}", list.len() + 1));
            let problem = problem.map_err(|e| crate::Error::from(e).in_layer(layer))?;
            list.push(Problem { times, ..problem });
        }
        Ok(list)
    }

    /// As [`Graph::convolutions`], for a graph of several inputs, or of inputs that are no floats, and with any padding: the layer where
    /// each is first, its geometry, and how often it occurs.
    ///
    /// # Errors
    /// Of the first operator that the shapes do not fit, under its layer's name.
    pub fn convolutions_for(&self, inputs: &[Fact]) -> Result<Vec<(&str, ConvShape, usize)>> {
        let facts = self.infer(inputs)?;
        let mut list: Vec<(&str, ConvShape, usize)> = Vec::new();
        for (node, work) in self.works(&facts) {
            let Some(shape) = work.convolution else { continue };
            match list.iter_mut().find(|(_, seen, _)| *seen == shape) {
                Some((.., times)) => *times += 1,
                None => list.push((&node.layer, shape, 1)),
            }
        }
        Ok(list)
    }

    /// Floating-point operations of a run's convolutions and Linear layers for an input of extents `input`: two for each
    /// multiply-add, those in the padding included.
    ///
    /// # Errors
    /// Of the first operator that the shape does not fit, under its layer's name.
    pub fn flop(&self, input: &[usize]) -> Result<u64> {
        self.flop_for(&[Fact::f32(input)])
    }

    /// As [`Graph::flop`], for a graph of several inputs, or of inputs that are no floats.
    ///
    /// # Errors
    /// As [`Graph::flop`].
    pub fn flop_for(&self, inputs: &[Fact]) -> Result<u64> {
        let facts = self.infer(inputs)?;
        Ok(self.works(&facts).map(|(_, work)| work.macs).fold(0, u64::saturating_add).saturating_mul(2))
    }

    /// The work of every operator that an output depends on.
    fn works<'g>(&'g self, facts: &[Vec<Fact>]) -> impl Iterator<Item = (&'g Node, Work)> {
        let live = self.live();
        self.nodes.iter().enumerate().filter(move |(id, _)| live[*id]).filter_map(|(_, node)| {
            let inputs: Vec<&Fact> = node.inputs.iter().map(|v| &facts[v.node][v.slot]).collect();
            Some((node, node.operator()?.work(&inputs)))
        })
    }

    /// Names and extents of everything that a model of this graph saves: parameters and running statistics, in the order
    /// in which the layers declared them.
    pub fn state(&self) -> impl ExactSizeIterator<Item = (&str, &[usize])> {
        self.parameters.iter().map(|p| (p.name.as_str(), p.dims.as_slice()))
    }

    /// Floats in all parameters; running statistics do not count, as in PyTorch.
    pub fn parameter_count(&self) -> usize {
        let trained = self.parameters.iter().filter(|p| p.trained);
        trained.map(|p| p.dims.iter().product::<usize>()).sum()
    }

    /// Whether an output depends on each node.
    fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        self.outputs.iter().for_each(|(_, v)| live[v.node] = true);
        for (id, node) in self.nodes.iter().enumerate().rev() {
            if live[id] {
                node.inputs.iter().for_each(|v| live[v.node] = true);
            }
        }
        live
    }
}

#[cfg(test)]
mod tests {
    use crate::nn::{Conv2d, Conv2dPadding, ConvTranspose2d, Flatten, Linear, Module, Sequential};

    #[test]
    fn what_the_output_does_not_need_is_not_listed() {
        let (a, b) = (Conv2d::new(3, 4, 1).named("a"), Conv2d::new(3, 5, 1).named("b"));
        let net = move |x: &crate::Value| {
            a.call(x)?;
            b.call(x)
        };
        let graph = crate::Graph::record(net).unwrap();
        let list = graph.convolutions("n", &[2, 3, 4, 4]).unwrap();
        assert_eq!(list.iter().map(|p| p.text.as_str()).collect::<Vec<_>>(), ["mb2ic3ih4oc5oh4kh1ph0nn:1"]);
        assert_eq!(graph.flop(&[2, 3, 4, 4]).unwrap(), 2 * 2 * 3 * 5 * 16);
    }

    #[test]
    fn transposed_ones_are_listed_as_they_run_and_linear_is_not() {
        let net = Sequential::new((ConvTranspose2d::new(3, 20, 2).stride(2), Flatten, Linear::new(320, 7)));
        let graph = net.build(0).unwrap().graph().clone();
        let list = graph.convolutions("n", &[1, 3, 2, 2]).unwrap();
        // 20 channels fill two blocks, for each of the four pixels.
        assert_eq!(list.iter().map(|p| p.text.as_str()).collect::<Vec<_>>(), ["mb1ic3ih2oc128oh2kh1ph0nn:1"]);
        assert_eq!(graph.flop(&[1, 3, 2, 2]).unwrap(), 2 * (3 * 20 * 16 + 320 * 7));
        assert_eq!(graph.parameter_count(), 3 * 20 * 4 + 20 + 320 * 7 + 7);
    }

    #[test]
    fn padding_that_the_notation_lacks_is_an_error_of_its_layer() {
        let conv = Conv2d::new(3, 4, 2).padding(Conv2dPadding::Same).named("conv").build(0).unwrap();
        let e = conv.graph().convolutions("n", &[1, 3, 4, 4]).unwrap_err().to_string();
        assert_eq!(e, "layer `conv`: benchdnn's notation has one padding for both sides, but vertically it is 0 and 1");
    }
}
