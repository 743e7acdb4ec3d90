//! Choices of algorithms that are kept: what a training run chose once, it goes on with.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Convolution, Tuning};
use crate::algo::Pass;

/// The algorithm of each convolution and pass that was planned with it: chosen as another tuning says the first time, and by
/// that name from then on. A training run keeps its names in its checkpoint, so that a resumed one has the same bits whatever
/// a tuning file says meanwhile.
///
/// ```
/// use std::sync::Arc;
/// use swath::tune::{KeptChoices, Tuning};
/// use swath::{ConvPlan, ConvShape, Options};
/// let kept = Arc::new(KeptChoices::new(Tuning::Auto));
/// let options = Options { tuning: Tuning::Kept(kept.clone()), ..Options::default() };
/// let shape = ConvShape::builder([1, 16, 8, 8], [16, 16, 3, 3]).padding(1).build()?;
/// let algo = ConvPlan::new(&shape, &options)?.algo();
/// assert_eq!(kept.names().into_values().collect::<Vec<_>>(), [algo]);
/// // Another name, as from a checkpoint.
/// kept.replace(kept.names().into_keys().map(|convolution| (convolution, "gemm".into())).collect());
/// assert_eq!(ConvPlan::new(&shape, &options)?.algo(), "gemm");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct KeptChoices {
    tuning: Tuning,
    names: Mutex<BTreeMap<String, String>>,
    /// How often a name took the place of another.
    changes: AtomicUsize,
}

/// Each is its own.
impl PartialEq for KeptChoices {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

impl Eq for KeptChoices {}

impl KeptChoices {
    /// None yet; the first choice of each is that tuning's.
    pub fn new(tuning: Tuning) -> Self {
        Self { tuning, ..Self::default() }
    }

    /// Names of algorithms by convolution and pass, in words.
    pub fn names(&self) -> BTreeMap<String, String> {
        self.lock().clone()
    }

    /// Takes these names in place of those that it has.
    pub fn replace(&self, names: BTreeMap<String, String>) {
        *self.lock() = names;
        // After the names: whoever sees the count sees them.
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// How often a name took the place of another: until then a plan of the same shape and options is the same.
    pub(super) fn changes(&self) -> usize {
        self.changes.load(Ordering::Acquire)
    }

    pub(super) fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    pub(crate) fn get(&self, pass: Pass, convolution: &Convolution) -> Option<String> {
        self.lock().get(&words(pass, convolution)).cloned()
    }

    pub(crate) fn keep(&self, pass: Pass, convolution: &Convolution, algo: &str) {
        let before = self.lock().insert(words(pass, convolution), algo.into());
        if before.is_some_and(|name| name != algo) {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `bwd_d 8x64x56x56 * 64x64x3x3, stride 1x1, dilation 1x1, groups 1, padding 1/1/1/1, blocked to blocked`
fn words(pass: Pass, convolution: &Convolution) -> String {
    let extents = |d: [usize; 4]| d.map(|v| v.to_string()).join("x");
    let Convolution { shape: s, input, output } = convolution;
    let (pad, input, output) = (s.pad, input.name(), output.name());
    format!(
        "{} {} * {}, stride {}x{}, dilation {}x{}, groups {}, padding {}/{}/{}/{}, {input} to {output}",
        pass.name(),
        extents(s.input()),
        extents(s.weights()),
        s.sh,
        s.sw,
        s.dh,
        s.dw,
        s.groups,
        pad.top,
        pad.left,
        pad.bottom,
        pad.right
    )
}
