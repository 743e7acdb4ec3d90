//! Plans by shape and options, for whoever learns shapes only when a tensor arrives.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use swath_kernels::shape::ConvShape;

use super::{ConvBackwardData, ConvBackwardWeights, ConvPlan, Options};
use crate::error::Result;
use crate::tuning::Ground;

/// Plans that were asked for before: at most so many of each pass, of which those go that were not asked for the longest.
///
/// A hit costs a hash and a look under a lock that readers share. Threads share a cache by reference; two that
/// miss the same plan at once both plan, and one of the plans stays.
///
/// A plan is found by its shape and options, by the threads that it would choose for, and only until
/// [`tune::reload`](crate::tune::reload), or a change of [`KeptChoices`](crate::tune::KeptChoices), makes another choice possible.
///
/// ```
/// use swath::{ConvShape, Epilogue, Options, PlanCache, Scratch};
///
/// static PLANS: std::sync::LazyLock<PlanCache> = std::sync::LazyLock::new(|| PlanCache::new(256));
///
/// fn conv(x: &[f32], dims: [usize; 4], w: &[f32], y: &mut [f32]) -> swath::Result<()> {
///     let shape = ConvShape::builder(dims, [4, dims[1], 3, 3]).padding(1).build()?;
///     let plan = PLANS.forward(&shape, &Options::default())?;
///     plan.forward(x, &plan.pack(w)?, Epilogue::none(), y, &mut Scratch::new())
/// }
///
/// let (x, w, mut y) = (vec![1.0; 2 * 3 * 64], vec![0.1; 4 * 27], vec![0.0; 2 * 4 * 64]);
/// conv(&x, [2, 3, 8, 8], &w, &mut y)?;
/// conv(&x, [2, 3, 8, 8], &w, &mut y)?;
/// assert_eq!(PLANS.len(), 1);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Debug)]
pub struct PlanCache {
    capacity: usize,
    hasher: RandomState,
    forward: Plans<ConvPlan>,
    data: Plans<ConvBackwardData>,
    weights: Plans<ConvBackwardWeights>,
}

impl PlanCache {
    /// Room for so many plans of each pass, at least one. A plan takes some 2 KB.
    pub fn new(capacity: usize) -> Self {
        let (hasher, capacity) = (RandomState::new(), capacity.max(1));
        Self { capacity, hasher, forward: Plans::default(), data: Plans::default(), weights: Plans::default() }
    }

    /// The process's own, of 1024 plans of each pass.
    ///
    /// ```
    /// use swath::{ConvShape, Options, PlanCache};
    /// let shape = ConvShape::builder([1, 3, 8, 8], [4, 3, 3, 3]).build()?;
    /// let (a, b) = (PlanCache::global(), PlanCache::global());
    /// let (first, again) = (a.forward(&shape, &Options::default())?, b.forward(&shape, &Options::default())?);
    /// assert!(std::sync::Arc::ptr_eq(&first, &again));
    /// # Ok::<(), swath::Error>(())
    /// ```
    pub fn global() -> &'static Self {
        static GLOBAL: OnceLock<PlanCache> = OnceLock::new();
        GLOBAL.get_or_init(|| PlanCache::new(1024))
    }

    /// The plan of a convolution.
    ///
    /// # Errors
    /// As for [`ConvPlan::new`]. Errors are not kept.
    pub fn forward(&self, shape: &ConvShape, options: &Options) -> Result<Arc<ConvPlan>> {
        self.forward.find(self, shape, options, ConvPlan::new)
    }

    /// The plan of the gradient at its input.
    ///
    /// # Errors
    /// As for [`ConvBackwardData::new`].
    pub fn backward_data(&self, shape: &ConvShape, options: &Options) -> Result<Arc<ConvBackwardData>> {
        self.data.find(self, shape, options, ConvBackwardData::new)
    }

    /// The plan of the gradients at its weights and bias.
    ///
    /// # Errors
    /// As for [`ConvBackwardWeights::new`].
    pub fn backward_weights(&self, shape: &ConvShape, options: &Options) -> Result<Arc<ConvBackwardWeights>> {
        self.weights.find(self, shape, options, ConvBackwardWeights::new)
    }

    /// Plans that it holds, of all passes.
    pub fn len(&self) -> usize {
        self.forward.read().len() + self.data.read().len() + self.weights.read().len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most plans of a pass.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all plans. Those in use live on.
    pub fn clear(&self) {
        self.forward.write().clear();
        self.data.write().clear();
        self.weights.write().clear();
    }
}

/// A plan, and what it was asked for with.
#[derive(Debug)]
struct Kept<P> {
    shape: ConvShape,
    options: Options,
    ground: Ground,
    plan: Arc<P>,
    /// When it was asked for last, by the count of the plans' askings.
    asked: AtomicU64,
}

/// The plans of a pass, by the hash of what they were asked for with. Of two with the same hash the later one stays: with 64 bits
/// of a keyed hash that is for nobody to bring about.
#[derive(Debug)]
struct Plans<P> {
    kept: RwLock<HashMap<u64, Kept<P>>>,
    askings: AtomicU64,
}

impl<P> Default for Plans<P> {
    fn default() -> Self {
        Self { kept: RwLock::default(), askings: AtomicU64::new(0) }
    }
}

impl<P> Plans<P> {
    fn find(
        &self,
        cache: &PlanCache,
        shape: &ConvShape,
        options: &Options,
        plan: impl FnOnce(&ConvShape, &Options) -> Result<P>,
    ) -> Result<Arc<P>> {
        let ground = options.tuning.ground(options.threads);
        let hash = cache.hasher.hash_one((shape, options, &ground));
        // Relaxed: which of two plans is the older one need not be exact.
        let now = self.askings.fetch_add(1, Ordering::Relaxed);
        if let Some(kept) = self.read().get(&hash)
            && (&kept.shape, &kept.options, &kept.ground) == (shape, options, &ground)
        {
            kept.asked.store(now, Ordering::Relaxed);
            return Ok(kept.plan.clone());
        }
        // Without the lock, which others need for their hits.
        let plan = Arc::new(plan(shape, options)?);
        let mut all = self.write();
        if all.len() >= cache.capacity && !all.contains_key(&hash) {
            let oldest = all.iter().min_by_key(|(_, kept)| kept.asked.load(Ordering::Relaxed)).map(|(&hash, _)| hash);
            oldest.and_then(|hash| all.remove(&hash));
        }
        let (options, asked) = (options.clone(), AtomicU64::new(now));
        all.insert(hash, Kept { shape: *shape, options, ground, plan: plan.clone(), asked });
        Ok(plan)
    }

    // Nothing panics under the lock but a lack of memory, after which the map is as whole as before.
    fn read(&self) -> RwLockReadGuard<'_, HashMap<u64, Kept<P>>> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<u64, Kept<P>>> {
        self.kept.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuning::{KeptChoices, Tuning, TuningTable};

    fn shape(n: usize) -> ConvShape {
        ConvShape::builder([n, 8, 6, 6], [8, 8, 3, 3]).padding(1).build().unwrap()
    }

    #[test]
    fn what_differs_is_planned_anew_and_what_does_not_is_found() {
        let cache = PlanCache::new(64);
        let options = [
            Options::default(),
            Options::blocked(),
            Options { threads: Some(1), ..Options::default() },
            Options { algo: Some("gemm".into()), ..Options::default() },
            Options { tuning: Tuning::Off, ..Options::default() },
            Options { tuning: Tuning::Table(Arc::new(TuningTable::new("a"))), ..Options::default() },
        ];
        for (i, o) in options.iter().enumerate() {
            let plans = [cache.forward(&shape(1), o).unwrap(), cache.forward(&shape(1), &o.clone()).unwrap()];
            assert!(Arc::ptr_eq(&plans[0], &plans[1]));
            assert_eq!((plans[0].shape(), plans[0].options()), (&shape(1), o));
            assert_eq!(cache.len(), i + 1);
        }
        assert_eq!(cache.forward(&shape(2), &options[0]).unwrap().shape().n, 2);
        assert_eq!(cache.backward_data(&shape(1), &options[0]).unwrap().shape(), &shape(1));
        assert_eq!(cache.backward_weights(&shape(1), &options[0]).unwrap().shape(), &shape(1));
        assert_eq!(cache.len(), options.len() + 3);
        cache.clear();
        assert!(cache.is_empty());
        let nonsense = Options { algo: Some("none".into()), ..Options::default() };
        assert!(cache.forward(&shape(1), &nonsense).is_err() && cache.is_empty());
    }

    #[test]
    fn choices_that_are_kept_count_until_they_are_replaced() {
        let cache = PlanCache::new(4);
        let kept = Arc::new(KeptChoices::new(Tuning::Off));
        let options = Options { tuning: Tuning::Kept(kept.clone()), ..Options::default() };
        let first = cache.forward(&shape(1), &options).unwrap();
        cache.forward(&shape(2), &options).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.forward(&shape(1), &options).unwrap()), "another shape changes nothing");
        let other = ["gemm", "direct"].into_iter().find(|&name| name != first.algo()).unwrap();
        kept.replace(kept.names().into_keys().map(|words| (words, other.into())).collect());
        assert_eq!(cache.forward(&shape(1), &options).unwrap().algo(), other);
        // What is asked for by name is kept, too.
        let named = options.clone().algo(first.algo());
        assert_eq!(cache.forward(&shape(1), &named).unwrap().algo(), first.algo());
        assert_eq!(cache.forward(&shape(1), &options).unwrap().algo(), first.algo());
    }

    #[test]
    fn the_one_that_was_not_asked_for_the_longest_goes() {
        let cache = PlanCache::new(2);
        let ask = |n| cache.forward(&shape(n), &Options::default()).unwrap();
        let [one, two] = [1, 2].map(ask);
        assert!(Arc::ptr_eq(&one, &ask(1)));
        ask(3);
        assert_eq!(cache.len(), 2);
        assert!(Arc::ptr_eq(&one, &ask(1)), "asked for after the second");
        assert!(!Arc::ptr_eq(&two, &ask(2)), "gone");
    }

    #[test]
    fn threads_share_it() {
        let cache = PlanCache::new(3);
        std::thread::scope(|scope| {
            for t in 0..4 {
                let cache = &cache;
                scope.spawn(move || {
                    for i in 0..40 {
                        let n = 1 + (i * (t + 1)) % 5;
                        assert_eq!(cache.forward(&shape(n), &Options::default()).unwrap().shape().n, n);
                    }
                });
            }
        });
        assert!(cache.len() <= cache.capacity());
    }
}
