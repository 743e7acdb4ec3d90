//! Patterns of exporters, as the operators that they mean; and constants behind a convolution, in its weights.
//!
//! Everything here is a rule from nodes to nodes that leaves the model's values as they are, but for rounding.

use std::collections::HashMap;
use std::sync::Arc;

use super::fold::{Folded, Node, Operand};
use crate::ops::{Array, Attribute, Attributes, Data, ElementType, operator};

/// Applies every rule where it fits.
pub(crate) fn simplify(folded: &mut Folded) {
    widen(folded);
    activations(folded);
    affine(folded);
    hard_swish_affine(folded);
    folded.sweep();
}

/// Half floats become floats: they were stored so to save space, and no kernel computes in them.
fn widen(folded: &mut Folded) {
    let is_half = |element| matches!(element, ElementType::F16 | ElementType::Bf16);
    let wide = |element| if is_half(element) { ElementType::F32 } else { element };
    folded.facts.iter_mut().for_each(|fact| fact.element = wide(fact.element));
    for node in &mut folded.nodes {
        for input in &mut node.inputs {
            if let Operand::Constant(array) = input
                && is_half(array.element())
                && let Ok(floats) = crate::ops::cast(array, ElementType::F32)
            {
                *input = Operand::Constant(Arc::new(floats));
            }
        }
        let to = match node.attributes.get("to") {
            Some(&Attribute::Int(code)) if node.operator.name == "Cast" => ElementType::from_code(code),
            _ => None,
        };
        if to.is_some_and(is_half) {
            node.attributes = Attributes::new().with("to", Attribute::Int(ElementType::F32.code()));
        }
    }
    // Casts between the two are nothing now.
    let mut same: HashMap<usize, Operand> = HashMap::new();
    for i in 0..folded.nodes.len() {
        replace(&mut folded.nodes[i].inputs, &same);
        let node = &folded.nodes[i];
        if let ("Cast", [Operand::Value(from)], [to]) = (node.operator.name, &node.inputs[..], &node.outputs[..])
            && folded.facts[*from] == folded.facts[*to]
        {
            same.insert(*to, Operand::Value(*from));
        }
    }
    redirect(folded, &same);
}

fn replace(operands: &mut [Operand], by: &HashMap<usize, Operand>) {
    for operand in operands {
        if let Operand::Value(value) = operand
            && let Some(other) = by.get(value)
        {
            *operand = other.clone();
        }
    }
}

/// Everybody who reads a value reads another one.
fn redirect(folded: &mut Folded, by: &HashMap<usize, Operand>) {
    folded.nodes.iter_mut().for_each(|node| replace(&mut node.inputs, by));
    for (_, output) in &mut folded.outputs {
        replace(std::slice::from_mut(output), by);
    }
}

/// Who makes each value, and how often each is read.
struct Uses {
    maker: HashMap<usize, usize>,
    readers: HashMap<usize, Vec<usize>>,
    /// Values that are outputs of the model.
    outputs: Vec<usize>,
}

impl Uses {
    fn new(folded: &Folded) -> Self {
        let (mut maker, mut readers) = (HashMap::new(), HashMap::<usize, Vec<usize>>::new());
        for (i, node) in folded.nodes.iter().enumerate() {
            maker.extend(node.outputs.iter().map(|&o| (o, i)));
            for input in &node.inputs {
                if let Operand::Value(value) = input {
                    readers.entry(*value).or_default().push(i);
                }
            }
        }
        let outputs = folded.outputs.iter().filter_map(|(_, o)| value(o)).collect();
        Self { maker, readers, outputs }
    }

    /// The only node that reads a value, which is no output.
    fn only_reader(&self, value: usize) -> Option<usize> {
        match self.readers.get(&value).map(Vec::as_slice) {
            Some(&[reader]) if !self.outputs.contains(&value) => Some(reader),
            _ => None,
        }
    }

    /// The node that makes an operand, if it is this operator.
    fn made_by<'f>(&self, folded: &'f Folded, operand: &Operand, name: &str) -> Option<&'f Node> {
        let node = &folded.nodes[*self.maker.get(&value(operand)?)?];
        (node.operator.name == name).then_some(node)
    }
}

fn value(operand: &Operand) -> Option<usize> {
    match operand {
        Operand::Value(value) => Some(*value),
        _ => None,
    }
}

/// The floats of a constant.
fn floats(operand: &Operand) -> Option<&[f32]> {
    match operand {
        Operand::Constant(array) => array.elements::<f32>(),
        _ => None,
    }
}

/// The number that a constant of one element is.
fn number(operand: &Operand) -> Option<f32> {
    match floats(operand) {
        Some([one]) => Some(*one),
        _ => None,
    }
}

/// The number among two operands, and the other operand.
fn with_number(node: &Node) -> Option<(f32, &Operand)> {
    let [a, b] = &node.inputs[..] else { return None };
    match (number(a), number(b)) {
        (None, Some(n)) => Some((n, a)),
        (Some(n), None) => Some((n, b)),
        _ => None,
    }
}

fn near(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-5 * b.abs()
}

/// Sigmoid and product: SiLU. Hard sigmoid and product, however written: hard swish. Error function, sum and product: GELU.
fn activations(folded: &mut Folded) {
    let uses = Uses::new(folded);
    for i in 0..folded.nodes.len() {
        let node = &folded.nodes[i];
        let found = match node.operator.name {
            "Mul" => silu(folded, &uses, node)
                .or_else(|| hard_swish(folded, &uses, node))
                .or_else(|| gelu(folded, &uses, node)),
            "Div" => hard_swish(folded, &uses, node),
            _ => None,
        };
        let Some((name, attributes, x)) = found else { continue };
        // A pattern that repeats its input to other dimensions is another one.
        if folded.facts[x].dims != folded.facts[folded.nodes[i].outputs[0]].dims {
            continue;
        }
        let node = &mut folded.nodes[i];
        node.operator = operator(name).expect("this crate has the activation");
        (node.attributes, node.inputs, node.opset) = (attributes, vec![Operand::Value(x)], 22);
    }
}

type Found = Option<(&'static str, Attributes, usize)>;

fn silu(folded: &Folded, uses: &Uses, node: &Node) -> Found {
    let [a, b] = &node.inputs[..] else { return None };
    for (x, gate) in [(a, b), (b, a)] {
        let x = value(x)?;
        if let Some(sigmoid) = uses.made_by(folded, gate, "Sigmoid")
            && value(&sigmoid.inputs[0]) == Some(x)
        {
            return Some(("Swish", Attributes::new(), x));
        }
        if let Some(hard) = uses.made_by(folded, gate, "HardSigmoid")
            && value(&hard.inputs[0]) == Some(x)
            && matches!(hard.attributes.get("alpha"), Some(&Attribute::Float(a)) if near(a, 1.0 / 6.0))
            && matches!(hard.attributes.get("beta"), None | Some(&Attribute::Float(0.5)))
        {
            return Some(("HardSwish", Attributes::new(), x));
        }
    }
    None
}

/// `x * clip(x + 3, 0, 6) / 6`, in whichever order.
fn hard_swish(folded: &Folded, uses: &Uses, node: &Node) -> Found {
    // The factor of 1/6 last, or before one of the factors.
    let (scale, product) = match node.operator.name {
        "Div" => (1.0 / number(&node.inputs[1])?, uses.made_by(folded, &node.inputs[0], "Mul")?),
        _ => match with_number(node) {
            Some((n, product)) => (n, uses.made_by(folded, product, "Mul")?),
            None => (1.0, node),
        },
    };
    let [a, b] = &product.inputs[..] else { return None };
    for (x, gate) in [(a, b), (b, a)] {
        let Some(x) = value(x) else { continue };
        let (scale, clip) = match (uses.made_by(folded, gate, "Div"), uses.made_by(folded, gate, "Mul")) {
            (Some(div), _) => match number(&div.inputs[1]) {
                Some(n) => (scale / n, &div.inputs[0]),
                None => continue,
            },
            (None, Some(mul)) => match with_number(mul) {
                Some((n, other)) => (scale * n, other),
                None => continue,
            },
            (None, None) => (scale, gate),
        };
        let Some(clip) = uses.made_by(folded, clip, "Clip") else { continue };
        let Some(sum) = uses.made_by(folded, &clip.inputs[0], "Add") else { continue };
        if with_number(sum).is_some_and(|(n, other)| n == 3.0 && value(other) == Some(x))
            && bounds(clip) == Some([0.0, 6.0])
            && near(scale, 1.0 / 6.0)
        {
            return Some(("HardSwish", Attributes::new(), x));
        }
    }
    None
}

/// Hard swish takes along a factor and a summand that follow it, as PP-LCNet learns them.
fn hard_swish_affine(folded: &mut Folded) {
    let uses = Uses::new(folded);
    let mut same: HashMap<usize, Operand> = HashMap::new();
    for i in 0..folded.nodes.len() {
        if folded.nodes[i].operator.name != "HardSwish" {
            continue;
        }
        let own = folded.nodes[i].outputs[0];
        let (mut end, mut scale, mut shift) = (own, 1.0f32, 0.0f32);
        while let Some(node) = uses.only_reader(end).map(|next| &folded.nodes[next]) {
            let Some((number, _)) = with_number(node) else { break };
            let (factor, summand) = match node.operator.name {
                "Mul" => (number, 0.0),
                "Add" => (1.0, number),
                _ => break,
            };
            if folded.facts[node.outputs[0]] != folded.facts[own] {
                break;
            }
            (scale, shift, end) = (scale * factor, shift * factor + summand, node.outputs[0]);
        }
        if end == own {
            continue;
        }
        let node = &mut folded.nodes[i];
        node.operator = operator("swath.HardSwishAffine").expect("this crate has it");
        node.attributes =
            Attributes::new().with("scale", Attribute::Float(scale)).with("shift", Attribute::Float(shift));
        same.insert(end, Operand::Value(own));
    }
    redirect(folded, &same);
}

/// The bounds of a Clip, which are attributes or constants.
pub(crate) fn bounds(clip: &Node) -> Option<[f32; 2]> {
    let bound = |index: usize, name: &str, open: f32| match clip.inputs.get(index) {
        None | Some(Operand::Absent) => match clip.attributes.get(name) {
            Some(&Attribute::Float(bound)) => Some(bound),
            Some(_) => None,
            None => Some(open),
        },
        Some(constant) => number(constant),
    };
    Some([bound(1, "min", f32::NEG_INFINITY)?, bound(2, "max", f32::INFINITY)?])
}

/// `x * (1 + erf(x / sqrt 2)) * 0.5`, in whichever order.
fn gelu(folded: &Folded, uses: &Uses, node: &Node) -> Found {
    // One half is a factor of the whole, or of one of the factors.
    let candidates = |node: &Node| -> Vec<(f32, Operand, Operand)> {
        let [a, b] = &node.inputs[..] else { return Vec::new() };
        vec![(1.0, a.clone(), b.clone()), (1.0, b.clone(), a.clone())]
    };
    let mut all = Vec::new();
    match with_number(node) {
        Some((n, product)) => {
            let product = uses.made_by(folded, product, "Mul")?;
            all.extend(candidates(product).into_iter().map(|(_, a, b)| (n, a, b)));
        }
        None => {
            for (_, a, b) in candidates(node) {
                // `(0.5 x) * (1 + erf)` and `x * (0.5 (1 + erf))`
                for (half, other) in [(&a, &b), (&b, &a)] {
                    if let Some((n, inner)) = uses.made_by(folded, half, "Mul").and_then(with_number) {
                        all.push((n, inner.clone(), other.clone()));
                        all.push((n, other.clone(), inner.clone()));
                    }
                }
            }
        }
    }
    for (half, x, sum) in all {
        let Some(x) = value(&x) else { continue };
        let Some((1.0, erf)) = uses.made_by(folded, &sum, "Add").and_then(with_number) else { continue };
        let Some(erf) = uses.made_by(folded, erf, "Erf") else { continue };
        let argument = &erf.inputs[0];
        let root = std::f32::consts::SQRT_2;
        let scaled = match (uses.made_by(folded, argument, "Div"), uses.made_by(folded, argument, "Mul")) {
            (Some(div), _) => number(&div.inputs[1]).filter(|n| near(*n, root)).map(|_| &div.inputs[0]),
            (None, Some(mul)) => with_number(mul).filter(|(n, _)| near(*n, 1.0 / root)).map(|(_, other)| other),
            _ => None,
        };
        if half == 0.5 && scaled.and_then(value) == Some(x) {
            return Some(("Gelu", Attributes::new(), x));
        }
    }
    None
}

/// A scale and a shift of each channel.
struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

/// What a node does to its only value, if that is a scale and a shift of each of `channels` channels in dimension 1 of `rank`.
fn as_affine(node: &Node, channels: usize, rank: usize) -> Option<(usize, Affine)> {
    let x = value(&node.inputs[0]);
    if node.operator.name == "BatchNormalization" {
        let [scale, bias, mean, var] = [1, 2, 3, 4].map(|i| node.inputs.get(i).and_then(floats));
        let (scale, bias, mean, var) = (scale?, bias?, mean?, var?);
        let epsilon = match node.attributes.get("epsilon") {
            Some(&Attribute::Float(epsilon)) => f64::from(epsilon),
            _ => 1e-5,
        };
        let training = matches!(node.attributes.get("training_mode"), Some(&Attribute::Int(1)));
        if training || node.outputs.len() != 1 || [scale, bias, mean, var].iter().any(|v| v.len() != channels) {
            return None;
        }
        let factor = |i: usize| f64::from(scale[i]) / (f64::from(var[i]) + epsilon).sqrt();
        let scales: Vec<f64> = (0..channels).map(factor).collect();
        let shift = (0..channels).map(|i| f64::from(bias[i]) - f64::from(mean[i]) * scales[i]).collect();
        return Some((x?, Affine { scale: scales, shift }));
    }
    let [a, b] = &node.inputs[..] else { return None };
    let (x, constant, reversed) = match (value(a), value(b)) {
        (Some(x), None) => (x, b, false),
        (None, Some(x)) => (x, a, true),
        _ => return None,
    };
    let values = per_channel(constant, channels, rank)?;
    let (one, zero) = (|| vec![1.0; channels], || vec![0.0; channels]);
    let affine = match (node.operator.name, reversed) {
        ("Mul", _) => Affine { scale: values, shift: zero() },
        ("Add", _) => Affine { scale: one(), shift: values },
        ("Sub", false) => Affine { scale: one(), shift: values.iter().map(|v| -v).collect() },
        ("Sub", true) => Affine { scale: vec![-1.0; channels], shift: values },
        ("Div", false) if values.iter().all(|v| *v != 0.0) => {
            Affine { scale: values.iter().map(|v| 1.0 / v).collect(), shift: zero() }
        }
        _ => return None,
    };
    Some((x, affine))
}

/// A constant that is the same for all but dimension 1.
fn per_channel(constant: &Operand, channels: usize, rank: usize) -> Option<Vec<f64>> {
    let Operand::Constant(array) = constant else { return None };
    let v: Vec<f64> = array.elements::<f32>()?.iter().map(|&v| v.into()).collect();
    if v.len() == 1 && array.rank() <= rank {
        return Some(vec![v[0]; channels]);
    }
    let lead = rank.checked_sub(array.rank())?;
    let fits = array.dims().iter().enumerate().all(|(i, &d)| if i + lead == 1 { d == channels } else { d == 1 });
    (fits && v.len() == channels).then_some(v)
}

/// Convolutions, and products with a constant matrix, take along the scales and shifts that follow them.
fn affine(folded: &mut Folded) {
    let uses = Uses::new(folded);
    let mut same: HashMap<usize, Operand> = HashMap::new();
    for i in 0..folded.nodes.len() {
        let name = folded.nodes[i].operator.name;
        if !matches!(name, "Conv" | "ConvTranspose") {
            continue;
        }
        let mut end = folded.nodes[i].outputs[0];
        let dims = folded.facts[end].dims.clone();
        let mut total: Option<Affine> = None;
        while let Some(next) = uses.only_reader(end) {
            let node = &folded.nodes[next];
            let Some((x, affine)) = as_affine(node, dims[1], dims.len()) else { break };
            if x != end || folded.facts[node.outputs[0]].dims != dims {
                break;
            }
            total = Some(match total {
                None => affine,
                Some(before) => Affine {
                    scale: before.scale.iter().zip(&affine.scale).map(|(a, b)| a * b).collect(),
                    shift: (0..dims[1]).map(|c| before.shift[c] * affine.scale[c] + affine.shift[c]).collect(),
                },
            });
            end = node.outputs[0];
        }
        let Some(total) = total else { continue };
        let Some(inputs) = scaled(&folded.nodes[i], &total) else { continue };
        let node = &mut folded.nodes[i];
        node.inputs = inputs;
        same.insert(end, Operand::Value(node.outputs[0]));
    }
    redirect(folded, &same);
}

/// A convolution's input, weights and bias, with a scale and a shift behind it.
fn scaled(node: &Node, affine: &Affine) -> Option<Vec<Operand>> {
    let Operand::Constant(w) = &node.inputs[1] else { return None };
    let weights = w.elements::<f32>()?;
    let channels = affine.scale.len();
    let bias = match node.inputs.get(2) {
        None | Some(Operand::Absent) => vec![0.0; channels],
        Some(bias) => floats(bias)?.to_vec(),
    };
    let groups = match node.attributes.get("group") {
        Some(&Attribute::Int(groups)) => usize::try_from(groups).ok()?,
        _ => 1,
    };
    let taps: usize = w.dims()[2..].iter().product();
    // The output channel of a weight: dimension 0 of `[m, c / groups, ..]`, or dimension 1 of `[c, m / groups, ..]`.
    let channel = |i: usize| match node.operator.name {
        "Conv" => i / (weights.len() / channels),
        _ => {
            let each = channels / groups;
            let input = i / (taps * each);
            input / (w.dims()[0] / groups) * each + i / taps % each
        }
    };
    if bias.len() != channels || weights.is_empty() {
        return None;
    }
    let scaled = weights.iter().enumerate().map(|(i, w)| (f64::from(*w) * affine.scale[channel(i)]) as f32).collect();
    let shifted = (0..channels).map(|c| (f64::from(bias[c]) * affine.scale[c] + affine.shift[c]) as f32).collect();
    let constant = |dims: &[usize], v: Vec<f32>| {
        Operand::Constant(Arc::new(Array::new(dims, Data::F32(v)).expect("as many elements as before")))
    };
    Some(vec![node.inputs[0].clone(), constant(w.dims(), scaled), constant(&[channels], shifted)])
}
