//! Normalisation plans: batch, group and instance; forward, evaluation and backward, on plain slices in any layout.
//!
//! What each means exactly, and in which order its sums are, stands in [`swath_kernels::norm`].

use swath_kernels::epilogue::Activation;
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::norm as kernels;
use swath_kernels::pass::Place;

pub use swath_kernels::norm::{Backward, Forward, Gradients, Normalised, Running, Sets, fuses, inverse};

use crate::conv::{Options, Scratch, one_layout};
use crate::error::{Error, Result, check_len};
use crate::par;

/// A planned normalisation.
///
/// ```
/// use swath::norm::{Backward, Forward, Gradients, Norm, Normalised, Sets};
/// use swath::{Options, Scratch};
/// // Two pictures of one channel and two pixels.
/// let plan = Norm::new([2, 1, 1, 2], Sets::Batch, &Options::default())?;
/// let (x, mut y, mut scratch) = ([1000.0, 1002.0, 1004.0, 1006.0], [0.0; 4], Scratch::new());
/// let (mut mean, mut inv) = ([0.0], [0.0]);
/// let out = Normalised { y: &mut y, mean: &mut mean, inv: &mut inv, running: None, affine: None };
/// plan.forward(&Forward { x: &x, w: Some(&[2.0]), ..Forward::default() }, out, &mut scratch)?;
/// assert_eq!(mean, [1003.0]);
/// assert!((y[3] - 6.0 / 5f32.sqrt()).abs() < 1e-6);
/// let (mut dx, mut db) = ([0.0; 4], [0.0]);
/// let backward = Backward { x: &x, dy: &[1.0; 4], w: Some(&[2.0]), mean: &mean, inv: &inv, ..Backward::default() };
/// plan.backward(&backward, Gradients { dx: Some(&mut dx), db: Some(&mut db), dw: None }, &mut scratch)?;
/// assert_eq!((dx, db), ([0.0; 4], [4.0])); // what is added to all changes nothing
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Norm {
    kernel: kernels::Norm,
    sets: Sets,
    dims: [usize; 4],
    layout: Layout,
    level: Level,
    threads: Option<usize>,
}

impl Norm {
    /// Plans, for tensors `[n, c, h, w]`. Others are `[n, c, pixels, 1]`.
    ///
    /// # Errors
    /// For groups that do not divide the channels, a tensor too large, a level that this machine lacks, and where input and output have
    /// different layouts.
    pub fn new(dims: [usize; 4], sets: Sets, options: &Options) -> Result<Self> {
        let (layout, level) = one_layout(options)?;
        let kernel = kernels::Norm::new(layout, dims, sets)?;
        Ok(Self { kernel, sets, dims, layout, level, threads: options.threads })
    }

    /// Means that there are: one for each channel, or for each image and group.
    pub fn sets(&self) -> usize {
        self.kernel.sets()
    }

    /// Values that share a mean. Batch normalisation in training wants at least two: a lone one has no variance.
    pub fn set_len(&self) -> usize {
        self.kernel.set_len()
    }

    /// Normalises by the statistics of the input, which it writes; see [`Normalised`].
    ///
    /// # Errors
    /// For wrong lengths, an activation that is not fused ([`fuses`]), running statistics of what is no batch normalisation, and
    /// [`Error::Memory`].
    pub fn forward(&self, f: &Forward<'_>, out: Normalised<'_>, scratch: &mut Scratch) -> Result<()> {
        self.check_forward(f, out.y.len(), [out.mean.len(), out.inv.len()])?;
        self.check_affine(out.affine.as_ref().map(|(scale, shift)| [scale.len(), shift.len()]))?;
        if let Some(r) = &out.running {
            self.check_batch("running statistics")?;
            self.check_statistics([r.mean.len(), r.var.len()])?;
        }
        let scratch = scratch.take(self.kernel.scratch())?;
        self.run(|place| self.kernel.forward(place, f, out, scratch));
        Ok(())
    }

    /// Normalises by given means and `inv = 1 / sqrt(variance + eps)` (see [`inverse`]): evaluation. `f.eps` is not used.
    ///
    /// # Errors
    /// For wrong lengths, an activation that is not fused ([`fuses`]), and [`Error::Memory`].
    pub fn evaluate(
        &self,
        f: &Forward<'_>,
        statistics: [&[f32]; 2],
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.check_forward(f, y.len(), statistics.map(<[f32]>::len))?;
        let scratch = scratch.take(self.kernel.scratch())?;
        let [mean, inv] = statistics;
        self.run(|place| self.kernel.evaluate(place, f, mean, inv, y, scratch));
        Ok(())
    }

    /// Computes the gradients that are asked for. What they held does not matter.
    ///
    /// # Errors
    /// For wrong lengths, an activation that is not fused or whose scale and shift are missing, and [`Error::Memory`].
    pub fn backward(&self, b: &Backward<'_>, out: Gradients<'_>, scratch: &mut Scratch) -> Result<()> {
        self.check_tensor("the input", Some(b.x.len()))?;
        self.check_tensor("the gradient at the output", Some(b.dy.len()))?;
        self.check_tensor("the gradient at the input", out.dx.as_ref().map(|v| v.len()))?;
        self.check_channels("the scale", b.w.map(<[f32]>::len))?;
        self.check_channels("the gradient at the scale", out.dw.as_ref().map(|v| v.len()))?;
        self.check_channels("the gradient at the shift", out.db.as_ref().map(|v| v.len()))?;
        self.check_statistics([b.mean.len(), b.inv.len()])?;
        check_activation(b.activation)?;
        self.check_affine(b.affine.map(|(scale, shift)| [scale.len(), shift.len()]))?;
        if b.activation != Activation::Identity && b.affine.is_none() {
            let rule = "its gradient takes scale and shift of `Normalised::affine`, which are missing".into();
            return Err(Error::Setting { what: "the activation", value: format!("{:?}", b.activation), rule });
        }
        let scratch = scratch.take(self.kernel.scratch())?;
        self.run(|place| self.kernel.backward(place, b, out, scratch));
        Ok(())
    }

    fn run(&self, f: impl FnOnce(&Place<'_>)) {
        f(&Place::new(self.level, &*par::executor(self.threads, f64::INFINITY)));
    }

    fn check_forward(&self, f: &Forward<'_>, y: usize, statistics: [usize; 2]) -> Result<()> {
        self.check_tensor("the input", Some(f.x.len()))?;
        self.check_tensor("the output", Some(y))?;
        self.check_tensor("the residual", f.residual.map(<[f32]>::len))?;
        self.check_channels("the scale", f.w.map(<[f32]>::len))?;
        self.check_channels("the shift", f.b.map(<[f32]>::len))?;
        self.check_statistics(statistics)?;
        check_activation(f.activation)
    }

    fn check_tensor(&self, what: &'static str, len: Option<usize>) -> Result<()> {
        len.map_or(Ok(()), |len| check_len(what, len, self.layout.len(self.dims)))
    }

    fn check_channels(&self, what: &'static str, len: Option<usize>) -> Result<()> {
        len.map_or(Ok(()), |len| check_len(what, len, self.dims[1]))
    }

    fn check_affine(&self, lens: Option<[usize; 2]>) -> Result<()> {
        let Some([scale, shift]) = lens else { return Ok(()) };
        self.check_batch("scale and shift of each channel")?;
        self.check_channels("the scale", Some(scale))?;
        self.check_channels("the shift", Some(shift))
    }

    fn check_batch(&self, what: &'static str) -> Result<()> {
        if self.sets == Sets::Batch {
            return Ok(());
        }
        let rule = "only batch normalisation has them".into();
        Err(Error::Setting { what, value: format!("{:?}", self.sets), rule })
    }

    fn check_statistics(&self, [mean, spread]: [usize; 2]) -> Result<()> {
        check_len("the means", mean, self.sets())?;
        check_len("the deviations", spread, self.sets())
    }
}

fn check_activation(activation: Activation) -> Result<()> {
    if fuses(activation) {
        return Ok(());
    }
    let rule = "a normalisation is followed by identity, ReLU, or a clip around zero".into();
    Err(Error::Setting { what: "the activation", value: format!("{activation:?}"), rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        let options = Options::default();
        assert!(Norm::new([1, 6, 2, 2], Sets::Groups(4), &options).unwrap_err().to_string().contains("4"));
        let plan = Norm::new([1, 6, 2, 2], Sets::Groups(3), &options).unwrap();
        let (x, mut scratch) = ([0.0; 24], Scratch::new());
        let mut refused = |f: &Forward<'_>, sets: usize, running: bool| {
            let (mut y, mut mean, mut inv) = ([0.0; 24], vec![0.0; sets], vec![0.0; sets]);
            let [mut rm, mut rv] = [[0.0; 6]; 2];
            let running = running.then_some(Running { mean: &mut rm, var: &mut rv, momentum: 0.1 });
            let out = Normalised { y: &mut y, mean: &mut mean, inv: &mut inv, running, affine: None };
            plan.forward(f, out, &mut scratch).unwrap_err().to_string()
        };
        let fine = Forward { x: &x, ..Forward::default() };
        assert_eq!(refused(&fine, 2, false), "the means has 2 elements, but 3 are needed");
        assert!(refused(&fine, 3, true).contains("running statistics"));
        assert!(refused(&Forward { x: &x[1..], ..fine }, 3, false).contains("the input has 23 elements, but 24"));
        assert!(refused(&Forward { w: Some(&[1.0; 5]), ..fine }, 3, false).contains("the scale has 5"));
        assert!(refused(&Forward { activation: Activation::Silu, ..fine }, 3, false).contains("Silu"));
        let b = Backward { x: &x, dy: &x, mean: &[0.0; 3], inv: &[1.0; 3], ..Backward::default() };
        let relu = Backward { activation: Activation::Relu, ..b };
        assert!(plan.backward(&relu, Gradients::default(), &mut scratch).unwrap_err().to_string().contains("missing"));
        let known = Backward { affine: Some((&[1.0; 6], &[0.0; 6])), ..relu };
        let e = plan.backward(&known, Gradients::default(), &mut scratch).unwrap_err().to_string();
        assert!(e.contains("only batch normalisation"), "{e}");
        plan.backward(&b, Gradients::default(), &mut scratch).unwrap();
    }
}
