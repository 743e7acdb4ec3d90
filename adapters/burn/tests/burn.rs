//! Against burn's own results and gradients, and against differences where burn has no gradient.

use burn::module::Module;
use burn::nn::conv::{Conv2dConfig, ConvTranspose2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2dConfig, AvgPool2dConfig, MaxPool2dConfig};
use burn::nn::{BatchNormConfig, PaddingConfig2d};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions, InterpolateMode, InterpolateOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData, module};
use swath_burn::OnSwath;

/// Numbers in -1 to 1, the same in every run.
fn random<const D: usize>(dims: [usize; D], device: &Device) -> Tensor<D> {
    let mut state = dims.iter().fold(12345u32, |s, &d| s.wrapping_mul(31).wrapping_add(d as u32));
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let data: Vec<f32> = (0..dims.iter().product()).map(|_| next()).collect();
    Tensor::from_data(TensorData::new(data, dims), device)
}

fn floats<const D: usize>(t: &Tensor<D>) -> Vec<f32> {
    t.to_data().try_to_vec().unwrap()
}

fn close<const D: usize>(what: &str, a: &Tensor<D>, b: &Tensor<D>) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let (a, b) = (floats(a), floats(b));
    let scale = b.iter().fold(1f32, |s, v| s.max(v.abs()));
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() < 2e-5 * scale, "{what}: {a} where burn has {b}");
    }
}

fn tracked() -> Device {
    Device::default().autodiff()
}

/// Results and gradients of two functions of an image, weights and a bias, under a loss that weighs every output.
fn same(
    what: &str,
    (x, w, b): ([usize; 4], [usize; 4], usize),
    ours: impl Fn(Tensor<4>, Tensor<4>, Tensor<1>) -> Tensor<4>,
    theirs: impl Fn(Tensor<4>, Tensor<4>, Tensor<1>) -> Tensor<4>,
) {
    let run = |f: &dyn Fn(Tensor<4>, Tensor<4>, Tensor<1>) -> Tensor<4>| {
        let device = tracked();
        let (x, w, b) = (random(x, &device), random(w, &device), random([b], &device));
        let (x, w, b) = (x.require_grad(), w.require_grad(), b.require_grad());
        let y = f(x.clone(), w.clone(), b.clone());
        let weight = random(y.dims(), &device);
        let gradients = (y.clone() * weight).sum().backward();
        (y.inner(), x.grad(&gradients), w.grad(&gradients), b.grad(&gradients))
    };
    let (a, b) = (run(&ours), run(&theirs));
    close(what, &a.0, &b.0);
    for (name, a, b) in [("x", a.1, b.1), ("w", a.2, b.2)] {
        assert_eq!(a.is_some(), b.is_some(), "{what}: gradient at {name}");
        if let (Some(a), Some(b)) = (a, b) {
            close(&format!("{what}: gradient at {name}"), &a, &b);
        }
    }
    assert_eq!(a.3.is_some(), b.3.is_some(), "{what}: gradient at the bias");
    if let (Some(a), Some(b)) = (a.3, b.3) {
        close(&format!("{what}: gradient at the bias"), &a, &b);
    }
}

/// The same of functions of an image alone.
fn same_of_image(
    what: &str,
    x: [usize; 4],
    ours: impl Fn(Tensor<4>) -> swath::Result<Tensor<4>>,
    theirs: impl Fn(Tensor<4>) -> Tensor<4>,
) {
    same(what, (x, [1; 4], 1), |x, _, _| ours(x).unwrap(), |x, _, _| theirs(x));
}

#[test]
fn convolutions() {
    for (x, w, options) in [
        ([2, 3, 12, 10], [8, 3, 3, 3], ConvOptions::new([1, 1], [1, 1], [1, 1], 1)),
        ([2, 16, 9, 9], [20, 16, 1, 1], ConvOptions::new([1, 1], [0, 0], [1, 1], 1)),
        ([2, 5, 11, 12], [6, 5, 3, 3], ConvOptions::new([2, 1], [1, 0], [1, 2], 1)),
        ([1, 8, 7, 7], [8, 1, 3, 3], ConvOptions::new([1, 1], [1, 1], [1, 1], 8)),
        ([2, 6, 8, 8], [9, 2, 3, 3], ConvOptions::new([2, 2], [1, 1], [1, 1], 3)),
        ([2, 4, 8, 7], [4, 4, 2, 3], ConvOptions::new_with_padding([1, 1], [(0, 1), (2, 1)], [1, 1], 1)),
    ] {
        let b = w[0];
        same(
            &format!("{options:?}"),
            (x, w, b),
            |x, w, b| swath_burn::conv2d(x, w, Some(b), &options).unwrap(),
            |x, w, b| module::conv2d(x, w, Some(b), options.clone()),
        );
        same(
            "without a bias",
            (x, w, b),
            |x, w, _| swath_burn::conv2d(x, w, None, &options).unwrap(),
            |x, w, _| module::conv2d(x, w, None, options.clone()),
        );
    }
}

#[test]
fn transposed_convolutions() {
    for (x, w, options) in [
        ([2, 6, 7, 5], [6, 4, 3, 3], ConvTransposeOptions::new([2, 2], [1, 1], [1, 1], [1, 1], 1)),
        ([2, 6, 7, 5], [6, 4, 3, 3], ConvTransposeOptions::new([1, 1], [1, 0], [0, 0], [2, 1], 1)),
        ([1, 6, 5, 5], [6, 2, 3, 3], ConvTransposeOptions::new([2, 1], [0, 0], [0, 0], [1, 1], 3)),
    ] {
        same(
            &format!("{options:?}"),
            (x, w, w[1] * options.groups),
            |x, w, b| swath_burn::conv_transpose2d(x, w, Some(b), &options).unwrap(),
            |x, w, b| module::conv_transpose2d(x, w, Some(b), options.clone()),
        );
    }
}

#[test]
fn views_are_read_in_order() {
    let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let view = |x: Tensor<4>| x.permute([0, 3, 1, 2]).narrow(1, 1, 3);
    same(
        "permuted and narrowed",
        ([2, 9, 8, 5], [3, 3, 4, 3], 4),
        |x, w, b| swath_burn::conv2d(view(x), w.permute([2, 0, 1, 3]), Some(b), &options).unwrap(),
        |x, w, b| module::conv2d(view(x), w.permute([2, 0, 1, 3]), Some(b), options.clone()),
    );
}

#[test]
fn modules_and_pooling() {
    let x = [2, 5, 9, 8];
    for (kernel, stride, padding) in [
        ([2, 2], [2, 2], PaddingConfig2d::Valid),
        ([3, 2], [2, 1], PaddingConfig2d::Explicit(1, 0, 1, 0)),
        ([3, 3], [1, 1], PaddingConfig2d::Same),
    ] {
        let max = MaxPool2dConfig::new(kernel).with_strides(stride).with_padding(padding.clone()).init();
        same_of_image(&format!("max {kernel:?}"), x, |x| max.on_swath(x), |x| max.forward(x));
        for inside in [true, false] {
            let average = AvgPool2dConfig::new(kernel).with_strides(stride).with_padding(padding.clone());
            let average = average.with_count_include_pad(inside).init();
            same_of_image(&format!("average {kernel:?} {inside}"), x, |x| average.on_swath(x), |x| average.forward(x));
        }
    }
    let adaptive = AdaptiveAvgPool2dConfig::new([4, 3]).init();
    same_of_image("adaptive", x, |x| adaptive.on_swath(x), |x| adaptive.forward(x));

    let device = Device::default();
    for padding in [PaddingConfig2d::Same, PaddingConfig2d::Valid, PaddingConfig2d::Explicit(2, 1, 0, 1)] {
        let conv = Conv2dConfig::new([5, 4], [3, 2]).with_stride([2, 2]).with_padding(padding).init(&device);
        close("conv", &conv.on_swath(random(x, &device)).unwrap(), &conv.forward(random(x, &device)));
    }
    let conv = ConvTranspose2dConfig::new([5, 4], [3, 2]).with_stride([2, 2]).init(&device);
    close("transposed", &conv.on_swath(random(x, &device)).unwrap(), &conv.forward(random(x, &device)));
}

#[test]
fn batch_normalisation() {
    let (x, config) = ([3, 6, 5, 4], BatchNormConfig::new(6).with_epsilon(1e-3).with_momentum(0.3));
    // By the batch's statistics: gradients at image, scale and shift.
    let ours = |x, w: Tensor<4>, b| swath_burn::batch_norm_train(x, [w.reshape([6]), b], 1e-3).unwrap().0;
    let theirs = |x, w: Tensor<4>, b| module::batch_norm_train(x, w.reshape([6]), b, 1e-3).output;
    same("training", (x, [6, 1, 1, 1], 6), ours, theirs);
    // By given ones.
    let ours =
        |x, w: Tensor<4>, b| swath_burn::batch_norm(x, [w.reshape([6]), b], [&[0.5; 6], &[2.0; 6]], 1e-3).unwrap();
    let theirs = |x: Tensor<4>, w: Tensor<4>, b| {
        let given = [0.5, 2.0].map(|v| Tensor::<1>::full([6], v, &x.device()));
        let [mean, variance] = given;
        module::batch_norm(x, w.reshape([6]), b, mean, variance, 1e-3)
    };
    same("evaluation", (x, [6, 1, 1, 1], 6), ours, theirs);
    // The modules: running statistics after two steps, and what they give in evaluation.
    let device = tracked();
    let [ours, theirs] = [config.init(&device), config.init(&device)];
    for _ in 0..2 {
        let x = random(x, &device) * 3.0 + 1.0;
        close("module", &ours.on_swath(x.clone()).unwrap(), &theirs.forward(x));
    }
    close("running mean", &ours.running_mean.value(), &theirs.running_mean.value());
    close("running variance", &ours.running_var.value(), &theirs.running_var.value());
    let (ours, theirs, x) = (ours.valid(), theirs.valid(), random(x, &Device::default()));
    close("module in evaluation", &ours.on_swath(x.clone()).unwrap(), &theirs.forward(x));
}

#[test]
fn indices_of_max_pooling() {
    let (x, options) = (random([2, 3, 8, 6], &Device::default()), MaxPoolOptions::new([2, 3]).with_stride([2, 1]));
    let (y, indices) = swath_burn::max_pool2d_with_indices(x.clone(), &options).unwrap();
    let (their_y, their_indices) = module::max_pool2d_with_indices(x, options);
    close("values", &y, &their_y);
    assert_eq!(
        indices.to_data().iter::<i64>().collect::<Vec<_>>(),
        their_indices.to_data().iter::<i64>().collect::<Vec<_>>()
    );
}

#[test]
fn interpolation() {
    let x = [2, 3, 4, 5];
    for size in [[8, 10], [7, 9], [3, 11]] {
        for mode in [InterpolateMode::Nearest, InterpolateMode::Bilinear, InterpolateMode::Bicubic] {
            for corners in [false, true] {
                let options = InterpolateOptions::new(mode.clone()).with_output_size(size).with_align_corners(corners);
                let ours = |x| swath_burn::interpolate(x, &options);
                let what = format!("{options:?}");
                if matches!(mode, InterpolateMode::Nearest) {
                    same_of_image(&what, x, ours, |x| module::interpolate(x, options.clone()));
                    continue;
                }
                let plain: Tensor<4> = random(x, &Device::default());
                close(&what, &ours(plain.clone()).unwrap(), &module::interpolate(plain, options.clone()));
                // The gradient of a linear function is the difference that a step makes.
                let tracked = random(x, &tracked()).require_grad();
                let y = ours(tracked.clone()).unwrap();
                let weight = random(y.dims(), &tracked.device());
                let d = tracked.grad(&(y.clone() * weight.clone()).sum().backward()).unwrap();
                let step = (random(x, &Device::default()) * 0.7) + 0.1;
                let moved = (ours(tracked.clone().inner() + step.clone()).unwrap() - y.inner()) * weight.inner();
                close(&format!("{what}: gradient"), &(d * step).sum(), &moved.sum());
            }
        }
    }
}

#[test]
fn wrong_tensors_are_errors() {
    let device = Device::default();
    let (x, w) = (random([1, 3, 8, 8], &device), random([4, 2, 3, 3], &device));
    let options = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
    let e = swath_burn::conv2d(x.clone(), w, None, &options).unwrap_err().to_string();
    assert!(e.contains('3') && e.contains('2'), "{e}");
    let e = swath_burn::max_pool2d(x.clone(), &MaxPoolOptions::new([9, 9])).unwrap_err().to_string();
    assert!(e.contains('9'), "{e}");
    let mixed = swath_burn::conv2d(x.clone(), random([4, 3, 3, 3], &tracked()), None, &options);
    assert!(mixed.unwrap_err().to_string().contains("Flex"));
    let half = swath_burn::conv2d(x.cast(burn::tensor::DType::F64), random([4, 3, 3, 3], &device), None, &options);
    assert!(half.unwrap_err().to_string().contains("F64"));
}

/// A small network trains to the same losses on burn's operations and on ours.
#[test]
fn training_has_the_same_losses() {
    let device = tracked();
    let x: Tensor<4> = random([16, 1, 12, 12], &Device::default());
    let target: Tensor<4> = random([16, 4, 4, 4], &Device::default());
    let [padded, plain] = [1, 0].map(|p| ConvOptions::new([1, 1], [p, p], [1, 1], 1));
    let pool = MaxPoolOptions::new([2, 2]).with_stride([2, 2]);
    let ours = |x: Tensor<4>, w: &[Tensor<4>; 2]| {
        let y = swath_burn::max_pool2d(swath_burn::conv2d(x, w[0].clone(), None, &padded)?.tanh(), &pool)?;
        swath_burn::conv2d(y, w[1].clone(), None, &plain)
    };
    let theirs = |x: Tensor<4>, w: &[Tensor<4>; 2]| {
        let y = module::conv2d(x, w[0].clone(), None, padded.clone()).tanh();
        Ok(module::conv2d(module::max_pool2d(y, pool.clone()), w[1].clone(), None, plain.clone()))
    };
    let train = |f: &dyn Fn(Tensor<4>, &[Tensor<4>; 2]) -> swath::Result<Tensor<4>>| -> Vec<f32> {
        let mut weights = [random([8, 1, 3, 3], &device), random([4, 8, 3, 3], &device)].map(Tensor::require_grad);
        let step = |_| {
            let y = f(Tensor::from_inner(x.clone()), &weights).unwrap();
            let loss = (y - Tensor::from_inner(target.clone())).powi_scalar(2).mean();
            let gradients = loss.backward();
            weights = weights.each_ref().map(|w| {
                let d = w.grad(&gradients).unwrap();
                Tensor::from_inner(w.clone().inner() - d * 0.1).require_grad()
            });
            loss.into_scalar::<f32>()
        };
        (0..30).map(step).collect()
    };
    let (ours, theirs) = (train(&ours), train(&theirs));
    assert!(theirs[29] < 0.5 * theirs[0], "{theirs:?}");
    for (a, b) in ours.iter().zip(&theirs) {
        assert!((a - b).abs() < 1e-3, "{ours:?} {theirs:?}");
    }
}
