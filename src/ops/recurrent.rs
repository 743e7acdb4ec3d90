//! Recurrent layers: LSTM, GRU and the plain one, in one direction or both.

use super::call::dims as checked_dims;
use super::doubles::{doubles, rounded};
use super::error::{OpResult, refuse};
use super::room::filled;
use super::view::View;
use super::{Array, Call, Operator};

/// The operators of this file.
pub(super) const OPERATORS: &[Operator] = &[
    Operator::new("LSTM", |call| run(call, 4)),
    Operator::new("GRU", |call| run(call, 3)),
    Operator::new("RNN", |call| run(call, 1)),
];

/// Of a number and two parameters.
type Formula = fn(f64, f64, f64) -> f64;

/// An activation with its two parameters.
#[derive(Debug, Clone, Copy)]
struct Activation {
    f: Formula,
    alpha: f64,
    beta: f64,
}

impl Activation {
    fn new(named: &Named) -> OpResult<Self> {
        let known: (Formula, f64, f64) = match named.name.as_str() {
            "sigmoid" => (|x, _, _| super::unary::sigmoid(x), 0.0, 0.0),
            "tanh" => (|x, _, _| x.tanh(), 0.0, 0.0),
            "relu" => (|x, _, _| x.max(0.0), 0.0, 0.0),
            "affine" => (|x, a, b| a * x + b, 1.0, 0.0),
            "leakyrelu" => (|x, a, _| if x < 0.0 { a * x } else { x }, 0.01, 0.0),
            "thresholdedrelu" => (|x, a, _| if x > a { x } else { 0.0 }, 1.0, 0.0),
            "scaledtanh" => (|x, a, b| a * (b * x).tanh(), 1.0, 1.0),
            "hardsigmoid" => (|x, a, b| (a * x + b).clamp(0.0, 1.0), 0.2, 0.5),
            "elu" => (|x, a, _| if x < 0.0 { a * x.exp_m1() } else { x }, 1.0, 0.0),
            "softsign" => (|x, _, _| x / (1.0 + x.abs()), 0.0, 0.0),
            "softplus" => (|x, _, _| super::unary::softplus(x), 0.0, 0.0),
            name => refuse!("activation {name:?}"),
        };
        let (f, a, b) = known;
        Ok(Self { f, alpha: named.alpha.map_or(a, Into::into), beta: named.beta.map_or(b, Into::into) })
    }

    fn of(&self, x: f64) -> f64 {
        (self.f)(x, self.alpha, self.beta)
    }
}

/// One direction of a layer: weights `[gates * hidden, input]`, `[gates * hidden, hidden]`, biases, peepholes.
struct Direction<'d> {
    gates: usize,
    hidden: usize,
    input: usize,
    w: &'d [f64],
    r: &'d [f64],
    bias: &'d [f64],
    recurrent_bias: &'d [f64],
    peepholes: Option<&'d [f64]>,
    activations: Vec<Activation>,
    clip: f64,
    linear_before_reset: bool,
    input_forget: bool,
}

impl Direction<'_> {
    fn gate(&self, g: usize, j: usize, x: &[f64]) -> f64 {
        let row = g * self.hidden + j;
        self.w[row * self.input..][..self.input].iter().zip(x).map(|(a, b)| a * b).sum::<f64>() + self.bias[row]
    }

    fn recurrent(&self, g: usize, j: usize, h: &[f64]) -> f64 {
        let row = g * self.hidden + j;
        let sum: f64 = self.r[row * self.hidden..][..self.hidden].iter().zip(h).map(|(a, b)| a * b).sum();
        sum + self.recurrent_bias[row]
    }

    fn clipped(&self, x: f64) -> f64 {
        x.clamp(-self.clip, self.clip)
    }

    fn step(&self, x: &[f64], h: &mut Vec<f64>, c: &mut [f64]) {
        *h = match self.gates {
            4 => self.lstm(x, h, c),
            3 => self.gru(x, h),
            _ => {
                let unit =
                    |j: usize| self.activations[0].of(self.clipped(self.gate(0, j, x) + self.recurrent(0, j, h)));
                (0..self.hidden).map(unit).collect()
            }
        };
    }

    /// Gates in the order input, output, forget, cell.
    fn lstm(&self, x: &[f64], h: &[f64], c: &mut [f64]) -> Vec<f64> {
        let [f, g, out] = [0, 1, 2].map(|i| self.activations[i]);
        let peep = |which: usize, j: usize, c: f64| self.peepholes.map_or(0.0, |p| p[which * self.hidden + j] * c);
        let unit = |j: usize, c: &mut f64| {
            let sum = |gate: usize| self.gate(gate, j, x) + self.recurrent(gate, j, h);
            let i = f.of(self.clipped(sum(0) + peep(0, j, *c)));
            let forget = if self.input_forget { 1.0 - i } else { f.of(self.clipped(sum(2) + peep(2, j, *c))) };
            *c = forget * *c + i * g.of(self.clipped(sum(3)));
            f.of(self.clipped(sum(1) + peep(1, j, *c))) * out.of(*c)
        };
        c.iter_mut().enumerate().map(|(j, c)| unit(j, c)).collect()
    }

    /// Gates in the order update, reset, hidden.
    fn gru(&self, x: &[f64], h: &[f64]) -> Vec<f64> {
        let [f, g] = [0, 1].map(|i| self.activations[i]);
        let gate = |gate: usize, j: usize| f.of(self.clipped(self.gate(gate, j, x) + self.recurrent(gate, j, h)));
        let reset: Vec<f64> = (0..self.hidden).map(|j| gate(1, j)).collect();
        let kept: Vec<f64> = h.iter().zip(&reset).map(|(h, r)| h * r).collect();
        let unit = |j: usize| {
            let update = gate(0, j);
            let recurrent =
                if self.linear_before_reset { reset[j] * self.recurrent(2, j, h) } else { self.recurrent(2, j, &kept) };
            (1.0 - update) * g.of(self.clipped(self.gate(2, j, x) + recurrent)) + update * h[j]
        };
        (0..self.hidden).map(unit).collect()
    }
}

/// An activation as a file has it.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    /// In small letters.
    pub(crate) name: String,
    /// The first parameter.
    pub(crate) alpha: Option<f32>,
    /// The second one.
    pub(crate) beta: Option<f32>,
}

/// The activations of each direction of a layer with so many gates.
pub(crate) fn activations(call: &Call<'_>, directions: usize, gates: usize) -> OpResult<Vec<Vec<Named>>> {
    let usual: &[&str] = match gates {
        4 => &["sigmoid", "tanh", "tanh"],
        3 => &["sigmoid", "tanh"],
        _ => &["tanh"],
    };
    let all = directions * usual.len();
    let names: Vec<String> = match call.texts("activations")? {
        Some(names) if names.len() == all => names.iter().map(|name| name.to_ascii_lowercase()).collect(),
        Some(names) => refuse!("{} activations, but {all} are needed", names.len()),
        None => usual.iter().cycle().take(all).map(|s| (*s).to_string()).collect(),
    };
    let (alphas, betas) = (call.floats("activation_alpha")?, call.floats("activation_beta")?);
    // Parameters are only listed for the activations that have some, but files list them for all or for the first.
    let at = |list: Option<&[f32]>, i: usize| list.and_then(|list| list.get(i).copied());
    let named = |(i, name)| Named { name, alpha: at(alphas, i), beta: at(betas, i) };
    let all: Vec<Named> = names.into_iter().enumerate().map(named).collect();
    Ok(all.chunks(usual.len()).map(<[_]>::to_vec).collect())
}

fn run(call: &Call<'_>, gates: usize) -> OpResult<Vec<Array>> {
    let (x, w, r) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let batch_first = call.flag("layout", false)?;
    let order: &[usize] = if batch_first { &[1, 0, 2] } else { &[0, 1, 2] };
    let (Ok([directions, rows, input]), [_, _, hidden]) = (<[usize; 3]>::try_from(w.dims()), r.dims()) else {
        refuse!("weights {:?} and {:?}", w.dims(), r.dims());
    };
    let hidden = *hidden;
    if x.rank() != 3 || x.dims()[2] != input || rows != gates * hidden || r.dims() != [directions, rows, hidden] {
        refuse!("an input {:?} for weights {:?} and {:?}", x.dims(), w.dims(), r.dims());
    }
    let backwards: &[bool] = match (call.text("direction", "forward")?, directions) {
        ("forward", 1) => &[false],
        ("reverse", 1) => &[true],
        ("bidirectional", 2) => &[false, true],
        (direction, _) => refuse!("direction is {direction:?} for weights of {directions}"),
    };
    let xs = View::of(x.dims()).permute(order).copy(&doubles(x)?)?;
    let (steps, batch) = (x.dims()[order[0]], x.dims()[order[1]]);
    let lens = match call.integers(4)? {
        Some(lens) => checked_dims(&lens)?,
        None => vec![steps; batch],
    };
    if lens.len() != batch || lens.iter().any(|&l| l > steps) {
        refuse!("lengths {lens:?} for {batch} sequences of {steps} steps");
    }
    let sized = |index: usize, len: usize| -> OpResult<Option<Vec<f64>>> {
        let Some(v) = call.optional(index).map(doubles).transpose()? else { return Ok(None) };
        if v.len() != len {
            refuse!("input {index} has {} elements, but {len} are needed", v.len());
        }
        Ok(Some(v))
    };
    let state = |index: usize| -> OpResult<Vec<f64>> {
        let Some(v) = sized(index, directions * batch * hidden)? else {
            return Ok(vec![0.0; directions * batch * hidden]);
        };
        if batch_first { View::of(&[batch, directions, hidden]).permute(order).copy(&v) } else { Ok(v) }
    };
    let bias = sized(3, directions * 2 * rows)?.unwrap_or_else(|| vec![0.0; directions * 2 * rows]);
    let peepholes = if gates == 4 { sized(7, directions * 3 * hidden)? } else { None };
    let (ws, rs) = (doubles(w)?, doubles(r)?);
    let (mut h_all, mut c_all) =
        (state(5)?, if gates == 4 { state(6)? } else { vec![0.0; directions * batch * hidden] });
    let clip = call.float("clip", f32::INFINITY)?;
    let activations = activations(call, directions, gates)?;
    let mut y = filled(0.0, super::room::checked_count(&[steps, directions, batch, hidden])?)?;
    for (d, activations) in activations.into_iter().enumerate() {
        let direction = Direction {
            gates,
            hidden,
            input,
            w: &ws[d * rows * input..][..rows * input],
            r: &rs[d * rows * hidden..][..rows * hidden],
            bias: &bias[d * 2 * rows..][..rows],
            recurrent_bias: &bias[(d * 2 + 1) * rows..][..rows],
            peepholes: peepholes.as_ref().map(|p| &p[d * 3 * hidden..][..3 * hidden]),
            activations: activations.iter().map(Activation::new).collect::<OpResult<_>>()?,
            clip: if clip > 0.0 { clip.into() } else { f64::INFINITY },
            linear_before_reset: call.flag("linear_before_reset", false)?,
            input_forget: call.flag("input_forget", false)?,
        };
        for (b, &len) in lens.iter().enumerate() {
            let place = (d * batch + b) * hidden;
            let mut h = h_all[place..][..hidden].to_vec();
            for t in 0..len {
                let t = if backwards[d] { len - 1 - t } else { t };
                direction.step(&xs[(t * batch + b) * input..][..input], &mut h, &mut c_all[place..][..hidden]);
                y[((t * directions + d) * batch + b) * hidden..][..hidden].copy_from_slice(&h);
            }
            h_all[place..][..hidden].copy_from_slice(&h);
        }
    }
    let (y_dims, state_dims) = ([steps, directions, batch, hidden], [directions, batch, hidden]);
    let outputs = if batch_first {
        let last = |v: &[f64]| View::of(&state_dims).permute(&[1, 0, 2]).copy(v);
        let y = View::of(&y_dims).permute(&[2, 0, 1, 3]).copy(&y)?;
        let state = [batch, directions, hidden];
        [
            rounded([batch, steps, directions, hidden], y, x.element())?,
            rounded(state, last(&h_all)?, x.element())?,
            rounded(state, last(&c_all)?, x.element())?,
        ]
    } else {
        [
            rounded(y_dims, y, x.element())?,
            rounded(state_dims, h_all, x.element())?,
            rounded(state_dims, c_all, x.element())?,
        ]
    };
    Ok(outputs.into_iter().take(if gates == 4 { 3 } else { 2 }).collect())
}
