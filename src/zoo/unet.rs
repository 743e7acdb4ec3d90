//! U-Net: Ronneberger, Fischer and Brox 2015, U-Net: Convolutional Networks for Biomedical Image Segmentation,
//! <https://arxiv.org/abs/1505.04597>.
//!
//! As in the paper, convolutions have no padding, so an output pixel sees nothing but image. The up-convolution is a
//! transposed convolution of 2x2 with stride 2: as many weights as the paper's "upsampling followed by a 2x2
//! convolution", a quarter of its arithmetic, and no question of where an even kernel is padded.

use crate::error::Result;
use crate::graph::Value;
use crate::model::Model;
use crate::nn::{Conv2d, ConvTranspose2d, Crop, Dropout, MaxPool2d, Module, Named, ReLU, Sequential};

/// Channels at the top; every level below has twice as many.
const WIDTH: usize = 64;
/// Levels below the top.
const DEPTH: usize = 4;

/// U-Net: four levels of halved images below the top. `[n, 1, h, w]` to `[n, classes, h - 184, w - 184]`, of scores, one
/// for each class and pixel; 572x572 pixels become 388x388.
///
/// Height and width are 188 or more, in steps of 16, so that all 2x2 pools see even sizes; other sizes are refused when
/// the concatenations do not fit. Parameters are called `down.L.*` and `bottom.*`, `up.L.*` and `merge.L.*` with `L` the
/// level from the top, and `head.*`.
pub fn unet(classes: usize) -> UNet {
    UNet::new(classes)
}

/// Two unpadded 3x3 convolutions.
fn double(inputs: usize, outputs: usize) -> Sequential {
    let conv = |inputs| Conv2d::new(inputs, outputs, 3).kaiming();
    Sequential::new((conv(inputs), ReLU, conv(outputs), ReLU))
}

/// What [`unet`] makes: the contracting path, the bottom, the expanding path, and the convolution to classes.
#[derive(Debug)]
pub struct UNet {
    down: Vec<Named<Sequential>>,
    bottom: Named<Sequential>,
    up: Vec<Named<ConvTranspose2d>>,
    merge: Vec<Sequential>,
    head: Named<Conv2d>,
}

impl UNet {
    /// As [`Module::build`], for whoever does not have the trait in scope.
    ///
    /// # Errors
    /// As there.
    pub fn build(&self, seed: u64) -> Result<Model> {
        Module::build(self, seed)
    }

    fn new(classes: usize) -> Self {
        let width = |level: usize| WIDTH << level;
        let down = |level: usize| {
            let layers = double(if level == 0 { 1 } else { width(level - 1) }, width(level));
            // "Drop-out layers at the end of the contracting path"
            let layers = if level + 1 == DEPTH { layers.push(Dropout::default()) } else { layers };
            layers.named(format!("down.{level}"))
        };
        let up = |level| ConvTranspose2d::new(width(level + 1), width(level), 2).stride(2).named(format!("up.{level}"));
        let merge = |level| double(2 * width(level), width(level));
        Self {
            down: (0..DEPTH).map(down).collect(),
            bottom: double(width(DEPTH - 1), width(DEPTH)).push(Dropout::default()).named("bottom"),
            up: (0..DEPTH).map(up).collect(),
            merge: (0..DEPTH).map(merge).collect(),
            head: Conv2d::new(WIDTH, classes, 1).kaiming().named("head"),
        }
    }
}

/// What the image kept at `level` has more on each side than the one that comes up to it. Two convolutions take 2 pixels
/// from each side, and going up doubles them: 4 from the bottom, and at every level between, where two convolutions go
/// down and two go up, twice what comes from below and 4 more. From the top: 88, 40, 16, 4.
fn margin(level: usize) -> usize {
    (level + 1..DEPTH).rev().fold(4, |below, _| 2 * (below + 4))
}

impl Module for UNet {
    fn call(&self, x: &Value) -> Result<Value> {
        let (mut x, mut kept) = (x.clone(), Vec::new());
        for down in &self.down {
            let y = down.call(&x)?;
            x = MaxPool2d::new(2).call(&y)?;
            kept.push(y);
        }
        x = self.bottom.call(&x)?;
        for level in (0..DEPTH).rev() {
            let up = self.up[level].call(&x)?;
            // The concatenation belongs to the layer too, so that sizes that do not fit are reported under its name.
            x = up.scope(&format!("merge.{level}"), |up| {
                let kept = Crop::new(margin(level)).call(&kept[level])?;
                self.merge[level].call(&kept.concat(&[up]))
            })?;
        }
        self.head.call(&x)
    }
}
