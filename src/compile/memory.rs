//! Memory plan: which buffers share a slot, because the one is dead before the other is written.

use super::lower::Lowered;
use crate::graph::lower::{BufferId, Origin};

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In one of the caller's inputs.
    Input(usize),
    /// Among the constants.
    Constant(usize),
    /// At the start of a slot.
    Slot(usize),
    /// In an output.
    Output(usize),
}

/// Places of all buffers.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) places: Vec<Place>,
    /// Words of four bytes in each slot.
    pub(crate) slots: Vec<usize>,
    /// For every step, whether its output takes the place of its first operand.
    pub(crate) in_place: Vec<bool>,
}

/// Walks the steps in order and gives every output the free slot that fits best, or its dying operand's.
pub(crate) fn plan(lowered: &mut Lowered) -> Memory {
    let last_use = last_uses(lowered);
    let mut m =
        Memory { places: fixed_places(lowered), slots: Vec::new(), in_place: Vec::with_capacity(lowered.steps.len()) };
    let len = |b: BufferId| lowered.buffers[b].0;
    let mut free: Vec<usize> = Vec::new();
    for (i, step) in lowered.steps.iter_mut().enumerate() {
        // What is not in a slot outlives the run, and shares with nothing.
        let dies = |m: &Memory, b: BufferId| last_use[b] == Some(i) && matches!(m.places[b], Place::Slot(_));
        let mut kept = None;
        if let ([output], true) = (&step.outputs[..], step.step.in_place())
            && m.places[*output] == UNPLACED
            && let Some(k) = step.inputs.iter().position(|&b| dies(&m, b) && len(b) == len(*output))
            && step.inputs.iter().filter(|&&b| b == step.inputs[k]).count() == 1
            && (k == 0 || step.step.commutes())
        {
            step.inputs.swap(0, k);
            kept = Some(step.inputs[0]);
            m.places[*output] = m.places[step.inputs[0]];
        }
        m.in_place.push(kept.is_some());
        for &output in &step.outputs {
            if m.places[output] == UNPLACED {
                m.places[output] = Place::Slot(m.take(&mut free, len(output)));
            }
        }
        for (k, &b) in step.inputs.iter().enumerate() {
            if let Place::Slot(s) = m.places[b]
                && dies(&m, b)
                && kept != Some(b)
                && !step.inputs[..k].contains(&b)
            {
                free.push(s);
            }
        }
        // Results that nobody reads.
        for &output in &step.outputs {
            if let (Place::Slot(s), None) = (m.places[output], last_use[output]) {
                free.push(s);
            }
        }
    }
    m
}

/// The place of a buffer that has none yet.
const UNPLACED: Place = Place::Slot(usize::MAX);

/// Places of inputs, constants and outputs.
fn fixed_places(lowered: &Lowered) -> Vec<Place> {
    let mut constants = 0;
    let mut places: Vec<Place> = lowered
        .buffers
        .iter()
        .map(|(_, origin)| match origin {
            Origin::Input(number) => Place::Input(*number),
            Origin::Constant(_) => {
                constants += 1;
                Place::Constant(constants - 1)
            }
            Origin::Step => UNPLACED,
        })
        .collect();
    for (number, output) in lowered.outputs.iter().enumerate() {
        places[output.buffer] = Place::Output(number);
    }
    places
}

impl Memory {
    /// The smallest free slot that is large enough, else the largest one, grown, else a new one.
    fn take(&mut self, free: &mut Vec<usize>, len: usize) -> usize {
        let large_enough = (0..free.len()).filter(|&k| self.slots[free[k]] >= len).min_by_key(|&k| self.slots[free[k]]);
        let Some(k) = large_enough.or_else(|| (0..free.len()).max_by_key(|&k| self.slots[free[k]])) else {
            self.slots.push(len);
            return self.slots.len() - 1;
        };
        let slot = free.swap_remove(k);
        self.slots[slot] = self.slots[slot].max(len);
        slot
    }
}

/// The last step that reads each buffer.
fn last_uses(lowered: &Lowered) -> Vec<Option<usize>> {
    let mut last = vec![None; lowered.buffers.len()];
    for (i, step) in lowered.steps.iter().enumerate() {
        step.inputs.iter().for_each(|&b| last[b] = Some(i));
    }
    last
}

#[cfg(test)]
mod tests {
    use super::super::SessionOptions;
    use super::super::lower::lower;
    use super::*;
    use crate::graph::Fact;
    use crate::nn::{Conv2d, MaxPool2d, Module, ReLU, Sequential, Sigmoid};

    fn planned(model: impl Module) -> (Lowered, Memory) {
        let model = model.build(0).unwrap();
        let parameters: Vec<_> = model.state().map(|(_, t)| t.clone()).collect();
        let mut lowered =
            lower(model.graph(), &parameters, &[Fact::f32([1, 16, 8, 8])], &SessionOptions::default()).unwrap();
        let memory = plan(&mut lowered);
        (lowered, memory)
    }

    #[test]
    fn a_chain_alternates_between_two_slots() {
        let conv = || Conv2d::new(16, 16, 3).padding(1);
        let (lowered, memory) = planned(Sequential::new((conv(), ReLU, conv(), ReLU, conv(), ReLU, conv())));
        assert_eq!(memory.slots.len(), 2, "{:?}", memory.places);
        assert_eq!(lowered.steps.len(), 6, "a reorder in, four convolutions, a reorder out");
    }

    #[test]
    fn elementwise_steps_run_in_place() {
        let (_, memory) = planned(Sequential::new((MaxPool2d::new(2), ReLU, Sigmoid, MaxPool2d::new(2))));
        assert_eq!((memory.slots.len(), memory.in_place), (1, vec![false, true, true, false]));
    }

    #[test]
    fn nothing_is_overwritten_while_it_is_alive() {
        let conv = |name: &str| Conv2d::new(16, 16, 3).padding(1).named(name);
        let (a, b, c) = (conv("a"), conv("b"), conv("c"));
        let (lowered, memory) = planned(move |x: &crate::Value| {
            let x = a.call(x)?;
            let y = b.call(&x)?.sigmoid();
            let z = c.call(&y)?;
            Ok((x.concat(&[&y, &z]) + x.concat(&[&z, &y])).relu())
        });
        let last = last_uses(&lowered);
        for (i, step) in lowered.steps.iter().enumerate() {
            for (b, place) in memory.places.iter().enumerate() {
                let written = lowered.steps.iter().position(|s| s.outputs.contains(&b));
                let alive = written.is_some_and(|w| w < i) && last[b].is_some_and(|last| last >= i);
                let own = memory.in_place[i] && step.inputs[0] == b;
                let overwritten = step.outputs.iter().any(|&o| *place == memory.places[o]);
                assert!(!alive || own || !overwritten, "step {i} overwrites buffer {b}");
            }
        }
    }
}
