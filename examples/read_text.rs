//! What is written there? Lines of text, found and read by PaddleOCR's two networks.
//!
//! `cargo run --release --features onnx,image --example read_text -- DETECTION.onnx RECOGNITION.onnx PICTURE RESULT.png`
//!
//! The one network tells which pixels belong to text. The other reads a line: it knows its characters by the metadata of its file. Each
//! line is of another width, so that the second network is compiled for several shapes.

use std::process::ExitCode;

use swath::onnx::{Network, Shapes};
use swath::vision::prepare::{Preparation, crop};
use swath::vision::{draw, files, text};
use swath::{Error, Rect, Result};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [detection, recognition, picture, result] = &args[..] else {
        eprintln!("usage: read_text DETECTION.onnx RECOGNITION.onnx PICTURE RESULT.png");
        return ExitCode::FAILURE;
    };
    match read(detection, recognition, picture, result) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("read_text: {e}");
            ExitCode::FAILURE
        }
    }
}

fn read(detection: &str, recognition: &str, path: &str, result: &str) -> Result<()> {
    let mut picture = files::read(path)?;
    let lines = find(detection, &picture)?;
    let network = Network::open(recognition)?;
    let characters = characters(&network, recognition)?;
    let mut session = Shapes::new(network, Default::default(), 8)?;
    let mut drawn = picture.clone();
    let mut read = 0;
    for rect in lines {
        let line = crop(&picture, rect)?;
        let [_, h, w] = line.size;
        // 48 pixels high; widths in steps of 32, so that few shapes are compiled.
        let width = (w * 48).div_ceil(h).next_multiple_of(32).max(320);
        let prepare = Preparation::new([48, width]).letterbox(0.5).bgr().normalize([0.5; 3], [0.5; 3]);
        let (x, _) = prepare.input(&line)?;
        let (words, score) = text::spell(session.run(&[x])?[0].elements::<f32>().unwrap_or_default(), &characters)?;
        if score < 0.5 {
            continue;
        }
        println!("{:5.1} %  {words}", 100.0 * score);
        draw::rectangle(&mut drawn, rect, draw::color(read), 2);
        read += 1;
    }
    picture = drawn;
    files::write_png(&picture, result)?;
    println!("{read} lines; drawn to {result}, {} shapes compiled", session.kept());
    Ok(())
}

/// Boxes around lines of text, in pixels of the picture, from top to bottom.
fn find(model: &str, picture: &swath::data::Picture) -> Result<Vec<Rect>> {
    let [_, h, w] = picture.size;
    // Sides of multiples of 32, the shorter one of about 736.
    let scale = (736.0 / h.min(w) as f64).min(1.0);
    let side = |v: usize| ((v as f64 * scale / 32.0).round() as usize).max(1) * 32;
    let size = [side(h), side(w)];
    let (x, placed) = Preparation::new(size).bgr().normalize([0.5; 3], [0.5; 3]).input(picture)?;
    let mut session = Shapes::new(Network::open(model)?, Default::default(), 1)?;
    let map = session.run(&[x])?[0].elements::<f32>().unwrap_or_default().to_vec();
    let mut found = text::regions(&map, size, 0.3, 10)?;
    found.retain(|region| region.score > 0.6);
    Ok(found.iter().map(|region| placed.rect(text::grown(region.rect, 1.6))).collect())
}

/// The characters of the network's classes behind the first, which is none. The last one is a space.
fn characters(network: &Network, file: &str) -> Result<Vec<String>> {
    let model = network.model()?;
    let Some((_, all)) = model.metadata.iter().find(|(key, _)| *key == "character") else {
        return Err(Error::Format { file: file.into(), problem: "its metadata has no `character`".into() });
    };
    Ok(all.lines().map(String::from).chain([" ".to_string()]).collect())
}
