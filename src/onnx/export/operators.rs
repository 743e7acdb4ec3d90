//! How each operator of a graph is written.

use std::any::Any;

use swath_kernels::epilogue::Activation;
use swath_kernels::pool::Divisor;
use swath_kernels::shape::{Padding, PoolShape};

use super::{Attribute, Site};
use crate::graph::Operator;
use crate::graph::ops::{
    Activate, BatchNorm, Binary, Concat, Conv, ConvTranspose, Cut, Dropout, Expand, Filter, Flatten, GroupNorm,
    Interpolate, LayerNorm, Linear, PRelu, Pad, PadMode, PixelShuffle, Reduce, Reshape, Size, Softmax, Transpose,
    adaptive_max::AdaptiveMaxPool2d,
    pool::{AdaptiveAvgPool2d, AvgPool2d, MaxPool2d},
};

/// The name of the result, or why it cannot be written.
type Result = std::result::Result<String, String>;
type Attributes = Vec<(&'static str, Attribute)>;

/// One list of the operators that can be written, with the function that does it.
macro_rules! writers {
    ($($op:ty => $write:expr,)*) => {
        /// Writes an operator; `None` for one that is not in the list.
        pub(super) fn write(op: &dyn Any, at: &mut Site<'_, '_>) -> Option<Result> {
            $(if let Some(op) = op.downcast_ref::<$op>() {
                let write: fn(&$op, &mut Site<'_, '_>) -> Result = $write;
                return Some(write(op, at));
            })*
            None
        }
    };
}

writers! {
    Activate => |op, at| { let x = at.input(0); activation(op.0, x, at) },
    AdaptiveAvgPool2d => adaptive_average,
    AdaptiveMaxPool2d => adaptive_max,
    AvgPool2d => average,
    BatchNorm => batch_norm,
    Binary => binary,
    Concat => |_, at| { let all = at.all_inputs(); Ok(at.node("Concat", all, vec![("axis", Attribute::Int(1))])) },
    Conv => convolution,
    ConvTranspose => transposed,
    Cut => crop,
    // It passes on its input in inference.
    Dropout => |_, at| Ok(at.input(0)),
    Expand => |op, at| {
        let (x, dims) = (at.input(0), at.ints(&whole(&op.dims)));
        Ok(at.node("Expand", vec![x, dims], vec![]))
    },
    Flatten => |_, at| { let x = at.input(0); Ok(at.node("Flatten", vec![x], vec![("axis", Attribute::Int(1))])) },
    GroupNorm => group_norm,
    Interpolate => interpolate,
    LayerNorm => layer_norm,
    Linear => linear,
    MaxPool2d => max,
    PRelu => prelu,
    Pad => pad,
    PixelShuffle => pixel_shuffle,
    Reduce => reduce,
    Reshape => |op, at| {
        let dims: Vec<i64> = op.dims.iter().map(|&d| d as i64).collect();
        let (x, dims) = (at.input(0), at.ints(&dims));
        // A 0 means none, not a dimension to be copied.
        Ok(at.node("Reshape", vec![x, dims], vec![("allowzero", Attribute::Int(1))]))
    },
    Softmax => |op, at| {
        let (x, axis) = (at.input(0), ("axis", Attribute::Int(op.dim as i64)));
        Ok(at.node(if op.log { "LogSoftmax" } else { "Softmax" }, vec![x], vec![axis]))
    },
    Transpose => |op, at| {
        let (x, perm) = (at.input(0), ("perm", Attribute::Ints(whole(&op.permutation))));
        Ok(at.node("Transpose", vec![x], vec![perm]))
    },
}

fn whole(values: &[usize]) -> Vec<i64> {
    values.iter().map(|&v| v as i64).collect()
}

/// ONNX's order: all begins, then all ends.
fn pads(p: Padding) -> Attribute {
    Attribute::Ints(whole(&[p.top, p.left, p.bottom, p.right]))
}

fn convolution(op: &Conv, at: &mut Site<'_, '_>) -> Result {
    let attributes = vec![
        ("kernel_shape", Attribute::Ints(whole(&op.weights[2..]))),
        ("strides", Attribute::Ints(whole(&op.stride))),
        ("dilations", Attribute::Ints(whole(&op.dilation))),
        ("pads", pads(op.pad)),
        ("group", Attribute::Int(op.groups as i64)),
    ];
    let inputs = at.all_inputs();
    Ok(at.node("Conv", inputs, attributes))
}

fn transposed(op: &ConvTranspose, at: &mut Site<'_, '_>) -> Result {
    let attributes = vec![
        ("kernel_shape", Attribute::Ints(whole(&op.weights[2..]))),
        ("strides", Attribute::Ints(whole(&op.stride))),
        ("dilations", Attribute::Ints(whole(&op.dilation))),
        ("pads", pads(op.pad)),
        ("output_padding", Attribute::Ints(whole(&op.output_padding))),
        ("group", Attribute::Int(op.groups as i64)),
    ];
    let inputs = at.all_inputs();
    Ok(at.node("ConvTranspose", inputs, attributes))
}

fn linear(_: &Linear, at: &mut Site<'_, '_>) -> Result {
    let inputs = at.all_inputs();
    Ok(at.node("Gemm", inputs, vec![("transB", Attribute::Int(1))]))
}

fn batch_norm(op: &BatchNorm, at: &mut Site<'_, '_>) -> Result {
    // Here: image, mean, variance, and maybe scale and shift. There: image, scale, shift, mean, variance.
    let has = at.inputs.len();
    let [x, mean, variance] = [0, 1, 2].map(|i| at.input(i));
    let channels = op.channels;
    let scale = if has > 3 { at.input(3) } else { at.floats(&[channels], vec![1.0; channels]) };
    let shift = if has > 4 { at.input(4) } else { at.floats(&[channels], vec![0.0; channels]) };
    let epsilon = ("epsilon", Attribute::Float(op.eps as f32));
    Ok(at.node("BatchNormalization", vec![x, scale, shift, mean, variance], vec![epsilon]))
}

fn binary(op: &Binary, at: &mut Site<'_, '_>) -> Result {
    // Their names are ONNX's.
    let inputs = at.all_inputs();
    Ok(at.node(op.name(), inputs, vec![]))
}

fn prelu(_: &PRelu, at: &mut Site<'_, '_>) -> Result {
    let (x, slopes) = (at.input(0), at.per_channel(1, 4));
    Ok(at.node("PRelu", vec![x, slopes], vec![]))
}

fn pad(op: &Pad, at: &mut Site<'_, '_>) -> Result {
    let p = op.pad;
    let (mode, fill) = match op.mode {
        PadMode::Constant(fill) => ("constant", Some(fill)),
        PadMode::Reflect => ("reflect", None),
        PadMode::Replicate => ("edge", None),
        PadMode::Circular => return circular(p, at),
    };
    let mut inputs = vec![at.input(0), at.ints(&whole(&[0, 0, p.top, p.left, 0, 0, p.bottom, p.right]))];
    inputs.extend(fill.map(|v| at.float(v)));
    Ok(at.node("Pad", inputs, vec![("mode", Attribute::Text(mode))]))
}

/// Opset 17 has no circular padding: slices of the other side are put beside the image.
fn circular(p: Padding, at: &mut Site<'_, '_>) -> Result {
    let mut x = at.input(0);
    let (h, w) = (at.dims(0)[2], at.dims(0)[3]);
    for (axis, size, before, after) in [(2, h, p.top, p.bottom), (3, w, p.left, p.right)] {
        let mut parts = vec![x.clone()];
        if before > 0 {
            parts.insert(0, slice(at, x.clone(), axis, size - before, size));
        }
        if after > 0 {
            parts.push(slice(at, x.clone(), axis, 0, after));
        }
        if parts.len() > 1 {
            x = at.node("Concat", parts, vec![("axis", Attribute::Int(axis))]);
        }
    }
    Ok(x)
}

fn slice(at: &mut Site<'_, '_>, x: String, axis: i64, start: usize, end: usize) -> String {
    let inputs = [[start as i64], [end as i64], [axis]].map(|v| at.ints(&v));
    at.node("Slice", [vec![x], inputs.to_vec()].concat(), vec![])
}

fn crop(op: &Cut, at: &mut Site<'_, '_>) -> Result {
    let (h, w) = (at.dims(0)[2], at.dims(0)[3]);
    let span = |axis, size| op.span(axis, size).map_err(|e| e.to_string());
    let ([top, oh], [left, ow]) = (span(0, h)?, span(1, w)?);
    let x = at.input(0);
    let places = [&[top, left][..], &[top + oh, left + ow], &[2, 3]].map(|v| at.ints(&whole(v)));
    Ok(at.node("Slice", [vec![x], places.to_vec()].concat(), vec![]))
}

fn reduce(op: &Reduce, at: &mut Site<'_, '_>) -> Result {
    let axes: Vec<i64> = op.axes.iter().map(|&a| a as i64).collect();
    let x = at.input(0);
    let keep = ("keepdims", Attribute::Int(op.keep.into()));
    if op.mean {
        // Without axes, over all.
        let axes = (!axes.is_empty()).then_some(("axes", Attribute::Ints(axes)));
        return Ok(at.node("ReduceMean", vec![x], axes.into_iter().chain([keep]).collect()));
    }
    let mut inputs = vec![x];
    if !axes.is_empty() {
        inputs.push(at.ints(&axes));
    }
    Ok(at.node("ReduceSum", inputs, vec![keep]))
}

fn interpolate(op: &Interpolate, at: &mut Site<'_, '_>) -> Result {
    let (mode, corners, rounding) = match op.filter {
        Filter::Nearest => ("nearest", "asymmetric", Some("floor")),
        Filter::NearestExact => ("nearest", "half_pixel", Some("round_prefer_ceil")),
        Filter::Bilinear { align_corners: true } => ("linear", "align_corners", None),
        Filter::Bilinear { align_corners: false } => ("linear", "half_pixel", None),
        // a = -3/4 is ONNX's default, too.
        Filter::Bicubic { align_corners: true } => ("cubic", "align_corners", None),
        Filter::Bicubic { align_corners: false } => ("cubic", "half_pixel", None),
    };
    let mut attributes =
        vec![("mode", Attribute::Text(mode)), ("coordinate_transformation_mode", Attribute::Text(corners))];
    attributes.extend(rounding.map(|mode| ("nearest_mode", Attribute::Text(mode))));
    let x = at.input(0);
    let ([h, w], [oh, ow]) = ([at.dims(0)[2], at.dims(0)[3]], [at.output()[2], at.output()[3]]);
    let mut inputs = vec![x.clone(), String::new()];
    match op.size {
        // Between corners the size alone counts; of a factor, engines disagree whether the length behind it is rounded.
        Size::By([v, u]) if corners != "align_corners" => {
            // A factor that is rounded down to a float could lose the last row. Engines multiply floats.
            let factor = |by: f64, from: usize, to: usize| {
                let float = by as f32;
                if ((from as f32 * float).floor() as usize) < to { float.next_up() } else { float }
            };
            inputs.push(at.floats(&[4], vec![1.0, 1.0, factor(v, h, oh), factor(u, w, ow)]));
        }
        _ => {
            // Batch and channels are the input's.
            let shape = at.node("Shape", vec![x], vec![]);
            let lead = slice(at, shape, 0, 0, 2);
            let size = at.ints(&whole(&[oh, ow]));
            let sizes = at.node("Concat", vec![lead, size], vec![("axis", Attribute::Int(0))]);
            inputs.extend([String::new(), sizes]);
        }
    }
    Ok(at.node("Resize", inputs, attributes))
}

/// Instance normalisation, or that of images whose channels are the groups, and then a scale and a shift.
fn group_norm(op: &GroupNorm, at: &mut Site<'_, '_>) -> Result {
    let (dims, groups) = (at.dims(0).to_vec(), op.groups());
    let (channels, has) = (dims[1], at.inputs.len());
    let epsilon = ("epsilon", Attribute::Float(op.eps() as f32));
    let x = at.input(0);
    if groups == channels && dims.len() > 2 {
        let scale = if has > 1 { at.input(1) } else { at.floats(&[channels], vec![1.0; channels]) };
        let shift = if has > 2 { at.input(2) } else { at.floats(&[channels], vec![0.0; channels]) };
        return Ok(at.node("InstanceNormalization", vec![x, scale, shift], vec![epsilon]));
    }
    // A 0 is the input's own extent: the batch.
    let to = at.ints(&[0, groups as i64, -1]);
    let y = at.node("Reshape", vec![x, to], vec![]);
    let (one, zero) = (at.floats(&[groups], vec![1.0; groups]), at.floats(&[groups], vec![0.0; groups]));
    let y = at.node("InstanceNormalization", vec![y, one, zero], vec![epsilon]);
    let back: Vec<i64> = [0].into_iter().chain(whole(&dims[1..])).collect();
    let back = at.ints(&back);
    let mut y = at.node("Reshape", vec![y, back], vec![]);
    for (op, input) in [("Mul", 1), ("Add", 2)] {
        if has > input {
            let values = at.per_channel(input, dims.len());
            y = at.node(op, vec![y, values], vec![]);
        }
    }
    Ok(y)
}

fn layer_norm(op: &LayerNorm, at: &mut Site<'_, '_>) -> Result {
    let x = at.input(0);
    let ones = vec![1.0; op.shape.iter().product()];
    let mut inputs = vec![x, if at.inputs.len() > 1 { at.input(1) } else { at.floats(&op.shape, ones) }];
    if at.inputs.len() > 2 {
        inputs.push(at.input(2));
    }
    let axis = ("axis", Attribute::Int(-(op.shape.len() as i64)));
    Ok(at.node("LayerNormalization", inputs, vec![axis, ("epsilon", Attribute::Float(op.eps as f32))]))
}

fn pixel_shuffle(op: &PixelShuffle, at: &mut Site<'_, '_>) -> Result {
    let (x, r) = (at.input(0), op.factor);
    if !op.inverse {
        let attributes = vec![("blocksize", Attribute::Int(r as i64)), ("mode", Attribute::Text("CRD"))];
        return Ok(at.node("DepthToSpace", vec![x], attributes));
    }
    // SpaceToDepth has another order of channels.
    let ([c, h, w], [oc, oh, ow]) = ([1, 2, 3].map(|i| at.dims(0)[i]), [1, 2, 3].map(|i| at.output()[i]));
    let apart = at.ints(&whole(&[0, c, h / r, r, w / r, r]));
    let y = at.node("Reshape", vec![x, apart], vec![]);
    let y = at.node("Transpose", vec![y], vec![("perm", Attribute::Ints(vec![0, 1, 3, 5, 2, 4]))]);
    let to = at.ints(&whole(&[0, oc, oh, ow]));
    Ok(at.node("Reshape", vec![y, to], vec![]))
}

/// Padding at the ends that gives as many windows as rounding up does. No such padding reaches a window's extent.
fn exact(shape: &PoolShape) -> Padding {
    let end = |out: usize, stride: usize, kernel: usize, dilation: usize, input: usize, before: usize| {
        ((out.max(1) - 1) * stride + (kernel - 1) * dilation + 1).saturating_sub(input + before)
    };
    let (s, p) = (shape, shape.pad);
    Padding { bottom: end(s.oh, s.sh, s.kh, s.dh, s.ih, p.top), right: end(s.ow, s.sw, s.kw, s.dw, s.iw, p.left), ..p }
}

fn window(shape: &PoolShape, pad: Padding) -> Attributes {
    vec![
        ("kernel_shape", Attribute::Ints(whole(&[shape.kh, shape.kw]))),
        ("strides", Attribute::Ints(whole(&[shape.sh, shape.sw]))),
        ("pads", pads(pad)),
    ]
}

fn max(op: &MaxPool2d, at: &mut Site<'_, '_>) -> Result {
    let shape = op.0.shape("MaxPool2d", at.dims(0)).map_err(|e| e.to_string())?;
    let x = at.input(0);
    let mut attributes = window(&shape, exact(&shape));
    attributes.push(("dilations", Attribute::Ints(whole(&[shape.dh, shape.dw]))));
    Ok(at.node("MaxPool", vec![x], attributes))
}

fn average(op: &AvgPool2d, at: &mut Site<'_, '_>) -> Result {
    let shape = op.shape(at.dims(0)).map_err(|e| e.to_string())?;
    let (x, rounded) = (at.input(0), exact(&shape));
    let grows = rounded.bottom > shape.pad.bottom || rounded.right > shape.pad.right;
    let counted = ("count_include_pad", Attribute::Int(1));
    match op.divisor {
        // What lies beyond the padding counts in no mean.
        Divisor::Inside => Ok(at.node("AveragePool", vec![x], window(&shape, rounded))),
        Divisor::Padded if grows => {
            let mut attributes = window(&shape, shape.pad);
            attributes.extend([counted, ("ceil_mode", Attribute::Int(1))]);
            Ok(at.node("AveragePool", vec![x], attributes))
        }
        Divisor::Padded => {
            let mut attributes = window(&shape, rounded);
            attributes.push(counted);
            Ok(at.node("AveragePool", vec![x], attributes))
        }
        Divisor::Fixed(divisor) => {
            let mut attributes = window(&shape, rounded);
            attributes.push(counted);
            let mean = at.node("AveragePool", vec![x], attributes);
            let factor = at.float((shape.kh * shape.kw) as f32 / divisor as f32);
            Ok(at.node("Mul", vec![mean, factor], vec![]))
        }
    }
}

/// Cells of equal size are windows; others are a product with a matrix on each side.
fn adaptive_average(_: &AdaptiveAvgPool2d, at: &mut Site<'_, '_>) -> Result {
    let ([h, w], [oh, ow]) = ([at.dims(0)[2], at.dims(0)[3]], [at.output()[2], at.output()[3]]);
    let x = at.input(0);
    if [oh, ow] == [1, 1] {
        return Ok(at.node("GlobalAveragePool", vec![x], vec![]));
    }
    if h.is_multiple_of(oh) && w.is_multiple_of(ow) {
        let size = Attribute::Ints(whole(&[h / oh, w / ow]));
        return Ok(at.node("AveragePool", vec![x], vec![("kernel_shape", size.clone()), ("strides", size)]));
    }
    let mean = |o: usize, i: usize, from: usize, to: usize| {
        let cell = o * from / to..((o + 1) * from).div_ceil(to);
        if cell.contains(&i) { 1.0 / cell.len() as f32 } else { 0.0 }
    };
    let rows = (0..oh * h).map(|k| mean(k / h, k % h, h, oh)).collect();
    let columns = (0..w * ow).map(|k| mean(k % ow, k / ow, w, ow)).collect();
    let (rows, columns) = (at.floats(&[oh, h], rows), at.floats(&[w, ow], columns));
    let y = at.node("MatMul", vec![x, columns], vec![]);
    Ok(at.node("MatMul", vec![rows, y], vec![]))
}

/// Cells of equal size are windows; of others, the largest of rows and then of columns, cell by cell.
fn adaptive_max(_: &AdaptiveMaxPool2d, at: &mut Site<'_, '_>) -> Result {
    let ([h, w], [oh, ow]) = ([at.dims(0)[2], at.dims(0)[3]], [at.output()[2], at.output()[3]]);
    let mut x = at.input(0);
    if [oh, ow] == [1, 1] {
        return Ok(at.node("GlobalMaxPool", vec![x], vec![]));
    }
    if h.is_multiple_of(oh) && w.is_multiple_of(ow) {
        let size = Attribute::Ints(whole(&[h / oh, w / ow]));
        return Ok(at.node("MaxPool", vec![x], vec![("kernel_shape", size.clone()), ("strides", size)]));
    }
    for (axis, from, to) in [(2, h, oh), (3, w, ow)] {
        let mut cells = Vec::with_capacity(to);
        for o in 0..to {
            let cell = slice(at, x.clone(), axis, o * from / to, ((o + 1) * from).div_ceil(to));
            cells.push(at.node("ReduceMax", vec![cell], vec![("axes", Attribute::Ints(vec![axis]))]));
        }
        x = at.node("Concat", cells, vec![("axis", Attribute::Int(axis))]);
    }
    Ok(x)
}

fn activation(activation: Activation, x: String, at: &mut Site<'_, '_>) -> Result {
    let alpha = |v: f32| vec![("alpha", Attribute::Float(v))];
    let simple = |at: &mut Site<'_, '_>, op: &'static str| at.node(op, vec![x.clone()], vec![]);
    let times = |at: &mut Site<'_, '_>, a: String, b: String| at.node("Mul", vec![a, b], vec![]);
    Ok(match activation {
        Activation::Identity => x,
        Activation::Relu => simple(at, "Relu"),
        Activation::Sigmoid => simple(at, "Sigmoid"),
        Activation::Tanh => simple(at, "Tanh"),
        Activation::Selu => simple(at, "Selu"),
        Activation::HardSwish => simple(at, "HardSwish"),
        Activation::LeakyRelu { slope } => at.node("LeakyRelu", vec![x], alpha(slope)),
        Activation::Elu { alpha: a } => at.node("Elu", vec![x], alpha(a)),
        Activation::Celu { alpha: a } => at.node("Celu", vec![x], alpha(a)),
        Activation::HardSigmoid => at.node("HardSigmoid", vec![x], alpha(1.0 / 6.0)),
        Activation::Clip { lo, hi } => {
            let (lo, hi) = (at.float(lo), at.float(hi));
            at.node("Clip", vec![x, lo, hi], vec![])
        }
        Activation::Silu => {
            let gate = simple(at, "Sigmoid");
            times(at, x, gate)
        }
        Activation::Mish => {
            let softplus = simple(at, "Softplus");
            let gate = at.node("Tanh", vec![softplus], vec![]);
            times(at, x, gate)
        }
        // x * (1 + erf(x / sqrt 2)) / 2
        Activation::Gelu => {
            let root = at.float(std::f32::consts::SQRT_2);
            let y = at.node("Div", vec![x.clone(), root], vec![]);
            let y = at.node("Erf", vec![y], vec![]);
            gated(at, x, y)
        }
        // x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2
        Activation::GeluTanh => {
            let (three, cubic) = (at.float(3.0), at.float(0.044_715));
            let y = at.node("Pow", vec![x.clone(), three], vec![]);
            let y = times(at, y, cubic);
            let y = at.node("Add", vec![x.clone(), y], vec![]);
            let factor = at.float((2.0 / std::f32::consts::PI).sqrt());
            let y = times(at, y, factor);
            let y = at.node("Tanh", vec![y], vec![]);
            gated(at, x, y)
        }
        Activation::Softplus { beta, threshold } => softplus(beta, threshold, x, at),
        other => return Err(format!("ONNX has no activation {other:?}")),
    })
}

/// `x * (1 + y) / 2`
fn gated(at: &mut Site<'_, '_>, x: String, y: String) -> String {
    let (one, half) = (at.float(1.0), at.float(0.5));
    let y = at.node("Add", vec![y, one], vec![]);
    let y = at.node("Mul", vec![x, y], vec![]);
    at.node("Mul", vec![y, half], vec![])
}

fn softplus(beta: f32, threshold: f32, x: String, at: &mut Site<'_, '_>) -> String {
    let mut scaled = x.clone();
    if beta != 1.0 {
        let beta = at.float(beta);
        scaled = at.node("Mul", vec![x.clone(), beta], vec![]);
    }
    let mut y = at.node("Softplus", vec![scaled.clone()], vec![]);
    if beta != 1.0 {
        let beta = at.float(beta);
        y = at.node("Div", vec![y, beta], vec![]);
    }
    // From 17 on, ln(1 + exp(x)) is x, to the last bit of a float.
    if threshold < 17.0 {
        let threshold = at.float(threshold);
        let linear = at.node("Greater", vec![scaled, threshold], vec![]);
        y = at.node("Where", vec![linear, x, y], vec![]);
    }
    y
}
