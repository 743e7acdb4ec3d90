//! Plans beside convolution, as a framework calls them: pooling with indices, averages, interpolation, transposed convolution and its
//! gradients; in every layout, against plain loops and against each other.

use swath::pool::{AdaptiveAvgPool, AdaptiveMaxPool, AdaptiveShape, AvgPool, Divisor, MaxPool, NO_INDEX};
use swath::resample::{Filter, PadMode, Resample, Size};
use swath::softmax::Softmax;
use swath::{
    Accuracy, ConvBackwardBias, ConvBackwardData, ConvBackwardWeights, ConvPlan, ConvTransposeShape, Epilogue, Layout,
    Options, PoolShape, Scratch, layout,
};

fn floats(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn to(layout: Layout, x: &[f32], dims: [usize; 4]) -> Vec<f32> {
    let mut y = vec![f32::NAN; layout.len(dims)];
    layout::reorder(Layout::Nchw, x, layout, &mut y, dims).unwrap();
    y
}

fn back(layout: Layout, x: &[f32], dims: [usize; 4]) -> Vec<f32> {
    let mut y = vec![f32::NAN; Layout::Nchw.len(dims)];
    layout::reorder(layout, x, Layout::Nchw, &mut y, dims).unwrap();
    y
}

fn options(layout: Layout, threads: usize) -> Options {
    Options::default().layouts(layout, layout).threads(threads)
}

/// Every layout, on one and on two threads.
fn everywhere() -> impl Iterator<Item = Options> {
    Layout::ALL.into_iter().flat_map(|layout| [1, 2].map(|threads| options(layout, threads)))
}

/// Maxima, their indices, and the gradient, by loops over NCHW.
fn naive_max(s: &PoolShape, x: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<u32>, Vec<f32>) {
    let (mut y, mut indices, mut dx) = (Vec::new(), Vec::new(), vec![0.0; x.len()]);
    for (plane, x) in x.chunks_exact(s.ih * s.iw).enumerate() {
        for (oy, ox) in (0..s.oh).flat_map(|oy| (0..s.ow).map(move |ox| (oy, ox))) {
            let mut best = (f32::NEG_INFINITY, NO_INDEX);
            for (ky, kx) in (0..s.kh).flat_map(|ky| (0..s.kw).map(move |kx| (ky, kx))) {
                let iy = (oy * s.sh + ky * s.dh).wrapping_sub(s.pad.top);
                let ix = (ox * s.sw + kx * s.dw).wrapping_sub(s.pad.left);
                if iy < s.ih && ix < s.iw && (best.1 == NO_INDEX || x[iy * s.iw + ix] > best.0) {
                    best = (x[iy * s.iw + ix], (iy * s.iw + ix) as u32);
                }
            }
            if best.1 != NO_INDEX {
                dx[plane * s.ih * s.iw + best.1 as usize] += dy[y.len()];
            }
            y.push(best.0);
            indices.push(best.1);
        }
    }
    (y, indices, dx)
}

#[test]
fn max_pooling_has_pytorchs_indices_and_their_gradient() {
    let shape = |dims: [usize; 4], kernel: usize, stride: usize, padding: usize, dilation: usize| {
        PoolShape::builder(dims, kernel).stride(stride).padding(padding).dilation(dilation).build().unwrap()
    };
    for s in [
        shape([2, 19, 9, 7], 3, 2, 1, 1),
        shape([1, 4, 12, 12], 2, 2, 0, 1),
        shape([3, 17, 8, 11], 3, 1, 1, 2),
        shape([1, 2, 1, 40], 1, 1, 0, 1),
        shape([2, 64, 31, 33], 2, 1, 0, 1),
    ] {
        let [input, output] = [s.input(), s.output()];
        // Eighths, so that there are ties, and sums are exact.
        let x: Vec<f32> = floats(input.iter().product(), 1).iter().map(|v| (v * 8.0).round()).collect();
        let dy: Vec<f32> = floats(output.iter().product(), 2).iter().map(|v| (v * 8.0).round()).collect();
        let (y, indices, dx) = naive_max(&s, &x, &dy);
        for options in everywhere() {
            let (layout, plan) = (options.input, MaxPool::new(&s, &options).unwrap());
            let (x, dy) = (to(layout, &x, input), to(layout, &dy, output));
            let (mut got, mut without) = (vec![f32::NAN; dy.len()], vec![f32::NAN; dy.len()]);
            let (mut at, mut got_dx) = (vec![7; dy.len()], vec![f32::NAN; x.len()]);
            plan.forward(&x, &mut got, Some(&mut at)).unwrap();
            plan.forward(&x, &mut without, None).unwrap();
            assert_eq!(back(layout, &got, output), y, "{s:?} {layout:?}");
            assert_eq!(got, without);
            let as_floats: Vec<f32> = at.iter().map(|&i| i as f32).collect();
            let expected: Vec<f32> = indices.iter().map(|&i| i as f32).collect();
            assert_eq!(back(layout, &as_floats, output), expected, "{s:?} {layout:?}");
            plan.backward(&at, &dy, &mut got_dx).unwrap();
            assert_eq!(back(layout, &got_dx, input), dx, "{s:?} {layout:?}");
        }
    }
}

#[test]
fn indices_of_nonsense_are_refused() {
    let plan = MaxPool::new(&PoolShape::builder([1, 1, 4, 4], 2).build().unwrap(), &Options::default()).unwrap();
    let (mut dx, dy) = ([0.0; 16], [1.0; 4]);
    let e = plan.backward(&[0, 1, 2, 16], &dy, &mut dx).unwrap_err().to_string();
    assert_eq!(e, "an index of max pooling is 16, but a plane has 16 pixels");
    plan.backward(&[0, 1, 2, NO_INDEX], &dy, &mut dx).unwrap();
    assert_eq!(dx[..4], [1.0, 1.0, 1.0, 0.0]);
    assert!(plan.backward(&[0, 1, 2], &dy, &mut dx).is_err());
    assert!(plan.forward(&[0.0; 15], &mut [0.0; 4], None).is_err());
    let mixed = Options::default().layouts(Layout::Nchw, Layout::Blocked);
    let e = MaxPool::new(plan.shape(), &mixed).unwrap_err().to_string();
    assert_eq!(e, "the output's layout is blocked, but the input's is nchw, and this has one for both");
    assert!(AvgPool::new(plan.shape(), Divisor::Fixed(0), &Options::default()).is_err());
}

/// A linear map is the same in every layout, and its gradient is its transpose.
fn check_linear(
    what: &str,
    [input, output]: [[usize; 4]; 2],
    run: impl Fn(&Options, &[f32], &mut [f32], &[f32], &mut [f32]),
) {
    let (x, dy) = (floats(input.iter().product(), 3), floats(output.iter().product(), 4));
    let mut first: Option<[Vec<f32>; 2]> = None;
    for options in everywhere() {
        let layout = options.input;
        let (xl, dyl) = (to(layout, &x, input), to(layout, &dy, output));
        let (mut y, mut dx) = (vec![f32::NAN; dyl.len()], vec![f32::NAN; xl.len()]);
        run(&options, &xl, &mut y, &dyl, &mut dx);
        let got = [back(layout, &y, output), back(layout, &dx, input)];
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let [forward, backward] = [dot(&got[0], &dy), dot(&x, &got[1])];
        assert!((forward - backward).abs() < 1e-4 * (1.0 + forward.abs()), "{what} {layout:?}: {forward} {backward}");
        match &first {
            None => first = Some(got),
            Some(first) => {
                for (a, b) in first.iter().flatten().zip(got.iter().flatten()) {
                    assert!((a - b).abs() < 1e-5, "{what} {layout:?}: {a} and {b}");
                }
            }
        }
    }
}

#[test]
fn averages_and_interpolation_have_transposes_for_gradients() {
    let s = PoolShape::builder([2, 21, 9, 10], [3, 2]).stride([2, 1]).padding(1).build().unwrap();
    for divisor in [Divisor::Padded, Divisor::Inside, Divisor::Fixed(5)] {
        check_linear("average", [s.input(), s.output()], |o, x, y, dy, dx| {
            let plan = AvgPool::new(&s, divisor, o).unwrap();
            plan.forward(x, y).unwrap();
            plan.backward(dy, dx).unwrap();
        });
    }
    let s = AdaptiveShape::new([2, 18, 7, 11], [3, 4]).unwrap();
    check_linear("adaptive average", [s.input(), s.output()], |o, x, y, dy, dx| {
        let plan = AdaptiveAvgPool::new(&s, o).unwrap();
        plan.forward(x, y).unwrap();
        plan.backward(dy, dx).unwrap();
    });
    check_linear("adaptive maximum", [s.input(), s.output()], |o, x, y, dy, dx| {
        let plan = AdaptiveMaxPool::new(&s, o).unwrap();
        let mut indices = vec![0; y.len()];
        plan.forward(x, y, &mut indices).unwrap();
        plan.backward(&indices, dy, dx).unwrap();
    });
    for filter in [Filter::Nearest, Filter::Bilinear { align_corners: true }, Filter::Bicubic { align_corners: false }]
    {
        check_linear("interpolation", [[2, 19, 5, 6], [2, 19, 9, 4]], |o, x, y, dy, dx| {
            let plan = Resample::resize([2, 19, 5, 6], Size::To([9, 4]), filter, o).unwrap();
            plan.forward(x, y).unwrap();
            plan.backward(dy, dx).unwrap();
        });
    }
    check_linear("padding", [[1, 3, 5, 6], [1, 3, 8, 7]], |o, x, y, dy, dx| {
        let plan = Resample::pad([1, 3, 5, 6], [1, 0, 2, 1], PadMode::Replicate, o).unwrap();
        plan.forward(x, y).unwrap();
        plan.backward(dy, dx).unwrap();
    });
}

/// The four calls of docs/backend.md, against loops over NCHW in f64.
#[test]
fn transposed_convolution_and_its_gradients_are_four_calls() {
    let s = ConvTransposeShape::builder([2, 6, 5, 4], [6, 2, 3, 2])
        .stride([2, 1])
        .padding([1, 0])
        .output_padding([1, 0])
        .groups(2)
        .build()
        .unwrap();
    let (conv, [n, ic, ih, iw], [_, oc, oh, ow]) = (s.convolution(), s.input(), s.output());
    let (x, w, dy) = (floats(n * ic * ih * iw, 5), floats(6 * 2 * 6, 6), floats(n * oc * oh * ow, 7));
    let (mut y, mut dx) = (vec![0.0f64; dy.len()], vec![0.0f64; x.len()]);
    let (mut dw, mut db) = (vec![0.0f64; w.len()], vec![0.0f64; oc]);
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let (xd, wd, dyd) = (wide(&x), wide(&w), wide(&dy));
    for (b, c, o) in (0..n).flat_map(|b| (0..ic).flat_map(move |c| (0..2).map(move |o| (b, c, o)))) {
        let channel = c / 3 * 2 + o;
        for (i, (iy, ix)) in (0..ih).flat_map(|iy| (0..iw).map(move |ix| (iy, ix))).enumerate() {
            for (k, (ky, kx)) in (0..3).flat_map(|ky| (0..2).map(move |kx| (ky, kx))).enumerate() {
                let (oy, ox) = ((2 * iy + ky).wrapping_sub(1), ix + kx);
                if oy < oh && ox < ow {
                    let (to, from) = (((b * oc + channel) * oh + oy) * ow + ox, (b * ic + c) * ih * iw + i);
                    y[to] += xd[from] * wd[(c * 2 + o) * 6 + k];
                    dx[from] += dyd[to] * wd[(c * 2 + o) * 6 + k];
                    dw[(c * 2 + o) * 6 + k] += dyd[to] * xd[from];
                }
            }
        }
    }
    dyd.chunks_exact(oh * ow).enumerate().for_each(|(i, plane)| db[i % oc] += plane.iter().sum::<f64>());
    let close = |what: &str, got: &[f32], want: &[f64]| {
        assert_eq!(got.len(), want.len());
        let far = got.iter().zip(want).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        assert!(far < 1e-5, "{what}: {far}");
    };
    let scratch = &mut Scratch::new();
    for layout in Layout::ALL {
        let options = options(layout, 1).accuracy(Accuracy::Exact);
        let (xl, dyl) = (to(layout, &x, s.input()), to(layout, &dy, s.output()));
        let (mut got_y, mut got_dx) = (vec![f32::NAN; dyl.len()], vec![f32::NAN; xl.len()]);
        let (mut got_dw, mut got_db) = (vec![f32::NAN; w.len()], vec![f32::NAN; oc]);
        let forward = ConvBackwardData::new(conv, &options).unwrap();
        forward.transposed(&xl, &forward.pack(&w).unwrap(), Epilogue::none(), &mut got_y, scratch).unwrap();
        let data = ConvPlan::new(conv, &options).unwrap();
        data.forward(&dyl, &data.pack(&w).unwrap(), Epilogue::none(), &mut got_dx, scratch).unwrap();
        let weights = ConvBackwardWeights::new(conv, &options).unwrap();
        weights.run(&dyl, &xl, &mut got_dw, None, scratch).unwrap();
        ConvBackwardBias::new(s.output(), &options).unwrap().run(&dyl, &mut got_db, scratch).unwrap();
        close("y", &back(layout, &got_y, s.output()), &y);
        close("dx", &back(layout, &got_dx, s.input()), &dx);
        close("dw", &got_dw, &dw);
        close("db", &got_db, &db);
    }
}

/// `[n, c, l]` as `[n, c, 1, l]`.
#[test]
fn sequences_are_pictures_of_height_one() {
    let shape = swath::ConvShape::builder([1, 2, 1, 9], [3, 2, 1, 3]).stride([1, 2]).padding([0, 1]).dilation([1, 2]);
    let shape = shape.build().unwrap();
    let l = shape.ow;
    assert_eq!((shape.output(), l), ([1, 3, 1, 4], (9 + 2 - 5) / 2 + 1));
    let (x, w, mut y) = (floats(18, 8), floats(18, 9), vec![f32::NAN; 12]);
    let plan = ConvPlan::new(&shape, &Options::default()).unwrap();
    plan.forward(&x, &plan.pack(&w).unwrap(), Epilogue::none(), &mut y, &mut Scratch::new()).unwrap();
    for (o, p) in (0..3).flat_map(|o| (0..l).map(move |p| (o, p))) {
        let terms = (0..2).flat_map(|c| (0..3).map(move |k| (c, k)));
        let sum: f32 = terms
            .filter_map(|(c, k)| {
                Some(w[(o * 2 + c) * 3 + k] * x.get(c * 9..c * 9 + 9)?.get((2 * p + 2 * k).wrapping_sub(1))?)
            })
            .sum();
        assert!((y[o * l + p] - sum).abs() < 1e-5);
    }
}

/// Over each axis, by one thread and three, against sums in f64; gradients against differences of them.
#[test]
fn softmax_of_any_axis() {
    let extents = [3, 7, 5, 33];
    let len: usize = extents.iter().product();
    let number = |i: usize| (i * 7919 % 1009) as f32 / 101.0 - 5.0;
    let (x, dy): (Vec<f32>, Vec<f32>) = (0..len).map(|i| (number(i), number(i + 500))).unzip();
    for axis in 0..4 {
        let (count, step) = (extents[axis], extents[axis + 1..].iter().product::<usize>());
        // The elements that share a sum with element `i`.
        let line = |i: usize| (0..count).map(move |j| i - i / step % count * step + j * step);
        let sum = |i: usize| line(i).map(|j| f64::from(x[j]).exp()).sum::<f64>();
        let soft: Vec<f64> = (0..len).map(|i| f64::from(x[i]).exp() / sum(i)).collect();
        for log in [false, true] {
            let of = |threads| {
                let make = if log { Softmax::log } else { Softmax::new };
                let plan = make(&extents, axis, &Options::default().threads(threads)).unwrap();
                let (mut y, mut dx) = (vec![f32::NAN; len], vec![f32::NAN; len]);
                plan.forward(&x, &mut y).unwrap();
                plan.backward(&y, &dy, &mut dx).unwrap();
                (y, dx)
            };
            let (y, dx) = of(1);
            assert!((&y, &dx) == (&of(3).0, &of(3).1), "axis {axis}");
            for i in 0..len {
                let dot = |f: &dyn Fn(usize) -> f64| line(i).map(|j| f(j) * f64::from(dy[j])).sum::<f64>();
                let (to, at) = if log {
                    (soft[i].ln(), f64::from(dy[i]) - soft[i] * dot(&|_| 1.0))
                } else {
                    (soft[i], soft[i] * (f64::from(dy[i]) - dot(&|j| soft[j])))
                };
                assert!(
                    (f64::from(y[i]) - to).abs() < 1e-5 && (f64::from(dx[i]) - at).abs() < 1e-4,
                    "{axis} {log} {i}"
                );
            }
        }
    }
    let e = Softmax::new(&extents, 4, &Options::default()).unwrap_err().to_string();
    assert!(e.contains("is 4") && e.contains("has 4 axes"), "{e}");
    let e = Softmax::new(&[2, 3], 1, &Options::default()).unwrap().forward(&[0.0; 6], &mut [0.0; 5]).unwrap_err();
    assert_eq!(e.to_string(), "the output has 5 elements, but 6 are needed");
}
