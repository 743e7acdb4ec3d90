//! ResNet: He, Zhang, Ren and Sun 2015, Deep Residual Learning for Image Recognition, <https://arxiv.org/abs/1512.03385>.
//!
//! The arrangement and the names are torchvision's: in bottleneck blocks the stride is on the 3x3 convolution (v1.5), where
//! the paper has it on the first 1x1.

use super::conv;
use crate::error::Result;
use crate::graph::Value;
use crate::nn::{AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d, Module, Named, ReLU, Sequential};

/// ResNet-18: two blocks of two 3x3 convolutions in each of four stages. `[n, 3, h, w]` to `[n, classes]`.
pub fn resnet18(classes: usize) -> Sequential {
    resnet(imagenet_stem(), [2, 2, 2, 2], Block::basic, 1, classes)
}

/// ResNet-18 for small pictures, as of CIFAR: its first convolution is 3x3 with stride 1, and no pooling follows. `[n, 3, h, w]`
/// to `[n, classes]`.
pub fn resnet18_cifar(classes: usize) -> Sequential {
    let stem = Sequential::new((conv(3, 64, 3, 1).named("conv1"), BatchNorm2d::new(64).named("bn1"), ReLU));
    resnet(stem, [2, 2, 2, 2], Block::basic, 1, classes)
}

/// ResNet-34: 3, 4, 6 and 3 blocks of two 3x3 convolutions. `[n, 3, h, w]` to `[n, classes]`.
pub fn resnet34(classes: usize) -> Sequential {
    resnet(imagenet_stem(), [3, 4, 6, 3], Block::basic, 1, classes)
}

/// ResNet-50: 3, 4, 6 and 3 bottlenecks of 1x1, 3x3 and 1x1, with the stride on the 3x3. `[n, 3, h, w]` to
/// `[n, classes]`.
pub fn resnet50(classes: usize) -> Sequential {
    resnet(imagenet_stem(), [3, 4, 6, 3], Block::bottleneck, 4, classes)
}

fn imagenet_stem() -> Sequential {
    Sequential::new((
        conv(3, 64, 7, 2).named("conv1"),
        BatchNorm2d::new(64).named("bn1"),
        ReLU,
        MaxPool2d::new(3).stride(2).padding(1),
    ))
}

/// `make(inputs, width, stride)` is a block whose output has `expansion * width` channels.
fn resnet(
    stem: Sequential,
    blocks: [usize; 4],
    make: fn(usize, usize, usize) -> Block,
    expansion: usize,
    classes: usize,
) -> Sequential {
    let mut layers = stem;
    let mut channels = 64;
    for (i, blocks) in blocks.into_iter().enumerate() {
        let (width, stride) = (64 << i, if i == 0 { 1 } else { 2 });
        let mut stage = Sequential::default();
        for b in 0..blocks {
            stage = stage.push(make(channels, width, if b == 0 { stride } else { 1 }));
            channels = expansion * width;
        }
        layers = layers.push(stage.named(format!("layer{}", i + 1)));
    }
    layers.push(AdaptiveAvgPool2d::new(1)).push(Flatten).push(Linear::new(channels, classes).named("fc"))
}

/// `relu(convolutions(x) + shortcut(x))`, with ReLU between the convolutions.
struct Block {
    convolutions: Vec<(Named<Conv2d>, Named<BatchNorm2d>)>,
    /// A 1x1 convolution where the shape changes.
    shortcut: Option<Named<Sequential>>,
}

impl Block {
    fn basic(inputs: usize, width: usize, stride: usize) -> Self {
        Self::new(&[(inputs, width, 3, stride), (width, width, 3, 1)])
    }

    fn bottleneck(inputs: usize, width: usize, stride: usize) -> Self {
        Self::new(&[(inputs, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)])
    }

    /// From inputs, outputs, kernel and stride of its convolutions.
    fn new(convolutions: &[(usize, usize, usize, usize)]) -> Self {
        let inputs = convolutions.first().map_or(0, |c| c.0);
        let outputs = convolutions.last().map_or(0, |c| c.1);
        let stride: usize = convolutions.iter().map(|c| c.3).product();
        let named = |(i, &(ic, oc, kernel, stride)): (usize, &(usize, usize, usize, usize))| {
            let bn = BatchNorm2d::new(oc).named(format!("bn{}", i + 1));
            (conv(ic, oc, kernel, stride).named(format!("conv{}", i + 1)), bn)
        };
        let shortcut = || Sequential::new((conv(inputs, outputs, 1, stride), BatchNorm2d::new(outputs)));
        Self {
            convolutions: convolutions.iter().enumerate().map(named).collect(),
            shortcut: (inputs != outputs || stride != 1).then(|| shortcut().named("downsample")),
        }
    }
}

impl Module for Block {
    fn call(&self, x: &Value) -> Result<Value> {
        let mut y = x.clone();
        for (i, (conv, bn)) in self.convolutions.iter().enumerate() {
            y = if i == 0 { y } else { y.relu() };
            y = bn.call(&conv.call(&y)?)?;
        }
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.call(x)?,
            None => x.clone(),
        };
        Ok((y + x).relu())
    }
}
