//! MobileNet: Howard et al. 2017, MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications,
//! <https://arxiv.org/abs/1704.04861>.
//!
//! torchvision does not have it; the names `model.I.J` and `fc` are those of the usual PyTorch versions. Activations are
//! ReLU6, as in the authors' TensorFlow code; the paper says ReLU.

use super::{conv, conv_bn_relu6};
use crate::nn::{AdaptiveAvgPool2d, BatchNorm2d, Flatten, Linear, Module, ReLU6, Sequential};

/// Output channels and stride of the 13 depthwise separable convolutions, table 1 of the paper.
const SEPARABLE: [(usize, usize); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

/// MobileNet of width 1: a 3x3 convolution and 13 pairs of a depthwise 3x3 and a 1x1. `[n, 3, h, w]` to `[n, classes]`.
pub fn mobilenet_v1(classes: usize) -> Sequential {
    let mut model = Sequential::new((conv_bn_relu6(conv(3, 32, 3, 2), 32),));
    let mut channels = 32;
    for (width, stride) in SEPARABLE {
        model = model.push(Sequential::new((
            conv(channels, channels, 3, stride).groups(channels),
            BatchNorm2d::new(channels),
            ReLU6,
            conv(channels, width, 1, 1),
            BatchNorm2d::new(width),
            ReLU6,
        )));
        channels = width;
    }
    let fc = Linear::new(channels, classes).named("fc");
    Sequential::new((model.named("model"), AdaptiveAvgPool2d::new(1), Flatten, fc))
}
