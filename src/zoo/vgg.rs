//! VGG: Simonyan and Zisserman 2014, Very Deep Convolutional Networks for Large-Scale Image Recognition,
//! <https://arxiv.org/abs/1409.1556>. Names and arrangement are torchvision's.

use crate::nn::{AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, Module, ReLU, Sequential};

/// Channels of the 3x3 convolutions of configuration D; a stage ends with a 2x2 max pool.
const STAGES: [&[usize]; 5] = [&[64, 64], &[128, 128], &[256, 256, 256], &[512, 512, 512], &[512, 512, 512]];

/// VGG-16: 13 convolutions of 3x3 and three Linear layers. `[n, 3, h, w]` to `[n, classes]`, for images of at least
/// 32x32; as in torchvision, other sizes than 224x224 are averaged to 7x7 before the Linear layers.
pub fn vgg16(classes: usize) -> Sequential {
    let (mut features, mut channels) = (Sequential::default(), 3);
    for stage in STAGES {
        for &width in stage {
            features = features.push(Conv2d::new(channels, width, 3).padding(1).kaiming()).push(ReLU);
            channels = width;
        }
        features = features.push(MaxPool2d::new(2));
    }
    let classifier = Sequential::new((
        Linear::new(channels * 7 * 7, 4096),
        ReLU,
        Dropout::default(),
        Linear::new(4096, 4096),
        ReLU,
        Dropout::default(),
        Linear::new(4096, classes),
    ));
    let (features, classifier) = (features.named("features"), classifier.named("classifier"));
    Sequential::new((features, AdaptiveAvgPool2d::new(7), Flatten, classifier))
}
