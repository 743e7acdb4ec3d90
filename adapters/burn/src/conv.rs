//! Convolution and transposed convolution, which is a convolution's data gradient: its own data gradient is that convolution, and of its
//! weight gradient input and gradient change places.

use burn::tensor::Tensor;
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use swath::{
    ConvBackwardBias, ConvShape, ConvTransposeShape, Epilogue, Layout, Options, PlanCache, Result, Scratch, layout,
};

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
        let mut y = vec![0.0; self.dims()[1].iter().product()];
        let epilogue = bias.map_or(Epilogue::none(), Epilogue::bias);
        Scratch::of_thread(|scratch| self.run(self.transposed, x, w, epilogue, &mut y, scratch))?;
        Ok(y)
    }

    /// The convolution, or the transposed one.
    fn run(
        &self,
        transposed: bool,
        x: &[f32],
        w: &[f32],
        epilogue: Epilogue<'_>,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (cache, options) = (PlanCache::global(), Options::default());
        if transposed {
            let plan = cache.backward_data(&self.shape, &options)?;
            let packed = plan.pack_once(w, scratch)?;
            let done = plan.transposed(x, &packed, epilogue, y, scratch);
            scratch.give_back(packed);
            done
        } else {
            let plan = cache.forward(&self.shape, &options)?;
            let packed = plan.pack_once(w, scratch)?;
            let done = plan.forward(x, &packed, epilogue, y, scratch);
            scratch.give_back(packed);
            done
        }
    }

    /// Gradients at input, weights and bias.
    fn backward(&self, [x, w]: [&[f32]; 2], dy: &[f32], wanted: [bool; 3]) -> Result<[Option<Vec<f32>>; 3]> {
        let [dims_x, dims_y] = self.dims();
        Scratch::of_thread(|scratch| {
            let (mut dx, mut dw, mut db) = (None, None, None);
            if wanted[0] {
                let dx = dx.insert(vec![0.0; dims_x.iter().product()]);
                self.run(!self.transposed, dy, w, Epilogue::none(), dx, scratch)?;
            }
            if wanted[1] {
                let (x, dy) = if self.transposed { (dy, x) } else { (x, dy) };
                let dw = dw.insert(vec![0.0; self.shape.weights().iter().product()]);
                self.at_weights(x, dy, dw, scratch)?;
            }
            if wanted[2] {
                let db = db.insert(vec![0.0; dims_y[1]]);
                ConvBackwardBias::new(dims_y, &Options::default())?.run(dy, db, scratch)?;
            }
            Ok([dx, dw, db])
        })
    }

    fn at_weights(&self, x: &[f32], dy: &[f32], dw: &mut [f32], scratch: &mut Scratch) -> Result<()> {
        let cache = PlanCache::global();
        if self.shape.groups == 1 && self.shape.ic < 16 {
            // The kernel of first layers reads blocks: 1.5 ms with the copy where 9.8 are taken without, as in the adapter of candle.
            let dims = self.shape.output();
            let mut blocked = vec![0.0; Layout::Blocked.len(dims)];
            layout::reorder(Layout::Nchw, dy, Layout::Blocked, &mut blocked, dims)?;
            let options = Options::default().layouts(Layout::Nchw, Layout::Blocked);
            return cache.backward_weights(&self.shape, &options)?.run(x, &blocked, dw, None, scratch);
        }
        cache.backward_weights(&self.shape, &Options::default())?.run(x, dy, dw, None, scratch)
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
