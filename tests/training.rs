//! Twenty steps of a small CNN of every common layer, from PyTorch's weights on PyTorch's batches, for each optimizer: losses and
//! final weights against PyTorch's in float64.
#![cfg(feature = "nn")]

#[allow(dead_code)] // not every test uses all of it
mod support;

use support::Fixtures;
use swath::data::augment::Normalize;
use swath::data::{Glyphs, Loader, Transformed};
use swath::nn::*;
use swath::train::loss::CrossEntropyLoss;
use swath::train::schedule::ConstantLr;
use swath::train::{
    Adam, AdamW, Checkpoint, Clip, Fit, Optimization, Progress, RmsProp, Sgd, Trainer, TrainerOptions, fit,
};
use swath::tune::Tuning;
use swath::{Accuracy, Model, Result, SessionOptions, Tensor, Value};

/// `h = relu(bn(c1(x))); h = h + relu(dw(h)); h = max_pool2d(relu(c2(h)), 2); fc(flatten(h))`.
fn network() -> Result<Model> {
    let (c1, bn) = (Conv2d::new(3, 16, 3).padding(1).named("c1"), BatchNorm2d::new(16).named("bn"));
    let dw = Conv2d::new(16, 16, 3).padding(1).groups(16).bias(false).named("dw");
    let c2 = Conv2d::new(16, 24, 3).stride(2).padding(1).named("c2");
    let (pool, fc) = (MaxPool2d::new(2), Linear::new(216, 5).named("fc"));
    let net = move |x: &Value| {
        let h = bn.call(&c1.call(x)?)?.relu();
        let h = &h + &dw.call(&h)?.relu();
        let h = pool.call(&c2.call(&h)?.relu())?;
        fc.call(&h.flatten())
    };
    net.build(0)
}

fn optimization(case: &str) -> Result<Optimization> {
    match case {
        "sgd" => Optimization::new(Sgd::new(0.05)),
        "sgd_momentum" => Optimization::new(Sgd::new(0.02).momentum(0.9).weight_decay(1e-3)),
        "sgd_nesterov" => Optimization::new(Sgd::new(0.02).momentum(0.9).nesterov(true)),
        "adam" => Optimization::new(Adam::new(1e-2)),
        "adamw" => Optimization::new(AdamW::new(1e-2).weight_decay(0.05)),
        "rmsprop" => Optimization::new(RmsProp::new(1e-3)),
        _ => panic!("no rule for {case}"),
    }
}

struct Batches {
    x: Vec<f32>,
    targets: Vec<f32>,
}

const SIZE: [usize; 4] = [8, 3, 12, 12];

fn batches(fixtures: &Fixtures) -> Batches {
    let targets = fixtures.integers("sgd.target").into_iter().map(|t| t as f32).collect();
    Batches { x: fixtures.tensor("sgd.x").1, targets }
}

fn trainer(fixtures: &Fixtures, case: &str, options: &TrainerOptions) -> Trainer {
    let mut model = network().unwrap();
    let names: Vec<String> = model.state().map(|(n, _)| n.to_string()).collect();
    for name in names {
        let (dims, values) = fixtures.tensor(&format!("{case}.init.{name}"));
        model.set_parameter(&name, &Tensor::new(dims, &values).unwrap()).unwrap();
    }
    Trainer::new(model, CrossEntropyLoss::new(), optimization(case).unwrap(), options).unwrap()
}

fn train(trainer: &mut Trainer, batches: &Batches) -> Vec<f32> {
    let pictures = batches.x.chunks(SIZE.iter().product());
    pictures.zip(batches.targets.chunks(8)).map(|(x, t)| trainer.step(&SIZE, x, t).unwrap().loss).collect()
}

fn options(threads: usize) -> TrainerOptions {
    let session = SessionOptions { threads: Some(threads), accuracy: Accuracy::Exact, ..SessionOptions::default() };
    TrainerOptions { session, ..TrainerOptions::default() }
}

#[test]
fn losses_and_weights_are_pytorchs() {
    let fixtures = Fixtures::open("training");
    let batches = batches(&fixtures);
    let mut cases = 0;
    for (case, _) in fixtures.cases() {
        let mut trainer = trainer(&fixtures, &case, &options(2));
        let losses = train(&mut trainer, &batches);
        for (step, (got, want)) in losses.iter().zip(&fixtures.tensor(&format!("{case}.losses")).1).enumerate() {
            assert!((got - want).abs() <= 1e-4 * want.abs(), "{case}, step {step}: {got} for {want}");
        }
        // A bias before batch normalisation has the gradient 0. Rules that divide by the gradient's size make steps of the
        // rounding errors, in PyTorch's f32 too; the running mean holds the bias.
        let adaptive = !case.starts_with("sgd");
        let noise = |name: &str| adaptive && ["c1.bias", "bn.running_mean"].contains(&name);
        for (name, tensor) in trainer.model().state().filter(|(name, _)| !noise(name)) {
            let want = fixtures.tensor(&format!("{case}.final.{name}")).1;
            support::assert_close(&format!("{case}: {name}"), tensor.as_slice(), &want, 1e-3);
        }
        cases += 1;
    }
    assert_eq!(cases, 6);
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let fixtures = Fixtures::open("training");
    let batches = batches(&fixtures);
    let run = |threads| {
        let mut t = trainer(&fixtures, "adam", &options(threads));
        let losses = train(&mut t, &batches);
        (losses, t.model().state().map(|(_, t)| t.as_slice().to_vec()).collect::<Vec<_>>())
    };
    let one = run(1);
    assert!([2, 3, 8].into_iter().all(|threads| run(threads) == one));
}

/// Outputs of batch normalisation that the backward pass computes once more.
#[test]
fn what_is_not_kept_has_the_same_bits_and_takes_no_memory() {
    let fixtures = Fixtures::open("training");
    let batches = batches(&fixtures);
    let run = |recompute| {
        let mut t = trainer(&fixtures, "adam", &TrainerOptions { recompute, ..options(2) });
        let losses = train(&mut t, &batches);
        let values = values(&t);
        (losses, values, t.footprint(&SIZE).unwrap().activations)
    };
    let ((losses, weights, more), (other_losses, other_weights, less)) = (run(false), run(true));
    assert_eq!(losses, other_losses);
    assert_eq!(weights, other_weights);
    assert!(less < more, "{less} bytes of {more}");
}

#[test]
fn a_bad_loss_names_what_went_bad() {
    let fixtures = Fixtures::open("training");
    let batches = batches(&fixtures);
    let mut t = trainer(&fixtures, "sgd", &options(1));
    let mut x = batches.x[..SIZE.iter().product()].to_vec();
    let before: Vec<Tensor> = t.model().state().map(|(_, t)| t.clone()).collect();
    x[5] = f32::NAN;
    let e = t.step(&SIZE, &x, &batches.targets[..8]).unwrap_err().to_string();
    assert!(e.contains("step 0") && e.contains("the input"), "{e}");
    let e = t.step(&SIZE, &batches.x[..x.len()], &[5.0; 8]).unwrap_err().to_string();
    assert!(e.contains("a target is 5 at position 0"), "{e}");
    assert!(before.iter().eq(t.model().state().map(|(_, t)| t)), "nothing was updated");
    assert!(t.step(&SIZE, &x[1..], &[0.0; 8]).unwrap_err().to_string().contains("3456"));
}

/// A linear layer: each step's change of the weights is its gradient, times the rate.
fn linear(accumulate: usize) -> Trainer {
    let model = Sequential::new((Flatten, Linear::new(4, 3))).build(1).unwrap();
    let options = TrainerOptions { accumulate, ..options(1) };
    Trainer::new(model, CrossEntropyLoss::new(), Optimization::new(Sgd::new(0.5)).unwrap(), &options).unwrap()
}

fn values(trainer: &Trainer) -> Vec<f32> {
    trainer.model().state().flat_map(|(_, t)| t.as_slice().to_vec()).collect()
}

#[test]
fn gradients_of_several_batches_add_up() {
    let (dims, inputs) = ([2, 1, 2, 2], [[0.5; 8], [-0.25, 1.0, 0.5, 2.0, -1.0, 0.125, 0.75, -0.5]]);
    let targets = [[0.0, 2.0], [1.0, 1.0]];
    let before = values(&linear(1));
    // Each batch alone.
    let alone = [0, 1].map(|i| {
        let mut trainer = linear(1);
        trainer.step(&dims, &inputs[i], &targets[i]).unwrap();
        values(&trainer)
    });
    let mut several = linear(1);
    several.backward(&dims, &inputs[0], &targets[0]).unwrap();
    // A batch that goes bad in between takes nothing away, nor does a profile.
    several.backward(&dims, &[f32::NAN; 8], &targets[0]).unwrap_err();
    several.profile(&dims, &inputs[1], &targets[0]).unwrap();
    several.backward(&dims, &inputs[1], &targets[1]).unwrap();
    assert_eq!((several.pending(), several.steps()), (2, 0));
    several.update().unwrap();
    assert_eq!((several.pending(), several.steps()), (0, 1));
    let both = values(&several);
    for i in 0..before.len() {
        let mean = (alone[0][i] + alone[1][i]) / 2.0;
        assert!((both[i] - mean).abs() < 1e-6, "{i}: {} instead of {mean}, from {}", both[i], before[i]);
    }
    let mut steps = linear(2);
    (0..2).for_each(|i| _ = steps.step(&dims, &inputs[i], &targets[i]).unwrap());
    assert_eq!(values(&steps), both);
    assert!(several.update().unwrap().is_none() && values(&several) == both, "nothing to update by");
}

/// An epoch of three batches, of which two make an update: the third makes one of its own, so that the run can rest.
/// A loop of one's own that looks at outputs first.
#[test]
fn a_forward_pass_is_the_backward_pass_s_and_changes_nothing() {
    let fixtures = Fixtures::open("training");
    let batches = batches(&fixtures);
    let options = TrainerOptions { accumulate: 2, ..options(2) };
    let mut plain = trainer(&fixtures, "sgd_momentum", &options);
    let mut looking = trainer(&fixtures, "sgd_momentum", &options);
    let pictures = batches.x.chunks(SIZE.iter().product());
    for (i, (x, t)) in pictures.zip(batches.targets.chunks(8)).enumerate() {
        plain.backward(&SIZE, x, t).unwrap();
        let before = values(&looking);
        let output = looking.forward(&SIZE, x).unwrap().to_vec();
        assert_eq!(before, values(&looking));
        looking.backward(&SIZE, x, t).unwrap();
        assert_eq!(looking.last_output().unwrap(), output);
        if i % 2 == 1 {
            // Between the gradients and their use.
            looking.forward(&SIZE, x).unwrap();
            plain.update().unwrap();
            looking.update().unwrap();
        }
    }
    assert_eq!(values(&plain), values(&looking));
    let e = plain.forward(&SIZE, &batches.x[..7]).unwrap_err().to_string();
    assert!(e.contains("the input has 7 elements"), "{e}");
}

#[test]
fn an_epoch_ends_with_an_update() {
    let data = Transformed::new(Glyphs::new(24, 3).size(28)).with(Normalize::new([0.2], [0.25]));
    let train = Loader::new(data, 8).unwrap();
    let model = Sequential::new((Flatten, Linear::new(28 * 28, 10))).build(1).unwrap();
    let options = TrainerOptions { accumulate: 2, ..options(1) };
    let optimization = Optimization::new(Sgd::new(0.1)).unwrap();
    let mut trainer = Trainer::new(model, CrossEntropyLoss::new(), optimization, &options).unwrap();
    let epochs = fit(&mut trainer, &train, None, Fit::new(2), &mut |_| ()).unwrap();
    assert!(epochs[1].loss < epochs[0].loss);
    assert_eq!((trainer.steps(), trainer.pending()), (4, 0));
}

#[test]
fn a_run_without_patience_left_ends_and_is_not_resumed() {
    let data = |seed| Glyphs::new(16, seed).size(28);
    let (train, validation) = (Loader::new(data(1), 8).unwrap(), Loader::new(data(2), 8).unwrap());
    let model = Sequential::new((Flatten, Linear::new(28 * 28, 10))).build(1).unwrap();
    // At rate 0 no validation is better than the first.
    let optimization = Optimization::new(Sgd::new(0.0)).unwrap();
    let mut trainer = Trainer::new(model, CrossEntropyLoss::new(), optimization, &options(1)).unwrap();
    let run = |trainer: &mut Trainer, progress: Progress| {
        let options = Fit { patience: Some(1), progress, ..Fit::new(9) };
        fit(trainer, &train, Some(&validation), options, &mut |_| ()).unwrap().len()
    };
    assert_eq!(run(&mut trainer, Progress::default()), 3);
    assert_eq!(run(&mut trainer, Progress { epoch: 3, since_best: 2, ..Progress::default() }), 0);
}

/// A network whose masks follow from the seed alone: a seed is an input of its own, in front of all others.
#[test]
fn dropout_is_trained_and_its_masks_follow_from_the_seed() {
    let train = |seed: u64, threads: usize| {
        let network = Sequential::new((Flatten, Linear::new(16, 32), ReLU, Dropout::new(0.5), Linear::new(32, 4)));
        let optimization = Optimization::new(Sgd::new(0.1).momentum(0.9)).unwrap();
        let options = TrainerOptions { seed, ..options(threads) };
        let mut trainer =
            Trainer::new(network.build(3).unwrap(), CrossEntropyLoss::new(), optimization, &options).unwrap();
        let input: Vec<f32> = (0..8 * 16).map(|i| (i * 37 % 19) as f32 / 19.0 - 0.5).collect();
        let targets: Vec<f32> = (0..8).map(|i| (i % 4) as f32).collect();
        (0..60).map(|_| trainer.step(&[8, 1, 4, 4], &input, &targets).unwrap().loss).collect::<Vec<_>>()
    };
    let losses = train(1, 1);
    assert!(losses[59] < 0.5 * losses[0], "{losses:?}");
    assert_eq!(losses, train(1, 2));
    assert_ne!(losses, train(2, 1));
}

#[test]
fn a_run_over_pictures_has_the_same_bits_for_any_number_of_threads() {
    let run = |threads: usize, loading: usize| {
        let data = Transformed::new(Glyphs::new(160, 3).size(28)).with(Normalize::new([0.2], [0.25]));
        let train = Loader::new(data, 32).unwrap().shuffle(true).seed(4).threads(loading);
        let model = Sequential::new((
            Conv2d::new(1, 16, 3).padding(1),
            ReLU,
            MaxPool2d::new(2),
            Conv2d::new(16, 32, 3).padding(1),
            ReLU,
            MaxPool2d::new(2),
            Flatten,
            Linear::new(32 * 7 * 7, 10),
        ));
        // No tuning table: it may name other algorithms for another number of threads.
        let session = SessionOptions { threads: Some(threads), tuning: Tuning::Off, ..SessionOptions::default() };
        let options = TrainerOptions { session, clip: Clip::Norm(1.0), ..TrainerOptions::default() };
        let optimization = Optimization::new(Adam::new(1e-3)).unwrap();
        let mut trainer =
            Trainer::new(model.build(5).unwrap(), CrossEntropyLoss::new(), optimization, &options).unwrap();
        let epochs = fit(&mut trainer, &train, None, Fit::new(2), &mut |_| ()).unwrap();
        assert_eq!(trainer.steps(), 10);
        let bits = trainer.model().state().map(|(_, t)| t.as_slice().iter().map(|v| v.to_bits()).collect());
        (epochs[1].loss.to_bits(), bits.collect::<Vec<Vec<u32>>>())
    };
    let one = run(1, 0);
    for (threads, loading) in [(2, 1), (3, 4), (8, 2)] {
        assert!(run(threads, loading) == one, "{threads} threads");
    }
}

#[test]
fn a_resumed_run_has_the_algorithms_of_before() {
    let fixtures = Fixtures::open("training");
    let batches = batches(&fixtures);
    let (x, targets) = (&batches.x[..SIZE.iter().product()], &batches.targets[..8]);
    let mut first = trainer(&fixtures, "adam", &options(1));
    first.step(&SIZE, x, targets).unwrap();
    let kept = first.checkpoint(Progress::default(), &ConstantLr).unwrap();
    for pass in ["fwd ", "bwd_d ", "bwd_w "] {
        assert!(kept.progress().algorithms.keys().any(|convolution| convolution.starts_with(pass)), "{pass}");
    }
    // A run that had another choice in each forward pass.
    let mut other = kept.progress().clone();
    other.algorithms.iter_mut().filter(|(k, _)| k.starts_with("fwd ")).for_each(|(_, v)| *v = "gemm".into());
    let mut changed = Checkpoint::new(other);
    kept.weights().try_for_each(|(name, tensor)| changed.put_weight(name, tensor)).unwrap();
    changed.put_optimization(first.optimization()).unwrap();
    changed.put_schedule(&ConstantLr);
    let mut second = trainer(&fixtures, "adam", &options(1));
    second.step(&SIZE, x, targets).unwrap();
    second.restore(&changed, &mut ConstantLr).unwrap();
    let steps = second.profile(&SIZE, x, targets).unwrap();
    let forward: Vec<&str> = steps.iter().map(|s| s.what.as_str()).filter(|s| s.starts_with("Conv2d")).collect();
    let forward: Vec<&&str> = forward.iter().filter(|s| !s.contains("gradient")).collect();
    assert!(forward.len() == 3 && forward.iter().all(|s| s.contains("gemm")), "{forward:?}");
    // One that this build does not know.
    let mut unknown = changed.progress().clone();
    unknown.algorithms.values_mut().for_each(|v| *v = "fft".into());
    let mut foreign = Checkpoint::new(unknown);
    kept.weights().try_for_each(|(name, tensor)| foreign.put_weight(name, tensor)).unwrap();
    foreign.put_optimization(first.optimization()).unwrap();
    foreign.put_schedule(&ConstantLr);
    second.restore(&foreign, &mut ConstantLr).unwrap();
    let e = second.step(&SIZE, x, targets).unwrap_err().to_string();
    assert!(e.contains("fft") && e.contains("unknown"), "{e}");
}
