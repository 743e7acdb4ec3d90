//! ONNX files: reading any bytes is an error in one line or a model whose constants have the stated extents.

use swath::onnx::{External, Interpreter, ModelProto, TensorProto};

/// Reads the bytes as a model, and as a constant.
pub fn run(bytes: &[u8]) {
    if let Ok(tensor) = TensorProto::read(bytes)
        && let Ok(array) = tensor.array(&External::Refused)
    {
        assert_eq!(array.len(), array.dims().iter().product::<usize>());
    }
    match ModelProto::read(bytes) {
        Ok(model) => match Interpreter::new(model, External::Refused) {
            Ok(ready) => assert!(ready.model().graph.nodes.len() <= bytes.len()),
            Err(e) => assert!(!e.to_string().is_empty()),
        },
        Err(e) => assert!(!e.to_string().contains('\n'), "{e}"),
    }
}
