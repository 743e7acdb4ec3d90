//! The zoo: parameters and layers as published, shapes, and whole networks on small images.
#![cfg(feature = "nn")]

use std::collections::HashSet;

use swath::benchdnn::{Problem, STANDARD_SETS};
use swath::zoo::{self, ZOO};
use swath::{Graph, Tensor};

fn graph(name: &str) -> Graph {
    zoo::find(name).unwrap().graph().unwrap()
}

#[test]
fn parameters_are_as_many_as_published() {
    // torchvision's documentation; the two that it lacks by hand.
    for (name, count) in [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("vgg16", 138_357_544),
        ("mobilenet_v1", mobilenet_v1_by_hand()),
        ("mobilenet_v2", 3_504_872),
        ("squeezenet", 1_235_496),
        ("unet", unet_by_hand()),
    ] {
        assert_eq!(graph(name).parameter_count(), count, "{name}");
    }
    assert_eq!(ZOO.len(), 8);
    // The paper says 4.2 million.
    assert_eq!(mobilenet_v1_by_hand(), 4_231_976);
}

/// Table 1 of the paper, with two parameters of batch normalisation for every channel of every convolution.
fn mobilenet_v1_by_hand() -> usize {
    let widths = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024];
    let separable = |w: &[usize]| 9 * w[0] + 2 * w[0] + w[0] * w[1] + 2 * w[1];
    3 * 32 * 9 + 2 * 32 + widths.windows(2).map(separable).sum::<usize>() + 1024 * 1000 + 1000
}

/// Figure 1 of the paper: two 3x3 convolutions at each of five levels down and four up, four of 2x2 up, one of 1x1.
fn unet_by_hand() -> usize {
    let conv = |ic: usize, oc: usize, taps: usize| ic * oc * taps + oc;
    let double = |ic, oc| conv(ic, oc, 9) + conv(oc, oc, 9);
    let down: usize = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024)].map(|(i, o)| double(i, o)).iter().sum();
    let up: usize = [64, 128, 256, 512].map(|w| conv(2 * w, w, 4) + double(2 * w, w)).iter().sum();
    down + up + conv(64, 2, 1)
}

#[test]
fn convolutions_are_those_of_the_standard_lists() {
    let mut compared = 0;
    for (name, text) in STANDARD_SETS.iter().filter(|(name, _)| *name != "assorted") {
        let geometry = |list: Vec<Problem>| list.into_iter().map(|p| (p.name, p.shape, p.times)).collect::<Vec<_>>();
        let ours = geometry(zoo::find(name).unwrap().convolutions(1).unwrap());
        assert_eq!(ours, geometry(Problem::list(text).unwrap()), "{name}");
        compared += 1;
    }
    assert_eq!(compared, 4);
    // In a batch, the same layers with more images.
    let batch = zoo::find("squeezenet").unwrap().convolutions(4).unwrap();
    assert!(batch.len() == 18 && batch.iter().all(|p| p.shape.n == 4));
    // U-Net's up-convolutions are listed as they run: 1x1 to four times the channels.
    let unet = zoo::find("unet").unwrap().convolutions(1).unwrap();
    assert!(unet.iter().any(|p| p.text.starts_with("mb1ic1024ih28oc2048oh28kh1ph0n")), "{unet:?}");
    let list: Vec<String> = unet.iter().map(|p| format!("{}*{}", p.text, p.times)).collect();
    assert_eq!(Problem::list(&list.join("\n")).unwrap(), unet, "what is written can be read");
}

#[test]
fn shapes_are_those_of_the_papers() {
    for network in ZOO {
        let output = graph(network.name).output_dims(&network.input(3)).unwrap();
        match network.name {
            "unet" => assert_eq!(output, [3, 2, 388, 388]),
            name => assert_eq!(output, [3, 1000], "{name}"),
        }
    }
    // GFLOP of the papers, which count multiply-adds: 1.8 and 3.8 and, for v1.5, 4.1 billion, 569 million, 300 million.
    for (name, giga) in
        [("resnet18", 1.8), ("resnet34", 3.6), ("resnet50", 4.1), ("mobilenet_v1", 0.569), ("mobilenet_v2", 0.3)]
    {
        let macs = graph(name).flop(&[1, 3, 224, 224]).unwrap() as f64 / 2e9;
        assert!((macs / giga - 1.0).abs() < 0.025, "{name} has {macs} billion multiply-adds");
    }
}

#[test]
fn names_of_parameters_are_torchvisions() {
    for (network, names) in [
        (
            "resnet18",
            &[
                "conv1.weight",
                "bn1.running_var",
                "layer1.0.conv2.weight",
                "layer2.0.downsample.0.weight",
                "layer4.1.bn2.bias",
                "fc.bias",
            ][..],
        ),
        ("resnet50", &["layer1.0.downsample.1.running_mean", "layer3.5.conv3.weight", "layer4.2.bn3.weight"]),
        ("vgg16", &["features.0.weight", "features.28.bias", "classifier.0.weight", "classifier.6.bias"]),
        (
            "mobilenet_v2",
            &[
                "features.0.0.weight",
                "features.1.conv.0.0.weight",
                "features.1.conv.2.bias",
                "features.2.conv.1.1.running_mean",
                "features.17.conv.3.weight",
                "features.18.1.weight",
                "classifier.1.bias",
            ],
        ),
        ("squeezenet", &["features.0.bias", "features.12.expand3x3.weight", "classifier.1.weight"]),
        ("mobilenet_v1", &["model.0.0.weight", "model.13.4.running_var", "fc.weight"]),
        ("unet", &["down.0.0.weight", "bottom.2.bias", "up.3.weight", "merge.0.2.weight", "head.bias"]),
    ] {
        let graph = graph(network);
        let known: HashSet<&str> = graph.state().map(|(name, _)| name).collect();
        for name in names {
            assert!(known.contains(name), "{network} has no {name}; it has {known:?}");
        }
    }
}

#[test]
fn seeds_make_networks_and_activations_keep_their_scale() {
    for (name, dims) in
        [("resnet18", [1, 3, 40, 33]), ("mobilenet_v1", [2, 3, 32, 32]), ("mobilenet_v2", [1, 3, 33, 40])]
    {
        let network = zoo::find(name).unwrap();
        let model = network.build(1).unwrap();
        let x: Vec<f32> = (0..dims.iter().product()).map(|i: usize| (i as f32 * 0.37).sin()).collect();
        let x = Tensor::new(dims, &x).unwrap();
        let mut session = model.compile(dims).unwrap();
        let text = session.explain();
        assert!(!text.contains("BatchNorm2d") && !text.contains("reorder"), "{name}: {text}");
        let y = session.run(&x).unwrap().clone();
        assert_eq!(y.dims(), [dims[0], 1000], "{name}");
        let rms = (y.as_slice().iter().map(|v| v * v).sum::<f32>() / y.as_slice().len() as f32).sqrt();
        assert!((1e-3..1e3).contains(&rms), "{name}: outputs of {rms}");
        assert!(y.as_slice().iter().collect::<Vec<_>>().windows(2).any(|v| v[0] != v[1]), "{name}");
    }
}

#[test]
fn the_smallest_images_of_squeezenet_and_u_net() {
    let model = zoo::squeezenet(10).build(2).unwrap();
    // torchvision's takes 17x17, too: at its last pooling a window of 3x3 over 2x2 pixels.
    for [h, w] in [[31, 40], [17, 17]] {
        let x = Tensor::new([1, 3, h, w], &vec![0.5; 3 * h * w]).unwrap();
        let mut session = model.compile(x.dims()).unwrap();
        let y = session.run(&x).unwrap();
        assert_eq!(y.dims(), [1, 10]);
        assert!(y.as_slice().iter().all(|v| v.is_finite()), "{h}x{w}: {y:?}");
    }
    let e = model.compile([1, 3, 16, 17]).unwrap_err().to_string();
    assert_eq!(e, "layer `features.8`: along the height the dilated kernel spans 3, but the padded input only 1");
    // The smallest size takes 5 GFLOP, and the operators are tested elsewhere: the shapes alone.
    assert_eq!(graph("unet").output_dims(&[1, 1, 188, 204]).unwrap(), [1, 2, 4, 20]);
    let e = graph("unet").output_dims(&[1, 1, 172, 172]).unwrap_err().to_string();
    assert!(e.starts_with("layer `merge."), "{e}");
}

#[test]
fn images_that_do_not_fit_are_errors_of_the_layer() {
    let text = |name: &str, dims: &[usize]| graph(name).output_dims(dims).unwrap_err().to_string();
    assert!(text("vgg16", &[1, 3, 16, 16]).starts_with("layer `features.30`: along the height"));
    assert!(text("squeezenet", &[1, 3, 8, 8]).starts_with("layer `features."));
    assert!(text("resnet50", &[1, 4, 64, 64]).contains("layer `conv1`: the input has 4 channels, but the weights"));
    assert!(text("mobilenet_v2", &[1, 3]).contains("takes [n, c, h, w], gets the shape [1, 3]"));
    assert_eq!(
        text("unet", &[1, 1, 190, 190]),
        "layer `merge.1`: Concat: the shapes [1, 128, 9, 9] and [1, 128, 8, 8] do not agree"
    );
    assert!(text("unet", &[1, 1, 100, 100]).contains("along the height"), "{}", text("unet", &[1, 1, 100, 100]));
    for network in ZOO {
        for side in 1..40 {
            let [_, c, _, _] = network.input(1);
            // A shape or an error, never a panic.
            let _ = graph(network.name).output_dims(&[1, c, side, 41 - side]);
        }
    }
}

#[test]
fn the_table_names_every_network_once() {
    let names: HashSet<&str> = ZOO.iter().map(|n| n.name).collect();
    assert_eq!(names.len(), ZOO.len());
    for network in ZOO {
        assert_eq!(zoo::find(network.name).unwrap().paper, network.paper);
        assert!(network.paper.contains("arXiv:"));
    }
    assert!(zoo::find("resnet").is_err());
}
