//! Models of a few nodes, which tests compile and interpret.

use proptest::prelude::*;

use crate::SessionOptions;
use crate::onnx::encode::Message;
use crate::onnx::{External, Interpreter, ModelProto, Network};
pub(super) use crate::ops::Array;

fn message(fill: impl FnOnce(&mut Message)) -> Message {
    let mut m = Message::default();
    fill(&mut m);
    m
}

/// Floats from -1 to 1.
pub(super) fn floats(dims: &[usize], seed: usize) -> Array {
    let value = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0;
    Array::vector((0..dims.iter().product()).map(value).collect()).with_dims(dims).unwrap()
}

/// A constant of floats.
pub(super) fn tensor(name: &str, array: &Array) -> Message {
    message(|m| {
        m.ints(1, array.dims().iter().map(|&d| d as i64));
        m.int(2, 1);
        m.text(8, name);
        m.bytes(9, bytemuck::cast_slice(array.elements::<f32>().unwrap()));
    })
}

/// An input of ONNX's type number `element`; an extent of 0 may be any.
pub(super) fn input(name: &str, dims: &[usize], element: i64) -> Message {
    let dim = |d: usize| message(|m| if d > 0 { m.int(1, d as i64) } else { m.text(2, "any") });
    let shape = message(|m| dims.iter().for_each(|&d| m.message(1, &dim(d))));
    let tensor = message(|m| {
        m.int(1, element);
        m.message(2, &shape);
    });
    message(|m| {
        m.text(1, name);
        m.message(2, &message(|m| m.message(1, &tensor)));
    })
}

/// A constant of whole numbers.
pub(super) fn ints(name: &str, dims: &[usize], values: &[i32]) -> Message {
    message(|m| {
        m.ints(1, dims.iter().map(|&d| d as i64));
        m.int(2, 6);
        m.text(8, name);
        m.bytes(9, bytemuck::cast_slice(values));
    })
}

/// An attribute of ONNX's type number `kind`.
pub(super) fn attribute(name: &str, kind: i64, fill: impl FnOnce(&mut Message)) -> Message {
    message(|m| {
        m.text(1, name);
        fill(m);
        m.int(20, kind);
    })
}

/// A node without a name.
pub(super) fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Message]) -> Message {
    message(|m| {
        inputs.iter().for_each(|name| m.text(1, name));
        outputs.iter().for_each(|name| m.text(2, name));
        m.text(4, op);
        attributes.iter().for_each(|attribute| m.message(5, attribute));
    })
}

/// The bytes of a model.
pub(super) fn model(
    opset: i64,
    nodes: &[Message],
    constants: &[Message],
    inputs: &[Message],
    outputs: &[&str],
) -> Vec<u8> {
    let graph = message(|m| {
        nodes.iter().for_each(|node| m.message(1, node));
        m.text(2, "g");
        constants.iter().for_each(|constant| m.message(5, constant));
        inputs.iter().for_each(|input| m.message(11, input));
        outputs.iter().for_each(|name| m.message(12, &message(|m| m.text(1, name))));
    });
    let model = message(|m| {
        m.int(1, 7);
        m.message(7, &graph);
        m.message(8, &message(|m| m.int(2, opset)));
    });
    model.into_bytes()
}

/// What the interpreter computes.
pub(super) fn interpreted(model: &[u8], inputs: Vec<(&str, Array)>) -> Vec<(String, Array)> {
    let model = ModelProto::read(model).unwrap();
    let outputs = Interpreter::new(model, External::Refused).unwrap().run(inputs).unwrap();
    outputs.into_iter().map(|(name, array)| (name.to_string(), array)).collect()
}

pub(super) fn close(outputs: &[Array], expected: &[(String, Array)]) -> Result<(), TestCaseError> {
    for (a, (_, e)) in outputs.iter().zip(expected) {
        prop_assert_eq!(a.dims(), e.dims());
        let (a, e) = (a.elements::<f32>().unwrap(), e.elements::<f32>().unwrap());
        let most = e.iter().fold(1.0f32, |most, e| most.max(e.abs()));
        for (a, e) in a.iter().zip(e) {
            prop_assert!((a - e).abs() < 2e-5 * most, "{a}, not {e}");
        }
    }
    Ok(())
}

/// Holds a compiled model, no node of which may be interpreted, against the interpreter: twice, on one thread and on two, which agree in
/// each bit.
pub(super) fn compiles_to_the_same(model: &[u8], inputs: Vec<(&str, Array)>) -> Result<(), TestCaseError> {
    let given: Vec<Array> = inputs.iter().map(|(_, array)| array.clone()).collect();
    let expected = interpreted(model, inputs);
    let network = Network::from_bytes(model.to_vec()).unwrap();
    let mut first = None;
    for threads in [1, 2] {
        let mut session = network.compile(&[], &SessionOptions::default().threads(threads)).unwrap();
        let steps = session.session().unwrap().explain();
        prop_assert!(!steps.contains("interpreted"), "{steps}");
        for _ in 0..2 {
            let outputs = session.run(&given).unwrap();
            close(&outputs, &expected)?;
            prop_assert_eq!(first.get_or_insert_with(|| outputs.clone()), &outputs);
        }
    }
    Ok(())
}
