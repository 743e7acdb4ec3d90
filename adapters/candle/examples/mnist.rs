//! candle's MNIST CNN, trained on candle's own operators and optimizer and on swath's, in turn, from the same weights on the
//! same batches: the losses of both, and the time of a step.
//!
//! `cargo run --release --example mnist -- FOLDER [STEPS]`, where the folder holds MNIST's IDX files, compressed or not. The network and
//! the options are those of candle's example, without dropout, whose random numbers would differ; and max pooling has candle's
//! gradient ([`swath_candle::max_pool2d_as_candle`]). AdamW makes steps of one size from gradients of any, so that rounding grows: a
//! third network, candle's with weights that differ in their last bits, shows by how much.

use std::time::{Duration, Instant};

use candle_core::{D, DType, Device, Module, Result, Tensor, Var};
use candle_nn::{Optimizer, ParamsAdamW, VarBuilder, VarMap};
use swath::data::Mnist;

const BATCH: usize = 64;

/// Where convolutions and pooling run.
#[derive(Clone, Copy, PartialEq)]
enum On {
    Candle,
    Swath,
}

/// Who updates the weights.
enum By {
    Candle(candle_nn::AdamW),
    Swath(swath_candle::AdamW),
}

struct Net {
    convolutions: [Box<dyn Module>; 2],
    full: [Box<dyn Module>; 2],
    on: On,
    optimizer: By,
    /// Of each step: forward, backward, optimizer.
    times: Vec<[Duration; 3]>,
}

impl Net {
    fn new(variables: &VarMap, on: On) -> Result<Self> {
        let vb = VarBuilder::from_varmap(variables, DType::F32, &Device::Cpu);
        let conv = |ic, oc, name| -> Result<Box<dyn Module>> {
            let conv = candle_nn::conv2d(ic, oc, 5, Default::default(), vb.pp(name))?;
            Ok(if on == On::Swath { Box::new(swath_candle::Conv2d::from(conv)) } else { Box::new(conv) })
        };
        let convolutions = [conv(1, 32, "c1")?, conv(32, 64, "c2")?];
        let linear = |inputs, outputs, name| -> Result<Box<dyn Module>> {
            let linear = candle_nn::linear(inputs, outputs, vb.pp(name))?;
            Ok(if on == On::Swath { Box::new(swath_candle::Linear::from(linear)) } else { Box::new(linear) })
        };
        let full = [linear(1024, 1024, "fc1")?, linear(1024, 10, "fc2")?];
        let (vars, params) = (variables.all_vars(), ParamsAdamW { lr: 1e-3, ..Default::default() });
        let optimizer = match on {
            On::Candle => By::Candle(candle_nn::AdamW::new(vars, params)?),
            On::Swath => By::Swath(swath_candle::AdamW::new(vars, params)?),
        };
        Ok(Self { convolutions, full, on, optimizer, times: Vec::new() })
    }

    fn pool(&self, x: &Tensor) -> Result<Tensor> {
        if self.on == On::Swath { swath_candle::max_pool2d_as_candle(x, 2, 2) } else { x.max_pool2d(2) }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.convolutions;
        let x = self.pool(&first.forward(x)?)?;
        let x = self.pool(&second.forward(&x)?)?;
        self.full[1].forward(&self.full[0].forward(&x.flatten_from(1)?)?.relu()?)
    }

    /// The loss before a step.
    fn step(&mut self, x: &Tensor, labels: &Tensor) -> Result<f32> {
        let mut last = Instant::now();
        let mut lap = || std::mem::replace(&mut last, Instant::now()).elapsed();
        let logits = candle_nn::ops::log_softmax(&self.forward(x)?, D::Minus1)?;
        let loss = candle_nn::loss::nll(&logits, labels)?;
        let forward = lap();
        let gradients = loss.backward()?;
        let backward = lap();
        match &mut self.optimizer {
            By::Candle(rule) => rule.step(&gradients)?,
            By::Swath(rule) => rule.step(&gradients)?,
        }
        self.times.push([forward, backward, lap()]);
        loss.to_scalar()
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

/// A copy of all variables, times a factor.
fn copied(from: &VarMap, factor: f64) -> Result<VarMap> {
    let to = VarMap::new();
    for (name, var) in from.data().lock().expect("no thread has panicked").iter() {
        to.data()
            .lock()
            .expect("no thread has panicked")
            .insert(name.clone(), Var::from_tensor(&(var.as_tensor() * factor)?)?);
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
    let mut theirs = Net::new(&copied(&variables, 1.0)?, On::Candle)?;
    let mut ours = Net::new(&copied(&variables, 1.0)?, On::Swath)?;
    let mut moved = Net::new(&copied(&variables, 1.0 + f64::from(f32::EPSILON))?, On::Candle)?;
    let mut farthest = [0f32; 2];
    println!("step  candle's loss  swath's loss  candle's, last bits moved");
    for step in 0..steps {
        // Batches in an order of their own: 7919 and the number of batches have no divisor in common.
        let at = step * 7919 % most * BATCH;
        let pixels = images.images(at..at + BATCH, 0.0, 1.0)?.as_slice().to_vec();
        let labels: Vec<u32> = images.labels()[at..at + BATCH].iter().map(|&l| l.into()).collect();
        let x = Tensor::from_vec(pixels, (BATCH, 1, 28, 28), &Device::Cpu)?;
        let labels = Tensor::from_vec(labels, BATCH, &Device::Cpu)?;
        let (a, b) = (theirs.step(&x, &labels)?, ours.step(&x, &labels)?);
        let c = moved.step(&x, &labels)?;
        farthest = [farthest[0].max((a - b).abs()), farthest[1].max((a - c).abs())];
        if step % 10 == 0 || step + 1 == steps {
            println!("{step:4}  {a:13.5}  {b:12.5}  {c:12.5}");
        }
    }
    let [of_swath, of_bits] = farthest;
    println!("losses differ by at most {of_swath:.1e}; those of last bits by {of_bits:.1e}");
    for (name, net) in [("candle", &theirs), ("swath", &ours)] {
        let (all, [forward, backward, optimizer]) = net.medians();
        println!(
            "{name:>6}: a step {all:.2} ms (forward {forward:.2}, backward {backward:.2}, optimizer {optimizer:.2})"
        );
    }
    let (a, b) = (theirs.medians().0, ours.medians().0);
    println!("{:.2} times as fast", a / b);
    println!("an epoch of {most} steps: candle {:.1} s, swath {:.1} s", a * most as f64 / 1e3, b * most as f64 / 1e3);
    Ok(())
}
