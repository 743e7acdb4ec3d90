//! MobileNet v2: Sandler et al. 2018, MobileNetV2: Inverted Residuals and Linear Bottlenecks,
//! <https://arxiv.org/abs/1801.04381>. Names are torchvision's.

use super::{conv, conv_bn_relu6};
use crate::error::Result;
use crate::graph::Value;
use crate::nn::{AdaptiveAvgPool2d, BatchNorm2d, Dropout, Flatten, Linear, Module, Named, Sequential};

/// Expansion, output channels, blocks and stride of the first of them, table 2 of the paper.
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// MobileNet v2 of width 1: 17 inverted residuals between a 3x3 and a 1x1 convolution. `[n, 3, h, w]` to `[n, classes]`.
pub fn mobilenet_v2(classes: usize) -> Sequential {
    let mut features = Sequential::new((conv_bn_relu6(conv(3, 32, 3, 2), 32),));
    let mut channels = 32;
    for (expansion, width, blocks, stride) in STAGES {
        for b in 0..blocks {
            features =
                features.push(InvertedResidual::new(channels, width, expansion, if b == 0 { stride } else { 1 }));
            channels = width;
        }
    }
    features = features.push(conv_bn_relu6(conv(channels, 1280, 1, 1), 1280));
    let classifier = Sequential::new((Dropout::new(0.2), Linear::new(1280, classes)));
    let (features, classifier) = (features.named("features"), classifier.named("classifier"));
    Sequential::new((features, AdaptiveAvgPool2d::new(1), Flatten, classifier))
}

/// A 1x1 convolution that widens, a depthwise 3x3, and a 1x1 that narrows, without an activation at its end; plus the
/// input where the shape stays.
struct InvertedResidual {
    conv: Named<Sequential>,
    residual: bool,
}

impl InvertedResidual {
    fn new(inputs: usize, outputs: usize, expansion: usize, stride: usize) -> Self {
        let hidden = inputs * expansion;
        let mut layers = Sequential::default();
        if expansion != 1 {
            layers = layers.push(conv_bn_relu6(conv(inputs, hidden, 1, 1), hidden));
        }
        let layers = layers
            .push(conv_bn_relu6(conv(hidden, hidden, 3, stride).groups(hidden), hidden))
            .push(conv(hidden, outputs, 1, 1))
            .push(BatchNorm2d::new(outputs));
        Self { conv: layers.named("conv"), residual: stride == 1 && inputs == outputs }
    }
}

impl Module for InvertedResidual {
    fn call(&self, x: &Value) -> Result<Value> {
        let y = self.conv.call(x)?;
        Ok(if self.residual { y + x } else { y })
    }
}
