//! Layers: names, initialisation, options, and results of PyTorch.
#![cfg(feature = "nn")]

use swath::nn::*;
use swath::{Accuracy, Error, Model, Result, SessionOptions, Tensor, Value, WeightsFile};

fn fixtures(name: &str) -> WeightsFile {
    WeightsFile::open(format!("{}/tests/fixtures/{name}.safetensors", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Runs a model on a case's `x` and compares with its `y`.
fn check(file: &WeightsFile, case: &str, model: Model, parameters: &[(&str, &str)], tolerance: f32) {
    check_output(file, case, "y", model, parameters, tolerance);
}

/// As [`check`], where the result has another name than `y`.
fn check_output(
    file: &WeightsFile,
    case: &str,
    output: &str,
    mut model: Model,
    parameters: &[(&str, &str)],
    tolerance: f32,
) {
    set(&mut model, file, case, parameters);
    compare(file, case, output, &model, Accuracy::Default, tolerance);
}

/// Sets parameters to a case's tensors.
fn set(model: &mut Model, file: &WeightsFile, case: &str, parameters: &[(&str, &str)]) {
    for (name, tensor) in parameters {
        model.set_parameter(name, &file.tensor(&format!("{case}.{tensor}")).unwrap()).unwrap();
    }
}

/// Runs a model on a case's `x` and compares with a result of it.
fn compare(file: &WeightsFile, case: &str, output: &str, model: &Model, accuracy: Accuracy, tolerance: f32) {
    let (x, y) = (file.tensor(&format!("{case}.x")).unwrap(), file.tensor(&format!("{case}.{output}")).unwrap());
    let mut session = model.compile_with(x.dims(), &SessionOptions { accuracy, ..SessionOptions::default() }).unwrap();
    let got = session.run(&x).unwrap();
    assert_eq!(got.dims(), y.dims(), "{case}");
    for (i, (a, b)) in got.as_slice().iter().zip(y.as_slice()).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{case}: element {i} is {a}, PyTorch has {b}");
    }
}

fn names(model: &Model) -> Vec<String> {
    model.parameters().map(|(name, value)| format!("{name} {:?}", value.dims())).collect()
}

#[test]
fn padding_modes_are_those_of_pytorch() {
    let file = fixtures("conv2d");
    let modes =
        [("reflect", PaddingMode::Reflect), ("replicate", PaddingMode::Replicate), ("circular", PaddingMode::Circular)];
    for (case, mode) in modes {
        let conv = Conv2d::new(5, 6, 3).padding([2, 1, 1, 2]).padding_mode(mode);
        check(&file, case, conv.build(0).unwrap(), &[("weight", "w"), ("bias", "b")], 1e-5);
    }
}

#[test]
fn every_convolution_of_the_fixtures() {
    let file = fixtures("conv2d");
    let cases: Vec<String> = file
        .names()
        .filter_map(|n| n.strip_suffix(".gw"))
        .filter(|n| n.contains(char::is_numeric))
        .map(String::from)
        .collect();
    assert_eq!(cases.len(), 112);
    for case in cases {
        let json: serde_json::Value = serde_json::from_str(file.metadata(&case).unwrap()).unwrap();
        let int = |v: &serde_json::Value| v.as_u64().unwrap() as usize;
        let list = |key: &str| json[key].as_array().unwrap().iter().map(int).collect::<Vec<_>>();
        let pair = |key: &str| <[usize; 2]>::try_from(list(key)).unwrap();
        let conv = Conv2d::new(int(&json["ic"]), int(&json["oc"]), [int(&json["kh"]), int(&json["kw"])])
            .stride(pair("stride"))
            .padding(<[usize; 4]>::try_from(list("pad_tlbr")).unwrap())
            .dilation(pair("dilation"))
            .groups(int(&json["groups"]));
        let mut model = conv.build(0).unwrap();
        set(&mut model, &file, &case, &[("weight", "w"), ("bias", "b")]);
        // Rounding errors of N(0, 1) products grow with the root of their number; the scalar level rounds twice a tap.
        // Winograd's are 3e-6 in their root mean square; the largest of 25,000 is four to five times that.
        let taps = int(&json["ic"]) / int(&json["groups"]) * int(&json["kh"]) * int(&json["kw"]);
        for (accuracy, error) in [(Accuracy::Exact, 4e-6), (Accuracy::Default, 1.5e-5)] {
            compare(&file, &case, "y", &model, accuracy, error * (taps as f32).sqrt());
        }
    }
}

#[test]
fn linear_softmax_and_activations_are_those_of_pytorch() {
    let file = fixtures("layers");
    for (n, i, o) in [(1, 7, 5), (5, 130, 33), (16, 512, 10)] {
        let model = Linear::new(i, o).build(0).unwrap();
        check(&file, &format!("linear_{n}x{i}x{o}"), model, &[("weight", "w"), ("bias", "b")], 1e-5);
    }
    check(&file, "softmax", Softmax::new(1).build(0).unwrap(), &[], 1e-6);
    check(&file, "log_softmax", LogSoftmax::new(-1).build(0).unwrap(), &[], 1e-6);
    let activations: [(&str, Box<dyn Module>); 16] = [
        ("relu", ReLU.boxed()),
        ("relu6", ReLU6.boxed()),
        ("leaky_relu", LeakyReLU::new(0.1).boxed()),
        ("elu", ELU::default().boxed()),
        ("selu", SELU.boxed()),
        ("celu", CELU::default().boxed()),
        ("sigmoid", Sigmoid.boxed()),
        ("tanh", Tanh.boxed()),
        ("gelu", GELU::new().boxed()),
        ("gelu_tanh", GELU::tanh().boxed()),
        ("silu", SiLU.boxed()),
        ("mish", Mish.boxed()),
        ("softplus", Softplus::default().boxed()),
        ("hardswish", Hardswish.boxed()),
        ("hardsigmoid", Hardsigmoid.boxed()),
        ("hardtanh", Hardtanh::default().boxed()),
    ];
    for (name, layer) in activations {
        check(&file, &format!("act_{name}"), layer.build(0).unwrap(), &[], 2e-6);
    }
}

#[test]
fn every_pooling_of_the_fixtures() {
    let file = fixtures("pool2d");
    let cases: Vec<String> = file.names().filter_map(|n| n.strip_suffix(".gy")).map(String::from).collect();
    assert_eq!(cases.len(), 19);
    for case in cases {
        let json: serde_json::Value = serde_json::from_str(file.metadata(&case).unwrap()).unwrap();
        let pair = |key: &str| -> [usize; 2] {
            [0, 1].map(|i| json[key][i].as_u64().unwrap_or_else(|| panic!("{case} has no {key}")) as usize)
        };
        let ceil = json["ceil_mode"].as_bool() == Some(true);
        let layer = match json["kind"].as_str().unwrap() {
            "max" => {
                let pool = MaxPool2d::new(pair("kernel")).stride(pair("stride")).padding(pair("padding"));
                pool.dilation(pair("dilation")).ceil_mode(ceil).boxed()
            }
            "avg" => {
                let pool = AvgPool2d::new(pair("kernel")).stride(pair("stride")).padding(pair("padding"));
                pool.ceil_mode(ceil).count_include_pad(json["count_include_pad"].as_bool().unwrap()).boxed()
            }
            _ => AdaptiveAvgPool2d::new(pair("output")).boxed(),
        };
        check(&file, &case, layer.build(0).unwrap(), &[], 1e-6);
    }
}

#[test]
fn batch_normalisation_is_that_of_pytorch_alone_and_folded() {
    let file = fixtures("layers");
    let tensors = ["weight:w", "bias:b", "running_mean:running_mean", "running_var:running_var"];
    for channels in [3, 16, 37] {
        let case = format!("batch_norm_{channels}");
        let parameters = tensors.map(|t| t.split_once(':').unwrap());
        check_output(&file, &case, "y_eval", BatchNorm2d::new(channels).build(0).unwrap(), &parameters, 2e-6);
        // Behind a convolution that is the identity, there is nothing left to run.
        let names = parameters.map(|(name, _)| format!("norm.{name}"));
        let behind: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(parameters.map(|(_, t)| t)).collect();
        let mut model = identity_before(channels, BatchNorm2d::new(channels).named("norm"));
        let text = model.compile([4, channels, 5, 6]).unwrap().explain();
        assert!(text.contains("Conv2d") && !text.contains("BatchNorm2d"), "{text}");
        check_output(&file, &case, "y_eval", model.clone(), &behind, 4e-6);
        // Without weight and bias, the statistics alone are left.
        model = BatchNorm2d::new(channels).affine(false).eps(0.0).build(0).unwrap();
        assert_eq!(names_of_state(&model), ["running_mean", "running_var"]);
        model.set_parameter("running_var", &Tensor::new([channels], &vec![4.0; channels]).unwrap()).unwrap();
        let x = Tensor::new([1, channels, 1, 1], &vec![3.0; channels]).unwrap();
        assert_eq!(model.compile(x.dims()).unwrap().run(&x).unwrap().as_slice(), vec![1.5; channels]);
    }
}

#[test]
fn running_statistics_are_saved_but_are_no_parameters() {
    let layers = Sequential::new((Conv2d::new(2, 3, 1).named("conv"), BatchNorm2d::new(3).named("bn")));
    let mut model = layers.build(0).unwrap();
    let statistics = ["bn.running_mean", "bn.running_var"];
    let parameters: Vec<&str> = model.parameters().map(|(n, _)| n).collect();
    assert_eq!(parameters, ["conv.weight", "conv.bias", "bn.weight", "bn.bias"]);
    assert_eq!(names_of_state(&model), [parameters, statistics.to_vec()].concat());
    assert_eq!(model.parameter_count(), 6 + 3 + 3 + 3);
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("bn.safetensors");
    model.set_parameter(statistics[1], &Tensor::new([3], &[2.0, 3.0, 4.0]).unwrap()).unwrap();
    model.save_safetensors(&path).unwrap();
    let mut loaded = layers.build(1).unwrap();
    loaded.load_safetensors(&path).unwrap();
    assert_eq!(loaded.state().collect::<Vec<_>>(), model.state().collect::<Vec<_>>());
}

#[test]
fn pytorchs_counters_of_batches_are_passed_over() {
    // What `safetensors.torch.save_model` writes for BatchNorm2d(1) named "bn"; the counter is an integer.
    let header = r#"{"bn.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
        "bn.bias":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},
        "bn.running_mean":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},
        "bn.running_var":{"dtype":"F32","shape":[1],"data_offsets":[12,16]},
        "COUNTER":{"dtype":"I64","shape":[],"data_offsets":[16,24]}}"#;
    let load = |counter: &str| {
        let header = header.replace("COUNTER", counter);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([2.0f32, 3.0, 4.0, 5.0].iter().flat_map(|v| v.to_le_bytes()));
        bytes.extend(7i64.to_le_bytes());
        let mut model = BatchNorm2d::new(1).named("bn").build(0).unwrap();
        let strict = swath::Strictness::Strict;
        model.load_weights(&WeightsFile::from_bytes(bytes).unwrap(), strict).map(|_| model)
    };
    assert_eq!(load("bn.num_batches_tracked").unwrap().parameter("bn.running_var").unwrap().as_slice(), [5.0]);
    assert!(load("other.num_batches_tracked").unwrap_err().to_string().contains("unexpected `other.num_batches"));
}

#[test]
fn upsampling_and_transposed_convolution_are_those_of_pytorch() {
    let file = fixtures("layers");
    check(&file, "interpolate_nearest2", Upsample::new(2).build(0).unwrap(), &[], 0.0);
    check(&file, "interpolate_nearest2", identity_before(5, Upsample::new(2)), &[], 0.0);
    let file = fixtures("conv_transpose2d");
    let up = || ConvTranspose2d::new(16, 8, 2).stride(2);
    let model = up().build(0).unwrap();
    assert_eq!(names(&model), ["weight [16, 8, 2, 2]", "bias [8]"]);
    check(&file, "case0", model, &[("weight", "w"), ("bias", "b")], 2e-5);
    let behind = identity_before(16, up().named("up"));
    check(&file, "case0", behind, &[("up.weight", "w"), ("up.bias", "b")], 2e-5);
    // The other five cases overlap, pad, dilate or group.
    let others = [
        ConvTranspose2d::new(6, 4, 3).stride(2).padding(1).output_padding(1),
        ConvTranspose2d::new(8, 8, 4).stride(2).padding(1).groups(2),
        ConvTranspose2d::new(3, 5, 3).padding(1).dilation(2),
        ConvTranspose2d::new(12, 12, 3).stride(3).output_padding(2).groups(12),
        ConvTranspose2d::new(33, 17, 5).stride(4).padding(2).output_padding(3),
    ];
    for (i, layer) in others.into_iter().enumerate() {
        let model = layer.build(0).unwrap();
        check(&file, &format!("case{}", i + 1), model, &[("weight", "w"), ("bias", "b")], 2e-5);
    }
}

/// Outputs that fill no block, of windows that do not overlap, with what such a layer takes along: by the defining sum in double precision.
#[test]
fn transposed_convolution_of_windows_that_do_not_overlap() {
    let values = |len: usize, seed: usize| -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0).collect()
    };
    for [inputs, outputs, size] in [[5, 1, 3], [20, 7, 2], [3, 15, 4], [4, 3, 1], [6, 16, 2]] {
        let up = ConvTranspose2d::new(inputs, outputs, size).stride(size).named("up");
        let layers = Sequential::new((up, BatchNorm2d::new(outputs).named("norm"), Sigmoid));
        let mut model = layers.build(3).unwrap();
        let mean = values(outputs, 1);
        model.set_parameter("norm.running_mean", &Tensor::new([outputs], &mean).unwrap()).unwrap();
        let [n, h, w] = [2, 3, 5];
        let x = Tensor::new([n, inputs, h, w], &values(n * inputs * h * w, 2)).unwrap();
        let mut session = model.compile(x.dims()).unwrap();
        let y = session.run(&x).unwrap();
        assert_eq!(y.dims(), [n, outputs, h * size, w * size]);
        let (weight, bias) = (model.parameter("up.weight").unwrap(), model.parameter("up.bias").unwrap());
        let at = |i: usize, c: usize, row: usize, column: usize| -> f64 {
            let of = |k: usize| {
                let x = x.as_slice()[((i * inputs + k) * h + row / size) * w + column / size];
                let w = weight.as_slice()[((k * outputs + c) * size + row % size) * size + column % size];
                f64::from(x) * f64::from(w)
            };
            let sum = (0..inputs).map(of).sum::<f64>() + f64::from(bias.as_slice()[c]) - f64::from(mean[c]);
            1.0 / (1.0 + (-sum / (1.0 + 1e-5f64).sqrt()).exp())
        };
        for (e, &got) in y.as_slice().iter().enumerate() {
            let (column, row) = (e % (w * size), e / (w * size) % (h * size));
            let plane = e / (w * size) / (h * size);
            let right = at(plane / outputs, plane % outputs, row, column);
            let case = format!("{inputs} to {outputs} channels, {size}x{size}: element {e}");
            assert!((f64::from(got) - right).abs() < 2e-6, "{case} is {got}, not {right}");
        }
    }
}

/// A convolution that is the identity, and a module behind it.
fn identity_before(channels: usize, module: impl Module + 'static) -> Model {
    let conv = Conv2d::new(channels, channels, 1).bias(false).named("conv");
    let mut model = Sequential::new((conv, module)).build(0).unwrap();
    model.set_parameter("conv.weight", &identity(channels)).unwrap();
    model
}

/// Weights `[channels, channels, 1, 1]` that change nothing.
fn identity(channels: usize) -> Tensor {
    let mut identity = Tensor::zeros([channels, channels, 1, 1]).unwrap();
    (0..channels).for_each(|c| identity.as_mut_slice()[c * channels + c] = 1.0);
    identity
}

fn names_of_state(model: &Model) -> Vec<&str> {
    model.state().map(|(name, _)| name).collect()
}

/// Blocked activations reach pools and activations that no convolution takes along, with channels that do not fill a
/// block: the identity convolution before them must not show.
#[test]
fn layers_give_the_same_behind_a_convolution() {
    for channels in [1, 5, 16, 37] {
        let x: Vec<f32> = (0..2 * channels * 7 * 6).map(|i| (i as f32 * 0.7).sin() * 4.0).collect();
        let x = Tensor::new([2, channels, 7, 6], &x).unwrap();
        let layers: Vec<fn() -> Box<dyn Module>> = vec![
            || Sigmoid.boxed(),
            || Softplus::default().boxed(),
            || Hardtanh::new(0.5, 2.0).boxed(),
            || Sequential::new((Hardsigmoid, MaxPool2d::new(3).stride(2).padding(1))).boxed(),
            || MaxPool2d::new([3, 2]).stride([1, 2]).dilation([2, 1]).ceil_mode(true).boxed(),
            || AvgPool2d::new(3).stride(2).padding(1).ceil_mode(true).boxed(),
            || AvgPool2d::new(3).stride(2).padding(1).count_include_pad(false).boxed(),
            || AvgPool2d::new(2).divisor_override(3).boxed(),
            || Flatten.boxed(),
            || Identity.boxed(),
            || Upsample::new([2, 1]).boxed(),
            || Crop::new([1, 2, 0, 1]).boxed(),
            || CenterCrop::new([2, 5]).boxed(),
            || Dropout::new(0.0).boxed(),
            || Sequential::new((Upsample::new(2), Dropout::default(), CenterCrop::new(3), SiLU)).boxed(),
        ];
        for (i, layer) in layers.iter().enumerate() {
            let alone = layer().build(0).unwrap().compile(x.dims()).unwrap().run(&x).unwrap().clone();
            let behind = identity_before(channels, layer()).compile(x.dims()).unwrap().run(&x).unwrap().clone();
            assert_eq!(alone, behind, "layer {i} with {channels} channels");
        }
        // Sums have another order: over channels where these are neighbours, over regions where rows are added up first.
        let sums: Vec<fn() -> Box<dyn Module>> = vec![
            || Sequential::new((Softmax::new(-3), ReLU)).boxed(),
            || AdaptiveAvgPool2d::new([3, 5]).boxed(),
            || Sequential::new((AdaptiveAvgPool2d::new(1), Flatten)).boxed(),
        ];
        for (i, layer) in sums.iter().enumerate() {
            let alone = layer().build(0).unwrap().compile(x.dims()).unwrap().run(&x).unwrap().clone();
            let behind = identity_before(channels, layer()).compile(x.dims()).unwrap().run(&x).unwrap().clone();
            assert_eq!(alone.dims(), behind.dims());
            for (a, b) in alone.as_slice().iter().zip(behind.as_slice()) {
                assert!((a - b).abs() < 1e-6, "{a} and {b}, sums {i} with {channels} channels");
            }
        }
    }
}

#[test]
fn parameters_have_the_names_of_pytorch() {
    let model = Sequential::new((
        Conv2d::new(3, 8, 3),
        ReLU,
        Sequential::new((Conv2d::new(8, 8, [1, 3]).groups(4).bias(false), Linear::new(4, 2).named("head"))),
        Conv2d::new(8, 8, 1).named("last"),
    ));
    let model = model.build(0).unwrap();
    assert_eq!(
        names(&model),
        [
            "0.weight [8, 3, 3, 3]",
            "0.bias [8]",
            "2.0.weight [8, 2, 1, 3]",
            "2.head.weight [2, 4]",
            "2.head.bias [2]",
            "last.weight [8, 8, 1, 1]",
            "last.bias [8]"
        ]
    );
    assert_eq!(model.parameter_count(), 8 * 27 + 8 + 48 + 8 + 2 + 64 + 8);
    let e = model.parameter("2.head.wieght").unwrap_err().to_string();
    assert!(e.starts_with("the model has no tensor `2.head.wieght`; it has: `0.weight`, `0.bias`"), "{e}");
}

#[test]
fn one_layer_called_twice_shares_and_two_under_one_name_are_refused() {
    let conv = Conv2d::new(4, 4, 1).named("conv");
    let shared = (|x: &Value| conv.call(&conv.call(x)?)).build(0).unwrap();
    assert_eq!(names(&shared), ["conv.weight [4, 4, 1, 1]", "conv.bias [4]"]);
    let (a, b) = (Conv2d::new(4, 4, 1), Conv2d::new(4, 4, 1));
    let e = (|x: &Value| b.call(&a.call(x)?)).build(0).unwrap_err();
    assert!(matches!(&e, Error::DuplicateParameter { name } if name == "weight"), "{e}");
    let copy = conv.clone();
    assert!((|x: &Value| copy.call(&conv.call(x)?)).build(0).is_err(), "a clone is another layer");
}

#[test]
fn initial_values_are_uniform_and_depend_on_the_seed_alone() {
    let model = |seed| Sequential::new((Conv2d::new(64, 64, 3), Linear::new(500, 300))).build(seed).unwrap();
    let m = model(1);
    let values = |m: &Model| -> Vec<Vec<f32>> { m.parameters().map(|(_, t)| t.as_slice().to_vec()).collect() };
    assert_eq!(values(&m), values(&model(1)));
    for ((name, a), (_, b)) in m.parameters().zip(model(2).parameters()) {
        assert_ne!(a, b, "{name}");
    }
    for (name, fan_in) in [("0.weight", 576.0f64), ("0.bias", 576.0), ("1.weight", 500.0), ("1.bias", 500.0)] {
        let bound = 1.0 / fan_in.sqrt();
        let v: Vec<f64> = m.parameter(name).unwrap().as_slice().iter().map(|&v| f64::from(v) / bound).collect();
        let n = v.len() as f64;
        let (mean, square) = (v.iter().sum::<f64>() / n, v.iter().map(|v| v * v).sum::<f64>() / n);
        assert!(v.iter().all(|v| v.abs() <= 1.0 + 1e-6), "{name}");
        // Of a uniform variable in +-1 the mean is 0 +- sqrt(1/3n), that of the square 1/3 +- sqrt(4/45n).
        assert!(mean.abs() < 4.0 * (1.0 / 3.0 / n).sqrt(), "{name} has mean {mean}");
        assert!((square - 1.0 / 3.0).abs() < 4.0 * (4.0 / 45.0 / n).sqrt(), "{name} has mean square {square}");
    }
    // A seed means the same values for ever.
    let first = Linear::new(4, 1).build(42).unwrap();
    let bits: Vec<u32> = first.parameter("weight").unwrap().as_slice().iter().map(|v| v.to_bits()).collect();
    assert_eq!(bits, INITIAL_BITS);
}

const INITIAL_BITS: [u32; 4] = [3165507776, 1046154484, 3204150298, 3192381188];

#[test]
fn same_pads_as_pytorch_does() {
    for (kernel, dilation) in [([3, 3], 1), ([4, 2], 1), ([3, 4], 2), ([1, 5], 3)] {
        let conv = Conv2d::new(2, 3, kernel).padding(Conv2dPadding::Same).dilation(dilation).build(0).unwrap();
        assert_eq!(conv.output_dims([1, 2, 17, 18]).unwrap(), [1, 3, 17, 18], "{kernel:?} {dilation}");
    }
    // The odd pixel is at the right: a kernel of two taps that sees (x[i], x[i + 1]).
    let mut conv = Conv2d::new(1, 1, [1, 2]).padding(Conv2dPadding::Same).bias(false).build(0).unwrap();
    conv.set_parameter("weight", &Tensor::new([1, 1, 1, 2], &[1.0, 10.0]).unwrap()).unwrap();
    let mut session = conv.compile([1, 1, 1, 3]).unwrap();
    assert_eq!(session.run(&[1.0, 2.0, 3.0]).unwrap().as_slice(), [21.0, 32.0, 3.0]);
}

#[test]
fn contradictions_are_errors_with_both_numbers() {
    let text = |m: Box<dyn Module>| m.build(0).unwrap_err().to_string();
    assert_eq!(text(Conv2d::new(6, 8, 3).groups(4).boxed()), "4 groups do not divide 6 input channels");
    assert_eq!(text(Conv2d::new(8, 6, 3).groups(4).boxed()), "4 groups do not divide 6 output channels");
    assert!(text(Conv2d::new(8, 6, [3, 0]).boxed()).contains("kernel width is zero"));
    assert!(text(Linear::new(0, 3).boxed()).contains("input features is zero"));
    let hardtanh = text(Hardtanh::new(2.0, 1.0).boxed());
    assert!(hardtanh.ends_with("min_val of Hardtanh is 2, but it has to be below max_val, 1"), "{hardtanh}");
    let nested = Sequential::new((ReLU, Sequential::new((Conv2d::new(8, 8, 3).stride(0),)).named("block")));
    assert_eq!(text(nested.boxed()), "layer `block.0`: the vertical stride is zero; it must be at least 1");

    let compiled = |m: Box<dyn Module>, dims: &[usize]| m.build(0).unwrap().compile(dims).unwrap_err().to_string();
    let conv = || Conv2d::new(8, 8, 3);
    assert!(compiled(conv().boxed(), &[1, 7, 9, 9]).contains("7 channels, but the weights expect 8"));
    assert!(compiled(conv().boxed(), &[1, 8, 2, 9]).contains("spans 3, but the padded input only 2"));
    assert!(compiled(conv().boxed(), &[1, 8]).contains("takes [n, c, h, w], gets the shape [1, 8]"));
    assert!(compiled(Linear::new(8, 2).boxed(), &[1, 8, 1, 1]).contains("Flatten"));
    assert!(compiled(MaxPool2d::new(2).padding(2).boxed(), &[1, 8, 9, 9]).contains("allows at most 1"));
    assert!(compiled(AvgPool2d::new(2).divisor_override(0).boxed(), &[1, 8, 9, 9]).contains("zero"));
    assert!(compiled(AdaptiveAvgPool2d::new(0).boxed(), &[1, 8, 9, 9]).contains("output height of"));
    assert_eq!(
        compiled(Softmax::new(4).boxed(), &[1, 8, 9, 9]),
        "the dimension of Softmax is 4, but there are 4 dimensions"
    );
    assert!(compiled(LogSoftmax::new(-3).boxed(), &[1, 8]).contains("is -3, but there are 2"));
    let exact = Upsample::new(2).mode(UpsampleMode::NearestExact).align_corners(true);
    assert!(text(exact.boxed()).contains("align_corners of Upsample is true, but only bilinear and bicubic"));
    assert!(compiled(Dropout::new(1.5).boxed(), &[1, 8]).contains("p of Dropout is 1.5, but a probability"));
    assert!(compiled(BatchNorm2d::new(7).boxed(), &[1, 8, 9, 9]).contains("takes 7 channels, gets 8"));
    assert!(compiled(BatchNorm2d::new(8).boxed(), &[1, 8]).contains("takes [n, c, h, w]"));
    assert!(compiled(ConvTranspose2d::new(7, 2, 1).boxed(), &[1, 8, 9, 9]).contains("takes 7 channels, gets 8"));
    assert!(compiled(ConvTranspose2d::new(7, 2, 1).boxed(), &[1, 7]).contains("takes [n, c, h, w]"));
    assert!(text(BatchNorm2d::new(0).boxed()).contains("channels of BatchNorm2d is zero"));
    assert!(text(BatchNorm2d::new(3).eps(-1.0).boxed()).contains("eps of BatchNorm2d is -1"));
    assert!(text(ConvTranspose2d::new(3, 3, [0, 2]).boxed()).contains("kernel height is zero"));
    assert!(text(ConvTranspose2d::new(usize::MAX, 3, 1).boxed()).contains("more than"));
    let up = ConvTranspose2d::new(3, usize::MAX / 64, [1, 2]).stride([1, 2]);
    assert!(text(up.boxed()).contains("more than"));
    assert!(
        compiled(conv().padding(9).padding_mode(PaddingMode::Reflect).boxed(), &[1, 8, 9, 9]).contains("at most 8")
    );
    assert!(compiled(ReLU.boxed(), &[1, 0, 3, 3]).contains("[1, 0, 3, 3]"));
    assert!(compiled(ReLU.boxed(), &[]).contains("[]"));
    assert!(compiled(ReLU.boxed(), &[2, usize::MAX]).contains("more than"));
}

#[test]
fn values_of_two_models_do_not_mix() {
    let other = std::cell::RefCell::new(None);
    (|x: &Value| -> Result<Value> {
        *other.borrow_mut() = Some(x.clone());
        Ok(x.clone())
    })
    .build(0)
    .unwrap();
    let foreign = other.borrow().clone().unwrap();
    let e = (|x: &Value| Ok((x + &foreign).relu())).build(0).unwrap_err();
    assert_eq!(e.to_string(), "Add combines values of two different models");
    assert!((|_: &Value| Ok(foreign.clone())).build(0).is_err());
}

#[test]
fn depthwise_and_pointwise_convolutions_that_run_by_strips_give_the_same_bits_as_alone() {
    let [c, oc, h, w] = [24, 40, 65, 96];
    let depthwise = || Conv2d::new(c, c, 3).padding(1).groups(c).named("depthwise");
    let pointwise = || Conv2d::new(c, oc, 1).named("pointwise");
    let tail = || Conv2d::new(c, oc, 1).stride(1).named("beside");
    let pair = |x: &Value| -> Result<Value> {
        let between = Sequential::new((depthwise(), ReLU6)).call(x)?;
        Ok((pointwise().call(&between)? + tail().call(x)?).relu())
    };
    let model = pair.build(3).unwrap();
    let values: Vec<f32> = (0..2 * c * h * w).map(|i| (i * 37 % 101) as f32 / 40.0 - 1.0).collect();
    let x = Tensor::new([2, c, h, w], &values).unwrap();
    for threads in [1, 2, 3] {
        // Exact, so that no matrix unit takes the 1x1 convolution.
        let options = SessionOptions { threads: Some(threads), accuracy: Accuracy::Exact, ..SessionOptions::default() };
        let mut session = model.compile_with(x.dims(), &options).unwrap();
        let text = session.explain();
        assert!(text.contains("by strips"), "{text}");
        let y = session.run(&x).unwrap().clone();
        // One after the other.
        let part = |mut layers: Model, x: &Tensor| -> Tensor {
            let names: Vec<String> = layers.parameters().map(|(name, _)| name.to_string()).collect();
            names.iter().for_each(|name| layers.set_parameter(name, model.parameter(name).unwrap()).unwrap());
            layers.compile_with(x.dims(), &options).unwrap().run(x).unwrap().clone()
        };
        let between = part(Sequential::new((depthwise(), ReLU6)).build(0).unwrap(), &x);
        let beside = part(tail().build(0).unwrap(), &x);
        let behind = part(pointwise().build(0).unwrap(), &between);
        let want = behind.as_slice().iter().zip(beside.as_slice()).map(|(a, b)| (a + b).max(0.0));
        assert!(y.as_slice().iter().copied().eq(want), "{threads} threads");
    }
}
