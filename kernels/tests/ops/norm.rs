//! Batch, group, instance and layer normalisation.

use crate::tries::tries;
use proptest::prelude::*;
use swath_kernels::epilogue::Activation;
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::norm::{
    Backward, Forward, Gradients, LayerBackward, LayerNorm, Norm, Normalised, Running, Sets, inverse,
};
use swath_kernels::pass::Place;
use swath_kernels::reference::{NormIndex, activation, activation_gradient, moments, normalise, normalise_gradients};

use crate::support::{at_levels, back, close, largest, to, wide};
use crate::threads::{Guarded, random};

#[derive(Clone, Debug)]
struct Case {
    dims: [usize; 4],
    sets: Sets,
    offset: f32,
    affine: bool,
    residual: bool,
    activation: Activation,
    frozen: bool,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let dims = prop_oneof![
        (1usize..4, 1usize..40, 1usize..9, 1usize..9),
        (2usize..40, 1usize..40, Just(1usize), Just(1usize)),
        (1usize..3, 1usize..20, 30usize..40, 30usize..40),
    ];
    let acts = prop_oneof![
        Just(Activation::Identity),
        Just(Activation::Relu),
        Just(Activation::Clip { lo: -0.5, hi: 1.0 }),
        Just(Activation::Clip { lo: 0.0, hi: 6.0 })
    ];
    (dims, 0usize..4, prop_oneof![Just(0.0f32), Just(3.0), Just(1000.0)], any::<[bool; 3]>(), acts, 0u64..1000)
        .prop_map(|((n, c, h, w), kind, offset, [affine, residual, frozen], activation, seed)| {
            let (sets, c) = match kind {
                0 => (Sets::Groups(1), c),
                1 => (Sets::Groups(c), c),
                2 => (Sets::Groups(c), 3 * c),
                _ => (Sets::Batch, c),
            };
            Case { dims: [n, c, h, w], sets, offset, affine, residual, activation, frozen, seed }
        })
}

const EPS: f32 = 1e-3;

fn check(case: &Case) {
    let Case { dims, sets, .. } = *case;
    let [n, c, h, w] = dims;
    let (pixels, len) = (h * w, n * c * h * w);
    let index = match sets {
        Sets::Batch => NormIndex::batch(n, c, pixels),
        Sets::Groups(g) => NormIndex::groups(n, c, pixels, g),
    };
    let x: Vec<f32> = random(len, case.seed).into_iter().map(|v| v + case.offset).collect();
    let (dy, r) = (random(len, case.seed + 1), random(len, case.seed + 2));
    let (scale, shift) = (random(c, case.seed + 3), random(c, case.seed + 4));
    let affine = case.affine.then_some((&scale[..], &shift[..]));
    let (xs, ws, bs) = (wide(&x), wide(&scale), wide(&shift));
    let (ws, bs) = if case.affine { (ws, bs) } else { (vec![1.0; c], vec![0.0; c]) };
    let (mean, var) = moments(&index, &xs);
    let eps = f64::from(EPS);
    let before: Vec<f64> = normalise(&index, &xs, (&mean, &var), &ws, &bs, eps)
        .iter()
        .zip(&r)
        .map(|(v, r)| v + if case.residual { f64::from(*r) } else { 0.0 })
        .collect();
    let want_y: Vec<f64> = before.iter().map(|&v| activation(case.activation, v)).collect();
    // What rounding a mean of 1000 standard deviations to f32 costs the backward pass.
    let slack =
        3e-6 + 3e-7 * f64::from(case.offset) * (1.0 / (var.iter().fold(f64::INFINITY, |m, v| m.min(*v)) + eps).sqrt());
    for layout in Layout::ALL {
        let norm = Norm::new(layout, dims, sets).unwrap();
        let (xl, rl, dyl) = (to(layout, dims, &x), to(layout, dims, &r), to(layout, dims, &dy));
        let results = at_levels(|place| {
            let mut y = Guarded::nan(xl.len());
            let (mut mean, mut inv) = (vec![f32::NAN; norm.sets()], vec![f32::NAN; norm.sets()]);
            let mut scratch = vec![f32::NAN; norm.scratch()];
            let (mut rm, mut rv) = (vec![0.5; c], vec![2.0; c]);
            let running = (sets == Sets::Batch).then_some(Running { mean: &mut rm, var: &mut rv, momentum: 0.25 });
            let f = Forward {
                x: &xl,
                w: affine.map(|a| a.0),
                b: affine.map(|a| a.1),
                eps: EPS,
                residual: case.residual.then_some(&rl),
                activation: case.activation,
            };
            let (mut a, mut b) = (vec![f32::NAN; c], vec![f32::NAN; c]);
            let computed = (sets == Sets::Batch).then_some((&mut a[..], &mut b[..]));
            let out = Normalised { y: y.slice(), mean: &mut mean, inv: &mut inv, running, affine: computed };
            norm.forward(place, &f, out, &mut scratch);
            let y = y.check();
            let recorded = sets == Sets::Batch && !case.residual;
            if recorded {
                let mut again = Guarded::nan(xl.len());
                scratch.fill(f32::NAN);
                let known = Forward { w: Some(&a), b: Some(&b), ..f };
                norm.evaluate(place, &known, &mean, &vec![1.0; c], again.slice(), &mut scratch);
                assert_eq!(again.check(), y, "once more, to the bit");
            }
            let mut again = vec![f32::NAN; xl.len()];
            scratch.fill(f32::NAN);
            norm.evaluate(place, &f, &mean, &inv, &mut again, &mut scratch);
            for (a, b) in y.iter().zip(&again) {
                assert!((a - b).abs() <= slack as f32 * (1.0 + a.abs()), "evaluation: {b} for {a}");
            }
            let mut dx = Guarded::nan(xl.len());
            let (mut dw, mut db) = (vec![f32::NAN; c], vec![f32::NAN; c]);
            scratch.fill(f32::NAN);
            // Elsewhere the activation's gradient is a pass of its own.
            let gate = |(&y, &dy): (&f32, &f32)| dy * activation_gradient(case.activation, f64::from(y)) as f32;
            let gated: Vec<f32> = y.iter().zip(&dyl).map(gate).collect();
            let b = Backward {
                x: &xl,
                dy: if recorded { &dyl } else { &gated },
                activation: if recorded { case.activation } else { Activation::Identity },
                affine: recorded.then_some((&a, &b)),
                w: f.w,
                mean: &mean,
                inv: &inv,
                frozen: case.frozen,
            };
            let out = Gradients { dx: Some(dx.slice()), dw: Some(&mut dw), db: Some(&mut db) };
            norm.backward(place, &b, out, &mut scratch);
            vec![back(layout, dims, &y), mean, inv, back(layout, dims, &dx.check()), dw, db, rm, rv]
        });
        for (level, got) in results {
            let what = format!("{level} {layout:?} {case:?}");
            close(&format!("{what} y"), &got[0], &want_y, slack, largest(&want_y, 1.0));
            close(&format!("{what} mean"), &got[1], &mean, 1e-7, largest(&mean, 1.0));
            let inv: Vec<f64> = var.iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
            close(&format!("{what} inv"), &got[2], &inv, 1e-5, largest(&inv, 0.0));
            // The gradient of the activation as the kernel sees it: from the rounded output, so that kinks agree.
            let g: Vec<f64> = (got[0].iter().zip(&dy))
                .map(|(&y, &dy)| f64::from(dy) * activation_gradient(case.activation, f64::from(y)))
                .collect();
            let [dx, dw, db] = normalise_gradients(&index, &xs, &g, (&mean, &var), &ws, eps, case.frozen);
            close(&format!("{what} dx"), &got[3], &dx, slack, largest(&inv, 1.0));
            let terms = (n * pixels) as f64;
            close(&format!("{what} dw"), &got[4], &dw, slack, terms.sqrt() + largest(&dw, 1.0));
            close(&format!("{what} db"), &got[5], &db, 1e-6, terms.sqrt() + largest(&db, 1.0));
            if sets == Sets::Batch {
                let count = (n * pixels) as f64;
                let rm: Vec<f64> = mean.iter().map(|m| 0.75 * 0.5 + 0.25 * m).collect();
                let rv: Vec<f64> = var.iter().map(|v| 0.75 * 2.0 + 0.25 * v * count / (count - 1.0)).collect();
                close(&format!("{what} running mean"), &got[6], &rm, 1e-6, largest(&rm, 1.0));
                if count > 1.0 {
                    close(&format!("{what} running var"), &got[7], &rv, 1e-5, largest(&rv, 1.0));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(tries(24))]

    #[test]
    fn any_normalisation(case in cases()) {
        check(&case);
    }

    #[test]
    fn any_layer_normalisation(rows in 0usize..70, cols in prop_oneof![1usize..40, 250usize..600], affine: bool, offset in 0f32..100.0, seed in 0u64..1000) {
        let norm = LayerNorm::new(rows, cols).unwrap();
        let x: Vec<f32> = random(rows * cols, seed).into_iter().map(|v| v + offset).collect();
        let (dy, w, b) = (random(rows * cols, seed + 1), random(cols, seed + 2), random(cols, seed + 3));
        let index = NormIndex::layer(rows, cols);
        let (ws, bs) = if affine { (wide(&w), wide(&b)) } else { (vec![1.0; cols], vec![0.0; cols]) };
        let (mean, var) = moments(&index, &wide(&x));
        let eps = f64::from(EPS);
        let y = normalise(&index, &wide(&x), (&mean, &var), &ws, &bs, eps);
        let [dx, dw, db] = normalise_gradients(&index, &wide(&x), &wide(&dy), (&mean, &var), &ws, eps, false);
        let results = at_levels(|place| {
            let (mut y, mut dx) = (Guarded::nan(x.len()), Guarded::nan(x.len()));
            let (mut mean, mut inv) = (vec![f32::NAN; rows], vec![f32::NAN; rows]);
            norm.forward(place, &x, affine.then_some([&w, &b]), EPS, y.slice(), [&mut mean, &mut inv]);
            let back = LayerBackward { x: &x, dy: &dy, w: affine.then_some(&w), mean: &mean, inv: &inv };
            let (mut dw, mut db) = (Guarded::nan(cols), Guarded::nan(cols));
            norm.backward(place, &back, Some(dx.slice()), Some([dw.slice(), db.slice()]));
            vec![y.check(), dx.check(), dw.check(), db.check()]
        });
        let inv = 1.0 / (var.iter().fold(1.0f64, |m, v| m.min(*v)) + eps).sqrt();
        for (level, got) in results {
            let slack = 3e-6 + 2e-7 * f64::from(offset) * inv;
            close(&format!("{level} y"), &got[0], &y, slack, largest(&y, 1.0));
            close(&format!("{level} dx"), &got[1], &dx, slack, inv.max(1.0));
            close(&format!("{level} dw"), &got[2], &dw, slack, largest(&dw, 1.0) + rows as f64);
            close(&format!("{level} db"), &got[3], &db, 1e-6, largest(&db, 1.0) + rows as f64);
        }
    }
}

/// Many images and long planes: sums of slices in order.
#[test]
fn many_slices() {
    for dims in [[2, 20, 130, 130], [70, 3, 3, 3], [300, 33, 1, 1]] {
        for offset in [0.0, 1000.0] {
            let case = Case {
                dims,
                sets: Sets::Batch,
                offset,
                affine: true,
                residual: false,
                activation: Activation::Relu,
                frozen: false,
                seed: 3,
            };
            check(&case);
        }
    }
}

/// A mean of 1000 standard deviations: the variance is right to a few roundings.
#[test]
fn a_far_mean_loses_no_variance() {
    let dims = [4, 16, 40, 40];
    let x: Vec<f32> =
        random(Layout::Nchw.len(dims), 9).into_iter().map(|v| (v * 1024.0).round() / 1024.0 + 577.0).collect();
    let (mean, var) = moments(&NormIndex::batch(4, 16, 1600), &wide(&x));
    for layout in Layout::ALL {
        let norm = Norm::new(layout, dims, Sets::Batch).unwrap();
        let xl = to(layout, dims, &x);
        let (mut y, mut m, mut inv) = (vec![0.0; xl.len()], vec![0.0; 16], vec![0.0; 16]);
        let out = Normalised { y: &mut y, mean: &mut m, inv: &mut inv, running: None, affine: None };
        let f = Forward { x: &xl, ..Forward::default() };
        norm.forward(&Place::inline(Level::Scalar), &f, out, &mut vec![0.0; norm.scratch()]);
        let want: Vec<f64> = var.iter().map(|v| 1.0 / v.sqrt()).collect();
        close("inv", &inv, &want, 1e-6, largest(&want, 0.0));
        close("mean", &m, &mean, 6e-8, 577.0);
    }
}

/// PyTorch's rule: at a limit the gradient is zero.
#[test]
fn no_gradient_passes_at_a_limit() {
    let x = [-1.0, 1.0]; // mean 0, variance 1
    for (scale, activation) in [(6.0, Activation::Clip { lo: -6.0, hi: 6.0 }), (0.0, Activation::Relu)] {
        let norm = Norm::new(Layout::Nchw, [1, 1, 1, 2], Sets::Batch).unwrap();
        let (mut y, mut scratch) = ([f32::NAN; 2], vec![f32::NAN; norm.scratch()]);
        let [mut mean, mut inv, mut a, mut b, mut dw, mut db] = [[f32::NAN]; 6];
        for place in Level::available().iter().map(|&level| Place::inline(level)) {
            let forward = Forward { x: &x, w: Some(&[scale]), activation, ..Forward::default() };
            let affine = Some((&mut a[..], &mut b[..]));
            let out = Normalised { y: &mut y, mean: &mut mean, inv: &mut inv, running: None, affine };
            norm.forward(&place, &forward, out, &mut scratch);
            assert_eq!(y, [-scale, scale]);
            let (affine, w) = (Some((&a[..], &b[..])), Some(&[scale][..]));
            let backward =
                Backward { x: &x, dy: &[1.0; 2], activation, affine, w, mean: &mean, inv: &inv, frozen: false };
            let gradients = Gradients { dx: None, dw: Some(&mut dw), db: Some(&mut db) };
            norm.backward(&place, &backward, gradients, &mut scratch);
            assert_eq!((dw, db), ([0.0], [0.0]), "{activation:?}");
        }
    }
}

#[test]
fn running_variances_are_inverted() {
    let mut inv = [0.0; 2];
    inverse(&[3.0, 0.25], 1.0, &mut inv);
    assert_eq!(inv, [0.5, (1.0f64 / 1.25f64.sqrt()) as f32]);
}

#[test]
fn groups_must_divide_channels() {
    let e = Norm::new(Layout::Nchw, [1, 6, 2, 2], Sets::Groups(4)).unwrap_err();
    assert_eq!(e.to_string(), "4 groups do not divide 6 normalised channels");
    assert!(Norm::new(Layout::Nchw, [1, 6, 2, 2], Sets::Groups(0)).is_err());
}
