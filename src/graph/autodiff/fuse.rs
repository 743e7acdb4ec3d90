//! Fusion in training: an operator takes along the sum and the activation behind it ([`Operator::in_training_with`]).
//!
//! [`Operator::in_training_with`]: crate::graph::Operator::in_training_with
//!
//! A layer between two convolutions is bound by memory, and a pass over its values that another pass can do as well is time for
//! nothing. Values that are used elsewhere, by gradients too, stay: so an activation is taken only where its output suffices
//! for its gradient.

use swath_kernels::epilogue::Activation;

use crate::graph::{Fact, Graph, Node, NodeId, Source, ValueId};

/// Fuses what can be. Nodes that were taken along stay, without users.
pub(super) fn fuse(graph: &mut Graph, facts: &[Vec<Fact>]) {
    let mut users = users(graph);
    // Backward, so that of two operators that are added, the later one gets the sum: the other's result is there by then.
    for id in (0..graph.nodes.len()).rev() {
        let Some(op) = graph.nodes[id].operator().cloned() else { continue };
        if op.in_training_with(false, Activation::Identity).is_none() {
            continue;
        }
        let first = ValueId::of(id);
        let (mut value, mut residual, mut activation) = (first, None, Activation::Identity);
        let only = |v: ValueId| match users[v.node][..] {
            [Some(user)] => Some((user, &graph.nodes[user])),
            _ => None,
        };
        if let Some((sum, node)) = only(value)
            && let Some(other) = other_of_sum(node, value).filter(|other| other.node < id)
            && fact(facts, other) == fact(facts, value)
        {
            (value, residual) = (ValueId::of(sum), Some((sum, other)));
        }
        if let Some((user, node)) = only(value)
            && let Some(function) = node.operator().and_then(|op| op.as_activation())
            && op.in_training_with(residual.is_some(), function).is_some()
        {
            (value, activation) = (ValueId::of(user), function);
        }
        if value == first {
            continue;
        }
        let Some(fused) = op.in_training_with(residual.is_some(), activation) else { continue };
        graph.nodes[id].source = Source::Operator(fused);
        if let Some((sum, residual)) = residual {
            graph.nodes[id].inputs.push(residual);
            users[residual.node].iter_mut().filter(|user| **user == Some(sum)).for_each(|user| *user = Some(id));
        }
        // Whoever used the last of what was taken along uses the operator now.
        let moved = core::mem::take(&mut users[value.node]);
        let rename = |v: &mut ValueId| *v = if *v == value { first } else { *v };
        moved.iter().flatten().for_each(|&user| graph.nodes[user].inputs.iter_mut().for_each(rename));
        graph.outputs.iter_mut().for_each(|(_, v)| rename(v));
        users[id] = moved;
    }
}

/// Users of the first result of every node, once per use. Being an output is a use of its own, and so are other results.
fn users(graph: &Graph) -> Vec<Vec<Option<NodeId>>> {
    let mut users = vec![Vec::new(); graph.nodes.len()];
    for (_, v) in graph.outputs.iter().filter(|(_, v)| v.slot == 0) {
        users[v.node].push(None);
    }
    for (id, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().filter(|v| v.slot == 0).for_each(|v| users[v.node].push(Some(id)));
    }
    users
}

/// What a sum adds to a value.
fn other_of_sum(node: &Node, value: ValueId) -> Option<ValueId> {
    let sum = node.operator().is_some_and(|op| op.is_sum());
    sum.then(|| node.inputs.iter().copied().find(|&v| v != value)).flatten()
}

fn fact(facts: &[Vec<Fact>], v: ValueId) -> &Fact {
    &facts[v.node][v.slot]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Value;
    use crate::graph::autodiff::Wanted;
    use crate::nn::{BatchNorm2d, Module};

    /// Names of the operators that are left in a network in training, before gradients.
    fn left(f: impl Fn(&Value) -> crate::Result<Value>) -> Vec<String> {
        let graph = Graph::record(f).unwrap();
        let all = Wanted { loss: 0, trained: &|_| true, frozen: &|_| false, inputs: &[], recompute: false };
        let mut d = graph.training(&[Fact::f32([2, 4, 3, 3])], &all).unwrap();
        let facts = d.graph.infer(&d.inputs).unwrap();
        fuse(&mut d.graph, &facts);
        d.graph.infer(&d.inputs).unwrap();
        let (nodes, mut live) = (&d.graph.nodes, vec![false; d.graph.nodes.len()]);
        d.graph.outputs.iter().for_each(|(_, v)| live[v.node] = true);
        for (id, node) in nodes.iter().enumerate().rev() {
            node.inputs.iter().for_each(|v| live[v.node] |= live[id]);
        }
        let operators =
            nodes.iter().zip(live).filter(|(_, live)| *live).filter_map(|(node, _)| Some((node.operator()?, node)));
        operators.map(|(op, node)| format!("{} of {}", op.name(), node.inputs.len())).collect()
    }

    #[test]
    fn a_normalisation_takes_the_sum_and_the_activation_behind_it() {
        let (a, b) = (BatchNorm2d::new(4).named("a"), BatchNorm2d::new(4).named("b"));
        assert_eq!(left(|x| Ok(a.call(x)?.relu())), ["BatchNorm2d of 5"]);
        assert_eq!(left(|x| Ok((a.call(x)? + x).relu())), ["BatchNorm2d of 6"]);
        // Of two, the later one.
        assert_eq!(left(|x| Ok((a.call(x)? + b.call(x)?).relu())), ["BatchNorm2d of 5", "BatchNorm2d of 6"]);
        assert_eq!(left(|x| b.call(&a.call(x)?.relu())), ["BatchNorm2d of 5", "BatchNorm2d of 5"]);
        // What is used elsewhere stays, and so does a function that needs its input for its gradient.
        let twice = left(|x| {
            let y = a.call(x)?;
            Ok(y.relu() + &y)
        });
        assert_eq!(twice, ["BatchNorm2d of 5", "ReLU of 1", "Add of 2"]);
        let square = left(|x| {
            let y = a.call(x)?;
            Ok(&y + &y)
        });
        assert_eq!(square, ["BatchNorm2d of 5", "Add of 2"]);
        assert_eq!(left(|x| Ok(a.call(x)?.silu())), ["BatchNorm2d of 5", "SiLU of 1"]);
        // The residual comes after it.
        let late = left(|x| {
            let y = a.call(x)?;
            Ok(y + x.relu())
        });
        assert_eq!(late, ["BatchNorm2d of 5", "ReLU of 1", "Add of 2"]);
    }
}
