//! ONNX files: reading any bytes is an error in one line or a model whose constants have the stated extents; importing what was read is an
//! error or a graph.

use swath::onnx::{Dimension, External, Interpreter, ModelProto, Network, TensorProto, ValueType};

/// The most elements of an input of a model that is imported: what is larger is slow, and no other.
const MOST: usize = 1 << 16;

/// Reads the bytes as a model, and as a constant.
pub fn run(bytes: &[u8]) {
    if let Ok(tensor) = TensorProto::read(bytes)
        && let Ok(array) = tensor.array(&External::Refused)
    {
        assert_eq!(array.len(), array.dims().iter().product::<usize>());
    }
    match ModelProto::read(bytes) {
        Ok(model) => {
            if model.graph.inputs.iter().all(|input| is_small(&input.ty)) {
                import(bytes);
            }
            match Interpreter::new(model, External::Refused) {
                Ok(ready) => assert!(ready.model().graph.nodes.len() <= bytes.len()),
                Err(e) => assert!(!e.to_string().is_empty()),
            }
        }
        Err(e) => assert!(!e.to_string().contains('\n'), "{e}"),
    }
}

fn is_small(ty: &ValueType<'_>) -> bool {
    let ValueType::Tensor { dims: Some(dims), .. } = ty else { return true };
    let size = |d: &Dimension<'_>| if let Dimension::Fixed(d) = d { *d } else { 1 };
    dims.iter().try_fold(1usize, |n, d| n.checked_mul(size(d))).is_some_and(|n| n <= MOST)
}

fn import(bytes: &[u8]) {
    let network = Network::from_bytes(bytes.to_vec()).expect("the same bytes are a model");
    match network.graph(&[]) {
        Ok(graph) => assert!(!graph.state().any(|(name, _)| name.is_empty())),
        Err(e) => assert!(!e.to_string().contains('\n'), "{e}"),
    }
}
