//! Convolution.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Error, Layout, Module, Result, Shape, Tensor};
use candle_nn::Conv2dConfig;
use swath::{ConvBackwardBias, ConvPlan, ConvShape, Epilogue, Options, PackedWeights, PlanCache, WeightsKey};

use crate::memory::{floats, with_scratch};

/// `conv(x, w) + bias`, as [`Tensor::conv2d`]: `x` `[n, ic, h, w]`, weights `[oc, ic / groups, kh, kw]`, bias `[oc]`.
///
/// The weights are packed by every call; [`Conv2d`] packs those once that do not change.
pub fn conv2d(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, config: &Conv2dConfig) -> Result<Tensor> {
    call(x, w, bias, config, None)
}

fn call(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    config: &Conv2dConfig,
    packs: Option<Arc<Packs>>,
) -> Result<Tensor> {
    let (n, ic, ih, iw) = x.dims4()?;
    let (oc, icg, kh, kw) = w.dims4()?;
    let shape = ConvShape::builder([n, ic, ih, iw], [oc, icg, kh, kw])
        .padding(config.padding)
        .stride(config.stride)
        .dilation(config.dilation)
        .groups(config.groups)
        .build()
        .map_err(Error::wrap)?;
    let op = Conv { shape, packs };
    match bias {
        Some(bias) => x.apply_op3(w, bias, op),
        None => x.apply_op2(w, op),
    }
}

/// Packed weights of a layer, by what they were packed for.
type Packs = Mutex<HashMap<WeightsKey, Arc<PackedWeights>>>;

/// The convolution of a shape.
pub(crate) struct Conv {
    pub(crate) shape: ConvShape,
    pub(crate) packs: Option<Arc<Packs>>,
}

impl Conv {
    fn packed(&self, plan: &ConvPlan, w: &[f32]) -> swath::Result<Arc<PackedWeights>> {
        let Some(packs) = &self.packs else { return Ok(Arc::new(plan.pack(w)?)) };
        let mut packs = packs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(packed) = packs.get(&plan.weights_key()) {
            return Ok(packed.clone());
        }
        let packed = Arc::new(plan.pack(w)?);
        packs.insert(plan.weights_key(), packed.clone());
        Ok(packed)
    }

    fn forward(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Result<(CpuStorage, Shape)> {
        let mut y = vec![0.0; self.shape.output().iter().product()];
        with_scratch(|scratch| {
            let plan = PlanCache::global().forward(&self.shape, &Options::default())?;
            let epilogue = bias.map_or(Epilogue::none(), Epilogue::bias);
            plan.forward(x, &*self.packed(&plan, w)?, epilogue, &mut y, scratch)
        })?;
        Ok((CpuStorage::F32(y), self.shape.output().to_vec().into()))
    }

    /// Gradients at input and weights, of those that something depends on.
    fn gradients(&self, x: &Tensor, w: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; 2]> {
        let dx = x.track_op().then(|| dy.apply_op2_no_bwd(w, &AtInput(self.shape))).transpose()?;
        let dw = w.track_op().then(|| x.apply_op2_no_bwd(dy, &AtWeights(self.shape))).transpose()?;
        Ok([dx, dw])
    }
}

impl CustomOp2 for Conv {
    fn name(&self) -> &'static str {
        "swath-conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(&floats(x, xl)?, &floats(w, wl)?, None)
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients(x, w, dy).map(Into::into)
    }
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "swath-conv2d"
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
        self.forward(&floats(x, xl)?, &floats(w, wl)?, Some(&floats(b, bl)?))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, dw] = self.gradients(x, w, dy)?;
        let db = bias.track_op().then(|| dy.apply_op1_no_bwd(&AtBias(self.shape.output()))).transpose()?;
        Ok((dx, dw, db))
    }
}

/// The gradient at the input, of `dy` and the weights; also transposed convolution.
pub(crate) struct AtInput(pub(crate) ConvShape);

impl CustomOp2 for AtInput {
    fn name(&self) -> &'static str {
        "swath-conv2d-input-gradient"
    }

    fn cpu_fwd(&self, dy: &CpuStorage, dyl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut dx = vec![0.0; self.0.input().iter().product()];
        let (dy, w) = (floats(dy, dyl)?, floats(w, wl)?);
        with_scratch(|scratch| {
            let plan = PlanCache::global().backward_data(&self.0, &Options::default())?;
            plan.run(&dy, &plan.pack(&w)?, &mut dx, scratch)
        })?;
        Ok((CpuStorage::F32(dx), self.0.input().to_vec().into()))
    }
}

/// The gradient at the weights, of `x` and `dy`.
pub(crate) struct AtWeights(pub(crate) ConvShape);

impl CustomOp2 for AtWeights {
    fn name(&self) -> &'static str {
        "swath-conv2d-weight-gradient"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, dy: &CpuStorage, dyl: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut dw = vec![0.0; self.0.weights().iter().product()];
        let (x, dy) = (floats(x, xl)?, floats(dy, dyl)?);
        with_scratch(|scratch| {
            let plan = PlanCache::global().backward_weights(&self.0, &Options::default())?;
            plan.run(&x, &dy, &mut dw, None, scratch)
        })?;
        Ok((CpuStorage::F32(dw), self.0.weights().to_vec().into()))
    }
}

/// The gradient at the bias, of `dy` of these extents.
pub(crate) struct AtBias(pub(crate) [usize; 4]);

impl CustomOp1 for AtBias {
    fn name(&self) -> &'static str {
        "swath-conv2d-bias-gradient"
    }

    fn cpu_fwd(&self, dy: &CpuStorage, dyl: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut db = vec![0.0; self.0[1]];
        let dy = floats(dy, dyl)?;
        with_scratch(|scratch| ConvBackwardBias::new(self.0, &Options::default())?.run(&dy, &mut db, scratch))?;
        Ok((CpuStorage::F32(db), self.0[1].into()))
    }
}

/// A layer in place of [`candle_nn::Conv2d`]. Weights that are no variable, as those of a file, are packed once for all batches; those
/// that are trained are packed by every call.
///
/// ```
/// # use candle_core::{DType, Device};
/// # use candle_nn::{VarBuilder, VarMap};
/// # fn main() -> candle_core::Result<()> {
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let conv: swath_candle::Conv2d = candle_nn::conv2d(3, 16, 3, Default::default(), vb.pp("conv"))?.into();
/// assert_eq!(conv.weight().dims(), [16, 3, 3, 3]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: Conv2dConfig,
    packs: Option<Arc<Packs>>,
}

impl Conv2d {
    /// From weights `[oc, ic / groups, kh, kw]` and a bias `[oc]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>, config: Conv2dConfig) -> Self {
        // A variable is overwritten where it lies, and nothing says when.
        let packs = (!weight.track_op()).then(Default::default);
        Self { weight, bias, config, packs }
    }

    /// The weights.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The options.
    pub fn config(&self) -> &Conv2dConfig {
        &self.config
    }
}

impl From<candle_nn::Conv2d> for Conv2d {
    fn from(conv: candle_nn::Conv2d) -> Self {
        Self::new(conv.weight().clone(), conv.bias().cloned(), *conv.config())
    }
}

impl Module for Conv2d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        call(x, &self.weight, self.bias.as_ref(), &self.config, self.packs.clone())
    }
}
