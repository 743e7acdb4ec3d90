//! Well-known networks as layer code, with the layer shapes of their papers: to run, to train, and to tune and measure
//! convolutions that really occur.
//!
//! [`ZOO`] is the table of them, for programs that go by name; the functions build them for any number of classes.
//! Parameters have torchvision's names where torchvision has the network, so that its weights, saved as safetensors,
//! load; at first they are random, convolutions as He et al. 2015 initialise them.
//!
//! ```
//! use swath::zoo;
//! let network = zoo::find("resnet50")?;
//! assert_eq!((network.input(2), network.graph()?.parameter_count()), ([2, 3, 224, 224], 25_557_032));
//! let layers = network.convolutions(1)?;
//! assert_eq!(layers[2].to_string(), "mb1ic64ih56oc64oh56kh3ph1nresnet50:3");
//! assert_eq!(layers[2].times, 3);
//! let e = zoo::find("resnet51").unwrap_err().to_string();
//! assert!(e.starts_with("there is no network \"resnet51\"; there are resnet18, resnet34, resnet50"));
//! # Ok::<(), swath::Error>(())
//! ```
//!
//! With ten classes, on small images:
//!
//! ```
//! use swath::{Tensor, zoo};
//! let model = zoo::squeezenet(10).build(7)?;
//! let mut session = model.compile([1, 3, 32, 32])?;
//! assert_eq!(session.run(&Tensor::zeros([1, 3, 32, 32])?)?.dims(), [1, 10]);
//! # Ok::<(), swath::Error>(())
//! ```

use crate::benchdnn::Problem;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::model::Model;
use crate::nn::{BatchNorm2d, Conv2d, Module, ReLU6, Sequential};

mod mobilenet_v1;
mod mobilenet_v2;
mod resnet;
mod squeezenet;
mod unet;
mod vgg;

pub use mobilenet_v1::mobilenet_v1;
pub use mobilenet_v2::mobilenet_v2;
pub use resnet::{resnet18, resnet18_cifar, resnet34, resnet50};
pub use squeezenet::squeezenet;
pub use unet::{UNet, unet};
pub use vgg::vgg16;

/// Makes the layers for a number of classes.
type Layers = fn(usize) -> Box<dyn Module>;

/// A network of the zoo, as its paper has it.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// The name to find it by.
    pub name: &'static str,
    /// Where it comes from, and which variant it is.
    pub paper: &'static str,
    /// Channels, height and width of its images.
    pub image: [usize; 3],
    /// Classes that it tells apart.
    pub classes: usize,
    layers: Layers,
}

/// All networks.
pub static ZOO: &[Network] = &[
    imagenet("resnet18", "He et al. 2015, arXiv:1512.03385", |classes| resnet18(classes).boxed()),
    imagenet("resnet34", "He et al. 2015, arXiv:1512.03385", |classes| resnet34(classes).boxed()),
    imagenet("resnet50", "He et al. 2015, arXiv:1512.03385; stride in the 3x3 (v1.5)", |classes| {
        resnet50(classes).boxed()
    }),
    imagenet("vgg16", "Simonyan and Zisserman 2014, arXiv:1409.1556; configuration D", |classes| {
        vgg16(classes).boxed()
    }),
    imagenet("mobilenet_v1", "Howard et al. 2017, arXiv:1704.04861; width 1", |classes| mobilenet_v1(classes).boxed()),
    imagenet("mobilenet_v2", "Sandler et al. 2018, arXiv:1801.04381; width 1", |classes| mobilenet_v2(classes).boxed()),
    imagenet("squeezenet", "Iandola et al. 2016, arXiv:1602.07360; version 1.1", |classes| squeezenet(classes).boxed()),
    Network {
        name: "unet",
        paper: "Ronneberger et al. 2015, arXiv:1505.04597; 388x388 pixels out",
        image: [1, 572, 572],
        classes: 2,
        layers: |classes| unet(classes).boxed(),
    },
];

/// A classifier of colour images of 224x224 into ImageNet's 1000 classes.
const fn imagenet(name: &'static str, paper: &'static str, layers: Layers) -> Network {
    Network { name, paper, image: [3, 224, 224], classes: 1000, layers }
}

/// The network of that name.
///
/// # Errors
/// [`Error::UnknownNetwork`], which lists the names.
pub fn find(name: &str) -> Result<&'static Network> {
    ZOO.iter()
        .find(|n| n.name == name)
        .ok_or_else(|| Error::UnknownNetwork { name: name.into(), known: ZOO.iter().map(|n| n.name).collect() })
}

impl Network {
    /// The model with initial values that the seed determines.
    ///
    /// # Errors
    /// None are known.
    pub fn build(&self, seed: u64) -> Result<Model> {
        (self.layers)(self.classes).build(seed)
    }

    /// The operators alone, without memory for parameters.
    ///
    /// # Errors
    /// None are known.
    pub fn graph(&self) -> Result<Graph> {
        let layers = (self.layers)(self.classes);
        Graph::record(|x| layers.call(x))
    }

    /// Extents `[n, c, h, w]` of a batch of its images.
    pub fn input(&self, batch: usize) -> [usize; 4] {
        let [c, h, w] = self.image;
        [batch, c, h, w]
    }

    /// Its convolutions for a batch, equal ones once with their number, called `resnet50:1` and so on:
    /// [`Graph::convolutions`].
    ///
    /// # Errors
    /// If the batch is so large that sizes overflow.
    pub fn convolutions(&self, batch: usize) -> Result<Vec<Problem>> {
        self.graph()?.convolutions(self.name, &self.input(batch))
    }
}

/// A convolution without bias, which a batch normalisation follows; padding keeps the size at stride 1.
fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Conv2d {
    Conv2d::new(inputs, outputs, kernel).stride(stride).padding(kernel / 2).bias(false).kaiming()
}

/// A convolution with its batch normalisation and ReLU6, of which the MobileNets are made.
fn conv_bn_relu6(conv: Conv2d, channels: usize) -> Sequential {
    Sequential::new((conv, BatchNorm2d::new(channels), ReLU6))
}
