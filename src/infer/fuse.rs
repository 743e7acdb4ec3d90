//! Fusion: which residual and activation a convolution takes along.
//!
//! A convolution (or Linear) whose value is used once, by an addition, takes the other operand as its residual; if
//! that value is used once, by an activation, it takes the activation too. The fused operator runs where the last of
//! its nodes stood, so both operands of an addition are there. Of two convolutions that are added, the later one takes the
//! earlier one's value.

use swath_kernels::epilogue::Activation;

use crate::graph::{Graph, NodeId, Op};

/// Nodes that run as one operator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    /// The operator.
    pub(crate) node: NodeId,
    /// The node whose value the group computes.
    pub(crate) value: NodeId,
    pub(crate) residual: Option<NodeId>,
    pub(crate) activation: Activation,
}

/// Groups in an order in which they can run; nodes that the output does not need are left out.
pub(crate) fn fuse(graph: &Graph) -> Vec<Group> {
    let users = users(graph);
    let needed = |id: NodeId| !users[id].is_empty();
    let mut swallowed = vec![false; graph.nodes.len()];
    let mut groups = Vec::new();
    // Backward, so that of two convolutions the later one gets the addition.
    for (id, node) in graph.nodes.iter().enumerate().rev().filter(|(id, _)| needed(*id)) {
        if matches!(node.op, Op::Conv2d(_) | Op::Linear(_)) {
            let group = extend(graph, &users, &mut swallowed, id);
            groups.push(group);
        }
    }
    for (id, node) in graph.nodes.iter().enumerate().filter(|(id, _)| needed(*id)) {
        if !swallowed[id] && !matches!(node.op, Op::Input | Op::Conv2d(_) | Op::Linear(_)) {
            groups.push(Group { node: id, value: id, residual: None, activation: Activation::Identity });
        }
    }
    groups.sort_by_key(|g| g.value);
    groups
}

/// Grows the group of a convolution by an addition and an activation.
fn extend(graph: &Graph, users: &[Vec<NodeId>], swallowed: &mut [bool], node: NodeId) -> Group {
    let mut group = Group { node, value: node, residual: None, activation: Activation::Identity };
    let only_user = |value: NodeId| match users[value][..] {
        [user] => graph.nodes.get(user).map(|node| (user, node)),
        _ => None,
    };
    if let Some((add, user)) = only_user(node)
        && matches!(user.op, Op::Add(_))
        && !swallowed[add]
    {
        group.residual = user.inputs.iter().copied().find(|&v| v != node);
        group.value = add;
        swallowed[add] = true;
    }
    if let Some((act, user)) = only_user(group.value)
        && let Op::Activation(activation) = user.op
    {
        group.activation = activation;
        group.value = act;
        swallowed[act] = true;
    }
    group
}

/// Users of every value, once per use; none where the output does not need it. The output's own user is the number of
/// nodes.
fn users(graph: &Graph) -> Vec<Vec<NodeId>> {
    let mut users = vec![Vec::new(); graph.nodes.len()];
    users[graph.output].push(graph.nodes.len());
    for (id, node) in graph.nodes.iter().enumerate().rev() {
        if !users[id].is_empty() {
            node.inputs.iter().for_each(|&i| users[i].push(id));
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Value;
    use crate::nn::{Conv2d, Module, Named};

    fn conv(name: &str) -> Named<Conv2d> {
        Conv2d::new(4, 4, 3).padding(1).named(name)
    }

    fn groups(f: impl Fn(&Value) -> crate::Result<Value>) -> Vec<(NodeId, NodeId, Option<NodeId>, bool)> {
        let graph = Graph::record(f).unwrap();
        let relu = |g: &Group| g.activation == Activation::Relu;
        fuse(&graph).iter().map(|g| (g.node, g.value, g.residual, relu(g))).collect()
    }

    #[test]
    fn a_residual_block_is_two_operators() {
        let (a, b) = (conv("a"), conv("b"));
        let got = groups(|x| Ok((b.call(&a.call(x)?.relu())? + x).relu()));
        assert_eq!(got, [(1, 2, None, true), (3, 5, Some(0), true)]);
    }

    #[test]
    fn of_two_added_convolutions_the_later_one_takes_the_sum() {
        let (a, b) = (conv("a"), conv("b"));
        let got = groups(|x| Ok(a.call(x)? + b.call(x)?));
        assert_eq!(got, [(1, 1, None, false), (2, 3, Some(1), false)]);
    }

    #[test]
    fn what_is_used_elsewhere_is_not_swallowed() {
        let a = conv("a");
        let got = groups(|x| {
            let y = a.call(x)?;
            Ok(y.relu() + &y)
        });
        assert_eq!(got, [(1, 1, None, false), (2, 2, None, false), (3, 3, None, false)]);
        let got = groups(|x| {
            let y = a.call(x)?;
            Ok(&y + &y)
        });
        assert_eq!(got, [(1, 1, None, false), (2, 2, None, false)]);
    }

    #[test]
    fn unused_values_are_not_computed() {
        let (a, b) = (conv("a"), conv("b"));
        let got = groups(|x| {
            let _ = a.call(x)?.relu();
            b.call(x)
        });
        assert_eq!(got, [(3, 3, None, false)]);
    }
}
