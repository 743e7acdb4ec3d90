//! Compiled sessions against a naive interpretation of the same network, in f64 and NCHW.

use proptest::prelude::*;
use swath::nn::*;
use swath::{Activation, ConvShape, Graph, Layout, Level, Model, Result, Session, SessionOptions, Tensor, Value};

/// One piece of a random network.
#[derive(Clone, Debug)]
enum Piece {
    /// Convolution, then perhaps an activation.
    Conv {
        oc: usize,
        kernel: usize,
        stride: usize,
        groups: bool,
        bias: bool,
        act: usize,
    },
    /// `act(conv(relu(conv(x))) + x)`.
    Residual {
        act: usize,
    },
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

fn conv(name: &str, ic: usize, oc: usize, kernel: usize) -> Conv2dNamed {
    Conv2d::new(ic, oc, kernel).padding(kernel / 2).named(name)
}

type Conv2dNamed = Named<Conv2d>;

impl Piece {
    /// Channels after the piece.
    fn channels(&self, c: usize) -> usize {
        match self {
            Piece::Conv { oc, .. } | Piece::TwoBranches { oc } => *oc,
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

    fn module(&self, c: usize) -> Box<dyn Module> {
        let piece = self.clone();
        let groups = self.groups(c);
        Box::new(move |x: &Value| -> Result<Value> {
            let act = |i: usize, x: Value| x.activation(ACTIVATIONS[i]);
            Ok(match piece {
                Piece::Conv { oc, kernel, stride, bias, act: a, .. } => {
                    let conv = Conv2d::new(c, oc, kernel).padding(kernel / 2).stride(stride).groups(groups).bias(bias);
                    act(a, conv.named("a").call(x)?)
                }
                Piece::Residual { act: a } => {
                    let y = conv("a", c, c, 3).call(x)?.relu();
                    act(a, conv("b", c, c, 1).call(&y)? + x)
                }
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
    fn interpret(&self, model: &Model, at: usize, x: &Image) -> Image {
        let conv = |name: &str, x: &Image, stride: usize, groups: usize| {
            let w = model.parameter(&format!("{at}.{name}.weight")).unwrap();
            let bias = model.parameter(&format!("{at}.{name}.bias")).ok();
            x.conv(w, bias, stride, groups)
        };
        let act = |i: usize, x: Image| x.map(|v| activation(ACTIVATIONS[i], v));
        match *self {
            Piece::Conv { stride, act: a, .. } => act(a, conv("a", x, stride, self.groups(x.dims[1]))),
            Piece::Residual { act: a } => {
                let y = conv("a", x, 1, 1).map(|v| v.max(0.0));
                act(a, conv("b", &y, 1, 1).add(x))
            }
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

/// An NCHW image in f64.
#[derive(Clone, Debug)]
struct Image {
    dims: [usize; 4],
    data: Vec<f64>,
}

impl Image {
    fn conv(&self, w: &Tensor, bias: Option<&Tensor>, stride: usize, groups: usize) -> Image {
        let weights: [usize; 4] = w.dims().try_into().unwrap();
        let shape = ConvShape::builder(self.dims, weights).stride(stride).padding(weights[2] / 2).groups(groups);
        let shape = shape.build().unwrap();
        // Rounding the input to f32 once per layer is far below the tolerance.
        let x: Vec<f32> = self.data.iter().map(|&v| v as f32).collect();
        let data = swath_kernels::reference::conv2d(&shape, &x, w.as_slice(), bias.map(|b| b.as_slice()));
        Image { dims: shape.output(), data }
    }

    fn map(mut self, f: impl Fn(f64) -> f64) -> Image {
        self.data.iter_mut().for_each(|v| *v = f(*v));
        self
    }

    fn add(&self, other: &Image) -> Image {
        Image { dims: self.dims, data: self.data.iter().zip(&other.data).map(|(a, b)| a + b).collect() }
    }

    fn concat(parts: &[&Image]) -> Image {
        let [n, _, h, w] = parts[0].dims;
        let c = parts.iter().map(|p| p.dims[1]).sum();
        let image = |p: &Image, i: usize| p.data[i * p.dims[1] * h * w..][..p.dims[1] * h * w].to_vec();
        let data = (0..n).flat_map(|i| parts.iter().flat_map(move |p| image(p, i))).collect();
        Image { dims: [n, c, h, w], data }
    }

    fn pool(&self, k: usize, s: usize, pad: usize, f: impl Fn(&[f64]) -> f64) -> Image {
        let [n, c, h, w] = self.dims;
        let (oh, ow) = ((h + 2 * pad - k) / s + 1, (w + 2 * pad - k) / s + 1);
        let mut data = Vec::new();
        for plane in self.data.chunks(h * w).take(n * c) {
            for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
                let inside = |o: usize, size: usize| (o * s..o * s + k).filter(move |p| (pad..pad + size).contains(p));
                let window: Vec<f64> =
                    inside(oy, h).flat_map(|y| inside(ox, w).map(move |x| plane[(y - pad) * w + x - pad])).collect();
                data.push(f(&window));
            }
        }
        Image { dims: [n, c, oh, ow], data }
    }
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let oc = prop_oneof![1..40usize, Just(16usize), Just(32)];
    let act = 0..ACTIVATIONS.len();
    let piece = prop_oneof![
        3 => (oc.clone(), prop_oneof![Just(1usize), Just(3)], 1..3usize, any::<bool>(), any::<bool>(), act.clone()).prop_map(
            |(oc, kernel, stride, groups, bias, act)| Piece::Conv { oc, kernel, stride, groups, bias, act }
        ),
        2 => act.clone().prop_map(|act| Piece::Residual { act }),
        1 => oc.clone().prop_map(|oc| Piece::TwoBranches { oc }),
        2 => oc.prop_map(|oc| Piece::Concat { oc }),
        1 => act.prop_map(Piece::Act),
        1 => Just(Piece::MaxPool),
        1 => Just(Piece::AvgPool),
        1 => Just(Piece::Double),
    ];
    prop::collection::vec(piece, 1..7)
}

fn input(dims: [usize; 4], seed: u32) -> Tensor {
    let mut state = seed.wrapping_mul(2654435761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let data: Vec<f32> = (0..dims.iter().product()).map(|_| next()).collect();
    Tensor::new(dims, &data).unwrap()
}

fn assert_close(session: &mut Session, x: &Tensor, expected: &Image) {
    // Twice, so that what a run leaves behind shows.
    for _ in 0..2 {
        let y = session.run(x).unwrap().to_layout(Layout::Nchw).unwrap();
        assert_eq!(y.dims(), &expected.dims[..y.dims().len()]);
        let largest = expected.data.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (i, (a, b)) in y.as_slice().iter().zip(&expected.data).enumerate() {
            assert!((f64::from(*a) - b).abs() < 2e-5 * largest, "element {i}: {a} and {b}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_networks(
        pieces in pieces(), n in 1..3usize, c in 1..20usize, side in 5..12usize, seed in any::<u32>(),
        layouts in (0..3usize, 0..3usize), classify in any::<bool>(),
    ) {
        let mut channels = c;
        let mut modules = Vec::new();
        for piece in &pieces {
            modules.push(piece.module(channels));
            channels = piece.channels(channels);
        }
        prop_assume!(channels < 400);
        let dims = [n, c, side, side + 1];
        let mut network = Sequential::new(modules);
        // Pools may shrink the image to nothing.
        let Ok(image) = network.build(0).unwrap().output_dims(dims) else { return Err(TestCaseError::reject("no image")) };
        let features = image[1..].iter().product();
        if classify {
            network = network.push(Flatten).push(Linear::new(features, 7).named("head"));
        }
        let model = network.build(u64::from(seed)).unwrap();
        let x = input(dims, seed);
        let mut expected = Image { dims, data: x.as_slice().iter().map(|&v| f64::from(v)).collect() };
        for (i, piece) in pieces.iter().enumerate() {
            expected = piece.interpret(&model, i, &expected);
        }
        if classify {
            // Linear is a 1x1 convolution of an image of one pixel.
            let (w, b) = (model.parameter("head.weight").unwrap(), model.parameter("head.bias").unwrap());
            let flat = Image { dims: [n, features, 1, 1], ..expected };
            expected = flat.conv(&w.clone().reshape([7, features, 1, 1]).unwrap(), Some(b), 1, 1);
        }
        let mut options = SessionOptions::default();
        (options.input, options.output) = (Layout::ALL[layouts.0], Layout::ALL[layouts.1]);
        let mut session = model.compile_with(dims, &options).unwrap();
        let x = x.to_layout(options.input).unwrap();
        assert_close(&mut session, &x, &expected);
        assert_close(&mut session.clone(), &x, &expected);
    }
}

#[test]
fn a_classifier_with_everything_behind_the_convolutions() {
    let model = Sequential::new((
        Conv2d::new(3, 20, 3).padding(1),
        SiLU,
        AdaptiveAvgPool2d::new(2),
        Flatten,
        Linear::new(80, 33),
        Tanh,
        Linear::new(33, 5).bias(false),
        Softmax::new(1),
    ));
    let model = model.build(3).unwrap();
    let x = input([4, 3, 6, 6], 1);
    let y = model.compile([4, 3, 6, 6]).unwrap().run(&x).unwrap().clone();
    assert_eq!(y.dims(), [4, 5]);
    for row in y.as_slice().chunks(5) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{row:?}");
    }
    // Every image by itself gives the same.
    let mut one = model.compile([1, 3, 6, 6]).unwrap();
    for (x, y) in x.as_slice().chunks(108).zip(y.as_slice().chunks(5)) {
        for (a, b) in one.run(x).unwrap().as_slice().iter().zip(y) {
            assert!((a - b).abs() < 1e-6);
        }
    }
}

#[test]
fn a_model_stays_blocked_and_says_so() {
    let block = |x: &Value| -> Result<Value> {
        let (a, b) = (conv("a", 32, 32, 3), conv("b", 32, 32, 3));
        Ok((b.call(&a.call(x)?.relu())? + x).relu())
    };
    let model = Sequential::new((
        Conv2d::new(3, 32, 3).stride(2).padding(1),
        ReLU,
        block,
        MaxPool2d::new(2),
        AdaptiveAvgPool2d::new(1),
        Flatten,
        Linear::new(32, 10),
    ));
    let session = model.build(0).unwrap().compile([1, 3, 32, 32]).unwrap();
    let text = session.explain();
    assert!(!text.contains("reorder"), "{text}");
    // Layer by layer, whatever the plan's algorithms are called.
    for (layer, runs, fused) in
        [("0", "Conv2d 3x3/2", "+ bias + ReLU"), ("2.b", "Conv2d 3x3", "+ bias + residual + ReLU")]
    {
        let line = text.lines().find(|l| l.split_whitespace().nth(1) == Some(layer)).unwrap_or_default();
        assert!(line.contains(runs) && line.contains(fused), "layer {layer}: {text}");
    }
    assert_eq!(text.lines().count(), 1 + 1 + 6 + 1, "{text}");
}

#[test]
fn linear_reads_a_flattened_image_as_it_lies_if_its_blocks_are_full() {
    for (channels, reorders) in [(32, 0), (20, 1)] {
        let net = Sequential::new((Conv2d::new(3, channels, 3), Flatten, Linear::new(channels * 9, 4)));
        let text = net.build(0).unwrap().compile([2, 3, 5, 5]).unwrap().explain();
        assert_eq!(text.matches("reorder").count(), reorders, "{text}");
    }
}

#[test]
fn a_level_that_the_machine_lacks_is_refused() {
    let missing = Level::ALL.into_iter().find(|l| !l.is_available());
    let mut options = SessionOptions::default();
    for (level, there) in [(Some(Level::Scalar), true), (missing, missing.is_none())] {
        options.level = level;
        assert_eq!(ReLU.build(0).unwrap().compile_with([1, 4], &options).is_ok(), there);
    }
}

#[test]
fn unknown_and_known_shapes_record_the_same_graph() {
    let net = |x: &Value| Ok((Conv2d::new(3, 4, 3).named("c").call(x)?.relu()).flatten());
    let (a, b) = (Graph::record(net).unwrap(), Graph::record_for([1, 3, 5, 5], net).unwrap());
    assert_eq!(a.to_string(), b.to_string());
    assert_eq!(a.to_string(), "%0 = Input()\n%1 = Conv2d(%0) c\n%2 = ReLU(%1)\n%3 = Flatten(%2)\noutput %3\n");
    let mut seen = None;
    Graph::record_for([1, 3, 5, 5], |x| {
        let y = net(x)?;
        seen = y.dims();
        Ok(y)
    })
    .unwrap();
    assert_eq!(seen, Some(vec![1, 36]));
    let e = Graph::record_for([1, 3, 2, 5], net).unwrap_err().to_string();
    assert_eq!(e, "layer `c`: along the height the dilated kernel spans 3, but the padded input only 2");
}

#[test]
fn mismatched_sums_and_concatenations_are_refused_when_compiled() {
    let net = |x: &Value| Ok(Conv2d::new(3, 4, 3).named("c").call(x)? + x);
    let e = net.build(0).unwrap().compile([1, 3, 5, 5]).unwrap_err().to_string();
    assert_eq!(e, "Add: the shapes [1, 4, 3, 3] and [1, 3, 5, 5] do not agree");
    let net = |x: &Value| x.scope("join", |x| Ok(x.concat(&[&MaxPool2d::new(2).call(x)?])));
    let e = net.build(0).unwrap().compile([1, 3, 5, 5]).unwrap_err().to_string();
    assert_eq!(e, "layer `join`: Concat: the shapes [1, 3, 5, 5] and [1, 3, 2, 2] do not agree");
}

#[test]
fn inputs_are_checked_by_shape_layout_and_length() {
    let mut session = ReLU.build(0).unwrap().compile([1, 2, 2, 3]).unwrap();
    let text = |e: Result<&Tensor>| e.unwrap_err().to_string();
    assert!(text(session.run(&[0.0; 11])).contains("11 elements, but 12"));
    assert!(text(session.run(&Tensor::zeros([1, 3, 2, 2]).unwrap())).contains("[1, 3, 2, 2] and [1, 2, 2, 3]"));
    let nhwc = Tensor::zeros_in([1, 2, 2, 3], Layout::Nhwc).unwrap();
    assert!(text(session.run(&nhwc)).contains("nhwc, but the session was compiled for nchw"));
    assert_eq!(session.run(&vec![-1.0; 12]).unwrap().as_slice(), [0.0; 12]);
}

#[test]
fn empty_batches_and_models_that_do_nothing() {
    let model =
        Sequential::new((Conv2d::new(3, 8, 3), MaxPool2d::new(2), Flatten, Linear::new(8, 2))).build(0).unwrap();
    assert_eq!(model.compile([0, 3, 4, 4]).unwrap().run(&[0.0; 0]).unwrap().dims(), [0, 2]);
    let mut identity = Sequential::default().build(0).unwrap().compile([1, 4]).unwrap();
    assert_eq!(identity.run(&[1.0, 2.0, 3.0, 4.0]).unwrap().as_slice(), [1.0, 2.0, 3.0, 4.0]);
    let mut flat = Flatten.build(0).unwrap().compile([1, 1, 2, 2]).unwrap();
    assert_eq!(flat.run(&[1.0, 2.0, 3.0, 4.0]).unwrap().dims(), [1, 4]);
}

#[test]
fn sessions_move_to_threads_and_keep_their_weights() {
    let mut model = Linear::new(2, 1).bias(false).build(0).unwrap();
    model.set_parameter("weight", &Tensor::new([1, 2], &[1.0, 2.0]).unwrap()).unwrap();
    let session = model.compile([1, 2]).unwrap();
    model.set_parameter("weight", &Tensor::zeros([1, 2]).unwrap()).unwrap();
    let threads: Vec<_> = (0..3)
        .map(|i| {
            let mut session = session.clone();
            std::thread::spawn(move || session.run(&[i as f32, 1.0]).unwrap().as_slice().to_vec())
        })
        .collect();
    for (i, t) in threads.into_iter().enumerate() {
        assert_eq!(t.join().unwrap(), [i as f32 + 2.0]);
    }
}
