//! Pictures as inputs of a model.

use std::path::Path;

use swath::onnx::{Dimension, ValueInfo, ValueType};
use swath::ops::Array;
use swath::vision::files;
use swath::vision::prepare::Preparation;

use crate::failure::{Failure, Outcome};

/// How pictures become inputs.
#[derive(Clone, Debug, clap::Args)]
pub struct Pictures {
    /// How a picture comes to the input's size
    #[arg(long, value_enum, default_value_t = Fit::Stretch, help_heading = "Pictures")]
    fit: Fit,
    /// Height and width, where the model leaves them open; the picture's own if they are not given
    #[arg(long, value_name = "HxW", value_parser = size, help_heading = "Pictures")]
    size: Option<[usize; 2]>,
    /// Values are 0 to this before the mean is taken off
    #[arg(long, value_name = "X", default_value_t = 1.0, help_heading = "Pictures")]
    range: f32,
    /// What is taken off each channel
    #[arg(long, value_name = "R,G,B", value_parser = three, default_value = "0,0,0", help_heading = "Pictures")]
    mean: Three,
    /// What each channel is divided by
    #[arg(long, value_name = "R,G,B", value_parser = three, default_value = "1,1,1", help_heading = "Pictures")]
    std: Three,
    /// Blue, green, red
    #[arg(long, help_heading = "Pictures")]
    bgr: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Fit {
    /// Each side by its own factor
    Stretch,
    /// Whole, with a grey border
    Letterbox,
    /// The middle, after scaling the shorter side to 8/7 of the input's
    Crop,
}

/// A number for each channel.
#[derive(Clone, Copy, Debug)]
pub struct Three([f32; 3]);

fn three(text: &str) -> Result<Three, String> {
    let values: Result<Vec<f32>, _> = text.split(',').map(|v| v.trim().parse()).collect();
    match values.as_deref() {
        Ok(&[v]) => Ok(Three([v; 3])),
        Ok(&[r, g, b]) => Ok(Three([r, g, b])),
        _ => Err("one number, or three such as 0.485,0.456,0.406".into()),
    }
}

fn size(text: &str) -> Result<[usize; 2], String> {
    let sides = text.split_once('x').and_then(|(h, w)| Some([h.parse().ok()?, w.parse().ok()?]));
    sides.filter(|s: &[usize; 2]| !s.contains(&0)).ok_or_else(|| "HxW, such as 224x224".into())
}

/// Whether the name is that of a picture.
pub fn is_picture(path: &str) -> bool {
    let ending = Path::new(path).extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    ending.is_some_and(|e| ["png", "jpg", "jpeg"].contains(&e.as_str()))
}

impl Pictures {
    /// A picture for an input of a model, which is `[n, c, h, w]` or `[n, h, w, c]` with one channel or three.
    pub fn read(&self, path: &str, input: &ValueInfo<'_>) -> Outcome<Array> {
        let refuse = |what: &str| Err(Failure::new(format_args!("input {} {what}, which is no picture", input.name)));
        let ValueType::Tensor { dims: Some(dims), .. } = &input.ty else {
            return refuse("has open dimensions");
        };
        let fixed = |d: &Dimension<'_>| if let Dimension::Fixed(d) = d { Some(*d) } else { None };
        let [_, a, b, c] = dims.iter().map(fixed).collect::<Vec<_>>()[..] else {
            return refuse(&format!("has {} dimensions", dims.len()));
        };
        let (channels, declared, interleaved) = match (a, c) {
            (Some(n @ (1 | 3)), _) => (n, [b, c], false),
            (_, Some(n @ (1 | 3))) => (n, [a, b], true),
            _ => return refuse("has neither 1 nor 3 channels"),
        };
        let picture = if channels == 1 { files::read_grey(path)? } else { files::read(path)? };
        let own = self.size.unwrap_or([picture.size[1], picture.size[2]]);
        let size = [declared[0].unwrap_or(own[0]), declared[1].unwrap_or(own[1])];
        let mut prepare = Preparation::new(size).range(self.range).normalize(self.mean.0, self.std.0);
        prepare = match self.fit {
            Fit::Stretch => prepare,
            Fit::Letterbox => prepare.letterbox(114.0 / 255.0),
            Fit::Crop => prepare.centre_crop(size[0].max(size[1]).saturating_mul(8) / 7),
        };
        if self.bgr {
            prepare = prepare.bgr();
        }
        if interleaved {
            prepare = prepare.interleaved();
        }
        Ok(prepare.input(&picture)?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes() {
        assert_eq!(three("0.5").unwrap().0, [0.5; 3]);
        assert_eq!(three("1, 2,3").unwrap().0, [1.0, 2.0, 3.0]);
        assert!(three("1,2").is_err() && three("").is_err() && three("a,b,c").is_err());
        assert_eq!(size("224x320"), Ok([224, 320]));
        assert!(size("224").is_err() && size("0x3").is_err() && size("ax3").is_err());
        assert!(is_picture("a.JPG") && is_picture("b.x.png") && !is_picture("png") && !is_picture("a.npy"));
    }
}
