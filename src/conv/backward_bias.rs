//! Plans of bias gradients.

use swath_kernels::arith::{Arith, Operand};
use swath_kernels::isa::Level;
use swath_kernels::pass::Place;

use super::{Options, Scratch, level};
use crate::error::{Result, check_len};
use crate::layout::{Held, stored_len};
use crate::par;

/// Planned gradients at the bias of a convolution or transposed convolution: sums over images and pixels.
///
/// [`ConvBackwardWeights`](crate::ConvBackwardWeights) has that of a convolution's bias beside the weights'. This is for whoever wants
/// it alone, and for transposed convolution, whose weight gradient has the roles of input and gradient exchanged.
///
/// ```
/// use swath::{ConvBackwardBias, Options, Scratch};
/// let plan = ConvBackwardBias::new([2, 3, 1, 2], &Options::default())?;
/// let mut db = [f32::NAN; 3];
/// plan.run(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0], &mut db, &mut Scratch::new())?;
/// assert_eq!(db, [33.0, 77.0, 121.0]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConvBackwardBias {
    sums: Arith,
    dy: Held,
    level: Level,
    threads: Option<usize>,
}

impl ConvBackwardBias {
    /// Plans, for a gradient `[n, c, h, w]` in the layout of the options' output, which may be a part of a larger tensor
    /// ([`Options::pitches`]). Rows that lie apart are copied, some at a time.
    ///
    /// # Errors
    /// For a level that this machine lacks, extents that overflow, and pitches at which neighbours would overlap.
    pub fn new(dims: [usize; 4], options: &Options) -> Result<Self> {
        stored_len(&dims, options.output)?;
        let dy = Held::new("the output's pitch", options.output, dims, options.output_pitches)?;
        let sums = Arith::of_view(dy.view(), Operand::Channels)?;
        Ok(Self { sums, dy, level: level(options)?, threads: options.threads })
    }

    /// Computes `db` `[c]` from the gradient `dy` at the output. What `db` held does not matter. The result is the same bits for any
    /// number of threads.
    ///
    /// # Errors
    /// For wrong lengths, and [`Error::Memory`](crate::Error::Memory).
    pub fn run(&self, dy: &[f32], db: &mut [f32], scratch: &mut Scratch) -> Result<()> {
        let dy = self.dy.floats("the gradient at the output", dy)?;
        let [_, channels, ..] = self.dy.view().dims();
        check_len("the gradient at the bias", db.len(), channels)?;
        let executor = par::executor(self.threads, f64::INFINITY);
        // Sums of whole blocks, those of the channels that pad the last one included.
        let padded = self.sums.operand_len();
        let needed = padded + self.sums.scratch() + self.sums.copy_len().saturating_mul(executor.threads());
        let (sums, scratch) = scratch.take(needed)?.split_at_mut(padded);
        self.sums.sum(&Place::new(self.level, &*executor), dy, 1.0, sums, scratch);
        db.copy_from_slice(&sums[..db.len()]);
        Ok(())
    }
}
