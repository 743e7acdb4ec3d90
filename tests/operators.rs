//! Layers without convolutions, in training mode: values and gradients against PyTorch's in float64, from NCHW and from blocked tensors.
#![cfg(feature = "nn")]

#[allow(dead_code)] // not every test uses all of it
mod support;

use serde_json::Value as Json;
use support::Fixtures;
use swath::graph::Fact;
use swath::nn::*;
use swath::train::{GradientOptions, check_gradients, gradients};
use swath::{Level, Model, SessionOptions, Tensor};

/// A model of a layer, and names of its parameters with their tensors in the fixtures.
type Layer = (Box<dyn Module>, &'static [(&'static str, &'static str)]);

fn pair(p: &Json, key: &str) -> [usize; 2] {
    match p[key].as_u64() {
        Some(v) => [v as usize; 2],
        None => [0, 1].map(|i| p[key][i].as_u64().unwrap_or_else(|| panic!("{key} in {p}")) as usize),
    }
}

fn flag(p: &Json, key: &str) -> bool {
    p[key].as_bool().unwrap_or(false)
}

/// The layer of a case, if it is one of those here.
fn layer(kind: &str, p: &Json, channels: usize) -> Option<Layer> {
    let none: Layer = (Identity.boxed(), &[]);
    let plain = |m: Box<dyn Module>| Some((m, none.1));
    match kind {
        "softmax" => plain(Softmax::new(p["dim"].as_i64()? as isize).boxed()),
        "log_softmax" => plain(LogSoftmax::new(p["dim"].as_i64()? as isize).boxed()),
        "interpolate" => plain(interpolation(p).boxed()),
        "max" | "max_pool2d" => {
            let mut pool = MaxPool2d::new(pair(p, "kernel")).stride(pair(p, "stride")).padding(pair(p, "padding"));
            if !p["dilation"].is_null() {
                pool = pool.dilation(pair(p, "dilation"));
            }
            plain(pool.ceil_mode(flag(p, "ceil_mode")).boxed())
        }
        "avg" | "avg_pool2d" => {
            let pool = AvgPool2d::new(pair(p, "kernel")).stride(pair(p, "stride")).padding(pair(p, "padding"));
            plain(pool.ceil_mode(flag(p, "ceil_mode")).count_include_pad(flag(p, "count_include_pad")).boxed())
        }
        "adaptive_avg" | "adaptive_avg_pool2d" => plain(AdaptiveAvgPool2d::new(pair(p, "output")).boxed()),
        "adaptive_max_pool2d" => plain(AdaptiveMaxPool2d::new(pair(p, "output")).boxed()),
        "pixel_shuffle" => plain(PixelShuffle::new(p["factor"].as_u64()? as usize).boxed()),
        "group_norm" => {
            let groups = p["groups"].as_u64()? as usize;
            Some((GroupNorm::new(groups, channels).boxed(), &[("weight", "w"), ("bias", "b")]))
        }
        "batch_norm" => {
            let all =
                &[("weight", "w"), ("bias", "b"), ("running_mean", "running_mean"), ("running_var", "running_var")];
            Some((BatchNorm2d::new(channels).boxed(), all))
        }
        "prelu" => Some((PReLU::new().num_parameters(channels).boxed(), &[("weight", "w")])),
        "instance_norm" => plain(InstanceNorm2d::new(channels).boxed()),
        "layer_norm" => Some((LayerNorm::new([channels]).boxed(), &[("weight", "w"), ("bias", "b")])),
        other => plain(activation(other, p["kink"] == true)?),
    }
}

/// The activations, with the slope that `make_fixtures.py` gives and, at the kinks, PyTorch's own.
fn activation(kind: &str, kink: bool) -> Option<Box<dyn Module>> {
    Some(match kind {
        "relu" => ReLU.boxed(),
        "relu6" => ReLU6.boxed(),
        "leaky_relu" if kink => LeakyReLU::default().boxed(),
        "leaky_relu" => LeakyReLU::new(0.1).boxed(),
        "elu" => ELU::default().boxed(),
        "selu" => SELU.boxed(),
        "celu" => CELU::default().boxed(),
        "sigmoid" => Sigmoid.boxed(),
        "tanh" => Tanh.boxed(),
        "gelu" => GELU::new().boxed(),
        "gelu_tanh" => GELU::tanh().boxed(),
        "silu" => SiLU.boxed(),
        "mish" => Mish.boxed(),
        "softplus" => Softplus::default().boxed(),
        "hardswish" => Hardswish.boxed(),
        "hardsigmoid" => Hardsigmoid.boxed(),
        "hardtanh" => Hardtanh::default().boxed(),
        _ => return None,
    })
}

fn interpolation(p: &Json) -> Upsample {
    let layer = match (&p["size"], &p["scale_factor"]) {
        (Json::Null, factor) => Upsample::scale_factor([factor.as_f64().unwrap(); 2]),
        _ => Upsample::size(pair(p, "size")),
    };
    let mode = match p["mode"].as_str().unwrap() {
        "nearest" => UpsampleMode::Nearest,
        "nearest-exact" => UpsampleMode::NearestExact,
        "bilinear" => UpsampleMode::Bilinear,
        "bicubic" => UpsampleMode::Bicubic,
        other => panic!("mode {other}"),
    };
    layer.mode(mode).align_corners(flag(p, "align_corners"))
}

fn close(what: &str, got: &Tensor, want: (Vec<usize>, Vec<f32>), tolerance: f32) {
    assert_eq!(got.dims(), want.0, "{what}");
    let largest = want.1.iter().fold(1.0f32, |m, v| m.max(v.abs()));
    for (i, (a, b)) in got.as_slice().iter().zip(&want.1).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "{what} [{i}]: {a}, PyTorch has {b}");
    }
}

/// The layer, alone and behind a convolution that is the identity and gives it a blocked tensor.
fn models(layer: Box<dyn Module>, dims: &[usize]) -> Vec<(&'static str, Model)> {
    let layer = std::rc::Rc::new(layer.named("layer"));
    let alone = layer.clone();
    let mut models = vec![("", (move |x: &swath::Value| alone.call(x)).build(0).unwrap())];
    if let &[_, c, _, _] = dims {
        let conv = Conv2d::new(c, c, 1).bias(false).named("conv");
        let mut model = (move |x: &swath::Value| layer.call(&conv.call(x)?)).build(0).unwrap();
        let mut identity = Tensor::zeros([c, c, 1, 1]).unwrap();
        (0..c).for_each(|k| identity.as_mut_slice()[k * c + k] = 1.0);
        model.set_parameter("conv.weight", &identity).unwrap();
        models.push((" blocked", model));
    }
    models
}

fn every_case(file: &str) -> usize {
    let fixtures = Fixtures::open(file);
    let mut count = 0;
    for (case, mut p) in fixtures.cases() {
        p["kink"] = case.starts_with("kink").into();
        let Some(kind) = p["kind"].as_str() else { continue };
        let tensor = |name: &str| fixtures.tensor(&format!("{case}.{name}"));
        // Those of several inputs and losses have tests of their own.
        if kind.starts_with("conv") || layer(kind, &p, 1).is_none() {
            continue;
        }
        let (dims, x) = tensor("x");
        let (layer, parameters) = layer(kind, &p, dims.get(1).copied().unwrap_or(1)).unwrap();
        let input = Tensor::new(&dims[..], &x).unwrap();
        let (gy_dims, gy) = tensor("gy");
        let gy = Tensor::new(&gy_dims[..], &gy).unwrap();
        for (form, mut model) in models(layer, &dims) {
            for (name, from) in parameters {
                let (dims, values) = tensor(from);
                model.set_parameter(&format!("layer.{name}"), &Tensor::new(&dims[..], &values).unwrap()).unwrap();
            }
            for &level in Level::available() {
                let what = format!("{case}{form} {level}");
                let session = SessionOptions { level: Some(level), ..SessionOptions::default() };
                let options = GradientOptions { session, evaluation: p["training"] == false };
                let g = gradients(&model, &input, &gy, &options).unwrap_or_else(|e| panic!("{what}: {e}"));
                // The fixture's input lost a few 1e-5 when 1000 and a number were rounded to f32.
                let rounded = if case == "batch_norm_far_mean" { 20.0 } else { 1.0 };
                let y = if kind == "batch_norm" && file == "layers" { ["y_train", "y_eval"] } else { ["y", "y"] };
                close(&format!("{what} y"), &g.output, tensor(y[0]), 3e-6 * rounded);
                close(&format!("{what} gx"), &g.input, tensor("gx"), 1e-5 * rounded);
                for (name, from) in parameters.iter().filter(|(name, _)| !name.starts_with("running")) {
                    let (_, got) = g.parameters.iter().find(|(n, _)| *n == format!("layer.{name}")).unwrap();
                    close(&format!("{what} {name}"), got, tensor(&format!("g{from}")), 1e-5 * rounded);
                }
                // In inference the values are the same, except those of batch normalisation.
                if kind == "batch_norm" && y[0] == y[1] && !options.evaluation {
                    continue;
                }
                let mut session = model.compile_for(&[Fact::f32(&dims[..])], &options.session).unwrap();
                close(&format!("{what} inference"), session.run(&input).unwrap(), tensor(y[1]), 3e-6);
            }
        }
        count += 1;
    }
    count
}

#[test]
fn layers_of_the_fixtures() {
    assert_eq!(every_case("layers"), 24);
}

#[test]
fn pooling_of_the_fixtures() {
    assert_eq!(every_case("pool2d"), 19);
}

#[test]
fn edges_of_the_fixtures() {
    assert_eq!(every_case("gradients2"), 47);
}

/// Gradients against differences.
fn check(module: impl Module, input: &[usize], most: f64) {
    let check = check_gradients(&module, input, 0.01, 3).unwrap_or_else(|e| panic!("{e}"));
    assert!(check.worst() < most, "{:?}", check.errors);
    assert!(!check.errors.is_empty());
}

/// The same behind a convolution, whose output is blocked.
fn check_both(module: impl Module + Clone + 'static, input: [usize; 4]) {
    check(module.clone(), &input, 0.02);
    check(Sequential::new((Conv2d::new(input[1], input[1], 1).bias(false), module)), &input, 0.02);
}

#[test]
fn softmax_over_any_dimension() {
    for dim in [0, 1, 2, 3, -1, -4] {
        check_both(Softmax::new(dim), [2, 18, 3, 4]);
        check_both(LogSoftmax::new(dim), [2, 5, 3, 4]);
    }
    check(Softmax::new(0), &[5, 3], 0.02);
    check(LogSoftmax::new(2), &[2, 3, 4], 0.02);
    check(Softmax::new(3), &[2, 3, 2, 4, 2], 0.02);
    check_both(Softmax2d, [2, 7, 3, 3]);
}

#[test]
fn interpolation_in_all_modes() {
    for mode in [UpsampleMode::Nearest, UpsampleMode::NearestExact, UpsampleMode::Bilinear, UpsampleMode::Bicubic] {
        for layer in [Upsample::new([2, 3]), Upsample::scale_factor([1.7, 0.6]), Upsample::size([3, 7])] {
            check_both(layer.mode(mode), [2, 3, 5, 4]);
            if matches!(mode, UpsampleMode::Bilinear | UpsampleMode::Bicubic) {
                check_both(layer.mode(mode).align_corners(true), [1, 17, 5, 4]);
            }
        }
    }
}

#[test]
fn padding_and_cropping() {
    check_both(ZeroPad2d::new([1, 0, 2, 3]), [2, 3, 4, 5]);
    check_both(ConstantPad2d::new([1, 2], -1.5), [2, 17, 4, 5]);
    check_both(ReflectionPad2d::new([3, 4, 2, 1]), [2, 3, 4, 5]);
    check_both(ReplicationPad2d::new([1, 6, 2, 1]), [2, 17, 4, 5]);
    check_both(CircularPad2d::new([4, 5, 2, 1]), [2, 3, 4, 5]);
    check_both(Crop::new([1, 0, 0, 2]), [2, 17, 4, 5]);
    check_both(CenterCrop::new([2, 3]), [2, 3, 5, 4]);
}

/// What PyTorch 2 makes of 1, 4, 2, 7, 5 in float64, and the gradient where that at the output is 1, 2, 3 and so on.
fn row(layer: impl Module, y: &[f32], gx: &[f32]) {
    let x = Tensor::new([1, 1, 1, 5], &[1.0, 4.0, 2.0, 7.0, 5.0]).unwrap();
    let gy: Vec<f32> = (1..=y.len()).map(|i| i as f32).collect();
    let gy = Tensor::new([1, 1, 1, y.len()], &gy).unwrap();
    let g = gradients(&layer.build(0).unwrap(), &x, &gy, &GradientOptions::default()).unwrap();
    close("y", &g.output, (vec![1, 1, 1, y.len()], y.to_vec()), 1e-6);
    close("gx", &g.input, (vec![1, 1, 1, 5], gx.to_vec()), 1e-6);
}

#[test]
fn interpolation_that_the_fixtures_lack() {
    let wider = || Upsample::scale_factor([1.0, 1.7]);
    row(
        wider().mode(UpsampleMode::Bicubic),
        &[0.707873, 2.240828, 3.973476, 2.595932, 2.491807, 5.928353, 6.946755, 5.169964],
        &[2.102235, 5.198205, 8.119244, 11.737355, 8.842961],
    );
    row(
        Upsample::size([1, 8]).mode(UpsampleMode::Bicubic).align_corners(true),
        &[1.0, 2.950437, 3.928571, 2.112245, 3.188047, 6.526239, 6.685131, 5.0],
        &[1.428571, 4.848397, 7.87172, 11.603499, 10.247813],
    );
    row(
        wider().mode(UpsampleMode::NearestExact),
        &[1.0, 1.0, 4.0, 2.0, 2.0, 7.0, 7.0, 5.0],
        &[3.0, 3.0, 9.0, 13.0, 8.0],
    );
    row(
        Upsample::scale_factor([1.0, 0.7]).mode(UpsampleMode::Bilinear),
        &[1.642857, 2.714286, 6.857143],
        &[0.785714, 0.928571, 1.285714, 2.785714, 0.214286],
    );
    row(
        wider().mode(UpsampleMode::Bilinear).align_corners(true),
        &[1.0, 2.714286, 3.714286, 2.571429, 3.428571, 6.285714, 6.142857, 5.0],
        &[1.857143, 4.857143, 7.714286, 10.571429, 11.0],
    );
}

#[test]
fn padding_in_all_modes() {
    let sides = [0, 2, 0, 1];
    row(ReflectionPad2d::new(sides), &[2.0, 4.0, 1.0, 4.0, 2.0, 7.0, 5.0, 7.0], &[3.0, 6.0, 6.0, 14.0, 7.0]);
    row(ReplicationPad2d::new(sides), &[1.0, 1.0, 1.0, 4.0, 2.0, 7.0, 5.0, 5.0], &[6.0, 4.0, 5.0, 6.0, 15.0]);
    row(CircularPad2d::new(sides), &[7.0, 5.0, 1.0, 4.0, 2.0, 7.0, 5.0, 1.0], &[11.0, 4.0, 5.0, 7.0, 9.0]);
    row(ConstantPad2d::new(sides, 9.0), &[9.0, 9.0, 1.0, 4.0, 2.0, 7.0, 5.0, 9.0], &[3.0, 4.0, 5.0, 6.0, 7.0]);
    row(ZeroPad2d::new(sides), &[0.0, 0.0, 1.0, 4.0, 2.0, 7.0, 5.0, 0.0], &[3.0, 4.0, 5.0, 6.0, 7.0]);
}

#[test]
fn normalisation() {
    for groups in [1, 3, 18] {
        check_both(GroupNorm::new(groups, 18), [2, 18, 3, 4]);
    }
    check(GroupNorm::new(2, 6).eps(0.1).affine(false), &[3, 6], 0.02);
    check(GroupNorm::new(2, 6), &[2, 6, 5], 0.02);
    check(GroupNorm::new(3, 6), &[2, 6, 2, 3, 2], 0.02);
    check_both(InstanceNorm2d::new(17).affine(true), [2, 17, 3, 4]);
    check_both(LayerNorm::new([4]).bias(false), [2, 3, 5, 4]);
    check_both(LayerNorm::new([3, 5, 4]), [2, 3, 5, 4]);
    check(LayerNorm::new([2, 4]).elementwise_affine(false), &[5, 2, 4], 0.02);
    let names = |module: &dyn Module| -> Vec<String> {
        let graph = swath::Graph::record(|x| module.call(x)).unwrap();
        graph.state().map(|(name, dims)| format!("{name} {dims:?}")).collect()
    };
    assert_eq!(names(&LayerNorm::new([5, 4]).bias(false)), ["weight [5, 4]"]);
    assert_eq!(names(&GroupNorm::new(2, 4)), ["weight [4]", "bias [4]"]);
    assert!(names(&InstanceNorm2d::new(4)).is_empty());
}

#[test]
fn shuffles_and_adaptive_maxima() {
    check_both(PixelShuffle::new(2), [2, 68, 3, 2]);
    check_both(PixelUnshuffle::new(3), [2, 3, 6, 3]);
    // Differences of maxima must not reach the next pixel.
    let check = check_gradients(&AdaptiveMaxPool2d::new([3, 2]), [2, 5, 7, 5], 1e-3, 5).unwrap();
    assert!(check.worst() < 0.05, "{:?}", check.errors);
}

/// A deviation of a thousandth of the mean, as PyTorch has it in float64.
#[test]
fn means_far_from_zero() {
    let x: Vec<f32> = (0..48).map(|i| 1000.0 + (i * 7 % 16) as f32).collect();
    let model = InstanceNorm2d::new(3).build(0).unwrap();
    let y = model.compile([1, 3, 4, 4]).unwrap().run(&x).unwrap().clone();
    for (x, y) in x.iter().zip(y.as_slice()) {
        // The numbers 0 to 15 have the mean 7.5 and the variance 21.25.
        let want = (f64::from(*x) - 1007.5) / (21.25f64 + 1e-5).sqrt();
        assert!((f64::from(*y) - want).abs() < 1e-6, "{y} for {want}");
    }
}

#[test]
fn normalisations_that_do_not_exist_are_refused() {
    let text = |m: Box<dyn Module>, dims: &[usize]| match m.build(0) {
        Ok(model) => model.compile(dims).unwrap_err().to_string(),
        Err(e) => e.to_string(),
    };
    assert!(text(GroupNorm::new(0, 4).boxed(), &[1, 4]).contains("the groups of GroupNorm is zero"));
    assert!(text(GroupNorm::new(2, 4).eps(f64::NAN).boxed(), &[1, 4]).contains("eps of GroupNorm is NaN"));
    assert_eq!(text(GroupNorm::new(2, 4).boxed(), &[1, 6, 2, 2]), "GroupNorm takes 4 channels, gets 6");
    assert!(text(GroupNorm::new(4, 4).boxed(), &[1, 4]).contains("GroupNorm needs more than one"));
    assert_eq!(
        text(InstanceNorm2d::new(4).boxed(), &[3, 4, 1, 1]),
        "the number of values to normalise is 1, but InstanceNorm2d needs more than one"
    );
    assert!(text(InstanceNorm2d::new(4).boxed(), &[3, 4, 8]).contains("takes [n, c, h, w]"));
    assert!(text(LayerNorm::new([]).boxed(), &[3, 4]).contains("is zero"));
    assert!(text(LayerNorm::new([3, 4]).boxed(), &[3, 4, 4]).contains("[3, 4, 4] and [3, 4] do not agree"));
    assert!(text(LayerNorm::new([2, 3, 4]).boxed(), &[3, 4]).contains("[3, 4] and [2, 3, 4] do not agree"));
}

/// What has no gradient says so under the layer's name.
#[test]
fn a_layer_without_gradient_is_named() {
    use swath::graph::{Group, Lower, Operator};
    #[derive(Debug)]
    struct Mine;
    impl Operator for Mine {
        fn name(&self) -> &'static str {
            "Mine"
        }
        fn dims(&self, inputs: &[&[usize]]) -> swath::Result<Vec<usize>> {
            Ok(inputs[0].to_vec())
        }
        fn lower(&self, _: &Group, _: &mut Lower<'_>) -> swath::Result<()> {
            unreachable!("it is not compiled")
        }
    }
    let layer = (|x: &swath::Value| Ok(x.push(Mine, &[x]))).named("mine");
    let model = Sequential::new((Linear::new(2, 2), layer)).named("head").build(0).unwrap();
    let x = Tensor::zeros([1, 2]).unwrap();
    let e = gradients(&model, &x, &x, &GradientOptions::default()).unwrap_err();
    assert_eq!(e.to_string(), "layer `head.mine`: Mine has no gradient");
}

/// Any dimension, whole blocks and parts of them; the pieces are put together again in another order.
#[test]
fn slices_and_concatenation() {
    let halves = |x: &swath::Value| Ok(x.narrow(1, 16, 18).concat(&[&x.narrow(1, 0, 16)]).tanh());
    check_both(halves, [2, 34, 3, 2]);
    let odd = |x: &swath::Value| Ok(x.narrow(-3, 3, 5).concat(&[&x.narrow(1, 1, 17), x]).tanh());
    check_both(odd, [2, 18, 3, 2]);
    let pixels = |x: &swath::Value| Ok((x.narrow(2, 1, 2) * x.narrow(2, 0, 2)).narrow(3, 2, 1));
    check_both(pixels, [2, 17, 3, 3]);
    check_both(|x: &swath::Value| Ok(x.narrow(0, 1, 1)), [3, 5, 2, 2]);
    check(|x: &swath::Value| Ok(x.narrow(2, 1, 2).tanh()), &[2, 3, 4, 2, 2], 0.02);
    check(|x: &swath::Value| Ok(x.narrow(1, 1, 2).tanh()), &[2, 4], 0.02);
}

/// Products, quotients, sums and differences with what is repeated over pixels, channels, images and everything, from both sides.
#[test]
fn arithmetic_with_what_is_repeated() {
    let gate = |x: &swath::Value| AdaptiveAvgPool2d::new(1).call(x).map(|v| v.sigmoid());
    check_both(move |x: &swath::Value| Ok(x * gate(x)?), [2, 18, 3, 4]);
    check_both(move |x: &swath::Value| Ok(gate(x)? * x), [2, 5, 3, 4]);
    check_both(move |x: &swath::Value| Ok(x / gate(x)? - gate(x)?), [2, 17, 3, 4]);
    check_both(move |x: &swath::Value| Ok(gate(x)? / (x * x + gate(x)?) + gate(x)?), [2, 3, 3, 4]);
    check_both(move |x: &swath::Value| Ok(gate(x)? - x), [1, 17, 3, 4]);
    let of_channels = |x: &swath::Value| {
        let v = x.push(swath::graph::ops::Reduce::mean(&[0, 2, 3], true), &[x]).sigmoid();
        Ok(&(x * &v) / &(&v + &v) - (&v * x))
    };
    check_both(of_channels, [3, 18, 2, 3]);
    let all = |x: &swath::Value| {
        let v = x.push(swath::graph::ops::Reduce::sum(&[], true), &[x]).sigmoid();
        Ok(&(x * &v) / &(&v + &v) - (&v * x))
    };
    check_both(all, [2, 17, 2, 3]);
    for keep in [false, true] {
        for axes in [&[2, 3][..], &[0, 2, 3], &[1], &[0, 3]] {
            let sum = move |x: &swath::Value| Ok(x.push(swath::graph::ops::Reduce::sum(axes, keep), &[x]).tanh());
            check(sum, &[2, 18, 3, 4], 0.02);
            let conv = Conv2d::new(18, 18, 1).bias(false);
            let behind = move |x: &swath::Value| sum(&conv.call(x)?);
            check(behind, &[2, 18, 3, 4], 0.02);
        }
    }
}

/// `a * sigmoid(b)`, both in one input.
#[test]
fn squeeze_and_excite_is_pytorchs() {
    let file = Fixtures::open("gradients2");
    let tensor = |name: &str| file.tensor(&format!("squeeze_excite.{name}"));
    let net = |x: &swath::Value| {
        let part = |start, len, dims: &[usize]| {
            let part = x.narrow(1, start, len);
            part.push(swath::graph::ops::Reshape::to(dims), &[&part])
        };
        Ok(part(0, 240, &[2, 20, 4, 3]) * part(240, 20, &[2, 20, 1, 1]).sigmoid())
    };
    let joined = |a: &str, b: &str| -> Vec<f32> {
        let (a, b) = (tensor(a).1, tensor(b).1);
        a.chunks(240).zip(b.chunks(20)).flat_map(|(a, b)| a.iter().chain(b)).copied().collect()
    };
    let x = Tensor::new([2, 260], &joined("a", "b")).unwrap();
    let gy = Tensor::new([2, 20, 4, 3], &tensor("gy").1).unwrap();
    let g = gradients(&net.build(0).unwrap(), &x, &gy, &GradientOptions::default()).unwrap();
    close("y", &g.output, tensor("y"), 3e-6);
    close("gx", &g.input, (vec![2, 260], joined("ga", "gb")), 1e-5);
}

/// PyTorch's rule where both are equal: half to each. A NaN's gradient goes to both.
#[test]
fn minima_and_maxima_share_their_gradient() {
    use swath::graph::ops::Binary;
    let x = Tensor::new([2, 4], &[1.0, 2.0, 3.0, f32::NAN, 2.0, 2.0, 2.0, 2.0]).unwrap();
    let gy = Tensor::new([1, 4], &[1.0, 2.0, 4.0, 8.0]).unwrap();
    let run = |op: Binary| {
        let net = move |x: &swath::Value| Ok(x.push(op, &[&x.narrow(0, 0, 1), &x.narrow(0, 1, 1)]));
        gradients(&net.build(0).unwrap(), &x, &gy, &GradientOptions::default()).unwrap().input.as_slice().to_vec()
    };
    assert_eq!(run(Binary::max()), [0.0, 1.0, 4.0, 8.0, 1.0, 1.0, 0.0, 8.0]);
    assert_eq!(run(Binary::min()), [1.0, 1.0, 0.0, 8.0, 0.0, 1.0, 4.0, 8.0]);
    let net = |x: &swath::Value| Ok(x.push(Binary::max(), &[x, &AdaptiveAvgPool2d::new(1).call(x)?]));
    let check = check_gradients(&net, [2, 3, 3, 4], 1e-3, 3).unwrap();
    assert!(check.worst() < 0.05, "{:?}", check.errors);
}

#[test]
fn dropout_drops_the_same_in_both_directions() {
    let x = Tensor::new([2, 18, 5, 4], &vec![1.0; 720]).unwrap();
    for p in [0.25f32, 1.0] {
        for (whole, layer) in [(false, Dropout::new(p).boxed()), (true, Dropout2d::new(p).boxed())] {
            for (form, model) in models(layer, x.dims()) {
                let g = gradients(&model, &x, &x, &GradientOptions::default()).unwrap();
                assert_eq!(g.output, g.input, "{form}");
                let dropped = g.output.as_slice().iter().filter(|v| **v == 0.0).count();
                let kept = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
                assert!(g.output.as_slice().iter().all(|&v| v == 0.0 || v == kept), "{form}");
                match (whole, p < 1.0) {
                    (_, false) => assert_eq!(dropped, 720),
                    (false, _) => assert!((140..220).contains(&dropped), "{dropped} of 720"),
                    (true, _) => {
                        assert!(dropped > 0 && dropped < 720 && dropped % 20 == 0, "{dropped}");
                        assert!(g.output.as_slice().chunks(20).all(|c| c.iter().all(|v| *v == c[0])));
                    }
                }
                let options = GradientOptions { evaluation: true, ..GradientOptions::default() };
                assert_eq!(gradients(&model, &x, &x, &options).unwrap().input, x, "{form}");
            }
        }
    }
    check_both(Dropout::new(0.3), [2, 18, 3, 4]);
    check_both(Dropout2d::new(0.3), [2, 5, 3, 4]);
    check(Dropout::default(), &[4, 30], 0.02);
}

/// In evaluation, pooling is what it is in training, and batch normalisation goes by its running statistics.
#[test]
fn evaluation_has_gradients_too() {
    let net = Sequential::new((
        Conv2d::new(2, 3, 3).named("conv"),
        BatchNorm2d::new(3).named("norm"),
        ReLU,
        MaxPool2d::new(2),
        Dropout::new(0.9),
    ));
    let mut model = net.build(0).unwrap();
    model.set_parameter("norm.running_var", &Tensor::new([3], &[4.0; 3]).unwrap()).unwrap();
    let x: Vec<f32> = (0..2 * 2 * 36).map(|i| (i as f32 * 0.7).sin()).collect();
    let x = Tensor::new([2, 2, 6, 6], &x).unwrap();
    let gy = Tensor::new([2, 3, 2, 2], &[1.0; 24]).unwrap();
    let options = GradientOptions { evaluation: true, ..GradientOptions::default() };
    let g = gradients(&model, &x, &gy, &options).unwrap();
    let y = model.compile(x.dims()).unwrap().run(&x).unwrap().clone();
    close("y", &g.output, (y.dims().to_vec(), y.as_slice().to_vec()), 1e-5);
    // The shift's gradient is the number of outputs above zero.
    let above = |k: usize| (0..8).filter(|i| y.as_slice()[i / 4 * 12 + k * 4 + i % 4] > 0.0).count() as f32;
    let (_, shift) = g.parameters.iter().find(|(n, _)| n == "norm.bias").unwrap();
    assert_eq!(shift.as_slice(), [above(0), above(1), above(2)]);
    assert!(g.input.as_slice().iter().any(|v| *v != 0.0));
}

/// What a normalisation takes along in training has the bits of the operators alone. A Flatten before the activation keeps those
/// apart, and changes no value.
#[test]
fn a_fused_normalisation_has_the_same_bits() {
    let dims = [3, 20, 9, 8];
    let wave = |len: usize, by: f32| -> Vec<f32> { (0..len).map(|i| (i as f32 * by).sin() * 3.0).collect() };
    let x = Tensor::new(dims, &wave(dims.iter().product(), 0.7)).unwrap();
    let functions: [fn() -> Box<dyn Module>; 4] =
        [|| ReLU.boxed(), || ReLU6.boxed(), || Hardtanh::new(-0.25, 0.5).boxed(), || Identity.boxed()];
    for (f, residual) in functions.into_iter().flat_map(|f| [(f, false), (f, true)]) {
        let build = |apart: bool| {
            let (conv, norm) = (Conv2d::new(20, 20, 1).named("conv"), BatchNorm2d::new(20).named("norm"));
            let function = f();
            let net = move |x: &swath::Value| {
                let other = x.sigmoid();
                let (y, other) = (norm.call(&conv.call(x)?)?, other);
                let (y, other) = if apart { (y.flatten(), other.flatten()) } else { (y, other) };
                Ok(function.call(&if residual { y + other } else { y })?.flatten())
            };
            net.build(1).unwrap()
        };
        let (fused, apart) = (build(false), build(true));
        let gy = Tensor::new([3, 20 * 72], &wave(3 * 20 * 72, 1.3)).unwrap();
        let [fused, apart] = [fused, apart].map(|m| gradients(&m, &x, &gy, &GradientOptions::default()).unwrap());
        assert_eq!(fused.output, apart.output);
        assert_eq!((fused.input, fused.parameters), (apart.input, apart.parameters), "{residual}");
    }
}

/// Large enough that passes are handed to threads; the order of every sum follows from the shape alone.
#[test]
fn threads_change_no_bit() {
    let gate =
        |x: &swath::Value| -> swath::Result<swath::Value> { Ok(x * AdaptiveAvgPool2d::new(1).call(x)?.sigmoid()) };
    let layers: Vec<Box<dyn Module>> = vec![
        Softmax::new(1).boxed(),
        LogSoftmax::new(2).boxed(),
        Upsample::scale_factor([1.5, 2.0]).mode(UpsampleMode::Bicubic).boxed(),
        ReflectionPad2d::new([3, 1, 0, 2]).boxed(),
        GroupNorm::new(11, 33).boxed(),
        InstanceNorm2d::new(33).affine(true).boxed(),
        LayerNorm::new([60]).boxed(),
        PReLU::new().num_parameters(33).boxed(),
        AdaptiveMaxPool2d::new([7, 5]).boxed(),
        Dropout::default().boxed(),
        PixelUnshuffle::new(2).boxed(),
        gate.boxed(),
        (|x: &swath::Value| Ok(x.narrow(1, 1, 30).concat(&[&x.narrow(1, 16, 17)]))).boxed(),
    ];
    let dims = [2, 33, 40, 60];
    let wave = |len: usize, by: f32| -> Vec<f32> { (0..len).map(|i| (i as f32 * by).sin()).collect() };
    let x = Tensor::new(dims, &wave(dims.iter().product(), 0.7)).unwrap();
    for (i, layer) in layers.into_iter().enumerate() {
        for (form, model) in models(layer, &dims) {
            let out = model.output_dims(dims).unwrap();
            let gy = Tensor::new(&out[..], &wave(out.iter().product(), 0.3)).unwrap();
            let run = |threads: usize| {
                let tuning = swath::Tuning::Off;
                let session = SessionOptions { threads: Some(threads), tuning, ..SessionOptions::default() };
                let options = GradientOptions { session, ..GradientOptions::default() };
                let g = gradients(&model, &x, &gy, &options).unwrap();
                let all = [&g.output, &g.input].into_iter().chain(g.parameters.iter().map(|(_, t)| t));
                all.flat_map(|t| t.as_slice().iter().map(|v| v.to_bits())).collect::<Vec<_>>()
            };
            let one = run(1);
            for threads in [2, 3, 8] {
                assert!(one == run(threads), "layer {i}{form} on {threads} threads");
            }
        }
    }
}
