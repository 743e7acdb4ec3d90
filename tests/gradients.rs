//! Gradients of convolution and transposed convolution against PyTorch's results, at every level and in every layout.

mod support;

use serde_json::Value;
use support::{Fixtures, numbers};
use swath::{
    Accuracy, ConvBackwardData, ConvBackwardWeights, ConvPlan, ConvShape, ConvTransposeShape, Epilogue, Layout,
    Options, Scratch,
};
use swath_kernels::isa::Level;
use swath_kernels::layout::reorder;

/// Asserts that an error is below `each` times the root of the number of terms, relative to values around 1.
fn close(what: &str, got: &[f32], want: &[f32], terms: usize, each: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    let tolerance = each * (terms as f32).sqrt();
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{what} [{i}]: {a}, PyTorch has {b}");
    }
}

fn to(layout: Layout, nchw: &[f32], dims: [usize; 4]) -> Vec<f32> {
    let mut y = vec![f32::NAN; layout.len(dims)];
    reorder(Layout::Nchw, nchw, layout, &mut y, dims);
    y
}

fn back(layout: Layout, x: &[f32], dims: [usize; 4]) -> Vec<f32> {
    let mut y = vec![f32::NAN; Layout::Nchw.len(dims)];
    reorder(layout, x, Layout::Nchw, &mut y, dims);
    y
}

/// Every level, pairs of layouts that differ and do not, without and with Winograd, whose errors are about four times as large.
fn options() -> impl Iterator<Item = (Options, f32)> {
    let layouts = [
        [Layout::Nchw, Layout::Nchw],
        [Layout::Blocked, Layout::Blocked],
        [Layout::Nhwc, Layout::Blocked],
        [Layout::Blocked, Layout::Nhwc],
    ];
    Level::available().iter().flat_map(move |&level| {
        layouts.into_iter().flat_map(move |[input, output]| {
            [(Accuracy::Exact, 4e-6), (Accuracy::Default, 1.5e-5)].map(|(accuracy, each)| {
                (Options { input, output, level: Some(level), accuracy, ..Options::default() }, each)
            })
        })
    })
}

/// A convolution's case: `x`, `w`, `gy`, and the gradients `gx`, `gw`, `gb`.
fn convolution(file: &Fixtures, case: &str, shape: &ConvShape) {
    let tensor = |name: &str| file.tensor(&format!("{case}.{name}")).1;
    let (x, w, gy) = (tensor("x"), tensor("w"), tensor("gy"));
    for (o, each) in options() {
        let what = format!("{case} {:?} {:?} {:?} {:?}", o.level, o.input, o.output, o.accuracy);
        let dy = to(o.output, &gy, shape.output());
        let plan = ConvBackwardData::new(shape, &o).unwrap();
        let mut dx = vec![f32::NAN; o.input.len(shape.input())];
        plan.run(&dy, &plan.pack(&w).unwrap(), &mut dx, &mut Scratch::new()).unwrap();
        let terms = shape.ocg() * shape.kh * shape.kw;
        close(&format!("{what} gx by {}", plan.algo()), &back(o.input, &dx, shape.input()), &tensor("gx"), terms, each);

        let plan = ConvBackwardWeights::new(shape, &o).unwrap();
        let (mut dw, mut db) = (vec![f32::NAN; w.len()], vec![f32::NAN; shape.oc]);
        plan.run(&to(o.input, &x, shape.input()), &dy, &mut dw, Some(&mut db), &mut Scratch::new()).unwrap();
        let terms = shape.n * shape.oh * shape.ow;
        close(&format!("{what} gw by {}", plan.algo()), &dw, &tensor("gw"), terms, each);
        close(&format!("{what} gb by {}", plan.algo()), &db, &tensor("gb"), terms, each);
    }
}

/// The shape of a case of `conv2d`, with the input's extents.
fn shape(p: &Value, input: [usize; 4], weights: [usize; 4]) -> ConvShape {
    ConvShape::builder(input, weights)
        .stride(numbers::<2>(p, "stride"))
        .padding(numbers::<4>(p, "pad_tlbr"))
        .dilation(numbers::<2>(p, "dilation"))
        .groups(p["groups"].as_u64().unwrap() as usize)
        .build()
        .unwrap()
}

fn dims(shape: Vec<usize>) -> [usize; 4] {
    shape.try_into().expect("four extents")
}

#[test]
fn every_convolution_of_the_fixtures() {
    let file = Fixtures::open("conv2d");
    // The padding modes are the graph's.
    let cases = file.cases().filter(|(_, p)| p["padding_mode"].is_null());
    let mut count = 0;
    for (case, p) in cases {
        let extents = |name: &str| dims(file.tensor(&format!("{case}.{name}")).0);
        convolution(&file, &case, &shape(&p, extents("x"), extents("w")));
        count += 1;
    }
    assert_eq!(count, 112);
}

#[test]
fn batches() {
    let file = Fixtures::open("gradients2");
    let mut count = 0;
    for (case, p) in file.cases().filter(|(case, _)| case.starts_with("conv_n")) {
        let extents = |name: &str| dims(file.tensor(&format!("{case}.{name}")).0);
        convolution(&file, &case, &shape(&p, extents("x"), extents("w")));
        count += 1;
    }
    assert_eq!(count, 6);
}

/// 100,352 terms whose mean is not zero: a plain sum in f32 is off by up to 2e-5.
#[test]
fn a_long_sum_keeps_its_precision() {
    let file = Fixtures::open("gradients2");
    let want = file.tensor("conv_long_sum.gw").1;
    let shape = ConvShape::builder([2, 1, 224, 224], [1, 1, 3, 3]).padding(1).build().unwrap();
    let values = |factor: usize, modulus: usize| -> Vec<f32> {
        (0..2 * 224 * 224).map(|i| (i * factor % modulus) as f32 / modulus as f32).collect()
    };
    let (x, dy) = (values(7919, 1021), values(104_729, 1009));
    for level in Level::available() {
        let plan = ConvBackwardWeights::new(&shape, &Options { level: Some(*level), ..Options::default() }).unwrap();
        let mut dw = [f32::NAN; 9];
        plan.run(&x, &dy, &mut dw, None, &mut Scratch::new()).unwrap();
        for (a, b) in dw.iter().zip(&want) {
            assert!((a - b).abs() <= 2e-6 * b.abs(), "{level}: {a}, PyTorch has {b}");
        }
    }
}

/// A transposed convolution's case, with all of its gradients.
fn transposed(file: &Fixtures, case: &str, shape: &ConvTransposeShape) {
    let tensor = |name: &str| file.tensor(&format!("{case}.{name}")).1;
    let (x, w, b, gy) = (tensor("x"), tensor("w"), tensor("b"), tensor("gy"));
    let conv = shape.convolution();
    let terms = conv.ocg() * conv.kh * conv.kw;
    for (o, each) in options() {
        let what = format!("{case} {:?} {:?} {:?} {:?}", o.level, o.input, o.output, o.accuracy);
        let scratch = &mut Scratch::new();
        let x = to(o.output, &x, shape.input());
        let plan = ConvBackwardData::new(conv, &o).unwrap();
        let mut y = vec![f32::NAN; o.input.len(shape.output())];
        plan.transposed(&x, &plan.pack(&w).unwrap(), Epilogue::bias(&b), &mut y, scratch).unwrap();
        close(&format!("{what} y"), &back(o.input, &y, shape.output()), &tensor("y"), terms, each);

        let gy = to(o.input, &gy, shape.output());
        let plan = ConvPlan::new(conv, &o).unwrap();
        let mut gx = vec![f32::NAN; o.output.len(shape.input())];
        plan.forward(&gy, &plan.pack(&w).unwrap(), Epilogue::none(), &mut gx, scratch).unwrap();
        let terms = conv.icg() * conv.kh * conv.kw;
        close(&format!("{what} gx"), &back(o.output, &gx, shape.input()), &tensor("gx"), terms, each);

        let mut gw = vec![f32::NAN; w.len()];
        ConvBackwardWeights::new(conv, &o).unwrap().run(&gy, &x, &mut gw, None, scratch).unwrap();
        close(&format!("{what} gw"), &gw, &tensor("gw"), conv.n * conv.oh * conv.ow, each);
    }
}

/// A parameter that is a number or a pair.
fn pair(p: &Value, key: &str) -> [usize; 2] {
    p[key].as_u64().map_or_else(|| numbers(p, key), |v| [v as usize; 2])
}

#[test]
fn every_transposed_convolution_of_the_fixtures() {
    let mut count = 0;
    for (name, prefix) in [("conv_transpose2d", "case"), ("gradients2", "conv_transpose")] {
        let file = Fixtures::open(name);
        for (case, p) in file.cases().filter(|(case, _)| case.starts_with(prefix)) {
            let extents = |name: &str| dims(file.tensor(&format!("{case}.{name}")).0);
            let shape = ConvTransposeShape::builder(extents("x"), extents("w"))
                .stride(pair(&p, "stride"))
                .padding(pair(&p, "padding"))
                .output_padding(pair(&p, "output_padding"))
                .dilation(pair(&p, "dilation"))
                .groups(p["groups"].as_u64().unwrap() as usize)
                .build()
                .unwrap();
            assert_eq!(shape.output(), extents("y"), "{case}");
            transposed(&file, &case, &shape);
            count += 1;
        }
    }
    assert_eq!(count, 13);
}
