//! What computes a phase.

use crate::depthwise::Depthwise;
use crate::direct::Direct;
use crate::exec::{Executor, Shared};
use crate::shape::ConvShape;
use crate::tile::SyncFinish;
use crate::weights::Weights;

/// A convolution over parts of tensors.
#[derive(Clone, Debug)]
pub(super) enum Plan {
    Direct(Box<Direct>),
    Depthwise(Box<Depthwise>),
}

impl Plan {
    pub fn shape(&self) -> &ConvShape {
        match self {
            Plan::Direct(p) => p.shape(),
            Plan::Depthwise(p) => p.shape(),
        }
    }

    pub fn kernel(&self) -> &'static str {
        match self {
            Plan::Direct(p) => p.kernel(),
            Plan::Depthwise(p) => p.kernel(),
        }
    }

    pub fn waste(&self) -> f64 {
        match self {
            Plan::Direct(p) => p.waste(),
            Plan::Depthwise(_) => 1.0,
        }
    }

    pub fn packed_len(&self) -> usize {
        match self {
            Plan::Direct(p) => p.packed_len(),
            Plan::Depthwise(p) => p.packed_len(),
        }
    }

    pub fn pack_from(&self, w: &Weights<'_>, packed: &mut [f32], executor: &dyn Executor) {
        match self {
            Plan::Direct(p) => p.pack_from(w, packed, executor),
            Plan::Depthwise(p) => p.pack_from(w, packed),
        }
    }

    /// Floats of scratch for one thread.
    pub fn scratch_len(&self) -> usize {
        match self {
            Plan::Direct(p) => p.scratch_len(),
            Plan::Depthwise(p) => p.scratch_len(),
        }
    }

    /// How many parts a run on so many threads has.
    pub fn parts(&self, threads: usize) -> usize {
        match self {
            Plan::Direct(p) => p.parts(threads),
            Plan::Depthwise(p) => p.parts(threads),
        }
    }

    /// Computes part `i` of a run on so many threads; there may be no such part.
    pub fn part(
        &self,
        (x, packed): (&[f32], &[f32]),
        finish: SyncFinish,
        y: (Shared<'_>, usize),
        [threads, i]: [usize; 2],
        scratch: &mut [f32],
    ) {
        if i >= self.parts(threads) {
            return;
        }
        match self {
            Plan::Direct(p) => p.job(x, packed, finish, y, threads).part(i, scratch),
            Plan::Depthwise(p) => p.job(x, packed, finish, y, threads).part(i, scratch),
        }
    }
}
