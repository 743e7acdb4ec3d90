//! burn's MNIST network, trained on burn's own convolutions, normalisation and pooling and on swath's, in turn, from the same weights on
//! the same batches: the losses of both, and the time of a step.
//!
//! `cargo run --release --example mnist -- FOLDER [STEPS]`, where the folder holds MNIST's IDX files, compressed or not. The network
//! and the optimizer are those of burn's example, without dropout, whose random numbers would differ. AdamW makes steps of one size
//! from gradients of any, so that rounding grows from step to step.

use std::time::{Duration, Instant};

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use swath::data::Mnist;
use swath_burn::OnSwath;

const BATCH: usize = 256;

/// Convolution, normalisation, ReLU, pooling.
#[derive(Module, Debug)]
struct Block {
    conv: Conv2d,
    norm: BatchNorm,
    pool: MaxPool2d,
}

impl Block {
    fn new(channels: [usize; 2], device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new(channels, [3, 3]).init(device),
            norm: BatchNormConfig::new(channels[1]).init(device),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
        }
    }

    fn forward(&self, x: Tensor<4>, on_swath: bool) -> swath::Result<Tensor<4>> {
        if on_swath {
            let x = self.norm.on_swath(self.conv.on_swath(x)?)?;
            return self.pool.on_swath(activation::relu(x));
        }
        let x = self.norm.forward(self.conv.forward(x));
        Ok(self.pool.forward(activation::relu(x)))
    }
}

#[derive(Module, Debug)]
struct Net {
    blocks: Vec<Block>,
    full: Vec<Linear>,
}

impl Net {
    fn new(device: &Device) -> Self {
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        Self {
            blocks: vec![Block::new([1, 64], device), Block::new([64, 64], device)],
            full: vec![linear(64 * 5 * 5, 128), linear(128, 128), linear(128, 10)],
        }
    }

    fn forward(&self, mut x: Tensor<4>, on_swath: bool) -> swath::Result<Tensor<2>> {
        for block in &self.blocks {
            x = block.forward(x, on_swath)?;
        }
        let mut x: Tensor<2> = x.flatten(1, 3);
        for (i, linear) in self.full.iter().enumerate() {
            x = linear.forward(x);
            if i + 1 < self.full.len() {
                x = activation::gelu(x);
            }
        }
        Ok(x)
    }
}

/// A network in training.
struct Training {
    net: Net,
    optimizer: ModuleOptimizer,
    on_swath: bool,
    /// Of each step: forward, backward, optimizer.
    times: Vec<[Duration; 3]>,
}

impl Training {
    fn new(net: &Net, on_swath: bool) -> Self {
        Self { net: net.clone(), optimizer: AdamWConfig::new().init(), on_swath, times: Vec::new() }
    }

    /// The loss before a step.
    fn step(&mut self, x: Tensor<4>, labels: Tensor<1, Int>) -> swath::Result<f32> {
        let mut last = Instant::now();
        let mut lap = || std::mem::replace(&mut last, Instant::now()).elapsed();
        let logits = self.net.forward(x, self.on_swath)?;
        let loss = CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, labels);
        let value = loss.clone().into_scalar();
        let forward = lap();
        let gradients = loss.backward();
        let backward = lap();
        let gradients = GradientsParams::from_grads(gradients, &self.net);
        self.net = self.optimizer.step(1e-3, self.net.clone(), gradients);
        self.times.push([forward, backward, lap()]);
        Ok(value)
    }

    /// Medians in milliseconds: of a whole step, and of its parts.
    fn medians(&self) -> (f64, [f64; 3]) {
        let median = |part: &dyn Fn(&[Duration; 3]) -> Duration| {
            let mut times: Vec<Duration> = self.times.iter().map(part).collect();
            times.sort();
            times[times.len() / 2].as_secs_f64() * 1e3
        };
        (median(&|t| t.iter().sum()), [0, 1, 2].map(|i| median(&|t| t[i])))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: mnist FOLDER [STEPS]")?;
    let steps: usize = arguments.next().map_or(Ok(100), |n| n.parse())?;
    let data = Mnist::open(folder, true)?;
    let (images, most) = (data.images(), data.images().labels().len() / BATCH);
    if steps == 0 || steps > most {
        return Err(format!("STEPS is 1 to {most}, the batches of an epoch").into());
    }

    let device = Device::default().autodiff();
    device.seed(0);
    let net = Net::new(&device);
    let (mut theirs, mut ours) = (Training::new(&net, false), Training::new(&net, true));
    let mut farthest = 0f32;
    println!("step  burn's loss  swath's loss");
    for step in 0..steps {
        // Batches in an order of their own: 7919 and the number of batches have no divisor in common.
        let at = step * 7919 % most * BATCH;
        let pixels = images.images(at..at + BATCH, 0.1307, 0.3081)?.as_slice().to_vec();
        let labels: Vec<i64> = images.labels()[at..at + BATCH].iter().map(|&l| l.into()).collect();
        let x = Tensor::<4>::from_data(TensorData::new(pixels, [BATCH, 1, 28, 28]), &device);
        let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [BATCH]), &device);
        let (a, b) = (theirs.step(x.clone(), labels.clone())?, ours.step(x, labels)?);
        farthest = farthest.max((a - b).abs());
        if step % 10 == 0 || step + 1 == steps {
            println!("{step:4}  {a:11.5}  {b:12.5}");
        }
    }
    println!("losses differ by at most {farthest:.1e}");
    for (name, training) in [("burn", &theirs), ("swath", &ours)] {
        let (all, [forward, backward, optimizer]) = training.medians();
        println!(
            "{name:>5}: a step {all:.2} ms (forward {forward:.2}, backward {backward:.2}, optimizer {optimizer:.2})"
        );
    }
    let (a, b) = (theirs.medians().0, ours.medians().0);
    println!("{:.2} times as fast", a / b);
    println!("an epoch of {most} steps: burn {:.1} s, swath {:.1} s", a * most as f64 / 1e3, b * most as f64 / 1e3);
    Ok(())
}
