//! Layers without convolutions, in training mode: values and gradients against PyTorch's in float64, from NCHW and from blocked tensors.

#[allow(dead_code)] // not every test uses all of it
mod support;

use serde_json::Value as Json;
use support::Fixtures;
use swath::nn::*;
use swath::train::{check_gradients, gradients};
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
fn layer(kind: &str, p: &Json) -> Option<Layer> {
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
            Some((GroupNorm::new(groups, 24).boxed(), &[("weight", "w"), ("bias", "b")]))
        }
        "instance_norm" => plain(InstanceNorm2d::new(6).boxed()),
        "layer_norm" => Some((LayerNorm::new([30]).boxed(), &[("weight", "w"), ("bias", "b")])),
        _ => None,
    }
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
    for (case, p) in fixtures.cases() {
        let Some(kind) = p["kind"].as_str() else { continue };
        let tensor = |name: &str| fixtures.tensor(&format!("{case}.{name}"));
        if kind.starts_with("conv") || layer(kind, &p).is_none() {
            continue;
        }
        let (dims, x) = tensor("x");
        let (layer, parameters) = layer(kind, &p).unwrap();
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
                let options = SessionOptions { level: Some(level), ..SessionOptions::default() };
                let g = gradients(&model, &input, &gy, &options).unwrap_or_else(|e| panic!("{what}: {e}"));
                close(&format!("{what} y"), &g.output, tensor("y"), 3e-6);
                close(&format!("{what} gx"), &g.input, tensor("gx"), 1e-5);
                for (name, from) in parameters {
                    let (_, got) = g.parameters.iter().find(|(n, _)| *n == format!("layer.{name}")).unwrap();
                    close(&format!("{what} {name}"), got, tensor(&format!("g{from}")), 1e-5);
                }
                // In inference the values are the same.
                let mut session = model.compile_with(&dims, &options).unwrap();
                close(&format!("{what} inference"), session.run(&input).unwrap(), tensor("y"), 3e-6);
            }
        }
        count += 1;
    }
    count
}

#[test]
fn layers_of_the_fixtures() {
    assert_eq!(every_case("layers"), 5);
}

#[test]
fn pooling_of_the_fixtures() {
    assert_eq!(every_case("pool2d"), 19);
}

#[test]
fn edges_of_the_fixtures() {
    assert_eq!(every_case("gradients2"), 36);
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
    let g = gradients(&layer.build(0).unwrap(), &x, &gy, &SessionOptions::default()).unwrap();
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
    let e = gradients(&model, &x, &x, &SessionOptions::default()).unwrap_err();
    assert_eq!(e.to_string(), "layer `head.mine`: Mine has no gradient");
}
