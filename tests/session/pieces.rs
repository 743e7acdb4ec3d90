//! Pieces that random networks are made of, as layers and interpreted naively.

use proptest::prelude::*;
use swath::nn::*;
use swath::{Activation, Model, Result, Value};

use super::image::Image;

/// One piece of a random network.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Convolution, then perhaps a batch normalisation and an activation.
    Conv {
        oc: usize,
        kernel: usize,
        stride: usize,
        groups: bool,
        bias: bool,
        norm: bool,
        act: usize,
    },
    /// `act(norm(conv(relu(conv(x)))) + x)`.
    Residual {
        act: usize,
    },
    /// `norm(x)`, then perhaps an activation.
    Norm {
        act: usize,
    },
    /// `act(norm(y)) + y` of `y = conv(x)`: a normalisation that cannot be folded.
    Fork {
        act: usize,
    },
    /// Transposed convolution of 2x3, then perhaps a batch normalisation and an activation.
    Transpose {
        oc: usize,
        bias: bool,
        norm: bool,
        act: usize,
    },
    /// Every pixel 3x2 times.
    Upsample,
    /// Without the first row and the last two columns.
    Crop,
    /// The identity.
    Dropout,
    /// `conv(x) + conv(x)`, both of `oc` channels.
    TwoBranches {
        oc: usize,
    },
    /// `[x, conv(x), x]` along the channels.
    Concat {
        oc: usize,
    },
    Act(usize),
    MaxPool,
    AvgPool,
    /// `x + x`.
    Double,
}

const ACTIVATIONS: [Activation; 6] = [
    Activation::Identity,
    Activation::Relu,
    Activation::Sigmoid,
    Activation::HardSwish,
    Activation::LeakyRelu { slope: 0.1 },
    Activation::Clip { lo: -0.5, hi: 0.5 },
];

/// Margins of a crop: top, left, bottom, right.
const MARGINS: [usize; 4] = [1, 0, 0, 2];

pub fn conv(name: &str, ic: usize, oc: usize, kernel: usize) -> Conv2dNamed {
    Conv2d::new(ic, oc, kernel).padding(kernel / 2).named(name)
}

pub type Conv2dNamed = Named<Conv2d>;

impl Piece {
    /// Channels after the piece.
    pub fn channels(&self, c: usize) -> usize {
        match self {
            Piece::Conv { oc, .. } | Piece::TwoBranches { oc } | Piece::Transpose { oc, .. } => *oc,
            Piece::Concat { oc } => 2 * c + oc,
            _ => c,
        }
    }

    fn groups(&self, c: usize) -> usize {
        match self {
            Piece::Conv { groups: true, oc, .. } if oc % c == 0 => c,
            _ => 1,
        }
    }

    /// Whether the image becomes larger.
    pub fn grows(&self) -> bool {
        matches!(self, Piece::Transpose { .. } | Piece::Upsample)
    }

    pub fn module(&self, c: usize) -> Box<dyn Module> {
        let piece = self.clone();
        let groups = self.groups(c);
        Box::new(move |x: &Value| -> Result<Value> {
            let act = |i: usize, x: Value| x.activation(ACTIVATIONS[i]);
            let norm = |c: usize, x: &Value| BatchNorm2d::new(c).named("norm").call(x);
            Ok(match piece {
                Piece::Conv { oc, kernel, stride, bias, norm: n, act: a, .. } => {
                    let conv = Conv2d::new(c, oc, kernel).padding(kernel / 2).stride(stride).groups(groups).bias(bias);
                    let y = conv.named("a").call(x)?;
                    act(a, if n { norm(oc, &y)? } else { y })
                }
                Piece::Residual { act: a } => {
                    let y = conv("a", c, c, 3).call(x)?.relu();
                    act(a, norm(c, &conv("b", c, c, 1).call(&y)?)? + x)
                }
                Piece::Norm { act: a } => act(a, norm(c, x)?),
                Piece::Fork { act: a } => {
                    let y = conv("a", c, c, 1).call(x)?;
                    act(a, norm(c, &y)?) + y
                }
                Piece::Transpose { oc, bias, norm: n, act: a } => {
                    let up = ConvTranspose2d::new(c, oc, [2, 3]).stride([2, 3]).bias(bias).named("a");
                    let y = up.call(x)?;
                    act(a, if n { norm(oc, &y)? } else { y })
                }
                Piece::Upsample => Upsample::new([3, 2]).call(x)?,
                Piece::Crop => Crop::new(MARGINS).call(x)?,
                Piece::Dropout => Dropout::new(0.3).call(x)?,
                Piece::TwoBranches { oc } => conv("a", c, oc, 1).call(x)? + conv("b", c, oc, 3).call(x)?,
                Piece::Concat { oc } => x.concat(&[&conv("a", c, oc, 3).call(x)?, x]),
                Piece::Act(a) => act(a, x.clone()),
                Piece::MaxPool => MaxPool2d::new(3).stride(2).padding(1).call(x)?,
                Piece::AvgPool => AvgPool2d::new(2).stride(1).call(x)?,
                Piece::Double => x + x,
            })
        })
    }

    /// The naive interpretation.
    pub fn interpret(&self, model: &Model, at: usize, x: &Image) -> Image {
        let conv = |name: &str, x: &Image, stride: usize, groups: usize| {
            let w = model.parameter(&format!("{at}.{name}.weight")).unwrap();
            let bias = model.parameter(&format!("{at}.{name}.bias")).ok();
            x.conv(w, bias, stride, groups)
        };
        let parameter = |name: &str| model.parameter(&format!("{at}.{name}")).unwrap().as_slice();
        let norm = |x: &Image| {
            x.normalise(["weight", "bias", "running_mean", "running_var"].map(|p| parameter(&format!("norm.{p}"))))
        };
        let norm_if = |n: bool, x: Image| if n { norm(&x) } else { x };
        let act = |i: usize, x: Image| x.map(|v| activation(ACTIVATIONS[i], v));
        match *self {
            Piece::Conv { stride, norm: n, act: a, .. } => {
                act(a, norm_if(n, conv("a", x, stride, self.groups(x.dims[1]))))
            }
            Piece::Residual { act: a } => {
                let y = conv("a", x, 1, 1).map(|v| v.max(0.0));
                act(a, norm(&conv("b", &y, 1, 1)).add(x))
            }
            Piece::Norm { act: a } => act(a, norm(x)),
            Piece::Fork { act: a } => {
                let y = conv("a", x, 1, 1);
                act(a, norm(&y)).add(&y)
            }
            Piece::Transpose { oc, bias, norm: n, act: a } => {
                let bias = bias.then(|| parameter("a.bias"));
                act(a, norm_if(n, x.transpose(parameter("a.weight"), bias, oc, [2, 3])))
            }
            Piece::Upsample => {
                let [n, c, h, w] = x.dims;
                x.pick([n, c, 3 * h, 2 * w], |[i, k, y, x]| [i, k, y / 3, x / 2])
            }
            Piece::Crop => {
                let ([n, c, h, w], [top, left, bottom, right]) = (x.dims, MARGINS);
                x.pick([n, c, h - top - bottom, w - left - right], |[i, k, y, x]| [i, k, y + top, x + left])
            }
            Piece::Dropout => x.clone(),
            Piece::TwoBranches { .. } => conv("a", x, 1, 1).add(&conv("b", x, 1, 1)),
            Piece::Concat { .. } => Image::concat(&[x, &conv("a", x, 1, 1), x]),
            Piece::Act(a) => act(a, x.clone()),
            Piece::MaxPool => x.pool(3, 2, 1, |w| w.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            Piece::AvgPool => x.pool(2, 1, 0, |w| w.iter().sum::<f64>() / 4.0),
            Piece::Double => x.add(x),
        }
    }
}

fn activation(a: Activation, x: f64) -> f64 {
    match a {
        Activation::Relu => x.max(0.0),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::LeakyRelu { slope } => x.max(f64::from(slope) * x),
        Activation::Clip { lo, hi } => x.clamp(lo.into(), hi.into()),
        _ => x,
    }
}

/// Up to six pieces, of which at most one makes the image larger, so that the naive interpretation takes no minutes.
pub fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let oc = prop_oneof![1..40usize, Just(16usize), Just(32)];
    let act = 0..ACTIVATIONS.len();
    let (flag, kernel) = (any::<bool>(), prop_oneof![Just(1usize), Just(3)]);
    let conv = (oc.clone(), kernel, 1..3usize, flag, flag, flag, act.clone());
    let piece = prop_oneof![
        3 => conv.prop_map(|(oc, kernel, stride, groups, bias, norm, act)| {
            Piece::Conv { oc, kernel, stride, groups, bias, norm, act }
        }),
        2 => act.clone().prop_map(|act| Piece::Residual { act }),
        1 => act.clone().prop_map(|act| Piece::Norm { act }),
        1 => act.clone().prop_map(|act| Piece::Fork { act }),
        1 => (oc.clone(), flag, flag, act.clone()).prop_map(|(oc, bias, norm, act)| {
            Piece::Transpose { oc, bias, norm, act }
        }),
        1 => oc.clone().prop_map(|oc| Piece::TwoBranches { oc }),
        2 => oc.prop_map(|oc| Piece::Concat { oc }),
        1 => act.prop_map(Piece::Act),
        1 => Just(Piece::Upsample),
        1 => Just(Piece::Crop),
        1 => Just(Piece::Dropout),
        1 => Just(Piece::MaxPool),
        1 => Just(Piece::AvgPool),
        1 => Just(Piece::Double),
    ];
    prop::collection::vec(piece, 1..7).prop_map(|mut pieces| {
        let mut grown = false;
        pieces.retain(|p| !p.grows() || !core::mem::replace(&mut grown, true));
        pieces
    })
}
