//! Convolution and transposed convolution, which is a convolution's data gradient: its own data gradient is that convolution, and of its
//! weight gradient input and gradient change places.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Error, Layout, Result, Shape, Tensor};
use candle_nn::{Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig};
use swath::{ConvBackwardBias, ConvShape, ConvTransposeShape, Epilogue, Options, PlanCache, Scratch, written};

use crate::memory::{Held, floats, images, tensor, with_scratch};
use crate::packs::{Kept, with_packed};

/// `conv(x, w) + bias`, as [`Tensor::conv2d`]: `x` `[n, ic, h, w]`, weights `[oc, ic / groups, kh, kw]`, bias `[oc]`.
///
/// The weights are packed by every call; [`Conv2d`](crate::Conv2d) packs those once that are not trained.
///
/// # Errors
/// For tensors that are not of `f32` on the CPU, and extents that do not fit.
pub fn conv2d(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, config: &Conv2dConfig) -> Result<Tensor> {
    config.apply(x, w, bias, None)
}

/// `conv(x, w) + bias`, as [`Tensor::conv1d`]: `x` `[n, ic, l]`, weights `[oc, ic / groups, k]`, bias `[oc]`.
///
/// # Errors
/// As [`conv2d`].
pub fn conv1d(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, config: &Conv1dConfig) -> Result<Tensor> {
    config.apply(x, w, bias, None)
}

/// The transposed convolution `x * w + bias`, as [`Tensor::conv_transpose2d`]: `x` `[n, ic, h, w]`, weights `[ic, oc, kh, kw]`, bias
/// `[oc]`.
///
/// # Errors
/// As [`conv2d`].
pub fn conv_transpose2d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    config: &ConvTranspose2dConfig,
) -> Result<Tensor> {
    config.apply(x, w, bias, None)
}

/// The transposed convolution `x * w + bias`, as [`Tensor::conv_transpose1d`]: `x` `[n, ic, l]`, weights `[ic, oc / groups, k]`, bias
/// `[oc]`.
///
/// # Errors
/// As [`conv2d`].
pub fn conv_transpose1d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    config: &ConvTranspose1dConfig,
) -> Result<Tensor> {
    config.apply(x, w, bias, None)
}

/// `x wT + bias`, as [`candle_nn::Linear`]: `x` `[.., in]`, weights `[out, in]`, bias `[out]`.
///
/// # Errors
/// As [`conv2d`].
pub fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    Product.apply(x, w, bias, None)
}

/// What candle's options of a convolution ask for.
pub(crate) trait Apply {
    fn apply(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, kept: Option<Arc<Kept>>) -> Result<Tensor>;
}

impl Apply for Conv2dConfig {
    fn apply(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, kept: Option<Arc<Kept>>) -> Result<Tensor> {
        let shape = ConvShape::builder(x.dims4()?.into(), w.dims4()?.into())
            .padding(self.padding)
            .stride(self.stride)
            .dilation(self.dilation)
            .groups(self.groups)
            .build();
        Conv { shape: shape.map_err(Error::wrap)?, of: Of::Images, transposed: false, kept }.apply(x, w, bias)
    }
}

impl Apply for ConvTranspose2dConfig {
    fn apply(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, kept: Option<Arc<Kept>>) -> Result<Tensor> {
        let shape = ConvTransposeShape::builder(x.dims4()?.into(), w.dims4()?.into())
            .padding(self.padding)
            .output_padding(self.output_padding)
            .stride(self.stride)
            .dilation(self.dilation)
            .build();
        let shape = *shape.map_err(Error::wrap)?.convolution();
        Conv { shape, of: Of::Images, transposed: true, kept }.apply(x, w, bias)
    }
}

// A sequence lies as a picture of height 1 does.

impl Apply for Conv1dConfig {
    fn apply(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, kept: Option<Arc<Kept>>) -> Result<Tensor> {
        let (n, ic, l) = x.dims3()?;
        let (oc, icg, k) = w.dims3()?;
        let shape = ConvShape::builder([n, ic, 1, l], [oc, icg, 1, k])
            .padding([0, self.padding])
            .stride([1, self.stride])
            .dilation([1, self.dilation])
            .groups(self.groups)
            .build();
        let conv = Conv { shape: shape.map_err(Error::wrap)?, of: Of::Images, transposed: false, kept };
        conv.apply(&x.unsqueeze(2)?, &w.unsqueeze(2)?, bias)?.squeeze(2)
    }
}

impl Apply for ConvTranspose1dConfig {
    fn apply(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, kept: Option<Arc<Kept>>) -> Result<Tensor> {
        let (n, ic, l) = x.dims3()?;
        let (wic, ocg, k) = w.dims3()?;
        let shape = ConvTransposeShape::builder([n, ic, 1, l], [wic, ocg, 1, k])
            .padding([0, self.padding])
            .output_padding([0, self.output_padding])
            .stride([1, self.stride])
            .dilation([1, self.dilation])
            .groups(self.groups)
            .build();
        let shape = *shape.map_err(Error::wrap)?.convolution();
        let conv = Conv { shape, of: Of::Images, transposed: true, kept };
        conv.apply(&x.unsqueeze(2)?, &w.unsqueeze(2)?, bias)?.squeeze(2)
    }
}

/// The options of a product with a matrix, of which there are none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Product;

// A matrix whose rows are the pixels of one image, channels last.
impl Apply for Product {
    fn apply(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, kept: Option<Arc<Kept>>) -> Result<Tensor> {
        let Some(ic) = x.dims().last() else { candle_core::bail!("linear takes [.., in], it gets a scalar") };
        let (oc, icg) = w.dims2()?;
        let rows = x.elem_count().checked_div(*ic).unwrap_or(0);
        let shape = ConvShape::builder([1, *ic, 1, rows], [oc, icg, 1, 1]).build();
        Conv { shape: shape.map_err(Error::wrap)?, of: Of::Rows, transposed: false, kept }.apply(x, w, bias)
    }
}

/// What the tensors of a convolution are.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    /// `[n, c, h, w]`
    Images,
    /// `[.., c]`: pixels, channels last.
    Rows,
}

/// The convolution of a shape, or the transposed one, whose input is `shape`'s output.
struct Conv {
    shape: ConvShape,
    of: Of,
    transposed: bool,
    kept: Option<Arc<Kept>>,
}

impl Conv {
    fn apply(self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        match bias {
            Some(bias) => x.apply_op3(w, bias, self),
            None => x.apply_op2(w, self),
        }
    }

    /// Extents of input and output.
    fn dims(&self) -> [[usize; 4]; 2] {
        let (x, y) = (self.shape.input(), self.shape.output());
        if self.transposed { [y, x] } else { [x, y] }
    }

    fn forward(&self, x: (&CpuStorage, &Layout), w: &[f32], bias: Option<&[f32]>) -> Result<(CpuStorage, Shape)> {
        let mut dims = self.dims()[1].to_vec();
        let (x, layouts) = match self.of {
            Of::Rows => {
                dims = [&x.1.dims()[..x.1.dims().len() - 1], &[self.shape.oc]].concat();
                (floats(x.0, x.1)?, [swath::Layout::Nhwc; 2])
            }
            Of::Images => {
                let (x, layout) = images(x.0, x.1)?;
                (x, [layout, swath::Layout::Nchw])
            }
        };
        let epilogue = bias.map_or(Epilogue::none(), Epilogue::bias);
        let y = with_scratch(|scratch| self.run(self.transposed, &x, w, epilogue, layouts, scratch))?;
        Ok((CpuStorage::F32(y), dims.into()))
    }

    /// A tensor as plans read it.
    fn view<'a>(&self, held: &'a Held<'_>) -> Result<(Cow<'a, [f32]>, swath::Layout)> {
        match self.of {
            Of::Images => held.images(),
            Of::Rows => Ok((held.floats()?, swath::Layout::Nhwc)),
        }
    }

    /// The convolution, or the transposed one, of `x` in the first of the layouts, in the second.
    fn run(
        &self,
        transposed: bool,
        x: &[f32],
        w: &[f32],
        epilogue: Epilogue<'_>,
        [from, to]: [swath::Layout; 2],
        scratch: &mut Scratch,
    ) -> swath::Result<Vec<f32>> {
        let (cache, kept) = (PlanCache::global(), self.kept.as_deref());
        let [input, output] = [self.shape.input(), self.shape.output()].map(|dims| dims.iter().product());
        if transposed {
            // Options are those of the convolution, of which `to` is the input.
            let plan = cache.backward_data(&self.shape, &Options::default().layouts(to, from))?;
            with_packed(&*plan, w, kept, scratch, |w, scratch| {
                written(input, |y| plan.transposed_uninit(x, w, epilogue, y, scratch))
            })
        } else {
            let plan = cache.forward(&self.shape, &Options::default().layouts(from, to))?;
            with_packed(&*plan, w, kept, scratch, |w, scratch| {
                written(output, |y| plan.forward_uninit(x, w, epilogue, y, scratch))
            })
        }
    }

    /// Gradients at input, weights and bias, of those that are wanted.
    fn backward(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, dy: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let at_bias = bias.is_some_and(Tensor::track_op);
        let (held_x, held_w, held_dy) = (Held::of(x), Held::of(w), Held::of(dy));
        let (dy, to) = self.view(&held_dy)?;
        let (mut dx, mut dw, mut db) = (None, None, at_bias.then(|| vec![0.0; self.dims()[1][1]]));
        let mut from = if self.of == Of::Rows { swath::Layout::Nhwc } else { swath::Layout::Nchw };
        if w.track_op() {
            let (x, layout) = self.view(&held_x)?;
            from = layout;
            let beside = db.as_deref_mut().filter(|_| !self.transposed);
            dw = Some(self.at_weights([&x, &dy], [from, to], beside)?);
        }
        if let (Some(db), true) = (&mut db, self.transposed || dw.is_none()) {
            self.at_bias(&dy, to, db)?;
        }
        if x.track_op() {
            let w = held_w.floats()?;
            let run =
                |scratch: &mut Scratch| self.run(!self.transposed, &dy, &w, Epilogue::none(), [to, from], scratch);
            let d = with_scratch(run)?;
            dx = Some(match self.of {
                Of::Images => tensor(d, self.dims()[0], from)?,
                Of::Rows => Tensor::from_vec(d, x.shape(), x.device())?,
            });
        }
        let dw = dw.map(|d| Tensor::from_vec(d, w.shape(), w.device()));
        let db = db.map(|d| Tensor::new(d, x.device()));
        Ok([dx, dw.transpose()?, db.transpose()?])
    }

    /// The gradient at the weights, and at the bias of what is not transposed.
    fn at_weights(
        &self,
        [x, dy]: [&[f32]; 2],
        [from, to]: [swath::Layout; 2],
        db: Option<&mut [f32]>,
    ) -> Result<Vec<f32>> {
        // Of the convolution: what goes in, and the gradient at what comes out.
        let (x, dy, [from, to]) = if self.transposed { (dy, x, [to, from]) } else { (x, dy, [from, to]) };
        let plan = PlanCache::global().backward_weights(&self.shape, &Options::default().layouts(from, to));
        let len = self.shape.weights().iter().product();
        with_scratch(|scratch| {
            let plan = plan?;
            written(len, |dw| plan.run_uninit(x, dy, dw, db, scratch))
        })
    }

    fn at_bias(&self, dy: &[f32], layout: swath::Layout, db: &mut [f32]) -> Result<()> {
        let options = Options::default().layouts(layout, layout);
        with_scratch(|scratch| ConvBackwardBias::new(self.dims()[1], &options)?.run(dy, db, scratch))
    }

    fn title(&self) -> &'static str {
        if self.transposed { "swath-conv-transpose" } else { "swath-conv" }
    }
}

impl CustomOp2 for Conv {
    fn name(&self) -> &'static str {
        self.title()
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward((x, xl), &floats(w, wl)?, None)
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, dw, _] = self.backward(x, w, None, dy)?;
        Ok((dx, dw))
    }
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        self.title()
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward((x, xl), &floats(w, wl)?, Some(&floats(b, bl)?))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        self.backward(x, w, Some(bias), dy).map(Into::into)
    }
}
