//! Batch normalisation.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp3, DType, Device, Error, Layout, ModuleT, Result, Shape, Tensor, Var};
use candle_nn::{BatchNormConfig, VarBuilder, init::Init};
use swath::Options;
use swath::norm::{Backward, Forward, Gradients, Norm, Normalised, Running, Sets, inverse};

use crate::memory::{Held, floats, with_scratch};

/// In place of [`candle_nn::BatchNorm`], for tensors `[n, c, ..]`, in training and in evaluation.
///
/// ```
/// use candle_core::{DType, Device, ModuleT, Tensor};
/// use candle_nn::{BatchNormConfig, VarBuilder, VarMap};
/// # fn main() -> candle_core::Result<()> {
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let norm = swath_candle::batch_norm(3, BatchNormConfig::default(), vb.pp("norm"))?;
/// let x = Tensor::arange(0f32, 24.0, &Device::Cpu)?.reshape((2, 3, 2, 2))?;
/// let mean = norm.forward_t(&x, true)?.mean_all()?.to_scalar::<f32>()?;
/// assert!(mean.abs() < 1e-6);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BatchNorm {
    running: [Var; 2],
    /// Scale and shift; ones and zeros where there are none.
    weight: Tensor,
    bias: Tensor,
    affine: bool,
    eps: f64,
    momentum: f64,
}

/// The layer of these options, of variables under candle's names, as [`candle_nn::batch_norm`].
///
/// # Errors
/// For a negative `eps`, a `momentum` outside of 0 to 1, and `remove_mean: false`, which only candle has.
pub fn batch_norm(channels: usize, config: impl Into<BatchNormConfig>, vb: VarBuilder) -> Result<BatchNorm> {
    let config = config.into();
    if !config.remove_mean {
        candle_core::bail!("swath's batch normalisation subtracts the mean, remove_mean is false")
    }
    let get = |name: &str, value: f64| vb.get_with_hints(channels, name, Init::Const(value));
    let running = [get("running_mean", 0.0)?, get("running_var", 1.0)?];
    let affine = if config.affine { Some((get("weight", 1.0)?, get("bias", 0.0)?)) } else { None };
    BatchNorm::new(running, affine, config.eps, config.momentum)
}

impl BatchNorm {
    /// Of running mean and variance, weight and bias if there are any, each `[c]`, and candle's `eps` and `momentum`. Running statistics
    /// that are variables are updated by training; of others a copy is.
    ///
    /// # Errors
    /// For other extents, a negative `eps`, and a `momentum` outside of 0 to 1.
    pub fn new(running: [Tensor; 2], affine: Option<(Tensor, Tensor)>, eps: f64, momentum: f64) -> Result<Self> {
        let [mean, var] = running;
        let channels = mean.dims1()?;
        let is_affine = affine.is_some();
        let (weight, bias) = match affine {
            Some(pair) => pair,
            None => {
                (Tensor::ones(channels, DType::F32, &Device::Cpu)?, Tensor::zeros(channels, DType::F32, &Device::Cpu)?)
            }
        };
        for (what, tensor) in [("running variance", &var), ("weight", &weight), ("bias", &bias)] {
            if tensor.dims() != [channels] {
                candle_core::bail!("the {what} is {:?}, the running mean {:?}", tensor.dims(), mean.dims())
            }
        }
        if eps < 0.0 || !(0.0..=1.0).contains(&momentum) {
            candle_core::bail!("eps is at least 0 and momentum 0 to 1; they are {eps} and {momentum}")
        }
        let running = [Var::from_tensor(&mean)?, Var::from_tensor(&var)?];
        Ok(Self { running, weight, bias, affine: is_affine, eps, momentum })
    }

    /// The running mean.
    pub fn running_mean(&self) -> &Tensor {
        self.running[0].as_tensor()
    }

    /// The running variance.
    pub fn running_var(&self) -> &Tensor {
        self.running[1].as_tensor()
    }

    /// Weight and bias.
    pub fn weight_and_bias(&self) -> Option<(&Tensor, &Tensor)> {
        self.affine.then_some((&self.weight, &self.bias))
    }

    /// What is added to the variance.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// How far a step moves the running statistics.
    pub fn momentum(&self) -> f64 {
        self.momentum
    }

    /// Normalises by the batch's statistics, and moves the running ones.
    ///
    /// # Errors
    /// For tensors that are not of `f32` on the CPU, other channels, and a lone value for each channel, which has no variance.
    pub fn forward_train(&self, x: &Tensor) -> Result<Tensor> {
        let norm = self.plan(x)?;
        if norm.set_len() < 2 {
            candle_core::bail!(
                "batch normalisation in training needs 2 values for each channel, it has {}",
                norm.set_len()
            )
        }
        let statistics = Arc::new(OnceLock::new());
        let running = [self.running_mean(), self.running_var()].map(Tensor::to_vec1::<f32>);
        let [mean, var] = running;
        let training = Some((mean?, var?, self.momentum as f32));
        let op = Normalise { norm, eps: self.eps as f32, training, statistics: statistics.clone() };
        let y = x.apply_op3(&self.weight, &self.bias, op)?;
        if let Some(Statistics { running: Some(running), .. }) = statistics.get() {
            for (var, values) in self.running.iter().zip(running) {
                var.set(&Tensor::new(values.as_slice(), &Device::Cpu)?)?;
            }
        }
        Ok(y)
    }

    fn forward_eval(&self, x: &Tensor) -> Result<Tensor> {
        let norm = self.plan(x)?;
        let (mean, var) = (self.running_mean().to_vec1()?, self.running_var().to_vec1()?);
        let mut inv = vec![0.0; var.len()];
        inverse(&var, self.eps as f32, &mut inv);
        let statistics = Arc::new(OnceLock::from(Statistics { mean, inv, running: None }));
        x.apply_op3(&self.weight, &self.bias, Normalise { norm, eps: self.eps as f32, training: None, statistics })
    }

    fn plan(&self, x: &Tensor) -> Result<Norm> {
        let &[n, c, ref rest @ ..] = x.dims() else {
            candle_core::bail!("batch normalisation takes [n, c, ..], it gets {:?}", x.dims())
        };
        if c != self.weight.elem_count() {
            candle_core::bail!("the input has {c} channels, batch normalisation {}", self.weight.elem_count())
        }
        Norm::new([n, c, rest.iter().product(), 1], Sets::Batch, &Options::default()).map_err(Error::wrap)
    }
}

impl ModuleT for BatchNorm {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        if train { self.forward_train(x) } else { self.forward_eval(x) }
    }
}

struct Statistics {
    mean: Vec<f32>,
    inv: Vec<f32>,
    /// The next running ones.
    running: Option<[Vec<f32>; 2]>,
}

/// Normalisation of input, scale and shift.
struct Normalise {
    norm: Norm,
    eps: f32,
    /// In training: running mean and variance, and the momentum.
    training: Option<(Vec<f32>, Vec<f32>, f32)>,
    /// Given in evaluation, else from the forward pass.
    statistics: Arc<OnceLock<Statistics>>,
}

impl Normalise {
    fn forward(&self, f: &Forward<'_>, y: &mut [f32]) -> Result<()> {
        let Some((running_mean, running_var, momentum)) = &self.training else {
            let Some(s) = self.statistics.get() else { candle_core::bail!("evaluation has statistics") };
            return with_scratch(|scratch| self.norm.evaluate(f, [&s.mean, &s.inv], y, scratch));
        };
        let sets = self.norm.sets();
        let (mut mean, mut inv) = (vec![0.0; sets], vec![0.0; sets]);
        let mut running = [running_mean.clone(), running_var.clone()];
        let [m, v] = &mut running;
        let moved = Running { mean: m, var: v, momentum: *momentum };
        let out = Normalised { y, mean: &mut mean, inv: &mut inv, running: Some(moved), affine: None };
        with_scratch(|scratch| self.norm.forward(f, out, scratch))?;
        self.statistics.get_or_init(|| Statistics { mean, inv, running: Some(running) });
        Ok(())
    }
}

impl CustomOp3 for Normalise {
    fn name(&self) -> &'static str {
        "swath-batch-norm"
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
        let (x, w, b) = (floats(x, xl)?, floats(w, wl)?, floats(b, bl)?);
        let mut y = vec![0.0; x.len()];
        let f = Forward { x: &x, w: Some(&w), b: Some(&b), eps: self.eps, ..Forward::default() };
        self.forward(&f, &mut y)?;
        Ok((CpuStorage::F32(y), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(s) = self.statistics.get() else { candle_core::bail!("the forward pass has not run") };
        let room = |t: &Tensor| t.track_op().then(|| vec![0.0; t.elem_count()]);
        let (mut dx, mut dw, mut db) = (room(x), room(w), room(b));
        let held = [Held::of(x), Held::of(w), Held::of(dy)];
        let (floats_x, scale, floats_dy) = (held[0].floats()?, held[1].floats()?, held[2].floats()?);
        let backward = Backward {
            x: &floats_x,
            dy: &floats_dy,
            w: Some(&scale),
            mean: &s.mean,
            inv: &s.inv,
            frozen: self.training.is_none(),
            ..Backward::default()
        };
        let out = Gradients { dx: dx.as_deref_mut(), dw: dw.as_deref_mut(), db: db.as_deref_mut() };
        with_scratch(|scratch| self.norm.backward(&backward, out, scratch))?;
        let made =
            |d: Option<Vec<f32>>, like: &Tensor| d.map(|d| Tensor::from_vec(d, like.shape(), &Device::Cpu)).transpose();
        Ok((made(dx, x)?, made(dw, w)?, made(db, b)?))
    }
}
