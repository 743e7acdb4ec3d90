//! Activations that the backward pass computes once more instead of keeping them ([`Operator::again`]).
//!
//! In training a layer's input and output both live from the forward pass to the backward pass. A normalisation reads its input
//! there whatever happens, so its output is one multiply-add away, and the forward pass's copy dies as soon as the next layer has
//! read it: less memory, in a little more time.
//!
//! [`Operator::again`]: crate::graph::Operator::again

use std::collections::HashMap;

use crate::graph::{Graph, Node, NodeId, Recorded, Source, ValueId};

/// Lets the nodes from number `backward` on read what is computed again, just before the first of them that wants it.
pub(super) fn recompute(graph: &mut Graph, backward: NodeId) {
    let gradients = graph.nodes.split_off(backward);
    let mut walk = Walk { graph, backward, moved: Vec::with_capacity(gradients.len()), again: HashMap::new() };
    for mut node in gradients {
        node.inputs.iter_mut().for_each(|v| *v = walk.now(*v));
        walk.moved.push(walk.graph.nodes.len());
        walk.graph.nodes.push(node);
    }
    let Walk { moved, .. } = walk;
    for (_, v) in graph.outputs.iter_mut().filter(|(_, v)| v.node >= backward) {
        v.node = moved[v.node - backward];
    }
}

struct Walk<'a> {
    graph: &'a mut Graph,
    backward: NodeId,
    /// Where nodes of the backward pass are now.
    moved: Vec<NodeId>,
    /// Values of the forward pass, and what the backward pass has in their place.
    again: HashMap<ValueId, ValueId>,
}

impl Walk<'_> {
    /// What a node of the backward pass reads for a value.
    fn now(&mut self, v: ValueId) -> ValueId {
        if v.node >= self.backward {
            return ValueId { node: self.moved[v.node - self.backward], ..v };
        }
        if let Some(&again) = self.again.get(&v) {
            return again;
        }
        let now = self.computed(v).unwrap_or(v);
        self.again.insert(v, now);
        now
    }

    /// Appends what computes a value of the forward pass once more, if its operator offers that.
    fn computed(&mut self, v: ValueId) -> Option<ValueId> {
        let Node { source: Source::Operator(op), inputs, layer } = &self.graph.nodes[v.node] else { return None };
        let (op, operands) = (v.slot == 0).then(|| op.again(&Recorded { inputs, node: v.node })).flatten()?;
        let layer = layer.clone();
        let inputs = operands.into_iter().map(|operand| self.now(operand)).collect();
        self.graph.nodes.push(Node { source: Source::Operator(op), inputs, layer });
        Some(ValueId::of(self.graph.nodes.len() - 1))
    }
}
