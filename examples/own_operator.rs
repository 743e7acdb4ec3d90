//! An operator of one's own, with a gradient, in a network that trains: Snake, `y = x + sin(a x)^2 / a` with a trained `a`
//! (Ziyin, Hartwig and Ueda 2020, <https://arxiv.org/abs/2006.08195>).
//!
//! `cargo run --release --example own_operator`

use swath::graph::{Fact, Gradient, Group, Init, Lower, Operands, Operator, Step};
use swath::nn::*;
use swath::train::{Optimization, Sgd, Trainer, check_gradients, loss::MseLoss};
use swath::{Layout, Result, Scratch, Value};

/// The operator: inputs `x` of any extents and `a` of one element.
#[derive(Debug)]
struct Snake;

impl Operator for Snake {
    fn name(&self) -> &'static str {
        "Snake"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let inputs = cx.inputs(group);
        // Element by element: any layout will do, and channels that pad a block stay zero.
        let layout = cx.native(inputs[0])?.layout;
        let buffers = vec![cx.want(inputs[0], layout)?, cx.want(inputs[1], Layout::Nchw)?];
        cx.step(group, layout, Box::new(SnakeStep), buffers, 0)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        let d = g.push(SnakeGradient, &[g.dy(), g.input(0), g.input(1)])?;
        g.add(0, d[0])?;
        g.add(1, d[1])
    }
}

struct SnakeStep;

impl Step for SnakeStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _in_place: bool, _: &mut Scratch) {
        let a = x.get(1)[0];
        for (y, &x) in y.iter_mut().zip(x.get(0)) {
            *y = x + (a * x).sin().powi(2) / a;
        }
    }

    fn describe(&self) -> String {
        "Snake".into()
    }
}

/// Its gradients at `x` and `a`, from the gradient at its output, `x` and `a`: an operator of two results.
#[derive(Debug)]
struct SnakeGradient;

impl Operator for SnakeGradient {
    fn name(&self) -> &'static str {
        "SnakeGradient"
    }

    fn results(&self) -> usize {
        2
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[1].to_vec())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        Ok(vec![inputs[1].clone(), inputs[2].clone()])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let inputs = cx.inputs(group);
        let layout = cx.native(inputs[1])?.layout;
        let buffers = vec![cx.want(inputs[0], layout)?, cx.want(inputs[1], layout)?, cx.want(inputs[2], Layout::Nchw)?];
        cx.step_all(group, &[layout, Layout::Nchw], Box::new(SnakeGradientStep), buffers, 0)
    }
}

struct SnakeGradientStep;

impl Step for SnakeGradientStep {
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], _in_place: bool, _: &mut Scratch) {
        let (dy, a) = (x.get(0), f64::from(x.get(2)[0]));
        let [dx, da] = y else { unreachable!("it has two results") };
        let mut sum = 0.0;
        for ((dx, &dy), &x) in dx.iter_mut().zip(dy).zip(x.get(1)) {
            let (dy, x) = (f64::from(dy), f64::from(x));
            *dx = (dy * (1.0 + (2.0 * a * x).sin())) as f32;
            sum += dy * (x * (2.0 * a * x).sin() / a - (a * x).sin().powi(2) / (a * a));
        }
        da[0] = sum as f32;
    }

    fn describe(&self) -> String {
        "SnakeGradient".into()
    }
}

/// The layer: the operator with its parameter.
struct SnakeLayer(Parameter);

impl SnakeLayer {
    fn new() -> Self {
        Self(Parameter::new("a", [1], Init::Constant(1.0)))
    }
}

impl Module for SnakeLayer {
    fn call(&self, x: &Value) -> Result<Value> {
        let a = self.0.value(x)?;
        Ok(x.push(Snake, &[x, &a]))
    }
}

fn main() -> Result<()> {
    // Differences of the loss against the gradients that the operator claims, behind a convolution that makes activations blocked.
    let small = Sequential::new((Conv2d::new(1, 3, 3).padding(1), SnakeLayer::new().named("snake"), Flatten));
    let check = check_gradients(&small, [2, 1, 4, 4], 1e-2, 7)?;
    println!("gradients differ from differences by at most {:.1e}", check.worst());
    assert!(check.worst() < 1e-2);

    // sin(2 x) of one number.
    let layers =
        Sequential::new((Linear::new(1, 16), SnakeLayer::new().named("snake"), Linear::new(16, 1).named("out")));
    let optimization = Optimization::new(Sgd::new(0.05).momentum(0.9))?;
    let mut trainer = Trainer::new(layers.build(3)?, MseLoss::new(), optimization, &Default::default())?;
    let x: Vec<f32> = (0..64).map(|i| i as f32 / 16.0 - 2.0).collect();
    let y: Vec<f32> = x.iter().map(|x| (2.0 * x).sin()).collect();
    let first = trainer.step(&[64, 1], &x, &y)?.loss;
    let mut last = first;
    for step in 1..=600 {
        last = trainer.step(&[64, 1], &x, &y)?.loss;
        if step % 200 == 0 {
            println!("step {step}: loss {last:.5}, a = {:?}", trainer.model().parameter("snake.a")?.as_slice());
        }
    }
    assert!(last < 0.1 * first, "the loss fell from {first} to {last} only");
    Ok(())
}
