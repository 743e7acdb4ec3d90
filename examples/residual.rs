//! A custom module: a residual block as a plain Rust type, inside of a small network.
//!
//! `cargo run --release --example residual`

use swath::nn::*;
use swath::{Result, Tensor, Value};

/// `relu(conv2(relu(conv1(x))) + shortcut(x))`
struct Residual {
    conv1: Named<Conv2d>,
    conv2: Named<Conv2d>,
    /// A 1x1 convolution where the shape changes.
    shortcut: Option<Named<Conv2d>>,
}

impl Residual {
    fn new(inputs: usize, outputs: usize, stride: usize) -> Self {
        let shortcut = || Conv2d::new(inputs, outputs, 1).stride(stride).bias(false).named("shortcut");
        Self {
            conv1: Conv2d::new(inputs, outputs, 3).stride(stride).padding(1).named("conv1"),
            conv2: Conv2d::new(outputs, outputs, 3).padding(1).named("conv2"),
            shortcut: (inputs != outputs || stride != 1).then(shortcut),
        }
    }
}

impl Module for Residual {
    fn call(&self, x: &Value) -> Result<Value> {
        let y = self.conv2.call(&self.conv1.call(x)?.relu())?;
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.call(x)?,
            None => x.clone(),
        };
        Ok((y + x).relu())
    }
}

fn main() -> Result<()> {
    let model = Sequential::new((
        Conv2d::new(3, 16, 3).padding(1),
        ReLU,
        Residual::new(16, 16, 1).named("block1"),
        Residual::new(16, 32, 2).named("block2"),
        AdaptiveAvgPool2d::new(1),
        Flatten,
        Linear::new(32, 10),
    ))
    .build(42)?;
    for (name, value) in model.parameters() {
        println!("{name:24} {:?}", value.dims());
    }
    let mut session = model.compile([1, 3, 32, 32])?;
    let image: Vec<f32> = (0..3 * 32 * 32).map(|i| (i as f32 * 0.1).sin()).collect();
    let logits = session.run(&Tensor::new([1, 3, 32, 32], &image)?)?;
    println!("\noutput {:?}: {:?}\n", logits.dims(), logits.as_slice());
    print!("{}", session.explain());
    Ok(())
}
