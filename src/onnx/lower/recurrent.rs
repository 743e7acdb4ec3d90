//! Recurrent layers that have a kernel: all but those with unusual activations, or with weights that are computed.

use swath_kernels::epilogue::Activation;

use super::{Lowering, call};
use crate::error::Result;
use crate::graph::ValueId;
use crate::onnx::fold::{Node, Operand};
use crate::onnx::nodes::{Cell, Lengths, Recurrent, Way};
use crate::ops::{ElementType, Fact, Named, activations};

// Numbers of a layer's inputs.
const BIAS: usize = 3;
const LENGTHS: usize = 4;
const HIDDEN: usize = 5;
const CELL: usize = 6;
const PEEPHOLES: usize = 7;

impl Lowering {
    /// The results of a recurrent layer; `None` if the node is none that has a kernel.
    pub(super) fn recurrent(&mut self, node: &Node) -> Result<Option<Vec<ValueId>>> {
        let call = call(node);
        let flag = |name: &str| call.flag(name, false).unwrap_or(false);
        let cell = match node.operator.name {
            "LSTM" => Cell::Lstm { coupled: flag("input_forget") },
            "GRU" => Cell::Gru { linear_before_reset: flag("linear_before_reset") },
            _ => Cell::Rnn,
        };
        let backwards: &[bool] = match call.text("direction", "forward") {
            Ok("reverse") => &[true],
            Ok("bidirectional") => &[false, true],
            _ => &[false],
        };
        let Ok(names) = activations(&call, backwards.len(), cell.gates()) else { return Ok(None) };
        let mut ways = Vec::with_capacity(backwards.len());
        for (&backwards, names) in backwards.iter().zip(&names) {
            let Some(activations) = names.iter().map(activation).collect() else { return Ok(None) };
            ways.push(Way { backwards, activations });
        }
        let given = |i: usize| node.inputs.get(i).filter(|o| !matches!(o, Operand::Absent));
        let [Operand::Value(x), Operand::Constant(w), Operand::Constant(r), ..] = &node.inputs[..] else {
            return Ok(None);
        };
        let lstm = matches!(cell, Cell::Lstm { .. });
        let mut constants = [None, None];
        for (constant, operand) in constants.iter_mut().zip([given(BIAS), given(PEEPHOLES).filter(|_| lstm)]) {
            *constant = match operand {
                None => None,
                Some(Operand::Constant(array)) => Some(array.clone()),
                Some(_) => return Ok(None),
            };
        }
        let [bias, peepholes] = constants;
        let floats = [Some(w), Some(r), bias.as_ref(), peepholes.as_ref()];
        let empty = node.outputs.iter().any(|&o| self.facts[o].is_empty()) || self.facts[*x].is_empty();
        if empty || floats.iter().flatten().any(|array| array.elements::<f32>().is_none()) {
            return Ok(None);
        }
        // Steps, batch and what follows: the other way round in ONNX's second layout.
        let batch_first = flag("layout");
        let turned = |this: &mut Self, x: ValueId| if batch_first { this.permuted(x, &[1, 0, 2]) } else { Ok(x) };
        let mut inputs = vec![turned(self, self.values[x])?];
        let mut states = [false; 2];
        for (state, at) in states.iter_mut().zip([HIDDEN, CELL]) {
            if let Some(operand) = given(at).filter(|_| at == HIDDEN || lstm) {
                let Some(id) = self.operand(operand)? else { return Ok(None) };
                inputs.push(turned(self, id)?);
                *state = true;
            }
        }
        let batch = self.dims(inputs[0])[1];
        let lengths = match given(LENGTHS) {
            None => Lengths::Full,
            Some(Operand::Constant(array)) => match array.elements::<i32>() {
                Some(lengths) if lengths.len() == batch => Lengths::Known(lengths.to_vec()),
                _ => return Ok(None),
            },
            Some(operand) => {
                let Some(id) = self.operand(operand)? else { return Ok(None) };
                if self.builder.fact(id) != Some(&Fact { dims: vec![batch], element: ElementType::I32 }) {
                    return Ok(None);
                }
                inputs.push(id);
                Lengths::Given
            }
        };
        let facts: Vec<Fact> =
            inputs.iter().map(|&id| self.builder.fact(id).expect("facts are known at import").clone()).collect();
        let given_floats = facts.len() - usize::from(matches!(lengths, Lengths::Given));
        if facts[..given_floats].iter().any(|fact| fact.element != ElementType::F32) {
            return Ok(None);
        }
        // Where each of a result's axes is in ONNX's.
        let orders: [&[usize]; 2] = if batch_first { [&[1, 2, 0, 3], &[1, 0, 2]] } else { [&[0, 1, 2, 3], &[0, 1, 2]] };
        let order = |i: usize| orders[i.min(1)];
        let of =
            |(i, &o): (usize, &usize)| Fact::f32(order(i).iter().map(|&a| self.facts[o].dims[a]).collect::<Vec<_>>());
        let op = Recurrent {
            cell,
            ways,
            weights: [w.clone(), r.clone()],
            bias,
            peepholes,
            clip: call.float("clip", 0.0).ok().filter(|&clip| clip > 0.0),
            lengths,
            states,
            inputs: facts,
            outputs: node.outputs.iter().enumerate().map(of).collect(),
        };
        let mut results = self.builder.push(op, &inputs)?;
        if batch_first {
            for (i, result) in results.iter_mut().enumerate().take(node.outputs.len()) {
                *result = self.permuted(*result, if i == 0 { &[2, 0, 1, 3] } else { &[1, 0, 2] })?;
            }
        }
        Ok(Some(results))
    }
}

/// The kernel of an activation, if there is one.
fn activation(Named { name, alpha, .. }: &Named) -> Option<Activation> {
    Some(match name.as_str() {
        "sigmoid" => Activation::Sigmoid,
        "tanh" => Activation::Tanh,
        "relu" => Activation::Relu,
        "leakyrelu" => Activation::LeakyRelu { slope: alpha.unwrap_or(0.01) },
        "elu" => Activation::Elu { alpha: alpha.unwrap_or(1.0) },
        "softplus" => Activation::Softplus { beta: 1.0, threshold: 20.0 },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::SessionOptions;
    use crate::onnx::lower::models::*;
    use crate::onnx::{Network, Shapes};

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Ends {
        None,
        Constant,
        Input,
    }

    #[derive(Debug, Clone)]
    struct Layer {
        op: &'static str,
        direction: &'static str,
        /// `linear_before_reset`, `input_forget`.
        flag: bool,
        bias: bool,
        state: bool,
        peepholes: bool,
        batch_first: bool,
        clip: Option<f32>,
        /// From which of the activations the layer's begin; the usual ones.
        activations: Option<usize>,
        ends: Ends,
        sizes: [usize; 4],
    }

    impl Layer {
        fn directions(&self) -> usize {
            if self.direction == "bidirectional" { 2 } else { 1 }
        }

        fn lengths(&self) -> Vec<i32> {
            let [steps, batch, ..] = self.sizes;
            (0..batch).map(|b| ((b * 7 + steps / 2) % (steps + 1)) as i32).collect()
        }

        fn dims(&self, dims: [usize; 3]) -> [usize; 3] {
            let [a, b, c] = dims;
            if self.batch_first { [b, a, c] } else { dims }
        }

        /// What a run is given.
        fn inputs(&self) -> Vec<(&'static str, Array)> {
            let [steps, batch, inputs, hidden] = self.sizes;
            let mut given = vec![("x", floats(&self.dims([steps, batch, inputs]), 5))];
            if self.state {
                given.push(("h", floats(&self.dims([self.directions(), batch, hidden]), 6)));
            }
            if self.ends == Ends::Input {
                given.push(("l", Array::vector(self.lengths())));
            }
            given
        }

        fn model(&self) -> Vec<u8> {
            let (gates, outputs, few) = match self.op {
                "LSTM" => (4, 3, 3),
                "GRU" => (3, 2, 2),
                _ => (1, 2, 1),
            };
            let directions = self.directions();
            let [_, batch, inputs, hidden] = self.sizes;
            let mut constants = vec![
                tensor("w", &floats(&[directions, gates * hidden, inputs], 1)),
                tensor("r", &floats(&[directions, gates * hidden, hidden], 2)),
                tensor("b", &floats(&[directions, 2 * gates * hidden], 3)),
                tensor("c", &floats(&self.dims([directions, batch, hidden]), 4)),
                tensor("p", &floats(&[directions, 3 * hidden], 7)),
            ];
            if self.ends == Ends::Constant {
                constants.push(ints("l", &[batch], &self.lengths()));
            }
            let some = |yes: bool, name: &'static str| if yes { name } else { "" };
            let lstm = self.op == "LSTM";
            let mut inputs = vec!["x", "w", "r", some(self.bias, "b"), some(self.ends != Ends::None, "l")];
            inputs.push(some(self.state, "h"));
            if lstm {
                inputs.extend([some(self.state, "c"), some(self.peepholes, "p")]);
            }
            let mut attributes = vec![
                attribute("direction", 3, |m| m.text(4, self.direction)),
                attribute("hidden_size", 2, |m| m.int(3, hidden as i64)),
                attribute("layout", 2, |m| m.int(3, self.batch_first.into())),
            ];
            let names = ["sigmoid", "Tanh", "Relu", "LeakyRelu", "Elu", "Softplus"];
            if let Some(first) = self.activations {
                let mut names = (0..few * directions).map(|i| names[(first + i) % names.len()]);
                attributes.push(attribute("activations", 8, |m| names.by_ref().for_each(|name| m.text(9, name))));
            }
            if self.op != "RNN" {
                let name = if lstm { "input_forget" } else { "linear_before_reset" };
                attributes.push(attribute(name, 2, |m| m.int(3, self.flag.into())));
            }
            if let Some(clip) = self.clip {
                attributes.push(attribute("clip", 1, |m| m.float(2, clip)));
            }
            let outputs = &["y", "last", "cell"][..outputs];
            let element = |name: &str| if name == "l" { 6 } else { 1 };
            let given: Vec<_> = self.inputs().iter().map(|(name, x)| input(name, x.dims(), element(name))).collect();
            model(14, &[node(self.op, &inputs, outputs, &attributes)], &constants, &given, outputs)
        }
    }

    fn layers() -> impl Strategy<Value = Layer> {
        let op = prop_oneof![Just("LSTM"), Just("GRU"), Just("RNN")];
        let direction = prop_oneof![Just("forward"), Just("reverse"), Just("bidirectional")];
        let sizes = (1usize..6, 1usize..4, 1usize..20, 1usize..20);
        let ends = prop_oneof![Just(Ends::None), Just(Ends::Constant), Just(Ends::Input)];
        let rest = (any::<[bool; 5]>(), prop::option::of(0.2f32..2.0), prop::option::of(0usize..6), ends);
        (op, direction, rest, sizes).prop_map(|(op, direction, (flags, clip, activations, ends), (t, n, i, h))| {
            let [flag, bias, state, peepholes, batch_first] = flags;
            let sizes = [t, n, i, h];
            // Products of gates that have no limit grow out of f32's range.
            let clip = clip.or((op != "RNN" && activations.is_some()).then_some(1.5));
            Layer { op, direction, flag, bias, state, peepholes, batch_first, clip, activations, ends, sizes }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]
        #[test]
        fn compiled_layers_compute_what_interpreted_ones_do(layer in layers()) {
            compiles_to_the_same(&layer.model(), layer.inputs())?;
        }
    }

    #[test]
    fn shapes_share_the_packed_weights() {
        let layer = |batch| Layer {
            op: "GRU",
            direction: "bidirectional",
            flag: false,
            bias: true,
            state: false,
            peepholes: false,
            batch_first: false,
            clip: None,
            activations: None,
            ends: Ends::None,
            sizes: [3, batch, 40, 48],
        };
        let mut shapes =
            Shapes::new(Network::from_bytes(layer(0).model()).unwrap(), SessionOptions::default(), 2).unwrap();
        let mut one = None;
        for batch in [3, 5, 4] {
            let x = layer(batch).inputs().remove(0).1;
            let expected = interpreted(&layer(batch).model(), vec![("x", x.clone())]);
            close(shapes.run(&[x]).unwrap(), &expected).unwrap();
            let bytes = shapes.memory()[1];
            let one = *one.get_or_insert(bytes);
            assert!(bytes < 2 * one, "shapes have {bytes} bytes, one {one}");
        }
    }
}
