//! The driver of lowering: groups in order, then the outputs.

use std::collections::HashMap;

use swath_kernels::layout::Layout;

use super::SessionOptions;
use super::fuse::{fuse, without_identities};
use crate::conv::Options;
use crate::error::{Error, Result};
use crate::graph::lower::{BufferId, Lower, Origin, Planned};
use crate::graph::ops::SeparableStep;
use crate::graph::packed::ReadyWeights;
use crate::graph::step::level;
use crate::graph::{Fact, Graph, Group, NodeId, Parameters, ValueId};

/// An output of a compiled graph.
pub(crate) struct Output {
    pub(crate) name: String,
    /// Its buffer: computed by a step, and no other output's.
    pub(crate) buffer: BufferId,
    pub(crate) fact: Fact,
    pub(crate) layout: Layout,
}

/// A graph as steps. Buffers are not yet places in memory.
pub(crate) struct Lowered {
    pub(crate) steps: Vec<Planned>,
    /// Words of four bytes in each buffer, and where they come from.
    pub(crate) buffers: Vec<(usize, Origin)>,
    pub(crate) inputs: Vec<Fact>,
    pub(crate) outputs: Vec<Output>,
}

/// Lowers a graph for inputs of these facts. `ready` has what was packed of the same graph and parameters. Each constant is let go of
/// behind the last operator that takes it, which frees what is nobody else's: of large weights only their packed form stays.
pub(crate) fn lower(
    graph: Graph,
    parameters: &Parameters,
    inputs: &[Fact],
    options: &SessionOptions,
    ready: &ReadyWeights,
) -> Result<Lowered> {
    for fact in inputs {
        let dims = &fact.dims;
        if dims.len() >= 2 && dims[1..].contains(&0) {
            let takes = "[n, c, h, w] or [n, features], of which only n may be 0";
            return Err(Error::Rank { what: "a model", takes, gets: dims.clone() });
        }
    }
    let graph = without_identities(graph);
    let conv = Options {
        level: options.level,
        accuracy: options.accuracy,
        tuning: options.tuning.clone(),
        ..Options::blocked()
    };
    let facts = graph.infer(inputs)?;
    let groups = fuse(&graph, parameters, &facts);
    let last_uses = last_uses(&graph, &groups);
    let results = graph.outputs.clone();
    let mut l = Lower::new(graph, parameters, facts, level(options.level)?, conv, ready);
    let edge = |fact: &Fact, layout: Layout| if fact.dims.len() == 4 { layout } else { Layout::Nchw };
    for (number, (_, node)) in l.graph.inputs.clone().iter().enumerate() {
        l.bind_input(ValueId::of(*node), number, edge(&inputs[number], options.input))?;
    }
    for (group, last_uses) in groups.iter().zip(last_uses) {
        let op = l.graph.nodes[group.node].operator().expect("groups are of operators").clone();
        op.lower(group, &mut l).map_err(|e| e.in_layer(&l.graph.nodes[group.node].layer))?;
        last_uses.into_iter().for_each(|node| l.graph.forget_constant(node));
        // Outputs get their layout at once, so that whoever runs up to one of them need not run what comes behind.
        for (_, v) in results.iter().filter(|(_, v)| v.node == group.value.node) {
            l.want(*v, edge(l.fact(*v), options.output))?;
        }
    }
    let mut outputs: Vec<Output> = Vec::with_capacity(results.len());
    for (name, v) in &results {
        let fact = l.fact(*v).clone();
        let layout = edge(&fact, options.output);
        let taken: Vec<BufferId> = outputs.iter().map(|o| o.buffer).collect();
        let buffer = l.output(*v, layout, &taken)?;
        outputs.push(Output { name: name.clone(), buffer, fact, layout });
    }
    let steps = join(l.steps, &outputs);
    Ok(Lowered { steps, buffers: l.buffers, inputs: inputs.to_vec(), outputs })
}

/// Behind each group, the nodes whose values no later one takes; not those of the graph's outputs, nor what Flatten takes, which becomes
/// a view when somebody asks for it.
fn last_uses(graph: &Graph, groups: &[Group]) -> Vec<Vec<NodeId>> {
    let mut last: Vec<Option<usize>> = vec![None; graph.nodes.len()];
    for (at, group) in groups.iter().enumerate() {
        let nodes = [Some(group.node), group.norm].into_iter().flatten();
        let operands = nodes.flat_map(|node| &graph.nodes[node].inputs).chain(&group.residual);
        operands.for_each(|v| last[v.node] = Some(at));
    }
    graph.outputs.iter().for_each(|(_, v)| last[v.node] = None);
    let views = graph.nodes.iter().filter(|node| node.operator().is_some_and(|op| op.is_flatten()));
    views.for_each(|node| last[node.inputs[0].node] = None);
    let mut behind = vec![Vec::new(); groups.len()];
    for (node, at) in last.into_iter().enumerate() {
        if let Some(at) = at {
            behind[at].push(node);
        }
    }
    behind
}

/// Depthwise convolutions run together with the 1x1 convolutions that alone read what they compute, where that is faster.
fn join(steps: Vec<Planned>, outputs: &[Output]) -> Vec<Planned> {
    // By buffer: how often it is used, and the step that writes it.
    let (mut uses, mut writer) = (HashMap::new(), HashMap::new());
    let read = steps.iter().flat_map(|step| &step.inputs).chain(outputs.iter().map(|o| &o.buffer));
    read.for_each(|&b| *uses.entry(b).or_insert(0usize) += 1);
    let mut steps: Vec<Option<Planned>> = steps.into_iter().map(Some).collect();
    for i in 0..steps.len() {
        let Some(second) = &steps[i] else { continue };
        let between = second.inputs.first().copied().filter(|b| uses[b] == 1);
        let at = between.and_then(|b| writer.get(&b).copied());
        let joined = at.and_then(|at: usize| {
            let first = steps[at].as_ref()?;
            let step = SeparableStep::new([&*first.step, &*second.step])?;
            Some((at, step))
        });
        if let Some((at, step)) = joined
            && let (Some(first), Some(second)) = (steps[at].take(), &mut steps[i])
        {
            second.inputs[0] = first.inputs[0];
            second.scratch = step.scratch_len();
            second.flop = second.flop.saturating_add(first.flop);
            second.layer = [first.layer, core::mem::take(&mut second.layer)].join(", ");
            second.step = Box::new(step);
        }
        writer.extend(steps[i].iter().flat_map(|step| &step.outputs).map(|&b| (b, i)));
    }
    steps.into_iter().flatten().collect()
}
