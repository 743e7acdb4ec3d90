use crate::arith::Op;

/// `a op b`, where `b[of[i]]` belongs to `a[i]`.
pub fn arith(op: Op, a: &[f64], b: &[f64], of: &[usize]) -> Vec<f64> {
    let f = |a: f64, b: f64| match op {
        Op::Add => a + b,
        Op::Sub => a - b,
        Op::Mul => a * b,
        Op::Div => a / b,
        Op::SubFrom => b - a,
        Op::DivInto => b / a,
    };
    a.iter().zip(of).map(|(&a, &of)| f(a, b[of])).collect()
}

/// Gradients of [`arith`] at `a` and `b`.
pub fn arith_gradients(op: Op, a: &[f64], b: &[f64], of: &[usize], dy: &[f64]) -> [Vec<f64>; 2] {
    let slopes = |a: f64, b: f64| match op {
        Op::Add => [1.0, 1.0],
        Op::Sub => [1.0, -1.0],
        Op::Mul => [b, a],
        Op::Div => [1.0 / b, -a / (b * b)],
        Op::SubFrom => [-1.0, 1.0],
        Op::DivInto => [-b / (a * a), 1.0 / a],
    };
    let (mut da, mut db) = (Vec::new(), vec![0.0; b.len()]);
    for ((&a, &of), dy) in a.iter().zip(of).zip(dy) {
        let [to_a, to_b] = slopes(a, b[of]);
        da.push(dy * to_a);
        db[of] += dy * to_b;
    }
    [da, db]
}

/// `x` where positive, else `w[of[i]] x`.
pub fn prelu(x: &[f64], w: &[f64], of: &[usize]) -> Vec<f64> {
    x.iter().zip(of).map(|(&x, &of)| if x > 0.0 { x } else { w[of] * x }).collect()
}

/// Gradients of [`prelu`] at `x` and `w`.
pub fn prelu_gradients(x: &[f64], w: &[f64], of: &[usize], dy: &[f64]) -> [Vec<f64>; 2] {
    let (mut dx, mut dw) = (Vec::new(), vec![0.0; w.len()]);
    for ((&x, &of), dy) in x.iter().zip(of).zip(dy) {
        dx.push(if x > 0.0 { *dy } else { dy * w[of] });
        dw[of] += if x > 0.0 { 0.0 } else { dy * x };
    }
    [dx, dw]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_gradient, values};

    #[test]
    fn gradients_are_those_of_central_differences() {
        let of: Vec<usize> = (0..24).map(|i| i / 3 % 4).collect();
        let away = |v: Vec<f64>| v.into_iter().map(|v| v + v.signum()).collect::<Vec<_>>();
        let (a, b, dy) = (away(values(24, 1)), away(values(4, 2)), values(24, 3));
        for op in Op::ALL {
            let [da, db] = arith_gradients(op, &a, &b, &of, &dy);
            assert_gradient(&a, &dy, &da, |a| arith(op, a, &b, &of));
            assert_gradient(&b, &dy, &db, |b| arith(op, &a, b, &of));
        }
        let [dx, dw] = prelu_gradients(&a, &b, &of, &dy);
        assert_gradient(&a, &dy, &dx, |x| prelu(x, &b, &of));
        assert_gradient(&b, &dy, &dw, |w| prelu(&a, w, &of));
    }
}
