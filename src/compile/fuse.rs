//! Fusion: which normalisation, residual and activation an operator takes along.
//!
//! An operator whose value is used once, by a normalisation that it [absorbs](crate::graph::Absorbs), takes that into its weights; if
//! that value is used once, by an addition, it takes the other operand as its residual; if that value is used once, by an
//! activation, it takes the activation too. What is an identity in inference is gone before. The fused operator runs where the last of
//! its nodes stood, so both operands of an addition are there. Of two convolutions that are added, the later one takes the
//! earlier one's value.

use crate::graph::{Absorbs, Fact, Graph, Group, Node, NodeId, Parameters, Source, ValueId};
use crate::tensor::Tensor;

/// Groups in an order in which they can run; nodes that the outputs do not need are left out.
pub(crate) fn fuse(graph: &Graph, parameters: &Parameters, facts: &[Vec<Fact>]) -> Vec<Group> {
    let f = Fuse { graph, parameters, facts, users: Users::of(graph) };
    let (users, mut swallowed, mut groups) = (&f.users, vec![false; graph.nodes.len()], Vec::new());
    let absorbs = |id: NodeId| graph.nodes[id].operator().map_or(Absorbs::NONE, |op| op.absorbs());
    let operators = || (0..graph.nodes.len()).filter(|&id| users.live(id) && graph.nodes[id].operator().is_some());
    // Backward, so that of two convolutions the later one gets the addition; those that absorb most go first.
    for id in operators().rev().filter(|&id| absorbs(id).residual || absorbs(id).affine) {
        groups.push(f.extend(&mut swallowed, id));
    }
    for id in operators().filter(|&id| !absorbs(id).residual && !absorbs(id).affine) {
        if !swallowed[id] {
            groups.push(f.extend(&mut swallowed, id));
        }
    }
    groups.sort_by_key(|g| g.value);
    groups
}

/// The graph without operators that are the identity in inference, such as dropout.
pub(crate) fn without_identities(mut graph: Graph) -> Graph {
    // What the first result of each node is called now. Nodes come after those they take, so one pass resolves chains.
    let mut names: Vec<ValueId> = (0..graph.nodes.len()).map(ValueId::of).collect();
    let renamed = |names: &[ValueId], v: ValueId| if v.slot == 0 { names[v.node] } else { v };
    for (id, node) in graph.nodes.iter_mut().enumerate() {
        node.inputs.iter_mut().for_each(|v| *v = renamed(&names, *v));
        if node.operator().is_some_and(|op| op.is_identity()) {
            names[id] = node.inputs[0];
        }
    }
    graph.outputs.iter_mut().for_each(|(_, v)| *v = renamed(&names, *v));
    graph
}

/// What fusion looks at.
struct Fuse<'a> {
    graph: &'a Graph,
    parameters: &'a Parameters,
    facts: &'a [Vec<Fact>],
    users: Users,
}

impl<'a> Fuse<'a> {
    /// Grows the group of an operator by what it can take along.
    fn extend(&self, swallowed: &mut [bool], node: NodeId) -> Group {
        let (mut group, nodes) = (Group::single(node), &self.graph.nodes);
        let absorbs = nodes[node].operator().map_or(Absorbs::NONE, |op| op.absorbs());
        if nodes[node].results() > 1 {
            return group;
        }
        let only_user = |v: ValueId| self.users.only(v).map(|id| (id, &nodes[id]));
        if absorbs.affine
            && let Some((norm, user)) = only_user(group.value)
            && user.inputs[0] == group.value
            && self.is_affine(user)
            && nodes[node].inputs[1..].iter().all(|&v| self.constant(v).is_some())
        {
            group.norm = Some(norm);
            group.value = ValueId::of(norm);
            swallowed[norm] = true;
        }
        if absorbs.residual
            && let Some((add, user)) = only_user(group.value)
            && user.operator().is_some_and(|op| op.is_sum())
            && self.fact(user.inputs[0]) == self.fact(user.inputs[1])
            && !swallowed[add]
        {
            group.residual = user.inputs.iter().copied().find(|&v| v != group.value);
            group.value = ValueId::of(add);
            swallowed[add] = true;
        }
        if absorbs.activation
            && let Some((act, user)) = only_user(group.value)
            && let Some(activation) = user.operator().and_then(|op| op.as_activation())
            && !swallowed[act]
        {
            group.activation = activation;
            group.value = ValueId::of(act);
            swallowed[act] = true;
        }
        group
    }

    fn fact(&self, v: ValueId) -> &Fact {
        &self.facts[v.node][v.slot]
    }

    fn constant(&self, v: ValueId) -> Option<&'a Tensor> {
        match &self.graph.nodes[v.node].source {
            Source::Parameter(p) => Some(&self.parameters[*p]),
            Source::Constant(t) => Some(t),
            _ => None,
        }
    }

    fn is_affine(&self, node: &Node) -> bool {
        let constants: Vec<Option<&Tensor>> = node.inputs.iter().map(|&v| self.constant(v)).collect();
        node.operator().is_some_and(|op| op.as_affine(&constants).is_some())
    }
}

/// Users of every value, once per use; none where the outputs do not need it. Being an output is a use of its own.
struct Users(Vec<Vec<Vec<Option<NodeId>>>>);

impl Users {
    fn of(graph: &Graph) -> Self {
        let mut users: Vec<Vec<Vec<Option<NodeId>>>> =
            graph.nodes.iter().map(|node| vec![Vec::new(); node.results()]).collect();
        for (_, v) in &graph.outputs {
            users[v.node][v.slot].push(None);
        }
        for (id, node) in graph.nodes.iter().enumerate().rev() {
            if users[id].iter().any(|slot| !slot.is_empty()) {
                node.inputs.iter().for_each(|v| users[v.node][v.slot].push(Some(id)));
            }
        }
        Self(users)
    }

    /// Whether an output depends on the node.
    fn live(&self, id: NodeId) -> bool {
        self.0[id].iter().any(|slot| !slot.is_empty())
    }

    /// The node that alone uses a value.
    fn only(&self, v: ValueId) -> Option<NodeId> {
        match self.0[v.node][v.slot][..] {
            [user] => user,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use swath_kernels::epilogue::Activation;

    use super::*;
    use crate::graph::Value;
    use crate::nn::{BatchNorm2d, Conv2d, ConvTranspose2d, Dropout, Module, Named};

    fn conv(name: &str) -> Named<Conv2d> {
        Conv2d::new(4, 4, 3).padding(1).named(name)
    }

    fn groups(f: impl Fn(&Value) -> crate::Result<Value>) -> Vec<(NodeId, NodeId, Option<NodeId>, bool)> {
        let graph = Graph::record(f).unwrap();
        let relu = |g: &Group| g.activation == Activation::Relu;
        let number = |v: ValueId| ordinal(&graph, v.node);
        let told = |g: &Group| (ordinal(&graph, g.node), number(g.value), g.residual.map(number), relu(g));
        of(&graph).iter().map(told).collect()
    }

    fn of(graph: &Graph) -> Vec<Group> {
        let parameters = graph.parameters.iter().map(|p| p.initial(0).unwrap()).collect();
        fuse(graph, &parameters, &graph.infer(&[Fact::f32([1, 4, 5, 5])]).unwrap())
    }

    /// The number of an operator among the operators, from 1; 0 is the input.
    fn ordinal(graph: &Graph, node: NodeId) -> usize {
        graph.nodes[..=node].iter().filter(|n| n.operator().is_some()).count()
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
        let graph = without_identities(Graph::record(net).unwrap());
        let [group] = &of(&graph)[..] else { panic!("one operator") };
        let number = |node: NodeId| ordinal(&graph, node);
        let numbers = (number(group.node), group.norm.map(number), number(group.value.node));
        // The second operator is the first dropout.
        assert_eq!((numbers, group.residual), ((1, Some(3), 4), Some(ValueId::of(0))));
        assert_eq!(graph.outputs[0].1, group.value);
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
