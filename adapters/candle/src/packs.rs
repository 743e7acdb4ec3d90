//! Packed weights: kept where weights stay as they are, else made for one run in memory that the scratch lends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use swath::{ConvBackwardData, ConvPlan, PackedWeights, Result, Scratch, WeightsKey};

/// A plan that reads packed weights.
pub trait Packs {
    fn key(&self) -> WeightsKey;
    fn pack(&self, w: &[f32]) -> Result<PackedWeights>;
    fn pack_once(&self, w: &[f32], scratch: &mut Scratch) -> Result<PackedWeights>;
}

macro_rules! packs {
    ($($plan:ty),*) => {$(
        impl Packs for $plan {
            fn key(&self) -> WeightsKey {
                self.weights_key()
            }

            fn pack(&self, w: &[f32]) -> Result<PackedWeights> {
                <$plan>::pack(self, w)
            }

            fn pack_once(&self, w: &[f32], scratch: &mut Scratch) -> Result<PackedWeights> {
                <$plan>::pack_once(self, w, scratch)
            }
        }
    )*};
}

packs!(ConvPlan, ConvBackwardData);

/// Weights that stay as they are, by what they were packed for. Those of data gradients depend on the picture's size, so there could be
/// any number.
#[derive(Debug, Default)]
pub struct Kept(Mutex<HashMap<WeightsKey, Arc<PackedWeights>>>);

/// Sizes of pictures, and directions, that a layer keeps weights for.
const MOST: usize = 16;

impl Kept {
    fn packed(&self, plan: &impl Packs, w: &[f32]) -> Result<Arc<PackedWeights>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(packed) = kept.get(&plan.key()) {
            return Ok(packed.clone());
        }
        if kept.len() >= MOST {
            kept.clear();
        }
        let packed = Arc::new(plan.pack(w)?);
        kept.insert(plan.key(), packed.clone());
        Ok(packed)
    }
}

/// Runs `f` with the weights as the plan reads them.
pub fn with_packed<T>(
    plan: &impl Packs,
    w: &[f32],
    kept: Option<&Kept>,
    scratch: &mut Scratch,
    f: impl FnOnce(&PackedWeights, &mut Scratch) -> Result<T>,
) -> Result<T> {
    if let Some(kept) = kept {
        return f(&*kept.packed(plan, w)?, scratch);
    }
    let packed = plan.pack_once(w, scratch)?;
    let result = f(&packed, scratch);
    scratch.give_back(packed);
    result
}
