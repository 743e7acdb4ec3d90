//! Against PyTorch's results, forward and backward (`tools/scripts/make_fixtures.py` and `make_fixtures_2.py`).

use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use swath_kernels::act::{self, Kept};
use swath_kernels::arith::{Arith, Op, Operand, PRelu};
use swath_kernels::epilogue::Activation;
use swath_kernels::layout::Layout;
use swath_kernels::norm::{
    Backward, Forward, Gradients, LayerBackward, LayerNorm, Norm, Normalised, Running, Sets, inverse,
};

use swath_kernels::pass::Place;
use swath_kernels::pool::{self, AdaptiveShape, Divisor};
use swath_kernels::resample::{Filter, Resample, Size};
use swath_kernels::shape::PoolShape;
use swath_kernels::shuffle::Shuffle;
use swath_kernels::softmax::{Axis, CrossEntropy, Targets};

use crate::support::{at_levels, back, close, largest, to, wide};

/// Cases of a file whose kind is one of some.
struct Cases {
    bytes: Vec<u8>,
}

/// One case: its parameters and tensors.
struct Case<'a> {
    name: String,
    params: Value,
    file: SafeTensors<'a>,
}

impl Cases {
    fn open(name: &str) -> Self {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(format!("{name}.safetensors"));
        Self { bytes: std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())) }
    }

    /// Calls `f` for each case whose name begins so; at least `least` of them.
    fn each(&self, prefix: &str, least: usize, f: impl Fn(&Case<'_>)) {
        let (_, metadata) = SafeTensors::read_metadata(&self.bytes).unwrap();
        let mut count = 0;
        for (name, text) in metadata.metadata().as_ref().unwrap() {
            if name.starts_with(prefix) {
                let params = serde_json::from_str(text).unwrap();
                f(&Case { name: name.clone(), params, file: SafeTensors::deserialize(&self.bytes).unwrap() });
                count += 1;
            }
        }
        assert!(count >= least, "{count} cases of {prefix}");
    }
}

impl Case<'_> {
    fn get(&self, tensor: &str) -> (Vec<usize>, Vec<f32>) {
        let view = self
            .file
            .tensor(&format!("{}.{tensor}", self.name))
            .unwrap_or_else(|e| panic!("{}.{tensor}: {e}", self.name));
        assert_eq!(view.dtype(), Dtype::F32, "{tensor}");
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        (view.shape().to_vec(), values)
    }

    /// A tensor of integers.
    fn i(&self, tensor: &str) -> Vec<i64> {
        let view = self.file.tensor(&format!("{}.{tensor}", self.name)).unwrap();
        assert_eq!(view.dtype(), Dtype::I64, "{tensor}");
        view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn f(&self, tensor: &str) -> Vec<f32> {
        self.get(tensor).1
    }

    fn dims(&self, tensor: &str) -> [usize; 4] {
        let mut dims = [1; 4];
        for (d, s) in dims.iter_mut().zip(self.get(tensor).0) {
            *d = s;
        }
        dims
    }

    /// One result against a tensor of the file.
    fn close(&self, what: &str, got: &[f32], tensor: &str, tolerance: f64) {
        let want = wide(&self.f(tensor));
        close(&format!("{} {what} {tensor}", self.name), got, &want, tolerance, largest(&want, 1.0));
    }
}

fn activation(kind: &str) -> Option<Activation> {
    use Activation::*;
    Some(match kind {
        "relu" => Relu,
        "relu6" => Clip { lo: 0.0, hi: 6.0 },
        "hardtanh" => Clip { lo: -1.0, hi: 1.0 },
        "leaky_relu" => LeakyRelu { slope: 0.1 },
        "elu" => Elu { alpha: 1.0 },
        "selu" => Selu,
        "celu" => Celu { alpha: 1.0 },
        "sigmoid" => Sigmoid,
        "tanh" => Tanh,
        "gelu" => Gelu,
        "gelu_tanh" => GeluTanh,
        "silu" => Silu,
        "mish" => Mish,
        "softplus" => Softplus { beta: 1.0, threshold: 20.0 },
        "hardswish" => HardSwish,
        "hardsigmoid" => HardSigmoid,
        _ => return None,
    })
}

#[test]
fn activations_and_their_kinks() {
    let check = |case: &Case<'_>| {
        let kind = case.params["kind"].as_str().unwrap();
        let Some(mut act) = activation(kind) else { return assert_eq!(kind, "abs") };
        if case.name == "kink_leaky_relu" {
            act = Activation::LeakyRelu { slope: 0.01 };
        }
        let (x, gy) = (case.f("x"), case.f("gy"));
        for (level, got) in at_levels(|place| {
            let mut dx = vec![f32::NAN; x.len()];
            act::backward(place, act, Kept::Input(&x), &gy, &mut dx);
            let mut from_y = dx.clone();
            if act::output_suffices(act) {
                let mut y = vec![0.0; x.len()];
                act::apply(place.level(), act, &x, &mut y);
                act::backward(place, act, Kept::Output(&y), &gy, &mut from_y);
            }
            vec![dx, from_y]
        }) {
            case.close(&format!("{level}"), &got[0], "gx", 1e-6);
            case.close(&format!("{level} from y"), &got[1], "gx", 1e-6);
        }
    };
    Cases::open("layers").each("act_", 16, check);
    Cases::open("gradients2").each("kink_", 8, check);
}

/// Forward in training, backward, running statistics, and evaluation, in every layout.
fn batch_norm(case: &Case<'_>, names: [&str; 2], training: bool, tolerance: f64) {
    let [y_name, eval_name] = names;
    let dims = case.dims("x");
    let (w, b) = (case.f("w"), case.f("b"));
    for layout in Layout::ALL {
        let norm = Norm::new(layout, dims, Sets::Batch).unwrap();
        let (x, gy) = (to(layout, dims, &case.f("x")), to(layout, dims, &case.f("gy")));
        for (level, got) in at_levels(|place| {
            let mut scratch = vec![f32::NAN; norm.scratch()];
            let (mut rm, mut rv) = (case.f("running_mean"), case.f("running_var"));
            let (mut mean, mut inv) = (rm.clone(), vec![f32::NAN; w.len()]);
            inverse(&rv, 1e-5, &mut inv);
            let f = Forward { x: &x, w: Some(&w), b: Some(&b), eps: 1e-5, ..Forward::default() };
            let (mut y, mut eval, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
            norm.evaluate(place, &f, &mean, &inv, &mut eval, &mut scratch);
            if training {
                let running = Some(Running { mean: &mut rm, var: &mut rv, momentum: 0.1 });
                norm.forward(
                    place,
                    &f,
                    Normalised { y: &mut y, mean: &mut mean, inv: &mut inv, running, affine: None },
                    &mut scratch,
                );
            } else {
                y.copy_from_slice(&eval);
            }
            let (mut dw, mut db) = (vec![f32::NAN; w.len()], vec![f32::NAN; w.len()]);
            let back_args = Backward {
                x: &x,
                dy: &gy,
                w: Some(&w),
                mean: &mean,
                inv: &inv,
                frozen: !training,
                ..Backward::default()
            };
            let out = Gradients { dx: Some(&mut dx), dw: Some(&mut dw), db: Some(&mut db) };
            norm.backward(place, &back_args, out, &mut scratch);
            let b = |v: &[f32]| back(layout, dims, v);
            vec![b(&y), b(&eval), b(&dx), dw, db, rm, rv]
        }) {
            let what = format!("{level} {layout:?}");
            case.close(&what, &got[0], y_name, tolerance);
            if !eval_name.is_empty() {
                case.close(&what, &got[1], eval_name, tolerance);
            }
            for (i, name) in ["gx", "gw", "gb"].iter().enumerate() {
                case.close(&what, &got[2 + i], name, tolerance);
            }
            if training {
                case.close(&what, &got[5], "running_mean_after", 1e-6);
                case.close(&what, &got[6], "running_var_after", tolerance);
            }
        }
    }
}

#[test]
fn batch_normalisation() {
    Cases::open("layers").each("batch_norm_", 3, |case| batch_norm(case, ["y_train", "y_eval"], true, 2e-6));
    let second = Cases::open("gradients2");
    second.each("batch_norm_eval", 1, |case| batch_norm(case, ["y", ""], false, 2e-6));
    second.each("batch_norm_two_values", 1, |case| batch_norm(case, ["y", ""], true, 2e-6));
    // The stored input is rounded to f32 at 1000, which is 3e-5 of a standard deviation.
    second.each("batch_norm_far_mean", 1, |case| batch_norm(case, ["y", ""], true, 1e-4));
}

#[test]
fn group_and_instance_normalisation() {
    let check = |case: &Case<'_>| {
        let dims = case.dims("x");
        let affine = case.name.starts_with("group");
        let groups = case.params["groups"].as_u64().map_or(dims[1], |g| g as usize);
        let (w, b) = if affine { (case.f("w"), case.f("b")) } else { (vec![], vec![]) };
        for layout in Layout::ALL {
            let norm = Norm::new(layout, dims, Sets::Groups(groups)).unwrap();
            let (x, gy) = (to(layout, dims, &case.f("x")), to(layout, dims, &case.f("gy")));
            for (level, got) in at_levels(|place| {
                let mut scratch = vec![f32::NAN; norm.scratch()];
                let (mut mean, mut inv) = (vec![f32::NAN; norm.sets()], vec![f32::NAN; norm.sets()]);
                let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
                let (w, b) = (affine.then_some(&w[..]), affine.then_some(&b[..]));
                let f = Forward { x: &x, w, b, eps: 1e-5, ..Forward::default() };
                norm.forward(
                    place,
                    &f,
                    Normalised { y: &mut y, mean: &mut mean, inv: &mut inv, running: None, affine: None },
                    &mut scratch,
                );
                let (mut dw, mut db) = (vec![f32::NAN; dims[1]], vec![f32::NAN; dims[1]]);
                let args = Backward { x: &x, dy: &gy, w, mean: &mean, inv: &inv, ..Backward::default() };
                norm.backward(
                    place,
                    &args,
                    Gradients { dx: Some(&mut dx), dw: Some(&mut dw), db: Some(&mut db) },
                    &mut scratch,
                );
                vec![back(layout, dims, &y), back(layout, dims, &dx), dw, db]
            }) {
                let what = format!("{level} {layout:?}");
                for (got, name) in got.iter().zip(["y", "gx", "gw", "gb"]).take(if affine { 4 } else { 2 }) {
                    case.close(&what, got, name, 2e-6);
                }
            }
        }
    };
    let file = Cases::open("gradients2");
    file.each("group_norm_", 3, check);
    file.each("instance_norm", 1, check);
}

#[test]
fn layer_normalisation() {
    Cases::open("gradients2").each("layer_norm", 1, |case| {
        let [rows, cols, ..] = case.dims("x");
        let norm = LayerNorm::new(rows, cols).unwrap();
        let (x, gy, w, b) = (case.f("x"), case.f("gy"), case.f("w"), case.f("b"));
        for (level, got) in at_levels(|place| {
            let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
            let (mut mean, mut inv) = (vec![f32::NAN; rows], vec![f32::NAN; rows]);
            let (mut dw, mut db) = (vec![f32::NAN; cols], vec![f32::NAN; cols]);
            norm.forward(place, &x, Some([&w, &b]), 1e-5, &mut y, [&mut mean, &mut inv]);
            let args = LayerBackward { x: &x, dy: &gy, w: Some(&w), mean: &mean, inv: &inv };
            norm.backward(place, &args, Some(&mut dx), Some([&mut dw, &mut db]));
            vec![y, dx, dw, db]
        }) {
            for (got, name) in got.iter().zip(["y", "gx", "gw", "gb"]) {
                case.close(&format!("{level}"), got, name, 2e-6);
            }
        }
    });
}

fn pair(params: &Value, key: &str) -> [usize; 2] {
    match &params[key] {
        Value::Array(a) => [0, 1].map(|i| a[i].as_u64().unwrap() as usize),
        Value::Null => [1; 2],
        v => [v.as_u64().unwrap() as usize; 2],
    }
}

/// `None` for a window in ceil mode that is larger than the image, which shapes refuse so far.
fn window(case: &Case<'_>) -> Option<PoolShape> {
    let shape = PoolShape::builder(case.dims("x"), pair(&case.params, "kernel"))
        .stride(pair(&case.params, "stride"))
        .padding(pair(&case.params, "padding"))
        .dilation(pair(&case.params, "dilation"))
        .ceil_mode(case.params["ceil_mode"].as_bool().unwrap_or(false))
        .build()
        .ok();
    let [_, _, h, w] = case.dims("x");
    let [kh, kw] = pair(&case.params, "kernel");
    assert!(shape.is_some() || kh > h || kw > w, "{} is refused", case.name);
    shape
}

/// Runs a pooling operator's forward and backward pass in every layout: `f(place, layout, x, y, dy, dx)`.
fn pooled(case: &Case<'_>, output: [usize; 4], f: impl Fn(&Place<'_>, Layout, &[f32], &mut [f32], &[f32], &mut [f32])) {
    let dims = case.dims("x");
    assert_eq!(output, case.dims("y"));
    for layout in Layout::ALL {
        let (x, gy) = (to(layout, dims, &case.f("x")), to(layout, output, &case.f("gy")));
        for (level, got) in at_levels(|place| {
            let (mut y, mut dx) = (vec![f32::NAN; gy.len()], vec![f32::NAN; x.len()]);
            f(place, layout, &x, &mut y, &gy, &mut dx);
            vec![back(layout, output, &y), back(layout, dims, &dx)]
        }) {
            case.close(&format!("{level} {layout:?}"), &got[0], "y", 1e-6);
            case.close(&format!("{level} {layout:?}"), &got[1], "gx", 1e-6);
        }
    }
}

#[test]
fn pooling() {
    let max = |case: &Case<'_>| {
        let Some(s) = window(case) else { return };
        pooled(case, s.output(), |place, layout, x, y, dy, dx| {
            let mut taps = vec![0u8; y.len()];
            pool::max_taps(place, layout, &s, x, y.into(), taps.as_mut_slice().into());
            pool::max_backward(place, layout, &s, &taps, dy, dx.into());
        });
    };
    let average = |case: &Case<'_>| {
        let Some(s) = window(case) else { return };
        let inside = !case.params["count_include_pad"].as_bool().unwrap();
        let divisor = if inside { Divisor::Inside } else { Divisor::Padded };
        pooled(case, s.output(), |place, layout, x, y, dy, dx| {
            pool::average(place, layout, &s, x, y.into(), divisor);
            pool::average_backward(place, layout, &s, divisor, dy, dx.into());
        });
    };
    let adaptive = |case: &Case<'_>| {
        let s = AdaptiveShape::new(case.dims("x"), pair(&case.params, "output")).unwrap();
        let max = case.params["kind"].as_str().unwrap().contains("max");
        pooled(case, s.output(), |place, layout, x, y, dy, dx| {
            if max {
                let mut indices = vec![0; y.len()];
                pool::adaptive_max(place, layout, &s, x, y.into(), indices.as_mut_slice().into());
                pool::adaptive_max_backward(place, layout, &s, &indices, dy, dx.into());
            } else {
                pool::adaptive_average(place, layout, &s, x, y.into());
                pool::adaptive_average_backward(place, layout, &s, dy, dx.into());
            }
        });
    };
    let (first, second) = (Cases::open("pool2d"), Cases::open("gradients2"));
    first.each("max", 6, max);
    second.each("max_pool_", 6, max);
    first.each("avg", 10, average);
    second.each("avg_pool_", 8, average);
    first.each("adaptive_avg_", 3, adaptive);
    second.each("adaptive_", 8, adaptive);
}

#[test]
fn softmax() {
    for log in [false, true] {
        Cases::open("layers").each(if log { "log_softmax" } else { "softmax" }, 1, |case| {
            let (x, gy) = (case.f("x"), case.f("gy"));
            let axis = Axis::of(&case.get("x").0, 1).unwrap();
            for (level, got) in at_levels(|place| {
                let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
                if log {
                    axis.log_softmax(place, &x, &mut y);
                    axis.log_softmax_backward(place, &y, &gy, &mut dx);
                } else {
                    axis.softmax(place, &x, &mut y);
                    axis.softmax_backward(place, &y, &gy, &mut dx);
                }
                vec![y, dx]
            }) {
                case.close(&format!("{level}"), &got[0], "y", 1e-6);
                case.close(&format!("{level}"), &got[1], "gx", 1e-6);
            }
        });
    }
}

#[test]
fn cross_entropy() {
    let check = |case: &Case<'_>| {
        let (x, extents) = (case.f("x"), case.get("x").0);
        let soft = case.params["targets"] == "probabilities";
        let (classes, p) = if soft { (vec![], case.f("target")) } else { (case.i("target"), vec![]) };
        let targets = if soft { Targets::Probabilities(&p) } else { Targets::Classes(&classes) };
        let weights = (case.params["weighted"] == true).then(|| case.f("weight"));
        let loss = CrossEntropy {
            axis: Axis::of(&extents, 1).unwrap(),
            weights: weights.as_deref(),
            smoothing: case.params["label_smoothing"].as_f64().unwrap_or(0.0) as f32,
            ignore: case.params["ignore_index"].as_i64().unwrap_or(-100),
        };
        for (level, got) in at_levels(|place| {
            let positions = loss.axis.positions();
            let (mut lp, mut losses) = (vec![f32::NAN; x.len()], vec![f32::NAN; positions]);
            let l = loss.forward(place, &x, targets, &mut lp, &mut losses).unwrap();
            let (value, g) = if case.params["reduction"] == "sum" { (l.sum, 1.0) } else { (l.mean(), 1.0 / l.weight) };
            let mut dx = vec![f32::NAN; x.len()];
            loss.backward(place, targets, &lp, &vec![g as f32; positions], &mut dx);
            vec![vec![value as f32], dx]
        }) {
            case.close(&format!("{level}"), &got[0], "y", 1e-6);
            case.close(&format!("{level}"), &got[1], "gx", 1e-6);
        }
    };
    Cases::open("layers").each("cross_entropy_", 2, check);
    Cases::open("gradients2").each("cross_entropy_", 11, check);
}

#[test]
fn prelu_and_products() {
    let file = Cases::open("gradients2");
    file.each("prelu", 1, |case| {
        let (dims, w) = (case.dims("x"), case.f("w"));
        for layout in Layout::ALL {
            let prelu = PRelu::new(layout, dims, w.len()).unwrap();
            let (x, gy) = (to(layout, dims, &case.f("x")), to(layout, dims, &case.f("gy")));
            for (level, got) in at_levels(|place| {
                let mut scratch = vec![f32::NAN; prelu.scratch()];
                let (mut y, mut dx, mut dw) =
                    (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()], vec![f32::NAN; w.len()]);
                prelu.forward(place, &x, &w, &mut y, &mut scratch);
                prelu.backward(place, [&x, &w, &gy], Some(&mut dx), Some(&mut dw), &mut scratch);
                vec![back(layout, dims, &y), back(layout, dims, &dx), dw]
            }) {
                for (got, name) in got.iter().zip(["y", "gx", "gw"]) {
                    case.close(&format!("{level} {layout:?}"), got, name, 1e-6);
                }
            }
        }
    });
    file.each("squeeze_excite", 1, |case| {
        let (dims, small) = (case.dims("a"), case.dims("b"));
        let sigmoid = |v: f32| 1.0 / (1.0 + (-f64::from(v)).exp());
        let gate: Vec<f32> = case.f("b").iter().map(|&b| sigmoid(b) as f32).collect();
        for layout in Layout::ALL {
            let product = Arith::new(layout, dims, Operand::Pixels).unwrap();
            let (a, gy, b) =
                (to(layout, dims, &case.f("a")), to(layout, dims, &case.f("gy")), to(layout, small, &gate));
            for (level, got) in at_levels(|place| {
                let mut scratch = vec![f32::NAN; product.scratch()];
                let (mut y, mut da, mut db) =
                    (vec![f32::NAN; a.len()], vec![f32::NAN; a.len()], vec![f32::NAN; b.len()]);
                product.forward(place, Op::Mul, &a, &b, &mut y, &mut scratch);
                product.backward(place, Op::Mul, [&a, &b, &gy], Some(&mut da), Some(&mut db), &mut scratch);
                let db: Vec<f32> = back(layout, small, &db).iter().zip(&gate).map(|(d, g)| d * g * (1.0 - g)).collect();
                vec![back(layout, dims, &y), back(layout, dims, &da), db]
            }) {
                for (got, name) in got.iter().zip(["y", "ga", "gb"]) {
                    case.close(&format!("{level} {layout:?}"), got, name, 1e-6);
                }
            }
        }
    });
}

#[test]
fn interpolation() {
    let check = |case: &Case<'_>| {
        let dims = case.dims("x");
        let align_corners = case.params["align_corners"] == true;
        let filter = match case.params["mode"].as_str().unwrap() {
            "nearest" => Filter::Nearest,
            "nearest-exact" => Filter::NearestExact,
            "bilinear" => Filter::Bilinear { align_corners },
            "bicubic" => Filter::Bicubic { align_corners },
            mode => panic!("{mode}"),
        };
        let size = case.params["scale_factor"]
            .as_f64()
            .map_or_else(|| Size::To(pair(&case.params, "size")), |f| Size::By([f; 2]));
        let output = Resample::resize(Layout::Nchw, dims, size, filter).unwrap().output();
        pooled(case, output, |place, layout, x, y, dy, dx| {
            let map = Resample::resize(layout, dims, size, filter).unwrap();
            map.forward(place, x, y.into());
            map.backward(place, dy, dx.into());
        });
    };
    Cases::open("layers").each("interpolate_", 3, check);
    Cases::open("gradients2").each("interpolate_", 8, check);
    Cases::open("gradients2").each("pixel_shuffle", 1, |case| {
        let shuffle = |layout| Shuffle::new(layout, case.dims("x"), 3).unwrap();
        pooled(case, shuffle(Layout::Nchw).wide(), |place, layout, x, y, dy, dx| {
            shuffle(layout).to_pixels(place, x, y);
            shuffle(layout).to_channels(place, dy, dx);
        });
    });
}
