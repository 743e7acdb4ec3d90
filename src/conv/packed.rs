//! Packed weights, and what their order depends on.

use core::fmt;

use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;

use super::Scratch;
use super::choice::Choice;
use crate::algo::{Pass, Planned};
use crate::buffer::Buffer;
use crate::error::{Error, Result};

/// Weights in the order that a plan's kernels read them. Made by [`ConvPlan::pack`](crate::ConvPlan::pack) and
/// [`ConvBackwardData::pack`](crate::ConvBackwardData::pack); every plan of the same [`WeightsKey`] can use them.
///
/// ```
/// use std::collections::HashMap;
/// use swath::{ConvPlan, ConvShape, Options, PackedWeights, WeightsKey};
///
/// // The weights of one parameter, packed once for all plans that read them alike.
/// let w = vec![0.1; 16 * 3 * 3 * 3];
/// let mut packed: HashMap<WeightsKey, PackedWeights> = HashMap::new();
/// for n in [1, 8] {
///     let shape = ConvShape::builder([n, 3, 32, 32], [16, 3, 3, 3]).padding(1).build()?;
///     let plan = ConvPlan::new(&shape, &Options { algo: Some("gemm".into()), ..Options::default() })?;
///     if !packed.contains_key(&plan.weights_key()) {
///         packed.insert(plan.weights_key(), plan.pack(&w)?);
///     }
/// }
/// assert_eq!(packed.len(), 1, "the batch does not matter");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PackedWeights {
    pub(super) data: Buffer,
    key: WeightsKey,
}

impl PackedWeights {
    /// Zeros, to be packed over.
    pub(super) fn zeros(key: WeightsKey) -> Result<Self> {
        Ok(Self { data: Buffer::lasting(key.len)?, key })
    }

    /// In memory that a scratch lends.
    pub(super) fn lent(key: WeightsKey, scratch: &mut Scratch) -> Result<Self> {
        let mut data = core::mem::take(&mut scratch.packed).with_len(key.len)?;
        if cfg!(debug_assertions) {
            // Whatever packing leaves unwritten shows.
            data.fill(f32::NAN);
        }
        Ok(Self { data, key })
    }

    /// A copy.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { data: self.data.copied()?, key: self.key })
    }

    /// # Errors
    /// If they were packed for another key.
    pub(super) fn check(&self, key: WeightsKey) -> Result<()> {
        if self.key == key {
            return Ok(());
        }
        Err(Error::Weights { packed: self.key.to_string(), expected: key.to_string() })
    }

    /// What they were packed for.
    pub fn key(&self) -> WeightsKey {
        self.key
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }
}

/// What the order of packed weights depends on: weights that were packed for one plan serve every plan of the same key.
///
/// That is the pass, the algorithm, the level, the weights' extents, the groups and the layouts. Of a data gradient it is
/// the geometry, too; never the number of images. Of a convolution the extents of the image may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightsKey {
    pass: Pass,
    algo: &'static str,
    weights: [usize; 4],
    groups: usize,
    /// Of a data gradient: what its phases depend on.
    phases: Option<Phases>,
    level: Level,
    layouts: [Layout; 2],
    len: usize,
}

/// What the phases of a data gradient depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Phases {
    stride: [usize; 2],
    dilation: [usize; 2],
    before: [usize; 2],
    input: [usize; 2],
    output: [usize; 2],
}

impl WeightsKey {
    pub(super) fn new<K: Planned>(choice: &Choice<K>) -> Self {
        let Choice { shape: s, options, core, algo, kernel, .. } = choice;
        let phases = || Phases {
            stride: [s.sh, s.sw],
            dilation: [s.dh, s.dw],
            before: [s.pad.top, s.pad.left],
            input: [s.ih, s.iw],
            output: [s.oh, s.ow],
        };
        Self {
            pass: K::PASS,
            algo,
            weights: s.weights(),
            groups: s.groups,
            phases: (K::PASS == Pass::BackwardData).then(phases),
            level: core.level,
            layouts: [options.input, options.output],
            len: kernel.packed_len(),
        }
    }
}

impl fmt::Display for WeightsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pass, algo, weights: w, groups, phases, level, layouts, len } = self;
        let [input, output] = layouts.map(Layout::name);
        write!(
            f,
            "{} by {algo} at level {level}, weights {w:?}, groups {groups}, {input} in, {output} out",
            pass.name()
        )?;
        if let Some(Phases { stride, dilation, before, input, output }) = phases {
            write!(f, ", stride {stride:?}, dilation {dilation:?}, padding {before:?}, {input:?} to {output:?}")?;
        }
        write!(f, ", {len} floats")
    }
}
