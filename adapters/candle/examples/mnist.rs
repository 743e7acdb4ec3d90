//! candle's MNIST CNN, trained on candle's own convolutions and pooling and on swath's, in turn, from the same weights on the same
//! batches: the losses of both, and the time of a step.
//!
//! `cargo run --release --example mnist -- FOLDER [STEPS]`, where the folder holds MNIST's IDX files, compressed or not. The network and
//! the optimizer are those of candle's example, without dropout, whose random numbers would differ; and max pooling has candle's
//! gradient ([`swath_candle::max_pool2d_as_candle`]).

use std::time::{Duration, Instant};

use candle_core::{D, DType, Device, Module, Result, Tensor, Var};
use candle_nn::{AdamW, Linear, Optimizer, ParamsAdamW, VarBuilder, VarMap};
use swath::data::Mnist;

const BATCH: usize = 64;

/// Where convolutions and pooling run.
#[derive(Clone, Copy, PartialEq)]
enum On {
    Candle,
    Swath,
}

struct Net {
    convolutions: [Box<dyn Module>; 2],
    full: [Linear; 2],
    on: On,
    optimizer: AdamW,
    times: Vec<Duration>,
}

impl Net {
    fn new(variables: &VarMap, on: On) -> Result<Self> {
        let vb = VarBuilder::from_varmap(variables, DType::F32, &Device::Cpu);
        let conv = |ic, oc, name| -> Result<Box<dyn Module>> {
            let conv = candle_nn::conv2d(ic, oc, 5, Default::default(), vb.pp(name))?;
            Ok(if on == On::Swath { Box::new(swath_candle::Conv2d::from(conv)) } else { Box::new(conv) })
        };
        let convolutions = [conv(1, 32, "c1")?, conv(32, 64, "c2")?];
        let full = [candle_nn::linear(1024, 1024, vb.pp("fc1"))?, candle_nn::linear(1024, 10, vb.pp("fc2"))?];
        let optimizer = AdamW::new(variables.all_vars(), ParamsAdamW { lr: 1e-3, ..Default::default() })?;
        Ok(Self { convolutions, full, on, optimizer, times: Vec::new() })
    }

    fn pool(&self, x: &Tensor) -> Result<Tensor> {
        if self.on == On::Swath { swath_candle::max_pool2d_as_candle(x, 2, 2) } else { x.max_pool2d(2) }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.convolutions;
        let x = self.pool(&first.forward(x)?)?;
        let x = self.pool(&second.forward(&x)?)?;
        x.flatten_from(1)?.apply(&self.full[0])?.relu()?.apply(&self.full[1])
    }

    /// The loss before a step.
    fn step(&mut self, x: &Tensor, labels: &Tensor) -> Result<f32> {
        let start = Instant::now();
        let logits = candle_nn::ops::log_softmax(&self.forward(x)?, D::Minus1)?;
        let loss = candle_nn::loss::nll(&logits, labels)?;
        self.optimizer.backward_step(&loss)?;
        self.times.push(start.elapsed());
        loss.to_scalar()
    }

    fn median_ms(&self) -> f64 {
        let mut times = self.times.clone();
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e3
    }
}

/// A copy of all variables.
fn copied(from: &VarMap) -> Result<VarMap> {
    let to = VarMap::new();
    for (name, var) in from.data().lock().expect("no thread has panicked").iter() {
        to.data()
            .lock()
            .expect("no thread has panicked")
            .insert(name.clone(), Var::from_tensor(&var.as_tensor().copy()?)?);
    }
    Ok(to)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: mnist FOLDER [STEPS]")?;
    let steps: usize = arguments.next().map_or(Ok(100), |n| n.parse())?;
    let data = Mnist::open(folder, true)?;
    let (images, most) = (data.images(), data.images().labels().len() / BATCH);
    if steps == 0 || steps > most {
        return Err(format!("STEPS is 1 to {most}, the batches of an epoch").into());
    }

    let variables = VarMap::new();
    Net::new(&variables, On::Candle)?; // makes the variables
    let mut theirs = Net::new(&copied(&variables)?, On::Candle)?;
    let mut ours = Net::new(&copied(&variables)?, On::Swath)?;
    let mut farthest = 0f32;
    println!("step  candle's loss  swath's loss");
    for step in 0..steps {
        // Batches in an order of their own: 7919 and the number of batches have no divisor in common.
        let at = step * 7919 % most * BATCH;
        let pixels = images.images(at..at + BATCH, 0.0, 1.0)?.as_slice().to_vec();
        let labels: Vec<u32> = images.labels()[at..at + BATCH].iter().map(|&l| l.into()).collect();
        let x = Tensor::from_vec(pixels, (BATCH, 1, 28, 28), &Device::Cpu)?;
        let labels = Tensor::from_vec(labels, BATCH, &Device::Cpu)?;
        let (a, b) = (theirs.step(&x, &labels)?, ours.step(&x, &labels)?);
        farthest = farthest.max((a - b).abs());
        if step % 10 == 0 || step + 1 == steps {
            println!("{step:4}  {a:13.5}  {b:12.5}");
        }
    }
    let (a, b) = (theirs.median_ms(), ours.median_ms());
    println!("losses differ by at most {farthest:.1e}");
    println!("a step, median: candle {a:.2} ms, swath {b:.2} ms, {:.1} times as fast", a / b);
    println!("an epoch of {most} steps: candle {:.1} s, swath {:.1} s", a * most as f64 / 1e3, b * most as f64 / 1e3);
    Ok(())
}
