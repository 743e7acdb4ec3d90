//! Batch normalisation.

use std::sync::{Arc, OnceLock};

use burn::tensor::Tensor;
use swath::norm::{Backward, Forward, Gradients, Norm, Normalised, Running, Sets, inverse};
use swath::{Error, Options, Result, Scratch};

use crate::operation::{Any, Operation, apply};

/// By given statistics, each `[c]`, as [`burn::tensor::module::batch_norm`]: `x` `[n, c, h, w]`, scale and shift `[c]`. No gradient goes
/// to the statistics.
///
/// # Errors
/// For tensors that are not of `f32` on Flex, and other extents.
pub fn batch_norm(
    x: Tensor<4>,
    [scale, shift]: [Tensor<1>; 2],
    [mean, variance]: [&[f32]; 2],
    eps: f64,
) -> Result<Tensor<4>> {
    let mut inv = vec![0.0; variance.len()];
    inverse(variance, eps as f32, &mut inv);
    let given = Statistics { mean: mean.to_vec(), inv, variance: variance.to_vec() };
    let op = Normalise { norm: plan(&x)?, dims: x.dims(), eps: eps as f32, given: true, statistics: kept(Some(given)) };
    apply(op, [Any::Four(x), Any::One(scale), Any::One(shift)])
}

/// By the batch's statistics, as [`burn::tensor::module::batch_norm_train`]; and these: means, and variances over all `n h w`.
///
/// # Errors
/// As [`batch_norm`], and for a lone value for each channel, which has no variance.
pub fn batch_norm_train(x: Tensor<4>, [scale, shift]: [Tensor<1>; 2], eps: f64) -> Result<(Tensor<4>, [Vec<f32>; 2])> {
    let (norm, statistics) = (plan(&x)?, kept(None));
    if norm.set_len() < 2 {
        let (value, rule) = (norm.set_len().to_string(), "batch normalisation in training needs at least 2".into());
        return Err(Error::Setting { what: "the number of values per channel", value, rule });
    }
    let op = Normalise { norm, dims: x.dims(), eps: eps as f32, given: false, statistics: statistics.clone() };
    let y = apply(op, [Any::Four(x), Any::One(scale), Any::One(shift)])?;
    let (mean, variance) = statistics.get().map(|s| (s.mean.clone(), s.variance.clone())).unwrap_or_default();
    Ok((y, [mean, variance]))
}

fn plan(x: &Tensor<4>) -> Result<Norm> {
    Norm::new(x.dims(), Sets::Batch, &Options::default())
}

fn kept(given: Option<Statistics>) -> Arc<OnceLock<Statistics>> {
    Arc::new(given.map_or_else(OnceLock::new, OnceLock::from))
}

#[derive(Debug)]
struct Statistics {
    mean: Vec<f32>,
    inv: Vec<f32>,
    variance: Vec<f32>,
}

/// Normalisation of an image by scale and shift.
#[derive(Clone, Debug)]
struct Normalise {
    norm: Norm,
    dims: [usize; 4],
    eps: f32,
    /// Whether the statistics are given, else they are the forward pass's.
    given: bool,
    statistics: Arc<OnceLock<Statistics>>,
}

impl Normalise {
    fn statistics(&self) -> Result<&Statistics> {
        self.statistics.get().ok_or_else(|| {
            let rule = "the forward pass leaves them".into();
            Error::Setting { what: "the statistics of batch normalisation", value: "missing".into(), rule }
        })
    }

    fn by_batch(&self, f: &Forward<'_>, y: &mut [f32]) -> Result<()> {
        let sets = self.norm.sets();
        let [mut mean, mut inv, mut moved, mut variance] = [0; 4].map(|_| vec![0.0; sets]);
        // With a momentum of 1 the running variance is the batch's, over one value less.
        let running = Some(Running { mean: &mut moved, var: &mut variance, momentum: 1.0 });
        let out = Normalised { y, mean: &mut mean, inv: &mut inv, running, affine: None };
        Scratch::of_thread(|scratch| self.norm.forward(f, out, scratch))?;
        let n = self.norm.set_len() as f64;
        variance.iter_mut().for_each(|v| *v = (f64::from(*v) * ((n - 1.0) / n)) as f32);
        self.statistics.get_or_init(|| Statistics { mean, inv, variance });
        Ok(())
    }
}

impl Operation<3> for Normalise {
    fn output(&self) -> [usize; 4] {
        self.dims
    }

    fn forward(&self, [x, w, b]: [&[f32]; 3], _: bool) -> Result<Vec<f32>> {
        let mut y = vec![0.0; x.len()];
        let f = Forward { x, w: Some(w), b: Some(b), eps: self.eps, ..Forward::default() };
        if self.given {
            let s = self.statistics()?;
            Scratch::of_thread(|scratch| self.norm.evaluate(&f, [&s.mean, &s.inv], &mut y, scratch))?;
        } else {
            self.by_batch(&f, &mut y)?;
        }
        Ok(y)
    }

    fn backward(&self, [x, w, _]: [&[f32]; 3], dy: &[f32], wanted: [bool; 3]) -> Result<[Option<Vec<f32>>; 3]> {
        let s = self.statistics()?;
        let lens = [x.len(), w.len(), w.len()];
        let [mut dx, mut dw, mut db] = [0, 1, 2].map(|i| wanted[i].then(|| vec![0.0; lens[i]]));
        let b = Backward { x, dy, w: Some(w), mean: &s.mean, inv: &s.inv, frozen: self.given, ..Backward::default() };
        let out = Gradients { dx: dx.as_deref_mut(), dw: dw.as_deref_mut(), db: db.as_deref_mut() };
        Scratch::of_thread(|scratch| self.norm.backward(&b, out, scratch))?;
        Ok([dx, dw, db])
    }
}
