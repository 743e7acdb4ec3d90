//! What `swath train`, `swath eval` and `swath bench-train` share: data by name or folder, and networks by name.

use std::path::Path;
use std::sync::Arc;

use swath::data::augment::{Normalize, RandomCrop, RandomHorizontalFlip};
use swath::data::{Cifar, CifarKind, Dataset, Glyphs, ImageFolder, Loader, Mnist, Sample, Subset, Transformed};
use swath::nn::{Conv2d, Flatten, Linear, MaxPool2d, Module, ReLU, Sequential};
use swath::{Random, zoo};

use crate::failure::{Failure, Outcome};

/// Pictures for training and for validation, and how to normalise them.
pub struct Data {
    pub train: Arc<dyn Dataset>,
    pub test: Arc<dyn Dataset>,
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
    /// Channels, height and width.
    pub size: [usize; 3],
}

/// Drawn digits: as many for training and for validation.
const GLYPHS: [usize; 2] = [12_000, 2_000];

impl Data {
    /// `glyphs`, or what a folder holds.
    pub fn open(name: &str) -> Outcome<Self> {
        let folder = Path::new(name);
        let has = |file: &str| folder.join(file).exists();
        let cifar = |kind| -> Outcome<Self> {
            let open = |train| Cifar::open_folder(kind, folder, train);
            Self::new(open(true)?, open(false)?, &[0.4914, 0.4822, 0.4465], &[0.247, 0.2435, 0.2616])
        };
        if name == "glyphs" && !folder.is_dir() {
            return Self::glyphs(GLYPHS[0]);
        }
        if has("train-images-idx3-ubyte") || has("train-images-idx3-ubyte.gz") {
            return Self::new(Mnist::open(folder, true)?, Mnist::open(folder, false)?, &[0.1307], &[0.3081]);
        }
        if has("data_batch_1.bin") {
            return cifar(CifarKind::Cifar10);
        }
        if has("train.bin") && has("test.bin") {
            return cifar(CifarKind::Cifar100);
        }
        let test = ["test", "val", "validation"].into_iter().find(|name| folder.join(name).is_dir());
        if let Some(test) = test.filter(|_| folder.join("train").is_dir()) {
            let open = |part: &str| Ok::<_, swath::Error>(ImageFolder::open(folder.join(part))?.keep(true));
            return Self::new(open("train")?, open(test)?, &[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225]);
        }
        Err(Failure::new(format_args!(
            "{name}: no data set: neither `glyphs` nor a folder of MNIST's files, of CIFAR's binary files, or of train/CLASS and test/CLASS"
        )))
    }

    /// So many drawn digits for training, and others for validation.
    pub fn glyphs(training: usize) -> Outcome<Self> {
        Self::new(Glyphs::new(training, 1), Glyphs::new(GLYPHS[1], 2), &[0.2], &[0.25])
    }

    /// The same with at most so many pictures for training.
    pub fn limited(mut self, pictures: Option<usize>) -> Outcome<Self> {
        if let Some(n) = pictures.filter(|&n| n < self.train.len()) {
            self.train = Arc::new(Subset::new(self.train, (0..n).collect())?);
        }
        Ok(self)
    }

    fn new(train: impl Dataset + 'static, test: impl Dataset + 'static, mean: &[f32], std: &[f32]) -> Outcome<Self> {
        let mut sample = Sample::default();
        train.get(0, &mut Random::new(&[]), &mut sample)?;
        if train.classes() != test.classes() {
            let (a, b) = (train.classes().len(), test.classes().len());
            return Err(Failure::new(format_args!(
                "the data for training has {a} classes, that for testing {b} others"
            )));
        }
        let size = sample.picture.size;
        Ok(Self { train: Arc::new(train), test: Arc::new(test), mean: mean.to_vec(), std: std.to_vec(), size })
    }

    /// Batches for training: shuffled, whole ones only, with random crops and where `flip` mirror images if asked for.
    pub fn training(&self, batch: usize, seed: u64, threads: usize, augment: Augment) -> Outcome<Loader> {
        let mut data = Transformed::new(self.train.clone());
        if augment != Augment::None {
            data = data.with(RandomCrop::of([self.size[1], self.size[2]]).padding(self.size[1].div_ceil(8)));
        }
        if augment == Augment::CropFlip {
            data = data.with(RandomHorizontalFlip::new(0.5));
        }
        let data = data.with(Normalize::new(self.mean.clone(), self.std.clone()));
        Ok(Loader::new(data, batch)?.shuffle(true).drop_last(true).seed(seed).threads(threads))
    }

    /// Batches for validation.
    pub fn validation(&self, batch: usize, threads: usize) -> Outcome<Loader> {
        let data = Transformed::new(self.test.clone()).with(Normalize::new(self.mean.clone(), self.std.clone()));
        Ok(Loader::new(data, batch)?.threads(threads))
    }
}

/// How pictures are changed at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Augment {
    /// Not at all
    None,
    /// Shifted by up to an eighth
    Crop,
    /// Shifted, and mirrored half of the time
    CropFlip,
}

/// Names of the networks that can be trained.
pub const NETWORKS: [&str; 8] =
    ["cnn", "resnet18_cifar", "resnet18", "resnet34", "resnet50", "mobilenet_v1", "mobilenet_v2", "squeezenet"];

/// A network for pictures of a size.
pub fn network(name: &str, [channels, height, width]: [usize; 3], classes: usize) -> Outcome<Box<dyn Module>> {
    let network: Box<dyn Module> = match name {
        "cnn" => return Ok(two_convolutions(channels, [height, width], classes).boxed()),
        "resnet18_cifar" => zoo::resnet18_cifar(classes).boxed(),
        "resnet18" => zoo::resnet18(classes).boxed(),
        "resnet34" => zoo::resnet34(classes).boxed(),
        "resnet50" => zoo::resnet50(classes).boxed(),
        "mobilenet_v1" => zoo::mobilenet_v1(classes).boxed(),
        "mobilenet_v2" => zoo::mobilenet_v2(classes).boxed(),
        "squeezenet" => zoo::squeezenet(classes).boxed(),
        _ => {
            let known = NETWORKS.join(", ");
            return Err(Failure::new(format_args!("there is no network {name:?} to train; there are {known}")));
        }
    };
    match channels {
        3 => Ok(network),
        _ => Err(Failure::new(format_args!("{name} takes pictures of 3 channels, the data has {channels}"))),
    }
}

/// Two 3x3 convolutions with ReLU and pooling, and a linear layer: the network of MNIST in docs/measurements.
pub fn two_convolutions(channels: usize, [height, width]: [usize; 2], classes: usize) -> Sequential {
    let features = 32 * (height / 4) * (width / 4);
    Sequential::new((
        Conv2d::new(channels, 16, 3).padding(1).named("conv1"),
        ReLU,
        MaxPool2d::new(2),
        Conv2d::new(16, 32, 3).padding(1).named("conv2"),
        ReLU,
        MaxPool2d::new(2),
        Flatten,
        Linear::new(features, classes).named("fc"),
    ))
}
