//! Pooling, activations and softmax against PyTorch's results, at every level and in every layout.

mod support;

use serde_json::Value;
use support::{Fixtures, assert_close, numbers};
use swath_kernels::act;
use swath_kernels::epilogue::Activation;
use swath_kernels::isa::Level;
use swath_kernels::layout::{Layout, reorder};
use swath_kernels::pass::Place;
use swath_kernels::pool::{self, AdaptiveShape, Divisor};
use swath_kernels::shape::PoolShape;

/// f32 against f64 rounded to f32: a few roundings.
const TOLERANCE: f32 = 1e-6;

fn dims(shape: &[usize]) -> [usize; 4] {
    shape.try_into().expect("four extents")
}

/// Runs `f(layout, x, y)` in every layout and compares `y` in NCHW.
fn in_every_layout(
    name: &str,
    (x_dims, x): (&[usize], &[f32]),
    (y_dims, y): (&[usize], &[f32]),
    f: impl Fn(Layout, &[f32], &mut [f32]),
) {
    let (x_dims, y_dims) = (dims(x_dims), dims(y_dims));
    for layout in Layout::ALL {
        let mut xl = vec![f32::NAN; layout.len(x_dims)];
        let mut yl = vec![f32::NAN; layout.len(y_dims)];
        let mut back = vec![f32::NAN; y.len()];
        reorder(Layout::Nchw, x, layout, &mut xl, x_dims);
        f(layout, &xl, &mut yl);
        reorder(layout, &yl, Layout::Nchw, &mut back, y_dims);
        assert_close(&format!("{name} {layout:?}"), &back, y, TOLERANCE);
    }
}

fn window(params: &Value, input: [usize; 4]) -> PoolShape {
    let dilation = if params["kind"] == "max" { numbers(params, "dilation") } else { [1, 1] };
    PoolShape::builder(input, numbers(params, "kernel"))
        .stride(numbers(params, "stride"))
        .padding(numbers::<2>(params, "padding"))
        .dilation(dilation)
        .ceil_mode(params["ceil_mode"].as_bool().expect("ceil_mode"))
        .build()
        .expect("a shape that PyTorch accepts")
}

#[test]
fn pooling() {
    let fixtures = Fixtures::open("pool2d");
    let mut count = 0;
    for (case, params) in fixtures.cases() {
        let (x_shape, x) = fixtures.tensor(&format!("{case}.x"));
        let (y_shape, y) = fixtures.tensor(&format!("{case}.y"));
        for &level in Level::available() {
            let (name, place) = (format!("{case} {level}"), &Place::inline(level));
            in_every_layout(&name, (&x_shape, &x), (&y_shape, &y), |layout, x, y| match params["kind"].as_str() {
                Some("max") => {
                    let s = window(&params, dims(&x_shape));
                    assert_eq!(s.output(), dims(&y_shape), "{name}");
                    let (mut other, mut indices) = (y.to_vec(), vec![0; y.len()]);
                    pool::max(place, layout, &s, x, (&mut *y).into(), None);
                    pool::max(place, layout, &s, x, other.as_mut_slice().into(), Some(&mut indices));
                    assert_eq!(y, other, "{name} with indices");
                }
                Some("avg") => {
                    let s = window(&params, dims(&x_shape));
                    assert_eq!(s.output(), dims(&y_shape), "{name}");
                    let include = params["count_include_pad"].as_bool().expect("count_include_pad");
                    let divisor = if include { Divisor::Padded } else { Divisor::Inside };
                    pool::average(place, layout, &s, x, y.into(), divisor);
                }
                Some("adaptive_avg") => {
                    let s = AdaptiveShape::new(dims(&x_shape), numbers(&params, "output")).expect("a shape");
                    assert_eq!(s.output(), dims(&y_shape), "{name}");
                    pool::adaptive_average(place, layout, &s, x, y.into());
                }
                kind => panic!("{case} is of an unknown kind {kind:?}"),
            });
        }
        count += 1;
    }
    assert_eq!(count, 19, "cases in the file");
}

/// PyTorch's functional of that name, with the parameters of `tools/scripts/make_fixtures.py`.
fn activation(kind: &str) -> Activation {
    match kind {
        "relu" => Activation::Relu,
        "relu6" => Activation::Clip { lo: 0.0, hi: 6.0 },
        "leaky_relu" => Activation::LeakyRelu { slope: 0.1 },
        "elu" => Activation::Elu { alpha: 1.0 },
        "selu" => Activation::Selu,
        "celu" => Activation::Celu { alpha: 1.0 },
        "sigmoid" => Activation::Sigmoid,
        "tanh" => Activation::Tanh,
        "gelu" => Activation::Gelu,
        "gelu_tanh" => Activation::GeluTanh,
        "silu" => Activation::Silu,
        "mish" => Activation::Mish,
        "softplus" => Activation::Softplus { beta: 1.0, threshold: 20.0 },
        "hardswish" => Activation::HardSwish,
        "hardsigmoid" => Activation::HardSigmoid,
        "hardtanh" => Activation::Clip { lo: -1.0, hi: 1.0 },
        other => panic!("unknown activation {other}"),
    }
}

#[test]
fn activations_and_softmax() {
    let fixtures = Fixtures::open("layers");
    let (mut activations, mut softmaxes) = (0, 0);
    for (case, params) in fixtures.cases() {
        let kind = params["kind"].as_str().expect("kind");
        let softmax = kind == "softmax" || kind == "log_softmax";
        if !softmax && !case.starts_with("act_") {
            continue;
        }
        let (shape, x) = fixtures.tensor(&format!("{case}.x"));
        let (_, want) = fixtures.tensor(&format!("{case}.y"));
        for &level in Level::available() {
            let mut y = vec![f32::NAN; x.len()];
            if softmax {
                let f = if kind == "softmax" { act::softmax } else { act::log_softmax };
                f(level, shape[0], shape[1], &x, &mut y);
            } else {
                act::apply(level, activation(kind), &x, &mut y);
                let mut in_place = x.clone();
                act::apply_inplace(level, activation(kind), &mut in_place);
                assert_eq!(y, in_place, "{case} {level} in place");
            }
            assert_close(&format!("{case} {level}"), &y, &want, TOLERANCE);
        }
        if softmax { softmaxes += 1 } else { activations += 1 }
    }
    assert_eq!((activations, softmaxes), (16, 2), "cases in the file");
}
