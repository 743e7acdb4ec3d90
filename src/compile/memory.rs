//! Memory plan: which buffers share a part of the arena, because the one is dead before the other is written.
//!
//! Where everything lies is decided together, the largest first: in training most activations live until the backward pass, and
//! what they leave free is put together from small and large.

use super::lower::Lowered;
use crate::graph::lower::{BufferId, Origin};

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In one of the caller's inputs.
    Input(usize),
    /// Among the constants.
    Constant(usize),
    /// In the arena, so many words from its start.
    Arena(usize),
    /// In an output.
    Output(usize),
}

/// Places of all buffers.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) places: Vec<Place>,
    /// Words of four bytes of the arena.
    pub(crate) words: usize,
    /// For every step, whether its output takes the place of its first operand.
    pub(crate) in_place: Vec<bool>,
}

/// Words that places in the arena are multiples of: a cache line.
pub(super) const LINE: usize = 16;

/// What takes up a part of the arena from the step that writes it to the last that reads it: a buffer, and those that take its
/// place.
#[derive(Clone, Copy, Debug)]
struct Block {
    words: usize,
    first: usize,
    last: usize,
    /// Where it lies.
    at: usize,
}

/// Walks the steps in order to see what is written in place, and then gives every buffer its part of the arena.
pub(crate) fn plan(lowered: &mut Lowered) -> Memory {
    let last_use = last_uses(lowered);
    let mut places = fixed_places(lowered);
    let mut in_place = Vec::with_capacity(lowered.steps.len());
    let mut blocks: Vec<Block> = Vec::new();
    let mut block_of = vec![usize::MAX; lowered.buffers.len()];
    let len = |b: BufferId| lowered.buffers[b].0;
    for (i, step) in lowered.steps.iter_mut().enumerate() {
        // What is not in the arena outlives the run, and shares with nothing.
        let dies = |b: BufferId| last_use[b] == Some(i) && block_of[b] != usize::MAX;
        let mut kept = None;
        if let ([output], true) = (&step.outputs[..], step.step.in_place())
            && places[*output] == UNPLACED
            && let Some(k) = step.inputs.iter().position(|&b| dies(b) && len(b) == len(*output))
            && step.inputs.iter().filter(|&&b| b == step.inputs[k]).count() == 1
            && (k == 0 || step.step.commutes())
        {
            step.inputs.swap(0, k);
            kept = Some(block_of[step.inputs[0]]);
        }
        in_place.push(kept.is_some());
        for &output in step.outputs.iter().filter(|&&b| places[b] == UNPLACED) {
            let last = last_use[output].unwrap_or(i);
            let block = kept.unwrap_or_else(|| {
                blocks.push(Block { words: len(output), first: i, last, at: 0 });
                blocks.len() - 1
            });
            blocks[block].last = last;
            block_of[output] = block;
        }
    }
    let words = arrange(&mut blocks);
    for (place, &block) in places.iter_mut().zip(&block_of).filter(|(place, _)| **place == UNPLACED) {
        // A buffer that no step writes is not used either.
        *place = Place::Arena(blocks.get(block).map_or(0, |b| b.at));
    }
    Memory { places, words, in_place }
}

/// Finds a place for every block, the largest first: in the smallest gap between those that are alive at the same time, else
/// behind them. The words of all together.
fn arrange(blocks: &mut [Block]) -> usize {
    let mut order: Vec<usize> = (0..blocks.len()).filter(|&b| blocks[b].words > 0).collect();
    order.sort_by_key(|&b| (core::cmp::Reverse(blocks[b].words), blocks[b].first));
    // Those that have a place, by place.
    let mut placed: Vec<usize> = Vec::with_capacity(order.len());
    let mut total = 0;
    for b in order {
        let Block { words, first, last, .. } = blocks[b];
        let words = words.next_multiple_of(LINE);
        let (mut free, mut best) = (0, None);
        for &other in &placed {
            let other = blocks[other];
            if other.last < first || last < other.first {
                continue;
            }
            let gap = other.at.saturating_sub(free);
            if gap >= words && best.is_none_or(|(least, _)| gap < least) {
                best = Some((gap, free));
            }
            free = free.max(other.at + other.words.next_multiple_of(LINE));
        }
        let at = best.map_or(free, |(_, at)| at);
        blocks[b].at = at;
        total = total.max(at + words);
        let behind = placed.partition_point(|&other| blocks[other].at <= at);
        placed.insert(behind, b);
    }
    total
}

/// The place of a buffer that has none yet.
const UNPLACED: Place = Place::Arena(usize::MAX);

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
        let (facts, options) = ([Fact::f32([1, 16, 8, 8])], SessionOptions::default());
        let mut lowered = lower(model.graph().clone(), &parameters, &facts, &options, &Default::default()).unwrap();
        let memory = plan(&mut lowered);
        (lowered, memory)
    }

    #[test]
    fn a_chain_alternates_between_two_places() {
        let conv = || Conv2d::new(16, 16, 3).padding(1);
        let (lowered, memory) = planned(Sequential::new((conv(), ReLU, conv(), ReLU, conv(), ReLU, conv())));
        assert_eq!(memory.words, 2 * 16 * 8 * 8, "{:?}", memory.places);
        assert_eq!(lowered.steps.len(), 6, "a reorder in, four convolutions, a reorder out");
    }

    #[test]
    fn elementwise_steps_run_in_place() {
        let (_, memory) = planned(Sequential::new((MaxPool2d::new(2), ReLU, Sigmoid, MaxPool2d::new(2))));
        assert_eq!((memory.words, memory.in_place), (16 * 4 * 4, vec![false, true, true, false]));
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
                let (len, Place::Arena(at)) = (lowered.buffers[b].0, *place) else { continue };
                let overwritten = step.outputs.iter().any(|&o| match memory.places[o] {
                    Place::Arena(o_at) => at < o_at + lowered.buffers[o].0 && o_at < at + len,
                    _ => false,
                });
                assert!(!alive || own || !overwritten, "step {i} overwrites buffer {b}");
            }
        }
    }

    #[test]
    fn freed_parts_large_and_small_are_put_together() {
        let block = |words, first, last| Block { words, first, last, at: 0 };
        // Two small ones die, then one as large as both is written; one lives throughout.
        let mut blocks = [block(16, 0, 1), block(16, 0, 2), block(5, 0, 9), block(32, 3, 9), block(0, 0, 9)];
        assert_eq!(arrange(&mut blocks), 48);
        assert_eq!((blocks[3].at, blocks[2].at), (0, 32));
    }

    proptest::proptest! {
        #[test]
        fn blocks_that_are_alive_together_lie_apart(
            sizes in proptest::collection::vec((0usize..200, 0usize..20, 0usize..20), 0..40),
        ) {
            let block = |&(words, a, b): &(usize, usize, usize)| Block { words, first: a.min(b), last: a.max(b), at: 0 };
            let mut blocks: Vec<Block> = sizes.iter().map(block).collect();
            let total = arrange(&mut blocks);
            for (i, a) in blocks.iter().enumerate() {
                assert!(a.at % LINE == 0 && a.at + a.words <= total);
                for b in blocks[..i].iter().filter(|b| a.words > 0 && b.words > 0) {
                    let together = a.first <= b.last && b.first <= a.last;
                    assert!(!together || a.at + a.words <= b.at || b.at + b.words <= a.at, "{a:?} {b:?}");
                }
            }
        }
    }
}
