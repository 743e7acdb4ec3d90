//! The algorithms that a plan chooses from, and what tuning tables say of them.

use swath_kernels::isa::Level;
use swath_kernels::shape::ConvShape;

use super::Options;
use crate::par;
use crate::tuning::{Conditions, Convolution, Figures, warn_once};

/// One algorithm as a plan saw it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Name, from [`ALGOS`](crate::algo::ALGOS).
    pub algo: &'static str,
    /// Predicted milliseconds on one thread, or why it does not support the shape.
    pub predicted: Result<f64, String>,
    /// What a tuning table measured, on the threads that the plan is for.
    pub measured: Option<Figures>,
}

impl Conditions {
    /// Those that a plan with these options runs under, when it is run from where this is called: of its threads, there
    /// may be fewer ([`par`]).
    pub fn of(level: Level, options: &Options) -> Self {
        Self::here(level, par::width(options.threads))
    }
}

impl Convolution {
    /// The convolution of a plan with these options.
    pub fn new(shape: &ConvShape, options: &Options) -> Self {
        Self { shape: *shape, input: options.input, output: options.output }
    }
}

/// Asks the tables of a plan's options: notes in `candidates` what was measured of them, and returns the index of the
/// fastest one that the plan supports, and why it is taken. `modelled` is the index of the cost model's choice.
pub(super) fn consult(
    shape: &ConvShape,
    level: Level,
    options: &Options,
    candidates: &mut [Candidate],
    modelled: usize,
) -> Option<(usize, String)> {
    let tables = options.tuning.tables();
    // Without a table there is no need to know the threads, which would start rayon's pool.
    if tables.iter().all(|t| t.is_empty()) {
        return None;
    }
    let conditions = Conditions::of(level, options);
    let convolution = Convolution::new(shape, options);
    for table in tables {
        let Some(entry) = table.get(&conditions, &convolution) else { continue };
        for m in entry.candidates() {
            if !candidates.iter().any(|c| c.algo == m.algo) {
                warn_once(format!("tuning table {}: there is no algorithm {:?}: ignored", table.source(), m.algo));
            }
        }
        for c in candidates.iter_mut() {
            c.measured = entry.figures(c.algo);
        }
        // Without the modelled choice among the measured, nothing says that the others are faster than it.
        if candidates[modelled].measured.is_none() {
            continue;
        }
        let supported = candidates.iter().enumerate().filter(|(_, c)| c.predicted.is_ok());
        let measured = supported.filter_map(|(i, c)| Some((i, c.measured?.ms())));
        let (best, ms) = measured.min_by(|a, b| a.1.total_cmp(&b.1))?;
        let threads =
            if conditions.threads == 1 { "1 thread".into() } else { format!("{} threads", conditions.threads) };
        return Some((best, format!("it measured fastest, {ms:.4} ms on {threads} (tuned: {})", table.source())));
    }
    None
}
