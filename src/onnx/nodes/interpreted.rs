//! Operators without a kernel: they run as [`crate::ops`] has them, on elements of any type.

use std::sync::Arc;

use swath_kernels::layout::Layout;

use super::fixed;
use crate::conv::Scratch;
use crate::error::Result;
use crate::graph::{Fact, Group, Lower, Operands, Operator, Step, Work};
use crate::ops::{self, Array, Attributes, Call, Data, OpResult};

/// An input of an interpreted operator.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// Left out.
    Absent,
    /// Known when the model was imported.
    Constant(Arc<Array>),
    /// The next input of the graph's node.
    Input,
}

/// An operator of [`crate::ops`] at fixed dimensions.
#[derive(Clone, Debug)]
pub(crate) struct Interpreted {
    pub operator: &'static ops::Operator,
    pub opset: i64,
    pub attributes: Arc<Attributes>,
    pub slots: Vec<Slot>,
    /// What the inputs are.
    pub inputs: Vec<Fact>,
    /// What the outputs are.
    pub outputs: Vec<Fact>,
}

impl Operator for Interpreted {
    fn name(&self) -> &'static str {
        self.operator.name
    }

    fn results(&self) -> usize {
        self.outputs.len()
    }

    fn dims(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.outputs[0].dims.clone())
    }

    fn facts(&self, inputs: &[&Fact]) -> Result<Vec<Fact>> {
        fixed(self.operator.name, &self.inputs, inputs, &self.outputs)
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for v in cx.inputs(group) {
            inputs.push(cx.want(v, Layout::Nchw)?);
        }
        let layouts = vec![Layout::Nchw; self.outputs.len()];
        cx.step_all(group, &layouts, Box::new(InterpretedStep(self.clone())), inputs, 0)
    }

    /// Of convolutions and products whose form or whose elements no kernel takes: as many as the output has elements, times what is
    /// summed for each.
    fn work(&self, _: &[&Fact]) -> Work {
        let mut given = self.inputs.iter().map(|fact| &fact.dims[..]);
        let dims: Vec<&[usize]> = self
            .slots
            .iter()
            .map(|slot| match slot {
                Slot::Absent => &[],
                Slot::Constant(array) => array.dims(),
                Slot::Input => given.next().unwrap_or_default(),
            })
            .collect();
        let summed = match (self.operator.name, &dims[..]) {
            ("Conv" | "com.microsoft.FusedConv" | "ConvInteger", [_, [_, window @ ..], ..])
            | ("QLinearConv", [_, _, _, [_, window @ ..], ..]) => window,
            ("MatMul" | "MatMulInteger", [[.., inner], ..]) => std::slice::from_ref(inner),
            // Either way round.
            ("Gemm", [[a, b], ..]) => std::slice::from_ref(if self.outputs[0].dims[0] == *a { b } else { a }),
            _ => return Work::default(),
        };
        let sizes = self.outputs[0].dims.iter().chain(summed);
        Work { macs: sizes.map(|&v| v as u64).fold(1, u64::saturating_mul), convolution: None }
    }
}

struct InterpretedStep(Interpreted);

/// Overwrites elements by those that lie in words of four bytes.
pub(crate) fn read_words(words: &[f32], data: &mut Data) {
    if let Data::F32(to) = data {
        let len = to.len();
        return to.copy_from_slice(&words[..len]);
    }
    data.get_le_bytes(bytemuck::cast_slice(words));
}

/// The elements that lie in words of four bytes.
pub(crate) fn from_words(fact: &Fact, words: &[f32]) -> OpResult<Array> {
    let mut data = Data::zeros(fact.element, fact.len())?;
    read_words(words, &mut data);
    Ok(Array::new(fact.dims.clone(), data).expect("as many elements as the dimensions make"))
}

/// Puts elements into words of four bytes.
pub(crate) fn to_words(array: &Array, words: &mut [f32]) {
    if let Some(elements) = array.elements::<f32>() {
        return words[..elements.len()].copy_from_slice(elements);
    }
    array.data().put_le_bytes(bytemuck::cast_slice_mut(words));
}

impl Step for InterpretedStep {
    fn run_all(&self, x: &Operands<'_>, y: &mut [&mut [f32]], _: bool, _: &mut Scratch) {
        let this = &self.0;
        let given = this.inputs.iter().enumerate().map(|(i, fact)| from_words(fact, x.get(i)));
        let given: Vec<Array> = match given.collect() {
            Ok(given) => given,
            Err(e) => {
                log::error!("{}: {e}", this.operator.name);
                return y.iter_mut().for_each(|y| y.fill(0.0));
            }
        };
        let mut next = given.iter();
        let inputs: Vec<Option<&Array>> = this
            .slots
            .iter()
            .map(|slot| match slot {
                Slot::Absent => None,
                Slot::Constant(array) => Some(&**array),
                Slot::Input => next.next(),
            })
            .collect();
        let outputs = this.outputs.len();
        let call = Call { opset: this.opset, attributes: &this.attributes, inputs: &inputs, outputs };
        // Dimensions and types were checked at import. What can still be wrong lies in the data: an index out of range, a
        // division by zero. A step cannot fail, so its results are zeros then, and the log says why.
        let results = this.operator.run(&call);
        if let Err(e) = &results {
            log::error!("{}: {e}", this.operator.name);
        }
        let results = results.unwrap_or_default();
        for (i, (y, fact)) in y.iter_mut().zip(&this.outputs).enumerate() {
            match results.get(i) {
                Some(array) if array.dims() == fact.dims && array.element() == fact.element => to_words(array, y),
                _ => y.fill(0.0),
            }
        }
    }

    fn describe(&self) -> String {
        format!("{} (interpreted)", self.0.operator.name)
    }
}
