//! AdamW in one pass over memory.

use std::cell::RefCell;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var};
use candle_nn::{Optimizer, ParamsAdamW};
use rayon::prelude::*;

use crate::memory::floats;

/// Elements that a thread takes at a time.
const PIECE: usize = 1 << 14;

/// In place of [`candle_nn::AdamW`], with its formula: where candle makes fifteen tensors of a variable's size, this is one pass over the
/// variable, its gradient and its two averages. Variables are of `f32` on the CPU.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use candle_nn::{Optimizer, ParamsAdamW};
/// # fn main() -> candle_core::Result<()> {
/// let w = Var::new(&[1f32, -2.0], &Device::Cpu)?;
/// let mut optimizer = swath_candle::AdamW::new(vec![w.clone()], ParamsAdamW { lr: 0.1, ..Default::default() })?;
/// optimizer.backward_step(&w.sqr()?.sum_all()?)?;
/// assert_eq!(w.to_vec1::<f32>()?, [0.899, -1.898]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AdamW {
    variables: Vec<Averages>,
    steps: i32,
    params: ParamsAdamW,
}

/// A variable, and the averages of its gradient and of the gradient's square.
#[derive(Debug)]
struct Averages {
    variable: Var,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl AdamW {
    /// The optimizer of candle's default options, with a learning rate of 0.001.
    ///
    /// # Errors
    /// As [`AdamW::new`].
    pub fn new_lr(variables: Vec<Var>, lr: f64) -> Result<Self> {
        Self::new(variables, ParamsAdamW { lr, ..Default::default() })
    }

    /// The options.
    pub fn params(&self) -> &ParamsAdamW {
        &self.params
    }

    /// Sets the options, from the next step on.
    pub fn set_params(&mut self, params: ParamsAdamW) {
        self.params = params;
    }
}

impl Optimizer for AdamW {
    type Config = ParamsAdamW;

    /// # Errors
    /// For a variable of floats that is not of `f32`, or not on the CPU. Others are left alone, as candle leaves them.
    fn new(variables: Vec<Var>, params: ParamsAdamW) -> Result<Self> {
        let averages = |variable: Var| {
            if variable.dtype() != candle_core::DType::F32 || !variable.device().is_cpu() {
                candle_core::bail!(
                    "swath takes variables of f32 on the CPU, this one is of {:?} on {:?}",
                    variable.dtype(),
                    variable.device().location()
                );
            }
            let zeros = vec![0.0; variable.elem_count()];
            Ok(Averages { variable, first: zeros.clone(), second: zeros })
        };
        let floats = variables.into_iter().filter(|variable| variable.dtype().is_float());
        let variables = floats.map(averages).collect::<Result<_>>()?;
        Ok(Self { variables, steps: 0, params })
    }

    fn learning_rate(&self) -> f64 {
        self.params.lr
    }

    fn set_learning_rate(&mut self, lr: f64) {
        self.params.lr = lr;
    }

    /// # Errors
    /// For a gradient that is not of `f32` on the CPU, or not of its variable's shape.
    fn step(&mut self, gradients: &GradStore) -> Result<()> {
        self.steps = self.steps.saturating_add(1);
        let p = &self.params;
        let rule = Rule {
            kept: (1.0 - p.lr * p.weight_decay) as f32,
            betas: [p.beta1 as f32, p.beta2 as f32],
            added: [(1.0 - p.beta1) as f32, (1.0 - p.beta2) as f32],
            scales: [p.beta1, p.beta2].map(|beta| (1.0 / (1.0 - beta.powi(self.steps))) as f32),
            eps: p.eps as f32,
            lr: p.lr as f32,
        };
        for Averages { variable, first, second } in &mut self.variables {
            let Some(gradient) = gradients.get(variable) else { continue };
            if gradient.shape() != variable.shape() {
                candle_core::bail!("the gradient of a variable {:?} is {:?}", variable.shape(), gradient.shape());
            }
            let update = Update { rule: &rule, averages: RefCell::new([first, second]) };
            Tensor::inplace_op2(variable, gradient, &update)?;
        }
        Ok(())
    }
}

/// The numbers of a step, rounded as candle rounds them.
struct Rule {
    kept: f32,
    betas: [f32; 2],
    added: [f32; 2],
    scales: [f32; 2],
    eps: f32,
    lr: f32,
}

impl Rule {
    fn apply(&self, values: &mut [f32], gradient: &[f32], [first, second]: [&mut [f32]; 2]) {
        for (((v, &g), m), s) in values.iter_mut().zip(gradient).zip(first).zip(second) {
            *m = *m * self.betas[0] + g * self.added[0];
            *s = *s * self.betas[1] + g * g * self.added[1];
            let step = *m * self.scales[0] / ((*s * self.scales[1]).sqrt() + self.eps);
            *v = *v * self.kept - step * self.lr;
        }
    }
}

/// A variable's step.
struct Update<'a> {
    rule: &'a Rule,
    averages: RefCell<[&'a mut Vec<f32>; 2]>,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "swath-adamw"
    }

    fn cpu_fwd(&self, v: &mut CpuStorage, vl: &Layout, g: &CpuStorage, gl: &Layout) -> Result<()> {
        let gradient = floats(g, gl)?;
        let (CpuStorage::F32(v), Some((start, end))) = (v, vl.contiguous_offsets()) else {
            candle_core::bail!("swath takes variables of f32 whose elements are adjacent")
        };
        let mut averages = self.averages.borrow_mut();
        let [first, second] = averages.each_mut();
        let averages = first.par_chunks_mut(PIECE).zip(second.par_chunks_mut(PIECE));
        let tensors = v[start..end].par_chunks_mut(PIECE).zip(gradient.par_chunks(PIECE));
        tensors.zip(averages).for_each(|((v, g), (first, second))| self.rule.apply(v, g, [first, second]));
        Ok(())
    }
}
