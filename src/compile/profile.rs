//! How long the steps of a run take, and what they do in that time.

use std::time::Duration;

/// A step of a run: what it did, and how long it took.
///
/// ```
/// use swath::nn::*;
/// let mut session = Sequential::new((Conv2d::new(8, 16, 3), ReLU)).build(0)?.compile([1, 8, 10, 10])?;
/// let steps = session.profile(&[&[0.5; 800]])?;
/// let conv = steps.iter().find(|step| step.flop > 0).expect("a convolution");
/// assert_eq!(conv.flop, 2 * 16 * 8 * 9 * 64);
/// println!("{}: {:.1} GFLOP/s, {:.1} GB/s", conv.what, conv.gflops(), conv.gbytes());
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StepProfile {
    /// The layer or node that it computes.
    pub layer: String,
    /// What ran, with the chosen algorithm.
    pub what: String,
    /// How long it took.
    pub time: Duration,
    /// Floating-point operations of a convolution or matrix product, those in the padding included: two for each multiply-add. 0 for other
    /// steps, which memory bounds.
    pub flop: u64,
    /// Bytes of its operands, its results and the weights that it has packed, each once: the least that it moves.
    pub bytes: usize,
}

impl StepProfile {
    /// 10^9 floating-point operations a second.
    pub fn gflops(&self) -> f64 {
        self.flop as f64 / self.seconds() / 1e9
    }

    /// 10^9 bytes a second.
    pub fn gbytes(&self) -> f64 {
        self.bytes as f64 / self.seconds() / 1e9
    }

    /// At least a nanosecond, which no clock is finer than.
    fn seconds(&self) -> f64 {
        self.time.as_secs_f64().max(1e-9)
    }
}
