//! Memory plan: which buffers share a slot, because the one is dead before the other is written.

use super::lower::{BufferId, Lowered};

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the caller's input.
    Input,
    /// At the start of a slot.
    Slot(usize),
    /// In the output.
    Output,
}

/// Places of all buffers.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) places: Vec<Place>,
    /// Floats in each slot.
    pub(crate) slots: Vec<usize>,
    /// For every step, whether its output takes the place of its first operand.
    pub(crate) in_place: Vec<bool>,
}

/// Walks the steps in order and gives every output the free slot that fits best, or its dying operand's.
pub(crate) fn plan(lowered: &mut Lowered) -> Memory {
    let last_use = last_uses(lowered);
    let mut m = Memory {
        places: vec![Place::Output; lowered.lens.len()],
        slots: Vec::new(),
        in_place: Vec::with_capacity(lowered.steps.len()),
    };
    m.places[0] = Place::Input;
    let mut free: Vec<usize> = Vec::new();
    for (i, step) in lowered.steps.iter_mut().enumerate() {
        let dies = |b: BufferId| last_use[b] == i && b != 0 && b != lowered.output;
        let fits = |b: BufferId| dies(b) && lowered.lens[b] == lowered.lens[step.output];
        let mut reused = None;
        if step.forward.in_place() && step.output != lowered.output {
            // In-place steps of two operands commute, so either may be the first.
            if let Some(k) = step.inputs.iter().position(|&b| fits(b))
                && step.inputs.iter().filter(|&&b| b == step.inputs[k]).count() == 1
            {
                step.inputs.swap(0, k);
                reused = Some(m.places[step.inputs[0]]);
            }
        }
        m.in_place.push(reused.is_some());
        m.places[step.output] = match reused {
            Some(place) => place,
            // The output outlives the run, so it shares with nothing.
            None if step.output == lowered.output => Place::Output,
            None => Place::Slot(m.take(&mut free, lowered.lens[step.output])),
        };
        for (k, &b) in step.inputs.iter().enumerate() {
            let kept = k == 0 && reused.is_some();
            let seen = step.inputs[..k].contains(&b);
            if let Place::Slot(s) = m.places[b]
                && dies(b)
                && !kept
                && !seen
            {
                free.push(s);
            }
        }
    }
    m
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
fn last_uses(lowered: &Lowered) -> Vec<usize> {
    let mut last = vec![usize::MAX; lowered.lens.len()];
    for (i, step) in lowered.steps.iter().enumerate() {
        step.inputs.iter().for_each(|&b| last[b] = i);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::super::SessionOptions;
    use super::super::lower::lower;
    use super::*;
    use crate::nn::{Conv2d, MaxPool2d, Module, ReLU, Sequential, Sigmoid};

    fn planned(model: impl Module) -> (Lowered, Memory) {
        let model = model.build(0).unwrap();
        let parameters: Vec<_> = model.state().map(|(_, t)| t.clone()).collect();
        let mut lowered = lower(model.graph(), &parameters, &[1, 16, 8, 8], &SessionOptions::default()).unwrap();
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
                let written = lowered.steps.iter().position(|s| s.output == b);
                let alive = written.is_some_and(|w| w < i) && last[b] >= i && last[b] != usize::MAX;
                let own = memory.in_place[i] && step.inputs[0] == b;
                assert!(!alive || own || *place != memory.places[step.output], "step {i} overwrites buffer {b}");
            }
        }
    }
}
