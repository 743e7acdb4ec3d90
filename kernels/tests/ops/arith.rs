//! Arithmetic with broadcasting, sums over axes, PReLU.

use crate::tries::tries;
use proptest::prelude::*;
use swath_kernels::arith::{Arith, Op, Operand, PRelu};
use swath_kernels::layout::Layout;
use swath_kernels::reference as naive;

use crate::support::{at_levels, back, close, largest, to, wide};
use crate::threads::{Guarded, random};

fn dims() -> impl Strategy<Value = [usize; 4]> {
    prop_oneof![
        [1usize..4, 1usize..40, 1usize..9, 1usize..9],
        [1usize..40, 1usize..40, 1usize..2, 1usize..2],
        [1usize..3, 1usize..20, 30usize..45, 30usize..45]
    ]
}

/// Away from zero, so that quotients are tame.
fn away(len: usize, seed: u64) -> Vec<f32> {
    random(len, seed).into_iter().map(|v| v + v.signum() * 0.5).collect()
}

/// Which element of the operand belongs to each of the tensor, in NCHW, and the operand's extents.
fn index([n, c, h, w]: [usize; 4], operand: Operand) -> (Vec<usize>, [usize; 4]) {
    let pixels = h * w;
    let all = 0..n * c * pixels;
    match operand {
        Operand::Same => (all.collect(), [n, c, h, w]),
        Operand::Pixels => (all.map(|i| i / pixels).collect(), [n, c, 1, 1]),
        Operand::Channels => (all.map(|i| i / pixels % c).collect(), [1, c, 1, 1]),
        Operand::Scalar => (all.map(|_| 0).collect(), [1, 1, 1, 1]),
    }
}

fn operands() -> impl Strategy<Value = Operand> {
    prop_oneof![Just(Operand::Same), Just(Operand::Pixels), Just(Operand::Channels), Just(Operand::Scalar)]
}

proptest! {
    #![proptest_config(tries(40))]

    #[test]
    fn any_arithmetic(dims in dims(), operand in operands(), op in 0usize..6, plain: bool, seed in 0u64..1000) {
        let op = Op::ALL[op];
        let (of, small) = index(dims, operand);
        let len = of.len();
        let (a, dy, b) = (away(len, seed), random(len, seed + 1), away(small.iter().product(), seed + 2));
        let y = naive::arith(op, &wide(&a), &wide(&b), &of);
        let [da, db] = naive::arith_gradients(op, &wide(&a), &wide(&b), &of, &wide(&dy));
        for layout in Layout::ALL {
            let arith = Arith::new(layout, dims, operand).unwrap();
            // A single value has no layout; channels may come without padding.
            let small_layout = match operand {
                Operand::Scalar => Layout::Nchw,
                Operand::Channels if plain => Layout::Nchw,
                _ => layout,
            };
            let (al, dyl, bl) = (to(layout, dims, &a), to(layout, dims, &dy), to(small_layout, small, &b));
            for (level, got) in at_levels(|place| {
                let (mut y, mut da, mut db) = (Guarded::nan(al.len()), Guarded::nan(al.len()), Guarded::nan(bl.len()));
                let mut scratch = vec![f32::NAN; arith.scratch()];
                arith.forward(place, op, &al, &bl, y.slice(), &mut scratch);
                scratch.fill(f32::NAN);
                arith.backward(place, op, [&al, &bl, &dyl], Some(da.slice()), Some(db.slice()), &mut scratch);
                vec![back(layout, dims, &y.check()), back(layout, dims, &da.check()), back(small_layout, small, &db.check())]
            }) {
                let what = format!("{level} {layout:?} {dims:?} {operand:?} {op:?}");
                close(&what, &got[0], &y, 1e-7, largest(&y, 1.0));
                close(&what, &got[1], &da, 3e-7, largest(&da, 1.0));
                // The terms of a quotient's gradient reach 6, so that sums of many pass through numbers far above the result.
                close(&what, &got[2], &db, 1e-6, largest(&db, 1.0) + 4.0 * (len as f64).sqrt());
            }
        }
    }

    #[test]
    fn any_sum(dims in dims(), operand in operands(), seed in 0u64..1000) {
        prop_assume!(operand != Operand::Same);
        let (of, small) = index(dims, operand);
        let x = random(of.len(), seed);
        let mut want = vec![0.0; small.iter().product()];
        of.iter().zip(&x).for_each(|(&of, x)| want[of] += f64::from(*x) * 0.25);
        for layout in Layout::ALL {
            let arith = Arith::new(layout, dims, operand).unwrap();
            let small_layout = if operand == Operand::Scalar { Layout::Nchw } else { layout };
            let xl = to(layout, dims, &x);
            for (level, got) in at_levels(|place| {
                let mut y = Guarded::nan(arith.operand_len());
                arith.sum(place, &xl, 0.25, y.slice(), &mut vec![f32::NAN; arith.scratch()]);
                vec![back(small_layout, small, &y.check())]
            }) {
                close(&format!("{level} {layout:?} {dims:?} {operand:?}"), &got[0], &want, 1e-6, largest(&want, 1.0) + (of.len() as f64).sqrt());
            }
        }
    }

    #[test]
    fn any_prelu(dims in dims(), one: bool, seed in 0u64..1000) {
        let (of, small) = index(dims, if one { Operand::Scalar } else { Operand::Channels });
        let (mut x, dy, w) = (random(of.len(), seed), random(of.len(), seed + 1), random(small[1], seed + 2));
        x[0] = 0.0;
        let y = naive::prelu(&wide(&x), &wide(&w), &of);
        let [dx, dw] = naive::prelu_gradients(&wide(&x), &wide(&w), &of, &wide(&dy));
        for layout in Layout::ALL {
            let prelu = PRelu::new(layout, dims, w.len()).unwrap();
            let (xl, dyl) = (to(layout, dims, &x), to(layout, dims, &dy));
            for (level, got) in at_levels(|place| {
                let (mut y, mut dx, mut dw) = (Guarded::nan(xl.len()), Guarded::nan(xl.len()), Guarded::nan(w.len()));
                let mut scratch = vec![f32::NAN; prelu.scratch()];
                prelu.forward(place, &xl, &w, y.slice(), &mut scratch);
                prelu.backward(place, [&xl, &w, &dyl], Some(dx.slice()), Some(dw.slice()), &mut scratch);
                vec![back(layout, dims, &y.check()), back(layout, dims, &dx.check()), dw.check()]
            }) {
                let what = format!("{level} {layout:?} {dims:?} of {} slopes", w.len());
                close(&what, &got[0], &y, 1e-7, 1.0);
                close(&what, &got[1], &dx, 1e-7, 1.0);
                close(&what, &got[2], &dw, 1e-6, largest(&dw, 1.0) + (of.len() as f64).sqrt());
            }
        }
    }
}

#[test]
fn slopes_are_one_or_as_many_as_channels() {
    assert!(PRelu::new(Layout::Nchw, [1, 6, 2, 2], 3).is_err());
}
