//! The reader of ONNX files: hand-made files with every form that real exporters write, the files of the `onnx` package
//! (folder in `SWATH_ONNX_TESTS`), and damage of every kind.
#![cfg(feature = "onnx")]

use std::path::{Path, PathBuf};

use swath::onnx::{AttributeValue, Dimension, External, ModelProto, Network, TensorProto, ValueType};
use swath::ops::{Array, ElementType};

/// Writes protobuf messages.
#[derive(Clone, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn int(self, field: u64, value: i64) -> Self {
        self.varint(field << 3).varint(value as u64)
    }

    fn bytes(self, field: u64, bytes: &[u8]) -> Self {
        let mut this = self.varint(field << 3 | 2).varint(bytes.len() as u64);
        this.0.extend_from_slice(bytes);
        this
    }

    fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u64, message: Message) -> Self {
        self.bytes(field, &message.0)
    }

    fn float(self, field: u64, value: f32) -> Self {
        let mut this = self.varint(field << 3 | 5);
        this.0.extend_from_slice(&value.to_le_bytes());
        this
    }

    fn packed(self, field: u64, values: &[i64]) -> Self {
        let packed = values.iter().fold(Message::default(), |m, &v| m.varint(v as u64));
        self.bytes(field, &packed.0)
    }
}

fn message() -> Message {
    Message::default()
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Message {
    let m = inputs.iter().fold(message(), |m, i| m.text(1, i));
    outputs.iter().fold(m, |m, o| m.text(2, o)).text(4, op)
}

fn model(graph: Message) -> Vec<u8> {
    message().int(1, 8).message(7, graph).message(8, message().int(2, 13)).0
}

fn tensor(name: &str, dims: &[i64], ty: i64) -> Message {
    dims.iter().fold(message(), |m, &d| m.int(1, d)).int(2, ty).text(8, name)
}

fn read(tensor: &Message) -> Result<Array, String> {
    let tensor = TensorProto::read(&tensor.0).map_err(|e| e.to_string())?;
    tensor.array(&External::Refused).map_err(|e| e.to_string())
}

#[test]
fn a_model_is_read() {
    let attribute = |name, ty| message().text(1, name).int(20, ty);
    let conv = node("Conv", &["x", "w", ""], &["y"])
        .text(3, "first")
        .text(7, "ai.onnx")
        .message(5, attribute("strides", 7).packed(8, &[2, 1]))
        .message(5, attribute("pads", 7).int(8, 1).int(8, -1))
        .message(5, attribute("auto_pad", 3).text(4, "VALID"))
        .message(5, attribute("alpha", 1).float(2, 0.5))
        .message(5, attribute("scales", 6).float(7, 1.0).float(7, 2.0))
        .message(5, attribute("zero", 2));
    let dim = |d: Message| message().message(1, d);
    let shape = Message(
        [dim(message().int(1, 1)).0, dim(message().text(2, "h/2 - 1")).0, dim(message().int(1, -1)).0].concat(),
    );
    let input = message().text(1, "x").message(2, message().message(1, message().int(1, 1).message(2, shape)));
    let graph = message()
        .text(2, "net")
        .message(1, conv)
        .message(5, tensor("w", &[2], 1).bytes(9, &[0, 0, 128, 63, 0, 0, 0, 64]))
        .message(11, input)
        // As old files repeat it.
        .message(11, message().text(1, "w"))
        .message(12, message().text(1, "y"))
        .text(10, "unread");
    let bytes = model(graph);
    let model = ModelProto::read(&bytes).unwrap();
    assert_eq!((model.ir_version, model.opset(""), model.opset("ai.onnx")), (8, Some(13), Some(13)));
    let node = &model.graph.nodes[0];
    assert_eq!((node.op_type, node.name, node.domain), ("Conv", "first", ""));
    assert_eq!((&node.inputs[..], &node.outputs[..]), (&["x", "w", ""][..], &["y"][..]));
    assert!(matches!(node.attribute("strides"), Some(AttributeValue::Ints(v)) if v == &[2, 1]));
    assert!(matches!(node.attribute("pads"), Some(AttributeValue::Ints(v)) if v == &[1, -1]));
    assert!(matches!(node.attribute("auto_pad"), Some(AttributeValue::Bytes(b"VALID"))));
    assert!(matches!(node.attribute("alpha"), Some(AttributeValue::Float(0.5))));
    assert!(matches!(node.attribute("scales"), Some(AttributeValue::Floats(v)) if v == &[1.0, 2.0]));
    assert!(matches!(node.attribute("zero"), Some(AttributeValue::Int(0))));
    assert!(node.attribute("absent").is_none());
    let dims = vec![Dimension::Fixed(1), Dimension::Named("h/2 - 1"), Dimension::Unknown];
    assert_eq!(model.graph.inputs[0].ty, ValueType::Tensor { element: Some(ElementType::F32), dims: Some(dims) });
    assert!(model.graph.free_inputs().map(|i| i.name).eq(["x"]) && model.graph.inputs.len() == 2);
    let weights = model.graph.initializers[0].array(&External::Refused).unwrap();
    assert_eq!(weights.elements::<f32>(), Some(&[1.0, 2.0][..]));
}

#[test]
fn attributes_without_a_type_are_told_by_their_fields() {
    let attributes = [
        message().text(1, "a").int(3, 7),
        message().text(1, "b").float(2, 1.5),
        message().text(1, "c").int(8, 1).int(8, 2),
        message().text(1, "d").text(4, "same"),
    ];
    let node = attributes.into_iter().fold(node("Old", &[], &[]), |n, a| n.message(5, a));
    let bytes = model(message().message(1, node));
    let model = ModelProto::read(&bytes).unwrap();
    let node = &model.graph.nodes[0];
    assert!(matches!(node.attribute("a"), Some(AttributeValue::Int(7))));
    assert!(matches!(node.attribute("b"), Some(AttributeValue::Float(1.5))));
    assert!(matches!(node.attribute("c"), Some(AttributeValue::Ints(v)) if v == &[1, 2]));
    assert!(matches!(node.attribute("d"), Some(AttributeValue::Bytes(b"same"))));
}

#[test]
fn elements_are_read_from_every_field_that_the_format_has() {
    let bits = |v: f32| half::f16::from_f32(v).to_bits();
    let cases = [
        (tensor("", &[2], 1).float(4, 1.0).float(4, -2.5), Array::vector(vec![1.0f32, -2.5])),
        (tensor("", &[2], 1).bytes(4, &[0, 0, 128, 63, 0, 0, 0, 192]), Array::vector(vec![1.0f32, -2.0])),
        (tensor("", &[2], 7).packed(7, &[-1, i64::MAX]), Array::vector(vec![-1i64, i64::MAX])),
        (tensor("", &[2], 7).int(7, -1).int(7, 5), Array::vector(vec![-1i64, 5])),
        (tensor("", &[2], 6).packed(5, &[-1, 5]), Array::vector(vec![-1i32, 5])),
        (tensor("", &[2], 3).packed(5, &[-128, 127]), Array::vector(vec![-128i8, 127])),
        (tensor("", &[2], 2).packed(5, &[255, 0]), Array::vector(vec![255u8, 0])),
        (tensor("", &[2], 9).packed(5, &[1, 0]), Array::vector(vec![true, false])),
        (tensor("", &[1], 10).packed(5, &[i64::from(bits(1.5))]), Array::vector(vec![half::f16::from_f32(1.5)])),
        (tensor("", &[1], 16).packed(5, &[0x3fc0]), Array::vector(vec![half::bf16::from_f32(1.5)])),
        (tensor("", &[1], 13).packed(11, &[-1]), Array::vector(vec![u64::MAX])),
        (tensor("", &[1], 12).packed(11, &[7]), Array::vector(vec![7u32])),
        (tensor("", &[1], 11).bytes(10, &1.25f64.to_le_bytes()), Array::vector(vec![1.25f64])),
        (tensor("", &[], 11).bytes(9, &1.25f64.to_le_bytes()), Array::scalar(1.25f64)),
        (tensor("", &[1], 5).bytes(9, &[0xff, 0xff]), Array::vector(vec![-1i16])),
        (tensor("", &[1], 8).text(6, "word"), Array::vector(vec!["word".to_string()])),
        // Empty, as Resize's `roi`: no data at all, or an empty field of it.
        (tensor("", &[0], 1), Array::vector(Vec::<f32>::new())),
        (tensor("", &[0], 1).bytes(9, &[]), Array::vector(Vec::<f32>::new())),
        // An empty `raw_data` beside numbers.
        (tensor("", &[1], 7).bytes(9, &[]).int(7, 3), Array::vector(vec![3i64])),
    ];
    for (message, expected) in cases {
        assert_eq!(read(&message), Ok(expected));
    }
}

#[test]
fn wrong_tensors_are_refused_with_both_numbers() {
    for (message, error) in [
        (tensor("w", &[3], 1).bytes(9, &[0; 8]), "8 bytes of float elements, but its dimensions [3] make 3"),
        (tensor("w", &[3], 7).int(7, 1), "1 elements, but its dimensions [3] make 3"),
        (tensor("w", &[-3], 1), "dimension -3, but none can be negative"),
        (tensor("w", &[1 << 40, 1 << 40], 1), "dimensions [1099511627776, 1099511627776] are too many elements"),
        (tensor("w", &[1 << 60], 1), "0 elements, but its dimensions [1152921504606846976] make 1152921504606846976"),
        (tensor("w", &[1], 14).bytes(9, &[0; 8]), "elements of type COMPLEX64, which this crate lacks"),
        (tensor("w", &[1], 99), "elements of type number 99, which this crate lacks"),
        (tensor("w", &[2], 1).bytes(4, &[0; 7]), "7 bytes of 4-byte floats"),
        (tensor("w", &[1], 1).int(14, 1), "external data without a location"),
        (
            tensor("w", &[1], 1).int(14, 1).message(13, message().text(1, "location").text(2, "w.bin")),
            "elements in the file \"w.bin\": the model comes from memory, and has no folder for external data",
        ),
    ] {
        let text = read(&message).unwrap_err();
        assert!(text.contains("in tensor `w`") && text.ends_with(error), "{text:?} should end with {error:?}");
    }
}

#[test]
fn damage_names_the_node_and_the_byte() {
    let bad = node("Relu", &["x"], &["y"]).text(3, "second").int(5, 1);
    let bytes = model(message().message(1, node("Relu", &[], &[])).message(1, bad));
    let error = ModelProto::read(&bytes).unwrap_err();
    let expected = "in node 1 `second` (Relu) of the model: field 5 is a number, but should be a string of bytes";
    assert!(error.to_string().ends_with(expected), "{error}");
    assert_eq!(bytes[error.offset()..error.offset() + 2], [5 << 3, 1]);
    let error = ModelProto::read(&model(message().message(1, message().text(3, "idle")))).unwrap_err();
    assert!(error.to_string().ends_with("in node 0 `idle` of the model: it names no operator"), "{error}");
    let error = ModelProto::read(b"").unwrap_err();
    assert!(error.to_string().ends_with("there is no graph: this is no ONNX model"), "{error}");
}

#[test]
fn graphs_within_graphs_end() {
    let deep = |levels: usize| {
        let mut graph = message();
        for _ in 0..levels {
            graph = message()
                .message(1, node("If", &[], &[]).message(5, message().text(1, "then").message(6, graph).int(20, 5)));
        }
        model(graph)
    };
    assert!(ModelProto::read(&deep(10)).is_ok());
    let error = ModelProto::read(&deep(2000)).unwrap_err();
    assert!(error.problem().contains("too deep"), "{error}");
}

#[test]
fn sparse_tensors_and_functions_keep_their_names() {
    let sparse = message().message(1, tensor("few", &[1], 1).float(4, 1.0));
    let graph = message().message(15, sparse);
    let mut bytes = model(graph);
    bytes.extend(message().message(25, message().text(1, "Block").text(10, "local")).0);
    let model = ModelProto::read(&bytes).unwrap();
    assert_eq!(model.graph.sparse_initializers, ["few"]);
    assert_eq!(model.functions, ["local::Block"]);
}

#[test]
fn external_data_stays_in_the_folder() {
    let root = std::env::temp_dir().join(format!("swath-external-{}", std::process::id()));
    let folder = root.join("model");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    std::fs::write(folder.join("sub/w.bin"), [9, 9, 0, 0, 128, 63, 9]).unwrap();
    std::fs::write(root.join("secret"), [0; 4]).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(root.join("secret"), folder.join("link")).unwrap();
    let external = External::beside(&folder.join("model.onnx"));
    let read = |location: &str, offset: &str, length: &str| {
        let entry = |key, value| message().text(1, key).text(2, value);
        let m = tensor("w", &[1], 1).int(14, 1).message(13, entry("location", location));
        let m = m.message(13, entry("offset", offset)).message(13, entry("length", length));
        let tensor = TensorProto::read(&m.0).map_err(|e| e.to_string())?;
        tensor.array(&external).map_err(|e| e.to_string())
    };
    assert_eq!(read("sub/w.bin", "2", "4"), Ok(Array::vector(vec![1.0f32])));
    assert_eq!(read("./sub/w.bin", "2", "4"), Ok(Array::vector(vec![1.0f32])));
    let outside = folder.join("sub/w.bin");
    for (location, offset, length, error) in [
        ("../secret", "0", "4", "only relative paths inside the model's folder are read"),
        (outside.to_str().unwrap(), "0", "4", "only relative paths inside the model's folder are read"),
        ("sub/w.bin", "4", "4", "it has 7 bytes, but bytes 4 to 8 are asked for"),
        ("sub/w.bin", "18446744073709551615", "4", "offset and length overflow"),
        ("sub/w.bin", "0", "7", "its length is 7, but the dimensions make 4 bytes"),
        ("sub", "0", "4", "it is no regular file"),
        ("sub/w.bin", "-1", "4", "external data: offset is \"-1\", no number"),
    ] {
        let text = read(location, offset, length).unwrap_err();
        assert!(text.ends_with(error), "{text:?} should end with {error:?}");
    }
    assert!(read("absent", "0", "4").is_err());
    #[cfg(unix)]
    assert!(read("link", "0", "4").unwrap_err().ends_with("it is a link that leads out of the model's folder"));
    std::fs::remove_dir_all(root).unwrap();
}

/// A model with everything that the reader knows.
fn rich() -> Vec<u8> {
    let attribute = |name, ty| message().text(1, name).int(20, ty);
    let inner = message().message(1, node("Relu", &["x"], &["y"])).message(12, message().text(1, "y"));
    let first = node("If", &["c"], &["y"]).text(3, "branch").message(5, attribute("then_branch", 5).message(6, inner));
    let value = tensor("", &[2, 1], 7).packed(7, &[3, -3]);
    let second = node("Constant", &[], &["c"]).message(5, attribute("value", 4).message(5, value));
    let third = node("Resize", &["y", "", "s"], &["z"])
        .message(5, attribute("mode", 3).text(4, "linear"))
        .message(5, attribute("axes", 7).packed(8, &[2, 300, -1]))
        .message(5, attribute("f", 6).float(7, 1.0));
    let dims = message().message(1, message().int(1, 3)).message(1, message().text(2, "n"));
    let input = message().text(1, "x").message(2, message().message(1, message().int(1, 1).message(2, dims)));
    let entry = |key, value| message().text(1, key).text(2, value);
    let graph = message()
        .message(1, first)
        .message(1, second)
        .message(1, third)
        .message(5, tensor("w", &[3], 1).bytes(9, &[1; 12]))
        .message(5, tensor("s", &[2], 10).packed(5, &[0x3c00, 0xffff]))
        .message(
            5,
            tensor("e", &[2], 1).int(14, 1).message(13, entry("location", "e")).message(13, entry("length", "8")),
        )
        .message(11, input)
        .message(12, message().text(1, "z"));
    model(graph)
}

/// What is wrong with a model of one node, whose input `x` has these dimensions and whose constant `w` has 5 elements.
fn refused(opset: i64, op: &str, inputs: &[&str], dims: &[i64]) -> Option<String> {
    let dims = dims.iter().fold(message(), |m, &d| m.message(1, message().int(1, d)));
    let x = message().text(1, "x").message(2, message().message(1, message().int(1, 1).message(2, dims)));
    let graph = message()
        .message(1, node(op, inputs, &["y"]))
        .message(5, tensor("w", &[5], 1).bytes(9, &[0; 20]))
        .message(11, x)
        .message(12, message().text(1, "y"));
    let bytes = message().int(1, 8).message(7, graph).message(8, message().int(2, opset)).0;
    let network = Network::from_bytes(bytes).unwrap();
    network.compile(&[], &Default::default()).err().map(|e| e.to_string())
}

#[test]
fn nodes_without_an_input_that_they_need_are_errors() {
    for op in ["PRelu", "Pow", "Div", "Add", "Less", "InstanceNormalization", "MatMul", "Gemm", "Conv", "ConvTranspose"]
    {
        let e = refused(13, op, &["x"], &[1, 5, 4, 4]).unwrap();
        assert!(e.ends_with(" is missing"), "{op}: {e}");
    }
    assert_eq!(refused(13, "Max", &["x"], &[5]), None);
}

#[test]
fn slopes_of_old_files_go_with_images_alone() {
    assert_eq!(refused(6, "PRelu", &["x", "w"], &[1, 5, 4, 4]), None);
    assert_eq!(refused(6, "PRelu", &["x", "w"], &[5]), None);
}

#[test]
fn results_that_no_memory_holds_are_errors() {
    let e = refused(13, "Conv", &["x", "w"], &[1 << 62, 0, 4, 4]).unwrap();
    assert!(!e.contains('\n'), "{e}");
    let e = refused(13, "Add", &["x", "w"], &[1 << 40, 1]).unwrap();
    assert!(e.contains("input `x` a result of the dimensions [1099511627776, 1]"), "{e}");
}

/// Reads a model and all of its constants; what matters is that it ends.
fn read_all(bytes: &[u8]) {
    if let Ok(model) = ModelProto::read(bytes) {
        for tensor in &model.graph.initializers {
            let _ = tensor.array(&External::Refused);
        }
        for node in &model.graph.nodes {
            if let Some(AttributeValue::Tensor(tensor)) = node.attribute("value") {
                let _ = tensor.array(&External::Refused);
            }
        }
    }
}

/// Numbers that look random and are the same on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound
    }
}

fn damage(bytes: &[u8], flips: usize) {
    for percent in 0..100 {
        read_all(&bytes[..bytes.len() * percent / 100]);
    }
    let mut numbers = Numbers(7);
    let mut damaged = bytes.to_vec();
    for _ in 0..flips {
        let at: [usize; 3] = std::array::from_fn(|_| numbers.below(bytes.len()));
        at.iter().for_each(|&i| damaged[i] = numbers.below(256) as u8);
        read_all(&damaged);
        at.iter().for_each(|&i| damaged[i] = bytes[i]);
    }
}

#[test]
fn a_damaged_model_is_an_error_or_a_model() {
    let bytes = rich();
    assert!(ModelProto::read(&bytes).is_ok());
    (0..bytes.len()).for_each(|end| read_all(&bytes[..end]));
    damage(&bytes, 20_000);
}

/// Files of the `onnx` package below a folder, in order.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry, extension));
        } else if entry.extension().is_some_and(|e| e == extension) {
            found.push(entry);
        }
    }
    found.sort();
    found
}

#[test]
fn the_files_of_the_onnx_package_are_read() {
    let Some(folder) = std::env::var_os("SWATH_ONNX_TESTS") else {
        println!("skipped: SWATH_ONNX_TESTS names no folder (onnx/backend/test/data of the Python package)");
        return;
    };
    let models = files(Path::new(&folder), "onnx");
    assert!(models.len() > 1000, "only {} models below {folder:?}", models.len());
    for path in &models {
        let bytes = std::fs::read(path).unwrap();
        let model = ModelProto::read(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(!model.graph.outputs.is_empty() && !model.opsets.is_empty(), "{}", path.display());
    }
    for path in models.iter().step_by(100) {
        damage(&std::fs::read(path).unwrap(), 100);
    }
}
