//! What belongs to the thing in front? The picture without its background.
//!
//! `cargo run --release --features onnx,image --example segment -- MODEL.onnx PICTURE RESULT.png`
//!
//! The model is one like IS-Net: an input `[1, 3, 1024, 1024]`, and a mask of the same size as its first output. The result has the mask as
//! its alpha, in the picture's own size.

use std::process::ExitCode;

use swath::Result;
use swath::onnx::{Network, Shapes};
use swath::vision::files;
use swath::vision::masks::Mask;
use swath::vision::prepare::Preparation;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, picture, result] = &args[..] else {
        eprintln!("usage: segment MODEL.onnx PICTURE RESULT.png");
        return ExitCode::FAILURE;
    };
    match segment(model, picture, result) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("segment: {e}");
            ExitCode::FAILURE
        }
    }
}

fn segment(model: &str, path: &str, result: &str) -> Result<()> {
    let mut picture = files::read(path)?;
    let size = [1024, 1024];
    let prepare = Preparation::new(size).range(255.0).normalize([128.0; 3], [256.0; 3]);
    let (x, placed) = prepare.input(&picture)?;
    let mut session = Shapes::new(Network::open(model)?, Default::default(), 1)?;
    let mask = session.run(&[x])?[0].elements::<f32>().unwrap_or_default().to_vec();
    let mask = Mask::new(size, mask)?.moved(&placed)?;
    let [_, h, w] = picture.size;
    println!("{:.1} % of {w}x{h} pixels are in front", 100.0 * mask.area(0.5) as f64 / (h * w) as f64);
    // A fourth plane: how much of each pixel is seen.
    picture.size[0] = 4;
    picture.values.extend(mask.values);
    files::write_png(&picture, result)?;
    println!("written to {result}");
    Ok(())
}
