//! What is where? Boxes of a detector, drawn onto the picture.
//!
//! `cargo run --release --features onnx,image --example detect -- MODEL.onnx PICTURE RESULT.png`
//!
//! Two kinds of models are known by their outputs: YOLO v8 as ultralytics exports it (`[1, 4 + classes, boxes]`), and MediaPipe's BlazeFace
//! for faces far away (256x256 pixels, scores and boxes of two grids).

use std::process::ExitCode;

use swath::onnx::{Network, Shapes};
use swath::ops::Array;
use swath::vision::keypoints::Keypoint;
use swath::vision::prepare::{Placed, Preparation};
use swath::vision::{Detection, draw, files, nms, ssd, yolo};
use swath::{Error, Result};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, picture, result] = &args[..] else {
        eprintln!("usage: detect MODEL.onnx PICTURE RESULT.png");
        return ExitCode::FAILURE;
    };
    match detect(model, picture, result) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("detect: {e}");
            ExitCode::FAILURE
        }
    }
}

fn detect(model: &str, path: &str, result: &str) -> Result<()> {
    let network = Network::open(model)?;
    let (names, outputs) = {
        let file = network.model()?;
        let names = file.metadata.iter().find(|(key, _)| *key == "names").map_or(Vec::new(), |(_, v)| class_names(v));
        (names, file.graph.outputs.len())
    };
    let mut picture = files::read(path)?;
    let mut session = Shapes::new(network, Default::default(), 1)?;
    let found = match outputs {
        1 => {
            let (x, placed) = Preparation::new([320, 320]).letterbox(114.0 / 255.0).input(&picture)?;
            yolo_v8(&session.run(&[x])?[0], &placed)?
        }
        4 => {
            // From -1 to 1, channels side by side.
            let prepare = Preparation::new([256, 256]).letterbox(0.0).normalize([0.5; 3], [0.5; 3]).interleaved();
            let (x, placed) = prepare.input(&picture)?;
            blaze_face(session.run(&[x])?, &placed)?
        }
        n => {
            let problem =
                format!("a detector of {n} outputs, but only those of 1 (YOLO v8) and 4 (BlazeFace) are known");
            return Err(Error::Format { file: model.into(), problem });
        }
    };
    for (detection, points) in &found {
        let name = names.get(detection.class).map_or("", String::as_str);
        let r = detection.rect;
        println!(
            "{:5.1} %  {:4.0} {:4.0} {:4.0} {:4.0}  {name}",
            100.0 * detection.score,
            r.left,
            r.top,
            r.right,
            r.bottom
        );
        draw::detection(&mut picture, detection, name);
        draw::keypoints(&mut picture, points, [1.0, 1.0, 0.0], 2.0, 0.0);
    }
    files::write_png(&picture, result)?;
    println!("{} found; drawn to {result}", found.len());
    Ok(())
}

/// Boxes with their keypoints, in pixels of the picture.
type Found = Vec<(Detection, Vec<Keypoint>)>;

fn yolo_v8(output: &Array, placed: &Placed) -> Result<Found> {
    let classes = output.dims().get(1).map_or(0, |rows| rows.saturating_sub(4));
    let boxes = yolo::v8(output.elements::<f32>().unwrap_or_default(), classes, 0.25)?;
    let kept = nms::suppress(boxes, &nms::Options::default());
    Ok(kept.into_iter().map(|d| (d.moved(placed), Vec::new())).collect())
}

/// Two default boxes in each of 16x16 cells, six in each of 8x8, all of the size of the input. Behind a box's four numbers are those of six
/// points: eyes, nose, mouth, ears.
fn blaze_face(outputs: &[Array], placed: &Placed) -> Result<Found> {
    let coding = ssd::Coding::Linear { scale: 256.0 };
    let mut all = Vec::new();
    for (grid, (cells, each)) in [(16, 2), (8, 6)].into_iter().enumerate() {
        let priors = ssd::grid([cells; 2], [256.0; 2], &vec![[256.0; 2]; each]);
        let floats = |i: usize| outputs[i].elements::<f32>().unwrap_or_default();
        let scores: Vec<f32> = floats(grid).iter().map(|s| 1.0 / (1.0 + (-s).exp())).collect();
        let rows = floats(grid + 2);
        let locations: Vec<f32> = rows.chunks(16).flat_map(|row| row[..4].to_vec()).collect();
        for d in ssd::boxes(&priors, &locations, &scores, None, coding, 0.5)? {
            let centre = priors[d.index].centre;
            let points = rows[d.index * 16 + 4..][..12].chunks(2).map(|p| {
                let [x, y] = placed.point([centre[0] + p[0], centre[1] + p[1]]);
                Keypoint { x, y, score: d.score }
            });
            all.push((d, points.collect::<Vec<_>>()));
        }
    }
    // Numbered anew, to find a box's points by.
    let boxes = all.iter().enumerate().map(|(index, (d, _))| Detection { index, ..*d }).collect();
    let kept = nms::suppress(boxes, &nms::Options { iou: 0.3, ..Default::default() });
    Ok(kept.into_iter().map(|d| (d.moved(placed), all[d.index].1.clone())).collect())
}

/// Names as ultralytics writes them: `{0: 'person', 1: 'bicycle'}`.
fn class_names(text: &str) -> Vec<String> {
    text.split('\'').skip(1).step_by(2).map(|name| name.to_lowercase().replace('_', " ")).collect()
}
