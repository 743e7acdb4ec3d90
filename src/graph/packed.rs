//! Weights that are packed once for all sessions of a model.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use swath_kernels::layout::Layout;

use super::NodeId;
use crate::conv::{PackedWeights, WeightsKey};
use crate::error::Result;

/// Packings of an operator's weights that are kept: of more, that goes which was not asked for the longest. Shapes of a network's
/// inputs that differ by more than the batch may get different algorithms.
const MOST: usize = 4;

/// Packed weights, and the bias that goes with them.
pub(crate) struct Ready {
    pub(crate) weights: PackedWeights,
    pub(crate) bias: Option<Vec<f32>>,
}

/// Whose weights were packed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Source {
    /// Those of an operator of the one graph, with the normalisation that went into them.
    Node(NodeId, Option<NodeId>),
    /// One of several matrices of an operator of the one graph.
    #[cfg(feature = "onnx")]
    Part(NodeId, usize),
    /// Those of these contents, in whatever graph.
    Contents(u128),
}

/// What packed weights follow from, beside the values of the parameters.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct ReadyKey {
    pub(crate) source: Source,
    /// The order of a flattened image whose features they are for.
    pub(crate) image: Option<(Layout, [usize; 4])>,
    pub(crate) weights: WeightsKey,
}

/// A name of contents: a hash of all pieces, so long that no two contents of one model share it.
pub(crate) type NameContents = fn(&mut dyn Iterator<Item = &[u8]>) -> u128;

/// What was packed, by operator: the latest last.
type Kept = HashMap<Source, Vec<(ReadyKey, Arc<Ready>)>>;

/// What was packed for the sessions of one graph, by operator, from the parameters as they are. Whoever changes a parameter begins
/// anew; sessions keep what they have. Several graphs share what was packed if their weights are known by their contents.
#[derive(Default)]
pub(crate) struct ReadyWeights {
    kept: Mutex<Kept>,
    /// How contents are named; `None`: sources are operators of one graph.
    pub(crate) by_contents: Option<NameContents>,
}

impl ReadyWeights {
    /// For the sessions of several graphs.
    #[cfg(feature = "onnx")]
    pub(crate) fn by_contents(name: NameContents) -> Self {
        Self { by_contents: Some(name), ..Self::default() }
    }

    /// The weights of a key: those that were packed before, else what `pack` makes.
    pub(crate) fn get(&self, key: &ReadyKey, pack: impl FnOnce() -> Result<Ready>) -> Result<Arc<Ready>> {
        if let Some(found) = find(self.lock().entry(key.source).or_default(), key) {
            return Ok(found);
        }
        // Without the lock, which other sessions may wait for.
        let ready = Arc::new(pack()?);
        let mut all = self.lock();
        let kept = all.entry(key.source).or_default();
        // Another thread may have been faster.
        if let Some(found) = find(kept, key) {
            return Ok(found);
        }
        if kept.len() >= MOST {
            kept.remove(0);
        }
        kept.push((*key, ready.clone()));
        Ok(ready)
    }

    /// Frees what no session has.
    #[cfg(feature = "onnx")]
    pub(crate) fn free_unused(&self) {
        self.lock().retain(|_, kept| {
            kept.retain(|(_, ready)| Arc::strong_count(ready) > 1);
            !kept.is_empty()
        });
    }

    /// Whether nothing was packed.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().values().flatten().map(|(_, ready)| ready.weights.bytes()).sum()
    }

    // Under the lock nothing panics but a lack of memory, after which the lists are as whole as before.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds a key's weights, which are the latest then.
fn find(kept: &mut [(ReadyKey, Arc<Ready>)], key: &ReadyKey) -> Option<Arc<Ready>> {
    let at = kept.iter().position(|(k, _)| k == key)?;
    kept[at..].rotate_left(1);
    kept.last().map(|(_, ready)| ready.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::{ConvPlan, Options};
    use crate::error::Error;
    use swath_kernels::shape::ConvShape;

    #[test]
    fn the_last_few_packings_of_an_operator_are_kept() {
        let shape = ConvShape::builder([1, 2, 3, 3], [4, 2, 3, 3]).build().unwrap();
        let plan = ConvPlan::new(&shape, &Options::default()).unwrap();
        let key = |node, h| ReadyKey {
            source: Source::Node(node, None),
            image: Some((Layout::Nhwc, [1, 2, h, 1])),
            weights: plan.weights_key(),
        };
        let (all, pack) = (ReadyWeights::default(), || Ok(Ready { weights: plan.pack(&[1.0; 72])?, bias: None }));
        assert!(all.get(&key(0, 0), || Err(Error::Memory { bytes: 1 })).is_err());
        assert_eq!(all.bytes(), 0, "what failed is not kept");
        let first = all.get(&key(0, 0), pack).unwrap();
        for h in 1..MOST {
            assert!(!Arc::ptr_eq(&first, &all.get(&key(0, h), pack).unwrap()));
        }
        all.get(&key(1, 0), pack).unwrap();
        assert!(Arc::ptr_eq(&first, &all.get(&key(0, 0), pack).unwrap()), "now the latest");
        all.get(&key(0, MOST), pack).unwrap();
        assert!(Arc::ptr_eq(&first, &all.get(&key(0, 0), || unreachable!()).unwrap()));
        assert_eq!(all.bytes(), (MOST + 1) * first.weights.bytes());
        let mut packed = false;
        all.get(&key(0, 1), || {
            packed = true;
            pack()
        })
        .unwrap();
        assert!(packed, "the oldest went");
    }
}
