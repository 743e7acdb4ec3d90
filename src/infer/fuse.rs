//! Fusion: which normalisation, residual and activation a convolution takes along.
//!
//! A convolution or Linear whose value is used once, by a batch normalisation, takes that into its weights; if that
//! value is used once, by an addition, it takes the other operand as its residual; if that value is used once, by an
//! activation, it takes the activation too. Transposed convolutions take no residual, Linear no normalisation, batch
//! normalisations on their own only an activation. Dropout is gone before. The fused operator runs where the last of its
//! nodes stood, so both operands of an addition are there. Of two convolutions that are added, the later one takes the
//! earlier one's value.

use swath_kernels::epilogue::Activation;

use crate::graph::{Graph, NodeId, Op};

/// Nodes that run as one operator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    /// The operator.
    pub(crate) node: NodeId,
    /// The batch normalisation behind it.
    pub(crate) norm: Option<NodeId>,
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
    let convolution = |id: NodeId| matches!(graph.nodes[id].op, Op::Conv2d(_) | Op::ConvTranspose2d(_) | Op::Linear(_));
    for id in (0..graph.nodes.len()).rev().filter(|&id| needed(id) && convolution(id)) {
        groups.push(extend(graph, &users, &mut swallowed, id));
    }
    for id in (0..graph.nodes.len()).filter(|&id| needed(id) && !convolution(id)) {
        if !swallowed[id] && !matches!(graph.nodes[id].op, Op::Input) {
            groups.push(extend(graph, &users, &mut swallowed, id));
        }
    }
    groups.sort_by_key(|g| g.value);
    groups
}

/// The graph without its dropout, which is the identity in inference.
pub(crate) fn without_dropout(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    // What each value is called now. Nodes come after those they take, so one pass resolves chains.
    let mut names: Vec<NodeId> = (0..graph.nodes.len()).collect();
    for (id, node) in graph.nodes.iter_mut().enumerate() {
        node.inputs.iter_mut().for_each(|i| *i = names[*i]);
        if let Op::Dropout(_) = node.op {
            names[id] = node.inputs[0];
        }
    }
    graph.output = names[graph.output];
    graph
}

/// Grows the group of an operator by what it can take along.
fn extend(graph: &Graph, users: &[Vec<NodeId>], swallowed: &mut [bool], node: NodeId) -> Group {
    let mut group = Group { node, norm: None, value: node, residual: None, activation: Activation::Identity };
    let op = &graph.nodes[node].op;
    let only_user = |value: NodeId| match users[value][..] {
        [user] => graph.nodes.get(user).map(|node| (user, node)),
        _ => None,
    };
    if let Some((norm, user)) = only_user(node)
        && matches!((op, &user.op), (Op::Conv2d(_) | Op::ConvTranspose2d(_), Op::BatchNorm2d(_)))
    {
        group.norm = Some(norm);
        group.value = norm;
        swallowed[norm] = true;
    }
    if let Some((add, user)) = only_user(group.value)
        && matches!((op, &user.op), (Op::Conv2d(_) | Op::Linear(_), Op::Add(_)))
        && !swallowed[add]
    {
        group.residual = user.inputs.iter().copied().find(|&v| v != group.value);
        group.value = add;
        swallowed[add] = true;
    }
    if let Some((act, user)) = only_user(group.value)
        && matches!(op, Op::Conv2d(_) | Op::ConvTranspose2d(_) | Op::Linear(_) | Op::BatchNorm2d(_))
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
    use crate::nn::{BatchNorm2d, Conv2d, ConvTranspose2d, Dropout, Module, Named};

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
    fn a_normalisation_goes_into_the_convolution_that_nothing_else_reads() {
        let (a, up, norm) = (conv("a"), ConvTranspose2d::new(4, 4, 1).named("up"), BatchNorm2d::new(4).named("norm"));
        let got = groups(|x| Ok((norm.call(&a.call(x)?)? + x).relu()));
        assert_eq!(got, [(1, 4, Some(0), true)]);
        // A transposed convolution takes the normalisation, and leaves the sum to a step of its own.
        let got = groups(|x| Ok((norm.call(&up.call(x)?)? + x).relu()));
        assert_eq!(got, [(1, 2, None, false), (3, 3, None, false), (4, 4, None, false)]);
        // Read twice, it stays, and the normalisation takes the activation along.
        let got = groups(|x| {
            let y = a.call(x)?;
            Ok(norm.call(&y)?.relu() + &y)
        });
        assert_eq!(got, [(1, 1, None, false), (2, 3, None, true), (4, 4, None, false)]);
    }

    #[test]
    fn dropout_does_not_stand_between() {
        let (a, norm) = (conv("a"), BatchNorm2d::new(4).named("norm"));
        let dropout = Dropout::new(0.5);
        let net = |x: &Value| dropout.call(&(norm.call(&dropout.call(&a.call(x)?)?)? + x));
        let graph = without_dropout(&Graph::record(net).unwrap());
        let [group] = &fuse(&graph)[..] else { panic!("one operator") };
        assert_eq!((group.node, group.norm, group.value, group.residual), (1, Some(3), 4, Some(0)));
        assert_eq!(graph.output, 4);
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
