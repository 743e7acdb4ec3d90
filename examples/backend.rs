//! swath as the backend of another framework: plan once, run often, on plain slices.
//!
//! `cargo run --release --example backend`

use swath::{ConvPlan, ConvShape, Epilogue, Options, Result, Scratch};

fn main() -> Result<()> {
    // [n, ic, ih, iw] and [oc, ic / groups, kh, kw], NCHW in and out.
    let shape = ConvShape::builder([1, 64, 28, 28], [128, 64, 3, 3]).stride(2).padding(1).build()?;
    let plan = ConvPlan::new(&shape, &Options::default())?;

    let wave = |len: usize, step: f32| (0..len).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
    let x = wave(shape.input().iter().product(), 0.37);
    let w = wave(shape.weights().iter().product(), 0.11);
    let bias = wave(shape.oc, 0.7);
    let mut y = vec![0.0; shape.output().iter().product()];

    let weights = plan.pack(&w)?;
    let mut scratch = Scratch::default();
    plan.forward(&x, &weights, Epilogue::bias(&bias).relu(), &mut y, &mut scratch)?;

    println!("{:?} with weights {:?} gives {:?}", shape.input(), shape.weights(), shape.output());
    println!("{} multiply-adds, {} bytes of scratch", shape.macs(), plan.scratch_len(1) * size_of::<f32>());
    println!("y[..4] = {:?}\n", &y[..4]);
    println!("{}\n", plan.explain());

    // What does not fit is an error with both numbers, never a panic.
    let mistake = plan.forward(&x[1..], &weights, Epilogue::default(), &mut y, &mut scratch);
    println!("a wrong slice: {}", mistake.unwrap_err());
    Ok(())
}
