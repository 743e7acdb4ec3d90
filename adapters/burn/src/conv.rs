//! Convolution and transposed convolution, which is a convolution's data gradient: its own data gradient is that convolution, and of its
//! weight gradient input and gradient change places.

use burn::tensor::Tensor;
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use swath::{ConvBackwardBias, ConvShape, ConvTransposeShape, Epilogue, Options, PlanCache, Result, Scratch, written};

use crate::operation::{Any, Operation, apply};

/// `conv(x, w) + bias`, as [`burn::tensor::module::conv2d`]: `x` `[n, ic, h, w]`, weights `[oc, ic / groups, kh, kw]`, bias `[oc]`.
///
/// # Errors
/// For tensors that are not of `f32` on Flex, and extents that do not fit.
pub fn conv2d(x: Tensor<4>, w: Tensor<4>, bias: Option<Tensor<1>>, options: &ConvOptions<2>) -> Result<Tensor<4>> {
    let [(top, bottom), (left, right)] = options.padding;
    let shape = ConvShape::builder(x.dims(), w.dims())
        .padding([top, left, bottom, right])
        .stride(options.stride)
        .dilation(options.dilation)
        .groups(options.groups)
        .build()?;
    run(Conv { shape, transposed: false }, x, w, bias)
}

/// As [`burn::tensor::module::conv_transpose2d`]: `x` `[n, ic, h, w]`, weights `[ic, oc / groups, kh, kw]`, bias `[oc]`.
///
/// # Errors
/// As [`conv2d`].
pub fn conv_transpose2d(
    x: Tensor<4>,
    w: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: &ConvTransposeOptions<2>,
) -> Result<Tensor<4>> {
    let shape = ConvTransposeShape::builder(x.dims(), w.dims())
        .padding(options.padding)
        .output_padding(options.padding_out)
        .stride(options.stride)
        .dilation(options.dilation)
        .groups(options.groups)
        .build()?;
    run(Conv { shape: *shape.convolution(), transposed: true }, x, w, bias)
}

fn run(conv: Conv, x: Tensor<4>, w: Tensor<4>, bias: Option<Tensor<1>>) -> Result<Tensor<4>> {
    match bias {
        Some(bias) => apply(conv, [Any::Four(x), Any::Four(w), Any::One(bias)]),
        None => apply(conv, [Any::Four(x), Any::Four(w)]),
    }
}

/// The convolution of a shape, or the transposed one, whose input is `shape`'s output.
#[derive(Clone, Copy, Debug)]
struct Conv {
    shape: ConvShape,
    transposed: bool,
}

impl Conv {
    /// Extents of input and output.
    fn dims(&self) -> [[usize; 4]; 2] {
        let (x, y) = (self.shape.input(), self.shape.output());
        if self.transposed { [y, x] } else { [x, y] }
    }

    fn forward(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Result<Vec<f32>> {
        let epilogue = bias.map_or(Epilogue::none(), Epilogue::bias);
        Scratch::of_thread(|scratch| self.run(self.transposed, x, w, epilogue, scratch))
    }

    /// The convolution, or the transposed one.
    fn run(
        &self,
        transposed: bool,
        x: &[f32],
        w: &[f32],
        epilogue: Epilogue<'_>,
        scratch: &mut Scratch,
    ) -> Result<Vec<f32>> {
        let (cache, options) = (PlanCache::global(), Options::default());
        let [input, output] = [self.shape.input(), self.shape.output()].map(|dims| dims.iter().product());
        if transposed {
            let plan = cache.backward_data(&self.shape, &options)?;
            let packed = plan.pack_once(w, scratch)?;
            let done = written(input, |y| plan.transposed_uninit(x, &packed, epilogue, y, scratch));
            scratch.give_back(packed);
            done
        } else {
            let plan = cache.forward(&self.shape, &options)?;
            let packed = plan.pack_once(w, scratch)?;
            let done = written(output, |y| plan.forward_uninit(x, &packed, epilogue, y, scratch));
            scratch.give_back(packed);
            done
        }
    }

    /// Gradients at input, weights and bias.
    fn backward(&self, [x, w]: [&[f32]; 2], dy: &[f32], wanted: [bool; 3]) -> Result<[Option<Vec<f32>>; 3]> {
        let [_, dims_y] = self.dims();
        Scratch::of_thread(|scratch| {
            let (mut dx, mut dw, mut db) = (None, None, None);
            if wanted[0] {
                dx = Some(self.run(!self.transposed, dy, w, Epilogue::none(), scratch)?);
            }
            if wanted[1] {
                let (x, dy) = if self.transposed { (dy, x) } else { (x, dy) };
                let plan = PlanCache::global().backward_weights(&self.shape, &Options::default())?;
                let len = self.shape.weights().iter().product();
                dw = Some(written(len, |dw| plan.run_uninit(x, dy, dw, None, scratch))?);
            }
            if wanted[2] {
                let db = db.insert(vec![0.0; dims_y[1]]);
                ConvBackwardBias::new(dims_y, &Options::default())?.run(dy, db, scratch)?;
            }
            Ok([dx, dw, db])
        })
    }
}

impl Operation<2> for Conv {
    fn output(&self) -> [usize; 4] {
        self.dims()[1]
    }

    fn forward(&self, [x, w]: [&[f32]; 2], _: bool) -> Result<Vec<f32>> {
        Conv::forward(self, x, w, None)
    }

    fn backward(&self, inputs: [&[f32]; 2], dy: &[f32], [x, w]: [bool; 2]) -> Result<[Option<Vec<f32>>; 2]> {
        let [dx, dw, _] = Conv::backward(self, inputs, dy, [x, w, false])?;
        Ok([dx, dw])
    }
}

impl Operation<3> for Conv {
    fn output(&self) -> [usize; 4] {
        self.dims()[1]
    }

    fn forward(&self, [x, w, b]: [&[f32]; 3], _: bool) -> Result<Vec<f32>> {
        Conv::forward(self, x, w, Some(b))
    }

    fn backward(&self, [x, w, _]: [&[f32]; 3], dy: &[f32], wanted: [bool; 3]) -> Result<[Option<Vec<f32>>; 3]> {
        Conv::backward(self, [x, w], dy, wanted)
    }
}
