//! Models as ONNX files: what the importer makes of them computes the same.
#![cfg(feature = "onnx")]

use swath::graph::ops::{Dropout as DropoutOp, Expand, PRelu, Reduce, Reshape, Softmax as SoftmaxOp, Transpose};
use swath::graph::{Fact, Graph, Operator};
use swath::nn::*;
use swath::onnx::{Dimension, ModelProto, Network, ValueType, export, export_for};
use swath::ops::Array;
use swath::{Model, Tensor, Value, zoo};

fn wave(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 % 1013) as f32 * 0.37).sin() * 2.0).collect()
}

/// The model's outputs as they are, and from its file, for an input of the same and of another batch where that is open.
fn check(model: &Model, dims: &[usize]) -> Result<(), String> {
    let bytes = export(model, dims).map_err(|e| e.to_string())?;
    let file = ModelProto::read(&bytes).map_err(|e| e.to_string())?;
    let ValueType::Tensor { dims: Some(declared), .. } = &file.graph.inputs[0].ty else {
        return Err("no shape".into());
    };
    let mut all = vec![dims.to_vec()];
    if declared[0] == Dimension::Named("batch") {
        all.push([&[dims[0] + 2], &dims[1..]].concat());
    }
    let network = Network::from_bytes(bytes.clone()).map_err(|e| e.to_string())?;
    for dims in all {
        let x = wave(dims.iter().product());
        let expected = model.compile(&dims).unwrap().run(&x[..]).unwrap().clone();
        let mut session = network.compile(&[("input", &dims)], &Default::default()).map_err(|e| e.to_string())?;
        let y = session.run(&[Array::vector(x).with_dims(dims.clone()).unwrap()]).map_err(|e| e.to_string())?;
        if y[0].dims() != expected.dims() {
            return Err(format!("{:?} instead of {:?}", y[0].dims(), expected.dims()));
        }
        let largest = expected.as_slice().iter().fold(1e-3f32, |m, v| m.max(v.abs()));
        for (i, (a, b)) in y[0].elements::<f32>().unwrap().iter().zip(expected.as_slice()).enumerate() {
            if (a - b).abs() > 2e-5 * largest || a.is_nan() {
                return Err(format!("element {i} of {dims:?} is {a} instead of {b}"));
            }
        }
    }
    Ok(())
}

#[track_caller]
fn same(layer: impl Module, dims: &[usize]) {
    if let Err(e) = check(&layer.build(3).unwrap(), dims) {
        panic!("{e}");
    }
}

/// Running statistics that are no identity.
fn stir(model: &mut Model) {
    let names: Vec<(String, Vec<usize>)> = model.state().map(|(n, t)| (n.to_string(), t.dims().to_vec())).collect();
    for (name, dims) in names.iter().filter(|(name, _)| name.contains("running_")) {
        let values: Vec<f32> = wave(dims[0]).iter().map(|v| 1.0 + v.abs() / 4.0).collect();
        model.set_parameter(name, &Tensor::new(dims, &values).unwrap()).unwrap();
    }
}

#[test]
fn networks_of_the_zoo() {
    // VGG-16's operators are among the others'; its weights are half a gigabyte.
    for (name, side) in [("resnet18", 64), ("mobilenet_v1", 64), ("mobilenet_v2", 64), ("squeezenet", 64)] {
        let mut model = zoo::find(name).unwrap().build(1).unwrap();
        stir(&mut model);
        check(&model, &[1, 3, side, side]).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    // Its smallest image takes 5 GFLOP: the file alone.
    let bytes = export(&zoo::unet(2).build(1).unwrap(), [1, 1, 188, 188]).unwrap();
    let file = ModelProto::read(&bytes).unwrap();
    let count = |op: &str| file.graph.nodes.iter().filter(|n| n.op_type == op).count();
    assert_eq!(["Conv", "ConvTranspose", "MaxPool", "Slice", "Concat"].map(count), [19, 4, 4, 4, 4]);
}

#[test]
fn the_cnn_for_mnist_keeps_the_names_of_its_weights() {
    let model = Sequential::new((
        Conv2d::new(1, 16, 3).padding(1).named("conv1"),
        ReLU,
        MaxPool2d::new(2),
        Conv2d::new(16, 32, 3).padding(1).named("conv2"),
        ReLU,
        MaxPool2d::new(2),
        Flatten,
        Linear::new(32 * 7 * 7, 10).named("fc"),
    ))
    .build(0)
    .unwrap();
    check(&model, &[2, 1, 28, 28]).unwrap();
    let bytes = export(&model, [1, 1, 28, 28]).unwrap();
    let file = ModelProto::read(&bytes).unwrap();
    let network = Network::from_bytes(bytes.clone()).unwrap();
    let dims: &[(&str, &[usize])] = &[("input", &[2, 1, 28, 28])];
    let session = network.compile(dims, &Default::default()).unwrap();
    assert_eq!(session.flop(), model.graph().flop(&[2, 1, 28, 28]).unwrap());
    let layers = model.graph().convolutions("cnn", &[2, 1, 28, 28]).unwrap().into_iter().map(|p| (p.shape, p.times));
    assert_eq!(network.convolutions(dims).unwrap(), layers.collect::<Vec<_>>());
    let names: Vec<&str> = file.graph.initializers.iter().map(|t| t.name).collect();
    assert!(names.iter().copied().eq(model.state().map(|(name, _)| name)), "{names:?}");
    let nodes: Vec<&str> = file.graph.nodes.iter().map(|n| n.op_type).collect();
    assert_eq!(nodes, ["Conv", "Relu", "MaxPool", "Conv", "Relu", "MaxPool", "Flatten", "Gemm"]);
    assert_eq!((file.producer_name, file.opset(""), file.graph.outputs[0].name), ("swath", Some(17), "output"));
}

#[test]
fn convolutions() {
    same(Conv2d::new(4, 6, [3, 2]).stride([2, 1]).padding([1, 0]).dilation([1, 2]).groups(2), &[1, 4, 9, 8]);
    same(Conv2d::new(3, 3, 3).padding([0, 1, 2, 1]).bias(false), &[2, 3, 6, 5]);
    same(ConvTranspose2d::new(4, 6, 3).stride(2).padding(1).output_padding(1).groups(2), &[1, 4, 5, 4]);
    same(ConvTranspose2d::new(3, 5, [2, 3]).stride([2, 3]), &[1, 3, 4, 3]);
    same(Sequential::new((Flatten, Linear::new(24, 5), ReLU, Linear::new(5, 2).bias(false))), &[2, 2, 3, 4]);
}

#[test]
fn pooling() {
    same(MaxPool2d::new([3, 2]).stride([2, 1]).padding([1, 0]), &[1, 2, 7, 6]);
    same(MaxPool2d::new(2).dilation(2).stride(1), &[1, 2, 7, 6]);
    for (h, w) in [(7, 6), (8, 9), (5, 5)] {
        same(MaxPool2d::new(3).stride(2).ceil_mode(true), &[1, 2, h, w]);
        same(MaxPool2d::new(3).stride(2).padding(1).ceil_mode(true), &[1, 2, h, w]);
        for counted in [false, true] {
            same(AvgPool2d::new(3).stride(2).padding(1).count_include_pad(counted), &[1, 2, h, w]);
            same(AvgPool2d::new(3).stride(2).padding(1).ceil_mode(true).count_include_pad(counted), &[1, 2, h, w]);
        }
        same(AvgPool2d::new([2, 3]).stride(2).padding(1).divisor_override(5), &[1, 2, h, w]);
        same(AvgPool2d::new(2).ceil_mode(true).divisor_override(3), &[1, 2, h, w]);
        same(AdaptiveAvgPool2d::new([2, 3]), &[1, 2, h, w]);
        same(AdaptiveAvgPool2d::new(1), &[1, 2, h, w]);
        same(AdaptiveMaxPool2d::new([2, 3]), &[1, 2, h, w]);
        same(AdaptiveMaxPool2d::new(1), &[1, 2, h, w]);
    }
    same(AdaptiveMaxPool2d::new([2, 3]), &[1, 2, 8, 9]);
    same(AdaptiveAvgPool2d::new([2, 3]), &[1, 2, 8, 9]);
}

#[test]
fn activations() {
    let layers: [Box<dyn Module>; 22] = [
        ReLU.boxed(),
        ReLU6.boxed(),
        Hardtanh::new(-0.5, 1.5).boxed(),
        LeakyReLU::new(0.2).boxed(),
        ELU::new(0.7).boxed(),
        SELU.boxed(),
        CELU::new(0.7).boxed(),
        Sigmoid.boxed(),
        Tanh.boxed(),
        GELU::new().boxed(),
        (|x: &Value| Ok(x.activation(swath::Activation::GeluTanh))).boxed(),
        SiLU.boxed(),
        Mish.boxed(),
        Softplus::default().boxed(),
        (|x: &Value| Ok(x.activation(swath::Activation::Softplus { beta: 2.0, threshold: 1.0 }))).boxed(),
        Hardsigmoid.boxed(),
        Hardswish.boxed(),
        Softmax::new(1).boxed(),
        LogSoftmax::new(1).boxed(),
        Dropout::new(0.5).boxed(),
        Identity.boxed(),
        (|x: &Value| {
            let slopes = x.constant(Tensor::new([3], &[0.1, 0.2, 0.3])?);
            Ok(x.push(PRelu, &[x, &slopes]))
        })
        .boxed(),
    ];
    for (i, layer) in layers.iter().enumerate() {
        let model = Graph::record(|x| layer.call(x)).and_then(|g| Model::new(g, 0)).unwrap();
        check(&model, &[1, 3, 4, 5]).unwrap_or_else(|e| panic!("activation {i}: {e}"));
    }
}

#[test]
fn arithmetic_views_and_sums() {
    same(|x: &Value| Ok(&(&(x + x) * x) / &x.constant(Tensor::new([1], &[3.0])?)), &[1, 2, 3, 4]);
    same(|x: &Value| Ok(x - &x.push(Reduce::mean(&[2, 3], true), &[x])), &[2, 2, 3, 4]);
    same(|x: &Value| Ok(x.push(Reduce::sum(&[-1], false), &[x])), &[2, 2, 3, 4]);
    same(|x: &Value| Ok(x.push(Reduce::mean(&[], true), &[x])), &[2, 2, 3, 4]);
    same(|x: &Value| Ok(x.concat(&[x, &x.relu()])), &[1, 2, 3, 4]);
    same(|x: &Value| Ok(x.push(Reshape::new(&[-1, 6, 4]), &[x])), &[1, 2, 3, 4]);
    same(|x: &Value| Ok(x.push(Transpose::new(&[0, 3, 1, 2]), &[x])), &[2, 2, 3, 4]);
    same(|x: &Value| Ok(x.push(Expand { dims: vec![2, 2, 3, 4] }, &[x])), &[2, 2, 1, 4]);
    same(|x: &Value| Ok(x.push(SoftmaxOp { log: false, dim: 1 }, &[x])), &[2, 7]);
    same(|x: &Value| Ok(x.push(DropoutOp { p: 0.5, channels: true }, &[x]).relu()), &[2, 7]);
    same(Crop::new([0, 1, 2, 1]), &[1, 2, 5, 6]);
    same(CenterCrop::new([2, 3]), &[1, 2, 5, 6]);
    for mode in [PaddingMode::Reflect, PaddingMode::Replicate, PaddingMode::Circular] {
        same(Conv2d::new(2, 2, 3).padding([1, 2]).padding_mode(mode), &[1, 2, 5, 6]);
    }
    same(ConstantPad2d::new([1, 0, 2, 1], 0.5), &[2, 2, 3, 4]);
    same(PixelShuffle::new(2), &[2, 8, 3, 4]);
    same(PixelUnshuffle::new(2), &[2, 2, 6, 4]);
}

#[test]
fn interpolation() {
    use UpsampleMode::{Bicubic, Bilinear, Nearest, NearestExact};
    for mode in [Nearest, NearestExact, Bilinear, Bicubic] {
        for corners in [false, true] {
            if corners && matches!(mode, Nearest | NearestExact) {
                continue;
            }
            let with = |layer: Upsample| layer.mode(mode).align_corners(corners);
            same(with(Upsample::new([2, 3])), &[1, 2, 3, 4]);
            same(with(Upsample::size([5, 3])), &[2, 2, 3, 7]);
            same(with(Upsample::scale_factor([1.5, 0.7])), &[1, 2, 5, 10]);
        }
    }
}

#[test]
fn normalisations() {
    same(GroupNorm::new(2, 6), &[2, 6, 3, 4]);
    same(GroupNorm::new(3, 6).affine(false), &[2, 6, 3, 4]);
    same(InstanceNorm2d::new(3), &[2, 3, 4, 5]);
    same(InstanceNorm2d::new(3).affine(true), &[2, 3, 4, 5]);
    same(LayerNorm::new([4, 5]), &[2, 3, 4, 5]);
    same(LayerNorm::new([5]).elementwise_affine(false), &[2, 3, 5]);
}

#[test]
fn several_inputs_and_outputs_have_their_names() {
    let graph = Graph::record_many(&["a", "b"], &["sum", "again", "a_too"], |x| {
        let sum = &x[0] + &x[1];
        Ok(vec![sum.clone(), sum, x[0].clone()])
    })
    .unwrap();
    let model = Model::new(graph, 0).unwrap();
    let bytes = export_for(&model, &[Fact::f32([2, 3]), Fact::f32([2, 3])]).unwrap();
    let network = Network::from_bytes(bytes).unwrap();
    let mut session = network.compile(&[("a", &[4, 3]), ("b", &[4, 3])], &Default::default()).unwrap();
    assert!(session.output_names().eq(["sum", "again", "a_too"]));
    let x = [1.0f32, 2.0].map(|v| Array::vector(vec![v; 12]).with_dims([4, 3]).unwrap());
    let y: Vec<f32> = session.run(&x).unwrap().iter().map(|y| y.elements::<f32>().unwrap()[11]).collect();
    assert_eq!(y, [3.0, 3.0, 1.0]);
    let twice = Graph::record_many(&["a"], &["b", "b"], |x| Ok(vec![x[0].relu(), x[0].relu()])).unwrap();
    let e = export(&Model::new(twice, 0).unwrap(), [1, 2]).unwrap_err().to_string();
    assert!(e.contains(r#"["a", "b", "b"]"#), "{e}");
}

#[test]
fn a_batch_that_operators_hold_is_fixed() {
    let batch = |model: &Model, dims: &[usize]| {
        let bytes = export(model, dims).unwrap();
        let file = ModelProto::read(&bytes).unwrap();
        let ValueType::Tensor { dims: Some(dims), .. } = &file.graph.outputs[0].ty else { panic!("no shape") };
        match dims[0] {
            Dimension::Named(name) => name.to_string(),
            other => format!("{other:?}"),
        }
    };
    let open = (|x: &Value| Ok(x.relu())).build(0).unwrap();
    assert_eq!(batch(&open, &[3, 4]), "batch");
    let held = (|x: &Value| Ok(x.push(Reshape::new(&[3, 2, 2]), &[x]))).build(0).unwrap();
    assert_eq!(batch(&held, &[3, 4]), "Fixed(3)");
    let lost = (|x: &Value| Ok(x.push(Reduce::sum(&[0], false), &[x]))).build(0).unwrap();
    assert_eq!(batch(&lost, &[3, 4]), "Fixed(4)");
}

/// An operator of somebody's own.
#[derive(Debug)]
struct Own;

impl Operator for Own {
    fn name(&self) -> &'static str {
        "Own"
    }

    fn dims(&self, inputs: &[&[usize]]) -> swath::Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, _: &swath::graph::Group, _: &mut swath::graph::Lower<'_>) -> swath::Result<()> {
        Ok(())
    }
}

#[test]
fn everything_that_cannot_be_written_is_listed() {
    let net = |x: &Value| {
        let y = x.push(Own, &[x]);
        y.scope("head", |y| Ok(y.relu().push(Own, &[y])))
    };
    let e = export(&net.build(0).unwrap(), [1, 2]).unwrap_err().to_string();
    let nodes = "node 1 (Own): ONNX has no such operator; node 3 (Own) of layer `head`: ONNX has no such operator";
    assert_eq!(e, format!("the ONNX file: 2 nodes cannot be written: {nodes}"));
}
