//! Compiled sessions against a naive interpretation of the same network, in f64 and NCHW.
#![cfg(feature = "nn")]

mod image;
mod pieces;
#[path = "../../kernels/tests/tries/mod.rs"]
mod tries;

use image::Image;
use pieces::{Piece, conv, pieces};
use proptest::prelude::*;
use swath::nn::*;
use swath::{Accuracy, Graph, Layout, Level, Model, Result, Session, SessionOptions, Tensor, Value};
use tries::tries;

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

/// The model with running statistics, and scales and shifts of normalisations, that are not those of the start.
fn normalised(mut model: Model, seed: u32) -> Model {
    let names: Vec<(String, usize)> =
        model.state().filter(|(n, _)| n.contains("norm.")).map(|(n, t)| (n.into(), t.dims()[0])).collect();
    for (i, (name, c)) in names.into_iter().enumerate() {
        let mut value = input([1, c, 1, 1], seed ^ i as u32).reshape([c]).unwrap();
        if name.ends_with("running_var") {
            value.as_mut_slice().iter_mut().for_each(|v| *v += 1.25);
        }
        model.set_parameter(&name, &value).unwrap();
    }
    model
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
    #![proptest_config(tries(64))]

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
        prop_assume!(channels < if pieces.iter().any(Piece::grows) { 120 } else { 400 });
        let dims = [n, c, side, side + 1];
        let mut network = Sequential::new(modules);
        // Pools may shrink the image to nothing.
        let Ok(image) = network.build(0).unwrap().output_dims(dims) else { return Err(TestCaseError::reject("no image")) };
        let features = image[1..].iter().product();
        if classify {
            network = network.push(Flatten).push(Linear::new(features, 7).named("head"));
        }
        let model = normalised(network.build(u64::from(seed)).unwrap(), seed);
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

/// Every operator, at every level and for several numbers of threads. Images are large enough that steps are cut into
/// pieces for threads (from 2^18 multiply-adds on).
#[test]
fn every_operator_at_every_level_with_any_number_of_threads() {
    let conv = |oc, kernel, norm: bool| Piece::Conv { oc, kernel, stride: 1, groups: false, bias: !norm, norm, act: 1 };
    let pieces = [
        conv(20, 3, true),
        Piece::Fork { act: 3 },
        Piece::Residual { act: 1 },
        Piece::Norm { act: 2 },
        Piece::Dropout,
        Piece::Transpose { oc: 24, bias: true, norm: true, act: 1 },
        Piece::Crop,
        Piece::MaxPool,
        Piece::Upsample,
        Piece::Concat { oc: 16 },
        Piece::Concat { oc: 16 },
        Piece::Double,
        conv(2, 1, false),
    ];
    let (mut channels, mut modules) = (3, Vec::new());
    for piece in &pieces {
        modules.push(piece.module(channels));
        channels = piece.channels(channels);
    }
    let dims = [2, 3, 9, 14];
    let model = normalised(Sequential::new(modules).build(5).unwrap(), 5);
    let x = input(dims, 5);
    let mut expected = Image { dims, data: x.as_slice().iter().map(|&v| f64::from(v)).collect() };
    for (i, piece) in pieces.iter().enumerate() {
        expected = piece.interpret(&model, i, &expected);
    }
    for &level in Level::available() {
        let session = |threads| {
            let options = SessionOptions { level: Some(level), threads: Some(threads), ..SessionOptions::default() };
            model.compile_with(dims, &options).unwrap()
        };
        let mut one = session(1);
        assert!(!one.explain().contains("reorder nchw"), "{}", one.explain());
        assert_close(&mut one, &x, &expected);
        let one = one.run(&x).unwrap();
        for threads in [2, 3, 8] {
            assert_eq!(session(threads).run(&x).unwrap(), one, "{level}, {threads} threads");
        }
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
fn exact_sessions_leave_winograd_out() {
    // A layer that Winograd wins by far, so that the default takes it.
    let model = Conv2d::new(64, 64, 3).padding(1).build(0).unwrap();
    let steps = |accuracy| {
        let options = SessionOptions { accuracy, ..SessionOptions::default() };
        model.compile_with([1, 64, 56, 56], &options).unwrap().explain()
    };
    let (default, exact) = (steps(Accuracy::Default), steps(Accuracy::Exact));
    assert!(default.contains("winograd"), "{default}");
    assert!(!exact.contains("winograd"), "{exact}");
}

#[test]
fn unknown_and_known_shapes_record_the_same_graph() {
    let net = |x: &Value| Ok((Conv2d::new(3, 4, 3).named("c").call(x)?.relu()).flatten());
    let (a, b) = (Graph::record(net).unwrap(), Graph::record_for([1, 3, 5, 5], net).unwrap());
    assert_eq!(a.to_string(), b.to_string());
    assert_eq!(
        a.to_string(),
        "%0 = Input()\n%3 = Conv2d(%0, c.weight, c.bias) c\n%4 = ReLU(%3)\n%5 = Flatten(%4)\noutput %5\n"
    );
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

#[test]
fn results_in_the_callers_memory_are_those_of_a_run() {
    let graph = Graph::record_many(&["a", "b"], &["sum", "relu", "same"], |x| {
        let sum = &x[0] + &x[1];
        Ok(vec![sum.clone(), sum.relu(), x[0].clone()])
    });
    let model = Model::new(graph.unwrap(), 0).unwrap();
    let facts = [swath::graph::Fact::f32([1, 20, 3, 5]), swath::graph::Fact::f32([1, 20, 3, 5])];
    let [a, b] = [1, 2].map(|seed| input([1, 20, 3, 5], seed));
    for output in Layout::ALL {
        let options = SessionOptions { output, threads: Some(2), ..SessionOptions::default() };
        let mut session = model.compile_for(&facts, &options).unwrap();
        let mut own = [0; 3].map(|_| vec![f32::NAN; output.len([1, 20, 3, 5])]);
        for round in 0..2 {
            let [x, y, z] = &mut own;
            session.run_into(&[a.as_slice(), b.as_slice()], &mut [x, y, z]).unwrap();
            if round == 0 {
                assert!(session.output(0).unwrap().as_slice().iter().all(|v| *v == 0.0), "nothing ran into it");
                session.run_many(&[b.as_slice(), a.as_slice()]).unwrap();
            }
        }
        session.run_many(&[a.as_slice(), b.as_slice()]).unwrap();
        for (i, own) in own.iter().enumerate() {
            assert_eq!(session.output(i).unwrap().as_slice(), own, "{output:?} {i}");
        }
        let [x, y, z] = &mut own;
        let e = session.run_into(&[a.as_slice(), b.as_slice()], &mut [x, y]).unwrap_err().to_string();
        assert_eq!(e, "the number of outputs is 2, but the model has 3");
        let e = session.run_into(&[a.as_slice(), b.as_slice()], &mut [x, y, &mut z[1..]]).unwrap_err().to_string();
        assert!(e.contains("the output has"), "{e}");
        assert!(session.run_into(&[a.as_slice()], &mut [x, y, z]).is_err());
    }
}

/// The outputs of a session for an input of these extents.
fn outputs(model: &Model, dims: [usize; 4], options: &SessionOptions) -> Vec<f32> {
    let mut session = model.compile_with(dims, options).unwrap();
    session.run(&input(dims, 7)).unwrap().as_slice().to_vec()
}

#[test]
fn sessions_of_a_model_share_their_packed_weights() {
    let network = || {
        let (first, norm) = (Conv2d::new(3, 16, 3).padding(1).named("first"), BatchNorm2d::new(16).named("norm"));
        let (up, last) = (ConvTranspose2d::new(16, 16, 2).stride(2), Conv2d::new(16, 20, 3).padding(1).named("last"));
        normalised(Sequential::new((first, norm, ReLU, up, last)).build(3).unwrap(), 5)
    };
    let options = SessionOptions::default().threads(1);
    let model = network();
    assert_eq!(model.packed_bytes(), 0);
    let mut before = model.compile_with([1, 3, 8, 8], &options).unwrap();
    let bytes = model.packed_bytes();
    assert!(bytes > 0);
    // The same shape, of a clone, too: nothing is packed.
    assert_eq!(outputs(&model, [1, 3, 8, 8], &options), before.run(&input([1, 3, 8, 8], 7)).unwrap().as_slice());
    outputs(&model.clone(), [1, 3, 8, 8], &options);
    assert_eq!(model.packed_bytes(), bytes);
    // Other shapes: what the same algorithm reads is there, as of some layers of four sessions it is.
    let mut all = before.memory()[1];
    for dims in [[3, 3, 8, 8], [1, 3, 12, 10], [2, 3, 9, 16]] {
        all += model.compile_with(dims, &options).unwrap().memory()[1];
        assert_eq!(outputs(&model, dims, &options), outputs(&network(), dims, &options), "{dims:?}");
    }
    assert!(model.packed_bytes() < all, "{} of {all}", model.packed_bytes());
    // Sessions that are compiled after a change see it; others, and clones, do not.
    let (mut changed, mut fresh) = (model.clone(), network());
    for (name, dims) in [("norm.weight", vec![16]), ("last.weight", vec![20, 16, 3, 3])] {
        let value = Tensor::new(&dims, &vec![0.125; dims.iter().product()]).unwrap();
        changed.set_parameter(name, &value).unwrap();
        fresh.set_parameter(name, &value).unwrap();
        assert_eq!(changed.packed_bytes(), 0);
        let [now, expected] = [&changed, &fresh].map(|m| outputs(m, [1, 3, 8, 8], &options));
        assert_eq!(now, expected, "{name}");
        assert_ne!(now, before.run(&input([1, 3, 8, 8], 7)).unwrap().as_slice(), "{name}");
    }
    assert_eq!(outputs(&model, [1, 3, 8, 8], &options), before.run(&input([1, 3, 8, 8], 7)).unwrap().as_slice());
}

/// Images of as many elements flatten to the same features in other orders.
#[test]
fn linear_keeps_a_packing_for_each_order_of_its_image() {
    let network = || {
        let conv = Conv2d::new(16, 16, 3).padding(1);
        Sequential::new((conv, ReLU, Flatten, Linear::new(16 * 16, 10))).build(3).unwrap()
    };
    let (model, options) = (network(), SessionOptions::default());
    for dims in [[1, 16, 4, 4], [1, 16, 2, 8], [3, 16, 16, 1], [2, 16, 4, 4], [1, 16, 2, 8]] {
        assert_eq!(outputs(&model, dims, &options), outputs(&network(), dims, &options), "{dims:?}");
    }
}
