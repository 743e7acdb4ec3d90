//! SqueezeNet: Iandola et al. 2016, SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size,
//! <https://arxiv.org/abs/1602.07360>; version 1.1 of the authors' repository. Names are torchvision's.

use crate::error::Result;
use crate::graph::Value;
use crate::nn::{AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, MaxPool2d, Module, Named, ReLU, Sequential};

/// SqueezeNet 1.1: a 3x3 convolution, eight fire modules and a 1x1 to the classes. `[n, 3, h, w]` to `[n, classes]`.
pub fn squeezenet(classes: usize) -> Sequential {
    // torchvision rounds pooled sizes up; for 224x224 both ways give the same.
    let pool = || MaxPool2d::new(3).stride(2).ceil_mode(true);
    let features = Sequential::new((
        Conv2d::new(3, 64, 3).stride(2).kaiming(),
        ReLU,
        pool(),
        Fire::new(64, 16, 64),
        Fire::new(128, 16, 64),
        pool(),
        Fire::new(128, 32, 128),
        Fire::new(256, 32, 128),
        pool(),
        Fire::new(256, 48, 192),
        Fire::new(384, 48, 192),
        Fire::new(384, 64, 256),
        Fire::new(512, 64, 256),
    ));
    let head = Conv2d::new(512, classes, 1).kaiming();
    let classifier = Sequential::new((Dropout::default(), head, ReLU, AdaptiveAvgPool2d::new(1)));
    Sequential::new((features.named("features"), classifier.named("classifier"), Flatten))
}

/// A 1x1 convolution that squeezes, then a 1x1 and a 3x3 beside each other that expand.
struct Fire {
    squeeze: Named<Conv2d>,
    expand1x1: Named<Conv2d>,
    expand3x3: Named<Conv2d>,
}

impl Fire {
    /// To twice `expand` channels.
    fn new(inputs: usize, squeeze: usize, expand: usize) -> Self {
        Self {
            squeeze: Conv2d::new(inputs, squeeze, 1).kaiming().named("squeeze"),
            expand1x1: Conv2d::new(squeeze, expand, 1).kaiming().named("expand1x1"),
            expand3x3: Conv2d::new(squeeze, expand, 3).padding(1).kaiming().named("expand3x3"),
        }
    }
}

impl Module for Fire {
    fn call(&self, x: &Value) -> Result<Value> {
        let x = self.squeeze.call(x)?.relu();
        Ok(self.expand1x1.call(&x)?.relu().concat(&[&self.expand3x3.call(&x)?.relu()]))
    }
}
