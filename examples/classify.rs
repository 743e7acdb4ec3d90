//! What does a picture show? The most likely classes of an ONNX classifier.
//!
//! `cargo run --release --features onnx,image --example classify -- MODEL.onnx PICTURE [LABELS.txt] [--caffe]`
//!
//! Pictures are prepared as torchvision does for ImageNet, or with `--caffe` as Caffe's networks take them: blue, green, red from 0 to 255
//! without the mean. Inputs are `[n, 3, h, w]` or `[n, h, w, 3]`; open sizes are 224.

use std::process::ExitCode;

use swath::Result;
use swath::onnx::{Dimension, Network, Shapes, ValueType};
use swath::vision::classes::{read_names, softmax, top};
use swath::vision::files;
use swath::vision::prepare::Preparation;

fn main() -> ExitCode {
    let (flags, paths): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let caffe = flags == ["--caffe"];
    let result = match &paths[..] {
        [model, picture] if caffe || flags.is_empty() => classify(model, picture, None, caffe),
        [model, picture, labels] if caffe || flags.is_empty() => classify(model, picture, Some(labels), caffe),
        _ => {
            eprintln!("usage: classify MODEL.onnx PICTURE [LABELS.txt] [--caffe]");
            return ExitCode::FAILURE;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("classify: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the five most likely classes.
fn classify(model: &str, picture: &str, labels: Option<&String>, caffe: bool) -> Result<()> {
    let network = Network::open(model)?;
    let (size, interleaved) = {
        let file = network.model()?;
        let dims = file.graph.free_inputs().find_map(|input| match &input.ty {
            ValueType::Tensor { dims: Some(dims), .. } if dims.len() == 4 => Some(dims.clone()),
            _ => None,
        });
        let fixed = |i: usize| match dims.as_ref().map(|d| d[i]) {
            Some(Dimension::Fixed(d)) => d,
            _ => 224,
        };
        let interleaved = fixed(3) == 3;
        (if interleaved { [fixed(1), fixed(2)] } else { [fixed(2), fixed(3)] }, interleaved)
    };
    let mut prepare = Preparation::new(size);
    prepare = if caffe {
        prepare.bgr().range(255.0).normalize([104.0, 117.0, 123.0], [1.0; 3])
    } else {
        prepare.centre_crop(size[0].max(size[1]) * 8 / 7).normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    };
    if interleaved {
        prepare = prepare.interleaved();
    }
    let (x, _) = prepare.input(&files::read(picture)?)?;
    let mut session = Shapes::new(network, Default::default(), 1)?;
    let scores = session.run(&[x])?[0].elements::<f32>().unwrap_or_default().to_vec();
    // Some networks end with a softmax, some before it.
    let sum: f32 = scores.iter().sum();
    let is_distribution = scores.iter().all(|s| (0.0..=1.0).contains(s)) && (sum - 1.0).abs() < 1e-3;
    let scores = if is_distribution { scores } else { softmax(&scores) };
    let names = labels.map(read_names).transpose()?.unwrap_or_default();
    for (class, score) in top(&scores, 5) {
        println!("{:6.2} %  {class:4}  {}", 100.0 * score, names.get(class).map_or("", String::as_str));
    }
    Ok(())
}
