//! Recurrent layers that have a kernel: all but those with lengths of their own, peepholes, a clip, or unusual activations.

use super::{Lowering, call};
use crate::error::Result;
use crate::graph::ValueId;
use crate::onnx::fold::{Node, Operand};
use crate::onnx::nodes::{Cell, Recurrent};

// Numbers of the inputs of an LSTM or GRU.
const BIAS: usize = 3;
const LENGTHS: usize = 4;
const HIDDEN: usize = 5;
const CELL: usize = 6;
const PEEPHOLES: usize = 7;

impl Lowering {
    /// The results of a recurrent layer; `None` if the node is none that has a kernel.
    pub(super) fn recurrent(&mut self, node: &Node) -> Result<Option<Vec<ValueId>>> {
        let call = call(node);
        let has = |name: &str| node.attributes.get(name).is_some();
        let cell = match node.operator.name {
            "LSTM" => Cell::Lstm,
            "GRU" => Cell::Gru { linear_before_reset: call.flag("linear_before_reset", false).unwrap_or(false) },
            _ => return Ok(None),
        };
        let given = |i: usize| node.inputs.get(i).filter(|o| !matches!(o, Operand::Absent));
        let plain = !["clip", "activation_alpha", "activation_beta"].iter().any(|name| has(name))
            && call.texts("activations").is_ok_and(|names| names.is_none_or(|names| usual(cell, names)))
            && call.flag("layout", false).is_ok_and(|first| !first)
            && call.flag("input_forget", false).is_ok_and(|coupled| !coupled)
            && given(LENGTHS).is_none()
            && given(PEEPHOLES).is_none();
        let backwards = match call.text("direction", "forward") {
            Ok("forward") => vec![false],
            Ok("reverse") => vec![true],
            Ok("bidirectional") => vec![false, true],
            _ => return Ok(None),
        };
        let [Operand::Value(x), Operand::Constant(w), Operand::Constant(r), ..] = &node.inputs[..] else {
            return Ok(None);
        };
        let bias = match given(BIAS) {
            None => None,
            Some(Operand::Constant(bias)) => Some(bias.clone()),
            Some(_) => return Ok(None),
        };
        let constants = [Some(w), Some(r), bias.as_ref()];
        let empty = node.outputs.iter().any(|&o| self.facts[o].is_empty()) || self.facts[*x].is_empty();
        if !plain || empty || constants.iter().flatten().any(|array| array.elements::<f32>().is_none()) {
            return Ok(None);
        }
        let mut inputs = vec![self.values[x]];
        let mut states = [false; 2];
        for (state, at) in states.iter_mut().zip([HIDDEN, CELL]) {
            if let Some(operand) = given(at) {
                let Some(id) = self.operand(operand)? else { return Ok(None) };
                inputs.push(id);
                *state = true;
            }
        }
        let op = Recurrent {
            cell,
            backwards,
            weights: [w.clone(), r.clone()],
            bias,
            states,
            inputs: inputs
                .iter()
                .map(|&id| self.builder.fact(id).expect("facts are known at import").clone())
                .collect(),
            outputs: node.outputs.iter().map(|&o| self.facts[o].clone()).collect(),
        };
        Ok(Some(self.builder.push(op, &inputs)?))
    }
}

/// Whether these activations are the usual ones, in each direction.
fn usual(cell: Cell, names: &[String]) -> bool {
    let usual: &[&str] = if cell == Cell::Lstm { &["sigmoid", "tanh", "tanh"] } else { &["sigmoid", "tanh"] };
    names.iter().zip(usual.iter().cycle()).all(|(name, usual)| name.eq_ignore_ascii_case(usual))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::SessionOptions;
    use crate::onnx::encode::Message;
    use crate::onnx::{External, Interpreter, ModelProto, Network};
    use crate::ops::Array;

    fn message(fill: impl FnOnce(&mut Message)) -> Message {
        let mut m = Message::default();
        fill(&mut m);
        m
    }

    fn floats(dims: &[usize], seed: usize) -> Array {
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0;
        Array::vector((0..dims.iter().product()).map(value).collect()).with_dims(dims).unwrap()
    }

    fn tensor(name: &str, array: &Array) -> Message {
        message(|m| {
            m.ints(1, array.dims().iter().map(|&d| d as i64));
            m.int(2, 1);
            m.text(8, name);
            m.bytes(9, bytemuck::cast_slice(array.elements::<f32>().unwrap()));
        })
    }

    fn input(name: &str, dims: &[usize]) -> Message {
        let shape = message(|m| dims.iter().for_each(|&d| m.message(1, &message(|m| m.int(1, d as i64)))));
        let tensor = message(|m| {
            m.int(1, 1);
            m.message(2, &shape);
        });
        message(|m| {
            m.text(1, name);
            m.message(2, &message(|m| m.message(1, &tensor)));
        })
    }

    #[derive(Debug, Clone)]
    struct Layer {
        op: &'static str,
        direction: &'static str,
        linear: bool,
        bias: bool,
        state: bool,
        sizes: [usize; 4],
    }

    impl Layer {
        fn model(&self) -> Vec<u8> {
            let (gates, outputs) = if self.op == "LSTM" { (4, 3) } else { (3, 2) };
            let directions = if self.direction == "bidirectional" { 2 } else { 1 };
            let [steps, batch, inputs, hidden] = self.sizes;
            let mut constants = vec![
                ("w", floats(&[directions, gates * hidden, inputs], 1)),
                ("r", floats(&[directions, gates * hidden, hidden], 2)),
            ];
            if self.bias {
                constants.push(("b", floats(&[directions, 2 * gates * hidden], 3)));
            }
            if self.state {
                constants.push(("c", floats(&[directions, batch, hidden], 4)));
            }
            let node = message(|m| {
                m.text(1, "x");
                let bias = if self.bias { "b" } else { "" };
                let (h, c) = if self.state { ("h", "c") } else { ("", "") };
                ["w", "r", bias, "", h].iter().for_each(|name| m.text(1, name));
                if self.op == "LSTM" {
                    m.text(1, c);
                }
                ["y", "last", "cell"][..outputs].iter().for_each(|name| m.text(2, name));
                m.text(4, self.op);
                m.message(
                    5,
                    &message(|m| {
                        m.text(1, "direction");
                        m.text(4, self.direction);
                        m.int(20, 3);
                    }),
                );
                m.message(
                    5,
                    &message(|m| {
                        m.text(1, "hidden_size");
                        m.int(3, hidden as i64);
                        m.int(20, 2);
                    }),
                );
                if self.linear {
                    m.message(
                        5,
                        &message(|m| {
                            m.text(1, "linear_before_reset");
                            m.int(3, 1);
                            m.int(20, 2);
                        }),
                    );
                }
            });
            let graph = message(|m| {
                m.message(1, &node);
                m.text(2, "g");
                constants.iter().for_each(|(name, array)| m.message(5, &tensor(name, array)));
                m.message(11, &input("x", &[steps, batch, inputs]));
                if self.state {
                    m.message(11, &input("h", &[directions, batch, hidden]));
                }
                ["y", "last", "cell"][..outputs].iter().for_each(|name| m.message(12, &message(|m| m.text(1, name))));
            });
            let opset = message(|m| m.int(2, 14));
            let model = message(|m| {
                m.int(1, 7);
                m.message(7, &graph);
                m.message(8, &opset);
            });
            model.into_bytes()
        }
    }

    fn layers() -> impl Strategy<Value = Layer> {
        let op = prop_oneof![Just(("LSTM", false)), Just(("GRU", false)), Just(("GRU", true))];
        let direction = prop_oneof![Just("forward"), Just("reverse"), Just("bidirectional")];
        let sizes = (1usize..6, 1usize..4, 1usize..20, 1usize..20);
        (op, direction, any::<(bool, bool)>(), sizes).prop_map(
            |((op, linear), direction, (bias, state), (t, n, i, h))| Layer {
                op,
                direction,
                linear,
                bias,
                state,
                sizes: [t, n, i, h],
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn compiled_layers_compute_what_interpreted_ones_do(layer in layers()) {
            let bytes = layer.model();
            let directions = if layer.direction == "bidirectional" { 2 } else { 1 };
            let [steps, batch, inputs, hidden] = layer.sizes;
            let mut given = vec![floats(&[steps, batch, inputs], 5)];
            if layer.state {
                given.push(floats(&[directions, batch, hidden], 6));
            }
            let names = ["x", "h"];
            let named: Vec<(&str, Array)> = names.iter().copied().zip(given.iter().cloned()).collect();
            let expected = Interpreter::new(ModelProto::read(&bytes).unwrap(), External::Refused).unwrap().run(named).unwrap();
            let network = Network::from_bytes(bytes.clone()).unwrap();
            let mut session = network.compile(&[], &SessionOptions::default().threads(2)).unwrap();
            let steps = session.session().unwrap().explain();
            prop_assert!(!steps.contains("interpreted"), "{steps}");
            for _ in 0..2 {
                let outputs = session.run(&given).unwrap();
                for (a, (_, e)) in outputs.iter().zip(&expected) {
                    prop_assert_eq!(a.dims(), e.dims());
                    let (a, e) = (a.elements::<f32>().unwrap(), e.elements::<f32>().unwrap());
                    for (a, e) in a.iter().zip(e) {
                        prop_assert!((a - e).abs() < 2e-5, "{a}, not {e}");
                    }
                }
            }
        }
    }
}
